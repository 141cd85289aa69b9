/* test_table.c - tables fitted by means and by least squares, and their quantisation
 *
 * The exact solution for comparison comes from the other end: with P the N x N matrix of how many
 * codes two rows share, G (G^T G + r I)^-1 G^T R = P (P + r I)^-1 R, a system of N unknowns however
 * many leaves there are. */
#include "convert_maker.h"

/* A layer with learned trees, and rows for it. */
typedef struct problem {
    nimbus_net *net;
    nimbus_layer *layer;
    nimbus_groups groups;
    size_t n, d, m, c, k;
    real *x, *y;    /* [n][d], [n][m] */
    uint8_t *codes; /* [n][c] */
} problem;

static problem problem_new(nimbus_shape shape, size_t v, nimbus_columns columns, size_t levels,
                           size_t n, size_t m)
{
    problem p = {.net = one_layer(shape, m), .n = n, .m = m, .k = (size_t)1 << levels};
    p.layer = &p.net->layers[1];
    p.groups = groups_of(shape, v, columns);
    p.c = p.groups.n_codebooks;
    p.d = nimbus_shape_width(shape);
    p.x = normal_rows(n, p.d, 1);
    p.y = nimbus_alloc(n * m, sizeof *p.y);
    p.codes = nimbus_alloc(n * p.c, 1);
    assert_true(p.y && p.codes);
    for (size_t j = 0; j < m; j++)
        values_of(p.layer, "bias")[j] = (real)j / 2;
    CHECK(learn(p.layer, p.x, n, &p.groups, levels, NIMBUS_TREE_SHARED, NIMBUS_PLAIN, 1));
    nimbus_lookup_encode(p.layer, p.x, n, p.codes, 1);
    return p;
}

static void problem_free(problem *p)
{
    nimbus_net_free(p->net);
    nimbus_groups_free(&p->groups);
    nimbus_free(p->x);
    nimbus_free(p->y);
    nimbus_free(p->codes);
}

/* y = W x + bias, squashed, plus noise: what no table sum gives exactly. */
static void set_outputs(problem *p, double noise)
{
    const real *weight = values_of(p->layer, "weight"), *bias = values_of(p->layer, "bias");
    for (size_t n = 0; n < p->n; n++)
        for (size_t m = 0; m < p->m; m++) {
            double sum = (double)bias[m];
            for (size_t d = 0; d < p->d; d++)
                sum += (double)weight[m * p->d + d] * (double)p->x[n * p->d + d];
            sum += noise * nimbus_random_normal(3, 3, n * p->m + m);
            p->y[n * p->m + m] = (real)(sum + sin(2 * sum));
        }
}

static nimbus_table_job job_of(const problem *p, nimbus_table_method method, double lambda)
{
    return (nimbus_table_job){.x = p->x,
                              .y = p->y,
                              .n_rows = p->n,
                              .weight = values_of(p->layer, "weight"),
                              .groups = &p->groups,
                              .method = method,
                              .lambda = lambda,
                              .n_threads = 1};
}

/* The fitted tables, freed by the caller. */
static real *fit(const problem *p, nimbus_table_method method, double lambda, double *error_fit)
{
    nimbus_table_job job = job_of(p, method, lambda);
    size_t size = p->c * p->k * p->m;
    real *tables = nimbus_alloc(size, sizeof *tables);
    double unused;
    assert_non_null(tables);
    CHECK(nimbus_tables_fit(p->layer, &job, error_fit ? error_fit : &unused, &error));
    memcpy(tables, values_of(p->layer, "tables"), size * sizeof *tables);
    return tables;
}

static double table_sum(const problem *p, const real *tables, size_t n, size_t m)
{
    double sum = (double)values_of(p->layer, "bias")[m];
    for (size_t c = 0; c < p->c; c++)
        sum += (double)tables[(c * p->k + p->codes[n * p->c + c]) * p->m + m];
    return sum;
}

/* Sum of squared errors over rows [first, last). */
static double squares(const problem *p, const real *tables, size_t first, size_t last)
{
    double sum = 0;
    for (size_t n = first; n < last; n++)
        for (size_t m = 0; m < p->m; m++) {
            double e = (double)p->y[n * p->m + m] - table_sum(p, tables, n, m);
            sum += e * e;
        }
    return sum;
}

