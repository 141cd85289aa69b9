/* lookup_conv.c - trees and tables in the place of a convolution
 *
 * Every position of the output is a row of its own: its D = channels x kernel values, the patch,
 * go through the layer's trees, and the M sums become the output's channels there. Positions are
 * taken in stretches of a fixed size, through all images of the batch one after the other, so that
 * patches take little memory and results do not depend on threads. Outside of the image are zeros,
 * as in the convolution itself. */
#include <string.h>

#include "net/internal.h"
#include "net/lookup.h"

enum { STRETCH_REALS = 1 << 19, LEAST_STRETCH = 256, POSITION_GRAIN = 64 };

/* One value of a patch. */
typedef struct tap {
    uint32_t channel, down, across; /* the latter two with the dilation */
} tap;

typedef struct stretch {
    const nimbus_layer *layer;
    size_t first, n;           /* positions, counted through all images */
    const uint32_t *positions; /* [n], or NULL: from first on */
    size_t d, m;
    const tap *taps;     /* [D] */
    const size_t *shift; /* [D] from a patch's first value to each, if all lie on the image */
    const real *x;       /* images */
    real *patches;       /* [n][D] */
    real *rows;          /* [n][M] */
    real *images;        /* [N][M][positions] */
    real *dx;            /* images */
} stretch;

static size_t positions_of(const nimbus_layer *layer)
{
    return layer->shape.height * layer->shape.width;
}

static size_t stretch_of(const nimbus_layer *layer)
{
    size_t n = STRETCH_REALS / nimbus_lookup_inputs(layer);
    return n < LEAST_STRETCH ? LEAST_STRETCH : n;
}

/* ---- tables of taps ------------------------------------------------------------------------- */

static size_t table_bytes(size_t d)
{
    return d * (sizeof(size_t) + sizeof(tap));
}

/* Fills tables of table_bytes at `memory`. */
static void make_tables(const nimbus_layer *layer, void *memory, stretch *s)
{
    const nimbus_slide *slide = &layer->slide;
    const nimbus_shape in = layer->in_shape;
    const size_t n_taps = slide->kernel[0] * slide->kernel[1];
    s->layer = layer;
    s->d = nimbus_lookup_inputs(layer);
    s->m = nimbus_lookup_outputs(layer);
    size_t *shift = memory;
    tap *taps = (tap *)(void *)(shift + s->d);
    for (size_t d = 0; d < s->d; d++) {
        size_t channel = d / n_taps;
        size_t down = d % n_taps / slide->kernel[1] * slide->dilation[0];
        size_t across = d % slide->kernel[1] * slide->dilation[1];
        taps[d] = (tap){(uint32_t)channel, (uint32_t)down, (uint32_t)across};
        shift[d] = (channel * in.height + down) * in.width + across;
    }
    s->taps = taps;
    s->shift = shift;
}

/* Where the patch of a position lies: row and column of its first value, counted with the padding,
 * and whether all of it is on the image. */
typedef struct place {
    size_t image, row, column;
    bool inside;
} place;

static place place_of(const stretch *s, size_t position)
{
    const nimbus_layer *layer = s->layer;
    const nimbus_slide *slide = &layer->slide;
    size_t p = position % positions_of(layer);
    place at = {.image = position / positions_of(layer),
                .row = p / layer->shape.width * slide->stride[0],
                .column = p % layer->shape.width * slide->stride[1]};
    const tap *last = &s->taps[s->d - 1];
    at.inside = at.row >= slide->before[0] && at.column >= slide->before[1] &&
                at.row + last->down < slide->before[0] + layer->in_shape.height &&
                at.column + last->across < slide->before[1] + layer->in_shape.width;
    return at;
}

/* Place in the image of tap d of the patch at `at`; false if it lies in the padding. */
static bool find_tap(const stretch *s, const place *at, size_t d, size_t *out)
{
    const nimbus_slide *slide = &s->layer->slide;
    const nimbus_shape in = s->layer->in_shape;
    size_t row = at->row + s->taps[d].down, column = at->column + s->taps[d].across;
    if (row < slide->before[0] || row - slide->before[0] >= in.height ||
        column < slide->before[1] || column - slide->before[1] >= in.width)
        return false;
    *out = (s->taps[d].channel * in.height + row - slide->before[0]) * in.width + column -
           slide->before[1];
    return true;
}

