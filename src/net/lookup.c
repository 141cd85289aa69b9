/* lookup.c - the tree walk and table sum of a converted layer, and its gradient.
 *
 * Forward is always the hard walk of Blalock & Guttag 2021 ("Multiplying Matrices Without
 * Multiplying", section 4.1), so SOFT and LOOKUP give the same bits. Backward replaces the steps of
 * the walk by something that has a slope. With margins h_i = (x[column_i] - threshold_i) * margin_i
 * and g_k = sum over m of dy[m] * tables[c][k][m]:
 *
 *   flip     nodes i on the path: dh_i = 1/2 tanh'(h_i/tau)/tau * (g[right_i] - g[left_i]), where
 *            right_i is the leaf the row reaches if node i alone is forced right; left_i likewise
 *   sigmoid  p_k = product of sigmoid(+-h_i/tau) along the path to k; dh_i = sum of g_k dp_k/dh_i
 *   softmax  Schoenleber et al. 2023 ("Stella Nera"): p = softmax over leaves of the sum of
 *            +-sign(h_i) along the path, sign differentiated as tanh(h_i/tau)
 *
 * Tables get the gradient of the hard forward: dtables[c][code] += dy. */
#include "net/lookup.h"

#include <math.h>
#include <string.h>

#include "net/internal.h"

enum {
    ROW_CHUNK = 32, /* rows of one parallel item; fixed, so that threads change nothing */
    SUM_BLOCK = 4 * (int)NIMBUS_VECTOR, /* outputs summed in registers at a time */
    GRAD_BLOCK = 128, /* outputs of a codebook's table gradient kept in the L1 cache */
    MAX_NODES = (1 << NIMBUS_MAX_LEVELS) - 1
};

size_t nimbus_lookup_inputs(const nimbus_layer *layer)
{
    const nimbus_slide *s = &layer->slide;
    return layer->type == &nimbus_layer_conv2d
               ? layer->in_shape.channels * s->kernel[0] * s->kernel[1]
               : nimbus_shape_width(layer->in_shape);
}

size_t nimbus_lookup_outputs(const nimbus_layer *layer)
{
    return layer->units;
}

nimbus_status nimbus_lookup_attach(nimbus_layer *layer, size_t n_codebooks, size_t n_levels,
                                   nimbus_tree_kind kind, nimbus_error *error)
{
    static const char *const names[] = {"columns", "margin", "thresholds", "tables", "scales"};
    nimbus_status status = NIMBUS_OK;
    nimbus_lookup *lookup = NULL;
    size_t m = nimbus_lookup_outputs(layer), kept = 0;

    if (n_levels < 1 || n_levels > NIMBUS_MAX_LEVELS || n_codebooks < 1)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: %zu codebooks of %zu levels, expected at least 1 of 1 to %d",
                           layer->name, n_codebooks, n_levels, NIMBUS_MAX_LEVELS);
    if (!nimbus_layer_is_convertible(layer))
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "layer %s: trees in the place of a layer of type %s with %zu groups, "
                           "expected a linear layer or a convolution without groups",
                           layer->name, layer->type->name, layer->groups);
    size_t leaves = (size_t)1 << n_levels;
    for (size_t i = 0; i < layer->n_params; i++) {
        bool ours = false;
        for (size_t j = 0; j < sizeof names / sizeof names[0]; j++)
            ours |= strcmp(layer->params[i].name, names[j]) == 0;
        if (ours) {
            nimbus_free(layer->params[i].value);
            nimbus_free(layer->params[i].grad);
        } else {
            layer->params[kept++] = layer->params[i];
        }
    }
    layer->n_params = kept;
    nimbus_lookup_free(layer->lookup);
    layer->lookup = NULL;

    lookup = nimbus_alloc(1, sizeof *lookup);
    if (!lookup)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for trees", layer->name);
    layer->lookup = lookup;
    lookup->n_codebooks = n_codebooks;
    lookup->n_levels = n_levels;
    lookup->n_leaves = leaves;
    lookup->kind = kind;
    lookup->estimator = NIMBUS_ESTIMATOR_FLIP;
    lookup->temperature = (real)0.5;
    lookup->column_index = nimbus_alloc(n_codebooks, (leaves - 1) * sizeof *lookup->column_index);
    if (!lookup->column_index)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for trees", layer->name);

    const size_t nodes[] = {n_codebooks, leaves - 1}, tables[] = {n_codebooks, leaves, m};
    if ((status = nimbus_layer_add_param(layer, "columns", 2, nodes, true, false, error)) ||
        (status = nimbus_layer_add_param(layer, "margin", 2, nodes, true, false, error)) ||
        (status = nimbus_layer_add_param(layer, "thresholds", 2, nodes, false, false, error)) ||
        (status = nimbus_layer_add_param(layer, "tables", 3, tables, false, true, error)) ||
        (status = nimbus_layer_add_param(layer, "scales", 1, &m, true, false, error)))
        return status;
    return NIMBUS_OK;
}

