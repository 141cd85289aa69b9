/* op_layout.c - operators that keep the values: reshape, transpose, squeeze, flatten, concat, ...
 */
#include <inttypes.h>
#include <string.h>

#include "import/import.h"

/* Input 0 of any type: these operators move bytes as well as floats. */
static nimbus_view input_view(nimbus_importer *im, const nimbus_import_node *n)
{
    return nimbus_node_input(im, n, 0)->view;
}

/* Input 0 must be the one that depends on the net's input; others have been constants. */
static nimbus_status need_view(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    if (nimbus_node_input(im, n, 0)->kind == VALUE_VIEW)
        return NIMBUS_OK;
    return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                            "input 0 is a constant, but another input is not");
}

nimbus_status nimbus_build_identity(nimbus_importer *im, const nimbus_import_node *n,
                                    nimbus_error *error)
{
    nimbus_status status = need_view(im, n, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view v = input_view(im, n);
    nimbus_node_set_view(im, n, &v);
    return NIMBUS_OK;
}

nimbus_status nimbus_build_dropout(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    const nimbus_constant *training;
    nimbus_status status = nimbus_node_constant(im, n, 2, false, &training, error);
    if (status == NIMBUS_OK && training && (training->n != 1 || training->i[0]))
        status = nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                  "is in training mode; export the model for inference");
    return status == NIMBUS_OK ? nimbus_build_identity(im, n, error) : status;
}

nimbus_status nimbus_build_cast(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    nimbus_view v = input_view(im, n);
    int64_t to = 0;
    nimbus_status status = nimbus_node_int(n, "to", &to, error);
    if (status != NIMBUS_OK)
        return status;
    switch (to) {
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__FLOAT:
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__FLOAT16:
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__DOUBLE:
        v.bytes = false;
        break;
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__UINT8:
        if (v.bytes)
            break; /* fall through */
    default:
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "casts to data type %" PRId64 ", expected floats", to);
    }
    nimbus_node_set_view(im, n, &v);
    return NIMBUS_OK;
}

/* ---- dimensions ---------------------------------------------------------------------------- */

/* Sets new dimensions; dims[0] is N. */
static nimbus_status set_dims(nimbus_importer *im, const nimbus_import_node *n, size_t rank,
                              const size_t *dims, nimbus_error *error)
{
    nimbus_view v = input_view(im, n);
    size_t width = nimbus_view_width(&v), product = 1;
    for (size_t k = 1; k < rank; k++)
        if (nimbus_mul_overflows(product, dims[k], &product))
            product = SIZE_MAX;
    if (product != width)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "makes rows of %zu values of rows of %zu", product, width);
    memset(v.dims, 0, sizeof v.dims);
    memcpy(v.dims + 1, dims + 1, (rank - 1) * sizeof *dims);
    v.rank = rank;
    nimbus_node_set_view(im, n, &v);
    return NIMBUS_OK;
}

nimbus_status nimbus_build_flatten(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    nimbus_view v = input_view(im, n);
    int64_t axis = 1;
    nimbus_status status = nimbus_node_int(n, "axis", &axis, error);
    if (status != NIMBUS_OK)
        return status;
    axis += axis < 0 ? (int64_t)v.rank : 0;
    if (axis < 0 || axis > (int64_t)v.rank)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "axis %" PRId64 " of an array of %zu dimensions", axis, v.rank);
    bool rows_alone = axis > 0;
    for (int64_t k = 1; k < axis; k++)
        rows_alone = rows_alone && v.dims[k] == 1;
    if (!rows_alone)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "axis %" PRId64 " mixes rows with what is in them", axis);
    return set_dims(im, n, 2, (const size_t[]){0, nimbus_view_width(&v)}, error);
}

/* Whether the first of the new dimensions is the number of rows. rest: product of the others, 0 if
 * one of them is left open. */
static bool is_rows(const nimbus_importer *im, const nimbus_constant *to, bool copies_zero,
                    size_t rest, size_t width)
{
    if (to->rows && to->rows[0])
        return to->i[0] == 1;
    if (to->i[0] == 0)
        return copies_zero;
    if (to->i[0] == -1)
        return rest == width;
    return im->fixed_rows > 0 && (uint64_t)to->i[0] == im->fixed_rows;
}

