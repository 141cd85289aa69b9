/* test_import_bad.c - ONNX files that must be refused, each with the status its name begins with
 *
 * Every bad file is the same small good model with one thing wrong. They are written into a folder
 * and imported from there; BAD_ONNX names a folder in which they stay. */
#include "import_helpers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One attribute of the middle node. */
typedef struct made_extra {
    const char *name;
    enum { INT = 1, INTS, FLOAT, TEXT } kind;
    int64_t ints[8];
    size_t n;
    float real;
    const char *text;
} made_extra;

/* What differs from the good model, x -> Conv -> Relu -> Flatten -> Gemm -> y:
 * zero means as it is there. */
typedef struct bad_model {
    const char *file;
    const char *op, *domain, *inputs; /* of the middle node, in place of Relu; "h" is its input */
    const char *output;
    made_extra extra[2];
    int64_t w[6], gemm[3]; /* dims of the weights, 0 at the end */
    int w_type;
    size_t w_bytes;       /* fewer or more of them */
    const char *conv_inputs, *y, *twice; /* twice: an initialiser more, of this name */
    made_extra conv[2];
    uint64_t opset, ir;
    int64_t x[5]; /* dims of a row, 0 at the end; -1: left open */
    int x_type, outputs, inputs_more;
    int64_t y_dim;
    int no_graph, no_opset, no_output, sparse, segment, typed_too, nan, order, no_dim;
} bad_model;

