/* vector_neon.h - the vocabulary of the kernel templates, listed in run/x86/vector_avx2.h, in NEON,
 * and with ISA_DOTPROD defined with the dot products of Armv8.2 */
#ifndef NIMBUS_RUN_VECTOR_NEON_H
#define NIMBUS_RUN_VECTOR_NEON_H

/* Gcc for this CPU moves loads and shuffles up, away from the additions that use them, and then has
 * no registers left for them. */
#ifndef __clang__
#pragma GCC optimize("no-schedule-insns")
#endif

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(ISA_DOTPROD)
#define TARGET
#define HELPER static inline __attribute__((always_inline))
#elif defined(__clang__)
#define TARGET __attribute__((target("dotprod")))
#define HELPER static inline __attribute__((always_inline, target("dotprod")))
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define HELPER static inline __attribute__((always_inline, target("arch=armv8.2-a+dotprod")))
#endif
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define LANES        16
#define TILE         4
#define GROUP        4
#define ROWS_AT_ONCE 4
#define WIDE
#ifdef ISA_DOTPROD
#define LANE_DOT
#endif
typedef uint8x16_t vec;
typedef uint8x16x4_t wide_table;
typedef float32x4_t vec_f32;
typedef uint8x16x2_t f32_table;
typedef uint8x16_t mask8;  /* bytes of -1 or 0 */
typedef uint32x4_t mask32; /* 32 bits of -1 or 0 */

HELPER int8x16_t as_s8(vec a)
{
    return vreinterpretq_s8_u8(a);
}

HELPER int16x8_t as_s16(vec a)
{
    return vreinterpretq_s16_u8(a);
}

HELPER uint16x8_t as_u16(vec a)
{
    return vreinterpretq_u16_u8(a);
}

HELPER int32x4_t as_s32(vec a)
{
    return vreinterpretq_s32_u8(a);
}

HELPER vec from_s16(int16x8_t a)
{
    return vreinterpretq_u8_s16(a);
}

HELPER vec from_u16(uint16x8_t a)
{
    return vreinterpretq_u8_u16(a);
}

HELPER vec from_s32(int32x4_t a)
{
    return vreinterpretq_u8_s32(a);
}

HELPER vec v_load(const void *p)
{
    return vld1q_u8(p);
}

HELPER void v_store(void *p, vec a)
{
    vst1q_u8(p, a);
}

HELPER vec v_load_table(const void *p)
{
    return vld1q_u8(p);
}

/* The 4 bytes at p in every 4 bytes. */
HELPER vec v_load_table32(const void *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vreinterpretq_u8_u32(vdupq_n_u32(word));
}

HELPER vec v_load_parts(const uint8_t *p, const size_t at[LANES / 16])
{
    return vld1q_u8(p + at[0]);
}

HELPER void v_store_part(void *p, vec a, size_t i)
{
    (void)i;
    vst1q_u8(p, a);
}

/* The lower (i = 0) or upper half of a. */
HELPER void v_store_half(void *p, vec a, size_t i)
{
    vst1_u8(p, i ? vget_high_u8(a) : vget_low_u8(a));
}

HELPER vec v_zero(void)
{
    return vdupq_n_u8(0);
}

HELPER vec v_set8(int value)
{
    return vdupq_n_u8((uint8_t)value);
}

/* Computes a here and now: compilers reorder chains of additions until they run out of registers.
 */
HELPER vec v_now(vec a)
{
    __asm__("" : "+w"(a));
    return a;
}

HELPER vec v_and(vec a, vec b)
{
    return vandq_u8(a, b);
}

HELPER vec v_or(vec a, vec b)
{
    return vorrq_u8(a, b);
}

HELPER vec v_xor(vec a, vec b)
{
    return veorq_u8(a, b);
}

/* ---- bytes -------------------------------------------------------------------------------- */

HELPER vec v_add8(vec a, vec b)
{
    return vaddq_u8(a, b);
}

