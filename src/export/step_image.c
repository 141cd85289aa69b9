/* step_image.c - the C of a step on images */
#include "export/writer.h"

#include <stdio.h>
#include <string.h>

#include "export/helpers.h"

static nimbus_window window_of(const nimbus_stored_program *program, const nimbus_stored_step *step)
{
    const nimbus_patch *p = &step->patch;
    const nimbus_stored_value *in = &program->values[step->sources[0]];
    const size_t groups = nimbus_is_convolution(&step->info) ? step->info.n_groups : in->channels;
    nimbus_window s = {.in = in, .channels = in->channels / groups};
    s.taps = s.channels * p->height * p->width;
    s.pads = p->top + p->bottom + p->left + p->right > 0;
    s.whole = !s.pads && p->height == in->height && p->width == in->width && p->dilation_y == 1 &&
              p->dilation_x == 1;
    return s;
}

void nimbus_write_pads(nimbus_writer *w, size_t i, const nimbus_window *s)
{
    const uint8_t *pad = w->program->steps[i].arrays.pad;
    int64_t *to = nimbus_writer_numbers(w, s->in->channels);
    for (size_t c = 0; to && c < s->in->channels; c++)
        to[c] = (int8_t)pad[c];
    if (to)
        nimbus_writer_array(w, "int8_t", i, "pad", s->in->channels);
}

/* How far each tap is from the first, numbered as columns are; NULL: out of memory. */
static uint32_t *tap_offsets(const nimbus_patch *p, const nimbus_window *s, uint32_t *most)
{
    uint32_t *offsets = nimbus_alloc(s->taps, sizeof *offsets);
    size_t t = 0;
    for (size_t c = 0; offsets && c < s->channels; c++)
        for (size_t y = 0; y < p->height; y++)
            for (size_t x = 0; x < p->width; x++, t++)
                *most = offsets[t] =
                    (uint32_t)((c * s->in->height + y * p->dilation_y) * s->in->width +
                               x * p->dilation_x);
    return offsets;
}

/* Whether the window fits in anywhere. */
static bool fits_inside(const nimbus_patch *p, const nimbus_window *s)
{
    return (p->height - 1) * p->dilation_y < s->in->height &&
           (p->width - 1) * p->dilation_x < s->in->width;
}

/* "y >= 0 && ...": whether the window at (y, x) lies inside. */
static void write_inside(const nimbus_patch *p, const nimbus_window *s, nimbus_buffer *b)
{
    nimbus_text(b, "y >= 0 && y <= %zu && x >= 0 && x <= %zu",
                s->in->height - 1 - (p->height - 1) * p->dilation_y,
                s->in->width - 1 - (p->width - 1) * p->dilation_x);
}

static void write_window(nimbus_writer *w, size_t i, const nimbus_window *s)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_patch *p = &step->patch;
    nimbus_writer_helper(w, "window", HELPER_WINDOW);
    nimbus_text(&w->source.arrays,
                "static const struct window step_%zu_window = {\n    %zu, %zu, %zu, %zu, %zu, %zu, "
                "%zu, %zu, %zu};\n",
                i, s->channels, s->in->height, s->in->width, p->height, p->width, p->dilation_y,
                p->dilation_x, p->dilation_y * s->in->width, s->in->height * s->in->width);
    w->source.flash += 36;
    nimbus_write_pads(w, i, s);
    nimbus_writer_need(&w->n_patch, s->taps);
}

/* The loops over all positions of the output, up to the statements for one of them. */
static void begin_positions(const nimbus_stored_step *step, const nimbus_window *s,
                            nimbus_buffer *b)
{
    const nimbus_patch *p = &step->patch;
    const bool scores = step->output == NIMBUS_OUT_I32;
    nimbus_text(b, "    int32_t at, line = %lld;\n    uint32_t i, j;\n",
                -(long long)(p->top * s->in->width + p->left));
    if (s->pads)
        nimbus_text(b, "    int32_t y = -%zu, x;\n", p->top);
    nimbus_text(b, "    for (i = 0; i < %zu; i++, line += %zu", step->info.height,
                p->stride_y * s->in->width);
    if (s->pads)
        nimbus_text(b, ", y += %zu", p->stride_y);
    nimbus_text(b, ") {\n        at = line;\n");
    if (s->pads)
        nimbus_text(b, "        x = -%zu;\n", p->left);
    nimbus_text(b, "        for (j = 0; j < %zu; j++, at += %zu%s", step->info.width, p->stride_x,
                scores ? "" : ", out++");
    if (s->pads)
        nimbus_text(b, ", x += %zu", p->stride_x);
    nimbus_text(b, ") {\n");
}

