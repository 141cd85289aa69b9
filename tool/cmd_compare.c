/* cmd_compare.c - nimbus compare: methods x nets x seeds on the same rows, into one file of results
 *
 * The file is JSON, {"runs": [...]}, written anew after every run: what stands in it is not run
 * again, so an interrupted comparison starts with the run it was at. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tool.h"

typedef struct compare_arguments {
    common_arguments common;
    const char *output, *methods;
    size_t seeds, v, levels, trees, bits, shift;
    double budget, seconds, valid, target;
} compare_arguments;

enum { DEFAULT_V = 8 };

#define AT(field) offsetof(compare_arguments, field)

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL,
     "results as JSON; runs that stand in it are not run again (compare.json)"},
    {"methods", 'm', OPTION_TEXT, "LIST", AT(methods), 0, 0, NULL,
     "names with commas between: nimbus, maddness, stella-nera, lut-nn, dense-start, random-start, "
     "seed (all)"},
    {"seeds", 0, OPTION_COUNT, "N", AT(seeds), 1, 1000, NULL, "seeds of each, from --seed on (1)"},
    {"budget", 0, OPTION_NUMBER, "EPOCHS", AT(budget), 0, 1e6, NULL,
     "rows that all trainings of a run together see, in epochs; 0: what each method was published "
     "with (10)"},
    {"seconds", 0, OPTION_NUMBER, "S", AT(seconds), 0, 1e9, NULL,
     "end a run after this much processor time with what its held-out rows have shown (0: never)"},
    {"target", 0, OPTION_NUMBER, "PART", AT(target), 0, 1, NULL,
     "time is taken to this part of the float net's accuracy on held-out rows (0.99)"},
    {"v", 'v', OPTION_COUNT, "COLUMNS", AT(v), 1, 1u << 24, NULL,
     "input columns per codebook, V (8; in nets with convolutions a codebook reads the window of a "
     "channel)"},
    {"levels", 0, OPTION_COUNT, "H", AT(levels), 1, 8, NULL,
     "levels of a tree; codebooks have 2^H leaves or centroids (4)"},
    {"trees", 0, OPTION_COUNT, "T", AT(trees), 1, 16, NULL,
     "trees for each group of V columns, of all methods but lut-nn (1)"},
    {"bits", 0, OPTION_COUNT, "BITS", AT(bits), 2, 32, NULL,
     "of a table entry, 2 to 8, or 32 for float tables (8)"},
    {"shift", 0, OPTION_COUNT, "PIXELS", AT(shift), 0, 16, NULL,
     "images are moved by up to this many pixels in the last training (0)"},
    {"valid", 0, OPTION_NUMBER, "PART", AT(valid), 0.001, 0.9, NULL,
     "part of the training rows held out and evaluated before the last training and after "
     "each of its epochs (0.05)"},
};

static int compare_run(int argc, char **argv);

const nimbus_verb verb_compare = {
    .name = "compare",
    .purpose = "convert nets by this and previous methods on equal budgets",
    .usage = "FLOAT.net... --data SPEC [-o RESULTS.json] [options]",
    .about =
        "Converts every net by every method with every seed: the same rows, codebooks, leaves "
        "and bits, trainings that together see equally many rows. Shows accuracy and time, and "
        "keeps both before the last training and after each of its epochs; time is processor time "
        "of all threads, so other work on the machine counts little. Interrupted, the same command "
        "keeps the finished runs and starts with the one it was at; 'nimbus report' draws the "
        "file.",
    .examples = {"nimbus compare float.net --data mnist -o compare.json",
                 "nimbus compare d2.net d8.net --data mnist --methods nimbus,lut-nn --seeds 3"},
    .groups = GROUP_DATA | GROUP_SEED | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = MOST_FILES,
    .run = compare_run,
};

/* ---- what is to be run -------------------------------------------------------------------- */

/* Which methods the list names, all if it is empty; an exit code, or negative to go on. */
static int read_methods(const char *text, int wanted[N_METHODS])
{
    for (size_t i = 0; i < N_METHODS; i++)
        wanted[i] = !*text;
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, ",");
        int found = 0;
        for (size_t i = 0; i < N_METHODS; i++)
            if (strlen(method_names[i]) == length && strncmp(at, method_names[i], length) == 0)
                found = wanted[i] = 1;
        if (!found)
            return choice_error(&verb_compare, "methods", at, length < 40 ? length : 40,
                                method_names);
        at += length + (at[length] == ',');
    }
    return -1;
}

