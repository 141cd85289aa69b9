/* view.c - what a value's dimensions and order have to do with the layer that computes it
 *
 * A reshape changes dimensions only, a transposition is put off: often the next node takes it back,
 * or a linear layer can read its inputs in another order. Only where an order must be right does a
 * transpose layer appear. */
#include <string.h>

#include "import/import.h"

size_t nimbus_view_width(const nimbus_view *v)
{
    size_t width = 1;
    for (size_t k = 1; k < v->rank; k++)
        width *= v->dims[k];
    return width;
}

nimbus_shape nimbus_view_shape(const nimbus_view *v)
{
    const size_t *d = v->dims;
    switch (v->rank) {
    case 3:
        return (nimbus_shape){d[1], 1, d[2]};
    case 4:
        return (nimbus_shape){d[1], d[2], d[3]};
    default:
        return (nimbus_shape){nimbus_view_width(v), 1, 1};
    }
}

nimbus_shape nimbus_view_base(const nimbus_view *v)
{
    return (nimbus_shape){v->base[0], v->n_axes > 1 ? v->base[1] : 1,
                          v->n_axes > 2 ? v->base[2] : 1};
}

bool nimbus_view_axes(const nimbus_view *v, size_t base_axis[IMPORT_RANK])
{
    for (size_t k = 0; k + 1 < v->rank; k++)
        base_axis[k] = v->n_axes > 0 ? v->order[k] : k;
    if (v->n_axes == 0)
        return true;
    bool same = v->n_axes + 1 == v->rank;
    for (size_t k = 0; same && k < v->n_axes; k++)
        same = v->dims[k + 1] == v->base[v->order[k]];
    return same;
}

/* ---- transpositions ------------------------------------------------------------------------ */

/* The same transposition in as few axes as possible: those of one element fall away, those that
 * stay neighbours become one. Returns how many are left; 0 or 1: nothing moves. */
static size_t reduce_axes(const nimbus_view *v, size_t *base, size_t *order)
{
    size_t n = 0, position[IMPORT_RANK], group[IMPORT_RANK], kept[IMPORT_RANK], n_groups = 0;
    for (size_t k = 0; k < v->n_axes; k++)
        if (v->base[v->order[k]] != 1)
            kept[n++] = v->order[k];
    for (size_t k = 0; k < n; k++)
        position[kept[k]] = k;
    /* Base axes in their order: one that follows its kept predecessor joins its group. */
    size_t before = SIZE_MAX;
    for (size_t axis = 0; axis < v->n_axes; axis++) {
        if (v->base[axis] == 1)
            continue;
        bool joins = before != SIZE_MAX && position[axis] == position[before] + 1;
        if (!joins)
            base[n_groups++] = 1;
        group[axis] = n_groups - 1;
        base[n_groups - 1] *= v->base[axis];
        before = axis;
    }
    size_t n_order = 0;
    for (size_t k = 0; k < n; k++)
        if (n_order == 0 || order[n_order - 1] != group[kept[k]])
            order[n_order++] = group[kept[k]];
    return n_groups;
}

nimbus_status nimbus_view_transpose(nimbus_importer *im, const nimbus_import_node *n,
                                    nimbus_view *v, const size_t *order, nimbus_error *error)
{
    size_t base_axis[IMPORT_RANK], base[IMPORT_RANK], reduced[IMPORT_RANK], rank = v->rank;
    nimbus_status status = NIMBUS_OK;
    if (!nimbus_view_axes(v, base_axis))
        status = nimbus_view_settle(im, n, v, error);
    if (status != NIMBUS_OK)
        return status;
    if (v->n_axes == 0) {
        v->n_axes = rank - 1;
        memcpy(v->base, v->dims + 1, (rank - 1) * sizeof *v->base);
        for (size_t k = 0; k + 1 < rank; k++)
            base_axis[k] = k;
    }
    size_t dims[IMPORT_RANK];
    memcpy(dims, v->dims, sizeof dims);
    for (size_t k = 0; k + 1 < rank; k++) {
        v->order[k] = base_axis[order[k]];
        v->dims[k + 1] = dims[order[k] + 1];
    }
    if (reduce_axes(v, base, reduced) < 2)
        v->n_axes = 0;
    return NIMBUS_OK;
}

