/* onnx_write.c - the float net and its int8 form as ONNX files, for ONNX Runtime
 *
 * The float form is made of Gemm, Conv, Relu, Clip, Add and pools. The int8 form is made of the
 * operators that ONNX Runtime itself turns quantised ones into, QGemm, QLinearConv, QLinearAdd,
 * ...: u8 values, s8 weights with a scale per output, i32 bias; ReLU is the lower bound of u8. Raw
 * f32 rows go through Sub, Mul and QuantizeLinear first. The zero of images with padding is their
 * mean: where channels have different ones, an addition makes them the same first. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx.h"

#define MOST_INPUTS 10

/* A file being written. */
typedef struct writing {
    const bench_net *net;
    const bench_int8 *int8; /* NULL: f32 */
    message graph;
    int failed;
} writing;

/* Name of what a layer has or makes: of value v, or of layer i. */
typedef struct label {
    char text[ONNX_NAME];
} label;

static label label_of(const char *text)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s", text);
    return l;
}

static label name_of(const char *what, size_t i)
{
    label l;
    snprintf(l.text, sizeof l.text, "%s%zu", what, i);
    return l;
}

static label value_name(const writing *w, size_t v)
{
    if (v == w->net->n_layers)
        return label_of("y");
    if (v == 0)
        return label_of(w->int8 && (w->int8->gain || w->int8->pad) ? "u" : "x");
    return name_of("value", v);
}

static int is_image(const bench_net *net, size_t v)
{
    return v ? !net->layers[v - 1].linear : !bench_rows_are_flat(net);
}

static void rows_value(const writing *w, message *graph, int type)
{
    const bench_image in = w->net->in;
    const size_t width = bench_width(in), dims[3] = {in.channels, in.height, in.width};
    bench_onnx_value(graph, 11, "x", type, is_image(w->net, 0) ? dims : &width,
                     is_image(w->net, 0) ? 3 : 1);
}

static nimbus_status finish(writing *w, int rows_type, FILE *out, nimbus_error *error)
{
    const size_t m = w->net->layers[w->net->n_layers - 1].m;
    w->graph.failed |= w->failed;
    rows_value(w, &w->graph, rows_type);
    bench_onnx_value(&w->graph, 12, "y", ONNX_FLOAT, &m, 1);
    return bench_onnx_write(&w->graph, out, error);
}

/* ---- what both forms share ------------------------------------------------------------------- */

/* The attributes of a window. */
static message window(const bench_layer *layer, int strides_alone)
{
    const size_t pads[4] = {layer->before[0], layer->before[1], layer->after[0], layer->after[1]};
    message attributes = {0};
    bench_onnx_ints(&attributes, "kernel_shape", layer->kernel, 2);
    bench_onnx_ints(&attributes, "strides", layer->stride, 2);
    bench_onnx_ints(&attributes, "pads", pads, 4);
    if (strides_alone)
        return attributes;
    bench_onnx_ints(&attributes, "dilations", layer->dilation, 2);
    bench_onnx_int(&attributes, "group", layer->groups);
    return attributes;
}

/* What a linear layer reads, as a vector. */
static label flat_input(writing *w, size_t i)
{
    const size_t v = w->net->layers[i].sources[0];
    label x = value_name(w, v);
    if (!is_image(w->net, v))
        return x;
    label flat = name_of("flat", i);
    bench_onnx_node(&w->graph, "Flatten", "", (const char *const[]){x.text, NULL}, flat.text, NULL);
    return flat;
}

/* [M][channels / groups][kernel] of a convolution. */
static void add_kernels(writing *w, const bench_layer *layer, const char *name, int type,
                        const void *bytes, size_t element)
{
    const size_t dims[4] = {layer->m, layer->in.channels / layer->groups, layer->kernel[0],
                            layer->kernel[1]};
    bench_onnx_tensor(&w->graph, name, type, dims, 4, bytes, layer->m * layer->d * element);
}

static int is_global(const bench_layer *layer)
{
    return layer->kernel[0] == layer->in.height && layer->kernel[1] == layer->in.width &&
           bench_width(layer->out) == layer->out.channels && layer->before[0] == 0 &&
           layer->before[1] == 0;
}

/* ---- f32 ------------------------------------------------------------------------------------- */

