/* add_template.h - one row: the table row of each code, added to the row of sums
 *
 * Bytes are widened as in lookup_template.h, or, where a row has at most half a register of them,
 * as they are loaded. Rows whose entries leave room are added by twos in bytes first. Loads run
 * over the end of a table row into the next one; those elements are never used. */

#define ADD_VECTORS 4 /* columns / LANES that are added together */

/* The codes of this many codebooks are read together: loads are what bounds these kernels. */
#define CODES_AT_ONCE 8

HELPER uint64_t codes_word(const uint8_t *codes)
{
    uint64_t word;
    memcpy(&word, codes, sizeof word);
    return word;
}

/* Where the rows begin that the codes of CODES_AT_ONCE codebooks stand for. */
HELPER void row_offsets(const uint8_t *codes, size_t book, size_t stride,
                        uint32_t offsets[CODES_AT_ONCE])
{
#ifdef ROW_OFFSETS
    v_store(offsets, v_row_offsets(codes, (uint32_t)book, (uint32_t)stride));
#else
    uint64_t word = codes_word(codes);
    UNROLL
    for (size_t j = 0; j < CODES_AT_ONCE; j++, word >>= 8)
        offsets[j] = (uint32_t)(j * book + (word & 255) * stride);
#endif
}

/* How many of n codebooks are added at once: none where offsets would be too large. */
HELPER size_t n_at_once(size_t n, size_t book)
{
    return book <= UINT32_MAX / CODES_AT_ONCE ? n / CODES_AT_ONCE * CODES_AT_ONCE : 0;
}

/* Adds n codebooks for B vectors of columns to sums of 16 bits: out[2b] has the even columns of
 * vector b, out[2b + 1] the odd ones. */
HELPER void add_rows(const nimbus_table *table, const uint8_t *codes, size_t c, size_t n, size_t m,
                     const size_t B, vec out[2 * ADD_VECTORS])
{
    const size_t stride = table->stride, book = table->n_leaves * stride;
    const uint8_t *entries = table->entries + c * book + m;
    vec all[ADD_VECTORS], high[ADD_VECTORS];
    UNROLL
    for (size_t b = 0; b < B; b++) {
        high[b] = out[2 * b + 1];
        all[b] = v_add16(out[2 * b], v_to_high_byte16(high[b]));
    }
    codes += c;
    size_t i = 0;
    for (; table->paired && i + CODES_AT_ONCE <= n; i += CODES_AT_ONCE) {
        uint64_t word = codes_word(codes + i);
        UNROLL
        for (size_t j = 0; j < CODES_AT_ONCE; j += 2, word >>= 16, entries += 2 * book) {
            const uint8_t *first = entries + (word & 255) * stride;
            const uint8_t *second = entries + book + (word >> 8 & 255) * stride;
            UNROLL
            for (size_t b = 0; b < B; b++) {
                vec both = v_now(v_add8(v_load(first + b * LANES), v_load(second + b * LANES)));
                all[b] = v_add16(all[b], both);
                high[b] = v_add_high_byte16(high[b], both);
            }
        }
    }
    /* wider rows keep the processor busy enough, and registers full */
    const size_t at_once = B == 1 ? n_at_once(n, book) : 0;
    for (; i < at_once; i += CODES_AT_ONCE, entries += CODES_AT_ONCE * book) {
        uint32_t at[CODES_AT_ONCE];
        row_offsets(codes + i, book, stride, at);
        UNROLL
        for (size_t j = 0; j < CODES_AT_ONCE; j++) {
            vec entry = v_now(v_load(entries + at[j])); /* once, for both uses */
            all[0] = v_add16(all[0], entry);
            high[0] = v_add_high_byte16(high[0], entry);
        }
    }
    for (; i < n; i++, entries += book) {
        const uint8_t *row = entries + codes[i] * stride;
        UNROLL
        for (size_t b = 0; b < B; b++) {
            vec entry = v_now(v_load(row + b * LANES));
            all[b] = v_add16(all[b], entry);
            high[b] = v_add_high_byte16(high[b], entry);
        }
    }
    UNROLL
    for (size_t b = 0; b < B; b++) {
        out[2 * b] = v_sub16(all[b], v_to_high_byte16(high[b]));
        out[2 * b + 1] = high[b];
    }
}

