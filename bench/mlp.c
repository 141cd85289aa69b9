/* mlp.c - reads a float net out as plain matrices, input normalisation and batch norm folded in */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

void bench_mlp_free(bench_mlp *mlp)
{
    for (size_t i = 0; i < mlp->n_layers; i++) {
        free(mlp->layers[i].w);
        free(mlp->layers[i].b);
    }
    mlp->n_layers = 0;
}

/* y = w (x - mean) * inverse_std + b of the first layer as one product. */
static nimbus_status fold_input(const nimbus_net *net, bench_layer *layer, nimbus_error *error)
{
    const float *mean, *inverse;
    size_t n_mean, n_inverse;
    nimbus_status status = nimbus_net_get_param(net, 0, "mean", &mean, &n_mean, error);
    if (!status)
        status = nimbus_net_get_param(net, 0, "inverse_std", &inverse, &n_inverse, error);
    if (status)
        return status;
    if (n_mean != layer->d || n_inverse != layer->d)
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                          "the net normalises %zu inputs but its first product reads %zu", n_mean,
                          layer->d);
    for (size_t m = 0; m < layer->m; m++) {
        float *w = layer->w + m * layer->d;
        double shift = 0;
        for (size_t d = 0; d < layer->d; d++) {
            w[d] *= inverse[d];
            shift += (double)w[d] * (double)mean[d];
        }
        layer->b[m] -= (float)shift;
    }
    return NIMBUS_OK;
}

static nimbus_status take_linear(const nimbus_net *net, size_t i, const nimbus_layer_info *info,
                                 bench_mlp *out, nimbus_error *error)
{
    const float *weight, *bias;
    size_t n_weight, n_bias;
    nimbus_status status = nimbus_net_get_param(net, i, "weight", &weight, &n_weight, error);
    if (!status)
        status = nimbus_net_get_param(net, i, "bias", &bias, &n_bias, error);
    if (status)
        return status;
    if (info->n_codebooks || n_weight != info->n_inputs * info->n_outputs)
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "layer %s is not a plain product",
                          info->name);
    if (out->n_layers && info->n_inputs != out->layers[out->n_layers - 1].m)
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                          "layer %s reads %zu columns, but the product before it has %zu",
                          info->name, info->n_inputs, out->layers[out->n_layers - 1].m);
    if (out->n_layers == BENCH_MAX_LAYERS)
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "more than %d products", BENCH_MAX_LAYERS);
    bench_layer *layer = &out->layers[out->n_layers];
    *layer = (bench_layer){.d = info->n_inputs, .m = info->n_outputs};
    layer->w = malloc(n_weight * sizeof(float));
    layer->b = malloc(n_bias * sizeof(float));
    out->n_layers++;
    if (!layer->w || !layer->b)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    memcpy(layer->w, weight, n_weight * sizeof(float));
    memcpy(layer->b, bias, n_bias * sizeof(float));
    return out->n_layers == 1 ? fold_input(net, layer, error) : NIMBUS_OK;
}

/* Batch norm right after a product; its epsilon is 1e-5 in every net that nimbus builds. */
static nimbus_status fold_norm(const nimbus_net *net, size_t i, bench_layer *layer,
                               nimbus_error *error)
{
    static const char *const names[4] = {"mean", "variance", "scale", "shift"};
    const float *p[4] = {NULL};
    for (int k = 0; k < 4; k++) {
        size_t n;
        nimbus_status status = nimbus_net_get_param(net, i, names[k], &p[k], &n, error);
        if (status && k < 2)
            return status;
        if (status) /* a bare one has no scale and shift */
            p[k] = NULL;
        else if (n != layer->m)
            return bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "batch norm of %zu columns after %zu",
                              n, layer->m);
    }
    for (size_t m = 0; m < layer->m; m++) {
        double gain = (p[2] ? (double)p[2][m] : 1) / sqrt((double)p[1][m] + 1e-5);
        for (size_t d = 0; d < layer->d; d++)
            layer->w[m * layer->d + d] *= (float)gain;
        layer->b[m] =
            (float)(((double)layer->b[m] - (double)p[0][m]) * gain + (p[3] ? (double)p[3][m] : 0));
    }
    return NIMBUS_OK;
}

nimbus_status bench_mlp_from_net(const nimbus_net *net, bench_mlp *out, nimbus_error *error)
{
    nimbus_net_info info;
    nimbus_status status = NIMBUS_OK;
    *out = (bench_mlp){0};
    nimbus_net_get_info(net, &info);
    out->input_dtype = info.input_dtype;
    for (size_t i = 0; i < info.n_layers && !status; i++) {
        nimbus_layer_info layer;
        if ((status = nimbus_net_get_layer(net, i, &layer, error)))
            break;
        bench_layer *last = out->n_layers ? &out->layers[out->n_layers - 1] : NULL;
        if (strcmp(layer.type, "linear") == 0)
            status = take_linear(net, i, &layer, out, error);
        else if (strcmp(layer.type, "batch_norm") == 0 && last && !last->relu)
            status = fold_norm(net, i, last, error);
        else if (strcmp(layer.type, "relu") == 0 && last)
            last->relu = 1;
        else if (strcmp(layer.type, "dropout") != 0 && strcmp(layer.type, "input") != 0)
            status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                                "layer %s is of type %s; the peers know linear, batch norm and "
                                "ReLU",
                                layer.name, layer.type);
    }
    if (!status && (out->n_layers == 0 || out->layers[out->n_layers - 1].m != info.n_outputs))
        status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "the net is not a chain of products");
    if (status)
        bench_mlp_free(out);
    return status;
}
