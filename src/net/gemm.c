/* gemm.c - matrix products through BLAS, the same bits for any number of threads
 *
 * BLAS runs on one thread (nimbus_blas_alone); C is cut into tiles here, and a tile is one call.
 * The cut depends on m, n and k only, so every element is always summed in the same order. Tiles
 * are few and large, because every call packs its operands anew. */
#include <cblas.h>

#include "net/internal.h"

#ifdef NIMBUS_REAL_DOUBLE
#define blas_gemm cblas_dgemm
#else
#define blas_gemm cblas_sgemm
#endif

#define MIN_TILE 32 /* rows or columns of a tile, at least: some blocks of the BLAS kernel */

void nimbus_blas_alone(void)
{
    openblas_set_num_threads(1);
}

struct product {
    bool trans_a, trans_b;
    size_t m, n, k, tile_m, tile_n, n_tiles_n;
    real alpha, beta;
    const real *a, *b;
    real *c;
    size_t lda, ldb, ldc;
};

static void run_tile(void *arg, size_t i)
{
    const struct product *p = arg;
    size_t m0 = i / p->n_tiles_n * p->tile_m, n0 = i % p->n_tiles_n * p->tile_n;
    size_t m = p->m - m0 < p->tile_m ? p->m - m0 : p->tile_m;
    size_t n = p->n - n0 < p->tile_n ? p->n - n0 : p->tile_n;
    const real *a = p->a + (p->trans_a ? m0 : m0 * p->lda);
    const real *b = p->b + (p->trans_b ? n0 * p->ldb : n0);
    blas_gemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans,
              p->trans_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)p->k,
              p->alpha, a, (blasint)p->lda, b, (blasint)p->ldb, p->beta, p->c + m0 * p->ldc + n0,
              (blasint)p->ldc);
}

/* A second thread pays from about 10 microseconds of work on. Two to sixteen tiles were measured
 * on the products of a 784-512-512-10 net at batch 256: within 5 % of each other, 4 the best. */
static size_t count_tiles(size_t multiply_adds)
{
    if (multiply_adds < (size_t)1 << 19)
        return 1;
    if (multiply_adds < (size_t)1 << 24)
        return 2;
    return multiply_adds < (size_t)1 << 28 ? 4 : 16;
}

/* Length of the pieces when `length` is cut into about n_pieces, a multiple of 16. */
static size_t piece(size_t length, size_t n_pieces)
{
    size_t size = (length + n_pieces - 1) / n_pieces;
    return size < MIN_TILE ? MIN_TILE : (size + 15) / 16 * 16;
}

void nimbus_gemm(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, real alpha,
                 const real *a, size_t lda, const real *b, size_t ldb, real beta, real *c,
                 size_t ldc, unsigned n_threads)
{
    if (m == 0 || n == 0)
        return;
    struct product p = {trans_a, trans_b, m, n, k, m, n, 1, alpha, beta, a, b, c, lda, ldb, ldc};
    size_t n_tiles = count_tiles(m * n * k);
    if (m >= n)
        p.tile_m = piece(m, n_tiles);
    else
        p.tile_n = piece(n, n_tiles);
    p.n_tiles_n = (n + p.tile_n - 1) / p.tile_n;
    nimbus_parallel(n_threads, (m + p.tile_m - 1) / p.tile_m * p.n_tiles_n, run_tile, &p);
}
