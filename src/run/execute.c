/* execute.c - run a program on rows
 *
 * Rows are taken in blocks; a block goes through all steps before the next one starts, so that
 * activations stay in the cache. Between steps they are i8, column-major if the step that made
 * them ran in columns, else row-major (program.h); a step that wants the other form transposes.
 * All working memory is the caller's scratch, cut up once per call. */
#include <string.h>

#include "run/program.h"

/* Sizes in bytes of the parts of the scratch. */
typedef struct scratch_sizes {
    size_t activations; /* each of two */
    size_t codes, values, sums;
} scratch_sizes;

enum form { FORM_RAW, FORM_ROWS, FORM_COLUMNS };

/* A block of rows under way. */
typedef struct block {
    const nimbus_program *program;
    const nimbus_kernels *kernels;
    size_t n_rows, n_padded; /* padded to the lanes of the kernels */
    enum form form;
    const uint8_t *data; /* raw rows or i8 activations */
    size_t stride;       /* bytes from row to row, or from column to column */
    uint8_t *activations[2];
    unsigned spare; /* which of them `data` is not */
    uint8_t *codes;
    int8_t *values;
    void *sums;
    int32_t *scores;
} block;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Whether a step of a block of n_rows runs in columns. */
static bool in_columns(const nimbus_program *program, const nimbus_program_step *step,
                       size_t n_rows)
{
    return nimbus_step_has_columns(step) && n_rows >= program->kernels->columns_from;
}

static scratch_sizes measure(const nimbus_program *program, size_t n_rows)
{
    scratch_sizes sizes = {0};
    size_t rows = n_rows < NIMBUS_BLOCK_ROWS ? n_rows : NIMBUS_BLOCK_ROWS;
    size_t n_padded = nimbus_rounded_up(rows, program->kernels->lanes);
    for (size_t i = 0; i < program->info.n_steps; i++) {
        const nimbus_program_step *step = &program->steps[i];
        size_t M = nimbus_padded(step->n_outputs), C = nimbus_padded(step->n_codebooks);
        size_t width = M;
        if (step->input == NIMBUS_IN_I8 || step->info.kind == NIMBUS_STEP_EXACT)
            width = larger(width, nimbus_padded(step->n_inputs));
        if (in_columns(program, step, rows) && step->live)
            width = larger(width, step->n_live * (step->input == NIMBUS_IN_F32 ? 4 : 1));
        sizes.activations = larger(sizes.activations, width * n_padded);
        sizes.codes = larger(sizes.codes, C * (in_columns(program, step, rows) ? n_padded : 1));
        if (step->walk_columns)
            sizes.values = larger(sizes.values, step->n_levels * C);
        sizes.sums = larger(sizes.sums, larger(M * NIMBUS_EXACT_ROWS, NIMBUS_TILE * n_padded));
    }
    sizes.activations = nimbus_padded(sizes.activations);
    sizes.codes = nimbus_padded(sizes.codes);
    sizes.sums = nimbus_padded(sizes.sums * sizeof(int32_t));
    return sizes;
}

size_t nimbus_scratch_size(const nimbus_program *program, size_t n_rows)
{
    scratch_sizes sizes = measure(program, n_rows);
    return 2 * sizes.activations + sizes.codes + sizes.values + sizes.sums + NIMBUS_PAD;
}

static uint8_t *spare_activations(const block *b)
{
    return b->activations[b->spare];
}

/* The spare activations now hold the data. */
static void advance(block *b, enum form form, size_t stride)
{
    b->data = b->activations[b->spare];
    b->spare ^= 1;
    b->form = form;
    b->stride = stride;
}

/* Turns n sums, i16 if the step is narrow, into i8 outputs. Output m comes first; all n are sums
 * of it if `one_output`, else they are outputs m, m + 1, ... */
static void finish(const block *b, const nimbus_program_step *step, const void *sums, size_t n,
                   size_t m, bool one_output, int8_t *out)
{
    const nimbus_kernels *k = b->kernels;
    if (step->output == NIMBUS_OUT_SCALED)
        k->scale_i32i8(sums, n, step->scale + m, step->offset + m, !one_output, out);
    else if (step->narrow)
        k->shift_i16i8(sums, n, step->shift, out);
    else
        k->shift_i32i8(sums, n, step->shift, out);
    if (step->has_map)
        k->map_i8i8(out, n, step->map);
}

/* ---- steps in columns -------------------------------------------------------------------- */

/* Brings the inputs of a step that runs in columns into columns. */
static void to_columns(block *b, const nimbus_program_step *step)
{
    uint8_t *out = spare_activations(b);
    if (b->form == FORM_COLUMNS)
        return;
    if (step->input == NIMBUS_IN_F32) {
        float *columns = (float *)(void *)out;
        for (size_t r = 0; r < b->n_padded; r++) {
            size_t row = r < b->n_rows ? r : b->n_rows - 1;
            const float *x = (const float *)(const void *)(b->data + row * b->stride);
            for (size_t i = 0; i < step->n_live; i++)
                columns[i * b->n_padded + r] = x[step->live[i]];
        }
    } else {
        size_t n = step->live ? step->n_live : step->n_inputs;
        b->kernels->transpose_u8u8(b->data, b->stride, step->n_inputs, b->n_rows, step->live, n,
                                   step->input == NIMBUS_IN_U8 ? 0x80 : 0, out, b->n_padded);
    }
    advance(b, FORM_COLUMNS, b->n_padded);
}

