/* fold.c - operators on constants: arithmetic, and what chains of shapes are made of
 *
 * Integers may be multiples of N, the unknown number of rows. Sums and quotients of those are
 * computed where the result is an integer or a multiple again, and refused where not. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "import/fold.h"

/* ---- making constants ---------------------------------------------------------------------- */

nimbus_status nimbus_fold_new(nimbus_importer *im, const nimbus_constant *like, size_t rank,
                              const size_t *dims, nimbus_constant *out, nimbus_error *error)
{
    nimbus_status status = nimbus_constant_new(im, like->real, rank, dims, out, error);
    if (status == NIMBUS_OK && like->rows)
        status = nimbus_import_alloc(im, out->n, sizeof *out->rows, (void *)&out->rows, error);
    if (status != NIMBUS_OK)
        nimbus_constant_free(out);
    return status;
}

void nimbus_fold_copy(nimbus_constant *to, size_t at, const nimbus_constant *from, size_t from_at)
{
    if (to->real) {
        to->f[at] = from->f[from_at];
        return;
    }
    to->i[at] = from->i[from_at];
    if (to->rows)
        to->rows[at] = from->rows && from->rows[from_at];
}

const nimbus_constant *nimbus_fold_input(nimbus_importer *im, const nimbus_import_node *n, size_t k)
{
    const nimbus_import_value *v = nimbus_node_input(im, n, k);
    return v ? &v->constant : NULL;
}

