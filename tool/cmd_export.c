/* cmd_export.c - nimbus export: a program becomes stand-alone C, a folder of sources */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiled.h"

typedef struct export_arguments {
    common_arguments common;
    const char *output, *prefix, *compiler;
    int target, input;
    size_t table_bits, flash, ram, code, golden;
} export_arguments;

#define AT(field) offsetof(export_arguments, field)

static const char *const targets[] = {"c", NULL};
static const char *const inputs[] = {"stored", "u8", "i8", "u16", "i16", "i32", "f32", NULL};

static const option_entry entries[] = {
    {"to", 0, OPTION_CHOICE, "TARGET", AT(target), 0, 0, targets, "what to write (c)"},
    {"output", 'o', OPTION_TEXT, "DIR", AT(output), 0, 0, NULL,
     "the folder to write into (FILE, without its suffix)"},
    {"prefix", 0, OPTION_TEXT, "NAME", AT(prefix), 0, 0, NULL,
     "what every file and name begins with: letters, digits and _, at most 32 (model)"},
    {"input", 0, OPTION_CHOICE, "TYPE", AT(input), 0, 0, inputs,
     "type of a row's elements. A program trained on floats takes integers too, if its rows were "
     "whole numbers, raw sensor units: stored, u8, i8, u16, i16, i32, f32 (stored)"},
    {"table-bits", 0, OPTION_COUNT, "N", AT(table_bits), 4, 8, NULL,
     "bits of a table entry, 4 to 8, or more where that is as small; fixed for --fit-flash too (8, "
     "or what fits)"},
    {"fit-flash", 0, OPTION_COUNT, "BYTES", AT(flash), 1, 1e9, NULL,
     "narrow tables until arrays and code fit, where it harms least first (no limit)"},
    {"fit-ram", 0, OPTION_COUNT, "BYTES", AT(ram), 1, 1e9, NULL,
     "refuse a program that needs more for static buffers (no limit)"},
    {"code", 0, OPTION_COUNT, "BYTES", AT(code), 1, 1e6, NULL,
     "what --fit-flash leaves for the code (4096)"},
    {"cc", 0, OPTION_TEXT, "COMMAND", AT(compiler), 0, 0, NULL,
     "a GCC and its options for the device, \"arm-none-eabi-gcc -Os -mcpu=cortex-m0 -mthumb\": its "
     "code and stack are measured, stated in PREFIX.md, and count for --fit-flash"},
    {"golden", 0, OPTION_COUNT, "N", AT(golden), 1, 64, NULL,
     "rows in the self-test, 1 to 64, of --data's test rows if given, else made up (4)"},
};

static int export_run(int argc, char **argv);

const nimbus_verb verb_export = {
    .name = "export",
    .purpose = "write a program as stand-alone C for devices",
    .usage = "FILE.nimbus [-o DIR] [options]",
    .about = "Writes C99 that needs no library, no allocation and no floating point, and in lookup "
             "layers no multiplication: PREFIX.c and PREFIX.h, a self-test with rows and their "
             "scores, a part of a makefile, PREFIX.md that says how many bytes and operations it "
             "takes, and PREFIX.nimbus, the program that the C computes to the last bit.",
    .examples = {"nimbus export mnist.nimbus -o firmware/mnist --prefix mnist",
                 "nimbus export mnist.nimbus --fit-flash 524288 --fit-ram 16384"},
    .groups = GROUP_DATA,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = 1,
    .run = export_run,
};