void nimbus_lookup_free(nimbus_lookup *lookup)
{
    if (!lookup)
        return;
    nimbus_free(lookup->rounded);
    nimbus_free(lookup->column_index);
    nimbus_free(lookup);
}

/* ---- the arrays of a layer, found once per pass ------------------------------------------- */

typedef struct trees {
    const nimbus_lookup *lookup;
    const int32_t *columns; /* [C][K-1] */
    const real *margin, *thresholds, *tables, *bias;
    real *dthresholds, *dtables, *dbias; /* NULL where not trained */
    size_t c, h, k, nodes, d, m;
    uint64_t stream; /* of the layer's margin noise */
} trees;

static real *value_of(const nimbus_layer *layer, const char *name, real **grad)
{
    const nimbus_param *p = nimbus_layer_param((nimbus_layer *)layer, name);
    if (grad)
        *grad = p && p->trained ? p->grad : NULL;
    return p ? p->value : NULL;
}

static trees trees_of(const nimbus_layer *layer)
{
    const nimbus_lookup *lookup = layer->lookup;
    trees t = {.lookup = lookup,
               .columns = lookup->column_index,
               .c = lookup->n_codebooks,
               .h = lookup->n_levels,
               .k = lookup->n_leaves,
               .nodes = lookup->n_leaves - 1,
               .d = nimbus_lookup_inputs(layer),
               .m = nimbus_lookup_outputs(layer),
               .stream = nimbus_crc32c(0, layer->name, strlen(layer->name))};
    const real *columns = value_of(layer, "columns", NULL);
    t.margin = value_of(layer, "margin", NULL);
    t.thresholds = value_of(layer, "thresholds", &t.dthresholds);
    value_of(layer, "tables", &t.dtables);
    t.tables = nimbus_lookup_tables(layer);
    t.bias = value_of(layer, "bias", &t.dbias);
    for (size_t i = 0; i < t.c * t.nodes; i++)
        lookup->column_index[i] = (int32_t)columns[i];
    return t;
}

const real *nimbus_lookup_tables(const nimbus_layer *layer)
{
    return layer->lookup->bits && layer->lookup->rounded ? layer->lookup->rounded
                                                         : value_of(layer, "tables", NULL);
}

/* ---- rounding ------------------------------------------------------------------------------ */

typedef struct round_job {
    const real *tables, *scales;
    real *rounded;
    size_t rows_per_item, m;
    real limit;
} round_job;

NIMBUS_SIMD_CLONES
static void round_rows(const round_job *job, size_t first)
{
    const real *restrict scales = job->scales;
    for (size_t r = first; r < first + job->rows_per_item; r++) {
        const real *restrict in = job->tables + r * job->m;
        real *restrict out = job->rounded + r * job->m;
        for (size_t m = 0; m < job->m; m++) {
            real q = NIMBUS_RINT(in[m] / scales[m]);
            q = q > job->limit ? job->limit : q;
            q = q < -job->limit ? -job->limit : q;
            out[m] = q * scales[m];
        }
    }
}

