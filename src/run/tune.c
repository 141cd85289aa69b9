/* tune.c - decide by measurement what runs in columns and what in rows (program.h)
 *
 * When a program is loaded, each of its steps is timed on made-up rows: one row in rows, and one to
 * four granules of rows in columns, transposing from rows included. A step runs in columns from the
 * number of rows on where that is faster; and of a whole block so many rows run in columns as make
 * the sum of the steps' times least. Either way gives the same bits, so nothing but time depends on
 * the measurement. */
#include <stdlib.h>
#include <string.h>

#include "run/program.h"

enum { UNITS = 4 };           /* granules of rows that are timed */
#define MEASURE_SECONDS 30e-6 /* of one timing, at least one run */
#define PROGRAM_SECONDS 0.2   /* about, of all timings together: many steps get shorter ones */
#define LONG_RUN        1e-3  /* seconds: a run that takes longer is timed twice only */
#define TIMINGS         5     /* the fastest counts */
/* More than that is not made up: whatever can runs in columns. */
#define MOST_ROWS_BYTES (4 << 20)
/* Nor are programs timed that need so much working memory: a timing would take long. */
#define MOST_SCRATCH_BYTES (64 << 20)

/* Seconds that a block of u granules takes in columns, [0]: one row in rows. */
typedef struct step_times {
    double seconds[UNITS + 1];
} step_times;

/* Working memory of the timing. */
typedef struct tuning {
    const nimbus_program *program;
    void *scratch;
    uint8_t *rows; /* raw */
    size_t row_bytes;
    int32_t *scores;
    double seconds; /* of one timing */
} tuning;

/* The input of a product on its own (product.c), which is i8, counts as raw here: in columns, as
 * its callers have it, nothing is transposed. Reading a row up to a multiple of NIMBUS_PAD stays
 * within the rows made up, since they are at least NIMBUS_PAD. */
static void run_once(const tuning *t, size_t i, size_t n_rows, bool columns)
{
    const nimbus_program *program = t->program;
    nimbus_block b;
    nimbus_block_init(&b, program, n_rows, t->scratch);
    b.n_rows = n_rows;
    b.scores = t->scores;
    b.form = i == 0 ? NIMBUS_RAW : NIMBUS_ROWS;
    b.data = i == 0 ? t->rows : b.activations[0];
    b.stride = i == 0 ? t->row_bytes : nimbus_padded(program->steps[i].n_inputs);
    b.spare = 1;
    nimbus_block_run_step(&b, &program->steps[i], columns);
}

static double time_once(const tuning *t, size_t i, size_t n_rows, bool columns)
{
    double began = nimbus_seconds();
    run_once(t, i, n_rows, columns);
    return nimbus_seconds() - began;
}

static double time_step(const tuning *t, size_t i, size_t n_rows, bool columns)
{
    double best = time_once(t, i, n_rows, columns); /* into the caches */
    if (best >= LONG_RUN) {                         /* or interrupted: once more tells */
        double again = time_once(t, i, n_rows, columns);
        best = again < best ? again : best;
    }
    for (int k = 0; best < LONG_RUN && k < TIMINGS; k++) {
        size_t runs = 0;
        double start = nimbus_seconds(), now;
        do {
            run_once(t, i, n_rows, columns);
            runs++;
            now = nimbus_seconds();
        } while (now - start < t->seconds);
        double seconds = (now - start) / (double)runs;
        best = k == 0 || seconds < best ? seconds : best;
    }
    return best;
}

/* Times a step, and sets from how many rows on it runs in columns. */
static void tune_step(const tuning *t, size_t i, step_times *times)
{
    const nimbus_kernels *kernels = t->program->kernels;
    nimbus_program_step *step = &t->program->steps[i];
    const size_t granule = kernels->shape.granule;
    times->seconds[0] = time_step(t, i, 1, false);
    step->columns_from = SIZE_MAX;
    for (size_t u = 1; u <= UNITS; u++) {
        const size_t n_rows = u * granule;
        double in_rows = times->seconds[0] * (double)n_rows;
        times->seconds[u] = in_rows;
        if (!nimbus_step_has_columns(step, kernels))
            continue;
        double in_columns = n_rows <= t->program->block_rows
                                ? time_step(t, i, n_rows, true)
                                : times->seconds[u - 1] * (double)u / (double)(u - 1);
        if (in_columns < in_rows) {
            times->seconds[u] = in_columns;
            if (step->columns_from > n_rows)
                step->columns_from = n_rows;
        }
    }
}

