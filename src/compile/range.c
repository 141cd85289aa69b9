/* range.c - the values that occur in a net, for the scales of exact int8 layers */
#include <math.h>

#include "compile/compile.h"

enum { BATCH = 256, MAX_ROWS = 4096 };

static void widen(nimbus_range *range, real value)
{
    range->low = (double)value < range->low ? (double)value : range->low;
    range->high = (double)value > range->high ? (double)value : range->high;
}

nimbus_status nimbus_calibration_check(const nimbus_net *net, const nimbus_data *data,
                                       nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t d = nimbus_shape_width(net->layers[0].shape);
    if (info->n_features != d || info->n_rows == 0)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "calibration data has %zu rows of %zu features, expected rows of %zu",
                           info->n_rows, info->n_features, d);
    return NIMBUS_OK;
}

nimbus_status nimbus_ranges_measure(nimbus_net *net, const nimbus_data *data, unsigned n_threads,
                                    nimbus_range **layers, nimbus_range **inputs,
                                    nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t d = nimbus_shape_width(net->layers[0].shape);
    size_t n_rows = info->n_rows < MAX_ROWS ? info->n_rows : MAX_ROWS;
    nimbus_pass *pass = NULL;
    nimbus_status status;

    *layers = NULL;
    *inputs = NULL;
    if ((status = nimbus_calibration_check(net, data, error)) ||
        (status = nimbus_pass_new(net, 0, BATCH, n_threads, &pass, error)))
        return status;
    *layers = nimbus_alloc(net->n_layers, sizeof **layers);
    *inputs = nimbus_alloc(d, sizeof **inputs);
    if (!*layers || !*inputs) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to measure ranges");
        goto done;
    }
    for (size_t i = 0; i < net->n_layers; i++)
        (*layers)[i] = (nimbus_range){.low = INFINITY, .high = -INFINITY};
    for (size_t i = 0; i < d; i++)
        (*inputs)[i] = (nimbus_range){.low = INFINITY, .high = -INFINITY};
    for (size_t first = 0; first < n_rows; first += BATCH) {
        size_t n = n_rows - first < BATCH ? n_rows - first : BATCH;
        nimbus_rows_read(data, first, n, nimbus_pass_input(pass));
        for (size_t i = 0; i < n * d; i++)
            widen(&(*inputs)[i % d], nimbus_pass_input(pass)[i]);
        nimbus_pass_forward(pass, n, net->n_layers - 1);
        for (size_t i = 0; i < net->n_layers; i++)
            for (size_t j = 0; j < n * nimbus_shape_width(net->layers[i].shape); j++)
                widen(&(*layers)[i], pass->out[i][j]);
    }
done:
    nimbus_pass_free(pass);
    if (status) {
        nimbus_free(*layers);
        nimbus_free(*inputs);
        *layers = *inputs = NULL;
    }
    return status;
}
