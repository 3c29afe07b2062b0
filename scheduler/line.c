/* scheduler/line.c: who goes before whom, among those who wait and those who prefill.
 *
 * Three questions, the outer one first. Whose tenant has the turn? (fair.h; only where tenants take turns.) Who is the
 * *elder* of its line? What does the order say of the two requests?
 *
 * Problem: an order that lets the urgent, the short or the valuable pass lets them pass for ever, and a server that has too
 * much to do always has somebody urgent. Ageing by the clock does not help then: when everybody is old the order is gone.
 * Choice: a share, not a time. When ELDER_EVERY have passed, since the last elder came in, somebody who had stood in the
 * line for longer (they got their token, or went away), and had ELDER_EVERY times the device time that its prompt will take,
 * who has stood in it longest becomes an elder: it goes before all who are none until it has its token. So whatever the
 * order does, a ninth of the device serves by age; and no more than that, for those who are passed are the long ones.
 * However little those had who passed, ELDER_MOST of them are enough. Bound: who joins behind n others has its first row, or
 * is gone, before (n + 1) x (ELDER_MOST + 1 + running_max) others have left the line: for each elder at most ELDER_MOST
 * leave before it, it leaves itself, and while it waits for memory, with nobody let in meanwhile, at most those who run.
 * Somebody always leaves: who goes first is let in as soon as those who run have ended, and of those the first has rows in
 * each pass. Orders that cannot pass anybody for ever (order.h: `bounded`) have no elders. */
#include "base/error.h"
#include "scheduler/state.h"

bool runs_before(const scheduler *s, uint32_t a, uint32_t b) {
    const sequence *x = &s->sequences[a], *y = &s->sequences[b];
    if (s->tenants.turns && x->tenant != y->tenant)
        return fair_before(&s->tenants, x->tenant, !is_running(x), y->tenant, !is_running(y));
    const heap_entry first = entry_of(s, a), second = entry_of(s, b);
    return heap_before(&first, &second);
}

/* ---- ranks ---- */

static void drop_rank(scheduler *s, uint32_t index) {
    if (heap_holds(&s->due, index)) heap_remove(&s->due, index);
}

/* A job of which nobody said that it is over is taken to have another turn, and as many as such jobs had. */
static uint32_t turns_left(scheduler *s, const sequence_record *r) {
    if (r->request.job.last_step) return 1;
    const uint32_t more = length_model_left(&s->turns, 0, s->jobs.all[r->job].turns + 1, 0.5);
    return 1 + (more == LENGTH_UNKNOWN ? 1 : more);
}

static uint64_t job_end_us(const scheduler *s, const sequence_record *r) {
    const uint64_t given_us = r->request.slo.job_deadline_us;
    if (r->job == NO_JOB || given_us == 0) return UINT64_MAX;
    const uint64_t from_us = s->jobs.all[r->job].arrived_us;
    return given_us < UINT64_MAX - from_us ? from_us + given_us : UINT64_MAX;
}

/* Asks the order. Class 0 is the elders'. Whoever calls this keeps the lists in order. */
static void take_rank(scheduler *s, uint32_t index) {
    const sequence  *q = &s->sequences[index];
    sequence_record *r = &s->records[index];
    const order_view view = {.request = &r->request,
                             .arrival = r->arrival,
                             .arrived_us = r->arrived_us,
                             .job_arrival = r->job == NO_JOB ? r->arrival : s->jobs.all[r->job].arrival,
                             .job_end_us = job_end_us(s, r),
                             .job_done = r->job == NO_JOB ? 0 : s->jobs.all[r->job].turns,
                             .job_left = r->job != NO_JOB && r->request.slo.job_deadline_us ? turns_left(s, r) : 1,
                             .job_pinned = r->job != NO_JOB && s->jobs.all[r->job].pinned_tokens > 0,
                             .known_tokens = q->known,
                             .done_tokens = is_running(q) ? s->stairs[q->slot].done : 0,
                             .running = is_running(q),
                             .returning = q->returning,
                             .service_us = q->service_us,
                             .steps = &s->steps,
                             .lengths = &s->lengths};
    drop_rank(s, index);
    r->rank = (order_rank){.key = r->arrival, .until_us = RANK_HOLDS};
    if (q->elder) return;
    r->rank = s->policies.order->rank(&s->config, &view, s->now_us);
    r->rank.class ++;
    if (r->rank.until_us != RANK_HOLDS) heap_add(&s->due, (heap_entry){0, index, r->rank.until_us, r->arrival});
}

void line_rejoin(scheduler *s, uint32_t index) {
    const bool waits = s->sequences[index].state == SEQUENCE_WAITING;
    line      *l = line_of(s, index);
    if (waits) forest_remove(&s->waiting, &l->first, index);
    else running_list_remove(s, &s->prefilling, index);
    take_rank(s, index);
    if (waits) forest_add(&s->waiting, &l->first, entry_of(s, index));
    else running_list_add(s, &s->prefilling, index);
}

void line_rerank(scheduler *s, uint32_t index) {
    if (s->sequences[index].state != SEQUENCE_DECODING) return line_rejoin(s, index);
    take_rank(s, index);
    drop_rank(s, index); /* it stands in no line: only whose memory is taken back depends on it */
}

