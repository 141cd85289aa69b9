/* vector_avx512.h - the vector vocabulary of the kernel templates (vector_avx2.h lists it) in
 * AVX-512BW, and with ISA_VBMI defined in VBMI and VNNI as well */
#ifndef NIMBUS_RUN_VECTOR_AVX512_H
#define NIMBUS_RUN_VECTOR_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#ifdef ISA_VBMI
#define ISA_TARGET "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni"
#else
#define ISA_TARGET "avx512f,avx512bw,avx512vl"
#endif
#define TARGET __attribute__((target(ISA_TARGET)))
#define HELPER static inline __attribute__((always_inline, target(ISA_TARGET)))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define LANES        64
#define TILE         4
#define ROWS_AT_ONCE 4
#define DECISION_BITS
#define TOP_DECISIONS
#ifdef ISA_VBMI
#define GROUP 4
#define PART_BLOCKS
#define WIDE
#define PACKED_LOOKUP
#define JOINED_WINDOWS
#define BYTE_MAPS
#define ROW_QUADS
#else
#define GROUP 2
#endif
typedef __m512i vec;
typedef __m512 vec_f32;
typedef vec_f32 f32_table;
typedef __mmask64 mask8;
typedef __mmask16 mask32;
typedef uint64_t decision_bits;
#ifdef WIDE
typedef vec wide_table;
#endif

HELPER vec v_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

HELPER void v_store(void *p, vec a)
{
    _mm512_storeu_si512(p, a);
}

/* The 16 bytes at p in every 16 bytes. */
HELPER vec v_load_table(const void *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128(p));
}

