/* guarded.h - memory with an unreadable page right behind it, for tests of reads past the end */
#ifndef NIMBUS_TESTS_GUARDED_H
#define NIMBUS_TESTS_GUARDED_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* size bytes that end where an unreadable page begins. */
typedef struct guarded {
    uint8_t *map, *at;
    size_t map_size;
} guarded;

static inline guarded guarded_alloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t n = (size + page - 1) / page * page;
    guarded g = {.map_size = n + page};
    g.map = mmap(NULL, g.map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect(g.map + n, page, PROT_NONE) != 0)
        abort();
    g.at = g.map + n - size;
    return g;
}

static inline void guarded_free(guarded *g)
{
    munmap(g->map, g->map_size);
}

#endif