/* The same for at most LANES / 2 columns, in order. */
HELPER vec add_short_rows(const nimbus_table *table, const uint8_t *codes, size_t c, size_t n)
{
    const size_t stride = table->stride, book = table->n_leaves * stride;
    const uint8_t *entries = table->entries + c * book;
    vec sums[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    const size_t at_once = n_at_once(n, book);
    size_t i = 0;
    codes += c;
    for (; i < at_once; i += CODES_AT_ONCE, entries += CODES_AT_ONCE * book) {
        uint32_t at[CODES_AT_ONCE];
        row_offsets(codes + i, book, stride, at);
        UNROLL
        for (size_t j = 0; j < CODES_AT_ONCE; j++)
            sums[j % 4] = v_add16(sums[j % 4], v_load_wide_u8(entries + at[j]));
    }
    for (; i < n; i++, entries += book)
        sums[0] = v_add16(sums[0], v_load_wide_u8(entries + codes[i] * stride));
    return v_add16(v_add16(sums[0], sums[1]), v_add16(sums[2], sums[3]));
}

#ifdef ROW_QUADS
#define QUAD_SUMS 4 /* as many quads are added side by side: a dot product takes four cycles */

/* 32-bit sums of at most 16 B columns, B being 1 or 2: four rows fill B registers, columns are put
 * side by side and added up by a dot product with ones. */
HELPER void add_quads(const nimbus_table *table, const uint8_t *codes, const size_t B,
                      const int32_t *bias, int32_t *sums)
{
    static const uint8_t none[2 * 16];
    const size_t n = table->n_codebooks, book = table->n_leaves * table->stride;
    const vec ones = v_set8(1);
    const uint8_t *entries = table->entries;
    vec total[QUAD_SUMS][2], quad[2];
    UNROLL
    for (size_t q = 0; q < QUAD_SUMS; q++)
        total[q][0] = total[q][1] = v_zero();
    size_t c = 0;
    for (; c + 4 * QUAD_SUMS <= n; c += 4 * QUAD_SUMS, entries += 4 * QUAD_SUMS * book) {
        uint64_t offsets[2 * QUAD_SUMS]; /* two in each */
        v_store(offsets, v_row_offsets(codes + c, (uint32_t)book, (uint32_t)table->stride));
        UNROLL
        for (size_t q = 0; q < QUAD_SUMS; q++) {
            const uint64_t first = offsets[2 * q], second = offsets[2 * q + 1];
            const uint8_t *const rows[4] = {entries + (uint32_t)first, entries + (first >> 32),
                                            entries + (uint32_t)second, entries + (second >> 32)};
            v_load_quad(rows, B, quad);
            UNROLL
            for (size_t b = 0; b < B; b++)
                total[q][b] = v_dot8(total[q][b], quad[b], ones);
        }
    }
    for (; c < n; c += 4, entries += 4 * book) {
        const uint8_t *rows[4];
        for (size_t j = 0; j < 4; j++)
            rows[j] = c + j < n ? entries + j * book + codes[c + j] * table->stride : none;
        v_load_quad(rows, B, quad);
        UNROLL
        for (size_t b = 0; b < B; b++)
            total[0][b] = v_dot8(total[0][b], quad[b], ones);
    }
    UNROLL
    for (size_t b = 0; b < B; b++) {
        const size_t at = b * (LANES / 4);
        vec all = v_add32(v_add32(total[0][b], total[1][b]), v_add32(total[2][b], total[3][b]));
        v_store(sums + at, v_add32(all, v_load(bias + at)));
    }
}
#endif

HELPER void add_i8(const nimbus_table *table, const uint8_t *codes, size_t m, const size_t B,
                   const int16_t *even, const int16_t *odd, unsigned shift, int8_t *out)
{
    vec sums[2 * ADD_VECTORS];
    UNROLL
    for (size_t b = 0; b < B; b++) {
        const size_t at = m / 2 + b * (LANES / 2);
        sums[2 * b] = v_load(even + at);
        sums[2 * b + 1] = v_load(odd + at);
    }
    add_rows(table, codes, 0, table->n_codebooks, m, B, sums);
    UNROLL
    for (size_t b = 0; b < B; b++)
        v_store(out + m + b * LANES, v_pack16_zipped(v_shift_right16(sums[2 * b], shift),
                                                     v_shift_right16(sums[2 * b + 1], shift)));
}

TARGET void KERNEL(add_u8i8)(const nimbus_table *table, const uint8_t *codes, const int16_t *even,
                             const int16_t *odd, unsigned shift, int8_t *out)
{
    size_t m = 0, M = table->n_outputs;
    if (M <= LANES / 2) {
        vec bias[2];
        v_zip16(v_load(even), v_load(odd), bias);
        vec row = v_add16(bias[0], add_short_rows(table, codes, 0, table->n_codebooks));
        v_store(out, v_pack16(v_shift_right16(row, shift), v_zero()));
        return;
    }
    for (; m + ADD_VECTORS * LANES <= M; m += ADD_VECTORS * LANES)
        add_i8(table, codes, m, ADD_VECTORS, even, odd, shift, out);
    switch ((M - m + LANES - 1) / LANES) {
    case 1:
        add_i8(table, codes, m, 1, even, odd, shift, out);
        break;
    case 2:
        add_i8(table, codes, m, 2, even, odd, shift, out);
        break;
    case 3:
        add_i8(table, codes, m, 3, even, odd, shift, out);
        break;
    case 4:
        add_i8(table, codes, m, 4, even, odd, shift, out);
        break;
    }
}

HELPER void add_i32(const nimbus_table *table, const uint8_t *codes, size_t m, const size_t B,
                    const int32_t *bias, int32_t *sums)
{
    for (size_t i = 0; i < B * LANES; i += LANES / 4)
        v_store(sums + m + i, v_load(bias + m + i));
    for (size_t c = 0; c < table->n_codebooks; c += FLUSH_GROUPS) {
        size_t left = table->n_codebooks - c;
        vec rows[2 * ADD_VECTORS], ordered[2];
        UNROLL
        for (size_t i = 0; i < 2 * B; i++)
            rows[i] = v_zero();
        add_rows(table, codes, c, left < FLUSH_GROUPS ? left : FLUSH_GROUPS, m, B, rows);
        UNROLL
        for (size_t b = 0; b < B; b++) {
            v_zip16(rows[2 * b], rows[2 * b + 1], ordered);
            add_u16_to_i32(sums + m + b * LANES, ordered[0]);
            add_u16_to_i32(sums + m + b * LANES + LANES / 2, ordered[1]);
        }
    }
}

TARGET void KERNEL(add_u8i32)(const nimbus_table *table, const uint8_t *codes, const int32_t *bias,
                              int32_t *sums)
{
    size_t m = 0, M = table->n_outputs;
#ifdef ROW_QUADS
    if (M <= 16) {
        add_quads(table, codes, 1, bias, sums);
        return;
    }
    if (M <= 32) {
        add_quads(table, codes, 2, bias, sums);
        return;
    }
#endif
    if (M <= LANES / 2) {
        for (size_t i = 0; i < LANES / 2; i += LANES / 4)
            v_store(sums + i, v_load(bias + i));
        for (size_t c = 0; c < table->n_codebooks; c += FLUSH_GROUPS) {
            size_t left = table->n_codebooks - c;
            add_u16_to_i32(
                sums, add_short_rows(table, codes, c, left < FLUSH_GROUPS ? left : FLUSH_GROUPS));
        }
        return;
    }
    for (; m + ADD_VECTORS * LANES <= M; m += ADD_VECTORS * LANES)
        add_i32(table, codes, m, ADD_VECTORS, bias, sums);
    for (; m < M; m += LANES)
        add_i32(table, codes, m, 1, bias, sums);
}
