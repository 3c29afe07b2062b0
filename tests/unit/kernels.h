/* tests/unit/kernels.h: what the kernel tests share: seeded values, rows in memory, a loop over instruction sets. */
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/half.h"

#define FOR_EACH_ISA(isa)                                                                                                   \
    for (uint32_t isa##_i_ = 0; cpu_isa_name(isa##_i_); isa##_i_++)                                                         \
        for (const char *isa = cpu_has_isa(cpu_isa_name(isa##_i_)) ? cpu_isa_name(isa##_i_) : NULL; isa; isa = NULL)

static inline float uniform(rng *r) { return (float)(rng_next(r) >> 40) * 0x1p-23f - 1; } /* [-1, 1) */

/* The value nearest to x that the type can hold. */
static inline float as_type(dtype t, float x) {
    return t == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(x)) : t == DTYPE_F16 ? f16_to_f32(f32_to_f16(x)) : x;
}
static inline void store_as(dtype t, void *p, size_t i, float x) {
    uint16_t h = t == DTYPE_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
    if (t == DTYPE_F32) memcpy((char *)p + 4 * i, &x, 4);
    else memcpy((char *)p + 2 * i, &h, 2);
}
static inline float load_as(dtype t, const void *p, size_t i) {
    uint16_t h;
    float    x;
    if (t == DTYPE_F32) return memcpy(&x, (const char *)p + 4 * i, 4), x;
    memcpy(&h, (const char *)p + 2 * i, 2);
    return t == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}
static inline dtype activation_of(dtype weights) { return weights == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32; }

/* Exactly `bytes`, at the end of an allocation, so that a sanitizer sees the first byte past it; zeroed. */
static inline void *take(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}
static inline void *take_random(rng *r, dtype t, size_t n) {
    void *p = take((n + 1) * dtype_bytes(t)); /* one more: an odd row's last pair */
    for (size_t i = 0; i < n; i++) store_as(t, p, i, uniform(r));
    return p;
}
