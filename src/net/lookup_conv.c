/* lookup_conv.c - trees and tables in the place of a convolution
 *
 * Every position of the output is a row of its own: its D = channels x kernel values, the patch,
 * go through the layer's trees, and the M sums become the output's channels there. Positions are
 * taken in stretches of a fixed size, through all images of the batch one after the other, so that
 * patches stay in the cache and results do not depend on threads; within a stretch patches lie in
 * blocks, [D][NIMBUS_ROW_BLOCK], so that neighbours on the image are neighbours in memory. Outside
 * of the image are zeros, as in the convolution itself. */
#include <string.h>

#include "net/internal.h"
#include "net/lookup.h"
#include "net/simd.h"

enum {
    STRETCH_REALS = 1 << 17,
    LEAST_STRETCH = 256,
    POSITION_GRAIN = 64,
    BLOCK = NIMBUS_ROW_BLOCK
};

typedef struct stretch {
    const nimbus_layer *layer;
    size_t first, n;           /* positions, counted through all images */
    const uint32_t *positions; /* [n], or NULL: from first on */
    size_t d, m;
    const real *x; /* images */
    real *patches; /* [blocks][D][BLOCK], as nimbus_lookup_rows has them */
    real *rows;    /* [n][M] */
    real *images;  /* [N][M][positions] */
    real *dx;      /* images */
} stretch;

static size_t positions_of(const nimbus_layer *layer)
{
    return layer->shape.height * layer->shape.width;
}

static stretch stretch_start(const nimbus_layer *layer, const real *x)
{
    return (stretch){.layer = layer,
                     .d = nimbus_lookup_inputs(layer),
                     .m = nimbus_lookup_outputs(layer),
                     .x = x};
}

/* Whole blocks. */
static size_t stretch_of(const nimbus_layer *layer)
{
    size_t n = STRETCH_REALS / nimbus_lookup_inputs(layer) / BLOCK * BLOCK;
    return n < LEAST_STRETCH ? LEAST_STRETCH : n;
}

/* ---- images to patches and back ------------------------------------------------------------- */

/* Positions first .. first + n - 1 of a block, all on one image. */
typedef struct run {
    size_t first, n, image;
    int32_t row[BLOCK], column[BLOCK]; /* of a patch's first value: negative in the padding */
} run;

static size_t position_at(const stretch *s, size_t i)
{
    return s->positions ? s->positions[i] : s->first + i;
}

/* The run that begins at row `first` of a block of n rows. */
static void find_run(const stretch *s, size_t block, size_t first, size_t n, run *out)
{
    const nimbus_slide *slide = &s->layer->slide;
    const size_t per_image = positions_of(s->layer), width = s->layer->shape.width;
    out->first = first;
    out->image = position_at(s, block * BLOCK + first) / per_image;
    for (out->n = 0; first + out->n < n; out->n++) {
        size_t position = position_at(s, block * BLOCK + first + out->n);
        if (position / per_image != out->image)
            return;
        position %= per_image;
        out->row[out->n] =
            (int32_t)(position / width * slide->stride[0]) - (int32_t)slide->before[0];
        out->column[out->n] =
            (int32_t)(position % width * slide->stride[1]) - (int32_t)slide->before[1];
    }
}

/* Where the values lie that one element of the kernel sees from a run's positions. */
typedef struct tap {
    int32_t offset[BLOCK]; /* within a channel's plane; 0 if outside */
    int32_t inside[BLOCK]; /* 1 or 0 */
    bool plain;            /* all inside, one after the other */
} tap;

NIMBUS_INLINE void find_tap(const stretch *s, const run *on, size_t k, tap *restrict out)
{
    const nimbus_slide *slide = &s->layer->slide;
    const int32_t height = (int32_t)s->layer->in_shape.height;
    const int32_t width = (int32_t)s->layer->in_shape.width;
    const int32_t down = (int32_t)(k / slide->kernel[1] * slide->dilation[0]);
    const int32_t across = (int32_t)(k % slide->kernel[1] * slide->dilation[1]);
    int32_t outside = 0;
    for (size_t r = 0; r < on->n; r++) {
        int32_t row = on->row[r] + down, column = on->column[r] + across;
        int32_t inside = (row >= 0) & (row < height) & (column >= 0) & (column < width);
        out->inside[r] = inside;
        out->offset[r] = inside ? row * width + column : 0;
        outside += 1 - inside;
    }
    for (size_t r = 0; r < on->n; r++)
        outside += out->offset[r] != out->offset[0] + (int32_t)r;
    out->plain = outside == 0;
}

/* first: where the run's first row goes; its columns lie `column` apart, its rows side by side. */
NIMBUS_SIMD_CLONES
static void gather_run(const stretch *s, const run *on, real *first, size_t column)
{
    const nimbus_slide *slide = &s->layer->slide;
    const nimbus_shape in = s->layer->in_shape;
    const size_t n_taps = slide->kernel[0] * slide->kernel[1], n = on->n;
    const real *image = s->x + on->image * nimbus_shape_width(in);
    tap at;
    for (size_t k = 0; k < n_taps; k++) {
        find_tap(s, on, k, &at);
        for (size_t channel = 0; channel < in.channels; channel++) {
            const real *restrict from = image + channel * in.height * in.width;
            real *restrict to = first + (channel * n_taps + k) * column;
            if (at.plain)
                memcpy(to, from + at.offset[0], n * sizeof *to);
            else if (n == BLOCK)
                for (size_t r = 0; r < BLOCK; r++) {
                    real value = from[at.offset[r]];
                    to[r] = at.inside[r] ? value : 0;
                }
            else
                for (size_t r = 0; r < n; r++)
                    to[r] = at.inside[r] ? from[at.offset[r]] : 0;
        }
    }
}

