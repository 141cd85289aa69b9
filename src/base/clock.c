/* clock.c - time for progress reports, and for measuring */
#include <time.h>

#include "base/base.h"

static double read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double nimbus_seconds(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double nimbus_cpu_seconds(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}
