/* quantise.c - the float net in 8 bits, the way int8 libraries deploy one
 *
 * Values have one scale each, from their largest over the calibration rows: u8 from 0 after ReLU,
 * both signs around 128 elsewhere; pools keep the scale of what they read. Weights are s8 with a
 * scale per output. Raw u8 rows are taken as they are: normalisation is folded into the first
 * weights, and around images stands the mean of each channel. Raw f32 rows are quantised to u8
 * around 128, with a range per column, or per channel where a window moves over them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

void bench_int8_free(bench_int8 *net)
{
    for (size_t i = 0; i < BENCH_MAX_LAYERS; i++) {
        bench_int8_layer *layer = &net->layers[i];
        free(layer->w);
        free(layer->bias);
        free(layer->scale);
        free(layer->w_scale);
    }
    free(net->gain);
    free(net->middle);
    free(net->pad);
    *net = (bench_int8){0};
}

/* ---- the rows ------------------------------------------------------------------------------ */

/* The layer that reads them: there must be one alone, and it a product. */
static nimbus_status find_reader(const bench_net *net, const bench_layer **out, nimbus_error *error)
{
    *out = NULL;
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t k = 0; k < net->layers[i].n_sources; k++) {
            if (net->layers[i].sources[k] != 0)
                continue;
            if (*out || net->layers[i].kind != BENCH_PRODUCT)
                return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                                  "layer %s reads the rows, which one product alone may do in int8",
                                  net->layers[i].name);
            *out = &net->layers[i];
        }
    return *out ? NIMBUS_OK : bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "no layer reads the rows");
}

/* Columns n from `first` on share a range: around 0 if there are several, as padding is 0; outliers
 * beyond 8 deviations are cut. */
static void input_range(const bench_net *net, const bench_rows *rows, size_t first, size_t n,
                        bench_int8 *out)
{
    double sum = 0, squares = 0, low = 1e30, high = -1e30;
    for (size_t i = 0; i < rows->n; i++)
        for (size_t d = first; d < first + n; d++) {
            double v = (double)rows->float_rows[i * rows->d + d];
            sum += v;
            squares += v * v;
            low = fmin(low, v);
            high = fmax(high, v);
        }
    double count = (double)(rows->n ? rows->n * n : 1), mean = sum / count;
    double deviation = sqrt(fmax(0, squares / count - mean * mean));
    low = fmax(low, mean - 8 * deviation);
    high = fmin(high, mean + 8 * deviation);
    double middle = n > 1 ? 0 : (high + low) / 2;
    double half = fmax(n > 1 ? fmax(high, -low) : (high - low) / 2, 1e-6);
    for (size_t d = first; d < first + n; d++) {
        out->gain[d] = (float)(127 / half * (double)net->inverse_std[d]);
        out->middle[d] = (float)(middle / (double)net->inverse_std[d] + (double)net->mean[d]);
    }
}

/* Ranges of raw f32 rows, and what stands around raw images. */
static nimbus_status quantise_rows(const bench_net *net, const bench_layer *reader,
                                   const bench_rows *rows, bench_int8 *out, nimbus_error *error)
{
    const size_t d = bench_width(net->in), n = reader->linear ? 1 : net->in.height * net->in.width;
    for (size_t j = 0; j < d; j++)
        if (net->mean[j] != net->mean[j - j % n] ||
            net->inverse_std[j] != net->inverse_std[j - j % n])
            return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                              "pixels of a channel are normalised by different means");
    if (net->input_dtype == NIMBUS_F32) {
        out->zero[0] = 128;
        out->gain = malloc(d * sizeof(float));
        out->middle = malloc(d * sizeof(float));
        if (!out->gain || !out->middle)
            return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        for (size_t j = 0; j < d; j += n)
            input_range(net, rows, j, n, out);
    }
    if (!(reader->before[0] || reader->before[1] || reader->after[0] || reader->after[1]))
        return NIMBUS_OK;
    if (!(out->pad = malloc(net->in.channels)))
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t c = 0; c < net->in.channels; c++)
        out->pad[c] = out->gain ? 128 : (uint8_t)lrintf(fminf(fmaxf(net->mean[c * n], 0), 255));
    return NIMBUS_OK;
}

/* ---- products ------------------------------------------------------------------------------ */

