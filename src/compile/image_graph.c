/* image_graph.c - the layers of a net become the nodes of a program on images
 *
 * Layers are taken in their order. Batch norms and functions are folded into the node whose value
 * they alone read; where that cannot be, they are a node of their own, an exact convolution that
 * takes every channel as it is. Changes of shape only say how a linear layer's columns are called,
 * and zeros in front of a convolution are its own padding. */
#include <string.h>

#include "compile/image.h"

void nimbus_node_free(nimbus_node *node)
{
    nimbus_post_free(&node->post);
    nimbus_free(node->step);
    nimbus_free(node->zero);
    nimbus_free(node->unit);
    nimbus_free(node->constant);
    nimbus_free(node->weight);
    nimbus_free(node->pad);
    nimbus_free(node->cuts);
    nimbus_free(node->zero_above);
    nimbus_free(node->splits);
    nimbus_free(node->used);
    nimbus_free(node->live);
    nimbus_free(node->bias);
    nimbus_free(node->scale);
    nimbus_free(node->offset);
}

size_t nimbus_image_origin(const nimbus_image_build *b, size_t node, size_t *channel)
{
    for (;;) {
        const nimbus_node *n = &b->nodes[node];
        size_t k = 0;
        if (n->kind != NIMBUS_NODE_MAX_POOL && n->kind != NIMBUS_NODE_CONCAT)
            return node;
        while (*channel >= b->nodes[n->sources[k]].shape.channels)
            *channel -= b->nodes[n->sources[k++]].shape.channels;
        node = n->sources[k];
    }
}

/* ---- nodes -------------------------------------------------------------------------------------
 */

static nimbus_status add_node(nimbus_image_build *b, nimbus_node proto, size_t *index,
                              nimbus_error *error)
{
    if (b->n_nodes == b->capacity) {
        size_t n = 2 * b->capacity + 16;
        nimbus_node *grown = nimbus_realloc(b->nodes, b->capacity, n, sizeof *grown);
        if (!grown)
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu steps", n);
        b->nodes = grown;
        b->capacity = n;
    }
    *index = b->n_nodes++;
    nimbus_node *node = &b->nodes[*index];
    *node = proto;
    node->low = -128;
    node->high = 127;
    size_t m = node->shape.channels;
    if (proto.n_sources > 0)
        node->in = b->nodes[proto.sources[0]].shape;
    node->live = nimbus_alloc(m, sizeof *node->live);
    if (!node->live)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", proto.layer->name);
    return nimbus_post_new(&node->post, m, error);
}

/* A tensor that is the node's value itself. */
static nimbus_tensor tensor_of(const nimbus_image_build *b, size_t node, size_t layer)
{
    return (nimbus_tensor){
        .node = node, .shape = b->nodes[node].shape, .sole = b->n_readers[layer] == 1};
}

/* A node that takes every channel of another as it is. */
static nimbus_status add_plain(nimbus_image_build *b, size_t source, size_t before, size_t layer,
                               size_t *index, nimbus_error *error)
{
    nimbus_shape shape = b->nodes[source].shape;
    return add_node(b,
                    (nimbus_node){.kind = NIMBUS_NODE_EXACT,
                                  .layer = &b->net->layers[layer],
                                  .n_sources = 1,
                                  .sources = {source},
                                  .shape = shape,
                                  .plain = true,
                                  .slide = {.kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}},
                                  .groups = shape.channels,
                                  .before = before,
                                  .at = layer},
                    index, error);
}

static nimbus_status claim_input(nimbus_image_build *b, nimbus_shape shape, nimbus_error *error)
{
    nimbus_node *input = &b->nodes[0];
    nimbus_post_free(&input->post);
    nimbus_free(input->live);
    input->shape = shape;
    input->live = nimbus_alloc(shape.channels, sizeof *input->live);
    b->input_claimed = true;
    if (!input->live)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu channels", shape.channels);
    return nimbus_post_new(&input->post, shape.channels, error);
}

/* Input k of layer i as an image of the node it comes from. The input image itself takes the first
 * shape that it is read in. */
