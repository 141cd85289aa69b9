/* table.c - fit the tables of a layer by least squares over all codebooks together
 *
 * With G the N x CK matrix that has a one for every code of a row, and T0 the mean tables,
 *     T = T0 + (G^T G + lambda I)^-1 G^T (Y - bias - G T0)
 * (Blalock & Guttag 2021, equation 8, with their prototypes folded into the tables, T0 as the
 * point that the ridge pulls to, and Y the float net's outputs on clean inputs while G comes from
 * the already converted ones, so that a layer repairs the errors before it). G^T G only counts how
 * often two codes meet. Up to MAX_DENSE unknowns one Cholesky factor serves all M columns; beyond
 * that the same equations are relaxed codebook by codebook (Gauss-Seidel). */
#include <lapacke.h>
#include <math.h>
#include <string.h>

#include "convert/convert.h"
#include "net/simd.h"

enum { MAX_DENSE = 8192, SWEEPS = 12, SOLVE_BLOCK = 64, RIGHT_CODEBOOKS = 32, SUM_ROWS = 64 };

/* Ridges tried when none is given, in rows per leaf. The usual one is tried first, and serves where
 * leaves are too many or rows too few to try others. */
static const double lambdas[] = {1e-4, 1e-3, 1e-2, 1e-1};
enum { N_LAMBDAS = sizeof lambdas / sizeof *lambdas, USUAL = 2 };

typedef struct fit {
    const nimbus_table_job *job;
    nimbus_layer *layer;
    size_t n, c, k, m, d;  /* n: rows that are fitted, without the held-out ones */
    uint8_t *codes;        /* [n_rows][C] */
    uint8_t *code_columns; /* [C][n] */
    real *tables, *bias;   /* the layer's: [C][K][M], [M] */
    real *prior;           /* [C][K][M] T0 */
    real *residual;        /* [n][M] */
    float *counts;         /* [CK][CK] lower triangle of G^T G; exact up to 2^24 rows */
    double *factor;        /* [CK][CK] */
    real *sums;            /* [n_blocks][CK][SOLVE_BLOCK] G^T residual, while it is summed */
    double *right;         /* [M][CK] G^T residual */
    double *solution;      /* [M][CK] */
    double *squares;       /* [n_rows / SUM_ROWS + 1] of residuals */
    double lambda;         /* the job's, or what serves where there are no rows to choose it on */
    bool failed;
} fit;

/* ---- mean tables ---------------------------------------------------------------------------- */

/* The columns of codebook c, and how many they are. */
static const uint32_t *group_of(const fit *f, size_t c, size_t *v)
{
    const nimbus_groups *groups = f->job->groups;
    size_t g = c / (f->c / groups->n_codebooks);
    *v = groups->first[g + 1] - groups->first[g];
    return groups->column + groups->first[g];
}

/* Means of the piece over the rows of every leaf; an empty leaf takes its nearest ancestor's. */
static void leaf_means(const fit *f, size_t c, double *sums, const double *share)
{
    size_t v;
    const uint32_t *group = group_of(f, c, &v);
    size_t width = v + 1, nodes = f->k - 1;

    memset(sums, 0, 2 * f->k * width * sizeof *sums);
    for (size_t n = 0; n < f->n; n++) {
        double *sum = sums + (nodes + f->code_columns[c * f->n + n]) * width;
        for (size_t j = 0; j < v; j++)
            sum[j] += (double)f->job->x[n * f->d + group[j]];
        sum[v] += 1;
    }
    for (size_t i = nodes; i-- > 0;)
        for (size_t j = 0; j < width; j++)
            sums[i * width + j] = sums[(2 * i + 1) * width + j] + sums[(2 * i + 2) * width + j];
    for (size_t i = 0; i < nodes + f->k; i++) {
        double *sum = sums + i * width;
        if (sum[v] == 0 && i > 0) {
            memcpy(sum, sums + (i - 1) / 2 * width, v * sizeof *sum); /* parent: mean already */
            continue;
        }
        for (size_t j = 0; j < v; j++)
            sum[j] /= sum[v] > 0 ? sum[v] : 1;
    }
    for (size_t k = 0; k < f->k; k++)
        for (size_t j = 0; j < v; j++)
            sums[(nodes + k) * width + j] *= share[group[j]];
}

