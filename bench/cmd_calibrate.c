/* bench/cmd_calibrate.c: `penstock-bench calibrate`: measures each kind of operator of the cpu device over rows and
 * contexts, and writes the file that the sim device takes in place of its table (engine/sim_machine.h): per kind the fixed
 * time, the time of a byte and the time of an operation that fit best.
 *
 * A shared machine changes from second to second, so the shapes are not measured one after the other: every round walks
 * through all of them, and what counts of a shape is its median over the rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/command_line.h"
#include "bench/commands.h"
#include "bench/fit.h"
#include "bench/shared_flags.h"
#include "bench/stats.h"
#include "engine/device.h"
#include "engine/sim_machine.h"

enum { ROWS_MAX = 512, STREAMS = 16, CONTEXT_MAX = 1024, PAGE_TOKENS = 16, PAGES_EACH = CONTEXT_MAX / PAGE_TOKENS };
enum { ROUNDS_MIN = 3, ROUNDS_MAX = 1000 };

/* Rows of so many sequences, each at the position. */
static const struct {
    uint32_t sequences, rows, position;
} shapes[] = {{1, 1, 32},    {1, 1, 900},  {2, 2, 200},   {3, 3, 100},   {4, 4, 400},   {6, 6, 60},  {8, 8, 100},
              {12, 12, 300}, {16, 16, 64}, {16, 16, 700}, {1, 16, 0},    {1, 32, 0},    {2, 48, 30}, {1, 64, 0},
              {1, 64, 512},  {4, 96, 60},  {1, 128, 0},   {1, 128, 800}, {1, 256, 512}, {1, 512, 0}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct {
    const char *model, *isa;
    uint32_t    threads;
    uint64_t    time_us;
} calibrate_flags;

#define AT(field) offsetof(calibrate_flags, field)
static const option_row rows[] = {
    {NULL, "model", OPTION_STRING, AT(model), 0, 0, "random:llama-160m", NULL, "NAME",
     "a shape that the program knows (Llama-3.1-8B), or the folder of a checkpoint", false},
    {NULL, "threads", OPTION_U32, AT(threads), 0, 1024, "0", NULL, "N", "as the daemon's; 0: all CPUs allowed", false},
    {NULL, "isa", OPTION_CHOICE, AT(isa), 0, 0, "auto", "auto|avx512|avx2|plain", NULL, "as the daemon's", false},
    {NULL, "time", OPTION_DURATION, AT(time_us), 0, 3600, "10s", NULL, "TIME",
     "begin no round after it; three rounds are made in any case", false},
};
#undef AT
enum { ROW_COUNT = sizeof rows / sizeof *rows };

typedef struct {
    const model_facts *facts;
    program            program;
    device            *device;
    uint32_t           tokens[STREAMS][CONTEXT_MAX], pages[STREAMS][PAGES_EACH];
    series             ns[SHAPES][OP_KIND_COUNT];
    series             host_ns;         /* of a pass outside its operators */
    double             experts[SHAPES]; /* that a layer touched; the same in every round */
    uint32_t           rounds;
} bench;

static const sampling greedy = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

static bool fits(const bench *b, uint32_t shape) {
    return shapes[shape].position + shapes[shape].rows / shapes[shape].sequences <= b->facts->context_max;
}

/* ---- measuring ---- */

static void run_pass(bench *b, const batch *rows_bound) {
    sampled out[STREAMS];
    error   err;
    if (device_cpu.bind(b->device, rows_bound, &err) != OK) fatal("%s", err.text);
    for (uint32_t i = 0; i < b->program.op_count; i++)
        if (device_cpu.run_op(b->device, i, &err) != OK) fatal("%s", err.text);
    if (device_cpu.collect(b->device, out, &err) != OK) fatal("%s", err.text);
}

static void note(bench *b, uint32_t shape, const device_stats *before, const device_stats *after, uint64_t wall_ns) {
    const double expert = 3.0 * b->facts->width * b->facts->expert_width * (double)dtype_bytes(b->facts->weights);
    uint64_t     inside_ns = 0;
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        const uint64_t ns = after->op_ns[k] - before->op_ns[k];
        inside_ns += ns;
        if (ns > 0) series_add(&b->ns[shape][k], (double)ns);
    }
    series_add(&b->host_ns, (double)(wall_ns - inside_ns));
    if (b->facts->expert_count)
        b->experts[shape] = (double)(after->expert_bytes - before->expert_bytes) / expert / b->facts->layer_count;
}

static void walk(bench *b, uint32_t shape, bool counts) {
    batch_run      runs[STREAMS];
    batch_output   outputs[STREAMS];
    device_stats   before, after;
    const uint32_t n = shapes[shape].sequences, each = shapes[shape].rows / n;
    for (uint32_t i = 0; i < n; i++) {
        runs[i] = (batch_run){i * each, each, shapes[shape].position, b->tokens[i], b->pages[i], PAGES_EACH, i};
        outputs[i] = (batch_output){.row = (i + 1) * each - 1, .params = &greedy};
    }
    device_cpu.read_stats(b->device, &before);
    const uint64_t begin_ns = clock_ns();
    run_pass(b, &(batch){shapes[shape].rows, n, n, runs, outputs});
    const uint64_t wall_ns = clock_ns() - begin_ns;
    device_cpu.read_stats(b->device, &after);
    if (counts) note(b, shape, &before, &after, wall_ns);
}

