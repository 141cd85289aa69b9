/* fit.c - trees and tables of one layer, from what goes into it and what should come out */
#include "convert/internal.h"
#include "net/internal.h"

enum {
    FIT_POSITIONS = 200000, /* of the images, for a convolution, ... */
    FIT_REALS = 1 << 27     /* ... and values of their patches */
};

bool nimbus_conversion_fits(const conversion *c, size_t i)
{
    const nimbus_layer *layer = &c->net->layers[i];
    return nimbus_layer_is_convertible(layer) && !c->plans[i].exact &&
           c->teacher->layers[i].lookup == NULL;
}

/* Whether all that layer i, as trees, and those after it read passes through the layer before it.
 */
static bool is_cut(const nimbus_net *net, size_t i)
{
    if (nimbus_net_trees_read(net, &net->layers[i]) + 1 < i)
        return false;
    for (size_t j = i + 1; j < net->n_layers; j++)
        for (size_t k = 0; k < net->layers[j].n_inputs; k++)
            if (net->layers[j].input[k] + 1 < i)
                return false;
    return true;
}

bool nimbus_conversion_trains(const conversion *c, size_t i)
{
    return nimbus_conversion_fits(c, i) &&
           (c->method->layers == NIMBUS_LAYERS_WITH_ALL || is_cut(c->net, i));
}

size_t nimbus_conversion_count(const conversion *c, bool (*is)(const conversion *c, size_t i))
{
    size_t n = 0;
    for (size_t i = 0; i < c->net->n_layers; i++)
        n += is(c, i);
    return n;
}

/* Of a convolution's patches, or of a linear layer's inputs. */
static nimbus_shape shape_of_columns(const conversion *c, size_t i)
{
    const nimbus_layer *layer = &c->net->layers[i];
    bool vector = layer->type == &nimbus_layer_conv2d || c->plans[i].columns == NIMBUS_COLUMNS_RUNS;
    return vector ? (nimbus_shape){nimbus_lookup_inputs(layer), 1, 1} : layer->in_shape;
}

nimbus_status nimbus_conversion_groups(const conversion *c, size_t i, nimbus_groups *out,
                                       nimbus_error *error)
{
    const nimbus_layer *layer = &c->net->layers[i];
    const nimbus_layer_plan *plan = &c->plans[i];
    nimbus_status status =
        nimbus_groups_new(shape_of_columns(c, i), plan->v, plan->columns, out, error);
    return status ? nimbus_fail_prefix(error, status, "layer %s", layer->name) : NIMBUS_OK;
}

/* Columns by their part in the layer's outputs: the variance times its weights' squares. */
static nimbus_status balance(const conversion *c, size_t i, const real *x, size_t n,
                             nimbus_groups *groups, nimbus_error *error)
{
    nimbus_layer *layer = &c->net->layers[i];
    const size_t d = nimbus_lookup_inputs(layer), m = nimbus_lookup_outputs(layer);
    const real *weight = nimbus_layer_param(layer, "weight")->value;
    double *importance = nimbus_alloc(2 * d, sizeof *importance); /* and behind it, means */
    if (!importance)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for its columns",
                           layer->name);
    nimbus_channel_moments(x, n, d, 1, importance + d, importance);
    for (size_t j = 0; j < d; j++) {
        double squares = 0;
        for (size_t k = 0; k < m; k++)
            squares += (double)weight[k * d + j] * (double)weight[k * d + j];
        importance[j] *= squares;
    }
    const size_t levels = c->plans[i].levels * c->plans[i].trees;
    nimbus_status status =
        nimbus_groups_balance(shape_of_columns(c, i), levels, importance, groups, error);
    nimbus_free(importance);
    return status;
}

/* What a layer is fitted on: inputs [n][D], as the layers before it now compute them, and the float
 * net's outputs [n][M]; owned only where they are a convolution's patches. */
typedef struct samples {
    size_t n;
    const real *x, *y;
    real *own_x, *own_y;
    real *deviations; /* [D] of x before its ReLU, where trees read that; else NULL */
    real *products;   /* [n][M] of x and the weights, where these are to be given; else NULL */
} samples;

static void samples_free(samples *s)
{
    nimbus_free(s->own_x);
    nimbus_free(s->own_y);
    nimbus_free(s->deviations);
    nimbus_free(s->products);
}

