/* scheduler/plan.c: one function composes the five axes into the next pass.
 *
 *     every decode gets its row            who goes last gives memory back where there is none to grow, and reclaim says
 * what becomes of it; preemption may let all of them wait for prompts, and be stopped in time for them then prompts, in
 * order               those that run and the queue, merged; slicing says how much of each piece at the head of the queue
 * admission says yes or no; after the first no nobody else is asked (no bypass) then frames                          a pass
 * of prefill alone can be stopped if every slice has a place to go
 *
 * Decodes come first and prefill only takes what slicing allows beside them, so a prompt that joins stalls nobody. Every
 * loop is bounded by running_max (its square when memory is taken back) or by the pages of one sequence. */
#include <string.h>

#include "base/error.h"
#include "scheduler/state.h"

/* ---- decodes ---- */

/* Room for the sequence's first `tokens` tokens. */
static bool grow(scheduler *s, const sequence *q, uint32_t tokens) {
    uint32_t held;
    kvcache_pages(s->kv, q->slot, &held);
    if (tokens <= (uint64_t)held * s->config.page_tokens) return true; /* nearly always */
    uint32_t pages = pages_for(s, tokens);
    if (!kvcache_grow(s->kv, q->slot, pages)) return false;
    check(s->promised >= pages - held);
    s->promised -= pages - held;
    return true;
}

/* The first in the queue gives up a page that it found in the cache and nobody else holds. */
static bool take_from_queue(scheduler *s) {
    return s->candidate != NO_SEQUENCE && kvcache_shorten(s->kv, s->sequences[s->candidate].slot);
}

/* Room for the row that each decode computes now. Who is sent back may be one that had its room, so it starts again. */
static void grow_decodes(scheduler *s) {
    for (uint32_t i = 0; i < s->decoding.count;) {
        const sequence *q = &s->sequences[s->decoding.sequences[i]];
        if (grow(s, q, q->known)) {
            i++;
        } else if (!take_from_queue(s) && !retain_give_way(s)) {
            check(running_count(s) >= 2); /* one alone always fits: submit refused what does not */
            life_send_back(s, reclaim_victim(s));
            i = 0;
        }
    }
}

static slice *add_slice(scheduler *s, uint32_t index, uint32_t segment_index) {
    pass     *p = &s->pass;
    sequence *q = &s->sequences[index];
    slice    *x = &p->slices[p->slice_count];
    check(!q->cancelled && p->slice_count < s->config.batch_tokens_max);
    p->owners[p->slice_count++] = (slice_owner){index, segment_index};
    q->in_flight = true;
    x->id = q->id;
    x->slot = q->slot;
    return x;
}

/* The slice writes these positions: not before copies of what their pages held. */
static void wait_for_copies(scheduler *s, const slice *x) {
    const uint64_t newest = swap_touches(s, x->slot, x->token_begin, x->token_end);
    if (newest > s->pass.waits_for) s->pass.waits_for = newest;
}

/* When its client wants the next token. */
static uint64_t token_due_us(const sequence *q) {
    return q->tbt_us == 0 || q->token_us > NO_DUE - q->tbt_us ? NO_DUE : q->token_us + q->tbt_us;
}

static void add_decodes(scheduler *s) {
    for (uint32_t i = 0; i < s->decoding.count; i++) {
        sequence *q = &s->sequences[s->decoding.sequences[i]];
        check(s->stairs[q->slot].done + 1 == q->known && s->stairs[q->slot].open_count == 0);
        check(kvcache_is_writable(s->kv, q->slot, q->known - 1, q->known));
        slice *x = add_slice(s, s->decoding.sequences[i], 0);
        x->token_begin = q->known - 1, x->token_end = q->known;
        x->op_begin = 0, x->op_end = s->config.model.op_count;
        x->frame_in = x->frame_out = (frame_place){NO_FRAME, 0};
        x->samples = true;
        wait_for_copies(s, x);
        step_load_add_decode(&s->pass.load, &s->config.model, x->token_begin);
        const uint64_t due_us = token_due_us(q);
        if (due_us < s->pass.due_us) s->pass.due_us = due_us;
    }
    s->pass.decode_rows = s->decoding.count;
}