static void end_positions(nimbus_buffer *b)
{
    nimbus_text(b, "        }\n    }\n");
}

/* Codes of the position, from the image itself or, at its edge, from a copy of the window. */
static nimbus_status write_image_trees(nimbus_writer *w, size_t i, const nimbus_window *s, bool one,
                                       bool indexed, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    uint32_t most = 0;
    uint32_t *offsets = tap_offsets(&step->patch, s, &most);
    if (!offsets)
        return nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for a window");
    nimbus_export_trees of = {
        .step = step,
        .i = i,
        .x_type = "int8_t",
        .columns = nimbus_type_for(0, most > s->taps - 1 ? most : (int64_t)s->taps - 1),
        .per_node = !info->shared_columns,
        .indexed = indexed};
    char walk[48], rows[40] = "";
    const char *indent = one ? "    " : "            ";
    nimbus_write_thresholds(w, &of);
    const bool inside = fits_inside(&step->patch, s);
    if (inside)
        nimbus_write_columns(w, &of, "offsets", offsets);
    nimbus_free(offsets);
    nimbus_write_walk(w, &of);
    nimbus_name_walk(&of, walk);
    if (indexed)
        (void)snprintf(rows, sizeof rows, "step_%zu_rows, ", i);
    if (s->pads) {
        nimbus_write_columns(w, &of, "columns", NULL);
        write_window(w, i, s);
    }
    if (s->pads && inside) {
        nimbus_text(b, "%sif (", indent);
        write_inside(&step->patch, s, b);
        nimbus_text(b, ") {\n    ");
    }
    if (inside)
        nimbus_text(b, "%s%s(%s, step_%zu_offsets, step_%zu_thresholds, %zu, %srows);\n", indent,
                    walk, one ? "in" : "in + at", i, i, info->n_codebooks, rows);
    if (s->pads) {
        const char *deeper = inside ? "    " : "";
        if (inside)
            nimbus_text(b, "%s} else {\n", indent);
        nimbus_text(b, "%s%sgather(in, at, y, x, &step_%zu_window, step_%zu_pad, patch);\n", indent,
                    deeper, i, i);
        nimbus_text(b, "%s%s%s(patch, step_%zu_columns, step_%zu_thresholds, %zu, %srows);\n",
                    indent, deeper, walk, i, i, info->n_codebooks, rows);
        if (inside)
            nimbus_text(b, "%s}\n", indent);
    }
    return NIMBUS_OK;
}

static nimbus_status write_image_lookup(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_window s = window_of(w->program, step);
    const size_t n = step->info.height * step->info.width;
    const bool one = n == 1 && !s.pads;
    const char *indent = one ? "    " : "            ";
    nimbus_export_tables t;
    nimbus_status status =
        nimbus_init_tables(&t, step, i, w->plan->bits[i])
            ? NIMBUS_OK
            : nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for the tables of a step");
    if (!one)
        begin_positions(step, &s, b);
    if (!status)
        status = write_image_trees(w, i, &s, one, t.indexed, b);
    if (!status) {
        nimbus_write_tables(w, &t, indent, b);
        nimbus_write_finish(
            w, i, &(nimbus_finish){.indent = indent, .n = step->info.n_outputs, .apart = n}, b);
    }
    if (!one)
        end_positions(b);
    nimbus_free_tables(&t);
    return status;
}

/* The statement that brings the window of a group of channels to the patch: `from` is where they
 * begin, `pad` where their pads do. */
static void write_patch(nimbus_writer *w, size_t i, const nimbus_window *s, const char *offset_type,
                        nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const char *indent = "                ";
    const bool inside = fits_inside(&step->patch, s);
    if (s->pads && inside) {
        nimbus_text(b, "%sif (", indent);
        write_inside(&step->patch, s, b);
        nimbus_text(b, ")\n    ");
    }
    if (inside)
        nimbus_text(b, "%spick_%s(from + at, step_%zu_offsets, %zu, patch);\n", indent, offset_type,
                    i, s->taps);
    if (s->pads && inside)
        nimbus_text(b, "%selse\n    ", indent);
    if (s->pads)
        nimbus_text(b, "%sgather(from, at, y, x, &step_%zu_window, pad, patch);\n", indent, i);
}

