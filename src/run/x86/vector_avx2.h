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

#define LANES 32
typedef __m256i vec;
typedef __m256 vec_f32;

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

/* Bytes 16i..16i+15 of a. */
HELPER void v_store_part(void *p, vec a, size_t i)
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

HELPER vec v_sub8(vec a, vec b)
{
    return _mm256_sub_epi8(a, b);
}

HELPER vec v_add_saturated_u8(vec a, vec b)
{
    return _mm256_adds_epu8(a, b);
}

/* -1 where a > b, else 0. */
HELPER vec v_greater8(vec a, vec b)
{
    return _mm256_cmpgt_epi8(a, b);
}

/* a where the mask's top bit is set, else b. */
HELPER vec v_select8(vec mask, vec a, vec b)
{
    return _mm256_blendv_epi8(b, a, mask);
}

/* table[index] within every 16 bytes; 0 where the top bit of the index is set. */
HELPER vec v_shuffle8(vec table, vec index)
{
    return _mm256_shuffle_epi8(table, index);
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

HELPER vec v_high_byte16(vec a)
{
    return _mm256_srli_epi16(a, 8);
}

HELPER vec v_to_high_byte16(vec a)
{
    return _mm256_slli_epi16(a, 8);
}

HELPER vec v_shift_right16(vec a, unsigned n)
{
    return _mm256_sra_epi16(a, _mm_cvtsi32_si128((int)n));
}

/* even[0] odd[0] even[1] odd[1] ...: as two vectors. */
HELPER void v_zip16(vec even, vec odd, vec out[2])
{
    vec low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
    out[0] = _mm256_permute2x128_si256(low, high, 0x20);
    out[1] = _mm256_permute2x128_si256(low, high, 0x31);
}

/* a then b with signed saturation. */
HELPER vec v_pack16(vec a, vec b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
}

/* LANES / 2 bytes, sign-extended. */
HELPER vec v_load_wide8(const int8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p));
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

HELPER vec v_sub32(vec a, vec b)
{
    return _mm256_sub_epi32(a, b);
}

HELPER vec v_shift_right32(vec a, unsigned n)
{
    return _mm256_sra_epi32(a, _mm_cvtsi32_si128((int)n));
}

/* a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of i16. */
HELPER vec v_multiply_add16(vec a, vec b)
{
    return _mm256_madd_epi16(a, b);
}

HELPER int32_t v_sum32(vec a)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(sum);
}

/* The u16 of a, widened, as two vectors. */
HELPER void v_widen_u16(vec a, vec out[2])
{
    out[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
    out[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1));
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

HELPER vec_f32 v_set_f32(float value)
{
    return _mm256_set1_ps(value);
}

HELPER vec_f32 v_from_i32(vec a)
{
    return _mm256_cvtepi32_ps(a);
}

HELPER vec_f32 v_multiply_f32(vec_f32 a, vec_f32 b)
{
    return _mm256_mul_ps(a, b);
}

HELPER vec_f32 v_add_f32(vec_f32 a, vec_f32 b)
{
    return _mm256_add_ps(a, b);
}

/* -1 where a > b, else 0, for NaN too; 32 bits each. */
HELPER vec v_greater_f32(vec_f32 a, vec_f32 b)
{
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

/* To the nearest integer of -128..127, ties to even; NaN gives 0. */
HELPER vec v_round_to_i8_range(vec_f32 a)
{
    a = _mm256_and_ps(a, _mm256_cmp_ps(a, a, _CMP_ORD_Q));
    a = _mm256_min_ps(_mm256_max_ps(a, _mm256_set1_ps(-128.0f)), _mm256_set1_ps(127.0f));
    return _mm256_cvtps_epi32(a);
}

#endif
