/* centroid.c - nearest centroids in the place of trees, as LUT-NN has them
 *
 * Tang et al. 2023 ("LUT-NN: Empower Efficient Neural Network Inference with Centroid Learning and
 * Table Lookup", section 3). A codebook has V columns and K centroids. With d_k the Euclidean
 * distance of a row's columns from centroid k, forward takes the table of the nearest one; backward
 * that of the mixture p = softmax(-a d), a = 1 + log(1 + e^sharpness), one learned number a layer:
 *
 *     g_k  = sum over m of dy[m] * tables[k][m]
 *     dd_k = -a p_k (g_k - sum over j of p_j g_j)
 *     da   = -sum over k of d_k p_k (g_k - sum over j of p_j g_j)
 *
 * The tables are no parameters but products of centroids and the layer's weights, made anew after
 * every step (nimbus_lookup_round): with dtables[k] = p_k dy both are trained through them. */
#include <math.h>
#include <string.h>

#include "net/internal.h"
#include "net/lookup.h"

enum {
    BLOCK = NIMBUS_ROW_BLOCK,
    OUTPUTS = NIMBUS_VECTOR, /* whose weights, apart in memory, are taken together */
    MAX_LEAVES = 1 << NIMBUS_MAX_LEVELS
};

/* The arrays of a layer, found once per pass. */
typedef struct codebooks {
    const real *columns;   /* [C][V], -1: none */
    const real *centroids; /* [C][K][V] */
    const real *weight;    /* [M][D] */
    real *tables;          /* [C][K][M] */
    real sharpness;
    real *dcentroids, *dweight, *dsharpness; /* NULL where not trained */
    size_t c, k, v, d, m;
} codebooks;

static real *grad_of(nimbus_param *p)
{
    return p->trained ? p->grad : NULL;
}

static codebooks codebooks_of(const nimbus_layer *constant)
{
    nimbus_layer *layer = (nimbus_layer *)constant;
    nimbus_param *centroids = nimbus_layer_param(layer, "centroids");
    nimbus_param *weight = nimbus_layer_param(layer, "weight");
    nimbus_param *sharpness = nimbus_layer_param(layer, "sharpness");
    return (codebooks){.columns = nimbus_layer_param(layer, "columns")->value,
                       .centroids = centroids->value,
                       .weight = weight->value,
                       .tables = nimbus_layer_param(layer, "tables")->value,
                       .sharpness = sharpness->value[0],
                       .dcentroids = grad_of(centroids),
                       .dweight = grad_of(weight),
                       .dsharpness = grad_of(sharpness),
                       .c = layer->lookup->n_codebooks,
                       .k = layer->lookup->n_leaves,
                       .v = layer->lookup->n_columns,
                       .d = nimbus_lookup_inputs(layer),
                       .m = nimbus_lookup_outputs(layer)};
}

/* 1 + log(1 + e^x) */
static real inverse_temperature(real sharpness)
{
    return 1 + (sharpness > 20 ? sharpness : real_log(1 + NIMBUS_EXP(sharpness)));
}

/* ---- tables -------------------------------------------------------------------------------- */

/* Column d of the weights of n outputs from m on; zeros behind them, and without a column. */
NIMBUS_INLINE void load_weights(const codebooks *b, size_t m, size_t n, real column,
                                real *restrict out)
{
    memset(out, 0, OUTPUTS * sizeof *out);
    for (size_t i = 0; column >= 0 && i < n; i++)
        out[i] = b->weight[(m + i) * b->d + (size_t)column];
}

NIMBUS_INLINE size_t outputs_from(const codebooks *b, size_t m)
{
    return b->m - m < OUTPUTS ? b->m - m : OUTPUTS;
}

