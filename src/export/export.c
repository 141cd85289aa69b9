/* export.c - a program becomes stand-alone C: options, limits, and the files around it */
#include "export/export.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFAULT_GOLDEN = 4, MOST_GOLDEN = 64, DEFAULT_CODE_BYTES = 4096 };

static bool is_identifier(const char *name)
{
    size_t n = 0;
    for (; name[n]; n++) {
        const char c = name[n];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(n && c >= '0' && c <= '9'))
            return false;
    }
    /* NAME_test.c is the test of NAME; names that begin with _ are the compiler's */
    const bool is_test = n >= 5 && strcmp(name + n - 5, "_test") == 0;
    return n > 0 && n <= NIMBUS_MOST_PREFIX && name[0] != '_' && !is_test;
}

static nimbus_status check_options(const nimbus_export_options *options, nimbus_error *error)
{
    if (options->size != sizeof *options)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "options->size is %zu, expected %zu",
                           options->size, sizeof *options);
    if (options->prefix && !is_identifier(options->prefix))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "prefix is \"%s\", expected a letter, then letters, digits and "
                           "underscores, at most %d, not ending in _test",
                           options->prefix, NIMBUS_MOST_PREFIX);
    if (options->table_bits && (options->table_bits < 4 || options->table_bits > 8))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "table_bits is %u, expected 4 to 8",
                           options->table_bits);
    if ((int)options->input < 0 || options->input > NIMBUS_EXPORT_F32)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "input is %d, expected 0 to %d",
                           (int)options->input, NIMBUS_EXPORT_F32);
    if (options->n_golden > MOST_GOLDEN)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "n_golden is %zu, expected at most %d",
                           options->n_golden, MOST_GOLDEN);
    return NIMBUS_OK;
}

static nimbus_status choose_input(const nimbus_stored_program *program, nimbus_export_input asked,
                                  nimbus_export_input *out, nimbus_error *error)
{
    const bool u8 = program->info.input_dtype == NIMBUS_U8;
    *out = asked ? asked : u8 ? NIMBUS_EXPORT_U8 : NIMBUS_EXPORT_F32;
    if (u8 && *out != NIMBUS_EXPORT_U8)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "the program reads u8, so its input cannot be %s",
                           nimbus_input_type(*out));
    return NIMBUS_OK;
}

/* ---- what fits ------------------------------------------------------------------------------ */

typedef struct attempt {
    const nimbus_stored_program *original;
    const void *bytes;
    nimbus_buffer program;        /* the file of a narrowed program */
    nimbus_stored_program narrow; /* read from it */
    nimbus_buffer source;
    nimbus_export_report report;
} attempt;

/* Writes the C of the program with so many bits in its steps. */
static nimbus_status write_with(attempt *a, const nimbus_export_plan *plan, nimbus_error *error)
{
    nimbus_stored_free(&a->narrow);
    nimbus_buffer_free(&a->program);
    nimbus_buffer_free(&a->source);
    nimbus_status status = nimbus_narrow(a->original, a->bytes, plan->bits, &a->program, error);
    if (!status)
        status = nimbus_stored_read(a->program.bytes, a->program.size, &a->narrow, error);
    if (!status)
        status = nimbus_source_write(&a->narrow, plan, &a->source, &a->report, error);
    return status;
}

static bool has_tables(const nimbus_stored_program *program, size_t i)
{
    return program->steps[i].arrays.tables && program->steps[i].info.table_bits == 8;
}

/* How much worse the tables of a step become with a bit less, of what is in them, for each entry.
 */
static double harm_of(const nimbus_stored_program *program, size_t i, unsigned bits)
{
    const nimbus_step_info *info = &program->steps[i].info;
    const double entries = (double)(info->n_codebooks << info->n_levels) * (double)info->n_outputs;
    const double more = nimbus_narrow_error(&program->steps[i], bits - 1) -
                        nimbus_narrow_error(&program->steps[i], bits);
    return more / (nimbus_table_energy(&program->steps[i]) + 1) / entries;
}

