#include "server/generation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

/* ---- engine requests by id: the slot in the low bits, a serial above, so that a late event of a reused slot finds
 * nothing ---- */
enum { SLOT_BITS = 24, RETRY_MAX_S = 119 }; /* OpenAI's clients give up at once where they shall wait for 120 s */
#define SLOT_NONE UINT32_MAX

static void table_grow(request_table *t) {
    uint32_t capacity = t->capacity ? t->capacity * 2 : 64;
    check(capacity <= 1u << SLOT_BITS);
    void *grown = realloc(t->slots, capacity * sizeof *t->slots);
    if (!grown) fatal("out of memory for %u requests", capacity);
    t->slots = grown;
    for (uint32_t i = t->capacity; i < capacity; i++) {
        t->slots[i].id = 0;
        t->slots[i].next_free = i + 1 < capacity ? i + 1 : SLOT_NONE;
    }
    t->first_free = t->capacity;
    t->capacity = capacity;
}

static uint64_t table_add(request_table *t, generation *g, uint32_t choice_index) {
    if (t->capacity == 0 || t->first_free == SLOT_NONE) table_grow(t);
    uint32_t slot = t->first_free;
    t->first_free = t->slots[slot].next_free;
    t->slots[slot].id = ++t->serial << SLOT_BITS | slot;
    t->slots[slot].owner = g;
    t->slots[slot].choice = choice_index;
    t->live++;
    return t->slots[slot].id;
}

static generation *table_find(const request_table *t, uint64_t id, uint32_t *choice_index) {
    uint32_t slot = id & ((1u << SLOT_BITS) - 1);
    if (slot >= t->capacity || t->slots[slot].id != id) return NULL;
    *choice_index = t->slots[slot].choice;
    return t->slots[slot].owner;
}

static void table_remove(request_table *t, uint64_t id) {
    uint32_t slot = id & ((1u << SLOT_BITS) - 1);
    t->slots[slot].id = 0;
    t->slots[slot].next_free = t->first_free;
    t->first_free = slot;
    t->live--;
}

/* ---- the end ---- */
/* Each HTTP request once, when all its choices have ended. */
static void observe_longest(const generation *g) {
    uint32_t longest = 0;
    for (uint32_t i = 0; i < g->choice_count; i++)
        if (g->choices[i].text.token_count > longest) longest = g->choices[i].text.token_count;
    if (g->choice_count) metrics_observe(&g->base.service->metrics, HIST_LONGEST_OUTPUT, longest);
}

void generation_release_if_done(generation *g) {
    if (g->base.conn || g->in_engine) return;
    observe_longest(g);
    ledger_log(g);
    exchange_release(&g->base);
}

static void cancel_all(generation *g) {
    for (uint32_t i = 0; i < g->choice_count; i++)
        if (g->choices[i].engine_id) engine_cancel(g->base.service->engine, g->choices[i].engine_id);
}

static void generation_lost(exchange *x) {
    generation *g = generation_of(x);
    x->status = 499; /* as proxies log a client that left; nobody is sent this */
    cancel_all(g);
    generation_release_if_done(g);
}

static void forget_asked(generation *g) {
    if (g->asked) params_free(&g->asked->params);
    free(g->asked), g->asked = NULL;
}

static void free_scores(prompt_scores *s) {
    free(s->logprobs), free(s->ranks), free(s->top_ids), free(s->top_logprobs);
    free(s);
}

/* ---- the tenant's tokens per minute ---- */
static uint64_t prompt_tokens(const generation *g) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < g->prompt_count; i++) tokens += g->prompts[i].count;
    return tokens;
}

/* What all choices may draw, where that was said; else it is charged as it is drawn. */
static uint64_t answer_tokens_max(const generation *g) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; g->answer.sized && i < g->prompt_count; i++)
        tokens += (uint64_t)g->prompts[i].output_tokens_max * g->choices_per_prompt;
    return tokens;
}