/* ---- images to patches and back ------------------------------------------------------------- */

static void gather(void *arg, size_t begin, size_t end)
{
    const stretch *s = arg;
    const nimbus_shape in = s->layer->in_shape;
    const nimbus_slide *slide = &s->layer->slide;
    for (size_t i = begin; i < end; i++) {
        place at = place_of(s, s->positions ? s->positions[i] : s->first + i);
        const real *image = s->x + at.image * nimbus_shape_width(in);
        real *patch = s->patches + i * s->d;
        if (at.inside) {
            const real *from =
                image + (at.row - slide->before[0]) * in.width + at.column - slide->before[1];
            for (size_t d = 0; d < s->d; d++)
                patch[d] = from[s->shift[d]];
            continue;
        }
        for (size_t d = 0, where; d < s->d; d++)
            patch[d] = find_tap(s, &at, d, &where) ? image[where] : 0;
    }
}

/* The gradients of patches, added to those of the images; item: an image of the stretch. */
static void scatter(void *arg, size_t item)
{
    const stretch *s = arg;
    const nimbus_shape in = s->layer->in_shape;
    const nimbus_slide *slide = &s->layer->slide;
    const size_t n_positions = positions_of(s->layer), image = s->first / n_positions + item;
    size_t begin = image * n_positions, end = begin + n_positions;
    begin = begin > s->first ? begin : s->first;
    end = end < s->first + s->n ? end : s->first + s->n;
    real *dx = s->dx + image * nimbus_shape_width(in);
    for (size_t position = begin; position < end; position++) {
        place at = place_of(s, position);
        const real *patch = s->patches + (position - s->first) * s->d;
        if (at.inside) {
            real *to = dx + (at.row - slide->before[0]) * in.width + at.column - slide->before[1];
            for (size_t d = 0; d < s->d; d++)
                to[s->shift[d]] += patch[d];
            continue;
        }
        for (size_t d = 0, where; d < s->d; d++)
            if (find_tap(s, &at, d, &where))
                dx[where] += patch[d];
    }
}

static real *output_of(const stretch *s, size_t position)
{
    const size_t n_positions = positions_of(s->layer);
    return s->images + position / n_positions * n_positions * s->m + position % n_positions;
}

static void rows_to_images(void *arg, size_t begin, size_t end)
{
    const stretch *s = arg;
    const size_t n_positions = positions_of(s->layer);
    for (size_t i = begin; i < end; i++) {
        real *to = output_of(s, s->first + i);
        for (size_t m = 0; m < s->m; m++)
            to[m * n_positions] = s->rows[i * s->m + m];
    }
}

static void images_to_rows(void *arg, size_t begin, size_t end)
{
    const stretch *s = arg;
    const size_t n_positions = positions_of(s->layer);
    for (size_t i = begin; i < end; i++) {
        const real *from = output_of(s, s->first + i);
        for (size_t m = 0; m < s->m; m++)
            s->rows[i * s->m + m] = from[m * n_positions];
    }
}

nimbus_status nimbus_lookup_conv_patches(const nimbus_layer *layer, const real *x,
                                         const uint32_t *positions, size_t n, real *out,
                                         unsigned n_threads, nimbus_error *error)
{
    void *tables = nimbus_alloc(table_bytes(nimbus_lookup_inputs(layer)), 1);
    if (!tables)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for patches",
                           layer->name);
    stretch s = {.n = n, .positions = positions, .x = x, .patches = out};
    make_tables(layer, tables, &s);
    nimbus_parallel_ranges(n_threads, n, POSITION_GRAIN, gather, &s);
    nimbus_free(tables);
    return NIMBUS_OK;
}

/* ---- forward and backward ------------------------------------------------------------------- */

size_t nimbus_lookup_conv_saved_size(const nimbus_layer *layer, size_t n_rows)
{
    size_t positions, codes;
    return nimbus_mul_overflows(n_rows, positions_of(layer), &positions) ||
                   nimbus_mul_overflows(positions, layer->lookup->n_codebooks, &codes)
               ? SIZE_MAX
               : codes;
}

