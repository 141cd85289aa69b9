/* place.c - which bytes of RAM hold which value
 *
 * A value lives from the step that makes it to the last that reads it. The largest get their places
 * first, each the lowest that no value alive at the same time has. */
#include <stdlib.h>

#include "export/export.h"

typedef struct life {
    size_t value, size, first, last;
    size_t in_place_of; /* value whose place it takes, or SIZE_MAX */
} life;

static int larger_first(const void *a, const void *b)
{
    const life *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return (x->value > y->value) - (x->value < y->value);
}

/* Of programs on rows, a value is what goes from one step to the next. */
static size_t value_bytes(const nimbus_stored_program *program, size_t v)
{
    if (!program->of_images)
        return v ? program->steps[v - 1].info.n_outputs : program->info.n_inputs;
    const nimbus_stored_value *value = &program->values[v];
    return value->channels * value->height * value->width;
}

static void find_lives(const nimbus_stored_program *program, life *lives)
{
    const size_t n = program->info.n_steps;
    for (size_t v = 0; v < n; v++)
        lives[v] = (life){v, value_bytes(program, v), v ? v - 1 : 0, v ? v - 1 : 0, SIZE_MAX};
    for (size_t i = 0; i < n; i++) {
        const nimbus_stored_step *step = &program->steps[i];
        for (size_t s = 0; s < (program->of_images ? step->info.n_sources : 1); s++)
            lives[program->of_images ? step->sources[s] : i].last = i;
    }
    /* A sum goes on in the place of its first source, if that is not needed any more. */
    for (size_t i = 0; i + 1 < n; i++) {
        const nimbus_stored_step *step = &program->steps[i];
        const bool by_element =
            step->info.kind == NIMBUS_STEP_ADD ||
            (step->info.kind == NIMBUS_STEP_CONCAT && step->info.n_sources == 1);
        if (!by_element)
            continue;
        life *source = &lives[step->sources[0]];
        while (source->in_place_of != SIZE_MAX)
            source = &lives[source->in_place_of];
        if (lives[step->sources[0]].last == i && source->last <= i) {
            lives[i + 1].in_place_of = source->value;
            source->last = lives[i + 1].last;
        }
    }
}

/* The lowest place for x beside the n that have one. */
static size_t lowest(const life *lives, const size_t *place, size_t n, const life *x)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const life *y = &lives[i];
        const bool together = y->first <= x->last && x->first <= y->last;
        if (together && at < place[y->value] + y->size && place[y->value] < at + x->size) {
            at = place[y->value] + y->size;
            i = SIZE_MAX; /* from the start again */
        }
    }
    return at;
}

nimbus_status nimbus_place_values(const nimbus_stored_program *program, bool place_input,
                                  size_t *place, size_t *n_bytes, nimbus_error *error)
{
    const size_t n = program->info.n_steps;
    life *lives = nimbus_alloc(n, sizeof *lives);
    life *own = nimbus_alloc(n, sizeof *own); /* those with a place of their own */
    size_t n_own = 0;
    *n_bytes = 0;
    if (!lives || !own) {
        nimbus_free(lives);
        nimbus_free(own);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu values", n);
    }
    find_lives(program, lives);
    for (size_t v = place_input ? 0 : 1; v < n; v++)
        if (lives[v].in_place_of == SIZE_MAX)
            own[n_own++] = lives[v];
    qsort(own, n_own, sizeof *own, larger_first);
    place[0] = SIZE_MAX;
    for (size_t i = 0; i < n_own; i++) {
        const size_t at = lowest(own, place, i, &own[i]);
        place[own[i].value] = at;
        *n_bytes = at + own[i].size > *n_bytes ? at + own[i].size : *n_bytes;
    }
    for (size_t v = 1; v < n; v++)
        if (lives[v].in_place_of != SIZE_MAX)
            place[v] = place[lives[v].in_place_of];
    nimbus_free(lives);
    nimbus_free(own);
    return NIMBUS_OK;
}
