/* trees.c - the trees of a step: columns, thresholds, and the function that walks them */
#include "export/writer.h"

#include <stdio.h>
#include <string.h>

static size_t tree_columns(const nimbus_export_trees *t)
{
    return t->per_node ? nimbus_step_leaves(&t->step->info) - 1 : t->step->info.n_levels;
}

void nimbus_name_walk(const nimbus_export_trees *t, char name[48])
{
    (void)snprintf(name, 48, "walk_%zu%s%s_%.*s_%.*s_%.*s", t->step->info.n_levels,
                   t->per_node ? "n" : "", t->indexed ? "i" : "", (int)strcspn(t->x_type, "_"),
                   t->x_type, (int)strcspn(t->columns, "_"), t->columns,
                   (int)strcspn(t->threshold, "_"), t->threshold);
}

/* The function that walks trees of this kind. */
void nimbus_write_walk(nimbus_writer *w, const nimbus_export_trees *t)
{
    nimbus_buffer *b = &w->source.helpers;
    const size_t H = t->step->info.n_levels, K = (size_t)1 << H;
    char name[48];
    nimbus_name_walk(t, name);
    if (!nimbus_needs_helper(&w->source, name))
        return;
    nimbus_text(b, "/* The table rows of n trees of %zu level%s%s. */\n", H, H > 1 ? "s" : "",
                t->per_node ? ", a column for each node" : "");
    nimbus_text(b,
                "static void %s(const %s *x, const %s *column, const %s *threshold, uint32_t n,\n",
                name, t->x_type, t->columns, t->threshold);
    nimbus_text(b, "    %s%s *out)\n{\n", t->indexed ? "const uint16_t *row, " : "", w->row_type);
    nimbus_text(b, "    uint32_t i%s;\n", t->indexed ? "" : ", row = 0");
    nimbus_text(b,
                "    for (; n--; column += %zu, threshold += %zu, row += %zu) {\n        i = 1;\n",
                tree_columns(t), K - 1, K);
    for (size_t h = 0; h < H; h++) {
        char column[40] = "column[i - 1]";
        if (!t->per_node)
            (void)snprintf(column, sizeof column, "column[%zu]", h);
        nimbus_text(b, "        i += i + (uint32_t)(%sx[%s]%s > threshold[i - 1]);\n",
                    t->by_key ? "key(" : "", column, t->by_key ? ")" : "");
    }
    if (t->indexed)
        nimbus_text(b, "        *out++ = row[i - %zu];\n", K);
    else
        nimbus_text(b, "        *out++ = (%s)(row + i - %zu);\n", w->row_type, K);
    nimbus_text(b, "    }\n}\n\n");
}

/* Thresholds in the numbers of what is compared with them. */
void nimbus_write_thresholds(nimbus_writer *w, nimbus_export_trees *t)
{
    const nimbus_step_info *info = &t->step->info;
    const size_t n = info->n_codebooks * (nimbus_step_leaves(info) - 1);
    const nimbus_export_input input = w->plan->input;
    int64_t *to = nimbus_writer_numbers(w, n), low = INT64_MAX, high = INT64_MIN;
    int64_t least, most;
    nimbus_input_range(input, &least, &most);
    t->threshold = "int8_t";
    if (!to)
        return;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *stored = t->step->arrays.thresholds;
        if (t->step->input != NIMBUS_IN_F32)
            to[i] = (int8_t)stored[i] + (t->step->input == NIMBUS_IN_U8 ? 128 : 0);
        else if (input == NIMBUS_EXPORT_F32) /* + 0: of the two zeros the positive one */
            to[i] = nimbus_float_key(nimbus_f32_at(stored, i) + 0.0f);
        else
            to[i] = nimbus_writer_floor_of(nimbus_f32_at(stored, i), input);
        if (t->step->input == NIMBUS_IN_F32 && input != NIMBUS_EXPORT_F32) {
            w->report->n_thresholds++;
            w->report->idle_thresholds += to[i] < least || to[i] >= most;
        }
        low = to[i] < low ? to[i] : low;
        high = to[i] > high ? to[i] : high;
    }
    t->threshold = nimbus_type_for(low, high);
    if (strcmp(t->threshold, "uint32_t") == 0) /* what is compared with them has a sign */
        t->threshold = "int32_t";
    nimbus_writer_array(w, t->threshold, t->i, "thresholds", n);
}

/* Column numbers, each through `where` if that is given. */
void nimbus_write_columns(nimbus_writer *w, const nimbus_export_trees *t, const char *what,
                          const uint32_t *where)
{
    const size_t n = t->step->info.n_codebooks * tree_columns(t);
    int64_t *to = nimbus_writer_numbers(w, n);
    for (size_t i = 0; to && i < n; i++) {
        const uint32_t column = nimbus_u32_at(t->step->arrays.columns, i);
        to[i] = where ? where[column] : column;
    }
    if (to)
        nimbus_writer_array(w, t->columns, t->i, what, n);
}
