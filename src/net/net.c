/* net.c - the graph: layers, parameters, states and copies */
#include <string.h>

#include "net/internal.h"
#include "net/lookup.h"

static const nimbus_layer_type *const layer_types[] = {
    &nimbus_layer_input,    &nimbus_layer_linear,       &nimbus_layer_batch_norm,
    &nimbus_layer_relu,     &nimbus_layer_gelu,         &nimbus_layer_tanh,
    &nimbus_layer_sigmoid,  &nimbus_layer_dropout,      &nimbus_layer_conv2d,
    &nimbus_layer_max_pool, &nimbus_layer_average_pool, &nimbus_layer_pad,
    &nimbus_layer_clip,     &nimbus_layer_hard_sigmoid, &nimbus_layer_hard_swish,
    &nimbus_layer_softmax,  &nimbus_layer_add,          &nimbus_layer_concat,
    &nimbus_layer_flatten,  &nimbus_layer_reshape,      &nimbus_layer_transpose,
};

static const char *const state_names[] = {"dense", "locked", "record", "soft", "lookup", "integer"};
#define N_STATES (sizeof state_names / sizeof state_names[0])

const nimbus_layer_type *nimbus_layer_type_named(const char *name)
{
    for (size_t i = 0; i < sizeof layer_types / sizeof layer_types[0]; i++)
        if (strcmp(layer_types[i]->name, name) == 0)
            return layer_types[i];
    return NULL;
}

nimbus_net *nimbus_net_new(void)
{
    nimbus_net *net = nimbus_alloc(1, sizeof *net);
    if (!net)
        return NULL;
    net->input_dtype = NIMBUS_F32;
    net->metadata = nimbus_strdup("");
    if (!net->metadata) {
        nimbus_free(net);
        return NULL;
    }
    return net;
}

/* Frees what a layer owns. */
static void clear_layer(nimbus_layer *layer)
{
    for (size_t i = 0; i < layer->n_params; i++) {
        nimbus_free(layer->params[i].value);
        nimbus_free(layer->params[i].grad);
    }
    layer->n_params = 0;
    nimbus_lookup_free(layer->lookup);
    layer->lookup = NULL;
    nimbus_free(layer->record);
    layer->record = NULL;
}

void nimbus_net_free(nimbus_net *net)
{
    if (!net)
        return;
    for (size_t i = 0; i < net->n_layers; i++)
        clear_layer(&net->layers[i]);
    nimbus_free(net->layers);
    nimbus_free(net->metadata);
    nimbus_free(net);
}

/* ---- parameters -------------------------------------------------------------------------- */

nimbus_status nimbus_layer_add_param(nimbus_layer *layer, const char *name, size_t rank,
                                     const size_t *shape, bool statistic, bool decay,
                                     nimbus_error *error)
{
    nimbus_param param = {.name = name,
                          .rank = rank,
                          .n = 1,
                          .statistic = statistic,
                          .trained = !statistic,
                          .decay = decay,
                          .rate_scale = 1};
    if (layer->n_params == NIMBUS_MAX_LAYER_PARAMS || rank > 4)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "layer %s: no room for parameter %s of rank %zu", layer->name, name,
                           rank);
    for (size_t i = 0; i < rank; i++) {
        param.shape[i] = shape[i];
        if (nimbus_mul_overflows(param.n, shape[i], &param.n))
            return nimbus_fail(error, NIMBUS_ERR_LIMIT, "layer %s: parameter %s is too large",
                               layer->name, name);
    }
    param.value = nimbus_alloc(param.n, sizeof *param.value);
    if (!param.value)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for the %zu values of %s",
                           layer->name, param.n, name);
    layer->params[layer->n_params++] = param;
    nimbus_layer_set_trained(layer);
    return NIMBUS_OK;
}

nimbus_param *nimbus_layer_param(nimbus_layer *layer, const char *name)
{
    for (size_t i = 0; i < layer->n_params; i++)
        if (strcmp(layer->params[i].name, name) == 0)
            return &layer->params[i];
    return NULL;
}

bool nimbus_layer_is_product(const nimbus_layer *layer)
{
    return layer->type == &nimbus_layer_linear || layer->type == &nimbus_layer_conv2d;
}