/* May all decodes wait for a pass of prefill alone? Then the pass is told when to stop for them. */
static bool decodes_wait(scheduler *s) {
    const preemption_api *policy = s->policies.preemption;
    step_load             load = {0};
    uint64_t              due_us = NO_DUE;
    if (!policy->waits || s->decoding.count == 0 || s->prefilling.count + s->waiting_count == 0 || s->frames.free_count == 0)
        return false;
    for (uint32_t i = 0; i < s->decoding.count; i++) {
        const sequence *q = &s->sequences[s->decoding.sequences[i]];
        const uint64_t  own_us = token_due_us(q);
        if (own_us == NO_DUE) return false;
        if (own_us < due_us) due_us = own_us;
        step_load_add_decode(&load, &s->config.model, q->known - 1);
    }
    const wait_view v = {.left_us = due_us > s->now_us ? due_us - s->now_us : 0,
                         .decode_us = step_model_predict_us(&s->steps, &load)};
    if (!policy->waits(&s->config, &v)) return false;
    s->pass.stop_us = due_us - v.decode_us - v.decode_us / 4; /* a quarter for what the prediction may be wrong by */
    return true;
}

/* A stop waits for the operator that runs: two of the mean length, for they are not equal. */
static void leave_time_to_stop(scheduler *s) {
    pass          *p = &s->pass;
    const uint64_t margin_us = 2 * step_model_predict_us(&s->steps, &p->load) / (p->load.op_end - p->load.op_begin);
    const uint64_t left_us = p->stop_us - s->now_us;
    p->stop_us -= margin_us < left_us ? margin_us : left_us;
}

/* They cannot wait after all: their rows go before those of the prompts. */
static void let_decodes_join(scheduler *s) {
    pass          *p = &s->pass;
    const uint32_t prompts = p->slice_count, decodes = s->decoding.count;
    memmove(p->slices + decodes, p->slices, prompts * sizeof *p->slices);
    memmove(p->owners + decodes, p->owners, prompts * sizeof *p->owners);
    p->slice_count = 0;
    add_decodes(s);
    p->slice_count += prompts;
    p->beside = p->stoppable = false;
    p->stop_us = NO_DUE;
}

/* ---- frames ---- */

/* Reserves rows for a slice that may end early; the slices of a pass share frames. */
static bool place_rows(scheduler *s, uint32_t rows, frame_place *out) {
    frame_place *next = &s->pass.free_rows;
    if (rows > s->config.frame_tokens) return false;
    if (next->frame != NO_FRAME && rows <= s->config.frame_tokens - next->row) {
        frame_join(&s->frames, next->frame);
    } else {
        uint32_t frame = frame_take(&s->frames);
        if (frame == NO_FRAME) return false;
        *next = (frame_place){frame, 0};
    }
    *out = *next;
    next->row += rows;
    return true;
}

static segment *segment_of(scheduler *s, uint32_t slice_index) {
    slice_owner o = s->pass.owners[slice_index];
    return &s->stairs[s->sequences[o.sequence].slot].open[o.segment];
}

/* A pass of prefill alone may be stopped at any operator if each slice has a place for its rows. All or nothing. */
static bool make_stoppable(scheduler *s) {
    pass *p = &s->pass;
    if (p->decode_rows > 0 || p->crowded) return false;
    uint32_t placed = 0;
    bool     all = true;
    for (; placed < p->slice_count && all; placed++) {
        segment *g = segment_of(s, placed);
        if (g->place.frame == NO_FRAME) all = place_rows(s, g->token_end - g->token_begin, &g->place);
        p->slices[placed].frame_out = g->place;
    }
    for (uint32_t i = 0; i < placed && !all; i++) { /* undo: an uncut slice keeps no place */
        segment *g = segment_of(s, i);
        if (g->op > 0 || p->slices[i].op_end < s->config.model.op_count) continue;
        frame_leave(&s->frames, g->place.frame);
        g->place = p->slices[i].frame_out = (frame_place){NO_FRAME, 0};
    }
    return all;
}

/* ---- prefill ---- */

static uint32_t rows_left(const scheduler *s) {
    uint32_t rows = s->config.batch_tokens_max - s->decoding.count; /* decodes that wait keep their rows */
    if (s->pass.beside && rows > s->config.frame_tokens) rows = s->config.frame_tokens;
    return rows - s->pass.prefill_rows;
}

/* Asks the slicing policy; false: the pass takes no more. */
static bool next_cut(const scheduler *s, const prefill_piece *piece, prefill_cut *cut) {
    const pass *p = &s->pass;
    pass_budget budget = {.decode_rows = p->decode_rows,
                          .prefill_rows = p->prefill_rows,
                          .rows_left = rows_left(s),
                          .left_us = p->due_us == NO_DUE     ? NO_DUE
                                     : p->due_us > s->now_us ? p->due_us - s->now_us
                                                             : 0,
                          .load = &p->load,
                          .steps = &s->steps};
    if (budget.rows_left == 0 || !s->policies.slicing->next(&s->config, &budget, piece, cut)) return false;
    check(cut->tokens > 0 && cut->tokens <= piece->tokens && cut->tokens <= budget.rows_left);
    check(cut->op_end > piece->op_begin && cut->op_end <= piece->op_end);
    return true;
}