/* Sum over rows [first, last) of the squared distance of y from its column means. */
static double spread(const problem *p, size_t first, size_t last)
{
    double total = 0;
    for (size_t m = 0; m < p->m; m++) {
        double mean = 0;
        for (size_t n = first; n < last; n++)
            mean += (double)p->y[n * p->m + m] / (double)(last - first);
        for (size_t n = first; n < last; n++) {
            double e = (double)p->y[n * p->m + m] - mean;
            total += e * e;
        }
    }
    return total;
}

/* ---- least squares ------------------------------------------------------------------------- */

static void test_exact_sums_are_recovered(void **state)
{
    (void)state;
    for (int columns = NIMBUS_COLUMNS_BLOCK; columns <= NIMBUS_COLUMNS_WINDOW; columns++) {
        problem p = problem_new((nimbus_shape){1, 4, 6}, 6, (nimbus_columns)columns, 3, 600, 5);
        real *truth = normal_rows(p.c * p.k, p.m, 9);
        for (size_t n = 0; n < p.n; n++)
            for (size_t m = 0; m < p.m; m++)
                p.y[n * p.m + m] = (real)table_sum(&p, truth, n, m);
        double error_fit = 1;
        real *tables = fit(&p, NIMBUS_LEAST_SQUARES, 1e-6, &error_fit);
        assert_true(error_fit < 1e-8);
        assert_near(squares(&p, tables, 0, p.n) / spread(&p, 0, p.n), 0, 1e-8);
        nimbus_free(tables);
        tables = fit(&p, NIMBUS_LEAST_SQUARES, 0, &error_fit); /* on the held-out rows too */
        assert_true(error_fit < 1e-5);
        nimbus_free(tables);
        tables = fit(&p, NIMBUS_MEAN, 0, &error_fit);
        assert_true(error_fit > 0.1);
        nimbus_free(tables);
        nimbus_free(truth);
        problem_free(&p);
    }
}

/* R: y - bias - G T0, [n]; returns the squared error that the exact solution leaves. */
static double exact_squares(const problem *p, const real *prior, double ridge, size_t m)
{
    size_t n = p->n;
    double *shared = nimbus_alloc(n * n, sizeof *shared), *left = nimbus_alloc(n, sizeof *left);
    double sum = 0;
    assert_true(shared && left);
    for (size_t i = 0; i < n; i++) {
        left[i] = (double)p->y[i * p->m + m] - table_sum(p, prior, i, m);
        for (size_t j = 0; j <= i; j++) {
            double same = 0;
            for (size_t c = 0; c < p->c; c++)
                same += p->codes[i * p->c + c] == p->codes[j * p->c + c];
            shared[i * n + j] = same + (i == j ? ridge : 0);
        }
    }
    /* what is left of R is r (P + r I)^-1 R: Cholesky, then two triangular systems */
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double rest = shared[i * n + j];
            for (size_t l = 0; l < j; l++)
                rest -= shared[i * n + l] * shared[j * n + l];
            shared[i * n + j] = i == j ? sqrt(rest) : rest / shared[j * n + j];
        }
    for (size_t i = 0; i < n; i++) {
        for (size_t l = 0; l < i; l++)
            left[i] -= shared[i * n + l] * left[l];
        left[i] /= shared[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t l = i + 1; l < n; l++)
            left[i] -= shared[l * n + i] * left[l];
        left[i] /= shared[i * n + i];
        sum += ridge * left[i] * ridge * left[i];
    }
    nimbus_free(shared);
    nimbus_free(left);
    return sum;
}

static void test_least_squares_is_exact(void **state)
{
    (void)state;
    problem p = problem_new((nimbus_shape){24, 1, 1}, 5, NIMBUS_COLUMNS_BLOCK, 4, 200, 3);
    set_outputs(&p, 0.2);
    real *prior = fit(&p, NIMBUS_MEAN, 0, NULL);
    for (double lambda = 1e-4; lambda < 2; lambda *= 10) {
        real *tables = fit(&p, NIMBUS_LEAST_SQUARES, lambda, NULL);
        double expected = 0, found = squares(&p, tables, 0, p.n);
        for (size_t m = 0; m < p.m; m++)
            expected += exact_squares(&p, prior, lambda * (double)p.n / (double)p.k, m);
        assert_near(found, expected, 1e-3 * expected);
        nimbus_free(tables);
    }
    nimbus_free(prior);
    problem_free(&p);
}

