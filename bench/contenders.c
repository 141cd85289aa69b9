/* contenders.c - the program and its peers at every batch size, their times and accuracies */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"
#include "bench_error.h"

#define CALIBRATION_ROWS 2048

typedef struct form {
    bench_run_fn run;               /* NULL: skipped */
    void *state[BENCH_MAX_BATCHES]; /* by batch size; the same one where it does not matter */
} form;

typedef struct program_state {
    const nimbus_program *program;
    void *scratch;
} program_state;

/* What one measurement owns. */
typedef struct bench_set {
    const bench_settings *settings;
    const bench_models *models;
    size_t largest; /* batch */
    bench_rows rows, calibration;
    bench_net net;
    bench_int8 int8;
    program_state program;
    bench_peer *peers[BENCH_CONTENDERS][BENCH_MAX_BATCHES];
    form list[BENCH_CONTENDERS];
    bench_ort_child *ort; /* NULL: not there */
    size_t n_outputs;
    void *outputs; /* [largest][M] of 4 bytes */
} bench_set;

static nimbus_status run_program(void *state, const bench_rows *rows, size_t first, size_t n,
                                 void *outputs)
{
    const program_state *s = state;
    return nimbus_run(s->program, (const char *)rows->raw + first * rows->stride, rows->stride, n,
                      outputs, s->scratch);
}

const bench_time *bench_time_at(const bench_report *report, int contender, size_t batch)
{
    const bench_result *r = &report->results[contender];
    for (size_t i = 0; i < report->n_batches; i++)
        if (report->batches[i] == batch && r->name && !*r->skipped)
            return &r->ns[i];
    return NULL;
}

int bench_best_peer(const bench_report *report, size_t i, const char *suffix)
{
    int best = -1;
    for (int k = BENCH_PROGRAM + 1; k < BENCH_CONTENDERS; k++) {
        const bench_result *r = &report->results[k];
        if (!r->name || *r->skipped || strlen(r->name) < strlen(suffix) ||
            strcmp(r->name + strlen(r->name) - strlen(suffix), suffix) != 0)
            continue;
        if (best < 0 || r->ns[i].median < report->results[best].ns[i].median)
            best = k;
    }
    return best;
}

/* ---- building them */

static void skip(bench_report *out, int contender, const char *why)
{
    snprintf(out->results[contender].skipped, BENCH_TEXT, "%s", why);
}

static nimbus_status check_float_net(const bench_set *s, nimbus_error *error)
{
    const nimbus_program_info *info = nimbus_info(s->models->program);
    const bench_net *net = &s->net;
    size_t d = bench_width(net->in), m = net->layers[net->n_layers - 1].m;
    if (d == info->n_inputs && m == info->n_outputs && net->input_dtype == info->input_dtype)
        return NIMBUS_OK;
    return bench_fail(error, NIMBUS_ERR_MISMATCH,
                      "the float net has %zu inputs and %zu outputs, the program %zu and %zu", d, m,
                      info->n_inputs, info->n_outputs);
}

static void add_peer(bench_set *s, int k, bench_library library, const bench_int8 *int8,
                     bench_report *out)
{
    nimbus_error error = {0};
    for (size_t i = 0; i < s->settings->n_batches; i++) {
        bench_peer **peer = &s->peers[k][i];
        if (bench_peer_new(library, &s->net, int8, s->settings->batches[i], peer, &error)) {
            skip(out, k, error.message);
            return;
        }
        bench_peer_how(*peer, out->results[k].how, BENCH_TEXT);
        s->list[k].state[i] = *peer;
    }
    s->list[k].run = bench_peer_run;
}

