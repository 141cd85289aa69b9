/* test_import_order.c - the order of values, shapes, stored forms, inputs and ends of ONNX models
 */
#include "import_same.h"

static void softmax_old(message *graph)
{
    made_simple(graph, "Softmax", "x", "y");
}

/* ---- the order of values --------------------------------------------------------------------- */

/* Channels-last, flattened, times a matrix: rows of 2 x 3 x 2. */
static void flatten_last(message *graph)
{
    message turn = made_node("Transpose", "r", "t");
    made_simple(graph, "Relu", "x", "r");
    made_ints(&turn, "perm", 4, (const int64_t[]){0, 2, 3, 1});
    made_add(graph, &turn);
    made_simple(graph, "Flatten", "t", "f");
    made_simple(graph, "MatMul", "f,w", "y");
    made_random(graph, "w", DIMS(12, 5), 6);
}

static void flatten_first(message *graph)
{
    float w[60], turned[60];
    fill_random(w, 60, 6);
    for (size_t c = 0; c < 2; c++)
        for (size_t p = 0; p < 6; p++)
            memcpy(turned + (c * 6 + p) * 5, w + (p * 2 + c) * 5, 5 * sizeof *w);
    made_simple(graph, "Relu", "x", "r");
    made_simple(graph, "Flatten", "r", "f");
    made_simple(graph, "MatMul", "f,w", "y");
    made_floats(graph, "w", DIMS(12, 5), turned);
}

/* The same with a layer that wants the order as it is: softmax over all. */
static void flatten_softmax(message *graph)
{
    message turn = made_node("Transpose", "x", "t"), back = made_node("Transpose", "i", "y");
    made_ints(&turn, "perm", 4, (const int64_t[]){0, 2, 3, 1});
    made_add(graph, &turn);
    made_simple(graph, "Flatten", "t", "f");
    made_simple(graph, "Softmax", "f", "s");
    made_simple(graph, "Reshape", "s,shape", "i");
    made_list(graph, "shape", 4, (const int64_t[]){0, 3, 2, 2});
    made_ints(&back, "perm", 4, (const int64_t[]){0, 3, 1, 2});
    made_add(graph, &back);
}

/* ShuffleNet's shuffle of channels, there and back. */
static void shuffle(message *graph)
{
    static const int64_t perm[] = {0, 2, 1, 3, 4};
    message turn = made_node("Transpose", "a", "b"), back = made_node("Transpose", "c", "d");
    made_simple(graph, "Reshape", "x,grouped", "a");
    made_ints(&turn, "perm", 5, perm);
    made_add(graph, &turn);
    made_simple(graph, "Reshape", "b,plain", "e");
    made_simple(graph, "Relu", "e", "g");
    made_simple(graph, "Reshape", "g,back", "c");
    made_ints(&back, "perm", 5, perm);
    made_add(graph, &back);
    made_simple(graph, "Reshape", "d,plain", "y");
    made_list(graph, "grouped", 5, (const int64_t[]){-1, 2, 3, 2, 2});
    made_list(graph, "back", 5, (const int64_t[]){-1, 3, 2, 2, 2});
    made_list(graph, "plain", 4, (const int64_t[]){-1, 6, 2, 2});
}

static void relu(message *graph)
{
    made_simple(graph, "Relu", "x", "y");
}

/* Joined channels-last, nine at a time. */
static void concat_last(message *graph)
{
    message turn = made_node("Transpose", "x", "t"), back = made_node("Transpose", "j", "y");
    message join = made_node("Concat", "t,a,t,a,t,a,t,a,t", "j");
    made_ints(&turn, "perm", 4, (const int64_t[]){0, 2, 3, 1});
    made_add(graph, &turn);
    made_simple(graph, "Relu", "t", "a");
    made_int(&join, "axis", -1);
    made_add(graph, &join);
    made_ints(&back, "perm", 4, (const int64_t[]){0, 3, 1, 2});
    made_add(graph, &back);
}

