/* The device that only pretends: no weights, no numbers, but the time a modelled machine would take.
 *
 * What an operator costs is a matter of the machine (sim_machine.h). What is drawn is a hash of the request's own history,
 * so everything above the device behaves as with a real one: the same answers whatever the neighbours and cuts. With
 * sim_realtime the calling thread sleeps for the costed time (pacer.h); without, a virtual clock jumps. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "engine/copy_link.h"
#include "engine/device.h"
#include "engine/pacer.h"
#include "engine/sim_machine.h"

/* Ids from here on are ordinary pieces of text in the tokenizers in use: below are special tokens and single bytes. */
enum { FIRST_TEXT_ID = 259, TEXT_IDS = 1024 };
enum { HISTORY_HASHED = 64 };
#define FORCING_BIAS 100.0f   /* a logit_bias that leaves no choice, as in the API */
#define SLEEP_AHEAD_NS 300000 /* a real device is launched ahead as well; sleeping costs some 60 us each time */

struct device {
    const model_facts *facts;
    const program     *program;
    device_config      config;
    sim_machine        machine;
    batch              batch;
    batch_run         *runs;    /* [rows_max] */
    batch_output      *outputs; /* [outputs_max] */
    uint32_t          *drawn;   /* [outputs_max] */
    op_load            load;
    int64_t            load_window; /* the window that load's contexts were summed for; -1: none yet */
    uint64_t           virtual_ns;
    pacer              pacer; /* sim_realtime */
    copy_link          link;
    device_stats       stats;
    _Atomic uint64_t   now_us;
};

static bool sim_available(char *why, size_t why_size) {
    if (why_size) *why = 0;
    return true;
}

static int sim_plan_memory(const model_facts *f, const program *p, const device_config *c, memory_plan *out, error *err) {
    sim_machine machine;
    const int   status = sim_machine_find(&machine, c->sim_hardware, c->sim_calibration, err);
    if (status != OK) return status;
    uint64_t row_bytes = 0;
    for (int b = 0; b < ROW_BUFFER_COUNT; b++) row_bytes += p->row_bytes[b];
    *out = (memory_plan){.page_bytes = (uint64_t)c->page_tokens * p->layer_count * p->kv_row_bytes,
                         .available_bytes = machine.memory_bytes};
    const memory_row rows[] = {
        {"weights", true, facts_parameter_count(f) * dtype_bytes(f->weights)},
        {"KV pages", true, c->page_count * out->page_bytes},
        {"host pages", false, c->host_pages * out->page_bytes},
        {"frames", true, (uint64_t)c->frame_count * c->frame_rows * p->frame_row_bytes},
        {"row buffers", true, c->rows_max * row_bytes + (uint64_t)c->outputs_max * f->vocab_size * sizeof(float)},
    };
    out->row_count = sizeof rows / sizeof *rows;
    memcpy(out->rows, rows, sizeof rows);
    return OK;
}

static void sim_close(device *d) {
    if (!d) return;
    copy_link_close(&d->link);
    free(d->runs);
    free(d->outputs);
    free(d->drawn);
    free(d);
}

static int sim_open(device **out, const checkpoint *c, const program *p, const device_config *config, error *err) {
    sim_machine machine;
    const int   status = sim_machine_find(&machine, config->sim_hardware, config->sim_calibration, err);
    if (status != OK) return status;
    device *d = calloc(1, sizeof *d);
    if (!d) fatal("out of memory for the sim device");
    *d = (device){.facts = checkpoint_facts(c), .program = p, .config = *config, .machine = machine};
    d->runs = calloc(config->rows_max, sizeof *d->runs);
    d->outputs = calloc(config->outputs_max, sizeof *d->outputs);
    d->drawn = calloc(config->outputs_max, sizeof *d->drawn);
    if (!d->runs || !d->outputs || !d->drawn) fatal("out of memory for the sim device");
    const uint64_t page_bytes = (uint64_t)config->page_tokens * p->layer_count * p->kv_row_bytes;
    copy_link_open(&d->link, (uint64_t)sim_machine_copy_ns(&machine, page_bytes), config->page_count, config->host_pages);
    if (config->progress) config->progress(config->progress_context, "weights", 1, 1);
    *out = d;
    return OK;
}

/* ---- time ---- */

static uint64_t sim_now_us(const device *d) { return d->config.sim_realtime ? clock_us() : d->now_us; }

