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
    nimbus_conversion_clear_ours(&train);
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
    if (!(c->layer_epochs > 0) || !nimbus_conversion_trains(c, i))
        return NIMBUS_OK;
    if (c->method->layers == NIMBUS_LAYERS_WITH_ALL)
        return train_with_all(c, i, error);
    return train_layer(c, i, error);
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
    size_t n_fits = nimbus_conversion_count(c, nimbus_conversion_fits), done = 0;

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
            status = nimbus_conversion_renew_norm(c, i, error);
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
    nimbus_blas_alone();
    if ((status = nimbus_conversion_settle(options, teacher, data, &c->options, error)) ||
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
    if ((status = nimbus_conversion_insert_norms(c, error)))
        goto done;
    if (c->method->start == NIMBUS_START_RANDOM)
        forget_norms(c->net);
    if (c->options.method == NIMBUS_METHOD_NIMBUS)
        nimbus_conversion_read_before_relus(c);
    nimbus_conversion_settle_training(c); /* now that the layers are known */
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
