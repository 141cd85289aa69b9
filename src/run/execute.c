/* execute.c - run a program on rows
 *
 * Rows are taken in blocks; a block goes through all steps before the next one starts, so that
 * activations stay in the cache. Between steps they are i8, column-major if the step that made
 * them ran in columns, else row-major (program.h); a step that wants the other form transposes.
 * All working memory is the caller's scratch, cut up once per call. */
#include <string.h>

#include "run/image/image.h"
#include "run/program.h"

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- working memory ----------------------------------------------------------------------- */

nimbus_scratch nimbus_scratch_measure(const nimbus_program *program)
{
    const nimbus_shape *shape = &program->kernels->shape;
    nimbus_scratch s = {0};
    for (size_t i = 0; i < program->info.n_steps; i++) {
        const nimbus_program_step *step = &program->steps[i];
        const bool exact = step->info.kind == NIMBUS_STEP_EXACT;
        const bool columns = nimbus_step_has_columns(step, program->kernels);
        size_t D = nimbus_padded(step->n_inputs), M = nimbus_padded(step->n_outputs);
        size_t C = nimbus_padded(step->n_codebooks), group_bytes = nimbus_group_bytes(shape);
        size_t width = M;
        if (step->input == NIMBUS_IN_I8 || exact)
            width = larger(width, D);
        if (step->float_parts)
            s.floats = larger(s.floats, step->n_columns * sizeof(float) * NIMBUS_PAD);
        else if (columns)
            width = larger(width, step->n_columns);
        s.activations = larger(s.activations, width);
        if (columns && !exact)
            s.codes = larger(s.codes, C);
        if (columns && (exact || nimbus_step_is_packed(step, program->kernels)))
            s.packed = larger(s.packed, exact ? D * group_bytes : C);
        if (columns)
            s.sums = NIMBUS_MAX_TILE * sizeof(int32_t);
        s.row_codes = larger(s.row_codes, C);
        if (exact)
            s.row_packed = larger(s.row_packed, D * group_bytes * NIMBUS_EXACT_ROWS);
        s.row_sums = larger(s.row_sums, M * sizeof(int32_t) * (exact ? NIMBUS_EXACT_ROWS : 1));
    }
    return s;
}

size_t nimbus_block_rows(const nimbus_program *program)
{
    const nimbus_scratch *s = &program->scratch;
    size_t rows = NIMBUS_BLOCK_ROWS;
    while (rows > NIMBUS_PAD &&
           rows * (2 * s->activations + s->codes + s->packed) > NIMBUS_BLOCK_BYTES)
        rows /= 2;
    return rows;
}

/* Rows that buffers of a block of n_rows have room for. */
static size_t room(const nimbus_program *program, size_t n_rows)
{
    const size_t rows = n_rows < program->block_rows ? n_rows : program->block_rows;
    return rows < program->least_in_columns ? rows : nimbus_padded(rows);
}

/* Bytes of columns of floats where there is room for so many rows. */
static size_t floats(const nimbus_program *program, size_t rows)
{
    return rows < program->least_in_columns ? 0 : program->scratch.floats;
}

size_t nimbus_scratch_size(const nimbus_program *program, size_t n_rows)
{
    const nimbus_scratch *s = &program->scratch;
    if (program->image)
        return nimbus_image_scratch_size(program, n_rows);
    const size_t rows = room(program, n_rows);
    return nimbus_padded((2 * s->activations + s->codes + s->packed + s->sums) * rows) +
           floats(program, rows) + s->row_codes + s->row_packed + s->row_sums + NIMBUS_PAD;
}

void nimbus_block_init(nimbus_block *b, const nimbus_program *program, size_t n_rows, void *scratch)
{
    const nimbus_scratch *s = &program->scratch;
    const size_t rows = room(program, n_rows);
    uint8_t *at = (uint8_t *)scratch + (-(uintptr_t)scratch & (NIMBUS_PAD - 1));
    *b = (nimbus_block){.program = program, .kernels = program->kernels};
    b->row_sums = at;
    b->row_codes = at += s->row_sums;
    b->row_packed = at += s->row_codes;
    b->floats = (float *)(void *)(at += s->row_packed);
    b->activations[0] = at += floats(program, rows);
    b->activations[1] = at += s->activations * rows;
    b->sums = at += s->activations * rows;
    b->codes = at += s->sums * rows;
    b->packed = at + s->codes * rows;
}

static uint8_t *spare_activations(const nimbus_block *b)
{
    return b->activations[b->spare];
}

