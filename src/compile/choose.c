/* choose.c - which layers are faster as lookups and which as exact products, measured here
 *
 * From the faster of all-lookup and all-exact one layer after another changes its kind, and stays
 * changed if the whole program became faster by more than noise: what a layer costs depends on its
 * neighbours, since only an exact layer reads every column of the one before it. At the end the
 * result meets the two that it began with once more, freshly compiled.
 *
 * Two programs are compared by turns on the same rows, in thread CPU time: the figure is the median
 * over rounds of the ratio within a round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compile/compile.h"

enum { ROUNDS = 21, MAX_ROWS = 4096, MAX_BATCH = 1 << 16 };
#define FASTER  0.98 /* of the time before: what a change of kind must reach to be kept */
#define WORTH   1.01 /* all lookups are returned unless they take so much longer than the choice */
#define SECONDS 0.1

/* A program and how it came about. */
typedef struct candidate {
    bool *exact; /* [n_layers] of the net */
    nimbus_program *program;
    void *scratch;
} candidate;

typedef struct choosing {
    const nimbus_net *net;
    nimbus_compile_options options;
    nimbus_choose_options choose;
    size_t n_layers;
    bool *flips; /* [n_layers] lookup layers that have weights */
    bool *none;  /* [n_layers] all false */
    char *rows;  /* [n_rows] of the net's input type; a multiple of the batch */
    size_t stride, n_rows;
    int32_t *scores; /* [batch][n_outputs] */
    double began;
    size_t done, total; /* comparisons */
    nimbus_choose_report *report;
} choosing;

/* ---- candidates ------------------------------------------------------------------------------ */

static void candidate_free(candidate *a)
{
    nimbus_close(a->program);
    nimbus_free(a->scratch);
    nimbus_free(a->exact);
    *a = (candidate){0};
}

/* As nimbus_compile_options.exact lists layers. */
static void list_names(const choosing *c, const bool *exact, char *out)
{
    *out = 0;
    for (size_t i = 0; i < c->n_layers; i++)
        if (exact[i]) {
            strcat(out, *out ? "," : "");
            strcat(out, c->net->layers[i].name);
        }
}

/* The program with these layers exact, ready to run. */
static nimbus_status candidate_new(const choosing *c, const bool *exact, candidate *out,
                                   nimbus_error *error)
{
    nimbus_compile_options options = c->options;
    char names[sizeof c->report->exact];
    nimbus_status status;
    void *bytes = NULL;
    size_t n_bytes;

    list_names(c, exact, names);
    options.exact = names;
    *out = (candidate){.exact = nimbus_alloc(c->n_layers, sizeof *out->exact)};
    if (!out->exact)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a plan");
    memcpy(out->exact, exact, c->n_layers * sizeof *exact);
    if ((status = nimbus_compile_net(c->net, &options, false, &bytes, &n_bytes, error)) ||
        (status = nimbus_load(bytes, n_bytes, &out->program, error)))
        goto done;
    out->scratch = nimbus_alloc(nimbus_scratch_size(out->program, c->choose.batch), 1);
    if (!out->scratch)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to run a plan");
done:
    nimbus_compile_free(bytes);
    return status;
}

static void swap(candidate *a, candidate *b)
{
    candidate t = *a;
    *a = *b;
    *b = t;
}

/* ---- comparing ------------------------------------------------------------------------------- */

typedef struct comparison {
    double ratio;      /* time of b over time of a */
    double ns_a, ns_b; /* a row */
} comparison;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, compare_doubles);
    return values[ROUNDS / 2];
}

/* CPU seconds of n_calls, from batch `first` on. */
static nimbus_status time_calls(const choosing *c, const candidate *a, size_t first, size_t n_calls,
                                double *seconds, nimbus_error *error)
{
    size_t batch = c->choose.batch, n_batches = c->n_rows / batch;
    nimbus_status status = NIMBUS_OK;
    double began = nimbus_cpu_seconds();
    for (size_t i = first; i < first + n_calls && status == NIMBUS_OK; i++)
        status = nimbus_run(a->program, c->rows + i % n_batches * batch * c->stride, c->stride,
                            batch, c->scores, a->scratch);
    *seconds = nimbus_cpu_seconds() - began;
    return status ? nimbus_fail(error, status, "a plan's program refused %zu rows", batch) : status;
}

