/* peer_net.c - the float net in int8 or in 32-bit floats: a chain of a library's products, or a
 * graph
 *
 * Raw u8 rows are read as they are by the int8 form; raw f32 rows are quantised to u8 first, which
 * is timed, as the program's own reading of f32 rows is. A graph may take the rows of a call in
 * parts, of which the fastest size is found by a trial: values of fewer rows stay in the caches. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

#define MOST_PARTS 4

struct bench_peer {
    bench_library library;
    const bench_net *net;   /* borrowed */
    const bench_int8 *int8; /* borrowed; NULL: f32 */
    size_t batch;
    bench_product *products[BENCH_MAX_LAYERS]; /* of a chain */
    void *hidden[2];                           /* [batch][widest], used in turn */
    bench_graph *graph;                        /* NULL: a chain */
    size_t part;                               /* rows of the graph */
    uint8_t *input;                            /* [batch][D]: int8 of f32 rows only */
};

/* ---- chains -------------------------------------------------------------------------------- */

static nimbus_status make_product(bench_peer *peer, size_t i, nimbus_error *error)
{
    const bench_layer *layer = &peer->net->layers[i];
    bench_product_spec spec = {.library = peer->library,
                               .n = peer->batch,
                               .d = layer->d,
                               .m = layer->m,
                               .relu = layer->relu,
                               .w = layer->w,
                               .bias = layer->b};
    float *bias = NULL;
    if (peer->int8) {
        bias = bench_int8_bias(peer->int8, i);
        if (!bias)
            return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        spec.int8 = 1;
        spec.float_out = i + 1 == peer->net->n_layers;
        spec.w = peer->int8->layers[i].w;
        spec.bias = bias;
        spec.scale = peer->int8->layers[i].scale;
    }
    nimbus_status status = bench_product_new(&spec, &peer->products[i], error);
    free(bias);
    return status;
}

static nimbus_status make_chain(bench_peer *peer, nimbus_error *error)
{
    const bench_net *net = peer->net;
    size_t widest = 1;
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < net->n_layers; i++)
        widest = net->layers[i].m > widest ? net->layers[i].m : widest;
    for (int i = 0; i < 2; i++)
        peer->hidden[i] = aligned_alloc(64, (peer->batch * widest * 4 + 63) / 64 * 64);
    if (!peer->hidden[0] || !peer->hidden[1])
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < net->n_layers && !status; i++)
        status = make_product(peer, i, error);
    return status;
}

static nimbus_status run_chain(const bench_peer *peer, const void *x, void *outputs,
                               bench_ticks_of *ticks)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < peer->net->n_layers && !status; i++) {
        void *y = i + 1 == peer->net->n_layers ? outputs : peer->hidden[i % 2];
        uint64_t start = ticks ? bench_ticks() : 0;
        status = bench_product_run(peer->products[i], x, y);
        if (ticks) {
            ticks->ticks[i] += bench_ticks() - start;
            ticks->n_calls[i]++;
        }
        x = y;
    }
    return status;
}

/* ---- graphs -------------------------------------------------------------------------------- */

static nimbus_status run_graph(const bench_peer *peer, bench_graph *graph, size_t part,
                               const void *x, void *outputs, bench_ticks_of *ticks)
{
    const size_t x_bytes = bench_width(peer->net->in) * (peer->int8 ? 1 : sizeof(float)),
                 m = peer->net->layers[peer->net->n_layers - 1].m;
    nimbus_status status = NIMBUS_OK;
    for (size_t at = 0; at < peer->batch && !status; at += part)
        status = bench_graph_run(graph, (const char *)x + at * x_bytes, (float *)outputs + at * m,
                                 ticks);
    return status;
}

/* A size of parts on made-up rows. */
typedef struct trial {
    const bench_peer *peer;
    bench_graph *graph;
    size_t part;
    const void *x;
    void *y;
} trial;

static nimbus_status run_trial(void *state)
{
    const trial *t = state;
    return run_graph(t->peer, t->graph, t->part, t->x, t->y, NULL);
}

