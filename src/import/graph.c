/* graph.c - names, order and kinds of a model's values and nodes; what the output needs
 *
 * ONNX wants nodes in an order in which each reads what earlier ones made. A graph that is not in
 * such an order, or has cycles, is refused; so everything else is loops from first to last. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/import.h"

static const char *text_of(const char *text)
{
    return text ? text : "";
}

/* ---- values and their names ---------------------------------------------------------------- */

static nimbus_status count_values(nimbus_importer *im, size_t *most, nimbus_error *error)
{
    const Nimbus__GraphProto *g = im->graph;
    size_t n = g->n_input + g->n_initializer;
    for (size_t k = 0; k < g->n_node; k++)
        n += g->node[k]->n_output;
    *most = n;
    if (n <= IMPORT_MAX_NAMES && g->n_node <= IMPORT_MAX_NAMES)
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu values and %zu nodes, the limit is %u", n,
                       g->n_node, IMPORT_MAX_NAMES);
}

static void add_value(nimbus_importer *im, nimbus_import_value value)
{
    if (value.name && *value.name)
        im->values[im->n_values++] = value;
}

static void list_values(nimbus_importer *im)
{
    const Nimbus__GraphProto *g = im->graph;
    for (size_t k = 0; k < g->n_initializer; k++)
        add_value(im, (nimbus_import_value){.name = g->initializer[k]->name,
                                            .tensor = g->initializer[k],
                                            .maker = SIZE_MAX});
    for (size_t k = 0; k < g->n_input; k++)
        add_value(im, (nimbus_import_value){
                          .name = g->input[k]->name, .input = g->input[k], .maker = SIZE_MAX});
    for (size_t k = 0; k < g->n_node; k++)
        for (size_t j = 0; j < g->node[k]->n_output; j++)
            add_value(im,
                      (nimbus_import_value){.name = g->node[k]->output[j], .maker = k, .slot = j});
}

/* A name and where it stands in the list of values: qsort has no argument for the list. */
struct named {
    const char *name;
    size_t index;
};

static int compare_names(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

/* Sorts the names and refuses those that stand for two things. An initialiser may be listed among
 * the inputs too, as old models must: then the input is no input. */
static nimbus_status sort_names(nimbus_importer *im, nimbus_error *error)
{
    struct named *names;
    nimbus_status status =
        nimbus_import_alloc(im, im->n_values, sizeof *names, (void *)&names, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < im->n_values; k++)
        names[k] = (struct named){im->values[k].name, k};
    qsort(names, im->n_values, sizeof *names, compare_names);
    for (size_t k = 0; k < im->n_values && status == NIMBUS_OK; k++) {
        im->by_name[k] = names[k].index;
        if (k == 0 || strcmp(names[k - 1].name, names[k].name) != 0)
            continue;
        const nimbus_import_value *first = &im->values[names[k - 1].index];
        nimbus_import_value *second = &im->values[names[k].index];
        if (first->tensor && second->input) {
            second->input = NULL; /* the search finds the first of both */
            continue;
        }
        char name[64];
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT, "two values have the name '%s'",
                             nimbus_import_printable(name, sizeof name, second->name));
    }
    nimbus_free(names);
    return status;
}

/* The first value of this name; SIZE_MAX: there is none. */
static size_t find_value(const nimbus_importer *im, const char *name)
{
    size_t from = 0, to = im->n_values;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (strcmp(im->values[im->by_name[middle]].name, name) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    if (from == im->n_values || strcmp(im->values[im->by_name[from]].name, name) != 0)
        return SIZE_MAX;
    return im->by_name[from];
}

/* ---- nodes --------------------------------------------------------------------------------- */

static void set_label(nimbus_import_node *n)
{
    char name[48], type[32];
    const Nimbus__NodeProto *p = n->proto;
    const char *own = text_of(p->name), *made = p->n_output > 0 ? text_of(p->output[0]) : "";
    nimbus_import_printable(name, sizeof name, *own ? own : made);
    nimbus_import_printable(type, sizeof type, text_of(p->op_type));
    (void)snprintf(n->label, sizeof n->label, "%s (%s)", name, type);
}

static nimbus_status resolve_inputs(nimbus_importer *im, size_t index, nimbus_error *error)
{
    nimbus_import_node *n = &im->nodes[index];
    n->n_inputs = n->proto->n_input;
    nimbus_status status =
        nimbus_import_alloc(im, n->n_inputs, sizeof *n->inputs, (void *)&n->inputs, error);
    for (size_t k = 0; k < n->n_inputs && status == NIMBUS_OK; k++) {
        char name[64];
        n->inputs[k] = SIZE_MAX;
        if (!*text_of(n->proto->input[k]))
            continue;
        n->inputs[k] = find_value(im, n->proto->input[k]);
        nimbus_import_printable(name, sizeof name, n->proto->input[k]);
        if (n->inputs[k] == SIZE_MAX)
            status = nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                                      "input '%s' is made by no node and is no input of the graph",
                                      name);
        else if (im->values[n->inputs[k]].maker != SIZE_MAX &&
                 im->values[n->inputs[k]].maker >= index)
            status = nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                                      "input '%s' is made only later, by node %s: a cycle, or an "
                                      "order that ONNX does not allow",
                                      name, im->nodes[im->values[n->inputs[k]].maker].label);
    }
    return status;
}

