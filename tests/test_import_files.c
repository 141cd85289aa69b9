/* test_import_files.c - weights in files beside an ONNX model, and models that are real */
#include "import_folder.h"

/* A model whose matrix lies elsewhere. */
static nimbus_status import_external(const char *location, const char *offset, const char *length,
                                     nimbus_net **net, nimbus_error *error)
{
    char path[512];
    message graph = {0};
    made_simple(&graph, "MatMul", "x,w", "y");
    made_external(&graph, "w", DIMS(3, 2), location, offset, length);
    message model = made_model(&graph, 13, "x", DIMS(3), "y");
    write_file("external.onnx", model.bytes, model.n);
    free(model.bytes);
    snprintf(path, sizeof path, "%s/external.onnx", folder);
    nimbus_status status = nimbus_import_onnx(path, NULL, net, NULL, error);
    remove_file("external.onnx");
    return status;
}

static void make_path(char path[512], const char *name)
{
    snprintf(path, 512, "%s/%s", folder, name);
}

static void test_external(void **state)
{
    (void)state;
    static const struct {
        const char *location, *offset, *length;
        nimbus_status expected;
    } cases[] = {
        {"w.bin", NULL, NULL, NIMBUS_OK},
        {"w.bin", "8", "24", NIMBUS_OK},
        {"sub/w.bin", "0", NULL, NIMBUS_OK},
        {"w.bin", "9", NULL, NIMBUS_ERR_TRUNCATED},
        {"w.bin", "18446744073709551615", NULL, NIMBUS_ERR_FORMAT},
        {"w.bin", "9223372036854775807", NULL, NIMBUS_ERR_TRUNCATED},
        {"w.bin", "-8", NULL, NIMBUS_ERR_FORMAT},
        {"w.bin", "eight", NULL, NIMBUS_ERR_FORMAT},
        {"w.bin", "", NULL, NIMBUS_ERR_FORMAT},
        {"w.bin", NULL, "23", NIMBUS_ERR_MISMATCH},
        {"nothing.bin", NULL, NULL, NIMBUS_ERR_IO},
        {NULL, "0", NULL, NIMBUS_ERR_FORMAT},
    };
    char path[512];
    const float values[8] = {1, 2, 3, 4, 5, 6, 7, 8}, x[] = {1, 0, 0};
    make_path(path, "sub");
    assert_int_equal(mkdir(path, 0777), 0);
    write_file("w.bin", values, sizeof values);
    write_file("sub/w.bin", values + 2, 6 * sizeof *values);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_net *net;
        nimbus_error error = {0};
        nimbus_status status =
            import_external(cases[i].location, cases[i].offset, cases[i].length, &net, &error);
        if (status != cases[i].expected)
            fail_msg("case %zu: %s, %s", i, nimbus_status_name(status), error.message);
        if (status != NIMBUS_OK)
            continue;
        float *y = outputs_of(net, NIMBUS_F32, 1, x);
        assert_true(y[0] == (i == 0 ? 1.0f : 3.0f));
        nimbus_free(y);
        nimbus_net_free(net);
    }
    remove_file("w.bin");
    remove_file("sub/w.bin");
    (void)rmdir(path);
}

/* Places that lead out of the folder, or to what is no file: none may be opened. Right bytes lie at
 * the end of each way, so that an opened one would be imported. */
static const char ways[] = "../outside.bin|sub/../../outside.bin|./../outside.bin|sub/../w.bin|"
                           "./w.bin|sub/./w.bin|sub//w.bin|/w.bin|//w.bin|w.bin/|sub/w.bin/|/|.|..|"
                           "../|./|sub/..|sub/.||link.bin|link|up/outside.bin|up|up/models/w.bin|"
                           "self/w.bin|loop|loop/w.bin|sub/link.bin|absolute|sub|sub/|fifo|null|"
                           "dangling|proc/self/environ|w.bin/../w.bin|w.bin/x|..\\outside.bin|"
                           "%2e%2e/outside.bin|file:///etc/passwd|~/outside.bin|sub/up/w.bin|"
                           "/etc/passwd|/proc/self/fd/0|/dev/zero|....//outside.bin";

