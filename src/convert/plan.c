/* plan.c - read the conversion options into one plan per layer */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "convert/convert.h"

enum {
    LEAST_CODEBOOKS = 16, /* unless V is given */
    LEAST_PATCH = 64, /* values of a patch: smaller layers of convolutional nets stay products */
    MOST_TREES = 16,
    FEW_LEVELS = 4 /* of trees whose nodes choose by themselves among few columns */
};

/* A cursor over options->layers, "NAME:key=value,...;...". */
typedef struct cursor {
    const char *text, *at;
} cursor;

static nimbus_status bad_text(const cursor *c, const char *expected, nimbus_error *error)
{
    return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                       "layer options \"%.300s%s\", character %zu: expected %s", c->text,
                       strlen(c->text) > 300 ? "..." : "", (size_t)(c->at - c->text) + 1, expected);
}

/* Length of the word at the cursor, up to one of the separators. */
static size_t word_length(const cursor *c)
{
    return strcspn(c->at, ":;,=");
}

static bool word_is(const cursor *c, const char *word)
{
    return strlen(word) == word_length(c) && strncmp(c->at, word, word_length(c)) == 0;
}

static nimbus_status read_number(cursor *c, size_t low, size_t high, size_t *out,
                                 nimbus_error *error)
{
    char *end;
    bool digit = *c->at >= '0' && *c->at <= '9'; /* no sign, no space */
    errno = 0;
    unsigned long long value = strtoull(c->at, &end, 10);
    if (errno || !digit || end != c->at + word_length(c) || value < low || value > high) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number from %zu to %zu", low, high);
        return bad_text(c, expected, error);
    }
    c->at = end;
    *out = (size_t)value;
    return NIMBUS_OK;
}

/* One of the words; *out becomes its index. */
static nimbus_status read_word(cursor *c, const char *const *words, size_t n_words,
                               const char *expected, size_t *out, nimbus_error *error)
{
    for (size_t i = 0; i < n_words; i++)
        if (word_is(c, words[i])) {
            *out = i;
            c->at += word_length(c);
            return NIMBUS_OK;
        }
    return bad_text(c, expected, error);
}

static nimbus_status read_bits(cursor *c, unsigned *bits, nimbus_error *error)
{
    const char *begin = c->at;
    size_t value = 0;
    nimbus_status status = read_number(c, 2, 32, &value, error);
    if (status == NIMBUS_OK && value > 8 && value != 32) {
        c->at = begin;
        return bad_text(c, "2 to 8 bits, or 32 for float tables", error);
    }
    *bits = value == 32 ? 0 : (unsigned)value;
    return status;
}

static nimbus_status read_setting(cursor *c, nimbus_layer_plan *plan, nimbus_error *error)
{
    static const char *const keys[] = {"exact", "v", "levels", "bits", "tree", "columns", "trees"};
    static const char *const trees[] = {"auto", "shared", "node", "fern", "few"};
    static const char *const columns[] = {"auto", "block", "patch", "window", "balanced", "runs"};
    size_t key = 0, value = 0;
    nimbus_status status =
        read_word(c, keys, sizeof keys / sizeof keys[0],
                  "one of exact, v=, levels=, bits=, tree=, columns=, trees=", &key, error);
    if (status)
        return status;
    plan->exact = key == 0; /* a layer that has settings of its own is converted */
    plan->pinned = true;
    if (plan->exact)
        return NIMBUS_OK;
    if (*c->at != '=')
        return bad_text(c, "\"=\"", error);
    c->at++;
    switch (key) {
    case 1:
        return read_number(c, 1, NIMBUS_MAX_WIDTH, &plan->v, error);
    case 2:
        return read_number(c, 1, NIMBUS_MAX_LEVELS, &plan->levels, error);
    case 3:
        return read_bits(c, &plan->bits, error);
    case 4:
        if ((status = read_word(c, trees, 5, "auto, shared, node, fern or few", &value, error)) ==
            NIMBUS_OK)
            plan->tree = (nimbus_tree_choice)value;
        return status;
    case 6:
        return read_number(c, 1, MOST_TREES, &plan->trees, error);
    default:
        if ((status = read_word(c, columns, 6, "auto, block, patch, window, balanced or runs",
                                &value, error)) == NIMBUS_OK)
            plan->columns = (nimbus_columns)value;
        return status;
    }
}

