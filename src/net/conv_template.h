/* conv_template.h - the kernels of conv.h for one width of registers
 *
 * Included by conv_kernels.c with NAME(x), TARGET (attributes), LANES, and ROWS: how many sums of
 * two registers each stay in registers. */

typedef real NAME(vector) __attribute__((vector_size(LANES * sizeof(real))));
typedef real NAME(unaligned)
    __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

/* n_rows sums of n_vectors registers at position p; both are constants where this is called. */
TARGET static inline __attribute__((always_inline)) void
NAME(sum_block)(const struct nimbus_conv_sum *a, size_t first, size_t p, const size_t n_rows,
                const size_t n_vectors)
{
    NAME(vector) sum[NIMBUS_CONV_BLOCK][2];
    const real *weight = a->weight + first;
    for (size_t b = 0; b < n_rows; b++)
        for (size_t v = 0; v < n_vectors; v++)
            sum[b][v] = (NAME(vector)){0};
    for (size_t c = 0; c < a->n; c++)
        for (size_t t = 0; t < a->n_taps; t++, weight += NIMBUS_CONV_BLOCK) {
            const real *src = a->src + c * a->plane + a->offset[t] + p;
            NAME(vector) x[2];
            for (size_t v = 0; v < n_vectors; v++)
                x[v] = *(const NAME(unaligned) *)(src + v * LANES);
            for (size_t b = 0; b < n_rows; b++)
                for (size_t v = 0; v < n_vectors; v++)
                    sum[b][v] += weight[b] * x[v];
        }
    for (size_t b = 0; b < n_rows; b++)
        for (size_t v = 0; v < n_vectors; v++)
            *(NAME(unaligned) *)(a->out + (first + b) * a->out_plane + p + v * LANES) = sum[b][v];
}

TARGET static void NAME(sum)(const struct nimbus_conv_sum *a)
{
    size_t n = a->n_positions, p = 0;
    if (a->n_sums == 1) {
        for (; p < n; p += 2 * LANES)
            NAME(sum_block)(a, 0, p, 1, 2);
        return;
    }
    for (; p + LANES < n; p += 2 * LANES)
        for (size_t first = 0; first < a->n_sums; first += ROWS)
            NAME(sum_block)(a, first, p, ROWS, 2);
    for (size_t first = 0; p < n && first < a->n_sums; first += ROWS)
        NAME(sum_block)(a, first, p, ROWS, 1);
}

/* Rows of products x dy^T for ROWS pairs of channel and tap, n_vectors registers wide. */
TARGET static inline __attribute__((always_inline)) void
NAME(product_block)(const struct nimbus_conv_product *a, const real *const *src, size_t n_pairs,
                    const real *dy, real *out, const size_t n_vectors)
{
    NAME(vector) sum[ROWS][2];
    for (size_t b = 0; b < ROWS; b++)
        for (size_t v = 0; v < n_vectors; v++)
            sum[b][v] = (NAME(vector)){0};
    for (size_t i = 0; i < a->n_images * a->height; i++) {
        size_t at = i / a->height * a->size + i % a->height * a->pitch;
        for (size_t j = 0; j < a->width; j++, dy += a->m_padded) {
            NAME(vector) d[2];
            for (size_t v = 0; v < n_vectors; v++)
                d[v] = *(const NAME(unaligned) *)(dy + v * LANES);
            for (size_t b = 0; b < ROWS; b++)
                for (size_t v = 0; v < n_vectors; v++)
                    sum[b][v] += src[b][at + j] * d[v];
        }
    }
    for (size_t b = 0; b < ROWS && b < n_pairs; b++)
        for (size_t v = 0; v < n_vectors; v++)
            *(NAME(unaligned) *)(out + b * a->m_padded + v * LANES) += sum[b][v];
}

TARGET static void NAME(product)(const struct nimbus_conv_product *a)
{
    size_t n_pairs = a->n * a->n_taps;
    for (size_t first = 0; first < n_pairs; first += ROWS) {
        const real *src[ROWS];
        for (size_t b = 0; b < ROWS; b++) {
            size_t pair = first + b < n_pairs ? first + b : first;
            src[b] = a->src + pair / a->n_taps * a->plane + a->offset[pair % a->n_taps];
        }
        size_t m = 0;
        real *out = a->out + first * a->m_padded;
        for (; m + LANES < a->m_padded; m += 2 * LANES)
            NAME(product_block)(a, src, n_pairs - first, a->dy + m, out + m, 2);
        if (m < a->m_padded)
            NAME(product_block)(a, src, n_pairs - first, a->dy + m, out + m, 1);
    }
}

TARGET static void NAME(dot)(const struct nimbus_conv_dot *a)
{
    for (size_t c = 0; c < a->n; c++)
        for (size_t t = 0; t < a->n_taps; t++) {
            const real *src = a->src + c * a->plane + a->offset[t];
            NAME(vector) sum[2] = {{0}, {0}};
            for (size_t p = 0; p < a->n_positions; p += 2 * LANES)
                for (size_t v = 0; v < 2; v++)
                    sum[v] += *(const NAME(unaligned) *)(a->dy + p + v * LANES) *
                              *(const NAME(unaligned) *)(src + p + v * LANES);
            sum[0] += sum[1];
            real total = 0;
            for (size_t v = 0; v < LANES; v++)
                total += sum[0][v];
            a->out[c * a->n_taps + t] += total;
        }
}

static const struct nimbus_conv_kernels NAME(kernels) = {LANES, NAME(sum), NAME(product),
                                                         NAME(dot)};

#undef NAME
#undef TARGET
#undef LANES
#undef ROWS
