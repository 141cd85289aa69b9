/* threads.c - run one program on many rows with several threads
 *
 *     cc -O2 threads.c $(pkg-config --cflags --libs nimbus) -lpthread -o threads
 *     ./threads PROGRAM.nimbus ROWS N_THREADS
 *
 * ROWS is a file of raw rows, one after another without a header, in the type that the program
 * reads (784 bytes each for MNIST). Prints the class of every row.
 *
 * A loaded program is immutable and nimbus_run keeps nothing between calls, so threads need no
 * lock: each takes a stretch of the rows, writes its own part of the scores, and brings its own
 * scratch. Rows do not influence each other: the scores are the same for any number of threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "nimbus.h"

/* What one thread does: rows first..first+n_rows-1. */
typedef struct job {
    const nimbus_program *program;
    const char *rows;
    size_t row_bytes, n_rows;
    int32_t *scores;
    nimbus_status status;
} job;

static void *run_job(void *argument)
{
    job *j = argument;
    void *scratch = malloc(nimbus_scratch_size(j->program, j->n_rows));
    j->status = scratch
                    ? nimbus_run(j->program, j->rows, j->row_bytes, j->n_rows, j->scores, scratch)
                    : NIMBUS_ERR_MEMORY;
    free(scratch);
    return NULL;
}

/* Cuts n_rows rows into n_threads stretches; the calling thread takes the last. */
static nimbus_status run_threads(const nimbus_program *program, const char *rows, size_t row_bytes,
                                 size_t n_rows, int32_t *scores, size_t n_threads)
{
    const size_t n_outputs = nimbus_info(program)->n_outputs;
    pthread_t *threads = calloc(n_threads, sizeof *threads);
    job *jobs = calloc(n_threads, sizeof *jobs);
    nimbus_status status = threads && jobs ? NIMBUS_OK : NIMBUS_ERR_MEMORY;
    size_t started = 0;

    for (size_t t = 0; t < n_threads && status == NIMBUS_OK; t++) {
        size_t first = n_rows * t / n_threads, end = n_rows * (t + 1) / n_threads;
        jobs[t] = (job){program,     rows + first * row_bytes,   row_bytes,
                        end - first, scores + first * n_outputs, NIMBUS_OK};
        if (t + 1 == n_threads)
            run_job(&jobs[t]);
        else if (pthread_create(&threads[t], NULL, run_job, &jobs[t]) == 0)
            started++;
        else
            status = NIMBUS_ERR_MEMORY;
    }
    for (size_t t = 0; t < started; t++)
        pthread_join(threads[t], NULL);
    for (size_t t = 0; t < n_threads && status == NIMBUS_OK; t++)
        status = jobs[t].status;
    free(threads);
    free(jobs);
    return status;
}

/* The whole file; NULL if it cannot be read. */
static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *bytes = NULL;
    long end;
    *size = 0;
    if (file && fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) >= 0 &&
        fseek(file, 0, SEEK_SET) == 0 && (bytes = malloc((size_t)end + 1)))
        *size = fread(bytes, 1, (size_t)end, file);
    if (file)
        fclose(file);
    return bytes;
}

int main(int argc, char **argv)
{
    nimbus_program *program = NULL;
    nimbus_error error;
    char *rows = NULL;
    int32_t *scores = NULL;
    size_t size, n_threads = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    int code = 1;

    if (n_threads == 0 || n_threads > 1024) {
        fprintf(stderr, "usage: threads PROGRAM.nimbus ROWS N_THREADS\n");
        return 2;
    }
    if (nimbus_open(argv[1], &program, &error) != NIMBUS_OK) {
        fprintf(stderr, "%s\n", error.message);
        goto done;
    }
    const nimbus_program_info *info = nimbus_info(program);
    size_t row_bytes = info->n_inputs * (info->input_dtype == NIMBUS_U8 ? 1 : 4);
    rows = read_file(argv[2], &size);
    if (!rows || size == 0 || size % row_bytes != 0) {
        fprintf(stderr, "%s: not a file of rows of %zu bytes\n", argv[2], row_bytes);
        goto done;
    }
    size_t n_rows = size / row_bytes;
    scores = calloc(n_rows, info->n_outputs * sizeof *scores);
    if (!scores || run_threads(program, rows, row_bytes, n_rows, scores, n_threads) != NIMBUS_OK) {
        fprintf(stderr, "out of memory or threads\n");
        goto done;
    }
    for (size_t r = 0; r < n_rows; r++) {
        const int32_t *s = scores + r * info->n_outputs;
        size_t best = 0;
        for (size_t m = 1; m < info->n_outputs; m++)
            best = s[m] > s[best] ? m : best;
        printf("%zu\n", best);
    }
    code = 0;
done:
    free(rows);
    free(scores);
    nimbus_close(program);
    return code;
}
