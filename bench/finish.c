/* finish.c - bias, scale and ReLU after products of libraries that do not fuse them
 *
 * Each loop is compiled for AVX2 too where the CPU may have it: a peer must not lose time here. */
#include "bench.h"

#if defined(__x86_64__)
#define FOR_AVX2 __attribute__((target("avx2")))
#endif

static inline __attribute__((always_inline)) void f32_row(float *y, size_t m, const float *bias,
                                                          int relu)
{
    float least = relu ? 0.0f : -3.4e38f;
#pragma omp simd
    for (size_t j = 0; j < m; j++) {
        float v = y[j] + bias[j];
        y[j] = v > least ? v : least;
    }
}

static inline __attribute__((always_inline)) void
u8_row(const int32_t *sums, size_t m, const float *bias, const float *scale, uint8_t *y)
{
#pragma omp simd
    for (size_t j = 0; j < m; j++) {
        float v = ((float)sums[j] + bias[j]) * scale[j] + 0.5f;
        v = v > 0.0f ? v : 0.0f;
        y[j] = (uint8_t)(int32_t)(v < 255.0f ? v : 255.0f);
    }
}

static inline __attribute__((always_inline)) void
i32_row(const int32_t *sums, size_t m, const float *bias, const float *scale, int relu, float *y)
{
    float least = relu ? 0.0f : -3.4e38f;
#pragma omp simd
    for (size_t j = 0; j < m; j++) {
        float v = ((float)sums[j] + bias[j]) * scale[j];
        y[j] = v > least ? v : least;
    }
}

static inline __attribute__((always_inline)) void f32_rows(float *y, size_t n, size_t m,
                                                           const float *bias, int relu)
{
    for (size_t i = 0; i < n; i++)
        f32_row(y + i * m, m, bias, relu);
}

static inline __attribute__((always_inline)) void i32_rows(const int32_t *sums,
                                                           const bench_product_spec *spec, void *y)
{
    for (size_t i = 0; i < spec->n; i++)
        if (spec->float_out)
            i32_row(sums + i * spec->m, spec->m, spec->bias, spec->scale, spec->relu,
                    (float *)y + i * spec->m);
        else
            u8_row(sums + i * spec->m, spec->m, spec->bias, spec->scale,
                   (uint8_t *)y + i * spec->m);
}

#ifdef FOR_AVX2
FOR_AVX2 static void f32_rows_avx2(float *y, size_t n, size_t m, const float *bias, int relu)
{
    f32_rows(y, n, m, bias, relu);
}

FOR_AVX2 static void i32_rows_avx2(const int32_t *sums, const bench_product_spec *spec, void *y)
{
    i32_rows(sums, spec, y);
}
#endif

void bench_finish_f32(float *y, size_t n, size_t m, const float *bias, int relu)
{
#ifdef FOR_AVX2
    if (__builtin_cpu_supports("avx2")) {
        f32_rows_avx2(y, n, m, bias, relu);
        return;
    }
#endif
    f32_rows(y, n, m, bias, relu);
}

void bench_finish_i32(const int32_t *sums, const bench_product_spec *spec, void *y)
{
#ifdef FOR_AVX2
    if (__builtin_cpu_supports("avx2")) {
        i32_rows_avx2(sums, spec, y);
        return;
    }
#endif
    i32_rows(sums, spec, y);
}