static const char *const links[][2] = {{"../outside.bin", "link.bin"},
                                       {"..", "up"},
                                       {".", "self"},
                                       {"loop", "loop"},
                                       {"../w.bin", "sub/link.bin"},
                                       {"/etc/passwd", "absolute"},
                                       {"w.bin", "link"},
                                       {"/dev/zero", "null"},
                                       {"nowhere", "dangling"},
                                       {"/proc", "proc"},
                                       {"..", "sub/up"}};
#define N_LINKS (sizeof links / sizeof *links)

static void make_ways(void)
{
    const float values[6] = {1, 2, 3, 4, 5, 6};
    char path[512];
    make_path(path, "sub");
    assert_int_equal(mkdir(path, 0777), 0);
    make_path(path, "fifo");
    assert_int_equal(mkfifo(path, 0666), 0);
    write_file("w.bin", values, sizeof values);
    write_file("sub/w.bin", values, sizeof values);
    write_file("../outside.bin", values, sizeof values);
    for (size_t i = 0; i < N_LINKS; i++) {
        make_path(path, links[i][1]);
        assert_int_equal(symlink(links[i][0], path), 0);
    }
}

static void test_ways_out(void **state)
{
    (void)state;
    char way[64], path[512];
    size_t n_ways = 0;
    make_ways();
    for (const char *at = ways; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL) {
        nimbus_net *net;
        nimbus_error error;
        snprintf(way, sizeof way, "%.*s", (int)strcspn(at, "|"), at);
        nimbus_status status = import_external(way, NULL, NULL, &net, &error);
        if (status != NIMBUS_ERR_FORMAT && status != NIMBUS_ERR_IO)
            fail_msg("'%s': %s", way, nimbus_status_name(status));
        assert_null(net);
        n_ways++;
    }
    assert_true(n_ways >= 40);
    for (size_t i = 0; i < N_LINKS; i++)
        remove_file(links[i][1]);
    remove_file("w.bin");
    remove_file("sub/w.bin");
    remove_file("fifo");
    remove_file("../outside.bin");
    make_path(path, "sub");
    (void)rmdir(path);
}

/* One file named by many tensors is not read more often than its size allows. */
static void test_external_overlap(void **state)
{
    (void)state;
    enum { TENSORS = 40 };
    char name[16], inputs[32], sum[16], path[512];
    message graph = {0};
    nimbus_net *net;
    nimbus_error error;
    const float values[6] = {1, 2, 3, 4, 5, 6};
    write_file("w.bin", values, sizeof values);
    snprintf(sum, sizeof sum, "x");
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof name, "w%zu", i);
        snprintf(inputs, sizeof inputs, "%s,%s", sum, name);
        snprintf(sum, sizeof sum, "s%zu", i);
        made_simple(&graph, "Add", inputs, sum);
        made_external(&graph, name, DIMS(6), "w.bin", NULL, NULL);
    }
    message model = made_model(&graph, 13, "x", DIMS(6), sum);
    write_file("overlap.onnx", model.bytes, model.n);
    free(model.bytes);
    make_path(path, "overlap.onnx");
    assert_int_equal(nimbus_import_onnx(path, NULL, &net, NULL, &error), NIMBUS_ERR_LIMIT);
    assert_null(net);
    remove_file("overlap.onnx");
    remove_file("w.bin");
}

/* ---- real models ------------------------------------------------------------------------------
 */

/* $NIMBUS_DATA/name, or NULL (and the test is skipped) where it is absent. */
static const char *real_file(char path[512], const char *name)
{
    const char *data = getenv("NIMBUS_DATA");
    snprintf(path, 512, "%s/%s", data ? data : "../shared/data", name);
    if (nimbus_file_exists(path))
        return path;
    printf("skipped: no %s in $NIMBUS_DATA\n", name);
    return NULL;
}

