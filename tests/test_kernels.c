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
#include <stdio.h>

#include <cmocka.h>

#include "run/kernels.h"
#include "trial.h"

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

/* Makes some offsets bring the products of x and scale, once they are rounded, exactly between two
 * integers or to zero: a fused multiply-add gives another result. */
static void make_ties(trial *t, const float *x, const float *scale, size_t count, float *offset)
{
    for (size_t i = 0; i < count; i++) {
        volatile float product = x[i] * scale[i];
        if (isfinite(product) && below(t, 2))
            offset[i] = (float)made_between(&t->random, -127, 126) + 0.5f - product;
    }
}

/* A part with random bytes picked, or all. */
static nimbus_part random_part(trial *t, size_t width, size_t out)
{
    nimbus_part part = {.first = width > 16 ? (uint32_t)below(t, width - 15) : 0,
                        .out = (uint32_t)out,
                        .few = below(t, 2)};
    memset(part.selectors, 0x80, sizeof part.selectors);
    for (size_t q = 0; q < NIMBUS_FEW; q++) {
        part.at[q] = (uint8_t)below(t, width < 16 ? width : 16);
        for (size_t j = 0; j < 4; j++)
            part.selectors[j][4 * q + j] = part.at[q];
    }
    return part;
}

static void check_transpose_u8u8(trial *t)
{
    const bool all = below(t, 3) == 0;
    size_t n_parts = 1 + below(t, 6), width = all ? 16 * n_parts : 1 + below(t, 70);
    size_t n_rows = 1 + below(t, 150), in_stride = width + below(t, 9);
    size_t stride = nimbus_padded(n_rows), n_columns = 16 * n_parts;
    uint8_t *in = random_bytes(t, (n_rows - 1) * in_stride + width);
    nimbus_part *parts = array(t, n_parts * sizeof *parts);
    for (size_t p = 0; p < n_parts; p++)
        parts[p] = random_part(t, width, 16 * p);
    uint8_t flip = below(t, 2) ? 0x80 : 0;
    uint8_t *out = array(t, n_columns * stride), *expected = array(t, n_columns * stride);
    t->k->transpose_u8u8(in, in_stride, width, n_rows, all ? NULL : parts, n_parts, flip, out,
                         stride);
    t->c->transpose_u8u8(in, in_stride, width, n_rows, all ? NULL : parts, n_parts, flip, expected,
                         stride);
    for (size_t i = 0; i < n_columns; i++) {
        bool few = !all && parts[i / 16].few;
        if (i % 16 < (few ? NIMBUS_FEW : width < 16 ? width : 16))
            assert_memory_equal(out + i * stride, expected + i * stride, n_rows);
    }
}

typedef void encode_i8(const nimbus_trees *trees, const int8_t *columns, size_t stride, size_t n,
                       uint8_t *codes, size_t codes_stride);

static void compare_encode(trial *t, encode_i8 *k, encode_i8 *c, bool nodes)
{
    size_t H = 1 + below(t, !nodes && t->k->wide_u8i8 ? 6 : 4), C = 1 + below(t, 9);
    size_t D = 1 + below(t, 30), n = NIMBUS_PAD * (1 + below(t, 4)), stride = n + below(t, 70);
    size_t per_tree = nodes ? ((size_t)1 << H) - 1 : H;
    int8_t *thresholds =
        random_bytes(t, C * (nodes ? per_tree * 4 : nimbus_level_threshold_bytes(H)));
    for (size_t i = 0; i < C * per_tree && nodes; i++)
        memset(thresholds + 4 * i, thresholds[4 * i], 4);
    nimbus_trees trees = {random_u32s(t, C * per_tree, D), thresholds, C, H};
    int8_t *columns = random_bytes(t, (D - 1) * stride + n);
    size_t codes_stride = n + below(t, 9), size = (C - 1) * codes_stride + n;
    uint8_t *codes = array(t, size), *expected = array(t, size);
    k(&trees, columns, stride, n, codes, codes_stride);
    c(&trees, columns, stride, n, expected, codes_stride);
    for (size_t i = 0; i < C; i++)
        assert_memory_equal(codes + i * codes_stride, expected + i * codes_stride, n);
}

