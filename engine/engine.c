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
#include "engine/notice.h"
#include "engine/requests.h"
#include "engine/ring.h"
#include "engine/walk.h"

/* What a request drew in this pass, told once the scheduler knows of it. */
typedef struct {
    request     *request;
    engine_event event;
    uint32_t     output;
} drawn_token;

struct engine {
    engine_config     config;
    checkpoint       *model;
    const device_api *api;
    device           *device;
    char              device_why[256];
    program           program;
    scheduler        *scheduler;
    walker           *walker;
    request_limits    limits;

    /* into the engine thread, and out of it */
    requests        requests;
    ring           *ring;
    atomic_bool     starved; /* sleeps for want of room in the ring */
    atomic_bool     closing;
    atomic_bool     held;          /* engine_hold */
    atomic_bool     drop_cache;    /* engine_drop_cache */
    pthread_mutex_t consumer_lock; /* engine_wait only */
    pthread_cond_t  consumer_woken;
    pthread_t       thread;
    bool            thread_runs;

    /* the engine thread's own */
    sampling        scoring[TOP_LOGPROBS_MAX + 1]; /* of prompts, with so many alternatives */
    slice_outcome  *outcomes;                      /* [batch_tokens_max] */
    drawn_token    *drawn;                         /* [running_max] */
    request       **left;                          /* [running_max] */
    uint32_t        drawn_count;
    uint64_t        seen_kicks;     /* as of the last time that events were taken */
    uint64_t        came_us;        /* when the first of the requests came that were taken then; UINT64_MAX: none */
    uint64_t        wake_us;        /* of the pass that runs: when time alone may want it stopped */
    uint64_t        stop_wanted_us; /* when that came up for which the pass before was stopped; 0: it was not */
    uint32_t        room_kept;      /* places of the ring that the pass that runs may need */
    bool            said;           /* something was pushed in this step */
    uint64_t        passes_begun, accounted_us; /* up to here time was taken for the pace; 0: idle since */
    uint64_t        found_tokens;               /* in the cache, by requests that are in a pass for the first time */
    uint32_t        last_output;                /* in the last pass, of the request that finished last */
    engine_snapshot figures;                    /* what is posted */

    notice           notice;
    _Atomic uint64_t pass_started_us;
};

/* ---- saying what happened ---- */

static void say(engine *e, const engine_event *event) {
    ring_push(e->ring, event);
    e->said = true;
}

static void wake_consumer(engine *e) {
    if (!e->said) return;
    e->said = false;
    if (e->config.wake) e->config.wake(e->config.wake_context);
    pthread_mutex_lock(&e->consumer_lock);
    pthread_cond_signal(&e->consumer_woken);
    pthread_mutex_unlock(&e->consumer_lock);
}

static void publish(engine *e) {
    scheduler_read_stats(e->scheduler, &e->figures.scheduler);
    e->api->read_stats(e->device, &e->figures.device);
    requests_tell_waiting(&e->requests, e->figures.scheduler.waiting, e->figures.scheduler.waiting_tokens);
    notice_post(&e->notice, &e->figures);
}

/* The request is gone from the scheduler. Its memory goes before its end is told, so that its id is free by then. */
static void finish(engine *e, request *r, engine_event *event) {
    scheduler_job_view job;
    const uint64_t     now_us = e->api->now_us(e->device);
    if (r->asked.job.id && scheduler_read_job(e->scheduler, r->asked.job.id, &job) && job.pinned_until_us > now_us)
        event->pinned_tokens = job.pinned_tokens, event->pinned_us = job.pinned_until_us - now_us;
    ledger_finished(&r->ledger, &r->clock, e->passes_begun, e->api->now_us(e->device));
    if (r->ledger.output_tokens > 0) pace_answer(&e->figures.pace, r->ledger.output_tokens);
    event->id = r->asked.id;
    event->finished = true;
    event->ledger = r->ledger;
    requests_release(&e->requests, r);
    say(e, event);
}

static void note_progress(engine *e, request *r) {
    scheduler_progress p;
    if (scheduler_read_progress(e->scheduler, r->key, &p))
        ledger_preempted(&r->ledger, &r->clock, p.preemptions, p.recomputed_tokens);
}

/* ---- events in ---- */

static bool has_room_for_event(const engine *e) { return ring_room(e->ring) > e->room_kept; }

