/* image_product.c - the integers of products, and what leaves their sums on grids */
#include <math.h>
#include <stdlib.h>

#include "compile/image.h"

/* ---- tables ------------------------------------------------------------------------------------
 */

/* Scores leave no room for a batch norm behind the tables: it goes into them. */
static void fold_into_tables(const nimbus_node *node)
{
    nimbus_layer *layer = (nimbus_layer *)node->layer;
    nimbus_param *tables = nimbus_layer_param(layer, "tables");
    const real *rounded = nimbus_lookup_tables(layer);
    real *bias = nimbus_layer_param(layer, "bias")->value;
    size_t n = node->shape.channels;
    for (size_t i = 0; i < tables->n; i++)
        tables->value[i] = (real)((double)rounded[i] * node->post.a1[i % n]);
    for (size_t m = 0; m < n; m++)
        bias[m] = (real)((double)bias[m] * node->post.a1[m] + node->post.b1[m]);
}

static bool changes_scores(const nimbus_node *node)
{
    for (size_t m = 0; m < node->shape.channels; m++)
        if (node->scores && (node->post.a1[m] != 1 || node->post.b1[m] != 0))
            return true;
    return false;
}

static bool uniform(const real *scales, size_t m)
{
    for (size_t i = 1; i < m; i++)
        if (scales[i] != scales[0])
            return false;
    return true;
}

static nimbus_status lookup_units(const nimbus_image_build *b, nimbus_node *node,
                                  nimbus_error *error)
{
    nimbus_layer *layer = (nimbus_layer *)node->layer;
    nimbus_lookup *lookup = layer->lookup;
    const real *scales = nimbus_layer_param(layer, "scales")->value;
    size_t n = node->shape.channels;
    bool changed = changes_scores(node);

    if (changed)
        fold_into_tables(node);
    if (lookup->bits == 0 || changed || (node->scores && !uniform(scales, n))) {
        unsigned bits = lookup->bits ? lookup->bits : 8;
        nimbus_status status =
            nimbus_layer_quantise(layer, bits, node->scores, b->options->n_threads, error);
        if (status)
            return status;
    }
    node->tables = nimbus_lookup_tables(layer);
    const real *bias = nimbus_layer_param(layer, "bias")->value;
    for (size_t m = 0; m < n; m++) {
        node->unit[m] = (double)scales[m];
        node->constant[m] = (double)bias[m];
    }
    node->cuts = nimbus_alloc(lookup->n_codebooks * (lookup->n_leaves - 1), sizeof *node->cuts);
    node->zero_above = nimbus_alloc(lookup->n_codebooks * (lookup->n_leaves - 1), 1);
    node->splits = nimbus_alloc(lookup->n_codebooks * (lookup->n_leaves - 1), sizeof *node->splits);
    node->used = nimbus_alloc(lookup->n_codebooks, sizeof *node->used);
    if (!node->cuts || !node->zero_above || !node->splits || !node->used)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
    return NIMBUS_OK;
}

/* ---- weights -----------------------------------------------------------------------------------
 */

/* Taps of one group. */
static size_t depth_of(const nimbus_node *node)
{
    return node->in.channels / node->groups * nimbus_node_taps(node);
}

/* Weight d of output m of the net's layer. */
static double weight_at(const nimbus_node *node, const real *weight, size_t m, size_t d)
{
    double factor = node->scores ? node->post.a1[m] : 1;
    return factor * (weight ? (double)weight[m * depth_of(node) + d] : 1);
}

/* What an exact product reads: real = alpha * q + beta, and the mean q over the data. */
typedef struct channel {
    double alpha, beta, mean;
} channel;

static channel *read_channels(const nimbus_image_build *b, const nimbus_node *node)
{
    size_t i = node->layer->input[0];
    channel *channels = nimbus_alloc(node->in.channels, sizeof *channels);
    while (i > 0 && (nimbus_layer_changes_nothing(&b->net->layers[i]) ||
                     b->net->layers[i].type == &nimbus_layer_transpose ||
                     b->net->layers[i].type == &nimbus_layer_pad))
        i = b->net->layers[i].input[0];
    for (size_t c = 0; channels && c < node->in.channels; c++) {
        channel *of = &channels[c];
        nimbus_image_affine(b, node->sources[0], c, &of->alpha, &of->beta);
        if (of->alpha != 0 && b->net->layers[i].shape.channels == node->in.channels)
            of->mean = (b->ranges.means[b->ranges.first[i] + c] - of->beta) / of->alpha;
    }
    return channels;
}