static void add_prefill_slice(scheduler *s, uint32_t index, uint32_t segment_index, uint32_t op_end) {
    sequence      *q = &s->sequences[index];
    const segment *g = &s->stairs[q->slot].open[segment_index];
    check(kvcache_is_writable(s->kv, q->slot, g->token_begin, g->token_end));
    slice *x = add_slice(s, index, segment_index);
    x->token_begin = g->token_begin, x->token_end = g->token_end;
    x->op_begin = g->op, x->op_end = op_end;
    x->frame_in = g->op > 0 ? g->place : (frame_place){NO_FRAME, 0};
    x->frame_out = g->place;
    x->samples = g->token_end == q->known && op_end == s->config.model.op_count;
    wait_for_copies(s, x);
    s->pass.prefill_rows += g->token_end - g->token_begin;
    step_load_add_prefill(&s->pass.load, &s->config.model, g->token_begin, g->token_end, g->op, op_end);
    check(op_end == s->config.model.op_count || x->frame_out.frame != NO_FRAME);
}

/* How far a sequence's next tokens may go in this pass: as far as those before them get. */
typedef struct {
    uint32_t index, op_end;
} climb;

/* Takes up open[i], or its first part. */
static bool resume(scheduler *s, climb *c, uint32_t i) {
    staircase  *st = &s->stairs[s->sequences[c->index].slot];
    segment     g = st->open[i];
    prefill_cut cut;
    if (g.op < c->op_end) {
        if (!next_cut(s, &(prefill_piece){g.token_end - g.token_begin, g.token_begin, g.op, c->op_end}, &cut)) return false;
        bool splits = cut.tokens < g.token_end - g.token_begin;
        if (!splits || i == 0) { /* else: only the first is ever split */
            if (splits) staircase_split(st, 0, g.token_begin + cut.tokens, &s->frames);
            bool crowded = st->open_count == SEGMENTS_MAX;
            s->pass.crowded |= crowded;
            uint32_t op_end = crowded ? c->op_end : cut.op_end;
            add_prefill_slice(s, c->index, i, op_end);
            if (!splits) {
                c->op_end = op_end;
                return true;
            }
        }
    }
    c->op_end = g.op;
    return true;
}

/* Starts on the untouched tokens. Without a frame for a planned cut the slice runs to the end instead. */
static bool start(scheduler *s, const climb *c) {
    const sequence *q = &s->sequences[c->index];
    staircase      *st = &s->stairs[q->slot];
    uint32_t        begin = staircase_end(st);
    prefill_cut     cut;
    if (begin == q->known || c->op_end == 0 || st->open_count >= SEGMENTS_MAX - 1) return true;
    if (!next_cut(s, &(prefill_piece){q->known - begin, begin, 0, c->op_end}, &cut)) return false;
    frame_place place = {NO_FRAME, 0};
    if (cut.op_end < s->config.model.op_count && !place_rows(s, cut.tokens, &place)) {
        if (c->op_end < s->config.model.op_count) return true;
        cut.op_end = s->config.model.op_count;
    }
    uint32_t i = staircase_open(st, begin + cut.tokens);
    st->open[i].place = place;
    add_prefill_slice(s, c->index, i, cut.op_end);
    return true;
}

/* The pieces of one prompt in order of tokens. false: the pass takes no more. */
static bool add_prefill(scheduler *s, uint32_t index) {
    staircase *st = &s->stairs[s->sequences[index].slot];
    climb      c = {index, s->config.model.op_count};
    for (uint32_t i = 0; i < st->open_count; i++)
        if (!resume(s, &c, i)) return false;
    return start(s, &c);
}

/* ---- admission ---- */

/* Tokens that the cache holds for the candidate, which takes them. The newest must be computed: its logits draw the next. */
static uint32_t find_cached(scheduler *s, uint32_t index) {
    const sequence  *q = &s->sequences[index];
    const kv_content content = content_of(q);
    return s->records[index].request.computes_all ? 0 : kvcache_match(s->kv, q->slot, &content, q->known - 1);
}

/* For what it knows, and the next token as well, if that is ever computed. */
static uint32_t tokens_to_enter(const sequence *q) { return q->known + 1 == q->limit ? q->known : q->known + 1; }