void line_rank_due(scheduler *s) {
    for (int i = 0; i < RANKED_MAX; i++) {
        const heap_entry *first = heap_first(&s->due);
        if (!first || first->key > s->now_us) return;
        line_rejoin(s, first->item);
    }
}

/* ---- by age ---- */

static void grow_old(scheduler *s, line *l, uint32_t index) {
    sequence_record *r = &s->records[index];
    if (s->policies.order->bounded) return;
    r->older = l->newest, r->newer = NO_SEQUENCE;
    *(l->newest == NO_SEQUENCE ? &l->oldest : &s->records[l->newest].newer) = index;
    l->newest = index;
}

static void stop_growing_old(scheduler *s, line *l, uint32_t index) {
    const sequence_record *r = &s->records[index];
    *(r->older == NO_SEQUENCE ? &l->oldest : &s->records[r->older].newer) = r->newer;
    *(r->newer == NO_SEQUENCE ? &l->newest : &s->records[r->newer].older) = r->older;
}

/* One that runs already has no door to wait at. */
static void appoint_elder(scheduler *s, line *l) {
    const uint32_t elder = l->oldest;
    stop_growing_old(s, l, elder);
    s->sequences[elder].elder = true;
    s->totals.elders++;
    if (s->sequences[elder].state == SEQUENCE_WAITING) l->elder = elder;
    l->passed = 0, l->passed_us = 0;
    line_rejoin(s, elder);
}

uint64_t prompt_us(const scheduler *s, uint32_t index) {
    const sequence *q = &s->sequences[index];
    step_load       rest = {0};
    step_load_add_prefill(&rest, &s->config.model, is_running(q) ? s->stairs[q->slot].done : 0, q->known, 0,
                          s->config.model.op_count);
    return step_model_predict_us(&s->steps, &rest);
}

/* Elders have their share of the device, not only of the turns: one long prompt may be worth hundreds of short ones. */
static bool was_passed_enough(const scheduler *s, const line *l) {
    return l->passed >= ELDER_MOST || (l->passed >= ELDER_EVERY && l->passed_us >= ELDER_EVERY * prompt_us(s, l->oldest));
}

/* ---- joining and leaving ---- */

void line_join(scheduler *s, uint32_t index) {
    line          *l = line_of(s, index);
    const uint32_t whose = s->sequences[index].tenant;
    s->sequences[index].elder = false;
    grow_old(s, l, index);
    take_rank(s, index);
    forest_add(&s->waiting, &l->first, entry_of(s, index));
    s->waiting_count++;
    fair_stand(&s->tenants, whose, true, s->now_us);
    if (l->waiting++ > 0 || !s->tenants.turns) return;
    fair_wait(&s->tenants, whose, true, s->now_us);
    life_sort_prefilling(s); /* it may have been moved up to the clock */
}

void line_stop_waiting(scheduler *s, uint32_t index) {
    line *l = line_of(s, index);
    check(l->waiting > 0 && s->waiting_count > 0);
    forest_remove(&s->waiting, &l->first, index);
    if (l->elder == index) l->elder = NO_SEQUENCE;
    s->waiting_count--;
    if (--l->waiting == 0 && s->tenants.turns) fair_wait(&s->tenants, s->sequences[index].tenant, false, s->now_us);
}

void line_leave(scheduler *s, uint32_t index) {
    line *l = line_of(s, index);
    drop_rank(s, index);
    fair_repay(&s->tenants, s->sequences[index].tenant, &s->records[index].lent);
    fair_stand(&s->tenants, s->sequences[index].tenant, false, s->now_us);
    if (s->policies.order->bounded || s->sequences[index].elder) return;
    const bool passes = s->records[index].older != NO_SEQUENCE;
    stop_growing_old(s, l, index);
    if (!passes || l->elder != NO_SEQUENCE) return;
    l->passed++, l->passed_us += s->sequences[index].service_us;
    if (was_passed_enough(s, l)) appoint_elder(s, l);
}

static uint32_t check_age(const scheduler *s, const line *l) {
    uint32_t older = NO_SEQUENCE, count = 0;
    for (uint32_t i = l->oldest; i != NO_SEQUENCE; i = s->records[i].newer) {
        const sequence *q = &s->sequences[i];
        check((q->state == SEQUENCE_WAITING || q->state == SEQUENCE_PREFILLING) && !q->elder);
        check(s->records[i].older == older && s->records[i].rank.class > 0);
        older = i;
        count++;
    }
    check(l->newest == older);
    if (l->elder != NO_SEQUENCE) check(s->sequences[l->elder].elder && forest_holds(&s->waiting, l->elder));
    return count;
}

void line_check(const scheduler *s) {
    uint32_t waiting = 0, standing = 0;
    for (uint32_t i = 0; i < line_count(s); i++) {
        const line *l = &s->lines[i];
        check(forest_check(&s->waiting, l->first) == l->waiting && l->passed < ELDER_MOST);
        standing += check_age(s, l) + (l->elder != NO_SEQUENCE);
        if (s->tenants.turns) check(heap_holds(&s->tenants.ready, i) == (l->waiting > 0));
        waiting += l->waiting;
    }
    for (uint32_t i = 0; i < s->prefilling.count; i++) standing += s->sequences[s->prefilling.sequences[i]].elder;
    check(waiting == s->waiting_count);
    check(standing == (s->policies.order->bounded ? 0 : waiting + s->prefilling.count));
    heap_check(&s->due);
    fair_check(&s->tenants);
}
