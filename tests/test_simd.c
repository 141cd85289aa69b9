/* test_simd.c - loops in several versions run in the widest that the CPU has */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "net/simd.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(NIMBUS_SANITIZED)

static uintptr_t called_from;

static __attribute__((noinline)) void remember_caller(void)
{
    called_from = (uintptr_t)__builtin_return_address(0);
}

NIMBUS_SIMD_CLONES
__attribute__((noinline)) static void probe(float *x, size_t n)
{
    remember_caller();
    for (size_t i = 0; i < n; i++)
        x[i] += 1;
}

/* As gcc names the versions. */
extern const char probe_512[] __asm__("probe.avx512f");
extern const char probe_2[] __asm__("probe.avx2");
extern const char probe_plain[] __asm__("probe.default");

static void widest_runs(void **state)
{
    (void)state;
    const uintptr_t versions[] = {(uintptr_t)probe_512, (uintptr_t)probe_2, (uintptr_t)probe_plain};
    float x[100] = {0};
    size_t ran = 0, expected = __builtin_cpu_supports("avx512f") ? 0
                               : __builtin_cpu_supports("avx2")  ? 1
                                                                 : 2;
    probe(x, 100);
    for (size_t i = 1; i < 3; i++) /* the last that begins before the call */
        if (versions[i] < called_from &&
            (versions[ran] > called_from || versions[i] > versions[ran]))
            ran = i;
    assert_int_equal(ran, expected);
    assert_true(x[99] == 1);
}

#else

static void widest_runs(void **state)
{
    (void)state;
    printf(
        "skipped: with this compiler or sanitizer there is one version, or it has another name\n");
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(widest_runs)};
    return cmocka_run_group_tests_name("wide registers", tests, NULL, NULL);
}
