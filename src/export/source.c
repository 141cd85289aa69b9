/* source.c - the C of a whole program: buffers, helpers, arrays, a function for each step
 *
 * A tree's leaf is the number of a table row; the rows of all codebooks are then added up, and the
 * sums become what the next step reads. */
#include "export/writer.h"

#include "export/helpers.h"

static nimbus_status write_steps(nimbus_writer *w)
{
    const nimbus_stored_program *program = w->program;
    const size_t n = program->info.n_steps;
    nimbus_buffer *b = &w->source.steps;
    if (program->of_images)
        nimbus_write_image_input(w, b);
    for (size_t i = 0; i < n; i++) {
        const nimbus_step_info *info = &program->steps[i].info;
        const bool first = i == 0 && !program->of_images, last = i + 1 == n;
        char name[sizeof info->name];
        nimbus_plain_name(info->name, name);
        nimbus_text(b, "/* %s: %s", name[0] ? name : "a step", nimbus_step_kind_name(info->kind));
        if (info->n_codebooks)
            nimbus_text(b, ", %zu trees, %zu outputs", info->n_codebooks, info->n_outputs);
        nimbus_text(b, " */\nstatic void step_%zu(", i);
        if (first)
            nimbus_text(b, "const %s *x%s", nimbus_input_type(w->plan->input), last ? ", " : "");
        nimbus_text(b, "%s)\n{\n", last ? "int32_t *scores" : first ? "" : "void");
        nimbus_status status =
            program->of_images ? nimbus_write_image_step(w, i, b) : nimbus_write_row_step(w, i, b);
        if (status)
            return status;
        nimbus_text(b, "}\n\n");
    }
    nimbus_text(b, "void %s_run(const %s input[%zu], int32_t scores[%zu])\n{\n", w->plan->prefix,
                nimbus_input_type(w->plan->input), program->info.n_inputs, program->info.n_outputs);
    if (program->of_images)
        nimbus_text(b, "    load(input);\n");
    for (size_t i = 0; i < n; i++) {
        const bool first = i == 0 && !program->of_images, last = i + 1 == n;
        nimbus_text(b, "    step_%zu(%s%s%s);\n", i, first ? "input" : "",
                    first && last ? ", " : "", last ? "scores" : "");
    }
    nimbus_text(b, "}\n");
    return NIMBUS_OK;
}

static void buffer(nimbus_buffer *out, size_t *ram, const char *type, const char *name, size_t n)
{
    if (n == 0)
        return;
    const size_t all = nimbus_type_padded(type, n);
    nimbus_text(out, "static %s %s[%zu];\n", type, name, all);
    *ram += all * nimbus_type_bytes(type);
}

static const char *row_type_of(const nimbus_stored_program *program)
{
    size_t most = 0;
    for (size_t i = 0; i < program->info.n_steps; i++) {
        const nimbus_step_info *info = &program->steps[i].info;
        nimbus_writer_need(&most, info->n_codebooks << info->n_levels);
    }
    return most <= UINT16_MAX + 1 ? "uint16_t" : "uint32_t";
}

nimbus_status nimbus_source_write(const nimbus_stored_program *program,
                                  const nimbus_export_plan *plan, nimbus_buffer *out,
                                  nimbus_export_report *report, nimbus_error *error)
{
    const size_t n = program->info.n_steps;
    nimbus_writer w = {.program = program,
                       .plan = plan,
                       .report = report,
                       .error = error,
                       .row_type = row_type_of(program),
                       .n_values = nimbus_place_values(program, program->of_images)};
    nimbus_status status;
    *report =
        (nimbus_export_report){.lookups = program->info.lookups,
                               .additions = program->info.lookups + program->info.multiply_adds,
                               .comparisons = program->info.comparisons,
                               .multiply_adds = program->info.multiply_adds,
                               .n_steps = n};
    status = write_steps(&w);
    if (!status) {
        nimbus_text(out,
                    "/* %s.c - a lookup program as plain C, written by nimbus %s; see %s.h */\n",
                    plan->prefix, nimbus_version(), plan->prefix);
        nimbus_text(out, "#include \"%s.h\"\n\n", plan->prefix);
        nimbus_text(out, HELPER_APART);
        buffer(out, &report->ram_bytes, "int8_t", "values", w.n_values);
        buffer(out, &report->ram_bytes, w.row_type, "rows", w.n_rows);
        buffer(out, &report->ram_bytes, "int32_t", "sums", w.n_sums);
        buffer(out, &report->ram_bytes, "int8_t", "patch", w.n_patch);
        nimbus_text(out, "\n");
        nimbus_write_bytes(out, w.source.helpers.bytes, w.source.helpers.size);
        nimbus_write_bytes(out, w.source.arrays.bytes, w.source.arrays.size);
        nimbus_text(out, "\n");
        nimbus_write_bytes(out, w.source.steps.bytes, w.source.steps.size);
        report->array_bytes = w.source.flash;
        if (w.source.helpers.failed || w.source.arrays.failed || w.source.steps.failed ||
            out->failed)
            status =
                nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the text of %zu steps", n);
    }
    nimbus_source_free(&w.source);
    nimbus_free(w.numbers);
    return status;
}
