/* scheduler/scheduler.c: construction, what comes from outside (submit, cancel), and the views. Read state.h first, then
 * plan.c and outcome.c. */
#include "scheduler/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/state.h"

/* ---- policies by number ---- */

static const order_api *const     orders[ORDER_COUNT] = {[ORDER_FCFS] = &order_fcfs};
static const admission_api *const admissions[ADMISSION_COUNT] = {
    [ADMISSION_GREEDY] = &admission_greedy, [ADMISSION_CONSERVATIVE] = &admission_conservative};
static const slicing_api *const slicings[SLICING_COUNT] = {
    [SLICING_CHUNKED] = &slicing_chunked, [SLICING_WHOLE] = &slicing_whole, [SLICING_LAYERED] = &slicing_layered};
static const reclaim_api *const   reclaims[RECLAIM_COUNT] = {[RECLAIM_RECOMPUTE] = &reclaim_recompute};
static const retention_api *const retentions[RETENTION_COUNT] = {[RETENTION_LRU] = &retention_lru};

/* ---- limits ---- */

static const struct {
    const char *name;
    size_t      offset;
    uint32_t    min, max;
} limits[] = {
#define LIMIT(name, min, max)                                                                                               \
    { #name, offsetof(scheduler_config, name), min, max }
    LIMIT(running_max, 1, 1 << 16),      LIMIT(waiting_max, 1, 1 << 24),  LIMIT(context_max, 2, 1 << 28),
    LIMIT(batch_tokens_max, 2, 1 << 22), LIMIT(chunk_tokens, 1, 1 << 22), LIMIT(page_count, 1, (1 << 30) - 1),
    LIMIT(page_tokens, 1, 1 << 12),      LIMIT(frame_count, 0, 1 << 16),  LIMIT(frame_tokens, 0, 1 << 22),
    LIMIT(op_count, 1, 1 << 20),
#undef LIMIT
};

static int check_limits(const scheduler_config *c, error *err) {
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        uint32_t value;
        memcpy(&value, (const char *)c + limits[i].offset, sizeof value);
        if (value < limits[i].min || value > limits[i].max)
            return error_set(err, ERR_INVALID, "scheduler: %s is %u; it must be from %u to %u", limits[i].name, value,
                             limits[i].min, limits[i].max);
    }
    if (c->batch_tokens_max <= c->running_max)
        return error_set(
            err, ERR_INVALID,
            "scheduler: batch_tokens_max (%u) must exceed running_max (%u), or decodes leave no row for prompts",
            c->batch_tokens_max, c->running_max);
    if ((c->frame_count == 0) != (c->frame_tokens == 0))
        return error_set(err, ERR_INVALID, "scheduler: %u frames of %u tokens make no sense; give both or neither",
                         c->frame_count, c->frame_tokens);
    return OK;
}

static int check_op_cuts(const scheduler_config *c, error *err) {
    if (c->op_cut_count > 0 && !c->op_cuts) return error_set(err, ERR_INVALID, "scheduler: op_cuts is missing");
    for (uint32_t i = 0; i < c->op_cut_count; i++)
        if (c->op_cuts[i] <= (i ? c->op_cuts[i - 1] : 0) || c->op_cuts[i] >= c->op_count)
            return error_set(err, ERR_INVALID, "scheduler: op_cuts[%u] is %u; cuts must rise and lie inside %u operators", i,
                             c->op_cuts[i], c->op_count);
    return OK;
}

static int check_policies(const scheduler_config *c, error *err) {
    const struct {
        const char *axis;
        size_t      value, count;
    } axes[] = {
        {"order", c->order, ORDER_COUNT},
        {"admission", c->admission, ADMISSION_COUNT},
        {"slicing", c->slicing, SLICING_COUNT},
        {"reclaim", c->reclaim, RECLAIM_COUNT},
        {"retention", c->retention, RETENTION_COUNT},
    };
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++)
        if (axes[i].value >= axes[i].count)
            return error_set(err, ERR_UNSUPPORTED, "scheduler: there is no %s policy number %zu", axes[i].axis,
                             axes[i].value);
    if (c->slicing == SLICING_LAYERED && c->frame_count == 0)
        return error_set(err, ERR_INVALID, "scheduler: layered slicing suspends prompts between layers and needs frames");
    return OK;
}

