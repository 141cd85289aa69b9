/* measure.c - times a program and its peers fairly, and checks that they all still classify
 *
 * Contenders take turns round by round in one process, so that a change of clock speed or a noisy
 * neighbour hits all of them; each round's sample is CPU time of this thread, pinned to one core,
 * over enough calls to last about two milliseconds, walking through the rows. Reported are the
 * median over rounds and the 10th and 90th percentile. */
#define _GNU_SOURCE
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "bench_error.h"

#define ROUNDS           41
#define SAMPLE_NS        2e6
#define MADE_UP_ROWS     2048
#define CALIBRATION_ROWS 2048

typedef struct contender {
    bench_run_fn run;
    void *state[2]; /* for one row, for a batch */
} contender;

typedef struct program_state {
    const nimbus_program *program;
    void *scratch;
} program_state;

static nimbus_status run_program(void *state, const bench_rows *rows, size_t first, size_t n,
                                 void *outputs)
{
    const program_state *s = state;
    return nimbus_run(s->program, (const char *)rows->raw + first * rows->stride, rows->stride, n,
                      outputs, s->scratch);
}

static double thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* CPU ns per row of `calls` calls of n rows each; *at walks through the rows. */
static double time_calls(const contender *c, const bench_rows *rows, size_t n, size_t calls,
                         size_t *at, void *outputs)
{
    double start = thread_ns();
    for (size_t i = 0; i < calls; i++) {
        if (*at + n > rows->n)
            *at = 0;
        if (c->run(c->state[n > 1], rows, *at, n, outputs))
            return NAN;
        *at += n;
    }
    return (thread_ns() - start) / (double)(calls * n);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bench_time summary(double *samples)
{
    qsort(samples, ROUNDS, sizeof *samples, compare_doubles);
    return (bench_time){samples[ROUNDS / 2], samples[ROUNDS / 10],
                        samples[ROUNDS - 1 - ROUNDS / 10]};
}

/* All contenders at one batch size, taking turns. */
static void measure_batch(const contender *list, const bench_rows *rows, size_t n, void *outputs,
                          bench_time times[BENCH_PEERS])
{
    static double samples[BENCH_PEERS][ROUNDS];
    size_t calls[BENCH_PEERS], at[BENCH_PEERS] = {0};
    for (size_t k = 0; k < BENCH_PEERS; k++) {
        if (!list[k].run)
            continue;
        double ns = 0; /* warm-up, and how many calls fill a sample */
        for (int i = 0; i < 3; i++)
            ns = time_calls(&list[k], rows, n, 1 + 512 / n, &at[k], outputs) * (double)n;
        calls[k] = (size_t)fmin(fmax(SAMPLE_NS / fmax(ns, 1), 1), 1e6);
    }
    for (size_t r = 0; r < ROUNDS; r++)
        for (size_t k = 0; k < BENCH_PEERS; k++)
            if (list[k].run)
                samples[k][r] = time_calls(&list[k], rows, n, calls[k], &at[k], outputs);
    for (size_t k = 0; k < BENCH_PEERS; k++)
        if (list[k].run)
            times[k] = summary(samples[k]);
}

static int right(const void *outputs, int is_score, size_t row, size_t m, int32_t label)
{
    const int32_t *scores = (const int32_t *)outputs + row * m;
    const float *floats = (const float *)outputs + row * m;
    size_t best = 0;
    for (size_t j = 1; j < m; j++)
        if (is_score ? scores[j] > scores[best] : floats[j] > floats[best])
            best = j;
    return label >= 0 && best == (size_t)label;
}

/* Share of rows whose largest output is the label's; whole batches, single rows at the end. */
static double accuracy(const contender *c, int is_score, const bench_rows *rows, size_t m,
                       const int32_t *labels, void *outputs)
{
    size_t n_right = 0;
    for (size_t at = 0; at < rows->n;) {
        size_t n = rows->n - at >= BENCH_BATCH ? BENCH_BATCH : 1;
        if (c->run(c->state[n > 1], rows, at, n, outputs))
            return NAN;
        for (size_t i = 0; i < n; i++)
            n_right += (size_t)right(outputs, is_score, i, m, labels[at + i]);
        at += n;
    }
    return (double)n_right / (double)rows->n;
}

static void cpu_name(char *out, size_t size)
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

static void rows_free(bench_rows *rows)
{
    free((void *)(uintptr_t)rows->raw);
    free((void *)(uintptr_t)rows->float_rows);
    *rows = (bench_rows){0};
}

/* A copy of the rows of data (at most `limit`, 0: all), or made-up ones; at least one batch: the
 * rows are repeated as needed. */
static nimbus_status rows_make(const nimbus_program_info *info, const nimbus_data *data,
                               size_t limit, bench_rows *out, nimbus_error *error)
{
    size_t element = info->input_dtype == NIMBUS_U8 ? 1 : 4, have = MADE_UP_ROWS, n;
    const char *from = data ? nimbus_data_features(data) : NULL;
    if (data) {
        const nimbus_data_info *d = nimbus_data_get_info(data);
        have = limit && limit < d->n_rows ? limit : d->n_rows;
        if (d->n_features != info->n_inputs || d->dtype != info->input_dtype || have == 0)
            return bench_fail(
                error, NIMBUS_ERR_MISMATCH,
                "the program reads rows of %zu values, the data has %zu rows of %zu%s",
                info->n_inputs, d->n_rows, d->n_features,
                d->dtype == info->input_dtype ? "" : " of another type");
    }
    n = have < BENCH_BATCH ? BENCH_BATCH : have;
    const size_t width = info->n_inputs, stride = width * element;
    char *raw = aligned_alloc(64, (n * stride + 63) / 64 * 64);
    float *floats = aligned_alloc(64, (n * width * 4 + 63) / 64 * 64);
    *out = (bench_rows){n, width, stride, raw, floats};
    if (!raw || !floats) {
        rows_free(out);
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu rows", n);
    }
    uint32_t random = 1;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < width && !data; j++) {
            random = random * 1664525u + 1013904223u;
            float value = (float)(random >> 8) / 16777216.0f - 0.5f;
            if (element == 1)
                raw[i * stride + j] = (char)(random >> 24);
            else
                memcpy(raw + i * stride + j * 4, &value, 4);
        }
        if (data)
            memcpy(raw + i * stride, from + (i % have) * stride, stride);
    }
    for (size_t i = 0; i < n * width; i++)
        if (element == 1)
            floats[i] = (float)(unsigned char)raw[i];
        else
            memcpy(&floats[i], raw + i * 4, 4);
    return NIMBUS_OK;
}

