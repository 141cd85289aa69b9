/* test_net_build.c - nets from a spec: the words, the dense nets, the lookup nets, prediction */
#include <math.h>

#include "net/spec.h"
#include "net_maker.h"

/* Images of two classes, or rows of a table, drawn by a counter. */
static nimbus_data *some_data(size_t n_rows, nimbus_shape shape, nimbus_dtype dtype,
                              size_t n_classes)
{
    nimbus_error error;
    nimbus_data *data;
    nimbus_data_info info = {.n_rows = n_rows,
                             .n_features = nimbus_shape_width(shape),
                             .dtype = dtype,
                             .channels = shape.channels,
                             .height = shape.height,
                             .width = shape.width,
                             .n_classes = n_classes,
                             .n_targets = n_classes > 0 ? 0 : 2};
    size_t n = n_rows * info.n_features;
    uint8_t *bytes = nimbus_alloc(n, 1);
    float *floats = nimbus_alloc(n, sizeof *floats);
    float *targets = nimbus_alloc(n_rows * 2, sizeof *targets);
    int32_t *labels = nimbus_alloc(n_rows, sizeof *labels);
    for (size_t i = 0; i < n; i++) {
        /* columns 0, 7, 14, ... of a row never change */
        uint64_t draw = i % info.n_features % 7 == 0 ? 0 : nimbus_random_u64(1, 1, i);
        bytes[i] = (uint8_t)draw;
        floats[i] = (float)(draw % 1000) / 1000;
    }
    for (size_t i = 0; i < n_rows; i++)
        labels[i] = (int32_t)(i % (n_classes + 1) % (n_classes > 0 ? n_classes : 1));
    ok(nimbus_data_from_arrays(&info, dtype == NIMBUS_U8 ? (void *)bytes : (void *)floats,
                               n_classes > 0 ? labels : NULL, n_classes > 0 ? NULL : targets, &data,
                               &error),
       &error);
    nimbus_free(bytes);
    nimbus_free(floats);
    nimbus_free(targets);
    nimbus_free(labels);
    return data;
}

static nimbus_net *build(const nimbus_data *data, const char *spec, uint64_t seed)
{
    nimbus_error error;
    nimbus_net *net;
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    options.spec = spec;
    options.seed = seed;
    ok(nimbus_net_build(&options, data, &net, &error), &error);
    return net;
}

/* ======================================================================================== words */

static void test_right_specs(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_spec s;
    ok(nimbus_spec_parse("mlp:512,256", 784, 10, &s, &error), &error);
    assert_true(!s.lookup && s.n_layers == 3 && s.units[0] == 512 && s.units[2] == 10);
    assert_ptr_equal(s.activation, &nimbus_layer_relu);
    ok(nimbus_spec_parse("784-512-10;tanh;bn;dropout=0.25", 784, 10, &s, &error), &error);
    assert_true(s.n_layers == 2 && s.units[0] == 512 && s.units[1] == 10 && s.batch_norm);
    assert_ptr_equal(s.activation, &nimbus_layer_tanh);
    assert_true(s.dropout == 0.25);
    ok(nimbus_spec_parse("784-10", 784, 10, &s, &error), &error);
    assert_int_equal(s.n_layers, 1);
    ok(nimbus_spec_parse("lut:392x16,256x10;levels=3;window=5", 784, 10, &s, &error), &error);
    assert_true(s.lookup && s.n_layers == 2 && s.trees[0] == 392 && s.units[0] == 16 &&
                s.trees[1] == 256 && s.units[1] == 10 && s.levels == 3 && s.window == 5);
    ok(nimbus_spec_parse("lut:8x10", 784, 10, &s, &error), &error);
    assert_true(s.levels == 4 && s.window == 7 && s.span == 0);
    ok(nimbus_spec_parse("lut:8x10;span=300", 784, 10, &s, &error), &error);
    assert_int_equal(s.span, 300);
    ok(nimbus_spec_parse("resnet8", 784, 10, &s, &error), &error);
    assert_true(s.kind == NIMBUS_SPEC_RESNET8 && s.width == 16);
    ok(nimbus_spec_parse("resnet9;width=32", 784, 10, &s, &error), &error);
    assert_true(s.kind == NIMBUS_SPEC_RESNET9 && s.width == 32);
}

