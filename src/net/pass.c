/* pass.c - runs a net over a batch, forward and backward
 *
 * Buffers are made once for the largest batch. A pass is bound to the states its net was in when
 * it was made: a layer that changes state needs a new one. */
#include <string.h>

#include "net/internal.h"

nimbus_status nimbus_pass_new(nimbus_net *net, size_t first, size_t max_rows, unsigned n_threads,
                              nimbus_pass **out, nimbus_error *error)
{
    nimbus_pass *pass = NULL;
    size_t scratch = 0;
    *out = NULL;
    if (first >= net->n_layers || max_rows == 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "a pass from layer %zu over %zu rows: the net has %zu layers", first,
                           max_rows, net->n_layers);
    nimbus_blas_alone();
    pass = nimbus_alloc(1, sizeof *pass);
    if (!pass)
        goto failed;
    *pass = (nimbus_pass){.net = net, .first = first, .max_rows = max_rows, .n_threads = n_threads};
    pass->out = nimbus_alloc(net->n_layers, sizeof *pass->out);
    pass->saved = nimbus_alloc(net->n_layers, sizeof *pass->saved);
    if (!pass->out || !pass->saved)
        goto failed;
    for (size_t i = first > 0 ? first - 1 : 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        size_t n;
        if (!nimbus_mul_overflows(max_rows, nimbus_shape_width(layer->shape), &n))
            pass->out[i] = nimbus_alloc(n, sizeof **pass->out);
        if (!pass->out[i])
            goto failed;
        size_t saved =
            i >= first && layer->type->saved_size ? layer->type->saved_size(layer, max_rows) : 0;
        if (saved > 0 && !(pass->saved[i] = nimbus_alloc(saved, 1)))
            goto failed;
        size_t size = i >= first && layer->type->scratch_size
                          ? layer->type->scratch_size(layer, max_rows)
                          : 0;
        scratch = size > scratch ? size : scratch;
    }
    pass->scratch = nimbus_alloc(scratch, 1);
    if (!pass->scratch)
        goto failed;
    *out = pass;
    return NIMBUS_OK;
failed:
    nimbus_pass_free(pass);
    return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to run %zu rows at a time", max_rows);
}

void nimbus_pass_free(nimbus_pass *pass)
{
    if (!pass)
        return;
    for (size_t i = 0; i < pass->net->n_layers; i++) {
        if (pass->out)
            nimbus_free(pass->out[i]);
        if (pass->dout)
            nimbus_free(pass->dout[i]);
        if (pass->saved)
            nimbus_free(pass->saved[i]);
    }
    nimbus_free(pass->out);
    nimbus_free(pass->dout);
    nimbus_free(pass->saved);
    nimbus_free(pass->scratch);
    nimbus_free(pass);
}

real *nimbus_pass_input(nimbus_pass *pass)
{
    return pass->first == 0 ? pass->saved[0] : pass->out[pass->first - 1];
}

static nimbus_io io_of_layer(const nimbus_pass *pass, size_t i)
{
    const nimbus_layer *layer = &pass->net->layers[i];
    nimbus_io io = {.n_rows = pass->n_rows,
                    .n_inputs = layer->n_inputs,
                    .y = pass->out[i],
                    .saved = pass->saved[i],
                    .scratch = pass->scratch,
                    .training = pass->training,
                    .seed = pass->seed,
                    .step = pass->step,
                    .n_threads = pass->n_threads};
    for (size_t j = 0; j < layer->n_inputs; j++)
        io.x[j] = pass->out[layer->input[j]];
    return io;
}

void nimbus_pass_forward(nimbus_pass *pass, size_t n_rows, size_t last)
{
    pass->n_rows = n_rows;
    for (size_t i = pass->first; i <= last && i < pass->net->n_layers; i++) {
        nimbus_io io = io_of_layer(pass, i);
        pass->net->layers[i].type->forward(&pass->net->layers[i], &io);
    }
}

struct hint_call {
    const nimbus_hint *hint;
    const real *y;
    real *dy;
};

static void add_hint(void *arg, size_t begin, size_t end)
{
    const struct hint_call *c = arg;
    for (size_t i = begin; i < end; i++)
        c->dy[i] += c->hint->scale * (c->y[i] - c->hint->target[i]);
}

nimbus_status nimbus_pass_backward(nimbus_pass *pass, const real *dlast, nimbus_error *error)
{
    nimbus_net *net = pass->net;
    size_t last = net->n_layers - 1, trained = nimbus_net_first_trained(net, pass->first);
    if (!pass->dout)
        pass->dout = nimbus_alloc(net->n_layers, sizeof *pass->dout);
    if (!pass->dout)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for gradients");
    for (size_t i = trained; i < last; i++) {
        size_t width = nimbus_shape_width(net->layers[i].shape);
        if (!pass->dout[i])
            pass->dout[i] = nimbus_alloc(pass->max_rows * width, sizeof **pass->dout);
        if (!pass->dout[i])
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for gradients",
                               net->layers[i].name);
        memset(pass->dout[i], 0, pass->n_rows * width * sizeof **pass->dout);
    }
    size_t n_hints = pass->n_hints;
    for (size_t i = last + 1; i-- > trained;) {
        nimbus_layer *layer = &net->layers[i];
        if (n_hints > 0 && pass->hints[n_hints - 1].layer == i) {
            struct hint_call c = {&pass->hints[--n_hints], pass->out[i], pass->dout[i]};
            nimbus_parallel_ranges(pass->n_threads, pass->n_rows * nimbus_shape_width(layer->shape),
                                   NIMBUS_GRAIN, add_hint, &c);
        }
        nimbus_io io = io_of_layer(pass, i);
        io.dy = i == last ? dlast : pass->dout[i];
        for (size_t j = 0; j < layer->n_inputs; j++)
            io.dx[j] = layer->input[j] >= trained ? pass->dout[layer->input[j]] : NULL;
        layer->type->backward(layer, &io);
    }
    return NIMBUS_OK;
}
