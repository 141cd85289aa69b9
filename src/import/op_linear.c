/* op_linear.c - products with constant matrices, batch norm, and arithmetic
 *
 * Sums, differences, products and quotients with constants are a scale and a shift, per channel or,
 * where the constant has a value for every element, per element. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "import/import.h"

/* ---- products ------------------------------------------------------------------------------ */

/* A matrix and how to read it: element (m, j) of alpha * W is alpha * c->f[m * by_m + j * by_j]. */
struct matrix {
    const nimbus_constant *c;
    size_t m, d, by_m, by_j;
    float alpha;
};

static nimbus_status fill_linear(nimbus_importer *im, const nimbus_view *v, const struct matrix *w,
                                 nimbus_draft *draft, nimbus_error *error)
{
    uint32_t *index;
    nimbus_status status =
        nimbus_import_alloc(im, w->m * w->d, sizeof(float), &draft->values[0], error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, w->m, sizeof(float), &draft->values[1], error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, w->d, sizeof *index, &index, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view_index(v, index);
    for (size_t m = 0; m < w->m; m++)
        for (size_t j = 0; j < w->d; j++)
            draft->values[0][m * w->d + index[j]] = w->alpha * w->c->f[m * w->by_m + j * w->by_j];
    nimbus_free(index);
    draft->n_values[0] = w->m * w->d;
    draft->n_values[1] = w->m;
    return NIMBUS_OK;
}

/* Adds a linear layer; a transposition put off becomes another order of the weights. bias may be
 * NULL. */
static nimbus_status add_linear(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *v,
                                const struct matrix *w, const nimbus_constant *bias, float beta,
                                nimbus_error *error)
{
    nimbus_draft draft = {.proto = {.type = &nimbus_layer_linear, .units = w->m}, .n_inputs = 1};
    nimbus_status status = fill_linear(im, v, w, &draft, error);
    for (size_t m = 0; status == NIMBUS_OK && bias && m < w->m; m++)
        draft.values[1][m] = beta * bias->f[bias->n == 1 ? 0 : m];
    v->n_axes = 0;
    if (status == NIMBUS_OK)
        status = nimbus_view_give_shape(im, n, v, (nimbus_shape){w->d, 1, 1}, error);
    if (status != NIMBUS_OK) {
        nimbus_free(draft.values[0]);
        nimbus_free(draft.values[1]);
        return status;
    }
    draft.inputs[0] = v->layer;
    draft.proto.shape = (nimbus_shape){w->m, 1, 1};
    status = nimbus_draft_add(im, n, &draft, &v->layer, error);
    v->dims[v->rank - 1] = w->m;
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, v);
    return status;
}

/* Checks a matrix that is to stand on the right of a view's rows. */
static nimbus_status check_matrix(const nimbus_import_node *n, const nimbus_view *v,
                                  struct matrix *w, bool transposed, nimbus_error *error)
{
    if (w->c->rank != 2 || w->c->n == 0)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "a product with an array of %zu dimensions, expected a matrix",
                                w->c->rank);
    if (v->rank < 2 || nimbus_view_width(v) != v->dims[v->rank - 1])
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "a product of %zu dimensions, several vectors in a row: nets of "
                                "sequences are not imported",
                                v->rank);
    w->m = w->c->dims[transposed ? 0 : 1];
    w->d = w->c->dims[transposed ? 1 : 0];
    w->by_m = transposed ? w->d : 1;
    w->by_j = transposed ? 1 : w->m;
    if (w->d != nimbus_view_width(v))
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "a matrix for %zu inputs, rows have %zu values", w->d,
                                nimbus_view_width(v));
    return NIMBUS_OK;
}

nimbus_status nimbus_build_matmul(nimbus_importer *im, const nimbus_import_node *n,
                                  nimbus_error *error)
{
    nimbus_view v;
    struct matrix w = {.alpha = 1};
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, 1, true, &w.c, error);
    if (status == NIMBUS_OK)
        status = check_matrix(n, &v, &w, false, error);
    return status == NIMBUS_OK ? add_linear(im, n, &v, &w, NULL, 0, error) : status;
}

