/* test_base.c - src/base: checksums, cursors, containers, files, random numbers, threads */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"

/* ---- error.c ----------------------------------------------------------------------------- */

static void test_error_message(void **state)
{
    (void)state;
    nimbus_error error;
    assert_int_equal(nimbus_fail(&error, NIMBUS_ERR_VALUE, "row %d", 7), NIMBUS_ERR_VALUE);
    assert_int_equal(error.status, NIMBUS_ERR_VALUE);
    assert_int_equal(error.offset, 0);
    assert_string_equal(error.message, "row 7");
    assert_int_equal(nimbus_fail_at(&error, NIMBUS_ERR_FORMAT, 99, "x"), NIMBUS_ERR_FORMAT);
    assert_int_equal(error.offset, 99);
    assert_int_equal(nimbus_fail_prefix(&error, NIMBUS_ERR_FORMAT, "file %s", "a.net"),
                     NIMBUS_ERR_FORMAT);
    assert_string_equal(error.message, "file a.net: x");
    assert_int_equal(error.offset, 99);
    errno = ENOENT;
    assert_int_equal(nimbus_fail_errno(&error, "cannot open %s", "b"), NIMBUS_ERR_IO);
    assert_int_equal(error.os_errno, ENOENT);
    assert_string_equal(error.message, "cannot open b: No such file or directory");
    assert_int_equal(nimbus_fail(NULL, NIMBUS_ERR_LIMIT, "nobody listens"), NIMBUS_ERR_LIMIT);
}

static void test_error_message_is_one_bounded_line(void **state)
{
    (void)state;
    nimbus_error error;
    char name[2000];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    name[3] = '\n';
    name[4] = '\x1b';
    assert_int_equal(nimbus_fail(&error, NIMBUS_ERR_IO, "%s", name), NIMBUS_ERR_IO);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_memory_equal(error.message, "xxx??x", 6);
    assert_int_equal(nimbus_fail_prefix(&error, NIMBUS_ERR_IO, "%s", name), NIMBUS_ERR_IO);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

static void test_status_names(void **state)
{
    (void)state;
    for (int i = NIMBUS_OK; i <= NIMBUS_ERR_CANCELLED; i++)
        assert_string_not_equal(nimbus_status_name((nimbus_status)i), "unknown");
    assert_string_equal(nimbus_status_name(NIMBUS_OK), "ok");
    assert_string_equal(nimbus_status_name(NIMBUS_ERR_CANCELLED), "cancelled");
    assert_string_equal(nimbus_status_name((nimbus_status)77), "unknown");
    assert_string_equal(nimbus_version(), "0.1.0");
}

/* ---- memory.c ---------------------------------------------------------------------------- */

static void test_alloc_is_zeroed_and_aligned(void **state)
{
    (void)state;
    for (size_t i_size = 0; i_size < 200; i_size++) {
        size_t n = i_size * i_size / 2 % 5000;
        uint8_t *p = nimbus_alloc(n, 3);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < 3 * n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xee, 3 * n); /* so that a reused block would show */
        nimbus_free(p);
    }
    nimbus_free(NULL);
}

static void test_alloc_refuses_overflow(void **state)
{
    (void)state;
    size_t product;
    assert_null(nimbus_alloc(SIZE_MAX / 2 + 1, 2));
    assert_null(nimbus_alloc(SIZE_MAX, 1));
    assert_true(nimbus_mul_overflows(SIZE_MAX / 2 + 1, 2, &product));
    assert_false(nimbus_mul_overflows(SIZE_MAX / 2, 2, &product));
    assert_true(product == SIZE_MAX - 1);
}

static void test_realloc_keeps_and_zeroes(void **state)
{
    (void)state;
    uint32_t *p = nimbus_alloc(4, sizeof *p);
    for (uint32_t i = 0; i < 4; i++)
        p[i] = i + 1;
    p = nimbus_realloc(p, 4, 100, sizeof *p);
    assert_non_null(p);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(p[i], i < 4 ? i + 1 : 0);
    nimbus_fail_alloc_after = 1;
    assert_null(nimbus_realloc(p, 100, 200, sizeof *p));
    assert_int_equal(p[3], 4); /* still ours */
    p = nimbus_realloc(p, 100, 2, sizeof *p);
    assert_int_equal(p[1], 2);
    nimbus_free(p);
    uint32_t *fresh = nimbus_realloc(NULL, 0, 1, sizeof *fresh);
    assert_int_equal(fresh[0], 0);
    nimbus_free(fresh);
    char *copy = nimbus_strdup("cloud");
    assert_string_equal(copy, "cloud");
    nimbus_free(copy);
}

