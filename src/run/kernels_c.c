/* kernels_c.c - the kernels in plain C: the specification of all others
 *
 * Written for reading; the compiler's own vectoriser makes them usable where no better set is.
 * See kernels.h for what each computes. */
#include "run/kernels.h"

static int8_t saturate(int32_t x)
{
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

/* To the nearest integer, ties to even, without libm; NaN gives 0. The fraction is exact. */
static int8_t round_to_i8(float x)
{
    if (x != x)
        return 0;
    x = x < -128.0f ? -128.0f : x > 127.0f ? 127.0f : x;
    int32_t whole = (int32_t)x;
    float fraction = x - (float)whole;
    if (fraction > 0.5f || (fraction == 0.5f && whole % 2 != 0))
        whole++;
    if (fraction < -0.5f || (fraction == -0.5f && whole % 2 != 0))
        whole--;
    return (int8_t)whole;
}

/* Floor division by 2^shift, for negative numbers too. */
static int32_t shift_right(int32_t x, unsigned shift)
{
    return x < 0 ? ~(~x >> shift) : x >> shift;
}

void nimbus_transpose_u8u8__c(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                              const uint32_t *columns, size_t n_columns, uint8_t flip, uint8_t *out,
                              size_t out_stride)
{
    (void)width;
    for (size_t i = 0; i < n_columns; i++) {
        const uint8_t *from = in + (columns ? columns[i] : i);
        for (size_t r = 0; r < n_rows; r++)
            out[i * out_stride + r] = from[r * in_stride] ^ flip;
    }
}

void nimbus_encode_i8u8__c(const nimbus_trees *trees, const int8_t *columns, size_t stride,
                           size_t n, uint8_t *codes)
{
    size_t H = trees->n_levels;
    for (size_t c = 0; c < trees->n_codebooks; c++) {
        const int8_t *thresholds = (const int8_t *)trees->thresholds + c * H * 16;
        for (size_t r = 0; r < n; r++) {
            unsigned code = 0;
            for (size_t h = 0; h < H; h++) {
                int8_t x = columns[trees->columns[c * H + h] * stride + r];
                code = 2 * code + (x > thresholds[h * 16 + code]);
            }
            codes[c * stride + r] = (uint8_t)code;
        }
    }
}

/* A tree whose nodes 0..K-2 stand in heap order; `i` is the node that a row has reached. */
#define ENCODE_NODES(type)                                                                         \
    size_t n_nodes = ((size_t)1 << trees->n_levels) - 1;                                           \
    for (size_t c = 0; c < trees->n_codebooks; c++) {                                              \
        const uint32_t *column = trees->columns + c * n_nodes;                                     \
        const type *threshold = (const type *)trees->thresholds + c * n_nodes;                     \
        for (size_t r = 0; r < n; r++) {                                                           \
            size_t i = 0;                                                                          \
            while (i < n_nodes)                                                                    \
                i = 2 * i + 1 + (columns[column[i] * stride + r] > threshold[i]);                  \
            codes[c * stride + r] = (uint8_t)(i - n_nodes);                                        \
        }                                                                                          \
    }

void nimbus_encode_nodes_i8u8__c(const nimbus_trees *trees, const int8_t *columns, size_t stride,
                                 size_t n, uint8_t *codes)
{
    ENCODE_NODES(int8_t)
}

void nimbus_encode_nodes_f32u8__c(const nimbus_trees *trees, const float *columns, size_t stride,
                                  size_t n, uint8_t *codes)
{
    ENCODE_NODES(float)
}

void nimbus_walk_i8u8__c(const int8_t *values, const int8_t *thresholds, size_t n_codebooks,
                         size_t n_levels, uint8_t *codes)
{
    size_t n_nodes = ((size_t)1 << n_levels) - 1;
    for (size_t c = 0; c < n_codebooks; c++) {
        size_t i = 0;
        for (size_t h = 0; h < n_levels; h++)
            i = 2 * i + 1 + (values[h * n_codebooks + c] > thresholds[i * n_codebooks + c]);
        codes[c] = (uint8_t)(i - n_nodes);
    }
}

static uint32_t lookup(const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t t,
                       size_t r)
{
    size_t C = 0;
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++)
        C += (size_t)tile->n_groups[g] << (NIMBUS_GROUP_SIZES - 1 - g);
    uint32_t sum = (uint32_t)tile->bias[t];
    for (size_t i = 0; i < C; i++)
        sum += tile->tables[(i * NIMBUS_TILE + t) * 16 + codes[tile->order[i] * stride + r]];
    return sum;
}

