/* convert.c - the schedule: layer by layer through the net, then one global fine-tune
 *
 * For every linear layer in order: its inputs, as the layers before it now compute them, and the
 * float net's own output on the same rows are known; trees are learned, tables fitted, and if asked
 * for the layer is trained for a while with the ones after it locked. Outputs of finished layers
 * are computed once and kept, and every layer sees the same bounded number of rows, so the work
 * grows linearly with depth. Then tables are rounded and all layers train together, taught by the
 * float net. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/internal.h"
#include "net/fingerprint.h"

enum {
    DEFAULT_FIT_ROWS = 30000,
    MOST_REPEATS = 4,         /* small data sets get up to so many times the preset's epochs */
    FRONTIER_REALS = 1 << 25, /* of the widest layer's outputs on the rows that are fitted on */
    SHALLOW = 4, /* converted linear layers that the recipe is for; more: see resolve_rates */
    DEEP = 24    /* from so many on hints are needed */
};

/* ---- settings ------------------------------------------------------------------------------- */

/* What a training is like where the options leave it open: of nets on images, with many positions a
 * row, and of others. */
typedef struct recipe {
    size_t batch, epochs[3]; /* by preset; more where that gives fewer steps than are enough */
    size_t enough_steps;
    double table_rate, rate, distill, temperature, tau, tau_end;
    double most_change; /* with ACCURACY */
} recipe;

static const recipe on_rows = {
    .batch = 256,
    .epochs = {[NIMBUS_BALANCED] = 24, [NIMBUS_SPEED] = 32, [NIMBUS_ACCURACY] = 16},
    .enough_steps = 5000,
    .table_rate = 6e-3,
    .rate = 1e-3,
    .distill = 0.6,
    .temperature = 1,
    .tau = 0.5,
    .tau_end = 0.5};
static const recipe on_images = {
    .batch = 128,
    .epochs = {[NIMBUS_BALANCED] = 16, [NIMBUS_SPEED] = 24, [NIMBUS_ACCURACY] = 12},
    .enough_steps = 2500,
    .table_rate = 5e-3,
    .rate = 5e-3,
    .distill = 0.7,
    .temperature = 3,
    .tau = 0.7,
    .tau_end = 0.4,
    .most_change = 0.1,
};

static const recipe *recipe_of(const nimbus_net *net)
{
    return nimbus_has_convolutions(net) ? &on_images : &on_rows;
}

static size_t default_epochs(const recipe *r, nimbus_preset preset, size_t n_rows, size_t batch)
{
    size_t least = r->epochs[preset], steps = (n_rows + batch - 1) / batch;
    size_t wanted = (r->enough_steps + steps - 1) / steps;
    return wanted < least ? least : wanted > MOST_REPEATS * least ? MOST_REPEATS * least : wanted;
}

static size_t default_fit_rows(const nimbus_net *teacher)
{
    size_t widest = 1;
    for (size_t i = 0; i < teacher->n_layers; i++) {
        size_t width = nimbus_shape_width(teacher->layers[i].shape);
        widest = width > widest ? width : widest;
    }
    size_t n = FRONTIER_REALS / widest + 1;
    return n < DEFAULT_FIT_ROWS ? n : DEFAULT_FIT_ROWS;
}

/* What the options leave open of a training, as previous work has it. */
static void resolve_method(nimbus_convert_options *out, const nimbus_method_recipe *method)
{
    nimbus_train_options *train = &out->train;
    out->split_method = method->splits;
    out->table_method = method->tables;
    out->estimator = method->estimator;
    out->most_change = -1;
    out->tree = NIMBUS_CHOICE_SHARED;
    if (out->epochs == 0 || method->epochs == 0)
        out->epochs = method->epochs ? method->epochs : SIZE_MAX;
    train->batch = train->batch ? train->batch : method->batch;
    train->rate = train->rate > 0 ? train->rate : method->rate;
    train->tau = train->tau > 0 ? train->tau : method->tau;
}

