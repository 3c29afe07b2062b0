/* kernels/half.h: IEEE half precision by integer arithmetic, for machines and places without the instruction. */
#pragma once
#include <stdint.h>
#include <string.h>

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