static void concat_first(message *graph)
{
    message four = made_node("Concat", "x,a,x,a", "j"), last = made_node("Concat", "j,j,x", "y");
    made_simple(graph, "Relu", "x", "a");
    made_int(&four, "axis", 1);
    made_add(graph, &four);
    made_int(&last, "axis", 1);
    made_add(graph, &last);
}

static void test_order(void **state)
{
    (void)state;
    assert_same("flattened", DIMS(2, 3, 2), 13, flatten_last, 13, flatten_first);
    assert_same("softmax of all", DIMS(2, 3, 2), 13, flatten_softmax, 11, softmax_old);
    assert_same("shuffled", DIMS(6, 2, 2), 13, shuffle, 13, relu);
    assert_same("joined", DIMS(2, 3, 2), 13, concat_last, 13, concat_first);
}

/* x.view(x.size(0), -1) as PyTorch writes it, with the way through Slice, Cast and arithmetic. */
static void view(message *graph)
{
    message cast = made_node("Cast", "d", "e"), join = made_node("Concat", "f,g", "shape");
    made_simple(graph, "Relu", "x", "r");
    made_simple(graph, "Shape", "r", "s");
    made_simple(graph, "Gather", "s,zero", "rows");
    made_simple(graph, "Slice", "s,one,end", "rest");
    made_simple(graph, "Gather", "rest,indices", "a");
    made_simple(graph, "Squeeze", "a,axis", "b");
    made_simple(graph, "Mul", "b,three", "c");
    made_simple(graph, "Div", "c,three", "d");
    made_int(&cast, "to", MADE_INT32);
    made_add(graph, &cast);
    made_simple(graph, "Unsqueeze", "rows,axis", "f");
    made_simple(graph, "Unsqueeze", "e,axis", "h");
    made_simple(graph, "Sub", "h,h", "k");
    made_simple(graph, "Add", "k,minus", "g");
    made_int(&join, "axis", 0);
    made_add(graph, &join);
    made_simple(graph, "Reshape", "r,shape", "y");
    made_raw(graph, "zero", MADE_INT64, 0, NULL, &(int64_t){0}, 8);
    made_list(graph, "one", 1, (const int64_t[]){1});
    made_list(graph, "end", 1, (const int64_t[]){INT64_MAX});
    made_list(graph, "indices", 1, (const int64_t[]){-1});
    made_list(graph, "axis", 1, (const int64_t[]){0});
    made_raw(graph, "three", MADE_INT64, 0, NULL, &(int64_t){3}, 8);
    made_list(graph, "minus", 1, (const int64_t[]){-1});
}

static void flatten(message *graph)
{
    made_simple(graph, "Relu", "x", "r");
    made_simple(graph, "Flatten", "r", "y");
}

/* F.pad as PyTorch writes it: the list of padding is turned around by a slice with step -1. */
static void torch_pad(message *graph)
{
    message zeros = made_node("ConstantOfShape", "four", "z"),
            join = made_node("Concat", "p,z", "l");
    message turn = made_node("Transpose", "v", "t");
    made_add(graph, &zeros);
    made_int(&join, "axis", 0);
    made_add(graph, &join);
    made_simple(graph, "Reshape", "l,pairs", "m");
    made_simple(graph, "Slice", "m,start,end,axis,step", "v");
    made_ints(&turn, "perm", 2, (const int64_t[]){1, 0});
    made_add(graph, &turn);
    made_simple(graph, "Reshape", "t,flat", "pads_f");
    message cast = made_node("Cast", "pads_f", "pads");
    made_int(&cast, "to", MADE_INT64);
    made_add(graph, &cast);
    made_simple(graph, "Pad", "x,pads", "y");
    made_list(graph, "four", 1, (const int64_t[]){4});
    made_floats(graph, "p", DIMS(4), (const float[]){1, 2, 0, 1});
    made_list(graph, "pairs", 2, (const int64_t[]){-1, 2});
    made_list(graph, "start", 1, (const int64_t[]){-1});
    made_list(graph, "end", 1, (const int64_t[]){-INT64_MAX});
    made_list(graph, "axis", 1, (const int64_t[]){0});
    made_list(graph, "step", 1, (const int64_t[]){-1});
    made_list(graph, "flat", 1, (const int64_t[]){-1});
}

