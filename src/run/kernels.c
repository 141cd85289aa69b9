/* kernels.c - the table of instruction sets, and choosing one for this CPU */
#include "run/kernels.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static bool usable_c(void)
{
    return true;
}

#if defined(__x86_64__) || defined(__i386__)
static bool usable_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}
#endif

#define MEMBER(isa, op, parameters) .op = nimbus_##op##__##isa,
#define TABLE(name, n_lanes, n_rows)                                                               \
    {.isa = #name,                                                                                 \
     .lanes = n_lanes,                                                                             \
     .columns_from = n_rows,                                                                       \
     .usable = usable_##name,                                                                      \
     NIMBUS_KERNEL_LIST(MEMBER, name)},

const nimbus_kernels nimbus_kernel_table[] = {NIMBUS_ISA_LIST(TABLE)};
const size_t nimbus_kernel_table_size = sizeof nimbus_kernel_table / sizeof *nimbus_kernel_table;

#ifdef NIMBUS_TEST_HOOKS
/* Marks the sets named in the comma-separated list. */
static nimbus_status disable(const char *list, bool *disabled, nimbus_error *error)
{
    while (*list) {
        size_t length = strcspn(list, ","), i;
        for (i = 1; i < nimbus_kernel_table_size; i++) {
            const char *isa = nimbus_kernel_table[i].isa;
            if (strlen(isa) == length && memcmp(isa, list, length) == 0)
                break;
        }
        if (i == nimbus_kernel_table_size)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "NIMBUS_DISABLE_ISA names \"%.*s\", which is no instruction set of "
                               "this build that can be disabled",
                               (int)length, list);
        disabled[i] = true;
        list += length + (list[length] == ',');
    }
    return NIMBUS_OK;
}
#endif

nimbus_status nimbus_kernels_choose(const nimbus_kernels **out, nimbus_error *error)
{
    bool disabled[sizeof nimbus_kernel_table / sizeof *nimbus_kernel_table] = {false};
    *out = NULL;
#ifdef NIMBUS_TEST_HOOKS
    const char *list = getenv("NIMBUS_DISABLE_ISA");
    nimbus_status status = disable(list ? list : "", disabled, error);
    if (status != NIMBUS_OK)
        return status;
#else
    (void)error;
#endif
    for (size_t i = 0; i < nimbus_kernel_table_size; i++)
        if (!disabled[i] && nimbus_kernel_table[i].usable())
            *out = &nimbus_kernel_table[i];
    return NIMBUS_OK;
}