static bool reserve_tokens(generation *g) {
    fault f = {0};
    if (!g->base.tenant) return true;
    if (tenant_reserve(g->base.tenant, prompt_tokens(g) + answer_tokens_max(g), clock_us(), &f) < 0)
        return *exchange_fault(&g->base) = f, false;
    return g->reserved = true;
}

/* `begun`: the prompts were used up. */
static void give_tokens_back(generation *g, bool begun) {
    if (!g->reserved) return;
    uint64_t unused = answer_tokens_max(g) + (begun ? 0 : prompt_tokens(g));
    for (uint32_t i = 0; g->answer.sized && !g->only_echo && i < g->choice_count; i++)
        unused -= g->choices[i].text.token_count;
    tenant_give_back(g->base.tenant, unused);
    g->reserved = false;
}

void generation_destroy(exchange *x) {
    generation *g = generation_of(x);
    give_tokens_back(g, true);
    for (uint32_t i = 0; i < g->choice_count; i++) choice_free(&g->choices[i].text), free(g->choices[i].ledger);
    for (uint32_t i = 0; i < g->prompt_count; i++) {
        generation_prompt *p = &g->prompts[i];
        free(p->ids), free(p->text);
        if (p->scores) free_scores(p->scores);
    }
    free(g->choices), free(g->prompts), free(g->metadata);
    buf_free(&g->prefix);
    stop_set_free(&g->rules.stops);
    forget_asked(g);
}

/* An answer that cannot be completed: as a status where none was sent, else as an event in the stream. */
static void fail(generation *g) {
    exchange *x = &g->base;
    cancel_all(g);
    if (g->streaming) {
        reply_stream_fail(g, x->fault);
        x->conn = NULL;
        return;
    }
    buf json;
    buf_init(&json, 8192);
    fault_write(x->fault, &json);
    exchange_answer(x, fault_status(x->fault), &json);
    buf_free(&json);
}

/* ---- into the engine ---- */
static void *copy_of(const void *items, uint32_t count, size_t item_bytes) {
    if (!count) return NULL;
    void *copy = malloc(count * item_bytes);
    if (!copy) fatal("out of memory for %u tokens", count);
    return memcpy(copy, items, count * item_bytes);
}

/* Whether the queue takes so many requests. Refuses the exchange where not. */
static bool queue_takes(exchange *x, uint32_t count, uint64_t tokens, int32_t priority) {
    service     *sv = x->service;
    double       wait_s;
    error        err;
    queue_answer answer = engine_ask(sv->engine, count, tokens, priority, &wait_s, &err);
    if (answer == QUEUE_HAS_ROOM) return true;
    sv->metrics.count.refused_queue[answer]++;
    fault_set(exchange_fault(x), FAULT_OVERLOADED, NULL, "The queue is full: %.300s.", err.text);
    x->fault->retry_after_s = wait_s < 1 ? 1 : wait_s > RETRY_MAX_S ? RETRY_MAX_S : (uint32_t)(wait_s + 0.999);
    return false;
}

/* A queue that would not take the smallest and most urgent of requests says so before the body is read: refusing must cost
 * little when there is much of it. */
static bool generation_admit(exchange *x) { return queue_takes(x, 1, 1, INT32_MIN); }

/* All its choices, or none, and before anything is answered. */
static bool queue_takes_all(generation *g) {
    return queue_takes(&g->base, g->choice_count, prompt_tokens(g) * g->choices_per_prompt, g->priority);
}

static void submit_failed(generation *g, const error *err) {
    fault *f = exchange_fault(&g->base);
    if (err->code == ERR_FULL) { /* who was asked before has given the place away meanwhile */
        fault_set(f, FAULT_OVERLOADED, NULL, "The queue is full: %.300s.", err->text);
        f->retry_after_s = 1;
        g->base.service->metrics.count.refused_queue[QUEUE_FULL_REQUESTS]++;
    } else if (err->code == ERR_TOO_LARGE) {
        fault_set(f, FAULT_CONTEXT, g->base.kind->endpoint == ENDPOINT_CHAT ? "messages" : "prompt", "%.400s.", err->text);
    } else if (err->code == ERR_INVALID) {
        fault_set(f, FAULT_INVALID, NULL, "%.400s.", err->text);
    } else {
        fault_set(f, err->code == ERR_CANCELLED ? FAULT_DRAINING : FAULT_DEVICE, NULL, "%.400s.", err->text);
        f->retry_after_s = 1;
    }
}

