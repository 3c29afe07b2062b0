/* GPU kernels over real layer shapes: what each must read, write and compute at the least, how long it took, and the share
 * of the copy bandwidth measured before it. Where there is no GPU, what must be done is all it says. Arguments: rounds, and
 * a number by which contexts and prompts are divided (for a try on the emulated GPU).
 *
 * Layers are taken in turn over pages of at least PAGES_BYTES, so that keys and values come from memory and not from L2. */
#include <stdio.h>
#include <unistd.h>

#include "base/rng.h"
#include "bench/ceilings.h"
#include "engine/cuda_object.h"
#include "kernels/cuda/attention_cost.h"

enum { ROUNDS_MAX = 101, PAGE_TOKENS = 64, RUNS_MAX = 256, ITEMS_MAX = 1 << 16 };
static const size_t PAGES_BYTES = (size_t)256 << 20, COPY_BYTES = (size_t)1 << 30, NOISE_BYTES = (size_t)16 << 20;

static const struct {
    const char *name;
    uint32_t    heads, kv_heads, head_dim, window;
} models[] = {
    {"llama-3.1-8b", 32, 8, 128, 0},
    {"qwen3-30b-a3b", 32, 4, 128, 0},
    {"64 columns", 64, 8, 64, 0},
    {"256 columns, window 1024", 16, 8, 256, 1024},
};
static const struct {
    const char *name;
    uint32_t    runs, rows, position; /* each run: rows from this position on */
} passes[] = {
    {"decode", 1, 1, 4096},   {"decode", 1, 1, 131072}, {"decode", 16, 1, 8192},  {"decode", 64, 1, 8192},
    {"decode", 256, 1, 1024}, {"prefill", 1, 2048, 0},  {"prefill", 1, 16384, 0}, {"prefill", 4, 512, 32768},
};

typedef struct {
    const cuda_object *o; /* NULL: no GPU */
    cuda_queue        *queue;
    uint32_t           rounds, divisor;
    double             copy; /* bytes a nanosecond */
} bench;

static void *take(const bench *b, size_t bytes) {
    void *p = b->o->take(bytes ? bytes : 1);
    if (!p) fatal("the GPU has no %zu bytes left", bytes);
    return p;
}
static void wait_for(const bench *b) {
    char why[256];
    if (!b->o->wait(b->queue, why, sizeof why)) fatal("the GPU failed: %s", why);
}
static void *copy_of(const bench *b, const void *host, size_t bytes) {
    void *p = take(b, bytes);
    b->o->copy(b->queue, p, host, bytes);
    wait_for(b);
    return p;
}

/* Random bf16 in [-1, 1). On zeros a GPU may be faster than it is. */
static void *take_noise(const bench *b, size_t bytes) {
    uint16_t *host = b->o->take_host(NOISE_BYTES);
    rng       r = {1, 2};
    if (!host) fatal("no %zu bytes of host memory for the GPU", NOISE_BYTES);
    for (size_t i = 0; i < NOISE_BYTES / 2; i++) host[i] = f32_to_bf16((float)(rng_next(&r) >> 40) * 0x1p-23f - 1);
    char *p = take(b, bytes);
    for (size_t at = 0; at < bytes; at += NOISE_BYTES)
        b->o->copy(b->queue, p + at, host, bytes - at < NOISE_BYTES ? bytes - at : NOISE_BYTES);
    wait_for(b);
    b->o->give_host(host);
    return p;
}

/* Median nanoseconds of one call: fn is called `calls` times, then waited for. */
static double measure(const bench *b, void (*fn)(void *, uint32_t), void *context, uint32_t calls) {
    double ns[ROUNDS_MAX];
    for (uint32_t i = 0; i <= b->rounds; i++) { /* the first warms up */
        const uint64_t begin = clock_ns();
        for (uint32_t call = 0; call < calls; call++) fn(context, call);
        wait_for(b);
        ns[i ? i - 1 : 0] = (double)(clock_ns() - begin) / calls;
    }
    return bench_median(ns, b->rounds);
}

