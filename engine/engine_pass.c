#include "base/clock.h"
#include "engine/engine_state.h"

/* ---- prompts whose log-probabilities are asked for ---- */

/* Rows at the slice's end, but for one that draws, that lead to a token of the prompt whose log-probability is not known
 * yet. After a prompt was lost and is computed again, rows of generated tokens may be among them: nobody looks at those. */
static uint32_t rows_to_score(const engine *e, const request *r, const slice *s) {
    if (!r->asked.scores || s->op_end < e->program.op_count || r->scored >= r->asked.prompt_tokens) return 0;
    const uint32_t begin = s->token_begin > r->scored - 1 ? s->token_begin : r->scored - 1;
    const uint32_t end = s->token_end - s->samples;
    return end > begin ? end - begin : 0;
}

static void take_score(request *r, const sampled *s) {
    const prompt_scores *to = r->asked.scores;
    const uint32_t       i = r->scored++;
    to->logprobs[i] = s->logprob;
    to->ranks[i] = s->rank;
    for (uint32_t k = 0; k < to->tops; k++) {
        to->top_ids[(size_t)i * to->tops + k] = k < s->top_count ? s->top_ids[k] : PROMPT_TOP_NONE;
        to->top_logprobs[(size_t)i * to->tops + k] = k < s->top_count ? s->top_logprobs[k] : 0;
    }
}

/* A prompt crosses the last operator in order of its tokens, however it was cut. */
static void take_scores(engine *e, const plan *p) {
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request       *r = requests_by_key(&e->requests, p->slices[i].id);
        const uint32_t rows = rows_to_score(e, r, &p->slices[i]);
        const sampled *s = walker_scored(e->walker, i);
        for (uint32_t k = 0; k < rows && r->scored < r->asked.prompt_tokens; k++) {
            r->score_corrupt |= s[k].corrupt;
            take_score(r, &s[k]);
        }
    }
}
/* ---- one pass ---- */

void find_sequence(void *context, const slice *s, walk_sequence *out) {
    engine  *e = context;
    request *r = requests_by_key(&e->requests, s->id);
    out->tokens = r->asked.tokens;
    out->prompt_tokens = r->asked.prompt_tokens;
    out->cached_tokens = scheduler_cached_tokens(e->scheduler, s->slot);
    out->pages = scheduler_pages(e->scheduler, s->slot, &out->page_count);
    out->params = &r->asked.params;
    out->banned = r->banned;
    out->banned_count = r->output_tokens < r->asked.output_tokens_min ? r->banned_count : 0;
    out->score_rows = rows_to_score(e, r, s);
    out->score_params = r->asked.scores ? &e->scoring[r->asked.scores->tops] : NULL;
}

/* Puts the slices' requests into the pass. Only prompts may be there for the first time, or again. */
static void enter_pass(engine *e, const plan *p) {
    const uint64_t now_us = e->api->now_us(e->device);
    e->passes_begun++;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = requests_by_key(&e->requests, p->slices[i].id);
        if (i >= p->decode_rows) note_progress(e, r);
        if (r->clock.last_pass == 0) {
            requests_began(&e->requests, r);
            r->ledger.cached_tokens = scheduler_cached_tokens(e->scheduler, p->slices[i].slot);
            if (p->slices[i].token_begin == r->ledger.cached_tokens) e->found_tokens += r->ledger.cached_tokens;
        }
        ledger_pass_begins(&r->ledger, &r->clock, e->passes_begun, now_us);
        r->in_pass = true;
    }
}

static void leave_pass(engine *e, const plan *p) {
    const uint64_t now_us = e->api->now_us(e->device);
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = requests_by_key(&e->requests, p->slices[i].id);
        ledger_pass_ends(&r->ledger, &r->clock, e->passes_begun, now_us);
        r->in_pass = false;
    }
}

static bool contains(const uint32_t *ids, uint32_t count, uint32_t id) {
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] == id) return true;
    return false;
}