/* Input 0 with other dimensions, of as many elements. */
nimbus_status nimbus_fold_reshaped(nimbus_importer *im, const nimbus_import_node *n, size_t rank,
                                   const size_t *dims, nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    nimbus_constant out;
    nimbus_status status = nimbus_fold_new(im, in, rank, dims, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < out.n && k < in->n; k++)
        nimbus_fold_copy(&out, k, in, k);
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_identity(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    return nimbus_fold_reshaped(im, n, in->rank, in->dims, error);
}

/* A constant from an attribute of numbers. */
static nimbus_status fold_numbers(nimbus_importer *im, const nimbus_import_node *n,
                                  const Nimbus__AttributeProto *a, nimbus_error *error)
{
    bool is_real = strncmp(a->name, "value_float", 11) == 0;
    bool list = strcmp(a->name, "value_floats") == 0 || strcmp(a->name, "value_ints") == 0;
    size_t count = list ? (is_real ? a->n_floats : a->n_ints) : 1;
    nimbus_constant out;
    nimbus_status status = nimbus_constant_new(im, is_real, list ? 1 : 0, &count, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < count; k++)
        if (is_real)
            out.f[k] = list ? a->floats[k] : a->f;
        else
            out.i[k] = list ? a->ints[k] : a->i;
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_constant(nimbus_importer *im, const nimbus_import_node *n,
                                   nimbus_error *error)
{
    const Nimbus__AttributeProto *a = n->proto->n_attribute == 1 ? n->proto->attribute[0] : NULL;
    nimbus_constant out;
    if (!a)
        return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "%zu attributes, expected one value",
                                n->proto->n_attribute);
    if (strcmp(a->name, "value") != 0)
        return fold_numbers(im, n, a, error);
    if (!a->t)
        return nimbus_node_fail(n, NIMBUS_ERR_FORMAT, error, "attribute value holds no tensor");
    nimbus_status status = nimbus_tensor_read(im, a->t, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    nimbus_node_set_constant(im, n, &out);
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_constant_of_shape(nimbus_importer *im, const nimbus_import_node *n,
                                            nimbus_error *error)
{
    const Nimbus__AttributeProto *a = nimbus_node_attribute(n, "value");
    nimbus_constant value = {.real = true}, out;
    size_t dims[IMPORT_RANK], rank;
    const int64_t *sizes;
    float zero = 0;
    nimbus_status status = nimbus_node_list(im, n, 0, "dimensions", &sizes, &rank, error);
    if (status != NIMBUS_OK)
        return status;
    if (rank > IMPORT_RANK)
        return nimbus_node_fail(n, NIMBUS_ERR_LIMIT, error, "%zu dimensions, the limit is %d", rank,
                                IMPORT_RANK);
    for (size_t k = 0; k < rank; k++) {
        if (sizes[k] < 0)
            return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "dimension %zu is %" PRId64, k,
                                    sizes[k]);
        dims[k] = (size_t)sizes[k];
    }
    if (a && a->t)
        status = nimbus_tensor_read(im, a->t, &value, error);
    if (status == NIMBUS_OK && a && value.n != 1)
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT, "its value has %zu elements, expected 1",
                             value.n);
    if (status == NIMBUS_OK)
        status = nimbus_constant_new(im, value.real, rank, dims, &out, error);
    if (status == NIMBUS_OK) {
        for (size_t k = 0; k < out.n; k++)
            if (out.real)
                out.f[k] = value.f ? value.f[0] : zero;
            else
                out.i[k] = value.i[0];
        nimbus_node_set_constant(im, n, &out);
    }
    nimbus_constant_free(&value);
    return status == NIMBUS_OK ? status : nimbus_fail_prefix(error, status, "node %s", n->label);
}

/* ---- casts --------------------------------------------------------------------------------- */

static bool is_float_code(int64_t code)
{
    return code == NIMBUS__TENSOR_PROTO__DATA_TYPE__FLOAT ||
           code == NIMBUS__TENSOR_PROTO__DATA_TYPE__FLOAT16 ||
           code == NIMBUS__TENSOR_PROTO__DATA_TYPE__DOUBLE;
}

/* Whole numbers that fit in the type; others are refused, as what becomes of them differs. */
static bool fits(int64_t code, int64_t value)
{
    switch (code) {
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__INT64:
        return true;
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__INT32:
        return value >= INT32_MIN && value <= INT32_MAX;
    case NIMBUS__TENSOR_PROTO__DATA_TYPE__BOOL:
        return value == 0 || value == 1;
    default:
        return false;
    }
}

static nimbus_status cast_element(const nimbus_import_node *n, const nimbus_constant *in, size_t k,
                                  int64_t to, nimbus_constant *out, nimbus_error *error)
{
    if (in->rows && in->rows[k] && out->real)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "makes a float of the number of rows");
    if (out->real) {
        out->f[k] = in->real ? in->f[k] : (float)in->i[k];
        return NIMBUS_OK;
    }
    double value = in->real ? trunc((double)in->f[k]) : 0;
    bool good = !in->real || fabs(value) < 9e18;
    int64_t integer = in->real ? (good ? (int64_t)value : 0) : in->i[k];
    if (!good || !fits(to, integer))
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "element %zu does not fit the type it is cast to", k);
    out->i[k] = integer;
    if (out->rows)
        out->rows[k] = in->rows && in->rows[k];
    return NIMBUS_OK;
}

