/* layer_input.c - the first layer: normalises raw rows, y = (x - mean[d]) * inverse_std[d]
 *
 * The raw rows stand in the pass's `saved` buffer of this layer, so that a forward pass can be
 * repeated. The proto's in_shape says what a row is. There is no backward: nothing lies below. */
#include "net/internal.h"

struct range_args {
    const nimbus_io *io;
    size_t d;
    const real *mean, *inverse_std;
};

static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    (void)inputs, (void)n_inputs, (void)seed;
    layer->shape = layer->in_shape;
    size_t d = nimbus_shape_width(layer->shape);
    nimbus_status status = nimbus_layer_add_param(layer, "mean", 1, &d, true, false, error);
    if (status == NIMBUS_OK)
        status = nimbus_layer_add_param(layer, "inverse_std", 1, &d, true, false, error);
    if (status == NIMBUS_OK) {
        real *inverse_std = nimbus_layer_param(layer, "inverse_std")->value;
        for (size_t i = 0; i < d; i++)
            inverse_std[i] = 1;
    }
    return status;
}

static size_t saved_size(const nimbus_layer *layer, size_t n_rows)
{
    return n_rows * nimbus_shape_width(layer->shape) * sizeof(real);
}

NIMBUS_SIMD_CLONES static void normalise_rows(void *arg, size_t begin, size_t end)
{
    const struct range_args *a = arg;
    const real *mean = a->mean, *inverse_std = a->inverse_std;
    for (size_t r = begin; r < end; r++) {
        const real *x = (const real *)a->io->saved + r * a->d;
        real *y = a->io->y + r * a->d;
        for (size_t i = 0; i < a->d; i++)
            y[i] = (x[i] - mean[i]) * inverse_std[i];
    }
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    struct range_args a = {io, nimbus_shape_width(layer->shape),
                           nimbus_layer_param(layer, "mean")->value,
                           nimbus_layer_param(layer, "inverse_std")->value};
    nimbus_parallel_ranges(io->n_threads, io->n_rows, NIMBUS_GRAIN / a.d + 1, normalise_rows, &a);
}

const nimbus_layer_type nimbus_layer_input = {
    .name = "input",
    .setup = setup,
    .saved_size = saved_size,
    .forward = forward,
};
