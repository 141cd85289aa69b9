/* test_lookup_double.c - the gradient of trees and tables against finite differences, in double
 *
 * Forward is a hard walk, so thresholds and inputs have no slope of their own: backward is the
 * exact gradient of a surrogate, which is written down here a second time, straight from the
 * formulas at the top of lookup_gradient.c, with everything frozen that the estimator freezes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net_maker.h"

/* more rows than a block, and a part of one */
enum { N = NIMBUS_ROW_BLOCK + 9, D = 7, M = 5, C = 3, MAX_K = 16 };

static double largest_error; /* of all comparisons, for the record */

typedef struct setting {
    nimbus_estimator estimator;
    size_t levels;
    nimbus_tree_kind kind;
    bool training; /* with margin noise */
    real drawn;    /* code noise */
} setting;

typedef struct subject {
    nimbus_net *net;
    nimbus_layer *layer;
    size_t k, nodes;
    real x[N * D], dy[N * M], dx[N * D], y[N * M];
    uint8_t codes[N * C];
    nimbus_io io;
    void *saved, *scratch;
} subject;

static real *values(const subject *s, const char *name)
{
    return nimbus_layer_param(s->layer, name)->value;
}

static real *grads(const subject *s, const char *name)
{
    return nimbus_layer_param(s->layer, name)->grad;
}

static void fill(real *out, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        out[i] = nimbus_random_normal(11, stream, i);
}

static void make(subject *s, setting t)
{
    nimbus_error error;

    memset(s, 0, sizeof *s);
    s->net = nimbus_net_new();
    assert_non_null(s->net);
    append(s->net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {D, 1, 1}});
    append(s->net, (nimbus_layer){.type = &nimbus_layer_linear, .units = M});
    s->layer = &s->net->layers[1];
    ok(nimbus_lookup_attach(s->layer, C, t.levels, t.kind, &error), &error);
    s->k = s->layer->lookup->n_leaves;
    s->nodes = s->k - 1;
    s->layer->lookup->estimator = t.estimator;
    s->layer->lookup->temperature = 0.7;
    s->layer->lookup->margin_noise = t.training ? 0.3 : 0;
    s->layer->lookup->code_noise = t.drawn;
    for (size_t i = 0; i < C * s->nodes; i++) {
        /* but for the first of a level, a node has a column of its own only where it may */
        bool tied = t.kind != NIMBUS_TREE_PER_NODE && (i % s->nodes & (i % s->nodes + 1)) != 0;
        values(s, "columns")[i] =
            tied ? values(s, "columns")[i - 1] : (real)nimbus_random_below(1, 2, i, D);
        values(s, "margin")[i] = 0.5 + nimbus_random_uniform(3, 2, i);
    }
    fill(values(s, "thresholds"), C * s->nodes, 4);
    if (t.kind == NIMBUS_TREE_FERN) /* one threshold a level */
        for (size_t c = 0; c < C; c++)
            for (size_t i = 1; i < s->nodes; i++)
                if ((i & (i + 1)) != 0)
                    values(s, "thresholds")[c * s->nodes + i] =
                        values(s, "thresholds")[c * s->nodes + i - 1];
    fill(values(s, "tables"), C * s->k * M, 5);
    fill(values(s, "bias"), M, 6);
    ok(nimbus_net_set_state(s->net, 1, NIMBUS_STATE_SOFT, &error), &error);
    ok(nimbus_net_grads(s->net, &error), &error);
    fill(s->x, N * D, 7);
    fill(s->dy, N * M, 8);
    s->saved = nimbus_alloc(s->layer->type->saved_size(s->layer, N), 1);
    s->scratch = nimbus_alloc(s->layer->type->scratch_size(s->layer, N), 1);
    assert_non_null(s->saved);
    assert_non_null(s->scratch);
    s->io = (nimbus_io){.n_rows = N,
                        .n_inputs = 1,
                        .x = {s->x},
                        .y = s->y,
                        .dy = s->dy,
                        .dx = {s->dx},
                        .saved = s->saved,
                        .scratch = s->scratch,
                        .training = t.training,
                        .seed = 3,
                        .step = 5,
                        .n_threads = 1};
    s->layer->type->forward(s->layer, &s->io);
    memcpy(s->codes, s->saved, sizeof s->codes); /* codes are what is saved */
    s->layer->type->backward(s->layer, &s->io);
}

