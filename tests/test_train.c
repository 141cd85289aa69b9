/* test_train.c - src/train: schedules, optimisers, batches, learning, determinism, refusals */
#include "train_problem.h"

/* ---- schedules, optimisers, random numbers --------------------------------------------------- */

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
        /* A gradient whose square overflows would leave its AdamW weight where it is. */
        CHECK(nimbus_moments_new(net, &o, &moments, &error));
        memset(nimbus_layer_param(&net->layers[1], "weight")->value, 0, 3 * sizeof(real));
        nimbus_layer_param(&net->layers[1], "weight")->grad[2] = (real)1e25;
        assert_int_equal(nimbus_moments_step(moments, 0.1, 0), kind);
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

/* Momentum 0 is what the library chooses; none is less. */
static void test_no_momentum(void **state)
{
    (void)state;
    nimbus_data *data = make_data(300, NIMBUS_F32, 1);
    static const double momenta[] = {-1, 1e-300, 0, 0.9}; /* 1e-300 is 0 in single precision */
    nimbus_net *nets[4];
    for (size_t i = 0; i < 4; i++) {
        nimbus_train_options o = small_options();
        o.optimiser = NIMBUS_SGD;
        o.momentum = momenta[i];
        nets[i] = trained(PLAIN, data, o, NULL);
    }
    assert_same_net(nets[0], nets[1]);
    assert_same_net(nets[2], nets[3]);
    assert_memory_not_equal(nimbus_layer_param(&nets[0]->layers[1], "weight")->value,
                            nimbus_layer_param(&nets[2]->layers[1], "weight")->value,
                            D * sizeof(real));
    for (size_t i = 0; i < 4; i++)
        nimbus_net_free(nets[i]);
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

static bool same_bytes(const nimbus_net *a, const nimbus_net *b)
{
    nimbus_buffer x = net_bytes(a), y = net_bytes(b);
    bool same = x.size == y.size && memcmp(x.bytes, y.bytes, x.size) == 0;
    nimbus_buffer_free(&x);
    nimbus_buffer_free(&y);
    return same;
}

static void test_seed_matters(void **state)
{
    (void)state;
    nimbus_data *data = make_data(100, NIMBUS_U8, 4);
    nimbus_train_options o = small_options();
    nimbus_net *a = trained(PLAIN, data, o, NULL);
    o.seed++;
    nimbus_net *b = trained(PLAIN, data, o, NULL);
    assert_false(same_bytes(a, b));
    nimbus_net_free(a);
    nimbus_net_free(b);
    nimbus_data_free(data);
}

/* Codes are drawn in layers of 32 codebooks and more alone. */
static void test_code_noise(void **state)
{
    (void)state;
    nimbus_data *data = make_data(100, NIMBUS_U8, 4);
    for (size_t c = 31; c <= 32; c++) {
        nimbus_net *nets[2];
        for (size_t i = 0; i < 2; i++) {
            nimbus_train_options o = small_options();
            o.code_noise = i ? 0.2 : 0;
            nets[i] = nimbus_net_new();
            assert_non_null(nets[i]);
            add_input(nets[i]);
            add_trees(nets[i], CLASSES, c, 1);
            CHECK(nimbus_train(nets[i], data, &o, NULL, &error));
            assert_true(nets[i]->layers[1].lookup->code_noise == 0); /* none outside of steps */
        }
        assert_true(same_bytes(nets[0], nets[1]) == (c < 32));
        nimbus_net_free(nets[0]);
        nimbus_net_free(nets[1]);
    }
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
    /* Below 0 it is none, and the teacher is not asked. */
    nimbus_net *alone = make_net(LINEAR, 9);
    by_rows = make_net(LINEAR, 9);
    o.distill = -1;
    CHECK(nimbus_train(by_rows, data, &o, NULL, &error));
    o.teacher_outputs = NULL;
    CHECK(nimbus_train(alone, data, &o, NULL, &error));
    assert_same_net(alone, by_rows);
    nimbus_net_free(alone);
    nimbus_net_free(by_rows);
    o.distill = 1;
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

/* What layer l gives for the first n rows. */
static real *outputs_of(const nimbus_net *net, const nimbus_data *data, size_t n, size_t l)
{
    const size_t n_values = n * nimbus_shape_width(net->layers[l].shape);
    const uint8_t *rows = nimbus_data_features(data);
    real *y = nimbus_alloc(n_values, sizeof *y);
    nimbus_net *copy;
    nimbus_pass *pass;
    CHECK(nimbus_net_copy(net, &copy, &error));
    CHECK(nimbus_pass_new(copy, 0, n, 1, &pass, &error));
    for (size_t i = 0; i < n * D; i++)
        nimbus_pass_input(pass)[i] = rows[i];
    nimbus_pass_forward(pass, n, l);
    memcpy(y, pass->out[l], n_values * sizeof *y);
    nimbus_pass_free(pass);
    nimbus_net_free(copy);
    return y;
}

/* Hints pull what SOFT layers read towards what the teacher's layer of the same name gives. */
static void test_hints(void **state)
{
    (void)state;
    enum { N = 64, NORM = 2 };
    nimbus_data *data = make_data(300, NIMBUS_U8, 4);
    nimbus_net *teacher = nimbus_net_new();
    nimbus_train_options o = small_options();
    double errors[2] = {0};
    add_input(teacher);
    add(teacher, (nimbus_layer){.type = &nimbus_layer_linear, .units = 8}, 1);
    add(teacher, (nimbus_layer){.type = &nimbus_layer_batch_norm}, 1);
    add(teacher, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES}, 1);
    CHECK(nimbus_train(teacher, data, &o, NULL, &error));
    o.teacher = teacher;
    o.epochs = 6;
    real *wanted = outputs_of(teacher, data, N, NORM);
    for (size_t with_hints = 0; with_hints < 2; with_hints++) {
        nimbus_net *student = make_net(WITH_TREES, 9);
        o.hint = with_hints ? 10 : 0;
        CHECK(nimbus_train(student, data, &o, NULL, &error));
        real *y = outputs_of(student, data, N, NORM);
        for (size_t i = 0; i < N * nimbus_shape_width(teacher->layers[NORM].shape); i++)
            errors[with_hints] += (double)((y[i] - wanted[i]) * (y[i] - wanted[i]));
        nimbus_free(y);
        nimbus_net_free(student);
    }
    if (!(errors[1] < errors[0] / 2))
        fail_msg("squared error of what is read: %g with hints, %g without", errors[1], errors[0]);
    /* without trees nothing is read by them */
    nimbus_net *plain = make_net(LINEAR, 9);
    CHECK_FAILS(nimbus_train(plain, data, &o, NULL, &error), NIMBUS_ERR_MISMATCH,
                "hint is 10, but no layer that trees read has its like");
    nimbus_net_free(plain);
    nimbus_free(wanted);
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
    REFUSED(o.code_noise = 1, NIMBUS_ERR_ARGUMENT, "code_noise is 1, expected 0 to 0.9");
    REFUSED(o.code_noise = -2, NIMBUS_ERR_ARGUMENT, "expected 0 to 0.9, or -1 for none");
    REFUSED(o.label_smoothing = 2, NIMBUS_ERR_ARGUMENT, "label_smoothing");
    REFUSED(o.optimiser = (nimbus_optimiser)7, NIMBUS_ERR_ARGUMENT, "optimiser");
    REFUSED(o.shift = SIDE, NIMBUS_ERR_ARGUMENT, "shift");
    REFUSED(o.distill = 0.5, NIMBUS_ERR_ARGUMENT, "teacher");
    REFUSED(o.hint = 0.5, NIMBUS_ERR_ARGUMENT, "hint is 0.5, but there is no teacher");
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
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "row 8, column 6");
    features[7 * D + 5] = -INFINITY;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "infinite");
    features[7 * D + 5] = saved;
    float outputs[50 * CLASSES] = {0};
    outputs[3 * CLASSES + 1] = NAN;
    o.teacher_outputs = outputs;
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE,
                "teacher's outputs: row 4, column 2 is NaN");
    o.teacher_outputs = NULL;
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
    /* Targets of a finite loss whose gradients cannot be squared. */
    const float x[] = {1, 2, 3, 4, 5, 6}, far[] = {1e25f, -1e25f};
    nimbus_data_info info = {.n_rows = 2, .n_features = 3, .dtype = NIMBUS_F32, .n_targets = 1};
    CHECK(nimbus_data_from_arrays(&info, x, NULL, far, &data, &error));
    net = three_weights();
    net->loss = NIMBUS_LOSS_SQUARED_ERROR;
    o = small_options();
    CHECK_FAILS(nimbus_train(net, data, &o, NULL, &error), NIMBUS_ERR_VALUE, "gradient overflows");
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
    assert_int_equal(p->epoch, *calls < 12 ? *calls / 4 + 1 : 3);
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
    assert_int_equal(calls, 13); /* before every step, and at the end */
    nimbus_data_free(data);
}

/* ---- all together ---------------------------------------------------------------------------- */

int main(void)
{
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
        cmocka_unit_test(test_code_noise),
        cmocka_unit_test(test_distillation),
        cmocka_unit_test(test_no_momentum),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_first_layer),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_nan_in_data_and_net),
        cmocka_unit_test(test_divergence_is_noticed_and_not_saved),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
