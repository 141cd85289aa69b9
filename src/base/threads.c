/* threads.c - one loop over independent items, on OpenMP where it is compiled in */
#include "base/base.h"

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
        for (size_t i = 0; i < n_items; i++)
            body(arg, i);
        return;
    }
#pragma omp parallel for schedule(static) num_threads((int)(n < INT_MAX ? n : INT_MAX))
    for (size_t i = 0; i < n_items; i++)
        body(arg, i);
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
    for (size_t i = 0; i < n_items; i++)
        body(arg, i);
}

#endif
