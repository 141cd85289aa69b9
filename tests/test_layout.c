/* test_layout.c - the windows that single rows are walked through, for the registers of every set
 * of instructions, whatever this CPU has: each value is in one window of its group, where its
 * column is, and no window goes beyond the row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "program_maker.h"
#include "run/program.h"

static void walk_nodes(const nimbus_walk *walk, const uint8_t *x, size_t x_stride, size_t n_rows,
                       uint8_t *codes, size_t codes_stride)
{
    (void)walk, (void)x, (void)x_stride, (void)n_rows, (void)codes, (void)codes_stride;
}

/* A lookup step of raw or i8 rows as far as its trees go; every fourth threshold is never passed.
 */
static nimbus_program_step random_step(made_random *random)
{
    const bool levels = made_below(random, 3) > 0, u8 = made_below(random, 3) > 0;
    nimbus_program_step step = {
        .info.shared_columns = levels,
        .input = u8 ? NIMBUS_IN_U8 : NIMBUS_IN_I8,
        .n_inputs = 1 + made_below(random, made_below(random, 4) ? 150 : 3000),
        .n_codebooks = 8 + made_below(random, made_below(random, 3) ? 60 : 300),
        .n_levels = 1 + made_below(random, levels ? 8 : 4)};
    step.n_leaves = (size_t)1 << step.n_levels;
    const size_t n_nodes = step.n_leaves - 1, n = step.n_codebooks * n_nodes;
    int8_t *thresholds = step.thresholds = nimbus_alloc(n, 1);
    step.columns = nimbus_alloc(n, sizeof *step.columns);
    assert_non_null(thresholds);
    assert_non_null(step.columns);
    for (size_t i = 0; i < n; i++) {
        const size_t node = i % n_nodes;
        size_t first_of_level = 0;
        while (2 * first_of_level + 1 <= node)
            first_of_level = 2 * first_of_level + 1;
        thresholds[i] = made_below(random, 4) ? (int8_t)made_below(random, 256) : INT8_MAX;
        step.columns[i] = levels && node > first_of_level
                              ? step.columns[i - (node - first_of_level)]
                              : made_below(random, (uint32_t)step.n_inputs);
    }
    return step;
}

/* How many windows of a group have a value, and where in the row the last one has it. */
static size_t windows_with(const nimbus_gather *g, const nimbus_shape *shape, size_t group,
                           size_t v, size_t lane, size_t *column)
{
    size_t hits = 0;
    for (size_t w = g->first_window[group]; w < g->first_window[group + 1]; w++) {
        const size_t row = w * g->vectors + v;
        if (shape->joined) {
            const uint8_t at = g->at[group * g->group_step + v * g->vector_step + lane];
            if (!(g->wanted[row] >> lane & 1))
                continue;
            *column = g->windows[w].first[at / NIMBUS_PAD] + at % NIMBUS_PAD;
        } else {
            const uint8_t at = g->at[row * shape->lanes + lane];
            if (at == NIMBUS_ELSEWHERE)
                continue;
            *column = g->windows[w].first[lane / 16] + at;
        }
        hits++;
    }
    return hits;
}

static void check_windows(const nimbus_program_step *step, const nimbus_shape *shape)
{
    const nimbus_gather *g = &step->walk.gather;
    const size_t n_groups = g->n_values / (g->vectors * shape->lanes);
    const size_t part = nimbus_window_part(shape), n_parts = nimbus_window_parts(shape);
    const size_t raw = step->n_inputs < part ? part : step->n_inputs;
    const size_t width = step->input == NIMBUS_IN_U8 ? raw : nimbus_padded(step->n_inputs);
    for (size_t w = 0; w < g->first_window[n_groups]; w++)
        for (size_t p = 0; p < n_parts; p++)
            assert_true(g->windows[w].first[p] + part <= width);
    for (size_t group = 0; group < n_groups; group++) {
        if (!shape->joined && g->first_window[group] == g->first_window[group + 1])
            continue; /* copied from its columns */
        for (size_t i = 0; i < g->vectors * shape->lanes; i++) {
            const size_t v = i / shape->lanes, lane = i % shape->lanes;
            size_t column = SIZE_MAX;
            assert_int_equal(windows_with(g, shape, group, v, lane, &column), 1);
            assert_int_equal(column, g->columns[group * g->group_step + v * g->vector_step + lane]);
        }
    }
}

static void test_windows(void **state)
{
    (void)state;
    static const nimbus_shape shapes[] = {{.granule = 16, .lanes = 16},
                                          {.granule = 32, .lanes = 32},
                                          {.granule = 64, .lanes = 64},
                                          {.granule = 16, .lanes = 64, .joined = true}};
    made_random random = {0, 1u << 26};
    size_t laid_out = 0;
    for (size_t i = 0; i < 400; i++) {
        const nimbus_kernels kernels = {.shape = shapes[i % 4], .walk_nodes_u8u8 = walk_nodes};
        nimbus_program_step step = random_step(&random);
        assert_true(nimbus_step_lay_out_walk(&step, &kernels));
        laid_out += step.walk.thresholds != NULL;
        if (step.walk.thresholds)
            check_windows(&step, &kernels.shape);
        nimbus_step_free(&step);
    }
    assert_true(laid_out > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_windows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