/* ---- bytes.c ----------------------------------------------------------------------------- */

static void test_reader_values(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1,    2, 3, 4,    5,    6, 7, 8, 9, 10,  11,
                             0x12, 0, 0, 0x80, 0x3f, 1, 2, 3, 4, 0xff};
    nimbus_reader r = nimbus_reader_of(bytes, sizeof bytes);
    assert_int_equal(nimbus_read_u16le(&r), 0x0201);
    assert_true(nimbus_read_u64le(&r) == 0x0a09080706050403u);
    assert_int_equal(nimbus_read_u8(&r), 11);
    assert_int_equal(nimbus_read_u8(&r), 0x12);
    assert_true(nimbus_read_f32le(&r) == 1.0f);
    assert_int_equal(nimbus_read_u32be(&r), 0x01020304);
    assert_int_equal(nimbus_reader_left(&r), 1);
    assert_false(r.failed);
}

static void test_reader_failure_is_sticky(void **state)
{
    (void)state;
    const uint8_t bytes[6] = {1, 2, 3, 4, 5, 6};
    nimbus_reader r = nimbus_reader_of(bytes, sizeof bytes);
    assert_int_equal(nimbus_read_u32le(&r), 0x04030201);
    assert_int_equal(nimbus_read_u32le(&r), 0);
    assert_true(r.failed);
    assert_int_equal(nimbus_read_u8(&r), 0); /* though two bytes are left */
    assert_null(nimbus_read_bytes(&r, 0));
    assert_int_equal(nimbus_reader_left(&r), 0);

    r = nimbus_reader_of(bytes, sizeof bytes);
    assert_null(nimbus_read_bytes(&r, SIZE_MAX));
    assert_true(r.failed);
    r = nimbus_reader_of(NULL, 0);
    assert_non_null(nimbus_read_bytes(&r, 0));
    assert_false(r.failed);
    assert_int_equal(nimbus_read_u8(&r), 0);
    assert_true(r.failed);
}

static void test_buffer_round_trip(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    for (uint32_t i = 0; i < 1000; i++) {
        nimbus_write_u8(&b, (uint8_t)i);
        nimbus_write_u16le(&b, (uint16_t)(i * 3));
        nimbus_write_u32le(&b, i * 0x01010101u);
        nimbus_write_u64le(&b, i * 0x0101010101010101u);
        nimbus_write_f32le(&b, (float)i * 0.5f);
    }
    assert_int_equal(b.size, 19000);
    nimbus_write_pad(&b, 64);
    nimbus_write_pad(&b, 64);
    assert_int_equal(b.size, 19008);
    assert_false(b.failed);
    nimbus_reader r = nimbus_reader_of(b.bytes, b.size);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(nimbus_read_u8(&r), (uint8_t)i);
        assert_int_equal(nimbus_read_u16le(&r), (uint16_t)(i * 3));
        assert_int_equal(nimbus_read_u32le(&r), i * 0x01010101u);
        assert_true(nimbus_read_u64le(&r) == i * 0x0101010101010101u);
        assert_true(nimbus_read_f32le(&r) == (float)i * 0.5f);
    }
    for (int i = 0; i < 8; i++)
        assert_int_equal(nimbus_read_u8(&r), 0);
    assert_false(r.failed);
    nimbus_buffer_free(&b);
    assert_null(b.bytes);
}

static void test_buffer_failure_is_sticky(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    nimbus_write_u32le(&b, 1);
    uint8_t block[1000] = {0};
    nimbus_fail_alloc_after = 1;
    nimbus_write_bytes(&b, block, sizeof block);
    assert_true(b.failed);
    nimbus_write_u8(&b, 1);
    nimbus_write_pad(&b, 64);
    assert_int_equal(b.size, 4);
    nimbus_buffer_free(&b);
    nimbus_write_bytes(&b, NULL, 0);
    assert_false(b.failed);
    nimbus_write_bytes(&b, block, SIZE_MAX); /* cannot be allocated, must not be copied */
    assert_true(b.failed);
    nimbus_buffer_free(&b);
}

static uint32_t crc_bit_by_bit(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void test_crc32c_vectors(void **state)
{
    (void)state;
    uint8_t up[32], down[32], zeros[32] = {0}, ones[32];
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
        ones[i] = 0xff;
    }
    assert_int_equal(nimbus_crc32c(0, "123456789", 9), 0xe3069283u);
    /* RFC 3720, B.4 */
    assert_int_equal(nimbus_crc32c(0, zeros, 32), 0x8a9136aau);
    assert_int_equal(nimbus_crc32c(0, ones, 32), 0x62a8ab43u);
    assert_int_equal(nimbus_crc32c(0, up, 32), 0x46dd794eu);
    assert_int_equal(nimbus_crc32c(0, down, 32), 0x113fdb5cu);
    assert_int_equal(nimbus_crc32c(0, NULL, 0), 0);
}

