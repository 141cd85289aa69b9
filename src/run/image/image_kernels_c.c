/* image_kernels_c.c - the kernels for planes in plain C: the specification of all others */
#include "run/kernels.h"

void nimbus_pack_taps_u8u8__c(const uint8_t *x, const uint32_t *taps, size_t n_taps, size_t n,
                              uint32_t flip, uint8_t *out, size_t out_stride)
{
    for (size_t t = 0; t < n_taps; t++)
        for (size_t i = 0; i < n; i++)
            out[t * out_stride + i] = x[taps[t] + i] ^ (uint8_t)flip;
}

void nimbus_dot_taps_i32__c(const uint8_t *x, const uint32_t *taps, size_t n_groups,
                            const void *weights, int32_t bias, uint8_t flip, size_t n,
                            int32_t *sums)
{
    const int8_t *w = weights;
    (void)flip; /* none */
    for (size_t i = 0; i < n; i++)
        sums[i] = bias;
    for (size_t t = 0; t < n_groups; t++)
        for (size_t i = 0; i < n; i++)
            sums[i] += w[t] * (int8_t)x[taps[t] + i];
}

void nimbus_dot_taps_i8__c(const uint8_t *x, const uint32_t *taps, size_t n_groups,
                           const void *weights, int32_t bias, uint8_t flip, size_t n,
                           const nimbus_rounding *rounding, int8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        int32_t sum;
        nimbus_dot_taps_i32__c(x + i, taps, n_groups, weights, bias, flip, 1, &sum);
        out[i] = nimbus_round_sum(sum, rounding, 0);
    }
}

void nimbus_dot_columns_i8__c(const nimbus_weights *weights, size_t m, const uint8_t *x,
                              size_t stride, size_t n, const nimbus_rounding *rounding, int8_t *out,
                              size_t out_stride)
{
    (void)out_stride; /* tiles of one output */
    for (size_t i = 0; i < n; i++) {
        int32_t sum;
        nimbus_dot_columns_i32__c(weights, m, x + i, stride, 1, &sum);
        out[i] = nimbus_round_sum(sum, rounding, m);
    }
}

void nimbus_max_taps_i8i8__c(const int8_t *x, const uint32_t *taps, size_t n_taps, size_t n,
                             int8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = x[taps[0] + i];
        for (size_t t = 1; t < n_taps; t++)
            if (x[taps[t] + i] > out[i])
                out[i] = x[taps[t] + i];
    }
}

void nimbus_add_i8i8__c(const int8_t *const *sources, size_t n_sources, size_t n, int8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        int sum = 0;
        for (size_t s = 0; s < n_sources; s++)
            sum += sources[s][i];
        out[i] = (int8_t)(sum < -128 ? -128 : sum > 127 ? 127 : sum);
    }
}

void nimbus_frame_i8i8__c(int8_t *x, size_t stride, size_t n_planes, const uint8_t *keep, size_t n,
                          int8_t low, int8_t high, const int8_t *pads)
{
    for (size_t c = 0; c < n_planes; c++, x += stride) {
        for (size_t i = 0; i < n; i++) {
            int8_t clamped = x[i] < low ? low : x[i] > high ? high : x[i];
            x[i] = keep[i] ? clamped : pads ? pads[c] : 0;
        }
    }
}

void nimbus_split_u8u8__c(const uint8_t *in, size_t in_plane, size_t n_planes, size_t in_stride,
                          size_t n_rows, size_t n, uint8_t *even, uint8_t *odd, size_t out_plane,
                          size_t out_stride)
{
    for (size_t c = 0; c < n_planes; c++) {
        for (size_t r = 0; r < n_rows; r++) {
            const uint8_t *row = in + c * in_plane + r * in_stride;
            const size_t to = c * out_plane + r * out_stride;
            for (size_t i = 0; i < n; i++) {
                even[to + i] = row[2 * i];
                if (odd)
                    odd[to + i] = row[2 * i + 1];
            }
        }
    }
}

void nimbus_sum_i8i32__c(const int8_t *x, size_t stride, size_t n_columns, const uint8_t *keep,
                         size_t n, uint8_t flip, int32_t *sums)
{
    (void)flip;
    for (size_t c = 0; c < n_columns; c++) {
        sums[c] = 0;
        for (size_t i = 0; i < n; i++)
            sums[c] += keep[i] ? x[c * stride + i] : 0;
    }
}