/* Seconds for so many granules in columns, by the times of all steps together: what exceeds the
 * most that were timed costs as much as alone. A timing runs the same rows again and again; calls
 * that walk through rows were seen (Zen 4) to take half as much time again for so few. */
static double columns_seconds(const step_times *all, size_t units)
{
    const size_t rest = units % UNITS;
    return all->seconds[UNITS] * (double)(units / UNITS) + (rest ? 1.5 * all->seconds[rest] : 0);
}

/* For every number of rows the number of granules in columns, the last one filled up, that makes
 * the time least when the other rows run one by one. */
static void choose_rows(nimbus_program *program, const step_times *all)
{
    const size_t granule = program->kernels->shape.granule;
    for (size_t n = 1; n <= NIMBUS_BLOCK_ROWS; n++) {
        double best = all->seconds[0] * (double)n;
        for (size_t units = 1; units * granule < n + granule; units++) {
            size_t in_columns = units * granule < n ? units * granule : n;
            double seconds =
                columns_seconds(all, units) + all->seconds[0] * (double)(n - in_columns);
            if (seconds < best) {
                best = seconds;
                program->n_in_columns[n] = (uint16_t)in_columns;
            }
        }
    }
}

/* Everything that can runs in columns from n rows on, at least one, and in rows below. */
static void columns_from(nimbus_program *program, size_t n)
{
    for (size_t i = 0; i < program->info.n_steps; i++)
        if (nimbus_step_has_columns(&program->steps[i], program->kernels))
            program->steps[i].columns_from = n;
    for (; n <= NIMBUS_BLOCK_ROWS; n++)
        program->n_in_columns[n] = (uint16_t)n;
}

static nimbus_status tune(nimbus_program *program, nimbus_error *error)
{
    const nimbus_program_info *info = &program->info;
    const size_t granule = program->kernels->shape.granule, most = UNITS * granule;
    step_times all = {{0}};
    nimbus_status status = NIMBUS_OK;
#ifdef NIMBUS_TEST_HOOKS
    const char *forced = getenv("NIMBUS_COLUMNS_FROM"); /* rows, for tests */
    if (forced) {
        columns_from(program, strtoul(forced, NULL, 10));
        return NIMBUS_OK;
    }
#endif
    tuning t = {.program = program,
                .row_bytes = info->n_inputs * (info->input_dtype == NIMBUS_F32 ? 4 : 1)};
    if (t.row_bytes > MOST_ROWS_BYTES / most ||
        nimbus_scratch_size(program, most) > MOST_SCRATCH_BYTES) {
        columns_from(program, granule);
        return NIMBUS_OK;
    }
    t.scratch = nimbus_alloc(nimbus_scratch_size(program, most), 1);
    t.rows = nimbus_alloc_product(most, t.row_bytes, 1, 0);
    t.scores = nimbus_alloc_product(most, info->n_outputs, sizeof *t.scores, 0);
    if (!t.scratch || !t.rows || !t.scores) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory measuring the program");
        goto done;
    }
    t.seconds = PROGRAM_SECONDS / (double)(info->n_steps * (UNITS + 1) * TIMINGS);
    t.seconds = t.seconds < MEASURE_SECONDS ? t.seconds : MEASURE_SECONDS;
    for (size_t i = 0; i < most * t.row_bytes; i++)
        t.rows[i] = (uint8_t)((i * 2654435761u) >> 13);
    for (size_t i = 0; i < info->n_steps; i++) {
        step_times times;
        tune_step(&t, i, &times);
        for (size_t u = 0; u <= UNITS; u++)
            all.seconds[u] += times.seconds[u];
    }
    choose_rows(program, &all);
done:
    nimbus_free(t.scratch);
    nimbus_free(t.rows);
    nimbus_free(t.scores);
    return status;
}

nimbus_status nimbus_program_tune(nimbus_program *program, nimbus_error *error)
{
    const size_t granule = program->kernels->shape.granule;
    program->scratch = nimbus_scratch_measure(program);
    program->block_rows = nimbus_block_rows(program);
    program->least_in_columns = granule;
    nimbus_status status = granule ? tune(program, error) : NIMBUS_OK;
    size_t least = 1;
    while (least <= NIMBUS_BLOCK_ROWS && program->n_in_columns[least] == 0)
        least++;
    program->least_in_columns = least;
    return status;
}
