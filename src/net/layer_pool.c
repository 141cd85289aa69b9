/* layer_pool.c - the maximum or the average of every window of a channel
 *
 * Padding never wins a maximum. The backward pass of max_pool looks for the winner again: the
 * first of equals, in reading order. */
#include "net/internal.h"

/* The elements of a window along an axis that lie on the image. */
static nimbus_span elements_on(const nimbus_slide *s, size_t axis, size_t position, size_t side)
{
    return nimbus_span_on(position * s->stride[axis], s->dilation[axis], s->before[axis], side,
                          s->kernel[axis]);
}

/* Takes a kernel of {0, 0} as the whole image and checks that every window touches the image. */
static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    (void)n_inputs, (void)seed;
    nimbus_slide *s = &layer->slide;
    const size_t sides[] = {inputs[0].height, inputs[0].width};
    for (size_t i = 0; i < 2 && s->kernel[0] == 0 && s->kernel[1] == 0; i++)
        if (s->before[i] > 0 || s->after[i] > 0)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "layer %s: padding of %zu and %zu, expected none around a pool of "
                               "the whole image",
                               layer->name, s->before[i], s->after[i]);
    if (s->kernel[0] == 0 && s->kernel[1] == 0)
        for (size_t i = 0; i < 2; i++)
            s->kernel[i] = sides[i];
    nimbus_status status = nimbus_slide_setup(layer, inputs[0], inputs[0].channels, error);
    if (status != NIMBUS_OK)
        return status;
    const size_t n[] = {layer->shape.height, layer->shape.width};
    for (size_t i = 0; i < 2; i++) {
        /* Only windows whose elements lie further apart than the image is long step over it. */
        size_t step = s->dilation[i] <= sides[i] && n[i] > 1 ? n[i] - 1 : 1;
        for (size_t j = 0; j < n[i]; j += step) {
            nimbus_span span = elements_on(s, i, j, sides[i]);
            if (span.begin == span.end)
                return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                                   "layer %s: window %zu of %zu %s lies in the padding, expected "
                                   "at least one position of the image in every window",
                                   layer->name, j, n[i], i == 0 ? "downwards" : "across");
        }
    }
    return NIMBUS_OK;
}

/* Where the windows of every row and column of the output lie. */
static size_t scratch_size(const nimbus_layer *layer, size_t n_rows)
{
    (void)n_rows;
    return (layer->shape.height + layer->shape.width) * sizeof(nimbus_span);
}

static void find_spans(const nimbus_layer *layer, const nimbus_io *io)
{
    const size_t sides[] = {layer->in_shape.height, layer->in_shape.width};
    const size_t n[] = {layer->shape.height, layer->shape.width};
    nimbus_span *spans = io->scratch;
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < n[i]; j++)
            *spans++ = elements_on(&layer->slide, i, j, sides[i]);
}

/* A window: `down` rows of `across` elements. */
struct window {
    size_t first, down, across; /* first: element in its image */
    size_t step_down, step_across;
};

static real maximum_of(const struct window *w, const real *x)
{
    real most = x[w->first];
    for (size_t i = 0; i < w->down; i++)
        for (size_t j = 0; j < w->across; j++) {
            real value = x[w->first + i * w->step_down + j * w->step_across];
            most = value > most ? value : most;
        }
    return most;
}

/* Which element is the maximum. */
static size_t winner_of(const struct window *w, const real *x)
{
    size_t best = w->first;
    for (size_t i = 0; i < w->down; i++)
        for (size_t j = 0; j < w->across; j++) {
            size_t at = w->first + i * w->step_down + j * w->step_across;
            best = x[at] > x[best] ? at : best;
        }
    return best;
}

static real sum_of(const struct window *w, const real *x)
{
    real sum = 0;
    for (size_t i = 0; i < w->down; i++)
        for (size_t j = 0; j < w->across; j++)
            sum += x[w->first + i * w->step_down + j * w->step_across];
    return sum;
}

static void spread_over(const struct window *w, real value, real *dx)
{
    for (size_t i = 0; i < w->down; i++)
        for (size_t j = 0; j < w->across; j++)
            dx[w->first + i * w->step_down + j * w->step_across] += value;
}

/* What an average is divided by. */
static real count_of(const nimbus_layer *layer, const struct window *w)
{
    if (layer->count_padding)
        return (real)layer->slide.kernel[0] * (real)layer->slide.kernel[1];
    return (real)w->down * (real)w->across;
}

/* One window of one image: y from x, or dx from dy. */
static inline void pool(const nimbus_layer *layer, const struct window *w, const real *x, real *y,
                        const real *dy, real *dx)
{
    if (layer->type == &nimbus_layer_max_pool) {
        if (y)
            *y = maximum_of(w, x);
        else
            dx[winner_of(w, x)] += *dy;
    } else if (y) {
        *y = sum_of(w, x) / count_of(layer, w);
    } else {
        spread_over(w, *dy / count_of(layer, w), dx);
    }
}

/* Every window of the images of rows begin..end. */
static void pool_rows(const nimbus_call *call, size_t begin, size_t end, bool back)
{
    const nimbus_layer *layer = call->layer;
    const nimbus_io *io = call->io;
    nimbus_shape in = layer->in_shape, out = layer->shape;
    const nimbus_span *rows = io->scratch, *columns = rows + out.height;
    size_t size = in.height * in.width, at = begin * in.channels * out.height * out.width;
    struct window w = {.step_down = layer->slide.dilation[0] * in.width,
                       .step_across = layer->slide.dilation[1]};
    for (size_t image = begin * in.channels; image < end * in.channels; image++)
        for (size_t i = 0; i < out.height; i++)
            for (size_t j = 0; j < out.width; j++, at++) {
                w.first = rows[i].start * in.width + columns[j].start;
                w.down = rows[i].end - rows[i].begin;
                w.across = columns[j].end - columns[j].begin;
                pool(layer, &w, io->x[0] + image * size, back ? NULL : io->y + at,
                     back ? io->dy + at : NULL, back ? io->dx[0] + image * size : NULL);
            }
}

static void forward_rows(void *arg, size_t begin, size_t end)
{
    pool_rows(arg, begin, end, false);
}

static void backward_rows(void *arg, size_t begin, size_t end)
{
    pool_rows(arg, begin, end, true);
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    find_spans(layer, io);
    nimbus_parallel_rows(layer, io, forward_rows);
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    if (!io->dx[0])
        return;
    find_spans(layer, io);
    nimbus_parallel_rows(layer, io, backward_rows);
}

const nimbus_layer_type nimbus_layer_max_pool = {
    .name = "max_pool",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .scratch_size = scratch_size,
    .forward = forward,
    .backward = backward,
};

const nimbus_layer_type nimbus_layer_average_pool = {
    .name = "average_pool",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .scratch_size = scratch_size,
    .forward = forward,
    .backward = backward,
};