static void plain_pad(message *graph)
{
    message node = made_node("Pad", "x", "y");
    made_ints(&node, "pads", 8, (const int64_t[]){0, 0, 0, 1, 0, 0, 1, 2});
    made_add(graph, &node);
}

static void test_shapes(void **state)
{
    (void)state;
    assert_same("view", DIMS(2, 3, 4), 13, view, 13, flatten);
    assert_same("pad", DIMS(2, 3, 4), 13, torch_pad, 9, plain_pad);
}

/* ---- where weights stand --------------------------------------------------------------------- */

static const float eights[] = {0.5f, -1, 2.25f, 0.0625f, -0.125f, 3};

static message product_model(message *graph)
{
    made_simple(graph, "MatMul", "x,w", "y");
    return made_model(graph, 13, "x", DIMS(3), "y");
}

static void check_product(message *model, const char *what)
{
    const float x[] = {1, 2, 3};
    float expected[2] = {0};
    for (size_t i = 0; i < 6; i++)
        expected[i % 2] += x[i / 2] * eights[i];
    nimbus_net *net = imported(model, NULL, NULL);
    float *y = outputs_of(net, NIMBUS_F32, 1, x);
    assert_near(y, expected, 2, what);
    nimbus_free(y);
    nimbus_net_free(net);
}

static void test_stored_forms(void **state)
{
    (void)state;
    static const uint16_t halves[] = {0x3800, 0xbc00, 0x4080, 0x2c00, 0xb000, 0x4200};
    static const int64_t dims[] = {3, 2};
    double doubles[6];
    message graph = {0}, tensor, packed = {0};
    for (size_t i = 0; i < 6; i++)
        doubles[i] = (double)eights[i];
    made_raw(&graph, "w", MADE_HALF, 2, dims, halves, sizeof halves);
    message model = product_model(&graph);
    check_product(&model, "float16");
    made_raw(&graph, "w", MADE_DOUBLE, 2, dims, doubles, sizeof doubles);
    model = product_model(&graph);
    check_product(&model, "double");
    tensor = made_tensor("w", MADE_FLOAT, 2, dims);
    put_bytes(&tensor, 4, eights, sizeof eights);
    put_message(&graph, 5, &tensor);
    model = product_model(&graph);
    check_product(&model, "float_data");
    tensor = made_tensor("w", MADE_HALF, 2, dims);
    for (size_t i = 0; i < 6; i++)
        put_varint(&packed, halves[i]);
    put_message(&tensor, 5, &packed);
    put_message(&graph, 5, &tensor);
    model = product_model(&graph);
    check_product(&model, "float16 as int32_data");
    made_floats(&graph, "w", 2, dims, eights);
    made_value(&graph, 11, "w", MADE_FLOAT, 3, 1, (const int64_t[]){2}); /* as before IR 4 */
    model = product_model(&graph);
    check_product(&model, "listed as an input");
}

/* ---- the input and the end ------------------------------------------------------------------- */

static const char *find_note(const nimbus_import_report *report, const char *part)
{
    for (size_t i = 0; i < report->n_notes; i++)
        if (strstr(report->notes[i], part))
            return report->notes[i];
    return NULL;
}