static void round_item(void *arg, size_t i)
{
    const round_job *job = arg;
    round_rows(job, i * job->rows_per_item);
}

nimbus_status nimbus_lookup_round(nimbus_layer *layer, unsigned n_threads, nimbus_error *error)
{
    nimbus_lookup *lookup = layer->lookup;
    size_t m = nimbus_lookup_outputs(layer);

    if (lookup->bits == 0)
        return NIMBUS_OK;
    if (!lookup->rounded) {
        lookup->rounded =
            nimbus_alloc(lookup->n_codebooks * lookup->n_leaves * m, sizeof *lookup->rounded);
        if (!lookup->rounded)
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for rounded tables",
                               layer->name);
    }
    round_job job = {.tables = value_of(layer, "tables", NULL),
                     .scales = value_of(layer, "scales", NULL),
                     .rounded = lookup->rounded,
                     .rows_per_item = lookup->n_leaves,
                     .m = m,
                     .limit = (real)((1 << (lookup->bits - 1)) - 1)};
    nimbus_parallel(n_threads, lookup->n_codebooks, round_item, &job);
    return NIMBUS_OK;
}

/* ---- the walk ------------------------------------------------------------------------------ */

/* Noise on the margins of one row and codebook, one value per level: triangular with standard
 * deviation sigma, from 32 bits of counter randomness each. */
static void margin_noise(const nimbus_io *io, uint64_t stream, size_t row, size_t c, size_t levels,
                         real sigma, real *noise)
{
    const real step = (real)(2.449489742783178 / 65536.0); /* sqrt(6): triangle of variance 1 */
    for (size_t h = 0; h < levels; h += 2) {
        uint64_t bits = nimbus_random_u64(io->seed ^ stream, io->step,
                                          ((uint64_t)row << 32) + c * NIMBUS_MAX_LEVELS + h);
        for (size_t j = 0; j < 2 && h + j < levels; j++, bits >>= 32) {
            int32_t triangle = (int32_t)(bits & 0xffff) - (int32_t)(bits >> 16 & 0xffff);
            noise[h + j] = sigma * step * (real)triangle;
        }
    }
}

/* Leaf reached from `node`, which stands at level `h`. */
static inline size_t walk_from(const trees *t, const real *x, size_t c, size_t node, size_t h,
                               const real *noise)
{
    const int32_t *columns = t->columns + c * t->nodes;
    const real *thresholds = t->thresholds + c * t->nodes;
    if (!noise) {
        for (; h < t->h; h++)
            node = 2 * node + 1 + (size_t)(x[columns[node]] > thresholds[node]);
    } else {
        const real *margin = t->margin + c * t->nodes;
        for (; h < t->h; h++)
            node = 2 * node + 1 +
                   (size_t)((x[columns[node]] - thresholds[node]) * margin[node] + noise[h] > 0);
    }
    return node - t->nodes;
}

typedef struct walk_job {
    const trees *t;
    const nimbus_io *io; /* NULL: no margin noise */
    const real *x;
    size_t first, n_rows;
    uint8_t *codes; /* [n_rows][C] */
    real sigma;
} walk_job;

static void walk_item(void *arg, size_t item)
{
    const walk_job *job = arg;
    const trees *t = job->t;
    size_t last = (item + 1) * ROW_CHUNK < job->n_rows ? (item + 1) * ROW_CHUNK : job->n_rows;
    real noise[NIMBUS_MAX_LEVELS];

    for (size_t n = item * ROW_CHUNK; n < last; n++)
        for (size_t c = 0; c < t->c; c++) {
            if (job->sigma > 0)
                margin_noise(job->io, t->stream, job->first + n, c, t->h, job->sigma, noise);
            job->codes[n * t->c + c] =
                (uint8_t)walk_from(t, job->x + n * t->d, c, 0, 0, job->sigma > 0 ? noise : NULL);
        }
}

static size_t n_chunks(size_t n_rows)
{
    return (n_rows + ROW_CHUNK - 1) / ROW_CHUNK;
}