typedef struct float_net {
    const char *path;
    uint64_t sum; /* of the file's bytes */
    nimbus_net *net;
    size_t n_layers; /* that have weights */
    size_t v;        /* columns per codebook; 0: the window of a channel */
    double valid, test;
} float_net;

/* What tells a run from all others. */
static json_t *key_of(const compare_arguments *args, const float_net *net, uint64_t rows_sum,
                      size_t method, uint64_t seed)
{
    return json_pack("{s:s,s:I,s:s,s:I,s:s,s:I,s:f,s:f,s:f,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:s}",
                     "net", net->path, "net_sum", (json_int_t)net->sum, "data", args->common.data,
                     "rows_sum", (json_int_t)rows_sum, "method", method_names[method], "seed",
                     (json_int_t)seed, "budget", args->budget, "limit", args->seconds, "valid_part",
                     args->valid, "v", (json_int_t)net->v, "levels", (json_int_t)args->levels,
                     "trees", (json_int_t)args->trees, "bits", (json_int_t)args->bits, "shift",
                     (json_int_t)args->shift, "rows", (json_int_t)args->common.rows, "data_seed",
                     (json_int_t)args->common.data_seed, "clock", "processor", "curve_from",
                     "start");
}

/* The run with this key in the file, or NULL. */
static json_t *find_run(const json_t *runs, const json_t *key)
{
    for (size_t i = 0; i < json_array_size(runs); i++) {
        json_t *run = json_array_get(runs, i);
        void *at = json_object_iter((json_t *)key);
        while (at && json_equal(json_object_get(run, json_object_iter_key(at)),
                                json_object_iter_value(at)))
            at = json_object_iter_next((json_t *)key, at);
        if (!at)
            return run;
    }
    return NULL;
}

static nimbus_status read_results(const char *path, json_t **file, nimbus_error *error)
{
    json_error_t wrong;
    FILE *f = fopen(path, "rb");
    if (!f && errno == ENOENT) {
        *file = json_pack("{s:[]}", "runs");
        return *file ? NIMBUS_OK : tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    }
    if (!f)
        return tool_error(error, NIMBUS_ERR_IO, "%s: %s", path, strerror(errno));
    *file = json_loadf(f, 0, &wrong);
    (void)fclose(f);
    if (*file && json_is_array(json_object_get(*file, "runs")))
        return NIMBUS_OK;
    return tool_error(error, NIMBUS_ERR_FORMAT,
                      "%s: %s; expected results of 'nimbus compare', or no such file", path,
                      *file ? "no list \"runs\"" : wrong.text);
}

static nimbus_status write_results(const char *path, const json_t *file, nimbus_error *error)
{
    char *text = json_dumps(file, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    if (!text)
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    nimbus_status status = file_replace(path, text, strlen(text), error);
    free(text);
    return status;
}

/* ---- one run ------------------------------------------------------------------------------ */

typedef struct watch {
    const compare_arguments *args;
    progress_display display;
    char name[160];    /* of the run */
    int last_training; /* all layers are converted */
    int timed_out;
    double began;   /* in processor time */
    double seconds; /* of the run so far */
} watch;

/* Processor time of all threads: what else runs on the machine does not count. */
static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void add_point(json_t *curve, double epochs, double seconds, double accuracy)
{
    json_array_append_new(curve, json_pack("[f,f,f]", epochs, seconds, accuracy));
}

static int on_progress(void *user, const nimbus_progress *progress)
{
    watch *w = user;
    nimbus_progress p = *progress;
    char stage[256];
    w->last_training = strcmp(p.stage, "fine-tune") == 0;
    snprintf(stage, sizeof stage, "%s: %s", w->name, p.stage);
    p.stage = stage;
    w->seconds = processor_seconds() - w->began;
    /* not at the very end: what is finished counts */
    w->timed_out = w->args->seconds > 0 && w->seconds > w->args->seconds && p.done < p.total;
    return progress_show(&w->display, &p) || w->timed_out;
}

/* [epochs of rows seen, seconds, accuracy on held-out rows], from when all layers are converted. */
static json_t *curve_of(watch *w, double epochs_before)
{
    json_t *all = progress_curve(&w->display), *curve = json_array();
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *point = json_array_get(all, i), *accuracy = json_array_get(point, 4);
        if (w->last_training && json_is_number(accuracy))
            add_point(curve, epochs_before + json_number_value(json_array_get(point, 0)),
                      json_number_value(json_array_get(point, 1)), json_number_value(accuracy));
    }
    json_decref(all);
    return curve;
}

