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

/* The sums of LANES positions, as zip_block leaves them. */
HELPER void dot_taps(const uint8_t *x, const uint32_t *taps, size_t n_groups, const uint8_t *w,
                     int32_t bias, vec flips, vec sums[4])
{
    UNROLL
    for (size_t q = 0; q < 4; q++)
        sums[q] = v_set32(bias);
    for (size_t g = 0; g < n_groups; g++, w += 4, taps += GROUP) {
        vec column[GROUP], packed[4], weight = v_load_table32(w);
        UNROLL
        for (size_t j = 0; j < GROUP; j++)
            column[j] = v_load(x + taps[j]);
        zip_block(column, flips, packed);
        UNROLL
        for (size_t q = 0; q < 4; q++)
            sums[q] = v_dot(sums[q], packed[q], weight);
    }
}

TARGET void KERNEL(dot_taps_i32)(const uint8_t *x, const uint32_t *taps, size_t n_groups,
                                 const void *weights, int32_t bias, uint8_t flip, size_t n,
                                 int32_t *sums)
{
    const vec flips = v_set8((int8_t)flip);
    for (size_t i = 0; i < n; i += LANES) {
        vec sum[4];
        dot_taps(x + i, taps, n_groups, weights, bias, flips, sum);
        store_block32(sums + i, sum);
    }
}

TARGET void KERNEL(dot_taps_i8)(const uint8_t *x, const uint32_t *taps, size_t n_groups,
                                const void *weights, int32_t bias, uint8_t flip, size_t n,
                                const nimbus_rounding *rounding, int8_t *out)
{
    const vec flips = v_set8((int8_t)flip);
    for (size_t i = 0; i < n; i += LANES) {
        vec sums[4];
        dot_taps(x + i, taps, n_groups, weights, bias, flips, sums);
        v_store(out + i, round_block(sums, rounding, 0));
    }
}

#ifdef PART_BLOCKS
HELPER void dot_part_i8(const nimbus_weights *weights, size_t m, const size_t R, const uint8_t *x,
                        size_t stride, const nimbus_rounding *rounding, int8_t *out,
                        size_t out_stride)
{
    vec sums[TILE][4];
    dot_block(weights, m, R, x, stride, sums);
    UNROLL
    for (size_t t = 0; t < TILE; t++)
        store_part_rounded(sums[t], R, rounding, m + t, out + t * out_stride);
}
#endif

TARGET void KERNEL(dot_columns_i8)(const nimbus_weights *weights, size_t m, const uint8_t *x,
                                   size_t stride, size_t n, const nimbus_rounding *rounding,
                                   int8_t *out, size_t out_stride)
{
    size_t r = 0;
    for (; r + LANES <= n; r += LANES) {
        vec sums[TILE][4];
        dot_block(weights, m, 4, x + 4 * r, stride, sums);
        UNROLL
        for (size_t t = 0; t < TILE; t++)
            v_store(out + t * out_stride + r, round_block(sums[t], rounding, m + t));
    }
#ifdef PART_BLOCKS
    x += 4 * r;
    out += r;
    switch ((n - r) / BLOCK) {
    case 1:
        dot_part_i8(weights, m, 1, x, stride, rounding, out, out_stride);
        break;
    case 2:
        dot_part_i8(weights, m, 2, x, stride, rounding, out, out_stride);
        break;
    case 3:
        dot_part_i8(weights, m, 3, x, stride, rounding, out, out_stride);
        break;
    }
#endif
}

TARGET void KERNEL(max_taps_i8i8)(const int8_t *x, const uint32_t *taps, size_t n_taps, size_t n,
                                  int8_t *out)
{
    for (size_t i = 0; i < n; i += LANES) {
        vec most = v_load(x + taps[0] + i);
        for (size_t t = 1; t < n_taps; t++) {
            most = v_max8(most, v_load(x + taps[t] + i));
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

TARGET void KERNEL(frame_i8i8)(int8_t *x, size_t stride, size_t n_planes, const uint8_t *keep,
                               size_t n, int8_t low, int8_t high, const int8_t *pads)
{
    const vec lows = v_set8(low), highs = v_set8(high);
    for (size_t c = 0; c < n_planes; c++, x += stride) {
        const vec pad = v_set8(pads ? pads[c] : 0);
        for (size_t i = 0; i < n; i += LANES) {
            vec value = v_min8(v_max8(v_load(x + i), lows), highs);
            v_store(x + i, v_xor(pad, v_and(v_xor(value, pad), v_load(keep + i))));
        }
    }
}

TARGET void KERNEL(split_u8u8)(const uint8_t *in, size_t in_plane, size_t n_planes,
                               size_t in_stride, size_t n_rows, size_t n, uint8_t *even,
                               uint8_t *odd, size_t out_plane, size_t out_stride)
{
    for (size_t c = 0; c < n_planes; c++) {
        for (size_t r = 0; r < n_rows; r++) {
            const uint8_t *row = in + c * in_plane + r * in_stride;
            const size_t to = c * out_plane + r * out_stride;
            for (size_t i = 0; i < n; i += LANES / 2) {
                vec both = v_unzip8(v_load(row + 2 * i));
                v_store_half(even + to + i, both, 0);
                if (odd)
                    v_store_half(odd + to + i, both, 1);
            }
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
