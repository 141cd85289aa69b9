/* test_image.c - the layers of image nets: their attributes, kernels, threads, and learning */
#include <math.h>

#include "net/conv.h"
#include "net_maker.h"

/* ---- kernels ----------------------------------------------------------------------------- */

enum { PLANES = 5, TAPS = 7, SIZE = 90, ROOM = 128 };

static void fill(real *values, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        values[i] = (real)nimbus_random_normal(9, stream, i);
}

static void assert_near(real found, double expected)
{
    if (!(fabs((double)found - expected) <= 1e-5 * (1 + fabs(expected))))
        fail_msg("%.9g instead of %.9g", (double)found, expected);
}

static const size_t offsets[TAPS] = {0, 1, 2, 9, 11, 20, 33};

/* Sums for every number of positions, so for all remainders. */
static void check_sums(const struct nimbus_conv_kernels *kernels, size_t n_sums)
{
    real src[PLANES * SIZE + NIMBUS_CONV_SLACK], weight[PLANES * TAPS * NIMBUS_CONV_BLOCK];
    real out[NIMBUS_CONV_BLOCK * ROOM];
    fill(src, sizeof src / sizeof *src, 1);
    fill(weight, sizeof weight / sizeof *weight, 2);
    for (size_t n = 1; n <= SIZE - 33; n++) {
        struct nimbus_conv_sum a = {src, SIZE, PLANES, TAPS, offsets, weight, out, ROOM, n, n_sums};
        kernels->sum(&a);
        for (size_t b = 0; b < n_sums; b++)
            for (size_t p = 0; p < n; p++) {
                double sum = 0;
                for (size_t i = 0; i < PLANES * TAPS; i++)
                    sum += (double)weight[i * NIMBUS_CONV_BLOCK + b] *
                           (double)src[i / TAPS * SIZE + offsets[i % TAPS] + p];
                assert_near(out[b * ROOM + p], sum);
            }
    }
}

static void check_products(const struct nimbus_conv_kernels *kernels, size_t n_vectors)
{
    enum { HEIGHT = 4, WIDTH = 5, PITCH = 9, MOST = 48, IMAGES = 3 };
    enum { POSITIONS = HEIGHT * WIDTH, IMAGE = PLANES * SIZE + 7 };
    real src[IMAGES * IMAGE], dy[IMAGES * POSITIONS * MOST], out[PLANES * TAPS * MOST];
    size_t m_padded = n_vectors * kernels->lanes;
    fill(src, sizeof src / sizeof *src, 1);
    fill(dy, sizeof dy / sizeof *dy, 2);
    for (size_t i = 0; i < PLANES * TAPS * MOST; i++)
        out[i] = 1; /* is added to */
    struct nimbus_conv_product a = {src,    SIZE,  PLANES, TAPS,   offsets, dy, m_padded,
                                    HEIGHT, WIDTH, PITCH,  IMAGES, IMAGE,   out};
    kernels->product(&a);
    for (size_t i = 0; i < PLANES * TAPS; i++)
        for (size_t m = 0; m < m_padded; m++) {
            double sum = 1;
            for (size_t p = 0; p < IMAGES * POSITIONS; p++) {
                size_t in_image = p % POSITIONS;
                sum += (double)dy[p * m_padded + m] *
                       (double)src[p / POSITIONS * IMAGE + i / TAPS * SIZE + offsets[i % TAPS] +
                                   in_image / WIDTH * PITCH + in_image % WIDTH];
            }
            assert_near(out[i * m_padded + m], sum);
        }
}

static void check_dots(const struct nimbus_conv_kernels *kernels)
{
    real src[PLANES * SIZE + NIMBUS_CONV_SLACK], dy[ROOM] = {0}, out[PLANES * TAPS];
    fill(src, sizeof src / sizeof *src, 1);
    for (size_t n = 1; n <= SIZE - 33; n++) {
        fill(dy, n, 2);
        memset(out, 0, sizeof out);
        struct nimbus_conv_dot a = {src, SIZE, PLANES, TAPS, offsets, dy, n, out};
        kernels->dot(&a);
        for (size_t i = 0; i < PLANES * TAPS; i++) {
            double sum = 0;
            for (size_t p = 0; p < n; p++)
                sum += (double)dy[p] * (double)src[i / TAPS * SIZE + offsets[i % TAPS] + p];
            assert_near(out[i], sum);
        }
    }
}

