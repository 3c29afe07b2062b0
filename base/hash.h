/* base/hash.h: XXH3, 64 and 128 bits. Not a defence against an adversary: users that index by it compare as well. */
#pragma once
#define XXH_INLINE_ALL
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

typedef struct {
    uint64_t low, high;
} hash128;

static inline uint64_t hash_u64(const void *bytes, size_t n, uint64_t seed) { return XXH3_64bits_withSeed(bytes, n, seed); }

static inline hash128 hash_128(const void *bytes, size_t n, uint64_t seed) {
    XXH128_hash_t h = XXH3_128bits_withSeed(bytes, n, seed);
    return (hash128){h.low64, h.high64};
}

static inline bool hash128_equal(hash128 a, hash128 b) { return a.low == b.low && a.high == b.high; }
