/* test_image_kernels.c - the kernels for planes of every instruction set against plain C
 *
 * NIMBUS_IMAGE_KERNEL_LIST calls check_<op> for each of its lines, as test_kernels.c does for
 * NIMBUS_KERNEL_LIST. Results go to guarded memory with the padding that image_kernels.h allows. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "run/kernels.h"
#include "trial.h"

static size_t padded(size_t n)
{
    return (n + NIMBUS_PAD - 1) / NIMBUS_PAD * NIMBUS_PAD;
}

/* Offsets of n taps into `reach` bytes, the last one again up to a multiple of four. */
static uint32_t *random_taps(trial *t, size_t n, size_t reach)
{
    const size_t n_filled = (n + 3) / 4 * 4;
    uint32_t *taps = array(t, n_filled * sizeof *taps);
    for (size_t i = 0; i < n_filled; i++)
        taps[i] = i < n ? (uint32_t)below(t, reach) : taps[n - 1];
    return taps;
}

static nimbus_rounding random_rounding(trial *t, size_t n_outputs)
{
    nimbus_rounding rounding = {.shift = (unsigned)below(t, 25)};
    if (below(t, 2)) {
        float *scale = array(t, padded(n_outputs) * sizeof *scale);
        float *offset = array(t, padded(n_outputs) * sizeof *offset);
        for (size_t m = 0; m < padded(n_outputs); m++) {
            scale[m] = below(t, 4) ? made_float(&t->random, 0.1f) : 0.5f;
            offset[m] = made_float(&t->random, 50.0f);
        }
        rounding.scale = scale;
        rounding.offset = offset;
    }
    return rounding;
}

static void check_pack_taps_u8u8(trial *t)
{
    const size_t n_taps = 1 + below(t, 20), reach = 1 + below(t, 90), group = t->k->shape.group;
    const size_t granule = t->k->shape.granule;
    const size_t n = (granule ? granule : 1) * (1 + below(t, 5));
    const size_t stride = padded(n), n_filled = (n_taps + 3) / 4 * 4;
    uint32_t *taps = random_taps(t, n_taps, reach);
    uint8_t *x = random_bytes(t, reach + stride), *columns = array(t, n_filled * stride);
    const size_t bytes = (n_taps + group - 1) / group * 4 * stride;
    uint8_t *out = array(t, bytes), *expected = array(t, bytes);
    for (size_t c = 0; c < n_filled; c++)
        memcpy(columns + c * stride, x + taps[c], stride);
    memset(out, 0, bytes);
    memset(expected, 0, bytes);
    const uint32_t flip = t->k->shape.flip * 0x01010101u;
    t->k->pack_taps_u8u8(x, taps, n_taps, n, flip, out, stride);
    t->k->pack_u8u8(columns, stride, n, (n_taps + group - 1) / group * group, flip, expected,
                    stride);
    assert_memory_equal(out, expected, bytes);
}

/* Taps and their weights, as plain C has them and as the set on trial has. */
typedef struct tap_trial {
    size_t n, n_taps;
    uint32_t *taps;
    uint8_t *x, *weights, *packed;
    int32_t bias, packed_bias;
} tap_trial;

static tap_trial random_tap_trial(trial *t)
{
    const size_t group = t->k->shape.group, reach = 1 + below(t, 90);
    tap_trial a = {.n = 1 + below(t, 300), .n_taps = 1 + below(t, 30)};
    const size_t n_filled = (a.n_taps + group - 1) / group * group;
    int32_t sum = 0;
    a.taps = random_taps(t, a.n_taps, reach);
    a.x = random_bytes(t, reach + padded(a.n));
    a.weights = random_bytes(t, a.n_taps);
    if (below(t, 5) == 0) {
        memset(a.x, 0x80, reach + padded(a.n));
        memset(a.weights, 0x80, a.n_taps);
    }
    a.packed = array(t, n_filled * (group == 2 ? 2 : 1));
    memset(a.packed, 0, n_filled * (group == 2 ? 2 : 1));
    for (size_t i = 0; i < a.n_taps; i++) {
        sum += (int8_t)a.weights[i];
        if (group == 2)
            ((int16_t *)(void *)a.packed)[i] = (int8_t)a.weights[i];
        else
            a.packed[i] = a.weights[i];
    }
    a.bias = made_between(&t->random, -100000, 100000);
    a.packed_bias = a.bias - t->k->shape.flip * sum;
    return a;
}

