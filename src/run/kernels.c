/* kernels.c - the table of instruction sets, and choosing one for this CPU */
#include "run/kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "base/base.h"

static bool usable_c(void)
{
    return true;
}

#if defined(__x86_64__) || defined(__i386__)
static bool usable_ssse3(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("ssse3");
}

static bool usable_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}

static bool usable_avx512bw(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

static bool usable_avx512vbmi(void)
{
    return usable_avx512bw() && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

#if defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
static bool usable_neon(void)
{
    return true;
}

static bool usable_neon_dotprod(void)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return false;
#endif
}
#endif

#define MEMBER(isa, op, parameters) .op = NIMBUS_KERNEL_NAME(op, isa),
#define TABLE(name, NODE_LIST, WIDE_LIST, ...)                                                     \
    {.isa = #name,                                                                                 \
     .shape = {__VA_ARGS__},                                                                       \
     .usable = usable_##name,                                                                      \
     NIMBUS_KERNEL_LIST(MEMBER, name) NIMBUS_IMAGE_KERNEL_LIST(MEMBER, name)                       \
         NODE_LIST(MEMBER, name) WIDE_LIST(MEMBER, name)},

const nimbus_kernels nimbus_kernel_table[] = {NIMBUS_ISA_LIST(TABLE)};
const size_t nimbus_kernel_table_size = sizeof nimbus_kernel_table / sizeof *nimbus_kernel_table;

/* Position in the table of the best set that may be taken. */
static _Atomic size_t highest = SIZE_MAX;

nimbus_status nimbus_set_max_isa(const char *name)
{
    for (size_t i = 0; name && i < nimbus_kernel_table_size; i++) {
        if (strcmp(nimbus_kernel_table[i].isa, name) == 0) {
            atomic_store(&highest, i);
            return NIMBUS_OK;
        }
    }
    if (!name)
        atomic_store(&highest, SIZE_MAX);
    return name ? NIMBUS_ERR_ARGUMENT : NIMBUS_OK;
}

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
    for (size_t i = 0; i < nimbus_kernel_table_size && i <= atomic_load(&highest); i++)
        if (!disabled[i] && nimbus_kernel_table[i].usable())
            *out = &nimbus_kernel_table[i];
    return NIMBUS_OK;
}
