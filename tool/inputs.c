/* inputs.c - opens data sets and models for the verbs, and evaluates programs like nets */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rows.h"

#define PROGRAM_MAGIC "NIMBUS\r\n"

nimbus_status tool_error(nimbus_error *error, nimbus_status status, const char *format, ...)
{
    va_list args;
    *error = (nimbus_error){.status = status};
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return status;
}

size_t default_shift(const nimbus_data_info *data)
{
    if (data->height < 2 || data->width < 2 || data->dtype != NIMBUS_U8)
        return 0;
    return data->channels > 1 ? 2 : 1;
}

nimbus_status remove_finished(const char *checkpoint, nimbus_error *error)
{
    if (!checkpoint || unlink(checkpoint) == 0 || errno == ENOENT)
        return NIMBUS_OK;
    return tool_error(error, NIMBUS_ERR_IO,
                      "%s: the result is saved, but this checkpoint cannot "
                      "be removed: %s",
                      checkpoint, strerror(errno));
}

nimbus_data_options data_options_of(const common_arguments *common, const char *schema)
{
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.data_dir = common->data_dir;
    options.valid_fraction = common->valid;
    options.test_fraction = common->no_test ? -1 : 0;
    options.seed = common->data_seed;
    options.n_rows = common->rows;
    options.label = common->label;
    options.regression = common->regression;
    options.schema = schema;
    return options;
}

nimbus_status splits_open(const common_arguments *common, const char *schema, double valid_fraction,
                          data_splits *out, nimbus_error *error)
{
    nimbus_data_options options = data_options_of(common, schema);
    options.valid_fraction = valid_fraction;
    *out = (data_splits){0};
    nimbus_status status =
        nimbus_data_open(common->data, NIMBUS_SPLIT_TRAIN, &options, &out->train, error);
    if (!status && valid_fraction > 0)
        status = nimbus_data_open(common->data, NIMBUS_SPLIT_VALID, &options, &out->valid, error);
    if (!status) { /* the test rows are read as the training rows were */
        options.schema = nimbus_data_schema(out->train);
        status = nimbus_data_open(common->data, NIMBUS_SPLIT_TEST, &options, &out->test, error);
        if (common->no_test && status == NIMBUS_ERR_ARGUMENT) /* none are held out */
            status = NIMBUS_OK;
    }
    if (status)
        splits_close(out);
    return status;
}

void splits_close(data_splits *splits)
{
    nimbus_data_free(splits->train);
    nimbus_data_free(splits->valid);
    nimbus_data_free(splits->test);
    *splits = (data_splits){0};
}

nimbus_status splits_evaluate(const nimbus_net *net, const data_splits *splits, unsigned n_threads,
                              table *t, json_t *json, nimbus_error *error)
{
    const struct {
        const char *name;
        const nimbus_data *data;
    } parts[] = {{"train", splits->train}, {"valid", splits->valid}, {"test", splits->test}};
    for (size_t i = 0; i < 3; i++) {
        nimbus_evaluation e;
        if (!parts[i].data || nimbus_data_get_info(parts[i].data)->n_rows == 0)
            continue;
        nimbus_status status = nimbus_evaluate(net, parts[i].data, n_threads, &e, error);
        if (status)
            return status;
        table_cell(t, "%s", parts[i].name);
        table_size(t, e.n_rows);
        table_percent(t, e.accuracy);
        table_number(t, "%.4f", e.loss);
        json_object_set_new(json, parts[i].name,
                            json_pack("{s:I,s:o,s:o}", "rows", (json_int_t)e.n_rows, "accuracy",
                                      json_number(e.accuracy), "loss", json_number(e.loss)));
    }
    return NIMBUS_OK;
}

char *schema_of_metadata(const char *metadata, json_t **classes)
{
    json_t *root = json_loads(metadata, 0, NULL);
    json_t *schema = json_object_get(root, "schema");
    char *text = schema ? json_dumps(schema, JSON_COMPACT) : NULL;
    if (classes)
        *classes = json_incref(json_object_get(schema, "classes"));
    json_decref(root);
    return text;
}

/* Whether a file is a program or, if not, a net; by its first bytes. */
static nimbus_status read_kind(const char *path, int *is_program, nimbus_error *error)
{
    char magic[9];
    FILE *file = fopen(path, "rb");
    if (!file)
        return tool_error(error, NIMBUS_ERR_IO, "%s: %s", path, strerror(errno));
    size_t n = fread(magic, 1, sizeof magic, file);
    int failed = ferror(file), code = errno;
    fclose(file);
    if (failed)
        return tool_error(error, NIMBUS_ERR_IO, "%s: %s", path, strerror(code));
    if (n < sizeof magic)
        return tool_error(error, NIMBUS_ERR_TRUNCATED,
                          "%s: only %zu bytes, neither a .nimbus program nor a .net file", path, n);
    *is_program = memcmp(magic, PROGRAM_MAGIC, 8) == 0;
    if (*is_program || magic[8] == '{') /* safetensors: length of the header, then its JSON */
        return NIMBUS_OK;
    const char *suffix = strrchr(path, '.');
    return tool_error(error, NIMBUS_ERR_FORMAT, "%s: neither a .nimbus program nor a .net file%s",
                      path,
                      suffix && strcmp(suffix, ".onnx") == 0
                          ? "; 'nimbus import' makes a .net file of an ONNX model"
                          : "");
}