static void destroy(subject *s)
{
    nimbus_free(s->saved);
    nimbus_free(s->scratch);
    nimbus_net_free(s->net);
}

/* ---- the surrogate, without margin noise ------------------------------------------------------
 */

typedef struct frozen {
    real x[N * D];
    real thresholds[C * (MAX_K - 1)];
} frozen;

static double margin_of(const subject *s, const real *x, const real *thresholds, size_t c, size_t i)
{
    size_t at = c * s->nodes + i;
    return (x[(size_t)values(s, "columns")[at]] - thresholds[at]) * values(s, "margin")[at];
}

static size_t walk(const subject *s, const frozen *f, const real *x, size_t c, size_t node)
{
    while (node < s->nodes)
        node = 2 * node + 1 + (margin_of(s, x, f->thresholds, c, node) > 0);
    return node - s->nodes;
}

static double leaf_value(const subject *s, size_t n, size_t c, size_t k)
{
    double g = 0;
    for (size_t m = 0; m < M; m++)
        g += s->dy[n * M + m] * values(s, "tables")[(c * s->k + k) * M + m];
    return g;
}

static double flip_value(const subject *s, const frozen *f, size_t n, size_t c)
{
    double sum = 0, tau = s->layer->lookup->temperature;
    const real *x0 = f->x + n * D;
    for (size_t node = 0; node < s->nodes;) {
        double h = margin_of(s, s->x + n * D, values(s, "thresholds"), c, node);
        double right = leaf_value(s, n, c, walk(s, f, x0, c, 2 * node + 2));
        double left = leaf_value(s, n, c, walk(s, f, x0, c, 2 * node + 1));
        sum += 0.5 * tanh(h / tau) * (right - left);
        node = 2 * node + 1 + (margin_of(s, x0, f->thresholds, c, node) > 0);
    }
    return sum;
}

static double sigmoid_value(const subject *s, size_t n, size_t c)
{
    double sum = 0, tau = s->layer->lookup->temperature;
    for (size_t k = 0; k < s->k; k++) {
        double p = 1;
        for (size_t child = s->nodes + k; child > 0; child = (child - 1) / 2) {
            size_t node = (child - 1) / 2;
            double h = margin_of(s, s->x + n * D, values(s, "thresholds"), c, node);
            p *= 1 / (1 + exp(child % 2 ? h / tau : -h / tau));
        }
        sum += p * leaf_value(s, n, c, k);
    }
    return sum;
}

static double softmax_value(const subject *s, const frozen *f, size_t n, size_t c)
{
    double total = 0, sum = 0, tau = s->layer->lookup->temperature;
    for (size_t k = 0; k < s->k; k++) {
        double score = 0;
        for (size_t child = s->nodes + k; child > 0; child = (child - 1) / 2) {
            size_t node = (child - 1) / 2;
            double h0 = margin_of(s, f->x + n * D, f->thresholds, c, node);
            double h = margin_of(s, s->x + n * D, values(s, "thresholds"), c, node);
            double sign = (h0 > 0 ? 1 : -1) + tanh(h / tau) - tanh(h0 / tau);
            score += child % 2 ? -sign : sign;
        }
        total += exp(score);
        sum += exp(score) * leaf_value(s, n, c, k);
    }
    return sum / total;
}

static double surrogate(const subject *s, const frozen *f)
{
    double sum = 0;
    for (size_t n = 0; n < N; n++)
        for (size_t c = 0; c < C; c++)
            switch (s->layer->lookup->estimator) {
            case NIMBUS_ESTIMATOR_FLIP:
                sum += flip_value(s, f, n, c);
                break;
            case NIMBUS_ESTIMATOR_SIGMOID:
                sum += sigmoid_value(s, n, c);
                break;
            case NIMBUS_ESTIMATOR_SOFTMAX:
                sum += softmax_value(s, f, n, c);
                break;
            }
    return sum;
}

static double difference_of(const subject *s, const frozen *f, real *value)
{
    double kept = *value, step = 1e-5;
    *value = kept + step;
    double above = surrogate(s, f);
    *value = kept - step;
    double below = surrogate(s, f);
    *value = kept;
    return (above - below) / (2 * step);
}

