/* onednn_choose.c - the fastest of the implementations that oneDNN has of a product
 *
 * oneDNN offers them in an order of its own; for small convolutions the first is not always the
 * fastest. What it takes to bring the input into the layout that one wants counts. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "onednn.h"

#define NEVER      1e300 /* ns: it cannot be run */
#define MOST_TRIED 4     /* what follows is slower by far: older instruction sets */
#define SAMPLES    7
#define SAMPLE_NS  1e5
#define ENOUGH_NS  1e7 /* in all, of one that takes long */

/* ns of a call, the least of a few samples. */
static double time_primitive(const bench_onednn *on, dnnl_primitive_t primitive,
                             const dnnl_exec_arg_t *args, int n_args)
{
    double least = NEVER, begin = bench_wall_ns();
    size_t calls = 1;
    for (int i = 0; i <= SAMPLES && bench_wall_ns() < begin + ENOUGH_NS; i++) {
        double start = bench_wall_ns();
        for (size_t k = 0; k < calls; k++)
            if (dnnl_primitive_execute(primitive, on->stream, n_args, args) != dnnl_success)
                return NEVER;
        double ns = (bench_wall_ns() - start) / (double)calls;
        least = ns < least ? ns : least;
        calls = ns < SAMPLE_NS ? (size_t)(SAMPLE_NS / ns) + 1 : 1;
    }
    return least;
}

static int zero_memory(const bench_onednn *on, const dnnl_memory_desc_t *md, dnnl_memory_t *out)
{
    void *bytes = NULL;
    int ok = bench_onednn_memory(on, md, DNNL_MEMORY_ALLOCATE, out) &&
             dnnl_memory_get_data_handle(*out, &bytes) == dnnl_success;
    if (ok)
        memset(bytes, 0, dnnl_memory_desc_get_size(md));
    return ok;
}

static double try_out(const bench_onednn *on, const_dnnl_primitive_desc_t pd)
{
    static const struct {
        dnnl_query_t what;
        int index, arg;
    } memories[] = {{dnnl_query_src_md, 0, DNNL_ARG_SRC},
                    {dnnl_query_weights_md, 0, DNNL_ARG_WEIGHTS},
                    {dnnl_query_weights_md, 1, DNNL_ARG_BIAS},
                    {dnnl_query_dst_md, 0, DNNL_ARG_DST}};
    enum { N = sizeof memories / sizeof *memories };
    dnnl_exec_arg_t args[N] = {{0, NULL}};
    dnnl_primitive_t primitive = NULL;
    double ns = NEVER;
    int ok = dnnl_primitive_create(&primitive, pd) == dnnl_success;
    for (int i = 0; i < N && ok; i++) {
        args[i].arg = memories[i].arg;
        ok = zero_memory(on, dnnl_primitive_desc_query_md(pd, memories[i].what, memories[i].index),
                         &args[i].memory);
    }
    if (ok)
        ns = time_primitive(on, primitive, args, N);
    for (int i = 0; i < N; i++)
        dnnl_memory_destroy(args[i].memory);
    dnnl_primitive_destroy(primitive);
    return ns;
}

/* ns of a reorder between two layouts. */
static double time_reorder(const bench_onednn *on, const dnnl_memory_desc_t *from,
                           const dnnl_memory_desc_t *to)
{
    const dnnl_memory_desc_t *const both[2] = {from, to};
    dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, NULL}, {DNNL_ARG_TO, NULL}};
    dnnl_primitive_t reorder = NULL;
    double ns = NEVER;
    if (dnnl_memory_desc_equal(from, to))
        return 0;
    int ok = bench_onednn_reorder(on, from, to, &reorder);
    for (int i = 0; i < 2 && ok; i++)
        ok = zero_memory(on, both[i], &args[i].memory);
    if (ok)
        ns = time_primitive(on, reorder, args, 2);
    for (int i = 0; i < 2; i++)
        dnnl_memory_destroy(args[i].memory);
    dnnl_primitive_destroy(reorder);
    return ns;
}

/* Plain loops, which oneDNN offers last; a call of a convolution can take them a second. */
static bool is_reference(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strncmp(name, "ref", 3) == 0;
}

int bench_onednn_choose(const bench_onednn *on, const void *desc, const_dnnl_primitive_attr_t attr,
                        const dnnl_memory_desc_t *have, dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_iterator_t all = NULL;
    double least = 0;
    *out = NULL;
    if (dnnl_primitive_desc_iterator_create(&all, desc, attr, on->engine, NULL) != dnnl_success)
        return 0;
    for (int i = 0; i < MOST_TRIED; i++) {
        dnnl_primitive_desc_t pd = dnnl_primitive_desc_iterator_fetch(all);
        if (pd && *out && least < NEVER && is_reference(pd)) {
            dnnl_primitive_desc_destroy(pd);
            break;
        }
        double ns = pd ? try_out(on, pd) : NEVER;
        if (pd && have)
            ns += time_reorder(on, have, dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0));
        if (pd && (!*out || ns < least)) {
            dnnl_primitive_desc_destroy(*out);
            *out = pd;
            least = ns;
        } else {
            dnnl_primitive_desc_destroy(pd);
        }
        if (dnnl_primitive_desc_iterator_next(all) != dnnl_success)
            break;
    }
    dnnl_primitive_desc_iterator_destroy(all);
    return *out != NULL;
}