/* Of i8. */
HELPER vec v_min8(vec a, vec b)
{
    return vreinterpretq_u8_s8(vminq_s8(as_s8(a), as_s8(b)));
}

HELPER vec v_max8(vec a, vec b)
{
    return vreinterpretq_u8_s8(vmaxq_s8(as_s8(a), as_s8(b)));
}

/* Of i8, with signed saturation. */
HELPER vec v_add_saturated8(vec a, vec b)
{
    return vreinterpretq_u8_s8(vqaddq_s8(as_s8(a), as_s8(b)));
}

HELPER vec v_sub8(vec a, vec b)
{
    return vsubq_u8(a, b);
}

HELPER mask8 v_all8(void)
{
    return vdupq_n_u8(255);
}

HELPER mask8 v_greater8(vec a, vec b)
{
    return vcgtq_s8(as_s8(a), as_s8(b));
}

HELPER mask8 v_greater_where8(mask8 where, vec a, vec b)
{
    return vandq_u8(where, v_greater8(a, b));
}

/* The mask a where b is not set. */
HELPER mask8 v_without8(mask8 a, mask8 b)
{
    return vbicq_u8(a, b);
}

/* a where the mask is set, else 0. */
HELPER vec v_keep_where8(mask8 mask, vec a)
{
    return vandq_u8(mask, a);
}

/* a + b where the mask is set, else a. */
HELPER vec v_add_where8(mask8 mask, vec a, vec b)
{
    return vaddq_u8(a, vandq_u8(mask, b));
}

/* a where the mask is set, else b. */
HELPER vec v_select8(mask8 mask, vec a, vec b)
{
    return vbslq_u8(mask, a, b);
}

/* table[index]; 0 where the top bit of the index is set. */
HELPER vec v_shuffle8(vec table, vec index)
{
    return vqtbl1q_u8(table, index);
}

/* The same; 0 where the index is 16 or more. */
HELPER vec v_shuffle8_or_zero(vec table, vec index)
{
    return vqtbl1q_u8(table, index);
}

HELPER wide_table v_load_wide_table(const void *p)
{
    return vld1q_u8_x4(p);
}

/* table[index], index below 64. */
HELPER vec v_shuffle64(wide_table table, vec index)
{
    return vqtbl4q_u8(table, index);
}

/* The low or high halves of a and b alternating. */
HELPER vec v_zip_low8(vec a, vec b)
{
    return vzip1q_u8(a, b);
}

HELPER vec v_zip_high8(vec a, vec b)
{
    return vzip2q_u8(a, b);
}

HELPER vec v_zip_low16(vec a, vec b)
{
    return from_u16(vzip1q_u16(as_u16(a), as_u16(b)));
}

HELPER vec v_zip_high16(vec a, vec b)
{
    return from_u16(vzip2q_u16(as_u16(a), as_u16(b)));
}

HELPER vec v_zip_low32(vec a, vec b)
{
    return from_s32(vzip1q_s32(as_s32(a), as_s32(b)));
}

HELPER vec v_zip_high32(vec a, vec b)
{
    return from_s32(vzip2q_s32(as_s32(a), as_s32(b)));
}

