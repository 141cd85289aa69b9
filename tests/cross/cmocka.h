/* cmocka.h - the few words of cmocka that tests of the runtime use, for targets where it is not
 *
 * Kept in a header and printing the same lines, so that a test is compiled with nothing but this
 * folder put before the system's. */
#ifndef NIMBUS_TESTS_CROSS_CMOCKA_H
#define NIMBUS_TESTS_CROSS_CMOCKA_H

#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

/* Where the test under way goes on when it has failed. */
static jmp_buf cmocka_failed;

#define cmocka_unit_test(function)                                                                 \
    {                                                                                              \
#function, function                                                                        \
    }

#define fail_msg(...)                                                                              \
    do {                                                                                           \
        fprintf(stderr, "[   LINE   ] --- %s:%d: error: ", __FILE__, __LINE__);                    \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        longjmp(cmocka_failed, 1);                                                                 \
    } while (0)

#define assert_true(condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("%s", #condition);                                                            \
    } while (0)
#define assert_null(a)               assert_true((a) == NULL)
#define assert_non_null(a)           assert_true((a) != NULL)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_string_equal(a, b)    assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    cmocka_run_all(tests, sizeof(tests) / sizeof(tests)[0])

static int cmocka_run_all(const struct CMUnitTest *tests, size_t n)
{
    volatile int n_failed = 0;
    for (volatile size_t i = 0; i < n; i++) {
        void *state = NULL;
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        if (setjmp(cmocka_failed) == 0) {
            tests[i].run(&state);
            printf("[       OK ] %s\n", tests[i].name);
        } else {
            printf("[  FAILED  ] %s\n", tests[i].name);
            n_failed++;
        }
    }
    return n_failed;
}

#endif
