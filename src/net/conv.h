/* conv.h - a convolution as sums of shifted rows, and the kernels that add them up
 *
 * The image is copied into planes in which every element of the kernel (a "tap") sees all its
 * positions at one distance: position (i, j) of the output stands at p = i * pitch + j of a plane,
 * and what tap t multiplies there at p + offset[t]. A stride gives as many planes per channel as it
 * has phases. Columns between the output's width and the pitch are computed and thrown away. With
 * planes src, for every output channel m
 *
 *     y[m][p] = sum over c and t of weight[m][c][t] * src[c][p + offset[t]]
 *
 * and the gradient of src is such a sum over planes of dy. Measured against im2col and OpenBLAS's
 * product, see layer_conv2d.c. */
#ifndef NIMBUS_CONV_H
#define NIMBUS_CONV_H

#include "net/internal.h"

#define NIMBUS_CONV_BLOCK 8  /* sums at a time; weights are packed so */
#define NIMBUS_CONV_SLACK 64 /* reals that may be read behind the last plane */

/* out[b][p] = sum over c < n and t < n_taps of weight[c][t][b] * src[c * plane + offset[t] + p] for
 * p < n_positions and b < n_sums <= NIMBUS_CONV_BLOCK. out_plane has room for n_positions rounded
 * up to a multiple of NIMBUS_CONV_SLACK; src is read that far, too. */
struct nimbus_conv_sum {
    const real *src;
    size_t plane, n, n_taps;
    const size_t *offset;
    const real *weight;
    real *out;
    size_t out_plane, n_positions, n_sums;
};

/* out[c][t][m] += sum over images and positions (i, j) of dy[image][i * width + j][m] *
 * src[image * size + c * plane + offset[t] + i * pitch + j]; m runs to m_padded, a multiple of
 * `lanes`. */
struct nimbus_conv_product {
    const real *src;
    size_t plane, n, n_taps;
    const size_t *offset;
    const real *dy;
    size_t m_padded, height, width, pitch;
    size_t n_images, size;
    real *out;
};

/* One output channel: out[c][t] += sum over p < n_positions of dy[p] * src[c * plane + offset[t] +
 * p], with zeros in dy between the rows and up to a multiple of NIMBUS_CONV_SLACK. */
struct nimbus_conv_dot {
    const real *src;
    size_t plane, n, n_taps;
    const size_t *offset;
    const real *dy;
    size_t n_positions;
    real *out;
};

struct nimbus_conv_kernels {
    size_t lanes;
    void (*sum)(const struct nimbus_conv_sum *a);
    void (*product)(const struct nimbus_conv_product *a);
    void (*dot)(const struct nimbus_conv_dot *a);
};

/* The i-th widest kernels that this machine runs, 0 for the widest; NULL past the last. */
const struct nimbus_conv_kernels *nimbus_conv_kernels(size_t i);

#endif
