/* test_kernels.c - every kernel of every instruction set against plain C, bit for bit
 *
 * NIMBUS_KERNEL_LIST calls check_<op> for each of its lines: a kernel without a check here does not
 * compile. Results go to guarded memory with the padding that kernels.h allows and no more. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "guarded.h"
#include "program_maker.h"
#include "run/kernels.h"

/* One check under way: the kernels on trial, plain C, and memory given back at the end. */
typedef struct trial {
    const nimbus_kernels *k, *c;
    made_random random;
    guarded arrays[16];
    size_t n_arrays;
} trial;

static size_t below(trial *t, size_t n)
{
    return made_below(&t->random, (uint32_t)n);
}

static size_t padded(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static void *array(trial *t, size_t bytes)
{
    guarded *g = &t->arrays[t->n_arrays++];
    assert_true(t->n_arrays <= sizeof t->arrays / sizeof *t->arrays);
    *g = guarded_alloc(bytes);
    return g->at;
}

static void *random_bytes(trial *t, size_t n)
{
    uint8_t *bytes = array(t, n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)below(t, 256);
    return bytes;
}

/* Below n each. */
static uint32_t *random_u32s(trial *t, size_t count, size_t n)
{
    uint32_t *values = array(t, count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (uint32_t)below(t, n);
    return values;
}

static int32_t *random_i32s(trial *t, size_t count)
{
    int32_t *values = array(t, count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        int reach = below(t, 2) ? 300 : INT32_MAX - 1;
        values[i] = made_between(&t->random, -reach - 1, reach);
    }
    return values;
}

/* Some of them special, and many halves, which rounding must take to the even side. */
static float *random_floats(trial *t, size_t count, float scale)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, -0.0f, 127.5f, -128.5f, 3e38f};
    float *values = array(t, count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = made_float(&t->random, scale);
        if (below(t, 3) == 0)
            values[i] = (float)made_between(&t->random, -300, 300) / 2;
        if (below(t, 20) == 0)
            values[i] = special[below(t, sizeof special / sizeof *special)];
    }
    return values;
}

/* As in a file, where scales and offsets are finite. */
static float *random_scales(trial *t, size_t count)
{
    float *values = array(t, count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = below(t, 4) ? made_float(&t->random, below(t, 2) ? 1.0f : 3e38f) : 0.5f;
    return values;
}

static void check_transpose_u8u8(trial *t)
{
    size_t width = 1 + below(t, 70), n_rows = 1 + below(t, 70), in_stride = width + below(t, 9);
    bool all = below(t, 2);
    size_t n = all ? 1 + below(t, width) : 1 + below(t, 60), stride = padded(n_rows, t->k->lanes);
    uint8_t *in = random_bytes(t, (n_rows - 1) * in_stride + width);
    uint32_t *columns = random_u32s(t, n, width);
    uint8_t flip = below(t, 2) ? 0x80 : 0;
    uint8_t *out = array(t, n * stride), *expected = array(t, n * stride);
    t->k->transpose_u8u8(in, in_stride, width, n_rows, all ? NULL : columns, n, flip, out, stride);
    t->c->transpose_u8u8(in, in_stride, width, n_rows, all ? NULL : columns, n, flip, expected,
                         stride);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(out + i * stride, expected + i * stride, n_rows);
}

typedef void encode_i8(const nimbus_trees *trees, const int8_t *columns, size_t stride, size_t n,
                       uint8_t *codes);

static void compare_encode(trial *t, encode_i8 *k, encode_i8 *c, bool nodes)
{
    size_t H = 1 + below(t, 4), C = 1 + below(t, 9), D = 1 + below(t, 30);
    size_t n = t->k->lanes * (1 + below(t, 4)), per_tree = nodes ? ((size_t)1 << H) - 1 : H;
    nimbus_trees trees = {random_u32s(t, C * per_tree, D),
                          random_bytes(t, C * per_tree * (nodes ? 1 : 16)), C, H};
    int8_t *columns = random_bytes(t, D * n);
    uint8_t *codes = array(t, C * n), *expected = array(t, C * n);
    k(&trees, columns, n, n, codes);
    c(&trees, columns, n, n, expected);
    assert_memory_equal(codes, expected, C * n);
}

static void check_encode_i8u8(trial *t)
{
    compare_encode(t, t->k->encode_i8u8, t->c->encode_i8u8, false);
}

static void check_encode_nodes_i8u8(trial *t)
{
    compare_encode(t, t->k->encode_nodes_i8u8, t->c->encode_nodes_i8u8, true);
}

static void check_encode_nodes_f32u8(trial *t)
{
    size_t H = 1 + below(t, 4), C = 1 + below(t, 9), D = 1 + below(t, 30);
    size_t n = t->k->lanes * (1 + below(t, 4)), n_nodes = ((size_t)1 << H) - 1;
    nimbus_trees trees = {random_u32s(t, C * n_nodes, D), random_floats(t, C * n_nodes, 2.0f), C,
                          H};
    float *columns = random_floats(t, D * n, 2.0f);
    uint8_t *codes = array(t, C * n), *expected = array(t, C * n);
    t->k->encode_nodes_f32u8(&trees, columns, n, n, codes);
    t->c->encode_nodes_f32u8(&trees, columns, n, n, expected);
    assert_memory_equal(codes, expected, C * n);
}

static void check_walk_i8u8(trial *t)
{
    size_t H = 1 + below(t, 8), C = NIMBUS_WALK * (1 + below(t, 5));
    int8_t *values = random_bytes(t, H * C),
           *thresholds = random_bytes(t, (((size_t)1 << H) - 1) * C);
    uint8_t *codes = array(t, C), *expected = array(t, C);
    t->k->walk_i8u8(values, thresholds, C, H, codes);
    t->c->walk_i8u8(values, thresholds, C, H, expected);
    assert_memory_equal(codes, expected, C);
}

/* A tile whose groups keep to 255, and codes for n rows. */
static nimbus_tile random_tile(trial *t, size_t n, const uint8_t **codes)
{
    nimbus_tile tile = {.bias = {made_between(&t->random, -9999, 9999), (int32_t)below(t, 99)}};
    size_t C = 0, at = 0;
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        tile.n_groups[g] = (uint32_t)below(t, below(t, 8) ? 6 : 300);
        C += (size_t)tile.n_groups[g] << (NIMBUS_GROUP_SIZES - 1 - g);
    }
    uint8_t *tables = random_bytes(t, C * NIMBUS_TILE * 16), *some_codes = random_bytes(t, C * n);
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        size_t size = (size_t)8 >> g, n_entries = tile.n_groups[g] * size * NIMBUS_TILE * 16;
        for (size_t i = 0; i < n_entries; i++, at++)
            tables[at] = (uint8_t)(below(t, 4) ? tables[at] % (255 / size + 1) : 255 / size);
    }
    for (size_t i = 0; i < C * n; i++)
        some_codes[i] &= 15;
    tile.tables = tables;
    tile.order = random_u32s(t, C, C ? C : 1);
    *codes = some_codes;
    return tile;
}

