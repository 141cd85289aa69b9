/* kernels_avx2.c - the kernel templates in AVX2 */
#if defined(__x86_64__) || defined(__i386__)
#include <string.h>

#include "run/kernels.h"

#include "run/x86/vector_avx2.h"

#define KERNEL(op)   NIMBUS_KERNEL_NAME(op, avx2)
#define NARROWER(op) NIMBUS_KERNEL_NAME(op, ssse3)

#include "run/vector/all_templates.h"
#else
typedef int no_avx2_on_this_cpu; /* a source file must declare something */
#endif
