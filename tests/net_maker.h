/* net_maker.h - small nets for the tests of the net stage */
#ifndef NIMBUS_NET_MAKER_H
#define NIMBUS_NET_MAKER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/lookup.h"

static inline void ok(nimbus_status status, const nimbus_error *error)
{
    if (status != NIMBUS_OK)
        fail_msg("%s: %s", nimbus_status_name(status), error->message);
}

/* Appends a layer that reads the one before. */
static inline void append(nimbus_net *net, nimbus_layer proto)
{
    nimbus_error error;
    size_t last = net->n_layers - 1;
    ok(nimbus_net_add(net, &proto, &last, net->n_layers > 0, 5, &error), &error);
}

/* Gives layer i trees of random columns, thresholds and tables. */
static inline void grow_trees(nimbus_net *net, size_t i, size_t n_codebooks, size_t levels,
                              unsigned bits)
{
    nimbus_error error;
    nimbus_layer *layer = &net->layers[i];
    size_t nodes = ((size_t)1 << levels) - 1, d = nimbus_lookup_inputs(layer);
    ok(nimbus_lookup_attach(layer, n_codebooks, levels, NIMBUS_TREE_PER_NODE, &error), &error);
    for (size_t j = 0; j < n_codebooks * nodes; j++) {
        nimbus_layer_param(layer, "columns")->value[j] = (real)nimbus_random_below(1, i, j, d);
        nimbus_layer_param(layer, "margin")->value[j] = (real)1.5;
        nimbus_layer_param(layer, "thresholds")->value[j] = (real)nimbus_random_normal(2, i, j);
    }
    nimbus_param *tables = nimbus_layer_param(layer, "tables");
    for (size_t j = 0; j < tables->n; j++)
        tables->value[j] = (real)nimbus_random_normal(3, i, j);
    nimbus_param *scales = nimbus_layer_param(layer, "scales");
    for (size_t j = 0; j < scales->n; j++)
        scales->value[j] = (real)0.125;
    layer->lookup->bits = bits;
    layer->lookup->temperature = (real)0.25;
    ok(nimbus_lookup_round(layer, 1, &error), &error);
    ok(nimbus_net_set_state(net, i, NIMBUS_STATE_SOFT, &error), &error);
}

/* input(4) - linear1(3) - batch_norm1 - relu1 - dropout1 - linear2(2): trees, 8 bits. */
static inline nimbus_net *small_net(void)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {1, 2, 2}});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 3});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
    append(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.25});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 2, .bare = true});
    grow_trees(net, 5, 2, 2, 8);
    nimbus_free(net->metadata);
    net->metadata = nimbus_strdup("{\"spec\":\"caf\xc3\xa9 \\\"x\\\"\"}");
    net->input_dtype = NIMBUS_U8;
    return net;
}

/* Appends a layer that reads two earlier ones. */
static inline void append_pair(nimbus_net *net, nimbus_layer proto, size_t first, size_t second)
{
    nimbus_error error;
    const size_t inputs[] = {first, second};
    ok(nimbus_net_add(net, &proto, inputs, 2, 5, &error), &error);
}

