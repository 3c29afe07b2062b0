/* bench/cmd_calibrate.c: `penstock-bench calibrate`: measures each kind of operator of the cpu device over rows and
 * contexts, and writes the file that the sim device takes in place of its table (engine/sim_machine.h): per kind the fixed
 * time, the time of a byte and the time of an operation that fit best.
 *
 * A shared machine changes from second to second, so the shapes are not measured one after the other: every round walks
 * through all of them, and what counts of a shape is its median over the rounds. */
#include <math.h>
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
enum { ROUNDS_MIN = 3, ROUNDS_MAX = 1000, COPIES = 32 };

/* Answers at a position, and a part of a prompt beside them: the rows of a pass as the scheduler makes them. */
typedef struct {
    uint32_t answers, position, chunk, chunk_position;
} pass_shape;

static const pass_shape shapes[] = {
    {1, 32, 0, 0},   {1, 900, 0, 0}, {2, 60, 0, 0},    {2, 400, 0, 0},  {3, 100, 0, 0},   {4, 40, 0, 0},  {4, 400, 0, 0},
    {6, 60, 0, 0},   {8, 50, 0, 0},  {8, 200, 0, 0},   {12, 60, 0, 0},  {12, 300, 0, 0},  {16, 64, 0, 0}, {16, 700, 0, 0},
    {0, 0, 8, 0},    {0, 0, 16, 0},  {0, 0, 24, 0},    {0, 0, 32, 0},   {0, 0, 40, 100},  {0, 0, 48, 0},  {0, 0, 64, 0},
    {0, 0, 64, 512}, {0, 0, 96, 0},  {0, 0, 128, 800}, {0, 0, 192, 0},  {0, 0, 256, 512}, {0, 0, 512, 0}, {1, 50, 15, 0},
    {4, 50, 16, 0},  {4, 50, 36, 0}, {8, 80, 24, 30},  {8, 50, 64, 64}, {15, 60, 57, 64},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static uint32_t rows_of(const pass_shape *s) { return s->answers + s->chunk; }

typedef struct {
    const char *model, *isa;
    uint32_t    threads;
    uint64_t    time_us;
} calibrate_flags;

#define AT(field) offsetof(calibrate_flags, field)
static const option_row option_rows[] = {
    {NULL, "model", OPTION_STRING, AT(model), 0, 0, "random:llama-160m", NULL, "NAME",
     "a shape that the program knows (Llama-3.1-8B), or the folder of a checkpoint", false},
    {NULL, "threads", OPTION_U32, AT(threads), 0, 1024, "0", NULL, "N", "as the daemon's; 0: all CPUs allowed", false},
    {NULL, "isa", OPTION_CHOICE, AT(isa), 0, 0, "auto", "auto|avx512|avx2|plain", NULL, "as the daemon's", false},
    {NULL, "time", OPTION_DURATION, AT(time_us), 0, 3600, "10s", NULL, "TIME",
     "begin no round after it; three rounds are made in any case", false},
};
#undef AT
enum { ROW_COUNT = sizeof option_rows / sizeof *option_rows };

typedef struct {
    const model_facts *facts;
    program            program;
    device            *device;
    uint32_t           tokens[STREAMS][CONTEXT_MAX], pages[STREAMS][PAGES_EACH];
    series             ns[SHAPES][OP_KIND_COUNT];
    series             host_ns; /* of a pass outside its operators */
    series             copy_ns; /* of a page to host memory, one of many */
    uint64_t           copies_begun;
    uint32_t           rounds;
} bench;

static const sampling greedy = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

static bool fits(const bench *b, uint32_t shape) {
    const pass_shape *s = &shapes[shape];
    return s->position < b->facts->context_max && s->chunk_position + s->chunk <= b->facts->context_max;
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
    uint64_t inside_ns = 0;
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        const uint64_t ns = after->op_ns[k] - before->op_ns[k];
        inside_ns += ns;
        if (ns > 0) series_add(&b->ns[shape][k], (double)ns);
    }
    series_add(&b->host_ns, (double)(wall_ns - inside_ns));
}