/* Calls that take about `seconds`; also warms up. */
static nimbus_status count_calls(const choosing *c, const candidate *a, double seconds,
                                 size_t *n_calls, nimbus_error *error)
{
    double took = 0;
    nimbus_status status = NIMBUS_OK;
    for (*n_calls = 1; status == NIMBUS_OK; *n_calls *= 2) {
        status = time_calls(c, a, 0, *n_calls, &took, error);
        if (took >= seconds / 2 || *n_calls >= (size_t)1 << 30)
            break;
    }
    return status;
}

static nimbus_status report_progress(choosing *c, const char *what, nimbus_error *error)
{
    char stage[80];
    double seconds = nimbus_seconds() - c->began;
    (void)snprintf(stage, sizeof stage, "measure %s", what);
    nimbus_progress p = {
        .stage = stage,
        .done = (double)c->done,
        .total = (double)c->total,
        .seconds = seconds,
        .seconds_left = c->done > 0 ? seconds / (double)c->done * (double)(c->total - c->done) : -1,
        .loss = NAN,
        .train_accuracy = NAN,
        .valid_accuracy = NAN};
    c->done++;
    if (c->choose.progress && c->choose.progress(c->choose.progress_user, &p))
        return nimbus_fail(error, NIMBUS_ERR_CANCELLED, "measuring stopped before %s", what);
    return NIMBUS_OK;
}

static nimbus_status compare(choosing *c, const candidate *a, const candidate *b, const char *what,
                             comparison *out, nimbus_error *error)
{
    double slice = c->choose.seconds / (2 * ROUNDS);
    double ratios[ROUNDS], of_a[ROUNDS], of_b[ROUNDS];
    size_t calls_a, calls_b;
    nimbus_status status;

    if ((status = report_progress(c, what, error)) ||
        (status = count_calls(c, a, slice, &calls_a, error)) ||
        (status = count_calls(c, b, slice, &calls_b, error)))
        return status;
    for (size_t r = 0; r < ROUNDS; r++) {
        /* who begins alternates, and both see the same rows */
        for (size_t turn = 0; turn < 2 && status == NIMBUS_OK; turn++)
            status = (r + turn) % 2 ? time_calls(c, b, r * calls_a, calls_b, &of_b[r], error)
                                    : time_calls(c, a, r * calls_a, calls_a, &of_a[r], error);
        if (status)
            return status;
        of_a[r] *= 1e9 / (double)calls_a / (double)c->choose.batch;
        of_b[r] *= 1e9 / (double)calls_b / (double)c->choose.batch;
        ratios[r] = of_b[r] / of_a[r];
    }
    *out = (comparison){median(ratios), median(of_a), median(of_b)};
    return NIMBUS_OK;
}

/* ---- the choice ------------------------------------------------------------------------------ */

/* The same with layer i changed, if that is faster. */
static nimbus_status flip(choosing *c, candidate *best, size_t i, nimbus_choose_layer *layer,
                          nimbus_error *error)
{
    candidate other = {0};
    comparison result;
    nimbus_status status;

    best->exact[i] ^= true;
    status = candidate_new(c, best->exact, &other, error);
    best->exact[i] ^= true;
    if (status || (status = compare(c, best, &other, c->net->layers[i].name, &result, error)))
        goto done;
    layer->lookup_ns = best->exact[i] ? result.ns_b : result.ns_a;
    layer->exact_ns = best->exact[i] ? result.ns_a : result.ns_b;
    if (result.ratio < FASTER)
        swap(best, &other);
done:
    candidate_free(&other);
    return status;
}

/* Compares *best (a) with the program of these kinds (b), which takes its place if the ratio is
 * below the limit. */
