/* cmd_import.c - nimbus import: an ONNX model becomes a float net, layer by layer */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define MAX_CHANNELS 16

typedef struct import_arguments {
    common_arguments common;
    const char *output, *expect, *mean, *deviation;
    int keep_softmax, bytes;
} import_arguments;

#define AT(field) offsetof(import_arguments, field)

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL,
     "where the net goes (MODEL.net, beside the model)"},
    {"keep-softmax", 0, OPTION_FLAG, NULL, AT(keep_softmax), 0, 0, NULL,
     "keep a softmax at the end; else outputs are logits"},
    {"u8", 0, OPTION_FLAG, NULL, AT(bytes), 0, 0, NULL,
     "rows are bytes, raw pixels say (as the model has it)"},
    {"mean", 0, OPTION_TEXT, "LIST", AT(mean), 0, 0, NULL,
     "what to subtract from raw values, one number or one per channel (0)"},
    {"std", 0, OPTION_TEXT, "LIST", AT(deviation), 0, 0, NULL,
     "what to divide them by then, in the same way (1)"},
    {"expect", 'e', OPTION_TEXT, "FILE", AT(expect), 0, 0, NULL,
     "outputs that another program computed on the rows of --data (all with --split all), an npy "
     "file: says how far the net's are from them"},
};

static int import_run(int argc, char **argv);

const nimbus_verb verb_import = {
    .name = "import",
    .purpose = "make a net of an ONNX model, and say what was understood",
    .usage = "MODEL.onnx [-o FILE.net] [options]",
    .about = "Reads a float model with one input and one output, of convolutions, linear layers, "
             "normalisation, pooling, activations, sums and what lies between them, and writes a "
             "float net. What it cannot do exactly as ONNX says, it refuses by name. With --data "
             "it says how well the net does there.",
    .examples = {"nimbus import resnet.onnx --u8 --data cifar-10",
                 "nimbus import net.onnx --mean 125.3,123,113.9 --std 63,62.1,66.7 --data cifar-10",
                 "nimbus import net.onnx --data x.npy,y.npy --split all --expect logits.npy"},
    .groups = GROUP_DATA | GROUP_SPLIT | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = 1,
    .run = import_run,
};

/* Numbers with commas between; 0: wrong. */
static size_t parse_numbers(const char *text, float numbers[MAX_CHANNELS])
{
    size_t n = 0;
    for (;;) {
        char *end;
        double value = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !isfinite(value) || n == MAX_CHANNELS)
            return 0;
        numbers[n++] = (float)value;
        if (!*end)
            return n;
        text = end + 1;
    }
}

/* Means and deviations of the options; an exit code, or negative to go on. */
static int parse_normalisation(const import_arguments *args, float mean[MAX_CHANNELS],
                               float deviation[MAX_CHANNELS], nimbus_import_options *options)
{
    size_t n_mean = 0, n_deviation = 0;
    if (args->mean && (n_mean = parse_numbers(args->mean, mean)) == 0)
        return usage_error(&verb_import, "--mean: '%s' is no list of up to %d numbers", args->mean,
                           MAX_CHANNELS);
    if (args->deviation && (n_deviation = parse_numbers(args->deviation, deviation)) == 0)
        return usage_error(&verb_import, "--std: '%s' is no list of up to %d numbers",
                           args->deviation, MAX_CHANNELS);
    if (n_mean && n_deviation && n_mean != n_deviation)
        return usage_error(&verb_import, "--mean has %zu numbers, --std %zu", n_mean, n_deviation);
    options->input_mean = n_mean ? mean : NULL;
    options->input_std = n_deviation ? deviation : NULL;
    options->n_input_channels = n_mean ? n_mean : n_deviation;
    return -1;
}

/* ---- what was understood -------------------------------------------------------------------- */

static json_t *layer_line(table *t, const nimbus_import_layer *layer)
{
    table_cell(t, "%s", layer->name);
    table_cell(t, "%s", layer->node[0] ? layer->node : "-");
    if (layer->height * layer->width == 1)
        table_cell(t, "%zu", layer->channels);
    else
        table_cell(t, "%zu x %zu x %zu", layer->channels, layer->height, layer->width);
    table_size(t, layer->n_params);
    table_size(t, layer->multiply_adds);
    return json_pack("{s:s,s:s,s:s,s:[I,I,I],s:I,s:I}", "name", layer->name, "type", layer->type,
                     "node", layer->node, "shape", (json_int_t)layer->channels,
                     (json_int_t)layer->height, (json_int_t)layer->width, "params",
                     (json_int_t)layer->n_params, "multiply_adds",
                     (json_int_t)layer->multiply_adds);
}

