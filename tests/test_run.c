/* test_run.c - programs: loading, refusing, and the same bits on every path and instruction set
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
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "nimbus.h"
#include "program_maker.h"
#include "run/kernels.h"

/* ---- the reference ----------------------------------------------------------------------- */

static int8_t saturated(double x)
{
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

/* nearbyint in the default rounding mode: to nearest, ties to even. */
static int8_t rounded(float product, float offset)
{
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
                    : f32 ? rounded(f32[d] * s->in_scale[d], s->in_offset[d])
                          : i8[d];
            sum += s->weights[m * s->D + d] * x;
        }
        assert_true(sum >= INT32_MIN && sum <= INT32_MAX);
        out[m] = (int32_t)sum;
        if (s->output == NIMBUS_OUT_SHIFT)
            out[m] = saturated(floor((double)sum / (double)(1 << s->shift)));
        if (s->output == NIMBUS_OUT_SCALED)
            out[m] = rounded((float)out[m] * s->scale[m], s->offset[m]);
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

/* size bytes that end where an unreadable page begins. */
typedef struct guarded {
    uint8_t *map, *at;
    size_t map_size;
} guarded;

static guarded guarded_alloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t n = (size + page - 1) / page * page;
    guarded g = {.map_size = n + page};
    g.map = mmap(NULL, g.map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + n, page, PROT_NONE), 0);
    g.at = g.map + n - size;
    return g;
}

static void guarded_free(guarded *g)
{
    munmap(g->map, g->map_size);
}

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

#define MAX_ROWS 300

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
    assert_int_equal(nimbus_run(program, in.at, stride, n, (int32_t *)(void *)out.at, scratch.at),
                     NIMBUS_OK);
    const int32_t *scores = (const int32_t *)(const void *)out.at;
    for (size_t i = 0; i < n * M; i++)
        if (scores[i] != expected[i])
            fail_msg("isa %s, %zu rows: row %zu, output %zu is %d, expected %d",
                     nimbus_isa(program), n, i / M, i % M, scores[i], expected[i]);
    guarded_free(&in);
    guarded_free(&out);
    guarded_free(&scratch);
}

static void check_program(const made_program *made, uint64_t seed, const size_t *counts,
                          size_t n_counts)
{
    nimbus_buffer file = made_write(made);
    nimbus_program *program = load(&file);
    made_random random = {seed, 1u << 20};
    size_t M = made->steps[made->n_steps - 1].M, bytes = row_bytes(made);
    uint8_t *rows = made_array(MAX_ROWS, bytes);
    int32_t *expected = made_array(MAX_ROWS * M, sizeof *expected);
    size_t most = 0;
    for (size_t i = 0; i < n_counts; i++)
        most = counts[i] > most ? counts[i] : most;
    for (size_t r = 0; r < most; r++) {
        fill_row(made, &random, rows + r * bytes);
        uint32_t aligned[4096];
        memcpy(aligned, rows + r * bytes, bytes);
        reference_row(made, aligned, expected + r * M);
    }
    for (size_t i = 0; i < n_counts; i++) {
        size_t gap = made_below(&random, 3) * (made->input_dtype == NIMBUS_F32 ? 4 : 7);
        check_rows(made, program, counts[i], bytes + gap, rows, bytes, expected);
    }
    free(rows);
    free(expected);
    nimbus_close(program);
    nimbus_buffer_free(&file);
}

/* Runs body once for every instruction set of this machine, best first, plain C last. */
static void for_every_isa(void (*body)(void))
{
    char disabled[256] = "";
    for (size_t i = nimbus_kernel_table_size; i-- > 0;) {
        if (!nimbus_kernel_table[i].usable())
            continue;
        setenv("NIMBUS_DISABLE_ISA", disabled, 1);
        body();
        size_t length = strlen(disabled);
        snprintf(disabled + length, sizeof disabled - length, "%s%s", length ? "," : "",
                 nimbus_kernel_table[i].isa);
    }
    unsetenv("NIMBUS_DISABLE_ISA");
}

static void check_random_programs(void)
{
    for (uint64_t seed = 0; seed < 150; seed++) {
        made_program made = made_random_program(seed, seed % 5 == 0 ? 140 : 40);
        made_random random = {seed, 1u << 24};
        size_t counts[] = {1,
                           2,
                           11,
                           12,
                           31,
                           32,
                           33,
                           64,
                           65,
                           1 + made_below(&random, 257),
                           seed % 10 ? 17 : MAX_ROWS};
        check_program(&made, seed, counts, sizeof counts / sizeof *counts);
        made_free(&made);
    }
}

static void test_random_programs(void **state)
{
    (void)state;
    for_every_isa(check_random_programs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
