/* test_compile_image.c - src/compile: nets with image layers as programs */
#include "compile_image_maker.h"

/* ---- trees alone: the same bits ----------------------------------------------------------------
 */

/* A convolution of trees, with what stands behind it; sometimes pools, sometimes two at once. */
static size_t add_tree_block(nimbus_net *net, size_t source, uint64_t seed)
{
    size_t branches[2], n = once_in(seed, 700 + source, 3) ? 2 : 1;
    nimbus_shape shape = net->layers[source].shape;
    size_t side = shape.height < shape.width ? shape.height : shape.width;
    size_t kernel = 1 + nimbus_random_below(seed, 800 + source, 0, side < 3 ? side : 3);
    size_t stride = once_in(seed, 900 + source, 4) ? 2 : 1;
    size_t pad = nimbus_random_below(seed, 1000 + source, 0, kernel);
    for (size_t i = 0; i < n; i++) {
        size_t from = source;
        if (once_in(seed, 1050 + source + i, 5) && kernel > 1 && pad == 0)
            from = add_to(net,
                          (nimbus_layer){.type = &nimbus_layer_pad,
                                         .slide = {.before = {kernel - 1, 0}, .after = {0, 1}}},
                          source, 0);
        size_t l = add_to(
            net,
            conv_proto(2 + nimbus_random_below(seed, 1100 + i, source, 4), kernel, stride, pad),
            from, 0);
        plant_trees(net, l, 1 + nimbus_random_below(seed, 1200 + i, l, 4),
                    1 + nimbus_random_below(seed, 1300 + i, l, 3),
                    (nimbus_tree_kind)nimbus_random_below(seed, 1400, l, 3),
                    once_in(seed, 1500 + l, 3) ? 4 : 8, false, seed);
        branches[i] = add_post(net, l, N_MONOTONE, true, seed);
    }
    nimbus_shape a = net->layers[branches[0]].shape, b = net->layers[branches[n - 1]].shape;
    size_t l = branches[0];
    if (n == 2 && a.height == b.height && a.width == b.width)
        l = join(net, &nimbus_layer_concat, branches[0], branches[1]);
    if (a.height > 2 && a.width > 2 && once_in(seed, 1600 + source, 2))
        l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, once_in(seed, 1700, 3)), l, 0);
    return l;
}

static nimbus_net *tree_net(nimbus_shape shape, uint64_t seed)
{
    nimbus_net *net = image_net(NIMBUS_U8, shape);
    size_t l = 0, n_blocks = 1 + nimbus_random_below(seed, 10, 0, 3);
    for (size_t i = 0; i < n_blocks; i++)
        l = add_tree_block(net, l, seed + 1000 * i);
    if (once_in(seed, 11, 2))
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_transpose, .order = {1, 2, 0}}, l, 0);
    if (once_in(seed, 12, 2))
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_flatten}, l, 0);
    l = add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS, .bare = true}, l,
               0);
    plant_trees(net, l, 3, 3, NIMBUS_TREE_SHARED, 8, true, seed);
    return net;
}

static void assert_same_image_outputs(const nimbus_net *net, const nimbus_data *data,
                                      const char *what)
{
    assert_same_outputs(net, data, what);
}

static void test_tree_nets(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        nimbus_shape shape = {1 + nimbus_random_below(seed, 1, 0, 3),
                              5 + nimbus_random_below(seed, 1, 1, 5),
                              5 + nimbus_random_below(seed, 1, 2, 5)};
        nimbus_data *data = random_images(seed, NIMBUS_U8, shape);
        nimbus_net *net = tree_net(shape, seed);
        char what[40];
        (void)snprintf(what, sizeof what, "tree net %d", (int)seed);
        assert_same_image_outputs(net, data, what);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
}

/* ---- int8 values: near the net ------------------------------------------------------------------
 */

