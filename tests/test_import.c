/* test_import.c - ONNX models become nets that compute what ONNX says
 *
 * Most tests import two models that must compute the same, in other words. */
#include "import_same.h"

/* ---- convolution and pooling ---------------------------------------------------------------- */

static void conv(message *graph, const char *x, const char *y, const char *auto_pad,
                 const int64_t *pads)
{
    message node = made_node("Conv", "x,w,b", y);
    if (strcmp(x, "x") != 0) {
        free(node.bytes);
        node = made_node("Conv", "padded,w,b", y);
    }
    if (auto_pad)
        made_text(&node, "auto_pad", auto_pad);
    if (pads)
        made_ints(&node, "pads", 4, pads);
    made_ints(&node, "strides", 2, (const int64_t[]){2, 1});
    made_ints(&node, "dilations", 2, (const int64_t[]){1, 2});
    made_int(&node, "group", 2);
    made_add(graph, &node);
    made_random(graph, "w", DIMS(4, 1, 3, 2), 1);
    made_random(graph, "b", DIMS(4), 2);
}

static void conv_upper(message *graph)
{
    conv(graph, "x", "y", "SAME_UPPER", NULL);
}

static void conv_lower(message *graph)
{
    conv(graph, "x", "y", "SAME_LOWER", NULL);
}

static void conv_valid(message *graph)
{
    conv(graph, "x", "y", "VALID", NULL);
}

/* For rows of 2 x 6 x 5: 3 positions downwards take 7, 5 across take 7. */
static void conv_pads_upper(message *graph)
{
    conv(graph, "x", "y", NULL, (const int64_t[]){0, 1, 1, 1});
}

static void conv_pads_lower(message *graph)
{
    conv(graph, "x", "y", NULL, (const int64_t[]){1, 1, 0, 1});
}

static void conv_no_pads(message *graph)
{
    conv(graph, "x", "y", NULL, NULL);
}

static void conv_after_pad(message *graph)
{
    message pad = made_node("Pad", "x,pads,zero", "padded");
    made_add(graph, &pad);
    made_list(graph, "pads", 8, (const int64_t[]){0, 0, 0, 1, 0, 0, 1, 1});
    made_scalar(graph, "zero", 0);
    conv(graph, "padded", "y", NULL, NULL);
}

static void test_padding(void **state)
{
    (void)state;
    assert_same("SAME_UPPER", DIMS(2, 6, 5), 13, conv_upper, 9, conv_pads_upper);
    assert_same("SAME_LOWER", DIMS(2, 6, 5), 13, conv_lower, 9, conv_pads_lower);
    assert_same("VALID", DIMS(2, 6, 5), 13, conv_valid, 9, conv_no_pads);
    assert_same("a pad in front", DIMS(2, 6, 5), 13, conv_after_pad, 9, conv_pads_upper);
}

/* The definition, directly: rows of 2 x 5 x 4, 3 output channels, kernel 3 x 2, stride 2 x 1,
 * padding 1, 0, 1, 1. */
static void conv_by_hand(const float *x, const float *w, const float *b, float *y)
{
    for (int m = 0; m < 3; m++)
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 4; j++) {
                double sum = (double)b[m];
                for (int c = 0; c < 2; c++)
                    for (int k = 0; k < 3; k++)
                        for (int l = 0; l < 2; l++) {
                            int row = 2 * i + k - 1, column = j + l;
                            if (row >= 0 && row < 5 && column < 4)
                                sum += (double)w[((m * 2 + c) * 3 + k) * 2 + l] *
                                       (double)x[(c * 5 + row) * 4 + column];
                        }
                y[(m * 3 + i) * 4 + j] = (float)sum;
            }
}

