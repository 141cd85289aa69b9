/* peer_openblas.c - the float net as OpenBLAS products in 32-bit floats */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

struct bench_openblas {
    const bench_mlp *mlp; /* borrowed */
    float *hidden[2];     /* [max_batch][widest], used in turn */
};

nimbus_status bench_openblas_new(const bench_mlp *mlp, size_t max_batch, bench_openblas **out,
                                 nimbus_error *error)
{
    size_t widest = 1;
    for (size_t i = 0; i < mlp->n_layers; i++)
        widest = mlp->layers[i].m > widest ? mlp->layers[i].m : widest;
    bench_openblas *peer = calloc(1, sizeof *peer);
    if (peer) {
        peer->mlp = mlp;
        peer->hidden[0] = calloc(max_batch * widest, sizeof(float));
        peer->hidden[1] = calloc(max_batch * widest, sizeof(float));
    }
    *out = peer;
    if (!peer || !peer->hidden[0] || !peer->hidden[1]) {
        bench_openblas_free(peer);
        *out = NULL;
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    }
    return NIMBUS_OK;
}

void bench_openblas_free(bench_openblas *peer)
{
    if (!peer)
        return;
    free(peer->hidden[0]);
    free(peer->hidden[1]);
    free(peer);
}

/* y [N][M] = x [N][D] w' + b, then ReLU. */
static void run_layer(const bench_layer *layer, const float *x, size_t n, float *y)
{
    const int d = (int)layer->d, m = (int)layer->m;
    for (size_t i = 0; i < n; i++)
        memcpy(y + i * layer->m, layer->b, layer->m * sizeof *y);
    if (n == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, m, d, 1, layer->w, d, x, 1, 1, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, m, d, 1, x, d, layer->w, d, 1,
                    y, m);
    if (layer->relu)
        for (size_t i = 0; i < n * layer->m; i++)
            y[i] = y[i] > 0 ? y[i] : 0;
}

nimbus_status bench_openblas_run(void *state, const bench_rows *rows, size_t first, size_t n,
                                 void *outputs)
{
    const bench_openblas *peer = state;
    const float *x = rows->float_rows + first * rows->d;
    for (size_t i = 0; i < peer->mlp->n_layers; i++) {
        float *y = i + 1 == peer->mlp->n_layers ? outputs : peer->hidden[i % 2];
        run_layer(&peer->mlp->layers[i], x, n, y);
        x = y;
    }
    return NIMBUS_OK;
}