/* Every kind of image layer, every attribute: 19 layers on images of 2 x 5 x 4. */
static inline nimbus_net *image_net(void)
{
    const nimbus_slide three = {.kernel = {3, 2}, .before = {1, 0}, .after = {1, 1}};
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {2, 5, 4}});
    append(net, (nimbus_layer){.type = &nimbus_layer_conv2d,
                               .units = 4,
                               .groups = 2,
                               .slide = {.kernel = {2, 2},
                                         .stride = {1, 2},
                                         .dilation = {2, 1},
                                         .before = {1, 0},
                                         .after = {1, 2}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm}); /* 4 x 5 x 3 */
    append(net, (nimbus_layer){.type = &nimbus_layer_clip, .number = -1, .number2 = 6});
    append(net, (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 4, .slide = three});
    append_pair(net, (nimbus_layer){.type = &nimbus_layer_add}, 3, 4);
    append_pair(net, (nimbus_layer){.type = &nimbus_layer_concat}, 5, 2);
    append(net, (nimbus_layer){.type = &nimbus_layer_hard_swish});
    append(net, (nimbus_layer){.type = &nimbus_layer_max_pool, .slide = three});
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool,
                               .count_padding = true,
                               .slide = three}); /* 8 x 5 x 3 */
    append(net, (nimbus_layer){.type = &nimbus_layer_pad,
                               .number = 0.5,
                               .slide = {.before = {1, 0}, .after = {0, 2}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_pad,
                               .pad_mode = NIMBUS_PAD_REFLECT,
                               .slide = {.before = {0, 1}}}); /* 8 x 6 x 6 */
    append(net, (nimbus_layer){.type = &nimbus_layer_hard_sigmoid, .number = 0.2, .number2 = 0.5});
    append(net, (nimbus_layer){.type = &nimbus_layer_transpose, .order = {1, 2, 0}});
    append(net, (nimbus_layer){.type = &nimbus_layer_softmax}); /* 6 x 6 x 8 */
    append(net, (nimbus_layer){.type = &nimbus_layer_reshape, .new_shape = {8, 12, 3}});
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool});
    append(net, (nimbus_layer){.type = &nimbus_layer_flatten});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 2});
    net->input_dtype = NIMBUS_U8;
    return net;
}

/* Asserts that two nets are the same to the last bit, gradients and records apart. */
static inline void assert_same_net(const nimbus_net *a, const nimbus_net *b)
{
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->loss, b->loss);
    assert_int_equal(a->input_dtype, b->input_dtype);
    assert_string_equal(a->metadata, b->metadata);
    for (size_t i = 0; i < a->n_layers; i++) {
        const nimbus_layer *x = &a->layers[i], *y = &b->layers[i];
        assert_ptr_equal(x->type, y->type);
        assert_string_equal(x->name, y->name);
        assert_memory_equal(x->input, y->input, sizeof x->input);
        assert_memory_equal(&x->in_shape, &y->in_shape, sizeof x->in_shape);
        assert_memory_equal(&x->shape, &y->shape, sizeof x->shape);
        assert_true(x->number == y->number && x->units == y->units && x->bare == y->bare);
        assert_true(x->number2 == y->number2 && x->groups == y->groups);
        assert_true(x->count_padding == y->count_padding && x->pad_mode == y->pad_mode);
        assert_memory_equal(&x->slide, &y->slide, sizeof x->slide);
        assert_memory_equal(&x->new_shape, &y->new_shape, sizeof x->new_shape);
        assert_memory_equal(x->order, y->order, sizeof x->order);
        assert_memory_equal(x->in_channels, y->in_channels, sizeof x->in_channels);
        assert_int_equal(x->state, y->state);
        assert_int_equal(x->n_params, y->n_params);
        for (size_t j = 0; j < x->n_params; j++) {
            const nimbus_param *p = &x->params[j], *q = &y->params[j];
            assert_string_equal(p->name, q->name);
            assert_int_equal(p->rank, q->rank);
            assert_memory_equal(p->shape, q->shape, sizeof p->shape);
            assert_true(p->statistic == q->statistic && p->trained == q->trained &&
                        p->decay == q->decay);
            assert_memory_equal(p->value, q->value, p->n * sizeof *p->value);
            assert_ptr_not_equal(p->value, q->value);
        }
        assert_int_equal(x->lookup != NULL, y->lookup != NULL);
        if (!x->lookup)
            continue;
        assert_ptr_not_equal(x->lookup, y->lookup);
        assert_int_equal(x->lookup->kind, y->lookup->kind);
        assert_int_equal(x->lookup->estimator, y->lookup->estimator);
        assert_int_equal(x->lookup->bits, y->lookup->bits);
        assert_true(x->lookup->temperature == y->lookup->temperature);
        const nimbus_param *tables = nimbus_layer_param((nimbus_layer *)x, "tables");
        assert_memory_equal(nimbus_lookup_tables(x), nimbus_lookup_tables(y),
                            tables->n * sizeof *tables->value);
    }
}

#endif
