#include "engine/requests.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/hash.h"

_Static_assert(MODEL_EOS_MAX + ENGINE_STOP_IDS_MAX <= BANNED_MAX, "every id that may end an answer can be banned");

/* ---- construction ---- */

static void lay_out(requests *q, carver *m) {
    q->table = carve(m, q->capacity, sizeof *q->table);
    q->free_list = carve(m, q->capacity, sizeof *q->free_list);
    q->cancelled = carve(m, 2 * (size_t)q->capacity, sizeof *q->cancelled);
    id_map_init(&q->ids, q->capacity, 0x70656E73746F636Bu, m);
}

size_t requests_memory_bytes(uint32_t capacity) {
    requests adding_up = {.capacity = capacity};
    carver   m = {.used = CARVE_ALIGN};
    lay_out(&adding_up, &m);
    return m.used;
}

static char *take_memory(size_t bytes) {
    char *memory = calloc(1, bytes);
    if (!memory) fatal("out of memory for a table of requests of %zu bytes", bytes);
    return memory;
}

void cond_init_monotonic(pthread_cond_t *c) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attributes);
    pthread_condattr_destroy(&attributes);
}

void requests_init(requests *q, uint32_t capacity) {
    *q = (requests){.capacity = capacity};
    char *memory = take_memory(requests_memory_bytes(capacity));
    q->memory = memory;
    carver m = {.memory = memory + CARVE_ALIGN - (uintptr_t)memory % CARVE_ALIGN};
    lay_out(q, &m);
    for (uint32_t i = 0; i < capacity; i++) q->free_list[q->free_count++] = &q->table[capacity - 1 - i];
    pthread_mutex_init(&q->lock, NULL);
    cond_init_monotonic(&q->kicked);
    cond_init_monotonic(&q->slept);
}

static void free_memory(engine_request *r) {
    free(r->tokens);
    free((void *)r->params.bias_ids);
    free((void *)r->params.bias_values);
}

void requests_destroy(requests *q) {
    for (uint32_t i = 0; i < q->capacity; i++)
        if (q->table[i].state != REQUEST_FREE) free_memory(&q->table[i].asked);
    pthread_cond_destroy(&q->kicked);
    pthread_cond_destroy(&q->slept);
    pthread_mutex_destroy(&q->lock);
    free(q->memory);
}

/* ---- what is let in ---- */

static int check_sampling(const sampling *p, const prompt_scores *scores, uint32_t vocab_size, error *err) {
    if (p->bias_count > LOGIT_BIAS_MAX)
        return error_set(err, ERR_INVALID, "logit_bias names %u tokens; at most %d are taken", p->bias_count,
                         LOGIT_BIAS_MAX);
    for (uint32_t i = 0; i < p->bias_count; i++) {
        if (p->bias_ids[i] >= vocab_size)
            return error_set(err, ERR_INVALID, "logit_bias names token %u; the vocabulary has %u", p->bias_ids[i],
                             vocab_size);
        if (!isfinite(p->bias_values[i])) return error_set(err, ERR_INVALID, "a logit_bias is not a finite number");
    }
    if (scores && scores->tops > TOP_LOGPROBS_MAX)
        return error_set(err, ERR_INVALID, "%u log-probabilities of the prompt were asked for; at most %d are given",
                         scores->tops, TOP_LOGPROBS_MAX);
    if (p->top_logprobs > TOP_LOGPROBS_MAX)
        return error_set(err, ERR_INVALID, "%d log-probabilities were asked for; at most %d are given", p->top_logprobs,
                         TOP_LOGPROBS_MAX);
    return OK;
}

