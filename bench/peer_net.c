/* peer_net.c - the float net as a chain of a library's products, in int8 or in 32-bit floats
 *
 * Raw u8 rows are read as they are by the int8 form; raw f32 rows are quantised to u8 first, which
 * is timed, as the program's own reading of f32 rows is. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

struct bench_peer {
    bench_library library;
    const bench_mlp *mlp;   /* borrowed */
    const bench_int8 *int8; /* borrowed; NULL: f32 */
    size_t batch;
    bench_product *products[BENCH_MAX_LAYERS];
    void *hidden[2]; /* [batch][widest], used in turn */
    uint8_t *input;  /* [batch][D]: int8 of f32 rows only */
};

/* Where 0 is not stood for by 0, its share of every sum goes into the bias. */
static nimbus_status make_product(bench_peer *peer, size_t i, nimbus_error *error)
{
    const bench_layer *layer = &peer->mlp->layers[i];
    bench_product_spec spec = {.library = peer->library,
                               .n = peer->batch,
                               .d = layer->d,
                               .m = layer->m,
                               .relu = layer->relu,
                               .w = layer->w,
                               .bias = layer->b};
    float *bias = NULL;
    if (peer->int8) {
        const bench_int8_layer *q = &peer->int8->layers[i];
        bias = malloc(layer->m * sizeof *bias);
        if (!bias)
            return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        for (size_t m = 0; m < layer->m; m++) {
            long sum = 0;
            for (size_t d = 0; d < layer->d; d++)
                sum += q->w[m * layer->d + d];
            bias[m] = q->bias[m] - (float)q->zero * (float)sum;
        }
        spec.int8 = 1;
        spec.float_out = i + 1 == peer->mlp->n_layers;
        spec.w = q->w;
        spec.bias = bias;
        spec.scale = q->scale;
    }
    nimbus_status status = bench_product_new(&spec, &peer->products[i], error);
    free(bias);
    return status;
}

nimbus_status bench_peer_new(bench_library library, const bench_mlp *mlp, const bench_int8 *int8,
                             size_t batch, bench_peer **out, nimbus_error *error)
{
    size_t widest = 1;
    nimbus_status status = NIMBUS_OK;
    bench_peer *peer = calloc(1, sizeof *peer);
    *out = NULL;
    if (!peer)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    peer->library = library;
    peer->mlp = mlp;
    peer->int8 = int8;
    peer->batch = batch;
    for (size_t i = 0; i < mlp->n_layers; i++)
        widest = mlp->layers[i].m > widest ? mlp->layers[i].m : widest;
    for (int i = 0; i < 2; i++)
        peer->hidden[i] = aligned_alloc(64, (batch * widest * 4 + 63) / 64 * 64);
    if (int8 && int8->gain)
        peer->input = aligned_alloc(64, (batch * mlp->layers[0].d + 63) / 64 * 64);
    if (!peer->hidden[0] || !peer->hidden[1] || (int8 && int8->gain && !peer->input))
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < mlp->n_layers && !status; i++)
        status = make_product(peer, i, error);
    if (status)
        bench_peer_free(peer);
    else
        *out = peer;
    return status;
}

void bench_peer_free(bench_peer *peer)
{
    if (!peer)
        return;
    for (size_t i = 0; i < BENCH_MAX_LAYERS; i++)
        bench_product_free(peer->products[i]);
    free(peer->hidden[0]);
    free(peer->hidden[1]);
    free(peer->input);
    free(peer);
}

void bench_peer_how(const bench_peer *peer, char *text, size_t size)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%sbatch %zu: ", used ? "; " : "", peer->batch);
    for (size_t i = 0; i < peer->mlp->n_layers; i++) {
        used = strlen(text);
        snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                 bench_product_how(peer->products[i]));
    }
}

static void quantise_input(const bench_peer *peer, const float *x, size_t d)
{
    const float *gain = peer->int8->gain, *middle = peer->int8->middle;
    for (size_t i = 0; i < peer->batch; i++) {
        const float *row = x + i * d;
        uint8_t *u = peer->input + i * d;
#pragma omp simd
        for (size_t j = 0; j < d; j++) {
            float v = (row[j] - middle[j]) * gain[j] + 128.5f;
            v = v < 0 ? 0 : v;
            u[j] = (uint8_t)(int)(v > 255 ? 255 : v);
        }
    }
}

nimbus_status bench_peer_run(void *state, const bench_rows *rows, size_t first, size_t n,
                             void *outputs)
{
    const bench_peer *peer = state;
    nimbus_status status = NIMBUS_OK;
    const void *x = rows->float_rows + first * rows->d;
    if (n != peer->batch)
        return NIMBUS_ERR_ARGUMENT;
    if (peer->int8)
        x = (const char *)rows->raw + first * rows->stride;
    if (peer->input) {
        quantise_input(peer, x, rows->d);
        x = peer->input;
    }
    for (size_t i = 0; i < peer->mlp->n_layers && !status; i++) {
        void *y = i + 1 == peer->mlp->n_layers ? outputs : peer->hidden[i % 2];
        status = bench_product_run(peer->products[i], x, y);
        x = y;
    }
    return status;
}