void nimbus_lookup_encode(const nimbus_layer *layer, const real *x, size_t n_rows, uint8_t *codes,
                          unsigned n_threads)
{
    trees t = trees_of(layer);
    walk_job job = {.t = &t, .x = x, .n_rows = n_rows, .codes = codes};
    nimbus_parallel(n_threads, n_chunks(n_rows), walk_item, &job);
}

/* ---- forward ------------------------------------------------------------------------------- */

typedef struct sum_job {
    const trees *t;
    const uint8_t *codes;
    real *y;
    size_t n_rows;
} sum_job;

/* y[m..m+width) of one row; width <= SUM_BLOCK. */
static inline void sum_block(const trees *t, const uint8_t *codes, size_t m, size_t width, real *y)
{
    real sum[SUM_BLOCK];
    memcpy(sum, t->bias + m, width * sizeof(real));
    const real *table = t->tables + m;
    for (size_t c = 0; c < t->c; c++, table += t->k * t->m) {
        const real *entry = table + codes[c] * t->m;
        for (size_t j = 0; j < width; j++)
            sum[j] += entry[j];
    }
    memcpy(y + m, sum, width * sizeof(real));
}

NIMBUS_SIMD_CLONES
static void sum_rows(const sum_job *job, size_t first, size_t last)
{
    const trees *t = job->t;
    size_t whole = t->m / SUM_BLOCK * SUM_BLOCK;
    for (size_t m = 0; m < whole; m += SUM_BLOCK)
        for (size_t n = first; n < last; n++) {
            /* four vectors by name: an array of them would be kept in memory */
            const real *table = t->tables + m;
            const uint8_t *codes = job->codes + n * t->c;
            const nimbus_unaligned *bias = (const void *)(t->bias + m);
            nimbus_unaligned *y = (void *)(job->y + n * t->m + m);
            nimbus_vector s0 = bias[0], s1 = bias[1], s2 = bias[2], s3 = bias[3];
            for (size_t c = 0; c < t->c; c++, table += t->k * t->m) {
                const nimbus_unaligned *entry = (const void *)(table + codes[c] * t->m);
                s0 += entry[0];
                s1 += entry[1];
                s2 += entry[2];
                s3 += entry[3];
            }
            y[0] = s0;
            y[1] = s1;
            y[2] = s2;
            y[3] = s3;
        }
    for (size_t n = first; whole < t->m && n < last; n++)
        sum_block(t, job->codes + n * t->c, whole, t->m - whole, job->y + n * t->m);
}

static void sum_item(void *arg, size_t item)
{
    const sum_job *job = arg;
    size_t first = item * ROW_CHUNK, last = first + ROW_CHUNK;
    sum_rows(job, first, last < job->n_rows ? last : job->n_rows);
}

static real noise_of(const nimbus_layer *layer, const nimbus_io *io)
{
    return io->training && layer->state == NIMBUS_STATE_SOFT ? layer->lookup->margin_noise : 0;
}

void nimbus_lookup_forward(nimbus_layer *layer, const nimbus_io *io, const nimbus_lookup_rows *rows)
{
    trees t = trees_of(layer);
    walk_job walk = {.t = &t,
                     .io = io,
                     .x = rows->x,
                     .first = rows->first,
                     .n_rows = rows->n_rows,
                     .codes = rows->codes,
                     .sigma = noise_of(layer, io)};
    sum_job sum = {.t = &t, .codes = rows->codes, .y = rows->y, .n_rows = rows->n_rows};
    nimbus_parallel(io->n_threads, n_chunks(rows->n_rows), walk_item, &walk);
    nimbus_parallel(io->n_threads, n_chunks(rows->n_rows), sum_item, &sum);
}

/* ---- backward ------------------------------------------------------------------------------ */

/* The derivative of tanh, without overflow. */
static real tanh_slope(real u)
{
    real e = NIMBUS_EXP(-2 * NIMBUS_FABS(u)), one = 1 + e;
    return 4 * e / (one * one);
}

