/* test_export.c - src/export: C that must give the bits of the runtime */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "export/writer.h"
#include "image_maker.h"
#include "program_maker.h"

static nimbus_error error;

/* A folder of this run, removed at its end. */
static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/nimbus_export_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[96];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static nimbus_export *export_program(const nimbus_buffer *program,
                                     const nimbus_export_options *options)
{
    nimbus_export *result;
    nimbus_status status = nimbus_export_c(program->bytes, program->size, options, &result, &error);
    if (status)
        fail_msg("%s", error.message);
    return result;
}

static bool have_clang(void)
{
    static int have = -1;
    if (have < 0)
        have = system("clang --version >/dev/null 2>&1") == 0;
    return have;
}

/* Builds the self-test of an exported program and runs it: with vector registers, as plain C with
 * all that is undefined trapped, or by clang, as the number says. */
static void assert_selftest_with(const nimbus_export *result, const char *what, size_t number)
{
    static const char *const compilers[] = {
        "cc -O1", "cc -O1 -DP_PORTABLE -fsanitize=undefined -fno-sanitize-recover=all",
        "clang -O1 -DP_PORTABLE"};
    const char *compiler = compilers[number % (have_clang() ? 3 : 2)];
    char command[700];
    if (nimbus_export_write(result, folder, &error))
        fail_msg("%s", error.message);
    (void)snprintf(command, sizeof command,
                   "%s -std=c99 -Wall -Wextra -Wconversion -Werror -ffreestanding "
                   "-DSELFTEST_MAIN %s/p.c %s/p_test.c -o %s/p && %s/p",
                   compiler, folder, folder, folder, folder);
    const int code = system(command);
    if (code)
        fail_msg("%s: \"%s\" ended with %d", what, command, code >> 8);
}

static void assert_selftest(const nimbus_export *result, const char *what)
{
    assert_selftest_with(result, what, 0);
}

static const nimbus_export_input integers[] = {NIMBUS_EXPORT_I8, NIMBUS_EXPORT_U8,
                                               NIMBUS_EXPORT_I16, NIMBUS_EXPORT_I32};

static bool has_exact_float_step(const made_program *p)
{
    return p->input_dtype == NIMBUS_F32 && p->steps[0].kind == NIMBUS_STEP_EXACT;
}

static void test_random_programs(void **state)
{
    (void)state;
    size_t n_refused = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        char what[64];
        made_program p = made_random_program(seed, 70);
        nimbus_buffer program = made_write(&p);
        nimbus_export_options options = NIMBUS_EXPORT_OPTIONS_INIT;
        options.prefix = "p";
        options.n_golden = 32;
        if (seed % 3 == 1)
            options.table_bits = 4 + (unsigned)(seed % 5);
        if (p.input_dtype == NIMBUS_F32 && seed % 2)
            options.input = integers[seed / 2 % 4];
        (void)snprintf(what, sizeof what, "program %d", (int)seed);
        if (has_exact_float_step(&p)) {
            nimbus_export *result;
            assert_int_equal(
                nimbus_export_c(program.bytes, program.size, &options, &result, &error),
                NIMBUS_ERR_UNSUPPORTED);
            assert_null(result);
            assert_non_null(strstr(error.message, "is exact and reads floats"));
            n_refused++;
        } else {
            nimbus_export *result = export_program(&program, &options);
            assert_selftest_with(result, what, seed / 2);
            nimbus_export_free(result);
        }
        nimbus_buffer_free(&program);
        made_free(&p);
    }
    print_message("%d refused\n", (int)n_refused);
    assert_in_range(n_refused, 1, 20);
}

/* What the C of images can have; the random ones below have all of it. */
static const char *const parts[] = {"gather(",    "frame(",      "correct_line(", "finish_stairs(",
                                    "map_plane(", "sum_of(",     "most_of(",      "v[0]",
                                    "v[j]",       "-128, patch", "scale += 2",    "scale += 256"};

