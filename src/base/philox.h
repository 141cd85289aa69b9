/* philox.h - Philox4x32-10: 128 random bits of a seed, a stream and a counter
 *
 * Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The block
 * number is (counter, stream), the key is the seed; ten rounds mix them. Here, not in random.c, so
 * that loops over many counters are compiled for wide registers. */
#ifndef NIMBUS_PHILOX_H
#define NIMBUS_PHILOX_H

#include <stdint.h>

typedef struct nimbus_philox {
    uint32_t word[4];
} nimbus_philox;

static inline __attribute__((always_inline)) nimbus_philox
nimbus_philox_of(uint64_t seed, uint64_t stream, uint64_t counter)
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
    return (nimbus_philox){{a, b, c, d}};
}

#endif
