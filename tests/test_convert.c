/* test_convert.c - src/convert: whole conversions of small nets, and what they refuse */
#include <cblas.h>

#include "convert_maker.h"

static const size_t linears[] = {1, 3, 5}; /* layers of "mlp:A,B" */

/* ---- results --------------------------------------------------------------------------------- */

/* All states agree as they must, and the program decides as the net. */
static void check_forms(const nimbus_net *teacher, const nimbus_net *net, const nimbus_data *data,
                        size_t n_lookups)
{
    nimbus_check_report report;
    nimbus_program *program = program_of(net, data);
    CHECK(nimbus_check(teacher, net, program, data, &report, &error));
    assert_int_equal(report.n_layers, n_lookups);
    for (size_t i = 0; i < n_lookups; i++) {
        assert_int_equal(report.layers[i].soft_lookup_differences, 0);
        assert_true(report.layers[i].soft_to_lookup == 0);
    }
    assert_true((double)report.decisions_changed <= 0.05 * (double)report.n_rows);
    nimbus_close(program);
}

static void assert_states(const nimbus_net *net, const char *exact)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        bool dense = layer->type != &nimbus_layer_linear || (exact && strstr(exact, layer->name));
        assert_int_equal(layer->state, dense ? NIMBUS_STATE_DENSE : NIMBUS_STATE_LOOKUP);
        assert_int_equal(layer->lookup != NULL, !dense);
    }
}

/* Of all trees' nodes some differ within a level; few: no tree compares more columns than it has
 * levels, else some do. */
static void assert_columns(const nimbus_layer *layer, bool few)
{
    const nimbus_lookup *lookup = layer->lookup;
    const real *columns = values_of(layer, "columns");
    const size_t nodes = lookup->n_leaves - 1;
    bool differ = false, more = false;
    for (size_t c = 0; c < lookup->n_codebooks; c++) {
        const real *of_tree = columns + c * nodes;
        differ = differ || of_tree[1] != of_tree[2];
        more = more || different_columns(of_tree, nodes) > lookup->n_levels;
    }
    assert_true(differ);
    assert_int_equal(more, !few);
}

static void test_accuracy_is_kept(void **state)
{
    (void)state;
    for (int dtype = NIMBUS_U8; dtype <= NIMBUS_F32; dtype++) {
        nimbus_data *data = make_data(400, (nimbus_dtype)dtype, 4);
        nimbus_data *test = make_data(300, (nimbus_dtype)dtype, 5);
        nimbus_net *teacher = float_net("mlp:24,24", data, 5);
        double before = accuracy_of(teacher, test);
        assert_true(before > 0.95);
        nimbus_convert_options o = convert_options();
        nimbus_convert_report report;
        nimbus_net *net;
        CHECK(nimbus_convert(teacher, data, &o, &net, &report, &error));
        assert_states(net, NULL);
        assert_true(accuracy_of(net, test) > before - 0.05);
        check_forms(teacher, net, test, 3);
        assert_int_equal(report.n_layers, 3);
        for (size_t i = 0; i < 3; i++) {
            const nimbus_layer *layer = &net->layers[linears[i]];
            assert_string_equal(report.layers[i].name, layer->name);
            assert_int_equal(report.layers[i].n_codebooks, width_in(layer) / 6);
            assert_int_equal(report.layers[i].n_levels, 3);
            assert_true(report.layers[i].error_fit >= 0 && report.layers[i].error_fit < 0.5);
            assert_int_equal(layer->lookup->bits, 8);
            assert_int_equal(layer->lookup->kind, NIMBUS_TREE_PER_NODE);
            assert_columns(layer, i > 0);
            /* the last layer's scores are compared, so they share their step */
            const real *scales = values_of(layer, "scales");
            for (size_t m = 1; i == 2 && m < CLASSES; m++)
                assert_true(scales[m] == scales[0]);
        }
        assert_int_equal(report.tune.epochs, 2);
        nimbus_net_free(net);
        nimbus_net_free(teacher);
        nimbus_data_free(data);
        nimbus_data_free(test);
    }
}

