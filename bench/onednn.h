/* onednn.h - what all uses of oneDNN share: an engine, memories, weights in a primitive's layout
 *
 * Functions return whether they succeeded, for chains of &&. */
#ifndef NIMBUS_BENCH_ONEDNN_H
#define NIMBUS_BENCH_ONEDNN_H

#include <dnnl.h>

typedef struct bench_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
} bench_onednn;

int bench_onednn_open(bench_onednn *on);
void bench_onednn_close(bench_onednn *on);

int bench_onednn_describe(dnnl_memory_desc_t *md, int n_dims, const dnnl_dims_t dims,
                          dnnl_data_type_t type, dnnl_format_tag_t tag);
int bench_onednn_memory(const bench_onednn *on, const dnnl_memory_desc_t *md, void *bytes,
                        dnnl_memory_t *out);
/* A primitive that copies from one layout to another. */
int bench_onednn_reorder(const bench_onednn *on, const dnnl_memory_desc_t *from,
                         const dnnl_memory_desc_t *to, dnnl_primitive_t *out);
/* Copies an array of a plain layout into new memory owned by oneDNN, in the layout wanted. */
int bench_onednn_load(const bench_onednn *on, const void *bytes, const dnnl_memory_desc_t *plain,
                      const dnnl_memory_desc_t *wanted, dnnl_memory_t *out);

/* onednn_choose.c: the fastest of the implementations of a convolution or inner product, by a short
 * trial of each. have: the layout that its input is in; NULL: any. */
int bench_onednn_choose(const bench_onednn *on, const void *desc, const_dnnl_primitive_attr_t attr,
                        const dnnl_memory_desc_t *have, dnnl_primitive_desc_t *out);

#endif