static void test_random_images(void **state)
{
    (void)state;
    size_t n_seen[sizeof parts / sizeof *parts] = {0};
    for (uint64_t draw = 0; draw < 41; draw++) {
        const uint64_t seed = draw < 40 ? draw : 54; /* the last for its maps by channel */
        char what[64];
        made_image p = made_random_image(seed, 9, 12);
        nimbus_buffer program = made_image_write(&p);
        nimbus_export_options options = NIMBUS_EXPORT_OPTIONS_INIT;
        options.prefix = "p";
        options.n_golden = 8;
        if (seed % 3 == 1)
            options.table_bits = 4 + (unsigned)(seed % 5);
        (void)snprintf(what, sizeof what, "image program %d", (int)seed);
        nimbus_export *result = export_program(&program, &options);
        assert_selftest_with(result, what, seed / 2);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            n_seen[i] += strstr((const char *)result->files[0].bytes, parts[i]) != NULL;
        nimbus_export_free(result);
        nimbus_buffer_free(&program);
        made_image_free(&p);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (n_seen[i] == 0)
            fail_msg("no program has %s", parts[i]);
}

static nimbus_status try_export(const nimbus_buffer *program, nimbus_export_options options)
{
    nimbus_export *result;
    error.message[0] = '\0';
    nimbus_status status =
        nimbus_export_c(program->bytes, program->size, &options, &result, &error);
    if (status)
        assert_null(result);
    nimbus_export_free(result);
    return status;
}

#define WITH(...) ((nimbus_export_options){.size = sizeof(nimbus_export_options), __VA_ARGS__})

static void test_bad_options(void **state)
{
    (void)state;
    made_program p = made_small_program(NIMBUS_STEP_LOOKUP, NIMBUS_U8, 0);
    nimbus_buffer program = made_write(&p);
    const struct {
        nimbus_export_options options;
        const char *said;
    } cases[] = {{WITH(.prefix = "two words"), "prefix is \"two words\""},
                 {WITH(.prefix = "3rd"), "prefix is \"3rd\""},
                 {WITH(.prefix = ""), "prefix is \"\""},
                 {WITH(.prefix = "a123456789012345678901234567890123"), "at most 32"},
                 {WITH(.table_bits = 3), "table_bits is 3, expected 4 to 8"},
                 {WITH(.table_bits = 9), "table_bits is 9, expected 4 to 8"},
                 {WITH(.input = NIMBUS_EXPORT_I16), "reads u8, so its input cannot be int16_t"},
                 {WITH(.input = (nimbus_export_input)9), "input is 9"},
                 {WITH(.n_golden = 65), "n_golden is 65, expected at most 64"},
                 {{.size = 1}, "options->size is 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(try_export(&program, cases[i].options), NIMBUS_ERR_ARGUMENT);
        if (!strstr(error.message, cases[i].said))
            fail_msg("expected \"%s\" in: %s", cases[i].said, error.message);
    }
    nimbus_export *result;
    assert_int_equal(nimbus_export_c(NULL, 0, NULL, &result, &error), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_export_c(program.bytes, program.size, NULL, NULL, &error),
                     NIMBUS_ERR_ARGUMENT);
    program.bytes[40] ^= 1;
    assert_int_equal(try_export(&program, WITH(.prefix = "p")), NIMBUS_ERR_CHECKSUM);
    nimbus_buffer_free(&program);
    made_free(&p);
}

/* Tables are narrowed until they fit, as little as that takes; what never fits says what would. */
static void test_limits(void **state)
{
    (void)state;
    made_program p = made_random_program(8, 200);
    nimbus_buffer program = made_write(&p);
    nimbus_export_options options = WITH(.prefix = "p", .code_bytes = 1);
    nimbus_export *whole = export_program(&program, &options);
    options.table_bits = 4;
    nimbus_export *least = export_program(&program, &options);
    const size_t most = whole->report.array_bytes, fewest = least->report.array_bytes;
    assert_true(fewest < most);
    options.table_bits = 0;
    for (size_t i = 0; i <= 4; i++) {
        options.most_flash = fewest + 1 + (most - fewest) * i / 4;
        nimbus_export *fitted = export_program(&program, &options);
        assert_true(fitted->report.array_bytes + 1 <= options.most_flash);
        if (i == 4)
            assert_int_equal(fitted->report.array_bytes, most);
        assert_selftest(fitted, "fitted");
        nimbus_export_free(fitted);
    }
    options.most_flash = fewest / 2;
    assert_int_equal(try_export(&program, options), NIMBUS_ERR_LIMIT);
    assert_non_null(strstr(error.message, "bytes of flash with tables of 4 bits"));
    assert_int_equal(try_export(&program, WITH(.most_ram = whole->report.ram_bytes)), NIMBUS_OK);
    assert_int_equal(try_export(&program, WITH(.most_ram = whole->report.ram_bytes - 1)),
                     NIMBUS_ERR_LIMIT);
    nimbus_export_free(whole);
    nimbus_export_free(least);
    nimbus_buffer_free(&program);
    made_free(&p);
}

/* The .nimbus file beside the C is the program with the tables that the C has. */
static void test_narrow_program(void **state)
{
    (void)state;
    made_program p = made_random_program(8, 60);
    nimbus_buffer program = made_write(&p);
    const nimbus_export_options options = WITH(.prefix = "p", .table_bits = 5);
    nimbus_export *result = export_program(&program, &options);
    const nimbus_export_file *file = &result->files[5];
    assert_string_equal(file->name, "p.nimbus");
    nimbus_stored_program stored = {0};
    assert_int_equal(nimbus_stored_read(file->bytes, file->n_bytes, &stored, &error), NIMBUS_OK);
    size_t n = 0;
    for (size_t i = 0; i < stored.info.n_steps; i++) {
        const nimbus_step_info *info = &stored.steps[i].info;
        for (size_t e = 0; e < (info->n_codebooks << info->n_levels) * info->n_outputs; e++, n++)
            assert_int_equal(nimbus_table_entry(info, stored.steps[i].arrays.tables,
                                                e / info->n_outputs, e % info->n_outputs) %
                                 (info->table_bits == 8 ? 8 : 1),
                             0);
    }
    assert_true(n > 0);
    nimbus_stored_free(&stored);
    nimbus_export_free(result);
    nimbus_buffer_free(&program);
    made_free(&p);
}

typedef struct told {
    size_t n;
    int64_t sums[256];
    int values[256];
} told;

static void tell(void *arg, int64_t sum, int value)
{
    told *t = arg;
    assert_in_range(t->n, 0, 255);
    t->sums[t->n] = sum;
    t->values[t->n++] = value;
}

/* Stairs are where the outputs change, and lines meet them but for the sums that are told. */
static void test_lines(void **state)
{
    (void)state;
    size_t n_lines = 0, n_with_faults = 0;
    for (uint64_t i = 0; i < 400; i++) {
        const int64_t low = -(int64_t)nimbus_random_below(1, 1, i, 30000) - 1;
        const int64_t high = (int64_t)nimbus_random_below(1, 2, i, 30000) + 1;
        const float scale =
            (float)((nimbus_random_uniform(1, 3, i) - 0.3) * 400 / (double)(high - low));
        const float offset = (float)(nimbus_random_uniform(1, 4, i) * 100 - 50);
        told t = {0};
        nimbus_stairs stairs;
        nimbus_line line;
        nimbus_stairs_of_integer(scale, offset, low, high, &stairs);
        unsigned shift = 20;
        while (shift && (nimbus_stairs_reach(&stairs) > INT32_MAX >> shift ||
                         !nimbus_line_fit(&stairs, shift, &line)))
            shift--;
        const int64_t most = INT32_MAX >> shift;
        const bool fits = nimbus_line_fit(&stairs, shift, &line) &&
                          nimbus_line_faults(&stairs, shift, &line, NULL, NULL) < 64;
        const size_t n_faults = fits ? nimbus_line_faults(&stairs, shift, &line, tell, &t) : 0;
        assert_int_equal(n_faults, t.n);
        n_lines += fits;
        n_with_faults += t.n > 0;
        for (int64_t x = low; x <= high; x++) {
            const int64_t v = stairs.falls ? -x : x;
            const int64_t limited = v > most ? most : v < -most ? -most : v;
            int by_stairs = -128, by_line = -128;
            if (fits && stairs.falls)
                assert_true(line.slope > 0); /* or its sign could not say so */
            for (int k = 1; k < 256; k++) {
                by_stairs += v >= stairs.at[k];
                by_line += fits && limited * (1 << shift) >= line.start + (int64_t)k * line.slope;
            }
            for (size_t f = 0; f < t.n; f++)
                by_line = t.sums[f] == v ? t.values[f] : by_line;
            const int want = nimbus_scale_to_i8((float)x, scale, offset);
            assert_int_equal(by_stairs, want);
            if (fits)
                assert_int_equal(by_line, want);
        }
    }
    print_message("%d lines, %d with faults\n", (int)n_lines, (int)n_with_faults);
    assert_true(n_lines > 380);
}

/* One tree and outputs whose sums end near +-2^31, or become the same whatever they are. */
static void test_extremes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        made_program p = made_small_program(NIMBUS_STEP_LOOKUP, i % 2 ? NIMBUS_F32 : NIMBUS_U8, 0);
        made_step *first = &p.steps[0], *last = &p.steps[1];
        if (i < 4) {
            first->output = NIMBUS_OUT_SCALED;
            first->shift = 0;
            free(first->scale);
            free(first->offset);
            first->scale = made_array(first->M, sizeof(float));
            first->offset = made_array(first->M, sizeof(float));
            for (uint32_t m = 0; m < first->M; m++) {
                first->scale[m] = m % 3 == 0 ? -0.01f : m % 3 == 1 ? 0 : 0.01f;
                first->offset[m] = i < 2 ? -200 : 300;
            }
        }
        int32_t most = INT32_MAX - 128 * (int32_t)last->C;
        for (uint32_t m = 0; m < last->M; m++)
            last->bias[m] = m % 2 ? most : -most;
        if (i % 2)
            for (size_t n = 0; n < first->C * ((1u << first->H) - 1); n++)
                first->f_thresholds[n] = 70000 + 1000.5f * (float)n; /* all positive, and large */
        nimbus_buffer program = made_write(&p);
        for (unsigned number = 0; number < 3; number++) {
            const nimbus_export_options options =
                WITH(.prefix = "p", .n_golden = 20,
                     .input = i % 2 && number ? NIMBUS_EXPORT_I32 : NIMBUS_EXPORT_AS_STORED);
            nimbus_export *result = export_program(&program, &options);
            assert_selftest_with(result, "extremes", number);
            nimbus_export_free(result);
        }
        nimbus_buffer_free(&program);
        made_free(&p);
    }
}

