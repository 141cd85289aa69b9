/* compile.h - the parts of the compiler: what stands between two products, thresholds in the
 * producing step's integers, and the bytes of a step.
 *
 * A chain, input, then linear layers with batch norm, activation and dropout between them, becomes
 * a program on rows; each linear layer is one step. All other nets become programs on images,
 * image.h. */
#ifndef NIMBUS_COMPILE_H
#define NIMBUS_COMPILE_H

#include <math.h>

#include "base/program_format.h"
#include "net/lookup.h"
#include "net/net.h"
#include "net/simd.h"

/* ---- fold.c: everything between one product and the next, in normal form --------------------- */

typedef enum nimbus_function {
    NIMBUS_F_IDENTITY = 0,
    NIMBUS_F_RELU,
    NIMBUS_F_CLIP,
    NIMBUS_F_TANH,
    NIMBUS_F_SIGMOID,
    NIMBUS_F_GELU,
    NIMBUS_F_HARD_SWISH
} nimbus_function;

/* value = a2 * f(a1 * v + b1) + b2 for every output column v of the product. */
typedef struct nimbus_post {
    nimbus_function function;
    double low, high;          /* of a clip */
    size_t n;                  /* M */
    double *a1, *b1, *a2, *b2; /* [M] */
} nimbus_post;

double nimbus_function_value(const nimbus_post *post, double v);
bool nimbus_function_is_monotone(nimbus_function f);

/* The function that a layer computes; IDENTITY for a layer that is none. */
nimbus_function nimbus_function_of(const nimbus_layer *layer);
/* Whether the layer's outputs are its inputs in their order: dropout and changes of shape. */
bool nimbus_layer_changes_nothing(const nimbus_layer *layer);

/* The identity. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_post_new(nimbus_post *post, size_t m, nimbus_error *error);
/* Puts a layer after what is there: a function where there is none yet; a batch norm in front of
 * the function or behind it. */
void nimbus_post_take_function(nimbus_post *post, const nimbus_layer *layer);
void nimbus_post_take_batch_norm(nimbus_post *post, const nimbus_layer *layer, bool second);

/* Folds layers first..last-1 of the chain, which follow a product with m outputs. Errors:
 * UNSUPPORTED (names the layer), MEMORY. Freed with nimbus_post_free. */
NIMBUS_MUST_CHECK nimbus_status nimbus_post_fold(const nimbus_net *net, size_t first, size_t last,
                                                 size_t m, nimbus_post *out, nimbus_error *error);
void nimbus_post_free(nimbus_post *post);

/* A comparison `value > t` said about the product's output v instead: v > at, or v < at if
 * flipped. at = -INFINITY means always true, +INFINITY never (flipped is then false). */
typedef struct nimbus_cut {
    double at;
    bool flipped;
} nimbus_cut;

/* Cut of `a * v + b > t`. */
nimbus_cut nimbus_cut_affine(double a, double b, double t);

/* Pulls the comparison back through the normal form of column m, whose function is monotone. */
nimbus_cut nimbus_post_cut(const nimbus_post *post, size_t m, double t);

/* ---- tables.c: trees and tables as programs store them --------------------------------------- */

/* How a node of a tree decides in a program: flipped exchanges its subtrees, one that always
 * decides alike has the subtree of that side on both. */
typedef enum nimbus_decision {
    NIMBUS_DECIDE_SPLIT = 0,
    NIMBUS_DECIDE_RIGHT,
    NIMBUS_DECIDE_LEFT
} nimbus_decision;

typedef struct nimbus_branch {
    nimbus_decision decision;
    bool flipped;
    double threshold; /* an i8, or an f32 */
} nimbus_branch;

typedef struct nimbus_trees_build {
    const nimbus_layer *layer;
    const nimbus_branch *splits; /* [C][K-1] */
    const uint32_t *number;      /* [D] what a column is called in the program */
    bool f32;                    /* thresholds */
    const double *unit;          /* [M] of the tables; negative: entries are negated */
    const real *tables;          /* [C][K][M] */
    const bool *live;            /* [M] outputs that are stored */
    const bool *used;            /* [C] codebooks that are stored; NULL: all */
} nimbus_trees_build;

static inline int nimbus_table_entry(real value, double unit)
{
    return (int)NIMBUS_RINT(value / (real)unit);
}

/* Appends columns, thresholds and tables; *reach: what a sum can reach, up or down. Error:
 * MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_trees_write(const nimbus_trees_build *build, double *reach,
                                                   nimbus_buffer *out, nimbus_error *error);

/* Adds to [M] each what the sums of used codebooks can be, in units. */
void nimbus_tables_reach(const nimbus_layer *layer, const real *tables, const double *unit,
                         const bool *used, double *low, double *high);

/* Flags of a lookup step. */
uint32_t nimbus_lookup_flags(const nimbus_lookup *lookup);

/* Threshold for y = (sum + bias) >> shift that is nearest to `sum > t`. */
static inline double nimbus_shifted_threshold(double t, int32_t bias, uint32_t shift)
{
    return floor((t + bias + 1) / ldexp(1, (int)shift) + 0.5) - 1;
}

