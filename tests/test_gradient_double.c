/* test_gradient_double.c - every gradient of the net stage against finite differences, in double
 *
 * For a scalar function L = sum w * y of a layer's output with random w, dL/dx and dL/dparam must
 * be what central differences of the forward pass give: norm of the difference over norm of the
 * gradient at most 1e-6. */
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

static void ok(nimbus_status status, const nimbus_error *error)
{
    if (status != NIMBUS_OK)
        fail_msg("%s", error->message);
}

static void fill(real *values, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        values[i] = nimbus_random_normal(7, stream, i);
}

/* input -> one layer of the given proto, its params moved away from their special start. */
static nimbus_net *net_of(nimbus_layer proto, size_t width)
{
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    nimbus_layer input = {.type = &nimbus_layer_input, .in_shape = {width, 1, 1}};
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

static double probe_value(struct probe *p)
{
    double sum = 0;
    p->layer->type->forward(p->layer, &p->io);
    for (size_t i = 0; i < p->n_outputs; i++)
        sum += p->io.y[i] * p->weight[i];
    return sum;
}

/* Norm-wise relative error of `gradient` against central differences over values[0..n-1]. */
static double relative_error(struct probe *p, real *values, size_t n, const real *gradient)
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
static void check_layer(nimbus_layer proto, size_t width, size_t n_rows, bool training)
{
    nimbus_net *net = net_of(proto, width);
    nimbus_layer *layer = &net->layers[1];
    size_t m = nimbus_shape_width(layer->shape);
    size_t n_saved = layer->type->saved_size ? layer->type->saved_size(layer, n_rows) : 0;
    real *x = nimbus_alloc(n_rows * width, sizeof *x),
         *dx = nimbus_alloc(n_rows * width, sizeof *x);
    real *y = nimbus_alloc(n_rows * m, sizeof *y), *dy = nimbus_alloc(n_rows * m, sizeof *y);
    void *saved = nimbus_alloc(n_saved, 1);
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
    nimbus_net_free(net);
}

static void test_linear(void **state)
{
    (void)state;
    check_layer((nimbus_layer){.type = &nimbus_layer_linear, .units = 7}, 11, 5, true);
    check_layer((nimbus_layer){.type = &nimbus_layer_linear, .units = 1}, 1, 1, true);
    check_layer((nimbus_layer){.type = &nimbus_layer_linear, .units = 40}, 33, 2, true);
}

static void test_batch_norm(void **state)
{
    (void)state;
    nimbus_layer norm = {.type = &nimbus_layer_batch_norm, .number = 1e-3};
    check_layer(norm, 5, 9, true);
    check_layer(norm, 67, 4, true);
    check_layer(norm, 5, 9, false); /* running statistics */
    check_layer(norm, 5, 1, true);  /* one row: running statistics, too */
    norm.bare = true;
    check_layer(norm, 6, 8, true);
}

static void test_activations(void **state)
{
    (void)state;
    const nimbus_layer_type *const types[] = {&nimbus_layer_relu, &nimbus_layer_gelu,
                                              &nimbus_layer_tanh, &nimbus_layer_sigmoid};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        check_layer((nimbus_layer){.type = types[i]}, 13, 6, true);
        check_layer((nimbus_layer){.type = types[i]}, 1, 1, false);
    }
}

static void test_dropout(void **state)
{
    (void)state;
    check_layer((nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.4}, 31, 10, true);
    check_layer((nimbus_layer){.type = &nimbus_layer_dropout}, 4, 3, true);
}

static void check_loss(const nimbus_loss_options *options, bool with_teacher)
{
    enum { N = 4, M = 6 };
    real y[N * M], target[N * M], teacher[N * M], dy[N * M];
    fill(y, N * M, 1);
    fill(teacher, N * M, 2);
    fill(target, N * M, 3);
    for (size_t r = 0; options->kind == NIMBUS_LOSS_CROSS_ENTROPY && r < N; r++) {
        double sum = 0; /* class probabilities; the last row's do not sum to 1 */
        for (size_t i = 0; i < M; i++)
            sum += target[r * M + i] = fabs(target[r * M + i]);
        for (size_t i = 0; r + 1 < N && i < M; i++)
            target[r * M + i] /= sum;
    }
    const real *given = with_teacher ? teacher : NULL;
    (void)nimbus_loss_value(options, N, M, y, target, given, dy);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < N * M; i++) {
        real kept = y[i];
        y[i] = kept + STEP;
        double above = nimbus_loss_value(options, N, M, y, target, given, NULL);
        y[i] = kept - STEP;
        double below = nimbus_loss_value(options, N, M, y, target, given, NULL);
        y[i] = kept;
        double numeric = (above - below) / (2 * STEP);
        difference += (numeric - dy[i]) * (numeric - dy[i]);
        norm += numeric * numeric;
    }
    if (!(norm > 0 && sqrt(difference / norm) <= TOLERANCE))
        fail_msg("loss %d: gradient is off by %g", (int)options->kind, sqrt(difference / norm));
}

