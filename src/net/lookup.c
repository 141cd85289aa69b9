/* lookup.c - trees and tables in the place of a layer's weights: their arrays, walk and sum.
 *
 * Forward is always the hard walk of Blalock & Guttag 2021 ("Multiplying Matrices Without
 * Multiplying", section 4.1), so SOFT and LOOKUP give the same bits; in training SOFT may add noise
 * to margins and draw some codes at random instead. */
#include <string.h>

#include "net/lookup_walk.h"

enum {
    MOST_VECTORS = 8, /* that are summed in registers at a time */
    SUM_BLOCK = MOST_VECTORS * (int)NIMBUS_VECTOR,
    SUM_ROWS = 128,   /* rows that share leaves brought together */
    PACK_LEAVES = 128 /* SUM_BLOCK outputs of so many stay in the L1 cache */
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

static real *value_of(const nimbus_layer *layer, const char *name, real **grad)
{
    const nimbus_param *p = nimbus_layer_param((nimbus_layer *)layer, name);
    if (grad)
        *grad = p && p->trained ? p->grad : NULL;
    return p ? p->value : NULL;
}

trees nimbus_trees_of(const nimbus_layer *layer)
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
    trees t = nimbus_trees_of(layer);
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
    trees t = nimbus_trees_of(layer);
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
