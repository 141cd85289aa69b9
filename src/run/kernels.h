/* kernels.h - every kernel of the executor, listed once; those for planes of images, in a list of
 * their own, in image/image_kernels.h
 *
 * A line of NIMBUS_KERNEL_LIST declares a kernel for each instruction set, puts it in the dispatch
 * table, and obliges tests/test_kernels.c to have a check of that name; a benchmark can walk the
 * list in the same way. Kernels are called nimbus_<op>_<types>__<isa>; the __c versions
 * (kernels_c.c) are plain C and are the specification: all others give the same bits.
 *
 * Layouts. "Columns": column-major, column d at columns + d * stride, one element a row; stride is
 * a multiple of NIMBUS_PAD, and what stands beyond the last row means nothing. A kernel that works
 * on columns is given n rows, a multiple of the set's `granule`; transpose and encode take any
 * number, and may read and write up to the stride. A kernel that works on one row (walk, add,
 * finish) may read and write up to the next multiple of NIMBUS_PAD elements. Only scratch memory
 * and the program's own tables are padded so; the caller's rows and scores never are. */
#ifndef NIMBUS_RUN_KERNELS_H
#define NIMBUS_RUN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nimbus.h"
#include "run/image/image_kernels.h"

#define NIMBUS_PAD         64 /* elements; at least the lanes of every instruction set */
#define NIMBUS_MAX_TILE    4  /* outputs that a column lookup computes together */
#define NIMBUS_GROUP_SIZES 4  /* codebooks are added in bytes in groups of 8, 4, 2 and 1 */
#define NIMBUS_NODES       16 /* a tree's K - 1 nodes, K <= 16, and one to fill up */

static inline size_t nimbus_rounded_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static inline size_t nimbus_padded(size_t n)
{
    return nimbus_rounded_up(n, NIMBUS_PAD);
}

#define NIMBUS_FEW 4 /* columns of a part that are picked out of it */

/* 16 neighbouring bytes of a row (fewer if it has fewer), and the columns they become: all of them
 * on end; or, if few, NIMBUS_FEW picked ones. */
typedef struct nimbus_part {
    uint32_t first; /* byte of the row where the part begins */
    uint32_t out;   /* column that the first one becomes */
    bool few;
    uint8_t at[NIMBUS_FEW];
    /* Number j, for row j of four, shuffles byte at[q] to 4q + j and zeros (0x80) elsewhere. */
    uint8_t selectors[4][16];
} nimbus_part;

/* Trees of C codebooks for the column encoders. */
typedef struct nimbus_trees {
    const uint32_t *columns; /* [C][H] for a column per level, [C][K-1] for one per node */
    const void *thresholds;  /* see the kernel */
    size_t n_codebooks, n_levels;
} nimbus_trees;

/* Bytes of thresholds that a tree with a column per level has, at most 6 of them: a table of 16 for
 * each level, or one of 64 for all where one level alone would not fit those. */
static inline size_t nimbus_level_threshold_bytes(size_t n_levels)
{
    return n_levels > 4 ? 64 : n_levels * 16;
}

/* Where among them the threshold of node k of a level stands: in the level's table at the first
 * code of the leaves below it, in the table for all between the leaves that it separates. */
static inline size_t nimbus_threshold_place(size_t n_levels, size_t level, size_t k)
{
    return n_levels > 4 ? (2 * k + 1) << (n_levels - 1 - level)
                        : level * 16 + (k << (n_levels - level));
}

/* Bytes of a row in parts that fill a register or, joined, two: bytes of the row where its parts
 * begin. */
typedef struct nimbus_window {
    size_t first[4];
} nimbus_window;

/* Bytes of a row to be collected: value i is x[columns[i]] ^ flip. They are taken in groups of
 * `vectors` registers of values, the group's windows of the row loaded once for all. The values of
 * vector v of group g begin at v * vector_step + g * group_step, and each is in one window of its
 * group. What a window is depends on what the set can permute:
 *
 * joined   twice NIMBUS_PAD bytes, any of which may go anywhere. A value has the same place in its
 *          window whichever that is, so values replace places window by window, and the rest is
 *          left for later ones.
 * else     16 bytes for every 16 values, which get their bytes from no others. A group without
 *          windows is copied from its columns. */