static void check_encode_i8u8(trial *t)
{
    compare_encode(t, t->k->encode_i8u8, t->c->encode_i8u8, false);
}

static void check_encode_nodes_i8u8(trial *t)
{
    compare_encode(t, t->k->encode_nodes_i8u8, t->c->encode_nodes_i8u8, true);
}

static void check_transpose_f32(trial *t)
{
    size_t width = 1 + below(t, 40), n_rows = 1 + below(t, 2 * NIMBUS_PAD),
           n_parts = 1 + below(t, 9);
    size_t rows = n_rows < NIMBUS_PAD ? n_rows : NIMBUS_PAD;
    size_t step = width + below(t, 3), end = nimbus_rounded_up(rows, t->k->shape.lanes);
    uint32_t *first = random_u32s(t, n_parts, width < 4 ? 1 : width - 3);
    float *in = random_floats(t, (rows - 1) * step + width, 2.0f);
    float *out = array(t, n_parts * 4 * NIMBUS_PAD * sizeof *out);
    t->k->transpose_f32((uint8_t *)in, step * sizeof *in, width, n_rows, first, n_parts, out);
    for (size_t p = 0; p < n_parts; p++)
        for (size_t i = 0; i < 4 && first[p] + i < width; i++)
            for (size_t r = 0; r < end; r++)
                assert_memory_equal(&out[(4 * p + i) * NIMBUS_PAD + r],
                                    &in[(r < rows ? r : rows - 1) * step + first[p] + i],
                                    sizeof *in);
}

typedef void encode_f32(const nimbus_trees *trees, const float *columns, size_t stride, size_t n,
                        uint8_t *codes, size_t codes_stride);

static void compare_encode_floats(trial *t, encode_f32 *k, encode_f32 *c, bool nodes)
{
    size_t H = 1 + below(t, 4), C = 1 + below(t, 9), D = 1 + below(t, 30);
    size_t n = NIMBUS_PAD * (1 + below(t, 4)), n_nodes = ((size_t)1 << H) - 1;
    nimbus_trees trees = {random_u32s(t, C * (nodes ? n_nodes : H), D),
                          random_floats(t, C * (nodes ? n_nodes : NIMBUS_NODES), 2.0f), C, H};
    float *columns = random_floats(t, D * n, 2.0f);
    uint8_t *codes = array(t, C * n), *expected = array(t, C * n);
    k(&trees, columns, n, n, codes, n);
    c(&trees, columns, n, n, expected, n);
    assert_memory_equal(codes, expected, C * n);
}

static void check_encode_f32u8(trial *t)
{
    compare_encode_floats(t, t->k->encode_f32u8, t->c->encode_f32u8, false);
}

static void check_encode_nodes_f32u8(trial *t)
{
    compare_encode_floats(t, t->k->encode_nodes_f32u8, t->c->encode_nodes_f32u8, true);
}

