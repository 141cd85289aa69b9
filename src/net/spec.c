/* spec.c - parses the words that describe a net; the grammar stands in spec.h */
#include "net/spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "net/lookup.h"

struct cursor {
    const char *text, *at;
    nimbus_error *error;
};

static nimbus_status wrong(const struct cursor *c, nimbus_status status, const char *expected)
{
    size_t at = (size_t)(c->at - c->text), length = strcspn(c->at, ";,");
    if (c->at[0] == 0)
        return nimbus_fail_at(c->error, status, at, "net '%.200s': ends at character %zu, %s",
                              c->text, at + 1, expected);
    return nimbus_fail_at(c->error, status, at, "net '%.200s': '%.*s' at character %zu, %s",
                          c->text, length > 0 && length < 40 ? (int)length : 1, c->at, at + 1,
                          expected);
}

static bool take(struct cursor *c, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

static nimbus_status take_number(struct cursor *c, size_t limit, size_t *out)
{
    size_t value = 0;
    const char *begin = c->at;
    while (*c->at >= '0' && *c->at <= '9' && value <= limit)
        value = value * 10 + (size_t)(*c->at++ - '0');
    if (value >= 1 && value <= limit) {
        *out = value;
        return NIMBUS_OK;
    }
    char expected[64];
    c->at = begin;
    (void)snprintf(expected, sizeof expected, "expected a number of 1 to %zu", limit);
    return wrong(c, NIMBUS_ERR_ARGUMENT, expected);
}

static nimbus_status require_equal(struct cursor *c, const char *at, size_t found, size_t wanted,
                                   const char *what)
{
    char expected[64];
    if (found == wanted)
        return NIMBUS_OK;
    c->at = at;
    (void)snprintf(expected, sizeof expected, "expected %zu, %s", wanted, what);
    return wrong(c, NIMBUS_ERR_MISMATCH, expected);
}

/* Layers up to the first ';': numbers, for lookup nets "trees x outputs", between separators. */
static nimbus_status take_layers(struct cursor *c, nimbus_spec *spec, char separator,
                                 const char **last)
{
    nimbus_status status = NIMBUS_OK;
    do {
        size_t i = spec->n_layers;
        *last = c->at;
        if (i == NIMBUS_SPEC_MAX_LAYERS - 1)
            return wrong(c, NIMBUS_ERR_ARGUMENT, "expected fewer layers");
        if (spec->lookup) {
            status = take_number(c, NIMBUS_SPEC_MAX_UNITS, &spec->trees[i]);
            if (status == NIMBUS_OK && !take(c, "x"))
                status = wrong(c, NIMBUS_ERR_ARGUMENT, "expected 'x' and the outputs of the layer");
            *last = c->at;
        }
        if (status == NIMBUS_OK)
            status = take_number(c, NIMBUS_SPEC_MAX_UNITS, &spec->units[i]);
        if (status != NIMBUS_OK)
            return status;
        spec->n_layers++;
    } while (*c->at == separator && c->at++);
    if (*c->at != 0 && *c->at != ';')
        return wrong(c, NIMBUS_ERR_ARGUMENT, "expected another layer, ';' or the end");
    return NIMBUS_OK;
}

static nimbus_status take_widths(struct cursor *c, size_t n_inputs, size_t n_outputs,
                                 nimbus_spec *spec)
{
    const char *last, *begin = c->at;
    nimbus_status status;
    if (take(c, "mlp:")) {
        status = take_layers(c, spec, ',', &last);
        spec->units[spec->n_layers++] = n_outputs;
        return status;
    }
    if (take(c, "resnet8") || take(c, "resnet9")) {
        spec->kind = c->at[-1] == '8' ? NIMBUS_SPEC_RESNET8 : NIMBUS_SPEC_RESNET9;
        spec->width = spec->kind == NIMBUS_SPEC_RESNET8 ? 16 : 64;
        return NIMBUS_OK;
    }
    if (take(c, "lut:")) {
        spec->lookup = true;
        status = take_layers(c, spec, ',', &last);
        if (status != NIMBUS_OK)
            return status;
        return require_equal(c, last, spec->units[spec->n_layers - 1], n_outputs,
                             "the classes or targets of the data");
    }
    if (*c->at < '0' || *c->at > '9')
        return wrong(c, NIMBUS_ERR_ARGUMENT,
                     "expected mlp:, lut:, resnet8, resnet9 or widths like 784-512-10");
    status = take_number(c, NIMBUS_MAX_WIDTH, &spec->units[0]);
    if (status == NIMBUS_OK)
        status = require_equal(c, begin, spec->units[0], n_inputs, "the columns of the data");
    if (status == NIMBUS_OK && !take(c, "-"))
        status = wrong(c, NIMBUS_ERR_ARGUMENT, "expected '-' and the next width");
    if (status == NIMBUS_OK)
        status = take_layers(c, spec, '-', &last);
    if (status == NIMBUS_OK)
        status = require_equal(c, last, spec->units[spec->n_layers - 1], n_outputs,
                               "the classes or targets of the data");
    return status;
}

static nimbus_status take_option(struct cursor *c, nimbus_spec *spec)
{
    static const char *const activations[] = {"relu", "gelu", "tanh", "sigmoid"};
    if (spec->lookup) {
        if (take(c, "levels="))
            return take_number(c, NIMBUS_MAX_LEVELS, &spec->levels);
        if (take(c, "window="))
            return take_number(c, 255, &spec->window);
        if (take(c, "span="))
            return take_number(c, NIMBUS_MAX_WIDTH, &spec->span);
        return wrong(c, NIMBUS_ERR_ARGUMENT, "expected levels=, window= or span=");
    }
    if (spec->kind != NIMBUS_SPEC_LAYERS) {
        if (take(c, "width="))
            return take_number(c, NIMBUS_SPEC_MAX_CHANNELS, &spec->width);
        return wrong(c, NIMBUS_ERR_ARGUMENT, "expected width=");
    }
    if (take(c, "bn")) {
        spec->batch_norm = true;
        return NIMBUS_OK;
    }
    if (take(c, "residual")) {
        spec->residual = true;
        return NIMBUS_OK;
    }
    if (take(c, "dropout=")) {
        char *end;
        spec->dropout = *c->at >= '0' && *c->at <= '9' ? strtod(c->at, &end) : NAN;
        if (!(spec->dropout >= 0 && spec->dropout < 1))
            return wrong(c, NIMBUS_ERR_ARGUMENT, "expected 0 <= fraction < 1");
        c->at = end;
        return NIMBUS_OK;
    }
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++)
        if (take(c, activations[i])) {
            spec->activation = nimbus_layer_type_named(activations[i]);
            return NIMBUS_OK;
        }
    return wrong(c, NIMBUS_ERR_ARGUMENT,
                 "expected bn, residual, relu, gelu, tanh, sigmoid or dropout=");
}

nimbus_status nimbus_spec_parse(const char *text, size_t n_inputs, size_t n_outputs,
                                nimbus_spec *out, nimbus_error *error)
{
    struct cursor c = {text, text, error};
    *out = (nimbus_spec){.activation = &nimbus_layer_relu, .levels = 4, .window = 7};
    nimbus_status status = take_widths(&c, n_inputs, n_outputs, out);
    while (status == NIMBUS_OK && take(&c, ";"))
        status = take_option(&c, out);
    if (status == NIMBUS_OK && *c.at != 0)
        status = wrong(&c, NIMBUS_ERR_ARGUMENT, "expected ';' and an option, or the end");
    return status;
}