/* Two ways from one layer that come together in a sum, as in a residual net. */
static size_t add_residual(nimbus_net *net, size_t source, uint64_t seed)
{
    nimbus_shape shape = net->layers[source].shape;
    size_t kernel = shape.height < 3 || shape.width < 3 ? 1 : 3;
    size_t a = add_to(net, conv_proto(shape.channels, kernel, 1, kernel / 2), source, seed);
    size_t b = source;
    a = add_post(net, a, N_FUNCTIONS, false, seed);
    if (once_in(seed, 2000 + source, 3))
        a = add_to(net, conv_proto(shape.channels, 1, 1, 0), a, seed + 1);
    if (once_in(seed, 2100 + source, 3))
        b = add_to(net, conv_proto(shape.channels, 1, 1, 0), source, seed + 2);
    if (once_in(seed, 2200 + source, 4))
        b = add_to(net, pool_proto(&nimbus_layer_max_pool, 1, 1, 0), b, 0);
    size_t l = join(net, &nimbus_layer_add, a, b);
    if (once_in(seed, 2300 + source, 4))
        l = join(net, &nimbus_layer_add, l, a);
    if (!once_in(seed, 2400 + source, 3))
        l = add_to(net, function_proto(once_in(seed, 2500 + source, 3) ? 7 : 0), l, 0);
    return once_in(seed, 2600 + source, 4) ? add_channel_norm(net, l, seed, false) : l;
}

static size_t add_exact_block(nimbus_net *net, size_t source, uint64_t seed)
{
    nimbus_shape shape = net->layers[source].shape;
    size_t side = shape.height < shape.width ? shape.height : shape.width;
    size_t kernel = 1 + nimbus_random_below(seed, 3000 + source, 0, side < 3 ? side : 3);
    switch (nimbus_random_below(seed, 3100 + source, 1, 7)) {
    case 0: { /* channel by channel */
        nimbus_layer proto = conv_proto(2 * shape.channels, kernel, 1, kernel / 2);
        proto.groups = shape.channels;
        return add_post(net, add_to(net, proto, source, seed), N_FUNCTIONS, true, seed);
    }
    case 1:
        return add_to(net, pool_proto(&nimbus_layer_max_pool, kernel, 1 + side / 6, 0), source, 0);
    case 2:
        return add_to(net, pool_proto(&nimbus_layer_average_pool, kernel, 1, kernel / 2), source,
                      0);
    case 3:
        return join(net, &nimbus_layer_concat, source,
                    add_to(net, conv_proto(3, 1, 1, 0), source, seed));
    case 4: {
        nimbus_layer proto = {.type = &nimbus_layer_pad,
                              .slide = {.before = {kernel / 2, 0}, .after = {0, kernel / 2}}};
        size_t l = add_to(net, conv_proto(5, kernel, 1, 0), add_to(net, proto, source, 0), seed);
        return add_post(net, l, N_FUNCTIONS, true, seed);
    }
    default:
        return add_residual(net, source, seed);
    }
}

/* The average of all of every plane or of most of it: one position. */
static nimbus_layer last_pool(const nimbus_net *net, size_t source, uint64_t seed)
{
    nimbus_layer proto = {.type = &nimbus_layer_average_pool};
    const nimbus_shape shape = net->layers[source].shape;
    if (once_in(seed, 26, 2))
        return proto;
    const size_t sides[2] = {shape.height, shape.width};
    for (size_t i = 0; i < 2; i++)
        proto.slide.kernel[i] = proto.slide.stride[i] =
            sides[i] - nimbus_random_below(seed, 27, i, (sides[i] + 1) / 2);
    return proto;
}

static nimbus_net *exact_net(nimbus_dtype dtype, nimbus_shape shape, uint64_t seed)
{
    nimbus_net *net = image_net(dtype, shape);
    size_t n_blocks = 1 + nimbus_random_below(seed, 20, 0, 4);
    size_t l = add_post(net, add_to(net, conv_proto(6, 3, 1, 1), 0, seed), N_FUNCTIONS, true, seed);
    for (size_t i = 0; i < n_blocks; i++)
        l = add_exact_block(net, l, seed + 1000 * i);
    if (once_in(seed, 21, 3))
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_flatten}, l, 0);
    else if (once_in(seed, 22, 2)) {
        if (once_in(seed, 24, 2))
            l = add_to(net, conv_proto(OUTPUTS, 1, 1, 0), l, seed);
        l = add_to(net, last_pool(net, l, seed), l, 0);
    } else if (once_in(seed, 23, 2))
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_transpose, .order = {2, 0, 1}}, l, 0);
    if (net->layers[l].shape.channels != OUTPUTS || net->layers[l].shape.height > 1)
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, seed);
    if (once_in(seed, 25, 4) && net->layers[l].shape.height == 1)
        add_channel_norm(net, l, seed, false);
    return net;
}

