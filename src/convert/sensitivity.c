/* sensitivity.c - which layers cost accuracy: how much the net's outputs change when one layer
 * alone gets its trees and tables, before any training
 *
 * Every layer is fitted on what the float net puts into it, and the whole net runs on rows with all
 * other layers as they were. What is measured is the squared error of the outputs as a share of
 * their variance, so labels are not needed. Errors of different layers about add up, so layers stay
 * exact, those first whose error is largest for the multiply-adds that they would save, until the
 * others together are within the limit. Work grows linearly with the number of layers times that of
 * a pass through the net. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/internal.h"

enum { MOST_ROWS = 2000 };

/* Rows that the outputs are compared on: the held-out ones if there are any. */
typedef struct probe {
    nimbus_data *rows;
    size_t n; /* outputs of all rows */
    float *expected, *outputs;
    double variance; /* of the expected outputs, each output's about its own mean; summed */
} probe;

static void probe_free(probe *p)
{
    nimbus_data_free(p->rows);
    nimbus_free(p->expected);
    nimbus_free(p->outputs);
}

static nimbus_status probe_make(probe *p, const conversion *c, nimbus_error *error)
{
    const nimbus_data *from = c->options.valid ? c->options.valid : c->fit_data;
    size_t n_rows = nimbus_data_get_info(from)->n_rows;
    size_t n_outputs = nimbus_shape_width(c->teacher->layers[c->teacher->n_layers - 1].shape);
    n_rows = n_rows < MOST_ROWS ? n_rows : MOST_ROWS;
    nimbus_status status = nimbus_sample_rows(from, n_rows, c->options.seed, &p->rows, error);
    if (status)
        return status;
    p->n = n_rows * n_outputs;
    p->expected = nimbus_alloc(p->n, sizeof *p->expected);
    p->outputs = nimbus_alloc(p->n, sizeof *p->outputs);
    if (!p->expected || !p->outputs)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the outputs of %zu rows",
                           n_rows);
    if ((status =
             nimbus_net_predict(c->teacher, p->rows, c->options.n_threads, p->expected, error)))
        return status;
    for (size_t m = 0; m < n_outputs; m++) {
        double sum = 0, squares = 0;
        for (size_t i = m; i < p->n; i += n_outputs) {
            double y = (double)p->expected[i];
            sum += y;
            squares += y * y;
        }
        p->variance += squares - sum * sum / (double)n_rows;
    }
    return NIMBUS_OK;
}

static nimbus_status probe_net(probe *p, const conversion *c, double *change, nimbus_error *error)
{
    double sum = 0;
    nimbus_status status =
        nimbus_net_predict(c->net, p->rows, c->options.n_threads, p->outputs, error);
    for (size_t i = 0; status == NIMBUS_OK && i < p->n; i++) {
        double difference = (double)p->outputs[i] - (double)p->expected[i];
        sum += difference * difference;
    }
    *change = p->variance > 0 ? sum / p->variance : 0;
    return status;
}

/* One after the other, each alone; trial's net is a copy of the teacher, and stays one. */
static nimbus_status measure(conversion *trial, nimbus_convert_report *report, nimbus_error *error)
{
    probe p = {0};
    nimbus_status status = probe_make(&p, trial, error);
    for (size_t i = 0; status == NIMBUS_OK && i < trial->net->n_layers; i++) {
        const nimbus_layer *layer = &trial->net->layers[i];
        double error_fit, change;
        status = nimbus_frontier_advance(&trial->clean, i, error);
        if (status == NIMBUS_OK && nimbus_conversion_fits(trial, i)) {
            if ((status = nimbus_conversion_report(trial, "try", layer, i, trial->net->n_layers,
                                                   error)) ||
                (status = nimbus_conversion_fit(trial, i, &error_fit, error)) ||
                (status = probe_net(&p, trial, &change, error)) ||
                (status = nimbus_net_set_state(trial->net, i, NIMBUS_STATE_DENSE, error)))
                break;
            size_t n_sums = nimbus_shape_width(layer->shape);
            nimbus_sensitivity s = {
                .change = change,
                .multiply_adds = nimbus_lookup_inputs(layer) * n_sums,
                .lookups = layer->lookup->n_codebooks * n_sums,
            };
            memcpy(s.name, layer->name, sizeof s.name);
            if (report->n_sensitivities < NIMBUS_REPORT_LAYERS)
                report->sensitivities[report->n_sensitivities] = s;
            report->n_sensitivities++;
        }
        if (status == NIMBUS_OK)
            status = nimbus_frontier_advance(&trial->converted, i, error);
    }
    probe_free(&p);
    return status;
}

static nimbus_layer_plan *plan_of(conversion *c, const char *name)
{
    size_t i = 0;
    while (strcmp(c->net->layers[i].name, name) != 0)
        i++;
    return &c->plans[i];
}

/* Leaves layers exact, the worst for what they save first, until the rest is within the limit. */
static void choose(conversion *c, nimbus_convert_report *report)
{
    const size_t n = report->n_sensitivities < NIMBUS_REPORT_LAYERS ? report->n_sensitivities
                                                                    : NIMBUS_REPORT_LAYERS;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += report->sensitivities[i].change;
    while (sum > c->options.most_change) {
        nimbus_sensitivity *worst = NULL;
        for (size_t i = 0; i < n; i++) {
            nimbus_sensitivity *s = &report->sensitivities[i];
            if (s->exact || plan_of(c, s->name)->pinned)
                continue;
            if (!worst ||
                s->change * (double)worst->multiply_adds > worst->change * (double)s->multiply_adds)
                worst = s;
        }
        if (!worst)
            return;
        worst->exact = 1;
        plan_of(c, worst->name)->exact = true;
        sum -= worst->change;
    }
}

nimbus_status nimbus_conversion_choose(conversion *c, const nimbus_data *data,
                                       nimbus_convert_report *report, nimbus_error *error)
{
    conversion trial = {
        .options = c->options, .plans = c->plans, .teacher = c->teacher, .began = c->began};
    nimbus_status status = nimbus_net_copy(c->teacher, &trial.net, error);
    if (status == NIMBUS_OK) {
        nimbus_conversion_read_before_relus(&trial);
        status = nimbus_conversion_prepare(&trial, data, error);
    }
    if (status == NIMBUS_OK)
        status = measure(&trial, report, error);
    nimbus_conversion_release(&trial);
    nimbus_net_free(trial.net);
    if (status == NIMBUS_OK && c->options.most_change > 0)
        choose(c, report);
    return status;
}