/* out[m] = sum over the group's columns of weight[m][column] mean[column], for every leaf; weights
 * [v][M], means in rows of `width`. */
NIMBUS_SIMD_CLONES
static void mean_products(const fit *f, const double *weights, size_t v, const double *means,
                          size_t width, double *restrict sums, real *out)
{
    for (size_t k = 0; k < f->k; k++) {
        memset(sums, 0, f->m * sizeof *sums);
        for (size_t j = 0; j < v; j++) {
            const double *restrict weight = weights + j * f->m;
            const double mean = means[k * width + j];
            for (size_t m = 0; m < f->m; m++)
                sums[m] += weight[m] * mean;
        }
        for (size_t m = 0; m < f->m; m++)
            out[k * f->m + m] = (real)sums[m];
    }
}

typedef struct prior_job {
    const fit *f;
    const double *share; /* [D] 1 / number of codebooks that hold the column */
    bool *failed;        /* [C] */
} prior_job;

static void prior_item(void *arg, size_t c)
{
    const prior_job *p = arg;
    const fit *f = p->f;
    size_t v;
    const uint32_t *group = group_of(f, c, &v);
    size_t width = v + 1;
    double *sums = nimbus_alloc(2 * f->k * width, sizeof *sums);
    double *weights = nimbus_alloc(v * f->m, sizeof *weights);
    double *products = nimbus_alloc(f->m, sizeof *products);

    p->failed[c] = !sums || !weights || !products;
    if (p->failed[c])
        goto done;
    leaf_means(f, c, sums, p->share);
    for (size_t m = 0; m < f->m; m++)
        for (size_t j = 0; j < v; j++)
            weights[j * f->m + m] = (double)f->job->weight[m * f->d + group[j]];
    mean_products(f, weights, v, sums + (f->k - 1) * width, width, products,
                  f->prior + c * f->k * f->m);
done:
    nimbus_free(sums);
    nimbus_free(weights);
    nimbus_free(products);
}

static nimbus_status fill_prior(fit *f, nimbus_error *error)
{
    const nimbus_groups *groups = f->job->groups;
    const double n_trees = (double)(f->c / groups->n_codebooks);
    double *share = nimbus_alloc(f->d, sizeof *share);
    bool *failed = nimbus_alloc(f->c, sizeof *failed);
    bool any = !share || !failed;

    if (!any) {
        for (size_t i = 0; i < groups->first[groups->n_codebooks]; i++)
            share[groups->column[i]] += n_trees;
        for (size_t j = 0; j < f->d; j++)
            share[j] = share[j] > 0 ? 1 / share[j] : 0;
        prior_job p = {.f = f, .share = share, .failed = failed};
        nimbus_parallel(f->job->n_threads, f->c, prior_item, &p);
        for (size_t c = 0; c < f->c; c++)
            any |= failed[c];
    }
    nimbus_free(share);
    nimbus_free(failed);
    return any ? nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for mean tables",
                             f->layer->name)
               : NIMBUS_OK;
}

/* ---- residual = y - bias - G tables --------------------------------------------------------- */

NIMBUS_SIMD_CLONES
static void residual_rows(const fit *f, const real *tables, real *out, size_t first, size_t last)
{
    for (size_t n = first; n < last; n++) {
        real *restrict r = out + (n - first) * f->m;
        const real *restrict y = f->job->y + n * f->m, *restrict bias = f->bias;
        for (size_t m = 0; m < f->m; m++)
            r[m] = y[m] - bias[m];
        for (size_t c = 0; c < f->c; c++) {
            const real *restrict t = tables + (c * f->k + f->codes[n * f->c + c]) * f->m;
            for (size_t m = 0; m < f->m; m++)
                r[m] -= t[m];
        }
    }
}

