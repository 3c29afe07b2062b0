/* base/dtype.h: element types of tensors, by the names safetensors gives them. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_COUNT } dtype;

static const struct {
    const char *name, *config_name; /* in safetensors; in config.json's torch_dtype */
    size_t      bytes;
} dtype_facts[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", "float32", 4},
    [DTYPE_BF16] = {"BF16", "bfloat16", 2},
    [DTYPE_F16] = {"F16", "float16", 2},
};

static inline size_t dtype_bytes(dtype t) { return dtype_facts[t].bytes; }

static inline float bf16_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float    f;
    memcpy(&f, &u, 4);
    return f;
}
/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
