#include "bench/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/copy_link.h"
#include "bench/pass_cost.h"
#include "scheduler/policy.h"

#define NEVER UINT64_MAX
#define SAMPLE_US 1000000u

/* A request that the scheduler has. Its answer is known beforehand; what is drawn is how far it has come. */
typedef struct {
    token_list tokens; /* prompt and answer */
    uint32_t   prompt_tokens, known, cached;
    uint32_t   place; /* among those that are here */
    int32_t    priority;
    uint64_t   token_us; /* when the newest came; 0: none */
} flight;

typedef struct {
    const simulation *s;
    const trace      *trace;
    record           *record;
    simulated        *figures;
    prompt_rules      rules;
    agenda            agenda;
    scheduler        *scheduler;
    pass_cost        *cost;
    copy_link         link;
    flight           *flights;  /* [request_count]; without tokens: not here */
    token_list       *contexts; /* of sessions: the last prompt and answer */
    priority_state   *levels;   /* of sessions */
    uint32_t         *here;     /* [in_flight] the requests that the scheduler has */
    slice_outcome    *outcomes; /* [batch_tokens_max] */
    uint32_t          in_flight;
    uint64_t          host_ns;    /* of a pass, beyond its operators */
    uint64_t          request_us; /* what the client sees comes so much later than it is in the engine */

    /* the pass that runs */
    plan     plan;
    bool     runs;
    uint64_t begin_us, end_us, asked_us; /* asked_us: when a stop was called for; NEVER: not */
    uint32_t end_op;                     /* op_count, or where it stops */

    uint64_t now_us, first_start_us, last_end_us, sample_us;
    uint64_t tick_us; /* when priorities may be others */
} run;

/* ---- a request comes ---- */

static uint64_t us_of_ms(double ms) { return ms > 0 ? (uint64_t)(ms * 1e3 + 0.5) : 0; }

static request_slo slo_of(const slo *s) {
    return (request_slo){us_of_ms(s->ttft_ms), us_of_ms(s->tbt_ms > 0 ? s->tbt_ms : s->tpot_ms), us_of_ms(s->e2e_ms),
                         us_of_ms(s->job_ms), s->value};
}

/* As the server tells it: a turn's job and the tool that it calls; with hints also what a client may know. */
static request_job job_of(const run *r, uint32_t request) {
    const trace_request *q = &r->trace->requests[request];
    request_job          job = {.id = q->session + 1u, .tool = q->tool};
    if (r->trace->sessions[q->session].count < 2 && !(r->record->outcomes[request].slo.job_ms > 0)) return (request_job){0};
    if (!r->s->clients.hints) return job;
    job.last_step = !trace_has_next(r->trace, request);
    if (!job.last_step) job.expected_gap_us = agenda_gap_us(&r->s->pace, q + 1) + 1; /* 0 is: not said */
    return job;
}

static uint64_t seen_us(const run *r) { return r->now_us + r->request_us; }

static void fail(run *r, uint32_t request, const char *why) {
    outcome *o = &r->record->outcomes[request];
    o->state = OUTCOME_FAILED, o->start_us = o->end_us = r->now_us;
    o->reason = record_reason(r->record, why);
    token_list_free(&r->contexts[o->session]);
}

static void make_tokens(run *r, uint32_t request, flight *f) {
    const uint32_t session = r->trace->requests[request].session;
    prompt_build(&r->rules, r->trace, request, &r->contexts[session], &f->tokens);
    token_list_free(&r->contexts[session]);
    f->prompt_tokens = f->known = f->tokens.count, f->token_us = 0;
    prompt_make_answer(&r->rules, request, r->record->outcomes[request].output_tokens, &f->tokens);
}

/* One slice alone through the machine, in milliseconds. */
static double alone_ms(run *r, uint32_t begin, uint32_t tokens) {
    const slice x = {
        .token_begin = begin, .token_end = begin + tokens, .op_end = pass_cost_program(r->cost)->op_count, .samples = true};
    return (double)pass_cost_of(r->cost, &(plan){.slice_count = 1, .slices = &x}) * 1e-6;
}

/* A request's size is the time of its prompt and, for its answer, of its share of passes as full as they get. */
static double size_ms(run *r, const flight *f) {
    const uint32_t rows_max = r->s->engine->device_settings.rows_max, output = f->tokens.count - f->prompt_tokens;
    double         ms = 0;
    for (uint32_t at = 0, n; at < f->prompt_tokens; at += n) {
        n = f->prompt_tokens - at < rows_max ? f->prompt_tokens - at : rows_max;
        ms += alone_ms(r, at, n);
    }
    return ms + output * alone_ms(r, f->prompt_tokens + output / 2, 1) / r->s->engine->scheduler_settings.running_max;
}

