/* cmd_compile.c - nimbus compile: a converted net becomes an integer program, one .nimbus file */
#define _GNU_SOURCE /* sched_setaffinity */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef struct compile_arguments {
    common_arguments common;
    const char *output, *float_net, *plan;
    size_t batch;
} compile_arguments;

#define CALIBRATION_ROWS 4096
#define AT(field)        offsetof(compile_arguments, field)

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL,
     "where the program goes (NET.nimbus)"},
    {"plan", 'p', OPTION_TEXT, "PLAN", AT(plan), 0, 0, NULL,
     "lookup: every layer as it was converted; exact: every layer an int8 product; auto: what is "
     "fastest on this CPU; or the layers to make exact, linear1,linear3 (lookup)"},
    {"float", 0, OPTION_TEXT, "FILE", AT(float_net), 0, 0, NULL,
     "the float net it was converted from: its weights serve exact layers better than those the "
     "converted net kept (none)"},
    {"batch", 'b', OPTION_COUNT, "N", AT(batch), 1, 65536, NULL,
     "with --plan auto: rows a call will have (256)"},
};

static int compile_run(int argc, char **argv);

const nimbus_verb verb_compile = {
    .name = "compile",
    .purpose = "fold a converted net into an integer program, a .nimbus file",
    .usage = "LOOKUP.net [-o FILE.nimbus] [options]",
    .about = "Turns thresholds and tables into integers, folds normalisation, bias and activation "
             "into them, drops columns that no tree reads, and writes one file that nimbus.h loads "
             "and runs. --data is needed only if some layers are exact, and for nets with "
             "convolutions: the ranges of values are measured on its training rows (4096 unless "
             "--rows says otherwise, fewer of large images). A plan other "
             "than lookup changes outputs, and accuracy for better or worse ('nimbus eval' tells), "
             "though lookup layers it makes exact are fitted to those around them.",
    .examples = {"nimbus compile lookup.net -o mnist.nimbus",
                 "nimbus compile part-exact.net --data mnist",
                 "nimbus compile lookup.net --float float.net --plan auto --data mnist"},
    .groups = GROUP_DATA | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = 1,
    .run = compile_run,
};

static nimbus_status open_calibration(const common_arguments *common, const nimbus_net *net,
                                      nimbus_data **out, nimbus_error *error)
{
    nimbus_net_info info;
    nimbus_net_get_info(net, &info);
    char *schema = schema_of_metadata(info.metadata, NULL);
    nimbus_data_options options = data_options_of(common, schema);
    if (options.n_rows == 0)
        options.n_rows = CALIBRATION_ROWS;
    nimbus_status status = nimbus_data_open(common->data, NIMBUS_SPLIT_TRAIN, &options, out, error);
    free(schema);
    return status;
}

/* The layers of a measured choice: as a table before the result, and as JSON with it. */
static json_t *choice_lines(const nimbus_choose_report *report, table *t)
{
    json_t *list = json_array();
    table_init(t, "llrr");
    table_heads(t, "layer", "step", "ns/row as lookup", "as exact");
    for (size_t i = 0; i < report->n_layers && i < NIMBUS_REPORT_LAYERS; i++) {
        const nimbus_choose_layer *layer = &report->layers[i];
        const char *kind = layer->kind == NIMBUS_STEP_EXACT ? "exact" : "lookup";
        table_cell(t, "%s", layer->name);
        table_cell(t, "%s", kind);
        table_number(t, "%.1f", layer->lookup_ns);
        table_number(t, "%.1f", layer->exact_ns);
        json_array_append_new(list, json_pack("{s:s,s:s,s:o,s:o}", "name", layer->name, "step",
                                              kind, "lookup_ns", json_number(layer->lookup_ns),
                                              "exact_ns", json_number(layer->exact_ns)));
    }
    table_cell(t, "whole program");
    table_cell(t, "%.1f ns/row", report->chosen_ns);
    table_number(t, "%.1f", report->lookup_ns);
    table_number(t, "%.1f", report->exact_ns);
    return json_pack("{s:I,s:o,s:o,s:o,s:o}", "batch", (json_int_t)report->batch, "layers", list,
                     "lookup_ns", json_number(report->lookup_ns), "exact_ns",
                     json_number(report->exact_ns), "chosen_ns", json_number(report->chosen_ns));
}