static nimbus_convert_options options_of(const compare_arguments *args, const float_net *teacher,
                                         const data_splits *splits, size_t method, uint64_t seed,
                                         watch *w)
{
    nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
    o.method = (nimbus_method)method;
    o.budget = args->budget;
    o.v = teacher->v;
    o.levels = args->levels;
    o.trees = args->trees;
    o.bits = (unsigned)args->bits;
    o.train.shift = (unsigned)args->shift;
    o.seed = seed;
    o.n_threads = (unsigned)args->common.threads;
    o.valid = splits->valid;
    o.progress = on_progress;
    o.progress_user = w;
    return o;
}

static double accuracy_on(const nimbus_net *net, const nimbus_data *data, const common_arguments *c,
                          nimbus_status *status, nimbus_error *error)
{
    nimbus_evaluation e;
    if (*status || !data)
        return NAN;
    *status = nimbus_evaluate(net, data, (unsigned)c->threads, &e, error);
    return *status ? (double)NAN : e.accuracy;
}

/* Seconds to the first point of the curve that reaches the accuracy, NaN if none does. */
static double seconds_to(const json_t *curve, double accuracy)
{
    for (size_t i = 0; i < json_array_size(curve); i++) {
        const json_t *point = json_array_get(curve, i);
        if (json_number_value(json_array_get(point, 2)) >= accuracy)
            return json_number_value(json_array_get(point, 1));
    }
    return NAN;
}

/* What the run took to this share of the float net's accuracy; whether that is new to it. */
static int set_target(json_t *run, double target)
{
    const int known = number_of_json(json_object_get(run, "target")) == target;
    const double accuracy = target * number_of_json(json_object_get(run, "float_valid"));
    json_object_set_new(run, "target", json_real(target));
    json_object_set_new(run, "seconds_to_target",
                        json_number(seconds_to(json_object_get(run, "curve"), accuracy)));
    return !known;
}

/* Runs one, and adds what came out to its key. */
static nimbus_status run_one(const compare_arguments *args, const float_net *teacher,
                             const data_splits *splits, size_t method, uint64_t seed, json_t *run,
                             watch *w, nimbus_error *error)
{
    static nimbus_convert_report report;
    nimbus_net *net = NULL;
    nimbus_convert_options o = options_of(args, teacher, splits, method, seed, w);
    w->last_training = w->timed_out = 0;
    w->began = processor_seconds();
    nimbus_status status = nimbus_convert(teacher->net, splits->train, &o, &net, &report, error);
    w->seconds = processor_seconds() - w->began;
    progress_finish(&w->display);
    const double n_rows = (double)nimbus_data_get_info(splits->train)->n_rows;
    const double epochs = report.rows_seen / n_rows;
    json_t *curve = curve_of(w, net ? epochs - (double)report.tune.epochs : epochs);
    int failed = status == NIMBUS_ERR_VALUE; /* it diverged: others need not */
    if (failed || (status == NIMBUS_ERR_CANCELLED && w->timed_out && !work_interrupted()))
        status = NIMBUS_OK;
    double valid = net ? accuracy_on(net, splits->valid, &args->common, &status, error) : NAN;
    double test = net ? accuracy_on(net, splits->test, &args->common, &status, error) : NAN;
    size_t n_points = json_array_size(curve);
    if (net && status == NIMBUS_OK && n_points == 0) /* no last training */
        add_point(curve, epochs, w->seconds, valid);
    else if (!net && n_points > 0)
        valid = json_number_value(json_array_get(json_array_get(curve, n_points - 1), 2));
    json_t *result =
        json_pack("{s:I,s:o,s:o,s:o,s:o,s:f,s:b,s:o,s:o,s:s}", "layers",
                  (json_int_t)(net ? report.n_layers : teacher->n_layers), "float_valid",
                  json_number(teacher->valid), "float_test", json_number(teacher->test), "valid",
                  json_number(valid), "test", json_number(test), "seconds", w->seconds, "timed_out",
                  w->timed_out, "failed", failed ? json_string(error->message) : json_null(),
                  "curve", curve, "version", nimbus_version());
    if (!result || json_object_update(run, result))
        status = status ? status : tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    else
        set_target(run, args->target);
    json_decref(result);
    nimbus_net_free(net);
    return status;
}