static int32_t priority_of(run *r, uint32_t request, const flight *f) {
    const trace_request  *q = &r->trace->requests[request];
    const priority_rules *rules = &r->s->priorities;
    if (r->s->clients.sizes) return (int32_t)size_ms(r, f);
    if (rules->pattern == PRIORITIES_OF_TRACE) return q->priority;
    return priority_at(rules, r->s->seed, q->session, r->now_us, &r->levels[q->session]);
}

static uint32_t limit_of(const run *r, const flight *f) {
    const uint32_t output = f->tokens.count - f->prompt_tokens, given = r->s->clients.max_tokens;
    const uint32_t room = r->s->engine->scheduler_settings.context_max - f->prompt_tokens;
    return given > output ? given < room ? given : room : output;
}

static void submit(run *r, agenda_entry e) {
    const trace_request *q = &r->trace->requests[e.request];
    outcome             *o = &r->record->outcomes[e.request];
    flight              *f = &r->flights[e.request];
    error                err;
    make_tokens(r, e.request, f);
    f->priority = priority_of(r, e.request, f);
    const scheduler_request asked = {.id = e.request + 1u,
                                     .tokens = f->tokens.ids,
                                     .prompt_tokens = f->prompt_tokens,
                                     .output_tokens_max = limit_of(r, f),
                                     .arrived_us = r->now_us,
                                     .priority = f->priority,
                                     .tenant = {.id = q->tenant},
                                     .job = job_of(r, e.request),
                                     .slo = slo_of(&o->slo)};
    o->due_us = e.due_us, o->start_us = r->now_us;
    if (r->now_us < r->first_start_us) r->first_start_us = r->now_us;
    r->figures->events++;
    if (scheduler_submit(r->scheduler, r->now_us, &asked, &err) != OK) {
        token_list_free(&f->tokens);
        fail(r, e.request, err.code == ERR_FULL ? "the queue was full" : err.text);
        return;
    }
    f->place = r->in_flight, r->here[r->in_flight] = e.request;
    if (++r->in_flight > r->record->in_flight_max) r->record->in_flight_max = r->in_flight;
}

/* ---- a request ends ---- */

static void end(run *r, uint32_t request) {
    outcome *o = &r->record->outcomes[request];
    flight  *f = &r->flights[request];
    r->here[f->place] = r->here[--r->in_flight], r->flights[r->here[f->place]].place = f->place;
    o->state = OUTCOME_COMPLETED, o->end_us = seen_us(r), o->cached_tokens = f->cached;
    if (seen_us(r) > r->last_end_us) r->last_end_us = seen_us(r);
    if (trace_has_next(r->trace, request)) r->contexts[o->session] = f->tokens, f->tokens = (token_list){0};
    else token_list_free(&f->tokens);
    agenda_ended(&r->agenda, request, seen_us(r));
}

/* ---- passes ---- */

static void note_token(run *r, uint32_t request) {
    outcome *o = &r->record->outcomes[request];
    flight  *f = &r->flights[request];
    record_chunk(r->record, seen_us(r));
    if (f->known == f->prompt_tokens) {
        o->first_us = seen_us(r);
    } else {
        const uint32_t gap_us = (uint32_t)(r->now_us - f->token_us);
        record_gap(r->record, gap_us);
        if (gap_us > o->gap_max_us) o->gap_max_us = gap_us;
    }
    f->token_us = r->now_us, f->known++;
}

static void take_sample(run *r) {
    scheduler_stats s;
    if (r->now_us < r->sample_us) return;
    r->sample_us = r->now_us + SAMPLE_US;
    scheduler_read_stats(r->scheduler, &s);
    record_sample(r->record, &(sample){.at_s = (double)r->now_us * 1e-6,
                                       .in_flight = r->in_flight,
                                       .running = s.running,
                                       .waiting = s.waiting,
                                       .kv_usage = (double)s.pages_held / s.pages_total});
}

/* Copies begin with the plan, also where there is no pass; a pass that writes where one goes begins when that is over. */
static void start_pass(run *r) {
    r->runs = scheduler_plan(r->scheduler, r->now_us, &r->plan);
    copy_link_queue(&r->link, r->now_us, r->plan.copies, r->plan.copy_count);
    if (!r->runs) return;
    const uint64_t ns = pass_cost_of(r->cost, &r->plan), copied_us = copy_link_end_us(&r->link, r->plan.waits_for);
    r->begin_us = copied_us > r->now_us ? copied_us : r->now_us;
    r->figures->copy_wait_s += (double)(r->begin_us - r->now_us) * 1e-6;
    r->end_us = r->begin_us + (ns + r->host_ns + 999) / 1000, r->asked_us = NEVER;
    r->end_op = pass_cost_program(r->cost)->op_count;
    for (uint32_t i = r->plan.decode_rows; i < r->plan.slice_count; i++) {
        flight *f = &r->flights[r->plan.slices[i].id - 1];
        if (f->known == f->prompt_tokens) f->cached = scheduler_cached_tokens(r->scheduler, r->plan.slices[i].slot);
    }
}

