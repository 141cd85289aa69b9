/* peer_onednn.c - the float net as oneDNN int8 inner products, the way it would be deployed
 *
 * Activations are u8 with one scale a layer, weights s8 with a scale per output; bias, scaling and
 * ReLU are fused into the product (output scales and an eltwise post-op), the weights are reordered
 * once into the layout the primitive prefers. Raw u8 rows are read as they are (normalisation is
 * folded into the first weights); raw f32 rows are quantised to u8 around 128 with a range per
 * column, which is timed, as the program's own reading of f32 rows is. Without VNNI the 8-bit dot
 * product saturates in 16 bits, so the weights then keep 7 bits, as oneDNN's guide advises. */
#include <dnnl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

typedef struct step {
    dnnl_primitive_t primitive;
    dnnl_memory_t src, weights, bias, dst;
    void *dst_bytes;
} step;

struct bench_onednn {
    const bench_mlp *mlp; /* borrowed */
    size_t batch;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    step steps[BENCH_MAX_LAYERS];
    float *input_gain, *input_middle; /* [D]: f32 rows only */
    uint8_t *input;                   /* [batch][D]: f32 rows only */
};

/* What quantises one layer: x = (u - zero) * in_scale, y = u * out_scale. */
typedef struct quantised {
    int8_t *w;    /* [M][D] */
    float *bias;  /* [M], in units of the accumulator */
    float *scale; /* [M], accumulator to output */
} quantised;

static void quantised_free(quantised *q)
{
    free(q->w);
    free(q->bias);
    free(q->scale);
}

/* x_peer: the peer whose f32 rows this layer reads, x = (u - 128) / gain + middle; else NULL. */
static nimbus_status quantise(const bench_layer *layer, const bench_onednn *x_peer, float in_scale,
                              float out_scale, quantised *q, nimbus_error *error)
{
    const float limit = __builtin_cpu_supports("avx512vnni") ? 127.0f : 63.0f;
    *q = (quantised){malloc(layer->m * layer->d), malloc(layer->m * sizeof(float)),
                     malloc(layer->m * sizeof(float))};
    if (!q->w || !q->bias || !q->scale)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t m = 0; m < layer->m; m++) {
        const float *w = layer->w + m * layer->d;
        float top = 1e-20f, bias = layer->b[m];
        long sum = 0;
        for (size_t d = 0; d < layer->d; d++)
            top = fmaxf(top, fabsf(w[d] / (x_peer ? x_peer->input_gain[d] : 1)));
        for (size_t d = 0; d < layer->d; d++) {
            float v = w[d] / (x_peer ? x_peer->input_gain[d] : 1) * limit / top;
            q->w[m * layer->d + d] = (int8_t)lrintf(v);
            sum += lrintf(v);
            bias += x_peer ? w[d] * x_peer->input_middle[d] : 0;
        }
        float unit = top / limit * in_scale; /* real value of one in the accumulator */
        q->bias[m] = bias / unit - (x_peer ? 128.0f * (float)sum : 0);
        q->scale[m] = unit / out_scale;
    }
    return NIMBUS_OK;
}

static int make_memory(bench_onednn *peer, const dnnl_memory_desc_t *md, void *bytes,
                       dnnl_memory_t *out)
{
    return dnnl_memory_create(out, md, peer->engine, bytes) == dnnl_success;
}

/* Copies plain weights or biases into memory owned by oneDNN, in the primitive's layout. */
static int load_memory(bench_onednn *peer, void *bytes, const dnnl_memory_desc_t *plain,
                       const dnnl_memory_desc_t *wanted, dnnl_memory_t *out)
{
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    int ok = make_memory(peer, plain, bytes, &from) &&
             make_memory(peer, wanted, DNNL_MEMORY_ALLOCATE, out) &&
             dnnl_reorder_primitive_desc_create(&pd, plain, peer->engine, wanted, peer->engine,
                                                NULL) == dnnl_success &&
             dnnl_primitive_create(&reorder, pd) == dnnl_success;
    if (ok) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, *out}};
        ok = dnnl_primitive_execute(reorder, peer->stream, 2, args) == dnnl_success &&
             dnnl_stream_wait(peer->stream) == dnnl_success;
    }
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(pd);
    dnnl_memory_destroy(from);
    return ok;
}

static int make_attributes(const bench_layer *layer, const quantised *q, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t ops = NULL;
    int ok = dnnl_primitive_attr_create(out) == dnnl_success &&
             dnnl_primitive_attr_set_output_scales(*out, (dnnl_dim_t)layer->m, 1 << 1, q->scale) ==
                 dnnl_success &&
             dnnl_post_ops_create(&ops) == dnnl_success;
    if (ok && layer->relu)
        ok = dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_relu, 0, 0) == dnnl_success;
    if (ok)
        ok = dnnl_primitive_attr_set_post_ops(*out, ops) == dnnl_success;
    dnnl_post_ops_destroy(ops);
    return ok;
}

