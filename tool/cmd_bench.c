/* cmd_bench.c - nimbus bench: a program beside int8 and float forms of the same net */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_table.h"

#define DEMO_PROGRAM "build/demo/digits.nimbus"
#define DEMO_FLOAT   "build/demo/float.net"
#define BATCHES      "1,16,64,256,1024"

typedef struct bench_arguments {
    common_arguments common;
    const char *float_net, *batches, *isa_limit, *html, *ort_dir, *onnx;
    text_list layers;
    size_t rounds;
    int no_latency, peak, sweep, ort;
} bench_arguments;

#define FIELD(name) offsetof(bench_arguments, name)
static const option_entry entries[] = {
    {"float", 0, OPTION_TEXT, "FILE", FIELD(float_net), 0, 0, NULL,
     "the float net the program was made of: the peers run it (none: no peers)"},
    {"batches", 0, OPTION_TEXT, "N,N,...", FIELD(batches), 0, 0, NULL,
     "rows a call, up to ten sizes (" BATCHES ")"},
    {"no-latency", 0, OPTION_FLAG, NULL, FIELD(no_latency), 0, 0, NULL,
     "leave out the percentiles of single calls"},
    {"sweep", 0, OPTION_FLAG, NULL, FIELD(sweep), 0, 0, NULL,
     "the program at every batch size to 32 and steps to 1024"},
    {"layer", 0, OPTION_TEXTS, "N,D,M,V[,BITS]", FIELD(layers), 0, 0, NULL,
     "a random layer of N rows, D inputs, M outputs, V columns per codebook and tables of 8 bits, "
     "or 2 to 7, beside products of its size; may be given several times"},
    {"peak", 0, OPTION_FLAG, NULL, FIELD(peak), 0, 0, NULL,
     "table entries added per cycle on a shape that fits the caches"},
    {"isa-limit", 0, OPTION_TEXT, "NAME", FIELD(isa_limit), 0, 0, NULL,
     "use at most this instruction set, in the program and in oneDNN: ssse3, avx2, avx512bw, "
     "avx512vbmi (all that the CPU has)"},
    {"ort", 0, OPTION_FLAG, NULL, FIELD(ort), 0, 0, NULL,
     "ONNX Runtime int8 and f32 too, through node; 'npm ci --prefix bench/ort' installs it"},
    {"ort-dir", 0, OPTION_TEXT, "DIR", FIELD(ort_dir), 0, 0, NULL,
     "where its script and packages are (bench/ort)"},
    {"onnx", 0, OPTION_TEXT, "DIR", FIELD(onnx), 0, 0, NULL,
     "write the peers' nets there as f32.onnx and int8.onnx"},
    {"rounds", 0, OPTION_COUNT, "N", FIELD(rounds), 1, 10000, NULL,
     "turns that each contender takes (41)"},
    {"html", 0, OPTION_TEXT, "FILE", FIELD(html), 0, 0, NULL,
     "write one self-contained page with charts"},
};

static int bench_run(int argc, char **argv);

const nimbus_verb verb_bench = {
    .name = "bench",
    .purpose = "time a program beside int8 and float forms of the same net",
    .usage = "[FILE.nimbus --float FLOAT.net] [--data SPEC] [options]",
    .about = "Measures CPU time per row of the program, and of the float net as oneDNN int8, "
             "oneDNN f32 and OpenBLAS f32 products, one thread each, in turns in one process "
             "pinned to one core: the median over rounds, and the 10th and 90th percentile; and "
             "the latency of single rows with warm and with cold caches. With --data the rows are "
             "its test rows and each form's accuracy is shown. Without a program, --layer or "
             "--peak it takes the model that 'nimbus demo' left in build/demo.",
    .examples = {"nimbus bench mnist.nimbus --float float.net --data mnist --html bench.html",
                 "nimbus bench --layer 64,512,512,16,7 --layer 1,768,3072,16,7 --peak",
                 "nimbus bench mnist.nimbus --sweep --json"},
    .groups = GROUP_DATA,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .max_files = 1,
    .run = bench_run,
};

/* ---- what is asked for */

/* Numbers from 1 to most, separated by commas; returns how many, 0 if the text is something else.
 */
static size_t read_numbers(const char *text, size_t most, size_t *out, size_t room)
{
    size_t n = 0;
    for (;; text++) {
        char *end;
        unsigned long value = strtoul(text, &end, 10);
        if (end == text || *text < '0' || *text > '9' || value == 0 || value > most || n == room)
            return 0;
        out[n++] = value;
        text = end;
        if (*text != ',')
            return *text ? 0 : n;
    }
}

static int compare_sizes(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

static int read_batches(const char *text, bench_settings *out)
{
    size_t n = read_numbers(text, 65536, out->batches, BENCH_MAX_BATCHES), kept = 0;
    if (n == 0)
        return usage_error(&verb_bench,
                           "--batches: '%s' is not a list of up to %d sizes from 1 to 65536", text,
                           BENCH_MAX_BATCHES);
    qsort(out->batches, n, sizeof *out->batches, compare_sizes);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || out->batches[i] != out->batches[kept - 1])
            out->batches[kept++] = out->batches[i];
    out->n_batches = kept;
    return -1;
}

