/* packed_lookup_template.h - lookups in four tables at once: y[m] = bias + sum over c of T[c][code]
 *
 * The tables of four codebooks fill one register; packed codes, with 16 j added to those of
 * codebook j, look up four entries for each of LANES / 4 rows, and a dot product with ones adds the
 * four up in 32 bits: LANES exact lookups by two instructions. Where the entries of two quads of
 * codebooks are small enough to be added in bytes first, 2 LANES by four, of which one more kind
 * of unit can do its part. */

/* TILE outputs for R vectors of rows of every quad of codebooks. */
HELPER void lookup_quads(const nimbus_tile *tile, const size_t R, const uint8_t *codes,
                         size_t stride, vec out[TILE][4])
{
    const int8_t *tables = tile->tables;
    vec sums[TILE][4];
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t g = 0; g < R; g++)
            sums[t][g] = v_set32(tile->bias[t]);
    }
    size_t q = 0;
    for (; tile->paired && q + 2 <= tile->n_quads; q += 2) {
        vec table[TILE][2];
        UNROLL
        for (size_t t = 0; t < TILE; t++) {
            table[t][0] = v_now(v_load(tables + t * LANES));
            table[t][1] = v_now(v_load(tables + (TILE + t) * LANES));
        }
        UNROLL
        for (size_t g = 0; g < R; g++) {
            vec first = v_now(v_load(codes + g * LANES));
            vec second = v_now(v_load(codes + 4 * stride + g * LANES));
            UNROLL
            for (size_t t = 0; t < TILE; t++)
                sums[t][g] = v_dot8(
                    sums[t][g], v_set8(1),
                    v_add8(v_shuffle64(table[t][0], first), v_shuffle64(table[t][1], second)));
        }
        tables += 2 * TILE * LANES;
        codes += 8 * stride;
    }
    for (; q < tile->n_quads; q++) {
        vec table[TILE];
        UNROLL
        for (size_t t = 0; t < TILE; t++)
            table[t] = v_now(v_load(tables + t * LANES));
        UNROLL
        for (size_t g = 0; g < R; g++) {
            vec code = v_now(v_load(codes + g * LANES));
            UNROLL
            for (size_t t = 0; t < TILE; t++)
                sums[t][g] = v_dot8(sums[t][g], v_set8(1), v_shuffle64(table[t], code));
        }
        tables += TILE * LANES;
        codes += 4 * stride;
    }
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t g = 0; g < R; g++)
            out[t][g] = sums[t][g];
    }
}

HELPER void lookup_block_i8(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                            unsigned shift, int8_t *out, size_t out_stride)
{
    vec sums[TILE][4];
    lookup_quads(tile, 4, codes, stride, sums);
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        vec low = v_pack32_halves(sums[t][0], sums[t][1]); /* the sums fit 16 bits */
        vec high = v_pack32_halves(sums[t][2], sums[t][3]);
        v_store(out + t * out_stride,
                v_pack16_halves(v_shift_right16(low, shift), v_shift_right16(high, shift)));
    }
}

/* Rows of a part block, in their order. */
HELPER void lookup_part_i8(const nimbus_tile *tile, const size_t R, const uint8_t *codes,
                           size_t stride, unsigned shift, int8_t *out, size_t out_stride)
{
    vec sums[TILE][4];
    lookup_quads(tile, R, codes, stride, sums);
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t g = 0; g < R; g++)
            v_store_narrow32(out + t * out_stride + g * (LANES / 4),
                             v_shift_right32(sums[t][g], shift));
    }
}

TARGET void KERNEL(lookup_u8i8)(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                                size_t n, unsigned shift, int8_t *out, size_t out_stride)
{
    size_t r = 0;
    for (; r + LANES <= n; r += LANES)
        lookup_block_i8(tile, codes + 4 * r, stride, shift, out + r, out_stride);
    codes += 4 * r;
    out += r;
    switch ((n - r) / (LANES / 4)) {
    case 1:
        lookup_part_i8(tile, 1, codes, stride, shift, out, out_stride);
        break;
    case 2:
        lookup_part_i8(tile, 2, codes, stride, shift, out, out_stride);
        break;
    case 3:
        lookup_part_i8(tile, 3, codes, stride, shift, out, out_stride);
        break;
    }
}

HELPER void lookup_part_i32(const nimbus_tile *tile, const size_t R, const uint8_t *codes,
                            size_t stride, int32_t *out, size_t out_stride)
{
    vec sums[TILE][4];
    lookup_quads(tile, R, codes, stride, sums);
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t g = 0; g < R; g++)
            v_store(out + t * out_stride + g * (LANES / 4), sums[t][g]);
    }
}

TARGET void KERNEL(lookup_u8i32)(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                                 size_t n, int32_t *out, size_t out_stride)
{
    size_t r = 0;
    for (; r + LANES <= n; r += LANES) {
        vec sums[TILE][4];
        lookup_quads(tile, 4, codes + 4 * r, stride, sums);
        for (size_t t = 0; t < TILE; t++)
            store_block32(out + t * out_stride + r, sums[t]);
    }
    codes += 4 * r;
    out += r;
    switch ((n - r) / (LANES / 4)) {
    case 1:
        lookup_part_i32(tile, 1, codes, stride, out, out_stride);
        break;
    case 2:
        lookup_part_i32(tile, 2, codes, stride, out, out_stride);
        break;
    case 3:
        lookup_part_i32(tile, 3, codes, stride, out, out_stride);
        break;
    }
}

HELPER void lookup_part_rounded(const nimbus_tile *tile, const size_t R, const uint8_t *codes,
                                size_t stride, const nimbus_rounding *rounding, size_t m,
                                int8_t *out, size_t out_stride)
{
    vec sums[TILE][4];
    lookup_quads(tile, R, codes, stride, sums);
    UNROLL
    for (size_t t = 0; t < TILE; t++)
        store_part_rounded(sums[t], R, rounding, m + t, out + t * out_stride);
}

TARGET void KERNEL(lookup_rounded_u8i8)(const nimbus_tile *tile, const uint8_t *codes,
                                        size_t stride, size_t n, const nimbus_rounding *rounding,
                                        size_t m, int8_t *out, size_t out_stride)
{
    size_t r = 0;
    for (; r + LANES <= n; r += LANES) {
        vec sums[TILE][4];
        lookup_quads(tile, 4, codes + 4 * r, stride, sums);
        UNROLL
        for (size_t t = 0; t < TILE; t++)
            v_store(out + t * out_stride + r, round_block(sums[t], rounding, m + t));
    }
    codes += 4 * r;
    out += r;
    switch ((n - r) / (LANES / 4)) {
    case 1:
        lookup_part_rounded(tile, 1, codes, stride, rounding, m, out, out_stride);
        break;
    case 2:
        lookup_part_rounded(tile, 2, codes, stride, rounding, m, out, out_stride);
        break;
    case 3:
        lookup_part_rounded(tile, 3, codes, stride, rounding, m, out, out_stride);
        break;
    }
}
