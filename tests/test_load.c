/* test_load.c - reading .nimbus programs: three outcomes only, and what a loaded one says of itself
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>

#include "lies.h"
#include "nimbus.h"
#include "run/kernels.h"

static nimbus_program *load(const nimbus_buffer *file)
{
    nimbus_program *program = NULL;
    nimbus_error error = {0};
    if (nimbus_load(file->bytes, file->size, &program, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    return program;
}

static void test_damage(void **state)
{
    (void)state;
    for (uint32_t kind = 1; kind <= 2; kind++) {
        uint32_t flags = kind == 1 ? NIMBUS_FLAG_4BIT | NIMBUS_FLAG_MAP : NIMBUS_FLAG_MAP;
        made_program made = made_small_program(kind, NIMBUS_F32, flags);
        nimbus_buffer file = made_write(&made);
        check_damage(&file);
        nimbus_buffer_free(&file);
        made_free(&made);
    }
}

static const lie header_lies[] = {
    {"no inputs", 0, 0, 4, 0, FORMAT},
    {"other inputs than the first step", 0, 0, 4, 4, FORMAT},
    {"too many inputs", 0, 0, 4, (1u << 24) + 1, LIMIT},
    {"unknown input type", 0, 4, 4, 3, FORMAT},
    {"input type of another first step", 0, 4, 4, NIMBUS_U8, FORMAT},
    {"no outputs", 0, 8, 4, 0, FORMAT},
    {"other outputs than the last step", 0, 8, 4, 3, FORMAT},
    {"no steps", 0, 12, 4, 0, FORMAT},
    {"fewer steps than sections", 0, 12, 4, 1, FORMAT},
    {"more steps than sections", 0, 12, 4, 3, FORMAT},
    {"too many steps", 0, 12, 4, 4001, FORMAT},
    {"output scale not a number", 0, 16, 4, A_NAN, VALUE},
    {"output scale infinite", 0, 16, 4, AN_INFINITY, VALUE},
    {"reserved field", 0, 20, 4, 1, FORMAT},
    {"short header", 0, 20, 0, 0, FORMAT},
    {"short step header", 1, 100, 0, 0, TRUNCATED},
    {"empty step", 1, 0, 0, 0, TRUNCATED},
    {"step without arrays", 1, 112, 0, 0, TRUNCATED},
    {"kind 0", 1, 0, 4, 0, FORMAT},
    {"kind 3", 1, 0, 4, 3, FORMAT},
    {"no inputs of a step", 1, 4, 4, 0, FORMAT},
    {"more inputs than there are", 1, 4, 4, 4, FORMAT},
    {"inputs beyond the limit", 1, 4, 4, 0xffffffff, LIMIT},
    {"no outputs of a step", 1, 8, 4, 0, FORMAT},
    {"more outputs than there are", 1, 8, 4, 1u << 24, TRUNCATED},
    {"outputs beyond the limit", 1, 8, 4, 0x80000000, LIMIT},
    {"fewer inputs than the step before has outputs", 2, 4, 4, 2, FORMAT},
    {"raw input in the middle", 2, 24, 4, NIMBUS_IN_U8, FORMAT},
    {"first step without raw input", 1, 24, 4, NIMBUS_IN_I8, FORMAT},
    {"input kind 0", 1, 24, 4, 0, FORMAT},
    {"input kind 4", 1, 24, 4, 4, FORMAT},
    {"scores in the middle", 1, 28, 4, NIMBUS_OUT_I32, FORMAT},
    {"last step without scores", 2, 28, 4, NIMBUS_OUT_SHIFT, FORMAT},
    {"output kind 4", 1, 28, 4, 4, FORMAT},
    {"shift of scores", 2, 32, 4, 1, FORMAT},
    {"reserved bytes of a step", 1, 36, 1, 1, FORMAT},
    {"last reserved byte of a step", 1, 63, 1, 1, FORMAT},
    {"unknown flag", 1, 20, 4, 8, FORMAT},
    {"map of scores", 2, 20, 4, NIMBUS_FLAG_MAP, FORMAT},
    {"name not padded", 1, 64 + 20, 1, 'x', FORMAT},
    {"name not terminated", 1, 64 + 47, 1, 'x', FORMAT},
    {"padding before the first array", 1, 120, 1, 1, FORMAT},
};

/* Of a first step with D 3, M 3, C 2, H 2, 4-bit, scaled, mapped, f32 input: arrays at */
enum { COLUMNS = 128, THRESHOLDS = 192, TABLES = 256, BIAS = 320, SCALE = 384, OFFSET = 448 };