static void test_wrong_specs(void **state)
{
    static const struct {
        const char *text;
        size_t at; /* index of the character to blame */
        nimbus_status status;
    } cases[] = {
        {"", 0, NIMBUS_ERR_ARGUMENT},
        {"resnet", 0, NIMBUS_ERR_ARGUMENT},
        {"mlp:", 4, NIMBUS_ERR_ARGUMENT},
        {"resnet", 0, NIMBUS_ERR_ARGUMENT},
        {"resnet18", 0, NIMBUS_ERR_ARGUMENT},
        {"resnet8,16", 7, NIMBUS_ERR_ARGUMENT},
        {"resnet9;bn", 8, NIMBUS_ERR_ARGUMENT},
        {"resnet9;width=0", 14, NIMBUS_ERR_ARGUMENT},
        {"resnet9;width=1025", 14, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;width=4", 8, NIMBUS_ERR_ARGUMENT},
        {"mlp:512,", 8, NIMBUS_ERR_ARGUMENT},
        {"mlp:512,x", 8, NIMBUS_ERR_ARGUMENT},
        {"mlp:0", 4, NIMBUS_ERR_ARGUMENT},
        {"mlp:-5", 4, NIMBUS_ERR_ARGUMENT},
        {"mlp:65537", 4, NIMBUS_ERR_ARGUMENT},
        {"mlp:99999999999999999999999", 4, NIMBUS_ERR_ARGUMENT},
        {"mlp:512 ", 7, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;", 8, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;swish", 8, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;relux", 12, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;levels=4", 8, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;dropout=1", 16, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;dropout=nan", 16, NIMBUS_ERR_ARGUMENT},
        {"mlp:512;dropout=", 16, NIMBUS_ERR_ARGUMENT},
        {"784", 3, NIMBUS_ERR_ARGUMENT},
        {"784-", 4, NIMBUS_ERR_ARGUMENT},
        {"783-10", 0, NIMBUS_ERR_MISMATCH},
        {"784-512-11", 8, NIMBUS_ERR_MISMATCH},
        {"784-512,10", 7, NIMBUS_ERR_ARGUMENT},
        {"lut:392", 7, NIMBUS_ERR_ARGUMENT},
        {"lut:392x", 8, NIMBUS_ERR_ARGUMENT},
        {"lut:392x16", 8, NIMBUS_ERR_MISMATCH},
        {"lut:392x16,256x11", 15, NIMBUS_ERR_MISMATCH},
        {"lut:0x10", 4, NIMBUS_ERR_ARGUMENT},
        {"lut:9x10;levels=9", 16, NIMBUS_ERR_ARGUMENT},
        {"lut:9x10;window=0", 16, NIMBUS_ERR_ARGUMENT},
        {"lut:9x10;span=0", 14, NIMBUS_ERR_ARGUMENT},
        {"lut:9x10;bn", 9, NIMBUS_ERR_ARGUMENT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_error error = {0};
        nimbus_spec spec;
        char place[32];
        nimbus_status status = nimbus_spec_parse(cases[i].text, 784, 10, &spec, &error);
        (void)snprintf(place, sizeof place, "at character %zu", cases[i].at + 1);
        if (status != cases[i].status || error.offset != cases[i].at ||
            !strstr(error.message, place))
            fail_msg("'%s': %s", cases[i].text, error.message);
    }
    char many[1024] = "mlp:1";
    for (size_t i = 0; i < NIMBUS_SPEC_MAX_LAYERS; i++)
        memcpy(many + 5 + 2 * i, ",1", 3);
    nimbus_error error;
    nimbus_spec spec;
    assert_int_equal(nimbus_spec_parse(many, 784, 10, &spec, &error), NIMBUS_ERR_ARGUMENT);
}

/* ========================================================================================= nets */

static void assert_types(const nimbus_net *net, const char *expected)
{
    char found[512] = "";
    for (size_t i = 0; i < net->n_layers; i++)
        (void)snprintf(found + strlen(found), sizeof found - strlen(found), "%s ",
                       net->layers[i].name);
    assert_string_equal(found, expected);
}

/* A shortcut around linear2 and linear3, none around the next two, whose widths differ. */
static void test_residual_nets(void **state)
{
    (void)state;
    nimbus_data *data = some_data(50, (nimbus_shape){1, 3, 4}, NIMBUS_U8, 3);
    nimbus_net *net = build(data, "mlp:5,5,5,6,7;bn;residual", 1);
    assert_types(net, "input linear1 batch_norm1 relu1 linear2 batch_norm2 relu2 linear3 "
                      "batch_norm3 add1 relu3 linear4 batch_norm4 relu4 linear5 batch_norm5 relu5 "
                      "linear6 ");
    assert_int_equal(net->layers[9].n_inputs, 2);
    assert_int_equal(net->layers[9].input[0], 8);
    assert_int_equal(net->layers[9].input[1], 3); /* relu1 */
    nimbus_net_free(net);
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    nimbus_error error;
    options.spec = "mlp:5,6,7;residual";
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_ARGUMENT);
    assert_non_null(strstr(error.message, "a residual net needs three hidden layers"));
    nimbus_data_free(data);
}

static void test_dense_nets(void **state)
{
    (void)state;
    nimbus_data *data = some_data(50, (nimbus_shape){1, 3, 4}, NIMBUS_U8, 3);
    nimbus_net *net = build(data, "mlp:5,6;bn;gelu;dropout=0.1", 1);
    assert_types(net, "input linear1 batch_norm1 gelu1 dropout1 linear2 batch_norm2 gelu2 dropout2 "
                      "linear3 ");
    assert_int_equal(net->loss, NIMBUS_LOSS_CROSS_ENTROPY);
    assert_int_equal(net->input_dtype, NIMBUS_U8);
    assert_int_equal(net->layers[0].shape.width, 4);
    assert_int_equal(net->layers[9].units, 3);
    float mean[12], inverse_std[12];
    nimbus_data_normalisation(data, mean, inverse_std);
    assert_true((float)nimbus_layer_param(&net->layers[0], "mean")->value[5] == mean[5]);
    assert_true((float)nimbus_layer_param(&net->layers[0], "inverse_std")->value[5] ==
                inverse_std[5]);
    json_t *metadata = json_loads(net->metadata, 0, NULL);
    assert_true(json_is_object(json_object_get(metadata, "schema")));
    assert_string_equal(json_string_value(json_object_get(metadata, "spec")),
                        "mlp:5,6;bn;gelu;dropout=0.1");
    json_decref(metadata);

    nimbus_net *same = build(data, "mlp:5,6;bn;gelu;dropout=0.1", 1);
    nimbus_net *other = build(data, "mlp:5,6;bn;gelu;dropout=0.1", 2);
    assert_same_net(net, same);
    assert_true(net->layers[1].params[0].value[0] != other->layers[1].params[0].value[0]);
    nimbus_net_free(net);
    nimbus_net_free(same);
    nimbus_net_free(other);
    nimbus_data_free(data);

    data = some_data(20, (nimbus_shape){9, 1, 1}, NIMBUS_F32, 0);
    net = build(data, "mlp:4", 1);
    assert_types(net, "input linear1 relu1 linear2 ");
    assert_int_equal(net->loss, NIMBUS_LOSS_SQUARED_ERROR);
    assert_int_equal(net->layers[3].units, 2);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* Every node of a level reads the same existing column, values are finite, margins positive. */
static void check_trees(const nimbus_net *net, size_t i, size_t n_trees, size_t levels)
{
    nimbus_layer *layer = &net->layers[i];
    size_t nodes = ((size_t)1 << levels) - 1, d = nimbus_shape_width(layer->in_shape);
    const real *columns = nimbus_layer_param(layer, "columns")->value;
    const real *margin = nimbus_layer_param(layer, "margin")->value;
    assert_null(nimbus_layer_param(layer, "weight"));
    assert_int_equal(layer->state, NIMBUS_STATE_SOFT);
    assert_int_equal(layer->lookup->n_codebooks, n_trees);
    assert_int_equal(layer->lookup->n_levels, levels);
    assert_int_equal(layer->lookup->bits, 0);
    assert_int_equal(layer->lookup->kind, NIMBUS_TREE_SHARED);
    for (size_t c = 0; c < n_trees; c++)
        for (size_t h = 0; h < levels; h++) {
            real own = columns[c * nodes + ((size_t)1 << h) - 1];
            assert_true(own >= 0 && own < (real)d);
            for (size_t j = ((size_t)1 << h) - 1; j < ((size_t)2 << h) - 1; j++)
                assert_true(columns[c * nodes + j] == own && margin[c * nodes + j] > 0);
            for (size_t other = 0; other < h; other++)
                assert_true(own != columns[c * nodes + ((size_t)1 << other) - 1]);
        }
    assert_true(nimbus_layer_param(layer, "tables")->trained);
    assert_true(nimbus_layer_param(layer, "thresholds")->trained);
}

static double variance_of_column(const real *y, size_t n, size_t m, size_t column)
{
    double sum = 0, square = 0;
    for (size_t r = 0; r < n; r++) {
        sum += (double)y[r * m + column];
        square += pow((double)y[r * m + column], 2);
    }
    return square / (double)n - pow(sum / (double)n, 2);
}

static void test_lookup_nets(void **state)
{
    enum { ROWS = 400 };
    (void)state;
    nimbus_error error;
    nimbus_data *data = some_data(ROWS, (nimbus_shape){2, 9, 11}, NIMBUS_U8, 3);
    nimbus_net *net = build(data, "lut:40x16,24x3;window=3", 1), *same;
    assert_types(net, "input linear1 batch_norm1 linear2 ");
    assert_true(net->layers[2].bare && net->layers[2].n_params == 2);
    check_trees(net, 1, 40, 4);
    check_trees(net, 3, 24, 4);
    const real *columns = nimbus_layer_param(&net->layers[1], "columns")->value;
    size_t reads[16] = {0};
    for (size_t c = 0; c < 40; c++) {
        size_t low_y = 9, high_y = 0, low_x = 11, high_x = 0;
        for (size_t h = 0; h < 4; h++) {
            size_t column = (size_t)columns[c * 15 + ((size_t)1 << h) - 1];
            size_t y = column / 11 % 9, x = column % 11;
            assert_true(column % 7 != 0); /* pixels that never change are not read */
            low_y = y < low_y ? y : low_y;
            high_y = y > high_y ? y : high_y;
            low_x = x < low_x ? x : low_x;
            high_x = x > high_x ? x : high_x;
        }
        assert_true(high_y - low_y < 3 && high_x - low_x < 3);
    }
    columns = nimbus_layer_param(&net->layers[3], "columns")->value;
    for (size_t c = 0; c < 24; c++)
        for (size_t h = 0; h < 4; h++)
            reads[(size_t)columns[c * 15 + ((size_t)1 << h) - 1]]++;
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(reads[i], 6); /* 24 trees x 4 levels over 16 columns */

    /* Trees of the first layer split the rows well, and outputs have a variance of about 1. */
    nimbus_pass *pass;
    ok(nimbus_pass_new(net, 0, ROWS, 2, &pass, &error), &error);
    const uint8_t *pixels = nimbus_data_features(data);
    for (size_t i = 0; i < (size_t)ROWS * 198; i++)
        nimbus_pass_input(pass)[i] = pixels[i];
    nimbus_pass_forward(pass, ROWS, 1);
    uint8_t *codes = nimbus_alloc(ROWS * 40, 1);
    size_t full = 0;
    nimbus_lookup_encode(&net->layers[1], pass->out[0], ROWS, codes, 1);
    for (size_t c = 0; c < 40; c++) {
        bool seen[16] = {0};
        size_t n = 0;
        for (size_t r = 0; r < ROWS; r++) {
            n += !seen[codes[r * 40 + c]];
            seen[codes[r * 40 + c]] = true;
        }
        full += n == 16;
    }
    assert_true(full >= 38);
    double variance = 0;
    for (size_t i = 0; i < 16; i++)
        variance += variance_of_column(pass->out[1], ROWS, 16, i) / 16;
    assert_true(variance > 0.5 && variance < 1.6);
    nimbus_free(codes);
    nimbus_pass_free(pass);

    same = build(data, "lut:40x16,24x3;window=3", 1);
    assert_same_net(net, same);
    nimbus_net_free(same);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* Of the first layer's columns all lie in `span` adjoining ones, where the data varies most. */
static void check_span(const nimbus_data *data, const char *spec, size_t first, size_t span)
{
    nimbus_net *net = build(data, spec, 1);
    const nimbus_param *columns = nimbus_layer_param(&net->layers[1], "columns");
    for (size_t i = 0; i < columns->n; i++)
        assert_true(columns->value[i] >= (real)first && columns->value[i] < (real)(first + span));
    nimbus_net_free(net);
}

static void test_spans(void **state)
{
    enum { ROWS = 200 };
    (void)state;
    nimbus_data *image = some_data(ROWS, (nimbus_shape){1, 9, 11}, NIMBUS_U8, 3);
    nimbus_data *table = some_data(ROWS, (nimbus_shape){41, 1, 1}, NIMBUS_U8, 3);
    nimbus_data *same = some_data(1, (nimbus_shape){1, 9, 11}, NIMBUS_U8, 3);
    uint8_t *pixels = (uint8_t *)(uintptr_t)nimbus_data_features(image);
    for (size_t i = 0; i < (size_t)ROWS * 99; i++)
        if (i % 99 < 33 || i % 99 >= 66)
            pixels[i] /= 16;
    check_span(image, "lut:40x4,8x3;window=3;span=33", 33, 33);
    check_span(image, "lut:40x4,8x3;window=3;span=99", 0, 99);
    check_span(image, "lut:40x4,8x3;window=3;span=500", 0, 99);
    nimbus_error error;
    nimbus_net *net;
    const nimbus_net_options options = {.size = sizeof options, .spec = "lut:40x4,8x3;span=20"};
    assert_int_equal(nimbus_net_build(&options, table, &net, &error), NIMBUS_ERR_MISMATCH);
    assert_non_null(strstr(error.message, "span=20 is for images"));
    check_span(same, "lut:9x4,8x3;window=1;levels=6;span=5", 0, 5);
    nimbus_data_free(image);
    nimbus_data_free(table);
    nimbus_data_free(same);
}

/* Tables are dealt out evenly; fewer columns than levels, windows of one pixel, constant data. */
static void test_odd_lookup_nets(void **state)
{
    (void)state;
    nimbus_data *table = some_data(60, (nimbus_shape){41, 1, 1}, NIMBUS_F32, 2);
    nimbus_net *net = build(table, "lut:35x4,9x2;levels=5", 3);
    check_trees(net, 1, 35, 5);
    const real *columns = nimbus_layer_param(&net->layers[1], "columns")->value;
    size_t reads[41] = {0};
    for (size_t c = 0; c < 35; c++)
        for (size_t h = 0; h < 5; h++)
            reads[(size_t)columns[c * 31 + ((size_t)1 << h) - 1]]++;
    for (size_t i = 0; i < 41; i++)
        assert_int_equal(reads[i], i % 7 == 0 ? 0 : 5); /* 175 reads of 35 columns that vary */
    nimbus_net_free(net);
    nimbus_data_free(table);
    const nimbus_shape shapes[] = {{1, 1, 1}, {2, 1, 1}, {1, 1, 3}, {1, 8, 8}, {1, 2, 300}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        nimbus_data *data = some_data(i == 3 ? 1 : 30, shapes[i], NIMBUS_U8, 2);
        net = build(data, "lut:7x3,5x2;levels=8;window=1", 1);
        nimbus_error error;
        nimbus_buffer file = {0};
        nimbus_net *again;
        ok(nimbus_net_write(net, &file, &error), &error);
        ok(nimbus_net_read(file.bytes, file.size, &again, &error), &error);
        assert_same_net(net, again);
        nimbus_buffer_free(&file);
        nimbus_net_free(again);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
}

static void test_failing_builds(void **state)
{
    static const char *const specs[] = {"mlp:4;bn;dropout=0.5", "lut:6x4,3x3;window=2"};
    (void)state;
    nimbus_error error;
    nimbus_net *net;
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    nimbus_data *data = some_data(30, (nimbus_shape){1, 4, 4}, NIMBUS_U8, 3);
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_ARGUMENT);
    options.spec = "16-8-3";
    options.size = 0;
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_ARGUMENT);
    assert_non_null(strstr(error.message, "NIMBUS_NET_OPTIONS_INIT"));
    assert_int_equal(nimbus_net_build(NULL, data, &net, &error), NIMBUS_ERR_ARGUMENT);
    options.size = sizeof options;
    options.spec = "16-8-4";
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_MISMATCH);
    assert_null(net);
    for (size_t i = 0; i < 2; i++) {
        options.spec = specs[i];
        for (long k = 1;; k++) {
            nimbus_fail_alloc_after = k;
            nimbus_status status = nimbus_net_build(&options, data, &net, &error);
            bool reached = nimbus_fail_alloc_after == 0;
            nimbus_fail_alloc_after = 0;
            if (!reached) {
                ok(status, &error);
                assert_true(k > 20);
                break;
            }
            assert_int_equal(status, NIMBUS_ERR_MEMORY);
            assert_null(net);
        }
        nimbus_net_free(net);
    }
    nimbus_data_free(data);
    nimbus_data_info info = {
        .n_rows = 1, .n_features = 2, .dtype = NIMBUS_U8, .channels = 2, .height = 1, .width = 1};
    const uint8_t row[2] = {1, 2};
    ok(nimbus_data_from_arrays(&info, row, NULL, NULL, &data, &error), &error);
    options.spec = "mlp:4";
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_MISMATCH);
    nimbus_data_free(data);
}

