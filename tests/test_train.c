/* test_train.c - src/train: learning, determinism, checkpoints under every kind of interruption
 *
 * The kill test runs this program again as a child ("--child ...") and kills it at random moments;
 * NIMBUS_KILLS sets how often. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
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
static nimbus_data *make_data(size_t n, nimbus_dtype dtype, uint64_t seed)
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

static size_t add(nimbus_net *net, nimbus_layer proto, uint64_t seed)
{
    size_t below = net->n_layers - 1;
    CHECK(nimbus_net_add(net, &proto, &below, net->n_layers > 0, seed, &error));
    return net->n_layers - 1;
}

static void add_input(nimbus_net *net)
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
static void add_trees(nimbus_net *net, size_t units, size_t c, uint64_t seed)
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

static nimbus_net *make_net(net_kind kind, uint64_t seed)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    add_input(net);
    if (kind == WITH_TREES) {
        add_trees(net, 8, 12, seed);
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

static nimbus_buffer net_bytes(const nimbus_net *net)
{
    nimbus_buffer bytes = {0};
    CHECK(nimbus_net_write(net, &bytes, &error));
    return bytes;
}

static void assert_same_net(const nimbus_net *a, const nimbus_net *b)
{
    nimbus_buffer x = net_bytes(a), y = net_bytes(b);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.bytes, y.bytes, x.size);
    nimbus_buffer_free(&x);
    nimbus_buffer_free(&y);
}

static nimbus_train_options small_options(void)
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
static nimbus_train_options rich_options(void)
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
    o.tau = 0.7;
    o.tau_end = 0.4;
    o.table_rate = 0.02;
    return o;
}

static const char *path_of(const char *name)
{
    static char path[300];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Trains a fresh net without interruption. */
static nimbus_net *trained(net_kind kind, const nimbus_data *data, nimbus_train_options o,
                           nimbus_train_report *report)
{
    nimbus_net *net = make_net(kind, 1);
    o.checkpoint = NULL;
    CHECK(nimbus_train(net, data, &o, report, &error));
    return net;
}

/* ---- schedules, optimisers, random numbers --------------------------------------------------- */

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        print_error("%.12g is not within %g of %.12g\n", a, tolerance, b);
    assert_true(fabs(a - b) <= tolerance);
}

static void test_schedules(void **state)
{
    (void)state;
    assert_near(nimbus_schedule_rate(NIMBUS_CONSTANT, 0.1, 0, 0, 10), 0.1, 0);
    assert_near(nimbus_schedule_rate(NIMBUS_CONSTANT, 0.1, 4, 0, 10), 0.025, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_CONSTANT, 0.1, 4, 3, 10), 0.1, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_CONSTANT, 0.1, 4, 9, 10), 0.1, 0);
    assert_near(nimbus_schedule_rate(NIMBUS_COSINE, 0.1, 0, 0, 100), 0.1, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_COSINE, 0.1, 0, 50, 100), 0.05, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_COSINE, 0.1, 0, 25, 100), 0.0853553390593, 1e-12);
    assert_near(nimbus_schedule_rate(NIMBUS_COSINE, 0.1, 20, 9, 100), 0.05, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_COSINE, 0.1, 20, 60, 100), 0.05, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_ONE_CYCLE, 0.1, 0, 0, 100), 0.004, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_ONE_CYCLE, 0.1, 0, 15, 100), 0.052, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_ONE_CYCLE, 0.1, 0, 30, 100), 0.1, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_ONE_CYCLE, 0.1, 0, 65, 100), 0.05, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_ONE_CYCLE, 0.1, 10, 5, 100), 0.052, 1e-15);
    assert_near(nimbus_schedule_rate(NIMBUS_COSINE, 0.1, 500, 9, 10), 0.002, 1e-15);
    assert_near(nimbus_schedule_geometric(0.8, 0.2, 0, 11), 0.8, 1e-15);
    assert_near(nimbus_schedule_geometric(0.8, 0.2, 5, 11), 0.4, 1e-15);
    assert_near(nimbus_schedule_geometric(0.8, 0.2, 10, 11), 0.2, 1e-15);
    assert_near(nimbus_schedule_to_zero(0.3, 0, 4), 0.3, 1e-15);
    assert_near(nimbus_schedule_to_zero(0.3, 1, 4), 0.2, 1e-15);
    assert_near(nimbus_schedule_to_zero(0.3, 3, 4), 0, 0);
    assert_int_equal(nimbus_settings_steps(100, 10), 10);
    assert_int_equal(nimbus_settings_steps(101, 10), 10);
    assert_int_equal(nimbus_settings_steps(102, 10), 11);
    assert_int_equal(nimbus_settings_steps(1, 10), 1);
    assert_int_equal(nimbus_settings_steps(7, 1), 7);
}

/* A net with one linear layer 3 -> 1 and the start [0.5, -1.25, 2], 0.25. */
static nimbus_net *three_weights(void)
{
    nimbus_net *net = nimbus_net_new();
    add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {3, 1, 1}}, 0);
    size_t l = add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 1}, 0);
    nimbus_layer *layer = &net->layers[l];
    memcpy(nimbus_layer_param(layer, "weight")->value, (real[]){0.5, -1.25, 2}, 3 * sizeof(real));
    nimbus_layer_param(layer, "bias")->value[0] = (real)0.25;
    CHECK(nimbus_net_grads(net, &error));
    return net;
}

