#include "scheduler/swap.h"

#include <string.h>

#include "base/error.h"
#include "scheduler/state.h"

enum { COPIES_MAX = 4096 };
#define COPY_US 100.0 /* of a page, where nobody knows better */
#define MEASURED_WEIGHT 0.02

void swap_init(swapper *w, const scheduler_config *c, carver *m) {
    *w = (swapper){.copies_max = c->reclaim.copies_max ? c->reclaim.copies_max : COPIES_MAX};
    if (c->reclaim.policy == RECLAIM_RECOMPUTE) w->copies_max = 0;
    host_tier_init(&w->host, c->reclaim.host_pages, c->page_tokens, c->seed, m);
    w->records = carve(m, w->copies_max, sizeof *w->records);
    w->planned = carve(m, w->copies_max, sizeof *w->planned);
    w->touched_by = carve(m, w->copies_max ? c->page_count : 0, sizeof *w->touched_by);
    w->held_by = carve(m, c->reclaim.host_pages, sizeof *w->held_by);
}

void swap_start(swapper *w, const scheduler_config *c) {
    host_tier_start(&w->host);
    w->copy_us = c->reclaim.page_copy_us > 0 ? c->reclaim.page_copy_us : COPY_US;
}

void swap_begin_plan(scheduler *s) { s->swap.planned_count = 0; }

/* ---- the queue ---- */

static uint32_t room(const swapper *w) { return w->copies_max - w->open_count; }

/* Ids go round the places, so the next place may still be taken by a copy that others have overtaken. */
static uint64_t next_id(swapper *w) {
    check(w->open_count < w->copies_max);
    do w->last_id++;
    while (w->records[w->last_id % w->copies_max].copy.id != 0);
    return w->last_id;
}

static uint64_t queue_copy(scheduler *s, bool to_host, uint32_t page, uint32_t host_page) {
    swapper        *w = &s->swap;
    const page_copy copy = {next_id(w), to_host, page, host_page};
    w->records[copy.id % w->copies_max] = (copy_record){.copy = copy, .queued_us = s->now_us};
    w->planned[w->planned_count++] = copy;
    w->touched_by[page] = copy.id;
    w->open_count++;
    return copy.id;
}

uint64_t swap_touches(const scheduler *s, uint32_t slot, uint32_t token_begin, uint32_t token_end) {
    uint64_t newest = 0;
    uint32_t count;
    if (s->swap.open_count == 0) return 0;
    const uint32_t *pages = kvcache_pages(s->kv, slot, &count);
    for (uint32_t i = token_begin / s->config.page_tokens; i <= (token_end - 1) / s->config.page_tokens; i++)
        if (s->swap.touched_by[pages[i]] > newest) newest = s->swap.touched_by[pages[i]];
    return newest;
}

/* ---- what it would cost ---- */

static bool swaps(const scheduler *s, uint32_t pages_out, uint32_t pages_in, uint32_t token_begin, uint32_t token_end) {
    step_load load = {0};
    step_load_add_prefill(&load, &s->config.model, token_begin, token_end, 0, s->config.model.op_count);
    return s->policies.reclaim->swaps(&(swap_view){.pages_out = pages_out,
                                                   .pages_in = pages_in,
                                                   .copy_us = s->swap.copy_us,
                                                   .queue_us = s->swap.open_count * s->swap.copy_us,
                                                   .compute_us = step_model_predict_us(&s->steps, &load)});
}

/* Of copies that wait for each other only the time since the last one is their own. */
static void learn_copy(scheduler *s, const copy_record *c) {
    swapper       *w = &s->swap;
    const uint64_t from_us = c->queued_us > w->reported_us ? c->queued_us : w->reported_us;
    w->copy_us += MEASURED_WEIGHT * ((double)(s->now_us - from_us) - w->copy_us);
    w->reported_us = s->now_us;
}

/* ---- out ---- */

static uint32_t pages_to_copy(const scheduler *s, const kv_content *of, uint32_t pages) {
    uint32_t host = NO_PAGE, i = 0;
    for (; i < pages; i++) {
        const uint32_t next = host_tier_find(&s->swap.host, host, of, i);
        if (next == NO_PAGE) break;
        host = next;
    }
    return pages - i; /* about: some before may have failed */
}

/* Of what it shares, which is all that crossed the operators and fills pages, and what lies on the host beyond that: the
 * longest beginning for which there is room, there and in the queue. */