/* On the rows that are fitted no ridge makes least squares worse than the means. */
static void test_never_worse_than_means(void **state)
{
    (void)state;
    for (size_t levels = 1; levels <= 5; levels++)
        for (size_t v = 3; v <= 24; v += 7) {
            problem p =
                problem_new((nimbus_shape){24, 1, 1}, v, NIMBUS_COLUMNS_BLOCK, levels, 150, 4);
            set_outputs(&p, 1);
            double of_means = 0, of_fit = 0;
            real *tables = fit(&p, NIMBUS_MEAN, 0, &of_means);
            assert_near(of_means, squares(&p, tables, 0, p.n) / spread(&p, 0, p.n),
                        1e-4 * of_means);
            nimbus_free(tables);
            for (double lambda = 1e-4; lambda < 1e3; lambda *= 100) {
                tables = fit(&p, NIMBUS_LEAST_SQUARES, lambda, &of_fit);
                assert_true(of_fit <= of_means * (1 + 1e-5));
                assert_near(of_fit, squares(&p, tables, 0, p.n) / spread(&p, 0, p.n),
                            1e-4 * of_fit + 1e-7);
                nimbus_free(tables);
            }
            problem_free(&p);
        }
}

/* Without a given ridge the one with the least error on the last tenth of the rows is taken. */
static void test_lambda_is_chosen_on_held_out_rows(void **state)
{
    (void)state;
    static const double lambdas[] = {1e-4, 1e-3, 1e-2, 1e-1};
    size_t chosen[4] = {0};
    for (int round = 0; round < 12; round++) {
        problem p = problem_new((nimbus_shape){24, 1, 1}, 4, NIMBUS_COLUMNS_BLOCK,
                                (size_t)(2 + round % 3), 300, 3);
        real *truth = normal_rows(p.c * p.k, p.m, 9), *noise = normal_rows(p.n, p.m, 10);
        set_outputs(&p, round * 1.5);
        for (size_t i = 0; round < 8 && i < p.n * p.m; i++)
            p.y[i] =
                (real)(table_sum(&p, truth, i / p.m, i % p.m) + 0.2 * round * (double)noise[i]);
        nimbus_free(truth);
        nimbus_free(noise);
        size_t all = p.n, best = 0;
        double least = INFINITY, error_fit = 0;
        real *automatic = fit(&p, NIMBUS_LEAST_SQUARES, 0, &error_fit), *fits[4];
        p.n = all - all / 10;
        for (size_t i = 0; i < 4; i++) {
            fits[i] = fit(&p, NIMBUS_LEAST_SQUARES, lambdas[i], NULL);
            double held_out = squares(&p, fits[i], p.n, all);
            if (held_out < least) {
                least = held_out;
                best = i;
            }
        }
        chosen[best]++;
        assert_memory_equal(automatic, fits[best], p.c * p.k * p.m * sizeof **fits);
        assert_near(error_fit, least / spread(&p, p.n, all), 1e-3 * error_fit);
        for (size_t i = 0; i < 4; i++)
            nimbus_free(fits[i]);
        nimbus_free(automatic);
        p.n = all;
        problem_free(&p);
    }
    print_message("chosen: %zu %zu %zu %zu\n", chosen[0], chosen[1], chosen[2], chosen[3]);
    for (size_t i = 0; i < 4; i++)
        assert_true(chosen[i] > 0);
}

/* Too few rows to hold any out: still a fit, not a singular system. */
static void test_few_rows(void **state)
{
    (void)state;
    for (size_t n = 2; n < 24; n++) {
        problem p = problem_new((nimbus_shape){24, 1, 1}, 4, NIMBUS_COLUMNS_BLOCK, 1, n, 3);
        set_outputs(&p, 0);
        double error_fit = NAN;
        real *tables = fit(&p, NIMBUS_LEAST_SQUARES, 0, &error_fit);
        for (size_t i = 0; i < p.c * p.k * p.m; i++)
            assert_true(isfinite(tables[i]));
        assert_true(error_fit >= 0);
        nimbus_free(tables);
        problem_free(&p);
    }
}

/* ---- means --------------------------------------------------------------------------------- */