static const lie lookup_lies[] = {
    {"no codebooks", 1, 12, 4, 0, FORMAT},
    {"codebooks beyond the limit", 1, 12, 4, (1u << 24) + 1, LIMIT},
    {"codebooks beyond the bytes", 1, 12, 4, 1u << 24, TRUNCATED},
    {"no levels", 1, 16, 4, 0, FORMAT},
    {"nine levels", 1, 16, 4, 9, FORMAT},
    {"eight levels", 1, 16, 4, 8, TRUNCATED},
    {"no map flag, but a map", 1, 20, 4, NIMBUS_FLAG_4BIT, FORMAT},
    {"scaled, but said to be shifted", 1, 28, 4, NIMBUS_OUT_SHIFT, FORMAT},
    {"shift of a scaled step", 1, 32, 4, 1, FORMAT},
    {"column beyond the inputs", 1, COLUMNS + 12, 4, 3, FORMAT},
    {"threshold not a number", 1, THRESHOLDS + 20, 4, A_NAN, VALUE},
    {"unused half byte of a table row", 1, TABLES + 1, 1, 0x10, FORMAT},
    {"unused half byte of the last table row", 1, TABLES + 15, 1, 0xf0, FORMAT},
    {"padding between arrays", 1, TABLES + 20, 1, 1, FORMAT},
    {"bias too small", 1, BIAS, 4, 0x80000000, VALUE},
    {"bias too large", 1, BIAS + 8, 4, 0x7fffffff, VALUE},
    {"scale not a number", 1, SCALE, 4, A_NAN, VALUE},
    {"scale infinite", 1, SCALE + 8, 4, AN_INFINITY, VALUE},
    {"offset infinite", 1, OFFSET + 4, 4, AN_INFINITY | 0x80000000, VALUE},
    {"map cut short", 1, OFFSET + 64 + 255, 0, 0, TRUNCATED},
    {"infinite threshold is allowed", 1, THRESHOLDS, 4, AN_INFINITY, NIMBUS_OK},
};

/* Of a first exact step with D 3, M 3, f32 input: arrays at */
enum { IN_SCALE = 256, IN_OFFSET = 320 };

static const lie exact_lies[] = {
    {"codebooks of an exact step", 1, 12, 4, 1, FORMAT},
    {"levels of an exact step", 1, 16, 4, 1, FORMAT},
    {"columns per node in an exact step", 1, 20, 4, NIMBUS_FLAG_PER_NODE, FORMAT},
    {"4-bit entries in an exact step", 1, 20, 4, NIMBUS_FLAG_4BIT, FORMAT},
    {"shift too large", 1, 32, 4, 25, FORMAT},
    {"largest shift is allowed", 1, 32, 4, 24, NIMBUS_OK},
    {"input scale not a number", 1, IN_SCALE, 4, A_NAN, VALUE},
    {"input offset infinite", 1, IN_OFFSET + 8, 4, AN_INFINITY, VALUE},
    {"input offset cut short", 1, IN_OFFSET + 8, 0, 0, TRUNCATED},
    {"weights said to be tables", 1, 0, 4, NIMBUS_STEP_LOOKUP, FORMAT},
};

static void test_lies(void **state)
{
    (void)state;
    made_program lookup =
        made_small_program(NIMBUS_STEP_LOOKUP, NIMBUS_F32, NIMBUS_FLAG_4BIT | NIMBUS_FLAG_MAP);
    made_program exact = made_small_program(NIMBUS_STEP_EXACT, NIMBUS_F32, 0);
    nimbus_buffer lookup_file = made_write(&lookup), exact_file = made_write(&exact);
    check_lies(&lookup_file, header_lies, N_LIES(header_lies));
    check_lies(&lookup_file, lookup_lies, N_LIES(lookup_lies));
    check_lies(&exact_file, exact_lies, N_LIES(exact_lies));
    nimbus_buffer_free(&lookup_file);
    nimbus_buffer_free(&exact_file);
    made_free(&lookup);
    made_free(&exact);
}

