/* onednn_net.c - a net of convolutions, sums, pools and linear layers through oneDNN, int8 or f32
 *
 * Every primitive chooses the layout of what it reads and makes, products the fastest of their
 * implementations; a reorder stands between two only where layouts differ. ReLU, scales and bias
 * are fused, and a sum becomes the `sum` post-op of the product before it, which then adds to what
 * the other branch left in the same memory. Primitives and memories are made once; a call only
 * executes. Memory whose value nobody reads any more is used again, which keeps a small net in the
 * caches.
 *
 * Values of both signs are s8. Int8 rows stay u8: where the first layer has padding, the images are
 * copied into larger ones, in the layout of that layer, whose borders were filled beforehand with
 * what stands for 0 in each channel. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_error.h"
#include "onednn_graph.h"

/* ---- what is done by which primitive -------------------------------------------------------- */

static int reads(const bench_layer *layer, size_t value)
{
    for (size_t k = 0; k < layer->n_sources; k++)
        if (layer->sources[k] == value)
            return 1;
    return 0;
}

/* Lets the later of two summed values be added up in the memory of the earlier one, if the product
 * that makes it is read by nobody else, and the earlier value by nobody from then on. */
static void fuse_sum(bench_graph *g, size_t sum)
{
    const bench_net *net = g->net;
    const size_t a = net->layers[sum].sources[0], b = net->layers[sum].sources[1];
    const size_t later = a > b ? a : b, earlier = a > b ? b : a;
    if (earlier == 0 || earlier == later)
        return;
    const bench_layer *product = &net->layers[later - 1];
    if (product->kind != BENCH_PRODUCT || product->relu)
        return;
    for (size_t i = 0; i < net->n_layers; i++)
        if (i != sum &&
            (reads(&net->layers[i], later) || (i + 1 >= later && reads(&net->layers[i], earlier))))
            return;
    g->sum_of[later - 1] = sum;
}

static void plan(bench_graph *g)
{
    for (size_t i = 0; i < g->net->n_layers; i++) {
        for (size_t k = 0; k < g->net->layers[i].n_sources; k++)
            g->last_reader[g->net->layers[i].sources[k]] = i;
        if (g->net->layers[i].kind == BENCH_ADD && !g->keep)
            fuse_sum(g, i);
    }
    g->last_reader[g->net->n_layers] = g->net->n_layers;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* A buffer that is free when layer `from` runs, and busy until layer `to` has. */
static size_t take_buffer(bench_graph *g, size_t bytes, size_t from, size_t to)
{
    size_t best = g->n_buffers;
    for (size_t k = 0; k < g->n_buffers && !g->keep; k++)
        if (g->buffers[k].busy_until < from &&
            (best == g->n_buffers || g->buffers[k].size > g->buffers[best].size))
            best = k;
    bench_buffer *b = &g->buffers[best];
    g->n_buffers += best == g->n_buffers;
    b->size = b->size > bytes ? b->size : bytes;
    b->busy_until = to;
    return best;
}

static int add_memory(bench_graph *g, const dnnl_memory_desc_t *md, size_t in_buffer,
                      dnnl_memory_t *out)
{
    int ok = bench_onednn_memory(&g->on, md, DNNL_MEMORY_NONE, out);
    g->buffer_of[g->n_memories] = in_buffer;
    g->memories[g->n_memories] = *out;
    g->n_memories += (size_t)ok;
    return ok;
}

/* A place for a value, or for a copy of one, made by layer `from`. */
static int make_place(bench_graph *g, const dnnl_memory_desc_t *md, size_t from, size_t to,
                      bench_place *out)
{
    out->md = *md;
    out->buffer = take_buffer(g, dnnl_memory_desc_get_size(md), from, to);
    return add_memory(g, md, out->buffer, &out->memory);
}

/* Weights and biases, owned by oneDNN. */
static int add_constant(bench_graph *g, const void *bytes, const dnnl_memory_desc_t *plain,
                        const dnnl_memory_desc_t *wanted, dnnl_memory_t *out)
{
    int ok = bench_onednn_load(&g->on, bytes, plain, wanted, out);
    if (*out) {
        g->buffer_of[g->n_memories] = SIZE_MAX;
        g->memories[g->n_memories++] = *out;
    }
    return ok;
}

static int give_memory(bench_graph *g)
{
    for (size_t k = 0; k < g->n_buffers; k++) {
        bench_buffer *b = &g->buffers[k];
        if (!b->bytes) { /* the one with borders has its own */
            b->bytes = aligned_alloc(64, (b->size + 63) / 64 * 64);
            if (b->bytes)
                memset(b->bytes, 0, b->size);
        }
        if (!b->bytes)
            return 0;
    }
    for (size_t k = 0; k < g->n_memories; k++)
        if (g->buffer_of[k] != SIZE_MAX &&
            dnnl_memory_set_data_handle(g->memories[k], g->buffers[g->buffer_of[k]].bytes) !=
                dnnl_success)
            return 0;
    return 1;
}

/* ---- primitives ------------------------------------------------------------------------------ */

/* Takes over the primitive. */
static void add_op(bench_graph *g, size_t layer, dnnl_primitive_t primitive, int n_args,
                   const dnnl_exec_arg_t *args)
{
    bench_op *o = &g->ops[g->n_ops++];
    *o = (bench_op){.primitive = primitive, .n_args = n_args, .layer = layer};
    memcpy(o->args, args, (size_t)n_args * sizeof *args);
}

/* What layer i finds of a value in the layout that it wants. */
static int in_layout(bench_graph *g, size_t i, size_t value, const dnnl_memory_desc_t *wanted,
                     dnnl_memory_t *out)
{
    const bench_place *have = &g->values[value];
    bench_place copy;
    dnnl_primitive_t reorder = NULL;
    *out = have->memory;
    if (dnnl_memory_desc_equal(&have->md, wanted))
        return 1;
    if (!bench_onednn_reorder(&g->on, &have->md, wanted, &reorder) ||
        !make_place(g, wanted, i, i, &copy)) {
        dnnl_primitive_destroy(reorder);
        return 0;
    }
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, have->memory}, {DNNL_ARG_TO, copy.memory}};
    add_op(g, i, reorder, 2, args);
    *out = copy.memory;
    return 1;
}