/* The spare activations now hold the data. */
static void advance(nimbus_block *b, nimbus_form form, size_t stride)
{
    b->data = b->activations[b->spare];
    b->spare ^= 1;
    b->form = form;
    b->stride = stride;
}

/* Turns n sums into i8 outputs. Output m comes first; all n are sums
 * of it if `one_output`, else they are outputs m, m + 1, ... */
static void finish(const nimbus_block *b, const nimbus_program_step *step, const int32_t *sums,
                   size_t n, size_t m, bool one_output, int8_t *out)
{
    const nimbus_kernels *k = b->kernels;
    if (step->output == NIMBUS_OUT_SCALED)
        k->scale_i32i8(sums, n, step->scale + m, step->offset + m, !one_output, out);
    else
        k->shift_i32i8(sums, n, step->shift, out);
    if (step->has_map)
        k->map_i8i8(out, n, step->map, out);
}

/* ---- steps in columns -------------------------------------------------------------------- */

static void quantise_rows(nimbus_block *b, const nimbus_program_step *step)
{
    const size_t D = step->n_inputs, stride = nimbus_padded(D);
    uint8_t *out = spare_activations(b);
    for (size_t r = 0; r < b->n_rows; r++)
        b->kernels->quantise_f32i8((const float *)(const void *)(b->data + r * b->stride), D,
                                   step->in_scale, step->in_offset, (int8_t *)out + r * stride);
    advance(b, NIMBUS_ROWS, stride);
}

/* Brings the inputs of a step that runs in columns into columns, n rows apart. */
static void to_columns(nimbus_block *b, const nimbus_program_step *step, size_t n)
{
    const bool raw = b->form == NIMBUS_RAW;
    if (b->form == NIMBUS_COLUMNS)
        return;
    if (raw && step->input == NIMBUS_IN_F32)
        quantise_rows(b, step);
    bool u8 = b->form == NIMBUS_RAW;
    b->kernels->transpose_u8u8(
        b->data, b->stride, u8 ? step->n_inputs : nimbus_padded(step->n_inputs), b->n_rows,
        u8 ? step->parts : NULL, u8 ? step->n_parts : (step->n_inputs + 15) / 16, u8 ? 0x80 : 0,
        spare_activations(b), n);
    advance(b, NIMBUS_COLUMNS, n);
}

/* Codes of n rows of a few codebooks from columns. */
static void encode(const nimbus_block *b, const nimbus_program_step *step,
                   const nimbus_trees *trees, const uint8_t *columns, size_t stride, size_t n,
                   uint8_t *codes, size_t codes_stride)
{
    const nimbus_kernels *k = b->kernels;
    if (step->input == NIMBUS_IN_F32)
        (step->info.shared_columns ? k->encode_f32u8 : k->encode_nodes_f32u8)(
            trees, (const float *)(const void *)columns, stride, n, codes, codes_stride);
    else if (step->info.shared_columns)
        k->encode_i8u8(trees, (const int8_t *)columns, stride, n, codes, codes_stride);
    else
        k->encode_nodes_i8u8(trees, (const int8_t *)columns, stride, n, codes, codes_stride);
}

/* From raw u8 rows to codes, NIMBUS_PAD rows at a time, stage by stage. */
static void encode_raw(const nimbus_block *b, const nimbus_program_step *step, size_t stride)
{
    const size_t H = step->n_levels, n_nodes = step->n_leaves - 1;
    const size_t columns = step->info.shared_columns ? H : n_nodes;
    const size_t thresholds =
        step->info.shared_columns ? nimbus_level_threshold_bytes(H) : 4 * n_nodes;
    uint8_t *slots = spare_activations(b);
    for (size_t r = 0; r < b->n_rows; r += NIMBUS_PAD) {
        const size_t left = b->n_rows - r, rows = left < NIMBUS_PAD ? left : NIMBUS_PAD;
        for (size_t i = 0; i < step->n_stages; i++) {
            const nimbus_stage *stage = &step->stages[i];
            const size_t c = stage->first_codebook;
            b->kernels->transpose_u8u8(b->data + r * b->stride, b->stride, step->n_inputs, rows,
                                       step->parts + stage->first_part, stage->n_parts, 0x80, slots,
                                       NIMBUS_PAD);
            nimbus_trees trees = {step->trees.columns + c * columns,
                                  (const int8_t *)step->trees.thresholds + c * thresholds,
                                  stage->n_codebooks, H};
            encode(b, step, &trees, slots, NIMBUS_PAD, rows, b->codes + c * stride + r, stride);
        }
    }
}