static void test_sections(void **state)
{
    (void)state;
    made_program made = made_small_program(NIMBUS_STEP_LOOKUP, NIMBUS_U8, 0);
    nimbus_buffer file = made_write(&made);
    nimbus_section *s;
    size_t n;
    assert_int_equal(
        nimbus_container_read(file.bytes, file.size, NIMBUS_PROGRAM_MAGIC, 1, 0, &s, &n, NULL),
        NIMBUS_OK);
    assert_int_equal(n, 4);
    nimbus_section unknown = {NIMBUS_TAG('W', 'H', 'A', 'T'), (const uint8_t *)"x", 1};
    nimbus_section nul = {NIMBUS_TAG('M', 'E', 'T', 'A'), (const uint8_t *)"a\0b", 3};
    const struct {
        nimbus_section sections[5];
        size_t n;
        nimbus_status status;
    } cases[] = {
        {{s[0], s[1], s[2]}, 3, NIMBUS_OK},
        {{s[0]}, 0, FORMAT},
        {{s[1], s[2]}, 2, FORMAT},
        {{s[0], s[1]}, 2, FORMAT},
        {{s[0], s[2], s[1], s[3]}, 4, FORMAT},
        {{s[0], s[1], s[3], s[2]}, 4, FORMAT},
        {{s[0], s[1], s[2], s[2]}, 4, FORMAT},
        {{s[0], s[1], s[2], s[3], s[3]}, 5, FORMAT},
        {{s[0], s[0], s[1], s[2]}, 4, FORMAT},
        {{s[0], s[1], s[2], unknown}, 4, FORMAT},
        {{s[0], s[1], s[2], s[3], unknown}, 5, FORMAT},
        {{s[0], s[1], s[2], nul}, 4, FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_buffer out = {0};
        assert_int_equal(nimbus_container_write(&out, NIMBUS_PROGRAM_MAGIC, 1, 0, cases[i].sections,
                                                cases[i].n, NULL),
                         NIMBUS_OK);
        nimbus_status status = status_of(out.bytes, out.size);
        if (status != cases[i].status)
            fail_msg("case %zu: status \"%s\"", i, nimbus_status_name(status));
        nimbus_buffer_free(&out);
    }
    nimbus_free(s);
    nimbus_buffer_free(&file);
    made_free(&made);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_MEMORY 0
#elif defined(__has_feature)
#define COUNTS_MEMORY !(__has_feature(address_sanitizer) || __has_feature(memory_sanitizer))
#else
#define COUNTS_MEMORY 1
#endif

#if COUNTS_MEMORY
static size_t n_allocated;

/* In place of the C library's, which does the work: counts what base/memory.c asks for. */
int posix_memalign(void **p, size_t alignment, size_t size)
{
    static int (*real)(void **, size_t, size_t);
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "posix_memalign");
        memcpy(&real, &symbol, sizeof real);
    }
    n_allocated += size;
    return real(p, alignment, size);
}

/* All that loading ever allocates, freed again or not, is in proportion to the file. The worst
 * there is are trees of two 4-bit leaves with one output. */
static void test_memory(void **state)
{
    (void)state;
    made_random random = {1, 0};
    for (uint64_t seed = 0; seed < 200; seed++) {
        made_program made = made_random_program(seed, 1 + made_below(&random, 150));
        if (seed == 0) {
            made_free(&made);
            made = (made_program){.input_dtype = NIMBUS_U8, .n_steps = 1};
            made.steps[0] = (made_step){.kind = NIMBUS_STEP_LOOKUP,
                                        .D = 3,
                                        .M = 1,
                                        .C = 40000,
                                        .H = 1,
                                        .flags = NIMBUS_FLAG_4BIT,
                                        .input = NIMBUS_IN_U8,
                                        .output = NIMBUS_OUT_I32};
            made_fill_step(&random, &made.steps[0]);
        }
        nimbus_buffer file = made_write(&made);
        n_allocated = 0;
        assert_int_equal(status_of(file.bytes, file.size), NIMBUS_OK);
        if (n_allocated > 48 * file.size + (256 << 10))
            fail_msg("seed %d: %zu bytes for a file of %zu", (int)seed, n_allocated, file.size);
        for (size_t i = 0; i < N_LIES(header_lies); i++) {
            if (header_lies[i].section > made.n_steps || header_lies[i].n_bytes == 0)
                continue;
            nimbus_buffer bad = tell(&file, &header_lies[i]);
            n_allocated = 0;
            (void)status_of(bad.bytes, bad.size);
            assert_true(n_allocated <= 48 * file.size + (256 << 10));
            nimbus_buffer_free(&bad);
        }
        nimbus_buffer_free(&file);
        made_free(&made);
    }
}
#else
static void test_memory(void **state)
{
    (void)state;
    print_message("skipped: allocations cannot be counted under a sanitizer\n");
    skip();
}
#endif

static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        made_program made = made_random_program(seed, 20);
        nimbus_buffer file = made_write(&made);
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
        made_free(&made);
    }
}

