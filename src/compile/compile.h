/* compile.h - the parts of the compiler: what stands between two products, thresholds in the
 * producing step's integers, and the bytes of a step.
 *
 * A net that can be compiled is a chain: input, then linear layers with batch norm, activation and
 * dropout between them. Each linear layer becomes one step. */
#ifndef NIMBUS_COMPILE_H
#define NIMBUS_COMPILE_H

#include "base/program_format.h"
#include "net/lookup.h"
#include "net/net.h"

/* ---- fold.c: everything between one product and the next, in normal form --------------------- */

typedef enum nimbus_function {
    NIMBUS_F_IDENTITY = 0,
    NIMBUS_F_RELU,
    NIMBUS_F_TANH,
    NIMBUS_F_SIGMOID,
    NIMBUS_F_GELU
} nimbus_function;

/* value = a2 * f(a1 * v + b1) + b2 for every output column v of the product. */
typedef struct nimbus_post {
    nimbus_function function;
    double *a1, *b1, *a2, *b2; /* [M] */
} nimbus_post;

double nimbus_function_value(nimbus_function f, double v);

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

/* Pulls the comparison back through the normal form of column m; not for GELU. */
nimbus_cut nimbus_post_cut(const nimbus_post *post, size_t m, double t);

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

/* Range of every layer's outputs over up to 4,096 rows of data, [n_layers]; of the raw input
 * columns, [D]. Both freed with nimbus_free. */
NIMBUS_MUST_CHECK nimbus_status nimbus_ranges_measure(nimbus_net *net, const nimbus_data *data,
                                                      unsigned n_threads, nimbus_range **layers,
                                                      nimbus_range **inputs, nimbus_error *error);

#endif
