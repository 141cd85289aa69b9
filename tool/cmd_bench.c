/* cmd_bench.c - nimbus bench: ns per row of a program beside oneDNN int8 and OpenBLAS floats */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench_table.h"

#define DEMO_PROGRAM "build/demo/digits.nimbus"
#define DEMO_FLOAT   "build/demo/float.net"

typedef struct bench_arguments {
    common_arguments common;
    const char *float_net;
} bench_arguments;

static const option_entry entries[] = {
    {"float", 0, OPTION_TEXT, "FILE", offsetof(bench_arguments, float_net), 0, 0, NULL,
     "the float net the program was made of: the peers run it (none: no peers)"},
};

static int bench_run(int argc, char **argv);

const nimbus_verb verb_bench = {
    .name = "bench",
    .purpose = "time a program beside int8 and float forms of the same net",
    .usage = "[FILE.nimbus --float FLOAT.net] [--data SPEC] [options]",
    .about = "Measures CPU time per row of the program, of the float net as oneDNN int8 products "
             "and of the float net through OpenBLAS, one thread each, interleaved in one process "
             "and pinned to one core: the median over rounds, and the 10th and 90th percentile. "
             "With --data the rows are its test rows and each form's accuracy is shown. Without "
             "arguments it takes the model that 'nimbus demo' left in build/demo.",
    .examples = {"nimbus bench mnist.nimbus --float float.net --data mnist",
                 "nimbus bench mnist.nimbus --json"},
    .groups = GROUP_DATA,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .max_files = 1,
    .run = bench_run,
};

void bench_print_head(const bench_report *report, FILE *out)
{
    fprintf(out, "%s, kernels %s; one thread on one core, CPU time, median of %zu rounds\n",
            report->cpu, report->isa, report->rounds);
}

static json_t *time_json(const bench_time *t)
{
    return json_pack("{s:o,s:o,s:o}", "median", json_number(t->median), "p10", json_number(t->low),
                     "p90", json_number(t->high));
}

json_t *bench_json(const bench_report *report)
{
    json_t *list = json_array();
    for (size_t k = 0; k < BENCH_PEERS; k++) {
        const bench_result *r = &report->results[k];
        json_t *one = json_pack("{s:s}", "name", r->name);
        if (r->skipped) {
            json_object_set_new(one, "skipped", json_string(r->skipped));
        } else {
            json_object_set_new(one, "ns_per_row_1", time_json(&r->single));
            json_object_set_new(one, "ns_per_row_256", time_json(&r->batch));
            json_object_set_new(one, "accuracy", json_number(r->accuracy));
        }
        json_array_append_new(list, one);
    }
    return json_pack("{s:s,s:s,s:I,s:I,s:o}", "cpu", report->cpu, "isa", report->isa, "rounds",
                     (json_int_t)report->rounds, "rows", (json_int_t)report->n_rows, "results",
                     list);
}

static void add_line(table *t, const bench_result *r)
{
    table_cell(t, "%s", r->name);
    if (r->skipped) {
        table_cell(t, "-");
        table_cell(t, "%s", "");
        table_cell(t, "-");
        table_cell(t, "%s", "");
        table_cell(t, "-");
        return;
    }
    table_number(t, "%.1f", r->single.median);
    table_cell(t, "%.1f..%.1f", r->single.low, r->single.high);
    table_number(t, "%.1f", r->batch.median);
    table_cell(t, "%.1f..%.1f", r->batch.low, r->batch.high);
    table_percent(t, r->accuracy);
}

static int report_result(const bench_arguments *args, const bench_report *report)
{
    table t;
    table_init(&t, "lrrrrr");
    table_heads(&t, "", "ns/row, 1 at a time", "p10..p90", "ns/row, 256", "p10..p90", "accuracy");
    for (size_t k = 0; k < BENCH_PEERS; k++)
        add_line(&t, &report->results[k]);
    if (!args->common.json) {
        bench_print_head(report, stdout);
        if (report->n_rows == 0)
            puts("rows are made up (--data takes real ones and shows accuracies)");
        putchar('\n');
    }
    int code = result_finish(&args->common, &t, bench_json(report));
    for (size_t k = 0; k < BENCH_PEERS && !args->common.json; k++)
        if (report->results[k].skipped)
            printf("%s skipped: %s\n", report->results[k].name, report->results[k].skipped);
    return code;
}

/* The test rows, and training rows on which the int8 peer's ranges are measured. */
static nimbus_status open_rows(const common_arguments *common, const model *m, nimbus_data **test,
                               nimbus_data **calibration, nimbus_error *error)
{
    nimbus_data_options o = data_options_of(common, m->schema);
    nimbus_status status = nimbus_data_open(common->data, NIMBUS_SPLIT_TEST, &o, test, error);
    if (o.n_rows == 0)
        o.n_rows = 4096;
    return status ? status
                  : nimbus_data_open(common->data, NIMBUS_SPLIT_TRAIN, &o, calibration, error);
}

static int bench_run(int argc, char **argv)
{
    bench_arguments args = {0};
    nimbus_error error = {0};
    model m = {0};
    nimbus_net *float_net = NULL;
    nimbus_data *test = NULL, *calibration = NULL;
    static bench_report report;
    nimbus_status status;

    int code = options_parse(&verb_bench, argc, argv, &args);
    if (code >= 0)
        return code;
    if (args.common.n_files == 0) {
        if (access(DEMO_PROGRAM, R_OK) != 0 || access(DEMO_FLOAT, R_OK) != 0)
            return usage_error(&verb_bench,
                               "which program? 'nimbus demo' makes %s, which is taken "
                               "when none is named",
                               DEMO_PROGRAM);
        args.common.files[0] = DEMO_PROGRAM;
        args.float_net = args.float_net ? args.float_net : DEMO_FLOAT;
        args.common.data = args.common.data ? args.common.data : "digits";
    }
    if ((status = model_open(args.common.files[0], &m, &error)))
        goto done;
    if (m.net) {
        status = tool_error(&error, NIMBUS_ERR_FORMAT,
                            "%s: is a .net file; 'nimbus compile' makes a program of it",
                            args.common.files[0]);
        goto done;
    }
    if ((args.float_net && (status = net_open(args.float_net, &float_net, &error))) ||
        (args.common.data && (status = open_rows(&args.common, &m, &test, &calibration, &error))))
        goto done;
    status = bench_measure(m.program, float_net, test, calibration, &report, &error);
done:
    code = status ? fail(&error) : report_result(&args, &report);
    model_close(&m);
    nimbus_net_free(float_net);
    nimbus_data_free(test);
    nimbus_data_free(calibration);
    return code;
}
