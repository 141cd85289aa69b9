/* golden.c - rows with their scores, and the program that checks them where the C is to run */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "export/export.h"

typedef struct golden {
    size_t n, n_inputs, n_outputs;
    double *rows;    /* [n][n_inputs], as the exported C is given them */
    int32_t *scores; /* [n][n_outputs] */
} golden;

/* A number of the input type that a threshold as stored, or just beside it, is, by `which` of
 * 0..2: where mistakes show. */
static double beside(const nimbus_stored_step *step, nimbus_export_input input, size_t node,
                     size_t which)
{
    int64_t low, high;
    nimbus_input_range(input, &low, &high);
    if (step->input == NIMBUS_IN_U8) {
        const double x = (int8_t)step->arrays.thresholds[node] + 127 + (double)which;
        return x < 0 ? 0 : x > 255 ? 255 : x;
    }
    const float t = nimbus_f32_at(step->arrays.thresholds, node);
    if (input == NIMBUS_EXPORT_F32) {
        const float most = 3e38f;
        const float near = t > most ? most : t < -most ? -most : t;
        const float apart = near * 1e-6f + 1e-30f;
        return (double)(which == 0 ? t : which == 1 ? near - apart : near + apart);
    }
    const double x = !(t > (float)low) ? (double)low : t >= (float)high ? (double)high : (double)t;
    const double whole = (double)(int64_t)x + (double)which - 1;
    return whole < (double)low ? (double)low : whole > (double)high ? (double)high : whole;
}

static double anything(const nimbus_stored_program *program, nimbus_export_input input, size_t r,
                       size_t d)
{
    static const double odd[] = {NAN, INFINITY, -INFINITY, -0.0, 0, 1e-42, 3e38, -3e38};
    int64_t low, high;
    nimbus_input_range(input, &low, &high);
    if (program->info.input_dtype == NIMBUS_U8)
        return (double)nimbus_random_below(1, r, d, 256);
    double x = 4 * (nimbus_random_uniform(1, r, d) - 0.5);
    if (program->in_scale) {
        const size_t c = d / (program->info.height * program->info.width);
        const double scale = (double)nimbus_f32_at(program->in_scale, c);
        const double grid = (double)nimbus_random_below(1, r, d, 300) - 150;
        x = (grid - (double)nimbus_f32_at(program->in_offset, c)) / (scale != 0 ? scale : 1);
    }
    if (input == NIMBUS_EXPORT_F32) {
        /* infinity times a scale of 0 is no number, which no comparison of integers tells */
        const size_t n = sizeof odd / sizeof *odd, first = program->in_scale ? 3 : 0;
        if (nimbus_random_below(2, r, d, 40) == 0)
            return odd[first + nimbus_random_below(3, r, d, n - first)];
        return x < -3e38 ? -3e38 : x > 3e38 ? 3e38 : (double)(float)x;
    }
    x = x < (double)low ? (double)low : x > (double)high ? (double)high : x;
    return (double)(int64_t)x;
}

/* A row with a value for each column at a threshold of a tree that reads it, in the trees of the
 * first step; any value where there is none. */
static void make_up(const nimbus_stored_program *program, nimbus_export_input input, size_t r,
                    double *row)
{
    const nimbus_stored_step *step = &program->steps[0];
    const nimbus_step_info *info = &step->info;
    const size_t n_nodes = nimbus_step_leaves(info) - 1, n = info->n_codebooks * n_nodes;
    for (size_t d = 0; d < program->info.n_inputs; d++)
        row[d] = anything(program, input, r, d);
    if (program->of_images || info->kind != NIMBUS_STEP_LOOKUP)
        return;
    const size_t from = nimbus_random_below(4, r, 0, n);
    for (size_t i = 0; i < n; i++) {
        const size_t node = (from + i) % n, c = node / n_nodes, in_tree = node % n_nodes;
        size_t level = 0;
        while (in_tree + 1 >= (size_t)2 << level)
            level++;
        const size_t column = info->shared_columns ? c * info->n_levels + level : node;
        if (nimbus_random_below(5, r, node, 8) != 0) /* the last of some of them stays */
            row[nimbus_u32_at(step->arrays.columns, column)] =
                beside(step, input, node, nimbus_random_below(6, r, node, 3));
    }
}

/* A row of data as a number of the input type. */
static nimbus_status read_row(const nimbus_data *data, nimbus_export_input input, size_t r,
                              size_t n, double *to, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    int64_t low, high;
    nimbus_input_range(input, &low, &high);
    const void *all = nimbus_data_features(data);
    for (size_t d = 0; d < n; d++) {
        to[d] = info->dtype == NIMBUS_U8 ? ((const uint8_t *)all)[r * n + d]
                                         : (double)((const float *)all)[r * n + d];
        const bool whole =
            to[d] >= (double)low && to[d] <= (double)high && to[d] == (double)(int64_t)to[d];
        if (input != NIMBUS_EXPORT_F32 && !whole)
            return nimbus_fail(error, NIMBUS_ERR_VALUE,
                               "row %zu of the data, column %zu, is %g, expected an integer of %s",
                               r, d, to[d], nimbus_input_type(input));
    }
    return NIMBUS_OK;
}