static void test_crc32c_any_length_and_split(void **state)
{
    (void)state;
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)nimbus_random_u64(1, 2, i);
    for (size_t n = 0; n <= sizeof bytes; n++)
        assert_int_equal(nimbus_crc32c(0, bytes, n), crc_bit_by_bit(bytes, n));
    for (size_t cut = 0; cut <= sizeof bytes; cut++) {
        uint32_t crc = nimbus_crc32c(0, bytes, cut);
        assert_int_equal(nimbus_crc32c(crc, bytes + cut, sizeof bytes - cut),
                         crc_bit_by_bit(bytes, sizeof bytes));
    }
}

/* ---- container.c ------------------------------------------------------------------------- */

#define MAGIC "TESTBOX\n"
enum { MAJOR = 2, MINOR = 3 };

static nimbus_buffer sample_container(void)
{
    static const uint8_t payload[100] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9};
    const nimbus_section sections[] = {
        {NIMBUS_TAG('H', 'E', 'A', 'D'), payload, 24},
        {NIMBUS_TAG('D', 'A', 'T', 'A'), payload, 100},
        {NIMBUS_TAG('N', 'O', 'N', 'E'), NULL, 0},
        {NIMBUS_TAG('D', 'A', 'T', 'A'), payload, 64},
        {NIMBUS_TAG('M', 'E', 'T', 'A'), payload, 1},
    };
    nimbus_buffer b = {0};
    nimbus_error error;
    assert_int_equal(nimbus_container_write(&b, MAGIC, MAJOR, MINOR, sections, 5, &error),
                     NIMBUS_OK);
    return b;
}

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* Reads, and checks that a failure leaves nothing behind and says something. */
static nimbus_status read_status(const void *bytes, size_t size)
{
    nimbus_section *sections = (void *)&sections;
    size_t n_sections = 99;
    nimbus_error error = {0};
    nimbus_status status =
        nimbus_container_read(bytes, size, MAGIC, MAJOR, MINOR, &sections, &n_sections, &error);
    if (status == NIMBUS_OK) {
        nimbus_free(sections);
    } else {
        assert_null(sections);
        assert_int_equal(n_sections, 0);
        assert_int_equal(error.status, status);
        assert_true(strlen(error.message) > 10);
    }
    return status;
}

static void test_container_round_trip(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    nimbus_section *sections;
    size_t n_sections;
    nimbus_error error;
    assert_int_equal(nimbus_container_read(b.bytes, b.size, MAGIC, MAJOR, MINOR + 1, &sections,
                                           &n_sections, &error),
                     NIMBUS_OK);
    assert_int_equal(n_sections, 5);
    const size_t sizes[5] = {24, 100, 0, 64, 1};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(sections[i].size, sizes[i]);
        assert_int_equal((sections[i].bytes - b.bytes) % 64, 0);
    }
    assert_int_equal(sections[0].tag, NIMBUS_TAG('H', 'E', 'A', 'D'));
    assert_int_equal(sections[1].bytes[2], 4);
    assert_ptr_equal(sections[4].bytes + 1, b.bytes + b.size);
    nimbus_free(sections);
    nimbus_buffer_free(&b);
}

static void test_container_empty_and_appended(void **state)
{
    (void)state;
    nimbus_buffer plain = {0}, behind = {0};
    nimbus_error error;
    assert_int_equal(nimbus_container_write(&plain, MAGIC, MAJOR, MINOR, NULL, 0, &error),
                     NIMBUS_OK);
    assert_int_equal(plain.size, 32);
    assert_int_equal(read_status(plain.bytes, plain.size), NIMBUS_OK);
    nimbus_buffer_free(&plain);

    /* The same bytes wherever in the buffer the container begins. */
    plain = sample_container();
    const nimbus_section outer = {1, plain.bytes, plain.size};
    nimbus_write_bytes(&behind, "12345", 5);
    assert_int_equal(nimbus_container_write(&behind, MAGIC, MAJOR, MINOR, &outer, 1, &error),
                     NIMBUS_OK);
    nimbus_buffer alone = {0};
    assert_int_equal(nimbus_container_write(&alone, MAGIC, MAJOR, MINOR, &outer, 1, &error),
                     NIMBUS_OK);
    assert_int_equal(behind.size, alone.size + 5);
    assert_memory_equal(behind.bytes + 5, alone.bytes, alone.size);
    assert_int_equal(
        nimbus_container_write(&alone, MAGIC, MAJOR, MINOR, NULL, NIMBUS_MAX_SECTIONS + 1, &error),
        NIMBUS_ERR_LIMIT);
    nimbus_buffer_free(&alone);
    nimbus_buffer_free(&behind);
    nimbus_buffer_free(&plain);
}