static nimbus_status take_image(nimbus_image_build *b, size_t i, size_t k, nimbus_tensor *out,
                                nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    *out = b->tensors[layer->input[k]];
    nimbus_shape *shape = &b->nodes[out->node].shape;
    if (out->node == 0 && !out->order && !b->input_claimed) {
        nimbus_status status = claim_input(b, out->shape, error);
        if (status)
            return status;
    }
    if (out->order || shape->channels != out->shape.channels ||
        shape->height != out->shape.height || shape->width != out->shape.width)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s (%s) reads an image whose elements were put in another order "
                           "or shape; in a program only linear layers can",
                           layer->name, layer->type->name);
    return NIMBUS_OK;
}

static nimbus_status refuse_pads(const nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    for (size_t k = 0; k < layer->n_inputs; k++)
        if (b->tensors[layer->input[k]].padded)
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s (%s) reads a padded image; in a program only "
                               "convolutions and average pools can",
                               layer->name, layer->type->name);
    return NIMBUS_OK;
}

/* ---- batch norms and functions -----------------------------------------------------------------
 */

static nimbus_status take_elementwise(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    size_t from = layer->input[0];
    nimbus_tensor image;
    nimbus_status status = refuse_pads(b, i, error);
    if (status == NIMBUS_OK && layer->type == &nimbus_layer_batch_norm)
        status = take_image(b, i, 0, &image, error);
    if (status)
        return status;
    nimbus_tensor *tensor = &b->tensors[i], *source = &b->tensors[from];
    *tensor = *source;
    source->order = NULL; /* moves on */
    if (!source->sole && tensor->order) {
        size_t n = nimbus_shape_width(tensor->shape);
        source->order = nimbus_alloc(n, sizeof *source->order);
        if (!source->order)
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
        memcpy(source->order, tensor->order, n * sizeof *source->order);
    }
    if (!source->sole || !nimbus_image_fold(b, &b->nodes[source->node], i)) {
        if ((status = add_plain(b, source->node, from, i, &tensor->node, error)))
            return status;
        if (!nimbus_image_fold(b, &b->nodes[tensor->node], i))
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s (%s) cannot be part of a program where it stands",
                               layer->name, layer->type->name);
        tensor->sole = true;
    }
    tensor->sole &= b->n_readers[i] == 1;
    return NIMBUS_OK;
}

/* ---- changes of shape --------------------------------------------------------------------------
 */

/* Element of the input that element e of a transposed output is. */
static size_t transposed(const nimbus_layer *layer, size_t e)
{
    const size_t out[] = {layer->shape.channels, layer->shape.height, layer->shape.width};
    const size_t in[] = {layer->in_shape.channels, layer->in_shape.height, layer->in_shape.width};
    const size_t at[] = {e / (out[1] * out[2]), e / out[2] % out[1], e % out[2]};
    size_t from[3];
    for (size_t axis = 0; axis < 3; axis++)
        from[layer->order[axis]] = at[axis];
    return (from[0] * in[1] + from[1]) * in[2] + from[2];
}

static nimbus_status take_shape(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    const nimbus_tensor *source = &b->tensors[layer->input[0]];
    nimbus_tensor *tensor = &b->tensors[i];
    size_t n = nimbus_shape_width(layer->shape);
    bool moves = false, transposes = layer->type == &nimbus_layer_transpose;
    nimbus_status status =
        layer->type == &nimbus_layer_dropout ? NIMBUS_OK : refuse_pads(b, i, error);
    if (status)
        return status;
    *tensor = *source;
    tensor->order = NULL;
    tensor->sole &= b->n_readers[i] == 1;
    if (!tensor->padded)
        tensor->shape = layer->shape;
    uint32_t *order = nimbus_alloc(n, sizeof *order);
    if (!order)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
    for (size_t e = 0; e < n && !tensor->padded; e++) {
        size_t from = transposes ? transposed(layer, e) : e;
        order[e] = source->order ? source->order[from] : (uint32_t)from;
        moves |= order[e] != e;
    }
    if (moves)
        tensor->order = order;
    else
        nimbus_free(order);
    return NIMBUS_OK;
}

