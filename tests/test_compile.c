/* test_compile.c - src/compile: programs that must give the bits of the nets they were made of */
#include "compile_maker.h"

/* ---- agreement to the last bit ------------------------------------------------------------------
 */

static void test_random_nets(void **state)
{
    (void)state;
    static const nimbus_layer_type *const activations[] = {
        NULL, &nimbus_layer_relu, &nimbus_layer_tanh, &nimbus_layer_sigmoid, &nimbus_layer_gelu};
    size_t n_nets = 0;
    for (uint64_t i = 0; i < 2 * 3 * 2 * 5 * 4 * 2; i++) {
        recipe r = {.dtype = i % 2 ? NIMBUS_F32 : NIMBUS_U8,
                    .kind = (nimbus_tree_kind)(i / 2 % 3),
                    .bits = i / 6 % 2 ? 8 : 4,
                    .activation = activations[i / 12 % 5],
                    .norm_before = i / 60 % 2,
                    .norm_after = i / 120 % 2,
                    .levels = 1 + nimbus_random_below(1, 1, i, 5),
                    .n_lookups = 1 + nimbus_random_below(1, 2, i, 3),
                    .seed = i};
        char what[100];
        (void)snprintf(what, sizeof what, "net %d (%s, norm before %d, after %d)", (int)i,
                       r.activation ? r.activation->name : "linear", r.norm_before, r.norm_after);
        nimbus_data *data = random_rows(&r);
        nimbus_net *net = random_net(&r, data);
        assert_same_outputs(net, data, what);
        nimbus_net_free(net);
        nimbus_data_free(data);
        n_nets++;
    }
    print_message("%zu nets of %d rows: the same bits\n", n_nets, (int)ROWS);
}

/* A net of one comparison: output 0 is 1 if (x - mean) * factor > threshold, else 0. */
static nimbus_net *comparison_net(nimbus_dtype dtype, float mean, float factor, float threshold)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    net->input_dtype = dtype;
    add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {1, 1, 1}}, 0);
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 2, .bare = true}, 0);
    nimbus_layer *layer = &net->layers[1];
    CHECK(nimbus_lookup_attach(layer, 1, 1, NIMBUS_TREE_SHARED, &error));
    CHECK(nimbus_net_set_state(net, 1, NIMBUS_STATE_LOOKUP, &error));
    values_of(&net->layers[0], "mean")[0] = mean;
    values_of(&net->layers[0], "inverse_std")[0] = factor;
    values_of(layer, "thresholds")[0] = threshold;
    values_of(layer, "tables")[2] = 1;
    values_of(layer, "scales")[0] = values_of(layer, "scales")[1] = 1;
    layer->lookup->bits = 8;
    CHECK(nimbus_lookup_round(layer, 1, &error));
    return net;
}

static nimbus_data *one_column(nimbus_dtype dtype, const void *rows, size_t n)
{
    nimbus_data_info info = {
        .n_rows = n, .n_features = 1, .dtype = dtype, .channels = 1, .height = 1, .width = 1};
    nimbus_data *data;
    CHECK(nimbus_data_from_arrays(&info, rows, NULL, NULL, &data, &error));
    return data;
}

static void assert_same_comparison(nimbus_dtype dtype, float mean, float factor, float threshold,
                                   const nimbus_data *data)
{
    nimbus_net *net = comparison_net(dtype, mean, factor, threshold);
    char what[100];
    (void)snprintf(what, sizeof what, "mean %g, factor %g, threshold %g", (double)mean,
                   (double)factor, (double)threshold);
    assert_same_outputs(net, data, what);
    nimbus_net_free(net);
}