static nimbus_status resolve(const nimbus_convert_options *options, nimbus_convert_options *out,
                             const nimbus_net *teacher, const nimbus_data *data,
                             nimbus_error *error)
{
    nimbus_convert_options defaults = NIMBUS_CONVERT_OPTIONS_INIT;
    size_t n_rows = nimbus_data_get_info(data)->n_rows;

    *out = options ? *options : defaults;
    if (out->size != sizeof *out || out->train.size != sizeof out->train)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "conversion options of %zu bytes, expected %zu: not set up with "
                           "NIMBUS_CONVERT_OPTIONS_INIT",
                           out->size, sizeof *out);
    const nimbus_method_recipe *method = nimbus_method_recipe_of(out->method);
    if (!method)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "unknown method %d", (int)out->method);
    if ((unsigned)out->split_method > NIMBUS_PLAIN || (unsigned)out->table_method > NIMBUS_MEAN ||
        (unsigned)out->estimator > NIMBUS_ESTIMATOR_SOFTMAX)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "unknown split, table or estimator method");
    if (!(out->lambda >= 0) || !isfinite(out->lambda))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "lambda %g, expected 0 or more",
                           out->lambda);
    if (!isfinite(out->train.hint) || !isfinite(out->train.margin_noise) ||
        !isfinite(out->train.code_noise))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "hint %g, margin noise %g and code noise %g, expected numbers",
                           out->train.hint, out->train.margin_noise, out->train.code_noise);
    if (out->train.hint > 0 && out->method != NIMBUS_METHOD_NIMBUS)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "hint is %g, but previous methods have no hints", out->train.hint);
    if (out->train.margin_noise > 0 && out->method != NIMBUS_METHOD_NIMBUS)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "margin noise is %g, but previous methods have none",
                           out->train.margin_noise);
    if (out->train.code_noise > NIMBUS_MOST_CODE_NOISE)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "code noise is %g, expected at most %g",
                           out->train.code_noise, NIMBUS_MOST_CODE_NOISE);
    if (out->train.code_noise > 0 && out->method != NIMBUS_METHOD_NIMBUS)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "code noise is %g, but previous methods have none",
                           out->train.code_noise);
    if (!isfinite(out->most_change))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "change of at most %g, expected a number",
                           out->most_change);
    if (!isfinite(out->layer_epochs))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "%g epochs for each layer",
                           out->layer_epochs);
    if (!(out->budget >= 0) || !isfinite(out->budget))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "budget of %g epochs, expected 0 or more",
                           out->budget);
    if (out->fit_rows == 0)
        out->fit_rows = default_fit_rows(teacher);
    if (out->fit_rows > n_rows)
        out->fit_rows = n_rows;
    nimbus_train_options *train = &out->train;
    train->seed = out->seed;
    train->n_threads = out->n_threads;
    train->valid = out->valid;
    train->teacher = NULL;
    train->teacher_outputs = NULL;
    train->first_layer = 0;
    if (out->method != NIMBUS_METHOD_NIMBUS) {
        train->hint = train->margin_noise = train->code_noise = 0;
        resolve_method(out, method);
        return NIMBUS_OK;
    }
    const recipe *r = recipe_of(teacher);
    train->batch = train->batch ? train->batch : r->batch;
    if (out->epochs == 0 && (unsigned)out->preset <= NIMBUS_ACCURACY) /* else refused by the plan */
        out->epochs = default_epochs(r, out->preset, n_rows, train->batch);
    if (out->most_change == 0 && out->preset == NIMBUS_ACCURACY)
        out->most_change = r->most_change;
    train->epochs = out->epochs;
    train->warmup_steps = train->warmup_steps > 0 ? train->warmup_steps : 50;
    train->distill = train->distill > 0 ? train->distill : r->distill;
    train->temperature = train->temperature > 0 ? train->temperature : r->temperature;
    return NIMBUS_OK;
}