void nimbus_lookup_u8i16__c(const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,
                            int16_t *sums)
{
    for (size_t t = 0; t < NIMBUS_TILE; t++)
        for (size_t r = 0; r < n; r++)
            sums[t * n + r] = (int16_t)lookup(tile, codes, stride, t, r);
}

void nimbus_lookup_u8i32__c(const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,
                            int32_t *sums)
{
    for (size_t t = 0; t < NIMBUS_TILE; t++)
        for (size_t r = 0; r < n; r++)
            sums[t * n + r] = (int32_t)lookup(tile, codes, stride, t, r);
}

/* In blocks of a constant length, which compilers vectorise, over the padding at the end. */
#define ADD_ROWS(type, unsigned_type)                                                              \
    enum { BLOCK = 16 };                                                                           \
    const size_t M = table->n_outputs;                                                             \
    for (size_t m = 0; m < M; m += BLOCK) {                                                        \
        unsigned_type block[BLOCK];                                                                \
        for (size_t i = 0; i < BLOCK; i++)                                                         \
            block[i] = (unsigned_type)bias[m + i];                                                 \
        for (size_t c = 0; c < table->n_codebooks; c++) {                                          \
            const uint8_t *row = table->entries + (c * table->n_leaves + codes[c]) * M + m;        \
            for (size_t i = 0; i < BLOCK; i++)                                                     \
                block[i] = (unsigned_type)(block[i] + row[i]);                                     \
        }                                                                                          \
        for (size_t i = 0; i < BLOCK; i++)                                                         \
            sums[m + i] = (type)block[i];                                                          \
    }

void nimbus_add_u8i16__c(const nimbus_table *table, const uint8_t *codes, const int16_t *bias,
                         int16_t *sums)
{
    ADD_ROWS(int16_t, uint16_t)
}

void nimbus_add_u8i32__c(const nimbus_table *table, const uint8_t *codes, const int32_t *bias,
                         int32_t *sums)
{
    ADD_ROWS(int32_t, uint32_t)
}

void nimbus_dot_i8i32__c(const int8_t *x, size_t x_stride, size_t n_rows, const int8_t *weights,
                         size_t n_inputs, size_t n_outputs, const int32_t *bias, int32_t *sums,
                         size_t sums_stride)
{
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t m = 0; m < n_outputs; m++) {
            int32_t sum = bias[m];
            for (size_t d = 0; d < n_inputs; d++)
                sum += weights[m * n_inputs + d] * x[r * x_stride + d];
            sums[r * sums_stride + m] = sum;
        }
    }
}

void nimbus_shift_i16i8__c(const int16_t *sums, size_t n, unsigned shift, int8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = saturate(shift_right(sums[i], shift));
}

void nimbus_shift_i32i8__c(const int32_t *sums, size_t n, unsigned shift, int8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = saturate(shift_right(sums[i], shift));
}

void nimbus_scale_i32i8__c(const int32_t *sums, size_t n, const float *scale, const float *offset,
                           size_t step, int8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        float product = (float)sums[i] * scale[i * step];
        out[i] = round_to_i8(product + offset[i * step]);
    }
}

void nimbus_quantise_f32i8__c(const float *x, size_t n, const float *scale, const float *offset,
                              int8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        float product = x[i] * scale[i];
        out[i] = round_to_i8(product + offset[i]);
    }
}

void nimbus_map_i8i8__c(int8_t *x, size_t n, const int8_t *map)
{
    for (size_t i = 0; i < n; i++)
        x[i] = map[x[i] + 128];
}
