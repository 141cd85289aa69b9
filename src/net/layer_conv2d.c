/* layer_conv2d.c - convolution of images, y[m] = bias[m] + sum over c of weight[m][c] * x[c]
 *
 * The output channels are cut into `groups`, each of which sees its share of the input channels. */
#include "net/internal.h"

static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    (void)n_inputs;
    size_t m = layer->units, channels = inputs[0].channels;
    layer->groups = layer->groups ? layer->groups : 1;
    size_t groups = layer->groups;
    if (m == 0 || m > NIMBUS_MAX_WIDTH || m % groups != 0 || channels % groups != 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: %zu output channels in %zu groups, expected 1 to %u, and "
                           "groups that divide them and the %zu input channels",
                           layer->name, m, groups, NIMBUS_MAX_WIDTH, channels);
    if (layer->bare)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: bare, expected a convolution with weights", layer->name);
    nimbus_status status = nimbus_slide_setup(layer, inputs[0], m, error);
    if (status != NIMBUS_OK)
        return status;
    size_t height = layer->slide.kernel[0], width = layer->slide.kernel[1];
    size_t shape[4] = {m, channels / groups, height, width};
    status = nimbus_layer_add_param(layer, "weight", 4, shape, false, true, error);
    if (status == NIMBUS_OK)
        status = nimbus_layer_add_param(layer, "bias", 1, &m, false, false, error);
    if (status == NIMBUS_OK)
        nimbus_layer_start_weight(layer, layer->params[0].n / m, seed);
    return status;
}

/* The outputs of a channel that one weight takes part in, a rectangle, and what it multiplies. */
struct tap {
    nimbus_span rows, columns;
    size_t weight; /* index */
    size_t x, y;   /* first element, in the input's and the output's channel */
};

static struct tap tap_at(const nimbus_layer *layer, size_t i, size_t j)
{
    const nimbus_slide *s = &layer->slide;
    nimbus_shape in = layer->in_shape, out = layer->shape;
    struct tap t = {.rows = nimbus_slide_outputs(s, 0, i, in.height, out.height),
                    .columns = nimbus_slide_outputs(s, 1, j, in.width, out.width)};
    t.x = t.rows.start * in.width + t.columns.start;
    t.y = t.rows.begin * out.width + t.columns.begin;
    return t;
}

/* y += weight * x over the rectangle. */
NIMBUS_SIMD_CLONES static void tap_forward(const nimbus_layer *layer, const struct tap *t, real w,
                                           const real *x, real *y)
{
    size_t step = layer->slide.stride[1], n = t->columns.end - t->columns.begin;
    size_t down = layer->slide.stride[0] * layer->in_shape.width;
    for (size_t i = 0; i < t->rows.end - t->rows.begin; i++) {
        const real *from = x + t->x + i * down;
        real *to = y + t->y + i * layer->shape.width;
        if (step == 1)
            for (size_t j = 0; j < n; j++)
                to[j] += w * from[j];
        else
            for (size_t j = 0; j < n; j++)
                to[j] += w * from[j * step];
    }
}

/* dx += weight * dy over the rectangle. */
NIMBUS_SIMD_CLONES static void tap_inputs(const nimbus_layer *layer, const struct tap *t, real w,
                                          const real *dy, real *dx)
{
    size_t step = layer->slide.stride[1], n = t->columns.end - t->columns.begin;
    size_t down = layer->slide.stride[0] * layer->in_shape.width;
    for (size_t i = 0; i < t->rows.end - t->rows.begin; i++) {
        const real *from = dy + t->y + i * layer->shape.width;
        real *to = dx + t->x + i * down;
        if (step == 1)
            for (size_t j = 0; j < n; j++)
                to[j] += w * from[j];
        else
            for (size_t j = 0; j < n; j++)
                to[j * step] += w * from[j];
    }
}