static void test_container_refuses_every_prefix(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_OK);
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *exact = nimbus_alloc(n, 1); /* so that ASan sees a read past the end */
        memcpy(exact, b.bytes, n);
        assert_int_equal(read_status(exact, n), NIMBUS_ERR_TRUNCATED);
        nimbus_free(exact);
    }
    nimbus_buffer_free(&b);
}

static void test_container_refuses_bytes_behind_it(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    nimbus_write_u8(&b, 0);
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_ERR_FORMAT);
    put_le(b.bytes + 16, b.size, 8); /* the header knows of the byte, no section does */
    put_le(b.bytes + 28, nimbus_crc32c(0, b.bytes, 28), 4);
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_ERR_FORMAT);
    nimbus_buffer_free(&b);
}

static void test_container_refuses_every_bit_flip(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    for (size_t bit = 0; bit < 8 * b.size; bit++) {
        b.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(read_status(b.bytes, b.size), NIMBUS_OK);
        b.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_OK);
    nimbus_buffer_free(&b);
}

/* A liar who knows the checksums: sets one field of the sample and makes both sums right. */
static nimbus_status forged_status(size_t at, uint64_t value, size_t n)
{
    nimbus_buffer b = sample_container();
    put_le(b.bytes + at, value, n);
    put_le(b.bytes + 24, nimbus_crc32c(0, b.bytes + 32, 24 * 5), 4);
    put_le(b.bytes + 28, nimbus_crc32c(0, b.bytes, 28), 4);
    nimbus_status status = read_status(b.bytes, b.size);
    nimbus_buffer_free(&b);
    return status;
}

static void test_container_refuses_forgeries(void **state)
{
    (void)state;
    const size_t entry0 = 32, entry1 = 56, entry4 = 128;
    nimbus_buffer b = sample_container();
    const size_t size = b.size;
    nimbus_buffer_free(&b);
    const struct {
        const char *what;
        size_t at;
        uint64_t value;
        size_t n;
        nimbus_status status;
    } cases[] = {
        {"nothing changed", 12, 5, 4, NIMBUS_OK},
        {"older minor", 10, MINOR - 1, 2, NIMBUS_OK},
        {"newer minor", 10, MINOR + 1, 2, NIMBUS_ERR_VERSION},
        {"newer major", 8, MAJOR + 1, 2, NIMBUS_ERR_VERSION},
        {"older major", 8, MAJOR - 1, 2, NIMBUS_ERR_VERSION},
        {"other magic", 0, 'X', 1, NIMBUS_ERR_FORMAT},
        {"size too large", 16, size + 1, 8, NIMBUS_ERR_TRUNCATED},
        {"size too small", 16, size - 1, 8, NIMBUS_ERR_FORMAT},
        {"size huge", 16, UINT64_MAX, 8, NIMBUS_ERR_TRUNCATED},
        {"sections over the limit", 12, NIMBUS_MAX_SECTIONS + 1, 4, NIMBUS_ERR_LIMIT},
        {"sections past the file", 12, NIMBUS_MAX_SECTIONS, 4, NIMBUS_ERR_FORMAT},
        {"all the sections there are", 12, UINT32_MAX, 4, NIMBUS_ERR_LIMIT},
        {"offset in the table", entry0 + 8, 64, 8, NIMBUS_ERR_FORMAT},
        {"offset unaligned", entry0 + 8, 193, 8, NIMBUS_ERR_FORMAT},
        {"offset overlapping", entry1 + 8, 192, 8, NIMBUS_ERR_FORMAT},
        {"offset leaving a hole", entry1 + 8, 320, 8, NIMBUS_ERR_FORMAT},
        {"offset past the file", entry4 + 8, 1 << 20, 8, NIMBUS_ERR_FORMAT},
        {"offset wrapping around", entry1 + 8, UINT64_MAX - 63, 8, NIMBUS_ERR_FORMAT},
        {"length past the file", entry4 + 16, 2, 8, NIMBUS_ERR_FORMAT},
        {"length wrapping around", entry1 + 16, UINT64_MAX, 8, NIMBUS_ERR_FORMAT},
        {"length wrapping with alignment", entry4 + 16, UINT64_MAX - 63, 8, NIMBUS_ERR_FORMAT},
        {"last section short", entry4 + 16, 0, 8, NIMBUS_ERR_CHECKSUM},
        {"wrong section checksum", entry1 + 4, 0, 4, NIMBUS_ERR_CHECKSUM},
        {"data in a gap", 32 + 120 + 3, 1, 1, NIMBUS_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_status status = forged_status(cases[i].at, cases[i].value, cases[i].n);
        if (status != cases[i].status)
            fail_msg("%s: %s, expected %s", cases[i].what, nimbus_status_name(status),
                     nimbus_status_name(cases[i].status));
    }
}

static void test_container_out_of_memory(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    nimbus_fail_alloc_after = 1;
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_ERR_MEMORY);
    nimbus_section section = {1, b.bytes, b.size};
    nimbus_error error;
    long k = 0;
    nimbus_status status;
    do {
        nimbus_buffer out = {0};
        nimbus_fail_alloc_after = ++k;
        status = nimbus_container_write(&out, MAGIC, 1, 0, &section, 1, &error);
        assert_true(status == (nimbus_fail_alloc_after > 0 ? NIMBUS_OK : NIMBUS_ERR_MEMORY));
        nimbus_buffer_free(&out);
    } while (status != NIMBUS_OK);
    assert_true(k > 1);
    nimbus_fail_alloc_after = 0;
    nimbus_buffer_free(&b);
}