static uint32_t take_chain(scheduler *s, const kv_content *of, uint32_t shared, uint32_t known, uint32_t *count) {
    host_tier *h = &s->swap.host;
    uint32_t   tail = NO_PAGE, left = room(&s->swap);
    for (*count = 0; *count < known; ++*count) {
        uint32_t next;
        if (*count < shared) {
            next = host_tier_take(h, tail, of, *count);
            if (next == NO_PAGE) break;
            if (host_tier_state(h, next) == HOST_EMPTY && left-- == 0) {
                host_tier_let_go(h, next);
                break;
            }
        } else {
            next = host_tier_find(h, tail, of, *count);
            if (next == NO_PAGE || host_tier_state(h, next) != HOST_CLEAN) break;
            host_tier_hold(h, next);
        }
        tail = next;
    }
    return tail;
}

void swap_out(scheduler *s, uint32_t index) {
    const sequence  *q = &s->sequences[index];
    sequence_record *r = &s->records[index];
    host_tier       *h = &s->swap.host;
    const kv_content content = content_of(q);
    const uint32_t   shared = kvcache_shared_tokens(s->kv, q->slot) / s->config.page_tokens;
    const uint32_t   known = (q->known - 1) / s->config.page_tokens; /* the newest token is computed again in any case */
    uint32_t         held;
    check(r->host_pages == 0 && shared <= known);
    if (!s->policies.reclaim->swaps || known == 0 || r->request.computes_all) return;
    if (!swaps(s, pages_to_copy(s, &content, shared), shared, 0, shared * s->config.page_tokens + 1)) return;
    r->host_tail = take_chain(s, &content, shared, known, &r->host_pages);
    s->swap.swapped += r->host_pages > 0;
    const uint32_t *pages = kvcache_pages(s->kv, q->slot, &held);
    uint32_t        i = r->host_pages;
    for (uint32_t page = r->host_tail; page != NO_PAGE; page = host_tier_before(h, page)) {
        if (--i >= shared) continue;
        if (host_tier_state(h, page) != HOST_EMPTY) {
            s->totals.swap_clean_pages++;
            continue;
        }
        host_tier_fill(h, page, queue_copy(s, true, pages[i], page));
        s->totals.swap_out_pages++;
    }
}

void swap_forget(scheduler *s, uint32_t index) {
    sequence_record *r = &s->records[index];
    if (r->host_pages == 0) return;
    host_tier_release(&s->swap.host, r->host_tail);
    r->host_pages = 0;
    s->swap.swapped--;
}

void swap_drop(scheduler *s) { host_tier_drop(&s->swap.host); }

/* ---- in ---- */

/* Queues copies of the host pages from the tail, number count - 1, down to number `from`. */
static void fetch(scheduler *s, uint32_t index, uint32_t tail, uint32_t count, uint32_t from) {
    sequence        *q = &s->sequences[index];
    sequence_record *r = &s->records[index];
    const uint32_t   most = from + room(&s->swap); /* beyond: computed */
    uint32_t         held;
    const uint32_t  *pages = kvcache_pages(s->kv, q->slot, &held);
    r->fetch_first = s->swap.last_id + 1, r->fetch_open = 0;
    r->fetched_pages = count < most ? count : most;
    for (uint32_t page = tail, i = count; i-- > from; page = host_tier_before(&s->swap.host, page)) {
        if (i >= r->fetched_pages) continue;
        copy_record *c = &s->swap.records[queue_copy(s, false, pages[i], page) % s->swap.copies_max];
        c->sequence = index, c->place = i, c->arrival = r->arrival;
        r->fetch_open++;
    }
    if (r->fetch_open == 0) return;
    q->arriving = true;
    s->swap.arriving++;
    s->totals.swap_in_pages += r->fetch_open;
}

void swap_in(scheduler *s, uint32_t index, uint32_t cached_tokens) {
    const sequence  *q = &s->sequences[index];
    const host_tier *h = &s->swap.host;
    const kv_content content = content_of(q);
    const uint32_t   page_tokens = s->config.page_tokens, from = cached_tokens / page_tokens;
    const uint32_t   most = (q->known - 1) / page_tokens;
    uint32_t         tail = NO_PAGE, count = 0;
    if (!s->policies.reclaim->swaps || s->records[index].request.computes_all) return;
    for (; count < most; count++) {
        const uint32_t next = host_tier_find(h, tail, &content, count);
        if (next == NO_PAGE || host_tier_state(h, next) != HOST_CLEAN) break;
        tail = next;
    }
    swap_forget(s, index); /* they are still there: nothing takes a host page before the copies are queued */
    if (count > from && swaps(s, 0, count - from, cached_tokens, count * page_tokens)) fetch(s, index, tail, count, from);
}