/* A weight that reads the rows in units of them, and what that adds to the bias. */
static float weight_of_rows(const bench_int8 *q, const bench_layer *layer, size_t m, size_t t,
                            float *bias)
{
    const bench_net *net = q->net;
    const size_t taps = layer->kernel[0] * layer->kernel[1], per_group = layer->m / layer->groups;
    const size_t channel = m / per_group * (layer->in.channels / layer->groups) + t / taps;
    const size_t d = layer->linear ? t : channel * layer->in.height * layer->in.width;
    const float w = layer->w[m * layer->d + t] * net->inverse_std[d];
    *bias += w * ((q->gain ? q->middle[d] : 0) - net->mean[d]);
    return q->gain ? w / q->gain[d] : w;
}

static nimbus_status quantise(bench_int8 *out, size_t i, float limit, nimbus_error *error)
{
    const bench_layer *layer = &out->net->layers[i];
    bench_int8_layer *q = &out->layers[i];
    const size_t d = layer->d, v = layer->sources[0];
    float *row = malloc(d * sizeof *row);
    q->w = malloc(layer->m * d);
    q->bias = malloc(layer->m * sizeof(float));
    q->scale = malloc(layer->m * sizeof(float));
    q->w_scale = malloc(layer->m * sizeof(float));
    if (!row || !q->w || !q->bias || !q->scale || !q->w_scale) {
        free(row);
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    }
    for (size_t m = 0; m < layer->m; m++) {
        float top = 1e-20f, bias = layer->b[m];
        for (size_t j = 0; j < d; j++) {
            row[j] = v ? layer->w[m * d + j] : weight_of_rows(out, layer, m, j, &bias);
            top = fmaxf(top, fabsf(row[j]));
        }
        for (size_t j = 0; j < d; j++)
            q->w[m * d + j] = (int8_t)lrintf(row[j] * limit / top);
        q->w_scale[m] = top / limit;
        q->bias[m] = bias / (q->w_scale[m] * out->scale[v]);
        q->scale[m] = q->w_scale[m] * out->scale[v] / out->scale[i + 1];
    }
    free(row);
    return NIMBUS_OK;
}

/* How value i + 1 is stored; the last one is a float. */
static void choose_scale(bench_int8 *out, size_t i, float top)
{
    const bench_layer *layer = &out->net->layers[i];
    const int pool = layer->kind == BENCH_MAX_POOL || layer->kind == BENCH_AVERAGE_POOL;
    out->zero[i + 1] = pool ? out->zero[layer->sources[0]] : layer->relu ? 0 : 128;
    out->scale[i + 1] =
        pool ? out->scale[layer->sources[0]] : fmaxf(top, 1e-6f) / (float)(layer->relu ? 255 : 127);
    if (i + 1 == out->net->n_layers) {
        out->scale[i + 1] = 1;
        out->zero[i + 1] = 0;
    }
}

nimbus_status bench_int8_make(const bench_net *net, const bench_rows *calibration, int limit,
                              bench_int8 *out, nimbus_error *error)
{
    float top[BENCH_MAX_LAYERS] = {0};
    const bench_layer *reader;
    nimbus_status status;
    *out = (bench_int8){.net = net, .scale = {1}};
    if (!(status = find_reader(net, &reader, error)) &&
        !(status = quantise_rows(net, reader, calibration, out, error)))
        status = bench_graph_ranges(net, calibration, top, error);
    for (size_t i = 0; i < net->n_layers && !status; i++) {
        choose_scale(out, i, top[i]);
        if (net->layers[i].kind == BENCH_PRODUCT)
            status = quantise(out, i, (float)limit, error);
    }
    if (status)
        bench_int8_free(out);
    return status;
}

float *bench_int8_bias(const bench_int8 *net, size_t i)
{
    const bench_layer *layer = &net->net->layers[i];
    const bench_int8_layer *q = &net->layers[i];
    float *bias = malloc(layer->m * sizeof *bias);
    for (size_t m = 0; m < layer->m && bias; m++) {
        long sum = 0;
        for (size_t d = 0; d < layer->d && layer->sources[0] == 0; d++)
            sum += q->w[m * layer->d + d];
        bias[m] = q->bias[m] - (float)net->zero[0] * (float)sum;
    }
    return bias;
}
