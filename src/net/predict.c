/* predict.c - a net's outputs for every row of a data set */
#include "net/net.h"

#define BATCH 256

static void load_rows(const void *features, nimbus_dtype dtype, size_t first, size_t n, real *to)
{
    const uint8_t *bytes = features;
    const float *floats = features;
    for (size_t i = 0; i < n; i++)
        to[i] = dtype == NIMBUS_U8 ? (real)bytes[first + i] : (real)floats[first + i];
}

nimbus_status nimbus_net_predict(const nimbus_net *net, const nimbus_data *data, unsigned n_threads,
                                 float *outputs, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    const void *features = nimbus_data_features(data);
    size_t last = net->n_layers - 1, d = nimbus_shape_width(net->layers[0].shape);
    size_t m = nimbus_shape_width(net->layers[last].shape);
    nimbus_pass *pass = NULL;
    if (info->n_features != d)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data has rows of %zu values, the net reads %zu", info->n_features,
                           d);
    /* A pass without training changes nothing in the net but what RECORD layers collect. */
    nimbus_status status = nimbus_pass_new((nimbus_net *)net, 0, BATCH, n_threads, &pass, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t row = 0; row < info->n_rows; row += BATCH) {
        size_t n = info->n_rows - row < BATCH ? info->n_rows - row : BATCH;
        load_rows(features, info->dtype, row * d, n * d, nimbus_pass_input(pass));
        nimbus_pass_forward(pass, n, last);
        for (size_t i = 0; i < n * m; i++)
            outputs[row * m + i] = (float)pass->out[last][i];
    }
    nimbus_pass_free(pass);
    return NIMBUS_OK;
}