static void run_optimiser(nimbus_train_options o, size_t n_steps, const double expected[4],
                          double tolerance)
{
    nimbus_net *net = three_weights();
    nimbus_moments *moments;
    CHECK(nimbus_moments_new(net, &o, &moments, &error));
    real *w = nimbus_layer_param(&net->layers[1], "weight")->value;
    real *b = nimbus_layer_param(&net->layers[1], "bias")->value;
    for (size_t k = 0; k < n_steps; k++) {
        real *gw = nimbus_layer_param(&net->layers[1], "weight")->grad;
        real *gb = nimbus_layer_param(&net->layers[1], "bias")->grad;
        for (int i = 0; i < 3; i++)
            assert_true(gw[i] == 0);
        gw[0] = (real)(0.1 * (double)(k + 1));
        gw[1] = (real)(-0.3 + 0.2 * (double)k);
        gw[2] = (real)(1.0 / (double)(k + 1));
        gb[0] = (real)(0.5 - 0.25 * (double)k);
        assert_true(nimbus_moments_step(moments, o.rate, k));
    }
    for (int i = 0; i < 4; i++)
        assert_near(i < 3 ? (double)w[i] : (double)b[0], expected[i], tolerance);
    nimbus_moments_free(moments);
    nimbus_net_free(net);
}

static void test_adamw_by_hand_and_torch(void **state)
{
    (void)state;
    nimbus_train_options o = small_options();
    o.beta1 = 0.9;
    o.beta2 = 0.99;
    o.weight_decay = 0.1;
    o.rate = 0.01;
    o.table_rate = 0.01;
    /* The first step is decay and the sign of the gradient: w (1 - 0.001) -+ 0.01. */
    run_optimiser(o, 1, (double[]){0.4895, -1.23875, 1.988, 0.24}, 2e-7);
    /* torch.optim.AdamW in float64, six steps; no decay of the bias. */
    run_optimiser(o, 6, (double[]){0.439060758, -1.231807575, 1.936632908, 0.226397131}, 1e-6);
}

static void test_sgd_against_torch(void **state)
{
    (void)state;
    nimbus_train_options o = small_options();
    o.optimiser = NIMBUS_SGD;
    o.momentum = 0.9;
    o.weight_decay = 0.1;
    o.rate = o.table_rate = 0.05;
    /* By hand: w (1 - 0.005) - 0.05 g. */
    run_optimiser(o, 1, (double[]){0.4925, -1.22875, 1.94, 0.225}, 2e-7);
    /* torch.optim.SGD in float64 after w *= 1 - 0.005 in each of six steps. */
    run_optimiser(o, 6, (double[]){0.239132464, -1.263273313, 1.490647946, 0.200546500}, 1e-6);
}

static void test_optimiser_sees_nan(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        nimbus_train_options o = small_options();
        nimbus_moments *moments;
        nimbus_net *net = three_weights();
        o.optimiser = kind ? NIMBUS_SGD : NIMBUS_ADAMW;
        o.table_rate = o.rate;
        o.beta1 = 0.9;
        o.beta2 = 0.99;
        CHECK(nimbus_moments_new(net, &o, &moments, &error));
        assert_true(nimbus_moments_step(moments, 0.1, 0));
        nimbus_layer_param(&net->layers[1], "weight")->grad[1] = kind ? INFINITY : NAN;
        assert_false(nimbus_moments_step(moments, 0.1, 1));
        nimbus_moments_free(moments);
        nimbus_net_free(net);
    }
}

static void test_beta_distribution(void **state)
{
    (void)state;
    const double as[] = {0.01, 0.3, 1, 4};
    for (size_t k = 0; k < 4; k++) {
        double sum = 0, squares = 0;
        enum { DRAWS = 4000 };
        for (uint64_t i = 0; i < DRAWS; i++) {
            double x = nimbus_random_beta(as[k], 3, 9, i);
            assert_true(x >= 0 && x <= 1);
            sum += x;
            squares += (x - 0.5) * (x - 0.5);
        }
        assert_near(sum / DRAWS, 0.5, 0.03);
        assert_near(squares / DRAWS, 1 / (4 * (2 * as[k] + 1)), 0.012);
    }
}

/* ---- batches --------------------------------------------------------------------------------- */

static void test_shift_and_flip_move_pixels(void **state)
{
    (void)state;
    nimbus_data *data = make_data(40, NIMBUS_U8, 11);
    nimbus_data *same = make_data(40, NIMBUS_F32, 11);
    const uint8_t *pixels = nimbus_data_features(data);
    nimbus_batches b = {
        .data = data, .width = D, .n_outputs = CLASSES, .shift = 2, .flip = true, .seed = 3};
    static real x[40 * D], target[40 * CLASSES];
    int32_t label[40];
    bool seen[2][5][5] = {{{false}}};
    nimbus_batches_fill(&b, NULL, 0, 40, 17, x, target, label, NULL);
    for (size_t i = 0; i < 40; i++) {
        size_t matches = 0;
        for (int flip = 0; flip < 2; flip++)
            for (int down = -2; down <= 2; down++)
                for (int right = -2; right <= 2; right++) {
                    bool equal = true;
                    for (int y = 0; y < SIDE && equal; y++)
                        for (int c = 0; c < SIDE && equal; c++) {
                            int from_y = y - down, from_c = c - right;
                            bool inside =
                                from_y >= 0 && from_y < SIDE && from_c >= 0 && from_c < SIDE;
                            if (flip)
                                from_c = SIDE - 1 - from_c;
                            real want =
                                inside ? pixels[i * D + (size_t)(from_y * SIDE + from_c)] : 0;
                            equal = x[i * D + (size_t)(y * SIDE + c)] == want;
                        }
                    matches += equal;
                    seen[flip][down + 2][right + 2] |= equal;
                }
        assert_int_equal(matches, 1);
        assert_int_equal(label[i], nimbus_data_labels(data)[i]);
        for (int32_t j = 0; j < CLASSES; j++)
            assert_true(target[i * CLASSES + (size_t)j] == (j == label[i]));
    }
    size_t kinds = 0;
    for (int i = 0; i < 50; i++)
        kinds += (&seen[0][0][0])[i];
    assert_true(kinds > 20);
    /* Floats of whole numbers nearby: the same movements. */
    static real z[40 * D];
    b.data = same;
    nimbus_batches_fill(&b, NULL, 0, 40, 17, z, target, label, NULL);
    for (size_t i = 0; i < 40 * D; i++)
        assert_true((x[i] == 0) == (z[i] < 1) && fabs((double)(z[i] - x[i])) < 1);
    nimbus_data_free(data);
    nimbus_data_free(same);
}