/* The 4 bytes at p in every 4 bytes. */
HELPER vec v_load_table32(const void *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

/* The 16 bytes at each of four places, side by side. */
HELPER vec v_load_four_parts(const uint8_t *p0, const uint8_t *p1, const uint8_t *p2,
                             const uint8_t *p3)
{
    vec all = _mm512_castsi128_si512(_mm_loadu_si128((const void *)p0));
    all = _mm512_mask_broadcast_i32x4(all, 0x00f0, _mm_loadu_si128((const void *)p1));
    all = _mm512_mask_broadcast_i32x4(all, 0x0f00, _mm_loadu_si128((const void *)p2));
    return _mm512_mask_broadcast_i32x4(all, 0xf000, _mm_loadu_si128((const void *)p3));
}

/* The 16 bytes at p + at[0], p + at[1], ... */
HELPER vec v_load_parts(const uint8_t *p, const size_t at[LANES / 16])
{
    return v_load_four_parts(p + at[0], p + at[1], p + at[2], p + at[3]);
}

/* Bytes 16i..16i+15 of a. */
HELPER void v_store_part(void *p, vec a, size_t i)
{
    _mm_storeu_si128(p, i == 0   ? _mm512_castsi512_si128(a)
                        : i == 1 ? _mm512_extracti32x4_epi32(a, 1)
                        : i == 2 ? _mm512_extracti32x4_epi32(a, 2)
                                 : _mm512_extracti32x4_epi32(a, 3));
}

/* The lower (i = 0) or upper half of a. */
HELPER void v_store_half(void *p, vec a, size_t i)
{
    _mm256_storeu_si256(p, i ? _mm512_extracti64x4_epi64(a, 1) : _mm512_castsi512_si256(a));
}

HELPER vec v_zero(void)
{
    return _mm512_setzero_si512();
}

HELPER vec v_set8(int value)
{
    return _mm512_set1_epi8((char)value);
}

/* Has a in a register here and now: compilers would rather load it again for every use, or reorder
 * chains of additions until they run out of registers. */
HELPER vec v_now(vec a)
{
    __asm__("" : "+v"(a));
    return a;
}

HELPER vec v_and(vec a, vec b)
{
    return _mm512_and_si512(a, b);
}

HELPER vec v_or(vec a, vec b)
{
    return _mm512_or_si512(a, b);
}

HELPER vec v_xor(vec a, vec b)
{
    return _mm512_xor_si512(a, b);
}

/* ---- bytes -------------------------------------------------------------------------------- */

HELPER vec v_add8(vec a, vec b)
{
    return _mm512_add_epi8(a, b);
}

/* Of i8. */
HELPER vec v_min8(vec a, vec b)
{
    return _mm512_min_epi8(a, b);
}

HELPER vec v_max8(vec a, vec b)
{
    return _mm512_max_epi8(a, b);
}

/* Of i8, with signed saturation. */
HELPER vec v_add_saturated8(vec a, vec b)
{
    return _mm512_adds_epi8(a, b);
}

HELPER vec v_sub8(vec a, vec b)
{
    return _mm512_sub_epi8(a, b);
}

HELPER mask8 v_all8(void)
{
    return ~(mask8)0;
}

HELPER mask8 v_greater8(vec a, vec b)
{
    return _mm512_cmpgt_epi8_mask(a, b);
}

HELPER mask8 v_greater_where8(mask8 where, vec a, vec b)
{
    return _mm512_mask_cmpgt_epi8_mask(where, a, b);
}

/* The mask a where b is not set. */
HELPER mask8 v_without8(mask8 a, mask8 b)
{
    return a & ~b;
}

/* a where the mask is set, else 0. */
HELPER vec v_keep_where8(mask8 mask, vec a)
{
    return _mm512_maskz_mov_epi8(mask, a);
}

/* a + b where the mask is set, else a. */
HELPER vec v_add_where8(mask8 mask, vec a, vec b)
{
    return _mm512_mask_add_epi8(a, mask, a, b);
}

/* a where the mask is set, else b. */
HELPER vec v_select8(mask8 mask, vec a, vec b)
{
    return _mm512_mask_blend_epi8(mask, b, a);
}

/* In the top bit of each byte whether a is greater: comparisons that leave a mask take longer. */
HELPER vec v_greater_top8(vec a, vec b)
{
    return _mm512_subs_epi8(b, a);
}

/* In the top bits: those of a where that of `which` is set, else of b. */
HELPER vec v_select_top8(vec which, vec a, vec b)
{
    return _mm512_ternarylogic_epi64(which, a, b, 0xca);
}

/* The top bits of four vectors as numbers below 16, the first one's worth 8. */
HELPER vec v_join_tops8(const vec tops[4])
{
    vec high = _mm512_ternarylogic_epi64(_mm512_set1_epi8(8), _mm512_srli_epi16(tops[0], 4),
                                         _mm512_srli_epi16(tops[1], 5), 0xca);
    vec low = _mm512_ternarylogic_epi64(_mm512_set1_epi8(2), _mm512_srli_epi16(tops[2], 6),
                                        _mm512_srli_epi16(tops[3], 7), 0xca);
    return _mm512_ternarylogic_epi64(_mm512_set1_epi8(12), high,
                                     _mm512_and_si512(low, _mm512_set1_epi8(3)), 0xea);
}

/* Bit i: whether byte i of a is greater. */
HELPER decision_bits v_greater_bits8(vec a, vec b)
{
    return _mm512_cmpgt_epi8_mask(a, b);
}

/* Not through memory: loads of what several stores have left there wait for them. */
HELPER vec v_from_bits(const decision_bits bits[8])
{
    vec a = _mm512_castsi128_si512(_mm_set_epi64x(0, (long long)bits[0]));
    UNROLL
    for (size_t i = 1; i < 8; i++)
        a = _mm512_mask_set1_epi64(a, (__mmask8)(1 << i), (long long)bits[i]);
    return a;
}

/* table[index] within every 16 bytes; 0 where the top bit of the index is set. */
HELPER vec v_shuffle8(vec table, vec index)
{
    return _mm512_shuffle_epi8(table, index);
}

/* The same; 0 where the index is 16 or more, which gets its top bit set. */
HELPER vec v_shuffle8_or_zero(vec table, vec index)
{
    return _mm512_shuffle_epi8(table, _mm512_adds_epu8(index, v_set8(0x70)));
}

#ifdef ISA_VBMI
HELPER vec v_load_wide_table(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* table[index] of the whole vector, index below 64. */
HELPER vec v_shuffle64(vec table, vec index)
{
    return _mm512_permutexvar_epi8(index, table);
}

/* Byte x + 128 of the four vectors of a map. */
HELPER vec v_map8(const vec map[4], vec x)
{
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x),
                                  _mm512_permutex2var_epi8(map[2], x, map[3]),
                                  _mm512_permutex2var_epi8(map[0], x, map[1]));
}

