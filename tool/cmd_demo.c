/* cmd_demo.c - nimbus demo: the whole way on built-in data, as the commands a user would type */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench_table.h"

typedef struct demo_arguments {
    common_arguments common;
    const char *folder;
    size_t epochs;
} demo_arguments;

static const option_entry entries[] = {
    {"out", 'o', OPTION_TEXT, "DIR", offsetof(demo_arguments, folder), 0, 0, NULL,
     "folder for the files it makes (build/demo)"},
    {"epochs", 'e', OPTION_COUNT, "N", offsetof(demo_arguments, epochs), 1, 1000, NULL,
     "of training and of fine-tuning (each verb's own)"},
    {"rows", 0, OPTION_COUNT, "N", offsetof(demo_arguments, common.rows), 100, 1e6, NULL,
     "digits to draw per split (20000 for training, 4000 for test)"},
};

static int demo_run(int argc, char **argv);

const nimbus_verb verb_demo = {
    .name = "demo",
    .purpose = "the whole way on built-in data: train, convert, compile, measure",
    .usage = "[--out DIR] [options]",
    .about =
        "Draws handwritten-like digits, trains a float net of 784-512-512-10 on them, converts "
        "and compiles it, and ends with a table: accuracy, bytes and ns per row of each form "
        "beside oneDNN int8 and OpenBLAS. Takes a few minutes, needs no download, and shows "
        "every command it runs.",
    .examples = {"nimbus demo", "nimbus demo --out my-demo --rows 2000 --epochs 3"},
    .groups = GROUP_SEED | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .run = demo_run,
};

enum { FLOAT_NET, LOOKUP_NET, PROGRAM, OPTIONS, N_PATHS };
typedef struct demo_paths {
    char path[N_PATHS][PATH_MAX];
} demo_paths;

static nimbus_status make_folder(const char *folder, nimbus_error *error)
{
    char part[PATH_MAX];
    size_t n = strlen(folder);
    if (n + 32 > sizeof part)
        return tool_error(error, NIMBUS_ERR_ARGUMENT, "the name of the folder is too long");
    for (size_t i = 1; i <= n; i++) {
        if (folder[i] != '/' && folder[i] != 0)
            continue;
        snprintf(part, sizeof part, "%.*s", (int)i, folder);
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return tool_error(error, NIMBUS_ERR_IO, "cannot make folder '%s': %s", part,
                              strerror(errno));
    }
    return NIMBUS_OK;
}

/* The folder is the demo's own: what an interrupted demo with other options left to go on from
 * would only be refused. */
static nimbus_status drop_other_checkpoints(const demo_arguments *args, const demo_paths *p,
                                            nimbus_error *error)
{
    char ours[128], theirs[128] = "";
    snprintf(ours, sizeof ours, "rows %zu, epochs %zu, seed %zu\n", args->common.rows, args->epochs,
             args->common.seed);
    FILE *file = fopen(p->path[OPTIONS], "r");
    if (file) {
        if (!fgets(theirs, sizeof theirs, file))
            theirs[0] = 0;
        fclose(file);
    }
    if (strcmp(ours, theirs) == 0)
        return NIMBUS_OK;
    for (size_t i = FLOAT_NET; i <= LOOKUP_NET; i++) {
        char *checkpoint = path_and_suffix(p->path[i], ".ckpt");
        if (!checkpoint)
            return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", p->path[i]);
        remove(checkpoint);
        free(checkpoint);
    }
    file = fopen(p->path[OPTIONS], "w");
    const int written = file && fputs(ours, file) >= 0;
    if ((file && fclose(file) != 0) || !written)
        return tool_error(error, NIMBUS_ERR_IO, "cannot write '%s': %s", p->path[OPTIONS],
                          strerror(errno));
    return NIMBUS_OK;
}

/* Runs one verb as if typed, after showing the command. Its tables go to standard error if
 * standard output is for the JSON. */
