/* runner.c - runs a program on rows with several threads
 *
 * Rows are independent, so each thread takes a stretch of them and scratch of its own; the scores
 * do not depend on how many there are. */
#include <omp.h>
#include <stdlib.h>

#include "rows.h"

/* Rows: less is not worth a thread, and a program is fastest on whole blocks. */
#define STRETCH 256

struct row_runner {
    const nimbus_program *program;
    size_t n_threads, scratch_bytes; /* of one thread: whole cache lines */
    char *scratch;
};

nimbus_status runner_new(const nimbus_program *program, size_t max_rows, size_t n_threads,
                         row_runner **out, nimbus_error *error)
{
    row_runner *r = calloc(1, sizeof *r);
    size_t most = (max_rows + STRETCH - 1) / STRETCH;

    *out = NULL;
    if (!r)
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    r->program = program;
    r->n_threads = n_threads ? n_threads : (size_t)omp_get_max_threads();
    r->n_threads = r->n_threads < most ? r->n_threads : most;
    r->n_threads = r->n_threads ? r->n_threads : 1;
    r->scratch_bytes = (nimbus_scratch_size(program, max_rows) + 63) / 64 * 64;
    r->scratch = calloc(r->n_threads, r->scratch_bytes);
    if (!r->scratch) {
        free(r);
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory for %zu threads", n_threads);
    }
    *out = r;
    return NIMBUS_OK;
}

nimbus_status runner_run(row_runner *r, const void *rows, size_t row_stride, size_t n_rows,
                         int32_t *scores)
{
    const size_t n_outputs = nimbus_info(r->program)->n_outputs;
    const size_t n_stretches = (n_rows + STRETCH - 1) / STRETCH;
    const size_t n = r->n_threads < n_stretches ? r->n_threads : n_stretches;
    nimbus_status result = NIMBUS_OK;

#pragma omp parallel for num_threads((int)n) schedule(static) if (n > 1)
    for (size_t t = 0; t < n; t++) {
        size_t first = n_stretches * t / n * STRETCH, end = n_stretches * (t + 1) / n * STRETCH;
        end = end < n_rows ? end : n_rows;
        nimbus_status status =
            nimbus_run(r->program, (const char *)rows + first * row_stride, row_stride, end - first,
                       scores + first * n_outputs, r->scratch + t * r->scratch_bytes);
        if (status) {
#pragma omp atomic write
            result = status;
        }
    }
    return result;
}

void runner_free(row_runner *r)
{
    if (!r)
        return;
    free(r->scratch);
    free(r);
}
