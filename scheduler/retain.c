#include "scheduler/retain.h"

#include "base/error.h"
#include "base/hash.h"
#include "scheduler/state.h"

enum { PINS_PERCENT = 50, TENANT_PINS_PERCENT = 50, EXPIRED_MAX = 32 };
#define TTL_US 2000000u
#define ADDED_WEIGHT 0.05
#define REUSE_WEIGHT 0.5 /* of the grade: 0.5 of how unlikely it is to be used again, 0.2 of its size */
#define SIZE_WEIGHT 0.2
#define LEAVES_SHARE 0.05 /* of the turns: no other follows, unsaid */
#define FADE_S 30.0       /* of the price */

static uint64_t or_default(uint64_t value, uint64_t standard) { return value ? value : standard; }
static bool     pins_at_all(const scheduler *s) { return s->config.retention.policy != RETENTION_LRU; }

/* Two passes: sizes, then what is not zero. */
void retain_init(retainer *r, uint32_t job_count, carver *c) {
    *r = (retainer){.job_count = job_count};
    r->pins = carve(c, job_count, sizeof *r->pins);
    r->tenant_pages = carve(c, PIN_TENANTS, sizeof *r->tenant_pages);
    r->tenant_ids = carve(c, PIN_TENANTS, sizeof *r->tenant_ids);
    heap_init(&r->ends, job_count, c);
    heap_init(&r->youngest, job_count, c);
    return_model_init(&r->returns, c);
}

void retain_start(retainer *r) {
    for (uint32_t i = 0; i < r->job_count; i++) r->pins[i].tail = NO_PAGE;
}

/* Tenants that find no place of their own share one, so that nobody mints budgets. */
static uint32_t tenant_place(retainer *r, uint64_t id) {
    const uint32_t from = (uint32_t)hash_u64(&id, sizeof id, 0);
    for (uint32_t i = 0; i < PIN_TENANTS; i++) {
        const uint32_t at = (from + i) % PIN_TENANTS;
        if (r->tenant_ids[at] == 0) r->tenant_ids[at] = id + 1;
        if (r->tenant_ids[at] == id + 1) return at;
    }
    return from % PIN_TENANTS;
}

/* ---- on and off ---- */

bool retain_holds(const scheduler *s, uint32_t place) { return place != NO_JOB && s->retain.pins[place].tail != NO_PAGE; }

/* `how`: the counter of pins that ended so. */
static void drop(scheduler *s, uint32_t place, uint64_t *how) {
    pin *p = &s->retain.pins[place];
    if (p->tail == NO_PAGE) return;
    ++*how;
    kvcache_grade(s->kv, p->grade);
    kvcache_unpin(s->kv, p->tail);
    heap_remove(&s->retain.ends, place), heap_remove(&s->retain.youngest, place);
    s->retain.pages -= p->pages, s->retain.tenant_pages[p->tenant] -= p->pages;
    fair_unpin(&s->tenants, p->payer, p->pages, s->now_us);
    p->tail = NO_PAGE, p->pages = 0;
    s->jobs.all[place].pinned_tokens = 0;
}

static void put(scheduler *s, uint32_t place, const sequence *q, uint32_t of, uint64_t until_us) {
    pin *p = &s->retain.pins[place];
    p->tail = kvcache_pin(s->kv, q->slot, &p->pages);
    p->until_us = until_us, p->tenant = of, p->payer = q->tenant;
    fair_pin(&s->tenants, p->payer, p->pages, s->now_us);
    s->jobs.all[place].pinned_tokens = p->pages * s->config.page_tokens;
    s->retain.pages += p->pages, s->retain.tenant_pages[of] += p->pages;
    heap_add(&s->retain.ends, (heap_entry){0, place, until_us, place});
    heap_add(&s->retain.youngest, (heap_entry){0, place, UINT64_MAX - s->jobs.all[place].arrival, place});
}

bool retain_give_way(scheduler *s) {
    const heap_entry *first = heap_first(&s->retain.youngest);
    if (!first) return false;
    drop(s, first->item, &s->totals.pins_broken);
    return true;
}

void retain_drop_all(scheduler *s) {
    for (const heap_entry *first; (first = heap_first(&s->retain.ends)) != NULL;)
        drop(s, first->item, &s->totals.pins_dropped);
}

/* ---- time ---- */