/* ---- construction ---- */

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Hands out all memory, or only adds it up. */
static void lay_out(scheduler *s, const scheduler_config *c, carver *m) {
    uint32_t running = c->running_max, all = c->waiting_max + running;
    s->config = *c;
    uint32_t *cuts = carve(m, c->op_cut_count, sizeof *cuts);
    if (cuts && c->op_cut_count > 0) memcpy(cuts, c->op_cuts, c->op_cut_count * sizeof *cuts);
    s->config.op_cuts = cuts;
    s->sequence_count = s->free_sequence_count = all;
    s->sequences = carve(m, all, sizeof *s->sequences);
    s->free_sequences = carve(m, all, sizeof *s->free_sequences);
    id_map_init(&s->ids, all, c->seed, m);
    waiting_init(&s->waiting, all, m);
    s->prefilling.sequences = carve(m, running, sizeof(uint32_t));
    s->decoding.sequences = carve(m, running, sizeof(uint32_t));
    s->free_slots = carve(m, running, sizeof *s->free_slots);
    s->free_slot_count = running;
    s->stairs = carve(m, running, sizeof *s->stairs);
    s->views = carve(m, running, sizeof *s->views);
    frame_pool_init(&s->frames, c->frame_count, c->frame_tokens, m);
    s->pass.slices = carve(m, c->batch_tokens_max, sizeof *s->pass.slices);
    s->pass.owners = carve(m, c->batch_tokens_max, sizeof *s->pass.owners);
    s->kv = kvcache_new(&(kvcache_config){.page_count = c->page_count,
                                          .page_tokens = c->page_tokens,
                                          .list_count = running,
                                          .list_pages_max = least(pages_for(s, c->context_max), c->page_count),
                                          .share = c->prefix_cache,
                                          .seed = c->seed,
                                          .retention = retentions[c->retention]},
                        m);
}

size_t scheduler_memory_bytes(const scheduler_config *c) {
    scheduler adding_up = {0};
    carver    m = {.used = CARVE_ALIGN}; /* to align what calloc gives */
    if (check_limits(c, NULL) != OK || check_policies(c, NULL) != OK) return 0;
    carve(&m, 1, sizeof adding_up);
    lay_out(&adding_up, c, &m);
    return m.used;
}

int scheduler_new(scheduler **out, const scheduler_config *c, error *err) {
    *out = NULL;
    int status = check_limits(c, err);
    if (status == OK) status = check_op_cuts(c, err);
    if (status == OK) status = check_policies(c, err);
    if (status != OK) return status;
    size_t bytes = scheduler_memory_bytes(c);
    check(bytes > 0);
    char *memory = bytes == SIZE_MAX ? NULL : calloc(1, bytes);
    if (!memory) return error_set(err, ERR_MEMORY, "scheduler: no memory for its %zu bytes; lower its limits", bytes);

    carver     m = {.memory = memory + CARVE_ALIGN - (uintptr_t)memory % CARVE_ALIGN};
    scheduler *s = carve(&m, 1, sizeof *s);
    lay_out(s, c, &m);
    s->memory = memory;
    s->order = orders[c->order];
    s->admission = admissions[c->admission];
    s->slicing = slicings[c->slicing];
    s->reclaim = reclaims[c->reclaim];
    s->candidate = NO_SEQUENCE;
    for (uint32_t i = 0; i < s->sequence_count; i++) s->free_sequences[i] = s->sequence_count - 1 - i;
    for (uint32_t i = 0; i < c->running_max; i++) s->free_slots[i] = c->running_max - 1 - i;
    *out = s;
    return OK;
}

void scheduler_free(scheduler *s) {
    if (s) free(s->memory);
}

/* ---- events from outside ---- */

