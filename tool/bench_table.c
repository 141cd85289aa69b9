/* bench_table.c - a bench_report as tables and lines for people */
#include <math.h>

#include "bench_table.h"

static table t; /* too large for a stack */

void bench_print_head(const bench_report *report, FILE *out)
{
    fputs(report->cpu, out);
    if (isfinite(report->clock_ghz))
        fprintf(out, " at %.2f GHz", report->clock_ghz);
    fprintf(out, ", kernels %s", report->isa);
    if (*report->isa_limit)
        fprintf(out, ", program and oneDNN limited to %s", report->isa_limit);
    fprintf(out, "; one thread on one core, CPU time, median of %zu rounds\n", report->rounds);
}

/* "84.2 ±1%": the median, and half of what lies between the 10th and 90th percentile. */
static void time_cell(const bench_time *time)
{
    double spread = 50 * (time->high - time->low) / time->median;
    table_cell(&t, "%.*f ±%.0f%%", time->median < 1000 ? 1 : 0, time->median, spread);
}

static void start_net_table(const bench_report *report, const char *head, int with_accuracy)
{
    static const char align[] = "lrrrrrrrrrrr";
    static char columns[sizeof align];
    size_t n = 1 + report->n_batches + (with_accuracy != 0);
    snprintf(columns, sizeof columns, "%.*s", (int)n, align);
    table_init(&t, columns);
    table_cell(&t, "%s", head);
    for (size_t i = 0; i < report->n_batches; i++)
        table_cell(&t, "%zu", report->batches[i]);
    if (with_accuracy)
        table_cell(&t, "accuracy");
}

static void print_net(const bench_report *report, FILE *out)
{
    const bench_result *ours = &report->results[BENCH_PROGRAM];
    fprintf(out, "%s, ", report->program);
    fprintf(out,
            report->n_rows ? "%zu rows\n\n"
                           : "rows are made up (--data takes real ones and shows accuracies)\n\n",
            report->n_rows);
    start_net_table(report, "ns/row, rows a call", 1);
    for (int k = 0; k < BENCH_CONTENDERS; k++) {
        const bench_result *r = &report->results[k];
        if (!r->name || *r->skipped)
            continue;
        table_cell(&t, "%s", r->name);
        for (size_t i = 0; i < report->n_batches; i++)
            time_cell(&r->ns[i]);
        table_percent(&t, r->accuracy);
    }
    table_print(&t, out);
    start_net_table(report, "program is as fast as", 0);
    for (int k = BENCH_PROGRAM + 1; k < BENCH_CONTENDERS; k++) {
        const bench_result *r = &report->results[k];
        if (!r->name || *r->skipped)
            continue;
        table_cell(&t, "%s", r->name);
        for (size_t i = 0; i < report->n_batches; i++)
            table_cell(&t, "%.2fx", r->ns[i].median / ours->ns[i].median);
    }
    if (t.n_cells > t.n_columns) {
        fputc('\n', out);
        table_print(&t, out);
    }
}

static void print_latencies(const bench_report *report, FILE *out)
{
    table_init(&t, "llrrrrr");
    table_heads(&t, "ns of a single row", "caches", "p50", "p99", "p99.9", "largest", "calls");
    for (size_t i = 0; i < report->n_latencies; i++) {
        const bench_latency *l = &report->latencies[i];
        table_cell(&t, "%s", report->results[l->contender].name);
        table_cell(&t, "%s", l->cold ? "cold" : "warm");
        table_cell(&t, "%.0f", l->p50);
        table_cell(&t, "%.0f", l->p99);
        table_cell(&t, "%.0f", l->p999);
        table_cell(&t, "%.0f", l->max);
        table_size(&t, l->n);
    }
    fputc('\n', out);
    table_print(&t, out);
    fprintf(out,
            "wall time; %.1f ns of the timer itself are taken off; cold: %zu MiB swept before "
            "each call\n",
            report->timer_ns, report->cold_bytes >> 20);
}

/* Batch size that a table of steps shows beside the first: the one next to 64. */
static size_t second_batch(const bench_report *report)
{
    size_t best = 0;
    for (size_t i = 1; i < report->n_batches; i++)
        if (fabs(log2((double)report->batches[i] / 64)) <
            fabs(log2((double)report->batches[best] / 64)))
            best = i;
    return best;
}

/* Ours, theirs, the ratio, and multiply-adds a cycle of theirs; 0: there is none. */
static void step_cells(double ours, double theirs, double rate)
{
    table_cell(&t, "%.0f", ours);
    table_number(&t, "%.0f", theirs > 0 ? theirs : NAN);
    table_number(&t, "%.2fx", theirs > 0 ? theirs / ours : NAN);
    table_number(&t, "%.0f", rate > 0 ? rate : NAN);
}