static void encode_columns(const block *b, const nimbus_program_step *step)
{
    const nimbus_kernels *k = b->kernels;
    if (step->input == NIMBUS_IN_F32)
        k->encode_nodes_f32u8(&step->trees, (const float *)(const void *)b->data, b->n_padded,
                              b->n_padded, b->codes);
    else if (step->info.shared_columns)
        k->encode_i8u8(&step->trees, (const int8_t *)b->data, b->n_padded, b->n_padded, b->codes);
    else
        k->encode_nodes_i8u8(&step->trees, (const int8_t *)b->data, b->n_padded, b->n_padded,
                             b->codes);
}

/* Sums of the outputs of tile m / NIMBUS_TILE to scores. */
static void store_scores(const block *b, const nimbus_program_step *step, size_t m,
                         size_t n_outputs)
{
    const int32_t *sums = b->sums;
    for (size_t r = 0; r < b->n_rows; r++)
        for (size_t t = 0; t < n_outputs; t++)
            b->scores[r * step->n_outputs + m + t] = sums[t * b->n_padded + r];
}

static void run_in_columns(block *b, const nimbus_program_step *step)
{
    size_t M = step->n_outputs, n = b->n_padded;
    size_t sum_bytes = step->narrow ? sizeof(int16_t) : sizeof(int32_t);
    to_columns(b, step);
    encode_columns(b, step);
    int8_t *out = (int8_t *)spare_activations(b);
    for (size_t m = 0; m < M; m += NIMBUS_TILE) {
        const nimbus_tile *tile = &step->tiles[m / NIMBUS_TILE];
        size_t n_outputs = M - m < NIMBUS_TILE ? M - m : NIMBUS_TILE;
        if (step->narrow)
            b->kernels->lookup_u8i16(tile, b->codes, n, n, b->sums);
        else
            b->kernels->lookup_u8i32(tile, b->codes, n, n, b->sums);
        if (step->output == NIMBUS_OUT_I32)
            store_scores(b, step, m, n_outputs);
        for (size_t t = 0; t < n_outputs && step->output != NIMBUS_OUT_I32; t++)
            finish(b, step, (const char *)b->sums + t * n * sum_bytes, n, m + t, true,
                   out + (m + t) * n);
    }
    advance(b, FORM_COLUMNS, n);
}

/* ---- steps in rows ----------------------------------------------------------------------- */

/* Brings the inputs of a step that runs in rows into rows: i8, or raw for a lookup step. */
static void to_rows(block *b, const nimbus_program_step *step)
{
    size_t D = step->n_inputs, stride = nimbus_padded(D);
    uint8_t *out = spare_activations(b);
    if (b->form == FORM_ROWS || (b->form == FORM_RAW && step->info.kind == NIMBUS_STEP_LOOKUP))
        return;
    if (b->form == FORM_COLUMNS) {
        b->kernels->transpose_u8u8(b->data, b->stride, b->n_padded, D, NULL, b->n_rows, 0, out,
                                   stride);
    } else {
        for (size_t r = 0; r < b->n_rows; r++) {
            const uint8_t *x = b->data + r * b->stride;
            uint8_t *row = out + r * stride;
            if (step->input == NIMBUS_IN_F32)
                b->kernels->quantise_f32i8((const float *)(const void *)x, D, step->in_scale,
                                           step->in_offset, (int8_t *)row);
            else
                for (size_t d = 0; d < D; d++)
                    row[d] = x[d] ^ 0x80;
        }
    }
    advance(b, FORM_ROWS, stride);
}

/* Walks the trees of a step for one row; `value` reads x of column d. */
#define WALK(type, value)                                                                          \
    const type *threshold = step->thresholds;                                                      \
    for (size_t c = 0; c < n_codebooks; c++, column += n_nodes, threshold += n_nodes) {            \
        size_t i = 0;                                                                              \
        while (i < n_nodes) {                                                                      \
            uint32_t d = column[i];                                                                \
            i = 2 * i + 1 + ((value) > threshold[i]);                                              \
        }                                                                                          \
        codes[c] = (uint8_t)(i - n_nodes);                                                         \
    }

/* values[i] = x[columns[i]] ^ flip. Locals, since a byte stored could be any other variable. */
static void gather(const uint8_t *restrict x, const uint32_t *restrict columns, size_t n,
                   uint8_t flip, int8_t *restrict values)
{
    for (size_t i = 0; i + 4 <= n; i += 4) {
        values[i] = (int8_t)(x[columns[i]] ^ flip);
        values[i + 1] = (int8_t)(x[columns[i + 1]] ^ flip);
        values[i + 2] = (int8_t)(x[columns[i + 2]] ^ flip);
        values[i + 3] = (int8_t)(x[columns[i + 3]] ^ flip);
    }
}