/* Bytes of low and high where the mask is set, at the places that are there so far. */
HELPER vec v_window(mask8 wanted, vec places, vec low, vec high)
{
    return _mm512_mask2_permutex2var_epi8(low, places, wanted, high);
}
#endif

/* Within every 16 bytes: the low or high halves of a and b alternating. */
HELPER vec v_zip_low8(vec a, vec b)
{
    return _mm512_unpacklo_epi8(a, b);
}

HELPER vec v_zip_high8(vec a, vec b)
{
    return _mm512_unpackhi_epi8(a, b);
}

HELPER vec v_zip_low16(vec a, vec b)
{
    return _mm512_unpacklo_epi16(a, b);
}

HELPER vec v_zip_high16(vec a, vec b)
{
    return _mm512_unpackhi_epi16(a, b);
}

HELPER vec v_zip_low32(vec a, vec b)
{
    return _mm512_unpacklo_epi32(a, b);
}

HELPER vec v_zip_high32(vec a, vec b)
{
    return _mm512_unpackhi_epi32(a, b);
}

HELPER vec v_zip_low64(vec a, vec b)
{
    return _mm512_unpacklo_epi64(a, b);
}

HELPER vec v_zip_high64(vec a, vec b)
{
    return _mm512_unpackhi_epi64(a, b);
}

/* Within every 16 bytes: the lower 8 as i16, sign-extended; the upper 8. */
HELPER vec v_widen_low8(vec a)
{
    return _mm512_srai_epi16(_mm512_unpacklo_epi8(a, a), 8);
}

HELPER vec v_widen_high8(vec a)
{
    return _mm512_srai_epi16(_mm512_unpackhi_epi8(a, a), 8);
}

#ifdef PART_BLOCKS
/* Rows of n columns in the order in which zipping leaves them in their own: those of 32 bits 4l + g
 * change places with 4g + l. */
HELPER void v_order_rows(vec *columns, const size_t n)
{
    const vec order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    UNROLL
    for (size_t i = 0; i < n; i++)
        columns[i] = _mm512_permutexvar_epi32(order, columns[i]);
}
#endif

/* ---- 16 bits ------------------------------------------------------------------------------ */

HELPER vec v_set16(int value)
{
    return _mm512_set1_epi16((short)value);
}

HELPER vec v_add16(vec a, vec b)
{
    return _mm512_add_epi16(a, b);
}

HELPER vec v_sub16(vec a, vec b)
{
    return _mm512_sub_epi16(a, b);
}

/* sums + the upper bytes of a. */
HELPER vec v_add_high_byte16(vec sums, vec a)
{
    return _mm512_add_epi16(sums, _mm512_srli_epi16(a, 8));
}

HELPER vec v_to_high_byte16(vec a)
{
    return _mm512_slli_epi16(a, 8);
}

HELPER vec v_shift_right16(vec a, unsigned n)
{
    return _mm512_sra_epi16(a, _mm_cvtsi32_si128((int)n));
}

/* Each of the 16-bit numbers of a, shifted by its own count of b. */
HELPER vec v_shift_right_each16(vec a, vec b)
{
    return _mm512_srlv_epi16(a, b);
}

/* even[0] odd[0] even[1] odd[1] ...: as two vectors. */
HELPER void v_zip16(vec even, vec odd, vec out[2])
{
    const vec low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const vec high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    vec a = _mm512_unpacklo_epi16(even, odd), b = _mm512_unpackhi_epi16(even, odd);
    out[0] = _mm512_permutex2var_epi64(a, low, b);
    out[1] = _mm512_permutex2var_epi64(a, high, b);
}

