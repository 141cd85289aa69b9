/* export.c - a program becomes stand-alone C: options, limits, and the files */
#include "export/export.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFAULT_GOLDEN = 4, MOST_GOLDEN = 64 };

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

/* NAME.h would be found in place of a header of C99, or of a compiler's. */
static bool is_header(const char *name)
{
    static const char *const taken[] = {
        "assert",   "complex", "ctype",   "errno",  "fenv",  "features", "float",
        "inttypes", "iso646",  "limits",  "locale", "math",  "setjmp",   "signal",
        "string",   "tgmath",  "threads", "time",   "uchar", "wchar",    "wctype"};
    const size_t n = strlen(name);
    bool found = strncmp(name, "std", 3) == 0 || strncmp(name, "arm_", 4) == 0 ||
                 (n >= 6 && strcmp(name + n - 6, "intrin") == 0);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        found |= strcmp(name, taken[i]) == 0;
    return found;
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
    if (options->prefix && is_header(options->prefix))
        return nimbus_fail(
            error, NIMBUS_ERR_ARGUMENT,
            "prefix is \"%s\": %s.h would be in the way of a header of C or of a compiler",
            options->prefix, options->prefix);
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

/* The next fewer bits that make a step smaller; the same if none do. */
static unsigned fewer_bits(const nimbus_stored_program *program, size_t i, unsigned bits)
{
    const nimbus_step_info *info = &program->steps[i].info;
    unsigned fewer = bits > 4 ? bits - 1 : 4;
    while (fewer > 4 && nimbus_widest_as_small(info, fewer) >= bits)
        fewer--;
    fewer = nimbus_widest_as_small(info, fewer);
    return fewer < bits ? fewer : bits;
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
    const size_t code = options->code_bytes ? options->code_bytes : NIMBUS_EXPORT_CODE_BYTES;
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
            if (!has_tables(program, i) || fewer_bits(program, i, bits[i]) == bits[i])
                continue;
            const double harm = harm_of(program, i, bits[i]);
            if (best == SIZE_MAX || harm < least) {
                best = i;
                least = harm;
            }
        }
        if (best == SIZE_MAX)
            return NIMBUS_OK;
        bits[best] = fewer_bits(program, best, bits[best]);
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
            const unsigned before = bits[i];
            bits[i] = nimbus_widest_as_small(&program->steps[i].info, before + 1);
            status = write_with(a, plan, error);
            if (status || fits(a, options))
                continue;
            bits[i] = before;
            status = write_with(a, plan, error);
            break;
        }
    return status;
}

static nimbus_status fit(attempt *a, const nimbus_export_options *options,
                         const nimbus_export_plan *plan, unsigned *bits, nimbus_error *error)
{
    const size_t code = options->code_bytes ? options->code_bytes : NIMBUS_EXPORT_CODE_BYTES;
    bool fitting = false;
    for (size_t i = 0; i < a->original->info.n_steps; i++) {
        bits[i] = options->step_bits && options->step_bits[i] ? options->step_bits[i]
                  : options->table_bits                       ? options->table_bits
                                                              : 8;
        if (has_tables(a->original, i))
            bits[i] = nimbus_widest_as_small(&a->original->steps[i].info, bits[i]);
    }
    const bool fixed = options->table_bits || options->step_bits;
    nimbus_status status = take_bits(a, options, plan, bits, &fitting, error);
    if (!status && fitting && !fixed)
        status = give_bits(a, options, plan, bits, error);
    if (status)
        return status;
    if (!fitting) {
        char how[40] = "";
        if (a->report.lookups)
            (void)snprintf(how, sizeof how, " with tables of %u bits",
                           options->table_bits ? options->table_bits : 4);
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "needs %zu bytes of flash%s, %zu of them for code; %zu are allowed: %s",
                           a->report.array_bytes + code, how, code, options->most_flash,
                           !a->report.lookups        ? "it has no tables that could be narrowed"
                           : options->table_bits > 4 ? "leave table_bits out, or allow fewer"
                                                     : "a net with fewer codebooks or narrower "
                                                       "layers is smaller");
    }
    if (options->most_ram && a->report.ram_bytes > options->most_ram)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "needs %zu bytes of RAM, %zu are allowed: they hold the values between "
                           "layers, so a net with narrower layers or smaller images needs less",
                           a->report.ram_bytes, options->most_ram);
    return NIMBUS_OK;
}

/* ---- files ---------------------------------------------------------------------------------- */

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
    nimbus_buffer header = {0}, test = {0}, makefile = {0}, page = {0};
    const char *p = plan->prefix;
    nimbus_status status =
        nimbus_golden_write(&a->narrow, a->program.bytes, a->program.size, plan, options->rows,
                            options->n_golden ? options->n_golden : DEFAULT_GOLDEN, &test, error);
    if (!status) {
        for (size_t i = 0; i < a->report.n_steps && i < NIMBUS_REPORT_LAYERS; i++)
            a->report.rounded_bits[i] = (unsigned char)plan->bits[i];
        result->report = a->report;
        nimbus_write_header(&a->narrow, plan, &a->report, options, &header);
        nimbus_write_makefile(plan, &makefile);
        nimbus_write_page(&a->narrow, plan, &a->report, options, &page);
        if (!put_file(result, 0, p, ".c", &a->source) || !put_file(result, 1, p, ".h", &header) ||
            !put_file(result, 2, p, "_test.c", &test) ||
            !put_file(result, 3, p, ".mk", &makefile) || !put_file(result, 4, p, ".md", &page) ||
            !put_file(result, 5, p, ".nimbus", &a->program))
            status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the files");
    }
    nimbus_buffer_free(&header);
    nimbus_buffer_free(&test);
    nimbus_buffer_free(&makefile);
    nimbus_buffer_free(&page);
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