typedef struct {
    const bench *b;
    char        *from, *to;
    size_t       bytes;
} copying;
static void run_copy(void *context, uint32_t call) {
    copying *c = context;
    c->b->o->copy(c->b->queue, call % 2 ? c->from : c->to, call % 2 ? c->to : c->from, c->bytes);
}
static double copy_bandwidth(const bench *b) {
    const size_t bytes = COPY_BYTES / b->divisor;
    copying      c = {b, take_noise(b, bytes), take_noise(b, bytes), bytes};
    const double ns = measure(b, run_copy, &c, 4);
    b->o->give(c.from), b->o->give(c.to);
    return 2 * (double)bytes / ns;
}

/* ---- attention ---- */

typedef struct {
    const bench         *b;
    cuda_attention_facts facts;
    cuda_attention_plan  plan;
    cuda_attention_args  args;
    uint32_t             layers, run_count;
    cuda_run             runs[RUNS_MAX];
} attention_case;

static void run_attention(void *context, uint32_t call) {
    attention_case     *c = context;
    const uint32_t      counts[] = {c->plan.item_count[0], c->plan.item_count[1], c->plan.merge_count};
    cuda_attention_args a = c->args;
    a.layer = call % c->layers;
    for (a.kind = ATTENTION_FEW; a.kind <= ATTENTION_MERGE; a.kind++)
        if ((a.count = counts[a.kind]) > 0) c->b->o->attention(c->b->queue, &a);
}

static void plan_attention(attention_case *c) {
    c->plan = (cuda_attention_plan){.item_max = {ITEMS_MAX, ITEMS_MAX}, .merge_max = ITEMS_MAX, .partial_max = ITEMS_MAX};
    for (int i = 0; i < 2; i++) c->plan.items[i] = calloc(ITEMS_MAX, sizeof *c->plan.items[i]);
    c->plan.merges = calloc(ITEMS_MAX, sizeof *c->plan.merges);
    if (!c->plan.items[0] || !c->plan.items[1] || !c->plan.merges) fatal("no memory for a list of attention tiles");
    if (!c->b->o->attention_make(&c->plan, &c->facts, c->runs, c->run_count))
        fatal("a pass has too many tiles for the bench");
}

static void time_attention(attention_case *c, uint32_t rows, uint32_t pages, cuda_cost cost) {
    const bench     *b = c->b;
    const size_t     row_bytes = (size_t)c->facts.heads * c->facts.head_dim * 2;
    const cuda_pages one = cuda_pages_make(c->facts.type, 1, c->facts.kv_heads, c->facts.head_dim, PAGE_TOKENS);
    c->layers = (uint32_t)(PAGES_BYTES / b->divisor / ((size_t)pages * one.page_stride)) + 1;
    uint32_t *ids = calloc(pages, sizeof *ids);
    if (!ids) fatal("no memory for %u page ids", pages);
    for (uint32_t i = 0; i < pages; i++) ids[i] = i;
    rng r = {3, 4};
    for (uint32_t i = pages; i-- > 1;) {
        const uint32_t j = (uint32_t)rng_below(&r, i + 1), id = ids[i];
        ids[i] = ids[j], ids[j] = id;
    }
    plan_attention(c);
    c->args = (cuda_attention_args){
        .layout = cuda_pages_make(c->facts.type, c->layers, c->facts.kv_heads, c->facts.head_dim, PAGE_TOKENS),
        .heads = c->facts.heads,
        .window = c->facts.window,
        .batch = {.row_count = rows,
                  .run_count = c->run_count,
                  .runs = copy_of(b, c->runs, c->run_count * sizeof *c->runs),
                  .page_ids = copy_of(b, ids, pages * sizeof *ids)},
        .q = take_noise(b, rows * row_bytes),
        .out = take(b, rows * row_bytes),
        .q_stride = row_bytes,
        .out_stride = row_bytes,
        .items = {copy_of(b, c->plan.items[0], c->plan.item_count[0] * sizeof(cuda_attention_item)),
                  copy_of(b, c->plan.items[1], c->plan.item_count[1] * sizeof(cuda_attention_item))},
        .merges = copy_of(b, c->plan.merges, c->plan.merge_count * sizeof(cuda_attention_merge)),
        .partials = take(b, b->o->attention_partial_bytes(&c->facts, c->plan.partial_count))};
    c->args.pages = take_noise(b, (size_t)pages * c->args.layout.page_stride);
    const double ns = measure(b, run_attention, c, c->layers < 8 ? 8 : c->layers);
    printf("  %9.1f us  %6.1f GB/s, %3.0f %% of copy  %6.1f TFLOP/s", ns / 1000, cost.bytes / ns,
           100 * cost.bytes / ns / b->copy, cost.flops / ns / 1000);
    const void *all[] = {c->args.batch.runs, c->args.batch.page_ids, c->args.q,        c->args.out,  c->args.items[0],
                         c->args.items[1],   c->args.merges,         c->args.partials, c->args.pages};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->o->give((void *)(uintptr_t)all[i]);
    free(ids), free(c->plan.items[0]), free(c->plan.items[1]), free(c->plan.merges);
}

