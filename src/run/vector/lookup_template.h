/* lookup_template.h - table entries of many rows, added up: y[m] = bias + sum over c of T[c][code]
 *
 * A table of 16 entries fills a register; a shuffle looks up one entry for each row of a vector.
 * Entries of a group of codebooks are added in bytes, which cannot overflow (nimbus_tile). The
 * sums of bytes are widened without unpacking: seen as 16-bit numbers, `all` adds both bytes at
 * once and `high` the upper ones alone, so that the sums of the lower ones are all - (high << 8).
 * Both count modulo 2^16, which is exact if the final sum fits 16 bits; else they are added to
 * 32-bit sums before FLUSH_GROUPS groups of up to 255 could overflow them. */

#define FLUSH_GROUPS 256

/* Two vectors of rows and the outputs of a tile under way. */
typedef struct lookup_sums {
    vec all[NIMBUS_TILE][2], high[NIMBUS_TILE][2];
} lookup_sums;

/* Adds n groups of `size` codebooks for R vectors of rows from row r on. */
HELPER void add_groups(lookup_sums *sums, const size_t size, const size_t R, size_t n,
                       const uint8_t *tables, const uint32_t *order, const uint8_t *codes,
                       size_t stride)
{
    lookup_sums s = *sums;
    for (; n; n--) {
        vec group[NIMBUS_TILE][2];
        UNROLL
        for (size_t i = 0; i < size; i++) {
            const uint8_t *code = codes + order[i] * stride;
            vec code_of[2] = {v_load(code), R > 1 ? v_load(code + LANES) : v_zero()};
            UNROLL
            for (size_t t = 0; t < NIMBUS_TILE; t++) {
                vec table = v_load_table(tables + (i * NIMBUS_TILE + t) * 16);
                UNROLL
                for (size_t v = 0; v < R; v++) {
                    vec entry = v_shuffle8(table, code_of[v]);
                    group[t][v] = v_now(i ? v_add8(group[t][v], entry) : entry);
                }
            }
        }
        UNROLL
        for (size_t t = 0; t < NIMBUS_TILE; t++) {
            UNROLL
            for (size_t v = 0; v < R; v++) {
                s.all[t][v] = v_add16(s.all[t][v], group[t][v]);
                s.high[t][v] = v_add16(s.high[t][v], v_high_byte16(group[t][v]));
            }
        }
        tables += size * NIMBUS_TILE * 16;
        order += size;
    }
    *sums = s;
}

HELPER void add_groups_of(lookup_sums *sums, size_t g, const size_t R, size_t n,
                          const uint8_t *tables, const uint32_t *order, const uint8_t *codes,
                          size_t stride)
{
    switch (g) {
    case 0:
        add_groups(sums, 8, R, n, tables, order, codes, stride);
        break;
    case 1:
        add_groups(sums, 4, R, n, tables, order, codes, stride);
        break;
    case 2:
        add_groups(sums, 2, R, n, tables, order, codes, stride);
        break;
    default:
        add_groups(sums, 1, R, n, tables, order, codes, stride);
    }
}

HELPER void clear_sums(lookup_sums *sums)
{
    UNROLL
    for (size_t t = 0; t < NIMBUS_TILE; t++)
        sums->all[t][0] = sums->all[t][1] = sums->high[t][0] = sums->high[t][1] = v_zero();
}

/* The 16-bit sums of output t and vector v in the order of the rows. */
HELPER void ordered_sums(const lookup_sums *sums, const size_t t, const size_t v, vec out[2])
{
    vec high = sums->high[t][v];
    v_zip16(v_sub16(sums->all[t][v], v_to_high_byte16(high)), high, out);
}

HELPER void lookup_i16(const nimbus_tile *tile, const size_t R, const uint8_t *codes, size_t stride,
                       size_t n, int16_t *out)
{
    const uint8_t *tables = tile->tables;
    const uint32_t *order = tile->order;
    lookup_sums sums;
    clear_sums(&sums);
    UNROLL
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        size_t n_codebooks = (size_t)tile->n_groups[g] << (NIMBUS_GROUP_SIZES - 1 - g);
        add_groups_of(&sums, g, R, tile->n_groups[g], tables, order, codes, stride);
        tables += n_codebooks * NIMBUS_TILE * 16;
        order += n_codebooks;
    }
    UNROLL
    for (size_t t = 0; t < NIMBUS_TILE; t++) {
        const vec bias = v_set16(tile->bias[t]);
        UNROLL
        for (size_t v = 0; v < R; v++) {
            vec ordered[2];
            ordered_sums(&sums, t, v, ordered);
            v_store(out + t * n + v * LANES, v_add16(ordered[0], bias));
            v_store(out + t * n + v * LANES + LANES / 2, v_add16(ordered[1], bias));
        }
    }
}

TARGET void KERNEL(lookup_u8i16)(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                                 size_t n, int16_t *sums)
{
    size_t r = 0;
    for (; r + 2 * LANES <= n; r += 2 * LANES)
        lookup_i16(tile, 2, codes + r, stride, n, sums + r);
    for (; r < n; r += LANES)
        lookup_i16(tile, 1, codes + r, stride, n, sums + r);
}

/* sums[0..LANES/2-1] += the u16 of a. */
HELPER void add_u16_to_i32(int32_t *sums, vec a)
{
    vec wide[2];
    v_widen_u16(a, wide);
    v_store(sums, v_add32(v_load(sums), wide[0]));
    v_store(sums + LANES / 4, v_add32(v_load(sums + LANES / 4), wide[1]));
}

HELPER void lookup_i32(const nimbus_tile *tile, const size_t R, const uint8_t *codes, size_t stride,
                       size_t n, int32_t *out)
{
    const uint8_t *tables = tile->tables;
    const uint32_t *order = tile->order;
    for (size_t t = 0; t < NIMBUS_TILE; t++)
        for (size_t i = 0; i < R * LANES; i += LANES / 4)
            v_store(out + t * n + i, v_set32(tile->bias[t]));
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        for (size_t left = tile->n_groups[g]; left;) {
            size_t n_groups = left < FLUSH_GROUPS ? left : FLUSH_GROUPS;
            size_t n_codebooks = n_groups << (NIMBUS_GROUP_SIZES - 1 - g);
            lookup_sums sums;
            clear_sums(&sums);
            add_groups_of(&sums, g, R, n_groups, tables, order, codes, stride);
            UNROLL
            for (size_t t = 0; t < NIMBUS_TILE; t++) {
                UNROLL
                for (size_t v = 0; v < R; v++) {
                    vec ordered[2];
                    ordered_sums(&sums, t, v, ordered);
                    add_u16_to_i32(out + t * n + v * LANES, ordered[0]);
                    add_u16_to_i32(out + t * n + v * LANES + LANES / 2, ordered[1]);
                }
            }
            tables += n_codebooks * NIMBUS_TILE * 16;
            order += n_codebooks;
            left -= n_groups;
        }
    }
}

TARGET void KERNEL(lookup_u8i32)(const nimbus_tile *tile, const uint8_t *codes, size_t stride,
                                 size_t n, int32_t *sums)
{
    size_t r = 0;
    for (; r + 2 * LANES <= n; r += 2 * LANES)
        lookup_i32(tile, 2, codes + r, stride, n, sums + r);
    for (; r < n; r += LANES)
        lookup_i32(tile, 1, codes + r, stride, n, sums + r);
}
