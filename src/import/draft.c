/* draft.c - layers to be: added node by node, then merged with their neighbours
 *
 * What a node computes may turn out to be a part of something larger: a scale and shift belong to
 * the layer in front, a border of zeros to the convolution behind, x * clip(x + 3, 0, 6) / 6 is
 * hard_swish. So nodes make drafts first. */
#include <math.h>
#include <string.h>

#include "import/import.h"

#define MAX_DRAFTS (2 * (size_t)NIMBUS_MAX_LAYERS)

/* ---- adding -------------------------------------------------------------------------------- */

static bool only_moves(const nimbus_draft *d)
{
    return d->kind == DRAFT_LAYER &&
           (d->proto.type == &nimbus_layer_flatten || d->proto.type == &nimbus_layer_reshape ||
            d->proto.type == &nimbus_layer_transpose);
}

/* An earlier draft that moves the same values the same way; SIZE_MAX: there is none. */
static size_t find_same(const nimbus_importer *im, const nimbus_draft *d)
{
    for (size_t k = im->n_drafts; k-- > d->inputs[0];) {
        const nimbus_draft *e = &im->drafts[k];
        if (e->kind == DRAFT_LAYER && e->proto.type == d->proto.type && e->n_inputs == 1 &&
            e->inputs[0] == d->inputs[0] &&
            memcmp(&e->proto.shape, &d->proto.shape, sizeof e->proto.shape) == 0 &&
            memcmp(e->proto.order, d->proto.order, sizeof e->proto.order) == 0)
            return k;
    }
    return SIZE_MAX;
}

static void free_values(nimbus_draft *d)
{
    for (size_t k = 0; k < DRAFT_VALUES; k++) {
        nimbus_free(d->values[k]);
        d->values[k] = NULL;
    }
}

/* A shape that a layer can have. */
static nimbus_status check_shape(const nimbus_import_node *n, nimbus_shape s, nimbus_error *error)
{
    size_t width;
    if (!nimbus_mul_overflows(s.channels, s.height, &width) &&
        !nimbus_mul_overflows(width, s.width, &width) && width >= 1 && width <= NIMBUS_MAX_WIDTH)
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                       "%s%s: rows of %zu x %zu x %zu values, expected 1 to %u",
                       n ? "node " : "the input", n ? n->label : "", s.channels, s.height, s.width,
                       NIMBUS_MAX_WIDTH);
}

static nimbus_status make_room(nimbus_importer *im, nimbus_error *error)
{
    if (im->n_drafts < im->room_drafts)
        return NIMBUS_OK;
    size_t room = 2 * im->room_drafts + 64;
    if (im->n_drafts == MAX_DRAFTS)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "more than %zu layers", MAX_DRAFTS);
    nimbus_status status =
        nimbus_import_claim(im, room - im->room_drafts, sizeof *im->drafts, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_draft *grown = nimbus_realloc(im->drafts, im->room_drafts, room, sizeof *grown);
    if (!grown)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu layers", room);
    im->drafts = grown;
    im->room_drafts = room;
    return NIMBUS_OK;
}

nimbus_status nimbus_draft_add(nimbus_importer *im, const nimbus_import_node *n,
                               const nimbus_draft *draft, size_t *index, nimbus_error *error)
{
    nimbus_draft d = *draft;
    size_t same = only_moves(&d) ? find_same(im, &d) : SIZE_MAX;
    if (same != SIZE_MAX) {
        *index = same;
        return NIMBUS_OK;
    }
    nimbus_status status = check_shape(n, d.proto.shape, error);
    if (status == NIMBUS_OK)
        status = make_room(im, error);
    if (status != NIMBUS_OK) {
        free_values(&d);
        return status;
    }
    *index = im->n_drafts;
    d.proto.in_shape = d.n_inputs > 0 ? im->drafts[d.inputs[0]].proto.shape : d.proto.shape;
    d.node = n;
    d.stands_for = im->n_drafts;
    im->drafts[im->n_drafts++] = d;
    return NIMBUS_OK;
}

