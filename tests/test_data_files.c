/* test_data_files.c - every array, image and archive format, whole and damaged */
#include "data_helpers.h"

/* ---- IDX ---------------------------------------------------------------------------------- */

static void idx_round_trip(void **state)
{
    (void)state;
    nimbus_buffer b = idx_images(4);
    nimbus_data *data = parse(&b, "idx");
    const nimbus_data_info *info = nimbus_data_get_info(data);
    assert_int_equal(info->n_rows, 4);
    assert_int_equal(info->n_features, 6);
    assert_int_equal(info->dtype, NIMBUS_U8);
    assert_int_equal(info->channels, 1);
    assert_int_equal(info->height, 2);
    assert_int_equal(info->width, 3);
    assert_int_equal(info->n_classes, 0);
    assert_null(nimbus_data_labels(data));
    assert_memory_equal(nimbus_data_features(data), b.bytes + 16, 24);
    assert_string_equal(nimbus_data_schema(data),
                        "{\"kind\":\"image\",\"dtype\":\"u8\",\"shape\":[1,2,3]}");
    nimbus_data_free(data);
    refuse_prefixes(&b, "idx");
    nimbus_buffer_free(&b);
}

static void idx_other_types(void **state)
{
    (void)state;
    static const struct {
        uint8_t type, bytes[8], size;
        float value;
    } cases[] = {{0x09, {0xfe}, 1, -2},
                 {0x0b, {0x80, 0x00}, 2, -32768},
                 {0x0c, {0xff, 0xff, 0xff, 0xfd}, 4, -3},
                 {0x0d, {0x3f, 0xc0, 0, 0}, 4, 1.5f},
                 {0x0e, {0xbf, 0xe0, 0, 0, 0, 0, 0, 0}, 8, -0.5f}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_buffer b = idx(cases[i].type, 2, (uint32_t[]){1, 1});
        nimbus_write_bytes(&b, cases[i].bytes, cases[i].size);
        nimbus_data *data = parse(&b, "idx");
        assert_int_equal(nimbus_data_get_info(data)->dtype, NIMBUS_F32);
        assert_true(*(const float *)nimbus_data_features(data) == cases[i].value);
        nimbus_data_free(data);
        nimbus_buffer_free(&b);
    }
}

static void idx_refused(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    nimbus_write_bytes(&b, "\x00\x01\x08\x01\x00\x00\x00\x01\x07", 9);
    refused(b, "idx", NIMBUS_ERR_FORMAT, "0x00010801");
    refused(idx(0x0a, 1, (uint32_t[]){1}), "idx", NIMBUS_ERR_FORMAT, "0x0a");
    refused(idx(8, 0, NULL), "idx", NIMBUS_ERR_FORMAT, "rank is 0");
    refused(idx(8, 7, (uint32_t[]){1, 1, 1, 1, 1, 1, 1}), "idx", NIMBUS_ERR_FORMAT, "rank is 7");
    refused(idx(8, 2, (uint32_t[]){3, 0}), "idx", NIMBUS_ERR_FORMAT, "dimension 2 is 0");
    refused(idx(8, 3, (uint32_t[]){60000, 28, 28}), "idx", NIMBUS_ERR_TRUNCATED, "47040000 bytes");
    refused(idx(8, 3, (uint32_t[]){0xffffffff, 0xffffffff, 0xffffffff}), "idx", NIMBUS_ERR_LIMIT,
            "more than");
    b = idx(0x0d, 2, (uint32_t[]){2, 2});
    nimbus_write_bytes(&b, "\x3f\x80\0\0\x3f\x80\0\0\x3f\x80\0\0\x7f\xc0\0\0", 16);
    refused(b, "idx", NIMBUS_ERR_VALUE, "row 2, column 2: NaN");
    b = idx(0x0e, 2, (uint32_t[]){1, 1});
    nimbus_write_bytes(&b, "\x7f\xe0\0\0\0\0\0\0", 8);
    refused(b, "idx", NIMBUS_ERR_VALUE, "row 1, column 1: infinite");
}

/* ---- npy ---------------------------------------------------------------------------------- */

