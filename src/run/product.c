/* product.c - one lookup product on its own, from and to plain arrays
 *
 * A product is a program of one step. Rows that fill whole vectors go straight through the caller's
 * arrays; the others, and outputs that fill no whole tile, through scratch, since kernels read and
 * write more than is there. */
#include <string.h>

#include "run/program.h"

struct nimbus_product {
    nimbus_program program;
    nimbus_program_step step;
};

enum { MOST_WIDTH = 1 << 24, MOST_LEVELS = 8 };

/* ---- making one --------------------------------------------------------------------------- */

static nimbus_status check_shape(const nimbus_product_arrays *a, nimbus_error *error)
{
    const struct {
        const char *name;
        size_t value, most;
    } sizes[] = {{"n_inputs", a->n_inputs, MOST_WIDTH},
                 {"n_outputs", a->n_outputs, MOST_WIDTH},
                 {"n_codebooks", a->n_codebooks, MOST_WIDTH},
                 {"n_levels", a->n_levels, MOST_LEVELS}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "%s is %zu, not 1..%zu", sizes[i].name,
                               sizes[i].value, sizes[i].most);
    if (!a->columns || !a->thresholds || !a->tables)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "columns, thresholds or tables is NULL");
    for (size_t i = 0; i < a->n_codebooks * a->n_levels; i++)
        if (a->columns[i] >= a->n_inputs)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "codebook %zu reads column %u of %zu inputs", i / a->n_levels,
                               (unsigned)a->columns[i], a->n_inputs);
    return NIMBUS_OK;
}

/* No sum may leave 32 bits. */
static nimbus_status check_sums(const nimbus_product_arrays *a, nimbus_error *error)
{
    const size_t K = (size_t)1 << a->n_levels, M = a->n_outputs;
    for (size_t m = 0; m < M; m++) {
        int64_t bias = a->bias ? a->bias[m] : 0, most = bias < 0 ? -bias : bias;
        most += 128 * (int64_t)a->n_codebooks;
        if (most <= INT32_MAX)
            continue; /* no need to look closer */
        most = bias < 0 ? -bias : bias;
        for (size_t c = 0; c < a->n_codebooks; c++) {
            int largest = 0;
            for (size_t k = 0; k < K; k++) {
                int entry = a->tables[(c * K + k) * M + m], size = entry < 0 ? -entry : entry;
                largest = size > largest ? size : largest;
            }
            most += largest;
        }
        if (most > INT32_MAX)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT, "output %zu can reach %lld, beyond 32 bits",
                               m, (long long)most);
    }
    return NIMBUS_OK;
}

/* Numbers as they lie in a file, for nimbus_step_prepare; NULL gives zeros. */
static uint8_t *little_endian(const void *numbers, size_t n)
{
    uint8_t *bytes = nimbus_alloc(n, sizeof(uint32_t));
    for (size_t i = 0; bytes && numbers && i < n; i++) {
        uint32_t value;
        memcpy(&value, (const uint8_t *)numbers + 4 * i, sizeof value);
        for (size_t b = 0; b < 4; b++)
            bytes[4 * i + b] = (uint8_t)(value >> 8 * b);
    }
    return bytes;
}

static nimbus_status prepare(nimbus_product *product, const nimbus_product_arrays *a,
                             nimbus_error *error)
{
    nimbus_program_step *step = &product->step;
    nimbus_program *program = &product->program;
    uint8_t *columns = little_endian(a->columns, a->n_codebooks * a->n_levels);
    uint8_t *bias = little_endian(a->bias, a->n_outputs);
    const nimbus_step_arrays arrays = {.columns = columns,
                                       .thresholds = (const uint8_t *)a->thresholds,
                                       .tables = (const uint8_t *)a->tables,
                                       .bias = bias};
    nimbus_status status;
    *step = (nimbus_program_step){.info = {.kind = NIMBUS_STEP_LOOKUP,
                                           .n_outputs = a->n_outputs,
                                           .name = "product",
                                           .shared_columns = 1,
                                           .table_bits = 8},
                                  .input = NIMBUS_IN_I8,
                                  .output = NIMBUS_OUT_SHIFT,
                                  .n_inputs = a->n_inputs,
                                  .n_outputs = a->n_outputs,
                                  .n_codebooks = a->n_codebooks,
                                  .n_levels = a->n_levels,
                                  .n_leaves = (size_t)1 << a->n_levels};
    program->steps = step;
    program->info = (nimbus_program_info){
        .n_inputs = a->n_inputs, .n_outputs = a->n_outputs, .input_dtype = NIMBUS_U8, .n_steps = 1};
    if (!columns || !bias)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a product");
    else if (!(status = nimbus_kernels_choose(&program->kernels, error)) &&
             !(status = nimbus_step_prepare(step, &arrays, program->kernels, error)))
        status = nimbus_program_tune(program, error);
    nimbus_free(columns);
    nimbus_free(bias);
    return status;
}