HELPER vec v_zip_low64(vec a, vec b)
{
    return vreinterpretq_u8_u64(vzip1q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

HELPER vec v_zip_high64(vec a, vec b)
{
    return vreinterpretq_u8_u64(vzip2q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

/* ---- 16 bits ------------------------------------------------------------------------------ */

HELPER vec v_set16(int value)
{
    return from_s16(vdupq_n_s16((int16_t)value));
}

/* This and the next one are written out: gcc would copy sums from register to register where
 * intrinsics ask for another type. */
HELPER vec v_add16(vec a, vec b)
{
    __asm__("add %0.8h, %0.8h, %1.8h" : "+w"(a) : "w"(b));
    return a;
}

HELPER vec v_sub16(vec a, vec b)
{
    return from_u16(vsubq_u16(as_u16(a), as_u16(b)));
}

/* sums + the upper bytes of a. */
HELPER vec v_add_high_byte16(vec sums, vec a)
{
    __asm__("usra %0.8h, %1.8h, #8" : "+w"(sums) : "w"(a));
    return sums;
}

HELPER vec v_to_high_byte16(vec a)
{
    return from_u16(vshlq_n_u16(as_u16(a), 8));
}

HELPER vec v_shift_right16(vec a, unsigned n)
{
    return from_s16(vshlq_s16(as_s16(a), vdupq_n_s16((int16_t) - (int)n)));
}

/* even[0] odd[0] even[1] odd[1] ...: as two vectors. */
HELPER void v_zip16(vec even, vec odd, vec out[2])
{
    out[0] = v_zip_low16(even, odd);
    out[1] = v_zip_high16(even, odd);
}

/* The bytes of even numbers, then those of odd ones. */
HELPER vec v_unzip8(vec a)
{
    return vcombine_u8(vmovn_u16(as_u16(a)), vshrn_n_u16(as_u16(a), 8));
}

/* a then b with signed saturation. */
HELPER vec v_pack16(vec a, vec b)
{
    return vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(as_s16(a)), as_s16(b)));
}

/* even[0] odd[0] even[1] odd[1] ... with signed saturation. */
HELPER vec v_pack16_zipped(vec even, vec odd)
{
    int8x8_t a = vqmovn_s16(as_s16(even)), b = vqmovn_s16(as_s16(odd));
    return vreinterpretq_u8_s8(vzip1q_s8(vcombine_s8(a, a), vcombine_s8(b, b)));
}

/* LANES / 2 bytes as u16. */
HELPER vec v_load_wide_u8(const uint8_t *p)
{
    return from_u16(vmovl_u8(vld1_u8(p)));
}

/* ---- 32 bits ------------------------------------------------------------------------------ */

HELPER vec v_set32(int32_t value)
{
    return from_s32(vdupq_n_s32(value));
}

HELPER vec v_add32(vec a, vec b)
{
    return from_s32(vaddq_s32(as_s32(a), as_s32(b)));
}

HELPER vec v_shift_right32(vec a, unsigned n)
{
    return from_s32(vshlq_s32(as_s32(a), vdupq_n_s32(-(int32_t)n)));
}

#ifdef ISA_DOTPROD
/* sums + the four products of i8 in each 32 bits. Written out, since the intrinsics of some
 * compilers ask for the whole file to be compiled for Armv8.2. */
HELPER vec v_dot(vec sums, vec a, vec b)
{
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(a), "w"(b));
    return sums;
}

#define DOT_LANE(lane) __asm__("sdot %0.4s, %1.16b, %2.4b[" #lane "]" : "+w"(sums) : "w"(a), "w"(b))
/* The same with the i-th 32 bits of b in place of all of its 32 bits. */
HELPER vec v_dot_lane(vec sums, vec a, vec b, const size_t i)
{
    if (i == 0)
        DOT_LANE(0);
    else if (i == 1)
        DOT_LANE(1);
    else if (i == 2)
        DOT_LANE(2);
    else
        DOT_LANE(3);
    return sums;
}
#undef DOT_LANE
#else
/* sums + the four products of i8 in each 32 bits; of -128 by -128 not even two fit 16 bits. */
HELPER vec v_dot(vec sums, vec a, vec b)
{
    int16x8_t low = vmull_s8(vget_low_s8(as_s8(a)), vget_low_s8(as_s8(b)));
    int16x8_t high = vmull_high_s8(as_s8(a), as_s8(b));
    return v_add32(sums, from_s32(vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))));
}
#endif

/* The u16 of a, widened, as two vectors. */
HELPER void v_widen_u16(vec a, vec out[2])
{
    out[0] = vreinterpretq_u8_u32(vmovl_u16(vget_low_u16(as_u16(a))));
    out[1] = vreinterpretq_u8_u32(vmovl_high_u16(as_u16(a)));
}