nimbus_status nimbus_build_gemm(nimbus_importer *im, const nimbus_import_node *n,
                                nimbus_error *error)
{
    nimbus_view v;
    struct matrix w = {.alpha = 1};
    const nimbus_constant *bias;
    double alpha = 1, beta = 1;
    int64_t trans_a = 0, trans_b = 0;
    nimbus_status status = nimbus_node_view(im, n, 0, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, 1, true, &w.c, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, 2, true, &bias, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "alpha", &alpha, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "beta", &beta, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "transA", &trans_a, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "transB", &trans_b, error);
    if (status != NIMBUS_OK)
        return status;
    if (trans_a)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "transA: rows and columns of the input changed places");
    if (v.rank != 2)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "an input of %zu dimensions, expected 2", v.rank);
    w.alpha = (float)alpha;
    status = check_matrix(n, &v, &w, trans_b != 0, error);
    if (status != NIMBUS_OK)
        return status;
    if (bias && (bias->rank > 2 || (bias->n != 1 && bias->n != w.m) ||
                 (bias->n > 1 && bias->dims[bias->rank - 1] != w.m)))
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                "a bias of %zu values for %zu outputs", bias->n, w.m);
    return add_linear(im, n, &v, &w, bias, (float)beta, error);
}

/* ---- batch norm ---------------------------------------------------------------------------- */

static nimbus_status check_batch_norm(nimbus_importer *im, const nimbus_import_node *n,
                                      nimbus_draft *draft, const nimbus_constant **params,
                                      nimbus_view *v, nimbus_error *error)
{
    double epsilon = (double)1e-5f;
    int64_t training = 0;
    nimbus_status status = nimbus_node_view(im, n, 0, v, error);
    for (size_t k = 0; k < 4 && status == NIMBUS_OK; k++)
        status = nimbus_node_constant(im, n, k + 1, true, &params[k], error);
    if (status == NIMBUS_OK)
        status = nimbus_node_float(n, "epsilon", &epsilon, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_int(n, "training_mode", &training, error);
    if (status != NIMBUS_OK)
        return status;
    if (training)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "is in training mode; export the model for inference");
    if (v->rank < 2 || v->rank > 4)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error, "%zu dimensions, expected 2 to 4",
                                v->rank);
    if (!(epsilon >= 0 && epsilon < 1))
        return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "epsilon is %g, expected 0 to 1",
                                epsilon);
    draft->proto.number = epsilon > 0 ? epsilon : 1e-30;
    for (size_t k = 0; k < 4; k++)
        if (params[k]->n != v->dims[1])
            return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error,
                                    "input %zu has %zu values for %zu channels", k + 1,
                                    params[k]->n, v->dims[1]);
    for (size_t k = 0; k < params[3]->n; k++)
        if (!(params[3]->f[k] >= 0 && (double)params[3]->f[k] + epsilon > 0))
            return nimbus_node_fail(n, NIMBUS_ERR_VALUE, error, "the variance of channel %zu is %g",
                                    k, (double)params[3]->f[k]);
    return NIMBUS_OK;
}

nimbus_status nimbus_build_batch_norm(nimbus_importer *im, const nimbus_import_node *n,
                                      nimbus_error *error)
{
    static const size_t order[] = {2, 3, 0, 1}; /* mean, variance, scale, shift */
    const nimbus_constant *params[4];
    nimbus_view v;
    nimbus_draft draft = {.proto.type = &nimbus_layer_batch_norm};
    nimbus_status status = check_batch_norm(im, n, &draft, params, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_view_give_shape(im, n, &v, nimbus_view_shape(&v), error);
    for (size_t k = 0; k < 4 && status == NIMBUS_OK; k++) {
        draft.n_values[k] = params[order[k]]->n;
        status = nimbus_import_alloc(im, draft.n_values[k], sizeof(float), &draft.values[k], error);
        if (status == NIMBUS_OK)
            memcpy(draft.values[k], params[order[k]]->f, draft.n_values[k] * sizeof(float));
    }
    if (status != NIMBUS_OK) {
        for (size_t k = 0; k < 4; k++)
            nimbus_free(draft.values[k]);
        return status;
    }
    status = nimbus_draft_element(im, n, &draft, &v, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &v);
    return status;
}

/* ---- arithmetic with a constant ------------------------------------------------------------ */

enum arithmetic { ADD, SUBTRACT, SUBTRACT_FROM, MULTIPLY, DIVIDE };

static float scale_of(enum arithmetic op, float c)
{
    return op == MULTIPLY ? c : op == DIVIDE ? 1 / c : op == SUBTRACT_FROM ? -1.0f : 1.0f;
}

static float shift_of(enum arithmetic op, float c)
{
    return op == SUBTRACT ? -c : op == ADD || op == SUBTRACT_FROM ? c : 0;
}

/* Refuses constants that would make the view larger, or work on rows. */
static nimbus_status check_stretch(const nimbus_import_node *n, const nimbus_constant *c,
                                   const nimbus_view *v, nimbus_error *error)
{
    if (c->rank > v->rank)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "a constant of %zu dimensions with rows of %zu", c->rank, v->rank);
    for (size_t k = 0; k < c->rank; k++) {
        size_t axis = v->rank - c->rank + k;
        if (c->dims[k] == 1 || (axis > 0 && c->dims[k] == v->dims[axis]))
            continue;
        return nimbus_node_fail(
            n, axis == 0 || v->dims[axis] == 1 ? NIMBUS_ERR_UNSUPPORTED : NIMBUS_ERR_MISMATCH,
            error, "dimension %zu of the constant is %zu, expected 1 or that of the rows", k,
            c->dims[k]);
    }
    return NIMBUS_OK;
}

