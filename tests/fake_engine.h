/* tests/fake_engine.h: the engine, the tokenizer and the chat template as the server sees them, made of arithmetic. Include
 * it in ONE file of a program: it defines their functions, so the real ones are not linked.
 *
 * A token is a byte; 256 ends a sequence. A prompt is answered with the text in fake.script, over and over, one token per
 * request and step; a step takes fake.step_us. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "tests/fake_tokenizer.h"

enum { FAKE_RING = 4096, FAKE_REQUESTS = 4096, FAKE_CONTEXT = 4096 };

static struct {
    const char    *script;    /* what it says */
    uint32_t       eos_after; /* tokens; 0: never */
    uint32_t       step_us;
    uint32_t       requests_max; /* then the queue is full */
    double         wait_s;       /* that it predicts */
    uint32_t       fail_after;   /* tokens; then FINISH_ERROR; 0: never */
    atomic_bool    frozen;       /* takes steps no more, until it is false again */
    uint64_t       submitted, cancelled, finished;
    engine_request last; /* that was submitted; its pointers are no more */
} fake = {.script = "Once upon a time there was a penstock. ", .requests_max = FAKE_REQUESTS};

typedef struct {
    engine_request r;
    uint32_t       drawn;
    bool           cancelled;
    request_ledger ledger;
} fake_request;

struct engine {
    pthread_t       thread;
    pthread_mutex_t lock;
    pthread_cond_t  changed, ready;
    fake_request   *requests[FAKE_REQUESTS];
    uint32_t        count;
    engine_event    ring[FAKE_RING];
    uint32_t        head, tail; /* tail - head events */
    bool            closing;
    uint64_t        passes;
    void (*wake)(void *);
    void *wake_context;
};

static model_facts fake_facts = {.vocab_size = FAKE_VOCAB,
                                 .default_temperature = -1,
                                 .default_top_p = -1,
                                 .default_top_k = -1,
                                 .default_min_p = -1,
                                 .default_repetition_penalty = -1};

static bool fake_step_request(struct engine *e, fake_request *q) {
    engine_event ev = {.id = q->r.id};
    size_t       n = strlen(fake.script);
    if (!q->ledger.admitted_us) q->ledger.admitted_us = clock_us();
    if (q->cancelled) {
        ev.finished = true, ev.reason = FINISH_CANCELLED;
    } else if (fake.fail_after && q->drawn >= fake.fail_after) {
        ev.finished = true, ev.reason = FINISH_ERROR, ev.message = "the fake engine was told to fail";
    } else {
        bool eos = fake.eos_after && q->drawn >= fake.eos_after && !q->r.ignore_eos;
        ev.has_token = true;
        ev.token.token = eos ? FAKE_EOS : (unsigned char)fake.script[(q->drawn + q->r.params.seed) % n];
        ev.token.logprob = -0.5f;
        ev.token.top_count = q->r.params.top_logprobs > 0 ? (uint32_t)q->r.params.top_logprobs : 0;
        for (uint32_t i = 0; i < ev.token.top_count; i++)
            ev.token.top_ids[i] = i ? 'a' + i : ev.token.token, ev.token.top_logprobs[i] = -0.5f - (float)i;
        ev.token_is_stop = eos;
        q->drawn++;
        ev.finished = eos || q->drawn >= q->r.output_tokens_max;
        ev.reason = eos ? FINISH_STOP : FINISH_LENGTH;
        if (!q->ledger.first_token_us) q->ledger.first_token_us = clock_us();
    }
    q->ledger.finished_us = clock_us();
    q->ledger.output_tokens = q->drawn;
    ev.ledger = q->ledger;
    e->ring[e->tail++ % FAKE_RING] = ev;
    return ev.finished;
}