/* Layers that are to get trees and tables. */
static size_t count_fits(const conversion *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->net->n_layers; i++)
        n += nimbus_conversion_fits(c, i);
    return n;
}

/* Whether all that layer i and those after it read passes through the layer before it. */
static bool is_cut(const nimbus_net *net, size_t i)
{
    for (size_t j = i; j < net->n_layers; j++)
        for (size_t k = 0; k < net->layers[j].n_inputs; k++)
            if (net->layers[j].input[k] + 1 < i)
                return false;
    return true;
}

/* Layers that are trained when they are fitted: alone, those behind which nothing reads past them.
 */
static size_t count_trained(const conversion *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->net->n_layers; i++)
        n += nimbus_conversion_fits(c, i) &&
             (c->method->layers != NIMBUS_LAYERS_ALONE || is_cut(c->net, i));
    return n;
}

/* Whether a converted layer reads what another layer gives, which the float net gives too. */
static bool can_have_hints(const conversion *c)
{
    for (size_t i = 0; i < c->net->n_layers; i++)
        if (nimbus_conversion_fits(c, i) && c->net->layers[i].input[0] > 0)
            return true;
    return false;
}

/* Hints and noise that the options leave open, of n converted layers of a net without convolutions
 * (0: with).
 *
 * Noise on margins makes thresholds that hold for rows nearby, and hints say what each layer should
 * give: shallow nets learn less by heart (docs/experiments.md); 8 layers lose by hints. In very
 * deep nets what a layer should do is lost in the noise of the others, and hints tell it. 32
 * layers, 10 epochs, test rows: 57.2 -> 80.1 %; 16 layers lose by them, 86.8 -> 86.1 % held out.
 *
 * Codes drawn at random keep outputs from leaning on few trees: Fashion-MNIST 89.11 -> 89.55 % held
 * out, MNIST 98.62 -> 98.63, its cross-entropy 0.101 -> 0.092. Images that are moved are never the
 * same twice, and gain nothing by it. */
static void resolve_hints(conversion *c, size_t n)
{
    const double shallow_hint = 0.1, shallow_noise = 0.15, shallow_drawn = 0.02, deep_hint = 0.3;
    nimbus_train_options *train = &c->options.train;
    const bool shallow = n > 0 && n <= SHALLOW;
    if (train->hint == 0 && (shallow || n >= DEEP) && can_have_hints(c))
        train->hint = shallow ? shallow_hint : deep_hint;
    if (train->margin_noise == 0 && shallow)
        train->margin_noise = shallow_noise;
    if (train->code_noise == 0 && shallow && !train->shift)
        train->code_noise = shallow_drawn;
    train->hint = fmax(train->hint, 0);
    train->margin_noise = fmax(train->margin_noise, 0);
    train->code_noise = fmax(train->code_noise, 0);
}

/* Rates, temperatures and hints that the options leave open.
 *
 * In deep nets the errors of a step add up from layer to layer: tables learn in smaller steps, and
 * more rows have a say in the thresholds. Fashion-MNIST, 256 wide with batch norm, 6 epochs,
 * held-out rows: 16 layers 73.1 -> 84.8 %, 8 layers 87.2 -> 87.5 %. Hints in very deep ones let
 * each layer learn faster. */
static void resolve_rates(conversion *c)
{
    const double deep_rate = 3e-3;
    nimbus_train_options *train = &c->options.train;
    const recipe *r = recipe_of(c->teacher);
    const size_t n = nimbus_has_convolutions(c->teacher) ? 0 : count_fits(c);
    const double depth = n < SHALLOW ? 1 : (double)n / SHALLOW;
    const bool told = n >= DEEP && !(train->hint < 0);
    resolve_hints(c, n);
    if (!(train->table_rate > 0))
        train->table_rate = train->rate > 0 ? train->rate
                            : told          ? deep_rate
                                            : r->table_rate / depth;
    train->rate = train->rate > 0 ? train->rate : told ? deep_rate : r->rate;
    if (!(train->tau > 0)) {
        train->tau = depth > 1 ? 1 : r->tau;
        train->tau_end = train->tau_end > 0 ? train->tau_end : depth > 1 ? 1 : r->tau_end;
    }
}

