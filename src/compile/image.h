/* image.h - the parts of the compiler for programs on images
 *
 * The layers of a net become nodes (image_graph.c): products, sums, pools and concatenations, each
 * with what follows it alone folded into its normal form. Every node makes a value of i8 channels,
 * in one of two ways:
 *
 *     shifted   a product that only trees read, perhaps through max pools and concatenations: sums
 *               moved so that the thresholds of each channel lie around 0, and increasing with the
 *               real value, so that maxima stay maxima
 *     on a grid real = a2[c] * (step[c] * (q - zero[c])) + b2[c], with a2 and b2 of the normal form
 *               (image_grid.c)
 *
 * Max pools and concatenations hand on what they read: a channel of theirs has an origin, the
 * channel of the node where its value was made. */
#ifndef NIMBUS_COMPILE_IMAGE_H
#define NIMBUS_COMPILE_IMAGE_H

#include "compile/compile.h"

typedef enum nimbus_node_kind { /* as in a step of the program */
                                NIMBUS_NODE_INPUT = 0,
                                NIMBUS_NODE_LOOKUP,
                                NIMBUS_NODE_EXACT,
                                NIMBUS_NODE_ADD,
                                NIMBUS_NODE_MAX_POOL,
                                NIMBUS_NODE_AVERAGE_POOL,
                                NIMBUS_NODE_CONCAT
} nimbus_node_kind;

typedef struct nimbus_node {
    nimbus_node_kind kind;
    const nimbus_layer *layer; /* of the net: its name, and of a product its numbers */
    size_t n_sources, sources[NIMBUS_MAX_SOURCES]; /* nodes */
    nimbus_shape in, shape;                        /* of source 0, and of what it makes */
    bool whole; /* the window is the whole image, whatever its size */
    bool plain; /* EXACT: every channel as it is, for what is folded into it */
    nimbus_slide slide;
    size_t groups;
    const uint32_t *order; /* linear layers: element of the source that a column is; NULL: itself */
    nimbus_post post;      /* empty for max pools and concatenations */
    bool affine_after;     /* a batch norm is behind the function */
    size_t before, at;     /* layers whose outputs enter the function, and leave it */
    bool scores;           /* of the program */

    /* what it makes */
    bool shifted;
    double *step, *zero;      /* [M] of the grid */
    int low, high;            /* clamp */
    double map_low, map_step; /* a mapped node: what its function reads for q = -128, per q */
    bool mapped;
    int8_t map[256];

    /* products: v = unit * sum + constant. A shifted channel that falls as the sum rises has a
     * negative unit: its tables or weights are stored negated. */
    double *unit, *constant; /* [M] */
    const real *tables;      /* lookup: what entries are made of */
    int8_t *weight;          /* exact: [M][taps of a group] */
    int8_t *pad;             /* [channels of the source] */

    /* lookup: its comparisons, [C][K-1] */
    nimbus_cut *cuts;      /* in sums of a shifted origin, else in its integers */
    bool *zero_above;      /* whether 0, which stands around the image, is above the threshold */
    nimbus_branch *splits; /* as stored */
    bool *used;            /* [C] codebooks that matter */

    bool *live; /* [M] channels that are computed */
    uint32_t output, shift;
    int32_t *bias;          /* [M] */
    double *scale, *offset; /* [M] */
} nimbus_node;

/* A layer's outputs, said in nodes. */
typedef struct nimbus_tensor {
    size_t node;
    nimbus_shape shape; /* as the net sees it, without pads */
    uint32_t *order;    /* element of the node's value that each is; NULL: itself. Owned */
    size_t before[2], after[2];
    bool padded; /* by a layer `pad` of zeros in front */
    bool sole;   /* nothing else reads the node's value */
} nimbus_tensor;

typedef struct nimbus_image_build {
    nimbus_net *net;
    const nimbus_compile_options *options;
    size_t n_nodes, capacity;
    nimbus_node *nodes;
    nimbus_tensor *tensors; /* [n_layers] */
    size_t *n_readers;      /* [n_layers]; 0: it does not matter */
    unsigned *fates;        /* [n_layers] who reads what becomes of it, image_fold.c */
    bool input_claimed;     /* its shape is settled */
    nimbus_ranges ranges;
    float output_scale;
} nimbus_image_build;

