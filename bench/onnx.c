/* onnx.c - writes graphs of ONNX nodes */
#include "onnx.h"

#include <errno.h>

#define IR_VERSION 8
#define OPSET      13
#define MS_OPSET   1

void bench_onnx_tensor(message *graph, const char *name, int type, const size_t *dims,
                       size_t n_dims, const void *bytes, size_t n_bytes)
{
    message tensor = {0};
    for (size_t i = 0; i < n_dims; i++)
        put_int(&tensor, 1, dims[i]);
    put_int(&tensor, 2, (uint64_t)type);
    put_text(&tensor, 8, name);
    put_bytes(&tensor, 9, bytes, n_bytes);
    put_message(graph, 5, &tensor);
}

void bench_onnx_vector(message *graph, const char *name, int type, const void *bytes, size_t n,
                       size_t element)
{
    bench_onnx_tensor(graph, name, type, &n, 1, bytes, n * element);
}

void bench_onnx_scalar(message *graph, const char *name, int type, const void *bytes,
                       size_t element)
{
    bench_onnx_tensor(graph, name, type, NULL, 0, bytes, element);
}

void bench_onnx_int(message *attributes, const char *name, uint64_t value)
{
    message one = {0};
    put_text(&one, 1, name);
    put_int(&one, 3, value);
    put_int(&one, 20, 2); /* INT */
    put_message(attributes, 5, &one);
}

void bench_onnx_ints(message *attributes, const char *name, const size_t *values, size_t n)
{
    message one = {0};
    put_text(&one, 1, name);
    for (size_t i = 0; i < n; i++)
        put_int(&one, 8, values[i]);
    put_int(&one, 20, 7); /* INTS */
    put_message(attributes, 5, &one);
}

void bench_onnx_node(message *graph, const char *type, const char *domain,
                     const char *const *inputs, const char *output, message *attributes)
{
    message node = {0};
    for (; *inputs; inputs++)
        put_text(&node, 1, *inputs);
    put_text(&node, 2, output);
    put_text(&node, 3, output);
    put_text(&node, 4, type);
    if (attributes) {
        node.failed |= attributes->failed;
        put(&node, attributes->bytes, attributes->n);
        free(attributes->bytes);
        *attributes = (message){0};
    }
    if (*domain)
        put_text(&node, 7, domain);
    put_message(graph, 1, &node);
}

void bench_onnx_value(message *graph, unsigned field, const char *name, int type,
                      const size_t *dims, size_t n_dims)
{
    message value = {0}, kind = {0}, tensor = {0}, shape = {0}, rows = {0};
    put_text(&rows, 2, "N");
    put_message(&shape, 1, &rows);
    for (size_t i = 0; i < n_dims; i++) {
        message one = {0};
        put_int(&one, 1, dims[i]);
        put_message(&shape, 1, &one);
    }
    put_int(&tensor, 1, (uint64_t)type);
    put_message(&tensor, 2, &shape);
    put_message(&kind, 1, &tensor);
    put_text(&value, 1, name);
    put_message(&value, 2, &kind);
    put_message(graph, field, &value);
}

static void add_opset(message *model, const char *domain, unsigned version)
{
    message opset = {0};
    put_text(&opset, 1, domain);
    put_int(&opset, 2, version);
    put_message(model, 8, &opset);
}

nimbus_status bench_onnx_write(message *graph, FILE *out, nimbus_error *error)
{
    message model = {0};
    put_text(graph, 2, "net");
    put_int(&model, 1, IR_VERSION);
    put_text(&model, 2, "nimbus");
    put_message(&model, 7, graph);
    add_opset(&model, "", OPSET);
    add_opset(&model, "com.microsoft", MS_OPSET);
    nimbus_status status = NIMBUS_OK;
    if (model.failed)
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory for an ONNX file");
    else if (fwrite(model.bytes, 1, model.n, out) != model.n || fflush(out) != 0)
        status =
            bench_fail(error, NIMBUS_ERR_IO, "an ONNX file cannot be written: %s", strerror(errno));
    free(model.bytes);
    return status;
}