static void bench_attention(const bench *b, size_t model, size_t pass) {
    static attention_case c;
    const uint32_t rows = (passes[pass].rows + b->divisor - 1) / b->divisor, position = passes[pass].position / b->divisor;
    const uint32_t pages = (position + rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
    c.b = b, c.run_count = passes[pass].runs;
    c.facts = (cuda_attention_facts){DTYPE_BF16, models[model].heads, models[model].kv_heads, models[model].head_dim,
                                     models[model].window};
    for (uint32_t i = 0; i < c.run_count; i++) c.runs[i] = (cuda_run){i * rows, rows, position, i * pages};
    const cuda_cost cost = cuda_attention_cost(&c.facts, c.runs, c.run_count);
    printf("attention  %-25s %-8s %3u x %5u rows from %6u  %8.2f MB %8.3f GFLOP", models[model].name, passes[pass].name,
           c.run_count, rows, position, cost.bytes * 1e-6, cost.flops * 1e-9);
    if (b->o) time_attention(&c, c.run_count * rows, c.run_count * pages, cost);
    printf("\n");
}

/* Benches lie a folder below the daemon, beside which the object is looked for. */
static void name_object(const char *program) {
    char        path[600];
    const char *slash = strrchr(program, '/');
    snprintf(path, sizeof path, "%.*s../penstock-cuda.so", slash ? (int)(slash + 1 - program) : 0, program);
    if (access(path, R_OK) == 0) setenv("PENSTOCK_CUDA_OBJECT", path, 0);
}

int main(int argc, char **argv) {
    bench     b = {.rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 11, .divisor = argc > 2 ? (uint32_t)atoi(argv[2]) : 1};
    cuda_card card;
    char      why[256];
    if (b.rounds < 1 || b.rounds > ROUNDS_MAX) b.rounds = ROUNDS_MAX;
    if (b.divisor < 1) b.divisor = 1;
    name_object(argv[0]);
    b.o = cuda_object_open(&card, why, sizeof why);
    if (b.o && !(b.queue = b.o->queue_new())) fatal("the GPU gives no queue");
    if (b.o) b.copy = copy_bandwidth(&b), printf("%s, copy %.0f GB/s read and written\n", card.name, b.copy);
    else printf("nothing is timed, because %s\n", why);
    for (size_t model = 0; model < sizeof models / sizeof *models; model++)
        for (size_t pass = 0; pass < sizeof passes / sizeof *passes; pass++) bench_attention(&b, model, pass);
    return 0;
}
