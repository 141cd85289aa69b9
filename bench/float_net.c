/* float_net.c - reads a float net out as the few kinds of layers that the peers know */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

/* A net being read. */
typedef struct reading {
    const nimbus_net *net;
    nimbus_net_info info;
    bench_net *out;
    size_t *value;                    /* [layers of net]: the value that it makes */
    size_t *n_readers;                /* [layers of net] */
    int shared[BENCH_MAX_LAYERS + 1]; /* by value: more than one layer reads it, or its like */
    nimbus_error *error;
} reading;

void bench_net_free(bench_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        free(net->layers[i].w);
        free(net->layers[i].b);
    }
    free(net->mean);
    free(net->inverse_std);
    *net = (bench_net){0};
}

static float *copy_floats(const float *from, size_t n)
{
    float *to = malloc(n * sizeof *to);
    if (to)
        memcpy(to, from, n * sizeof *to);
    return to;
}

/* A copy of a parameter of n values. */
static nimbus_status take_param(const reading *r, size_t i, const char *name, size_t n, float **out)
{
    const float *values;
    size_t has;
    nimbus_status status = nimbus_net_get_param(r->net, i, name, &values, &has, r->error);
    if (status)
        return status;
    if (has != n)
        return bench_fail(r->error, NIMBUS_ERR_UNSUPPORTED, "a %s of %zu values, not %zu", name,
                          has, n);
    *out = copy_floats(values, n);
    return *out ? NIMBUS_OK : bench_fail(r->error, NIMBUS_ERR_MEMORY, "out of memory");
}

static bench_image image_of(const nimbus_layer_info *info)
{
    return (bench_image){info->channels, info->height, info->width};
}

static bench_image value_image(const reading *r, size_t v)
{
    return v ? r->out->layers[v - 1].out : r->out->in;
}

/* The layer that makes what layer i reads, if what i does can be folded into it; else NULL. */
static bench_layer *foldable(const reading *r, const nimbus_layer_info *info)
{
    size_t v = r->value[info->sources[0]];
    return v && !r->shared[v] ? &r->out->layers[v - 1] : NULL;
}

/* Room for a layer that makes the next value. */
static nimbus_status add_layer(reading *r, size_t i, const nimbus_layer_info *info, bench_kind kind,
                               bench_layer **out)
{
    bench_net *net = r->out;
    if (net->n_layers == BENCH_MAX_LAYERS)
        return bench_fail(r->error, NIMBUS_ERR_UNSUPPORTED, "more than %d layers",
                          BENCH_MAX_LAYERS);
    bench_layer *layer = *out = &net->layers[net->n_layers++];
    *layer = (bench_layer){
        .kind = kind, .n_sources = info->n_sources, .out = image_of(info), .high = INFINITY};
    snprintf(layer->name, sizeof layer->name, "%s", info->name);
    for (size_t k = 0; k < info->n_sources && k < 2; k++)
        layer->sources[k] = r->value[info->sources[k]];
    layer->in = value_image(r, layer->sources[0]);
    r->value[i] = net->n_layers;
    return NIMBUS_OK;
}

static nimbus_status refuse(const reading *r, const nimbus_layer_info *info, const char *what)
{
    return bench_fail(r->error, NIMBUS_ERR_UNSUPPORTED, "layer %s is %s", info->name, what);
}

/* The window of a convolution or pool. What it reads may be seen as a vector by then. */
static nimbus_status take_window(const reading *r, const nimbus_layer_info *info,
                                 bench_layer *layer)
{
    nimbus_layer_info source;
    nimbus_status status = nimbus_net_get_layer(r->net, info->sources[0], &source, r->error);
    if (status)
        return status;
    if (source.channels != layer->in.channels || source.height != layer->in.height)
        return refuse(r, info, "a window on an image that was flattened");
    for (int k = 0; k < 2; k++) {
        layer->kernel[k] = info->kernel[k];
        layer->stride[k] = info->stride[k];
        layer->dilation[k] = info->dilation[k];
        layer->before[k] = info->pad_before[k];
        layer->after[k] = info->pad_after[k];
    }
    layer->count_padding = info->count_padding;
    return NIMBUS_OK;
}