static int step(const demo_arguments *args, const nimbus_verb *verb, const char *const *words)
{
    char *argv[32], seed[32], threads[32], rows[32], epochs[32];
    int argc = 0, saved = -1;
    argv[argc++] = (char *)(uintptr_t)verb->name; /* getopt permutes, but does not write to it */
    for (size_t i = 0; words[i]; i++)
        argv[argc++] = (char *)(uintptr_t)words[i];
    const struct {
        const char *name;
        size_t value;
        char *text;
        int wanted;
    } numbers[] = {
        {"--seed", args->common.seed, seed, args->common.seed && (verb->groups & GROUP_SEED)},
        {"--threads", args->common.threads, threads, args->common.threads != 0},
        {"--rows", args->common.rows, rows, args->common.rows && verb != &verb_compile},
        {"--epochs", args->epochs, epochs, args->epochs && verb != &verb_compile},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].wanted) {
            snprintf(numbers[i].text, 32, "%zu", numbers[i].value);
            argv[argc++] = (char *)(uintptr_t)numbers[i].name;
            argv[argc++] = numbers[i].text;
        }
    if (args->common.quiet)
        argv[argc++] = (char *)(uintptr_t) "--quiet";
    argv[argc] = NULL;
    fflush(stdout);
    if (args->common.json) {
        saved = dup(STDOUT_FILENO);
        dup2(STDERR_FILENO, STDOUT_FILENO);
    }
    if (!args->common.quiet) {
        printf("\n$ nimbus");
        for (int i = 0; i < argc; i++)
            printf(" %s", argv[i]);
        putchar('\n');
        fflush(stdout);
    }
    int code = verb->run(argc, argv);
    fflush(stdout);
    if (saved >= 0) {
        dup2(saved, STDOUT_FILENO);
        close(saved);
    }
    return code;
}

static int run_steps(const demo_arguments *args, const demo_paths *p)
{
    const char *const train[] = {"--data", "digits", "-o", p->path[FLOAT_NET], NULL};
    const char *const convert[] = {p->path[FLOAT_NET],  "--data", "digits", "-o",
                                   p->path[LOOKUP_NET], NULL};
    const char *const compile[] = {p->path[LOOKUP_NET], "-o", p->path[PROGRAM], NULL};
    int code = step(args, &verb_train, train);
    if (code == EXIT_DONE)
        code = step(args, &verb_convert, convert);
    if (code == EXIT_DONE)
        code = step(args, &verb_compile, compile);
    return code;
}

typedef struct demo_result {
    bench_report bench;
    double lookup_accuracy;
    size_t float_params, program_bytes, table_bytes;
} demo_result;

/* Few sizes and no latencies: a demo is short. */
static nimbus_status measure_times(const nimbus_program *program, const nimbus_net *float_net,
                                   const data_splits *splits, bench_report *out,
                                   nimbus_error *error)
{
    const bench_settings settings = {.rounds = 41, .n_batches = 2, .batches = {1, 256}};
    const bench_models models = {.name = "digits.nimbus",
                                 .program = program,
                                 .float_net = float_net,
                                 .data = splits->test,
                                 .calibration = splits->train};
    return bench_measure(&settings, &models, out, error);
}

static nimbus_status measure(const demo_arguments *args, const demo_paths *p, demo_result *out,
                             nimbus_error *error)
{
    common_arguments with_data = args->common;
    data_splits splits = {0};
    nimbus_net *float_net = NULL, *lookup_net = NULL;
    nimbus_program *program = NULL;
    nimbus_evaluation e;
    nimbus_net_info info;
    nimbus_status status;
    with_data.data = "digits";
    if ((status = splits_open(&with_data, NULL, 0, &splits, error)) ||
        (status = net_open(p->path[FLOAT_NET], &float_net, error)) ||
        (status = net_open(p->path[LOOKUP_NET], &lookup_net, error)) ||
        (status = nimbus_open(p->path[PROGRAM], &program, error)) ||
        (status =
             nimbus_evaluate(lookup_net, splits.test, (unsigned)args->common.threads, &e, error)) ||
        (status = measure_times(program, float_net, &splits, &out->bench, error)))
        goto done;
    nimbus_net_get_info(float_net, &info);
    out->lookup_accuracy = e.accuracy;
    out->float_params = info.n_params;
    out->program_bytes = nimbus_info(program)->file_bytes;
    out->table_bytes = nimbus_info(program)->table_bytes;
done:
    nimbus_close(program);
    nimbus_net_free(lookup_net);
    nimbus_net_free(float_net);
    splits_close(&splits);
    return status;
}