/* Rounds the weights of an output in one unit. What rounding changes of the mean output goes into
 * the constant. */
static void round_weights(nimbus_node *node, const real *weight, const channel *group, size_t m)
{
    size_t depth = depth_of(node);
    for (size_t d = 0; d < depth; d++) {
        const channel *c = &group[nimbus_node_channel(node, d)];
        double w = weight_at(node, weight, m, d) * c->alpha / node->unit[m], q = rint(w);
        node->weight[m * depth + (node->order ? node->order[d] : d)] = (int8_t)q;
        node->constant[m] += (w - q) * node->unit[m] * c->mean;
    }
}

/* One unit per output, one for all of the scores. */
static nimbus_status exact_units(const nimbus_image_build *b, nimbus_node *node,
                                 nimbus_error *error)
{
    nimbus_layer *layer = (nimbus_layer *)node->layer;
    size_t n = node->shape.channels, depth = depth_of(node);
    size_t per_group = n / node->groups, in_group = node->in.channels / node->groups;
    const real *weight = node->plain ? NULL : nimbus_layer_param(layer, "weight")->value;
    const real *bias = node->plain ? NULL : nimbus_layer_param(layer, "bias")->value;
    channel *channels = read_channels(b, node);
    double widest = 0;

    node->weight = nimbus_alloc(n, depth);
    if (!channels || !node->weight) {
        nimbus_free(channels);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
    }
    for (size_t m = 0; m < n; m++) {
        const channel *group = channels + m / per_group * in_group;
        double largest = 0;
        node->constant[m] = bias ? (double)bias[m] : 0;
        if (node->scores)
            node->constant[m] = node->constant[m] * node->post.a1[m] + node->post.b1[m];
        for (size_t d = 0; d < depth; d++) {
            const channel *c = &group[nimbus_node_channel(node, d)];
            double w = weight_at(node, weight, m, d);
            largest = fmax(largest, fabs(w * c->alpha));
            node->constant[m] += w * c->beta;
        }
        node->unit[m] = largest > 0 ? largest / 127 : 1;
        widest = largest > 0 ? fmax(widest, node->unit[m]) : widest;
    }
    for (size_t m = 0; m < n; m++) {
        if (node->scores && widest > 0)
            node->unit[m] = widest;
        round_weights(node, weight, channels + m / per_group * in_group, m);
    }
    nimbus_free(channels);
    return NIMBUS_OK;
}

/* Makes shifted sums rise with the real value. */
static void turn_falling(nimbus_node *node)
{
    size_t depth = node->kind == NIMBUS_NODE_EXACT ? depth_of(node) : 0;
    for (size_t m = 0; m < node->shape.channels; m++) {
        if (!(node->post.a1[m] * node->post.a2[m] * node->unit[m] < 0))
            continue;
        node->unit[m] = -node->unit[m];
        for (size_t d = 0; d < depth; d++)
            node->weight[m * depth + d] = (int8_t)-node->weight[m * depth + d];
    }
}

nimbus_status nimbus_image_units(nimbus_image_build *b, nimbus_node *node, nimbus_error *error)
{
    nimbus_status status = node->kind == NIMBUS_NODE_LOOKUP ? lookup_units(b, node, error)
                                                            : exact_units(b, node, error);
    if (status == NIMBUS_OK && node->shifted)
        turn_falling(node);
    return status;
}

/* ---- outputs -----------------------------------------------------------------------------------
 */

static nimbus_status output_scores(nimbus_image_build *b, nimbus_node *node, nimbus_error *error)
{
    node->output = NIMBUS_OUT_I32;
    b->output_scale = (float)node->unit[0];
    for (size_t m = 0; m < node->shape.channels; m++) {
        double bias = rint(node->constant[m] / node->unit[m]);
        if (!(fabs(bias) <= INT32_MAX))
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "layer %s: the bias of output %zu is %.4g steps of its tables or "
                               "weights, more than 32 bits hold",
                               node->layer->name, m, bias);
        node->bias[m] = (int32_t)bias;
    }
    return NIMBUS_OK;
}