static void compare(const subject *s, const frozen *f, real *value, const real *gradient, size_t n,
                    const char *what)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double numeric = difference_of(s, f, value + i);
        error += (numeric - gradient[i]) * (numeric - gradient[i]);
        norm += numeric * numeric;
    }
    assert_true(norm > 0);
    largest_error = fmax(largest_error, sqrt(error / norm));
    if (!(sqrt(error / norm) <= 1e-6))
        fail_msg("estimator %d, %zu leaves: gradient of %s is off by %g",
                 (int)s->layer->lookup->estimator, s->k, what, sqrt(error / norm));
}

static void thresholds_and_inputs(void **state)
{
    (void)state;
    for (int estimator = 0; estimator < 3; estimator++)
        for (size_t trial = 0; trial < 8; trial++) {
            subject s;
            frozen f;
            make(&s, (setting){.estimator = (nimbus_estimator)estimator,
                               .levels = 1 + trial / 2,
                               .kind = trial % 2 ? NIMBUS_TREE_PER_NODE : NIMBUS_TREE_SHARED});
            memcpy(f.x, s.x, sizeof f.x);
            memcpy(f.thresholds, values(&s, "thresholds"), C * s.nodes * sizeof *f.thresholds);
            compare(&s, &f, s.x, s.dx, N * D, "the inputs");
            compare(&s, &f, values(&s, "thresholds"), grads(&s, "thresholds"), C * s.nodes,
                    "the thresholds");
            destroy(&s);
        }
}

/* Tables and bias enter the hard forward linearly: differences of the forward itself. */
static void tables_and_bias(void **state)
{
    static const char *const names[] = {"tables", "bias"};
    (void)state;
    subject s;
    make(&s, (setting){.levels = 4});
    for (size_t p = 0; p < 2; p++) {
        real *value = values(&s, names[p]), *gradient = grads(&s, names[p]);
        double error = 0, norm = 0;
        for (size_t i = 0; i < nimbus_layer_param(s.layer, names[p])->n; i++) {
            double kept = value[i], sums[2];
            for (int side = 0; side < 2; side++) {
                value[i] = kept + (side ? 1e-4 : -1e-4);
                s.layer->type->forward(s.layer, &s.io);
                sums[side] = 0;
                for (size_t j = 0; j < N * M; j++)
                    sums[side] += s.y[j] * s.dy[j];
            }
            value[i] = kept;
            double numeric = (sums[1] - sums[0]) / 2e-4;
            error += (numeric - gradient[i]) * (numeric - gradient[i]);
            norm += numeric * numeric;
        }
        assert_true(norm > 0 && sqrt(error / norm) <= 1e-6);
    }
    destroy(&s);
}

/* A fern's thresholds stay tied: all of a level have the gradient of their common value. */
static void ferns_stay_tied(void **state)
{
    (void)state;
    subject s, free_tree;
    make(&s, (setting){.levels = 3, .kind = NIMBUS_TREE_FERN});
    make(&free_tree, (setting){.levels = 3, .kind = NIMBUS_TREE_FERN});
    free_tree.layer->lookup->kind = NIMBUS_TREE_SHARED;
    memset(grads(&free_tree, "thresholds"), 0, C * s.nodes * sizeof(real));
    free_tree.layer->type->backward(free_tree.layer, &free_tree.io);
    for (size_t c = 0; c < C; c++)
        for (size_t h = 0; h < 3; h++) {
            size_t first = c * s.nodes + ((size_t)1 << h) - 1;
            double sum = 0;
            for (size_t i = 0; i < (size_t)1 << h; i++)
                sum += grads(&free_tree, "thresholds")[first + i];
            for (size_t i = 0; i < (size_t)1 << h; i++)
                assert_true(fabs(grads(&s, "thresholds")[first + i] - sum) < 1e-12);
        }
    destroy(&s);
    destroy(&free_tree);
}

/* Tables learn from the rows whose codes forward took. */
static void assert_tables_learn_of_codes(const subject *s)
{
    real expected[C * MAX_K * M] = {0};
    for (size_t n = 0; n < N; n++)
        for (size_t c = 0; c < C; c++)
            for (size_t m = 0; m < M; m++)
                expected[(c * s->k + s->codes[n * C + c]) * M + m] += s->dy[n * M + m];
    for (size_t i = 0; i < C * s->k * M; i++)
        assert_true(fabs(expected[i] - grads(s, "tables")[i]) < 1e-12);
}

