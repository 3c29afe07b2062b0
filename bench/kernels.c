/* Operators other than products, over real layer shapes: time, bytes or operations, and the share of the ceiling measured in
 * the same minute. Products are in products_dnnl.c, whole passes in forward.c. Argument: rounds. */
#include <math.h>

#include "base/rng.h"
#include "bench/ceilings.h"

enum { ROUNDS_MAX = 101, CONTEXT_MAX = 4096, PAGE_TOKENS = 64 };

typedef struct {
    cpu      c;
    uint32_t rounds;
    char    *ceiling;
} bench;

typedef struct {
    const char *name;
    uint32_t    heads, kv_heads, head_dim, layers;
} model_shape;
static const model_shape models[] = {
    {"llama-160m", 12, 12, 64, 12}, {"qwen2.5-0.5b", 14, 2, 64, 24}, {"llama-3.1-8b", 32, 8, 128, 4}};

typedef struct {
    double ns, read, rate; /* medians */
} timing;

static timing measure(bench *b, void (*run)(void *), void *context, bool with_rate) {
    double ns[ROUNDS_MAX], read[ROUNDS_MAX], rate[ROUNDS_MAX];
    run(context);
    for (uint32_t i = 0; i < b->rounds; i++) {
        uint64_t begin = clock_ns();
        run(context);
        ns[i] = (double)(clock_ns() - begin);
        read[i] = ceiling_memory(b->c.pool, b->ceiling, CEILING_BYTES, pool_threads(b->c.pool), false);
        rate[i] = with_rate ? ceiling_rate(b->c.pool, pool_threads(b->c.pool), true) : 0;
    }
    return (timing){bench_median(ns, b->rounds), bench_median(read, b->rounds), bench_median(rate, b->rounds)};
}

/* ---- attention: every layer of a model in turn, so that pages come from memory ---- */

typedef struct {
    bench             *b;
    const model_shape *m;
    kv_layout          layout;
    char              *pages, *q, *out;
    uint32_t          *ids;
    float             *rotation;
    kv_run             runs[64];
    uint32_t           run_count;
    bool               write;
} attention_case;

static void run_attention(void *context) {
    attention_case *a = context;
    size_t          row = a->m->heads * a->m->head_dim * 2;
    rows_at         q = {a->q, row, NULL}, out = {a->out, row, NULL};
    for (uint32_t layer = 0; layer < a->m->layers; layer++) {
        if (a->write)
            cpu_rope_kv(&a->b->c, &(rope_kv_args){.layout = &a->layout,
                                                  .pages = a->pages,
                                                  .layer = layer,
                                                  .heads = a->m->heads,
                                                  .run_count = a->run_count,
                                                  .runs = a->runs,
                                                  .q = q,
                                                  .k = out,
                                                  .v = out,
                                                  .rotation = a->rotation});
        else
            cpu_attention(&a->b->c, &(attention_args){.layout = &a->layout,
                                                      .pages = a->pages,
                                                      .layer = layer,
                                                      .heads = a->m->heads,
                                                      .run_count = a->run_count,
                                                      .runs = a->runs,
                                                      .q = q,
                                                      .out = out});
    }
}

static void bench_attention(bench *b, const model_shape *m, uint32_t streams, uint32_t rows, uint32_t context) {
    uint32_t       pages = (context + PAGE_TOKENS - 1) / PAGE_TOKENS, total = streams * rows;
    attention_case a = {
        .b = b, .m = m, .layout = kv_layout_make(DTYPE_BF16, m->layers, m->kv_heads, m->head_dim, PAGE_TOKENS)};
    size_t bytes = a.layout.page_stride * pages * streams, row = m->heads * m->head_dim * 2;
    a.pages = bench_memory(bytes, true), a.q = bench_memory(total * row, true), a.out = bench_memory(total * row, true);
    a.ids = malloc(sizeof *a.ids * pages * streams), a.rotation = bench_memory((size_t)total * m->head_dim * 4, true);
    memset(a.pages, 0, bytes);
    for (uint32_t i = 0; i < pages * streams; i++) a.ids[i] = i;
    for (uint32_t i = 0; i < streams; i++) a.runs[i] = (kv_run){i * rows, rows, context - rows, a.ids + i * pages};
    a.run_count = streams;
    timing t = measure(b, run_attention, &a, rows > 1);
    double kv = 4.0 * context * m->kv_heads * m->head_dim * streams * m->layers;
    double seen = rows == 1 ? context : (double)rows * (context - rows) + rows * (rows + 1.0) / 2;
    double flops = 4.0 * seen * m->heads * m->head_dim * streams * m->layers;
    printf("attention %-13s streams=%-2u rows=%-4u context=%-5u us_per_layer=%-8.1f", m->name, streams, rows, context,
           t.ns / 1e3 / m->layers);
    if (rows == 1) printf(" gbps=%.1f of_read=%.2f\n", kv / t.ns, kv / t.ns / t.read);
    else printf(" gflops=%.0f of_bf16=%.2f\n", flops / t.ns, flops / t.ns / t.rate);
    a.write = true;
    t = measure(b, run_attention, &a, false);
    printf("rope+kv   %-13s streams=%-2u rows=%-4u context=%-5u us_per_layer=%-8.1f ns_per_row=%.0f\n", m->name, streams,
           rows, context, t.ns / 1e3 / m->layers, t.ns / m->layers / total);
    free(a.pages), free(a.q), free(a.out), free(a.ids), free(a.rotation);
}

/* ---- sampling ---- */

