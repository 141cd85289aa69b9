/* lookup.c - the tree walk and table sum of a converted layer, and its gradient.
 *
 * Forward is always the hard walk of Blalock & Guttag 2021 ("Multiplying Matrices Without
 * Multiplying", section 4.1), so SOFT and LOOKUP give the same bits; in training SOFT may add noise
 * to margins and draw some codes at random instead. Backward replaces the steps of the walk by
 * something that has a slope. With margins h_i = (x[column_i] - threshold_i) * margin_i and
 * g_k = sum over m of dy[m] * tables[c][k][m]:
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

#include "base/philox.h"
#include "net/internal.h"

enum {
    BLOCK = NIMBUS_ROW_BLOCK, /* rows of one parallel item; fixed, so that threads change nothing */
    MOST_VECTORS = 8,         /* that are summed in registers at a time */
    SUM_BLOCK = MOST_VECTORS * (int)NIMBUS_VECTOR,
    SUM_ROWS = 128,    /* rows that share leaves brought together */
    PACK_LEAVES = 128, /* SUM_BLOCK outputs of so many stay in the L1 cache */
    GRAD_BLOCK = 128,  /* outputs of a codebook's table gradient kept in the L1 cache */
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

/* Takes away what a layer has of trees, centroids and tables, and gives it a new lookup. */
static nimbus_status renew_lookup(nimbus_layer *layer, size_t n_codebooks, size_t n_levels,
                                  nimbus_tree_kind kind, nimbus_error *error)
{
    static const char *const names[] = {"columns",   "margin", "thresholds", "centroids",
                                        "sharpness", "tables", "scales"};
    nimbus_lookup *lookup = NULL;
    size_t kept = 0;

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
    return NIMBUS_OK;
}