/* Positions of all images, mixed; as many as are fitted on. */
static nimbus_status choose_positions(const conversion *c, const nimbus_layer *layer, size_t *n,
                                      uint32_t **out, nimbus_error *error)
{
    size_t per_image = layer->shape.height * layer->shape.width, total;
    if (nimbus_mul_overflows(c->converted.n_rows, per_image, &total) || total > UINT32_MAX)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "layer %s: %zu rows of %zu positions are too many; fewer rows to fit on "
                           "help",
                           layer->name, c->converted.n_rows, per_image);
    uint32_t *positions = *out = nimbus_alloc(total, sizeof *positions);
    if (!positions)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for %zu positions",
                           layer->name, total);
    for (size_t i = 0; i < total; i++)
        positions[i] = (uint32_t)i;
    nimbus_random_shuffle(c->options.seed, NIMBUS_TAG('p', 'o', 's', 0), positions, total);
    size_t most = FIT_REALS / nimbus_lookup_inputs(layer) + 1;
    most = most < FIT_POSITIONS ? most : FIT_POSITIONS;
    *n = total < most ? total : most;
    return NIMBUS_OK;
}

/* Trees that read before a ReLU are learned on what comes out of it, which is what the layer's
 * weights are for: above 0, where they cut, both are the same. What a clip cuts off above stays, or
 * trees that are learned on its bound would send all that is larger elsewhere. */
static nimbus_status apply_relu(const nimbus_layer *layer, samples *s, nimbus_error *error)
{
    const size_t d = nimbus_lookup_inputs(layer);
    s->deviations = nimbus_alloc(d, sizeof *s->deviations);
    if (!s->deviations || !nimbus_column_deviations(s->own_x, s->n, d, s->deviations))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for margins",
                           layer->name);
    for (size_t i = 0; i < s->n * d; i++)
        s->own_x[i] = s->own_x[i] > 0 ? s->own_x[i] : 0;
    return NIMBUS_OK;
}

static nimbus_status sample_patches(const conversion *c, size_t i, samples *out,
                                    nimbus_error *error)
{
    const nimbus_layer *layer = &c->net->layers[i];
    size_t per_image = layer->shape.height * layer->shape.width, m = nimbus_lookup_outputs(layer);
    uint32_t *positions = NULL;
    nimbus_status status = choose_positions(c, layer, &out->n, &positions, error);
    if (status)
        goto done;
    out->own_x = nimbus_alloc(out->n, nimbus_lookup_inputs(layer) * sizeof *out->own_x);
    out->own_y = nimbus_alloc(out->n, m * sizeof *out->own_y);
    if (!out->own_x || !out->own_y) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY,
                             "layer %s: no memory for the patches of %zu positions", layer->name,
                             out->n);
        goto done;
    }
    nimbus_lookup_conv_patches(layer, c->converted.out[nimbus_net_trees_read(c->net, layer)],
                               positions, out->n, out->own_x, c->options.n_threads);
    for (size_t n = 0; n < out->n; n++) {
        const real *image = c->clean.out[i] + positions[n] / per_image * per_image * m;
        for (size_t j = 0; j < m; j++)
            out->own_y[n * m + j] = image[j * per_image + positions[n] % per_image];
    }
    if (layer->before_relu && (status = apply_relu(layer, out, error)))
        goto done;
    out->x = out->own_x;
    out->y = out->own_y;
done:
    nimbus_free(positions);
    return status;
}

/* y = x W^T + bias on the rows as they are. */
static nimbus_status own_products(nimbus_layer *source, samples *s, unsigned n_threads,
                                  nimbus_error *error)
{
    const size_t d = nimbus_lookup_inputs(source), m = nimbus_lookup_outputs(source);
    const real *weight = nimbus_layer_param(source, "weight")->value;
    const real *bias = nimbus_layer_param(source, "bias")->value;
    s->products = nimbus_alloc(s->n, m * sizeof *s->products);
    if (!s->products)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for its products",
                           source->name);
    for (size_t n = 0; n < s->n; n++)
        for (size_t j = 0; j < m; j++)
            s->products[n * m + j] = bias[j];
    nimbus_gemm(false, true, s->n, m, d, 1, s->x, d, weight, d, 1, s->products, m, n_threads);
    s->y = s->products;
    return NIMBUS_OK;
}

