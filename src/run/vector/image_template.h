/* image_template.h - planes of images: taps of windows, sums and maxima over them, pads, phases
 *
 * Taps are loaded wherever they lie, so that a window needs no copy of what it sees. */

TARGET void KERNEL(pack_taps_u8u8)(const uint8_t *x, const uint32_t *taps, size_t n_taps, size_t n,
                                   uint32_t flip, uint8_t *out, size_t out_stride)
{
    for (size_t t = 0; t < n_taps; t += GROUP, taps += GROUP, out += 4 * out_stride) {
        for (size_t i = 0; i < n; i += LANES) {
            vec column[GROUP];
            UNROLL
            for (size_t j = 0; j < GROUP; j++)
                column[j] = v_load(x + taps[j] + i);
#ifdef PART_BLOCKS
            if (n - i < LANES)
                v_order_rows(column, GROUP);
#endif
            pack_block(column, flip, out + 4 * i);
        }
    }
}

TARGET void KERNEL(dot_taps_i32)(const uint8_t *x, const uint32_t *taps, size_t n_groups,
                                 const void *weights, int32_t bias, uint8_t flip, size_t n,
                                 int32_t *sums)
{
    const vec flips = v_set8((int8_t)flip);
    for (size_t i = 0; i < n; i += LANES) {
        const uint8_t *w = weights;
        vec sum[4];
        UNROLL
        for (size_t q = 0; q < 4; q++)
            sum[q] = v_set32(bias);
        for (size_t g = 0; g < n_groups; g++, w += 4) {
            vec column[GROUP], packed[4], weight = v_load_table32(w);
            UNROLL
            for (size_t j = 0; j < GROUP; j++)
                column[j] = v_load(x + taps[g * GROUP + j] + i);
            zip_block(column, flips, packed);
            UNROLL
            for (size_t q = 0; q < 4; q++)
                sum[q] = v_dot(sum[q], packed[q], weight);
        }
        store_block32(sums + i, sum);
    }
}

TARGET void KERNEL(max_taps_i8i8)(const int8_t *x, const uint32_t *taps, size_t n_taps, size_t n,
                                  int8_t *out)
{
    for (size_t i = 0; i < n; i += LANES) {
        vec most = v_load(x + taps[0] + i);
        for (size_t t = 1; t < n_taps; t++) {
            vec tap = v_load(x + taps[t] + i);
            most = v_select8(v_greater8(tap, most), tap, most);
        }
        v_store(out + i, most);
    }
}

/* Only sums of two can be saturated one addition after the other. */
TARGET void KERNEL(add_i8i8)(const int8_t *const *sources, size_t n_sources, size_t n, int8_t *out)
{
    if (n_sources != 2) {
        nimbus_add_i8i8__c(sources, n_sources, n, out);
        return;
    }
    for (size_t i = 0; i < n; i += LANES)
        v_store(out + i, v_add_saturated8(v_load(sources[0] + i), v_load(sources[1] + i)));
}

TARGET void KERNEL(frame_i8i8)(int8_t *x, const uint8_t *keep, size_t n, int8_t low, int8_t high,
                               int8_t pad)
{
    const vec lows = v_set8(low), highs = v_set8(high), pads = v_set8(pad);
    for (size_t i = 0; i < n; i += LANES) {
        vec value = v_load(x + i);
        value = v_select8(v_greater8(lows, value), lows, value);
        value = v_select8(v_greater8(value, highs), highs, value);
        v_store(x + i, v_xor(pads, v_and(v_xor(value, pads), v_load(keep + i))));
    }
}

TARGET void KERNEL(split_u8u8)(const uint8_t *in, size_t in_stride, size_t n_rows, size_t n,
                               uint8_t *even, uint8_t *odd, size_t out_stride)
{
#ifdef NARROWER
    if (n <= LANES / 2) {
        NARROWER(split_u8u8)(in, in_stride, n_rows, n, even, odd, out_stride);
        return;
    }
#endif
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t i = 0; i < n; i += LANES) {
            const uint8_t *from = in + r * in_stride + 2 * i;
            vec first = v_load(from), second = v_load(from + LANES);
            if (even) /* sign-extended, so that packing keeps the bytes as they are */
                v_store(even + r * out_stride + i,
                        v_pack16(v_shift_right16(v_to_high_byte16(first), 8),
                                 v_shift_right16(v_to_high_byte16(second), 8)));
            if (odd)
                v_store(odd + r * out_stride + i,
                        v_pack16(v_shift_right16(first, 8), v_shift_right16(second, 8)));
        }
    }
}

TARGET void KERNEL(sum_i8i32)(const int8_t *x, size_t stride, size_t n_columns, const uint8_t *keep,
                              size_t n, uint8_t flip, int32_t *sums)
{
    const vec flips = v_set8((int8_t)flip);
    for (size_t c = 0; c < n_columns; c++) {
        vec sum = v_zero();
        uint32_t lanes[LANES / 4], total = 0; /* with flip on the way beyond 31 bits */
        for (size_t i = 0; i < n; i += LANES) {
            vec kept = v_and(v_load(x + c * stride + i), v_load(keep + i));
#if GROUP == 4
            sum = v_dot(sum, v_xor(kept, flips), v_set8(1));
#else
            sum = v_dot(sum, v_widen_low8(kept), v_set16(1));
            sum = v_dot(sum, v_widen_high8(kept), v_set16(1));
#endif
        }
        v_store(lanes, sum);
        UNROLL
        for (size_t l = 0; l < LANES / 4; l++)
            total += lanes[l];
        sums[c] = (int32_t)(total - flip * (uint32_t)((n + LANES - 1) / LANES * LANES));
    }
    (void)flips;
}
