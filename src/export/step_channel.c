/* step_channel.c - the C of steps that read channels one by one: depthwise convolutions and pools
 *
 * A channel's plane is copied into a frame with its pads around it, where it has any, and the
 * window slides along it line by line: no window has to be picked out, and none asks whether it
 * lies inside. */
#include <stdio.h>

#include "export/helpers.h"
#include "export/writer.h"

enum { MOST_UNROLLED = 8 }; /* taps of a line that are written out */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows, or columns, from the first that n windows see to the last. */
static size_t reach_of(size_t n, size_t stride, size_t kernel, size_t dilation)
{
    return (n - 1) * stride + (kernel - 1) * dilation + 1;
}

/* The frame of step i in the buffer `patch`; returns how wide it is. */
static size_t write_frame(nimbus_writer *w, size_t i, const nimbus_window *s)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_patch *p = &step->patch;
    const size_t wide = reach_of(step->info.width, p->stride_x, p->width, p->dilation_x);
    const size_t high = reach_of(step->info.height, p->stride_y, p->height, p->dilation_y);
    const size_t left = least(p->left, wide), columns = least(s->in->width, wide - left);
    const size_t top = least(p->top, high), rows = least(s->in->height, high - top);
    const size_t right = wide - left - columns, bottom = (high - top - rows) * wide;
    nimbus_writer_helper(w, "frame", HELPER_FRAME);
    nimbus_text(&w->source.arrays,
                "static const struct frame step_%zu_frame = {%zu, %zu, %zu, %zu, %zu, %zu};\n", i,
                top * wide + left, rows, columns, s->in->width - columns, right + left,
                bottom > left ? bottom - left : 0);
    w->source.flash += 24;
    if (step->arrays.pad)
        nimbus_write_pads(w, i, s);
    /* pads behind the last row are as many as between rows */
    nimbus_writer_need(&w->n_patch, high * wide + left);
    return wide;
}

/* What is done with tap j, a number or a letter, of a line of taps. */
static void write_tap(nimbus_buffer *b, nimbus_step_kind kind, const char *j, size_t dilation)
{
    char at[48];
    (void)snprintf(at, sizeof at, dilation > 1 ? "line[%s * %zu]" : "line[%s]", j, dilation);
    if (kind == NIMBUS_STEP_EXACT)
        nimbus_text(b, "            s += v[%s] * %s;\n", j, at);
    else if (kind == NIMBUS_STEP_MAX_POOL)
        nimbus_text(b, "            s = %s > s ? %s : s;\n", at, at);
    else
        nimbus_text(b, "            s += %s;\n", at);
}

/* The function that slides a window along a line of a plane `wide` bytes wide, and its name. */
static void write_slide(nimbus_writer *w, size_t i, size_t wide, char name[48])
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_patch *p = &step->patch;
    const nimbus_step_kind kind = step->info.kind;
    const bool exact = kind == NIMBUS_STEP_EXACT, most = kind == NIMBUS_STEP_MAX_POOL;
    const bool unrolled = p->width <= MOST_UNROLLED;
    const char *type = most ? "int8_t" : "int32_t";
    const size_t row = p->height > 1 ? p->dilation_y * wide : 0; /* alike where it is not used */
    const size_t dilation = p->width > 1 ? p->dilation_x : 1;
    nimbus_buffer *b = &w->source.helpers;
    (void)snprintf(name, 48, "%s_%zux%zu_%zu_%zu_%zu",
                   exact  ? "dot"
                   : most ? "most"
                          : "sum",
                   p->height, p->width, row, dilation, p->stride_x);
    if (!nimbus_needs_helper(&w->source, name))
        return;
    nimbus_text(b, "/* n windows of %zu x %zu along a line%s. */\n", p->height, p->width,
                exact ? ", exact products" : "");
    nimbus_text(b, "%sstatic void %s(const int8_t *x%s,\n    uint32_t n, %s *to)\n{\n",
                exact ? "APART " : "", name, exact ? ", const int8_t *weight, int32_t bias" : "",
                type);
    nimbus_text(b, "    for (; n--; x += %zu) {\n        const int8_t *line = x%s;\n", p->stride_x,
                exact ? ", *v = weight" : "");
    nimbus_text(b, "        %s s = %s;\n        uint32_t i%s;\n", type,
                exact  ? "bias"
                : most ? "-128"
                       : "0",
                unrolled ? "" : ", j");
    nimbus_text(b, "        for (i = 0; i < %zu; i++, line += %zu", p->height, row);
    if (exact)
        nimbus_text(b, ", v += %zu", p->width);
    nimbus_text(b, ") {\n");
    for (size_t j = 0; unrolled && j < p->width; j++) {
        char number[24];
        (void)snprintf(number, sizeof number, "%zu", j);
        write_tap(b, kind, number, dilation);
    }
    if (!unrolled) {
        nimbus_text(b, "            for (j = 0; j < %zu; j++)\n    ", p->width);
        write_tap(b, kind, "j", dilation);
    }
    nimbus_text(b, "        }\n        *to++ = s;\n    }\n}\n\n");
}

