/* lookup.h - trees and tables: what stands in a converted linear or convolution layer.
 *
 * Codebook c walks a binary tree of H levels; node i (heap order: children 2i+1, 2i+2) compares
 * x[column[c][i]] > threshold[c][i], right if true; the leaf reached is the code k. Then
 * y[m] = bias[m] + sum over c of table[c][k_c][m]. Columns are explicit, so codebooks may overlap.
 *
 * The arrays are params of the layer (saved, trained and checkpointed like any other):
 *     "columns"    [C][K-1]  statistic, input column of every node
 *     "margin"     [C][K-1]  statistic, 1 / standard deviation of that column: margins are in
 *                            standard deviations
 *     "thresholds" [C][K-1]
 *     "tables"     [C][K][M]
 *     "bias"       [M]       (the linear layer's own, shared by all states)
 *     "scales"     [M]       statistic, quantisation step of each output (bits > 0 only)
 *
 * Of kind NIMBUS_CENTROIDS a codebook has no tree: k is the nearest centroid of its V columns, each
 * of which belongs to one codebook at most. Instead of "margin" and "thresholds" there are
 *     "columns"    [C][V]    statistic, -1 where a codebook has fewer
 *     "centroids"  [C][K][V]
 *     "sharpness"  [1]       of the mixture in whose place the nearest one stands (centroid.c)
 *     "tables"     [C][K][M] statistic: centroids times the layer's "weight", which is trained */
#ifndef NIMBUS_LOOKUP_H
#define NIMBUS_LOOKUP_H

#include "net/net.h"

#define NIMBUS_MAX_LEVELS 8

typedef struct nimbus_lookup {
    size_t n_codebooks, n_levels, n_leaves; /* C, H, K */
    size_t n_columns;                       /* V, of centroids; else 0 */
    nimbus_tree_kind kind;                  /* how columns and thresholds are tied in a level */
    nimbus_estimator estimator;             /* backward of SOFT */
    unsigned bits;                          /* 0: float tables; else rounded in the forward pass */
    real temperature;                       /* tau, in margins */
    real margin_noise;                      /* training: standard deviation added to margins */
    real code_noise;                        /* training: part of the codes drawn at random */
    real *rounded;                          /* [C][K][M] tables as the forward pass adds them */
    int32_t *column_index;                  /* [C][K-1] "columns" as integers, renewed per pass */
} nimbus_lookup;

/* Gives a layer trees and tables (zeroed) of this size, replacing any it has; the layer
 * keeps its state. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_lookup_attach(nimbus_layer *layer, size_t n_codebooks,
                                                     size_t n_levels, nimbus_tree_kind kind,
                                                     nimbus_error *error);
/* The same with centroids of v columns; the layer must have weights. */
NIMBUS_MUST_CHECK nimbus_status nimbus_centroids_attach(nimbus_layer *layer, size_t n_codebooks,
                                                        size_t n_levels, size_t v,
                                                        nimbus_error *error);
void nimbus_lookup_free(nimbus_lookup *lookup);

/* Codes of n_rows rows of D values: codes[row][c]. */
void nimbus_lookup_encode(const nimbus_layer *layer, const real *x, size_t n_rows, uint8_t *codes,
                          unsigned n_threads);

/* Rounds the tables of a layer with bits > 0 to what the forward pass adds (and the compiler
 * stores); of centroids it makes the tables, and their scales, first. Call after any of these
 * change. Error: MEMORY, on the first call only. */
NIMBUS_MUST_CHECK nimbus_status nimbus_lookup_round(nimbus_layer *layer, unsigned n_threads,
                                                    nimbus_error *error);

/* The tables as the forward pass adds them: the rounded ones for bits > 0, else the floats. */
const real *nimbus_lookup_tables(const nimbus_layer *layer);

