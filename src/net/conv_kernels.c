/* conv_kernels.c - the kernels of conv.h for each width of registers, and choosing one */
#include "net/conv.h"

/* gcc keeps the arrays of sums in registers at -O3 only */
#ifdef __clang__
#define UNROLLED
#else
#define UNROLLED __attribute__((optimize("O3")))
#endif

#define NAME(x) x##_plain
#define TARGET  UNROLLED
#define LANES   (16 / sizeof(real))
#define ROWS    4
#include "net/conv_template.h"

#ifdef __x86_64__
#define NAME(x) x##_avx2
#define TARGET  UNROLLED __attribute__((target("avx2,fma")))
#define LANES   (32 / sizeof(real))
#define ROWS    4
#include "net/conv_template.h"

#define NAME(x) x##_avx512
#define TARGET  UNROLLED __attribute__((target("avx512f")))
#define LANES   (64 / sizeof(real))
#define ROWS    8
#include "net/conv_template.h"
#endif

const struct nimbus_conv_kernels *nimbus_conv_kernels(size_t i)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && i-- == 0)
        return &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && i-- == 0)
        return &kernels_avx2;
#endif
    return i == 0 ? &kernels_plain : NULL;
}
