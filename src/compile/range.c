/* range.c - the values that occur in a net, for the scales of int8 values */
#include <math.h>
#include <string.h>

#include "compile/compile.h"

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

void nimbus_ranges_free(nimbus_ranges *ranges)
{
    nimbus_free(ranges->first);
    nimbus_free(ranges->channels);
    nimbus_free(ranges->inputs);
    memset(ranges, 0, sizeof *ranges);
}

static nimbus_status ranges_new(const nimbus_net *net, nimbus_ranges *out, nimbus_error *error)
{
    size_t d = nimbus_shape_width(net->layers[0].shape);
    out->first = nimbus_alloc(net->n_layers + 1, sizeof *out->first);
    for (size_t i = 0; out->first && i < net->n_layers; i++)
        out->first[i + 1] = out->first[i] + net->layers[i].shape.channels;
    size_t n = out->first ? out->first[net->n_layers] : 0;
    out->channels = nimbus_alloc(n, sizeof *out->channels);
    out->inputs = nimbus_alloc(d, sizeof *out->inputs);
    if (!out->first || !out->channels || !out->inputs)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to measure ranges");
    for (size_t i = 0; i < n; i++)
        out->channels[i] = (nimbus_range){.low = INFINITY, .high = -INFINITY};
    for (size_t i = 0; i < d; i++)
        out->inputs[i] = (nimbus_range){.low = INFINITY, .high = -INFINITY};
    return NIMBUS_OK;
}

static void widen_channels(const nimbus_layer *layer, const real *values, size_t n_rows,
                           nimbus_range *channels)
{
    size_t n = layer->shape.height * layer->shape.width;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < layer->shape.channels; c++)
            for (size_t i = 0; i < n; i++)
                widen(&channels[c], values[(r * layer->shape.channels + c) * n + i]);
}

nimbus_range nimbus_ranges_of_layer(const nimbus_ranges *ranges, size_t layer)
{
    nimbus_range all = {INFINITY, -INFINITY};
    for (size_t c = ranges->first[layer]; c < ranges->first[layer + 1]; c++) {
        all.low = ranges->channels[c].low < all.low ? ranges->channels[c].low : all.low;
        all.high = ranges->channels[c].high > all.high ? ranges->channels[c].high : all.high;
    }
    return all;
}

nimbus_status nimbus_ranges_measure(nimbus_net *net, const nimbus_data *data, size_t max_rows,
                                    size_t batch, unsigned n_threads, nimbus_ranges *out,
                                    nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t d = nimbus_shape_width(net->layers[0].shape);
    size_t n_rows = info->n_rows < max_rows ? info->n_rows : max_rows;
    nimbus_pass *pass = NULL;
    nimbus_status status;

    memset(out, 0, sizeof *out);
    if ((status = nimbus_calibration_check(net, data, error)) ||
        (status = nimbus_pass_new(net, 0, batch, n_threads, &pass, error)) ||
        (status = ranges_new(net, out, error)))
        goto done;
    for (size_t first = 0; first < n_rows; first += batch) {
        size_t n = n_rows - first < batch ? n_rows - first : batch;
        nimbus_rows_read(data, first, n, nimbus_pass_input(pass));
        for (size_t i = 0; i < n * d; i++)
            widen(&out->inputs[i % d], nimbus_pass_input(pass)[i]);
        nimbus_pass_forward(pass, n, net->n_layers - 1);
        for (size_t i = 0; i < net->n_layers; i++)
            widen_channels(&net->layers[i], pass->out[i], n, &out->channels[out->first[i]]);
    }
done:
    nimbus_pass_free(pass);
    if (status)
        nimbus_ranges_free(out);
    return status;
}
