/* compile_image_maker.h - random nets on images for the tests of the compiler
 *
 * Nets of trees alone have numbers that are small multiples of powers of two, as those of
 * compile_maker.h, so that a program can match them to the last bit. */
#ifndef COMPILE_IMAGE_MAKER_H
#define COMPILE_IMAGE_MAKER_H

#include "compile_maker.h"

enum { IMAGES = 24 };

static inline nimbus_data *random_images(uint64_t seed, nimbus_dtype dtype, nimbus_shape shape)
{
    nimbus_data_info info = {.n_rows = IMAGES,
                             .n_features = nimbus_shape_width(shape),
                             .dtype = dtype,
                             .channels = shape.channels,
                             .height = shape.height,
                             .width = shape.width,
                             .n_classes = OUTPUTS};
    size_t n = IMAGES * info.n_features;
    uint8_t *bytes = nimbus_alloc(n, 1);
    float *floats = nimbus_alloc(n, sizeof *floats);
    int32_t labels[IMAGES];
    nimbus_data *data;
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)nimbus_random_below(seed, 1, i, 256);
        floats[i] = (float)uniform(seed, 2, i, -3, 5);
        labels[i / info.n_features] = (int32_t)nimbus_random_below(seed, 3, i, OUTPUTS);
    }
    CHECK(nimbus_data_from_arrays(&info, dtype == NIMBUS_U8 ? (void *)bytes : floats, labels, NULL,
                                  &data, &error));
    nimbus_free(bytes);
    nimbus_free(floats);
    return data;
}

/* An input layer of whole means, so that padding is a pixel too. */
static inline nimbus_net *image_net(nimbus_dtype dtype, nimbus_shape shape)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    net->input_dtype = dtype;
    add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = shape}, 0);
    for (size_t d = 0; d < nimbus_shape_width(shape); d++) {
        size_t c = d / (shape.height * shape.width);
        values_of(&net->layers[0], "mean")[d] = dtype == NIMBUS_U8 ? (real)(100 + 20 * c) : 1;
        values_of(&net->layers[0], "inverse_std")[d] =
            dtype == NIMBUS_U8 ? (real)(1.0 / 64) : (real)0.5;
    }
    return net;
}

/* A layer that reads these. */
static inline size_t join(nimbus_net *net, const nimbus_layer_type *type, size_t a, size_t b)
{
    nimbus_layer proto = {.type = type};
    CHECK(nimbus_net_add(net, &proto, (size_t[]){a, b}, 2, 0, &error));
    return net->n_layers - 1;
}

static inline size_t add_to(nimbus_net *net, nimbus_layer proto, size_t source, uint64_t seed)
{
    CHECK(nimbus_net_add(net, &proto, &source, 1, seed, &error));
    return net->n_layers - 1;
}

static inline nimbus_layer conv_proto(size_t units, size_t kernel, size_t stride, size_t pad)
{
    return (nimbus_layer){.type = &nimbus_layer_conv2d,
                          .units = units,
                          .slide = {.kernel = {kernel, kernel},
                                    .stride = {stride, stride},
                                    .before = {pad, pad},
                                    .after = {pad, pad}}};
}

/* Trees and tables for a linear layer or a convolution, of whole UNITs; thresholds between and on
 * values. Biases are whole UNITs where scores come out. */