static void take_new(engine *e) {
    for (request *r; has_room_for_event(e) && (r = requests_next_new(&e->requests)) != NULL;) {
        const scheduler_request asked = {.id = r->key,
                                         .tokens = r->asked.tokens,
                                         .prompt_tokens = r->asked.prompt_tokens,
                                         .output_tokens_max = r->asked.output_tokens_max,
                                         .cache_salt = r->asked.cache_salt,
                                         .arrived_us = r->ledger.submitted_us,
                                         .priority = r->asked.priority,
                                         .tenant = r->asked.tenant,
                                         .job = r->asked.job,
                                         .slo = r->asked.slo,
                                         .computes_all = r->asked.scores != NULL};
        if (r->ledger.submitted_us < e->came_us) e->came_us = r->ledger.submitted_us;
        error     err;
        const int status = scheduler_submit(e->scheduler, e->api->now_us(e->device), &asked, &err);
        if (status == OK) continue;
        if (status == ERR_FULL) { /* who lost their memory fill the queue beyond its bound; later, then */
            requests_put_back(&e->requests, r);
            return;
        }
        log_error("engine", "request %llu was let in and then refused: %s", (unsigned long long)r->asked.id, err.text);
        finish(e, r,
               &(engine_event){.reason = FINISH_ERROR, .message = "The request cannot run with the limits of this engine."});
    }
}

/* Whose rows are in the pass that runs ends with it: until then the device reads its tokens. */
static void take_cancelled(engine *e) {
    for (request *r; has_room_for_event(e) && (r = requests_next_cancelled(&e->requests)) != NULL;) {
        if (r->state == REQUEST_LIVE) {
            note_progress(e, r);
            scheduler_cancel(e->scheduler, e->api->now_us(e->device), r->key);
        }
        if (r->in_pass) r->leaves_pass = true;
        else finish(e, r, &(engine_event){.reason = FINISH_CANCELLED});
    }
}

/* Takes what came in. Returns whether there may have been something. */
static bool take_events(engine *e) {
    const uint64_t kicks = requests_kicks(&e->requests);
    if (kicks == e->seen_kicks) return false;
    e->seen_kicks = kicks;
    e->came_us = UINT64_MAX;
    take_new(e);
    take_cancelled(e);
    return true;
}

/* ---- prompts whose log-probabilities are asked for ---- */

/* Rows at the slice's end, but for one that draws, that lead to a token of the prompt whose log-probability is not known
 * yet. After a prompt was lost and is computed again, rows of generated tokens may be among them: nobody looks at those. */
static uint32_t rows_to_score(const engine *e, const request *r, const slice *s) {
    if (!r->asked.scores || s->op_end < e->program.op_count || r->scored >= r->asked.prompt_tokens) return 0;
    const uint32_t begin = s->token_begin > r->scored - 1 ? s->token_begin : r->scored - 1;
    const uint32_t end = s->token_end - s->samples;
    return end > begin ? end - begin : 0;
}

static void take_score(request *r, const sampled *s) {
    const prompt_scores *to = r->asked.scores;
    const uint32_t       i = r->scored++;
    to->logprobs[i] = s->logprob;
    to->ranks[i] = s->rank;
    for (uint32_t k = 0; k < to->tops; k++) {
        to->top_ids[(size_t)i * to->tops + k] = k < s->top_count ? s->top_ids[k] : PROMPT_TOP_NONE;
        to->top_logprobs[(size_t)i * to->tops + k] = k < s->top_count ? s->top_logprobs[k] : 0;
    }
}

/* A prompt crosses the last operator in order of its tokens, however it was cut. */
static void take_scores(engine *e, const plan *p) {
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request       *r = requests_by_key(&e->requests, p->slices[i].id);
        const uint32_t rows = rows_to_score(e, r, &p->slices[i]);
        const sampled *s = walker_scored(e->walker, i);
        for (uint32_t k = 0; k < rows && r->scored < r->asked.prompt_tokens; k++) {
            r->score_corrupt |= s[k].corrupt;
            take_score(r, &s[k]);
        }
    }
}

/* ---- one pass ---- */

static void find_sequence(void *context, const slice *s, walk_sequence *out) {
    engine  *e = context;
    request *r = requests_by_key(&e->requests, s->id);
    out->tokens = r->asked.tokens;
    out->prompt_tokens = r->asked.prompt_tokens;
    out->cached_tokens = scheduler_cached_tokens(e->scheduler, s->slot);
    out->pages = scheduler_pages(e->scheduler, s->slot, &out->page_count);
    out->params = &r->asked.params;
    out->banned = r->banned;
    out->banned_count = r->output_tokens < r->asked.output_tokens_min ? r->banned_count : 0;
    out->score_rows = rows_to_score(e, r, s);
    out->score_params = r->asked.scores ? &e->scoring[r->asked.scores->tops] : NULL;
}