/* The last copy is there, or given up: what arrived in one piece is done. */
static void land(scheduler *s, uint32_t index) {
    sequence        *q = &s->sequences[index];
    sequence_record *r = &s->records[index];
    staircase       *st = &s->stairs[q->slot];
    const kv_content content = content_of(q);
    const uint32_t   tokens = r->fetched_pages * s->config.page_tokens;
    q->arriving = false;
    s->swap.arriving--;
    if (tokens > st->done) {
        s->totals.swap_in_tokens += tokens - st->done;
        st->done = st->cached = tokens;
        kvcache_publish(s->kv, q->slot, &content, tokens);
    }
    life_found(s, index, st->done);
    line_rejoin(s, index);
}

void swap_stop(scheduler *s, uint32_t index) {
    if (!s->sequences[index].arriving) return;
    s->sequences[index].arriving = false;
    s->swap.arriving--;
}

static void arrived(scheduler *s, const copy_record *c, bool ok) {
    const uint32_t   index = c->sequence;
    sequence_record *r = &s->records[index];
    if (!s->sequences[index].arriving || r->arrival != c->arrival || c->copy.id < r->fetch_first) return;
    if (!ok && c->place < r->fetched_pages) r->fetched_pages = c->place;
    if (--r->fetch_open == 0) land(s, index);
}

void scheduler_copy_done(scheduler *s, uint64_t now_us, uint64_t id, bool ok) {
    swapper *w = &s->swap;
    check(now_us >= s->now_us && w->copies_max > 0);
    s->now_us = now_us;
    copy_record      *place = &w->records[id % w->copies_max];
    const copy_record c = *place;
    check(id != 0 && c.copy.id == id);
    place->copy.id = 0;
    w->open_count--;
    if (w->touched_by[c.copy.page] == id) w->touched_by[c.copy.page] = 0;
    s->totals.swap_failed_pages += !ok;
    learn_copy(s, &c);
    if (c.copy.to_host) host_tier_filled(&w->host, c.copy.host_page, id, ok);
    else arrived(s, &c, ok);
}

/* ---- invariants ---- */

static void check_copies(const scheduler *s) {
    const swapper *w = &s->swap;
    uint32_t       open = 0;
    for (uint32_t i = 0; i < w->copies_max; i++) {
        const page_copy *c = &w->records[i].copy;
        if (c->id == 0) continue;
        open++;
        check(c->id % w->copies_max == i && c->id <= w->last_id);
        check(c->page < s->config.page_count && c->host_page < s->config.reclaim.host_pages);
        check(w->touched_by[c->page] >= c->id);
        if (w->host.filled_by[c->host_page] == c->id) check(c->to_host);
    }
    check(open == w->open_count);
    for (uint32_t page = 0; page < s->config.page_count && w->copies_max > 0; page++)
        if (w->touched_by[page]) check(w->records[w->touched_by[page] % w->copies_max].copy.id == w->touched_by[page]);
}

void swap_check(const scheduler *s) {
    const swapper *w = &s->swap;
    uint32_t       arriving = 0, swapped = 0;
    memset(w->held_by, 0, s->config.reclaim.host_pages * sizeof *w->held_by);
    for (uint32_t i = 0; i < s->sequence_count; i++) {
        const sequence        *q = &s->sequences[i];
        const sequence_record *r = &s->records[i];
        if (q->state == SEQUENCE_FREE) continue;
        uint32_t pages = 0;
        for (uint32_t page = r->host_tail; r->host_pages > 0 && page != NO_PAGE; page = host_tier_before(&w->host, page))
            w->held_by[page]++, pages++;
        check(pages == r->host_pages && (pages == 0 || q->state == SEQUENCE_WAITING));
        check(!q->arriving || (q->state == SEQUENCE_PREFILLING && !q->in_flight && r->fetch_open > 0));
        arriving += q->arriving, swapped += pages > 0;
    }
    check(arriving == w->arriving && swapped == w->swapped);
    for (uint32_t page = 0; page < s->config.reclaim.host_pages; page++)
        if (w->host.filled_by[page])
            check(w->records[w->host.filled_by[page] % w->copies_max].copy.id == w->host.filled_by[page]);
    check_copies(s);
    host_tier_check(&w->host, w->held_by);
}
