/* gradient.h - gradients of layers and nets against finite differences, in double
 *
 * For a scalar function L = sum w * y of a layer's output with random w, dL/dx and dL/dparam must
 * be what central differences of the forward pass give: norm of the difference over norm of the
 * gradient at most 1e-6. */
#ifndef NIMBUS_GRADIENT_H
#define NIMBUS_GRADIENT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/net.h"

#define TOLERANCE 1e-6
#define STEP      1e-5

static double largest_error; /* of all comparisons, for the record */

static inline void ok(nimbus_status status, const nimbus_error *error)
{
    if (status != NIMBUS_OK)
        fail_msg("%s", error->message);
}

static inline void fill(real *values, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        values[i] = nimbus_random_normal(7, stream, i);
}

/* input -> one layer of the given proto, its params moved away from their special start. */
static inline nimbus_net *net_of(nimbus_layer proto, nimbus_shape shape)
{
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    nimbus_layer input = {.type = &nimbus_layer_input, .in_shape = shape};
    ok(nimbus_net_add(net, &input, NULL, 0, 1, &error), &error);
    size_t last = 0;
    ok(nimbus_net_add(net, &proto, &last, 1, 1, &error), &error);
    for (size_t i = 0; i < net->layers[1].n_params; i++) {
        nimbus_param *p = &net->layers[1].params[i];
        fill(p->value, p->n, 100 + i);
        for (size_t j = 0; p->statistic && j < p->n; j++)
            p->value[j] = 0.5 + fabs(p->value[j]);
    }
    ok(nimbus_net_grads(net, &error), &error);
    return net;
}

struct probe {
    nimbus_layer *layer;
    nimbus_io io;
    size_t n_outputs; /* of the batch */
    const real *weight;
};

static inline double probe_value(struct probe *p)
{
    double sum = 0;
    p->layer->type->forward(p->layer, &p->io);
    for (size_t i = 0; i < p->n_outputs; i++)
        sum += p->io.y[i] * p->weight[i];
    return sum;
}

/* Norm-wise relative error of `gradient` against central differences over values[0..n-1]. */
static inline double relative_error(struct probe *p, real *values, size_t n, const real *gradient)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double kept = values[i];
        values[i] = kept + STEP;
        double above = probe_value(p);
        values[i] = kept - STEP;
        double below = probe_value(p);
        values[i] = kept;
        double numeric = (above - below) / (2 * STEP);
        difference += (numeric - gradient[i]) * (numeric - gradient[i]);
        norm += numeric * numeric;
    }
    double error = sqrt(difference / (norm > 0 ? norm : 1));
    largest_error = error > largest_error ? error : largest_error;
    return error;
}

/* Checks dx and all trained params of the layer, and that gradients are added, not written. */
static inline void check_image(nimbus_layer proto, nimbus_shape shape, size_t n_rows, bool training)
{
    nimbus_net *net = net_of(proto, shape);
    nimbus_layer *layer = &net->layers[1];
    size_t width = nimbus_shape_width(shape), m = nimbus_shape_width(layer->shape);
    size_t n_saved = layer->type->saved_size ? layer->type->saved_size(layer, n_rows) : 0;
    size_t n_scratch = layer->type->scratch_size ? layer->type->scratch_size(layer, n_rows) : 0;
    real *x = nimbus_alloc(n_rows * width, sizeof *x),
         *dx = nimbus_alloc(n_rows * width, sizeof *x);
    real *y = nimbus_alloc(n_rows * m, sizeof *y), *dy = nimbus_alloc(n_rows * m, sizeof *y);
    void *saved = nimbus_alloc(n_saved, 1), *scratch = nimbus_alloc(n_scratch, 1);
    fill(x, n_rows * width, 1);
    fill(dy, n_rows * m, 2);
    for (size_t i = 0; i < n_rows * width; i++)
        dx[i] = 1;
    struct probe p = {.layer = layer,
                      .io = {.n_rows = n_rows,
                             .n_inputs = 1,
                             .x = {x},
                             .y = y,
                             .dy = dy,
                             .dx = {dx},
                             .saved = saved,
                             .scratch = scratch,
                             .training = training,
                             .seed = 3,
                             .step = 5,
                             .n_threads = 1},
                      .n_outputs = n_rows * m,
                      .weight = dy};
    (void)probe_value(&p);
    layer->type->backward(layer, &p.io);
    for (size_t i = 0; i < n_rows * width; i++)
        dx[i] -= 1;
    double error = relative_error(&p, x, n_rows * width, dx);
    if (!(error <= TOLERANCE))
        fail_msg("%s: dx is off by %g", layer->name, error);
    for (size_t i = 0; i < layer->n_params; i++) {
        nimbus_param *param = &layer->params[i];
        if (!param->trained)
            continue;
        real *gradient = nimbus_alloc(param->n, sizeof *gradient);
        memcpy(gradient, param->grad, param->n * sizeof *gradient);
        error = relative_error(&p, param->value, param->n, gradient);
        if (!(error <= TOLERANCE))
            fail_msg("%s: gradient of %s is off by %g", layer->name, param->name, error);
        p.io.dx[0] = NULL; /* a second pass doubles the gradient, and nobody needs dx */
        (void)probe_value(&p);
        layer->type->backward(layer, &p.io);
        for (size_t j = 0; j < param->n; j++)
            assert_true(fabs(param->grad[j] - 2 * gradient[j]) <= 1e-9 * (1 + fabs(gradient[j])));
        memcpy(param->grad, gradient, param->n * sizeof *gradient);
        for (size_t k = i + 1; k < layer->n_params; k++) /* the others were doubled, too */
            for (size_t j = 0; layer->params[k].trained && j < layer->params[k].n; j++)
                layer->params[k].grad[j] /= 2;
        nimbus_free(gradient);
    }
    nimbus_free(x);
    nimbus_free(dx);
    nimbus_free(y);
    nimbus_free(dy);
    nimbus_free(saved);
    nimbus_free(scratch);
    nimbus_net_free(net);
}