/* The gradients of a run's patches, added to those of the image. An element of the kernel sees
 * every value from one position at most. */
NIMBUS_SIMD_CLONES
static void scatter_run(const stretch *s, const run *on, const real *block)
{
    const nimbus_slide *slide = &s->layer->slide;
    const nimbus_shape in = s->layer->in_shape;
    const size_t n_taps = slide->kernel[0] * slide->kernel[1], n = on->n;
    real *image = s->dx + on->image * nimbus_shape_width(in);
    tap at;
    for (size_t k = 0; k < n_taps; k++) {
        find_tap(s, on, k, &at);
        for (size_t channel = 0; channel < in.channels; channel++) {
            real *restrict to = image + channel * in.height * in.width;
            const real *restrict from = block + (channel * n_taps + k) * BLOCK + on->first;
            if (at.plain)
                for (size_t r = 0; r < n; r++)
                    to[(size_t)at.offset[0] + r] += from[r];
            else
                for (size_t r = 0; r < n; r++)
                    if (at.inside[r])
                        to[at.offset[r]] += from[r];
        }
    }
}

static void gather_block(const stretch *s, size_t block, real *out)
{
    run on;
    for (size_t r = 0, n = nimbus_rows_in_block(s->n, block); r < n; r += on.n) {
        find_run(s, block, r, n, &on);
        gather_run(s, &on, out + r, BLOCK);
    }
}

static void gather(void *arg, size_t block)
{
    const stretch *s = arg;
    gather_block(s, block, s->patches + block * BLOCK * s->d);
}

/* item: an image of the stretch. */
static void scatter(void *arg, size_t item)
{
    const stretch *s = arg;
    const size_t per_image = positions_of(s->layer), image = s->first / per_image + item;
    size_t begin = image * per_image, end = begin + per_image;
    begin = begin > s->first ? begin - s->first : 0;
    end = end < s->first + s->n ? end - s->first : s->n;
    run on;
    for (size_t i = begin; i < end; i += on.n) {
        size_t block = i / BLOCK, last = end - block * BLOCK;
        find_run(s, block, i % BLOCK, last < BLOCK ? last : BLOCK, &on);
        scatter_run(s, &on, s->patches + block * BLOCK * s->d);
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

static void gather_rows(void *arg, size_t begin, size_t end)
{
    const stretch *s = arg;
    run on;
    for (size_t i = begin; i < end; i++) {
        find_run(s, i / BLOCK, i % BLOCK, i % BLOCK + 1, &on);
        gather_run(s, &on, s->patches + i * s->d, 1);
    }
}

void nimbus_lookup_conv_patches(const nimbus_layer *layer, const real *x, const uint32_t *positions,
                                size_t n, real *out, unsigned n_threads)
{
    stretch s = stretch_start(layer, x);
    s.n = n;
    s.positions = positions;
    s.patches = out;
    nimbus_parallel_ranges(n_threads, n, POSITION_GRAIN, gather_rows, &s);
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

/* Of a stretch: patches and their gradients, rows, the trees' work space. */
size_t nimbus_lookup_conv_scratch_size(const nimbus_layer *layer, size_t n_rows)
{
    (void)n_rows;
    size_t d = nimbus_lookup_inputs(layer), m = nimbus_lookup_outputs(layer), patches;
    size_t n = stretch_of(layer), work = nimbus_lookup_work_size(layer, n);
    return nimbus_mul_overflows(n, (2 * d + m) * sizeof(real), &patches) ||
                   work > SIZE_MAX - patches
               ? SIZE_MAX
               : work + patches;
}

typedef struct buffers {
    real *patches, *dpatches, *rows;
    void *work;
} buffers;

static buffers buffers_of(const stretch *s, void *scratch)
{
    size_t n = stretch_of(s->layer);
    buffers b = {.patches = scratch};
    b.dpatches = b.patches + n * s->d;
    b.rows = b.dpatches + n * s->d;
    b.work = b.rows + n * s->m;
    return b;
}

void nimbus_lookup_conv_forward(nimbus_layer *layer, nimbus_io *io)
{
    const size_t n_positions = io->n_rows * positions_of(layer), step = stretch_of(layer);
    stretch s = stretch_start(layer, io->x[0]);
    s.images = io->y;
    const buffers b = buffers_of(&s, io->scratch);
    s.patches = b.patches;
    s.rows = b.rows;
    for (s.first = 0; s.first < n_positions; s.first += step) {
        s.n = n_positions - s.first < step ? n_positions - s.first : step;
        nimbus_parallel(io->n_threads, nimbus_row_blocks(s.n), gather, &s);
        nimbus_lookup_rows rows = {.first = s.first,
                                   .n_rows = s.n,
                                   .blocks = true,
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
    stretch s = stretch_start(layer, io->x[0]);
    s.images = (real *)io->dy;
    s.dx = io->dx[0];
    const buffers b = buffers_of(&s, io->scratch);
    s.rows = b.rows;
    for (s.first = 0; s.first < n_positions; s.first += step) {
        s.n = n_positions - s.first < step ? n_positions - s.first : step;
        s.patches = b.patches;
        nimbus_parallel(io->n_threads, nimbus_row_blocks(s.n), gather, &s);
        nimbus_parallel_ranges(io->n_threads, s.n, POSITION_GRAIN, images_to_rows, &s);
        if (s.dx)
            memset(b.dpatches, 0, nimbus_row_blocks(s.n) * BLOCK * s.d * sizeof *b.dpatches);
        nimbus_lookup_rows rows = {.first = s.first,
                                   .n_rows = s.n,
                                   .blocks = true,
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