static int check_size(const engine_request *r, const request_limits *l, error *err) {
    const uint64_t total = (uint64_t)r->prompt_tokens + r->output_tokens_max;
    if (total > l->context_max)
        return error_set(err, ERR_TOO_LARGE,
                         "%u prompt and %u output tokens are more than the context of %u tokens; shorten one of them",
                         r->prompt_tokens, r->output_tokens_max, l->context_max);
    if ((total - 1 + l->page_tokens - 1) / l->page_tokens > l->page_count) /* the last token is never written */
        return error_set(err, ERR_TOO_LARGE, "%u prompt and %u output tokens do not fit into the KV cache of %llu tokens",
                         r->prompt_tokens, r->output_tokens_max, (unsigned long long)l->page_count * l->page_tokens);
    if (l->waiting_tokens_max && r->prompt_tokens > l->waiting_tokens_max)
        return error_set(err, ERR_TOO_LARGE, "a prompt of %u tokens is more than the %u that may wait", r->prompt_tokens,
                         l->waiting_tokens_max);
    return OK;
}

static int check_request(const engine_request *r, const request_limits *l, error *err) {
    if (!r->tokens || r->prompt_tokens == 0) return error_set(err, ERR_INVALID, "the prompt has no tokens");
    if (r->output_tokens_max == 0) return error_set(err, ERR_INVALID, "no output tokens were asked for");
    if (r->stop_id_count > ENGINE_STOP_IDS_MAX)
        return error_set(err, ERR_INVALID, "%u stop ids were given; at most %d are taken", r->stop_id_count,
                         ENGINE_STOP_IDS_MAX);
    for (uint32_t i = 0; i < r->prompt_tokens; i++)
        if (r->tokens[i] >= l->vocab_size)
            return error_set(err, ERR_INVALID, "token %u of the prompt is %u; the vocabulary has %u", i, r->tokens[i],
                             l->vocab_size);
    const int status = check_size(r, l, err);
    return status == OK ? check_sampling(&r->params, r->scores, l->vocab_size, err) : status;
}

static int check_room(const requests *q, const engine_request *r, const request_limits *l, error *err) {
    if (q->refusal) return error_set(err, q->refusal_code, "%s", q->refusal);
    if (id_map_find(&q->ids, r->id) != NO_SEQUENCE)
        return error_set(err, ERR_INVALID, "a request with id %llu is running already", (unsigned long long)r->id);
    const uint32_t live = q->capacity - q->free_count;
    if (live >= l->requests_max || q->free_count == 0)
        return error_set(err, ERR_FULL, "%u requests wait or run already; come back later", live);
    return OK;
}

/* The ids that end an answer, so that they can be kept from being drawn too early. */
static void find_banned(request *r, const request_limits *l) {
    r->banned = r->asked.tokens + r->asked.prompt_tokens + r->asked.output_tokens_max;
    r->banned_count = 0;
    for (uint32_t i = 0; i < l->eos_count && !r->asked.ignore_eos; i++) r->banned[r->banned_count++] = l->eos_ids[i];
    for (uint32_t i = 0; i < r->asked.stop_id_count; i++) r->banned[r->banned_count + i] = r->asked.stop_ids[i];
    r->asked.stop_ids = r->banned + r->banned_count; /* the caller's go */
    r->banned_count += r->asked.stop_id_count;
}

static int class_of(int32_t priority) { return priority < 0 ? 0 : priority == 0 ? 1 : 2; }

static void set_fresh(requests *q, request *r, bool fresh) {
    if (r->fresh == fresh) return;
    const int class = class_of(r->asked.priority);
    r->fresh = fresh;
    if (fresh) {
        q->fresh_count[class]++;
        q->fresh_tokens[class] += r->asked.prompt_tokens;
    } else {
        q->fresh_count[class]--;
        q->fresh_tokens[class] -= r->asked.prompt_tokens;
    }
}

