/* fold_layout.c - operators on constants that move elements: reshape, slice, gather, concat, ... */
#include <inttypes.h>
#include <string.h>

#include "import/fold.h"

/* ---- shapes -------------------------------------------------------------------------------- */

/* Dimensions first..end of an array as the node's result; rows: the first of them is N. */
static nimbus_status set_shape(nimbus_importer *im, const nimbus_import_node *n, size_t rank,
                               const size_t *dims, bool rows, nimbus_error *error)
{
    int64_t from = 0, to = (int64_t)rank;
    nimbus_constant out;
    nimbus_status status = nimbus_node_int(n, "start", &from, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "end", &to, error);
    if (status != NIMBUS_OK)
        return status;
    from = from < 0 ? from + (int64_t)rank : from;
    to = to < 0 ? to + (int64_t)rank : to;
    from = from < 0 ? 0 : from > (int64_t)rank ? (int64_t)rank : from;
    to = to < from ? from : to > (int64_t)rank ? (int64_t)rank : to;
    size_t count = (size_t)(to - from);
    nimbus_constant like = {.rows = rows ? &(bool){true} : NULL};
    status = nimbus_fold_new(im, &like, 1, &count, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < count; k++) {
        size_t axis = (size_t)from + k;
        out.i[k] = rows && axis == 0 ? 1 : (int64_t)dims[axis];
        if (rows)
            out.rows[k] = axis == 0;
    }
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_shape(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    return set_shape(im, n, in->rank, in->dims, false, error);
}

nimbus_status nimbus_build_shape(nimbus_importer *im, const nimbus_import_node *n,
                                 nimbus_error *error)
{
    const nimbus_view *v = &nimbus_node_input(im, n, 0)->view;
    return set_shape(im, n, v->rank, v->dims, true, error);
}

nimbus_status nimbus_fold_reshape(nimbus_importer *im, const nimbus_import_node *n,
                                  nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    const int64_t *sizes;
    size_t rank, dims[IMPORT_RANK], known = 1, open = SIZE_MAX;
    nimbus_status status = nimbus_node_list(im, n, 1, "dimensions", &sizes, &rank, error);
    if (status != NIMBUS_OK)
        return status;
    if (rank > IMPORT_RANK)
        return nimbus_node_fail(n, NIMBUS_ERR_LIMIT, error, "%zu dimensions, the limit is %d", rank,
                                IMPORT_RANK);
    for (size_t k = 0; k < rank; k++) {
        if (sizes[k] < -1 || (sizes[k] == -1 && open != SIZE_MAX))
            return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "dimension %zu is %" PRId64, k,
                                    sizes[k]);
        if (sizes[k] == -1)
            open = k;
        dims[k] = sizes[k] == 0 && k < in->rank ? in->dims[k] : (size_t)sizes[k];
        if (k != open && nimbus_mul_overflows(known, dims[k], &known))
            return nimbus_node_fail(n, NIMBUS_ERR_LIMIT, error,
                                    "more elements than can be counted");
    }
    if (open != SIZE_MAX)
        dims[open] = known > 0 ? in->n / known : 0;
    if (open != SIZE_MAX && nimbus_mul_overflows(known, dims[open], &known))
        known = SIZE_MAX;
    if (known != in->n)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "%zu elements do not fit the new dimensions", in->n);
    return nimbus_fold_reshaped(im, n, rank, dims, error);
}

nimbus_status nimbus_fold_squeeze(nimbus_importer *im, const nimbus_import_node *n,
                                  nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    size_t count, rank = 0, dims[IMPORT_RANK];
    const int64_t *axes;
    bool drop[IMPORT_RANK] = {false};
    nimbus_status status = nimbus_node_list(im, n, 1, "axes", &axes, &count, error);
    for (size_t k = 0; k < count && status == NIMBUS_OK; k++) {
        size_t axis;
        status = nimbus_node_axis(n, axes[k], in->rank, &axis, error);
        if (status == NIMBUS_OK && in->dims[axis] != 1)
            status = nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                      "dimension %zu is %zu, expected 1", axis, in->dims[axis]);
        if (status == NIMBUS_OK)
            drop[axis] = true;
    }
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < in->rank; k++)
        if (axes ? !drop[k] : in->dims[k] != 1)
            dims[rank++] = in->dims[k];
    return nimbus_fold_reshaped(im, n, rank, dims, error);
}

