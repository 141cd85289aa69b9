/* lookup_gradient.c - the gradient of a converted layer.
 *
 * Backward replaces the steps of the walk by something that has a slope. With margins
 * h_i = (x[column_i] - threshold_i) * margin_i and g_k = sum over m of dy[m] * tables[c][k][m]:
 *
 *   flip     nodes i on the path: dh_i = 1/2 tanh'(h_i/tau)/tau * (g[right_i] - g[left_i]), where
 *            right_i is the leaf the row reaches if node i alone is forced right; left_i likewise
 *   sigmoid  p_k = product of sigmoid(+-h_i/tau) along the path to k; dh_i = sum of g_k dp_k/dh_i
 *   softmax  Schoenleber et al. 2023 ("Stella Nera"): p = softmax over leaves of the sum of
 *            +-sign(h_i) along the path, sign differentiated as tanh(h_i/tau)
 *
 * Tables get the gradient of the hard forward: dtables[c][code] += dy. */
#include <math.h>
#include <string.h>

#include "net/lookup_walk.h"

enum { GRAD_BLOCK = 128 }; /* outputs of a codebook's table gradient kept in the L1 cache */

/* exp(-y) for 0 <= y <= 87. The float one is within 2e-7 of it and fit for vectors. */
NIMBUS_INLINE real exp_falling(real y)
{
#ifdef NIMBUS_REAL_DOUBLE
    return exp(-y);
#else
    float t = y * -1.44269504f;
    int32_t whole = (int32_t)(t - 0.5f), bits = (whole + 127) << 23;
    float f = t - (float)whole, power;
    memcpy(&power, &bits, sizeof power);
    return power *
           (1 + f * (0.693147181f +
                     f * (0.240226507f +
                          f * (0.0555041087f + f * (0.00961812911f +
                                                    f * (0.00133335581f + f * 0.000154035304f))))));
#endif
}

/* |u|, but not where the slope has long vanished. */
NIMBUS_INLINE real flat_from(real u)
{
    real size = NIMBUS_FABS(u);
    return size < 40 ? size : 40;
}

/* The derivative of tanh at a value of flat_from. */
NIMBUS_INLINE real tanh_slope(real u)
{
    real e = exp_falling(2 * u), one = 1 + e;
    return 4 * e / (one * one);
}

/* Leaf gradients g of a block's rows for its codebook: leaf k of row r at [r * row + k]. */
typedef struct leaf_gradients {
    const real *g;
    size_t row;
} leaf_gradients;

/* flip: for each level the node on the path; dh [H][BLOCK]. */
NIMBUS_INLINE void flip_margins(const block *b, const int32_t *restrict codes, leaf_gradients of,
                                real *restrict dh)
{
    const size_t n_levels = b->t->h;
    const int32_t n_nodes = (int32_t)b->t->nodes;
    int32_t start_of[BLOCK]; /* of a row's leaves; those behind the last row have the first one's */
    for (size_t r = 0; r < BLOCK; r++)
        start_of[r] = r < b->n ? (int32_t)(r * of.row) : 0;
    const real *restrict g = of.g, *restrict thresholds = b->thresholds;
    const real *restrict margins = b->margin, *restrict values = b->values;
    const real sharpness = 1 / b->t->lookup->temperature;
    for (size_t h = 0; h < n_levels; h++, dh += BLOCK) {
        const int32_t down = (int32_t)(n_levels - h), start = (int32_t)first_node(h);
        const real *restrict level = values + h * BLOCK;
        const real *restrict noise = b->noise ? b->noise + h * BLOCK : NULL;
        int32_t other[BLOCK];
        real margin[BLOCK];
        for (size_t r = 0; r < BLOCK; r++) {
            int32_t i = start + (codes[r] >> down), right = codes[r] >> (down - 1) & 1;
            real value = b->shared ? level[r] : values[(size_t)i * BLOCK + r];
            margin[r] = (value - thresholds[i]) * margins[i];
            other[r] = 2 * i + 2 - right;
        }
        for (size_t below = h + 1; below < n_levels; below++)
            step_down(b, below, other);
        for (size_t r = 0; noise && r < BLOCK; r++)
            margin[r] += noise[r];
        /* on its own: a limit in the next loop would keep gcc from vectors */
        for (size_t r = 0; r < BLOCK; r++)
            margin[r] = flat_from(margin[r] * sharpness);
        for (size_t r = 0; r < BLOCK; r++)
            dh[r] = (real)0.5 * sharpness * tanh_slope(margin[r]);
        for (size_t r = 0; r < BLOCK; r++) {
            real here = g[start_of[r] + codes[r]], there = g[start_of[r] + other[r] - n_nodes];
            dh[r] *= codes[r] >> (down - 1) & 1 ? here - there : there - here;
        }
    }
}