static void npy_round_trip(void **state)
{
    (void)state;
    static const struct {
        const char *descr, *bytes;
        size_t size;
        nimbus_dtype dtype;
        float second;
    } cases[] = {{"<f2", "\0\0\x00\xc1", 4, NIMBUS_F32, -2.5f},
                 {"<f2", "\0\0\x01\0", 4, NIMBUS_F32, 0x1p-24f},
                 {"<f4", "\0\0\0\0\0\0\x20\x40", 8, NIMBUS_F32, 2.5f},
                 {"<f8", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\xc0", 16, NIMBUS_F32, -2.5f},
                 {"|u1", "\0\xff", 2, NIMBUS_U8, 255},
                 {"<u1", "\0\x7f", 2, NIMBUS_U8, 127},
                 {"|i1", "\0\xff", 2, NIMBUS_F32, -1},
                 {"<i2", "\0\0\0\x01", 4, NIMBUS_F32, 256},
                 {"<i4", "\0\0\0\0\xff\xff\xff\xff", 8, NIMBUS_F32, -1},
                 {"<i8", "\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0", 16, NIMBUS_F32, 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[128];
        snprintf(header, sizeof header,
                 "{'descr': '%s', 'fortran_order': False, 'shape': (1, 2), }      \n",
                 cases[i].descr);
        nimbus_buffer b = npy((uint8_t)(1 + i % 3), header);
        nimbus_write_bytes(&b, cases[i].bytes, cases[i].size);
        nimbus_data *data = parse(&b, "npy");
        const void *f = nimbus_data_features(data);
        assert_int_equal(nimbus_data_get_info(data)->dtype, cases[i].dtype);
        assert_int_equal(nimbus_data_get_info(data)->n_features, 2);
        assert_true((cases[i].dtype == NIMBUS_U8 ? ((const uint8_t *)f)[1]
                                                 : ((const float *)f)[1]) == cases[i].second);
        nimbus_data_free(data);
        refuse_prefixes(&b, "npy");
        nimbus_buffer_free(&b);
    }
}

/* [N][H][W][3] is made planar, [N][3][H][W] is planar. */
static void images_become_planar(void **state)
{
    (void)state;
    uint8_t pixels[12] = {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32};
    uint8_t planar[12] = {0, 10, 20, 30, 1, 11, 21, 31, 2, 12, 22, 32};
    nimbus_buffer b = npy(1, "{'descr':'|u1','fortran_order':False,'shape':(1,2,2,3)}");
    nimbus_write_bytes(&b, pixels, 12);
    nimbus_data *data = parse(&b, "npy");
    assert_int_equal(nimbus_data_get_info(data)->channels, 3);
    assert_int_equal(nimbus_data_get_info(data)->height, 2);
    assert_memory_equal(nimbus_data_features(data), planar, 12);
    nimbus_data_free(data);
    nimbus_buffer_free(&b);
    b = npy(1, "{'descr':'|u1','fortran_order':False,'shape':(1,3,2,2)}");
    nimbus_write_bytes(&b, planar, 12);
    data = parse(&b, "npy");
    assert_int_equal(nimbus_data_get_info(data)->channels, 3);
    assert_memory_equal(nimbus_data_features(data), planar, 12);
    nimbus_data_free(data);
    nimbus_buffer_free(&b);
}

static void npy_refused(void **state)
{
    (void)state;
    refused(npy(4, "{}"), "npy", NIMBUS_ERR_VERSION, "version 4.0");
    refused(npy(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}"), "npy",
            NIMBUS_ERR_UNSUPPORTED, "'>f4'");
    refused(npy(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1)}"), "npy",
            NIMBUS_ERR_UNSUPPORTED, "Fortran");
    refused(npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': ()}"), "npy",
            NIMBUS_ERR_FORMAT, "scalar");
    refused(npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999, 9)}"),
            "npy", NIMBUS_ERR_LIMIT, "more than");
    static const char *const headers[] = {
        "",
        "{",
        "{}",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': '1'}"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        refused(npy(1, headers[i]), "npy", NIMBUS_ERR_FORMAT, "npy header");
    nimbus_buffer b = {0};
    nimbus_write_bytes(&b, "PK\3\4 not an npy file", 21);
    refused(b, "npy", NIMBUS_ERR_FORMAT, "not an npy file");
}

/* ---- CIFAR-10 and its archive ------------------------------------------------------------- */

static void cifar_round_trip(void **state)
{
    (void)state;
    nimbus_buffer b = cifar_batch(2, 3);
    nimbus_data *data = parse(&b, "cifar");
    assert_int_equal(nimbus_data_get_info(data)->n_rows, 2);
    assert_int_equal(nimbus_data_get_info(data)->channels, 3);
    assert_int_equal(nimbus_data_labels(data)[1], 4);
    assert_string_equal(nimbus_data_class_name(data, 3), "cat");
    assert_null(nimbus_data_class_name(data, 10));
    assert_memory_equal(nimbus_data_features(data), b.bytes + 1, 3072);
    nimbus_data_free(data);
    save_packed("data_batch_9.bin.xz", &b, true);
    data = open_split(path_of("data_batch_9.bin.xz"), NIMBUS_SPLIT_ALL, NULL);
    assert_int_equal(nimbus_data_labels(data)[0], 3);
    nimbus_data_free(data);
    save("a.binned.csv", "1,2,x\n3,4,y\n", 12); /* a table in spite of its name */
    data = open_split(path_of("a.binned.csv"), NIMBUS_SPLIT_ALL, NULL);
    assert_int_equal(nimbus_data_get_info(data)->n_features, 2);
    nimbus_data_free(data);
    b.bytes[3073] = 10;
    nimbus_error error;
    assert_int_equal(nimbus_data_parse(b.bytes, b.size, "cifar", NULL, &data, &error),
                     NIMBUS_ERR_VALUE);
    assert_non_null(strstr(error.message, "label 10 in row 2"));
    b.size = 3073;
    refuse_prefixes(&b, "cifar");
    nimbus_buffer_free(&b);
}