static const bad_model bad_models[] = {
    {"UNSUPPORTED-leaky_relu", .op = "LeakyRelu"},
    {"UNSUPPORTED-no_operator", .op = "No\x1bSuch"},
    {"UNSUPPORTED-other_domain", .domain = "com.microsoft"},
    {"UNSUPPORTED-attribute", .extra = {{"alpha", FLOAT}}},
    {"UNSUPPORTED-resize", .op = "Resize", .inputs = "h,half,half"},
    {"UNSUPPORTED-product_of_two", .op = "Mul", .inputs = "h,h"},
    {"UNSUPPORTED-quotient_of_two", .op = "Div", .inputs = "h,h"},
    {"UNSUPPORTED-quotient_by_input", .op = "Div", .inputs = "half,h"},
    {"UNSUPPORTED-erf_alone", .op = "Erf"},
    {"UNSUPPORTED-log_softmax_inside", .op = "LogSoftmax", .extra = {{"axis", INT, {1}, 1}}},
    {"UNSUPPORTED-softmax_of_rows", .op = "Softmax", .extra = {{"axis", INT, {0}, 1}}},
    {"UNSUPPORTED-softmax_across", .op = "Softmax", .extra = {{"axis", INT, {3}, 1}}},
    {"UNSUPPORTED-gelu_tanh", .op = "Gelu", .extra = {{"approximate", TEXT, .text = "tanh"}}},
    {"UNSUPPORTED-slice_of_input", .op = "Slice", .inputs = "h,one,two"},
    {"UNSUPPORTED-gather_of_input", .op = "Gather", .inputs = "h,one"},
    {"UNSUPPORTED-argmax", .op = "ArgMax"},
    {"UNSUPPORTED-if", .op = "If"},
    {"UNSUPPORTED-rows_moved", .op = "Transpose", .extra = {{"perm", INTS, {1, 0, 2, 3}, 4}}},
    {"UNSUPPORTED-rows_mixed", .op = "Reshape", .inputs = "h,mixed"},
    {"UNSUPPORTED-rows_flattened", .op = "Flatten", .extra = {{"axis", INT, {0}, 1}}},
    {"UNSUPPORTED-rows_joined", .op = "Concat", .inputs = "h,h", .extra = {{"axis", INT, {0}, 1}}},
    {"UNSUPPORTED-joined_across", .op = "Concat", .inputs = "h,h",
     .extra = {{"axis", INT, {2}, 1}}},
    {"UNSUPPORTED-rows_squeezed", .op = "Squeeze", .inputs = "h,zero"},
    {"UNSUPPORTED-rows_padded", .op = "Pad", .inputs = "h,pad_rows"},
    {"UNSUPPORTED-cropped", .op = "Pad", .inputs = "h,crop"},
    {"UNSUPPORTED-pad_wrap", .op = "Pad", .inputs = "h,pad", .extra = {{"mode", TEXT, .text = "wrap"}}},
    {"UNSUPPORTED-mean_of_rows", .op = "ReduceMean", .inputs = "h,zero"},
    {"UNSUPPORTED-mean_of_channels", .op = "ReduceMean", .inputs = "h,one"},
    {"UNSUPPORTED-average_ceil_counting", .op = "AveragePool",
     .extra = {{"ceil_mode", INT, {1}, 1}, {"count_include_pad", INT, {1}, 1}}},
    {"UNSUPPORTED-dropout_training", .op = "Dropout", .inputs = "h,half,true"},
    {"UNSUPPORTED-second_output", .op = "MaxPool", .output = "aside,m",
     .extra = {{"kernel_shape", INTS, {1, 1}, 2}}},
    {"UNSUPPORTED-weights_from_input", .conv_inputs = "x,x"},
    {"UNSUPPORTED-cast_to_int", .op = "Cast", .extra = {{"to", INT, {7}, 1}}},
    {"UNSUPPORTED-matrix_3d", .op = "MatMul", .inputs = "h,half"},
    {"UNSUPPORTED-two_inputs", .inputs_more = 1},
    {"UNSUPPORTED-two_outputs", .outputs = 2},
    {"UNSUPPORTED-input_int64", .x_type = MADE_INT64},
    {"UNSUPPORTED-input_open", .x = {1, 4, -1}},
    {"UNSUPPORTED-input_5d", .x = {1, 1, 4, 4}},
    {"UNSUPPORTED-opset_8", .opset = 8},
    {"UNSUPPORTED-sparse", .sparse = 1},
    {"UNSUPPORTED-segments", .segment = 1},
    {"UNSUPPORTED-weights_of_text", .w_type = 8},
    {"UNSUPPORTED-auto_pad", .conv = {{"auto_pad", TEXT, .text = "SAME"}}},
    {"UNSUPPORTED-negative_pads", .conv = {{"pads", INTS, {-1, 0, 0, 0}, 4}}},
    {"UNSUPPORTED-external_in_memory", .twice = "external"},
    {"VERSION-opset_99", .opset = 99},
    {"VERSION-ir_99", .ir = 99},
    {"FORMAT-no_graph", .no_graph = 1},
    {"FORMAT-no_opset", .no_opset = 1},
    {"FORMAT-no_output", .no_output = 1},
    {"FORMAT-output_of_nobody", .y = "z"},
    {"FORMAT-input_of_nobody", .inputs = "nobody"},
    {"FORMAT-cycle", .inputs = "y", .op = "Relu"},
    {"FORMAT-itself", .inputs = "m"},
    {"FORMAT-out_of_order", .order = 1},
    {"FORMAT-two_initialisers", .twice = "w"},
    {"FORMAT-made_twice", .output = "h"},
    {"FORMAT-initialiser_made", .output = "w"},
    {"FORMAT-two_attributes", .op = "Clip", .extra = {{"min", FLOAT}, {"min", FLOAT}}},
    {"FORMAT-attribute_type", .op = "Clip", .extra = {{"min", INT, {0}, 1}}},
    {"FORMAT-too_few_inputs", .op = "Add"},
    {"FORMAT-too_many_inputs", .op = "Relu", .inputs = "h,h"},
    {"FORMAT-input_left_out", .op = "Add", .inputs = "h,"},
    {"FORMAT-pads_and_auto_pad",
     .conv = {{"auto_pad", TEXT, .text = "VALID"}, {"pads", INTS, {1, 1, 1, 1}, 4}}},
    {"FORMAT-no_kernel", .op = "MaxPool"},
    {"FORMAT-weights_too_long", .w_bytes = 80},
    {"FORMAT-negative_dim", .w = {-2, 1, 3, 3}},
    {"FORMAT-data_twice", .typed_too = 1},
    {"TRUNCATED-weights", .w_bytes = 68},
    {"TRUNCATED-no_weights", .w_bytes = SIZE_MAX},
    {"TRUNCATED-dims_lie", .w = {2, 1, 3, 4}},
    {"TRUNCATED-dims_lie_much", .w = {1 << 20, 1 << 20, 3, 3}},
    {"LIMIT-dims_overflow", .w = {INT64_MAX, INT64_MAX, 3, 3}},
    {"LIMIT-input_wide", .x = {1, 1 << 30, 4}},
    {"LIMIT-shape_of_much", .op = "ConstantOfShape", .inputs = "much"},
    {"MISMATCH-weights_of_other_channels", .w = {2, 2, 3, 3}, .w_bytes = 144},
    {"MISMATCH-weights_3d", .w = {2, 3, 3}, .w_bytes = 72},
    {"MISMATCH-weights_of_ints", .w_type = MADE_INT32},
    {"MISMATCH-groups", .conv = {{"group", INT, {3}, 1}}},
    {"MISMATCH-no_groups", .conv = {{"group", INT, {0}, 1}}},
    {"MISMATCH-kernel_shape", .conv = {{"kernel_shape", INTS, {2, 3}, 2}}},
    {"MISMATCH-kernel_larger", .x = {1, 2, 4}},
    {"MISMATCH-strides", .conv = {{"strides", INTS, {1, 1, 1}, 3}}},
    {"MISMATCH-bias", .conv_inputs = "x,w,three"},
    {"MISMATCH-matrix", .gemm = {9, 3}},
    {"MISMATCH-axis", .op = "Softmax", .extra = {{"axis", INT, {4}, 1}}},
    {"MISMATCH-perm", .op = "Transpose", .extra = {{"perm", INTS, {0, 1, 2}, 3}}},
    {"MISMATCH-perm_twice", .op = "Transpose", .extra = {{"perm", INTS, {0, 1, 1, 2}, 4}}},
    {"MISMATCH-reshape", .op = "Reshape", .inputs = "h,other"},
    {"MISMATCH-squeeze", .op = "Squeeze", .inputs = "h,one"},
    {"MISMATCH-constant", .op = "Add", .inputs = "h,three"},
    {"MISMATCH-floats_and_ints", .op = "Add", .inputs = "h,one"},
    {"MISMATCH-batch_norm", .op = "BatchNormalization", .inputs = "h,three,three,three,three"},
    {"MISMATCH-output_promised", .y_dim = 4},
    {"VALUE-zero_stride", .conv = {{"strides", INTS, {0, 1}, 2}}},
    {"VALUE-huge_dilation", .conv = {{"dilations", INTS, {INT64_MAX, 1}, 2}}},
    {"VALUE-nan_weight", .nan = 1},
    {"VALUE-clip", .op = "Clip", .inputs = "h,half,minus"},
    {"VALUE-variance", .op = "BatchNormalization", .inputs = "h,pair,pair,pair,negative"},
    {"VALUE-reshape", .op = "Reshape", .inputs = "h,negatives"},
    {"VALUE-pool_pads", .op = "MaxPool",
     .extra = {{"kernel_shape", INTS, {1, 1}, 2}, {"pads", INTS, {1, 1, 1, 1}, 4}}},
};

