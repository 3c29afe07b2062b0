/* scheduler/stop.c: what may change while a pass runs: whether it should be stopped, and when to look again. */
#include "scheduler/state.h"

/* The slices of a pass lie in order of going first, so the first in the queue outranks all if it outranks the first. */
static bool is_outranked(const scheduler *s) {
    const uint32_t first = first_waiting(s);
    return first != NO_SEQUENCE && running_count(s) < s->config.running_max && s->records[first].arrival != s->refused &&
           runs_before(s, first, s->pass.owners[0].sequence);
}

stop_reason stop_reason_now(const scheduler *s, uint64_t now_us) {
    const pass *p = &s->pass;
    if (!p->in_flight || !p->stoppable || now_us < s->now_us) return STOP_NONE;
    return s->policies.preemption->stops(
        &(stop_view){.cancelled = p->cancelled > 0, .outranked = is_outranked(s), .token_due = now_us >= p->stop_us});
}

bool scheduler_should_stop(const scheduler *s, uint64_t now_us) { return stop_reason_now(s, now_us) != STOP_NONE; }

uint64_t scheduler_wake_us(const scheduler *s) {
    const heap_entry *first = heap_first(&s->due);
    const uint64_t    ranks_us = first ? first->key : UINT64_MAX;
    return s->pass.in_flight ? s->pass.stop_us : ranks_us;
}