static void check_lookup_u8i16(trial *t)
{
    const uint8_t *codes;
    size_t n = t->k->lanes * (1 + below(t, 3)), bytes = NIMBUS_TILE * n * sizeof(int16_t);
    nimbus_tile tile = random_tile(t, n, &codes);
    int16_t *sums = array(t, bytes), *expected = array(t, bytes);
    t->k->lookup_u8i16(&tile, codes, n, n, sums);
    t->c->lookup_u8i16(&tile, codes, n, n, expected);
    assert_memory_equal(sums, expected, bytes);
}

static void check_lookup_u8i32(trial *t)
{
    const uint8_t *codes;
    size_t n = t->k->lanes * (1 + below(t, 3)), bytes = NIMBUS_TILE * n * sizeof(int32_t);
    nimbus_tile tile = random_tile(t, n, &codes);
    int32_t *sums = array(t, bytes), *expected = array(t, bytes);
    t->k->lookup_u8i32(&tile, codes, n, n, sums);
    t->c->lookup_u8i32(&tile, codes, n, n, expected);
    assert_memory_equal(sums, expected, bytes);
}

static nimbus_table random_table(trial *t, const uint8_t **codes)
{
    size_t C = 1 + below(t, below(t, 8) ? 30 : 700), K = (size_t)1 << below(t, 6);
    size_t M = 1 + below(t, 200);
    uint8_t *some_codes = random_bytes(t, C);
    for (size_t c = 0; c < C; c++)
        some_codes[c] = (uint8_t)(some_codes[c] % K);
    *codes = some_codes;
    return (nimbus_table){random_bytes(t, C * K * M + NIMBUS_PAD), C, K, M};
}

static void check_add_u8i16(trial *t)
{
    const uint8_t *codes;
    nimbus_table table = random_table(t, &codes);
    size_t bytes = padded(table.n_outputs, NIMBUS_PAD) * sizeof(int16_t);
    int16_t *bias = random_bytes(t, bytes), *sums = array(t, bytes), *expected = array(t, bytes);
    t->k->add_u8i16(&table, codes, bias, sums);
    t->c->add_u8i16(&table, codes, bias, expected);
    assert_memory_equal(sums, expected, table.n_outputs * sizeof(int16_t));
}

static void check_add_u8i32(trial *t)
{
    const uint8_t *codes;
    nimbus_table table = random_table(t, &codes);
    size_t bytes = padded(table.n_outputs, NIMBUS_PAD) * sizeof(int32_t);
    int32_t *bias = random_bytes(t, bytes), *sums = array(t, bytes), *expected = array(t, bytes);
    t->k->add_u8i32(&table, codes, bias, sums);
    t->c->add_u8i32(&table, codes, bias, expected);
    assert_memory_equal(sums, expected, table.n_outputs * sizeof(int32_t));
}