/* Every pixel value against thresholds on, between and beyond them. */
static void test_every_pixel_value(void **state)
{
    (void)state;
    const float mean = 33.31842f, factor = 0.01275f;
    uint8_t pixels[256];
    for (int i = 0; i < 256; i++)
        pixels[i] = (uint8_t)i;
    nimbus_data *data = one_column(NIMBUS_U8, pixels, 256);
    for (int i = -2; i < 2 * 257; i++)
        assert_same_comparison(NIMBUS_U8, mean, factor,
                               ((float)(i / 2) - mean) * factor + (i % 2 ? 0.004f : 0), data);
    nimbus_data_free(data);
}

/* Raw floats at and next to where a comparison changes, also where (x - mean) swallows x. */
static void test_raw_floats_at_thresholds(void **state)
{
    (void)state;
    enum { N = 64 };
    static const float means[] = {0, 5, -1000, 1e-6f, 3e7f};
    static const float factors[] = {1, 0.3f, 1e-5f, 4000};
    static const float thresholds[] = {0, -5, 1000, 1, -0.37f, 1e-8f, 12.5f};
    for (size_t i = 0; i < (size_t)5 * 4 * 7; i++) {
        float mean = means[i % 5], factor = factors[i / 5 % 4];
        float threshold = i % 3 ? thresholds[i / 20] : (0 - mean) * factor;
        float rows[N] = {0, 1e-10f, 2e-7f, 3e-7f, 1e-5f, -1e-10f, -1e-5f, 1e30f, -1e30f, 1e-45f};
        float down = threshold / factor + mean, up = down;
        for (size_t n = 10; n < N; n += 2) {
            rows[n] = down;
            rows[n + 1] = up = nextafterf(up, INFINITY);
            down = nextafterf(down, -INFINITY);
        }
        nimbus_data *data = one_column(NIMBUS_F32, rows, N);
        assert_same_comparison(NIMBUS_F32, mean, factor, threshold, data);
        nimbus_data_free(data);
    }
}

/* ---- what is left of the columns ----------------------------------------------------------------
 */

/* Distinct columns among those of layer l whose node satisfies the bound. */
static size_t count_columns(const nimbus_layer *layer, real above)
{
    size_t n = 0;
    for (size_t d = 0; d < width_in(layer); d++) {
        bool read = false;
        for (size_t i = 0; i < layer->lookup->n_codebooks * (layer->lookup->n_leaves - 1); i++)
            read |= (size_t)values_of(layer, "columns")[i] == d &&
                    values_of(layer, "thresholds")[i] >= above;
        n += read;
    }
    return n;
}

/* Thresholds of a quarter step, below zero for the first three columns if `negative`, and entries
 * that reach beyond them in every output. */
static void set_small_thresholds(nimbus_layer *layer, bool negative)
{
    size_t m = width_out(layer), k = layer->lookup->n_leaves;
    for (size_t i = 0; i < layer->lookup->n_codebooks * (k - 1); i++)
        values_of(layer, "thresholds")[i] =
            (real)(negative && values_of(layer, "columns")[i] < 3 ? -UNIT / 4 : UNIT / 4);
    for (size_t i = 0; i < layer->lookup->n_codebooks * k * m; i++)
        if (i / m % k < 2)
            values_of(layer, "tables")[i] = (real)(i / m % k ? 7 * UNIT : -7 * UNIT);
    CHECK(nimbus_lookup_round(layer, 1, &error));
}

static void test_dead_columns(void **state)
{
    (void)state;
    size_t dead = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        recipe r = plain_recipe(seed);
        r.kind = (nimbus_tree_kind)(seed % 3);
        r.activation = seed % 2 ? &nimbus_layer_relu : NULL;
        nimbus_data *data = random_rows(&r);
        nimbus_net *net = random_net(&r, data);
        for (size_t l = 1; l < net->n_layers; l++)
            if (net->layers[l].lookup)
                set_small_thresholds(&net->layers[l], r.activation != NULL);
        nimbus_program *program = program_of(net, NULL);
        for (size_t s = 1, l = 2; l < net->n_layers; l++) {
            if (!net->layers[l].lookup)
                continue;
            size_t live = count_columns(&net->layers[l], r.activation ? 0 : -1);
            live = live > 0 ? live : 1;
            assert_int_equal(step_of(program, s - 1).n_outputs, live);
            assert_int_equal(step_of(program, s).n_inputs, live);
            dead += WIDTH - live;
            s++;
        }
        assert_int_equal(step_of(program, 2).n_outputs, OUTPUTS);
        assert_same_outputs(net, data, "dead columns");
        nimbus_close(program);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
    assert_true(dead > 20);
}

