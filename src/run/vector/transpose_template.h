/* transpose_template.h - rows to columns, of bytes and of f32
 *
 * 16 bytes of LANES rows at a time: vector i gets those of rows i, 16 + i, ..., so that four rounds
 * of zipping within each 16 bytes leave in vector i byte i of all rows in their order. Where few
 * bytes are wanted, shuffles pick them of four rows each into one vector, and two rounds of zipping
 * remain. */

/* Rows of a block: n of them, fewer than LANES at the end of all. Row i of every 16 is loaded
 * together: of the first 16, the second, ...; where the last of these are not all there, the last
 * 16 rows stand in for them, and are stored where they belong, once more. */
typedef struct row_block {
    const uint8_t *in;
    size_t in_stride, n;
    size_t parts[LANES / 16]; /* bytes from row i to the row loaded into part p */
} row_block;

HELPER row_block block_of_rows(const uint8_t *in, size_t in_stride, size_t n)
{
    row_block block = {in, in_stride, n, {0}};
    UNROLL
    for (size_t p = 1; p < LANES / 16; p++)
        block.parts[p] = (16 * p + 16 <= n ? 16 * p : n - 16) * in_stride;
    return block;
}

/* The row after row i; the last one of fewer than 16 stands in for those that would follow.
 * Compilers would rather compute the addresses of all rows at once, for which there are not
 * registers enough. */
HELPER const uint8_t *next_row(const row_block *block, const bool few_rows, const uint8_t *row,
                               size_t i)
{
    if (!few_rows || i + 1 < block->n)
        row += block->in_stride;
    __asm__("" : "+r"(row));
    return row;
}

/* Stores a column of a block of rows. */
HELPER void store_column(const row_block *block, const bool whole, uint8_t *out, vec a)
{
    v_store(out, a);
    if (!whole && LANES > 16)
        v_store_part(out + block->n - 16, a, LANES / 16 - 1);
}

/* One round: after four, vector i holds byte i of all 16. */
HELPER void zip_round(const vec in[16], vec out[16])
{
    UNROLL
    for (size_t i = 0; i < 8; i++) {
        out[2 * i] = v_zip_low8(in[i], in[i + 8]);
        out[2 * i + 1] = v_zip_high8(in[i], in[i + 8]);
    }
}

HELPER void zip_and_store(const row_block *block, const bool whole, vec a[16], uint8_t *out,
                          size_t out_stride)
{
    vec b[16];
    zip_round(a, b);
    zip_round(b, a);
    zip_round(a, b);
    zip_round(b, a);
    UNROLL
    for (size_t i = 0; i < 16; i++)
        store_column(block, whole, out + i * out_stride, a[i]);
}

/* All bytes of a part. */
HELPER void transpose_all(const row_block *block, const bool whole, size_t first, vec flip,
                          uint8_t *out, size_t out_stride)
{
    const uint8_t *in = block->in + first;
    vec a[16];
    UNROLL
    for (size_t i = 0; i < 16; i++) {
        a[i] = v_xor(flip, v_load_parts(in, block->parts));
        in = next_row(block, !whole && LANES == 16, in, i);
    }
    zip_and_store(block, whole, a, out, out_stride);
}

/* Within every 16 bytes: number i of 32 bits of all four, as vector i. */
HELPER void zip_four(vec a[4])
{
    const vec low01 = v_zip_low32(a[0], a[1]), high01 = v_zip_high32(a[0], a[1]);
    const vec low23 = v_zip_low32(a[2], a[3]), high23 = v_zip_high32(a[2], a[3]);
    a[0] = v_zip_low64(low01, low23);
    a[1] = v_zip_high64(low01, low23);
    a[2] = v_zip_low64(high01, high23);
    a[3] = v_zip_high64(high01, high23);
}