static void describe_net(model *m)
{
    nimbus_net_info info;
    nimbus_net_get_info(m->net, &info);
    m->n_inputs = info.n_inputs;
    m->n_outputs = info.n_outputs;
    m->input_dtype = info.input_dtype;
    m->schema = schema_of_metadata(info.metadata, &m->classes);
}

static void describe_program(model *m)
{
    const nimbus_program_info *info = nimbus_info(m->program);
    m->n_inputs = info->n_inputs;
    m->n_outputs = info->n_outputs;
    m->input_dtype = info->input_dtype;
    m->schema = schema_of_metadata(nimbus_metadata(m->program), &m->classes);
}

nimbus_status model_open(const char *path, model *out, nimbus_error *error)
{
    int is_program;
    *out = (model){0};
    nimbus_status status = read_kind(path, &is_program, error);
    if (status)
        return status;
    if (is_program && !(status = nimbus_open(path, &out->program, error)))
        describe_program(out);
    if (!is_program && !(status = nimbus_net_load(path, &out->net, error)))
        describe_net(out);
    return status;
}

void model_close(model *m)
{
    nimbus_net_free(m->net);
    nimbus_close(m->program);
    free(m->schema);
    json_decref(m->classes);
    *m = (model){0};
}

nimbus_status program_open(const char *path, model *out, nimbus_error *error)
{
    nimbus_status status = model_open(path, out, error);
    if (!status && out->net) {
        model_close(out);
        status = tool_error(error, NIMBUS_ERR_FORMAT,
                            "%s: is a .net file; 'nimbus compile' makes a program of it", path);
    }
    return status;
}

nimbus_status net_open(const char *path, nimbus_net **out, nimbus_error *error)
{
    int is_program;
    *out = NULL;
    nimbus_status status = read_kind(path, &is_program, error);
    if (status)
        return status;
    if (is_program)
        return tool_error(error, NIMBUS_ERR_FORMAT,
                          "%s: is a compiled .nimbus program; a .net file is needed here", path);
    return nimbus_net_load(path, out, error);
}

/* The same rows and labels, of floats. */
static nimbus_status widen(nimbus_data **data, nimbus_error *error)
{
    nimbus_data_info info = *nimbus_data_get_info(*data);
    const size_t n = info.n_rows * info.n_features;
    const uint8_t *bytes = nimbus_data_features(*data);
    nimbus_data *wide = NULL;
    float *floats = malloc(n * sizeof *floats + 1);
    if (!floats)
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory for %zu rows of floats",
                          info.n_rows);
    for (size_t i = 0; i < n; i++)
        floats[i] = (float)bytes[i];
    info.dtype = NIMBUS_F32;
    nimbus_status status = nimbus_data_from_arrays(&info, floats, nimbus_data_labels(*data),
                                                   nimbus_data_targets(*data), &wide, error);
    free(floats);
    if (status)
        return status;
    nimbus_data_free(*data);
    *data = wide;
    return NIMBUS_OK;
}

nimbus_status program_data_open(const nimbus_program *program, const char *spec, nimbus_split split,
                                const nimbus_data_options *options, nimbus_data **out,
                                nimbus_error *error)
{
    nimbus_status status = nimbus_data_open(spec, split, options, out, error);
    if (status || !program || nimbus_info(program)->input_dtype != NIMBUS_F32 ||
        nimbus_data_get_info(*out)->dtype != NIMBUS_U8)
        return status;
    if ((status = widen(out, error))) {
        nimbus_data_free(*out);
        *out = NULL;
    }
    return status;
}

nimbus_status program_outputs(const nimbus_program *program, const nimbus_data *data,
                              size_t n_threads, float **outputs, nimbus_error *error)
{
    const nimbus_program_info *info = nimbus_info(program);
    const nimbus_data_info *have = nimbus_data_get_info(data);
    size_t m = info->n_outputs, stride = info->n_inputs * (info->input_dtype == NIMBUS_U8 ? 1 : 4);
    size_t n_rows = have->n_rows ? have->n_rows : 1;
    row_runner *runner = NULL;
    nimbus_status status;

    *outputs = NULL;
    if (have->n_features != info->n_inputs || have->dtype != info->input_dtype)
        return tool_error(error, NIMBUS_ERR_MISMATCH,
                          "the program reads %zu %s values a row, but the data has %zu %s values",
                          info->n_inputs, info->input_dtype == NIMBUS_U8 ? "u8" : "f32",
                          have->n_features, have->dtype == NIMBUS_U8 ? "u8" : "f32");
    float *values = calloc(n_rows, m * sizeof *values);
    int32_t *scores = calloc(n_rows, m * sizeof *scores);
    if (!values || !scores) {
        status = tool_error(error, NIMBUS_ERR_MEMORY, "out of memory for the outputs of %zu rows",
                            have->n_rows);
        goto done;
    }
    if ((status = runner_new(program, have->n_rows, n_threads, &runner, error)))
        goto done;
    if ((status = runner_run(runner, nimbus_data_features(data), stride, have->n_rows, scores))) {
        status = tool_error(error, status, "the program refused the rows");
        goto done;
    }
    for (size_t i = 0; i < have->n_rows * m; i++)
        values[i] = (float)scores[i] * info->output_scale;
    *outputs = values;
    values = NULL;
done:
    runner_free(runner);
    free(values);
    free(scores);
    return status;
}