static void test_mixup_and_noise(void **state)
{
    (void)state;
    nimbus_data *data = make_data(30, NIMBUS_F32, 12);
    const float *features = nimbus_data_features(data);
    static real x[30 * D], target[30 * CLASSES], noise[D];
    int32_t label[30];
    nimbus_batches b = {.data = data, .width = D, .n_outputs = CLASSES, .mixup = 1, .seed = 3};
    nimbus_batches_fill(&b, NULL, 0, 30, 2, x, target, label, NULL);
    for (size_t i = 0; i < 30; i++) {
        const float *own = features + i * D, *other = features + (i + 1) % 30 * D;
        double part = ((double)x[i * D] - (double)other[0]) / ((double)own[0] - (double)other[0]);
        double sum = 0;
        for (size_t d = 0; d < D; d++)
            assert_near((double)x[i * D + d], part * (double)own[d] + (1 - part) * (double)other[d],
                        0.05);
        for (size_t j = 0; j < CLASSES; j++)
            sum += (double)target[i * CLASSES + j];
        assert_near(sum, 1, 1e-6);
        assert_int_equal(label[i], nimbus_argmax(target + i * CLASSES, CLASSES));
    }
    double sum = 0, squares = 0;
    for (size_t d = 0; d < D; d++)
        noise[d] = 2;
    b.mixup = 0;
    b.noise = noise;
    nimbus_batches_fill(&b, NULL, 0, 30, 2, x, target, label, NULL);
    for (size_t i = 0; i < 30 * D; i++) {
        double e = (double)(x[i] - features[i]);
        sum += e;
        squares += e * e;
    }
    assert_near(sum / (30 * D), 0, 0.2);
    assert_near(squares / (30 * D), 4, 0.6);
    nimbus_data_free(data);
}

/* ---- learning ---------------------------------------------------------------------------------
 */

static void test_learns(void **state)
{
    (void)state;
    nimbus_data *data = make_data(400, NIMBUS_U8, 1), *test = make_data(200, NIMBUS_U8, 2);
    for (int kind = PLAIN; kind <= LINEAR; kind++) {
        nimbus_train_options o = small_options();
        nimbus_train_report report;
        nimbus_evaluation before, after;
        o.epochs = 8;
        o.valid = test;
        nimbus_net *net = make_net((net_kind)kind, 1);
        CHECK(nimbus_evaluate(net, test, 1, &before, &error));
        CHECK(nimbus_train(net, data, &o, &report, &error));
        CHECK(nimbus_evaluate(net, test, 1, &after, &error));
        assert_true(after.accuracy > 0.97);
        assert_true(after.loss < before.loss / 3);
        assert_int_equal(after.n_correct, lround(after.accuracy * 200));
        assert_near(report.valid_accuracy, after.accuracy, 0);
        assert_int_equal(report.epochs, 8);
        assert_int_equal(report.steps, 8 * 25);
        assert_true(report.train_accuracy > 0.9);
        assert_false(report.resumed);
        nimbus_net_free(net);
    }
    nimbus_data_free(data);
    nimbus_data_free(test);
}

static void test_sgd_and_schedules_learn(void **state)
{
    (void)state;
    nimbus_data *data = make_data(300, NIMBUS_F32, 1);
    for (int schedule = NIMBUS_COSINE; schedule <= NIMBUS_CONSTANT; schedule++) {
        nimbus_train_options o = small_options();
        nimbus_train_report report;
        o.optimiser = NIMBUS_SGD;
        o.schedule = (nimbus_schedule)schedule;
        nimbus_net *net = trained(PLAIN, data, o, &report);
        assert_true(report.train_accuracy > 0.95);
        nimbus_net_free(net);
    }
    nimbus_data_free(data);
}