/* Sets the thresholds of one codebook over column 0 by hand. */
static void set_trees(problem *p, const real *thresholds)
{
    for (size_t i = 0; i < p->k - 1; i++) {
        values_of(p->layer, "columns")[i] = 0;
        values_of(p->layer, "thresholds")[i] = thresholds[i];
    }
    nimbus_lookup_encode(p->layer, p->x, p->n, p->codes, 1);
}

/* Mean of W x over the rows whose column 0 lies in (low, high]. */
static double mean_product(const problem *p, double low, double high, size_t m)
{
    const real *weight = values_of(p->layer, "weight");
    double sum = 0, count = 0;
    for (size_t n = 0; n < p->n; n++) {
        double x = (double)p->x[n * p->d];
        if (!(x > low && x <= high))
            continue;
        count++;
        for (size_t d = 0; d < p->d; d++)
            sum += (double)weight[m * p->d + d] * (double)p->x[n * p->d + d];
    }
    return sum / count;
}

static void test_empty_leaves_take_their_ancestors_mean(void **state)
{
    (void)state;
    problem p = problem_new((nimbus_shape){4, 1, 1}, 4, NIMBUS_COLUMNS_BLOCK, 3, 100, 3);
    const double never = INFINITY;
    /* root at 0; left child sends all left, whose child splits at -1 (leaves 0, 1), so leaves 2
     * and 3 are empty and inherit from the left child; right child splits at 1, its left child
     * sends all right (leaf 4 empty), its right child all left (leaf 7 empty) */
    set_trees(&p, (const real[]){0, 50, 1, -1, 50, -50, 50});
    real *tables = fit(&p, NIMBUS_MEAN, 0, NULL);
    for (size_t m = 0; m < p.m; m++) {
        const double expected[8] = {mean_product(&p, -never, -1, m), mean_product(&p, -1, 0, m),
                                    mean_product(&p, -never, 0, m),  mean_product(&p, -never, 0, m),
                                    mean_product(&p, 0, 1, m),       mean_product(&p, 0, 1, m),
                                    mean_product(&p, 1, never, m),   mean_product(&p, 1, never, m)};
        for (size_t k = 0; k < 8; k++)
            assert_near((double)tables[k * p.m + m], expected[k], 1e-4);
    }
    nimbus_free(tables);
    problem_free(&p);
}

/* A column that several codebooks hold counts once: trees that never split give W times the mean
 * row, whatever the overlap. */
static void test_overlapping_codebooks_share_columns(void **state)
{
    (void)state;
    problem p = problem_new((nimbus_shape){2, 4, 6}, 4, NIMBUS_COLUMNS_WINDOW, 2, 120, 3);
    const real *weight = values_of(p.layer, "weight"), *bias = values_of(p.layer, "bias");
    for (size_t i = 0; i < p.c * (p.k - 1); i++)
        values_of(p.layer, "thresholds")[i] = 1000;
    nimbus_lookup_encode(p.layer, p.x, p.n, p.codes, 1);
    real *tables = fit(&p, NIMBUS_MEAN, 0, NULL);
    for (size_t m = 0; m < p.m; m++) {
        double expected = (double)bias[m];
        for (size_t i = 0; i < p.n * p.d; i++)
            expected += (double)weight[m * p.d + i % p.d] * (double)p.x[i] / (double)p.n;
        assert_near(table_sum(&p, tables, 0, m), expected, 1e-4);
    }
    nimbus_free(tables);
    problem_free(&p);
}

/* ---- many leaves --------------------------------------------------------------------------- */

/* Beyond 8,192 unknowns the equations are relaxed: close to the exact solution's error. */
static void test_relaxation(void **state)
{
    (void)state;
    problem p = problem_new((nimbus_shape){66, 1, 1}, 2, NIMBUS_COLUMNS_BLOCK, 8, 300, 2);
    assert_true(p.c * p.k > 8192);
    set_outputs(&p, 0.2);
    double of_means = 0, of_fit = 0;
    real *prior = fit(&p, NIMBUS_MEAN, 0, &of_means);
    for (double lambda = 0.01; lambda < 50; lambda *= 10) {
        real *tables = fit(&p, NIMBUS_LEAST_SQUARES, lambda, &of_fit);
        double exact = 0, found = squares(&p, tables, 0, p.n);
        for (size_t m = 0; m < p.m; m++)
            exact += exact_squares(&p, prior, lambda * (double)p.n / (double)p.k, m);
        assert_near(of_fit, found / spread(&p, 0, p.n), 1e-3 * of_fit + 1e-6);
        assert_true(of_fit < of_means);
        assert_near(found / spread(&p, 0, p.n), exact / spread(&p, 0, p.n), 1e-3);
        nimbus_free(tables);
    }
    real *tables = fit(&p, NIMBUS_LEAST_SQUARES, 0, &of_fit);
    assert_near(of_fit, squares(&p, tables, 270, 300) / spread(&p, 270, 300), 1e-3 * of_fit);
    nimbus_free(tables);
    nimbus_free(prior);
    problem_free(&p);
}

