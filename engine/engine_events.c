#include "base/log.h"
#include "engine/engine_state.h"

/* ---- saying what happened ---- */

void say(engine *e, const engine_event *event) {
    ring_push(e->ring, event);
    e->said = true;
}

void wake_consumer(engine *e) {
    if (!e->said) return;
    e->said = false;
    if (e->config.wake) e->config.wake(e->config.wake_context);
    pthread_mutex_lock(&e->consumer_lock);
    pthread_cond_signal(&e->consumer_woken);
    pthread_mutex_unlock(&e->consumer_lock);
}

void publish(engine *e) {
    scheduler_read_stats(e->scheduler, &e->figures.scheduler);
    e->api->read_stats(e->device, &e->figures.device);
    requests_tell_waiting(&e->requests, e->figures.scheduler.waiting, e->figures.scheduler.waiting_tokens);
    notice_post(&e->notice, &e->figures);
}

void finish(engine *e, request *r, engine_event *event) {
    scheduler_job_view job;
    const uint64_t     now_us = e->api->now_us(e->device);
    if (r->asked.job.id && scheduler_read_job(e->scheduler, r->asked.job.id, &job) && job.pinned_until_us > now_us)
        event->pinned_tokens = job.pinned_tokens, event->pinned_us = job.pinned_until_us - now_us;
    ledger_finished(&r->ledger, &r->clock, e->passes_begun, e->api->now_us(e->device));
    if (r->ledger.output_tokens > 0) pace_answer(&e->figures.pace, r->ledger.output_tokens);
    event->id = r->asked.id;
    event->finished = true;
    event->ledger = r->ledger;
    requests_release(&e->requests, r);
    say(e, event);
}

void note_progress(engine *e, request *r) {
    scheduler_progress p;
    if (scheduler_read_progress(e->scheduler, r->key, &p))
        ledger_preempted(&r->ledger, &r->clock, p.preemptions, p.recomputed_tokens);
}
/* ---- events in ---- */

static bool has_room_for_event(const engine *e) { return ring_room(e->ring) > e->room_kept; }

void take_new(engine *e) {
    for (request *r; has_room_for_event(e) && (r = requests_next_new(&e->requests)) != NULL;) {
        const scheduler_request asked = {.id = r->key,
                                         .tokens = r->asked.tokens,
                                         .prompt_tokens = r->asked.prompt_tokens,
                                         .output_tokens_max = r->asked.output_tokens_max,
                                         .cache_salt = r->asked.cache_salt,
                                         .arrived_us = r->ledger.submitted_us,
                                         .priority = r->asked.priority,
                                         .tenant = r->asked.tenant,
                                         .job = r->asked.job,
                                         .slo = r->asked.slo,
                                         .computes_all = r->asked.scores != NULL};
        if (r->ledger.submitted_us < e->came_us) e->came_us = r->ledger.submitted_us;
        error     err;
        const int status = scheduler_submit(e->scheduler, e->api->now_us(e->device), &asked, &err);
        if (status == OK) continue;
        if (status == ERR_FULL) { /* who lost their memory fill the queue beyond its bound; later, then */
            requests_put_back(&e->requests, r);
            return;
        }
        log_error("engine", "request %llu was let in and then refused: %s", (unsigned long long)r->asked.id, err.text);
        finish(e, r,
               &(engine_event){.reason = FINISH_ERROR, .message = "The request cannot run with the limits of this engine."});
    }
}

void take_cancelled(engine *e) {
    for (request *r; has_room_for_event(e) && (r = requests_next_cancelled(&e->requests)) != NULL;) {
        if (r->state == REQUEST_LIVE) {
            note_progress(e, r);
            scheduler_cancel(e->scheduler, e->api->now_us(e->device), r->key);
        }
        if (r->in_pass) r->leaves_pass = true;
        else finish(e, r, &(engine_event){.reason = FINISH_CANCELLED});
    }
}

bool take_events(engine *e) {
    const uint64_t kicks = requests_kicks(&e->requests);
    if (kicks == e->seen_kicks) return false;
    e->seen_kicks = kicks;
    e->came_us = UINT64_MAX;
    take_new(e);
    take_cancelled(e);
    return true;
}