/* The only axis of the view that the constant varies along; 0: there are more. */
static size_t only_axis(const nimbus_constant *c, const nimbus_view *v)
{
    size_t only = 0, count = 0;
    for (size_t k = 0; k < c->rank; k++)
        if (c->dims[k] > 1) {
            only = v->rank - c->rank + k;
            count++;
        }
    return count == 1 ? only : 0;
}

/* Scale and shift for every element of a row, in the view's order. */
static void spread(const nimbus_constant *c, const nimbus_view *v, enum arithmetic op,
                   nimbus_draft *draft)
{
    size_t at[IMPORT_RANK] = {0}, width = draft->n_values[0];
    for (size_t i = 0; i < width; i++) {
        size_t from = 0;
        for (size_t k = 0; k < c->rank; k++)
            from = from * c->dims[k] + (c->dims[k] == 1 ? 0 : at[v->rank - c->rank + k]);
        draft->values[0][i] = scale_of(op, c->f[from]);
        draft->values[1][i] = shift_of(op, c->f[from]);
        for (size_t k = v->rank; k-- > 1;) {
            if (++at[k] < v->dims[k])
                break;
            at[k] = 0;
        }
    }
}

static nimbus_status scale_by_array(nimbus_importer *im, const nimbus_import_node *n,
                                    nimbus_view *v, const nimbus_constant *c, enum arithmetic op,
                                    nimbus_error *error)
{
    nimbus_draft draft = {.kind = DRAFT_AFFINE};
    size_t axis = only_axis(c, v), count = nimbus_view_width(v);
    bool channels = axis > 0;
    nimbus_status status = check_stretch(n, c, v, error);
    if (status == NIMBUS_OK && channels)
        status = nimbus_view_as_channels(im, n, v, axis, &channels, error);
    if (status == NIMBUS_OK && !channels)
        status = nimbus_view_give_shape(im, n, v, (nimbus_shape){count, 1, 1}, error);
    count = channels ? v->dims[axis] : count;
    for (size_t k = 0; k < 2 && status == NIMBUS_OK; k++) {
        draft.n_values[k] = count;
        status = nimbus_import_alloc(im, count, sizeof(float), &draft.values[k], error);
    }
    if (status != NIMBUS_OK) {
        nimbus_free(draft.values[0]);
        nimbus_free(draft.values[1]);
        return status;
    }
    for (size_t k = 0; channels && k < count; k++) {
        draft.values[0][k] = scale_of(op, c->f[k]);
        draft.values[1][k] = shift_of(op, c->f[k]);
    }
    if (!channels)
        spread(c, v, op, &draft);
    return nimbus_draft_element(im, n, &draft, v, error);
}