/* With margin noise backward must follow the path that forward took. */
static void noise_is_the_same_both_ways(void **state)
{
    (void)state;
    subject s;
    uint8_t quiet[N * C];
    make(&s, (setting){.levels = 4, .training = true});
    assert_tables_learn_of_codes(&s);
    nimbus_lookup_encode(s.layer, s.x, N, quiet, 1);
    assert_memory_not_equal(quiet, s.codes, sizeof quiet);
    /* two layers of the same size do not share their noise */
    s.layer->name[0] = 'L';
    s.layer->type->forward(s.layer, &s.io);
    assert_memory_not_equal(s.saved, s.codes, sizeof s.codes);
    destroy(&s);
}

enum { MANY = 4096, LEVELS = 4, BITS = C * LEVELS };

/* Bits of all codes of MANY rows of x everywhere, at thresholds of 0 and margins of 1. */
static void noisy_bits(subject *s, real x, uint64_t step, uint8_t bits[MANY][BITS])
{
    real *rows = nimbus_alloc((size_t)MANY * D, sizeof *rows);
    real *y = nimbus_alloc((size_t)MANY * M, sizeof *y);
    uint8_t *codes = nimbus_alloc((size_t)MANY * C, 1);
    assert_true(rows && y && codes);
    for (size_t i = 0; i < (size_t)MANY * D; i++)
        rows[i] = x;
    for (size_t i = 0; i < C * s->nodes; i++) {
        values(s, "thresholds")[i] = 0;
        values(s, "margin")[i] = 1;
    }
    s->io.step = step;
    nimbus_lookup_forward(s->layer, &s->io,
                          &(nimbus_lookup_rows){.n_rows = MANY, .x = rows, .y = y, .codes = codes});
    for (size_t i = 0; i < (size_t)MANY * BITS; i++)
        bits[i / BITS][i % BITS] = codes[i / LEVELS] >> i % LEVELS & 1;
    nimbus_free(rows);
    nimbus_free(y);
    nimbus_free(codes);
}

static void assert_part(size_t n, double expected)
{
    const double part = (double)n / MANY;
    if (fabs(part - expected) > 0.04) /* five standard deviations */
        fail_msg("%g, expected about %g", part, expected);
}

/* Every comparison has noise of its own, with the deviation that was asked for. */
static void noise_is_independent(void **state)
{
    (void)state;
    static uint8_t now[MANY][BITS], next[MANY][BITS];
    subject s;
    make(&s, (setting){.levels = LEVELS, .training = true});
    noisy_bits(&s, 0, 5, now);
    noisy_bits(&s, 0, 6, next);
    for (size_t i = 0; i < BITS; i++) {
        size_t ones = 0, in_next_step = 0, in_next_row = 0;
        for (size_t r = 0; r < MANY; r++) {
            ones += now[r][i];
            in_next_step += now[r][i] == next[r][i];
            in_next_row += now[r][i] == now[(r + 1) % MANY][i];
        }
        assert_part(ones, 0.5);
        assert_part(in_next_step, 0.5);
        assert_part(in_next_row, 0.5);
        for (size_t j = 0; j < i; j++) {
            size_t equal = 0;
            for (size_t r = 0; r < MANY; r++)
                equal += now[r][i] == now[r][j];
            assert_part(equal, 0.5);
        }
    }
    /* a triangle of deviation d reaches from -sqrt(6) d to sqrt(6) d */
    noisy_bits(&s, s.layer->lookup->margin_noise, 5, now);
    for (size_t i = 0; i < BITS; i++) {
        size_t ones = 0;
        for (size_t r = 0; r < MANY; r++)
            ones += now[r][i];
        assert_part(ones, 1 - pow(1 - 1 / sqrt(6), 2) / 2);
    }
    destroy(&s);
}