static void cifar_archive(void **state)
{
    (void)state;
    nimbus_buffer tar = cifar_tar();
    save_packed("cifar.tar.gz", &tar, false);
    nimbus_data *data = open_split(path_of("cifar.tar.gz"), NIMBUS_SPLIT_TRAIN, NULL);
    const int32_t train[] = {0, 1, 5};
    assert_int_equal(nimbus_data_get_info(data)->n_rows, 3);
    assert_memory_equal(nimbus_data_labels(data), train, sizeof train);
    nimbus_data_free(data);
    data = open_split(path_of("cifar.tar.gz"), NIMBUS_SPLIT_TEST, NULL);
    const int32_t test[] = {7, 8, 9};
    assert_int_equal(nimbus_data_get_info(data)->n_rows, 3);
    assert_memory_equal(nimbus_data_labels(data), test, sizeof test);
    nimbus_data_free(data);

    nimbus_buffer out = {0};
    nimbus_error error;
    size_t whole = tar.size - 1024;
    for (size_t n = 0; n < tar.size; n += n < 1100 ? 1 : 97) {
        nimbus_status status = nimbus_cifar_untar(tar.bytes, n, false, &out, &error);
        assert_int_equal(status == NIMBUS_OK, n >= whole + 512);
    }
    tar.bytes[0] ^= 1;
    assert_int_equal(nimbus_cifar_untar(tar.bytes, tar.size, false, &out, &error),
                     NIMBUS_ERR_CHECKSUM);
    uint8_t empty[1024] = {0};
    assert_int_equal(nimbus_cifar_untar(empty, sizeof empty, true, &out, &error),
                     NIMBUS_ERR_FORMAT);
    assert_non_null(strstr(error.message, "test_batch.bin"));
    nimbus_buffer_free(&out);
    nimbus_buffer_free(&tar);
}

/* ---- compressed files --------------------------------------------------------------------- */

static void damaged_compression_is_refused(void **state)
{
    (void)state;
    nimbus_buffer plain = idx_images(50);
    for (int k = 0; k < 2; k++) {
        nimbus_buffer packed = k ? xz(plain.bytes, plain.size) : gzip(plain.bytes, plain.size);
        for (size_t n = 6; n <= packed.size; n++) {
            nimbus_buffer part = {0};
            nimbus_error error;
            nimbus_write_bytes(&part, packed.bytes, n);
            nimbus_status status = nimbus_decompress(&part, &error);
            assert_int_equal(status, n < packed.size ? NIMBUS_ERR_TRUNCATED : NIMBUS_OK);
            nimbus_buffer_free(&part);
        }
        packed.bytes[packed.size / 2] ^= 0x55;
        nimbus_error error;
        assert_int_not_equal(nimbus_decompress(&packed, &error), NIMBUS_OK);
        nimbus_buffer_free(&packed);
    }
    nimbus_buffer_free(&plain);
}

static void two_gzip_members_are_joined(void **state)
{
    (void)state;
    nimbus_buffer one = gzip("ab", 2), two = gzip("cd", 2);
    nimbus_write_bytes(&one, two.bytes, two.size);
    assert_int_equal(nimbus_decompress(&one, NULL), NIMBUS_OK);
    assert_int_equal(one.size, 4);
    assert_memory_equal(one.bytes, "abcd", 4);
    nimbus_buffer_free(&one);
    nimbus_buffer_free(&two);
}

static void bombs_are_refused(void **state)
{
    (void)state;
    size_t size = (size_t)100 << 20;
    void *zeros = nimbus_alloc(size, 1);
    for (int k = 0; k < 2; k++) {
        nimbus_buffer bomb = k ? xz(zeros, size) : gzip(zeros, size);
        nimbus_error error;
        assert_int_equal(nimbus_decompress(&bomb, &error), NIMBUS_ERR_LIMIT);
        assert_non_null(strstr(error.message, "expand to more than"));
        nimbus_buffer_free(&bomb);
    }
    nimbus_free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idx_round_trip),
        cmocka_unit_test(idx_other_types),
        cmocka_unit_test(idx_refused),
        cmocka_unit_test(npy_round_trip),
        cmocka_unit_test(images_become_planar),
        cmocka_unit_test(npy_refused),
        cmocka_unit_test(cifar_round_trip),
        cmocka_unit_test(cifar_archive),
        cmocka_unit_test(damaged_compression_is_refused),
        cmocka_unit_test(two_gzip_members_are_joined),
        cmocka_unit_test(bombs_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
