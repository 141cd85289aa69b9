/* onednn.c - what all uses of oneDNN share, and what it may use of the CPU */
#include "onednn.h"

#include <stdint.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

int bench_onednn_open(bench_onednn *on)
{
    return dnnl_engine_create(&on->engine, dnnl_cpu, 0) == dnnl_success &&
           dnnl_stream_create(&on->stream, on->engine, dnnl_stream_default_flags) == dnnl_success;
}

void bench_onednn_close(bench_onednn *on)
{
    dnnl_stream_destroy(on->stream);
    dnnl_engine_destroy(on->engine);
}

int bench_onednn_describe(dnnl_memory_desc_t *md, int n_dims, const dnnl_dims_t dims,
                          dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(md, n_dims, dims, type, tag) == dnnl_success;
}

int bench_onednn_memory(const bench_onednn *on, const dnnl_memory_desc_t *md, void *bytes,
                        dnnl_memory_t *out)
{
    return dnnl_memory_create(out, md, on->engine, bytes) == dnnl_success;
}

int bench_onednn_reorder(const bench_onednn *on, const dnnl_memory_desc_t *from,
                         const dnnl_memory_desc_t *to, dnnl_primitive_t *out)
{
    dnnl_primitive_desc_t pd = NULL;
    int ok = dnnl_reorder_primitive_desc_create(&pd, from, on->engine, to, on->engine, NULL) ==
                 dnnl_success &&
             dnnl_primitive_create(out, pd) == dnnl_success;
    dnnl_primitive_desc_destroy(pd);
    return ok;
}

int bench_onednn_load(const bench_onednn *on, const void *bytes, const dnnl_memory_desc_t *plain,
                      const dnnl_memory_desc_t *wanted, dnnl_memory_t *out)
{
    dnnl_memory_t from = NULL;
    dnnl_primitive_t reorder = NULL;
    /* oneDNN's handles are not const; the source is only read. */
    int ok = bench_onednn_memory(on, plain, (void *)(uintptr_t)bytes, &from) &&
             bench_onednn_memory(on, wanted, DNNL_MEMORY_ALLOCATE, out) &&
             bench_onednn_reorder(on, plain, wanted, &reorder);
    if (ok) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, *out}};
        ok = dnnl_primitive_execute(reorder, on->stream, 2, args) == dnnl_success &&
             dnnl_stream_wait(on->stream) == dnnl_success;
    }
    dnnl_primitive_destroy(reorder);
    dnnl_memory_destroy(from);
    return ok;
}

/* ---- what it may use of the CPU */

int bench_onednn_weight_limit(void)
{
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    int has_vnni = isa == dnnl_cpu_isa_avx2_vnni ||
                   ((unsigned)isa & (unsigned)dnnl_cpu_isa_avx512_core_vnni) ==
                       (unsigned)dnnl_cpu_isa_avx512_core_vnni;
    return has_vnni ? 127 : 63;
}

nimbus_status bench_onednn_limit(const char *isa, nimbus_error *error)
{
    static const struct {
        const char *name;
        dnnl_cpu_isa_t isa;
    } known[] = {{"ssse3", dnnl_cpu_isa_sse41},
                 {"avx2", dnnl_cpu_isa_avx2},
                 {"avx512bw", dnnl_cpu_isa_avx512_core},
                 {"avx512vbmi", dnnl_cpu_isa_all}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(isa, known[i].name) == 0)
            return dnnl_set_max_cpu_isa(known[i].isa) == dnnl_success
                       ? NIMBUS_OK
                       : bench_fail(error, NIMBUS_ERR_STATE,
                                    "oneDNN cannot be limited to %s any more, or was built "
                                    "without that",
                                    isa);
    return bench_fail(error, NIMBUS_ERR_ARGUMENT,
                      "no limit '%s' for oneDNN; it knows ssse3, avx2, avx512bw and avx512vbmi",
                      isa);
}
