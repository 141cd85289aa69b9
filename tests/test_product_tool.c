/* test_product_tool.c - examples/product.c prints what its comments promise */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void test_example(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "row 0: leaves 0 0, sums 100 200 300\n", "row 1: leaves 1 2, sums 101 220 302\n",
        "row 2: leaves 2 1, sums 102 210 301\n", "row 3: leaves 3 3, sums 103 230 303\n",
        "row 4: leaves 0 0, sums 100 200 300\n"};
    char line[256];
    FILE *output = popen("'" TEST_EXAMPLE_PRODUCT "'", "r");
    assert_non_null(output);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_non_null(fgets(line, sizeof line, output));
        assert_string_equal(line, expected[i]);
    }
    assert_null(fgets(line, sizeof line, output));
    assert_int_equal(pclose(output), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_example)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