typedef struct residual_job {
    const fit *f;
    const real *tables;
    size_t first, last; /* rows */
    real *out;          /* [last - first][M] */
} residual_job;

static void residual_item(void *arg, size_t item)
{
    const residual_job *r = arg;
    const fit *f = r->f;
    size_t first = r->first + item * SUM_ROWS;
    size_t last = first + SUM_ROWS < r->last ? first + SUM_ROWS : r->last;
    real *out = r->out + (first - r->first) * f->m;
    double square = 0;
    residual_rows(f, r->tables, out, first, last);
    for (size_t i = 0; i < (last - first) * f->m; i++)
        square += (double)out[i] * (double)out[i];
    f->squares[item] = square;
}

/* Residuals of rows [first, last) into out; returns their sum of squares. */
static double residuals(const fit *f, const real *tables, size_t first, size_t last, real *out)
{
    size_t items = (last - first + SUM_ROWS - 1) / SUM_ROWS;
    double sum = 0;
    residual_job job = {.f = f, .tables = tables, .first = first, .last = last, .out = out};
    nimbus_parallel(f->job->n_threads, items, residual_item, &job);
    for (size_t i = 0; i < items; i++)
        sum += f->squares[i];
    return sum;
}

/* ---- the normal equations ------------------------------------------------------------------- */

/* Outputs are solved for in blocks of SOLVE_BLOCK. */
static size_t n_blocks(const fit *f)
{
    return (f->m + SOLVE_BLOCK - 1) / SOLVE_BLOCK;
}

/* Rows c of blocks of G^T G: counts of codebook c against all codebooks up to c. */
static void counts_item(void *arg, size_t c)
{
    const fit *f = arg;
    size_t ck = f->c * f->k;
    const uint8_t *mine = f->code_columns + c * f->n;
    for (size_t other = 0; other <= c; other++) {
        const uint8_t *theirs = f->code_columns + other * f->n;
        float *block = f->counts + c * f->k * ck + other * f->k;
        for (size_t n = 0; n < f->n; n++)
            block[(size_t)mine[n] * ck + theirs[n]] += 1;
    }
}

/* A block of outputs: `width` of them from `first` on, at most SOLVE_BLOCK. */
typedef struct outputs {
    size_t first, width;
} outputs;

static outputs block_of(const fit *f, size_t block)
{
    const size_t first = block * SOLVE_BLOCK, left = f->m - first;
    return (outputs){first, left < SOLVE_BLOCK ? left : SOLVE_BLOCK};
}

/* Codebooks c to end: sums [C][K][SOLVE_BLOCK] of the residuals of these outputs by code. Of many
 * outputs a row stays in registers while all codebooks take it. */
NIMBUS_INLINE void sum_residuals(const fit *f, size_t c, size_t end, outputs of, size_t width,
                                 real *sums)
{
    for (size_t n = 0; n < f->n; n++) {
        const real *restrict row = f->residual + n * f->m + of.first;
        for (size_t i = c; i < end; i++) {
            real *restrict sum = sums + (i * f->k + f->codes[n * f->c + i]) * SOLVE_BLOCK;
            for (size_t m = 0; m < width; m++)
                sum[m] += row[m];
        }
    }
}

NIMBUS_SIMD_CLONES
static void sum_block(const fit *f, size_t c, size_t end, outputs of, real *sums)
{
    if (of.width == SOLVE_BLOCK) /* known when this is compiled */
        sum_residuals(f, c, end, of, SOLVE_BLOCK, sums);
    else
        sum_residuals(f, c, end, of, of.width, sums);
}

static size_t n_right_items(const fit *f)
{
    return n_blocks(f) * ((f->c + RIGHT_CODEBOOKS - 1) / RIGHT_CODEBOOKS);
}

