/* Measures each kind of operator of the cpu device over rows and contexts, and writes the file that the sim device takes in
 * place of its table (engine/sim_machine.h): per kind the fixed time, the time of a byte and the time of an operation that
 * fit best, none of them negative, each measurement counting by its relative error.
 *
 *     calibrate [MODEL [REPEATS [THREADS]]] > FILE          default random:llama-160m, 5 repeats, all threads */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/device.h"
#include "engine/sim_machine.h"

enum { ROWS_MAX = 512, STREAMS = 16, CONTEXT_MAX = 1024, PAGE_TOKENS = 64, PAGES_EACH = CONTEXT_MAX / PAGE_TOKENS };
enum { SAMPLES_MAX = 64, TERMS = 3 };

/* Rows of so many sequences, each at the position. */
static const struct {
    uint32_t sequences, rows, position;
} shapes[] = {{1, 1, 32},    {1, 1, 900}, {2, 2, 200},   {4, 4, 400}, {8, 8, 100},  {16, 16, 64},
              {16, 16, 700}, {1, 16, 0},  {1, 32, 0},    {1, 64, 0},  {1, 64, 512}, {1, 128, 0},
              {1, 128, 800}, {1, 256, 0}, {1, 256, 512}, {1, 512, 0}, {1, 512, 400}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct {
    double x[TERMS], ns; /* 1, bytes, flops */
} sample;

typedef struct {
    checkpoint        *model;
    const model_facts *facts;
    program            program;
    device            *device;
    uint32_t           tokens[CONTEXT_MAX], pages[STREAMS][PAGES_EACH];
    sample             samples[OP_KIND_COUNT][SAMPLES_MAX];
    uint32_t           sample_count[OP_KIND_COUNT];
} bench;

static const sampling greedy = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

/* One pass of the shape; what each kind took, and how many experts a layer touched. */
static void walk(bench *b, uint32_t shape, uint64_t ns[OP_KIND_COUNT], double *experts) {
    static batch_run    runs[STREAMS];
    static batch_output outputs[STREAMS];
    sampled             out[STREAMS];
    device_stats        before, after;
    error               err;
    const uint32_t      n = shapes[shape].sequences, each = shapes[shape].rows / n;
    for (uint32_t i = 0; i < n; i++) {
        runs[i] = (batch_run){i * each, each, shapes[shape].position, b->tokens, b->pages[i], PAGES_EACH, i};
        outputs[i] = (batch_output){.row = (i + 1) * each - 1, .params = &greedy};
    }
    device_cpu.read_stats(b->device, &before);
    if (device_cpu.bind(b->device, &(batch){shapes[shape].rows, n, n, runs, outputs}, &err) != OK) fatal("%s", err.text);
    for (uint32_t i = 0; i < b->program.op_count; i++)
        if (device_cpu.run_op(b->device, i, &err) != OK) fatal("%s", err.text);
    if (device_cpu.collect(b->device, out, &err) != OK) fatal("%s", err.text);
    device_cpu.read_stats(b->device, &after);
    for (int k = 0; k < OP_KIND_COUNT; k++) ns[k] = after.op_ns[k] - before.op_ns[k];
    const double expert = 3.0 * b->facts->width * b->facts->expert_width * (double)dtype_bytes(b->facts->weights);
    *experts =
        b->facts->expert_count ? (double)(after.expert_bytes - before.expert_bytes) / expert / b->facts->layer_count : 0;
}

/* What the program says the shape costs, summed over the operators of a kind: as many as were measured together. */
static void add_samples(bench *b, uint32_t shape, const uint64_t ns[OP_KIND_COUNT], double experts) {
    const uint64_t n = shapes[shape].sequences, each = shapes[shape].rows / n, begin = shapes[shape].position;
    const op_load  load = {.rows = shapes[shape].rows,
                           .outputs = (uint32_t)n,
                           .context_tokens = n * (each * begin + each * (each + 1) / 2),
                           .kv_tokens = n * (begin + each),
                           .experts_touched = (uint32_t)(experts + 0.5)};
    double         x[OP_KIND_COUNT][TERMS] = {0};
    for (uint32_t i = 0; i < b->program.op_count; i++) {
        const op_cost c = program_cost(&b->program, b->facts, i, &load);
        double       *of = x[b->program.ops[i].kind];
        of[0]++, of[1] += c.weight_bytes + c.kv_bytes + c.activation_bytes, of[2] += c.flops;
    }
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        if (x[k][0] == 0 || ns[k] == 0 || b->sample_count[k] == SAMPLES_MAX) continue;
        sample *s = &b->samples[k][b->sample_count[k]++];
        s->ns = (double)ns[k] / x[k][0];
        for (int t = 0; t < TERMS; t++) s->x[t] = x[k][t] / x[k][0];
    }
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void measure(bench *b, uint32_t shape, uint32_t repeats) {
    static uint64_t all[OP_KIND_COUNT][101];
    uint64_t        ns[OP_KIND_COUNT];
    double          experts = 0;
    walk(b, shape, ns, &experts); /* not counted: caches and page tables */
    for (uint32_t i = 0; i < repeats; i++) {
        walk(b, shape, ns, &experts);
        for (int k = 0; k < OP_KIND_COUNT; k++) all[k][i] = ns[k];
    }
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        qsort(all[k], repeats, sizeof **all, by_value);
        ns[k] = all[k][repeats / 2];
    }
    add_samples(b, shape, ns, experts);
}

