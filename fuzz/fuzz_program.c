/* fuzz_program.c - any bytes as a program: refused, or loaded and run on a few rows
 *
 * Bytes are tried as they are and with their checksums made right, since those keep every mutation
 * from the reader behind them. A program that loads must give the same scores for a row whether it
 * runs alone, among others or in place, and has to become C or be refused. Seeds are programs on
 * rows (random_*) and on images (image_*). */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "nimbus_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum {
    N_ROWS = 40,
    MAX_INPUTS = 1 << 14,
    MAX_SCRATCH = 1 << 20,
    MAX_WORK = 1 << 24,
    MAX_EXPORTED = 1 << 14
};

static void put_u32le(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* Writes the sums of the sections, the table and the header wherever they can be found. */
static void repair(uint8_t *bytes, size_t size)
{
    nimbus_reader r = nimbus_reader_of(bytes, size);
    (void)nimbus_read_bytes(&r, 12);
    uint32_t n_sections = nimbus_read_u32le(&r);
    (void)nimbus_read_bytes(&r, 16);
    for (uint32_t i = 0; i < n_sections && nimbus_reader_left(&r) >= 24; i++) {
        uint8_t *entry = bytes + r.at;
        (void)nimbus_read_bytes(&r, 8);
        uint64_t offset = nimbus_read_u64le(&r), length = nimbus_read_u64le(&r);
        if (offset <= size && length <= size - offset)
            put_u32le(entry + 4, nimbus_crc32c(0, bytes + offset, (size_t)length));
    }
    if (r.failed)
        return;
    put_u32le(bytes + 24, nimbus_crc32c(0, bytes + 32, r.at - 32));
    put_u32le(bytes + 28, nimbus_crc32c(0, bytes, 28));
}

/* The row's scores from the bytes themselves. */
static void run_in_place(const uint8_t *bytes, size_t size, const uint8_t *row,
                         const int32_t *scores, size_t M)
{
    nimbus_in_place *program;
    const size_t n_memory = 1 << 18;
    uint8_t *memory = nimbus_alloc(n_memory, 1);
    int32_t *same = nimbus_alloc(M, sizeof *same);
    if (!memory || !same)
        abort();
    nimbus_status status = nimbus_in_place_open(bytes, size, memory, n_memory, &program, NULL);
    if (status != NIMBUS_OK && status != NIMBUS_ERR_MEMORY) /* thousands of steps */
        abort();
    if (status == NIMBUS_OK) {
        void *scratch = nimbus_alloc(nimbus_in_place_scratch_size(program), 1);
        if (!scratch || nimbus_in_place_run(program, row, same, scratch) != NIMBUS_OK ||
            memcmp(same, scores, M * sizeof *same) != 0)
            abort();
        nimbus_free(scratch);
    }
    nimbus_free(memory);
    nimbus_free(same);
}

static void export_it(const uint8_t *bytes, size_t size)
{
    nimbus_export_options options = NIMBUS_EXPORT_OPTIONS_INIT;
    nimbus_export *result;
    nimbus_error error = {.status = NIMBUS_OK};
    options.n_golden = 1;
    options.table_bits = size % 6 < 4 ? 0 : 4 + (unsigned)(size % 5);
    nimbus_status status = nimbus_export_c(bytes, size, &options, &result, &error);
    if ((status == NIMBUS_OK) != (result != NULL) || (status && !error.message[0]))
        abort();
    nimbus_export_free(result);
}

static void run(const nimbus_program *program, const uint8_t *bytes, size_t size)
{
    const nimbus_program_info *info = nimbus_info(program);
    size_t row_bytes = info->n_inputs * (info->input_dtype == NIMBUS_F32 ? sizeof(float) : 1);
    size_t M = info->n_outputs;
    if (info->n_inputs > MAX_INPUTS)
        return;
    if (info->channels && (nimbus_scratch_size(program, 1) > MAX_SCRATCH ||
                           info->lookups + info->comparisons + info->multiply_adds > MAX_WORK))
        return; /* planes need not be in the file */
    uint8_t *rows = nimbus_alloc(N_ROWS, row_bytes);
    int32_t *scores = nimbus_alloc(N_ROWS * M, sizeof *scores);
    int32_t *alone = nimbus_alloc(M, sizeof *alone);
    void *scratch = nimbus_alloc(nimbus_scratch_size(program, N_ROWS), 1);
    if (!rows || !scores || !alone || !scratch)
        abort();
    for (size_t i = 0; i < N_ROWS * row_bytes; i++)
        rows[i] = (uint8_t)(bytes[i % size] + i);
    if (nimbus_run(program, rows, row_bytes, N_ROWS, scores, scratch) != NIMBUS_OK)
        abort();
    for (size_t r = 0; r < N_ROWS; r += N_ROWS - 1)
        if (nimbus_run(program, rows + r * row_bytes, row_bytes, 1, alone, scratch) != NIMBUS_OK ||
            memcmp(alone, scores + r * M, M * sizeof *alone) != 0)
            abort();
    const size_t work = info->lookups + info->comparisons + info->multiply_adds;
    if (work <= MAX_WORK >> 4) {
        run_in_place(bytes, size, rows, scores, M);
        if (size <= MAX_EXPORTED)
            export_it(bytes, size);
    }
    nimbus_free(rows);
    nimbus_free(scores);
    nimbus_free(alone);
    nimbus_free(scratch);
}

static void check(const uint8_t *bytes, size_t size)
{
    nimbus_program *program;
    nimbus_error error = {.status = NIMBUS_OK};
    nimbus_status status = nimbus_load(bytes, size, &program, &error);
    if (status != NIMBUS_OK) {
        if (program || error.status != status || !error.message[0] || error.offset > size)
            abort();
        return;
    }
    run(program, bytes, size);
    nimbus_close(program);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = nimbus_alloc(size, 1);
    check(size ? bytes : copy, size);
    if (copy && size) {
        memcpy(copy, bytes, size);
        repair(copy, size);
        check(copy, size);
    }
    nimbus_free(copy);
    return 0;
}