nimbus_status nimbus_draft_element(nimbus_importer *im, const nimbus_import_node *n,
                                   const nimbus_draft *draft, nimbus_view *v, nimbus_error *error)
{
    nimbus_draft d = *draft;
    d.n_inputs = 1;
    d.inputs[0] = v->layer;
    d.proto.shape = im->drafts[v->layer].proto.shape;
    return nimbus_draft_add(im, n, &d, &v->layer, error);
}

nimbus_status nimbus_draft_scale(nimbus_importer *im, const nimbus_import_node *n, size_t layer,
                                 double scale, double shift, size_t *index, nimbus_error *error)
{
    nimbus_draft d = {.kind = DRAFT_AFFINE, .n_inputs = 1, .n_values = {1, 1}};
    size_t x;
    double inner_scale, inner_shift;
    nimbus_draft_scaled(im, layer, &x, &inner_scale, &inner_shift);
    shift += scale * inner_shift;
    scale *= inner_scale;
    *index = x;
    if (scale == 1 && shift == 0)
        return NIMBUS_OK;
    d.inputs[0] = x;
    d.proto.shape = im->drafts[x].proto.shape;
    nimbus_status status = nimbus_import_alloc(im, 1, sizeof(float), (void *)&d.values[0], error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, 1, sizeof(float), (void *)&d.values[1], error);
    if (status != NIMBUS_OK) {
        free_values(&d);
        return status;
    }
    d.proto.number = scale; /* exactly, for those who look for patterns */
    d.proto.number2 = shift;
    d.values[0][0] = (float)scale;
    d.values[1][0] = (float)shift;
    return nimbus_draft_add(im, n, &d, index, error);
}

void nimbus_draft_scaled(const nimbus_importer *im, size_t index, size_t *x, double *scale,
                         double *shift)
{
    const nimbus_draft *d = &im->drafts[index];
    bool single = d->kind == DRAFT_AFFINE && d->n_values[0] == 1 && d->n_values[1] == 1;
    *x = single ? d->inputs[0] : index;
    *scale = single ? d->proto.number : 1;
    *shift = single ? d->proto.number2 : 0;
}

void nimbus_draft_free_all(nimbus_importer *im)
{
    for (size_t k = 0; k < im->n_drafts; k++)
        free_values(&im->drafts[k]);
    nimbus_free(im->drafts);
    im->drafts = NULL;
    im->n_drafts = 0;
}

/* ---- merging ------------------------------------------------------------------------------- */

/* The draft that does the work of another. */
static size_t worker(const nimbus_importer *im, size_t index)
{
    while (im->drafts[index].stands_for != index)
        index = im->drafts[index].stands_for;
    return index;
}

/* Counts who reads whom, beginning at the last layer. */
static void count_users(nimbus_importer *im, size_t last)
{
    for (size_t k = 0; k < im->n_drafts; k++)
        im->drafts[k].n_users = 0;
    im->drafts[last].n_users = 1;
    for (size_t k = last + 1; k-- > 0;)
        for (size_t j = 0; im->drafts[k].n_users > 0 && j < im->drafts[k].n_inputs; j++)
            im->drafts[im->drafts[k].inputs[j]].n_users++;
}

static float value_of(const nimbus_draft *affine, size_t which, size_t channel)
{
    return affine->values[which][affine->n_values[which] == 1 ? 0 : channel];
}

/* Stretches one value to one per channel. */
static nimbus_status stretch(nimbus_importer *im, nimbus_draft *d, size_t which, size_t n,
                             nimbus_error *error)
{
    float *values;
    if (d->n_values[which] == n)
        return NIMBUS_OK;
    nimbus_status status = nimbus_import_alloc(im, n, sizeof *values, (void *)&values, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < n; k++)
        values[k] = value_of(d, which, k);
    nimbus_free(d->values[which]);
    d->values[which] = values;
    d->n_values[which] = n;
    return NIMBUS_OK;
}