/* Every method, estimator, kind, number of bits and way to deal columns gives a usable net. */
static void test_every_option(void **state)
{
    (void)state;
    static const char *const columns[] = {"auto", "block", "patch", "window", "balanced", "runs"};
    static const unsigned bits[] = {4, 8, 32};
    nimbus_data *data = make_data(300, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24;bn", data, 5);
    for (int i = 0; i < 12; i++) {
        nimbus_convert_options o = convert_options();
        char layers[60];
        (void)snprintf(layers, sizeof layers, "linear1:columns=%s", columns[i % 6]);
        o.layers = layers;
        o.levels = (size_t)(1 + i % 5);
        o.epochs = 4; /* six trees of a level need them */
        o.bits = bits[i % 3];
        o.tree = (nimbus_tree_choice)(i / 2 % 5);
        o.split_method = (nimbus_split_method)(i % 2);
        o.table_method = (nimbus_table_method)(i / 2 % 2);
        o.estimator = (nimbus_estimator)(i / 3 % 3);
        o.preset = (nimbus_preset)(i % 3);
        o.lambda = i % 2 ? 0.01 : 0;
        nimbus_net *net = converted(teacher, data, &o);
        assert_states(net, NULL);
        for (size_t l = 0; l < net->n_layers; l++) {
            const nimbus_lookup *lookup = net->layers[l].lookup;
            assert_true(!lookup || (lookup->bits == o.bits % 32 && lookup->n_levels == o.levels &&
                                    lookup->estimator == o.estimator));
        }
        double accuracy = accuracy_of(net, data);
        if (accuracy < 0.85)
            print_error("options %d: accuracy %g\n", i, accuracy);
        assert_true(accuracy >= 0.85);
        check_forms(teacher, net, data, 3);
        nimbus_net_free(net);
    }
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

static void test_exact_layers_stay_exact(void **state)
{
    (void)state;
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 3);
    nimbus_convert_options o = convert_options();
    o.layers = "linear1:exact;linear3:exact";
    o.epochs = SIZE_MAX;
    nimbus_net *net = converted(teacher, data, &o);
    assert_states(net, "linear1 linear3");
    for (size_t i = 0; i < 3; i += 2) {
        const nimbus_layer *a = &teacher->layers[linears[i]], *b = &net->layers[linears[i]];
        assert_memory_equal(values_of(a, "weight"), values_of(b, "weight"),
                            width_in(a) * width_out(a) * sizeof(real));
        assert_memory_equal(values_of(a, "bias"), values_of(b, "bias"),
                            width_out(a) * sizeof(real));
    }
    nimbus_net_free(net);
    o.layers = "linear1:exact;linear2:exact;linear3:exact";
    net = converted(teacher, data, &o);
    assert_same_net(teacher, net);
    nimbus_net_free(net);
    o.layers = "linear2:exact";
    o.epochs = 2;
    net = converted(teacher, data, &o);
    assert_states(net, "linear2");
    check_forms(teacher, net, data, 2);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Trees x outputs from birth: nothing to fit, only tables to round and to tune. */
static void test_native_nets(void **state)
{
    (void)state;
    nimbus_data *data = make_data(300, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("lut:8x6,6x3", data, 4);
    for (int i = 0; i < 3; i++) {
        nimbus_convert_options o = convert_options();
        nimbus_convert_report report;
        nimbus_net *net;
        o.epochs = i ? 2 : SIZE_MAX;
        o.bits = i == 2 ? 4 : 8;
        CHECK(nimbus_convert(teacher, data, &o, &net, &report, &error));
        assert_int_equal(report.n_layers, 0);
        assert_states(net, NULL);
        for (size_t l = 0; l < net->n_layers; l++) {
            const nimbus_lookup *a = teacher->layers[l].lookup, *b = net->layers[l].lookup;
            assert_true(!a || (a->n_codebooks == b->n_codebooks && b->bits == o.bits));
        }
        assert_true(accuracy_of(net, data) > accuracy_of(teacher, data) - 0.05);
        check_forms(NULL, net, data, 2);
        nimbus_net_free(net);
    }
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

static void test_regression(void **state)
{
    (void)state;
    nimbus_data_info info = {.n_rows = 200,
                             .n_features = 6,
                             .dtype = NIMBUS_F32,
                             .channels = 6,
                             .height = 1,
                             .width = 1,
                             .n_targets = 2};
    float x[200 * 6], y[200 * 2];
    nimbus_data *data;
    for (size_t i = 0; i < 200 * 6; i++)
        x[i] = (float)nimbus_random_normal(1, 1, i);
    for (size_t i = 0; i < 200; i++) {
        y[2 * i] = x[6 * i] + 0.5f * x[6 * i + 3];
        y[2 * i + 1] = 3 * x[6 * i + 5] - x[6 * i + 1];
    }
    CHECK(nimbus_data_from_arrays(&info, x, NULL, y, &data, &error));
    nimbus_net *teacher = float_net("mlp:12", data, 20);
    nimbus_convert_options o = convert_options();
    o.v = 2;
    o.levels = 4;
    o.epochs = 20;
    nimbus_net *net = converted(teacher, data, &o);
    nimbus_evaluation e;
    CHECK(nimbus_evaluate(net, data, 1, &e, &error));
    double plain = 0;
    for (size_t i = 0; i < 400; i++)
        plain += (double)y[i] * (double)y[i] / 200;
    assert_true(e.loss < 0.3 * plain);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* ---- the schedule ------------------------------------------------------------------------------
 */

typedef struct stages {
    char seen[40][80];
    size_t n;
} stages;

static int note_stage(void *user, const nimbus_progress *p)
{
    stages *s = user;
    assert_true(p->done >= 0 && p->done <= p->total && p->seconds >= 0);
    if (s->n == 0 || strcmp(s->seen[s->n - 1], p->stage) != 0) {
        assert_true(s->n < 40);
        (void)snprintf(s->seen[s->n++], 80, "%s", p->stage);
    }
    return 0;
}

/* Layers are trained one by one if asked for. */
static void test_layer_by_layer(void **state)
{
    (void)state;
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *deep = float_net("mlp:12,12,12,12,12", data, 8);
    nimbus_net *shallow = float_net("mlp:12", data, 4);
    for (int i = 0; i < 4; i++) {
        bool is_deep = i < 2, trained_alone = i == 0 || i == 3;
        stages s = {.n = 0};
        nimbus_convert_options o = convert_options();
        o.progress = note_stage;
        o.progress_user = &s;
        o.layer_epochs = i == 0 ? 1 : i == 1 ? -1 : i == 3 ? 0.5 : 0;
        nimbus_net *net = converted(is_deep ? deep : shallow, data, &o);
        assert_states(net, NULL);
        size_t at = 0, n_layers = is_deep ? 6 : 2;
        for (size_t l = 1; l <= n_layers; l++) {
            char expected[80];
            (void)snprintf(expected, sizeof expected, "fit layer linear%zu", l);
            assert_string_equal(s.seen[at++], expected);
            (void)snprintf(expected, sizeof expected, "train layer linear%zu", l);
            if (trained_alone)
                assert_string_equal(s.seen[at++], expected);
        }
        assert_string_equal(s.seen[at++], "fine-tune");
        assert_int_equal(at, s.n);
        check_forms(is_deep ? deep : shallow, net, data, n_layers);
        assert_true(accuracy_of(net, data) > accuracy_of(is_deep ? deep : shallow, data) - 0.1);
        nimbus_net_free(net);
    }
    nimbus_net_free(deep);
    nimbus_net_free(shallow);
    nimbus_data_free(data);
}

static void test_threads(void **state)
{
    (void)state;
    static const char *const specs[] = {"mlp:24,24;bn", "mlp:9,9,9,9", "lut:8x6,6x3"};
    nimbus_data *data = make_data(150, NIMBUS_U8, 4);
    for (size_t i = 0; i < 3; i++) {
        nimbus_net *teacher = float_net(specs[i], data, 2);
        nimbus_convert_options o = convert_options();
        o.train.shift = 1;
        nimbus_net *one = converted(teacher, data, &o);
        o.n_threads = 2;
        o.valid = data; /* shapes nothing */
        nimbus_net *two = converted(teacher, data, &o);
        o.seed++;
        nimbus_net *other = converted(teacher, data, &o);
        assert_same_net(one, two);
        nimbus_buffer a = compiled(one, data, 1), b = compiled(two, data, 2);
        nimbus_buffer c = compiled(other, data, 1);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.bytes, b.bytes, a.size);
        assert_true(c.size != a.size || memcmp(a.bytes, c.bytes, a.size) != 0);
        nimbus_buffer_free(&a);
        nimbus_buffer_free(&b);
        nimbus_buffer_free(&c);
        nimbus_net_free(one);
        nimbus_net_free(two);
        nimbus_net_free(other);
        nimbus_net_free(teacher);
    }
    nimbus_data_free(data);
}

/* What BLAS and LAPACK would do with more threads, left from elsewhere in the process, is of no
 * effect: with them products and factors had other bits. */
static void test_threads_of_blas(void **state)
{
    (void)state;
    nimbus_data *data = make_data(600, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:200", data, 2);
    nimbus_convert_options o = convert_options();
    o.v = 1;
    o.epochs = SIZE_MAX;
    nimbus_net *nets[2];
    for (size_t i = 0; i < 2; i++) {
        openblas_set_num_threads(i ? 4 : 1);
        nets[i] = converted(teacher, data, &o);
    }
    assert_same_net(nets[0], nets[1]);
    nimbus_net_free(nets[0]);
    nimbus_net_free(nets[1]);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void assert_refused(const nimbus_net *teacher, const nimbus_data *data,
                           const nimbus_convert_options *o, nimbus_status expected,
                           const char *text)
{
    nimbus_net *net = (nimbus_net *)&error;
    CHECK_FAILS(nimbus_convert(teacher, data, o, &net, NULL, &error), expected, text);
    assert_null(net);
}

/* A progress callback for what must be refused before any layer is fitted. */
static int never(void *user, const nimbus_progress *p)
{
    (void)user;
    fail_msg("%s was begun", p->stage);
    return 0;
}

static void test_refusals(void **state)
{
    (void)state;
    nimbus_data *data = make_data(40, NIMBUS_U8, 4), *few = make_data(7, NIMBUS_U8, 4);
    nimbus_data *one = make_data(1, NIMBUS_U8, 4), *floats = make_data(40, NIMBUS_F32, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 0);
    nimbus_net *other = one_layer((nimbus_shape){5, 1, 1}, CLASSES);
    nimbus_convert_options o = convert_options();
    assert_refused(other, data, &o, NIMBUS_ERR_MISMATCH, "rows of 5 values, the data has 36");
    assert_refused(teacher, one, &o, NIMBUS_ERR_MISMATCH, "1 rows are too few");
    assert_refused(teacher, floats, &o, NIMBUS_ERR_MISMATCH,
                   "reads whole numbers from 0 to 255 (u8), the data has f32 values");
    assert_refused(teacher, few, &o, NIMBUS_ERR_ARGUMENT, "layer linear1: 8 leaves");
    o.fit_rows = 7;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "but only 7 rows");
    o = convert_options();
    o.progress = never;
    o.v = 25;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT,
                   "layer linear2: 25 columns per codebook, expected 1 to the layer's 24 inputs");
    o.v = 37;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "layer linear1: 37 columns");
    o = convert_options();
    o.progress = never;
    o.layers = "linear2:levels=6";
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "layer linear2: 64 leaves");
    o.layers = "linear2:columns=patch";
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "layer linear2: columns by patch");
    o.layers = "linear9:exact";
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "character 1: expected the name");
    o = convert_options();
    o.size = 8;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "NIMBUS_CONVERT_OPTIONS_INIT");
    o = convert_options();
    o.train.size = 0;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "NIMBUS_CONVERT_OPTIONS_INIT");
    static const double bad[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        o = convert_options();
        o.lambda = bad[i];
        assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "lambda");
    }
    o = convert_options();
    o.train.margin_noise = NAN;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "margin_noise is nan, expected 0 to");
    o = convert_options();
    o.train.rate = -1;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "rate is -1, expected 0 to 1e+06");
    o = convert_options();
    o.train.hint = 1e7;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "hint is 1e+07, expected 0 to 1e+06");
    o = convert_options();
    o.train.code_noise = 2;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "code_noise is 2, expected 0 to 0.9");
    o.train.code_noise = 0.1;
    o.method = NIMBUS_METHOD_LUT_NN;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "code_noise is 0.1, but previous");
    o = convert_options();
    o.layer_epochs = INFINITY;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "inf epochs");
    o = convert_options();
    o.estimator = (nimbus_estimator)3;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "unknown split, table or estimator");
    o = convert_options();
    o.preset = (nimbus_preset)9;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "unknown preset 9");
    o = convert_options();
    o.train.momentum = 2;
    assert_refused(teacher, data, &o, NIMBUS_ERR_ARGUMENT, "momentum");
    nimbus_net_free(teacher);
    nimbus_net_free(other);
    nimbus_data_free(data);
    nimbus_data_free(few);
    nimbus_data_free(one);
    nimbus_data_free(floats);
}