static uint64_t us_left(double ms, uint64_t gone_us) {
    if (ms < 0) return 0;
    uint64_t us = (uint64_t)(ms * 1000);
    return us > gone_us ? us - gone_us : 1;
}

/* The engine's clock for it begins now, the client's began when its request was here. */
static request_slo slo_from_now(const generation *g) {
    uint64_t gone_us = clock_us() - g->base.arrived_us;
    return (request_slo){.ttft_us = us_left(g->slo.ttft_ms, gone_us),
                         .tbt_us = us_left(g->slo.tbt_ms, 0),
                         .deadline_us = us_left(g->slo.deadline_ms, gone_us),
                         .job_deadline_us = us_left(g->slo.job_deadline_ms, 0),
                         .value = g->slo.value < 0 ? 0 : g->slo.value};
}

static bool is_too_late(const generation *g) {
    return g->slo.deadline_ms >= 0 && (double)(clock_us() - g->base.arrived_us) >= g->slo.deadline_ms * 1000;
}

static int submit_choice(generation *g, uint32_t index, error *err) {
    generation_choice    *k = &g->choices[index];
    generation_prompt    *prompt = &g->prompts[k->prompt];
    service              *sv = g->base.service;
    const request_params *p = &g->asked->params;
    bool                  first = index % g->choices_per_prompt == 0;
    bool                  last = (index + 1) % g->choices_per_prompt == 0 && !g->rules.ids && !prompt->scores;
    engine_request        r = {
               .tokens = last ? prompt->ids : copy_of(prompt->ids, prompt->count, sizeof *prompt->ids),
               .prompt_tokens = prompt->count,
               .output_tokens_max = g->only_echo ? 1 : prompt->output_tokens_max, /* scoring a prompt ends with a draw */
               .output_tokens_min = (uint32_t)p->min_tokens,
               .params = g->asked->sampling,
               .ignore_eos = p->ignore_eos,
               .stop_ids = p->stop_ids,
               .stop_id_count = p->stop_id_count,
               .priority = g->priority,
               .tenant = {.id = g->asked->tenant, .weight = g->base.tenant ? g->base.tenant->weight : 0},
               .cache_salt = g->asked->cache_salt,
               .job = g->job,
               .slo = slo_from_now(g),
               .scores = first ? prompt->scores : NULL,
    };
    r.params.seed += index;
    r.params.bias_count = p->bias_count;
    r.params.bias_ids = copy_of(p->bias_ids, p->bias_count, sizeof *p->bias_ids);
    r.params.bias_values = copy_of(p->bias_values, p->bias_count, sizeof *p->bias_values);
    r.id = table_add(&sv->requests, g, index);
    int code = engine_submit(sv->engine, &r, err);
    if (last) prompt->ids = code == OK ? NULL : r.tokens; /* which may have moved */
    if (code == OK) {
        k->engine_id = r.id;
        g->in_engine++;
        return OK;
    }
    table_remove(&sv->requests, r.id);
    if (!last) free(r.tokens);
    free((void *)(uintptr_t)r.params.bias_ids), free((void *)(uintptr_t)r.params.bias_values);
    return code;
}

static void make_choices(generation *g) {
    uint32_t count = g->prompt_count * g->choices_per_prompt;
    g->choices = calloc(count, sizeof *g->choices);
    if (!g->choices) fatal("out of memory for %u choices", count);
    for (uint32_t i = 0; i < count; i++) {
        g->choices[i].prompt = i / g->choices_per_prompt;
        choice_init(&g->choices[i].text, &g->rules, g->prompts[g->choices[i].prompt].has_text);
        if (g->prompts[g->choices[i].prompt].thinking) choice_begin_thinking(&g->choices[i].text);
        g->choices[i].index = i;
    }
    g->choice_count = g->open = count;
    g->created_s = time(NULL);
    if (!g->asked->params.has_seed)
        g->asked->sampling.seed = hash_u64(g->base.id, strlen(g->base.id), g->base.service->id_salt);
}