static void walk(bench *b, uint32_t shape, bool counts) {
    const pass_shape *s = &shapes[shape];
    const uint32_t    sequences = s->answers + (s->chunk > 0);
    batch_run         runs[STREAMS];
    batch_output      outputs[STREAMS];
    device_stats      before, after;
    for (uint32_t i = 0; i < sequences; i++) {
        const bool     answers = i < s->answers;
        const uint32_t rows = answers ? 1 : s->chunk, at = answers ? s->position : s->chunk_position;
        runs[i] = (batch_run){i, rows, at, b->tokens[i], b->pages[i], PAGES_EACH, i};
        outputs[i] = (batch_output){.row = i + rows - 1, .params = &greedy};
    }
    device_cpu.read_stats(b->device, &before);
    const uint64_t begin_ns = clock_ns();
    run_pass(b, &(batch){rows_of(s), sequences, sequences, runs, outputs});
    const uint64_t wall_ns = clock_ns() - begin_ns;
    device_cpu.read_stats(b->device, &after);
    if (counts) note(b, shape, &before, &after, wall_ns);
}

static void copy_pages(bench *b, bool counts) {
    page_copy      copies[COPIES];
    copied_page    done[COPIES];
    error          err;
    const uint64_t begin_ns = clock_ns();
    for (uint32_t i = 0; i < COPIES; i++) copies[i] = (page_copy){++b->copies_begun, true, b->pages[i % STREAMS][i], i};
    if (device_cpu.copy_pages(b->device, copies, COPIES, &err) != OK) fatal("%s", err.text);
    for (uint32_t n = 0; n < COPIES;) n += device_cpu.copies_done(b->device, true, done, COPIES);
    if (counts) series_add(&b->copy_ns, (double)(clock_ns() - begin_ns) / COPIES);
}

/* The first round is not counted: caches and page tables. */
static void measure(bench *b, uint64_t time_us) {
    const uint64_t begin_us = clock_us();
    for (uint32_t round = 0; round <= ROUNDS_MAX; round++) {
        if (round > ROUNDS_MIN && clock_us() - begin_us > time_us) break;
        for (uint32_t shape = 0; shape < SHAPES; shape++)
            if (fits(b, shape)) walk(b, shape, round > 0);
        copy_pages(b, round > 0);
        b->rounds = round;
    }
}

/* ---- what it comes to ---- */

/* What was measured of a kind of operator: a shape's cost as the program says it, a mean over the layers, and its time. */
typedef struct {
    op_cost cost;
    double  ns;
} measurement;

typedef struct {
    measurement all[SHAPES];
    uint32_t    count;
} measurements;

static op_load load_of(const bench *b, const pass_shape *s) {
    const uint64_t n = s->answers, chunk = s->chunk, begin = s->chunk_position;
    const double   experts = program_expected_experts(b->facts, rows_of(s)); /* as who predicts will have it */
    return (op_load){.rows = rows_of(s),
                     .outputs = s->answers + (chunk > 0),
                     .context_tokens = n * (s->position + 1) + chunk * begin + chunk * (chunk + 1) / 2,
                     .kv_tokens = n * (s->position + 1) + (chunk ? begin + chunk : 0),
                     .experts_touched = (uint32_t)(experts + 0.5)};
}

static void add_cost(op_cost *sum, const op_cost *c, double share) {
    sum->flops += c->flops * share, sum->rows += c->rows * share;
    sum->weight_bytes += c->weight_bytes * share, sum->kv_bytes += c->kv_bytes * share;
    sum->activation_bytes += c->activation_bytes * share;
}

static void gather(bench *b, uint32_t shape, measurements of[OP_KIND_COUNT]) {
    const op_load load = load_of(b, &shapes[shape]);
    uint32_t      counts[OP_KIND_COUNT] = {0};
    op_cost       means[OP_KIND_COUNT] = {{0}};
    for (uint32_t i = 0; i < b->program.op_count; i++) counts[b->program.ops[i].kind]++;
    for (uint32_t i = 0; i < b->program.op_count; i++) {
        const op_cost c = program_cost(&b->program, b->facts, i, &load);
        const int     kind = b->program.ops[i].kind;
        add_cost(&means[kind], &c, 1.0 / counts[kind]);
    }
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        const double ns = series_describe(&b->ns[shape][k]).p50;
        if (counts[k] > 0 && ns > 0) of[k].all[of[k].count++] = (measurement){means[k], ns / counts[k]};
    }
}