/* Integers that floats do not hold exactly count as the floats they become. */
static void test_floor(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        const int64_t near = (int64_t)nimbus_random_below(1, 1, i, 4000000000u) - 2000000000;
        const float t = (float)near;
        const int64_t found = nimbus_writer_floor_of(t, NIMBUS_EXPORT_I32);
        assert_false((float)found > t);
        assert_true((float)(found + 1) > t);
    }
    assert_int_equal(nimbus_writer_floor_of(INFINITY, NIMBUS_EXPORT_I8), 127);
    assert_int_equal(nimbus_writer_floor_of(-INFINITY, NIMBUS_EXPORT_U8), -1);
    assert_int_equal(nimbus_writer_floor_of(-0.5f, NIMBUS_EXPORT_I16), -1);
}

/* Out of memory anywhere is a clean error. */
static void assert_allocations_can_fail(nimbus_buffer *program)
{
    const nimbus_export_options options = WITH(.prefix = "p", .most_flash = 1 << 20);
    long n = 0;
    for (nimbus_status status = NIMBUS_ERR_MEMORY; status; n++) {
        nimbus_fail_alloc_after = n + 1;
        status = try_export(program, options);
        nimbus_fail_alloc_after = 0;
        if (status)
            assert_int_equal(status, NIMBUS_ERR_MEMORY);
    }
    print_message("%ld allocations\n", n);
    assert_true(n > 10);
    nimbus_buffer_free(program);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    made_program p = made_random_program(8, 30);
    nimbus_buffer program = made_write(&p);
    assert_allocations_can_fail(&program);
    made_free(&p);
    made_image q = made_random_image(3, 9, 12);
    program = made_image_write(&q);
    assert_allocations_can_fail(&program);
    made_image_free(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_random_images),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_narrow_program),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