static void finish_reply(generation *g) {
    if (g->streaming) reply_stream_end(g);
    else reply_whole(g);
    generation_release_if_done(g);
}

/* Everything that was asked for is in the prompt: nothing to generate. */
static void answer_echo(generation *g) {
    for (uint32_t i = 0; i < g->choice_count; i++) choice_finish(&g->choices[i].text, CHOICE_LENGTH);
    g->open = 0;
    for (uint32_t i = 0; g->streaming && i < g->choice_count; i++) reply_stream_choice(g, &g->choices[i]);
    finish_reply(g);
}

static void generation_finish(exchange *x) {
    generation *g = generation_of(x);
    service    *sv = x->service;
    error       err = {0};
    uint32_t    count = g->prompt_count * g->choices_per_prompt;
    bool        nothing = g->only_echo && !g->prompts[0].scores;
    exchange_rename(x, g->asked->id);
    if (is_too_late(g)) {
        fault_set(exchange_fault(x), FAULT_DEADLINE, NULL, "The deadline of %g ms passed before the request began.",
                  g->slo.deadline_ms);
        return exchange_refuse(x);
    }
    if (!reserve_tokens(g)) return exchange_refuse(x);
    make_choices(g);
    if (!nothing && !queue_takes_all(g)) {
        give_tokens_back(g, false);
        fail(g);
        return generation_release_if_done(g);
    }
    for (uint32_t i = 0; i < count && !err.code && !nothing; i++) submit_choice(g, i, &err);
    if (err.code) {
        submit_failed(g, &err);
        give_tokens_back(g, false);
        fail(g);
        return generation_release_if_done(g);
    }
    if (x->tenant) tenant_use(x->tenant, prompt_tokens(g));
    metrics_observe(&sv->metrics, HIST_N, (double)g->asked->params.n);
    metrics_observe(&sv->metrics, HIST_MAX_TOKENS, g->prompts[0].output_tokens_max);
    sv->metrics.count.unknown_parameters += g->asked->params.unknown_count;
    if (g->asked->params.unknown_count && !sv->unknown_logged) {
        sv->unknown_logged = true;
        log_warn("request", "a request holds parameters that nobody knows (%s%s); they are ignored, and this is said once",
                 g->asked->params.unknown_names, g->asked->params.unknown_count > UNKNOWN_NAMED_MAX ? ", ..." : "");
    }
    forget_asked(g);
    if (g->answer.stream) reply_stream_begin(g);
    if (nothing) answer_echo(g);
}

/* ---- out of the engine ---- */
static void observe_token(service *sv, generation *g, generation_choice *k) {
    uint64_t now = clock_us();
    if (!k->first_us) {
        k->first_us = now;
        metrics_observe(&sv->metrics, HIST_TIME_TO_FIRST_TOKEN, (double)(now - g->base.arrived_us) * 1e-6);
    } else {
        metrics_observe(&sv->metrics, HIST_INTER_TOKEN, (double)(now - k->last_us) * 1e-6);
    }
    k->last_us = now;
}

static double span_s(uint64_t from_us, uint64_t to_us) { return to_us > from_us ? (double)(to_us - from_us) * 1e-6 : 0; }