/* ---- making them ----------------------------------------------------------------------------- */

static void put_extra(message *node, const made_extra *extra, size_t n)
{
    for (size_t i = 0; i < n && extra[i].name; i++)
        if (extra[i].kind == INT)
            made_int(node, extra[i].name, extra[i].ints[0]);
        else if (extra[i].kind == INTS)
            made_ints(node, extra[i].name, extra[i].n, extra[i].ints);
        else if (extra[i].kind == FLOAT)
            made_float(node, extra[i].name, extra[i].real);
        else
            made_text(node, extra[i].name, extra[i].text);
}

/* Small constants that the middle node may read. */
static void put_constants(message *graph)
{
    made_scalar(graph, "half", 0.5f);
    made_scalar(graph, "minus", -0.5f);
    made_floats(graph, "three", DIMS(3), (const float[]){1, 2, 3});
    made_floats(graph, "pair", DIMS(2), (const float[]){1, 2});
    made_floats(graph, "negative", DIMS(2), (const float[]){1, -2});
    made_list(graph, "zero", 1, (const int64_t[]){0});
    made_list(graph, "one", 1, (const int64_t[]){1});
    made_list(graph, "two", 1, (const int64_t[]){2});
    made_list(graph, "mixed", 2, (const int64_t[]){-1, 4});
    made_list(graph, "other", 2, (const int64_t[]){0, 9});
    made_list(graph, "negatives", 3, (const int64_t[]){0, -1, -1});
    made_list(graph, "much", 2, (const int64_t[]){1 << 20, 1 << 20});
    made_list(graph, "pad", 8, (const int64_t[]){0, 0, 1, 1, 0, 0, 0, 0});
    made_list(graph, "pad_rows", 8, (const int64_t[]){1, 0, 0, 0, 0, 0, 0, 0});
    made_list(graph, "crop", 8, (const int64_t[]){0, 0, -1, 0, 0, 0, 0, 0});
    made_raw(graph, "true", 9, 0, NULL, "\1", 1);
}