/* A turn that waits by then keeps its job's pin: it is late, but it is there. */
static void expire(scheduler *s) {
    for (int i = 0; i < EXPIRED_MAX; i++) {
        const heap_entry *first = heap_first(&s->retain.ends);
        if (!first || first->key > s->now_us) return;
        const heap_entry e = *first;
        if (s->jobs.all[e.item].live == 0) {
            drop(s, e.item, &s->totals.pins_expired);
        } else { /* looked at again in a second */
            heap_remove(&s->retain.ends, e.item);
            heap_add(&s->retain.ends, (heap_entry){0, e.item, s->now_us + 1000000, e.tie});
        }
    }
}

/* Seconds that the queue waited for memory, to the part of it that was pinned; and seconds of pins. */
static void follow_price(scheduler *s, double seconds) {
    retainer    *r = &s->retain;
    const double fade = seconds < FADE_S ? 1 - seconds / FADE_S : 0;
    r->waited_s *= fade, r->pinned_s *= fade;
    r->pinned_s += seconds * r->ends.count;
    const double share = (double)r->pages / s->config.page_count;
    if (s->refused) r->waited_s += seconds * s->waiting_count * (share < 1 ? share : 1);
}

static double price(const retainer *r) { return r->pinned_s > 0 ? r->waited_s / r->pinned_s : 0; }

void retain_tick(scheduler *s) {
    retainer *r = &s->retain;
    if (r->ends.count > 0) follow_price(s, (double)(s->now_us - r->ticked_us) * 1e-6);
    r->ticked_us = s->now_us;
    expire(s);
}

/* ---- turns ---- */

/* A place in jobs may be another job's by now: the one before is over, as far as anybody can tell. */
static void take_entry(scheduler *s, uint32_t place) {
    pin *p = &s->retain.pins[place];
    if (p->job == s->jobs.all[place].id) return;
    drop(s, place, &s->totals.pins_dropped);
    if (p->turns > 0) return_model_job(&s->retain.returns, p->turns);
    *p = (pin){.tail = NO_PAGE, .job = s->jobs.all[place].id};
}

void retain_arrived(scheduler *s, uint32_t index) {
    const sequence_record *q = &s->records[index];
    if (q->job == NO_JOB || !pins_at_all(s)) return;
    take_entry(s, q->job);
    const job *j = &s->jobs.all[q->job];
    const pin *p = &s->retain.pins[q->job];
    if (p->turns > 0 && q->request.prompt_tokens > p->known)
        s->retain.added_tokens += ADDED_WEIGHT * (q->request.prompt_tokens - p->known - s->retain.added_tokens);
    if (j->turns > 0 && j->live == 1 && q->arrived_us >= j->ended_us)
        return_model_gap(&s->retain.returns, p->tool, q->arrived_us - j->ended_us);
}

void retain_admitted(scheduler *s, uint32_t index) {
    const sequence_record *q = &s->records[index];
    if (q->job == NO_JOB || !pins_at_all(s)) return;
    if (retain_holds(s, q->job)) {
        drop(s, q->job, &s->totals.pins_hit);
    } else if (s->jobs.all[q->job].turns > 0 && q->preemptions == 0) {
        return_model_wait(&s->retain.returns, s->now_us - q->arrived_us);
    }
}

/* What computing so many tokens again would take; 0: not known yet. */
static double reload_s(const scheduler *s, uint32_t tokens) {
    step_load l = {0};
    step_load_add_prefill(&l, &s->config.model, 0, tokens, 0, s->config.model.op_count);
    return (double)step_model_predict_us(&s->steps, &l) * 1e-6;
}

/* What a client says wins over what is guessed. A gap that it expects is waited for, with some grace, if that pays. */
static uint64_t ttl_us(const scheduler *s, const request_job *j, uint32_t tokens) {
    const retention_config *c = &s->config.retention;
    const retainer         *r = &s->retain;
    if (j->last_step) return 0;
    if (j->ttl_us) return j->ttl_us;
    if (j->expected_gap_us && c->ttl_fitted) {
        const double worth_s = r->returns.wait_s * return_model_eta(&r->returns) + reload_s(s, tokens);
        if (worth_s < (1 + price(r)) * (double)j->expected_gap_us * 1e-6) return 0;
    }
    if (j->expected_gap_us) return j->expected_gap_us + j->expected_gap_us / 4 + 500000;
    if (c->ttl_fitted) return return_model_choose_us(&r->returns, j->tool, reload_s(s, tokens), price(r));
    return or_default(c->ttl_us, TTL_US);
}

