/* vector_ssse3.h - the vocabulary of the kernel templates, listed in vector_avx2.h, in SSSE3 */
#ifndef NIMBUS_RUN_VECTOR_SSSE3_H
#define NIMBUS_RUN_VECTOR_SSSE3_H

#include <stddef.h>
#include <stdint.h>
#include <tmmintrin.h>

#define TARGET __attribute__((target("ssse3")))
#define HELPER static inline __attribute__((always_inline, target("ssse3")))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define LANES        16
#define TILE         2
#define GROUP        2
#define ROWS_AT_ONCE 2
#define DECISION_BITS
typedef __m128i vec;
typedef __m128 vec_f32;
typedef struct f32_table {
    vec halves[2];
} f32_table;
typedef __m128i mask8;  /* bytes of -1 or 0 */
typedef __m128i mask32; /* 32 bits of -1 or 0 */
typedef uint16_t decision_bits;

HELPER vec v_load(const void *p)
{
    return _mm_loadu_si128(p);
}

HELPER void v_store(void *p, vec a)
{
    _mm_storeu_si128(p, a);
}

/* The 16 bytes at p in every 16 bytes. */
HELPER vec v_load_table(const void *p)
{
    return _mm_loadu_si128(p);
}

/* The 4 bytes at p in every 4 bytes. */
HELPER vec v_load_table32(const void *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm_set1_epi32(word);
}

/* The 16 bytes at p + at[0], p + at[1], ... */
HELPER vec v_load_parts(const uint8_t *p, const size_t at[LANES / 16])
{
    return _mm_loadu_si128((const void *)(p + at[0]));
}

/* Bytes 16i..16i+15 of a. */
HELPER void v_store_part(void *p, vec a, size_t i)
{
    (void)i;
    _mm_storeu_si128(p, a);
}

/* The lower (i = 0) or upper half of a. */
HELPER void v_store_half(void *p, vec a, size_t i)
{
    _mm_storel_epi64(p, i ? _mm_unpackhi_epi64(a, a) : a);
}

HELPER vec v_zero(void)
{
    return _mm_setzero_si128();
}

HELPER vec v_set8(int value)
{
    return _mm_set1_epi8((char)value);
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
    return _mm_and_si128(a, b);
}

HELPER vec v_or(vec a, vec b)
{
    return _mm_or_si128(a, b);
}

HELPER vec v_xor(vec a, vec b)
{
    return _mm_xor_si128(a, b);
}

/* ---- bytes -------------------------------------------------------------------------------- */

HELPER vec v_add8(vec a, vec b)
{
    return _mm_add_epi8(a, b);
}

/* Of i8, through those of u8, which came first. */
HELPER vec v_min8(vec a, vec b)
{
    const vec flip = _mm_set1_epi8(-128);
    return _mm_xor_si128(flip, _mm_min_epu8(_mm_xor_si128(a, flip), _mm_xor_si128(b, flip)));
}

HELPER vec v_max8(vec a, vec b)
{
    const vec flip = _mm_set1_epi8(-128);
    return _mm_xor_si128(flip, _mm_max_epu8(_mm_xor_si128(a, flip), _mm_xor_si128(b, flip)));
}

/* Of i8, with signed saturation. */
HELPER vec v_add_saturated8(vec a, vec b)
{
    return _mm_adds_epi8(a, b);
}

HELPER vec v_sub8(vec a, vec b)
{
    return _mm_sub_epi8(a, b);
}

HELPER mask8 v_all8(void)
{
    return _mm_set1_epi8(-1);
}

HELPER mask8 v_greater8(vec a, vec b)
{
    return _mm_cmpgt_epi8(a, b);
}

HELPER mask8 v_greater_where8(mask8 where, vec a, vec b)
{
    return _mm_and_si128(where, _mm_cmpgt_epi8(a, b));
}

/* The mask a where b is not set. */
HELPER mask8 v_without8(mask8 a, mask8 b)
{
    return _mm_andnot_si128(b, a);
}

/* a where the mask is set, else 0. */
HELPER vec v_keep_where8(mask8 mask, vec a)
{
    return _mm_and_si128(mask, a);
}

/* a + b where the mask is set, else a. */
HELPER vec v_add_where8(mask8 mask, vec a, vec b)
{
    return _mm_add_epi8(a, _mm_and_si128(mask, b));
}

/* a where the mask is set, else b. */
HELPER vec v_select8(mask8 mask, vec a, vec b)
{
    return _mm_or_si128(_mm_and_si128(mask, a), _mm_andnot_si128(mask, b));
}

/* Bit i: whether byte i of a is greater. */
HELPER decision_bits v_greater_bits8(vec a, vec b)
{
    return (decision_bits)_mm_movemask_epi8(_mm_cmpgt_epi8(a, b));
}

