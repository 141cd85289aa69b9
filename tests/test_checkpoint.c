/* test_checkpoint.c - src/train: trainings that are cancelled, killed, starved and sabotaged
 *
 * The kill test runs this program again as a child ("--child ...") and kills it at random moments;
 * NIMBUS_KILLS sets how often. */
#include "kill_child.h"

/* ---- cancel -------------------------------------------------------------------------------- */

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
    /* finished: taken up again it gives the same net without a step */
    assert_true(nimbus_file_exists(o.checkpoint));
    nimbus_net *again = make_net(kind, 1);
    CHECK(nimbus_train(again, data, &o, &report, &error));
    assert_true(report.resumed);
    assert_same_net(whole, again);
    nimbus_net_free(again);
    assert_int_equal(remove(o.checkpoint), 0);
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
static nimbus_buffer make_checkpoint(const nimbus_data *data, const char *path, double step,
                                     const nimbus_net *teacher)
{
    nimbus_net *net = make_net(LINEAR, 1);
    nimbus_train_options o = small_options();
    nimbus_buffer file;
    (void)remove(path);
    o.teacher = teacher;
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
    nimbus_buffer file = make_checkpoint(data, path, 2, NULL);
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
    nimbus_buffer file = make_checkpoint(data, path, 2, NULL);
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
    FOREIGN(make_net(LINEAR, 1), data, o.table_rate = 0.25, "\"table_rate 0.25\"");
    FOREIGN(make_net(LINEAR, 1), data, o.warmup_steps = 3, "\"warmup_steps 3\"");
    FOREIGN(make_net(LINEAR, 1), data, o.beta1 = 0.5, "\"beta1 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.beta2 = 0.5, "\"beta2 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.momentum = 0.5, "\"momentum 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.label_smoothing = 0.25, "\"label_smoothing 0.25\"");
    FOREIGN(make_net(LINEAR, 1), data, o.mixup = 0.5, "\"mixup 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.noise = 0.5, "\"noise 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.temperature = 3, "\"temperature 3\"");
    FOREIGN(make_net(LINEAR, 1), data, o.tau = 0.75, "\"tau 0.75\"");
    FOREIGN(make_net(LINEAR, 1), data, o.tau_end = 0.25, "\"tau_end 0.25\"");
    FOREIGN(make_net(LINEAR, 1), data, o.margin_noise = 0.5, "\"margin_noise 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.code_noise = 0.5, "\"code_noise 0.5\"");
    FOREIGN(make_net(LINEAR, 1), data, o.optimiser = NIMBUS_SGD, "optimiser");
    FOREIGN(make_net(LINEAR, 1), data, o.teacher_outputs = outputs, "distill");
    FOREIGN(make_net(LINEAR, 1), other, (void)0, "data-features");
    FOREIGN(make_net(LINEAR, 1), more, (void)0, "data-shape");
    FOREIGN(make_net(PLAIN, 1), data, (void)0, "layers");
    FOREIGN(make_net(LINEAR, 2), data, (void)0, "the net to train");
    nimbus_net *teachers[] = {make_net(PLAIN, 2), make_net(PLAIN, 3)};
    nimbus_buffer taught = make_checkpoint(data, path, 2, teachers[0]);
    FOREIGN(make_net(LINEAR, 1), data, o.teacher = teachers[1], "it has \"teacher ");
    CHECK(nimbus_file_write(path, file.bytes, file.size, &error));
    nimbus_buffer_free(&taught);
    for (size_t i = 0; i < 2; i++)
        nimbus_net_free(teachers[i]);
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
    nimbus_buffer file = make_checkpoint(data, path, 6, NULL);
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
        nimbus_buffer before = make_checkpoint(data, path, 3, NULL);
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
    if (status == NIMBUS_OK)
        (void)remove(checkpoint);
    if (status != NIMBUS_OK)
        (void)fprintf(stderr, "child: %s\n", error.message);
    nimbus_net_free(net);
    nimbus_data_free(data);
    return status == NIMBUS_OK ? 0 : 3;
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
    long kills_wanted = wanted ? atol(wanted) : 20, kills = 0, finished = 0;
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
            assert_true(now >= step); /* nothing that was written is lost */
            span *= now > step ? 1 : 1.2;
            kills += now > 0;
            step = now;
            continue;
        }
        /* The child ended, or was killed between saving its net and ending. */
        nimbus_net *net;
        CHECK(nimbus_net_load(result, &net, &error));
        assert_same_net(whole, net);
        (void)remove(checkpoint); /* the child may not have come to it */
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

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
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