/* Pages that nobody runs with, and those that pins let go of where nobody runs: they would block for nothing. */
static bool is_let_in(scheduler *s, uint32_t index, uint32_t cached) {
    const sequence_record *r = &s->records[index];
    const uint32_t         held = cached / s->config.page_tokens;
    admission_view         v = {.needs_now = pages_for(s, tokens_to_enter(&s->sequences[index])) - held,
                                .needs_ever = r->pages_ever - held,
                                .available = kvcache_available(s->kv),
                                .running = running_count(s),
                                .promised = s->promised};
    if (s->policies.admission->looks_ahead && v.running > 0) v.peak = outlook_peak(s, index, cached);
    while (v.needs_now > v.available || !s->policies.admission->admits(&s->config, &v)) {
        if (running_count(s) > 0 || !retain_give_way(s)) return false;
        v.available = kvcache_available(s->kv);
    }
    return true;
}

static bool admit(scheduler *s, uint32_t index, uint32_t at) {
    candidate_set(s, index);
    const sequence *q = &s->sequences[index];
    const uint32_t  cached = find_cached(s, index);
    prefill_cut     cut;
    if (!next_cut(s, &(prefill_piece){q->known - cached, cached, 0, s->config.model.op_count}, &cut)) return false;
    if (!is_let_in(s, index, cached)) {
        s->refused = s->records[index].arrival;
        return false;
    }
    life_admit(s, index, cached, at);
    check(grow(s, q, tokens_to_enter(q)));
    swap_in(s, index, cached);
    if (!q->arriving) life_found(s, index, cached);
    return true;
}

/* The first in line takes the place of who is a level of priority behind it, if there is no other. */
static void displace(scheduler *s) {
    uint64_t pages;
    while (s->config.reclaim.displaces && s->waiting_count > 0) {
        const uint32_t first = first_waiting(s), last = reclaim_displaced(s, first, &pages);
        if (last == NO_SEQUENCE) return;
        if (running_count(s) < s->config.running_max) {
            candidate_set(s, first);
            const uint32_t cached = find_cached(s, first);
            const uint64_t needs = pages_for(s, tokens_to_enter(&s->sequences[first])) - cached / s->config.page_tokens;
            if (is_let_in(s, first, cached) || needs > kvcache_available(s->kv) + pages) return;
        }
        s->totals.displaced++;
        life_send_back(s, last);
    }
}

/* The first in the queue, if it goes before the prompt that runs at prefilling[next]. */
static uint32_t newcomer(scheduler *s, uint32_t next) {
    fair_refresh(&s->tenants, s->now_us);
    const uint32_t first = first_waiting(s);
    if (first == NO_SEQUENCE || running_count(s) == s->config.running_max || rows_left(s) == 0) return NO_SEQUENCE;
    if (next < s->prefilling.count && !runs_before(s, first, s->prefilling.sequences[next])) return NO_SEQUENCE;
    return first;
}

/* A pass of prefill alone is not for everybody at once where it is to be short. */
static bool may_join(const scheduler *s, uint32_t index) {
    const pass *p = &s->pass;
    if (!s->policies.preemption->joins || p->decode_rows > 0 || p->prefill_rows == 0) return true;
    const sequence *q = &s->sequences[index];
    return s->policies.preemption->joins(&s->config, p->prefill_rows,
                                         q->known - (is_running(q) ? s->stairs[q->slot].done : 0));
}

static length_class class_of(const scheduler *s, uint32_t index) {
    const uint32_t most = s->config.slicing.short_tokens;
    if (most == 0) return LENGTH_ANY;
    return s->sequences[index].known - s->records[index].cached <= most ? LENGTH_SHORT : LENGTH_LONG;
}

/* The pass is full: is anybody of the other class behind? Only the first of the queue is looked at. */
static void note_owed(scheduler *s, uint32_t next, length_class wanted) {
    const uint32_t waiting = first_waiting(s);
    if (wanted == LENGTH_ANY || s->pass.owed != LENGTH_ANY) return;
    const length_class other = wanted == LENGTH_SHORT ? LENGTH_LONG : LENGTH_SHORT;
    bool               behind = waiting != NO_SEQUENCE && class_of(s, waiting) == other;
    for (uint32_t i = next; i < s->prefilling.count && !behind; i++)
        behind = class_of(s, s->prefilling.sequences[i]) == other;
    if (behind) s->pass.owed = (uint8_t)other;
}