static inline real margin_at(const trees *t, const real *x, size_t c, size_t node)
{
    size_t i = c * t->nodes + node;
    return (x[t->columns[i]] - t->thresholds[i]) * t->margin[i];
}

/* flip: for each level the node on the path. */
static void flip_margins(const trees *t, const real *x, size_t c, size_t code, const real *g,
                         const real *noise, real *dh)
{
    real tau = t->lookup->temperature;
    size_t node = 0;
    for (size_t h = 0; h < t->h; h++) {
        size_t right = code >> (t->h - 1 - h) & 1;
        size_t other = walk_from(t, x, c, 2 * node + 2 - right, h + 1, noise);
        real difference = right ? g[code] - g[other] : g[other] - g[code];
        real margin = margin_at(t, x, c, node) + (noise ? noise[h] : 0);
        dh[h] = (real)0.5 * tanh_slope(margin / tau) / tau * difference;
        node = 2 * node + 1 + right;
    }
}

/* sigmoid and softmax: every node. reach[i] is the probability to come to node i, weight[i] the
 * sum of p_k g_k below it; leaves stand behind the nodes in the heap. */
static void tree_margins(const trees *t, const real *x, size_t c, const real *g, const real *noise,
                         real *dh)
{
    bool softmax = t->lookup->estimator == NIMBUS_ESTIMATOR_SOFTMAX;
    real tau = t->lookup->temperature, right[MAX_NODES], slope[MAX_NODES];
    real reach[2 * MAX_NODES + 1], weight[2 * MAX_NODES + 1];

    reach[0] = 1;
    for (size_t i = 0, h = 0; i < t->nodes; i++) {
        if (i + 1 == (size_t)2 << h)
            h++;
        real margin = margin_at(t, x, c, i) + (noise ? noise[h] : 0);
        /* softmax over sums of +-1: each node splits e^1 : e^-1 */
        real u = softmax ? (margin > 0 ? 2 : -2) : margin / tau;
        right[i] = 1 / (1 + NIMBUS_EXP(-u));
        slope[i] = softmax ? tanh_slope(margin / tau) / tau : right[i] * (1 - right[i]) / tau;
        reach[2 * i + 1] = reach[i] * (1 - right[i]);
        reach[2 * i + 2] = reach[i] * right[i];
    }
    for (size_t k = 0; k < t->k; k++)
        weight[t->nodes + k] = reach[t->nodes + k] * g[k];
    for (size_t i = t->nodes; i-- > 0;)
        weight[i] = weight[2 * i + 1] + weight[2 * i + 2];
    for (size_t i = 0; i < t->nodes; i++) {
        size_t l = 2 * i + 1, r = 2 * i + 2;
        if (softmax) {
            dh[i] = slope[i] * (weight[r] - weight[l] - weight[0] * (reach[r] - reach[l]));
        } else {
            /* d p_k / d right_i = p_k / right_i on the right, -p_k / (1 - right_i) on the left;
             * probabilities that vanish in the arithmetic carry no gradient */
            real from_right = right[i] > 0 ? weight[r] / right[i] : 0;
            real from_left = right[i] < 1 ? weight[l] / (1 - right[i]) : 0;
            dh[i] = slope[i] * (from_right - from_left);
        }
    }
}

typedef struct backward_job {
    const trees *t;
    const nimbus_io *io;
    const nimbus_lookup_rows *rows;
    real *leaf_grad; /* [N][C][K] g */
    real *dmargin;   /* [N][C][per_codebook] */
    size_t per_codebook;
    real sigma;
} backward_job;

static size_t margins_per_codebook(const nimbus_lookup *lookup)
{
    return lookup->estimator == NIMBUS_ESTIMATOR_FLIP ? lookup->n_levels : lookup->n_leaves - 1;
}

size_t nimbus_lookup_work_size(const nimbus_layer *layer, size_t n_rows)
{
    const nimbus_lookup *lookup = layer->lookup;
    size_t per_row = lookup->n_codebooks * (lookup->n_leaves + margins_per_codebook(lookup)), size;
    return nimbus_mul_overflows(n_rows, per_row * sizeof(real), &size) ? SIZE_MAX : size;
}

