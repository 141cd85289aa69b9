/* finish.c - what sums become: scores, or bytes by a shift, a line or stairs, maps and clamps */
#include "export/writer.h"

#include <stdio.h>

#include "export/helpers.h"

size_t nimbus_positions_of(const nimbus_step_info *info)
{
    return info->height ? info->height * info->width : 1;
}

/* ---- what sums become ---------------------------------------------------------------------- */

/* Lines for all stairs at the shift where they get the fewest sums wrong. False: there are none in
 * 32 bits, or they get so many wrong that stairs are smaller. */
static bool fit_lines(const nimbus_stairs *stairs, size_t M, unsigned *shift, nimbus_line *lines)
{
    unsigned most = 20;
    size_t fewest = SIZE_MAX;
    for (size_t m = 0; m < M; m++)
        while (most > 0 && nimbus_stairs_reach(&stairs[m]) > INT32_MAX >> most)
            most--;
    for (unsigned s = most + 1; s-- > 0 && fewest > 0;) {
        size_t m = 0, n = 0;
        for (; m < M && nimbus_line_fit(&stairs[m], s, &lines[m]); m++)
            n += nimbus_line_faults(&stairs[m], s, &lines[m], NULL, NULL);
        if (m == M && n < fewest) {
            fewest = n;
            *shift = s;
        }
    }
    for (size_t m = 0; m < M; m++)
        (void)nimbus_line_fit(&stairs[m], *shift, &lines[m]);
    return fewest < 16 * M;
}

/* Whether a sum can be too large to be shifted: then it has to be clamped before. */
static bool exceeds(const nimbus_stairs *stairs, size_t M, unsigned shift)
{
    for (size_t m = 0; m < M; m++)
        if (-stairs[m].low > INT32_MAX >> shift || stairs[m].high > INT32_MAX >> shift)
            return true;
    return false;
}

typedef struct fault_list {
    int64_t *to; /* four numbers each */
    size_t n, m, apart;
    bool falls;
} fault_list;

static void add_fault(void *list, int64_t sum, int value)
{
    fault_list *f = list;
    f->to[4 * f->n] = (int64_t)f->m;
    f->to[4 * f->n + 1] = (int64_t)(f->m * f->apart);
    f->to[4 * f->n + 2] = f->falls ? -sum : sum;
    f->to[4 * f->n++ + 3] = value;
}

/* The sums that lines get wrong, and the statement that corrects them. */
static void write_faults(nimbus_writer *w, size_t i, nimbus_finish *f, const nimbus_stairs *stairs,
                         unsigned shift, const nimbus_line *lines, nimbus_buffer *b)
{
    const size_t M = w->program->steps[i].info.n_outputs;
    fault_list list = {.apart = f->apart};
    size_t n = 0;
    for (size_t m = 0; m < M; m++)
        n += nimbus_line_faults(&stairs[m], shift, &lines[m], NULL, NULL);
    if (n == 0 || !(list.to = nimbus_writer_numbers(w, 4 * n + 4)))
        return;
    for (list.m = 0; list.m < M; list.m++) {
        list.falls = stairs[list.m].falls;
        (void)nimbus_line_faults(&stairs[list.m], shift, &lines[list.m], add_fault, &list);
    }
    w->report->comparisons += n * nimbus_positions_of(&w->program->steps[i].info);
    if (!f->by_channel) {
        nimbus_writer_array(w, "int32_t", i, "faults", 4 * n);
        nimbus_writer_helper(w, "correct", HELPER_CORRECT);
        nimbus_text(b, "%scorrect(sums, step_%zu_faults, %zu, out);\n", f->indent, i, n);
        return;
    }
    list.to[4 * n] = (int64_t)M; /* of no output: the end */
    list.to[4 * n + 1] = list.to[4 * n + 2] = list.to[4 * n + 3] = 0;
    nimbus_writer_array(w, "int32_t", i, "faults", 4 * n + 4);
    nimbus_writer_helper(w, "correct_line", HELPER_CORRECT_LINE);
    nimbus_text(&f->declare,
                "    const int32_t *fault = step_%zu_faults, *next = fault;\n    int32_t m = 0;\n",
                i);
    nimbus_text(&f->advance, ", fault = next, m++");
    nimbus_text(b, "%snext = correct_line(fault, m, sums, %zu, out);\n", f->indent, f->n);
}

void nimbus_put_stairs(const nimbus_stairs *stairs, int64_t to[256])
{
    to[0] = stairs->falls ? -1 : 1;
    for (int k = 1; k < 256; k++)
        to[k] = stairs->at[k] > INT32_MAX ? INT32_MAX : stairs->at[k];
}

