/* lookup_template.h - table entries of many rows, added up: y[m] = bias + sum over c of T[c][code]
 *
 * Included once per size of table: LOOKUP(x) names the kernel x, and functions here; TABLE (a
 * type), TABLE_BYTES, LOAD_TABLE and SHUFFLE say how entries are looked up, one for each row of a
 * vector.
 *
 * Entries of a group of codebooks are added in bytes, which cannot overflow (nimbus_tile). The
 * sums of bytes are widened without unpacking: seen as 16-bit numbers, `all` adds both bytes at
 * once and `high` the upper ones alone, so that the sums of the lower ones are all - (high << 8).
 * Both count modulo 2^16, which is exact if the final sum fits 16 bits; else they are added to
 * 32-bit sums before FLUSH_GROUPS groups of up to 255 could overflow them. */

#ifndef FLUSH_GROUPS
#define FLUSH_GROUPS 256

/* Two vectors of rows and the outputs of a tile under way. */
typedef struct lookup_sums {
    vec all[TILE][2], high[TILE][2];
} lookup_sums;

/* What comes next: tables, and the codes of their codebooks, which are found by `order` if the tile
 * has one; else `codes` goes from column to column. */
typedef struct lookup_place {
    const uint8_t *tables, *codes;
    const uint32_t *order;
    size_t stride;
} lookup_place;

/* Makes all sums of output t this number, modulo 2^16. */
HELPER void set_sums(lookup_sums *sums, const size_t t, int32_t number)
{
    const vec high = v_set16(number), all = v_add16(high, v_to_high_byte16(high));
    sums->all[t][0] = sums->all[t][1] = all;
    sums->high[t][0] = sums->high[t][1] = high;
}

/* The sums of output t and vector v for even rows and for odd ones. */
HELPER vec even_sums(const lookup_sums *sums, const size_t t, const size_t v)
{
    return v_sub16(sums->all[t][v], v_to_high_byte16(sums->high[t][v]));
}

HELPER vec odd_sums(const lookup_sums *sums, const size_t t, const size_t v)
{
    return sums->high[t][v];
}

/* sums[0..LANES/2-1] += the u16 of a. */
HELPER void add_u16_to_i32(int32_t *sums, vec a)
{
    vec wide[2];
    v_widen_u16(a, wide);
    v_store(sums, v_add32(v_load(sums), wide[0]));
    v_store(sums + LANES / 4, v_add32(v_load(sums + LANES / 4), wide[1]));
}

/* The codes of the next codebook. */
HELPER const uint8_t *next_codes(lookup_place *at, const bool ordered)
{
    const uint8_t *codes = at->codes;
    if (ordered)
        return codes + *at->order++ * at->stride;
    at->codes += at->stride;
    return codes;
}
#endif

/* Adds n groups of `size` codebooks for R vectors of rows. Codes are loaded into registers once:
 * compilers would have every shuffle load them again, and loads are scarce. */
HELPER void LOOKUP(add_groups)(lookup_sums *sums, const size_t size, const size_t R,
                               const bool ordered, size_t n, lookup_place *at)
{
    lookup_sums s = *sums;
    lookup_place p = *at;
    for (; n; n--) {
        vec group[TILE][2];
        UNROLL
        for (size_t i = 0; i < size; i++) {
            const uint8_t *codes = next_codes(&p, ordered);
            vec code_of[2] = {v_now(v_load(codes)),
                              R > 1 ? v_now(v_load(codes + LANES)) : v_zero()};
            UNROLL
            for (size_t t = 0; t < TILE; t++) {
                TABLE table = LOAD_TABLE(p.tables + (i * TILE + t) * TABLE_BYTES);
                UNROLL
                for (size_t v = 0; v < R; v++) {
                    vec entry = SHUFFLE(table, code_of[v]);
                    group[t][v] = v_now(i ? v_add8(group[t][v], entry) : entry);
                }
            }
        }
        UNROLL
        for (size_t t = 0; t < TILE; t++) {
            UNROLL
            for (size_t v = 0; v < R; v++) {
                s.all[t][v] = v_now(v_add16(s.all[t][v], group[t][v]));
                s.high[t][v] = v_now(v_add_high_byte16(s.high[t][v], group[t][v]));
            }
        }
        p.tables += size * TILE * TABLE_BYTES;
    }
    *sums = s;
    *at = p;
}