/* Adds what was drawn to the request and says in *event what follows from it. Returns whether that was its end. */
static bool take_token(engine *e, request *r, const sampled *s, engine_event *event) {
    const engine_request *a = &r->asked;
    *event = (engine_event){.id = a->id, .token = *s};
    a->tokens[a->prompt_tokens + r->output_tokens] = s->token; /* the scheduler looks there, corrupt or not */
    if (s->corrupt || r->score_corrupt) {
        e->figures.corrupted++;
        event->reason = FINISH_ERROR;
        event->message = "The model computed values that are not numbers.";
        return true;
    }
    r->output_tokens++;
    ledger_token(&r->ledger, &r->clock, e->api->now_us(e->device));
    event->has_token = true;
    event->token_is_stop = contains(a->stop_ids, a->stop_id_count, s->token) ||
                           (!a->ignore_eos && contains(e->limits.eos_ids, e->limits.eos_count, s->token));
    event->stop_id = s->token;
    event->reason = event->token_is_stop ? FINISH_STOP : FINISH_LENGTH;
    return event->token_is_stop || r->output_tokens == a->output_tokens_max;
}

/* Tokens are appended before the scheduler hears of the pass. */
static void take_tokens(engine *e, const plan *p) {
    e->drawn_count = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        if (!p->slices[i].samples) continue;
        check(e->drawn_count < e->config.scheduler_settings.running_max);
        drawn_token *d = &e->drawn[e->drawn_count];
        d->request = requests_by_key(&e->requests, p->slices[i].id);
        if (d->request->leaves_pass) continue;
        e->drawn_count++;
        d->output = walker_output_index(e->walker, i);
        d->event.finished = take_token(e, d->request, walker_sampled(e->walker, i), &d->event);
        if (d->event.finished) note_progress(e, d->request);
        e->outcomes[i] = (slice_outcome){.token = d->event.token.token, .finished = d->event.finished};
    }
}

static void tell_tokens(engine *e) {
    e->last_output = NO_OUTPUT;
    for (uint32_t i = 0; i < e->drawn_count; i++) {
        drawn_token *d = &e->drawn[i];
        if (d->event.finished) {
            check(!scheduler_is_live(e->scheduler, d->request->key));
            e->last_output = d->output;
            finish(e, d->request, &d->event);
        } else {
            d->event.ledger = d->request->ledger;
            say(e, &d->event);
        }
    }
}

/* Who was cancelled while the pass ran. A request may have several slices. */
static void end_who_left(engine *e, request *const *left, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        check(!scheduler_is_live(e->scheduler, left[i]->key));
        finish(e, left[i], &(engine_event){.reason = FINISH_CANCELLED});
    }
}

static uint32_t find_who_left(engine *e, const plan *p) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = requests_by_key(&e->requests, p->slices[i].id);
        if (!r->leaves_pass || (count > 0 && e->left[count - 1] == r)) continue;
        e->left[count++] = r;
    }
    return count;
}

bool wants_stop(void *context) {
    engine  *e = context;
    uint64_t now_us = e->api->now_us(e->device), wanted_us = now_us;
    if (atomic_load_explicit(&e->closing, memory_order_relaxed)) return true;
    if (take_events(e)) {
        publish(e);
        wake_consumer(e);
        now_us = e->api->now_us(e->device);
        if (e->came_us < wanted_us) wanted_us = e->came_us;
    } else if (now_us < e->wake_us) {
        return false;
    } else {
        wanted_us = e->wake_us;
    }
    const bool stops = scheduler_should_stop(e->scheduler, now_us);
    e->wake_us = scheduler_wake_us(e->scheduler);
    if (stops) e->stop_wanted_us = wanted_us;
    return stops;
}

/* A stop is answered once the pass it was for begins. */
static void note_reaction(engine *e, uint64_t now_us) {
    if (e->stop_wanted_us)
        histogram_observe(&e->figures.stop_reaction_seconds, &histogram_seconds,
                          (double)(now_us - e->stop_wanted_us) * 1e-6);
    e->stop_wanted_us = 0;
    e->figures.stop_bound_ns = walker_longest_wait_ns(e->walker);
}