NIMBUS_SIMD_CLONES
static void tables_of(const codebooks *b, size_t c)
{
    for (size_t m = 0; m < b->m; m += OUTPUTS) {
        const size_t n = outputs_from(b, m);
        nimbus_vector weights, sums[MAX_LEAVES];
        for (size_t k = 0; k < b->k; k++)
            sums[k] = (nimbus_vector){0};
        for (size_t v = 0; v < b->v; v++) {
            load_weights(b, m, n, b->columns[c * b->v + v], (real *)&weights);
            for (size_t k = 0; k < b->k; k++)
                sums[k] += weights * b->centroids[(c * b->k + k) * b->v + v];
        }
        for (size_t k = 0; k < b->k; k++)
            memcpy(b->tables + (c * b->k + k) * b->m + m, &sums[k], n * sizeof(real));
    }
}

static void tables_item(void *arg, size_t c)
{
    tables_of(arg, c);
}

void nimbus_centroids_tables(nimbus_layer *layer, unsigned n_threads)
{
    codebooks b = codebooks_of(layer);
    nimbus_parallel(n_threads, b.c, tables_item, &b);
}

/* ---- distances, forward -------------------------------------------------------------------- */

typedef struct job {
    codebooks b;
    const nimbus_lookup_rows *rows;
    real *shares;     /* [N][C][K]: first the leaves' gradients g, then p */
    real *slopes;     /* [blocks][C][K][BLOCK] dd_k / d_k */
    real *dtables;    /* [C][K][M] */
    real *dsharpness; /* [blocks] da */
} job;

/* A block's values of column v of codebook c into out [BLOCK]: zeros behind the last row. */
NIMBUS_INLINE void load_column(const job *j, size_t item, size_t c, size_t v, real *restrict out)
{
    const real column = j->b.columns[c * j->b.v + v];
    const real *x = j->rows->x + item * BLOCK * j->b.d;
    const size_t n = nimbus_rows_in_block(j->rows->n_rows, item);
    if (column >= 0 && j->rows->blocks) {
        memcpy(out, x + (size_t)column * BLOCK, BLOCK * sizeof *out);
        return;
    }
    memset(out, 0, BLOCK * sizeof *out);
    for (size_t r = 0; column >= 0 && r < n; r++)
        out[r] = x[r * j->b.d + (size_t)column];
}

/* Squared distances of a block's rows from the centroids of codebook c: [K][BLOCK]. */
NIMBUS_INLINE void squares_of(const job *j, size_t item, size_t c, real *restrict squares)
{
    real values[BLOCK];
    memset(squares, 0, j->b.k * BLOCK * sizeof *squares);
    for (size_t v = 0; v < j->b.v; v++) {
        load_column(j, item, c, v, values);
        for (size_t k = 0; k < j->b.k; k++) {
            const real centroid = j->b.centroids[(c * j->b.k + k) * j->b.v + v];
            real *restrict sum = squares + k * BLOCK;
            for (size_t r = 0; r < BLOCK; r++)
                sum[r] += (values[r] - centroid) * (values[r] - centroid);
        }
    }
}

NIMBUS_SIMD_CLONES
static void encode_block(const job *j, size_t item)
{
    const size_t n = nimbus_rows_in_block(j->rows->n_rows, item);
    real squares[MAX_LEAVES * BLOCK];
    for (size_t c = 0; c < j->b.c; c++) {
        int32_t nearest[BLOCK] = {0};
        squares_of(j, item, c, squares);
        for (size_t k = 1; k < j->b.k; k++)
            for (size_t r = 0; r < BLOCK; r++) {
                bool less = squares[k * BLOCK + r] < squares[r];
                nearest[r] = less ? (int32_t)k : nearest[r];
                squares[r] = less ? squares[k * BLOCK + r] : squares[r];
            }
        for (size_t r = 0; r < n; r++)
            j->rows->codes[(item * BLOCK + r) * j->b.c + c] = (uint8_t)nearest[r];
    }
}

static void encode_item(void *arg, size_t item)
{
    encode_block(arg, item);
}