/* Node that entry j of a codebook's dmargin belongs to. */
static inline size_t node_of(const backward_job *job, size_t code, size_t j)
{
    if (job->per_codebook != job->t->h)
        return j;
    size_t node = ((size_t)1 << j) - 1;
    return node + (code >> (job->t->h - j));
}

/* Rows of a chunk: dmargin, and the input gradient. */
static void margins_item(void *arg, size_t item)
{
    const backward_job *job = arg;
    const trees *t = job->t;
    const nimbus_lookup_rows *rows = job->rows;
    size_t last = (item + 1) * ROW_CHUNK < rows->n_rows ? (item + 1) * ROW_CHUNK : rows->n_rows;
    real noise_values[NIMBUS_MAX_LEVELS];
    const real *noise = job->sigma > 0 ? noise_values : NULL;

    for (size_t n = item * ROW_CHUNK; n < last; n++) {
        const real *x = rows->x + n * t->d;
        real *dx = rows->dx ? rows->dx + n * t->d : NULL;
        for (size_t c = 0; c < t->c; c++) {
            size_t code = job->rows->codes[n * t->c + c];
            const real *g = job->leaf_grad + (n * t->c + c) * t->k;
            real *dh = job->dmargin + (n * t->c + c) * job->per_codebook;
            if (noise)
                margin_noise(job->io, t->stream, rows->first + n, c, t->h, job->sigma,
                             noise_values);
            if (t->lookup->estimator == NIMBUS_ESTIMATOR_FLIP)
                flip_margins(t, x, c, code, g, noise, dh);
            else
                tree_margins(t, x, c, g, noise, dh);
            for (size_t j = 0; dx && j < job->per_codebook; j++) {
                size_t node = c * t->nodes + node_of(job, code, j);
                dx[t->columns[node]] += dh[j] * t->margin[node];
            }
        }
    }
}

/* One codebook: threshold gradients over all rows, in row order. */
static void thresholds_item(void *arg, size_t c)
{
    const backward_job *job = arg;
    const trees *t = job->t;
    const real *margin = t->margin + c * t->nodes;
    real *grad = t->dthresholds + c * t->nodes;

    for (size_t n = 0; n < job->rows->n_rows; n++) {
        size_t code = job->rows->codes[n * t->c + c];
        const real *dh = job->dmargin + (n * t->c + c) * job->per_codebook;
        for (size_t j = 0; j < job->per_codebook; j++) {
            size_t node = node_of(job, code, j);
            grad[node] -= dh[j] * margin[node];
        }
    }
    /* a fern's thresholds are one parameter per level: all get the level's sum */
    for (size_t h = 1; t->lookup->kind == NIMBUS_TREE_FERN && h < t->h; h++) {
        size_t first = ((size_t)1 << h) - 1, n = (size_t)1 << h;
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
    trees t = trees_of(layer);
    backward_job job = {.t = &t,
                        .io = io,
                        .rows = rows,
                        .leaf_grad = rows->work,
                        .dmargin = (real *)rows->work + rows->n_rows * t.c * t.k,
                        .per_codebook = margins_per_codebook(layer->lookup),
                        .sigma = noise_of(layer, io)};
    if (t.dbias)
        nimbus_parallel_ranges(io->n_threads, t.m, GRAD_BLOCK, bias_range, &job);
    if (t.dtables)
        nimbus_parallel(io->n_threads, t.c, tables_item, &job);
    if (!t.dthresholds && !rows->dx)
        return;
    nimbus_gemm(false, true, rows->n_rows, t.c * t.k, t.m, 1, rows->dy, t.m, t.tables, t.m, 0,
                job.leaf_grad, t.c * t.k, io->n_threads);
    nimbus_parallel(io->n_threads, n_chunks(rows->n_rows), margins_item, &job);
    if (t.dthresholds)
        nimbus_parallel(io->n_threads, t.c, thresholds_item, &job);
}