nimbus_status nimbus_build_reshape(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    const nimbus_constant *to;
    int64_t allow_zero = 0;
    size_t dims[IMPORT_RANK] = {0}, rest = 1, open = SIZE_MAX;
    nimbus_status status = need_view(im, n, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "allowzero", &allow_zero, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, 1, false, &to, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view v = input_view(im, n);
    if (to->rank != 1 || to->n < 1 || to->n > IMPORT_RANK)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "%zu new dimensions, expected a list of 1 to %d", to->n,
                                IMPORT_RANK);
    for (size_t k = 1; k < to->n; k++) {
        int64_t side = to->i[k];
        if (to->rows && to->rows[k])
            return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                    "new dimension %zu depends on the number of rows", k);
        if (side < -1 || (side == -1 && (open != SIZE_MAX || to->i[0] == -1)) ||
            (side == 0 && (allow_zero || k >= v.rank)))
            return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "new dimension %zu is %" PRId64, k,
                                    side);
        dims[k] = side == 0 ? v.dims[k] : (size_t)side;
        if (side == -1)
            open = k;
        else if (nimbus_mul_overflows(rest, dims[k], &rest))
            return nimbus_node_fail(n, NIMBUS_ERR_LIMIT, error, "more values than can be counted");
    }
    size_t width = nimbus_view_width(&v);
    if (!is_rows(im, to, !allow_zero, open == SIZE_MAX ? rest : 0, width))
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "new dimension 0 is %" PRId64 "%s, expected the number of rows",
                                to->i[0], to->rows && to->rows[0] ? " times their number" : "");
    if (open != SIZE_MAX)
        dims[open] = rest > 0 ? width / rest : 0;
    return set_dims(im, n, to->n, dims, error);
}

nimbus_status nimbus_build_squeeze(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    const int64_t *axes;
    size_t count, rank = 1, dims[IMPORT_RANK] = {0};
    bool drop[IMPORT_RANK] = {false};
    nimbus_status status = need_view(im, n, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_list(im, n, 1, "axes", &axes, &count, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view v = input_view(im, n);
    for (size_t k = 0; k < count; k++) {
        size_t axis;
        status = nimbus_node_axis(n, axes[k], v.rank, &axis, error);
        if (status != NIMBUS_OK)
            return status;
        if (axis == 0 || v.dims[axis] != 1)
            return nimbus_node_fail(n, axis == 0 ? NIMBUS_ERR_UNSUPPORTED : NIMBUS_ERR_MISMATCH,
                                    error, "drops dimension %zu, which is %s", axis,
                                    axis == 0 ? "the number of rows" : "not 1");
        drop[axis] = true;
    }
    if (!axes && im->fixed_rows == 1)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "drops every dimension of 1, the number of rows as well");
    for (size_t k = 1; k < v.rank; k++)
        if (axes ? !drop[k] : v.dims[k] != 1)
            dims[rank++] = v.dims[k];
    return set_dims(im, n, rank, dims, error);
}

nimbus_status nimbus_build_unsqueeze(nimbus_importer *im, const nimbus_import_node *n,
                                     nimbus_error *error)
{
    const int64_t *axes;
    size_t count, dims[IMPORT_RANK] = {0};
    bool added[IMPORT_RANK] = {false};
    nimbus_status status = need_view(im, n, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_list(im, n, 1, "axes", &axes, &count, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view v = input_view(im, n);
    size_t rank = v.rank + count;
    if (rank > IMPORT_RANK)
        return nimbus_node_fail(n, NIMBUS_ERR_LIMIT, error, "%zu dimensions, the limit is %d", rank,
                                IMPORT_RANK);
    for (size_t k = 0; k < count; k++) {
        size_t axis;
        status = nimbus_node_axis(n, axes[k], rank, &axis, error);
        if (status != NIMBUS_OK)
            return status;
        if (axis == 0 || added[axis])
            return nimbus_node_fail(n, axis == 0 ? NIMBUS_ERR_UNSUPPORTED : NIMBUS_ERR_FORMAT,
                                    error, "adds axis %zu%s", axis,
                                    axis == 0 ? ", before the rows" : " twice");
        added[axis] = true;
    }
    for (size_t k = 1, from = 1; k < rank; k++)
        dims[k] = added[k] ? 1 : v.dims[from++];
    return set_dims(im, n, rank, dims, error);
}

nimbus_status nimbus_build_transpose(nimbus_importer *im, const nimbus_import_node *n,
                                     nimbus_error *error)
{
    nimbus_view v = input_view(im, n);
    size_t count, order[IMPORT_RANK];
    const int64_t *perm;
    unsigned seen = 0;
    nimbus_status status = nimbus_node_ints(n, "perm", &perm, &count, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < v.rank; k++) {
        int64_t axis = perm && k < count ? perm[k] : (int64_t)(v.rank - 1 - k);
        if ((perm && count != v.rank) || axis < 0 || axis >= (int64_t)v.rank || (seen & 1u << axis))
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                    "perm is no order of the %zu dimensions", v.rank);
        if ((k == 0) != (axis == 0))
            return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                    "moves the rows from their place at the front");
        seen |= 1u << axis;
        if (k > 0)
            order[k - 1] = (size_t)axis - 1;
    }
    status = nimbus_view_transpose(im, n, &v, order, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &v);
    return status;
}

/* ---- concat -------------------------------------------------------------------------------- */

/* Whether all inputs have the same transposition put off, and it has `axis` first. */
static bool joins_in_base(nimbus_importer *im, const nimbus_import_node *n, size_t axis)
{
    const nimbus_view *first = &nimbus_node_input(im, n, 0)->view;
    size_t base_axis[IMPORT_RANK];
    if (first->n_axes != 3 || !nimbus_view_axes(first, base_axis) || base_axis[axis - 1] != 0)
        return false;
    for (size_t k = 0; k < n->n_inputs; k++) {
        const nimbus_view *v = &nimbus_node_input(im, n, k)->view;
        nimbus_shape have = im->drafts[v->layer].proto.shape;
        if (v->n_axes != 3 || !nimbus_view_axes(v, base_axis) ||
            memcmp(v->order, first->order, 3 * sizeof *v->order) != 0 ||
            have.channels != v->base[0] || have.height != v->base[1] || have.width != v->base[2])
            return false;
    }
    return true;
}

/* Adds concat layers over the layers given, as many at a time as one can read. */
static nimbus_status join(nimbus_importer *im, const nimbus_import_node *n, const size_t *layers,
                          size_t *out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    size_t at = 1;
    *out = layers[0];
    while (at < n->n_inputs && status == NIMBUS_OK) {
        nimbus_draft draft = {
            .proto = {.type = &nimbus_layer_concat, .shape = im->drafts[*out].proto.shape},
            .n_inputs = 1,
            .inputs = {*out}};
        for (; at < n->n_inputs && draft.n_inputs < NIMBUS_MAX_LAYER_INPUTS; at++) {
            draft.inputs[draft.n_inputs++] = layers[at];
            draft.proto.shape.channels += im->drafts[layers[at]].proto.shape.channels;
        }
        status = nimbus_draft_add(im, n, &draft, out, error);
    }
    return status;
}

static nimbus_status check_concat(nimbus_importer *im, const nimbus_import_node *n, size_t *axis,
                                  size_t *side, nimbus_error *error)
{
    const nimbus_view *first = &nimbus_node_input(im, n, 0)->view;
    int64_t given = 0;
    *side = 0;
    for (size_t k = 0; k < n->n_inputs; k++) {
        nimbus_view v;
        nimbus_status status = nimbus_node_view(im, n, k, &v, error);
        if (status == NIMBUS_OK && k == 0)
            status = nimbus_node_int(n, "axis", &given, error);
        if (status == NIMBUS_OK && k == 0)
            status = nimbus_node_axis(n, given, v.rank, axis, error);
        if (status != NIMBUS_OK)
            return status;
        bool same = v.rank == first->rank;
        for (size_t j = 1; same && j < v.rank; j++)
            same = j == *axis || v.dims[j] == first->dims[j];
        if (!same)
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                    "the dimensions of input %zu do not fit those of input 0", k);
        *side += v.dims[*axis];
    }
    if (*axis == 0)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error, "joins rows");
    return NIMBUS_OK;
}