static void test_regression(void **state)
{
    (void)state;
    enum { N = 200 };
    nimbus_data_info info = {.n_rows = N,
                             .n_features = 3,
                             .dtype = NIMBUS_F32,
                             .channels = 3,
                             .height = 1,
                             .width = 1,
                             .n_targets = 1};
    float x[N * 3], y[N];
    for (size_t i = 0; i < N; i++) {
        for (size_t d = 0; d < 3; d++)
            x[i * 3 + d] = (float)nimbus_random_normal(1, 2, i * 3 + d);
        y[i] = 2 * x[i * 3] - x[i * 3 + 1] + 0.5f * x[i * 3 + 2] + 3;
    }
    nimbus_data *data;
    CHECK(nimbus_data_from_arrays(&info, x, NULL, y, &data, &error));
    nimbus_net *net = three_weights();
    net->loss = NIMBUS_LOSS_SQUARED_ERROR;
    nimbus_train_options o = small_options();
    nimbus_train_report report;
    nimbus_evaluation e;
    o.epochs = 60;
    o.rate = 0.1;
    CHECK(nimbus_train(net, data, &o, &report, &error));
    CHECK(nimbus_evaluate(net, data, 1, &e, &error));
    assert_true(e.loss < 1e-4);
    assert_true(isnan(e.accuracy) && isnan(report.train_accuracy));
    assert_near((double)nimbus_layer_param(&net->layers[1], "bias")->value[0], 3, 0.02);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

static void test_threads_give_same_bits(void **state)
{
    (void)state;
    nimbus_data *data = make_data(333, NIMBUS_U8, 4);
    for (int kind = PLAIN; kind <= WITH_TREES; kind++) {
        nimbus_net *first = NULL;
        for (unsigned threads = 1; threads <= 4; threads++) {
            nimbus_train_options o = rich_options();
            o.batch = 100;
            o.n_threads = threads;
            nimbus_net *net = trained((net_kind)kind, data, o, NULL);
            if (first)
                assert_same_net(first, net);
            else
                first = net;
            if (net != first)
                nimbus_net_free(net);
        }
        nimbus_net_free(first);
    }
    nimbus_data_free(data);
}

static void test_seed_matters(void **state)
{
    (void)state;
    nimbus_data *data = make_data(100, NIMBUS_U8, 4);
    nimbus_train_options o = small_options();
    nimbus_net *a = trained(PLAIN, data, o, NULL);
    o.seed++;
    nimbus_net *b = trained(PLAIN, data, o, NULL);
    nimbus_buffer x = net_bytes(a), y = net_bytes(b);
    assert_true(x.size != y.size || memcmp(x.bytes, y.bytes, x.size) != 0);
    nimbus_buffer_free(&x);
    nimbus_buffer_free(&y);
    nimbus_net_free(a);
    nimbus_net_free(b);
    nimbus_data_free(data);
}

/* Mean KL divergence of the student's softmax from the teacher's. */
static double divergence(const nimbus_net *teacher, const nimbus_net *student,
                         const nimbus_data *data)
{
    size_t n = nimbus_data_get_info(data)->n_rows;
    float *p = nimbus_alloc(n * CLASSES, sizeof *p), *q = nimbus_alloc(n * CLASSES, sizeof *q);
    const nimbus_loss_options loss = {.distill = 1, .temperature = 1};
    float *zeros = nimbus_alloc(n * CLASSES, sizeof *zeros);
    CHECK(nimbus_net_predict(teacher, data, 1, p, &error));
    CHECK(nimbus_net_predict(student, data, 1, q, &error));
    double kl = nimbus_loss_value(&loss, n, CLASSES, q, zeros, p, NULL);
    nimbus_free(p);
    nimbus_free(q);
    nimbus_free(zeros);
    return kl;
}

static void test_distillation(void **state)
{
    (void)state;
    nimbus_data *data = make_data(300, NIMBUS_U8, 4);
    nimbus_net *teacher = trained(PLAIN, data, small_options(), NULL);
    nimbus_train_options o = small_options();
    nimbus_net *student = make_net(LINEAR, 9), *by_rows = make_net(LINEAR, 9);
    double before = divergence(teacher, student, data);
    o.teacher = teacher;
    o.distill = 1;
    o.epochs = 6;
    CHECK(nimbus_train(student, data, &o, NULL, &error));
    assert_true(divergence(teacher, student, data) < before / 10);
    /* The same from the teacher's outputs. */
    float *outputs = nimbus_alloc(300 * CLASSES, sizeof *outputs);
    CHECK(nimbus_net_predict(teacher, data, 1, outputs, &error));
    o.teacher = NULL;
    o.teacher_outputs = outputs;
    CHECK(nimbus_train(by_rows, data, &o, NULL, &error));
    assert_same_net(student, by_rows);
    nimbus_net_free(by_rows);
    /* Running along with rows that change. */
    by_rows = make_net(LINEAR, 9);
    o.teacher = teacher;
    o.teacher_outputs = NULL;
    o.noise = 0.1;
    CHECK(nimbus_train(by_rows, data, &o, NULL, &error));
    assert_true(divergence(teacher, by_rows, data) < before / 10);
    nimbus_free(outputs);
    nimbus_net_free(by_rows);
    nimbus_net_free(student);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Training from the outputs of the input layer is training from the rows. */
static void test_first_layer(void **state)
{
    (void)state;
    enum { N = 200 };
    nimbus_data *data = make_data(N, NIMBUS_U8, 4), *rows;
    nimbus_data_info info = *nimbus_data_get_info(data);
    const uint8_t *pixels = nimbus_data_features(data);
    float *x = nimbus_alloc(N * D, sizeof *x);
    for (size_t i = 0; i < N * D; i++)
        x[i] = ((float)pixels[i] - 128) * (1.0f / 64);
    info.dtype = NIMBUS_F32;
    CHECK(nimbus_data_from_arrays(&info, x, nimbus_data_labels(data), NULL, &rows, &error));
    nimbus_train_options o = small_options();
    nimbus_net *a = trained(WITH_NORM, data, o, NULL);
    o.first_layer = 1;
    nimbus_net *b = trained(WITH_NORM, rows, o, NULL);
    assert_same_net(a, b);
    /* Layers in front are not touched. */
    nimbus_net_free(b);
    info.channels = info.n_features = 16;
    info.height = info.width = 1;
    nimbus_data_free(rows);
    CHECK(nimbus_data_from_arrays(&info, x, nimbus_data_labels(data), NULL, &rows, &error));
    b = make_net(PLAIN, 1);
    nimbus_net *c = make_net(PLAIN, 1);
    o.first_layer = 2;
    CHECK(nimbus_train(b, rows, &o, NULL, &error));
    nimbus_param *before = &c->layers[1].params[0], *after = &b->layers[1].params[0];
    assert_memory_equal(before->value, after->value, before->n * sizeof(real));
    before = &c->layers[3].params[0], after = &b->layers[3].params[0];
    assert_memory_not_equal(before->value, after->value, before->n * sizeof(real));
    nimbus_net_free(a);
    nimbus_net_free(b);
    nimbus_net_free(c);
    nimbus_data_free(rows);
    nimbus_data_free(data);
    nimbus_free(x);
}

/* ---- refusals -----------------------------------------------------------------------------------
 */

static void test_bad_options(void **state)
{
    (void)state;
    nimbus_data *data = make_data(50, NIMBUS_U8, 4);
    nimbus_net *net = make_net(PLAIN, 1), *other = three_weights();
    float outputs[50 * CLASSES] = {0};
#define REFUSED(change, status, text)                                                              \
    do {                                                                                           \
        nimbus_train_options o = small_options();                                                  \
        change;                                                                                    \
        CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), status, text);                      \
    } while (0)
    REFUSED(o.size = 0, NIMBUS_ERR_ARGUMENT, "INIT");
    REFUSED(o.size = 9999, NIMBUS_ERR_ARGUMENT, "9999");
    REFUSED(o.rate = -1, NIMBUS_ERR_ARGUMENT, "rate");
    REFUSED(o.rate = NAN, NIMBUS_ERR_ARGUMENT, "rate");
    REFUSED(o.beta2 = 1, NIMBUS_ERR_ARGUMENT, "beta2");
    REFUSED(o.label_smoothing = 2, NIMBUS_ERR_ARGUMENT, "label_smoothing");
    REFUSED(o.optimiser = (nimbus_optimiser)7, NIMBUS_ERR_ARGUMENT, "optimiser");
    REFUSED(o.shift = SIDE, NIMBUS_ERR_ARGUMENT, "shift");
    REFUSED(o.distill = 0.5, NIMBUS_ERR_ARGUMENT, "teacher");
    REFUSED(o.teacher = other, NIMBUS_ERR_MISMATCH, "teacher");
    REFUSED((o.teacher = net, o.teacher_outputs = outputs), NIMBUS_ERR_ARGUMENT, "both");
    REFUSED((o.teacher_outputs = outputs, o.flip = 1), NIMBUS_ERR_ARGUMENT, "flip");
    REFUSED((o.teacher = net, o.first_layer = 1), NIMBUS_ERR_ARGUMENT, "teacher_outputs");
    REFUSED((o.first_layer = 1, o.flip = 1), NIMBUS_ERR_ARGUMENT, "flip");
    REFUSED(o.first_layer = 99, NIMBUS_ERR_ARGUMENT, "first_layer");
    REFUSED(o.first_layer = 2, NIMBUS_ERR_MISMATCH, "features");
    REFUSED(o.epochs = SIZE_MAX, NIMBUS_ERR_LIMIT, "steps");
    CHECK_FAILS(nimbus_train(other, data, NULL, NULL, &error), NIMBUS_ERR_MISMATCH, "features");
    nimbus_net_free(net);
    nimbus_net_free(other);
    nimbus_data_free(data);
}

