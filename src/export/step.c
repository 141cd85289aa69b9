/* step.c - the C function of every step, and of the program
 *
 * A tree's leaf is the number of a table row; the rows of all codebooks are then added up. In the
 * tables a word holds the entries of several outputs, so that one addition serves all of them. An
 * entry of 5 to 7 bits lies in up to three planes of 4, 2 and 1 bits: each is a table of its own,
 * whose sums count for more. */
#include "export/export.h"

#include <stdio.h>
#include <string.h>

#include "export/helpers.h"

typedef struct writer {
    const nimbus_stored_program *program;
    const nimbus_export_plan *plan;
    nimbus_source source;
    nimbus_export_report *report;
    nimbus_error *error;
    size_t n_values;
    size_t n_rows, n_sums, n_patch; /* of the buffers */
    const char *row_type;           /* "uint16", or "uint32" */
    int64_t *numbers;               /* of an array being written */
    size_t n_numbers;
} writer;

/* Room for n numbers, or NULL. */
static int64_t *numbers(writer *w, size_t n)
{
    if (n > w->n_numbers) {
        nimbus_free(w->numbers);
        w->numbers = nimbus_alloc(n, sizeof *w->numbers);
        w->n_numbers = w->numbers ? n : 0;
    }
    if (!w->numbers)
        w->source.arrays.failed = true;
    return w->numbers;
}

static void array(writer *w, const char *type, size_t step, const char *what, size_t n)
{
    char name[64];
    (void)snprintf(name, sizeof name, "step_%zu_%s", step, what);
    nimbus_text_array(&w->source, type, name, w->numbers, n);
}

static void need(size_t *most, size_t n)
{
    *most = n > *most ? n : *most;
}

static void helper(writer *w, const char *name, const char *text)
{
    if (nimbus_needs_helper(&w->source, name))
        nimbus_write_bytes(&w->source.helpers, text, strlen(text));
}

/* ---- inputs ------------------------------------------------------------------------------- */

static const struct {
    const char *type;
    int64_t low, high;
} input_types[] = {[NIMBUS_EXPORT_U8] = {"uint8_t", 0, UINT8_MAX},
                   [NIMBUS_EXPORT_I8] = {"int8_t", INT8_MIN, INT8_MAX},
                   [NIMBUS_EXPORT_U16] = {"uint16_t", 0, UINT16_MAX},
                   [NIMBUS_EXPORT_I16] = {"int16_t", INT16_MIN, INT16_MAX},
                   [NIMBUS_EXPORT_I32] = {"int32_t", -INT32_MAX, INT32_MAX},
                   [NIMBUS_EXPORT_F32] = {"float", -0x7f800001ll, 0x7f800000ll}};

const char *nimbus_input_type(nimbus_export_input input)
{
    return input_types[input].type;
}

void nimbus_input_range(nimbus_export_input input, int64_t *low, int64_t *high)
{
    *low = input_types[input].low;
    *high = input_types[input].high;
}

/* The greatest integer that is not greater than x, within an input's range or one below it. */
static int64_t floor_of(float x, nimbus_export_input input)
{
    const int64_t low = input_types[input].low - 1, high = input_types[input].high;
    if (x < (float)low)
        return low;
    if (x >= (float)high)
        return high;
    const int64_t whole = (int64_t)x;
    return (float)whole > x ? whole - 1 : whole;
}

/* ---- trees -------------------------------------------------------------------------------- */

typedef struct trees {
    const nimbus_stored_step *step;
    size_t i;
    const char *x_type;    /* of what they read: "int8_t", ... */
    const char *columns;   /* type of the arrays of columns */
    const char *threshold; /* type */
    bool by_key, per_node, indexed;
} trees;

static size_t tree_columns(const trees *t)
{
    return t->per_node ? nimbus_step_leaves(&t->step->info) - 1 : t->step->info.n_levels;
}

static void name_walk(const trees *t, char name[48])
{
    (void)snprintf(name, 48, "walk_%zu%s%s_%.*s_%.*s_%.*s", t->step->info.n_levels,
                   t->per_node ? "n" : "", t->indexed ? "i" : "", (int)strcspn(t->x_type, "_"),
                   t->x_type, (int)strcspn(t->columns, "_"), t->columns,
                   (int)strcspn(t->threshold, "_"), t->threshold);
}

/* The function that walks trees of this kind. */
static void write_walk(writer *w, const trees *t)
{
    nimbus_buffer *b = &w->source.helpers;
    const size_t H = t->step->info.n_levels, K = (size_t)1 << H;
    char name[48];
    name_walk(t, name);
    if (!nimbus_needs_helper(&w->source, name))
        return;
    nimbus_text(b, "/* The table rows of n trees of %zu level%s%s. */\n", H, H > 1 ? "s" : "",
                t->per_node ? ", a column for each node" : "");
    nimbus_text(b,
                "static void %s(const %s *x, const %s *column, const %s *threshold, uint32_t n,\n",
                name, t->x_type, t->columns, t->threshold);
    nimbus_text(b, "    %s%s_t *out)\n{\n", t->indexed ? "const uint16_t *row, " : "", w->row_type);
    nimbus_text(b, "    uint32_t i%s;\n", t->indexed ? "" : ", row = 0");
    nimbus_text(b,
                "    for (; n--; column += %zu, threshold += %zu, row += %zu) {\n        i = 1;\n",
                tree_columns(t), K - 1, K);
    for (size_t h = 0; h < H; h++) {
        char column[40] = "column[i - 1]";
        if (!t->per_node)
            (void)snprintf(column, sizeof column, "column[%zu]", h);
        nimbus_text(b, "        i = 2 * i + (uint32_t)(%sx[%s]%s > threshold[i - 1]);\n",
                    t->by_key ? "key(" : "", column, t->by_key ? ")" : "");
    }
    if (t->indexed)
        nimbus_text(b, "        *out++ = row[i - %zu];\n", K);
    else
        nimbus_text(b, "        *out++ = (%s_t)(row + i - %zu);\n", w->row_type, K);
    nimbus_text(b, "    }\n}\n\n");
}