static void enqueue(requests *q, const engine_request *asked, uint64_t now_us, const request_limits *l) {
    request       *r = q->free_list[--q->free_count];
    const uint32_t index = (uint32_t)(r - q->table);
    r->key = ((r->key >> 32) + 1) << 32 | index;
    r->asked = *asked;
    r->state = REQUEST_QUEUED;
    r->output_tokens = 0;
    ledger_submitted(&r->ledger, &r->clock, asked->prompt_tokens, now_us);
    r->scored = 1; /* nothing comes before the first */
    r->score_corrupt = false;
    r->cancel_wanted = r->in_pass = r->leaves_pass = false;
    r->next = NULL;
    find_banned(r, l);
    set_fresh(q, r, true);
    id_map_add(&q->ids, asked->id, index);
    if (q->queue_tail) q->queue_tail->next = r;
    else q->queue_head = r;
    q->queue_tail = r;
    q->queue_count++;
    q->queue_tokens += asked->prompt_tokens;
}

static void kick(requests *q) {
    q->kicks++;
    pthread_cond_broadcast(&q->kicked);
}

int requests_put(requests *q, engine_request *r, uint64_t now_us, const request_limits *limits, error *err) {
    int status = check_request(r, limits, err);
    if (status != OK) return status;
    const size_t room = (size_t)r->prompt_tokens + r->output_tokens_max + limits->eos_count + r->stop_id_count;
    uint32_t    *tokens = realloc(r->tokens, room * sizeof *tokens);
    if (!tokens)
        return error_set(err, ERR_FULL, "there is no memory for %u more tokens; come back later", r->output_tokens_max);
    r->tokens = tokens;
    pthread_mutex_lock(&q->lock);
    status = check_room(q, r, limits, err);
    if (status == OK) {
        enqueue(q, r, now_us, limits);
        kick(q);
    }
    pthread_mutex_unlock(&q->lock);
    return status;
}

void requests_cancel(requests *q, uint64_t id) {
    pthread_mutex_lock(&q->lock);
    const uint32_t index = id_map_find(&q->ids, id);
    if (index != NO_SEQUENCE && !q->table[index].cancel_wanted) {
        request *r = &q->table[index];
        r->cancel_wanted = true;
        check(q->cancelled_count < 2 * q->capacity);
        q->cancelled[(q->cancelled_begin + q->cancelled_count++) % (2 * q->capacity)] = r;
        kick(q);
    }
    pthread_mutex_unlock(&q->lock);
}

void requests_refuse(requests *q, int code, const char *why) {
    pthread_mutex_lock(&q->lock);
    q->refusal_code = code;
    q->refusal = why;
    kick(q);
    pthread_mutex_unlock(&q->lock);
}

void requests_kick(requests *q) {
    pthread_mutex_lock(&q->lock);
    kick(q);
    pthread_mutex_unlock(&q->lock);
}

bool requests_end_job(requests *q, uint64_t job) {
    pthread_mutex_lock(&q->lock);
    const bool room = q->ended_job_count < ENDED_JOBS_MAX;
    if (room) q->ended_jobs[q->ended_job_count++] = job, kick(q);
    pthread_mutex_unlock(&q->lock);
    return room;
}

/* ---- the engine thread ---- */

uint64_t requests_next_ended_job(requests *q) {
    pthread_mutex_lock(&q->lock);
    const uint64_t job = q->ended_job_count ? q->ended_jobs[--q->ended_job_count] : 0;
    pthread_mutex_unlock(&q->lock);
    return job;
}

static void leave_queue(requests *q, request *r, request *before) {
    if (before) before->next = r->next;
    else q->queue_head = r->next;
    if (q->queue_tail == r) q->queue_tail = before;
    r->next = NULL;
    q->queue_count--;
    q->queue_tokens -= r->asked.prompt_tokens;
}

request *requests_next_new(requests *q) {
    pthread_mutex_lock(&q->lock);
    request *r = q->queue_head;
    if (r) {
        leave_queue(q, r, NULL);
        r->state = REQUEST_LIVE;
        /* until the scheduler's own figures are told again */
        q->scheduler_waiting++;
        q->scheduler_waiting_tokens += r->asked.prompt_tokens;
    }
    pthread_mutex_unlock(&q->lock);
    return r;
}

