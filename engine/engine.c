/* The engine's one thread: takes what was submitted and cancelled, asks the scheduler for a plan, has it walked, and says
 * what came out. It reacts to events and sleeps otherwise.
 *
 *     any thread ── submit, cancel ──▶ requests ──▶ ┌────────────────────────────┐ ──▶ ring ── next ──▶ the consumer
 *                                                   │ plan ─▶ walk ─▶ outcomes   │
 *     any thread ◀── snapshot ───────────────────── └────────────────────────────┘
 *
 * No lock is held while a pass runs, so nobody who asks anything ever waits for one. A step begins only if the ring has
 * room for all it may say: a consumer that stalls stops the engine, and loses nothing. */
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_state.h"

/* ---- the thread ---- */

/* A pass says at most one thing about each running request. */
static bool has_room(const engine *e) { return ring_room(e->ring) >= e->config.scheduler_settings.running_max; }

static void sleep_until_kicked(engine *e) {
    e->accounted_us = 0;
    atomic_store(&e->starved, !has_room(e));
    if (!atomic_load(&e->starved) || !has_room(e)) requests_wait(&e->requests, e->seen_kicks);
    atomic_store(&e->starved, false);
}

/* One turn: what came in, one pass, what comes out. OK and *ran false: there is nothing to do. */
static int step(engine *e, bool *ran, error *err) {
    const uint64_t begin_ns = clock_ns(), begin_op_ns = walker_op_ns(e->walker);
    int            status = OK;
    plan           p;
    e->seen_kicks = requests_kicks(&e->requests);
    take_copied(e, false);
    take_new(e);
    take_cancelled(e);
    for (uint64_t job; (job = requests_next_ended_job(&e->requests)) != 0;)
        scheduler_end_job(e->scheduler, e->api->now_us(e->device), job);
    if (atomic_exchange(&e->drop_cache, false)) scheduler_drop_cache(e->scheduler);
    *ran = false;
    if (has_room(e) && !atomic_load(&e->held)) {
        const uint64_t plan_ns = clock_ns();
        *ran = scheduler_plan(e->scheduler, e->api->now_us(e->device), &p);
        e->figures.plan_ns_total += clock_ns() - plan_ns;
        status = begin_copies(e, &p, err);
    }
    if (status == OK && *ran) {
        publish(e); /* a long prompt's pass takes a while, and who is running is known now */
        status = run_pass(e, &p, err);
    }
    publish(e);
    wake_consumer(e);
    if (*ran) e->figures.host_ns_total += clock_ns() - begin_ns - (walker_op_ns(e->walker) - begin_op_ns);
    return status;
}

static void wait_for_room(engine *e) {
    while (ring_room(e->ring) == 0 && !atomic_load(&e->closing)) {
        const uint64_t seen = requests_kicks(&e->requests);
        wake_consumer(e);
        atomic_store(&e->starved, true);
        if (ring_room(e->ring) == 0) requests_wait(&e->requests, seen);
    }
}

/* The device failed: it is said once, everything that was accepted ends with it, and nothing more is taken. */
static void fail_everything(engine *e, const error *err) {
    snprintf(e->figures.failed, sizeof e->figures.failed, "%s", err->text);
    log_error("engine", "the %s device failed: %s", e->api->name, e->figures.failed);
    requests_refuse(&e->requests, ERR_DEVICE, e->figures.failed);
    publish(e);
    while (requests_next_new(&e->requests)) {
    }
    for (uint32_t i = 0; i < e->requests.capacity; i++) {
        request *r = &e->requests.table[i];
        if (r->state != REQUEST_LIVE) continue;
        wait_for_room(e);
        if (atomic_load(&e->closing)) return;
        finish(e, r, &(engine_event){.reason = FINISH_ERROR, .message = "The compute device failed."});
    }
    wake_consumer(e);
}

static void *engine_main(void *argument) {
    engine *e = argument;
    error   err;
    pthread_setname_np(pthread_self(), "engine");
    while (!atomic_load(&e->closing)) {
        bool ran;
        if (step(e, &ran, &err) != OK) {
            fail_everything(e, &err);
            return NULL;
        }
        if (!ran && !take_copied(e, true)) sleep_until_kicked(e);
    }
    return NULL;
}

