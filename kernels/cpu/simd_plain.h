/* kernels/cpu/simd_plain.h: sixteen lanes as four GNU vectors of four; any instruction set the compiler targets. No fused
 * multiply-add: a product is rounded before it is added. See simd.h for the vocabulary. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"
#include "kernels/half.h"

#define SIMD(name) name##_plain
#define SIMD_NAME "plain"
#define TILE_ROWS_LIMIT 2
enum { TILE_ROWS = TILE_ROWS_LIMIT, TILE_VECS = 1 };

typedef float    v4f __attribute__((vector_size(16)));
typedef int32_t  v4i __attribute__((vector_size(16)));
typedef uint32_t v4u __attribute__((vector_size(16)));
typedef struct {
    v4f q[4];
} vf;

#define FOUR(expression)                                                                                                    \
    vf r;                                                                                                                   \
    for (int i = 0; i < 4; i++) r.q[i] = (expression);                                                                      \
    return r
#define SELECT(mask, a, b) ((v4f)(((v4i)(a) & (mask)) | ((v4i)(b) & ~(mask))))

static inline vf vf_load(const float *p) {
    vf r;
    memcpy(&r, p, sizeof r);
    return r;
}
static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf   vf_load_n(const float *p, uint32_t n) {
      float t[16] = {0};
      memcpy(t, p, (n >= 16 ? 16 : n) * sizeof *t);
      return vf_load(t);
}
static inline void  vf_store_n(float *p, vf v, uint32_t n) { memcpy(p, &v, (n >= 16 ? 16 : n) * sizeof *p); }
static inline vf    vf_set1(float x) { FOUR(((v4f){x, x, x, x})); }
static inline vf    vf_zero(void) { return vf_set1(0); }
static inline vf    vf_add(vf a, vf b) { FOUR(a.q[i] + b.q[i]); }
static inline vf    vf_sub(vf a, vf b) { FOUR(a.q[i] - b.q[i]); }
static inline vf    vf_mul(vf a, vf b) { FOUR(a.q[i] * b.q[i]); }
static inline vf    vf_div(vf a, vf b) { FOUR(a.q[i] / b.q[i]); }
static inline vf    vf_fma(vf a, vf b, vf c) { FOUR(a.q[i] * b.q[i] + c.q[i]); }
static inline vf    vf_max(vf a, vf b) { FOUR(SELECT(a.q[i] > b.q[i], a.q[i], b.q[i])); } /* b where either is NaN */
static inline vf    vf_min(vf a, vf b) { FOUR(SELECT(a.q[i] < b.q[i], a.q[i], b.q[i])); }
static inline float vf_reduce_add(vf v) {
    v4f s = (v.q[0] + v.q[1]) + (v.q[2] + v.q[3]);
    return (s[0] + s[2]) + (s[1] + s[3]);
}
static inline float vf_reduce_max(vf v) {
    float m = v.q[0][0];
    for (int i = 1; i < 16; i++) m = v.q[i / 4][i % 4] > m ? v.q[i / 4][i % 4] : m;
    return m;
}
static inline vf vf_keep_range(vf v, int32_t begin, int32_t end, float other) {
    for (int32_t i = 0; i < 16; i++)
        if (i < begin || i >= end) v.q[i / 4][i % 4] = other;
    return v;
}

static inline vf vf_load_bf16_n(const uint16_t *p, uint32_t n) {
    float t[16] = {0};
    for (uint32_t i = 0; i < n && i < 16; i++) t[i] = bf16_to_f32(p[i]);
    return vf_load(t);
}
static inline vf   vf_load_bf16(const uint16_t *p) { return vf_load_bf16_n(p, 16); }
static inline void vf_store_bf16_n(uint16_t *p, vf v, uint32_t n) {
    float t[16];
    vf_store(t, v);
    for (uint32_t i = 0; i < n && i < 16; i++) p[i] = f32_to_bf16(t[i]);
}
static inline void vf_store_bf16(uint16_t *p, vf v) { vf_store_bf16_n(p, v, 16); }
static inline vf   vf_load_f16_n(const uint16_t *p, uint32_t n) {
      float t[16] = {0};
      for (uint32_t i = 0; i < n && i < 16; i++) t[i] = f16_to_f32(p[i]);
    return vf_load(t);
}
static inline vf vf_load_f16(const uint16_t *p) { return vf_load_f16_n(p, 16); }

static inline vf vf_round(vf x) { /* |x| < 2^22: the adder rounds to nearest even */
    v4f big = {0x1.8p23f, 0x1.8p23f, 0x1.8p23f, 0x1.8p23f};
    FOUR(x.q[i] + big - big);
}
static inline vf vf_scale2(vf x, vf n) { FOUR(x.q[i] * (v4f)((__builtin_convertvector(n.q[i], v4i) + 127) << 23)); }
static inline vf vf_zero_below(vf v, vf x, vf limit) { FOUR(SELECT(~(x.q[i] < limit.q[i]), v.q[i], (v4f){0})); }

typedef struct {
    v4u q[4];
} vpair;
typedef struct {
    v4f even, odd;
} vpair1;
static inline vpair vpair_load(const void *p) {
    vpair r;
    memcpy(&r, p, sizeof r);
    return r;
}
static inline vpair vpair_load_n(const uint16_t *p, uint32_t n) {
    uint16_t t[32] = {0};
    memcpy(t, p, (n >= 32 ? 32 : n) * sizeof *t);
    return vpair_load(t);
}
static inline v4f    even_of(v4u w) { return (v4f)(w << 16); }
static inline v4f    odd_of(v4u w) { return (v4f)(w & 0xFFFF0000u); }
static inline vpair1 vpair1_load(const void *p) {
    uint32_t x;
    memcpy(&x, p, 4);
    v4u w = {x, x, x, x};
    return (vpair1){even_of(w), odd_of(w)};
}
static inline vf vf_dot2(vf acc, vpair w, vpair1 a) { FOUR((acc.q[i] + even_of(w.q[i]) * a.even) + odd_of(w.q[i]) * a.odd); }
static inline vf vf_dot2_pairs(vf acc, vpair w, vpair a) {
    FOUR((acc.q[i] + even_of(w.q[i]) * even_of(a.q[i])) + odd_of(w.q[i]) * odd_of(a.q[i]));
}

/* out[i * stride + j] = word i of rows[j], 16 x 16. */
static inline void transpose16(const char *const *rows, uint32_t *out, size_t stride) {
    for (int j = 0; j < 16; j++) {
        uint32_t words[16];
        memcpy(words, rows[j], sizeof words);
        for (int i = 0; i < 16; i++) out[i * stride + (size_t)j] = words[i];
    }
}
/* Even and odd members of sixteen pairs of bf16, to memory. */
static inline void store_zipped(void *p, const uint16_t *even, const uint16_t *odd) {
    uint16_t pairs[32];
    for (int i = 0; i < 16; i++) pairs[2 * i] = even[i], pairs[2 * i + 1] = odd[i];
    memcpy(p, pairs, sizeof pairs);
}