/* ---- file.c ------------------------------------------------------------------------------ */

static char folder[512];

static const char *in_folder(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nimbus-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

/* Number of files in the folder; removes them if asked. */
static int count_files(bool and_remove)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        if (and_remove)
            remove(in_folder(e->d_name));
    }
    closedir(d);
    return n;
}

static int remove_folder(void **state)
{
    (void)state;
    nimbus_fail_file_call_after = 0;
    count_files(true);
    return rmdir(folder);
}

static nimbus_status write_text(const char *path, const char *text, nimbus_error *error)
{
    return nimbus_file_write(path, text, strlen(text), error);
}

static void assert_content(const char *path, const char *text)
{
    nimbus_buffer b;
    nimbus_error error;
    assert_int_equal(nimbus_file_read(path, 1 << 20, &b, &error), NIMBUS_OK);
    assert_int_equal(b.size, strlen(text));
    assert_memory_equal(b.bytes, text, b.size);
    nimbus_buffer_free(&b);
}

static void test_file_round_trip(void **state)
{
    (void)state;
    nimbus_error error;
    const char *path = in_folder("file");
    assert_false(nimbus_file_exists(path));
    assert_int_equal(nimbus_file_write(path, NULL, 0, &error), NIMBUS_OK);
    assert_content(path, "");
    for (size_t n = 1; n < 500000; n = n * 7 + 1) {
        uint8_t *bytes = nimbus_alloc(n, 1);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)nimbus_random_u64(9, n, i);
        assert_int_equal(nimbus_file_write(path, bytes, n, &error), NIMBUS_OK);
        nimbus_buffer b;
        assert_int_equal(nimbus_file_read(path, n, &b, &error), NIMBUS_OK);
        assert_int_equal(b.size, n);
        assert_memory_equal(b.bytes, bytes, n);
        nimbus_buffer_free(&b);
        assert_int_equal(nimbus_file_read(path, n - 1, &b, &error), NIMBUS_ERR_LIMIT);
        assert_null(b.bytes);
        nimbus_free(bytes);
    }
    assert_true(nimbus_file_exists(path));
    assert_int_equal(count_files(false), 1);
}