/* ---- opening and closing ---- */

static int open_parts(engine *e, error *err) {
    memory_plan    memory;
    engine_config *c = &e->config;
    const bool     context_asked_for = c->context_max > 0;
    int            status = checkpoint_open(&e->model, c->model, err);
    if (status == OK) status = engine_plan(c, e->model, &memory, err);
    if (status != OK) return status;
    const model_facts *f = checkpoint_facts(e->model);
    if (c->context_max < f->context_max && !context_asked_for)
        log_warn("engine", "the KV pages hold a context of %u tokens, not the model's %u; --kv-cache-memory gives them more",
                 c->context_max, f->context_max);
    e->api = c->device_table ? c->device_table : device_find(c->device, e->device_why, sizeof e->device_why);
    status = device_misbehave(&e->api, err);
    if (status == OK) status = program_build(&e->program, f, program_activation(f), err);
    if (status != OK) return status;
    c->scheduler_settings.model.op_count = e->program.op_count;
    c->scheduler_settings.model.op_cuts = e->program.layer_begin + 1;
    c->scheduler_settings.model.op_cut_count = e->program.layer_count - 1;
    c->scheduler_settings.model.experts = f->expert_count;
    c->scheduler_settings.model.experts_per_row = f->experts_per_token;
    if (c->device_settings.host_pages > 0 && !e->api->copy_pages) /* the scheduler would wait for copies that nobody makes */
        return error_set(err, ERR_UNSUPPORTED, "the %s device copies no pages to host memory; use reclaim = recompute",
                         e->api->name);
    status = scheduler_new(&e->scheduler, &c->scheduler_settings, err);
    for (uint32_t i = 0; status == OK && scheduler_config_doubt(&c->scheduler_settings, i); i++)
        log_warn("scheduler", "%s", scheduler_config_doubt(&c->scheduler_settings, i));
    if (status == OK) status = e->api->open(&e->device, e->model, &e->program, &c->device_settings, err);
    if (status != OK) return status;
    e->figures.page_bytes = memory.page_bytes;
    for (uint32_t i = 0; i < memory.row_count; i++)
        if (strcmp(memory.rows[i].name, "weights") == 0) e->figures.weights_bytes += memory.rows[i].bytes;
    return OK;
}

static void fill_limits(engine *e) {
    const scheduler_config *s = &e->config.scheduler_settings;
    const model_facts      *f = checkpoint_facts(e->model);
    e->limits = (request_limits){.vocab_size = f->vocab_size,
                                 .context_max = s->context_max,
                                 .requests_max = (uint64_t)s->running_max + s->waiting_max,
                                 .waiting_tokens_max = s->waiting_tokens_max,
                                 .page_count = s->page_count,
                                 .page_tokens = s->page_tokens,
                                 .eos_ids = f->eos_ids,
                                 .eos_count = f->eos_count};
    e->figures.page_count = s->page_count;
    e->figures.page_tokens = s->page_tokens;
}

static void make_queues(engine *e) {
    const scheduler_config *s = &e->config.scheduler_settings;
    e->walker = walker_new(&(walker_config){.api = e->api,
                                            .device = e->device,
                                            .program = &e->program,
                                            .slices_max = s->batch_tokens_max,
                                            .slots_max = s->running_max,
                                            .rows_max = s->batch_tokens_max,
                                            .outputs_max = s->running_max,
                                            .frame_count = s->frame_count,
                                            .frame_rows = s->frame_tokens,
                                            .page_tokens = s->page_tokens,
                                            .find = find_sequence,
                                            .stop = wants_stop,
                                            .context = e});
    e->ring = ring_new(ring_capacity(s));
    e->outcomes = calloc(s->batch_tokens_max, sizeof *e->outcomes);
    e->drawn = calloc(s->running_max, sizeof *e->drawn);
    e->left = calloc(s->running_max, sizeof *e->left);
    if (!e->outcomes || !e->drawn || !e->left) fatal("out of memory for the engine's queues");
    requests_init(&e->requests, requests_capacity(s));
}