static nimbus_status take_pad(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    nimbus_tensor *tensor = &b->tensors[i];
    nimbus_status status = take_image(b, i, 0, tensor, error);
    if (status)
        return status;
    tensor->sole &= b->n_readers[i] == 1;
    if (!nimbus_layer_slides_off(layer))
        return NIMBUS_OK;
    if (layer->pad_mode != NIMBUS_PAD_CONSTANT || layer->number != 0)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s (pad): a program pads with zeros only", layer->name);
    tensor->padded = true;
    for (size_t axis = 0; axis < 2; axis++) {
        tensor->before[axis] += layer->slide.before[axis];
        tensor->after[axis] += layer->slide.after[axis];
    }
    return NIMBUS_OK;
}

/* ---- windows -----------------------------------------------------------------------------------
 */

/* A layer's window, with the zeros of a layer `pad` in front. */
static nimbus_status take_window(const nimbus_image_build *b, size_t i, const nimbus_tensor *source,
                                 nimbus_slide *out, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    *out = layer->slide;
    for (size_t axis = 0; axis < 2; axis++) {
        size_t most = (out->kernel[axis] - 1) * out->dilation[axis];
        out->before[axis] += source->before[axis];
        out->after[axis] += source->after[axis];
        if (out->before[axis] > most || out->after[axis] > most)
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s (%s): %zu and %zu rows or columns of padding, expected at "
                               "most the %zu that a window of it can stand on",
                               layer->name, layer->type->name, out->before[axis], out->after[axis],
                               most);
    }
    return NIMBUS_OK;
}

static nimbus_status take_conv(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    nimbus_node node = {.layer = layer,
                        .n_sources = 1,
                        .shape = layer->shape,
                        .groups = layer->groups,
                        .before = i,
                        .at = i};
    nimbus_tensor source;
    nimbus_status status;
    if ((status = take_image(b, i, 0, &source, error)) ||
        (status = take_window(b, i, &source, &node.slide, error)))
        return status;
    node.kind = nimbus_layer_uses_lookup(layer) ? NIMBUS_NODE_LOOKUP : NIMBUS_NODE_EXACT;
    node.sources[0] = source.node;
    size_t index;
    if ((status = add_node(b, node, &index, error)))
        return status;
    b->tensors[i] = tensor_of(b, index, i);
    return NIMBUS_OK;
}

static nimbus_status take_linear(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    const nimbus_tensor *source = &b->tensors[layer->input[0]];
    nimbus_status status = refuse_pads(b, i, error);
    if (status)
        return status;
    size_t index;
    status = add_node(b,
                      (nimbus_node){.kind = nimbus_layer_uses_lookup(layer) ? NIMBUS_NODE_LOOKUP
                                                                            : NIMBUS_NODE_EXACT,
                                    .layer = layer,
                                    .n_sources = 1,
                                    .sources = {source->node},
                                    .shape = {nimbus_shape_width(layer->shape), 1, 1},
                                    .whole = true,
                                    .slide = {.stride = {1, 1}, .dilation = {1, 1}},
                                    .groups = 1,
                                    .order = source->order,
                                    .before = i,
                                    .at = i},
                      &index, error);
    if (status)
        return status;
    b->tensors[i] = tensor_of(b, index, i);
    return NIMBUS_OK;
}