static void write_scaled(nimbus_writer *w, size_t i, nimbus_finish *f, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const size_t M = step->info.n_outputs;
    nimbus_stairs *stairs = nimbus_alloc(M, sizeof *stairs);
    nimbus_line *lines = nimbus_alloc(M, sizeof *lines);
    int64_t *to = nimbus_writer_numbers(w, 256 * M);
    if (!stairs || !lines || !to) {
        b->failed = true;
        goto done;
    }
    for (size_t m = 0; m < M; m++) {
        int64_t low, high;
        nimbus_sum_range(step, m, &low, &high);
        nimbus_stairs_of_integer(nimbus_f32_at(step->arrays.scale, m),
                                 nimbus_f32_at(step->arrays.offset, m), low, high, &stairs[m]);
    }
    unsigned shift = 0;
    const bool by_lines = fit_lines(stairs, M, &shift, lines);
    const size_t each = by_lines ? 2 : 256;
    const char *what = by_lines ? "lines" : "stairs";
    for (size_t m = 0; m < M; m++) {
        to[each * m] = lines[m].start;
        to[each * m + 1] = stairs[m].falls ? -lines[m].slope : lines[m].slope;
        if (!by_lines)
            nimbus_put_stairs(&stairs[m], to + each * m);
    }
    nimbus_writer_array(w, "int32_t", i, what, each * M);
    char scales[40];
    (void)snprintf(scales, sizeof scales, f->by_channel ? "scale, 0" : "step_%zu_%s, %zu", i, what,
                   each);
    if (f->by_channel) {
        nimbus_text(&f->declare, "    const int32_t *scale = step_%zu_%s;\n", i, what);
        nimbus_text(&f->advance, ", scale += %zu", each);
    }
    if (by_lines && exceeds(stairs, M, shift)) {
        nimbus_writer_helper(w, "limit", HELPER_LIMIT);
        nimbus_text(b, "%slimit(sums, %zu, %d);\n", f->indent, f->n, INT32_MAX >> shift);
    }
    if (by_lines) {
        nimbus_writer_helper(w, "finish_line", HELPER_LINE);
        nimbus_text(b, "%sfinish_line(sums, %zu, %s, %u, out, %zu);\n", f->indent, f->n, scales,
                    shift, f->apart);
        write_faults(w, i, f, stairs, shift, lines, b);
    } else {
        nimbus_writer_helper(w, "climb", HELPER_CLIMB);
        nimbus_writer_helper(w, "finish_stairs", HELPER_STAIRS);
        nimbus_text(b, "%sfinish_stairs(sums, %zu, %s, out, %zu);\n", f->indent, f->n, scales,
                    f->apart);
    }
done:
    nimbus_free(stairs);
    nimbus_free(lines);
}

void nimbus_write_map(nimbus_writer *w, size_t i, const nimbus_finish *f, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const bool clamps = step->low > -128 || step->high < 127;
    if (step->arrays.map) {
        int64_t *to = nimbus_writer_numbers(w, 256);
        for (size_t k = 0; to && k < 256; k++)
            to[k] = nimbus_step_finish(step, (int32_t)k - 128);
        if (to)
            nimbus_writer_array(w, "int8_t", i, "map", 256);
        nimbus_writer_helper(w, "map_values", HELPER_MAP);
        nimbus_text(b, "%smap_values(out, %zu, %zu, step_%zu_map);\n", f->indent, f->n, f->apart,
                    i);
    } else if (clamps) {
        nimbus_writer_helper(w, "clamp", HELPER_CLAMP);
        nimbus_text(b, "%sclamp(out, %zu, %zu, %d, %d);\n", f->indent, f->n, f->apart, step->low,
                    step->high);
    }
}

void nimbus_write_finish(nimbus_writer *w, size_t i, nimbus_finish *f, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    if (step->output == NIMBUS_OUT_I32) {
        nimbus_writer_helper(w, "copy", HELPER_COPY);
        nimbus_text(b, "%scopy(sums, %zu, out);\n", f->indent, f->n);
        return;
    }
    if (step->output == NIMBUS_OUT_SHIFT) {
        nimbus_writer_helper(w, "finish_shift", HELPER_SHIFT);
        nimbus_text(b, "%sfinish_shift(sums, %zu, %u, out, %zu);\n", f->indent, f->n, step->shift,
                    f->apart);
    } else {
        write_scaled(w, i, f, b);
        w->report->comparisons += 8 * step->info.n_outputs * nimbus_positions_of(&step->info);
    }
    nimbus_write_map(w, i, f, b);
}
