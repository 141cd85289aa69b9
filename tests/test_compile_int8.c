/* test_compile_int8.c - src/compile: nets with int8 rounding in them, refusals, files
 *
 * Exact layers and wide sums round, so their nets are trained, and net and program must decide
 * alike nearly always. */
#include "compile_maker.h"

/* ---- int8 rounding ----------------------------------------------------------------------------
 */

static void assert_near_net(const nimbus_net *net, const nimbus_data *data, double least)
{
    nimbus_program *program = program_of(net, data);
    nimbus_check_report report;
    double same = agreement(net, program, data);
    CHECK(nimbus_check(NULL, net, program, data, &report, &error));
    if (!(same >= least && report.integer_error < 0.05))
        print_error("%g of the rows decided alike, squared error %g\n", same, report.integer_error);
    assert_true(same >= least && report.integer_error < 0.05);
    nimbus_close(program);
}

/* Float nets whole: every layer an exact int8 step. */
static void test_float_nets(void **state)
{
    (void)state;
    static const char *const specs[] = {"mlp:16,12",         "mlp:16,12;bn",  "mlp:16;gelu",
                                        "mlp:16,12;tanh;bn", "mlp:9;sigmoid", "36-3"};
    for (int dtype = NIMBUS_U8; dtype <= NIMBUS_F32; dtype++) {
        nimbus_data *data = make_data(300, (nimbus_dtype)dtype, 4);
        for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
            nimbus_net *net = float_net(specs[i], data, 4);
            nimbus_program *program = program_of(net, data);
            for (size_t s = 0; s < nimbus_info(program)->n_steps; s++)
                assert_int_equal(step_of(program, s).kind, NIMBUS_STEP_EXACT);
            assert_int_equal(nimbus_info(program)->lookups, 0);
            assert_int_equal(nimbus_info(program)->input_dtype, dtype);
            nimbus_close(program);
            assert_near_net(net, data, 0.95);
            nimbus_net_free(net);
        }
        nimbus_data_free(data);
    }
}

/* One or two of three layers exact, in every place, around every activation. */
static void test_mixed_nets(void **state)
{
    (void)state;
    static const char *const specs[] = {"mlp:16,12", "mlp:16,12;bn;tanh", "mlp:16,12;gelu"};
    for (int i = 0; i < 3 * 8; i++) {
        nimbus_data *data = make_data(240, i % 2 ? NIMBUS_F32 : NIMBUS_U8, 4);
        nimbus_net *teacher = float_net(specs[i / 8], data, 4);
        nimbus_convert_options o = convert_options();
        char layers[100] = "";
        for (int l = 0; l < 3; l++)
            if (i % 8 >> l & 1)
                (void)snprintf(layers + strlen(layers), 20, "linear%d:exact;", l + 1);
        o.layers = layers;
        nimbus_net *net = converted(teacher, data, &o);
        nimbus_program *program = program_of(net, data);
        for (size_t s = 0; s < 3; s++) {
            assert_int_equal(step_of(program, s).kind,
                             i % 8 >> s & 1 ? NIMBUS_STEP_EXACT : NIMBUS_STEP_LOOKUP);
            char name[20];
            (void)snprintf(name, sizeof name, "linear%zu", s + 1);
            assert_string_equal(step_of(program, s).name, name);
        }
        nimbus_close(program);
        assert_near_net(net, data, 0.95);
        nimbus_net_free(net);
        nimbus_net_free(teacher);
        nimbus_data_free(data);
    }
}

