/* test_threads_tool.c - rows split over threads: the tool and the example give the scores of one */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"

enum { PIXELS = 784, ROWS = 3000, CLASSES = 10, TEXT = 1 << 20 };

static char folder[64];

/* A shell command in the folder, where "nimbus" and "threads" are the tool and the example. */
static void shell(const char *command, int expected)
{
    char line[2048];
    (void)snprintf(line, sizeof line,
                   "cd '%s' && nimbus() { '%s' \"$@\"; } && threads() { '%s' \"$@\"; } && { %s; } "
                   "2>err.txt",
                   folder, TEST_TOOL, TEST_EXAMPLE_THREADS, command);
    int status = system(line);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("%s: status %d, expected exit code %d", command, status, expected);
}

static char *text_of(const char *name, char *text)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(text, 1, TEXT - 1, file);
    text[n] = 0;
    (void)fclose(file);
    return text;
}

static int make_program(void **state)
{
    (void)state;
    char path[128];
    (void)snprintf(folder, sizeof folder, "/tmp/nimbus-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    shell("nimbus train --data digits --rows 400 --net mlp:24 --epochs 1 -t 1 -q -o float.net "
          ">/dev/null && nimbus convert float.net --data digits --rows 400 --epochs 1 -t 1 -q -o "
          "lookup.net >/dev/null && nimbus compile lookup.net -q -o d.nimbus >/dev/null",
          0);
    (void)snprintf(path, sizeof path, "%s/rows.u8", folder);
    FILE *file = fopen(path, "wb");
    for (size_t i = 0; file && i < (size_t)PIXELS * ROWS; i++)
        (void)fputc((int)nimbus_random_below(3, 1, i, 256), file);
    return file && fclose(file) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    shell("rm -rf \"$PWD\"", 0);
    return 0;
}

/* The classes line by line, each row run alone through the library. */
static void expected_lines(char *classes)
{
    static unsigned char rows[PIXELS * ROWS];
    static int32_t scores[ROWS * CLASSES];
    nimbus_program *program;
    nimbus_error error;
    char path[128];
    size_t at = 0;
    (void)snprintf(path, sizeof path, "%s/d.nimbus", folder);
    assert_int_equal(nimbus_open(path, &program, &error), NIMBUS_OK);
    assert_int_equal(nimbus_info(program)->n_outputs, CLASSES);
    for (size_t i = 0; i < sizeof rows; i++)
        rows[i] = (unsigned char)nimbus_random_below(3, 1, i, 256);
    void *scratch = malloc(nimbus_scratch_size(program, 1));
    assert_non_null(scratch);
    for (size_t r = 0; r < ROWS; r++) { /* one at a time */
        int32_t *s = scores + r * CLASSES;
        size_t best = 0;
        assert_int_equal(nimbus_run(program, rows + r * PIXELS, PIXELS, 1, s, scratch), NIMBUS_OK);
        for (size_t m = 1; m < CLASSES; m++)
            best = s[m] > s[best] ? m : best;
        at += (size_t)snprintf(classes + at, TEXT - at, "%zu\n", best);
    }
    free(scratch);
    nimbus_close(program);
}

static void test_example(void **state)
{
    (void)state;
    static char expected[TEXT], found[TEXT];
    static const char *const counts[] = {"1", "2", "3", "7", "64"};
    expected_lines(expected);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char command[100];
        (void)snprintf(command, sizeof command, "threads d.nimbus rows.u8 %s >classes.txt",
                       counts[i]);
        shell(command, 0);
        assert_string_equal(text_of("classes.txt", found), expected);
    }
    shell("head -c 1568 rows.u8 >two.u8; threads d.nimbus two.u8 5 >classes.txt", 0);
    text_of("classes.txt", found);
    assert_int_equal(strlen(found), 4);
    assert_memory_equal(expected, found, 4);
    shell("threads d.nimbus rows.u8 0", 2);
    shell("threads d.nimbus d.nimbus 2", 1);
    shell("threads rows.u8 rows.u8 2", 1);
}

static void test_run(void **state)
{
    (void)state;
    static char one[TEXT], several[TEXT];
    static const char *const more[] = {"", "-t 2", "-t 5"};
    shell("nimbus run d.nimbus rows.u8 -f u8 -t 1 >one.csv", 0);
    text_of("one.csv", one);
    size_t lines = 0;
    for (const char *p = one; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, ROWS + 1);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        char command[100];
        (void)snprintf(command, sizeof command,
                       "cat rows.u8 | nimbus run d.nimbus - -f u8 %s >several.csv", more[i]);
        shell(command, 0);
        assert_string_equal(text_of("several.csv", several), one);
    }
}

static void test_eval(void **state)
{
    (void)state;
    static char one[TEXT], several[TEXT];
    shell("nimbus eval d.nimbus --data digits --rows 2000 --json -t 1 >one.json", 0);
    shell("nimbus eval d.nimbus --data digits --rows 2000 --json -t 3 >several.json", 0);
    assert_string_equal(text_of("several.json", several), text_of("one.json", one));
    assert_non_null(strstr(one, "\"rows\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_eval),
    };
    return cmocka_run_group_tests(tests, make_program, remove_folder);
}
