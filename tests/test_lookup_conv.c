/* test_lookup_conv.c - trees and tables of a convolution against those of a linear layer that is
 * given the same patches, cut out here one by one */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/lookup.h"
#include "net_maker.h"

enum { ROWS = 3, CODEBOOKS = 5, LEVELS = 3, UNITS = 6 };

/* A layer on its own, with what a pass would give it. */
typedef struct subject {
    nimbus_net *net;
    nimbus_layer *layer;
    nimbus_io io;
    size_t n_x, n_y;
    real *x, *y, *dy, *dx;
} subject;

static real *zeros(size_t n)
{
    real *values = nimbus_alloc(n, sizeof *values);
    assert_non_null(values);
    return values;
}

static subject subject_of(nimbus_shape in, nimbus_layer proto, size_t n_rows, unsigned n_threads)
{
    nimbus_error error;
    subject s = {.net = nimbus_net_new()};
    assert_non_null(s.net);
    append(s.net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = in});
    append(s.net, proto);
    s.layer = &s.net->layers[1];
    grow_trees(s.net, 1, CODEBOOKS, LEVELS, 0);
    ok(nimbus_net_grads(s.net, &error), &error);
    s.n_x = n_rows * nimbus_shape_width(in);
    s.n_y = n_rows * nimbus_shape_width(s.layer->shape);
    s.x = zeros(s.n_x);
    s.dx = zeros(s.n_x);
    s.y = zeros(s.n_y);
    s.dy = zeros(s.n_y);
    s.layer->lookup->margin_noise = (real)0.3;
    s.layer->lookup->code_noise = (real)0.1;
    s.io = (nimbus_io){.n_rows = n_rows,
                       .n_inputs = 1,
                       .x = {s.x},
                       .y = s.y,
                       .dy = s.dy,
                       .dx = {s.dx},
                       .saved = nimbus_alloc(s.layer->type->saved_size(s.layer, n_rows), 1),
                       .scratch = nimbus_alloc(s.layer->type->scratch_size(s.layer, n_rows), 1),
                       .training = true,
                       .seed = 3,
                       .step = 4,
                       .n_threads = n_threads};
    assert_non_null(s.io.saved);
    assert_non_null(s.io.scratch);
    return s;
}

static void subject_free(subject *s)
{
    nimbus_free(s->x);
    nimbus_free(s->dx);
    nimbus_free(s->y);
    nimbus_free(s->dy);
    nimbus_free(s->io.saved);
    nimbus_free(s->io.scratch);
    nimbus_net_free(s->net);
}

static void run(subject *s)
{
    s->layer->type->forward(s->layer, &s->io);
    s->layer->type->backward(s->layer, &s->io);
}

/* Calls each(...) for every value of every patch that lies on the image: its place among the
 * patches and in the images. */
typedef void each_fn(const subject *conv, subject *linear, size_t in_patches, size_t in_images);

static void for_patches(const subject *conv, subject *linear, each_fn *each)
{
    const nimbus_layer *l = conv->layer;
    const nimbus_slide *s = &l->slide;
    size_t at = 0;
    for (size_t r = 0; r < conv->io.n_rows; r++)
        for (size_t oy = 0; oy < l->shape.height; oy++)
            for (size_t ox = 0; ox < l->shape.width; ox++)
                for (size_t c = 0; c < l->in_shape.channels; c++)
                    for (size_t ky = 0; ky < s->kernel[0]; ky++)
                        for (size_t kx = 0; kx < s->kernel[1]; kx++, at++) {
                            long y = (long)(oy * s->stride[0] + ky * s->dilation[0]) -
                                     (long)s->before[0];
                            long x = (long)(ox * s->stride[1] + kx * s->dilation[1]) -
                                     (long)s->before[1];
                            if (y < 0 || x < 0 || y >= (long)l->in_shape.height ||
                                x >= (long)l->in_shape.width)
                                continue;
                            each(conv, linear, at,
                                 ((r * l->in_shape.channels + c) * l->in_shape.height + (size_t)y) *
                                         l->in_shape.width +
                                     (size_t)x);
                        }
}

static void copy_x(const subject *conv, subject *linear, size_t in_patches, size_t in_images)
{
    linear->x[in_patches] = conv->x[in_images];
}

static real *expected_dx;