static size_t rank_of(const int64_t *dims)
{
    size_t n = 0;
    while (dims[n])
        n++;
    return n;
}

static void put_weights(message *graph, const bad_model *bad)
{
    static const int64_t usual[] = {2, 1, 3, 3, 0}, usual_gemm[] = {8, 3, 0};
    float values[64] = {0.25f, -1, 0.5f};
    const int64_t *dims = bad->w[0] ? bad->w : usual;
    const int64_t *gemm = bad->gemm[0] ? bad->gemm : usual_gemm;
    size_t bytes = bad->w_bytes == SIZE_MAX ? 0 : bad->w_bytes ? bad->w_bytes : 72;
    message w = made_tensor("w", bad->w_type ? bad->w_type : MADE_FLOAT, rank_of(dims), dims);
    if (bad->nan)
        memcpy(&values[5], &(uint32_t){0x7fc00000}, sizeof(float));
    if (bad->segment) {
        message segment = {0};
        put_int(&segment, 1, 0);
        put_message(&w, 3, &segment);
    }
    if (bad->typed_too)
        put_bytes(&w, 4, values, 72);
    if (bytes)
        put_bytes(&w, 9, values, bytes);
    put_message(graph, 5, &w);
    made_random(graph, "v", rank_of(gemm), gemm, 1);
    made_random(graph, "b", DIMS(3), 2);
}

static void put_nodes(message *graph, const bad_model *bad)
{
    message conv = made_node("Conv", bad->conv_inputs ? bad->conv_inputs : "x,w", "h");
    message middle = made_node(bad->op ? bad->op : "Relu", bad->inputs ? bad->inputs : "h",
                               bad->output ? bad->output : "m");
    put_extra(&conv, bad->conv, 2);
    if (bad->op && strcmp(bad->op, "AveragePool") == 0) {
        made_ints(&middle, "kernel_shape", 2, (const int64_t[]){1, 1});
        made_ints(&middle, "strides", 2, (const int64_t[]){2, 2});
        made_ints(&middle, "kernel_shape", 0, NULL);
        free(middle.bytes);
        middle = made_node("AveragePool", "h", "m");
        made_ints(&middle, "kernel_shape", 2, (const int64_t[]){1, 2});
        made_ints(&middle, "strides", 2, (const int64_t[]){1, 3});
        made_ints(&middle, "pads", 4, (const int64_t[]){0, 1, 0, 1});
    }
    put_extra(&middle, bad->extra, 2);
    if (bad->domain)
        put_text(&middle, 7, bad->domain);
    if (bad->order) {
        made_add(graph, &middle);
        made_add(graph, &conv);
    } else {
        made_add(graph, &conv);
        made_add(graph, &middle);
    }
    made_simple(graph, "Flatten", "m", "f");
    made_simple(graph, "Gemm", "f,v,b", "y");
}

static message bad_model_bytes(const bad_model *bad)
{
    static const int64_t usual[] = {1, 4, 4, 0};
    const int64_t *x = bad->x[0] ? bad->x : usual;
    message graph = {0}, model = {0}, set = {0}, nothing = {0};
    put_nodes(&graph, bad);
    put_weights(&graph, bad);
    put_constants(&graph);
    if (bad->twice && strcmp(bad->twice, "external") == 0)
        made_external(&graph, "out", 1, (const int64_t[]){3}, "weights.bin", NULL, NULL);
    else if (bad->twice)
        made_scalar(&graph, bad->twice, 1);
    made_value(&graph, 11, "x", bad->x_type ? bad->x_type : MADE_FLOAT, -1, rank_of(x), x);
    if (bad->inputs_more)
        made_value(&graph, 11, "x2", MADE_FLOAT, -1, rank_of(x), x);
    if (bad->sparse)
        put_message(&graph, 15, &nothing);
    for (int i = 0; i < (bad->no_output ? 0 : bad->outputs ? bad->outputs : 1); i++)
        made_value(&graph, 12, bad->y ? bad->y : "y", MADE_FLOAT, -1, 1,
                   &(int64_t){bad->y_dim ? bad->y_dim : 3});
    put_int(&model, 1, bad->ir ? bad->ir : 8);
    if (!bad->no_graph)
        put_message(&model, 7, &graph);
    free(graph.bytes);
    put_int(&set, 2, bad->opset ? bad->opset : 20);
    if (!bad->no_opset)
        put_message(&model, 8, &set);
    free(set.bytes);
    return model;
}
