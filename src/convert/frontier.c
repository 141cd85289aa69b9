/* frontier.c - run a net layer by layer over many rows, each layer once
 *
 * Recording every layer's inputs from the start of the net would cost n^2 layer runs for n layers;
 * keeping the outputs that are still needed costs n. */
#include <string.h>

#include "convert/internal.h"

enum { CHUNK = 512 };

nimbus_status nimbus_frontier_new(nimbus_frontier *f, nimbus_net *net, const nimbus_data *data,
                                  unsigned n_threads, nimbus_error *error)
{
    *f = (nimbus_frontier){.net = net,
                           .data = data,
                           .n_rows = nimbus_data_get_info(data)->n_rows,
                           .n_threads = n_threads};
    f->out = nimbus_alloc(net->n_layers, sizeof *f->out);
    f->last_use = nimbus_alloc(net->n_layers, sizeof *f->last_use);
    if (!f->out || !f->last_use)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the outputs of %zu layers",
                           net->n_layers);
    for (size_t i = 0; i < net->n_layers; i++) {
        f->last_use[i] = i;
        for (size_t j = 0; j < net->layers[i].n_inputs; j++)
            f->last_use[net->layers[i].input[j]] = i;
        if (net->layers[i].before_relu) { /* its state may change on the way */
            f->last_use[net->layers[i].relu] = i;
            f->last_use[nimbus_net_trees_read(net, &net->layers[i])] = i;
        }
    }
    return NIMBUS_OK;
}

void nimbus_frontier_free(nimbus_frontier *f)
{
    for (size_t i = 0; f->out && i < f->net->n_layers; i++)
        nimbus_free(f->out[i]);
    nimbus_free(f->out);
    nimbus_free(f->last_use);
    memset(f, 0, sizeof *f);
}

nimbus_status nimbus_frontier_advance(nimbus_frontier *f, size_t i, nimbus_error *error)
{
    nimbus_layer *layer = &f->net->layers[i];
    size_t width = nimbus_shape_width(layer->shape), size;
    size_t saved_size = layer->type->saved_size ? layer->type->saved_size(layer, CHUNK) : 0;
    size_t scratch_size = layer->type->scratch_size ? layer->type->scratch_size(layer, CHUNK) : 0;
    void *saved = nimbus_alloc(saved_size, 1), *scratch = nimbus_alloc(scratch_size, 1);

    if (!nimbus_mul_overflows(f->n_rows, width, &size))
        f->out[i] = nimbus_alloc(size, sizeof **f->out);
    if (!saved || !scratch || !f->out[i]) {
        nimbus_free(saved);
        nimbus_free(scratch);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY,
                           "no memory for the outputs of layer %s on %zu rows", layer->name,
                           f->n_rows);
    }
    for (size_t first = 0; first < f->n_rows; first += CHUNK) {
        nimbus_io io = {.n_rows = f->n_rows - first < CHUNK ? f->n_rows - first : CHUNK,
                        .n_inputs = layer->n_inputs,
                        .y = f->out[i] + first * width,
                        .saved = saved,
                        .scratch = scratch,
                        .n_threads = f->n_threads};
        for (size_t j = 0; j < layer->n_inputs; j++) {
            size_t from = layer->input[j];
            io.x[j] = f->out[from] + first * nimbus_shape_width(f->net->layers[from].shape);
        }
        if (layer->type == &nimbus_layer_input)
            nimbus_rows_read(f->data, first, io.n_rows, saved);
        layer->type->forward(layer, &io);
    }
    nimbus_free(saved);
    nimbus_free(scratch);
    for (size_t j = 0; j < i; j++)
        if (f->last_use[j] <= i) {
            nimbus_free(f->out[j]);
            f->out[j] = NULL;
        }
    return NIMBUS_OK;
}

nimbus_status nimbus_sample_rows(const nimbus_data *data, size_t n, uint64_t seed,
                                 nimbus_data **out, nimbus_error *error)
{
    nimbus_data_info info = *nimbus_data_get_info(data);
    const int32_t *labels = nimbus_data_labels(data);
    const float *targets = nimbus_data_targets(data);
    size_t row_bytes = info.n_features * nimbus_dtype_size(info.dtype);
    const uint8_t *features = nimbus_data_features(data);
    uint32_t *order = nimbus_alloc(info.n_rows, sizeof *order);
    uint8_t *picked = nimbus_alloc(n, row_bytes);
    int32_t *picked_labels = nimbus_alloc(n, sizeof *picked_labels);
    float *picked_targets = nimbus_alloc(n, info.n_targets * sizeof *picked_targets);
    nimbus_status status;

    *out = NULL;
    if (!order || !picked || !picked_labels || !picked_targets) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a sample of %zu rows", n);
        goto done;
    }
    for (size_t i = 0; i < info.n_rows; i++)
        order[i] = (uint32_t)i;
    nimbus_random_shuffle(seed, NIMBUS_TAG('f', 'i', 't', 0), order, info.n_rows);
    for (size_t i = 0; i < n; i++) {
        memcpy(picked + i * row_bytes, features + order[i] * row_bytes, row_bytes);
        if (labels)
            picked_labels[i] = labels[order[i]];
        if (targets)
            memcpy(picked_targets + i * info.n_targets, targets + order[i] * info.n_targets,
                   info.n_targets * sizeof *targets);
    }
    info.n_rows = n;
    status = nimbus_data_from_arrays(&info, picked, labels ? picked_labels : NULL,
                                     targets ? picked_targets : NULL, out, error);
done:
    nimbus_free(order);
    nimbus_free(picked);
    nimbus_free(picked_labels);
    nimbus_free(picked_targets);
    return status;
}