static bool in_budget(const scheduler *s, uint32_t of, uint64_t pages) {
    const retainer         *r = &s->retain;
    const retention_config *c = &s->config.retention;
    const uint64_t          all = or_default(c->pins_percent, PINS_PERCENT) * s->config.page_count / 100;
    const uint64_t          own = or_default(c->tenant_pins_percent, TENANT_PINS_PERCENT) * s->config.page_count / 100;
    return r->pages + pages <= all && r->tenant_pages[of] + pages <= own;
}

/* A turn that is followed by another will use all of it, but for what the other adds. Who has no job may come back or not.
 */
static uint32_t grade_of(const scheduler *s, const sequence_record *r, uint32_t tokens) {
    const double back = (1 - LEAVES_SHARE) * tokens / (tokens + s->retain.added_tokens);
    const double reuse = r->job == NO_JOB ? 0.5 : r->request.job.last_step ? 0 : back;
    const double size = (double)tokens / s->config.context_max;
    const double part = (REUSE_WEIGHT * (1 - reuse) + SIZE_WEIGHT * size) / (REUSE_WEIGHT + SIZE_WEIGHT);
    return (uint32_t)(part * (GRADES - 1) + 0.5);
}

void retain_turn(scheduler *s, uint32_t index) {
    const sequence        *q = &s->sequences[index];
    const sequence_record *record = &s->records[index];
    if (!pins_at_all(s) || !is_running(q)) return;
    const uint32_t grade = grade_of(s, record, q->known);
    if (record->job == NO_JOB) {
        kvcache_grade(s->kv, grade);
        return;
    }
    const request_job *j = &record->request.job;
    pin               *p = &s->retain.pins[record->job];
    const uint32_t     pages = kvcache_shared_tokens(s->kv, q->slot) / s->config.page_tokens;
    drop(s, record->job, &s->totals.pins_dropped); /* of a turn beside this one */
    p->tool = j->tool, p->turns++, p->known = q->known, p->grade = grade;
    const uint32_t of = tenant_place(&s->retain, record->request.tenant.id);
    const uint64_t ttl = pages ? ttl_us(s, j, q->known) : 0;
    if (ttl > 0 && in_budget(s, of, pages)) {
        s->totals.pins_made++;
        put(s, record->job, q, of, ttl < UINT64_MAX - s->now_us ? s->now_us + ttl : UINT64_MAX);
    } else if (ttl > 0) {
        s->totals.pins_refused++;
    }
    kvcache_grade(s->kv, grade); /* of what is released now */
    if (j->last_step) {
        return_model_job(&s->retain.returns, p->turns);
        p->turns = 0;
    }
}

/* ---- from outside ---- */

bool scheduler_end_job(scheduler *s, uint64_t now_us, uint64_t id) {
    check(now_us >= s->now_us);
    s->now_us = now_us;
    const uint32_t index = jobs_find(&s->jobs, id);
    if (index == NO_JOB) return false;
    drop(s, index, &s->totals.pins_dropped);
    if (s->jobs.all[index].live > 0) return true; /* what still runs goes on, and may be pinned again */
    length_model_learn(&s->turns, 0, s->jobs.all[index].turns, true);
    if (s->retain.pins[index].job == id && s->retain.pins[index].turns > 0)
        return_model_job(&s->retain.returns, s->retain.pins[index].turns);
    s->retain.pins[index] = (pin){.tail = NO_PAGE};
    jobs_forget(&s->jobs, index);
    return true;
}

/* ---- invariants ---- */

void retain_check(const scheduler *s) {
    const retainer *r = &s->retain;
    uint64_t        pages = 0, of_tenants = 0;
    uint32_t        pins = 0;
    heap_check(&r->ends), heap_check(&r->youngest);
    for (uint32_t i = 0; i < r->job_count; i++) {
        const pin *p = &r->pins[i];
        check(heap_holds(&r->ends, i) == (p->tail != NO_PAGE) && heap_holds(&r->youngest, i) == (p->tail != NO_PAGE));
        if (p->tail == NO_PAGE) continue;
        check(p->pages > 0 && p->job == s->jobs.all[i].id && jobs_find(&s->jobs, p->job) == i);
        pins++, pages += p->pages;
    }
    for (uint32_t i = 0; i < PIN_TENANTS; i++) of_tenants += r->tenant_pages[i];
    const scheduler_stats *t = &s->totals;
    check(t->pins_made == pins + t->pins_hit + t->pins_expired + t->pins_broken + t->pins_dropped);
    check(pages == r->pages && of_tenants == r->pages && kvcache_pin_count(s->kv) == pins);
}