/* Of convolutions' patches and rows alike: trees by learning them, tables by fitting them. */
static nimbus_status fit_trees(conversion *c, size_t i, const samples *s,
                               const nimbus_groups *groups, double *error_fit, nimbus_error *error)
{
    nimbus_layer *layer = &c->net->layers[i];
    const real *weight = nimbus_layer_param(layer, "weight")->value;
    const nimbus_method_recipe *method = c->method;
    const double ridge = method->ridge * (double)layer->lookup->n_leaves / (double)s->n;
    nimbus_tree_job trees = {.x = s->x,
                             .n_rows = s->n,
                             .n_columns = nimbus_lookup_inputs(layer),
                             .weight = weight,
                             .n_outputs = nimbus_lookup_outputs(layer),
                             .method = c->options.split_method,
                             .few = c->plans[i].tree == NIMBUS_CHOICE_FEW,
                             .groups = groups,
                             .deviations = s->deviations,
                             .n_threads = c->options.n_threads};
    nimbus_table_job tables = {.x = s->x,
                               .y = s->y,
                               .n_rows = s->n,
                               .weight = weight,
                               .groups = groups,
                               .method = c->options.table_method,
                               .lambda = method->ridge > 0 ? ridge : c->options.lambda,
                               .n_threads = c->options.n_threads};
    nimbus_status status = nimbus_trees_learn(layer, &trees, error);
    if (status == NIMBUS_OK)
        status = nimbus_tables_fit(layer, &tables, error_fit, error);
    nimbus_param *margin = nimbus_layer_param(layer, "margin");
    for (size_t j = 0; method->raw_margins && j < margin->n; j++)
        margin->value[j] = 1;
    return status;
}

/* Codebooks as previous work starts them. */
static nimbus_status start_layer(conversion *c, size_t i, const samples *s,
                                 const nimbus_groups *groups, nimbus_error *error)
{
    nimbus_layer *layer = &c->net->layers[i];
    const nimbus_start_job job = {.x = s->x,
                                  .n_rows = s->n,
                                  .n_columns = nimbus_lookup_inputs(layer),
                                  .groups = groups,
                                  .seed = c->options.seed,
                                  .n_threads = c->options.n_threads};
    return c->method->start == NIMBUS_START_RANDOM ? nimbus_trees_random(layer, &job, error)
                                                   : nimbus_centroids_start(layer, &job, error);
}

static nimbus_status attach(conversion *c, size_t i, const nimbus_groups *groups,
                            nimbus_error *error)
{
    nimbus_layer *layer = &c->net->layers[i];
    const nimbus_layer_plan *plan = &c->plans[i];
    static const nimbus_tree_kind kinds[] = {[NIMBUS_CHOICE_SHARED] = NIMBUS_TREE_SHARED,
                                             [NIMBUS_CHOICE_PER_NODE] = NIMBUS_TREE_PER_NODE,
                                             [NIMBUS_CHOICE_FERN] = NIMBUS_TREE_FERN,
                                             [NIMBUS_CHOICE_FEW] = NIMBUS_TREE_PER_NODE};
    size_t widest = 0;
    for (size_t g = 0; g < groups->n_codebooks; g++) {
        size_t v = groups->first[g + 1] - groups->first[g];
        widest = v > widest ? v : widest;
    }
    return c->method->start == NIMBUS_START_CENTROIDS
               ? nimbus_centroids_attach(layer, groups->n_codebooks, plan->levels, widest, error)
               : nimbus_lookup_attach(layer, groups->n_codebooks * plan->trees, plan->levels,
                                      kinds[plan->tree], error);
}

nimbus_status nimbus_conversion_fit(conversion *c, size_t i, double *error_fit, nimbus_error *error)
{
    nimbus_layer *layer = &c->net->layers[i];
    nimbus_groups groups = {0};
    samples s = {.n = c->converted.n_rows,
                 .x = c->converted.out[nimbus_net_trees_read(c->net, layer)],
                 .y = c->clean.out[i]};
    nimbus_status status = NIMBUS_OK;

    if (layer->type == &nimbus_layer_conv2d)
        status = sample_patches(c, i, &s, error);
    if (status == NIMBUS_OK && c->method->own_target)
        status = own_products(layer, &s, c->options.n_threads, error);
    if (status || (status = nimbus_conversion_groups(c, i, &groups, error)) ||
        (nimbus_columns_balanced(c->plans[i].columns) &&
         (status = balance(c, i, s.x, s.n, &groups, error))) ||
        (status = attach(c, i, &groups, error)))
        goto done;
    layer->lookup->estimator = c->options.estimator;
    if ((status = c->method->start == NIMBUS_START_TREES
                      ? fit_trees(c, i, &s, &groups, error_fit, error)
                      : start_layer(c, i, &s, &groups, error)) ||
        (status = nimbus_net_set_state(c->net, i, NIMBUS_STATE_LOOKUP, error)))
        goto done;
done:
    samples_free(&s);
    nimbus_groups_free(&groups);
    return status;
}
