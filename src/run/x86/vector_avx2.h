/* vector_avx2.h - the vector vocabulary of the kernel templates (run/vector) in AVX2
 *
 * An instruction set is one such header plus a file that includes it and the templates. The
 * templates need:
 *     vec, vec_f32, LANES (bytes in a vec), TARGET (attribute of functions that use them), UNROLL
 *     (before a loop that must be unrolled whole), and the functions below.
 * Element order is always that of memory, however the instructions deal with halves of vectors. */
#ifndef NIMBUS_RUN_VECTOR_AVX2_H
#define NIMBUS_RUN_VECTOR_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define TARGET __attribute__((target("avx2")))
#define HELPER static inline __attribute__((always_inline, target("avx2")))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define LANES        32
#define TILE         2
#define GROUP        2
#define ROWS_AT_ONCE 2
#define DECISION_BITS
typedef __m256i vec;
typedef __m256 vec_f32;
typedef vec_f32 f32_table;
typedef __m256i mask8;  /* bytes of -1 or 0 */
typedef __m256i mask32; /* 32 bits of -1 or 0 */
typedef uint32_t decision_bits;

HELPER vec v_load(const void *p)
{
    return _mm256_loadu_si256(p);
}

HELPER void v_store(void *p, vec a)
{
    _mm256_storeu_si256(p, a);
}

/* The 16 bytes at p in every 16 bytes. */
HELPER vec v_load_table(const void *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(p));
}

/* The 4 bytes at p in every 4 bytes. */
HELPER vec v_load_table32(const void *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

/* The 16 bytes at p + at[0], p + at[1], ... */
HELPER vec v_load_parts(const uint8_t *p, const size_t at[LANES / 16])
{
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const void *)(p + at[0]))),
        _mm_loadu_si128((const void *)(p + at[1])), 1);
}

/* Bytes 16i..16i+15 of a. */
HELPER void v_store_part(void *p, vec a, size_t i)
{
    _mm_storeu_si128(p, i ? _mm256_extracti128_si256(a, 1) : _mm256_castsi256_si128(a));
}

/* The lower (i = 0) or upper half of a. */
HELPER void v_store_half(void *p, vec a, size_t i)
{
    _mm_storeu_si128(p, i ? _mm256_extracti128_si256(a, 1) : _mm256_castsi256_si128(a));
}

HELPER vec v_zero(void)
{
    return _mm256_setzero_si256();
}

HELPER vec v_set8(int value)
{
    return _mm256_set1_epi8((char)value);
}

/* Computes a here and now. Gcc reorders chains of additions until it runs out of registers; clang
 * does not, and is better left alone. */
HELPER vec v_now(vec a)
{
#ifndef __clang__
    __asm__("" : "+x"(a));
#endif
    return a;
}

HELPER vec v_and(vec a, vec b)
{
    return _mm256_and_si256(a, b);
}

HELPER vec v_or(vec a, vec b)
{
    return _mm256_or_si256(a, b);
}

HELPER vec v_xor(vec a, vec b)
{
    return _mm256_xor_si256(a, b);
}

/* ---- bytes -------------------------------------------------------------------------------- */

HELPER vec v_add8(vec a, vec b)
{
    return _mm256_add_epi8(a, b);
}

/* Of i8. */
HELPER vec v_min8(vec a, vec b)
{
    return _mm256_min_epi8(a, b);
}

HELPER vec v_max8(vec a, vec b)
{
    return _mm256_max_epi8(a, b);
}

/* Of i8, with signed saturation. */
HELPER vec v_add_saturated8(vec a, vec b)
{
    return _mm256_adds_epi8(a, b);
}

HELPER vec v_sub8(vec a, vec b)
{
    return _mm256_sub_epi8(a, b);
}

HELPER mask8 v_all8(void)
{
    return _mm256_set1_epi8(-1);
}

HELPER mask8 v_greater8(vec a, vec b)
{
    return _mm256_cmpgt_epi8(a, b);
}

HELPER mask8 v_greater_where8(mask8 where, vec a, vec b)
{
    return _mm256_and_si256(where, _mm256_cmpgt_epi8(a, b));
}

/* The mask a where b is not set. */
HELPER mask8 v_without8(mask8 a, mask8 b)
{
    return _mm256_andnot_si256(b, a);
}

/* a where the mask is set, else 0. */
HELPER vec v_keep_where8(mask8 mask, vec a)
{
    return _mm256_and_si256(mask, a);
}

/* a + b where the mask is set, else a. */
HELPER vec v_add_where8(mask8 mask, vec a, vec b)
{
    return _mm256_add_epi8(a, _mm256_and_si256(mask, b));
}

/* a where the mask is set, else b. */
HELPER vec v_select8(mask8 mask, vec a, vec b)
{
    return _mm256_blendv_epi8(b, a, mask);
}

