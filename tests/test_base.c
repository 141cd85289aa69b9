/* test_base.c - src/base: errors, memory, bytes and checksums, random numbers, threads */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static void test_half_floats(void **state)
{
    (void)state;
    static const struct {
        uint16_t half;
        float value;
    } cases[] = {{0x0000, 0},           {0x3c00, 1},           {0xc100, -2.5f},
                 {0x7bff, 65504},       {0x0400, 0x1p-14f},    {0x0001, 0x1p-24f},
                 {0x83ff, -0x3ffp-24f}, {0x3555, 0x1.554p-2f}, {0x7c00, INFINITY},
                 {0xfc00, -INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_true(nimbus_float_of_half(cases[i].half) == cases[i].value);
    assert_true(signbit(nimbus_float_of_half(0x8000)) != 0);
    assert_true(isnan(nimbus_float_of_half(0x7e00)) && isnan(nimbus_float_of_half(0xfc01)));
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

#if defined(__SSE2__) || defined(__aarch64__)
static void multiply(void *arg, size_t i)
{
    volatile float *x = arg;
    x[i] = x[i] * 0.5f;
}

/* Products that are too small become 0 in all threads where that is asked for, and nowhere else. */
static void test_small_products(void **state)
{
    (void)state;
    for (unsigned n_threads = 1; n_threads <= 4; n_threads += 3)
        for (int as_zero = 0; as_zero < 3; as_zero++) {
            volatile float x[8];
            for (size_t i = 0; i < 8; i++)
                x[i] = FLT_MIN;
            const uint64_t mode = as_zero == 1 ? nimbus_small_as_zero() : 0;
            nimbus_parallel(n_threads, 8, multiply, (void *)x);
            if (as_zero == 1)
                nimbus_small_as_before(mode);
            for (size_t i = 0; i < 8; i++)
                assert_true((x[i] == 0) == (as_zero == 1));
        }
}
#endif

static void test_parallel_nests(void **state)
{
    (void)state;
    uint64_t calls[80] = {0};
    nimbus_parallel(4, 8, nest, calls);
    for (size_t i = 0; i < 80; i++)
        assert_true(calls[i] == nimbus_random_u64(1, 2, i % 10));
}

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
        cmocka_unit_test(test_half_floats),
        cmocka_unit_test(test_reader_failure_is_sticky),
        cmocka_unit_test(test_buffer_round_trip),
        cmocka_unit_test(test_buffer_failure_is_sticky),
        cmocka_unit_test(test_crc32c_vectors),
        cmocka_unit_test(test_crc32c_any_length_and_split),
        cmocka_unit_test(test_random_is_philox),
        cmocka_unit_test(test_random_moments),
        cmocka_unit_test(test_random_neighbours_are_independent),
        cmocka_unit_test(test_random_below),
        cmocka_unit_test(test_random_shuffle),
        cmocka_unit_test(test_parallel_runs_every_item_once),
        cmocka_unit_test(test_parallel_nests),
#if defined(__SSE2__) || defined(__aarch64__)
        cmocka_unit_test(test_small_products),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