/* sigmoid and softmax: every node; dh [K-1][BLOCK]. Nodes and, behind them, leaves are numbered as
 * in a heap. reach is the probability to come to one, value the mean of g below it. */
NIMBUS_SIMD_CLONES
static void soft_margins(const block *b, leaf_gradients of, real *restrict dh)
{
    const trees *t = b->t;
    const size_t n_nodes = t->nodes;
    const bool softmax = t->lookup->estimator == NIMBUS_ESTIMATOR_SOFTMAX;
    const real sharpness = 1 / t->lookup->temperature;
    const real certain = 1 / (1 + exp_falling(2)); /* softmax over sums of +-1: e^1 : e^-1 */
    real right[MAX_NODES * BLOCK], reach[(2 * MAX_NODES + 1) * BLOCK];
    real value[(2 * MAX_NODES + 1) * BLOCK];

    for (size_t r = 0; r < BLOCK; r++)
        reach[r] = 1;
    for (size_t i = 0, h = 0; i < n_nodes; i++) {
        if (i + 1 == (size_t)2 << h)
            h++;
        const real *restrict compared = b->values + (b->shared ? h : i) * BLOCK;
        const real *restrict noise = b->noise ? b->noise + h * BLOCK : NULL;
        const real threshold = b->thresholds[i], unit = b->margin[i];
        real *restrict slope = dh + i * BLOCK, *restrict p = right + i * BLOCK;
        real *restrict here = reach + i * BLOCK, *restrict below = reach + (2 * i + 1) * BLOCK;
        real margin[BLOCK], flat[BLOCK];
        for (size_t r = 0; r < BLOCK; r++)
            margin[r] = (compared[r] - threshold) * unit;
        for (size_t r = 0; noise && r < BLOCK; r++)
            margin[r] += noise[r];
        for (size_t r = 0; r < BLOCK; r++)
            flat[r] = flat_from(margin[r] * sharpness);
        if (softmax)
            for (size_t r = 0; r < BLOCK; r++) {
                slope[r] = sharpness * tanh_slope(flat[r]);
                p[r] = margin[r] > 0 ? certain : 1 - certain;
            }
        else
            for (size_t r = 0; r < BLOCK; r++) {
                real e = exp_falling(flat[r]), more = 1 / (1 + e);
                slope[r] = sharpness * e * more * more;
                p[r] = margin[r] > 0 ? more : e * more;
            }
        for (size_t r = 0; r < BLOCK; r++) {
            below[r] = here[r] * (1 - p[r]);
            below[BLOCK + r] = here[r] * p[r];
        }
    }
    for (size_t k = 0; k < t->k; k++)
        for (size_t r = 0; r < BLOCK; r++)
            value[(n_nodes + k) * BLOCK + r] = r < b->n ? of.g[r * of.row + k] : 0;
    for (size_t i = n_nodes; i-- > 0;) {
        const real *restrict p = right + i * BLOCK, *restrict below = value + (2 * i + 1) * BLOCK;
        real *restrict mean = value + i * BLOCK;
        for (size_t r = 0; r < BLOCK; r++)
            mean[r] = below[r] + p[r] * (below[BLOCK + r] - below[r]);
    }
    for (size_t i = 0; i < n_nodes; i++) {
        const real *restrict here = reach + i * BLOCK, *restrict to = reach + (2 * i + 1) * BLOCK;
        const real *restrict below = value + (2 * i + 1) * BLOCK;
        real *restrict out = dh + i * BLOCK;
        if (softmax)
            for (size_t r = 0; r < BLOCK; r++)
                out[r] *=
                    to[BLOCK + r] * (below[BLOCK + r] - value[r]) - to[r] * (below[r] - value[r]);
        else
            for (size_t r = 0; r < BLOCK; r++)
                out[r] *= here[r] * (below[BLOCK + r] - below[r]);
    }
}