/* Windows of their own choice for all groups. A set without registers has none. */
static void cut_windows(trial *t, nimbus_gather *g, size_t width)
{
    const nimbus_shape *shape = &t->k->shape;
    const size_t lanes = shape->lanes, n_groups = g->n_values / (g->vectors * lanes);
    const size_t part_bytes = nimbus_window_part(shape), n_parts = nimbus_window_parts(shape);
    const size_t most = g->n_values; /* of windows */
    uint32_t *first = array(t, (n_groups + 1) * sizeof *first), n = 0;
    nimbus_window *windows = array(t, most * sizeof *windows);
    uint64_t *wanted = array(t, most * g->vectors * sizeof *wanted);
    uint8_t *at = array(t, most * g->vectors * lanes);
    uint8_t *left = array(t, g->n_values);
    memset(wanted, 0, most * g->vectors * sizeof *wanted);
    memset(at, NIMBUS_ELSEWHERE, most * g->vectors * lanes);
    memset(left, 1, g->n_values);
    for (size_t group = 0; n_parts > 0 && group < n_groups; group++) {
        first[group] = n;
        if (!shape->joined && below(t, 4) == 0)
            continue;
        for (size_t i = 0; i < g->vectors * lanes; i++) {
            const size_t lane = i % lanes, part = shape->joined ? below(t, 2) : lane / 16;
            const size_t served = shape->joined ? lanes : 16, from = shape->joined ? 0 : 16 * part;
            const size_t here = group * g->group_step;
            const size_t value = here + i / lanes * g->vector_step + lane;
            if (!left[value])
                continue;
            const size_t column = g->columns[value];
            const size_t back = below(t, (column < part_bytes ? column : part_bytes - 1) + 1);
            const size_t begin =
                column - back < width - part_bytes ? column - back : width - part_bytes;
            windows[n] = (nimbus_window){{0}};
            windows[n].first[part] = begin;
            for (size_t j = 0; j < g->vectors * served; j++) {
                const size_t v = j / served, l = from + j % served;
                const size_t k = here + v * g->vector_step + l;
                if (!left[k] || g->columns[k] - begin >= part_bytes)
                    continue;
                left[k] = 0;
                if (shape->joined) {
                    wanted[n * g->vectors + v] |= (uint64_t)1 << l;
                    at[k] = (uint8_t)(g->columns[k] - begin + part * part_bytes);
                } else {
                    at[(n * g->vectors + v) * lanes + l] = (uint8_t)(g->columns[k] - begin);
                }
            }
            n++;
        }
    }
    first[n_groups] = n;
    g->windows = windows;
    g->first_window = first;
    g->wanted = wanted;
    g->at = at;
}

/* Trees of C codebooks a row of `width` bytes. */
static nimbus_walk random_walk(trial *t, size_t C, size_t H, bool nodes, size_t width)
{
    const nimbus_shape *shape = &t->k->shape;
    const size_t stride = nimbus_padded(C), n_values = (nodes ? NIMBUS_NODES : H) * stride;
    const size_t vectors = nodes ? nimbus_node_vectors(shape) : H, lanes = shape->lanes;
    nimbus_gather g = {.columns = random_u32s(t, n_values, width),
                       .n_values = n_values,
                       .flip = below(t, 2) ? 0x80 : 0,
                       .vectors = vectors,
                       .vector_step = nodes ? lanes : stride,
                       .group_step = nodes ? vectors * lanes : lanes};
    cut_windows(t, &g, width);
    return (nimbus_walk){
        g,
        random_bytes(t, (nodes ? NIMBUS_NODES : ((size_t)1 << H) - 1) * stride),
        C,
        H,
    };
}

static void check_walk_u8u8(trial *t)
{
    size_t H = 1 + below(t, 8), C = 1 + below(t, 3 * NIMBUS_PAD), room = nimbus_padded(C);
    size_t width = nimbus_window_part(&t->k->shape) + below(t, 200);
    nimbus_walk walk = random_walk(t, C, H, false, width);
    uint8_t *x = random_bytes(t, width), *codes = array(t, room), *expected = array(t, room);
    t->k->walk_u8u8(&walk, x, codes);
    t->c->walk_u8u8(&walk, x, expected);
    assert_memory_equal(codes, expected, C);
}

static void check_walk_f32u8(trial *t)
{
    size_t H = 1 + below(t, NIMBUS_FLOAT_LEVELS), C = 1 + below(t, 3 * NIMBUS_PAD);
    size_t room = nimbus_padded(C), width = 1 + below(t, 200);
    nimbus_walk walk = {.gather.columns = random_u32s(t, H * room, width),
                        .thresholds = random_floats(t, (((size_t)1 << H) - 1) * room, 2.0f),
                        .n_codebooks = C,
                        .n_levels = H};
    float *x = random_floats(t, width, 2.0f);
    uint8_t *codes = array(t, room), *expected = array(t, room);
    t->k->walk_f32u8(&walk, x, codes);
    t->c->walk_f32u8(&walk, x, expected);
    assert_memory_equal(codes, expected, C);
}