static void test_conv(void **state)
{
    (void)state;
    enum { D = 40, M = 36, W = 36 };
    float x[IMPORT_ROWS * D], w[W], b[3], expected[IMPORT_ROWS * M];
    message graph = {0}, node = made_node("Conv", "x,w,b", "y");
    fill_random(x, IMPORT_ROWS * D, 1);
    fill_random(w, W, 2);
    fill_random(b, 3, 3);
    made_ints(&node, "kernel_shape", 2, (const int64_t[]){3, 2});
    made_ints(&node, "strides", 2, (const int64_t[]){2, 1});
    made_ints(&node, "pads", 4, (const int64_t[]){1, 0, 1, 1});
    made_add(&graph, &node);
    made_floats(&graph, "w", DIMS(3, 2, 3, 2), w);
    made_floats(&graph, "b", DIMS(3), b);
    message model = made_model(&graph, 11, "x", DIMS(2, 5, 4), "y");
    nimbus_import_report report;
    nimbus_net *net = imported(&model, NULL, &report);
    float *y = outputs_of(net, NIMBUS_F32, IMPORT_ROWS, x);
    for (size_t r = 0; r < IMPORT_ROWS; r++)
        conv_by_hand(x + r * D, w, b, expected + r * M);
    assert_near(y, expected, IMPORT_ROWS * M, "conv");
    assert_int_equal(report.n_layers, 2);
    assert_string_equal(report.layers[1].type, "conv2d");
    assert_string_equal(report.layers[1].node, "y (Conv)");
    assert_int_equal(report.layers[1].height, 3);
    assert_int_equal(report.layers[1].n_params, W + 3);
    assert_int_equal(report.multiply_adds, M * 12);
    assert_string_equal(report.producer, "test");
    nimbus_import_report_free(&report);
    nimbus_free(y);
    nimbus_net_free(net);
}

static void pool(message *graph, const char *type, int64_t ceil_mode, int64_t count,
                 const int64_t *pads)
{
    message node = made_node(type, "x", "y");
    made_ints(&node, "kernel_shape", 2, (const int64_t[]){2, 3});
    made_ints(&node, "strides", 2, (const int64_t[]){2, 2});
    if (ceil_mode)
        made_int(&node, "ceil_mode", 1);
    if (count)
        made_int(&node, "count_include_pad", 1);
    made_ints(&node, "pads", 4, pads);
    made_add(graph, &node);
}

static void max_pool_ceil(message *graph)
{
    pool(graph, "MaxPool", 1, 0, (const int64_t[]){0, 0, 0, 0});
}

static void max_pool_padded(message *graph)
{
    pool(graph, "MaxPool", 0, 0, (const int64_t[]){0, 0, 1, 1});
}

static void average_ceil(message *graph)
{
    pool(graph, "AveragePool", 1, 0, (const int64_t[]){0, 1, 0, 0});
}

static void average_padded(message *graph)
{
    pool(graph, "AveragePool", 0, 0, (const int64_t[]){0, 1, 1, 0});
}

static void average_counting(message *graph)
{
    pool(graph, "AveragePool", 0, 1, (const int64_t[]){0, 1, 1, 0});
}

static void average_after_pad(message *graph)
{
    message pad = made_node("Pad", "x", "padded"), node = made_node("AveragePool", "padded", "y");
    made_ints(&pad, "pads", 8, (const int64_t[]){0, 0, 0, 1, 0, 0, 1, 0});
    made_add(graph, &pad);
    made_ints(&node, "kernel_shape", 2, (const int64_t[]){2, 3});
    made_ints(&node, "strides", 2, (const int64_t[]){2, 2});
    made_add(graph, &node);
}

static void reduce_mean(message *graph)
{
    message node = made_node("ReduceMean", "x", "y");
    made_ints(&node, "axes", 2, (const int64_t[]){-1, 2});
    made_int(&node, "keepdims", 0);
    made_add(graph, &node);
}

static void reduce_mean_list(message *graph)
{
    made_simple(graph, "ReduceMean", "x,axes", "y");
    made_list(graph, "axes", 2, (const int64_t[]){2, 3});
}

static void global_average(message *graph)
{
    made_simple(graph, "GlobalAveragePool", "x", "y");
}

static void global_max(message *graph)
{
    made_simple(graph, "GlobalMaxPool", "x", "y");
}

static void max_pool_whole(message *graph)
{
    message node = made_node("MaxPool", "x", "y");
    made_ints(&node, "kernel_shape", 2, (const int64_t[]){5, 4});
    made_add(graph, &node);
}