static nimbus_status take_product(reading *r, size_t i, const nimbus_layer_info *info)
{
    bench_layer *layer;
    nimbus_status status = NIMBUS_OK;
    if (info->n_codebooks)
        return refuse(r, info, "not a plain product");
    if ((status = add_layer(r, i, info, BENCH_PRODUCT, &layer)))
        return status;
    layer->groups = info->groups ? info->groups : 1;
    layer->m = info->channels;
    layer->linear = strcmp(info->type, "linear") == 0;
    if (!layer->linear && (status = take_window(r, info, layer)))
        return status;
    const size_t whole[2] = {layer->in.height, layer->in.width};
    size_t *k = layer->kernel, *p = layer->before, *q = layer->after;
    layer->linear |= k[0] == whole[0] && k[1] == whole[1] && !p[0] && !p[1] && !q[0] && !q[1] &&
                     layer->groups == 1;
    for (int a = 0; a < 2 && layer->linear; a++) {
        k[a] = whole[a];
        layer->stride[a] = layer->dilation[a] = 1;
    }
    layer->d = layer->in.channels / layer->groups * k[0] * k[1];
    if ((status = take_param(r, i, "weight", layer->m * layer->d, &layer->w)))
        return status;
    return take_param(r, i, "bias", layer->m, &layer->b);
}

static nimbus_status fold_norm(const reading *r, size_t i, const nimbus_layer_info *info)
{
    static const char *const names[4] = {"mean", "variance", "scale", "shift"};
    const float *p[4] = {NULL};
    bench_layer *layer = foldable(r, info);
    if (!layer || layer->kind != BENCH_PRODUCT || layer->relu)
        return refuse(r, info, "a batch norm that does not follow a product");
    for (int k = 0; k < 4; k++) {
        size_t n;
        nimbus_status status = nimbus_net_get_param(r->net, i, names[k], &p[k], &n, r->error);
        if (status && k < 2)
            return status;
        if (status) /* a bare one has no scale and shift */
            p[k] = NULL;
        else if (n != layer->m)
            return refuse(r, info, "a batch norm of other columns than the product before it");
    }
    for (size_t m = 0; m < layer->m; m++) {
        double gain = (p[2] ? (double)p[2][m] : 1) / sqrt((double)p[1][m] + info->number[0]);
        for (size_t d = 0; d < layer->d; d++)
            layer->w[m * layer->d + d] *= (float)gain;
        layer->b[m] =
            (float)(((double)layer->b[m] - (double)p[0][m]) * gain + (p[3] ? (double)p[3][m] : 0));
    }
    return NIMBUS_OK;
}

/* ReLU, or a clip from 0; after a maximum is the same as before it. */
static nimbus_status fold_relu(const reading *r, const nimbus_layer_info *info, float high)
{
    bench_layer *layer = foldable(r, info);
    while (layer && layer->kind == BENCH_MAX_POOL && layer->sources[0] &&
           !r->shared[layer->sources[0]])
        layer = &r->out->layers[layer->sources[0] - 1];
    if (!layer || (layer->kind != BENCH_PRODUCT && layer->kind != BENCH_ADD))
        return refuse(r, info, "an activation that does not follow a product or a sum");
    layer->high = layer->relu ? fminf(layer->high, high) : high;
    layer->relu = 1;
    return NIMBUS_OK;
}

static nimbus_status take_add(reading *r, size_t i, const nimbus_layer_info *info)
{
    bench_layer *layer;
    if (info->n_sources != 2)
        return refuse(r, info, "a sum of more than two");
    nimbus_status status = add_layer(r, i, info, BENCH_ADD, &layer);
    if (status)
        return status;
    bench_image a = layer->in, b = value_image(r, layer->sources[1]), c = layer->out;
    return a.channels == b.channels && a.height == b.height && a.width == b.width &&
                   a.channels == c.channels && a.height == c.height
               ? NIMBUS_OK
               : refuse(r, info, "a sum of images that were flattened");
}

