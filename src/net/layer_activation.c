/* layer_activation.c - ReLU, GELU (exact, by erf), tanh and the logistic sigmoid */
#include "net/internal.h"

#define SQRT_HALF         ((real)0.70710678118654752440)
#define INVERSE_SQRT_2_PI ((real)0.39894228040143267794)

nimbus_status nimbus_layer_same_shape(nimbus_layer *layer, const nimbus_shape *inputs,
                                      size_t n_inputs, uint64_t seed, nimbus_error *error)
{
    (void)n_inputs, (void)seed, (void)error;
    layer->shape = inputs[0];
    return NIMBUS_OK;
}

static void over_elements(const nimbus_layer *layer, nimbus_io *io, nimbus_range_fn body)
{
    nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                           NIMBUS_GRAIN, body, io);
}

/* One activation: y as a function of x, and dy/dx as a function of x and y. */
#define ACTIVATION(title, y_of_x, slope)                                                           \
    NIMBUS_SIMD_CLONES static void title##_forward_range(void *arg, size_t begin, size_t end)      \
    {                                                                                              \
        const nimbus_io *io = arg;                                                                 \
        const real *xs = io->x[0];                                                                 \
        real *ys = io->y;                                                                          \
        for (size_t i = begin; i < end; i++) {                                                     \
            const real x = xs[i];                                                                  \
            ys[i] = (y_of_x);                                                                      \
        }                                                                                          \
    }                                                                                              \
    NIMBUS_SIMD_CLONES static void title##_backward_range(void *arg, size_t begin, size_t end)     \
    {                                                                                              \
        const nimbus_io *io = arg;                                                                 \
        const real *xs = io->x[0], *ys = io->y, *dys = io->dy;                                     \
        real *dxs = io->dx[0];                                                                     \
        for (size_t i = begin; i < end; i++) {                                                     \
            const real x = xs[i], y = ys[i];                                                       \
            (void)x, (void)y;                                                                      \
            dxs[i] += dys[i] * (slope);                                                            \
        }                                                                                          \
    }                                                                                              \
    static void title##_forward(nimbus_layer *layer, nimbus_io *io)                                \
    {                                                                                              \
        over_elements(layer, io, title##_forward_range);                                           \
    }                                                                                              \
    static void title##_backward(nimbus_layer *layer, nimbus_io *io)                               \
    {                                                                                              \
        if (io->dx[0])                                                                             \
            over_elements(layer, io, title##_backward_range);                                      \
    }                                                                                              \
    const nimbus_layer_type nimbus_layer_##title = {                                               \
        .name = #title,                                                                            \
        .min_inputs = 1,                                                                           \
        .max_inputs = 1,                                                                           \
        .setup = nimbus_layer_same_shape,                                                          \
        .forward = title##_forward,                                                                \
        .backward = title##_backward,                                                              \
    };

/* Standard normal distribution function and density, for GELU = x * Phi(x). */
static inline real normal_cdf(real x)
{
    return (1 + real_erf(x * SQRT_HALF)) / 2;
}

static inline real normal_density(real x)
{
    return INVERSE_SQRT_2_PI * NIMBUS_EXP(-x * x / 2);
}

ACTIVATION(relu, x < 0 ? 0 : x, (real)(y > 0))
ACTIVATION(gelu, x *normal_cdf(x), normal_cdf(x) + x * normal_density(x))
ACTIVATION(tanh, real_tanh(x), 1 - y * y)
ACTIVATION(sigmoid, 1 / (1 + NIMBUS_EXP(-x)), y *(1 - y))
