/* kernels/cuda/values.cuh: single values of any type; and functions that give the CPU's very bits. */
#pragma once
#include "base/dtype.h"
#include "kernels/cuda/ops.cuh"

template <int TYPE> DEVICE float get(const void *p, size_t i) {
    if (TYPE == DTYPE_F32) return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    return TYPE == DTYPE_BF16 ? f32_of_bf16(h) : f32_of_f16(h);
}
template <int TYPE> DEVICE void put(void *p, size_t i, float x) {
    if (TYPE == DTYPE_F32) ((float *)p)[i] = x;
    else ((uint16_t *)p)[i] = TYPE == DTYPE_BF16 ? bf16_of(x) : f16_of(x);
}

/* kernels/cpu/simd.h's vf_exp, step by step, as its instruction sets with a fused multiply-add compute it. */
DEVICE float exp_as_cpu(float x) {
    const float lowest = -87.33654f, y = fminf(88.37626f, fmaxf(lowest, x)), n = rintf(y * 1.44269504f);
    float       r = fmaf(n, -0.693359375f, y);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = fmaf(r, 1.0f / 720, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(r * r, p, r);
    if (x != x) return x;
    return x < lowest ? 0 : (p + 1) * __uint_as_float((uint32_t)((int)n + 127) << 23);
}
DEVICE float silu(float x) { return x / (1 + exp_as_cpu(0 - x)); }
