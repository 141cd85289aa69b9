/* onnx.h - writes graphs of ONNX nodes
 *
 * Field numbers are those of onnx.proto (ONNX 1.12). */
#ifndef NIMBUS_BENCH_ONNX_H
#define NIMBUS_BENCH_ONNX_H

#include "bench.h"
#include "bench_error.h"
#include "protobuf.h"

enum { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT8 = 3, ONNX_INT32 = 6, ONNX_INT64 = 7 };
#define ONNX_NAME 48 /* bytes */

/* Constants: of any shape, [n], and of none. */
void bench_onnx_tensor(message *graph, const char *name, int type, const size_t *dims,
                       size_t n_dims, const void *bytes, size_t n_bytes);
void bench_onnx_vector(message *graph, const char *name, int type, const void *bytes, size_t n,
                       size_t element);
void bench_onnx_scalar(message *graph, const char *name, int type, const void *bytes,
                       size_t element);
/* Attributes, collected in a message of their own. */
void bench_onnx_int(message *attributes, const char *name, uint64_t value);
void bench_onnx_ints(message *attributes, const char *name, const size_t *values, size_t n);
/* inputs: NULL-terminated names. attributes are freed; NULL: none. */
void bench_onnx_node(message *graph, const char *type, const char *domain,
                     const char *const *inputs, const char *output, message *attributes);
/* Input (field 11) or output (field 12) of the graph: N, left open, and dims. */
void bench_onnx_value(message *graph, unsigned field, const char *name, int type,
                      const size_t *dims, size_t n_dims);
/* And frees the graph. */
nimbus_status bench_onnx_write(message *graph, FILE *out, nimbus_error *error) NIMBUS_MUST_CHECK;

#endif
