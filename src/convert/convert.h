/* convert.h - the parts of the conversion stage: columns, trees, tables, plans. */
#ifndef NIMBUS_CONVERT_H
#define NIMBUS_CONVERT_H

#include "net/lookup.h"
#include "net/net.h"

/* ---- columns.c: which input columns the tree of each codebook may read --------------------- */

typedef enum nimbus_columns {
    NIMBUS_COLUMNS_AUTO = 0, /* patches for images, blocks otherwise */
    NIMBUS_COLUMNS_BLOCK,    /* V consecutive columns */
    NIMBUS_COLUMNS_PATCH,    /* a rectangle of about V neighbouring pixels of one channel */
    NIMBUS_COLUMNS_WINDOW,   /* the patch and its surroundings: windows overlap */
    NIMBUS_COLUMNS_BALANCED, /* as many as of AUTO, of unequal sizes: see nimbus_groups_balance */
    NIMBUS_COLUMNS_RUNS      /* as many as of BLOCK, balanced: runs of consecutive columns */
} nimbus_columns;

static inline bool nimbus_columns_balanced(nimbus_columns columns)
{
    return columns == NIMBUS_COLUMNS_BALANCED || columns == NIMBUS_COLUMNS_RUNS;
}

/* Lists of input columns, codebook c's are column[first[c] .. first[c + 1]). */
typedef struct nimbus_groups {
    size_t n_codebooks;
    size_t *first;    /* [C + 1] */
    uint32_t *column; /* [first[C]] */
} nimbus_groups;

/* Deals the columns of an input of this shape to codebooks of v columns, the last one shorter
 * where v does not divide. Errors: ARGUMENT (v larger than the input), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_groups_new(nimbus_shape shape, size_t v,
                                                  nimbus_columns columns, nimbus_groups *out,
                                                  nimbus_error *error);
/* Deals the columns anew, to as many codebooks as there are: rectangles of an image's channels, or
 * runs of a vector, cut in two where it helps most, so that no tree is left with columns that
 * hardly change or matter. levels: of all trees of a group. importance: [D], 0 or more, how much of
 * a column there is in the layer's outputs. The groups must not overlap. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_groups_balance(nimbus_shape shape, size_t levels,
                                                      const double *importance,
                                                      nimbus_groups *groups, nimbus_error *error);
void nimbus_groups_free(nimbus_groups *groups);

/* ---- tree.c: learning the splits ------------------------------------------------------------ */

typedef struct nimbus_tree_job {
    const real *x; /* [n_rows][n_columns] inputs the trees are learned on */
    size_t n_rows, n_columns;
    const real *weight; /* [n_outputs][n_columns]; used by joined splits only */
    size_t n_outputs;
    nimbus_split_method method;
    bool few; /* the kind is PER_NODE, but nodes compare only columns that SHARED would */
    const nimbus_groups *groups;
    const real *deviations; /* [n_columns] standard deviations of what the trees will read, for
                               their margins; NULL: of x */
    unsigned n_threads;
} nimbus_tree_job;

/* Mean and variance, 0 or more, of each channel of x [n_rows][n_channels][n]. */
void nimbus_channel_moments(const real *x, size_t n_rows, size_t n_channels, size_t n, double *mean,
                            double *variance);
/* Standard deviations of the columns of x [n_rows][d]; false: no memory. */
NIMBUS_MUST_CHECK bool nimbus_column_deviations(const real *x, size_t n_rows, size_t d, real *out);

/* Fills "columns", "thresholds" and "margin" of a layer with attached lookup (its kind, H and C, a
 * multiple of the groups: codebooks g * T .. g * T + T - 1 read group g). Of several trees of a
 * group each is learned on what the leaf means of those before it leave ("boosted"). Errors:
 * MEMORY; ARGUMENT if K exceeds the rows. */
NIMBUS_MUST_CHECK nimbus_status nimbus_trees_learn(nimbus_layer *layer, const nimbus_tree_job *job,
                                                   nimbus_error *error);

/* The last step of nimbus_trees_learn: "margin" of every node, 1 / standard deviation of its column
 * in x [n_rows][D], or as given; floored at 5 % of their median, so that nearly constant columns do
 * not get huge margins. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_trees_margins(nimbus_layer *layer, const real *x,
                                                     size_t n_rows, const real *deviations,
                                                     nimbus_error *error);

/* ---- start.c: what previous work starts from ------------------------------------------------ */

typedef struct nimbus_start_job {
    const real *x; /* [n_rows][n_columns] */
    size_t n_rows, n_columns;
    const nimbus_groups *groups;
    uint64_t seed;
    unsigned n_threads;
} nimbus_start_job;

/* k-means on some rows for every codebook of a layer with attached centroids. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_centroids_start(nimbus_layer *layer,
                                                       const nimbus_start_job *job,
                                                       nimbus_error *error);
/* Columns, thresholds (values that occur) and tables of a layer with attached trees at random,
 * its bias 0. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_trees_random(nimbus_layer *layer,
                                                    const nimbus_start_job *job,
                                                    nimbus_error *error);

/* ---- table.c: fitting the tables ------------------------------------------------------------ */

typedef struct nimbus_table_job {
    const real *x; /* [n_rows][D] inputs of the layer, from the already converted prefix */
    const real *y; /* [n_rows][M] what the layer should give: the float net's outputs */
    size_t n_rows;
    const real *weight;          /* [M][D] of the float layer */
    const nimbus_groups *groups; /* as for the trees */
    nimbus_table_method method;
    double lambda; /* ridge in rows per leaf (n_rows / K); 0: chosen on held-out rows */
    unsigned n_threads;
} nimbus_table_job;

/* Fills "tables" of a layer with learned trees; "bias" holds the float layer's and is kept.
 * *error_fit: squared error over the rows (the held-out tenth if lambda was chosen), divided by
 * the variance of y. Errors: MEMORY, VALUE (the system is not positive definite). */
NIMBUS_MUST_CHECK nimbus_status nimbus_tables_fit(nimbus_layer *layer, const nimbus_table_job *job,
                                                  double *error_fit, nimbus_error *error);

/* ---- plan.c: what the options say about each layer ------------------------------------------ */

typedef struct nimbus_layer_plan {
    bool exact;
    bool pinned;             /* the caller has settings for this layer */
    size_t v, levels, trees; /* trees: per group of V columns */
    unsigned bits;           /* 0: float tables */
    nimbus_tree_choice tree; /* what AUTO stands for, not AUTO itself */
    nimbus_columns columns;
} nimbus_layer_plan;

bool nimbus_has_convolutions(const nimbus_net *net);
/* Whether no product is behind layer i: then its scores are compared. */
bool nimbus_is_last_product(const nimbus_net *net, size_t i);

/* One plan per layer of the net (only those of convertible layers mean anything); freed with
 * nimbus_free. Error: ARGUMENT; the message points at the place in options->layers. */
NIMBUS_MUST_CHECK nimbus_status nimbus_plan_layers(const nimbus_net *net,
                                                   const nimbus_convert_options *options,
                                                   nimbus_layer_plan **out, nimbus_error *error);

#endif