/* ================================================================================== prediction */

static void test_predict(void **state)
{
    enum { ROWS = 300, M = 3 }; /* more than a batch, and a rest */
    (void)state;
    nimbus_error error;
    nimbus_data *data = some_data(ROWS, (nimbus_shape){1, 4, 5}, NIMBUS_U8, M);
    nimbus_data *narrow = some_data(5, (nimbus_shape){1, 4, 4}, NIMBUS_U8, M);
    nimbus_net *net = build(data, "mlp:8;bn;dropout=0.5", 1);
    float outputs[ROWS * M], two[ROWS * M];
    ok(nimbus_net_predict(net, data, 1, outputs, &error), &error);
    ok(nimbus_net_predict(net, data, 2, two, &error), &error);
    assert_memory_equal(outputs, two, sizeof outputs);
    nimbus_pass *pass;
    ok(nimbus_pass_new(net, 0, 1, 1, &pass, &error), &error);
    const uint8_t *pixels = nimbus_data_features(data);
    for (size_t r = 0; r < ROWS; r += 13) {
        for (size_t i = 0; i < 20; i++)
            nimbus_pass_input(pass)[i] = pixels[r * 20 + i];
        nimbus_pass_forward(pass, 1, net->n_layers - 1);
        for (size_t i = 0; i < M; i++)
            assert_true(fabs((double)(outputs[r * M + i] - pass->out[net->n_layers - 1][i])) <
                        1e-4);
    }
    nimbus_pass_free(pass);
    assert_int_equal(nimbus_net_predict(net, narrow, 1, outputs, &error), NIMBUS_ERR_MISMATCH);
    assert_non_null(strstr(error.message, "16"));
    for (long k = 1;; k++) {
        nimbus_fail_alloc_after = k;
        nimbus_status status = nimbus_net_predict(net, data, 1, outputs, &error);
        bool reached = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        if (!reached) {
            ok(status, &error);
            assert_true(k > 5);
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_MEMORY);
    }
    nimbus_net_free(net);
    nimbus_data_free(data);
    nimbus_data_free(narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_specs),   cmocka_unit_test(test_wrong_specs),
        cmocka_unit_test(test_residual_nets), cmocka_unit_test(test_dense_nets),
        cmocka_unit_test(test_lookup_nets),   cmocka_unit_test(test_odd_lookup_nets),
        cmocka_unit_test(test_spans),         cmocka_unit_test(test_failing_builds),
        cmocka_unit_test(test_predict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