/* Tables, then for a stretch: patches and their gradients, rows, the trees' work space. */
size_t nimbus_lookup_conv_scratch_size(const nimbus_layer *layer, size_t n_rows)
{
    (void)n_rows;
    size_t d = nimbus_lookup_inputs(layer), m = nimbus_lookup_outputs(layer), patches;
    size_t n = stretch_of(layer), work = nimbus_lookup_work_size(layer, n);
    if (nimbus_mul_overflows(n, (2 * d + m) * sizeof(real), &patches) || work > SIZE_MAX - patches)
        return SIZE_MAX;
    size_t size = work + patches;
    return size > SIZE_MAX - table_bytes(d) ? SIZE_MAX : size + table_bytes(d);
}

typedef struct buffers {
    real *patches, *dpatches, *rows;
    void *work;
} buffers;

static buffers buffers_of(const stretch *s, void *scratch)
{
    size_t n = stretch_of(s->layer);
    buffers b = {.patches = (real *)(void *)((char *)scratch + table_bytes(s->d))};
    b.dpatches = b.patches + n * s->d;
    b.rows = b.dpatches + n * s->d;
    b.work = b.rows + n * s->m;
    return b;
}

void nimbus_lookup_conv_forward(nimbus_layer *layer, nimbus_io *io)
{
    const size_t n_positions = io->n_rows * positions_of(layer), step = stretch_of(layer);
    stretch s = {.x = io->x[0], .images = io->y};
    make_tables(layer, io->scratch, &s);
    const buffers b = buffers_of(&s, io->scratch);
    s.patches = b.patches;
    s.rows = b.rows;
    for (s.first = 0; s.first < n_positions; s.first += step) {
        s.n = n_positions - s.first < step ? n_positions - s.first : step;
        nimbus_parallel_ranges(io->n_threads, s.n, POSITION_GRAIN, gather, &s);
        nimbus_lookup_rows rows = {.first = s.first,
                                   .n_rows = s.n,
                                   .x = b.patches,
                                   .y = b.rows,
                                   .codes =
                                       (uint8_t *)io->saved + s.first * layer->lookup->n_codebooks};
        nimbus_lookup_forward(layer, io, &rows);
        nimbus_parallel_ranges(io->n_threads, s.n, POSITION_GRAIN, rows_to_images, &s);
    }
}

void nimbus_lookup_conv_backward(nimbus_layer *layer, nimbus_io *io)
{
    const size_t per_image = positions_of(layer), n_positions = io->n_rows * per_image;
    const size_t step = stretch_of(layer);
    stretch s = {.x = io->x[0], .images = (real *)io->dy, .dx = io->dx[0]};
    make_tables(layer, io->scratch, &s);
    const buffers b = buffers_of(&s, io->scratch);
    s.rows = b.rows;
    for (s.first = 0; s.first < n_positions; s.first += step) {
        s.n = n_positions - s.first < step ? n_positions - s.first : step;
        s.patches = b.patches;
        nimbus_parallel_ranges(io->n_threads, s.n, POSITION_GRAIN, gather, &s);
        nimbus_parallel_ranges(io->n_threads, s.n, POSITION_GRAIN, images_to_rows, &s);
        if (s.dx)
            memset(b.dpatches, 0, s.n * s.d * sizeof *b.dpatches);
        nimbus_lookup_rows rows = {.first = s.first,
                                   .n_rows = s.n,
                                   .x = b.patches,
                                   .dy = b.rows,
                                   .dx = s.dx ? b.dpatches : NULL,
                                   .codes =
                                       (uint8_t *)io->saved + s.first * layer->lookup->n_codebooks,
                                   .work = b.work};
        nimbus_lookup_backward(layer, io, &rows);
        s.patches = b.dpatches;
        size_t last_image = (s.first + s.n - 1) / per_image;
        if (s.dx)
            nimbus_parallel(io->n_threads, last_image - s.first / per_image + 1, scatter, &s);
    }
}
