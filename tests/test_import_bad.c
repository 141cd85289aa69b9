/* test_import_bad.c - ONNX files that must be refused, each with the status its name begins with
 *
 * Every bad file is the same small good model with one thing wrong. They are written into a folder
 * and imported from there; BAD_ONNX names a folder in which they stay. */
#include "import_folder.h"

#include <strings.h>

/* One attribute of the middle node. */
typedef struct made_extra {
    const char *name;
    enum { INT = 1, INTS, FLOAT, TEXT } kind;
    int64_t ints[8];
    size_t n;
    const char *text;
} made_extra;

#define INT_OF(key, value)                                                                         \
    {                                                                                              \
        .name = (key), .kind = INT, .ints = { value }                                              \
    }
#define INTS_OF(key, ...)                                                                          \
    {                                                                                              \
        .name = (key), .kind = INTS, .ints = {__VA_ARGS__},                                        \
        .n = sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)                              \
    }
#define FLOAT_OF(key)                                                                              \
    {                                                                                              \
        .name = (key), .kind = FLOAT                                                               \
    }
#define TEXT_OF(key, value)                                                                        \
    {                                                                                              \
        .name = (key), .kind = TEXT, .text = (value)                                               \
    }

/* What differs from the good model, x -> Conv -> Relu -> Flatten -> Gemm -> y:
 * zero means as it is there. */
