/* import_helpers.h - imports models that a test made, and runs the nets */
#ifndef NIMBUS_IMPORT_HELPERS_H
#define NIMBUS_IMPORT_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "nimbus_build.h"
#include "onnx_maker.h"

enum { IMPORT_ROWS = 3 };

/* Imports a model and frees its bytes. */
static inline nimbus_status try_import(message *model, const nimbus_import_options *options,
                                       nimbus_net **net, nimbus_import_report *report,
                                       nimbus_error *error)
{
    assert_false(model->failed);
    nimbus_status status =
        nimbus_import_onnx_bytes(model->bytes, model->n, options, net, report, error);
    free(model->bytes);
    *model = (message){0};
    return status;
}

static inline nimbus_net *imported(message *model, const nimbus_import_options *options,
                                   nimbus_import_report *report)
{
    nimbus_net *net;
    nimbus_error error = {0};
    nimbus_status status = try_import(model, options, &net, report, &error);
    if (status != NIMBUS_OK)
        fail_msg("%s: %s", nimbus_status_name(status), error.message);
    return net;
}

/* Outputs of a net for rows; freed with nimbus_free. */
static inline float *outputs_of(const nimbus_net *net, nimbus_dtype dtype, size_t n_rows,
                                const void *rows)
{
    nimbus_net_info info;
    nimbus_data *data;
    nimbus_error error = {0};
    nimbus_net_get_info(net, &info);
    nimbus_data_info shape = {.n_rows = n_rows,
                              .n_features = info.n_inputs,
                              .dtype = dtype,
                              .channels = info.n_inputs,
                              .height = 1,
                              .width = 1};
    float *y = nimbus_alloc(n_rows * info.n_outputs, sizeof *y);
    assert_non_null(y);
    if (nimbus_data_from_arrays(&shape, rows, NULL, NULL, &data, &error) != NIMBUS_OK ||
        nimbus_net_predict(net, data, 1, y, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    nimbus_data_free(data);
    return y;
}

/* Numbers of -2..2; those of one seed are always the same. */
static inline void fill_random(float *values, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(4 * nimbus_random_uniform(seed, 1, i) - 2);
}

/* An initialiser of random numbers. */
static inline void made_random(message *graph, const char *name, size_t rank, const int64_t *dims,
                               uint64_t seed)
{
    size_t n = 1;
    for (size_t i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    float *values = nimbus_alloc(n, sizeof *values);
    assert_non_null(values);
    fill_random(values, n, seed);
    made_floats(graph, name, rank, dims, values);
    nimbus_free(values);
}

#define DIMS(...)                                                                                  \
    (sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                  \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

#endif
