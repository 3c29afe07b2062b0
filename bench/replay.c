#include "bench/replay.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "bench/progress.h"

enum { BODY_BYTES_MAX = 512 << 20, SAMPLE_MS = 1000, PROGRESS_MS = 200 };

typedef struct {
    const replay_config *config;
    const trace         *trace;
    record              *record;
    client              *client;
    uv_loop_t            loop;
    uv_timer_t           next_due, sampler, ticker;
    uv_signal_t          interrupt;
    uint64_t             begin_ns, first_start_us, last_end_us;
    agenda               agenda;
    uint32_t            *held, held_first, held_count; /* due, but over the limit of concurrency: in their order */
    token_list          *contexts;                     /* of sessions: the last prompt and answer, while it is needed */
    uint32_t             in_flight;
    bool                 stopped, scraping;
    progress             progress;
} run;

/* One request on its way. */
typedef struct {
    run       *run;
    uint32_t   request;
    uint64_t   due_us;
    uv_work_t  work;
    token_list prompt;
    buf        body;
} flight;

static uint64_t now_us(const run *r) { return (uv_hrtime() - r->begin_ns) / 1000; }
static bool     over(const run *r) { return !r->in_flight && !r->agenda.count && !r->held_count; }

static void stop_if_over(run *r) {
    if (over(r)) uv_stop(&r->loop);
}

/* ---- the body: made on a worker, as a prompt of 100,000 ids takes milliseconds that other streams would see ---- */

static void append_ids(buf *out, const token_list *l) {
    char     text[4096];
    uint32_t used = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        char     digits[12], *end = digits + sizeof digits, *p = end;
        uint32_t id = l->ids[i];
        do *--p = (char)('0' + id % 10);
        while (id /= 10);
        if (i) *--p = ',';
        memcpy(text + used, p, (size_t)(end - p)), used += (uint32_t)(end - p);
        if (used > sizeof text - sizeof digits) buf_append(out, text, used), used = 0;
    }
    buf_append(out, text, used);
}

static void append_slo(buf *out, const slo *s) {
    const struct {
        const char *name;
        double      value;
    } members[] = {{"ttft_ms", s->ttft_ms},
                   {"tbt_ms", s->tbt_ms > 0 ? s->tbt_ms : s->tpot_ms},
                   {"deadline_ms", s->e2e_ms},
                   {"job_deadline_ms", s->job_ms},
                   {"value", s->value}};
    const char *comma = "";
    buf_str(out, ",\"slo\":{");
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (members[i].value > 0) buf_printf(out, "%s\"%s\":%g", comma, members[i].name, members[i].value), comma = ",";
    buf_char(out, '}');
}

static void append_hints(const run *r, uint32_t request, buf *out) {
    const trace         *t = r->trace;
    const trace_request *q = &t->requests[request];
    if (q->tenant) buf_str(out, ",\"user\":"), json_quote(out, t->names[q->tenant], strlen(t->names[q->tenant]));
    if (t->sessions[q->session].count > 1 || r->record->outcomes[request].slo.job_ms > 0) { /* which is of a job */
        buf_printf(out, ",\"job_id\":\"%u\",\"session_id\":\"%u\",\"last_step\":%s", q->session, q->session,
                   trace_has_next(t, request) ? "false" : "true");
        if (trace_has_next(t, request))
            buf_printf(out, ",\"expected_gap_ms\":%.0f", (double)agenda_gap_us(&r->config->pace, q + 1) * 1e-3);
        if (q->tool) buf_str(out, ",\"tool\":"), json_quote(out, t->names[q->tool], strlen(t->names[q->tool]));
    }
    if (q->priority) buf_printf(out, ",\"priority\":%d", q->priority);
    if (slo_given(&r->record->outcomes[request].slo)) append_slo(out, &r->record->outcomes[request].slo);
}

/* Whether the next turn goes on from this one's answer, so that its ids must be known. */
static bool needs_answer(const run *r, uint32_t request) {
    const trace_request *q = &r->trace->requests[request];
    return trace_has_next(r->trace, request) && q[1].shared_tokens > q->prompt_tokens;
}

