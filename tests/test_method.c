/* test_method.c - this and previous methods of conversion, on cases small enough to know */
#include "convert_maker.h"

static nimbus_convert_options options_for(nimbus_method method)
{
    nimbus_convert_options o = convert_options();
    o.method = method;
    return o;
}

/* ---- k-means --------------------------------------------------------------------------------- */

/* Four heaps far from each other in either codebook: the centroids are their means. */
static void test_kmeans(void **state)
{
    (void)state;
    enum { N_ROWS = 80, WIDTH = 5 };
    static const uint32_t first[] = {0, 3, 5};
    real x[N_ROWS * WIDTH];
    nimbus_net *net = one_layer((nimbus_shape){WIDTH, 1, 1}, 2);
    nimbus_layer *layer = &net->layers[1];
    nimbus_groups groups = groups_of((nimbus_shape){WIDTH, 1, 1}, 3, NIMBUS_COLUMNS_BLOCK);
    for (size_t n = 0; n < N_ROWS; n++)
        for (size_t d = 0; d < WIDTH; d++)
            x[n * WIDTH + d] = (real)(n % 4 * 10) + (real)(n / 4 % 2 ? 1 : -1) / 2;
    CHECK(nimbus_centroids_attach(layer, 2, 2, 3, &error));
    nimbus_start_job job = {
        .x = x, .n_rows = N_ROWS, .n_columns = WIDTH, .groups = &groups, .seed = 3};
    CHECK(nimbus_centroids_start(layer, &job, &error));
    const real *columns = values_of(layer, "columns"), *centroids = values_of(layer, "centroids");
    for (size_t c = 0; c < 2; c++) {
        bool seen[4] = {0};
        for (size_t v = 0; v < 3; v++) {
            bool there = first[c] + v < first[c + 1];
            assert_true(columns[c * 3 + v] == (there ? (real)(first[c] + v) : -1));
        }
        for (size_t k = 0; k < 4; k++) {
            const real *centroid = centroids + (c * 4 + k) * 3;
            size_t heap = (size_t)(centroid[0] / 10 + (real)0.5);
            assert_true(heap < 4 && !seen[heap]);
            seen[heap] = true;
            for (size_t v = 0; v < first[c + 1] - first[c]; v++)
                assert_near((double)centroid[v], 10 * (double)heap, 1e-5);
        }
    }
    nimbus_groups_free(&groups);
    nimbus_net_free(net);
}

/* More leaves than different rows: no centroid is lost or becomes NaN. */
static void test_kmeans_of_equal_rows(void **state)
{
    (void)state;
    real x[20 * 2] = {0};
    nimbus_net *net = one_layer((nimbus_shape){2, 1, 1}, 2);
    nimbus_groups groups = groups_of((nimbus_shape){2, 1, 1}, 2, NIMBUS_COLUMNS_BLOCK);
    CHECK(nimbus_centroids_attach(&net->layers[1], 1, 4, 2, &error));
    nimbus_start_job job = {.x = x, .n_rows = 20, .n_columns = 2, .groups = &groups};
    CHECK(nimbus_centroids_start(&net->layers[1], &job, &error));
    CHECK(nimbus_net_check_finite(net, &error));
    nimbus_groups_free(&groups);
    nimbus_net_free(net);
}

/* ---- MADDNESS -------------------------------------------------------------------------------- */

/* What a net's first linear layer reads. */
static real *normalised(const nimbus_net *net, const nimbus_data *data)
{
    const nimbus_layer *input = &net->layers[0];
    size_t d = width_out(input), n = nimbus_data_get_info(data)->n_rows;
    const float *from = nimbus_data_features(data);
    real *x = nimbus_alloc(n * d, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n * d; i++)
        x[i] = (from[i] - values_of(input, "mean")[i % d]) * values_of(input, "inverse_std")[i % d];
    return x;
}

/* Tables T of prototypes by ridge regression: with G the codes and T0 the mean tables, the gradient
 * of |W x - G T|^2 + |T - T0|^2 vanishes (Blalock & Guttag 2021, section 4.2, lambda 1). */
