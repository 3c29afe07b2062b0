/* The forward pass on the CPU device alone, without engine and server: decode of 1, 4 and 16 streams and prefill of 512
 * tokens, each slice followed by a slice of the ceiling it is divided by (memory for decode, multipliers for prefill);
 * medians.
 *
 *     forward [MODEL [SLICES [THREADS]]]          default random:llama-160m, 21 slices, all threads */
#include <math.h>

#include "bench/ceilings.h"
#include "engine/device.h"

enum { SLICES_MAX = 101, STREAMS = 16, PROMPT = 512, CONTEXT = 256, PAGE_TOKENS = 64, PAGES_EACH = 10, STEPS = 8 };

typedef struct {
    checkpoint        *c;
    const model_facts *f;
    program            p;
    device            *d;
    uint32_t           tokens[STREAMS * PROMPT], pages[STREAMS][PAGES_EACH];
    pool              *pool;
    char              *ceiling;
    bool               has_avx512;
} setting;

static const sampling greedy = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

static void pass(setting *s, const batch *b) {
    error   err;
    sampled out[STREAMS];
    if (device_cpu.bind(s->d, b, &err) != OK) fatal("%s", err.text);
    for (uint32_t i = 0; i < s->p.op_count; i++)
        if (device_cpu.run_op(s->d, i, &err) != OK) fatal("%s", err.text);
    if (device_cpu.collect(s->d, out, &err) != OK) fatal("%s", err.text);
}

static void prefill(setting *s, uint32_t stream, uint32_t rows) {
    batch_run    run = {0, rows, 0, s->tokens + stream * PROMPT, s->pages[stream], PAGES_EACH, stream};
    batch_output output = {.row = rows - 1, .params = &greedy};
    pass(s, &(batch){rows, 1, 1, &run, &output});
}

static void decode(setting *s, uint32_t streams, uint32_t position) {
    batch_run    runs[STREAMS];
    batch_output outputs[STREAMS];
    for (uint32_t i = 0; i < streams; i++) {
        runs[i] = (batch_run){i, 1, position, s->tokens + i, s->pages[i], PAGES_EACH, i};
        outputs[i] = (batch_output){.row = i, .params = &greedy};
    }
    pass(s, &(batch){streams, streams, streams, runs, outputs});
}

static void print_operators(const device_stats *before, const device_stats *after, double passes) {
    for (int k = 0; k < OP_KIND_COUNT; k++)
        if (after->op_ns[k] > before->op_ns[k])
            printf("    %-20s %9.1f us\n", op_name((op_kind)k), (double)(after->op_ns[k] - before->op_ns[k]) / passes / 1e3);
}

static void measure_decode(setting *s, uint32_t streams, uint32_t slices) {
    double       ns[SLICES_MAX], share[SLICES_MAX], read[SLICES_MAX];
    device_stats before, after, start;
    for (uint32_t i = 0; i < STEPS; i++) decode(s, streams, CONTEXT + i);
    device_cpu.read_stats(s->d, &start);
    for (uint32_t slice = 0; slice < slices; slice++) {
        device_cpu.read_stats(s->d, &before);
        uint64_t begin = clock_ns();
        for (uint32_t i = 0; i < STEPS; i++) decode(s, streams, CONTEXT + i);
        ns[slice] = (double)(clock_ns() - begin) / STEPS;
        device_cpu.read_stats(s->d, &after);
        read[slice] = s->has_avx512 ? ceiling_memory(s->pool, s->ceiling, CEILING_BYTES, pool_threads(s->pool), false) : NAN;
        share[slice] = (double)(after.weight_bytes - before.weight_bytes) / STEPS / ns[slice] / read[slice];
    }
    device_cpu.read_stats(s->d, &after);
    double step = bench_median(ns, slices);
    printf("decode streams=%u step_us=%.0f tokens_per_s=%.1f read_gbps=%.1f share_of_read=%.3f\n", streams, step / 1e3,
           streams * 1e9 / step, bench_median(read, slices), bench_median(share, slices));
    print_operators(&start, &after, STEPS * slices);
}