/* From raw f32 rows to codes of n rows, NIMBUS_PAD rows at a time. */
static void encode_floats(const nimbus_block *b, const nimbus_program_step *step, size_t n,
                          size_t stride)
{
    for (size_t r = 0; r < n; r += NIMBUS_PAD) {
        b->kernels->transpose_f32(b->data + r * b->stride, b->stride, step->n_inputs, b->n_rows - r,
                                  step->float_parts, step->n_parts, b->floats);
        encode(b, step, &step->trees, (const uint8_t *)b->floats, NIMBUS_PAD,
               n - r < NIMBUS_PAD ? n - r : NIMBUS_PAD, b->codes + r, stride);
    }
}

/* Outputs m .. of a tile, from codes or packed columns; `out` is where output m goes. */
static void run_tile(nimbus_block *b, const nimbus_program_step *step, size_t m, size_t n,
                     size_t stride, int8_t *out)
{
    const nimbus_kernels *k = b->kernels;
    const size_t left = step->n_outputs - m, size = k->shape.tile;
    const size_t n_outputs = left < size ? left : size;
    const bool wide = step->n_leaves > 16, packed = nimbus_step_is_packed(step, k);
    if (step->info.kind == NIMBUS_STEP_EXACT) {
        k->dot_columns_i32(&step->weights, m, b->packed, stride, n, b->sums);
    } else {
        const nimbus_tile *tile = &step->tiles[m / size];
        const uint8_t *codes = packed ? b->packed : b->codes;
        if (step->in_bytes) {
            (wide ? k->wide_u8i8 : k->lookup_u8i8)(tile, codes, stride, wide ? stride : n,
                                                   step->shift, out, stride);
            for (size_t t = 0; t < n_outputs && step->has_map; t++)
                k->map_i8i8(out + t * stride, stride, step->map, out + t * stride);
            return;
        }
        (wide ? k->wide_u8i32 : k->lookup_u8i32)(tile, codes, stride, wide ? stride : n, b->sums,
                                                 stride);
    }
    if (step->output == NIMBUS_OUT_I32)
        k->scores_i32i32(b->sums, stride, b->n_rows, n_outputs, b->scores + m, step->n_outputs);
    for (size_t t = 0; t < n_outputs && step->output != NIMBUS_OUT_I32; t++)
        finish(b, step, (int32_t *)b->sums + t * stride, stride, m + t, true, out + t * stride);
}

/* Whatever the tiles of a step read: codes, packed where they are to be, or packed inputs. */
static void prepare_block(nimbus_block *b, const nimbus_program_step *step, size_t n, size_t stride)
{
    const nimbus_kernels *k = b->kernels;
    const bool exact = step->info.kind == NIMBUS_STEP_EXACT;
    if (b->form == NIMBUS_RAW && step->stages) {
        encode_raw(b, step, stride);
    } else if (b->form == NIMBUS_RAW && step->float_parts) {
        encode_floats(b, step, n, stride);
    } else {
        to_columns(b, step, stride);
        if (!exact)
            encode(b, step, &step->trees, b->data, stride, n, b->codes, stride);
    }
    if (exact)
        k->pack_u8u8(b->data, stride, n, step->n_inputs, k->shape.flip * 0x01010101u, b->packed,
                     stride);
    else if (nimbus_step_is_packed(step, k))
        k->pack_u8u8(b->codes, stride, n, step->n_codebooks, NIMBUS_CODES_OF_QUADS, b->packed,
                     stride);
}

static void run_in_columns(nimbus_block *b, const nimbus_program_step *step)
{
    const nimbus_kernels *k = b->kernels;
    const size_t n = nimbus_rounded_up(b->n_rows, k->shape.granule);
    const size_t stride = nimbus_padded(b->n_rows);
    prepare_block(b, step, n, stride);
    int8_t *out = (int8_t *)spare_activations(b);
    for (size_t m = 0; m < step->n_outputs; m += k->shape.tile)
        run_tile(b, step, m, n, stride, out + m * stride);
    advance(b, NIMBUS_COLUMNS, stride);
}

/* ---- steps in rows ----------------------------------------------------------------------- */

/* Brings the inputs of a step that runs in rows into rows: i8, or raw for a lookup step. */
static void to_rows(nimbus_block *b, const nimbus_program_step *step)
{
    const size_t D = step->n_inputs, stride = nimbus_padded(D);
    if (b->form == NIMBUS_ROWS || (b->form == NIMBUS_RAW && step->info.kind == NIMBUS_STEP_LOOKUP))
        return;
    uint8_t *out = spare_activations(b);
    if (b->form == NIMBUS_RAW && step->input == NIMBUS_IN_F32) {
        quantise_rows(b, step);
        return;
    }
    if (b->form == NIMBUS_COLUMNS)
        b->kernels->transpose_u8u8(b->data, b->stride, b->stride, D, NULL, (b->n_rows + 15) / 16, 0,
                                   out, stride);
    else
        for (size_t r = 0; r < b->n_rows; r++)
            for (size_t d = 0; d < D; d++)
                out[r * stride + d] = b->data[r * b->stride + d] ^ 0x80;
    advance(b, NIMBUS_ROWS, stride);
}

