/* layer_slide.c - where the windows of a convolution or pooling lie on an image */
#include "net/internal.h"

/* Output positions along an axis, or 0: the window is larger than the padded image, or the sum
 * cannot be counted. */
static size_t count_positions(const nimbus_slide *s, size_t axis, size_t padded)
{
    size_t reach;
    if (nimbus_mul_overflows(s->kernel[axis] - 1, s->dilation[axis], &reach) || reach >= padded)
        return 0;
    return (padded - reach - 1) / s->stride[axis] + 1;
}

nimbus_status nimbus_slide_setup(nimbus_layer *layer, nimbus_shape in, size_t channels,
                                 nimbus_error *error)
{
    static const char *const axes[] = {"high", "wide"};
    nimbus_slide *s = &layer->slide;
    const size_t sides[] = {in.height, in.width};
    size_t n[2], padded[2], size;
    for (size_t i = 0; i < 2; i++) {
        s->stride[i] = s->stride[i] ? s->stride[i] : 1;
        s->dilation[i] = s->dilation[i] ? s->dilation[i] : 1;
        if (s->kernel[i] < 1 || s->kernel[i] > NIMBUS_MAX_WIDTH ||
            s->stride[i] > NIMBUS_MAX_WIDTH || s->dilation[i] > NIMBUS_MAX_WIDTH ||
            s->before[i] > NIMBUS_MAX_WIDTH || s->after[i] > NIMBUS_MAX_WIDTH)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "layer %s: a kernel %zu %s, stride %zu, dilation %zu and padding "
                               "%zu and %zu, expected a kernel of 1 and more, and all at most %u",
                               layer->name, s->kernel[i], axes[i], s->stride[i], s->dilation[i],
                               s->before[i], s->after[i], NIMBUS_MAX_WIDTH);
        padded[i] = sides[i] + s->before[i] + s->after[i];
        n[i] = count_positions(s, i, padded[i]);
        if (n[i] == 0)
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "layer %s: a kernel %zu %s, spread by dilation %zu, does not fit an "
                               "image %zu %s with padding %zu and %zu",
                               layer->name, s->kernel[i], axes[i], s->dilation[i], sides[i],
                               axes[i], s->before[i], s->after[i]);
    }
    if (nimbus_mul_overflows(padded[0], padded[1], &size) ||
        nimbus_mul_overflows(size, in.channels, &size) || size > NIMBUS_MAX_WIDTH)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "layer %s: with its padding the image is %zu x %zu x %zu, expected at "
                           "most %u values",
                           layer->name, in.channels, padded[0], padded[1], NIMBUS_MAX_WIDTH);
    return nimbus_layer_set_shape(layer, (nimbus_shape){channels, n[0], n[1]}, error);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

nimbus_span nimbus_span_on(size_t at, size_t step, size_t before, size_t side, size_t n)
{
    nimbus_span span;
    span.begin = smaller(at >= before ? 0 : (before - at + step - 1) / step, n);
    span.end = at >= side + before ? 0 : smaller((side + before - at - 1) / step + 1, n);
    span.end = span.end > span.begin ? span.end : span.begin;
    span.start = span.begin * step + at - before;
    return span;
}