/* G^T residual of a block of outputs and some codebooks. */
static void right_item(void *arg, size_t item)
{
    const fit *f = arg;
    const size_t block = item % n_blocks(f), ck = f->c * f->k;
    const size_t c = item / n_blocks(f) * RIGHT_CODEBOOKS;
    const size_t end = c + RIGHT_CODEBOOKS < f->c ? c + RIGHT_CODEBOOKS : f->c;
    const outputs of = block_of(f, block);
    real *sums = f->sums + block * ck * SOLVE_BLOCK;
    memset(sums + c * f->k * SOLVE_BLOCK, 0, (end - c) * f->k * SOLVE_BLOCK * sizeof *sums);
    sum_block(f, c, end, of, sums);
    for (size_t m = 0; m < of.width; m++)
        for (size_t i = c * f->k; i < end * f->k; i++)
            f->right[(of.first + m) * ck + i] = (double)sums[i * SOLVE_BLOCK + m];
}

static void solve_item(void *arg, size_t item)
{
    const fit *f = arg;
    const outputs of = block_of(f, item);
    const size_t ck = f->c * f->k, first = of.first, n = of.width;
    double *solution = f->solution + first * ck;
    memcpy(solution, f->right + first * ck, n * ck * sizeof *solution);
    /* without a search of all entries for NaN, which takes a tenth of the time; the factor's rows
     * are LAPACK's columns: its lower triangle is their upper one */
    (void)LAPACKE_dpotrs_work(LAPACK_COL_MAJOR, 'U', (lapack_int)ck, (lapack_int)n, f->factor,
                              (lapack_int)ck, solution, (lapack_int)ck);
    for (size_t m = 0; m < n; m++)
        for (size_t i = 0; i < ck; i++)
            f->tables[i * f->m + first + m] =
                f->prior[i * f->m + first + m] + (real)solution[m * ck + i];
}

/* tables = prior + solution for this ridge. */
static nimbus_status solve(fit *f, double lambda, nimbus_error *error)
{
    size_t ck = f->c * f->k;
    double ridge = lambda * (double)f->n / (double)f->k;

    for (size_t i = 0; i < ck; i++)
        for (size_t j = 0; j <= i; j++)
            f->factor[i * ck + j] = (double)f->counts[i * ck + j] + (i == j ? ridge : 0);
    lapack_int info =
        LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (lapack_int)ck, f->factor, (lapack_int)ck);
    if (info != 0)
        return nimbus_fail(error, NIMBUS_ERR_VALUE,
                           "layer %s: the least squares system of %zu unknowns is not positive "
                           "definite at unknown %d; a larger lambda than %g helps",
                           f->layer->name, ck, (int)info, lambda);
    nimbus_parallel(f->job->n_threads, n_blocks(f), solve_item, f);
    return NIMBUS_OK;
}

/* Gauss-Seidel: each codebook in turn takes the ridge mean of what is left. A block of outputs. */
static void relax_item(void *arg, size_t item)
{
    const fit *f = arg;
    const outputs of = block_of(f, item);
    const size_t first = of.first, width = of.width;
    real ridge = (real)(f->lambda * (double)f->n / (double)f->k);
    real change[(1 << NIMBUS_MAX_LEVELS) * SOLVE_BLOCK], count[1 << NIMBUS_MAX_LEVELS];

    for (size_t c = 0; c < f->c; c++) {
        const uint8_t *codes = f->code_columns + c * f->n;
        memset(change, 0, f->k * SOLVE_BLOCK * sizeof *change);
        memset(count, 0, f->k * sizeof *count);
        for (size_t n = 0; n < f->n; n++) {
            count[codes[n]] += 1;
            for (size_t m = 0; m < width; m++)
                change[codes[n] * SOLVE_BLOCK + m] += f->residual[n * f->m + first + m];
        }
        for (size_t k = 0; k < f->k; k++)
            for (size_t m = 0; m < width; m++) {
                size_t i = (c * f->k + k) * f->m + first + m;
                real *step = change + k * SOLVE_BLOCK + m;
                *step = (*step - ridge * (f->tables[i] - f->prior[i])) / (count[k] + ridge);
                f->tables[i] += *step;
            }
        for (size_t n = 0; n < f->n; n++)
            for (size_t m = 0; m < width; m++)
                f->residual[n * f->m + first + m] -= change[codes[n] * SOLVE_BLOCK + m];
    }
}

