/* image_live.c - channels and codebooks that matter
 *
 * From the scores backwards: a product needs what its used codebooks compare, a codebook is used if
 * it changes a channel that is needed. Nodes that work channel by channel have the channels of
 * their sources, all of them, so that what one reader of a value needs others carry along. */
#include <math.h>

#include "compile/image.h"

/* Whether codebook c adds different entries to some live channel. */
static bool matters(const nimbus_node *node, size_t c)
{
    size_t n = node->shape.channels, n_leaves = node->layer->lookup->n_leaves;
    const real *entries = node->tables + c * n_leaves * n;
    for (size_t k = 1; k < n_leaves; k++)
        for (size_t m = 0; m < n; m++)
            if (node->live[m] && nimbus_table_entry(entries[k * n + m], node->unit[m]) !=
                                     nimbus_table_entry(entries[m], node->unit[m]))
                return true;
    return false;
}

/* Whether comparison i looks at a value: there are thresholds among the values, or padding, which
 * decides otherwise than all of them. */
static bool looks(const nimbus_image_build *b, const nimbus_node *node, size_t i, size_t c)
{
    const nimbus_cut *cut = &node->cuts[i];
    if (!isinf(cut->at))
        return true;
    return nimbus_node_pads(node) &&
           b->nodes[nimbus_image_origin(b, node->sources[0], &c)].shifted &&
           (cut->at < 0) != node->zero_above[i];
}

static bool mark(bool *flag)
{
    bool changed = !*flag;
    *flag = true;
    return changed;
}

static bool mark_lookup(nimbus_image_build *b, nimbus_node *node)
{
    const nimbus_lookup *lookup = node->layer->lookup;
    const real *columns = nimbus_layer_param((nimbus_layer *)node->layer, "columns")->value;
    bool *live = b->nodes[node->sources[0]].live, changed = false;
    size_t n_nodes = lookup->n_leaves - 1;
    for (size_t c = 0; c < lookup->n_codebooks; c++) {
        if (!node->used[c] && matters(node, c))
            changed = node->used[c] = true;
        for (size_t i = c * n_nodes; node->used[c] && i < (c + 1) * n_nodes; i++) {
            size_t channel = nimbus_node_channel(node, (size_t)columns[i]);
            if (looks(b, node, i, channel))
                changed |= mark(&live[channel]);
        }
    }
    return changed;
}

/* Channel by channel: what lives in one place lives in the other. */
static bool equalise(bool *a, bool *b, size_t n)
{
    bool changed = false;
    for (size_t c = 0; c < n; c++)
        if (a[c] != b[c])
            changed = a[c] = b[c] = true;
    return changed;
}

static bool mark_all(bool *live, size_t n)
{
    bool changed = false;
    for (size_t c = 0; c < n; c++)
        changed |= mark(&live[c]);
    return changed;
}

static bool any(const bool *live, size_t n)
{
    for (size_t c = 0; c < n; c++)
        if (live[c])
            return true;
    return false;
}

static bool mark_node(nimbus_image_build *b, nimbus_node *node)
{
    bool changed = false;
    size_t at = 0;
    if (node->kind == NIMBUS_NODE_LOOKUP)
        return mark_lookup(b, node);
    if (node->kind == NIMBUS_NODE_EXACT && !node->plain) {
        if (!any(node->live, node->shape.channels))
            return false;
        changed = mark_all(b->nodes[node->sources[0]].live, node->in.channels);
        return node->groups > 1 ? changed | mark_all(node->live, node->shape.channels) : changed;
    }
    for (size_t k = 0; k < node->n_sources; k++) {
        nimbus_node *source = &b->nodes[node->sources[k]];
        changed |= equalise(node->live + at, source->live, source->shape.channels);
        at += node->kind == NIMBUS_NODE_CONCAT ? source->shape.channels : 0;
    }
    return changed;
}

static void mark_everything(nimbus_image_build *b)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t n = b->n_nodes; n-- > 1;)
            changed |= mark_node(b, &b->nodes[n]);
    }
}

void nimbus_image_live(nimbus_image_build *b)
{
    nimbus_node *last = &b->nodes[b->n_nodes - 1];
    (void)mark_all(last->live, last->shape.channels);
    (void)mark_all(b->nodes[0].live, b->nodes[0].shape.channels); /* rows are what they are */
    mark_everything(b);
    /* what nothing reads still has one channel, and one codebook */
    for (size_t n = b->n_nodes; n-- > 1;) {
        nimbus_node *node = &b->nodes[n];
        bool lookup = node->kind == NIMBUS_NODE_LOOKUP;
        bool idle = !any(node->live, node->shape.channels);
        node->live[0] |= idle;
        if (idle)
            mark_everything(b);
        if (lookup && !any(node->used, node->layer->lookup->n_codebooks)) {
            node->used[0] = true;
            mark_everything(b);
        }
    }
}

void nimbus_image_keep_constants(nimbus_node *node)
{
    size_t n = node->shape.channels;
    for (size_t c = 0; c < node->layer->lookup->n_codebooks; c++)
        for (size_t m = 0; !node->used[c] && m < n; m++)
            node->bias[m] += nimbus_table_entry(
                node->tables[c * node->layer->lookup->n_leaves * n + m], node->unit[m]);
}
