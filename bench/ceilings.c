/* Ceilings of this machine: memory and multipliers, with one thread and with all; medians over many short slices. */
#include "bench/ceilings.h"

enum { SLICES = 21 };

static double median_memory(pool *p, char *memory, uint32_t threads, bool write) {
    double x[SLICES];
    for (int i = 0; i < SLICES; i++) x[i] = ceiling_memory(p, memory, CEILING_BYTES, threads, write);
    return bench_median(x, SLICES);
}
static double median_rate(pool *p, uint32_t threads, bool bf16) {
    double x[SLICES];
    for (int i = 0; i < SLICES; i++) x[i] = ceiling_rate(p, threads, bf16);
    return bench_median(x, SLICES);
}

int main(void) {
    pool    *p = pool_new(0);
    uint32_t all = pool_threads(p);
    if (!cpu_has_isa("avx512")) {
        printf("this machine has no AVX-512 with BF16: no ceilings\n");
        return 0;
    }
    char *huge = bench_memory(CEILING_BYTES, true), *small = bench_memory(CEILING_BYTES, false);
    for (uint32_t threads = 1; threads <= all; threads = threads < all && threads * 2 > all ? all : threads * 2)
        printf("threads=%u read_huge_gbps=%.1f read_4k_gbps=%.1f write_nt_gbps=%.1f bf16_gflops=%.0f f32_gflops=%.0f\n",
               threads, median_memory(p, huge, threads, false), median_memory(p, small, threads, false),
               median_memory(p, huge, threads, true), median_rate(p, threads, true), median_rate(p, threads, false));
    free(huge), free(small);
    pool_free(p);
    return 0;
}
