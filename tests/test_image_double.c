/* test_image_double.c - gradients of the image layers against finite differences, in double */
#include "gradient.h"

static void check_rows(nimbus_layer proto, nimbus_shape shape)
{
    check_image(proto, shape, 3, true);
    check_image(proto, shape, 1, false);
}

static void test_conv2d(void **state)
{
    static const struct {
        nimbus_shape in;
        size_t units, groups;
        nimbus_slide slide; /* kernel, stride, dilation, before, after */
    } cases[] = {
        {{1, 4, 5}, 1, 0, {{1, 1}, {0, 0}, {0, 0}, {0, 0}, {0, 0}}},
        {{3, 6, 5}, 4, 1, {{3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}},
        {{2, 7, 8}, 9, 1, {{3, 2}, {2, 2}, {1, 1}, {1, 0}, {1, 1}}},
        {{2, 9, 7}, 3, 1, {{3, 3}, {1, 2}, {2, 3}, {2, 3}, {1, 3}}},
        {{4, 5, 6}, 6, 2, {{2, 3}, {1, 1}, {1, 1}, {0, 1}, {1, 1}}},
        {{10, 4, 4}, 2, 1, {{3, 3}, {2, 2}, {2, 2}, {2, 2}, {2, 2}}},
        {{3, 6, 6}, 3, 3, {{3, 3}, {2, 1}, {1, 1}, {1, 1}, {0, 1}}},  /* depthwise */
        {{2, 5, 5}, 4, 2, {{3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}},  /* two outputs each */
        {{2, 7, 7}, 3, 1, {{2, 2}, {3, 4}, {1, 1}, {0, 0}, {0, 0}}},  /* gaps between windows */
        {{3, 1, 9}, 5, 1, {{1, 4}, {1, 2}, {1, 1}, {0, 3}, {0, 0}}},  /* a signal */
        {{2, 3, 3}, 2, 1, {{3, 3}, {1, 1}, {1, 1}, {4, 3}, {3, 5}}},  /* more padding than image */
        {{5, 1, 1}, 17, 1, {{1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}}}, /* vectors */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_layer layer = {.type = &nimbus_layer_conv2d,
                              .units = cases[i].units,
                              .groups = cases[i].groups,
                              .slide = cases[i].slide};
        check_rows(layer, cases[i].in);
    }
}

/* More rows than lanes. */
static void test_conv2d_many_rows(void **state)
{
    (void)state;
    nimbus_layer layer = {.type = &nimbus_layer_conv2d, .units = 2, .slide = {.kernel = {2, 2}}};
    check_image(layer, (nimbus_shape){1, 3, 3}, 37, true);
}

static void test_pools(void **state)
{
    static const struct {
        nimbus_shape in;
        nimbus_slide slide; /* kernel, stride, dilation, before, after */
    } cases[] = {
        {{2, 6, 4}, {{2, 2}, {2, 2}, {0, 0}, {0, 0}, {0, 0}}},
        {{3, 5, 7}, {{3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}}},
        {{1, 7, 6}, {{3, 2}, {1, 1}, {2, 3}, {2, 1}, {0, 2}}},
        {{2, 5, 5}, {{2, 2}, {3, 3}, {1, 1}, {0, 0}, {0, 0}}},
        {{4, 3, 5}, {{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}}},
        {{3, 1, 1}, {{1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_layer layer = {.type = &nimbus_layer_max_pool, .slide = cases[i].slide};
        check_rows(layer, cases[i].in);
        layer.type = &nimbus_layer_average_pool;
        check_rows(layer, cases[i].in);
        layer.count_padding = true;
        check_rows(layer, cases[i].in);
    }
}

static void test_pad(void **state)
{
    (void)state;
    nimbus_layer layer = {
        .type = &nimbus_layer_pad, .number = 0.7, .slide = {.before = {2, 0}, .after = {1, 3}}};
    for (int mode = NIMBUS_PAD_CONSTANT; mode <= NIMBUS_PAD_EDGE; mode++) {
        layer.pad_mode = (nimbus_pad_mode)mode;
        check_rows(layer, (nimbus_shape){2, 3, 4});
    }
}

static void test_image_batch_norm(void **state)
{
    (void)state;
    nimbus_layer norm = {.type = &nimbus_layer_batch_norm, .number = 1e-3};
    check_rows(norm, (nimbus_shape){3, 4, 5});
    check_rows(norm, (nimbus_shape){2, 1, 2});
    check_image(norm, (nimbus_shape){2, 3, 3}, 1, true); /* one row has a variance, too */
    norm.bare = true;
    check_image(norm, (nimbus_shape){5, 6, 3}, 4, true);
}

static void test_elementwise(void **state)
{
    static const nimbus_layer layers[] = {
        {.type = &nimbus_layer_clip, .number = -0.5, .number2 = 0.75},
        {.type = &nimbus_layer_hard_sigmoid, .number = 0.2, .number2 = 0.5},
        {.type = &nimbus_layer_hard_sigmoid, .number = -0.9, .number2 = 0.25},
        {.type = &nimbus_layer_hard_swish},
        {.type = &nimbus_layer_softmax},
    };
    (void)state;
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        check_rows(layers[i], (nimbus_shape){40, 1, 1});
        check_rows(layers[i], (nimbus_shape){4, 3, 5});
    }
}

static void test_shapes(void **state)
{
    static const uint8_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    (void)state;
    check_rows((nimbus_layer){.type = &nimbus_layer_flatten}, (nimbus_shape){2, 3, 4});
    check_rows((nimbus_layer){.type = &nimbus_layer_reshape, .new_shape = {4, 1, 6}},
               (nimbus_shape){2, 3, 4});
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        nimbus_layer layer = {.type = &nimbus_layer_transpose};
        memcpy(layer.order, orders[i], sizeof layer.order);
        check_rows(layer, (nimbus_shape){2, 3, 4});
    }
}

static size_t add(nimbus_net *net, nimbus_layer proto, size_t first, size_t second)
{
    nimbus_error error;
    const size_t inputs[] = {first, second};
    size_t n_inputs = net->n_layers == 0 ? 0 : second == SIZE_MAX ? 1 : 2;
    ok(nimbus_net_add(net, &proto, inputs, n_inputs, 3, &error), &error);
    return net->n_layers - 1;
}

/* Branches that are added and concatenated; every layer type passes gradients on. */
static void test_branches(void **state)
{
    (void)state;
    const nimbus_slide three = {.kernel = {3, 3}, .before = {1, 1}, .after = {1, 1}};
    const nimbus_slide two = {.kernel = {2, 2}, .stride = {2, 2}};
    nimbus_net *net = nimbus_net_new();
    size_t none = SIZE_MAX;
    size_t at = add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {2, 6, 4}}, 0, 0);
    nimbus_layer conv = {.type = &nimbus_layer_conv2d, .units = 3, .slide = three};
    at = add(net, conv, at, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm}, at, none);
    size_t trunk = add(net, (nimbus_layer){.type = &nimbus_layer_hard_swish}, at, none);
    size_t branch = add(net, conv, trunk, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_add}, trunk, branch);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_add}, at, at);
    size_t most = add(net, (nimbus_layer){.type = &nimbus_layer_max_pool, .slide = two}, at, none);
    conv = (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 2, .slide = two};
    at = add(net, conv, at, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_concat}, most, at);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_transpose, .order = {0, 2, 1}}, at, none);
    at = add(net,
             (nimbus_layer){.type = &nimbus_layer_pad,
                            .slide = {.before = {1, 0}, .after = {0, 1}},
                            .pad_mode = NIMBUS_PAD_EDGE},
             at, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_softmax}, at, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_average_pool, .slide = two}, at, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_flatten}, at, none);
    at = add(net, (nimbus_layer){.type = &nimbus_layer_reshape, .new_shape = {1, 1, 10}}, at, none);
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 3}, at, none);
    check_net(net, 4, NULL, 0);
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_conv2d_many_rows),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_pad),
        cmocka_unit_test(test_image_batch_norm),
        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_branches),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message("largest relative error %.3g\n", largest_error);
    return failed;
}