static void fit_sum(const measurements *m, sim_fit *fit) {
    fit_sample samples[SHAPES];
    double     w[FIT_TERMS];
    for (uint32_t i = 0; i < m->count; i++) {
        const op_cost *c = &m->all[i].cost;
        samples[i] = (fit_sample){{1, c->rows, c->weight_bytes + c->kv_bytes + c->activation_bytes, c->flops}, m->all[i].ns};
    }
    fit_nonnegative(samples, m->count, w);
    *fit = (sim_fit){.known = true, .fixed_ns = w[0], .ns_per_row = w[1], .ns_per_byte = w[2], .ns_per_flop = w[3]};
}

/* At each number of rows that was measured, the geometric mean over the contexts of what was measured over the sum. */
static void fit_by_rows(const measurements *m, sim_fit *fit) {
    const sim_fit sum = *fit;
    for (double rows = 0;;) {
        double   next = INFINITY, log_sum = 0;
        uint32_t n = 0;
        for (uint32_t i = 0; i < m->count; i++)
            if (m->all[i].cost.rows > rows) next = fmin(next, m->all[i].cost.rows);
        if (isinf(next) || fit->point_count == SIM_POINTS_MAX) return;
        for (uint32_t i = 0; i < m->count; i++)
            if (m->all[i].cost.rows == next) log_sum += log(m->all[i].ns / sim_fit_ns(&sum, &m->all[i].cost)), n++;
        fit->rows[fit->point_count] = rows = next;
        fit->factor[fit->point_count++] = exp(log_sum / n);
    }
}

static double error_share(const measurements *m, const sim_fit *fit) {
    double sum = 0;
    for (uint32_t i = 0; i < m->count; i++) sum += pow(sim_fit_ns(fit, &m->all[i].cost) / m->all[i].ns - 1, 2);
    return sqrt(sum / m->count);
}

static void print_kind(op_kind kind, const measurements *m) {
    sim_fit fit;
    fit_sum(m, &fit);
    fit_by_rows(m, &fit);
    printf("\n  \"%s\": {\"fixed_ns\": %.1f, \"ns_per_row\": %.6g, \"ns_per_byte\": %.6g, \"ns_per_flop\": %.6g, "
           "\"by_rows\": [",
           op_name(kind), fit.fixed_ns, fit.ns_per_row, fit.ns_per_byte, fit.ns_per_flop);
    for (uint32_t i = 0; i < fit.point_count; i++) printf("%s[%.0f, %.4g]", i ? ", " : "", fit.rows[i], fit.factor[i]);
    printf("], \"error_share\": %.3f}", error_share(m, &fit));
}

static void print(bench *b, const char *model) {
    static measurements of[OP_KIND_COUNT];
    const double        page_bytes = (double)PAGE_TOKENS * b->program.layer_count * b->program.kv_row_bytes;
    const char         *before = "";
    for (uint32_t shape = 0; shape < SHAPES; shape++)
        if (fits(b, shape)) gather(b, shape, of);
    printf("{\"name\": \"cpu\", \"model\": \"%s\", \"rounds\": %u, \"experts\": \"uniform\", \"memory_bytes\": %.0f,\n"
           " \"pass_ns\": %.0f, \"link_bytes_per_s\": %.4g,\n \"operators\": {",
           model, b->rounds, (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
           series_describe(&b->host_ns).p50, page_bytes / series_describe(&b->copy_ns).p50 * 1e9);
    for (int k = 0; k < OP_KIND_COUNT; k++) {
        if (of[k].count == 0) continue;
        fputs(before, stdout), before = ",";
        print_kind((op_kind)k, &of[k]);
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
    series_free(&b->host_ns), series_free(&b->copy_ns);
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
                             .host_pages = COPIES,
                             .copies_max = COPIES,
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
    command_line    line = {.usage = usage, .rows = option_rows, .row_count = ROW_COUNT, .values = &f};
    error           err = {0};
    int             code = command_line_read(&line, argc, argv, &err);
    if (code == OK && !line.help) code = calibrate(&f, &err);
    if (code != OK) fprintf(stderr, "penstock-bench calibrate: %s\n", err.text);
    command_line_free(&line);
    return error_exit_status(code);
}