typedef struct nimbus_gather {
    const uint32_t *columns; /* [n_values] */
    size_t n_values;         /* a multiple of NIMBUS_PAD */
    uint8_t flip;
    size_t vectors, vector_step, group_step;
    const nimbus_window *windows;
    const uint32_t *first_window; /* [groups + 1]; those of group g are from first_window[g] to
                                     before the next one's */
    const uint64_t *wanted;       /* joined: [windows][vectors] bit i: the window has value i */
    const uint8_t *at; /* joined: [n_values] places in windows; else [windows][vectors][lanes]
                          places among 16 bytes, NIMBUS_ELSEWHERE what other windows have */
} nimbus_gather;

#define NIMBUS_ELSEWHERE 0x80

/* Levels of trees that are walked side by side on f32, as many as columns can have: deeper ones
 * would have more thresholds to choose from than a walk has steps. */
#define NIMBUS_FLOAT_LEVELS 6

/* Trees of C codebooks side by side, to be walked for single rows. With a column per level values
 * are [H][C'] and thresholds, i8 or f32, [K-1][C'], with one per node both are [C'][NIMBUS_NODES],
 * C' being C rounded up to a multiple of NIMBUS_PAD; so many codes have room. */
typedef struct nimbus_walk {
    nimbus_gather gather; /* of f32: its columns alone */
    const void *thresholds;
    size_t n_codebooks, n_levels;
} nimbus_walk;

/* Tables of a few outputs, the set's `tile`, for column lookups.
 *
 * Shuffled: each table is stored minus its smallest entry (the bias makes up for it), so entries
 * are 0..range; codebooks are reordered, if need be, so that those of a group have ranges adding up
 * to at most 255: a group is summed in bytes. Packed: signed entries, four codebooks in one
 * register. */
typedef struct nimbus_tile {
    const void *tables;                    /* shuffled: u8 [C][tile][16 or 64], in the order of
                                              `order`; packed: i8 [ceil(C/4)][tile][4][16] */
    const uint32_t *order;                 /* [C] which codebook stands there; NULL: as they are */
    uint32_t n_groups[NIMBUS_GROUP_SIZES]; /* groups of 8, then of 4, 2 and 1 codebooks */
    size_t n_quads;                        /* packed: ceil(C/4) */
    bool paired; /* packed: entries of quads 2i and 2i + 1, as they are, add up to an i8 */
    int32_t bias[NIMBUS_MAX_TILE];
} nimbus_tile;

/* Tables for adding rows, any K: entries as numbers from 0 on; rows `stride` bytes apart. Readable
 * NIMBUS_PAD bytes further. */
typedef struct nimbus_table {
    const uint8_t *entries; /* [C][K][stride] */
    size_t n_codebooks, n_leaves, n_outputs, stride;
    bool paired; /* entries are below 128: two add up to a byte */
} nimbus_table;

/* Weights of an exact product. Inputs are taken in groups, the set's `group`: two i16 or four i8
 * fill 32 bits (plain C takes them one by one); outputs in blocks of its `block`, as many as a
 * register has groups. Sets whose `flip` is 0x80 want inputs plus 128; the bias makes up for it. */
typedef struct nimbus_weights {
    const void *weights; /* [ceil(M/block)][ceil(D/group)][block][group] */
    const int32_t *bias; /* [M'] */
    size_t n_groups;     /* ceil(D/group) */
    size_t n_outputs;
} nimbus_weights;