nimbus_status nimbus_product_new(const nimbus_product_arrays *arrays, nimbus_product **out,
                                 nimbus_error *error)
{
    nimbus_product *product = NULL;
    nimbus_status status;
    if (!out || !arrays || arrays->size != sizeof *arrays) {
        if (out)
            *out = NULL;
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "out or arrays is NULL, or arrays->size is not that of this version");
    }
    *out = NULL;
    if ((status = check_shape(arrays, error)) || (status = check_sums(arrays, error)))
        return status;
    if (!(product = nimbus_alloc(1, sizeof *product)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a product");
    status = prepare(product, arrays, error);
    if (status == NIMBUS_OK)
        *out = product;
    else
        nimbus_product_free(product);
    return status;
}

void nimbus_product_free(nimbus_product *product)
{
    if (!product)
        return;
    nimbus_step_free(&product->step);
    nimbus_free(product);
}

const char *nimbus_product_isa(const nimbus_product *product)
{
    return product ? product->program.kernels->isa : "";
}

/* ---- working memory ----------------------------------------------------------------------- */

/* Rows or columns that kernels may read and write beyond their end. */
typedef struct workplace {
    uint8_t *x;        /* [D][NIMBUS_PAD], or one row [D'] */
    uint8_t *codes;    /* [C'][NIMBUS_PAD], or one row [C'] */
    uint8_t *packed;   /* [C'][NIMBUS_BLOCK_ROWS]: packed codes, or codes without gaps */
    int32_t *sums;     /* [NIMBUS_MAX_TILE][NIMBUS_BLOCK_ROWS] */
    int32_t *row_sums; /* [M'] */
    int8_t *row_out;   /* [M'] */
    size_t size;
} workplace;

static workplace divide(const nimbus_product *product, void *scratch)
{
    const nimbus_program_step *step = &product->step;
    const size_t D = nimbus_padded(step->n_inputs), M = nimbus_padded(step->n_outputs);
    const size_t C = nimbus_padded(step->n_codebooks);
    const size_t sizes[] = {
        D * NIMBUS_PAD,        C * NIMBUS_PAD,
        C * NIMBUS_BLOCK_ROWS, NIMBUS_MAX_TILE * NIMBUS_BLOCK_ROWS * sizeof(int32_t),
        M * sizeof(int32_t),   M};
    uint8_t *parts[sizeof sizes / sizeof *sizes];
    uintptr_t at = (uintptr_t)scratch + (-(uintptr_t)scratch & (NIMBUS_PAD - 1));
    workplace w = {.size = NIMBUS_PAD};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        parts[i] = scratch ? (uint8_t *)at + (w.size - NIMBUS_PAD) : NULL;
        w.size += sizes[i];
    }
    w.x = parts[0];
    w.codes = parts[1];
    w.packed = parts[2];
    w.sums = (int32_t *)(void *)parts[3];
    w.row_sums = (int32_t *)(void *)parts[4];
    w.row_out = (int8_t *)parts[5];
    return w;
}

size_t nimbus_product_scratch_size(const nimbus_product *product)
{
    return product ? divide(product, NULL).size : 0;
}

/* Copies n bytes of each of n_columns columns. */
static void copy_columns(const uint8_t *from, size_t from_stride, uint8_t *to, size_t to_stride,
                         size_t n_columns, size_t n)
{
    for (size_t c = 0; c < n_columns; c++)
        memcpy(to + c * to_stride, from + c * from_stride, n);
}

/* One row of n_columns columns. */
static void copy_row(const uint8_t *from, size_t stride, size_t n_columns, uint8_t *to)
{
    if (stride == 1)
        memcpy(to, from, n_columns);
    else
        for (size_t c = 0; c < n_columns; c++)
            to[c] = from[c * stride];
}

static bool in_columns(const nimbus_product *product, size_t n_rows)
{
    return n_rows >= product->step.columns_from;
}

/* ---- encoding ----------------------------------------------------------------------------- */

