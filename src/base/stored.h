/* stored.h - a .nimbus program as it lies in memory (program_format.h), checked
 *
 * What reading makes of a file's bytes before anybody prepares anything: the numbers of every
 * header, and where the arrays are. Nothing of an array is copied. A file is distrusted that
 * somebody built on purpose: every array is found in the bytes before anything of its size is
 * allocated, so memory stays in proportion to the file, and afterwards no index, shape, sum or
 * value can be out of bounds: who runs a program checks nothing. */
#ifndef NIMBUS_STORED_H
#define NIMBUS_STORED_H

#include "base/base.h"
#include "base/program_format.h"

/* Arrays of a step, NULL where it has none. Integers and floats are little-endian and need not be
 * aligned. */
typedef struct nimbus_step_arrays {
    const uint8_t *columns, *thresholds, *tables, *weights, *bias, *in_scale, *in_offset, *scale,
        *offset, *map, *pad;
} nimbus_step_arrays;

/* The window of a step on images. */
typedef struct nimbus_patch {
    size_t height, width, stride_y, stride_x, dilation_y, dilation_x, top, bottom, left, right;
} nimbus_patch;

typedef struct nimbus_stored_step {
    nimbus_step_info info;
    uint32_t input, output; /* NIMBUS_IN_*, NIMBUS_OUT_* */
    unsigned shift;
    nimbus_step_arrays arrays;
    uint32_t sources[NIMBUS_MAX_SOURCES]; /* values it reads: [info.n_sources], on rows one */
    /* Of programs on images. */
    nimbus_patch patch; /* height 0: none */
    int8_t low, high;
} nimbus_stored_step;

/* Value 0 is the input, value i + 1 what step i makes; of rows, as many channels of 1 x 1. */
typedef struct nimbus_stored_value {
    size_t channels, height, width;
    size_t first, last, owner, place; /* set by nimbus_place_values */
} nimbus_stored_value;

typedef struct nimbus_stored_program {
    nimbus_program_info info;
    bool of_images;
    nimbus_stored_step *steps;
    nimbus_stored_value *values;         /* [n_steps + 1] */
    const uint8_t *in_scale, *in_offset; /* [channels], images of f32 only */
    const uint8_t *metadata;             /* NULL if there is none */
    size_t n_metadata;
} nimbus_stored_program;

/* Reads and checks everything; *out points into bytes, which must outlive it, and is freed with
 * nimbus_stored_free, also after a failure. Errors: FORMAT, TRUNCATED, CHECKSUM, VERSION, VALUE,
 * LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_stored_read(const void *bytes, size_t n_bytes,
                                                   nimbus_stored_program *out, nimbus_error *error);
void nimbus_stored_free(nimbus_stored_program *program);

/* The same in two parts, without an allocation: how many steps and values *out needs room for at
 * most, then into out->steps and out->values, which the caller has set, all else zeros. */
NIMBUS_MUST_CHECK nimbus_status nimbus_stored_count(const void *bytes, size_t n_bytes, size_t *n,
                                                    nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_stored_fill(const void *bytes, size_t n_bytes, size_t n,
                                                   nimbus_stored_program *out, nimbus_error *error);

static inline nimbus_stored_value nimbus_value_of(size_t channels, size_t height, size_t width)
{
    return (nimbus_stored_value){.channels = channels, .height = height, .width = width};
}

static inline size_t nimbus_value_size(const nimbus_stored_value *value)
{
    return value->channels * value->height * value->width;
}

/* What a step reads. */
static inline size_t nimbus_step_sources(const nimbus_stored_step *step)
{
    return step->info.n_sources ? step->info.n_sources : 1;
}

/* Gives the values that go from step to step, and the input if asked, places in working memory, of
 * which n bytes are needed: a value is nimbus_value_size bytes at values[v].place, from step
 * values[v].first to values[v].last. A sum may lie where its first source did, as values[v].owner
 * says. */
size_t nimbus_place_values(const nimbus_stored_program *program, bool place_input);

static inline uint32_t nimbus_u32_at(const uint8_t *bytes, size_t i)
{
    const uint8_t *p = bytes + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

float nimbus_f32_at(const uint8_t *bytes, size_t i);

static inline size_t nimbus_step_leaves(const nimbus_step_info *info)
{
    return (size_t)1 << info->n_levels;
}

static inline bool nimbus_is_convolution(const nimbus_step_info *info)
{
    return info->kind <= NIMBUS_STEP_EXACT;
}

/* To the nearest integer, ties to even, without libm; NaN gives 0. The fraction is exact. */
static inline int8_t nimbus_round_to_i8(float x)
{
    if (x != x)
        return 0;
    x = x < -128.0f ? -128.0f : x > 127.0f ? 127.0f : x;
    int32_t whole = (int32_t)x;
    float fraction = x - (float)whole;
    if (fraction > 0.5f || (fraction == 0.5f && whole % 2 != 0))
        whole++;
    if (fraction < -0.5f || (fraction == -0.5f && whole % 2 != 0))
        whole--;
    return (int8_t)whole;
}

/* sat8(round(x * scale + offset)) of program_format.h, the product rounded to f32. */
static inline int8_t nimbus_scale_to_i8(float x, float scale, float offset)
{
    volatile float product = x * scale; /* or compilers may fuse the two */
    return nimbus_round_to_i8(product + offset);
}

/* What an output becomes that is y before a map and a clamp, which need not fit 8 bits; and what
 * sum m becomes, which is no score. */
int8_t nimbus_step_finish(const nimbus_stored_step *step, int32_t y);
int8_t nimbus_step_output(const nimbus_stored_step *step, size_t m, int32_t sum);

/* Bytes of a table row of M entries, of 4 or 8 bits. */
static inline size_t nimbus_table_row_bytes(unsigned bits, size_t M)
{
    return bits == 4 ? (M + 1) / 2 : M;
}

/* Entry m of table row c * K + k, whichever width it is stored in. */
int nimbus_table_entry(const nimbus_step_info *info, const uint8_t *tables, size_t row, size_t m);

#endif