/* Thresholds in the numbers of what is compared with them. */
static void write_thresholds(writer *w, trees *t)
{
    const nimbus_step_info *info = &t->step->info;
    const size_t n = info->n_codebooks * (nimbus_step_leaves(info) - 1);
    const nimbus_export_input input = w->plan->input;
    int64_t *to = numbers(w, n), low = INT64_MAX, high = INT64_MIN;
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
            to[i] = floor_of(nimbus_f32_at(stored, i), input);
        low = to[i] < low ? to[i] : low;
        high = to[i] > high ? to[i] : high;
    }
    t->threshold = nimbus_type_for(low, high);
    array(w, t->threshold, t->i, "thresholds", n);
}

/* Column numbers, each through `where` if that is given. */
static void write_columns(writer *w, const trees *t, const char *what, const uint32_t *where)
{
    const size_t n = t->step->info.n_codebooks * tree_columns(t);
    int64_t *to = numbers(w, n);
    for (size_t i = 0; to && i < n; i++) {
        const uint32_t column = nimbus_u32_at(t->step->arrays.columns, i);
        to[i] = where ? where[column] : column;
    }
    if (to)
        array(w, t->columns, t->i, what, n);
}

/* ---- tables ------------------------------------------------------------------------------- */

typedef struct tables {
    const nimbus_stored_step *step;
    size_t i;
    nimbus_packing packing;
    uint16_t *number; /* [C K] of each row among the different ones */
    uint32_t *first;  /* [n_rows] one that has it */
    size_t n_rows;
    bool indexed; /* sharing rows pays for their numbers */
} tables;

static int entry_of(const tables *t, size_t row, size_t m)
{
    return nimbus_table_entry(&t->step->info, t->step->arrays.tables, row, m);
}

static size_t words_of_row(const nimbus_step_info *info, unsigned bits)
{
    const size_t each = 32 / bits;
    return (info->n_outputs + each - 1) / each;
}

/* The widths of the planes of an entry, low bits first. */
static size_t planes_of(unsigned bits, unsigned widths[3])
{
    size_t n = 0;
    if (bits == 8) {
        widths[n++] = 8;
        return n;
    }
    widths[n++] = 4;
    if (bits >= 6)
        widths[n++] = 2;
    if (bits % 2)
        widths[n++] = 1;
    return n;
}

static bool same_row(const tables *t, size_t a, size_t b)
{
    for (size_t m = 0; m < t->step->info.n_outputs; m++)
        if (entry_of(t, a, m) != entry_of(t, b, m))
            return false;
    return true;
}

static uint32_t hash_row(const tables *t, size_t row)
{
    uint32_t hash = 2166136261u;
    for (size_t m = 0; m < t->step->info.n_outputs; m++)
        hash = (hash ^ (uint32_t)(entry_of(t, row, m) & 255)) * 16777619u;
    return hash;
}

/* Numbers the different rows, if there are few enough for it to pay. False: out of memory. */
static bool share_rows(tables *t, size_t n)
{
    size_t n_slots = 1;
    while (n_slots < 2 * n)
        n_slots *= 2;
    uint32_t *slots = nimbus_alloc(n_slots, sizeof *slots); /* number + 1 */
    t->number = nimbus_alloc(n, sizeof *t->number);
    t->first = nimbus_alloc(n, sizeof *t->first);
    bool ok = slots && t->number && t->first;
    for (size_t row = 0; ok && row < n && t->n_rows <= UINT16_MAX; row++) {
        size_t slot = hash_row(t, row) & (n_slots - 1);
        while (slots[slot] && !same_row(t, t->first[slots[slot] - 1], row))
            slot = (slot + 1) & (n_slots - 1);
        if (!slots[slot]) {
            t->first[t->n_rows++] = (uint32_t)row;
            slots[slot] = (uint32_t)t->n_rows;
        }
        t->number[row] = (uint16_t)(slots[slot] - 1);
    }
    nimbus_free(slots);
    return ok;
}

static bool init_tables(tables *t, const nimbus_stored_step *step, size_t i, unsigned bits)
{
    const size_t n = step->info.n_codebooks << step->info.n_levels;
    unsigned widths[3];
    *t = (tables){.step = step, .i = i, .packing = nimbus_packing_of(step, bits)};
    if (!share_rows(t, n))
        return false;
    size_t row_bytes = 0;
    for (size_t p = 0, n_planes = planes_of(t->packing.bits, widths); p < n_planes; p++)
        row_bytes += 4 * words_of_row(&step->info, widths[p]);
    t->indexed = t->n_rows <= UINT16_MAX && (n - t->n_rows) * row_bytes > 2 * n;
    if (!t->indexed)
        t->n_rows = n;
    return true;
}

static void free_tables(tables *t)
{
    nimbus_free(t->number);
    nimbus_free(t->first);
}

/* Bits low.. of the stored number of an entry, which is never negative. */
static uint32_t bits_of(const tables *t, size_t row, size_t m, unsigned low, unsigned width)
{
    if (m >= t->step->info.n_outputs)
        return 0;
    const int from = 1 << (t->packing.bits - 1);
    const unsigned stored = (unsigned)(entry_of(t, row, m) / (1 << t->packing.drop) + from);
    return stored >> low & ((1u << width) - 1);
}

