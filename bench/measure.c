/* measure.c - the clock, and timing several things in turns
 *
 * All tasks take turns round by round in one process, so that a change of clock speed or a noisy
 * neighbour hits all of them alike. A round's sample of a task is CPU time of this thread, pinned
 * to one core, over enough calls to last about two milliseconds; half as many before it, not timed,
 * bring the task's data back into the caches that the tasks before it used. Reported are the median
 * over rounds and the 10th and 90th percentile. */
#define _GNU_SOURCE
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "bench.h"
#include "bench_error.h"

#define EMPTY_CALLS  10001
#define TRIAL_ROUNDS 5

static double clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double bench_wall_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* CPU ns per call; NaN if a call fails. */
static double time_calls(const bench_task *task, size_t calls)
{
    if (task->sample)
        return task->sample(task->state);
    double start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (size_t i = 0; i < calls; i++)
        if (task->call(task->state))
            return NAN;
    return (clock_ns(CLOCK_THREAD_CPUTIME_ID) - start) / (double)calls;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_time bench_summary(double *samples, size_t n, double units)
{
    qsort(samples, n, sizeof *samples, compare_doubles);
    return (bench_time){samples[n / 2] / units, samples[n / 10] / units,
                        samples[n - 1 - n / 10] / units};
}

static nimbus_status task_failed(const bench_task *task, nimbus_error *error)
{
    return bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "%s failed while it was timed", task->name);
}

nimbus_status bench_interleave(bench_task *tasks, size_t n_tasks, size_t rounds,
                               nimbus_error *error)
{
    double *samples = calloc(n_tasks * rounds, sizeof *samples); /* [n_tasks][rounds] */
    size_t *calls = calloc(n_tasks, sizeof *calls);
    nimbus_status status = NIMBUS_OK;
    if (!samples || !calls) {
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu rounds", rounds);
        goto done;
    }
    for (size_t k = 0; k < n_tasks; k++) {
        double ns = time_calls(&tasks[k], 2); /* warm-up, and how many calls fill a sample */
        for (int i = 0; i < 2 && isfinite(ns); i++) {
            calls[k] = (size_t)fmin(fmax(BENCH_SAMPLE_NS / fmax(ns, 1), 1), 1e6);
            ns = time_calls(&tasks[k], calls[k] / 4 + 1);
        }
        if (isnan(ns)) {
            status = task_failed(&tasks[k], error);
            goto done;
        }
        calls[k] = (size_t)fmin(fmax(BENCH_SAMPLE_NS / fmax(ns, 1), 1), 1e6);
    }
    for (size_t r = 0; r < rounds; r++)
        for (size_t k = 0; k < n_tasks; k++) {
            double *sample = &samples[k * rounds + r];
            double before = tasks[k].call ? time_calls(&tasks[k], calls[k] / 2 + 1) : 0;
            *sample = isnan(before) ? NAN : time_calls(&tasks[k], calls[k]);
            if (isnan(*sample)) {
                status = task_failed(&tasks[k], error);
                goto done;
            }
        }
    for (size_t k = 0; k < n_tasks; k++)
        tasks[k].ns = bench_summary(samples + k * rounds, rounds, tasks[k].units);
done:
    free(samples);
    free(calls);
    return status;
}

nimbus_status bench_fastest(bench_task *tasks, size_t n_tasks, size_t *best, nimbus_error *error)
{
    *best = 0;
    if (n_tasks < 2)
        return NIMBUS_OK;
    nimbus_status status = bench_interleave(tasks, n_tasks, TRIAL_ROUNDS, error);
    for (size_t k = 1; k < n_tasks && !status; k++)
        if (tasks[k].ns.median < tasks[*best].ns.median)
            *best = k;
    return status;
}

/* ---- short times */

uint64_t bench_ticks(void)
{
#if defined(__x86_64__)
    _mm_lfence();
    uint64_t t = __rdtsc();
    _mm_lfence();
    return t;
#else
    return (uint64_t)bench_wall_ns();
#endif
}

double bench_ns_per_tick(void)
{
#if defined(__x86_64__)
    double start = bench_wall_ns(), end;
    uint64_t first = bench_ticks();
    while ((end = bench_wall_ns()) < start + 2e7)
        ;
    return (end - start) / (double)(bench_ticks() - first);
#else
    return 1;
#endif
}

double bench_timer_ns(double ns_per_tick)
{
    static double samples[EMPTY_CALLS];
    for (size_t i = 0; i < EMPTY_CALLS; i++) {
        uint64_t start = bench_ticks();
        samples[i] = (double)(bench_ticks() - start) * ns_per_tick;
    }
    return bench_summary(samples, EMPTY_CALLS, 1).median;
}

/* ---- the core's clock */

#define CHAIN_LOOPS 200
#define CHAIN_ADDS  10

/* Adds a register, not a constant: newer cores fold chains of constants at renaming. */
static nimbus_status add_chain(void *state)
{
    uint64_t x = 1, one = 1;
    (void)state;
    for (int i = 0; i < CHAIN_LOOPS; i++) {
#if defined(__x86_64__)
        __asm__ volatile("add %1,%0\nadd %1,%0\nadd %1,%0\nadd %1,%0\nadd %1,%0\n"
                         "add %1,%0\nadd %1,%0\nadd %1,%0\nadd %1,%0\nadd %1,%0\n"
                         : "+r"(x)
                         : "r"(one)
                         : "cc");
#elif defined(__aarch64__)
        __asm__ volatile("add %0,%0,%1\nadd %0,%0,%1\nadd %0,%0,%1\nadd %0,%0,%1\nadd %0,%0,%1\n"
                         "add %0,%0,%1\nadd %0,%0,%1\nadd %0,%0,%1\nadd %0,%0,%1\nadd %0,%0,%1\n"
                         : "+r"(x)
                         : "r"(one));
#else
        (void)one;
#endif
    }
    return x ? NIMBUS_OK : NIMBUS_ERR_STATE;
}

bench_task bench_clock_task(void)
{
    return (bench_task){.name = "clock", .call = add_chain, .units = CHAIN_LOOPS * CHAIN_ADDS};
}

double bench_clock_ghz(const bench_task *clock)
{
#if defined(__x86_64__) || defined(__aarch64__)
    return 1 / clock->ns.median;
#else
    (void)clock;
    return NAN;
#endif
}

/* ---- the machine */

void bench_cpu_name(char *out, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(out, size, "unknown CPU");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

struct bench_pinning {
    cpu_set_t cores;
    int omp_threads, blas_threads;
};

bench_pinning *bench_pin(void)
{
    bench_pinning *before = malloc(sizeof *before);
    if (!before)
        return NULL;
    cpu_set_t one;
    int core = sched_getcpu();
    CPU_ZERO(&one);
    CPU_SET((size_t)(core < 0 ? 0 : core), &one);
    sched_getaffinity(0, sizeof before->cores, &before->cores);
    sched_setaffinity(0, sizeof one, &one);
    before->omp_threads = omp_get_max_threads();
    before->blas_threads = openblas_get_num_threads();
    omp_set_num_threads(1);
    openblas_set_num_threads(1);
    return before;
}

void bench_unpin(bench_pinning *before)
{
    if (!before)
        return;
    sched_setaffinity(0, sizeof before->cores, &before->cores);
    omp_set_num_threads(before->omp_threads);
    openblas_set_num_threads(before->blas_threads);
    free(before);
}