static void test_nan_in_data_and_net(void **state)
{
    (void)state;
    nimbus_data *data = make_data(50, NIMBUS_F32, 4);
    nimbus_net *net = make_net(PLAIN, 1);
    nimbus_train_options o = small_options();
    float *features = (float *)(uintptr_t)nimbus_data_features(data);
    float saved = features[7 * D + 5];
    features[7 * D + 5] = NAN;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "row 7, column 5");
    features[7 * D + 5] = -INFINITY;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "infinite");
    features[7 * D + 5] = saved;
    nimbus_layer_param(&net->layers[3], "weight")->value[4] = NAN;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "linear2");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

static int poison_at_step_9(void *user, const nimbus_progress *p)
{
    nimbus_net *net = user;
    if (p->done == 9)
        nimbus_layer_param(&net->layers[1], "bias")->value[3] = NAN;
    return 0;
}

static void test_divergence_is_noticed_and_not_saved(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_F32, 4);
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        nimbus_net *net = make_net(PLAIN, 1);
        nimbus_train_options o = small_options();
        o.progress = poison_at_step_9;
        o.progress_user = net;
        o.checkpoint = checkpoint ? path_of("poison.ck") : NULL;
        o.checkpoint_seconds = 1e-9;
        CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "linear1");
        assert_non_null(strstr(error.message, "epoch 3, step 2 of 4"));
        nimbus_net_free(net);
        if (checkpoint) { /* the file holds the state after step 9, and goes on from there */
            nimbus_train_report report;
            nimbus_train_options again = small_options();
            again.checkpoint = o.checkpoint;
            net = make_net(PLAIN, 1);
            CHECK(nimbus_train(net, data, &again, &report, &error));
            assert_true(report.resumed);
            nimbus_net *whole = trained(PLAIN, data, small_options(), NULL);
            assert_same_net(whole, net);
            nimbus_net_free(whole);
            nimbus_net_free(net);
        }
    }
    /* A rate far too high. */
    nimbus_net *net = make_net(PLAIN, 1);
    nimbus_train_options o = small_options();
    o.optimiser = NIMBUS_SGD;
    o.schedule = NIMBUS_CONSTANT;
    o.rate = 1e6;
    o.epochs = 100;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "layer linear");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* ---- progress and cancel --------------------------------------------------------------------- */

static int count_calls(void *user, const nimbus_progress *p)
{
    size_t *calls = user;
    assert_string_equal(p->stage, "train");
    assert_true(p->done == (double)*calls);
    assert_true(p->total == 12);
    assert_int_equal(p->epoch, *calls / 4 + 1);
    assert_int_equal(p->n_epochs, 3);
    assert_true(*calls == 0 ? p->seconds_left < 0 : p->seconds_left >= 0);
    assert_true(isnan(p->loss) == (*calls == 0));
    assert_true(isnan(p->valid_accuracy) == (*calls < 4));
    ++*calls;
    return 0;
}

static void test_progress(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    nimbus_train_options o = small_options();
    size_t calls = 0;
    o.valid = data;
    o.progress = count_calls;
    o.progress_user = &calls;
    nimbus_net_free(trained(PLAIN, data, o, NULL));
    assert_int_equal(calls, 12);
    nimbus_data_free(data);
}

static int stop_at(void *user, const nimbus_progress *p)
{
    return p->done == *(double *)user;
}

/* Cancels at the given steps one after another, each time beginning anew with a fresh net (or the
 * same one), and compares the end with an uninterrupted run. */