/* quantise.c: chooses the quantisation steps for tables of `bits` (2..8) and rounds: entries are
 * first centred (a codebook's mid-range moves into the bias, which changes nothing), then each
 * output gets the step of least squared error - one step for all outputs if `uniform`, as the last
 * layer needs it for its scores to be compared. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_layer_quantise(nimbus_layer *layer, unsigned bits,
                                                      bool uniform, unsigned n_threads,
                                                      nimbus_error *error);

static inline bool nimbus_layer_uses_lookup(const nimbus_layer *layer)
{
    return layer->state == NIMBUS_STATE_SOFT || layer->state == NIMBUS_STATE_LOOKUP;
}

/* Values that the trees of a layer read and outputs that its tables have, D and M: those of a row
 * of a linear layer, and of one position of a convolution, whose inputs are patches
 * [channel][kernel 0][kernel 1]. */
size_t nimbus_lookup_inputs(const nimbus_layer *layer);
size_t nimbus_lookup_outputs(const nimbus_layer *layer);

/* Rows are walked together in blocks of this many. */
enum { NIMBUS_ROW_BLOCK = 32 };

static inline size_t nimbus_row_blocks(size_t n_rows)
{
    return n_rows / NIMBUS_ROW_BLOCK + (n_rows % NIMBUS_ROW_BLOCK != 0);
}

/* Rows of one block; the last may have fewer. */
static inline size_t nimbus_rows_in_block(size_t n_rows, size_t block)
{
    size_t left = n_rows - block * NIMBUS_ROW_BLOCK;
    return left < NIMBUS_ROW_BLOCK ? left : NIMBUS_ROW_BLOCK;
}

/* Rows on their way through the trees and tables of a layer: of a batch, or positions of images.
 * With `blocks` x and dx are [n_rows / NIMBUS_ROW_BLOCK, rounded up][D][NIMBUS_ROW_BLOCK] instead;
 * what stands behind the last row is read, but of no effect. */
typedef struct nimbus_lookup_rows {
    size_t first, n_rows; /* first: its number in the batch, for margin noise */
    bool blocks;
    const real *x;  /* [n_rows][D] */
    real *y;        /* [n_rows][M], forward */
    const real *dy; /* [n_rows][M], backward */
    real *dx;       /* [n_rows][D], backward adds here; NULL where nobody needs it */
    uint8_t *codes; /* [n_rows][C], kept from forward to backward */
    void *work;     /* backward: nimbus_lookup_work_size bytes of anything */
} nimbus_lookup_rows;

/* Forward and backward of the states SOFT and LOOKUP. Of io only
 * training, seed, step and n_threads are used. */
void nimbus_lookup_forward(nimbus_layer *layer, const nimbus_io *io,
                           const nimbus_lookup_rows *rows);
void nimbus_lookup_backward(nimbus_layer *layer, const nimbus_io *io,
                            const nimbus_lookup_rows *rows);
/* SIZE_MAX: more than can be counted. */
size_t nimbus_lookup_work_size(const nimbus_layer *layer, size_t n_rows);

/* centroid.c: what is different of centroids. codes of rows; backward without the bias. */
void nimbus_centroids_tables(nimbus_layer *layer, unsigned n_threads);
void nimbus_centroids_encode(const nimbus_layer *layer, const nimbus_lookup_rows *rows,
                             unsigned n_threads);
void nimbus_centroids_backward(nimbus_layer *layer, const nimbus_io *io,
                               const nimbus_lookup_rows *rows);
size_t nimbus_centroids_work_size(const nimbus_layer *layer, size_t n_rows);

/* lookup_conv.c: the same for a convolution, with what its layer type asks for. */
size_t nimbus_lookup_conv_saved_size(const nimbus_layer *layer, size_t n_rows);
size_t nimbus_lookup_conv_scratch_size(const nimbus_layer *layer, size_t n_rows);
void nimbus_lookup_conv_forward(nimbus_layer *layer, nimbus_io *io);
void nimbus_lookup_conv_backward(nimbus_layer *layer, nimbus_io *io);

/* Patches of n positions of images x, each counted through all images: out [n][D], zeros where a
 * patch leaves the image. */
void nimbus_lookup_conv_patches(const nimbus_layer *layer, const real *x, const uint32_t *positions,
                                size_t n, real *out, unsigned n_threads);

#endif
