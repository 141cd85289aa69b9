/* steps.c - where the time of a program on images goes, step by step, beside oneDNN int8
 *
 * Steps and primitives are timed by the time stamp counter while whole calls run, in turns of about
 * two milliseconds; the timer's own time is taken off. Its fences keep neighbouring steps apart,
 * which costs both sides a little: the sums are larger than the times of calls that are not
 * watched. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

/* A program and a peer under way at one batch size. */
typedef struct watching {
    const nimbus_program *program;
    void *scratch, *outputs;
    bench_peer *peer; /* NULL: none */
    const bench_rows *rows;
    size_t batch;
    double ns_per_tick, timer_ns;
    bench_ticks_of ours, theirs;
    uint64_t last; /* ticks */
} watching;

static void seen(void *user, size_t step)
{
    watching *w = user;
    uint64_t now = bench_ticks();
    w->ours.ticks[step] += now - w->last;
    w->ours.n_calls[step]++;
    w->last = bench_ticks();
}

/* Calls through the rows until they have taken a sample's time; returns their number, 0 if one
 * failed. */
static size_t run_some(watching *w, int peer)
{
    const double start = bench_wall_ns();
    nimbus_status status = NIMBUS_OK;
    size_t n = 0, at = 0;
    w->ours = w->theirs = (bench_ticks_of){{0}, {0}};
    do {
        if (peer) {
            status = bench_peer_run_layers(w->peer, w->rows, at, w->batch, w->outputs, &w->theirs);
        } else {
            w->last = bench_ticks();
            status =
                nimbus_run_watched(w->program, (const char *)w->rows->raw + at * w->rows->stride,
                                   w->rows->stride, w->batch, w->outputs, w->scratch, seen, w);
        }
        n++;
        at = at + 2 * w->batch <= w->rows->n_walk ? at + w->batch : 0;
    } while (!status && bench_wall_ns() < start + BENCH_SAMPLE_NS);
    return status ? 0 : n;
}

/* ns per row of everything that was timed, into column `round` of samples [n][rounds]. */
static void take_samples(const watching *w, const bench_ticks_of *t, size_t n, size_t n_calls,
                         size_t rounds, size_t round, double *samples)
{
    for (size_t i = 0; i < n; i++) {
        double ns = (double)t->ticks[i] * w->ns_per_tick - (double)t->n_calls[i] * w->timer_ns;
        samples[i * rounds + round] = (ns > 0 ? ns : 0) / (double)(n_calls * w->batch);
    }
}

/* All rounds at one batch size; samples: [steps + layers][rounds]. */
static nimbus_status measure(watching *w, size_t n_steps, size_t n_layers, size_t rounds,
                             double *samples, nimbus_error *error)
{
    for (size_t r = 0; r < rounds; r++)
        for (int peer = 0; peer < (w->peer ? 2 : 1); peer++) {
            size_t n = run_some(w, peer); /* warms up the caches */
            n = n ? run_some(w, peer) : 0;
            if (n == 0)
                return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                                  "a contender failed while its steps were timed");
            if (peer)
                take_samples(w, &w->theirs, n_layers, n, rounds, r, samples + n_steps * rounds);
            else
                take_samples(w, &w->ours, n_steps, n, rounds, r, samples);
        }
    return NIMBUS_OK;
}

/* ---- which steps do what oneDNN's primitives do */

static size_t step_of(const bench_steps *steps, const char *name)
{
    for (size_t i = 0; i < steps->n; i++)
        if (strcmp(steps->list[i].name, name) == 0)
            return i;
    return steps->n;
}

/* layer[i]: of the float net, whose time stands beside step i; n_layers: none. A step that oneDNN
 * has nothing for, such as one that brings a value to other steps, goes with the next one. */
static void match(bench_steps *steps, const bench_net *net, const bench_peer *peer, size_t *layer)
{
    for (size_t i = 0; i < steps->n; i++) {
        steps->list[i].with = i;
        layer[i] = net->n_layers;
    }
    for (size_t k = 0; k < net->n_layers && peer; k++) {
        size_t own = step_of(steps, net->layers[k].name), maker = bench_peer_layer_of(peer, k),
               of_maker = step_of(steps, net->layers[maker].name);
        if (own < steps->n && maker == k) {
            steps->list[own].has_peer = 1;
            steps->list[own].multiply_adds = net->layers[k].d * bench_width(net->layers[k].out);
            layer[own] = k;
        } else if (own < steps->n && of_maker < steps->n) {
            steps->list[own].with = of_maker;
        }
    }
    for (size_t i = steps->n - 1; i-- > 0 && peer;)
        if (!steps->list[i].has_peer && steps->list[i].with == i)
            steps->list[i].with = steps->list[i + 1].with;
}

static void add_up(bench_steps *steps, size_t batch)
{
    for (size_t i = 0; i < steps->n; i++) {
        const bench_step *step = &steps->list[i];
        if (steps->list[step->with].kind != NIMBUS_STEP_LOOKUP)
            continue;
        steps->lookup_ns[batch] += step->ns[batch].median;
        steps->lookup_peer_ns[batch] += step->has_peer ? step->peer_ns[batch].median : 0;
    }
}

nimbus_status bench_measure_steps(const nimbus_program *program, void *scratch,
                                  bench_peer *const *peers, const bench_net *net,
                                  const bench_rows *rows, void *outputs, bench_report *report,
                                  nimbus_error *error)
{
    static watching w;
    bench_steps *steps = &report->steps;
    const size_t n = nimbus_info(program)->n_steps, rounds = report->rounds;
    size_t layer[BENCH_MAX_STEPS];
    nimbus_status status = NIMBUS_OK;
    if (n > BENCH_MAX_STEPS)
        return NIMBUS_OK;
    double *samples = calloc((n + net->n_layers) * rounds, sizeof *samples);
    if (!samples)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    steps->n = n;
    for (size_t i = 0; i < n && !status; i++) {
        nimbus_step_info info;
        if ((status = nimbus_step(program, i, &info)))
            break;
        steps->list[i].kind = info.kind;
        snprintf(steps->list[i].name, sizeof steps->list[i].name, "%s", info.name);
    }
    w = (watching){.program = program, .scratch = scratch, .outputs = outputs, .rows = rows};
    w.ns_per_tick = bench_ns_per_tick();
    w.timer_ns = bench_timer_ns(w.ns_per_tick);
    for (size_t b = 0; b < report->n_batches && !status; b++) {
        w.peer = peers ? peers[b] : NULL;
        w.batch = report->batches[b];
        match(steps, net, w.peer, layer);
        if ((status = measure(&w, n, net->n_layers, rounds, samples, error)))
            break;
        for (size_t i = 0; i < n; i++) {
            steps->list[i].ns[b] = bench_summary(samples + i * rounds, rounds, 1);
            if (steps->list[i].has_peer)
                steps->list[i].peer_ns[b] =
                    bench_summary(samples + (n + layer[i]) * rounds, rounds, 1);
        }
        add_up(steps, b);
    }
    free(samples);
    return status;
}