static void test_kernels(void **state)
{
    (void)state;
    size_t n = 0;
    for (const struct nimbus_conv_kernels *k; (k = nimbus_conv_kernels(n)); n++) {
        for (size_t n_sums = 1; n_sums <= NIMBUS_CONV_BLOCK; n_sums++)
            check_sums(k, n_sums);
        for (size_t n_vectors = 1; n_vectors <= 3; n_vectors++)
            check_products(k, n_vectors);
        check_dots(k);
        if (n > 0)
            assert_true(k->lanes < nimbus_conv_kernels(n - 1)->lanes);
    }
    assert_true(n >= 1);
}

/* ---- attributes -------------------------------------------------------------------------- */

/* Adds the layer to an input of the given shape and tells what comes of it. */
static nimbus_status try_layer(nimbus_layer proto, nimbus_shape in, nimbus_shape *out,
                               nimbus_error *error)
{
    nimbus_net *net = nimbus_net_new();
    size_t first = 0;
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = in});
    nimbus_status status = nimbus_net_add(net, &proto, &first, 1, 1, error);
    *out = status == NIMBUS_OK ? net->layers[1].shape : (nimbus_shape){0, 0, 0};
    nimbus_net_free(net);
    return status;
}

static void refuse(nimbus_layer proto, nimbus_shape in, nimbus_status expected, const char *words)
{
    nimbus_error error;
    nimbus_shape shape;
    nimbus_status status = try_layer(proto, in, &shape, &error);
    if (status != expected || !strstr(error.message, words))
        fail_msg("%s: %s, expected %s: ...%s...", nimbus_status_name(status),
                 status == NIMBUS_OK ? "" : error.message, nimbus_status_name(expected), words);
    assert_non_null(strstr(error.message, "layer "));
}

static void accept(nimbus_layer proto, nimbus_shape in, nimbus_shape expected)
{
    nimbus_error error;
    nimbus_shape shape;
    ok(try_layer(proto, in, &shape, &error), &error);
    if (memcmp(&shape, &expected, sizeof shape) != 0)
        fail_msg("%s: %zu x %zu x %zu, expected %zu x %zu x %zu", proto.type->name, shape.channels,
                 shape.height, shape.width, expected.channels, expected.height, expected.width);
}

static void test_conv2d_attributes(void **state)
{
    (void)state;
    const nimbus_shape in = {4, 7, 6};
    const nimbus_layer good = {.type = &nimbus_layer_conv2d,
                               .units = 6,
                               .slide = {.kernel = {3, 2}, .stride = {2, 1}, .before = {1, 0}}};
    accept(good, in, (nimbus_shape){6, 3, 5});
    nimbus_layer l = good;
    l.groups = 2;
    accept(l, in, (nimbus_shape){6, 3, 5});
    l.slide.dilation[1] = 5;
    accept(l, in, (nimbus_shape){6, 3, 1});
    l.slide.dilation[1] = 6;
    refuse(l, in, NIMBUS_ERR_MISMATCH, "a kernel 2 wide, spread by dilation 6, does not fit");
    l.slide.dilation[1] = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "dilation 18446744073709551615");
    l = good;
    l.groups = 3;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "6 output channels in 3 groups");
    l.groups = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "groups that divide them and the 4 input channels");
    l = good;
    l.units = 0;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "0 output channels");
    l.units = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "output channels");
    l.units = NIMBUS_MAX_WIDTH;
    refuse(l, in, NIMBUS_ERR_LIMIT, "rows of 16777216 x 3 x 5");
    l = good;
    l.bare = true;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "bare");
    l = good;
    l.slide.kernel[0] = 0;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "a kernel 0 high");
    l.slide.kernel[0] = 9;
    refuse(l, in, NIMBUS_ERR_MISMATCH, "a kernel 9 high");
    l.slide.kernel[0] = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "a kernel 18446744073709551615 high");
    l = good;
    l.slide.stride[0] = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "stride");
    l.slide.stride[0] = NIMBUS_MAX_WIDTH;
    accept(l, in, (nimbus_shape){6, 1, 5});
    l.slide.before[0] = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "padding");
    l.slide.before[0] = l.slide.after[1] = NIMBUS_MAX_WIDTH;
    refuse(l, in, NIMBUS_ERR_LIMIT, "with its padding the image is 4 x 16777223 x 16777222");
}