/* Not through memory: loads of what several stores have left there wait for them. */
HELPER vec v_from_bits(const decision_bits bits[8])
{
    return _mm_setr_epi16((short)bits[0], (short)bits[1], (short)bits[2], (short)bits[3],
                          (short)bits[4], (short)bits[5], (short)bits[6], (short)bits[7]);
}

/* table[index] within every 16 bytes; 0 where the top bit of the index is set. */
HELPER vec v_shuffle8(vec table, vec index)
{
    return _mm_shuffle_epi8(table, index);
}

/* The same; 0 where the index is 16 or more, which gets its top bit set. */
HELPER vec v_shuffle8_or_zero(vec table, vec index)
{
    return _mm_shuffle_epi8(table, _mm_adds_epu8(index, v_set8(0x70)));
}

/* Within every 16 bytes: the low or high halves of a and b alternating. */
HELPER vec v_zip_low8(vec a, vec b)
{
    return _mm_unpacklo_epi8(a, b);
}

HELPER vec v_zip_high8(vec a, vec b)
{
    return _mm_unpackhi_epi8(a, b);
}

HELPER vec v_zip_low32(vec a, vec b)
{
    return _mm_unpacklo_epi32(a, b);
}

HELPER vec v_zip_high32(vec a, vec b)
{
    return _mm_unpackhi_epi32(a, b);
}

HELPER vec v_zip_low64(vec a, vec b)
{
    return _mm_unpacklo_epi64(a, b);
}

HELPER vec v_zip_high64(vec a, vec b)
{
    return _mm_unpackhi_epi64(a, b);
}

/* Within every 16 bytes: the lower 8 as i16, sign-extended; the upper 8. */
HELPER vec v_widen_low8(vec a)
{
    return _mm_srai_epi16(_mm_unpacklo_epi8(a, a), 8);
}

HELPER vec v_widen_high8(vec a)
{
    return _mm_srai_epi16(_mm_unpackhi_epi8(a, a), 8);
}

/* ---- 16 bits ------------------------------------------------------------------------------ */

HELPER vec v_set16(int value)
{
    return _mm_set1_epi16((short)value);
}

HELPER vec v_add16(vec a, vec b)
{
    return _mm_add_epi16(a, b);
}

HELPER vec v_sub16(vec a, vec b)
{
    return _mm_sub_epi16(a, b);
}

/* sums + the upper bytes of a. */
HELPER vec v_add_high_byte16(vec sums, vec a)
{
    return _mm_add_epi16(sums, _mm_srli_epi16(a, 8));
}

HELPER vec v_to_high_byte16(vec a)
{
    return _mm_slli_epi16(a, 8);
}

HELPER vec v_shift_right16(vec a, unsigned n)
{
    return _mm_sra_epi16(a, _mm_cvtsi32_si128((int)n));
}

/* Each of the 16-bit numbers of a, shifted by its own count of b below 16: the upper half of the
 * product with 2^(16 - count), whose lower and upper byte are looked up, and a itself for 0. */
HELPER vec v_shift_right_each16(vec a, vec b)
{
    const vec low = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, (char)128, 64, 32, 16, 8, 4, 2);
    const vec high = _mm_setr_epi8(0, (char)128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0);
    vec power =
        _mm_or_si128(_mm_shuffle_epi8(low, b), _mm_slli_epi16(_mm_shuffle_epi8(high, b), 8));
    vec unshifted = _mm_and_si128(a, _mm_cmpeq_epi16(b, _mm_setzero_si128()));
    return _mm_or_si128(_mm_mulhi_epu16(a, power), unshifted);
}

/* even[0] odd[0] even[1] odd[1] ...: as two vectors. */
HELPER void v_zip16(vec even, vec odd, vec out[2])
{
    out[0] = _mm_unpacklo_epi16(even, odd);
    out[1] = _mm_unpackhi_epi16(even, odd);
}

