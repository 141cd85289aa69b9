/* test_net.c - matrix products, passes, threads, states, the graph and copies of it */
#include <math.h>
#include <stdio.h>

#include "net_maker.h"

/* ==================================================================================== products */

static void naive_product(bool ta, bool tb, size_t m, size_t n, size_t k, real alpha, const real *a,
                          size_t lda, const real *b, size_t ldb, real beta, real *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++)
                sum += (double)(ta ? a[l * lda + i] : a[i * lda + l]) *
                       (double)(tb ? b[j * ldb + l] : b[l * ldb + j]);
            c[i * ldc + j] = (real)((double)alpha * sum + (double)(beta * c[i * ldc + j]));
        }
}

static void check_product(bool ta, bool tb, size_t m, size_t n, size_t k, size_t gap)
{
    size_t lda = (ta ? m : k) + gap, ldb = (tb ? k : n) + gap, ldc = n + gap;
    size_t na = (ta ? k : m) * lda, nb = (tb ? n : k) * ldb, nc = m * ldc;
    real *a = nimbus_alloc(na, sizeof *a), *b = nimbus_alloc(nb, sizeof *b);
    real *c[4];
    for (size_t i = 0; i < na; i++)
        a[i] = (real)nimbus_random_normal(1, 1, i);
    for (size_t i = 0; i < nb; i++)
        b[i] = (real)nimbus_random_normal(1, 2, i);
    for (unsigned t = 0; t < 4; t++) {
        c[t] = nimbus_alloc(nc, sizeof **c);
        for (size_t i = 0; i < nc; i++)
            c[t][i] = (real)nimbus_random_normal(1, 3, i);
        if (t == 0)
            naive_product(ta, tb, m, n, k, (real)0.5, a, lda, b, ldb, 2, c[0], ldc);
        else
            nimbus_gemm(ta, tb, m, n, k, (real)0.5, a, lda, b, ldb, 2, c[t], ldc, t);
    }
    for (size_t i = 0; i < nc; i++) /* the gap behind each row must stay as it was */
        assert_true(fabs((double)(c[0][i] - c[1][i])) <= 1e-5 * sqrt((double)k + 1) * 4);
    assert_memory_equal(c[1], c[2], nc * sizeof **c);
    assert_memory_equal(c[1], c[3], nc * sizeof **c);
    for (unsigned t = 0; t < 4; t++)
        nimbus_free(c[t]);
    nimbus_free(a);
    nimbus_free(b);
}

static void test_products(void **state)
{
    static const size_t sizes[][3] = {{1, 1, 1},     {3, 5, 7},      {33, 1, 65},
                                      {1, 257, 31},  {129, 65, 9},   {100, 10, 64},
                                      {97, 131, 83}, {300, 70, 400}, {65, 513, 129}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int form = 0; form < 4; form++)
            check_product(form & 1, form & 2, sizes[i][0], sizes[i][1], sizes[i][2], i % 3);
    nimbus_gemm(false, false, 0, 5, 5, 1, NULL, 5, NULL, 5, 0, NULL, 5, 1);
}

/* ====================================================================================== passes */

/* A training step of a net with every type of layer; its gradients, one after another. */
static real *step_on(unsigned n_threads, size_t *n_values)
{
    enum { N = 100, D = 130, M = 10 };
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    nimbus_pass *pass;
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {D, 1, 1}});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 300});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
    append(net, (nimbus_layer){.type = &nimbus_layer_gelu});
    append(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.2});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 200});
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 64});
    append(net, (nimbus_layer){.type = &nimbus_layer_tanh});
    append(net, (nimbus_layer){.type = &nimbus_layer_sigmoid});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = M});
    grow_trees(net, 7, 25, 4, 0);
    ok(nimbus_net_grads(net, &error), &error);
    ok(nimbus_pass_new(net, 0, N, n_threads, &pass, &error), &error);
    pass->training = true;
    pass->seed = 4;
    for (size_t i = 0; i < N * D; i++)
        nimbus_pass_input(pass)[i] = (real)nimbus_random_normal(1, 1, i);
    real dy[N * M];
    nimbus_pass_forward(pass, N, net->n_layers - 1);
    for (size_t i = 0; i < N * M; i++)
        dy[i] = pass->out[net->n_layers - 1][i];
    ok(nimbus_pass_backward(pass, dy, &error), &error);
    real *values = NULL;
    size_t n = 0;
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t j = 0; j < net->layers[i].n_params; j++) {
            const nimbus_param *p = &net->layers[i].params[j];
            const real *from = p->trained ? p->grad : p->value;
            values = nimbus_realloc(values, n, n + p->n, sizeof *values);
            memcpy(values + n, from, p->n * sizeof *values);
            n += p->n;
        }
    nimbus_pass_free(pass);
    nimbus_net_free(net);
    *n_values = n;
    return values;
}

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    size_t n = 0;
    real *one = step_on(1, &n);
    for (unsigned t = 2; t <= 5; t++) {
        real *more = step_on(t, &n);
        assert_memory_equal(one, more, n * sizeof *one);
        nimbus_free(more);
    }
    nimbus_free(one);
}

