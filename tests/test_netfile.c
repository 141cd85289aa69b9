/* test_netfile.c - .net files: round trips, damage, wrong graphs, failing memory and disks */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "../fuzz/net_seal.h"
#include "net_maker.h"

static nimbus_buffer bytes_of(const nimbus_net *net)
{
    nimbus_error error;
    nimbus_buffer b = {0};
    ok(nimbus_net_write(net, &b, &error), &error);
    return b;
}

/* A fresh path in the folder for temporary files. */
static void temporary_path(char *path, size_t size)
{
    const char *folder = getenv("TMPDIR");
    (void)snprintf(path, size, "%s/nimbus_net_XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

/* ================================================================================== round trip */

static void test_round_trip(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = small_net(), *again;
    nimbus_buffer first = bytes_of(net), second;
    ok(nimbus_net_read(first.bytes, first.size, &again, &error), &error);
    assert_same_net(net, again);
    second = bytes_of(again);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.bytes, second.bytes, first.size);
    nimbus_net_free(again);

    net->loss = NIMBUS_LOSS_SQUARED_ERROR;
    net->input_dtype = NIMBUS_F32;
    net->layers[5].lookup->bits = 0;
    net->layers[5].lookup->estimator = NIMBUS_ESTIMATOR_SOFTMAX;
    ok(nimbus_net_set_state(net, 5, NIMBUS_STATE_LOOKUP, &error), &error);
    ok(nimbus_net_set_state(net, 1, NIMBUS_STATE_RECORD, &error), &error);
    nimbus_buffer_free(&second);
    second = bytes_of(net);
    ok(nimbus_net_read(second.bytes, second.size, &again, &error), &error);
    assert_same_net(net, again);
    nimbus_buffer_free(&first);
    nimbus_buffer_free(&second);
    nimbus_net_free(net);
    nimbus_net_free(again);
}

static void test_image_round_trip(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = image_net(), *again;
    nimbus_buffer first = bytes_of(net), second;
    ok(nimbus_net_read(first.bytes, first.size, &again, &error), &error);
    assert_same_net(net, again);
    second = bytes_of(again);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.bytes, second.bytes, first.size);
    nimbus_buffer_free(&first);
    nimbus_buffer_free(&second);
    nimbus_net_free(net);
    nimbus_net_free(again);
}

