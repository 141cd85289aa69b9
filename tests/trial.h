/* trial.h - random arrays that end at a page which may not be touched, given back at the end */
#ifndef NIMBUS_TESTS_TRIAL_H
#define NIMBUS_TESTS_TRIAL_H

#include "guarded.h"
#include "program_maker.h"

struct nimbus_kernels;

/* One check under way. */
typedef struct trial {
    const struct nimbus_kernels *k, *c; /* those on trial and plain C, where kernels are tested */
    made_random random;
    guarded arrays[16];
    size_t n_arrays;
} trial;

static inline void trial_end(trial *t)
{
    for (size_t i = 0; i < t->n_arrays; i++)
        guarded_free(&t->arrays[i]);
}

static inline size_t below(trial *t, size_t n)
{
    return made_below(&t->random, (uint32_t)n);
}

static inline void *array(trial *t, size_t bytes)
{
    assert_true(t->n_arrays < sizeof t->arrays / sizeof *t->arrays);
    guarded *g = &t->arrays[t->n_arrays++];
    *g = guarded_alloc(bytes);
    return g->at;
}

static inline void *random_bytes(trial *t, size_t n)
{
    uint8_t *bytes = array(t, n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)below(t, 256);
    return bytes;
}

#endif
