/* data_helpers.h - files and bytes in every format, made for the tests of the data stage */
#ifndef NIMBUS_DATA_HELPERS_H
#define NIMBUS_DATA_HELPERS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <lzma.h>
#include <zlib.h>

#include "base/base.h"
#include "data/data.h"
#include "nimbus_build.h"

static char folder[256]; /* temporary, of this run */

static inline int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nimbus_data_XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static inline const char *path_of(const char *name)
{
    static char paths[4][400];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void save(const char *name, const void *bytes, size_t size)
{
    nimbus_error error;
    assert_int_equal(nimbus_file_write(path_of(name), bytes, size, &error), NIMBUS_OK);
}

static inline nimbus_buffer gzip(const void *bytes, size_t size)
{
    nimbus_buffer out = {0};
    out.capacity = out.size = size + size / 100 + 64;
    out.bytes = nimbus_alloc(out.size, 1);
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes,
                  .avail_in = (uInt)size,
                  .next_out = out.bytes,
                  .avail_out = (uInt)out.size};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.size = z.total_out;
    deflateEnd(&z);
    return out;
}

static inline nimbus_buffer xz(const void *bytes, size_t size)
{
    nimbus_buffer out = {0};
    out.capacity = lzma_stream_buffer_bound(size);
    out.bytes = nimbus_alloc(out.capacity, 1);
    assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, bytes, size, out.bytes,
                                             &out.size, out.capacity),
                     LZMA_OK);
    return out;
}

static inline void save_packed(const char *name, const nimbus_buffer *plain, bool as_xz)
{
    nimbus_buffer packed = as_xz ? xz(plain->bytes, plain->size) : gzip(plain->bytes, plain->size);
    save(name, packed.bytes, packed.size);
    nimbus_buffer_free(&packed);
}

static inline void write_u32be(nimbus_buffer *b, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        nimbus_write_u8(b, (uint8_t)(v >> shift));
}

/* An IDX header. */
static inline nimbus_buffer idx(uint8_t type, size_t rank, const uint32_t *shape)
{
    nimbus_buffer b = {0};
    write_u32be(&b, (uint32_t)type << 8 | (uint32_t)rank);
    for (size_t i = 0; i < rank; i++)
        write_u32be(&b, shape[i]);
    return b;
}

/* n images of 2 x 3 pixels counting up, and labels r % 10. */
static inline nimbus_buffer idx_images(uint32_t n)
{
    nimbus_buffer b = idx(8, 3, (uint32_t[]){n, 2, 3});
    for (uint32_t i = 0; i < n * 6; i++)
        nimbus_write_u8(&b, (uint8_t)i);
    return b;
}

static inline nimbus_buffer idx_labels(uint32_t n)
{
    nimbus_buffer b = idx(8, 1, &n);
    for (uint32_t i = 0; i < n; i++)
        nimbus_write_u8(&b, (uint8_t)(i % 10));
    return b;
}

static inline nimbus_buffer npy(uint8_t version, const char *header)
{
    nimbus_buffer b = {0};
    nimbus_write_bytes(&b, "\x93NUMPY", 6);
    nimbus_write_u8(&b, version);
    nimbus_write_u8(&b, 0);
    if (version == 1)
        nimbus_write_u16le(&b, (uint16_t)strlen(header));
    else
        nimbus_write_u32le(&b, (uint32_t)strlen(header));
    nimbus_write_bytes(&b, header, strlen(header));
    return b;
}

static inline nimbus_data *parse(const nimbus_buffer *b, const char *format)
{
    nimbus_data *data;
    nimbus_error error;
    nimbus_status status = nimbus_data_parse(b->bytes, b->size, format, NULL, &data, &error);
    if (status != NIMBUS_OK)
        fail_msg("%s", error.message);
    return data;
}