static bool fits(const attempt *a, const nimbus_export_options *options)
{
    const size_t code = options->code_bytes ? options->code_bytes : DEFAULT_CODE_BYTES;
    return !options->most_flash || a->report.array_bytes + code <= options->most_flash;
}

/* Takes bits, one at a time where that does the least harm, until all fits; *fitting is false if it
 * never does. */
static nimbus_status take_bits(attempt *a, const nimbus_export_options *options,
                               const nimbus_export_plan *plan, unsigned *bits, bool *fitting,
                               nimbus_error *error)
{
    const nimbus_stored_program *program = a->original;
    for (;;) {
        nimbus_status status = write_with(a, plan, error);
        size_t best = SIZE_MAX;
        double least = 0;
        if (status || (*fitting = fits(a, options)) || options->table_bits || options->step_bits)
            return status;
        for (size_t i = 0; i < program->info.n_steps; i++) {
            if (!has_tables(program, i) || bits[i] == 4)
                continue;
            const double harm = harm_of(program, i, bits[i]);
            if (best == SIZE_MAX || harm < least) {
                best = i;
                least = harm;
            }
        }
        if (best == SIZE_MAX)
            return NIMBUS_OK;
        bits[best]--;
    }
}

/* Gives bits back to the steps that have lost some, wherever all still fits. */
static nimbus_status give_bits(attempt *a, const nimbus_export_options *options,
                               const nimbus_export_plan *plan, unsigned *bits, nimbus_error *error)
{
    const nimbus_stored_program *program = a->original;
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < program->info.n_steps && !status; i++)
        while (has_tables(program, i) && bits[i] < 8 && !status) {
            bits[i]++;
            status = write_with(a, plan, error);
            if (status || fits(a, options))
                continue;
            bits[i]--;
            status = write_with(a, plan, error);
            break;
        }
    return status;
}

static nimbus_status fit(attempt *a, const nimbus_export_options *options,
                         const nimbus_export_plan *plan, unsigned *bits, nimbus_error *error)
{
    const size_t code = options->code_bytes ? options->code_bytes : DEFAULT_CODE_BYTES;
    bool fitting = false;
    for (size_t i = 0; i < a->original->info.n_steps; i++)
        bits[i] = options->step_bits && options->step_bits[i] ? options->step_bits[i]
                  : options->table_bits                       ? options->table_bits
                                                              : 8;
    const bool fixed = options->table_bits || options->step_bits;
    nimbus_status status = take_bits(a, options, plan, bits, &fitting, error);
    if (!status && fitting && !fixed)
        status = give_bits(a, options, plan, bits, error);
    if (status)
        return status;
    if (!fitting)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "needs %zu bytes of flash with tables of %u bits, %zu of them for code; "
                           "%zu are allowed: %s",
                           a->report.array_bytes + code,
                           options->table_bits ? options->table_bits : 4, code, options->most_flash,
                           options->table_bits > 4
                               ? "allow fewer bits"
                               : "a net with fewer codebooks or narrower layers is smaller");
    if (options->most_ram && a->report.ram_bytes > options->most_ram)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "needs %zu bytes of RAM, %zu are allowed: they hold the values between "
                           "layers, so a net with narrower layers or smaller images needs less",
                           a->report.ram_bytes, options->most_ram);
    return NIMBUS_OK;
}

/* ---- files ---------------------------------------------------------------------------------- */