typedef struct bad_model {
    const char *file;
    const char *op, *domain, *inputs; /* of the middle node, in place of Relu; "h" is its input */
    const char *output;
    made_extra extra[4];
    int64_t w[6], gemm[3]; /* dims of the weights, 0 at the end */
    int w_type;
    size_t w_bytes;                      /* fewer or more of them */
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
    {"UNSUPPORTED-attribute", .extra = {FLOAT_OF("alpha")}},
    {"UNSUPPORTED-resize", .op = "Resize", .inputs = "h,half,half"},
    {"UNSUPPORTED-product_of_two", .op = "Mul", .inputs = "h,h"},
    {"UNSUPPORTED-quotient_of_two", .op = "Div", .inputs = "h,h"},
    {"UNSUPPORTED-quotient_by_input", .op = "Div", .inputs = "half,h"},
    {"UNSUPPORTED-erf_alone", .op = "Erf"},
    {"UNSUPPORTED-log_softmax_inside", .op = "LogSoftmax", .extra = {INT_OF("axis", 1)}},
    {"UNSUPPORTED-softmax_of_rows", .op = "Softmax", .extra = {INT_OF("axis", 0)}},
    {"UNSUPPORTED-softmax_across", .op = "Softmax", .extra = {INT_OF("axis", 3)}},
    {"UNSUPPORTED-gelu_tanh", .op = "Gelu", .extra = {TEXT_OF("approximate", "tanh")}},
    {"UNSUPPORTED-slice_of_input", .op = "Slice", .inputs = "h,one,two"},
    {"UNSUPPORTED-gather_of_input", .op = "Gather", .inputs = "h,one"},
    {"UNSUPPORTED-argmax", .op = "ArgMax"},
    {"UNSUPPORTED-if", .op = "If"},
    {"UNSUPPORTED-rows_moved", .op = "Transpose", .extra = {INTS_OF("perm", 1, 0, 2, 3)}},
    {"UNSUPPORTED-rows_mixed", .op = "Reshape", .inputs = "h,mixed"},
    {"UNSUPPORTED-rows_flattened", .op = "Flatten", .extra = {INT_OF("axis", 0)}},
    {"UNSUPPORTED-rows_joined", .op = "Concat", .inputs = "h,h", .extra = {INT_OF("axis", 0)}},
    {"UNSUPPORTED-joined_across", .op = "Concat", .inputs = "h,h", .extra = {INT_OF("axis", 2)}},
    {"UNSUPPORTED-rows_squeezed", .op = "Squeeze", .inputs = "h,zero"},
    {"UNSUPPORTED-rows_padded", .op = "Pad", .inputs = "h,pad_rows"},
    {"UNSUPPORTED-cropped", .op = "Pad", .inputs = "h,crop"},
    {"UNSUPPORTED-pad_wrap", .op = "Pad", .inputs = "h,pad", .extra = {TEXT_OF("mode", "wrap")}},
    {"UNSUPPORTED-mean_of_rows", .op = "ReduceMean", .inputs = "h,zero"},
    {"UNSUPPORTED-mean_of_channels", .op = "ReduceMean", .inputs = "h,one"},
    {"UNSUPPORTED-average_ceil_counting", .op = "AveragePool", .x = {1, 4, 5},
     .extra = {INT_OF("ceil_mode", 1), INT_OF("count_include_pad", 1),
               INTS_OF("kernel_shape", 1, 2), INTS_OF("strides", 1, 2)}},
    {"UNSUPPORTED-dropout_training", .op = "Dropout", .inputs = "h,half,true"},
    {"UNSUPPORTED-second_output", .op = "MaxPool", .output = "aside,m",
     .extra = {INTS_OF("kernel_shape", 1, 1)}},
    {"UNSUPPORTED-weights_from_input", .conv_inputs = "x,x"},
    {"UNSUPPORTED-cast_to_int", .op = "Cast", .extra = {INT_OF("to", 7)}},
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
    {"UNSUPPORTED-auto_pad", .conv = {TEXT_OF("auto_pad", "SAME")}},
    {"UNSUPPORTED-negative_pads", .conv = {INTS_OF("pads", -1, 0, 0, 0)}},
    {"IO-external_absent", .op = "Add", .inputs = "h,out", .twice = "external"},
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
    {"FORMAT-two_attributes", .op = "Clip", .extra = {FLOAT_OF("min"), FLOAT_OF("min")}},
    {"FORMAT-attribute_type", .op = "Clip", .extra = {INT_OF("min", 0)}},
    {"FORMAT-too_few_inputs", .op = "Add"},
    {"FORMAT-too_many_inputs", .op = "Relu", .inputs = "h,h"},
    {"FORMAT-input_left_out", .op = "Add", .inputs = "h,"},
    {"FORMAT-pads_and_auto_pad",
     .conv = {TEXT_OF("auto_pad", "VALID"), INTS_OF("pads", 1, 1, 1, 1)}},
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
    {"MISMATCH-groups", .conv = {INT_OF("group", 3)}},
    {"MISMATCH-no_groups", .conv = {INT_OF("group", 0)}},
    {"MISMATCH-kernel_shape", .conv = {INTS_OF("kernel_shape", 2, 3)}},
    {"MISMATCH-kernel_larger", .x = {1, 2, 4}},
    {"MISMATCH-strides", .conv = {INTS_OF("strides", 1, 1, 1)}},
    {"MISMATCH-bias", .conv_inputs = "x,w,three"},
    {"MISMATCH-matrix", .gemm = {9, 3}},
    {"MISMATCH-axis", .op = "Softmax", .extra = {INT_OF("axis", 4)}},
    {"MISMATCH-perm", .op = "Transpose", .extra = {INTS_OF("perm", 0, 1, 2)}},
    {"MISMATCH-perm_twice", .op = "Transpose", .extra = {INTS_OF("perm", 0, 1, 1, 2)}},
    {"MISMATCH-reshape", .op = "Reshape", .inputs = "h,other"},
    {"MISMATCH-squeeze", .op = "Squeeze", .inputs = "h,one"},
    {"MISMATCH-constant", .op = "Add", .inputs = "h,three"},
    {"MISMATCH-floats_and_ints", .op = "Add", .inputs = "h,one"},
    {"MISMATCH-batch_norm", .op = "BatchNormalization", .inputs = "h,three,three,three,three"},
    {"MISMATCH-output_promised", .y_dim = 4},
    {"VALUE-zero_stride", .conv = {INTS_OF("strides", 0, 1)}},
    {"VALUE-huge_dilation", .conv = {INTS_OF("dilations", INT64_MAX, 1)}},
    {"VALUE-nan_weight", .nan = 1},
    {"VALUE-clip", .op = "Clip", .inputs = "h,half,minus"},
    {"VALUE-variance", .op = "BatchNormalization", .inputs = "h,pair,pair,pair,negative"},
    {"VALUE-reshape", .op = "Reshape", .inputs = "h,negatives"},
    {"VALUE-pool_pads", .op = "MaxPool",
     .extra = {INTS_OF("kernel_shape", 1, 1), INTS_OF("pads", 1, 1, 1, 1)}},
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
            made_float(node, extra[i].name, 0);
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
    put_extra(&middle, bad->extra, 4);
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

/* ---- bytes ----------------------------------------------------------------------------------- */

/* A file whose bytes are wrong rather than its graph; made from the good model's. */
typedef struct bad_bytes {
    const char *file;
    message (*make)(const message *good);
} bad_bytes;

static message copy_of(const message *m, size_t n)
{
    message copy = {0};
    put(&copy, m->bytes, n);
    return copy;
}

static message make_empty(const message *good)
{
    return copy_of(good, 0);
}

static message make_cut(const message *good)
{
    return copy_of(good, good->n / 2);
}

static message make_cut_tag(const message *good)
{
    message m = copy_of(good, good->n);
    put(&m, "\x80", 1);
    return m;
}

static message make_text(const message *good)
{
    message m = {0};
    (void)good;
    put(&m, "this is a text and no model", 27);
    return m;
}

static message make_group(const message *good)
{
    message m = copy_of(good, good->n);
    put(&m, "\x0b\x0c", 2); /* begins and ends field 1 as a group */
    return m;
}

static message make_long_varint(const message *good)
{
    message m = copy_of(good, good->n);
    put(&m, "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12);
    return m;
}

static message make_field_zero(const message *good)
{
    message m = copy_of(good, good->n);
    put_int(&m, 0, 1);
    return m;
}

static message make_two_graphs(const message *good)
{
    message m = copy_of(good, good->n), empty = {0};
    put_message(&m, 7, &empty);
    return m;
}

static message make_wrong_wire(const message *good)
{
    message m = copy_of(good, good->n);
    put_int(&m, 6, 1); /* doc_string as a number */
    return m;
}

static message make_zero_in_text(const message *good)
{
    message m = copy_of(good, good->n);
    put_bytes(&m, 6, "a\0b", 3);
    return m;
}

static message make_long_length(const message *good)
{
    message m = copy_of(good, good->n);
    put(&m, "\x32\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10); /* doc_string of 2^63 bytes */
    return m;
}

/* A name longer than the operator set that it is a part of. */
static message make_long_inside(const message *good)
{
    message m = copy_of(good, good->n), set = {0};
    put(&set, "\x0a\x05", 2);
    put_message(&m, 8, &set);
    put_text(&m, 6, "bytes that follow");
    return m;
}

/* A length whose own bytes reach behind the operator set that it stands in. */
static message make_length_outside(const message *good)
{
    message m = copy_of(good, good->n), set = {0};
    put(&set, "\x0a\xff", 2);
    put_message(&m, 8, &set);
    put(&m, "\xff\xff\xff\xff\xff\xff\x0f", 7);
    return m;
}

static message make_odd_floats(const message *good)
{
    message m = {0}, graph = {0}, tensor = {0};
    (void)good;
    put_bytes(&tensor, 4, "12345", 5);
    put_message(&graph, 5, &tensor);
    put_message(&m, 7, &graph);
    return m;
}

/* A dimension that is a number and a name. */
static message make_both_of_one(const message *good)
{
    message m = {0}, graph = {0}, value = {0}, type = {0}, tensor = {0}, shape = {0}, dim = {0};
    (void)good;
    put_int(&dim, 1, 3);
    put_text(&dim, 2, "N");
    put_message(&shape, 1, &dim);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_message(&value, 2, &type);
    put_message(&graph, 11, &value);
    put_message(&m, 7, &graph);
    return m;
}

/* Graphs within attributes within nodes within graphs, from the inside out. */
static message make_nested(const message *good)
{
    enum { LEVELS = 9000 };
    message inner = {0};
    (void)good;
    for (size_t i = 0; i < LEVELS; i++) {
        message outer = {0};
        put_message(&outer, i % 3 == 0 ? 6 : i % 3 == 1 ? 5 : 1, &inner); /* g, attribute, node */
        inner = outer;
    }
    message m = {0};
    put_message(&m, 7, &inner);
    return m;
}

/* 200,000 beginnings of messages, each longer than what is left: refused before the lengths. */
static message make_nested_much(const message *good)
{
    message m = {0};
    static const char tags[] = {0x3a, 0x0a, 0x2a, 0x32}; /* graph; node, attribute, g, node, ... */
    size_t left = 2000000;
    (void)good;
    for (size_t i = 0; i < 200000; i++) {
        put(&m, &tags[i == 0 ? 0 : 1 + (i - 1) % 3], 1);
        put_varint(&m, left -= 10);
    }
    while (m.n < 2000010)
        put(&m, "\x08\x01", 2);
    return m;
}

/* Many empty attributes: two bytes each, hundreds when unpacked. */
static message make_empty_attributes(const message *good)
{
    message m = {0}, graph = {0}, node = {0};
    (void)good;
    for (size_t i = 0; i < 1000000; i++)
        put(&node, "\x2a\x00", 2);
    put_message(&graph, 1, &node);
    put_message(&m, 7, &graph);
    return m;
}

static const bad_bytes bad_bytes_of[] = {
    {"TRUNCATED-empty", make_empty},
    {"TRUNCATED-half", make_cut},
    {"TRUNCATED-tag", make_cut_tag},
    {"TRUNCATED-long_length", make_long_length},
    {"TRUNCATED-length_outside", make_length_outside},
    {"FORMAT-text", make_text},
    {"FORMAT-group", make_group},
    {"FORMAT-long_number", make_long_varint},
    {"FORMAT-field_zero", make_field_zero},
    {"FORMAT-two_graphs", make_two_graphs},
    {"FORMAT-wire_type", make_wrong_wire},
    {"FORMAT-zero_in_text", make_zero_in_text},
    {"FORMAT-longer_than_its_message", make_long_inside},
    {"FORMAT-odd_floats", make_odd_floats},
    {"FORMAT-number_and_name", make_both_of_one},
    {"LIMIT-nested_9000", make_nested},
    {"LIMIT-nested_200000", make_nested_much},
    {"LIMIT-empty_attributes", make_empty_attributes},
};

/* ---- the files ------------------------------------------------------------------------------- */

/* Writes a file, imports it, and compares the status with the beginning of its name. */
static size_t check_file(const char *name, message *bytes)
{
    char file[128], path[512], begins[32];
    nimbus_net *net = NULL;
    nimbus_import_report report;
    nimbus_error error = {0};
    assert_false(bytes->failed);
    snprintf(file, sizeof file, "%s.onnx", name);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    snprintf(begins, sizeof begins, "%.*s", (int)strcspn(name, "-"), name);
    write_file(file, bytes->bytes, bytes->n);
    nimbus_status status = nimbus_import_onnx(path, NULL, &net, &report, &error);
    free(bytes->bytes);
    remove_file(file);
    assert_null(net);
    assert_int_equal(report.n_layers, 0);
    if (strcasecmp(nimbus_status_name(status), begins) != 0) {
        print_error("%s: %s, %s\n", name, nimbus_status_name(status), error.message);
        return 1;
    }
    assert_non_null(strstr(error.message, name)); /* the path */
    assert_null(strchr(error.message, '\x1b'));
    return 0;
}

static void test_bad_models(void **state)
{
    (void)state;
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof bad_models / sizeof *bad_models; i++) {
        message bytes = bad_model_bytes(&bad_models[i]);
        wrong += check_file(bad_models[i].file, &bytes);
    }
    assert_int_equal(wrong, 0);
}

static void test_bad_bytes(void **state)
{
    (void)state;
    const bad_model nothing_wrong = {0};
    message good = bad_model_bytes(&nothing_wrong);
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof bad_bytes_of / sizeof *bad_bytes_of; i++) {
        message bytes = bad_bytes_of[i].make(&good);
        wrong += check_file(bad_bytes_of[i].file, &bytes);
    }
    assert_int_equal(wrong, 0);
    nimbus_net_free(imported(&good, NULL, NULL)); /* what all of them are made of is right */
}

/* Every cut and every changed bit of the good model: an error or a net, nothing else. */
static void test_damage(void **state)
{
    (void)state;
    const bad_model nothing_wrong = {0};
    message good = bad_model_bytes(&nothing_wrong);
    for (size_t i = 0; i < good.n + 8 * good.n; i++) {
        bool cut = i < good.n;
        size_t at = cut ? i : (i - good.n) / 8;
        message m = copy_of(&good, cut ? at : good.n);
        nimbus_net *net;
        nimbus_error error = {0};
        if (!cut)
            m.bytes[at] ^= (unsigned char)(1u << i % 8);
        nimbus_status status = try_import(&m, NULL, &net, NULL, &error);
        assert_int_equal(net != NULL, status == NIMBUS_OK);
        assert_int_equal(error.message[0] != 0, status != NIMBUS_OK);
        assert_false(cut && at < good.n - 6 && status == NIMBUS_OK);
        nimbus_net_free(net);
    }
    free(good.bytes);
}

/* A weight that many nodes share may not become many copies without end. */
static void test_copies(void **state)
{
    (void)state;
    enum { NODES = 300, SIDE = 300 };
    char inputs[32], y[16];
    message graph = {0};
    nimbus_net *net;
    nimbus_error error;
    snprintf(y, sizeof y, "x");
    for (size_t i = 0; i < NODES; i++) {
        snprintf(inputs, sizeof inputs, "%s,w", y);
        snprintf(y, sizeof y, "p%zu", i);
        made_simple(&graph, "MatMul", inputs, y);
    }
    made_random(&graph, "w", DIMS(SIDE, SIDE), 1);
    message model = made_model(&graph, 13, "x", DIMS(SIDE), y);
    assert_int_equal(try_import(&model, NULL, &net, NULL, &error), NIMBUS_ERR_LIMIT);
    assert_null(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_bad_bytes),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_copies),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