static void check_walk_nodes_u8u8(trial *t)
{
    size_t H = 1 + below(t, 4), C = 1 + below(t, 3 * NIMBUS_PAD), room = nimbus_padded(C);
    size_t width = nimbus_window_part(&t->k->shape) + below(t, 200);
    size_t n_rows = 1 + below(t, 4), stride = width + below(t, 9),
           codes_stride = room + below(t, 9);
    nimbus_walk walk = random_walk(t, C, H, true, width);
    uint8_t *x = random_bytes(t, (n_rows - 1) * stride + width);
    size_t size = (n_rows - 1) * codes_stride + room;
    uint8_t *codes = array(t, size), *expected = array(t, size);
    t->k->walk_nodes_u8u8(&walk, x, stride, n_rows, codes, codes_stride);
    t->c->walk_nodes_u8u8(&walk, x, stride, n_rows, expected, codes_stride);
    for (size_t r = 0; r < n_rows; r++)
        assert_memory_equal(codes + r * codes_stride, expected + r * codes_stride, C);
}

static size_t random_n(trial *t)
{
    /* plain C takes any number, but programs never run in columns with it */
    size_t granule = t->k->shape.granule;
    return (granule ? granule : 1) * (1 + below(t, 12));
}

/* Packing is checked through the products that read packed columns, whose order is a set's own;
 * here only that a group's bytes are those of its columns. */
static void check_pack_u8u8(trial *t)
{
    const size_t group = t->k->shape.group, n = random_n(t), stride = nimbus_padded(n);
    const size_t n_columns = 1 + below(t, 12), n_groups = (n_columns + group - 1) / group;
    const size_t out_stride = stride + NIMBUS_PAD * below(t, 2), size = n_groups * out_stride * 4;
    uint32_t flip = group == 4 ? (uint32_t)below(t, UINT32_MAX) : 0;
    uint8_t *columns = random_bytes(t, n_columns * stride), *out = array(t, size);
    t->k->pack_u8u8(columns, stride, n, n_columns, flip, out, out_stride);
    for (size_t c = 0; group == 1 && c < n_columns; c++)
        assert_memory_equal(out + c * out_stride, columns + c * stride, n);
    for (size_t g = 0; group > 1 && g < n_groups; g++) {
        uint64_t expected = 0, sum = 0; /* of all rows, whatever their order */
        for (size_t r = 0; r < n; r++) {
            uint8_t value[4] = {0};
            for (size_t i = 0; i < group; i++)
                if (g * group + i < n_columns)
                    value[i] = columns[(g * group + i) * stride + r];
            uint32_t word, packed;
            if (group == 2) {
                int16_t wide[2] = {(int8_t)value[0], (int8_t)value[1]};
                memcpy(&word, wide, 4);
            } else {
                memcpy(&word, value, 4);
                word ^= flip;
            }
            memcpy(&packed, out + (g * out_stride + r) * 4, 4);
            expected += (uint64_t)word * word;
            sum += (uint64_t)packed * packed;
        }
        assert_true(sum == expected);
    }
}

/* Tables of one tile in the layout of a set, codes for n rows, and the sums they make. */
typedef struct lookups {
    nimbus_tile tile;
    const uint8_t *codes;
    size_t n, stride;
    int32_t *sums; /* [tile][stride] */
} lookups;

static size_t random_groups(trial *t, nimbus_tile *tile)
{
    size_t C = 0;
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        tile->n_groups[g] = (uint32_t)below(t, below(t, 8) ? 6 : 300);
        C += (size_t)tile->n_groups[g] << (NIMBUS_GROUP_SIZES - 1 - g);
    }
    return C;
}