/* Epochs of the trainings: as the options have them, else as published; of a budget every training
 * gets its share, in rows of what it sees. */
static void resolve_epochs(conversion *c, size_t n_rows)
{
    nimbus_convert_options *o = &c->options;
    const nimbus_method_recipe *method = c->method;
    const bool ours = o->method == NIMBUS_METHOD_NIMBUS;
    const size_t n_trained = count_trained(c);
    c->layer_epochs = o->layer_epochs != 0 && (ours || method->layer_epochs > 0)
                          ? o->layer_epochs
                          : method->layer_epochs;
    if (o->budget > 0) {
        const double all = (double)n_trained * method->layer_epochs + (double)method->epochs;
        double layers = (double)n_trained * c->layer_epochs * (double)o->fit_rows / (double)n_rows;
        if (!ours && all > 0)
            c->layer_epochs =
                o->budget * method->layer_epochs / all *
                (method->layers == NIMBUS_LAYERS_ALONE ? (double)n_rows / (double)o->fit_rows : 1);
        double rest = ours ? o->budget - (layers > 0 ? layers : 0)
                           : o->budget * (double)method->epochs / (all > 0 ? all : 1);
        if (o->epochs != SIZE_MAX)
            o->epochs = rest >= 0.5 ? (size_t)lround(rest) : ours ? 1 : SIZE_MAX;
    }
    o->train.epochs = o->epochs;
}

/* ---- rounding, states --------------------------------------------------------------------------
 */

static nimbus_status quantise_layers(conversion *c, nimbus_error *error)
{
    for (size_t i = 0; i < c->net->n_layers; i++) {
        nimbus_layer *layer = &c->net->layers[i];
        if (!layer->lookup || c->plans[i].exact || c->plans[i].bits == 0 || layer->lookup->bits)
            continue;
        nimbus_status status = nimbus_layer_quantise(
            layer, c->plans[i].bits, c->method->uniform || nimbus_is_last_product(c->net, i),
            c->options.n_threads, error);
        if (status)
            return status;
    }
    return NIMBUS_OK;
}

static nimbus_status set_states(nimbus_net *net, nimbus_layer_state from, nimbus_layer_state to,
                                nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < net->n_layers && status == NIMBUS_OK; i++)
        if (nimbus_layer_is_product(&net->layers[i]) && net->layers[i].state == from)
            status = nimbus_net_set_state(net, i, to, error);
    return status;
}

/* ---- training: one layer with the rest locked, and all together ------------------------------ */

static int forward_progress(void *user, const nimbus_progress *progress)
{
    conversion *c = user;
    nimbus_progress p = *progress;
    p.stage = c->stage;
    p.seconds = c->seconds_before + nimbus_seconds() - c->began;
    return c->options.progress(c->options.progress_user, &p);
}

static void hook_progress(conversion *c, nimbus_train_options *train, const char *stage)
{
    snprintf(c->stage, sizeof c->stage, "%s", stage);
    train->progress = c->options.progress ? forward_progress : NULL;
    train->progress_user = c;
}

static nimbus_status know_teacher_outputs(conversion *c, nimbus_error *error)
{
    size_t n_outputs = nimbus_shape_width(c->teacher->layers[c->teacher->n_layers - 1].shape);
    if (c->teacher_outputs)
        return NIMBUS_OK;
    c->teacher_outputs = nimbus_alloc(nimbus_data_get_info(c->fit_data)->n_rows * n_outputs,
                                      sizeof *c->teacher_outputs);
    if (!c->teacher_outputs)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the teacher's outputs");
    return nimbus_net_predict(c->teacher, c->fit_data, c->options.n_threads, c->teacher_outputs,
                              error);
}

