/* latency.c - how long one call with one row takes, call by call
 *
 * Warm: calls follow each other. Cold: before every call a buffer larger than the caches is read
 * and written line by line, so that the program's tables, the row, and the code itself come from
 * memory (and their pages' addresses from the page tables). Calls are timed by the time stamp
 * counter between fences, or by CLOCK_MONOTONIC where there is none; the timer's own time, the
 * median of empty calls, is taken off. Contenders take turns round by round. Wall time: what an
 * interrupted call took, it took. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

#define WARM_CALLS   2500 /* a round */
#define COLD_CALLS   25
#define SETTLE_CALLS 100                /* before the warm ones, not timed */
#define COLD_BYTES   ((size_t)64 << 20) /* at least */
#define COLD_LIMIT   ((size_t)256 << 20)

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

double bench_bin_start(size_t bin)
{
    return exp2(3 + (double)bin / BENCH_BINS_PER_OCTAVE);
}

static size_t bin_of(double ns)
{
    double bin = (log2(fmax(ns, 1)) - 3) * BENCH_BINS_PER_OCTAVE;
    return (size_t)fmin(fmax(bin, 0), BENCH_BINS - 1);
}

/* The smallest sample that at least this share of them does not exceed. */
static double percentile(const float *sorted, size_t n, double share)
{
    size_t i = (size_t)ceil(share * (double)n);
    return (double)sorted[i > 0 ? i - 1 : 0];
}

static void summarise(float *samples, bench_latency *out)
{
    for (size_t i = 0; i < out->n; i++)
        out->bins[bin_of((double)samples[i])]++;
    qsort(samples, out->n, sizeof *samples, compare_floats);
    out->p50 = percentile(samples, out->n, 0.5);
    out->p99 = percentile(samples, out->n, 0.99);
    out->p999 = percentile(samples, out->n, 0.999);
    out->max = (double)samples[out->n - 1];
}

typedef struct timing {
    const bench_rows *rows;
    size_t at;
    void *outputs;
    double ns, timer_ns;
    unsigned char *sweep;
    size_t sweep_bytes;
} timing;

static void sweep_caches(timing *t)
{
    for (size_t i = 0; i < t->sweep_bytes; i += 64)
        t->sweep[i]++;
}

/* One timed call; the time goes to *sample. */
static nimbus_status time_one(timing *t, const bench_runner *r, int cold, float *sample)
{
    size_t row = t->at;
    t->at = t->at + 1 < t->rows->n_walk ? t->at + 1 : 0;
    if (cold)
        sweep_caches(t);
    uint64_t start = bench_ticks();
    nimbus_status status = r->run(r->state, t->rows, row, 1, t->outputs);
    uint64_t end = bench_ticks();
    *sample = (float)fmax((double)(end - start) * t->ns - t->timer_ns, 0);
    return status;
}

/* Calls of one round; samples NULL: they only warm up. */
static nimbus_status time_some(timing *t, const bench_runner *r, int cold, size_t n, float *samples)
{
    float unused;
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < n && !status; i++)
        status = time_one(t, r, cold, samples ? samples + i : &unused);
    return status;
}

/* Twice the last level cache, where that is known, within limits. */
static size_t sweep_size(void)
{
    size_t kib = 0, bytes = COLD_BYTES;
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (file) {
        if (fscanf(file, "%zuK", &kib) == 1 && 2 * (kib << 10) > bytes)
            bytes = 2 * (kib << 10);
        fclose(file);
    }
    return bytes < COLD_LIMIT ? bytes : COLD_LIMIT;
}

nimbus_status bench_measure_latency(const bench_runner *runners, size_t n_runners,
                                    const bench_rows *rows, size_t n_outputs, bench_report *report,
                                    nimbus_error *error)
{
    static const size_t calls[2] = {WARM_CALLS, COLD_CALLS};
    const size_t rounds = report->rounds;
    float *samples[4] = {NULL};
    timing t = {.rows = rows, .outputs = malloc(n_outputs * 4), .sweep_bytes = sweep_size()};
    nimbus_status status = NIMBUS_OK;
    t.sweep = calloc(t.sweep_bytes, 1);
    for (size_t k = 0; k < 2 * n_runners; k++)
        samples[k] = malloc(rounds * calls[k % 2] * sizeof *samples[k]);
    if (!t.outputs || !t.sweep || !samples[0] || !samples[1] ||
        (n_runners > 1 && (!samples[2] || !samples[3]))) {
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    t.ns = bench_ns_per_tick();
    t.timer_ns = bench_timer_ns(t.ns);
    report->timer_ns = t.timer_ns;
    report->cold_bytes = t.sweep_bytes;
    for (size_t r = 0; r < rounds && !status; r++)
        for (size_t k = 0; k < 2 * n_runners && !status; k++) {
            int cold = k % 2;
            if (!cold)
                status = time_some(&t, &runners[k / 2], 0, SETTLE_CALLS, NULL);
            if (!status)
                status =
                    time_some(&t, &runners[k / 2], cold, calls[cold], samples[k] + r * calls[cold]);
        }
    if (status) {
        status = bench_fail(error, status, "a contender failed while its latency was measured");
        goto done;
    }
    for (size_t k = 0; k < 2 * n_runners; k++) {
        bench_latency *l = &report->latencies[k];
        *l = (bench_latency){
            .contender = runners[k / 2].contender, .cold = k % 2, .n = rounds * calls[k % 2]};
        summarise(samples[k], l);
    }
    report->n_latencies = 2 * n_runners;
done:
    for (size_t k = 0; k < 4; k++)
        free(samples[k]);
    free(t.outputs);
    free(t.sweep);
    return status;
}