static void measure_prefill(setting *s, uint32_t slices) {
    double       ns[SLICES_MAX], share[SLICES_MAX], rate[SLICES_MAX];
    device_stats before, after;
    double       flops = 0;
    for (uint32_t i = 0; i < s->p.op_count; i++) {
        op_load load = {.rows = PROMPT,
                        .outputs = 1,
                        .context_tokens = PROMPT * (PROMPT + 1) / 2,
                        .kv_tokens = PROMPT,
                        .experts_touched = s->f->expert_count};
        flops += program_cost(&s->p, s->f, i, &load).flops;
    }
    prefill(s, 0, PROMPT);
    device_cpu.read_stats(s->d, &before);
    for (uint32_t slice = 0; slice < slices; slice++) {
        uint64_t begin = clock_ns();
        prefill(s, 0, PROMPT);
        ns[slice] = (double)(clock_ns() - begin);
        rate[slice] = s->has_avx512 ? ceiling_rate(s->pool, pool_threads(s->pool), s->f->weights == DTYPE_BF16) : NAN;
        share[slice] = flops / ns[slice] / rate[slice];
    }
    device_cpu.read_stats(s->d, &after);
    double time = bench_median(ns, slices);
    printf("prefill tokens=%d ms=%.1f tokens_per_s=%.0f gflops=%.0f multiply_gflops=%.0f share_of_multiply=%.3f\n", PROMPT,
           time / 1e6, PROMPT * 1e9 / time, flops / time, bench_median(rate, slices), bench_median(share, slices));
    print_operators(&before, &after, slices);
}

int main(int argc, char **argv) {
    static setting s;
    error          err;
    uint32_t       slices = argc > 2 ? (uint32_t)atoi(argv[2]) : 21, threads = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;
    if (slices < 1 || slices > SLICES_MAX) slices = SLICES_MAX;
    if (checkpoint_open(&s.c, argc > 1 ? argv[1] : "random:llama-160m", &err) != OK) fatal("%s", err.text);
    s.f = checkpoint_facts(s.c);
    if (program_build(&s.p, s.f, program_activation(s.f), &err) != OK) fatal("%s", err.text);
    device_config config = {.threads = threads,
                            .rows_max = PROMPT,
                            .outputs_max = STREAMS,
                            .page_count = STREAMS * PAGES_EACH,
                            .page_tokens = PAGE_TOKENS,
                            .frame_count = 1,
                            .frame_rows = 1,
                            .context_max = PAGES_EACH * PAGE_TOKENS};
    uint64_t      begin = clock_ns();
    if (device_cpu.open(&s.d, s.c, &s.p, &config, &err) != OK) fatal("%s", err.text);
    printf("open_ms=%.1f\n", (double)(clock_ns() - begin) / 1e6);
    for (uint32_t i = 0; i < STREAMS * PROMPT; i++) s.tokens[i] = (uint32_t)(i * 7919u + 13) % s.f->vocab_size;
    for (uint32_t i = 0; i < STREAMS; i++)
        for (uint32_t k = 0; k < PAGES_EACH; k++) s.pages[i][k] = i * PAGES_EACH + k;
    s.pool = pool_new(threads);
    s.ceiling = bench_memory(CEILING_BYTES, true);
    s.has_avx512 = cpu_has_isa("avx512");
    for (uint32_t i = 0; i < STREAMS; i++) prefill(&s, i, CONTEXT + STEPS);
    for (uint32_t streams = 1; streams <= STREAMS; streams *= 4) measure_decode(&s, streams, slices);
    measure_prefill(&s, slices < 7 ? slices : 7);
    device_cpu.close(s.d);
    program_free(&s.p);
    checkpoint_close(s.c);
    pool_free(s.pool);
    free(s.ceiling);
    return 0;
}
