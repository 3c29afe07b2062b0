/* scheduler/life.c: how a sequence moves between waiting, prefilling, decoding and gone; see state.h. */
#include <string.h>

#include "base/error.h"
#include "scheduler/state.h"

/* ---- sorted lists of running sequences ---- */

static bool list_before(const scheduler *s, const running_list *l, uint32_t a, uint32_t b) {
    return l == &s->decoding ? s->records[a].arrival < s->records[b].arrival : runs_before(s, a, b);
}

uint32_t running_list_find(const scheduler *s, const running_list *l, uint32_t index) {
    uint32_t low = 0, high = l->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (list_before(s, l, l->sequences[middle], index)) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void running_list_insert(scheduler *s, running_list *l, uint32_t index, uint32_t at) {
    check(running_count(s) < s->config.running_max && at <= l->count);
    memmove(l->sequences + at + 1, l->sequences + at, (l->count - at) * sizeof *l->sequences);
    l->sequences[at] = index;
    l->count++;
}

void running_list_add(scheduler *s, running_list *l, uint32_t index) {
    running_list_insert(s, l, index, running_list_find(s, l, index));
}

void running_list_remove(scheduler *s, running_list *l, uint32_t index) {
    uint32_t at = running_list_find(s, l, index);
    check(at < l->count && l->sequences[at] == index);
    l->count--;
    memmove(l->sequences + at, l->sequences + at + 1, (l->count - at) * sizeof *l->sequences);
}

/* By insertion: it is nearly sorted, as few turns change in a pass. */
void life_sort_prefilling(scheduler *s) {
    uint32_t *all = s->prefilling.sequences;
    for (uint32_t i = 1; i < s->prefilling.count; i++) {
        const uint32_t one = all[i];
        uint32_t       at = i;
        for (; at > 0 && runs_before(s, one, all[at - 1]); at--) all[at] = all[at - 1];
        all[at] = one;
    }
}

static running_list *list_of(scheduler *s, const sequence *q) {
    return q->state == SEQUENCE_DECODING ? &s->decoding : &s->prefilling;
}

/* ---- slots and pages ---- */

static void give_slot_back(scheduler *s, sequence *q) {
    check(q->slot < s->config.running_max);
    kvcache_release(s->kv, q->slot);
    s->free_slots[s->free_slot_count++] = q->slot;
    q->slot = NO_SLOT;
}

void candidate_clear(scheduler *s) {
    if (s->candidate == NO_SEQUENCE) return;
    give_slot_back(s, &s->sequences[s->candidate]);
    s->candidate = NO_SEQUENCE;
}

void candidate_set(scheduler *s, uint32_t index) {
    if (s->candidate == index) return;
    candidate_clear(s);
    sequence *q = &s->sequences[index];
    check(q->state == SEQUENCE_WAITING && q->slot == NO_SLOT && s->free_slot_count > 0);
    q->slot = s->free_slots[--s->free_slot_count];
    s->candidate = index;
}

/* ---- waiting ---- */

static void start_waiting(scheduler *s, uint32_t index) {
    s->sequences[index].state = SEQUENCE_WAITING;
    line_join(s, index);
    s->waiting_tokens += s->records[index].request.prompt_tokens;
}

static void stop_waiting(scheduler *s, uint32_t index) {
    line_stop_waiting(s, index);
    check(s->waiting_tokens >= s->records[index].request.prompt_tokens);
    s->waiting_tokens -= s->records[index].request.prompt_tokens;
}

void life_begin(scheduler *s, const scheduler_request *r) {
    check(s->free_sequence_count > 0);
    const uint32_t index = s->free_sequences[--s->free_sequence_count];
    check(s->sequences[index].state == SEQUENCE_FREE);
    s->sequences[index] = (sequence){.id = r->id,
                                     .salt = r->cache_salt,
                                     .tokens = r->tokens,
                                     .known = r->prompt_tokens,
                                     .limit = r->prompt_tokens + r->output_tokens_max,
                                     .slot = NO_SLOT,
                                     .tbt_us = r->slo.tbt_us > UINT32_MAX ? 0 : (uint32_t)r->slo.tbt_us};
    sequence_record *q = &s->records[index];
    /* the last token drawn is never computed: no place for it */
    *q = (sequence_record){.request = *r,
                           .arrival = ++s->arrivals,
                           .arrived_us = r->arrived_us == 0 || r->arrived_us > s->now_us ? s->now_us : r->arrived_us,
                           .pages_ever = pages_for(s, r->prompt_tokens + r->output_tokens_max - 1)};
    q->job = r->job.id ? jobs_enter(&s->jobs, r->job.id, q->arrival, q->arrived_us) : NO_JOB;
    retain_arrived(s, index);
    s->sequences[index].tenant = (uint16_t)fair_enter(&s->tenants, r->tenant.id, r->tenant.weight, q->arrival, s->now_us);
    id_map_add(&s->ids, r->id, index);
    start_waiting(s, index);
    s->totals.accepted++;
}

/* ---- running ---- */

/* Known when it is admitted, or once the copies that it then waits for are there. */
void life_found(scheduler *s, uint32_t index, uint32_t tokens) {
    sequence_record *r = &s->records[index];
    r->cached = tokens;
    if (r->lost > tokens) {
        r->recomputed += r->lost - tokens;
        s->totals.recomputed_tokens += r->lost - tokens;
    }
    r->lost = 0;
    if (r->preemptions == 0) {
        s->totals.prompt_tokens += r->request.prompt_tokens;
        s->totals.prompt_cached_tokens += tokens;
    }
    s->totals.cache_queried_tokens += s->sequences[index].known;
    s->totals.cache_hit_tokens += tokens;
}

/* Its turn is taken before it has cost anything. */
static void lend(scheduler *s, uint32_t index) {
    if (s->tenants.turns)
        s->records[index].lent = fair_lend(&s->tenants, s->sequences[index].tenant, (double)prompt_us(s, index));
}

void life_admit(scheduler *s, uint32_t index, uint32_t cached_tokens, uint32_t at) {
    sequence        *q = &s->sequences[index];
    sequence_record *r = &s->records[index];
    check(s->candidate == index && cached_tokens < q->known);
    stop_waiting(s, index);
    s->candidate = NO_SEQUENCE;
    s->stairs[q->slot] = (staircase){.done = cached_tokens, .cached = cached_tokens};
    q->state = SEQUENCE_PREFILLING;
    q->returning = false;
    uint32_t held;
    kvcache_pages(s->kv, q->slot, &held);
    s->promised += r->pages_ever - held;
    running_list_insert(s, &s->prefilling, index, at);
    lend(s, index);
    retain_admitted(s, index);
    outlook_add(s, index);
}

void life_decode(scheduler *s, uint32_t index) {
    sequence *q = &s->sequences[index];
    check(q->state == SEQUENCE_PREFILLING && s->stairs[q->slot].open_count == 0);
    running_list_remove(s, &s->prefilling, index);
    line_leave(s, index);
    q->state = SEQUENCE_DECODING;
    running_list_add(s, &s->decoding, index);
}

static void stop_running(scheduler *s, uint32_t index) {
    sequence *q = &s->sequences[index];
    check(is_running(q) && !q->in_flight);
    uint32_t held;
    kvcache_pages(s->kv, q->slot, &held);
    check(s->promised >= s->records[index].pages_ever - held);
    s->promised -= s->records[index].pages_ever - held;
    running_list_remove(s, list_of(s, q), index);
    outlook_remove(s, index);
    swap_stop(s, index);
    if (q->state == SEQUENCE_PREFILLING) line_leave(s, index);
    staircase_clear(&s->stairs[q->slot], &s->frames);
    give_slot_back(s, q);
}

void life_send_back(scheduler *s, uint32_t index) {
    sequence        *q = &s->sequences[index];
    sequence_record *r = &s->records[index];
    if (!q->arriving) r->lost = s->stairs[q->slot].done; /* else what it lost before has not come back */
    swap_out(s, index);
    r->preemptions++;
    q->returning = true;
    s->totals.preempted++;
    s->last_victim = r->arrival;
    stop_running(s, index);
    start_waiting(s, index);
}

/* An answer that its limit or its client cut off would have been longer. */
static void learn_length(scheduler *s, uint32_t index, bool finished) {
    const scheduler_request *r = &s->records[index].request;
    const uint32_t           said = s->sequences[index].known - r->prompt_tokens;
    length_model_learn(&s->lengths, r->tenant.id, said, finished && said < r->output_tokens_max);
}

void life_end(scheduler *s, uint32_t index, bool finished) {
    sequence      *q = &s->sequences[index];
    const uint32_t of = s->records[index].job;
    learn_length(s, index, finished);
    if (of != NO_JOB) jobs_leave(&s->jobs, of, s->now_us, finished);
    if (of != NO_JOB && finished && s->records[index].request.job.last_step)
        length_model_learn(&s->turns, 0, s->jobs.all[of].turns, true);
    if (finished) retain_turn(s, index);
    if (q->state == SEQUENCE_WAITING) {
        if (s->candidate == index) candidate_clear(s);
        swap_forget(s, index);
        stop_waiting(s, index);
        line_leave(s, index);
    } else {
        stop_running(s, index);
    }
    fair_leave(&s->tenants, q->tenant, s->now_us);
    id_map_remove(&s->ids, q->id);
    q->state = SEQUENCE_FREE;
    s->free_sequences[s->free_sequence_count++] = index;
}
