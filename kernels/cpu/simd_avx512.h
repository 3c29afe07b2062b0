/* kernels/cpu/simd_avx512.h: sixteen lanes as one register (AVX-512 F/BW/VL/DQ and BF16). See simd.h for the vocabulary. */
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define SIMD(name) name##_avx512
#define SIMD_NAME "avx512"
#define TILE_ROWS_LIMIT 6
enum { TILE_ROWS = TILE_ROWS_LIMIT, TILE_VECS = 4 }; /* 24 accumulators, 4 weights, 1 activation: 29 of 32 registers */

typedef __m512 vf;

static inline __mmask16 mask_n(uint32_t n) { return (__mmask16)((1u << n) - 1); }

static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vf vf_load_n(const float *p, uint32_t n) { return n >= 16 ? vf_load(p) : _mm512_maskz_loadu_ps(mask_n(n), p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline void vf_store_n(float *p, vf v, uint32_t n) {
    if (n >= 16) vf_store(p, v);
    else _mm512_mask_storeu_ps(p, mask_n(n), v);
}
static inline vf    vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf    vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf    vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf    vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf    vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf    vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf    vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf    vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf    vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline float vf_reduce_add(vf v) { return _mm512_reduce_add_ps(v); }
static inline float vf_reduce_max(vf v) { return _mm512_reduce_max_ps(v); }
static inline vf    vf_keep_range(vf v, int32_t begin, int32_t end, float other) {
       uint32_t b = begin < 0 ? 0 : begin > 16 ? 16 : (uint32_t)begin, e = end < 0 ? 0 : end > 16 ? 16 : (uint32_t)end;
       uint32_t keep = ((1u << e) - 1) & ~((1u << b) - 1);
       return _mm512_mask_blend_ps((__mmask16)keep, _mm512_set1_ps(other), v);
}

static inline vf vf_from_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
static inline vf vf_load_bf16(const uint16_t *p) { return vf_from_bf16(_mm256_loadu_si256((const void *)p)); }
static inline vf vf_load_bf16_n(const uint16_t *p, uint32_t n) {
    return n >= 16 ? vf_load_bf16(p) : vf_from_bf16(_mm256_maskz_loadu_epi16(mask_n(n), p));
}
static inline __m256i vf_to_bf16(vf v) { return (__m256i)_mm512_cvtneps_pbh(v); }
static inline void    vf_store_bf16(uint16_t *p, vf v) { _mm256_storeu_si256((void *)p, vf_to_bf16(v)); }
static inline void    vf_store_bf16_n(uint16_t *p, vf v, uint32_t n) {
       if (n >= 16) vf_store_bf16(p, v);
    else _mm256_mask_storeu_epi16(p, mask_n(n), vf_to_bf16(v));
}
static inline vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline vf vf_load_f16_n(const uint16_t *p, uint32_t n) {
    return n >= 16 ? vf_load_f16(p) : _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask_n(n), p));
}

/* x is finite and the result in range. */
static inline vf vf_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vf_scale2(vf x, vf n) { return _mm512_scalef_ps(x, n); }
static inline vf vf_zero_below(vf v, vf x, vf limit) { /* v where not (x < limit), else 0; NaN stays */
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), v);
}

/* Pairs of bf16: 16 of them from memory, or one for all lanes. */
typedef __m512i     vpair, vpair1;
static inline vpair vpair_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vpair vpair_load_n(const uint16_t *p, uint32_t n) {
    return _mm512_maskz_loadu_epi16(n >= 32 ? ~0u : (1u << n) - 1, p);
}
static inline vpair1 vpair1_load(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}
static inline vf vf_dot2(vf acc, vpair w, vpair1 a) { return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)a); }
static inline vf vf_dot2_pairs(vf acc, vpair w, vpair a) { return vf_dot2(acc, w, a); }

/* out[i * stride + j] = word i of rows[j], 16 x 16. */
static inline void transpose16(const char *const *rows, uint32_t *out, size_t stride) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows[i]);
    for (int i = 0; i < 16; i += 2)
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            a[i + 2 * k] = _mm512_unpacklo_epi64(b[i + k], b[i + k + 2]);
            a[i + 2 * k + 1] = _mm512_unpackhi_epi64(b[i + k], b[i + k + 2]);
        }
    for (int i = 0; i < 16; i += 8) /* now quarters: a[4 g + k] holds words k, 4 + k, 8 + k, 12 + k of rows 4 g .. 4 g + 3 */
        for (int k = 0; k < 4; k++) {
            b[i + k] = _mm512_shuffle_i32x4(a[i + k], a[i + k + 4], 0x88);
            b[i + k + 4] = _mm512_shuffle_i32x4(a[i + k], a[i + k + 4], 0xDD);
        }
    for (int k = 0; k < 8; k++) {
        int word = k < 4 ? k : k; /* b[k]: words k and 8 + k; b[k + 4]: 4 + k and 12 + k */
        _mm512_storeu_si512(out + (size_t)word * stride, _mm512_shuffle_i32x4(b[k], b[k + 8], 0x88));
        _mm512_storeu_si512(out + (size_t)(word + 8) * stride, _mm512_shuffle_i32x4(b[k], b[k + 8], 0xDD));
    }
}
/* Even and odd members of sixteen pairs of bf16, to memory. */
static inline void store_zipped(void *p, const uint16_t *even, const uint16_t *odd) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)even));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)odd));
    _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