/* The arrays that write_patch needs. Error: MEMORY. */
static nimbus_status prepare_patch(nimbus_writer *w, size_t i, const nimbus_window *s,
                                   char offset_type[12])
{
    const nimbus_stored_step *step = &w->program->steps[i];
    uint32_t most = 0;
    uint32_t *offsets = tap_offsets(&step->patch, s, &most);
    int64_t *to = nimbus_writer_numbers(w, s->taps);
    char name[24];
    if (!offsets || !to) {
        nimbus_free(offsets);
        return nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for a window");
    }
    for (size_t t = 0; t < s->taps; t++)
        to[t] = offsets[t];
    nimbus_free(offsets);
    const char *type = nimbus_type_for(0, most);
    (void)snprintf(offset_type, 12, "%.*s", (int)strcspn(type, "_"), type);
    (void)snprintf(name, sizeof name, "pick_%s", offset_type);
    if (fits_inside(&step->patch, s)) {
        nimbus_writer_array(w, type, i, "offsets", s->taps);
        if (nimbus_needs_helper(&w->source, name))
            nimbus_text(&w->source.helpers, HELPER_PICK, offset_type, offset_type);
    }
    if (s->pads)
        write_window(w, i, s);
    nimbus_writer_need(&w->n_patch, s->taps);
    return NIMBUS_OK;
}

static nimbus_status write_image_exact(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    const nimbus_window s = window_of(w->program, step);
    const size_t n = info->height * info->width, groups = info->n_groups;
    const size_t group_outputs = info->n_outputs / groups;
    char offset_type[12];
    nimbus_status status;
    const bool whole = n == 1 && s.whole && groups == 1;
    if (!whole && nimbus_reads_channels(step, &s)) {
        nimbus_write_channel_step(w, i, &s, b);
        return NIMBUS_OK;
    }
    nimbus_write_weights(w, i, s.taps);
    nimbus_write_dot(w, "int8_t");
    nimbus_writer_need(&w->n_sums, info->n_outputs);
    if (whole) {
        nimbus_text(b, "    dot_int8(in, step_%zu_weights, step_%zu_bias, %zu, %zu, sums);\n", i, i,
                    s.taps, info->n_outputs);
        nimbus_write_finish(
            w, i, &(nimbus_finish){.indent = "    ", .n = info->n_outputs, .apart = 1}, b);
        return NIMBUS_OK;
    }
    if ((status = prepare_patch(w, i, &s, offset_type)))
        return status;
    begin_positions(step, &s, b);
    nimbus_text(b, "            const int8_t *from = in, *weight = step_%zu_weights;\n", i);
    nimbus_text(b, "            const int32_t *bias = step_%zu_bias, *end = bias + %zu;\n", i,
                info->n_outputs);
    nimbus_text(b, "            int32_t *sum = sums;\n");
    if (s.pads)
        nimbus_text(b, "            const int8_t *pad = step_%zu_pad;\n", i);
    nimbus_text(
        b, "            for (; bias < end; bias += %zu, sum += %zu, from += %zu, weight += %zu%s",
        group_outputs, group_outputs, s.channels * s.in->height * s.in->width,
        group_outputs * s.taps, s.pads ? ", " : ") {\n");
    if (s.pads)
        nimbus_text(b, "pad += %zu) {\n", s.channels);
    write_patch(w, i, &s, offset_type, b);
    nimbus_text(b, "                dot_int8(patch, weight, bias, %zu, %zu, sum);\n            }\n",
                s.taps, group_outputs);
    nimbus_write_finish(
        w, i, &(nimbus_finish){.indent = "            ", .n = info->n_outputs, .apart = n}, b);
    end_positions(b);
    return NIMBUS_OK;
}