void nimbus_centroids_encode(const nimbus_layer *layer, const nimbus_lookup_rows *rows,
                             unsigned n_threads)
{
    job j = {.b = codebooks_of(layer), .rows = rows};
    nimbus_parallel(n_threads, nimbus_row_blocks(rows->n_rows), encode_item, &j);
}

/* ---- backward ------------------------------------------------------------------------------ */

size_t nimbus_centroids_work_size(const nimbus_layer *layer, size_t n_rows)
{
    const nimbus_lookup *l = layer->lookup;
    size_t leaves = l->n_codebooks * l->n_leaves, blocks = nimbus_row_blocks(n_rows), a, b;
    if (n_rows > SIZE_MAX / 4 || nimbus_mul_overflows(2 * blocks * BLOCK, leaves, &a) ||
        nimbus_mul_overflows(leaves, nimbus_lookup_outputs(layer), &b) ||
        a > SIZE_MAX / (4 * sizeof(real)) || b > SIZE_MAX / (4 * sizeof(real)))
        return SIZE_MAX;
    return (a + b + blocks) * sizeof(real);
}

/* One row and codebook: g becomes p; distances [K], BLOCK apart, become slopes. Returns da. */
NIMBUS_INLINE real mixture(size_t n_leaves, real a, real *restrict g, real *restrict distance)
{
    real nearest = distance[0], sum = 0, mean = 0, da = 0, p[MAX_LEAVES];
    for (size_t k = 1; k < n_leaves; k++)
        nearest = distance[k * BLOCK] < nearest ? distance[k * BLOCK] : nearest;
    for (size_t k = 0; k < n_leaves; k++) {
        p[k] = NIMBUS_EXP(a * (nearest - distance[k * BLOCK]));
        sum += p[k];
    }
    for (size_t k = 0; k < n_leaves; k++) {
        p[k] /= sum;
        mean += p[k] * g[k];
    }
    for (size_t k = 0; k < n_leaves; k++) {
        real d = distance[k * BLOCK], dp = p[k] * (g[k] - mean);
        da -= d * dp;
        distance[k * BLOCK] = d > 0 ? -a * dp / d : 0;
        g[k] = p[k];
    }
    return da;
}

NIMBUS_SIMD_CLONES
static void slopes_of_block(const job *j, size_t item)
{
    const codebooks *b = &j->b;
    const size_t n = nimbus_rows_in_block(j->rows->n_rows, item);
    const real a = inverse_temperature(b->sharpness);
    real da = 0, values[BLOCK], gradient[BLOCK];
    for (size_t c = 0; c < b->c; c++) {
        real *restrict slopes = j->slopes + (item * b->c + c) * b->k * BLOCK;
        squares_of(j, item, c, slopes);
        for (size_t i = 0; i < b->k * BLOCK; i++)
            slopes[i] = real_sqrt(slopes[i]);
        for (size_t r = 0; r < n; r++)
            da += mixture(b->k, a, j->shares + ((item * BLOCK + r) * b->c + c) * b->k, slopes + r);
        for (size_t v = 0; j->rows->dx && v < b->v; v++) {
            const real column = b->columns[c * b->v + v];
            if (column < 0)
                continue;
            load_column(j, item, c, v, values);
            memset(gradient, 0, sizeof gradient);
            for (size_t k = 0; k < b->k; k++) {
                const real centroid = b->centroids[(c * b->k + k) * b->v + v];
                for (size_t r = 0; r < BLOCK; r++)
                    gradient[r] += slopes[k * BLOCK + r] * (values[r] - centroid);
            }
            real *dx = j->rows->dx + item * BLOCK * b->d;
            for (size_t r = 0; r < n; r++)
                dx[j->rows->blocks ? (size_t)column * BLOCK + r : r * b->d + (size_t)column] +=
                    gradient[r];
        }
    }
    j->dsharpness[item] = da;
}

static void slopes_item(void *arg, size_t item)
{
    slopes_of_block(arg, item);
}

