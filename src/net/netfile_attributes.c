/* netfile_attributes.c - a layer's attributes in the graph of a .net file, written and read */
#include "net/netfile.h"

#include <string.h>

enum kind { COUNTS, AXES, NUMBER, FLAG, MODE };

static const char *const mode_names[] = {"constant", "reflect", "edge"};

#define COUNT(key, field, n)                                                                       \
    {                                                                                              \
#key, COUNTS, offsetof(nimbus_layer, field), n, false                                      \
    }
static const struct attribute {
    const char *key;
    enum kind kind;
    size_t offset; /* in nimbus_layer */
    size_t n;      /* values; more than one: a list */
    bool always;   /* written even where it is zero, and demanded */
} attributes[] = {
    {"units", COUNTS, offsetof(nimbus_layer, units), 1, true},
    {"number", NUMBER, offsetof(nimbus_layer, number), 1, true},
    {"bare", FLAG, offsetof(nimbus_layer, bare), 1, true},
    {"number2", NUMBER, offsetof(nimbus_layer, number2), 1, false},
    COUNT(groups, groups, 1),
    {"count_padding", FLAG, offsetof(nimbus_layer, count_padding), 1, false},
    COUNT(kernel, slide.kernel, 2),
    COUNT(stride, slide.stride, 2),
    COUNT(dilation, slide.dilation, 2),
    COUNT(before, slide.before, 2),
    COUNT(after, slide.after, 2),
    {"pad_mode", MODE, offsetof(nimbus_layer, pad_mode), 1, false},
    COUNT(new_shape, new_shape, 3), /* channels, height, width */
    {"before_relu", FLAG, offsetof(nimbus_layer, before_relu), 1, false},
    {"order", AXES, offsetof(nimbus_layer, order), 3, false},
};
#define N_ATTRIBUTES (sizeof attributes / sizeof attributes[0])

static const void *place(const nimbus_layer *layer, const struct attribute *a)
{
    return (const char *)layer + a->offset;
}

/* Value i of an attribute that is made of integers. */
static size_t value_at(const nimbus_layer *layer, const struct attribute *a, size_t i)
{
    return a->kind == AXES ? ((const uint8_t *)place(layer, a))[i]
                           : ((const size_t *)place(layer, a))[i];
}

static bool is_zero(const nimbus_layer *layer, const struct attribute *a)
{
    switch (a->kind) {
    case NUMBER:
        return *(const double *)place(layer, a) == 0;
    case FLAG:
        return !*(const bool *)place(layer, a);
    case MODE:
        return *(const nimbus_pad_mode *)place(layer, a) == NIMBUS_PAD_CONSTANT;
    default:
        for (size_t i = 0; i < a->n; i++)
            if (value_at(layer, a, i) != 0)
                return false;
        return true;
    }
}

/* NULL if memory ran out, or for a number that is not finite. */
static json_t *attribute_to_json(const nimbus_layer *layer, const struct attribute *a)
{
    switch (a->kind) {
    case NUMBER:
        return json_real(*(const double *)place(layer, a));
    case FLAG:
        return json_boolean(*(const bool *)place(layer, a));
    case MODE:
        return json_string(mode_names[*(const nimbus_pad_mode *)place(layer, a)]);
    default:
        break;
    }
    if (a->n == 1)
        return json_integer((json_int_t)value_at(layer, a, 0));
    json_t *list = json_array();
    int failed = 0;
    for (size_t i = 0; i < a->n; i++)
        failed |= json_array_append_new(list, json_integer((json_int_t)value_at(layer, a, i)));
    if (failed) {
        json_decref(list);
        return NULL;
    }
    return list;
}

bool nimbus_netfile_put_attributes(const nimbus_layer *layer, json_t *o)
{
    int failed = 0;
    for (size_t i = 0; i < N_ATTRIBUTES; i++)
        if (attributes[i].always || !is_zero(layer, &attributes[i]))
            failed |=
                json_object_set_new(o, attributes[i].key, attribute_to_json(layer, &attributes[i]));
    return !failed;
}

static bool is_count(const json_t *v, size_t limit)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 &&
           (unsigned long long)json_integer_value(v) <= limit;
}