/* ---- the whole fit -------------------------------------------------------------------------- */

/* What a choice of the ridge keeps. */
typedef struct ridge_choice {
    size_t held_out;
    double left;  /* least squared error on the held-out rows */
    real *tables; /* those that leave it */
    real *check;  /* [held_out][M] */
} ridge_choice;

/* Solves with ridge i; *better: it is the first, or leaves less than those before, and is kept. */
static nimbus_status try_ridge(fit *f, size_t i, ridge_choice *choice, bool *better,
                               nimbus_error *error)
{
    nimbus_status status = solve(f, lambdas[i], error);
    if (status)
        return status;
    double left = residuals(f, f->tables, f->n, f->n + choice->held_out, choice->check);
    *better = i == USUAL || left < choice->left;
    if (*better) {
        choice->left = left;
        memcpy(choice->tables, f->tables, f->c * f->k * f->m * sizeof *f->tables);
    }
    return NIMBUS_OK;
}

/* Tables of the ridge that leaves least on held-out rows, whose error is taken to have one minimum:
 * smaller ones than the usual as long as they leave less, or else larger ones. */
static nimbus_status choose_ridge(fit *f, ridge_choice *choice, nimbus_error *error)
{
    bool better = false, smaller = false;
    nimbus_status status = try_ridge(f, USUAL, choice, &better, error);
    for (size_t i = USUAL; i-- > 0 && better && status == NIMBUS_OK;) {
        status = try_ridge(f, i, choice, &better, error);
        smaller = smaller || better;
    }
    better = !smaller;
    for (size_t i = USUAL + 1; i < N_LAMBDAS && better && status == NIMBUS_OK; i++)
        status = try_ridge(f, i, choice, &better, error);
    if (status == NIMBUS_OK)
        memcpy(f->tables, choice->tables, f->c * f->k * f->m * sizeof *f->tables);
    return status;
}

static nimbus_status solve_dense(fit *f, size_t held_out, double *best, nimbus_error *error)
{
    size_t ck = f->c * f->k, square = ck * ck; /* at most MAX_DENSE^2 */
    nimbus_status status = NIMBUS_OK;
    ridge_choice choice = {.held_out = held_out, .left = INFINITY};

    f->counts = nimbus_alloc(square, sizeof *f->counts);
    f->factor = nimbus_alloc(square, sizeof *f->factor);
    f->sums = nimbus_alloc(n_blocks(f) * ck * SOLVE_BLOCK, sizeof *f->sums);
    f->right = nimbus_alloc(f->m * ck, sizeof *f->right);
    f->solution = nimbus_alloc(f->m * ck, sizeof *f->solution);
    choice.check = nimbus_alloc(held_out * f->m, sizeof *choice.check);
    choice.tables = nimbus_alloc(held_out ? ck * f->m : 0, sizeof *choice.tables);
    if (!f->counts || !f->factor || !f->sums || !f->right || !f->solution || !choice.check ||
        !choice.tables) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY,
                             "layer %s: no memory for a least squares system of %zu unknowns",
                             f->layer->name, ck);
        goto done;
    }
    nimbus_parallel(f->job->n_threads, f->c, counts_item, f);
    nimbus_parallel(f->job->n_threads, n_right_items(f), right_item, f);
    nimbus_free(f->sums);
    f->sums = NULL;
    status = held_out ? choose_ridge(f, &choice, error) : solve(f, f->lambda, error);
    *best = choice.left;
done:
    nimbus_free(choice.check);
    nimbus_free(choice.tables);
    return status;
}

