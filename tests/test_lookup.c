/* test_lookup.c - sums and gradients of trees and tables in float, as training uses them, against
 * plain loops */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net_maker.h"

typedef struct subject {
    nimbus_net *net;
    nimbus_layer *layer;
    size_t d, m, c, k, n;
    float *x, *y, *dy, *dx;
    void *saved, *scratch;
    nimbus_io io;
} subject;

static float *values(const subject *s, const char *name)
{
    return nimbus_layer_param(s->layer, name)->value;
}

static float *filled(size_t n, uint64_t stream)
{
    float *out = nimbus_alloc(n, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)nimbus_random_normal(11, stream, i);
    return out;
}

/* A linear layer of m outputs with c trees, and n rows for it. */
static void make(subject *s, size_t m, size_t c, size_t levels, size_t n,
                 nimbus_estimator estimator)
{
    nimbus_error error;
    *s = (subject){.net = nimbus_net_new(), .d = 2 * c, .m = m, .c = c, .n = n};
    assert_non_null(s->net);
    append(s->net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {s->d, 1, 1}});
    append(s->net, (nimbus_layer){.type = &nimbus_layer_linear, .units = m});
    grow_trees(s->net, 1, c, levels, 0);
    s->layer = &s->net->layers[1];
    s->layer->lookup->estimator = estimator;
    s->k = s->layer->lookup->n_leaves;
    for (size_t i = 0; i < c * (s->k - 1); i++)
        values(s, "margin")[i] = 0.5f + (float)nimbus_random_uniform(3, 2, i);
    for (size_t i = 0; i < m; i++)
        values(s, "bias")[i] = (float)nimbus_random_normal(11, 6, i);
    ok(nimbus_net_grads(s->net, &error), &error);
    s->x = filled(n * s->d, 7);
    s->dy = filled(n * m, 8);
    s->y = nimbus_alloc(n * m, sizeof *s->y);
    s->dx = nimbus_alloc(n * s->d, sizeof *s->dx);
    s->saved = nimbus_alloc(s->layer->type->saved_size(s->layer, n), 1);
    s->scratch = nimbus_alloc(s->layer->type->scratch_size(s->layer, n), 1);
    assert_true(s->y && s->dx && s->saved && s->scratch);
    s->io = (nimbus_io){.n_rows = n,
                        .n_inputs = 1,
                        .x = {s->x},
                        .y = s->y,
                        .dy = s->dy,
                        .dx = {s->dx},
                        .saved = s->saved,
                        .scratch = s->scratch,
                        .n_threads = 2};
}