/* ---- all of them -------------------------------------------------------------------------- */

static void show_run(table *t, const json_t *run)
{
    const char *numbers[] = {"float_valid", "valid", "float_test", "test"};
    table_cell(t, "%s", json_string_value(json_object_get(run, "net")));
    table_size(t, (size_t)json_integer_value(json_object_get(run, "layers")));
    table_cell(t, "%s", json_string_value(json_object_get(run, "method")));
    table_size(t, (size_t)json_integer_value(json_object_get(run, "seed")));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        table_percent(t, number_of_json(json_object_get(run, numbers[i])));
    const char *times[] = {"seconds", "seconds_to_target"};
    for (size_t i = 0; i < 2; i++)
        table_number(t, "%.1f", number_of_json(json_object_get(run, times[i])));
}

/* Sums tell nets and rows of one name apart: FNV-1a, shifted as JSON's integers have a sign. */
#define SUM_BEGIN    14695981039346656037u
#define SUM_END(sum) ((sum) >> 1)

static uint64_t sum_on(uint64_t sum, const void *bytes, size_t size)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ b[i]) * 1099511628211u;
    return sum;
}

static uint64_t sum_of_file(const char *path)
{
    uint64_t sum = SUM_BEGIN;
    unsigned char block[4096];
    FILE *file = fopen(path, "rb");
    for (size_t n; file && (n = fread(block, 1, sizeof block, file)) > 0;)
        sum = sum_on(sum, block, n);
    if (file)
        (void)fclose(file);
    return SUM_END(sum);
}

static uint64_t sum_of_rows(const data_splits *splits)
{
    uint64_t sum = SUM_BEGIN;
    const nimbus_data *all[] = {splits->train, splits->valid, splits->test};
    for (size_t i = 0; i < 3; i++) {
        if (!all[i])
            continue;
        const nimbus_data_info *info = nimbus_data_get_info(all[i]);
        const size_t value = info->dtype == NIMBUS_U8 ? 1 : sizeof(float);
        sum = sum_on(sum, nimbus_data_features(all[i]), info->n_rows * info->n_features * value);
        if (nimbus_data_labels(all[i]))
            sum = sum_on(sum, nimbus_data_labels(all[i]), info->n_rows * sizeof(int32_t));
    }
    return SUM_END(sum);
}

static size_t layers_of_type(const nimbus_net *net, const char *type)
{
    nimbus_net_info info;
    size_t n = 0;
    nimbus_net_get_info(net, &info);
    for (size_t i = 0; i < info.n_layers; i++) {
        nimbus_layer_info layer;
        nimbus_error ignored;
        n += nimbus_net_get_layer(net, i, &layer, &ignored) == NIMBUS_OK &&
             strcmp(layer.type, type) == 0;
    }
    return n;
}

static nimbus_status open_net(const compare_arguments *args, size_t i, float_net *out,
                              data_splits *splits, nimbus_error *error)
{
    nimbus_net_info info;
    *out = (float_net){.path = args->common.files[i]};
    nimbus_status status = net_open(out->path, &out->net, error);
    if (status)
        return status;
    nimbus_net_get_info(out->net, &info);
    out->sum = sum_of_file(out->path);
    const size_t n_convolutions = layers_of_type(out->net, "conv2d");
    out->n_layers = n_convolutions + layers_of_type(out->net, "linear");
    out->v = args->v ? args->v : n_convolutions ? 0 : DEFAULT_V;
    if (i == 0) {
        char *schema = schema_of_metadata(info.metadata, NULL);
        status = splits_open(&args->common, schema, args->valid, splits, error);
        free(schema);
    }
    out->valid = accuracy_on(out->net, splits->valid, &args->common, &status, error);
    out->test = accuracy_on(out->net, splits->test, &args->common, &status, error);
    if (!status && !isfinite(out->valid))
        status = tool_error(error, NIMBUS_ERR_MISMATCH,
                            "%s: no accuracy on the held-out rows; methods are compared on data "
                            "with classes",
                            out->path);
    return status;
}

