/* memory.c - the only place that allocates */
#ifndef NIMBUS_FREESTANDING
#include <stdlib.h>
#endif

#include "base/base.h"

bool nimbus_mul_overflows(size_t a, size_t b, size_t *product)
{
    return __builtin_mul_overflow(a, b, product);
}

#ifdef NIMBUS_FREESTANDING
/* Nothing that a device runs allocates. */
void *nimbus_alloc(size_t n, size_t size)
{
    (void)n;
    (void)size;
    return NULL;
}

void nimbus_free(void *p)
{
    (void)p;
}
#else
enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector register */

#ifdef NIMBUS_TEST_HOOKS
long nimbus_fail_alloc_after;

static bool injected_failure(void)
{
    return __atomic_load_n(&nimbus_fail_alloc_after, __ATOMIC_RELAXED) > 0 &&
           __atomic_sub_fetch(&nimbus_fail_alloc_after, 1, __ATOMIC_RELAXED) == 0;
}
#else
static bool injected_failure(void)
{
    return false;
}
#endif

void *nimbus_alloc(size_t n, size_t size)
{
    size_t bytes;
    if (nimbus_mul_overflows(n, size, &bytes) || bytes > PTRDIFF_MAX || injected_failure())
        return NULL;
    void *p = NULL;
    if (posix_memalign(&p, ALIGNMENT, bytes ? bytes : 1) != 0)
        return NULL;
    memset(p, 0, bytes);
    return p;
}

void nimbus_free(void *p)
{
    free(p);
}
#endif

void *nimbus_realloc(void *old, size_t n_old, size_t n, size_t size)
{
    void *p = nimbus_alloc(n, size);
    if (!p)
        return NULL;
    if (old) {
        memcpy(p, old, (n_old < n ? n_old : n) * size);
        nimbus_free(old);
    }
    return p;
}

char *nimbus_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = nimbus_alloc(n, 1);
    if (copy)
        memcpy(copy, s, n);
    return copy;
}
