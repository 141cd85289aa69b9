/* test_convert_conv.c - conversion of nets with convolutions: what is converted by default, several
 * trees a channel, residual sums, the same bytes for any number of threads, epochs by default */
#include "convert_maker.h"

static nimbus_slide slide(size_t kernel, size_t stride)
{
    size_t pad = kernel / 2;
    return (nimbus_slide){.kernel = {kernel, kernel},
                          .stride = {stride, stride},
                          .before = {pad, pad},
                          .after = {pad, pad}};
}

static void reads(nimbus_net *net, nimbus_layer proto, size_t a, size_t b)
{
    const size_t inputs[] = {a, b};
    CHECK(nimbus_net_add(net, &proto, inputs, 2, 1, &error));
}

/* input 1 x 28 x 28 - conv2d1 (8) - bn - relu - conv2d2 (8) - bn - add - relu - conv2d3 (16, stride
 * 2) - relu - linear. */
static nimbus_net *residual_net(const nimbus_data *data)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    add(net,
        (nimbus_layer){.type = &nimbus_layer_input,
                       .in_shape = {info->channels, info->height, info->width}},
        0);
    nimbus_data_normalisation(data, nimbus_layer_param(&net->layers[0], "mean")->value,
                              nimbus_layer_param(&net->layers[0], "inverse_std")->value);
    add(net, (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 8, .slide = slide(3, 2)}, 1);
    add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm}, 1);
    add(net, (nimbus_layer){.type = &nimbus_layer_relu}, 1);
    add(net, (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 8, .slide = slide(3, 1)}, 2);
    add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm}, 1);
    reads(net, (nimbus_layer){.type = &nimbus_layer_add}, 3, 5);
    add(net, (nimbus_layer){.type = &nimbus_layer_relu}, 1);
    add(net, (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 16, .slide = slide(3, 2)}, 3);
    add(net, (nimbus_layer){.type = &nimbus_layer_relu}, 1);
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = info->n_classes}, 4);
    net->input_dtype = NIMBUS_U8;
    return net;
}

static nimbus_data *some_digits(nimbus_split split, size_t n_rows)
{
    nimbus_data_options o = NIMBUS_DATA_OPTIONS_INIT;
    nimbus_data *data;
    o.n_rows = n_rows;
    CHECK(nimbus_data_open("digits", split, &o, &data, &error));
    return data;
}

static nimbus_data *digits(nimbus_split split)
{
    return some_digits(split, 1000);
}

static nimbus_net *trained_net(const nimbus_data *data)
{
    nimbus_net *net = residual_net(data);
    nimbus_train_options train = small_options();
    train.epochs = 5;
    train.rate = 1e-2;
    CHECK(nimbus_train(net, data, &train, NULL, &error));
    return net;
}

static nimbus_convert_options image_options(void)
{
    nimbus_convert_options o = convert_options();
    o.v = 0;
    o.levels = 4;
    o.epochs = SIZE_MAX;
    return o;
}

static const nimbus_layer *named(const nimbus_net *net, const char *name)
{
    for (size_t i = 0; i < net->n_layers; i++)
        if (strcmp(net->layers[i].name, name) == 0)
            return &net->layers[i];
    fail_msg("no layer %s", name);
    return NULL;
}