/* Both peers; whatever cannot be built is skipped and says why. */
static void add_peers(const nimbus_net *net, const nimbus_program_info *info, bench_mlp *mlp,
                      const bench_rows *calibration, contender *list, bench_report *out)
{
    nimbus_error error = {0};
    bench_onednn *int8[2] = {NULL};
    bench_openblas *float32 = NULL;
    if (!net)
        snprintf(out->reason, sizeof out->reason, "no float net was given (--float FILE.net)");
    else if (bench_mlp_from_net(net, mlp, &error))
        snprintf(out->reason, sizeof out->reason, "%s", error.message);
    else if (mlp->layers[0].d != calibration->d ||
             mlp->layers[mlp->n_layers - 1].m != info->n_outputs ||
             mlp->input_dtype != info->input_dtype)
        snprintf(out->reason, sizeof out->reason,
                 "the float net has %zu inputs and %zu outputs, the program %zu and %zu",
                 mlp->layers[0].d, mlp->layers[mlp->n_layers - 1].m, info->n_inputs,
                 info->n_outputs);
    else {
        if (bench_openblas_new(mlp, BENCH_BATCH, &float32, &error) ||
            bench_onednn_new(mlp, 1, calibration, &int8[0], &error) ||
            bench_onednn_new(mlp, BENCH_BATCH, calibration, &int8[1], &error))
            snprintf(out->reason, sizeof out->reason, "%s", error.message);
        if (int8[0] && int8[1])
            list[1] = (contender){bench_onednn_run, {int8[0], int8[1]}};
        else
            bench_onednn_free(int8[0]);
        if (float32)
            list[2] = (contender){bench_openblas_run, {float32, float32}};
    }
    for (size_t k = 1; k < BENCH_PEERS; k++)
        if (!list[k].run)
            out->results[k].skipped = out->reason;
}