/* Every array of a section starts at a multiple of 64 bytes. */
void nimbus_array_begin(nimbus_buffer *out);

/* ---- step.c: one step while the program is being made ---------------------------------------- */

typedef struct nimbus_step_build {
    const nimbus_layer *layer;
    bool lookup;      /* else exact */
    size_t d, m;      /* of the layer */
    nimbus_post post; /* after it */

    /* its product: v = unit[m] * sum[m] + constant[m] */
    double *unit, *constant; /* [M] */
    int8_t *weight;          /* exact: [M][D] rounded weights */

    /* its comparisons (lookup): sum or input value > cut.at, in the producer's integers */
    nimbus_cut *cuts; /* [C][K-1] */

    /* its input */
    uint32_t input;               /* NIMBUS_IN_* */
    double *in_scale, *in_offset; /* exact on raw f32: [D] */

    /* its output */
    uint32_t output, shift; /* NIMBUS_OUT_* */
    int32_t *bias;          /* [M] */
    float *scale, *offset;  /* [M], NIMBUS_OUT_SCALED */
    bool mapped;
    int8_t map[256];
    double *alpha, *beta; /* [M] NIMBUS_OUT_SCALED: value = alpha * y + beta */
    bool *live;           /* [M] columns that are computed */
} nimbus_step_build;

void nimbus_step_build_free(nimbus_step_build *step);

/* Writes the step's section into an empty buffer. `before` is the step that produces its input,
 * NULL for the first. Errors: LIMIT (a sum could overflow), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_step_build_write(const nimbus_step_build *step,
                                                        const nimbus_step_build *before,
                                                        nimbus_buffer *out, nimbus_error *error);

/* ---- stand_in.c: exact products in the place of lookup layers ---------------------------------
 */

/* Turns the layers of options->exact, in this copy of a converted net, into matrix products;
 * `fitted` false leaves out the fit to calibration rows, which changes accuracy but not speed.
 * Errors: ARGUMENT, STATE, MISMATCH, VALUE, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_stand_ins_make(nimbus_net *net,
                                                      const nimbus_compile_options *options,
                                                      bool fitted, nimbus_error *error);

/* ---- compile.c --------------------------------------------------------------------------------
 */

/* nimbus_compile, with or without fitting stand-ins. */
NIMBUS_MUST_CHECK nimbus_status nimbus_compile_net(const nimbus_net *net,
                                                   const nimbus_compile_options *options,
                                                   bool fitted, void **bytes, size_t *n_bytes,
                                                   nimbus_error *error);

/* ---- range.c: what values occur ----------------------------------------------------------------
 */

/* That there are rows, and as wide as the net's. Error: MISMATCH. */
NIMBUS_MUST_CHECK nimbus_status nimbus_calibration_check(const nimbus_net *net,
                                                         const nimbus_data *data,
                                                         nimbus_error *error);

typedef struct nimbus_range {
    double low, high;
} nimbus_range;

typedef struct nimbus_ranges {
    size_t *first;          /* [n_layers + 1]: where a layer's channels begin */
    nimbus_range *channels; /* of every layer's outputs, channel by channel */
    double *means;          /* the same */
    size_t n_rows;
    nimbus_range *inputs; /* of the raw input columns, [D] */
} nimbus_ranges;

/* Rows to look at. */
typedef struct nimbus_measure {
    const nimbus_data *data;
    size_t max_rows, batch; /* the first so many, `batch` at a time */
    unsigned n_threads;
} nimbus_measure;

/* Freed with nimbus_ranges_free. Errors: MISMATCH, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_ranges_measure(nimbus_net *net,
                                                      const nimbus_measure *measure,
                                                      nimbus_ranges *out, nimbus_error *error);
/* Narrows the ranges of channels, which then hold 0, so that an int8 grid over each leaves the
 * least squared error: values that are rare and far away are cut off. Errors: MISMATCH, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_ranges_narrow(nimbus_net *net, const nimbus_measure *measure,
                                                     nimbus_ranges *ranges, nimbus_error *error);
/* Of all channels of a layer together. */
nimbus_range nimbus_ranges_of_layer(const nimbus_ranges *ranges, size_t layer);
void nimbus_ranges_free(nimbus_ranges *ranges);

/* ---- input.c: raw values in front of comparisons ----------------------------------------------
 */

/* Cut, in raw values - 128, of `(x - mean) * inverse_std > t` for raw u8 values x. */
nimbus_cut nimbus_cut_u8(real mean, real inverse_std, real t);
/* The same for raw floats. */
nimbus_cut nimbus_cut_f32(real mean, real inverse_std, real t);

/* ---- image.c: programs on images ---------------------------------------------------------------
 */

/* Whether a net is what programs on rows can hold, a chain of linear layers and what stands between
 * them; all others become programs on images. */
bool nimbus_net_is_on_rows(const nimbus_net *net);

/* Makes a program on images of this net, whose stand-ins are in place; rounds its tables. Appends
 * to out. Errors: UNSUPPORTED and LIMIT (name the layer), ARGUMENT, MISMATCH, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_image_compile(nimbus_net *net,
                                                     const nimbus_compile_options *options,
                                                     nimbus_buffer *out, nimbus_error *error);

#endif
