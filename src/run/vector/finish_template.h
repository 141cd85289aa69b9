/* finish_template.h - sums to i8 activations, floats to i8 inputs */

TARGET void KERNEL(shift_i32i8)(const int32_t *sums, size_t n, unsigned shift, int8_t *out)
{
    for (size_t i = 0; i < n; i += LANES) {
        vec quarters[4];
        UNROLL
        for (size_t q = 0; q < 4; q++)
            quarters[q] = v_shift_right32(v_load(sums + i + q * (LANES / 4)), shift);
        v_store(out + i, v_pack32(quarters));
    }
}

/* Row by row, of T outputs. */
HELPER void scores_of_rows(const int32_t *sums, size_t sums_stride, size_t n_rows, const size_t T,
                           int32_t *scores, size_t scores_stride)
{
    for (size_t r = 0; r < n_rows; r++) {
        UNROLL
        for (size_t t = 0; t < T; t++)
            scores[r * scores_stride + t] = sums[t * sums_stride + r];
    }
}

TARGET void KERNEL(scores_i32i32)(const int32_t *sums, size_t sums_stride, size_t n_rows,
                                  size_t n_outputs, int32_t *scores, size_t scores_stride)
{
    size_t r = 0;
    switch (n_outputs) {
    case 1:
        scores_of_rows(sums, sums_stride, n_rows, 1, scores, scores_stride);
        return;
#if TILE == 4
    case 2:
        scores_of_rows(sums, sums_stride, n_rows, 2, scores, scores_stride);
        return;
    case 3:
        scores_of_rows(sums, sums_stride, n_rows, 3, scores, scores_stride);
        return;
#endif
    default:
        break;
    }
#if TILE == 4 /* the scores of a row are 16 bytes then */
    for (; r + LANES / 4 <= n_rows; r += LANES / 4) {
        vec a = v_load(sums + r), b = v_load(sums + sums_stride + r);
        vec c = v_load(sums + 2 * sums_stride + r), d = v_load(sums + 3 * sums_stride + r);
        vec low01 = v_zip_low32(a, b), high01 = v_zip_high32(a, b);
        vec low23 = v_zip_low32(c, d), high23 = v_zip_high32(c, d);
        const vec rows[4] = {v_zip_low64(low01, low23), v_zip_high64(low01, low23),
                             v_zip_low64(high01, high23), v_zip_high64(high01, high23)};
        UNROLL
        for (size_t l = 0; l < LANES / 16; l++) {
            UNROLL
            for (size_t i = 0; i < 4; i++)
                v_store_part(scores + (r + 4 * l + i) * scores_stride, rows[i], l);
        }
    }
#endif
    scores_of_rows(sums + r, sums_stride, n_rows - r, TILE, scores + r * scores_stride,
                   scores_stride);
}

TARGET void KERNEL(scale_i32i8)(const int32_t *sums, size_t n, const float *scale,
                                const float *offset, size_t step, int8_t *out)
{
    vec_f32 scales = v_set_f32(scale[0]), offsets = v_set_f32(offset[0]);
    for (size_t i = 0; i < n; i += LANES) {
        vec quarters[4];
        UNROLL
        for (size_t q = 0; q < 4; q++) {
            size_t at = i + q * (LANES / 4);
            if (step) {
                scales = v_load_f32(scale + at);
                offsets = v_load_f32(offset + at);
            }
            quarters[q] = v_round(scaled(v_from_i32(v_load(sums + at)), scales, offsets));
        }
        v_store(out + i, v_pack32(quarters));
    }
}

TARGET void KERNEL(quantise_f32i8)(const float *x, size_t n, const float *scale,
                                   const float *offset, int8_t *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec quarters[4];
        UNROLL
        for (size_t q = 0; q < 4; q++) {
            size_t at = i + q * (LANES / 4);
            quarters[q] = v_round_to_i8_range(
                scaled(v_load_f32(x + at), v_load_f32(scale + at), v_load_f32(offset + at)));
        }
        v_store(out + i, v_pack32(quarters));
    }
    nimbus_quantise_f32i8__c(x + i, n - i, scale + i, offset + i, out + i);
}

#ifdef BYTE_MAPS
TARGET void KERNEL(map_i8i8)(const int8_t *x, size_t n, const int8_t *map, int8_t *out)
{
    vec quarters[4];
    UNROLL
    for (size_t q = 0; q < 4; q++)
        quarters[q] = v_load(map + q * LANES);
    for (size_t i = 0; i < n; i += LANES)
        v_store(out + i, v_map8(quarters, v_load(x + i)));
}
#else
/* A table of 256 bytes as 16 of 16; an index outside a table's part adds nothing. */
TARGET void KERNEL(map_i8i8)(const int8_t *x, size_t n, const int8_t *map, int8_t *out)
{
    for (size_t i = 0; i < n; i += LANES) {
        vec index = v_xor(v_load(x + i), v_set8(-128)), mapped = v_zero();
        for (size_t part = 0; part < 16; part++) {
            mapped = v_or(mapped, v_shuffle8_or_zero(v_load_table(map + part * 16), index));
            index = v_sub8(index, v_set8(16));
        }
        v_store(out + i, mapped);
    }
}
#endif
