/* pack_template.h - columns side by side in groups that fill 32 bits, and sums in that order
 *
 * Packing zips columns within each 16 bytes of a block of LANES rows, which leaves the rows of 16
 * bytes l in four vectors: vector g has rows 16 l + 4 g .. 16 l + 4 g + 3 of every l. Sums made
 * from such vectors come out in that order, and packing them to bytes undoes it. */

/* Four vectors of 32-bit sums of a block of rows, stored in the order of the rows. */
HELPER void store_block32(int32_t *out, const vec sums[4])
{
    UNROLL
    for (size_t l = 0; l < LANES / 16; l++) {
        UNROLL
        for (size_t g = 0; g < 4; g++)
            v_store_part(out + 16 * l + 4 * g, sums[g], l);
    }
}

/* The columns of a group for LANES rows side by side, as four vectors. */
HELPER void zip_block(const vec column[GROUP], vec flips, vec out[4])
{
#if GROUP == 4
    vec low01 = v_zip_low8(column[0], column[1]), high01 = v_zip_high8(column[0], column[1]);
    vec low23 = v_zip_low8(column[2], column[3]), high23 = v_zip_high8(column[2], column[3]);
    out[0] = v_xor(flips, v_zip_low16(low01, low23));
    out[1] = v_xor(flips, v_zip_high16(low01, low23));
    out[2] = v_xor(flips, v_zip_low16(high01, high23));
    out[3] = v_xor(flips, v_zip_high16(high01, high23));
#else
    vec low = v_zip_low8(column[0], column[1]), high = v_zip_high8(column[0], column[1]);
    (void)flips;
    out[0] = v_widen_low8(low);
    out[1] = v_widen_high8(low);
    out[2] = v_widen_low8(high);
    out[3] = v_widen_high8(high);
#endif
}

HELPER void pack_block(const vec column[GROUP], uint32_t flip, uint8_t *out)
{
    vec packed[4];
    zip_block(column, v_set32((int32_t)flip), packed);
    UNROLL
    for (size_t i = 0; i < 4; i++)
        v_store(out + i * LANES, packed[i]);
}

TARGET void KERNEL(pack_u8u8)(const uint8_t *columns, size_t stride, size_t n, size_t n_columns,
                              uint32_t flip, uint8_t *out, size_t out_stride)
{
    for (size_t c = 0; c < n_columns;
         c += GROUP, columns += GROUP * stride, out += 4 * out_stride) {
        for (size_t r = 0; r < n; r += LANES) {
            vec column[GROUP];
            UNROLL
            for (size_t i = 0; i < GROUP; i++)
                column[i] = c + i < n_columns ? v_load(columns + i * stride + r) : v_zero();
#ifdef PART_BLOCKS
            if (n - r < LANES)
                v_order_rows(column, GROUP);
#endif
            pack_block(column, flip, out + 4 * r);
        }
    }
}