/* Share of the rows of images,labels that a real model classifies rightly. */
static double accuracy_of(const char *model, const char *rows, const char *labels,
                          const nimbus_import_options *options, size_t multiply_adds)
{
    char path[512], spec[1100];
    nimbus_net *net;
    nimbus_import_report report;
    nimbus_data *data;
    nimbus_evaluation result;
    nimbus_error error = {0};
    if (!real_file(path, model))
        skip();
    if (nimbus_import_onnx(path, options, &net, &report, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    assert_int_equal(report.multiply_adds, multiply_adds);
    nimbus_import_report_free(&report);
    int n = snprintf(spec, sizeof spec, "%s,", real_file(path, rows));
    snprintf(spec + n, sizeof spec - (size_t)n, "%s", real_file(path, labels));
    if (nimbus_data_open(spec, NIMBUS_SPLIT_ALL, NULL, &data, &error) != NIMBUS_OK ||
        nimbus_evaluate(net, data, 0, &result, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    nimbus_data_free(data);
    nimbus_net_free(net);
    return result.accuracy;
}

static void test_resnet(void **state)
{
    (void)state;
    nimbus_import_options options = NIMBUS_IMPORT_OPTIONS_INIT;
    options.input_dtype = NIMBUS_U8;
    double accuracy =
        accuracy_of("mlperf-tiny/ic01_resnet8.onnx", "mlperf-tiny/ic01-images-idx4-ubyte.gz",
                    "mlperf-tiny/ic01-labels-idx1-ubyte.gz", &options, 12501632);
    assert_true(accuracy == 0.855);
}

static void test_keywords(void **state)
{
    (void)state;
    static const float mean[] = {83}, deviation[] = {1 / 0.5847029f};
    nimbus_import_options options = NIMBUS_IMPORT_OPTIONS_INIT;
    options.input_mean = mean;
    options.input_std = deviation;
    options.n_input_channels = 1;
    double accuracy =
        accuracy_of("mlperf-tiny/kws01_ds_cnn.onnx", "mlperf-tiny/kws01-mfcc-idx3-byte.gz",
                    "mlperf-tiny/kws01-labels-idx1-ubyte.gz", &options, 2656768);
    assert_true(accuracy > 0.914 && accuracy < 0.916);
}

/* Transformers are refused, and it is said where. */
static void test_refused(void **state)
{
    (void)state;
    static const char *const models[][2] = {{"kwt/kwt1.onnx", "(MatMul)"},
                                            {"stories260k/stories260K_T128.onnx", "'tokens'"}};
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        nimbus_net *net;
        nimbus_error error = {0};
        if (!real_file(path, models[i][0]))
            skip();
        assert_int_equal(nimbus_import_onnx(path, NULL, &net, NULL, &error),
                         NIMBUS_ERR_UNSUPPORTED);
        assert_null(net);
        assert_non_null(strstr(error.message, models[i][1]));
    }
}

/* Files of other frameworks are named for what they are. */
static void test_other_formats(void **state)
{
    (void)state;
    static const struct {
        char bytes[10];
        const char *says;
    } cases[] = {{"\x1c\0\0\0TFL3", "TensorFlow Lite"}, {"PK\3\4\0\0\0\0", "zip file"},
                 {"\x89HDF\r\n\x1a\n", "HDF5"},         {"\x80\2\x8a\nl\xfc\x9c", "pickle"},
                 {"\x40\1\0\0\0\0\0\0{", ".net file"},  {"NIMBUS\r\n", ".nimbus program"}};
    char path[512];
    make_path(path, "other.onnx");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_net *net;
        nimbus_error error = {0};
        write_file("other.onnx", cases[i].bytes, 9);
        assert_int_equal(nimbus_import_onnx(path, NULL, &net, NULL, &error), NIMBUS_ERR_FORMAT);
        assert_null(net);
        assert_non_null(strstr(error.message, cases[i].says));
        remove_file("other.onnx");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_external),         cmocka_unit_test(test_ways_out),
        cmocka_unit_test(test_external_overlap), cmocka_unit_test(test_resnet),
        cmocka_unit_test(test_keywords),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_other_formats),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
