/* kernels_avx512bw.c - the kernel templates in AVX-512BW */
#if defined(__x86_64__) || defined(__i386__)
#include <string.h>

#include "run/kernels.h"

#include "run/x86/vector_avx512.h"

#define KERNEL(op)   NIMBUS_KERNEL_NAME(op, avx512bw)
#define NARROWER(op) NIMBUS_KERNEL_NAME(op, avx2)

#include "run/vector/all_templates.h"
#else
typedef int no_avx512bw_on_this_cpu; /* a source file must declare something */
#endif
