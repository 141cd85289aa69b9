/* test_check.c - src/check: the figures of a check against ones worked out by hand */
#include "convert_maker.h"

/* A net of one input column and two outputs: a line, and trees that stand for it. */
typedef struct pair {
    nimbus_net *teacher, *net;
    nimbus_data *data;
} pair;

enum { N = 4 };

/* Float net: y = (2x, -x), bias (0, 1). Trees: x > 2 gives (6, -2), else (2, 0), bias (0, 1).
 * Rows x = 0, 1, 3, 4 with labels 1, 0, 0, 1. */
static pair make_pair(void)
{
    const uint8_t rows[N] = {0, 1, 3, 4};
    const int32_t labels[N] = {1, 0, 0, 1};
    nimbus_data_info info = {.n_rows = N,
                             .n_features = 1,
                             .dtype = NIMBUS_U8,
                             .channels = 1,
                             .height = 1,
                             .width = 1,
                             .n_classes = 2};
    pair p;
    CHECK(nimbus_data_from_arrays(&info, rows, labels, NULL, &p.data, &error));
    p.teacher = one_layer((nimbus_shape){1, 1, 1}, 2);
    p.teacher->input_dtype = NIMBUS_U8;
    nimbus_layer *dense = &p.teacher->layers[1];
    values_of(dense, "weight")[0] = 2;
    values_of(dense, "weight")[1] = -1;
    values_of(dense, "bias")[1] = 1;
    CHECK(nimbus_net_copy(p.teacher, &p.net, &error));
    nimbus_layer *layer = &p.net->layers[1];
    CHECK(nimbus_lookup_attach(layer, 1, 1, NIMBUS_TREE_SHARED, &error));
    static const real tables[] = {2, 0, 6, -2};
    memcpy(values_of(layer, "tables"), tables, sizeof tables);
    values_of(layer, "thresholds")[0] = 2;
    values_of(layer, "margin")[0] = 1;
    values_of(layer, "scales")[0] = values_of(layer, "scales")[1] = (real)0.25;
    layer->lookup->bits = 8;
    CHECK(nimbus_lookup_round(layer, 1, &error));
    CHECK(nimbus_net_set_state(p.net, 1, NIMBUS_STATE_LOOKUP, &error));
    return p;
}

static void pair_free(pair *p)
{
    nimbus_net_free(p->teacher);
    nimbus_net_free(p->net);
    nimbus_data_free(p->data);
}

static nimbus_check_report check(const pair *p, const nimbus_net *teacher,
                                 const nimbus_program *program)
{
    nimbus_check_report report;
    memset(&report, 0xff, sizeof report);
    CHECK(nimbus_check(teacher, p->net, program, p->data, &report, &error));
    assert_int_equal(report.n_rows, N);
    assert_int_equal(report.n_layers, 1);
    assert_string_equal(report.layers[0].name, "linear1");
    assert_int_equal(report.layers[0].soft_lookup_differences, 0);
    assert_true(report.layers[0].soft_to_lookup == 0);
    return report;
}

/* Float outputs: (0, 1) (2, 0) (6, -2) (8, -3); trees: (2, 1) (2, 1) (6, -1) (6, -1).
 * Squares of the differences: output 0: 4 + 0 + 0 + 4, output 1: 0 + 1 + 1 + 4 = 14 in all.
 * Spread of the float outputs: of 0, 2, 6, 8 around 4: 40; of 1, 0, -2, -3 around -1: 10.
 * Classes, float net: 1 0 0 0, trees: 0 0 0 0; labels 1 0 0 1. */
static void test_figures(void **state)
{
    (void)state;
    pair p = make_pair();
    nimbus_program *program = program_of(p.net, NULL);
    nimbus_check_report r = check(&p, p.teacher, program);
    assert_near(r.layers[0].dense_to_lookup, 14.0 / 50, 1e-12);
    assert_near(r.float_accuracy, 0.75, 0);
    assert_near(r.lookup_accuracy, 0.5, 0);
    assert_near(r.integer_accuracy, 0.5, 0);
    assert_int_equal(r.decisions_changed, 0);
    assert_near(r.integer_error, 0, 0);
    /* without a float net, without a program */
    r = check(&p, NULL, NULL);
    assert_true(isnan(r.layers[0].dense_to_lookup) && isnan(r.float_accuracy) &&
                isnan(r.integer_accuracy) && isnan(r.integer_error));
    assert_near(r.lookup_accuracy, 0.5, 0);
    assert_int_equal(r.decisions_changed, 0);
    nimbus_close(program);
    pair_free(&p);
}