static void write_plane(writer *w, const tables *t, const char *name, unsigned low, unsigned width)
{
    const size_t n_words = words_of_row(&t->step->info, width), each = 32 / width;
    int64_t *to = numbers(w, t->n_rows * n_words);
    if (!to)
        return;
    size_t strip = 0;
    for (size_t at = 0; at < n_words; at += strip) {
        strip = n_words - at >= 4 ? 4 : 1;
        for (size_t r = 0; r < t->n_rows; r++) {
            const size_t row = t->indexed ? t->first[r] : r;
            for (size_t s = 0; s < strip; s++) {
                uint32_t word = 0;
                for (size_t e = 0; e < each; e++)
                    word |= bits_of(t, row, (at + s) * each + e, low, width) << width * e;
                *to++ = word;
            }
        }
    }
    array(w, "uint32_t", t->i, name, t->n_rows * n_words);
}

/* How entries of a width are added many at a time: a word is cut into lots, each with every
 * lots-th entry in a lane of its own, for so many rows that no lane can run over. */
typedef struct lanes {
    unsigned width, lots, bits; /* bits of a lane */
    unsigned most_rows;
    uint32_t mask;    /* of lot 0 in a word */
    unsigned n_words; /* of a row that are added together: where registers suffice, two */
} lanes;

static lanes lanes_of(unsigned width)
{
    lanes l = {.width = width, .bits = width == 8 ? 16 : 8};
    const unsigned most = (1u << width) - 1;
    l.lots = l.bits / width;
    l.most_rows = width == 8 ? 256 : 255 / most;
    l.mask = width == 8 ? 0x00ff00ffu : most * 0x01010101u;
    l.n_words = l.lots == 2 ? 2 : 1;
    return l;
}

/* The function that adds n_words words of up to most_rows table rows, rows 1 << log_words words
 * apart, to 32 / width sums each. */
static void write_add_words(writer *w, const lanes *l, unsigned n_words, unsigned log_words)
{
    static const char *const counts[] = {"", "a word", "two words"};
    nimbus_buffer *b = &w->source.helpers;
    const unsigned per_word = 32 / l->width, lane_most = l->bits == 16 ? 0xffff : 0xff;
    nimbus_text(b, "/* Adds %s of each of n table rows, which lie %u apart, to %u sums. */\n",
                counts[n_words], 1u << log_words, n_words * per_word);
    nimbus_text(b,
                "APART static void add_%u_%u_%u(const uint32_t *table, const %s_t *row, uint32_t "
                "n, uint32_t "
                "shift,\n    const int32_t *from, int32_t *sum)\n{\n    uint32_t ",
                l->width, n_words, 1u << log_words, w->row_type);
    for (unsigned k = 0; k < n_words; k++)
        for (unsigned a = 0; a < l->lots; a++)
            nimbus_text(b, "%slot_%u_%u = 0", k + a ? ", " : "", k, a);
    nimbus_text(
        b, ";\n    while (n--) {\n        const uint32_t *at = table + ((uint32_t)*row++ << %u);\n",
        log_words);
    for (unsigned k = 0; k < n_words; k++) {
        nimbus_text(b, "        uint32_t w_%u = at[%u];\n        lot_%u_0 += w_%u;\n", k, k, k, k);
        for (unsigned a = 1; a < l->lots; a++)
            nimbus_text(b, "        lot_%u_%u += w_%u >> %u & 0x%xu;\n", k, a, k, a * l->width,
                        l->mask);
    }
    nimbus_text(b, "    }\n");
    for (unsigned k = 0; k < n_words; k++) {
        for (unsigned a = 1; a < l->lots; a++) /* lot 0 was added up with all others */
            nimbus_text(b, "    lot_%u_0 -= lot_%u_%u << %u;\n", k, k, a, a * l->width);
        for (unsigned e = 0; e < per_word; e++)
            nimbus_text(b,
                        "    sum[%u] = from[%u] + (int32_t)((lot_%u_%u >> %u & 0x%xu) << shift);\n",
                        k * per_word + e, k * per_word + e, k, e % l->lots, e / l->lots * l->bits,
                        lane_most);
    }
    nimbus_text(b, "}\n\n");
}

/* The function that adds whole table rows. */
static void write_add(writer *w, unsigned width)
{
    const lanes l = lanes_of(width);
    const unsigned per_word = 32 / width;
    nimbus_buffer *b = &w->source.helpers;
    char name[16];
    (void)snprintf(name, sizeof name, "add_%u", width);
    if (!nimbus_needs_helper(&w->source, name))
        return;
    if (width == 8) {
        char big[NIMBUS_MOST_PREFIX + 1];
        nimbus_upper(w->plan->prefix, big);
        nimbus_text(b, HELPER_STRIP, big, big, w->row_type);
    }
    write_add_words(w, &l, l.n_words, 2);
    if (width == 8)
        nimbus_text(b, "#endif\n\n");
    write_add_words(w, &l, 1, 0);
    nimbus_text(
        b,
        "/* sums = from + n table rows. A row has n_words words: four side by side as long as "
        "there "
        "are\n   four, then one by one; n_rows rows in all. */\n"
        "static void add_%u(const uint32_t *table, uint32_t n_rows, uint32_t n_words, const %s_t "
        "*row,\n    uint32_t n, uint32_t shift, const int32_t *from, int32_t *sums)\n{\n    while "
        "(n) {\n",
        width, w->row_type);
    /* One loop, and nothing is used after it: compilers would compute that by a product. */
    nimbus_text(b,
                "        const uint32_t *at = table;\n"
                "        uint32_t left = n_words, some = n < %u ? n : %u;\n"
                "        const int32_t *base = from;\n"
                "        int32_t *sum = sums;\n"
                "        while (left) {\n"
                "            if (left >= 4) {\n",
                l.most_rows, l.most_rows);
    if (width == 8)
        nimbus_text(
            b,
            "#ifdef STRIPS\n                add_strip(at, row, some, shift, base, sum);\n#else\n");
    for (unsigned k = 0; k < 4; k += l.n_words)
        nimbus_text(
            b, "                add_%u_%u_4(at + %u, row, some, shift, base + %u, sum + %u);\n",
            width, l.n_words, k, k * per_word, k * per_word);
    if (width == 8)
        nimbus_text(b, "#endif\n");
    nimbus_text(b,
                "                at += n_rows << 2;\n"
                "                base += %u;\n"
                "                sum += %u;\n"
                "                left -= 4;\n"
                "            } else {\n"
                "                add_%u_1_1(at, row, some, shift, base, sum);\n"
                "                at += n_rows;\n"
                "                base += %u;\n"
                "                sum += %u;\n"
                "                left--;\n"
                "            }\n"
                "        }\n"
                "        from = sums;\n"
                "        row += some;\n"
                "        n -= some;\n"
                "    }\n}\n\n",
                4 * per_word, 4 * per_word, width, per_word, per_word);
}

