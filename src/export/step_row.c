/* step_row.c - the C of a step on rows */
#include "export/writer.h"

#include <stdio.h>
#include <string.h>

#include "export/helpers.h"

static nimbus_status write_row_lookup(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    nimbus_export_tables t;
    if (!nimbus_init_tables(&t, step, i, w->plan->bits[i])) {
        nimbus_free_tables(&t);
        return nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for the tables of a step");
    }
    nimbus_export_trees of = {.step = step,
                              .i = i,
                              .x_type = i ? "int8_t" : nimbus_input_type(w->plan->input),
                              .columns = nimbus_type_for(0, (int64_t)info->n_inputs - 1),
                              .by_key = i == 0 && w->plan->input == NIMBUS_EXPORT_F32,
                              .per_node = !info->shared_columns,
                              .indexed = t.indexed};
    char walk[48];
    if (of.by_key)
        nimbus_writer_helper(w, "key", HELPER_KEY);
    nimbus_write_thresholds(w, &of);
    nimbus_write_columns(w, &of, "columns", NULL);
    nimbus_write_walk(w, &of);
    nimbus_name_walk(&of, walk);
    nimbus_text(b, "    %s(x, step_%zu_columns, step_%zu_thresholds, %zu, ", walk, i, i,
                info->n_codebooks);
    if (t.indexed)
        nimbus_text(b, "step_%zu_rows, ", i);
    nimbus_text(b, "rows);\n");
    nimbus_write_tables(w, &t, "    ", b);
    nimbus_free_tables(&t);
    return NIMBUS_OK;
}

void nimbus_write_weights(nimbus_writer *w, size_t i, size_t D)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const size_t M = step->info.n_outputs;
    int64_t *to = nimbus_writer_numbers(w, D * M);
    for (size_t k = 0; to && k < D * M; k++)
        to[k] = (int8_t)step->arrays.weights[k];
    if (to)
        nimbus_writer_array(w, "int8_t", i, "weights", D * M);
    to = nimbus_writer_numbers(w, M);
    for (size_t m = 0; to && m < M; m++)
        to[m] = (int32_t)nimbus_u32_at(step->arrays.bias, m);
    if (to)
        nimbus_writer_array(w, "int32_t", i, "bias", M);
}

void nimbus_write_dot(nimbus_writer *w, const char *type)
{
    char name[24];
    (void)snprintf(name, sizeof name, "dot_%.*s", (int)strcspn(type, "_"), type);
    if (nimbus_needs_helper(&w->source, name))
        nimbus_text(&w->source.helpers, HELPER_DOT, name + 4, type,
                    strcmp(type, "uint8_t") == 0 ? " - 128" : "");
}

static nimbus_status write_row_exact(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    const char *type = i ? "int8_t" : "uint8_t";
    if (step->input == NIMBUS_IN_F32)
        return nimbus_fail(w->error, NIMBUS_ERR_UNSUPPORTED,
                           "layer \"%s\" is exact and reads floats, which it would have to "
                           "multiply: convert it to a lookup layer as well, or train on rows of u8",
                           info->name);
    nimbus_write_weights(w, i, info->n_inputs);
    nimbus_write_dot(w, type);
    nimbus_writer_need(&w->n_sums, info->n_outputs);
    nimbus_text(b, "    dot_%.*s(x, step_%zu_weights, step_%zu_bias, %zu, %zu, sums);\n",
                (int)strcspn(type, "_"), type, i, i, info->n_inputs, info->n_outputs);
    return NIMBUS_OK;
}

nimbus_status nimbus_write_row_step(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    if (i + 1 < w->program->info.n_steps)
        nimbus_text(b, "    int8_t *out = values + %zu;\n", w->program->values[i + 1].place);
    else
        nimbus_text(b, "    int32_t *out = scores;\n");
    if (i)
        nimbus_text(b, "    const int8_t *x = values + %zu;\n", w->program->values[i].place);
    nimbus_status status = step->info.kind == NIMBUS_STEP_LOOKUP ? write_row_lookup(w, i, b)
                                                                 : write_row_exact(w, i, b);
    if (!status)
        nimbus_write_finish(
            w, i, &(nimbus_finish){.indent = "    ", .n = step->info.n_outputs, .apart = 1}, b);
    return status;
}
