/* optimiser.c - AdamW and SGD with momentum, one fused pass over each parameter
 *
 * AdamW [Loshchilov & Hutter 2019]: w -= rate * decay * w, then
 *     m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
 *     w -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon).
 * SGD: w -= rate * decay * w, then m = momentum m + g, w -= rate * m.
 *
 * The same pass clears the gradient and notices values that are no longer finite. Parameters are
 * cut into fixed chunks, one list over all of them, so that threads share the work of small and
 * large ones alike. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "net/simd.h"
#include "train/train.h"

#define CHUNK   8192
#define EPSILON 1e-8

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "moments are stored as they lie");

typedef struct slot {
    nimbus_param *param;
    real *first, *second; /* moments; second is NULL for SGD */
    double rate_scale;
} slot;

typedef struct chunk {
    size_t slot, begin, n;
    bool finite; /* after the last step */
} chunk;

struct nimbus_moments {
    nimbus_optimiser kind;
    double beta1, beta2, momentum, weight_decay;
    unsigned n_threads;
    size_t n_slots, n_chunks, n_values; /* n_values: in `block` */
    slot *slots;
    chunk *chunks;
    real *block; /* all moments */
    /* of the step in progress */
    double rate, correction1, correction2;
};

typedef struct adamw_rates {
    real keep, beta1, rest1, beta2, rest2, step_size, root_scale;
} adamw_rates;

NIMBUS_SIMD_CLONES
static bool adamw(size_t n, real *restrict w, real *restrict g, real *restrict m, real *restrict v,
                  const adamw_rates *rates)
{
    const adamw_rates r = *rates;
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (size_t i = 0; i < n; i++) {
        real gi = g[i];
        real mi = r.beta1 * m[i] + r.rest1 * gi;
        real vi = r.beta2 * v[i] + r.rest2 * gi * gi;
        real wi = w[i] * r.keep - r.step_size * mi / (sqrtf(vi) * r.root_scale + (real)EPSILON);
        m[i] = mi;
        v[i] = vi;
        w[i] = wi;
        g[i] = 0;
        /* v overflows long before m does, and would then hold w still for good */
        bad |= !(fabsf(wi) <= FLT_MAX) | !(vi <= FLT_MAX);
    }
    return !bad;
}

NIMBUS_SIMD_CLONES
static bool sgd(size_t n, real *restrict w, real *restrict g, real *restrict m, real keep,
                real momentum, real rate)
{
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (size_t i = 0; i < n; i++) {
        real mi = momentum * m[i] + g[i];
        real wi = w[i] * keep - rate * mi;
        m[i] = mi;
        w[i] = wi;
        g[i] = 0;
        bad |= !(fabsf(wi) <= FLT_MAX) | !(fabsf(mi) <= FLT_MAX);
    }
    return !bad;
}

static void step_chunk(void *arg, size_t i)
{
    nimbus_moments *o = arg;
    chunk *c = &o->chunks[i];
    const slot *s = &o->slots[c->slot];
    double rate = o->rate * s->rate_scale;
    real keep = (real)(s->param->decay ? 1 - rate * o->weight_decay : 1);
    real *w = s->param->value + c->begin, *g = s->param->grad + c->begin, *m = s->first + c->begin;
    if (o->kind == NIMBUS_SGD) {
        c->finite = sgd(c->n, w, g, m, keep, (real)o->momentum, (real)rate);
        return;
    }
    adamw_rates rates = {
        .keep = keep,
        .beta1 = (real)o->beta1,
        .rest1 = (real)(1 - o->beta1),
        .beta2 = (real)o->beta2,
        .rest2 = (real)(1 - o->beta2),
        .step_size = (real)(rate / o->correction1),
        .root_scale = (real)(1 / sqrt(o->correction2)),
    };
    c->finite = adamw(c->n, w, g, m, s->second + c->begin, &rates);
}

bool nimbus_moments_step(nimbus_moments *o, double rate, size_t step)
{
    o->rate = rate;
    o->correction1 = 1 - pow(o->beta1, (double)step + 1);
    o->correction2 = 1 - pow(o->beta2, (double)step + 1);
    nimbus_parallel(o->n_threads, o->n_chunks, step_chunk, o);
    bool finite = true;
    for (size_t i = 0; i < o->n_chunks; i++)
        finite = finite && o->chunks[i].finite;
    return finite;
}