/* Every codebook draws the part of its codes that was asked for, all leaves alike. */
static void codes_are_drawn(void **state)
{
    (void)state;
    static uint8_t now[MANY][BITS], next[MANY][BITS];
    const double left = 0.4 / 2; /* drawn, and then not to the right */
    subject s;
    make(&s, (setting){.levels = LEVELS, .training = true, .drawn = 0.4});
    noisy_bits(&s, 1e9, 5, now); /* all comparisons go to the right */
    noisy_bits(&s, 1e9, 6, next);
    for (size_t i = 0; i < BITS; i++) {
        size_t zeros = 0, in_next_step = 0, in_next_row = 0;
        for (size_t r = 0; r < MANY; r++) {
            zeros += !now[r][i];
            in_next_step += !now[r][i] && !next[r][i];
            in_next_row += !now[r][i] && !now[(r + 1) % MANY][i];
        }
        assert_part(zeros, left);
        assert_part(in_next_step, left * left);
        assert_part(in_next_row, left * left);
        for (size_t j = 0; j < i; j++) {
            size_t both = 0;
            for (size_t r = 0; r < MANY; r++)
                both += !now[r][i] && !now[r][j];
            assert_part(both, i / LEVELS == j / LEVELS ? left / 2 : left * left);
        }
    }
    for (int trained = 0; trained < 2; trained++) { /* but only in training, of trees that learn */
        nimbus_error error;
        s.io.training = !trained;
        ok(nimbus_net_set_state(s.net, 1, trained ? NIMBUS_STATE_SOFT : NIMBUS_STATE_LOOKUP,
                                &error),
           &error);
        noisy_bits(&s, 1e9, 5, now);
        for (size_t i = 0; i < (size_t)MANY * BITS; i++)
            assert_true(now[i / BITS][i % BITS]);
    }
    destroy(&s);
}

/* A code that was drawn teaches its table row, and no threshold and no input. */
static void assert_drawn_codes_teach_tables_alone(setting t)
{
    subject all, some, quiet;
    t.levels = 4;
    t.training = true;
    make(&quiet, t);
    t.drawn = 1;
    make(&all, t);
    t.drawn = 0.2;
    make(&some, t);
    assert_tables_learn_of_codes(&all);
    assert_tables_learn_of_codes(&some);
    for (size_t i = 0; i < C * all.nodes; i++)
        assert_true(grads(&all, "thresholds")[i] == 0);
    for (size_t i = 0; i < N * D; i++)
        assert_true(all.dx[i] == 0);
    /* rows of which no code is drawn are as without: 0.8^3 of 41 are 21, with a deviation of 3.2 */
    size_t same = 0;
    for (size_t n = 0; n < N; n++) {
        if (memcmp(some.dx + n * D, quiet.dx + n * D, D * sizeof *some.dx) != 0)
            continue;
        assert_memory_equal(some.codes + n * C, quiet.codes + n * C, C);
        same++;
    }
    assert_in_range(same, 8, 34);
    destroy(&all);
    destroy(&some);
    destroy(&quiet);
}

static void drawn_codes_teach_tables_alone(void **state)
{
    (void)state;
    for (int e = NIMBUS_ESTIMATOR_FLIP; e <= NIMBUS_ESTIMATOR_SOFTMAX; e++)
        assert_drawn_codes_teach_tables_alone((setting){.estimator = (nimbus_estimator)e});
    assert_drawn_codes_teach_tables_alone((setting){.kind = NIMBUS_TREE_FERN});
    assert_drawn_codes_teach_tables_alone((setting){.kind = NIMBUS_TREE_PER_NODE});
}

/* More rows than work space can be counted for must not seem to need little of it. */
static void work_space_does_not_wrap(void **state)
{
    (void)state;
    subject s;
    make(&s, (setting){.levels = 4});
    assert_true(nimbus_lookup_work_size(s.layer, N) < 1 << 16);
    /* N * C * K * sizeof(real) would be 2^64 + a little */
    size_t rows = SIZE_MAX / (C * s.k * sizeof(real)) + 1;
    assert_true(nimbus_lookup_work_size(s.layer, rows) == SIZE_MAX);
    assert_true(nimbus_lookup_work_size(s.layer, SIZE_MAX / 2) == SIZE_MAX);
    assert_true(s.layer->type->saved_size(s.layer, SIZE_MAX / 2) == SIZE_MAX);
    destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_and_inputs),
        cmocka_unit_test(tables_and_bias),
        cmocka_unit_test(ferns_stay_tied),
        cmocka_unit_test(noise_is_the_same_both_ways),
        cmocka_unit_test(noise_is_independent),
        cmocka_unit_test(codes_are_drawn),
        cmocka_unit_test(drawn_codes_teach_tables_alone),
        cmocka_unit_test(work_space_does_not_wrap),
    };
    int failed = cmocka_run_group_tests_name("lookup in double", tests, NULL, NULL);
    print_message("largest relative error %.3g\n", largest_error);
    return failed;
}
