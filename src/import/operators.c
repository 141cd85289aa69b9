/* operators.c - the operators that can be imported, listed once, and running one node */
#include <string.h>

#include "import/import.h"

#define ANY SIZE_MAX

static const nimbus_operator operators[] = {
    /* layers */
    {"Conv", "auto_pad dilations group kernel_shape pads strides", 2, 3, NULL, nimbus_build_conv},
    {"Gemm", "alpha beta transA transB", 2, 3, NULL, nimbus_build_gemm},
    {"MatMul", "", 2, 2, NULL, nimbus_build_matmul},
    {"BatchNormalization", "epsilon momentum training_mode", 5, 5, NULL, nimbus_build_batch_norm},
    {"MaxPool", "auto_pad ceil_mode dilations kernel_shape pads storage_order strides", 1, 1, NULL,
     nimbus_build_max_pool},
    {"AveragePool", "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides", 1,
     1, NULL, nimbus_build_average_pool},
    {"GlobalAveragePool", "", 1, 1, NULL, nimbus_build_global_average_pool},
    {"GlobalMaxPool", "", 1, 1, NULL, nimbus_build_global_max_pool},
    {"ReduceMean", "axes keepdims noop_with_empty_axes", 1, 2, NULL, nimbus_build_reduce_mean},
    {"ReduceMax", "axes keepdims noop_with_empty_axes", 1, 2, NULL, nimbus_build_reduce_max},
    {"Pad", "mode pads value", 1, 4, NULL, nimbus_build_pad},
    /* element by element */
    {"Relu", "", 1, 1, NULL, nimbus_build_relu},
    {"Clip", "max min", 1, 3, NULL, nimbus_build_clip},
    {"Sigmoid", "", 1, 1, NULL, nimbus_build_sigmoid},
    {"HardSigmoid", "alpha beta", 1, 1, NULL, nimbus_build_hard_sigmoid},
    {"HardSwish", "", 1, 1, NULL, nimbus_build_hard_swish},
    {"Tanh", "", 1, 1, NULL, nimbus_build_tanh},
    {"Gelu", "approximate", 1, 1, NULL, nimbus_build_gelu},
    {"Erf", "", 1, 1, NULL, nimbus_build_erf},
    {"Softmax", "axis", 1, 1, NULL, nimbus_build_softmax},
    {"LogSoftmax", "axis", 1, 1, NULL, nimbus_build_log_softmax},
    {"Add", "", 2, 2, nimbus_fold_add, nimbus_build_add},
    {"Sub", "", 2, 2, nimbus_fold_sub, nimbus_build_sub},
    {"Mul", "", 2, 2, nimbus_fold_mul, nimbus_build_mul},
    {"Div", "", 2, 2, nimbus_fold_div, nimbus_build_div},
    {"Sum", "", 1, ANY, NULL, nimbus_build_sum},
    /* the same values in another shape */
    {"Identity", "", 1, 1, nimbus_fold_identity, nimbus_build_identity},
    {"Dropout", "ratio seed", 1, 3, nimbus_fold_identity, nimbus_build_dropout},
    {"Cast", "to saturate", 1, 1, nimbus_fold_cast, nimbus_build_cast},
    {"Flatten", "axis", 1, 1, NULL, nimbus_build_flatten},
    {"Reshape", "allowzero", 2, 2, nimbus_fold_reshape, nimbus_build_reshape},
    {"Squeeze", "axes", 1, 2, nimbus_fold_squeeze, nimbus_build_squeeze},
    {"Unsqueeze", "axes", 1, 2, nimbus_fold_unsqueeze, nimbus_build_unsqueeze},
    {"Transpose", "perm", 1, 1, nimbus_fold_transpose, nimbus_build_transpose},
    {"Concat", "axis", 1, ANY, nimbus_fold_concat, nimbus_build_concat},
    /* constants and shapes only */
    {"Constant", "value value_float value_floats value_int value_ints", 0, 0, nimbus_fold_constant,
     NULL},
    {"ConstantOfShape", "value", 1, 1, nimbus_fold_constant_of_shape, NULL},
    {"Shape", "end start", 1, 1, nimbus_fold_shape, nimbus_build_shape},
    {"Gather", "axis", 2, 2, nimbus_fold_gather, NULL},
    {"Slice", "axes ends starts", 1, 5, nimbus_fold_slice, NULL},
};

static const nimbus_operator *find_operator(const Nimbus__NodeProto *p)
{
    const char *domain = p->domain ? p->domain : "";
    if (!p->op_type || (*domain && strcmp(domain, "ai.onnx") != 0))
        return NULL;
    for (size_t k = 0; k < sizeof operators / sizeof *operators; k++)
        if (strcmp(operators[k].name, p->op_type) == 0)
            return &operators[k];
    return NULL;
}

static bool is_word_of(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (; *words; words += strspn(words, " ")) {
        size_t n = strcspn(words, " ");
        if (n == length && memcmp(words, word, n) == 0)
            return true;
        words += n;
    }
    return false;
}

static nimbus_status check_attributes(const nimbus_import_node *n, nimbus_error *error)
{
    for (size_t k = 0; k < n->proto->n_attribute; k++) {
        const Nimbus__AttributeProto *a = n->proto->attribute[k];
        char name[40];
        nimbus_import_printable(name, sizeof name, a->name ? a->name : "");
        if (!a->name || !is_word_of(n->op->attributes, a->name))
            return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error, "unsupported attribute '%s'",
                                    name);
        if (a->ref_attr_name && *a->ref_attr_name)
            return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                                    "attribute '%s' refers to a function's, outside of one", name);
        if (nimbus_node_attribute(n, a->name) != a)
            return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "two attributes '%s'", name);
    }
    return NIMBUS_OK;
}

/* Reads an initialiser when it is first asked for. */
static nimbus_status make_ready(nimbus_importer *im, nimbus_import_value *v, nimbus_error *error)
{
    if (v->kind != VALUE_UNKNOWN || !v->tensor)
        return NIMBUS_OK;
    nimbus_status status = nimbus_tensor_read(im, v->tensor, &v->constant, error);
    if (status == NIMBUS_OK)
        v->kind = VALUE_CONSTANT;
    return status;
}

nimbus_status nimbus_node_run(nimbus_importer *im, nimbus_import_node *n, nimbus_error *error)
{
    bool all_constant = true;
    n->op = find_operator(n->proto);
    if (!n->op)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error, "unsupported operator%s",
                                n->proto->domain && *n->proto->domain ? " of another domain" : "");
    if (n->n_inputs < n->op->min_inputs || n->n_inputs > n->op->max_inputs)
        return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "%zu inputs, expected %zu to %zu",
                                n->n_inputs, n->op->min_inputs, n->op->max_inputs);
    nimbus_status status = check_attributes(n, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < n->n_inputs && status == NIMBUS_OK; k++) {
        nimbus_import_value *v = nimbus_node_input(im, n, k);
        if (!v && k < n->op->min_inputs)
            return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "input %zu is left out", k);
        if (!v)
            continue;
        status = make_ready(im, v, error);
        all_constant = all_constant && v->kind == VALUE_CONSTANT;
    }
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    if (all_constant && !n->op->fold)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "its inputs are constants, expected what depends on the net's "
                                "input");
    if (!all_constant && !n->op->build)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "works on what depends on the net's input, expected constants");
    return (all_constant ? n->op->fold : n->op->build)(im, n, error);
}