static void check_dot_taps_i32(trial *t)
{
    const tap_trial a = random_tap_trial(t);
    const size_t group = t->k->shape.group;
    int32_t *sums = array(t, padded(a.n) * sizeof *sums), *expected = array(t, a.n * sizeof *sums);
    t->k->dot_taps_i32(a.x, a.taps, (a.n_taps + group - 1) / group, a.packed, a.packed_bias,
                       t->k->shape.flip, a.n, sums);
    t->c->dot_taps_i32(a.x, a.taps, a.n_taps, a.weights, a.bias, 0, a.n, expected);
    assert_memory_equal(sums, expected, a.n * sizeof *sums);
}

static void check_dot_taps_i8(trial *t)
{
    const tap_trial a = random_tap_trial(t);
    const nimbus_rounding rounding = random_rounding(t, 1);
    const size_t group = t->k->shape.group;
    int8_t *out = array(t, padded(a.n)), *expected = array(t, padded(a.n));
    t->k->dot_taps_i8(a.x, a.taps, (a.n_taps + group - 1) / group, a.packed, a.packed_bias,
                      t->k->shape.flip, a.n, &rounding, out);
    t->c->dot_taps_i8(a.x, a.taps, a.n_taps, a.weights, a.bias, 0, a.n, &rounding, expected);
    assert_memory_equal(out, expected, a.n);
}

/* The set's own sums, rounded by plain C. */
static void check_dot_columns_i8(trial *t)
{
    const nimbus_shape *shape = &t->k->shape;
    const size_t n = (shape->granule ? shape->granule : 1) * (1 + below(t, 5)), stride = padded(n),
                 T = shape->tile;
    const size_t M = T * (1 + below(t, 4)), n_groups = 1 + below(t, 40);
    const size_t n_blocks = (M + shape->block - 1) / shape->block;
    nimbus_weights weights = {.n_groups = n_groups, .n_outputs = M};
    weights.weights = random_bytes(t, n_blocks * shape->block * n_groups * 4);
    if (shape->group == 2)
        for (size_t i = 0; i < n_blocks * shape->block * n_groups * 2; i++)
            ((int16_t *)(uintptr_t)weights.weights)[i] %= 128;
    int32_t *bias = array(t, padded(M) * sizeof *bias);
    for (size_t m = 0; m < padded(M); m++)
        bias[m] = made_between(&t->random, -10000, 10000);
    weights.bias = bias;
    uint8_t *x = random_bytes(t, n_groups * stride * 4);
    if (shape->group == 2)
        for (size_t i = 0; i < n_groups * stride * 2; i++)
            ((int16_t *)(void *)x)[i] %= 128;
    const nimbus_rounding rounding = random_rounding(t, M);
    int32_t *sums = array(t, T * stride * sizeof *sums);
    int8_t *out = array(t, T * stride), *expected = array(t, stride);
    for (size_t m = 0; m < M; m += T) {
        t->k->dot_columns_i32(&weights, m, x, stride, n, sums);
        t->k->dot_columns_i8(&weights, m, x, stride, n, &rounding, out, stride);
        for (size_t i = 0; i < T; i++) {
            if (rounding.scale)
                t->c->scale_i32i8(sums + i * stride, n, rounding.scale + m + i,
                                  rounding.offset + m + i, 0, expected);
            else
                t->c->shift_i32i8(sums + i * stride, n, rounding.shift, expected);
            assert_memory_equal(out + i * stride, expected, n);
        }
    }
}

static void check_max_taps_i8i8(trial *t)
{
    const size_t n = 1 + below(t, 300), n_taps = 1 + below(t, 12), reach = 1 + below(t, 90);
    uint32_t *taps = random_taps(t, n_taps, reach);
    int8_t *x = random_bytes(t, reach + padded(n)), *out = array(t, padded(n));
    int8_t *expected = array(t, n);
    t->k->max_taps_i8i8(x, taps, n_taps, n, out);
    t->c->max_taps_i8i8(x, taps, n_taps, n, expected);
    assert_memory_equal(out, expected, n);
}

static void check_add_i8i8(trial *t)
{
    const size_t n = 1 + below(t, 300), n_sources = 1 + below(t, 5);
    const int8_t *sources[5];
    for (size_t s = 0; s < n_sources; s++)
        sources[s] = random_bytes(t, padded(n));
    int8_t *out = array(t, padded(n)), *expected = array(t, n);
    t->k->add_i8i8(sources, n_sources, n, out);
    t->c->add_i8i8(sources, n_sources, n, expected);
    assert_memory_equal(out, expected, n);
}