static inline bool nimbus_node_is_product(const nimbus_node *node)
{
    return node->kind == NIMBUS_NODE_LOOKUP || node->kind == NIMBUS_NODE_EXACT;
}

static inline bool nimbus_node_has_window(const nimbus_node *node)
{
    return nimbus_node_is_product(node) || node->kind == NIMBUS_NODE_MAX_POOL ||
           node->kind == NIMBUS_NODE_AVERAGE_POOL;
}

static inline bool nimbus_node_pads(const nimbus_node *node)
{
    const nimbus_slide *s = &node->slide;
    return nimbus_node_has_window(node) && s->before[0] + s->before[1] + s->after[0] + s->after[1];
}

static inline size_t nimbus_node_taps(const nimbus_node *node)
{
    return node->slide.kernel[0] * node->slide.kernel[1];
}

/* Channel of the source that column d of a product reads, in its group. */
static inline size_t nimbus_node_channel(const nimbus_node *node, size_t d)
{
    return (node->order ? node->order[d] : d) / nimbus_node_taps(node);
}

/* ---- image_graph.c: layers become nodes --------------------------------------------------------
 */

NIMBUS_MUST_CHECK nimbus_status nimbus_image_graph(nimbus_image_build *b, nimbus_error *error);
void nimbus_node_free(nimbus_node *node);

/* Where channel *channel of node's value was made; sets it. */
size_t nimbus_image_origin(const nimbus_image_build *b, size_t node, size_t *channel);

/* ---- image_fold.c: what disappears into a node --------------------------------------------------
 */

/* Sets n_readers and fates; makes room for tensors. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_image_find_fates(nimbus_image_build *b, nimbus_error *error);
/* Folds batch norm or function i into the node if that is possible. */
NIMBUS_MUST_CHECK bool nimbus_image_fold(nimbus_image_build *b, nimbus_node *node, size_t i);
/* Whether a layer's window, or the layer itself, pads. */
bool nimbus_layer_slides_off(const nimbus_layer *layer);

/* ---- image_grid.c: grids of values, from measured ranges ---------------------------------------
 */

NIMBUS_MUST_CHECK nimbus_status nimbus_image_grids(nimbus_image_build *b, nimbus_error *error);
/* real = *alpha * q + *beta for channel c of node's value, which is on a grid. */
void nimbus_image_affine(const nimbus_image_build *b, size_t node, size_t c, double *alpha,
                         double *beta);
/* The i8 nearest to the real 0. */
int8_t nimbus_image_zero(const nimbus_image_build *b, size_t node, size_t c);

/* ---- image_product.c: integers of products, and their outputs on grids -------------------------
 */

NIMBUS_MUST_CHECK nimbus_status nimbus_image_units(nimbus_image_build *b, nimbus_node *node,
                                                   nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_image_outputs(nimbus_image_build *b, nimbus_node *node,
                                                     nimbus_error *error);

/* ---- image_tree.c: comparisons, what is read at all, sums for trees ----------------------------
 */

NIMBUS_MUST_CHECK nimbus_status nimbus_image_cuts(nimbus_image_build *b, nimbus_node *node,
                                                  nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_image_shifts(nimbus_image_build *b, nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_image_splits(nimbus_image_build *b, nimbus_node *node,
                                                    nimbus_error *error);

/* ---- image_live.c: channels and codebooks that matter ------------------------------------------
 */

void nimbus_image_live(nimbus_image_build *b);
/* Entries of codebooks that are left out, all the same for an output, go into its bias. */
void nimbus_image_keep_constants(nimbus_node *node);

/* ---- image_write.c -----------------------------------------------------------------------------
 */

NIMBUS_MUST_CHECK nimbus_status nimbus_image_write(const nimbus_image_build *b, nimbus_buffer *out,
                                                   nimbus_error *error);

#endif
