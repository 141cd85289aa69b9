/* layer_shape.c - the same values in another shape or order: flatten, reshape, transpose */
#include <string.h>

#include "net/internal.h"

NIMBUS_SIMD_CLONES static void copy_range(void *arg, size_t begin, size_t end)
{
    const nimbus_io *io = arg;
    memcpy(io->y + begin, io->x[0] + begin, (end - begin) * sizeof(real));
}

NIMBUS_SIMD_CLONES static void add_range(void *arg, size_t begin, size_t end)
{
    const nimbus_io *io = arg;
    const real *dy = io->dy;
    real *dx = io->dx[0];
    for (size_t i = begin; i < end; i++)
        dx[i] += dy[i];
}

static void copy_forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                           NIMBUS_GRAIN, copy_range, io);
}

static void copy_backward(nimbus_layer *layer, nimbus_io *io)
{
    if (io->dx[0])
        nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                               NIMBUS_GRAIN, add_range, io);
}

static nimbus_status setup_flatten(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                                   uint64_t seed, nimbus_error *error)
{
    (void)n_inputs, (void)seed;
    nimbus_shape vector = {nimbus_shape_width(inputs[0]), 1, 1};
    return nimbus_layer_set_shape(layer, vector, error);
}

static nimbus_status setup_reshape(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                                   uint64_t seed, nimbus_error *error)
{
    (void)n_inputs, (void)seed;
    nimbus_shape from = inputs[0], to = layer->new_shape;
    nimbus_status status = nimbus_layer_set_shape(layer, to, error);
    if (status == NIMBUS_OK && nimbus_shape_width(from) != nimbus_shape_width(to))
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "layer %s: a new shape of %zu x %zu x %zu, expected as many values as "
                           "in %zu x %zu x %zu",
                           layer->name, to.channels, to.height, to.width, from.channels,
                           from.height, from.width);
    return status;
}

static nimbus_status setup_transpose(nimbus_layer *layer, const nimbus_shape *inputs,
                                     size_t n_inputs, uint64_t seed, nimbus_error *error)
{
    (void)n_inputs, (void)seed;
    const uint8_t *order = layer->order;
    const size_t sides[] = {inputs[0].channels, inputs[0].height, inputs[0].width};
    unsigned seen = 0;
    for (size_t i = 0; i < 3; i++)
        seen |= order[i] < 3 ? 1u << order[i] : 0;
    if (seen != 7)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: an order of axes %u, %u, %u, expected 0, 1 and 2 once each",
                           layer->name, order[0], order[1], order[2]);
    nimbus_shape shape = {sides[order[0]], sides[order[1]], sides[order[2]]};
    return nimbus_layer_set_shape(layer, shape, error);
}

/* Moves rows begin..end between input and output order: y from x, or dx from dy. */
static void transpose_rows(const nimbus_call *call, size_t begin, size_t end, bool back)
{
    const nimbus_io *io = call->io;
    nimbus_shape in = call->layer->in_shape, out = call->layer->shape;
    const size_t steps[] = {in.height * in.width, in.width, 1};
    const uint8_t *order = call->layer->order;
    size_t width = nimbus_shape_width(in), step = steps[order[2]];
    for (size_t r = begin, at = begin * width; r < end; r++)
        for (size_t i = 0; i < out.channels; i++)
            for (size_t j = 0; j < out.height; j++) {
                size_t from = r * width + i * steps[order[0]] + j * steps[order[1]];
                for (size_t k = 0; k < out.width; k++, at++)
                    if (back)
                        io->dx[0][from + k * step] += io->dy[at];
                    else
                        io->y[at] = io->x[0][from + k * step];
            }
}

static void transpose_forward_rows(void *arg, size_t begin, size_t end)
{
    transpose_rows(arg, begin, end, false);
}

static void transpose_backward_rows(void *arg, size_t begin, size_t end)
{
    transpose_rows(arg, begin, end, true);
}

static void transpose_forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_rows(layer, io, transpose_forward_rows);
}

static void transpose_backward(nimbus_layer *layer, nimbus_io *io)
{
    if (io->dx[0])
        nimbus_parallel_rows(layer, io, transpose_backward_rows);
}

const nimbus_layer_type nimbus_layer_flatten = {
    .name = "flatten",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup_flatten,
    .forward = copy_forward,
    .backward = copy_backward,
};

const nimbus_layer_type nimbus_layer_reshape = {
    .name = "reshape",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup_reshape,
    .forward = copy_forward,
    .backward = copy_backward,
};

const nimbus_layer_type nimbus_layer_transpose = {
    .name = "transpose",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup_transpose,
    .forward = transpose_forward,
    .backward = transpose_backward,
};