nimbus_status nimbus_fold_cast(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    const nimbus_constant *in = nimbus_fold_input(im, n, 0);
    nimbus_constant out, like = {.rows = in->rows};
    int64_t to = 0;
    nimbus_status status = nimbus_node_int(n, "to", &to, error);
    if (status != NIMBUS_OK)
        return status;
    like.real = is_float_code(to);
    like.rows = like.real ? NULL : in->rows;
    status = nimbus_fold_new(im, &like, in->rank, in->dims, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < in->n && status == NIMBUS_OK; k++)
        status = cast_element(n, in, k, to, &out, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_constant(im, n, &out);
    else
        nimbus_constant_free(&out);
    return status;
}

/* ---- arithmetic ---------------------------------------------------------------------------- */

/* Element of an array that is stretched to `rank` dimensions, at a position there. */
static size_t stretched_at(const nimbus_constant *c, size_t rank, const size_t *at)
{
    size_t index = 0;
    for (size_t k = 0; k < c->rank; k++)
        index = index * c->dims[k] + (c->dims[k] == 1 ? 0 : at[rank - c->rank + k]);
    return index;
}

bool nimbus_fold_next(size_t rank, const size_t *dims, size_t *at)
{
    for (size_t k = rank; k-- > 0;) {
        if (++at[k] < dims[k])
            return true;
        at[k] = 0;
    }
    return false;
}

static bool stretch(const nimbus_constant *a, const nimbus_constant *b, size_t *rank, size_t *dims)
{
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (size_t k = 0; k < *rank; k++) {
        size_t x = k + a->rank < *rank ? 1 : a->dims[k + a->rank - *rank];
        size_t y = k + b->rank < *rank ? 1 : b->dims[k + b->rank - *rank];
        if (x != y && x != 1 && y != 1)
            return false;
        dims[k] = x == 1 ? y : x;
    }
    return true;
}

/* a op b of integers, each maybe times N. False: overflow, a division that leaves a rest where the
 * direction of rounding matters, or no multiple of N. */
static bool integer_of(char op, int64_t a, bool a_rows, int64_t b, bool b_rows, int64_t *out,
                       bool *out_rows)
{
    *out_rows = a_rows || b_rows;
    switch (op) {
    case '+':
    case '-':
        if (a_rows != b_rows && a != 0 && b != 0)
            return false;
        *out_rows = (a_rows && a != 0) || (b_rows && b != 0);
        return !(op == '+' ? __builtin_add_overflow(a, b, out) : __builtin_sub_overflow(a, b, out));
    case '*':
        return !(a_rows && b_rows) && !__builtin_mul_overflow(a, b, out);
    default:
        if (b == 0 || (b == -1 && a == INT64_MIN) || (b_rows && !a_rows))
            return false;
        *out_rows = a_rows && !b_rows;
        *out = a / b;
        return a % b == 0 || (a > 0 && b > 0 && !a_rows);
    }
}

static float float_of(char op, float a, float b)
{
    return op == '+' ? a + b : op == '-' ? a - b : op == '*' ? a * b : a / b;
}

static nimbus_status fold_arithmetic(nimbus_importer *im, const nimbus_import_node *n, char op,
                                     nimbus_error *error)
{
    const nimbus_constant *a = nimbus_fold_input(im, n, 0), *b = nimbus_fold_input(im, n, 1);
    nimbus_constant out, like = *a;
    size_t rank, dims[IMPORT_RANK], at[IMPORT_RANK] = {0};
    if (a->real != b->real)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error, "floats and integers together");
    if (!stretch(a, b, &rank, dims))
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "the dimensions of its inputs do not fit each other");
    like.rows = a->rows ? a->rows : b->rows;
    nimbus_status status = nimbus_fold_new(im, &like, rank, dims, &out, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status, "node %s", n->label);
    for (size_t k = 0; k < out.n && status == NIMBUS_OK; k++) {
        size_t i = stretched_at(a, rank, at), j = stretched_at(b, rank, at);
        bool rows = false;
        if (out.real)
            out.f[k] = float_of(op, a->f[i], b->f[j]);
        else if (!integer_of(op, a->i[i], a->rows && a->rows[i], b->i[j], b->rows && b->rows[j],
                             &out.i[k], &rows))
            status = nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                      "element %zu is no integer or multiple of the number of rows "
                                      "that can be computed here",
                                      k);
        if (out.rows)
            out.rows[k] = rows;
        (void)nimbus_fold_next(rank, dims, at);
    }
    if (status == NIMBUS_OK)
        nimbus_node_set_constant(im, n, &out);
    else
        nimbus_constant_free(&out);
    return status;
}

nimbus_status nimbus_fold_add(nimbus_importer *im, const nimbus_import_node *n, nimbus_error *error)
{
    return fold_arithmetic(im, n, '+', error);
}

nimbus_status nimbus_fold_sub(nimbus_importer *im, const nimbus_import_node *n, nimbus_error *error)
{
    return fold_arithmetic(im, n, '-', error);
}

nimbus_status nimbus_fold_mul(nimbus_importer *im, const nimbus_import_node *n, nimbus_error *error)
{
    return fold_arithmetic(im, n, '*', error);
}

nimbus_status nimbus_fold_div(nimbus_importer *im, const nimbus_import_node *n, nimbus_error *error)
{
    return fold_arithmetic(im, n, '/', error);
}