static nimbus_status list_nodes(nimbus_importer *im, nimbus_error *error)
{
    const Nimbus__GraphProto *g = im->graph;
    nimbus_status status = NIMBUS_OK;
    im->n_nodes = g->n_node;
    for (size_t k = 0; k < im->n_nodes; k++) {
        im->nodes[k] = (nimbus_import_node){.proto = g->node[k], .output = SIZE_MAX};
        set_label(&im->nodes[k]);
    }
    for (size_t k = 0; k < im->n_values; k++)
        if (im->values[k].maker != SIZE_MAX && im->values[k].slot == 0)
            im->nodes[im->values[k].maker].output = k;
    for (size_t k = 0; k < im->n_nodes && status == NIMBUS_OK; k++)
        status = resolve_inputs(im, k, error);
    return status;
}

/* Counts a use of a value, which its maker must be able to give. */
static nimbus_status use_value(nimbus_importer *im, size_t value, nimbus_error *error)
{
    nimbus_import_value *v = &im->values[value];
    v->n_uses++;
    if (v->maker == SIZE_MAX)
        return NIMBUS_OK;
    im->nodes[v->maker].needed = true;
    if (v->slot == 0)
        return NIMBUS_OK;
    return nimbus_node_fail(&im->nodes[v->maker], NIMBUS_ERR_UNSUPPORTED, error,
                            "its output %zu is used, only the first can be", v->slot);
}

static nimbus_status mark_needed(nimbus_importer *im, nimbus_error *error)
{
    nimbus_status status = use_value(im, im->output, error);
    for (size_t k = im->n_nodes; k-- > 0 && status == NIMBUS_OK;)
        for (size_t j = 0; im->nodes[k].needed && j < im->nodes[k].n_inputs; j++)
            if (im->nodes[k].inputs[j] != SIZE_MAX && status == NIMBUS_OK)
                status = use_value(im, im->nodes[k].inputs[j], error);
    return status;
}

nimbus_status nimbus_graph_open(nimbus_importer *im, nimbus_error *error)
{
    const Nimbus__GraphProto *g = im->graph;
    size_t most;
    nimbus_status status = count_values(im, &most, error);
    if (status == NIMBUS_OK && g->n_sparse_initializer > 0)
        status = nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "the model has sparse initialisers");
    if (status == NIMBUS_OK && g->n_output != 1)
        status = nimbus_fail(error, g->n_output ? NIMBUS_ERR_UNSUPPORTED : NIMBUS_ERR_FORMAT,
                             "the graph has %zu outputs, expected 1", g->n_output);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, most, sizeof *im->values, (void *)&im->values, error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, most, sizeof *im->by_name, (void *)&im->by_name, error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, g->n_node, sizeof *im->nodes, (void *)&im->nodes, error);
    if (status != NIMBUS_OK)
        return status;
    list_values(im);
    status = sort_names(im, error);
    if (status == NIMBUS_OK)
        status = list_nodes(im, error);
    if (status != NIMBUS_OK)
        return status;
    im->output = find_value(im, text_of(g->output[0]->name));
    if (im->output == SIZE_MAX) {
        char name[64];
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the graph's output '%s' is made by no node",
                           nimbus_import_printable(name, sizeof name, text_of(g->output[0]->name)));
    }
    return mark_needed(im, error);
}

void nimbus_graph_close(nimbus_importer *im)
{
    for (size_t k = 0; k < im->n_values; k++)
        nimbus_constant_free(&im->values[k].constant);
    for (size_t k = 0; k < im->n_nodes; k++)
        nimbus_free(im->nodes[k].inputs);
    nimbus_free(im->values);
    nimbus_free(im->by_name);
    nimbus_free(im->nodes);
    nimbus_free(im->external);
}

