/* kernels_c.c - the kernels in plain C: the specification of all others
 *
 * Written for reading; the compiler's own vectoriser makes them usable where no better set is.
 * See kernels.h for what each computes. */
#include "base/stored.h"
#include "run/kernels.h"

static int8_t saturate(int32_t x)
{
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

/* Floor division by 2^shift, for negative numbers too. */
static int32_t shift_right(int32_t x, unsigned shift)
{
    return x < 0 ? ~(~x >> shift) : x >> shift;
}

int8_t nimbus_round_sum(int32_t sum, const nimbus_rounding *rounding, size_t m)
{
    return rounding->scale ? nimbus_scale_to_i8((float)sum, rounding->scale[m], rounding->offset[m])
                           : saturate(shift_right(sum, rounding->shift));
}

void nimbus_transpose_u8u8__c(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                              const nimbus_part *parts, size_t n_parts, uint8_t flip, uint8_t *out,
                              size_t out_stride)
{
    for (size_t p = 0; p < n_parts; p++) {
        const nimbus_part all = {.first = (uint32_t)(16 * p), .out = (uint32_t)(16 * p)};
        const nimbus_part *part = parts ? &parts[p] : &all;
        for (size_t i = 0; i < (part->few ? NIMBUS_FEW : 16); i++) {
            size_t at = part->first + (part->few ? part->at[i] : i);
            for (size_t r = 0; r < n_rows && at < width; r++)
                out[(part->out + i) * out_stride + r] = in[r * in_stride + at] ^ flip;
        }
    }
}

void nimbus_transpose_f32__c(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                             const uint32_t *first, size_t n_parts, float *out)
{
    for (size_t r = 0; r < NIMBUS_PAD; r++) { /* registers of no set are larger */
        const size_t row = r < n_rows ? r : n_rows - 1;
        const float *x = (const float *)(const void *)(in + row * in_stride);
        for (size_t p = 0; p < n_parts; p++)
            for (size_t i = 0; i < 4 && first[p] + i < width; i++)
                out[(4 * p + i) * NIMBUS_PAD + r] = x[first[p] + i];
    }
}

void nimbus_encode_i8u8__c(const nimbus_trees *trees, const int8_t *columns, size_t stride,
                           size_t n, uint8_t *codes, size_t codes_stride)
{
    size_t H = trees->n_levels, table_bytes = nimbus_level_threshold_bytes(H);
    for (size_t c = 0; c < trees->n_codebooks; c++) {
        const int8_t *thresholds = (const int8_t *)trees->thresholds + c * table_bytes;
        for (size_t r = 0; r < n; r++) {
            unsigned code = 0;
            for (size_t h = 0; h < H; h++) {
                int8_t x = columns[trees->columns[c * H + h] * stride + r];
                code = 2 * code + (x > thresholds[nimbus_threshold_place(H, h, code)]);
            }
            codes[c * codes_stride + r] = (uint8_t)code;
        }
    }
}

void nimbus_encode_f32u8__c(const nimbus_trees *trees, const float *columns, size_t stride,
                            size_t n, uint8_t *codes, size_t codes_stride)
{
    const size_t H = trees->n_levels;
    for (size_t c = 0; c < trees->n_codebooks; c++) {
        const float *thresholds = (const float *)trees->thresholds + c * NIMBUS_NODES;
        for (size_t r = 0; r < n; r++) {
            size_t i = 1;
            for (size_t h = 0; h < H; h++)
                i = 2 * i + (columns[trees->columns[c * H + h] * stride + r] > thresholds[i]);
            codes[c * codes_stride + r] = (uint8_t)(i - ((size_t)1 << H));
        }
    }
}

/* A tree whose nodes 0..K-2 stand in heap order; `i` is the node that a row has reached. */
#define ENCODE_NODES(type, copies)                                                                 \
    size_t n_nodes = ((size_t)1 << trees->n_levels) - 1;                                           \
    for (size_t c = 0; c < trees->n_codebooks; c++) {                                              \
        const uint32_t *column = trees->columns + c * n_nodes;                                     \
        const type *threshold = (const type *)trees->thresholds + c * n_nodes * copies;            \
        for (size_t r = 0; r < n; r++) {                                                           \
            size_t i = 0;                                                                          \
            while (i < n_nodes)                                                                    \
                i = 2 * i + 1 + (columns[column[i] * stride + r] > threshold[i * copies]);         \
            codes[c * codes_stride + r] = (uint8_t)(i - n_nodes);                                  \
        }                                                                                          \
    }

void nimbus_encode_nodes_i8u8__c(const nimbus_trees *trees, const int8_t *columns, size_t stride,
                                 size_t n, uint8_t *codes, size_t codes_stride)
{
    ENCODE_NODES(int8_t, 4)
}

void nimbus_encode_nodes_f32u8__c(const nimbus_trees *trees, const float *columns, size_t stride,
                                  size_t n, uint8_t *codes, size_t codes_stride)
{
    ENCODE_NODES(float, 1)
}

/* `value` reads x of column d. */
#define WALK_LEVELS(type, value)                                                                   \
    const size_t C = walk->n_codebooks, H = walk->n_levels, n_nodes = ((size_t)1 << H) - 1;        \
    const size_t stride = nimbus_padded(C);                                                        \
    const type *thresholds = walk->thresholds;                                                     \
    for (size_t c = 0; c < C; c++) {                                                               \
        size_t i = 0;                                                                              \
        for (size_t h = 0; h < H; h++) {                                                           \
            const uint32_t d = walk->gather.columns[h * stride + c];                               \
            i = 2 * i + 1 + ((value) > thresholds[i * stride + c]);                                \
        }                                                                                          \
        codes[c] = (uint8_t)(i - n_nodes);                                                         \
    }

void nimbus_walk_u8u8__c(const nimbus_walk *walk, const uint8_t *x, uint8_t *codes)
{
    WALK_LEVELS(int8_t, (int8_t)(x[d] ^ walk->gather.flip))
}

void nimbus_walk_f32u8__c(const nimbus_walk *walk, const float *x, uint8_t *codes)
{
    WALK_LEVELS(float, x[d])
}

void nimbus_walk_nodes_u8u8__c(const nimbus_walk *walk, const uint8_t *x, size_t x_stride,
                               size_t n_rows, uint8_t *codes, size_t codes_stride)
{
    const size_t n_nodes = ((size_t)1 << walk->n_levels) - 1;
    for (size_t r = 0; r < n_rows; r++) {
        const uint32_t *column = walk->gather.columns;
        const int8_t *threshold = walk->thresholds;
        for (size_t c = 0; c < walk->n_codebooks; c++) {
            size_t i = 0;
            while (i < n_nodes) {
                uint8_t value = x[r * x_stride + column[i]] ^ walk->gather.flip;
                i = 2 * i + 1 + ((int8_t)value > threshold[i]);
            }
            codes[r * codes_stride + c] = (uint8_t)(i - n_nodes);
            column += NIMBUS_NODES;
            threshold += NIMBUS_NODES;
        }
    }
}

void nimbus_pack_u8u8__c(const uint8_t *columns, size_t stride, size_t n, size_t n_columns,
                         uint32_t flip, uint8_t *out, size_t out_stride)
{
    for (size_t c = 0; c < n_columns; c++)
        for (size_t r = 0; r < n; r++)
            out[c * out_stride + r] = columns[c * stride + r] ^ (uint8_t)flip;
}

/* The sum of row r, modulo 2^32, from tables of `table_bytes` entries. */
static uint32_t lookup(const nimbus_tile *tile, size_t table_bytes, const uint8_t *codes,
                       size_t stride, size_t r)
{
    size_t C = 0;
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++)
        C += (size_t)tile->n_groups[g] << (NIMBUS_GROUP_SIZES - 1 - g);
    uint32_t sum = (uint32_t)tile->bias[0];
    for (size_t i = 0; i < C; i++) {
        size_t c = tile->order ? tile->order[i] : i;
        sum += ((const uint8_t *)tile->tables)[i * table_bytes + codes[c * stride + r]];
    }
    return sum;
}