/* Tables and biases of a step, and the statements that add them up. */
static void write_tables(writer *w, const tables *t, const char *indent, nimbus_buffer *b)
{
    const nimbus_step_info *info = &t->step->info;
    const size_t M = info->n_outputs, C = info->n_codebooks, n = C << info->n_levels;
    unsigned widths[3], low = 0;
    const size_t n_planes = planes_of(t->packing.bits, widths);
    int64_t *to = numbers(w, M > n ? M : n);
    if (!to)
        return;
    if (t->indexed) {
        for (size_t r = 0; r < n; r++)
            to[r] = t->number[r];
        array(w, "uint16_t", t->i, "rows", n);
    }
    /* minus what entries are stored too large by */
    const int64_t over = (int64_t)C * (1 << (t->packing.bits - 1)) * (1 << t->packing.drop);
    const size_t n_first = words_of_row(info, widths[0]) * (32 / widths[0]);
    if (!(to = numbers(w, n_first)))
        return;
    for (size_t m = 0; m < n_first; m++)
        to[m] = m < M ? (int32_t)nimbus_u32_at(t->step->arrays.bias, m) - over : 0;
    array(w, "int32_t", t->i, "bias", n_first);
    char from[32];
    (void)snprintf(from, sizeof from, "step_%zu_bias", t->i);
    for (size_t p = 0; p < n_planes; p++) {
        char name[16];
        const size_t n_words = words_of_row(info, widths[p]);
        (void)snprintf(name, sizeof name, "table_%u", widths[p]);
        write_plane(w, t, name, low, widths[p]);
        write_add(w, widths[p]);
        nimbus_text(b, "%sadd_%u(step_%zu_%s, %zu, %zu, rows, %zu, %u, %s, sums);\n", indent,
                    widths[p], t->i, name, t->n_rows, n_words, C, low + t->packing.drop,
                    p ? "sums" : from);
        need(&w->n_sums, n_words * (32 / widths[p]));
        low += widths[p];
    }
    need(&w->n_rows, C);
    if (t->i < NIMBUS_REPORT_LAYERS)
        w->report->table_bits[t->i] = (unsigned char)t->packing.bits;
}

static size_t positions_of(const nimbus_step_info *info)
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
    for (size_t m = 0; m < M; m++) {
        const unsigned own = nimbus_line_most_shift(stairs[m].low, stairs[m].high);
        most = own < most ? own : most;
    }
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