static void test_pooling(void **state)
{
    (void)state;
    assert_same("rounded up", DIMS(2, 5, 6), 12, max_pool_ceil, 9, max_pool_padded);
    assert_same("average, rounded up", DIMS(2, 5, 6), 12, average_ceil, 9, average_padded);
    assert_same("zeros that count", DIMS(2, 5, 6), 9, average_after_pad, 12, average_counting);
    assert_same("mean", DIMS(3, 5, 4), 11, reduce_mean, 13, global_average);
    assert_same("mean, axes as input", DIMS(3, 5, 4), 18, reduce_mean_list, 13, global_average);
    assert_same("maximum", DIMS(3, 5, 4), 13, global_max, 13, max_pool_whole);
}

/* Windows of 2 with stride 2 over 1 2 3, rounded up: the last one holds 3 alone. */
static void test_what_an_average_counts(void **state)
{
    (void)state;
    message graph = {0}, node = made_node("AveragePool", "x", "y");
    made_ints(&node, "kernel_shape", 1, (const int64_t[]){2});
    made_ints(&node, "strides", 1, (const int64_t[]){2});
    made_int(&node, "ceil_mode", 1);
    made_add(&graph, &node);
    message model = made_model(&graph, 13, "x", DIMS(1, 3), "y");
    nimbus_net *net = imported(&model, NULL, NULL);
    float *y = outputs_of(net, NIMBUS_F32, 1, (const float[]){1, 2, 3});
    assert_true(y[0] == 1.5f && y[1] == 3);
    nimbus_free(y);
    nimbus_net_free(net);
}

/* ---- activations ----------------------------------------------------------------------------- */

static void relu6_attributes(message *graph)
{
    message node = made_node("Clip", "x", "y");
    made_float(&node, "min", 0);
    made_float(&node, "max", 1.5f);
    made_add(graph, &node);
}

static void relu6_inputs(message *graph)
{
    made_simple(graph, "Clip", "x,low,high", "y");
    made_scalar(graph, "low", 0);
    made_scalar(graph, "high", 1.5f);
}

static void relu6_relu(message *graph)
{
    made_simple(graph, "Relu", "x", "r");
    made_simple(graph, "Clip", "r,,high", "y");
    made_scalar(graph, "high", 1.5f);
}

static void hard_swish(message *graph)
{
    made_simple(graph, "HardSwish", "x", "y");
}

static void hard_swish_sigmoid(message *graph)
{
    message node = made_node("HardSigmoid", "x", "h");
    made_float(&node, "alpha", 1.0f / 6);
    made_add(graph, &node);
    made_simple(graph, "Mul", "h,x", "y");
}

static void hard_swish_clip(message *graph)
{
    made_simple(graph, "Add", "x,three", "a");
    made_simple(graph, "Clip", "a,zero,six", "c");
    made_simple(graph, "Mul", "x,c", "m");
    made_simple(graph, "Div", "m,six", "y");
    made_scalar(graph, "zero", 0);
    made_scalar(graph, "three", 3);
    made_scalar(graph, "six", 6);
}

/* On 2 x - 1 rather than x. */
static void hard_swish_of_scaled(message *graph)
{
    made_simple(graph, "Mul", "x,two", "s");
    made_simple(graph, "Sub", "s,one", "t");
    made_simple(graph, "HardSwish", "t", "y");
    made_scalar(graph, "one", 1);
    made_scalar(graph, "two", 2);
}

static void hard_swish_of_scaled_clip(message *graph)
{
    made_simple(graph, "Mul", "x,two", "s");
    made_simple(graph, "Sub", "s,one", "t");
    made_simple(graph, "Add", "t,three", "a");
    made_simple(graph, "Clip", "a,zero,six", "c");
    made_simple(graph, "Div", "c,six", "d");
    made_simple(graph, "Mul", "d,t", "y");
    made_scalar(graph, "zero", 0);
    made_scalar(graph, "one", 1);
    made_scalar(graph, "two", 2);
    made_scalar(graph, "three", 3);
    made_scalar(graph, "six", 6);
}

static void gelu(message *graph)
{
    made_simple(graph, "Gelu", "x", "y");
}