/* Bit i: whether byte i of a is greater. */
HELPER decision_bits v_greater_bits8(vec a, vec b)
{
    return (decision_bits)_mm256_movemask_epi8(_mm256_cmpgt_epi8(a, b));
}

/* Not through memory: loads of what several stores have left there wait for them. */
HELPER vec v_from_bits(const decision_bits bits[8])
{
    return _mm256_setr_epi32((int)bits[0], (int)bits[1], (int)bits[2], (int)bits[3], (int)bits[4],
                             (int)bits[5], (int)bits[6], (int)bits[7]);
}

/* table[index] within every 16 bytes; 0 where the top bit of the index is set. */
HELPER vec v_shuffle8(vec table, vec index)
{
    return _mm256_shuffle_epi8(table, index);
}

/* The same; 0 where the index is 16 or more, which gets its top bit set. */
HELPER vec v_shuffle8_or_zero(vec table, vec index)
{
    return _mm256_shuffle_epi8(table, _mm256_adds_epu8(index, v_set8(0x70)));
}

/* Within every 16 bytes: the low or high halves of a and b alternating. */
HELPER vec v_zip_low8(vec a, vec b)
{
    return _mm256_unpacklo_epi8(a, b);
}

HELPER vec v_zip_high8(vec a, vec b)
{
    return _mm256_unpackhi_epi8(a, b);
}

HELPER vec v_zip_low32(vec a, vec b)
{
    return _mm256_unpacklo_epi32(a, b);
}

HELPER vec v_zip_high32(vec a, vec b)
{
    return _mm256_unpackhi_epi32(a, b);
}

HELPER vec v_zip_low64(vec a, vec b)
{
    return _mm256_unpacklo_epi64(a, b);
}

HELPER vec v_zip_high64(vec a, vec b)
{
    return _mm256_unpackhi_epi64(a, b);
}

/* Within every 16 bytes: the lower 8 as i16, sign-extended; the upper 8. */
HELPER vec v_widen_low8(vec a)
{
    return _mm256_srai_epi16(_mm256_unpacklo_epi8(a, a), 8);
}

HELPER vec v_widen_high8(vec a)
{
    return _mm256_srai_epi16(_mm256_unpackhi_epi8(a, a), 8);
}

/* ---- 16 bits ------------------------------------------------------------------------------ */

HELPER vec v_set16(int value)
{
    return _mm256_set1_epi16((short)value);
}

HELPER vec v_add16(vec a, vec b)
{
    return _mm256_add_epi16(a, b);
}

HELPER vec v_sub16(vec a, vec b)
{
    return _mm256_sub_epi16(a, b);
}

/* Where the table rows of 8 codebooks begin whose tables are `book` bytes apart. */
#define ROW_OFFSETS
HELPER vec v_row_offsets(const uint8_t *codes, uint32_t book, uint32_t stride)
{
    const vec count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    vec code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)codes));
    return _mm256_add_epi32(_mm256_mullo_epi32(code, _mm256_set1_epi32((int32_t)stride)),
                            _mm256_mullo_epi32(count, _mm256_set1_epi32((int32_t)book)));
}

/* sums + the upper bytes of a. Left to itself gcc puts the result where the shifted bytes were, and
 * then copies it back to the register that the loop keeps the sums in. */
HELPER vec v_add_high_byte16(vec sums, vec a)
{
    vec high = _mm256_srli_epi16(a, 8);
    sums = _mm256_add_epi16(sums, high);
#ifndef __clang__
    __asm__("" : "+x"(sums) : "x"(high));
#endif
    return sums;
}

HELPER vec v_to_high_byte16(vec a)
{
    return _mm256_slli_epi16(a, 8);
}

HELPER vec v_shift_right16(vec a, unsigned n)
{
    return _mm256_sra_epi16(a, _mm_cvtsi32_si128((int)n));
}

/* Each of the 16-bit numbers of a, shifted by its own count of b below 16. */
HELPER vec v_shift_right_each16(vec a, vec b)
{
    const vec low = _mm256_set1_epi32(0xffff);
    vec even = _mm256_srlv_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    vec odd = _mm256_srlv_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    return _mm256_or_si256(even, _mm256_slli_epi32(odd, 16));
}

/* even[0] odd[0] even[1] odd[1] ...: as two vectors. */
HELPER void v_zip16(vec even, vec odd, vec out[2])
{
    vec low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
    out[0] = _mm256_permute2x128_si256(low, high, 0x20);
    out[1] = _mm256_permute2x128_si256(low, high, 0x31);
}

/* The bytes of even numbers, then those of odd ones. */
HELPER vec v_unzip8(vec a)
{
    const vec unzip = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, unzip), 0xd8);
}

