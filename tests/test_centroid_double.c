/* test_centroid_double.c - nearest centroids: the codes by brute force, gradients by differences
 *
 * What backward differentiates is not the hard forward but the mixture in its place,
 * y = bias + sum over codebooks of sum over k of softmax(-a d)[k] * (centroid_k W). */
#include "gradient.h"

#include "net/lookup.h"

enum { D = 7, C = 3, V = 3, H = 2, K = 1 << H, M = 5, N = 37 };

typedef struct subject {
    nimbus_net *net;
    nimbus_layer *layer;
    nimbus_io io;
    real x[N * D], y[N * M], dy[N * M], dx[N * D];
} subject;

static real *values(const subject *s, const char *name)
{
    nimbus_param *p = nimbus_layer_param(s->layer, name);
    assert_non_null(p);
    return p->value;
}

static void run(subject *s)
{
    nimbus_error error;
    ok(nimbus_lookup_round(s->layer, 1, &error), &error);
    s->layer->type->forward(s->layer, &s->io);
}

static void make(subject *s, unsigned n_threads)
{
    static const real columns[C * V] = {0, 2, 4, 1, 3, -1, 6, 5, -1};
    nimbus_error error;
    memset(s, 0, sizeof *s);
    s->net =
        net_of((nimbus_layer){.type = &nimbus_layer_linear, .units = M}, (nimbus_shape){D, 1, 1});
    s->layer = &s->net->layers[1];
    ok(nimbus_centroids_attach(s->layer, C, H, V, &error), &error);
    memcpy(values(s, "columns"), columns, sizeof columns);
    fill(values(s, "centroids"), (size_t)C * K * V, 20);
    values(s, "sharpness")[0] = 0.4;
    fill(s->x, (size_t)N * D, 21);
    fill(s->dy, (size_t)N * M, 22);
    ok(nimbus_net_set_state(s->net, 1, NIMBUS_STATE_SOFT, &error), &error);
    ok(nimbus_net_grads(s->net, &error), &error);
    s->io = (nimbus_io){.n_rows = N,
                        .n_inputs = 1,
                        .x = {s->x},
                        .y = s->y,
                        .dy = s->dy,
                        .dx = {s->dx},
                        .saved = nimbus_alloc(s->layer->type->saved_size(s->layer, N), 1),
                        .scratch = nimbus_alloc(s->layer->type->scratch_size(s->layer, N), 1),
                        .n_threads = n_threads};
    assert_non_null(s->io.saved);
    assert_non_null(s->io.scratch);
    run(s);
    s->layer->type->backward(s->layer, &s->io);
}

static void destroy(subject *s)
{
    nimbus_free(s->io.saved);
    nimbus_free(s->io.scratch);
    nimbus_net_free(s->net);
}

static double distance(const subject *s, size_t n, size_t c, size_t k)
{
    const real *columns = values(s, "columns") + c * V;
    double sum = 0;
    for (size_t v = 0; v < V; v++) {
        double difference = columns[v] < 0 ? 0
                                           : s->x[n * D + (size_t)columns[v]] -
                                                 values(s, "centroids")[(c * K + k) * V + v];
        sum += difference * difference;
    }
    return sqrt(sum);
}

/* Output m of a centroid. */
static double product(const subject *s, size_t c, size_t k, size_t m)
{
    const real *columns = values(s, "columns") + c * V;
    double sum = 0;
    for (size_t v = 0; v < V; v++)
        sum += columns[v] < 0 ? 0
                              : values(s, "centroids")[(c * K + k) * V + v] *
                                    values(s, "weight")[m * D + (size_t)columns[v]];
    return sum;
}

/* Distances from a column that is not there must be 0: its centroid has no part in anything. */
static void clear_absent(subject *s)
{
    for (size_t c = 0; c < C; c++)
        for (size_t v = 0; v < V; v++)
            for (size_t k = 0; values(s, "columns")[c * V + v] < 0 && k < K; k++)
                values(s, "centroids")[(c * K + k) * V + v] = 0;
}

static double mixture(const subject *s)
{
    double total = 0, a = 1 + log(1 + exp(values(s, "sharpness")[0]));
    for (size_t n = 0; n < N; n++)
        for (size_t c = 0; c < C; c++) {
            double p[K], sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += p[k] = exp(-a * distance(s, n, c, k));
            for (size_t k = 0; k < K; k++)
                for (size_t m = 0; m < M; m++)
                    total += p[k] / sum * product(s, c, k, m) * s->dy[n * M + m];
        }
    return total;
}

static void compare(subject *s, const char *what, real *value, const real *gradient, size_t n)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double kept = value[i];
        value[i] = kept + STEP;
        double above = mixture(s);
        value[i] = kept - STEP;
        double numeric = (above - mixture(s)) / (2 * STEP);
        value[i] = kept;
        error += (numeric - gradient[i]) * (numeric - gradient[i]);
        norm += numeric * numeric;
    }
    double relative = sqrt(error / norm);
    largest_error = relative > largest_error ? relative : largest_error;
    if (!(norm > 0) || !(relative <= TOLERANCE))
        fail_msg("%s: relative error %g of the gradient", what, relative);
}