static nimbus_status make_graph(bench_peer *peer, nimbus_error *error)
{
    static const size_t parts[MOST_PARTS] = {1, 4, 16, 64};
    const bench_net *net = peer->net;
    trial trials[MOST_PARTS];
    bench_task tasks[MOST_PARTS];
    size_t n = 0, best = 0;
    nimbus_status status = NIMBUS_OK;
    if (peer->library != BENCH_ONEDNN)
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                          "a net that is no chain of linear layers: the library has only products");
    void *x = calloc(peer->batch * bench_width(net->in), sizeof(float)),
         *y = malloc(peer->batch * net->layers[net->n_layers - 1].m * sizeof(float));
    if (!x || !y)
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    for (size_t k = 0; k < MOST_PARTS && !status; k++) {
        size_t part = parts[k] < peer->batch ? parts[k] : peer->batch;
        if (peer->batch % part != 0 || (n > 0 && trials[n - 1].part == part))
            continue;
        trials[n] = (trial){.peer = peer, .part = part, .x = x, .y = y};
        if ((status = bench_graph_new(net, peer->int8, part, &trials[n].graph, error)))
            break;
        tasks[n] = (bench_task){
            .name = "oneDNN", .call = run_trial, .state = &trials[n], .units = (double)peer->batch};
        n++;
    }
    if (!status)
        status = bench_fastest(tasks, n, &best, error);
    for (size_t k = 0; k < n; k++)
        if (status || k != best)
            bench_graph_free(trials[k].graph);
    if (!status) {
        peer->graph = trials[best].graph;
        peer->part = trials[best].part;
    }
    free(x);
    free(y);
    return status;
}

/* ---- both ---------------------------------------------------------------------------------- */

nimbus_status bench_peer_new(bench_library library, const bench_net *net, const bench_int8 *int8,
                             size_t batch, bench_peer **out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    bench_peer *peer = calloc(1, sizeof *peer);
    *out = NULL;
    if (!peer)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    *peer = (bench_peer){.library = library, .net = net, .int8 = int8, .batch = batch};
    if (int8 && int8->gain) {
        peer->input = aligned_alloc(64, (batch * bench_width(net->in) + 63) / 64 * 64);
        if (!peer->input)
            status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    }
    if (!status)
        status = bench_net_is_chain(net) ? make_chain(peer, error) : make_graph(peer, error);
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
    bench_graph_free(peer->graph);
    free(peer->hidden[0]);
    free(peer->hidden[1]);
    free(peer->input);
    free(peer);
}

void bench_peer_how(const bench_peer *peer, char *text, size_t size)
{
    size_t used = strlen(text);
    used +=
        (size_t)snprintf(text + used, size - used, "%sbatch %zu: ", used ? "; " : "", peer->batch);
    if (peer->graph && used < size)
        snprintf(text + used, size - used, "%zu at a time", peer->part);
    for (size_t i = 0; i < peer->net->n_layers && !peer->graph; i++) {
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
    return bench_peer_run_layers(state, rows, first, n, outputs, NULL);
}

size_t bench_peer_layer_of(const bench_peer *peer, size_t i)
{
    return peer->graph ? bench_graph_layer_of(peer->graph, i) : i;
}

nimbus_status bench_peer_run_layers(void *state, const bench_rows *rows, size_t first, size_t n,
                                    void *outputs, bench_ticks_of *ticks)
{
    const bench_peer *peer = state;
    const void *x = rows->float_rows + first * rows->d;
    if (n != peer->batch)
        return NIMBUS_ERR_ARGUMENT;
    if (peer->int8)
        x = (const char *)rows->raw + first * rows->stride;
    if (peer->input) {
        quantise_input(peer, x, rows->d);
        x = peer->input;
    }
    return peer->graph ? run_graph(peer, peer->graph, peer->part, x, outputs, ticks)
                       : run_chain(peer, x, outputs, ticks);
}
