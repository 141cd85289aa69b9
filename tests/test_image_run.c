/* test_image_run.c - running programs on images: the same bits on every path and instruction set
 *
 * The reference interpreter below follows base/program_format.h line by line, one position of one
 * image after the other; all comparisons are for equality. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "guarded.h"
#include "image_maker.h"
#include "nimbus.h"
#include "run/kernels.h"
#include "watched.h"

/* ---- the reference ----------------------------------------------------------------------- */

static int32_t saturated(double x)
{
    return x < -128 ? -128 : x > 127 ? 127 : (int32_t)x;
}

/* The product is rounded first: compilers may not fuse it with the addition. */
static int32_t rounded(float a, float b, float offset)
{
    volatile float product = a * b;
    float x = product + offset;
    return isnan(x) ? 0 : saturated(nearbyint((double)x));
}

/* The elements of a value, [channel][y][x]. */
typedef struct plane_values {
    made_shape shape;
    int8_t *x;
} plane_values;

/* Tap (ky, kx) of channel c for output (y, x), `pad` outside of the image. */
static int tap(const made_image_step *s, const plane_values *v, uint32_t c, uint32_t y, uint32_t x,
               uint32_t ky, uint32_t kx, int pad)
{
    int64_t at_y = (int64_t)y * s->stride[0] + ky * s->dilation[0] - s->pads[0];
    int64_t at_x = (int64_t)x * s->stride[1] + kx * s->dilation[1] - s->pads[2];
    if (at_y < 0 || at_x < 0 || at_y >= v->shape.height || at_x >= v->shape.width)
        return pad;
    return v->x[((size_t)c * v->shape.height + (size_t)at_y) * v->shape.width + (size_t)at_x];
}

/* Tap number t of a convolution, counted from channel `first`. */
static int numbered_tap(const made_image_step *s, const plane_values *v, uint32_t first, uint32_t t,
                        uint32_t y, uint32_t x)
{
    uint32_t c = first + t / s->kernel[1] / s->kernel[0];
    return tap(s, v, c, y, x, t / s->kernel[1] % s->kernel[0], t % s->kernel[1], s->pad[c]);
}

static int64_t convolve(const made_image_step *s, const plane_values *v, uint32_t m, uint32_t y,
                        uint32_t x)
{
    const made_step *a = &s->arrays;
    const size_t K = made_leaves(a);
    int64_t sum = a->bias[m];
    for (size_t c = 0; c < a->C; c++) {
        size_t node = 0;
        for (size_t h = 0; h < a->H; h++) {
            uint32_t column = a->flags & NIMBUS_FLAG_PER_NODE ? a->columns[c * (K - 1) + node]
                                                              : a->columns[c * a->H + h];
            node = 2 * node + 1 +
                   (numbered_tap(s, v, 0, column, y, x) > a->thresholds[c * (K - 1) + node]);
        }
        sum += a->tables[(c * K + node - (K - 1)) * a->M + m];
    }
    const uint32_t first = m / (a->M / s->groups) * (v->shape.channels / s->groups);
    for (uint32_t d = 0; a->kind == NIMBUS_STEP_EXACT && d < a->D; d++)
        sum += a->weights[(size_t)m * a->D + d] * numbered_tap(s, v, first, d, y, x);
    return sum;
}

static int64_t pool(const made_image_step *s, const plane_values *v, uint32_t m, uint32_t y,
                    uint32_t x)
{
    const bool largest = s->arrays.kind == NIMBUS_STEP_MAX_POOL;
    int64_t result = largest ? -128 : 0;
    for (uint32_t ky = 0; ky < s->kernel[0]; ky++)
        for (uint32_t kx = 0; kx < s->kernel[1]; kx++) {
            int value = tap(s, v, m, y, x, ky, kx, largest ? -128 : s->pad[m]);
            result = !largest ? result + value : value > result ? value : result;
        }
    return result;
}

/* One output of a step, as an i32 score or an i8. */
static int32_t reference_output(const made_image_step *s, const plane_values *values, uint32_t m,
                                uint32_t y, uint32_t x)
{
    const made_step *a = &s->arrays;
    const plane_values *v = &values[s->sources[0]];
    const size_t at = (size_t)y * v->shape.width + x,
                 area = (size_t)v->shape.height * v->shape.width;
    int64_t sum = 0;
    if (a->kind <= NIMBUS_STEP_EXACT)
        sum = convolve(s, v, m, y, x);
    else if (a->kind == NIMBUS_STEP_ADD)
        for (uint32_t k = 0; k < s->n_sources; k++)
            sum += values[s->sources[k]].x[m * area + at];
    else if (a->kind == NIMBUS_STEP_CONCAT)
        for (uint32_t k = 0, first = 0; k < s->n_sources; k++) {
            const plane_values *source = &values[s->sources[k]];
            if (m >= first && m < first + source->shape.channels)
                sum = source->x[(m - first) * area + at];
            first += source->shape.channels;
        }
    else
        sum = pool(s, v, m, y, x);
    assert_true(sum >= INT32_MIN && sum <= INT32_MAX);
    if (a->output == NIMBUS_OUT_I32)
        return (int32_t)sum;
    int32_t out = saturated((double)sum);
    if (a->output == NIMBUS_OUT_SHIFT)
        out = saturated(floor((double)sum / (double)(1 << a->shift)));
    if (a->output == NIMBUS_OUT_SCALED)
        out = rounded((float)(int32_t)sum, a->scale[m], a->offset[m]);
    if (a->flags & NIMBUS_FLAG_MAP)
        out = a->map[out + 128];
    return out < s->low ? s->low : out > s->high ? s->high : out;
}