int engine_open(engine **out, const engine_config *c, error *err) {
    engine *e = calloc(1, sizeof *e);
    if (!e) fatal("out of memory for the engine");
    *out = NULL;
    e->config = *c;
    e->last_output = NO_OUTPUT;
    for (int tops = 0; tops <= TOP_LOGPROBS_MAX; tops++) e->scoring[tops].top_logprobs = (int8_t)tops;
    notice_init(&e->notice);
    pthread_mutex_init(&e->consumer_lock, NULL);
    cond_init_monotonic(&e->consumer_woken);
    const int status = open_parts(e, err);
    if (status != OK) {
        engine_close(e);
        return status;
    }
    fill_limits(e);
    make_queues(e);
    publish(e);
    if (pthread_create(&e->thread, NULL, engine_main, e) != 0) fatal("the engine thread could not be started");
    e->thread_runs = true;
    *out = e;
    return OK;
}

static void ask_to_end(engine *e) {
    if (!e->thread_runs) return;
    requests_refuse(&e->requests, ERR_CANCELLED, "the engine is closing");
    atomic_store(&e->closing, true);
    requests_kick(&e->requests);
}

bool engine_stop(engine *e, uint32_t timeout_ms) {
    ask_to_end(e);
    struct timespec due;
    clock_gettime(CLOCK_REALTIME, &due); /* the only clock that a timed join knows */
    const uint64_t due_ns = (uint64_t)due.tv_nsec + timeout_ms * UINT64_C(1000000);
    due.tv_sec += (time_t)(due_ns / 1000000000u), due.tv_nsec = (long)(due_ns % 1000000000u);
    if (e->thread_runs && pthread_timedjoin_np(e->thread, NULL, &due) == 0) e->thread_runs = false;
    return !e->thread_runs;
}

void engine_close(engine *e) {
    if (!e) return;
    ask_to_end(e);
    if (e->thread_runs) pthread_join(e->thread, NULL);
    if (e->requests.capacity) requests_destroy(&e->requests);
    ring_free(e->ring);
    walker_free(e->walker);
    scheduler_free(e->scheduler);
    if (e->device) e->api->close(e->device);
    program_free(&e->program);
    checkpoint_close(e->model);
    free(e->outcomes);
    free(e->drawn);
    free(e->left);
    pthread_cond_destroy(&e->consumer_woken);
    pthread_mutex_destroy(&e->consumer_lock);
    notice_destroy(&e->notice);
    free(e);
}

/* ---- from other threads ---- */

const model_facts      *engine_facts(const engine *e) { return checkpoint_facts(e->model); }
const char             *engine_device_name(const engine *e) { return e->api->name; }
const char             *engine_device_why(const engine *e) { return e->device_why; }
uint32_t                engine_context_max(const engine *e) { return e->config.context_max; }
const scheduler_config *engine_scheduler_config(const engine *e) { return &e->config.scheduler_settings; }
const char             *engine_model_dir(const engine *e) { return checkpoint_dir(e->model); }

int engine_submit(engine *e, engine_request *r, error *err) {
    return requests_put(&e->requests, r, e->api->now_us(e->device), &e->limits, err);
}

void engine_cancel(engine *e, uint64_t id) { requests_cancel(&e->requests, id); }

uint32_t engine_next(engine *e, engine_event *out, uint32_t max) {
    const uint32_t n = ring_pop(e->ring, out, max);
    if (n > 0 && atomic_load(&e->starved)) requests_kick(&e->requests);
    return n;
}

bool engine_wait(engine *e, uint32_t timeout_ms) {
    const uint64_t  due_ns = clock_ns() + timeout_ms * UINT64_C(1000000);
    struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)};
    pthread_mutex_lock(&e->consumer_lock);
    while (ring_is_empty(e->ring))
        if (pthread_cond_timedwait(&e->consumer_woken, &e->consumer_lock, &due) != 0) break;
    pthread_mutex_unlock(&e->consumer_lock);
    return !ring_is_empty(e->ring);
}

