/* test_run.c - running programs: the same bits on every path and instruction set
 *
 * The reference interpreter below follows base/program_format.h line by line and row by row; all
 * comparisons are for equality. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "guarded.h"
#include "nimbus.h"
#include "program_maker.h"
#include "run/kernels.h"
#include "watched.h"

/* ---- the reference ----------------------------------------------------------------------- */

static int8_t saturated(double x)
{
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

/* nearbyint in the default rounding mode: to nearest, ties to even. The product is rounded first:
 * compilers may not fuse it with the addition. */
static int8_t rounded(float a, float b, float offset)
{
    volatile float product = a * b;
    float x = product + offset;
    return isnan(x) ? 0 : saturated(nearbyint((double)x));
}

/* One step on one row: the outputs as i32 scores or i8 values widened. */
static void reference_step(const made_step *s, const uint8_t *u8, const float *f32,
                           const int32_t *i8, int32_t *out)
{
    size_t K = made_leaves(s);
    for (size_t m = 0; m < s->M; m++) {
        int64_t sum = s->bias[m];
        for (size_t c = 0; c < s->C; c++) {
            size_t node = 0;
            for (size_t h = 0; h < s->H; h++) {
                size_t column = s->flags & NIMBUS_FLAG_PER_NODE ? s->columns[c * (K - 1) + node]
                                                                : s->columns[c * s->H + h];
                size_t t = c * (K - 1) + node;
                bool right = u8    ? u8[column] - 128 > s->thresholds[t]
                             : f32 ? f32[column] > s->f_thresholds[t]
                                   : i8[column] > s->thresholds[t];
                node = 2 * node + 1 + right;
            }
            sum += s->tables[(c * K + node - (K - 1)) * s->M + m];
        }
        for (size_t d = 0; s->kind == NIMBUS_STEP_EXACT && d < s->D; d++) {
            int x = u8    ? u8[d] - 128
                    : f32 ? rounded(f32[d], s->in_scale[d], s->in_offset[d])
                          : i8[d];
            sum += s->weights[m * s->D + d] * x;
        }
        assert_true(sum >= INT32_MIN && sum <= INT32_MAX);
        out[m] = (int32_t)sum;
        if (s->output == NIMBUS_OUT_SHIFT)
            out[m] = saturated(floor((double)sum / (double)(1 << s->shift)));
        if (s->output == NIMBUS_OUT_SCALED)
            out[m] = rounded((float)out[m], s->scale[m], s->offset[m]);
        if (s->flags & NIMBUS_FLAG_MAP)
            out[m] = s->map[out[m] + 128];
    }
}

static void reference_row(const made_program *program, const void *row, int32_t *scores)
{
    int32_t *in = NULL;
    for (uint32_t i = 0; i < program->n_steps; i++) {
        const made_step *s = &program->steps[i];
        int32_t *out = made_array(s->M, sizeof *out);
        reference_step(s, i == 0 && program->input_dtype == NIMBUS_U8 ? row : NULL,
                       i == 0 && program->input_dtype == NIMBUS_F32 ? row : NULL, in, out);
        free(in);
        in = out;
    }
    memcpy(scores, in, program->steps[program->n_steps - 1].M * sizeof *scores);
    free(in);
}

/* ---- help -------------------------------------------------------------------------------- */

static nimbus_program *load(const nimbus_buffer *file)
{
    nimbus_program *program = NULL;
    nimbus_error error = {0};
    if (nimbus_load(file->bytes, file->size, &program, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    return program;
}

static size_t row_bytes(const made_program *p)
{
    return p->steps[0].D * (p->input_dtype == NIMBUS_F32 ? sizeof(float) : 1);
}

/* Inputs that meet thresholds exactly, and the special floats. */
static void fill_row(const made_program *p, made_random *random, uint8_t *row)
{
    for (uint32_t d = 0; d < p->steps[0].D; d++) {
        if (p->input_dtype == NIMBUS_U8) {
            row[d] = (uint8_t)made_below(random, 256);
            continue;
        }
        static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
        float x = made_float(random, 3.0f);
        const made_step *s = &p->steps[0];
        if (made_below(random, 10) == 0)
            x = special[made_below(random, 5)];
        else if (s->f_thresholds && made_below(random, 3) == 0)
            x = s->f_thresholds[made_below(random, s->C * (made_leaves(s) - 1))];
        memcpy(row + 4 * d, &x, 4);
    }
}

/* ---- same bits --------------------------------------------------------------------------- */

/* Runs n rows with guard pages directly behind rows, scores and scratch. */
static void check_rows(const made_program *made, const nimbus_program *program, size_t n,
                       size_t stride, const uint8_t *rows, size_t rows_stride,
                       const int32_t *expected)
{
    size_t M = made->steps[made->n_steps - 1].M, bytes = row_bytes(made);
    guarded in = guarded_alloc((n - 1) * stride + bytes);
    guarded out = guarded_alloc(n * M * sizeof(int32_t));
    guarded scratch = guarded_alloc(nimbus_scratch_size(program, n));
    memset(scratch.map, 0xa5, scratch.map_size - (size_t)sysconf(_SC_PAGESIZE));
    for (size_t r = 0; r < n; r++)
        memcpy(in.at + r * stride, rows + r * rows_stride, bytes);
    made_run(program, in.at, stride, n, (int32_t *)(void *)out.at, scratch.at, n % 3 == 1);
    const int32_t *scores = (const int32_t *)(const void *)out.at;
    for (size_t i = 0; i < n * M; i++)
        if (scores[i] != expected[i])
            fail_msg("isa %s, %zu rows: row %zu, output %zu is %d, expected %d",
                     nimbus_isa(program), n, i / M, i % M, scores[i], expected[i]);
    guarded_free(&in);
    guarded_free(&out);
    guarded_free(&scratch);
}

/* Rows of a program, and the scores they must get. */
typedef struct sample {
    const made_program *made;
    const nimbus_buffer *file;
    const uint8_t *rows; /* [][row_bytes] */
    const int32_t *expected;
    const size_t *counts; /* how many rows to run at a time */
    size_t n_counts;
} sample;

/* In columns from where the loaded program has measured that they pay, from the first row on, and
 * never. */
static void check_sample(const sample *s, made_random *random)
{
    static const char *const columns_from[] = {NULL, "1", "100000"};
    const size_t bytes = row_bytes(s->made);
    for (size_t k = 0; k < sizeof columns_from / sizeof *columns_from; k++) {
        if (columns_from[k])
            setenv("NIMBUS_COLUMNS_FROM", columns_from[k], 1);
        nimbus_program *program = load(s->file);
        unsetenv("NIMBUS_COLUMNS_FROM");
        for (size_t i = 0; i < s->n_counts; i++) {
            size_t gap = made_below(random, 3) * (s->made->input_dtype == NIMBUS_F32 ? 4 : 7);
            check_rows(s->made, program, s->counts[i], bytes + gap, s->rows, bytes, s->expected);
        }
        nimbus_close(program);
    }
}

/* With every instruction set of this machine, best first, plain C last. */
static void check_program(const made_program *made, uint64_t seed, const size_t *counts,
                          size_t n_counts)
{
    nimbus_buffer file = made_write(made);
    made_random random = {seed, 1u << 20};
    size_t M = made->steps[made->n_steps - 1].M, bytes = row_bytes(made), most = 0;
    for (size_t i = 0; i < n_counts; i++)
        most = counts[i] > most ? counts[i] : most;
    uint8_t *rows = made_array(most, bytes);
    int32_t *expected = made_array(most * M, sizeof *expected);
    for (size_t r = 0; r < most; r++) {
        fill_row(made, &random, rows + r * bytes);
        uint32_t aligned[4096];
        memcpy(aligned, rows + r * bytes, bytes);
        reference_row(made, aligned, expected + r * M);
    }
    const sample all = {made, &file, rows, expected, counts, n_counts};
    char disabled[256] = "";
    for (size_t i = nimbus_kernel_table_size; i-- > 0;) {
        if (!nimbus_kernel_table[i].usable())
            continue;
        setenv("NIMBUS_DISABLE_ISA", disabled, 1);
        check_sample(&all, &random);
        size_t length = strlen(disabled);
        snprintf(disabled + length, sizeof disabled - length, "%s%s", length ? "," : "",
                 nimbus_kernel_table[i].isa);
    }
    unsetenv("NIMBUS_DISABLE_ISA");
    free(rows);
    free(expected);
    nimbus_buffer_free(&file);
}

static void test_random_programs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 150; seed++) {
        made_program made = made_random_program(seed, seed % 5 == 0 ? 140 : 40);
        made_random random = {seed, 1u << 24};
        size_t counts[] = {
            1, 2, 23, 24, 31, 32, 33, 64, 65, 1 + made_below(&random, 257), seed % 10 ? 17 : 300};
        check_program(&made, seed, counts, sizeof counts / sizeof *counts);
        made_free(&made);
    }
}

/* A lookup step from D inputs to M outputs, and an exact one of those. */
static made_program sized_program(uint64_t seed, uint32_t D, uint32_t M, uint32_t H)
{
    made_random random = {seed, 0};
    made_program made = {.input_dtype = seed % 4 == 3 ? NIMBUS_F32 : NIMBUS_U8, .n_steps = 2};
    made.steps[0] = (made_step){.kind = NIMBUS_STEP_LOOKUP,
                                .D = D,
                                .M = M,
                                .C = 1 + made_below(&random, 12),
                                .H = H,
                                .flags = seed % 5 == 4 ? NIMBUS_FLAG_PER_NODE : 0,
                                .input = made.input_dtype,
                                .output = NIMBUS_OUT_SHIFT,
                                .shift = made_below(&random, 4)};
    made.steps[1] = (made_step){.kind = NIMBUS_STEP_EXACT,
                                .D = M,
                                .M = 1 + made_below(&random, 6),
                                .input = NIMBUS_IN_I8,
                                .output = NIMBUS_OUT_I32};
    for (size_t i = 0; i < 2; i++)
        made_fill_step(&random, &made.steps[i]);
    return made;
}

/* Every width up to 257, K = 2..64. */
static void test_widths(void **state)
{
    (void)state;
    for (uint32_t width = 1; width <= 257; width++) {
        made_random random = {width, 1u << 24};
        made_program made =
            sized_program(width, width, 1 + made_below(&random, 257), 1 + width % 6);
        size_t counts[] = {1, 1 + made_below(&random, 40), 64};
        check_program(&made, width, counts, 3);
        made_free(&made);
    }
}

/* Every number of rows up to 257, for every K = 2..64, raw input and form of tree. */
static void test_row_counts(void **state)
{
    (void)state;
    size_t counts[257];
    for (size_t i = 0; i < 257; i++)
        counts[i] = i + 1;
    for (uint32_t seed = 0; seed < 20; seed++) {
        made_program made = sized_program(seed, 21, 9, 1 + seed % 6);
        check_program(&made, seed, counts, 257);
        made_free(&made);
    }
}

/* What widths and seeds alone might not meet: rows shorter than a window or a part, or as long,
 * columns per node and per level of every dtype, more codebooks than a register has lanes. */
static void test_shapes(void **state)
{
    (void)state;
    static const uint32_t widths[] = {1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1500};
    static const uint32_t codebooks[] = {7, 33, 130};
    uint64_t seed = 0;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (size_t j = 0; j < sizeof codebooks / sizeof *codebooks; j++)
            for (uint32_t form = 0; form < 4; form++, seed++) {
                made_random random = {seed, 1u << 25};
                made_program made = {.input_dtype = form & 1 ? NIMBUS_F32 : NIMBUS_U8,
                                     .n_steps = 2};
                const uint32_t flags = form & 2 ? NIMBUS_FLAG_PER_NODE : 0;
                const uint32_t H = 1 + (uint32_t)(seed / 4 % (flags ? 4 : 8));
                made.steps[0] = (made_step){.kind = NIMBUS_STEP_LOOKUP,
                                            .D = widths[i],
                                            .M = 19,
                                            .C = codebooks[j],
                                            .H = H,
                                            .flags = flags,
                                            .input = made.input_dtype,
                                            .output = NIMBUS_OUT_SHIFT,
                                            .shift = 3};
                made.steps[1] = (made_step){.kind = NIMBUS_STEP_LOOKUP,
                                            .D = 19,
                                            .M = 3,
                                            .C = codebooks[j],
                                            .H = 1 + H % 4,
                                            .flags = flags,
                                            .input = NIMBUS_IN_I8,
                                            .output = NIMBUS_OUT_I32};
                for (size_t k = 0; k < 2; k++)
                    made_fill_step(&random, &made.steps[k]);
                size_t counts[] = {1, 70};
                check_program(&made, seed, counts, 2);
                made_free(&made);
            }
}

/* More codebooks than 16-bit sums can hold without care, wide biases, every reach of entries. */
static void test_long_sums(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        made_random random = {kind, 0};
        made_program made = {.input_dtype = NIMBUS_U8, .n_steps = 2};
        /* Of 21 outputs the tables fill more than a block: their rows lie 24 bytes apart. */
        const uint32_t D = kind & 1 ? 30 : 9, M = kind & 1 ? 21 : 5;
        made.steps[0] = (made_step){.kind = 1,
                                    .D = D,
                                    .M = M,
                                    .C = 1500,
                                    .H = kind < 2 ? 4 : 5,
                                    .input = NIMBUS_IN_U8,
                                    .output = NIMBUS_OUT_SHIFT,
                                    .shift = 11};
        made.steps[1] = (made_step){.kind = 1,
                                    .D = M,
                                    .M = 3,
                                    .C = 700,
                                    .H = 2,
                                    .flags = kind & 1 ? NIMBUS_FLAG_4BIT : 0,
                                    .input = NIMBUS_IN_I8,
                                    .output = NIMBUS_OUT_I32};
        for (uint32_t i = 0; i < 2; i++)
            made_fill_step(&random, &made.steps[i]);
        for (size_t i = 0; i < 1500u * made_leaves(&made.steps[0]) * M; i++)
            made.steps[0].tables[i] =
                kind & 1 ? 127 : (int8_t)(made_below(&random, 2) ? 127 : -128);
        size_t counts[] = {1, 33, 96};
        check_program(&made, kind, counts, 3);
        made_free(&made);
    }
}

