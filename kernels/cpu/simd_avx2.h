/* kernels/cpu/simd_avx2.h: sixteen lanes as two registers (AVX2, FMA, F16C). See simd.h for the vocabulary. */
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define SIMD(name) name##_avx2
#define SIMD_NAME "avx2"
#define TILE_ROWS_LIMIT 3
enum { TILE_ROWS = TILE_ROWS_LIMIT, TILE_VECS = 2 }; /* 12 of 16 registers accumulate */

typedef struct {
    __m256 lo, hi;
} vf;

#define VF(x, y) ((vf){(x), (y)})
static inline vf   vf_load(const float *p) { return VF(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v.lo), _mm256_storeu_ps(p + 8, v.hi); }
static inline vf   vf_load_n(const float *p, uint32_t n) {
      if (n >= 16) return vf_load(p);
    float t[16] = {0};
      memcpy(t, p, n * sizeof *t);
      return vf_load(t);
}
static inline void vf_store_n(float *p, vf v, uint32_t n) {
    float t[16];
    vf_store(t, v);
    memcpy(p, t, (n >= 16 ? 16 : n) * sizeof *t);
}
static inline vf vf_set1(float x) { return VF(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
static inline vf vf_zero(void) { return VF(_mm256_setzero_ps(), _mm256_setzero_ps()); }
static inline vf vf_add(vf a, vf b) { return VF(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)); }
static inline vf vf_sub(vf a, vf b) { return VF(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)); }
static inline vf vf_mul(vf a, vf b) { return VF(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)); }
static inline vf vf_div(vf a, vf b) { return VF(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)); }
static inline vf vf_fma(vf a, vf b, vf c) {
    return VF(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
static inline vf    vf_max(vf a, vf b) { return VF(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)); }
static inline vf    vf_min(vf a, vf b) { return VF(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)); }
static inline float vf_reduce_add(vf v) {
    __m256 s = _mm256_add_ps(v.lo, v.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float vf_reduce_max(vf v) {
    __m256 s = _mm256_max_ps(v.lo, v.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline vf vf_keep_range(vf v, int32_t begin, int32_t end, float other) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), lane8 = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
    __m256i b = _mm256_set1_epi32(begin - 1), e = _mm256_set1_epi32(end);
    __m256i keep_lo = _mm256_and_si256(_mm256_cmpgt_epi32(lane, b), _mm256_cmpgt_epi32(e, lane));
    __m256i keep_hi = _mm256_and_si256(_mm256_cmpgt_epi32(lane8, b), _mm256_cmpgt_epi32(e, lane8));
    __m256  o = _mm256_set1_ps(other);
    return VF(_mm256_blendv_ps(o, v.lo, _mm256_castsi256_ps(keep_lo)),
              _mm256_blendv_ps(o, v.hi, _mm256_castsi256_ps(keep_hi)));
}

static inline __m256 bf16x8(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
static inline vf vf_load_bf16(const uint16_t *p) { return VF(bf16x8(p), bf16x8(p + 8)); }
static inline vf vf_load_bf16_n(const uint16_t *p, uint32_t n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (n >= 16 ? 16 : n) * sizeof *t);
    return vf_load_bf16(t);
}
static inline __m256i bf16_bits(__m256 v) { /* rounded to nearest even, in the low halves; NaN stays NaN */
    __m256i u = _mm256_castps_si256(v), one = _mm256_set1_epi32(1);
    __m256i r =
        _mm256_add_epi32(u, _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), _mm256_and_si256(_mm256_srli_epi32(u, 16), one)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    return _mm256_srli_epi32(r, 16);
}
static inline void vf_store_bf16(uint16_t *p, vf v) {
    __m256i packed = _mm256_packus_epi32(bf16_bits(v.lo), bf16_bits(v.hi));
    _mm256_storeu_si256((void *)p, _mm256_permute4x64_epi64(packed, 0xD8));
}
static inline void vf_store_bf16_n(uint16_t *p, vf v, uint32_t n) {
    uint16_t t[16];
    vf_store_bf16(t, v);
    memcpy(p, t, (n >= 16 ? 16 : n) * sizeof *t);
}
static inline vf vf_load_f16(const uint16_t *p) {
    return VF(_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8))));
}
static inline vf vf_load_f16_n(const uint16_t *p, uint32_t n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (n >= 16 ? 16 : n) * sizeof *t);
    return vf_load_f16(t);
}

static inline vf vf_round(vf x) {
    return VF(_mm256_round_ps(x.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
              _mm256_round_ps(x.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __m256 power2(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline vf vf_scale2(vf x, vf n) { return VF(_mm256_mul_ps(x.lo, power2(n.lo)), _mm256_mul_ps(x.hi, power2(n.hi))); }
static inline vf vf_zero_below(vf v, vf x, vf limit) {
    return VF(_mm256_and_ps(v.lo, _mm256_cmp_ps(x.lo, limit.lo, _CMP_NLT_UQ)),
              _mm256_and_ps(v.hi, _mm256_cmp_ps(x.hi, limit.hi, _CMP_NLT_UQ)));
}

typedef struct {
    __m256i lo, hi;
} vpair;
typedef struct {
    __m256 even, odd;
} vpair1;
static inline __m256 even_of(__m256i w) { return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)); }
static inline __m256 odd_of(__m256i w) {
    return _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xFFFF0000u)));
}
static inline vpair vpair_load(const void *p) {
    return (vpair){_mm256_loadu_si256(p), _mm256_loadu_si256((const void *)((const char *)p + 32))};
}
static inline vpair vpair_load_n(const uint16_t *p, uint32_t n) {
    uint16_t t[32] = {0};
    memcpy(t, p, (n >= 32 ? 32 : n) * sizeof *t);
    return vpair_load(t);
}
static inline vpair1 vpair1_load(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    __m256i w = _mm256_set1_epi32(x);
    return (vpair1){even_of(w), odd_of(w)};
}
static inline vf vf_dot2(vf acc, vpair w, vpair1 a) {
    acc = VF(_mm256_fmadd_ps(even_of(w.lo), a.even, acc.lo), _mm256_fmadd_ps(even_of(w.hi), a.even, acc.hi));
    return VF(_mm256_fmadd_ps(odd_of(w.lo), a.odd, acc.lo), _mm256_fmadd_ps(odd_of(w.hi), a.odd, acc.hi));
}
static inline vf vf_dot2_pairs(vf acc, vpair w, vpair a) {
    acc = VF(_mm256_fmadd_ps(even_of(w.lo), even_of(a.lo), acc.lo), _mm256_fmadd_ps(even_of(w.hi), even_of(a.hi), acc.hi));
    return VF(_mm256_fmadd_ps(odd_of(w.lo), odd_of(a.lo), acc.lo), _mm256_fmadd_ps(odd_of(w.hi), odd_of(a.hi), acc.hi));
}