/* x * 0.5 * (1 + erf(x / sqrt 2)) in two orders of the products. */
static void gelu_erf(message *graph)
{
    made_simple(graph, "Div", "x,root", "d");
    made_simple(graph, "Erf", "d", "e");
    made_simple(graph, "Add", "e,one", "a");
    made_simple(graph, "Mul", "x,a", "m");
    made_simple(graph, "Mul", "m,half", "y");
    made_scalar(graph, "root", sqrtf(2));
    made_scalar(graph, "one", 1);
    made_scalar(graph, "half", 0.5f);
}

static void gelu_erf_half_first(message *graph)
{
    made_simple(graph, "Div", "x,root", "d");
    made_simple(graph, "Erf", "d", "e");
    made_simple(graph, "Add", "one,e", "a");
    made_simple(graph, "Mul", "half,x", "h");
    made_simple(graph, "Mul", "h,a", "y");
    made_scalar(graph, "root", sqrtf(2));
    made_scalar(graph, "one", 1);
    made_scalar(graph, "half", 0.5f);
}

static void softmax_old(message *graph)
{
    made_simple(graph, "Softmax", "x", "y");
}

static void softmax_of_all(message *graph)
{
    message node = made_node("Softmax", "f", "s");
    made_simple(graph, "Flatten", "x", "f");
    made_int(&node, "axis", -1);
    made_add(graph, &node);
    made_simple(graph, "Reshape", "s,shape", "y");
    made_list(graph, "shape", 4, (const int64_t[]){-1, 2, 3, 4});
}

static void test_activations(void **state)
{
    (void)state;
    assert_same("clip", DIMS(5, 2), 9, relu6_attributes, 13, relu6_inputs);
    assert_same("clip of a relu", DIMS(5), 13, relu6_relu, 13, relu6_inputs);
    assert_same("hard swish", DIMS(7), 13, hard_swish_sigmoid, 14, hard_swish);
    assert_same("hard swish by clip", DIMS(7), 13, hard_swish_clip, 14, hard_swish);
    assert_same("hard swish of 2 x - 1", DIMS(7), 14, hard_swish_of_scaled, 13,
                hard_swish_of_scaled_clip);
    assert_same("gelu", DIMS(2, 3, 3), 13, gelu_erf, 20, gelu);
    assert_same("gelu, half first", DIMS(7), 13, gelu_erf_half_first, 20, gelu);
    assert_same("softmax before opset 13", DIMS(2, 3, 4), 11, softmax_old, 13, softmax_of_all);
}

/* ---- products and arithmetic ----------------------------------------------------------------- */

static void gemm(message *graph)
{
    message node = made_node("Gemm", "x,w,b", "y");
    made_float(&node, "alpha", 0.5f);
    made_float(&node, "beta", 2);
    made_add(graph, &node);
    made_random(graph, "w", DIMS(6, 4), 1);
    made_random(graph, "b", DIMS(1, 4), 2);
}

static void matmul(message *graph)
{
    made_simple(graph, "MatMul", "x,w", "p");
    made_simple(graph, "Mul", "p,half", "h");
    made_simple(graph, "Add", "c,h", "y");
    made_simple(graph, "Mul", "b,two", "c"); /* in the wrong place: see below */
    made_random(graph, "w", DIMS(6, 4), 1);
    made_random(graph, "b", DIMS(4), 2);
    made_scalar(graph, "half", 0.5f);
    made_scalar(graph, "two", 2);
}

static void matmul_in_order(message *graph)
{
    made_simple(graph, "Mul", "b,two", "c");
    made_simple(graph, "Transpose", "w", "unused");
    made_simple(graph, "MatMul", "x,w", "p");
    made_simple(graph, "Mul", "p,half", "h");
    made_simple(graph, "Add", "c,h", "y");
    made_random(graph, "w", DIMS(6, 4), 1);
    made_random(graph, "b", DIMS(4), 2);
    made_scalar(graph, "half", 0.5f);
    made_scalar(graph, "two", 2);
}

