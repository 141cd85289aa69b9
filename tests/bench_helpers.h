/* bench_helpers.h - runs the tool in a folder of its own, and reads what bench reports */
#ifndef NIMBUS_TESTS_BENCH_HELPERS_H
#define NIMBUS_TESTS_BENCH_HELPERS_H

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/base.h"

static char folder[64];
static char *out, *err; /* of the last command */

static inline unsigned char *read_bytes(const char *name, size_t *n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *n = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*n + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, file), *n);
    bytes[*n] = 0;
    fclose(file);
    return bytes;
}

/* Runs "nimbus ..." in the folder; returns the exit code. */
static inline int tool(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline int tool(const char *format, ...)
{
    char command[1024], line[2048];
    size_t n;
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    snprintf(line, sizeof line, "cd '%s' && '%s' %s >out.txt 2>err.txt", folder, TEST_TOOL,
             command);
    int status = system(line);
    free(out);
    free(err);
    out = (char *)read_bytes("out.txt", &n);
    err = (char *)read_bytes("err.txt", &n);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void check_code(int code, int expected)
{
    if (code != expected)
        fail_msg("exit code %d, expected %d; out:\n%s\nerr:\n%s", code, expected, out, err);
}

static inline void check_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in:\n%.2000s", part, text);
}

static inline const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        fail_msg("no \"%s\" in the report", key);
    return value;
}

static inline double number(const json_t *object, const char *key)
{
    const json_t *value = member(object, key);
    if (!json_is_number(value))
        fail_msg("\"%s\" is not a number", key);
    return json_number_value(value);
}

/* The median of {"median", "p10", "p90"}, which must be in order. */
static inline double median(const json_t *object, const char *key)
{
    const json_t *time = member(object, key);
    double middle = number(time, "median");
    assert_true(number(time, "p10") > 0);
    assert_true(number(time, "p10") <= middle && middle <= number(time, "p90"));
    return middle;
}

static inline void check_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-6 * fabs(expected)))
        fail_msg("%.9g, expected %.9g", value, expected);
}

static inline int make_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/nimbus-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void)
{
    char command[128];
    free(out);
    free(err);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

#endif