/* Trees and tables have a rate of their own. */
static double rate_scale_of(const nimbus_layer *layer, const nimbus_param *param,
                            const nimbus_train_options *options)
{
    bool table = layer->state == NIMBUS_STATE_SOFT &&
                 (strcmp(param->name, "tables") == 0 || strcmp(param->name, "thresholds") == 0);
    return (double)param->rate_scale * (table ? options->table_rate / options->rate : 1);
}

/* Fills slots and chunks if they are allocated; counts them either way. */
static void list_params(nimbus_moments *o, nimbus_net *net, const nimbus_train_options *options)
{
    o->n_slots = o->n_chunks = o->n_values = 0;
    for (size_t l = options->first_layer; l < net->n_layers; l++) {
        nimbus_layer *layer = &net->layers[l];
        for (size_t p = 0; p < layer->n_params; p++) {
            nimbus_param *param = &layer->params[p];
            if (!param->trained)
                continue;
            if (o->slots) {
                slot *s = &o->slots[o->n_slots];
                s->param = param;
                s->rate_scale = rate_scale_of(layer, param, options);
                s->first = o->block + o->n_values;
                s->second = o->kind == NIMBUS_ADAMW ? s->first + param->n : NULL;
            }
            o->n_values += param->n * (o->kind == NIMBUS_ADAMW ? 2 : 1);
            for (size_t begin = 0; begin < param->n; begin += CHUNK, o->n_chunks++) {
                size_t n = param->n - begin < CHUNK ? param->n - begin : CHUNK;
                if (o->chunks)
                    o->chunks[o->n_chunks] = (chunk){o->n_slots, begin, n, true};
            }
            o->n_slots++;
        }
    }
}

nimbus_status nimbus_moments_new(nimbus_net *net, const nimbus_train_options *options,
                                 nimbus_moments **out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    *out = NULL;
    nimbus_moments *o = nimbus_alloc(1, sizeof *o);
    if (!o)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the optimiser");
    o->kind = options->optimiser;
    o->beta1 = options->beta1;
    o->beta2 = options->beta2;
    o->momentum = options->momentum;
    o->weight_decay = options->weight_decay;
    o->n_threads = options->n_threads;
    list_params(o, net, options);
    o->slots = nimbus_alloc(o->n_slots, sizeof *o->slots);
    o->chunks = nimbus_alloc(o->n_chunks, sizeof *o->chunks);
    o->block = nimbus_alloc(o->n_values, sizeof *o->block);
    if (!o->slots || !o->chunks || !o->block) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY,
                             "no memory for the optimiser's state: %zu values", o->n_values);
        goto done;
    }
    list_params(o, net, options);
    *out = o;
    o = NULL;
done:
    nimbus_moments_free(o);
    return status;
}

void nimbus_moments_free(nimbus_moments *o)
{
    if (!o)
        return;
    nimbus_free(o->slots);
    nimbus_free(o->chunks);
    nimbus_free(o->block);
    nimbus_free(o);
}

void nimbus_moments_write(const nimbus_moments *o, nimbus_buffer *out)
{
    nimbus_write_u64le(out, o->n_values);
    nimbus_write_bytes(out, o->block, o->n_values * sizeof *o->block);
}

nimbus_status nimbus_moments_read(nimbus_moments *o, const uint8_t *bytes, size_t size,
                                  nimbus_error *error)
{
    nimbus_reader reader = nimbus_reader_of(bytes, size);
    uint64_t n = nimbus_read_u64le(&reader);
    size_t n_bytes = o->n_values * sizeof *o->block;
    const uint8_t *values = nimbus_read_bytes(&reader, n_bytes);
    if (n != o->n_values || !values || nimbus_reader_left(&reader) != 0)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "optimiser state of %llu values in %zu bytes, expected %zu values",
                           (unsigned long long)n, size, o->n_values);
    memcpy(o->block, values, n_bytes);
    return NIMBUS_OK;
}