/* scale * (weight x + bias) + shift, channel by channel. */
static void scale_weights(nimbus_draft *d, const nimbus_draft *affine)
{
    size_t m = d->n_values[1], inputs = d->n_values[0] / m;
    for (size_t i = 0; i < m; i++) {
        float scale = value_of(affine, 0, i);
        for (size_t k = 0; scale != 1 && k < inputs; k++)
            d->values[0][i * inputs + k] *= scale;
        d->values[1][i] = d->values[1][i] * scale + value_of(affine, 1, i);
    }
}

/* The same for scale and shift, which stand at `at` and behind. */
static void scale_affine(nimbus_draft *d, size_t at, const nimbus_draft *affine)
{
    for (size_t i = 0; i < d->n_values[at]; i++) {
        float scale = value_of(affine, 0, i);
        d->values[at][i] *= scale;
        d->values[at + 1][i] = d->values[at + 1][i] * scale + value_of(affine, 1, i);
    }
}

/* scale * x + shift as (x - mean) * inverse_std, which wants scales above 0; false if one is not.
 */
static bool scale_input(nimbus_draft *d, const nimbus_draft *affine)
{
    size_t n = d->n_values[0], positions = n / d->proto.shape.channels;
    for (size_t i = 0; i < d->proto.shape.channels; i++)
        if (!(value_of(affine, 0, i) > 0) ||
            !isfinite(value_of(affine, 1, i) / value_of(affine, 0, i)))
            return false;
    for (size_t i = 0; i < n; i++) {
        float scale = value_of(affine, 0, i / positions),
              shift = value_of(affine, 1, i / positions);
        /* the input may have a mean and scale from the caller's options */
        d->values[0][i] -= shift / (scale * d->values[1][i]);
        d->values[1][i] *= scale;
    }
    return true;
}

/* Lets the draft in front, which nobody else reads, do the affine draft's work. */
static nimbus_status merge_affine(nimbus_importer *im, size_t index, nimbus_error *error)
{
    nimbus_draft *affine = &im->drafts[index], *d = &im->drafts[affine->inputs[0]];
    size_t n = affine->proto.shape.channels;
    nimbus_status status = NIMBUS_OK;
    bool done = true;
    if (d->n_users != 1)
        return NIMBUS_OK;
    if (d->kind == DRAFT_AFFINE) {
        for (size_t k = 0; k < 2 && status == NIMBUS_OK; k++)
            status = stretch(im, d, k, n, error);
        if (status == NIMBUS_OK)
            scale_affine(d, 0, affine);
    } else if (d->kind == DRAFT_LAYER &&
               (d->proto.type == &nimbus_layer_linear || d->proto.type == &nimbus_layer_conv2d)) {
        scale_weights(d, affine);
    } else if (d->kind == DRAFT_LAYER && d->proto.type == &nimbus_layer_batch_norm) {
        scale_affine(d, 2, affine);
    } else if (d->kind == DRAFT_LAYER && d->proto.type == &nimbus_layer_input) {
        done = scale_input(d, affine);
    } else {
        done = false;
    }
    if (done && status == NIMBUS_OK) {
        d->n_users = affine->n_users;
        affine->stands_for = affine->inputs[0];
    }
    return status;
}

/* A border of zeros, which nobody else reads, becomes padding of the convolution or average. */
static void merge_pad(nimbus_importer *im, nimbus_draft *d)
{
    const nimbus_draft *pad = &im->drafts[d->inputs[0]];
    nimbus_slide *s = &d->proto.slide;
    bool average = d->proto.type == &nimbus_layer_average_pool;
    bool zeros = pad->kind == DRAFT_LAYER && pad->proto.type == &nimbus_layer_pad &&
                 pad->proto.pad_mode == NIMBUS_PAD_CONSTANT && pad->proto.number == 0;
    bool bare = !s->before[0] && !s->before[1] && !s->after[0] && !s->after[1];
    if (!zeros || pad->n_users != 1 || (average && (!bare || s->kernel[0] == 0)))
        return;
    for (size_t i = 0; i < 2 && average; i++)
        if (pad->proto.slide.before[i] >= s->kernel[i] ||
            pad->proto.slide.after[i] >= s->kernel[i] || s->dilation[i] > 1)
            return; /* a window of nothing but padding is no part of an average */
    for (size_t i = 0; i < 2; i++) {
        s->before[i] += pad->proto.slide.before[i];
        s->after[i] += pad->proto.slide.after[i];
    }
    d->proto.count_padding = average;
    d->inputs[0] = pad->inputs[0];
    d->proto.in_shape = pad->proto.in_shape;
}

