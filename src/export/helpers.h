/* helpers.h - the functions that steps of the exported C share, as text; each is written where it
 * is used first. They go by a name; nothing is multiplied but in those
 * named dot. */
#ifndef NIMBUS_EXPORT_HELPERS_H
#define NIMBUS_EXPORT_HELPERS_H

#define HELPER_APART                                                                               \
    "/* A loop that is to have all registers for itself. */\n"                                     \
    "#if defined(__GNUC__)\n"                                                                      \
    "#define APART __attribute__((noinline))\n"                                                    \
    "#else\n"                                                                                      \
    "#define APART\n"                                                                              \
    "#endif\n\n"

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
    "/* n_sums exact sums of n products. */\n"                                                     \
    "APART static void dot_%s(const %s *x, const int8_t *weight, const int32_t *bias, uint32_t "   \
    "n,\n"                                                                                         \
    "    uint32_t n_sums, int32_t *sum)\n"                                                         \
    "{\n"                                                                                          \
    "    while (n_sums--) {\n"                                                                     \
    "        int32_t s = *bias++;\n"                                                               \
    "        for (uint32_t d = 0; d < n; d++)\n"                                                   \
    "            s += *weight++ * (x[d]%s);\n"                                                     \
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
    "#define TRY(bit) if (v >= at + slope) { at += slope; k += bit; } slope >>= 1\n"               \
    "static void finish_line(const int32_t *sum, uint32_t n, const int32_t *line, uint32_t "       \
    "next,\n"                                                                                      \
    "    uint32_t shift, int8_t *y, uint32_t apart)\n"                                             \
    "{\n"                                                                                          \
    "    for (; n--; y += apart, line += next) {\n"                                                \
    "        int32_t v = *sum++, at = line[0], slope = line[1], k = -128;\n"                       \
    "        if (slope < 0) {\n"                                                                   \
    "            v = -v;\n"                                                                        \
    "            slope = -slope;\n"                                                                \
    "        }\n"                                                                                  \
    "        v = (int32_t)((uint32_t)v << shift);\n"                                               \
    "        slope = (int32_t)((uint32_t)slope << 7);\n"                                           \
    "        TRY(128); TRY(64); TRY(32); TRY(16); TRY(8); TRY(4); TRY(2); TRY(1);\n"               \
    "        *y = (int8_t)k;\n"                                                                    \
    "    }\n"                                                                                      \
    "}\n"                                                                                          \
    "#undef TRY\n\n"

#define HELPER_LIMIT                                                                               \
    "/* Sums beyond a line's reach to its end. */\n"                                               \
    "static void limit(int32_t *sum, uint32_t n, int32_t most)\n"                                  \
    "{\n"                                                                                          \
    "    for (; n--; sum++)\n"                                                                     \
    "        *sum = *sum > most ? most : *sum < -most ? -most : *sum;\n"                           \
    "}\n\n"

#define HELPER_CORRECT                                                                             \
    "/* The few sums that a line gets wrong: number of the output, its place, sum, output. */\n"   \
    "static void correct(const int32_t *sum, const int32_t *fault, uint32_t n, int8_t *y)\n"       \
    "{\n"                                                                                          \
    "    for (; n--; fault += 4)\n"                                                                \
    "        if (sum[fault[0]] == fault[2])\n"                                                     \
    "            y[fault[1]] = (int8_t)fault[3];\n"                                                \
    "}\n\n"

#define HELPER_CORRECT_LINE                                                                        \
    "/* The same along a line of output m; returns where the next output's begin. */\n"            \
    "static const int32_t *correct_line(const int32_t *fault, int32_t m, const int32_t *sum, "     \
    "uint32_t n,\n"                                                                                \
    "    int8_t *y)\n"                                                                             \
    "{\n"                                                                                          \
    "    for (; *fault == m; fault += 4)\n"                                                        \
    "        for (uint32_t i = 0; i < n; i++)\n"                                                   \
    "            if (sum[i] == fault[2])\n"                                                        \
    "                y[i] = (int8_t)fault[3];\n"                                                   \
    "    return fault;\n"                                                                          \
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
    "static void finish_stairs(const int32_t *sum, uint32_t n, const int32_t *stairs, uint32_t "   \
    "next,\n"                                                                                      \
    "    int8_t *y, uint32_t apart)\n"                                                             \
    "{\n"                                                                                          \
    "    for (; n--; y += apart, stairs += next)\n"                                                \
    "        *y = climb(*sum++, stairs);\n"                                                        \
    "}\n\n"

#define HELPER_MAP                                                                                 \
    "static void map_values(int8_t *y, uint32_t n, uint32_t apart, const int8_t *map)\n"           \
    "{\n"                                                                                          \
    "    for (; n--; y += apart)\n"                                                                \
    "        *y = map[*y + 128];\n"                                                                \
    "}\n\n"

#define HELPER_MAP_PLANE                                                                           \
    "static void map_plane(const int8_t *x, uint32_t n, const int8_t *map, int8_t *y)\n"           \
    "{\n"                                                                                          \
    "    while (n--)\n"                                                                            \
    "        *y++ = map[*x++ + 128];\n"                                                            \
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

