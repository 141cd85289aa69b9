/* train_problem.h - small data sets, nets and options for the tests of training */
#ifndef TRAIN_PROBLEM_H
#define TRAIN_PROBLEM_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/lookup.h"
#include "train/checkpoint.h"
#include "train/train.h"

static nimbus_error error;
static char folder[200];

#define CHECK(call)                                                                                \
    do {                                                                                           \
        error.message[0] = '\0';                                                                   \
        nimbus_status status_ = (call);                                                            \
        if (status_ != NIMBUS_OK)                                                                  \
            print_error("%s: %s\n", nimbus_status_name(status_), error.message);                   \
        assert_int_equal(status_, NIMBUS_OK);                                                      \
    } while (0)

#define CHECK_FAILS(call, expected, text)                                                          \
    do {                                                                                           \
        error.message[0] = '\0';                                                                   \
        assert_int_equal(call, expected);                                                          \
        if (!strstr(error.message, text))                                                          \
            print_error("message \"%s\" lacks \"%s\"\n", error.message, text);                     \
        assert_non_null(strstr(error.message, text));                                              \
    } while (0)

/* ---- small problems ------------------------------------------------------------------------ */

enum { SIDE = 6, D = SIDE * SIDE, CLASSES = 3 };

/* Images of SIDE x SIDE: each class is a random pattern of its own, plus noise. */
static inline nimbus_data *make_data(size_t n, nimbus_dtype dtype, uint64_t seed)
{
    nimbus_data_info info = {.n_rows = n,
                             .n_features = D,
                             .dtype = dtype,
                             .channels = 1,
                             .height = SIDE,
                             .width = SIDE,
                             .n_classes = CLASSES};
    uint8_t *u8 = nimbus_alloc(n * D, 1);
    float *f32 = nimbus_alloc(n * D, sizeof *f32);
    int32_t *labels = nimbus_alloc(n, sizeof *labels);
    nimbus_data *data;
    for (size_t i = 0; i < n; i++) {
        labels[i] = (int32_t)nimbus_random_below(seed, 1, i, CLASSES);
        for (size_t d = 0; d < D; d++) {
            double centre = 200 * nimbus_random_uniform(7, (uint64_t)labels[i], d);
            double value = centre + 55 * nimbus_random_uniform(seed, 2, i * D + d);
            f32[i * D + d] = (float)value;
            u8[i * D + d] = (uint8_t)value;
        }
    }
    CHECK(nimbus_data_from_arrays(&info, dtype == NIMBUS_U8 ? (void *)u8 : f32, labels, NULL, &data,
                                  &error));
    nimbus_free(u8);
    nimbus_free(f32);
    nimbus_free(labels);
    return data;
}

static inline size_t add(nimbus_net *net, nimbus_layer proto, uint64_t seed)
{
    size_t below = net->n_layers - 1;
    CHECK(nimbus_net_add(net, &proto, &below, net->n_layers > 0, seed, &error));
    return net->n_layers - 1;
}

static inline void add_input(nimbus_net *net)
{
    size_t l =
        add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {1, SIDE, SIDE}}, 0);
    for (size_t d = 0; d < D; d++) {
        nimbus_layer_param(&net->layers[l], "mean")->value[d] = 128;
        nimbus_layer_param(&net->layers[l], "inverse_std")->value[d] = (real)(1.0 / 64);
    }
}

typedef enum net_kind { PLAIN, WITH_NORM, WITH_TREES, LINEAR } net_kind;

/* A lookup layer from birth in state SOFT, quantised to 8 bits. */
static inline void add_trees(nimbus_net *net, size_t units, size_t c, uint64_t seed)
{
    size_t l =
        add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = units, .bare = true}, seed);
    nimbus_layer *layer = &net->layers[l];
    CHECK(nimbus_lookup_attach(layer, c, 3, NIMBUS_TREE_PER_NODE, &error));
    layer->lookup->bits = 8;
    for (size_t p = 0; p < layer->n_params; p++) {
        nimbus_param *param = &layer->params[p];
        for (size_t i = 0; i < param->n; i++) {
            double u = nimbus_random_uniform(seed, 100 + p, i);
            if (strcmp(param->name, "columns") == 0)
                param->value[i] = (real)floor(u * (double)nimbus_shape_width(layer->in_shape));
            else if (strcmp(param->name, "margin") == 0)
                param->value[i] = 1;
            else if (strcmp(param->name, "scales") == 0)
                param->value[i] = (real)0.02;
            else
                param->value[i] = (real)(u - 0.5);
        }
    }
    CHECK(nimbus_net_set_state(net, l, NIMBUS_STATE_LOOKUP, &error));
    CHECK(nimbus_net_set_state(net, l, NIMBUS_STATE_SOFT, &error));
}

static inline nimbus_net *make_net(net_kind kind, uint64_t seed)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    add_input(net);
    if (kind == WITH_TREES) {
        add_trees(net, 8, 32, seed); /* enough for code noise */
        add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm}, seed);
        add_trees(net, CLASSES, 6, seed + 1);
        return net;
    }
    if (kind != LINEAR) {
        add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 16}, seed);
        if (kind == WITH_NORM)
            add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm, .number = 1e-5}, seed);
        add(net, (nimbus_layer){.type = &nimbus_layer_relu}, seed);
        if (kind == WITH_NORM)
            add(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.2}, seed);
    }
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES}, seed + 1);
    return net;
}

static inline nimbus_buffer net_bytes(const nimbus_net *net)
{
    nimbus_buffer bytes = {0};
    CHECK(nimbus_net_write(net, &bytes, &error));
    return bytes;
}

static inline void assert_same_net(const nimbus_net *a, const nimbus_net *b)
{
    nimbus_buffer x = net_bytes(a), y = net_bytes(b);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.bytes, y.bytes, x.size);
    nimbus_buffer_free(&x);
    nimbus_buffer_free(&y);
}

static inline nimbus_train_options small_options(void)
{
    nimbus_train_options o = NIMBUS_TRAIN_OPTIONS_INIT;
    o.epochs = 3;
    o.batch = 16;
    o.rate = 0.01;
    o.seed = 5;
    o.n_threads = 1;
    return o;
}

/* Options that use everything random there is. */
static inline nimbus_train_options rich_options(void)
{
    nimbus_train_options o = small_options();
    o.weight_decay = 0.01;
    o.label_smoothing = 0.1;
    o.mixup = 0.3;
    o.noise = 0.2;
    o.shift = 1;
    o.flip = 1;
    o.warmup_steps = 5;
    o.margin_noise = 0.3;
    o.code_noise = 0.1;
    o.tau = 0.7;
    o.tau_end = 0.4;
    o.table_rate = 0.02;
    return o;
}

static inline const char *path_of(const char *name)
{
    static char path[300];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Trains a fresh net without interruption. */
static inline nimbus_net *trained(net_kind kind, const nimbus_data *data, nimbus_train_options o,
                                  nimbus_train_report *report)
{
    nimbus_net *net = make_net(kind, 1);
    o.checkpoint = NULL;
    CHECK(nimbus_train(net, data, &o, report, &error));
    return net;
}

static inline void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        print_error("%.12g is not within %g of %.12g\n", a, tolerance, b);
    assert_true(fabs(a - b) <= tolerance);
}

/* A folder for the files of one test program, made before its tests and removed after them. */
static inline int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%.150s/nimbus-train-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[300];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

#endif
