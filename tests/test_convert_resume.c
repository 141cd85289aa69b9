/* test_convert_resume.c - conversions that are cancelled, killed, starved and sabotaged
 *
 * The kill test runs this program again as a child ("--child ...") and kills it at random moments;
 * NIMBUS_KILLS sets how often. */
#include "convert_maker.h"
#include "kill_child.h"

/* Five layers, each trained on its own, then together: all kinds of checkpoints there are. */
static nimbus_net *deep_net(const nimbus_data *data)
{
    return float_net("mlp:8,8,8,8", data, 1);
}

static nimbus_convert_options deep_options(const char *checkpoint)
{
    nimbus_convert_options o = convert_options();
    o.v = 4;
    o.layer_epochs = 1;
    o.checkpoint = checkpoint;
    o.train.checkpoint_seconds = 1e9; /* at the end of an epoch, and when cancelled */
    o.train.margin_noise = 0.2;
    o.train.code_noise = 0.1;
    o.train.tau_end = 0.3;
    o.train.hint = 0.1;
    return o;
}

static void remove_checkpoints(const char *path)
{
    char tune[310];
    (void)snprintf(tune, sizeof tune, "%s.tune", path);
    (void)remove(path);
    (void)remove(tune);
}

static void copy_path(char out[300], const char *name)
{
    (void)snprintf(out, 300, "%s", path_of(name));
}

/* What a finished conversion leaves: its checkpoint, and none of the training. */
static void assert_only_finished(const char *path)
{
    char tune[310];
    (void)snprintf(tune, sizeof tune, "%s.tune", path);
    assert_true(nimbus_file_exists(path));
    assert_false(nimbus_file_exists(tune));
}

/* ---- cancel ------------------------------------------------------------------------------------
 */

typedef struct countdown {
    size_t calls, stop_at; /* 1-based; 0: never */
} countdown;

static int count_calls(void *user, const nimbus_progress *p)
{
    (void)p;
    countdown *c = user;
    return ++c->calls == c->stop_at;
}