#define LOOKUP(name, table_bytes)                                                                  \
    void nimbus_##name##_u8i8__c(const nimbus_tile *tile, const uint8_t *codes, size_t stride,     \
                                 size_t n, unsigned shift, int8_t *out, size_t out_stride)         \
    {                                                                                              \
        (void)out_stride; /* tiles of one output */                                                \
        for (size_t r = 0; r < n; r++)                                                             \
            out[r] = saturate(                                                                     \
                shift_right((int32_t)lookup(tile, table_bytes, codes, stride, r), shift));         \
    }                                                                                              \
                                                                                                   \
    void nimbus_##name##_u8i32__c(const nimbus_tile *tile, const uint8_t *codes, size_t stride,    \
                                  size_t n, int32_t *sums, size_t sums_stride)                     \
    {                                                                                              \
        (void)sums_stride;                                                                         \
        for (size_t r = 0; r < n; r++)                                                             \
            sums[r] = (int32_t)lookup(tile, table_bytes, codes, stride, r);                        \
    }                                                                                              \
                                                                                                   \
    void nimbus_##name##_rounded_u8i8__c(const nimbus_tile *tile, const uint8_t *codes,            \
                                         size_t stride, size_t n, const nimbus_rounding *rounding, \
                                         size_t m, int8_t *out, size_t out_stride)                 \
    {                                                                                              \
        (void)out_stride;                                                                          \
        for (size_t r = 0; r < n; r++)                                                             \
            out[r] = nimbus_round_sum((int32_t)lookup(tile, table_bytes, codes, stride, r),        \
                                      rounding, m);                                                \
    }