/* How much the pass did of the prompts in it, and how much of them is left: what a newcomer's wait is predicted from. */
static void learn_pace(engine *e, const plan *p, uint32_t reached_op, uint64_t begin_us, uint64_t now_us) {
    double prompt_tokens = (double)e->found_tokens;
    e->figures.prompt_left = 0;
    for (uint32_t i = p->decode_rows; i < p->slice_count; i++) {
        const slice   *s = &p->slices[i];
        const uint32_t end = s->op_end < reached_op ? s->op_end : reached_op,
                       all = requests_by_key(&e->requests, s->id)->asked.prompt_tokens;
        if (end > s->op_begin)
            prompt_tokens += (double)(s->token_end - s->token_begin) * (end - s->op_begin) / e->program.op_count;
        const bool last = i + 1 == p->slice_count || p->slices[i + 1].id != s->id;
        if (last && all > s->token_end) e->figures.prompt_left += all - s->token_end;
    }
    const uint64_t from_us = e->accounted_us ? e->accounted_us : begin_us; /* the host's time between passes counts */
    pace_pass(&e->figures.pace, (double)(now_us - from_us) * 1e-6, prompt_tokens, p->decode_rows,
              e->figures.scheduler.waiting);
    e->found_tokens = 0;
    e->accounted_us = now_us;
}

int run_pass(engine *e, const plan *p, error *err) {
    walk_result    result;
    const uint64_t begin_us = e->api->now_us(e->device);
    note_reaction(e, begin_us);
    e->wake_us = p->stoppable ? scheduler_wake_us(e->scheduler) : UINT64_MAX;
    e->room_kept = e->config.scheduler_settings.running_max;
    enter_pass(e, p);
    atomic_store(&e->pass_started_us, clock_us());
    int status = p->waits_for ? e->api->await_copy(e->device, p->waits_for, err) : OK;
    if (status == OK) status = walker_walk(e->walker, p, &result, err);
    atomic_store(&e->pass_started_us, 0);
    e->room_kept = 0;
    leave_pass(e, p);
    if (status != OK) return status;
    const uint32_t left = find_who_left(e, p);
    const uint64_t now_us = e->api->now_us(e->device);
    e->figures.passes_done++;
    learn_pace(e, p, result.stopped ? result.stop_op : e->program.op_count, begin_us, now_us);
    if (result.stopped) {
        scheduler_pass_stopped(e->scheduler, now_us, result.stop_op);
        end_who_left(e, e->left, left);
        return OK;
    }
    histogram_observe(&e->figures.pass_rows, &histogram_rows, p->decode_rows + p->prefill_rows);
    histogram_observe(&e->figures.pass_seconds, &histogram_seconds, (double)(now_us - begin_us) * 1e-6);
    take_scores(e, p);
    take_tokens(e, p);
    scheduler_pass_done(e->scheduler, now_us, e->outcomes);
    tell_tokens(e);
    end_who_left(e, e->left, left);
    return OK;
}

/* ---- copies of pages ---- */

int begin_copies(engine *e, const plan *p, error *err) {
    if (p->copy_count == 0) return OK;
    e->copies_open += p->copy_count;
    return e->api->copy_pages(e->device, p->copies, p->copy_count, err);
}

bool take_copied(engine *e, bool wait) {
    copied_page over[64];
    if (e->copies_open == 0) return false;
    for (uint32_t n; (n = e->api->copies_done(e->device, wait, over, sizeof over / sizeof *over)) > 0; wait = false) {
        const uint64_t now_us = e->api->now_us(e->device);
        for (uint32_t i = 0; i < n; i++) scheduler_copy_done(e->scheduler, now_us, over[i].id, over[i].ok);
        e->copies_open -= n;
    }
    return true;
}