static int read_layers(const text_list *layers, bench_settings *out)
{
    _Static_assert(BENCH_MAX_SHAPES >= sizeof layers->texts / sizeof *layers->texts,
                   "the report has room for every --layer");
    for (size_t i = 0; i < layers->n; i++) {
        size_t v[5] = {0, 0, 0, 0, 8}, n = read_numbers(layers->texts[i], 65536, v, 5);
        if (n < 4 || v[3] > v[1] || v[4] < 2 || v[4] > 8 || v[0] * v[1] > 1u << 28 ||
            v[1] * v[2] > 1u << 28 || v[0] * v[2] > 1u << 28)
            return usage_error(
                &verb_bench,
                "--layer: '%s' is not N,D,M,V or N,D,M,V,BITS with V at most D, BITS "
                "2 to 8, each at most 65536 and any two of N, D, M at most 2^28 "
                "together",
                layers->texts[i]);
        out->shapes[out->n_shapes++] = (bench_shape){v[0], v[1], v[2], v[3], (unsigned)v[4]};
    }
    return -1;
}

static int read_settings(const bench_arguments *args, bench_settings *out)
{
    *out = (bench_settings){.rounds = args->rounds,
                            .latency = !args->no_latency,
                            .sweep = args->sweep,
                            .peak = args->peak,
                            .ort = args->ort ? args->ort_dir : NULL,
                            .onnx = args->onnx,
                            .isa_limit = args->isa_limit};
    int code = read_batches(args->batches, out);
    return code >= 0 ? code : read_layers(&args->layers, out);
}

/* ---- what it is done with */

typedef struct bench_inputs {
    model m;
    nimbus_net *float_net;
    nimbus_data *test, *calibration;
} bench_inputs;

/* The test rows, and training rows on which the int8 peers' ranges are measured. */
static nimbus_status open_rows(const common_arguments *common, bench_inputs *in,
                               nimbus_error *error)
{
    nimbus_data_options o = data_options_of(common, in->m.schema);
    const nimbus_program *program = in->m.program;
    nimbus_status status =
        program_data_open(program, common->data, NIMBUS_SPLIT_TEST, &o, &in->test, error);
    if (o.n_rows == 0)
        o.n_rows = 4096;
    return status ? status
                  : program_data_open(program, common->data, NIMBUS_SPLIT_TRAIN, &o,
                                      &in->calibration, error);
}

static nimbus_status open_inputs(const bench_arguments *args, bench_inputs *in, nimbus_error *error)
{
    nimbus_status status = program_open(args->common.files[0], &in->m, error);
    if (!status && args->float_net)
        status = net_open(args->float_net, &in->float_net, error);
    if (!status && args->common.data)
        status = open_rows(&args->common, in, error);
    return status;
}

static void close_inputs(bench_inputs *in)
{
    model_close(&in->m);
    nimbus_net_free(in->float_net);
    nimbus_data_free(in->test);
    nimbus_data_free(in->calibration);
}

/* oneDNN first: it takes a limit only before its first use. */
static nimbus_status limit_isa(const char *isa, nimbus_error *error)
{
    nimbus_status status = bench_onednn_limit(isa, error);
    if (!status && (status = nimbus_set_max_isa(isa)))
        status = tool_error(error, status, "this CPU or build has no kernels called '%s'", isa);
    return status;
}

/* ---- what comes out */

static int report_result(const bench_arguments *args, const bench_report *report)
{
    nimbus_error error = {0};
    json_t *json = args->common.json ? bench_json(report) : NULL;
    int code = EXIT_DONE;
    if (args->common.json)
        code = result_finish(&args->common, NULL, json);
    else
        bench_print(report, stdout);
    if (args->html && page_write(bench_page, bench_json(report), args->html, &error))
        return fail(&error);
    if (args->html)
        note(&args->common, "wrote %s", args->html);
    return code;
}

/* The demo's model, where it is. */
static int take_demo(bench_arguments *args)
{
    if (access(DEMO_PROGRAM, R_OK) != 0 || access(DEMO_FLOAT, R_OK) != 0)
        return usage_error(&verb_bench,
                           "which program? 'nimbus demo' makes %s, which is taken when none is "
                           "named",
                           DEMO_PROGRAM);
    args->common.n_files = 1;
    args->common.files[0] = DEMO_PROGRAM;
    args->float_net = args->float_net ? args->float_net : DEMO_FLOAT;
    args->common.data = args->common.data ? args->common.data : "digits";
    return -1;
}

static void show_part(const void *user, const char *part)
{
    note(user, "%s", part);
}

static int bench_run(int argc, char **argv)
{
    bench_arguments args = {.rounds = 41, .batches = BATCHES, .ort_dir = "bench/ort"};
    bench_settings settings;
    bench_inputs in = {0};
    nimbus_error error = {0};
    static bench_report report;
    nimbus_status status = NIMBUS_OK;

    int code = options_parse(&verb_bench, argc, argv, &args);
    if (code >= 0 || (code = read_settings(&args, &settings)) >= 0)
        return code;
    if (args.common.n_files == 0 && !settings.n_shapes && !settings.peak &&
        (code = take_demo(&args)) >= 0)
        return code;
    if ((args.html && (status = output_check(args.html, &error))) ||
        (args.isa_limit && (status = limit_isa(args.isa_limit, &error))) ||
        (args.common.n_files && (status = open_inputs(&args, &in, &error))))
        goto done;
    bench_models models = {.name = args.common.files[0],
                           .program = in.m.program,
                           .float_net = in.float_net,
                           .data = in.test,
                           .calibration = in.calibration};
    settings.begins = show_part;
    settings.user = &args.common;
    status = bench_measure(&settings, &models, &report, &error);
done:
    code = status ? fail(&error) : report_result(&args, &report);
    close_inputs(&in);
    return code;
}