/* After the int8 form was made. */
static void add_ort(bench_set *s, bench_report *out)
{
    nimbus_error error = {0};
    if (!s->settings->ort)
        return;
    if (!s->int8.net)
        skip(out, BENCH_ORT_INT8, out->results[BENCH_ONEDNN_INT8].skipped);
    else if (bench_ort_start(s->settings->ort, &s->int8, &s->rows, &s->ort, &error))
        skip(out, BENCH_ORT_INT8, error.message);
    if (!s->ort) {
        skip(out, BENCH_ORT_F32, out->results[BENCH_ORT_INT8].skipped);
        return;
    }
    snprintf(out->ort.version, sizeof out->ort.version, "%s", bench_ort_version(s->ort));
    const int chain = bench_net_is_chain(&s->net);
    snprintf(out->results[BENCH_ORT_INT8].how, BENCH_TEXT, "%s",
             chain ? "QGemm after QGemm" : "QLinearConv, QLinearAdd and the like");
    snprintf(out->results[BENCH_ORT_F32].how, BENCH_TEXT, "%s and Relu, fused by its optimiser",
             chain ? "Gemm" : "Conv");
}

/* All peers; whatever cannot be built is skipped and says why. */
static void add_peers(bench_set *s, bench_report *out)
{
    nimbus_error error = {0};
    nimbus_status status = NIMBUS_OK;
    if (!s->models->float_net)
        status =
            bench_fail(&error, NIMBUS_ERR_ARGUMENT, "no float net was given (--float FILE.net)");
    if (status || (status = bench_net_from(s->models->float_net, &s->net, &error)) ||
        (status = check_float_net(s, &error))) {
        for (int k = BENCH_PROGRAM + 1; k < BENCH_CONTENDERS; k++)
            skip(out, k, error.message);
        return;
    }
    bench_rows_normalise(&s->rows, &s->net);
    bench_rows_normalise(&s->calibration, &s->net);
    if (bench_int8_make(&s->net, &s->calibration, bench_onednn_weight_limit(), &s->int8, &error))
        skip(out, BENCH_ONEDNN_INT8, error.message);
    else
        add_peer(s, BENCH_ONEDNN_INT8, BENCH_ONEDNN, &s->int8, out);
    add_peer(s, BENCH_ONEDNN_F32, BENCH_ONEDNN, NULL, out);
    add_peer(s, BENCH_OPENBLAS_F32, BENCH_OPENBLAS, NULL, out);
    add_ort(s, out);
}

static nimbus_status make_set(bench_set *s, nimbus_error *error)
{
    const nimbus_program_info *info = nimbus_info(s->models->program);
    const nimbus_data *calibration =
        s->models->calibration ? s->models->calibration : s->models->data;
    s->largest = s->settings->batches[s->settings->n_batches - 1];
    if (s->settings->sweep && s->largest < BENCH_SWEEP_LARGEST)
        s->largest = BENCH_SWEEP_LARGEST;
    s->n_outputs = info->n_outputs;
    s->program.program = s->models->program;
    s->program.scratch = malloc(nimbus_scratch_size(s->models->program, s->largest));
    s->outputs = aligned_alloc(64, (s->largest * s->n_outputs * 4 + 63) / 64 * 64);
    if (!s->program.scratch || !s->outputs)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    nimbus_status status = bench_rows_make(info, s->models->data, 0, s->largest, &s->rows, error);
    if (!status)
        status = bench_rows_make(info, calibration, CALIBRATION_ROWS, BENCH_RANGE_ROWS,
                                 &s->calibration, error);
    s->list[BENCH_PROGRAM].run = run_program;
    for (size_t i = 0; i < s->settings->n_batches; i++)
        s->list[BENCH_PROGRAM].state[i] = &s->program;
    return status;
}

static void free_set(bench_set *s)
{
    bench_ort_stop(s->ort);
    for (size_t k = 0; k < BENCH_CONTENDERS; k++)
        for (size_t i = 0; i < BENCH_MAX_BATCHES; i++)
            bench_peer_free(s->peers[k][i]);
    bench_int8_free(&s->int8);
    bench_net_free(&s->net);
    bench_rows_free(&s->rows);
    bench_rows_free(&s->calibration);
    free(s->program.scratch);
    free(s->outputs);
}

/* ---- times */

