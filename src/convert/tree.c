/* tree.c - learn the split trees that hash a piece of a row to a leaf
 *
 * Blalock & Guttag 2021 ("Multiplying Matrices Without Multiplying", algorithm 1 and 2): level by
 * level, every candidate column is tried; a bucket of rows is split where the squared error left in
 * its two halves is least. The error is measured on z: the piece itself (plain), or z = x L with
 * L L^T = W_c^T W_c, whose distances are those of the piece's outputs W_c x (joined).
 * Sum of |z|^2 is the same for every split, so least error is greatest |sum of z|^2 / n.
 *
 * Thresholds are searched among up to 63 edges per column, quantiles of the values present, each
 * strictly between two of them, so a run of equal values (ReLU's zeros) is never cut.
 *
 * A tree whose nodes choose among few columns is grown twice: with one a level, and then from those
 * per node. It compares no column more, and the layer before computes none more for it. */
#include <lapacke.h>
#include <math.h>
#include <string.h>

#include "convert/convert.h"
#include "net/simd.h"

/* As wide as a real. */
#ifdef NIMBUS_REAL_DOUBLE
typedef uint64_t key;
#else
typedef uint32_t key;
#endif
_Static_assert(sizeof(key) == sizeof(real), "a key is a real's bits");
#define SIGN ((key)1 << (8 * sizeof(key) - 1))

enum { N_BINS = 64, MAX_TREE_ROWS = 10000, LANES = 4, BLOCK = 64 };

/* Work space of one group. v: candidate columns. A row of z has v values, a one and zeros, so that
 * sums of rows end with their number; `stride` values in all, a multiple of LANES. */
typedef struct workspace {
    size_t n, v, k, stride;
    real *x;         /* [v][n] */
    real *z;         /* [n][stride] */
    real *edges;     /* [v][N_BINS - 1], infinite behind the column's last one */
    size_t *n_edges; /* [v] */
    uint8_t *bin;    /* [v][n] */
    uint8_t *bucket; /* [n] path so far: the node's place in its level */
    double *sums;    /* [K/2][N_BINS][stride] of z per bin; or [K][stride] per leaf */
    real *sorted;    /* [n] */
    key *keys;       /* [2][n] */
    bool *allowed;   /* [v] candidates that nodes may compare */
    bool *chosen;    /* [v] and that those of the last tree do */
    double *gram;    /* [v][v] */
} workspace;

static void workspace_free(workspace *w)
{
    nimbus_free(w->x);
    nimbus_free(w->z);
    nimbus_free(w->edges);
    nimbus_free(w->n_edges);
    nimbus_free(w->bin);
    nimbus_free(w->bucket);
    nimbus_free(w->sums);
    nimbus_free(w->sorted);
    nimbus_free(w->keys);
    nimbus_free(w->allowed);
    nimbus_free(w->chosen);
    nimbus_free(w->gram);
}

static bool workspace_new(workspace *w, size_t n, size_t v, size_t k)
{
    *w = (workspace){.n = n, .v = v, .k = k, .stride = (v / LANES + 1) * LANES};
    w->x = nimbus_alloc(v * n, sizeof *w->x);
    w->z = nimbus_alloc(n * w->stride, sizeof *w->z);
    w->edges = nimbus_alloc(v * (N_BINS - 1), sizeof *w->edges);
    w->n_edges = nimbus_alloc(v, sizeof *w->n_edges);
    w->bin = nimbus_alloc(v * n, sizeof *w->bin);
    w->bucket = nimbus_alloc(n, sizeof *w->bucket);
    w->sums = nimbus_alloc(k / 2 * N_BINS * w->stride, sizeof *w->sums);
    w->sorted = nimbus_alloc(n, sizeof *w->sorted);
    w->keys = nimbus_alloc(2 * n, sizeof *w->keys);
    w->allowed = nimbus_alloc(v, sizeof *w->allowed);
    w->chosen = nimbus_alloc(v, sizeof *w->chosen);
    w->gram = nimbus_alloc(v * v, sizeof *w->gram);
    return w->x && w->z && w->edges && w->n_edges && w->bin && w->bucket && w->sums && w->sorted &&
           w->keys && w->allowed && w->chosen && w->gram;
}