static void encode_columns(const nimbus_product *product, const int8_t *x, size_t x_stride,
                           size_t n_rows, uint8_t *codes, size_t codes_stride, const workplace *w)
{
    const nimbus_program_step *step = &product->step;
    const nimbus_kernels *k = product->program.kernels;
    const size_t whole = n_rows / NIMBUS_PAD * NIMBUS_PAD, rest = n_rows - whole;
    if (whole)
        k->encode_i8u8(&step->trees, x, x_stride, whole, codes, codes_stride);
    if (rest) {
        copy_columns((const uint8_t *)x + whole, x_stride, w->x, NIMBUS_PAD, step->n_inputs, rest);
        k->encode_i8u8(&step->trees, (const int8_t *)w->x, NIMBUS_PAD, NIMBUS_PAD, w->codes,
                       NIMBUS_PAD);
        copy_columns(w->codes, NIMBUS_PAD, codes + whole, codes_stride, step->n_codebooks, rest);
    }
}

nimbus_status nimbus_product_encode(const nimbus_product *product, const int8_t *x, size_t x_stride,
                                    size_t n_rows, uint8_t *codes, size_t codes_stride,
                                    void *scratch)
{
    if (!product || !x || !codes || !scratch || x_stride < n_rows || codes_stride < n_rows)
        return NIMBUS_ERR_ARGUMENT;
    const workplace w = divide(product, scratch);
    if (in_columns(product, n_rows)) {
        encode_columns(product, x, x_stride, n_rows, codes, codes_stride, &w);
        return NIMBUS_OK;
    }
    const size_t D = product->step.n_inputs, C = product->step.n_codebooks;
    /* a row that fills whole vectors needs no room behind it */
    const bool as_it_is = x_stride == 1 && D % NIMBUS_PAD == 0;
    for (size_t r = 0; r < n_rows; r++) {
        if (!as_it_is)
            copy_row((const uint8_t *)x + r, x_stride, D, w.x);
        nimbus_encode_row(product->program.kernels, &product->step,
                          as_it_is ? (const uint8_t *)x : w.x, w.codes);
        if (codes_stride == 1)
            memcpy(codes, w.codes, C);
        else
            for (size_t c = 0; c < C; c++)
                codes[c * codes_stride + r] = w.codes[c];
    }
    return NIMBUS_OK;
}

/* ---- looking up --------------------------------------------------------------------------- */

/* Where results go: sums, or bytes after a shift. */
typedef struct results {
    int32_t *sums;
    int8_t *bytes;
    size_t stride;
    unsigned shift;
} results;

/* One tile of outputs from m on, n rows. Through scratch if the tile is larger than what is left,
 * or the rows are not a whole block. */
static void run_tile(const nimbus_product *product, size_t m, const uint8_t *codes, size_t stride,
                     size_t n, size_t n_wanted, const results *to, size_t r, const workplace *w)
{
    const nimbus_program_step *step = &product->step;
    const nimbus_kernels *k = product->program.kernels;
    const size_t left = step->n_outputs - m, size = k->shape.tile, at = m * to->stride + r;
    const size_t n_outputs = left < size ? left : size;
    const bool wide = step->n_leaves > 16, direct = n_outputs == size && n == n_wanted;
    const nimbus_tile *tile = &step->tiles[m / size];
    if (to->bytes && step->narrow) {
        int8_t *out = direct ? to->bytes + at : (int8_t *)w->sums;
        (wide ? k->wide_u8i8 : k->lookup_u8i8)(tile, codes, stride, n, to->shift, out,
                                               direct ? to->stride : n);
        for (size_t t = 0; t < n_outputs && !direct; t++)
            memcpy(to->bytes + at + t * to->stride, out + t * n, n_wanted);
        return;
    }
    int32_t *sums = direct && to->sums ? to->sums + at : w->sums;
    const size_t sums_stride = sums == w->sums ? n : to->stride;
    (wide ? k->wide_u8i32 : k->lookup_u8i32)(tile, codes, stride, n, sums, sums_stride);
    for (size_t t = 0; t < n_outputs && sums == w->sums; t++) {
        if (to->sums) {
            memcpy(to->sums + at + t * to->stride, sums + t * n, n_wanted * sizeof *sums);
        } else {
            int8_t *bytes = (int8_t *)w->x;
            k->shift_i32i8(sums + t * n, n, to->shift, bytes);
            memcpy(to->bytes + at + t * to->stride, bytes, n_wanted);
        }
    }
}

/* Whether columns this far apart push each other out of the L1 cache: every tile reads all codes of
 * a block. A way holds 4096 bytes nearly everywhere, and columns that lie a multiple of 2^n apart
 * share 4096 / 2^n places in it; a few ways are left to tables and results. */
static bool columns_collide(size_t stride, size_t n_columns)
{
    enum { WAY_BYTES = 4096, WAYS = 6 };
    size_t apart = stride & (0 - stride);
    return stride > NIMBUS_BLOCK_ROWS &&
           n_columns > WAYS * (WAY_BYTES / (apart < WAY_BYTES ? apart : WAY_BYTES));
}