static void encode_row(const block *b, const nimbus_program_step *step, const uint8_t *x)
{
    size_t n_nodes = step->n_leaves - 1, n_codebooks = step->n_codebooks;
    size_t C = nimbus_rounded_up(n_codebooks, NIMBUS_WALK);
    const uint32_t *column = step->columns;
    uint8_t *codes = b->codes;
    uint8_t flip = step->input == NIMBUS_IN_U8 ? 0x80 : 0;
    if (step->input == NIMBUS_IN_F32) {
        const float *row = (const float *)(const void *)x;
        WALK(float, row[d])
    } else if (step->walk_columns) {
        gather(x, step->walk_columns, step->n_levels * C, flip, b->values);
        b->kernels->walk_i8u8(b->values, step->walk_thresholds, C, step->n_levels, b->codes);
    } else {
        WALK(int8_t, (int8_t)(x[d] ^ flip))
    }
}

static void run_lookup_in_rows(block *b, const nimbus_program_step *step)
{
    size_t M = step->n_outputs, stride = nimbus_padded(M);
    uint8_t *out = spare_activations(b);
    for (size_t r = 0; r < b->n_rows; r++) {
        encode_row(b, step, b->data + r * b->stride);
        if (step->narrow)
            b->kernels->add_u8i16(&step->table, b->codes, step->row_bias, b->sums);
        else
            b->kernels->add_u8i32(&step->table, b->codes, step->row_bias, b->sums);
        if (step->output == NIMBUS_OUT_I32)
            memcpy(b->scores + r * M, b->sums, M * sizeof *b->scores);
        else
            finish(b, step, b->sums, stride, 0, false, (int8_t *)out + r * stride);
    }
    advance(b, FORM_ROWS, stride);
}

static void run_exact(block *b, const nimbus_program_step *step)
{
    size_t D = step->n_inputs, M = step->n_outputs, stride = nimbus_padded(M);
    int8_t *out = (int8_t *)spare_activations(b);
    bool scores = step->output == NIMBUS_OUT_I32;
    int8_t *x = (int8_t *)b->activations[b->spare ^ 1];
    for (size_t r = 0; r < b->n_rows; r++)
        memset(x + r * b->stride + D, 0, b->stride - D);
    for (size_t r = 0; r < b->n_rows; r += NIMBUS_EXACT_ROWS) {
        size_t n = b->n_rows - r < NIMBUS_EXACT_ROWS ? b->n_rows - r : NIMBUS_EXACT_ROWS;
        int32_t *sums = b->sums;
        b->kernels->dot_i8i32(x + r * b->stride, b->stride, n, step->weights, D, M, step->bias,
                              scores ? b->scores + r * M : sums, scores ? M : stride);
        for (size_t i = 0; i < n && !scores; i++)
            finish(b, step, sums + i * stride, stride, 0, false, out + (r + i) * stride);
    }
    advance(b, FORM_ROWS, stride);
}

/* ---- blocks ------------------------------------------------------------------------------ */

static void run_block(block *b)
{
    for (size_t i = 0; i < b->program->info.n_steps; i++) {
        const nimbus_program_step *step = &b->program->steps[i];
        if (in_columns(b->program, step, b->n_rows)) {
            run_in_columns(b, step);
        } else {
            to_rows(b, step);
            if (step->info.kind == NIMBUS_STEP_EXACT)
                run_exact(b, step);
            else
                run_lookup_in_rows(b, step);
        }
    }
}

nimbus_status nimbus_run(const nimbus_program *program, const void *rows, size_t row_stride,
                         size_t n_rows, int32_t *scores, void *scratch)
{
    if (!program)
        return NIMBUS_ERR_ARGUMENT;
    if (n_rows == 0)
        return NIMBUS_OK;
    const nimbus_program_info *info = &program->info;
    size_t row_bytes = info->n_inputs * (info->input_dtype == NIMBUS_F32 ? sizeof(float) : 1);
    if (!rows || !scores || !scratch || (n_rows > 1 && row_stride < row_bytes))
        return NIMBUS_ERR_ARGUMENT;

    scratch_sizes sizes = measure(program, n_rows);
    uint8_t *at = (uint8_t *)scratch + (-(uintptr_t)scratch & (NIMBUS_PAD - 1));
    block b = {.program = program, .kernels = program->kernels};
    b.activations[0] = at;
    b.activations[1] = at += sizes.activations;
    b.sums = at += sizes.activations;
    b.codes = at += sizes.sums;
    b.values = (int8_t *)(at + sizes.codes);
    for (size_t from = 0; from < n_rows; from += NIMBUS_BLOCK_ROWS) {
        b.n_rows = n_rows - from < NIMBUS_BLOCK_ROWS ? n_rows - from : NIMBUS_BLOCK_ROWS;
        b.n_padded = nimbus_rounded_up(b.n_rows, program->kernels->lanes);
        b.form = FORM_RAW;
        b.data = (const uint8_t *)rows + from * row_stride;
        b.stride = row_stride;
        b.spare = 0;
        b.scores = scores + from * info->n_outputs;
        run_block(&b);
    }
    return NIMBUS_OK;
}