static inline void check_layer(nimbus_layer proto, size_t width, size_t n_rows, bool training)
{
    check_image(proto, (nimbus_shape){width, 1, 1}, n_rows, training);
}

/* The loss of what stands in the pass, and of its hints. */
static inline double loss_of_net(const nimbus_pass *pass, const real *target, real *dy)
{
    const nimbus_loss_options o = {.label_smoothing = 0.1};
    size_t last = pass->net->n_layers - 1, m = nimbus_shape_width(pass->net->layers[last].shape);
    double loss = nimbus_loss_value(&o, pass->n_rows, m, pass->out[last], target, NULL, dy);
    for (size_t i = 0; i < pass->n_hints; i++) {
        const nimbus_hint *hint = &pass->hints[i];
        size_t width = nimbus_shape_width(pass->net->layers[hint->layer].shape);
        for (size_t j = 0; j < pass->n_rows * width; j++) {
            double difference = pass->out[hint->layer][j] - hint->target[j];
            loss += hint->scale / 2 * difference * difference;
        }
    }
    return loss;
}

/* The gradients of all params of a whole net through its passes, from a loss over n rows and
 * n_hints hints. */
static inline void check_net(nimbus_net *net, size_t n, const nimbus_hint *hints, size_t n_hints)
{
    nimbus_error error;
    nimbus_pass *pass;
    size_t last = net->n_layers - 1, d = nimbus_shape_width(net->layers[0].shape);
    size_t m = nimbus_shape_width(net->layers[last].shape);
    ok(nimbus_net_grads(net, &error), &error);
    nimbus_net_zero_grads(net);
    ok(nimbus_pass_new(net, 0, n, 1, &pass, &error), &error);
    pass->training = true;
    pass->hints = hints;
    pass->n_hints = n_hints;
    real *target = nimbus_alloc(n * m, sizeof *target), *dy = nimbus_alloc(n * m, sizeof *dy);
    fill(nimbus_pass_input(pass), n * d, 1);
    for (size_t r = 0; r < n; r++)
        target[r * m + r % m] = 1;
    nimbus_pass_forward(pass, n, last);
    (void)loss_of_net(pass, target, dy);
    ok(nimbus_pass_backward(pass, dy, &error), &error);
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            nimbus_param *p = &net->layers[i].params[j];
            double difference = 0, norm = 0;
            for (size_t k = 0; p->trained && k < p->n; k++) {
                double kept = p->value[k], value[2];
                for (int side = 0; side < 2; side++) {
                    p->value[k] = kept + (side ? STEP : -STEP);
                    nimbus_pass_forward(pass, n, last);
                    value[side] = loss_of_net(pass, target, NULL);
                }
                p->value[k] = kept;
                double numeric = (value[1] - value[0]) / (2 * STEP);
                difference += (numeric - p->grad[k]) * (numeric - p->grad[k]);
                norm += numeric * numeric;
            }
            /* The bias in front of batch norm has no effect: its gradient is rounding, that of a
             * loss divided by a step, which differs from CPU to CPU. */
            if (p->trained && !(sqrt(difference) <= TOLERANCE * sqrt(norm) + 1e-8))
                fail_msg("%s.%s is off by %g of %g", net->layers[i].name, p->name, sqrt(difference),
                         sqrt(norm));
        }
    nimbus_free(target);
    nimbus_free(dy);
    nimbus_pass_free(pass);
}

#endif