static void build(uv_work_t *work) {
    flight              *f = work->data;
    const run           *r = f->run;
    const uint32_t       session = r->trace->requests[f->request].session;
    const prompt_lengths l = prompt_measure(&r->config->rules, &r->trace->requests[f->request]);
    buf                 *out = &f->body;
    prompt_build(&r->config->rules, r->trace, f->request, &r->contexts[session], &f->prompt);
    buf_init(out, BODY_BYTES_MAX);
    buf_str(out, "{\"model\":"), json_quote(out, r->config->model, strlen(r->config->model));
    buf_printf(out,
               ",\"max_tokens\":%u,\"min_tokens\":%u,\"ignore_eos\":true,\"skip_special_tokens\":false,\"temperature\":0,"
               "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
               l.output_tokens, l.output_tokens);
    if (needs_answer(r, f->request)) buf_str(out, ",\"return_token_ids\":true");
    if (r->config->hints) append_hints(r, f->request, out);
    buf_str(out, ",\"prompt\":["), append_ids(out, &f->prompt), buf_str(out, "]}");
}

/* ---- a request's life ---- */

static void on_done(void *owner, answer *a, uint64_t began_ns);
static void on_due(uv_timer_t *timer);

static void on_chunk(void *owner, uint64_t now_ns, int64_t gap_ns) {
    flight *f = owner;
    run    *r = f->run;
    record_chunk(r->record, (now_ns - r->begin_ns) / 1000);
    r->progress.chunks++;
    if (gap_ns >= 0) record_gap(r->record, gap_ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(gap_ns / 1000));
}

static void free_flight(flight *f) { buf_free(&f->body), token_list_free(&f->prompt), free(f); }

static void on_built(uv_work_t *work, int status) {
    flight *f = work->data;
    run    *r = f->run;
    (void)status;
    if (!trace_has_next(r->trace, f->request)) token_list_free(&f->prompt);
    if (r->stopped) {
        r->in_flight--, free_flight(f), stop_if_over(r);
        return;
    }
    client_send(r->client, &(client_request){.path = "/v1/completions",
                                             .body = &f->body,
                                             .kind = ANSWER_STREAM,
                                             .keep_ids = needs_answer(r, f->request),
                                             .timeout_ns = r->config->timeout_us * 1000,
                                             .done = on_done,
                                             .chunk = on_chunk,
                                             .owner = f});
}

static void start(run *r, uint32_t request) {
    flight *f = calloc(1, sizeof *f);
    if (!f) fatal("out of memory for a request");
    f->run = r, f->request = request, f->work.data = f;
    if (++r->in_flight > r->record->in_flight_max) r->record->in_flight_max = r->in_flight;
    uv_queue_work(&r->loop, &f->work, build, on_built);
}

static void start_due(run *r) {
    const uint32_t most = r->config->concurrency_max ? r->config->concurrency_max : UINT32_MAX;
    const uint64_t now = now_us(r);
    for (const agenda_entry *first; (first = agenda_first(&r->agenda)) != NULL && first->due_us <= now;) {
        const agenda_entry e = agenda_take(&r->agenda);
        r->record->outcomes[e.request].due_us = e.due_us;
        r->held[(r->held_first + r->held_count++) % r->trace->request_count] = e.request;
    }
    while (r->held_count && r->in_flight < most) {
        start(r, r->held[r->held_first]);
        r->held_first = (r->held_first + 1) % r->trace->request_count, r->held_count--;
    }
    const agenda_entry *next = agenda_first(&r->agenda);
    if (!next) return;
    const uint64_t wait_us = next->due_us > now ? next->due_us - now : 0;
    uv_update_time(&r->loop);
    uv_timer_start(&r->next_due, on_due, (wait_us + 999) / 1000, 0);
}

static void on_due(uv_timer_t *timer) { start_due(timer->data), stop_if_over(timer->data); }

static void note_lengths(run *r, const flight *f, const answer *a, outcome *o) {
    const prompt_lengths wanted = prompt_measure(&r->config->rules, &r->trace->requests[f->request]);
    o->prompt_tokens = a->prompt_tokens >= 0 ? (uint32_t)a->prompt_tokens : wanted.prompt_tokens;
    o->output_tokens = a->output_tokens >= 0 ? (uint32_t)a->output_tokens : a->ids.count ? a->ids.count : a->chunks;
    o->cached_tokens = a->cached_tokens > 0 ? (uint32_t)a->cached_tokens : 0;
    if (o->output_tokens != wanted.output_tokens || o->prompt_tokens != wanted.prompt_tokens) r->record->wrong_lengths++;
}