static void add_f32_product(writing *w, size_t i, const char *y)
{
    const bench_layer *layer = &w->net->layers[i];
    label weight = name_of("w", i), bias = name_of("b", i);
    label x = layer->linear ? flat_input(w, i) : value_name(w, layer->sources[0]);
    const char *const inputs[] = {x.text, weight.text, bias.text, NULL};
    const size_t dims[2] = {layer->m, layer->d}, n_bytes = layer->m * layer->d * sizeof(float);
    message attributes = {0};
    bench_onnx_vector(&w->graph, bias.text, ONNX_FLOAT, layer->b, layer->m, sizeof(float));
    if (layer->linear) {
        bench_onnx_tensor(&w->graph, weight.text, ONNX_FLOAT, dims, 2, layer->w, n_bytes);
        bench_onnx_int(&attributes, "transB", 1);
        bench_onnx_node(&w->graph, "Gemm", "", inputs, y, &attributes);
        return;
    }
    add_kernels(w, layer, weight.text, ONNX_FLOAT, layer->w, sizeof(float));
    attributes = window(layer, 0);
    bench_onnx_node(&w->graph, "Conv", "", inputs, y, &attributes);
}

static void add_f32_pool(writing *w, size_t i, const char *y)
{
    const bench_layer *layer = &w->net->layers[i];
    label x = value_name(w, layer->sources[0]);
    const char *const inputs[] = {x.text, NULL};
    const int max = layer->kind == BENCH_MAX_POOL;
    if (is_global(layer)) {
        bench_onnx_node(&w->graph, max ? "GlobalMaxPool" : "GlobalAveragePool", "", inputs, y,
                        NULL);
        return;
    }
    message attributes = window(layer, 1);
    if (!max)
        bench_onnx_int(&attributes, "count_include_pad", (uint64_t)layer->count_padding);
    bench_onnx_node(&w->graph, max ? "MaxPool" : "AveragePool", "", inputs, y, &attributes);
}

static void add_f32_activation(writing *w, size_t i, const char *x, const char *y)
{
    const float zero = 0, high = w->net->layers[i].high;
    if (!(high < INFINITY)) {
        bench_onnx_node(&w->graph, "Relu", "", (const char *const[]){x, NULL}, y, NULL);
        return;
    }
    label low = name_of("low", i), top = name_of("high", i);
    bench_onnx_scalar(&w->graph, low.text, ONNX_FLOAT, &zero, sizeof zero);
    bench_onnx_scalar(&w->graph, top.text, ONNX_FLOAT, &high, sizeof high);
    bench_onnx_node(&w->graph, "Clip", "", (const char *const[]){x, low.text, top.text, NULL}, y,
                    NULL);
}

nimbus_status bench_onnx_write_f32(const bench_net *net, FILE *out, nimbus_error *error)
{
    writing w = {.net = net};
    for (size_t i = 0; i < net->n_layers; i++) {
        const bench_layer *layer = &net->layers[i];
        label y = value_name(&w, i + 1), before = layer->relu ? name_of("before", i) : y;
        label a = value_name(&w, layer->sources[0]), b = value_name(&w, layer->sources[1]);
        if (layer->kind == BENCH_PRODUCT)
            add_f32_product(&w, i, before.text);
        else if (layer->kind == BENCH_ADD)
            bench_onnx_node(&w.graph, "Add", "", (const char *const[]){a.text, b.text, NULL},
                            before.text, NULL);
        else
            add_f32_pool(&w, i, before.text);
        if (layer->relu)
            add_f32_activation(&w, i, before.text, y.text);
    }
    return finish(&w, ONNX_FLOAT, out, error);
}

/* ---- int8 ------------------------------------------------------------------------------------ */

/* Whether rows are u8 whose zero, if they have one, is a mean. */
static int has_mean(const bench_int8 *q)
{
    return q->pad && !q->gain;
}

static uint8_t zero_of(const bench_int8 *q, size_t v)
{
    size_t sum = 0, channels = q->net->in.channels;
    if (v || !has_mean(q))
        return (uint8_t)q->zero[v];
    for (size_t c = 0; c < channels; c++)
        sum += q->pad[c];
    return (uint8_t)((sum + channels / 2) / channels);
}

/* Scale and zero of a value that is not the last. */
static void add_steps(writing *w, size_t v)
{
    const uint8_t zero = zero_of(w->int8, v);
    bench_onnx_scalar(&w->graph, name_of("scale", v).text, ONNX_FLOAT, &w->int8->scale[v],
                      sizeof(float));
    bench_onnx_scalar(&w->graph, name_of("zero", v).text, ONNX_UINT8, &zero, 1);
}