void requests_put_back(requests *q, request *r) {
    pthread_mutex_lock(&q->lock);
    r->state = REQUEST_QUEUED;
    r->next = q->queue_head;
    q->queue_head = r;
    if (!q->queue_tail) q->queue_tail = r;
    q->queue_count++;
    q->queue_tokens += r->asked.prompt_tokens;
    q->scheduler_waiting--;
    q->scheduler_waiting_tokens -= r->asked.prompt_tokens;
    pthread_mutex_unlock(&q->lock);
}

/* A cancelled request of the queue is looked for from its front: the queue is short except when all of it is cancelled. */
static void leave_queue_anywhere(requests *q, request *r) {
    request *before = NULL;
    for (request *i = q->queue_head; i != r; i = i->next) before = i;
    leave_queue(q, r, before);
}

request *requests_next_cancelled(requests *q) {
    request *found = NULL;
    pthread_mutex_lock(&q->lock);
    while (q->cancelled_count > 0 && !found) {
        request *r = q->cancelled[q->cancelled_begin];
        q->cancelled_begin = (q->cancelled_begin + 1) % (2 * q->capacity);
        q->cancelled_count--;
        if (!r->cancel_wanted || r->state == REQUEST_FREE) continue; /* it ended by itself */
        r->cancel_wanted = false;
        if (r->state == REQUEST_QUEUED) leave_queue_anywhere(q, r);
        found = r;
    }
    pthread_mutex_unlock(&q->lock);
    return found;
}

void requests_began(requests *q, request *r) { set_fresh(q, r, false); }

void requests_release(requests *q, request *r) {
    set_fresh(q, r, false);
    free_memory(&r->asked);
    pthread_mutex_lock(&q->lock);
    id_map_remove(&q->ids, r->asked.id);
    r->state = REQUEST_FREE;
    r->cancel_wanted = false;
    q->free_list[q->free_count++] = r;
    pthread_mutex_unlock(&q->lock);
}

void requests_tell_waiting(requests *q, uint32_t count, uint64_t tokens) {
    pthread_mutex_lock(&q->lock);
    q->scheduler_waiting = count;
    q->scheduler_waiting_tokens = tokens;
    pthread_mutex_unlock(&q->lock);
}

request *requests_by_key(requests *q, uint64_t key) {
    request *r = &q->table[(uint32_t)key];
    check(r->key == key && r->state == REQUEST_LIVE);
    return r;
}

uint64_t requests_kicks(const requests *q) { return atomic_load_explicit(&q->kicks, memory_order_acquire); }

void requests_wait(requests *q, uint64_t seen_kicks) {
    pthread_mutex_lock(&q->lock);
    q->idle = true;
    pthread_cond_broadcast(&q->slept);
    while (q->kicks == seen_kicks) pthread_cond_wait(&q->kicked, &q->lock);
    q->idle = false;
    pthread_mutex_unlock(&q->lock);
}

/* ---- other threads ---- */

void requests_fresh_before(const requests *q, int32_t priority, uint32_t *count, uint64_t *tokens) {
    *count = 0, *tokens = 0;
    for (int class = 0; class <= class_of(priority); class ++) {
        *count += q->fresh_count[class];
        *tokens += q->fresh_tokens[class];
    }
}

void requests_waiting(const requests *q, uint32_t *count, uint64_t *tokens) {
    *count = q->queue_count + q->scheduler_waiting;
    *tokens = q->queue_tokens + q->scheduler_waiting_tokens;
}

bool requests_hold_idle(requests *q) {
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_sec++;
    pthread_mutex_lock(&q->lock);
    while (!q->idle)
        if (pthread_cond_timedwait(&q->slept, &q->lock, &due) != 0) break;
    const bool idle = q->idle;
    if (!idle) pthread_mutex_unlock(&q->lock);
    return idle;
}

void requests_let_go(requests *q) { pthread_mutex_unlock(&q->lock); }
