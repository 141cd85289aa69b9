/* settings.c - the options of a training: defaults, limits, fit to net and data, fingerprint */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "net/fingerprint.h"
#include "net/lookup.h"
#include "net/netfile.h"
#include "net/training.h"
#include "train/train.h"

size_t nimbus_settings_steps(size_t n_rows, size_t batch)
{
    size_t steps = n_rows / batch, rest = n_rows % batch;
    return steps + (rest >= 2 || steps == 0);
}

static nimbus_status fill_defaults(nimbus_train_options *o, nimbus_error *error)
{
    nimbus_status status = nimbus_train_check_numbers(o, error);
    if (status)
        return status;
    for (size_t i = 0; i < NIMBUS_TRAIN_NUMBERS; i++) {
        double *value = nimbus_train_number_of(o, i);
        if (*value == 0)
            *value = nimbus_train_numbers[i].value_for_0;
    }
    if ((int)o->optimiser < 0 || o->optimiser > NIMBUS_SGD || (int)o->schedule < 0 ||
        o->schedule > NIMBUS_CONSTANT)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "unknown optimiser %d or schedule %d in the training options",
                           (int)o->optimiser, (int)o->schedule);
    if (o->epochs == 0)
        o->epochs = 12;
    if (o->batch == 0)
        o->batch = 256;
    if (o->rate == 0)
        o->rate = o->optimiser == NIMBUS_SGD ? 0.05 : 2e-3;
    if (o->table_rate == 0)
        o->table_rate = o->rate;
    if (o->tau_end == 0)
        o->tau_end = o->tau;
    o->flip = o->flip != 0;
    return NIMBUS_OK;
}

static nimbus_status check_augmentation(const nimbus_train_options *o, const nimbus_data_info *info,
                                        nimbus_error *error)
{
    bool moves = o->shift > 0 || o->flip;
    if (moves && o->first_layer > 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "shift and flip move pixels, but the rows are outputs of layer %zu",
                           o->first_layer - 1);
    if (moves && (info->height < 2 || info->width < 2))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "shift and flip need images, but the rows are vectors of %zu values",
                           info->n_features);
    if (o->shift > 0 && (o->shift >= info->height || o->shift >= info->width))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "shift by up to %u pixels would empty images of %zu x %zu", o->shift,
                           info->width, info->height);
    return NIMBUS_OK;
}

static nimbus_status check_teacher(nimbus_train_options *o, const nimbus_net *net,
                                   nimbus_error *error)
{
    if (o->hint > 0 && !o->teacher)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "hint is %g, but there is no teacher",
                           o->hint);
    if (!o->teacher && !o->teacher_outputs) {
        if (o->distill > 0)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "distill is %g, but there is no teacher and no teacher_outputs",
                               o->distill);
        return NIMBUS_OK;
    }
    if (o->distill == 0)
        o->distill = 0.5;
    if (o->teacher && o->teacher_outputs)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "both teacher and teacher_outputs are given, expected one");
    if (o->teacher_outputs) {
        if (o->shift > 0 || o->flip || o->noise > 0 || o->mixup > 0)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "teacher_outputs belong to rows as they are: not with shift, flip, "
                               "noise or mixup");
        return NIMBUS_OK;
    }
    if (o->first_layer > 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "a teacher needs the net's inputs, but first_layer is %zu: give "
                           "teacher_outputs",
                           o->first_layer);
    nimbus_net_info student, teacher;
    nimbus_net_get_info(net, &student);
    nimbus_net_get_info(o->teacher, &teacher);
    if (student.n_inputs != teacher.n_inputs || student.n_outputs != teacher.n_outputs)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the teacher maps %zu inputs to %zu outputs, the net %zu to %zu",
                           teacher.n_inputs, teacher.n_outputs, student.n_inputs,
                           student.n_outputs);
    return NIMBUS_OK;
}

/* What is below 0 becomes none. */
static void close_numbers(nimbus_train_options *o)
{
    for (size_t i = 0; i < NIMBUS_TRAIN_NUMBERS; i++) {
        double *value = nimbus_train_number_of(o, i);
        if (*value < 0)
            *value = 0;
    }
}