static nimbus_status run(const void *bytes, size_t n_bytes, golden *g, nimbus_error *error)
{
    nimbus_in_place *program;
    const size_t n_memory = nimbus_in_place_memory_size(bytes, n_bytes);
    void *memory = nimbus_alloc(n_memory, 1), *row = nimbus_alloc(g->n_inputs, sizeof(float));
    void *scratch = NULL;
    nimbus_status status =
        memory && row ? nimbus_in_place_open(bytes, n_bytes, memory, n_memory, &program, error)
                      : nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a row");
    if (!status && !(scratch = nimbus_alloc(nimbus_in_place_scratch_size(program), 1)))
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a row");
    for (size_t r = 0; r < g->n && !status; r++) {
        const bool floats = nimbus_in_place_info(program)->input_dtype == NIMBUS_F32;
        for (size_t d = 0; d < g->n_inputs; d++) {
            const double x = g->rows[r * g->n_inputs + d];
            if (floats)
                ((float *)row)[d] = (float)x;
            else
                ((uint8_t *)row)[d] = (uint8_t)x;
        }
        status = nimbus_in_place_run(program, row, g->scores + r * g->n_outputs, scratch);
    }
    nimbus_free(row);
    nimbus_free(scratch);
    nimbus_free(memory);
    return status;
}

/* Floats by their bits: there are some that C has no constants for. */
static void write_float(double x, nimbus_buffer *out)
{
    union {
        float f;
        uint32_t u;
    } bits = {(float)x};
    nimbus_text(out, "0x%xu,", bits.u);
}

static void write_test(const golden *g, const nimbus_export_plan *plan, nimbus_buffer *out)
{
    const char *p = plan->prefix;
    const bool floats = plan->input == NIMBUS_EXPORT_F32;
    nimbus_text(out,
                "/* %s_test.c - %zu rows and the scores they must get. Link with %s.c; build with\n"
                "   -DSELFTEST_MAIN for a program that ends with 0 if all is well. */\n"
                "#include \"%s.h\"\n\n",
                p, g->n, p, p);
    if (floats)
        nimbus_text(
            out,
            "static const union {\n    uint32_t bits[%zu];\n    float row[%zu];\n} rows[%zu] = {",
            g->n_inputs, g->n_inputs, g->n);
    else
        nimbus_text(out, "static const struct {\n    %s row[%zu];\n} rows[%zu] = {",
                    nimbus_input_type(plan->input), g->n_inputs, g->n);
    for (size_t r = 0; r < g->n; r++) {
        nimbus_text(out, "\n    {{");
        for (size_t d = 0; d < g->n_inputs; d++) {
            const double x = g->rows[r * g->n_inputs + d];
            if (floats)
                write_float(x, out);
            else
                nimbus_text(out, "%lld,", (long long)x);
            if (d % 16 == 15)
                nimbus_text(out, "\n      ");
        }
        nimbus_text(out, "}},");
    }
    nimbus_text(out, "\n};\n\nstatic const int32_t expected[%zu][%zu] = {", g->n, g->n_outputs);
    for (size_t r = 0; r < g->n; r++) {
        nimbus_text(out, "\n    {");
        for (size_t m = 0; m < g->n_outputs; m++)
            nimbus_text(out, "%ld%s", (long)g->scores[r * g->n_outputs + m],
                        m + 1 < g->n_outputs ? "," : "},");
    }
    nimbus_text(out,
                "\n};\n\n"
                "static int32_t scores[%zu];\n\n"
                "int %s_selftest(void)\n{\n"
                "    int r, m;\n"
                "    for (r = 0; r < %zu; r++) {\n"
                "        %s_run(rows[r].row, scores);\n"
                "        for (m = 0; m < %zu; m++)\n"
                "            if (scores[m] != expected[r][m])\n"
                "                return r + 1;\n"
                "    }\n"
                "    return 0;\n}\n\n"
                "#ifdef SELFTEST_MAIN\n"
                "int main(void)\n{\n    return %s_selftest();\n}\n"
                "#endif\n",
                g->n_outputs, p, g->n, p, g->n_outputs, p);
}

static nimbus_status check_data(const nimbus_data *data, const nimbus_program_info *program,
                                nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    if (info->n_features != program->n_inputs || info->dtype != program->input_dtype)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data has rows of %zu %s, but the program reads %zu %s",
                           info->n_features, info->dtype == NIMBUS_U8 ? "u8" : "f32",
                           program->n_inputs, program->input_dtype == NIMBUS_U8 ? "u8" : "f32");
    return NIMBUS_OK;
}

nimbus_status nimbus_golden_write(const nimbus_stored_program *program, const void *bytes,
                                  size_t n_bytes, const nimbus_export_plan *plan,
                                  const nimbus_data *rows, size_t n_rows, nimbus_buffer *out,
                                  nimbus_error *error)
{
    const nimbus_program_info *info = &program->info;
    golden g = {.n = n_rows, .n_inputs = info->n_inputs, .n_outputs = info->n_outputs};
    nimbus_status status = rows ? check_data(rows, info, error) : NIMBUS_OK;
    if (status)
        return status;
    if (rows && nimbus_data_get_info(rows)->n_rows < g.n)
        g.n = nimbus_data_get_info(rows)->n_rows;
    g.rows = nimbus_alloc(g.n * g.n_inputs, sizeof *g.rows);
    g.scores = nimbus_alloc(g.n * g.n_outputs, sizeof *g.scores);
    if (!g.rows || !g.scores)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu rows", g.n);
    for (size_t r = 0; r < g.n && !status; r++) {
        double *to = g.rows + r * g.n_inputs;
        if (rows)
            status = read_row(rows, plan->input, r, g.n_inputs, to, error);
        else
            make_up(program, plan->input, r, to);
    }
    if (!status && !(status = run(bytes, n_bytes, &g, error))) {
        write_test(&g, plan, out);
        if (out->failed)
            status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the self-test");
    }
    nimbus_free(g.rows);
    nimbus_free(g.scores);
    return status;
}