/* The group's columns one after the other. */
static void gather_columns(workspace *w, const nimbus_tree_job *job, const uint32_t *group)
{
    for (size_t n = 0; n < w->n; n++)
        for (size_t j = 0; j < w->v; j++)
            w->x[j * w->n + n] = job->x[n * job->n_columns + group[j]];
}

/* Bits that, as a whole number, stand in the order of the numbers they are of. */
static key key_of(real value)
{
    key bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & SIGN ? ~bits : bits | SIGN;
}

static real value_of(key bits)
{
    real value;
    bits = bits & SIGN ? bits & ~SIGN : ~bits;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Sorts by keys, byte by byte from the last to the first; work: [2][n]. Comparing took a third of
 * the time that trees are learned in. */
static void sort_reals(real *values, size_t n, key *work)
{
    key *from = work, *to = work + n;
    for (size_t i = 0; i < n; i++)
        from[i] = key_of(values[i]);
    for (size_t shift = 0; shift < 8 * sizeof *from; shift += 8) {
        size_t place[256] = {0}, before = 0;
        for (size_t i = 0; i < n; i++)
            place[from[i] >> shift & 255]++;
        for (size_t b = 0; b < 256; b++) {
            size_t count = place[b];
            place[b] = before;
            before += count;
        }
        for (size_t i = 0; i < n; i++)
            to[place[from[i] >> shift & 255]++] = from[i];
        key *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < n; i++)
        values[i] = value_of(from[i]);
}

/* Edges of candidate j at quantiles of its values, and every row's bin. */
static void bin_column(workspace *w, size_t j)
{
    const real *x = w->x + j * w->n;
    real *edges = w->edges + j * (N_BINS - 1);
    size_t n_edges = 0, at = 0;

    memcpy(w->sorted, x, w->n * sizeof *x);
    sort_reals(w->sorted, w->n, w->keys);
    for (size_t b = 1; b < N_BINS; b++) {
        size_t want = b * w->n / N_BINS;
        if (want < at)
            continue;
        /* the next place at or after the quantile where the value changes */
        for (at = want > 0 ? want : 1; at < w->n && !(w->sorted[at] > w->sorted[at - 1]);)
            at++;
        if (at == w->n)
            break;
        real below = w->sorted[at - 1], above = w->sorted[at];
        real middle = below + (above - below) / 2;
        edges[n_edges++] = middle < above ? middle : below;
        at++;
    }
    w->n_edges[j] = n_edges;
    for (size_t e = n_edges; e < N_BINS - 1; e++)
        edges[e] = (real)INFINITY;
    for (size_t n = 0; n < w->n; n++) {
        size_t low = 0;
        for (size_t step = N_BINS / 2; step > 0; step /= 2)
            low += x[n] > edges[low + step - 1] ? step : 0;
        w->bin[j * w->n + n] = (uint8_t)low;
    }
    if (n_edges == 0) /* a constant column: nothing lies above its value */
        edges[0] = w->sorted[w->n - 1];
}

/* z = x L, L in w->gram, of n rows from `first` on. */
NIMBUS_SIMD_CLONES
static void multiply_block(workspace *w, size_t first, size_t n)
{
    for (size_t j = 0; j < w->v; j++) {
        double sums[BLOCK] = {0};
        for (size_t i = j; i < w->v; i++) {
            const real *restrict x = w->x + i * w->n + first;
            const double factor = w->gram[i * w->v + j];
            for (size_t r = 0; r < n; r++)
                sums[r] += (double)x[r] * factor;
        }
        for (size_t r = 0; r < n; r++)
            w->z[(first + r) * w->stride + j] = (real)sums[r];
    }
}

/* z = x L for joined splits: L from the Cholesky factor of the group's Gram matrix of weights. */
static void fill_errors_space(workspace *w, const nimbus_tree_job *job, const uint32_t *group)
{
    size_t v = w->v;
    for (size_t n = 0; n < w->n; n++)
        w->z[n * w->stride + v] = 1;
    if (job->method == NIMBUS_PLAIN) {
        for (size_t n = 0; n < w->n; n++)
            for (size_t j = 0; j < v; j++)
                w->z[n * w->stride + j] = w->x[j * w->n + n];
        return;
    }
    double trace = 0;
    for (size_t i = 0; i < v; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t m = 0; m < job->n_outputs; m++)
                sum += (double)job->weight[m * job->n_columns + group[i]] *
                       (double)job->weight[m * job->n_columns + group[j]];
            w->gram[i * v + j] = sum;
            trace += i == j ? sum : 0;
        }
    /* a little on the diagonal: fewer outputs than columns leave the matrix singular */
    for (size_t i = 0; i < v; i++)
        w->gram[i * v + i] += 1e-6 * trace / (double)v + 1e-30;
    (void)LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', (lapack_int)v, w->gram, (lapack_int)v);
    for (size_t first = 0; first < w->n; first += BLOCK)
        multiply_block(w, first, w->n - first < BLOCK ? w->n - first : BLOCK);
}

