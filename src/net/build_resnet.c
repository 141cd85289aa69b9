/* build_resnet.c - the two residual nets for small images, "resnet8" and "resnet9"
 *
 * Batch norm follows every convolution, whose bias therefore stays at 0 but for rounding. */
#include "net/spec.h"

/* Layers appended so far; `at` is the one that the next reads. */
struct growing {
    nimbus_net *net;
    uint64_t seed;
    nimbus_error *error;
    nimbus_status status; /* sticky */
    size_t at;
};

static void append(struct growing *g, nimbus_layer proto, const size_t *inputs, size_t n_inputs)
{
    if (g->status == NIMBUS_OK)
        g->status = nimbus_net_add(g->net, &proto, inputs, n_inputs, g->seed, g->error);
    g->at = g->net->n_layers - 1;
}

static void append_type(struct growing *g, const nimbus_layer_type *type)
{
    append(g, (nimbus_layer){.type = type}, &g->at, 1);
}

/* A square convolution that keeps the image's size but for the stride, and batch norm. */
static void append_conv(struct growing *g, size_t units, size_t kernel, size_t stride)
{
    size_t pad = kernel / 2;
    nimbus_layer conv = {.type = &nimbus_layer_conv2d,
                         .units = units,
                         .slide = {.kernel = {kernel, kernel},
                                   .stride = {stride, stride},
                                   .before = {pad, pad},
                                   .after = {pad, pad}}};
    append(g, conv, &g->at, 1);
    append_type(g, &nimbus_layer_batch_norm);
}

static void append_conv_relu(struct growing *g, size_t units, size_t stride)
{
    append_conv(g, units, 3, stride);
    append_type(g, &nimbus_layer_relu);
}

/* Adds the output of layer `from` to the last one's. */
static void append_sum(struct growing *g, size_t from)
{
    const size_t inputs[] = {from, g->at};
    append(g, (nimbus_layer){.type = &nimbus_layer_add}, inputs, 2);
}

/* ResNet-8 of MLPerf Tiny (width 16): 16 channels, then three residual blocks of 16, 32 and 64. */
static void append_resnet8(struct growing *g, size_t width)
{
    append_conv_relu(g, width, 1);
    for (size_t units = width; units <= 4 * width; units *= 2) {
        size_t begin = g->at, stride = units == width ? 1 : 2;
        append_conv_relu(g, units, stride);
        append_conv(g, units, 3, 1);
        size_t end = g->at, shortcut = begin;
        if (stride > 1) {
            g->at = begin;
            append_conv(g, units, 1, stride);
            shortcut = g->at;
            g->at = end;
        }
        append_sum(g, shortcut);
        append_type(g, &nimbus_layer_relu);
    }
    append_type(g, &nimbus_layer_average_pool);
}

static void append_halved(struct growing *g, size_t units)
{
    append_conv_relu(g, units, 1);
    nimbus_layer pool = {.type = &nimbus_layer_max_pool,
                         .slide = {.kernel = {2, 2}, .stride = {2, 2}}};
    append(g, pool, &g->at, 1);
}

static void append_residual(struct growing *g, size_t units)
{
    size_t begin = g->at;
    append_conv_relu(g, units, 1);
    append_conv_relu(g, units, 1);
    append_sum(g, begin);
}

/* ResNet-9 as other work on tables has it (width 64): 64 to 256 channels, images halved three
 * times. */
static void append_resnet9(struct growing *g, size_t width)
{
    append_conv_relu(g, width, 1);
    append_halved(g, 2 * width);
    append_residual(g, 2 * width);
    append_halved(g, 4 * width);
    append_halved(g, 4 * width);
    append_residual(g, 4 * width);
    append_type(g, &nimbus_layer_max_pool);
}

nimbus_status nimbus_resnet_add(nimbus_net *net, const nimbus_spec *spec, size_t n_outputs,
                                uint64_t seed, nimbus_error *error)
{
    struct growing g = {.net = net, .seed = seed, .error = error, .at = net->n_layers - 1};
    nimbus_shape in = net->layers[g.at].shape;
    size_t least = spec->kind == NIMBUS_SPEC_RESNET9 ? 8 : 2;
    if (in.height < least || in.width < least)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "rows of %zu x %zu x %zu, this net needs images of %zu x %zu and more",
                           in.channels, in.height, in.width, least, least);
    if (spec->kind == NIMBUS_SPEC_RESNET9)
        append_resnet9(&g, spec->width);
    else
        append_resnet8(&g, spec->width);
    append_type(&g, &nimbus_layer_flatten);
    append(&g, (nimbus_layer){.type = &nimbus_layer_linear, .units = n_outputs}, &g.at, 1);
    return g.status;
}