bool nimbus_layer_is_convertible(const nimbus_layer *layer)
{
    return nimbus_layer_is_product(layer) &&
           (layer->type != &nimbus_layer_conv2d || layer->groups == 1);
}

void nimbus_layer_set_trained(nimbus_layer *layer)
{
    if (!nimbus_layer_is_product(layer))
        return;
    for (size_t i = 0; i < layer->n_params; i++) {
        nimbus_param *p = &layer->params[i];
        bool of_product = strcmp(p->name, "weight") == 0;
        bool of_trees = strcmp(p->name, "thresholds") == 0 || strcmp(p->name, "tables") == 0 ||
                        strcmp(p->name, "centroids") == 0 || strcmp(p->name, "sharpness") == 0;
        if (layer->lookup && layer->lookup->kind == NIMBUS_CENTROIDS)
            of_product = false; /* tables are made of the weights */
        p->trained = !p->statistic && ((layer->state == NIMBUS_STATE_DENSE && !of_trees) ||
                                       (layer->state == NIMBUS_STATE_SOFT && !of_product));
    }
}

nimbus_status nimbus_net_grads(nimbus_net *net, nimbus_error *error)
{
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            nimbus_param *p = &net->layers[i].params[j];
            if (!p->trained) {
                nimbus_free(p->grad);
                p->grad = NULL;
            } else if (!p->grad) {
                p->grad = nimbus_alloc(p->n, sizeof *p->grad);
                if (!p->grad)
                    return nimbus_fail(error, NIMBUS_ERR_MEMORY,
                                       "layer %s: no memory for the gradient of %s",
                                       net->layers[i].name, p->name);
            }
        }
    return NIMBUS_OK;
}

void nimbus_net_zero_grads(nimbus_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            nimbus_param *p = &net->layers[i].params[j];
            if (p->grad)
                memset(p->grad, 0, p->n * sizeof *p->grad);
        }
}

size_t nimbus_net_first_trained(const nimbus_net *net, size_t from)
{
    for (size_t i = from; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++)
            if (net->layers[i].params[j].trained)
                return i;
    return net->n_layers;
}

nimbus_status nimbus_net_check_finite(const nimbus_net *net, nimbus_error *error)
{
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            const nimbus_param *p = &net->layers[i].params[j];
            for (size_t k = 0; k < p->n; k++)
                if (!isfinite(p->value[k]))
                    return nimbus_fail(error, NIMBUS_ERR_VALUE,
                                       "layer %s: value %zu of %s is %g, expected a finite number",
                                       net->layers[i].name, k, p->name, (double)p->value[k]);
        }
    return NIMBUS_OK;
}

/* ---- growing the graph ------------------------------------------------------------------- */

size_t nimbus_net_find_layer(const nimbus_net *net, const char *name)
{
    size_t i = 0;
    while (i < net->n_layers && strcmp(net->layers[i].name, name) != 0)
        i++;
    return i;
}

bool nimbus_net_has_layer(const nimbus_net *net, const char *name)
{
    return nimbus_net_find_layer(net, name) < net->n_layers;
}

/* Gives the layer its proto's name, or one of its type and a number; checks that it is new. */
static nimbus_status name_layer(const nimbus_net *net, const char *wanted, nimbus_layer *layer,
                                nimbus_error *error)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t number = 1, length = strlen(wanted);
    memcpy(layer->name, wanted, length + 1);
    if (length == 0) {
        for (size_t i = 0; i < net->n_layers; i++)
            number += net->layers[i].type == layer->type;
        (void)snprintf(layer->name, sizeof layer->name, "%s%zu", layer->type->name, number);
    } else if (strspn(wanted, allowed) != length) {
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer name '%s': only letters, digits, '_' and '-' are allowed",
                           wanted);
    }
    if (nimbus_net_has_layer(net, layer->name))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "two layers are called %s", layer->name);
    return NIMBUS_OK;
}