static nimbus_net *chain(void)
{
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {6, 1, 1}});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 5});
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 4});
    return net;
}

/* A pass that begins in the middle gives what the whole one gives. */
static void test_pass_from_the_middle(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = chain();
    nimbus_pass *whole, *half;
    ok(nimbus_pass_new(net, 0, 3, 1, &whole, &error), &error);
    ok(nimbus_pass_new(net, 2, 3, 1, &half, &error), &error);
    for (size_t i = 0; i < 18; i++)
        nimbus_pass_input(whole)[i] = (real)nimbus_random_normal(1, 1, i);
    nimbus_pass_forward(whole, 3, 3);
    memcpy(nimbus_pass_input(half), whole->out[1], 15 * sizeof(real));
    nimbus_pass_forward(half, 3, 3);
    assert_memory_equal(whole->out[3], half->out[3], 12 * sizeof(real));

    ok(nimbus_net_grads(net, &error), &error);
    half->training = true;
    real dy[12] = {1, 2, 3};
    ok(nimbus_pass_backward(half, dy, &error), &error);
    assert_true(nimbus_layer_param(&net->layers[3], "bias")->grad[1] == 2);
    for (size_t i = 0; i < 5; i++)
        assert_true(nimbus_layer_param(&net->layers[1], "bias")->grad[i] == 0);
    nimbus_pass_free(half);
    nimbus_pass_free(whole);
    assert_int_equal(nimbus_pass_new(net, 4, 3, 1, &half, &error), NIMBUS_ERR_ARGUMENT);
    assert_null(half);
    nimbus_net_free(net);
}

/* A layer read by two others, of which only one leads to the output. */
static void test_branches(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = chain();
    size_t from = 1;
    nimbus_layer proto = {.type = &nimbus_layer_tanh};
    ok(nimbus_net_add(net, &proto, &from, 1, 1, &error), &error);
    nimbus_pass *pass;
    ok(nimbus_net_grads(net, &error), &error);
    ok(nimbus_pass_new(net, 0, 2, 1, &pass, &error), &error);
    pass->training = true;
    for (size_t i = 0; i < 12; i++)
        nimbus_pass_input(pass)[i] = (real)i;
    nimbus_pass_forward(pass, 2, 4);
    real dy[10] = {1};
    ok(nimbus_pass_backward(pass, dy, &error), &error);
    real y = pass->out[4][0];
    assert_true(fabs((double)(nimbus_layer_param(&net->layers[1], "bias")->grad[0] - (1 - y * y))) <
                1e-6);
    nimbus_pass_free(pass);
    nimbus_net_free(net);
}

static void test_dropout(void **state)
{
    enum { N = 64, D = 1000 };
    (void)state;
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {D, 1, 1}});
    append(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.25});
    nimbus_pass *pass;
    ok(nimbus_pass_new(net, 0, N, 2, &pass, &error), &error);
    for (size_t i = 0; i < N * D; i++)
        nimbus_pass_input(pass)[i] = 3;
    nimbus_pass_forward(pass, N, 1);
    for (size_t i = 0; i < N * D; i++)
        assert_true(pass->out[1][i] == 3);
    pass->training = true;
    uint8_t *kept = nimbus_alloc(N * D, 1);
    size_t n_dropped = 0, n_same = 0;
    for (uint64_t step = 0; step < 2; step++) {
        pass->step = step;
        nimbus_pass_forward(pass, N, 1);
        for (size_t i = 0; i < N * D; i++) {
            real y = pass->out[1][i];
            assert_true(y == 0 || y == 4);
            n_dropped += step == 0 && y == 0;
            n_same += step == 1 && kept[i] == (y != 0);
            kept[i] = y != 0;
        }
    }
    /* 16,000 expected, standard deviation 110; the same choice twice: 0.625 of 64,000 */
    assert_in_range(n_dropped, 15400, 16600);
    assert_in_range(n_same, 39200, 40800);
    nimbus_free(kept);
    nimbus_pass_free(pass);
    nimbus_net_free(net);
}