/* Groups keep to 255. */
static lookups random_lookups(trial *t, size_t table_bytes)
{
    const nimbus_shape *shape = &t->k->shape;
    const bool packed = shape->packed && table_bytes == 16;
    lookups l = {.n = table_bytes == 64 ? NIMBUS_PAD * (1 + below(t, 3)) : random_n(t)};
    size_t C = packed ? 1 + below(t, below(t, 8) ? 40 : 1000) : random_groups(t, &l.tile);
    l.stride = nimbus_padded(l.n);
    const size_t T = shape->tile, n_tables = packed ? nimbus_rounded_up(C, 4) : C;
    uint8_t *tables = random_bytes(t, n_tables * T * table_bytes);
    uint8_t *codes = random_bytes(t, C * l.stride);
    uint32_t *order = below(t, 2) ? random_u32s(t, C, C ? C : 1) : NULL;
    for (size_t i = 0; i < C * l.stride; i++)
        codes[i] = (uint8_t)(codes[i] % table_bytes);
    for (size_t g = 0, at = 0; g < NIMBUS_GROUP_SIZES && !packed; g++) {
        size_t size = (size_t)8 >> g, n = l.tile.n_groups[g] * size * T * table_bytes;
        for (size_t i = 0; i < n; i++, at++)
            tables[at] = (uint8_t)(below(t, 4) ? tables[at] % (255 / size + 1) : 255 / size);
    }
    l.tile.paired = packed && below(t, 2);
    for (size_t i = 0; i < n_tables * T * 16 && l.tile.paired; i++)
        tables[i] = (uint8_t)(int8_t)((int8_t)tables[i] >> 1); /* -64..63 */
    for (size_t i = 0; i < T; i++)
        l.tile.bias[i] = made_between(&t->random, -9999, 9999);
    l.sums = array(t, T * l.stride * sizeof *l.sums);
    for (size_t i = 0; i < T; i++) {
        for (size_t r = 0; r < l.n; r++) {
            int32_t sum = l.tile.bias[i];
            for (size_t c = 0; c < C; c++) {
                size_t code = codes[(order && !packed ? order[c] : c) * l.stride + r];
                sum += packed ? (int8_t)tables[((c / 4 * T + i) * 4 + c % 4) * 16 + code]
                              : tables[(c * T + i) * table_bytes + code];
            }
            l.sums[i * l.stride + r] = sum;
        }
    }
    l.tile.tables = tables;
    l.tile.order = order;
    l.tile.n_quads = n_tables / 4;
    l.codes = codes;
    if (packed) {
        /* tables of codebooks that a last quad lacks are zero */
        for (size_t c = C; c < n_tables; c++)
            for (size_t i = 0; i < T; i++)
                memset(tables + ((c / 4 * T + i) * 4 + c % 4) * 16, 0, 16);
        uint8_t *quads = array(t, n_tables * l.stride);
        t->k->pack_u8u8(codes, l.stride, l.n, C, 0x30201000, quads, l.stride);
        l.codes = quads;
    }
    return l;
}

typedef void lookup_i8(const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,
                       unsigned shift, int8_t *out, size_t out_stride);
typedef void lookup_i32(const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,
                        int32_t *sums, size_t sums_stride);

static void compare_lookup_i8(trial *t, lookup_i8 *k, size_t table_bytes)
{
    const size_t T = t->k->shape.tile;
    lookups l = random_lookups(t, table_bytes);
    const size_t out_stride = l.stride + below(t, 9), size = (T - 1) * out_stride + l.n;
    const unsigned shift = (unsigned)below(t, 12);
    int8_t *out = array(t, size);
    k(&l.tile, l.codes, l.stride, l.n, shift, out, out_stride);
    for (size_t i = 0; i < T; i++) {
        for (size_t r = 0; r < l.n; r++) {
            int32_t sum = l.sums[i * l.stride + r];
            if ((sum < INT16_MIN || sum > INT16_MAX) &&
                !(t->k->shape.packed && table_bytes == 16 && shift <= 8))
                continue; /* outside what the kernel promises */
            int32_t y = sum < 0 ? ~(~sum >> shift) : sum >> shift;
            assert_int_equal(out[i * out_stride + r], y < -128 ? -128 : y > 127 ? 127 : y);
        }
    }
}

