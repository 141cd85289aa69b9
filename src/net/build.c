/* build.c - makes a net for a data set from the words of a spec */
#include <string.h>

#include "net/lookup.h"
#include "net/spec.h"

/* Appends a layer that reads the last one. */
static nimbus_status append(nimbus_net *net, const nimbus_layer *proto, uint64_t seed,
                            nimbus_error *error)
{
    size_t last = net->n_layers - 1;
    return nimbus_net_add(net, proto, &last, net->n_layers > 0, seed, error);
}

/* The input layer, normalising as the data asks for. */
static nimbus_status add_input(nimbus_net *net, const nimbus_data *data, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    nimbus_layer proto = {.type = &nimbus_layer_input,
                          .name = "input",
                          .in_shape = {info->channels, info->height, info->width}};
    size_t d = info->n_features;
    nimbus_status status = append(net, &proto, 0, error);
    if (status != NIMBUS_OK)
        return status;
    float *mean = nimbus_alloc(2 * d, sizeof *mean);
    if (!mean)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the data's normalisation");
    nimbus_data_normalisation(data, mean, mean + d);
    nimbus_layer *input = &net->layers[0];
    for (size_t i = 0; i < d; i++) {
        nimbus_layer_param(input, "mean")->value[i] = (real)mean[i];
        nimbus_layer_param(input, "inverse_std")->value[i] = (real)mean[d + i];
    }
    nimbus_free(mean);
    net->input_dtype = info->dtype;
    net->loss = info->n_classes > 0 ? NIMBUS_LOSS_CROSS_ENTROPY : NIMBUS_LOSS_SQUARED_ERROR;
    return NIMBUS_OK;
}

/* Whether layer i ends a pair, around which a residual net has a shortcut: the second and third
 * linear layer, the fourth and fifth, ..., where their widths allow a sum. */
static bool ends_pair(const nimbus_spec *spec, size_t i)
{
    return spec->residual && i >= 2 && i % 2 == 0 && i + 1 < spec->n_layers &&
           spec->units[i] == spec->units[i - 2];
}

/* Linear layers with what stands between them. Matrix products: batch norm if asked for, the sum
 * with a shortcut, the activation, dropout. Lookup layers: batch norm without scale and shift,
 * which a compiled program folds into thresholds. */
static nimbus_status add_layers(nimbus_net *net, const nimbus_spec *spec, size_t n_outputs,
                                uint64_t seed, nimbus_error *error)
{
    size_t shortcut = 0; /* what the last pair began with */
    bool any_pair = false;
    for (size_t i = 0; i < spec->n_layers; i++)
        any_pair |= ends_pair(spec, i);
    if (spec->residual && !any_pair)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "a residual net needs three hidden layers, the first and third of one "
                           "width, as in mlp:64,64,64;residual");
    if (spec->kind != NIMBUS_SPEC_LAYERS)
        return nimbus_resnet_add(net, spec, n_outputs, seed, error);
    for (size_t i = 0; i < spec->n_layers; i++) {
        const nimbus_layer protos[] = {
            {.type = &nimbus_layer_linear, .units = spec->units[i], .bare = spec->lookup},
            {.type = &nimbus_layer_batch_norm, .bare = spec->lookup},
            {.type = &nimbus_layer_add},
            {.type = spec->activation},
            {.type = &nimbus_layer_dropout, .number = spec->dropout},
        };
        bool inner = i + 1 < spec->n_layers;
        const bool wanted[] = {true, inner && (spec->lookup || spec->batch_norm),
                               ends_pair(spec, i), inner && !spec->lookup,
                               inner && spec->dropout > 0};
        for (size_t j = 0; j < sizeof protos / sizeof protos[0]; j++) {
            const size_t inputs[] = {net->n_layers - 1, shortcut};
            nimbus_status status =
                !wanted[j]
                    ? NIMBUS_OK
                    : nimbus_net_add(net, &protos[j], inputs,
                                     protos[j].type == &nimbus_layer_add ? 2 : 1, seed, error);
            if (status != NIMBUS_OK)
                return status;
        }
        if (i % 2 == 0)
            shortcut = net->n_layers - 1;
    }
    return NIMBUS_OK;
}

/* {"schema": ..., "spec": "..."}: what the columns were, so that later data can be checked. */
static nimbus_status add_metadata(nimbus_net *net, const nimbus_data *data, const char *spec,
                                  nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    json_t *schema = json_loads(nimbus_data_schema(data), 0, NULL);
    json_t *root = schema ? json_pack("{s:o, s:s}", "schema", schema, "spec", spec) : NULL;
    char *text = json_dumps(root, JSON_COMPACT), *copy = text ? nimbus_strdup(text) : NULL;
    if (copy) {
        nimbus_free(net->metadata);
        net->metadata = copy;
    } else {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the net's metadata");
    }
    free(text);
    json_decref(root);
    return status;
}

nimbus_status nimbus_net_build(const nimbus_net_options *options, const nimbus_data *data,
                               nimbus_net **out, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t n_outputs = info->n_classes > 0 ? info->n_classes : info->n_targets;
    nimbus_spec spec;
    nimbus_net *net = NULL;
    *out = NULL;
    if (!options || options->size != sizeof *options)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "net options of %zu bytes, expected %zu: set them up with "
                           "NIMBUS_NET_OPTIONS_INIT",
                           options ? options->size : 0, sizeof *options);
    if (!options->spec)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "no spec says what net to build");
    if (n_outputs == 0 || info->n_rows == 0)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data has %zu rows and neither classes nor targets to learn",
                           info->n_rows);
    nimbus_status status =
        nimbus_spec_parse(options->spec, info->n_features, n_outputs, &spec, error);
    if (status != NIMBUS_OK)
        return status;
    net = nimbus_net_new();
    if (!net)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a net");
    if ((status = add_input(net, data, error)) ||
        (status = add_layers(net, &spec, n_outputs, options->seed, error)) ||
        (status = add_metadata(net, data, options->spec, error)) ||
        (spec.lookup && (status = nimbus_lut_start(net, &spec, data, options->seed, error)))) {
        nimbus_net_free(net);
        return status;
    }
    *out = net;
    return NIMBUS_OK;
}
