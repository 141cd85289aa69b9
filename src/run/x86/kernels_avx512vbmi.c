/* kernels_avx512vbmi.c - the kernel templates in AVX-512 with VBMI and VNNI */
#if defined(__x86_64__) || defined(__i386__)
#include <string.h>

#include "run/kernels.h"

#define ISA_VBMI
#include "run/x86/vector_avx512.h"

#define KERNEL(op)   NIMBUS_KERNEL_NAME(op, avx512vbmi)
#define NARROWER(op) NIMBUS_KERNEL_NAME(op, avx2)

#include "run/vector/transpose_template.h"

#include "run/vector/encode_template.h"

#include "run/vector/walk_template.h"

#include "run/vector/pack_template.h"

#include "run/vector/packed_lookup_template.h"

#define LOOKUP(name) wide_##name
#define TABLE        vec
#define TABLE_BYTES  64
#define LOAD_TABLE   v_load_wide_table
#define SHUFFLE      v_shuffle64
#include "run/vector/lookup_template.h"

#include "run/vector/add_template.h"

#include "run/vector/dot_template.h"

#include "run/vector/finish_template.h"
#else
typedef int no_avx512vbmi_on_this_cpu; /* a source file must declare something */
#endif
