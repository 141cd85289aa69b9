/* test_export.c - src/export: C that must give the bits of the runtime */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "export/export.h"
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

/* Builds the self-test of an exported program and runs it. */
static void assert_selftest(const nimbus_export *result, const char *what)
{
    char command[500];
    if (nimbus_export_write(result, folder, &error))
        fail_msg("%s", error.message);
    (void)snprintf(command, sizeof command,
                   "cc -std=c99 -O1 -Wall -Wextra -Wconversion -Werror -ffreestanding "
                   "-DSELFTEST_MAIN %s/p.c %s/p_test.c -o %s/p && %s/p",
                   folder, folder, folder, folder);
    const int code = system(command);
    if (code)
        fail_msg("%s: \"%s\" ended with %d", what, command, code >> 8);
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
            assert_selftest(result, what);
            nimbus_export_free(result);
        }
        nimbus_buffer_free(&program);
        made_free(&p);
    }
    print_message("%d refused\n", (int)n_refused);
    assert_in_range(n_refused, 1, 20);
}

static void test_random_images(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
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
        assert_selftest(result, what);
        nimbus_export_free(result);
        nimbus_buffer_free(&program);
        made_image_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_random_images),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
