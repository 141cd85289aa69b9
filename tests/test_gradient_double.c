/* test_gradient_double.c - every gradient of the net stage against finite differences, in double
 *
 * For a scalar function L = sum w * y of a layer's output with random w, dL/dx and dL/dparam must
 * be what central differences of the forward pass give: norm of the difference over norm of the
 * gradient at most 1e-6. */
#include "gradient.h"

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

/* A whole net through the passes: gradients of all params, with a middle layer locked; and again
 * with hints for two layers. */
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
    check_net(net, N, NULL, 0);
    assert_null(net->layers[4].params[0].grad);
    real targets[N * 8];
    fill(targets, N * 8, 3);
    const nimbus_hint hints[] = {{.layer = 3, .target = targets, .scale = 0.7},
                                 {.layer = 4, .target = targets + 3, .scale = 0.2}};
    check_net(net, N, hints, 2);
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
