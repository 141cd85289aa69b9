/* layer_join.c - several inputs to one output: added, or side by side along the channels */
#include <string.h>

#include "net/internal.h"

static nimbus_status mismatch(const nimbus_layer *layer, const nimbus_shape *inputs, size_t i,
                              const char *expected, nimbus_error *error)
{
    return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                       "layer %s: input %zu is %zu x %zu x %zu, expected %s of input 0, %zu x %zu "
                       "x %zu",
                       layer->name, i, inputs[i].channels, inputs[i].height, inputs[i].width,
                       expected, inputs[0].channels, inputs[0].height, inputs[0].width);
}

static nimbus_status setup_add(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                               uint64_t seed, nimbus_error *error)
{
    (void)seed;
    for (size_t i = 1; i < n_inputs; i++)
        if (inputs[i].channels != inputs[0].channels || inputs[i].height != inputs[0].height ||
            inputs[i].width != inputs[0].width)
            return mismatch(layer, inputs, i, "the shape", error);
    return nimbus_layer_set_shape(layer, inputs[0], error);
}

NIMBUS_SIMD_CLONES static void add_forward_range(void *arg, size_t begin, size_t end)
{
    const nimbus_io *io = arg;
    const real *a = io->x[0], *b = io->x[1];
    real *y = io->y;
    for (size_t i = begin; i < end; i++)
        y[i] = a[i] + b[i];
    for (size_t j = 2; j < io->n_inputs; j++) {
        const real *x = io->x[j];
        for (size_t i = begin; i < end; i++)
            y[i] += x[i];
    }
}

NIMBUS_SIMD_CLONES static void add_backward_range(void *arg, size_t begin, size_t end)
{
    const nimbus_io *io = arg;
    const real *dy = io->dy;
    for (size_t j = 0; j < io->n_inputs; j++) {
        real *dx = io->dx[j];
        for (size_t i = begin; dx && i < end; i++)
            dx[i] += dy[i];
    }
}

static void add_forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                           NIMBUS_GRAIN, add_forward_range, io);
}

static void add_backward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                           NIMBUS_GRAIN, add_backward_range, io);
}

static nimbus_status setup_concat(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                                  uint64_t seed, nimbus_error *error)
{
    (void)seed;
    nimbus_shape shape = inputs[0];
    for (size_t i = 1; i < n_inputs; i++) {
        if (inputs[i].height != shape.height || inputs[i].width != shape.width)
            return mismatch(layer, inputs, i, "height and width", error);
        shape.channels += inputs[i].channels;
    }
    return nimbus_layer_set_shape(layer, shape, error);
}

/* Copies the inputs' rows side by side, or adds the parts of dy to their gradients. */
static void concat_rows(const nimbus_call *call, size_t begin, size_t end, bool back)
{
    const nimbus_io *io = call->io;
    const nimbus_layer *layer = call->layer;
    size_t width = nimbus_shape_width(layer->shape), at = 0;
    for (size_t j = 0; j < io->n_inputs; j++) {
        size_t n = layer->in_channels[j] * layer->shape.height * layer->shape.width;
        for (size_t r = begin; r < end; r++) {
            if (!back) {
                memcpy(io->y + r * width + at, io->x[j] + r * n, n * sizeof(real));
                continue;
            }
            const real *dy = io->dy + r * width + at;
            real *dx = io->dx[j] ? io->dx[j] + r * n : NULL;
            for (size_t i = 0; dx && i < n; i++)
                dx[i] += dy[i];
        }
        at += n;
    }
}

static void concat_forward_rows(void *arg, size_t begin, size_t end)
{
    concat_rows(arg, begin, end, false);
}

static void concat_backward_rows(void *arg, size_t begin, size_t end)
{
    concat_rows(arg, begin, end, true);
}

static void concat_forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_rows(layer, io, concat_forward_rows);
}

static void concat_backward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_rows(layer, io, concat_backward_rows);
}

const nimbus_layer_type nimbus_layer_add = {
    .name = "add",
    .min_inputs = 2,
    .max_inputs = NIMBUS_MAX_LAYER_INPUTS,
    .setup = setup_add,
    .forward = add_forward,
    .backward = add_backward,
};

const nimbus_layer_type nimbus_layer_concat = {
    .name = "concat",
    .min_inputs = 2,
    .max_inputs = NIMBUS_MAX_LAYER_INPUTS,
    .setup = setup_concat,
    .forward = concat_forward,
    .backward = concat_backward,
};
