/* round_template.h - sums in registers to i8 */

/* Multiplied, then added: never fused, or the bits would depend on the CPU. */
HELPER vec_f32 scaled(vec_f32 x, vec_f32 scale, vec_f32 offset)
{
    return v_add_f32(v_multiply_f32(x, scale), offset);
}

/* Sums of output m, to be saturated. Scales and offsets are finite, so that none of them is NaN. */
HELPER vec rounded(vec sums, const nimbus_rounding *r, size_t m)
{
    if (r->scale)
        return v_round(scaled(v_from_i32(sums), v_set_f32(r->scale[m]), v_set_f32(r->offset[m])));
    return v_shift_right32(sums, r->shift);
}

/* Sums as zip_block leaves them to bytes in their order. */
HELPER vec round_block(const vec sums[4], const nimbus_rounding *r, size_t m)
{
    vec low = v_pack32_halves(rounded(sums[0], r, m), rounded(sums[1], r, m));
    vec high = v_pack32_halves(rounded(sums[2], r, m), rounded(sums[3], r, m));
    return v_pack16_halves(low, high);
}

/* R vectors of rows of a part block, in their order. */
#ifdef PART_BLOCKS
HELPER void store_part_rounded(const vec sums[4], const size_t R, const nimbus_rounding *r,
                               size_t m, int8_t *out)
{
    UNROLL
    for (size_t g = 0; g < R; g++)
        v_store_narrow32(out + g * (LANES / 4), rounded(sums[g], r, m));
}
#endif
