/* onednn_forms.c - one product through oneDNN, int8 or f32
 *
 * oneDNN offers three ways to y = relu(x W^T + b): the inner product and the matmul primitive, with
 * bias, scaling and ReLU fused (output scales and an eltwise post-op) and the weights reordered
 * once into the layout that the primitive asks for; and plain matrix products, which lack all that
 * but win for one row at a time. */
#include <dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"
#include "onednn.h"

/* ---- the two primitives */

typedef struct primitive {
    bench_onednn on;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, weights, bias, y;
} primitive;

/* Descriptors of the arrays of a product; w asks for any layout, w_plain is [M][D]. */
typedef struct descriptors {
    dnnl_memory_desc_t x, w, w_plain, bias, bias_plain, y;
} descriptors;

/* A matmul reads weights [D][M]: the plain ones are the same bytes seen transposed. */
static int describe_all(const bench_product_spec *spec, int matmul, descriptors *out)
{
    const dnnl_dim_t n = (dnnl_dim_t)spec->n, d = (dnnl_dim_t)spec->d, m = (dnnl_dim_t)spec->m;
    const dnnl_data_type_t w_type = spec->int8 ? dnnl_s8 : dnnl_f32;
    return bench_onednn_describe(&out->x, 2, (dnnl_dims_t){n, d}, spec->int8 ? dnnl_u8 : dnnl_f32,
                                 dnnl_ab) &&
           bench_onednn_describe(&out->w, 2, matmul ? (dnnl_dims_t){d, m} : (dnnl_dims_t){m, d},
                                 w_type, dnnl_format_tag_any) &&
           bench_onednn_describe(&out->w_plain, 2,
                                 matmul ? (dnnl_dims_t){d, m} : (dnnl_dims_t){m, d}, w_type,
                                 matmul ? dnnl_ba : dnnl_ab) &&
           (matmul ? bench_onednn_describe(&out->bias, 2, (dnnl_dims_t){1, m}, dnnl_f32, dnnl_ab)
                   : bench_onednn_describe(&out->bias, 1, (dnnl_dims_t){m}, dnnl_f32, dnnl_a)) &&
           bench_onednn_describe(&out->y, 2, (dnnl_dims_t){n, m},
                                 spec->int8 && !spec->float_out ? dnnl_u8 : dnnl_f32, dnnl_ab);
}

static int make_attributes(const bench_product_spec *spec, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t ops = NULL;
    int ok = dnnl_primitive_attr_create(out) == dnnl_success &&
             dnnl_post_ops_create(&ops) == dnnl_success;
    if (ok && spec->int8)
        ok = dnnl_primitive_attr_set_output_scales(*out, (dnnl_dim_t)spec->m, 1 << 1,
                                                   spec->scale) == dnnl_success;
    if (ok && spec->relu)
        ok = dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_relu, 0, 0) == dnnl_success;
    if (ok)
        ok = dnnl_primitive_attr_set_post_ops(*out, ops) == dnnl_success;
    dnnl_post_ops_destroy(ops);
    return ok;
}

static int make_descriptor(const descriptors *d, int matmul, dnnl_primitive_attr_t attr,
                           dnnl_engine_t engine, dnnl_primitive_desc_t *out)
{
    if (matmul) {
        dnnl_matmul_desc_t desc;
        return dnnl_matmul_desc_init(&desc, &d->x, &d->w, &d->bias, &d->y) == dnnl_success &&
               dnnl_primitive_desc_create(out, &desc, attr, engine, NULL) == dnnl_success;
    }
    dnnl_inner_product_desc_t desc;
    return dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_inference, &d->x, &d->w,
                                                &d->bias, &d->y) == dnnl_success &&
           dnnl_primitive_desc_create(out, &desc, attr, engine, NULL) == dnnl_success;
}

static void free_primitive(void *state)
{
    primitive *p = state;
    dnnl_primitive_destroy(p->primitive);
    dnnl_memory_destroy(p->x);
    dnnl_memory_destroy(p->weights);
    dnnl_memory_destroy(p->bias);
    dnnl_memory_destroy(p->y);
    bench_onednn_close(&p->on);
    free(p);
}