static void print_steps(const bench_report *report, FILE *out)
{
    const bench_steps *s = &report->steps;
    const size_t batches[2] = {0, second_batch(report)}, n = batches[1] ? 2 : 1;
    table_init(&t, n == 2 ? "lllrrrrrrrr" : "lllrrrr");
    table_cell(&t, "step, ns/row");
    table_cell(&t, "kind");
    table_cell(&t, "counts with");
    for (size_t b = 0; b < n; b++) {
        table_cell(&t, "%zu a call", report->batches[batches[b]]);
        table_cell(&t, "oneDNN int8");
        table_cell(&t, "x");
        table_cell(&t, "its MACs/cycle");
    }
    for (size_t i = 0; i < s->n; i++) {
        const bench_step *step = &s->list[i];
        table_cell(&t, "%s", step->name);
        table_cell(&t, "%s", nimbus_step_kind_name(step->kind));
        table_cell(&t, "%s", step->with != i ? s->list[step->with].name : "");
        for (size_t b = 0; b < n; b++) {
            double theirs = step->has_peer ? step->peer_ns[batches[b]].median : 0;
            step_cells(step->ns[batches[b]].median, theirs,
                       theirs > 0 ? (double)step->multiply_adds / theirs / report->clock_ghz : 0);
        }
    }
    if (s->lookup_ns[0] > 0) {
        table_cell(&t, "all lookup steps");
        table_cell(&t, " ");
        table_cell(&t, " ");
        for (size_t b = 0; b < n; b++)
            step_cells(s->lookup_ns[batches[b]], s->lookup_peer_ns[batches[b]], 0);
    }
    fputc('\n', out);
    table_print(&t, out);
}

static void print_layers(const bench_report *report, FILE *out)
{
    table_init(&t, "lrrrrrrr");
    table_heads(&t, "layer N,D,M,V: ns/row", "trees+tables", "oneDNN int8", "oneDNN f32",
                "OpenBLAS f32", "x int8", "lookups/cycle", "codes/cycle");
    for (size_t i = 0; i < report->n_layers; i++) {
        const bench_layer_result *l = &report->layers[i];
        table_cell(&t, "%zu,%zu,%zu,%zu,%u", l->shape.n, l->shape.d, l->shape.m, l->shape.v,
                   l->shape.bits);
        time_cell(&l->ours);
        time_cell(&l->onednn_int8);
        time_cell(&l->onednn_f32);
        time_cell(&l->openblas_f32);
        table_cell(&t, "%.2fx", l->onednn_int8.median / l->ours.median);
        table_number(&t, "%.1f", l->lookups_per_cycle);
        table_number(&t, "%.1f", l->codes_per_cycle);
    }
    fputc('\n', out);
    table_print(&t, out);
    fputs(
        "random trees and tables, K=16, all columns, column-major i8 in and out; peers row-major\n",
        out);
}

static void print_notes(const bench_report *report, FILE *out)
{
    const bench_sweep *s = &report->sweep;
    const bench_peak *p = &report->peak;
    if (report->has_peak)
        fprintf(out,
                "\npeak, %zu rows, %zu codebooks, %zu outputs: %.1f lookups a cycle to i32, "
                "%.1f to i8\n",
                p->shape.n, p->n_codebooks, p->shape.m, p->to_i32, p->to_i8);
    if (s->n_points && s->rise > 0)
        fprintf(out,
                "\n%zu batch sizes to %zu: time per row rises by at most %.1f %% (%zu to %zu)\n",
                s->n_points, s->batch[s->n_points - 1], 100 * s->rise, s->rise_from, s->rise_to);
    else if (s->n_points)
        fprintf(out, "\n%zu batch sizes to %zu: time per row never rises\n", s->n_points,
                s->batch[s->n_points - 1]);
    if (*report->ort.version)
        fprintf(out, "\nONNX Runtime %s from JavaScript; the time of an empty call is taken off\n",
                report->ort.version);
    fputc('\n', out);
    for (int k = 0; k < BENCH_CONTENDERS; k++) {
        const bench_result *r = &report->results[k];
        if (r->name && *r->skipped)
            fprintf(out, "%s skipped: %s\n", r->name, r->skipped);
        else if (r->name && *r->how)
            fprintf(out, "%s ran as %s\n", r->name, r->how);
    }
}

void bench_print(const bench_report *report, FILE *out)
{
    bench_print_head(report, out);
    if (report->n_batches)
        print_net(report, out);
    if (report->steps.n)
        print_steps(report, out);
    if (report->n_latencies)
        print_latencies(report, out);
    if (report->n_layers)
        print_layers(report, out);
    print_notes(report, out);
}