static void reference_image(const made_image *p, const uint8_t *row, int32_t *scores)
{
    plane_values values[MADE_IMAGE_STEPS + 1];
    for (uint32_t i = 0; i <= p->n_steps; i++) {
        const made_shape *shape = &p->values[i];
        const size_t area = (size_t)shape->height * shape->width, n = shape->channels * area;
        values[i] = (plane_values){*shape, made_array(n, 1)};
        for (size_t k = 0; i == 0 && k < n; k++) {
            float f = 0;
            if (p->input_dtype == NIMBUS_F32)
                memcpy(&f, row + 4 * k, 4);
            values[i].x[k] =
                (int8_t)(p->input_dtype == NIMBUS_U8
                             ? row[k] - 128
                             : rounded(f, p->in_scale[k / area], p->in_offset[k / area]));
        }
        for (uint32_t k = 0; i > 0 && k < n; k++) {
            uint32_t m = k / (uint32_t)area, y = k / shape->width % shape->height;
            int32_t out = reference_output(&p->steps[i - 1], values, m, y, k % shape->width);
            if (i == p->n_steps)
                scores[k] = out;
            else
                values[i].x[k] = (int8_t)out;
        }
    }
    for (uint32_t i = 0; i <= p->n_steps; i++)
        free(values[i].x);
}

/* ---- same bits --------------------------------------------------------------------------- */

static nimbus_program *load(const nimbus_buffer *file)
{
    nimbus_program *program = NULL;
    nimbus_error error = {0};
    if (nimbus_load(file->bytes, file->size, &program, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    return program;
}

static size_t row_bytes(const made_image *p)
{
    const made_shape *in = &p->values[0];
    return (size_t)in->channels * in->height * in->width *
           (p->input_dtype == NIMBUS_F32 ? sizeof(float) : 1);
}

static void fill_row(const made_image *p, made_random *random, uint8_t *row)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3e38f};
    for (size_t i = 0; i < row_bytes(p); i++) {
        row[i] = (uint8_t)made_below(random, 256);
        if (p->input_dtype == NIMBUS_F32 && i % 4 == 0) {
            float x =
                made_below(random, 10) ? made_float(random, 3.0f) : special[made_below(random, 6)];
            memcpy(row + i, &x, 4);
            i += 3;
        }
    }
}

/* Images of a program, and the scores they must get. */
typedef struct sample {
    const made_image *made;
    uint64_t seed;
    const uint8_t *rows; /* [][row_bytes] */
    const int32_t *expected;
} sample;

/* Runs images first .. first + n - 1 with guard pages directly behind rows, scores and scratch. */
static void check_rows(const sample *s, const nimbus_program *program, size_t first, size_t n,
                       size_t gap)
{
    const size_t M = nimbus_info(program)->n_outputs, bytes = row_bytes(s->made);
    const size_t stride = bytes + gap;
    guarded in = guarded_alloc((n - 1) * stride + bytes);
    guarded out = guarded_alloc(n * M * sizeof(int32_t));
    guarded scratch = guarded_alloc(nimbus_scratch_size(program, n));
    memset(scratch.map, 0xa5, scratch.map_size - (size_t)sysconf(_SC_PAGESIZE));
    for (size_t r = 0; r < n; r++)
        memcpy(in.at + r * stride, s->rows + (first + r) * bytes, bytes);
    made_run(program, in.at, stride, n, (int32_t *)(void *)out.at, scratch.at, n % 3 == 1);
    const int32_t *scores = (const int32_t *)(const void *)out.at;
    for (size_t i = 0; i < n * M; i++)
        if (scores[i] != s->expected[first * M + i])
            fail_msg("seed %d, isa %s, %zu images: image %zu, output %zu is %d, expected %d",
                     (int)s->seed, nimbus_isa(program), n, first + i / M, i % M, scores[i],
                     s->expected[first * M + i]);
    guarded_free(&in);
    guarded_free(&out);
    guarded_free(&scratch);
}

/* With every instruction set of this machine, best first, plain C last; all n images together, and
 * split at random. */
static void check_program(const made_image *made, uint64_t seed, size_t n)
{
    nimbus_buffer file = made_image_write(made);
    made_random random = {seed, 1u << 20};
    const size_t M = made->steps[made->n_steps - 1].arrays.M, bytes = row_bytes(made);
    uint8_t *rows = made_array(n, bytes);
    int32_t *expected = made_array(n * M, sizeof *expected);
    for (size_t r = 0; r < n; r++) {
        fill_row(made, &random, rows + r * bytes);
        reference_image(made, rows + r * bytes, expected + r * M);
    }
    const sample s = {made, seed, rows, expected};
    char disabled[256] = "";
    for (size_t i = nimbus_kernel_table_size; i-- > 0;) {
        if (!nimbus_kernel_table[i].usable())
            continue;
        setenv("NIMBUS_DISABLE_ISA", disabled, 1);
        nimbus_program *program = load(&file);
        assert_string_equal(nimbus_isa(program), nimbus_kernel_table[i].isa);
        check_rows(&s, program, 0, n, 0);
        for (size_t first = 0, count; first < n; first += count) {
            count = 1 + made_below(&random, (uint32_t)(n - first));
            check_rows(&s, program, first, count, made_below(&random, 3) * 4);
        }
        nimbus_close(program);
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
    for (uint64_t seed = 0; seed < 300; seed++) {
        made_image made = made_random_image(seed, seed % 3 ? 20 : 8, seed % 4 ? 6 : 20);
        check_program(&made, seed, 1 + seed % 9);
        made_image_free(&made);
    }
}

/* More images than a block holds. */
static void test_blocks(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1040; seed++) {
        made_image made = made_random_image(seed, 4, 5);
        check_program(&made, seed, 67 + seed % 80);
        made_image_free(&made);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
