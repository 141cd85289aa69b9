/* graph.c - what changes in the graph of a net on images before its layers get trees, and norms
 *
 * Trees read what goes into a ReLU rather than what comes out, and behind every convolution that is
 * converted, but for one that makes the scores, stands a batch norm, as in the nets that were
 * trained with one: importers find theirs folded into the weights. The norms disappear in a
 * program; so do ReLUs that nothing else reads. After 3 epochs on CIFAR-10, ResNet-8 with one tree
 * a channel has these held-out accuracies: neither 64.3 %, batch norms 67.5 %, both 73.1 %. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/internal.h"

static bool is_normalised(const nimbus_net *net, size_t i)
{
    for (size_t j = i + 1; j < net->n_layers; j++)
        for (size_t k = 0; k < net->layers[j].n_inputs; k++)
            if (net->layers[j].input[k] == i && net->layers[j].type == &nimbus_layer_batch_norm)
                return true;
    return false;
}

/* LAYER_norm, or with a number; empty if that is too long. */
static void name_norm(const nimbus_net *net, const char *layer, char *out, size_t size)
{
    int length = snprintf(out, size, "%s_norm", layer);
    for (size_t n = 2; length >= 0 && (size_t)length < size && nimbus_net_has_layer(net, out); n++)
        length = snprintf(out, size, "%s_norm%zu", layer, n);
    if (length < 0 || (size_t)length >= size)
        out[0] = 0;
}

static nimbus_status insert_norm(conversion *c, size_t i, nimbus_error *error)
{
    const size_t n = c->net->n_layers;
    char name[sizeof c->net->layers->name];
    nimbus_layer_plan *plans = nimbus_realloc(c->plans, n, n + 1, sizeof *plans);
    if (!plans)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the conversion's plan");
    c->plans = plans;
    memmove(&plans[i + 2], &plans[i + 1], (n - i - 1) * sizeof *plans);
    plans[i + 1] = (nimbus_layer_plan){0};
    name_norm(c->net, c->net->layers[i].name, name, sizeof name);
    nimbus_status status = nimbus_net_insert_norm(c->teacher, i, name, error);
    return status ? status : nimbus_net_insert_norm(c->net, i, name, error);
}

static bool is_converted_convolution(const conversion *c, size_t i)
{
    return c->net->layers[i].type == &nimbus_layer_conv2d && nimbus_conversion_fits(c, i);
}

void nimbus_conversion_read_before_relus(conversion *c)
{
    for (size_t i = 0; i < c->net->n_layers; i++)
        if (is_converted_convolution(c, i))
            nimbus_net_read_before_relu(c->net, i);
}

nimbus_status nimbus_conversion_insert_norms(conversion *c, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < c->net->n_layers && status == NIMBUS_OK; i++)
        if (is_converted_convolution(c, i) && !is_normalised(c->net, i) &&
            !nimbus_is_last_product(c->net, i))
            status = insert_norm(c, i, error);
    return status;
}

nimbus_status nimbus_conversion_renew_norm(conversion *c, size_t i, nimbus_error *error)
{
    nimbus_layer *layer = &c->net->layers[i];
    const size_t from = layer->n_inputs ? layer->input[0] : 0, n_channels = layer->shape.channels;
    if (layer->type != &nimbus_layer_batch_norm || layer->bare || !nimbus_conversion_fits(c, from))
        return NIMBUS_OK;
    real *means = nimbus_layer_param(layer, "mean")->value;
    real *variances = nimbus_layer_param(layer, "variance")->value;
    real *scales = nimbus_layer_param(layer, "scale")->value;
    real *shifts = nimbus_layer_param(layer, "shift")->value;
    double *mean = nimbus_alloc(2 * n_channels, sizeof *mean);
    if (!mean)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for its means",
                           layer->name);
    double *variance = mean + n_channels;
    nimbus_channel_moments(c->converted.out[from], c->converted.n_rows, n_channels,
                           layer->shape.height * layer->shape.width, mean, variance);
    for (size_t m = 0; m < n_channels; m++) {
        double factor = (double)scales[m] / sqrt((double)variances[m] + layer->number);
        shifts[m] += (real)(factor * (mean[m] - (double)means[m]));
        scales[m] = (real)(factor * sqrt(variance[m] + layer->number));
        means[m] = (real)mean[m];
        variances[m] = (real)variance[m];
    }
    nimbus_free(mean);
    return NIMBUS_OK;
}
