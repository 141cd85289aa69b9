/* build_lut.c - starts a net made of lookup layers: which columns trees read, thresholds, tables
 *
 * First layer, on images: a tree takes H random pixels of a small window whose centre is drawn in
 * proportion to the pixels' variance, in a span of the image if one is asked for; its thresholds
 * are the means of each column among the rows that reach the node. Other layers and other data:
 * columns are dealt out from shuffled decks, so all are read equally often. Behind batch norm
 * columns have mean 0 and deviation 1, which is where the thresholds of hidden layers begin. Noise
 * keeps trees of equal columns apart; its sizes are the best of a few tried on held-out rows of
 * Fashion-MNIST. */
#include <stdlib.h>
#include <string.h>

#include "net/internal.h"
#include "net/lookup.h"
#include "net/spec.h"

#define SAMPLE_ROWS   10000
#define FIRST_JITTER  0.1 /* standard deviations */
#define HIDDEN_JITTER 0.6
#define TEMPERATURE   0.3

/* Streams of random numbers, each with the layer's index in the upper half. */
enum { DECK = 1, CENTRE, PIXEL, JITTER, TABLE };

static uint64_t stream_of(size_t layer, unsigned purpose, uint32_t item)
{
    return (uint64_t)layer << 48 ^ (uint64_t)purpose << 40 ^ item;
}

/* Evenly spaced rows of the data, seen through the input layer; column statistics over them. */
struct sample {
    const nimbus_data_info *info;
    const uint8_t *bytes;
    const float *floats;
    const real *mean, *inverse_std;
    size_t n, stride;
    double *deviation; /* [D] */
    double floor;      /* least deviation that margins are divided by */
    size_t first, end; /* columns first .. end - 1 may be read */
    uint32_t *live;    /* those of them that vary; all if none does */
    size_t n_live;
};