/* ====================================================================================== states */

/* A linear layer with weights and trees, in the given state. */
static nimbus_net *net_in_state(nimbus_layer_state wanted, bool weights, bool trees)
{
    nimbus_error error;
    nimbus_net *net = nimbus_net_new();
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {3, 1, 1}});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 2, .bare = !weights});
    if (trees)
        grow_trees(net, 1, 2, 1, 0);
    if (weights)
        ok(nimbus_net_set_state(net, 1, NIMBUS_STATE_DENSE, &error), &error);
    ok(nimbus_net_set_state(net, 1, wanted, &error), &error);
    return net;
}

static bool is_trained(nimbus_net *net, const char *name)
{
    return nimbus_layer_param(&net->layers[1], name)->trained;
}

static void test_states(void **state)
{
    /* from dense, locked, record, soft, lookup; to the same and integer */
    static const bool allowed[5][6] = {{1, 1, 1, 1, 1, 0},
                                       {1, 1, 1, 1, 1, 0},
                                       {1, 1, 1, 1, 1, 0},
                                       {1, 1, 0, 1, 1, 0},
                                       {1, 1, 0, 1, 1, 0}};
    (void)state;
    nimbus_error error;
    for (unsigned from = 0; from < 5; from++)
        for (unsigned to = 0; to < 6; to++)
            for (unsigned parts = 1; parts < 4; parts++) {
                bool weights = parts & 1, trees = parts & 2;
                if (from >= 3 ? !trees : !weights)
                    continue; /* cannot be in that state */
                nimbus_net *net = net_in_state((nimbus_layer_state)from, weights, trees);
                nimbus_layer_state target = (nimbus_layer_state)to;
                nimbus_status status = nimbus_net_set_state(net, 1, target, &error);
                bool possible = allowed[from][to] && (to >= 3 ? trees : weights);
                assert_int_equal(status, possible ? NIMBUS_OK : NIMBUS_ERR_STATE);
                assert_int_equal(net->layers[1].state, possible ? to : from);
                if (!possible) {
                    assert_non_null(strstr(error.message, nimbus_layer_state_name(target)));
                    assert_non_null(
                        strstr(error.message, nimbus_layer_state_name((nimbus_layer_state)from)));
                }
                unsigned now = net->layers[1].state;
                assert_int_equal(is_trained(net, "bias"), now == 0 || now == 3);
                if (weights)
                    assert_int_equal(is_trained(net, "weight"), now == 0);
                if (trees) {
                    assert_int_equal(is_trained(net, "thresholds"), now == 3);
                    assert_int_equal(is_trained(net, "tables"), now == 3);
                    assert_false(is_trained(net, "columns") || is_trained(net, "margin"));
                }
                nimbus_net_free(net);
            }
    nimbus_net *net = small_net();
    assert_int_equal(nimbus_net_set_state(net, 3, NIMBUS_STATE_LOCKED, &error), NIMBUS_ERR_STATE);
    assert_int_equal(nimbus_net_set_state(net, 9, NIMBUS_STATE_LOCKED, &error),
                     NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_net_set_state(net, 1, (nimbus_layer_state)6, &error),
                     NIMBUS_ERR_ARGUMENT);
    assert_string_equal(nimbus_layer_state_name(NIMBUS_STATE_INTEGER), "integer");
    assert_string_equal(nimbus_layer_state_name((nimbus_layer_state)77), "unknown");
    nimbus_net_free(net);
}

