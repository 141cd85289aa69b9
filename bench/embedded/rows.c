/* rows.c - rows of a data set and the scores that the runtime gives them, as bytes
 *
 * usage: embedded_rows PROGRAM.nimbus DATA test|all N ROWS SCORES
 * Writes N rows of that split, elements little-endian as the program reads them, and their scores,
 * i32 little-endian: what an exported program must give for them on any machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nimbus_build.h"

static void put(uint32_t value, size_t n_bytes, FILE *out)
{
    for (size_t i = 0; i < n_bytes; i++)
        putc((int)(value >> 8 * i & 255), out);
}

static int write_all(const nimbus_program *program, const nimbus_data *data, size_t n, FILE *rows,
                     FILE *scores)
{
    const nimbus_program_info *info = nimbus_info(program);
    const size_t bytes = info->input_dtype == NIMBUS_U8 ? 1 : 4, D = info->n_inputs;
    const unsigned char *x = nimbus_data_features(data);
    int32_t *y = malloc(n * info->n_outputs * sizeof *y);
    void *scratch = malloc(nimbus_scratch_size(program, n));
    const int ok = y && scratch && nimbus_run(program, x, D * bytes, n, y, scratch) == NIMBUS_OK;
    for (size_t i = 0; ok && i < n * D; i++) {
        uint32_t value = x[i];
        if (bytes == 4)
            memcpy(&value, x + 4 * i, 4);
        put(value, bytes, rows);
    }
    for (size_t i = 0; ok && i < n * info->n_outputs; i++)
        put((uint32_t)y[i], 4, scores);
    free(y);
    free(scratch);
    return ok;
}

int main(int argc, char **argv)
{
    nimbus_program *program = NULL;
    nimbus_data *data = NULL;
    nimbus_error error = {0};
    if (argc != 7) {
        fprintf(stderr, "usage: embedded_rows PROGRAM.nimbus DATA test|all N ROWS SCORES\n");
        return 2;
    }
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.n_rows = (size_t)strtoul(argv[4], NULL, 10);
    const nimbus_split split = strcmp(argv[3], "all") ? NIMBUS_SPLIT_TEST : NIMBUS_SPLIT_ALL;
    if (nimbus_open(argv[1], &program, &error) ||
        nimbus_data_open(argv[2], split, &options, &data, &error)) {
        fprintf(stderr, "embedded_rows: %s\n", error.message);
        return 1;
    }
    const nimbus_data_info *info = nimbus_data_get_info(data);
    if (info->n_features != nimbus_info(program)->n_inputs ||
        info->dtype != nimbus_info(program)->input_dtype) {
        fprintf(stderr, "embedded_rows: the data is not of the program's kind\n");
        return 1;
    }
    if (info->n_rows != options.n_rows) {
        fprintf(stderr, "embedded_rows: there are only %zu rows\n", info->n_rows);
        return 1;
    }
    FILE *rows = fopen(argv[5], "wb"), *scores = fopen(argv[6], "wb");
    int ok = rows && scores && write_all(program, data, info->n_rows, rows, scores);
    ok &= rows && fclose(rows) == 0;
    ok &= scores && fclose(scores) == 0;
    nimbus_close(program);
    nimbus_data_free(data);
    return ok ? 0 : 1;
}
