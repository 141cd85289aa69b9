/* image_kernels.h - kernels for planes of images, a list of its own for kernels.h
 *
 * A plane is what a column is elsewhere: one byte a position, at p + i for position i. A tap is the
 * byte offset from a position to what it reads. Kernels work on n positions and may read taps and
 * write results up to the next multiple of NIMBUS_PAD of n.
 *
 * pack_taps_u8u8  as pack_u8u8, column c being the bytes at x + taps[c]; `taps` is filled up to a
 *                 multiple of four, and columns that a last group lacks are whatever those are
 * dot_taps_i32    sums[i] = bias + sum over t of weights[t] * x[taps[t] + i] for `n_groups` groups
 *                 of taps, filled up alike. Weights i8, or i16 if the set's group is two; `flip` is
 *                 the set's, and the bias makes up for it
 * dot_taps_i8     the same sums, rounded for output 0 of `rounding`
 * dot_columns_i8  the sums of dot_columns_i32, rounded for outputs m ..
 * max_taps_i8i8   out[i] = the largest x[taps[t] + i]
 * add_i8i8        out[i] = sat8(the sum of sources[s][i]), up to NIMBUS_MAX_SOURCES of them
 * frame_i8i8      x[c * stride + i] clamped to low..high where keep[i] is 0xff, pads[c] (0 if
 *                 `pads` is NULL) where it is 0, in place
 * split_u8u8      even[c][r][i] = in[c][r][2 i], odd[c][r][i] = in[c][r][2 i + 1] of n_rows rows
 *                 of n_planes planes, n positions each; `odd` may be NULL. Rows are written in
 *                 turn, NIMBUS_PAD bytes or less further than they are long
 * sum_i8i32       sums[c] = sum over i of x[c * stride + i] where keep[i]; keep is 0 from n to the
 *                 next multiple of NIMBUS_PAD */
#ifndef NIMBUS_RUN_IMAGE_KERNELS_H
#define NIMBUS_RUN_IMAGE_KERNELS_H

/* How sums of output m become i8: sat8(round(f32(sum) * scale[m] + offset[m])), or sat8(sum >>
 * shift) if scale is NULL. Scales go on to the end of the tile. */
typedef struct nimbus_rounding {
    const float *scale, *offset;
    unsigned shift;
} nimbus_rounding;

/* One sum of output m, in plain C. */
int8_t nimbus_round_sum(int32_t sum, const nimbus_rounding *rounding, size_t m);

struct nimbus_weights;

/* clang-format off */
#define NIMBUS_IMAGE_KERNEL_LIST(K, isa)                                                           \
    K(isa, pack_taps_u8u8,                                                                         \
      (const uint8_t *x, const uint32_t *taps, size_t n_taps, size_t n, uint32_t flip,             \
       uint8_t *out, size_t out_stride))                                                           \
    K(isa, dot_taps_i32,                                                                           \
      (const uint8_t *x, const uint32_t *taps, size_t n_groups, const void *weights, int32_t bias, \
       uint8_t flip, size_t n, int32_t *sums))                                                     \
    K(isa, dot_taps_i8,                                                                            \
      (const uint8_t *x, const uint32_t *taps, size_t n_groups, const void *weights, int32_t bias, \
       uint8_t flip, size_t n, const nimbus_rounding *rounding, int8_t *out))                      \
    K(isa, dot_columns_i8,                                                                         \
      (const struct nimbus_weights *weights, size_t m, const uint8_t *x, size_t stride, size_t n,  \
       const nimbus_rounding *rounding, int8_t *out, size_t out_stride))                           \
    K(isa, max_taps_i8i8,                                                                          \
      (const int8_t *x, const uint32_t *taps, size_t n_taps, size_t n, int8_t *out))               \
    K(isa, add_i8i8, (const int8_t *const *sources, size_t n_sources, size_t n, int8_t *out))      \
    K(isa, frame_i8i8,                                                                             \
      (int8_t * x, size_t stride, size_t n_planes, const uint8_t *keep, size_t n, int8_t low,      \
       int8_t high, const int8_t *pads))                                                           \
    K(isa, split_u8u8,                                                                             \
      (const uint8_t *in, size_t in_plane, size_t n_planes, size_t in_stride, size_t n_rows,       \
       size_t n, uint8_t *even, uint8_t *odd, size_t out_plane, size_t out_stride))                                                                         \
    K(isa, sum_i8i32,                                                                              \
      (const int8_t *x, size_t stride, size_t n_columns, const uint8_t *keep, size_t n,            \
       uint8_t flip, int32_t *sums))
/* clang-format on */

#endif
