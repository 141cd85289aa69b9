/* op_slide.c - operators that slide over an image: convolution, pooling, means, padding
 *
 * A signal of N x channels x width is an image of height 1. Rounding up (ceil_mode) becomes padding
 * behind the image, as wide as the last window needs; a window that would begin behind the image
 * does not exist (ONNX says so since opset 22, ONNX Runtime and PyTorch always did). */
#include <inttypes.h>
#include <string.h>

#include "import/import.h"

enum auto_pad { AUTO_NOTSET, AUTO_SAME_UPPER, AUTO_SAME_LOWER, AUTO_VALID };

#define MOST NIMBUS_MAX_WIDTH /* of every number of a window: sums of some cannot overflow */

/* ---- attributes ---------------------------------------------------------------------------- */

/* A list of `expected` numbers low..MOST; what `out` holds stays if there is none. */
static nimbus_status read_list(const nimbus_import_node *n, const char *name, size_t expected,
                               int64_t low, size_t *out, nimbus_error *error)
{
    const int64_t *list;
    size_t count;
    nimbus_status status = nimbus_node_ints(n, name, &list, &count, error);
    if (status != NIMBUS_OK || !list)
        return status;
    if (count != expected)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error, "%zu %s, expected %zu", count, name,
                                expected);
    for (size_t k = 0; k < count; k++) {
        if (list[k] < low || list[k] > (int64_t)MOST)
            return nimbus_node_fail(
                n,
                list[k] < 0 && strcmp(name, "pads") == 0 ? NIMBUS_ERR_UNSUPPORTED
                                                         : NIMBUS_ERR_VALUE,
                error, "%s of %" PRId64 ", expected %" PRId64 " to %u", name, list[k], low, MOST);
        out[k] = (size_t)list[k];
    }
    return NIMBUS_OK;
}

static size_t reach_of(const nimbus_slide *s, size_t axis)
{
    return (s->kernel[axis] - 1) * s->dilation[axis] + 1;
}

/* Padding of the kind that keeps sides (divided by the stride, rounded up). */
static void pad_same(nimbus_slide *s, size_t axis, size_t side, bool upper)
{
    size_t n = (side - 1) / s->stride[axis] + 1;
    size_t needed = (n - 1) * s->stride[axis] + reach_of(s, axis);
    size_t total = needed > side ? needed - side : 0;
    s->before[axis] = upper ? total / 2 : total - total / 2;
    s->after[axis] = total - s->before[axis];
}

/* Adds padding behind so that the last window is whole; *extra: how much. */
static void round_up(nimbus_slide *s, size_t axis, size_t side, size_t *extra)
{
    size_t padded = side + s->before[axis] + s->after[axis], reach = reach_of(s, axis);
    *extra = 0;
    if (padded < reach)
        return;
    size_t last = (padded - reach + s->stride[axis] - 1) / s->stride[axis] * s->stride[axis];
    if (last + reach > padded && last < side + s->before[axis])
        *extra = last + reach - padded;
    s->after[axis] += *extra;
}

/* Window, steps and padding of a node over `sides` (1 or 2 of them: sides[0] is 1 then). kernel: of
 * a convolution's weights; NULL: the attribute must be there. *extra: padding by ceil_mode. */
