/* onednn_graph.h - a net as primitives of oneDNN, for the files that make it */
#ifndef NIMBUS_BENCH_ONEDNN_GRAPH_H
#define NIMBUS_BENCH_ONEDNN_GRAPH_H

#include "bench.h"
#include "onednn.h"

#define BENCH_MOST_OPS  (3 * BENCH_MAX_LAYERS)
#define BENCH_MOST_ARGS 4

typedef struct bench_op {
    dnnl_primitive_t primitive;
    int n_args;
    dnnl_exec_arg_t args[BENCH_MOST_ARGS];
    size_t layer; /* that it is part of */
} bench_op;

/* Memory of one value after the other. */
typedef struct bench_buffer {
    void *bytes;
    size_t size, busy_until; /* the last layer that reads it */
} bench_buffer;

typedef struct bench_place {
    dnnl_memory_desc_t md;
    dnnl_memory_t memory;
    size_t buffer;
} bench_place;

struct bench_graph {
    const bench_net *net;   /* borrowed */
    const bench_int8 *int8; /* borrowed; NULL: f32 */
    size_t n;
    int keep; /* all values have memory of their own, and nothing is fused */
    bench_onednn on;
    size_t n_ops, n_memories, n_buffers;
    bench_op ops[BENCH_MOST_OPS];
    dnnl_memory_t memories[2 * BENCH_MOST_OPS];
    size_t buffer_of[2 * BENCH_MOST_OPS]; /* by memory; SIZE_MAX: its own, or the caller's */
    bench_buffer buffers[BENCH_MOST_OPS];
    bench_place values[BENCH_MAX_LAYERS + 1];
    size_t last_reader[BENCH_MAX_LAYERS + 1]; /* by value, of layers */
    size_t sum_of[BENCH_MAX_LAYERS]; /* by product: the sum that it does as well; 0: none (no net
                                        begins with a sum) */
    dnnl_memory_t in, out;           /* the caller's */
};

static inline dnnl_data_type_t bench_graph_type(const bench_graph *g, size_t value)
{
    if (!g->int8 || value == g->net->n_layers)
        return dnnl_f32;
    return value && g->int8->zero[value] ? dnnl_s8 : dnnl_u8;
}

/* onednn_product.c */

/* Attributes of what makes a value: the sum that it does as well, with the other value (0: none) in
 * steps of this one, and the activation, as far as u8 does not cut values off by itself. */
int bench_graph_post_ops(const bench_graph *g, size_t value, size_t other,
                         dnnl_primitive_attr_t attr);

/* A product's primitive, and the plain layouts of its constants. */
typedef struct bench_graph_product {
    dnnl_memory_desc_t x, w, w_plain, bias, y;
    dnnl_primitive_desc_t pd;
} bench_graph_product;

/* Of layer i, making `value`, added to value `other` in its place (0: to nothing). bordered: its
 * padding is part of what it reads. out->pd is to be destroyed, whatever is returned. */
int bench_graph_make_product(const bench_graph *g, size_t i, size_t value, size_t other,
                             int bordered, bench_graph_product *out);

#endif
