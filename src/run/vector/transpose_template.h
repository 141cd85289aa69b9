/* transpose_template.h - bytes of rows to bytes of columns
 *
 * 16 bytes of LANES rows at a time: vector i gets those of rows i, 16 + i, ..., so that four rounds
 * of zipping within each 16 bytes leave in vector i byte i of all rows in their order. Where few
 * bytes are wanted, shuffles pick them of four rows each into one vector, and two rounds of zipping
 * remain. */

/* The next row. Compilers would rather compute the addresses of all rows at once, for which there
 * are not registers enough. */
HELPER const uint8_t *next_row(const uint8_t *row, size_t stride)
{
    row += stride;
    __asm__("" : "+r"(row));
    return row;
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

HELPER void zip_and_store(vec a[16], uint8_t *out, size_t out_stride)
{
    vec b[16];
    zip_round(a, b);
    zip_round(b, a);
    zip_round(a, b);
    zip_round(b, a);
    UNROLL
    for (size_t i = 0; i < 16; i++)
        v_store(out + i * out_stride, a[i]);
}

/* All bytes of a part of LANES rows. */
HELPER void transpose_all(const uint8_t *in, size_t in_stride, vec flip, uint8_t *out,
                          size_t out_stride)
{
    vec a[16];
    UNROLL
    for (size_t i = 0; i < 16; i++, in = next_row(in, in_stride))
        a[i] = v_xor(flip, v_load_parts(in, 16 * in_stride));
    zip_and_store(a, out, out_stride);
}

/* Few of them. */
HELPER void transpose_few(const nimbus_part *part, const uint8_t *in, size_t in_stride, vec flip,
                          uint8_t *out, size_t out_stride)
{
    vec selector[4], four[4]; /* four[k]: of rows 4k .. 4k + 3 of 16, byte q in 32 bits q */
    UNROLL
    for (size_t j = 0; j < 4; j++)
        selector[j] = v_load_table(part->selectors[j]);
    UNROLL
    for (size_t k = 0; k < 4; k++) {
        four[k] = flip;
        UNROLL
        for (size_t j = 0; j < 4; j++, in = next_row(in, in_stride)) {
            vec rows = v_load_parts(in, 16 * in_stride);
            four[k] = v_xor(four[k], v_shuffle8(rows, selector[j]));
        }
    }
    vec low01 = v_zip_low32(four[0], four[1]), high01 = v_zip_high32(four[0], four[1]);
    vec low23 = v_zip_low32(four[2], four[3]), high23 = v_zip_high32(four[2], four[3]);
    v_store(out, v_zip_low64(low01, low23));
    v_store(out + out_stride, v_zip_high64(low01, low23));
    v_store(out + 2 * out_stride, v_zip_low64(high01, high23));
    v_store(out + 3 * out_stride, v_zip_high64(high01, high23));
}

HELPER void transpose_part(const nimbus_part *part, const uint8_t *in, size_t in_stride, vec flip,
                           uint8_t *out, size_t out_stride)
{
    if (part && part->few)
        transpose_few(part, in, in_stride, flip, out, out_stride);
    else
        transpose_all(in, in_stride, flip, out, out_stride);
}

/* The same of fewer rows: they are copied first, since none stands after them. */
HELPER void transpose_rest(const nimbus_part *part, const uint8_t *in, size_t in_stride, size_t n,
                           vec flip, uint8_t *out, size_t out_stride)
{
    uint8_t rows[LANES * 16];
    for (size_t i = 0; i < n; i++)
        memcpy(rows + 16 * i, in + i * in_stride, 16);
    transpose_part(part, rows, 16, flip, out, out_stride);
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
        for (size_t p = 0; p < n_parts; p++) {
            const nimbus_part *part = parts ? &parts[p] : NULL;
            const uint8_t *from = in + r * in_stride + (part ? part->first : p * 16);
            uint8_t *to = out + (part ? part->out : p * 16) * out_stride + r;
            if (r + LANES <= n_rows)
                transpose_part(part, from, in_stride, flips, to, out_stride);
            else
                transpose_rest(part, from, in_stride, n_rows - r, flips, to, out_stride);
        }
    }
}