/* Adds row n of z. */
NIMBUS_INLINE void add_row(const workspace *w, size_t n, double *sum)
{
    const real *z = w->z + n * w->stride;
    for (size_t i = 0; i < w->stride; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            sum[i + lane] += (double)z[i + lane];
}

/* Per bucket and bin of candidate j: sum of z, with the count. */
NIMBUS_SIMD_CLONES
static void fill_sums(workspace *w, size_t j, size_t n_buckets)
{
    const uint8_t *bin = w->bin + j * w->n;
    memset(w->sums, 0, n_buckets * N_BINS * w->stride * sizeof *w->sums);
    for (size_t n = 0; n < w->n; n++)
        add_row(w, n, w->sums + ((size_t)w->bucket[n] * N_BINS + bin[n]) * w->stride);
}

static double gain_of(const double *sum, size_t v)
{
    double square = 0;
    for (size_t i = 0; i < v; i++)
        square += sum[i] * sum[i];
    return sum[v] > 0 ? square / sum[v] : 0;
}

/* gain[e]: sum over both sides of |sum z|^2 / n if bucket b is split at edge e of candidate j.
 * Edges that leave one side empty get the gain of not splitting. */
static void edge_gains(const workspace *w, size_t b, size_t n_edges, double *gain, double *left,
                       double *right)
{
    size_t width = w->v + 1;
    const double *sums = w->sums + b * N_BINS * w->stride;
    memset(left, 0, width * sizeof *left);
    memset(right, 0, width * sizeof *right);
    for (size_t e = 0; e <= n_edges; e++)
        for (size_t i = 0; i < width; i++)
            right[i] += sums[e * w->stride + i];
    for (size_t e = 0; e < n_edges; e++) {
        for (size_t i = 0; i < width; i++) {
            left[i] += sums[e * w->stride + i];
            right[i] -= sums[e * w->stride + i];
        }
        gain[e] = gain_of(left, w->v) + gain_of(right, w->v);
    }
}

typedef struct split {
    double gain;
    size_t candidate, edge;
} split;

/* The edge that a bucket with nothing to split gets: the column's middle one. */
static size_t middle_edge(const workspace *w, size_t j)
{
    return w->n_edges[j] / 2;
}

/* Best split of each of the level's buckets, tied as `kind` asks; writes nodes. */
static void split_level(workspace *w, nimbus_tree_kind kind, size_t level, split *best,
                        split *trial, double *gain)
{
    size_t n_buckets = (size_t)1 << level;
    double total_best = -1, level_gain[N_BINS], *left = gain + N_BINS, *right = left + w->v + 1;

    for (size_t b = 0; b < n_buckets; b++)
        best[b] = (split){.gain = -1};
    for (size_t j = 0; j < w->v; j++) {
        double total = 0;
        size_t n_edges = w->n_edges[j];
        if (!w->allowed[j])
            continue;
        fill_sums(w, j, n_buckets);
        memset(level_gain, 0, sizeof level_gain);
        for (size_t b = 0; b < n_buckets; b++) {
            trial[b] = (split){.gain = 0, .candidate = j, .edge = middle_edge(w, j)};
            edge_gains(w, b, n_edges, gain, left, right);
            for (size_t e = 0; e < n_edges; e++) {
                level_gain[e] += gain[e];
                /* strictly better than leaving the bucket whole, beyond rounding */
                if (gain[e] > trial[b].gain * (1 + 1e-12)) {
                    trial[b].gain = gain[e];
                    trial[b].edge = e;
                }
            }
            total += trial[b].gain;
            if (kind == NIMBUS_TREE_PER_NODE && trial[b].gain > best[b].gain)
                best[b] = trial[b];
        }
        if (kind == NIMBUS_TREE_FERN) {
            size_t edge = middle_edge(w, j);
            for (size_t e = 0; e < n_edges; e++)
                edge = level_gain[e] > level_gain[edge] ? e : edge;
            total = n_edges ? level_gain[edge] : 0;
            for (size_t b = 0; b < n_buckets; b++)
                trial[b].edge = edge;
        }
        if (kind != NIMBUS_TREE_PER_NODE && total > total_best) {
            total_best = total;
            memcpy(best, trial, n_buckets * sizeof *best);
        }
    }
}

typedef struct learn_job {
    const nimbus_tree_job *job;
    const nimbus_lookup *lookup;
    real *columns, *thresholds; /* [C][K-1] */
    bool *failed;               /* [groups] out of memory */
    size_t n_rows;
} learn_job;

/* Takes the mean of every leaf off the rows in it: what a further tree is learned on. */
static void subtract_leaf_means(workspace *w)
{
    memset(w->sums, 0, w->k * w->stride * sizeof *w->sums);
    for (size_t n = 0; n < w->n; n++)
        add_row(w, n, w->sums + w->bucket[n] * w->stride);
    for (size_t n = 0; n < w->n; n++) {
        const double *sum = w->sums + w->bucket[n] * w->stride;
        for (size_t i = 0; i < w->v; i++)
            w->z[n * w->stride + i] -= (real)(sum[i] / sum[w->v]);
    }
}

/* One tree of the group in w. */
static void grow_tree(const learn_job *l, size_t c, nimbus_tree_kind kind, const uint32_t *group,
                      workspace *w, split *best, double *gain)
{
    size_t k = l->lookup->n_leaves;
    memset(w->chosen, 0, w->v * sizeof *w->chosen);
    memset(w->bucket, 0, w->n);
    for (size_t h = 0; h < l->lookup->n_levels; h++) {
        size_t first = c * (k - 1) + ((size_t)1 << h) - 1;
        split_level(w, kind, h, best, best + k / 2, gain);
        for (size_t b = 0; b < (size_t)1 << h; b++) {
            w->chosen[best[b].candidate] = true;
            l->columns[first + b] = (real)group[best[b].candidate];
            l->thresholds[first + b] = w->edges[best[b].candidate * (N_BINS - 1) + best[b].edge];
        }
        for (size_t n = 0; n < w->n; n++) {
            split s = best[w->bucket[n]];
            bool right = w->n_edges[s.candidate] && w->bin[s.candidate * w->n + n] > s.edge;
            w->bucket[n] = (uint8_t)(2 * w->bucket[n] + right);
        }
    }
}

static void learn_tree(const learn_job *l, size_t c, const uint32_t *group, workspace *w,
                       split *best, double *gain)
{
    for (size_t j = 0; j < w->v; j++)
        w->allowed[j] = true;
    if (l->job->few) {
        grow_tree(l, c, NIMBUS_TREE_SHARED, group, w, best, gain);
        memcpy(w->allowed, w->chosen, w->v * sizeof *w->allowed);
    }
    grow_tree(l, c, l->lookup->kind, group, w, best, gain);
}

static void learn_group(void *arg, size_t g)
{
    const learn_job *l = arg;
    const nimbus_groups *groups = l->job->groups;
    const uint32_t *group = groups->column + groups->first[g];
    size_t v = groups->first[g + 1] - groups->first[g], k = l->lookup->n_leaves;
    size_t n_trees = l->lookup->n_codebooks / groups->n_codebooks;
    split *best = nimbus_alloc(k, sizeof *best);
    double *gain = nimbus_alloc(N_BINS + 2 * (v + 1), sizeof *gain);
    workspace w = {0};

    l->failed[g] = !workspace_new(&w, l->n_rows, v, k) || !best || !gain;
    if (l->failed[g])
        goto done;
    gather_columns(&w, l->job, group);
    fill_errors_space(&w, l->job, group);
    for (size_t j = 0; j < v; j++)
        bin_column(&w, j);
    for (size_t t = 0; t < n_trees; t++) {
        if (t > 0)
            subtract_leaf_means(&w);
        learn_tree(l, g * n_trees + t, group, &w, best, gain);
    }
done:
    workspace_free(&w);
    nimbus_free(best);
    nimbus_free(gain);
}

void nimbus_channel_moments(const real *x, size_t n_rows, size_t n_channels, size_t n, double *mean,
                            double *variance)
{
    const double count = (double)(n_rows * n);
    memset(mean, 0, n_channels * sizeof *mean);
    memset(variance, 0, n_channels * sizeof *variance);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t m = 0; m < n_channels; m++) {
            double sum = mean[m], squares = variance[m];
            for (size_t i = 0; i < n; i++) {
                double value = (double)x[(r * n_channels + m) * n + i];
                sum += value;
                squares += value * value;
            }
            mean[m] = sum;
            variance[m] = squares;
        }
    for (size_t m = 0; m < n_channels; m++) {
        mean[m] /= count;
        variance[m] = variance[m] / count - mean[m] * mean[m];
        if (variance[m] < 0)
            variance[m] = 0;
    }
}

