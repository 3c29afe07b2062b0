/* scheduler/check.c: the invariants of state.h, walked in full. */
#include "base/error.h"
#include "scheduler/state.h"

static void check_place(const scheduler *s, uint32_t index) {
    const sequence        *q = &s->sequences[index];
    const sequence_record *r = &s->records[index];
    bool                   waits = q->state == SEQUENCE_WAITING;
    check(forest_holds(&s->waiting, index) == waits);
    check(waits ? (q->slot != NO_SLOT) == (s->candidate == index) : q->slot < s->config.running_max);
    check(id_map_find(&s->ids, q->id) == index && q->id == r->request.id && q->tokens == r->request.tokens);
    check(q->limit == r->request.prompt_tokens + r->request.output_tokens_max);
    check(q->known >= r->request.prompt_tokens && q->known < q->limit);
    check(heap_holds(&s->due, index) == (q->state != SEQUENCE_DECODING && r->rank.until_us != RANK_HOLDS));
    check(r->job == NO_JOB || s->jobs.all[r->job].id == r->request.job.id);
    check(!q->cancelled || q->in_flight);
    check(!q->in_flight || (s->pass.in_flight && is_running(q)));
    check(q->returning ? waits && r->preemptions > 0 : !waits || r->preemptions == 0);
}

static uint64_t check_running(const scheduler *s, uint32_t index) {
    const sequence  *q = &s->sequences[index];
    const uint32_t   pages_ever = s->records[index].pages_ever;
    const staircase *st = &s->stairs[q->slot];
    uint32_t         held;
    kvcache_pages(s->kv, q->slot, &held);
    staircase_check(st, q->known, s->config.model.op_count, &s->frames);
    check(kvcache_shared_tokens(s->kv, q->slot) <= st->done); /* only what crossed all layers is shared */
    check(st->cached <= st->done && staircase_end(st) <= (uint64_t)held * s->config.page_tokens);
    check(q->state == SEQUENCE_PREFILLING ? st->done < q->known : st->done + 1 == q->known && st->open_count == 0);
    if (!s->pass.in_flight)
        for (uint32_t i = 0; i < st->open_count; i++) check(st->open[i].op > 0);
    check(held <= pages_ever);
    return pages_ever - held;
}

static void check_sequences(const scheduler *s) {
    uint32_t free = 0, waiting = 0, running = 0;
    uint64_t promised = 0, waiting_tokens = 0;
    for (uint32_t i = 0; i < s->sequence_count; i++) {
        const sequence *q = &s->sequences[i];
        free += q->state == SEQUENCE_FREE;
        if (q->state == SEQUENCE_FREE) continue;
        check_place(s, i);
        if (q->state == SEQUENCE_WAITING) {
            waiting++;
            waiting_tokens += s->records[i].request.prompt_tokens;
        } else {
            running++;
            promised += check_running(s, i);
        }
    }
    check(free == s->free_sequence_count && waiting == s->waiting_count && running == running_count(s));
    check(s->ids.count == waiting + running);
    check(promised == s->promised && waiting_tokens == s->waiting_tokens);
    check(s->totals.accepted == s->totals.finished + s->totals.cancelled + waiting + running);
}

static void check_list(const scheduler *s, const running_list *l, sequence_state state) {
    for (uint32_t i = 0; i < l->count; i++) {
        check(s->sequences[l->sequences[i]].state == state);
        check(running_list_find(s, l, l->sequences[i]) == i); /* sorted */
    }
}

/* Segments in a frame = its users, and no two lie on the same rows. */
static void check_frames(const scheduler *s) {
    uint32_t users = 0, counted = 0, free = 0;
    for (uint32_t f = 0; f < s->frames.frame_count; f++) {
        users += s->frames.users[f];
        free += s->frames.users[f] == 0;
    }
    for (uint32_t i = 0; i < s->prefilling.count; i++) {
        const staircase *st = &s->stairs[s->sequences[s->prefilling.sequences[i]].slot];
        for (uint32_t k = 0; k < st->open_count; k++) counted += st->open[k].place.frame != NO_FRAME;
    }
    check(users == counted && free == s->frames.free_count);
}

static void check_slots(const scheduler *s) {
    check(s->free_slot_count + running_count(s) + (s->candidate != NO_SEQUENCE) == s->config.running_max);
    for (uint32_t i = 0; i < s->free_slot_count; i++) {
        uint32_t pages;
        kvcache_pages(s->kv, s->free_slots[i], &pages);
        check(pages == 0);
    }
}

static void check_slices(const scheduler *s) {
    const pass *p = &s->pass;
    for (uint32_t i = 0; i < p->slice_count && p->in_flight; i++) {
        const sequence *q = &s->sequences[p->owners[i].sequence];
        check(is_running(q) && q->in_flight && q->slot == p->slices[i].slot && q->id == p->slices[i].id);
    }
}

void scheduler_check(const scheduler *s) {
    kvcache_check(s->kv);
    line_check(s);
    jobs_check(&s->jobs);
    retain_check(s);
    swap_check(s);
    check_sequences(s);
    check_list(s, &s->prefilling, SEQUENCE_PREFILLING);
    check_list(s, &s->decoding, SEQUENCE_DECODING);
    check_frames(s);
    check_slots(s);
    check_slices(s);
}