static nimbus_status read_layer(cursor *c, const nimbus_net *net, nimbus_layer_plan *plans,
                                nimbus_error *error)
{
    size_t layer = net->n_layers;
    for (size_t i = 0; i < net->n_layers; i++)
        if (nimbus_layer_is_convertible(&net->layers[i]) && word_is(c, net->layers[i].name))
            layer = i;
    if (layer == net->n_layers) {
        char expected[200] = "the name of a linear layer or convolution of the net:";
        size_t n = strlen(expected);
        for (size_t i = 0; i < net->n_layers; i++) {
            const char *name = net->layers[i].name;
            if (!nimbus_layer_is_convertible(&net->layers[i]))
                continue;
            const bool fits = n + strlen(name) + sizeof " ..." < sizeof expected;
            n += (size_t)snprintf(expected + n, sizeof expected - n, " %s", fits ? name : "...");
            if (!fits)
                break;
        }
        return bad_text(c, expected, error);
    }
    c->at += word_length(c);
    if (*c->at != ':')
        return bad_text(c, "\":\"", error);
    do {
        c->at++;
        nimbus_status status = read_setting(c, plans + layer, error);
        if (status)
            return status;
    } while (*c->at == ',');
    if (*c->at != ';' && *c->at != '\0')
        return bad_text(c, "\",\", \";\" or the end", error);
    if (net->layers[layer].type == &nimbus_layer_conv2d &&
        nimbus_columns_balanced(plans[layer].columns))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s is a convolution, whose codebooks read an input channel each; "
                           "columns=balanced and columns=runs are for linear layers",
                           net->layers[layer].name);
    return NIMBUS_OK;
}

bool nimbus_has_convolutions(const nimbus_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++)
        if (net->layers[i].type == &nimbus_layer_conv2d)
            return true;
    return false;
}

bool nimbus_is_last_product(const nimbus_net *net, size_t i)
{
    for (size_t j = i + 1; j < net->n_layers; j++)
        if (nimbus_layer_is_product(&net->layers[j]))
            return false;
    return true;
}

/* Layers of a net with convolutions: one codebook per input channel, or as a linear layer over the
 * channels where the kernel is a single pixel. As in Stella Nera and LUT-NN the first convolution
 * and the classifier stay products: they are a small part of the work, and cost much accuracy. */
static void plan_of_image_net(const nimbus_net *net, size_t i,
                              const nimbus_convert_options *options, nimbus_layer_plan *plan)
{
    static const size_t trees_of_preset[] = {
        [NIMBUS_BALANCED] = 2, [NIMBUS_SPEED] = 1, [NIMBUS_ACCURACY] = 2};
    const nimbus_layer *layer = &net->layers[i];
    const size_t n_taps = layer->slide.kernel[0] * layer->slide.kernel[1];
    plan->columns = NIMBUS_COLUMNS_BLOCK;
    plan->exact = nimbus_is_last_product(net, i) || nimbus_lookup_inputs(layer) < LEAST_PATCH;
    if (layer->type == &nimbus_layer_conv2d && n_taps > 1 && !options->v)
        plan->v = n_taps;
    if (layer->type == &nimbus_layer_conv2d && !options->trees &&
        options->method == NIMBUS_METHOD_NIMBUS)
        plan->trees = trees_of_preset[options->preset];
}

static bool is_first(const nimbus_layer *layer)
{
    return layer->n_inputs == 1 && layer->input[0] == 0;
}