/* x, f32 -> u8 around 128. */
static void quantise_rows(writing *w)
{
    const bench_int8 *q = w->int8;
    const bench_image in = w->net->in;
    const size_t dims[3] = {in.channels, in.height, in.width}, width = bench_width(in),
                 *shape = is_image(w->net, 0) ? dims : &width, n = is_image(w->net, 0) ? 3 : 1;
    bench_onnx_tensor(&w->graph, "middle", ONNX_FLOAT, shape, n, q->middle, width * sizeof(float));
    bench_onnx_tensor(&w->graph, "gain", ONNX_FLOAT, shape, n, q->gain, width * sizeof(float));
    bench_onnx_node(&w->graph, "Sub", "", (const char *const[]){"x", "middle", NULL}, "centred",
                    NULL);
    bench_onnx_node(&w->graph, "Mul", "", (const char *const[]){"centred", "gain", NULL}, "scaled",
                    NULL);
    bench_onnx_node(&w->graph, "QuantizeLinear", "",
                    (const char *const[]){"scaled", "scale0", "zero0", NULL}, "u", NULL);
}

/* Adds to every channel what its mean lacks to the zero of all. */
static void level_means(writing *w)
{
    const size_t channels = w->net->in.channels, dims[3] = {channels, 1, 1};
    const uint8_t most = 255;
    uint8_t *less = malloc(channels);
    w->failed |= !less;
    for (size_t c = 0; c < channels && less; c++)
        less[c] = (uint8_t)(255 - w->int8->pad[c]);
    bench_onnx_tensor(&w->graph, "less", ONNX_UINT8, dims, 3, less, less ? channels : 0);
    bench_onnx_scalar(&w->graph, "most", ONNX_UINT8, &most, 1);
    const uint8_t none = 0;
    bench_onnx_scalar(&w->graph, "none", ONNX_UINT8, &none, 1);
    bench_onnx_node(&w->graph, "QLinearAdd", "com.microsoft",
                    (const char *const[]){"x", "scale0", "none", "less", "scale0", "most", "scale0",
                                          "zero0", NULL},
                    "u", NULL);
    free(less);
}

/* Biases of product i, whose input counts from its zero. */
static void add_bias(writing *w, size_t i, const char *name)
{
    const bench_layer *layer = &w->net->layers[i];
    const bench_int8_layer *q = &w->int8->layers[i];
    const size_t taps = layer->kernel[0] * layer->kernel[1], per_group = layer->m / layer->groups;
    int32_t *bias = malloc(layer->m * sizeof *bias);
    w->failed |= !bias;
    for (size_t m = 0; m < layer->m && bias; m++) {
        float b = q->bias[m];
        for (size_t t = 0; t < layer->d && layer->sources[0] == 0 && has_mean(w->int8); t++)
            b +=
                (float)(q->w[m * layer->d + t] *
                        w->int8
                            ->pad[m / per_group * (layer->in.channels / layer->groups) + t / taps]);
        bias[m] = (int32_t)lrintf(fminf(fmaxf(b, -2e9f), 2e9f));
    }
    bench_onnx_vector(&w->graph, name, ONNX_INT32, bias, bias ? layer->m : 0, sizeof *bias);
    free(bias);
}

/* A QGemm reads its weights transposed. */
static void add_int8_weights(writing *w, size_t i, const char *name)
{
    const bench_layer *layer = &w->net->layers[i];
    const int8_t *from = w->int8->layers[i].w;
    const size_t d = layer->d, m = layer->m, dims[2] = {d, m};
    if (!layer->linear) {
        add_kernels(w, layer, name, ONNX_INT8, from, 1);
        return;
    }
    int8_t *turned = malloc(d * m); /* [D][M] */
    w->failed |= !turned;
    for (size_t r = 0; r < m && turned; r++)
        for (size_t c = 0; c < d; c++)
            turned[c * m + r] = from[r * d + c];
    bench_onnx_tensor(&w->graph, name, ONNX_INT8, dims, 2, turned, turned ? d * m : 0);
    free(turned);
}