static void test_losses(void **state)
{
    (void)state;
    for (int kind = NIMBUS_LOSS_CROSS_ENTROPY; kind <= NIMBUS_LOSS_SQUARED_ERROR; kind++) {
        nimbus_loss_options o = {.kind = (nimbus_loss)kind};
        check_loss(&o, false);
        check_loss(&o, true); /* a teacher without weight changes nothing */
        o.label_smoothing = 0.1;
        check_loss(&o, false);
        o.distill = 0.3;
        o.temperature = 2;
        check_loss(&o, true);
        o.distill = 1;
        o.temperature = 5;
        check_loss(&o, true);
    }
}

/* Large logits must neither overflow nor lose the loss. */
static void test_loss_is_stable(void **state)
{
    (void)state;
    nimbus_loss_options o = {.kind = NIMBUS_LOSS_CROSS_ENTROPY, .distill = 0.5, .temperature = 2};
    const real y[] = {1e4, -1e4, 0}, target[] = {0, 1, 0}, teacher[] = {-1e4, 1e4, 0};
    real dy[3];
    assert_true(isfinite(nimbus_loss_value(&o, 1, 3, y, target, teacher, dy)));
    o.distill = 0;
    assert_true(fabs(nimbus_loss_value(&o, 1, 3, y, target, NULL, dy) - 2e4) < 1e-6);
    assert_true(dy[0] == 1 && dy[1] == -1 && dy[2] == 0);
}

/* A whole net through the passes: gradients of all params, with a middle layer locked. */
static void test_whole_net(void **state)
{
    (void)state;
    enum { N = 6, D = 5, M = 3 };
    const nimbus_layer protos[] = {
        {.type = &nimbus_layer_input, .in_shape = {D, 1, 1}},
        {.type = &nimbus_layer_linear, .units = 8},
        {.type = &nimbus_layer_batch_norm},
        {.type = &nimbus_layer_gelu},
        {.type = &nimbus_layer_linear, .units = 7},
        {.type = &nimbus_layer_tanh},
        {.type = &nimbus_layer_dropout, .number = 0.2},
        {.type = &nimbus_layer_linear, .units = M},
    };
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    for (size_t i = 0; i < sizeof protos / sizeof protos[0]; i++) {
        size_t last = i - 1;
        ok(nimbus_net_add(net, &protos[i], &last, i > 0, 1, &error), &error);
    }
    ok(nimbus_net_set_state(net, 4, NIMBUS_STATE_LOCKED, &error), &error);
    ok(nimbus_net_grads(net, &error), &error);
    nimbus_pass *pass;
    ok(nimbus_pass_new(net, 0, N, 1, &pass, &error), &error);
    pass->training = true;
    real target[N * M] = {0}, dy[N * M];
    fill(nimbus_pass_input(pass), N * D, 1);
    for (size_t r = 0; r < N; r++)
        target[r * M + r % M] = 1;
    nimbus_loss_options o = {.label_smoothing = 0.1};
    nimbus_pass_forward(pass, N, net->n_layers - 1);
    (void)nimbus_loss_value(&o, N, M, pass->out[net->n_layers - 1], target, NULL, dy);
    ok(nimbus_pass_backward(pass, dy, &error), &error);
    assert_null(net->layers[4].params[0].grad);
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            nimbus_param *p = &net->layers[i].params[j];
            double difference = 0, norm = 0;
            for (size_t k = 0; p->trained && k < p->n; k++) {
                double kept = p->value[k], value[2];
                for (int side = 0; side < 2; side++) {
                    p->value[k] = kept + (side ? STEP : -STEP);
                    nimbus_pass_forward(pass, N, net->n_layers - 1);
                    value[side] = nimbus_loss_value(&o, N, M, pass->out[net->n_layers - 1], target,
                                                    NULL, NULL);
                }
                p->value[k] = kept;
                double numeric = (value[1] - value[0]) / (2 * STEP);
                difference += (numeric - p->grad[k]) * (numeric - p->grad[k]);
                norm += numeric * numeric;
            }
            /* The bias in front of batch norm has no effect: its gradient is rounding. */
            if (p->trained && !(sqrt(difference) <= TOLERANCE * sqrt(norm) + 1e-10))
                fail_msg("%s.%s is off by %g of %g", net->layers[i].name, p->name, sqrt(difference),
                         sqrt(norm));
        }
    nimbus_pass_free(pass);
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),      cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_activations), cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_losses),      cmocka_unit_test(test_loss_is_stable),
        cmocka_unit_test(test_whole_net),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message("largest relative error %.3g\n", largest_error);
    return failed;
}