static void observe_end(service *sv, generation *g, const generation_choice *k, const engine_event *e) {
    metrics              *m = &sv->metrics;
    const request_ledger *l = k->ledger;
    uint32_t              n = k->text.token_count;
    if (k->text.end == CHOICE_STOPPED) m->count.finished_stop++;
    else if (k->text.end == CHOICE_LENGTH) m->count.finished_length++;
    else if (e->reason == FINISH_ERROR) m->count.finished_error++;
    else m->count.finished_abort++;
    metrics_observe(m, HIST_PROMPT_TOKENS, g->prompts[k->prompt].count);
    metrics_observe(m, HIST_OUTPUT_TOKENS, n);
    metrics_observe(m, HIST_END_TO_END, span_s(g->base.arrived_us, clock_us()));
    for (int i = 0; i < LEDGER_PARTS; i++) m->count.ledger_us[i] += l->part_us[i];
    if (!l->admitted_us) return;
    metrics_observe(m, HIST_COMPUTED_TOKENS, l->prompt_tokens - l->cached_tokens);
    metrics_observe(m, HIST_QUEUE, span_s(l->submitted_us, l->admitted_us));
    if (!k->first_us) return;
    metrics_observe(m, HIST_PREFILL, span_s(l->admitted_us, l->first_token_us));
    metrics_observe(m, HIST_DECODE, span_s(l->first_token_us, l->finished_us));
    metrics_observe(m, HIST_INFERENCE, span_s(l->admitted_us, l->finished_us));
    if (n > 1) metrics_observe(m, HIST_TIME_PER_TOKEN, span_s(k->first_us, k->last_us) / (n - 1));
}

static double unix_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void end_choice(generation *g, generation_choice *k, const engine_event *e) {
    exchange *x = &g->base;
    bool      whole = e->reason == FINISH_STOP || e->reason == FINISH_LENGTH;
    if (whole && g->only_echo) choice_finish(&k->text, CHOICE_LENGTH); /* whatever was drawn */
    else if (e->reason == FINISH_STOP) choice_finish(&k->text, CHOICE_STOPPED);
    else if (e->reason == FINISH_LENGTH) choice_finish(&k->text, CHOICE_LENGTH);
    else if (k->text.end == CHOICE_GROWING) {
        choice_finish(&k->text, CHOICE_FAILED);
        if (e->reason == FINISH_ERROR)
            fault_set(exchange_fault(x), FAULT_INTERNAL, NULL, "The request failed: %.400s.",
                      e->message ? e->message : "no reason given");
        else fault_set(exchange_fault(x), FAULT_DRAINING, NULL, "The request was cancelled by the server.");
    }
}

/* Text that a slow reader does not take is kept until it is too much: then the reader is cut off. */
static bool reader_too_slow(generation *g) {
    uint64_t held = g->base.conn->out.size;
    for (uint32_t i = 0; i < g->choice_count; i++)
        held += g->choices[i].text.text.size + g->choices[i].text.entry_count * sizeof(logprob_entry) +
                g->choices[i].text.top_count * sizeof(logprob_top);
    return held > g->base.service->config->write_buffer_max_bytes;
}

/* What an event changed goes to the client. */
static void tell(generation *g, generation_choice *k) {
    service *sv = g->base.service;
    listener_touch(g->base.conn);
    if (g->base.fault) return fail(g);
    if (g->streaming && g->base.conn->in_flight == 0)
        reply_stream_choice(g, k); /* with bytes in flight, tokens gather and go out as one event once they are taken */
    else if (g->streaming && reader_too_slow(g)) {
        sv->metrics.count.readers_too_slow++;
        return http_abort(g->base.conn); /* calls generation_lost */
    }
    if (g->open) return;
    for (uint32_t i = 0; g->streaming && i < g->choice_count; i++) reply_stream_choice(g, &g->choices[i]);
    if (g->streaming) reply_stream_end(g);
    else reply_whole(g);
}

static void keep_ledger(generation_choice *k, const request_ledger *l) {
    if (!k->ledger && !(k->ledger = malloc(sizeof *k->ledger))) fatal("out of memory for an answer");
    *k->ledger = *l;
}

