/* cmd_run.c - nimbus run: rows in, classes and scores out, through a compiled program */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rows.h"

#define BLOCK 4096 /* rows: enough for some threads, and little to wait for */

typedef struct run_arguments {
    common_arguments common;
    const char *output;
    int format;
} run_arguments;

#define AT(field) offsetof(run_arguments, field)

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL,
     "where the results go (standard output)"},
    {"format", 'f', OPTION_CHOICE, "NAME", AT(format), 0, 0, rows_format_names,
     "of the rows: csv, npy, idx, or raw rows without a header: u8 bytes, f32 little-endian (by "
     "suffix or first bytes)"},
};

static int run_run(int argc, char **argv);

const nimbus_verb verb_run = {
    .name = "run",
    .purpose = "run a program on rows from a file, standard input or a data set",
    .usage = "FILE.nimbus [ROWS|-] [-o FILE] [options]",
    .about = "Reads rows (CSV with the columns of the training data, npy, IDX, or raw bytes), and "
             "writes for each the most likely class and all scores: CSV, or with --json one "
             "object per line. Rows are handled in blocks as they arrive, so input may be a pipe "
             "without end. A name ending in .gz is decompressed.",
    .examples = {"nimbus run mnist.nimbus t10k-images-idx3-ubyte.gz -o classes.csv",
                 "tail -f flows.csv | nimbus run flows.nimbus - --json"},
    .groups = GROUP_DATA | GROUP_SPLIT | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = 2,
    .run = run_run,
};

/* Where results go: standard output, or a temporary file that takes its name when all is there. */
typedef struct result_file {
    FILE *file;
    const char *path;
    char *temporary;
    int as_json, regression;
    const model *m;
    size_t n_rows;
} result_file;

static nimbus_status write_error(const result_file *r, nimbus_error *error)
{
    return tool_error(error, NIMBUS_ERR_IO, "%s: the results cannot be written: %s",
                      r->path ? r->path : "standard output", strerror(errno));
}

static nimbus_status result_open(result_file *r, const run_arguments *args, const model *m,
                                 nimbus_error *error)
{
    *r = (result_file){stdout, args->output, NULL, args->common.json, 0, m, 0};
    r->regression = !m->classes || json_array_size(m->classes) != m->n_outputs;
    if (!r->path || strcmp(r->path, "-") == 0) {
        r->path = NULL;
        return NIMBUS_OK;
    }
    nimbus_status status = output_check(r->path, error);
    if (status)
        return status;
    r->temporary = path_and_suffix(r->path, ".XXXXXX");
    int file = r->temporary ? mkstemp(r->temporary) : -1;
    remove_on_signal(file < 0 ? NULL : r->temporary);
    mode_t mask = umask(0);
    umask(mask);
    r->file = file < 0 || fchmod(file, 0666 & ~mask) != 0 ? NULL : fdopen(file, "w");
    if (r->file)
        return NIMBUS_OK;
    status = write_error(r, error);
    if (file >= 0) {
        unlink(r->temporary);
        close(file);
    }
    return status;
}

/* Flushes, and gives the file its name - or removes it after a failure. */
static nimbus_status result_close(result_file *r, nimbus_status status, nimbus_error *error)
{
    int failed = r->file && (fflush(r->file) != 0 || ferror(r->file) ||
                             (r->temporary && fsync(fileno(r->file)) != 0));
    if (failed && !status)
        status = write_error(r, error);
    if (r->temporary && r->file) {
        if (fclose(r->file) != 0 && !status)
            status = write_error(r, error);
        if (!status && rename(r->temporary, r->path) != 0)
            status = write_error(r, error);
        if (status)
            unlink(r->temporary);
    }
    remove_on_signal(NULL);
    free(r->temporary);
    return status;
}

static const char *class_name(const model *m, size_t i)
{
    const char *name = json_string_value(json_array_get(m->classes, i));
    return name ? name : "?";
}

