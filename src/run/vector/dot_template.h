/* dot_template.h - exact i8 products: a few rows times a few rows of weights at a time
 *
 * Widened to 16 bits first: the instruction that multiplies bytes saturates its pairs. */

#define DOT_OUTPUTS 4

HELPER void dot(const int8_t *x, size_t x_stride, const size_t R, const int8_t *weights,
                size_t n_inputs, const size_t Q, const int32_t *bias, int32_t *sums,
                size_t sums_stride)
{
    vec total[2][DOT_OUTPUTS];
    UNROLL
    for (size_t r = 0; r < R; r++) {
        UNROLL
        for (size_t q = 0; q < Q; q++)
            total[r][q] = v_zero();
    }
    for (size_t d = 0; d < n_inputs; d += LANES / 2) {
        vec row[2];
        UNROLL
        for (size_t r = 0; r < R; r++)
            row[r] = v_load_wide8(x + r * x_stride + d);
        UNROLL
        for (size_t q = 0; q < Q; q++) {
            vec weight = v_load_wide8(weights + q * n_inputs + d);
            UNROLL
            for (size_t r = 0; r < R; r++)
                total[r][q] = v_add32(total[r][q], v_multiply_add16(row[r], weight));
        }
    }
    UNROLL
    for (size_t r = 0; r < R; r++) {
        UNROLL
        for (size_t q = 0; q < Q; q++)
            sums[r * sums_stride + q] = bias[q] + v_sum32(total[r][q]);
    }
}

TARGET void KERNEL(dot_i8i32)(const int8_t *x, size_t x_stride, size_t n_rows,
                              const int8_t *weights, size_t n_inputs, size_t n_outputs,
                              const int32_t *bias, int32_t *sums, size_t sums_stride)
{
    size_t m = 0;
    for (; m + DOT_OUTPUTS <= n_outputs; m += DOT_OUTPUTS) {
        const int8_t *w = weights + m * n_inputs;
        size_t r = 0;
        for (; r + 2 <= n_rows; r += 2)
            dot(x + r * x_stride, x_stride, 2, w, n_inputs, DOT_OUTPUTS, bias + m,
                sums + r * sums_stride + m, sums_stride);
        if (r < n_rows)
            dot(x + r * x_stride, x_stride, 1, w, n_inputs, DOT_OUTPUTS, bias + m,
                sums + r * sums_stride + m, sums_stride);
    }
    for (; m < n_outputs; m++)
        for (size_t r = 0; r < n_rows; r++)
            dot(x + r * x_stride, x_stride, 1, weights + m * n_inputs, n_inputs, 1, bias + m,
                sums + r * sums_stride + m, sums_stride);
}