static void test_what_is_converted(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 200);
    nimbus_net *teacher = residual_net(data);
    for (int preset = NIMBUS_BALANCED; preset <= NIMBUS_ACCURACY; preset++) {
        static const size_t trees[] = {
            [NIMBUS_BALANCED] = 2, [NIMBUS_SPEED] = 1, [NIMBUS_ACCURACY] = 2};
        nimbus_convert_options o = image_options();
        o.most_change = -1;
        o.preset = (nimbus_preset)preset;
        nimbus_net *net = converted(teacher, data, &o);
        assert_null(named(net, "conv2d1")->lookup); /* patches of 9 values */
        assert_null(named(net, "linear1")->lookup); /* the classifier */
        assert_int_equal(named(net, "conv2d2")->lookup->n_codebooks, 8 * trees[preset]);
        assert_int_equal(named(net, "conv2d3")->lookup->n_codebooks, 8 * trees[preset]);
        assert_int_equal(named(net, "conv2d2")->state, NIMBUS_STATE_LOOKUP);
        assert_int_equal(named(net, "conv2d2")->lookup->kind, NIMBUS_TREE_SHARED);
        assert_int_equal(named(net, "conv2d1")->state, NIMBUS_STATE_DENSE);
        nimbus_net_free(net);
    }
    nimbus_convert_options o = image_options();
    nimbus_convert_report report;
    nimbus_net *net;
    o.layers = "linear1:columns=runs;conv2d2:v=9,columns=balanced";
    assert_int_equal(nimbus_convert(teacher, data, &o, &net, &report, &error), NIMBUS_ERR_ARGUMENT);
    assert_non_null(strstr(error.message, "conv2d2 is a convolution"));
    o.layers = "conv2d1:v=3,trees=1;conv2d2:exact;conv2d3:trees=3,v=18;linear1:v=8";
    net = converted(teacher, data, &o);
    assert_int_equal(named(net, "conv2d1")->lookup->n_codebooks, 3);
    assert_null(named(net, "conv2d2")->lookup);
    assert_int_equal(named(net, "conv2d3")->lookup->n_codebooks, 12);
    assert_int_equal(named(net, "linear1")->lookup->n_codebooks, 16 * 7 * 7 / 8);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Each further tree of a channel lowers the error; all trees of a channel read its patch alone. */
static void test_boosted_trees(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 400);
    nimbus_net *teacher = trained_net(data);
    double before[2] = {1, 1};
    for (size_t trees = 1; trees <= 4; trees *= 2) {
        nimbus_convert_options o = image_options();
        nimbus_convert_report report;
        nimbus_net *net;
        o.trees = trees;
        CHECK(nimbus_convert(teacher, data, &o, &net, &report, &error));
        assert_int_equal(report.n_layers, 2);
        for (size_t i = 0; i < 2; i++) {
            assert_true(report.layers[i].error_fit < 0.9 * before[i]);
            before[i] = report.layers[i].error_fit;
        }
        const nimbus_layer *layer = named(net, "conv2d2");
        const real *columns = values_of(layer, "columns");
        for (size_t i = 0; i < layer->lookup->n_codebooks * 15; i++)
            assert_int_equal((size_t)columns[i] / 9, i / 15 / trees);
        nimbus_net_free(net);
    }
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

static void test_accuracy_is_kept(void **state)
{
    (void)state;
    nimbus_data *data = digits(NIMBUS_SPLIT_TRAIN), *test = digits(NIMBUS_SPLIT_TEST);
    nimbus_net *teacher = trained_net(data);
    double before = accuracy_of(teacher, test);
    assert_true(before > 0.9);
    nimbus_convert_options o = image_options();
    o.epochs = 3;
    nimbus_net *net = converted(teacher, data, &o);
    assert_true(accuracy_of(net, test) > before - 0.05);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
    nimbus_data_free(test);
}

static float *test_outputs(const nimbus_net *net, const nimbus_data *data)
{
    float *out = nimbus_alloc(nimbus_data_get_info(data)->n_rows * 10, sizeof *out);
    assert_non_null(out);
    CHECK(nimbus_net_predict(net, data, 1, out, &error));
    return out;
}

static void all_dense(nimbus_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++)
        if (nimbus_layer_is_product(&net->layers[i]))
            CHECK(nimbus_net_set_state(net, i, NIMBUS_STATE_DENSE, &error));
}

static void assert_same_outputs(const nimbus_net *a, const nimbus_net *b, const nimbus_data *data,
                                double tolerance)
{
    float *x = test_outputs(a, data), *y = test_outputs(b, data);
    for (size_t i = 0; i < 10 * nimbus_data_get_info(data)->n_rows; i++)
        assert_true(fabs((double)(x[i] - y[i])) <= tolerance);
    nimbus_free(x);
    nimbus_free(y);
}