typedef struct fault_list {
    int64_t *to; /* four numbers each; NULL: only counted */
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
static void write_faults(writer *w, size_t i, const char *indent, const char *y, size_t apart,
                         const nimbus_stairs *stairs, unsigned shift, const nimbus_line *lines,
                         nimbus_buffer *b)
{
    const size_t M = w->program->steps[i].info.n_outputs;
    fault_list f = {.apart = apart};
    size_t n = 0;
    for (size_t m = 0; m < M; m++)
        n += nimbus_line_faults(&stairs[m], shift, &lines[m], NULL, NULL);
    if (n == 0 || !(f.to = numbers(w, 4 * n)))
        return;
    for (f.m = 0; f.m < M; f.m++) {
        f.falls = stairs[f.m].falls;
        (void)nimbus_line_faults(&stairs[f.m], shift, &lines[f.m], add_fault, &f);
    }
    array(w, "int32_t", i, "faults", 4 * n);
    helper(w, "correct", HELPER_CORRECT);
    nimbus_text(b, "%scorrect(sums, step_%zu_faults, %zu, %s);\n", indent, i, n, y);
    w->report->comparisons += n * positions_of(&w->program->steps[i].info);
}

static void put_stairs(const nimbus_stairs *stairs, int64_t to[256])
{
    to[0] = stairs->falls ? -1 : 1;
    for (int k = 1; k < 256; k++)
        to[k] = stairs->at[k] > INT32_MAX ? INT32_MAX : stairs->at[k];
}

static void write_scaled(writer *w, size_t i, const char *indent, const char *y, size_t apart,
                         nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const size_t M = step->info.n_outputs;
    nimbus_stairs *stairs = nimbus_alloc(M, sizeof *stairs);
    nimbus_line *lines = nimbus_alloc(M, sizeof *lines);
    int64_t *to = numbers(w, 256 * M);
    if (!stairs || !lines || !to) {
        b->failed = true;
        goto done;
    }
    for (size_t m = 0; m < M; m++) {
        int64_t low, high;
        nimbus_sum_range(step, m, &low, &high);
        nimbus_stairs_of_sum(step, m, low, high, &stairs[m]);
    }
    unsigned shift = 0;
    if (fit_lines(stairs, M, &shift, lines)) {
        for (size_t m = 0; m < M; m++) {
            to[2 * m] = lines[m].start;
            to[2 * m + 1] = stairs[m].falls ? -lines[m].slope : lines[m].slope;
        }
        array(w, "int32_t", i, "lines", 2 * M);
        helper(w, "finish_line", HELPER_LINE);
        nimbus_text(b, "%sfinish_line(sums, %zu, step_%zu_lines, %u, %s, %zu);\n", indent, M, i,
                    shift, y, apart);
        write_faults(w, i, indent, y, apart, stairs, shift, lines, b);
    } else {
        for (size_t m = 0; m < M; m++)
            put_stairs(&stairs[m], to + 256 * m);
        array(w, "int32_t", i, "stairs", 256 * M);
        helper(w, "climb", HELPER_CLIMB);
        helper(w, "finish_stairs", HELPER_STAIRS);
        nimbus_text(b, "%sfinish_stairs(sums, %zu, step_%zu_stairs, %s, %zu);\n", indent, M, i, y,
                    apart);
    }
done:
    nimbus_free(stairs);
    nimbus_free(lines);
}

/* The map and clamp of n values of step i. */
static void write_map(writer *w, size_t i, const char *indent, const char *y, size_t n,
                      size_t apart, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const bool clamps = w->program->of_images && (step->low > -128 || step->high < 127);
    if (step->arrays.map) {
        int64_t *to = numbers(w, 256);
        for (size_t k = 0; to && k < 256; k++) {
            const int8_t value = (int8_t)step->arrays.map[k];
            to[k] = clamps && value < step->low    ? step->low
                    : clamps && value > step->high ? step->high
                                                   : value;
        }
        if (to)
            array(w, "int8_t", i, "map", 256);
        helper(w, "map_values", HELPER_MAP);
        nimbus_text(b, "%smap_values(%s, %zu, %zu, step_%zu_map);\n", indent, y, n, apart, i);
    } else if (clamps) {
        helper(w, "clamp", HELPER_CLAMP);
        nimbus_text(b, "%sclamp(%s, %zu, %zu, %d, %d);\n", indent, y, n, apart, step->low,
                    step->high);
    }
}

/* From the sums of one position to scores, or to bytes at y. */
static void write_finish(writer *w, size_t i, const char *indent, const char *y, size_t apart,
                         nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const size_t M = step->info.n_outputs;
    if (step->output == NIMBUS_OUT_I32) {
        helper(w, "copy", HELPER_COPY);
        nimbus_text(b, "%scopy(sums, %zu, scores);\n", indent, M);
        return;
    }
    if (step->output == NIMBUS_OUT_SHIFT) {
        helper(w, "finish_shift", HELPER_SHIFT);
        nimbus_text(b, "%sfinish_shift(sums, %zu, %u, %s, %zu);\n", indent, M, step->shift, y,
                    apart);
    } else {
        write_scaled(w, i, indent, y, apart, b);
        w->report->comparisons += 8 * M * positions_of(&step->info);
    }
    write_map(w, i, indent, y, M, apart, b);
}

/* ---- steps on rows ------------------------------------------------------------------------- */

static nimbus_status write_row_lookup(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    tables t;
    if (!init_tables(&t, step, i, w->plan->bits[i])) {
        free_tables(&t);
        return nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for the tables of a step");
    }
    trees of = {.step = step,
                .i = i,
                .x_type = i ? "int8_t" : nimbus_input_type(w->plan->input),
                .columns = nimbus_type_for(0, (int64_t)info->n_inputs - 1),
                .by_key = i == 0 && w->plan->input == NIMBUS_EXPORT_F32,
                .per_node = !info->shared_columns,
                .indexed = t.indexed};
    char walk[48];
    if (of.by_key)
        helper(w, "key", HELPER_KEY);
    write_thresholds(w, &of);
    write_columns(w, &of, "columns", NULL);
    write_walk(w, &of);
    name_walk(&of, walk);
    nimbus_text(b, "    %s(x, step_%zu_columns, step_%zu_thresholds, %zu, ", walk, i, i,
                info->n_codebooks);
    if (t.indexed)
        nimbus_text(b, "step_%zu_rows, ", i);
    nimbus_text(b, "rows);\n");
    write_tables(w, &t, "    ", b);
    free_tables(&t);
    return NIMBUS_OK;
}

/* Weights and biases; raw u8 rows are read as they are, 128 above what the weights expect. */
static void write_weights(writer *w, size_t i, size_t D, bool raw)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const size_t M = step->info.n_outputs;
    int64_t *to = numbers(w, D * M);
    for (size_t k = 0; to && k < D * M; k++)
        to[k] = (int8_t)step->arrays.weights[k];
    if (to)
        array(w, "int8_t", i, "weights", D * M);
    to = numbers(w, M);
    for (size_t m = 0; to && m < M; m++) {
        int64_t sum = 0;
        for (size_t d = 0; raw && d < D; d++)
            sum += (int8_t)step->arrays.weights[m * D + d];
        to[m] = (int32_t)nimbus_u32_at(step->arrays.bias, m) - 128 * sum;
    }
    if (to)
        array(w, "int32_t", i, "bias", M);
    need(&w->n_sums, M);
}

static void write_dot(writer *w, const char *type)
{
    char name[24];
    (void)snprintf(name, sizeof name, "dot_%.*s", (int)strcspn(type, "_"), type);
    if (nimbus_needs_helper(&w->source, name))
        nimbus_text(&w->source.helpers, HELPER_DOT, name + 4, type);
}