nimbus_status nimbus_lookup_attach(nimbus_layer *layer, size_t n_codebooks, size_t n_levels,
                                   nimbus_tree_kind kind, nimbus_error *error)
{
    nimbus_status status = renew_lookup(layer, n_codebooks, n_levels, kind, error);
    if (status)
        return status;
    const size_t leaves = layer->lookup->n_leaves, m = nimbus_lookup_outputs(layer);
    nimbus_lookup *lookup = layer->lookup;
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

nimbus_status nimbus_centroids_attach(nimbus_layer *layer, size_t n_codebooks, size_t n_levels,
                                      size_t v, nimbus_error *error)
{
    /* LUT-NN's training: 0.1 for the temperature, 1e-3 for all else */
    const real sharpness_rate = 100;
    if (!nimbus_layer_param(layer, "weight"))
        return nimbus_fail(error, NIMBUS_ERR_STATE, "layer %s: centroids need a layer with weights",
                           layer->name);
    nimbus_status status = renew_lookup(layer, n_codebooks, n_levels, NIMBUS_CENTROIDS, error);
    if (status)
        return status;
    const size_t leaves = layer->lookup->n_leaves, m = nimbus_lookup_outputs(layer), one = 1;
    const size_t columns[] = {n_codebooks, v}, centroids[] = {n_codebooks, leaves, v};
    const size_t tables[] = {n_codebooks, leaves, m};
    layer->lookup->n_columns = v;
    if ((status = nimbus_layer_add_param(layer, "columns", 2, columns, true, false, error)) ||
        (status = nimbus_layer_add_param(layer, "centroids", 3, centroids, false, false, error)) ||
        (status = nimbus_layer_add_param(layer, "sharpness", 1, &one, false, false, error)) ||
        (status = nimbus_layer_add_param(layer, "tables", 3, tables, true, false, error)) ||
        (status = nimbus_layer_add_param(layer, "scales", 1, &m, true, false, error)))
        return status;
    nimbus_layer_param(layer, "sharpness")->rate_scale = sharpness_rate;
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
    bool soft;       /* trees are trained */
    uint64_t stream; /* of the layer's noise */
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
               .soft = layer->state == NIMBUS_STATE_SOFT,
               .stream = nimbus_crc32c(0, layer->name, strlen(layer->name))};
    const bool walks = lookup->kind != NIMBUS_CENTROIDS;
    const real *columns = value_of(layer, "columns", NULL);
    t.margin = value_of(layer, "margin", NULL);
    t.thresholds = value_of(layer, "thresholds", &t.dthresholds);
    value_of(layer, "tables", &t.dtables);
    t.tables = nimbus_lookup_tables(layer);
    t.bias = value_of(layer, "bias", &t.dbias);
    for (size_t i = 0; walks && i < t.c * t.nodes; i++)
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

/* One step for all outputs, from the largest entry (LUT-NN). */
static void scale_to_largest(nimbus_layer *layer)
{
    const nimbus_param *tables = nimbus_layer_param(layer, "tables");
    nimbus_param *scales = nimbus_layer_param(layer, "scales");
    real largest = 0;
    for (size_t i = 0; i < tables->n; i++) {
        real size = NIMBUS_FABS(tables->value[i]);
        largest = size > largest ? size : largest;
    }
    for (size_t i = 0; i < scales->n; i++)
        scales->value[i] = largest > 0 ? largest / (real)((1 << (layer->lookup->bits - 1)) - 1) : 1;
}

nimbus_status nimbus_lookup_round(nimbus_layer *layer, unsigned n_threads, nimbus_error *error)
{
    nimbus_lookup *lookup = layer->lookup;
    size_t m = nimbus_lookup_outputs(layer);

    if (lookup->kind == NIMBUS_CENTROIDS)
        nimbus_centroids_tables(layer, n_threads);
    if (lookup->bits == 0)
        return NIMBUS_OK;
    if (lookup->kind == NIMBUS_CENTROIDS)
        scale_to_largest(layer);
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

/* Noise on the margins of a block of rows from `row` on in one codebook, [H][BLOCK]: triangular
 * with standard deviation sigma, from 32 bits of counter randomness each. */
NIMBUS_INLINE void margin_noise(const nimbus_io *io, uint64_t stream, size_t row, size_t c,
                                size_t levels, real sigma, real *restrict noise)
{
    const real step = (real)(2.449489742783178 / 65536.0); /* sqrt(6): triangle of variance 1 */
    uint32_t words[4][BLOCK];
    for (size_t h = 0; h < levels; h++) {
        const uint64_t first = ((uint64_t)(c * NIMBUS_MAX_LEVELS + h) << 32) + row;
        for (size_t r = 0; h % 4 == 0 && r < BLOCK; r++) {
            const nimbus_philox bits = nimbus_philox_of(io->seed ^ stream, io->step, first + r);
            for (size_t j = 0; j < 4; j++)
                words[j][r] = bits.word[j];
        }
        for (size_t r = 0; r < BLOCK; r++) {
            const uint32_t bits = words[h % 4][r];
            const int32_t triangle = (int32_t)(bits & 0xffff) - (int32_t)(bits >> 16);
            noise[h * BLOCK + r] = sigma * step * (real)triangle;
        }
    }
}

/* Random bits for the codes of one codebook, of a block of rows from `row` on: the low 24 say
 * whether a code is drawn, the high 8 which leaf. Margin noise does not use level 1's counters. */
enum { PARTS = 1 << 24 };

NIMBUS_INLINE void code_bits(const nimbus_io *io, uint64_t stream, size_t row, size_t c,
                             uint32_t *restrict bits)
{
    const uint64_t first = ((uint64_t)(c * NIMBUS_MAX_LEVELS + 1) << 32) + row;
    for (size_t r = 0; r < BLOCK; r++)
        bits[r] = nimbus_philox_of(io->seed ^ stream, io->step, first + r).word[0];
}

/* What the trees of one codebook compare, of a block of rows. */
typedef struct block {
    const trees *t;
    size_t c, n;                     /* codebook; rows: those behind them hold zeros */
    bool shared;                     /* values: one column a level, else one a node */
    const real *thresholds, *margin; /* [K-1] */
    const real *noise;               /* [H][BLOCK], or NULL */
    real values[MAX_NODES * BLOCK];  /* [column][BLOCK] */
    real noise_values[NIMBUS_MAX_LEVELS * BLOCK];
} block;

/* Rows as the caller has them: the value of row r in column d is x[r * row + d * column]. */
typedef struct source {
    const nimbus_io *io; /* NULL: no noise */
    const real *x;
    size_t first, n_rows, row, column;
    real sigma;     /* of margins */
    uint32_t drawn; /* codes, of PARTS */
} source;

NIMBUS_INLINE bool is_drawn(const source *from, uint32_t bits)
{
    return bits % PARTS < from->drawn;
}

/* io NULL: without noise. */
static source source_of(const trees *t, const nimbus_io *io, const nimbus_lookup_rows *rows)
{
    const bool noisy = io && io->training && t->soft;
    return (source){.io = io,
                    .x = rows->x,
                    .first = rows->first,
                    .n_rows = rows->n_rows,
                    .row = rows->blocks ? 1 : t->d,
                    .column = rows->blocks ? BLOCK : 1,
                    .sigma = noisy ? t->lookup->margin_noise : 0,
                    .drawn = noisy ? (uint32_t)(t->lookup->code_noise * PARTS) : 0};
}

/* First node of a level; all of its nodes read the same column where columns are shared. */
static inline size_t first_node(size_t level)
{
    return ((size_t)1 << level) - 1;
}

NIMBUS_INLINE void load_block(block *b, const trees *t, const source *from, size_t item, size_t c)
{
    const int32_t *columns = t->columns + c * t->nodes;
    const real *x = from->x + item * BLOCK * t->d;
    b->t = t;
    b->c = c;
    b->n = nimbus_rows_in_block(from->n_rows, item);
    b->shared = t->lookup->kind != NIMBUS_TREE_PER_NODE;
    b->thresholds = t->thresholds + c * t->nodes;
    b->margin = t->margin + c * t->nodes;
    b->noise = from->sigma > 0 ? b->noise_values : NULL;
    for (size_t j = 0; j < (b->shared ? t->h : t->nodes); j++) {
        const real *value = x + (size_t)columns[b->shared ? first_node(j) : j] * from->column;
        real *to = b->values + j * BLOCK;
        if (from->row == 1) {
            memcpy(to, value, BLOCK * sizeof *to);
            continue;
        }
        for (size_t r = 0; r < b->n; r++)
            to[r] = value[r * from->row];
        for (size_t r = b->n; r < BLOCK; r++)
            to[r] = 0;
    }
    if (b->noise)
        margin_noise(from->io, t->stream, from->first + item * BLOCK, c, t->h, from->sigma,
                     b->noise_values);
}

/* All rows from their nodes on level h to those on the next one. */
NIMBUS_INLINE void step_down(const block *b, size_t h, int32_t *restrict node)
{
    const real *restrict thresholds = b->thresholds, *restrict margin = b->margin;
    const real *restrict noise = b->noise ? b->noise + h * BLOCK : NULL;
    const real *restrict level = b->values + h * BLOCK, *restrict values = b->values;
    if (noise)
        for (size_t r = 0; r < BLOCK; r++) {
            int32_t i = node[r];
            real value = b->shared ? level[r] : values[(size_t)i * BLOCK + r];
            node[r] = 2 * i + 1 + ((value - thresholds[i]) * margin[i] + noise[r] > 0);
        }
    else if (b->shared)
        for (size_t r = 0; r < BLOCK; r++)
            node[r] = 2 * node[r] + 1 + (level[r] > thresholds[node[r]]);
    else
        for (size_t r = 0; r < BLOCK; r++) {
            int32_t i = node[r];
            node[r] = 2 * i + 1 + (values[(size_t)i * BLOCK + r] > thresholds[i]);
        }
}

typedef struct walk_job {
    const trees *t;
    source from;
    uint8_t *codes; /* [n_rows][C] */
} walk_job;

NIMBUS_SIMD_CLONES
static void walk_block(const walk_job *job, size_t item)
{
    const trees *t = job->t;
    block b;
    for (size_t c = 0; c < t->c; c++) {
        int32_t node[BLOCK] = {0};
        uint8_t *codes = job->codes + item * BLOCK * t->c + c;
        load_block(&b, t, &job->from, item, c);
        for (size_t h = 0; h < t->h; h++)
            step_down(&b, h, node);
        for (size_t r = 0; r < b.n; r++)
            codes[r * t->c] = (uint8_t)((size_t)node[r] - t->nodes);
        if (!job->from.drawn)
            continue;
        uint32_t bits[BLOCK];
        code_bits(job->from.io, t->stream, job->from.first + item * BLOCK, c, bits);
        for (size_t r = 0; r < b.n; r++)
            if (is_drawn(&job->from, bits[r]))
                codes[r * t->c] = (uint8_t)(bits[r] / PARTS % t->k);
    }
}

static void walk_item(void *arg, size_t item)
{
    walk_block(arg, item);
}

void nimbus_lookup_encode(const nimbus_layer *layer, const real *x, size_t n_rows, uint8_t *codes,
                          unsigned n_threads)
{
    nimbus_lookup_rows rows = {.x = x, .n_rows = n_rows, .codes = codes};
    if (layer->lookup->kind == NIMBUS_CENTROIDS) {
        nimbus_centroids_encode(layer, &rows, n_threads);
        return;
    }
    trees t = trees_of(layer);
    walk_job job = {.t = &t, .from = source_of(&t, NULL, &rows), .codes = codes};
    nimbus_parallel(n_threads, nimbus_row_blocks(n_rows), walk_item, &job);
}

/* ---- forward ------------------------------------------------------------------------------- */

typedef struct sum_job {
    const trees *t;
    const uint8_t *codes;
    real *y;
    size_t n_rows;
} sum_job;

/* From so many outputs and four rows a leaf on it pays to bring leaves together. */
static bool packs(const trees *t, size_t n_rows)
{
    return t->m >= 4 * SUM_BLOCK && n_rows >= 4 * t->k;
}

/* Adds what n_codebooks from c on look up in n vectors of outputs, from m on, of rows first..last;
 * n is a constant. */
NIMBUS_INLINE void add_vectors(const sum_job *job, const real *tables, size_t stride, size_t c,
                               size_t n_codebooks, size_t m, size_t first, size_t last,
                               const size_t n)
{
    const trees *t = job->t;
    for (size_t r = first; r < last; r++) {
        const uint8_t *codes = job->codes + r * t->c + c;
        const real *table = tables;
        nimbus_unaligned *y = (void *)(job->y + r * t->m + m);
        nimbus_vector sums[MOST_VECTORS];
        for (size_t i = 0; i < n; i++)
            sums[i] = y[i];
        for (size_t j = 0; j < n_codebooks; j++, table += t->k * stride) {
            const nimbus_unaligned *entry = (const void *)(table + codes[j] * stride);
            for (size_t i = 0; i < n; i++)
                sums[i] += entry[i];
        }
        for (size_t i = 0; i < n; i++)
            y[i] = sums[i];
    }
}

/* The same of a few outputs, fewer than a vector. */
NIMBUS_INLINE void add_few(const sum_job *job, size_t m, size_t first, size_t last)
{
    const trees *t = job->t;
    for (size_t r = first; r < last; r++) {
        const uint8_t *codes = job->codes + r * t->c;
        const real *table = t->tables + m;
        real sums[NIMBUS_VECTOR], *y = job->y + r * t->m + m;
        memcpy(sums, y, (t->m - m) * sizeof *y);
        for (size_t c = 0; c < t->c; c++, table += t->k * t->m)
            for (size_t j = 0; j < t->m - m; j++)
                sums[j] += table[codes[c] * t->m + j];
        memcpy(y, sums, (t->m - m) * sizeof *y);
    }
}

/* A block of outputs of rows first..last. What many rows look up in a few codebooks is brought
 * together first: the rows of wide tables lie so far apart that few fit into a cache. */
NIMBUS_SIMD_CLONES
static void sum_rows(const sum_job *job, size_t m, size_t first, size_t last)
{
    const trees *t = job->t;
    const size_t left = t->m - m, width = left < SUM_BLOCK ? left : SUM_BLOCK;
    const real *tables = t->tables + m;
    for (size_t r = first; r < last; r++)
        memcpy(job->y + r * t->m + m, t->bias + m, width * sizeof(real));
    if (width == SUM_BLOCK && packs(t, last - first)) {
        real packed[PACK_LEAVES * SUM_BLOCK];
        const size_t at_once = PACK_LEAVES / t->k;
        for (size_t c = 0; c < t->c; c += at_once, tables += at_once * t->k * t->m) {
            const size_t n = t->c - c < at_once ? t->c - c : at_once;
            for (size_t i = 0; i < n * t->k; i++)
                memcpy(packed + i * SUM_BLOCK, tables + i * t->m, SUM_BLOCK * sizeof(real));
            add_vectors(job, packed, SUM_BLOCK, c, n, m, first, last, MOST_VECTORS);
        }
        return;
    }
    size_t at = 0; /* the last block's outputs in ever fewer vectors */
    if (width == SUM_BLOCK) {
        add_vectors(job, tables, t->m, 0, t->c, m, first, last, MOST_VECTORS);
        at = SUM_BLOCK;
    }
    if (width - at >= 4 * NIMBUS_VECTOR) {
        add_vectors(job, tables + at, t->m, 0, t->c, m + at, first, last, 4);
        at += 4 * NIMBUS_VECTOR;
    }
    if (width - at >= 2 * NIMBUS_VECTOR) {
        add_vectors(job, tables + at, t->m, 0, t->c, m + at, first, last, 2);
        at += 2 * NIMBUS_VECTOR;
    }
    if (width - at >= NIMBUS_VECTOR) {
        add_vectors(job, tables + at, t->m, 0, t->c, m + at, first, last, 1);
        at += NIMBUS_VECTOR;
    }
    if (at < width)
        add_few(job, m + at, first, last);
}

/* Narrow layers have few blocks of outputs to share out, so theirs are of fewer rows. */
static size_t rows_of_item(const trees *t)
{
    return packs(t, SUM_ROWS) ? SUM_ROWS : BLOCK;
}

static size_t blocks_of_outputs(const trees *t)
{
    return (t->m + SUM_BLOCK - 1) / SUM_BLOCK;
}

static void sum_item(void *arg, size_t item)
{
    const sum_job *job = arg;
    const size_t n_blocks = blocks_of_outputs(job->t), n = rows_of_item(job->t);
    const size_t first = item / n_blocks * n, left = job->n_rows - first;
    sum_rows(job, item % n_blocks * SUM_BLOCK, first, first + (left < n ? left : n));
}

void nimbus_lookup_forward(nimbus_layer *layer, const nimbus_io *io, const nimbus_lookup_rows *rows)
{
    trees t = trees_of(layer);
    walk_job walk = {.t = &t, .from = source_of(&t, io, rows), .codes = rows->codes};
    sum_job sum = {.t = &t, .codes = rows->codes, .y = rows->y, .n_rows = rows->n_rows};
    if (t.lookup->kind == NIMBUS_CENTROIDS)
        nimbus_centroids_encode(layer, rows, io->n_threads);
    else
        nimbus_parallel(io->n_threads, nimbus_row_blocks(rows->n_rows), walk_item, &walk);
    const size_t n = rows_of_item(&t);
    nimbus_parallel(io->n_threads, (rows->n_rows + n - 1) / n * blocks_of_outputs(&t), sum_item,
                    &sum);
}

/* ---- backward ------------------------------------------------------------------------------ */

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
    trees t = trees_of(layer);
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
