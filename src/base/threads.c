/* threads.c - one loop over independent items, on OpenMP where it is compiled in; how floats too
 * small to be normal are treated */
#include "base/base.h"

#if defined(__SSE2__)
#include <xmmintrin.h>

enum { SMALL_AS_ZERO = 0x8040 }; /* FTZ, DAZ */

static uint64_t float_mode(void)
{
    return _mm_getcsr();
}

static void set_float_mode(uint64_t mode)
{
    _mm_setcsr((unsigned)mode);
}

#elif defined(__aarch64__)

enum { SMALL_AS_ZERO = 1 << 24 }; /* FZ */

static uint64_t float_mode(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}

static void set_float_mode(uint64_t mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}

#else

enum { SMALL_AS_ZERO = 0 };

static uint64_t float_mode(void)
{
    return 0;
}

static void set_float_mode(uint64_t mode)
{
    (void)mode;
}

#endif

uint64_t nimbus_small_as_zero(void)
{
    const uint64_t mode = float_mode();
    set_float_mode(mode | SMALL_AS_ZERO);
    return mode;
}

void nimbus_small_as_before(uint64_t mode)
{
    set_float_mode(mode);
}

static void run_here(size_t n_items, void (*body)(void *arg, size_t i), void *arg)
{
    for (size_t i = 0; i < n_items; i++)
        body(arg, i);
}

#ifdef _OPENMP
#include <limits.h>
#include <omp.h>

unsigned nimbus_thread_count(unsigned n_threads)
{
    return n_threads > 0 ? n_threads : (unsigned)omp_get_max_threads();
}

void nimbus_parallel(unsigned n_threads, size_t n_items, void (*body)(void *arg, size_t i),
                     void *arg)
{
    size_t n = nimbus_thread_count(n_threads);
    if (n > n_items)
        n = n_items;
    if (n <= 1 || omp_in_parallel()) {
        run_here(n_items, body, arg);
        return;
    }
    const uint64_t mode = float_mode(); /* all threads take the caller's */
#pragma omp parallel num_threads((int)(n < INT_MAX ? n : INT_MAX))
    {
        const uint64_t own = float_mode();
        set_float_mode(mode);
#pragma omp for schedule(static)
        for (size_t i = 0; i < n_items; i++)
            body(arg, i);
        set_float_mode(own);
    }
}

#else

unsigned nimbus_thread_count(unsigned n_threads)
{
    return n_threads > 0 ? n_threads : 1;
}

void nimbus_parallel(unsigned n_threads, size_t n_items, void (*body)(void *arg, size_t i),
                     void *arg)
{
    (void)n_threads;
    run_here(n_items, body, arg);
}

#endif