static nimbus_layer_plan default_plan(const nimbus_net *net, size_t i,
                                      const nimbus_convert_options *options)
{
    static const size_t v_of_preset[] = {
        [NIMBUS_BALANCED] = 8, [NIMBUS_SPEED] = 16, [NIMBUS_ACCURACY] = 4};
    const nimbus_layer *layer = &net->layers[i];
    /* 7 bits lose nothing, and two entries add up to a byte */
    unsigned bits = options->bits ? options->bits : options->preset == NIMBUS_SPEED ? 7 : 8;
    size_t d = nimbus_lookup_inputs(layer), v = v_of_preset[options->preset];
    /* narrow layers keep enough trees: few leaves would hold all that they let through */
    if (v > d / LEAST_CODEBOOKS)
        v = d > LEAST_CODEBOOKS ? d / LEAST_CODEBOOKS : 1;
    nimbus_layer_plan plan = {.v = options->v ? options->v : v,
                              .levels = options->levels ? options->levels : 4,
                              .trees = options->trees ? options->trees : 1,
                              .bits = bits == 32 ? 0 : bits,
                              .tree = options->tree};
    if (nimbus_has_convolutions(net))
        plan_of_image_net(net, i, options, &plan);
    return plan;
}

/* What AUTO stands for. Columns of the input cost nothing by being read: no layer computes them.
 * Behind other layers few do, but of more levels only shared ones are compared by vectors. */
static nimbus_tree_choice default_tree(const nimbus_net *net, const nimbus_layer *layer,
                                       nimbus_preset preset, size_t levels)
{
    if (nimbus_has_convolutions(net) || preset == NIMBUS_SPEED)
        return NIMBUS_CHOICE_SHARED;
    if (is_first(layer))
        return NIMBUS_CHOICE_PER_NODE;
    return levels <= FEW_LEVELS ? NIMBUS_CHOICE_FEW : NIMBUS_CHOICE_SHARED;
}

/* What AUTO stands for in our own method, but for convolutions; previous work deals patches and
 * blocks, as do hidden layers, whose trees gain nothing by more. */
static nimbus_columns default_columns(const nimbus_layer *layer,
                                      const nimbus_convert_options *options)
{
    if (!is_first(layer) || layer->type != &nimbus_layer_linear ||
        options->method != NIMBUS_METHOD_NIMBUS)
        return NIMBUS_COLUMNS_AUTO;
    /* neighbouring columns are read faster */
    return options->preset == NIMBUS_SPEED ? NIMBUS_COLUMNS_RUNS : NIMBUS_COLUMNS_BALANCED;
}

nimbus_status nimbus_plan_layers(const nimbus_net *net, const nimbus_convert_options *options,
                                 nimbus_layer_plan **out, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;

    *out = NULL;
    if (options->levels > NIMBUS_MAX_LEVELS)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "%zu tree levels, expected 1 to %d",
                           options->levels, NIMBUS_MAX_LEVELS);
    if (options->bits == 1 || (options->bits > 8 && options->bits != 32))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "tables of %u bits, expected 2 to 8, or 32 for float tables",
                           options->bits);
    if (options->trees > MOST_TREES)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "%zu trees per group, expected 1 to %d",
                           options->trees, MOST_TREES);
    if ((unsigned)options->preset > NIMBUS_ACCURACY || (unsigned)options->tree > NIMBUS_CHOICE_FEW)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "unknown preset %d or choice of trees %d",
                           (int)options->preset, (int)options->tree);
    nimbus_layer_plan *plans = nimbus_alloc(net->n_layers, sizeof *plans);
    if (!plans)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the conversion's plan");
    for (size_t i = 0; i < net->n_layers; i++)
        if (nimbus_layer_is_convertible(&net->layers[i]))
            plans[i] = default_plan(net, i, options);
    cursor c = {.text = options->layers, .at = options->layers};
    while (options->layers && *c.at && status == NIMBUS_OK) {
        status = read_layer(&c, net, plans, error);
        c.at += status == NIMBUS_OK && *c.at == ';';
    }
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        if (!nimbus_layer_is_convertible(layer))
            continue;
        if (plans[i].tree == NIMBUS_CHOICE_AUTO)
            plans[i].tree = default_tree(net, layer, options->preset, plans[i].levels);
        if (plans[i].columns == NIMBUS_COLUMNS_AUTO)
            plans[i].columns = default_columns(layer, options);
    }
    if (status)
        nimbus_free(plans);
    else
        *out = plans;
    return status;
}
