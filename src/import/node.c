/* node.c - what operators ask of their node: attributes, inputs, and a place for the result */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "import/import.h"

#define TYPE(name) NIMBUS__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__##name

nimbus_status nimbus_node_fail(const nimbus_import_node *n, nimbus_status status,
                               nimbus_error *error, const char *format, ...)
{
    char message[sizeof error->message];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return nimbus_fail(error, status, "node %s: %s", n->label, message);
}

/* ---- attributes --------------------------------------------------------------------------- */

const Nimbus__AttributeProto *nimbus_node_attribute(const nimbus_import_node *n, const char *name)
{
    for (size_t k = 0; k < n->proto->n_attribute; k++)
        if (n->proto->attribute[k]->name && strcmp(n->proto->attribute[k]->name, name) == 0)
            return n->proto->attribute[k];
    return NULL;
}

/* An attribute of the given type; *out NULL if there is none. Old writers leave the type out. */
static nimbus_status typed(const nimbus_import_node *n, const char *name, int type,
                           const Nimbus__AttributeProto **out, nimbus_error *error)
{
    const Nimbus__AttributeProto *a = nimbus_node_attribute(n, name);
    *out = a;
    if (!a)
        return NIMBUS_OK;
    bool good = a->has_type                ? (int)a->type == type
                : type == (int)TYPE(INT)   ? a->has_i
                : type == (int)TYPE(FLOAT) ? a->has_f
                                           : true;
    if (good)
        return NIMBUS_OK;
    return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error,
                            "attribute %s is of type %d, expected type %d", name, (int)a->type,
                            type);
}

nimbus_status nimbus_node_int(const nimbus_import_node *n, const char *name, int64_t *out,
                              nimbus_error *error)
{
    const Nimbus__AttributeProto *a;
    nimbus_status status = typed(n, name, (int)TYPE(INT), &a, error);
    if (status == NIMBUS_OK && a)
        *out = a->i;
    return status;
}

nimbus_status nimbus_node_float(const nimbus_import_node *n, const char *name, double *out,
                                nimbus_error *error)
{
    const Nimbus__AttributeProto *a;
    nimbus_status status = typed(n, name, (int)TYPE(FLOAT), &a, error);
    if (status == NIMBUS_OK && a)
        *out = (double)a->f;
    return status;
}

nimbus_status nimbus_node_ints(const nimbus_import_node *n, const char *name, const int64_t **out,
                               size_t *count, nimbus_error *error)
{
    static const int64_t none = 0;
    const Nimbus__AttributeProto *a;
    nimbus_status status = typed(n, name, (int)TYPE(INTS), &a, error);
    *out = NULL;
    *count = 0;
    if (status == NIMBUS_OK && a) {
        *out = a->n_ints ? a->ints : &none;
        *count = a->n_ints;
    }
    return status;
}

nimbus_status nimbus_node_word(const nimbus_import_node *n, const char *name,
                               const char *const *words, size_t *out, nimbus_error *error)
{
    const Nimbus__AttributeProto *a;
    char text[32];
    nimbus_status status = typed(n, name, (int)TYPE(STRING), &a, error);
    if (status != NIMBUS_OK || !a)
        return status;
    size_t length = a->s.len < sizeof text - 1 ? a->s.len : sizeof text - 1;
    memcpy(text, a->s.data ? (const char *)a->s.data : "", length);
    text[length] = '\0';
    for (size_t k = 0; words[k]; k++)
        if (strcmp(words[k], text) == 0) {
            *out = k;
            return NIMBUS_OK;
        }
    char shown[sizeof text];
    return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error, "unsupported %s '%s'", name,
                            nimbus_import_printable(shown, sizeof shown, text));
}

/* ---- inputs ------------------------------------------------------------------------------- */

nimbus_import_value *nimbus_node_input(nimbus_importer *im, const nimbus_import_node *n, size_t k)
{
    return k < n->n_inputs && n->inputs[k] != SIZE_MAX ? &im->values[n->inputs[k]] : NULL;
}

nimbus_status nimbus_node_constant(nimbus_importer *im, const nimbus_import_node *n, size_t k,
                                   bool is_real, const nimbus_constant **out, nimbus_error *error)
{
    const nimbus_import_value *value = nimbus_node_input(im, n, k);
    *out = NULL;
    if (!value)
        return NIMBUS_OK;
    if (value->kind != VALUE_CONSTANT)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "input %zu depends on the net's input, expected a constant", k);
    if (value->constant.real != is_real)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error, "input %zu holds %s, expected %s", k,
                                is_real ? "integers" : "floats", is_real ? "floats" : "integers");
    *out = &value->constant;
    return NIMBUS_OK;
}

nimbus_status nimbus_node_scalar(nimbus_importer *im, const nimbus_import_node *n, size_t k,
                                 double *out, nimbus_error *error)
{
    const nimbus_constant *c;
    nimbus_status status = nimbus_node_constant(im, n, k, true, &c, error);
    if (status != NIMBUS_OK || !c)
        return status;
    if (c->n != 1)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "input %zu has %zu elements, expected 1", k, c->n);
    *out = (double)c->f[0];
    return NIMBUS_OK;
}

nimbus_status nimbus_node_view(nimbus_importer *im, const nimbus_import_node *n, size_t k,
                               nimbus_view *out, nimbus_error *error)
{
    const nimbus_import_value *value = nimbus_node_input(im, n, k);
    *out = (nimbus_view){0};
    if (!value)
        return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "input %zu is left out", k);
    if (value->kind != VALUE_VIEW)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "input %zu is a constant, expected what depends on the net's input",
                                k);
    *out = value->view;
    if (out->bytes)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "input %zu is of type uint8, expected floats", k);
    return NIMBUS_OK;
}

nimbus_status nimbus_node_list(nimbus_importer *im, const nimbus_import_node *n, size_t k,
                               const char *name, const int64_t **out, size_t *count,
                               nimbus_error *error)
{
    const nimbus_constant *c;
    nimbus_status status = nimbus_node_constant(im, n, k, false, &c, error);
    *out = NULL;
    *count = 0;
    if (status != NIMBUS_OK)
        return status;
    if (!c)
        return nimbus_node_ints(n, name, out, count, error);
    for (size_t j = 0; c->rows && j < c->n; j++)
        if (c->rows[j])
            return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                    "its %s depend on the number of rows", name);
    *out = c->i;
    *count = c->n;
    return NIMBUS_OK;
}

nimbus_status nimbus_node_axis(const nimbus_import_node *n, int64_t axis, size_t rank, size_t *out,
                               nimbus_error *error)
{
    *out = 0;
    if (axis < -(int64_t)rank || axis >= (int64_t)rank)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "axis %" PRId64 " of an array of %zu dimensions", axis, rank);
    *out = (size_t)(axis < 0 ? axis + (int64_t)rank : axis);
    return NIMBUS_OK;
}

/* ---- results ------------------------------------------------------------------------------ */

void nimbus_node_set_view(nimbus_importer *im, const nimbus_import_node *n, const nimbus_view *v)
{
    im->values[n->output].kind = VALUE_VIEW;
    im->values[n->output].view = *v;
}

void nimbus_node_set_constant(nimbus_importer *im, const nimbus_import_node *n,
                              const nimbus_constant *c)
{
    im->values[n->output].kind = VALUE_CONSTANT;
    im->values[n->output].constant = *c;
}
