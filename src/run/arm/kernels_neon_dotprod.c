/* kernels_neon_dotprod.c - the kernel templates in NEON with the dot products of Armv8.2 */
#if defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
#include <string.h>

#include "run/kernels.h"

#define ISA_DOTPROD
#include "run/arm/vector_neon.h"

#define KERNEL(op) NIMBUS_KERNEL_NAME(op, neon_dotprod)

#include "run/vector/transpose_template.h"

#include "run/vector/encode_template.h"

#include "run/vector/walk_template.h"

#include "run/vector/pack_template.h"

#define LOOKUP(name) lookup_##name
#define TABLE        vec
#define TABLE_BYTES  16
#define LOAD_TABLE   v_load_table
#define SHUFFLE      v_shuffle8
#include "run/vector/lookup_template.h"

#define LOOKUP(name) wide_##name
#define TABLE        wide_table
#define TABLE_BYTES  64
#define LOAD_TABLE   v_load_wide_table
#define SHUFFLE      v_shuffle64
#include "run/vector/lookup_template.h"

#include "run/vector/add_template.h"

#include "run/vector/dot_template.h"

#include "run/vector/finish_template.h"
#else
typedef int no_neon_dotprod_on_this_cpu; /* a source file must declare something */
#endif
