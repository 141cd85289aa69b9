/* layer_softmax.c - softmax over the channels of every position of an image */
#include "net/internal.h"

/* Positions of one row: the largest input, then exponentials and their sum, channel by channel. */
static void forward_rows(void *arg, size_t begin, size_t end)
{
    const nimbus_call *call = arg;
    nimbus_shape s = call->layer->shape;
    size_t n = s.channels, step = s.height * s.width, width = n * step;
    for (size_t r = begin; r < end; r++)
        for (size_t p = 0; p < step; p++) {
            const real *x = call->io->x[0] + r * width + p;
            real *y = call->io->y + r * width + p;
            real largest = x[0], sum = 0;
            for (size_t i = 1; i < n; i++)
                largest = x[i * step] > largest ? x[i * step] : largest;
            for (size_t i = 0; i < n; i++)
                sum += y[i * step] = NIMBUS_EXP(x[i * step] - largest);
            for (size_t i = 0; i < n; i++)
                y[i * step] /= sum;
        }
}

/* dx = y * (dy - sum of y dy). */
static void backward_rows(void *arg, size_t begin, size_t end)
{
    const nimbus_call *call = arg;
    nimbus_shape s = call->layer->shape;
    size_t n = s.channels, step = s.height * s.width, width = n * step;
    for (size_t r = begin; r < end; r++)
        for (size_t p = 0; p < step; p++) {
            const real *y = call->io->y + r * width + p, *dy = call->io->dy + r * width + p;
            real *dx = call->io->dx[0] + r * width + p, sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += y[i * step] * dy[i * step];
            for (size_t i = 0; i < n; i++)
                dx[i * step] += y[i * step] * (dy[i * step] - sum);
        }
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_rows(layer, io, forward_rows);
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    if (io->dx[0])
        nimbus_parallel_rows(layer, io, backward_rows);
}

const nimbus_layer_type nimbus_layer_softmax = {
    .name = "softmax",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = nimbus_layer_same_shape,
    .forward = forward,
    .backward = backward,
};