/* A sum may reach 2^31 - 1 and no more; there, all paths must still be right. */
static void test_sum_bound(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        made_random random = {3, 0};
        made_program made = {.input_dtype = NIMBUS_U8, .n_steps = 1};
        bool lookup = variant < 2;
        made_step *s = &made.steps[0];
        *s = (made_step){.kind = lookup ? 1 : 2,
                         .D = 40,
                         .M = 1,
                         .C = lookup ? 40 : 0,
                         .H = lookup ? 4 : 0,
                         .input = NIMBUS_IN_U8,
                         .output = NIMBUS_OUT_I32};
        made_fill_step(&random, s);
        memset(lookup ? s->tables : s->weights, variant % 2 ? 127 : 0x80, lookup ? 40 * 16 : 40);
        int32_t most =
            lookup ? 40 * (variant % 2 ? 127 : 128) : 40 * 128 * (variant % 2 ? 127 : 128);
        s->bias[0] = variant % 2 ? INT32_MAX - most : most - INT32_MAX;
        size_t counts[] = {1, 40};
        check_program(&made, variant, counts, 2);
        s->bias[0] += variant % 2 ? 1 : -1;
        nimbus_buffer file = made_write(&made);
        nimbus_program *program;
        assert_int_equal(nimbus_load(file.bytes, file.size, &program, NULL), NIMBUS_ERR_VALUE);
        nimbus_buffer_free(&file);
        made_free(&made);
    }
}