static void test_record(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = chain();
    nimbus_pass *pass;
    nimbus_layer *layer = &net->layers[3];
    layer->record_limit = 7;
    ok(nimbus_net_set_state(net, 3, NIMBUS_STATE_RECORD, &error), &error);
    ok(nimbus_pass_new(net, 0, 4, 1, &pass, &error), &error);
    real seen[12 * 5];
    for (size_t batch = 0; batch < 3; batch++) {
        for (size_t i = 0; i < 24; i++)
            nimbus_pass_input(pass)[i] = (real)nimbus_random_normal(1, batch, i);
        nimbus_pass_forward(pass, 4, 3);
        memcpy(seen + batch * 20, pass->out[2], 20 * sizeof(real));
    }
    assert_int_equal(layer->n_recorded, 7);
    assert_memory_equal(layer->record, seen, 35 * sizeof(real));
    layer->record_limit = 2;
    ok(nimbus_net_set_state(net, 3, NIMBUS_STATE_LOCKED, &error), &error);
    assert_non_null(layer->record);
    ok(nimbus_net_set_state(net, 3, NIMBUS_STATE_RECORD, &error), &error);
    assert_int_equal(layer->n_recorded, 0);
    nimbus_pass_free(pass);
    nimbus_net_free(net);
}

static void test_gradients_follow_states(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = chain();
    assert_int_equal(nimbus_net_first_trained(net, 0), 1);
    assert_int_equal(nimbus_net_first_trained(net, 2), 3);
    ok(nimbus_net_grads(net, &error), &error);
    nimbus_param *bias = nimbus_layer_param(&net->layers[1], "bias");
    bias->grad[0] = 1;
    nimbus_net_zero_grads(net);
    assert_true(bias->grad[0] == 0);
    ok(nimbus_net_set_state(net, 1, NIMBUS_STATE_LOCKED, &error), &error);
    ok(nimbus_net_grads(net, &error), &error);
    assert_null(bias->grad);
    assert_int_equal(nimbus_net_first_trained(net, 0), 3);
    ok(nimbus_net_set_state(net, 3, NIMBUS_STATE_LOCKED, &error), &error);
    assert_int_equal(nimbus_net_first_trained(net, 0), 4);
    nimbus_net_free(net);
}

/* ======================================================================================= graph */

static void test_copy(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = small_net(), *copy;
    ok(nimbus_net_grads(net, &error), &error);
    ok(nimbus_net_copy(net, &copy, &error), &error);
    assert_same_net(net, copy);
    assert_null(copy->layers[1].params[0].grad);
    copy->layers[1].params[0].value[0] += 1;
    assert_true(net->layers[1].params[0].value[0] != copy->layers[1].params[0].value[0]);
    nimbus_net_free(copy);
    for (long k = 1;; k++) {
        nimbus_fail_alloc_after = k;
        nimbus_status status = nimbus_net_copy(net, &copy, &error);
        bool reached = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        if (!reached) {
            assert_int_equal(status, NIMBUS_OK);
            assert_true(k > 20);
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_MEMORY);
        assert_null(copy);
    }
    nimbus_net_free(copy);
    nimbus_net_free(net);
}

static void refuse(nimbus_net *net, nimbus_layer proto, const size_t *inputs, size_t n_inputs,
                   nimbus_status expected)
{
    nimbus_error error = {0};
    size_t n_layers = net->n_layers;
    assert_int_equal(nimbus_net_add(net, &proto, inputs, n_inputs, 1, &error), expected);
    assert_int_equal(error.status, expected);
    assert_true(strlen(error.message) > 10);
    assert_int_equal(net->n_layers, n_layers);
}

static void test_wrong_layers(void **state)
{
    (void)state;
    const size_t first = 0, later = 9, two[] = {0, 1};
    nimbus_layer relu = {.type = &nimbus_layer_relu};
    nimbus_layer input = {.type = &nimbus_layer_input, .in_shape = {2, 1, 1}};
    nimbus_net *empty = nimbus_net_new(), *net = chain();
    refuse(empty, relu, NULL, 0, NIMBUS_ERR_ARGUMENT);
    refuse(empty, (nimbus_layer){.type = &nimbus_layer_input}, NULL, 0, NIMBUS_ERR_LIMIT);
    input.in_shape.height = SIZE_MAX;
    refuse(empty, input, NULL, 0, NIMBUS_ERR_LIMIT);
    input.in_shape.height = 1;
    refuse(net, input, NULL, 0, NIMBUS_ERR_ARGUMENT);
    refuse(net, relu, &later, 1, NIMBUS_ERR_ARGUMENT);
    refuse(net, relu, two, 2, NIMBUS_ERR_ARGUMENT);
    refuse(net, relu, NULL, 0, NIMBUS_ERR_ARGUMENT);
    memcpy(relu.name, "linear1", 8);
    refuse(net, relu, &first, 1, NIMBUS_ERR_ARGUMENT);
    memcpy(relu.name, "a.b", 4);
    refuse(net, relu, &first, 1, NIMBUS_ERR_ARGUMENT);
    refuse(net, (nimbus_layer){.type = &nimbus_layer_linear}, &first, 1, NIMBUS_ERR_ARGUMENT);
    refuse(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 1}, &first, 1,
           NIMBUS_ERR_ARGUMENT);
    refuse(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = NAN}, &first, 1,
           NIMBUS_ERR_ARGUMENT);
    refuse(net, (nimbus_layer){.type = &nimbus_layer_batch_norm, .number = -1}, &first, 1,
           NIMBUS_ERR_ARGUMENT);
    assert_null(nimbus_layer_type_named("conv9"));
    assert_ptr_equal(nimbus_layer_type_named("gelu"), &nimbus_layer_gelu);
    nimbus_net_free(empty);
    nimbus_net_free(net);
    nimbus_net_free(NULL);
}