static nimbus_status take_pool(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    bool average = layer->type == &nimbus_layer_average_pool;
    nimbus_slide slide;
    nimbus_tensor source;
    nimbus_status status;
    if ((status = average ? NIMBUS_OK : refuse_pads(b, i, error)) ||
        (status = take_image(b, i, 0, &source, error)) ||
        (status = take_window(b, i, &source, &slide, error)))
        return status;
    if (slide.dilation[0] != 1 || slide.dilation[1] != 1)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s (%s): a dilation of %zu and %zu, programs have 1 in pools",
                           layer->name, layer->type->name, slide.dilation[0], slide.dilation[1]);
    bool all = average && slide.kernel[0] == source.shape.height &&
               slide.kernel[1] == source.shape.width && !nimbus_layer_slides_off(layer) &&
               !source.padded;
    if (!all && slide.kernel[0] * slide.kernel[1] > NIMBUS_MAX_POOL_TAPS)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "layer %s (%s): windows of %zu x %zu, the limit is %d elements except "
                           "for averages of the whole image",
                           layer->name, layer->type->name, slide.kernel[0], slide.kernel[1],
                           NIMBUS_MAX_POOL_TAPS);
    if (average && nimbus_layer_slides_off(layer) && !layer->count_padding)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s (average_pool) leaves padding out of its averages; in a "
                           "program all windows have the same number of elements",
                           layer->name);
    size_t index;
    status =
        add_node(b,
                 (nimbus_node){.kind = average ? NIMBUS_NODE_AVERAGE_POOL : NIMBUS_NODE_MAX_POOL,
                               .layer = layer,
                               .n_sources = 1,
                               .sources = {source.node},
                               .shape = layer->shape,
                               .slide = slide,
                               .groups = 0,
                               .before = i,
                               .at = i},
                 &index, error);
    if (status)
        return status;
    b->tensors[i] = tensor_of(b, index, i);
    b->tensors[i].sole &= average || source.sole; /* the value itself is the source's */
    return NIMBUS_OK;
}

/* ---- several sources ---------------------------------------------------------------------------
 */

/* A sum's sources lie on one grid: only values whose grid is free can, which nothing else reads. */
static bool can_be_added(const nimbus_image_build *b, size_t node, size_t channels)
{
    size_t channel = 0;
    const nimbus_node *origin = &b->nodes[nimbus_image_origin(b, node, &channel)];
    return origin->kind != NIMBUS_NODE_INPUT && origin->shape.channels == channels &&
           channel == 0 && !origin->affine_after && b->nodes[node].kind != NIMBUS_NODE_CONCAT &&
           (origin->post.function == NIMBUS_F_IDENTITY || origin->post.function == NIMBUS_F_RELU);
}

static nimbus_status take_join(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    bool sum = layer->type == &nimbus_layer_add;
    nimbus_node node = {.kind = sum ? NIMBUS_NODE_ADD : NIMBUS_NODE_CONCAT,
                        .layer = layer,
                        .n_sources = layer->n_inputs,
                        .shape = layer->shape,
                        .before = i,
                        .at = i};
    nimbus_status status = refuse_pads(b, i, error);
    for (size_t k = 0; k < layer->n_inputs && status == NIMBUS_OK; k++) {
        nimbus_tensor source;
        if ((status = take_image(b, i, k, &source, error)))
            return status;
        node.sources[k] = source.node;
        if (sum && (!source.sole || !can_be_added(b, source.node, layer->shape.channels)))
            status = add_plain(b, source.node, layer->input[k], layer->input[k], &node.sources[k],
                               error);
    }
    size_t index;
    if (status || (status = add_node(b, node, &index, error)))
        return status;
    b->tensors[i] = tensor_of(b, index, i);
    return NIMBUS_OK;
}

/* ---- the graph ---------------------------------------------------------------------------------
 */

static nimbus_status take_input(nimbus_image_build *b, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[0];
    size_t index;
    nimbus_status status =
        add_node(b, (nimbus_node){.kind = NIMBUS_NODE_INPUT, .layer = layer, .shape = layer->shape},
                 &index, error);
    if (status == NIMBUS_OK)
        b->tensors[0] = tensor_of(b, index, 0);
    return status;
}

