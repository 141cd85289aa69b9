/* layer_dropout.c - in training sets a share of the inputs to 0 and scales up the rest
 *
 * The mask is a function of (seed, step, layer name, position) alone, so a resumed training draws
 * the same one. `number` is the share dropped. */
#include <string.h>

#include "net/internal.h"

struct mask_args {
    const nimbus_io *io;
    uint64_t stream;
    uint32_t threshold; /* dropped below */
    real scale;
};

static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    if (!(layer->number >= 0 && layer->number < 1))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: dropout rate %g, expected 0 <= rate < 1", layer->name,
                           layer->number);
    return nimbus_layer_same_shape(layer, inputs, n_inputs, seed, error);
}

static size_t saved_size(const nimbus_layer *layer, size_t n_rows)
{
    return n_rows * nimbus_shape_width(layer->shape) * sizeof(real);
}

/* Draws the factors 0 or scale into `saved` and applies them; a draw serves two elements. Chunks
 * begin at even positions, so pairs do not depend on them. */
static void drop_range(void *arg, size_t begin, size_t end)
{
    const struct mask_args *a = arg;
    const nimbus_io *io = a->io;
    real *factor = io->saved;
    for (size_t first = begin; first < end; first += 2) {
        uint64_t draw = nimbus_random_u64(io->seed, a->stream, first / 2);
        for (size_t i = first; i < end && i < first + 2; i++, draw >>= 32) {
            factor[i] = (uint32_t)draw < a->threshold ? 0 : a->scale;
            io->y[i] = io->x[0][i] * factor[i];
        }
    }
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    size_t n = io->n_rows * nimbus_shape_width(layer->shape);
    if (!io->training) {
        memcpy(io->y, io->x[0], n * sizeof(real));
        return;
    }
    uint64_t name = nimbus_crc32c(0, layer->name, strlen(layer->name));
    struct mask_args a = {io, name << 32 ^ io->step, (uint32_t)(layer->number * 4294967296.0),
                          (real)(1 / (1 - layer->number))};
    nimbus_parallel_ranges(io->n_threads, n, NIMBUS_GRAIN, drop_range, &a);
}

NIMBUS_SIMD_CLONES static void backward_range(void *arg, size_t begin, size_t end)
{
    const nimbus_io *io = arg;
    const real *factor = io->saved, *dy = io->dy;
    real *dx = io->dx[0];
    for (size_t i = begin; i < end; i++)
        dx[i] += dy[i] * factor[i];
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    if (io->dx[0])
        nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                               NIMBUS_GRAIN, backward_range, io);
}

const nimbus_layer_type nimbus_layer_dropout = {
    .name = "dropout",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .saved_size = saved_size,
    .forward = forward,
    .backward = backward,
};