static int add_weights(bench_graph *g, size_t i, const bench_graph_product *p, dnnl_memory_t *w,
                       dnnl_memory_t *b)
{
    const bench_layer *layer = &g->net->layers[i];
    float *bias = g->int8 ? bench_int8_bias(g->int8, i) : NULL;
    int ok = (bias || !g->int8) &&
             add_constant(g, g->int8 ? (const void *)g->int8->layers[i].w : layer->w, &p->w_plain,
                          dnnl_primitive_desc_query_md(p->pd, dnnl_query_weights_md, 0), w) &&
             add_constant(g, bias ? bias : layer->b, &p->bias, &p->bias, b);
    free(bias);
    return ok;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static const dnnl_format_tag_t plain_image = dnnl_abcd;

/* Memory for images and their borders, which are filled here. */
static int fill_borders(bench_graph *g, const bench_layer *layer, const dnnl_memory_desc_t *md,
                        bench_place *out)
{
    const size_t C = layer->in.channels, n = g->n, d = (size_t)(md->dims[2] * md->dims[3]);
    dnnl_memory_desc_t plain;
    dnnl_memory_t filled = NULL;
    uint8_t *pads = malloc(n * C * d);
    for (size_t k = 0; k < n * C && pads; k++)
        memset(pads + k * d, g->int8->pad[k % C], d);
    out->md = *md;
    out->buffer = take_buffer(g, dnnl_memory_desc_get_size(md), 0, SIZE_MAX);
    bench_buffer *b = &g->buffers[out->buffer];
    b->bytes = aligned_alloc(64, (b->size + 63) / 64 * 64);
    int ok = pads && b->bytes && bench_onednn_describe(&plain, 4, md->dims, dnnl_u8, plain_image) &&
             bench_onednn_load(&g->on, pads, &plain, md, &filled) &&
             add_memory(g, md, out->buffer, &out->memory);
    void *bytes = NULL;
    ok = ok && dnnl_memory_get_data_handle(filled, &bytes) == dnnl_success;
    if (ok)
        memcpy(b->bytes, bytes, dnnl_memory_desc_get_size(md));
    dnnl_memory_destroy(filled);
    free(pads);
    return ok;
}

/* The rows with borders around them, in the layout that the first layer chose. */
static int border_rows(bench_graph *g, size_t i, const dnnl_memory_desc_t *md, dnnl_memory_t *out)
{
    const bench_layer *layer = &g->net->layers[i];
    const dnnl_dims_t offsets = {0, 0, (dnnl_dim_t)layer->before[0], (dnnl_dim_t)layer->before[1]};
    dnnl_memory_desc_t inner;
    dnnl_memory_t inside;
    dnnl_primitive_t reorder = NULL;
    bench_place bordered;
    if (!fill_borders(g, layer, md, &bordered) ||
        dnnl_memory_desc_init_submemory(&inner, md, g->values[0].md.dims, offsets) !=
            dnnl_success ||
        !add_memory(g, &inner, bordered.buffer, &inside) ||
        !bench_onednn_reorder(&g->on, &g->values[0].md, &inner, &reorder))
        return 0;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, g->in}, {DNNL_ARG_TO, inside}};
    add_op(g, i, reorder, 2, args);
    *out = bordered.memory;
    return 1;
}

