/* kernels/half.h: single values of any type: IEEE half precision by integer arithmetic, and loads and stores by type. For
 * places that are not hot, and for machines without the instruction. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF, u;
    float    f;
    if (exponent == 0) {
        f = (float)mantissa * 0x1p-24f; /* exact: zero and subnormals */
        memcpy(&u, &f, 4);
        u |= sign;
    } else {
        u = sign | mantissa << 13 | (exponent == 31 ? 0x7F800000 : (exponent + 112) << 23);
    }
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest, ties to even; too large becomes infinity, NaN stays NaN. */
static inline uint16_t f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7FFFFFFF;
    if (u > 0x7F800000) return sign | 0x7E00;
    if (u >= 0x477FF000) return sign | 0x7C00; /* rounds to 65536 or more */
    if (u < 0x38800000) {                      /* subnormal: let the adder round at 2^-24 */
        float x;
        memcpy(&x, &u, 4);
        x += 0.5f; /* ulp(0.5) = 2^-24 */
        memcpy(&u, &x, 4);
        return (uint16_t)(sign | (u - 0x3F000000));
    }
    u += 0xC8000FFF + (u >> 13 & 1); /* exponent bias 127 -> 15, and half an ulp */
    return (uint16_t)(sign | u >> 13);
}

/* Value i of an array of this type, at any alignment. */
static inline float value_load(dtype type, const void *values, size_t i) {
    const char *p = (const char *)values + i * dtype_bytes(type);
    uint16_t    h;
    float       f;
    if (type == DTYPE_F32) return memcpy(&f, p, 4), f;
    memcpy(&h, p, 2);
    return type == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}
static inline void value_store(dtype type, void *values, size_t i, float value) {
    char    *p = (char *)values + i * dtype_bytes(type);
    uint16_t h = type == DTYPE_BF16 ? f32_to_bf16(value) : f32_to_f16(value);
    if (type == DTYPE_F32) memcpy(p, &value, 4);
    else memcpy(p, &h, 2);
}
