/* layer_pad.c - a border around every channel: a constant, the image mirrored, or its edge */
#include "net/internal.h"

static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    (void)n_inputs, (void)seed;
    const nimbus_slide *s = &layer->slide;
    const size_t sides[] = {inputs[0].height, inputs[0].width};
    if ((unsigned)layer->pad_mode > NIMBUS_PAD_EDGE || !isfinite((real)layer->number))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: padding of mode %u with %g, expected a mode of 0 to %u and a "
                           "finite number",
                           layer->name, (unsigned)layer->pad_mode, layer->number,
                           (unsigned)NIMBUS_PAD_EDGE);
    for (size_t i = 0; i < 2; i++) {
        size_t most = layer->pad_mode == NIMBUS_PAD_REFLECT ? sides[i] - 1 : NIMBUS_MAX_WIDTH;
        if (s->before[i] > most || s->after[i] > most)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "layer %s: padding of %zu and %zu, expected at most %zu beside an "
                               "image %zu %s",
                               layer->name, s->before[i], s->after[i], most, sides[i],
                               i == 0 ? "high" : "wide");
    }
    nimbus_shape shape = {inputs[0].channels, s->before[0] + sides[0] + s->after[0],
                          s->before[1] + sides[1] + s->after[1]};
    return nimbus_layer_set_shape(layer, shape, error);
}

/* The position on a side that stands at `at` of the padded one; SIZE_MAX: the constant does. */
static size_t source(nimbus_pad_mode mode, size_t at, size_t before, size_t side)
{
    if (at >= before && at - before < side)
        return at - before;
    switch (mode) {
    case NIMBUS_PAD_REFLECT:
        return at < before ? before - at : 2 * (side - 1) - (at - before);
    case NIMBUS_PAD_EDGE:
        return at < before ? 0 : side - 1;
    default:
        return SIZE_MAX;
    }
}

static void pad_rows(const nimbus_call *call, size_t begin, size_t end, bool back)
{
    const nimbus_layer *layer = call->layer;
    const nimbus_io *io = call->io;
    nimbus_shape in = layer->in_shape, out = layer->shape;
    size_t at = begin * nimbus_shape_width(out);
    for (size_t image = begin * in.channels; image < end * in.channels; image++)
        for (size_t i = 0; i < out.height; i++) {
            size_t row = source(layer->pad_mode, i, layer->slide.before[0], in.height);
            for (size_t j = 0; j < out.width; j++, at++) {
                size_t column = source(layer->pad_mode, j, layer->slide.before[1], in.width);
                bool inside = row != SIZE_MAX && column != SIZE_MAX;
                size_t from = inside ? (image * in.height + row) * in.width + column : 0;
                if (!back)
                    io->y[at] = inside ? io->x[0][from] : (real)layer->number;
                else if (inside)
                    io->dx[0][from] += io->dy[at];
            }
        }
}

static void forward_rows(void *arg, size_t begin, size_t end)
{
    pad_rows(arg, begin, end, false);
}

static void backward_rows(void *arg, size_t begin, size_t end)
{
    pad_rows(arg, begin, end, true);
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    nimbus_parallel_rows(layer, io, forward_rows);
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    if (io->dx[0])
        nimbus_parallel_rows(layer, io, backward_rows);
}

const nimbus_layer_type nimbus_layer_pad = {
    .name = "pad",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .forward = forward,
    .backward = backward,
};