static int add_rows(bench_graph *g)
{
    const bench_image in = g->net->in;
    const dnnl_dims_t dims = {(dnnl_dim_t)g->n, (dnnl_dim_t)in.channels, (dnnl_dim_t)in.height,
                              (dnnl_dim_t)in.width};
    const int n_dims = in.height * in.width > 1 ? 4 : 2;
    bench_place *rows = &g->values[0];
    int ok = bench_onednn_describe(&rows->md, n_dims, dims, bench_graph_type(g, 0),
                                   n_dims == 2 ? dnnl_ab : plain_image) &&
             add_memory(g, &rows->md, SIZE_MAX, &rows->memory);
    g->in = rows->memory;
    return ok;
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* Where value `value` of layer i goes. */
static int place_value(bench_graph *g, size_t i, size_t value, size_t other,
                       const dnnl_memory_desc_t *md)
{
    bench_place *out = &g->values[value];
    if (value == g->net->n_layers) { /* to the caller */
        out->md = *md;
        int ok = add_memory(g, md, SIZE_MAX, &out->memory);
        g->out = out->memory;
        return ok;
    }
    if (!other)
        return make_place(g, md, i, g->last_reader[value], out);
    out->md = *md;
    out->buffer = g->values[other].buffer;
    g->buffers[out->buffer].busy_until = g->last_reader[value];
    return add_memory(g, md, out->buffer, &out->memory);
}

static int add_product(bench_graph *g, size_t i)
{
    const bench_layer *layer = &g->net->layers[i];
    const size_t v = layer->sources[0];
    const int bordered = v == 0 && g->int8 && g->int8->pad;
    size_t value = i + 1, other = 0;
    bench_graph_product p;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t x, w = NULL, b = NULL;
    if (g->sum_of[i]) {
        const bench_layer *sum = &g->net->layers[g->sum_of[i]];
        value = g->sum_of[i] + 1;
        other = sum->sources[0] == i + 1 ? sum->sources[1] : sum->sources[0];
    }
    int ok = bench_graph_make_product(g, i, value, other, bordered, &p);
    if (!ok && other) { /* the sum alone, then */
        dnnl_primitive_desc_destroy(p.pd);
        g->sum_of[i] = 0;
        value = i + 1;
        other = 0;
        ok = bench_graph_make_product(g, i, value, other, bordered, &p);
    }
    if (ok) {
        const dnnl_memory_desc_t *wanted = dnnl_primitive_desc_query_md(p.pd, dnnl_query_src_md, 0);
        ok = (bordered ? border_rows(g, i, wanted, &x) : in_layout(g, i, v, wanted, &x)) &&
             add_weights(g, i, &p, &w, &b) &&
             place_value(g, i, value, other,
                         dnnl_primitive_desc_query_md(p.pd, dnnl_query_dst_md, 0)) &&
             dnnl_primitive_create(&primitive, p.pd) == dnnl_success;
    }
    dnnl_primitive_desc_destroy(p.pd);
    if (ok) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, x},
                                        {DNNL_ARG_WEIGHTS, w},
                                        {DNNL_ARG_BIAS, b},
                                        {DNNL_ARG_DST, g->values[value].memory}};
        add_op(g, i, primitive, 4, args);
    }
    return ok;
}