void engine_read_snapshot(engine *e, engine_snapshot *out) {
    notice_read(&e->notice, out);
    out->passed_over = out->scheduler.waiting;
    requests_waiting(&e->requests, &out->scheduler.waiting, &out->scheduler.waiting_tokens);
    out->pass_started_us = atomic_load(&e->pass_started_us);
    out->operators_done = walker_operators_done(e->walker);
    out->held = atomic_load(&e->held);
}

void engine_hold(engine *e, bool held) {
    atomic_store(&e->held, held);
    requests_kick(&e->requests);
}

int engine_end_job(engine *e, uint64_t job, error *err) {
    return requests_end_job(&e->requests, job)
               ? OK
               : error_set(err, ERR_FULL, "too many jobs were ended at once; come back later");
}

void engine_drop_cache(engine *e) {
    atomic_store(&e->drop_cache, true);
    requests_kick(&e->requests);
}

backlog engine_backlog(const engine *e, const engine_snapshot *s) {
    const scheduler_stats *q = &s->scheduler;
    return (backlog){.running = q->running,
                     .running_max = e->config.scheduler_settings.running_max,
                     .waiting = q->waiting,
                     .passed_over = s->passed_over,
                     .waiting_tokens = q->waiting_tokens,
                     .prompt_left = s->prompt_left,
                     .tokens_free = ((uint64_t)q->pages_free + q->pages_cached) * s->page_tokens,
                     .tokens_held = (uint64_t)q->pages_held * s->page_tokens};
}

/* Who goes before a newcomer of this priority: where priority orders, not those who are more patient than it. */
static backlog backlog_before(const engine *e, backlog all, int32_t priority) {
    uint32_t count, before;
    uint64_t tokens, tokens_before;
    if (e->config.scheduler_settings.order.policy != ORDER_PRIORITY) return all;
    requests_fresh_before(&e->requests, INT32_MAX, &count, &tokens);
    requests_fresh_before(&e->requests, priority, &before, &tokens_before);
    const uint32_t patient = count - before;
    const uint64_t patient_tokens = tokens - tokens_before;
    all.waiting -= patient < all.waiting ? patient : all.waiting;
    all.waiting_tokens -= patient_tokens < all.waiting_tokens ? patient_tokens : all.waiting_tokens;
    return all;
}

queue_answer engine_ask(engine *e, uint32_t count, uint64_t prompt_tokens, int32_t priority, double *wait_s, error *err) {
    const scheduler_config *c = &e->config.scheduler_settings;
    const queue_limits      limits = {c->waiting_max, c->waiting_tokens_max, e->config.queue_wait_max_us};
    engine_snapshot         s;
    engine_read_snapshot(e, &s);
    const backlog b = engine_backlog(e, &s), before = backlog_before(e, b, priority);
    *wait_s = pace_wait_s(&s.pace, &before, (uint32_t)(prompt_tokens / count));
    const queue_answer answer = queue_ask(&limits, &b, *wait_s, count, prompt_tokens);
    if (answer == QUEUE_FULL_REQUESTS)
        error_set(err, ERR_FULL, "%u requests wait already, and %u may", b.waiting, c->waiting_max);
    if (answer == QUEUE_FULL_TOKENS)
        error_set(err, ERR_FULL, "prompts of %llu tokens wait already, and %u may", (unsigned long long)b.waiting_tokens,
                  c->waiting_tokens_max);
    if (answer == QUEUE_FULL_WAIT)
        error_set(err, ERR_FULL, "a request would wait %.1f s now, and %.1f s are allowed", *wait_s,
                  (double)e->config.queue_wait_max_us * 1e-6);
    return answer;
}

int engine_last_logits(engine *e, float *out) {
    int status = ERR_NOT_FOUND;
    if (!requests_hold_idle(&e->requests)) return ERR_FULL;
    if (e->last_output != NO_OUTPUT) status = e->api->read_logits(e->device, e->last_output, out);
    requests_let_go(&e->requests);
    return status;
}
