/* place.c - which bytes of working memory hold which value of a program
 *
 * A value lives from the step that makes it to the last that reads it. The largest get their places
 * first, each the lowest that no value alive at the same time has. */
#include "base/stored.h"

/* A sum goes on in the place of its first source, if nobody reads that afterwards. */
static void share_places(const nimbus_stored_program *program, nimbus_stored_value *values)
{
    for (size_t i = 0; i + 1 < program->info.n_steps; i++) {
        const nimbus_stored_step *step = &program->steps[i];
        const bool by_element =
            step->info.kind == NIMBUS_STEP_ADD ||
            (step->info.kind == NIMBUS_STEP_CONCAT && step->info.n_sources == 1);
        size_t owner = step->sources[0];
        if (!by_element || values[owner].last != i)
            continue;
        while (values[owner].owner != owner)
            owner = values[owner].owner;
        if (values[owner].last <= i) {
            values[i + 1].owner = owner;
            values[owner].last = values[i + 1].last;
        }
    }
}

static void find_lives(const nimbus_stored_program *program)
{
    nimbus_stored_value *values = program->values;
    const size_t n = program->info.n_steps;
    for (size_t v = 0; v <= n; v++) {
        values[v].first = values[v].last = v ? v - 1 : 0;
        values[v].owner = v;
        values[v].place = SIZE_MAX;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t s = 0; s < nimbus_step_sources(&program->steps[i]); s++)
            values[program->steps[i].sources[s]].last = i;
    share_places(program, values);
}

/* The lowest place for value x beside those that have one. */
static size_t lowest(const nimbus_stored_value *values, size_t n, const nimbus_stored_value *x)
{
    const size_t size = nimbus_value_size(x);
    size_t at = 0;
    for (size_t v = 0; v < n; v++) {
        const nimbus_stored_value *y = &values[v];
        if (y->place == SIZE_MAX || y->owner != v || y->first > x->last || x->first > y->last)
            continue;
        const size_t end = y->place + nimbus_value_size(y);
        if (at < end && y->place < at + size) {
            at = end;
            v = SIZE_MAX; /* from the start again */
        }
    }
    return at;
}

size_t nimbus_place_values(const nimbus_stored_program *program, bool place_input)
{
    nimbus_stored_value *values = program->values;
    const size_t n = program->info.n_steps;
    size_t n_bytes = 0;
    find_lives(program);
    for (;;) {
        size_t next = SIZE_MAX; /* the largest without a place; scores have none */
        for (size_t v = place_input ? 0 : 1; v < n; v++)
            if (values[v].owner == v && values[v].place == SIZE_MAX &&
                (next == SIZE_MAX ||
                 nimbus_value_size(&values[v]) > nimbus_value_size(&values[next])))
                next = v;
        if (next == SIZE_MAX)
            break;
        values[next].place = lowest(values, n, &values[next]);
        const size_t end = values[next].place + nimbus_value_size(&values[next]);
        n_bytes = end > n_bytes ? end : n_bytes;
    }
    for (size_t v = 1; v < n; v++)
        values[v].place = values[values[v].owner].place;
    return n_bytes;
}