static void test_check_finite(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = small_net();
    ok(nimbus_net_check_finite(net, &error), &error);
    for (int kind = 0; kind < 2; kind++) {
        real *value = &nimbus_layer_param(&net->layers[2], "scale")->value[2], kept = *value;
        *value = kind ? (real)NAN : -(real)INFINITY;
        assert_int_equal(nimbus_net_check_finite(net, &error), NIMBUS_ERR_VALUE);
        assert_non_null(strstr(error.message, "batch_norm1: value 2 of scale"));
        *value = kept;
    }
    nimbus_net_free(net);
}

static void test_info(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = small_net();
    nimbus_net_info info;
    nimbus_layer_info layer;
    const float *values;
    size_t n;
    nimbus_net_get_info(net, &info);
    assert_int_equal(info.n_layers, 6);
    assert_int_equal(info.n_inputs, 4);
    assert_int_equal(info.n_outputs, 2);
    assert_int_equal(info.n_params, 15 + 6 + 2 + 6 + 16);
    assert_int_equal(info.input_dtype, NIMBUS_U8);
    ok(nimbus_net_get_layer(net, 5, &layer, &error), &error);
    assert_string_equal(layer.type, "linear");
    assert_int_equal(layer.state, NIMBUS_STATE_SOFT);
    assert_int_equal(layer.n_codebooks, 2);
    assert_int_equal(layer.n_levels, 2);
    assert_int_equal(layer.bits, 8);
    assert_in_range(layer.live_columns, 1, 3);
    ok(nimbus_net_get_layer(net, 1, &layer, &error), &error);
    assert_int_equal(layer.n_codebooks, 0);
    assert_int_equal(layer.n_params, 15);
    ok(nimbus_net_get_param(net, 1, "weight", &values, &n, &error), &error);
    assert_int_equal(n, 12);
    assert_int_equal(nimbus_net_get_param(net, 1, "tables", &values, &n, &error),
                     NIMBUS_ERR_ARGUMENT);
    assert_null(values);
    assert_int_equal(nimbus_net_get_layer(net, 6, &layer, &error), NIMBUS_ERR_ARGUMENT);
    nimbus_net_free(net);
}

/* What says where the layers of an image net stand and what they do. */
static void test_image_info(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = image_net();
    nimbus_layer_info layer;
    ok(nimbus_net_get_layer(net, 1, &layer, &error), &error); /* conv2d, see image_net */
    assert_int_equal(layer.channels, 4);
    assert_int_equal(layer.height, 5);
    assert_int_equal(layer.width, 3);
    assert_int_equal(layer.groups, 2);
    assert_int_equal(layer.kernel[0], 2);
    assert_int_equal(layer.stride[1], 2);
    assert_int_equal(layer.dilation[0], 2);
    assert_int_equal(layer.pad_before[0], 1);
    assert_int_equal(layer.pad_after[1], 2);
    ok(nimbus_net_get_layer(net, 3, &layer, &error), &error); /* clip */
    assert_true(layer.number[0] == -1 && layer.number[1] == 6);
    ok(nimbus_net_get_layer(net, 5, &layer, &error), &error); /* add */
    assert_int_equal(layer.n_sources, 2);
    assert_int_equal(layer.sources[0], 3);
    assert_int_equal(layer.sources[1], 4);
    ok(nimbus_net_get_layer(net, 9, &layer, &error), &error); /* average_pool */
    assert_int_equal(layer.count_padding, 1);
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_pass_from_the_middle),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_gradients_follow_states),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_wrong_layers),
        cmocka_unit_test(test_check_finite),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_image_info),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
