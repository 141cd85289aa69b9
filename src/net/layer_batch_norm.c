/* layer_batch_norm.c - normalises every channel over the batch, then scales and shifts it
 *
 * y = scale * (x - mean) / sqrt(variance + epsilon) + shift (Ioffe & Szegedy 2015). In training
 * mean and variance are the batch's, and the running ones move a tenth of the way towards them (the
 * variance unbiased, as in PyTorch); else, and for a batch of one row, the running ones are used.
 * `number` is epsilon (0: 1e-5); a bare layer has no scale and shift.
 *
 * Vectors, whose channels are columns, are worked on some columns at a time, row after row; images
 * channel after channel. */
#include "net/internal.h"

#define MOMENTUM ((real)0.1)
#define COLUMNS  64 /* per parallel item */

struct norm_args {
    const nimbus_io *io;
    size_t w;         /* channels */
    size_t positions; /* of an image; 1 for vectors */
    bool batch;       /* batch statistics, not running ones */
    real epsilon;
    real *mean, *inverse; /* [w] each, in `saved`: what this pass used */
    nimbus_param *running_mean, *running_variance, *scale, *shift;
};

static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    static const struct {
        const char *name;
        bool statistic;
        real start;
    } params[] = {
        {"mean", true, 0}, {"variance", true, 1}, {"scale", false, 1}, {"shift", false, 0}};
    (void)n_inputs, (void)seed;
    if (layer->number == 0)
        layer->number = 1e-5;
    if (!(layer->number > 0 && layer->number < 1))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: epsilon %g, expected 0 < epsilon < 1", layer->name,
                           layer->number);
    layer->shape = inputs[0];
    size_t w = layer->shape.channels;
    for (size_t i = 0; i < (layer->bare ? 2u : 4u); i++) {
        nimbus_status status =
            nimbus_layer_add_param(layer, params[i].name, 1, &w, params[i].statistic, false, error);
        if (status != NIMBUS_OK)
            return status;
        for (size_t j = 0; j < w; j++)
            layer->params[i].value[j] = params[i].start;
    }
    return NIMBUS_OK;
}

static size_t saved_size(const nimbus_layer *layer, size_t n_rows)
{
    (void)n_rows;
    return 2 * layer->shape.channels * sizeof(real);
}

static struct norm_args args_of(nimbus_layer *layer, nimbus_io *io)
{
    size_t w = layer->shape.channels, positions = layer->shape.height * layer->shape.width;
    real *saved = io->saved;
    return (struct norm_args){io,
                              w,
                              positions,
                              io->training && io->n_rows * positions > 1,
                              (real)layer->number,
                              saved,
                              saved + w,
                              nimbus_layer_param(layer, "mean"),
                              nimbus_layer_param(layer, "variance"),
                              nimbus_layer_param(layer, "scale"),
                              nimbus_layer_param(layer, "shift")};
}

/* ---- vectors ----------------------------------------------------------------------------- */

/* Mean and variance of columns begin..end of the batch; moves the running ones. */
NIMBUS_SIMD_CLONES static void batch_statistics(const struct norm_args *a, size_t begin, size_t n)
{
    real mean[COLUMNS] = {0}, square[COLUMNS] = {0};
    real *running_mean = a->running_mean->value + begin;
    real *running_variance = a->running_variance->value + begin;
    size_t n_rows = a->io->n_rows;
    const real *x = a->io->x[0] + begin;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < n; i++)
            mean[i] += x[r * a->w + i];
    for (size_t i = 0; i < n; i++)
        mean[i] /= (real)n_rows;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < n; i++) {
            real delta = x[r * a->w + i] - mean[i];
            square[i] += delta * delta;
        }
    for (size_t i = 0; i < n; i++) {
        a->mean[begin + i] = mean[i];
        a->inverse[begin + i] = 1 / real_sqrt(square[i] / (real)n_rows + a->epsilon);
        running_mean[i] += MOMENTUM * (mean[i] - running_mean[i]);
        running_variance[i] += MOMENTUM * (square[i] / (real)(n_rows - 1) - running_variance[i]);
    }
}