static nimbus_status challenge(choosing *c, candidate *best, const bool *exact, double limit,
                               const char *what, comparison *out, nimbus_error *error)
{
    candidate other = {0};
    nimbus_status status;

    if ((status = candidate_new(c, exact, &other, error)) ||
        (status = compare(c, best, &other, what, out, error)))
        goto done;
    if (memcmp(best->exact, exact, c->n_layers * sizeof *exact) == 0)
        out->ns_b = out->ns_a; /* the same program */
    else if (out->ratio < limit)
        swap(best, &other);
done:
    candidate_free(&other);
    return status;
}

/* The faster of the two that all begins with. Exact layers change the outputs, so they must be
 * worth it. */
static nimbus_status begin(choosing *c, candidate *best, nimbus_error *error)
{
    comparison result;
    nimbus_status status = candidate_new(c, c->none, best, error);
    return status ? status : challenge(c, best, c->flips, FASTER, "all layers", &result, error);
}

/* The result against both once more. All are compiled anew: where a program happens to lie in
 * memory makes it faster or slower too. */
static nimbus_status finish(choosing *c, candidate *best, nimbus_error *error)
{
    nimbus_choose_report *report = c->report;
    candidate old = *best;
    comparison with_exact, with_lookup;
    nimbus_status status = candidate_new(c, old.exact, best, error);

    candidate_free(&old);
    if (status ||
        (status = challenge(c, best, c->flips, 1, "all layers exact", &with_exact, error)) ||
        (status = challenge(c, best, c->none, WORTH, "all layers as lookups", &with_lookup, error)))
        return status;
    report->lookup_ns = with_lookup.ns_b;
    report->exact_ns = with_exact.ns_b;
    report->chosen_ns = memcmp(best->exact, c->none, c->n_layers * sizeof *c->none) == 0
                            ? with_lookup.ns_b
                            : with_lookup.ns_a;
    return NIMBUS_OK;
}

static nimbus_status choose(choosing *c, candidate *best, nimbus_error *error)
{
    nimbus_status status = begin(c, best, error);
    /* backwards: what a layer costs depends on how many of its columns the next one reads */
    for (size_t i = c->n_layers, at = c->report->n_layers; i-- > 0 && status == NIMBUS_OK;) {
        at -= nimbus_layer_is_product(&c->net->layers[i]);
        if (c->flips[i])
            status = flip(c, best, i, &c->report->layers[at], error);
    }
    return status ? status : finish(c, best, error);
}

/* ---- what is measured on --------------------------------------------------------------------- */

/* Calibration rows, over and over up to a whole number of batches. */
static nimbus_status take_rows(choosing *c, nimbus_error *error)
{
    const nimbus_data *data = c->options.calibration;
    const nimbus_data_info *info = data ? nimbus_data_get_info(data) : NULL;
    size_t batch = c->choose.batch, width = nimbus_shape_width(c->net->layers[0].shape);
    nimbus_status status;

    if (!data)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "plans are measured with exact layers among the others: give data to "
                           "measure the ranges of their inputs on");
    if ((status = nimbus_calibration_check(c->net, data, error)))
        return status;
    if (info->dtype != c->net->input_dtype)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "calibration data of %s values, expected %s as the net reads",
                           info->dtype == NIMBUS_U8 ? "u8" : "f32",
                           c->net->input_dtype == NIMBUS_U8 ? "u8" : "f32");
    size_t n = info->n_rows < MAX_ROWS ? info->n_rows : MAX_ROWS;
    c->stride = width * nimbus_dtype_size(info->dtype);
    c->n_rows = (n + batch - 1) / batch * batch;
    c->rows = nimbus_alloc(c->n_rows, c->stride);
    size_t n_outputs = nimbus_shape_width(c->net->layers[c->n_layers - 1].shape);
    c->scores = nimbus_alloc(n_outputs, batch * sizeof *c->scores);
    if (!c->rows || !c->scores)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to measure on %zu rows", c->n_rows);
    for (size_t r = 0; r < c->n_rows; r++)
        memcpy(c->rows + r * c->stride,
               (const char *)nimbus_data_features(data) + r % n * c->stride, c->stride);
    return NIMBUS_OK;
}

