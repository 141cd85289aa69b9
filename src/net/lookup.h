/* lookup.h - trees and tables: what stands in a converted linear layer.
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
 *     "scales"     [M]       statistic, quantisation step of each output (bits > 0 only) */
#ifndef NIMBUS_LOOKUP_H
#define NIMBUS_LOOKUP_H

#include "net/net.h"

#define NIMBUS_MAX_LEVELS 8

typedef struct nimbus_lookup {
    size_t n_codebooks, n_levels, n_leaves; /* C, H, K */
    nimbus_tree_kind kind;                  /* how columns and thresholds are tied in a level */
    nimbus_estimator estimator;             /* backward of SOFT */
    unsigned bits;                          /* 0: float tables; else rounded in the forward pass */
    real temperature;                       /* tau, in margins */
    real margin_noise;                      /* training: standard deviation added to margins */
    real *rounded;                          /* [C][K][M] tables as the forward pass adds them */
    int32_t *column_index;                  /* [C][K-1] "columns" as integers, renewed per pass */
} nimbus_lookup;

/* Gives a linear layer trees and tables (zeroed) of this size, replacing any it has; the layer
 * keeps its state. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_lookup_attach(nimbus_layer *layer, size_t n_codebooks,
                                                     size_t n_levels, nimbus_tree_kind kind,
                                                     nimbus_error *error);
void nimbus_lookup_free(nimbus_lookup *lookup);

/* Codes of n_rows rows of D values: codes[row][c]. D is layer->in_shape's width. */
void nimbus_lookup_encode(const nimbus_layer *layer, const real *x, size_t n_rows, uint8_t *codes,
                          unsigned n_threads);

/* Rounds the tables of a layer with bits > 0 to what the forward pass adds (and the compiler
 * stores); call after the tables, scales or bits change. No-op for bits == 0. Error: MEMORY, on
 * the first call only. */
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

/* Forward and backward of the states SOFT and LOOKUP; called by the linear layer, which adds the
 * bias's gradient itself. */
size_t nimbus_lookup_saved_size(const nimbus_layer *layer, size_t n_rows);
void nimbus_lookup_forward(nimbus_layer *layer, nimbus_io *io);
void nimbus_lookup_backward(nimbus_layer *layer, nimbus_io *io);

#endif