/* Cancelled at every single report of progress, then taken up again: the same bytes. */
static void test_cancel_anywhere(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    nimbus_net *teacher = deep_net(data), *net;
    countdown c = {0, 0};
    char path[300];
    copy_path(path, "cancel.ck");
    nimbus_convert_options o = deep_options(NULL);
    o.progress = count_calls;
    o.progress_user = &c;
    nimbus_net *whole = converted(teacher, data, &o);
    size_t n_calls = c.calls;
    assert_true(n_calls > 5 + 5 * 2 + 4 - 1); /* fits, steps of layers, steps of all */
    o.checkpoint = path;
    for (size_t stop = 1; stop <= n_calls; stop++) {
        remove_checkpoints(path);
        c = (countdown){0, stop};
        o.n_threads = 1 + stop % 2;
        CHECK_FAILS(nimbus_convert(teacher, data, &o, &net, NULL, &error), NIMBUS_ERR_CANCELLED,
                    "stopped");
        assert_null(net);
        c = (countdown){0, 0};
        o.n_threads = 2 - stop % 2;
        net = converted(teacher, data, &o);
        assert_true(stop < 3 || c.calls < n_calls);
        assert_same_net(whole, net);
        assert_only_finished(path);
        nimbus_net_free(net);
    }
    /* finished: asked again it gives the same, at once, and still says what it converted */
    nimbus_convert_report report;
    c = (countdown){0, 0};
    CHECK(nimbus_convert(teacher, data, &o, &net, &report, &error));
    assert_same_net(whole, net);
    assert_int_equal(c.calls, 0);
    assert_int_equal(report.n_layers, 5);
    assert_string_equal(report.layers[4].name, "linear5");
    assert_int_equal(report.layers[4].n_codebooks, 2);
    assert_true(isnan(report.layers[4].error_fit));
    nimbus_net_free(net);
    /* and cancelled many times on the way */
    for (uint64_t round = 0; round < 5; round++) {
        nimbus_status status = NIMBUS_ERR_CANCELLED;
        size_t stops = 0;
        remove_checkpoints(path);
        while (status == NIMBUS_ERR_CANCELLED) {
            c = (countdown){0, 2 + nimbus_random_below(round, 1, stops++, 4)};
            status = nimbus_convert(teacher, data, &o, &net, NULL, &error);
        }
        CHECK(status);
        assert_true(stops > 3);
        assert_same_net(whole, net);
        nimbus_net_free(net);
    }
    nimbus_net_free(whole);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* ---- foreign and damaged checkpoints ------------------------------------------------------------
 */

/* Leaves the checkpoint of a conversion that was cancelled at this report of progress. */
static nimbus_buffer make_checkpoint(const nimbus_net *teacher, const nimbus_data *data,
                                     nimbus_convert_options o, const char *path, size_t stop_at)
{
    countdown c = {0, stop_at};
    nimbus_net *net;
    nimbus_buffer file;
    remove_checkpoints(path);
    o.checkpoint = path;
    o.progress = count_calls;
    o.progress_user = &c;
    CHECK_FAILS(nimbus_convert(teacher, data, &o, &net, NULL, &error), NIMBUS_ERR_CANCELLED, "");
    CHECK(nimbus_file_read(path, SIZE_MAX, &file, &error));
    return file;
}

static void test_foreign_checkpoints(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4), *other_data = make_data(64, NIMBUS_U8, 5);
    nimbus_net *teacher = deep_net(data), *other_net = deep_net(other_data), *net;
    char path[300];
    copy_path(path, "foreign.ck");
    nimbus_buffer file = make_checkpoint(teacher, data, deep_options(NULL), path, 8);
#define FOREIGN(net_of, rows, change, says)                                                        \
    do {                                                                                           \
        nimbus_convert_options o = deep_options(path);                                             \
        change;                                                                                    \
        CHECK_FAILS(nimbus_convert(net_of, rows, &o, &net, NULL, &error), NIMBUS_ERR_MISMATCH,     \
                    "foreign.ck");                                                                 \
        assert_non_null(strstr(error.message, "delete it"));                                       \
        assert_non_null(strstr(error.message, says));                                              \
        assert_null(net);                                                                          \
        assert_true(nimbus_file_exists(path));                                                     \
    } while (0)
    FOREIGN(teacher, data, o.v = 3, "now it is \"linear1 v 3 ");
    FOREIGN(teacher, data, o.levels = 2, " levels 2 ");
    FOREIGN(teacher, data, o.bits = 7, " bits 7 ");
    FOREIGN(teacher, data, o.tree = NIMBUS_CHOICE_FERN, " tree ");
    FOREIGN(teacher, data, o.preset = NIMBUS_SPEED, "now it is \"preset ");
    FOREIGN(teacher, data, o.split_method = NIMBUS_PLAIN, "\"splits ");
    FOREIGN(teacher, data, o.table_method = NIMBUS_MEAN, "\"tables ");
    FOREIGN(teacher, data, o.estimator = NIMBUS_ESTIMATOR_SIGMOID, "\"estimator ");
    FOREIGN(teacher, data, o.layers = "linear5:exact", "\"linear5 exact\"");
    FOREIGN(teacher, data, o.fit_rows = 60, "now it is \"fit-rows 60\"");
    FOREIGN(teacher, data, o.lambda = 0.02, "lambda ");
    FOREIGN(teacher, data, o.layer_epochs = 2, "layer-epochs ");
    FOREIGN(teacher, data, o.epochs = 3, "now it is \"epochs 3\"");
    FOREIGN(teacher, data, o.seed = 12, "now it is \"seed 12\"");
    FOREIGN(teacher, data, o.train.rate = 0.01, "\"rate ");
    FOREIGN(teacher, data, o.train.table_rate = 0.01, "\"table_rate ");
    FOREIGN(teacher, data, o.train.batch = 31, "now it is \"batch 31\"");
    FOREIGN(teacher, data, o.train.optimiser = NIMBUS_SGD, "\"optimiser ");
    FOREIGN(teacher, data, o.train.schedule = NIMBUS_CONSTANT, "\"schedule ");
    FOREIGN(teacher, data, o.train.shift = 1, "now it is \"shift 1\"");
    FOREIGN(teacher, data, o.train.margin_noise = 0.1, "\"margin_noise ");
    FOREIGN(teacher, data, o.train.code_noise = 0.2, "\"code_noise ");
    FOREIGN(teacher, data, o.train.tau_end = 0.2, "\"tau_end ");
    FOREIGN(teacher, data, o.train.distill = 0.7, "\"distill ");
    FOREIGN(teacher, data, o.train.hint = 0.2, "\"hint ");
    FOREIGN(teacher, data, o.train.weight_decay = 0.1, "\"weight_decay ");
    FOREIGN(teacher, data, o.train.flip = 1, "now it is \"flip 1\"");
    FOREIGN(teacher, data, o.trees = 2, " trees 2 ");
    FOREIGN(teacher, data, o.layers = "linear1:columns=patch", " columns ");
    FOREIGN(teacher, data, o.budget = 3, "now it is \"budget 3\"");
    FOREIGN(teacher, data, o.most_change = -1, "now it is \"most-change -1\"");
    FOREIGN(teacher, data,
            (o.method = NIMBUS_METHOD_SEED,
             o.train.hint = o.train.margin_noise = o.train.code_noise = 0),
            "now it is \"method ");
    FOREIGN(teacher, other_data, (void)0, "\"data-features ");
    FOREIGN(other_net, data, (void)0, "\"net ");
    /* what does not shape the result may change */
    nimbus_convert_options same = deep_options(NULL);
    nimbus_net *whole = converted(teacher, data, &same);
    same.checkpoint = path;
    same.n_threads = 2;
    same.valid = other_data;
    same.train.checkpoint_seconds = 7;
    net = converted(teacher, data, &same);
    assert_same_net(whole, net);
    nimbus_net_free(net);
    /* a finished one is as particular */
    FOREIGN(teacher, data, o.train.rate = 0.01, "\"rate ");
    nimbus_net_free(whole);
    nimbus_net_free(teacher);
    nimbus_net_free(other_net);
    nimbus_buffer_free(&file);
    nimbus_data_free(data);
    nimbus_data_free(other_data);
}