static void write_header(const nimbus_stored_program *program, const nimbus_export_plan *plan,
                         const nimbus_export_report *report, nimbus_buffer *b)
{
    const nimbus_program_info *info = &program->info;
    char big[NIMBUS_MOST_PREFIX + 1];
    int64_t low, high;
    nimbus_input_range(plan->input, &low, &high);
    nimbus_upper(plan->prefix, big);
    nimbus_text(b, "/* %s.h - a lookup program as plain C (C99, nothing else needed)\n *\n",
                plan->prefix);
    nimbus_text(b, " * %s_run reads a row of %zu ", plan->prefix, info->n_inputs);
    if (plan->input == NIMBUS_EXPORT_F32)
        nimbus_text(b, "floats, as training read them: what the net\n"
                       " * normalised is folded in (the columns of a table are encoded before). "
                       "They are compared as\n"
                       " * integers; what is no number counts as not greater.\n");
    else
        nimbus_text(
            b,
            "integers in %lld..%lld, as they came to training:\n * nothing is to be normalised.\n",
            (long long)low, (long long)high);
    if (info->height)
        nimbus_text(b, " * It is an image, [channel][y][x] of %zu x %zu x %zu.\n", info->channels,
                    info->height, info->width);
    nimbus_text(
        b,
        " * Both arrays need the alignment of their elements. The largest score is the class; "
        "scores times\n * %.9g are the net's outputs. %zu bytes of static buffers are "
        "written: one call at a time. */\n",
        (double)info->output_scale, report->ram_bytes);
    nimbus_text(b, "#ifndef %s_H\n#define %s_H\n\n#include <stdint.h>\n\n", big, big);
    nimbus_text(b, "#define %s_INPUTS  %zu\n#define %s_OUTPUTS %zu\n\n", big, info->n_inputs, big,
                info->n_outputs);
    nimbus_text(b, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    nimbus_text(b, "void %s_run(const %s input[%zu], int32_t scores[%zu]);\n\n", plan->prefix,
                nimbus_input_type(plan->input), info->n_inputs, info->n_outputs);
    nimbus_text(
        b,
        "/* In %s_test.c: 0 if its rows get the scores they must, else the number of the first "
        "that does\n   not, from 1. */\nint %s_selftest(void);\n\n",
        plan->prefix, plan->prefix);
    nimbus_text(b, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
}

static void write_makefile(const nimbus_export_plan *plan, nimbus_buffer *b)
{
    const char *p = plan->prefix;
    nimbus_text(b,
                "# %s.mk - include it in a makefile, or use it alone: make -f %s.mk %s-selftest\n"
                "%s_GOAL := $(.DEFAULT_GOAL)\n"
                "%s_DIR := $(dir $(lastword $(MAKEFILE_LIST)))\n"
                "%s_CFLAGS ?= -O2 -std=c99 -Wall -Wextra -Wconversion\n\n",
                p, p, p, p, p, p);
    nimbus_text(
        b,
        "%s.o: $(%s_DIR)%s.c $(%s_DIR)%s.h\n"
        "\t$(CC) $(%s_CFLAGS) $(CFLAGS) -c $< -o $@\n\n"
        ".PHONY: %s-selftest\n"
        "%s-selftest:\n"
        "\t$(CC) $(%s_CFLAGS) $(CFLAGS) -DSELFTEST_MAIN $(%s_DIR)%s.c $(%s_DIR)%s_test.c -o $@\n"
        "\t./$@ && echo \"%s: all rows have the scores they must\"\n\n"
        ".DEFAULT_GOAL := $(%s_GOAL)\n",
        p, p, p, p, p, p, p, p, p, p, p, p, p, p, p);
}

static void write_costs(const nimbus_export_report *report, const nimbus_export_options *options,
                        nimbus_buffer *b)
{
    nimbus_text(b, "| what | bytes |\n|---|---|\n");
    nimbus_text(b, "| constant arrays, in flash | %zu |\n", report->array_bytes);
    if (options->compiler)
        nimbus_text(b, "| code, in flash | %zu |\n| flash in all | %zu |\n", options->code_bytes,
                    report->array_bytes + options->code_bytes);
    nimbus_text(b, "| static buffers, in RAM | %zu |\n", report->ram_bytes);
    if (options->compiler)
        nimbus_text(b, "| stack, below the call | %zu |\n", options->stack_bytes);
    nimbus_text(b, "\n| what | for one row |\n|---|---|\n");
    nimbus_text(b, "| table entries looked up | %zu |\n", report->lookups);
    nimbus_text(b, "| additions of entries and products | %zu |\n", report->additions);
    nimbus_text(b, "| comparisons | %zu |\n", report->comparisons);
    nimbus_text(b, "| products, in exact layers alone | %zu |\n\n", report->multiply_adds);
    nimbus_text(b, "Arrays and buffers are the same with every compiler; code and stack are ");
    if (options->compiler)
        nimbus_text(b, "those of\n`%s`.\n\n", options->compiler);
    else
        nimbus_text(b,
                    "the compiler's:\n`nimbus export --cc` with its command states them here.\n\n");
}

static void write_readme(const nimbus_stored_program *program, const nimbus_export_plan *plan,
                         const nimbus_export_report *report, const nimbus_export_options *options,
                         nimbus_buffer *b)
{
    const char *p = plan->prefix;
    char big[NIMBUS_MOST_PREFIX + 1];
    nimbus_upper(p, big);
    nimbus_text(b,
                "# %s\n\nA lookup program as plain C99. `%s.c` and `%s.h` need nothing else.\n\n",
                p, p, p);
    nimbus_text(b,
                "```c\n#include \"%s.h\"\n\n%s input[%zu];\nint32_t scores[%zu];\n%s_run(input, "
                "scores);\n```\n\n",
                p, nimbus_input_type(plan->input), program->info.n_inputs, program->info.n_outputs,
                p);
    write_costs(report, options, b);
    nimbus_text(
        b,
        "Vector registers of SSE2, AVX2, NEON and Helium are used where the compiler has them; "
        "with\n`-D%s_PORTABLE` it is plain C everywhere. The bits are the same.\n\n",
        big);
    nimbus_text(
        b,
        "`%s.nimbus` is the program that the C computes, bit for bit: `nimbus eval %s.nimbus "
        "--data ...` tells its\naccuracy.\n\n`make -f %s.mk %s-selftest` builds and runs the "
        "self-test. On a device call `%s_selftest()`, which is\nin `%s_test.c`.\n\n",
        p, p, p, p, p, p);
    nimbus_text(b, "| layer | step | bits of an entry |\n|---|---|---|\n");
    for (size_t i = 0; i < program->info.n_steps; i++) {
        const nimbus_step_info *info = &program->steps[i].info;
        const unsigned bits = i < NIMBUS_REPORT_LAYERS ? report->table_bits[i] : 0;
        char text[12] = "", name[sizeof info->name];
        if (bits)
            (void)snprintf(text, sizeof text, "%u", bits);
        nimbus_plain_name(info->name, name);
        nimbus_text(b, "| %s | %s | %s |\n", name, nimbus_step_kind_name(info->kind), text);
    }
}

/* Hands a buffer's bytes over. */
static bool put_file(nimbus_export *result, size_t i, const char *prefix, const char *suffix,
                     nimbus_buffer *b)
{
    nimbus_export_file *file = &result->files[i];
    (void)snprintf(file->name, sizeof file->name, "%s%s", prefix, suffix);
    file->n_bytes = b->size;
    nimbus_write_u8(b, 0);
    file->bytes = b->bytes;
    const bool ok = !b->failed;
    if (ok)
        *b = (nimbus_buffer){0};
    else
        file->bytes = NULL;
    return ok;
}

static nimbus_status put_files(attempt *a, const nimbus_export_options *options,
                               const nimbus_export_plan *plan, nimbus_export *result,
                               nimbus_error *error)
{
    nimbus_buffer header = {0}, test = {0}, makefile = {0}, readme = {0};
    const char *p = plan->prefix;
    nimbus_status status =
        nimbus_golden_write(&a->narrow, a->program.bytes, a->program.size, plan, options->rows,
                            options->n_golden ? options->n_golden : DEFAULT_GOLDEN, &test, error);
    if (!status) {
        for (size_t i = 0; i < a->report.n_steps && i < NIMBUS_REPORT_LAYERS; i++)
            a->report.rounded_bits[i] = (unsigned char)plan->bits[i];
        result->report = a->report;
        write_header(&a->narrow, plan, &a->report, &header);
        write_makefile(plan, &makefile);
        write_readme(&a->narrow, plan, &a->report, options, &readme);
        if (!put_file(result, 0, p, ".c", &a->source) || !put_file(result, 1, p, ".h", &header) ||
            !put_file(result, 2, p, "_test.c", &test) ||
            !put_file(result, 3, p, ".mk", &makefile) ||
            !put_file(result, 4, "README", ".md", &readme) ||
            !put_file(result, 5, p, ".nimbus", &a->program))
            status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the files");
    }
    nimbus_buffer_free(&header);
    nimbus_buffer_free(&test);
    nimbus_buffer_free(&makefile);
    nimbus_buffer_free(&readme);
    return status;
}

nimbus_status nimbus_export_c(const void *bytes, size_t n_bytes,
                              const nimbus_export_options *options, nimbus_export **out,
                              nimbus_error *error)
{
    const nimbus_export_options defaults = NIMBUS_EXPORT_OPTIONS_INIT;
    nimbus_stored_program program = {0};
    nimbus_export *result = NULL;
    nimbus_export_plan plan = {0};
    unsigned *bits = NULL;
    attempt a = {.original = &program, .bytes = bytes};
    nimbus_status status;
    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!bytes)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "bytes is NULL");
    options = options ? options : &defaults;
    if ((status = check_options(options, error)))
        return status;
    if ((status = nimbus_stored_read(bytes, n_bytes, &program, error)))
        goto done;
    bits = nimbus_alloc(program.info.n_steps, sizeof *bits);
    result = nimbus_alloc(1, sizeof *result);
    if (!bits || !result) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for an export");
        goto done;
    }
    plan.prefix = options->prefix ? options->prefix : "model";
    plan.bits = bits;
    if ((status = choose_input(&program, options->input, &plan.input, error)) ||
        (status = fit(&a, options, &plan, bits, error)) ||
        (status = put_files(&a, options, &plan, result, error)))
        goto done;
    *out = result;
    result = NULL;