static void test_pool_attributes(void **state)
{
    (void)state;
    const nimbus_shape in = {3, 7, 6};
    nimbus_layer l = {.type = &nimbus_layer_max_pool};
    accept(l, in, (nimbus_shape){3, 1, 1}); /* the whole image */
    l.slide.before[1] = 1;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "expected none around a pool of the whole image");
    l.slide = (nimbus_slide){.kernel = {2, 3}, .stride = {2, 3}};
    accept(l, in, (nimbus_shape){3, 3, 2});
    l.slide.kernel[1] = 0;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "a kernel 0 wide");
    l.slide = (nimbus_slide){.kernel = {2, 2}, .before = {1, 1}, .after = {1, 1}};
    accept(l, in, (nimbus_shape){3, 8, 7});
    l.slide.after[0] = 2;
    refuse(l, in, NIMBUS_ERR_MISMATCH, "window 8 of 9 downwards lies in the padding");
    l.type = &nimbus_layer_average_pool;
    l.slide.after[0] = 1;
    l.slide.before[1] = 2;
    refuse(l, in, NIMBUS_ERR_MISMATCH, "window 0 of 8 across lies in the padding");
    /* spread so far that a window steps over the image */
    l.slide =
        (nimbus_slide){.kernel = {2, 1}, .dilation = {9, 1}, .before = {1, 0}, .after = {2, 0}};
    refuse(l, in, NIMBUS_ERR_MISMATCH, "window 0 of 1 downwards");
}

static void test_other_attributes(void **state)
{
    (void)state;
    const nimbus_shape in = {2, 3, 4};
    nimbus_layer l = {.type = &nimbus_layer_pad, .slide = {.before = {1, 2}, .after = {0, 3}}};
    accept(l, in, (nimbus_shape){2, 4, 9});
    l.pad_mode = NIMBUS_PAD_REFLECT;
    accept(l, in, (nimbus_shape){2, 4, 9});
    l.slide.after[1] = 4;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "expected at most 3 beside an image 4 wide");
    l.pad_mode = NIMBUS_PAD_EDGE;
    accept(l, in, (nimbus_shape){2, 4, 10});
    l.slide.after[0] = SIZE_MAX;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "image 3 high");
    l.slide.after[0] = NIMBUS_MAX_WIDTH;
    refuse(l, in, NIMBUS_ERR_LIMIT, "rows of 2 x 16777220 x 10");
    l.slide.after[0] = 0;
    l.number = INFINITY;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "finite");
    l.number = 0;
    l.pad_mode = (nimbus_pad_mode)3;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "mode 3");

    l = (nimbus_layer){.type = &nimbus_layer_clip, .number = -1, .number2 = 1};
    accept(l, in, in);
    l.number2 = -2;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "clips to -1 .. -2");
    l.number2 = NAN;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "clips to -1 .. ");
    l.number2 = 1e300; /* not a float */
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "finite");
    l = (nimbus_layer){.type = &nimbus_layer_hard_sigmoid, .number = NAN};
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "a slope of");
    accept((nimbus_layer){.type = &nimbus_layer_softmax}, in, in);
    accept((nimbus_layer){.type = &nimbus_layer_flatten}, in, (nimbus_shape){24, 1, 1});

    l = (nimbus_layer){.type = &nimbus_layer_reshape, .new_shape = {6, 1, 4}};
    accept(l, in, l.new_shape);
    l.new_shape.width = 5;
    refuse(l, in, NIMBUS_ERR_MISMATCH, "a new shape of 6 x 1 x 5");
    l.new_shape.height = 0;
    refuse(l, in, NIMBUS_ERR_LIMIT, "rows of 6 x 0 x 5");
    l = (nimbus_layer){.type = &nimbus_layer_transpose, .order = {2, 0, 1}};
    accept(l, in, (nimbus_shape){4, 2, 3});
    l.order[0] = 1;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "an order of axes 1, 0, 1");
    l.order[0] = 3;
    refuse(l, in, NIMBUS_ERR_ARGUMENT, "an order of axes 3, 0, 1");
    refuse((nimbus_layer){.type = &nimbus_layer_add}, in, NIMBUS_ERR_ARGUMENT, "1 inputs");
}

static void test_joins(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {2, 3, 4}});
    append(net,
           (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 3, .slide = {.kernel = {1, 1}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_flatten});
    const size_t same[] = {0, 0}, channels[] = {0, 1, 0}, shapes[] = {0, 2};
    nimbus_layer sum = {.type = &nimbus_layer_add}, concat = {.type = &nimbus_layer_concat};
    assert_int_equal(nimbus_net_add(net, &sum, channels, 2, 1, &error), NIMBUS_ERR_MISMATCH);
    assert_non_null(strstr(error.message, "layer add1: input 1 is 3 x 3 x 4, expected the shape"));
    assert_int_equal(nimbus_net_add(net, &concat, shapes, 2, 1, &error), NIMBUS_ERR_MISMATCH);
    assert_non_null(strstr(error.message, "input 1 is 36 x 1 x 1, expected height and width"));
    ok(nimbus_net_add(net, &sum, same, 2, 1, &error), &error);
    ok(nimbus_net_add(net, &concat, channels, 3, 1, &error), &error);
    assert_int_equal(net->layers[4].shape.channels, 7);
    nimbus_net_free(net);
}