/* The first round is not counted: caches and page tables. */
static void measure(bench *b, uint64_t time_us) {
    const uint64_t begin_us = clock_us();
    for (uint32_t round = 0; round <= ROUNDS_MAX; round++) {
        if (round > ROUNDS_MIN && clock_us() - begin_us > time_us) break;
        for (uint32_t shape = 0; shape < SHAPES; shape++)
            if (fits(b, shape)) walk(b, shape, round > 0);
        b->rounds = round;
    }
}

/* ---- what it comes to ---- */

/* What the program says the shape costs, by kind: the operators of the kind, and the mean of their bytes and operations. */
static void count_costs(const bench *b, uint32_t shape, double x[OP_KIND_COUNT][FIT_TERMS]) {
    const uint64_t n = shapes[shape].sequences, each = shapes[shape].rows / n, begin = shapes[shape].position;
    const op_load  load = {.rows = shapes[shape].rows,
                           .outputs = (uint32_t)n,
                           .context_tokens = n * (each * begin + each * (each + 1) / 2),
                           .kv_tokens = n * (begin + each),
                           .experts_touched = (uint32_t)(b->experts[shape] + 0.5)};
    for (uint32_t i = 0; i < b->program.op_count; i++) {
        const op_cost c = program_cost(&b->program, b->facts, i, &load);
        double       *of = x[b->program.ops[i].kind];
        of[0]++, of[1] += c.weight_bytes + c.kv_bytes + c.activation_bytes, of[2] += c.flops;
    }
}

static void add_samples(bench *b, uint32_t shape, fit_sample samples[OP_KIND_COUNT][SHAPES],
                        uint32_t counts[OP_KIND_COUNT]) {
    double x[OP_KIND_COUNT][FIT_TERMS] = {0};
    count_costs(b, shape, x);
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        const double operators = x[k][0], ns = series_describe(&b->ns[shape][k]).p50;
        if (operators == 0 || ns == 0) continue;
        fit_sample *s = &samples[k][counts[k]++];
        s->y = ns / operators;
        for (int t = 0; t < FIT_TERMS; t++) s->x[t] = x[k][t] / operators;
    }
}

static void print(bench *b, const char *model) {
    static fit_sample samples[OP_KIND_COUNT][SHAPES];
    uint32_t          counts[OP_KIND_COUNT] = {0};
    const char       *before = "";
    for (uint32_t shape = 0; shape < SHAPES; shape++)
        if (fits(b, shape)) add_samples(b, shape, samples, counts);
    printf("{\"name\": \"cpu\", \"model\": \"%s\", \"rounds\": %u, \"experts\": \"uniform\", \"memory_bytes\": %.0f,\n"
           " \"pass_ns\": %.0f,\n \"operators\": {",
           model, b->rounds, (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
           series_describe(&b->host_ns).p50);
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        double w[FIT_TERMS];
        if (counts[k] == 0) continue;
        const double error_share = fit_nonnegative(samples[k], counts[k], w);
        printf("%s\n  \"%s\": {\"fixed_ns\": %.1f, \"ns_per_byte\": %.6g, \"ns_per_flop\": %.6g, \"error_share\": %.3f}",
               before, op_name((op_kind)k), w[0], w[1], w[2], error_share);
        before = ",";
    }
    printf("\n }}\n");
}

/* ---- the whole ---- */

static void prepare(bench *b) {
    for (uint32_t i = 0; i < STREAMS; i++) {
        for (uint32_t k = 0; k < CONTEXT_MAX; k++) b->tokens[i][k] = (k * 7919u + i * 104729u + 13) % b->facts->vocab_size;
        for (uint32_t k = 0; k < PAGES_EACH; k++) b->pages[i][k] = i * PAGES_EACH + k;
    }
}

static void release(bench *b) {
    for (uint32_t shape = 0; shape < SHAPES; shape++)
        for (int k = 0; k < OP_KIND_COUNT; k++) series_free(&b->ns[shape][k]);
    series_free(&b->host_ns);
    if (b->device) device_cpu.close(b->device);
    program_free(&b->program);
}

static int calibrate(const calibrate_flags *f, error *err) {
    static bench        b;
    checkpoint         *model;
    const device_config c = {.threads = f->threads,
                             .isa = f->isa,
                             .rows_max = ROWS_MAX,
                             .outputs_max = STREAMS,
                             .page_count = STREAMS * PAGES_EACH,
                             .page_tokens = PAGE_TOKENS,
                             .frame_count = 1,
                             .frame_rows = 1,
                             .context_max = CONTEXT_MAX};
    int                 code = open_model(&model, f->model, err);
    if (code != OK) return code;
    b.facts = checkpoint_facts(model);
    code = program_build(&b.program, b.facts, program_activation(b.facts), err);
    if (code == OK) code = device_cpu.open(&b.device, model, &b.program, &c, err);
    if (code == OK) prepare(&b), measure(&b, f->time_us), print(&b, f->model);
    release(&b);
    checkpoint_close(model);
    return code;
}

static const char usage[] =
    "Measures the operators of the cpu device here, and prints a file for --sim-calibration: what a modelled machine\n"
    "is to cost. docs/compare.md says how well that predicts.\n\n"
    "Usage: penstock-bench calibrate [--model NAME] [--threads N] > FILE\n\n";

int cmd_calibrate(int argc, char **argv) {
    calibrate_flags f = {0};
    command_line    line = {.usage = usage, .rows = rows, .row_count = ROW_COUNT, .values = &f};
    error           err = {0};
    int             code = command_line_read(&line, argc, argv, &err);
    if (code == OK && !line.help) code = calibrate(&f, &err);
    if (code != OK) fprintf(stderr, "penstock-bench calibrate: %s\n", err.text);
    command_line_free(&line);
    return error_exit_status(code);
}
