/* columns.c - deal the input columns of a layer to its codebooks */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert/convert.h"

enum { WINDOW_MARGIN = 2 }; /* a window reaches this far beyond its patch on every side */

void nimbus_groups_free(nimbus_groups *groups)
{
    nimbus_free(groups->first);
    nimbus_free(groups->column);
    memset(groups, 0, sizeof *groups);
}

static bool is_image(nimbus_shape shape)
{
    return shape.height > 1 && shape.width > 1;
}

/* The most square h x w = v with h <= w that fits the image; v itself if none does. */
static void patch_sides(nimbus_shape shape, size_t v, size_t *height, size_t *width)
{
    *height = 1;
    *width = v;
    for (size_t h = 1; h * h <= v; h++)
        if (v % h == 0 && h <= shape.height && v / h <= shape.width) {
            *height = h;
            *width = v / h;
        }
}

static nimbus_status deal_blocks(size_t d, size_t v, nimbus_groups *out, nimbus_error *error)
{
    size_t c = (d + v - 1) / v;
    out->first = nimbus_alloc(c + 1, sizeof *out->first);
    out->column = nimbus_alloc(d, sizeof *out->column);
    if (!out->first || !out->column)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu codebooks", c);
    out->n_codebooks = c;
    for (size_t i = 0; i < d; i++)
        out->column[i] = (uint32_t)i;
    for (size_t i = 0; i <= c; i++)
        out->first[i] = i * v < d ? i * v : d;
    return NIMBUS_OK;
}

static nimbus_status deal_patches(nimbus_shape s, size_t v, size_t margin, nimbus_groups *out,
                                  nimbus_error *error)
{
    size_t h, w, at = 0, c = 0;
    patch_sides(s, v, &h, &w);
    size_t rows = (s.height + h - 1) / h, columns = (s.width + w - 1) / w;
    size_t count = s.channels * rows * columns;
    size_t largest = (h + 2 * margin) * (w + 2 * margin);

    out->first = nimbus_alloc(count + 1, sizeof *out->first);
    out->column = nimbus_alloc(count * largest, sizeof *out->column);
    if (!out->first || !out->column)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu codebooks", count);
    for (size_t channel = 0; channel < s.channels; channel++)
        for (size_t top = 0; top < s.height; top += h)
            for (size_t left = 0; left < s.width; left += w) {
                size_t y0 = top > margin ? top - margin : 0;
                size_t x0 = left > margin ? left - margin : 0;
                out->first[c++] = at;
                for (size_t y = y0; y < top + h + margin && y < s.height; y++)
                    for (size_t x = x0; x < left + w + margin && x < s.width; x++)
                        out->column[at++] = (uint32_t)((channel * s.height + y) * s.width + x);
            }
    out->first[c] = at;
    out->n_codebooks = c;
    return NIMBUS_OK;
}

/* ---- balanced: groups of unequal sizes, each with about as much to tell ---------------------- */

typedef struct balance {
    nimbus_shape shape;       /* {1, 1, D} of a vector */
    const double *importance; /* [D] */
    double levels;
} balance;

/* A rectangle of one channel's pixels, and the best cut in two; a vector is one line of pixels. */
typedef struct box {
    const balance *of;
    size_t channel, low[2], high[2]; /* rows, columns: from, and up to but without */
    size_t cut;
    int axis;    /* along which is cut: 0 rows, 1 columns */
    double gain; /* what trees of both parts leave less than one of the whole; < 0: cannot be cut */
} box;

static size_t column_of(const balance *b, size_t channel, size_t y, size_t x)
{
    return (channel * b->shape.height + y) * b->shape.width + x;
}

typedef struct sums {
    double importance, squares; /* of the columns; of their importance */
} sums;

static sums sums_of(const box *r)
{
    sums t = {0, 0};
    for (size_t y = r->low[0]; y < r->high[0]; y++)
        for (size_t x = r->low[1]; x < r->high[1]; x++) {
            double importance = r->of->importance[column_of(r->of, r->channel, y, x)];
            t.importance += importance;
            t.squares += importance * importance;
        }
    return t;
}

/* What a tree of H levels leaves of the columns' importance: as of n independent equal values that
 * share H bits, sum * 2^(-2 H / n) (rate distortion of Gaussian sources: Cover & Thomas 2006,
 * theorem 10.3.2), with n = the square of their sum over the sum of their squares. */
static double left_by_tree(const box *r)
{
    const sums t = sums_of(r);
    return t.squares > 0
               ? t.importance * exp2(-2 * r->of->levels * t.squares / (t.importance * t.importance))
               : 0;
}

/* Both parts of a rectangle. */
static void cut_in_two(const box *r, int axis, size_t cut, box parts[2])
{
    parts[0] = parts[1] = *r;
    parts[0].high[axis] = parts[1].low[axis] = cut;
}