static int make_step(bench_onednn *peer, size_t i, const quantised *q)
{
    const bench_layer *layer = &peer->mlp->layers[i];
    int last = i + 1 == peer->mlp->n_layers;
    step *s = &peer->steps[i];
    dnnl_dims_t x_dims = {(dnnl_dim_t)peer->batch, (dnnl_dim_t)layer->d};
    dnnl_dims_t w_dims = {(dnnl_dim_t)layer->m, (dnnl_dim_t)layer->d};
    dnnl_dims_t b_dims = {(dnnl_dim_t)layer->m};
    dnnl_dims_t y_dims = {(dnnl_dim_t)peer->batch, (dnnl_dim_t)layer->m};
    dnnl_memory_desc_t x, w, w_plain, b, y;
    dnnl_inner_product_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    int ok =
        dnnl_memory_desc_init_by_tag(&x, 2, x_dims, dnnl_u8, dnnl_nc) == dnnl_success &&
        dnnl_memory_desc_init_by_tag(&w, 2, w_dims, dnnl_s8, dnnl_format_tag_any) == dnnl_success &&
        dnnl_memory_desc_init_by_tag(&w_plain, 2, w_dims, dnnl_s8, dnnl_oi) == dnnl_success &&
        dnnl_memory_desc_init_by_tag(&b, 1, b_dims, dnnl_f32, dnnl_x) == dnnl_success &&
        dnnl_memory_desc_init_by_tag(&y, 2, y_dims, last ? dnnl_f32 : dnnl_u8, dnnl_nc) ==
            dnnl_success &&
        dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_inference, &x, &w, &b, &y) ==
            dnnl_success &&
        make_attributes(layer, q, &attr) &&
        dnnl_primitive_desc_create(&pd, &desc, attr, peer->engine, NULL) == dnnl_success &&
        dnnl_primitive_create(&s->primitive, pd) == dnnl_success;
    if (ok) {
        const dnnl_memory_desc_t *blocked =
            dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        s->dst_bytes = aligned_alloc(64, (peer->batch * layer->m * 4 + 63) / 64 * 64);
        ok = s->dst_bytes && load_memory(peer, q->w, &w_plain, blocked, &s->weights) &&
             load_memory(peer, q->bias, &b, &b, &s->bias) &&
             make_memory(peer, &x, i ? peer->steps[i - 1].dst_bytes : DNNL_MEMORY_NONE, &s->src) &&
             make_memory(peer, &y, s->dst_bytes, &s->dst);
    }
    dnnl_primitive_attr_destroy(attr);
    dnnl_primitive_desc_destroy(pd);
    return ok;
}

/* Range of every raw f32 column over the calibration rows; outliers beyond 8 deviations are cut. */
static void input_ranges(bench_onednn *peer, const bench_rows *rows)
{
    for (size_t d = 0; d < rows->d; d++) {
        double sum = 0, squares = 0, low = 1e30, high = -1e30;
        for (size_t i = 0; i < rows->n; i++) {
            double v = (double)rows->float_rows[i * rows->d + d];
            sum += v;
            squares += v * v;
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        double n = (double)(rows->n ? rows->n : 1), mean = sum / n;
        double deviation = sqrt(fmax(0, squares / n - mean * mean));
        low = fmax(low, mean - 8 * deviation);
        high = fmin(high, mean + 8 * deviation);
        double half = fmax((high - low) / 2, 1e-6), middle = (high + low) / 2;
        peer->input_gain[d] = (float)(127 / half);
        peer->input_middle[d] = (float)middle;
    }
}

/* The largest activation of every hidden layer over the calibration rows. */
static nimbus_status activation_ranges(const bench_mlp *mlp, const bench_rows *rows, float *top,
                                       nimbus_error *error)
{
    for (size_t i = 0; i + 1 < mlp->n_layers; i++) {
        bench_mlp prefix = *mlp;
        bench_openblas *peer;
        prefix.n_layers = i + 1;
        nimbus_status status = bench_openblas_new(&prefix, rows->n, &peer, error);
        if (status)
            return status;
        size_t n = rows->n * mlp->layers[i].m;
        float *y = malloc(n * sizeof *y);
        if (y)
            (void)bench_openblas_run(peer, rows, 0, rows->n, y);
        top[i] = 1e-6f;
        for (size_t j = 0; y && j < n; j++)
            top[i] = fmaxf(top[i], y[j]);
        bench_openblas_free(peer);
        if (!y)
            return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        free(y);
    }
    return NIMBUS_OK;
}

static nimbus_status make_steps(bench_onednn *peer, const float *top, nimbus_error *error)
{
    const bench_mlp *mlp = peer->mlp;
    for (size_t i = 0; i < mlp->n_layers; i++) {
        quantised q;
        float in_scale = i ? top[i - 1] / 255 : 1;
        float out_scale = i + 1 < mlp->n_layers ? top[i] / 255 : 1;
        if (i + 1 < mlp->n_layers && !mlp->layers[i].relu)
            return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                              "a hidden layer without ReLU does not fit into u8");
        bench_layer layer = mlp->layers[i];
        nimbus_status status =
            quantise(&layer, i == 0 && peer->input ? peer : NULL, in_scale, out_scale, &q, error);
        if (!status && !make_step(peer, i, &q))
            status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "oneDNN refused layer %zu", i + 1);
        quantised_free(&q);
        if (status)
            return status;
    }
    return NIMBUS_OK;
}