static void sleep_until(uint64_t due_ns) {
    const struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) {
    }
}

static void sleep_until_due(device *d) {
    sleep_until(d->pacer.due_ns);
    pacer_woke(&d->pacer, clock_ns());
}

static void spend(device *d, op_kind kind, double ns) {
    d->stats.op_ns[kind] += (uint64_t)ns;
    if (!d->config.sim_realtime) {
        d->virtual_ns += (uint64_t)ns;
        d->now_us = d->virtual_ns / 1000;
        return;
    }
    const uint64_t now_ns = clock_ns();
    pacer_launch(&d->pacer, now_ns, (uint64_t)ns);
    if (d->pacer.due_ns > now_ns + SLEEP_AHEAD_NS) sleep_until_due(d);
}

/* Positions that rows [begin, begin + n) of a sequence attend to where only the last `window` are visible (0: all). */
static uint64_t attended(uint64_t begin, uint64_t n, uint64_t window) {
    if (window == 0 || begin + n <= window) return n * begin + n * (n + 1) / 2;
    const uint64_t growing = begin < window ? window - begin : 0;
    return growing * begin + growing * (growing + 1) / 2 + (n - growing) * window;
}

static void sum_contexts(device *d, uint32_t window) {
    if (d->load_window == window) return;
    d->load_window = window;
    d->load.context_tokens = d->load.kv_tokens = 0;
    for (uint32_t i = 0; i < d->batch.run_count; i++) {
        const uint64_t begin = d->runs[i].position_begin, n = d->runs[i].row_count, end = begin + n;
        d->load.context_tokens += attended(begin, n, window);
        d->load.kv_tokens += window && end > window + n ? window + n : end;
    }
}

static void count_bytes(device *d, const op *o, const op_cost *cost) {
    d->stats.weight_bytes += (uint64_t)cost->weight_bytes;
    if (o->kind == OP_EXPERTS_UP || o->kind == OP_EXPERTS_DOWN) d->stats.expert_bytes += (uint64_t)cost->weight_bytes;
}

/* ---- the table ---- */

static int sim_bind(device *d, const batch *b, error *err) {
    (void)err;
    check(b->row_count <= d->config.rows_max && b->run_count <= b->row_count && b->output_count <= d->config.outputs_max);
    memcpy(d->runs, b->runs, b->run_count * sizeof *d->runs);
    memcpy(d->outputs, b->outputs, b->output_count * sizeof *d->outputs);
    d->batch = *b;
    d->load_window = -1;
    d->load = (op_load){.rows = b->row_count, .outputs = b->output_count};
    d->load.experts_touched = (uint32_t)(sim_machine_experts(&d->machine, d->facts, b->row_count) + 0.5);
    return OK;
}

/* Everything a choice may depend on is the request's own: its seed and what it has said and been told. */
static uint64_t hash_history(const batch_output *o) {
    const uint32_t n = o->history_count < HISTORY_HASHED ? o->history_count : HISTORY_HASHED;
    const uint64_t recent = hash_u64(o->history + o->history_count - n, n * sizeof *o->history, o->params->seed);
    const uint64_t all[] = {recent, o->history_count, o->prompt_count};
    return hash_u64(all, sizeof all, 0);
}

static bool is_banned(const batch_output *o, uint32_t id) {
    for (uint32_t i = 0; i < o->banned_count; i++)
        if (o->banned[i] == id) return true;
    return false;
}

/* An answer ends only where it is asked to (FORCING_BIAS, or its length). */
static bool is_end(const device *d, uint32_t id) {
    for (uint32_t i = 0; i < d->facts->eos_count; i++)
        if (d->facts->eos_ids[i] == id) return true;
    return false;
}

static uint32_t draw(const device *d, const batch_output *o) {
    for (uint32_t i = 0; i < o->params->bias_count; i++)
        if (o->params->bias_values[i] >= FORCING_BIAS && !is_banned(o, o->params->bias_ids[i]))
            return o->params->bias_ids[i];
    const uint32_t vocab = d->facts->vocab_size, first = vocab > FIRST_TEXT_ID + 64 ? FIRST_TEXT_ID : 0;
    const uint32_t span = vocab - first < TEXT_IDS ? vocab - first : TEXT_IDS;
    const uint32_t start = (uint32_t)(hash_history(o) % span);
    for (uint32_t i = 0; i < span; i++) {
        const uint32_t id = first + (start + i) % span;
        if (!is_banned(o, id) && !is_end(d, id)) return id;
    }
    return first;
}