static nimbus_status check_width(const nimbus_layer *layer, nimbus_shape shape, nimbus_error *error)
{
    size_t width = shape.channels;
    if (nimbus_mul_overflows(width, shape.height, &width) ||
        nimbus_mul_overflows(width, shape.width, &width) || width < 1 || width > NIMBUS_MAX_WIDTH)
        return nimbus_fail(
            error, NIMBUS_ERR_LIMIT, "layer %s: rows of %zu x %zu x %zu, expected 1 to %u values",
            layer->name, shape.channels, shape.height, shape.width, NIMBUS_MAX_WIDTH);
    return NIMBUS_OK;
}

nimbus_status nimbus_layer_set_shape(nimbus_layer *layer, nimbus_shape shape, nimbus_error *error)
{
    layer->shape = shape;
    return check_width(layer, shape, error);
}

static bool is_relu(const nimbus_layer *layer)
{
    return layer->type == &nimbus_layer_relu ||
           (layer->type == &nimbus_layer_clip && layer->number == 0 && layer->number2 > 0);
}

/* Checks how the layer is wired and collects the shapes it reads. */
static nimbus_status wire_layer(const nimbus_net *net, nimbus_layer *layer, const size_t *inputs,
                                size_t n_inputs, nimbus_shape *shapes, nimbus_error *error)
{
    const nimbus_layer_type *type = layer->type;
    if (net->n_layers == NIMBUS_MAX_LAYERS)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "more than %d layers", NIMBUS_MAX_LAYERS);
    if ((type == &nimbus_layer_input) != (net->n_layers == 0))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: layer 0, and no other, must be of type input", layer->name);
    if (n_inputs < type->min_inputs || n_inputs > type->max_inputs)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: %zu inputs, expected %zu to %zu for type %s", layer->name,
                           n_inputs, type->min_inputs, type->max_inputs, type->name);
    layer->n_inputs = n_inputs;
    for (size_t i = 0; i < n_inputs; i++) {
        if (inputs[i] >= net->n_layers)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "layer %s: reads layer %zu, but only %zu come before it",
                               layer->name, inputs[i], net->n_layers);
        layer->input[i] = inputs[i];
        shapes[i] = net->layers[inputs[i]].shape;
        layer->in_channels[i] = shapes[i].channels;
    }
    if (n_inputs > 0)
        layer->in_shape = shapes[0];
    if (layer->before_relu &&
        (layer->type != &nimbus_layer_conv2d || !is_relu(&net->layers[inputs[0]])))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: is to read before a ReLU, but is no convolution behind one",
                           layer->name);
    layer->relu = layer->before_relu ? inputs[0] : 0;
    return check_width(layer, layer->in_shape, error);
}

/* A layer with nothing but the attributes of proto. */
static nimbus_layer attributes_of(const nimbus_layer *proto)
{
    nimbus_layer layer = {.type = proto->type,
                          .in_shape = proto->in_shape,
                          .number = proto->number,
                          .number2 = proto->number2,
                          .units = proto->units,
                          .groups = proto->groups,
                          .bare = proto->bare,
                          .count_padding = proto->count_padding,
                          .slide = proto->slide,
                          .pad_mode = proto->pad_mode,
                          .before_relu = proto->before_relu,
                          .new_shape = proto->new_shape};
    memcpy(layer.order, proto->order, sizeof layer.order);
    return layer;
}

nimbus_status nimbus_net_add(nimbus_net *net, const nimbus_layer *proto, const size_t *inputs,
                             size_t n_inputs, uint64_t seed, nimbus_error *error)
{
    nimbus_shape shapes[NIMBUS_MAX_LAYER_INPUTS];
    nimbus_layer layer = attributes_of(proto);
    nimbus_status status = name_layer(net, proto->name, &layer, error);
    if (status == NIMBUS_OK)
        status = wire_layer(net, &layer, inputs, n_inputs, shapes, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_layer *layers =
        nimbus_realloc(net->layers, net->n_layers, net->n_layers + 1, sizeof *layers);
    if (!layers)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer.name);
    net->layers = layers;
    status = layer.type->setup(&layer, shapes, n_inputs, seed, error);
    if (status != NIMBUS_OK) {
        clear_layer(&layer);
        return status;
    }
    nimbus_layer_set_trained(&layer);
    net->layers[net->n_layers++] = layer;
    return NIMBUS_OK;
}