NIMBUS_SIMD_CLONES static void forward_columns(void *arg, size_t begin, size_t end)
{
    const struct norm_args *a = arg;
    size_t n = end - begin;
    real factor[COLUMNS], offset[COLUMNS];
    if (a->batch) {
        batch_statistics(a, begin, n);
    } else {
        for (size_t i = begin; i < end; i++) {
            a->mean[i] = a->running_mean->value[i];
            a->inverse[i] = 1 / real_sqrt(a->running_variance->value[i] + a->epsilon);
        }
    }
    for (size_t i = 0; i < n; i++) {
        factor[i] = a->inverse[begin + i] * (a->scale ? a->scale->value[begin + i] : 1);
        offset[i] = a->shift ? a->shift->value[begin + i] : 0;
    }
    for (size_t r = 0; r < a->io->n_rows; r++) {
        const real *x = a->io->x[0] + r * a->w + begin, *mean = a->mean + begin;
        real *y = a->io->y + r * a->w + begin;
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean[i]) * factor[i] + offset[i];
    }
}

/* With z = (x - mean) * inverse: dshift = sum dy, dscale = sum dy z, and through the batch's mean
 * and variance dx = scale * inverse * (dy - dshift / N - z * dscale / N). */
NIMBUS_SIMD_CLONES static void backward_columns(void *arg, size_t begin, size_t end)
{
    const struct norm_args *a = arg;
    size_t n = end - begin, n_rows = a->io->n_rows;
    const real *dy = a->io->dy + begin, *x = a->io->x[0] + begin;
    const real *mean = a->mean + begin, *inverse = a->inverse + begin;
    real sum[COLUMNS] = {0}, product[COLUMNS] = {0}, factor[COLUMNS];
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < n; i++) {
            real d = dy[r * a->w + i];
            sum[i] += d;
            product[i] += d * (x[r * a->w + i] - mean[i]) * inverse[i];
        }
    for (size_t i = 0; i < n; i++) {
        if (a->scale && a->scale->trained)
            a->scale->grad[begin + i] += product[i];
        if (a->shift && a->shift->trained)
            a->shift->grad[begin + i] += sum[i];
        factor[i] = inverse[i] * (a->scale ? a->scale->value[begin + i] : 1);
        sum[i] = a->batch ? sum[i] / (real)n_rows : 0;
        product[i] = a->batch ? product[i] * inverse[i] / (real)n_rows : 0;
    }
    if (!a->io->dx[0])
        return;
    for (size_t r = 0; r < n_rows; r++) {
        real *dx = a->io->dx[0] + r * a->w + begin;
        for (size_t i = 0; i < n; i++)
            dx[i] +=
                factor[i] * (dy[r * a->w + i] - sum[i] - (x[r * a->w + i] - mean[i]) * product[i]);
    }
}

/* ---- images ------------------------------------------------------------------------------ */

#define LANES 16 /* sums side by side, in registers */

NIMBUS_SIMD_CLONES static double channel_sum(const real *x, size_t n)
{
    real lanes[LANES] = {0};
    double sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lanes[j] += x[i + j];
    for (; i < n; i++)
        sum += (double)x[i];
    for (size_t j = 0; j < LANES; j++)
        sum += (double)lanes[j];
    return sum;
}

double nimbus_sum(const real *x, size_t n)
{
    return channel_sum(x, n);
}

/* The sum of (x - x_mean) * (y - y_mean). */
NIMBUS_SIMD_CLONES static double channel_product(const real *x, real x_mean, const real *y,
                                                 real y_mean, size_t n)
{
    real lanes[LANES] = {0};
    double sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lanes[j] += (x[i + j] - x_mean) * (y[i + j] - y_mean);
    for (; i < n; i++)
        sum += (double)((x[i] - x_mean) * (y[i] - y_mean));
    for (size_t j = 0; j < LANES; j++)
        sum += (double)lanes[j];
    return sum;
}