static void test_file_mode_follows_umask(void **state)
{
    (void)state;
    nimbus_error error;
    struct stat info;
    mode_t old = umask(027);
    assert_int_equal(write_text(in_folder("file"), "x", &error), NIMBUS_OK);
    umask(old);
    assert_int_equal(stat(in_folder("file"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

static void test_file_refuses_what_is_no_file(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_buffer b;
    const char *const no_targets[] = {folder, "", "no/such/folder/file"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(write_text(no_targets[i], "x", &error), NIMBUS_ERR_IO);
        assert_non_null(strstr(error.message, no_targets[i]));
        assert_int_equal(nimbus_file_read(no_targets[i], 1 << 20, &b, &error), NIMBUS_ERR_IO);
        assert_null(b.bytes);
    }
    /* A pipe of our own stands for every device: a wrong rename onto a real one would lose it. */
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(nimbus_file_read(in_folder("pipe"), 100, &b, &error), NIMBUS_ERR_IO);
    assert_int_equal(write_text(in_folder("pipe"), "x", &error), NIMBUS_ERR_IO);
    assert_int_equal(count_files(false), 1);
    assert_int_equal(nimbus_file_read(in_folder("absent"), 100, &b, &error), NIMBUS_ERR_IO);
    assert_int_equal(error.os_errno, ENOENT);
}

static void test_file_write_follows_links(void **state)
{
    (void)state;
    nimbus_error error;
    struct stat info;
    assert_int_equal(write_text(in_folder("real"), "old", &error), NIMBUS_OK);
    assert_int_equal(symlink("real", in_folder("link")), 0);
    assert_int_equal(write_text(in_folder("link"), "new", &error), NIMBUS_OK);
    assert_int_equal(lstat(in_folder("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_content(in_folder("real"), "new");
    assert_int_equal(symlink("nowhere", in_folder("dangling")), 0);
    assert_int_equal(write_text(in_folder("dangling"), "x", &error), NIMBUS_ERR_IO);
}

static void test_file_reads_standard_input(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_buffer b;
    int ends[2], saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "from a pipe", 11), 11);
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    nimbus_status status = nimbus_file_read("-", 100, &b, &error);
    dup2(saved, STDIN_FILENO);
    close(saved);
    assert_int_equal(status, NIMBUS_OK);
    assert_int_equal(b.size, 11);
    assert_memory_equal(b.bytes, "from a pipe", 11);
    nimbus_buffer_free(&b);
}

/* Fails the k-th system call for every k: the old file stays whole and nothing lies beside it. */
static void test_file_write_survives_every_failing_call(void **state)
{
    (void)state;
    nimbus_error error;
    const char *path = in_folder("file");
    long k = 0;
    for (;;) {
        assert_int_equal(write_text(path, "the old content", &error), NIMBUS_OK);
        nimbus_fail_file_call_after = ++k;
        nimbus_status status = write_text(path, "the new content, longer", &error);
        bool all_passed = nimbus_fail_file_call_after > 0;
        nimbus_fail_file_call_after = 0;
        assert_int_equal(count_files(false), 1);
        if (all_passed) {
            assert_int_equal(status, NIMBUS_OK);
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_IO);
        assert_int_equal(error.os_errno, ENOSPC);
        assert_non_null(strstr(error.message, path));
        /* Only the folder's fsync comes after the new file has taken the old one's place. */
        bool replaced = strstr(error.message, ": written, but") != NULL;
        assert_content(path, replaced ? "the new content, longer" : "the old content");
    }
    /* open folder, open file, write, fsync, close, rename, fsync folder */
    assert_int_equal(k, 8);
    assert_content(path, "the new content, longer");
}

static void test_file_read_survives_every_failing_call(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_buffer b;
    const char *path = in_folder("file");
    assert_int_equal(write_text(path, "content", &error), NIMBUS_OK);
    for (long k = 1; k <= 3; k++) { /* open, read, read at the end */
        nimbus_fail_file_call_after = k;
        assert_int_equal(nimbus_file_read(path, 100, &b, &error), NIMBUS_ERR_IO);
        assert_null(b.bytes);
    }
    assert_int_equal(nimbus_fail_file_call_after, 0);
    nimbus_fail_alloc_after = 1;
    assert_int_equal(nimbus_file_read(path, 100, &b, &error), NIMBUS_ERR_MEMORY);
    assert_null(b.bytes);
    assert_content(path, "content");
}

/* The system itself cuts a write short, then refuses: a file size limit. */
static void test_file_write_survives_a_full_disk(void **state)
{
    (void)state;
    nimbus_error error;
    struct rlimit old, small;
    char block[5000];
    memset(block, 'n', sizeof block);
    const char *path = in_folder("file");
    assert_int_equal(write_text(path, "old", &error), NIMBUS_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    small = old;
    small.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    nimbus_status status = nimbus_file_write(path, block, sizeof block, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, NIMBUS_ERR_IO);
    assert_int_equal(error.os_errno, EFBIG);
    assert_content(path, "old");
    assert_int_equal(count_files(false), 1);
}

/* kill -9 of a process that keeps replacing a file: always one whole content. */
static void test_file_write_survives_kill(void **state)
{
    (void)state;
    enum { SIZE = 200000, KILLS = 30 };
    nimbus_error error;
    nimbus_buffer b;
    const char *path = in_folder("file");
    uint8_t *block = nimbus_alloc(SIZE, 1);
    assert_int_equal(nimbus_file_write(path, block, SIZE, &error), NIMBUS_OK);
    for (uint64_t round = 0; round < KILLS; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (int i = 1;; i++) {
                memset(block, i, SIZE);
                if (nimbus_file_write(path, block, SIZE, &error) != NIMBUS_OK)
                    _exit(1);
            }
        }
        usleep((useconds_t)(500 + nimbus_random_below(3, 0, round, 10000)));
        kill(child, SIGKILL);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
        assert_int_equal(nimbus_file_read(path, SIZE, &b, &error), NIMBUS_OK);
        assert_int_equal(b.size, SIZE);
        for (size_t i = 1; i < SIZE; i++) {
            if (b.bytes[i] != b.bytes[0])
                fail_msg("kill %d: byte %zu is of another version", (int)round, i);
        }
        nimbus_buffer_free(&b);
    }
    nimbus_free(block);
}

/* ---- random.c ---------------------------------------------------------------------------- */

static void test_random_is_philox(void **state)
{
    (void)state;
    /* Known answers of Random123's kat_vectors for philox4x32, 10 rounds: the first two words. */
    assert_true(nimbus_random_u64(0, 0, 0) == 0xe169c58d6627e8d5u);
    assert_true(nimbus_random_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x41c83b0e408f276du);
    assert_true(nimbus_random_u64(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u) ==
                0x94fdccebd16cfe09u);
}

static void test_random_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    double u1 = 0, u2 = 0, n1 = 0, n2 = 0, n4 = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = nimbus_random_uniform(5, 6, i), n = nimbus_random_normal(5, 6, i);
        assert_true(u >= 0.0 && u < 1.0);
        assert_true(isfinite(n));
        u1 += u / N;
        u2 += u * u / N;
        n1 += n / N;
        n2 += n * n / N;
        n4 += n * n * n * n / N;
    }
    /* Five standard errors. */
    assert_true(fabs(u1 - 1.0 / 2) < 5 * 0.289 / sqrt(N));
    assert_true(fabs(u2 - 1.0 / 3) < 5 * 0.298 / sqrt(N));
    assert_true(fabs(n1) < 5 / sqrt(N));
    assert_true(fabs(n2 - 1) < 5 * sqrt(2) / sqrt(N));
    assert_true(fabs(n4 - 3) < 5 * sqrt(96) / sqrt(N));
}

/* Neighbouring seeds, streams and counters share nothing: correlation within five sigma. */
static void test_random_neighbours_are_independent(void **state)
{
    (void)state;
    enum { N = 100000 };
    double by_seed = 0, by_stream = 0, by_counter = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = nimbus_random_uniform(1, 1, i) - 0.5;
        by_seed += x * (nimbus_random_uniform(2, 1, i) - 0.5) * 12 / N;
        by_stream += x * (nimbus_random_uniform(1, 2, i) - 0.5) * 12 / N;
        by_counter += x * (nimbus_random_uniform(1, 1, i + 1) - 0.5) * 12 / N;
    }
    assert_true(fabs(by_seed) < 5 / sqrt(N));
    assert_true(fabs(by_stream) < 5 / sqrt(N));
    assert_true(fabs(by_counter) < 5 / sqrt(N));
}

static void test_random_below(void **state)
{
    (void)state;
    enum { N = 70000, SIDES = 7 };
    double seen[SIDES] = {0}, chi2 = 0;
    for (uint64_t i = 0; i < N; i++)
        seen[nimbus_random_below(1, 0, i, SIDES)]++;
    for (int i = 0; i < SIDES; i++)
        chi2 += (seen[i] - N / SIDES) * (seen[i] - N / SIDES) / (N / SIDES);
    assert_true(chi2 < 33); /* 6 degrees of freedom: one seed in 100,000 */
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t v = nimbus_random_u64(1, 1, i);
        assert_int_equal(nimbus_random_below(1, 1, i, 1), 0);
        assert_true(nimbus_random_below(1, 1, i, (size_t)1 << 40) == v >> 24);
        assert_true(nimbus_random_below(1, 1, i, SIZE_MAX) == v - (v != 0));
    }
}

static void test_random_shuffle(void **state)
{
    (void)state;
    enum { N = 1000 };
    uint32_t a[N], b[N], c[N];
    bool seen[N] = {false};
    size_t fixed = 0, same = 0;
    for (uint32_t i = 0; i < N; i++)
        a[i] = b[i] = c[i] = i;
    nimbus_random_shuffle(1, 2, a, N);
    nimbus_random_shuffle(1, 2, b, N);
    nimbus_random_shuffle(1, 3, c, N);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(a[i] < N && !seen[a[i]]);
        seen[a[i]] = true;
        assert_int_equal(a[i], b[i]);
        fixed += a[i] == i;
        same += a[i] == c[i];
    }
    assert_true(fixed < 12 && same < 12); /* one each is expected */
    /* The six orders of three items are equally likely. */
    enum { ROUNDS = 12000 };
    double seen_order[27] = {0}, chi2 = 0;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint32_t t[3] = {0, 1, 2};
        nimbus_random_shuffle(4, i, t, 3);
        seen_order[9 * t[0] + 3 * t[1] + t[2]]++;
    }
    for (int i = 0; i < 27; i++) {
        double over = seen_order[i] - ROUNDS / 6;
        chi2 += seen_order[i] > 0 ? over * over / (ROUNDS / 6) : 0;
    }
    assert_true(chi2 < 31); /* 5 degrees of freedom: one seed in 100,000 */
    nimbus_random_shuffle(1, 2, a, 1);
    nimbus_random_shuffle(1, 2, NULL, 0);
}