static nimbus_status read_checkpoint(const uint8_t *bytes, size_t size)
{
    conversion c = {.layers_done = 99};
    nimbus_status status = nimbus_conversion_read(&c, bytes, size, &error);
    assert_true((status == NIMBUS_OK) == (c.net != NULL && c.layers_done != 99));
    nimbus_net_free(c.net);
    nimbus_buffer_free(&c.fingerprint);
    return status;
}

static void test_damaged_checkpoints(void **state)
{
    (void)state;
    nimbus_data *data = make_data(16, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("36-2-3", data, 0), *net;
    nimbus_convert_options o = convert_options();
    char path[300];
    copy_path(path, "damaged.ck");
    o.v = 36;
    o.levels = 1;
    o.layers = "linear2:v=2";
    nimbus_buffer file = make_checkpoint(teacher, data, o, path, 2);
    o.checkpoint = path;
    CHECK(read_checkpoint(file.bytes, file.size));
    for (size_t n = 0; n < file.size; n++) {
        uint8_t *cut = nimbus_alloc(n, 1); /* exactly n, so that a sanitizer sees more */
        assert_non_null(cut);
        memcpy(cut, file.bytes, n);
        assert_int_not_equal(read_checkpoint(cut, n), NIMBUS_OK);
        nimbus_free(cut);
    }
    for (size_t bit = 0; bit < 8 * file.size; bit++) {
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(read_checkpoint(file.bytes, file.size), NIMBUS_OK);
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    print_message("%zu prefixes and %zu flipped bits refused\n", file.size, 8 * file.size);
    /* through the conversion: refused, named, left where it is */
    for (size_t i = 0; i < 20; i++) {
        size_t at = i * file.size / 20, size = i % 2 ? file.size : at;
        file.bytes[at] ^= 4;
        CHECK(nimbus_file_write(path, file.bytes, size, &error));
        nimbus_status status = nimbus_convert(teacher, data, &o, &net, NULL, &error);
        assert_true(status == NIMBUS_ERR_FORMAT || status == NIMBUS_ERR_CHECKSUM ||
                    status == NIMBUS_ERR_TRUNCATED || status == NIMBUS_ERR_VERSION);
        assert_non_null(strstr(error.message, "damaged.ck"));
        assert_non_null(strstr(error.message, "delete it"));
        assert_true(!net && nimbus_file_exists(path));
        file.bytes[at] ^= 4;
    }
    nimbus_buffer_free(&file);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Right checksums and fingerprint around a net, or a progress, that cannot be. */
static void test_hostile_checkpoints(void **state)
{
    (void)state;
    nimbus_data *data = make_data(32, NIMBUS_U8, 4);
    nimbus_net *teacher = float_net("mlp:8,8", data, 0), *net;
    nimbus_convert_options o = convert_options();
    char path[300];
    copy_path(path, "hostile.ck");
    o.v = 4;
    nimbus_buffer file = make_checkpoint(teacher, data, o, path, 3); /* two layers are done */
    o.checkpoint = path;
    static const char *const others[] = {"mlp:8",  "mlp:8,8,8",    "mlp:9,8", "mlp:8,8;bn",
                                         "36-3",   "mlp:8,8;tanh", "mlp:8,9", "lut:8x8,4x8,4x3",
                                         "mlp:8,8"};
    for (int i = 0; i < 15; i++) {
        conversion c = {.options = {.checkpoint = path}};
        CHECK(nimbus_conversion_read(&c, file.bytes, file.size, &error));
        assert_int_equal(c.layers_done, 4);
        if (i < 9) {
            nimbus_net_free(c.net);
            c.net = float_net(others[i], data, 0);
        } else if (i == 9) {
            c.layers_done = 6;
        } else if (i == 10) {
            c.layers_done = 0;
        } else if (i == 11) {
            c.rounded = true;
        } else if (i == 12) {
            c.layers_done = 7;
        } else if (i == 13) {
            c.tuned = true;
        } else {
            nimbus_buffer_free(&c.fingerprint);
            c.fingerprint = (nimbus_buffer){0};
        }
        c.began = nimbus_seconds();
        CHECK(nimbus_conversion_save(&c, &error));
        if (i == 8) /* the float net itself, as if nothing had been done */
            assert_int_equal(c.net->n_layers, teacher->n_layers);
        CHECK_FAILS(nimbus_convert(teacher, data, &o, &net, NULL, &error),
                    i == 14 ? NIMBUS_ERR_MISMATCH : NIMBUS_ERR_FORMAT, "hostile.ck");
        assert_null(net);
        nimbus_net_free(c.net);
        nimbus_buffer_free(&c.fingerprint);
    }
    nimbus_buffer_free(&file);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Every k-th file call fails: an error, and what was written before goes on to the same bytes. */
static void test_failing_file_calls(void **state)
{
    (void)state;
    nimbus_data *data = make_data(64, NIMBUS_U8, 4);
    nimbus_net *teacher = deep_net(data), *net;
    char path[300];
    copy_path(path, "failing.ck");
    nimbus_convert_options o = deep_options(path);
    nimbus_net *whole = converted(teacher, data, &o);
    bool failed = true;
    long k = 0;
    while (failed) {
        remove_checkpoints(path);
        nimbus_fail_file_call_after = ++k;
        nimbus_status status = nimbus_convert(teacher, data, &o, &net, NULL, &error);
        failed = nimbus_fail_file_call_after == 0;
        nimbus_fail_file_call_after = 0;
        assert_int_equal(status, failed ? NIMBUS_ERR_IO : NIMBUS_OK);
        if (failed) {
            assert_null(net);
            assert_non_null(strstr(error.message, "failing.ck"));
            net = converted(teacher, data, &o);
        }
        assert_same_net(whole, net);
        assert_only_finished(path);
        nimbus_net_free(net);
    }
    print_message("%ld file calls failed one after another\n", k - 1);
    assert_true(k > 80);
    nimbus_net_free(whole);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* ---- kill -9 ------------------------------------------------------------------------------------
 */

/* What the child does: convert with a checkpoint after every step, save the net, clean up. */
static int child(const char *checkpoint, const char *net_path)
{
    nimbus_data *data = make_data(160, NIMBUS_U8, 4);
    nimbus_net *teacher = deep_net(data), *net = NULL;
    nimbus_convert_options o = deep_options(checkpoint);
    o.train.checkpoint_seconds = 1e-9; /* after every step */
    nimbus_status status = nimbus_convert(teacher, data, &o, &net, NULL, &error);
    if (status == NIMBUS_OK)
        status = nimbus_net_save(net, net_path, &error);
    if (status != NIMBUS_OK)
        (void)fprintf(stderr, "child: %s\n", error.message);
    else
        remove_checkpoints(checkpoint);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
    return status == NIMBUS_OK ? 0 : 3;
}

/* How far the checkpoint is, which must be whole: finished layers, 100 more once rounded, 200 once
 * tuned; 0 without one. */
static size_t progress_of(const char *path)
{
    conversion c = {0};
    nimbus_buffer file;
    if (!nimbus_file_exists(path))
        return 0;
    CHECK(nimbus_file_read(path, SIZE_MAX, &file, &error));
    CHECK(nimbus_conversion_read(&c, file.bytes, file.size, &error));
    size_t progress = c.layers_done + 100 * (size_t)c.rounded + 100 * (size_t)c.tuned;
    nimbus_buffer_free(&file);
    nimbus_net_free(c.net);
    nimbus_buffer_free(&c.fingerprint);
    return progress;
}

static void test_kill(void **state)
{
    (void)state;
    const char *wanted = getenv("NIMBUS_KILLS");
    long kills_wanted = wanted ? atol(wanted) : 20, kills = 0, finished = 0;
    char checkpoint[300], result[300];
    copy_path(checkpoint, "kill.ck");
    copy_path(result, "kill.net");
    nimbus_data *data = make_data(160, NIMBUS_U8, 4);
    nimbus_net *teacher = deep_net(data);
    nimbus_convert_options o = deep_options(NULL);
    nimbus_net *whole = converted(teacher, data, &o);
    double span = 0.05; /* adapts, so that kills fall between a child's start and its end */
    size_t progress = 0;
    for (uint64_t round = 0; kills < kills_wanted || finished == 0; round++) {
        bool killed = run_child(checkpoint, result, round, kills < kills_wanted ? span : 0);
        if (killed && !nimbus_file_exists(result)) {
            size_t now = progress_of(checkpoint);
            assert_true(now >= progress); /* nothing that was written is lost */
            span *= now > progress ? 1 : 1.2;
            kills += now > 0;
            progress = now;
            continue;
        }
        /* The child ended, or was killed between saving its net and ending. */
        nimbus_net *net;
        CHECK(nimbus_net_load(result, &net, &error));
        assert_same_net(whole, net);
        nimbus_net_free(net);
        assert_int_equal(remove(result), 0);
        remove_checkpoints(checkpoint);
        finished++;
        span *= 0.8;
        progress = 0;
    }
    print_message("%ld kills in conversion, %ld runs ended, all with the same bits\n", kills,
                  finished);
    nimbus_net_free(whole);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel_anywhere),     cmocka_unit_test(test_foreign_checkpoints),
        cmocka_unit_test(test_damaged_checkpoints), cmocka_unit_test(test_hostile_checkpoints),
        cmocka_unit_test(test_failing_file_calls),  cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