/* A program of other tables: (2, 1) (2, 1) as before, then (6, 9) (6, 9) where the net has
 * (6, -1) (6, -1). Squares: 2 * 100. Spread of the net's outputs: of 2, 2, 6, 6: 16; of 1, 1,
 * -1, -1: 4. Its classes: 0 0 1 1. */
static void test_disagreeing_program(void **state)
{
    (void)state;
    pair p = make_pair();
    nimbus_net *other;
    CHECK(nimbus_net_copy(p.net, &other, &error));
    values_of(&other->layers[1], "tables")[3] = 8;
    CHECK(nimbus_lookup_round(&other->layers[1], 1, &error));
    nimbus_program *program = program_of(other, NULL);
    nimbus_check_report r = check(&p, p.teacher, program);
    assert_near(r.integer_error, 200.0 / 20, 1e-12);
    assert_int_equal(r.decisions_changed, 2);
    assert_near(r.integer_accuracy, 0.5, 0);
    assert_near(r.lookup_accuracy, 0.5, 0);
    assert_near(r.layers[0].dense_to_lookup, 14.0 / 50, 1e-12);
    nimbus_close(program);
    nimbus_net_free(other);
    pair_free(&p);
}

/* Exact layers are not listed; accuracies are those of nimbus_evaluate. */
static void test_mixed_net(void **state)
{
    (void)state;
    nimbus_data *data = make_data(300, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 3);
    nimbus_convert_options o = convert_options();
    o.layers = "linear1:bits=2,v=36,levels=1;linear2:v=1,levels=7;linear3:exact";
    o.epochs = SIZE_MAX;
    nimbus_net *net = converted(teacher, data, &o);
    nimbus_check_report r;
    CHECK(nimbus_check(teacher, net, NULL, data, &r, &error));
    assert_int_equal(r.n_layers, 2);
    assert_string_equal(r.layers[0].name, "linear1");
    assert_string_equal(r.layers[1].name, "linear2");
    assert_true(r.layers[0].dense_to_lookup > 0.1);
    assert_true(r.layers[1].dense_to_lookup > 0 && isfinite(r.layers[1].dense_to_lookup));
    nimbus_evaluation e;
    CHECK(nimbus_evaluate(net, data, 1, &e, &error));
    assert_near(r.lookup_accuracy, e.accuracy, 0);
    CHECK(nimbus_evaluate(teacher, data, 1, &e, &error));
    assert_near(r.float_accuracy, e.accuracy, 0);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* More rows than a batch, a state that is not LOOKUP: figures as over the whole. */
static void test_many_rows(void **state)
{
    (void)state;
    nimbus_data *data = make_data(700, NIMBUS_F32, 4);
    nimbus_net *teacher = float_net("mlp:24", data, 3);
    nimbus_convert_options o = convert_options();
    nimbus_net *net = converted(teacher, data, &o), *soft;
    nimbus_program *program = program_of(net, NULL);
    nimbus_check_report a, b;
    float *x, *y;
    CHECK(nimbus_net_copy(net, &soft, &error));
    CHECK(nimbus_net_set_state(soft, 1, NIMBUS_STATE_SOFT, &error));
    CHECK(nimbus_check(teacher, net, program, data, &a, &error));
    CHECK(nimbus_check(teacher, soft, program, data, &b, &error));
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(soft->layers[1].state, NIMBUS_STATE_SOFT);
    run_both(net, program, data, &x, &y);
    double squares = 0, spread = 0;
    size_t changed = 0, correct = 0;
    for (size_t m = 0; m < CLASSES; m++) {
        double mean = 0;
        for (size_t n = 0; n < 700; n++)
            mean += (double)x[n * CLASSES + m] / 700;
        for (size_t n = 0; n < 700; n++) {
            double value = (double)x[n * CLASSES + m];
            squares += pow((double)y[n * CLASSES + m] - value, 2);
            spread += pow(value - mean, 2);
        }
    }
    for (size_t n = 0; n < 700; n++) {
        size_t decided = nimbus_argmax(y + n * CLASSES, CLASSES);
        changed += decided != nimbus_argmax(x + n * CLASSES, CLASSES);
        correct += (int32_t)decided == nimbus_data_labels(data)[n];
    }
    assert_near(a.integer_error, squares / spread, 1e-9 + 1e-6 * squares / spread);
    assert_int_equal(a.decisions_changed, changed);
    assert_near(a.integer_accuracy, (double)correct / 700, 1e-12);
    nimbus_free(x);
    nimbus_free(y);
    nimbus_close(program);
    nimbus_net_free(net);
    nimbus_net_free(soft);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Outputs that never change have no spread to measure an error against: still not "no error". */
static void test_constant_outputs(void **state)
{
    (void)state;
    pair p = make_pair();
    nimbus_net *other;
    real *tables = values_of(&p.net->layers[1], "tables");
    tables[2] = tables[0];
    tables[3] = tables[1];
    CHECK(nimbus_lookup_round(&p.net->layers[1], 1, &error));
    CHECK(nimbus_net_copy(p.net, &other, &error));
    nimbus_program *program = program_of(p.net, NULL);
    assert_near(check(&p, NULL, program).integer_error, 0, 0);
    nimbus_close(program);
    values_of(&other->layers[1], "tables")[0] = 20;
    CHECK(nimbus_lookup_round(&other->layers[1], 1, &error));
    program = program_of(other, NULL);
    assert_true(check(&p, NULL, program).integer_error > 1);
    nimbus_close(program);
    nimbus_net_free(other);
    pair_free(&p);
}

static void test_mismatches(void **state)
{
    (void)state;
    pair p = make_pair();
    nimbus_check_report r;
    nimbus_data *images = make_data(20, NIMBUS_U8, 1);
    nimbus_net *wide = float_net("mlp:4", images, 0), *deep = float_net("mlp:4,4", images, 0);
    nimbus_net *wider = float_net("mlp:5", images, 0);
    nimbus_net *tanh_net = float_net("mlp:4;tanh", images, 0);
    nimbus_program *program = program_of(wide, images);
#define MISMATCH(teacher, net, prog, data, text)                                                   \
    CHECK_FAILS(nimbus_check(teacher, net, prog, data, &r, &error), NIMBUS_ERR_MISMATCH, text)
    MISMATCH(NULL, p.net, NULL, images, "rows of 1 u8 values, the data has 36 u8 features");
    MISMATCH(NULL, wide, NULL, p.data, "rows of 36 u8 values, the data has 1 u8 features");
    MISMATCH(NULL, p.net, program, p.data, "computes 3 outputs of 36 inputs, the net 2 of 1");
    MISMATCH(p.teacher, wide, program, images, "the float net has 2 layers, the converted one 4");
    MISMATCH(deep, wide, program, images, "the float net has 6 layers, the converted one 4");
    MISMATCH(wider, wide, program, images, "layer 1 is linear of width 5 in the float net");
    MISMATCH(tanh_net, wide, program, images, "layer 2 is tanh of width 4 in the float net, relu");
    wide->input_dtype = NIMBUS_F32;
    MISMATCH(NULL, wide, NULL, images, "rows of 36 f32 values, the data has 36 u8 features");
    nimbus_close(program);
    nimbus_net_free(wide);
    nimbus_net_free(wider);
    nimbus_net_free(deep);
    nimbus_net_free(tanh_net);
    nimbus_data_free(images);
    pair_free(&p);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    pair p = make_pair();
    nimbus_program *program = program_of(p.net, NULL);
    nimbus_status status = NIMBUS_ERR_MEMORY;
    nimbus_check_report r;
    long k = 0;
    while (status != NIMBUS_OK) {
        nimbus_fail_alloc_after = ++k;
        status = nimbus_check(p.teacher, p.net, program, p.data, &r, &error);
        bool failed = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
    }
    assert_true(k > 50);
    nimbus_close(program);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_disagreeing_program),
        cmocka_unit_test(test_mixed_net),
        cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_constant_outputs),
        cmocka_unit_test(test_mismatches),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