static void destroy(subject *s)
{
    void *const all[] = {s->x, s->y, s->dy, s->dx, s->saved, s->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        nimbus_free(all[i]);
    nimbus_net_free(s->net);
}

static double margin_of(const subject *s, size_t n, size_t c, size_t node)
{
    size_t at = c * (s->k - 1) + node;
    double x = s->x[n * s->d + (size_t)values(s, "columns")[at]];
    return (x - values(s, "thresholds")[at]) * values(s, "margin")[at];
}

static size_t leaf_of(const subject *s, size_t n, size_t c)
{
    size_t node = 0;
    while (node < s->k - 1)
        node = 2 * node + 1 + (margin_of(s, n, c, node) > 0);
    return node - (s->k - 1);
}

/* Outputs in whole blocks and with every kind of rest; few rows and many; leaves that are brought
 * together, with a part of a group of codebooks at the end, and too many for that. The order of the
 * sum is the plain one, so the bits are. */
static void sums_are_plain_ones(void **state)
{
    (void)state;
    static const struct {
        size_t m, c, levels, n;
    } cases[] = {{256, 9, 4, 128 + 70},
                 {256 + 61, 3, 4, 128 + 9},
                 {320 + 8, 5, 1, 300},
                 {512, 33, 2, 129},
                 {256, 3, 8, 200},
                 {77, 9, 4, 140},
                 {64 + 32 + 16, 2, 3, 33},
                 {10, 4, 4, 65},
                 {7, 2, 6, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        subject s;
        make(&s, cases[i].m, cases[i].c, cases[i].levels, cases[i].n, NIMBUS_ESTIMATOR_FLIP);
        s.layer->type->forward(s.layer, &s.io);
        for (size_t n = 0; n < s.n; n++)
            for (size_t m = 0; m < s.m; m++) {
                float sum = values(&s, "bias")[m];
                for (size_t c = 0; c < s.c; c++)
                    sum += values(&s, "tables")[(c * s.k + leaf_of(&s, n, c)) * s.m + m];
                if (s.y[n * s.m + m] != sum)
                    fail_msg("case %zu, row %zu, output %zu: %g, expected %g", i, n, m,
                             s.y[n * s.m + m], sum);
            }
        destroy(&s);
    }
}

/* The weights that an estimator gives a row's leaves if the margin of one node grows by `more`. */
static void weigh(const subject *s, size_t n, size_t c, size_t moved, double more, double *weight)
{
    const double tau = s->layer->lookup->temperature;
    const bool softmax = s->layer->lookup->estimator == NIMBUS_ESTIMATOR_SOFTMAX;
    double total = 0;
    for (size_t k = 0; k < s->k; k++) {
        weight[k] = 1;
        for (size_t child = s->k - 1 + k; child > 0; child = (child - 1) / 2) {
            size_t node = (child - 1) / 2;
            double h = margin_of(s, n, c, node), to = h + (node == moved ? more : 0);
            double side = child % 2 ? -1 : 1;
            weight[k] *= softmax ? exp(side * ((h > 0 ? 1 : -1) + tanh(to / tau) - tanh(h / tau)))
                                 : 1 / (1 + exp(-side * to / tau));
        }
        total += weight[k];
    }
    for (size_t k = 0; k < s->k; k++)
        weight[k] /= total;
}

/* The gradient of one threshold by differences of weights, in double. */
static double slope_of(const subject *s, size_t c, size_t node)
{
    const double step = 1e-5;
    double sum = 0, above[256], below[256];
    for (size_t n = 0; n < s->n; n++) {
        weigh(s, n, c, node, step, above);
        weigh(s, n, c, node, -step, below);
        for (size_t k = 0; k < s->k; k++)
            for (size_t m = 0; m < s->m; m++)
                sum += (above[k] - below[k]) / (2 * step) * (double)s->dy[n * s->m + m] *
                       (double)values(s, "tables")[(c * s->k + k) * s->m + m];
    }
    return -sum * (double)values(s, "margin")[c * (s->k - 1) + node];
}

/* In float their exponentials are a polynomial's. */
static void soft_gradients_are_near(void **state)
{
    (void)state;
    static const float temperatures[] = {0.05f, 0.7f, 5};
    for (int estimator = NIMBUS_ESTIMATOR_SIGMOID; estimator <= NIMBUS_ESTIMATOR_SOFTMAX;
         estimator++)
        for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
            subject s;
            make(&s, 5, 2, 4, NIMBUS_ROW_BLOCK + 9, (nimbus_estimator)estimator);
            s.layer->lookup->temperature = temperatures[t];
            s.layer->type->forward(s.layer, &s.io);
            s.layer->type->backward(s.layer, &s.io);
            const float *gradient = nimbus_layer_param(s.layer, "thresholds")->grad;
            double error = 0, norm = 0;
            for (size_t i = 0; i < s.c * (s.k - 1); i++) {
                double expected = slope_of(&s, i / (s.k - 1), i % (s.k - 1));
                error += (expected - gradient[i]) * (expected - gradient[i]);
                norm += expected * expected;
            }
            if (!(norm > 0 && sqrt(error / norm) < 1e-5))
                fail_msg("estimator %d, temperature %g: off by %g of %g", estimator,
                         temperatures[t], sqrt(error), sqrt(norm));
            destroy(&s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_plain_ones),
        cmocka_unit_test(soft_gradients_are_near),
    };
    return cmocka_run_group_tests_name("trees and tables in float", tests, NULL, NULL);
}
