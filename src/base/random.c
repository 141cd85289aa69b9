/* random.c - counter-based random numbers: Philox4x32-10
 *
 * Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The block
 * number is (counter, stream), the key is the seed; ten rounds mix them into 128 bits. */
#include <math.h>

#include "base/base.h"

typedef struct block {
    uint32_t word[4];
} block;

static block philox(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t a = (uint32_t)counter, b = (uint32_t)(counter >> 32);
    uint32_t c = (uint32_t)stream, d = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * a;
        uint64_t p1 = (uint64_t)0xcd9e8d57u * c;
        a = (uint32_t)(p1 >> 32) ^ b ^ k0;
        b = (uint32_t)p1;
        c = (uint32_t)(p0 >> 32) ^ d ^ k1;
        d = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (block){{a, b, c, d}};
}

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
    block x = philox(seed, stream, counter);
    return join(x.word[0], x.word[1]);
}

double nimbus_random_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return unit(nimbus_random_u64(seed, stream, counter));
}

/* Box and Muller; 1 - u lies in (0, 1], where the logarithm is finite. */
double nimbus_random_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    block x = philox(seed, stream, counter);
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
