/* scheduler/outcome.c: what a pass that was walked, or stopped on its way, means for its sequences. */
#include "base/error.h"
#include "scheduler/state.h"

static void end_as(scheduler *s, uint32_t index, uint64_t *counter) {
    life_end(s, index, counter == &s->totals.finished);
    (*counter)++;
}

static void draw(scheduler *s, uint32_t index, const slice_outcome *o) {
    sequence *q = &s->sequences[index];
    check(s->stairs[q->slot].done == q->known);
    check(q->tokens[q->known] == o->token); /* appended before it is reported */
    q->known++;
    q->token_us = s->now_us;
    s->totals.generated_tokens++;
    check(o->finished || q->known < q->limit);
    if (o->finished) end_as(s, index, &s->totals.finished);
    else if (q->state == SEQUENCE_PREFILLING) life_decode(s, index);
}

/* After the last of a sequence's slices. `o`: what it drew, or NULL. */
static void settle(scheduler *s, uint32_t index, const slice_outcome *o) {
    sequence  *q = &s->sequences[index];
    staircase *st = &s->stairs[q->slot];
    kv_content content = content_of(q);
    if (st->open_count > 0) staircase_settle(st, s->config.model.op_count, &s->frames);
    kvcache_publish(s->kv, q->slot, &content, st->done);
    q->in_flight = false;
    if (q->cancelled) end_as(s, index, &s->totals.cancelled);
    else if (o) draw(s, index, o);
}

/* The rows of one slice got to where the pass ended, or to where the slice does. */
static void climb_to(scheduler *s, const slice *x, slice_owner owner, uint32_t op) {
    staircase *st = &s->stairs[x->slot];
    uint32_t   reached = op < x->op_end ? op : x->op_end;
    if (st->open_count == 0) { /* a decode */
        check(st->done == x->token_begin && reached == s->config.model.op_count);
        st->done = x->token_end;
        return;
    }
    segment *g = &st->open[owner.segment];
    check(g->token_begin == x->token_begin && g->token_end == x->token_end && g->op == x->op_begin);
    if (reached > g->op) g->op = reached;
}

/* What a stopped pass, which is prefill alone, did before operator `op`. */
static step_load load_until(const scheduler *s, uint32_t op) {
    step_load done = {0};
    for (uint32_t i = 0; i < s->pass.slice_count; i++) {
        const slice   *x = &s->pass.slices[i];
        const uint32_t end = op < x->op_end ? op : x->op_end;
        if (end > x->op_begin)
            step_load_add_prefill(&done, &s->config.model, x->token_begin, x->token_end, x->op_begin, end);
    }
    return done;
}

static void learn(scheduler *s, uint32_t op) {
    const pass     *p = &s->pass;
    const step_load done = op < s->config.model.op_count ? load_until(s, op) : p->load;
    step_model_learn(&s->steps, &done, s->now_us - p->planned_us);
    s->totals.passes_us += s->now_us - p->planned_us;
}

/* The device worked for all rows at once; each sequence, and its tenant, is charged its rows. Decodes, of which there are
 * many, have nothing lent: those of one tenant that stand together are charged together. */
static void charge(scheduler *s) {
    const pass  *p = &s->pass;
    const double us_per_row = (double)(s->now_us - p->planned_us) / (p->decode_rows + p->prefill_rows);
    double       owed_us = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        sequence    *q = &s->sequences[p->owners[i].sequence];
        const double us = us_per_row * (p->slices[i].token_end - p->slices[i].token_begin);
        q->service_us += (uint64_t)us;
        owed_us += us;
        if (i + 1 < p->decode_rows && s->sequences[p->owners[i + 1].sequence].tenant == q->tenant) continue;
        fair_charge(&s->tenants, q->tenant, owed_us, i < p->decode_rows ? NULL : &s->records[p->owners[i].sequence].lent);
        owed_us = 0;
    }
    fair_settle(&s->tenants);
    if (s->tenants.turns) life_sort_prefilling(s);
}

static void report(scheduler *s, uint64_t now_us, uint32_t op, const slice_outcome *outcomes) {
    pass *p = &s->pass;
    check(p->in_flight && now_us >= s->now_us);
    s->now_us = now_us;
    p->in_flight = false;
    learn(s, op);
    charge(s);
    for (uint32_t i = 0; i < p->slice_count; i++) {
        slice_owner owner = p->owners[i];
        climb_to(s, &p->slices[i], owner, op);
        bool last = i + 1 == p->slice_count || p->owners[i + 1].sequence != owner.sequence;
        if (last) settle(s, owner.sequence, p->slices[i].samples && outcomes ? &outcomes[i] : NULL);
    }
}

void scheduler_pass_done(scheduler *s, uint64_t now_us, const slice_outcome *outcomes) {
    check(outcomes);
    s->totals.passes_done++;
    report(s, now_us, s->config.model.op_count, outcomes);
}

void scheduler_pass_stopped(scheduler *s, uint64_t now_us, uint32_t op) {
    check(s->pass.stoppable && op > 0 && op < s->config.model.op_count);
    uint64_t *const   counters[STOP_REASONS] = {[STOP_CANCELLED] = &s->totals.stops_cancelled,
                                                [STOP_OUTRANKED] = &s->totals.stops_outranked,
                                                [STOP_TOKEN_DUE] = &s->totals.stops_token_due};
    const stop_reason reason = stop_reason_now(s, now_us);
    s->totals.passes_stopped++;
    if (reason != STOP_NONE) (*counters[reason])++; /* else the caller's own */
    report(s, now_us, op, NULL);
}