static nimbus_status solve_all(fit *f, size_t held_out, double *left, nimbus_error *error)
{
    size_t last = f->n + held_out;
    *left = residuals(f, f->prior, 0, f->n, f->residual);
    if (f->c * f->k <= MAX_DENSE)
        return solve_dense(f, held_out, left, error);
    memcpy(f->tables, f->prior, f->c * f->k * f->m * sizeof *f->tables);
    for (size_t s = 0; s < SWEEPS; s++)
        nimbus_parallel(f->job->n_threads, n_blocks(f), relax_item, f);
    if (held_out)
        *left = residuals(f, f->tables, f->n, last, f->residual);
    return NIMBUS_OK;
}

/* Sum over rows [first, last) of the squared distance of y from its mean. */
static double spread_of(const fit *f, size_t first, size_t last)
{
    double spread = 0;
    for (size_t m = 0; m < f->m; m++) {
        double sum = 0, square = 0;
        for (size_t n = first; n < last; n++) {
            double y = (double)f->job->y[n * f->m + m];
            sum += y;
            square += y * y;
        }
        spread += square - sum * sum / (double)(last - first);
    }
    return spread;
}

nimbus_status nimbus_tables_fit(nimbus_layer *layer, const nimbus_table_job *job, double *error_fit,
                                nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    nimbus_lookup *lookup = layer->lookup;
    size_t held_out = job->lambda > 0 || job->method == NIMBUS_MEAN ? 0 : job->n_rows / 10;
    double left = 0;
    fit f = {.job = job,
             .layer = layer,
             .n = job->n_rows - held_out,
             .c = lookup->n_codebooks,
             .k = lookup->n_leaves,
             .m = nimbus_lookup_outputs(layer),
             .d = nimbus_lookup_inputs(layer),
             .lambda = job->lambda > 0 ? job->lambda : lambdas[USUAL],
             .tables = nimbus_layer_param(layer, "tables")->value,
             .bias = nimbus_layer_param(layer, "bias")->value};

    f.codes = nimbus_alloc(job->n_rows * f.c, 1);
    f.code_columns = nimbus_alloc(f.c * f.n, 1);
    f.prior = nimbus_alloc(f.c * f.k * f.m, sizeof *f.prior);
    f.residual = nimbus_alloc(job->n_rows * f.m, sizeof *f.residual);
    f.squares = nimbus_alloc(job->n_rows / SUM_ROWS + 1, sizeof *f.squares);
    if (!f.codes || !f.code_columns || !f.prior || !f.residual || !f.squares) {
        status =
            nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory to fit tables on %zu rows",
                        layer->name, job->n_rows);
        goto done;
    }
    nimbus_lookup_encode(layer, job->x, job->n_rows, f.codes, job->n_threads);
    for (size_t n = 0; n < f.n; n++)
        for (size_t c = 0; c < f.c; c++)
            f.code_columns[c * f.n + n] = f.codes[n * f.c + c];
    if ((status = fill_prior(&f, error)))
        goto done;
    if (job->method == NIMBUS_MEAN) {
        memcpy(f.tables, f.prior, f.c * f.k * f.m * sizeof *f.tables);
    } else if ((status = solve_all(&f, held_out, &left, error))) {
        goto done;
    }
    if (!held_out)
        left = residuals(&f, f.tables, 0, f.n, f.residual);
    double spread = held_out ? spread_of(&f, f.n, job->n_rows) : spread_of(&f, 0, f.n);
    *error_fit = spread > 0 ? left / spread : 0;
done:
    nimbus_free(f.codes);
    nimbus_free(f.code_columns);
    nimbus_free(f.prior);
    nimbus_free(f.residual);
    nimbus_free(f.squares);
    nimbus_free(f.counts);
    nimbus_free(f.factor);
    nimbus_free(f.sums);
    nimbus_free(f.right);
    nimbus_free(f.solution);
    return status;
}