static uint8_t *random_mask(trial *t, size_t n)
{
    uint8_t *keep = array(t, padded(n));
    memset(keep, 0, padded(n));
    for (size_t i = 0; i < n; i++)
        keep[i] = below(t, 3) ? 0xff : 0;
    return keep;
}

static void check_frame_i8i8(trial *t)
{
    const size_t n = 1 + below(t, 300), n_planes = 1 + below(t, 4), stride = padded(n) + 64;
    const size_t bytes = (n_planes - 1) * stride + padded(n);
    int8_t *x = random_bytes(t, bytes), *expected = array(t, bytes);
    const int8_t *pads = random_bytes(t, n_planes);
    const uint8_t *keep = random_mask(t, n);
    const int8_t low = (int8_t)made_between(&t->random, -128, 127);
    const int8_t high = (int8_t)made_between(&t->random, low, 127);
    memcpy(expected, x, bytes);
    pads = below(t, 2) ? pads : NULL;
    t->k->frame_i8i8(x, stride, n_planes, keep, n, low, high, pads);
    t->c->frame_i8i8(expected, stride, n_planes, keep, n, low, high, pads);
    for (size_t c = 0; c < n_planes; c++)
        assert_memory_equal(x + c * stride, expected + c * stride, n);
}

static void check_split_u8u8(trial *t)
{
    const size_t n = 1 + below(t, 90), n_rows = 1 + below(t, 9), pitch = n + below(t, 5);
    const size_t in_stride = 2 * n + below(t, 9), n_planes = 1 + below(t, 3);
    const size_t in_plane = n_rows * in_stride + below(t, 9);
    const size_t out_plane = n_rows * pitch + below(t, 9);
    const size_t bytes = n_planes * out_plane + NIMBUS_PAD;
    const bool both = below(t, 2);
    uint8_t *in = random_bytes(t, n_planes * in_plane + 2 * n + 2 * NIMBUS_PAD);
    uint8_t *out[2] = {NULL, NULL}, *expected[2] = {NULL, NULL};
    for (size_t i = 0; i < (both ? 2 : 1); i++) {
        out[i] = array(t, bytes);
        expected[i] = array(t, bytes);
    }
    t->k->split_u8u8(in, in_plane, n_planes, in_stride, n_rows, n, out[0], out[1], out_plane,
                     pitch);
    t->c->split_u8u8(in, in_plane, n_planes, in_stride, n_rows, n, expected[0], expected[1],
                     out_plane, pitch);
    for (size_t i = 0; i < 2; i++)
        for (size_t r = 0; r < n_planes * n_rows && out[i]; r++) {
            const size_t at = r / n_rows * out_plane + r % n_rows * pitch;
            assert_memory_equal(out[i] + at, expected[i] + at, n);
        }
}

static void check_sum_i8i32(trial *t)
{
    const size_t n = 1 + below(t, 300), n_columns = 1 + below(t, 9), stride = padded(n);
    int8_t *x = random_bytes(t, n_columns * stride);
    const uint8_t *keep = random_mask(t, n);
    int32_t *sums = array(t, n_columns * sizeof *sums), *expected = array(t, n_columns * 4);
    if (below(t, 4) == 0)
        memset(x, 0x80, n_columns * stride);
    t->k->sum_i8i32(x, stride, n_columns, keep, n, t->k->shape.flip, sums);
    t->c->sum_i8i32(x, stride, n_columns, keep, n, 0, expected);
    assert_memory_equal(sums, expected, n_columns * sizeof *sums);
}

static void check(void (*body)(trial *), const nimbus_kernels *kernels)
{
    for (uint64_t seed = 0; seed < 150; seed++) {
        trial t = {.k = kernels, .c = &nimbus_kernel_table[0], .random = {seed, 0}};
        body(&t);
        trial_end(&t);
    }
}

/* Sets of this CPU; plain C too, since most checks compare with loops of their own. */
#define TEST(isa, op, parameters)                                                                  \
    static void test_##op(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        for (size_t i = 0; i < nimbus_kernel_table_size; i++)                                      \
            if (nimbus_kernel_table[i].usable())                                                   \
                check(check_##op, &nimbus_kernel_table[i]);                                        \
    }
NIMBUS_IMAGE_KERNEL_LIST(TEST, all)

int main(void)
{
#define ENTRY(isa, op, parameters) cmocka_unit_test(test_##op),
    const struct CMUnitTest tests[] = {NIMBUS_IMAGE_KERNEL_LIST(ENTRY, all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
