/* op_element.c - activations, and softmax */
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "import/import.h"

/* A layer that works on every element alone. */
static nimbus_status build_element(nimbus_importer *im, const nimbus_import_node *n,
                                   const nimbus_draft *draft, nimbus_error *error)
{
    nimbus_view v;
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_draft_element(im, n, draft, &v, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &v);
    return status;
}

static nimbus_status build_type(nimbus_importer *im, const nimbus_import_node *n,
                                const nimbus_layer_type *type, nimbus_error *error)
{
    return build_element(im, n, &(nimbus_draft){.proto.type = type}, error);
}

nimbus_status nimbus_build_relu(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    return build_type(im, n, &nimbus_layer_relu, error);
}

nimbus_status nimbus_build_sigmoid(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    return build_type(im, n, &nimbus_layer_sigmoid, error);
}

nimbus_status nimbus_build_tanh(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    return build_type(im, n, &nimbus_layer_tanh, error);
}

nimbus_status nimbus_build_hard_swish(nimbus_importer *im, const nimbus_import_node *n,
                                      nimbus_error *error)
{
    return build_type(im, n, &nimbus_layer_hard_swish, error);
}

nimbus_status nimbus_build_gelu(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    static const char *const forms[] = {"none", NULL};
    size_t form = 0;
    nimbus_status status = nimbus_node_word(n, "approximate", forms, &form, error);
    return status == NIMBUS_OK ? build_type(im, n, &nimbus_layer_gelu, error) : status;
}

nimbus_status nimbus_build_erf(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    return build_element(im, n, &(nimbus_draft){.kind = DRAFT_ERF}, error);
}

nimbus_status nimbus_build_hard_sigmoid(nimbus_importer *im, const nimbus_import_node *n,
                                        nimbus_error *error)
{
    nimbus_draft draft = {
        .proto = {.type = &nimbus_layer_hard_sigmoid, .number = (double)0.2f, .number2 = 0.5}};
    nimbus_status status = nimbus_node_float(n, "alpha", &draft.proto.number, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "beta", &draft.proto.number2, error);
    return status == NIMBUS_OK ? build_element(im, n, &draft, error) : status;
}

/* Takes over the bounds of a relu or clip in front; returns the layer to be read then. */
static size_t join_bounds(const nimbus_importer *im, size_t layer, double *low, double *high)
{
    const nimbus_draft *d = &im->drafts[layer];
    bool relu = d->kind == DRAFT_LAYER && d->proto.type == &nimbus_layer_relu;
    bool clip = d->kind == DRAFT_LAYER && d->proto.type == &nimbus_layer_clip;
    double least = relu ? 0 : d->proto.number, most = relu ? (double)FLT_MAX : d->proto.number2;
    if ((!relu && !clip) || fmax(*low, least) > fmin(*high, most))
        return layer;
    *low = fmax(*low, least);
    *high = fmin(*high, most);
    return d->inputs[0];
}

/* Bounds are attributes before opset 11, then inputs; each may be left out. */
nimbus_status nimbus_build_clip(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    double low = -(double)FLT_MAX, high = (double)FLT_MAX;
    nimbus_draft draft = {.proto.type = &nimbus_layer_clip};
    nimbus_view v;
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "min", &low, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "max", &high, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_scalar(im, n, 1, &low, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_scalar(im, n, 2, &high, error);
    if (status != NIMBUS_OK)
        return status;
    if (!(low <= high))
        return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "clips to %g .. %g", low, high);
    low = fmax(low, -(double)FLT_MAX);
    high = fmin(high, (double)FLT_MAX);
    if (high == (double)FLT_MAX && low == -(double)FLT_MAX)
        return nimbus_build_identity(im, n, error);
    v.layer = join_bounds(im, v.layer, &low, &high);
    draft.proto.number = low;
    draft.proto.number2 = high;
    if (high == (double)FLT_MAX && low == 0)
        draft.proto = (nimbus_layer){.type = &nimbus_layer_relu};
    status = nimbus_draft_element(im, n, &draft, &v, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &v);
    return status;
}

/* Before opset 13 a softmax goes over all dimensions from its axis on. */
static nimbus_status build_softmax(nimbus_importer *im, const nimbus_import_node *n,
                                   const nimbus_draft *draft, nimbus_error *error)
{
    nimbus_view v;
    int64_t given = im->opset < 13 ? 1 : -1;
    size_t axis, before = 1;
    bool done = true;
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "axis", &given, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_axis(n, given, v.rank, &axis, error);
    if (status != NIMBUS_OK)
        return status;
    if (axis == 0)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error, "goes over the rows");
    for (size_t k = 1; k < axis; k++)
        before *= v.dims[k];
    if (im->opset >= 13)
        status = nimbus_view_as_channels(im, n, &v, axis, &done, error);
    else if ((done = before == 1))
        status =
            nimbus_view_give_shape(im, n, &v, (nimbus_shape){nimbus_view_width(&v), 1, 1}, error);
    if (status == NIMBUS_OK && !done)
        status = nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                  "goes over dimension %zu, expected the channels", axis);
    if (status == NIMBUS_OK)
        status = nimbus_draft_element(im, n, draft, &v, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &v);
    return status;
}

nimbus_status nimbus_build_softmax(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    return build_softmax(im, n, &(nimbus_draft){.proto.type = &nimbus_layer_softmax}, error);
}

nimbus_status nimbus_build_log_softmax(nimbus_importer *im, const nimbus_import_node *n,
                                       nimbus_error *error)
{
    return build_softmax(im, n, &(nimbus_draft){.kind = DRAFT_LOG_SOFTMAX}, error);
}
