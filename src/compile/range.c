/* range.c - the values that occur in a net, for the scales of int8 values */
#include <math.h>
#include <stdlib.h>
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
    nimbus_free(ranges->means);
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
    out->means = nimbus_alloc(n, sizeof *out->means);
    out->inputs = nimbus_alloc(d, sizeof *out->inputs);
    if (!out->first || !out->channels || !out->means || !out->inputs)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to measure ranges");
    for (size_t i = 0; i < n; i++)
        out->channels[i] = (nimbus_range){.low = INFINITY, .high = -INFINITY};
    for (size_t i = 0; i < d; i++)
        out->inputs[i] = (nimbus_range){.low = INFINITY, .high = -INFINITY};
    return NIMBUS_OK;
}

static void widen_channels(const nimbus_layer *layer, const real *values, size_t n_rows,
                           nimbus_range *channels, double *sums)
{
    size_t n = layer->shape.height * layer->shape.width;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < layer->shape.channels; c++)
            for (size_t i = 0; i < n; i++) {
                real value = values[(r * layer->shape.channels + c) * n + i];
                widen(&channels[c], value);
                sums[c] += (double)value / (double)n;
            }
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

/* What is called for every batch of rows. */
typedef void visitor(void *arg, const nimbus_pass *pass);

static nimbus_status visit_rows(nimbus_net *net, const nimbus_measure *measure, visitor *visit,
                                void *arg, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(measure->data);
    size_t n_rows = info->n_rows < measure->max_rows ? info->n_rows : measure->max_rows;
    nimbus_pass *pass = NULL;
    nimbus_status status;

    if ((status = nimbus_calibration_check(net, measure->data, error)) ||
        (status = nimbus_pass_new(net, 0, measure->batch, measure->n_threads, &pass, error)))
        return status;
    for (size_t first = 0; first < n_rows; first += measure->batch) {
        size_t n = n_rows - first < measure->batch ? n_rows - first : measure->batch;
        nimbus_rows_read(measure->data, first, n, nimbus_pass_input(pass));
        nimbus_pass_forward(pass, n, net->n_layers - 1);
        visit(arg, pass);
    }
    nimbus_pass_free(pass);
    return NIMBUS_OK;
}

static void widen_all(void *arg, const nimbus_pass *pass)
{
    nimbus_ranges *ranges = arg;
    size_t d = nimbus_shape_width(pass->net->layers[0].shape);
    const real *raw = nimbus_pass_input((nimbus_pass *)pass);
    for (size_t i = 0; i < pass->n_rows * d; i++)
        widen(&ranges->inputs[i % d], raw[i]);
    for (size_t i = 0; i < pass->net->n_layers; i++)
        widen_channels(&pass->net->layers[i], pass->out[i], pass->n_rows,
                       &ranges->channels[ranges->first[i]], &ranges->means[ranges->first[i]]);
    ranges->n_rows += pass->n_rows;
}

nimbus_status nimbus_ranges_measure(nimbus_net *net, const nimbus_measure *measure,
                                    nimbus_ranges *out, nimbus_error *error)
{
    nimbus_status status;
    memset(out, 0, sizeof *out);
    if ((status = ranges_new(net, out, error)) == NIMBUS_OK)
        status = visit_rows(net, measure, widen_all, out, error);
    for (size_t i = 0; status == NIMBUS_OK && i < out->first[net->n_layers]; i++)
        out->means[i] /= (double)out->n_rows;
    if (status)
        nimbus_ranges_free(out);
    return status;
}

/* ---- ranges that leave out what is rare and far ------------------------------------------------
 */

enum { BINS = 512, ROUNDS = 4 };

/* Values of every channel in bins of its range. */
typedef struct histograms {
    const nimbus_ranges *ranges;
    uint32_t *counts; /* [channels][BINS] */
} histograms;

static double width_of_bin(nimbus_range range)
{
    return (range.high - range.low) / BINS;
}

static void count_channel(const real *values, size_t n, nimbus_range range, uint32_t *counts)
{
    double width = width_of_bin(range);
    for (size_t i = 0; i < n && width > 0; i++) {
        double at = ((double)values[i] - range.low) / width;
        if (values[i] != 0) /* which every grid has */
            counts[at < 0 ? 0 : at >= BINS ? BINS - 1 : (size_t)at]++;
    }
}

static void count_all(void *arg, const nimbus_pass *pass)
{
    histograms *h = arg;
    for (size_t i = 0; i < pass->net->n_layers; i++) {
        const nimbus_layer *layer = &pass->net->layers[i];
        size_t n = layer->shape.height * layer->shape.width, channels = layer->shape.channels;
        for (size_t k = 0; k < pass->n_rows * channels; k++) {
            size_t c = h->ranges->first[i] + k % channels;
            count_channel(pass->out[i] + k * n, n, h->ranges->channels[c], h->counts + c * BINS);
        }
    }
}

/* Cuts off bins at one end while that costs less than the finer steps bring, the other end being
 * `fixed`: the best of the bins from `from` to `to`. */
static int best_end(const uint32_t *counts, int fixed, int from, int to, double total)
{
    double cut = 0, cut_sum = 0, error = 0, best = INFINITY;
    int best_at = from, way = to >= from ? 1 : -1;
    for (int at = from; at != to + way; at += way) {
        double n_steps = abs(fixed - at) + 1;
        double all = error + total * n_steps * n_steps / (12.0 * 255 * 255);
        if (all < best) {
            best = all;
            best_at = at;
        }
        /* everything cut off moves one bin further away: (x + 1)^2 = x^2 + 2 x + 1 */
        cut += counts[at];
        error += 2 * cut_sum + cut;
        cut_sum += cut;
    }
    return best_at;
}

/* The range whose 256 steps leave the least squared error. It keeps 0. */
static void narrow(const uint32_t *counts, nimbus_range *range)
{
    double width = width_of_bin(*range), total = 0;
    int low = 0, high = BINS - 1;
    if (!(width > 0))
        return;
    int zero = (int)fmin(fmax(floor(-range->low / width), 0), BINS - 1);
    for (int i = 0; i < BINS; i++)
        total += counts[i];
    for (int i = 0; i < ROUNDS; i++) {
        low = best_end(counts, high, 0, zero, total);
        high = best_end(counts, low, BINS - 1, zero, total);
    }
    range->high = high == BINS - 1 ? range->high : range->low + (high + 1) * width;
    range->low += low * width;
}

nimbus_status nimbus_ranges_narrow(nimbus_net *net, const nimbus_measure *measure,
                                   nimbus_ranges *ranges, nimbus_error *error)
{
    size_t n = ranges->first[net->n_layers];
    histograms h = {ranges, nimbus_alloc(n, BINS * sizeof *h.counts)};
    if (!h.counts)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to measure ranges");
    for (size_t i = 0; i < n; i++) {
        ranges->channels[i].low = fmin(ranges->channels[i].low, 0);
        ranges->channels[i].high = fmax(ranges->channels[i].high, 0);
    }
    nimbus_status status = visit_rows(net, measure, count_all, &h, error);
    for (size_t i = 0; i < n && status == NIMBUS_OK; i++)
        narrow(h.counts + i * BINS, &ranges->channels[i]);
    nimbus_free(h.counts);
    return status;
}
