/* planner_check.c - is `compile --plan auto` ever slower than all lookup or all exact?
 *
 * usage: planner_check [N_NETS [SEED [BATCH]]]           (30, 1, 256)
 *
 * Makes N nets of random depth (1..6 products), widths (16..1024), V (2..16, each layer its own)
 * and input type: random weights, converted on random rows without training. For each it lets the
 * library choose, and then times the chosen program, the one with every layer a lookup and the one
 * with every layer exact itself, by turns, on one core, in CPU time of this thread. The ratio of a
 * net is chosen to the better of the two, the median over rounds; 1 if both are the same bytes.
 * Progress goes to standard error, one JSON object to standard output. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nimbus_build.h"

enum { DATA_ROWS = 512, MAX_DEPTH = 6, ROUNDS = 31, FORMS = 3 };
#define SLICE 2e-3 /* CPU seconds of one form in one round */

/* The forms a net is timed in. */
enum { CHOSEN = 0, LOOKUP, EXACT };

typedef struct form {
    void *bytes;
    size_t n_bytes;
    nimbus_program *program;
    void *scratch;
    size_t calls; /* a round */
    double ns[ROUNDS];
} form;

static nimbus_error error;

static int complain(const char *what)
{
    fprintf(stderr, "planner_check: %s: %s\n", what, error.message);
    return 0;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- random nets ------------------------------------------------------------------------------
 */

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t between(uint64_t *state, size_t low, size_t high)
{
    return low + (size_t)(next_random(state) % (high - low + 1));
}

/* 16, 23, 32, ..., 1024: every size is as likely as its double. */
static size_t random_width(uint64_t *state)
{
    size_t octave = between(state, 4, 9), width = (size_t)1 << octave;
    return width + between(state, 0, width);
}

static nimbus_data *random_data(uint64_t *state, size_t width)
{
    nimbus_data_info info = {.n_rows = DATA_ROWS,
                             .n_features = width,
                             .dtype = between(state, 0, 2) ? NIMBUS_U8 : NIMBUS_F32,
                             .channels = width,
                             .height = 1,
                             .width = 1,
                             .n_classes = between(state, 2, 64)};
    uint8_t *bytes = malloc(DATA_ROWS * width);
    float *floats = malloc(DATA_ROWS * width * sizeof *floats);
    int32_t *labels = malloc(DATA_ROWS * sizeof *labels);
    nimbus_data *data = NULL;
    for (size_t i = 0; bytes && floats && i < DATA_ROWS * width; i++) {
        bytes[i] = (uint8_t)between(state, 0, 255);
        floats[i] = (float)bytes[i] / 64 - 2;
    }
    for (size_t i = 0; labels && i < DATA_ROWS; i++)
        labels[i] = (int32_t)(i % info.n_classes);
    if (!bytes || !floats || !labels ||
        nimbus_data_from_arrays(&info, info.dtype == NIMBUS_U8 ? (void *)bytes : floats, labels,
                                NULL, &data, &error))
        complain("random rows");
    free(bytes);
    free(floats);
    free(labels);
    return data;
}

typedef struct net_pair {
    nimbus_data *data;
    nimbus_net *teacher, *net;
    char spec[128], layers[256];
} net_pair;

static void free_pair(net_pair *p)
{
    nimbus_net_free(p->teacher);
    nimbus_net_free(p->net);
    nimbus_data_free(p->data);
}

static int make_pair(uint64_t *state, net_pair *p)
{
    nimbus_net_options build = NIMBUS_NET_OPTIONS_INIT;
    nimbus_convert_options convert = NIMBUS_CONVERT_OPTIONS_INIT;
    size_t depth = between(state, 1, MAX_DEPTH), width = random_width(state);

    p->data = random_data(state, width);
    if (!p->data)
        return 0;
    size_t classes = nimbus_data_get_info(p->data)->n_classes;
    snprintf(p->spec, sizeof p->spec, "%zu", width);
    for (size_t l = 1; l <= depth; l++) {
        size_t v = between(state, 2, 16);
        size_t used = strlen(p->layers);
        snprintf(p->layers + used, sizeof p->layers - used, "linear%zu:v=%zu;", l,
                 v < width ? v : width);
        width = l < depth ? random_width(state) : classes;
        used = strlen(p->spec);
        snprintf(p->spec + used, sizeof p->spec - used, "-%zu", width);
    }
    build.spec = p->spec;
    build.seed = next_random(state);
    convert.layers = p->layers;
    convert.levels = 4;
    convert.split_method = NIMBUS_PLAIN;
    convert.table_method = NIMBUS_MEAN;
    convert.epochs = SIZE_MAX;
    convert.layer_epochs = -1;
    if (nimbus_net_build(&build, p->data, &p->teacher, &error) ||
        nimbus_convert(p->teacher, p->data, &convert, &p->net, NULL, &error))
        return complain(p->spec);
    return 1;
}

/* ---- timing ---------------------------------------------------------------------------------- */

static int make_form(const net_pair *p, const char *exact, size_t batch, form *f)
{
    nimbus_compile_options options = NIMBUS_COMPILE_OPTIONS_INIT;
    options.calibration = p->data;
    options.float_net = p->teacher;
    options.exact = exact;
    if (nimbus_compile(p->net, &options, &f->bytes, &f->n_bytes, &error) ||
        nimbus_load(f->bytes, f->n_bytes, &f->program, &error))
        return complain(p->spec);
    f->scratch = malloc(nimbus_scratch_size(f->program, batch));
    return f->scratch != NULL;
}

static void free_form(form *f)
{
    nimbus_compile_free(f->bytes);
    nimbus_close(f->program);
    free(f->scratch);
}

static int same_bytes(const form *a, const form *b)
{
    return a->n_bytes == b->n_bytes && memcmp(a->bytes, b->bytes, a->n_bytes) == 0;
}

/* What all forms are run on: whole batches of the data's rows, over and over. */
typedef struct rows {
    char *bytes;
    size_t stride, batch, n_batches;
    int32_t *scores;
} rows;

static int make_rows(const net_pair *p, size_t batch, rows *out)
{
    const nimbus_data_info *info = nimbus_data_get_info(p->data);
    const char *from = nimbus_data_features(p->data);
    out->stride = info->n_features * (info->dtype == NIMBUS_U8 ? 1 : 4);
    out->batch = batch;
    out->n_batches = (DATA_ROWS + batch - 1) / batch;
    out->bytes = malloc(out->n_batches * batch * out->stride);
    out->scores = malloc(batch * info->n_classes * sizeof *out->scores);
    for (size_t r = 0; out->bytes && r < out->n_batches * batch; r++)
        memcpy(out->bytes + r * out->stride, from + r % DATA_ROWS * out->stride, out->stride);
    return out->bytes && out->scores;
}

/* ns a row over n calls. */
static double time_form(const form *f, const rows *on, size_t n)
{
    double began = cpu_seconds();
    for (size_t i = 0; i < n; i++)
        if (nimbus_run(f->program, on->bytes + i % on->n_batches * on->batch * on->stride,
                       on->stride, on->batch, on->scores, f->scratch))
            return -1;
    return (cpu_seconds() - began) * 1e9 / (double)n / (double)on->batch;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, size_t n)
{
    double sorted[1024];
    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void time_forms(form *forms, const rows *on)
{
    for (size_t k = 0; k < FORMS; k++) {
        double row = 0;
        for (forms[k].calls = 1; forms[k].calls < (size_t)1 << 30; forms[k].calls *= 2) {
            row = time_form(&forms[k], on, forms[k].calls);
            if (row * (double)forms[k].calls * (double)on->batch >= SLICE * 0.5e9)
                break;
        }
    }
    for (size_t r = 0; r < ROUNDS; r++)
        for (size_t turn = 0; turn < FORMS; turn++) {
            form *f = &forms[(r + turn) % FORMS];
            f->ns[r] = time_form(f, on, f->calls);
        }
}

/* ---- one net --------------------------------------------------------------------------------- */

/* Measures one net: its line of the result, or NULL. */
static json_t *measure(const net_pair *p, size_t batch, double *ratio)
{
    nimbus_compile_options options = NIMBUS_COMPILE_OPTIONS_INIT;
    nimbus_choose_options choose = NIMBUS_CHOOSE_OPTIONS_INIT;
    nimbus_choose_report report;
    form forms[FORMS] = {0};
    rows on = {0};
    json_t *line = NULL;
    double ratios[ROUNDS], ns[FORMS];

    options.calibration = p->data;
    options.float_net = p->teacher;
    choose.batch = batch;
    if (nimbus_compile_choose(p->net, &options, &choose, &report, &error)) {
        complain(p->spec);
        goto done;
    }
    if (!make_rows(p, batch, &on) || !make_form(p, report.exact, batch, &forms[CHOSEN]) ||
        !make_form(p, NULL, batch, &forms[LOOKUP]) || !make_form(p, "*", batch, &forms[EXACT]))
        goto done;
    time_forms(forms, &on);
    for (size_t k = 0; k < FORMS; k++)
        ns[k] = median(forms[k].ns, ROUNDS);
    if (!(ns[CHOSEN] > 0 && ns[LOOKUP] > 0 && ns[EXACT] > 0)) {
        fprintf(stderr, "planner_check: %s: a program refused its rows\n", p->spec);
        goto done;
    }
    const form *better = &forms[ns[EXACT] < ns[LOOKUP] ? EXACT : LOOKUP];
    for (size_t r = 0; r < ROUNDS; r++)
        ratios[r] = forms[CHOSEN].ns[r] / better->ns[r];
    *ratio = same_bytes(&forms[CHOSEN], better) ? 1 : median(ratios, ROUNDS);
    const char *what = same_bytes(&forms[CHOSEN], &forms[LOOKUP])  ? "lookup"
                       : same_bytes(&forms[CHOSEN], &forms[EXACT]) ? "exact"
                                                                   : "mixed";
    line = json_pack("{s:s,s:s,s:s,s:s,s:s,s:f,s:f,s:f,s:f}", "net", p->spec, "layers", p->layers,
                     "input", nimbus_data_get_info(p->data)->dtype == NIMBUS_U8 ? "u8" : "f32",
                     "chosen", what, "exact_layers", report.exact, "chosen_ns", ns[CHOSEN],
                     "lookup_ns", ns[LOOKUP], "exact_ns", ns[EXACT], "ratio", *ratio);
done:
    for (size_t k = 0; k < FORMS; k++)
        free_form(&forms[k]);
    free(on.bytes);
    free(on.scores);
    return line;
}

static void pin_to_core(void)
{
    cpu_set_t one;
    int core = sched_getcpu();
    CPU_ZERO(&one);
    if (core >= 0 && core < CPU_SETSIZE) {
        CPU_SET((size_t)core, &one);
        (void)sched_setaffinity(0, sizeof one, &one);
    }
}

int main(int argc, char **argv)
{
    size_t n_nets = argc > 1 ? strtoul(argv[1], NULL, 10) : 30;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    size_t batch = argc > 3 ? strtoul(argv[3], NULL, 10) : 256;
    double ratios[1000], worst = 0;
    json_t *list = json_array();
    size_t n = 0;

    if (argc > 4 || n_nets == 0 || n_nets > sizeof ratios / sizeof *ratios || batch == 0 ||
        batch > 65536) {
        fprintf(stderr, "usage: planner_check [N_NETS [SEED [BATCH]]]: 1..1000 nets, batches of "
                        "1..65536\n");
        json_decref(list);
        return 2;
    }
    pin_to_core();
    for (; n < n_nets; n++) {
        uint64_t state = seed << 32 | n;
        net_pair p = {0};
        json_t *line = make_pair(&state, &p) ? measure(&p, batch, &ratios[n]) : NULL;
        if (line) {
            worst = ratios[n] > worst ? ratios[n] : worst;
            fprintf(stderr, "%3zu  %-36s %7.3f  %s\n", n + 1, p.spec, ratios[n],
                    json_string_value(json_object_get(line, "chosen")));
            json_array_append_new(list, line);
        }
        free_pair(&p);
        if (!line)
            break;
    }
    json_t *result = json_pack("{s:I,s:I,s:I,s:o}", "nets", (json_int_t)n, "seed", (json_int_t)seed,
                               "batch", (json_int_t)batch, "list", list);
    if (n > 0) {
        json_object_set_new(result, "worst_ratio", json_real(worst));
        json_object_set_new(result, "median_ratio", json_real(median(ratios, n)));
    }
    json_dumpf(result, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(result);
    return n == n_nets ? 0 : 1;
}
