/* kernels.h - every kernel of the executor, listed once
 *
 * A line of NIMBUS_KERNEL_LIST declares a kernel for each instruction set, puts it in the dispatch
 * table, and obliges tests/test_kernels.c to have a check of that name; a benchmark can walk the list
 * in the same way. Kernels are called nimbus_<op>_<types>__<isa>; the __c versions (kernels_c.c)
 * are plain C and are the specification: all others give the same bits.
 *
 * Layouts. "Columns": column-major bytes, column d at columns + d * stride, one byte a row.
 * "Rows": row-major. A kernel that works on columns is given n rows, a multiple of the table's
 * `lanes`; one that works on a row (walk, add, finish) may read and write up to the next multiple
 * of NIMBUS_PAD elements, and what stands beyond the last real element means nothing. Only scratch
 * memory and the program's own tables are padded so; the caller's rows and scores never are. */
#ifndef NIMBUS_RUN_KERNELS_H
#define NIMBUS_RUN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nimbus.h"

#define NIMBUS_PAD         64 /* elements; at least the lanes of every instruction set */
#define NIMBUS_WALK        32 /* codebooks of one row are walked in multiples of this */
#define NIMBUS_TILE        2  /* outputs that a column lookup computes together */
#define NIMBUS_GROUP_SIZES 4  /* codebooks are added in bytes in groups of 8, 4, 2 and 1 */

/* Tables of NIMBUS_TILE outputs for column lookups, K <= 16. Each table is stored minus its
 * smallest entry (the bias makes up for it), so entries are 0..range; codebooks are reordered so
 * that those of a group have ranges adding up to at most 255: a group is summed in bytes. */
typedef struct nimbus_tile {
    const uint8_t *tables;                 /* [C][NIMBUS_TILE][16], in the order of `order` */
    const uint32_t *order;                 /* [C] which codebook stands there */
    uint32_t n_groups[NIMBUS_GROUP_SIZES]; /* groups of 8, then of 4, 2 and 1 codebooks */
    int32_t bias[NIMBUS_TILE];
} nimbus_tile;

/* Codebooks with their trees, for the column encoders. */
typedef struct nimbus_trees {
    const uint32_t *columns; /* [C][H] for a column per level, [C][K-1] for one per node */
    const void *thresholds;  /* see the kernel */
    size_t n_codebooks, n_levels;
} nimbus_trees;

/* Tables for adding rows, any K: entries + 128, so 0..255. Readable NIMBUS_PAD bytes further. */
typedef struct nimbus_table {
    const uint8_t *entries; /* [C][K][M] */
    size_t n_codebooks, n_leaves, n_outputs;
} nimbus_table;

/* K(isa, op, parameters) for every kernel:
 *
 * transpose_u8u8     out[i][r] = in[r][columns[i]] ^ flip for n_rows rows r and n_columns i, both
 *                    row-major; columns NULL: 0, 1, 2, ... Reads no byte outside rows of in that
 *                    are `width` bytes long; writes out rows up to a multiple of the lanes.
 * encode_i8u8        codes[c][r] of n rows, H <= 4, a column per level; thresholds
 *                    i8 [C][H][16]: the 2^h of level h by the code so far
 * encode_nodes_i8u8  the same with a column per node; thresholds i8 [C][K-1], heap order
 * encode_nodes_f32u8  the same from f32 columns (stride in elements) with f32 thresholds
 * walk_i8u8          codes[c] of one row, any H, for n_codebooks (a multiple of NIMBUS_WALK):
 *                    values i8 [H][n_codebooks], thresholds i8 [K-1][n_codebooks]
 * lookup_u8i16       sums[t][r] = bias + sum over c of tables; sums must fit 16 bits
 * lookup_u8i32       the same for any sums
 * add_u8i16          sums[m] = bias[m] + sum over c of entries[c][codes[c]][m], modulo 2^16
 * add_u8i32          the same, modulo 2^32
 * dot_i8i32          sums[r][m] = bias[m] + sum over d of weights[m][d] * x[r][d]; x is zero from
 *                    n_inputs to the next multiple of NIMBUS_PAD; weights readable as far; writes
 *                    exactly n_outputs sums of a row
 * shift_i16i8, shift_i32i8  out[i] = sat8(sums[i] >> shift)
 * scale_i32i8        out[i] = sat8(round(f32(sums[i]) * scale[i * step] + offset[i * step]));
 *                    step 0: the same scale for all, 1: one each
 * quantise_f32i8     out[i] = sat8(round(x[i] * scale[i] + offset[i])), NaN as 0; reads exactly n
 * map_i8i8           x[i] = map[x[i] + 128], in place */
