/* clock.c - time for progress reports */
#include <time.h>

#include "base/base.h"

double nimbus_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