typedef struct backward_job {
    const trees *t;
    source from;
    const nimbus_lookup_rows *rows;
    real *leaf_grad; /* [N][C][K] g */
    real *dmargin;   /* [blocks][C][per_codebook][BLOCK] */
    size_t per_codebook;
} backward_job;

static size_t margins_per_codebook(const nimbus_lookup *lookup)
{
    return lookup->estimator == NIMBUS_ESTIMATOR_FLIP ? lookup->n_levels : lookup->n_leaves - 1;
}

size_t nimbus_lookup_work_size(const nimbus_layer *layer, size_t n_rows)
{
    const nimbus_lookup *lookup = layer->lookup;
    if (lookup->kind == NIMBUS_CENTROIDS)
        return nimbus_centroids_work_size(layer, n_rows);
    size_t per_row = lookup->n_codebooks * (lookup->n_leaves + margins_per_codebook(lookup)), size;
    return n_rows > SIZE_MAX - BLOCK || nimbus_mul_overflows(nimbus_row_blocks(n_rows) * BLOCK,
                                                             per_row * sizeof(real), &size)
               ? SIZE_MAX
               : size;
}

/* Node that entry j of a codebook's dmargin belongs to. */
static inline size_t node_of(const backward_job *job, size_t code, size_t j)
{
    if (job->per_codebook != job->t->h)
        return j;
    return first_node(j) + (code >> (job->t->h - j));
}

/* What a block's rows add to the input gradient through one codebook. */
NIMBUS_INLINE void input_gradient(const backward_job *job, const block *b, size_t item,
                                  const int32_t *restrict codes, const real *restrict dh)
{
    const trees *t = job->t;
    const int32_t *columns = t->columns + b->c * t->nodes;
    real *restrict dx = job->rows->dx + item * BLOCK * t->d;
    const size_t row = job->from.row, column = job->from.column;
    for (size_t j = 0; j < job->per_codebook; j++, dh += BLOCK) {
        /* one of the level's nodes stands for all if they read the same column */
        size_t first = job->per_codebook == t->h ? first_node(j) : j;
        real *restrict to = dx + (size_t)columns[first] * column;
        if (row == 1 && b->n == BLOCK && b->shared && job->per_codebook == t->h) {
            const int32_t down = (int32_t)(t->h - j);
            const real *restrict margin = b->margin + first;
            for (size_t r = 0; r < BLOCK; r++)
                to[r] += dh[r] * margin[codes[r] >> down];
            continue;
        }
        for (size_t r = 0; r < b->n; r++) {
            size_t node = node_of(job, (size_t)codes[r], j);
            dx[r * row + (size_t)columns[node] * column] += dh[r] * b->margin[node];
        }
    }
}

/* No comparison has led to a code that was drawn. */
NIMBUS_INLINE void forget_drawn(const backward_job *job, size_t item, size_t c, real *restrict dh)
{
    uint32_t bits[BLOCK];
    code_bits(job->from.io, job->t->stream, job->from.first + item * BLOCK, c, bits);
    for (size_t j = 0; j < job->per_codebook; j++, dh += BLOCK)
        for (size_t r = 0; r < BLOCK; r++)
            dh[r] = is_drawn(&job->from, bits[r]) ? 0 : dh[r];
}

/* Rows of a block: dmargin, and the input gradient. */
NIMBUS_SIMD_CLONES
static void margins_block(const backward_job *job, size_t item)
{
    const trees *t = job->t;
    block b;
    for (size_t c = 0; c < t->c; c++) {
        int32_t codes[BLOCK] = {0};
        const size_t n = item * BLOCK;
        const leaf_gradients of = {job->leaf_grad + (n * t->c + c) * t->k, t->c * t->k};
        real *dh = job->dmargin + (item * t->c + c) * job->per_codebook * BLOCK;
        load_block(&b, t, &job->from, item, c);
        for (size_t r = 0; r < b.n; r++)
            codes[r] = job->rows->codes[(n + r) * t->c + c];
        if (t->lookup->estimator == NIMBUS_ESTIMATOR_FLIP)
            flip_margins(&b, codes, of, dh);
        else
            soft_margins(&b, of, dh);
        if (job->from.drawn)
            forget_drawn(job, item, c, dh);
        if (job->rows->dx)
            input_gradient(job, &b, item, codes, dh);
    }
}