/* The bytes of even numbers, then those of odd ones. */
HELPER vec v_unzip8(vec a)
{
    return _mm_shuffle_epi8(a, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
}

/* a then b with signed saturation. */
HELPER vec v_pack16(vec a, vec b)
{
    return _mm_packs_epi16(a, b);
}

/* even[0] odd[0] even[1] odd[1] ... with signed saturation. */
HELPER vec v_pack16_zipped(vec even, vec odd)
{
    const vec zip = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    return _mm_shuffle_epi8(_mm_packs_epi16(even, odd), zip);
}

/* LANES / 2 bytes as u16. */
HELPER vec v_load_wide_u8(const uint8_t *p)
{
    return _mm_unpacklo_epi8(_mm_loadl_epi64((const void *)p), _mm_setzero_si128());
}

/* ---- 32 bits ------------------------------------------------------------------------------ */

HELPER vec v_set32(int32_t value)
{
    return _mm_set1_epi32(value);
}

HELPER vec v_add32(vec a, vec b)
{
    return _mm_add_epi32(a, b);
}

HELPER vec v_shift_right32(vec a, unsigned n)
{
    return _mm_sra_epi32(a, _mm_cvtsi32_si128((int)n));
}

/* sums + a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of i16. */
HELPER vec v_dot(vec sums, vec a, vec b)
{
    return _mm_add_epi32(sums, _mm_madd_epi16(a, b));
}

/* The u16 of a, widened, as two vectors. */
HELPER void v_widen_u16(vec a, vec out[2])
{
    out[0] = _mm_unpacklo_epi16(a, _mm_setzero_si128());
    out[1] = _mm_unpackhi_epi16(a, _mm_setzero_si128());
}

/* Within every 16 bytes: a, then b, with signed saturation. */
HELPER vec v_pack32_halves(vec a, vec b)
{
    return _mm_packs_epi32(a, b);
}

HELPER vec v_pack16_halves(vec a, vec b)
{
    return _mm_packs_epi16(a, b);
}

/* Four vectors of i32 as one of i8 with signed saturation. */
HELPER vec v_pack32(const vec a[4])
{
    return _mm_packs_epi16(_mm_packs_epi32(a[0], a[1]), _mm_packs_epi32(a[2], a[3]));
}

/* ---- floats ------------------------------------------------------------------------------- */

HELPER vec_f32 v_load_f32(const float *p)
{
    return _mm_loadu_ps(p);
}

HELPER vec_f32 v_load_table_f32(const void *p)
{
    return _mm_castsi128_ps(v_load_table32(p));
}

HELPER vec_f32 v_set_f32(float value)
{
    return _mm_set1_ps(value);
}

HELPER vec_f32 v_from_i32(vec a)
{
    return _mm_cvtepi32_ps(a);
}

/* Rounded here: compilers may not fuse it with an addition. */
HELPER vec_f32 v_multiply_f32(vec_f32 a, vec_f32 b)
{
    vec_f32 product = _mm_mul_ps(a, b);
    __asm__("" : "+x"(product));
    return product;
}

HELPER vec_f32 v_add_f32(vec_f32 a, vec_f32 b)
{
    return _mm_add_ps(a, b);
}

HELPER mask32 v_all32(void)
{
    return _mm_set1_epi32(-1);
}

/* False for NaN. */
HELPER mask32 v_greater_where_f32(mask32 where, vec_f32 a, vec_f32 b)
{
    return _mm_and_si128(where, _mm_castps_si128(_mm_cmpgt_ps(a, b)));
}

HELPER mask32 v_without32(mask32 a, mask32 b)
{
    return _mm_andnot_si128(b, a);
}

HELPER vec v_add_where32(mask32 mask, vec a, vec b)
{
    return _mm_add_epi32(a, _mm_and_si128(mask, b));
}

/* The elements of x at LANES / 4 columns. */
HELPER vec_f32 v_gather_f32(const float *x, const uint32_t *columns)
{
    return _mm_setr_ps(x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]);
}

/* a where the mask is set, else b. */
HELPER vec_f32 v_select_f32(mask32 mask, vec_f32 a, vec_f32 b)
{
    return _mm_castsi128_ps(v_select8(mask, _mm_castps_si128(a), _mm_castps_si128(b)));
}

/* The 8 elements at p as a table. */
HELPER f32_table v_load_f32_table(const float *p)
{
    return (f32_table){{v_load(p), v_load(p + 4)}};
}

/* table[index]. */
HELPER vec_f32 v_pick_f32(f32_table table, vec index)
{
    vec at = _mm_slli_epi32(index, 2); /* the bytes of element i are 4i .. 4i + 3 */
    at = v_or(at, _mm_slli_epi32(at, 8));
    at = v_add8(v_or(at, _mm_slli_epi32(at, 16)), _mm_set1_epi32(0x03020100));
    const vec low = v_shuffle8_or_zero(table.halves[0], at);
    const vec high = v_shuffle8_or_zero(table.halves[1], v_xor(at, v_set8(16)));
    return _mm_castsi128_ps(v_or(low, high));
}

/* To the nearest integer, ties to even, of what is no NaN; so far beyond -128..127 anything beyond
 * it on the same side. What is too small for 32 bits gives the least number of all. */
HELPER vec v_round(vec_f32 a)
{
    return _mm_cvtps_epi32(_mm_min_ps(a, _mm_set1_ps(127.0f)));
}

/* To the nearest integer of -128..127, ties to even; NaN gives 0. */
HELPER vec v_round_to_i8_range(vec_f32 a)
{
    a = _mm_and_ps(a, _mm_cmpord_ps(a, a));
    a = _mm_min_ps(_mm_max_ps(a, _mm_set1_ps(-128.0f)), _mm_set1_ps(127.0f));
    return _mm_cvtps_epi32(a);
}

#endif