#define NIMBUS_KERNEL_LIST(K, isa)                                                                 \
    K(isa, transpose_u8u8,                                                                         \
      (const uint8_t *in, size_t in_stride, size_t width, size_t n_rows, const uint32_t *columns,  \
       size_t n_columns, uint8_t flip, uint8_t *out, size_t out_stride))                           \
    K(isa, encode_i8u8,                                                                            \
      (const nimbus_trees *trees, const int8_t *columns, size_t stride, size_t n, uint8_t *codes)) \
    K(isa, encode_nodes_i8u8,                                                                      \
      (const nimbus_trees *trees, const int8_t *columns, size_t stride, size_t n, uint8_t *codes)) \
    K(isa, encode_nodes_f32u8,                                                                     \
      (const nimbus_trees *trees, const float *columns, size_t stride, size_t n, uint8_t *codes))  \
    K(isa, walk_i8u8,                                                                              \
      (const int8_t *values, const int8_t *thresholds, size_t n_codebooks, size_t n_levels,        \
       uint8_t *codes))                                                                            \
    K(isa, lookup_u8i16,                                                                           \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n, int16_t *sums))     \
    K(isa, lookup_u8i32,                                                                           \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n, int32_t *sums))     \
    K(isa, add_u8i16,                                                                              \
      (const nimbus_table *table, const uint8_t *codes, const int16_t *bias, int16_t *sums))       \
    K(isa, add_u8i32,                                                                              \
      (const nimbus_table *table, const uint8_t *codes, const int32_t *bias, int32_t *sums))       \
    K(isa, dot_i8i32,                                                                              \
      (const int8_t *x, size_t x_stride, size_t n_rows, const int8_t *weights, size_t n_inputs,    \
       size_t n_outputs, const int32_t *bias, int32_t *sums, size_t sums_stride))                  \
    K(isa, shift_i16i8, (const int16_t *sums, size_t n, unsigned shift, int8_t *out))              \
    K(isa, shift_i32i8, (const int32_t *sums, size_t n, unsigned shift, int8_t *out))              \
    K(isa, scale_i32i8,                                                                            \
      (const int32_t *sums, size_t n, const float *scale, const float *offset, size_t step,        \
       int8_t *out))                                                                               \
    K(isa, quantise_f32i8,                                                                         \
      (const float *x, size_t n, const float *scale, const float *offset, int8_t *out))            \
    K(isa, map_i8i8, (int8_t * x, size_t n, const int8_t *map))

/* I(isa, lanes, columns_from): the instruction sets this build knows; the last usable one is taken.
 * columns_from: the number of rows from which lookup steps run in columns (program.h), measured on
 * an MLP 784-512-512-10 with V = 16 on a Zen 4 core, ns a row by gcc and clang at -O2:
 *
 *     rows              1          16         24         32         256
 *     avx2 in rows      413/365    395/336    391/330    396/328
 *     avx2 in columns   7913/9249  549/665    362/452    286/343    144/139
 *     c in rows         1350/1444  1419/1465  1408/1461  1409/1463  */
#if defined(__x86_64__) || defined(__i386__)
#define NIMBUS_ISA_LIST(I) I(c, 1, NIMBUS_NEVER) I(avx2, 32, 24)
#else
#define NIMBUS_ISA_LIST(I) I(c, 1, NIMBUS_NEVER)
#endif
#define NIMBUS_NEVER SIZE_MAX

#define NIMBUS_DECLARE_KERNEL(isa, op, parameters)   void nimbus_##op##__##isa parameters;
#define NIMBUS_DECLARE_ISA(isa, lanes, columns_from) NIMBUS_KERNEL_LIST(NIMBUS_DECLARE_KERNEL, isa)
NIMBUS_ISA_LIST(NIMBUS_DECLARE_ISA)

/* One instruction set: its kernels as members of the ops' names. */
typedef struct nimbus_kernels {
    const char *isa;
    size_t lanes; /* rows in columns come in multiples of this */
    size_t columns_from;
    bool (*usable)(void); /* on this CPU */
#define NIMBUS_KERNEL_MEMBER(isa, op, parameters) void(*op) parameters;
    NIMBUS_KERNEL_LIST(NIMBUS_KERNEL_MEMBER, c)
#undef NIMBUS_KERNEL_MEMBER
} nimbus_kernels;

extern const nimbus_kernels nimbus_kernel_table[];
extern const size_t nimbus_kernel_table_size;

/* The best instruction set of this CPU. In test builds the environment variable NIMBUS_DISABLE_ISA
 * (names separated by commas; "c" cannot be disabled) takes some away; an unknown name is an
 * ARGUMENT error. */
NIMBUS_MUST_CHECK nimbus_status nimbus_kernels_choose(const nimbus_kernels **out,
                                                      nimbus_error *error);

#endif