static void compare_lookup_i32(trial *t, lookup_i32 *k, size_t table_bytes)
{
    const size_t T = t->k->shape.tile;
    lookups l = random_lookups(t, table_bytes);
    const size_t sums_stride = l.stride + below(t, 9), size = (T - 1) * sums_stride + l.n;
    int32_t *sums = array(t, size * sizeof *sums);
    k(&l.tile, l.codes, l.stride, l.n, sums, sums_stride);
    for (size_t i = 0; i < T; i++)
        assert_memory_equal(sums + i * sums_stride, l.sums + i * l.stride, l.n * sizeof *sums);
}

typedef void lookup_rounded(const nimbus_tile *tile, const uint8_t *codes, size_t stride, size_t n,
                            const nimbus_rounding *rounding, size_t m, int8_t *out,
                            size_t out_stride);

static void compare_lookup_rounded(trial *t, lookup_rounded *k, size_t table_bytes)
{
    const size_t T = t->k->shape.tile, m = T * below(t, 3);
    lookups l = random_lookups(t, table_bytes);
    const size_t out_stride = l.stride + below(t, 9), size = (T - 1) * out_stride + l.n;
    nimbus_rounding rounding = {.shift = (unsigned)below(t, 25)};
    if (below(t, 2)) {
        rounding.scale = random_scales(t, m + T);
        rounding.offset = random_scales(t, m + T);
    }
    int8_t *out = array(t, size);
    k(&l.tile, l.codes, l.stride, l.n, &rounding, m, out, out_stride);
    for (size_t i = 0; i < T; i++)
        for (size_t r = 0; r < l.n; r++)
            assert_int_equal(out[i * out_stride + r],
                             nimbus_round_sum(l.sums[i * l.stride + r], &rounding, m + i));
}

static void check_lookup_u8i8(trial *t)
{
    compare_lookup_i8(t, t->k->lookup_u8i8, 16);
}

static void check_lookup_u8i32(trial *t)
{
    compare_lookup_i32(t, t->k->lookup_u8i32, 16);
}

static void check_lookup_rounded_u8i8(trial *t)
{
    compare_lookup_rounded(t, t->k->lookup_rounded_u8i8, 16);
}

static void check_wide_rounded_u8i8(trial *t)
{
    compare_lookup_rounded(t, t->k->wide_rounded_u8i8, 64);
}

static void check_wide_u8i8(trial *t)
{
    compare_lookup_i8(t, t->k->wide_u8i8, 64);
}

static void check_wide_u8i32(trial *t)
{
    compare_lookup_i32(t, t->k->wide_u8i32, 64);
}

static void check_scores_i32i32(trial *t)
{
    const size_t T = 1 + below(t, t->k->shape.tile), n = 1 + below(t, 150);
    const size_t stride = nimbus_padded(n);
    const size_t M = T + below(t, 9), size = (n - 1) * M + T;
    int32_t *sums = random_i32s(t, T * stride), *scores = array(t, size * sizeof *scores);
    memset(scores, 0, size * sizeof *scores);
    t->k->scores_i32i32(sums, stride, n, T, scores, M);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < M && r * M + i < size; i++)
            assert_int_equal(scores[r * M + i], i < T ? sums[i * stride + r] : 0);
}

static nimbus_table random_table(trial *t, const uint8_t **codes)
{
    size_t C = 1 + below(t, below(t, 8) ? 30 : 700), K = (size_t)1 << below(t, 6);
    size_t M = 1 + below(t, below(t, 2) ? 300 : 30), stride = M + below(t, 9);
    uint8_t *some_codes = random_bytes(t, C);
    for (size_t c = 0; c < C; c++)
        some_codes[c] = (uint8_t)(some_codes[c] % K);
    *codes = some_codes;
    uint8_t *entries = random_bytes(t, C * K * stride + NIMBUS_PAD);
    const bool paired = below(t, 2);
    for (size_t i = 0; i < C * K * stride && paired; i++)
        entries[i] &= 127;
    return (nimbus_table){entries, C, K, M, stride, paired};
}