/* A sum that no product does as well. */
static int add_sum(bench_graph *g, size_t i)
{
    static const int operands[2] = {DNNL_ARG_SRC_0, DNNL_ARG_SRC_1};
    const size_t *from = g->net->layers[i].sources;
    dnnl_memory_desc_t md[2] = {g->values[from[0]].md, g->values[from[0]].md}, y = md[0];
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_binary_desc_t desc;
    dnnl_memory_t other;
    md[1].data_type = bench_graph_type(g, from[1]);
    y.data_type = bench_graph_type(g, i + 1);
    int ok = dnnl_primitive_attr_create(&attr) == dnnl_success &&
             bench_graph_post_ops(g, i + 1, 0, attr);
    for (int k = 0; k < 2 && ok && g->int8; k++) {
        float scale = g->int8->scale[from[k]] / g->int8->scale[i + 1];
        ok = dnnl_primitive_attr_set_scales(attr, operands[k], 1, 0, &scale) == dnnl_success;
    }
    ok = ok && in_layout(g, i, from[1], &md[1], &other) &&
         dnnl_binary_desc_init(&desc, dnnl_binary_add, &md[0], &md[1], &y) == dnnl_success &&
         dnnl_primitive_desc_create(&pd, &desc, attr, g->on.engine, NULL) == dnnl_success &&
         place_value(g, i, i + 1, 0, &y) && dnnl_primitive_create(&primitive, pd) == dnnl_success;
    dnnl_primitive_attr_destroy(attr);
    dnnl_primitive_desc_destroy(pd);
    if (ok) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC_0, g->values[from[0]].memory},
                                        {DNNL_ARG_SRC_1, other},
                                        {DNNL_ARG_DST, g->values[i + 1].memory}};
        add_op(g, i, primitive, 3, args);
    }
    return ok;
}

static int add_pool(bench_graph *g, size_t i)
{
    const bench_layer *layer = &g->net->layers[i];
    const size_t v = layer->sources[0];
    const dnnl_alg_kind_t kind = layer->kind == BENCH_MAX_POOL ? dnnl_pooling_max
                                 : layer->count_padding        ? dnnl_pooling_avg_include_padding
                                                               : dnnl_pooling_avg_exclude_padding;
    const dnnl_dims_t out = {(dnnl_dim_t)g->n, (dnnl_dim_t)layer->out.channels,
                             (dnnl_dim_t)layer->out.height, (dnnl_dim_t)layer->out.width};
    dnnl_dims_t stride, kernel, before, after;
    dnnl_memory_desc_t y;
    dnnl_pooling_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    for (size_t k = 0; k < 2; k++) {
        stride[k] = (dnnl_dim_t)layer->stride[k];
        kernel[k] = (dnnl_dim_t)layer->kernel[k];
        before[k] = (dnnl_dim_t)layer->before[k];
        after[k] = (dnnl_dim_t)layer->after[k];
    }
    int ok = bench_onednn_describe(&y, 4, out, bench_graph_type(g, i + 1), dnnl_format_tag_any) &&
             dnnl_pooling_forward_desc_init(&desc, dnnl_forward_inference, kind, &g->values[v].md,
                                            &y, stride, kernel, before, after) == dnnl_success &&
             dnnl_primitive_desc_create(&pd, &desc, NULL, g->on.engine, NULL) == dnnl_success &&
             place_value(g, i, i + 1, 0, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0)) &&
             dnnl_primitive_create(&primitive, pd) == dnnl_success;
    dnnl_primitive_desc_destroy(pd);
    if (ok) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, g->values[v].memory},
                                        {DNNL_ARG_DST, g->values[i + 1].memory}};
        add_op(g, i, primitive, 2, args);
    }
    return ok;
}