/* The bytes of even numbers, then those of odd ones. */
HELPER vec v_unzip8(vec a)
{
#ifdef ISA_VBMI
    const vec order = _mm512_setr_epi64(0x0e0c0a0806040200, 0x1e1c1a1816141210, 0x2e2c2a2826242220,
                                        0x3e3c3a3836343230, 0x0f0d0b0907050301, 0x1f1d1b1917151311,
                                        0x2f2d2b2927252321, 0x3f3d3b3937353331);
    return _mm512_permutexvar_epi8(order, a);
#else
    const vec unzip =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7),
                                    _mm512_shuffle_epi8(a, unzip));
#endif
}

/* a then b with signed saturation. */
HELPER vec v_pack16(vec a, vec b)
{
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7),
                                    _mm512_packs_epi16(a, b));
}

/* even[0] odd[0] even[1] odd[1] ... with signed saturation. */
HELPER vec v_pack16_zipped(vec even, vec odd)
{
    const vec zip =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    return _mm512_shuffle_epi8(_mm512_packs_epi16(even, odd), zip);
}

/* LANES / 2 bytes as u16. */
HELPER vec v_load_wide_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)p));
}

/* ---- 32 bits ------------------------------------------------------------------------------ */

HELPER vec v_set32(int32_t value)
{
    return _mm512_set1_epi32(value);
}

HELPER vec v_add32(vec a, vec b)
{
    return _mm512_add_epi32(a, b);
}

HELPER vec v_shift_right32(vec a, unsigned n)
{
    return _mm512_sra_epi32(a, _mm_cvtsi32_si128((int)n));
}

#ifdef ISA_VBMI
/* sums + the four products of u8 of a and i8 of b in each 32 bits. Written out, since gcc copies
 * sums back and forth around the intrinsic. */
HELPER vec v_dot8(vec sums, vec a, vec b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
    return sums;
}

HELPER vec v_dot(vec sums, vec a, vec b)
{
    return v_dot8(sums, a, b);
}

/* Where the table rows of 16 codebooks begin whose tables are `book` bytes apart. */
HELPER vec v_row_offsets(const uint8_t *codes, uint32_t book, uint32_t stride)
{
    const vec count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    vec code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)codes));
    return _mm512_add_epi32(_mm512_mullo_epi32(code, _mm512_set1_epi32((int32_t)stride)),
                            _mm512_mullo_epi32(count, _mm512_set1_epi32((int32_t)book)));
}

/* Four rows of 16 B bytes, the four of each column side by side; out[b] has columns 16b on. */
HELPER void v_load_quad(const uint8_t *const rows[4], const size_t B, vec out[2])
{
    const vec column =
        _mm512_cvtepu8_epi32(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const vec starts = _mm512_set1_epi32(B == 1 ? 0x30201000 : 0x60402000);
    const vec places = _mm512_add_epi8(
        _mm512_shuffle_epi8(column, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8,
                                                                         8, 8, 8, 12, 12, 12, 12))),
        starts);
    if (B == 1) {
        out[0] =
            _mm512_permutexvar_epi8(places, v_load_four_parts(rows[0], rows[1], rows[2], rows[3]));
    } else {
        vec low = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)rows[0]));
        vec high = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)rows[2]));
        low = _mm512_mask_broadcast_i64x4(low, 0xf0, _mm256_loadu_si256((const void *)rows[1]));
        high = _mm512_mask_broadcast_i64x4(high, 0xf0, _mm256_loadu_si256((const void *)rows[3]));
        out[0] = _mm512_permutex2var_epi8(low, places, high);
        out[1] = _mm512_permutex2var_epi8(low, _mm512_add_epi8(places, _mm512_set1_epi8(16)), high);
    }
}