static nimbus_status write_row_exact(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    const char *type = i ? "int8_t" : "uint8_t";
    if (step->input == NIMBUS_IN_F32)
        return nimbus_fail(w->error, NIMBUS_ERR_UNSUPPORTED,
                           "layer \"%s\" is exact and reads floats, which it would have to "
                           "multiply: convert it to a lookup layer as well, or train on rows of u8",
                           info->name);
    write_weights(w, i, info->n_inputs, i == 0);
    write_dot(w, type);
    nimbus_text(b, "    dot_%.*s(x, step_%zu_weights, step_%zu_bias, %zu, %zu, sums);\n",
                (int)strcspn(type, "_"), type, i, i, info->n_inputs, info->n_outputs);
    return NIMBUS_OK;
}

static nimbus_status write_row_step(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const bool last = i + 1 == w->program->info.n_steps;
    char y[32] = "";
    if (!last)
        (void)snprintf(y, sizeof y, "values + %zu", w->program->values[i + 1].place);
    if (i)
        nimbus_text(b, "    const int8_t *x = values + %zu;\n", w->program->values[i].place);
    nimbus_status status = step->info.kind == NIMBUS_STEP_LOOKUP ? write_row_lookup(w, i, b)
                                                                 : write_row_exact(w, i, b);
    if (!status)
        write_finish(w, i, "    ", y, 1, b);
    return status;
}

/* ---- steps on images ----------------------------------------------------------------------- */

typedef struct window_shape {
    const nimbus_stored_value *in;
    size_t channels, taps; /* that an output sees */
    bool pads;             /* it can reach outside */
    bool whole;            /* it sees its input from the first byte to the last, once */
} window_shape;

static window_shape shape_of(const nimbus_stored_program *program, const nimbus_stored_step *step)
{
    const nimbus_patch *p = &step->patch;
    const nimbus_stored_value *in = &program->values[step->sources[0]];
    const size_t groups = nimbus_is_convolution(&step->info) ? step->info.n_groups : in->channels;
    window_shape s = {.in = in, .channels = in->channels / groups};
    s.taps = s.channels * p->height * p->width;
    s.pads = p->top + p->bottom + p->left + p->right > 0;
    s.whole = !s.pads && p->height == in->height && p->width == in->width && p->dilation_y == 1 &&
              p->dilation_x == 1;
    return s;
}

/* How far each tap is from the first, numbered as columns are; NULL: out of memory. */
static uint32_t *tap_offsets(const nimbus_patch *p, const window_shape *s, uint32_t *most)
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

/* "y >= 0 && ...": whether the window at (y, x) lies inside. */
static void write_inside(const nimbus_patch *p, const window_shape *s, nimbus_buffer *b)
{
    nimbus_text(b, "y >= 0 && y <= %lld && x >= 0 && x <= %lld",
                (long long)s->in->height - 1 - (long long)((p->height - 1) * p->dilation_y),
                (long long)s->in->width - 1 - (long long)((p->width - 1) * p->dilation_x));
}

static void write_window(writer *w, size_t i, const window_shape *s)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_patch *p = &step->patch;
    helper(w, "window", HELPER_WINDOW);
    nimbus_text(&w->source.arrays,
                "static const struct window step_%zu_window = {\n    %zu, %zu, %zu, %zu, %zu, %zu, "
                "%zu, %zu, %zu};\n",
                i, s->channels, s->in->height, s->in->width, p->height, p->width, p->dilation_y,
                p->dilation_x, p->dilation_y * s->in->width, s->in->height * s->in->width);
    w->source.flash += 36;
    int64_t *to = numbers(w, s->in->channels);
    for (size_t c = 0; to && c < s->in->channels; c++)
        to[c] = step->arrays.pad ? (int8_t)step->arrays.pad[c] : -128;
    if (to)
        array(w, "int8_t", i, "pad", s->in->channels);
    need(&w->n_patch, s->taps);
}

/* The loops over all positions of the output, up to the statements for one of them. */
static void begin_positions(const nimbus_stored_step *step, const window_shape *s, nimbus_buffer *b)
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
static nimbus_status write_image_trees(writer *w, size_t i, const window_shape *s, bool one,
                                       bool indexed, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    uint32_t most = 0;
    uint32_t *offsets = tap_offsets(&step->patch, s, &most);
    if (!offsets)
        return nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for a window");
    trees of = {.step = step,
                .i = i,
                .x_type = "int8_t",
                .columns = nimbus_type_for(0, most > s->taps - 1 ? most : (int64_t)s->taps - 1),
                .per_node = !info->shared_columns,
                .indexed = indexed};
    char walk[48], rows[40] = "";
    const char *indent = one ? "    " : "            ";
    write_thresholds(w, &of);
    write_columns(w, &of, "offsets", offsets);
    nimbus_free(offsets);
    write_walk(w, &of);
    name_walk(&of, walk);
    if (indexed)
        (void)snprintf(rows, sizeof rows, "step_%zu_rows, ", i);
    if (s->pads) {
        write_columns(w, &of, "columns", NULL);
        write_window(w, i, s);
        nimbus_text(b, "%sif (", indent);
        write_inside(&step->patch, s, b);
        nimbus_text(b, ") {\n    ");
    }
    nimbus_text(b, "%s%s(%s, step_%zu_offsets, step_%zu_thresholds, %zu, %srows);\n", indent, walk,
                one ? "in" : "in + at", i, i, info->n_codebooks, rows);
    if (s->pads) {
        nimbus_text(b, "%s} else {\n", indent);
        nimbus_text(b, "%s    gather(in, at, y, x, &step_%zu_window, step_%zu_pad, patch);\n",
                    indent, i, i);
        nimbus_text(b,
                    "%s    %s(patch, step_%zu_columns, step_%zu_thresholds, %zu, %srows);\n%s}\n",
                    indent, walk, i, i, info->n_codebooks, rows, indent);
    }
    return NIMBUS_OK;
}

