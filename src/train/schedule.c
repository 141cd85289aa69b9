/* schedule.c - learning rate, temperature and noise as pure functions of the step
 *
 * One-cycle is the form of Smith & Topin (2019) with a linear rise from 1/25 of the peak over the
 * first 30 % of the steps and a cosine fall to zero; momentum is not cycled. */
#include <math.h>

#include "train/train.h"

#define PI               3.14159265358979323846
#define ONE_CYCLE_START  (1.0 / 25)
#define ONE_CYCLE_WARMUP 0.3

static double cosine(double peak, double progress)
{
    return 0.5 * peak * (1 + cos(PI * progress));
}

double nimbus_schedule_rate(nimbus_schedule schedule, double peak, double warmup_steps, size_t step,
                            size_t total)
{
    double at = (double)step, end = (double)total, warmup = warmup_steps;
    if (schedule == NIMBUS_ONE_CYCLE) {
        if (warmup <= 0)
            warmup = floor(ONE_CYCLE_WARMUP * end);
        if (at < warmup)
            return peak * (ONE_CYCLE_START + (1 - ONE_CYCLE_START) * at / warmup);
    } else if (at < warmup) {
        return peak * (at + 1) / warmup;
    }
    if (schedule == NIMBUS_CONSTANT)
        return peak;
    return cosine(peak, end > warmup ? (at - warmup) / (end - warmup) : 0);
}

/* 0 at the first step, 1 at the last. */
static double progress_of(size_t step, size_t total)
{
    return total > 1 ? (double)step / (double)(total - 1) : 1;
}

double nimbus_schedule_geometric(double begin, double end, size_t step, size_t total)
{
    return begin * pow(end / begin, progress_of(step, total));
}

double nimbus_schedule_to_zero(double begin, size_t step, size_t total)
{
    return begin * (1 - progress_of(step, total));
}
