/* image.c - a net with image layers becomes an integer program */
#include "compile/image.h"

enum { MAX_ROWS = 4096, MAX_LARGE_ROWS = 512, BATCH_REALS = 1 << 22, LARGE_REALS = 1 << 15 };

bool nimbus_net_is_on_rows(const nimbus_net *net)
{
    static const nimbus_layer_type *const types[] = {
        &nimbus_layer_input,   &nimbus_layer_linear,  &nimbus_layer_batch_norm,
        &nimbus_layer_relu,    &nimbus_layer_gelu,    &nimbus_layer_tanh,
        &nimbus_layer_sigmoid, &nimbus_layer_dropout, &nimbus_layer_flatten,
        &nimbus_layer_reshape};
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        bool known = i == 0 || (layer->n_inputs == 1 && layer->input[0] == i - 1);
        size_t t = 0;
        while (t < sizeof types / sizeof *types && layer->type != types[t])
            t++;
        if (!known || t == sizeof types / sizeof *types)
            return false;
    }
    return true;
}

static nimbus_status measure(nimbus_image_build *b, nimbus_error *error)
{
    size_t width = 0;
    for (size_t i = 0; i < b->net->n_layers; i++)
        width += nimbus_shape_width(b->net->layers[i].shape);
    size_t batch = BATCH_REALS / width;
    if (!b->options->calibration)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "the int8 values of a program on images need measured ranges: give data "
                           "to measure them on (--data)");
    nimbus_measure rows = {b->options->calibration, width > LARGE_REALS ? MAX_LARGE_ROWS : MAX_ROWS,
                           batch < 1     ? 1
                           : batch > 256 ? 256
                                         : batch,
                           b->options->n_threads};
    nimbus_status status = nimbus_ranges_measure(b->net, &rows, &b->ranges, error);
    return status ? status : nimbus_ranges_narrow(b->net, &rows, &b->ranges, error);
}

/* Every node in turn, as far as its sources' values must be known. */
static nimbus_status make_integers(nimbus_image_build *b, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t n = 1; n < b->n_nodes && status == NIMBUS_OK; n++) {
        nimbus_node *node = &b->nodes[n];
        if (nimbus_node_is_product(node))
            status = nimbus_image_units(b, node, error);
        if (status == NIMBUS_OK)
            status = nimbus_image_outputs(b, node, error);
        if (status == NIMBUS_OK && node->kind == NIMBUS_NODE_LOOKUP)
            status = nimbus_image_cuts(b, node, error);
    }
    return status;
}

static nimbus_status make_trees(nimbus_image_build *b, nimbus_error *error)
{
    nimbus_image_live(b);
    nimbus_status status = nimbus_image_shifts(b, error);
    for (size_t n = 1; n < b->n_nodes && status == NIMBUS_OK; n++)
        if (b->nodes[n].kind == NIMBUS_NODE_LOOKUP)
            status = nimbus_image_splits(b, &b->nodes[n], error);
    for (size_t n = 1; n < b->n_nodes && status == NIMBUS_OK; n++)
        if (b->nodes[n].kind == NIMBUS_NODE_LOOKUP)
            nimbus_image_keep_constants(&b->nodes[n]);
    return status;
}

nimbus_status nimbus_image_compile(nimbus_net *net, const nimbus_compile_options *options,
                                   nimbus_buffer *out, nimbus_error *error)
{
    nimbus_image_build b = {.net = net, .options = options};
    nimbus_status status;
    if ((status = nimbus_image_graph(&b, error)) || (status = measure(&b, error)) ||
        (status = nimbus_image_grids(&b, error)) || (status = make_integers(&b, error)) ||
        (status = make_trees(&b, error)))
        goto done;
    status = nimbus_image_write(&b, out, error);
done:
    for (size_t n = 0; n < b.n_nodes; n++)
        nimbus_node_free(&b.nodes[n]);
    for (size_t i = 0; b.tensors && i < net->n_layers; i++)
        nimbus_free(b.tensors[i].order);
    nimbus_free(b.nodes);
    nimbus_free(b.tensors);
    nimbus_free(b.n_readers);
    nimbus_free(b.fates);
    nimbus_ranges_free(&b.ranges);
    return status;
}
