/* helpers.h - the functions that steps of the exported C share, as text; each is written where it
 * is used first. They go by a name and have no product but in dot. */
#ifndef NIMBUS_EXPORT_HELPERS_H
#define NIMBUS_EXPORT_HELPERS_H

#define HELPER_KEY                                                                                 \
    "/* Floats in their order as integers; what is no number comes first. */\n"                    \
    "static int32_t key(float x)\n"                                                                \
    "{\n"                                                                                          \
    "    union {\n"                                                                                \
    "        float f;\n"                                                                           \
    "        uint32_t u;\n"                                                                        \
    "    } bits;\n"                                                                                \
    "    bits.f = x;\n"                                                                            \
    "    if ((bits.u & 0x7fffffffu) > 0x7f800000u)\n"                                              \
    "        return -2147483647 - 1;\n"                                                            \
    "    return (int32_t)(bits.u & 0x80000000u ? bits.u ^ 0x7fffffffu : bits.u);\n"                \
    "}\n\n"

#define HELPER_COPY                                                                                \
    "static void copy(const int32_t *from, uint32_t n, int32_t *to)\n"                             \
    "{\n"                                                                                          \
    "    while (n--)\n"                                                                            \
    "        *to++ = *from++;\n"                                                                   \
    "}\n\n"

#define HELPER_DOT                                                                                 \
    "/* n_sums exact sums of n products: here alone anything is multiplied. */\n"                  \
    "static void dot_%s(const %s *x, const int8_t *weight, const int32_t *bias, uint32_t n,\n"     \
    "    uint32_t n_sums, int32_t *sum)\n"                                                         \
    "{\n"                                                                                          \
    "    while (n_sums--) {\n"                                                                     \
    "        int32_t s = *bias++;\n"                                                               \
    "        for (uint32_t d = 0; d < n; d++)\n"                                                   \
    "            s += *weight++ * x[d];\n"                                                         \
    "        *sum++ = s;\n"                                                                        \
    "    }\n"                                                                                      \
    "}\n\n"

#define HELPER_SHIFT                                                                               \
    "/* y = sum >> shift, rounded down and clamped to 8 bits. */\n"                                \
    "static void finish_shift(const int32_t *sum, uint32_t n, uint32_t shift, int8_t *y,\n"        \
    "    uint32_t apart)\n"                                                                        \
    "{\n"                                                                                          \
    "    for (; n--; y += apart) {\n"                                                              \
    "        int32_t v = *sum++;\n"                                                                \
    "        v = v < 0 ? ~(~v >> shift) : v >> shift;\n"                                           \
    "        *y = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v);\n"                                \
    "    }\n"                                                                                      \
    "}\n\n"

#define HELPER_LINE                                                                                \
    "/* y = -128 + the largest k of 0..255 with (sum << shift) >= start + k * slope, found bit "   \
    "by\n"                                                                                         \
    "   bit; a negative slope is one of the negative sum. */\n"                                    \
    "static void finish_line(const int32_t *sum, uint32_t n, const int32_t *line, uint32_t "       \
    "shift,\n"                                                                                     \
    "    int8_t *y, uint32_t apart)\n"                                                             \
    "{\n"                                                                                          \
    "    for (; n--; y += apart) {\n"                                                              \
    "        int32_t v = *sum++, at = *line++, slope = *line++, k = -128, bit;\n"                  \
    "        if (slope < 0) {\n"                                                                   \
    "            v = -v;\n"                                                                        \
    "            slope = -slope;\n"                                                                \
    "        }\n"                                                                                  \
    "        v = (int32_t)((uint32_t)v << shift);\n"                                               \
    "        slope = (int32_t)((uint32_t)slope << 7);\n"                                           \
    "        for (bit = 128; bit; bit >>= 1, slope >>= 1) {\n"                                     \
    "            if (v >= at + slope) {\n"                                                         \
    "                at += slope;\n"                                                               \
    "                k += bit;\n"                                                                  \
    "            }\n"                                                                              \
    "        }\n"                                                                                  \
    "        *y = (int8_t)k;\n"                                                                    \
    "    }\n"                                                                                      \
    "}\n\n"

#define HELPER_CLIMB                                                                               \
    "/* -128 + the number of steps 1..255 that x has reached; stairs[0] < 0: of -x. */\n"          \
    "static int8_t climb(int32_t x, const int32_t *stairs)\n"                                      \
    "{\n"                                                                                          \
    "    uint32_t k = 0, bit;\n"                                                                   \
    "    if (stairs[0] < 0)\n"                                                                     \
    "        x = -x;\n"                                                                            \
    "    for (bit = 128; bit; bit >>= 1)\n"                                                        \
    "        if (x >= stairs[k + bit])\n"                                                          \
    "            k += bit;\n"                                                                      \
    "    return (int8_t)((int32_t)k - 128);\n"                                                     \
    "}\n\n"

#define HELPER_STAIRS                                                                              \
    "static void finish_stairs(const int32_t *sum, uint32_t n, const int32_t *stairs, int8_t "     \
    "*y,\n"                                                                                        \
    "    uint32_t apart)\n"                                                                        \
    "{\n"                                                                                          \
    "    for (; n--; y += apart, stairs += 256)\n"                                                 \
    "        *y = climb(*sum++, stairs);\n"                                                        \
    "}\n\n"

#define HELPER_MAP                                                                                 \
    "static void map_values(int8_t *y, uint32_t n, uint32_t apart, const int8_t *map)\n"           \
    "{\n"                                                                                          \
    "    for (; n--; y += apart)\n"                                                                \
    "        *y = map[*y + 128];\n"                                                                \
    "}\n\n"

