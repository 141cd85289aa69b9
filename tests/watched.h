/* watched.h - runs a program, watched or not, after cmocka.h was included */
#ifndef NIMBUS_TESTS_WATCHED_H
#define NIMBUS_TESTS_WATCHED_H

#include <stdbool.h>

#include "nimbus.h"

/* Steps seen: each after the one before it, block by block. */
typedef struct made_watch {
    size_t next, n_steps;
    bool in_order;
} made_watch;

static inline void made_seen(void *user, size_t step)
{
    made_watch *w = user;
    w->in_order = w->in_order && step == w->next;
    w->next = (step + 1) % w->n_steps;
}

/* nimbus_run, watched or not: it must make no difference. */
static inline void made_run(const nimbus_program *program, const void *rows, size_t stride,
                            size_t n, int32_t *scores, void *scratch, bool watched)
{
    made_watch w = {0, nimbus_info(program)->n_steps, true};
    assert_int_equal(
        watched ? nimbus_run_watched(program, rows, stride, n, scores, scratch, made_seen, &w)
                : nimbus_run(program, rows, stride, n, scores, scratch),
        NIMBUS_OK);
    assert_true(w.in_order && w.next == 0);
}

#endif
