/* columns.c - deal the input columns of a layer to its codebooks */
#include <string.h>

#include "convert/convert.h"

enum { WINDOW_MARGIN = 2 }; /* a window reaches this far beyond its patch on every side */

void nimbus_groups_free(nimbus_groups *groups)
{
    nimbus_free(groups->first);
    nimbus_free(groups->column);
    memset(groups, 0, sizeof *groups);
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

nimbus_status nimbus_groups_new(nimbus_shape shape, size_t v, nimbus_columns columns,
                                nimbus_groups *out, nimbus_error *error)
{
    nimbus_status status;
    size_t d = nimbus_shape_width(shape);
    bool image = shape.height > 1 && shape.width > 1;

    memset(out, 0, sizeof *out);
    if (v < 1 || v > d)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "%zu columns per codebook, expected 1 to the layer's %zu inputs", v, d);
    if (columns == NIMBUS_COLUMNS_AUTO)
        columns = image ? NIMBUS_COLUMNS_PATCH : NIMBUS_COLUMNS_BLOCK;
    if (columns == NIMBUS_COLUMNS_BLOCK)
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