static nimbus_status take_layer(nimbus_image_build *b, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &b->net->layers[i];
    if (layer->type == &nimbus_layer_input)
        return take_input(b, error);
    if (nimbus_layer_changes_nothing(layer) || layer->type == &nimbus_layer_transpose)
        return take_shape(b, i, error);
    if (layer->type == &nimbus_layer_batch_norm || nimbus_function_of(layer))
        return take_elementwise(b, i, error);
    if (layer->type == &nimbus_layer_conv2d)
        return take_conv(b, i, error);
    if (layer->type == &nimbus_layer_linear)
        return take_linear(b, i, error);
    if (layer->type == &nimbus_layer_max_pool || layer->type == &nimbus_layer_average_pool)
        return take_pool(b, i, error);
    if (layer->type == &nimbus_layer_add || layer->type == &nimbus_layer_concat)
        return take_join(b, i, error);
    if (layer->type == &nimbus_layer_pad)
        return take_pad(b, i, error);
    if (layer->type == &nimbus_layer_softmax && i + 1 == b->net->n_layers)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s (softmax) ends the net: a program's outputs are the scores in "
                           "front of it, which have the same order; leave the layer out",
                           layer->name);
    return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "layer %s (%s) has no place in a program",
                       layer->name, layer->type->name);
}

/* The last node makes the scores: the last product, or one that takes what there is. */
static nimbus_status take_scores(nimbus_image_build *b, nimbus_error *error)
{
    size_t last = b->net->n_layers - 1;
    const nimbus_tensor *tensor = &b->tensors[last];
    const nimbus_node *node = &b->nodes[tensor->node];
    size_t index = tensor->node;
    if (node->shape.height != 1 || node->shape.width != 1 || tensor->order || tensor->padded)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s (%s) ends the net with an image of %zu x %zu, expected scores",
                           b->net->layers[last].name, b->net->layers[last].type->name,
                           node->shape.height, node->shape.width);
    if (!nimbus_node_is_product(node) || node->post.function || node->affine_after) {
        nimbus_status status = add_plain(b, tensor->node, last, last, &index, error);
        if (status)
            return status;
    }
    b->nodes[index].scores = true;
    return NIMBUS_OK;
}

/* Sizes that the input's shape may have changed, and who may hand on shifted sums. */
static void finish(nimbus_image_build *b)
{
    for (size_t n = 1; n < b->n_nodes; n++) {
        nimbus_node *node = &b->nodes[n];
        node->in = b->nodes[node->sources[0]].shape;
        if (node->whole) {
            node->slide.kernel[0] = node->in.height;
            node->slide.kernel[1] = node->in.width;
        }
    }
    for (size_t n = 1; n < b->n_nodes; n++)
        b->nodes[n].shifted = nimbus_node_is_product(&b->nodes[n]) && !b->nodes[n].scores &&
                              nimbus_function_is_monotone(b->nodes[n].post.function);
    for (size_t n = b->n_nodes; n-- > 1;) { /* what reads numbers, directly or through others */
        const nimbus_node *node = &b->nodes[n];
        bool hands_on = node->kind == NIMBUS_NODE_MAX_POOL || node->kind == NIMBUS_NODE_CONCAT;
        for (size_t k = 0; k < node->n_sources && node->kind != NIMBUS_NODE_LOOKUP && !hands_on;
             k++)
            for (size_t c = 0; c < b->nodes[node->sources[k]].shape.channels; c++) {
                size_t channel = c;
                b->nodes[nimbus_image_origin(b, node->sources[k], &channel)].shifted = false;
            }
    }
}

nimbus_status nimbus_image_graph(nimbus_image_build *b, nimbus_error *error)
{
    nimbus_status status = nimbus_image_find_fates(b, error);
    for (size_t i = 0; i < b->net->n_layers && status == NIMBUS_OK; i++)
        if (i == 0 || b->n_readers[i] > 0)
            status = take_layer(b, i, error);
    if (status == NIMBUS_OK)
        status = take_scores(b, error);
    if (status == NIMBUS_OK)
        finish(b);
    if (status == NIMBUS_OK && b->n_nodes - 1 > NIMBUS_MAX_PROGRAM_STEPS)
        status = nimbus_fail(error, NIMBUS_ERR_LIMIT, "the net makes %zu steps, the limit is %d",
                             b->n_nodes - 1, NIMBUS_MAX_PROGRAM_STEPS);
    return status;
}