/* Models of ONNX Runtime at every batch size as tasks; returns how many. */
static size_t add_ort_tasks(const bench_set *s, bench_ort_call *calls, bench_task *tasks)
{
    size_t n = 0;
    for (int model = BENCH_ORT_MODEL_INT8; s->ort && model <= BENCH_ORT_MODEL_EMPTY; model++)
        for (size_t i = 0; i < s->settings->n_batches; i++, n++) {
            size_t batch = s->settings->batches[i];
            calls[n] = (bench_ort_call){s->ort, model, batch};
            tasks[n] = (bench_task){.name = "ONNX Runtime",
                                    .sample = bench_ort_sample,
                                    .state = &calls[n],
                                    .units = (double)batch};
        }
    return n;
}

/* tasks: as add_ort_tasks made them, timed. An empty call's time is taken off. */
static void take_ort_times(const bench_task *tasks, bench_report *out)
{
    const size_t n = out->n_batches;
    for (size_t i = 0; i < n; i++) {
        double empty = tasks[2 * n + i].ns.median;
        out->ort.overhead_ns[i] = empty * tasks[2 * n + i].units;
        for (size_t model = 0; model < 2; model++) {
            bench_time *ns = &out->results[BENCH_ORT_INT8 + model].ns[i];
            *ns = tasks[model * n + i].ns;
            ns->median -= empty;
            ns->low -= empty;
            ns->high -= empty;
        }
    }
}

static nimbus_status measure_times(const bench_set *s, bench_report *out, nimbus_error *error)
{
    enum { MOST = (BENCH_CONTENDERS + 1) * BENCH_MAX_BATCHES };
    static bench_walk walks[MOST];
    static bench_ort_call calls[3 * BENCH_MAX_BATCHES];
    static bench_task tasks[MOST + 1];
    size_t n = 0;
    for (int k = 0; k < BENCH_CONTENDERS; k++)
        for (size_t i = 0; i < out->n_batches && s->list[k].run; i++, n++) {
            walks[n] = (bench_walk){
                s->list[k].run, s->list[k].state[i], &s->rows, out->batches[i], 0, s->outputs};
            tasks[n] = (bench_task){.name = out->results[k].name,
                                    .call = bench_walk_on,
                                    .state = &walks[n],
                                    .units = (double)out->batches[i]};
        }
    size_t n_ort = add_ort_tasks(s, calls, tasks + n);
    tasks[n + n_ort] = bench_clock_task();
    nimbus_status status = bench_interleave(tasks, n + n_ort + 1, out->rounds, error);
    if (status)
        return status;
    out->clock_ghz = bench_clock_ghz(&tasks[n + n_ort]);
    if (n_ort)
        take_ort_times(tasks + n, out);
    n = 0;
    for (int k = 0; k < BENCH_CONTENDERS; k++)
        for (size_t i = 0; i < out->n_batches && s->list[k].run; i++)
            out->results[k].ns[i] = tasks[n++].ns;
    return NIMBUS_OK;
}

/* ---- accuracies */

static size_t largest_of(const void *outputs, int is_score, size_t row, size_t m)
{
    const int32_t *scores = (const int32_t *)outputs + row * m;
    const float *floats = (const float *)outputs + row * m;
    size_t best = 0;
    for (size_t j = 1; j < m; j++)
        if (is_score ? scores[j] > scores[best] : floats[j] > floats[best])
            best = j;
    return best;
}

/* Class of every row by one contender, at its largest batch; classes is [rows.n]. */
static nimbus_status classify(const bench_set *s, int k, size_t *classes)
{
    const size_t last = s->settings->n_batches - 1, n = s->settings->batches[last];
    const form *f = &s->list[k];
    for (size_t at = 0; at < s->rows.n_real; at += n) {
        nimbus_status status = f->run(f->state[last], &s->rows, at, n, s->outputs);
        if (status)
            return status;
        for (size_t i = 0; i < n && at + i < s->rows.n_real; i++)
            classes[at + i] = largest_of(s->outputs, k == BENCH_PROGRAM, i, s->n_outputs);
    }
    return NIMBUS_OK;
}

