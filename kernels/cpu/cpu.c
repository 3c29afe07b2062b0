#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/table.h"

static bool always(void) { return true; }
#if defined(__x86_64__)
static bool has_f16c(void) { /* not a name that every clang's __builtin_cpu_supports knows */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16");
}
#endif

static const struct {
    const cpu_kernels *kernels;
    const char        *name;
    bool (*here)(void);
} sets[] = {
#if defined(__x86_64__)
    {&cpu_kernels_avx512, "avx512", has_avx512},
    {&cpu_kernels_avx2, "avx2", has_avx2},
#endif
    {&cpu_kernels_plain, "plain", always},
};
enum { SET_COUNT = sizeof sets / sizeof *sets };

const char *cpu_isa_name(uint32_t i) { return i < SET_COUNT ? sets[i].name : NULL; }

bool cpu_has_isa(const char *isa) {
    for (uint32_t i = 0; i < SET_COUNT; i++)
        if (strcmp(sets[i].name, isa) == 0) return sets[i].here();
    return false;
}

static const cpu_kernels *find(const char *isa) {
    for (uint32_t i = 0; i < SET_COUNT; i++)
        if ((strcmp(isa, "auto") == 0 || strcmp(isa, sets[i].name) == 0) && sets[i].here()) return sets[i].kernels;
    return NULL;
}

int cpu_open(cpu *out, const char *isa, uint32_t threads, error *err) {
    if (!isa) isa = "auto";
    *out = (cpu){.kernels = find(isa)};
    if (!out->kernels)
        return error_set(err, ERR_UNSUPPORTED,
                         "this machine cannot run the \"%s\" kernels; use isa auto, avx512, avx2 or plain", isa);
    out->scratch_bytes = CPU_SCRATCH_BYTES;
    out->pool = pool_new(threads);
    out->scratch = aligned_alloc(64, out->scratch_bytes * pool_threads(out->pool));
    out->task_begin = malloc((MATMUL_LIST_MAX + 1) * sizeof *out->task_begin);
    if (!out->scratch || !out->task_begin) fatal("no memory for scratch of %u threads", pool_threads(out->pool));
    return OK;
}

void cpu_close(cpu *c) {
    pool_free(c->pool);
    free(c->scratch);
    free(c->task_begin);
    *c = (cpu){0};
}

void cpu_describe(const cpu *c, buf *out) {
    const cpu_kernels *k = c->kernels;
    buf_printf(out, "kernels for %s, %u threads\n", k->isa, pool_threads(c->pool));
    for (int t = 0; t < DTYPE_COUNT; t++)
        buf_printf(out, "  %-4s  product %s  mapped product %s  attention %s\n", dtype_facts[t].name,
                   k->matmul[t] ? "yes" : "no", k->matmul_mapped[t] ? "yes" : "no", k->attention[t] ? "yes" : "no");
}