static nimbus_status read_slide(const nimbus_import_node *n, size_t n_axes, const size_t *sides,
                                const size_t *kernel, nimbus_slide *s, size_t *extra,
                                nimbus_error *error)
{
    static const char *const words[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", NULL};
    size_t mode = AUTO_NOTSET, pads[4] = {0}, first = 2 - n_axes, lists[3][2];
    int64_t ceil_mode = 0;
    for (size_t k = 0; k < 2; k++) {
        lists[0][k] = kernel ? kernel[k] : 0;
        lists[1][k] = lists[2][k] = 1;
    }
    nimbus_status status = nimbus_node_word(n, "auto_pad", words, &mode, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "ceil_mode", &ceil_mode, error);
    if (status == NIMBUS_OK)
        status = read_list(n, "kernel_shape", n_axes, 1, lists[0], error);
    if (status == NIMBUS_OK)
        status = read_list(n, "strides", n_axes, 1, lists[1], error);
    if (status == NIMBUS_OK)
        status = read_list(n, "dilations", n_axes, 1, lists[2], error);
    if (status == NIMBUS_OK)
        status = read_list(n, "pads", 2 * n_axes, 0, pads, error);
    if (status != NIMBUS_OK)
        return status;
    if (mode != AUTO_NOTSET && (pads[0] || pads[1] || pads[2] || pads[3]))
        return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                                "pads and auto_pad exclude each other");
    *s = (nimbus_slide){{1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}};
    extra[0] = extra[1] = 0;
    for (size_t k = 0; k < n_axes; k++) {
        size_t axis = first + k;
        if (lists[0][k] == 0)
            return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                                    "attribute kernel_shape is missing");
        if (kernel && lists[0][k] != kernel[k])
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                    "kernel_shape has %zu where the weights have %zu", lists[0][k],
                                    kernel[k]);
        s->kernel[axis] = lists[0][k];
        s->stride[axis] = lists[1][k];
        s->dilation[axis] = lists[2][k];
        s->before[axis] = pads[k];
        s->after[axis] = pads[n_axes + k];
        if (mode == AUTO_SAME_UPPER || mode == AUTO_SAME_LOWER)
            pad_same(s, axis, sides[axis], mode == AUTO_SAME_UPPER);
        else if (ceil_mode)
            round_up(s, axis, sides[axis], &extra[axis]);
    }
    return NIMBUS_OK;
}

/* Positions of the window, or MISMATCH: it is larger than the padded image. */
static nimbus_status count_positions(const nimbus_import_node *n, const nimbus_slide *s,
                                     const size_t *sides, size_t *out, nimbus_error *error)
{
    for (size_t k = 0; k < 2; k++) {
        size_t padded = sides[k] + s->before[k] + s->after[k];
        if (reach_of(s, k) > padded)
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                    "a window of %zu does not fit %zu positions with padding",
                                    reach_of(s, k), padded);
        out[k] = (padded - reach_of(s, k)) / s->stride[k] + 1;
    }
    return NIMBUS_OK;
}

/* Input 0 as an image. *n_axes: dimensions beside rows and channels. */
static nimbus_status image_view(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *v,
                                nimbus_shape *shape, nimbus_error *error)
{
    nimbus_status status = nimbus_node_view(im, n, 0, v, error);
    if (status != NIMBUS_OK)
        return status;
    if (v->rank != 3 && v->rank != 4)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "%zu dimensions, expected rows, channels, (height and) width",
                                v->rank);
    *shape = nimbus_view_shape(v);
    return nimbus_view_give_shape(im, n, v, *shape, error);
}

/* Adds the layer, whose result has these channels and sides. */
static nimbus_status set_image(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *v,
                               nimbus_draft *draft, size_t channels, const size_t *sides,
                               nimbus_error *error)
{
    draft->proto.shape = (nimbus_shape){channels, sides[0], sides[1]};
    draft->n_inputs = 1;
    draft->inputs[0] = v->layer;
    nimbus_status status = nimbus_draft_add(im, n, draft, &v->layer, error);
    if (status != NIMBUS_OK)
        return status;
    v->dims[1] = channels;
    v->dims[v->rank - 1] = sides[1];
    if (v->rank == 4)
        v->dims[2] = sides[0];
    nimbus_node_set_view(im, n, v);
    return NIMBUS_OK;
}

/* ---- convolution --------------------------------------------------------------------------- */

static nimbus_status check_weights(const nimbus_import_node *n, const nimbus_constant *w,
                                   const nimbus_constant *bias, const nimbus_view *v,
                                   int64_t groups, nimbus_error *error)
{
    size_t channels = v->dims[1];
    if (w->rank != v->rank || w->n == 0)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "weights of %zu dimensions and %zu values for an input of %zu "
                                "dimensions",
                                w->rank, w->n, v->rank);
    if (groups < 1 || channels % (uint64_t)groups != 0 || w->dims[0] % (uint64_t)groups != 0 ||
        w->dims[1] != channels / (uint64_t)groups)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "weights of %zu x %zu channels in %" PRId64 " groups do not fit an "
                                "input of %zu channels",
                                w->dims[0], w->dims[1], groups, channels);
    if (bias && bias->n != w->dims[0])
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "a bias of %zu values for %zu output channels", bias->n,
                                w->dims[0]);
    return NIMBUS_OK;
}