/* ---- the input and the output -------------------------------------------------------------- */

/* The type of an array; NULL if it is no array or has no dimensions. */
static const Nimbus__TypeProto__Tensor *array_type(const Nimbus__ValueInfoProto *info)
{
    const Nimbus__TypeProto *type = info->type;
    if (!type || type->value_case != NIMBUS__TYPE_PROTO__VALUE_TENSOR_TYPE || !type->tensor_type ||
        !type->tensor_type->shape)
        return NULL;
    return type->tensor_type;
}

static int64_t dim_of(const Nimbus__TypeProto__Tensor *type, size_t k)
{
    const Nimbus__TensorShapeProto__Dimension *dim = type->shape->dim[k];
    bool given = dim->value_case == NIMBUS__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    return given ? dim->dim_value : -1;
}

/* Follows the only uses of the input through operators that work on every element alone. True if
 * a transposition from height x width x channels to channels x height x width stands there. */
static bool leads_to_planar(const nimbus_importer *im, size_t value)
{
    static const char *const passed[] = {"Cast", "Sub", "Add", "Mul", "Div", "Identity"};
    static const int64_t planar[] = {0, 3, 1, 2};
    for (size_t k = 0; k < im->n_nodes; k++) {
        const nimbus_import_node *n = &im->nodes[k];
        bool reads = false, passes = false;
        for (size_t j = 0; j < n->n_inputs; j++)
            reads = reads || n->inputs[j] == value;
        if (!n->needed || !reads)
            continue;
        if (strcmp(text_of(n->proto->op_type), "Transpose") == 0) {
            const Nimbus__AttributeProto *perm = nimbus_node_attribute(n, "perm");
            return perm && perm->n_ints == 4 && memcmp(perm->ints, planar, sizeof planar) == 0;
        }
        for (size_t j = 0; j < sizeof passed / sizeof *passed; j++)
            passes = passes || strcmp(text_of(n->proto->op_type), passed[j]) == 0;
        if (!passes || im->values[value].n_uses != 1 || n->output == SIZE_MAX)
            return false;
        value = n->output;
    }
    return false;
}

static nimbus_status check_input(const nimbus_import_value *v, char name[64],
                                 const Nimbus__TypeProto__Tensor **out, nimbus_error *error)
{
    const Nimbus__TypeProto__Tensor *type = *out = array_type(v->input);
    nimbus_import_printable(name, 64, v->name);
    if (!type)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "input '%s' is no array with dimensions",
                           name);
    switch (type->elem_type) {
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__FLOAT:
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__FLOAT16:
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__DOUBLE:
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__UINT8:
        break;
    default:
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "input '%s' has data type %d, expected floats or uint8", name,
                           (int)type->elem_type);
    }
    if (type->shape->n_dim < 2 || type->shape->n_dim > 4)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "input '%s' has %zu dimensions, expected 2 to 4: rows first", name,
                           type->shape->n_dim);
    for (size_t k = 1; k < type->shape->n_dim; k++)
        if (dim_of(type, k) < 1 || dim_of(type, k) > (int64_t)NIMBUS_MAX_WIDTH)
            return nimbus_fail(error,
                               dim_of(type, k) < 1 ? NIMBUS_ERR_UNSUPPORTED : NIMBUS_ERR_LIMIT,
                               "dimension %zu of input '%s' is not given as 1 to %u: only the "
                               "number of rows may be left open",
                               k, name, NIMBUS_MAX_WIDTH);
    return NIMBUS_OK;
}

/* The only input that is no initialiser. */
static nimbus_status find_input(nimbus_importer *im, size_t *out, nimbus_error *error)
{
    size_t n = 0;
    *out = SIZE_MAX;
    for (size_t k = 0; k < im->n_values; k++)
        if (im->values[k].input && n++ == 0)
            *out = k;
    if (n == 1)
        return NIMBUS_OK;
    return nimbus_fail(error, n ? NIMBUS_ERR_UNSUPPORTED : NIMBUS_ERR_FORMAT,
                       "the graph has %zu inputs that are no initialisers, expected 1", n);
}