static nimbus_status build_with_constant(nimbus_importer *im, const nimbus_import_node *n, size_t k,
                                         enum arithmetic op, nimbus_error *error)
{
    const nimbus_constant *c;
    nimbus_view v;
    nimbus_status status = nimbus_node_view(im, n, 1 - k, &v, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_constant(im, n, k, true, &c, error);
    if (status != NIMBUS_OK)
        return status;
    if (c->n == 0)
        return nimbus_node_fail(n, NIMBUS_ERR_MISMATCH, error, "input %zu is empty", k);
    if (c->n == 1 && c->rank <= v.rank)
        status = nimbus_draft_scale(im, n, v.layer, (double)scale_of(op, c->f[0]),
                                    (double)shift_of(op, c->f[0]), &v.layer, error);
    else
        status = scale_by_array(im, n, &v, c, op, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &v);
    return status;
}

/* ---- arithmetic of two views --------------------------------------------------------------- */

/* Whether two views have their values in the same order, so that layers can be added as they
 * stand. */
static bool same_order(const nimbus_importer *im, const nimbus_view *a, const nimbus_view *b)
{
    const nimbus_shape *x = &im->drafts[a->layer].proto.shape,
                       *y = &im->drafts[b->layer].proto.shape;
    size_t bytes = a->n_axes * sizeof *a->base;
    return a->n_axes == b->n_axes && memcmp(a->base, b->base, bytes) == 0 &&
           memcmp(a->order, b->order, bytes) == 0 && memcmp(x, y, sizeof *x) == 0;
}

static nimbus_status two_views(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *a,
                               nimbus_view *b, nimbus_error *error)
{
    nimbus_status status = nimbus_node_view(im, n, 0, a, error);
    if (status == NIMBUS_OK)
        status = nimbus_node_view(im, n, 1, b, error);
    if (status != NIMBUS_OK)
        return status;
    bool same = a->rank == b->rank;
    for (size_t k = 1; same && k < a->rank; k++)
        same = a->dims[k] == b->dims[k];
    if (!same)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "its inputs have different dimensions, rows of %zu and %zu values",
                                nimbus_view_width(a), nimbus_view_width(b));
    if (same_order(im, a, b))
        return NIMBUS_OK;
    status = nimbus_view_give_shape(im, n, a, nimbus_view_shape(a), error);
    return status == NIMBUS_OK ? nimbus_view_give_shape(im, n, b, nimbus_view_shape(b), error)
                               : status;
}

static nimbus_status add_views(nimbus_importer *im, const nimbus_import_node *n, nimbus_view *a,
                               const nimbus_view *b, nimbus_error *error)
{
    nimbus_draft draft = {
        .proto = {.type = &nimbus_layer_add, .shape = im->drafts[a->layer].proto.shape},
        .n_inputs = 2,
        .inputs = {a->layer, b->layer}};
    nimbus_status status = nimbus_draft_add(im, n, &draft, &a->layer, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, a);
    return status;
}

static size_t constant_input(nimbus_importer *im, const nimbus_import_node *n)
{
    for (size_t k = 0; k < 2; k++)
        if (nimbus_node_input(im, n, k)->kind == VALUE_CONSTANT)
            return k;
    return SIZE_MAX;
}

nimbus_status nimbus_build_add(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    nimbus_view a, b;
    size_t k = constant_input(im, n);
    if (k != SIZE_MAX)
        return build_with_constant(im, n, k, ADD, error);
    nimbus_status status = two_views(im, n, &a, &b, error);
    return status == NIMBUS_OK ? add_views(im, n, &a, &b, error) : status;
}

nimbus_status nimbus_build_sub(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    nimbus_view a, b;
    size_t k = constant_input(im, n);
    if (k != SIZE_MAX)
        return build_with_constant(im, n, k, k == 0 ? SUBTRACT_FROM : SUBTRACT, error);
    nimbus_status status = two_views(im, n, &a, &b, error);
    if (status == NIMBUS_OK)
        status = nimbus_draft_scale(im, n, b.layer, -1, 0, &b.layer, error);
    return status == NIMBUS_OK ? add_views(im, n, &a, &b, error) : status;
}

nimbus_status nimbus_build_div(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    if (constant_input(im, n) != 1)
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "divides by what depends on the net's input");
    return build_with_constant(im, n, 1, DIVIDE, error);
}

