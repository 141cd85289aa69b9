/* internal.h - what the net stage's own files share: maths in `real`, loops over fixed chunks. */
#ifndef NIMBUS_NET_INTERNAL_H
#define NIMBUS_NET_INTERNAL_H

#include "net/simd.h"

#ifdef NIMBUS_REAL_DOUBLE
#define real_log  log
#define real_sqrt sqrt
#define real_tanh tanh
#define real_erf  erf
#else
#define real_log  logf
#define real_sqrt sqrtf
#define real_tanh tanhf
#define real_erf  erff
#endif

/* Calls body(arg, begin, end) over 0..n in chunks of `grain` (the last may be shorter), which do
 * not depend on the number of threads. */
typedef void (*nimbus_range_fn)(void *arg, size_t begin, size_t end);
void nimbus_parallel_ranges(unsigned n_threads, size_t n, size_t grain, nimbus_range_fn body,
                            void *arg);

#define NIMBUS_GRAIN 16384 /* elements per chunk of an elementwise loop: some microseconds */

/* What a loop over the rows of a batch is given. */
typedef struct nimbus_call {
    nimbus_layer *layer;
    nimbus_io *io;
} nimbus_call;

/* Calls body over all rows in chunks of some NIMBUS_GRAIN elements of the layer's input and output;
 * arg is a nimbus_call. */
void nimbus_parallel_rows(nimbus_layer *layer, nimbus_io *io, nimbus_range_fn body);

/* Sets the `trained` flags of a linear layer's params from its state. */
void nimbus_layer_set_trained(nimbus_layer *layer);

/* setup of layers that compute every element by itself: the output has the input's shape. */
nimbus_status nimbus_layer_same_shape(nimbus_layer *layer, const nimbus_shape *inputs,
                                      size_t n_inputs, uint64_t seed, nimbus_error *error);

/* Sets layer->shape, which must have 1 to NIMBUS_MAX_WIDTH values. Error: LIMIT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_layer_set_shape(nimbus_layer *layer, nimbus_shape shape,
                                                       nimbus_error *error);

/* Fills the layer's first param from seed: uniform, LeCun's variance 1 / n_summands. */
void nimbus_layer_start_weight(nimbus_layer *layer, size_t n_summands, uint64_t seed);

/* The sum of n values, in lanes. */
double nimbus_sum(const real *x, size_t n);

/* ---- layer_slide.c ----------------------------------------------------------------------- */

/* begin..end - 1 of some points; the first of them stands at position `start` of the image. */
typedef struct nimbus_span {
    size_t begin, end, start;
} nimbus_span;

/* Checks layer->slide, takes strides and dilations of 0 as 1, and sets the layer's shape. Errors:
 * ARGUMENT, MISMATCH (no position for the window), LIMIT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_slide_setup(nimbus_layer *layer, nimbus_shape in,
                                                   size_t channels, nimbus_error *error);

/* Of the n points at + i * step - before of an axis those on the image, 0..side - 1. */
nimbus_span nimbus_span_on(size_t at, size_t step, size_t before, size_t side, size_t n);

#endif