/* Hand-made values: padding that never wins, and averages with and without it. */
static void test_pool_values(void **state)
{
    static const real x[] = {-1, -2, -3, -4};
    static const real most[] = {-1, -1, -2, -1, -1, -2, -3, -3, -4};
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        nimbus_error error;
        nimbus_pass *pass;
        nimbus_net *net = nimbus_net_new();
        append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {1, 2, 2}});
        append(net, (nimbus_layer){.type = kind == 0 ? &nimbus_layer_max_pool
                                                     : &nimbus_layer_average_pool,
                                   .count_padding = kind == 2,
                                   .slide = {.kernel = {2, 2}, .before = {1, 1}, .after = {1, 1}}});
        ok(nimbus_pass_new(net, 0, 1, 1, &pass, &error), &error);
        memcpy(nimbus_pass_input(pass), x, sizeof x);
        nimbus_pass_forward(pass, 1, 1);
        const real *y = pass->out[1];
        for (size_t i = 0; kind == 0 && i < 9; i++)
            assert_true(y[i] == most[i]);
        assert_true(kind == 0 || y[0] == (kind == 1 ? -1 : (real)-0.25));
        assert_true(kind == 0 || y[1] == (kind == 1 ? (real)-1.5 : (real)-0.75));
        assert_true(kind == 0 || y[4] == (real)-2.5);
        nimbus_pass_free(pass);
        nimbus_net_free(net);
    }
}

/* ---- whole nets -------------------------------------------------------------------------- */

static nimbus_net *net_for(const char *spec, const nimbus_data *data)
{
    nimbus_error error;
    nimbus_net *net;
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    options.spec = spec;
    options.seed = 3;
    ok(nimbus_net_build(&options, data, &net, &error), &error);
    return net;
}

static nimbus_data *digits(nimbus_split split, size_t n)
{
    nimbus_error error;
    nimbus_data *data;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.n_rows = n;
    ok(nimbus_data_open("digits", split, &options, &data, &error), &error);
    return data;
}

/* One step on one thread and on several: outputs, gradients and statistics are the same bits. */
static void test_threads(void **state)
{
    (void)state;
    nimbus_data *data = digits(NIMBUS_SPLIT_TRAIN, 37);
    nimbus_net *nets[3];
    for (unsigned t = 0; t < 3; t++) {
        nimbus_error error;
        nimbus_pass *pass;
        nets[t] = net_for("resnet8", data);
        size_t last = nets[t]->n_layers - 1;
        real dy[37 * 10];
        fill(dy, 37 * 10, 5);
        ok(nimbus_net_grads(nets[t], &error), &error);
        ok(nimbus_pass_new(nets[t], 0, 40, t + 1, &pass, &error), &error);
        pass->training = true;
        nimbus_rows_read(data, 0, 37, nimbus_pass_input(pass));
        nimbus_pass_forward(pass, 37, last);
        ok(nimbus_pass_backward(pass, dy, &error), &error);
        for (size_t i = 0; i <= last; i++)
            for (size_t j = 0; j < nets[t]->layers[i].n_params; j++) {
                const nimbus_param *a = &nets[0]->layers[i].params[j];
                const nimbus_param *b = &nets[t]->layers[i].params[j];
                assert_memory_equal(a->value, b->value, a->n * sizeof *a->value);
                if (a->grad)
                    assert_memory_equal(a->grad, b->grad, a->n * sizeof *a->grad);
            }
        nimbus_pass_free(pass);
    }
    for (unsigned t = 0; t < 3; t++)
        nimbus_net_free(nets[t]);
    nimbus_data_free(data);
}

