/* cmd_check.c - nimbus check: all states of a net on the same rows, and the errors between them */
#include <math.h>
#include <stdlib.h>

#include "tool.h"

typedef struct check_arguments {
    common_arguments common;
    const char *teacher, *net, *program;
} check_arguments;

#define AT(field) offsetof(check_arguments, field)

static const option_entry entries[] = {
    {"float", 0, OPTION_TEXT, "FILE", AT(teacher), 0, 0, NULL,
     "the float net it was converted from (none)"},
    {"net", 0, OPTION_TEXT, "FILE", AT(net), 0, 0, NULL, "the converted net"},
    {"program", 0, OPTION_TEXT, "FILE", AT(program), 0, 0, NULL,
     "the program it was compiled to (none)"},
};

static int check_run(int argc, char **argv);

const nimbus_verb verb_check = {
    .name = "check",
    .purpose = "run float, differentiable, lookup and integer forms on the same rows",
    .usage = "--net LOOKUP.net --data SPEC [--float FLOAT.net] [--program FILE.nimbus]",
    .about = "Prints per layer the normalised squared error of the lookup form against the matrix "
             "product, and whether the differentiable form gives the same bits; for the whole net "
             "the accuracies and the rows on which the integer program decides otherwise. Fails "
             "(exit 1) if any bit differs between the differentiable and the lookup form.",
    .examples = {"nimbus check --float float.net --net lookup.net --data mnist",
                 "nimbus check --net lookup.net --program mnist.nimbus --data mnist --rows 1000"},
    .groups = GROUP_DATA | GROUP_SPLIT,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .run = check_run,
};

static json_t *layer_lines(const nimbus_check_report *report, table *t, size_t *different)
{
    json_t *list = json_array();
    table_init(t, "lrrr");
    table_heads(t, "layer", "product to lookup", "soft to lookup", "bits differ in");
    for (size_t i = 0; i < report->n_layers && i < NIMBUS_REPORT_LAYERS; i++) {
        const nimbus_check_layer *layer = &report->layers[i];
        *different += layer->soft_lookup_differences;
        table_cell(t, "%s", layer->name);
        table_number(t, "%.5f", layer->dense_to_lookup);
        table_number(t, "%.2g", layer->soft_to_lookup);
        table_size(t, layer->soft_lookup_differences);
        json_array_append_new(
            list, json_pack("{s:s,s:o,s:o,s:I}", "name", layer->name, "dense_to_lookup",
                            json_number(layer->dense_to_lookup), "soft_to_lookup",
                            json_number(layer->soft_to_lookup), "soft_lookup_differences",
                            (json_int_t)layer->soft_lookup_differences));
    }
    return list;
}

static int report_result(const check_arguments *args, const nimbus_check_report *report)
{
    table layers, t;
    size_t different = 0;
    json_t *json = json_pack(
        "{s:o,s:I,s:o,s:o,s:o,s:I,s:o}", "layers", layer_lines(report, &layers, &different), "rows",
        (json_int_t)report->n_rows, "float_accuracy", json_number(report->float_accuracy),
        "lookup_accuracy", json_number(report->lookup_accuracy), "integer_accuracy",
        json_number(report->integer_accuracy), "decisions_changed",
        (json_int_t)report->decisions_changed, "integer_error", json_number(report->integer_error));
    if (!args->common.json) {
        table_print(&layers, stdout);
        putchar('\n');
    }
    table_init(&t, "lr");
    const struct {
        const char *what;
        double value;
    } accuracies[] = {{"accuracy of the float net", report->float_accuracy},
                      {"accuracy of the converted net", report->lookup_accuracy},
                      {"accuracy of the program", report->integer_accuracy}};
    for (size_t i = 0; i < 3; i++) {
        table_cell(&t, "%s", accuracies[i].what);
        table_percent(&t, accuracies[i].value);
    }
    table_cell(&t, "rows");
    table_size(&t, report->n_rows);
    if (args->program) {
        table_cell(&t, "rows decided otherwise by the program");
        table_size(&t, report->decisions_changed);
        table_cell(&t, "squared error of the program's outputs");
        table_number(&t, "%.2g", report->integer_error);
    }
    int code = result_finish(&args->common, &t, json);
    if (code == EXIT_DONE && different > 0)
        code = fail_with("%zu outputs differ between the differentiable and the lookup form",
                         different);
    return code;
}

static int check_run(int argc, char **argv)
{
    check_arguments args = {.common = {SPLIT_DEFAULTS}};
    nimbus_error error = {0};
    nimbus_net *teacher = NULL, *net = NULL;
    nimbus_program *program = NULL;
    nimbus_data *data = NULL;
    nimbus_net_info info;
    static nimbus_check_report report;
    char *schema = NULL;
    nimbus_status status;

    int code = options_parse(&verb_check, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!args.net || !args.common.data)
        return usage_error(&verb_check, "%s is missing", args.net ? "--data SPEC" : "--net FILE");
    if ((status = net_open(args.net, &net, &error)) ||
        (args.teacher && (status = net_open(args.teacher, &teacher, &error))) ||
        (args.program && (status = nimbus_open(args.program, &program, &error))))
        goto done;
    nimbus_net_get_info(net, &info);
    schema = schema_of_metadata(info.metadata, NULL);
    nimbus_data_options o = data_options_of(&args.common, schema);
    if ((status = program_data_open(program, args.common.data, (nimbus_split)args.common.split, &o,
                                    &data, &error)))
        goto done;
    status = nimbus_check(teacher, net, program, data, &report, &error);
done:
    code = status ? fail(&error) : report_result(&args, &report);
    nimbus_net_free(teacher);
    nimbus_net_free(net);
    nimbus_close(program);
    nimbus_data_free(data);
    free(schema);
    return code;
}
