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

/* Where registers hold 16 bytes: a row's four words at once. STRIPS says that it is there. */
#define HELPER_STRIP                                                                               \
    "/* Adds 16 entries of each of n table rows to 16 sums; -D%s_PORTABLE leaves this to plain "   \
    "C. "                                                                                          \
    "*/\n"                                                                                         \
    "#if !defined(%s_PORTABLE) && (defined(__SSE2__) || (defined(__ARM_NEON) && "                  \
    "!defined(__ARM_BIG_ENDIAN)) || \\\n"                                                          \
    "    (defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)))\n"                            \
    "#define STRIPS\n"                                                                             \
    "#if defined(__AVX2__)\n#include <immintrin.h>\n"                                              \
    "#elif defined(__SSE2__)\n#include <emmintrin.h>\n"                                            \
    "#elif defined(__ARM_NEON)\n#include <arm_neon.h>\n"                                           \
    "#else\n#include <arm_mve.h>\n#endif\n\n"                                                      \
    "static void add_strip(const uint32_t *table, const %s_t *row, uint32_t n, uint32_t shift,\n"  \
    "    int32_t *sum)\n"                                                                          \
    "{\n"                                                                                          \
    "    while (n) {\n"                                                                            \
    "        uint16_t lanes[16];\n"                                                                \
    "        uint32_t i, left = n < 256 ? n : 256;\n"                                              \
    "#if defined(__AVX2__)\n"                                                                      \
    "        __m256i all = _mm256_setzero_si256();\n"                                              \
    "#elif defined(__SSE2__)\n"                                                                    \
    "        const __m128i zero = _mm_setzero_si128();\n"                                          \
    "        __m128i low = zero, high = zero;\n"                                                   \
    "#else\n"                                                                                      \
    "        uint16x8_t low = vdupq_n_u16(0), high = low;\n"                                       \
    "#endif\n"                                                                                     \
    "        n -= left;\n"                                                                         \
    "        while (left--) {\n"                                                                   \
    "            const void *at = table + ((uint32_t)*row++ << 2);\n"                              \
    "#if defined(__AVX2__)\n"                                                                      \
    "            const __m128i w = _mm_loadu_si128((const __m128i *)at);\n"                        \
    "            all = _mm256_add_epi16(all, _mm256_cvtepu8_epi16(w));\n"                          \
    "#elif defined(__SSE2__)\n"                                                                    \
    "            const __m128i w = _mm_loadu_si128((const __m128i *)at);\n"                        \
    "            low = _mm_add_epi16(low, _mm_unpacklo_epi8(w, zero));\n"                          \
    "            high = _mm_add_epi16(high, _mm_unpackhi_epi8(w, zero));\n"                        \
    "#elif defined(__ARM_NEON)\n"                                                                  \
    "            const uint8x16_t w = vld1q_u8((const uint8_t *)at);\n"                            \
    "            low = vaddw_u8(low, vget_low_u8(w));\n"                                           \
    "            high = vaddw_u8(high, vget_high_u8(w));\n"                                        \
    "#else\n"                                                                                      \
    "            low = vaddq_u16(low, vldrbq_u16((const uint8_t *)at));\n"                         \
    "            high = vaddq_u16(high, vldrbq_u16((const uint8_t *)at + 8));\n"                   \
    "#endif\n"                                                                                     \
    "        }\n"                                                                                  \
    "#if defined(__AVX2__)\n"                                                                      \
    "        _mm256_storeu_si256((__m256i *)(void *)lanes, all);\n"                                \
    "#elif defined(__SSE2__)\n"                                                                    \
    "        _mm_storeu_si128((__m128i *)(void *)lanes, low);\n"                                   \
    "        _mm_storeu_si128((__m128i *)(void *)(lanes + 8), high);\n"                            \
    "#else\n"                                                                                      \
    "        vst1q_u16(lanes, low);\n"                                                             \
    "        vst1q_u16(lanes + 8, high);\n"                                                        \
    "#endif\n"                                                                                     \
    "        for (i = 0; i < 16; i++)\n"                                                           \
    "            sum[i] += (int32_t)((uint32_t)lanes[i] << shift);\n"                              \
    "    }\n"                                                                                      \
    "}\n"                                                                                          \
    "#endif\n\n"

#define HELPER_ADD                                                                                 \
    "/* The same of tables of n_words words a row, four of a row side by side as long as there "   \
    "are\n"                                                                                        \
    "   four, then one; n_rows rows. */\n"                                                         \
    "static void add_%u(const uint32_t *table, uint32_t n_rows, uint32_t n_words, const %s_t "     \
    "*row,\n"                                                                                      \
    "    uint32_t n, uint32_t shift, int32_t *sum)\n"                                              \
    "{\n"                                                                                          \
    "    for (; n_words >= 4; n_words -= 4, table += n_rows << 2) {\n"                             \
    "%s"                                                                                           \
    "        const uint32_t *end = table + 4, *word = table;\n"                                    \
    "        for (; word < end; word++, sum += %u)\n"                                              \
    "            add_word_%u(word, row, n, 2, shift, sum);\n"                                      \
    "%s"                                                                                           \
    "    }\n"                                                                                      \
    "    for (; n_words; n_words--, table += n_rows, sum += %u)\n"                                 \
    "        add_word_%u(table, row, n, 0, shift, sum);\n"                                         \
    "}\n\n"

#endif
