/* fold.c - batch norm, activation and normalisation disappear into thresholds
 *
 * A tree compares single values with thresholds, so every monotone per-column map in front of it
 * can be applied to the threshold once instead of to the value each time. */
#include <math.h>
#include <string.h>

#include "compile/compile.h"

double nimbus_function_value(nimbus_function f, double v)
{
    switch (f) {
    case NIMBUS_F_RELU:
        return v > 0 ? v : 0;
    case NIMBUS_F_TANH:
        return tanh(v);
    case NIMBUS_F_SIGMOID:
        return 1 / (1 + exp(-v));
    case NIMBUS_F_GELU:
        return 0.5 * v * (1 + erf(v / sqrt(2)));
    case NIMBUS_F_IDENTITY:
        break;
    }
    return v;
}

void nimbus_post_free(nimbus_post *post)
{
    nimbus_free(post->a1);
    nimbus_free(post->b1);
    nimbus_free(post->a2);
    nimbus_free(post->b2);
    memset(post, 0, sizeof *post);
}

static bool function_of(const nimbus_layer *layer, nimbus_function *f)
{
    static const struct {
        const nimbus_layer_type *type;
        nimbus_function function;
    } functions[] = {{&nimbus_layer_relu, NIMBUS_F_RELU},
                     {&nimbus_layer_tanh, NIMBUS_F_TANH},
                     {&nimbus_layer_sigmoid, NIMBUS_F_SIGMOID},
                     {&nimbus_layer_gelu, NIMBUS_F_GELU}};
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (layer->type == functions[i].type) {
            *f = functions[i].function;
            return true;
        }
    return false;
}

/* y = (x - mean) / sqrt(variance + epsilon) * scale + shift on top of a * v + b. */
static void fold_batch_norm(const nimbus_layer *layer, size_t m, double *a, double *b)
{
    nimbus_layer *l = (nimbus_layer *)layer;
    const real *mean = nimbus_layer_param(l, "mean")->value;
    const real *variance = nimbus_layer_param(l, "variance")->value;
    const nimbus_param *scale = nimbus_layer_param(l, "scale");
    const nimbus_param *shift = nimbus_layer_param(l, "shift");
    double epsilon = layer->number;
    for (size_t i = 0; i < m; i++) {
        double factor = (scale ? (double)scale->value[i] : 1) / sqrt((double)variance[i] + epsilon);
        b[i] = (b[i] - (double)mean[i]) * factor + (shift ? (double)shift->value[i] : 0);
        a[i] *= factor;
    }
}

nimbus_status nimbus_post_fold(const nimbus_net *net, size_t first, size_t last, size_t m,
                               nimbus_post *out, nimbus_error *error)
{
    bool past_function = false;
    memset(out, 0, sizeof *out);
    out->a1 = nimbus_alloc(m, sizeof *out->a1);
    out->b1 = nimbus_alloc(m, sizeof *out->b1);
    out->a2 = nimbus_alloc(m, sizeof *out->a2);
    out->b2 = nimbus_alloc(m, sizeof *out->b2);
    if (!out->a1 || !out->b1 || !out->a2 || !out->b2) {
        nimbus_post_free(out);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to fold %zu columns", m);
    }
    for (size_t i = 0; i < m; i++)
        out->a1[i] = out->a2[i] = 1;
    for (size_t i = first; i < last; i++) {
        const nimbus_layer *layer = &net->layers[i];
        nimbus_function f;
        if (layer->type == &nimbus_layer_dropout)
            continue;
        if (layer->type == &nimbus_layer_batch_norm) {
            fold_batch_norm(layer, m, past_function ? out->a2 : out->a1,
                            past_function ? out->b2 : out->b1);
        } else if (function_of(layer, &f) && !past_function) {
            out->function = f;
            past_function = true;
        } else {
            nimbus_post_free(out);
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s (%s): between two products a program can hold batch "
                               "norm, dropout and one activation function",
                               layer->name, layer->type->name);
        }
    }
    return NIMBUS_OK;
}

nimbus_cut nimbus_cut_affine(double a, double b, double t)
{
    if (a == 0)
        return (nimbus_cut){.at = b > t ? -INFINITY : INFINITY};
    return (nimbus_cut){.at = (t - b) / a, .flipped = a < 0};
}

/* Where an increasing function crosses t; infinite where it stays on one side. */
static double pull_function(nimbus_function f, double t)
{
    switch (f) {
    case NIMBUS_F_RELU:
        return t < 0 ? -INFINITY : t;
    case NIMBUS_F_TANH:
        return t <= -1 ? -INFINITY : t >= 1 ? INFINITY : atanh(t);
    case NIMBUS_F_SIGMOID:
        return t <= 0 ? -INFINITY : t >= 1 ? INFINITY : log(t / (1 - t));
    default:
        return t;
    }
}

/* A cut at an infinity is a constant answer: says it unflipped. */
static nimbus_cut settle(nimbus_cut cut)
{
    if (isinf(cut.at) && cut.flipped)
        return (nimbus_cut){.at = cut.at > 0 ? -INFINITY : INFINITY};
    return cut;
}

nimbus_cut nimbus_post_cut(const nimbus_post *post, size_t m, double t)
{
    nimbus_cut cut = settle(nimbus_cut_affine(post->a2[m], post->b2[m], t));
    if (isinf(cut.at))
        return cut;
    bool flipped = cut.flipped;
    cut = settle((nimbus_cut){pull_function(post->function, cut.at), flipped});
    /* max(v, 0) < 0 is never true, though v < 0 may be */
    if (post->function == NIMBUS_F_RELU && flipped && !isinf(cut.at) && cut.at == 0)
        return (nimbus_cut){.at = INFINITY};
    if (isinf(cut.at))
        return cut;
    nimbus_cut inner = nimbus_cut_affine(post->a1[m], post->b1[m], cut.at);
    if (isinf(inner.at)) { /* a constant value, which may lie on the cut itself */
        bool answer = flipped ? post->b1[m] < cut.at : post->b1[m] > cut.at;
        return (nimbus_cut){.at = answer ? -INFINITY : INFINITY};
    }
    inner.flipped ^= flipped;
    return inner;
}