/* This work learns from the float net as well as from labels. */
static bool distils(const conversion *c)
{
    return c->options.method == NIMBUS_METHOD_NIMBUS;
}

/* Parts of epochs are whole epochs of fewer rows. */
static size_t rows_of_layer(const conversion *c, size_t n_rows)
{
    size_t n = (size_t)lround((double)n_rows * c->layer_epochs / ceil(c->layer_epochs));
    return n < 2 ? 2 : n;
}

/* What trainings after a layer's fit have in common, on n_rows rows; hints and noise are of the
 * last training alone. */
static nimbus_train_options training_of_layer(conversion *c, size_t n_rows)
{
    nimbus_train_options train = c->options.train;
    train.epochs = (size_t)ceil(c->layer_epochs);
    if (c->method->layer_rate > 0)
        train.rate = c->method->layer_rate;
    train.valid = NULL;
    train.hint = train.margin_noise = train.code_noise = 0;
    train.checkpoint = c->tune_path[0] ? c->tune_path : NULL;
    c->rows_seen += (double)n_rows * (double)train.epochs;
    return train;
}

/* Trains layer i (in SOFT) on its recorded inputs; the layers after it pass gradients only. */
static nimbus_status train_layer(conversion *c, size_t i, nimbus_error *error)
{
    const nimbus_layer *layer = &c->net->layers[i];
    nimbus_data_info info = *nimbus_data_get_info(c->fit_data);
    nimbus_data *inputs = NULL;
    nimbus_status status;
    char stage[80];

    info.dtype = NIMBUS_F32;
    info.n_features = nimbus_shape_width(layer->in_shape);
    info.channels = layer->in_shape.channels;
    info.height = layer->in_shape.height;
    info.width = layer->in_shape.width;
    info.n_rows = rows_of_layer(c, info.n_rows);
    if ((distils(c) && (status = know_teacher_outputs(c, error))) ||
        (status = nimbus_data_from_arrays(&info, c->converted.out[layer->input[0]],
                                          nimbus_data_labels(c->fit_data),
                                          nimbus_data_targets(c->fit_data), &inputs, error)) ||
        (status = set_states(c->net, NIMBUS_STATE_DENSE, NIMBUS_STATE_LOCKED, error)) ||
        (status = nimbus_net_set_state(c->net, i, NIMBUS_STATE_SOFT, error)))
        goto done;
    nimbus_train_options train = training_of_layer(c, info.n_rows);
    train.first_layer = i;
    if (distils(c))
        train.teacher_outputs = c->teacher_outputs;
    train.shift = 0;
    train.flip = 0;
    train.noise = 0;
    train.mixup = 0;
    snprintf(stage, sizeof stage, "train layer %s", layer->name);
    hook_progress(c, &train, stage);
    if ((status = nimbus_train(c->net, inputs, &train, NULL, error)) ||
        (status = nimbus_net_set_state(c->net, i, NIMBUS_STATE_LOOKUP, error)) ||
        (status = set_states(c->net, NIMBUS_STATE_LOCKED, NIMBUS_STATE_DENSE, error)))
        goto done;
done:
    nimbus_data_free(inputs);
    return status;
}

/* Thresholds learn at the method's part of the rate; files do not keep it. */
static void set_threshold_rates(conversion *c)
{
    for (size_t i = 0; i < c->net->n_layers && c->method->threshold_rate > 0; i++) {
        nimbus_param *thresholds = nimbus_layer_param(&c->net->layers[i], "thresholds");
        if (thresholds)
            thresholds->rate_scale = (real)c->method->threshold_rate;
    }
}

