/* base/rng.h: a counter-based generator (Philox4x32-10; Salmon et al., SC'11).
 *
 * A draw is a pure function of (seed, stream, counter): nothing is carried from one draw to the next, so what one
 * request draws cannot depend on which requests ran beside it, and the CPU and a GPU draw the same. */
#pragma once
#include <stdint.h>

#include "base/both.h"

typedef struct {
    uint32_t word[4];
} rng_block;

BOTH rng_block rng_philox(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return (rng_block){{c0, c1, c2, c3}};
}

/* 64 bits; and a float in [0, 1) with 24 random bits. */
BOTH uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t counter) {
    rng_block b = rng_philox(seed, stream, counter);
    return (uint64_t)b.word[1] << 32 | b.word[0];
}
BOTH float rng_unit(uint64_t seed, uint64_t stream, uint64_t counter) {
    return (float)(rng_philox(seed, stream, counter).word[0] >> 8) * 0x1p-24f;
}

/* For simulations and tests: a sequential generator with its state in the caller's hands. */
typedef struct {
    uint64_t seed, count;
} rng;
static inline uint64_t rng_next(rng *r) { return rng_u64(r->seed, 0, r->count++); }
static inline uint64_t rng_below(rng *r, uint64_t n) { return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64); }