bool nimbus_column_deviations(const real *x, size_t n_rows, size_t d, real *out)
{
    double *mean = nimbus_alloc(d, sizeof *mean), *variance = nimbus_alloc(d, sizeof *variance);
    const bool made = mean && variance;
    if (made)
        nimbus_channel_moments(x, n_rows, d, 1, mean, variance);
    for (size_t j = 0; made && j < d; j++)
        out[j] = (real)sqrt(variance[j]);
    nimbus_free(mean);
    nimbus_free(variance);
    return made;
}

nimbus_status nimbus_trees_margins(nimbus_layer *layer, const real *x, size_t n_rows,
                                   const real *deviations, nimbus_error *error)
{
    size_t d = nimbus_lookup_inputs(layer),
           nodes = layer->lookup->n_codebooks * (layer->lookup->n_leaves - 1);
    real *deviation = nimbus_alloc(2 * d, sizeof *deviation);
    key *keys = nimbus_alloc(2 * d, sizeof *keys);
    const real *columns = nimbus_layer_param(layer, "columns")->value;
    real *margin = nimbus_layer_param(layer, "margin")->value;
    size_t n_live = 0;

    nimbus_status status = NIMBUS_ERR_MEMORY;
    if (!deviation || !keys)
        goto done;
    if (deviations)
        memcpy(deviation, deviations, d * sizeof *deviation);
    else if (!nimbus_column_deviations(x, n_rows, d, deviation))
        goto done;
    real *sorted = deviation + d;
    for (size_t j = 0; j < d; j++)
        if (deviation[j] > 0)
            sorted[n_live++] = deviation[j];
    sort_reals(sorted, n_live, keys);
    real floor = n_live ? (real)0.05 * sorted[n_live / 2] : 1;
    for (size_t i = 0; i < nodes; i++) {
        real s = deviation[(size_t)columns[i]];
        margin[i] = 1 / (s > floor ? s : floor);
    }
    status = NIMBUS_OK;
done:
    nimbus_free(deviation);
    nimbus_free(keys);
    return status ? nimbus_fail(error, status, "layer %s: no memory for margins", layer->name)
                  : NIMBUS_OK;
}