/* Index of the largest of m values; the first of equals. */
static size_t best_of(const float *y, size_t m)
{
    size_t best = 0;
    for (size_t j = 1; j < m; j++)
        if (y[j] > y[best])
            best = j;
    return best;
}

static double cross_entropy(const float *y, size_t m, size_t label)
{
    double sum = 0, top = (double)y[best_of(y, m)];
    for (size_t j = 0; j < m; j++)
        sum += exp((double)y[j] - top);
    return log(sum) + top - (double)y[label];
}

nimbus_evaluation outputs_evaluate(const float *outputs, size_t n_outputs, const nimbus_data *data)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    const int32_t *labels = nimbus_data_labels(data);
    const float *targets = nimbus_data_targets(data);
    nimbus_evaluation result = {.n_rows = info->n_rows, .accuracy = NAN, .loss = NAN};
    double sum = 0;
    if ((!labels && !targets) || info->n_rows == 0)
        return result;
    for (size_t i = 0; i < info->n_rows; i++) {
        const float *y = outputs + i * n_outputs;
        if (labels && (size_t)labels[i] < n_outputs) {
            result.n_correct += best_of(y, n_outputs) == (size_t)labels[i];
            sum += cross_entropy(y, n_outputs, (size_t)labels[i]);
        }
        for (size_t j = 0; targets && j < n_outputs && j < info->n_targets; j++) {
            double d = (double)y[j] - (double)targets[i * info->n_targets + j];
            sum += d * d / (double)info->n_targets;
        }
    }
    result.loss = sum / (double)info->n_rows;
    if (labels)
        result.accuracy = (double)result.n_correct / (double)info->n_rows;
    return result;
}

nimbus_status model_evaluate(const model *m, const nimbus_data *data, unsigned n_threads,
                             nimbus_evaluation *out, nimbus_error *error)
{
    if (m->net)
        return nimbus_evaluate(m->net, data, n_threads, out, error);
    float *outputs;
    nimbus_status status = program_outputs(m->program, data, n_threads, &outputs, error);
    if (status)
        return status;
    *out = outputs_evaluate(outputs, m->n_outputs, data);
    free(outputs);
    return NIMBUS_OK;
}

nimbus_status output_check(const char *path, nimbus_error *error)
{
    struct stat s;
    char folder[PATH_MAX];
    if (strlen(path) >= sizeof folder)
        return tool_error(error, NIMBUS_ERR_ARGUMENT, "the name of the output is too long");
    if (stat(path, &s) == 0 && !S_ISREG(s.st_mode))
        return tool_error(error, NIMBUS_ERR_IO, "%s: exists and is not a regular file", path);
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else
        snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (access(folder, W_OK | X_OK) != 0)
        return tool_error(error, NIMBUS_ERR_IO, "cannot write into folder '%s': %s", folder,
                          strerror(errno));
    return NIMBUS_OK;
}

double given_or_none(double given)
{
    return isnan(given) ? 0 : given > 0 ? given : -1;
}

int same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

nimbus_status file_replace(const char *path, const char *bytes, size_t size, nimbus_error *error)
{
    char *temporary = path_and_suffix(path, ".tmp");
    if (!temporary)
        return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", path);
    FILE *file = fopen(temporary, "wb");
    int failed = !file || fwrite(bytes, 1, size, file) != size;
    int why = errno;
    if (file && fclose(file) != 0 && !failed) {
        failed = 1;
        why = errno;
    }
    if (!failed && rename(temporary, path) != 0) {
        failed = 1;
        why = errno;
    }
    if (failed && file)
        (void)remove(temporary);
    free(temporary);
    return failed
               ? tool_error(error, NIMBUS_ERR_IO, "%s: cannot be written: %s", path, strerror(why))
               : NIMBUS_OK;
}

static char *join(const char *path, size_t keep, const char *suffix)
{
    size_t size = keep + strlen(suffix) + 1;
    char *out = malloc(size);
    if (out)
        snprintf(out, size, "%.*s%s", (int)keep, path, suffix);
    return out;
}

char *path_and_suffix(const char *path, const char *suffix)
{
    return join(path, strlen(path), suffix);
}

char *path_with_suffix(const char *path, const char *suffix)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    int has_suffix = dot && dot != path && (!slash || dot > slash + 1);
    return join(path, has_suffix ? (size_t)(dot - path) : strlen(path), suffix);
}