/* a then b with signed saturation. */
HELPER vec v_pack16(vec a, vec b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
}

/* even[0] odd[0] even[1] odd[1] ... with signed saturation. */
HELPER vec v_pack16_zipped(vec even, vec odd)
{
    const vec zip = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    return _mm256_shuffle_epi8(_mm256_packs_epi16(even, odd), zip);
}

/* LANES / 2 bytes as u16. */
HELPER vec v_load_wide_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p));
}

/* ---- 32 bits ------------------------------------------------------------------------------ */

HELPER vec v_set32(int32_t value)
{
    return _mm256_set1_epi32(value);
}

HELPER vec v_add32(vec a, vec b)
{
    return _mm256_add_epi32(a, b);
}

HELPER vec v_shift_right32(vec a, unsigned n)
{
    return _mm256_sra_epi32(a, _mm_cvtsi32_si128((int)n));
}

/* sums + a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of i16. */
HELPER vec v_dot(vec sums, vec a, vec b)
{
    return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
}

/* The u16 of a, widened, as two vectors. */
HELPER void v_widen_u16(vec a, vec out[2])
{
    out[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
    out[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1));
}

/* Within every 16 bytes: a, then b, with signed saturation. */
HELPER vec v_pack32_halves(vec a, vec b)
{
    return _mm256_packs_epi32(a, b);
}

HELPER vec v_pack16_halves(vec a, vec b)
{
    return _mm256_packs_epi16(a, b);
}

/* Four vectors of i32 as one of i8 with signed saturation. */
HELPER vec v_pack32(const vec a[4])
{
    vec low = _mm256_packs_epi32(a[0], a[1]), high = _mm256_packs_epi32(a[2], a[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* ---- floats ------------------------------------------------------------------------------- */

HELPER vec_f32 v_load_f32(const float *p)
{
    return _mm256_loadu_ps(p);
}

HELPER vec_f32 v_load_table_f32(const void *p)
{
    return _mm256_castsi256_ps(v_load_table32(p));
}

HELPER vec_f32 v_set_f32(float value)
{
    return _mm256_set1_ps(value);
}

HELPER vec_f32 v_from_i32(vec a)
{
    return _mm256_cvtepi32_ps(a);
}

/* Rounded here: compilers may not fuse it with an addition. */
HELPER vec_f32 v_multiply_f32(vec_f32 a, vec_f32 b)
{
    vec_f32 product = _mm256_mul_ps(a, b);
    __asm__("" : "+x"(product));
    return product;
}

HELPER vec_f32 v_add_f32(vec_f32 a, vec_f32 b)
{
    return _mm256_add_ps(a, b);
}

HELPER mask32 v_all32(void)
{
    return _mm256_set1_epi32(-1);
}

/* False for NaN. */
HELPER mask32 v_greater_where_f32(mask32 where, vec_f32 a, vec_f32 b)
{
    return _mm256_and_si256(where, _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}

HELPER mask32 v_without32(mask32 a, mask32 b)
{
    return _mm256_andnot_si256(b, a);
}

HELPER vec v_add_where32(mask32 mask, vec a, vec b)
{
    return _mm256_add_epi32(a, _mm256_and_si256(mask, b));
}

/* The elements of x at LANES / 4 columns. One by one: gathers take longer on most CPUs. */
HELPER vec_f32 v_gather_f32(const float *x, const uint32_t *columns)
{
    return _mm256_setr_ps(x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]], x[columns[4]],
                          x[columns[5]], x[columns[6]], x[columns[7]]);
}

/* a where the mask is set, else b. */
HELPER vec_f32 v_select_f32(mask32 mask, vec_f32 a, vec_f32 b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(mask));
}

/* The 8 elements at p as a table. */
HELPER f32_table v_load_f32_table(const float *p)
{
    return _mm256_loadu_ps(p);
}

/* table[index]. */
HELPER vec_f32 v_pick_f32(f32_table table, vec index)
{
    return _mm256_permutevar8x32_ps(table, index);
}

/* To the nearest integer, ties to even, of what is no NaN; so far beyond -128..127 anything beyond
 * it on the same side. What is too small for 32 bits gives the least number of all. */
HELPER vec v_round(vec_f32 a)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(a, _mm256_set1_ps(127.0f)));
}

/* To the nearest integer of -128..127, ties to even; NaN gives 0. */
HELPER vec v_round_to_i8_range(vec_f32 a)
{
    a = _mm256_and_ps(a, _mm256_cmp_ps(a, a, _CMP_ORD_Q));
    a = _mm256_min_ps(_mm256_max_ps(a, _mm256_set1_ps(-128.0f)), _mm256_set1_ps(127.0f));
    return _mm256_cvtps_epi32(a);
}

#endif