static void test_threads(void **state)
{
    (void)state;
    static const size_t levels[] = {4, 8};
    for (int i = 0; i < 2; i++) {
        problem p =
            problem_new((nimbus_shape){66, 1, 1}, 2, NIMBUS_COLUMNS_BLOCK, levels[i], 300, 70);
        nimbus_table_job job = job_of(&p, NIMBUS_LEAST_SQUARES, 0);
        double one = 0, two = 0;
        set_outputs(&p, 0.2);
        real *tables = fit(&p, NIMBUS_LEAST_SQUARES, 0, &one);
        job.n_threads = 2;
        CHECK(nimbus_tables_fit(p.layer, &job, &two, &error));
        assert_memory_equal(tables, values_of(p.layer, "tables"), p.c * p.k * p.m * sizeof *tables);
        assert_true(one == two);
        nimbus_free(tables);
        problem_free(&p);
    }
}

static void test_failing_allocations(void **state)
{
    (void)state;
    static const size_t levels[] = {2, 8};
    for (int i = 0; i < 6; i++) {
        problem p =
            problem_new((nimbus_shape){66, 1, 1}, 2, NIMBUS_COLUMNS_BLOCK, levels[i % 2], 256, 2);
        nimbus_table_job job =
            job_of(&p, i < 2 ? NIMBUS_MEAN : NIMBUS_LEAST_SQUARES, i < 4 ? 0 : 0.01);
        nimbus_status status = NIMBUS_ERR_MEMORY;
        long k = 0;
        double error_fit;
        set_outputs(&p, 0.2);
        while (status != NIMBUS_OK) {
            nimbus_fail_alloc_after = ++k;
            status = nimbus_tables_fit(p.layer, &job, &error_fit, &error);
            bool failed = nimbus_fail_alloc_after == 0;
            nimbus_fail_alloc_after = 0;
            assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
            assert_true(status == NIMBUS_OK || strstr(error.message, "linear1"));
        }
        assert_true(k > 6);
        problem_free(&p);
    }
}

/* ---- quantisation -------------------------------------------------------------------------- */

/* A layer with tables whose outputs differ in size by powers of ten; output 2's are all equal. */
static problem problem_with_tables(void)
{
    problem p = problem_new((nimbus_shape){12, 1, 1}, 3, NIMBUS_COLUMNS_BLOCK, 3, 64, 5);
    real *tables = values_of(p.layer, "tables");
    for (size_t i = 0; i < p.c * p.k * p.m; i++) {
        size_t m = i % p.m;
        tables[i] = m == 2 ? (real)0.75
                           : (real)(pow(10, (double)m - 4) * (nimbus_random_normal(5, 5, i) + 3));
    }
    return p;
}