/* Sums, of a product or an average, onto the grid of the node or of what its function reads. */
static void output_scaled(nimbus_node *node)
{
    const nimbus_post *post = &node->post;
    node->output = NIMBUS_OUT_SCALED;
    for (size_t m = 0; m < node->shape.channels; m++) {
        double step = node->mapped ? node->map_step : node->step[m];
        double zero = node->mapped ? -128 - node->map_low / step : node->zero[m];
        node->scale[m] = post->a1[m] * node->unit[m] / step;
        node->offset[m] = (post->a1[m] * node->constant[m] + post->b1[m]) / step + zero;
    }
}

/* Largest entry of every output of the tables, in steps of the grid; 0 for one that is 0
 * throughout.
 */
static double largest_entry(const nimbus_node *node, const nimbus_param *tables, size_t m)
{
    size_t n = node->shape.channels;
    double largest = 0;
    for (size_t i = m; i < tables->n; i += n)
        largest = fmax(largest, fabs((double)tables->value[i]));
    return largest * fabs(node->post.a1[m]) / node->step[m];
}

/* Tables in fractions 2^-shift of the grid, so that shifted sums are on it already. Only where that
 * makes no entry much coarser: at most twice, or so little that the rounding of C entries is lost
 * beside that of the sum. */
static bool output_on_grid(nimbus_node *node)
{
    const nimbus_lookup *lookup = node->layer->lookup;
    const nimbus_param *tables = nimbus_layer_param((nimbus_layer *)node->layer, "tables");
    size_t n = node->shape.channels;
    double most = lookup->bits <= 4 ? 7 : 127, largest = 0, coarsest = 0;
    uint32_t shift = 0;
    for (size_t m = 0; m < n; m++)
        largest = fmax(largest, largest_entry(node, tables, m));
    if (node->mapped || !(largest > 0) || largest > most)
        return false;
    while (shift < NIMBUS_MAX_SHIFT && ldexp(largest, (int)shift + 1) <= most)
        shift++;
    for (size_t m = 0; m < n; m++) {
        double own = node->unit[m] * fabs(node->post.a1[m]);
        double bias =
            ldexp((node->post.a1[m] * node->constant[m] + node->post.b1[m]) / node->step[m] +
                      node->zero[m],
                  (int)shift);
        if (own > 0 && largest_entry(node, tables, m) > 0)
            coarsest = fmax(coarsest, ldexp(node->step[m], -(int)shift) / own);
        if (!(fabs(bias) < INT32_MAX / 2))
            return false;
    }
    if (coarsest > 2 && (double)lookup->n_codebooks > 0.25 * ldexp(1, 2 * (int)shift))
        return false;
    double half = shift > 0 ? 0.5 : 0; /* shifting rounds down */
    node->output = NIMBUS_OUT_SHIFT;
    node->shift = shift;
    node->tables = tables->value;
    for (size_t m = 0; m < n; m++) {
        double bias = (node->post.a1[m] * node->constant[m] + node->post.b1[m]) / node->step[m];
        node->bias[m] = (int32_t)lrint(ldexp(bias + node->zero[m] + half, (int)shift));
        node->unit[m] = ldexp(node->step[m], -(int)shift) / node->post.a1[m];
    }
    return true;
}

static nimbus_status check_scaled(const nimbus_node *node, nimbus_error *error)
{
    for (size_t m = 0; m < node->shape.channels; m++)
        if (!isfinite((float)node->scale[m]) || !isfinite((float)node->offset[m]))
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "layer %s: output %zu is %g + %g a step, more than floats hold",
                               node->layer->name, m, node->offset[m], node->scale[m]);
    return NIMBUS_OK;
}

nimbus_status nimbus_image_outputs(nimbus_image_build *b, nimbus_node *node, nimbus_error *error)
{
    if (node->scores)
        return output_scores(b, node, error);
    if (node->shifted || node->kind == NIMBUS_NODE_MAX_POOL || node->kind == NIMBUS_NODE_CONCAT ||
        node->kind == NIMBUS_NODE_ADD)
        return NIMBUS_OK;
    for (size_t m = 0; node->kind == NIMBUS_NODE_AVERAGE_POOL && m < node->shape.channels; m++) {
        nimbus_image_affine(b, node->sources[0], m, &node->unit[m], &node->constant[m]);
        node->unit[m] /= (double)nimbus_node_taps(node);
    }
    if (node->kind == NIMBUS_NODE_LOOKUP && output_on_grid(node))
        return NIMBUS_OK;
    output_scaled(node);
    return check_scaled(node, error);
}