nimbus_status nimbus_build_conv(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    const nimbus_constant *w, *bias;
    nimbus_view v;
    nimbus_shape in;
    nimbus_draft draft = {.proto.type = &nimbus_layer_conv2d};
    int64_t groups = 1;
    size_t extra[2], sides[2], m;
    nimbus_status status = image_view(im, n, &v, &in, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, 1, true, &w, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, 2, true, &bias, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "group", &groups, error);
    if (status == NIMBUS_OK)
        status = check_weights(n, w, bias, &v, groups, error);
    if (status == NIMBUS_OK)
        status = read_slide(n, v.rank - 2, (const size_t[]){in.height, in.width}, w->dims + 2,
                            &draft.proto.slide, extra, error);
    if (status == NIMBUS_OK)
        status = count_positions(n, &draft.proto.slide, (const size_t[]){in.height, in.width},
                                 sides, error);
    if (status != NIMBUS_OK)
        return status;
    m = w->dims[0];
    draft.proto.units = m;
    draft.proto.groups = (size_t)groups;
    draft.n_values[0] = w->n;
    draft.n_values[1] = m;
    for (size_t k = 0; k < 2; k++) {
        status = nimbus_import_alloc(im, draft.n_values[k], sizeof(float), &draft.values[k], error);
        if (status != NIMBUS_OK) {
            nimbus_free(draft.values[0]);
            return status;
        }
    }
    memcpy(draft.values[0], w->f, w->n * sizeof(float));
    if (bias)
        memcpy(draft.values[1], bias->f, m * sizeof(float));
    return set_image(im, n, &v, &draft, m, sides, error);
}

/* ---- pooling ------------------------------------------------------------------------------- */

static nimbus_status build_pool(nimbus_importer *im, const nimbus_import_node *n, bool average,
                                nimbus_error *error)
{
    nimbus_view v;
    nimbus_shape in;
    nimbus_draft draft = {.proto.type =
                              average ? &nimbus_layer_average_pool : &nimbus_layer_max_pool};
    int64_t count_padding = 0;
    size_t extra[2], positions[2];
    nimbus_status status = image_view(im, n, &v, &in, error);
    const size_t sides[] = {in.height, in.width};
    if (status == NIMBUS_OK)
        status = read_slide(n, v.rank - 2, sides, NULL, &draft.proto.slide, extra, error);
    if (status == NIMBUS_OK)
        status = count_positions(n, &draft.proto.slide, sides, positions, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "count_include_pad", &count_padding, error);
    if (status != NIMBUS_OK)
        return status;
    if (average && count_padding && (extra[0] || extra[1]))
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "ceil_mode with count_include_pad: runtimes differ in what they "
                                "divide by");
    for (size_t k = 0; k < 2; k++)
        if (draft.proto.slide.before[k] >= reach_of(&draft.proto.slide, k) ||
            draft.proto.slide.after[k] >= reach_of(&draft.proto.slide, k))
            return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error,
                                    "padding of %zu and %zu around a window of %zu, expected less",
                                    draft.proto.slide.before[k], draft.proto.slide.after[k],
                                    reach_of(&draft.proto.slide, k));
    draft.proto.count_padding = average && count_padding;
    return set_image(im, n, &v, &draft, v.dims[1], positions, error);
}

nimbus_status nimbus_build_max_pool(nimbus_importer *im, const nimbus_import_node *n,
                                    nimbus_error *error)
{
    return build_pool(im, n, false, error);
}

nimbus_status nimbus_build_average_pool(nimbus_importer *im, const nimbus_import_node *n,
                                        nimbus_error *error)
{
    return build_pool(im, n, true, error);
}

/* A pool of the whole image, on a view whose layer has the image's shape. */
static nimbus_status pool_whole(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *v,
                                const nimbus_layer_type *type, nimbus_error *error)
{
    nimbus_draft draft = {.proto = {.type = type}, .n_inputs = 1, .inputs = {v->layer}};
    draft.proto.shape = (nimbus_shape){im->drafts[v->layer].proto.shape.channels, 1, 1};
    return nimbus_draft_add(im, n, &draft, &v->layer, error);
}