static nimbus_status compare_all(const compare_arguments *args, const int wanted[N_METHODS],
                                 json_t *file, table *t, json_t *shown, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    data_splits splits = {0};
    watch w = {.args = args};
    size_t done = 0, n_methods = 0;
    uint64_t rows_sum = 0;
    for (size_t m = 0; m < N_METHODS; m++)
        n_methods += wanted[m] != 0;
    const size_t total = args->common.n_files * n_methods * args->seeds;
    json_t *runs = json_object_get(file, "runs");
    for (size_t i = 0; i < args->common.n_files && !status; i++) {
        float_net teacher;
        status = open_net(args, i, &teacher, &splits, error);
        if (i == 0 && !status) /* the rows are the same for all nets */
            rows_sum = sum_of_rows(&splits);
        for (size_t s = 0; s < args->seeds && !status; s++)
            for (size_t m = 0; m < N_METHODS && !status; m++) {
                if (!wanted[m])
                    continue;
                json_t *run = key_of(args, &teacher, rows_sum, m, args->common.seed + s);
                if (!run)
                    status = tool_error(error, NIMBUS_ERR_ARGUMENT,
                                        "%s: names must be UTF-8 to stand in JSON", teacher.path);
                json_t *known = run ? find_run(runs, run) : NULL;
                progress_init(&w.display, &args->common);
                w.display.curve_seconds = &w.seconds;
                snprintf(w.name, sizeof w.name, "%zu/%zu %s %s", ++done, total, method_names[m],
                         teacher.path);
                if (!known && !status)
                    status =
                        run_one(args, &teacher, &splits, m, args->common.seed + s, run, &w, error);
                int changed = known ? set_target(known, args->target)
                                    : !status && json_array_append(runs, run) == 0;
                if (changed)
                    status = write_results(args->output, file, error);
                if (!status) {
                    show_run(t, known ? known : run);
                    json_array_append(shown, known ? known : run);
                }
                json_decref(run);
            }
        nimbus_net_free(teacher.net);
    }
    splits_close(&splits);
    return status;
}

static int compare_run(int argc, char **argv)
{
    compare_arguments args = {.output = "compare.json",
                              .methods = "",
                              .seeds = 1,
                              .budget = 10,
                              .valid = 0.05,
                              .target = 0.99,
                              .levels = 4,
                              .trees = 1,
                              .bits = 8};
    nimbus_error error = {0};
    int wanted[N_METHODS];
    json_t *file = NULL, *shown = NULL;
    static table t;
    nimbus_status status;

    int code = options_parse(&verb_compare, argc, argv, &args);
    if (code < 0 && !args.common.data)
        code = usage_error(&verb_compare, "--data SPEC is missing");
    if (code < 0)
        code = read_methods(args.methods, wanted);
    if (code >= 0)
        return code;
    if ((status = output_check(args.output, &error)) ||
        (status = read_results(args.output, &file, &error)))
        goto done;
    table_init(&t, "lrlrrrrrrr");
    table_heads(&t, "net", "layers", "method", "seed", "float valid", "valid", "float test", "test",
                "seconds", "to target");
    shown = json_array();
    work_begin();
    status = compare_all(&args, wanted, file, &t, shown, &error);
    work_end();
    if (status == NIMBUS_ERR_CANCELLED)
        status =
            tool_error(&error, status,
                       "interrupted; the same command keeps the finished runs and starts with the "
                       "one it was at");
    if (status)
        goto done;
    if (json_array_size(shown) >= TABLE_ROWS)
        note(&args.common, "%zu runs, of which the table has the first %d; all are in %s",
             json_array_size(shown), TABLE_ROWS - 1, args.output);
    code = result_finish(&args.common, &t, json_pack("{s:O}", "runs", shown));
done:
    json_decref(shown);
    json_decref(file);
    return status ? fail(&error) : code;
}