/* Raw pixels, channels last, one image at a time: cast, normalised, turned. */
static void test_pixels(void **state)
{
    (void)state;
    static const float middle[] = {100, 120, 140}, spread[] = {50, 60, 70};
    uint8_t rows[2 * 12];
    message graph = {0}, cast = made_node("Cast", "x", "f"),
            turn = made_node("Transpose", "n", "t");
    made_int(&cast, "to", MADE_FLOAT);
    made_add(&graph, &cast);
    made_simple(&graph, "Sub", "f,middle", "m");
    made_simple(&graph, "Div", "m,spread", "n");
    made_ints(&turn, "perm", 4, (const int64_t[]){0, 3, 1, 2});
    made_add(&graph, &turn);
    made_simple(&graph, "GlobalAveragePool", "t", "y");
    made_floats(&graph, "middle", DIMS(3), middle);
    made_floats(&graph, "spread", DIMS(3), spread);
    made_value(&graph, 11, "x", MADE_UINT8, 1, DIMS(2, 2, 3));
    made_value(&graph, 12, "y", MADE_FLOAT, 1, DIMS(3, 1, 1));
    message model = made_whole(&graph, 13);
    nimbus_import_report report;
    nimbus_net_info info;
    nimbus_net *net = imported(&model, NULL, &report);
    nimbus_net_get_info(net, &info);
    assert_int_equal(info.input_dtype, NIMBUS_U8);
    assert_int_equal(report.n_layers, 2); /* the input layer normalises, nothing is turned */
    assert_int_equal(report.layers[0].channels, 3);
    assert_non_null(find_note(&report, "rows are read as channels x height x width"));
    assert_non_null(find_note(&report, "1 row at a time"));
    for (size_t i = 0; i < sizeof rows; i++)
        rows[i] = (uint8_t)(i * 10);
    float *y = outputs_of(net, NIMBUS_U8, 2, rows);
    for (size_t r = 0; r < 2; r++)
        for (size_t c = 0; c < 3; c++) {
            double mean = 0;
            for (size_t i = 0; i < 4; i++)
                mean += rows[r * 12 + c * 4 + i] / 4.0;
            mean = (mean - (double)middle[c]) / (double)spread[c];
            assert_true(fabs((double)y[r * 3 + c] - mean) < 1e-5);
        }
    nimbus_free(y);
    nimbus_net_free(net);
    nimbus_import_report_free(&report);
}

static void test_normalisation_by_options(void **state)
{
    (void)state;
    static const float mean[] = {10, 20}, deviation[] = {4, 5};
    static const uint8_t row[] = {14, 6, 30, 25};
    nimbus_import_options options = NIMBUS_IMPORT_OPTIONS_INIT;
    nimbus_net *net;
    nimbus_error error;
    message graph = {0};
    relu(&graph);
    message model = made_model(&graph, 13, "x", DIMS(2, 2), "y");
    options.input_mean = mean;
    options.input_std = deviation;
    options.n_input_channels = 2;
    options.input_dtype = NIMBUS_U8;
    net = imported(&model, &options, NULL);
    float *y = outputs_of(net, NIMBUS_U8, 1, row);
    assert_near(y, (const float[]){1, 0, 2, 1}, 4, "normalised");
    nimbus_free(y);
    nimbus_net_free(net);
    relu(&graph);
    model = made_model(&graph, 13, "x", DIMS(3, 2), "y");
    assert_int_equal(try_import(&model, &options, &net, NULL, &error), NIMBUS_ERR_ARGUMENT);
    assert_null(net);
}

static void test_end(void **state)
{
    (void)state;
    nimbus_import_report report;
    nimbus_import_options keep = NIMBUS_IMPORT_OPTIONS_INIT;
    keep.keep_softmax = 1;
    for (int kept = 0; kept < 2; kept++) {
        message graph = {0};
        made_simple(&graph, "Relu", "x", "r");
        made_simple(&graph, "Dropout", "r", "d,mask");
        made_simple(&graph, "Tanh", "x", "aside");
        made_simple(&graph, "Softmax", "d", "y");
        message model = made_model(&graph, 13, "x", DIMS(4), "y");
        nimbus_net *net = imported(&model, kept ? &keep : NULL, &report);
        float *y = outputs_of(net, NIMBUS_F32, 1, (const float[]){1, -1, 0, 2});
        float sum = y[0] + y[1] + y[2] + y[3];
        assert_true(kept ? fabsf(sum - 1) < 1e-5f : y[0] == 1 && y[1] == 0 && y[3] == 2);
        assert_int_equal(report.n_layers, kept ? 3 : 2);
        assert_int_equal(find_note(&report, "softmax at the end") != NULL, !kept);
        assert_non_null(find_note(&report, "1 node is not needed"));
        assert_int_equal(report.n_nodes, 3);
        nimbus_free(y);
        nimbus_net_free(net);
        nimbus_import_report_free(&report);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_stored_forms),
        cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_normalisation_by_options),
        cmocka_unit_test(test_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