/* After an event, or when the scheduler wanted to be asked. */
static void consider_stop(run *r) {
    uint64_t boundary_ns;
    if (!r->runs || !r->plan.stoppable || r->asked_us != NEVER || !scheduler_should_stop(r->scheduler, r->now_us)) return;
    const uint64_t into_us = r->now_us > r->begin_us ? r->now_us - r->begin_us : 0;
    const uint32_t at = pass_cost_stop(r->cost, into_us * 1000, &boundary_ns);
    if (at >= pass_cost_program(r->cost)->op_count) return; /* it is as good as done */
    r->asked_us = r->now_us, r->end_op = at, r->end_us = r->begin_us + (boundary_ns + r->host_ns + 999) / 1000;
}

static void draw_tokens(run *r) {
    for (uint32_t i = 0; i < r->plan.slice_count; i++) {
        const slice *x = &r->plan.slices[i];
        if (!x->samples) continue;
        flight        *f = &r->flights[x->id - 1];
        const uint32_t token = f->tokens.ids[f->known];
        note_token(r, (uint32_t)(x->id - 1));
        r->outcomes[i] = (slice_outcome){token, f->known == f->tokens.count};
    }
}

static void end_pass(run *r) {
    double weights, experts;
    pass_cost_bytes(r->cost, r->end_op, &weights, &experts);
    r->figures->weight_bytes += weights, r->figures->expert_bytes += experts;
    r->figures->busy_s += (double)(r->end_us - r->begin_us) * 1e-6;
    r->figures->events++, r->runs = false;
    if (r->asked_us != NEVER) {
        series_add(&r->figures->stop_reactions_s, (double)(r->now_us - r->asked_us) * 1e-6);
        scheduler_pass_stopped(r->scheduler, r->now_us, r->end_op);
        return;
    }
    draw_tokens(r);
    scheduler_pass_done(r->scheduler, r->now_us, r->outcomes);
    for (uint32_t i = 0; i < r->plan.slice_count; i++)
        if (r->plan.slices[i].samples && r->outcomes[i].finished) end(r, (uint32_t)(r->plan.slices[i].id - 1));
    take_sample(r);
}

/* ---- the clock ---- */

/* When something is next to be done; NEVER: all is done. */
static uint64_t next_us(const run *r) {
    const agenda_entry *first = agenda_first(&r->agenda);
    uint64_t            next = first ? first->due_us : NEVER;
    if (r->runs && r->end_us < next) next = r->end_us;
    if (r->in_flight > 0 && r->tick_us < next) next = r->tick_us;
    if (copy_link_next_us(&r->link) < next) next = copy_link_next_us(&r->link);
    if (r->runs ? r->plan.stoppable && r->asked_us == NEVER : r->in_flight > 0) {
        const uint64_t wake_us = scheduler_wake_us(r->scheduler);
        if (wake_us > r->now_us && wake_us < next) next = wake_us;
    }
    return next;
}

/* Who is here may have become more urgent, or less. */
static void change_priorities(run *r) {
    for (uint32_t i = 0; i < r->in_flight; i++) {
        flight       *f = &r->flights[r->here[i]];
        const int32_t priority = priority_of(r, r->here[i], f);
        if (priority == f->priority) continue;
        f->priority = priority, r->figures->events++;
        check(scheduler_set_priority(r->scheduler, r->now_us, r->here[i] + 1u, priority));
    }
}

static void end_copies(run *r) {
    for (uint64_t id; (id = copy_link_take(&r->link, r->now_us)) != 0; r->figures->events++)
        scheduler_copy_done(r->scheduler, r->now_us, id, true);
}

static void play(run *r) {
    for (uint64_t next; (next = next_us(r)) != NEVER;) {
        r->now_us = next > r->now_us ? next : r->now_us;
        for (const agenda_entry *e; (e = agenda_first(&r->agenda)) != NULL && e->due_us <= r->now_us;)
            submit(r, agenda_take(&r->agenda));
        if (r->now_us >= r->tick_us) change_priorities(r);
        r->tick_us = priority_next_us(&r->s->priorities, r->now_us);
        end_copies(r);
        if (r->runs && r->end_us <= r->now_us) end_pass(r);
        else consider_stop(r);
        if (!r->runs) start_pass(r);
    }
    check(r->in_flight == 0 && !r->runs);
}

