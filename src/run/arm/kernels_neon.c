/* kernels_neon.c - the kernel templates in NEON */
#if defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
#include <string.h>

#include "run/kernels.h"

#include "run/arm/vector_neon.h"

#define KERNEL(op) NIMBUS_KERNEL_NAME(op, neon)

#include "run/vector/all_templates.h"
#else
typedef int no_neon_on_this_cpu; /* a source file must declare something */
#endif
