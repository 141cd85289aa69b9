/* test_product.c - products on their own, from and to plain arrays, against loops written here
 *
 * All arrays end at a page that may not be touched, so a byte read or written beyond what nimbus.h
 * allows ends the test. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nimbus.h"
#include "run/kernels.h"
#include "trial.h"

static nimbus_product_arrays random_arrays(trial *t)
{
    nimbus_product_arrays a = {.size = sizeof a,
                               .n_inputs = 1 + below(t, 150),
                               .n_outputs = 1 + below(t, below(t, 3) ? 40 : 300),
                               .n_codebooks = 1 + below(t, below(t, 4) ? 40 : 500),
                               .n_levels = 1 + below(t, below(t, 3) ? 4 : 8)};
    if (a.n_levels > 6)
        a.n_codebooks = 1 + a.n_codebooks % 9;
    const size_t K = (size_t)1 << a.n_levels;
    const unsigned bits = below(t, 3) ? 8 : 7;
    uint32_t *columns = array(t, a.n_codebooks * a.n_levels * sizeof *columns);
    for (size_t i = 0; i < a.n_codebooks * a.n_levels; i++)
        columns[i] = (uint32_t)below(t, a.n_inputs);
    int8_t *tables = random_bytes(t, a.n_codebooks * K * a.n_outputs);
    for (size_t i = 0; i < a.n_codebooks * K * a.n_outputs && bits == 7; i++)
        tables[i] = (int8_t)(tables[i] / 2);
    int32_t *bias = array(t, a.n_outputs * sizeof *bias);
    for (size_t m = 0; m < a.n_outputs; m++)
        bias[m] = made_between(&t->random, -3000, 3000);
    a.columns = columns;
    a.thresholds = random_bytes(t, a.n_codebooks * (K - 1));
    a.tables = tables;
    a.bias = below(t, 4) ? bias : NULL;
    return a;
}

static unsigned code_of(const nimbus_product_arrays *a, size_t c, const int8_t *x, size_t x_stride,
                        size_t r)
{
    const size_t n_nodes = ((size_t)1 << a->n_levels) - 1;
    size_t i = 0;
    for (size_t h = 0; h < a->n_levels; h++)
        i = 2 * i + 1 +
            (x[a->columns[c * a->n_levels + h] * x_stride + r] > a->thresholds[c * n_nodes + i]);
    return (unsigned)(i - n_nodes);
}

static int32_t sum_of(const nimbus_product_arrays *a, const uint8_t *codes, size_t stride, size_t r,
                      size_t m)
{
    int32_t sum = a->bias ? a->bias[m] : 0;
    for (size_t c = 0; c < a->n_codebooks; c++)
        sum += a->tables[((c << a->n_levels) + codes[c * stride + r]) * a->n_outputs + m];
    return sum;
}

static size_t some_rows(trial *t)
{
    static const size_t rows[] = {1,  1,  2,   15,  16,  17,  31,  63,
                                  64, 65, 100, 128, 255, 256, 257, 300};
    return rows[below(t, sizeof rows / sizeof *rows)];
}

static void check_product(trial *t)
{
    const nimbus_product_arrays a = random_arrays(t);
    const size_t n = some_rows(t), odd = below(t, 2) * (1 + below(t, 70));
    const size_t stride = below(t, 3) ? n + odd : 2048; /* the latter so that columns collide */
    const size_t C = a.n_codebooks, M = a.n_outputs;
    const unsigned shift = (unsigned)below(t, 12);
    nimbus_product *product;
    nimbus_error error;
    /* where columns have been measured to pay, from the first row on, and never */
    static const char *const columns_from[] = {NULL, "1", "100000"};
    const char *from = columns_from[below(t, 3)];
    if (from)
        setenv("NIMBUS_COLUMNS_FROM", from, 1);
    const size_t isa = below(t, 2 * nimbus_kernel_table_size); /* the best one half of the time */
    assert_int_equal(
        nimbus_set_max_isa(isa < nimbus_kernel_table_size ? nimbus_kernel_table[isa].isa : NULL),
        NIMBUS_OK);
    nimbus_status status = nimbus_product_new(&a, &product, &error);
    assert_int_equal(nimbus_set_max_isa(NULL), NIMBUS_OK);
    unsetenv("NIMBUS_COLUMNS_FROM");
    if (status != NIMBUS_OK)
        fail_msg("%s", error.message);
    const int8_t *x = random_bytes(t, (a.n_inputs - 1) * stride + n);
    uint8_t *codes = array(t, (C - 1) * stride + n);
    int32_t *sums = array(t, ((M - 1) * stride + n) * sizeof *sums);
    int8_t *y = array(t, (M - 1) * stride + n);
    void *scratch = array(t, nimbus_product_scratch_size(product));

    assert_int_equal(nimbus_product_encode(product, x, stride, n, codes, stride, scratch), 0);
    for (size_t c = 0; c < C; c++)
        for (size_t r = 0; r < n; r++)
            assert_int_equal(codes[c * stride + r], code_of(&a, c, x, stride, r));
    assert_int_equal(nimbus_product_lookup(product, codes, stride, n, sums, stride, scratch), 0);
    assert_int_equal(nimbus_product_lookup_i8(product, codes, stride, n, shift, y, stride, scratch),
                     0);
    for (size_t m = 0; m < M; m++) {
        for (size_t r = 0; r < n; r++) {
            int32_t sum = sum_of(&a, codes, stride, r, m);
            int32_t shifted = sum < 0 ? ~(~sum >> shift) : sum >> shift;
            assert_int_equal(sums[m * stride + r], sum);
            assert_int_equal(y[m * stride + r], shifted < -128  ? -128
                                                : shifted > 127 ? 127
                                                                : shifted);
        }
    }
    nimbus_product_free(product);
}