#define HELPER_CLAMP                                                                               \
    "static void clamp(int8_t *y, uint32_t n, uint32_t apart, int8_t low, int8_t high)\n"          \
    "{\n"                                                                                          \
    "    for (; n--; y += apart)\n"                                                                \
    "        *y = *y < low ? low : *y > high ? high : *y;\n"                                       \
    "}\n\n"

#define HELPER_WINDOW                                                                              \
    "/* A window over planes of height * width; row: from line to line of its taps. */\n"          \
    "struct window {\n"                                                                            \
    "    int32_t channels, height, width, kernel_y, kernel_x, dilation_y, dilation_x, row, "       \
    "plane;\n"                                                                                     \
    "};\n\n"                                                                                       \
    "/* The taps of a window whose first is at (y, x), `at` from the start; pads outside. */\n"    \
    "static void gather(const int8_t *in, int32_t at, int32_t y, int32_t x,\n"                     \
    "    const struct window *w, const int8_t *pad, int8_t *to)\n"                                 \
    "{\n"                                                                                          \
    "    int32_t c, i, j;\n"                                                                       \
    "    for (c = 0; c < w->channels; c++, at += w->plane, pad++) {\n"                             \
    "        int32_t line = at, yy = y;\n"                                                         \
    "        for (i = 0; i < w->kernel_y; i++, yy += w->dilation_y, line += w->row) {\n"           \
    "            int32_t tap = line, xx = x;\n"                                                    \
    "            for (j = 0; j < w->kernel_x; j++, xx += w->dilation_x, tap += w->dilation_x) {\n" \
    "                int inside = yy >= 0 && yy < w->height && xx >= 0 && xx < w->width;\n"        \
    "                *to++ = inside ? in[tap] : *pad;\n"                                           \
    "            }\n"                                                                              \
    "        }\n"                                                                                  \
    "    }\n"                                                                                      \
    "}\n\n"

#define HELPER_PICK                                                                                \
    "/* The taps of a window that lies inside. */\n"                                               \
    "static void pick_%s(const int8_t *in, const %s_t *offset, uint32_t n, int8_t *to)\n"          \
    "{\n"                                                                                          \
    "    while (n--)\n"                                                                            \
    "        *to++ = in[*offset++];\n"                                                             \
    "}\n\n"

#define HELPER_MOST                                                                                \
    "static int8_t most_of(const int8_t *x, uint32_t n)\n"                                         \
    "{\n"                                                                                          \
    "    int8_t most = *x;\n"                                                                      \
    "    for (; n--; x++)\n"                                                                       \
    "        most = *x > most ? *x : most;\n"                                                      \
    "    return most;\n"                                                                           \
    "}\n\n"

#define HELPER_SUM                                                                                 \
    "static int32_t sum_of(const int8_t *x, uint32_t n)\n"                                         \
    "{\n"                                                                                          \
    "    int32_t sum = 0;\n"                                                                       \
    "    while (n--)\n"                                                                            \
    "        sum += *x++;\n"                                                                       \
    "    return sum;\n"                                                                            \
    "}\n\n"

/* Entries of 8 bits: sums of two at a time in 16 bits each, for up to 256 rows. */
#define HELPER_ADD8                                                                                \
    "/* Adds a word of each of n table rows to 4 sums, an entry in each byte. */\n"                \
    "static void add_word_8(const uint32_t *word, const %s_t *row, uint32_t n, uint32_t "          \
    "log_words,\n"                                                                                 \
    "    uint32_t shift, int32_t *sum)\n"                                                          \
    "{\n"                                                                                          \
    "    while (n) {\n"                                                                            \
    "        uint32_t all = 0, odd = 0, left = n < 256 ? n : 256;\n"                               \
    "        n -= left;\n"                                                                         \
    "        while (left--) {\n"                                                                   \
    "            uint32_t w = word[(uint32_t)*row++ << log_words];\n"                              \
    "            all += w;\n"                                                                      \
    "            odd += w >> 8 & 0x00ff00ffu;\n"                                                   \
    "        }\n"                                                                                  \
    "        all -= odd << 8;\n"                                                                   \
    "        sum[0] += (int32_t)((all & 0xffffu) << shift);\n"                                     \
    "        sum[1] += (int32_t)((odd & 0xffffu) << shift);\n"                                     \
    "        sum[2] += (int32_t)(all >> 16 << shift);\n"                                           \
    "        sum[3] += (int32_t)(odd >> 16 << shift);\n"                                           \
    "    }\n"                                                                                      \
    "}\n\n"

#define HELPER_ADD                                                                                 \
    "/* The same of tables of n_words words a row, four of a row side by side as long as there "   \
    "are\n"                                                                                        \
    "   four, then one; n_rows rows. */\n"                                                         \
    "static void add_%u(const uint32_t *table, uint32_t n_rows, uint32_t n_words, const %s_t "     \
    "*row,\n"                                                                                      \
    "    uint32_t n, uint32_t shift, int32_t *sum)\n"                                              \
    "{\n"                                                                                          \
    "    for (; n_words >= 4; n_words -= 4, table += n_rows << 2) {\n"                             \
    "        const uint32_t *end = table + 4, *word = table;\n"                                    \
    "        for (; word < end; word++, sum += %u)\n"                                              \
    "            add_word_%u(word, row, n, 2, shift, sum);\n"                                      \
    "    }\n"                                                                                      \
    "    for (; n_words; n_words--, table += n_rows, sum += %u)\n"                                 \
    "        add_word_%u(table, row, n, 0, shift, sum);\n"                                         \
    "}\n\n"

#endif
