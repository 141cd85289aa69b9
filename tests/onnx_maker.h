/* onnx_maker.h - writes ONNX models node by node, for the tests of the import
 *
 *     message graph = {0}, node = made_node("Conv", "x,w,b", "y");
 *     made_ints(&node, "pads", 4, (const int64_t[]){1, 1, 1, 1});
 *     made_add(&graph, &node);
 *     made_floats(&graph, "w", ...);
 *     message model = made_model(&graph, 13, "x", 3, (const int64_t[]){1, 8, 8}, "y");
 *
 * Field numbers are those of onnx.proto (ONNX 1.12). */
#ifndef NIMBUS_ONNX_MAKER_H
#define NIMBUS_ONNX_MAKER_H

#include <stdio.h>

#include "protobuf.h"

enum {
    MADE_FLOAT = 1,
    MADE_UINT8 = 2,
    MADE_INT32 = 6,
    MADE_INT64 = 7,
    MADE_HALF = 10,
    MADE_DOUBLE = 11
};

/* Texts with commas between, each as a field; an empty one is an input left out. */
static inline void made_texts(message *to, unsigned field, const char *list)
{
    while (list) {
        size_t n = strcspn(list, ",");
        put_bytes(to, field, list, n);
        list = list[n] ? list + n + 1 : NULL;
    }
}

static inline message made_node(const char *type, const char *inputs, const char *outputs)
{
    message node = {0};
    if (*inputs)
        made_texts(&node, 1, inputs);
    made_texts(&node, 2, outputs);
    put_text(&node, 3, outputs); /* its name */
    put_text(&node, 4, type);
    return node;
}

/* Ends a node: it becomes a part of the graph. */
static inline void made_add(message *graph, message *node)
{
    put_message(graph, 1, node);
}

static inline void made_simple(message *graph, const char *type, const char *inputs,
                               const char *output)
{
    message node = made_node(type, inputs, output);
    made_add(graph, &node);
}

/* ---- attributes ---------------------------------------------------------------------------- */

static inline void made_attribute(message *node, const char *name, int type, message *value)
{
    put_text(value, 1, name);
    put_int(value, 20, (uint64_t)type);
    put_message(node, 5, value);
}

static inline void made_float(message *node, const char *name, float value)
{
    message a = {0};
    put_varint(&a, 2 << 3 | 5);
    put(&a, &value, sizeof value);
    made_attribute(node, name, 1, &a);
}

static inline void made_int(message *node, const char *name, int64_t value)
{
    message a = {0};
    put_int(&a, 3, (uint64_t)value);
    made_attribute(node, name, 2, &a);
}

static inline void made_text(message *node, const char *name, const char *value)
{
    message a = {0};
    put_text(&a, 4, value);
    made_attribute(node, name, 3, &a);
}

static inline void made_ints(message *node, const char *name, size_t n, const int64_t *values)
{
    message a = {0};
    for (size_t i = 0; i < n; i++)
        put_int(&a, 8, (uint64_t)values[i]);
    made_attribute(node, name, 7, &a);
}

/* ---- tensors ------------------------------------------------------------------------------- */

static inline message made_tensor(const char *name, int type, size_t rank, const int64_t *dims)
{
    message tensor = {0};
    for (size_t i = 0; i < rank; i++)
        put_int(&tensor, 1, (uint64_t)dims[i]);
    put_int(&tensor, 2, (uint64_t)type);
    put_text(&tensor, 8, name);
    return tensor;
}

/* An initialiser whose data stand in raw bytes. */
static inline void made_raw(message *graph, const char *name, int type, size_t rank,
                            const int64_t *dims, const void *bytes, size_t n_bytes)
{
    message tensor = made_tensor(name, type, rank, dims);
    put_bytes(&tensor, 9, bytes, n_bytes);
    put_message(graph, 5, &tensor);
}

static inline void made_floats(message *graph, const char *name, size_t rank, const int64_t *dims,
                               const float *values)
{
    size_t n = 1;
    for (size_t i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    made_raw(graph, name, MADE_FLOAT, rank, dims, values, n * sizeof *values);
}

static inline void made_scalar(message *graph, const char *name, float value)
{
    made_floats(graph, name, 0, NULL, &value);
}

static inline void made_list(message *graph, const char *name, size_t n, const int64_t *values)
{
    made_raw(graph, name, MADE_INT64, 1, (const int64_t[]){(int64_t)n}, values, n * sizeof *values);
}

/* An initialiser whose data stand in another file. offset and length may be NULL. */
static inline void made_external(message *graph, const char *name, size_t rank, const int64_t *dims,
                                 const char *location, const char *offset, const char *length)
{
    const char *const pairs[][2] = {{"location", location}, {"offset", offset}, {"length", length}};
    message tensor = made_tensor(name, MADE_FLOAT, rank, dims);
    for (size_t i = 0; i < 3; i++) {
        message pair = {0};
        if (!pairs[i][1])
            continue;
        put_text(&pair, 1, pairs[i][0]);
        put_text(&pair, 2, pairs[i][1]);
        put_message(&tensor, 13, &pair);
    }
    put_int(&tensor, 14, 1);
    put_message(graph, 5, &tensor);
}

/* ---- models -------------------------------------------------------------------------------- */

/* Input (field 11) or output (12) of the graph: rows, and dims of a row; -1: left open. */
static inline void made_value(message *graph, unsigned field, const char *name, int type,
                              int64_t rows, size_t rank, const int64_t *dims)
{
    message value = {0}, kind = {0}, tensor = {0}, shape = {0};
    for (size_t i = 0; i <= rank; i++) {
        int64_t side = i == 0 ? rows : dims[i - 1];
        message dim = {0};
        if (side < 0)
            put_text(&dim, 2, "N");
        else
            put_int(&dim, 1, (uint64_t)side);
        put_message(&shape, 1, &dim);
    }
    put_int(&tensor, 1, (uint64_t)type);
    put_message(&tensor, 2, &shape);
    put_message(&kind, 1, &tensor);
    put_text(&value, 1, name);
    put_message(&value, 2, &kind);
    put_message(graph, field, &value);
}

/* An output of which nothing but its name is said. */
static inline void made_output(message *graph, const char *name)
{
    message value = {0};
    put_text(&value, 1, name);
    put_message(graph, 12, &value);
}

/* Model of a graph whose inputs and outputs are there. */
static inline message made_whole(message *graph, uint64_t opset)
{
    message model = {0}, set = {0};
    put_int(&model, 1, 8);
    put_text(&model, 2, "test");
    put_message(&model, 7, graph);
    put_int(&set, 2, opset);
    put_message(&model, 8, &set);
    return model;
}

/* The usual case: one input of floats with any number of rows, one output. */
static inline message made_model(message *graph, uint64_t opset, const char *input, size_t rank,
                                 const int64_t *dims, const char *output)
{
    made_value(graph, 11, input, MADE_FLOAT, -1, rank, dims);
    made_output(graph, output);
    return made_whole(graph, opset);
}

#endif