enum { COMPACT_FROM = 16 }; /* outputs that pay for a copy of the codes */

/* Rows r .. of a block, n of them; n is what kernels want, n_wanted what is there. */
static void lookup_block(const nimbus_product *product, const uint8_t *codes, size_t stride,
                         size_t n, size_t n_wanted, const results *to, size_t r, const workplace *w)
{
    const nimbus_program_step *step = &product->step;
    const nimbus_kernels *k = product->program.kernels;
    if (nimbus_step_is_packed(step, k)) {
        k->pack_u8u8(codes, stride, n, step->n_codebooks, NIMBUS_CODES_OF_QUADS, w->packed, n);
        codes = w->packed;
        stride = n;
    } else if (step->n_outputs >= COMPACT_FROM && columns_collide(stride, step->n_codebooks)) {
        copy_columns(codes, stride, w->packed, n, step->n_codebooks, n);
        codes = w->packed;
        stride = n;
    }
    for (size_t m = 0; m < step->n_outputs; m += k->shape.tile)
        run_tile(product, m, codes, stride, n, n_wanted, to, r, w);
}

static void lookup_columns(const nimbus_product *product, const uint8_t *codes, size_t stride,
                           size_t n_rows, const results *to, const workplace *w)
{
    const size_t whole = n_rows / NIMBUS_PAD * NIMBUS_PAD, rest = n_rows - whole;
    for (size_t r = 0, n; r < whole; r += n) {
        n = whole - r < NIMBUS_BLOCK_ROWS ? whole - r : NIMBUS_BLOCK_ROWS;
        lookup_block(product, codes + r, stride, n, n, to, r, w);
    }
    if (rest) {
        copy_columns(codes + whole, stride, w->codes, NIMBUS_PAD, product->step.n_codebooks, rest);
        lookup_block(product, w->codes, NIMBUS_PAD, NIMBUS_PAD, rest, to, whole, w);
    }
}

static void lookup_row(const nimbus_product *product, size_t r, const results *to,
                       const workplace *w)
{
    const nimbus_program_step *step = &product->step;
    const nimbus_kernels *k = product->program.kernels;
    const size_t M = step->n_outputs;
    if (to->sums) {
        k->add_u8i32(&step->table, w->codes, step->row_bias, w->row_sums);
        for (size_t m = 0; m < M; m++)
            to->sums[m * to->stride + r] = w->row_sums[m];
        return;
    }
    if (step->narrow) {
        k->add_u8i8(&step->table, w->codes, step->even_bias, step->odd_bias, to->shift, w->row_out);
    } else {
        k->add_u8i32(&step->table, w->codes, step->row_bias, w->row_sums);
        k->shift_i32i8(w->row_sums, nimbus_padded(M), to->shift, w->row_out);
    }
    if (to->stride == 1)
        memcpy(to->bytes, w->row_out, M);
    else
        for (size_t m = 0; m < M; m++)
            to->bytes[m * to->stride + r] = w->row_out[m];
}

static nimbus_status lookup(const nimbus_product *product, const uint8_t *codes,
                            size_t codes_stride, size_t n_rows, const results *to, void *scratch)
{
    if (!product || !codes || !scratch || (!to->sums && !to->bytes) || codes_stride < n_rows ||
        to->stride < n_rows || to->shift > NIMBUS_MAX_SHIFT)
        return NIMBUS_ERR_ARGUMENT;
    const workplace w = divide(product, scratch);
    if (in_columns(product, n_rows)) {
        lookup_columns(product, codes, codes_stride, n_rows, to, &w);
        return NIMBUS_OK;
    }
    for (size_t r = 0; r < n_rows; r++) {
        copy_row(codes + r, codes_stride, product->step.n_codebooks, w.codes);
        lookup_row(product, r, to, &w);
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_product_lookup(const nimbus_product *product, const uint8_t *codes,
                                    size_t codes_stride, size_t n_rows, int32_t *sums,
                                    size_t sums_stride, void *scratch)
{
    const results to = {.sums = sums, .stride = sums_stride};
    return lookup(product, codes, codes_stride, n_rows, &to, scratch);
}

nimbus_status nimbus_product_lookup_i8(const nimbus_product *product, const uint8_t *codes,
                                       size_t codes_stride, size_t n_rows, unsigned shift,
                                       int8_t *y, size_t y_stride, void *scratch)
{
    const results to = {.bytes = y, .stride = y_stride, .shift = shift};
    return lookup(product, codes, codes_stride, n_rows, &to, scratch);
}