#define HELPER_FRAME                                                                               \
    "/* Pads above, rows of a plane with pads between them, pads below. */\n"                      \
    "struct frame {\n"                                                                             \
    "    uint32_t above, rows, columns, skip, between, below;\n"                                   \
    "};\n\n"                                                                                       \
    "static int8_t *fill(int8_t *to, uint32_t n, int8_t value)\n"                                  \
    "{\n"                                                                                          \
    "    while (n--)\n"                                                                            \
    "        *to++ = value;\n"                                                                     \
    "    return to;\n"                                                                             \
    "}\n\n"                                                                                        \
    "static void frame(const int8_t *plane, const struct frame *f, int8_t pad, int8_t *to)\n"      \
    "{\n"                                                                                          \
    "    to = fill(to, f->above, pad);\n"                                                          \
    "    for (uint32_t i = f->rows; i--; plane += f->skip) {\n"                                    \
    "        for (uint32_t j = f->columns; j--;)\n"                                                \
    "            *to++ = *plane++;\n"                                                              \
    "        to = fill(to, f->between, pad);\n"                                                    \
    "    }\n"                                                                                      \
    "    (void)fill(to, f->below, pad);\n"                                                         \
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

/* Two of the four bytes of a word, as Armv7E-M adds them in one instruction. */
#define HELPER_ODD                                                                                 \
    "/* Adds bytes 1 and 3 of a word to the halves of a lot. */\n"                                 \
    "static uint32_t add_odd(uint32_t lot, uint32_t word)\n"                                       \
    "{\n"                                                                                          \
    "#if defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__) && !defined(%s_PORTABLE)\n"            \
    "    __asm__(\"uxtab16 %%0, %%0, %%1, ror #8\" : \"+r\"(lot) : \"r\"(word));\n"                \
    "    return lot;\n"                                                                            \
    "#else\n"                                                                                      \
    "    return lot + (word >> 8 & 0x00ff00ffu);\n"                                                \
    "#endif\n"                                                                                     \
    "}\n\n"

/* Where registers hold 16 bytes: a row's four words at once. STRIPS says that it is there. */
#define HELPER_STRIP                                                                               \
    "/* Adds 16 entries of each of n table rows to 16 sums; -D%s_PORTABLE leaves it to plain C. "  \
    "*/\n"                                                                                         \
    "#if !defined(%s_PORTABLE) && (defined(__SSE2__) || (defined(__ARM_NEON) && "                  \
    "!defined(__ARM_BIG_ENDIAN)) || \\\n"                                                          \
    "    (defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)))\n"                            \
    "#define STRIPS\n"                                                                             \
    "#if defined(__AVX2__)\n#include <immintrin.h>\n"                                              \
    "#elif defined(__SSE2__)\n#include <emmintrin.h>\n"                                            \
    "#elif defined(__ARM_NEON)\n#include <arm_neon.h>\n"                                           \
    "#else\n#include <arm_mve.h>\n#endif\n\n"                                                      \
    "static void add_strip(const uint32_t *table, const %s *row, uint32_t n, uint32_t shift,\n"    \
    "    const int32_t *from, int32_t *sum)\n"                                                     \
    "{\n"                                                                                          \
    "    uint16_t lanes[16];\n"                                                                    \
    "    uint32_t i;\n"                                                                            \
    "#if defined(__AVX2__)\n"                                                                      \
    "    __m256i all = _mm256_setzero_si256();\n"                                                  \
    "#elif defined(__SSE2__)\n"                                                                    \
    "    const __m128i zero = _mm_setzero_si128();\n"                                              \
    "    __m128i low = zero, high = zero;\n"                                                       \
    "#else\n"                                                                                      \
    "    uint16x8_t low = vdupq_n_u16(0), high = low;\n"                                           \
    "#endif\n"                                                                                     \
    "    while (n--) {\n"                                                                          \
    "        const void *at = table + ((uint32_t)*row++ << 2);\n"                                  \
    "#if defined(__AVX2__)\n"                                                                      \
    "        const __m128i w = _mm_loadu_si128((const __m128i *)at);\n"                            \
    "        all = _mm256_add_epi16(all, _mm256_cvtepu8_epi16(w));\n"                              \
    "#elif defined(__SSE2__)\n"                                                                    \
    "        const __m128i w = _mm_loadu_si128((const __m128i *)at);\n"                            \
    "        low = _mm_add_epi16(low, _mm_unpacklo_epi8(w, zero));\n"                              \
    "        high = _mm_add_epi16(high, _mm_unpackhi_epi8(w, zero));\n"                            \
    "#elif defined(__ARM_NEON)\n"                                                                  \
    "        const uint8x16_t w = vld1q_u8((const uint8_t *)at);\n"                                \
    "        low = vaddw_u8(low, vget_low_u8(w));\n"                                               \
    "        high = vaddw_u8(high, vget_high_u8(w));\n"                                            \
    "#else\n"                                                                                      \
    "        low = vaddq_u16(low, vldrbq_u16((const uint8_t *)at));\n"                             \
    "        high = vaddq_u16(high, vldrbq_u16((const uint8_t *)at + 8));\n"                       \
    "#endif\n"                                                                                     \
    "    }\n"                                                                                      \
    "#if defined(__AVX2__)\n"                                                                      \
    "    _mm256_storeu_si256((__m256i *)(void *)lanes, all);\n"                                    \
    "#elif defined(__SSE2__)\n"                                                                    \
    "    _mm_storeu_si128((__m128i *)(void *)lanes, low);\n"                                       \
    "    _mm_storeu_si128((__m128i *)(void *)(lanes + 8), high);\n"                                \
    "#else\n"                                                                                      \
    "    vst1q_u16(lanes, low);\n"                                                                 \
    "    vst1q_u16(lanes + 8, high);\n"                                                            \
    "#endif\n"                                                                                     \
    "    for (i = 0; i < 16; i++)\n"                                                               \
    "        sum[i] = (int32_t)((uint32_t)from[i] + ((uint32_t)lanes[i] << shift));\n"             \
    "}\n"                                                                                          \
    "#else\n\n"

#endif