static void cancel_and_resume(net_kind kind, const nimbus_data *data, const double *stops,
                              size_t n_stops, bool fresh)
{
    nimbus_train_options o = rich_options();
    nimbus_train_report report;
    nimbus_net *whole = trained(kind, data, o, NULL), *net = make_net(kind, 1);
    o.checkpoint = path_of("cancel.ck");
    o.checkpoint_seconds = 1e9;
    o.progress = stop_at;
    for (size_t i = 0; i <= n_stops; i++) {
        double stop = i < n_stops ? stops[i] : -1;
        o.progress_user = &stop;
        o.n_threads = (unsigned)(1 + i % 2);
        if (fresh) {
            nimbus_net_free(net);
            net = make_net(kind, 1);
        }
        if (i < n_stops) {
            CHECK_FAILS(nimbus_train(net, data, &o, &report, &error), NIMBUS_ERR_CANCELLED, "step");
            assert_int_equal(report.steps, (size_t)stop);
            assert_true(nimbus_file_exists(o.checkpoint));
        } else {
            CHECK(nimbus_train(net, data, &o, &report, &error));
            assert_true(report.resumed || n_stops == 0);
        }
    }
    assert_false(nimbus_file_exists(o.checkpoint));
    assert_same_net(whole, net);
    nimbus_net_free(whole);
    nimbus_net_free(net);
}

static void test_cancel_and_resume(void **state)
{
    (void)state;
    nimbus_data *data = make_data(75, NIMBUS_U8, 4); /* 5 steps an epoch, 15 in all */
    for (int kind = PLAIN; kind <= WITH_TREES; kind++) {
        for (uint64_t round = 0; round < 15; round++)
            cancel_and_resume((net_kind)kind, data, (double[]){(double)round}, 1, true);
        for (uint64_t round = 0; round < 10; round++) {
            double stops[3], at = 0;
            size_t n = 0;
            for (uint64_t i = 0; i < 3; i++) {
                at += 1 + (double)nimbus_random_below(round, 1, i, 5);
                if (at < 15)
                    stops[n++] = at;
            }
            cancel_and_resume((net_kind)kind, data, stops, n, round % 2 == 0);
        }
    }
    nimbus_data_free(data);
}

/* ---- checkpoints -------------------------------------------------------------------------------
 */

/* Leaves the checkpoint of a cancelled training of a fresh PLAIN net at path and returns it. */
static nimbus_buffer make_checkpoint(const nimbus_data *data, const char *path, double step)
{
    nimbus_net *net = make_net(LINEAR, 1);
    nimbus_train_options o = small_options();
    nimbus_buffer file;
    (void)remove(path);
    o.checkpoint = path;
    o.checkpoint_seconds = 1e9;
    o.progress = stop_at;
    o.progress_user = &step;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_CANCELLED, "");
    CHECK(nimbus_file_read(path, SIZE_MAX, &file, &error));
    nimbus_net_free(net);
    return file;
}

static void test_damaged_checkpoints(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    const char *path = path_of("damaged.ck");
    nimbus_buffer file = make_checkpoint(data, path, 2);
    nimbus_checkpoint c;
    CHECK(nimbus_checkpoint_parse(file.bytes, file.size, &c, &error));
    assert_int_equal(c.state.step, 2);
    for (size_t n = 0; n < file.size; n++)
        assert_int_not_equal(nimbus_checkpoint_parse(file.bytes, n, &c, &error), NIMBUS_OK);
    for (size_t bit = 0; bit < 8 * file.size; bit++) {
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(nimbus_checkpoint_parse(file.bytes, file.size, &c, &error), NIMBUS_OK);
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    /* Through the trainer: refused, named, left where it is, and the net is untouched. */
    nimbus_train_options o = small_options();
    o.checkpoint = path;
    for (size_t i = 0; i < 20; i++) {
        nimbus_net *net = make_net(LINEAR, 1), *same = make_net(LINEAR, 1);
        size_t at = i * file.size / 20, size = i % 2 ? file.size : at;
        file.bytes[at] ^= 4;
        CHECK(nimbus_file_write(path, file.bytes, size, &error));
        nimbus_status status = nimbus_train(net, data, &o, NULL, &error);
        assert_true(status == NIMBUS_ERR_FORMAT || status == NIMBUS_ERR_CHECKSUM ||
                    status == NIMBUS_ERR_TRUNCATED || status == NIMBUS_ERR_VERSION);
        assert_non_null(strstr(error.message, "damaged.ck"));
        assert_non_null(strstr(error.message, "delete the file"));
        assert_true(nimbus_file_exists(path));
        assert_same_net(net, same);
        file.bytes[at] ^= 4;
        nimbus_net_free(net);
        nimbus_net_free(same);
    }
    nimbus_buffer_free(&file);
    nimbus_data_free(data);
}

static void test_foreign_checkpoints(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4), *other = make_data(64, NIMBUS_U8, 5);
    nimbus_data *more = make_data(80, NIMBUS_U8, 4);
    const char *path = path_of("foreign.ck");
    nimbus_buffer file = make_checkpoint(data, path, 2);
    float outputs[64 * CLASSES] = {0};
#define FOREIGN(net_of, rows, change, text)                                                        \
    do {                                                                                           \
        nimbus_train_options o = small_options();                                                  \
        nimbus_net *net = net_of;                                                                  \
        o.checkpoint = path;                                                                       \
        change;                                                                                    \
        CHECK_FAILS(nimbus_train(net, rows, &o, NULL, &error), NIMBUS_ERR_MISMATCH, text);         \
        assert_non_null(strstr(error.message, "foreign.ck"));                                      \
        assert_true(nimbus_file_exists(path));                                                     \
        nimbus_net_free(net);                                                                      \
    } while (0)
    FOREIGN(make_net(LINEAR, 1), data, o.epochs = 4, "\"epochs 3\", now it is \"epochs 4\"");
    FOREIGN(make_net(LINEAR, 1), data, o.seed = 6, "seed 5");
    FOREIGN(make_net(LINEAR, 1), data, o.batch = 17, "batch 17");
    FOREIGN(make_net(LINEAR, 1), data, o.rate = 0.011, "rate 0.01");
    FOREIGN(make_net(LINEAR, 1), data, o.shift = 1, "shift");
    FOREIGN(make_net(LINEAR, 1), data, o.weight_decay = 0.5, "weight_decay 0.5");
    FOREIGN(make_net(LINEAR, 1), data, o.optimiser = NIMBUS_SGD, "optimiser");
    FOREIGN(make_net(LINEAR, 1), data, o.teacher_outputs = outputs, "distill");
    FOREIGN(make_net(LINEAR, 1), other, (void)0, "data-features");
    FOREIGN(make_net(LINEAR, 1), more, (void)0, "data-shape");
    FOREIGN(make_net(PLAIN, 1), data, (void)0, "layers");
    FOREIGN(make_net(LINEAR, 2), data, (void)0, "the net to train");
    /* What does not shape the result may change. */
    nimbus_train_options o = small_options();
    nimbus_train_report report;
    nimbus_net *net = make_net(LINEAR, 1), *whole = trained(LINEAR, data, o, NULL);
    o.checkpoint = path;
    o.n_threads = 2;
    o.checkpoint_seconds = 5;
    o.valid = other;
    CHECK(nimbus_train(net, data, &o, &report, &error));
    assert_true(report.resumed);
    assert_same_net(whole, net);
    nimbus_net_free(net);
    nimbus_net_free(whole);
    nimbus_buffer_free(&file);
    nimbus_data_free(data);
    nimbus_data_free(other);
    nimbus_data_free(more);
}