static void *make_primitive(const bench_product_spec *spec, int matmul)
{
    descriptors d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    primitive *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    int ok = bench_onednn_open(&p->on) && describe_all(spec, matmul, &d) &&
             make_attributes(spec, &attr) && make_descriptor(&d, matmul, attr, p->on.engine, &pd) &&
             dnnl_primitive_create(&p->primitive, pd) == dnnl_success;
    if (ok) {
        const dnnl_memory_desc_t *packed =
            dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        ok = bench_onednn_load(&p->on, spec->w, &d.w_plain, packed, &p->weights) &&
             bench_onednn_load(&p->on, spec->bias, &d.bias, &d.bias, &p->bias) &&
             bench_onednn_memory(&p->on, &d.x, DNNL_MEMORY_NONE, &p->x) &&
             bench_onednn_memory(&p->on, &d.y, DNNL_MEMORY_NONE, &p->y);
    }
    dnnl_primitive_attr_destroy(attr);
    dnnl_primitive_desc_destroy(pd);
    if (ok)
        return p;
    free_primitive(p);
    return NULL;
}

static void *make_inner_product(const bench_product_spec *spec)
{
    return make_primitive(spec, 0);
}

static void *make_matmul(const bench_product_spec *spec)
{
    return make_primitive(spec, 1);
}

static nimbus_status run_primitive(void *state, const void *x, void *y)
{
    const primitive *p = state;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->x},
                                    {DNNL_ARG_WEIGHTS, p->weights},
                                    {DNNL_ARG_BIAS, p->bias},
                                    {DNNL_ARG_DST, p->y}};
    int ok = dnnl_memory_set_data_handle(p->x, (void *)(uintptr_t)x) == dnnl_success &&
             dnnl_memory_set_data_handle(p->y, y) == dnnl_success &&
             dnnl_primitive_execute(p->primitive, p->on.stream, 4, args) == dnnl_success &&
             dnnl_stream_wait(p->on.stream) == dnnl_success;
    return ok ? NIMBUS_OK : NIMBUS_ERR_UNSUPPORTED;
}

/* ---- plain matrix products */

typedef struct gemm {
    bench_product_spec spec; /* its arrays are the three below */
    void *w;
    float *bias, *scale;
    int32_t *sums; /* [N][M], int8 only */
} gemm;

static void free_gemm(void *state)
{
    gemm *g = state;
    free(g->w);
    free(g->bias);
    free(g->scale);
    free(g->sums);
    free(g);
}

static void *copy(const void *from, size_t bytes)
{
    void *to = from ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    if (to)
        memcpy(to, from, bytes);
    return to;
}

static void *make_gemm(const bench_product_spec *spec)
{
    gemm *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->spec = *spec;
    g->spec.w = g->w = copy(spec->w, spec->m * spec->d * (spec->int8 ? 1 : sizeof(float)));
    g->spec.bias = g->bias = copy(spec->bias, spec->m * sizeof(float));
    g->spec.scale = g->scale = copy(spec->scale, spec->m * sizeof(float));
    g->sums = spec->int8 ? malloc(spec->n * spec->m * sizeof *g->sums) : NULL;
    if (g->w && g->bias && (!spec->int8 || (g->scale && g->sums)))
        return g;
    free_gemm(g);
    return NULL;
}

static nimbus_status run_gemm(void *state, const void *x, void *y)
{
    const gemm *g = state;
    const dnnl_dim_t n = (dnnl_dim_t)g->spec.n, d = (dnnl_dim_t)g->spec.d,
                     m = (dnnl_dim_t)g->spec.m;
    const int32_t zero = 0;
    dnnl_status_t status;
    if (g->spec.int8) {
        status =
            dnnl_gemm_u8s8s32('N', 'T', 'F', n, m, d, 1, x, d, 0, g->w, d, 0, 0, g->sums, m, &zero);
        bench_finish_i32(g->sums, &g->spec, y);
    } else {
        status = dnnl_sgemm('N', 'T', n, m, d, 1, x, d, g->w, d, 0, y, m);
        bench_finish_f32(y, g->spec.n, g->spec.m, g->bias, g->spec.relu);
    }
    return status == dnnl_success ? NIMBUS_OK : NIMBUS_ERR_UNSUPPORTED;
}

const bench_form bench_onednn_forms[3] = {
    {"inner product", make_inner_product, run_primitive, free_primitive},
    {"matmul", make_matmul, run_primitive, free_primitive},
    {"gemm", make_gemm, run_gemm, free_gemm},
};
