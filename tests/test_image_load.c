/* test_image_load.c - reading programs on images: what is refused, and what a loaded one says */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "image_maker.h"
#include "lies.h"
#include "nimbus.h"

/* Adds a step with a window of k x k, or without one for k = 0. */
static made_image_step *add_step(made_image *p, uint32_t kind, uint32_t source, uint32_t M,
                                 uint32_t k)
{
    made_image_step *s = &p->steps[p->n_steps++];
    *s = (made_image_step){.n_sources = 1, .sources = {source}, .low = -128, .high = 127};
    s->arrays.kind = kind;
    s->arrays.M = M;
    s->groups = kind <= NIMBUS_STEP_EXACT;
    for (unsigned axis = 0; axis < 2 && k; axis++) {
        s->kernel[axis] = k;
        s->stride[axis] = s->dilation[axis] = 1;
    }
    s->arrays.output = kind <= NIMBUS_STEP_EXACT          ? NIMBUS_OUT_SHIFT
                       : kind == NIMBUS_STEP_AVERAGE_POOL ? NIMBUS_OUT_SCALED
                                                          : 0;
    return s;
}

static void finish(made_image *p)
{
    made_random random = {3, 0};
    for (uint32_t i = 0; i < p->n_steps; i++)
        made_finish_image_step(&random, p, i);
}

/* One step of every kind: values 2x4x5 (f32), 3x4x5, 3x4x5, 3x4x5, 3x2x2, 3x1x1, 6x1x1. */
static made_image image_of_all_kinds(void)
{
    made_random random = {2, 0};
    made_image p = {.input_dtype = NIMBUS_F32, .values = {{2, 4, 5}}};
    p.in_scale = made_floats(&random, 2, 10.0f);
    p.in_offset = made_floats(&random, 2, 10.0f);
    made_image_step *s = add_step(&p, NIMBUS_STEP_LOOKUP, 0, 3, 3);
    s->arrays.C = s->arrays.H = 2;
    s->arrays.flags = NIMBUS_FLAG_4BIT | NIMBUS_FLAG_MAP;
    s->arrays.output = NIMBUS_OUT_SCALED;
    for (size_t i = 0; i < 4; i++)
        s->pads[i] = 1;
    add_step(&p, NIMBUS_STEP_EXACT, 1, 3, 1)->groups = 3;
    s = add_step(&p, NIMBUS_STEP_ADD, 1, 3, 0);
    s->sources[s->n_sources++] = 2;
    s = add_step(&p, NIMBUS_STEP_MAX_POOL, 3, 3, 2);
    s->stride[0] = s->stride[1] = 2;
    add_step(&p, NIMBUS_STEP_AVERAGE_POOL, 4, 3, 2);
    s = add_step(&p, NIMBUS_STEP_CONCAT, 5, 6, 0);
    s->sources[s->n_sources++] = 5;
    add_step(&p, NIMBUS_STEP_EXACT, 6, 2, 1)->arrays.output = NIMBUS_OUT_I32;
    finish(&p);
    return p;
}

static void test_damage(void **state)
{
    (void)state;
    made_image made = image_of_all_kinds();
    nimbus_buffer file = made_image_write(&made);
    check_damage(&file);
    nimbus_buffer_free(&file);
    made_image_free(&made);
}

/* Fields of the header of a step; arrays of step 0. */
enum {
    KIND = 0,
    N_SOURCES = 4,
    OUTPUTS = 8,
    CODEBOOKS = 12,
    LEVELS = 16,
    FLAGS = 20,
    OUTPUT = 24,
    SHIFT = 28,
    GROUPS = 32,
    KERNEL = 36,
    STRIDE = 44,
    DILATION = 52,
    PADS = 60,
    LOW = 76,
    HIGH = 80,
    RESERVED = 84,
    NAME = 96,
    SOURCES = 192,
    PAD = 256,
    COLUMNS = 320,
    TABLES = 448,
    BIAS = 512,
    SCALE = 576,
    OFFSET = 640,
    MAP = 704
};