/* Within every 16 bytes: a, then b, with signed saturation. */
HELPER vec v_pack32_halves(vec a, vec b)
{
    return from_s16(vcombine_s16(vqmovn_s32(as_s32(a)), vqmovn_s32(as_s32(b))));
}

HELPER vec v_pack16_halves(vec a, vec b)
{
    return v_pack16(a, b);
}

/* Four vectors of i32 as one of i8 with signed saturation. */
HELPER vec v_pack32(const vec a[4])
{
    int16x8_t low = vqmovn_high_s32(vqmovn_s32(as_s32(a[0])), as_s32(a[1]));
    int16x8_t high = vqmovn_high_s32(vqmovn_s32(as_s32(a[2])), as_s32(a[3]));
    return v_pack16(from_s16(low), from_s16(high));
}

/* ---- floats ------------------------------------------------------------------------------- */

HELPER vec_f32 v_load_f32(const float *p)
{
    return vld1q_f32(p);
}

HELPER vec_f32 v_load_table_f32(const void *p)
{
    return vreinterpretq_f32_u8(v_load_table32(p));
}

HELPER vec_f32 v_set_f32(float value)
{
    return vdupq_n_f32(value);
}

HELPER vec_f32 v_from_i32(vec a)
{
    return vcvtq_f32_s32(as_s32(a));
}

/* Rounded here: compilers may not fuse it with an addition. */
HELPER vec_f32 v_multiply_f32(vec_f32 a, vec_f32 b)
{
    vec_f32 product = vmulq_f32(a, b);
    __asm__("" : "+w"(product));
    return product;
}

HELPER vec_f32 v_add_f32(vec_f32 a, vec_f32 b)
{
    return vaddq_f32(a, b);
}

HELPER mask32 v_all32(void)
{
    return vdupq_n_u32(UINT32_MAX);
}

/* False for NaN. */
HELPER mask32 v_greater_where_f32(mask32 where, vec_f32 a, vec_f32 b)
{
    return vandq_u32(where, vcgtq_f32(a, b));
}

HELPER mask32 v_without32(mask32 a, mask32 b)
{
    return vbicq_u32(a, b);
}

HELPER vec v_add_where32(mask32 mask, vec a, vec b)
{
    return v_add32(a, vandq_u8(vreinterpretq_u8_u32(mask), b));
}

/* The elements of x at LANES / 4 columns. */
HELPER vec_f32 v_gather_f32(const float *x, const uint32_t *columns)
{
    return (vec_f32){x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]};
}

/* a where the mask is set, else b. */
HELPER vec_f32 v_select_f32(mask32 mask, vec_f32 a, vec_f32 b)
{
    return vbslq_f32(mask, a, b);
}

/* The 8 elements at p as a table. */
HELPER f32_table v_load_f32_table(const float *p)
{
    return (f32_table){{v_load(p), v_load(p + 4)}};
}

/* table[index]. */
HELPER vec_f32 v_pick_f32(f32_table table, vec index)
{
    uint32x4_t at = vmulq_n_u32(vreinterpretq_u32_u8(index), 0x04040404);
    at = vaddq_u32(at, vdupq_n_u32(0x03020100)); /* the bytes of element i are 4i .. 4i + 3 */
    return vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_u32(at)));
}

/* To the nearest integer, ties to even, of what is no NaN; so far beyond -128..127 anything beyond
 * it on the same side. */
HELPER vec v_round(vec_f32 a)
{
    return from_s32(vcvtnq_s32_f32(a));
}

/* To the nearest integer of -128..127, ties to even; NaN gives 0. */
HELPER vec v_round_to_i8_range(vec_f32 a)
{
    a = vminq_f32(vmaxq_f32(a, vdupq_n_f32(-128.0f)), vdupq_n_f32(127.0f));
    return from_s32(vcvtnq_s32_f32(a));
}

#endif