static void margins_item(void *arg, size_t item)
{
    margins_block(arg, item);
}

/* One codebook: threshold gradients over all rows, in row order within a node's entry. */
static void thresholds_item(void *arg, size_t c)
{
    const backward_job *job = arg;
    const trees *t = job->t;
    const real *margin = t->margin + c * t->nodes;
    real *grad = t->dthresholds + c * t->nodes;

    for (size_t item = 0; item < nimbus_row_blocks(job->rows->n_rows); item++) {
        const uint8_t *codes = job->rows->codes + item * BLOCK * t->c + c;
        const real *dh = job->dmargin + (item * t->c + c) * job->per_codebook * BLOCK;
        size_t n = nimbus_rows_in_block(job->rows->n_rows, item);
        for (size_t r = 0; r < n; r++)
            for (size_t j = 0; j < job->per_codebook; j++) {
                size_t node = node_of(job, codes[r * t->c], j);
                grad[node] -= dh[j * BLOCK + r] * margin[node];
            }
    }
    /* a fern's thresholds are one parameter per level: all get the level's sum */
    for (size_t h = 1; t->lookup->kind == NIMBUS_TREE_FERN && h < t->h; h++) {
        size_t first = first_node(h), n = (size_t)1 << h;
        real sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += grad[first + i];
        for (size_t i = 0; i < n; i++)
            grad[first + i] = sum;
    }
}

/* One codebook: table gradients, a block of outputs at a time. */
NIMBUS_SIMD_CLONES
static void tables_of_codebook(const backward_job *job, size_t c)
{
    const trees *t = job->t;
    for (size_t m = 0; m < t->m; m += GRAD_BLOCK) {
        size_t width = t->m - m < GRAD_BLOCK ? t->m - m : GRAD_BLOCK;
        for (size_t n = 0; n < job->rows->n_rows; n++) {
            size_t code = job->rows->codes[n * t->c + c];
            real *restrict grad = t->dtables + (c * t->k + code) * t->m + m;
            const real *restrict dy = job->rows->dy + n * t->m + m;
            for (size_t j = 0; j < width; j++)
                grad[j] += dy[j];
        }
    }
}

static void tables_item(void *arg, size_t c)
{
    tables_of_codebook(arg, c);
}

/* Adds the sums of columns begin..end over the rows. */
NIMBUS_SIMD_CLONES
static void bias_range(void *arg, size_t begin, size_t end)
{
    const backward_job *job = arg;
    real *restrict sum = job->t->dbias;
    for (size_t n = 0; n < job->rows->n_rows; n++) {
        const real *restrict row = job->rows->dy + n * job->t->m;
        for (size_t i = begin; i < end; i++)
            sum[i] += row[i];
    }
}

void nimbus_lookup_backward(nimbus_layer *layer, const nimbus_io *io,
                            const nimbus_lookup_rows *rows)
{
    trees t = nimbus_trees_of(layer);
    backward_job job = {.t = &t,
                        .from = source_of(&t, io, rows),
                        .rows = rows,
                        .leaf_grad = rows->work,
                        .dmargin = (real *)rows->work + rows->n_rows * t.c * t.k,
                        .per_codebook = margins_per_codebook(layer->lookup)};
    if (t.dbias)
        nimbus_parallel_ranges(io->n_threads, t.m, GRAD_BLOCK, bias_range, &job);
    if (t.lookup->kind == NIMBUS_CENTROIDS) {
        nimbus_centroids_backward(layer, io, rows);
        return;
    }
    if (t.dtables)
        nimbus_parallel(io->n_threads, t.c, tables_item, &job);
    if (!t.dthresholds && !rows->dx)
        return;
    nimbus_gemm(false, true, rows->n_rows, t.c * t.k, t.m, 1, rows->dy, t.m, t.tables, t.m, 0,
                job.leaf_grad, t.c * t.k, io->n_threads);
    nimbus_parallel(io->n_threads, nimbus_row_blocks(rows->n_rows), margins_item, &job);
    if (t.dthresholds)
        nimbus_parallel(io->n_threads, t.c, thresholds_item, &job);
}
