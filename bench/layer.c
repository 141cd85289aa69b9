/* layer.c - single layers of random trees and tables beside products of the same size
 *
 * K = 16: the four levels of a tree read four columns within its codebook's V, all M outputs
 * are computed. Ours is nimbus_product_encode and nimbus_product_lookup_i8 on
 * column-major i8, as activations lie between layers of a program; the peers read the row-major u8
 * (or floats) that they are made for. Inputs change from call to call: a walk through several
 * blocks of rows. Before anything is timed every contender's outputs are compared with plain loops.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

#define LEVELS       4
#define LEAVES       (1 << LEVELS)
#define BLOCK_BYTES  ((size_t)512 << 10) /* the peers' input blocks together, if they are small */
#define MOST_BLOCKS  64
#define CHECKS       256 /* outputs of a peer that are compared */
#define LOOKUP_SHIFT 6

/* Everything that one shape needs. */
typedef struct layer_set {
    bench_shape shape;
    size_t c, n_blocks;
    uint32_t random;
    uint32_t *columns;
    int8_t *thresholds, *tables;
    nimbus_product *product;
    void *scratch;
    int8_t *x, *y;      /* [n_blocks][D][N], [M][N] */
    int32_t *sums;      /* [M][N] */
    uint8_t *codes;     /* [n_blocks][C][N] */
    uint8_t *own_codes; /* [C][N]: written by the timed encode */
    int8_t *w;          /* [M][D] of the int8 peer */
    float *fw, *bias, *scale;
    uint8_t *ux, *uy; /* [n_blocks][N][D], [N][M] */
    float *fx, *fy;
    bench_product *int8, *f32, *openblas;
    size_t at; /* block of the next call, shared by all tasks */
} layer_set;

static uint32_t draw(layer_set *s)
{
    s->random = s->random * 1664525u + 1013904223u;
    return s->random >> 8;
}

/* ---- building */

static void *room(size_t n, size_t size, int *ok)
{
    void *bytes = NULL;
    if (size == 0 || n <= (SIZE_MAX - 64) / size)
        bytes = aligned_alloc(64, (n * size + 63) / 64 * 64 + 64);
    if (bytes)
        memset(bytes, 0, n * size);
    *ok = *ok && bytes;
    return bytes;
}

static int make_room(layer_set *s)
{
    const size_t n = s->shape.n, d = s->shape.d, m = s->shape.m, all = s->n_blocks * n;
    int ok = 1;
    s->columns = room(s->c * LEVELS, sizeof *s->columns, &ok);
    s->thresholds = room(s->c * (LEAVES - 1), 1, &ok);
    s->tables = room(s->c * LEAVES * m, 1, &ok);
    s->x = room(all * d, 1, &ok);
    s->y = room(n * m, 1, &ok);
    s->sums = room(n * m, sizeof *s->sums, &ok);
    s->codes = room(all * s->c, 1, &ok);
    s->own_codes = room(n * s->c, 1, &ok);
    s->w = room(m * d, 1, &ok);
    s->fw = room(m * d, sizeof(float), &ok);
    s->bias = room(m, sizeof(float), &ok);
    s->scale = room(m, sizeof(float), &ok);
    s->ux = room(all * d, 1, &ok);
    s->fx = room(all * d, sizeof(float), &ok);
    s->uy = room(n * m, 1, &ok);
    s->fy = room(n * m, sizeof(float), &ok);
    return ok;
}

