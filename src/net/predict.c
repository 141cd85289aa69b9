/* predict.c - a net's outputs for every row of a data set
 *
 * A pass works in its net (RECORD layers collect rows, trees renew their column index); the
 * caller's is constant and may be used by other threads, so the pass gets a copy. */
#include "net/net.h"

#define BATCH 256

void nimbus_rows_read(const nimbus_data *data, size_t first, size_t n, real *out)
{
    size_t d = nimbus_data_get_info(data)->n_features;
    if (nimbus_data_get_info(data)->dtype == NIMBUS_U8) {
        const uint8_t *in = (const uint8_t *)nimbus_data_features(data) + first * d;
        for (size_t i = 0; i < n * d; i++)
            out[i] = in[i];
    } else {
        const float *in = (const float *)nimbus_data_features(data) + first * d;
        for (size_t i = 0; i < n * d; i++)
            out[i] = (real)in[i];
    }
}

nimbus_status nimbus_dtype_fits(const nimbus_net *net, const nimbus_data *data, nimbus_error *error)
{
    if (net->input_dtype == NIMBUS_U8 && nimbus_data_get_info(data)->dtype != NIMBUS_U8)
        return nimbus_fail(
            error, NIMBUS_ERR_MISMATCH,
            "the net reads whole numbers from 0 to 255 (u8), the data has f32 values");
    return NIMBUS_OK;
}

size_t nimbus_argmax(const real *y, size_t m)
{
    size_t best = 0;
    for (size_t j = 1; j < m; j++)
        if (y[j] > y[best])
            best = j;
    return best;
}

nimbus_status nimbus_net_predict(const nimbus_net *net, const nimbus_data *data, unsigned n_threads,
                                 float *outputs, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t last = net->n_layers - 1, d = nimbus_shape_width(net->layers[0].shape);
    size_t m = nimbus_shape_width(net->layers[last].shape);
    nimbus_net *copy = NULL;
    nimbus_pass *pass = NULL;
    if (info->n_features != d)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data has rows of %zu values, the net reads %zu", info->n_features,
                           d);
    nimbus_status status = nimbus_dtype_fits(net, data, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_copy(net, &copy, error);
    if (status == NIMBUS_OK)
        status = nimbus_pass_new(copy, 0, BATCH, n_threads, &pass, error);
    for (size_t row = 0; status == NIMBUS_OK && row < info->n_rows; row += BATCH) {
        size_t n = info->n_rows - row < BATCH ? info->n_rows - row : BATCH;
        nimbus_rows_read(data, row, n, nimbus_pass_input(pass));
        nimbus_pass_forward(pass, n, last);
        for (size_t i = 0; i < n * m; i++)
            outputs[row * m + i] = (float)pass->out[last][i];
    }
    nimbus_pass_free(pass);
    nimbus_net_free(copy);
    return status;
}