static nimbus_status build_global(nimbus_importer *im, const nimbus_import_node *n,
                                  const nimbus_layer_type *type, nimbus_error *error)
{
    nimbus_view v;
    nimbus_shape in;
    nimbus_status status = image_view(im, n, &v, &in, error);
    if (status == NIMBUS_OK)
        status = pool_whole(im, n, &v, type, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 2; k < v.rank; k++)
        v.dims[k] = 1;
    nimbus_node_set_view(im, n, &v);
    return NIMBUS_OK;
}

nimbus_status nimbus_build_global_average_pool(nimbus_importer *im, const nimbus_import_node *n,
                                               nimbus_error *error)
{
    return build_global(im, n, &nimbus_layer_average_pool, error);
}

nimbus_status nimbus_build_global_max_pool(nimbus_importer *im, const nimbus_import_node *n,
                                           nimbus_error *error)
{
    return build_global(im, n, &nimbus_layer_max_pool, error);
}

/* ---- means and maxima over axes ------------------------------------------------------------- */

/* Marks the axes that are reduced; all, if none are named. */
static nimbus_status read_axes(nimbus_importer *im, const nimbus_import_node *n,
                               const nimbus_view *v, bool *reduced, nimbus_error *error)
{
    const int64_t *axes;
    size_t count;
    int64_t noop = 0;
    nimbus_status status = nimbus_node_list(im, n, 1, "axes", &axes, &count, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "noop_with_empty_axes", &noop, error);
    if (status == NIMBUS_OK && (!axes || count == 0))
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "goes over all axes, the rows as well");
    for (size_t k = 0; k < count && status == NIMBUS_OK; k++) {
        size_t axis;
        status = nimbus_node_axis(n, axes[k], v->rank, &axis, error);
        if (status == NIMBUS_OK && (axis == 0 || reduced[axis]))
            status = nimbus_node_fail(n, axis ? NIMBUS_ERR_FORMAT : NIMBUS_ERR_UNSUPPORTED, error,
                                      axis ? "axis %zu is given twice" : "goes over axis %zu, rows",
                                      axis);
        if (status == NIMBUS_OK)
            reduced[axis] = true;
    }
    return status;
}

/* Makes the layer's height and width what is reduced: the last dimensions, or where a
 * transposition is put off, all axes of its base but the first. */
static nimbus_status reduce_shape(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *v,
                                  const bool *reduced, nimbus_error *error)
{
    size_t base_axis[IMPORT_RANK], kept = 1, gone = 1;
    bool in_base = (v->n_axes == 2 || v->n_axes == 3) && nimbus_view_axes(v, base_axis);
    bool last = true, image = v->rank == 4;
    for (size_t k = 1; k < v->rank; k++) {
        in_base = in_base && reduced[k] == (base_axis[k - 1] != 0);
        last = last && (reduced[k] || v->dims[k] == 1 || gone == 1);
        image = image && reduced[k] == (k > 1);
        *(reduced[k] ? &gone : &kept) *= v->dims[k];
    }
    if (!last && !in_base)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "expected to go over height and width, and not over channels");
    nimbus_shape shape = in_base ? nimbus_view_base(v)
                         : image ? nimbus_view_shape(v)
                                 : (nimbus_shape){kept, gone, 1};
    v->n_axes = in_base ? 0 : v->n_axes;
    return nimbus_view_give_shape(im, n, v, shape, error);
}

static nimbus_status build_reduce(nimbus_importer *im, const nimbus_import_node *n,
                                  const nimbus_layer_type *type, nimbus_error *error)
{
    nimbus_view v;
    bool reduced[IMPORT_RANK] = {false};
    int64_t keep = 1;
    size_t rank = 1;
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "keepdims", &keep, error);
    if (status == NIMBUS_OK)
        status = read_axes(im, n, &v, reduced, error);
    if (status == NIMBUS_OK)
        status = reduce_shape(im, n, &v, reduced, error);
    if (status == NIMBUS_OK)
        status = pool_whole(im, n, &v, type, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 1; k < v.rank; k++)
        if (!reduced[k] || keep)
            v.dims[rank++] = reduced[k] ? 1 : v.dims[k];
    v.rank = rank;
    nimbus_node_set_view(im, n, &v);
    return NIMBUS_OK;
}

nimbus_status nimbus_build_reduce_mean(nimbus_importer *im, const nimbus_import_node *n,
                                       nimbus_error *error)
{
    return build_reduce(im, n, &nimbus_layer_average_pool, error);
}