/* clang-format off */
/* K(isa, op, parameters) for every kernel:
 *
 * transpose_u8u8     out[part.out + i][r] = in[r][part.first + i] ^ flip for all parts and n_rows
 *                    rows r, or in[r][part.first + part.at[i]] ^ flip; parts NULL: part p begins
 *                    at 16 p and becomes column 16 p. Reads no byte outside rows of in that are
 *                    `width` bytes long
 * transpose_f32      out[4p + i][r] = in[r][first[p] + i] for all parts p and i below 4; NIMBUS_PAD
 *                    rows r, or fewer: n_rows and the last again until registers are full. Rows are
 *                    `width` long, and no element beyond that is read or written
 * encode_i8u8        codes[c][r], a column per level; H <= 4, or 6 where the set has `wide`
 *                    lookups; thresholds i8 [C][nimbus_level_threshold_bytes(H)], each
 *                    at nimbus_threshold_place
 * encode_f32u8       the same from f32 columns (stride in elements), H <= 4; thresholds f32
 *                    [C][NIMBUS_NODES], that of node i, in heap order, at i + 1
 * encode_nodes_i8u8  as encode_i8u8, a column per node, H <= 4; thresholds i8 [C][K-1][4], heap
 *                    order, each four times: 32 bits are quicker to broadcast than 8
 * encode_nodes_f32u8 the same from f32 columns with f32 thresholds [C][K-1]
 * walk_u8u8          codes[c] of one row x, a column per level, any H
 * walk_f32u8         the same from f32, H <= NIMBUS_FLOAT_LEVELS
 * pack_u8u8          columns to what packed lookups and exact products read: the n_columns of
 *                    each group side by side, [ceil(n_columns/group)][out_stride][group]; bytes
 *                    xor'ed with those of flip where the group is four, widened to i16 where it is
 *                    two. Columns that a last group lacks are the bytes of flip. Rows in an order
 *                    of its own
 * lookup_u8i8        out[t][r] = sat8((bias + sum over c of tables) >> shift); K <= 16; codes as
 *                    columns, or packed if the set's `packed`. Sums must fit 16 bits, or the set be
 *                    packed and the shift at most 8
 * lookup_u8i32       the sums themselves, any
 * lookup_rounded_u8i8  any sums, rounded for outputs m ..
 * scores_i32i32      scores[r * scores_stride + t] = sums[t][r] for n_outputs, at most a tile's,
 *                    and exactly n_rows rows
 * add_u8i8           out[m] = sat8(sum >> shift), where sum = bias + sum over c of
 *                    entries[c][codes[c]][m], modulo 2^16; the biases of even and odd outputs lie
 *                    apart, as such sums do in registers
 * add_u8i32          sums[m] = bias[m] + sum over c of entries[c][codes[c]][m], modulo 2^32
 * dot_columns_i32    sums[t][r] of `tile` outputs from m on = bias + weights times packed columns
 * dot_rows_i32       sums[r][m] of all outputs, rounded up to the block; x: rows of groups,
 *                    x_stride bytes apart, n_rows of them
 * shift_i32i8        out[i] = sat8(sums[i] >> shift)
 * scale_i32i8        out[i] = sat8(round(f32(sums[i]) * scale[i * step] + offset[i * step]));
 *                    step 0: the same scale for all, 1: one each
 * quantise_f32i8     out[i] = sat8(round(x[i] * scale[i] + offset[i])), NaN as 0; reads exactly n
 * map_i8i8           out[i] = map[x[i] + 128]; out may be x */
/* clang-format on */
#define NIMBUS_KERNEL_LIST(K, isa)                                                                 \
    K(isa, transpose_u8u8,                                                                         \
      (const uint8_t *in, size_t in_stride, size_t width, size_t n_rows, const nimbus_part *parts, \
       size_t n_parts, uint8_t flip, uint8_t *out, size_t out_stride))                             \
    K(isa, transpose_f32,                                                                          \
      (const uint8_t *in, size_t in_stride, size_t width, size_t n_rows, const uint32_t *first,    \
       size_t n_parts, float *out))                                                                \
    K(isa, encode_i8u8,                                                                            \
      (const nimbus_trees *trees, const int8_t *columns, size_t stride, size_t n, uint8_t *codes,  \
       size_t codes_stride))                                                                       \
    K(isa, encode_f32u8,                                                                           \
      (const nimbus_trees *trees, const float *columns, size_t stride, size_t n, uint8_t *codes,   \
       size_t codes_stride))                                                                       \
    K(isa, encode_nodes_i8u8,                                                                      \
      (const nimbus_trees *trees, const int8_t *columns, size_t stride, size_t n, uint8_t *codes,  \
       size_t codes_stride))                                                                       \
    K(isa, encode_nodes_f32u8,                                                                     \
      (const nimbus_trees *trees, const float *columns, size_t stride, size_t n, uint8_t *codes,   \
       size_t codes_stride))                                                                       \
    K(isa, walk_u8u8, (const nimbus_walk *walk, const uint8_t *x, uint8_t *codes))                 \
    K(isa, walk_f32u8, (const nimbus_walk *walk, const float *x, uint8_t *codes))                  \
    K(isa, pack_u8u8,                                                                              \
      (const uint8_t *columns, size_t stride, size_t n, size_t n_columns, uint32_t flip,           \
       uint8_t *out, size_t out_stride))                                                           \
    K(isa, lookup_u8i8,                                                                            \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n, unsigned shift,     \
       int8_t *out, size_t out_stride))                                                            \
    K(isa, lookup_u8i32,                                                                           \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n, int32_t *sums,      \
       size_t sums_stride))                                                                        \
    K(isa, lookup_rounded_u8i8,                                                                    \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,                     \
       const nimbus_rounding *rounding, size_t m, int8_t *out, size_t out_stride))                 \
    K(isa, scores_i32i32,                                                                          \
      (const int32_t *sums, size_t sums_stride, size_t n_rows, size_t n_outputs, int32_t *scores,  \
       size_t scores_stride))                                                                      \
    K(isa, add_u8i8,                                                                               \
      (const nimbus_table *table, const uint8_t *codes, const int16_t *even, const int16_t *odd,   \
       unsigned shift, int8_t *out))                                                               \
    K(isa, add_u8i32,                                                                              \
      (const nimbus_table *table, const uint8_t *codes, const int32_t *bias, int32_t *sums))       \
    K(isa, dot_columns_i32,                                                                        \
      (const nimbus_weights *weights, size_t m, const uint8_t *x, size_t stride, size_t n,         \
       int32_t *sums))                                                                             \
    K(isa, dot_rows_i32,                                                                           \
      (const nimbus_weights *weights, const uint8_t *x, size_t x_stride, size_t n_rows,            \
       int32_t *sums, size_t sums_stride))                                                         \
    K(isa, shift_i32i8, (const int32_t *sums, size_t n, unsigned shift, int8_t *out))              \
    K(isa, scale_i32i8,                                                                            \
      (const int32_t *sums, size_t n, const float *scale, const float *offset, size_t step,        \
       int8_t *out))                                                                               \
    K(isa, quantise_f32i8,                                                                         \
      (const float *x, size_t n, const float *scale, const float *offset, int8_t *out))            \
    K(isa, map_i8i8, (const int8_t *x, size_t n, const int8_t *map, int8_t *out))

