/* threads.c - one loop over independent items, on OpenMP where it is compiled in
 *
 * Within it numbers too small for a normal float count as 0, in what is read as well: gradients of
 * softmax have many, and arithmetic with them is slow (training centroids took twice the time). */
#include "base/base.h"

#if defined(__SSE2__)
#include <xmmintrin.h>

static uint64_t flush_denormals(void)
{
    uint64_t mode = _mm_getcsr();
    _mm_setcsr((unsigned)mode | 0x8040); /* FTZ, DAZ */
    return mode;
}

static void restore_mode(uint64_t mode)
{
    _mm_setcsr((unsigned)mode);
}

#elif defined(__aarch64__)

static void restore_mode(uint64_t mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}

static uint64_t flush_denormals(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    restore_mode(mode | (uint64_t)1 << 24); /* FZ */
    return mode;
}

#else

static uint64_t flush_denormals(void)
{
    return 0;
}

static void restore_mode(uint64_t mode)
{
    (void)mode;
}

#endif

static void run_here(size_t n_items, void (*body)(void *arg, size_t i), void *arg)
{
    uint64_t mode = flush_denormals();
    for (size_t i = 0; i < n_items; i++)
        body(arg, i);
    restore_mode(mode);
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
#pragma omp parallel num_threads((int)(n < INT_MAX ? n : INT_MAX))
    {
        uint64_t mode = flush_denormals();
#pragma omp for schedule(static)
        for (size_t i = 0; i < n_items; i++)
            body(arg, i);
        restore_mode(mode);
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
