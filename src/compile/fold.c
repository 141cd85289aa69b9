/* fold.c - batch norm, activation and normalisation disappear into thresholds
 *
 * A tree compares single values with thresholds, so every monotone per-column map in front of it
 * can be applied to the threshold once instead of to the value each time. */
#include <math.h>
#include <string.h>

#include "compile/compile.h"

static double clipped(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

double nimbus_function_value(const nimbus_post *post, double v)
{
    switch (post->function) {
    case NIMBUS_F_RELU:
        return v > 0 ? v : 0;
    case NIMBUS_F_CLIP:
        return clipped(v, post->low, post->high);
    case NIMBUS_F_TANH:
        return tanh(v);
    case NIMBUS_F_SIGMOID:
        return 1 / (1 + exp(-v));
    case NIMBUS_F_GELU:
        return 0.5 * v * (1 + erf(v / sqrt(2)));
    case NIMBUS_F_HARD_SWISH:
        return v * clipped(v / 6 + 0.5, 0, 1);
    case NIMBUS_F_IDENTITY:
        break;
    }
    return v;
}

bool nimbus_function_is_monotone(nimbus_function f)
{
    return f != NIMBUS_F_GELU && f != NIMBUS_F_HARD_SWISH;
}

void nimbus_post_free(nimbus_post *post)
{
    nimbus_free(post->a1);
    nimbus_free(post->b1);
    nimbus_free(post->a2);
    nimbus_free(post->b2);
    memset(post, 0, sizeof *post);
}

nimbus_status nimbus_post_new(nimbus_post *post, size_t m, nimbus_error *error)
{
    memset(post, 0, sizeof *post);
    post->n = m;
    post->a1 = nimbus_alloc(m, sizeof *post->a1);
    post->b1 = nimbus_alloc(m, sizeof *post->b1);
    post->a2 = nimbus_alloc(m, sizeof *post->a2);
    post->b2 = nimbus_alloc(m, sizeof *post->b2);
    if (!post->a1 || !post->b1 || !post->a2 || !post->b2) {
        nimbus_post_free(post);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to fold %zu columns", m);
    }
    for (size_t i = 0; i < m; i++)
        post->a1[i] = post->a2[i] = 1;
    return NIMBUS_OK;
}

nimbus_function nimbus_function_of(const nimbus_layer *layer)
{
    static const struct {
        const nimbus_layer_type *type;
        nimbus_function function;
    } functions[] = {{&nimbus_layer_relu, NIMBUS_F_RELU},
                     {&nimbus_layer_clip, NIMBUS_F_CLIP},
                     {&nimbus_layer_tanh, NIMBUS_F_TANH},
                     {&nimbus_layer_sigmoid, NIMBUS_F_SIGMOID},
                     {&nimbus_layer_gelu, NIMBUS_F_GELU},
                     {&nimbus_layer_hard_sigmoid, NIMBUS_F_CLIP},
                     {&nimbus_layer_hard_swish, NIMBUS_F_HARD_SWISH}};
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (layer->type == functions[i].type)
            return functions[i].function;
    return NIMBUS_F_IDENTITY;
}

void nimbus_post_take_function(nimbus_post *post, const nimbus_layer *layer)
{
    post->function = nimbus_function_of(layer);
    if (layer->type == &nimbus_layer_clip) {
        post->low = layer->number;
        post->high = layer->number2;
    }
    if (layer->type == &nimbus_layer_hard_sigmoid) { /* a line, clipped to 0..1 */
        post->high = 1;
        for (size_t i = 0; i < post->n; i++) {
            post->a1[i] *= layer->number;
            post->b1[i] = post->b1[i] * layer->number + layer->number2;
        }
    }
}

/* y = (x - mean) / sqrt(variance + epsilon) * scale + shift on top of a * v + b. */
void nimbus_post_take_batch_norm(nimbus_post *post, const nimbus_layer *layer, bool second)
{
    nimbus_layer *l = (nimbus_layer *)layer;
    double *a = second ? post->a2 : post->a1, *b = second ? post->b2 : post->b1;
    const real *mean = nimbus_layer_param(l, "mean")->value;
    const real *variance = nimbus_layer_param(l, "variance")->value;
    const nimbus_param *scale = nimbus_layer_param(l, "scale");
    const nimbus_param *shift = nimbus_layer_param(l, "shift");
    double epsilon = layer->number;
    for (size_t i = 0; i < post->n; i++) {
        double factor = (scale ? (double)scale->value[i] : 1) / sqrt((double)variance[i] + epsilon);
        b[i] = (b[i] - (double)mean[i]) * factor + (shift ? (double)shift->value[i] : 0);
        a[i] *= factor;
    }
}

bool nimbus_layer_changes_nothing(const nimbus_layer *layer)
{
    return layer->type == &nimbus_layer_dropout || layer->type == &nimbus_layer_flatten ||
           layer->type == &nimbus_layer_reshape;
}

nimbus_status nimbus_post_fold(const nimbus_net *net, size_t first, size_t last, size_t m,
                               nimbus_post *out, nimbus_error *error)
{
    nimbus_status status = nimbus_post_new(out, m, error);
    for (size_t i = first; i < last && status == NIMBUS_OK; i++) {
        const nimbus_layer *layer = &net->layers[i];
        if (nimbus_layer_changes_nothing(layer))
            continue;
        if (layer->type == &nimbus_layer_batch_norm) {
            nimbus_post_take_batch_norm(out, layer, out->function != NIMBUS_F_IDENTITY);
        } else if (nimbus_function_of(layer) && !out->function) {
            nimbus_post_take_function(out, layer);
        } else {
            nimbus_post_free(out);
            status = nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                                 "layer %s (%s): between two products a program can hold batch "
                                 "norm, dropout and one activation function",
                                 layer->name, layer->type->name);
        }
    }
    return status;
}

nimbus_cut nimbus_cut_affine(double a, double b, double t)
{
    if (a == 0)
        return (nimbus_cut){.at = b > t ? -INFINITY : INFINITY};
    return (nimbus_cut){.at = (t - b) / a, .flipped = a < 0};
}

/* Where an increasing function crosses t; infinite where it stays on one side. */
static double pull_function(const nimbus_post *post, double t)
{
    switch (post->function) {
    case NIMBUS_F_RELU:
        return t < 0 ? -INFINITY : t;
    case NIMBUS_F_CLIP:
        return t < post->low ? -INFINITY : t >= post->high ? INFINITY : t;
    case NIMBUS_F_TANH:
        return t <= -1 ? -INFINITY : t >= 1 ? INFINITY : atanh(t);
    case NIMBUS_F_SIGMOID:
        return t <= 0 ? -INFINITY : t >= 1 ? INFINITY : log(t / (1 - t));
    default:
        return t;
    }
}

/* The same for `below t`, which a value on a bound that clips is not: max(v, 0) < 0 is never true,
 * though v < 0 may be. */
static double pull_function_below(const nimbus_post *post, double t)
{
    if (post->function == NIMBUS_F_RELU)
        return t <= 0 ? -INFINITY : t;
    if (post->function == NIMBUS_F_CLIP)
        return t <= post->low ? -INFINITY : t > post->high ? INFINITY : t;
    return pull_function(post, t);
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
    cut.at = flipped ? pull_function_below(post, cut.at) : pull_function(post, cut.at);
    cut = settle(cut);
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