static void rate(const bench_set *s, const size_t *classes, const size_t *reference,
                 bench_result *out)
{
    size_t n_right = 0, n_same = 0, n = s->rows.n_real;
    for (size_t i = 0; i < n; i++) {
        int32_t label = s->rows.labels[i];
        n_right += label >= 0 && classes[i] == (size_t)label;
        n_same += reference && classes[i] == reference[i];
    }
    out->accuracy = (double)n_right / (double)n;
    if (reference)
        out->agreement = (double)n_same / (double)n;
}

/* The same by ONNX Runtime. */
static nimbus_status classify_ort(const bench_set *s, int model, size_t *classes,
                                  nimbus_error *error)
{
    float *outputs = malloc(s->rows.n * s->n_outputs * sizeof *outputs);
    if (!outputs)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    nimbus_status status = bench_ort_outputs(s->ort, model, outputs, error);
    for (size_t i = 0; i < s->rows.n_real && !status; i++)
        classes[i] = largest_of(outputs, 0, i, s->n_outputs);
    free(outputs);
    return status;
}

/* Shows beside every time that the contender still computes the net. */
static nimbus_status measure_accuracies(const bench_set *s, bench_report *out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    if (!s->rows.labels)
        return status;
    size_t *classes = malloc(2 * s->rows.n * sizeof *classes);
    if (!classes)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    const int f32 = s->list[BENCH_OPENBLAS_F32].run ? BENCH_OPENBLAS_F32 : BENCH_ONEDNN_F32;
    size_t *reference = s->list[f32].run ? classes + s->rows.n : NULL;
    if (reference)
        status = classify(s, f32, reference);
    for (int k = 0; k < BENCH_CONTENDERS && !status; k++)
        if (s->list[k].run && !(status = classify(s, k, classes)))
            rate(s, classes, reference, &out->results[k]);
    if (status)
        status = bench_fail(error, status, "a contender failed on the data's rows");
    for (int model = 0; model < 2 && s->ort && !status; model++)
        if (!(status = classify_ort(s, model, classes, error)))
            rate(s, classes, reference, &out->results[BENCH_ORT_INT8 + model]);
    free(classes);
    return status;
}

/* ---- all of it */

static void start_report(const bench_settings *settings, const bench_models *models,
                         bench_report *out)
{
    static const char *const names[BENCH_CONTENDERS] = {"nimbus program",    "oneDNN int8",
                                                        "oneDNN f32",        "OpenBLAS f32",
                                                        "ONNX Runtime int8", "ONNX Runtime f32"};
    const int n = settings->ort ? BENCH_CONTENDERS : BENCH_ORT_INT8;
    *out = (bench_report){.rounds = settings->rounds, .clock_ghz = NAN};
    bench_cpu_name(out->cpu, sizeof out->cpu);
    snprintf(out->isa_limit, sizeof out->isa_limit, "%s",
             settings->isa_limit ? settings->isa_limit : "");
    if (!models->program)
        return;
    out->n_rows = models->data ? nimbus_data_get_info(models->data)->n_rows : 0;
    snprintf(out->isa, sizeof out->isa, "%s", nimbus_isa(models->program));
    const char *slash = strrchr(models->name, '/');
    snprintf(out->program, sizeof out->program, "%s", slash ? slash + 1 : models->name);
    out->n_batches = settings->n_batches;
    memcpy(out->batches, settings->batches, sizeof out->batches);
    for (int k = 0; k < n; k++)
        out->results[k] = (bench_result){.name = names[k], .accuracy = NAN, .agreement = NAN};
}

static nimbus_status write_onnx(const char *folder, const char *name, const bench_set *s,
                                nimbus_error *error)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        return bench_fail(error, NIMBUS_ERR_IO, "%s: %s", path, strerror(errno));
    nimbus_status status = name[0] == 'i' ? bench_onnx_write_int8(&s->int8, file, error)
                                          : bench_onnx_write_f32(&s->net, file, error);
    if (fclose(file) != 0 && !status)
        status = bench_fail(error, NIMBUS_ERR_IO, "%s: %s", path, strerror(errno));
    return status;
}