/* Adds inputs 0 and up, two at a time. */
nimbus_status nimbus_build_sum(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    nimbus_view sum, next;
    nimbus_status status = nimbus_node_view(im, n, 0, &sum, error);
    for (size_t k = 1; k < n->n_inputs && status == NIMBUS_OK; k++) {
        nimbus_import_node pair = *n;
        pair.n_inputs = 2;
        pair.inputs = (size_t[]){n->output, n->inputs[k]};
        nimbus_node_set_view(im, n, &sum);
        status = two_views(im, &pair, &sum, &next, error);
        if (status == NIMBUS_OK)
            status = add_views(im, n, &sum, &next, error);
    }
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &sum);
    return status;
}

/* ---- products of two views: parts of hard_swish and GELU ------------------------------------ */

static bool near(double a, double b)
{
    return fabs(a - b) <= 2e-6 * fabs(b);
}

/* x * gate as `times` f(by * x) / by, f a type of layer. */
struct product {
    const nimbus_layer_type *type;
    double by, times;
};

/* Whether x times this gate, whose argument is by * x + plus, is such a product. */
static bool known_product(const nimbus_draft *gate, double by, double plus, struct product *out)
{
    const nimbus_layer *p = &gate->proto;
    *out = (struct product){&nimbus_layer_hard_swish, 0, 1};
    if (gate->kind == DRAFT_ERF) {
        if (plus == 0)
            *out = (struct product){&nimbus_layer_gelu, by / sqrt(0.5), 2};
    } else if (gate->kind == DRAFT_LAYER && p->type == &nimbus_layer_hard_sigmoid) {
        if (near(plus * p->number + p->number2, 0.5))
            out->by = 6 * by * p->number;
    } else if (gate->kind == DRAFT_LAYER && p->type == &nimbus_layer_clip && p->number == 0) {
        if (p->number2 == 1 && near(plus, 0.5))
            out->by = 6 * by;
        if (p->number2 == 6 && near(plus, 3))
            *out = (struct product){&nimbus_layer_hard_swish, by, 6};
    }
    out->by = near(out->by, 1) ? 1 : out->by;
    return out->by != 0 && isfinite(out->by);
}

/* Whether the product of two layers is known, the second being scale * gate + shift. */
static bool match_product(const nimbus_importer *im, size_t x, size_t second, struct product *out)
{
    size_t gate, of_gate, of_x;
    double scale, shift, by, plus, x_scale, x_shift;
    nimbus_draft_scaled(im, second, &gate, &scale, &shift);
    if (im->drafts[gate].n_inputs != 1)
        return false;
    nimbus_draft_scaled(im, im->drafts[gate].inputs[0], &of_gate, &by, &plus);
    nimbus_draft_scaled(im, x, &of_x, &x_scale, &x_shift);
    if (of_gate != of_x || x_scale == 0)
        return false;
    by /= x_scale; /* now of x, not of what x is a multiple of */
    double taken = by * x_shift;
    plus = fabs(plus - taken) <= 1e-7 * fabs(taken) ? 0 : plus - taken;
    if (!known_product(&im->drafts[gate], by, plus, out))
        return false;
    out->times *= scale;
    return im->drafts[gate].kind == DRAFT_ERF ? near(scale, shift) : shift == 0;
}

nimbus_status nimbus_build_mul(nimbus_importer *im, const nimbus_import_node *n,
                               nimbus_error *error)
{
    nimbus_view a, b;
    struct product p;
    size_t x, k = constant_input(im, n);
    if (k != SIZE_MAX)
        return build_with_constant(im, n, k, MULTIPLY, error);
    nimbus_status status = two_views(im, n, &a, &b, error);
    if (status != NIMBUS_OK)
        return status;
    if (match_product(im, a.layer, b.layer, &p))
        x = a.layer;
    else if (match_product(im, b.layer, a.layer, &p))
        x = b.layer;
    else
        return nimbus_node_fail(n, NIMBUS_ERR_UNSUPPORTED, error,
                                "a product of two things that depend on the net's input");
    nimbus_draft draft = {.proto.type = p.type};
    status = nimbus_draft_scale(im, n, x, p.by, 0, &a.layer, error);
    if (status == NIMBUS_OK)
        status = nimbus_draft_element(im, n, &draft, &a, error);
    if (status == NIMBUS_OK)
        status = nimbus_draft_scale(im, n, a.layer, p.times / p.by, 0, &a.layer, error);
    if (status == NIMBUS_OK)
        nimbus_node_set_view(im, n, &a);
    return status;
}
