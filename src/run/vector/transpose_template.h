/* transpose_template.h - bytes of rows to bytes of columns
 *
 * Works on pieces of 16 bytes of 16 rows, a different piece in every 16 bytes of a vector. Where
 * few columns are wanted, up to four of a piece are picked by shuffles; where most are, the whole
 * piece is transposed by four rounds of zipping. Rows past the last one repeat it. */

enum { PIECES = LANES / 16, CHUNK = 32, FEW = 4 };

/* PIECES pieces: column first[p] + at[p][i] of piece p goes to output out[p] + i, i < n[p]. */
typedef struct pieces {
    uint32_t first[PIECES], n[PIECES], out[PIECES];
    uint8_t at[PIECES][16];
} pieces;

/* Takes columns from number i on, at most `most` a piece; returns how many. width >= 16. */
static size_t take_pieces(pieces *p, const uint32_t *columns, size_t n_columns, size_t i,
                          size_t width, size_t most)
{
    size_t from = i;
    *p = (pieces){{0}, {0}, {0}, {{0}}};
    for (size_t k = 0; k < PIECES && i < n_columns; k++) {
        size_t column = columns ? columns[i] : i;
        size_t first = column + 16 <= width ? column : width - 16;
        p->first[k] = (uint32_t)first;
        p->out[k] = (uint32_t)i;
        while (p->n[k] < most && i < n_columns) {
            column = columns ? columns[i] : i;
            if (column < first || column >= first + 16)
                break;
            p->at[k][p->n[k]++] = (uint8_t)(column - first);
            i++;
        }
    }
    return i - from;
}

/* Row j of every four puts column q of its piece at byte 4q + j and leaves zeros elsewhere. */
static void make_selectors(const pieces *p, uint8_t selectors[4][LANES])
{
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < LANES; i++)
            selectors[j][i] = i % 4 == j ? p->at[i / 16][i % 16 / 4] : 0x80;
}

HELPER void transpose_few(const pieces *p, const uint8_t (*selectors)[LANES],
                          const uint8_t *const row[16], vec flip, uint8_t *out, size_t stride)
{
    vec four[4], column[FEW]; /* four[k]: of rows 4k..4k+3, column q in 32 bits q */
    UNROLL
    for (size_t k = 0; k < 4; k++) {
        four[k] = flip;
        UNROLL
        for (size_t j = 0; j < 4; j++)
            four[k] = v_xor(
                four[k], v_shuffle8(v_load_pieces(row[4 * k + j], p->first), v_load(selectors[j])));
    }
    vec low01 = v_zip_low32(four[0], four[1]), high01 = v_zip_high32(four[0], four[1]);
    vec low23 = v_zip_low32(four[2], four[3]), high23 = v_zip_high32(four[2], four[3]);
    column[0] = v_zip_low64(low01, low23);
    column[1] = v_zip_high64(low01, low23);
    column[2] = v_zip_low64(high01, high23);
    column[3] = v_zip_high64(high01, high23);
    UNROLL
    for (size_t k = 0; k < PIECES; k++) {
        UNROLL
        for (size_t q = 0; q < FEW; q++)
            if (q < p->n[k])
                v_store_piece(out + (p->out[k] + q) * stride, column[q], k);
    }
}

/* One round of zipping: after four, vector i holds byte i of all 16. */
HELPER void zip_round(const vec in[16], vec out[16])
{
    UNROLL
    for (size_t i = 0; i < 8; i++) {
        out[2 * i] = v_zip_low8(in[i], in[i + 8]);
        out[2 * i + 1] = v_zip_high8(in[i], in[i + 8]);
    }
}

HELPER void transpose_all(const pieces *p, const uint8_t *const row[16], vec flip, uint8_t *out,
                          size_t stride)
{
    vec a[16], b[16];
    UNROLL
    for (size_t r = 0; r < 16; r++)
        a[r] = v_xor(flip, v_load_pieces(row[r], p->first));
    zip_round(a, b);
    zip_round(b, a);
    zip_round(a, b);
    zip_round(b, a);
    for (size_t k = 0; k < PIECES; k++)
        for (size_t i = 0; i < p->n[k]; i++)
            memcpy(out + (p->out[k] + i) * stride, (const uint8_t *)&a[p->at[k][i]] + 16 * k, 16);
}

TARGET void KERNEL(transpose_u8u8)(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                                   const uint32_t *columns, size_t n_columns, uint8_t flip,
                                   uint8_t *out, size_t out_stride)
{
    pieces chunk[CHUNK];
    uint8_t selectors[CHUNK][4][LANES];
    bool few = n_columns <= width / 2;
    if (width < 16) {
        nimbus_transpose_u8u8__c(in, in_stride, width, n_rows, columns, n_columns, flip, out,
                                 out_stride);
        return;
    }
    for (size_t i = 0; i < n_columns;) {
        size_t n = 0;
        for (; n < CHUNK && i < n_columns; n++) {
            i += take_pieces(&chunk[n], columns, n_columns, i, width, few ? FEW : 16);
            make_selectors(&chunk[n], selectors[n]);
        }
        for (size_t r = 0; r < n_rows; r += 16) {
            const uint8_t *row[16];
            for (size_t k = 0; k < 16; k++)
                row[k] = in + (r + k < n_rows ? r + k : n_rows - 1) * in_stride;
            for (size_t k = 0; k < n; k++) {
                if (few)
                    transpose_few(&chunk[k], (const uint8_t(*)[LANES])selectors[k], row,
                                  v_set8((int8_t)flip), out + r, out_stride);
                else
                    transpose_all(&chunk[k], row, v_set8((int8_t)flip), out + r, out_stride);
            }
        }
    }
}