nimbus_status nimbus_fold_unsqueeze(nimbus_importer *im, const nimbus_import_node *n,
                                    nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    size_t count, dims[IMPORT_RANK] = {0};
    const int64_t *axes;
    nimbus_status status = nimbus_node_list(im, n, 1, "axes", &axes, &count, error);
    if (status != NIMBUS_OK)
        return status;
    size_t rank = in->rank + count;
    if (rank > IMPORT_RANK)
        return nimbus_node_fail(n, NIMBUS_ERR_LIMIT, error, "%zu dimensions, the limit is %d", rank,
                                IMPORT_RANK);
    for (size_t k = 0; k < count; k++) {
        size_t axis;
        status = nimbus_node_axis(n, axes[k], rank, &axis, error);
        if (status == NIMBUS_OK && dims[axis] != 0)
            status = nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "axis %zu is given twice", axis);
        if (status != NIMBUS_OK)
            return status;
        dims[axis] = SIZE_MAX;
    }
    for (size_t k = 0, from = 0; k < rank; k++)
        dims[k] = dims[k] == SIZE_MAX ? 1 : in->dims[from++];
    return nimbus_fold_reshaped(im, n, rank, dims, error);
}

/* ---- moving elements ----------------------------------------------------------------------- */

/* Fills out from in, element by element: along axis k, position p reads from first[k] + p *
 * step[k] of axis from[k]. */
static void move_elements(const nimbus_constant *in, nimbus_constant *out, const size_t *from,
                          const int64_t *first, const int64_t *step)
{
    size_t at[IMPORT_RANK] = {0}, strides[IMPORT_RANK];
    size_t stride = 1;
    for (size_t k = in->rank; k-- > 0;) {
        strides[k] = stride;
        stride *= in->dims[k];
    }
    for (size_t k = 0; k < out->n; k++) {
        size_t index = 0;
        for (size_t j = 0; j < out->rank; j++)
            index += (size_t)(first[j] + (int64_t)at[j] * step[j]) * strides[from[j]];
        nimbus_fold_copy(out, k, in, index);
        (void)nimbus_fold_next(out->rank, out->dims, at);
    }
}

static nimbus_status set_moved(nimbus_importer *im, const nimbus_import_node *n, const size_t *dims,
                               const size_t *from, const int64_t *first, const int64_t *step,
                               nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    nimbus_constant out;
    nimbus_status status = nimbus_fold_new(im, in, in->rank, dims, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    move_elements(in, &out, from, first, step);
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_transpose(nimbus_importer *im, const nimbus_import_node *n,
                                    nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    static const int64_t zeros[IMPORT_RANK];
    int64_t ones[IMPORT_RANK];
    size_t count, dims[IMPORT_RANK], from[IMPORT_RANK];
    const int64_t *perm;
    unsigned seen = 0;
    nimbus_status status = nimbus_node_ints(n, "perm", &perm, &count, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < in->rank; k++) {
        int64_t axis = perm && k < count ? perm[k] : (int64_t)(in->rank - 1 - k);
        if ((perm && count != in->rank) || axis < 0 || axis >= (int64_t)in->rank ||
            (seen & 1u << axis))
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                    "perm is no order of the %zu dimensions", in->rank);
        seen |= 1u << axis;
        from[k] = (size_t)axis;
        dims[k] = in->dims[axis];
        ones[k] = 1;
    }
    return set_moved(im, n, dims, from, zeros, ones, error);
}

/* Starts, ends, axes and steps of a slice: inputs 1 to 4, before opset 10 attributes. */
struct slices {
    const int64_t *starts, *ends, *axes, *steps;
    size_t n;
};

static nimbus_status read_slices(nimbus_importer *im, const nimbus_import_node *n, struct slices *s,
                                 nimbus_error *error)
{
    static const char *const names[] = {"starts", "ends", "axes", "steps"};
    const int64_t **lists[] = {&s->starts, &s->ends, &s->axes, &s->steps};
    size_t counts[4];
    nimbus_status status = NIMBUS_OK;
    for (size_t k = 0; k < 4 && status == NIMBUS_OK; k++)
        status = nimbus_node_list(im, n, k + 1, names[k], lists[k], &counts[k], error);
    if (status != NIMBUS_OK)
        return status;
    s->n = counts[0];
    if (!s->starts || !s->ends || counts[1] != s->n || (s->axes && counts[2] != s->n) ||
        (s->steps && counts[3] != s->n))
        return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                                "starts, ends, axes and steps are not equally many");
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_slice(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    struct slices s;
    size_t dims[IMPORT_RANK], from[IMPORT_RANK], axis;
    int64_t first[IMPORT_RANK], step[IMPORT_RANK];
    nimbus_status status = read_slices(im, n, &s, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < in->rank; k++) {
        dims[k] = in->dims[k];
        from[k] = k;
        first[k] = 0;
        step[k] = 1;
    }
    for (size_t k = 0; k < s.n; k++) {
        status = nimbus_node_axis(n, s.axes ? s.axes[k] : (int64_t)k, in->rank, &axis, error);
        if (status != NIMBUS_OK)
            return status;
        int64_t side = (int64_t)in->dims[axis], by = s.steps ? s.steps[k] : 1;
        int64_t low = by < 0 ? -1 : 0, high = by < 0 ? side - 1 : side;
        int64_t start = s.starts[k], end = s.ends[k];
        if (by == 0 || by == INT64_MIN)
            return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "a step of %" PRId64, by);
        start = start < 0 && start >= -side ? start + side : start < 0 ? low : start;
        end = end < 0 && end >= -side ? end + side : end < 0 ? low : end;
        start = start < low + (by < 0) ? low + (by < 0) : start > high ? high : start;
        end = end < low ? low : end > high ? high : end;
        int64_t reach = by < 0 ? start - end : end - start, size = by < 0 ? -by : by;
        dims[axis] = reach > 0 ? (size_t)((reach - 1) / size + 1) : 0;
        first[axis] = start;
        step[axis] = by;
    }
    return set_moved(im, n, dims, from, first, step, error);
}