static void add_int8_product(writing *w, size_t i, const char *y)
{
    const bench_layer *layer = &w->net->layers[i];
    const size_t v = layer->sources[0], m = layer->m;
    const int last = i + 1 == w->net->n_layers;
    label x = layer->linear ? flat_input(w, i) : value_name(w, v);
    label weight = name_of("w", i), w_scale = name_of("w_scale", i), w_zero = name_of("w_zero", i),
          bias = name_of("bias", i), scale = name_of("scale", v), zero = name_of("zero", v),
          y_scale = name_of("scale", i + 1), y_zero = name_of("zero", i + 1);
    int8_t *zeros = calloc(m, 1);
    w->failed |= !zeros;
    bench_onnx_vector(&w->graph, w_scale.text, ONNX_FLOAT, w->int8->layers[i].w_scale, m,
                      sizeof(float));
    bench_onnx_vector(&w->graph, w_zero.text, ONNX_INT8, zeros, zeros ? m : 0, 1);
    add_int8_weights(w, i, weight.text);
    add_bias(w, i, bias.text);
    free(zeros);
    if (layer->linear) { /* without the last two its outputs are floats */
        const char *const inputs[] = {
            x.text,       scale.text,  zero.text, weight.text,
            w_scale.text, w_zero.text, bias.text, last ? NULL : y_scale.text,
            y_zero.text,  NULL};
        bench_onnx_node(&w->graph, "QGemm", "com.microsoft", inputs, y, NULL);
        return;
    }
    message attributes = window(layer, 0);
    const char *const inputs[] = {x.text,      scale.text,   zero.text,   weight.text, w_scale.text,
                                  w_zero.text, y_scale.text, y_zero.text, bias.text,   NULL};
    bench_onnx_node(&w->graph, "QLinearConv", "", inputs, y, &attributes);
}

static void add_int8_sum(writing *w, size_t i, const char *y)
{
    label text[9];
    const char *inputs[MOST_INPUTS] = {NULL};
    const size_t *sources = w->net->layers[i].sources;
    for (size_t k = 0; k < 2; k++) {
        text[3 * k] = value_name(w, sources[k]);
        text[3 * k + 1] = name_of("scale", sources[k]);
        text[3 * k + 2] = name_of("zero", sources[k]);
    }
    text[6] = name_of("scale", i + 1);
    text[7] = name_of("zero", i + 1);
    for (size_t k = 0; k < 8; k++)
        inputs[k] = text[k].text;
    bench_onnx_node(&w->graph, "QLinearAdd", "com.microsoft", inputs, y, NULL);
}

static void add_int8_pool(writing *w, size_t i, const char *y)
{
    const bench_layer *layer = &w->net->layers[i];
    const size_t v = layer->sources[0];
    label x = value_name(w, v), scale = name_of("scale", v), zero = name_of("zero", v);
    if (layer->kind == BENCH_MAX_POOL) {
        message attributes = window(layer, 1);
        bench_onnx_node(&w->graph, "MaxPool", "", (const char *const[]){x.text, NULL}, y,
                        &attributes);
        return;
    }
    const char *const inputs[] = {x.text, scale.text, zero.text, scale.text, zero.text, NULL};
    message attributes = {0};
    if (!is_global(layer)) {
        attributes = window(layer, 1);
        bench_onnx_int(&attributes, "count_include_pad", (uint64_t)layer->count_padding);
    }
    bench_onnx_node(&w->graph, is_global(layer) ? "QLinearGlobalAveragePool" : "QLinearAveragePool",
                    "com.microsoft", inputs, y, &attributes);
}

nimbus_status bench_onnx_write_int8(const bench_int8 *int8, FILE *out, nimbus_error *error)
{
    writing w = {.net = int8->net, .int8 = int8};
    const size_t last = int8->net->n_layers - 1;
    for (size_t v = 0; v <= last; v++)
        add_steps(&w, v);
    if (int8->gain)
        quantise_rows(&w);
    else if (int8->pad)
        level_means(&w);
    for (size_t i = 0; i <= last; i++) {
        const bench_layer *layer = &int8->net->layers[i];
        label y = i == last && layer->relu ? name_of("before", i) : value_name(&w, i + 1);
        if (layer->kind == BENCH_PRODUCT)
            add_int8_product(&w, i, y.text);
        else if (layer->kind == BENCH_ADD)
            add_int8_sum(&w, i, y.text);
        else
            add_int8_pool(&w, i, y.text);
        if (i == last && layer->relu)
            add_f32_activation(&w, i, y.text, "y");
    }
    return finish(&w, int8->gain ? ONNX_FLOAT : ONNX_UINT8, out, error);
}

nimbus_status bench_onnx_write_empty(const bench_net *net, FILE *out, nimbus_error *error)
{
    const writing w = {.net = net};
    message graph = {0};
    bench_onnx_node(&graph, "Shape", "", (const char *const[]){"x", NULL}, "y", NULL);
    rows_value(&w, &graph, net->input_dtype == NIMBUS_U8 ? ONNX_UINT8 : ONNX_FLOAT);
    bench_onnx_value(&graph, 12, "y", ONNX_INT64, NULL, 0);
    return bench_onnx_write(&graph, out, error);
}