/* The sum of x * dy over the rectangle. */
NIMBUS_SIMD_CLONES static real tap_weight(const nimbus_layer *layer, const struct tap *t,
                                          const real *x, const real *dy)
{
    enum { LANES = 16 };
    size_t step = layer->slide.stride[1], n = t->columns.end - t->columns.begin;
    size_t down = layer->slide.stride[0] * layer->in_shape.width;
    real lanes[LANES] = {0}, sum = 0;
    for (size_t i = 0; i < t->rows.end - t->rows.begin; i++) {
        const real *a = x + t->x + i * down, *b = dy + t->y + i * layer->shape.width;
        size_t j = 0;
        for (; j + LANES <= n; j += LANES)
            for (size_t k = 0; k < LANES; k++)
                lanes[k] += a[(j + k) * step] * b[j + k];
        for (; j < n; j++)
            sum += a[j * step] * b[j];
    }
    for (size_t k = 0; k < LANES; k++)
        sum += lanes[k];
    return sum;
}

/* Channel m of the output of one row, from all the input channels of its group. */
static void convolve(const nimbus_layer *layer, const real *x, real *y, const real *dy, real *dx)
{
    nimbus_shape in = layer->in_shape, out = layer->shape;
    size_t kernel = layer->slide.kernel[0] * layer->slide.kernel[1];
    size_t n = in.channels / layer->groups, m_group = out.channels / layer->groups;
    size_t size = in.height * in.width, n_positions = out.height * out.width;
    for (size_t at = 0; at < kernel; at++) {
        struct tap t = tap_at(layer, at / layer->slide.kernel[1], at % layer->slide.kernel[1]);
        for (size_t m = 0; m < out.channels; m++)
            for (size_t c = 0; c < n; c++) {
                size_t from = (m / m_group * n + c) * size, to = m * n_positions;
                real w = layer->params[0].value[(m * n + c) * kernel + at];
                if (dx)
                    tap_inputs(layer, &t, w, dy + to, dx + from);
                else
                    tap_forward(layer, &t, w, x + from, y + to);
            }
    }
}

static void forward_rows(void *arg, size_t begin, size_t end)
{
    const nimbus_call *call = arg;
    const nimbus_layer *layer = call->layer;
    size_t d = nimbus_shape_width(layer->in_shape), width = nimbus_shape_width(layer->shape);
    size_t n_positions = layer->shape.height * layer->shape.width;
    for (size_t r = begin; r < end; r++) {
        real *y = call->io->y + r * width;
        for (size_t i = 0; i < width; i++)
            y[i] = layer->params[1].value[i / n_positions];
        convolve(layer, call->io->x[0] + r * d, y, NULL, NULL);
    }
}

static void input_rows(void *arg, size_t begin, size_t end)
{
    const nimbus_call *call = arg;
    size_t d = nimbus_shape_width(call->layer->in_shape);
    size_t width = nimbus_shape_width(call->layer->shape);
    for (size_t r = begin; r < end; r++)
        convolve(call->layer, NULL, NULL, call->io->dy + r * width, call->io->dx[0] + r * d);
}

/* The gradients of output channel m, summed over the rows in order. */
static void channel_gradient(void *arg, size_t m)
{
    const nimbus_call *call = arg;
    nimbus_layer *layer = call->layer;
    nimbus_shape in = layer->in_shape, out = layer->shape;
    size_t kernel = layer->slide.kernel[0] * layer->slide.kernel[1];
    size_t n = in.channels / layer->groups, group = m / (out.channels / layer->groups);
    size_t size = in.height * in.width, n_positions = out.height * out.width;
    real *weight = layer->params[0].grad + m * n * kernel, *bias = layer->params[1].grad + m;
    for (size_t r = 0; r < call->io->n_rows; r++) {
        const real *dy = call->io->dy + (r * out.channels + m) * n_positions;
        const real *x = call->io->x[0] + (r * in.channels + group * n) * size;
        for (size_t at = 0; at < kernel; at++) {
            struct tap t = tap_at(layer, at / layer->slide.kernel[1], at % layer->slide.kernel[1]);
            for (size_t c = 0; c < n; c++)
                weight[c * kernel + at] += tap_weight(layer, &t, x + c * size, dy);
        }
        for (size_t i = 0; i < n_positions; i++)
            *bias += dy[i];
    }
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_rows(layer, io, forward_rows);
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_call call = {layer, io};
    if (layer->params[0].trained)
        nimbus_parallel(io->n_threads, layer->units, channel_gradient, &call);
    if (io->dx[0])
        nimbus_parallel_rows(layer, io, input_rows);
}

const nimbus_layer_type nimbus_layer_conv2d = {
    .name = "conv2d",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .forward = forward,
    .backward = backward,
};