static void test_resnets(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net, *copy;
    nimbus_data *data = digits(NIMBUS_SPLIT_TRAIN, 2);
    net = net_for("resnet8", data);
    assert_int_equal(net->n_layers, 32);
    assert_int_equal(net->layers[net->n_layers - 2].shape.channels, 64);
    ok(nimbus_net_copy(net, &copy, &error), &error);
    assert_same_net(net, copy);
    nimbus_net_free(copy);
    nimbus_net_free(net);
    net = net_for("resnet9", data);
    assert_int_equal(net->layers[net->n_layers - 2].shape.channels, 256);
    nimbus_net_free(net);
    net = net_for("resnet9;width=6", data);
    assert_int_equal(net->layers[net->n_layers - 2].shape.channels, 24);
    nimbus_net_free(net);
    nimbus_data_free(data);

    nimbus_data_info info = {.n_rows = 2,
                             .n_features = 12,
                             .n_classes = 3,
                             .channels = 12,
                             .height = 1,
                             .width = 1,
                             .dtype = NIMBUS_U8};
    const uint8_t rows[24] = {0};
    const int32_t labels[2] = {0, 2};
    ok(nimbus_data_from_arrays(&info, rows, labels, NULL, &data, &error), &error);
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    options.spec = "resnet8";
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_MISMATCH);
    assert_non_null(strstr(error.message, "rows of 12 x 1 x 1, this net needs images"));
    options.spec = "resnet8;bn";
    assert_int_equal(nimbus_net_build(&options, data, &net, &error), NIMBUS_ERR_ARGUMENT);
    assert_non_null(strstr(error.message, "expected width="));
    nimbus_data_free(data);
}

/* input - conv 8 - bn - relu - max_pool - depthwise - conv 16 - bn - hard_swish - pool - linear */
static nimbus_net *small_conv_net(void)
{
    const nimbus_slide three = {.kernel = {3, 3}, .before = {1, 1}, .after = {1, 1}};
    nimbus_slide two = three;
    two.stride[0] = two.stride[1] = 2;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {1, 28, 28}});
    append(net, (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 8, .slide = three});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
    append(net, (nimbus_layer){.type = &nimbus_layer_max_pool, .slide = two});
    append(net,
           (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 8, .groups = 8, .slide = three});
    append(net, (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 16, .slide = two});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_hard_swish});
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool, .slide = two});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 10});
    for (size_t i = 0; i < 28 * 28; i++)
        net->layers[0].params[1].value[i] = (real)(1 / 128.0);
    net->input_dtype = NIMBUS_U8;
    return net;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_data *data = digits(NIMBUS_SPLIT_TRAIN, 3);
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    options.spec = "resnet8";
    for (long k = 1;; k++) {
        real dy[3 * 10] = {0};
        nimbus_net *net;
        nimbus_pass *pass = NULL;
        nimbus_fail_alloc_after = k;
        nimbus_status status = nimbus_net_build(&options, data, &net, &error);
        if (status == NIMBUS_OK)
            status = nimbus_net_grads(net, &error);
        if (status == NIMBUS_OK)
            status = nimbus_pass_new(net, 0, 3, 2, &pass, &error);
        if (status == NIMBUS_OK) {
            pass->training = true;
            nimbus_pass_forward(pass, 3, net->n_layers - 1);
            status = nimbus_pass_backward(pass, dy, &error);
        }
        bool reached = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        nimbus_pass_free(pass);
        nimbus_net_free(net);
        if (!reached) {
            ok(status, &error);
            assert_true(k > 100);
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_MEMORY);
    }
    nimbus_data_free(data);
}

static void test_learns_digits(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_evaluation evaluation;
    nimbus_data *train = digits(NIMBUS_SPLIT_TRAIN, 2000), *test = digits(NIMBUS_SPLIT_TEST, 1000);
    nimbus_net *net = small_conv_net();
    nimbus_train_options options = NIMBUS_TRAIN_OPTIONS_INIT;
    options.epochs = 5;
    options.batch = 50;
    options.rate = 0.01;
    options.shift = 1;
    options.n_threads = 2;
    ok(nimbus_train(net, train, &options, NULL, &error), &error);
    ok(nimbus_evaluate(net, test, 2, &evaluation, &error), &error);
    print_message("digits: %.1f %%\n", 100 * evaluation.accuracy);
    assert_true(evaluation.accuracy > 0.9);
    nimbus_net_free(net);
    nimbus_data_free(train);
    nimbus_data_free(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),         cmocka_unit_test(test_conv2d_attributes),
        cmocka_unit_test(test_pool_attributes), cmocka_unit_test(test_other_attributes),
        cmocka_unit_test(test_joins),           cmocka_unit_test(test_pool_values),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_resnets),
        cmocka_unit_test(test_out_of_memory),   cmocka_unit_test(test_learns_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