static int check_size(const scheduler *s, const scheduler_request *r, error *err) {
    const scheduler_config *c = &s->config;
    uint64_t                total = (uint64_t)r->prompt_tokens + r->output_tokens_max;
    if (r->prompt_tokens == 0 || r->output_tokens_max == 0 || !r->tokens)
        return error_set(err, ERR_INVALID, "a request needs a prompt and room for output; this one has %u and %u tokens",
                         r->prompt_tokens, r->output_tokens_max);
    if (total > c->context_max)
        return error_set(err, ERR_TOO_LARGE,
                         "%u prompt and %u output tokens exceed the context of %u tokens; shorten the prompt or the output",
                         r->prompt_tokens, r->output_tokens_max, c->context_max);
    if (pages_for(s, (uint32_t)total - 1) > c->page_count)
        return error_set(
            err, ERR_TOO_LARGE, "%u prompt and %u output tokens need %u pages of %u tokens and the KV cache has %u",
            r->prompt_tokens, r->output_tokens_max, pages_for(s, (uint32_t)total - 1), c->page_tokens, c->page_count);
    if (c->waiting_tokens_max > 0 && r->prompt_tokens > c->waiting_tokens_max)
        return error_set(err, ERR_TOO_LARGE, "a prompt of %u tokens exceeds the %u that may wait", r->prompt_tokens,
                         c->waiting_tokens_max);
    return OK;
}

int scheduler_submit(scheduler *s, uint64_t now_us, const scheduler_request *r, error *err) {
    check(now_us >= s->now_us);
    s->now_us = now_us;
    int status = check_size(s, r, err);
    if (status == OK && id_map_find(&s->ids, r->id) != NO_SEQUENCE)
        status = error_set(err, ERR_INVALID, "a request with id %llu is live already", (unsigned long long)r->id);
    /* those that lost their memory count as waiting, and may push the queue over its bound; nobody new may */
    if (status == OK && s->waiting.count >= s->config.waiting_max)
        status = error_set(err, ERR_FULL, "%u requests wait already; come back later", s->waiting.count);
    if (status == OK && s->config.waiting_tokens_max > 0 &&
        s->waiting_tokens + r->prompt_tokens > s->config.waiting_tokens_max)
        status = error_set(err, ERR_FULL, "prompts of %llu tokens wait already; come back later",
                           (unsigned long long)s->waiting_tokens);
    if (status == OK) life_begin(s, r);
    else s->totals.refused++;
    return status;
}

bool scheduler_cancel(scheduler *s, uint64_t now_us, uint64_t id) {
    check(now_us >= s->now_us);
    s->now_us = now_us;
    uint32_t index = id_map_find(&s->ids, id);
    if (index == NO_SEQUENCE) return false;
    if (s->sequences[index].in_flight) {
        s->sequences[index].cancelled = true; /* outcome.c ends it */
        return true;
    }
    life_end(s, index);
    s->totals.cancelled++;
    return true;
}

void scheduler_drop_cache(scheduler *s) {
    candidate_clear(s);
    kvcache_drop(s->kv);
}

/* ---- views ---- */

bool scheduler_is_live(const scheduler *s, uint64_t id) { return id_map_find(&s->ids, id) != NO_SEQUENCE; }

const uint32_t *scheduler_pages(const scheduler *s, uint32_t slot, uint32_t *count) {
    check(slot < s->config.running_max);
    return kvcache_pages(s->kv, slot, count);
}

uint32_t scheduler_cached_tokens(const scheduler *s, uint32_t slot) {
    check(slot < s->config.running_max);
    return s->stairs[slot].cached;
}

bool scheduler_read_progress(const scheduler *s, uint64_t id, scheduler_progress *out) {
    uint32_t index = id_map_find(&s->ids, id);
    if (index == NO_SEQUENCE) return false;
    const sequence *q = &s->sequences[index];
    *out = (scheduler_progress){.running = is_running(q),
                                .slot = is_running(q) ? q->slot : 0,
                                .known_tokens = q->known,
                                .done_tokens = is_running(q) ? s->stairs[q->slot].done : 0,
                                .cached_tokens = q->cached,
                                .preemptions = q->preemptions,
                                .recomputed_tokens = q->recomputed};
    return true;
}

void scheduler_read_stats(const scheduler *s, scheduler_stats *out) {
    kvcache_counts pages = kvcache_count(s->kv);
    *out = s->totals;
    out->running = running_count(s);
    out->waiting = s->waiting.count;
    out->waiting_tokens = s->waiting_tokens;
    out->pages_total = pages.total, out->pages_free = pages.free;
    out->pages_cached = pages.kept, out->pages_held = pages.held;
    out->pages_evicted = pages.evicted;
    out->frames_used = s->frames.frame_count - s->frames.free_count;
}
