/* scheduler/scheduler.c: construction, what comes from outside (submit, cancel), and the views. Read state.h first, then
 * plan.c and outcome.c. */
#include "scheduler/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/state.h"

/* ---- construction ---- */

enum { JOBS_MAX = 4096, LENGTH_CLASSES = 64, TENANTS_MAX = 256 };

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Hands out all memory, or only adds it up. */
static void lay_out(scheduler *s, const scheduler_config *c, carver *m) {
    uint32_t running = c->running_max, all = c->waiting_max + running;
    s->config = *c;
    uint32_t *cuts = carve(m, c->model.op_cut_count, sizeof *cuts);
    if (cuts && c->model.op_cut_count > 0) memcpy(cuts, c->model.op_cuts, c->model.op_cut_count * sizeof *cuts);
    s->config.model.op_cuts = cuts;
    s->policies = policies_of(c);
    s->sequence_count = s->free_sequence_count = all;
    s->sequences = carve(m, all, sizeof *s->sequences);
    s->records = carve(m, all, sizeof *s->records);
    s->free_sequences = carve(m, all, sizeof *s->free_sequences);
    id_map_init(&s->ids, all, c->seed, m);
    forest_init(&s->waiting, all, m);
    heap_init(&s->due, all, m);
    s->prefilling.sequences = carve(m, running, sizeof(uint32_t));
    s->decoding.sequences = carve(m, running, sizeof(uint32_t));
    s->free_slots = carve(m, running, sizeof *s->free_slots);
    s->free_slot_count = running;
    s->stairs = carve(m, running, sizeof *s->stairs);
    jobs_init(&s->jobs, c->jobs_max ? c->jobs_max : JOBS_MAX, c->seed, m);
    retain_init(&s->retain, c->jobs_max ? c->jobs_max : JOBS_MAX, m);
    fair_init(&s->tenants, c->fair.turns, c->fair.tenants_max ? c->fair.tenants_max : TENANTS_MAX, c->page_count, c->seed,
              m);
    s->lines = carve(m, line_count(s), sizeof *s->lines);
    swap_init(&s->swap, c, m);
    length_model_init(&s->lengths, LENGTH_CLASSES, m);
    length_model_init(&s->turns, 0, m);
    forecast_init(&s->forecast, running + 1, c->page_tokens, m);
    s->expected = carve(m, running, sizeof *s->expected);
    step_model_init(&s->steps, &s->config.model);
    frame_pool_init(&s->frames, c->frame_count, c->frame_tokens, m);
    s->pass.slices = carve(m, c->batch_tokens_max, sizeof *s->pass.slices);
    s->pass.owners = carve(m, c->batch_tokens_max, sizeof *s->pass.owners);
    s->kv = kvcache_new(&(kvcache_config){.page_count = c->page_count,
                                          .page_tokens = c->page_tokens,
                                          .list_count = running,
                                          .list_pages_max = least(pages_for(s, c->context_max), c->page_count),
                                          .share = c->retention.prefix_cache,
                                          .seed = c->seed,
                                          .retention = s->policies.retention},
                        m);
}

size_t scheduler_memory_bytes(const scheduler_config *c) {
    scheduler adding_up = {0};
    carver    m = {.used = CARVE_ALIGN}; /* to align what calloc gives */
    if (scheduler_config_check(c, NULL) != OK) return 0;
    carve(&m, 1, sizeof adding_up);
    lay_out(&adding_up, c, &m);
    return m.used;
}

