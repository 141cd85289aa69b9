/* cmd_compile.c - nimbus compile: a converted net becomes an integer program, one .nimbus file */
#include <stdlib.h>

#include "tool.h"

typedef struct compile_arguments {
    common_arguments common;
    const char *output;
} compile_arguments;

#define CALIBRATION_ROWS 4096

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", offsetof(compile_arguments, output), 0, 0, NULL,
     "where the program goes (NET.nimbus)"},
};

static int compile_run(int argc, char **argv);

const nimbus_verb verb_compile = {
    .name = "compile",
    .purpose = "fold a converted net into an integer program, a .nimbus file",
    .usage = "LOOKUP.net [-o FILE.nimbus] [options]",
    .about = "Turns thresholds and tables into integers, folds normalisation, bias and activation "
             "into them, drops columns that no tree reads, and writes one file that nimbus.h loads "
             "and runs. --data is needed only if some layers were left exact: the ranges of "
             "their inputs are measured on its training rows (4096 unless --rows says otherwise).",
    .examples = {"nimbus compile lookup.net -o mnist.nimbus",
                 "nimbus compile part-exact.net --data mnist"},
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

static int report_result(const compile_arguments *args)
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
    table_init(&t, "lr");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        table_cell(&t, "%s", lines[i].what);
        table_size(&t, lines[i].value);
    }
    nimbus_close(program);
    note(&args->common, "%s: written", args->output);
    return result_finish(&args->common, &t, json);
}

static int compile_run(int argc, char **argv)
{
    compile_arguments args = {0};
    nimbus_error error = {0};
    nimbus_net *net = NULL;
    nimbus_data *calibration = NULL;
    char *output = NULL;
    nimbus_status status;

    int code = options_parse(&verb_compile, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!args.output)
        args.output = output = path_with_suffix(args.common.files[0], ".nimbus");
    if (!args.output) {
        status = tool_error(&error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    if ((status = output_check(args.output, &error)) ||
        (status = net_open(args.common.files[0], &net, &error)) ||
        (args.common.data && (status = open_calibration(&args.common, net, &calibration, &error))))
        goto done;
    nimbus_compile_options options = NIMBUS_COMPILE_OPTIONS_INIT;
    options.calibration = calibration;
    options.n_threads = (unsigned)args.common.threads;
    work_begin();
    status = nimbus_compile_to_file(net, &options, args.output, &error);
    work_end();
done:
    code = status ? fail(&error) : report_result(&args);
    nimbus_net_free(net);
    nimbus_data_free(calibration);
    free(output);
    return code;
}