/* A CSV cell, quoted where it must be. */
static void put_text(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void put_head(const result_file *r)
{
    char name[32];
    if (r->as_json)
        return;
    if (!r->regression)
        fputs("class", r->file);
    for (size_t j = 0; j < r->m->n_outputs; j++) {
        if (j > 0 || !r->regression)
            fputc(',', r->file);
        snprintf(name, sizeof name, "y%zu", j + 1);
        put_text(r->file, r->regression ? name : class_name(r->m, j));
    }
    fputc('\n', r->file);
}

static void put_row(const result_file *r, size_t row, const int32_t *scores)
{
    const size_t m = r->m->n_outputs;
    const double scale = (double)nimbus_info(r->m->program)->output_scale;
    size_t best = 0;
    for (size_t j = 1; j < m; j++)
        if (scores[j] > scores[best])
            best = j;
    if (r->as_json) {
        json_t *values = json_array();
        for (size_t j = 0; j < m; j++)
            json_array_append_new(values, json_real((double)scores[j] * scale));
        json_t *line = json_pack("{s:I}", "row", (json_int_t)row);
        if (!r->regression)
            json_object_set_new(line, "class", json_string(class_name(r->m, best)));
        json_object_set_new(line, "scores", values);
        json_dumpf(line, r->file, JSON_COMPACT | JSON_REAL_PRECISION(6));
        json_decref(line);
    } else {
        if (!r->regression)
            put_text(r->file, class_name(r->m, best));
        for (size_t j = 0; j < m; j++)
            fprintf(r->file, "%s%.6g", j > 0 || !r->regression ? "," : "",
                    (double)scores[j] * scale);
    }
    fputc('\n', r->file);
}

static nimbus_status run_all(const model *m, size_t n_threads, rows_reader *rows, result_file *r,
                             nimbus_error *error)
{
    const nimbus_program_info *info = nimbus_info(m->program);
    const size_t stride = info->n_inputs * (info->input_dtype == NIMBUS_U8 ? 1 : 4);
    int32_t *scores = calloc(info->n_outputs, BLOCK * sizeof *scores);
    row_runner *runner = NULL;
    nimbus_status status = scores ? runner_new(m->program, BLOCK, n_threads, &runner, error)
                                  : tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    while (!status) {
        const void *block;
        size_t n;
        if ((status = rows_next(rows, BLOCK, &block, &n, error)) || n == 0)
            break;
        if ((status = runner_run(runner, block, stride, n, scores)))
            status = tool_error(error, status, "the program refused row %zu", r->n_rows + 1);
        if (!status && r->n_rows == 0)
            put_head(r);
        for (size_t i = 0; i < n && !status; i++)
            put_row(r, r->n_rows + i, scores + i * info->n_outputs);
        r->n_rows += n;
        if (!status && (fflush(r->file) != 0 || ferror(r->file)))
            status = write_error(r, error);
    }
    runner_free(runner);
    free(scores);
    return status;
}

static void note_gaps(const common_arguments *common, const rows_reader *rows)
{
    size_t n_filled, n_unknown;
    rows_gaps(rows, &n_filled, &n_unknown);
    if (n_filled + n_unknown > 0)
        note(common, "missing numbers filled in: %zu, categories never seen in training: %zu",
             n_filled, n_unknown);
}

static int run_run(int argc, char **argv)
{
    run_arguments args = {.common = {SPLIT_DEFAULTS}};
    nimbus_error error = {0};
    model m = {0};
    nimbus_data *data = NULL;
    rows_reader *rows = NULL;
    result_file result = {0};
    nimbus_status status;

    int code = options_parse(&verb_run, argc, argv, &args);
    if (code >= 0)
        return code;
    if (args.common.n_files == 2 && args.common.data)
        return usage_error(&verb_run, "give either a file of rows or --data, not both");
    if ((status = program_open(args.common.files[0], &m, &error)))
        goto done;
    if (args.common.data) {
        nimbus_data_options o = data_options_of(&args.common, m.schema);
        if ((status = nimbus_data_open(args.common.data, (nimbus_split)args.common.split, &o, &data,
                                       &error)) ||
            (status = rows_of_data(data, &m, &rows, &error)))
            goto done;
    } else if ((status = rows_open(args.common.n_files == 2 ? args.common.files[1] : "-",
                                   (rows_format)args.format, &m, &rows, &error))) {
        goto done;
    }
    if (!(status = result_open(&result, &args, &m, &error)))
        status = run_all(&m, args.common.threads, rows, &result, &error);
    status = result_close(&result, status, &error);
    if (!status && args.output)
        note(&args.common, "%s: %zu rows", args.output, result.n_rows);
    if (!status)
        note_gaps(&args.common, rows);
done:
    rows_close(rows);
    nimbus_data_free(data);
    model_close(&m);
    return status ? fail(&error) : EXIT_DONE;
}