LOOKUP(lookup, 16)
LOOKUP(wide, 64)

void nimbus_scores_i32i32__c(const int32_t *sums, size_t sums_stride, size_t n_rows,
                             size_t n_outputs, int32_t *scores, size_t scores_stride)
{
    (void)sums_stride, (void)n_outputs; /* tiles of one output */
    for (size_t r = 0; r < n_rows; r++)
        scores[r * scores_stride] = sums[r];
}

/* In blocks of a constant length, which compilers vectorise, over the padding at the end: sums of
 * outputs m + i from biases on, modulo 2^16 or 2^32. */
#define ADD_ROWS(type, bias, finish)                                                               \
    enum { BLOCK = 16 };                                                                           \
    const size_t M = table->n_outputs, stride = table->stride;                                     \
    for (size_t m = 0; m < M; m += BLOCK) {                                                        \
        type block[BLOCK];                                                                         \
        for (size_t i = 0; i < BLOCK; i++)                                                         \
            block[i] = (type)(bias);                                                               \
        for (size_t c = 0; c < table->n_codebooks; c++) {                                          \
            const uint8_t *row = table->entries + (c * table->n_leaves + codes[c]) * stride + m;   \
            for (size_t i = 0; i < BLOCK; i++)                                                     \
                block[i] = (type)(block[i] + row[i]);                                              \
        }                                                                                          \
        for (size_t i = 0; i < BLOCK; i++)                                                         \
            finish;                                                                                \
    }

void nimbus_add_u8i8__c(const nimbus_table *table, const uint8_t *codes, const int16_t *even,
                        const int16_t *odd, unsigned shift, int8_t *out)
{
    ADD_ROWS(uint16_t, (i % 2 ? odd : even)[(m + i) / 2],
             out[m + i] = saturate(shift_right((int16_t)block[i], shift)))
}

void nimbus_add_u8i32__c(const nimbus_table *table, const uint8_t *codes, const int32_t *bias,
                         int32_t *sums)
{
    ADD_ROWS(uint32_t, bias[m + i], sums[m + i] = (int32_t)block[i])
}

void nimbus_dot_columns_i32__c(const nimbus_weights *weights, size_t m, const uint8_t *x,
                               size_t stride, size_t n, int32_t *sums)
{
    const int8_t *w = (const int8_t *)weights->weights + m * weights->n_groups;
    for (size_t r = 0; r < n; r++) {
        sums[r] = weights->bias[m];
        for (size_t d = 0; d < weights->n_groups; d++)
            sums[r] += w[d] * (int8_t)x[d * stride + r];
    }
}

void nimbus_dot_rows_i32__c(const nimbus_weights *weights, const uint8_t *x, size_t x_stride,
                            size_t n_rows, int32_t *sums, size_t sums_stride)
{
    for (size_t r = 0; r < n_rows; r++) {
        const int8_t *w = weights->weights, *row = (const int8_t *)(x + r * x_stride);
        for (size_t m = 0; m < weights->n_outputs; m++, w += weights->n_groups) {
            int32_t sum = weights->bias[m];
            for (size_t d = 0; d < weights->n_groups; d++)
                sum += w[d] * row[d];
            sums[r * sums_stride + m] = sum;
        }
    }
}

void nimbus_shift_i32i8__c(const int32_t *sums, size_t n, unsigned shift, int8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = saturate(shift_right(sums[i], shift));
}

void nimbus_scale_i32i8__c(const int32_t *sums, size_t n, const float *scale, const float *offset,
                           size_t step, int8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = nimbus_scale_to_i8((float)sums[i], scale[i * step], offset[i * step]);
}

void nimbus_quantise_f32i8__c(const float *x, size_t n, const float *scale, const float *offset,
                              int8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = nimbus_scale_to_i8(x[i], scale[i], offset[i]);
}

void nimbus_map_i8i8__c(const int8_t *x, size_t n, const int8_t *map, int8_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = map[x[i] + 128];
}
