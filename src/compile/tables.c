/* tables.c - trees and tables as programs store them
 *
 * Trees are rewritten on the way: a flipped comparison swaps the node's subtrees, a constant one
 * copies the subtree that is always taken over the other, and columns are renumbered to those that
 * the producing step computes. */
#include <math.h>

#include "compile/compile.h"

/* A tree while it is rewritten: for every new node and leaf the old one that stands there. */
typedef struct rewritten {
    size_t source[2 << NIMBUS_MAX_LEVELS]; /* heap: nodes, then leaves */
    double threshold[1 << NIMBUS_MAX_LEVELS];
    bool split[1 << NIMBUS_MAX_LEVELS];
} rewritten;

static void rewrite(const nimbus_branch *splits, size_t nodes, rewritten *out)
{
    out->source[0] = 0;
    for (size_t i = 0; i < nodes; i++) {
        size_t old = out->source[i];
        nimbus_branch split = splits[old];
        size_t left = 2 * old + 1, right = 2 * old + 2;
        out->split[i] = split.decision == NIMBUS_DECIDE_SPLIT;
        out->threshold[i] = out->split[i] ? split.threshold : 0;
        if (out->split[i] && split.flipped) {
            size_t swap = left;
            left = right;
            right = swap;
        }
        out->source[2 * i + 1] = split.decision == NIMBUS_DECIDE_RIGHT ? right : left;
        out->source[2 * i + 2] = split.decision == NIMBUS_DECIDE_LEFT ? left : right;
    }
}

void nimbus_array_begin(nimbus_buffer *out)
{
    nimbus_write_pad(out, 64);
}

static bool is_used(const nimbus_trees_build *b, size_t c)
{
    return !b->used || b->used[c];
}

/* Columns of a level are shared unless some tree is per node. Where no node of a level splits, the
 * column does not matter: any that exists serves. */
static void write_columns(const nimbus_trees_build *b, const rewritten *trees, nimbus_buffer *out)
{
    const nimbus_lookup *lookup = b->layer->lookup;
    const real *columns = nimbus_layer_param((nimbus_layer *)b->layer, "columns")->value;
    size_t nodes = lookup->n_leaves - 1;
    bool per_node = lookup->kind == NIMBUS_TREE_PER_NODE;

    nimbus_array_begin(out);
    for (size_t c = 0; c < lookup->n_codebooks; c++)
        for (size_t h = 0, i = 0; is_used(b, c) && h < lookup->n_levels; h++) {
            uint32_t column = 0;
            for (size_t k = 0; k < (size_t)1 << h; k++, i++) {
                bool split = trees[c].split[i];
                uint32_t here =
                    split ? b->number[(size_t)columns[c * nodes + trees[c].source[i]]] : 0;
                if (per_node)
                    nimbus_write_u32le(out, here);
                else if (split)
                    column = here;
            }
            if (!per_node)
                nimbus_write_u32le(out, column);
        }
}

static void write_thresholds(const nimbus_trees_build *b, const rewritten *trees,
                             nimbus_buffer *out)
{
    const nimbus_lookup *lookup = b->layer->lookup;
    nimbus_array_begin(out);
    for (size_t c = 0; c < lookup->n_codebooks; c++)
        for (size_t i = 0; is_used(b, c) && i < lookup->n_leaves - 1; i++)
            if (b->f32)
                nimbus_write_f32le(out, (float)trees[c].threshold[i]);
            else
                nimbus_write_u8(out, (uint8_t)(int8_t)trees[c].threshold[i]);
}

/* One leaf's entries of the live outputs; returns the largest of them and `largest`. */
static int write_leaf(const nimbus_trees_build *b, const real *row, size_t m_all, bool packed,
                      int largest, nimbus_buffer *out)
{
    unsigned pending = 0;
    bool half = false;
    for (size_t m = 0; m < m_all; m++) {
        if (!b->live[m])
            continue;
        int q = nimbus_table_entry(row[m], b->unit[m]);
        largest = q > largest ? q : -q > largest ? -q : largest;
        if (!packed) {
            nimbus_write_u8(out, (uint8_t)(int8_t)q);
        } else if (half) {
            nimbus_write_u8(out, (uint8_t)(pending | ((unsigned)q & 15) << 4));
            half = false;
        } else {
            pending = (unsigned)q & 15;
            half = true;
        }
    }
    if (half)
        nimbus_write_u8(out, (uint8_t)pending);
    return largest;
}

static void write_tables(const nimbus_trees_build *b, const rewritten *trees, double *reach,
                         nimbus_buffer *out)
{
    const nimbus_lookup *lookup = b->layer->lookup;
    size_t nodes = lookup->n_leaves - 1, m = nimbus_lookup_outputs(b->layer);
    bool packed = nimbus_lookup_flags(lookup) & NIMBUS_FLAG_4BIT;

    nimbus_array_begin(out);
    *reach = 0;
    for (size_t c = 0; c < lookup->n_codebooks; c++) {
        int largest = 0;
        for (size_t k = 0; is_used(b, c) && k < lookup->n_leaves; k++) {
            size_t old = trees[c].source[nodes + k] - nodes;
            const real *row = b->tables + (c * lookup->n_leaves + old) * m;
            largest = write_leaf(b, row, m, packed, largest, out);
        }
        *reach += largest;
    }
}

nimbus_status nimbus_trees_write(const nimbus_trees_build *b, double *reach, nimbus_buffer *out,
                                 nimbus_error *error)
{
    const nimbus_lookup *lookup = b->layer->lookup;
    rewritten *trees = nimbus_alloc(lookup->n_codebooks, sizeof *trees);
    if (!trees)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s", b->layer->name);
    for (size_t c = 0; c < lookup->n_codebooks; c++)
        rewrite(b->splits + c * (lookup->n_leaves - 1), lookup->n_leaves - 1, &trees[c]);
    write_columns(b, trees, out);
    write_thresholds(b, trees, out);
    write_tables(b, trees, reach, out);
    nimbus_free(trees);
    return NIMBUS_OK;
}

void nimbus_tables_reach(const nimbus_layer *layer, const real *tables, const double *unit,
                         const bool *used, double *low, double *high)
{
    const nimbus_lookup *lookup = layer->lookup;
    size_t n = nimbus_lookup_outputs(layer);
    for (size_t m = 0; m < n; m++)
        for (size_t c = 0; c < lookup->n_codebooks; c++) {
            const real *entry = tables + c * lookup->n_leaves * n + m;
            double least = INFINITY, most = -INFINITY;
            for (size_t k = 0; k < lookup->n_leaves && (!used || used[c]); k++) {
                double q = rint((double)entry[k * n] / unit[m]);
                least = q < least ? q : least;
                most = q > most ? q : most;
            }
            low[m] += isinf(least) ? 0 : least;
            high[m] += isinf(most) ? 0 : most;
        }
}

uint32_t nimbus_lookup_flags(const nimbus_lookup *lookup)
{
    bool packed = lookup->bits > 0 && lookup->bits <= 4;
    return (lookup->kind == NIMBUS_TREE_PER_NODE ? NIMBUS_FLAG_PER_NODE : 0u) |
           (packed ? NIMBUS_FLAG_4BIT : 0u);
}