nimbus_status nimbus_trees_learn(nimbus_layer *layer, const nimbus_tree_job *job,
                                 nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    nimbus_lookup *lookup = layer->lookup;
    size_t n_groups = job->groups->n_codebooks;
    learn_job learn = {.job = job,
                       .lookup = lookup,
                       .columns = nimbus_layer_param(layer, "columns")->value,
                       .thresholds = nimbus_layer_param(layer, "thresholds")->value,
                       .n_rows = job->n_rows < MAX_TREE_ROWS ? job->n_rows : MAX_TREE_ROWS};

    if (lookup->n_leaves > job->n_rows)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: %zu leaves per tree but only %zu rows to learn them on",
                           layer->name, lookup->n_leaves, job->n_rows);
    learn.failed = nimbus_alloc(n_groups, sizeof *learn.failed);
    if (!learn.failed)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for trees", layer->name);
    nimbus_parallel(job->n_threads, n_groups, learn_group, &learn);
    for (size_t i = 0; i < n_groups && status == NIMBUS_OK; i++)
        if (learn.failed[i])
            status = nimbus_fail(error, NIMBUS_ERR_MEMORY,
                                 "layer %s: no memory to learn %zu trees on %zu rows", layer->name,
                                 lookup->n_codebooks, learn.n_rows);
    nimbus_free(learn.failed);
    return status ? status
                  : nimbus_trees_margins(layer, job->x, job->n_rows, job->deviations, error);
}