/* Many codebooks: sums too wide for int8, so thresholds are shifted. */
static void test_shifted_sums(void **state)
{
    (void)state;
    nimbus_data *data = make_data(400, NIMBUS_U8, 4);
    for (int i = 0; i < 4; i++) {
        nimbus_net *teacher = float_net(i % 2 ? "mlp:24,24;bn" : "mlp:24,24", data, 4);
        nimbus_convert_options o = convert_options();
        o.v = 1;
        o.bits = i < 2 ? 8 : 32;
        nimbus_net *net = converted(teacher, data, &o);
        assert_true(shift_of(net, 0) > 0 && shift_of(net, 2) == 0);
        assert_near_net(net, data, 0.95);
        nimbus_net_free(net);
        nimbus_net_free(teacher);
    }
    nimbus_data_free(data);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void assert_refused(const nimbus_net *net, const nimbus_data *calibration,
                           nimbus_status expected, const char *text)
{
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    void *bytes = &o;
    size_t n = 1;
    o.calibration = calibration;
    CHECK_FAILS(nimbus_compile(net, &o, &bytes, &n, &error), expected, text);
    assert_null(bytes);
    assert_int_equal(n, 0);
}

static void test_refusals(void **state)
{
    (void)state;
    nimbus_data *data = make_data(40, NIMBUS_U8, 4);
    nimbus_net *net = float_net("mlp:8", data, 0);
    nimbus_convert_options o = convert_options();
    nimbus_compile_options bad = {.size = 3};
    void *bytes;
    size_t n;
    CHECK_FAILS(nimbus_compile(net, &bad, &bytes, &n, &error), NIMBUS_ERR_ARGUMENT, "INIT");

    assert_refused(net, NULL, NIMBUS_ERR_ARGUMENT, "layer linear2 need measured ranges");
    o.epochs = SIZE_MAX;
    o.layers = "linear1:exact";
    nimbus_net *mixed = converted(net, data, &o);
    CHECK(nimbus_compile(mixed, NULL, &bytes, &n, &error)); /* pixels need no calibration */
    nimbus_compile_free(bytes);
    mixed->input_dtype = NIMBUS_F32;
    assert_refused(mixed, NULL, NIMBUS_ERR_ARGUMENT, "layer linear1 need measured ranges");
    nimbus_net_free(mixed);

    recipe r = plain_recipe(5);
    nimbus_data *narrow = random_rows(&r);
    assert_refused(net, narrow, NIMBUS_ERR_MISMATCH, "rows of 7 features, expected rows of 36");
    nimbus_data_free(narrow);
    add(net, (nimbus_layer){.type = &nimbus_layer_relu}, 0);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED,
                   "layer relu2 (relu) stands after the last linear layer");
    nimbus_net_free(net);

    net = nimbus_net_new();
    assert_non_null(net);
    add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {1, SIDE, SIDE}}, 0);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED, "no linear layer");
    add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm}, 0);
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 3}, 0);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED,
                   "layer batch_norm1 (batch_norm) stands before the first");
    nimbus_net_free(net);

    net = float_net("mlp:8", data, 0);
    add(net, (nimbus_layer){.type = &nimbus_layer_tanh}, 0);
    add(net, (nimbus_layer){.type = &nimbus_layer_sigmoid}, 0);
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 3}, 0);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED, "layer sigmoid1 (sigmoid): between two");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* Sums and scores at the bound of 32 bits, and one beyond. */
static void test_limits(void **state)
{
    (void)state;
    recipe r = plain_recipe(7);
    r.n_lookups = 1;
    nimbus_data *data = random_rows(&r);
    nimbus_net *net = random_net(&r, data);
    nimbus_layer *layer = &net->layers[1];
    assert_true(layer->lookup->n_codebooks > 1);
    size_t n = nimbus_layer_param(layer, "tables")->n;
    for (size_t i = 0; i < n; i++)
        values_of(layer, "tables")[i] = i % 2 ? (real)(127 * UNIT) : (real)(-127 * UNIT);
    CHECK(nimbus_lookup_round(layer, 1, &error));
    /* 2^31 - 128 is the greatest float below 2^31 */
    values_of(layer, "bias")[1] = (real)(UNIT * -2147483520.0);
    double reach = 127 * (double)layer->lookup->n_codebooks;
    char text[100];
    (void)snprintf(text, sizeof text, "layer linear1: a sum can reach %.0f", 2147483520 + reach);
    assert_refused(net, NULL, NIMBUS_ERR_LIMIT, text);
    values_of(layer, "bias")[1] = (real)(UNIT * -2147480000.0);
    CHECK(nimbus_lookup_round(layer, 1, &error));
    nimbus_program *program = program_of(net, NULL);
    nimbus_close(program);
    /* a bias that is not even a 32-bit number of units */
    values_of(layer, "bias")[1] = (real)(UNIT * 1e13);
    assert_refused(net, NULL, NIMBUS_ERR_LIMIT, "layer linear1");
    values_of(layer, "bias")[1] = (real)(UNIT * -8589934592.0); /* would wrap to 0 */
    assert_refused(net, NULL, NIMBUS_ERR_LIMIT, "layer linear1");
    values_of(layer, "bias")[1] = 0;
    values_of(&net->layers[0], "inverse_std")[(size_t)values_of(layer, "columns")[0]] = 0;
    assert_refused(net, NULL, NIMBUS_ERR_UNSUPPORTED, "expected a positive factor");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* ---- bytes and files --------------------------------------------------------------------------
 */

static void test_same_bytes(void **state)
{
    (void)state;
    nimbus_data *data = make_data(240, NIMBUS_F32, 4);
    nimbus_net *teacher = float_net("mlp:16,12;bn", data, 2);
    nimbus_convert_options o = convert_options();
    o.bits = 32;
    o.layers = "linear2:exact";
    nimbus_net *net = converted(teacher, data, &o), *copy;
    CHECK(nimbus_net_copy(net, &copy, &error));
    nimbus_buffer a = compiled(net, data, 1), b = compiled(net, data, 2),
                  c = compiled(copy, data, 0);
    assert_same_net(net, copy); /* compiling leaves its net alone */
    assert_true(a.size == b.size && a.size == c.size);
    assert_memory_equal(a.bytes, b.bytes, a.size);
    assert_memory_equal(a.bytes, c.bytes, a.size);
    nimbus_program *program;
    CHECK(nimbus_load(a.bytes, a.size, &program, &error));
    assert_string_equal(nimbus_metadata(program), net->metadata);
    nimbus_close(program);
    nimbus_buffer_free(&a);
    nimbus_buffer_free(&b);
    nimbus_buffer_free(&c);
    nimbus_net_free(net);
    nimbus_net_free(copy);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

static void assert_file_is(const char *path, const nimbus_buffer *bytes)
{
    nimbus_buffer file;
    CHECK(nimbus_file_read(path, SIZE_MAX, &file, &error));
    assert_int_equal(file.size, bytes->size);
    assert_memory_equal(file.bytes, bytes->bytes, file.size);
    nimbus_buffer_free(&file);
}

static void test_files(void **state)
{
    (void)state;
    recipe r = plain_recipe(5);
    nimbus_data *data = random_rows(&r);
    nimbus_net *net = random_net(&r, data);
    nimbus_buffer expected = compiled(net, NULL, 1), old = {.bytes = (uint8_t *)"old", .size = 3};
    char path[300];
    (void)snprintf(path, sizeof path, "%s", path_of("a.nimbus"));
    CHECK(nimbus_compile_to_file(net, NULL, path, &error));
    assert_file_is(path, &expected);
    CHECK_FAILS(nimbus_compile_to_file(net, NULL, path_of("no/such.nimbus"), &error), NIMBUS_ERR_IO,
                "no/such.nimbus");
    assert_int_not_equal(error.os_errno, 0);
    CHECK_FAILS(nimbus_compile_to_file(net, NULL, folder, &error), NIMBUS_ERR_IO, "folder");
    bool failed = true;
    long k = 0;
    while (failed) {
        CHECK(nimbus_file_write(path, old.bytes, old.size, &error));
        nimbus_fail_file_call_after = ++k;
        nimbus_status status = nimbus_compile_to_file(net, NULL, path, &error);
        failed = nimbus_fail_file_call_after == 0;
        nimbus_fail_file_call_after = 0;
        assert_int_equal(status, failed ? NIMBUS_ERR_IO : NIMBUS_OK);
        bool written = !failed || strstr(error.message, "written, but its folder");
        assert_file_is(path, written ? &expected : &old);
    }
    assert_true(k >= 7);
    nimbus_buffer_free(&expected);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* Every k-th allocation fails: a status, nothing lost or leaked. */
static void test_failing_allocations(void **state)
{
    (void)state;
    nimbus_data *data = make_data(40, NIMBUS_F32, 4);
    nimbus_net *teacher = float_net("mlp:8,8;bn;gelu", data, 0);
    for (int i = 0; i < 4; i++) {
        static const char *const layers[] = {"linear1:exact", "linear2:exact", "linear3:exact", ""};
        nimbus_convert_options o = convert_options();
        nimbus_compile_options compile = NIMBUS_COMPILE_OPTIONS_INIT;
        o.layers = layers[i];
        o.epochs = SIZE_MAX;
        o.bits = i % 2 ? 8 : 32;
        nimbus_net *net = converted(teacher, data, &o);
        compile.calibration = data;
        compile.n_threads = 1;
        assert_true(compile_failing_allocations(net, &compile) > 50);
        nimbus_net_free(net);
    }
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_nets),   cmocka_unit_test(test_mixed_nets),
        cmocka_unit_test(test_shifted_sums), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_files),        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