/* Walks the trees of a step for one row; `value` reads x of column d. */
#define WALK(type, value)                                                                          \
    const size_t n_nodes = step->n_leaves - 1;                                                     \
    const uint32_t *column = step->columns;                                                        \
    const type *threshold = step->thresholds;                                                      \
    for (size_t c = 0; c < step->n_codebooks; c++, column += n_nodes, threshold += n_nodes) {      \
        size_t i = 0;                                                                              \
        while (i < n_nodes) {                                                                      \
            uint32_t d = column[i];                                                                \
            i = 2 * i + 1 + ((value) > threshold[i]);                                              \
        }                                                                                          \
        codes[c] = (uint8_t)(i - n_nodes);                                                         \
    }

/* Codebook by codebook: what a set's own walks are quicker at. */
static void walk_row(const nimbus_program_step *step, const uint8_t *x, uint8_t *codes)
{
    if (step->input == NIMBUS_IN_F32) {
        const float *row = (const float *)(const void *)x;
        WALK(float, row[d])
    } else {
        const uint8_t flip = step->input == NIMBUS_IN_U8 ? 0x80 : 0;
        WALK(int8_t, (int8_t)(x[d] ^ flip))
    }
}

void nimbus_encode_row(const nimbus_kernels *kernels, const nimbus_program_step *step,
                       const uint8_t *x, uint8_t *codes)
{
    uint8_t row[16]; /* of which windows load all, and trees read what the row has */
    if (step->walk.thresholds && step->input == NIMBUS_IN_U8 && step->n_inputs < sizeof row) {
        memset(row, 0, sizeof row);
        memcpy(row, x, step->n_inputs);
        x = row;
    }
    if (!step->walk.thresholds)
        walk_row(step, x, codes);
    else if (step->input == NIMBUS_IN_F32)
        kernels->walk_f32u8(&step->walk, (const float *)(const void *)x, codes);
    else if (step->info.shared_columns)
        kernels->walk_u8u8(&step->walk, x, codes);
    else
        kernels->walk_nodes_u8u8(&step->walk, x, 0, 1, codes, 0);
}

/* Has the first bytes of a row brought into the cache, all at once: lines that nobody has touched
 * for long would come one after the other, as trees ask for them. More than a page would drive out
 * what trees need, and the CPU sees by then where reading goes. */
static void fetch(const uint8_t *row, size_t n)
{
    n = n < 4096 ? n : 4096;
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(row + i);
    __builtin_prefetch(row + n - 1);
}

static void run_lookup_in_rows(nimbus_block *b, const nimbus_program_step *step)
{
    const size_t M = step->n_outputs, stride = nimbus_padded(M);
    uint8_t *out = spare_activations(b);
    for (size_t r = 0; r < b->n_rows; r++) {
        if (b->form == NIMBUS_RAW && step->input == NIMBUS_IN_U8)
            fetch(b->data + r * b->stride, step->n_inputs);
        nimbus_encode_row(b->kernels, step, b->data + r * b->stride, b->row_codes);
        int8_t *row = (int8_t *)out + r * stride;
        if (step->narrow) {
            b->kernels->add_u8i8(&step->table, b->row_codes, step->even_bias, step->odd_bias,
                                 step->shift, row);
            if (step->has_map)
                b->kernels->map_i8i8(row, stride, step->map, row);
            continue;
        }
        b->kernels->add_u8i32(&step->table, b->row_codes, step->row_bias, b->row_sums);
        if (step->output == NIMBUS_OUT_I32)
            memcpy(b->scores + r * M, b->row_sums, M * sizeof *b->scores);
        else
            finish(b, step, b->row_sums, stride, 0, false, row);
    }
    advance(b, NIMBUS_ROWS, stride);
}

/* The groups of a row of i8 (nimbus_weights); D is rounded up, what stands there meets no weight.
 */
static void pack_row(const nimbus_shape *shape, const int8_t *x, size_t D, uint8_t *packed)
{
    if (shape->group == 2)
        for (size_t d = 0; d < D; d++)
            ((int16_t *)(void *)packed)[d] = x[d];
    else
        for (size_t d = 0; d < D; d++)
            packed[d] = (uint8_t)x[d] ^ shape->flip;
}

