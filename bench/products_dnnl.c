/* Matrix products of real layer shapes beside oneDNN's for the same shapes, alternating in one run; medians and ratios.
 *
 * Each shape has as many matrices as make 256 MB, and a round walks over all of them: weights come from memory, as they do
 * in a forward pass. Both sides use weights packed beforehand. Arguments: rounds, then row counts. */
#include <dnnl.h>
#include <math.h>
#include <unistd.h>

#include "base/rng.h"
#include "bench/ceilings.h"

#define DNNL(call)                                                                                                          \
    do {                                                                                                                    \
        dnnl_status_t status_ = (call);                                                                                     \
        if (status_ != dnnl_success) fatal("oneDNN: %s: status %d", #call, (int)status_);                                   \
    } while (0)

typedef struct {
    const char *name;
    uint32_t    n, k, layers;
} shape;
static const shape shapes[] = {
    {"llama-160m qkv", 2304, 768, 12},  {"llama-160m out", 768, 768, 12},        {"llama-160m gate-up", 6144, 768, 12},
    {"llama-160m down", 768, 3072, 12}, {"llama-160m logits", 32000, 768, 1},    {"qwen2.5-0.5b qkv", 1152, 896, 24},
    {"qwen2.5-0.5b out", 896, 896, 24}, {"qwen2.5-0.5b gate-up", 9728, 896, 24}, {"qwen2.5-0.5b down", 896, 4864, 24},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, ROUNDS_MAX = 101, COPIES_MAX = 512 };
static const size_t SWEEP_BYTES = 256 << 20;

typedef struct {
    matrix   m;
    char    *packed; /* all copies */
    size_t   bytes;
    uint32_t copies;
} ours;

typedef struct {
    dnnl_primitive_t primitive;
    dnnl_memory_t    a, c, b[COPIES_MAX];
    uint32_t         copies;
} theirs;

static dnnl_engine_t engine_cpu;
static dnnl_stream_t stream;

static void fill(uint16_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = (uint16_t)(0x3c00 | (i * 2654435761u >> 20 & 0x83FF)); /* about +-0.01 .. 0.03 */
}

static ours make_ours(const shape *s, uint32_t copies) {
    ours o = {.m = {.type = DTYPE_BF16, .k = s->k, .part_count = 1, .parts = {{s->n, NULL}}}, .copies = copies};
    o.bytes = matrix_bytes(&o.m);
    o.packed = bench_memory(o.bytes * copies, true);
    fill((uint16_t *)(void *)o.packed, o.bytes * copies / 2);
    return o;
}

static theirs make_theirs(const shape *s, uint32_t rows, uint32_t copies) {
    theirs                t = {.copies = copies};
    dnnl_dims_t           da = {rows, s->k}, db = {s->k, s->n}, dc = {rows, s->n};
    dnnl_memory_desc_t    a, b, c;
    dnnl_matmul_desc_t    d;
    dnnl_primitive_desc_t pd;
    DNNL(dnnl_memory_desc_init_by_tag(&a, 2, da, dnnl_bf16, dnnl_ab));
    DNNL(dnnl_memory_desc_init_by_tag(&b, 2, db, dnnl_bf16, dnnl_format_tag_any));
    DNNL(dnnl_memory_desc_init_by_tag(&c, 2, dc, dnnl_f32, dnnl_ab));
    DNNL(dnnl_matmul_desc_init(&d, &a, &b, NULL, &c));
    DNNL(dnnl_primitive_desc_create(&pd, &d, NULL, engine_cpu, NULL));
    DNNL(dnnl_primitive_create(&t.primitive, pd));
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    DNNL(dnnl_memory_create(&t.a, &a, engine_cpu, DNNL_MEMORY_ALLOCATE));
    DNNL(dnnl_memory_create(&t.c, &c, engine_cpu, DNNL_MEMORY_ALLOCATE));
    void *h;
    DNNL(dnnl_memory_get_data_handle(t.a, &h));
    fill(h, (size_t)rows * s->k);
    size_t bytes = (dnnl_memory_desc_get_size(packed) + 4095) / 4096 * 4096;
    char  *all = bench_memory(bytes * copies, true);
    fill((uint16_t *)(void *)all, bytes * copies / 2);
    for (uint32_t i = 0; i < copies; i++) DNNL(dnnl_memory_create(&t.b[i], packed, engine_cpu, all + i * bytes));
    DNNL(dnnl_primitive_desc_destroy(pd));
    return t; /* process memory: a bench runs each shape once */
}

static double run_theirs(const theirs *t) {
    uint64_t begin = clock_ns();
    for (uint32_t i = 0; i < t->copies; i++) {
        dnnl_exec_arg_t args[3] = {{DNNL_ARG_SRC, t->a}, {DNNL_ARG_WEIGHTS, t->b[i]}, {DNNL_ARG_DST, t->c}};
        DNNL(dnnl_primitive_execute(t->primitive, stream, 3, args));
        DNNL(dnnl_stream_wait(stream));
    }
    double ns = (double)(clock_ns() - begin);
    usleep(20000); /* its threads spin for a while before they sleep */
    return ns;
}

static double run_ours(cpu *c, const ours *o, uint32_t rows, char *a, float *out) {
    uint64_t begin = clock_ns();
    for (uint32_t i = 0; i < o->copies; i++) {
        matrix m = o->m;
        m.data = o->packed + i * o->bytes;
        cpu_matmul(
            c,
            &(matmul_args){
                .w = &m, .rows = rows, .a = {a, m.k * 2, NULL}, .kind = OUT_F32, .out = {{out, m.parts[0].rows * 4, NULL}}});
    }
    return (double)(clock_ns() - begin);
}

static void compare(cpu *c, const shape *s, uint32_t rows, uint32_t rounds, char *ceiling) {
    uint32_t copies = (uint32_t)(SWEEP_BYTES / ((size_t)s->n * s->k * 2)) + 1;
    if (rows > 64 && copies > s->layers) copies = s->layers; /* bound by multipliers: memory hardly matters */
    ours   o = make_ours(s, copies);
    theirs t = make_theirs(s, rows, copies);
    char  *a = bench_memory((size_t)rows * s->k * 2, true);
    float *out = bench_memory((size_t)rows * s->n * 4, true);
    double mine[ROUNDS_MAX], other[ROUNDS_MAX], read[ROUNDS_MAX], rate[ROUNDS_MAX];
    fill((uint16_t *)(void *)a, (size_t)rows * s->k);
    run_ours(c, &o, rows, a, out), run_theirs(&t);
    for (uint32_t i = 0; i < rounds; i++) {
        mine[i] = run_ours(c, &o, rows, a, out);
        read[i] = ceiling_memory(c->pool, ceiling, CEILING_BYTES, pool_threads(c->pool), false);
        rate[i] = rows > 8 ? ceiling_rate(c->pool, pool_threads(c->pool), true) : 0;
        other[i] = run_theirs(&t);
    }
    double m = bench_median(mine, rounds) / copies, x = bench_median(other, rounds) / copies, r = bench_median(read, rounds);
    double flops = 2.0 * rows * s->n * s->k, bytes = 2.0 * s->n * s->k, most = bench_median(rate, rounds);
    printf("%-22s rows=%-4u n=%-6u k=%-5u us=%-9.1f dnnl_us=%-9.1f dnnl_over_ours=%-5.2f gflops=%-6.0f gbps=%-5.1f "
           "of_read=%.2f",
           s->name, rows, s->n, s->k, m / 1e3, x / 1e3, x / m, flops / m, bytes / m, bytes / m / r);
    if (most > 0) printf(" of_bf16=%.2f", flops / m / most);
    printf("\n");
    fflush(stdout);
    free(o.packed), free(a), free(out);
}

int main(int argc, char **argv) {
    uint32_t rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 11;
    if (rounds < 1 || rounds > ROUNDS_MAX) rounds = ROUNDS_MAX;
    cpu   c;
    error err;
    if (cpu_open(&c, "avx512", 0, &err) != OK) {
        printf("%s\n", err.text);
        return 0;
    }
    DNNL(dnnl_engine_create(&engine_cpu, dnnl_cpu, 0));
    DNNL(dnnl_stream_create(&stream, engine_cpu, dnnl_stream_default_flags));
    char *ceiling = bench_memory(CEILING_BYTES, true);
    int   standard[] = {512, 16, 1}, count = argc > 2 ? argc - 2 : 3;
    for (int r = 0; r < count; r++)
        for (size_t s = 0; s < SHAPES; s++) {
            uint32_t rows = (uint32_t)(argc > 2 ? atoi(argv[2 + r]) : standard[r]);
            if (rows > 64 && shapes[s].layers == 1) continue; /* logits are of few rows */
            compare(&c, &shapes[s], rows, rounds, ceiling);
        }
    cpu_close(&c);
    free(ceiling);
    return 0;
}