/* ---- use --------------------------------------------------------------------------------- */

typedef struct shared_run {
    const nimbus_program *program;
    const uint8_t *rows;
    size_t n_rows, row_bytes, n_scores;
    const int32_t *expected;
    bool same;
} shared_run;

static void *run_shared(void *arg)
{
    shared_run *run = arg;
    int32_t *scores = made_array(run->n_scores, sizeof *scores);
    void *scratch = malloc(nimbus_scratch_size(run->program, run->n_rows));
    run->same = scratch != NULL;
    for (int i = 0; i < 20 && run->same; i++) {
        memset(scores, 0, run->n_scores * sizeof *scores);
        run->same = nimbus_run(run->program, run->rows, run->row_bytes, run->n_rows, scores,
                               scratch) == NIMBUS_OK &&
                    memcmp(scores, run->expected, run->n_scores * sizeof *scores) == 0;
    }
    free(scratch);
    free(scores);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    enum { N_THREADS = 4 };
    made_program made = made_small_program(NIMBUS_STEP_LOOKUP, NIMBUS_U8, 0);
    nimbus_buffer file = made_write(&made);
    nimbus_program *program = load(&file);
    uint8_t rows[3 * 100];
    int32_t expected[2 * 100];
    made_random random = {1, 0};
    for (size_t r = 0; r < 100; r++) {
        fill_row(&made, &random, rows + 3 * r);
        reference_row(&made, rows + 3 * r, expected + 2 * r);
    }
    pthread_t threads[N_THREADS];
    shared_run runs[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++) {
        size_t n = i % 2 ? 100 : 5;
        runs[i] = (shared_run){program, rows, n, 3, 2 * n, expected, false};
        assert_int_equal(pthread_create(&threads[i], NULL, run_shared, &runs[i]), 0);
    }
    for (size_t i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(runs[i].same);
    }
    nimbus_close(program);
    nimbus_buffer_free(&file);
    made_free(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs), cmocka_unit_test(test_widths),
        cmocka_unit_test(test_row_counts),      cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_long_sums),       cmocka_unit_test(test_sum_bound),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