static const lie lies[] = {
    {"no channels", 0, 0, 4, 0, FORMAT},
    {"too many channels", 0, 0, 4, (1u << 24) + 1, LIMIT},
    {"no rows", 0, 4, 4, 0, FORMAT},
    {"no columns", 0, 8, 4, 0, FORMAT},
    {"too many elements", 0, 4, 4, 1u << 24, LIMIT},
    {"unknown input type", 0, 12, 4, 3, FORMAT},
    {"u8 input with scales", 0, 12, 4, NIMBUS_U8, FORMAT},
    {"no outputs", 0, 16, 4, 0, FORMAT},
    {"other outputs than the last step", 0, 16, 4, 3, FORMAT},
    {"no steps", 0, 20, 4, 0, FORMAT},
    {"fewer steps than sections", 0, 20, 4, 6, FORMAT},
    {"more steps than sections", 0, 20, 4, 8, FORMAT},
    {"too many steps", 0, 20, 4, 4001, FORMAT},
    {"output scale infinite", 0, 24, 4, AN_INFINITY, VALUE},
    {"reserved field", 0, 28, 4, 1, FORMAT},
    {"short header", 0, 28, 0, 0, TRUNCATED},
    {"header without scales", 0, 32, 0, 0, TRUNCATED},
    {"input scale not a number", 0, 64, 4, A_NAN, VALUE},
    {"input offset infinite", 0, 132, 4, AN_INFINITY, VALUE},
    {"more channels than scales", 0, 0, 4, 3, TRUNCATED},
    {"another height than steps fit", 0, 4, 4, 1, FORMAT},
    {"short step header", 1, 140, 0, 0, TRUNCATED},
    {"empty step", 1, 0, 0, 0, TRUNCATED},
    {"step without arrays", 1, 144, 0, 0, TRUNCATED},
    {"kind 0", 1, KIND, 4, 0, FORMAT},
    {"kind 7", 1, KIND, 4, 7, FORMAT},
    {"lookup said to be exact", 1, KIND, 4, NIMBUS_STEP_EXACT, FORMAT},
    {"no source", 1, N_SOURCES, 4, 0, FORMAT},
    {"two sources of a convolution", 1, N_SOURCES, 4, 2, FORMAT},
    {"one source of an addition", 3, N_SOURCES, 4, 1, FORMAT},
    {"17 sources", 3, N_SOURCES, 4, 17, FORMAT},
    {"sources beyond the bytes", 3, N_SOURCES, 4, 16, TRUNCATED},
    {"source not made yet", 1, SOURCES, 4, 1, FORMAT},
    {"source of another shape", 3, SOURCES + 4, 4, 0, FORMAT},
    {"no outputs of a step", 1, OUTPUTS, 4, 0, FORMAT},
    {"outputs beyond the bytes", 1, OUTPUTS, 4, 1u << 18, TRUNCATED},
    {"outputs beyond the limit", 1, OUTPUTS, 4, (1u << 24) / 20 + 1, LIMIT},
    {"outputs far beyond the limit", 1, OUTPUTS, 4, 0xffffffff, LIMIT},
    {"other outputs than channels of an addition", 3, OUTPUTS, 4, 4, FORMAT},
    {"other outputs than channels of a pool", 4, OUTPUTS, 4, 2, FORMAT},
    {"other outputs than channels of a concat", 6, OUTPUTS, 4, 3, FORMAT},
    {"no codebooks", 1, CODEBOOKS, 4, 0, FORMAT},
    {"codebooks beyond the limit", 1, CODEBOOKS, 4, (1u << 24) + 1, LIMIT},
    {"codebooks beyond the bytes", 1, CODEBOOKS, 4, 1u << 24, TRUNCATED},
    {"codebooks of an exact step", 2, CODEBOOKS, 4, 1, FORMAT},
    {"no levels", 1, LEVELS, 4, 0, FORMAT},
    {"nine levels", 1, LEVELS, 4, 9, FORMAT},
    {"levels of a pool", 4, LEVELS, 4, 1, FORMAT},
    {"unknown flag", 1, FLAGS, 4, 8, FORMAT},
    {"4-bit entries of an addition", 3, FLAGS, 4, NIMBUS_FLAG_4BIT, FORMAT},
    {"map that is not there", 4, FLAGS, 4, NIMBUS_FLAG_MAP, TRUNCATED},
    {"map of scores", 7, FLAGS, 4, NIMBUS_FLAG_MAP, FORMAT},
    {"output kind 4", 1, OUTPUT, 4, 4, FORMAT},
    {"scores in the middle", 1, OUTPUT, 4, NIMBUS_OUT_I32, FORMAT},
    {"last step without scores", 7, OUTPUT, 4, NIMBUS_OUT_SHIFT, FORMAT},
    {"output kind of a max pool", 4, OUTPUT, 4, NIMBUS_OUT_SHIFT, FORMAT},
    {"shifted average", 5, OUTPUT, 4, NIMBUS_OUT_SHIFT, FORMAT},
    {"shift of a scaled step", 1, SHIFT, 4, 1, FORMAT},
    {"shift too large", 2, SHIFT, 4, 25, FORMAT},
    {"largest shift is allowed", 2, SHIFT, 4, 24, NIMBUS_OK},
    {"no groups", 2, GROUPS, 4, 0, FORMAT},
    {"groups that do not divide channels", 2, GROUPS, 4, 2, FORMAT},
    {"groups of a lookup step", 1, GROUPS, 4, 2, FORMAT},
    {"groups of a pool", 4, GROUPS, 4, 1, FORMAT},
    {"no kernel", 1, KERNEL, 4, 0, FORMAT},
    {"kernel of an addition", 3, KERNEL, 4, 1, FORMAT},
    {"kernel that does not fit", 1, KERNEL, 4, 7, FORMAT},
    {"kernel beyond the limit", 1, KERNEL + 4, 4, (1u << 24) + 1, LIMIT},
    {"smaller kernel than pads", 1, KERNEL, 4, 1, FORMAT},
    {"smaller kernel than columns count", 1, KERNEL + 4, 4, 2, FORMAT},
    {"no stride", 1, STRIDE, 4, 0, FORMAT},
    {"stride that makes scores of another size", 5, STRIDE, 4, 1u << 24, NIMBUS_OK},
    {"stride that makes another size", 1, STRIDE, 4, 4, FORMAT},
    {"no dilation", 1, DILATION, 4, 0, FORMAT},
    {"dilation of a pool", 4, DILATION, 4, 2, FORMAT},
    {"dilation that does not fit", 1, DILATION, 4, 3, FORMAT},
    {"pad larger than the reach", 1, PADS, 4, 3, FORMAT},
    {"pad beyond the limit", 1, PADS + 12, 4, 0xffffffff, LIMIT},
    {"pad of a window of one", 2, PADS, 4, 1, FORMAT},
    {"pad of an addition", 3, PADS, 4, 1, FORMAT},
    {"clamp below i8", 1, LOW, 4, (uint32_t)-129, FORMAT},
    {"clamp above i8", 1, HIGH, 4, 128, FORMAT},
    {"clamp upside down", 1, HIGH, 4, (uint32_t)-129, FORMAT},
    {"clamp to one value", 1, HIGH, 4, (uint32_t)-128, NIMBUS_OK},
    {"clamped scores", 7, LOW, 4, 0, FORMAT},
    {"reserved bytes", 1, RESERVED, 1, 1, FORMAT},
    {"last reserved byte", 1, RESERVED + 11, 1, 1, FORMAT},
    {"name not padded", 1, NAME + 20, 1, 'x', FORMAT},
    {"name not terminated", 1, NAME + 47, 1, 'x', FORMAT},
    {"padding before the first array", 1, 150, 1, 1, FORMAT},
    {"padding after the pads", 1, PAD + 2, 1, 1, FORMAT},
    {"column beyond the window", 1, COLUMNS + 12, 4, 18, FORMAT},
    {"last column of the window is allowed", 1, COLUMNS + 12, 4, 17, NIMBUS_OK},
    {"unused half byte of a table row", 1, TABLES + 1, 1, 0x10, FORMAT},
    {"bias too large", 1, BIAS + 8, 4, 0x7fffffff, VALUE},
    {"bias of an exact step too small", 7, 384, 4, 0x80000000, VALUE},
    {"scale infinite", 1, SCALE + 8, 4, AN_INFINITY, VALUE},
    {"offset not a number", 1, OFFSET + 4, 4, A_NAN, VALUE},
    {"map cut short", 1, MAP + 255, 0, 0, TRUNCATED},
    {"scale of an average infinite", 5, 320, 4, AN_INFINITY, VALUE},
};

