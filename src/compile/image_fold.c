/* image_fold.c - what can disappear into a node of a program on images
 *
 * A batch norm in front of a function belongs to the sums that the function reads. One behind it
 * makes every channel a line of its own, which depends on who reads it. */
#include "compile/image.h"

/* Who reads what becomes of a layer's outputs, through changes of shape, batch norms, max pools
 * and concatenations. */
enum {
    FATE_TREES = 1,
    FATE_EXACT = 2, /* and everything else that reads numbers */
    FATE_ADD = 4,
    FATE_MAX = 8,
    FATE_PADS = 16, /* somebody pads it */
    FATE_SCORES = 32
};

bool nimbus_layer_slides_off(const nimbus_layer *layer)
{
    const nimbus_slide *s = &layer->slide;
    return s->before[0] + s->before[1] + s->after[0] + s->after[1] > 0;
}

/* ---- what becomes of a layer's outputs ---------------------------------------------------------
 */

/* Whether a batch norm behind layer i would be a step of its own whatever it is. */
static bool ends_folding(const nimbus_image_build *b, size_t i)
{
    const nimbus_layer *layer = &b->net->layers[i];
    while (b->n_readers[i] == 1 &&
           (nimbus_layer_changes_nothing(layer) || layer->type == &nimbus_layer_transpose)) {
        i = layer->input[0];
        layer = &b->net->layers[i];
    }
    return b->n_readers[i] > 1 || layer->type == &nimbus_layer_max_pool ||
           layer->type == &nimbus_layer_concat;
}

/* What reading layer j means for layer i. */
static unsigned fate_of_reading(const nimbus_image_build *b, size_t i, size_t j)
{
    const nimbus_layer *layer = &b->net->layers[j];
    unsigned pads = nimbus_layer_slides_off(layer) ? FATE_PADS : 0;
    if (layer->type == &nimbus_layer_batch_norm)
        return ends_folding(b, i) ? FATE_EXACT : b->fates[j];
    if (nimbus_layer_changes_nothing(layer) || layer->type == &nimbus_layer_transpose ||
        layer->type == &nimbus_layer_concat)
        return b->fates[j];
    if (layer->type == &nimbus_layer_pad)
        return b->fates[j] | pads;
    if (layer->type == &nimbus_layer_max_pool)
        return b->fates[j] | FATE_MAX;
    if (layer->type == &nimbus_layer_add)
        return FATE_ADD;
    return (nimbus_layer_uses_lookup(layer) ? FATE_TREES : FATE_EXACT) | pads;
}

nimbus_status nimbus_image_find_fates(nimbus_image_build *b, nimbus_error *error)
{
    const nimbus_net *net = b->net;
    b->n_readers = nimbus_alloc(net->n_layers, sizeof *b->n_readers);
    b->fates = nimbus_alloc(net->n_layers, sizeof *b->fates);
    b->tensors = nimbus_alloc(net->n_layers, sizeof *b->tensors);
    if (!b->n_readers || !b->fates || !b->tensors)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to compile %zu layers",
                           net->n_layers);
    b->n_readers[net->n_layers - 1] = 1;
    b->fates[net->n_layers - 1] = FATE_SCORES;
    for (size_t j = net->n_layers; j-- > 1;)
        for (size_t k = 0; b->n_readers[j] > 0 && k < net->layers[j].n_inputs; k++)
            b->n_readers[net->layers[j].input[k]]++;
    for (size_t j = net->n_layers; j-- > 1;)
        for (size_t k = 0; b->n_readers[j] > 0 && k < net->layers[j].n_inputs; k++) {
            size_t i = net->layers[j].input[k];
            b->fates[i] |= fate_of_reading(b, i, j);
        }
    return NIMBUS_OK;
}

/* Whether batch norm i can stand behind what its node computes. Numbers in which every channel has
 * a line of its own serve readers that multiply or compare; where they are padded, 0 has to be one
 * of the numbers, which it is not below a function's least value unless only trees look. */
static bool can_scale_after(const nimbus_image_build *b, const nimbus_node *node, size_t i)
{
    unsigned fates = b->fates[i];
    if (nimbus_node_is_product(node) && nimbus_function_is_monotone(node->post.function) &&
        !(fates & ~(unsigned)(FATE_TREES | FATE_MAX | FATE_PADS)))
        return true;
    return !(fates & (FATE_PADS | FATE_MAX | FATE_ADD | FATE_SCORES));
}

bool nimbus_image_fold(nimbus_image_build *b, nimbus_node *node, size_t i)
{
    const nimbus_layer *layer = &b->net->layers[i];
    bool counts = nimbus_node_is_product(node) || node->kind == NIMBUS_NODE_AVERAGE_POOL;
    bool free = node->post.function == NIMBUS_F_IDENTITY && !node->affine_after;
    if (node->kind == NIMBUS_NODE_MAX_POOL || node->kind == NIMBUS_NODE_CONCAT)
        return false;
    if (layer->type == &nimbus_layer_batch_norm) {
        if (layer->shape.channels != node->shape.channels)
            return false;
        if (!(counts && free)) {
            if (!can_scale_after(b, node, i))
                return false;
            nimbus_post_take_batch_norm(&node->post, layer, true);
            node->affine_after = true;
            return true;
        }
        nimbus_post_take_batch_norm(&node->post, layer, false);
    } else {
        nimbus_function f = nimbus_function_of(layer);
        if (!free || !(counts || (node->kind == NIMBUS_NODE_ADD && f == NIMBUS_F_RELU)))
            return false;
        nimbus_post_take_function(&node->post, layer);
        node->before = layer->input[0];
    }
    node->at = i;
    return true;
}
