/* startup.c - from reset to main on a bare Cortex-M: stack, initial data, and what the vector
 * extension of a Cortex-M55 needs */
#include <stdint.h>

extern uint32_t data_from, data_begin, data_end, bss_begin, bss_end, stack_end;
int main(void);

void reset(void)
{
    uint32_t *from = &data_from, *to;
    for (to = &data_begin; to < &data_end;)
        *to++ = *from++;
    for (to = &bss_begin; to < &bss_end;)
        *to++ = 0;
#if defined(__ARM_FEATURE_MVE) || defined(__ARM_FP)
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* CPACR: full access to the coprocessor */
    __asm__ volatile("dsb\n\tisb");
#endif
    main();
    for (;;) {
    }
}

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_end, (const void *)reset, (const void *)fault, (const void *)fault};