static nimbus_status fine_tune(conversion *c, const nimbus_data *data, nimbus_train_report *report,
                               nimbus_error *error)
{
    nimbus_train_options train = c->options.train;
    nimbus_status status;

    train.teacher = distils(c) ? c->teacher : NULL;
    train.checkpoint = c->tune_path[0] ? c->tune_path : NULL;
    hook_progress(c, &train, "fine-tune");
    set_threshold_rates(c);
    if ((status = set_states(c->net, NIMBUS_STATE_LOOKUP, NIMBUS_STATE_SOFT, error)))
        return status;
    return nimbus_train(c->net, data, &train, report, error);
}

/* Trains the whole net with layers up to i converted, and computes again what these now give. */
static nimbus_status train_with_all(conversion *c, size_t i, nimbus_error *error)
{
    nimbus_data *data = NULL;
    char stage[80];
    nimbus_status status =
        nimbus_sample_rows(c->data, rows_of_layer(c, nimbus_data_get_info(c->data)->n_rows),
                           c->options.seed + i, &data, error);
    if (status || (status = set_states(c->net, NIMBUS_STATE_LOOKUP, NIMBUS_STATE_SOFT, error)))
        goto done;
    set_threshold_rates(c);
    nimbus_train_options train = training_of_layer(c, nimbus_data_get_info(data)->n_rows);
    snprintf(stage, sizeof stage, "train up to layer %s", c->net->layers[i].name);
    hook_progress(c, &train, stage);
    if ((status = nimbus_train(c->net, data, &train, NULL, error)) ||
        (status = set_states(c->net, NIMBUS_STATE_SOFT, NIMBUS_STATE_LOOKUP, error)))
        goto done;
    nimbus_frontier_free(&c->converted);
    status = nimbus_frontier_new(&c->converted, c->net, c->fit_data, c->options.n_threads, error);
    for (size_t j = 0; j < i && status == NIMBUS_OK; j++)
        status = nimbus_frontier_advance(&c->converted, j, error);
done:
    nimbus_data_free(data);
    return status;
}

/* What the method trains once layer i has its trees and tables. */
static nimbus_status train_after_fit(conversion *c, size_t i, nimbus_error *error)
{
    if (!(c->layer_epochs > 0))
        return NIMBUS_OK;
    if (c->method->layers == NIMBUS_LAYERS_WITH_ALL)
        return train_with_all(c, i, error);
    return is_cut(c->net, i) ? train_layer(c, i, error) : NIMBUS_OK;
}

/* ---- layer by layer -------------------------------------------------------------------------- */

nimbus_status nimbus_conversion_report(conversion *c, const char *words, const nimbus_layer *layer,
                                       size_t done, size_t total, nimbus_error *error)
{
    if (!c->options.progress)
        return NIMBUS_OK;
    snprintf(c->stage, sizeof c->stage, "%s layer %s", words, layer->name);
    nimbus_progress p = {.stage = c->stage,
                         .done = (double)done,
                         .total = (double)total,
                         .seconds = c->seconds_before + nimbus_seconds() - c->began,
                         .seconds_left = -1,
                         .loss = NAN,
                         .train_accuracy = NAN,
                         .valid_accuracy = NAN};
    if (c->options.progress(c->options.progress_user, &p))
        return nimbus_fail(error, NIMBUS_ERR_CANCELLED, "conversion stopped before layer %s",
                           layer->name);
    return NIMBUS_OK;
}

/* Says what is wrong with a layer's plan before any layer is fitted. */
static nimbus_status check_plans(const conversion *c, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < c->net->n_layers && status == NIMBUS_OK; i++) {
        nimbus_groups groups = {0};
        if (!nimbus_conversion_fits(c, i))
            continue;
        status = nimbus_conversion_groups(c, i, &groups, error);
        nimbus_groups_free(&groups);
        if (status == NIMBUS_OK && (size_t)1 << c->plans[i].levels > c->options.fit_rows)
            status = nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                                 "layer %s: %zu leaves per tree but only %zu rows to learn them on",
                                 c->net->layers[i].name, (size_t)1 << c->plans[i].levels,
                                 c->options.fit_rows);
    }
    return status;
}