/* Converted convolutions have a batch norm and read what goes into ReLUs; with their weights again
 * the net is the float net, also when read from a file. Exact layers are left as they are. */
static void test_graph(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 200);
    nimbus_net *teacher = trained_net(data);
    nimbus_convert_options o = image_options();
    o.bits = 32;
    nimbus_net *net = converted(teacher, data, &o), *read;
    assert_int_equal(net->n_layers, teacher->n_layers + 1);
    size_t third = (size_t)(named(net, "conv2d3") - net->layers);
    const nimbus_layer *norm = named(net, "conv2d3_norm");
    assert_ptr_equal(norm, &net->layers[third + 1]);
    assert_int_equal(norm->input[0], third);
    assert_int_equal(named(net, "relu3")->input[0], third + 1);
    assert_ptr_equal(&net->layers[named(net, "conv2d3")->input[0]], named(net, "add1"));
    assert_ptr_equal(&net->layers[named(net, "conv2d2")->input[0]], named(net, "batch_norm1"));
    assert_false(named(net, "conv2d1")->before_relu);

    nimbus_buffer bytes = {0};
    CHECK(nimbus_net_write(net, &bytes, &error));
    CHECK(nimbus_net_read(bytes.bytes, bytes.size, &read, &error));
    assert_same_outputs(net, read, data, 0);
    all_dense(net);
    all_dense(read);
    assert_ptr_equal(&read->layers[named(read, "conv2d3")->input[0]], named(read, "relu2"));
    assert_same_outputs(net, read, data, 0);
    assert_same_outputs(net, teacher, data, 1e-3);
    nimbus_buffer_free(&bytes);
    nimbus_net_free(read);
    nimbus_net_free(net);

    o.layers = "conv2d3:exact";
    net = converted(teacher, data, &o);
    assert_int_equal(net->n_layers, teacher->n_layers);
    assert_false(named(net, "conv2d3")->before_relu);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Previous methods convert the same layers, with a codebook a channel and the same batch norms, but
 * read what comes out of ReLUs. */
static void test_other_methods(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 200);
    nimbus_net *teacher = trained_net(data);
    nimbus_convert_options o = image_options();
    o.budget = 1;
    o.epochs = 0;
    static const nimbus_method methods[] = {NIMBUS_METHOD_MADDNESS, NIMBUS_METHOD_LUT_NN,
                                            NIMBUS_METHOD_RANDOM_START};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        o.method = methods[i];
        nimbus_net *net = converted(teacher, data, &o);
        assert_int_equal(net->n_layers, teacher->n_layers + 1);
        assert_int_equal(named(net, "conv2d3_norm")->input[0],
                         (size_t)(named(net, "conv2d3") - net->layers));
        assert_null(named(net, "conv2d1")->lookup);
        assert_int_equal(named(net, "conv2d2")->lookup->n_codebooks, 8);
        assert_int_equal(named(net, "conv2d3")->lookup->n_codebooks, 8);
        assert_false(named(net, "conv2d3")->before_relu);
        nimbus_net_free(net);
    }
    /* ours reads past ReLUs: no layer is trained alone, and all together have the whole budget */
    nimbus_convert_report report;
    nimbus_net *net;
    o.method = NIMBUS_METHOD_NIMBUS;
    o.budget = 3;
    o.layer_epochs = 1;
    CHECK(nimbus_convert(teacher, data, &o, &net, &report, &error));
    assert_true(report.rows_seen == 3 * 200);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* As exact stand-ins for all of its layers the float net gives the program that it gives itself. */
static void test_stand_ins(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 200);
    nimbus_net *teacher = trained_net(data);
    nimbus_convert_options o = image_options();
    nimbus_net *net = converted(teacher, data, &o);
    nimbus_compile_options compile = NIMBUS_COMPILE_OPTIONS_INIT;
    void *expected, *bytes;
    size_t n_expected, n;
    compile.calibration = data;
    CHECK(nimbus_compile(teacher, &compile, &expected, &n_expected, &error));
    compile.exact = "*";
    compile.float_net = teacher;
    CHECK(nimbus_compile(net, &compile, &bytes, &n, &error));
    assert_int_equal(n, n_expected);
    assert_memory_equal(bytes, expected, n);
    nimbus_compile_free(bytes);
    nimbus_compile_free(expected);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