static real sample_value(const struct sample *s, size_t row, size_t column)
{
    size_t at = row * s->stride * s->info->n_features + column;
    real x = s->bytes ? (real)s->bytes[at] : (real)s->floats[at];
    return (x - s->mean[column]) * s->inverse_std[column];
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Has s->first .. s->end - 1 be the n adjoining columns with the greatest sum of variances. */
static void choose_span(struct sample *s, size_t d, size_t n)
{
    double sum = 0, greatest = -1;
    for (size_t i = 0; i < d; i++) {
        sum += s->deviation[i] * s->deviation[i];
        if (i >= n)
            sum -= s->deviation[i - n] * s->deviation[i - n];
        if (i + 1 >= n && sum > greatest * (1 + 1e-9)) {
            greatest = sum;
            s->first = i + 1 - n;
        }
    }
    s->end = s->first + n;
}

/* span: columns that may be read, 0 for all. */
static nimbus_status sample_open(struct sample *s, nimbus_net *net, const nimbus_data *data,
                                 size_t span, nimbus_error *error)
{
    size_t d, rows;
    s->info = nimbus_data_get_info(data);
    d = s->info->n_features;
    rows = s->info->n_rows;
    s->bytes = s->info->dtype == NIMBUS_U8 ? nimbus_data_features(data) : NULL;
    s->floats = s->info->dtype == NIMBUS_U8 ? NULL : nimbus_data_features(data);
    s->mean = nimbus_layer_param(&net->layers[0], "mean")->value;
    s->inverse_std = nimbus_layer_param(&net->layers[0], "inverse_std")->value;
    s->stride = (rows + SAMPLE_ROWS - 1) / SAMPLE_ROWS;
    s->n = (rows + s->stride - 1) / s->stride;
    s->deviation = nimbus_alloc(d, sizeof *s->deviation);
    s->live = nimbus_alloc(d, sizeof *s->live);
    double *sorted = nimbus_alloc(2 * d, sizeof *sorted), *square = sorted ? sorted + d : NULL;
    if (!s->deviation || !s->live || !sorted) {
        nimbus_free(sorted);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the columns' statistics");
    }
    for (size_t r = 0; r < s->n; r++)
        for (size_t i = 0; i < d; i++) {
            double x = (double)sample_value(s, r, i);
            s->deviation[i] += x;
            square[i] += x * x;
        }
    for (size_t i = 0; i < d; i++) {
        double mean = s->deviation[i] / (double)s->n;
        double variance = square[i] / (double)s->n - mean * mean;
        s->deviation[i] = variance > 1e-12 ? sqrt(variance) : 0;
    }
    choose_span(s, d, span > 0 && span < d ? span : d);
    for (size_t i = s->first; i < s->end; i++)
        if (s->deviation[i] > 0) {
            sorted[s->n_live] = s->deviation[i];
            s->live[s->n_live++] = (uint32_t)i;
        }
    qsort(sorted, s->n_live, sizeof *sorted, compare_doubles);
    s->floor = s->n_live > 0 ? 0.05 * sorted[s->n_live / 2] : 1;
    if (s->n_live == 0)
        for (size_t i = s->first; i < s->end; i++)
            s->live[s->n_live++] = (uint32_t)i;
    nimbus_free(sorted);
    return NIMBUS_OK;
}

/* ---- columns ----------------------------------------------------------------------------- */

/* Deals H cards to every tree from decks shuffled anew when fewer than H are left. Only a deck
 * smaller than H gives a tree the same column twice. columns is [C][H]. */
static void deal_columns(uint32_t *deck, size_t n_cards, uint64_t seed, size_t layer,
                         size_t n_trees, size_t levels, uint32_t *columns)
{
    uint32_t n_decks = 0;
    size_t next = n_cards;
    for (size_t c = 0; c < n_trees; c++) {
        if (n_cards - next < levels) {
            nimbus_random_shuffle(seed, stream_of(layer, DECK, n_decks++), deck, n_cards);
            next = 0;
        }
        for (size_t h = 0; h < levels; h++)
            columns[c * levels + h] = deck[next++ % n_cards];
        next = next > n_cards ? n_cards : next;
    }
}

/* Start of a window of `side` around centre that stays within 0..length. */
static size_t window_start(size_t centre, size_t side, size_t length)
{
    size_t start = centre > side / 2 ? centre - side / 2 : 0;
    return start + side > length ? length - side : start;
}

/* The pixels of the window around position `centre`, all channels, that may be read; those that
 * vary if there are at least `enough`. */
static size_t list_window(const struct sample *s, size_t centre, size_t window, size_t enough,
                          uint32_t *pixels)
{
    size_t h = s->info->height, w = s->info->width, n = 0;
    size_t rows = window < h ? window : h, cols = window < w ? window : w;
    size_t y0 = window_start(centre / w, rows, h), x0 = window_start(centre % w, cols, w);
    for (int varying = 1; varying >= 0 && n < enough; varying--) {
        n = 0;
        for (size_t ch = 0; ch < s->info->channels; ch++)
            for (size_t y = y0; y < y0 + rows; y++)
                for (size_t x = x0; x < x0 + cols; x++) {
                    size_t column = (ch * h + y) * w + x;
                    if (column >= s->first && column < s->end &&
                        (!varying || s->deviation[column] > 0))
                        pixels[n++] = (uint32_t)column;
                }
    }
    if (n == 0) /* no pixel varies, and this one may not be read */
        pixels[n++] = (uint32_t)s->first;
    return n;
}

static nimbus_status choose_pixels(const struct sample *s, const nimbus_spec *spec, uint64_t seed,
                                   uint32_t *columns, nimbus_error *error)
{
    size_t area = s->info->height * s->info->width;
    uint32_t *pixels = nimbus_alloc(s->info->n_features, sizeof *pixels);
    double *upto = nimbus_alloc(area, sizeof *upto); /* variance of all pixels up to this one */
    if (!pixels || !upto) {
        nimbus_free(pixels);
        nimbus_free(upto);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to choose pixels");
    }
    for (size_t i = 0; i < area; i++) {
        upto[i] = i > 0 ? upto[i - 1] : 0;
        for (size_t column = i; column < s->info->n_features; column += area)
            if (column >= s->first && column < s->end)
                upto[i] += s->deviation[column] * s->deviation[column];
    }
    for (size_t c = 0; c < spec->trees[0]; c++) {
        double at = upto[area - 1] * nimbus_random_uniform(seed, stream_of(1, CENTRE, 0), c);
        size_t low = 0, high = area - 1;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (upto[middle] > at)
                high = middle;
            else
                low = middle + 1;
        }
        size_t n = list_window(s, low, spec->window, spec->levels, pixels);
        nimbus_random_shuffle(seed, stream_of(1, PIXEL, (uint32_t)c), pixels, n);
        for (size_t h = 0; h < spec->levels; h++)
            columns[c * spec->levels + h] = pixels[h % n];
    }
    nimbus_free(pixels);
    nimbus_free(upto);
    return NIMBUS_OK;
}

/* ---- thresholds and tables --------------------------------------------------------------- */

/* Walks the sample down one tree: the threshold of a node is the mean of its column among the rows
 * that reach it. node is [n], all 0; values of unreached nodes stay at the column's mean, 0. */
static void walk_tree(const struct sample *s, const uint32_t *columns, size_t levels,
                      uint32_t *node, real *thresholds)
{
    double sum[1 << NIMBUS_MAX_LEVELS];
    size_t count[1 << NIMBUS_MAX_LEVELS];
    for (size_t h = 0; h < levels; h++) {
        size_t first = ((size_t)1 << h) - 1;
        memset(sum, 0, sizeof sum);
        memset(count, 0, sizeof count);
        for (size_t r = 0; r < s->n; r++) {
            sum[node[r]] += (double)sample_value(s, r, columns[h]);
            count[node[r]]++;
        }
        for (size_t i = first; i < 2 * first + 1; i++)
            if (count[i] > 0)
                thresholds[i] = (real)(sum[i] / (double)count[i]);
        for (size_t r = 0; r < s->n; r++)
            node[r] = 2 * node[r] + 1 + (sample_value(s, r, columns[h]) > thresholds[node[r]]);
    }
}