/* A scale and shift per channel, in front of what keeps them apart from other layers. */
static void scale_shift(message *graph)
{
    made_simple(graph, "Relu", "x", "r");
    made_simple(graph, "Div", "r,s", "d");
    made_simple(graph, "Sub", "t,d", "y");
    made_random(graph, "s", DIMS(3, 1, 1), 4);
    made_random(graph, "t", DIMS(1, 3, 1, 1), 5);
}

static void batch_norm(message *graph)
{
    float s[3], zero[3] = {0}, one[3] = {1, 1, 1};
    message node = made_node("BatchNormalization", "r,scale,t,mean,variance", "y");
    fill_random(s, 3, 4);
    for (size_t i = 0; i < 3; i++)
        s[i] = -1 / s[i];
    made_simple(graph, "Relu", "x", "r");
    made_float(&node, "epsilon", 0);
    made_add(graph, &node);
    made_floats(graph, "scale", DIMS(3), s);
    made_random(graph, "t", DIMS(3), 5);
    made_floats(graph, "mean", DIMS(3), zero);
    made_floats(graph, "variance", DIMS(3), one);
}

/* Constants with a value per column, which are not the channels. */
static void per_column(message *graph)
{
    made_simple(graph, "Relu", "x", "r");
    made_simple(graph, "Mul", "r,s", "y");
    made_random(graph, "s", DIMS(4), 4);
}

static void per_column_turned(message *graph)
{
    message there = made_node("Transpose", "r", "t"), back = made_node("Transpose", "m", "y");
    made_simple(graph, "Relu", "x", "r");
    made_ints(&there, "perm", 4, (const int64_t[]){0, 3, 1, 2});
    made_add(graph, &there);
    made_simple(graph, "Mul", "t,s", "m");
    made_ints(&back, "perm", 4, (const int64_t[]){0, 2, 3, 1});
    made_add(graph, &back);
    made_random(graph, "s", DIMS(4, 1, 1), 4);
}

static void sum(message *graph)
{
    made_simple(graph, "Relu", "x", "a");
    made_simple(graph, "Tanh", "x", "b");
    made_simple(graph, "Sum", "a,b,x", "y");
}

static void additions(message *graph)
{
    made_simple(graph, "Relu", "x", "a");
    made_simple(graph, "Tanh", "x", "b");
    made_simple(graph, "Mul", "b,minus", "c");
    made_simple(graph, "Sub", "a,c", "d");
    made_simple(graph, "Add", "x,d", "y");
    made_scalar(graph, "minus", -1);
}

static void test_arithmetic(void **state)
{
    (void)state;
    nimbus_net *net;
    nimbus_error error;
    message graph = {0};
    assert_same("products", DIMS(6), 13, matmul_in_order, 9, gemm);
    assert_same("per channel", DIMS(3, 2, 4), 13, scale_shift, 9, batch_norm);
    assert_same("per column", DIMS(3, 2, 4), 13, per_column, 9, per_column_turned);
    assert_same("sum", DIMS(6), 13, sum, 9, additions);
    matmul(&graph);
    message model = made_model(&graph, 13, "x", DIMS(6), "y");
    assert_int_equal(try_import(&model, NULL, &net, NULL, &error), NIMBUS_ERR_FORMAT);
}

/* A failed allocation anywhere is an error and leaks nothing. */
static void test_out_of_memory(void **state)
{
    (void)state;
    nimbus_status status = NIMBUS_ERR_MEMORY;
    for (long k = 1; status == NIMBUS_ERR_MEMORY; k++) {
        message graph = {0};
        nimbus_net *net;
        nimbus_import_report report;
        nimbus_error error;
        conv_after_pad(&graph);
        message model = made_model(&graph, 13, "x", DIMS(2, 6, 5), "y");
        nimbus_fail_alloc_after = k;
        status = try_import(&model, NULL, &net, &report, &error);
        nimbus_fail_alloc_after = 0;
        assert_true(status == NIMBUS_ERR_MEMORY || (status == NIMBUS_OK && k > 20));
        assert_int_equal(net != NULL, status == NIMBUS_OK);
        nimbus_net_free(net);
        nimbus_import_report_free(&report);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),          cmocka_unit_test(test_padding),
        cmocka_unit_test(test_pooling),       cmocka_unit_test(test_what_an_average_counts),
        cmocka_unit_test(test_activations),   cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
