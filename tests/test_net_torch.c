/* test_net_torch.c - nets against PyTorch: outputs, losses, gradients, running statistics
 *
 * The fixtures are made by make_torch_fixtures.py; relative error (norm-wise) at most 1e-5. */
#include <math.h>
#include <stdio.h>

#include "net_maker.h"

struct fixture {
    nimbus_buffer file;
    json_t *header;
    const uint8_t *data;
};

static struct fixture fixture_open(const char *name)
{
    struct fixture f = {0};
    nimbus_error error;
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s.safetensors", TEST_FIXTURES, name);
    ok(nimbus_file_read(path, 1 << 20, &f.file, &error), &error);
    nimbus_reader r = nimbus_reader_of(f.file.bytes, f.file.size);
    size_t length = (size_t)nimbus_read_u64le(&r);
    f.header = json_loadb((const char *)nimbus_read_bytes(&r, length), length, 0, NULL);
    assert_non_null(f.header);
    f.data = f.file.bytes + 8 + length;
    return f;
}

static void fixture_close(struct fixture *f)
{
    json_decref(f->header);
    nimbus_buffer_free(&f->file);
}

static bool fixture_has(const struct fixture *f, const char *name)
{
    return json_object_get(f->header, name) != NULL;
}

/* The values of a tensor of n elements; freed by the caller. */
static real *fixture_get(const struct fixture *f, const char *name, size_t n)
{
    const json_t *offsets = json_object_get(json_object_get(f->header, name), "data_offsets");
    size_t from = (size_t)json_integer_value(json_array_get(offsets, 0));
    size_t to = (size_t)json_integer_value(json_array_get(offsets, 1));
    if (to - from != 4 * n)
        fail_msg("%s has %zu bytes, expected %zu values", name, to - from, n);
    nimbus_reader r = nimbus_reader_of(f->data + from, to - from);
    real *values = nimbus_alloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = (real)nimbus_read_f32le(&r);
    return values;
}

static double largest_error; /* of all comparisons, for the record */

/* `found` must be the tensor: norm of the difference over its norm at most 1e-5. */
static void assert_close(const struct fixture *f, const char *name, const real *found, size_t n)
{
    real *expected = fixture_get(f, name, n);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += pow((double)(found[i] - expected[i]), 2);
        norm += pow((double)expected[i], 2);
    }
    if (norm > 1e-4)
        largest_error = fmax(largest_error, sqrt(difference / norm));
    /* 1e-7: gradients that are 0 but for rounding, of a bias in front of batch norm */
    if (!(sqrt(difference) <= 1e-5 * sqrt(norm) + 1e-7))
        fail_msg("%s is off by %g of %g", name, sqrt(difference), sqrt(norm));
    nimbus_free(expected);
}

static void take_values(const struct fixture *f, const char *name, nimbus_param *p)
{
    real *values = fixture_get(f, name, p->n);
    memcpy(p->value, values, p->n * sizeof *values);
    nimbus_free(values);
}

static void check_distillation(const struct fixture *f, nimbus_loss_options o, size_t n, size_t m,
                               const real *target)
{
    real *y = fixture_get(f, "y", n * m), *teacher = fixture_get(f, "teacher", n * m);
    real *dy = nimbus_alloc(n * m, sizeof *dy);
    o.distill = (real)0.3;
    o.temperature = 2;
    real loss = (real)nimbus_loss_value(&o, n, m, y, target, teacher, dy);
    assert_close(f, "distill.loss", &loss, 1);
    assert_close(f, "distill.grad", dy, n * m);
    nimbus_free(y);
    nimbus_free(teacher);
    nimbus_free(dy);
}