/* Where both parts have as equal a sum as can be. */
static size_t middle(const box *r, int axis)
{
    const double half = sums_of(r).importance / 2;
    size_t best = r->low[axis] + 1;
    double before = 0, closest = INFINITY;
    for (size_t cut = best; cut < r->high[axis]; cut++) {
        box slice = *r;
        slice.low[axis] = cut - 1;
        slice.high[axis] = cut;
        before += sums_of(&slice).importance;
        if (fabs(before - half) < closest) {
            closest = fabs(before - half);
            best = cut;
        }
    }
    return best;
}

static void find_cut(box *r)
{
    const double whole = left_by_tree(r);
    r->gain = -1;
    for (int axis = 0; axis < 2; axis++) {
        box parts[2];
        if (r->high[axis] - r->low[axis] < 2)
            continue;
        size_t cut = middle(r, axis);
        cut_in_two(r, axis, cut, parts);
        double gain = fmax(whole - left_by_tree(&parts[0]) - left_by_tree(&parts[1]), 0);
        if (gain > r->gain) {
            r->gain = gain;
            r->axis = axis;
            r->cut = cut;
        }
    }
}

/* Cuts the rectangle with the most to gain until there are `count`; `n` are there. */
static void cut_boxes(box *boxes, size_t n, size_t count)
{
    for (; n < count; n++) {
        box parts[2], *most = boxes;
        for (size_t i = 1; i < n; i++)
            if (boxes[i].gain > most->gain)
                most = &boxes[i];
        cut_in_two(most, most->axis, most->cut, parts);
        *most = parts[0];
        boxes[n] = parts[1];
        find_cut(most);
        find_cut(&boxes[n]);
    }
}

static size_t middle_column(const box *r)
{
    size_t y = (r->low[0] + r->high[0]) / 2, x = (r->low[1] + r->high[1]) / 2;
    return column_of(r->of, r->channel, y, x);
}

/* Trees of neighbouring pixels side by side, where one load has what they read. */
static int compare_boxes(const void *a, const void *b)
{
    size_t x = middle_column(a), y = middle_column(b);
    return (x > y) - (x < y);
}

nimbus_status nimbus_groups_balance(nimbus_shape shape, size_t levels, const double *importance,
                                    nimbus_groups *groups, nimbus_error *error)
{
    const size_t d = nimbus_shape_width(shape), count = groups->n_codebooks;
    const balance b = {.shape = is_image(shape) ? shape : (nimbus_shape){1, 1, d},
                       .importance = importance,
                       .levels = (double)levels};
    size_t at = 0;
    box *boxes = nimbus_alloc(count, sizeof *boxes);
    if (!boxes)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu codebooks", count);
    for (size_t c = 0; c < b.shape.channels; c++) {
        boxes[c] = (box){.of = &b, .channel = c, .high = {b.shape.height, b.shape.width}};
        find_cut(&boxes[c]);
    }
    cut_boxes(boxes, b.shape.channels, count);
    qsort(boxes, count, sizeof *boxes, compare_boxes);
    for (size_t i = 0; i < count; i++) {
        groups->first[i] = at;
        for (size_t y = boxes[i].low[0]; y < boxes[i].high[0]; y++)
            for (size_t x = boxes[i].low[1]; x < boxes[i].high[1]; x++)
                groups->column[at++] = (uint32_t)column_of(&b, boxes[i].channel, y, x);
    }
    groups->first[count] = at;
    nimbus_free(boxes);
    return NIMBUS_OK;
}

nimbus_status nimbus_groups_new(nimbus_shape shape, size_t v, nimbus_columns columns,
                                nimbus_groups *out, nimbus_error *error)
{
    nimbus_status status;
    size_t d = nimbus_shape_width(shape);
    bool image = is_image(shape);

    memset(out, 0, sizeof *out);
    if (v < 1 || v > d)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "%zu columns per codebook, expected 1 to the layer's %zu inputs", v, d);
    if (columns == NIMBUS_COLUMNS_AUTO || columns == NIMBUS_COLUMNS_BALANCED)
        columns = image ? NIMBUS_COLUMNS_PATCH : NIMBUS_COLUMNS_BLOCK;
    if (columns == NIMBUS_COLUMNS_BLOCK || columns == NIMBUS_COLUMNS_RUNS)
        status = deal_blocks(d, v, out, error);
    else if (!image)
        status = nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                             "columns by patch or window need an image as input; this layer's is "
                             "a vector of %zu",
                             d);
    else
        status = deal_patches(shape, v, columns == NIMBUS_COLUMNS_WINDOW ? WINDOW_MARGIN : 0, out,
                              error);
    if (status != NIMBUS_OK)
        nimbus_groups_free(out);
    return status;
}
