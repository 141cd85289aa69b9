/* kernels_avx512vbmi.c - the kernel templates in AVX-512 with VBMI and VNNI */
#if defined(__x86_64__) || defined(__i386__)
#include <string.h>

#include "run/kernels.h"

#define ISA_VBMI
#include "run/x86/vector_avx512.h"

#define KERNEL(op)   NIMBUS_KERNEL_NAME(op, avx512vbmi)
#define NARROWER(op) NIMBUS_KERNEL_NAME(op, avx2)

#include "run/vector/all_templates.h"
#else
typedef int no_avx512vbmi_on_this_cpu; /* a source file must declare something */
#endif