/* The peers' nets for whoever wants to run them elsewhere. */
static nimbus_status export_nets(const bench_set *s, nimbus_error *error)
{
    const char *folder = s->settings->onnx;
    if (!folder)
        return NIMBUS_OK;
    if (!s->int8.net)
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                          "there is no float net that can be written as ONNX (--float FILE.net)");
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return bench_fail(error, NIMBUS_ERR_IO, "%s: %s", folder, strerror(errno));
    nimbus_status status = write_onnx(folder, "f32.onnx", s, error);
    return status ? status : write_onnx(folder, "int8.onnx", s, error);
}

static void begin_part(const bench_settings *settings, const char *part)
{
    if (settings->begins)
        settings->begins(settings->user, part);
}

static nimbus_status measure_net(const bench_settings *settings, const bench_models *models,
                                 bench_report *out, nimbus_error *error)
{
    static bench_set set;
    nimbus_status status;
    set = (bench_set){.settings = settings, .models = models};
    begin_part(settings, "preparing the net's peers");
    if ((status = make_set(&set, error)))
        goto done;
    out->n_walk = set.rows.n_walk;
    add_peers(&set, out);
    if ((status = export_nets(&set, error)))
        goto done;
    begin_part(settings, "timing all by turns");
    if ((status = measure_times(&set, out, error)))
        goto done;
    begin_part(settings, "comparing their answers");
    if ((status = measure_accuracies(&set, out, error)))
        goto done;
    bench_runner runners[2] = {
        {BENCH_PROGRAM, run_program, &set.program},
        {BENCH_ONEDNN_INT8, bench_peer_run, set.peers[BENCH_ONEDNN_INT8][0]}};
    int int8_runs = set.list[BENCH_ONEDNN_INT8].run && settings->batches[0] == 1;
    if (nimbus_info(models->program)->height) {
        begin_part(settings, "timing every step");
        status = bench_measure_steps(models->program, set.program.scratch,
                                     set.list[BENCH_ONEDNN_INT8].run ? set.peers[BENCH_ONEDNN_INT8]
                                                                     : NULL,
                                     &set.net, &set.rows, set.outputs, out, error);
    }
    if (settings->latency && !status) {
        begin_part(settings, "timing single rows");
        status =
            bench_measure_latency(runners, int8_runs ? 2 : 1, &set.rows, set.n_outputs, out, error);
    }
    if (settings->sweep && !status) {
        begin_part(settings, "timing all numbers of rows");
        status = bench_measure_sweep(&runners[0], &set.rows, set.n_outputs, out, error);
    }
done:
    free_set(&set);
    return status;
}

/* Without a program the first layer says what the machine is. */
static void note_machine(bench_report *out, const char *isa, double clock_ghz)
{
    if (*out->isa)
        return;
    snprintf(out->isa, sizeof out->isa, "%s", isa);
    out->clock_ghz = clock_ghz;
}

nimbus_status bench_measure(const bench_settings *settings, const bench_models *models,
                            bench_report *out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    bench_pinning *before = bench_pin();
    if (!before)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    start_report(settings, models, out);
    if (models->program)
        status = measure_net(settings, models, out, error);
    for (size_t i = 0; i < settings->n_shapes && !status; i++) {
        begin_part(settings, "timing a layer");
        status =
            bench_measure_layer(&settings->shapes[i], settings->rounds, &out->layers[i], error);
        out->n_layers = i + 1;
        note_machine(out, out->layers[i].isa, out->layers[i].clock_ghz);
    }
    if (settings->peak && !status) {
        status = bench_measure_peak(settings->rounds, &out->peak, error);
        out->has_peak = 1;
        note_machine(out, out->peak.isa, out->peak.clock_ghz);
    }
    bench_unpin(before);
    return status;
}