/* ---- threads.c --------------------------------------------------------------------------- */

enum { ITEMS = 997 };

static void count_call(void *arg, size_t i)
{
    ((uint64_t *)arg)[i] += nimbus_random_u64(1, 2, i);
}

static void test_parallel_runs_every_item_once(void **state)
{
    (void)state;
    for (unsigned n_threads = 0; n_threads <= 9; n_threads++) {
        uint64_t calls[ITEMS] = {0};
        nimbus_parallel(n_threads, ITEMS, count_call, calls);
        for (size_t i = 0; i < ITEMS; i++)
            assert_true(calls[i] == nimbus_random_u64(1, 2, i));
    }
    nimbus_parallel(4, 0, count_call, NULL);
    assert_int_equal(nimbus_thread_count(3), 3);
    assert_true(nimbus_thread_count(0) >= 1);
}

static void nest(void *arg, size_t i)
{
    nimbus_parallel(4, 10, count_call, (uint64_t *)arg + 10 * i);
}

static void test_parallel_nests(void **state)
{
    (void)state;
    uint64_t calls[80] = {0};
    nimbus_parallel(4, 8, nest, calls);
    for (size_t i = 0; i < 80; i++)
        assert_true(calls[i] == nimbus_random_u64(1, 2, i % 10));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_message),
        cmocka_unit_test(test_error_message_is_one_bounded_line),
        cmocka_unit_test(test_status_names),
        cmocka_unit_test(test_alloc_is_zeroed_and_aligned),
        cmocka_unit_test(test_alloc_refuses_overflow),
        cmocka_unit_test(test_realloc_keeps_and_zeroes),
        cmocka_unit_test(test_reader_values),
        cmocka_unit_test(test_reader_failure_is_sticky),
        cmocka_unit_test(test_buffer_round_trip),
        cmocka_unit_test(test_buffer_failure_is_sticky),
        cmocka_unit_test(test_crc32c_vectors),
        cmocka_unit_test(test_crc32c_any_length_and_split),
        cmocka_unit_test(test_container_round_trip),
        cmocka_unit_test(test_container_empty_and_appended),
        cmocka_unit_test(test_container_refuses_every_prefix),
        cmocka_unit_test(test_container_refuses_bytes_behind_it),
        cmocka_unit_test(test_container_refuses_every_bit_flip),
        cmocka_unit_test(test_container_refuses_forgeries),
        cmocka_unit_test(test_container_out_of_memory),
        IN_FOLDER(test_file_round_trip),
        IN_FOLDER(test_file_mode_follows_umask),
        IN_FOLDER(test_file_refuses_what_is_no_file),
        IN_FOLDER(test_file_write_follows_links),
        IN_FOLDER(test_file_reads_standard_input),
        IN_FOLDER(test_file_write_survives_every_failing_call),
        IN_FOLDER(test_file_read_survives_every_failing_call),
        IN_FOLDER(test_file_write_survives_a_full_disk),
        IN_FOLDER(test_file_write_survives_kill),
        cmocka_unit_test(test_random_is_philox),
        cmocka_unit_test(test_random_moments),
        cmocka_unit_test(test_random_neighbours_are_independent),
        cmocka_unit_test(test_random_below),
        cmocka_unit_test(test_random_shuffle),
        cmocka_unit_test(test_parallel_runs_every_item_once),
        cmocka_unit_test(test_parallel_nests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