static void free_set(layer_set *s)
{
    nimbus_product_free(s->product);
    bench_product_free(s->int8);
    bench_product_free(s->f32);
    bench_product_free(s->openblas);
    void *const all[] = {s->columns, s->thresholds, s->tables,    s->scratch, s->x,  s->y,
                         s->sums,    s->codes,      s->own_codes, s->w,       s->fw, s->bias,
                         s->scale,   s->ux,         s->uy,        s->fx,      s->fy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* The columns of a tree: one of each quarter of its codebook's inputs. */
static void fill(layer_set *s, int limit)
{
    const size_t n = s->shape.n, d = s->shape.d, m = s->shape.m, v = s->shape.v;
    const uint32_t entries = 1u << s->shape.bits;
    for (size_t c = 0; c < s->c; c++) {
        size_t width = c * v + v <= d ? v : d - c * v;
        for (size_t h = 0; h < LEVELS; h++) {
            size_t from = width * h / LEVELS, to = width * (h + 1) / LEVELS;
            s->columns[c * LEVELS + h] =
                (uint32_t)(c * v + from + (to > from ? draw(s) % (to - from) : 0));
        }
    }
    for (size_t i = 0; i < s->c * (LEAVES - 1); i++)
        s->thresholds[i] = (int8_t)(draw(s) % 256 - 128);
    for (size_t i = 0; i < s->c * LEAVES * m; i++)
        s->tables[i] = (int8_t)((int)(draw(s) % entries) - (int)entries / 2);
    for (size_t i = 0; i < s->n_blocks * n * d; i++) {
        s->x[i] = (int8_t)(draw(s) % 256 - 128);
        s->ux[i] = (uint8_t)draw(s);
        s->fx[i] = (float)s->ux[i] / 255;
    }
    for (size_t i = 0; i < m * d; i++) {
        s->w[i] = (int8_t)((int)(draw(s) % (uint32_t)(2 * limit + 1)) - limit);
        s->fw[i] = (float)s->w[i] / (float)limit;
    }
    for (size_t i = 0; i < m; i++) {
        s->bias[i] = (float)(draw(s) % 100);
        s->scale[i] = 60 / ((float)limit * 85 * sqrtf((float)d));
    }
}

static nimbus_status build(layer_set *s, nimbus_error *error)
{
    const nimbus_product_arrays arrays = {.size = sizeof arrays,
                                          .n_inputs = s->shape.d,
                                          .n_outputs = s->shape.m,
                                          .n_codebooks = s->c,
                                          .n_levels = LEVELS,
                                          .columns = s->columns,
                                          .thresholds = s->thresholds,
                                          .tables = s->tables};
    bench_product_spec spec = {.library = BENCH_OPENBLAS,
                               .n = s->shape.n,
                               .d = s->shape.d,
                               .m = s->shape.m,
                               .relu = 1,
                               .w = s->fw,
                               .bias = s->bias};
    nimbus_status status = nimbus_product_new(&arrays, &s->product, error);
    if (status || (status = bench_product_new(&spec, &s->openblas, error)))
        return status;
    spec.library = BENCH_ONEDNN;
    if ((status = bench_product_new(&spec, &s->f32, error)))
        return status;
    spec.int8 = 1;
    spec.w = s->w;
    spec.scale = s->scale;
    if ((status = bench_product_new(&spec, &s->int8, error)))
        return status;
    s->scratch = malloc(nimbus_product_scratch_size(s->product) + 1);
    if (!s->scratch)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    return NIMBUS_OK;
}

/* ---- one call of each; every call takes the next block */

static size_t next_block(layer_set *s)
{
    s->at = s->at + 1 < s->n_blocks ? s->at + 1 : 0;
    return s->at;
}

static nimbus_status encode(layer_set *s, size_t block, uint8_t *codes)
{
    const size_t n = s->shape.n;
    return nimbus_product_encode(s->product, s->x + block * n * s->shape.d, n, n, codes, n,
                                 s->scratch);
}

static nimbus_status call_encode(void *state)
{
    layer_set *s = state;
    return encode(s, next_block(s), s->own_codes);
}

static nimbus_status call_lookup_i8(void *state)
{
    layer_set *s = state;
    const size_t n = s->shape.n;
    return nimbus_product_lookup_i8(s->product, s->codes + next_block(s) * n * s->c, n, n,
                                    LOOKUP_SHIFT, s->y, n, s->scratch);
}

static nimbus_status call_lookup_i32(void *state)
{
    layer_set *s = state;
    const size_t n = s->shape.n;
    return nimbus_product_lookup(s->product, s->codes + next_block(s) * n * s->c, n, n, s->sums, n,
                                 s->scratch);
}

static nimbus_status call_ours(void *state)
{
    layer_set *s = state;
    const size_t n = s->shape.n;
    nimbus_status status = encode(s, next_block(s), s->own_codes);
    return status ? status
                  : nimbus_product_lookup_i8(s->product, s->own_codes, n, n, LOOKUP_SHIFT, s->y, n,
                                             s->scratch);
}

static nimbus_status call_int8(void *state)
{
    layer_set *s = state;
    return bench_product_run(s->int8, s->ux + next_block(s) * s->shape.n * s->shape.d, s->uy);
}

static nimbus_status call_f32(void *state)
{
    layer_set *s = state;
    return bench_product_run(s->f32, s->fx + next_block(s) * s->shape.n * s->shape.d, s->fy);
}

static nimbus_status call_openblas(void *state)
{
    layer_set *s = state;
    return bench_product_run(s->openblas, s->fx + next_block(s) * s->shape.n * s->shape.d, s->fy);
}

/* ---- checking them against plain loops */

static size_t leaf_of(const layer_set *s, const int8_t *x, size_t row, size_t c)
{
    size_t node = 0;
    for (size_t h = 0; h < LEVELS; h++) {
        int8_t value = x[s->columns[c * LEVELS + h] * s->shape.n + row];
        node = 2 * node + 1 + (value > s->thresholds[c * (LEAVES - 1) + node]);
    }
    return node - (LEAVES - 1);
}

static nimbus_status check_ours(layer_set *s, nimbus_error *error)
{
    const size_t n = s->shape.n, m = s->shape.m;
    for (size_t b = 0; b < s->n_blocks; b++)
        if (encode(s, b, s->codes + b * n * s->c))
            return bench_fail(error, NIMBUS_ERR_STATE, "nimbus_product_encode failed");
    s->at = s->n_blocks - 1; /* the next block is the first */
    nimbus_status status = call_ours(s);
    s->at = s->n_blocks - 1;
    if (status || (status = call_lookup_i32(s)))
        return bench_fail(error, status, "nimbus_product_lookup failed");
    for (size_t i = 0; i < CHECKS; i++) {
        size_t row = draw(s) % n, j = draw(s) % m;
        long sum = 0;
        for (size_t c = 0; c < s->c; c++)
            sum += s->tables[(c * LEAVES + leaf_of(s, s->x, row, c)) * m + j];
        long y = sum >> LOOKUP_SHIFT;
        y = y < -128 ? -128 : y > 127 ? 127 : y;
        if (s->sums[j * n + row] != sum || s->y[j * n + row] != y)
            return bench_fail(error, NIMBUS_ERR_STATE,
                              "layer %zu,%zu,%zu,%zu: output %zu of row %zu is %ld and %d, "
                              "expected %ld and %ld",
                              n, s->shape.d, m, s->shape.v, j, row, (long)s->sums[j * n + row],
                              s->y[j * n + row], sum, y);
    }
    return NIMBUS_OK;
}

static nimbus_status check_peers(layer_set *s, nimbus_error *error)
{
    const size_t n = s->shape.n, m = s->shape.m, d = s->shape.d;
    float *blas = s->fy, *dnnl = malloc(n * m * sizeof *dnnl);
    nimbus_status status = dnnl ? bench_product_run(s->f32, s->fx, dnnl) : NIMBUS_ERR_MEMORY;
    if (status || (status = bench_product_run(s->int8, s->ux, s->uy)) ||
        (status = bench_product_run(s->openblas, s->fx, blas))) {
        free(dnnl);
        return bench_fail(error, status, "a peer failed");
    }
    for (size_t i = 0; i < CHECKS && !status; i++) {
        size_t row = draw(s) % n, j = draw(s) % m;
        double sum = 0, real = (double)s->bias[j];
        for (size_t k = 0; k < d; k++) {
            sum += s->ux[row * d + k] * s->w[j * d + k];
            real += (double)s->fx[row * d + k] * (double)s->fw[j * d + k];
        }
        double y = fmin(fmax((sum + (double)s->bias[j]) * (double)s->scale[j], 0), 255);
        double slack = 1e-4 * sqrt((double)d) + 1e-5 * fabs(real);
        real = fmax(real, 0);
        if (fabs(y - s->uy[row * m + j]) > 1)
            status = bench_fail(error, NIMBUS_ERR_STATE, "oneDNN int8 gives %d, expected %.2f",
                                s->uy[row * m + j], y);
        else if (fabs(real - (double)dnnl[row * m + j]) > slack ||
                 fabs(real - (double)blas[row * m + j]) > slack)
            status = bench_fail(error, NIMBUS_ERR_STATE, "f32 peers give %g and %g, expected %g",
                                (double)dnnl[row * m + j], (double)blas[row * m + j], real);
    }
    free(dnnl);
    return status;
}

/* ---- measuring */

static nimbus_status make_set(layer_set *s, const bench_shape *shape, nimbus_error *error)
{
    const size_t block = shape->n * shape->d;
    *s = (layer_set){.shape = *shape, .random = 1};
    s->c = (shape->d + shape->v - 1) / shape->v;
    s->n_blocks = BLOCK_BYTES / block;
    s->n_blocks = s->n_blocks < 2 ? 2 : s->n_blocks > MOST_BLOCKS ? MOST_BLOCKS : s->n_blocks;
    if (!make_room(s))
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory for layer %zu,%zu,%zu,%zu",
                          shape->n, shape->d, shape->m, shape->v);
    fill(s, bench_onednn_weight_limit());
    nimbus_status status = build(s, error);
    if (!status)
        status = check_ours(s, error);
    return status ? status : check_peers(s, error);
}

static double per_cycle(double count_per_row, const bench_time *ns, double ghz)
{
    return count_per_row / (ns->median * ghz);
}

nimbus_status bench_measure_layer(const bench_shape *shape, size_t rounds, bench_layer_result *out,
                                  nimbus_error *error)
{
    enum { OURS, ENCODE, LOOKUP, INT8, F32, OPENBLAS, CLOCK, N_TASKS };
    const double n = (double)shape->n;
    layer_set s;
    nimbus_status status = make_set(&s, shape, error);
    if (status)
        goto done;
    bench_task tasks[N_TASKS] = {
        [OURS] = {.name = "encode and lookup", .call = call_ours, .state = &s, .units = n},
        [ENCODE] = {.name = "encode", .call = call_encode, .state = &s, .units = n},
        [LOOKUP] = {.name = "lookup", .call = call_lookup_i8, .state = &s, .units = n},
        [INT8] = {.name = "oneDNN int8", .call = call_int8, .state = &s, .units = n},
        [F32] = {.name = "oneDNN f32", .call = call_f32, .state = &s, .units = n},
        [OPENBLAS] = {.name = "OpenBLAS f32", .call = call_openblas, .state = &s, .units = n},
        [CLOCK] = bench_clock_task(),
    };
    if ((status = bench_interleave(tasks, N_TASKS, rounds, error)))
        goto done;
    *out = (bench_layer_result){.shape = *shape,
                                .n_codebooks = s.c,
                                .clock_ghz = bench_clock_ghz(&tasks[CLOCK]),
                                .ours = tasks[OURS].ns,
                                .encode = tasks[ENCODE].ns,
                                .lookup = tasks[LOOKUP].ns,
                                .onednn_int8 = tasks[INT8].ns,
                                .onednn_f32 = tasks[F32].ns,
                                .openblas_f32 = tasks[OPENBLAS].ns};
    out->lookups_per_cycle = per_cycle((double)(s.c * shape->m), &out->lookup, out->clock_ghz);
    out->codes_per_cycle = per_cycle((double)s.c, &out->encode, out->clock_ghz);
    snprintf(out->isa, sizeof out->isa, "%s", nimbus_product_isa(s.product));
    snprintf(out->int8_how, sizeof out->int8_how, "%s", bench_product_how(s.int8));
    snprintf(out->f32_how, sizeof out->f32_how, "%s", bench_product_how(s.f32));
    snprintf(out->openblas_how, sizeof out->openblas_how, "%s", bench_product_how(s.openblas));
done:
    free_set(&s);
    return status;
}

nimbus_status bench_measure_peak(size_t rounds, bench_peak *out, nimbus_error *error)
{
    enum { TO_I32, TO_I8, CLOCK, N_TASKS };
    const bench_shape shape = {.n = 256, .d = 512, .m = 128, .v = 16, .bits = 7};
    const double n = (double)shape.n;
    layer_set s;
    nimbus_status status = make_set(&s, &shape, error);
    if (status)
        goto done;
    bench_task tasks[N_TASKS] = {
        [TO_I32] = {.name = "lookup to i32", .call = call_lookup_i32, .state = &s, .units = n},
        [TO_I8] = {.name = "lookup to i8", .call = call_lookup_i8, .state = &s, .units = n},
        [CLOCK] = bench_clock_task(),
    };
    if ((status = bench_interleave(tasks, N_TASKS, rounds, error)))
        goto done;
    const double count = (double)(s.c * shape.m);
    *out = (bench_peak){
        .shape = shape, .n_codebooks = s.c, .clock_ghz = bench_clock_ghz(&tasks[CLOCK])};
    out->to_i32 = per_cycle(count, &tasks[TO_I32].ns, out->clock_ghz);
    out->to_i8 = per_cycle(count, &tasks[TO_I8].ns, out->clock_ghz);
    snprintf(out->isa, sizeof out->isa, "%s", nimbus_product_isa(s.product));
done:
    free_set(&s);
    return status;
}