/* ---- changes of the graph ------------------------------------------------------------------ */

nimbus_status nimbus_net_insert_norm(nimbus_net *net, size_t i, const char *name,
                                     nimbus_error *error)
{
    /* A power of two, so that 1 - epsilon is exact and nothing changes to the last bit. */
    nimbus_layer proto = {.type = &nimbus_layer_batch_norm, .number = 0x1p-17};
    (void)snprintf(proto.name, sizeof proto.name, "%s", name);
    for (size_t j = 0; j < net->n_layers; j++)
        if (net->layers[j].before_relu && net->layers[j].relu == i)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "a batch norm behind layer %s: trees of layer %s read before it",
                               net->layers[i].name, net->layers[j].name);
    nimbus_status status = nimbus_net_add(net, &proto, &i, 1, 0, error);
    if (status)
        return status;
    nimbus_layer norm = net->layers[net->n_layers - 1];
    nimbus_param *variance = nimbus_layer_param(&norm, "variance");
    for (size_t j = 0; j < variance->n; j++)
        variance->value[j] = 1 - (real)norm.number;
    memmove(&net->layers[i + 2], &net->layers[i + 1],
            (net->n_layers - i - 2) * sizeof *net->layers);
    net->layers[i + 1] = norm;
    for (size_t j = i + 2; j < net->n_layers; j++) {
        nimbus_layer *layer = &net->layers[j];
        for (size_t k = 0; k < layer->n_inputs; k++)
            layer->input[k] += layer->input[k] >= i;
        layer->relu += layer->relu > i;
    }
    return NIMBUS_OK;
}

size_t nimbus_net_trees_read(const nimbus_net *net, const nimbus_layer *layer)
{
    return layer->before_relu ? net->layers[layer->relu].input[0] : layer->input[0];
}

void nimbus_net_read_before_relu(nimbus_net *net, size_t i)
{
    nimbus_layer *layer = &net->layers[i];
    if (!is_relu(&net->layers[layer->input[0]]))
        return;
    layer->before_relu = true;
    layer->relu = layer->input[0];
}

/* ---- copies ------------------------------------------------------------------------------ */