static void test_save_and_load(void **state)
{
    (void)state;
    char path[512];
    nimbus_error error;
    nimbus_net *net = small_net(), *again;
    temporary_path(path, sizeof path);
    ok(nimbus_net_save(net, path, &error), &error);
    ok(nimbus_net_load(path, &again, &error), &error);
    assert_same_net(net, again);
    nimbus_net_free(again);

    real *value = net->layers[1].params[0].value, kept = value[0];
    value[0] = (real)NAN; /* is never saved */
    assert_int_equal(nimbus_net_save(net, path, &error), NIMBUS_ERR_VALUE);
    value[0] = kept + 1;
    for (long k = 1;; k++) {
        nimbus_fail_file_call_after = k;
        nimbus_status status = nimbus_net_save(net, path, &error);
        bool reached = nimbus_fail_file_call_after == 0;
        nimbus_fail_file_call_after = 0;
        if (!reached) {
            ok(status, &error);
            assert_true(k > 4);
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_IO);
        ok(nimbus_net_load(path, &again, &error), &error); /* the old file or the new one, whole */
        real found = again->layers[1].params[0].value[0];
        assert_true(found == kept || found == kept + 1);
        nimbus_net_free(again);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(nimbus_net_load(path, &again, &error), NIMBUS_ERR_IO);
    assert_non_null(strstr(error.message, path));
    assert_null(again);
    nimbus_net_free(net);
}

/* ====================================================================================== damage */

static void refuse(const uint8_t *bytes, size_t size, const char *what)
{
    nimbus_error error = {0};
    nimbus_net *net = (nimbus_net *)&error;
    nimbus_status status = nimbus_net_read(bytes, size, &net, &error);
    if (status == NIMBUS_OK)
        fail_msg("accepted: %s", what);
    assert_null(net);
    assert_int_equal(error.status, status);
    assert_true(strlen(error.message) > 10);
}

static void check_every_prefix_and_bit(nimbus_net *net)
{
    char what[64];
    nimbus_buffer b = bytes_of(net);
    assert_true(b.size < 8192);
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *prefix = nimbus_alloc(n + 1, 1); /* of its own: an overrun is seen */
        memcpy(prefix, b.bytes, n);
        (void)snprintf(what, sizeof what, "prefix of %zu bytes", n);
        refuse(prefix, n, what);
        nimbus_free(prefix);
    }
    for (size_t i = 0; i < b.size * 8; i++) {
        b.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        (void)snprintf(what, sizeof what, "bit %zu of byte %zu", i % 8, i / 8);
        refuse(b.bytes, b.size, what);
        b.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    nimbus_write_u8(&b, 0);
    refuse(b.bytes, b.size, "a byte more");
    nimbus_buffer_free(&b);
    nimbus_net_free(net);
}

static void test_every_prefix_and_bit(void **state)
{
    (void)state;
    check_every_prefix_and_bit(small_net());
    check_every_prefix_and_bit(image_net());
}

static void expect(const uint8_t *bytes, size_t size, nimbus_status expected, const char *what)
{
    nimbus_error error = {0};
    nimbus_net *net;
    nimbus_status status = nimbus_net_read(bytes, size, &net, &error);
    nimbus_net_free(net);
    if (status != expected)
        fail_msg("%s: found %s (%s), expected %s", what, nimbus_status_name(status), error.message,
                 nimbus_status_name(expected));
}

static void test_envelope(void **state)
{
    (void)state;
    nimbus_net *net = small_net();
    nimbus_buffer b = bytes_of(net);
    uint8_t *version = b.bytes + 8 + sizeof NETFILE_START - 1;
    expect(b.bytes, b.size, NIMBUS_OK, "unchanged");
    expect(b.bytes, 5, NIMBUS_ERR_TRUNCATED, "5 bytes");
    expect(b.bytes, 500, NIMBUS_ERR_TRUNCATED, "in the header");
    expect(b.bytes, b.size - 1, NIMBUS_ERR_TRUNCATED, "in the data");
    version[0] = '2';
    expect(b.bytes, b.size, NIMBUS_ERR_VERSION, "major version");
    version[0] = '0';
    expect(b.bytes, b.size, NIMBUS_ERR_FORMAT, "version 0");
    version[0] = '1', version[2] = NETFILE_FORMAT_MINOR + '1';
    expect(b.bytes, b.size, NIMBUS_ERR_VERSION, "minor version");
    version[2] = '0';
    net_seal(b.bytes, b.size);
    expect(b.bytes, b.size, NIMBUS_OK, "an older minor version");
    version[2] = '2';
    net_seal(b.bytes, b.size);
    b.bytes[b.size - 1] ^= 1;
    expect(b.bytes, b.size, NIMBUS_ERR_CHECKSUM, "damaged data");
    b.bytes[b.size - 1] ^= 1;
    b.bytes[9] = 'x';
    expect(b.bytes, b.size, NIMBUS_ERR_FORMAT, "another file");
    b.bytes[6] = 1;
    expect(b.bytes, b.size, NIMBUS_ERR_LIMIT, "huge header");
    nimbus_buffer_free(&b);
    nimbus_net_free(net);
}

/* A file with this header text and data, its size and checksum made right. */
static nimbus_buffer file_of(const char *header, const uint8_t *data, size_t data_size)
{
    nimbus_buffer b = {0};
    nimbus_write_u64le(&b, strlen(header));
    nimbus_write_bytes(&b, header, strlen(header));
    nimbus_write_bytes(&b, data, data_size);
    assert_false(b.failed);
    net_seal(b.bytes, b.size);
    return b;
}

static void test_deep_nesting(void **state)
{
    enum { DEPTH = 200000 };
    (void)state;
    static const char start[] = NETFILE_START "1.0" NETFILE_MIDDLE NETFILE_NO_CRC NETFILE_BYTES_KEY
                                              "0000000000000000\"},\"x\":";
    char *header = nimbus_alloc(sizeof start + DEPTH, 1);
    memcpy(header, start, sizeof start - 1);
    memset(header + sizeof start - 1, '[', DEPTH);
    nimbus_buffer b = file_of(header, NULL, 0);
    expect(b.bytes, b.size, NIMBUS_ERR_LIMIT, "200,000 levels");
    nimbus_buffer_free(&b);
    memset(header + sizeof start - 1, ',', DEPTH);
    b = file_of(header, NULL, 0);
    expect(b.bytes, b.size, NIMBUS_ERR_LIMIT, "200,000 values");
    nimbus_buffer_free(&b);
    nimbus_free(header);
}

/* ================================================================================ wrong graphs */

struct edit {
    char where;        /* 'g': in the graph, 'h': in the header */
    const char *path;  /* keys and indices between slashes */
    const char *value; /* JSON; NULL: removed */
    nimbus_status expected;
};

static const struct edit edits[] = {
    {'g', "loss", "\"hinge\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "loss", "7", NIMBUS_ERR_FORMAT},
    {'g', "loss", NULL, NIMBUS_ERR_FORMAT},
    {'g', "input", "\"f64\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "input", "\"\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers", "[]", NIMBUS_ERR_FORMAT},
    {'g', "layers", "{}", NIMBUS_ERR_FORMAT},
    {'g', "layers", "[1,2,3]", NIMBUS_ERR_FORMAT},
    {'g', "layers/0", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/0/shape", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/0/shape/0", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/0/shape/0", "-1", NIMBUS_ERR_FORMAT},
    {'g', "layers/0/shape/0", "2", NIMBUS_ERR_FORMAT},
    {'g', "layers/0/shape/1", "16777216", NIMBUS_ERR_FORMAT},
    {'g', "layers/0/inputs", "[0]", NIMBUS_ERR_FORMAT},
    {'g', "layers/0/type", "\"relu\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/0/state", "\"soft\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/type", "\"attention\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers/1/type", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/1/type", "\"input\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/type", "\"tanh\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/name", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/1/name", "\"\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/name", "\"relu1\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/name", "\"a/b\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/name", "\"linear9\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/name", "\"a123456789b123456789c123456789d123456789e1234567\"",
     NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "-3", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "4", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "2", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "3.0", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "16777216", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "9223372036854775807", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/number", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs", "[0,0]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs", "[0,0,0,0,0,0,0,0,0]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs/0", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs/0", "-1", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs/0", "\"0\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/inputs/0", "4611686018427387904", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/bare", "true", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/state", "\"integer\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers/1/state", "\"lookup\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/state", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/number", "-1", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/bare", "true", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/inputs/0", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/lookup",
     "{\"codebooks\":1,\"levels\":1,\"tree\":\"fern\",\"estimator\":\"flip\",\"bits\":0,"
     "\"temperature\":1}",
     NIMBUS_ERR_FORMAT},
    {'g', "layers/4/number", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/4", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/5", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/5/state", "\"dense\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/state", "\"locked\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup", "[]", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/codebooks", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/codebooks", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/codebooks", "3", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/codebooks", "16777216", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/levels", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/levels", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/levels", "9", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/levels", "64", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/bits", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/bits", "9", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/tree", "\"oak\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers/5/lookup/tree", "\"shared\"", NIMBUS_ERR_VALUE},
    {'g', "layers/5/lookup/tree", "\"fern\"", NIMBUS_ERR_VALUE},
    {'g', "layers/5/lookup/estimator", "\"guess\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers/5/lookup/temperature", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/temperature", "1e-60", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/temperature", "1e60", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/lookup/temperature", NULL, NIMBUS_ERR_FORMAT},
    {'h', "__metadata__/nimbus_graph", NULL, NIMBUS_ERR_FORMAT},
    {'h', "__metadata__/nimbus_graph", "5", NIMBUS_ERR_FORMAT},
    {'h', "__metadata__/nimbus_graph", "\"\"", NIMBUS_ERR_FORMAT},
    {'h', "__metadata__/nimbus_graph", "\"{\\\"layers\\\":[\"", NIMBUS_ERR_FORMAT},
    {'h', "__metadata__/nimbus_graph", "\"{\\\"a\\\":1,\\\"a\\\":2}\"", NIMBUS_ERR_FORMAT},
    {'h', "__metadata__/nimbus_metadata", NULL, NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight", NULL, NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight", "[]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/dtype", "\"F16\"", NIMBUS_ERR_UNSUPPORTED},
    {'h', "linear1.weight/dtype", NULL, NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/shape", "[4,3]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/shape", "[12]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/shape", "[3,4,1]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/shape", "[1,1,1,3,4]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/shape", "[4294967296,4294967296]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/shape/0", "-3", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/data_offsets", "[0]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/data_offsets", "[0,48]", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/data_offsets/0", "-32", NIMBUS_ERR_FORMAT},
    {'h', "linear1.weight/data_offsets/1", "9223372036854775807", NIMBUS_ERR_FORMAT},
    {'h', "linear1.extra", "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}",
     NIMBUS_ERR_FORMAT},
};

static const struct edit image_edits[] = {
    {'g', "layers/1/groups", "3", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/groups", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/groups", "[2]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/groups", "-2", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/groups", "16777217", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/units", "16777216", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", NULL, NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "2", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "[2]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "[2,2,2]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "[2,1]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "[2,-2]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "[2,2.0]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/kernel", "[16777216,16777216]", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/stride/0", "16777217", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/stride", "\"2\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/dilation/1", "9", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/before/0", "16777216", NIMBUS_ERR_LIMIT},
    {'g', "layers/1/after/0", "9223372036854775807", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/after", "null", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/bare", "true", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/bare", "0", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/before_relu", "true", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/before_relu", "true", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/before_relu", "false", NIMBUS_OK},
    {'g', "layers/2/before_relu", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/1/padding", "[1,1]", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers/1/type", "\"max_pool\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/state", "\"locked\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/2/type", "\"relu\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/3/number2", "-2", NIMBUS_ERR_FORMAT},
    {'g', "layers/3/number2", "\"6\"", NIMBUS_ERR_FORMAT},
    {'g', "layers/3/number2", "1e99", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/inputs", "[3,0]", NIMBUS_ERR_FORMAT},
    {'g', "layers/5/inputs", "[3]", NIMBUS_ERR_FORMAT},
    {'g', "layers/8/stride", "[3,4]", NIMBUS_ERR_FORMAT},
    {'g', "layers/8/before/0", "3", NIMBUS_ERR_FORMAT},
    {'g', "layers/9/count_padding", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/9/count_padding", "false", NIMBUS_OK},
    {'g', "layers/10/before/0", "9", NIMBUS_ERR_FORMAT},
    {'g', "layers/10/before/0", "16777216", NIMBUS_ERR_LIMIT},
    {'g', "layers/11/before/1", "5", NIMBUS_ERR_FORMAT},
    {'g', "layers/11/pad_mode", "\"wrap\"", NIMBUS_ERR_UNSUPPORTED},
    {'g', "layers/11/pad_mode", "1", NIMBUS_ERR_FORMAT},
    {'g', "layers/11/pad_mode", "\"edge\"", NIMBUS_OK},
    {'g', "layers/13/order", "[1,2,1]", NIMBUS_ERR_FORMAT},
    {'g', "layers/13/order", "[1,2,3]", NIMBUS_ERR_FORMAT},
    {'g', "layers/13/order", "[1,2,256]", NIMBUS_ERR_FORMAT},
    {'g', "layers/13/order", "[1,2]", NIMBUS_ERR_FORMAT},
    {'g', "layers/15/new_shape", "[8,12,4]", NIMBUS_ERR_FORMAT},
    {'g', "layers/15/new_shape", "[0,12,3]", NIMBUS_ERR_LIMIT},
    {'g', "layers/15/new_shape", "[16777216,16777216,16777216]", NIMBUS_ERR_LIMIT},
    {'h', "conv2d1.weight/shape", "[4,1,4]", NIMBUS_ERR_FORMAT},
    {'h', "batch_norm1.mean/shape/0", "60", NIMBUS_ERR_FORMAT},
};

/* The object or array that holds the last step of the path; *last is that step. */
static json_t *walk(json_t *root, const char *path, char *last, size_t size)
{
    json_t *at = root;
    const char *slash;
    for (; (slash = strchr(path, '/')); path = slash + 1) {
        (void)snprintf(last, size, "%.*s", (int)(slash - path), path);
        at = json_is_array(at) ? json_array_get(at, strtoul(last, NULL, 10))
                               : json_object_get(at, last);
        assert_non_null(at);
    }
    (void)snprintf(last, size, "%s", path);
    return at;
}

static void apply(json_t *root, const struct edit *e)
{
    char last[64];
    json_t *at = walk(root, e->path, last, sizeof last);
    json_t *value = e->value ? json_loads(e->value, JSON_DECODE_ANY, NULL) : NULL;
    assert_true(!e->value || value);
    int failed;
    if (json_is_array(at))
        failed = value ? json_array_set_new(at, strtoul(last, NULL, 10), value)
                       : json_array_remove(at, strtoul(last, NULL, 10));
    else
        failed = value ? json_object_set_new(at, last, value) : json_object_del(at, last);
    assert_int_equal(failed, 0);
}

static void check_edits(nimbus_net *net, const struct edit *changes, size_t n)
{
    nimbus_buffer b = bytes_of(net);
    nimbus_reader r = nimbus_reader_of(b.bytes, b.size);
    size_t length = (size_t)nimbus_read_u64le(&r);
    const char *text = (const char *)nimbus_read_bytes(&r, length);
    for (size_t i = 0; i <= n; i++) {
        bool last = i == n; /* without any edit: accepted */
        json_t *header = json_loadb(text, length, 0, NULL);
        json_t *metadata = json_object_get(header, "__metadata__");
        json_t *graph =
            json_loads(json_string_value(json_object_get(metadata, "nimbus_graph")), 0, NULL);
        assert_non_null(graph);
        if (!last && changes[i].where == 'g')
            apply(graph, &changes[i]);
        char *graph_text = json_dumps(graph, 0);
        json_object_set_new(metadata, "nimbus_graph", json_string(graph_text));
        if (!last && changes[i].where == 'h')
            apply(header, &changes[i]);
        char *header_text = json_dumps(header, JSON_COMPACT), what[256];
        nimbus_buffer file = file_of(header_text, r.bytes + r.at, b.size - r.at);
        (void)snprintf(what, sizeof what, "%s = %s", last ? "" : changes[i].path,
                       last || !changes[i].value ? "nothing" : changes[i].value);
        expect(file.bytes, file.size, last ? NIMBUS_OK : changes[i].expected, what);
        nimbus_buffer_free(&file);
        free(header_text);
        free(graph_text);
        json_decref(graph);
        json_decref(header);
    }
    nimbus_buffer_free(&b);
    nimbus_net_free(net);
}

static void test_wrong_graphs(void **state)
{
    (void)state;
    check_edits(small_net(), edits, sizeof edits / sizeof edits[0]);
    check_edits(image_net(), image_edits, sizeof image_edits / sizeof image_edits[0]);
}

/* Values that no layer can run with, though the graph is right. */
static void test_wrong_values(void **state)
{
    static const struct {
        size_t layer;
        const char *param;
        size_t at;
        double value;
        nimbus_status expected;
    } cases[] = {
        {0, "mean", 3, NAN, NIMBUS_ERR_VALUE},
        {0, "inverse_std", 0, INFINITY, NIMBUS_ERR_VALUE},
        {1, "weight", 11, -INFINITY, NIMBUS_ERR_VALUE},
        {2, "variance", 1, -0.5, NIMBUS_ERR_VALUE},
        {2, "variance", 1, 0, NIMBUS_OK},
        {5, "columns", 0, 3, NIMBUS_ERR_VALUE},
        {5, "columns", 5, -1, NIMBUS_ERR_VALUE},
        {5, "columns", 5, 0.5, NIMBUS_ERR_VALUE},
        {5, "columns", 5, 1e30, NIMBUS_ERR_VALUE},
        {5, "margin", 2, 0, NIMBUS_ERR_VALUE},
        {5, "scales", 1, 0, NIMBUS_ERR_VALUE},
        {5, "scales", 1, -1, NIMBUS_ERR_VALUE},
        {5, "tables", 15, NAN, NIMBUS_ERR_VALUE},
        {5, "tables", 15, 1e30, NIMBUS_OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_net *net = small_net();
        nimbus_param *p = nimbus_layer_param(&net->layers[cases[i].layer], cases[i].param);
        assert_true(cases[i].at < p->n);
        p->value[cases[i].at] = (real)cases[i].value;
        nimbus_buffer b = bytes_of(net);
        expect(b.bytes, b.size, cases[i].expected, cases[i].param);
        nimbus_buffer_free(&b);
        nimbus_net_free(net);
    }
}

/* ====================================================================================== memory */

static void test_failing_allocations(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_net *net = small_net(), *again;
    nimbus_buffer b = bytes_of(net);
    for (int writing = 0; writing < 2; writing++)
        for (long k = 1;; k++) {
            nimbus_buffer out = {0};
            again = NULL;
            nimbus_fail_alloc_after = k;
            nimbus_status status = writing ? nimbus_net_write(net, &out, &error)
                                           : nimbus_net_read(b.bytes, b.size, &again, &error);
            bool reached = nimbus_fail_alloc_after == 0;
            nimbus_fail_alloc_after = 0;
            nimbus_net_free(again);
            nimbus_buffer_free(&out);
            if (!reached) {
                assert_int_equal(status, NIMBUS_OK);
                assert_true(k > (writing ? 1 : 20));
                break;
            }
            assert_int_equal(status, NIMBUS_ERR_MEMORY);
            assert_null(again);
        }
    nimbus_buffer_free(&b);
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_image_round_trip),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_every_prefix_and_bit),
        cmocka_unit_test(test_envelope),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_wrong_graphs),
        cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