static void test_threads_change_nothing(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 300);
    nimbus_net *teacher = residual_net(data);
    nimbus_buffer bytes[2] = {{0}, {0}};
    for (unsigned threads = 1; threads <= 2; threads++) {
        nimbus_convert_options o = image_options();
        o.n_threads = threads;
        o.epochs = 1;
        o.trees = 2;
        nimbus_net *net = converted(teacher, data, &o);
        CHECK(nimbus_net_write(net, &bytes[threads - 1], &error));
        nimbus_net_free(net);
    }
    assert_int_equal(bytes[0].size, bytes[1].size);
    assert_memory_equal(bytes[0].bytes, bytes[1].bytes, bytes[0].size);
    nimbus_buffer_free(&bytes[0]);
    nimbus_buffer_free(&bytes[1]);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Squared error of ten outputs a row as a share of their variance. */
static double change_of(const float *outputs, const float *expected, const nimbus_data *data)
{
    const size_t n = nimbus_data_get_info(data)->n_rows;
    double sum = 0, variance = 0;
    for (size_t m = 0; m < 10; m++) {
        double mean = 0;
        for (size_t i = m; i < 10 * n; i += 10)
            mean += (double)expected[i] / (double)n;
        for (size_t i = m; i < 10 * n; i += 10) {
            sum += pow((double)outputs[i] - (double)expected[i], 2);
            variance += pow((double)expected[i] - mean, 2);
        }
    }
    return sum / variance;
}

/* Each layer alone, with the teacher's others, is what a conversion of it alone gives; up to a
 * limit layers get more trees or stay exact, but not one that the caller has settings for. */
static void test_sensitivity(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 50);
    nimbus_net *teacher = trained_net(data);
    nimbus_convert_options o = image_options();
    nimbus_convert_report report, made;
    o.epochs = SIZE_MAX;
    o.bits = 32;
    CHECK(nimbus_convert_sensitivity(teacher, data, &o, &report, &error));
    assert_int_equal(report.n_sensitivities, 2);
    assert_int_equal(report.n_layers, 0);
    for (size_t i = 0; i < 2; i++) {
        const nimbus_sensitivity *s = &report.sensitivities[i];
        assert_string_equal(s->name, i ? "conv2d3" : "conv2d2");
        assert_int_equal(s->first_trees, 1);
        assert_int_equal(s->n_changes, NIMBUS_TREES_TRIED);
        assert_int_equal(s->multiply_adds, i ? 7 * 7 * 16 * 72 : 14 * 14 * 8 * 72);
        assert_int_equal(s->lookups * 9, s->multiply_adds);
        assert_int_equal(s->trees, 2); /* as planned */
        for (size_t k = 0; k < s->n_changes; k++)
            assert_true(s->change[k] > 1e-4 && s->change[k] < (k ? s->change[k - 1] : 1));
        for (o.trees = 1; o.trees <= 3; o.trees += 2) {
            nimbus_net *net;
            o.layers = i ? "conv2d2:exact" : "conv2d3:exact";
            CHECK(nimbus_convert(teacher, data, &o, &net, &made, &error));
            float *expected = test_outputs(teacher, data), *outputs = test_outputs(net, data);
            double change = s->change[o.trees - 1];
            assert_true(fabs(change_of(outputs, expected, data) - change) < 1e-6 * change);
            nimbus_free(expected);
            nimbus_free(outputs);
            nimbus_net_free(net);
        }
        o.trees = 0;
    }
    const nimbus_sensitivity *s = report.sensitivities;
    const double of_one = s[0].change[0] + s[1].change[0];
    const double least = s[0].change[NIMBUS_TREES_TRIED - 1] + s[1].change[NIMBUS_TREES_TRIED - 1];
    const double limits[] = {1.001 * of_one, 0.5 * of_one, 0.5 * least, 1e-9};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        nimbus_net *net;
        double sum = 0;
        o.layers = NULL;
        o.most_change = limits[i];
        CHECK(nimbus_convert(teacher, data, &o, &net, &made, &error));
        for (size_t k = 0; k < 2; k++) {
            const nimbus_sensitivity *chosen = &made.sensitivities[k];
            const nimbus_lookup *lookup = named(net, chosen->name)->lookup;
            assert_int_equal(lookup ? lookup->n_codebooks : 0, 8 * chosen->trees);
            sum += chosen->trees ? chosen->change[chosen->trees - 1] : 0;
            assert_true(i > 0 || chosen->trees == 1);
            assert_true(i < 3 || chosen->trees == 0);
        }
        assert_true(sum <= limits[i]);
        nimbus_net_free(net);
    }
    nimbus_net *net;
    o.layers = "conv2d3:v=9";
    CHECK(nimbus_convert(teacher, data, &o, &net, &made, &error));
    assert_null(named(net, "conv2d2")->lookup);
    assert_int_equal(named(net, "conv2d3")->lookup->n_codebooks, 16);
    assert_int_equal(made.sensitivities[1].trees, 2);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* The checkpoint of other options says so, though the net gets other batch norms by them. */