/* contender: of the bench whose times are shown; -1: none */
static void add_line(table *t, const char *name, double accuracy, size_t bytes,
                     const bench_report *bench, int contender)
{
    static const size_t batches[2] = {256, 1};
    table_cell(t, "%s", name);
    table_percent(t, accuracy);
    if (bytes)
        table_size(t, bytes);
    else
        table_cell(t, "-");
    for (int i = 0; i < 2; i++) {
        const bench_time *ns = contender < 0 ? NULL : bench_time_at(bench, contender, batches[i]);
        table_number(t, "%.0f", ns ? ns->median : NAN);
    }
}

static int report_result(const demo_arguments *args, const demo_paths *p, const demo_result *r,
                         double seconds)
{
    table t;
    const bench_report *bench = &r->bench;
    const double accuracy = bench->results[BENCH_PROGRAM].accuracy;
    table_init(&t, "lrrrr");
    table_heads(&t, "form", "accuracy", "bytes", "ns/row at 256", "ns/row at 1");
    add_line(&t, "float net, OpenBLAS f32", bench->results[BENCH_OPENBLAS_F32].accuracy,
             r->float_params * 4, bench, BENCH_OPENBLAS_F32);
    add_line(&t, "float net, oneDNN int8", bench->results[BENCH_ONEDNN_INT8].accuracy,
             r->float_params, bench, BENCH_ONEDNN_INT8);
    add_line(&t, "converted net", r->lookup_accuracy, 0, NULL, -1);
    add_line(&t, "compiled program", accuracy, r->program_bytes, bench, BENCH_PROGRAM);
    json_t *json = json_pack(
        "{s:s,s:o,s:o,s:o,s:I,s:I,s:I,s:o}", "folder", args->folder, "bench", bench_json(bench),
        "converted_accuracy", json_number(r->lookup_accuracy), "seconds", json_number(seconds),
        "params", (json_int_t)r->float_params, "program_bytes", (json_int_t)r->program_bytes,
        "table_bytes", (json_int_t)r->table_bytes, "program_accuracy", json_number(accuracy));
    if (!args->common.json) {
        putchar('\n');
        bench_print_head(bench, stdout);
        putchar('\n');
    }
    int code = result_finish(&args->common, &t, json);
    note(&args->common,
         "\ndone in %.0f s; the files are in %s/\nnext: %s inspect %s\nor a net of your own: %s "
         "import NET.onnx",
         seconds, args->folder, tool_path, p->path[PROGRAM], tool_path);
    return code;
}

static int demo_run(int argc, char **argv)
{
    demo_arguments args = {.folder = "build/demo"};
    nimbus_error error = {0};
    static demo_paths p;
    static demo_result result;
    struct timespec began, ended;

    int code = options_parse(&verb_demo, argc, argv, &args);
    if (code >= 0)
        return code;
    if (make_folder(args.folder, &error))
        return fail(&error);
    static const char *const names[N_PATHS] = {"float.net", "lookup.net", "digits.nimbus",
                                               "options.txt"};
    for (size_t i = 0; i < N_PATHS; i++)
        snprintf(p.path[i], sizeof p.path[i], "%.*s/%s", PATH_MAX - 32, args.folder, names[i]);
    if (drop_other_checkpoints(&args, &p, &error))
        return fail(&error);
    clock_gettime(CLOCK_MONOTONIC, &began);
    code = run_steps(&args, &p);
    if (code != EXIT_DONE)
        return code;
    if (!args.common.quiet)
        note(&args.common, "\nmeasuring ...");
    if (measure(&args, &p, &result, &error))
        return fail(&error);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds =
        (double)(ended.tv_sec - began.tv_sec) + 1e-9 * (double)(ended.tv_nsec - began.tv_nsec);
    return report_result(&args, &p, &result, seconds);
}