/* Mean and variance of a channel of the batch; moves the running ones. */
static void channel_statistics(const struct norm_args *a, size_t c)
{
    double sum = 0, square = 0;
    size_t n = a->positions, step = a->w * n, count = a->io->n_rows * n;
    const real *x = a->io->x[0] + c * n;
    for (size_t r = 0; r < a->io->n_rows; r++)
        sum += channel_sum(x + r * step, n);
    real mean = (real)(sum / (double)count);
    for (size_t r = 0; r < a->io->n_rows; r++)
        square += channel_product(x + r * step, mean, x + r * step, mean, n);
    real *running_mean = a->running_mean->value + c, *running = a->running_variance->value + c;
    a->mean[c] = mean;
    a->inverse[c] = 1 / real_sqrt((real)(square / (double)count) + a->epsilon);
    *running_mean += MOMENTUM * (mean - *running_mean);
    *running += MOMENTUM * ((real)(square / (double)(count - 1)) - *running);
}

NIMBUS_SIMD_CLONES static void forward_channel(void *arg, size_t c)
{
    const struct norm_args *a = arg;
    size_t n = a->positions;
    if (a->batch) {
        channel_statistics(a, c);
    } else {
        a->mean[c] = a->running_mean->value[c];
        a->inverse[c] = 1 / real_sqrt(a->running_variance->value[c] + a->epsilon);
    }
    real mean = a->mean[c], factor = a->inverse[c] * (a->scale ? a->scale->value[c] : 1);
    real offset = a->shift ? a->shift->value[c] : 0;
    for (size_t r = 0; r < a->io->n_rows; r++) {
        const real *x = a->io->x[0] + (r * a->w + c) * n;
        real *y = a->io->y + (r * a->w + c) * n;
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * factor + offset;
    }
}

NIMBUS_SIMD_CLONES static void backward_channel(void *arg, size_t c)
{
    const struct norm_args *a = arg;
    size_t n = a->positions, n_rows = a->io->n_rows;
    double sum = 0, product = 0, count = (double)(n_rows * n);
    real mean = a->mean[c], inverse = a->inverse[c];
    for (size_t r = 0; r < n_rows; r++) {
        const real *dy = a->io->dy + (r * a->w + c) * n;
        sum += channel_sum(dy, n);
        product += channel_product(dy, 0, a->io->x[0] + (r * a->w + c) * n, mean, n);
    }
    product *= (double)inverse;
    if (a->scale && a->scale->trained)
        a->scale->grad[c] += (real)product;
    if (a->shift && a->shift->trained)
        a->shift->grad[c] += (real)sum;
    real factor = inverse * (a->scale ? a->scale->value[c] : 1);
    real of_mean = a->batch ? (real)(sum / count) : 0;
    real of_variance = a->batch ? (real)(product / count) * inverse : 0;
    for (size_t r = 0; a->io->dx[0] && r < n_rows; r++) {
        size_t at = (r * a->w + c) * n;
        const real *dy = a->io->dy + at, *x = a->io->x[0] + at;
        real *dx = a->io->dx[0] + at;
        for (size_t i = 0; i < n; i++)
            dx[i] += factor * (dy[i] - of_mean - (x[i] - mean) * of_variance);
    }
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    struct norm_args a = args_of(layer, io);
    if (a.positions == 1)
        nimbus_parallel_ranges(io->n_threads, a.w, COLUMNS, forward_columns, &a);
    else
        nimbus_parallel(io->n_threads, a.w, forward_channel, &a);
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    struct norm_args a = args_of(layer, io);
    if (a.positions == 1)
        nimbus_parallel_ranges(io->n_threads, a.w, COLUMNS, backward_columns, &a);
    else
        nimbus_parallel(io->n_threads, a.w, backward_channel, &a);
}

const nimbus_layer_type nimbus_layer_batch_norm = {
    .name = "batch_norm",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .saved_size = saved_size,
    .forward = forward,
    .backward = backward,
};