/* Few of them. */
HELPER void transpose_few(const row_block *block, const bool whole, const nimbus_part *part,
                          vec flip, uint8_t *out, size_t out_stride)
{
    const uint8_t *in = block->in + part->first;
    vec selector[4], four[4]; /* four[k]: of rows 4k .. 4k + 3 of 16, byte q in 32 bits q */
    UNROLL
    for (size_t j = 0; j < 4; j++)
        selector[j] = v_load_table(part->selectors[j]);
    UNROLL
    for (size_t k = 0; k < 4; k++) {
        four[k] = flip;
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            vec rows = v_load_parts(in, block->parts);
            four[k] = v_xor(four[k], v_shuffle8(rows, selector[j]));
            in = next_row(block, !whole && LANES == 16, in, 4 * k + j);
        }
    }
    zip_four(four);
    UNROLL
    for (size_t i = 0; i < 4; i++)
        store_column(block, whole, out + i * out_stride, four[i]);
}

HELPER void transpose_parts(const row_block *block, const bool whole, const nimbus_part *parts,
                            size_t n_parts, vec flip, uint8_t *out, size_t out_stride)
{
    for (size_t p = 0; p < n_parts; p++) {
        const nimbus_part *part = parts ? &parts[p] : NULL;
        uint8_t *to = out + (part ? part->out : p * 16) * out_stride;
        if (part && part->few)
            transpose_few(block, whole, part, flip, to, out_stride);
        else
            transpose_all(block, whole, part ? part->first : p * 16, flip, to, out_stride);
    }
}

TARGET void KERNEL(transpose_u8u8)(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                                   const nimbus_part *parts, size_t n_parts, uint8_t flip,
                                   uint8_t *out, size_t out_stride)
{
    const vec flips = v_set8((int8_t)flip);
    if (width < 16) {
        nimbus_transpose_u8u8__c(in, in_stride, width, n_rows, parts, n_parts, flip, out,
                                 out_stride);
        return;
    }
    for (size_t r = 0; r < n_rows; r += LANES) {
#ifdef NARROWER
        if (n_rows - r <= LANES / 2) {
            NARROWER(transpose_u8u8)
            (in + r * in_stride, in_stride, width, n_rows - r, parts, n_parts, flip, out + r,
             out_stride);
            return;
        }
#endif
        const size_t n = n_rows - r < LANES ? n_rows - r : LANES;
        const row_block block = block_of_rows(in + r * in_stride, in_stride, n);
        if (n == LANES)
            transpose_parts(&block, true, parts, n_parts, flips, out + r, out_stride);
        else
            transpose_parts(&block, false, parts, n_parts, flips, out + r, out_stride);
    }
}

/* LANES / 4 rows at a time: vector k gets 4 elements of rows k, 4 + k, ..., so that two rounds of
 * zipping within each 16 bytes leave an element of all rows in their order. */
TARGET void KERNEL(transpose_f32)(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                                  const uint32_t *first, size_t n_parts, float *out)
{
    if (width < 4) {
        nimbus_transpose_f32__c(in, in_stride, width, n_rows, first, n_parts, out);
        return;
    }
    const size_t end = n_rows < NIMBUS_PAD ? nimbus_rounded_up(n_rows, LANES) : NIMBUS_PAD;
    for (size_t r = 0; r < end; r += LANES / 4) {
        size_t at[4][LANES / 16];
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            UNROLL
            for (size_t l = 0; l < LANES / 16; l++) {
                const size_t row = r + 4 * l + k;
                at[k][l] = (row < n_rows ? row : n_rows - 1) * in_stride;
            }
        }
        for (size_t p = 0; p < n_parts; p++) {
            float *to = out + 4 * p * NIMBUS_PAD + r;
            vec a[4];
            UNROLL
            for (size_t k = 0; k < 4; k++)
                a[k] = v_load_parts(in + first[p] * sizeof *out, at[k]);
            zip_four(a);
            UNROLL
            for (size_t i = 0; i < 4; i++)
                v_store(to + i * NIMBUS_PAD, a[i]);
        }
    }
}