static void *fake_run(void *arg) {
    struct engine *e = arg;
    pthread_mutex_lock(&e->lock);
    while (!e->closing) {
        if (fake.frozen) {
            pthread_mutex_unlock(&e->lock);
            nanosleep(&(struct timespec){0, 1000000}, NULL);
            pthread_mutex_lock(&e->lock);
            continue;
        }
        if (e->count == 0 || e->tail - e->head + e->count > FAKE_RING) {
            pthread_cond_wait(&e->changed, &e->lock);
            continue;
        }
        for (uint32_t i = 0; i < e->count;) {
            fake_request *q = e->requests[i];
            if (!fake_step_request(e, q)) {
                i++;
                continue;
            }
            fake.finished++;
            free(q->r.tokens), free((void *)(uintptr_t)q->r.params.bias_ids),
                free((void *)(uintptr_t)q->r.params.bias_values), free(q);
            e->requests[i] = e->requests[--e->count];
        }
        e->passes++;
        pthread_cond_signal(&e->ready);
        pthread_mutex_unlock(&e->lock);
        e->wake(e->wake_context);
        if (fake.step_us) nanosleep(&(struct timespec){fake.step_us / 1000000, (long)(fake.step_us % 1000000) * 1000}, NULL);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

int engine_open(engine **out, const engine_config *c, error *err) {
    (void)err;
    engine *e = calloc(1, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    pthread_cond_init(&e->ready, NULL);
    e->wake = c->wake, e->wake_context = c->wake_context;
    pthread_create(&e->thread, NULL, fake_run, e);
    *out = e;
    return OK;
}
void engine_close(engine *e) {
    pthread_mutex_lock(&e->lock);
    e->closing = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    for (uint32_t i = 0; i < e->count; i++) free(e->requests[i]->r.tokens), free(e->requests[i]);
    free(e);
}
int                     engine_end_job(engine *e, uint64_t job, error *err) { return (void)e, (void)job, (void)err, OK; }
bool                    engine_stop(engine *e, uint32_t timeout_ms) { return (void)e, (void)timeout_ms, true; }
const model_facts      *engine_facts(const engine *e) { return (void)e, &fake_facts; }
const char             *engine_device_name(const engine *e) { return (void)e, "fake"; }
const char             *engine_device_why(const engine *e) { return (void)e, "the tests' own"; }
uint32_t                engine_context_max(const engine *e) { return (void)e, FAKE_CONTEXT; }
const scheduler_config *engine_scheduler_config(const engine *e) {
    static const scheduler_config c = {.running_max = FAKE_REQUESTS, .page_count = 100, .page_tokens = 16};
    return (void)e, &c;
}
const char *engine_model_dir(const engine *e) { return (void)e, fake_text.missing ? NULL : "fake"; }

queue_answer engine_ask(engine *e, uint32_t requests, uint64_t prompt_tokens, int32_t priority, double *wait_s, error *err) {
    (void)prompt_tokens, (void)priority;
    *wait_s = fake.wait_s;
    pthread_mutex_lock(&e->lock);
    const uint32_t count = e->count;
    pthread_mutex_unlock(&e->lock);
    if (count + requests <= fake.requests_max) return QUEUE_HAS_ROOM;
    error_set(err, ERR_FULL, "%u requests are running or waiting", count);
    return QUEUE_FULL_REQUESTS;
}
backlog engine_backlog(const engine *e, const engine_snapshot *s) {
    return (void)e, (backlog){.running = s->scheduler.running, .running_max = FAKE_REQUESTS};
}
int engine_submit(engine *e, engine_request *r, error *err) {
    pthread_mutex_lock(&e->lock);
    int code = OK;
    if (e->count >= fake.requests_max) {
        code = error_set(err, ERR_FULL, "%u requests are running or waiting", e->count);
    } else {
        fake_request *q = calloc(1, sizeof *q);
        q->r = fake.last = *r;
        q->ledger.submitted_us = clock_us();
        q->ledger.prompt_tokens = r->prompt_tokens;
        e->requests[e->count++] = q;
        fake.submitted++;
        pthread_cond_signal(&e->changed);
    }
    pthread_mutex_unlock(&e->lock);
    return code;
}
void engine_cancel(engine *e, uint64_t id) {
    pthread_mutex_lock(&e->lock);
    for (uint32_t i = 0; i < e->count; i++)
        if (e->requests[i]->r.id == id && !e->requests[i]->cancelled) e->requests[i]->cancelled = true, fake.cancelled++;
    pthread_mutex_unlock(&e->lock);
}
uint32_t engine_next(engine *e, engine_event *out, uint32_t max) {
    uint32_t n = 0;
    pthread_mutex_lock(&e->lock);
    while (n < max && e->head != e->tail) out[n++] = e->ring[e->head++ % FAKE_RING];
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return n;
}
bool engine_wait(engine *e, uint32_t timeout_ms) {
    (void)e;
    nanosleep(&(struct timespec){0, (long)timeout_ms * 1000000}, NULL);
    return true;
}
void engine_hold(engine *e, bool held) { (void)e, (void)held; }
void engine_drop_cache(engine *e) { (void)e; }
void engine_read_snapshot(engine *e, engine_snapshot *out) {
    pthread_mutex_lock(&e->lock);
    *out = (engine_snapshot){.passes_done = e->passes,
                             .scheduler.running = e->count,
                             .scheduler.pages_total = 100,
                             .page_count = 100,
                             .page_tokens = 16};
    pthread_mutex_unlock(&e->lock);
}