/* One training step on a net whose linear and batch norm layers are in the fixture. */
static void check_against_torch(const char *name, nimbus_net *net, nimbus_loss_options o, size_t n)
{
    struct fixture f = fixture_open(name);
    nimbus_error error;
    nimbus_pass *pass;
    char key[128];
    size_t last = net->n_layers - 1, d = nimbus_shape_width(net->layers[0].shape);
    size_t m = nimbus_shape_width(net->layers[last].shape), checked = 0;
    take_values(&f, "mean", nimbus_layer_param(&net->layers[0], "mean"));
    take_values(&f, "inverse_std", nimbus_layer_param(&net->layers[0], "inverse_std"));
    for (size_t i = 1; i <= last; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            nimbus_param *p = &net->layers[i].params[j];
            (void)snprintf(key, sizeof key, "%s.%s", net->layers[i].name, p->name);
            if (!p->statistic)
                take_values(&f, key, p);
        }
    ok(nimbus_net_grads(net, &error), &error);
    ok(nimbus_pass_new(net, 0, n, 2, &pass, &error), &error);
    pass->training = true;
    real *x = fixture_get(&f, "x", n * d), *target = fixture_get(&f, "target", n * m);
    real *dy = nimbus_alloc(n * m, sizeof *dy);
    memcpy(nimbus_pass_input(pass), x, n * d * sizeof *x);
    nimbus_pass_forward(pass, n, last);
    assert_close(&f, "y", pass->out[last], n * m);
    real loss = (real)nimbus_loss_value(&o, n, m, pass->out[last], target, NULL, dy);
    assert_close(&f, "loss", &loss, 1);
    ok(nimbus_pass_backward(pass, dy, &error), &error);
    for (size_t i = 1; i <= last; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            const nimbus_param *p = &net->layers[i].params[j];
            (void)snprintf(key, sizeof key, "%s.%s.%s", p->statistic ? "running" : "grad",
                           net->layers[i].name, p->name);
            assert_true(fixture_has(&f, key));
            assert_close(&f, key, p->statistic ? p->value : p->grad, p->n);
            checked++;
        }
    assert_true(checked >= 8);
    if (o.kind == NIMBUS_LOSS_CROSS_ENTROPY)
        check_distillation(&f, o, n, m, target);
    nimbus_free(x);
    nimbus_free(target);
    nimbus_free(dy);
    nimbus_pass_free(pass);
    fixture_close(&f);
}

static void test_torch_classifier(void **state)
{
    (void)state;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {12, 1, 1}});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 17});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 11});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 5});
    check_against_torch("torch_classifier", net,
                        (nimbus_loss_options){.label_smoothing = (real)0.1}, 9);
    nimbus_net_free(net);
}

static void test_torch_regressor(void **state)
{
    static const struct {
        size_t units;
        const nimbus_layer_type *activation;
    } hidden[] = {{16, &nimbus_layer_gelu}, {13, &nimbus_layer_tanh}, {8, &nimbus_layer_sigmoid}};
    (void)state;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {10, 1, 1}});
    for (size_t i = 0; i < 3; i++) {
        append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = hidden[i].units});
        append(net, (nimbus_layer){.type = hidden[i].activation});
    }
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 3});
    check_against_torch("torch_regressor", net,
                        (nimbus_loss_options){.kind = NIMBUS_LOSS_SQUARED_ERROR}, 7);
    nimbus_net_free(net);
}

static void test_torch_image(void **state)
{
    (void)state;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {3, 11, 10}});
    append(net,
           (nimbus_layer){
               .type = &nimbus_layer_conv2d,
               .units = 8,
               .slide = {.kernel = {3, 3}, .stride = {2, 1}, .before = {1, 2}, .after = {1, 2}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_hard_swish});
    append(net,
           (nimbus_layer){
               .type = &nimbus_layer_conv2d,
               .units = 12,
               .groups = 4,
               .slide = {.kernel = {3, 2}, .dilation = {1, 2}, .before = {1, 0}, .after = {1, 0}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_clip, .number2 = 6});
    nimbus_slide three = {.kernel = {3, 3}, .stride = {2, 2}, .before = {1, 1}, .after = {1, 1}};
    append(net, (nimbus_layer){.type = &nimbus_layer_max_pool, .slide = three});
    three.stride[0] = three.stride[1] = 1;
    append(net,
           (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 12, .groups = 12, .slide = three});
    append(net,
           (nimbus_layer){.type = &nimbus_layer_hard_sigmoid, .number = 1.0 / 6, .number2 = 0.5});
    append(net,
           (nimbus_layer){
               .type = &nimbus_layer_average_pool,
               .count_padding = true,
               .slide = {.kernel = {2, 2}, .stride = {1, 2}, .before = {1, 0}, .after = {1, 0}}});
    append(net,
           (nimbus_layer){.type = &nimbus_layer_conv2d, .units = 6, .slide = {.kernel = {1, 1}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_softmax});
    append(net,
           (nimbus_layer){
               .type = &nimbus_layer_average_pool,
               .slide = {.kernel = {2, 2}, .stride = {2, 2}, .before = {1, 1}, .after = {1, 1}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_flatten});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 4});
    check_against_torch("torch_image", net, (nimbus_loss_options){.label_smoothing = (real)0.1}, 6);
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_classifier),
        cmocka_unit_test(test_torch_regressor),
        cmocka_unit_test(test_torch_image),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message("largest relative error %.3g\n", largest_error);
    return failed;
}