nimbus_status nimbus_build_reduce_max(nimbus_importer *im, const nimbus_import_node *n,
                                      nimbus_error *error)
{
    return build_reduce(im, n, &nimbus_layer_max_pool, error);
}

/* ---- padding ------------------------------------------------------------------------------- */

/* Padding of every dimension: before[k], after[k]. Inputs 1 to 3, or attributes before opset 11. */
static nimbus_status read_pads(nimbus_importer *im, const nimbus_import_node *n,
                               const nimbus_view *v, size_t *before, size_t *after, double *value,
                               nimbus_error *error)
{
    const int64_t *pads, *axes;
    size_t count, n_axes;
    nimbus_status status = nimbus_node_list(im, n, 1, "pads", &pads, &count, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_list(im, n, 3, "axes", &axes, &n_axes, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "value", value, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_scalar(im, n, 2, value, error);
    if (status != NIMBUS_OK)
        return status;
    n_axes = axes ? n_axes : v->rank;
    if (!pads || count != 2 * n_axes)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "%zu numbers of padding for %zu dimensions", count, n_axes);
    for (size_t k = 0; k < n_axes; k++) {
        size_t axis;
        status = nimbus_node_axis(n, axes ? axes[k] : (int64_t)k, v->rank, &axis, error);
        if (status != NIMBUS_OK)
            return status;
        for (size_t side = 0; side < 2; side++) {
            int64_t pad = pads[k + side * n_axes];
            if (pad < 0 || pad > (int64_t)MOST || (axis == 0 && pad > 0))
                return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                        "padding of %" PRId64 " at dimension %zu, expected 0 to %u",
                                        pad, axis, axis ? MOST : 0);
            (side ? after : before)[axis] = (size_t)pad;
        }
    }
    return NIMBUS_OK;
}

/* An image whose height and width are the dimensions to be padded: those of a usual image, or
 * [1][channels][all positions] if only the channels are. */
static bool pad_shape(const nimbus_view *v, const size_t *before, const size_t *after,
                      nimbus_shape *in, nimbus_slide *s)
{
    bool channels = before[1] || after[1], others = false;
    for (size_t k = 2; k < v->rank; k++)
        others = others || before[k] || after[k];
    if ((channels && others) || (others && v->rank > 4))
        return false;
    if (!others) {
        *in = (nimbus_shape){1, v->dims[1], nimbus_view_width(v) / v->dims[1]};
        s->before[0] = before[1];
        s->after[0] = after[1];
        return true;
    }
    *in = nimbus_view_shape(v);
    for (size_t k = 2; k < v->rank; k++) {
        s->before[k + 2 - v->rank] = before[k];
        s->after[k + 2 - v->rank] = after[k];
    }
    return true;
}

nimbus_status nimbus_build_pad(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    static const char *const modes[] = {"constant", "reflect", "edge", NULL};
    nimbus_view v;
    nimbus_shape in;
    nimbus_draft draft = {.proto.type = &nimbus_layer_pad, .n_inputs = 1};
    size_t before[IMPORT_RANK] = {0}, after[IMPORT_RANK] = {0}, mode = 0, any = 0;
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_word(n, "mode", modes, &mode, error);
    if (status == NIMBUS_OK)
        status = read_pads(im, n, &v, before, after, &draft.proto.number, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < v.rank; k++)
        any += before[k] + after[k];
    if (any == 0) {
        nimbus_node_set_view(im, n, &v);
        return NIMBUS_OK;
    }
    draft.proto.pad_mode = (nimbus_pad_mode)mode;
    if (!pad_shape(&v, before, after, &in, &draft.proto.slide))
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "pads channels and positions together, or more than 2 dimensions");
    status = nimbus_view_give_shape(im, n, &v, in, error);
    if (status != NIMBUS_OK)
        return status;
    const nimbus_slide *s = &draft.proto.slide;
    draft.proto.shape = (nimbus_shape){in.channels, in.height + s->before[0] + s->after[0],
                                       in.width + s->before[1] + s->after[1]};
    draft.inputs[0] = v.layer;
    status = nimbus_draft_add(im, n, &draft, &v.layer, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 1; k < v.rank; k++)
        v.dims[k] += before[k] + after[k];
    nimbus_node_set_view(im, n, &v);
    return NIMBUS_OK;
}
