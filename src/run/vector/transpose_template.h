/* transpose_template.h - bytes of rows to bytes of columns
 *
 * Works on windows: the same LANES bytes of 16 rows, of which wanted columns are known by the
 * 16-byte part they are in. Where few columns are wanted, up to four of a part are picked by
 * shuffles; where most are, all of a part are transposed by four rounds of zipping. Rows past the
 * last one repeat it. */

enum { PARTS = LANES / 16, CHUNK = 32, FEW = 4 };

/* LANES columns from `first` on; part p's column at[p][i] goes to byte out[p][i], i < n[p]. */
typedef struct window {
    size_t first;
    size_t n[PARTS], out[PARTS][16];
    uint8_t at[PARTS][16];
} window;

/* Takes columns from number i on, at most `most` a part; returns the first not taken. Windows
 * start at multiples of 16 where the width allows: parts then coincide with the codebooks of
 * layers that cut their inputs into 16s. */
static size_t take_window(window *w, const uint32_t *columns, size_t n_columns, size_t i,
                          size_t width, size_t most, size_t out_stride)
{
    size_t column = columns ? columns[i] : i;
    memset(w, 0, sizeof *w);
    w->first = column / 16 * 16 + LANES <= width ? column / 16 * 16 : width - LANES;
    for (; i < n_columns; i++) {
        column = columns ? columns[i] : i;
        size_t part = (column - w->first) / 16;
        if (column < w->first || part >= PARTS || w->n[part] == most)
            break;
        w->at[part][w->n[part]] = (uint8_t)((column - w->first) % 16);
        w->out[part][w->n[part]++] = i * out_stride;
    }
    return i;
}

/* Fills parts with fewer than four columns by repeating the first, and makes shuffles of which
 * number j, for row j of four, puts column q at byte 4q + j and zeros (0x80) elsewhere. */
static void make_selectors(window *w, uint32_t selectors[4][LANES / 4])
{
    for (size_t p = 0; p < PARTS; p++) {
        for (size_t q = 0; q < FEW; q++) {
            if (q >= w->n[p]) {
                w->at[p][q] = w->at[p][0];
                w->out[p][q] = w->out[p][0];
            }
            /* at < 16, so xor sets byte j to it and leaves the others */
            for (unsigned j = 0; j < 4; j++)
                selectors[j][p * 4 + q] = 0x80808080u ^ (0x80u ^ w->at[p][q]) << 8 * j;
        }
    }
}

HELPER void transpose_few(const window *w, const uint32_t (*selectors)[LANES / 4],
                          const uint8_t *const row[16], vec flip, uint8_t *out)
{
    vec four[4], column[FEW]; /* four[k]: of rows 4k..4k+3, column q in 32 bits q */
    UNROLL
    for (size_t k = 0; k < 4; k++) {
        four[k] = flip;
        UNROLL
        for (size_t j = 0; j < 4; j++)
            four[k] =
                v_xor(four[k], v_shuffle8(v_load(row[4 * k + j] + w->first), v_load(selectors[j])));
    }
    vec low01 = v_zip_low32(four[0], four[1]), high01 = v_zip_high32(four[0], four[1]);
    vec low23 = v_zip_low32(four[2], four[3]), high23 = v_zip_high32(four[2], four[3]);
    column[0] = v_zip_low64(low01, low23);
    column[1] = v_zip_high64(low01, low23);
    column[2] = v_zip_low64(high01, high23);
    column[3] = v_zip_high64(high01, high23);
    UNROLL
    for (size_t p = 0; p < PARTS; p++) {
        if (w->n[p] == 0)
            continue;
        UNROLL
        for (size_t q = 0; q < FEW; q++)
            v_store_part(out + w->out[p][q], column[q], p);
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

HELPER void transpose_all(const window *w, const uint8_t *const row[16], vec flip, uint8_t *out)
{
    vec a[16], b[16];
    UNROLL
    for (size_t r = 0; r < 16; r++)
        a[r] = v_xor(flip, v_load(row[r] + w->first));
    zip_round(a, b);
    zip_round(b, a);
    zip_round(a, b);
    zip_round(b, a);
    for (size_t p = 0; p < PARTS; p++)
        for (size_t i = 0; i < w->n[p]; i++)
            memcpy(out + w->out[p][i], (const uint8_t *)&a[w->at[p][i]] + 16 * p, 16);
}

TARGET void KERNEL(transpose_u8u8)(const uint8_t *in, size_t in_stride, size_t width, size_t n_rows,
                                   const uint32_t *columns, size_t n_columns, uint8_t flip,
                                   uint8_t *out, size_t out_stride)
{
    window chunk[CHUNK];
    uint32_t selectors[CHUNK][4][LANES / 4];
    bool few = n_columns <= width / 2;
    if (width < LANES) {
        nimbus_transpose_u8u8__c(in, in_stride, width, n_rows, columns, n_columns, flip, out,
                                 out_stride);
        return;
    }
    for (size_t i = 0; i < n_columns;) {
        size_t n = 0;
        for (; n < CHUNK && i < n_columns; n++) {
            i = take_window(&chunk[n], columns, n_columns, i, width, few ? FEW : 16, out_stride);
            if (few)
                make_selectors(&chunk[n], selectors[n]);
        }
        for (size_t r = 0; r < n_rows; r += 16) {
            const uint8_t *row[16];
            for (size_t k = 0; k < 16; k++)
                row[k] = in + (r + k < n_rows ? r + k : n_rows - 1) * in_stride;
            for (size_t k = 0; k < n; k++) {
                if (few)
                    transpose_few(&chunk[k], (const uint32_t(*)[LANES / 4]) selectors[k], row,
                                  v_set8((int8_t)flip), out + r);
                else
                    transpose_all(&chunk[k], row, v_set8((int8_t)flip), out + r);
            }
        }
    }
}