static void list_layer(const conversion *c, size_t i, double error_fit, double seconds,
                       nimbus_convert_report *report)
{
    const nimbus_layer *layer = &c->net->layers[i];
    if (report->n_layers < NIMBUS_REPORT_LAYERS) {
        nimbus_convert_layer_report *r = &report->layers[report->n_layers];
        memcpy(r->name, layer->name, sizeof r->name);
        r->n_codebooks = layer->lookup->n_codebooks;
        r->n_levels = layer->lookup->n_levels;
        r->error_fit = error_fit;
        r->seconds = seconds;
    }
    report->n_layers++;
}

static nimbus_status convert_layers(conversion *c, nimbus_convert_report *report,
                                    nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    size_t n_fits = count_fits(c), done = 0;

    if (n_fits == 0)
        return NIMBUS_OK;
    for (size_t i = 0; i < c->net->n_layers && status == NIMBUS_OK; i++) {
        double began = nimbus_seconds();
        status = nimbus_frontier_advance(&c->clean, i, error);
        if (status == NIMBUS_OK && nimbus_conversion_fits(c, i)) {
            double error_fit = NAN;
            bool fitted_before = i < c->layers_done;
            if (!fitted_before) {
                if ((status = nimbus_conversion_report(c, "fit", &c->net->layers[i], done, n_fits,
                                                       error)) ||
                    (status = nimbus_conversion_fit(c, i, &error_fit, error)) ||
                    (status = train_after_fit(c, i, error)))
                    break;
                c->layers_done = i + 1;
            }
            list_layer(c, i, error_fit, nimbus_seconds() - began, report);
            done++;
            if (!fitted_before)
                status = nimbus_conversion_save(c, error);
        }
        if (status == NIMBUS_OK && i >= c->layers_done && c->options.method == NIMBUS_METHOD_NIMBUS)
            nimbus_conversion_renew_norm(c, i);
        if (status == NIMBUS_OK)
            status = nimbus_frontier_advance(&c->converted, i, error);
    }
    return status;
}

/* ---- the whole conversion -------------------------------------------------------------------- */

nimbus_status nimbus_conversion_prepare(conversion *c, const nimbus_data *data, nimbus_error *error)
{
    nimbus_status status =
        nimbus_sample_rows(data, c->options.fit_rows, c->options.seed, &c->fit_data, error);
    if (status == NIMBUS_OK)
        status =
            nimbus_frontier_new(&c->clean, c->teacher, c->fit_data, c->options.n_threads, error);
    if (status == NIMBUS_OK)
        status = nimbus_frontier_new(&c->converted, c->method->clean ? c->teacher : c->net,
                                     c->fit_data, c->options.n_threads, error);
    return status;
}

static nimbus_status check_arguments(const nimbus_net *teacher, const nimbus_data *data,
                                     nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t d = nimbus_shape_width(teacher->layers[0].shape);

    if (info->n_features != d)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the net reads rows of %zu values, the data has %zu features", d,
                           info->n_features);
    if (info->n_rows < 2)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH, "%zu rows are too few to convert on",
                           info->n_rows);
    return nimbus_dtype_fits(teacher, data, error);
}

/* Batch norms as they are before any training. */
static void forget_norms(nimbus_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t p = 0; p < net->layers[i].n_params; p++) {
            nimbus_param *param = &net->layers[i].params[p];
            bool one = strcmp(param->name, "variance") == 0 || strcmp(param->name, "scale") == 0;
            for (size_t j = 0; net->layers[i].type == &nimbus_layer_batch_norm && j < param->n; j++)
                param->value[j] = one;
        }
}