/* Checks that bytes are refused with a status and a message that holds `part`; frees them. */
static inline void refused(nimbus_buffer b, const char *format, nimbus_status expected,
                           const char *part)
{
    nimbus_data *data = (nimbus_data *)&b;
    nimbus_error error = {0};
    nimbus_status status = nimbus_data_parse(b.bytes, b.size, format, NULL, &data, &error);
    assert_int_equal(status, expected);
    assert_int_equal(error.status, expected);
    assert_null(data);
    if (!strstr(error.message, part))
        fail_msg("'%s' does not say '%s'", error.message, part);
    nimbus_buffer_free(&b);
}

/* Every prefix is refused, and so is one byte more. */
static inline void refuse_prefixes(const nimbus_buffer *b, const char *format)
{
    for (size_t n = 0; n < b->size; n++) {
        nimbus_data *data;
        uint8_t *exact = malloc(n + 1); /* its own block, so that a sanitizer sees over-reads */
        memcpy(exact, b->bytes, n);
        uint8_t *shrunk = realloc(exact, n ? n : 1);
        assert_int_not_equal(nimbus_data_parse(shrunk, n, format, NULL, &data, NULL), NIMBUS_OK);
        assert_null(data);
        free(shrunk);
    }
    nimbus_buffer longer = {0};
    nimbus_write_bytes(&longer, b->bytes, b->size);
    nimbus_write_u8(&longer, 0);
    refused(longer, format, strcmp(format, "cifar") ? NIMBUS_ERR_FORMAT : NIMBUS_ERR_TRUNCATED, "");
}

static inline nimbus_data *open_split(const char *spec, nimbus_split split,
                                      const nimbus_data_options *options)
{
    nimbus_data *data;
    nimbus_error error;
    if (nimbus_data_open(spec, split, options, &data, &error) != NIMBUS_OK)
        fail_msg("%s: %s", spec, error.message);
    return data;
}

static inline void open_refused(const char *spec, nimbus_split split,
                                const nimbus_data_options *options, nimbus_status expected,
                                const char *part)
{
    nimbus_data *data;
    nimbus_error error = {0};
    assert_int_equal(nimbus_data_open(spec, split, options, &data, &error), expected);
    assert_null(data);
    if (!strstr(error.message, part))
        fail_msg("'%s' does not say '%s'", error.message, part);
}

static inline nimbus_buffer cifar_batch(size_t n, uint8_t first_label)
{
    nimbus_buffer b = {0};
    for (size_t i = 0; i < n; i++) {
        nimbus_write_u8(&b, (uint8_t)(first_label + i));
        for (size_t j = 0; j < 3072; j++)
            nimbus_write_u8(&b, (uint8_t)(i + j / 1024));
    }
    return b;
}

static inline void tar_entry(nimbus_buffer *tar, const char *name, const nimbus_buffer *content)
{
    uint8_t header[512] = {0};
    snprintf((char *)header, 100, "%s", name);
    snprintf((char *)header + 124, 12, "%011lo", (unsigned long)content->size);
    memset(header + 148, ' ', 8);
    header[156] = '0';
    unsigned long sum = 0;
    for (size_t i = 0; i < 512; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06lo", sum);
    nimbus_write_bytes(tar, header, 512);
    nimbus_write_bytes(tar, content->bytes, content->size);
    nimbus_write_pad(tar, 512);
}

/* The official archive in small: two training batches out of order, a test batch, a text. */
static inline nimbus_buffer cifar_tar(void)
{
    nimbus_buffer tar = {0}, text = {0};
    nimbus_buffer one = cifar_batch(2, 0), two = cifar_batch(1, 5), test = cifar_batch(3, 7);
    nimbus_write_bytes(&text, "airplane\n", 9);
    tar_entry(&tar, "cifar-10-batches-bin/batches.meta.txt", &text);
    tar_entry(&tar, "cifar-10-batches-bin/data_batch_2.bin", &two);
    tar_entry(&tar, "cifar-10-batches-bin/test_batch.bin", &test);
    tar_entry(&tar, "cifar-10-batches-bin/data_batch_1.bin", &one);
    uint8_t end[1024] = {0};
    nimbus_write_bytes(&tar, end, sizeof end);
    nimbus_buffer_free(&one);
    nimbus_buffer_free(&two);
    nimbus_buffer_free(&test);
    nimbus_buffer_free(&text);
    return tar;
}

#endif