/* Writes the columns of a layer's nodes, its margins, thresholds and tables. s: statistics of the
 * layer's inputs for the first one, else NULL. */
static nimbus_status start_trees(nimbus_layer *layer, size_t index, const struct sample *s,
                                 const uint32_t *columns, uint64_t seed, nimbus_error *error)
{
    size_t levels = layer->lookup->n_levels, n_nodes = layer->lookup->n_leaves - 1;
    real *column = nimbus_layer_param(layer, "columns")->value;
    real *margin = nimbus_layer_param(layer, "margin")->value;
    real *threshold = nimbus_layer_param(layer, "thresholds")->value;
    nimbus_param *tables = nimbus_layer_param(layer, "tables");
    uint32_t *node = nimbus_alloc(s ? s->n : 1, sizeof *node);
    if (!node)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory to start its trees",
                           layer->name);
    for (size_t c = 0; c < layer->lookup->n_codebooks; c++) {
        const uint32_t *own = columns + c * levels;
        if (s) {
            memset(node, 0, s->n * sizeof *node);
            walk_tree(s, own, levels, node, threshold + c * n_nodes);
        }
        for (size_t i = 0, h = 0; i < n_nodes; i++) {
            h += i + 1 == (size_t)2 << h; /* nodes 1, 3, 7, ... begin a level */
            size_t at = c * n_nodes + i;
            double deviation = s ? fmax(s->deviation[own[h]], s->floor) : 1;
            double jitter = s ? FIRST_JITTER * deviation : HIDDEN_JITTER;
            column[at] = (real)own[h];
            margin[at] = (real)(1 / deviation);
            threshold[at] +=
                (real)(jitter * nimbus_random_normal(seed, stream_of(index, JITTER, 0), at));
        }
    }
    /* C independent entries are summed: a variance of 1 / C each makes outputs of variance 1. */
    double deviation = 1 / sqrt((double)layer->lookup->n_codebooks);
    for (size_t i = 0; i < tables->n; i++)
        tables->value[i] =
            (real)(deviation * nimbus_random_normal(seed, stream_of(index, TABLE, 0), i));
    nimbus_free(node);
    return NIMBUS_OK;
}

/* Trees of the number-th linear layer, at `index` in the net. */
static nimbus_status start_layer(nimbus_net *net, size_t index, size_t number,
                                 const nimbus_spec *spec, struct sample *s, uint64_t seed,
                                 nimbus_error *error)
{
    nimbus_layer *layer = &net->layers[index];
    size_t levels = spec->levels, n_trees = spec->trees[number];
    size_t d = nimbus_shape_width(layer->in_shape);
    uint32_t *columns = NULL, *deck = NULL;
    nimbus_status status = nimbus_lookup_attach(layer, n_trees, levels, NIMBUS_TREE_SHARED, error);
    if (status != NIMBUS_OK)
        return status;
    layer->lookup->temperature = (real)TEMPERATURE;
    columns = nimbus_alloc(n_trees * levels, sizeof *columns);
    deck = nimbus_alloc(d, sizeof *deck);
    if (!columns || !deck) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory to choose columns",
                             layer->name);
        goto done;
    }
    for (size_t i = 0; i < d; i++)
        deck[i] = (uint32_t)i;
    if (number > 0)
        deal_columns(deck, d, seed, index, n_trees, levels, columns);
    else if (s->info->height * s->info->width > 1)
        status = choose_pixels(s, spec, seed, columns, error);
    else
        deal_columns(s->live, s->n_live, seed, index, n_trees, levels, columns);
    if (status == NIMBUS_OK)
        status = start_trees(layer, index, number == 0 ? s : NULL, columns, seed, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_set_state(net, index, NIMBUS_STATE_SOFT, error);
done:
    nimbus_free(columns);
    nimbus_free(deck);
    return status;
}

nimbus_status nimbus_lut_start(nimbus_net *net, const nimbus_spec *spec, const nimbus_data *data,
                               uint64_t seed, nimbus_error *error)
{
    struct sample s = {0};
    const nimbus_data_info *info = nimbus_data_get_info(data);
    if (spec->span > 0 && info->height * info->width == 1)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "span=%zu is for images, and the data has columns without an order",
                           spec->span);
    nimbus_status status = sample_open(&s, net, data, spec->span, error);
    for (size_t i = 0, number = 0; i < net->n_layers && status == NIMBUS_OK; i++)
        if (net->layers[i].type == &nimbus_layer_linear)
            status = start_layer(net, i, number++, spec, &s, seed, error);
    nimbus_free(s.deviation);
    nimbus_free(s.live);
    return status;
}