static void test_gradients(void **state)
{
    (void)state;
    static const char *const names[] = {"centroids", "weight", "sharpness"};
    subject s;
    make(&s, 1);
    clear_absent(&s);
    for (size_t i = 0; i < 3; i++) {
        nimbus_param *p = nimbus_layer_param(s.layer, names[i]);
        memset(p->grad, 0, p->n * sizeof *p->grad);
    }
    memset(s.dx, 0, sizeof s.dx);
    run(&s);
    s.layer->type->backward(s.layer, &s.io);
    for (size_t i = 0; i < 3; i++) {
        nimbus_param *p = nimbus_layer_param(s.layer, names[i]);
        compare(&s, names[i], p->value, p->grad, p->n);
    }
    compare(&s, "inputs", s.x, s.dx, (size_t)N * D);
    assert_null(nimbus_layer_param(s.layer, "tables")->grad);
    destroy(&s);
}

static void test_forward_is_nearest(void **state)
{
    (void)state;
    subject s;
    make(&s, 1);
    clear_absent(&s);
    run(&s);
    for (size_t n = 0; n < N; n++)
        for (size_t m = 0; m < M; m++) {
            double sum = values(&s, "bias")[m];
            for (size_t c = 0; c < C; c++) {
                size_t best = 0;
                for (size_t k = 1; k < K; k++)
                    best = distance(&s, n, c, k) < distance(&s, n, c, best) ? k : best;
                sum += product(&s, c, best, m);
            }
            assert_true(fabs(sum - s.y[n * M + m]) < 1e-12);
        }
    destroy(&s);
}

static void test_threads(void **state)
{
    (void)state;
    subject one, many;
    make(&one, 1);
    make(&many, 3);
    assert_memory_equal(one.y, many.y, sizeof one.y);
    assert_memory_equal(one.dx, many.dx, sizeof one.dx);
    for (size_t i = 0; i < one.layer->n_params; i++) {
        const nimbus_param *a = &one.layer->params[i], *b = &many.layer->params[i];
        assert_int_equal(a->trained, b->trained);
        if (a->trained)
            assert_memory_equal(a->grad, b->grad, a->n * sizeof *a->grad);
    }
    destroy(&one);
    destroy(&many);
}

/* The positions of an image through a 1 x 1 convolution are rows through a linear layer. */
static void test_convolution(void **state)
{
    (void)state;
    enum { SIDE = 6, P = SIDE * SIDE };
    nimbus_error error;
    subject s;
    make(&s, 1);
    nimbus_net *net =
        net_of((nimbus_layer){.type = &nimbus_layer_conv2d,
                              .units = M,
                              .slide = {.kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}}},
               (nimbus_shape){D, SIDE, SIDE});
    nimbus_layer *layer = &net->layers[1];
    real x[D * P], y[M * P], dy[M * P], dx[D * P] = {0};
    ok(nimbus_centroids_attach(layer, C, H, V, &error), &error);
    for (size_t i = 0; i < layer->n_params; i++)
        memcpy(layer->params[i].value, values(&s, layer->params[i].name),
               layer->params[i].n * sizeof(real));
    ok(nimbus_net_set_state(net, 1, NIMBUS_STATE_SOFT, &error), &error);
    ok(nimbus_net_grads(net, &error), &error);
    ok(nimbus_lookup_round(layer, 1, &error), &error);
    for (size_t p = 0; p < P; p++) {
        for (size_t d = 0; d < D; d++)
            x[d * P + p] = s.x[p * D + d];
        for (size_t m = 0; m < M; m++)
            dy[m * P + p] = s.dy[p * M + m];
    }
    nimbus_io io = {.n_rows = 1,
                    .n_inputs = 1,
                    .x = {x},
                    .y = y,
                    .dy = dy,
                    .dx = {dx},
                    .saved = nimbus_alloc(layer->type->saved_size(layer, 1), 1),
                    .scratch = nimbus_alloc(layer->type->scratch_size(layer, 1), 1),
                    .n_threads = 1};
    layer->type->forward(layer, &io);
    layer->type->backward(layer, &io);
    for (size_t p = 0; p < P; p++) { /* the linear layer has one row more, which only adds */
        for (size_t m = 0; m < M; m++)
            assert_true(fabs(y[m * P + p] - s.y[p * M + m]) < 1e-12);
        for (size_t d = 0; d < D; d++)
            assert_true(fabs(dx[d * P + p] - s.dx[p * D + d]) < 1e-12);
    }
    nimbus_free(io.saved);
    nimbus_free(io.scratch);
    nimbus_net_free(net);
    destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_forward_is_nearest),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_convolution),
    };
    int failed = cmocka_run_group_tests_name("centroids in double", tests, NULL, NULL);
    print_message("largest relative error of a gradient: %.1e\n", largest_error);
    return failed;
}