done:
    nimbus_export_free(result);
    nimbus_free(bits);
    nimbus_stored_free(&a.narrow);
    nimbus_buffer_free(&a.program);
    nimbus_buffer_free(&a.source);
    nimbus_stored_free(&program);
    return status;
}

void nimbus_export_free(nimbus_export *result)
{
    for (size_t i = 0; result && i < sizeof result->files / sizeof *result->files; i++)
        nimbus_free(result->files[i].bytes);
    nimbus_free(result);
}

/* Makes a folder and those that it is in. */
static nimbus_status make_folders(char *path, nimbus_error *error)
{
    for (char *c = path + 1; *c; c++)
        if (*c == '/') {
            *c = '\0';
            (void)mkdir(path, 0777); /* the last one tells */
            *c = '/';
        }
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return nimbus_fail_errno(error, "%s: cannot be made", path);
    return NIMBUS_OK;
}

nimbus_status nimbus_export_write(const nimbus_export *result, const char *folder,
                                  nimbus_error *error)
{
    if (!result || !folder || !*folder)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "result or folder is NULL or empty");
    const size_t size = strlen(folder) + sizeof result->files[0].name + 2;
    char *path = nimbus_alloc(size, 1);
    if (!path)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a path");
    (void)snprintf(path, size, "%s", folder);
    nimbus_status status = make_folders(path, error);
    for (size_t i = 0; i < sizeof result->files / sizeof *result->files && !status; i++) {
        const nimbus_export_file *file = &result->files[i];
        (void)snprintf(path, size, "%s/%s", folder, file->name);
        status = nimbus_file_write(path, file->bytes, file->n_bytes, error);
    }
    nimbus_free(path);
    return status;
}
