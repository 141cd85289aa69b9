/* quantise.c - the float net in 8 bits, the way int8 libraries deploy one
 *
 * Activations are u8 with one scale a layer, weights s8 with a scale per output. Raw u8 rows are
 * taken as they are (normalisation is folded into the first weights); raw f32 rows are quantised to
 * u8 around 128 with a range per column. */
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
    *net = (bench_int8){0};
}

/* Range of every raw f32 column over the calibration rows; outliers beyond 8 deviations are cut. */
static void input_ranges(bench_int8 *net, const bench_rows *rows)
{
    for (size_t d = 0; d < rows->d; d++) {
        double sum = 0, squares = 0, low = 1e30, high = -1e30;
        for (size_t i = 0; i < rows->n; i++) {
            double v = (double)rows->float_rows[i * rows->d + d];
            sum += v;
            squares += v * v;
            low = fmin(low, v);
            high = fmax(high, v);
        }
        double n = (double)(rows->n ? rows->n : 1), mean = sum / n;
        double deviation = sqrt(fmax(0, squares / n - mean * mean));
        low = fmax(low, mean - 8 * deviation);
        high = fmin(high, mean + 8 * deviation);
        double half = fmax((high - low) / 2, 1e-6), middle = (high + low) / 2;
        net->gain[d] = (float)(127 / half);
        net->middle[d] = (float)middle;
    }
}

/* The largest activation of every hidden layer over the calibration rows. */
static nimbus_status activation_ranges(const bench_mlp *mlp, const bench_rows *rows, float *top,
                                       nimbus_error *error)
{
    for (size_t i = 0; i + 1 < mlp->n_layers; i++) {
        bench_mlp prefix = *mlp;
        bench_peer *peer;
        prefix.n_layers = i + 1;
        nimbus_status status = bench_peer_new(BENCH_OPENBLAS, &prefix, NULL, rows->n, &peer, error);
        if (status)
            return status;
        size_t n = rows->n * mlp->layers[i].m;
        float *y = malloc(n * sizeof *y);
        if (y)
            (void)bench_peer_run(peer, rows, 0, rows->n, y);
        top[i] = 1e-6f;
        for (size_t j = 0; y && j < n; j++)
            top[i] = fmaxf(top[i], y[j]);
        bench_peer_free(peer);
        if (!y)
            return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        free(y);
    }
    return NIMBUS_OK;
}

/* gain, middle: of the raw f32 columns that this layer reads, else NULL. */
static nimbus_status quantise(const bench_layer *layer, const float *gain, const float *middle,
                              float limit, bench_int8_layer *q, nimbus_error *error)
{
    const size_t d = layer->d;
    q->w = malloc(layer->m * d);
    q->bias = malloc(layer->m * sizeof(float));
    q->scale = malloc(layer->m * sizeof(float));
    q->w_scale = malloc(layer->m * sizeof(float));
    if (!q->w || !q->bias || !q->scale || !q->w_scale)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t m = 0; m < layer->m; m++) {
        const float *w = layer->w + m * d;
        float top = 1e-20f, bias = layer->b[m];
        for (size_t j = 0; j < d; j++)
            top = fmaxf(top, fabsf(gain ? w[j] / gain[j] : w[j]));
        for (size_t j = 0; j < d; j++) {
            q->w[m * d + j] = (int8_t)lrintf((gain ? w[j] / gain[j] : w[j]) * limit / top);
            bias += gain ? w[j] * middle[j] : 0;
        }
        q->w_scale[m] = top / limit;
        q->bias[m] = bias / (q->w_scale[m] * q->in_scale);
        q->scale[m] = q->w_scale[m] * q->in_scale / q->out_scale;
    }
    return NIMBUS_OK;
}

nimbus_status bench_int8_make(const bench_mlp *mlp, const bench_rows *calibration, int limit,
                              bench_int8 *out, nimbus_error *error)
{
    float top[BENCH_MAX_LAYERS] = {0};
    nimbus_status status = NIMBUS_OK;
    *out = (bench_int8){.mlp = mlp};
    if (mlp->input_dtype == NIMBUS_F32) {
        out->gain = malloc(mlp->layers[0].d * sizeof(float));
        out->middle = malloc(mlp->layers[0].d * sizeof(float));
        if (!out->gain || !out->middle) {
            status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
            goto done;
        }
        input_ranges(out, calibration);
    }
    status = activation_ranges(mlp, calibration, top, error);
    for (size_t i = 0; i < mlp->n_layers && !status; i++) {
        int last = i + 1 == mlp->n_layers, reads_f32 = i == 0 && out->gain;
        bench_int8_layer *layer = &out->layers[i];
        layer->in_scale = i ? top[i - 1] / 255 : 1;
        layer->out_scale = last ? 1 : top[i] / 255;
        layer->zero = reads_f32 ? 128 : 0;
        if (!last && !mlp->layers[i].relu)
            status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                                "a hidden layer without ReLU does not fit into u8");
        else
            status = quantise(&mlp->layers[i], reads_f32 ? out->gain : NULL, out->middle,
                              (float)limit, layer, error);
    }
done:
    if (status)
        bench_int8_free(out);
    return status;
}
