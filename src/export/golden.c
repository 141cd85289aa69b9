/* golden.c - rows with their scores, and the program that checks them where the C is to run */
#include <stdio.h>
#include <string.h>

#include "export/export.h"

typedef struct golden {
    size_t n, n_inputs, n_outputs;
    double *rows;    /* [n][n_inputs], as the exported C is given them */
    int32_t *scores; /* [n][n_outputs] */
} golden;

/* Every threshold that the first step compares column d with is at rows of made-up data, or just
 * beside it: that is where mistakes show. Elsewhere anything between. */
static double made_up(const nimbus_stored_program *program, nimbus_export_input input, size_t r,
                      size_t d)
{
    const nimbus_stored_step *step = &program->steps[0];
    const nimbus_step_info *info = &step->info;
    const bool trees = !program->of_images && info->kind == NIMBUS_STEP_LOOKUP;
    const bool floats = program->info.input_dtype == NIMBUS_F32;
    int64_t low, high;
    nimbus_input_range(input, &low, &high);
    if (!floats)
        return (double)nimbus_random_below(1, r, d, 256);
    double x = 4 * (nimbus_random_uniform(1, r, d) - 0.5);
    if (trees) {
        const size_t n = info->n_codebooks * (nimbus_step_leaves(info) - 1);
        const size_t any = nimbus_random_below(2, r, d, n);
        x = (double)nimbus_f32_at(step->arrays.thresholds, any);
        if (!(x >= -1e30 && x <= 1e30))
            x = 0;
    } else if (program->in_scale) {
        const size_t c = d / (program->info.height * program->info.width);
        const double scale = (double)nimbus_f32_at(program->in_scale, c);
        x = ((double)nimbus_random_below(1, r, d, 256) - 128 -
             (double)nimbus_f32_at(program->in_offset, c)) /
            (scale != 0 ? scale : 1);
    }
    if (input == NIMBUS_EXPORT_F32)
        return (double)(float)x;
    x += (double)nimbus_random_below(3, r, d, 3) - 1;
    x = x < (double)low ? (double)low : x > (double)high ? (double)high : x;
    return (double)(int64_t)x;
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
    nimbus_program *program;
    nimbus_status status = nimbus_load(bytes, n_bytes, &program, error);
    if (status)
        return status;
    const bool floats = nimbus_info(program)->input_dtype == NIMBUS_F32;
    void *row = nimbus_alloc(g->n_inputs, sizeof(float));
    void *scratch = nimbus_alloc(nimbus_scratch_size(program, 1), 1);
    if (!row || !scratch)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a row");
    for (size_t r = 0; r < g->n && !status; r++) {
        for (size_t d = 0; d < g->n_inputs; d++) {
            const double x = g->rows[r * g->n_inputs + d];
            if (floats)
                ((float *)row)[d] = (float)x;
            else
                ((uint8_t *)row)[d] = (uint8_t)x;
        }
        status = nimbus_run(program, row, 0, 1, g->scores + r * g->n_outputs, scratch);
    }
    nimbus_free(row);
    nimbus_free(scratch);
    nimbus_close(program);
    return status;
}

static void write_test(const golden *g, const nimbus_export_plan *plan, nimbus_buffer *out)
{
    const char *p = plan->prefix;
    nimbus_text(out,
                "/* %s_test.c - %zu rows and the scores they must get. Link with %s.c; build with\n"
                "   -DSELFTEST_MAIN for a program that ends with 0 if all is well. */\n"
                "#include \"%s.h\"\n\n"
                "static const %s rows[%zu][%zu] = {",
                p, g->n, p, p, nimbus_input_type(plan->input), g->n, g->n_inputs);
    for (size_t r = 0; r < g->n; r++) {
        nimbus_text(out, "\n    {");
        for (size_t d = 0; d < g->n_inputs; d++) {
            const double x = g->rows[r * g->n_inputs + d];
            char number[40];
            if (plan->input == NIMBUS_EXPORT_F32) {
                (void)snprintf(number, sizeof number, "%.9g", x);
                nimbus_text(out, "%s%sf,", number, strpbrk(number, ".e") ? "" : ".0");
            } else {
                nimbus_text(out, "%lld,", (long long)x);
            }
            if (d % 24 == 23)
                nimbus_text(out, "\n     ");
        }
        nimbus_text(out, "},");
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
                "        %s_run(rows[r], scores);\n"
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
            for (size_t d = 0; d < g.n_inputs; d++)
                to[d] = made_up(program, plan->input, r, d);
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
