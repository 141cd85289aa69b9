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

/* Sets the `trained` flags of a linear layer's params from its state. */
void nimbus_layer_set_trained(nimbus_layer *layer);

/* setup of layers that compute every element by itself: the output has the input's shape. */
nimbus_status nimbus_layer_same_shape(nimbus_layer *layer, const nimbus_shape *inputs,
                                      size_t n_inputs, uint64_t seed, nimbus_error *error);

#endif