/* Puts the slices' requests into the pass. Only prompts may be there for the first time, or again. */
static void enter_pass(engine *e, const plan *p) {
    const uint64_t now_us = e->api->now_us(e->device);
    e->passes_begun++;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = requests_by_key(&e->requests, p->slices[i].id);
        if (i >= p->decode_rows) note_progress(e, r);
        if (r->clock.last_pass == 0) {
            requests_began(&e->requests, r);
            r->ledger.cached_tokens = scheduler_cached_tokens(e->scheduler, p->slices[i].slot);
            if (p->slices[i].token_begin == r->ledger.cached_tokens) e->found_tokens += r->ledger.cached_tokens;
        }
        ledger_pass_begins(&r->ledger, &r->clock, e->passes_begun, now_us);
        r->in_pass = true;
    }
}

static void leave_pass(engine *e, const plan *p) {
    const uint64_t now_us = e->api->now_us(e->device);
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = requests_by_key(&e->requests, p->slices[i].id);
        ledger_pass_ends(&r->ledger, &r->clock, e->passes_begun, now_us);
        r->in_pass = false;
    }
}

static bool contains(const uint32_t *ids, uint32_t count, uint32_t id) {
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] == id) return true;
    return false;
}

/* Adds what was drawn to the request and says in *event what follows from it. Returns whether that was its end. */
static bool take_token(engine *e, request *r, const sampled *s, engine_event *event) {
    const engine_request *a = &r->asked;
    *event = (engine_event){.id = a->id, .token = *s};
    a->tokens[a->prompt_tokens + r->output_tokens] = s->token; /* the scheduler looks there, corrupt or not */
    if (s->corrupt || r->score_corrupt) {
        e->figures.corrupted++;
        event->reason = FINISH_ERROR;
        event->message = "The model computed values that are not numbers.";
        return true;
    }
    r->output_tokens++;
    ledger_token(&r->ledger, &r->clock, e->api->now_us(e->device));
    event->has_token = true;
    event->token_is_stop = contains(a->stop_ids, a->stop_id_count, s->token) ||
                           (!a->ignore_eos && contains(e->limits.eos_ids, e->limits.eos_count, s->token));
    event->stop_id = s->token;
    event->reason = event->token_is_stop ? FINISH_STOP : FINISH_LENGTH;
    return event->token_is_stop || r->output_tokens == a->output_tokens_max;
}

/* Tokens are appended before the scheduler hears of the pass. */
static void take_tokens(engine *e, const plan *p) {
    e->drawn_count = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        if (!p->slices[i].samples) continue;
        check(e->drawn_count < e->config.scheduler_settings.running_max);
        drawn_token *d = &e->drawn[e->drawn_count];
        d->request = requests_by_key(&e->requests, p->slices[i].id);
        if (d->request->leaves_pass) continue;
        e->drawn_count++;
        d->output = walker_output_index(e->walker, i);
        d->event.finished = take_token(e, d->request, walker_sampled(e->walker, i), &d->event);
        if (d->event.finished) note_progress(e, d->request);
        e->outcomes[i] = (slice_outcome){.token = d->event.token.token, .finished = d->event.finished};
    }
}

static void tell_tokens(engine *e) {
    e->last_output = NO_OUTPUT;
    for (uint32_t i = 0; i < e->drawn_count; i++) {
        drawn_token *d = &e->drawn[i];
        if (d->event.finished) {
            check(!scheduler_is_live(e->scheduler, d->request->key));
            e->last_output = d->output;
            finish(e, d->request, &d->event);
        } else {
            d->event.ledger = d->request->ledger;
            say(e, &d->event);
        }
    }
}

/* Who was cancelled while the pass ran. A request may have several slices. */
static void end_who_left(engine *e, request *const *left, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        check(!scheduler_is_live(e->scheduler, left[i]->key));
        finish(e, left[i], &(engine_event){.reason = FINISH_CANCELLED});
    }
}

static uint32_t find_who_left(engine *e, const plan *p) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = requests_by_key(&e->requests, p->slices[i].id);
        if (!r->leaves_pass || (count > 0 && e->left[count - 1] == r)) continue;
        e->left[count++] = r;
    }
    return count;
}

/* Asked by the walker between two operators of a pass that may be stopped. What came in is taken there and then, so that
 * the scheduler judges by what it knows of. */