/* What the distances say of the centroids of a codebook, over all rows in order. */
NIMBUS_SIMD_CLONES
static void centroids_of(const job *j, size_t c)
{
    const codebooks *b = &j->b;
    real values[BLOCK];
    for (size_t item = 0; item < nimbus_row_blocks(j->rows->n_rows); item++) {
        const real *restrict slopes = j->slopes + (item * b->c + c) * b->k * BLOCK;
        const size_t n = nimbus_rows_in_block(j->rows->n_rows, item);
        for (size_t v = 0; v < b->v; v++) {
            load_column(j, item, c, v, values);
            for (size_t k = 0; k < b->k; k++) {
                const size_t at = (c * b->k + k) * b->v + v;
                real sum = 0;
                for (size_t r = 0; r < n; r++)
                    sum += slopes[k * BLOCK + r] * (values[r] - b->centroids[at]);
                b->dcentroids[at] -= sum;
            }
        }
    }
}

/* The tables' gradients, passed on to the centroids and weights that they are made of. */
NIMBUS_SIMD_CLONES
static void products_of(const job *j, size_t c)
{
    const codebooks *b = &j->b;
    for (size_t v = 0; v < b->v; v++) {
        const real column = b->columns[c * b->v + v];
        nimbus_vector sums[MAX_LEAVES];
        for (size_t k = 0; k < b->k; k++)
            sums[k] = (nimbus_vector){0};
        for (size_t m = 0; column >= 0 && m < b->m; m += OUTPUTS) {
            const size_t n = outputs_from(b, m);
            nimbus_vector weights, dweights = {0};
            load_weights(b, m, n, column, (real *)&weights);
            for (size_t k = 0; k < b->k; k++) {
                const size_t leaf = c * b->k + k;
                nimbus_vector dtable = {0};
                memcpy(&dtable, j->dtables + leaf * b->m + m,
                       n == OUTPUTS ? sizeof dtable : n * sizeof(real));
                sums[k] += dtable * weights;
                dweights += dtable * b->centroids[leaf * b->v + v];
            }
            for (size_t i = 0; b->dweight && i < n; i++)
                b->dweight[(m + i) * b->d + (size_t)column] += dweights[i];
        }
        for (size_t k = 0; b->dcentroids && k < b->k; k++)
            for (size_t i = 0; i < OUTPUTS; i++)
                b->dcentroids[(c * b->k + k) * b->v + v] += sums[k][i];
    }
}

static void codebook_item(void *arg, size_t c)
{
    const job *j = arg;
    if (j->b.dcentroids)
        centroids_of(j, c);
    products_of(j, c);
}

void nimbus_centroids_backward(nimbus_layer *layer, const nimbus_io *io,
                               const nimbus_lookup_rows *rows)
{
    job j = {.b = codebooks_of(layer), .rows = rows, .shares = rows->work};
    const codebooks *b = &j.b;
    const size_t blocks = nimbus_row_blocks(rows->n_rows), leaves = b->c * b->k;
    if (!rows->dx && !b->dcentroids && !b->dweight && !b->dsharpness)
        return;
    j.slopes = j.shares + blocks * BLOCK * leaves;
    j.dtables = j.slopes + blocks * BLOCK * leaves;
    j.dsharpness = j.dtables + leaves * b->m;
    nimbus_gemm(false, true, rows->n_rows, leaves, b->m, 1, rows->dy, b->m, b->tables, b->m, 0,
                j.shares, leaves, io->n_threads);
    nimbus_parallel(io->n_threads, blocks, slopes_item, &j);
    if (b->dcentroids || b->dweight) {
        nimbus_gemm(true, false, leaves, b->m, rows->n_rows, 1, j.shares, leaves, rows->dy, b->m, 0,
                    j.dtables, b->m, io->n_threads);
        nimbus_parallel(io->n_threads, b->c, codebook_item, &j);
    }
    for (size_t i = 0; b->dsharpness && i < blocks; i++)
        b->dsharpness[0] += j.dsharpness[i] / (1 + NIMBUS_EXP(-b->sharpness));
}
