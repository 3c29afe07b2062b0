/* bench/ceilings.h: what this machine can do at best, measured beside whatever is divided by it.
 *
 * Read bandwidth is a plain sum over memory far larger than the caches, each thread its own half; multiply rates are loops
 * that touch registers only. One call is short (tens of milliseconds): on shared machines ceilings move within seconds, so
 * a bench alternates them with what it measures and compares medians. */
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "kernels/cpu/cpu.h"

enum { CEILING_BYTES = 192 << 20 };

static inline void *bench_memory(size_t bytes, bool huge) {
    size_t size = (bytes + (2 << 20) - 1) >> 21 << 21;
    void  *p = aligned_alloc(2 << 20, size);
    if (!p) fatal("no memory for a bench: %zu bytes", size);
    if (huge) madvise(p, size, MADV_HUGEPAGE);
    else madvise(p, size, MADV_NOHUGEPAGE);
    memset(p, 1, size);
    return p;
}

static inline int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static inline double bench_median(double *x, uint32_t n) {
    qsort(x, n, sizeof *x, bench_compare);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* ---- memory ---- */

typedef struct {
    char    *memory;
    size_t   bytes;
    uint32_t threads;
    bool     write;
} ceiling_sweep;

static volatile float ceiling_sink;

__attribute__((target("avx512f"))) static void ceiling_sum(const char *p, size_t bytes) {
    __m512 acc[8];
    for (int i = 0; i < 8; i++) acc[i] = _mm512_setzero_ps();
    for (size_t at = 0; at + 512 <= bytes; at += 512)
        for (int i = 0; i < 8; i++) acc[i] = _mm512_add_ps(acc[i], _mm512_load_ps((const void *)(p + at + 64 * i)));
    for (int i = 1; i < 8; i++) acc[0] = _mm512_add_ps(acc[0], acc[i]);
    ceiling_sink = _mm512_reduce_add_ps(acc[0]);
}
__attribute__((target("avx512f"))) static void ceiling_stream(char *p, size_t bytes) {
    for (size_t at = 0; at + 64 <= bytes; at += 64) _mm512_stream_si512((void *)(p + at), _mm512_setzero_si512());
    _mm_sfence();
}
static void ceiling_sweep_part(void *context, uint32_t task, uint32_t worker) {
    const ceiling_sweep *s = context;
    size_t               part = s->bytes / s->threads / 4096 * 4096;
    (void)worker;
    if (s->write) ceiling_stream(s->memory + task * part, part);
    else ceiling_sum(s->memory + task * part, part);
}
/* Bytes per nanosecond = GB/s. */
static inline double ceiling_memory(pool *p, char *memory, size_t bytes, uint32_t threads, bool write) {
    ceiling_sweep s = {memory, bytes, threads, write};
    uint64_t      t = clock_ns();
    pool_run(p, threads, ceiling_sweep_part, &s);
    return (double)(bytes / threads / 4096 * 4096 * threads) / (double)(clock_ns() - t);
}

/* ---- multipliers ---- */

enum { CEILING_STEPS = 4000000 };
#define CEILING_TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

__attribute__((target("avx512f,avx512bf16"))) static void ceiling_bf16(void *context, uint32_t task, uint32_t worker) {
    (void)context, (void)task, (void)worker;
    __m512bh one = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    __m512   x[12];
    for (int i = 0; i < 12; i++) x[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < CEILING_STEPS; k++) {
#define STEP(i) x[i] = _mm512_dpbf16_ps(x[i], one, one);
        CEILING_TWELVE(STEP)
#undef STEP
        __asm__ volatile("" ::"v"(one));
    }
    for (int i = 1; i < 12; i++) x[0] = _mm512_add_ps(x[0], x[i]);
    ceiling_sink = _mm512_reduce_add_ps(x[0]);
}
__attribute__((target("avx512f"))) static void ceiling_f32(void *context, uint32_t task, uint32_t worker) {
    (void)context, (void)task, (void)worker;
    __m512 b = _mm512_set1_ps(1.0001f), c = _mm512_set1_ps(1e-6f), x[12];
    for (int i = 0; i < 12; i++) x[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < CEILING_STEPS; k++) {
#define STEP(i) x[i] = _mm512_fmadd_ps(x[i], b, c);
        CEILING_TWELVE(STEP)
#undef STEP
        __asm__ volatile("" ::"v"(b));
    }
    for (int i = 1; i < 12; i++) x[0] = _mm512_add_ps(x[0], x[i]);
    ceiling_sink = _mm512_reduce_add_ps(x[0]);
}
/* Operations per nanosecond = GFLOP/s. */
static inline double ceiling_rate(pool *p, uint32_t threads, bool bf16) {
    uint64_t t = clock_ns();
    pool_run(p, threads, bf16 ? ceiling_bf16 : ceiling_f32, NULL);
    return (bf16 ? 64.0 : 32.0) * 12 * CEILING_STEPS * threads / (double)(clock_ns() - t);
}
