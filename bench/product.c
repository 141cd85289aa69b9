/* product.c - one product of a peer, in whichever of its library's forms is fastest for its size */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

#define MOST_FORMS 3

struct bench_product {
    const bench_form *form;
    void *state;
};

/* One form on made-up rows. */
typedef struct trial {
    const bench_form *form;
    void *state;
    const void *x;
    void *y;
} trial;

static nimbus_status run_trial(void *state)
{
    const trial *t = state;
    return t->form->run(t->state, t->x, t->y);
}

static void *room(size_t bytes)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

nimbus_status bench_product_new(const bench_product_spec *spec, bench_product **out,
                                nimbus_error *error)
{
    const bench_form *forms =
        spec->library == BENCH_ONEDNN ? bench_onednn_forms : bench_openblas_forms;
    const size_t n_forms = spec->library == BENCH_ONEDNN
                               ? sizeof bench_onednn_forms / sizeof *bench_onednn_forms
                               : sizeof bench_openblas_forms / sizeof *bench_openblas_forms;
    trial trials[MOST_FORMS];
    bench_task tasks[MOST_FORMS];
    size_t n = 0, best = 0;
    nimbus_status status = NIMBUS_OK;
    bench_product *p = calloc(1, sizeof *p);
    void *x = room(spec->n * spec->d * 4), *y = room(spec->n * spec->m * 4);
    *out = NULL;
    if (!p || !x || !y) {
        status = bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    /* floats: zeros, so that none is subnormal */
    memset(x, spec->int8 ? 77 : 0, spec->n * spec->d * 4);
    for (size_t k = 0; k < n_forms; k++) {
        trials[n] = (trial){&forms[k], forms[k].make(spec), x, y};
        tasks[n] = (bench_task){.name = forms[k].name,
                                .call = run_trial,
                                .state = &trials[n],
                                .units = (double)spec->n};
        n += trials[n].state != NULL;
    }
    if (n == 0)
        status = bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                            "the library has no product of %zu x %zu", spec->d, spec->m);
    else
        status = bench_fastest(tasks, n, &best, error);
done:
    if (!status)
        *p = (bench_product){trials[best].form, trials[best].state};
    for (size_t k = 0; k < n; k++)
        if (status || k != best)
            trials[k].form->free(trials[k].state);
    free(x);
    free(y);
    if (status)
        free(p);
    else
        *out = p;
    return status;
}

void bench_product_free(bench_product *product)
{
    if (product)
        product->form->free(product->state);
    free(product);
}

nimbus_status bench_product_run(const bench_product *product, const void *x, void *y)
{
    return product->form->run(product->state, x, y);
}

const char *bench_product_how(const bench_product *product)
{
    return product->form->name;
}