nimbus_status bench_onednn_new(const bench_mlp *mlp, size_t batch, const bench_rows *calibration,
                               bench_onednn **out, nimbus_error *error)
{
    float top[BENCH_MAX_LAYERS] = {0};
    const size_t d = mlp->layers[0].d;
    nimbus_status status = NIMBUS_OK;
    bench_onednn *peer = calloc(1, sizeof *peer);
    *out = NULL;
    if (!peer)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    peer->mlp = mlp;
    peer->batch = batch;
    if (dnnl_engine_create(&peer->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&peer->stream, peer->engine, dnnl_stream_default_flags) !=
            dnnl_success) {
        status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "oneDNN does not start");
        goto done;
    }
    if (mlp->input_dtype == NIMBUS_F32) {
        peer->input_gain = malloc(d * sizeof(float));
        peer->input_middle = malloc(d * sizeof(float));
        peer->input = aligned_alloc(64, (batch * d + 63) / 64 * 64);
        if (!peer->input_gain || !peer->input_middle || !peer->input) {
            status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
            goto done;
        }
        input_ranges(peer, calibration);
    }
    if (!(status = activation_ranges(mlp, calibration, top, error)))
        status = make_steps(peer, top, error);
done:
    if (status)
        bench_onednn_free(peer);
    else
        *out = peer;
    return status;
}

void bench_onednn_free(bench_onednn *peer)
{
    if (!peer)
        return;
    for (size_t i = 0; i < BENCH_MAX_LAYERS; i++) {
        step *s = &peer->steps[i];
        dnnl_primitive_destroy(s->primitive);
        dnnl_memory_destroy(s->src);
        dnnl_memory_destroy(s->weights);
        dnnl_memory_destroy(s->bias);
        dnnl_memory_destroy(s->dst);
        free(s->dst_bytes);
    }
    dnnl_stream_destroy(peer->stream);
    dnnl_engine_destroy(peer->engine);
    free(peer->input_gain);
    free(peer->input_middle);
    free(peer->input);
    free(peer);
}

static void quantise_input(const bench_onednn *peer, const float *x, size_t d)
{
    for (size_t i = 0; i < peer->batch; i++)
        for (size_t j = 0; j < d; j++) {
            float v = (x[i * d + j] - peer->input_middle[j]) * peer->input_gain[j] + 128.5f;
            peer->input[i * d + j] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
}

nimbus_status bench_onednn_run(void *state, const bench_rows *rows, size_t first, size_t n,
                               void *outputs)
{
    bench_onednn *peer = state;
    const bench_mlp *mlp = peer->mlp;
    if (n != peer->batch)
        return NIMBUS_ERR_ARGUMENT;
    /* oneDNN's handles are not const; the source is only read. */
    void *input = (char *)(uintptr_t)rows->raw + first * rows->stride;
    if (peer->input) {
        quantise_input(peer, input, rows->d);
        input = peer->input;
    }
    if (dnnl_memory_set_data_handle(peer->steps[0].src, input) != dnnl_success ||
        dnnl_memory_set_data_handle(peer->steps[mlp->n_layers - 1].dst, outputs) != dnnl_success)
        return NIMBUS_ERR_UNSUPPORTED;
    for (size_t i = 0; i < mlp->n_layers; i++) {
        const step *s = &peer->steps[i];
        dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, s->src},
                                  {DNNL_ARG_WEIGHTS, s->weights},
                                  {DNNL_ARG_BIAS, s->bias},
                                  {DNNL_ARG_DST, s->dst}};
        if (dnnl_primitive_execute(s->primitive, peer->stream, 4, args) != dnnl_success)
            return NIMBUS_ERR_UNSUPPORTED;
    }
    return dnnl_stream_wait(peer->stream) == dnnl_success ? NIMBUS_OK : NIMBUS_ERR_UNSUPPORTED;
}