static void test_lies(void **state)
{
    (void)state;
    made_image made = image_of_all_kinds();
    nimbus_buffer file = made_image_write(&made);
    check_lies(&file, lies, N_LIES(lies));
    nimbus_buffer_free(&file);
    made_image_free(&made);
}

static nimbus_status status_of_image(made_image *p)
{
    finish(p);
    nimbus_buffer file = made_image_write(p);
    nimbus_status status = status_of(file.bytes, file.size);
    nimbus_buffer_free(&file);
    made_image_free(p);
    return status;
}

/* A linear layer from n channels of 1 x 1. */
static void add_scores(made_image *p, uint32_t source)
{
    add_step(p, NIMBUS_STEP_EXACT, source, 1, 1)->arrays.output = NIMBUS_OUT_I32;
}

/* Programs of a few hundred bytes that would need too much memory or exceed 32 bits. */
static void test_limits(void **state)
{
    (void)state;
    made_image p = {.input_dtype = NIMBUS_U8, .values = {{1, 2, 2}}};
    made_image_step *s = add_step(&p, NIMBUS_STEP_EXACT, 0, 1, 2);
    s->dilation[0] = s->pads[0] = 1u << 22;
    s->stride[0] = 1u << 22;
    s->arrays.output = NIMBUS_OUT_I32;
    s->kernel[1] = 2;
    assert_int_equal(status_of_image(&p), NIMBUS_OK); /* 2^22 rows of two bytes */

    p = (made_image){.input_dtype = NIMBUS_U8, .values = {{100, 2, 2}}};
    s = add_step(&p, NIMBUS_STEP_EXACT, 0, 1, 2);
    s->dilation[0] = s->pads[0] = s->stride[0] = 1u << 22;
    s->arrays.output = NIMBUS_OUT_I32;
    assert_int_equal(status_of_image(&p), NIMBUS_ERR_LIMIT); /* of 100 channels */

    p = (made_image){.input_dtype = NIMBUS_U8, .values = {{1, 70, 70}}};
    add_step(&p, NIMBUS_STEP_MAX_POOL, 0, 1, 65);
    add_step(&p, NIMBUS_STEP_AVERAGE_POOL, 1, 1, 6);
    add_scores(&p, 2);
    assert_int_equal(status_of_image(&p), NIMBUS_ERR_LIMIT); /* 65 * 65 taps */

    p = (made_image){.input_dtype = NIMBUS_U8, .values = {{1, 4096, 4096}}};
    add_step(&p, NIMBUS_STEP_AVERAGE_POOL, 0, 1, 4096);
    add_scores(&p, 1);
    assert_int_equal(status_of_image(&p), NIMBUS_ERR_VALUE); /* 128 * 2^24 */

    p = (made_image){.input_dtype = NIMBUS_U8, .values = {{1, 4096, 4095}}};
    s = add_step(&p, NIMBUS_STEP_AVERAGE_POOL, 0, 1, 4096);
    s->kernel[1] = 4095;
    add_scores(&p, 1);
    assert_int_equal(status_of_image(&p), NIMBUS_OK);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        made_image made = made_random_image(seed, 6, 4);
        nimbus_buffer file = made_image_write(&made);
        long k = 1;
        for (;; k++) {
            nimbus_fail_alloc_after = k;
            nimbus_status status = status_of(file.bytes, file.size);
            bool reached = nimbus_fail_alloc_after <= 0;
            nimbus_fail_alloc_after = 0;
            if (!reached)
                break;
            assert_int_equal(status, NIMBUS_ERR_MEMORY);
        }
        assert_true(k > 5);
        assert_int_equal(status_of(file.bytes, file.size), NIMBUS_OK);
        nimbus_buffer_free(&file);
        made_image_free(&made);
    }
}