/* Rebuilds a checkpoint around changed parts, so that all checksums fit. */
static void test_hostile_checkpoints(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    const char *path = path_of("hostile.ck");
    nimbus_buffer file = make_checkpoint(data, path, 6);
    for (int i = 0; i < 12; i++) {
        nimbus_checkpoint c;
        nimbus_buffer changed = {0};
        nimbus_net *net = make_net(LINEAR, 1), *same = make_net(LINEAR, 1);
        nimbus_train_options o = small_options();
        CHECK(nimbus_checkpoint_parse(file.bytes, file.size, &c, &error));
        if (i == 0)
            c.state.epoch = 3;
        else if (i == 1)
            c.state.cursor = UINT64_MAX;
        else if (i == 2)
            c.state.step = 7;
        else if (i == 3)
            c.state.n_seen = UINT64_MAX;
        else if (i == 4)
            c.state.loss_sum = NAN;
        else if (i == 5)
            c.moments_size -= 4;
        else if (i == 6)
            c.moments_size = 3;
        else if (i == 7)
            c.net_size /= 2;
        else if (i == 8)
            c.net_size = 0;
        else if (i == 9)
            c.fingerprint_size = 0;
        else if (i == 10)
            c.fingerprint_size--;
        else
            c.state.seconds = NAN;
        CHECK(nimbus_checkpoint_write(&c, &changed, &error));
        CHECK(nimbus_file_write(path, changed.bytes, changed.size, &error));
        o.checkpoint = path;
        assert_int_not_equal(nimbus_train(net, data, &o, NULL, &error), NIMBUS_OK);
        assert_non_null(strstr(error.message, "hostile.ck"));
        assert_same_net(net, same);
        nimbus_buffer_free(&changed);
        nimbus_net_free(net);
        nimbus_net_free(same);
    }
    (void)remove(path);
    nimbus_buffer_free(&file);
    nimbus_data_free(data);
}

/* Every k-th file call fails: an error, and the checkpoint of before is whole. */
static void test_failing_file_calls(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    char path[300];
    (void)snprintf(path, sizeof path, "%s", path_of("failing.ck"));
    nimbus_net *whole = trained(LINEAR, data, small_options(), NULL);
    bool failed = true;
    size_t failures = 0;
    for (long k = 1; failed; k++) {
        nimbus_buffer before = make_checkpoint(data, path, 3);
        nimbus_train_options o = small_options();
        nimbus_net *net = make_net(LINEAR, 1);
        o.checkpoint = path;
        o.checkpoint_seconds = 1e9; /* one more write, at the end of the first epoch */
        o.epochs = 3;
        nimbus_fail_file_call_after = k;
        nimbus_status status = nimbus_train(net, data, &o, NULL, &error);
        failed = nimbus_fail_file_call_after == 0;
        nimbus_fail_file_call_after = 0;
        if (failed) {
            assert_int_equal(status, NIMBUS_ERR_IO);
            assert_non_null(strstr(error.message, "failing.ck"));
            nimbus_buffer after;
            nimbus_checkpoint c;
            CHECK(nimbus_file_read(path, SIZE_MAX, &after, &error));
            CHECK(nimbus_checkpoint_parse(after.bytes, after.size, &c, &error));
            assert_true(c.state.step >= 3);
            nimbus_buffer_free(&after);
            nimbus_net_free(net);
            net = make_net(LINEAR, 1);
            CHECK(nimbus_train(net, data, &o, NULL, &error));
            failures++;
        }
        assert_same_net(whole, net);
        nimbus_net_free(net);
        nimbus_buffer_free(&before);
    }
    assert_true(failures >= 8);
    nimbus_net_free(whole);
    nimbus_data_free(data);
}

