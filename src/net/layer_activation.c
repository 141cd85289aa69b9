/* layer_activation.c - ReLU, GELU (exact, by erf), tanh, the sigmoids, clip and swish, by element
 */
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

static void over_elements(nimbus_layer *layer, nimbus_io *io, nimbus_range_fn body)
{
    nimbus_call call = {layer, io};
    nimbus_parallel_ranges(io->n_threads, io->n_rows * nimbus_shape_width(layer->shape),
                           NIMBUS_GRAIN, body, &call);
}

/* One activation: y as a function of x, and dy/dx as a function of x and y; a and b are the
 * layer's numbers. */
#define ACTIVATION(title, check, y_of_x, slope)                                                    \
    NIMBUS_SIMD_CLONES static void title##_forward_range(void *arg, size_t begin, size_t end)      \
    {                                                                                              \
        const nimbus_call *call = arg;                                                             \
        const nimbus_io *io = call->io;                                                            \
        const real a = (real)call->layer->number, b = (real)call->layer->number2;                  \
        const real *xs = io->x[0];                                                                 \
        real *ys = io->y;                                                                          \
        (void)a, (void)b;                                                                          \
        for (size_t i = begin; i < end; i++) {                                                     \
            const real x = xs[i];                                                                  \
            ys[i] = (y_of_x);                                                                      \
        }                                                                                          \
    }                                                                                              \
    NIMBUS_SIMD_CLONES static void title##_backward_range(void *arg, size_t begin, size_t end)     \
    {                                                                                              \
        const nimbus_call *call = arg;                                                             \
        const nimbus_io *io = call->io;                                                            \
        const real a = (real)call->layer->number, b = (real)call->layer->number2;                  \
        const real *xs = io->x[0], *ys = io->y, *dys = io->dy;                                     \
        real *dxs = io->dx[0];                                                                     \
        (void)a, (void)b;                                                                          \
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
        .setup = check,                                                                            \
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

static nimbus_status setup_clip(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                                uint64_t seed, nimbus_error *error)
{
    if (!(isfinite((real)layer->number) && isfinite((real)layer->number2) &&
          layer->number <= layer->number2))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: clips to %g .. %g, expected finite numbers in this order",
                           layer->name, layer->number, layer->number2);
    return nimbus_layer_same_shape(layer, inputs, n_inputs, seed, error);
}

static nimbus_status setup_hard_sigmoid(nimbus_layer *layer, const nimbus_shape *inputs,
                                        size_t n_inputs, uint64_t seed, nimbus_error *error)
{
    if (!(isfinite((real)layer->number) && isfinite((real)layer->number2)))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: a slope of %g and an offset of %g, expected finite numbers",
                           layer->name, layer->number, layer->number2);
    return nimbus_layer_same_shape(layer, inputs, n_inputs, seed, error);
}

static inline real clipped(real x, real least, real greatest)
{
    return x < least ? least : x > greatest ? greatest : x;
}

static inline real swish_slope(real x)
{
    return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + (real)0.5;
}

#define ANY nimbus_layer_same_shape
ACTIVATION(relu, ANY, x < 0 ? 0 : x, (real)(y > 0))
ACTIVATION(gelu, ANY, x *normal_cdf(x), normal_cdf(x) + x * normal_density(x))
ACTIVATION(tanh, ANY, real_tanh(x), 1 - y * y)
ACTIVATION(sigmoid, ANY, 1 / (1 + NIMBUS_EXP(-x)), y *(1 - y))
ACTIVATION(clip, setup_clip, clipped(x, a, b), (real)(x > a && x < b))
ACTIVATION(hard_sigmoid, setup_hard_sigmoid, clipped(a *x + b, 0, 1), y > 0 && y < 1 ? a : 0)
ACTIVATION(hard_swish, ANY, x *clipped(x / 6 + (real)0.5, 0, 1), swish_slope(x))