/* Copies params in order; trees come with the first of their params. */
static nimbus_status copy_params(const nimbus_layer *from, nimbus_layer *to, nimbus_error *error)
{
    for (size_t i = 0; i < from->n_params; i++) {
        const nimbus_param *p = &from->params[i];
        nimbus_status status = NIMBUS_OK;
        const nimbus_lookup *trees = from->lookup;
        if (trees && !to->lookup && strcmp(p->name, "columns") == 0)
            status = trees->kind == NIMBUS_CENTROIDS
                         ? nimbus_centroids_attach(to, trees->n_codebooks, trees->n_levels,
                                                   trees->n_columns, error)
                         : nimbus_lookup_attach(to, trees->n_codebooks, trees->n_levels,
                                                trees->kind, error);
        if (status == NIMBUS_OK && !nimbus_layer_param(to, p->name))
            status = nimbus_layer_add_param(to, p->name, p->rank, p->shape, p->statistic, p->decay,
                                            error);
        if (status != NIMBUS_OK)
            return status;
        nimbus_param *copy = nimbus_layer_param(to, p->name);
        memcpy(copy->value, p->value, p->n * sizeof *p->value);
        copy->rate_scale = p->rate_scale;
    }
    for (size_t i = 0; i < from->n_params; i++)
        nimbus_layer_param(to, from->params[i].name)->trained = from->params[i].trained;
    if (to->lookup) {
        to->lookup->estimator = from->lookup->estimator;
        to->lookup->bits = from->lookup->bits;
        to->lookup->temperature = from->lookup->temperature;
        to->lookup->margin_noise = from->lookup->margin_noise;
        to->lookup->code_noise = from->lookup->code_noise;
        return nimbus_lookup_round(to, 1, error);
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_net_copy(const nimbus_net *net, nimbus_net **out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_ERR_MEMORY;
    nimbus_net *copy = nimbus_alloc(1, sizeof *copy);
    *out = NULL;
    if (!copy)
        goto done;
    copy->loss = net->loss;
    copy->input_dtype = net->input_dtype;
    copy->metadata = nimbus_strdup(net->metadata);
    copy->layers = nimbus_alloc(net->n_layers, sizeof *copy->layers);
    if (!copy->metadata || !copy->layers)
        goto done;
    for (size_t i = 0; i < net->n_layers; i++) {
        nimbus_layer *layer = &copy->layers[copy->n_layers++];
        *layer = net->layers[i];
        layer->n_params = 0;
        layer->lookup = NULL;
        layer->record = NULL;
        layer->n_recorded = 0;
        status = copy_params(&net->layers[i], layer, error);
        if (status != NIMBUS_OK)
            goto done;
    }
    status = NIMBUS_OK;
    *out = copy;
    copy = NULL;
done:
    nimbus_net_free(copy);
    if (status == NIMBUS_ERR_MEMORY)
        return nimbus_fail(error, status, "no memory for a copy of the net");
    return status;
}

/* ---- states ------------------------------------------------------------------------------ */

const char *nimbus_layer_state_name(nimbus_layer_state state)
{
    return (size_t)state < N_STATES ? state_names[state] : "unknown";
}

nimbus_status nimbus_net_set_state(nimbus_net *net, size_t i, nimbus_layer_state state,
                                   nimbus_error *error)
{
    enum { D = 1, L = 2, R = 4, S = 8, U = 16 }; /* dense, locked, record, soft, lookup */
    static const unsigned char allowed[N_STATES] = {
        [NIMBUS_STATE_DENSE] = D | L | R | S | U,  [NIMBUS_STATE_LOCKED] = D | L | R | S | U,
        [NIMBUS_STATE_RECORD] = D | L | R | S | U, [NIMBUS_STATE_SOFT] = D | L | S | U,
        [NIMBUS_STATE_LOOKUP] = D | L | S | U,
    };
    if (i >= net->n_layers || (size_t)state >= N_STATES)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %zu to state %u: the net has %zu layers, states are 0 to %zu", i,
                           (unsigned)state, net->n_layers, N_STATES - 1);
    nimbus_layer *layer = &net->layers[i];
    const char *from = state_names[layer->state], *to = state_names[state];
    if (!nimbus_layer_is_product(layer) ||
        (layer->type == &nimbus_layer_conv2d && state == NIMBUS_STATE_RECORD))
        return nimbus_fail(error, NIMBUS_ERR_STATE,
                           "layer %s cannot go from %s to %s: only linear layers have all states, "
                           "convolutions all but record; this one is of type %s",
                           layer->name, from, to, layer->type->name);
    if (!(allowed[layer->state] & 1u << state))
        return nimbus_fail(error, NIMBUS_ERR_STATE, "layer %s cannot go from %s to %s%s",
                           layer->name, from, to,
                           state == NIMBUS_STATE_INTEGER ? ": integer layers exist in compiled "
                                                           "programs only"
                                                         : "");
    bool wants_trees = state == NIMBUS_STATE_SOFT || state == NIMBUS_STATE_LOOKUP;
    if (wants_trees ? !layer->lookup : !nimbus_layer_param(layer, "weight"))
        return nimbus_fail(error, NIMBUS_ERR_STATE,
                           "layer %s cannot go from %s to %s: it has no %s", layer->name, from, to,
                           wants_trees ? "trees and tables" : "weights");
    if (state == NIMBUS_STATE_RECORD) {
        nimbus_free(layer->record);
        layer->n_recorded = 0;
        layer->record = NULL;
        size_t n;
        if (!nimbus_mul_overflows(layer->record_limit, nimbus_shape_width(layer->in_shape), &n))
            layer->record = nimbus_alloc(n, sizeof *layer->record);
        if (!layer->record)
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory to record %zu rows",
                               layer->name, layer->record_limit);
    }
    layer->state = state;
    if (layer->before_relu)
        layer->input[0] = wants_trees ? nimbus_net_trees_read(net, layer) : layer->relu;
    nimbus_layer_set_trained(layer);
    return NIMBUS_OK;
}
