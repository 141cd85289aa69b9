/* import_same.h - two ONNX models, in different words, must compute the same */
#ifndef NIMBUS_IMPORT_SAME_H
#define NIMBUS_IMPORT_SAME_H

#include <math.h>

#include "import_helpers.h"

/* Adds nodes that make "y" of "x". */
typedef void make_fn(message *graph);

static inline void assert_near(const float *a, const float *b, size_t n, const char *what)
{
    double scale = 0, difference = 0;
    for (size_t i = 0; i < n; i++) {
        scale = fmax(scale, fabs((double)b[i]));
        difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
    }
    if (!(difference <= 1e-5 * scale))
        fail_msg("%s: %g of %g", what, difference, scale);
}

static inline float *run_made(make_fn *make, uint64_t opset, size_t rank, const int64_t *dims,
                              size_t *n)
{
    message graph = {0};
    nimbus_import_options options = NIMBUS_IMPORT_OPTIONS_INIT;
    nimbus_net_info info;
    options.keep_softmax = 1;
    make(&graph);
    message model = made_model(&graph, opset, "x", rank, dims, "y");
    nimbus_net *net = imported(&model, &options, NULL);
    nimbus_net_get_info(net, &info);
    float *x = nimbus_alloc(IMPORT_ROWS * info.n_inputs, sizeof *x);
    assert_non_null(x);
    fill_random(x, IMPORT_ROWS * info.n_inputs, 99);
    float *y = outputs_of(net, NIMBUS_F32, IMPORT_ROWS, x);
    *n = IMPORT_ROWS * info.n_outputs;
    nimbus_net_free(net);
    nimbus_free(x);
    return y;
}

/* The same outputs from both models, which read rows of these dimensions. */
static inline void assert_same(const char *what, size_t rank, const int64_t *dims, uint64_t opset_a,
                               make_fn *a, uint64_t opset_b, make_fn *b)
{
    size_t n_a, n_b;
    float *y_a = run_made(a, opset_a, rank, dims, &n_a);
    float *y_b = run_made(b, opset_b, rank, dims, &n_b);
    assert_int_equal(n_a, n_b);
    assert_near(y_a, y_b, n_a, what);
    nimbus_free(y_a);
    nimbus_free(y_b);
}

#endif