/* Sums of values, and values side by side. */
static nimbus_status write_image_join(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_stored_value *out = &w->program->values[i + 1];
    const size_t n = out->channels * out->height * out->width;
    nimbus_text(b, "    uint32_t i;\n");
    if (step->info.kind == NIMBUS_STEP_ADD) {
        nimbus_text(b, "    for (i = 0; i < %zu; i++) {\n        int32_t sum = in[i];\n", n);
        for (size_t s = 1; s < step->info.n_sources; s++)
            nimbus_text(b, "        sum += values[%zu + i];\n",
                        w->program->values[step->sources[s]].place);
        nimbus_text(
            b, "        out[i] = (int8_t)(sum < -128 ? -128 : sum > 127 ? 127 : sum);\n    }\n");
        w->report->additions += n * (step->info.n_sources - 1);
    } else {
        size_t at = 0;
        for (size_t s = 0; s < step->info.n_sources; s++) {
            const nimbus_stored_value *v = &w->program->values[step->sources[s]];
            const size_t bytes = v->channels * v->height * v->width;
            nimbus_text(b, "    for (i = 0; i < %zu; i++)\n        out[%zu + i] = %s[%zu + i];\n",
                        bytes, at, s ? "values" : "in",
                        s ? w->program->values[step->sources[s]].place : 0);
            at += bytes;
        }
    }
    nimbus_write_map(w, i, &(nimbus_finish){.indent = "    ", .n = n, .apart = 1}, b);
    return NIMBUS_OK;
}

nimbus_status nimbus_write_image_step(nimbus_writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    nimbus_text(b, "    const int8_t *in = values + %zu;\n",
                w->program->values[step->sources[0]].place);
    if (i + 1 == w->program->info.n_steps)
        nimbus_text(b, "    int32_t *out = scores;\n");
    else
        nimbus_text(b, "    int8_t *out = values + %zu;\n", w->program->values[i + 1].place);
    switch (step->info.kind) {
    case NIMBUS_STEP_LOOKUP:
        return write_image_lookup(w, i, b);
    case NIMBUS_STEP_EXACT:
        return write_image_exact(w, i, b);
    case NIMBUS_STEP_MAX_POOL:
    case NIMBUS_STEP_AVERAGE_POOL: {
        const nimbus_window s = window_of(w->program, step);
        nimbus_write_channel_step(w, i, &s, b);
        return NIMBUS_OK;
    }
    default:
        return write_image_join(w, i, b);
    }
}

/* Raw values to the int8 grid that the first steps read. */
void nimbus_write_image_input(nimbus_writer *w, nimbus_buffer *b)
{
    const nimbus_stored_program *program = w->program;
    const nimbus_stored_value *in = &program->values[0];
    const size_t plane = in->height * in->width;
    const nimbus_export_input input = w->plan->input;
    const bool is_float = input == NIMBUS_EXPORT_F32;
    nimbus_text(
        b, "static void load(const %s *x)\n{\n    int8_t *to = values + %zu;\n    uint32_t i%s;\n",
        nimbus_input_type(input), w->program->values[0].place, program->in_scale ? ", c" : "");
    if (!program->in_scale) {
        nimbus_text(b,
                    "    for (i = 0; i < %zu; i++)\n        *to++ = (int8_t)(*x++ - 128);\n}\n\n",
                    in->channels * plane);
        return;
    }
    int64_t *to = nimbus_writer_numbers(w, 256 * in->channels);
    for (size_t c = 0; to && c < in->channels; c++) {
        const float scale = nimbus_f32_at(program->in_scale, c);
        const float offset = nimbus_f32_at(program->in_offset, c);
        nimbus_stairs stairs;
        int64_t low, high;
        nimbus_input_range(input, &low, &high);
        if (is_float)
            nimbus_stairs_of_float(scale, offset, &stairs);
        else
            nimbus_stairs_of_integer(scale, offset, low, high, &stairs);
        nimbus_put_stairs(&stairs, to + 256 * c);
    }
    if (to)
        nimbus_text_array(&w->source, "int32_t", "input_stairs", to, 256 * in->channels);
    nimbus_writer_helper(w, "climb", HELPER_CLIMB);
    if (is_float)
        nimbus_writer_helper(w, "key", HELPER_KEY);
    nimbus_text(b,
                "    const int32_t *stairs = input_stairs;\n    for (c = 0; c < %zu; c++, stairs "
                "+= 256) {\n",
                in->channels);
    nimbus_text(b, "        for (i = 0; i < %zu; i++) {\n            int32_t v = %s;\n", plane,
                is_float ? "key(*x++)" : "*x++");
    nimbus_text(b, "            *to++ = %sclimb(v, stairs);\n        }\n    }\n}\n\n",
                is_float ? "v == -2147483647 - 1 ? 0 : " : "");
    w->report->comparisons += 8 * in->channels * plane;
}