void generation_event(service *sv, const engine_event *e) {
    uint32_t    index;
    generation *g = table_find(&sv->requests, e->id, &index);
    if (!g) return;
    generation_choice *k = &g->choices[index];
    bool               was_open = k->text.end == CHOICE_GROWING;
    keep_ledger(k, &e->ledger);
    if (e->has_token && index % g->choices_per_prompt == 0) g->prompts[k->prompt].scores_in = true;
    if (e->has_token && was_open && !g->only_echo) {
        observe_token(sv, g, k);
        if (g->base.tenant) (g->answer.sized ? tenant_use : tenant_charge)(g->base.tenant, 1);
        if (choice_take(&k->text, &e->token, !e->token_is_stop) && !e->finished) engine_cancel(sv->engine, e->id);
    }
    if (e->finished) {
        end_choice(g, k, e);
        if (e->pinned_us) k->pinned_tokens = e->pinned_tokens, k->pinned_until_s = unix_s() + (double)e->pinned_us * 1e-6;
        observe_end(sv, g, k, e);
        table_remove(&sv->requests, e->id);
        k->engine_id = 0;
        g->in_engine--;
    }
    if (was_open && k->text.end != CHOICE_GROWING) g->open--;
    if (g->base.conn && was_open) {
        g->in_engine++; /* telling may lose the client, which must not release the generation under us */
        tell(g, k);
        g->in_engine--;
    }
    generation_release_if_done(g);
}

/* Whose deadline passed: what could be computed for them now is of no use to anybody. */
void generation_expire(service *sv) {
    for (uint32_t slot = 0; slot < sv->requests.capacity; slot++) {
        generation *g = sv->requests.slots[slot].id ? sv->requests.slots[slot].owner : NULL;
        if (!g || !g->base.conn || g->base.fault || !is_too_late(g)) continue;
        fault_set(exchange_fault(&g->base), FAULT_DEADLINE, NULL,
                  "The deadline of %g ms passed before the answer was complete.", g->slo.deadline_ms);
        listener_touch(g->base.conn);
        fail(g); /* it is released when the engine has let go of it */
    }
}

void generation_drained(exchange *x) {
    generation *g = generation_of(x);
    if (x->kind->lost != generation_lost || !g->streaming) return;
    for (uint32_t i = 0; i < g->choice_count; i++) reply_stream_choice(g, &g->choices[i]);
}

/* ---- the operator's view ---- */
void generation_end(exchange *x, fault_kind kind) {
    (void)kind;
    if (x->kind->lost != generation_lost) return;
    listener_touch(x->conn);
    fail(generation_of(x));
    generation_release_if_done(generation_of(x));
}

void generation_describe(const exchange *x, buf *json) {
    const generation *g = (const generation *)x;
    if (x->kind->lost != generation_lost || !g->choices) return;
    uint64_t prompt = 0, output = 0;
    bool     begun = false;
    for (uint32_t i = 0; i < g->prompt_count; i++) prompt += g->prompts[i].count;
    for (uint32_t i = 0; i < g->choice_count; i++)
        output += g->choices[i].text.token_count, begun |= g->choices[i].first_us != 0;
    buf_printf(json,
               ",\"state\":\"%s\",\"stream\":%s,\"choices\":%u,\"priority\":%d,\"prompt_tokens\":%" PRIu64
               ",\"output_tokens\":%" PRIu64,
               !g->open ? "writing"
               : begun  ? "decoding"
                        : "waiting",
               g->answer.stream ? "true" : "false", g->choice_count, g->priority, prompt, output);
    if (g->slo.ttft_ms >= 0) buf_printf(json, ",\"ttft_target_ms\":%.6g", g->slo.ttft_ms);
    if (g->slo.tbt_ms >= 0) buf_printf(json, ",\"tbt_target_ms\":%.6g", g->slo.tbt_ms);
}

const exchange_kind chat_exchange = {sizeof(generation), ENDPOINT_CHAT,      generation_prepare, generation_finish,
                                     generation_lost,    generation_destroy, generation_admit};
const exchange_kind completion_exchange = {sizeof(generation), ENDPOINT_COMPLETION, generation_prepare, generation_finish,
                                           generation_lost,    generation_destroy,  generation_admit};
