/* kernels_neon_dotprod.c - the kernel templates in NEON with the dot products of Armv8.2 */
#if defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
#include <string.h>

#include "run/kernels.h"

#define ISA_DOTPROD
#include "run/arm/vector_neon.h"

#define KERNEL(op) NIMBUS_KERNEL_NAME(op, neon_dotprod)

#include "run/vector/all_templates.h"
#else
typedef int no_neon_dotprod_on_this_cpu; /* a source file must declare something */
#endif
