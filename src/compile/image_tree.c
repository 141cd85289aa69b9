/* image_tree.c - comparisons in the integers of what trees read, and sums made for trees
 *
 * A comparison with the real value is pulled back to where the value was made: to sums of a
 * shifted product, or to numbers of a grid. Trees look at padding too, which stands for the real 0:
 * the i8 chosen for it decides every comparison of its channel as 0 does. Where a function never
 * yields values on the other side of a threshold than 0 is, or 0 itself, that is a number which
 * no value has, at the end of the range, and values are clamped to stay off it. */
#include <math.h>

#include "compile/image.h"

static size_t count_nodes(const nimbus_node *node)
{
    return node->layer->lookup->n_codebooks * (node->layer->lookup->n_leaves - 1);
}

static const real *columns_of(const nimbus_node *node)
{
    return nimbus_layer_param((nimbus_layer *)node->layer, "columns")->value;
}

/* Where the value that comparison i reads was made; sets the channel there. */
static nimbus_node *origin_of(const nimbus_image_build *b, const nimbus_node *node, size_t i,
                              size_t *channel)
{
    *channel = nimbus_node_channel(node, (size_t)columns_of(node)[i]);
    return &b->nodes[nimbus_image_origin(b, node->sources[0], channel)];
}

/* Cut of `value > t` in numbers of a grid. */
static nimbus_cut cut_on_grid(const nimbus_node *origin, size_t c, double t)
{
    nimbus_cut cut = nimbus_cut_affine(origin->post.a2[c], origin->post.b2[c], t);
    if (isinf(cut.at))
        return cut;
    /* rounded before zero is added: 0 lies exactly at zero, and is not above a threshold of 0 */
    double at = cut.at / origin->step[c];
    bool whole = origin->zero[c] == rint(origin->zero[c]);
    if (whole)
        at = cut.flipped ? ceil(at) : floor(at);
    cut.at = at + origin->zero[c];
    return cut;
}

/* The same for the input, whose u8 values are decided as the net does. */
static nimbus_cut cut_of_input(const nimbus_image_build *b, const nimbus_node *input, size_t c,
                               real t)
{
    nimbus_layer *layer = &b->net->layers[0];
    size_t d = c * input->shape.height * input->shape.width;
    if (b->net->input_dtype != NIMBUS_U8 || input->affine_after)
        return cut_on_grid(input, c, (double)t);
    return nimbus_cut_u8(nimbus_layer_param(layer, "mean")->value[d],
                         nimbus_layer_param(layer, "inverse_std")->value[d], t);
}

static nimbus_cut cut_of_sum(const nimbus_node *origin, size_t c, double t)
{
    nimbus_cut cut = nimbus_post_cut(&origin->post, c, t);
    if (isinf(cut.at))
        return cut;
    cut.at = (cut.at - origin->constant[c]) / origin->unit[c];
    cut.flipped = false; /* turned already */
    return cut;
}

/* A comparison that no sum can change becomes a constant, so that it widens no range. */
static void settle(const nimbus_cut *reach, nimbus_cut *cut)
{
    if (reach[0].at > cut->at)
        cut->at = -INFINITY;
    else if (reach[1].at <= cut->at)
        cut->at = INFINITY;
}

static void reach_of(const nimbus_node *origin, double *low, double *high)
{
    size_t n = origin->shape.channels;
    size_t depth = origin->kind == NIMBUS_NODE_EXACT
                       ? origin->in.channels / origin->groups * nimbus_node_taps(origin)
                       : 0;
    for (size_t m = 0; m < n; m++)
        low[m] = high[m] = 0;
    if (origin->kind == NIMBUS_NODE_LOOKUP)
        nimbus_tables_reach(origin->layer, origin->tables, origin->unit, NULL, low, high);
    for (size_t m = 0; m < n && depth > 0; m++) {
        for (size_t d = 0; d < depth; d++)
            high[m] += 128 * fabs((double)origin->weight[m * depth + d]);
        low[m] = -high[m];
    }
}

nimbus_status nimbus_image_cuts(nimbus_image_build *b, nimbus_node *node, nimbus_error *error)
{
    const real *thresholds = nimbus_layer_param((nimbus_layer *)node->layer, "thresholds")->value;
    size_t n = count_nodes(node), last = SIZE_MAX, widest = 0;
    for (size_t k = 0; k < b->n_nodes; k++)
        widest = b->nodes[k].shape.channels > widest ? b->nodes[k].shape.channels : widest;
    double *low = nimbus_alloc(2 * widest, sizeof *low);
    if (!low)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", node->layer->name);
    for (size_t i = 0; i < n; i++) {
        size_t c;
        const nimbus_node *origin = origin_of(b, node, i, &c);
        nimbus_cut *cut = &node->cuts[i];
        node->zero_above[i] = 0 > thresholds[i];
        if (origin->kind == NIMBUS_NODE_INPUT) {
            *cut = cut_of_input(b, origin, c, thresholds[i]);
        } else if (!origin->shifted) {
            *cut = cut_on_grid(origin, c, (double)thresholds[i]);
        } else {
            *cut = cut_of_sum(origin, c, (double)thresholds[i]);
            if (last != (size_t)(origin - b->nodes))
                reach_of(origin, low, low + widest);
            last = (size_t)(origin - b->nodes);
            settle((nimbus_cut[2]){{.at = low[c]}, {.at = low[widest + c]}}, cut);
        }
    }
    nimbus_free(low);
    return NIMBUS_OK;
}

/* ---- sums for trees ----------------------------------------------------------------------------
 */

/* Whether comparison i of a used codebook has a threshold among the sums of this origin. */
static bool splits_sums(const nimbus_image_build *b, const nimbus_node *node, size_t i,
                        const nimbus_node *origin, size_t *channel)
{
    return node->used[i / (node->layer->lookup->n_leaves - 1)] &&
           origin_of(b, node, i, channel) == origin && !isinf(node->cuts[i].at);
}