static void note_outcome(run *r, const flight *f, const answer *a, uint64_t began_ns) {
    outcome *o = &r->record->outcomes[f->request];
    o->start_us = (began_ns - r->begin_ns) / 1000;
    o->end_us = answer_good(a) ? (a->last_choice_ns - r->begin_ns) / 1000 : now_us(r);
    o->state = answer_good(a) ? OUTCOME_COMPLETED : OUTCOME_FAILED;
    if (o->start_us < r->first_start_us) r->first_start_us = o->start_us;
    if (o->end_us > r->last_end_us) r->last_end_us = o->end_us;
    if (!answer_good(a)) {
        o->reason = record_reason(r->record, a->trouble);
        r->progress.failed++;
        return;
    }
    o->first_us = a->chunks ? (a->first_ns - r->begin_ns) / 1000 : o->end_us; /* all of it was invisible */
    o->gap_max_us = a->gap_max_ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(a->gap_max_ns / 1000);
    note_lengths(r, f, a, o);
    r->progress.completed++;
}

/* The context that the next turn goes on from: this prompt and this answer. */
static void keep_context(run *r, flight *f, const answer *a) {
    const trace_request *q = &r->trace->requests[f->request];
    token_list          *context = &r->contexts[q->session];
    const uint32_t       made = prompt_measure(&r->config->rules, q).output_tokens;
    token_list_free(context);
    if (!trace_has_next(r->trace, f->request)) return;
    *context = f->prompt, f->prompt = (token_list){0};
    if (!needs_answer(r, f->request)) return;
    if (a->ids.count) {
        token_list_reserve(context, context->count + a->ids.count);
        memcpy(context->ids + context->count, a->ids.ids, a->ids.count * sizeof *a->ids.ids);
        context->count += a->ids.count;
    } else {
        prompt_make_answer(&r->config->rules, f->request, made, context);
        r->record->made_up_answers++;
    }
}

/* A session whose turn failed is given up: what came after it was about an answer that is not there. */
static void on_done(void *owner, answer *a, uint64_t began_ns) {
    flight *f = owner;
    run    *r = f->run;
    r->in_flight--;
    if (r->stopped && a->trouble[0]) {
        stop_if_over(r), free_flight(f); /* cut short by us: neither completed nor failed */
        return;
    }
    note_outcome(r, f, a, began_ns);
    if (answer_good(a)) {
        keep_context(r, f, a);
        if (!r->stopped) agenda_ended(&r->agenda, f->request, now_us(r));
    } else token_list_free(&r->contexts[r->trace->requests[f->request].session]);
    free_flight(f);
    start_due(r);
    stop_if_over(r);
}

/* ---- once a second ---- */

static void on_metrics(void *owner, answer *a, uint64_t began_ns) {
    run   *r = owner;
    scrape s;
    r->scraping = false;
    scrape_read(a->body.data ? a->body.data : "", answer_good(a) ? a->body.size : 0, &s);
    if (answer_good(a)) {
        if (!r->record->sample_count) r->record->before = s;
        r->record->after = s;
    }
    record_sample(r->record, &(sample){.at_s = (double)(began_ns - r->begin_ns) * 1e-9,
                                       .in_flight = r->in_flight,
                                       .running = s.value[SCRAPE_RUNNING],
                                       .waiting = s.value[SCRAPE_WAITING],
                                       .kv_usage = s.value[SCRAPE_KV_USAGE]});
}

static void scrape_now(run *r) {
    if (r->scraping) return;
    r->scraping = true;
    client_send(r->client,
                &(client_request){
                    .path = "/metrics", .kind = ANSWER_PAGE, .timeout_ns = 5000000000ull, .done = on_metrics, .owner = r});
}

static void on_sample(uv_timer_t *timer) {
    run *r = timer->data;
    if (r->progress.has_metrics) scrape_now(r);
    else record_sample(r->record, &(sample){now_us(r) * 1e-6, r->in_flight, NAN, NAN, NAN});
}

static void show_progress(run *r, bool last) {
    r->progress.in_flight = r->in_flight, r->progress.held = r->held_count;
    r->progress.next_us = r->agenda.count ? agenda_first(&r->agenda)->due_us : 0;
    if (!r->config->quiet) progress_show(&r->progress, now_us(r), last);
}
static void on_tick(uv_timer_t *timer) { show_progress(timer->data, false); }