/* Kernels that only some sets have. Sets that can compare all nodes of a tree at once:
 *
 * walk_nodes_u8u8    codes[r][c] of n_rows rows x, a column per node, H <= 4
 *
 * Sets that look up in tables of 64: as lookup_*, for 16 < K <= 64, codes always as columns, and n
 * a multiple of NIMBUS_PAD. */
#define NIMBUS_NODE_KERNEL_LIST(K, isa)                                                            \
    K(isa, walk_nodes_u8u8,                                                                        \
      (const nimbus_walk *walk, const uint8_t *x, size_t x_stride, size_t n_rows, uint8_t *codes,  \
       size_t codes_stride))
#define NIMBUS_WIDE_KERNEL_LIST(K, isa)                                                            \
    K(isa, wide_u8i8,                                                                              \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n, unsigned shift,     \
       int8_t *out, size_t out_stride))                                                            \
    K(isa, wide_u8i32,                                                                             \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n, int32_t *sums,      \
       size_t sums_stride))                                                                        \
    K(isa, wide_rounded_u8i8,                                                                      \
      (const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,                     \
       const nimbus_rounding *rounding, size_t m, int8_t *out, size_t out_stride))

/* How lookup layers and exact products are laid out for a set, and when columns pay. */
typedef struct nimbus_shape {
    size_t granule; /* rows in columns come in multiples of this; 0: the set never runs columns */
    size_t tile;    /* outputs of a column kernel */
    bool packed;    /* lookup_* reads packed codes and signed tables of four codebooks */
    size_t group, block; /* of exact products, see nimbus_weights */
    uint8_t flip;        /* what pack and dot want inputs xor'ed with: 0x80 for inputs plus 128 */
    size_t lanes;        /* bytes of a register */
    bool joined;         /* windows of nimbus_gather are joined */
} nimbus_shape;

/* Bytes of a part of a window, and parts of one. */
static inline size_t nimbus_window_part(const nimbus_shape *shape)
{
    return shape->joined ? NIMBUS_PAD : 16;
}

static inline size_t nimbus_window_parts(const nimbus_shape *shape)
{
    return shape->joined ? 2 : shape->lanes / 16;
}

/* Vectors of a group of nodes' values: without joined windows those of a codebook have their own.
 */
static inline size_t nimbus_node_vectors(const nimbus_shape *shape)
{
    return shape->joined ? 8 : 1;
}

/* I(isa, NODE_LIST, WIDE_LIST, granule, tile, packed, group, block, flip, lanes, joined):
 * the instruction sets this build knows, worst to best: the last usable one is taken. */