static int add_layer(bench_graph *g, size_t i)
{
    switch (g->net->layers[i].kind) {
    case BENCH_PRODUCT:
        return add_product(g, i);
    case BENCH_ADD: /* unless it is there already */
        return g->values[i + 1].memory || add_sum(g, i);
    default:
        return add_pool(g, i);
    }
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static nimbus_status make(const bench_net *net, const bench_int8 *int8, size_t batch, int keep,
                          bench_graph **out, nimbus_error *error)
{
    bench_graph *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    g->net = net;
    g->int8 = int8;
    g->n = batch;
    g->keep = keep;
    plan(g);
    int ok = bench_onednn_open(&g->on) && add_rows(g);
    for (size_t i = 0; i < net->n_layers && ok; i++)
        if (!(ok = add_layer(g, i)))
            (void)bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "oneDNN does not take layer %s as %s",
                             net->layers[i].name, int8 ? "int8" : "f32");
    if (ok && !(ok = give_memory(g)))
        (void)bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu rows", batch);
    if (ok) {
        *out = g;
        return NIMBUS_OK;
    }
    bench_graph_free(g);
    return error->status;
}

nimbus_status bench_graph_new(const bench_net *net, const bench_int8 *int8, size_t batch,
                              bench_graph **out, nimbus_error *error)
{
    return make(net, int8, batch, 0, out, error);
}

void bench_graph_free(bench_graph *g)
{
    if (!g)
        return;
    for (size_t k = 0; k < g->n_ops; k++)
        dnnl_primitive_destroy(g->ops[k].primitive);
    for (size_t k = 0; k < g->n_memories; k++)
        dnnl_memory_destroy(g->memories[k]);
    for (size_t k = 0; k < g->n_buffers; k++)
        free(g->buffers[k].bytes);
    bench_onednn_close(&g->on);
    free(g);
}

static int set_rows(bench_graph *g, const void *x, void *y)
{
    return dnnl_memory_set_data_handle(g->in, (void *)(uintptr_t)x) == dnnl_success &&
           dnnl_memory_set_data_handle(g->out, y) == dnnl_success;
}

static int execute(bench_graph *g, size_t k)
{
    const bench_op *o = &g->ops[k];
    return dnnl_primitive_execute(o->primitive, g->on.stream, o->n_args, o->args) == dnnl_success;
}

nimbus_status bench_graph_run(bench_graph *g, const void *x, void *y, bench_ticks_of *ticks)
{
    int ok = set_rows(g, x, y);
    for (size_t k = 0; k < g->n_ops && ok; k++) {
        uint64_t start = ticks ? bench_ticks() : 0;
        ok = execute(g, k);
        if (ticks) {
            ticks->ticks[g->ops[k].layer] += bench_ticks() - start;
            ticks->n_calls[g->ops[k].layer]++;
        }
    }
    return ok && dnnl_stream_wait(g->on.stream) == dnnl_success ? NIMBUS_OK
                                                                : NIMBUS_ERR_UNSUPPORTED;
}

size_t bench_graph_layer_of(const bench_graph *g, size_t i)
{
    for (size_t k = 0; k < g->net->n_layers; k++)
        if (g->sum_of[k] && g->sum_of[k] == i)
            return k;
    return i;
}

nimbus_status bench_graph_ranges(const bench_net *net, const bench_rows *rows, float *top,
                                 nimbus_error *error)
{
    bench_graph *g;
    const size_t m = net->layers[net->n_layers - 1].m;
    float *y = malloc(BENCH_RANGE_ROWS * m * sizeof *y);
    if (!y)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    nimbus_status status = make(net, NULL, BENCH_RANGE_ROWS, 1, &g, error);
    for (size_t at = 0; at + BENCH_RANGE_ROWS <= rows->n && !status; at += BENCH_RANGE_ROWS) {
        if ((status = bench_graph_run(g, rows->float_rows + at * rows->d, y, NULL)))
            status = bench_fail(error, status, "oneDNN failed on the calibration rows");
        for (size_t i = 0; i + 1 < net->n_layers && !status; i++) {
            /* all of it: what a layout fills up with is 0 */
            const bench_buffer *b = &g->buffers[g->values[i + 1].buffer];
            const float *value = b->bytes;
            for (size_t j = 0; j < b->size / sizeof *value; j++)
                top[i] = fmaxf(top[i], fabsf(value[j]));
        }
    }
    bench_graph_free(g);
    free(y);
    return status;
}