/* What is left of an affine draft: a batch norm of mean 0 and variance 1. */
static nimbus_status become_batch_norm(nimbus_importer *im, nimbus_draft *d, nimbus_error *error)
{
    const double epsilon = 1e-5;
    size_t n = d->proto.shape.channels;
    float *mean, *variance;
    nimbus_status status = stretch(im, d, 0, n, error);
    if (status == NIMBUS_OK)
        status = stretch(im, d, 1, n, error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, n, sizeof *mean, (void *)&mean, error);
    if (status != NIMBUS_OK)
        return status;
    d->values[2] = d->values[0];
    d->values[3] = d->values[1];
    d->values[0] = mean;
    d->values[1] = NULL;
    status = nimbus_import_alloc(im, n, sizeof *variance, (void *)&variance, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t k = 0; k < n; k++)
        variance[k] = (float)(1 - epsilon);
    d->values[1] = variance;
    for (size_t k = 0; k < DRAFT_VALUES; k++)
        d->n_values[k] = n;
    d->kind = DRAFT_LAYER;
    d->proto.type = &nimbus_layer_batch_norm;
    d->proto.number = epsilon;
    return NIMBUS_OK;
}

/* Drops the softmax that gives the output unless it is to stay: logits rank the same, and training
 * and compiling want them. */
static nimbus_status drop_softmax(nimbus_importer *im, size_t *last, nimbus_error *error)
{
    const nimbus_draft *d = &im->drafts[*last];
    bool log = d->kind == DRAFT_LOG_SOFTMAX;
    if (im->options->keep_softmax ||
        (!log && (d->kind != DRAFT_LAYER || d->proto.type != &nimbus_layer_softmax)))
        return NIMBUS_OK;
    *last = d->inputs[0];
    return nimbus_import_note(im, error,
                              "the %s at the end, node %s, is left out: outputs are logits",
                              log ? "log of a softmax" : "softmax", d->node->label);
}

nimbus_status nimbus_draft_merge_all(nimbus_importer *im, size_t *last, nimbus_error *error)
{
    nimbus_status status = drop_softmax(im, last, error);
    count_users(im, *last);
    for (size_t k = 0; k <= *last && status == NIMBUS_OK; k++) {
        nimbus_draft *d = &im->drafts[k];
        if (d->n_users == 0)
            continue;
        for (size_t j = 0; j < d->n_inputs; j++)
            d->inputs[j] = worker(im, d->inputs[j]);
        if (d->kind == DRAFT_AFFINE)
            status = merge_affine(im, k, error);
        if (d->kind == DRAFT_LAYER &&
            (d->proto.type == &nimbus_layer_conv2d || d->proto.type == &nimbus_layer_average_pool))
            merge_pad(im, d);
    }
    *last = worker(im, *last);
    count_users(im, *last);
    for (size_t k = 0; k <= *last && status == NIMBUS_OK; k++) {
        nimbus_draft *d = &im->drafts[k];
        if (d->n_users == 0)
            continue;
        if (d->kind == DRAFT_AFFINE)
            status = become_batch_norm(im, d, error);
        else if (d->kind != DRAFT_LAYER)
            status = nimbus_node_fail(d->node, NIMBUS_ERR_UNSUPPORTED, error,
                                      d->kind == DRAFT_ERF
                                          ? "unsupported operator, except as a part of GELU"
                                          : "unsupported operator, except at the end");
    }
    return status;
}