/* The bytes of a file; malloc'd. */
static nimbus_status read_file(const char *path, unsigned char **bytes, size_t *n,
                               nimbus_error *error)
{
    struct stat what;
    long size = -1;
    errno = 0;
    FILE *file = fopen(path, "rb");
    if (file && fstat(fileno(file), &what) == 0 && S_ISDIR(what.st_mode))
        errno = EISDIR;
    else if (file && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    *n = size > 0 ? (size_t)size : 0;
    *bytes = malloc(*n + 1);
    int ok =
        size >= 0 && *bytes && fseek(file, 0, SEEK_SET) == 0 && fread(*bytes, 1, *n, file) == *n;
    int why = errno;
    if (file)
        fclose(file);
    return ok ? NIMBUS_OK
              : tool_error(error, NIMBUS_ERR_IO, "%s: cannot be read: %s", path, strerror(why));
}

static nimbus_status open_rows(const export_arguments *args, const char *schema, nimbus_data **out,
                               nimbus_error *error)
{
    nimbus_data_options options = data_options_of(&args->common, schema);
    if (!options.n_rows)
        options.n_rows = args->golden ? args->golden : 4;
    return nimbus_data_open(args->common.data, NIMBUS_SPLIT_TEST, &options, out, error);
}

/* What is exported: the file's bytes, rows for the self-test, and in `m` the names of its data, as
 * far as this machine's runtime can load the program. */
static nimbus_status open_inputs(const export_arguments *args, unsigned char **bytes,
                                 size_t *n_bytes, model *m, nimbus_data **rows, nimbus_error *error)
{
    const char *path = args->common.files[0];
    nimbus_status status = read_file(path, bytes, n_bytes, error);
    if (status)
        return status;
    status = program_open(path, m, error);
    if (status && status != NIMBUS_ERR_UNSUPPORTED && status != NIMBUS_ERR_LIMIT)
        return status;
    return args->common.data ? open_rows(args, m->schema, rows, error) : NIMBUS_OK;
}

static int report_result(const export_arguments *args, const nimbus_export_report *r,
                         const nimbus_export_options *options)
{
    const struct {
        const char *name, *what;
        size_t value;
    } lines[] = {{"array_bytes", "bytes of constant arrays", r->array_bytes},
                 {"ram_bytes", "bytes of static buffers", r->ram_bytes},
                 {"lookups", "lookups a row", r->lookups},
                 {"additions", "additions a row", r->additions},
                 {"comparisons", "comparisons a row", r->comparisons},
                 {"multiply_adds", "multiply-adds a row", r->multiply_adds},
                 {"code_bytes", "bytes of code", options->code_bytes},
                 {"flash_bytes", "bytes of flash in all", r->array_bytes + options->code_bytes},
                 {"stack_bytes", "bytes of stack", options->stack_bytes}};
    const size_t n_lines = sizeof lines / sizeof *lines - (options->compiler ? 0 : 3);
    char by_step[2 * NIMBUS_REPORT_LAYERS + 1] = "";
    size_t n_tables = 0;
    json_t *json = json_pack("{s:s}", "output", args->output), *bits = json_array();
    table t;
    table_init(&t, "lr");
    for (size_t i = 0; i < n_lines; i++) {
        table_cell(&t, "%s", lines[i].what);
        table_size(&t, lines[i].value);
        json_object_set_new(json, lines[i].name, json_integer((json_int_t)lines[i].value));
    }
    for (size_t i = 0; i < r->n_steps && i < NIMBUS_REPORT_LAYERS; i++) {
        json_array_append_new(bits, json_integer(r->table_bits[i]));
        if (r->table_bits[i]) {
            by_step[2 * n_tables] = ' ';
            by_step[2 * n_tables++ + 1] = (char)('0' + r->table_bits[i]);
        }
    }
    json_object_set_new(json, "table_bits", bits);
    if (n_tables) {
        table_cell(&t, "bits of an entry, by layer");
        table_cell(&t, "%s", by_step + 1);
    }
    if (options->most_flash && !options->compiler)
        note(&args->common, "%zu bytes of flash are left for code; --cc measures it",
             options->code_bytes ? options->code_bytes : (size_t)NIMBUS_EXPORT_CODE_BYTES);
    if (r->idle_thresholds > r->n_thresholds / 10)
        note(&args->common,
             "%zu of %zu thresholds of the first layer lie outside of --input %s: are rows of that "
             "type, in the units that the net was trained on?",
             r->idle_thresholds, r->n_thresholds, inputs[args->input]);
    note(&args->common, "%s: written", args->output);
    return result_finish(&args->common, &t, json);
}

/* An export, and what a compiler makes of it. */
typedef struct measured {
    nimbus_export *result;
    size_t code_bytes, stack_bytes;
} measured;

static size_t flash_of(const measured *m)
{
    return m->result->report.array_bytes + m->code_bytes;
}

static nimbus_status measure(const export_arguments *args, const unsigned char *bytes,
                             size_t n_bytes, const nimbus_export_options *options, measured *out,
                             nimbus_error *error)
{
    nimbus_export_free(out->result);
    nimbus_status status = nimbus_export_c(bytes, n_bytes, options, &out->result, error);
    return status ? status
                  : compiled_measure(args->compiler, out->result, args->prefix, &out->code_bytes,
                                     &out->stack_bytes, error);
}

/* Narrower tables need other code, so what fits is found by trying: tables that leave room for the
 * code of the last try, until both fit; if they never do, the narrowest. */
static nimbus_status fit_measured(const export_arguments *args, const unsigned char *bytes,
                                  size_t n_bytes, const nimbus_export_options *options,
                                  measured *out, nimbus_error *error)
{
    nimbus_export_options attempt = *options;
    attempt.most_flash = 0;
    nimbus_status status = measure(args, bytes, n_bytes, &attempt, out, error);
    if (status || !options->most_flash || flash_of(out) <= options->most_flash)
        return status;
    attempt.most_flash = options->most_flash;
    for (int round = 0; round < 6 && !options->table_bits; round++) {
        attempt.code_bytes =
            out->code_bytes > attempt.code_bytes ? out->code_bytes : attempt.code_bytes;
        status = measure(args, bytes, n_bytes, &attempt, out, error);
        if (status == NIMBUS_ERR_LIMIT)
            break;
        if (status || flash_of(out) <= options->most_flash)
            return status;
    }
    attempt.most_flash = 0;
    attempt.table_bits = options->table_bits ? options->table_bits : 4;
    status = measure(args, bytes, n_bytes, &attempt, out, error);
    if (!status && flash_of(out) > options->most_flash)
        status =
            tool_error(error, NIMBUS_ERR_LIMIT,
                       "needs %zu bytes of flash with tables of %u bits, %zu of them code; "
                       "%zu are allowed",
                       flash_of(out), attempt.table_bits, out->code_bytes, options->most_flash);
    return status;
}

static nimbus_status export_measured(const export_arguments *args, const unsigned char *bytes,
                                     size_t n_bytes, nimbus_export_options *options,
                                     nimbus_export **result, nimbus_error *error)
{
    measured m = {0};
    unsigned char bits[NIMBUS_REPORT_LAYERS];
    if (!args->compiler)
        return nimbus_export_c(bytes, n_bytes, options, result, error);
    nimbus_status status = fit_measured(args, bytes, n_bytes, options, &m, error);
    if (!status && m.result->report.n_steps > NIMBUS_REPORT_LAYERS)
        status =
            tool_error(error, NIMBUS_ERR_LIMIT, "--cc: more than %d steps", NIMBUS_REPORT_LAYERS);
    if (!status) { /* the same once more, with what was measured in its page */
        memcpy(bits, m.result->report.rounded_bits, sizeof bits);
        options->step_bits = bits;
        options->table_bits = 0;
        options->most_flash = 0;
        options->compiler = args->compiler;
        options->code_bytes = m.code_bytes;
        options->stack_bytes = m.stack_bytes;
        status = nimbus_export_c(bytes, n_bytes, options, result, error);
        options->step_bits = NULL;
    }
    nimbus_export_free(m.result);
    return status;
}

/* Whether the program beside the C would replace the one that is exported. */
static int replaces_input(const export_arguments *args)
{
    char path[4200];
    int n = snprintf(path, sizeof path, "%s/%s.nimbus", args->output, args->prefix);
    return n > 0 && (size_t)n < sizeof path && same_file(path, args->common.files[0]);
}

static int export_run(int argc, char **argv)
{
    export_arguments args = {0};
    nimbus_error error = {0};
    unsigned char *bytes = NULL;
    size_t n_bytes = 0;
    nimbus_data *rows = NULL;
    nimbus_export *result = NULL;
    model m = {0};
    char *output = NULL, *comment = NULL;
    int code = options_parse(&verb_export, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!args.prefix)
        args.prefix = "model";
    if (!args.output)
        args.output = output = path_with_suffix(args.common.files[0], "");
    if (args.output && replaces_input(&args)) {
        code = fail_with("%s would be replaced by the program beside the C; give another -o or "
                         "--prefix",
                         args.common.files[0]);
        free(output);
        return code;
    }
    nimbus_export_options options = NIMBUS_EXPORT_OPTIONS_INIT;
    options.prefix = args.prefix;
    options.input = (nimbus_export_input)args.input;
    options.table_bits = (unsigned)args.table_bits;
    options.most_flash = args.flash;
    options.most_ram = args.ram;
    options.code_bytes = args.code;
    options.n_golden = args.golden;
    nimbus_status status =
        args.output ? NIMBUS_OK : tool_error(&error, NIMBUS_ERR_MEMORY, "out of memory");
    if (!status && !(status = open_inputs(&args, &bytes, &n_bytes, &m, &rows, &error))) {
        options.rows = rows;
        options.comment = comment = names_of_schema(m.schema);
        status = export_measured(&args, bytes, n_bytes, &options, &result, &error);
        if (status)
            code = fail_with("%s: %s", args.common.files[0], error.message);
        else
            status = nimbus_export_write(result, args.output, &error);
    }
    code =
        status ? code > 0 ? code : fail(&error) : report_result(&args, &result->report, &options);
    nimbus_export_free(result);
    nimbus_data_free(rows);
    model_close(&m);
    free(comment);
    free(bytes);
    free(output);
    return code;
}
