/* info.c - what a caller may read off a net */
#include <string.h>

#include "net/internal.h"
#include "net/lookup.h"

static size_t count_params(const nimbus_layer *layer)
{
    size_t n = 0;
    for (size_t i = 0; i < layer->n_params; i++)
        n += layer->params[i].statistic ? 0 : layer->params[i].n;
    return n;
}

void nimbus_net_get_info(const nimbus_net *net, nimbus_net_info *out)
{
    *out = (nimbus_net_info){.n_layers = net->n_layers,
                             .input_dtype = net->input_dtype,
                             .loss = net->loss,
                             .metadata = net->metadata};
    for (size_t i = 0; i < net->n_layers; i++)
        out->n_params += count_params(&net->layers[i]);
    if (net->n_layers > 0) {
        out->n_inputs = nimbus_shape_width(net->layers[0].shape);
        out->n_outputs = nimbus_shape_width(net->layers[net->n_layers - 1].shape);
    }
}

static nimbus_status check_layer_index(const nimbus_net *net, size_t i, nimbus_error *error)
{
    if (i < net->n_layers)
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "layer %zu asked for, the net has %zu layers", i,
                       net->n_layers);
}

nimbus_status nimbus_net_get_layer(const nimbus_net *net, size_t i, nimbus_layer_info *out,
                                   nimbus_error *error)
{
    *out = (nimbus_layer_info){0};
    nimbus_status status = check_layer_index(net, i, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_layer *layer = &net->layers[i];
    *out = (nimbus_layer_info){.name = layer->name,
                               .type = layer->type->name,
                               .state = layer->state,
                               .n_inputs = nimbus_shape_width(layer->in_shape),
                               .n_outputs = nimbus_shape_width(layer->shape),
                               .n_params = count_params(layer),
                               .n_sources = layer->n_inputs,
                               .sources = layer->input,
                               .channels = layer->shape.channels,
                               .height = layer->shape.height,
                               .width = layer->shape.width,
                               .groups = layer->groups,
                               .count_padding = layer->count_padding,
                               .number = {layer->number, layer->number2}};
    for (size_t k = 0; k < 2; k++) {
        out->kernel[k] = layer->slide.kernel[k];
        out->stride[k] = layer->slide.stride[k];
        out->dilation[k] = layer->slide.dilation[k];
        out->pad_before[k] = layer->slide.before[k];
        out->pad_after[k] = layer->slide.after[k];
    }
    if (!layer->lookup)
        return NIMBUS_OK;
    out->n_codebooks = layer->lookup->n_codebooks;
    out->n_levels = layer->lookup->n_levels;
    out->tree = layer->lookup->kind;
    out->bits = layer->lookup->bits;
    const nimbus_param *columns = nimbus_layer_param(layer, "columns");
    bool *live = nimbus_alloc(out->n_inputs, sizeof *live);
    if (!live)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory to count its columns",
                           layer->name);
    for (size_t k = 0; k < columns->n; k++) {
        if (columns->value[k] < 0) /* none, of centroids */
            continue;
        size_t column = (size_t)columns->value[k];
        out->live_columns += !live[column];
        live[column] = true;
    }
    nimbus_free(live);
    return NIMBUS_OK;
}

nimbus_status nimbus_net_get_param(const nimbus_net *net, size_t i, const char *name,
                                   const float **values, size_t *n, nimbus_error *error)
{
    *values = NULL;
    *n = 0;
    nimbus_status status = check_layer_index(net, i, error);
    if (status != NIMBUS_OK)
        return status;
    const nimbus_param *param = nimbus_layer_param(&net->layers[i], name);
    if (!param)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "layer %s has no parameter '%s'",
                           net->layers[i].name, name);
    *values = (const float *)(const void *)param->value; /* real is float outside gradient tests */
    *n = param->n;
    return NIMBUS_OK;
}