/* Each live channel's bias centres its thresholds, one shift brings the widest spread into i8, with
 * the ends left for padding. */
static nimbus_status shift_node(nimbus_image_build *b, nimbus_node *origin, nimbus_error *error)
{
    size_t n = origin->shape.channels;
    double *low = nimbus_alloc(2 * n, sizeof *low), widest = 0;
    if (!low)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", origin->layer->name);
    double *high = low + n;
    for (size_t m = 0; m < n; m++) {
        low[m] = INFINITY;
        high[m] = -INFINITY;
    }
    for (size_t k = 1; k < b->n_nodes; k++) {
        const nimbus_node *node = &b->nodes[k];
        for (size_t i = 0; node->kind == NIMBUS_NODE_LOOKUP && i < count_nodes(node); i++) {
            size_t m;
            if (!splits_sums(b, node, i, origin, &m))
                continue;
            low[m] = node->cuts[i].at < low[m] ? node->cuts[i].at : low[m];
            high[m] = node->cuts[i].at > high[m] ? node->cuts[i].at : high[m];
        }
    }
    for (size_t m = 0; m < n; m++)
        if (low[m] <= high[m] && (high[m] - low[m]) / 2 > widest)
            widest = (high[m] - low[m]) / 2;
    origin->output = NIMBUS_OUT_SHIFT;
    while (origin->shift < NIMBUS_MAX_SHIFT && widest > ldexp(125, (int)origin->shift))
        origin->shift++;
    for (size_t m = 0; m < n; m++)
        if (low[m] <= high[m])
            origin->bias[m] = (int32_t)lrint(-(low[m] + high[m]) / 2);
    nimbus_free(low);
    return NIMBUS_OK;
}

nimbus_status nimbus_image_shifts(nimbus_image_build *b, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t n = 1; n < b->n_nodes && status == NIMBUS_OK; n++)
        if (b->nodes[n].shifted)
            status = shift_node(b, &b->nodes[n], error);
    return status;
}

/* ---- thresholds and padding --------------------------------------------------------------------
 */

/* Numbers that padding of a channel may be: above all thresholds that 0 is above, not above the
 * others. */
typedef struct choice {
    double least, most;
} choice;

/* Threshold in numbers of the value that is read. */
static double threshold_of(const nimbus_node *origin, size_t c, nimbus_cut cut)
{
    double t = cut.flipped ? ceil(cut.at) - 1 : floor(cut.at);
    return origin->shifted ? nimbus_shifted_threshold(t, origin->bias[c], origin->shift) : t;
}

/* Decides as all values do, unless padding does otherwise: then they split at the end of the range,
 * which values of a shifted node stay off. */
static nimbus_branch decide(nimbus_node *origin, size_t c, nimbus_cut cut, bool padded,
                            bool zero_above)
{
    nimbus_branch split = {.flipped = cut.flipped};
    double t = isinf(cut.at) ? cut.at : threshold_of(origin, c, cut);
    if (t >= -128 && t < 127) {
        split.threshold = t;
        return split;
    }
    bool right = (t < -128) != cut.flipped;
    if (padded && right != zero_above && origin->shifted) {
        split.threshold = right ? -128 : 126;
        origin->low = right ? -127 : origin->low;
        origin->high = right ? origin->high : 126;
        return split;
    }
    split.decision = right ? NIMBUS_DECIDE_RIGHT : NIMBUS_DECIDE_LEFT;
    return split;
}

static void narrow(choice *pad, nimbus_branch split, bool zero_above)
{
    bool above = zero_above != split.flipped;
    if (split.decision != NIMBUS_DECIDE_SPLIT)
        return;
    if (above && split.threshold + 1 > pad->least)
        pad->least = split.threshold + 1;
    if (!above && split.threshold < pad->most)
        pad->most = split.threshold;
}

/* The number for the padding of a channel, as near as can be to `nearest`. */
static int8_t choose(choice pad, double nearest)
{
    if (pad.least > pad.most) /* 0 lies between two thresholds that no number lies between */
        return (int8_t)fmin(fmax(nearest, pad.most), pad.least);
    return (int8_t)fmin(fmax(nearest, pad.least), pad.most);
}

nimbus_status nimbus_image_splits(nimbus_image_build *b, nimbus_node *node, nimbus_error *error)
{
    size_t n_nodes = node->layer->lookup->n_leaves - 1, n = node->in.channels;
    choice *pads = nimbus_alloc(n, sizeof *pads);
    node->pad = nimbus_alloc(n, 1);
    if (!pads || !node->pad) {
        nimbus_free(pads);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", node->layer->name);
    }
    for (size_t c = 0; c < n; c++)
        pads[c] = (choice){-128, 127};
    for (size_t i = 0; i < count_nodes(node); i++) {
        size_t c;
        nimbus_node *origin = origin_of(b, node, i, &c);
        if (!node->used[i / n_nodes])
            continue;
        node->splits[i] =
            decide(origin, c, node->cuts[i], nimbus_node_pads(node), node->zero_above[i]);
        narrow(&pads[nimbus_node_channel(node, (size_t)columns_of(node)[i])], node->splits[i],
               node->zero_above[i]);
    }
    for (size_t c = 0; c < n; c++) {
        size_t channel = c;
        const nimbus_node *origin = &b->nodes[nimbus_image_origin(b, node->sources[0], &channel)];
        node->pad[c] = choose(
            pads[c], origin->shifted ? 0 : (double)nimbus_image_zero(b, node->sources[0], c));
    }
    nimbus_free(pads);
    return NIMBUS_OK;
}