nimbus_status nimbus_settings_fit(const nimbus_net *net, size_t first_layer,
                                  const nimbus_data *data, bool labels_needed, const char *what,
                                  nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    if (net->n_layers < 2 || first_layer >= net->n_layers)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "first_layer is %zu in a net of %zu layers; at least an input and one "
                           "more layer are needed",
                           first_layer, net->n_layers);
    size_t width = nimbus_shape_width(net->layers[first_layer > 0 ? first_layer - 1 : 0].shape);
    size_t n_outputs = nimbus_shape_width(net->layers[net->n_layers - 1].shape);
    if (info->n_rows == 0 || info->n_rows > UINT32_MAX)
        return nimbus_fail(error, info->n_rows == 0 ? NIMBUS_ERR_MISMATCH : NIMBUS_ERR_LIMIT,
                           "%s: %zu rows, expected 1 to %" PRIu32, what, info->n_rows, UINT32_MAX);
    if (info->n_features != width)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "%s: %zu features a row, but layer %s takes %zu", what, info->n_features,
                           net->layers[first_layer].name, width);
    nimbus_status status = first_layer == 0 ? nimbus_dtype_fits(net, data, error) : NIMBUS_OK;
    if (status)
        return status;
    bool labels = nimbus_data_labels(data) != NULL, targets = nimbus_data_targets(data) != NULL;
    if (net->loss == NIMBUS_LOSS_CROSS_ENTROPY) {
        if ((labels_needed && !labels) || (labels && info->n_classes != n_outputs))
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "%s: labels of %zu classes, but the net has %zu class outputs", what,
                               labels ? info->n_classes : 0, n_outputs);
    } else if ((labels_needed && !targets) || (targets && info->n_targets != n_outputs)) {
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "%s: %zu target values a row, but the net has %zu outputs", what,
                           targets ? info->n_targets : 0, n_outputs);
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_settings_resolve(const nimbus_train_options *options, const nimbus_net *net,
                                      const nimbus_data *data, nimbus_train_options *out,
                                      nimbus_error *error)
{
    nimbus_train_options o = NIMBUS_TRAIN_OPTIONS_INIT;
    if (options && (options->size == 0 || options->size > sizeof o))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "training options of %zu bytes, expected at most %zu: set them up with "
                           "NIMBUS_TRAIN_OPTIONS_INIT",
                           options->size, sizeof o);
    if (options)
        memcpy(&o, options, options->size);
    o.size = sizeof o;
    nimbus_status status = fill_defaults(&o, error);
    if (status == NIMBUS_OK)
        status = check_teacher(&o, net, error);
    close_numbers(&o);
    if (status == NIMBUS_OK)
        status = nimbus_settings_fit(net, o.first_layer, data, o.distill < 1, "data", error);
    if (status == NIMBUS_OK && o.valid)
        status = nimbus_settings_fit(net, o.first_layer, o.valid, true, "validation data", error);
    if (status == NIMBUS_OK)
        status = check_augmentation(&o, nimbus_data_get_info(data), error);
    if (status != NIMBUS_OK)
        return status;
    size_t n_rows = nimbus_data_get_info(data)->n_rows, total;
    if (o.batch > n_rows)
        o.batch = n_rows;
    if (nimbus_mul_overflows(o.epochs, nimbus_settings_steps(n_rows, o.batch), &total) ||
        total > (uint64_t)1 << 40)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu epochs of %zu rows are too many steps",
                           o.epochs, n_rows);
    *out = o;
    return NIMBUS_OK;
}

/* ---- values -------------------------------------------------------------------------------- */

nimbus_status nimbus_settings_check_array(const float *values, size_t n_rows, size_t width,
                                          const char *what, nimbus_error *error)
{
    for (size_t i = 0; values && i < n_rows * width; i++)
        if (!isfinite(values[i]))
            return nimbus_fail(error, NIMBUS_ERR_VALUE, "%s: row %zu, column %zu is %s", what,
                               i / width + 1, i % width + 1, isnan(values[i]) ? "NaN" : "infinite");
    return NIMBUS_OK;
}

nimbus_status nimbus_settings_check_values(const nimbus_data *data, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    nimbus_status status = NIMBUS_OK;
    if (info->dtype == NIMBUS_F32)
        status = nimbus_settings_check_array(nimbus_data_features(data), info->n_rows,
                                             info->n_features, "data features", error);
    if (status == NIMBUS_OK)
        status = nimbus_settings_check_array(nimbus_data_targets(data), info->n_rows,
                                             info->n_targets, "data targets", error);
    return status;
}

/* ---- fingerprint --------------------------------------------------------------------------- */

static void describe_layers(const nimbus_net *net, nimbus_buffer *text)
{
    nimbus_fingerprint_line(text, "layers %zu", net->n_layers);
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        nimbus_fingerprint_line(text, "layer:%s %s %zu %s %.17g", layer->name, layer->type->name,
                                nimbus_shape_width(layer->shape),
                                nimbus_layer_state_name(layer->state), layer->number);
        if (layer->lookup)
            nimbus_fingerprint_line(
                text, "trees:%s %zu levels %zu kind %s estimator %s bits %u", layer->name,
                layer->lookup->n_codebooks, layer->lookup->n_levels,
                nimbus_netfile_tree_names[layer->lookup->kind],
                nimbus_netfile_estimator_names[layer->lookup->estimator], layer->lookup->bits);
    }
}

nimbus_status nimbus_settings_fingerprint(const nimbus_train_options *options,
                                          const nimbus_net *net, const nimbus_data *data,
                                          nimbus_buffer *text, nimbus_error *error)
{
    nimbus_fingerprint_training(text, options);
    nimbus_fingerprint_line(text, "loss %s", nimbus_netfile_loss_names[net->loss]);
    describe_layers(net, text);
    nimbus_fingerprint_data(text, data);
    nimbus_status status = nimbus_fingerprint_net(text, "teacher", options->teacher, error);
    size_t n_outputs = nimbus_shape_width(net->layers[net->n_layers - 1].shape);
    nimbus_fingerprint_values(text, "teacher-outputs", options->teacher_outputs,
                              nimbus_data_get_info(data)->n_rows * n_outputs, sizeof(float));
    if (status == NIMBUS_OK && text->failed)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to describe the training");
    return status;
}