/* Of one tap, an output is a function of a byte: a map for each channel. */
static void write_channel_maps(nimbus_writer *w, size_t i, size_t plane, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const size_t M = step->info.n_outputs;
    int64_t *to = nimbus_writer_numbers(w, 256 * M);
    for (size_t m = 0; to && m < M; m++)
        for (int32_t x = -128; x < 128; x++)
            *to++ = nimbus_step_output(step, m,
                                       (int32_t)nimbus_u32_at(step->arrays.bias, m) +
                                           (int8_t)step->arrays.weights[m] * x);
    if (to)
        nimbus_writer_array(w, "int8_t", i, "maps", 256 * M);
    nimbus_writer_helper(w, "map_plane", HELPER_MAP_PLANE);
    nimbus_text(b, "    const int8_t *map = step_%zu_maps;\n    uint32_t m;\n", i);
    nimbus_text(b, "    for (m = 0; m < %zu; m++, in += %zu, out += %zu, map += 256)\n", M, plane,
                plane);
    nimbus_text(b, "        map_plane(in, %zu, map, out);\n", plane);
    w->report->multiply_adds -= step->info.multiply_adds;
    w->report->additions -= step->info.multiply_adds;
}

/* A pool that makes one number of each channel. */
static void write_global_pool(nimbus_writer *w, size_t i, const nimbus_window *s, nimbus_buffer *b)
{
    const nimbus_step_info *info = &w->program->steps[i].info;
    const bool average = info->kind == NIMBUS_STEP_AVERAGE_POOL;
    nimbus_writer_helper(w, average ? "sum_of" : "most_of", average ? HELPER_SUM : HELPER_MOST);
    nimbus_writer_need(&w->n_sums, average ? info->n_outputs : 0);
    nimbus_text(b, "    uint32_t c;\n    for (c = 0; c < %zu; c++, in += %zu)\n", info->n_outputs,
                s->taps);
    nimbus_text(b,
                average ? "        sums[c] = sum_of(in, %zu);\n"
                        : "        out[c] = most_of(in, %zu);\n",
                s->taps);
    nimbus_finish finish = {.indent = "    ", .n = info->n_outputs, .apart = 1};
    if (average)
        nimbus_write_finish(w, i, &finish, b);
    else
        nimbus_write_map(w, i, &finish, b);
}

bool nimbus_reads_channels(const nimbus_stored_step *step, const nimbus_window *s)
{
    return !nimbus_is_convolution(&step->info) || s->channels == 1;
}

void nimbus_write_channel_step(nimbus_writer *w, size_t i, const nimbus_window *s, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    const nimbus_patch *p = &step->patch;
    const bool exact = info->kind == NIMBUS_STEP_EXACT, most = info->kind == NIMBUS_STEP_MAX_POOL;
    const size_t plane = s->in->height * s->in->width, repeats = info->n_outputs / s->in->channels;
    if (exact && s->taps == 1 && repeats == 1 && !s->pads && p->stride_y == 1 && p->stride_x == 1 &&
        step->output != NIMBUS_OUT_I32) {
        write_channel_maps(w, i, plane, b);
        return;
    }
    if (!exact && info->height * info->width == 1 && s->whole) {
        write_global_pool(w, i, s, b);
        return;
    }
    if (exact)
        nimbus_write_weights(w, i, s->taps);
    nimbus_writer_need(&w->n_sums, most ? 0 : info->width);
    const size_t wide = s->pads ? write_frame(w, i, s) : s->in->width;
    char slide[48], pad[32] = "-128"; /* the least, as a maximum has it */
    if (step->arrays.pad)
        (void)snprintf(pad, sizeof pad, "step_%zu_pad[c]", i);
    write_slide(w, i, wide, slide);
    nimbus_finish finish = {
        .indent = "                ", .n = info->width, .apart = 1, .by_channel = true};
    nimbus_buffer rest = {0};
    if (most)
        nimbus_write_map(w, i, &finish, &rest);
    else
        nimbus_write_finish(w, i, &finish, &rest);
    nimbus_text(b, "    uint32_t c, k, i;\n");
    if (exact)
        nimbus_text(b,
                    "    const int8_t *weight = step_%zu_weights;\n"
                    "    const int32_t *bias = step_%zu_bias;\n",
                    i, i);
    nimbus_text_move(b, &finish.declare);
    nimbus_text(b, "    for (c = 0; c < %zu; c++, in += %zu) {\n", s->in->channels, plane);
    if (s->pads)
        nimbus_text(b, "        frame(in, &step_%zu_frame, %s, patch);\n", i, pad);
    nimbus_text(b, "        for (k = 0; k < %zu; k++", repeats);
    nimbus_text_move(b, &finish.advance);
    if (exact)
        nimbus_text(b, ", weight += %zu, bias++", s->taps);
    nimbus_text(b, ") {\n            const int8_t *from = %s;\n", s->pads ? "patch" : "in");
    nimbus_text(b, "            for (i = 0; i < %zu; i++, from += %zu, out += %zu) {\n",
                info->height, p->stride_y * wide, info->width);
    nimbus_text(b, "                %s(from%s, %zu, %s);\n", slide, exact ? ", weight, *bias" : "",
                info->width, most ? "out" : "sums");
    nimbus_text_move(b, &rest);
    nimbus_text(b, "            }\n        }\n    }\n");
}