/* Prints the layers, in as many tables as they fill, unless JSON is wanted; returns them as JSON.
 */
static json_t *show_layers(const common_arguments *common, const nimbus_import_report *report)
{
    static table t;
    json_t *list = json_array();
    for (size_t i = 0; i < report->n_layers; i++) {
        if (i % (TABLE_ROWS - 1) == 0) {
            table_init(&t, "llrrr");
            table_heads(&t, "layer", "of node", "shape", "params", "mul-adds");
        }
        json_array_append_new(list, layer_line(&t, &report->layers[i]));
        if (!common->json && (i + 1 == report->n_layers || (i + 1) % (TABLE_ROWS - 1) == 0))
            table_print(&t, stdout);
    }
    if (!common->json)
        putchar('\n');
    return list;
}

/* ---- how well it does ----------------------------------------------------------------------- */

/* Largest difference to outputs that another program computed, and the largest of those. */
typedef struct comparison {
    double difference, scale;
} comparison;

static nimbus_status compare(const char *path, const float *outputs, size_t n_rows,
                             size_t n_outputs, comparison *out, nimbus_error *error)
{
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    nimbus_data *expected;
    *out = (comparison){0};
    nimbus_status status = nimbus_data_open(path, NIMBUS_SPLIT_ALL, &options, &expected, error);
    if (status)
        return status;
    const nimbus_data_info *info = nimbus_data_get_info(expected);
    const float *values = nimbus_data_features(expected);
    if (info->dtype != NIMBUS_F32 || info->n_rows != n_rows || info->n_features != n_outputs)
        status = tool_error(error, NIMBUS_ERR_MISMATCH,
                            "%s: %zu rows of %zu values, expected %zu rows of %zu floats: those of "
                            "--data that --split chooses",
                            path, info->n_rows, info->n_features, n_rows, n_outputs);
    for (size_t i = 0; !status && i < n_rows * n_outputs; i++) {
        out->difference = fmax(out->difference, fabs((double)outputs[i] - (double)values[i]));
        out->scale = fmax(out->scale, fabs((double)values[i]));
    }
    nimbus_data_free(expected);
    return status;
}

static nimbus_status measure(const import_arguments *args, const nimbus_net *net, table *t,
                             json_t *json, nimbus_error *error)
{
    const common_arguments *common = &args->common;
    nimbus_data *data = NULL;
    nimbus_net_info info;
    comparison c;
    float *outputs = NULL;
    nimbus_data_options o = data_options_of(common, NULL);
    nimbus_status status =
        nimbus_data_open(common->data, (nimbus_split)common->split, &o, &data, error);
    if (status)
        return status;
    size_t n_rows = nimbus_data_get_info(data)->n_rows;
    size_t n_classes = nimbus_data_get_info(data)->n_classes;
    nimbus_net_get_info(net, &info);
    outputs = calloc(n_rows ? n_rows : 1, info.n_outputs * sizeof *outputs);
    if (nimbus_data_labels(data) && n_classes > info.n_outputs)
        status =
            tool_error(error, NIMBUS_ERR_MISMATCH,
                       "%s: labels of %zu classes, counted from 0, but the net has %zu outputs",
                       common->data, n_classes, info.n_outputs);
    else if (!outputs)
        status =
            tool_error(error, NIMBUS_ERR_MEMORY, "no memory for the outputs of %zu rows", n_rows);
    else
        status = nimbus_net_predict(net, data, (unsigned)common->threads, outputs, error);
    if (!status) {
        nimbus_evaluation e = outputs_evaluate(outputs, info.n_outputs, data);
        table_size(t, e.n_rows);
        table_percent(t, e.accuracy);
        table_number(t, "%.4f", e.loss);
        json_object_set_new(json, "rows", json_integer((json_int_t)e.n_rows));
        json_object_set_new(json, "accuracy", json_number(e.accuracy));
        json_object_set_new(json, "loss", json_number(e.loss));
    }
    if (!status && args->expect)
        status = compare(args->expect, outputs, n_rows, info.n_outputs, &c, error);
    if (!status && args->expect) {
        table_number(t, "%.3g", c.difference);
        table_number(t, "%.3g", c.scale);
        json_object_set_new(json, "difference", json_number(c.difference));
        json_object_set_new(json, "scale", json_number(c.scale));
    }
    free(outputs);
    nimbus_data_free(data);
    return status;
}

