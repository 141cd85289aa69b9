/* sensitivity.c - how many trees which layers get, and which stay exact: by how much the net's
 * outputs change when one layer alone gets its trees and tables, before any training
 *
 * Every layer is fitted on what the float net puts into it, and the whole net runs on rows with all
 * other layers as they were. What is measured is the squared error of the outputs as a share of
 * their variance, so labels are not needed. Errors of different layers about add up. From one tree
 * each on, the layer gets more trees, or stays exact, for which that lowers the error most for the
 * time it costs, until all of them together are within the limit. Work grows linearly with the
 * number of layers times that of a pass through the net. */
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

static nimbus_status probe_net(probe *p, const conversion *c, const nimbus_layer *layer,
                               double *change, nimbus_error *error)
{
    double sum = 0;
    nimbus_status status =
        nimbus_net_predict(c->net, p->rows, c->options.n_threads, p->outputs, error);
    for (size_t i = 0; status == NIMBUS_OK && i < p->n; i++) {
        double difference = (double)p->outputs[i] - (double)p->expected[i];
        sum += difference * difference;
    }
    *change = p->variance > 0 ? sum / p->variance : 0;
    if (status == NIMBUS_OK && !isfinite(*change))
        status =
            nimbus_fail(error, NIMBUS_ERR_VALUE,
                        "the net's outputs with layer %s converted are not finite", layer->name);
    return status;
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* What is asked of a layer, and what came out. */
typedef struct question {
    size_t layer;
    nimbus_sensitivity s;
} question;

static question ask(const conversion *c, size_t i)
{
    const nimbus_layer *layer = &c->net->layers[i];
    const nimbus_layer_plan *plan = &c->plans[i];
    const bool is_open =
        layer->type == &nimbus_layer_conv2d && c->options.trees == 0 && !plan->pinned;
    question q = {
        .layer = i,
        .s = {.first_trees = is_open ? 1 : plan->trees,
              .n_changes = is_open ? NIMBUS_TREES_TRIED : 1,
              .multiply_adds = nimbus_lookup_inputs(layer) * nimbus_shape_width(layer->shape),
              .trees = plan->trees}};
    memcpy(q.s.name, layer->name, sizeof q.s.name);
    return q;
}

/* The layer with each number of trees, alone; trial's net is a copy of the teacher, and stays one.
 */
static nimbus_status answer(conversion *trial, probe *p, question *q, nimbus_error *error)
{
    nimbus_layer_plan *plan = &trial->plans[q->layer];
    const nimbus_layer *layer = &trial->net->layers[q->layer];
    const nimbus_layer_plan planned = *plan;
    nimbus_status status = NIMBUS_OK;
    for (size_t k = 0; k < q->s.n_changes && status == NIMBUS_OK; k++) {
        double error_fit;
        plan->trees = q->s.first_trees + k;
        if ((status = nimbus_conversion_report(trial, "try", layer, q->layer, trial->net->n_layers,
                                               error)) ||
            (status = nimbus_conversion_fit(trial, q->layer, &error_fit, error)) ||
            (status = probe_net(p, trial, layer, &q->s.change[k], error)) ||
            (status = nimbus_net_set_state(trial->net, q->layer, NIMBUS_STATE_DENSE, error)))
            break;
        q->s.lookups = layer->lookup->n_codebooks / plan->trees * nimbus_shape_width(layer->shape);
    }
    *plan = planned;
    return status;
}

static nimbus_status measure(conversion *trial, question *questions, size_t *n, nimbus_error *error)
{
    probe p = {0};
    nimbus_status status = probe_make(&p, trial, error);
    for (size_t i = 0; status == NIMBUS_OK && i < trial->net->n_layers; i++) {
        status = nimbus_frontier_advance(&trial->clean, i, error);
        if (status == NIMBUS_OK && nimbus_conversion_fits(trial, i)) {
            questions[*n] = ask(trial, i);
            status = answer(trial, &p, &questions[(*n)++], error);
        }
        if (status == NIMBUS_OK)
            status = nimbus_frontier_advance(&trial->converted, i, error);
    }
    probe_free(&p);
    return status;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* A lookup and a multiply-add of an exact layer take about the same time in a program
 * (`nimbus bench` shows both). */
static double time_of(const nimbus_sensitivity *s, size_t trees)
{
    return trees ? (double)trees * (double)s->lookups : (double)s->multiply_adds;
}

static double change_of(const nimbus_sensitivity *s, size_t trees)
{
    return trees ? s->change[trees - s->first_trees] : 0;
}

/* The number of trees, or 0, that lowers the change most for the time that it costs more than what
 * is chosen. */
static double best_step(const nimbus_sensitivity *s, size_t *trees)
{
    double best = 0;
    for (size_t k = 0; s->trees > 0 && k <= s->n_changes; k++) {
        size_t to = k < s->n_changes ? s->first_trees + k : 0;
        double gain = change_of(s, s->trees) - change_of(s, to);
        double cost = time_of(s, to) - time_of(s, s->trees);
        if (cost > 0 && gain / cost > best) {
            best = gain / cost;
            *trees = to;
        }
    }
    return best;
}

/* The fewest trees; exact where that takes no longer. */
static size_t cheapest(const nimbus_sensitivity *s)
{
    return time_of(s, 0) > time_of(s, s->first_trees) ? s->first_trees : 0;
}

/* From the fewest trees on, step by step, until the changes are within the limit. */
static void choose(const conversion *c, question *questions, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        nimbus_sensitivity *s = &questions[i].s;
        s->trees = c->plans[questions[i].layer].pinned ? s->first_trees : cheapest(s);
        sum += change_of(s, s->trees);
    }
    while (sum > c->options.most_change) {
        question *best = NULL;
        double best_rate = 0;
        size_t trees = 0, to = 0;
        for (size_t i = 0; i < n; i++) {
            if (c->plans[questions[i].layer].pinned)
                continue;
            double rate = best_step(&questions[i].s, &to);
            if (rate > best_rate) {
                best = &questions[i];
                best_rate = rate;
                trees = to;
            }
        }
        if (!best)
            break;
        sum += change_of(&best->s, trees) - change_of(&best->s, best->s.trees);
        best->s.trees = trees;
    }
    for (size_t i = 0; i < n; i++) {
        nimbus_layer_plan *plan = &c->plans[questions[i].layer];
        plan->exact = questions[i].s.trees == 0;
        plan->trees = plan->exact ? plan->trees : questions[i].s.trees;
    }
}

nimbus_status nimbus_conversion_choose(conversion *c, const nimbus_data *data,
                                       nimbus_convert_report *report, nimbus_error *error)
{
    conversion trial = {.options = c->options,
                        .method = c->method,
                        .plans = c->plans,
                        .teacher = c->teacher,
                        .began = c->began};
    question *questions = nimbus_alloc(c->teacher->n_layers, sizeof *questions);
    size_t n = 0;
    if (!questions)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to try %zu layers",
                           c->teacher->n_layers);
    nimbus_status status = nimbus_net_copy(c->teacher, &trial.net, error);
    if (status == NIMBUS_OK) {
        nimbus_conversion_read_before_relus(&trial);
        status = nimbus_conversion_prepare(&trial, data, error);
    }
    if (status == NIMBUS_OK)
        status = measure(&trial, questions, &n, error);
    nimbus_conversion_release(&trial);
    nimbus_net_free(trial.net);
    if (status == NIMBUS_OK && c->options.most_change > 0)
        choose(c, questions, n);
    for (size_t i = 0; status == NIMBUS_OK && i < n && i < NIMBUS_REPORT_LAYERS; i++)
        report->sensitivities[i] = questions[i].s;
    report->n_sensitivities = n;
    nimbus_free(questions);
    return status;
}
