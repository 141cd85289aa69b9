/* simd.h - the few words that let plain loops of the net stage use wide registers.
 *
 * NIMBUS_SIMD_CLONES in front of a static function compiles it for AVX-512, AVX2 and the baseline
 * and picks one when the program starts. Results are the same bits on one machine, whatever the
 * number of threads; machines of different width may differ in the last bit. */
#ifndef NIMBUS_SIMD_H
#define NIMBUS_SIMD_H

#include <math.h>

#include "net/net.h"

/* Sanitizers are not ready yet when the choice is made, so their builds have one version. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIMBUS_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define NIMBUS_SANITIZED
#endif

#if !defined(__x86_64__) || !defined(__GNUC__) || defined(NIMBUS_SANITIZED)
#define NIMBUS_SIMD_CLONES
#elif defined(__clang__)
#define NIMBUS_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else /* gcc vectorises fully at -O3 only */
#define NIMBUS_SIMD_CLONES                                                                         \
    __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#endif

/* For what such a function calls: only there it is compiled for the same registers. */
#define NIMBUS_INLINE static inline __attribute__((always_inline))

/* An AVX2 register's worth of reals: of larger vectors gcc keeps those of AVX2 in memory. */
#define NIMBUS_VECTOR (32 / sizeof(real))
typedef real nimbus_vector __attribute__((vector_size(32)));
/* The same anywhere in an array. */
typedef real nimbus_unaligned __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));

#ifdef NIMBUS_REAL_DOUBLE
#define NIMBUS_EXP  exp
#define NIMBUS_FABS fabs
#define NIMBUS_RINT rint
#else
#define NIMBUS_EXP  expf
#define NIMBUS_FABS fabsf
#define NIMBUS_RINT rintf
#endif

#endif