/* Squared distance of the program's outputs, over their spread around the mean of all. */
static double error_of(const nimbus_net *net, const nimbus_data *data)
{
    nimbus_program *program = program_of(net, data);
    size_t n = nimbus_data_get_info(data)->n_rows * nimbus_info(program)->n_outputs;
    double sum = 0, squares = 0, distance = 0;
    float *a, *b;
    run_both(net, program, data, &a, &b);
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i];
        squares += (double)a[i] * (double)a[i];
        distance += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    }
    nimbus_free(a);
    nimbus_free(b);
    nimbus_close(program);
    return distance / (squares - sum * sum / (double)n);
}

static void test_exact_nets(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        nimbus_shape shape = {1 + nimbus_random_below(seed, 1, 0, 3),
                              5 + nimbus_random_below(seed, 1, 1, 5),
                              5 + nimbus_random_below(seed, 1, 2, 5)};
        nimbus_dtype dtype = seed % 2 ? NIMBUS_U8 : NIMBUS_F32;
        nimbus_data *data = random_images(seed, dtype, shape);
        nimbus_net *net = exact_net(dtype, shape, seed);
        double distance = error_of(net, data);
        if (!(distance < 0.01))
            print_error("net %d: squared error %g\n", (int)seed, distance);
        assert_true(distance < 0.01);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
}

/* Trees that decide as in the net, since they read pixels or other trees' sums; behind them sums
 * and exact products. */
static nimbus_net *summed_trees(nimbus_shape shape, uint64_t seed, bool float_tables)
{
    nimbus_net *net = image_net(NIMBUS_U8, shape);
    size_t ends[2], channels = 3 + nimbus_random_below(seed, 30, 0, 4);
    for (size_t i = 0; i < 2; i++) {
        size_t l = 0, deep = i == 1 && once_in(seed, 31, 2);
        for (size_t k = 0; k <= deep; k++) {
            l = add_to(net, conv_proto(channels, 3, 1, 1), l, 0);
            plant_trees(net, l, 2 + nimbus_random_below(seed, 32 + i, k, 12), 4, NIMBUS_TREE_SHARED,
                        8, false, seed + i);
            if (float_tables && k == deep)
                net->layers[l].lookup->bits = 0;
            if (once_in(seed, 33 + k, 2))
                l = add_channel_norm(net, l, seed, k == deep);
            if (k < deep || once_in(seed, 34 + i, 3))
                l = add_to(net, function_proto(0), l, 0);
        }
        ends[i] = l;
    }
    size_t l = join(net, &nimbus_layer_add, ends[0], ends[1]);
    if (!once_in(seed, 35, 3))
        l = add_to(net, function_proto(0), l, 0);
    if (once_in(seed, 36, 2))
        l = add_to(net, conv_proto(6, 3, 2, 1), l, seed);
    if (once_in(seed, 37, 2))
        l = add_to(net, (nimbus_layer){.type = &nimbus_layer_average_pool}, l, 0);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, seed);
    return net;
}

static void test_summed_trees(void **state)
{
    (void)state;
    size_t n_shifted = 0, n_scaled = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        nimbus_shape shape = {1 + nimbus_random_below(seed, 1, 0, 3),
                              5 + nimbus_random_below(seed, 1, 1, 5),
                              5 + nimbus_random_below(seed, 1, 2, 5)};
        nimbus_data *data = random_images(seed, NIMBUS_U8, shape);
        nimbus_net *net = summed_trees(shape, seed, seed % 2);
        double distance = error_of(net, data);
        nimbus_buffer bytes = compiled(net, data, 1);
        for (size_t i = 0; i < 2; i++) {
            bool lookup = step_word(&bytes, i, 0) == NIMBUS_STEP_LOOKUP;
            n_shifted += lookup && step_word(&bytes, i, 6) == NIMBUS_OUT_SHIFT;
            n_scaled += lookup && step_word(&bytes, i, 6) == NIMBUS_OUT_SCALED;
        }
        if (!(distance < 0.005))
            print_error("net %d: squared error %g\n", (int)seed, distance);
        assert_true(distance < 0.005);
        nimbus_buffer_free(&bytes);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
    assert_true(n_shifted > 0 && n_scaled > 0); /* both forms of a sum on a grid */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree_nets),
        cmocka_unit_test(test_exact_nets),
        cmocka_unit_test(test_summed_trees),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