static void check_add_u8i8(trial *t)
{
    const uint8_t *codes;
    nimbus_table table = random_table(t, &codes);
    const size_t size = nimbus_padded(table.n_outputs);
    const unsigned shift = (unsigned)below(t, 25);
    int16_t *even = random_bytes(t, size), *odd = random_bytes(t, size);
    int8_t *out = array(t, size), *expected = array(t, size);
    t->k->add_u8i8(&table, codes, even, odd, shift, out);
    t->c->add_u8i8(&table, codes, even, odd, shift, expected);
    assert_memory_equal(out, expected, table.n_outputs);
}

static void check_add_u8i32(trial *t)
{
    const uint8_t *codes;
    nimbus_table table = random_table(t, &codes);
    size_t bytes = nimbus_padded(table.n_outputs) * sizeof(int32_t);
    int32_t *bias = random_bytes(t, bytes), *sums = array(t, bytes), *expected = array(t, bytes);
    t->k->add_u8i32(&table, codes, bias, sums);
    t->c->add_u8i32(&table, codes, bias, expected);
    assert_memory_equal(sums, expected, table.n_outputs * sizeof(int32_t));
}

/* An exact product in the layout of a set, and its sums. */
typedef struct products {
    nimbus_weights weights;
    int8_t *x; /* [n][D] */
    size_t n, D, M;
    int32_t *sums; /* [n][M] */
} products;

static products random_products(trial *t, size_t n)
{
    const nimbus_shape *shape = &t->k->shape;
    const size_t group = shape->group, block = shape->block;
    products p = {.n = n, .D = 1 + below(t, 300), .M = 1 + below(t, 40)};
    const size_t n_groups = (p.D + group - 1) / group, n_blocks = (p.M + block - 1) / block;
    const bool extreme = below(t, 4) == 0;
    int8_t *weights = random_bytes(t, p.M * p.D);
    int32_t *bias = array(t, nimbus_padded(p.M) * sizeof *bias);
    uint8_t *packed = array(t, n_blocks * n_groups * block * group * (group == 2 ? 2 : 1));
    memset(packed, 0, n_blocks * n_groups * block * group * (group == 2 ? 2 : 1));
    memset(bias, 0, nimbus_padded(p.M) * sizeof *bias);
    p.x = random_bytes(t, n * p.D);
    p.sums = array(t, n * p.M * sizeof *p.sums);
    if (extreme) {
        memset(p.x, 0x80, n * p.D);
        memset(weights, 0x80, p.M * p.D);
    }
    for (size_t m = 0; m < p.M; m++) {
        int32_t of_weights = 0, its_bias = made_between(&t->random, -100000, 100000);
        for (size_t d = 0; d < p.D; d++) {
            int8_t w = weights[m * p.D + d];
            size_t at =
                ((m / block * n_groups + d / group) * block + m % block) * group + d % group;
            of_weights += w;
            if (group == 2)
                ((int16_t *)(void *)packed)[at] = w;
            else
                packed[at] = (uint8_t)w;
        }
        bias[m] = its_bias - shape->flip * of_weights;
        for (size_t r = 0; r < n; r++) {
            int32_t sum = its_bias;
            for (size_t d = 0; d < p.D; d++)
                sum += weights[m * p.D + d] * p.x[r * p.D + d];
            p.sums[r * p.M + m] = sum;
        }
    }
    p.weights = (nimbus_weights){packed, bias, n_groups, p.M};
    return p;
}

