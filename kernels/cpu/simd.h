/* kernels/cpu/simd.h: what the kernels are written in: sixteen float lanes at a time.
 *
 * Each kernel exists once, in a *_body.h, in terms of `vf` (16 floats), `vpair` (16 pairs of bf16) and `vpair1` (one pair
 * in every lane); kernels_avx512.c, kernels_avx2.c and kernels_plain.c give these names their meaning and compile every
 * body.
 * `_n` variants touch only the first n lanes in memory; loads fill the rest with zero. All operations treat lanes alike, so
 * a value does not depend on its lane; vf_reduce_* use one fixed tree. SIMD(name) puts the instruction set into a symbol. */
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

static inline uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline uint32_t left_of(uint32_t end, uint32_t begin) { return end > begin ? end - begin : 0; }

/* exp to about 2 ulp; 0 below -87.3, NaN stays NaN. exp(x) = 2^n * exp(r), |r| <= ln2 / 2, Taylor's polynomial of degree 6.
 */
INLINE vf vf_exp(vf x) {
    vf lowest = vf_set1(-87.33654f), y = vf_min(vf_set1(88.37626f), vf_max(lowest, x));
    vf n = vf_round(vf_mul(y, vf_set1(1.44269504f)));
    vf r = vf_fma(n, vf_set1(-0.693359375f), y); /* ln2 in two parts, the first with few bits */
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_fma(r, vf_set1(1.0f / 720), vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(vf_mul(r, r), p, r);
    return vf_zero_below(vf_scale2(vf_add(p, vf_set1(1)), n), x, lowest);
}
/* 2^x to about 2e-7; 0 below -126, NaN stays NaN. The polynomial is the best of degree 5 in relative error, found by
 * Lawson's iteration. */
INLINE vf vf_exp2(vf x) {
    vf lowest = vf_set1(-126), y = vf_min(vf_set1(127), vf_max(lowest, x));
    vf n = vf_round(y), r = vf_sub(y, n);
    vf p = vf_fma(r, vf_set1(0.001326472731307149f), vf_set1(0.009671512991189957f));
    p = vf_fma(p, r, vf_set1(0.05550733581185341f));
    p = vf_fma(p, r, vf_set1(0.24022242426872253f));
    p = vf_fma(p, r, vf_set1(0.6931470036506653f));
    p = vf_fma(p, r, vf_set1(1));
    return vf_zero_below(vf_scale2(p, n), x, lowest);
}
INLINE vf vf_silu(vf x) { return vf_div(x, vf_add(vf_set1(1), vf_exp(vf_sub(vf_zero(), x)))); }

/* Activations are bf16 beside bf16 weights, else f32. */
INLINE vf act_load_n(const void *p, dtype t, uint32_t n) { return t == DTYPE_BF16 ? vf_load_bf16_n(p, n) : vf_load_n(p, n); }
INLINE void act_store_n(void *p, dtype t, vf v, uint32_t n) {
    if (t == DTYPE_BF16) vf_store_bf16_n(p, v, n);
    else vf_store_n(p, v, n);
}