static int report_result(const compile_arguments *args, const nimbus_choose_report *choice)
{
    nimbus_error error;
    nimbus_program *program;
    table t;
    if (nimbus_open(args->output, &program, &error))
        return fail(&error);
    const nimbus_program_info *info = nimbus_info(program);
    json_t *json = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "output", args->output, "bytes",
        (json_int_t)info->file_bytes, "table_bytes", (json_int_t)info->table_bytes, "steps",
        (json_int_t)info->n_steps, "lookups", (json_int_t)info->lookups, "comparisons",
        (json_int_t)info->comparisons, "multiply_adds", (json_int_t)info->multiply_adds);
    const struct {
        const char *what;
        size_t value;
    } lines[] = {{"bytes of the file", info->file_bytes},
                 {"bytes of tables", info->table_bytes},
                 {"steps", info->n_steps},
                 {"lookups a row", info->lookups},
                 {"comparisons a row", info->comparisons},
                 {"multiply-adds a row", info->multiply_adds}};
    if (choice) {
        json_object_set_new(json, "plan", choice_lines(choice, &t));
        if (!args->common.json) {
            table_print(&t, stdout);
            putchar('\n');
        }
    }
    table_init(&t, "lr");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        table_cell(&t, "%s", lines[i].what);
        table_size(&t, lines[i].value);
    }
    note(&args->common, "%s: written", args->output);
    if (info->lookups == 0)
        note(&args->common, "no layer is a lookup layer: this is the float net in int8; 'nimbus "
                            "convert' makes lookup layers");
    if (choice ? choice->exact[0] : args->plan && strcmp(args->plan, "lookup") != 0)
        note(&args->common, "layers made exact change the outputs: 'nimbus eval' tells the "
                            "accuracy of this program");
    nimbus_close(program);
    return result_finish(&args->common, &t, json);
}

/* Times programs on one core, so that it moves to no other between two of them. */
static nimbus_status choose_pinned(const compile_arguments *args, const nimbus_net *net,
                                   const nimbus_compile_options *options,
                                   nimbus_choose_report *report, nimbus_error *error)
{
    nimbus_choose_options choose = NIMBUS_CHOOSE_OPTIONS_INIT;
    progress_display display;
    cpu_set_t all, one;
    int core = sched_getcpu();
    int pinned = core >= 0 && core < CPU_SETSIZE && sched_getaffinity(0, sizeof all, &all) == 0;

    if (pinned) {
        CPU_ZERO(&one);
        CPU_SET((size_t)core, &one);
        pinned = sched_setaffinity(0, sizeof one, &one) == 0;
    }
    progress_init(&display, &args->common);
    choose.batch = args->batch;
    choose.progress = progress_show;
    choose.progress_user = &display;
    nimbus_status status = nimbus_compile_choose(net, options, &choose, report, error);
    progress_finish(&display);
    if (pinned)
        (void)sched_setaffinity(0, sizeof all, &all);
    return status;
}

/* What is wrong with the options together; NULL: nothing. */
static const char *misuse(const compile_arguments *args)
{
    int is_auto = args->plan && strcmp(args->plan, "auto") == 0;
    if (args->float_net && (!args->plan || strcmp(args->plan, "lookup") == 0))
        return "--float goes with a --plan that makes layers exact";
    if (args->batch && !is_auto)
        return "--batch goes with --plan auto";
    if (is_auto && !args->common.data)
        return "--plan auto needs --data SPEC to measure on";
    return NULL;
}

static int compile_run(int argc, char **argv)
{
    compile_arguments args = {0};
    nimbus_error error = {0};
    nimbus_net *net = NULL, *float_net = NULL;
    nimbus_data *calibration = NULL;
    nimbus_choose_report choice;
    char *output = NULL;
    int is_auto = 0;
    nimbus_status status;

    int code = options_parse(&verb_compile, argc, argv, &args);
    if (code >= 0)
        return code;
    if (misuse(&args))
        return usage_error(&verb_compile, "%s", misuse(&args));
    if (!args.output)
        args.output = output = path_with_suffix(args.common.files[0], ".nimbus");
    if (!args.output) {
        status = tool_error(&error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    if ((status = output_check(args.output, &error)) ||
        (status = net_open(args.common.files[0], &net, &error)) ||
        (args.float_net && (status = net_open(args.float_net, &float_net, &error))) ||
        (args.common.data && (status = open_calibration(&args.common, net, &calibration, &error))))
        goto done;
    nimbus_compile_options options = NIMBUS_COMPILE_OPTIONS_INIT;
    options.calibration = calibration;
    options.n_threads = (unsigned)args.common.threads;
    options.float_net = float_net;
    is_auto = args.plan && strcmp(args.plan, "auto") == 0;
    if (args.plan && !is_auto && strcmp(args.plan, "lookup") != 0)
        options.exact = strcmp(args.plan, "exact") == 0 ? "*" : args.plan;
    work_begin();
    if (is_auto && !(status = choose_pinned(&args, net, &options, &choice, &error)))
        options.exact = choice.exact;
    if (!status)
        status = nimbus_compile_to_file(net, &options, args.output, &error);
    work_end();
done:
    code = status ? fail(&error) : report_result(&args, is_auto ? &choice : NULL);
    nimbus_net_free(net);
    nimbus_net_free(float_net);
    nimbus_data_free(calibration);
    free(output);
    return code;
}