/* n groups of the size that is number g of NIMBUS_GROUP_SIZES. */
HELPER void LOOKUP(add_groups_of)(lookup_sums *sums, size_t g, const size_t R, const bool ordered,
                                  size_t n, lookup_place *at)
{
    switch (g) {
    case 0:
        LOOKUP(add_groups)(sums, 8, R, ordered, n, at);
        break;
    case 1:
        LOOKUP(add_groups)(sums, 4, R, ordered, n, at);
        break;
    case 2:
        LOOKUP(add_groups)(sums, 2, R, ordered, n, at);
        break;
    default:
        LOOKUP(add_groups)(sums, 1, R, ordered, n, at);
    }
}

HELPER void LOOKUP(lookup_i8)(const nimbus_tile *tile, const size_t R, const bool ordered,
                              const uint8_t *codes, size_t stride, unsigned shift, int8_t *out,
                              size_t out_stride)
{
    lookup_place at = {tile->tables, codes, tile->order, stride};
    lookup_sums sums;
    UNROLL
    for (size_t t = 0; t < TILE; t++)
        set_sums(&sums, t, tile->bias[t]);
    UNROLL
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++)
        LOOKUP(add_groups_of)(&sums, g, R, ordered, tile->n_groups[g], &at);
    UNROLL
    for (size_t t = 0; t < TILE; t++) {
        UNROLL
        for (size_t v = 0; v < R; v++) {
            vec even = v_shift_right16(even_sums(&sums, t, v), shift);
            vec odd = v_shift_right16(odd_sums(&sums, t, v), shift);
            v_store(out + t * out_stride + v * LANES, v_pack16_zipped(even, odd));
        }
    }
}

HELPER void LOOKUP(lookup_rows_i8)(const nimbus_tile *tile, const bool ordered,
                                   const uint8_t *codes, size_t stride, size_t n, unsigned shift,
                                   int8_t *out, size_t out_stride)
{
    size_t r = 0;
    for (; r + 2 * LANES <= n; r += 2 * LANES)
        LOOKUP(lookup_i8)(tile, 2, ordered, codes + r, stride, shift, out + r, out_stride);
    for (; r < n; r += LANES)
        LOOKUP(lookup_i8)(tile, 1, ordered, codes + r, stride, shift, out + r, out_stride);
}

TARGET void KERNEL(LOOKUP(u8i8))(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                                 size_t n, unsigned shift, int8_t *out, size_t out_stride)
{
    if (tile->order)
        LOOKUP(lookup_rows_i8)(tile, true, codes, stride, n, shift, out, out_stride);
    else
        LOOKUP(lookup_rows_i8)(tile, false, codes, stride, n, shift, out, out_stride);
}

HELPER void LOOKUP(lookup_i32)(const nimbus_tile *tile, const size_t R, const bool ordered,
                               const uint8_t *codes, size_t stride, int32_t *out, size_t out_stride)
{
    lookup_place at = {tile->tables, codes, tile->order, stride};
    for (size_t t = 0; t < TILE; t++)
        for (size_t i = 0; i < R * LANES; i += LANES / 4)
            v_store(out + t * out_stride + i, v_set32(tile->bias[t]));
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        for (size_t left = tile->n_groups[g]; left;) {
            size_t n_groups = left < FLUSH_GROUPS ? left : FLUSH_GROUPS;
            lookup_sums sums;
            UNROLL
            for (size_t t = 0; t < TILE; t++)
                set_sums(&sums, t, 0);
            LOOKUP(add_groups_of)(&sums, g, R, ordered, n_groups, &at);
            UNROLL
            for (size_t t = 0; t < TILE; t++) {
                UNROLL
                for (size_t v = 0; v < R; v++) {
                    vec in_order[2];
                    v_zip16(even_sums(&sums, t, v), odd_sums(&sums, t, v), in_order);
                    add_u16_to_i32(out + t * out_stride + v * LANES, in_order[0]);
                    add_u16_to_i32(out + t * out_stride + v * LANES + LANES / 2, in_order[1]);
                }
            }
            left -= n_groups;
        }
    }
}