static int sim_run_op(device *d, uint32_t op_index, error *err) {
    (void)err;
    const op *o = &d->program->ops[op_index];
    if (o->kind == OP_ATTENTION) sum_contexts(d, d->facts->sliding_window[o->layer]);
    const op_cost cost = program_cost(d->program, d->facts, op_index, &d->load);
    spend(d, (op_kind)o->kind, sim_machine_op_ns(&d->machine, (op_kind)o->kind, &cost));
    count_bytes(d, o, &cost);
    if (op_index == 0) d->stats.rows += d->batch.row_count;
    return OK;
}

static int sim_copy_rows(device *d, uint16_t live, uint32_t row, uint32_t count, uint32_t frame, uint32_t frame_row) {
    (void)live;
    check(row + count <= d->config.rows_max && frame < d->config.frame_count && frame_row + count <= d->config.frame_rows);
    return OK;
}

static int sim_move_rows(device *d, uint16_t live, uint32_t from_row, uint32_t to_row, uint32_t count) {
    (void)live;
    check(to_row <= from_row && from_row + count <= d->config.rows_max);
    return OK;
}

static void fill_logprobs(const device *d, const batch_output *o, sampled *s) {
    s->logprob = -0.25f;
    s->top_count = o->params->top_logprobs > 0 ? (uint32_t)o->params->top_logprobs : 0;
    for (uint32_t i = 0; i < s->top_count; i++) {
        s->top_ids[i] = (s->token + i) % d->facts->vocab_size;
        s->top_logprobs[i] = i ? -2.0f - (float)i : s->logprob;
    }
}

static int sim_collect(device *d, sampled *out, error *err) {
    (void)err;
    if (d->config.sim_realtime && d->pacer.due_ns > clock_ns()) sleep_until_due(d);
    for (uint32_t i = 0; i < d->batch.output_count; i++) {
        const batch_output *o = &d->outputs[i];
        out[i] = (sampled){.token = o->scores ? o->history[o->history_count] : draw(d, o), .rank = o->scores};
        d->drawn[i] = out[i].token;
        if (o->params->top_logprobs >= 0 || o->scores) fill_logprobs(d, o, &out[i]);
    }
    d->stats.passes++;
    return OK;
}

static int sim_read_logits(device *d, uint32_t output, float *out) {
    check(output < d->batch.output_count);
    memset(out, 0, d->facts->vocab_size * sizeof *out);
    out[d->drawn[output]] = 1;
    return OK;
}

/* ---- copies ---- */

static void stand_still_until(device *d, uint64_t us) {
    if (us <= sim_now_us(d)) return;
    if (d->config.sim_realtime) sleep_until(us * 1000);
    else d->virtual_ns = us * 1000, d->now_us = us;
}

static int sim_copy_pages(device *d, const page_copy *copies, uint32_t count, error *err) {
    (void)err;
    copy_link_queue(&d->link, sim_now_us(d), copies, count);
    return OK;
}

static int sim_await_copy(device *d, uint64_t id, error *err) {
    (void)err;
    stand_still_until(d, copy_link_end_us(&d->link, id));
    return OK;
}

static uint32_t sim_copies_done(device *d, bool wait, copied_page *out, uint32_t max) {
    uint32_t n = 0;
    if (wait && copy_link_next_us(&d->link) != LINK_IDLE) stand_still_until(d, copy_link_next_us(&d->link));
    for (uint64_t id; n < max && (id = copy_link_take(&d->link, sim_now_us(d))) != 0; n++) out[n] = (copied_page){id, true};
    return n;
}

static void sim_read_stats(const device *d, device_stats *out) { *out = d->stats; }

const device_api device_sim = {
    .name = "sim",
    .available = sim_available,
    .plan_memory = sim_plan_memory,
    .open = sim_open,
    .close = sim_close,
    .bind = sim_bind,
    .run_op = sim_run_op,
    .save_rows = sim_copy_rows,
    .load_rows = sim_copy_rows,
    .move_rows = sim_move_rows,
    .collect = sim_collect,
    .copy_pages = sim_copy_pages,
    .await_copy = sim_await_copy,
    .copies_done = sim_copies_done,
    .read_logits = sim_read_logits,
    .read_stats = sim_read_stats,
    .now_us = sim_now_us,
};