static void on_interrupt(uv_signal_t *handle, int number) {
    run *r = handle->data;
    (void)number;
    if (r->stopped) _exit(130);
    r->stopped = r->record->interrupted = true;
    agenda_clear(&r->agenda), r->held_count = 0;
    client_cancel_all(r->client, "stopped");
    stop_if_over(r);
}

/* ---- the whole ---- */

static void *zeroed(size_t count, size_t size) {
    void *p = calloc(count + 1, size);
    if (!p) fatal("out of memory for %zu requests", count);
    return p;
}

static void take_memory(run *r) {
    const uint32_t requests = r->trace->request_count, sessions = r->trace->session_count;
    r->held = zeroed(requests, sizeof *r->held), r->contexts = zeroed(sessions, sizeof *r->contexts);
    agenda_open(&r->agenda, r->trace, &r->config->pace);
}

static void give_memory(run *r) {
    for (uint32_t i = 0; i < r->trace->session_count; i++) token_list_free(&r->contexts[i]);
    agenda_close(&r->agenda), free(r->held), free(r->contexts);
}

static void prepare_outcomes(run *r) {
    for (uint32_t i = 0; i < r->trace->request_count; i++) {
        const trace_request *q = &r->trace->requests[i];
        const prompt_lengths l = prompt_measure(&r->config->rules, q);
        r->record->outcomes[i] = (outcome){.session = q->session,
                                           .turn = q->turn,
                                           .prompt_tokens = l.prompt_tokens,
                                           .output_tokens = l.output_tokens,
                                           .slo = slo_given(&q->slo) ? q->slo : r->config->slo};
        r->record->cut_lengths += l.cut;
    }
}

static void start_timers(run *r) {
    uv_timer_init(&r->loop, &r->next_due), uv_timer_init(&r->loop, &r->sampler), uv_timer_init(&r->loop, &r->ticker);
    uv_signal_init(&r->loop, &r->interrupt);
    r->next_due.data = r->sampler.data = r->ticker.data = r->interrupt.data = r;
    uv_timer_start(&r->sampler, on_sample, SAMPLE_MS, SAMPLE_MS);
    uv_timer_start(&r->ticker, on_tick, PROGRESS_MS, PROGRESS_MS);
    uv_signal_start(&r->interrupt, on_interrupt, SIGINT);
}

static void close_all(run *r) {
    uv_close((uv_handle_t *)&r->next_due, NULL), uv_close((uv_handle_t *)&r->sampler, NULL);
    uv_close((uv_handle_t *)&r->ticker, NULL), uv_close((uv_handle_t *)&r->interrupt, NULL);
    client_cancel_all(r->client, "stopped");
    client_close(r->client);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    uv_loop_close(&r->loop), client_free(r->client);
}

/* The last look at /metrics: counters at the end, and the server at rest. */
static void scrape_and_wait(run *r) {
    if (!r->progress.has_metrics) return;
    if (!r->scraping) scrape_now(r);
    while (r->scraping) uv_run(&r->loop, UV_RUN_ONCE);
}

static void play(run *r) {
    r->begin_ns = uv_hrtime(), r->first_start_us = UINT64_MAX;
    scrape_and_wait(r);
    r->begin_ns = uv_hrtime();
    for (uint32_t i = 0; i < r->record->sample_count; i++) r->record->samples[i].at_s = 0;
    start_due(r);
    if (!over(r)) uv_run(&r->loop, UV_RUN_DEFAULT);
    show_progress(r, true);
    scrape_and_wait(r);
    if (r->last_end_us) r->record->duration_us = r->last_end_us - r->first_start_us;
}

int replay_run(const replay_config *config, const trace *t, bool has_metrics, record *out, error *err) {
    run r = {
        .config = config, .trace = t, .record = out, .progress = {.total = t->request_count, .has_metrics = has_metrics}};
    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&r.loop);
    int code = client_open(&r.client, &r.loop, config->url, config->api_key, err);
    if (code != OK) return uv_loop_close(&r.loop), code;
    take_memory(&r);
    prepare_outcomes(&r);
    start_timers(&r);
    play(&r);
    close_all(&r);
    give_memory(&r);
    return OK;
}