#define NIMBUS_NO_KERNELS(K, isa)
#if defined(__x86_64__) || defined(__i386__)
#define NIMBUS_ISA_LIST(I)                                                                         \
    I(c, NIMBUS_NODE_KERNEL_LIST, NIMBUS_WIDE_KERNEL_LIST, 0, 1, false, 1, 1, 0, 1, false)         \
    I(ssse3, NIMBUS_NODE_KERNEL_LIST, NIMBUS_NO_KERNELS, 16, 2, false, 2, 4, 0, 16, false)         \
    I(avx2, NIMBUS_NODE_KERNEL_LIST, NIMBUS_NO_KERNELS, 32, 2, false, 2, 8, 0, 32, false)          \
    I(avx512bw, NIMBUS_NODE_KERNEL_LIST, NIMBUS_NO_KERNELS, 64, 4, false, 2, 16, 0, 64, false)     \
    I(avx512vbmi, NIMBUS_NODE_KERNEL_LIST, NIMBUS_WIDE_KERNEL_LIST, 16, 4, true, 4, 16, 0x80, 64,  \
      true)
#elif defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
#define NIMBUS_ISA_LIST(I)                                                                         \
    I(c, NIMBUS_NODE_KERNEL_LIST, NIMBUS_WIDE_KERNEL_LIST, 0, 1, false, 1, 1, 0, 1, false)         \
    I(neon, NIMBUS_NO_KERNELS, NIMBUS_WIDE_KERNEL_LIST, 16, 4, false, 4, 4, 0, 16, false)          \
    I(neon_dotprod, NIMBUS_NO_KERNELS, NIMBUS_WIDE_KERNEL_LIST, 16, 4, false, 4, 4, 0, 16, false)
#else
#define NIMBUS_ISA_LIST(I)                                                                         \
    I(c, NIMBUS_NODE_KERNEL_LIST, NIMBUS_WIDE_KERNEL_LIST, 0, 1, false, 1, 1, 0, 1, false)
#endif

#define NIMBUS_KERNEL_NAME(op, isa) nimbus_##op##__##isa

#define NIMBUS_DECLARE_KERNEL(isa, op, parameters) void NIMBUS_KERNEL_NAME(op, isa) parameters;
#define NIMBUS_DECLARE_ISA(isa, NODE_LIST, WIDE_LIST, ...)                                         \
    NIMBUS_KERNEL_LIST(NIMBUS_DECLARE_KERNEL, isa)                                                 \
    NIMBUS_IMAGE_KERNEL_LIST(NIMBUS_DECLARE_KERNEL, isa)                                           \
    NODE_LIST(NIMBUS_DECLARE_KERNEL, isa)                                                          \
    WIDE_LIST(NIMBUS_DECLARE_KERNEL, isa)
NIMBUS_ISA_LIST(NIMBUS_DECLARE_ISA)

/* One instruction set: its kernels as members of the ops' names; NULL where it has none. */
typedef struct nimbus_kernels {
    const char *isa;
    nimbus_shape shape;
    bool (*usable)(void); /* on this CPU */
#define NIMBUS_KERNEL_MEMBER(isa, op, parameters) void(*op) parameters;
    NIMBUS_KERNEL_LIST(NIMBUS_KERNEL_MEMBER, c)
    NIMBUS_IMAGE_KERNEL_LIST(NIMBUS_KERNEL_MEMBER, c)
    NIMBUS_NODE_KERNEL_LIST(NIMBUS_KERNEL_MEMBER, c)
    NIMBUS_WIDE_KERNEL_LIST(NIMBUS_KERNEL_MEMBER, c)
#undef NIMBUS_KERNEL_MEMBER
} nimbus_kernels;

extern const nimbus_kernels nimbus_kernel_table[];
extern const size_t nimbus_kernel_table_size;

/* Leaves up to which trees run in columns. */
static inline size_t nimbus_column_leaves(const nimbus_kernels *kernels)
{
    return kernels->shape.granule == 0 ? 0 : kernels->wide_u8i8 ? 64 : 16;
}

/* The best instruction set of this CPU, at most that of nimbus_set_max_isa. In test builds the
 * environment variable NIMBUS_DISABLE_ISA (names separated by commas; "c" cannot be disabled) takes
 * some away; an unknown name is an ARGUMENT error. */
NIMBUS_MUST_CHECK nimbus_status nimbus_kernels_choose(const nimbus_kernels **out,
                                                      nimbus_error *error);

#endif
