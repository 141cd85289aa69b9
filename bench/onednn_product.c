/* onednn_product.c - a convolution or linear layer as a primitive of oneDNN */
#include <math.h>
#include <stdlib.h>

#include "onednn_graph.h"

int bench_graph_post_ops(const bench_graph *g, size_t value, size_t other,
                         dnnl_primitive_attr_t attr)
{
    const bench_layer *layer = &g->net->layers[value - 1];
    dnnl_post_ops_t ops = NULL;
    int ok = dnnl_post_ops_create(&ops) == dnnl_success;
    if (ok && other)
        ok = dnnl_post_ops_append_sum_v2(
                 ops, g->int8 ? g->int8->scale[other] / g->int8->scale[value] : 1,
                 bench_graph_type(g, other)) == dnnl_success;
    if (ok && layer->relu && bench_graph_type(g, value) == dnnl_f32)
        ok = (layer->high < INFINITY
                  ? dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_clip, 0, layer->high)
                  : dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0)) == dnnl_success;
    ok = ok && dnnl_primitive_attr_set_post_ops(attr, ops) == dnnl_success;
    dnnl_post_ops_destroy(ops);
    return ok;
}

/* have: the layout of its input; NULL: that is written for it, with borders around it. */
static int make_convolution(const bench_layer *layer, bench_graph_product *p,
                            dnnl_primitive_attr_t attr, const dnnl_memory_desc_t *have,
                            const bench_onednn *on)
{
    dnnl_convolution_desc_t desc;
    dnnl_dims_t stride, dilation, before, after;
    for (size_t k = 0; k < 2; k++) {
        stride[k] = (dnnl_dim_t)layer->stride[k];
        dilation[k] = (dnnl_dim_t)layer->dilation[k] - 1;
        before[k] = have ? (dnnl_dim_t)layer->before[k] : 0;
        after[k] = have ? (dnnl_dim_t)layer->after[k] : 0;
    }
    return dnnl_dilated_convolution_forward_desc_init(
               &desc, dnnl_forward_inference, dnnl_convolution_direct, &p->x, &p->w, &p->bias,
               &p->y, stride, dilation, before, after) == dnnl_success &&
           bench_onednn_choose(on, &desc, attr, have, &p->pd);
}

static int make_inner_product(bench_graph_product *p, dnnl_primitive_attr_t attr,
                              const dnnl_memory_desc_t *have, const bench_onednn *on)
{
    dnnl_inner_product_desc_t desc;
    return dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_inference, &p->x, &p->w,
                                                &p->bias, &p->y) == dnnl_success &&
           bench_onednn_choose(on, &desc, attr, have, &p->pd);
}

/* Images with their borders are the only ones that differ from what the layer says. */
static int describe_x(const bench_graph *g, size_t i, int bordered, dnnl_memory_desc_t *out)
{
    const bench_layer *layer = &g->net->layers[i];
    const size_t v = layer->sources[0];
    dnnl_dims_t dims = {(dnnl_dim_t)g->n, (dnnl_dim_t)layer->in.channels,
                        (dnnl_dim_t)layer->in.height, (dnnl_dim_t)layer->in.width};
    if (bordered)
        for (size_t k = 0; k < 2; k++)
            dims[2 + k] += (dnnl_dim_t)(layer->before[k] + layer->after[k]);
    return bench_onednn_describe(out, g->values[v].md.ndims, dims, bench_graph_type(g, v),
                                 dnnl_format_tag_any);
}

/* value: what the primitive makes; other: what that is added to, in place; 0: nothing. */
static int describe_product(const bench_graph *g, size_t i, size_t value, size_t other,
                            int bordered, bench_graph_product *p)
{
    const bench_layer *layer = &g->net->layers[i];
    const dnnl_dim_t G = (dnnl_dim_t)layer->groups, M = (dnnl_dim_t)layer->m,
                     C = (dnnl_dim_t)layer->in.channels, N = (dnnl_dim_t)g->n,
                     kh = (dnnl_dim_t)layer->kernel[0], kw = (dnnl_dim_t)layer->kernel[1];
    const dnnl_data_type_t type = g->int8 ? dnnl_s8 : dnnl_f32;
    const dnnl_dims_t one = {M, C, kh, kw}, grouped = {G, M / G, C / G, kh, kw},
                      out = {N, M, (dnnl_dim_t)layer->out.height, (dnnl_dim_t)layer->out.width};
    const int n_dims = G > 1 ? 5 : g->values[layer->sources[0]].md.ndims,
              n_out = layer->linear ? 2 : 4;
    const int last = value == g->net->n_layers;
    p->y = g->values[other].md; /* with all its type, which may be s8 where the sum is u8 */
    p->y.data_type = bench_graph_type(g, value);
    return describe_x(g, i, bordered, &p->x) &&
           bench_onednn_describe(&p->w, n_dims, G > 1 ? grouped : one, type, dnnl_format_tag_any) &&
           bench_onednn_describe(&p->w_plain, n_dims, G > 1 ? grouped : one, type,
                                 n_dims == 5   ? dnnl_abcde
                                 : n_dims == 4 ? dnnl_abcd
                                               : dnnl_ab) &&
           bench_onednn_describe(&p->bias, 1, (dnnl_dims_t){M}, dnnl_f32, dnnl_a) &&
           (other || bench_onednn_describe(&p->y, n_out, out, bench_graph_type(g, value),
                                           last ? dnnl_ab : dnnl_format_tag_any));
}

int bench_graph_make_product(const bench_graph *g, size_t i, size_t value, size_t other,
                             int bordered, bench_graph_product *p)
{
    const bench_layer *layer = &g->net->layers[i];
    dnnl_primitive_attr_t attr = NULL;
    *p = (bench_graph_product){.pd = NULL};
    int ok = describe_product(g, i, value, other, bordered, p) &&
             dnnl_primitive_attr_create(&attr) == dnnl_success &&
             bench_graph_post_ops(g, value, other, attr);
    if (ok && g->int8) {
        /* scale[] is into the steps of value i + 1, which is not made where a sum is */
        float *scales = malloc(layer->m * sizeof *scales);
        for (size_t m = 0; m < layer->m && scales; m++)
            scales[m] = g->int8->layers[i].scale[m] * g->int8->scale[i + 1] / g->int8->scale[value];
        ok = scales && dnnl_primitive_attr_set_output_scales(attr, (dnnl_dim_t)layer->m, 1 << 1,
                                                             scales) == dnnl_success;
        free(scales);
    }
    const dnnl_memory_desc_t *have = bordered ? NULL : &g->values[layer->sources[0]].md;
    ok = ok && (layer->linear ? make_inner_product(p, attr, have, &g->on)
                              : make_convolution(layer, p, attr, have, &g->on));
    dnnl_primitive_attr_destroy(attr);
    return ok;
}
