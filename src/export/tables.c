/* tables.c - the tables of a step, and the functions that add their rows up
 *
 * In the tables a word holds the entries of several outputs, so that one addition serves all of
 * them. An entry of 5 to 7 bits lies in up to three planes of 4, 2 and 1 bits: each is a table of
 * its own, whose sums count for more. */
#include "export/writer.h"

#include <stdio.h>

#include "export/helpers.h"

static int entry_of(const nimbus_export_tables *t, size_t row, size_t m)
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

static size_t words_of_entries(const nimbus_step_info *info, unsigned bits)
{
    unsigned widths[3];
    size_t n = 0;
    for (size_t p = 0, n_planes = planes_of(bits, widths); p < n_planes; p++)
        n += words_of_row(info, widths[p]);
    return n;
}

unsigned nimbus_widest_as_small(const nimbus_step_info *info, unsigned bits)
{
    unsigned widest = bits;
    for (unsigned b = bits + 1; b <= 8; b++)
        if (words_of_entries(info, b) <= words_of_entries(info, widest))
            widest = b;
    return widest;
}

static bool same_row(const nimbus_export_tables *t, size_t a, size_t b)
{
    for (size_t m = 0; m < t->step->info.n_outputs; m++)
        if (entry_of(t, a, m) != entry_of(t, b, m))
            return false;
    return true;
}

static uint32_t hash_row(const nimbus_export_tables *t, size_t row)
{
    uint32_t hash = 2166136261u;
    for (size_t m = 0; m < t->step->info.n_outputs; m++)
        hash = (hash ^ (uint32_t)(entry_of(t, row, m) & 255)) * 16777619u;
    return hash;
}

/* Numbers the different rows, if there are few enough for it to pay. False: out of memory. */
static bool share_rows(nimbus_export_tables *t, size_t n)
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

bool nimbus_init_tables(nimbus_export_tables *t, const nimbus_stored_step *step, size_t i,
                        unsigned bits)
{
    const size_t n = step->info.n_codebooks << step->info.n_levels;
    *t = (nimbus_export_tables){.step = step, .i = i, .packing = nimbus_packing_of(step, bits)};
    if (!share_rows(t, n))
        return false;
    const size_t row_bytes = 4 * words_of_entries(&step->info, t->packing.bits);
    t->indexed = t->n_rows <= UINT16_MAX && (n - t->n_rows) * row_bytes > 2 * n;
    if (!t->indexed)
        t->n_rows = n;
    return true;
}

void nimbus_free_tables(nimbus_export_tables *t)
{
    nimbus_free(t->number);
    nimbus_free(t->first);
}

/* Bits low.. of the stored number of an entry, which is never negative. */
static uint32_t bits_of(const nimbus_export_tables *t, size_t row, size_t m, unsigned low,
                        unsigned width)
{
    if (m >= t->step->info.n_outputs)
        return 0;
    const int from = 1 << (t->packing.bits - 1);
    const unsigned stored = (unsigned)(entry_of(t, row, m) / (1 << t->packing.drop) + from);
    return stored >> low & ((1u << width) - 1);
}

static void write_plane(nimbus_writer *w, const nimbus_export_tables *t, const char *name,
                        unsigned low, unsigned width)
{
    const size_t n_words = words_of_row(&t->step->info, width), each = 32 / width;
    int64_t *to = nimbus_writer_numbers(w, t->n_rows * n_words);
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
    nimbus_writer_array(w, "uint32_t", t->i, name, t->n_rows * n_words);
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
static void write_add_words(nimbus_writer *w, const lanes *l, unsigned n_words, unsigned log_words)
{
    static const char *const counts[] = {"", "a word", "two words"};
    nimbus_buffer *b = &w->source.helpers;
    const unsigned per_word = 32 / l->width, lane_most = l->bits == 16 ? 0xffff : 0xff;
    nimbus_text(b, "/* Adds %s of each of n table rows, which lie %u apart, to %u sums. */\n",
                counts[n_words], 1u << log_words, n_words * per_word);
    nimbus_text(b,
                "APART static void add_%u_%u_%u(const uint32_t *table, const %s *row, uint32_t "
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
        if (l->width == 8) {
            nimbus_text(b, "        lot_%u_1 = add_odd(lot_%u_1, w_%u);\n", k, k, k);
            continue;
        }
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
                        "    sum[%u] = (int32_t)((uint32_t)from[%u] + ((lot_%u_%u >> %u & 0x%xu) "
                        "<< shift));\n",
                        k * per_word + e, k * per_word + e, k, e % l->lots, e / l->lots * l->bits,
                        lane_most);
    }
    nimbus_text(b, "}\n\n");
}

/* The function that adds whole table rows. */
static void write_add(nimbus_writer *w, unsigned width)
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
        nimbus_text(b, HELPER_ODD, big);
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
        "static void add_%u(const uint32_t *table, uint32_t n_rows, uint32_t n_words, const %s "
        "*row,\n    uint32_t n, uint32_t shift, const int32_t *from, int32_t *to)\n{\n    while "
        "(n) {\n",
        width, w->row_type);
    /* One loop, and nothing is used after it: compilers would compute that by a product. */
    nimbus_text(b,
                "        const uint32_t *at = table;\n"
                "        uint32_t left = n_words, some = n < %u ? n : %u;\n"
                "        const int32_t *base = from;\n"
                "        int32_t *sum = to;\n"
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
                "        from = to;\n"
                "        row += some;\n"
                "        n -= some;\n"
                "    }\n}\n\n",
                4 * per_word, 4 * per_word, width, per_word, per_word);
}

/* Tables and biases of a step, and the statements that add them up. */
void nimbus_write_tables(nimbus_writer *w, const nimbus_export_tables *t, const char *indent,
                         nimbus_buffer *b)
{
    const nimbus_step_info *info = &t->step->info;
    const size_t M = info->n_outputs, C = info->n_codebooks, n = C << info->n_levels;
    unsigned widths[3], low = 0;
    const size_t n_planes = planes_of(t->packing.bits, widths);
    int64_t *to = nimbus_writer_numbers(w, M > n ? M : n);
    if (!to)
        return;
    if (t->indexed) {
        for (size_t r = 0; r < n; r++)
            to[r] = t->number[r];
        nimbus_writer_array(w, "uint16_t", t->i, "rows", n);
    }
    /* minus what entries are stored too large by, modulo 2^32, as they are added */
    const int64_t over = (int64_t)C * (1 << (t->packing.bits - 1)) * (1 << t->packing.drop);
    const size_t n_first = words_of_row(info, widths[0]) * (32 / widths[0]);
    if (!(to = nimbus_writer_numbers(w, n_first)))
        return;
    for (size_t m = 0; m < n_first; m++)
        to[m] = m < M ? (int32_t)(nimbus_u32_at(t->step->arrays.bias, m) - (uint32_t)over) : 0;
    nimbus_writer_array(w, "int32_t", t->i, "bias", n_first);
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
        nimbus_writer_need(&w->n_sums, n_words * (32 / widths[p]));
        low += widths[p];
    }
    nimbus_writer_need(&w->n_rows, C);
    if (t->i < NIMBUS_REPORT_LAYERS)
        w->report->table_bits[t->i] = (unsigned char)t->packing.bits;
}