static void test_quantise(void **state)
{
    (void)state;
    for (unsigned bits = 2; bits <= 8; bits++)
        for (int uniform_steps = 0; uniform_steps < 2; uniform_steps++) {
            problem p = problem_with_tables();
            size_t rows = p.c * p.k;
            double before[64 * 5], limit = (1 << (bits - 1)) - 1, worst = 0;
            for (size_t i = 0; i < p.n * p.m; i++)
                before[i] = table_sum(&p, values_of(p.layer, "tables"), i / p.m, i % p.m);
            CHECK(nimbus_layer_quantise(p.layer, bits, uniform_steps == 1, 1, &error));
            const real *tables = values_of(p.layer, "tables"),
                       *scales = values_of(p.layer, "scales");
            const real *rounded = nimbus_lookup_tables(p.layer);
            assert_ptr_not_equal(tables, rounded);
            assert_int_equal(p.layer->lookup->bits, bits);
            for (size_t i = 0; i < p.n * p.m; i++) /* centring moves nothing but the bias */
                assert_near(table_sum(&p, tables, i / p.m, i % p.m), before[i],
                            1e-5 * fabs(before[i]));
            for (size_t m = 0; m < p.m; m++) {
                double scale = (double)scales[m], error_of_steps = 0, largest = 0, plain = 0;
                assert_true(scale > 0 && isfinite(scale));
                assert_true(!uniform_steps || scales[m] == scales[0]);
                for (size_t r = 0; r < rows; r++)
                    largest = fmax(largest, fabs((double)tables[r * p.m + m]));
                for (size_t r = 0; r < rows; r++) {
                    double value = (double)tables[r * p.m + m],
                           q = (double)rounded[r * p.m + m] / scale;
                    double full = largest / limit, coarse = rint(value / full) * full;
                    assert_near(q, rint(q), 1e-4);
                    assert_true(fabs(q) < limit + 0.01);
                    error_of_steps += pow((double)rounded[r * p.m + m] - value, 2);
                    plain += largest > 0 ? pow(coarse - value, 2) : 0;
                    worst = fmax(worst, fabs(q));
                }
                /* never worse than the step that just holds the largest entry */
                assert_true(uniform_steps || error_of_steps <= plain * (1 + 1e-4));
            }
            assert_true(worst > limit - 0.01); /* the range is used */
            for (size_t i = 0; i < p.n * p.m; i++)
                assert_near(table_sum(&p, rounded, i / p.m, i % p.m), before[i],
                            (uniform_steps ? 15 : 15 * pow(10, (double)(i % p.m) - 4)) / limit);
            problem_free(&p);
        }
}

/* Entries on whole multiples of a step are left alone. */
static void test_quantise_exact_entries(void **state)
{
    (void)state;
    for (unsigned bits = 2; bits <= 8; bits++) {
        problem p = problem_new((nimbus_shape){12, 1, 1}, 3, NIMBUS_COLUMNS_BLOCK, 3, 64, 5);
        real *tables = values_of(p.layer, "tables");
        size_t limit = ((size_t)1 << (bits - 1)) - 1;
        for (size_t i = 0; i < p.c * p.k * p.m; i++)
            tables[i] =
                (real)0.25 * ((real)nimbus_random_below(5, 5, i, 2 * limit + 1) - (real)limit);
        for (size_t c = 0; c < p.c; c++)
            for (size_t m = 0; m < p.m; m++) {
                tables[c * p.k * p.m + m] = (real)0.25 * (real)limit;
                tables[(c * p.k + 1) * p.m + m] = (real)-0.25 * (real)limit;
            }
        CHECK(nimbus_layer_quantise(p.layer, bits, bits % 2 == 1, 2, &error));
        assert_memory_equal(tables, nimbus_lookup_tables(p.layer),
                            p.c * p.k * p.m * sizeof *tables);
        for (size_t m = 0; m < p.m; m++)
            assert_true(values_of(p.layer, "scales")[m] == (real)0.25);
        problem_free(&p);
    }
}

/* An output without entries must not decide the step of the others. */
static void test_quantise_empty_output(void **state)
{
    (void)state;
    problem p = problem_with_tables();
    real *tables = values_of(p.layer, "tables");
    for (size_t i = 0; i < p.c * p.k * p.m; i++)
        tables[i] *= i % p.m == 0 || i % p.m == 4 ? 0 : (real)0.001;
    CHECK(nimbus_layer_quantise(p.layer, 8, true, 1, &error));
    for (size_t m = 0; m < p.m; m++)
        assert_true(values_of(p.layer, "scales")[m] < (real)1e-4);
    for (size_t i = 0; i < p.c * p.k * p.m; i++)
        tables[i] = 2;
    CHECK(nimbus_layer_quantise(p.layer, 8, true, 1, &error));
    for (size_t m = 0; m < p.m; m++)
        assert_true(values_of(p.layer, "scales")[m] > 0);
    problem_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_sums_are_recovered),
        cmocka_unit_test(test_least_squares_is_exact),
        cmocka_unit_test(test_never_worse_than_means),
        cmocka_unit_test(test_lambda_is_chosen_on_held_out_rows),
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_empty_leaves_take_their_ancestors_mean),
        cmocka_unit_test(test_overlapping_codebooks_share_columns),
        cmocka_unit_test(test_relaxation),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_quantise),
        cmocka_unit_test(test_quantise_exact_entries),
        cmocka_unit_test(test_quantise_empty_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