static void test_foreign_checkpoint(void **state)
{
    (void)state;
    nimbus_data *data = some_digits(NIMBUS_SPLIT_TRAIN, 300);
    nimbus_net *teacher = residual_net(data), *net;
    nimbus_convert_options o = image_options();
    char path[300];
    (void)snprintf(path, sizeof path, "%s", path_of("conv.ck"));
    o.checkpoint = path;
    nimbus_net_free(converted(teacher, data, &o));
    o.layers = "conv2d2:exact";
    CHECK_FAILS(nimbus_convert(teacher, data, &o, &net, NULL, &error), NIMBUS_ERR_MISMATCH,
                "now it is \"conv2d2 exact\"");
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Few rows are seen more often, up to a limit. */
static void test_default_epochs(void **state)
{
    (void)state;
    static const struct {
        size_t rows, batch, on_rows[3], on_images[3]; /* balanced, speed, accuracy */
    } cases[] = {{60000, 0, {48, 64, 32}, {16, 24, 12}},
                 {20000, 0, {64, 64, 64}, {16, 24, 16}},
                 {20000, 64, {48, 64, 32}, {16, 24, 12}},
                 {1000, 0, {96, 128, 64}, {64, 96, 48}}};
    nimbus_net *mlp = make_net(PLAIN, 1), *images;
    nimbus_data *few = some_digits(NIMBUS_SPLIT_TRAIN, 300);
    images = residual_net(few);
    nimbus_data_free(few);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_data *data = make_data(cases[i].rows, NIMBUS_U8, 4);
        for (int preset = NIMBUS_BALANCED; preset <= NIMBUS_ACCURACY; preset++) {
            nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT, settled;
            o.preset = (nimbus_preset)preset;
            o.train.batch = cases[i].batch;
            CHECK(nimbus_conversion_settle(&o, mlp, data, &settled, &error));
            assert_int_equal(settled.epochs, cases[i].on_rows[preset]);
            CHECK(nimbus_conversion_settle(&o, images, data, &settled, &error));
            assert_int_equal(settled.epochs, cases[i].on_images[preset]);
            o.epochs = 5;
            CHECK(nimbus_conversion_settle(&o, mlp, data, &settled, &error));
            assert_int_equal(settled.epochs, 5);
        }
        nimbus_data_free(data);
    }
    nimbus_net_free(mlp);
    nimbus_net_free(images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sensitivity),
        cmocka_unit_test(test_what_is_converted),
        cmocka_unit_test(test_boosted_trees),
        cmocka_unit_test(test_accuracy_is_kept),
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_other_methods),
        cmocka_unit_test(test_stand_ins),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_foreign_checkpoint),
        cmocka_unit_test(test_default_epochs),
    };
    return cmocka_run_group_tests_name("conversion of convolutions", tests, make_folder,
                                       remove_folder);
}
