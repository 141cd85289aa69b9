/* dot_template.h - exact i8 products: groups of inputs times groups of weights, added in 32 bits
 *
 * v_dot takes inputs first: with groups of four bytes they may be unsigned. In columns, a vector
 * holds the groups of LANES / 4 rows and weights are broadcast, or with LANE_DOT, where TILE is
 * LANES / 4, picked out of a vector of them; in rows, a vector holds the weights of LANES / 4
 * outputs and inputs are broadcast. */

enum { BLOCK = LANES / 4, DOT_BLOCKS = 4 };

/* TILE outputs for R vectors of rows, all groups of inputs. */
HELPER void dot_block(const nimbus_weights *weights, size_t m, const size_t R, const uint8_t *x,
                      size_t stride, vec sums[TILE][4])
{
    const uint8_t *w =
        (const uint8_t *)weights->weights + (m / BLOCK * weights->n_groups * BLOCK + m % BLOCK) * 4;
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t g = 0; g < R; g++)
            sums[t][g] = v_set32(weights->bias[m + t]);
    }
    for (size_t d = 0; d < weights->n_groups; d++) {
        vec input[4];
        UNROLL
        for (size_t g = 0; g < R; g++)
            input[g] = v_now(v_load(x + g * LANES));
#ifdef LANE_DOT
        vec all_weights = v_load(w);
#endif
        UNROLL
        for (size_t t = 0; t < TILE; t++) {
#ifdef LANE_DOT
            UNROLL
            for (size_t g = 0; g < R; g++)
                sums[t][g] = v_dot_lane(sums[t][g], input[g], all_weights, t);
#else
            vec weight = v_now(v_load_table32(w + 4 * t));
            UNROLL
            for (size_t g = 0; g < R; g++)
                sums[t][g] = v_dot(sums[t][g], input[g], weight);
#endif
        }
        x += 4 * stride;
        w += 4 * BLOCK;
    }
}

#ifdef PART_BLOCKS
HELPER void dot_part(const nimbus_weights *weights, size_t m, const size_t R, const uint8_t *x,
                     size_t stride, int32_t *out)
{
    vec sums[TILE][4];
    dot_block(weights, m, R, x, stride, sums);
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t g = 0; g < R; g++)
            v_store(out + t * stride + g * BLOCK, sums[t][g]);
    }
}
#endif

TARGET void KERNEL(dot_columns_i32)(const nimbus_weights *weights, size_t m, const uint8_t *x,
                                    size_t stride, size_t n, int32_t *out)
{
    size_t r = 0;
    for (; r + LANES <= n; r += LANES) {
        vec sums[TILE][4];
        dot_block(weights, m, 4, x + 4 * r, stride, sums);
        UNROLL
        for (size_t t = 0; t < TILE; t++)
            store_block32(out + t * stride + r, sums[t]);
    }
#ifdef PART_BLOCKS
    x += 4 * r;
    out += r;
    switch ((n - r) / BLOCK) {
    case 1:
        dot_part(weights, m, 1, x, stride, out);
        break;
    case 2:
        dot_part(weights, m, 2, x, stride, out);
        break;
    case 3:
        dot_part(weights, m, 3, x, stride, out);
        break;
    }
#endif
}

/* R rows times B blocks of outputs from block b on. */
HELPER void dot_rows(const nimbus_weights *weights, size_t b, const size_t B, const size_t R,
                     const uint8_t *x, size_t x_stride, int32_t *out, size_t out_stride)
{
    const size_t block_bytes = weights->n_groups * LANES;
    const uint8_t *w = (const uint8_t *)weights->weights + b * block_bytes;
    vec sums[4][DOT_BLOCKS];
    UNROLL
    for (size_t r = 0; r < R; r++) {
        UNROLL
        for (size_t i = 0; i < B; i++)
            sums[r][i] = v_load(weights->bias + (b + i) * BLOCK);
    }
    for (size_t d = 0; d < weights->n_groups; d++) {
        vec weight[DOT_BLOCKS];
        UNROLL
        for (size_t i = 0; i < B; i++)
            weight[i] = v_load(w + i * block_bytes + d * LANES);
        UNROLL
        for (size_t r = 0; r < R; r++) {
            vec input = v_load_table32(x + r * x_stride + 4 * d);
            UNROLL
            for (size_t i = 0; i < B; i++)
                sums[r][i] = v_dot(sums[r][i], input, weight[i]);
        }
    }
    UNROLL
    for (size_t r = 0; r < R; r++) {
        UNROLL
        for (size_t i = 0; i < B; i++)
            v_store(out + r * out_stride + (b + i) * BLOCK, sums[r][i]);
    }
}

TARGET void KERNEL(dot_rows_i32)(const nimbus_weights *weights, const uint8_t *x, size_t x_stride,
                                 size_t n_rows, int32_t *sums, size_t sums_stride)
{
    const size_t n_blocks = (weights->n_outputs + BLOCK - 1) / BLOCK;
    for (size_t r = 0; r < n_rows; r += ROWS_AT_ONCE) {
        const uint8_t *row = x + r * x_stride;
        int32_t *out = sums + r * sums_stride;
        size_t left = n_rows - r, b = 0;
        if (left < ROWS_AT_ONCE) {
            for (; left; left--, row += x_stride, out += sums_stride) {
                for (b = 0; b + DOT_BLOCKS <= n_blocks; b += DOT_BLOCKS)
                    dot_rows(weights, b, DOT_BLOCKS, 1, row, x_stride, out, sums_stride);
                for (; b < n_blocks; b++)
                    dot_rows(weights, b, 1, 1, row, x_stride, out, sums_stride);
            }
            break;
        }
        for (; b + DOT_BLOCKS <= n_blocks; b += DOT_BLOCKS)
            dot_rows(weights, b, DOT_BLOCKS, ROWS_AT_ONCE, row, x_stride, out, sums_stride);
        for (; b < n_blocks; b++)
            dot_rows(weights, b, 1, ROWS_AT_ONCE, row, x_stride, out, sums_stride);
    }
}