/* Thresholds that no sum reaches cost the others no precision. */
static void test_unreachable_thresholds(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        recipe r = plain_recipe(seed);
        r.kind = (nimbus_tree_kind)(seed % 3);
        r.levels = 1 + seed % 4;
        nimbus_data *data = random_rows(&r);
        nimbus_net *net = random_net(&r, data);
        size_t n = 0;
        for (size_t l = 2; l < net->n_layers; l++)
            for (size_t i = 0;
                 net->layers[l].lookup && i < nimbus_layer_param(&net->layers[l], "thresholds")->n;
                 i++, n++)
                if (n % 3 == 0 && r.kind != NIMBUS_TREE_FERN)
                    values_of(&net->layers[l], "thresholds")[i] = n % 2 ? (real)1e7 : (real)-1e30;
                else if (r.kind == NIMBUS_TREE_FERN && i == 0)
                    values_of(&net->layers[l], "thresholds")[i] = (real)-1e7;
        assert_same_outputs(net, data, "unreachable thresholds");
        assert_int_equal(shift_of(net, 0), 0);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
}

/* A constant column (norm scale zero) compared with its own value, read upside down. */
static void test_constant_columns(void **state)
{
    (void)state;
    for (int i = 0; i < 27; i++) {
        recipe r = plain_recipe(5);
        r.n_lookups = 1;
        nimbus_data *data = random_rows(&r);
        nimbus_net *net = random_net(&r, data);
        nimbus_layer *first = &net->layers[1];
        assert_int_equal(width_out(first), OUTPUTS);
        for (int norm = 0; norm < 2; norm++) {
            size_t l =
                add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm, .number = 0.25}, 0);
            for (size_t j = 0; j < OUTPUTS; j++) {
                values_of(&net->layers[l], "variance")[j] = (real)0.75;
                values_of(&net->layers[l], "scale")[j] = norm ? -1 : 0;
                values_of(&net->layers[l], "shift")[j] = norm ? 0 : (real)0.5 * (real)(i / 9 - 1);
            }
            if (norm == 0 && i % 9 / 3 > 0)
                add(net,
                    (nimbus_layer){.type =
                                       i % 9 / 3 == 1 ? &nimbus_layer_relu : &nimbus_layer_sigmoid},
                    0);
        }
        nimbus_pass *pass = run_so_far(net, data);
        real constant = pass->out[net->n_layers - 1][0];
        nimbus_pass_free(pass);
        r.levels = 1;
        size_t l = add(
            net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS, .bare = true}, 0);
        real values[ROWS * OUTPUTS] = {0};
        fill_trees(net, &r, values, 0);
        bool tie_allowed = i % 9 / 3 < 2; /* sigmoid in float and double differ in the last bit */
        for (size_t j = 0; j < nimbus_layer_param(&net->layers[l], "thresholds")->n; j++)
            values_of(&net->layers[l], "thresholds")[j] =
                constant + (real)0.25 * (real)(i % 3 - 1) + (tie_allowed ? 0 : (real)0.01);
        assert_same_outputs(net, data, "constant columns");
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_nets),
        cmocka_unit_test(test_every_pixel_value),
        cmocka_unit_test(test_raw_floats_at_thresholds),
        cmocka_unit_test(test_dead_columns),
        cmocka_unit_test(test_unreachable_thresholds),
        cmocka_unit_test(test_constant_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