static void check_dot_i8i32(trial *t)
{
    size_t n_rows = 1 + below(t, 5), D = 1 + below(t, 300), M = 1 + below(t, 20);
    size_t stride = padded(D, NIMBUS_PAD), bytes = n_rows * M * sizeof(int32_t);
    int8_t *x = random_bytes(t, n_rows * stride), *weights = random_bytes(t, M * D + NIMBUS_PAD);
    if (below(t, 4) == 0) {
        memset(x, 0x80, n_rows * stride);
        memset(weights, 0x80, M * D);
    }
    for (size_t r = 0; r < n_rows; r++)
        memset(x + r * stride + D, 0, stride - D);
    int32_t *bias = array(t, M * sizeof *bias), *sums = array(t, bytes),
            *expected = array(t, bytes);
    for (size_t m = 0; m < M; m++)
        bias[m] = made_between(&t->random, -100000, 100000);
    t->k->dot_i8i32(x, stride, n_rows, weights, D, M, bias, sums, M);
    t->c->dot_i8i32(x, stride, n_rows, weights, D, M, bias, expected, M);
    assert_memory_equal(sums, expected, bytes);
}

static void check_shift_i16i8(trial *t)
{
    size_t n = NIMBUS_PAD * (1 + below(t, 3));
    unsigned shift = (unsigned)below(t, 25);
    int16_t *sums = random_bytes(t, n * sizeof *sums);
    int8_t *out = array(t, n), *expected = array(t, n);
    t->k->shift_i16i8(sums, n, shift, out);
    t->c->shift_i16i8(sums, n, shift, expected);
    assert_memory_equal(out, expected, n);
}

static void check_shift_i32i8(trial *t)
{
    size_t n = NIMBUS_PAD * (1 + below(t, 3));
    unsigned shift = (unsigned)below(t, 25);
    int32_t *sums = random_i32s(t, n);
    int8_t *out = array(t, n), *expected = array(t, n);
    t->k->shift_i32i8(sums, n, shift, out);
    t->c->shift_i32i8(sums, n, shift, expected);
    assert_memory_equal(out, expected, n);
}

static void check_scale_i32i8(trial *t)
{
    size_t n = NIMBUS_PAD * (1 + below(t, 3)), step = below(t, 2), n_scales = step ? n : 1;
    int32_t *sums = random_i32s(t, n);
    float *scale = random_scales(t, n_scales), *offset = random_scales(t, n_scales);
    int8_t *out = array(t, n), *expected = array(t, n);
    t->k->scale_i32i8(sums, n, scale, offset, step, out);
    t->c->scale_i32i8(sums, n, scale, offset, step, expected);
    assert_memory_equal(out, expected, n);
}

static void check_quantise_f32i8(trial *t)
{
    size_t n = 1 + below(t, 150);
    float *x = random_floats(t, n, 200.0f), *scale = random_scales(t, n);
    float *offset = random_scales(t, n);
    int8_t *out = array(t, n), *expected = array(t, n);
    t->k->quantise_f32i8(x, n, scale, offset, out);
    t->c->quantise_f32i8(x, n, scale, offset, expected);
    assert_memory_equal(out, expected, n);
}

static void check_map_i8i8(trial *t)
{
    size_t n = NIMBUS_PAD * (1 + below(t, 4));
    int8_t *x = random_bytes(t, n), *expected = array(t, n), *map = random_bytes(t, 256);
    memcpy(expected, x, n);
    t->k->map_i8i8(x, n, map);
    t->c->map_i8i8(expected, n, map);
    assert_memory_equal(x, expected, n);
}

static void check(void (*body)(trial *), const nimbus_kernels *kernels)
{
    for (uint64_t seed = 0; seed < 150; seed++) {
        trial t = {.k = kernels, .c = &nimbus_kernel_table[0], .random = {seed, 0}};
        body(&t);
        for (size_t i = 0; i < t.n_arrays; i++)
            guarded_free(&t.arrays[i]);
    }
}

#define TEST(isa, op, parameters)                                                                  \
    static void test_##op(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        for (size_t i = 1; i < nimbus_kernel_table_size; i++)                                      \
            if (nimbus_kernel_table[i].usable())                                                   \
                check(check_##op, &nimbus_kernel_table[i]);                                        \
    }
NIMBUS_KERNEL_LIST(TEST, all)

int main(void)
{
#define ENTRY(isa, op, parameters) cmocka_unit_test(test_##op),
    const struct CMUnitTest tests[] = {NIMBUS_KERNEL_LIST(ENTRY, all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