/* Fills the list of layers, and finds those that could be either. */
static nimbus_status list_layers(choosing *c, nimbus_error *error)
{
    nimbus_choose_report *report = c->report;
    for (size_t i = 0; i < c->n_layers; i++) {
        const nimbus_layer *layer = &c->net->layers[i];
        if (!nimbus_layer_is_product(layer))
            continue;
        if (report->n_layers == NIMBUS_REPORT_LAYERS)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "a choice among more than %d products; name those to be exact",
                               NIMBUS_REPORT_LAYERS);
        bool lookup = layer->state == NIMBUS_STATE_SOFT || layer->state == NIMBUS_STATE_LOOKUP;
        nimbus_choose_layer *listed = &report->layers[report->n_layers++];
        memcpy(listed->name, layer->name, sizeof listed->name);
        listed->kind = lookup ? NIMBUS_STEP_LOOKUP : NIMBUS_STEP_EXACT;
        listed->lookup_ns = listed->exact_ns = NAN;
        c->flips[i] =
            lookup && (c->options.float_net || nimbus_layer_param((nimbus_layer *)layer, "weight"));
        c->total += c->flips[i];
    }
    return NIMBUS_OK;
}

static void list_choice(const choosing *c, const bool *exact)
{
    for (size_t i = 0, at = 0; i < c->n_layers; i++) {
        if (exact[i])
            c->report->layers[at].kind = NIMBUS_STEP_EXACT;
        at += nimbus_layer_is_product(&c->net->layers[i]);
    }
    list_names(c, exact, c->report->exact);
}

static nimbus_status resolve(choosing *c, const nimbus_compile_options *options,
                             const nimbus_choose_options *choose, nimbus_error *error)
{
    static const nimbus_compile_options defaults = NIMBUS_COMPILE_OPTIONS_INIT;
    static const nimbus_choose_options choose_defaults = NIMBUS_CHOOSE_OPTIONS_INIT;
    c->options = options ? *options : defaults;
    c->choose = choose ? *choose : choose_defaults;
    if (c->options.size != sizeof *options || c->choose.size != sizeof *choose)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "compile options of %zu bytes and choose options of %zu, expected %zu "
                           "and %zu: not set up with their INIT macros",
                           c->options.size, c->choose.size, sizeof *options, sizeof *choose);
    if (c->options.exact)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "a list of exact layers (\"%.100s\") is given, but they are to be "
                           "chosen",
                           c->options.exact);
    if (c->choose.batch == 0)
        c->choose.batch = 256;
    if (c->choose.seconds == 0)
        c->choose.seconds = SECONDS;
    if (c->choose.batch > MAX_BATCH || !(c->choose.seconds > 0 && c->choose.seconds <= 3600))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "batches of %zu rows, %g seconds a comparison; expected at most %d rows "
                           "and 3600 seconds",
                           c->choose.batch, c->choose.seconds, (int)MAX_BATCH);
    c->report->batch = c->choose.batch;
    return NIMBUS_OK;
}

nimbus_status nimbus_compile_choose(const nimbus_net *net, const nimbus_compile_options *options,
                                    const nimbus_choose_options *choose_options,
                                    nimbus_choose_report *out, nimbus_error *error)
{
    choosing c = {.net = net, .n_layers = net->n_layers, .began = nimbus_seconds(), .report = out};
    candidate best = {0};
    nimbus_status status;

    *out = (nimbus_choose_report){.lookup_ns = NAN, .exact_ns = NAN, .chosen_ns = NAN};
    c.flips = nimbus_alloc(net->n_layers, sizeof *c.flips);
    c.none = nimbus_alloc(net->n_layers, sizeof *c.none);
    if (!c.flips || !c.none) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a plan");
        goto done;
    }
    if ((status = resolve(&c, options, choose_options, error)) ||
        (status = list_layers(&c, error)) || c.total == 0)
        goto done;
    c.total += 3;
    if ((status = take_rows(&c, error)) || (status = choose(&c, &best, error)))
        goto done;
    list_choice(&c, best.exact);
done:
    candidate_free(&best);
    nimbus_free(c.flips);
    nimbus_free(c.none);
    nimbus_free(c.rows);
    nimbus_free(c.scores);
    return status;
}