/* Every k-th allocation fails: an error, nothing lost, nothing leaked. */
static void test_failing_allocations(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    char path[300];
    (void)snprintf(path, sizeof path, "%s", path_of("memory.ck"));
    nimbus_net *teacher = make_net(PLAIN, 3);
    nimbus_train_options o = rich_options();
    o.teacher = teacher;
    o.valid = data;
    o.checkpoint = path;
    nimbus_net *whole = trained(WITH_NORM, data, o, NULL);
    nimbus_status status = NIMBUS_ERR_MEMORY;
    for (long k = 1; status != NIMBUS_OK; k++) {
        nimbus_net *net = make_net(WITH_NORM, 1);
        (void)remove(path);
        nimbus_fail_alloc_after = k;
        status = nimbus_train(net, data, &o, NULL, &error);
        bool failed = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
        if (status == NIMBUS_OK)
            assert_same_net(whole, net);
        nimbus_net_free(net);
    }
    (void)remove(path);
    nimbus_net_free(teacher);
    nimbus_net_free(whole);
    nimbus_data_free(data);
}

/* ---- kill -9 ------------------------------------------------------------------------------------
 */

/* What the child does: train with a checkpoint after every step, then save the net. */
static int child(const char *checkpoint, const char *net_path)
{
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *net = make_net(WITH_NORM, 1);
    nimbus_train_options o = rich_options();
    o.epochs = 6;
    o.checkpoint = checkpoint;
    o.checkpoint_seconds = 1e-9;
    nimbus_status status = nimbus_train(net, data, &o, NULL, &error);
    if (status == NIMBUS_OK)
        status = nimbus_net_save(net, net_path, &error);
    if (status != NIMBUS_OK)
        (void)fprintf(stderr, "child: %s\n", error.message);
    nimbus_net_free(net);
    nimbus_data_free(data);
    return status == NIMBUS_OK ? 0 : 3;
}

/* Starts a child and kills it after a random part of `span` seconds, unless span is 0. Returns
 * whether it was killed. */
static bool run_child(const char *checkpoint, const char *result, uint64_t round, double span)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_train", "--child", checkpoint, result, (char *)NULL);
        _exit(127);
    }
    if (span > 0) {
        double seconds = span * nimbus_random_uniform(1, 1, round);
        struct timespec wait = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)(1e9 * (seconds - floor(seconds)))};
        (void)nanosleep(&wait, NULL);
        (void)kill(pid, SIGKILL);
    }
    int how = 0;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    if (WIFSIGNALED(how)) {
        assert_int_equal(WTERMSIG(how), SIGKILL);
        return true;
    }
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    return false;
}

/* Step of the checkpoint, which must be whole; 0 without one. */
static uint64_t step_of_checkpoint(const char *path)
{
    nimbus_buffer file;
    nimbus_checkpoint c;
    if (!nimbus_file_exists(path))
        return 0;
    CHECK(nimbus_file_read(path, SIZE_MAX, &file, &error));
    CHECK(nimbus_checkpoint_parse(file.bytes, file.size, &c, &error));
    nimbus_buffer_free(&file);
    return c.state.step;
}

static void test_kill(void **state)
{
    (void)state;
    const char *wanted = getenv("NIMBUS_KILLS");
    long kills_wanted = wanted ? atol(wanted) : 20, kills = 0, finished = 0, unsaved = 0;
    char checkpoint[300], result[300];
    (void)snprintf(checkpoint, sizeof checkpoint, "%s", path_of("kill.ck"));
    (void)snprintf(result, sizeof result, "%s", path_of("kill.net"));
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_train_options o = rich_options();
    o.epochs = 6;
    nimbus_net *whole = trained(WITH_NORM, data, o, NULL);
    double span = 0.03; /* adapts, so that kills fall between a child's start and its end */
    uint64_t step = 0;
    for (uint64_t round = 0; kills < kills_wanted || finished == 0; round++) {
        bool killed = run_child(checkpoint, result, round, kills < kills_wanted ? span : 0);
        if (killed && !nimbus_file_exists(result)) {
            uint64_t now = step_of_checkpoint(checkpoint);
            /* Nothing that was written is lost, but for the instant between the removal of the
             * checkpoint at the end and the saving of the net. */
            unsaved += now < step;
            assert_true(now >= step || (now == 0 && unsaved <= 1 + kills / 50));
            span *= now > step ? 1 : 1.2;
            kills += now > 0;
            step = now;
            continue;
        }
        /* The child ended, or was killed between saving its net and ending. */
        nimbus_net *net;
        CHECK(nimbus_net_load(result, &net, &error));
        assert_same_net(whole, net);
        assert_false(nimbus_file_exists(checkpoint));
        nimbus_net_free(net);
        assert_int_equal(remove(result), 0);
        finished++;
        span *= 0.8;
        step = 0;
    }
    print_message("%ld kills in training, %ld runs ended, all with the same bits\n", kills,
                  finished);
    nimbus_net_free(whole);
    nimbus_data_free(data);
}

/* ---- all together ---------------------------------------------------------------------------- */

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%.150s/nimbus-train-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[300];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_adamw_by_hand_and_torch),
        cmocka_unit_test(test_sgd_against_torch),
        cmocka_unit_test(test_optimiser_sees_nan),
        cmocka_unit_test(test_beta_distribution),
        cmocka_unit_test(test_shift_and_flip_move_pixels),
        cmocka_unit_test(test_mixup_and_noise),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_sgd_and_schedules_learn),
        cmocka_unit_test(test_regression),
        cmocka_unit_test(test_threads_give_same_bits),
        cmocka_unit_test(test_seed_matters),
        cmocka_unit_test(test_distillation),
        cmocka_unit_test(test_first_layer),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_nan_in_data_and_net),
        cmocka_unit_test(test_divergence_is_noticed_and_not_saved),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_cancel_and_resume),
        cmocka_unit_test(test_damaged_checkpoints),
        cmocka_unit_test(test_foreign_checkpoints),
        cmocka_unit_test(test_hostile_checkpoints),
        cmocka_unit_test(test_failing_file_calls),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
