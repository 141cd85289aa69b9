/* openblas_forms.c - a product in 32-bit floats through OpenBLAS: sgemm, sgemv for one row
 *
 * The weights lie as the net has them, [M][D], or transposed, [D][M]: which is faster depends on
 * the size. One thread. */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

typedef struct blas_product {
    bench_product_spec spec; /* w and bias are its own */
    float *w, *bias;
    int transposed;
} blas_product;

static void free_product(void *state)
{
    blas_product *p = state;
    free(p->w);
    free(p->bias);
    free(p);
}

static void *make(const bench_product_spec *spec, int transposed)
{
    const size_t d = spec->d, m = spec->m;
    const float *w = spec->w;
    blas_product *p = spec->int8 ? NULL : calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = (blas_product){.spec = *spec, .transposed = transposed};
    p->w = aligned_alloc(64, (d * m * sizeof *p->w + 63) / 64 * 64);
    p->bias = malloc(m * sizeof *p->bias);
    if (!p->w || !p->bias) {
        free_product(p);
        return NULL;
    }
    memcpy(p->bias, spec->bias, m * sizeof *p->bias);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < d; j++)
            p->w[transposed ? j * m + i : i * d + j] = w[i * d + j];
    return p;
}

static void *make_plain(const bench_product_spec *spec)
{
    return make(spec, 0);
}

static void *make_transposed(const bench_product_spec *spec)
{
    return make(spec, 1);
}

static nimbus_status run(void *state, const void *x, void *y)
{
    const blas_product *p = state;
    const int n = (int)p->spec.n, d = (int)p->spec.d, m = (int)p->spec.m;
    if (n == 1 && p->transposed)
        cblas_sgemv(CblasRowMajor, CblasTrans, d, m, 1, p->w, m, x, 1, 0, y, 1);
    else if (n == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, m, d, 1, p->w, d, x, 1, 0, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, p->transposed ? CblasNoTrans : CblasTrans, n, m, d,
                    1, x, d, p->w, p->transposed ? m : d, 0, y, m);
    bench_finish_f32(y, p->spec.n, p->spec.m, p->bias, p->spec.relu);
    return NIMBUS_OK;
}

const bench_form bench_openblas_forms[2] = {
    {"weights as they are", make_plain, run, free_product},
    {"weights transposed", make_transposed, run, free_product},
};