static void test_products(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 120; seed++) {
        trial t = {.random = {seed, 0}};
        check_product(&t);
        trial_end(&t);
    }
}

static void test_refused(void **state)
{
    (void)state;
    const uint32_t columns[] = {0, 1};
    const int8_t thresholds[3] = {0}, tables[4] = {1, 2, 3, 4};
    const int32_t bias[] = {INT32_MAX};
    const nimbus_product_arrays good = {sizeof good, 2, 1, 1, 2, columns, thresholds, tables, NULL};
    nimbus_product *product;
    nimbus_error error;
    assert_int_equal(nimbus_product_new(&good, &product, &error), NIMBUS_OK);
    nimbus_product_free(product);
    struct {
        nimbus_product_arrays arrays;
        nimbus_status status;
    } bad[] = {{good, NIMBUS_ERR_ARGUMENT}, {good, NIMBUS_ERR_ARGUMENT},
               {good, NIMBUS_ERR_ARGUMENT}, {good, NIMBUS_ERR_ARGUMENT},
               {good, NIMBUS_ERR_ARGUMENT}, {good, NIMBUS_ERR_LIMIT}};
    bad[0].arrays.size--;
    bad[1].arrays.n_levels = 9;
    bad[2].arrays.n_outputs = 0;
    bad[3].arrays.n_inputs = 1; /* column 1 is read */
    bad[4].arrays.tables = NULL;
    bad[5].arrays.bias = bias;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        product = (nimbus_product *)(uintptr_t)1;
        assert_int_equal(nimbus_product_new(&bad[i].arrays, &product, &error), bad[i].status);
        assert_null(product);
        assert_true(strlen(error.message) > 0);
    }
    int8_t x[2] = {0};
    uint8_t codes[1] = {0};
    assert_int_equal(nimbus_product_new(&good, &product, &error), NIMBUS_OK);
    void *scratch = malloc(nimbus_product_scratch_size(product));
    assert_int_equal(nimbus_product_encode(product, x, 1, 2, codes, 2, scratch),
                     NIMBUS_ERR_ARGUMENT); /* strides below the number of rows */
    assert_int_equal(nimbus_product_lookup(product, codes, 1, 1, NULL, 1, scratch),
                     NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_product_lookup_i8(product, codes, 1, 1, 25, x, 1, scratch),
                     NIMBUS_ERR_ARGUMENT);
    free(scratch);
    nimbus_product_free(product);
}

/* The best set is taken, or the one named; an unknown name changes nothing. */
static void test_max_isa(void **state)
{
    (void)state;
    const uint32_t columns[] = {0};
    const int8_t thresholds[1] = {0}, tables[2] = {1, 2};
    const nimbus_product_arrays a = {sizeof a, 1, 1, 1, 1, columns, thresholds, tables, NULL};
    nimbus_product *product;
    assert_int_equal(nimbus_set_max_isa("c"), NIMBUS_OK);
    assert_int_equal(nimbus_set_max_isa("z80"), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_product_new(&a, &product, NULL), NIMBUS_OK);
    assert_string_equal(nimbus_product_isa(product), "c");
    nimbus_product_free(product);
    assert_int_equal(nimbus_set_max_isa(NULL), NIMBUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_max_isa)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