nimbus_status nimbus_fold_gather(nimbus_importer *im, const nimbus_import_node *n,
                                 nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0), *index = nimbus_fold_input(im, n, 1);
    nimbus_constant out;
    size_t axis, rank = 0, dims[2 * IMPORT_RANK], outer = 1, inner = 1;
    int64_t given = 0;
    nimbus_status status = nimbus_node_int(n, "axis", &given, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_axis(n, given, in->rank, &axis, error);
    if (status != NIMBUS_OK)
        return status;
    if (index->real || index->rows)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "its indices are no plain integers");
    for (size_t k = 0; k < axis; k++)
        outer *= dims[rank++] = in->dims[k];
    for (size_t k = 0; k < index->rank; k++)
        dims[rank++] = index->dims[k];
    for (size_t k = axis + 1; k < in->rank; k++)
        inner *= dims[rank++] = in->dims[k];
    status = nimbus_fold_new(im, in, rank, dims, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < index->n; k++) {
        size_t from;
        status = nimbus_node_axis(n, index->i[k], in->dims[axis], &from, error);
        if (status != NIMBUS_OK) {
            nimbus_constant_free(&out);
            return status;
        }
        for (size_t i = 0; out.n > 0 && i < outer; i++)
            for (size_t j = 0; j < inner; j++)
                nimbus_fold_copy(&out, (i * index->n + k) * inner + j, in,
                                 (i * in->dims[axis] + from) * inner + j);
    }
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}

/* Whether input k can stand beside input 0: the same type and, `axis` apart, dimensions. */
static bool stands_beside(const nimbus_constant *a, const nimbus_constant *b, size_t axis)
{
    bool same = a->real == b->real && a->rank == b->rank;
    for (size_t k = 0; same && k < a->rank; k++)
        same = k == axis || a->dims[k] == b->dims[k];
    return same;
}

nimbus_status nimbus_fold_concat(nimbus_importer *im, const nimbus_import_node *n,
                                 nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    nimbus_constant out, like = *in;
    size_t axis, dims[IMPORT_RANK], outer = 1, inner = 1, at = 0;
    int64_t given = 0;
    nimbus_status status = nimbus_node_int(n, "axis", &given, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_axis(n, given, in->rank, &axis, error);
    if (status != NIMBUS_OK)
        return status;
    memcpy(dims, in->dims, sizeof dims);
    for (size_t k = 1; k < n->n_inputs; k++) {
        const nimbus_constant *other = nimbus_fold_input(im, n, k);
        if (!other || !stands_beside(in, other, axis))
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error, "input %zu does not fit input 0",
                                    k);
        dims[axis] += other->dims[axis];
        like.rows = like.rows ? like.rows : other->rows;
    }
    for (size_t k = 0; k < in->rank; k++)
        *(k < axis ? &outer : &inner) *= k == axis ? 1 : dims[k];
    status = nimbus_fold_new(im, &like, in->rank, dims, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < n->n_inputs; k++) {
        const nimbus_constant *part = nimbus_fold_input(im, n, k);
        size_t width = part->dims[axis] * inner;
        for (size_t i = 0; width > 0 && i < outer; i++)
            for (size_t j = 0; j < width; j++)
                nimbus_fold_copy(&out, i * dims[axis] * inner + at + j, part, i * width + j);
        at += width;
    }
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}
