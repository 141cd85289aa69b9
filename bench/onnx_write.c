/* onnx_write.c - the float net and its int8 form as ONNX files, for ONNX Runtime
 *
 * Field numbers are those of onnx.proto (ONNX 1.12). The float form is a chain of Gemm and Relu.
 * The int8 form is a chain of QGemm, the operator that ONNX Runtime itself turns quantised Gemms
 * into: u8 activations, s8 weights with a scale per output, i32 bias; ReLU is the lower bound of
 * u8. Raw f32 rows go through Sub, Mul and QuantizeLinear first. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"
#include "protobuf.h"

enum { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT8 = 3, ONNX_INT32 = 6, ONNX_INT64 = 7 };
#define IR_VERSION  8
#define OPSET       13
#define MS_OPSET    1
#define MOST_DIMS   2
#define MOST_INPUTS 9
#define NAME_BYTES  48

/* ---- ONNX */

static void add_tensor(message *graph, const char *name, int type, const size_t *dims,
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

static void add_vector(message *graph, const char *name, int type, const void *bytes, size_t n,
                       size_t element)
{
    add_tensor(graph, name, type, &n, 1, bytes, n * element);
}

static void add_scalar(message *graph, const char *name, int type, const void *bytes,
                       size_t element)
{
    add_tensor(graph, name, type, NULL, 0, bytes, element);
}

/* inputs: NULL-terminated names. transposed: attribute transB of a Gemm. */
static void add_node(message *graph, const char *type, const char *domain,
                     const char *const *inputs, const char *output, int transposed)
{
    message node = {0}, attribute = {0};
    for (; *inputs; inputs++)
        put_text(&node, 1, *inputs);
    put_text(&node, 2, output);
    put_text(&node, 3, output);
    put_text(&node, 4, type);
    if (transposed) {
        put_text(&attribute, 1, "transB");
        put_int(&attribute, 3, 1);
        put_int(&attribute, 20, 2); /* INT */
        put_message(&node, 5, &attribute);
    }
    if (*domain)
        put_text(&node, 7, domain);
    put_message(graph, 1, &node);
}

/* [N][width] of a type, as input (field 11) or output (field 12) of the graph; N is left open.
 * width 0: a list of any length. */
static void add_value(message *graph, unsigned field, const char *name, int type, size_t width)
{
    message value = {0}, kind = {0}, tensor = {0}, shape = {0}, rows = {0}, columns = {0};
    put_text(&rows, 2, "N");
    put_message(&shape, 1, &rows);
    if (width) {
        put_int(&columns, 1, width);
        put_message(&shape, 1, &columns);
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

/* And frees the graph. */
static nimbus_status write_model(message *graph, FILE *out, nimbus_error *error)
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

nimbus_status bench_onnx_write_f32(const bench_mlp *mlp, FILE *out, nimbus_error *error)
{
    message graph = {0};
    char x[NAME_BYTES] = "x", w[NAME_BYTES], b[NAME_BYTES], y[NAME_BYTES];
    for (size_t i = 0; i < mlp->n_layers; i++) {
        const bench_layer *layer = &mlp->layers[i];
        int last = i + 1 == mlp->n_layers;
        const size_t dims[MOST_DIMS] = {layer->m, layer->d};
        snprintf(w, sizeof w, "w%zu", i);
        snprintf(b, sizeof b, "b%zu", i);
        add_tensor(&graph, w, ONNX_FLOAT, dims, 2, layer->w, layer->m * layer->d * sizeof(float));
        add_vector(&graph, b, ONNX_FLOAT, layer->b, layer->m, sizeof(float));
        snprintf(y, sizeof y, last && !layer->relu ? "y" : "product%zu", i);
        add_node(&graph, "Gemm", "", (const char *const[]){x, w, b, NULL}, y, 1);
        if (layer->relu) {
            snprintf(x, sizeof x, "%s", y);
            snprintf(y, sizeof y, last ? "y" : "relu%zu", i);
            add_node(&graph, "Relu", "", (const char *const[]){x, NULL}, y, 0);
        }
        snprintf(x, sizeof x, "%s", y);
    }
    add_value(&graph, 11, "x", ONNX_FLOAT, mlp->layers[0].d);
    add_value(&graph, 12, "y", ONNX_FLOAT, mlp->layers[mlp->n_layers - 1].m);
    return write_model(&graph, out, error);
}

/* x, f32 -> u8 around 128. */
static void add_quantise(message *graph, const bench_int8 *net)
{
    const size_t d = net->mlp->layers[0].d;
    const float one = 1;
    const uint8_t middle = 128;
    add_vector(graph, "middle", ONNX_FLOAT, net->middle, d, sizeof(float));
    add_vector(graph, "gain", ONNX_FLOAT, net->gain, d, sizeof(float));
    add_scalar(graph, "unit", ONNX_FLOAT, &one, sizeof one);
    add_scalar(graph, "zero128", ONNX_UINT8, &middle, 1);
    add_node(graph, "Sub", "", (const char *const[]){"x", "middle", NULL}, "centred", 0);
    add_node(graph, "Mul", "", (const char *const[]){"centred", "gain", NULL}, "scaled", 0);
    add_node(graph, "QuantizeLinear", "", (const char *const[]){"scaled", "unit", "zero128", NULL},
             "u", 0);
}

/* One QGemm from u8 to u8, or to f32 in the last layer. */
static nimbus_status add_qgemm(message *graph, const bench_int8 *net, size_t i, const char *x,
                               const char *y, nimbus_error *error)
{
    static const char *const parts[MOST_INPUTS] = {
        "", "in_scale", "in_zero", "w", "w_scale", "w_zero", "bias", "out_scale", "out_zero"};
    const bench_layer *layer = &net->mlp->layers[i];
    const bench_int8_layer *q = &net->layers[i];
    const size_t d = layer->d, m = layer->m, dims[MOST_DIMS] = {d, m};
    const int last = i + 1 == net->mlp->n_layers;
    const uint8_t in_zero = (uint8_t)q->zero, out_zero = 0;
    char names[MOST_INPUTS][NAME_BYTES];
    const char *inputs[MOST_INPUTS + 1] = {x};
    int8_t *turned = malloc(d * m), *zeros = calloc(m, 1); /* [D][M], [M] */
    int32_t *bias = malloc(m * sizeof *bias);
    nimbus_status status = NIMBUS_OK;
    if (!turned || !zeros || !bias) {
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    for (size_t k = 1; k < MOST_INPUTS; k++) {
        snprintf(names[k], NAME_BYTES, "%s%zu", parts[k], i);
        inputs[k] = last && k >= 7 ? NULL : names[k];
    }
    for (size_t r = 0; r < m; r++) {
        bias[r] = (int32_t)lrintf(fminf(fmaxf(q->bias[r], -2e9f), 2e9f));
        for (size_t c = 0; c < d; c++)
            turned[c * m + r] = q->w[r * d + c];
    }
    add_scalar(graph, names[1], ONNX_FLOAT, &q->in_scale, sizeof(float));
    add_scalar(graph, names[2], ONNX_UINT8, &in_zero, 1);
    add_tensor(graph, names[3], ONNX_INT8, dims, 2, turned, d * m);
    add_vector(graph, names[4], ONNX_FLOAT, q->w_scale, m, sizeof(float));
    add_vector(graph, names[5], ONNX_INT8, zeros, m, 1);
    add_vector(graph, names[6], ONNX_INT32, bias, m, sizeof *bias);
    if (!last) {
        add_scalar(graph, names[7], ONNX_FLOAT, &q->out_scale, sizeof(float));
        add_scalar(graph, names[8], ONNX_UINT8, &out_zero, 1);
    }
    add_node(graph, "QGemm", "com.microsoft", inputs, y, 0);
done:
    free(turned);
    free(zeros);
    free(bias);
    return status;
}

nimbus_status bench_onnx_write_int8(const bench_int8 *net, FILE *out, nimbus_error *error)
{
    const bench_mlp *mlp = net->mlp;
    const size_t last = mlp->n_layers - 1;
    message graph = {0};
    char x[NAME_BYTES] = "x", y[NAME_BYTES];
    nimbus_status status = NIMBUS_OK;
    if (net->gain) {
        add_quantise(&graph, net);
        snprintf(x, sizeof x, "u");
    }
    for (size_t i = 0; i <= last && !status; i++) {
        snprintf(y, sizeof y, i == last && !mlp->layers[i].relu ? "y" : "layer%zu", i);
        status = add_qgemm(&graph, net, i, x, y, error);
        snprintf(x, sizeof x, "%s", y);
    }
    if (mlp->layers[last].relu)
        add_node(&graph, "Relu", "", (const char *const[]){x, NULL}, "y", 0);
    if (status) {
        free(graph.bytes);
        return status;
    }
    add_value(&graph, 11, "x", net->gain ? ONNX_FLOAT : ONNX_UINT8, mlp->layers[0].d);
    add_value(&graph, 12, "y", ONNX_FLOAT, mlp->layers[last].m);
    return write_model(&graph, out, error);
}

nimbus_status bench_onnx_write_empty(size_t width, nimbus_dtype dtype, FILE *out,
                                     nimbus_error *error)
{
    message graph = {0};
    add_node(&graph, "Shape", "", (const char *const[]){"x", NULL}, "y", 0);
    add_value(&graph, 11, "x", dtype == NIMBUS_U8 ? ONNX_UINT8 : ONNX_FLOAT, width);
    add_value(&graph, 12, "y", ONNX_INT64, 0);
    return write_model(&graph, out, error);
}