static nimbus_status take_pool(reading *r, size_t i, const nimbus_layer_info *info, bench_kind kind)
{
    bench_layer *layer;
    if (info->dilation[0] != 1 || info->dilation[1] != 1)
        return refuse(r, info, "a dilated pool");
    nimbus_status status = add_layer(r, i, info, kind, &layer);
    return status ? status : take_window(r, info, layer);
}

static nimbus_status take_input(reading *r, size_t i, const nimbus_layer_info *info)
{
    bench_net *out = r->out;
    if (i != 0)
        return refuse(r, info, "a second input");
    out->in = image_of(info);
    nimbus_status status = take_param(r, i, "mean", bench_width(out->in), &out->mean);
    return status ? status
                  : take_param(r, i, "inverse_std", bench_width(out->in), &out->inverse_std);
}

static nimbus_status take_layer(reading *r, size_t i, const nimbus_layer_info *info)
{
    const char *type = info->type;
    r->value[i] = info->n_sources ? r->value[info->sources[0]] : 0;
    if (strcmp(type, "input") == 0)
        return take_input(r, i, info);
    if (strcmp(type, "linear") == 0 || strcmp(type, "conv2d") == 0)
        return take_product(r, i, info);
    if (strcmp(type, "batch_norm") == 0)
        return fold_norm(r, i, info);
    if (strcmp(type, "relu") == 0)
        return fold_relu(r, info, INFINITY);
    if (strcmp(type, "clip") == 0 && info->number[0] == 0)
        return fold_relu(r, info, (float)info->number[1]);
    if (strcmp(type, "add") == 0)
        return take_add(r, i, info);
    if (strcmp(type, "max_pool") == 0)
        return take_pool(r, i, info, BENCH_MAX_POOL);
    if (strcmp(type, "average_pool") == 0)
        return take_pool(r, i, info, BENCH_AVERAGE_POOL);
    if (strcmp(type, "dropout") == 0 || strcmp(type, "flatten") == 0)
        return NIMBUS_OK;
    return bench_fail(r->error, NIMBUS_ERR_UNSUPPORTED,
                      "layer %s is of type %s; the peers know linear layers, convolutions, batch "
                      "norm, ReLU, sums and pools",
                      info->name, type);
}

static nimbus_status count_readers(reading *r)
{
    nimbus_layer_info info;
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < r->info.n_layers && !status; i++)
        if (!(status = nimbus_net_get_layer(r->net, i, &info, r->error)))
            for (size_t k = 0; k < info.n_sources; k++)
                r->n_readers[info.sources[k]]++;
    return status;
}

nimbus_status bench_net_from(const nimbus_net *net, bench_net *out, nimbus_error *error)
{
    reading r = {.net = net, .out = out, .error = error};
    nimbus_status status;
    *out = (bench_net){0};
    nimbus_net_get_info(net, &r.info);
    out->input_dtype = r.info.input_dtype;
    r.value = calloc(r.info.n_layers, sizeof *r.value);
    r.n_readers = calloc(r.info.n_layers, sizeof *r.n_readers);
    status = r.value && r.n_readers ? count_readers(&r)
                                    : bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < r.info.n_layers && !status; i++) {
        nimbus_layer_info info;
        if ((status = nimbus_net_get_layer(net, i, &info, error)) ||
            (status = take_layer(&r, i, &info)))
            break;
        r.shared[r.value[i]] |= r.n_readers[i] > 1;
    }
    const bench_layer *last = out->n_layers ? &out->layers[out->n_layers - 1] : NULL;
    if (!status && (!last || !last->linear || r.value[r.info.n_layers - 1] != out->n_layers))
        status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                            "the net does not end with a linear layer, as the peers' must");
    free(r.value);
    free(r.n_readers);
    if (status)
        bench_net_free(out);
    return status;
}

int bench_net_is_chain(const bench_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++)
        if (!net->layers[i].linear || net->layers[i].sources[0] != i ||
            (i + 1 < net->n_layers && !net->layers[i].relu) || net->layers[i].high < INFINITY)
            return 0;
    return 1;
}