/* Running prompts and the queue, merged in order, until the pass takes no more; after the first no at the door only those
 * that run go on. Who is admitted joins the list before prefilling[i], which so becomes the next turn's. Of two classes of
 * length only `wanted` gets rows, or that of the first; the other is let in, waits for the next pass, and is owed that. */
static void add_prefills_of(scheduler *s, length_class wanted) {
    bool open = true;
    for (uint32_t i = 0;; i++) {
        uint32_t index = open ? newcomer(s, i) : NO_SEQUENCE;
        if (index != NO_SEQUENCE && !may_join(s, index)) return;
        if (index != NO_SEQUENCE && !admit(s, index, i)) {
            open = false;
            index = NO_SEQUENCE;
        }
        if (index == NO_SEQUENCE && i < s->prefilling.count) index = s->prefilling.sequences[i];
        if (index == NO_SEQUENCE) return;
        if (s->sequences[index].arriving) continue; /* no row before its pages are there */
        const length_class own = class_of(s, index);
        if (wanted == LENGTH_ANY) wanted = own;
        if (own != wanted) s->pass.owed = (uint8_t)own;
        else if (!may_join(s, index) || !add_prefill(s, index)) return note_owed(s, i + 1, wanted);
    }
}

/* Length-aware batching (LAPS): short prompts are bound by reading weights and long ones by computing, so a pass has one
 * kind. Short ones wait for nobody but the pass that runs: where answers run they ride with the next of their passes. The
 * classes take turns where both have somebody, so neither waits for more than every other pass. */
static void add_prefills(scheduler *s) {
    const length_class owed = (length_class)s->pass.owed;
    s->pass.owed = LENGTH_ANY;
    add_prefills_of(s, owed);
    if (s->pass.prefill_rows == 0 && s->pass.owed != LENGTH_ANY) { /* nobody of that class is left */
        const length_class other = (length_class)s->pass.owed;
        s->pass.owed = LENGTH_ANY;
        add_prefills_of(s, other);
    }
}

/* Whether the prompt that is first in line is short: it rides with decodes, who so need not wait for it. */
static bool first_is_short(const scheduler *s) {
    if (s->config.slicing.short_tokens == 0) return false;
    const uint32_t waiting = first_waiting(s);
    if (s->prefilling.count == 0) return waiting != NO_SEQUENCE && class_of(s, waiting) == LENGTH_SHORT;
    const uint32_t runs = s->prefilling.sequences[0];
    const bool     comes = waiting != NO_SEQUENCE && runs_before(s, waiting, runs);
    return class_of(s, comes ? waiting : runs) == LENGTH_SHORT;
}

/* ---- the pass ---- */

bool scheduler_plan(scheduler *s, uint64_t now_us, plan *out) {
    pass      *p = &s->pass;
    const bool decodes_waited = p->beside;
    check(!p->in_flight && now_us >= s->now_us);
    s->now_us = now_us;
    retain_tick(s);
    p->slice_count = p->decode_rows = p->prefill_rows = p->cancelled = 0;
    p->crowded = false;
    p->planned_us = now_us, p->due_us = p->stop_us = NO_DUE;
    s->refused = 0;
    p->load = (step_load){0};
    p->free_rows = (frame_place){NO_FRAME, 0};
    p->waits_for = 0;
    swap_begin_plan(s);

    line_rank_due(s);
    grow_decodes(s);
    displace(s);
    p->beside = !first_is_short(s) && decodes_wait(s);
    if (!p->beside) add_decodes(s);
    if (!decodes_waited || p->decode_rows == 0) add_prefills(s); /* those that waited go alone, for they are in a hurry */
    if (s->tenants.turns) life_sort_prefilling(s);               /* who was let in was put where its turn was */
    p->stoppable = make_stoppable(s);
    if (p->beside && (!p->stoppable || p->slice_count == 0)) let_decodes_join(s);
    if (p->beside) leave_time_to_stop(s);
    s->totals.passes_beside += p->beside;

    /* somebody can always go on, or will when copies are there */
    check(p->slice_count > 0 || s->swap.arriving > 0 || (running_count(s) == 0 && s->waiting_count == 0));
    check(p->decode_rows + p->prefill_rows <= s->config.batch_tokens_max);
    p->in_flight = p->slice_count > 0;
    *out = (plan){.slice_count = p->slice_count,
                  .slices = p->slices,
                  .decode_rows = p->decode_rows,
                  .prefill_rows = p->prefill_rows,
                  .stoppable = p->stoppable && p->in_flight,
                  .copy_count = s->swap.planned_count,
                  .copies = s->swap.planned,
                  .waits_for = p->waits_for};
    return p->in_flight;
}