static nimbus_status write_image_lookup(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const window_shape s = shape_of(w->program, step);
    const size_t n = step->info.height * step->info.width;
    const bool one = n == 1 && !s.pads;
    const char *indent = one ? "    " : "            ";
    tables t;
    nimbus_status status =
        init_tables(&t, step, i, w->plan->bits[i])
            ? NIMBUS_OK
            : nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for the tables of a step");
    if (!one)
        begin_positions(step, &s, b);
    if (!status)
        status = write_image_trees(w, i, &s, one, t.indexed, b);
    if (!status) {
        write_tables(w, &t, indent, b);
        write_finish(w, i, indent, "out", n, b);
    }
    if (!one)
        end_positions(b);
    free_tables(&t);
    return status;
}

/* The statement that brings the window of a channel, or a group of them, to the patch: `from` is
 * where its channels begin, `pad` where their pads do. */
static void write_patch(writer *w, size_t i, const window_shape *s, const char *offset_type,
                        nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const char *indent = "                ";
    if (s->pads) {
        nimbus_text(b, "%sif (", indent);
        write_inside(&step->patch, s, b);
        nimbus_text(b, ")\n    ");
    }
    nimbus_text(b, "%spick_%s(from + at, step_%zu_offsets, %zu, patch);\n", indent, offset_type, i,
                s->taps);
    if (s->pads)
        nimbus_text(b, "%selse\n%s    gather(from, at, y, x, &step_%zu_window, pad, patch);\n",
                    indent, indent, i);
}

/* The arrays that write_patch needs. Error: MEMORY. */
static nimbus_status prepare_patch(writer *w, size_t i, const window_shape *s, char offset_type[12])
{
    const nimbus_stored_step *step = &w->program->steps[i];
    uint32_t most = 0;
    uint32_t *offsets = tap_offsets(&step->patch, s, &most);
    int64_t *to = numbers(w, s->taps);
    char name[24];
    if (!offsets || !to) {
        nimbus_free(offsets);
        return nimbus_fail(w->error, NIMBUS_ERR_MEMORY, "out of memory for a window");
    }
    for (size_t t = 0; t < s->taps; t++)
        to[t] = offsets[t];
    nimbus_free(offsets);
    const char *type = nimbus_type_for(0, most);
    array(w, type, i, "offsets", s->taps);
    (void)snprintf(offset_type, 12, "%.*s", (int)strcspn(type, "_"), type);
    (void)snprintf(name, sizeof name, "pick_%s", offset_type);
    if (nimbus_needs_helper(&w->source, name))
        nimbus_text(&w->source.helpers, HELPER_PICK, offset_type, offset_type);
    if (s->pads)
        write_window(w, i, s);
    need(&w->n_patch, s->taps);
    return NIMBUS_OK;
}

static nimbus_status write_image_exact(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    const window_shape s = shape_of(w->program, step);
    const size_t n = info->height * info->width, groups = info->n_groups;
    const size_t group_outputs = info->n_outputs / groups;
    char offset_type[12];
    nimbus_status status;
    write_weights(w, i, s.taps, false);
    write_dot(w, "int8_t");
    if (n == 1 && s.whole && groups == 1) {
        nimbus_text(b, "    dot_int8(in, step_%zu_weights, step_%zu_bias, %zu, %zu, sums);\n", i, i,
                    s.taps, info->n_outputs);
        write_finish(w, i, "    ", "out", 1, b);
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
    write_finish(w, i, "            ", "out", n, b);
    end_positions(b);
    return NIMBUS_OK;
}

static nimbus_status write_image_pool(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    const nimbus_step_info *info = &step->info;
    const window_shape s = shape_of(w->program, step);
    const size_t n = info->height * info->width, plane = s.in->height * s.in->width;
    const bool average = info->kind == NIMBUS_STEP_AVERAGE_POOL;
    char offset_type[12];
    nimbus_status status;
    need(&w->n_sums, average ? info->n_outputs : 0);
    helper(w, average ? "sum_of" : "most_of", average ? HELPER_SUM : HELPER_MOST);
    if (n == 1 && s.whole) {
        nimbus_text(b, "    uint32_t c;\n    for (c = 0; c < %zu; c++, in += %zu)\n",
                    info->n_outputs, plane);
        nimbus_text(b,
                    average ? "        sums[c] = sum_of(in, %zu);\n"
                            : "        out[c] = most_of(in, %zu);\n",
                    s.taps);
        if (average)
            write_finish(w, i, "    ", "out", 1, b);
        else
            write_map(w, i, "    ", "out", info->n_outputs, 1, b);
        return NIMBUS_OK;
    }
    if ((status = prepare_patch(w, i, &s, offset_type)))
        return status;
    begin_positions(step, &s, b);
    nimbus_text(b, "            const int8_t *from = in;\n            uint32_t c;\n");
    if (average)
        nimbus_text(b, "            int32_t *sum = sums;\n");
    else
        nimbus_text(b, "            int8_t *to = out;\n");
    if (s.pads)
        nimbus_text(b, "            const int8_t *pad = step_%zu_pad;\n", i);
    nimbus_text(b, "            for (c = 0; c < %zu; c++, from += %zu%s) {\n", info->n_outputs,
                plane, s.pads ? ", pad++" : "");
    write_patch(w, i, &s, offset_type, b);
    if (average)
        nimbus_text(b, "                *sum++ = sum_of(patch, %zu);\n            }\n", s.taps);
    else
        nimbus_text(b,
                    "                *to = most_of(patch, %zu);\n                to += %zu;\n      "
                    "      }\n",
                    s.taps, n);
    if (average)
        write_finish(w, i, "            ", "out", n, b);
    else
        write_map(w, i, "            ", "out", info->n_outputs, n, b);
    end_positions(b);
    return NIMBUS_OK;
}

/* Sums of values, and values side by side. */
static nimbus_status write_image_join(writer *w, size_t i, nimbus_buffer *b)
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
    write_map(w, i, "    ", "out", n, 1, b);
    return NIMBUS_OK;
}