typedef struct {
    bench        *b;
    sample_args   args[16];
    sample_result results[16];
    uint32_t      count;
    void         *work;
} sample_case;
static void run_sample(void *context) {
    sample_case *s = context;
    cpu_sample(&s->b->c, s->args, s->count, s->work, s->results);
}

static void bench_sample(bench *b, const char *name, sample_args like, uint32_t vocab, uint32_t count) {
    static uint32_t ids[16][20];
    static float    values[16][20];
    sample_case     s = {.b = b, .count = count};
    float          *logits = bench_memory((size_t)count * vocab * 4, true);
    size_t          work = (cpu_sample_work_bytes(vocab) + 63) / 64 * 64 * pool_threads(b->c.pool);
    s.work = bench_memory(work, true);
    memset(s.work, 0, work);
    for (size_t i = 0; i < (size_t)count * vocab; i++) { /* about normal, as logits are */
        float x = -4;
        for (uint64_t u = rng_u64(1, 0, i), k = 0; k < 8; k++) x += (float)(u >> 8 * k & 255) / 256;
        logits[i] = 3 * x;
    }
    for (uint32_t i = 0; i < count; i++) {
        s.args[i] = like;
        s.args[i].logits = logits + (size_t)i * vocab, s.args[i].vocab = vocab;
        s.results[i] = (sample_result){.top_ids = ids[i], .top_logprobs = values[i]};
    }
    timing t = measure(b, run_sample, &s, false);
    printf("sample    %-22s vocab=%-6u rows=%-2u us=%-7.1f us_per_row=%-7.1f over_one_read=%.1f\n", name, vocab, count,
           t.ns / 1e3, t.ns / 1e3 / count, t.ns * t.read / (4.0 * vocab * count));
    free(logits), free(s.work);
}

/* ---- norm and routing ---- */

typedef struct {
    bench     *b;
    norm_args  norm;
    route_args route;
} rows_case;
static void run_norm(void *context) { cpu_norm(&((rows_case *)context)->b->c, &((rows_case *)context)->norm); }
static void run_route(void *context) { cpu_route(&((rows_case *)context)->b->c, &((rows_case *)context)->route); }

static void bench_rows(bench *b, uint32_t rows, uint32_t width, uint32_t experts, uint32_t chosen) {
    rows_case r = {.b = b};
    float    *x = bench_memory((size_t)rows * width * 4, true), *weight = bench_memory(width * 4, true);
    char     *out = bench_memory((size_t)rows * width * 2 + (size_t)rows * chosen * sizeof(route), true);
    for (size_t i = 0; i < (size_t)rows * width; i++) x[i] = rng_unit(2, 0, i);
    r.norm = (norm_args){.rows = rows,
                         .width = width,
                         .eps = 1e-5f,
                         .weight = weight,
                         .x = {x, width * 4, NULL},
                         .out = {out, width * 2, NULL},
                         .out_type = DTYPE_BF16};
    r.route = (route_args){.rows = rows,
                           .experts = experts,
                           .chosen = chosen,
                           .logits = x,
                           .logits_stride = width,
                           .out = {out, chosen * sizeof(route), NULL}};
    timing t = measure(b, run_norm, &r, false);
    printf("norm      rows=%-4u width=%-5u us=%-7.1f gbps=%.1f\n", rows, width, t.ns / 1e3, 6.0 * rows * width / t.ns);
    t = measure(b, run_route, &r, false);
    printf("route     rows=%-4u experts=%-3u chosen=%u us=%-7.1f ns_per_row=%.0f\n", rows, experts, chosen, t.ns / 1e3,
           t.ns / rows);
    free(x), free(weight), free(out);
}

int main(int argc, char **argv) {
    bench b = {.rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 11, .ceiling = bench_memory(CEILING_BYTES, true)};
    error err;
    if (b.rounds < 1 || b.rounds > ROUNDS_MAX) b.rounds = ROUNDS_MAX;
    if (cpu_open(&b.c, "avx512", 0, &err) != OK) {
        printf("%s\n", err.text);
        return 0;
    }
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        bench_attention(&b, &models[m], 1, 1, 256);
        bench_attention(&b, &models[m], 1, 1, 4096);
        bench_attention(&b, &models[m], 16, 1, 256);
        bench_attention(&b, &models[m], 16, 1, 1000);
        bench_attention(&b, &models[m], 1, 512, 512);
        bench_attention(&b, &models[m], 1, 512, 4096);
    }
    sample_args plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1}, a;
    for (uint32_t vocab = 32000; vocab < 152000; vocab += 119936)
        for (uint32_t count = 1; count <= 16; count += 15) {
            a = plain, a.temperature = 0;
            bench_sample(&b, "greedy", a, vocab, count);
            bench_sample(&b, "temperature", plain, vocab, count);
            a = plain, a.top_k = 50;
            bench_sample(&b, "top_k 50", a, vocab, count);
            a = plain, a.top_p = 0.9f;
            bench_sample(&b, "top_p 0.9", a, vocab, count);
            a.top_k = 50, a.min_p = 0.05f;
            bench_sample(&b, "top_k, top_p, min_p", a, vocab, count);
            a = plain, a.temperature = 0, a.top_logprobs = 20;
            bench_sample(&b, "greedy, 20 logprobs", a, vocab, count);
        }
    bench_rows(&b, 1, 4096, 128, 8);
    bench_rows(&b, 512, 4096, 128, 8);
    cpu_close(&b.c);
    free(b.ceiling);
    return 0;
}
