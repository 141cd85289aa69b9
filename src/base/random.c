/* random.c - counter-based random numbers, from blocks of Philox4x32-10 */
#include <math.h>

#include "base/base.h"
#include "base/philox.h"

static uint64_t join(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

/* The upper 53 bits as a number in [0, 1). */
static double unit(uint64_t v)
{
    return (double)(v >> 11) * 0x1p-53;
}

uint64_t nimbus_random_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    nimbus_philox x = nimbus_philox_of(seed, stream, counter);
    return join(x.word[0], x.word[1]);
}

double nimbus_random_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return unit(nimbus_random_u64(seed, stream, counter));
}

/* Box and Muller; 1 - u lies in (0, 1], where the logarithm is finite. */
double nimbus_random_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    nimbus_philox x = nimbus_philox_of(seed, stream, counter);
    double u = unit(join(x.word[0], x.word[1]));
    double v = unit(join(x.word[2], x.word[3]));
    return sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v);
}

/* The upper 64 bits of a random 64-bit fraction times n: off by at most n / 2^64 from uniform. */
size_t nimbus_random_below(uint64_t seed, uint64_t stream, uint64_t counter, size_t n)
{
    uint64_t v = nimbus_random_u64(seed, stream, counter);
    uint64_t v_low = (uint32_t)v, v_high = v >> 32;
    uint64_t n_low = (uint32_t)n, n_high = (uint64_t)n >> 32;
    uint64_t carry =
        (v_low * n_low >> 32) + (uint32_t)(v_high * n_low) + (uint32_t)(v_low * n_high);
    return (size_t)(v_high * n_high + (v_high * n_low >> 32) + (v_low * n_high >> 32) +
                    (carry >> 32));
}

void nimbus_random_shuffle(uint64_t seed, uint64_t stream, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = nimbus_random_below(seed, stream, i, i);
        uint32_t last = items[i - 1];
        items[i - 1] = items[j];
        items[j] = last;
    }
}
