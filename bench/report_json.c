/* report_json.c - a bench_report as JSON: what --json prints and what the HTML page draws */
#include <math.h>
#include <string.h>
#include <time.h>

#include "bench.h"

/* null for NaN and infinities */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *count(size_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *time_json(const bench_time *t)
{
    return json_pack("{s:o,s:o,s:o}", "median", number(t->median), "p10", number(t->low), "p90",
                     number(t->high));
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value); /* out of memory: the key is missing */
}

/* How many times as fast as contender k the program is, by batch size. */
static json_t *speed_ups(const bench_report *report, int k)
{
    json_t *out = json_object();
    const bench_result *ours = &report->results[BENCH_PROGRAM], *peer = &report->results[k];
    for (size_t i = 0; i < report->n_batches; i++) {
        char key[32];
        snprintf(key, sizeof key, "%zu", report->batches[i]);
        set(out, key, number(peer->ns[i].median / ours->ns[i].median));
    }
    return out;
}

static json_t *result_json(const bench_report *report, int k)
{
    const bench_result *r = &report->results[k];
    json_t *out = json_pack("{s:s}", "name", r->name);
    if (*r->skipped) {
        set(out, "skipped", json_string(r->skipped));
        return out;
    }
    for (size_t i = 0; i < report->n_batches; i++) {
        char key[48];
        snprintf(key, sizeof key, "ns_per_row_%zu", report->batches[i]);
        set(out, key, time_json(&r->ns[i]));
    }
    set(out, "accuracy", number(r->accuracy));
    set(out, "agreement_with_f32", number(r->agreement));
    if (*r->how)
        set(out, "how", json_string(r->how));
    if (k != BENCH_PROGRAM)
        set(out, "speed_up_of_program", speed_ups(report, k));
    return out;
}

static json_t *latency_json(const bench_report *report, const bench_latency *l)
{
    json_t *bins = json_array(); /* [start in ns, count] of every bin from the first to the last */
    size_t first = 0, last = BENCH_BINS - 1;
    while (first < last && l->bins[first] == 0)
        first++;
    while (last > first && l->bins[last] == 0)
        last--;
    for (size_t i = first; i <= last; i++)
        json_array_append_new(bins,
                              json_pack("[o,o]", number(bench_bin_start(i)), count(l->bins[i])));
    return json_pack("{s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:i}", "name",
                     report->results[l->contender].name, "caches", l->cold ? "cold" : "warm",
                     "samples", count(l->n), "p50", number(l->p50), "p99", number(l->p99), "p999",
                     number(l->p999), "max", number(l->max), "bins", bins, "bins_per_octave",
                     BENCH_BINS_PER_OCTAVE);
}

static json_t *shape_json(const bench_shape *s, size_t n_codebooks)
{
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "n", count(s->n), "d", count(s->d), "m",
                     count(s->m), "v", count(s->v), "bits", count(s->bits), "codebooks",
                     count(n_codebooks));
}

static json_t *layer_json(const bench_layer_result *l)
{
    return json_pack("{s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:s,s:s,s:s,s:o,s:o,s:o,s:o,s:o}", "shape",
                     shape_json(&l->shape, l->n_codebooks), "isa", l->isa, "ns_per_row",
                     time_json(&l->ours), "encode", time_json(&l->encode), "lookup",
                     time_json(&l->lookup), "onednn_int8", time_json(&l->onednn_int8), "onednn_f32",
                     time_json(&l->onednn_f32), "openblas_f32", time_json(&l->openblas_f32),
                     "onednn_int8_how", l->int8_how, "onednn_f32_how", l->f32_how,
                     "openblas_f32_how", l->openblas_how, "speed_up_int8",
                     number(l->onednn_int8.median / l->ours.median), "speed_up_onednn_f32",
                     number(l->onednn_f32.median / l->ours.median), "speed_up_openblas_f32",
                     number(l->openblas_f32.median / l->ours.median), "lookups_per_cycle",
                     number(l->lookups_per_cycle), "codes_per_cycle", number(l->codes_per_cycle));
}

static json_t *sweep_json(const bench_sweep *s)
{
    json_t *points = json_array();
    for (size_t i = 0; i < s->n_points; i++)
        json_array_append_new(points, json_pack("{s:o,s:o}", "batch", count(s->batch[i]), "ns",
                                                time_json(&s->ns[i])));
    return json_pack("{s:o,s:o,s:o,s:o}", "points", points, "largest_rise", number(s->rise),
                     "rise_from", count(s->rise_from), "rise_to", count(s->rise_to));
}