static bool wants_stop(void *context) {
    engine  *e = context;
    uint64_t now_us = e->api->now_us(e->device), wanted_us = now_us;
    if (atomic_load_explicit(&e->closing, memory_order_relaxed)) return true;
    if (take_events(e)) {
        publish(e);
        wake_consumer(e);
        now_us = e->api->now_us(e->device);
        if (e->came_us < wanted_us) wanted_us = e->came_us;
    } else if (now_us < e->wake_us) {
        return false;
    } else {
        wanted_us = e->wake_us;
    }
    const bool stops = scheduler_should_stop(e->scheduler, now_us);
    e->wake_us = scheduler_wake_us(e->scheduler);
    if (stops) e->stop_wanted_us = wanted_us;
    return stops;
}

/* A stop is answered once the pass it was for begins. */
static void note_reaction(engine *e, uint64_t now_us) {
    if (e->stop_wanted_us)
        histogram_observe(&e->figures.stop_reaction_seconds, &histogram_seconds,
                          (double)(now_us - e->stop_wanted_us) * 1e-6);
    e->stop_wanted_us = 0;
    e->figures.stop_bound_ns = walker_longest_wait_ns(e->walker);
}

/* How much the pass did of the prompts in it, and how much of them is left: what a newcomer's wait is predicted from. */
static void learn_pace(engine *e, const plan *p, uint32_t reached_op, uint64_t begin_us, uint64_t now_us) {
    double prompt_tokens = (double)e->found_tokens;
    e->figures.prompt_left = 0;
    for (uint32_t i = p->decode_rows; i < p->slice_count; i++) {
        const slice   *s = &p->slices[i];
        const uint32_t end = s->op_end < reached_op ? s->op_end : reached_op,
                       all = requests_by_key(&e->requests, s->id)->asked.prompt_tokens;
        if (end > s->op_begin)
            prompt_tokens += (double)(s->token_end - s->token_begin) * (end - s->op_begin) / e->program.op_count;
        const bool last = i + 1 == p->slice_count || p->slices[i + 1].id != s->id;
        if (last && all > s->token_end) e->figures.prompt_left += all - s->token_end;
    }
    const uint64_t from_us = e->accounted_us ? e->accounted_us : begin_us; /* the host's time between passes counts */
    pace_pass(&e->figures.pace, (double)(now_us - from_us) * 1e-6, prompt_tokens, p->decode_rows,
              e->figures.scheduler.waiting);
    e->found_tokens = 0;
    e->accounted_us = now_us;
}

static int run_pass(engine *e, const plan *p, error *err) {
    walk_result    result;
    const uint64_t begin_us = e->api->now_us(e->device);
    note_reaction(e, begin_us);
    e->wake_us = p->stoppable ? scheduler_wake_us(e->scheduler) : UINT64_MAX;
    e->room_kept = e->config.scheduler_settings.running_max;
    enter_pass(e, p);
    atomic_store(&e->pass_started_us, clock_us());
    const int status = walker_walk(e->walker, p, &result, err);
    atomic_store(&e->pass_started_us, 0);
    e->room_kept = 0;
    leave_pass(e, p);
    if (status != OK) return status;
    const uint32_t left = find_who_left(e, p);
    const uint64_t now_us = e->api->now_us(e->device);
    e->figures.passes_done++;
    learn_pace(e, p, result.stopped ? result.stop_op : e->program.op_count, begin_us, now_us);
    if (result.stopped) {
        scheduler_pass_stopped(e->scheduler, now_us, result.stop_op);
        end_who_left(e, e->left, left);
        return OK;
    }
    histogram_observe(&e->figures.pass_rows, &histogram_rows, p->decode_rows + p->prefill_rows);
    histogram_observe(&e->figures.pass_seconds, &histogram_seconds, (double)(now_us - begin_us) * 1e-6);
    take_scores(e, p);
    take_tokens(e, p);
    scheduler_pass_done(e->scheduler, now_us, e->outcomes);
    tell_tokens(e);
    end_who_left(e, e->left, left);
    return OK;
}

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
    }
    if (*ran) {
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
        if (!ran) sleep_until_kicked(e);
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
    if (c->scheduler_settings.reclaim.policy != RECLAIM_RECOMPUTE) /* the scheduler would wait for copies that nobody makes */
        return error_set(err, ERR_UNSUPPORTED, "no device copies pages to host memory yet; use reclaim = recompute");
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
    for (int8_t tops = 0; tops <= TOP_LOGPROBS_MAX; tops++) e->scoring[tops].top_logprobs = tops;
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