static void test_info(void **state)
{
    (void)state;
    made_program made = made_small_program(NIMBUS_STEP_EXACT, NIMBUS_F32, 0);
    nimbus_buffer file = made_write(&made);
    nimbus_program *program = load(&file);
    const nimbus_program_info *info = nimbus_info(program);
    assert_int_equal(info->n_inputs, 3);
    assert_int_equal(info->n_outputs, 2);
    assert_int_equal(info->input_dtype, NIMBUS_F32);
    assert_int_equal(info->n_steps, 2);
    assert_true(info->output_scale == 0.125f);
    assert_int_equal(info->file_bytes, file.size);
    assert_int_equal(info->table_bytes, 9 + 4);
    assert_int_equal(info->lookups, 2);
    assert_int_equal(info->comparisons, 1);
    assert_int_equal(info->multiply_adds, 9);
    assert_string_equal(nimbus_metadata(program), "{\"a\":1}");

    nimbus_step_info step;
    assert_int_equal(nimbus_step(program, 2, &step), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_step(program, 0, &step), NIMBUS_OK);
    assert_int_equal(step.kind, NIMBUS_STEP_EXACT);
    assert_string_equal(step.name, "first");
    assert_int_equal(step.n_codebooks + step.n_levels + step.table_bits, 0);
    assert_int_equal(nimbus_step(program, 1, &step), NIMBUS_OK);
    assert_int_equal(step.kind, NIMBUS_STEP_LOOKUP);
    assert_string_equal(step.name, "later");
    assert_int_equal(step.n_inputs, 3);
    assert_int_equal(step.n_codebooks, 1);
    assert_int_equal(step.n_levels, 1);
    assert_int_equal(step.table_bits, 8);
    assert_int_equal(step.shared_columns, 1);

    float row[3] = {0};
    int32_t scores[4];
    size_t size = nimbus_scratch_size(program, 300);
    assert_int_equal(nimbus_scratch_size(program, 1u << 30), size);
    assert_true(nimbus_scratch_size(program, 1) < size);
    void *scratch = malloc(size);
    assert_int_equal(nimbus_run(NULL, row, 12, 1, scores, scratch), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_run(program, NULL, 12, 1, scores, scratch), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_run(program, row, 12, 1, NULL, scratch), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_run(program, row, 12, 1, scores, NULL), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_run(program, row, 11, 2, scores, scratch), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_run(program, row, 0, 1, scores, scratch), NIMBUS_OK);
    assert_int_equal(nimbus_run(program, NULL, 0, 0, NULL, NULL), NIMBUS_OK);
    free(scratch);

    nimbus_program *none = program;
    assert_int_equal(nimbus_load(NULL, 5, &none, NULL), NIMBUS_ERR_ARGUMENT);
    assert_null(none);
    assert_int_equal(nimbus_load(file.bytes, file.size, NULL, NULL), NIMBUS_ERR_ARGUMENT);
    nimbus_close(NULL);
    nimbus_close(program);
    nimbus_buffer_free(&file);
    made_free(&made);
}

static void test_isa(void **state)
{
    (void)state;
    made_program made = made_small_program(NIMBUS_STEP_LOOKUP, NIMBUS_U8, 0);
    nimbus_buffer file = made_write(&made);
    nimbus_program *program = NULL;
    nimbus_error error;
    setenv("NIMBUS_DISABLE_ISA", "abacus", 1);
    assert_int_equal(nimbus_load(file.bytes, file.size, &program, &error), NIMBUS_ERR_ARGUMENT);
    assert_non_null(strstr(error.message, "abacus"));
    for (size_t i = 1; i < nimbus_kernel_table_size; i++) {
        setenv("NIMBUS_DISABLE_ISA", nimbus_kernel_table[i].isa, 1);
        program = load(&file);
        assert_string_not_equal(nimbus_isa(program), nimbus_kernel_table[i].isa);
        nimbus_close(program);
    }
    unsetenv("NIMBUS_DISABLE_ISA");
    nimbus_buffer_free(&file);
    made_free(&made);
}

static void test_open(void **state)
{
    (void)state;
    made_program made = made_small_program(NIMBUS_STEP_LOOKUP, NIMBUS_U8, 0);
    nimbus_buffer file = made_write(&made);
    const char *folder = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/nimbus_test_run_XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    nimbus_program *program = NULL;
    nimbus_error error;
    assert_int_equal(nimbus_file_write(path, file.bytes, file.size, &error), NIMBUS_OK);
    assert_int_equal(nimbus_open(path, &program, &error), NIMBUS_OK);
    nimbus_close(program);
    assert_int_equal(nimbus_file_write(path, file.bytes, file.size - 1, &error), NIMBUS_OK);
    assert_int_equal(nimbus_open(path, &program, &error), NIMBUS_ERR_TRUNCATED);
    assert_null(program);
    assert_non_null(strstr(error.message, path));
    unlink(path);
    assert_int_equal(nimbus_open(path, &program, &error), NIMBUS_ERR_IO);
    assert_int_equal(nimbus_open(NULL, &program, &error), NIMBUS_ERR_ARGUMENT);
    nimbus_buffer_free(&file);
    made_free(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage),    cmocka_unit_test(test_lies),
        cmocka_unit_test(test_sections),  cmocka_unit_test(test_memory),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_info),
        cmocka_unit_test(test_isa),       cmocka_unit_test(test_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