nimbus_status nimbus_view_settle(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *v,
                                 nimbus_error *error)
{
    size_t base[IMPORT_RANK], order[IMPORT_RANK];
    if (v->n_axes == 0)
        return NIMBUS_OK;
    size_t n_axes = reduce_axes(v, base, order);
    if (n_axes > 3)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "needs a transposition of more than 3 axes");
    for (size_t k = n_axes; k < 3; k++) {
        base[k] = 1;
        order[k] = k;
    }
    v->n_axes = 0;
    nimbus_shape from = {base[0], base[1], base[2]};
    nimbus_status status = nimbus_view_give_shape(im, n, v, from, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_draft draft = {.proto = {.type = &nimbus_layer_transpose,
                                    .shape = {base[order[0]], base[order[1]], base[order[2]]}},
                          .n_inputs = 1,
                          .inputs = {v->layer}};
    for (size_t k = 0; k < 3; k++)
        draft.proto.order[k] = (uint8_t)order[k];
    return nimbus_draft_add(im, n, &draft, &v->layer, error);
}

nimbus_status nimbus_view_give_shape(nimbus_importer *im, const nimbus_import_node *n,
                                     nimbus_view *v, nimbus_shape shape, nimbus_error *error)
{
    nimbus_status status = nimbus_view_settle(im, n, v, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_shape have = im->drafts[v->layer].proto.shape;
    if (have.channels == shape.channels && have.height == shape.height && have.width == shape.width)
        return NIMBUS_OK;
    bool vector = shape.height == 1 && shape.width == 1;
    nimbus_draft draft = {
        .proto = {.type = vector ? &nimbus_layer_flatten : &nimbus_layer_reshape, .shape = shape},
        .n_inputs = 1,
        .inputs = {v->layer}};
    if (!vector)
        draft.proto.new_shape = shape;
    return nimbus_draft_add(im, n, &draft, &v->layer, error);
}

nimbus_status nimbus_view_as_channels(nimbus_importer *im, const nimbus_import_node *n,
                                      nimbus_view *v, size_t axis, bool *done, nimbus_error *error)
{
    size_t base_axis[IMPORT_RANK], before = 1, after = 1, n_axes = v->n_axes;
    *done = true;
    if (n_axes > 1 && n_axes < 4 && nimbus_view_axes(v, base_axis) && base_axis[axis - 1] == 0) {
        nimbus_shape base = nimbus_view_base(v);
        v->n_axes = 0; /* for once, the order is right as it stands */
        nimbus_status status = nimbus_view_give_shape(im, n, v, base, error);
        v->n_axes = n_axes;
        return status;
    }
    for (size_t k = 1; k < v->rank; k++)
        if (k != axis)
            *(k < axis ? &before : &after) *= v->dims[k];
    *done = before == 1;
    if (before != 1)
        return NIMBUS_OK;
    nimbus_shape shape = {v->dims[axis], after, 1};
    if (axis == 1 && v->rank <= 4)
        shape = nimbus_view_shape(v);
    return nimbus_view_give_shape(im, n, v, shape, error);
}

void nimbus_view_index(const nimbus_view *v, uint32_t *index)
{
    size_t width = nimbus_view_width(v), at[IMPORT_RANK] = {0}, strides[IMPORT_RANK], stride = 1;
    for (size_t k = v->n_axes; k-- > 0;) {
        strides[k] = stride;
        stride *= v->base[k];
    }
    for (size_t i = 0; i < width; i++) {
        size_t from = v->n_axes > 0 ? 0 : i;
        for (size_t k = 0; k < v->n_axes; k++)
            from += at[k] * strides[v->order[k]];
        index[i] = (uint32_t)from;
        for (size_t k = v->n_axes; k-- > 0;) {
            if (++at[k] < v->base[v->order[k]])
                break;
            at[k] = 0;
        }
    }
}