/* ---- the whole ---- */

static void *zeroed(size_t count, size_t size) {
    void *p = calloc(count + 1, size);
    if (!p) fatal("out of memory for %zu requests", count);
    return p;
}

static void prepare_outcomes(run *r) {
    for (uint32_t i = 0; i < r->trace->request_count; i++) {
        const trace_request *q = &r->trace->requests[i];
        const prompt_lengths l = prompt_measure(&r->rules, q);
        r->record->outcomes[i] = (outcome){.session = q->session,
                                           .turn = q->turn,
                                           .prompt_tokens = l.prompt_tokens,
                                           .output_tokens = l.output_tokens,
                                           .slo = slo_given(&q->slo) ? q->slo : r->s->slo};
        r->record->cut_lengths += l.cut;
    }
}

/* As engine_open makes it. */
static scheduler_config scheduler_settings_of(const engine_config *e, const checkpoint *model, const program *p) {
    const model_facts *f = checkpoint_facts(model);
    scheduler_config   c = e->scheduler_settings;
    c.model = (model_shape){.op_count = p->op_count,
                            .op_cuts = p->layer_begin + 1,
                            .op_cut_count = p->layer_count - 1,
                            .experts = f->expert_count,
                            .experts_per_row = f->experts_per_token};
    return c;
}

int simulation_check(const checkpoint *model, const engine_config *c, error *err) {
    const model_facts *f = checkpoint_facts(model);
    program            p;
    int                code = program_build(&p, f, program_activation(f), err);
    if (code != OK) return code;
    const scheduler_config made = scheduler_settings_of(c, model, &p);
    code = scheduler_config_check(&made, err);
    program_free(&p);
    return code;
}

static int open_scheduler(run *r, error *err) {
    scheduler_config c = scheduler_settings_of(r->s->engine, r->s->model, pass_cost_program(r->cost));
    c.reclaim.page_copy_us = (double)pass_cost_page_copy_ns(r->cost) * 1e-3;
    return scheduler_new(&r->scheduler, &c, err);
}

static void give_memory(run *r) {
    for (uint32_t i = 0; r->contexts && i < r->trace->session_count; i++) token_list_free(&r->contexts[i]);
    for (uint32_t i = 0; r->flights && i < r->trace->request_count; i++) token_list_free(&r->flights[i].tokens);
    free(r->flights), free(r->contexts), free(r->outcomes), free(r->levels), free(r->here);
    scheduler_free(r->scheduler), pass_cost_close(r->cost), copy_link_close(&r->link);
}

int simulate(const simulation *s, const trace *t, record *out, simulated *figures, error *err) {
    run r = {.s = s,
             .trace = t,
             .record = out,
             .figures = figures,
             .first_start_us = NEVER,
             .tick_us = NEVER,
             .rules = {s->seed, checkpoint_facts(s->model)->vocab_size, s->length_scale,
                       s->engine->scheduler_settings.context_max}};
    *figures = (simulated){0};
    int code = pass_cost_open(&r.cost, s->model, s->engine, err);
    if (code == OK) code = open_scheduler(&r, err);
    if (code != OK) return give_memory(&r), code;
    copy_link_open(&r.link, pass_cost_page_copy_ns(r.cost), s->engine->scheduler_settings.page_count,
                   s->engine->scheduler_settings.reclaim.host_pages);
    r.host_ns = (uint64_t)pass_cost_host_ns(r.cost), r.request_us = (uint64_t)(pass_cost_request_ns(r.cost) * 1e-3 + 0.5);
    r.flights = zeroed(t->request_count, sizeof *r.flights), r.contexts = zeroed(t->session_count, sizeof *r.contexts);
    r.levels = zeroed(t->session_count, sizeof *r.levels), r.here = zeroed(t->request_count, sizeof *r.here);
    r.outcomes = zeroed(s->engine->scheduler_settings.batch_tokens_max, sizeof *r.outcomes);
    agenda_open(&r.agenda, t, &s->pace);
    prepare_outcomes(&r);
    play(&r);
    agenda_close(&r.agenda);
    scheduler_read_stats(r.scheduler, &figures->scheduler);
    if (r.last_end_us) out->duration_us = r.last_end_us - r.first_start_us;
    give_memory(&r);
    return OK;
}

void simulated_free(simulated *f) { series_free(&f->stop_reactions_s); }