/* ---- the fit ---- */

/* Solves for the terms in `use`; false: they are not told apart. */
static bool solve(const sample *s, uint32_t n, unsigned use, double out[TERMS]) {
    double a[TERMS][TERMS + 1] = {{0}};
    for (uint32_t i = 0; i < n; i++)
        for (int r = 0; r < TERMS; r++)
            for (int c = 0; c <= TERMS; c++)
                a[r][c] += (use >> r & 1) * s[i].x[r] / s[i].ns * (c == TERMS ? 1 : (use >> c & 1) * s[i].x[c] / s[i].ns);
    for (int r = 0; r < TERMS; r++)
        if (!(use >> r & 1)) a[r][r] = 1;
    for (int p = 0; p < TERMS; p++) {
        if (fabs(a[p][p]) < 1e-300) return false;
        for (int r = 0; r < TERMS; r++) {
            const double factor = r == p ? 0 : a[r][p] / a[p][p];
            for (int c = p; c <= TERMS; c++) a[r][c] -= factor * a[p][c];
        }
    }
    for (int r = 0; r < TERMS; r++) out[r] = a[r][TERMS] / a[r][r];
    return true;
}

static double miss(const sample *s, uint32_t n, const double w[TERMS]) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double share = (w[0] * s[i].x[0] + w[1] * s[i].x[1] + w[2] * s[i].x[2]) / s[i].ns - 1;
        sum += share * share;
    }
    return sqrt(sum / n);
}

/* Three terms, so every choice of those that are above zero is tried. */
static double fit(const sample *s, uint32_t n, double best[TERMS]) {
    double least = INFINITY;
    for (unsigned use = 1; use < 1u << TERMS; use++) {
        double w[TERMS];
        if (!solve(s, n, use, w) || w[0] < 0 || w[1] < 0 || w[2] < 0 || miss(s, n, w) >= least) continue;
        least = miss(s, n, w);
        for (int t = 0; t < TERMS; t++) best[t] = w[t];
    }
    return least;
}

static void print(const bench *b, const char *model) {
    const char *before = "";
    printf("{\"name\": \"cpu\", \"model\": \"%s\", \"experts\": \"uniform\", \"memory_bytes\": %.0f,\n \"operators\": {",
           model, (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        double w[TERMS] = {0};
        if (b->sample_count[k] == 0) continue;
        const double error_share = fit(b->samples[k], b->sample_count[k], w);
        printf("%s\n  \"%s\": {\"fixed_ns\": %.1f, \"ns_per_byte\": %.6g, \"ns_per_flop\": %.6g, \"error_share\": %.3f}",
               before, op_name((op_kind)k), w[0], w[1], w[2], error_share);
        before = ",";
    }
    printf("\n }}\n");
}

int main(int argc, char **argv) {
    static bench   b;
    error          err;
    const char    *model = argc > 1 ? argv[1] : "random:llama-160m";
    const uint32_t repeats = argc > 2 && atoi(argv[2]) > 0 && atoi(argv[2]) <= 101 ? (uint32_t)atoi(argv[2]) : 5;
    if (checkpoint_open(&b.model, model, &err) != OK) fatal("%s", err.text);
    b.facts = checkpoint_facts(b.model);
    if (program_build(&b.program, b.facts, program_activation(b.facts), &err) != OK) fatal("%s", err.text);
    const device_config c = {.threads = argc > 3 ? (uint32_t)atoi(argv[3]) : 0,
                             .rows_max = ROWS_MAX,
                             .outputs_max = STREAMS,
                             .page_count = STREAMS * PAGES_EACH,
                             .page_tokens = PAGE_TOKENS,
                             .frame_count = 1,
                             .frame_rows = 1,
                             .context_max = CONTEXT_MAX};
    if (device_cpu.open(&b.device, b.model, &b.program, &c, &err) != OK) fatal("%s", err.text);
    for (uint32_t i = 0; i < CONTEXT_MAX; i++) b.tokens[i] = (uint32_t)(i * 7919u + 13) % b.facts->vocab_size;
    for (uint32_t i = 0; i < STREAMS; i++)
        for (uint32_t k = 0; k < PAGES_EACH; k++) b.pages[i][k] = i * PAGES_EACH + k;
    for (uint32_t shape = 0; shape < SHAPES; shape++) measure(&b, shape, repeats);
    print(&b, model);
    device_cpu.close(b.device);
    program_free(&b.program);
    checkpoint_close(b.model);
    return 0;
}