static inline void plant_trees(nimbus_net *net, size_t l, size_t n_codebooks, size_t levels,
                               nimbus_tree_kind kind, unsigned bits, bool scores, uint64_t seed)
{
    nimbus_layer *layer = &net->layers[l];
    size_t d = nimbus_lookup_inputs(layer), m = nimbus_lookup_outputs(layer);
    size_t nodes = nodes_of(levels), limit = bits <= 4 ? 7 : 9;
    uint64_t stream = 1000 * l;
    bool first = layer->input[0] == 0;
    CHECK(nimbus_lookup_attach(layer, n_codebooks, levels, kind, &error));
    for (size_t i = 0; i < n_codebooks * nodes; i++) {
        size_t c = i / nodes, h = 0;
        while (nodes_of(h + 1) <= i % nodes)
            h++;
        size_t level = c * nodes + nodes_of(h);
        size_t column = kind == NIMBUS_TREE_PER_NODE ? i : level;
        size_t threshold = kind == NIMBUS_TREE_FERN ? level : i;
        double steps = (double)nimbus_random_below(seed, stream + 2, threshold, 25) - 12;
        values_of(layer, "columns")[i] = (real)nimbus_random_below(seed, stream + 1, column, d);
        values_of(layer, "thresholds")[i] = (real)(first ? steps / 16 : steps * UNIT / 2);
        values_of(layer, "margin")[i] = 1;
    }
    for (size_t i = 0; i < n_codebooks * (nodes + 1) * m; i++)
        values_of(layer, "tables")[i] =
            (real)(UNIT * ((double)nimbus_random_below(seed, stream + 3, i, 2 * limit + 1) -
                           (double)limit));
    for (size_t j = 0; j < m; j++) {
        values_of(layer, "scales")[j] = (real)UNIT;
        values_of(layer, "bias")[j] =
            (real)(UNIT / (scores ? 1 : 2) *
                   ((double)nimbus_random_below(seed, stream + 4, j, 9) - 4));
    }
    layer->lookup->bits = bits;
    CHECK(nimbus_lookup_round(layer, 1, &error));
    CHECK(nimbus_net_set_state(net, l, NIMBUS_STATE_LOOKUP, &error));
}

/* As add_norm of compile_maker.h, for channels. */
static inline size_t add_channel_norm(nimbus_net *net, size_t source, uint64_t seed, bool zeros)
{
    static const double scales[] = {1, -1, 2, -0.5, 0};
    size_t l =
        add_to(net, (nimbus_layer){.type = &nimbus_layer_batch_norm, .number = 0.25}, source, 0);
    nimbus_layer *layer = &net->layers[l];
    for (size_t j = 0; j < layer->shape.channels; j++) {
        size_t kind = nimbus_random_below(seed, 60 + l, j, zeros ? 5 : 4);
        values_of(layer, "variance")[j] =
            (real)(nimbus_random_below(seed, 40 + l, j, 2) ? 0.75 : 3.75);
        values_of(layer, "scale")[j] = (real)scales[kind];
        values_of(layer, "mean")[j] =
            (real)(UNIT * ((double)nimbus_random_below(seed, 80 + l, j, 9) - 4));
        values_of(layer, "shift")[j] =
            (real)(UNIT / 2 * ((double)nimbus_random_below(seed, 100 + l, j, 9) - 4));
    }
    return l;
}

static inline nimbus_layer function_proto(size_t kind)
{
    static const nimbus_layer protos[] = {
        {.type = &nimbus_layer_relu},
        {.type = &nimbus_layer_clip, .number = -0.5, .number2 = 0.75},
        {.type = &nimbus_layer_hard_sigmoid, .number = 0.25, .number2 = 0.5},
        {.type = &nimbus_layer_tanh},
        {.type = &nimbus_layer_sigmoid},
        {.type = &nimbus_layer_clip, .number = 0, .number2 = 6},
        {.type = &nimbus_layer_clip, .number = 0.25, .number2 = 1},
        {.type = &nimbus_layer_gelu},
        {.type = &nimbus_layer_hard_swish},
    };
    return protos[kind];
}

enum { N_MONOTONE = 7, N_FUNCTIONS = 9 };

/* One bit of fortune: true once in n. */
static inline bool once_in(uint64_t seed, uint64_t stream, size_t n)
{
    return nimbus_random_below(seed, stream, 0, n) == 0;
}

/* Batch norms and a function behind layer l, some of them. */
static inline size_t add_post(nimbus_net *net, size_t l, size_t n_functions, bool zeros,
                              uint64_t seed)
{
    if (!once_in(seed, 200 + l, 3))
        l = add_channel_norm(net, l, seed, zeros);
    if (!once_in(seed, 300 + l, 3))
        l = add_to(net, function_proto(nimbus_random_below(seed, 400 + l, 0, n_functions)), l, 0);
    if (once_in(seed, 500 + l, 3))
        l = add_channel_norm(net, l, seed, zeros);
    if (once_in(seed, 600 + l, 4))
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.5}, l, 0);
    return l;
}

static inline nimbus_layer pool_proto(const nimbus_layer_type *type, size_t kernel, size_t stride,
                                      size_t pad)
{
    return (nimbus_layer){.type = type,
                          .count_padding = true,
                          .slide = {.kernel = {kernel, kernel},
                                    .stride = {stride, stride},
                                    .before = {pad, pad},
                                    .after = {pad, pad}}};
}

#endif