/* Holds this thread on its present core and the libraries at one thread; and lets go again. */
typedef struct pinning {
    cpu_set_t cores;
    int omp_threads, blas_threads;
} pinning;

static pinning pin(void)
{
    pinning before = {.omp_threads = omp_get_max_threads(),
                      .blas_threads = openblas_get_num_threads()};
    cpu_set_t one;
    int core = sched_getcpu();
    CPU_ZERO(&one);
    CPU_SET((size_t)(core < 0 ? 0 : core), &one);
    sched_getaffinity(0, sizeof before.cores, &before.cores);
    sched_setaffinity(0, sizeof one, &one);
    omp_set_num_threads(1);
    openblas_set_num_threads(1);
    return before;
}

static void unpin(const pinning *before)
{
    sched_setaffinity(0, sizeof before->cores, &before->cores);
    omp_set_num_threads(before->omp_threads);
    openblas_set_num_threads(before->blas_threads);
}

static void measure_all(const contender *list, bench_rows *rows, const nimbus_data *data, size_t m,
                        void *outputs, bench_report *out)
{
    static const char *const names[BENCH_PEERS] = {"nimbus program", "oneDNN int8", "OpenBLAS f32"};
    const int32_t *labels = data ? nimbus_data_labels(data) : NULL;
    bench_time times[2][BENCH_PEERS];
    measure_batch(list, rows, 1, outputs, times[0]);
    measure_batch(list, rows, BENCH_BATCH, outputs, times[1]);
    if (labels)
        rows->n = out->n_rows; /* without the repeated ones */
    for (size_t k = 0; k < BENCH_PEERS; k++) {
        bench_result *r = &out->results[k];
        r->name = names[k];
        r->accuracy = NAN;
        if (!list[k].run)
            continue;
        r->single = times[0][k];
        r->batch = times[1][k];
        if (labels)
            r->accuracy = accuracy(&list[k], k == 0, rows, m, labels, outputs);
    }
}

nimbus_status bench_measure(const nimbus_program *program, const nimbus_net *float_net,
                            const nimbus_data *data, const nimbus_data *calibration,
                            bench_report *out, nimbus_error *error)
{
    const nimbus_program_info *info = nimbus_info(program);
    bench_rows rows = {0}, ranges = {0};
    bench_mlp mlp = {0};
    contender list[BENCH_PEERS] = {{0}};
    program_state state = {program, malloc(nimbus_scratch_size(program, BENCH_BATCH))};
    void *outputs = aligned_alloc(64, (BENCH_BATCH * info->n_outputs * 4 + 63) / 64 * 64);
    nimbus_status status;

    *out = (bench_report){.isa = nimbus_isa(program),
                          .rounds = ROUNDS,
                          .n_rows = data ? nimbus_data_get_info(data)->n_rows : 0};
    cpu_name(out->cpu, sizeof out->cpu);
    if (!state.scratch || !outputs) {
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    if ((status = rows_make(info, data, 0, &rows, error)) ||
        (status =
             rows_make(info, calibration ? calibration : data, CALIBRATION_ROWS, &ranges, error)))
        goto done;
    pinning before = pin();
    list[0] = (contender){run_program, {&state, &state}};
    add_peers(float_net, info, &mlp, &ranges, list, out);
    measure_all(list, &rows, data, info->n_outputs, outputs, out);
    unpin(&before);
done:
    if (list[1].run) {
        bench_onednn_free(list[1].state[0]);
        bench_onednn_free(list[1].state[1]);
    }
    if (list[2].run)
        bench_openblas_free(list[2].state[0]);
    bench_mlp_free(&mlp);
    rows_free(&rows);
    rows_free(&ranges);
    free(state.scratch);
    free(outputs);
    return status;
}