nimbus_status nimbus_build_concat(nimbus_importer *im, const nimbus_import_node *n,
                                  nimbus_error *error)
{
    size_t axis = 0, side = 0, *layers = NULL;
    nimbus_status status = check_concat(im, n, &axis, &side, error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, n->n_inputs, sizeof *layers, (void *)&layers, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view out = input_view(im, n);
    bool in_base = joins_in_base(im, n, axis);
    for (size_t k = 0; k < n->n_inputs && status == NIMBUS_OK; k++) {
        nimbus_view v = nimbus_node_input(im, n, k)->view;
        bool done = true;
        if (!in_base)
            status = nimbus_view_settle(im, n, &v, error);
        if (!in_base && status == NIMBUS_OK)
            status = nimbus_view_as_channels(im, n, &v, axis, &done, error);
        if (status == NIMBUS_OK && !done)
            status = nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                      "joins along dimension %zu, expected the channels", axis);
        layers[k] = v.layer;
    }
    if (status == NIMBUS_OK)
        status = join(im, n, layers, &out.layer, error);
    nimbus_free(layers);
    if (status != NIMBUS_OK)
        return status;
    out.dims[axis] = side;
    if (in_base)
        out.base[0] = side;
    else
        out.n_axes = 0;
    nimbus_node_set_view(im, n, &out);
    return NIMBUS_OK;
}