nimbus_status nimbus_netfile_get_count(const json_t *o, const char *key, size_t limit,
                                       const char *where, size_t *out, nimbus_error *error)
{
    const json_t *v = json_object_get(o, key);
    if (!is_count(v, limit))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "%s: \"%s\" is not an integer of 0 to %zu",
                           where, key, limit);
    *out = (size_t)json_integer_value(v);
    return NIMBUS_OK;
}

nimbus_status nimbus_netfile_get_choice(const json_t *o, const char *key, const char *const *names,
                                        size_t n, const char *where, unsigned *out,
                                        nimbus_error *error)
{
    const char *s = json_string_value(json_object_get(o, key));
    if (!s)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "%s: \"%s\" is not a string", where, key);
    for (size_t i = 0; i < n; i++)
        if (names[i][0] != 0 && strcmp(names[i], s) == 0) {
            *out = (unsigned)i;
            return NIMBUS_OK;
        }
    return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "%s: unknown %s '%.40s'", where, key, s);
}

/* Integers: one, or a list of n. */
static nimbus_status get_integers(const json_t *o, const struct attribute *a, const char *where,
                                  nimbus_layer *layer, nimbus_error *error)
{
    size_t limit = a->kind == AXES ? 2 : NIMBUS_MAX_WIDTH;
    size_t *counts = (size_t *)((char *)layer + a->offset);
    const json_t *v = json_object_get(o, a->key);
    if (a->n == 1)
        return nimbus_netfile_get_count(o, a->key, limit, where, counts, error);
    bool right = json_array_size(v) == a->n;
    for (size_t i = 0; right && i < a->n; i++) {
        const json_t *value = json_array_get(v, i);
        right = is_count(value, limit);
        if (right && a->kind == AXES)
            layer->order[i] = (uint8_t)json_integer_value(value);
        else if (right)
            counts[i] = (size_t)json_integer_value(value);
    }
    if (!right)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "%s: \"%s\" is not a list of %zu integers of 0 to %zu", where, a->key,
                           a->n, limit);
    return NIMBUS_OK;
}

static nimbus_status get_attribute(const json_t *o, const struct attribute *a, const char *where,
                                   nimbus_layer *layer, nimbus_error *error)
{
    char *to = (char *)layer + a->offset;
    const json_t *v = json_object_get(o, a->key);
    unsigned mode;
    nimbus_status status;
    switch (a->kind) {
    case NUMBER:
        if (!json_is_number(v))
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "%s: \"%s\" is not a number", where,
                               a->key);
        *(double *)to = json_number_value(v);
        return NIMBUS_OK;
    case FLAG:
        if (!json_is_boolean(v))
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "%s: \"%s\" is not true or false", where,
                               a->key);
        *(bool *)to = json_is_true(v);
        return NIMBUS_OK;
    case MODE:
        status = nimbus_netfile_get_choice(
            o, a->key, mode_names, sizeof mode_names / sizeof mode_names[0], where, &mode, error);
        if (status == NIMBUS_OK)
            *(nimbus_pad_mode *)to = (nimbus_pad_mode)mode;
        return status;
    default:
        return get_integers(o, a, where, layer, error);
    }
}

nimbus_status nimbus_netfile_get_attributes(const json_t *o, const char *where, nimbus_layer *layer,
                                            nimbus_error *error)
{
    static const char *const others[] = {"name", "type", "inputs", "shape", "state", "lookup"};
    const char *key;
    json_t *value;
    for (size_t i = 0; i < N_ATTRIBUTES; i++) {
        if (!attributes[i].always && !json_object_get(o, attributes[i].key))
            continue;
        nimbus_status status = get_attribute(o, &attributes[i], where, layer, error);
        if (status != NIMBUS_OK)
            return status;
    }
    json_object_foreach((json_t *)o, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < N_ATTRIBUTES; i++)
            known = known || strcmp(key, attributes[i].key) == 0;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            known = known || strcmp(key, others[i]) == 0;
        if (!known)
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "%s: unknown attribute \"%.40s\"",
                               where, key);
    }
    return NIMBUS_OK;
}