/* ---- the verb -------------------------------------------------------------------------------- */

/* Says what was understood and how well it does, then saves the net: with data or expected outputs
 * that cannot be read there is none. */
static nimbus_status finish(const import_arguments *args, const nimbus_net *net,
                            const nimbus_import_report *report, int *code, nimbus_error *error)
{
    const common_arguments *common = &args->common;
    static table t;
    nimbus_net_info info;
    nimbus_status status = NIMBUS_OK;
    nimbus_net_get_info(net, &info);
    if (!common->json)
        printf("%s: %zu nodes, opset %d%s%s\n\n", common->files[0], report->n_nodes, report->opset,
               report->producer[0] ? ", made by " : "", report->producer);
    json_t *notes = json_array();
    json_t *json = json_pack("{s:s,s:s,s:s,s:i,s:I,s:s,s:I,s:I,s:I,s:o,s:o}", "model",
                             common->files[0], "output", args->output, "producer", report->producer,
                             "opset", report->opset, "inputs", (json_int_t)info.n_inputs,
                             "input_type", info.input_dtype == NIMBUS_U8 ? "u8" : "f32", "outputs",
                             (json_int_t)info.n_outputs, "params", (json_int_t)report->n_params,
                             "multiply_adds", (json_int_t)report->multiply_adds, "layers",
                             show_layers(common, report), "notes", notes);
    for (size_t i = 0; i < report->n_notes; i++) {
        note(common, "note: %s", report->notes[i]);
        json_array_append_new(notes, json_string(report->notes[i]));
    }
    table_init(&t, args->expect ? "rrrrr" : "rrr");
    if (common->data) {
        const char *const heads[] = {"rows", "accuracy", "loss", "difference", "of at most"};
        table_heads_of(&t, heads);
        status = measure(args, net, &t, json, error);
    }
    if (!status)
        status = nimbus_net_save(net, args->output, error);
    if (status) {
        json_decref(json);
        return status;
    }
    note(common,
         "%s: %zu layers, %zu %s inputs, %zu outputs, %zu parameters, %zu multiply-adds a "
         "row",
         args->output, info.n_layers, info.n_inputs, info.input_dtype == NIMBUS_U8 ? "u8" : "f32",
         info.n_outputs, report->n_params, report->multiply_adds);
    *code = result_finish(common, &t, json);
    return NIMBUS_OK;
}

static int import_run(int argc, char **argv)
{
    import_arguments args = {.common = {SPLIT_DEFAULTS}};
    nimbus_import_options options = NIMBUS_IMPORT_OPTIONS_INIT;
    nimbus_import_report report = {0};
    nimbus_error error = {0};
    nimbus_net *net = NULL;
    float mean[MAX_CHANNELS], deviation[MAX_CHANNELS];
    char *output = NULL;
    nimbus_status status;
    int result = EXIT_DONE;

    int code = options_parse(&verb_import, argc, argv, &args);
    if (code >= 0)
        return code;
    if (args.expect && !args.common.data)
        return usage_error(&verb_import, "--expect needs --data SPEC, the rows it is about");
    code = parse_normalisation(&args, mean, deviation, &options);
    if (code >= 0)
        return code;
    options.keep_softmax = args.keep_softmax;
    options.input_dtype = args.bytes ? NIMBUS_U8 : 0;
    if (!args.output)
        args.output = output = path_with_suffix(args.common.files[0], ".net");
    if (!args.output) {
        status = tool_error(&error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    if ((status = output_check(args.output, &error)) ||
        (status = nimbus_import_onnx(args.common.files[0], &options, &net, &report, &error)))
        goto done;
    status = finish(&args, net, &report, &result, &error);
done:
    nimbus_import_report_free(&report);
    nimbus_net_free(net);
    free(output);
    return status ? fail(&error) : result;
}