HELPER void LOOKUP(lookup_rows_i32)(const nimbus_tile *tile, const bool ordered,
                                    const uint8_t *codes, size_t stride, size_t n, int32_t *sums,
                                    size_t sums_stride)
{
    size_t r = 0;
    for (; r + 2 * LANES <= n; r += 2 * LANES)
        LOOKUP(lookup_i32)(tile, 2, ordered, codes + r, stride, sums + r, sums_stride);
    for (; r < n; r += LANES)
        LOOKUP(lookup_i32)(tile, 1, ordered, codes + r, stride, sums + r, sums_stride);
}

TARGET void KERNEL(LOOKUP(u8i32))(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                                  size_t n, int32_t *sums, size_t sums_stride)
{
    if (tile->order)
        LOOKUP(lookup_rows_i32)(tile, true, codes, stride, n, sums, sums_stride);
    else
        LOOKUP(lookup_rows_i32)(tile, false, codes, stride, n, sums, sums_stride);
}

HELPER void LOOKUP(lookup_rounded)(const nimbus_tile *tile, const size_t R, const bool ordered,
                                   const uint8_t *codes, size_t stride,
                                   const nimbus_rounding *rounding, size_t m, int8_t *out,
                                   size_t out_stride)
{
    int32_t sums[TILE * 2 * LANES];
    LOOKUP(lookup_i32)(tile, R, ordered, codes, stride, sums, 2 * LANES);
    for (size_t t = 0; t < TILE; t++) {
        for (size_t v = 0; v < R; v++) {
            const int32_t *at = sums + (2 * t + v) * LANES;
            vec quarters[4];
            UNROLL
            for (size_t q = 0; q < 4; q++)
                quarters[q] = rounded(v_load(at + q * (LANES / 4)), rounding, m + t);
            v_store(out + t * out_stride + v * LANES, v_pack32(quarters));
        }
    }
}

HELPER void LOOKUP(lookup_rows_rounded)(const nimbus_tile *tile, const bool ordered,
                                        const uint8_t *codes, size_t stride, size_t n,
                                        const nimbus_rounding *rounding, size_t m, int8_t *out,
                                        size_t out_stride)
{
    size_t r = 0;
    for (; r + 2 * LANES <= n; r += 2 * LANES)
        LOOKUP(lookup_rounded)
    (tile, 2, ordered, codes + r, stride, rounding, m, out + r, out_stride);
    for (; r < n; r += LANES)
        LOOKUP(lookup_rounded)
    (tile, 1, ordered, codes + r, stride, rounding, m, out + r, out_stride);
}

TARGET void KERNEL(LOOKUP(rounded_u8i8))(const nimbus_tile *tile, const uint8_t *codes,
                                         size_t stride, size_t n, const nimbus_rounding *rounding,
                                         size_t m, int8_t *out, size_t out_stride)
{
    if (tile->order)
        LOOKUP(lookup_rows_rounded)(tile, true, codes, stride, n, rounding, m, out, out_stride);
    else
        LOOKUP(lookup_rows_rounded)(tile, false, codes, stride, n, rounding, m, out, out_stride);
}

#undef LOOKUP
#undef TABLE
#undef TABLE_BYTES
#undef LOAD_TABLE
#undef SHUFFLE
