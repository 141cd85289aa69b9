/* sweep.c - time per row of the program as the batch grows: powers of two, odd sizes, and those
 * next to where kernels change their way of working */
#include <stdlib.h>

#include "bench.h"
#include "bench_error.h"

static const size_t sizes[] = {
    33,  40,  47,  48,  49,  56,  63,  64,  65,  72,  79,  80,  81,  96,  97,   100,  111, 112, 127,
    128, 129, 144, 160, 161, 176, 192, 200, 208, 224, 240, 255, 256, 257, 288,  300,  320, 352, 384,
    400, 448, 500, 511, 512, 513, 576, 640, 704, 768, 800, 896, 960, 999, 1000, 1023, 1024};
#define SMALL_SIZES 32 /* every one of them */
#define N_SIZES     (SMALL_SIZES + sizeof sizes / sizeof *sizes)
_Static_assert(N_SIZES <= BENCH_MAX_SWEEP, "the report has room for every size");

static void find_rise(bench_sweep *out)
{
    size_t least = 0;
    for (size_t i = 1; i < out->n_points; i++) {
        double rise = out->ns[i].median / out->ns[least].median - 1;
        if (rise > out->rise) {
            out->rise = rise;
            out->rise_from = out->batch[least];
            out->rise_to = out->batch[i];
        }
        if (out->ns[i].median < out->ns[least].median)
            least = i;
    }
}

nimbus_status bench_measure_sweep(const bench_runner *program, const bench_rows *rows,
                                  size_t n_outputs, bench_report *report, nimbus_error *error)
{
    static bench_walk walks[N_SIZES];
    static bench_task tasks[N_SIZES];
    void *outputs = aligned_alloc(64, (BENCH_SWEEP_LARGEST * n_outputs * 4 + 63) / 64 * 64);
    if (!outputs)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < N_SIZES; i++) {
        size_t n = i < SMALL_SIZES ? i + 1 : sizes[i - SMALL_SIZES];
        walks[i] = (bench_walk){program->run, program->state, rows, n, 0, outputs};
        tasks[i] = (bench_task){.name = "nimbus program",
                                .call = bench_walk_on,
                                .state = &walks[i],
                                .units = (double)n};
    }
    nimbus_status status = bench_interleave(tasks, N_SIZES, report->rounds, error);
    if (!status) {
        bench_sweep *out = &report->sweep;
        *out = (bench_sweep){.n_points = N_SIZES};
        for (size_t i = 0; i < N_SIZES; i++) {
            out->batch[i] = walks[i].n;
            out->ns[i] = tasks[i].ns;
        }
        find_rise(out);
    }
    free(outputs);
    return status;
}