/* Every k-th allocation fails: a status, nothing leaked, the teacher as it was. */
static void test_failing_allocations(void **state)
{
    (void)state;
    nimbus_data *data = make_data(12, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:4;bn", data, 0), *same = float_net("mlp:4;bn", data, 0);
    nimbus_convert_options o = convert_options();
    nimbus_status status = NIMBUS_ERR_MEMORY;
    nimbus_net *net;
    long k = 0;
    o.v = 18;
    o.levels = 1;
    o.layers = "linear2:v=2";
    o.epochs = 1;
    o.layer_epochs = 1;
    char path[300];
    (void)snprintf(path, sizeof path, "%s", path_of("memory.ck"));
    nimbus_net *whole = converted(teacher, data, &o);
    o.checkpoint = path;
    while (status != NIMBUS_OK) {
        (void)remove(path);
        (void)remove(path_of("memory.ck.tune"));
        nimbus_fail_alloc_after = ++k;
        status = nimbus_convert(teacher, data, &o, &net, NULL, &error);
        bool failed = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        if (status != (failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK))
            print_error("allocation %ld: %s\n", k, error.message);
        assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
        assert_int_equal(net != NULL, status == NIMBUS_OK);
    }
    print_message("%ld allocations failed one after another\n", k - 1);
    assert_true(k > 200);
    assert_same_net(whole, net);
    assert_same_net(teacher, same);
    nimbus_net_free(net);
    nimbus_net_free(whole);
    nimbus_net_free(teacher);
    nimbus_net_free(same);
    nimbus_data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy_is_kept),
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_exact_layers_stay_exact),
        cmocka_unit_test(test_native_nets),
        cmocka_unit_test(test_regression),
        cmocka_unit_test(test_layer_by_layer),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_of_blas),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