static void check_dot_columns_i32(trial *t)
{
    const size_t n = random_n(t), stride = nimbus_padded(n), T = t->k->shape.tile;
    products p = random_products(t, n);
    uint8_t *columns = array(t, p.D * stride);
    for (size_t d = 0; d < p.D; d++)
        for (size_t r = 0; r < n; r++)
            columns[d * stride + r] = (uint8_t)p.x[r * p.D + d];
    uint8_t *packed = array(t, p.weights.n_groups * stride * 4);
    int32_t *sums = array(t, T * stride * sizeof *sums);
    t->k->pack_u8u8(columns, stride, n, p.D, t->k->shape.flip * 0x01010101u, packed, stride);
    for (size_t m = 0; m < p.M; m += T) {
        t->k->dot_columns_i32(&p.weights, m, packed, stride, n, sums);
        for (size_t i = 0; i < T && m + i < p.M; i++)
            for (size_t r = 0; r < n; r++)
                assert_int_equal(sums[i * stride + r], p.sums[r * p.M + m + i]);
    }
}

static void check_dot_rows_i32(trial *t)
{
    const size_t n = 1 + below(t, 6), group = t->k->shape.group;
    products p = random_products(t, n);
    const size_t bytes = group == 2 ? 2 : 1, x_stride = nimbus_padded(p.D) * bytes;
    const size_t stride = nimbus_padded(p.M);
    uint8_t *x = array(t, n * x_stride);
    int32_t *sums = array(t, n * stride * sizeof *sums);
    memset(x, 0, n * x_stride);
    for (size_t r = 0; r < n; r++)
        for (size_t d = 0; d < p.D; d++)
            if (group == 2)
                ((int16_t *)(void *)(x + r * x_stride))[d] = p.x[r * p.D + d];
            else
                x[r * x_stride + d] = (uint8_t)p.x[r * p.D + d] ^ t->k->shape.flip;
    t->k->dot_rows_i32(&p.weights, x, x_stride, n, sums, stride);
    for (size_t r = 0; r < n; r++)
        assert_memory_equal(sums + r * stride, p.sums + r * p.M, p.M * sizeof *sums);
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
    float *x = array(t, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sums[i];
    make_ties(t, x, scale, n_scales, offset);
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
    make_ties(t, x, scale, n, offset);
    t->k->quantise_f32i8(x, n, scale, offset, out);
    t->c->quantise_f32i8(x, n, scale, offset, expected);
    assert_memory_equal(out, expected, n);
}

static void check_map_i8i8(trial *t)
{
    size_t n = NIMBUS_PAD * (1 + below(t, 4));
    int8_t *x = random_bytes(t, n), *expected = array(t, n), *map = random_bytes(t, 256);
    int8_t *out = below(t, 2) ? x : array(t, n);
    t->c->map_i8i8(x, n, map, expected);
    t->k->map_i8i8(x, n, map, out);
    assert_memory_equal(out, expected, n);
}

static void check(void (*body)(trial *), const nimbus_kernels *kernels)
{
    for (uint64_t seed = 0; seed < 150; seed++) {
        trial t = {.k = kernels, .c = &nimbus_kernel_table[0], .random = {seed, 0}};
        body(&t);
        trial_end(&t);
    }
}

/* Sets that have the kernel, on this CPU; plain C too, since most checks compare with loops of
 * their own. */
#define TEST(isa, op, parameters)                                                                  \
    static void test_##op(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        for (size_t i = 0; i < nimbus_kernel_table_size; i++)                                      \
            if (nimbus_kernel_table[i].usable() && nimbus_kernel_table[i].op)                      \
                check(check_##op, &nimbus_kernel_table[i]);                                        \
    }
#define ALL_KERNELS(K)                                                                             \
    NIMBUS_KERNEL_LIST(K, all)                                                                     \
    NIMBUS_NODE_KERNEL_LIST(K, all)                                                                \
    NIMBUS_WIDE_KERNEL_LIST(K, all)
ALL_KERNELS(TEST)

int main(void)
{
#define ENTRY(isa, op, parameters) cmocka_unit_test(test_##op),
    const struct CMUnitTest tests[] = {ALL_KERNELS(ENTRY)};
    printf("instruction sets of this machine:");
    for (size_t i = 0; i < nimbus_kernel_table_size; i++)
        if (nimbus_kernel_table[i].usable())
            printf(" %s", nimbus_kernel_table[i].isa);
    printf("\n");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