static void add_dx(const subject *conv, subject *linear, size_t in_patches, size_t in_images)
{
    (void)conv;
    expected_dx[in_images] += linear->dx[in_patches];
}

static void near(const real *a, const real *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-4f * (1 + fabsf(b[i])));
}

static void same_grads(const subject *conv, const subject *linear, const char *name)
{
    const nimbus_param *a = nimbus_layer_param(conv->layer, name);
    const nimbus_param *b = nimbus_layer_param(linear->layer, name);
    assert_int_equal(a->n, b->n);
    near(a->grad, b->grad, a->n);
}

/* Output m of position p of a row, among the linear layer's. */
static size_t row_of(const subject *conv, size_t i)
{
    size_t positions = conv->layer->shape.height * conv->layer->shape.width;
    size_t r = i / (UNITS * positions), m = i / positions % UNITS, p = i % positions;
    return (r * positions + p) * UNITS + m;
}

static void check(nimbus_shape in, nimbus_slide slide, size_t n_rows)
{
    nimbus_layer proto = {.type = &nimbus_layer_conv2d, .units = UNITS, .slide = slide};
    subject conv = subject_of(in, proto, n_rows, 2);
    size_t positions = conv.layer->shape.height * conv.layer->shape.width;
    size_t d = nimbus_lookup_inputs(conv.layer);
    subject linear =
        subject_of((nimbus_shape){d, 1, 1},
                   (nimbus_layer){.type = &nimbus_layer_linear, .units = UNITS, .name = "conv2d1"},
                   n_rows * positions, 1);
    assert_string_equal(conv.layer->name, linear.layer->name); /* noise depends on it */
    for (size_t i = 0; i < conv.n_x; i++)
        conv.x[i] = (real)nimbus_random_normal(11, 1, i);
    for (size_t i = 0; i < conv.n_y; i++) {
        conv.dy[i] = (real)nimbus_random_normal(11, 2, i);
        linear.dy[row_of(&conv, i)] = conv.dy[i];
    }
    for_patches(&conv, &linear, copy_x);
    run(&conv);
    run(&linear);
    for (size_t i = 0; i < conv.n_y; i++)
        assert_true(conv.y[i] == linear.y[row_of(&conv, i)]);
    same_grads(&conv, &linear, "tables");
    same_grads(&conv, &linear, "thresholds");
    same_grads(&conv, &linear, "bias");
    expected_dx = zeros(conv.n_x);
    for_patches(&conv, &linear, add_dx);
    near(conv.dx, expected_dx, conv.n_x);
    nimbus_free(expected_dx);
    subject_free(&conv);
    subject_free(&linear);
}

static void same_as_linear(void **state)
{
    (void)state;
    check((nimbus_shape){2, 6, 5},
          (nimbus_slide){.kernel = {3, 3}, .before = {1, 1}, .after = {1, 1}}, ROWS);
    check((nimbus_shape){3, 7, 8},
          (nimbus_slide){.kernel = {3, 2}, .stride = {2, 3}, .before = {2, 0}, .after = {0, 1}},
          ROWS);
    check((nimbus_shape){1, 9, 9},
          (nimbus_slide){.kernel = {2, 3}, .dilation = {3, 2}, .before = {1, 2}}, ROWS);
    check((nimbus_shape){8, 3, 4}, (nimbus_slide){.kernel = {1, 1}}, ROWS);
    check((nimbus_shape){4, 5, 5}, (nimbus_slide){.kernel = {5, 5}}, ROWS);
}

/* More positions than are taken at a time. */
static void stretches(void **state)
{
    (void)state;
    check((nimbus_shape){16, 32, 32},
          (nimbus_slide){.kernel = {3, 3}, .before = {1, 1}, .after = {1, 1}}, 5);
}

static void grouped_convolutions_have_no_trees(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {4, 5, 5}});
    append(net,
           (nimbus_layer){
               .type = &nimbus_layer_conv2d, .units = 4, .groups = 2, .slide = {.kernel = {3, 3}}});
    assert_int_equal(nimbus_lookup_attach(&net->layers[1], 2, 2, NIMBUS_TREE_SHARED, &error),
                     NIMBUS_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "2 groups"));
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_linear),
        cmocka_unit_test(stretches),
        cmocka_unit_test(grouped_convolutions_have_no_trees),
    };
    return cmocka_run_group_tests_name("lookup in convolutions", tests, NULL, NULL);
}