/* The caller's mean and standard deviation, per channel or the same for all, as parameters. */
static nimbus_status set_normalisation(nimbus_importer *im, nimbus_draft *d, nimbus_error *error)
{
    const nimbus_import_options *o = im->options;
    size_t channels = d->proto.shape.channels, positions = d->proto.shape.height;
    size_t n = channels * (positions *= d->proto.shape.width), given = o->n_input_channels;
    if ((o->input_mean || o->input_std) && given != 1 && given != channels)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "mean and standard deviation of %zu channels, the input has %zu", given,
                           channels);
    for (size_t k = 0; k < given; k++)
        if ((o->input_mean && !isfinite(o->input_mean[k])) ||
            (o->input_std && !(o->input_std[k] > 0 && isfinite(1 / o->input_std[k]))))
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "channel %zu: the mean is no number, or the standard deviation is "
                               "not above 0",
                               k);
    for (size_t j = 0; j < 2; j++) {
        nimbus_status status = nimbus_import_alloc(im, n, sizeof(float), &d->values[j], error);
        if (status != NIMBUS_OK)
            return status;
        d->n_values[j] = n;
    }
    for (size_t i = 0; i < n; i++) {
        size_t k = given == 1 ? 0 : i / positions;
        d->values[0][i] = o->input_mean ? o->input_mean[k] : 0;
        d->values[1][i] = o->input_std ? 1 / o->input_std[k] : 1;
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_graph_input(nimbus_importer *im, nimbus_error *error)
{
    const Nimbus__TypeProto__Tensor *type;
    nimbus_draft draft = {.proto.type = &nimbus_layer_input};
    nimbus_view view = {0};
    char name[64];
    size_t index;
    nimbus_status status = find_input(im, &index, error);
    if (status == NIMBUS_OK)
        status = check_input(&im->values[index], name, &type, error);
    if (status != NIMBUS_OK)
        return status;
    view.rank = type->shape->n_dim;
    view.bytes = type->elem_type == NIMBUS__TENSOR_PROTO__DATA_TYPE__UINT8;
    for (size_t k = 1; k < view.rank; k++)
        view.dims[k] = (size_t)dim_of(type, k);
    im->fixed_rows = dim_of(type, 0) > 0 ? (size_t)dim_of(type, 0) : 0;
    if (im->fixed_rows > 0)
        status = nimbus_import_note(im, error,
                                    "the model is made for %zu row%s at a time; the net "
                                    "takes any number",
                                    im->fixed_rows, im->fixed_rows == 1 ? "" : "s");
    if (view.rank == 4 && leads_to_planar(im, index)) {
        view.n_axes = 3;
        memcpy(view.order, (const size_t[]){1, 2, 0}, 3 * sizeof(size_t));
        memcpy(view.base, (const size_t[]){view.dims[3], view.dims[1], view.dims[2]},
               3 * sizeof(size_t));
        draft.proto.shape = (nimbus_shape){view.base[0], view.base[1], view.base[2]};
        if (status == NIMBUS_OK)
            status = nimbus_import_note(im, error,
                                        "rows are read as channels x height x width, %zu x %zu x "
                                        "%zu; the model has channels last",
                                        view.base[0], view.base[1], view.base[2]);
    } else {
        draft.proto.shape = nimbus_view_shape(&view);
    }
    if (status == NIMBUS_OK)
        status = set_normalisation(im, &draft, error);
    if (status != NIMBUS_OK) {
        for (size_t k = 0; k < DRAFT_VALUES; k++)
            nimbus_free(draft.values[k]);
        return status;
    }
    status = nimbus_draft_add(im, NULL, &draft, &view.layer, error);
    im->values[index].kind = VALUE_VIEW;
    im->values[index].view = view;
    return status;
}

nimbus_status nimbus_graph_check_output(nimbus_importer *im, nimbus_error *error)
{
    const Nimbus__ValueInfoProto *info = im->graph->output[0];
    const Nimbus__TypeProto__Tensor *type = array_type(info);
    const nimbus_import_value *v = &im->values[im->output];
    char name[64];
    nimbus_import_printable(name, sizeof name, v->name);
    if (v->kind != VALUE_VIEW)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "the output '%s' does not depend on the net's input", name);
    if (!type)
        return NIMBUS_OK;
    if (type->shape->n_dim != v->view.rank)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the output '%s' has %zu dimensions, the model says %zu", name,
                           v->view.rank, type->shape->n_dim);
    for (size_t k = 1; k < v->view.rank; k++)
        if (dim_of(type, k) > 0 && (uint64_t)dim_of(type, k) != v->view.dims[k])
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "dimension %zu of the output '%s' is %zu, the model says %" PRId64,
                               k, name, v->view.dims[k], dim_of(type, k));
    return NIMBUS_OK;
}