/* The lower bytes of a with signed saturation. */
HELPER void v_store_narrow32(void *p, vec a)
{
    _mm_storeu_si128(p, _mm512_cvtsepi32_epi8(a));
}
#else
/* sums + a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of i16. */
HELPER vec v_dot(vec sums, vec a, vec b)
{
    return _mm512_add_epi32(sums, _mm512_madd_epi16(a, b));
}
#endif

/* The u16 of a, widened, as two vectors. */
HELPER void v_widen_u16(vec a, vec out[2])
{
    out[0] = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(a));
    out[1] = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(a, 1));
}

/* Within every 16 bytes: a, then b, with signed saturation. */
HELPER vec v_pack32_halves(vec a, vec b)
{
    return _mm512_packs_epi32(a, b);
}

HELPER vec v_pack16_halves(vec a, vec b)
{
    return _mm512_packs_epi16(a, b);
}

/* Four vectors of i32 as one of i8 with signed saturation. */
HELPER vec v_pack32(const vec a[4])
{
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
        _mm512_packs_epi16(_mm512_packs_epi32(a[0], a[1]), _mm512_packs_epi32(a[2], a[3])));
}

/* ---- floats ------------------------------------------------------------------------------- */

HELPER vec_f32 v_load_f32(const float *p)
{
    return _mm512_loadu_ps(p);
}

HELPER vec_f32 v_load_table_f32(const void *p)
{
    return _mm512_castsi512_ps(v_load_table32(p));
}

HELPER vec_f32 v_set_f32(float value)
{
    return _mm512_set1_ps(value);
}

HELPER vec_f32 v_from_i32(vec a)
{
    return _mm512_cvtepi32_ps(a);
}

/* Rounded here: compilers may not fuse it with an addition. */
HELPER vec_f32 v_multiply_f32(vec_f32 a, vec_f32 b)
{
    vec_f32 product = _mm512_mul_ps(a, b);
    __asm__("" : "+v"(product));
    return product;
}

HELPER vec_f32 v_add_f32(vec_f32 a, vec_f32 b)
{
    return _mm512_add_ps(a, b);
}

HELPER mask32 v_all32(void)
{
    return 0xffff;
}

/* False for NaN. */
HELPER mask32 v_greater_where_f32(mask32 where, vec_f32 a, vec_f32 b)
{
    return _mm512_mask_cmp_ps_mask(where, a, b, _CMP_GT_OQ);
}

HELPER mask32 v_without32(mask32 a, mask32 b)
{
    return (mask32)(a & ~b);
}

HELPER vec v_add_where32(mask32 mask, vec a, vec b)
{
    return _mm512_mask_add_epi32(a, mask, a, b);
}

/* The elements of x at LANES / 4 columns. */
HELPER vec_f32 v_gather_f32(const float *x, const uint32_t *columns)
{
    return _mm512_i32gather_ps(_mm512_loadu_si512(columns), x, sizeof *x);
}

/* a where the mask is set, else b. */
HELPER vec_f32 v_select_f32(mask32 mask, vec_f32 a, vec_f32 b)
{
    return _mm512_mask_blend_ps(mask, b, a);
}

/* The 8 elements at p as a table. */
HELPER f32_table v_load_f32_table(const float *p)
{
    return _mm512_castps256_ps512(_mm256_loadu_ps(p));
}

/* table[index]. */
HELPER vec_f32 v_pick_f32(f32_table table, vec index)
{
    return _mm512_permutexvar_ps(index, table);
}

/* To the nearest integer, ties to even, of what is no NaN; so far beyond -128..127 anything beyond
 * it on the same side. What is too small for 32 bits gives the least number of all. */
HELPER vec v_round(vec_f32 a)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(a, _mm512_set1_ps(127.0f)));
}

/* To the nearest integer of -128..127, ties to even; NaN gives 0. */
HELPER vec v_round_to_i8_range(vec_f32 a)
{
    a = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a);
    a = _mm512_min_ps(_mm512_max_ps(a, _mm512_set1_ps(-128.0f)), _mm512_set1_ps(127.0f));
    return _mm512_cvtps_epi32(a);
}

#endif