static void run_exact_in_rows(nimbus_block *b, const nimbus_program_step *step)
{
    const nimbus_shape *shape = &b->kernels->shape;
    const size_t M = step->n_outputs, stride = nimbus_padded(M), D = nimbus_padded(step->n_inputs);
    const size_t packed_stride = D * nimbus_group_bytes(shape);
    int8_t *out = (int8_t *)spare_activations(b);
    int32_t *sums = b->row_sums;
    for (size_t r = 0; r < b->n_rows; r += NIMBUS_EXACT_ROWS) {
        size_t n = b->n_rows - r < NIMBUS_EXACT_ROWS ? b->n_rows - r : NIMBUS_EXACT_ROWS;
        for (size_t i = 0; i < n; i++)
            pack_row(shape, (const int8_t *)b->data + (r + i) * b->stride, D,
                     b->row_packed + i * packed_stride);
        b->kernels->dot_rows_i32(&step->weights, b->row_packed, packed_stride, n, sums, stride);
        for (size_t i = 0; i < n; i++) {
            if (step->output == NIMBUS_OUT_I32)
                memcpy(b->scores + (r + i) * M, sums + i * stride, M * sizeof *sums);
            else
                finish(b, step, sums + i * stride, stride, 0, false, out + (r + i) * stride);
        }
    }
    advance(b, NIMBUS_ROWS, stride);
}

/* ---- blocks ------------------------------------------------------------------------------ */

void nimbus_block_run_step(nimbus_block *b, const nimbus_program_step *step, bool in_columns)
{
    if (in_columns) {
        run_in_columns(b, step);
        return;
    }
    to_rows(b, step);
    if (step->info.kind == NIMBUS_STEP_EXACT)
        run_exact_in_rows(b, step);
    else
        run_lookup_in_rows(b, step);
}

/* All steps for n_rows raw rows, in columns those that want it for so many. */
static void run_rows(nimbus_block *b, const uint8_t *rows, size_t row_stride, size_t n_rows,
                     int32_t *scores, bool columns, nimbus_watch watch)
{
    const nimbus_program *program = b->program;
    const size_t filled = columns ? nimbus_rounded_up(n_rows, b->kernels->shape.granule) : 0;
    b->n_rows = n_rows;
    b->form = NIMBUS_RAW;
    b->data = rows;
    b->stride = row_stride;
    b->spare = 0;
    b->scores = scores;
    for (size_t i = 0; i < program->info.n_steps; i++) {
        nimbus_block_run_step(b, &program->steps[i],
                              columns && filled >= program->steps[i].columns_from);
        nimbus_watch_step(watch, i);
    }
}

static nimbus_status run(const nimbus_program *program, const void *rows, size_t row_stride,
                         size_t n_rows, int32_t *scores, void *scratch, nimbus_watch watch)
{
    if (!program)
        return NIMBUS_ERR_ARGUMENT;
    if (n_rows == 0)
        return NIMBUS_OK;
    const nimbus_program_info *info = &program->info;
    size_t row_bytes = info->n_inputs * (info->input_dtype == NIMBUS_F32 ? sizeof(float) : 1);
    if (!rows || !scores || !scratch || (n_rows > 1 && row_stride < row_bytes))
        return NIMBUS_ERR_ARGUMENT;
    if (program->image) {
        nimbus_image_run(program, rows, row_stride, n_rows, scores, scratch, watch);
        return NIMBUS_OK;
    }

    nimbus_block b;
    nimbus_block_init(&b, program, n_rows, scratch);
    const uint8_t *from = rows;
    while (n_rows > 0) {
        size_t n = n_rows < program->block_rows ? n_rows : program->block_rows;
        const bool columns = program->n_in_columns[n] > 0;
        if (columns)
            n = program->n_in_columns[n];
        run_rows(&b, from, row_stride, n, scores, columns, watch);
        from += n * row_stride;
        scores += n * info->n_outputs;
        n_rows -= n;
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_run(const nimbus_program *program, const void *rows, size_t row_stride,
                         size_t n_rows, int32_t *scores, void *scratch)
{
    return run(program, rows, row_stride, n_rows, scores, scratch, (nimbus_watch){0});
}

nimbus_status nimbus_run_watched(const nimbus_program *program, const void *rows, size_t row_stride,
                                 size_t n_rows, int32_t *scores, void *scratch,
                                 nimbus_watch_fn seen, void *user)
{
    return run(program, rows, row_stride, n_rows, scores, scratch, (nimbus_watch){seen, user});
}