static nimbus_status write_image_step(writer *w, size_t i, nimbus_buffer *b)
{
    const nimbus_stored_step *step = &w->program->steps[i];
    nimbus_text(b, "    const int8_t *in = values + %zu;\n",
                w->program->values[step->sources[0]].place);
    if (i + 1 < w->program->info.n_steps)
        nimbus_text(b, "    int8_t *out = values + %zu;\n", w->program->values[i + 1].place);
    switch (step->info.kind) {
    case NIMBUS_STEP_LOOKUP:
        return write_image_lookup(w, i, b);
    case NIMBUS_STEP_EXACT:
        return write_image_exact(w, i, b);
    case NIMBUS_STEP_MAX_POOL:
    case NIMBUS_STEP_AVERAGE_POOL:
        return write_image_pool(w, i, b);
    default:
        return write_image_join(w, i, b);
    }
}

/* Raw values to the int8 grid that the first steps read. */
static void write_image_input(writer *w, nimbus_buffer *b)
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
    int64_t *to = numbers(w, 256 * in->channels);
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
        put_stairs(&stairs, to + 256 * c);
    }
    if (to)
        nimbus_text_array(&w->source, "int32_t", "input_stairs", to, 256 * in->channels);
    helper(w, "climb", HELPER_CLIMB);
    if (is_float)
        helper(w, "key", HELPER_KEY);
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

/* ---- the program --------------------------------------------------------------------------- */

static nimbus_status write_steps(writer *w)
{
    const nimbus_stored_program *program = w->program;
    const size_t n = program->info.n_steps;
    nimbus_buffer *b = &w->source.steps;
    if (program->of_images)
        write_image_input(w, b);
    for (size_t i = 0; i < n; i++) {
        const nimbus_step_info *info = &program->steps[i].info;
        const bool first = i == 0 && !program->of_images, last = i + 1 == n;
        nimbus_text(b, "/* %s: %s", info->name[0] ? info->name : "a step",
                    nimbus_step_kind_name(info->kind));
        if (info->n_codebooks)
            nimbus_text(b, ", %zu trees, %zu outputs", info->n_codebooks, info->n_outputs);
        nimbus_text(b, " */\nstatic void step_%zu(", i);
        if (first)
            nimbus_text(b, "const %s *x%s", nimbus_input_type(w->plan->input), last ? ", " : "");
        nimbus_text(b, "%s)\n{\n", last ? "int32_t *scores" : first ? "" : "void");
        nimbus_status status =
            program->of_images ? write_image_step(w, i, b) : write_row_step(w, i, b);
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
    const size_t bytes = nimbus_type_bytes(type), each = 4 / bytes,
                 all = (n + each - 1) / each * each;
    nimbus_text(out, "static %s %s[%zu];\n", type, name, all);
    *ram += all * bytes;
}

/* Every name of a layer ends up in a comment. */
static bool names_fit_comments(const nimbus_stored_program *program)
{
    for (size_t i = 0; i < program->info.n_steps; i++)
        for (const char *c = program->steps[i].info.name; *c; c++)
            if (*c < ' ' || (c[0] == '*' && c[1] == '/'))
                return false;
    return true;
}

static const char *row_type_of(const nimbus_stored_program *program)
{
    size_t most = 0;
    for (size_t i = 0; i < program->info.n_steps; i++) {
        const nimbus_step_info *info = &program->steps[i].info;
        need(&most, info->n_codebooks << info->n_levels);
    }
    return most <= UINT16_MAX + 1 ? "uint16" : "uint32";
}

nimbus_status nimbus_source_write(const nimbus_stored_program *program,
                                  const nimbus_export_plan *plan, nimbus_buffer *out,
                                  nimbus_export_report *report, nimbus_error *error)
{
    const size_t n = program->info.n_steps;
    writer w = {.program = program,
                .plan = plan,
                .report = report,
                .error = error,
                .row_type = row_type_of(program),
                .n_values = nimbus_place_values(program, program->of_images)};
    char row_type[16];
    nimbus_status status;
    (void)snprintf(row_type, sizeof row_type, "%s_t", w.row_type);
    *report =
        (nimbus_export_report){.lookups = program->info.lookups,
                               .additions = program->info.lookups + program->info.multiply_adds,
                               .comparisons = program->info.comparisons,
                               .multiply_adds = program->info.multiply_adds,
                               .n_steps = n};
    if (!names_fit_comments(program))
        status = nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                             "the name of a layer would end a comment of C");
    else
        status = write_steps(&w);
    if (!status) {
        nimbus_text(out,
                    "/* %s.c - a lookup program as plain C, written by nimbus %s; see %s.h */\n",
                    plan->prefix, nimbus_version(), plan->prefix);
        nimbus_text(out, "#include \"%s.h\"\n\n", plan->prefix);
        nimbus_text(out, HELPER_APART);
        buffer(out, &report->ram_bytes, "int8_t", "values", w.n_values);
        buffer(out, &report->ram_bytes, row_type, "rows", w.n_rows);
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
