/* all_templates.h - every template, for the file of an instruction set that has included its
 * vocabulary and defined KERNEL
 *
 * Lookups in tables of 16 entries are packed if the vocabulary defines PACKED_LOOKUP, else
 * shuffled; lookups in tables of 64 are there if it defines WIDE. */

#include "run/vector/transpose_template.h"

#include "run/vector/encode_template.h"

#include "run/vector/walk_template.h"

#include "run/vector/pack_template.h"

#include "run/vector/round_template.h"

#ifdef PACKED_LOOKUP
#include "run/vector/packed_lookup_template.h"
#else
#define LOOKUP(name) lookup_##name
#define TABLE        vec
#define TABLE_BYTES  16
#define LOAD_TABLE   v_load_table
#define SHUFFLE      v_shuffle8
#include "run/vector/lookup_template.h"
#endif

#ifdef WIDE
#define LOOKUP(name) wide_##name
#define TABLE        wide_table
#define TABLE_BYTES  64
#define LOAD_TABLE   v_load_wide_table
#define SHUFFLE      v_shuffle64
#include "run/vector/lookup_template.h"
#endif

#include "run/vector/add_template.h"

#include "run/vector/dot_template.h"

#include "run/vector/finish_template.h"

#include "run/vector/image_template.h"