static json_t *step_json(const bench_report *report, const bench_step *step)
{
    const bench_step *with = &report->steps.list[step->with];
    json_t *out =
        json_pack("{s:s,s:s}", "name", step->name, "kind", nimbus_step_kind_name(step->kind));
    for (size_t i = 0; i < report->n_batches; i++) {
        char key[64];
        snprintf(key, sizeof key, "ns_per_row_%zu", report->batches[i]);
        set(out, key, time_json(&step->ns[i]));
        snprintf(key, sizeof key, "onednn_int8_ns_per_row_%zu", report->batches[i]);
        if (step->has_peer)
            set(out, key, time_json(&step->peer_ns[i]));
        snprintf(key, sizeof key, "onednn_int8_multiply_adds_per_cycle_%zu", report->batches[i]);
        if (step->multiply_adds)
            set(out, key,
                number((double)step->multiply_adds /
                       (step->peer_ns[i].median * report->clock_ghz)));
    }
    if (with != step)
        set(out, "with", json_string(with->name));
    return out;
}

/* Every step, and the sums over lookup steps by batch size. */
static json_t *steps_json(const bench_report *report)
{
    const bench_steps *s = &report->steps;
    json_t *list = json_array(), *lookups = json_object();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(list, step_json(report, &s->list[i]));
    for (size_t i = 0; i < report->n_batches; i++) {
        char key[32];
        snprintf(key, sizeof key, "%zu", report->batches[i]);
        if (s->lookup_peer_ns[i] > 0)
            set(lookups, key,
                json_pack("{s:o,s:o,s:o}", "ns", number(s->lookup_ns[i]), "onednn_int8_ns",
                          number(s->lookup_peer_ns[i]), "speed_up",
                          number(s->lookup_peer_ns[i] / s->lookup_ns[i])));
    }
    return json_pack("{s:o,s:o}", "list", list, "lookups", lookups);
}

static json_t *ort_json(const bench_report *report)
{
    json_t *overhead = json_object();
    for (size_t i = 0; i < report->n_batches; i++) {
        char key[32];
        snprintf(key, sizeof key, "%zu", report->batches[i]);
        set(overhead, key, number(report->ort.overhead_ns[i]));
    }
    return json_pack("{s:s,s:o}", "version", report->ort.version, "call_overhead_ns", overhead);
}

static json_t *best_peers(const bench_report *report)
{
    json_t *out = json_object();
    for (size_t i = 0; i < report->n_batches; i++) {
        int best = bench_best_peer(report, i, "int8");
        char key[32];
        snprintf(key, sizeof key, "%zu", report->batches[i]);
        if (best >= 0)
            set(out, key,
                json_pack("{s:s,s:o}", "name", report->results[best].name, "speed_up",
                          number(report->results[best].ns[i].median /
                                 report->results[BENCH_PROGRAM].ns[i].median)));
    }
    return out;
}

static void add_net(const bench_report *report, json_t *out)
{
    json_t *batches = json_array(), *results = json_array(), *latencies = json_array();
    for (size_t i = 0; i < report->n_batches; i++)
        json_array_append_new(batches, count(report->batches[i]));
    for (int k = 0; k < BENCH_CONTENDERS; k++)
        if (report->results[k].name)
            json_array_append_new(results, result_json(report, k));
    for (size_t i = 0; i < report->n_latencies; i++)
        json_array_append_new(latencies, latency_json(report, &report->latencies[i]));
    set(out, "program", json_string(report->program));
    set(out, "rows_walked", count(report->n_walk));
    set(out, "batches", batches);
    set(out, "results", results);
    set(out, "best_int8_peer", best_peers(report));
    if (report->n_latencies)
        set(out, "latency",
            json_pack("{s:o,s:o,s:o}", "timer_ns", number(report->timer_ns), "cold_bytes",
                      count(report->cold_bytes), "series", latencies));
    else
        json_decref(latencies);
    if (report->steps.n)
        set(out, "steps", steps_json(report));
    if (report->sweep.n_points)
        set(out, "sweep", sweep_json(&report->sweep));
    if (*report->ort.version)
        set(out, "onnx_runtime", ort_json(report));
}

json_t *bench_json(const bench_report *report)
{
    char date[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    json_t *out =
        json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:o}", "version", nimbus_version(), "date", date, "cpu",
                  report->cpu, "isa", report->isa, "clock_ghz", number(report->clock_ghz), "rounds",
                  count(report->rounds), "rows", count(report->n_rows));
    if (!out)
        return NULL;
    if (*report->isa_limit)
        set(out, "isa_limit", json_string(report->isa_limit));
    if (report->n_batches)
        add_net(report, out);
    if (report->n_layers) {
        json_t *layers = json_array();
        for (size_t i = 0; i < report->n_layers; i++)
            json_array_append_new(layers, layer_json(&report->layers[i]));
        set(out, "layers", layers);
    }
    if (report->has_peak)
        set(out, "peak",
            json_pack("{s:o,s:s,s:o,s:o}", "shape",
                      shape_json(&report->peak.shape, report->peak.n_codebooks), "isa",
                      report->peak.isa, "lookups_per_cycle_i32", number(report->peak.to_i32),
                      "lookups_per_cycle_i8", number(report->peak.to_i8)));
    return out;
}