int scheduler_new(scheduler **out, const scheduler_config *c, error *err) {
    *out = NULL;
    int status = scheduler_config_check(c, err);
    if (status != OK) return status;
    size_t bytes = scheduler_memory_bytes(c);
    check(bytes > 0);
    char *memory = bytes == SIZE_MAX ? NULL : calloc(1, bytes);
    if (!memory) return error_set(err, ERR_MEMORY, "scheduler: no memory for its %zu bytes; lower its limits", bytes);

    carver     m = {.memory = memory + CARVE_ALIGN - (uintptr_t)memory % CARVE_ALIGN};
    scheduler *s = carve(&m, 1, sizeof *s);
    lay_out(s, c, &m);
    s->memory = memory;
    s->candidate = NO_SEQUENCE;
    retain_start(&s->retain);
    swap_start(&s->swap, c);
    for (uint32_t i = 0; i < s->sequence_count; i++) s->free_sequences[i] = s->sequence_count - 1 - i;
    for (uint32_t i = 0; i < c->running_max; i++) s->free_slots[i] = c->running_max - 1 - i;
    for (uint32_t i = 0; i < line_count(s); i++)
        s->lines[i] = (line){.first = NO_ITEM, .oldest = NO_SEQUENCE, .newest = NO_SEQUENCE, .elder = NO_SEQUENCE};
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
    if (status == OK && s->waiting_count >= s->config.waiting_max)
        status = error_set(err, ERR_FULL, "%u requests wait already; come back later", s->waiting_count);
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
        s->pass.cancelled += !s->sequences[index].cancelled;
        s->sequences[index].cancelled = true; /* outcome.c ends it */
        return true;
    }
    life_end(s, index, false);
    s->totals.cancelled++;
    return true;
}

bool scheduler_set_priority(scheduler *s, uint64_t now_us, uint64_t id, int32_t priority) {
    check(now_us >= s->now_us);
    s->now_us = now_us;
    const uint32_t index = id_map_find(&s->ids, id);
    if (index == NO_SEQUENCE) return false;
    s->records[index].request.priority = priority;
    line_rerank(s, index);
    return true;
}

void scheduler_drop_cache(scheduler *s) {
    candidate_clear(s);
    retain_drop_all(s);
    kvcache_drop(s->kv);
    swap_drop(s);
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
    const sequence        *q = &s->sequences[index];
    const sequence_record *r = &s->records[index];
    *out = (scheduler_progress){.running = is_running(q),
                                .slot = is_running(q) ? q->slot : 0,
                                .known_tokens = q->known,
                                .done_tokens = is_running(q) ? s->stairs[q->slot].done : 0,
                                .cached_tokens = r->cached,
                                .preemptions = r->preemptions,
                                .recomputed_tokens = r->recomputed};
    return true;
}

bool scheduler_read_job(const scheduler *s, uint64_t id, scheduler_job_view *out) {
    const uint32_t index = jobs_find(&s->jobs, id);
    if (index == NO_JOB) return false;
    const job *j = &s->jobs.all[index];
    const pin *p = &s->retain.pins[index];
    *out = (scheduler_job_view){.arrived_us = j->arrived_us,
                                .live = j->live,
                                .turns = j->turns,
                                .pinned_tokens = retain_holds(s, index) ? p->pages * s->config.page_tokens : 0,
                                .pinned_until_us = retain_holds(s, index) ? p->until_us : 0};
    return true;
}

void scheduler_read_stats(const scheduler *s, scheduler_stats *out) {
    kvcache_counts pages = kvcache_count(s->kv);
    *out = s->totals;
    out->running = running_count(s);
    out->waiting = s->waiting_count;
    out->waiting_tokens = s->waiting_tokens;
    out->pages_total = pages.total, out->pages_free = pages.free;
    out->pages_cached = pages.kept, out->pages_held = pages.held;
    out->pages_evicted = pages.evicted;
    out->step_error_share = s->steps.error_share;
    out->jobs = s->jobs.ids.count;
    out->pins = s->retain.ends.count;
    out->pages_pinned = kvcache_pinned_pages(s->kv);
    out->host_pages_total = s->config.reclaim.host_pages;
    out->host_pages_used = host_tier_used(&s->swap.host), out->host_pages_held = host_tier_held(&s->swap.host);
    out->copies_open = s->swap.open_count, out->swapped = s->swap.swapped, out->arriving = s->swap.arriving;
    out->page_copy_us = s->swap.copy_us;
    out->tenants = s->tenants.live_count;
    out->jain = fair_jain(&s->tenants, s->now_us);
    out->frames_used = s->frames.frame_count - s->frames.free_count;
}