/* Everything up to the first look at the rows. */
static nimbus_status begin(const nimbus_net *teacher, const nimbus_data *data,
                           const nimbus_convert_options *options, conversion **out,
                           nimbus_error *error)
{
    nimbus_status status = check_arguments(teacher, data, error);
    if (status)
        return status;
    conversion *c = *out = nimbus_alloc(1, sizeof *c);
    if (!c)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to convert");
    c->began = nimbus_seconds();
    if ((status = resolve(options, &c->options, teacher, data, error)) ||
        (status = nimbus_net_copy(teacher, &c->teacher, error)) ||
        (status = nimbus_net_copy(teacher, &c->net, error)) ||
        (status = nimbus_plan_layers(teacher, &c->options, &c->plans, error)))
        return status;
    c->data = data;
    c->method = nimbus_method_recipe_of(c->options.method);
    return check_plans(c, error);
}

nimbus_status nimbus_convert_sensitivity(const nimbus_net *teacher, const nimbus_data *data,
                                         const nimbus_convert_options *options,
                                         nimbus_convert_report *report, nimbus_error *error)
{
    conversion *c = NULL;
    *report = (nimbus_convert_report){0};
    nimbus_status status = begin(teacher, data, options, &c, error);
    if (status == NIMBUS_OK && c->options.method != NIMBUS_METHOD_NIMBUS)
        status =
            nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "sensitivities of another method than nimbus");
    if (status == NIMBUS_OK)
        status = nimbus_conversion_choose(c, data, report, error);
    nimbus_conversion_free(c);
    return status;
}

nimbus_status nimbus_convert(const nimbus_net *teacher, const nimbus_data *data,
                             const nimbus_convert_options *options, nimbus_net **out,
                             nimbus_convert_report *report, nimbus_error *error)
{
    nimbus_convert_report unused = {0};
    conversion *c = NULL;
    nimbus_status status;

    *out = NULL;
    report = report ? report : &unused;
    *report = (nimbus_convert_report){0};
    if ((status = begin(teacher, data, options, &c, error)) ||
        (c->options.most_change > 0 && (status = nimbus_conversion_choose(c, data, report, error))))
        goto done;
    resolve_epochs(c, nimbus_data_get_info(data)->n_rows); /* now that the layers are known */
    if ((status = nimbus_conversion_insert_norms(c, error)))
        goto done;
    if (c->method->start == NIMBUS_START_RANDOM)
        forget_norms(c->net);
    if (c->options.method == NIMBUS_METHOD_NIMBUS) {
        resolve_rates(c);
        nimbus_conversion_read_before_relus(c);
    }
    if ((status = nimbus_conversion_open(c, data, error)))
        goto done;
    if (c->rounded) {
        for (size_t i = 0; i < c->net->n_layers; i++)
            if (nimbus_conversion_fits(c, i))
                list_layer(c, i, NAN, 0, report);
    } else {
        if ((status = nimbus_conversion_prepare(c, data, error)) ||
            (status = convert_layers(c, report, error)) || (status = quantise_layers(c, error)))
            goto done;
        c->rounded = true;
        if ((status = nimbus_conversion_save(c, error)))
            goto done;
    }
    report->fit_seconds = c->seconds_before + nimbus_seconds() - c->began;
    report->rows_seen = c->rows_seen;
    nimbus_conversion_release(c);
    if (!c->tuned) {
        if (c->options.epochs != SIZE_MAX && c->options.epochs > 0 &&
            (status = fine_tune(c, data, &report->tune, error)))
            goto done;
        c->tuned = true;
        if ((status = set_states(c->net, NIMBUS_STATE_SOFT, NIMBUS_STATE_LOOKUP, error)) ||
            (status = nimbus_conversion_save(c, error)))
            goto done;
    }
    report->rows_seen += (double)report->tune.epochs * (double)nimbus_data_get_info(data)->n_rows;
    report->tune_seconds = report->tune.seconds;
    report->seconds = report->fit_seconds + report->tune_seconds;
    *out = c->net;
    c->net = NULL;
done:
    nimbus_conversion_free(c);
    return status;
}
