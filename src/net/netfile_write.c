/* netfile_write.c - makes the bytes of a .net file; netfile.h describes them */
#include "net/netfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const nimbus_netfile_loss_names[NETFILE_LOSSES] = {"cross_entropy", "squared_error"};
const char *const nimbus_netfile_dtype_names[NETFILE_DTYPES] = {"", "u8", "f32"};
const char *const nimbus_netfile_tree_names[NETFILE_TREES] = {"shared", "node", "fern",
                                                              "centroids"};
const char *const nimbus_netfile_estimator_names[NETFILE_ESTIMATORS] = {"flip", "sigmoid",
                                                                        "softmax"};
const char *const nimbus_netfile_state_names[NETFILE_STATES] = {"dense", "locked", "record", "soft",
                                                                "lookup"};

/* NULL if memory ran out. */
static json_t *layer_to_json(const nimbus_layer *layer)
{
    const nimbus_lookup *l = layer->lookup;
    json_t *inputs = json_array();
    int failed = 0;
    for (size_t i = 0; i < layer->n_inputs; i++) {
        size_t input = nimbus_layer_wired(layer, i);
        failed |= json_array_append_new(inputs, json_integer((json_int_t)input));
    }
    json_t *o = json_pack("{s:s, s:s, s:o, s:s}", "name", layer->name, "type", layer->type->name,
                          "inputs", inputs, "state", nimbus_layer_state_name(layer->state));
    failed |= !o || !nimbus_netfile_put_attributes(layer, o);
    if (layer->type == &nimbus_layer_input)
        failed |= json_object_set_new(o, "shape",
                                      json_pack("[I, I, I]", (json_int_t)layer->shape.channels,
                                                (json_int_t)layer->shape.height,
                                                (json_int_t)layer->shape.width));
    if (l)
        failed |= json_object_set_new(
            o, "lookup",
            json_pack("{s:I, s:I, s:s, s:s, s:i, s:f}", "codebooks", (json_int_t)l->n_codebooks,
                      "levels", (json_int_t)l->n_levels, "tree", nimbus_netfile_tree_names[l->kind],
                      "estimator", nimbus_netfile_estimator_names[l->estimator], "bits",
                      (int)l->bits, "temperature", (double)l->temperature));
    if (l && l->kind == NIMBUS_CENTROIDS)
        failed |= json_object_set_new(json_object_get(o, "lookup"), "columns",
                                      json_integer((json_int_t)l->n_columns));
    if (failed) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* The graph as text, or NULL if memory ran out; freed with free(). */
static char *graph_to_text(const nimbus_net *net)
{
    json_t *layers = json_array();
    int failed = 0;
    for (size_t i = 0; i < net->n_layers; i++)
        failed |= json_array_append_new(layers, layer_to_json(&net->layers[i]));
    json_t *graph =
        json_pack("{s:s, s:s, s:o}", "loss", nimbus_netfile_loss_names[net->loss], "input",
                  nimbus_netfile_dtype_names[net->input_dtype], "layers", layers);
    char *text =
        graph && !failed ? json_dumps(graph, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(graph);
    return text;
}

/* Adds one entry per param; false if memory ran out. */
static bool add_tensors(const nimbus_net *net, json_t *header)
{
    size_t at = 0;
    int failed = 0;
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            const nimbus_param *p = &net->layers[i].params[j];
            char name[NETFILE_MAX_NAME];
            (void)snprintf(name, sizeof name, "%s.%s", net->layers[i].name, p->name);
            json_t *shape = json_array();
            for (size_t k = 0; k < p->rank; k++)
                failed |= json_array_append_new(shape, json_integer((json_int_t)p->shape[k]));
            failed |= json_object_set_new(header, name,
                                          json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape",
                                                    shape, "data_offsets", (json_int_t)at,
                                                    (json_int_t)(at + 4 * p->n)));
            at += 4 * p->n;
        }
    return !failed;
}

static nimbus_status header_to_text(const nimbus_net *net, char **text, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    char version[16];
    char *graph = graph_to_text(net);
    json_t *header = NULL, *metadata = json_string(net->metadata);
    *text = NULL;
    (void)snprintf(version, sizeof version, "%d.%d", NETFILE_FORMAT_MAJOR, NETFILE_FORMAT_MINOR);
    if (!metadata) {
        status = nimbus_fail(error, NIMBUS_ERR_VALUE, "the net's metadata is not UTF-8");
        goto done;
    }
    if (graph)
        header = json_pack("{s:{s:s, s:s, s:s, s:s, s:O}}", "__metadata__", "nimbus_format",
                           version, "nimbus_crc32c", NETFILE_NO_CRC, "nimbus_bytes",
                           "0000000000000000", "nimbus_graph", graph, "nimbus_metadata", metadata);
    if (header && add_tensors(net, header))
        *text = json_dumps(header, JSON_COMPACT);
    if (!*text)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write the net's header");
done:
    free(graph);
    json_decref(metadata);
    json_decref(header);
    return status;
}

nimbus_status nimbus_net_write(const nimbus_net *net, nimbus_buffer *out, nimbus_error *error)
{
    char *text = NULL;
    size_t begin = out->size;
    nimbus_status status = header_to_text(net, &text, error);
    if (status != NIMBUS_OK)
        goto done;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8, n_tensors = 0;
    for (size_t i = 0; i < net->n_layers; i++)
        n_tensors += net->layers[i].n_params;
    if (padded > NETFILE_MAX_HEADER || n_tensors > NETFILE_MAX_TENSORS) {
        status =
            nimbus_fail(error, NIMBUS_ERR_LIMIT,
                        "a header of %zu bytes for %zu tensors, at most %zu and %d are allowed",
                        padded, n_tensors, NETFILE_MAX_HEADER, NETFILE_MAX_TENSORS);
        goto done;
    }
    nimbus_write_u64le(out, padded);
    nimbus_write_bytes(out, text, length);
    for (size_t i = length; i < padded; i++)
        nimbus_write_u8(out, ' ');
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++)
            for (size_t k = 0; k < net->layers[i].params[j].n; k++)
                nimbus_write_f32le(out, (float)net->layers[i].params[j].value[k]);
    if (out->failed) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the bytes of the net");
        goto done;
    }
    uint8_t *start = out->bytes + begin;
    char digits[24]; /* any size_t */
    size_t size = out->size - begin,
           crc_at = 8 + sizeof NETFILE_START - 1 + 3 + sizeof NETFILE_MIDDLE - 1;
    (void)snprintf(digits, sizeof digits, "%016zu", size);
    memcpy(start + crc_at + NETFILE_CRC_DIGITS + sizeof NETFILE_BYTES_KEY - 1, digits,
           NETFILE_BYTES_DIGITS);
    (void)snprintf(digits, sizeof digits, "%08" PRIx32, nimbus_crc32c(0, start, size));
    memcpy(start + crc_at, digits, NETFILE_CRC_DIGITS);
done:
    free(text);
    return status;
}

nimbus_status nimbus_net_save(const nimbus_net *net, const char *path, nimbus_error *error)
{
    nimbus_buffer buffer = {0};
    nimbus_status status = nimbus_net_check_finite(net, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_write(net, &buffer, error);
    if (status == NIMBUS_OK)
        status = nimbus_file_write(path, buffer.bytes, buffer.size, error);
    else
        status = nimbus_fail_prefix(error, status, "%s", path);
    nimbus_buffer_free(&buffer);
    return status;
}