static void test_maddness_is_ridge(void **state)
{
    (void)state;
    nimbus_data *data = make_data(200, NIMBUS_F32, 4);
    nimbus_net *teacher = float_net("mlp:24", data, 2);
    nimbus_convert_options o = options_for(NIMBUS_METHOD_MADDNESS);
    o.bits = 32;
    nimbus_net *net = converted(teacher, data, &o);
    nimbus_layer *layer = &net->layers[1];
    const size_t d = width_in(layer), m = width_out(layer), k = layer->lookup->n_leaves;
    const size_t n_codebooks = layer->lookup->n_codebooks, n = 200;
    real *x = normalised(net, data), *tables = values_of(layer, "tables");
    uint8_t *codes = nimbus_alloc(n, n_codebooks);
    double *gradient = nimbus_alloc(n_codebooks * k * m, sizeof *gradient);
    assert_true(codes && gradient);
    nimbus_lookup_encode(layer, x, n, codes, 1);
    for (size_t r = 0; r < n; r++)
        for (size_t j = 0; j < m; j++) {
            double left = 0;
            for (size_t i = 0; i < d; i++)
                left += (double)(values_of(layer, "weight")[j * d + i] * x[r * d + i]);
            for (size_t c = 0; c < n_codebooks; c++)
                left -= (double)tables[(c * k + codes[r * n_codebooks + c]) * m + j];
            for (size_t c = 0; c < n_codebooks; c++)
                gradient[(c * k + codes[r * n_codebooks + c]) * m + j] += left;
        }
    real *fitted = nimbus_alloc(n_codebooks * k * m, sizeof *fitted);
    assert_non_null(fitted);
    memcpy(fitted, tables, n_codebooks * k * m * sizeof *fitted);
    nimbus_groups groups = groups_of(layer->in_shape, 6, NIMBUS_COLUMNS_AUTO);
    double unused;
    real *y = nimbus_alloc(n * m, sizeof *y); /* means only measure their error against it */
    assert_non_null(y);
    nimbus_table_job means = {.x = x,
                              .y = y,
                              .n_rows = n,
                              .weight = values_of(layer, "weight"),
                              .groups = &groups,
                              .method = NIMBUS_MEAN};
    CHECK(nimbus_tables_fit(layer, &means, &unused, &error));
    for (size_t i = 0; i < n_codebooks * k * m; i++)
        assert_near(gradient[i], (double)(fitted[i] - tables[i]), 2e-3);
    assert_int_equal(layer->lookup->kind, NIMBUS_TREE_SHARED);
    nimbus_groups_free(&groups);
    nimbus_free(y);
    nimbus_free(x);
    nimbus_free(codes);
    nimbus_free(gradient);
    nimbus_free(fitted);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Its layers know nothing of each other. */
static void test_maddness_layers_are_apart(void **state)
{
    (void)state;
    static const char *const names[] = {"thresholds", "tables", "columns"};
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 2);
    nimbus_convert_options o = options_for(NIMBUS_METHOD_MADDNESS);
    nimbus_net *all = converted(teacher, data, &o);
    o.layers = "linear1:exact";
    nimbus_net *but_first = converted(teacher, data, &o);
    for (size_t i = 0; i < 3; i++) {
        const nimbus_layer *a = &all->layers[3], *b = &but_first->layers[3];
        assert_memory_equal(values_of(a, names[i]), values_of(b, names[i]),
                            nimbus_layer_param((nimbus_layer *)a, names[i])->n * sizeof(real));
    }
    /* and one step serves all outputs of a layer */
    const real *scales = values_of(&all->layers[3], "scales");
    for (size_t m = 1; m < width_out(&all->layers[3]); m++)
        assert_true(scales[m] == scales[0]);
    nimbus_net_free(all);
    nimbus_net_free(but_first);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* ---- starts and trainings -------------------------------------------------------------------- */

static void test_random_start_forgets(void **state)
{
    (void)state;
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *a = float_net("mlp:24,24;bn", data, 1), *b = float_net("mlp:24,24;bn", data, 3);
    nimbus_convert_options o = options_for(NIMBUS_METHOD_RANDOM_START);
    o.epochs = SIZE_MAX;
    nimbus_net *from_a = converted(a, data, &o), *from_b = converted(b, data, &o);
    for (size_t l = 1; l < from_a->n_layers; l++)
        for (size_t i = 0; i < from_a->layers[l].n_params; i++) {
            const nimbus_param *p = &from_a->layers[l].params[i];
            if (strcmp(p->name, "weight") != 0)
                assert_memory_equal(p->value, values_of(&from_b->layers[l], p->name),
                                    p->n * sizeof(real));
        }
    nimbus_net_free(from_a);
    nimbus_net_free(from_b);
    nimbus_net_free(a);
    nimbus_net_free(b);
    nimbus_data_free(data);
}

/* Stella Nera's margins are raw differences, its thresholds learn half as fast. */
static void test_stella_nera(void **state)
{
    (void)state;
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 2);
    nimbus_convert_options o = options_for(NIMBUS_METHOD_STELLA_NERA);
    o.budget = 4;
    nimbus_net *net = converted(teacher, data, &o);
    for (size_t l = 1; l <= 5; l += 2) {
        const nimbus_layer *layer = &net->layers[l];
        assert_int_equal(layer->lookup->estimator, NIMBUS_ESTIMATOR_SOFTMAX);
        assert_true(layer->lookup->temperature == 1);
        const nimbus_param *margin = nimbus_layer_param((nimbus_layer *)layer, "margin");
        for (size_t i = 0; i < margin->n; i++)
            assert_true(margin->value[i] == 1);
        assert_true(nimbus_layer_param((nimbus_layer *)layer, "thresholds")->rate_scale == 0.5f);
    }
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Weights of the seed's and MADDNESS's nets stay; LUT-NN learns them. */
static void test_who_trains_weights(void **state)
{
    (void)state;
    static const nimbus_method methods[] = {NIMBUS_METHOD_NIMBUS, NIMBUS_METHOD_SEED,
                                            NIMBUS_METHOD_LUT_NN};
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 2);
    for (size_t i = 0; i < 3; i++) {
        nimbus_convert_options o = options_for(methods[i]);
        o.budget = 3;
        nimbus_net *net = converted(teacher, data, &o);
        const nimbus_param *before = nimbus_layer_param(&teacher->layers[3], "weight");
        bool same = memcmp(before->value, values_of(&net->layers[3], "weight"),
                           before->n * sizeof(real)) == 0;
        assert_int_equal(same, methods[i] != NIMBUS_METHOD_LUT_NN);
        nimbus_net_free(net);
    }
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* A budget is shared as the published epochs are: layers' trainings, then all together. */
static void test_budget(void **state)
{
    (void)state;
    static const size_t last[] = {
        [NIMBUS_METHOD_NIMBUS] = 10,       [NIMBUS_METHOD_MADDNESS] = 0,
        [NIMBUS_METHOD_STELLA_NERA] = 8, /* 10 * 300 / 375 */
        [NIMBUS_METHOD_LUT_NN] = 10,       [NIMBUS_METHOD_DENSE_START] = 10,
        [NIMBUS_METHOD_RANDOM_START] = 10, [NIMBUS_METHOD_SEED] = 0};
    nimbus_data *data = make_data(120, NIMBUS_U8, 4);
    nimbus_net *chain = float_net("mlp:24,24", data, 2);
    nimbus_net *shortcut = float_net("mlp:24,24,24;residual", data, 2);
    for (size_t i = 0; i < sizeof last / sizeof last[0]; i++) {
        nimbus_convert_options o = options_for((nimbus_method)i);
        nimbus_convert_report report;
        nimbus_net *net;
        o.budget = 10;
        CHECK(nimbus_convert(shortcut, data, &o, &net, &report, &error));
        double all = report.rows_seen / 120;
        assert_true(i == NIMBUS_METHOD_MADDNESS ? all == 0 : fabs(all - 10) < 1.1);
        nimbus_net_free(net);
        o.fit_rows = 60; /* trainings of layers alone see only these */
        CHECK(nimbus_convert(chain, data, &o, &net, &report, &error));
        assert_int_equal(report.tune.epochs, last[i]);
        /* all rows of the budget, but for what rounding takes */
        double seen = report.rows_seen / 120;
        assert_true(i == NIMBUS_METHOD_MADDNESS ? seen == 0 : fabs(seen - 10) < 0.6);
        assert_int_equal(report.n_layers, 3);
        nimbus_net_free(net);
    }
    /* layers that are not trained alone, as others read past them, take nothing of it */
    nimbus_convert_options o = options_for(NIMBUS_METHOD_NIMBUS);
    nimbus_convert_report report;
    nimbus_net *net;
    o.budget = 10;
    o.layer_epochs = 2;
    CHECK(nimbus_convert(shortcut, data, &o, &net, &report, &error));
    assert_true(fabs(report.rows_seen / 120 - 10) < 0.6);
    nimbus_net_free(net);
    nimbus_net_free(chain);
    nimbus_net_free(shortcut);
    nimbus_data_free(data);
}

/* ---- all methods ----------------------------------------------------------------------------- */

static int stop_at(void *user, const nimbus_progress *p)
{
    (void)p;
    size_t *left = user;
    return *left > 0 && --*left == 0;
}

/* Every method learns, gives the same bytes for any number of threads, and goes on from its
 * checkpoint. */
static void test_every_method(void **state)
{
    (void)state;
    nimbus_data *data = make_data(300, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24;bn", data, 5), *net;
    char path[300];
    (void)snprintf(path, sizeof path, "%s", path_of("method.ck"));
    for (size_t i = NIMBUS_METHOD_NIMBUS; i <= NIMBUS_METHOD_SEED; i++) {
        nimbus_convert_options o = options_for((nimbus_method)i);
        o.budget = 12;
        o.n_threads = 1;
        nimbus_net *whole = converted(teacher, data, &o);
        double accuracy = accuracy_of(whole, data);
        if (!(accuracy > (i == NIMBUS_METHOD_RANDOM_START ? 0.5 : 0.8)))
            fail_msg("method %zu: accuracy %g", i, accuracy);
        o.n_threads = 3;
        o.checkpoint = path;
        o.progress = stop_at;
        for (size_t left = 2; left < 40; left += 9) {
            size_t counter = left;
            o.progress_user = &counter;
            nimbus_status status = nimbus_convert(teacher, data, &o, &net, NULL, &error);
            counter = 0;
            if (status == NIMBUS_ERR_CANCELLED)
                CHECK(nimbus_convert(teacher, data, &o, &net, NULL, &error));
            else
                CHECK(status);
            assert_same_net(whole, net);
            nimbus_net_free(net);
            (void)remove(path);
        }
        nimbus_net_free(whole);
    }
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* A net with centroids is a .net file like any other; it cannot become a program. */
static void test_files_of_centroids(void **state)
{
    (void)state;
    nimbus_data *data = make_data(200, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24,24", data, 2), *read;
    nimbus_convert_options o = options_for(NIMBUS_METHOD_LUT_NN);
    o.budget = 1;
    nimbus_net *net = converted(teacher, data, &o);
    nimbus_buffer bytes = net_bytes(net);
    CHECK(nimbus_net_read(bytes.bytes, bytes.size, &read, &error));
    assert_same_net(net, read);
    assert_true(accuracy_of(net, data) == accuracy_of(read, data));
    static const real wrong[] = {-2, 1e6, 0.5, 1};
    for (size_t i = 0; i < 4; i++) { /* the last: a column that another codebook has */
        real *columns = values_of(&net->layers[1], "columns"), kept = columns[0];
        columns[0] = wrong[i];
        nimbus_buffer bad = net_bytes(net);
        nimbus_net *none;
        CHECK_FAILS(nimbus_net_read(bad.bytes, bad.size, &none, &error), NIMBUS_ERR_VALUE,
                    "of its centroids is");
        nimbus_buffer_free(&bad);
        columns[0] = kept;
    }
    void *program;
    size_t n_bytes;
    nimbus_compile_options compile = NIMBUS_COMPILE_OPTIONS_INIT;
    CHECK_FAILS(nimbus_compile(net, &compile, &program, &n_bytes, &error), NIMBUS_ERR_UNSUPPORTED,
                "layer linear1 finds its tables by nearest centroids");
    nimbus_buffer_free(&bytes);
    nimbus_net_free(read);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

static void test_refused(void **state)
{
    (void)state;
    nimbus_data *data = make_data(60, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:24", data, 1), *net;
    nimbus_convert_options o = options_for((nimbus_method)99);
    CHECK_FAILS(nimbus_convert(teacher, data, &o, &net, NULL, &error), NIMBUS_ERR_ARGUMENT,
                "unknown method 99");
    o = options_for(NIMBUS_METHOD_NIMBUS);
    o.budget = -1;
    CHECK_FAILS(nimbus_convert(teacher, data, &o, &net, NULL, &error), NIMBUS_ERR_ARGUMENT,
                "budget of -1 epochs");
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kmeans),
        cmocka_unit_test(test_kmeans_of_equal_rows),
        cmocka_unit_test(test_maddness_is_ridge),
        cmocka_unit_test(test_maddness_layers_are_apart),
        cmocka_unit_test(test_random_start_forgets),
        cmocka_unit_test(test_stella_nera),
        cmocka_unit_test(test_who_trains_weights),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_every_method),
        cmocka_unit_test(test_files_of_centroids),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("methods", tests, make_folder, remove_folder);
}
