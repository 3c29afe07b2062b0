/* tests/unit/cuda_kernels.h: what the tests of GPU kernels share. */
#pragma once
#include "tests/cuda/emulation.h"
#include "tests/cuda/gpu.h"
#include "tests/unit/kernels.h"

/* For arguments that are only read, whose pointers are to const. */
static inline void gpu_drop(const void *gpu) { gpu_free((void *)(uintptr_t)gpu); }

/* n values of this type in GPU memory, as `host` has them in f32. */
static inline void *gpu_values(dtype t, const float *host, size_t n) {
    void *typed = take(n * dtype_bytes(t));
    for (size_t i = 0; i < n; i++) store_as(t, typed, i, host[i]);
    void *gpu = gpu_copy_of(typed, n * dtype_bytes(t));
    free(typed);
    return gpu;
}
/* n values of this type from GPU memory, as f32. */
static inline void gpu_read_values(dtype t, float *host, const void *gpu, size_t n) {
    void *typed = take(n * dtype_bytes(t));
    gpu_read(typed, gpu, n * dtype_bytes(t));
    for (size_t i = 0; i < n; i++) host[i] = load_as(t, typed, i);
    free(typed);
}
static inline float *random_values(rng *r, dtype t, size_t n) {
    float *v = take(n * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = as_type(t, uniform(r));
    return v;
}
/* Bytes of a row of n values, so that the next begins aligned. */
static inline size_t row_bytes(dtype t, size_t n) { return (n * dtype_bytes(t) + 15) / 16 * 16; }
/* A row of one unit in the last place of what a type can hold near x. */
static inline double rounding_of(dtype t) { return t == DTYPE_BF16 ? 0x1p-8 : t == DTYPE_F16 ? 0x1p-11 : 0x1p-22; }