static void test_info(void **state)
{
    (void)state;
    made_image made = image_of_all_kinds();
    nimbus_buffer file = made_image_write(&made);
    nimbus_program *program;
    assert_int_equal(nimbus_load(file.bytes, file.size, &program, NULL), NIMBUS_OK);
    const nimbus_program_info *info = nimbus_info(program);
    assert_int_equal(info->n_inputs, 40);
    assert_int_equal(info->channels, 2);
    assert_int_equal(info->height, 4);
    assert_int_equal(info->width, 5);
    assert_int_equal(info->n_outputs, 2);
    assert_int_equal(info->n_steps, 7);
    assert_int_equal(info->input_dtype, NIMBUS_F32);
    assert_true(info->output_scale == 0.125f);
    assert_int_equal(info->lookups, 2 * 3 * 20);
    assert_int_equal(info->comparisons, 2 * 2 * 20);
    assert_int_equal(info->multiply_adds, 3 * 20 + 6 * 2);
    assert_int_equal(info->table_bytes, 2 * 4 * 2 + 3 + 12);
    assert_string_equal(nimbus_metadata(program), "{}");
    static const char *const kinds[] = {"lookup",       "exact",  "add",  "max pool",
                                        "average pool", "concat", "exact"};
    nimbus_step_info step;
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(nimbus_step(program, i, &step), NIMBUS_OK);
        assert_string_equal(nimbus_step_kind_name(step.kind), kinds[i]);
        assert_int_equal(step.n_outputs, made.values[i + 1].channels);
        assert_int_equal(step.height, made.values[i + 1].height);
        assert_int_equal(step.width, made.values[i + 1].width);
        assert_int_equal(step.n_sources, made.steps[i].n_sources);
        assert_int_equal(step.kernel_height, made.steps[i].kernel[0]);
        assert_int_equal(step.stride_x, made.steps[i].stride[1]);
        assert_int_equal(step.n_groups, made.steps[i].groups);
    }
    assert_string_equal(nimbus_step_kind_name((nimbus_step_kind)7), "");
    assert_int_equal(nimbus_step(program, 7, &step), NIMBUS_ERR_ARGUMENT);
    assert_true(nimbus_scratch_size(program, 1) < nimbus_scratch_size(program, 2));
    assert_int_equal(nimbus_scratch_size(program, 2), nimbus_scratch_size(program, 1u << 30));
    nimbus_close(program);
    nimbus_buffer_free(&file);
    made_image_free(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage), cmocka_unit_test(test_lies),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_info),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
