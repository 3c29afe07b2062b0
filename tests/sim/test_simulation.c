/* tests/sim/test_simulation.c: the production scheduler and KV cache, a pretend device, and a clock made of arithmetic.
 *
 * A scenario is a row of dice; a seed throws them: sizes, policies, arrivals, shared prefixes, cancellations, stops at
 * random operators, ends. Everything is checked after each event, and any failure is replayed from its seed:
 *
 *     PENSTOCK_SIM_SEED=first PENSTOCK_SIM_SEEDS=count PENSTOCK_SIM_EVENTS=per-seed build/tests/sim/test_simulation
 *
 * An event is an arrival, a cancellation, the end or the stop of a pass, a copy that was reported, or a time at which the
 * scheduler wanted to be asked; after each the next pass is planned. What goes wrong on purpose: passes a hundred times
 * slower and times in which all are slow, copies that fail or come late, storms of cancellations, prompts at the limit, a
 * pool of three pages, a clock at its end, a tenant with ten times the load, a cache that is dropped.
 *
 * What is checked: pages conserved; every slice reads exactly its own prefix at every operator (pretend_device.h); rows
 * within budget; decodes are never left out; each accepted request ends exactly once; nobody waits beyond the bound of its
 * order (scheduler/order.c, line.c), and where that is a comparison, nobody goes first who should not; conservative
 * admission never takes memory back; everything is free after cancelling all; and scheduler_check, after each event or on a
 * seeded share of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "scheduler/order.h"
#include "tests/sim/pretend_device.h"

/* ---- scenarios ---- */

typedef struct {
    const char *name;
    uint32_t    seeds, events;        /* per seed */
    uint32_t    pages_min, pages_max; /* of up to 6 tokens */
    uint32_t    running_max, waiting_max;
    uint32_t    arrive_us;      /* mean time between requests; a pass takes around 100 */
    uint32_t    cancel_percent; /* of the events from outside */
    uint32_t    stop_percent;   /* of the passes that may be stopped */
    uint32_t    finish_percent; /* per token drawn */
    uint32_t    limit_percent;  /* of the prompts: as long as the limits allow */
    uint32_t    slow_percent;   /* of the passes: a hundred times longer; a tenth of these begin a time of slow ones */
    uint32_t    check_every;    /* scheduler_check after one event in so many */
    bool        urgent;       /* passes of prefill yield to arrivals and to decodes that said when they want their tokens */
    bool        steep;        /* layers only, in frames and passes so narrow that prompts lie about in pieces */
    uint32_t    swap_percent; /* of the seeds: pages are copied to host memory and back */
    uint32_t    copy_us;      /* mean time between two copies that are done */
    uint32_t    fail_percent; /* of the copies */
    bool        ends;         /* the clock reaches its last microsecond on the way, and stands there */
    bool        crowd;        /* tenants take turns, and one asks ten times as often as the other, for more */
} scenario;

/* clang-format off */
static const scenario scenarios[] = {
    /*                                                 seeds events  pages    run wait arrive cancel stop finish limit slow check urgent steep swap copy fail ends crowd */
    {"a_mixed_load_keeps_every_invariant",               8, 40000,  20,  80,  10,  30,   300,   3,  30,   12,    2,   1,  16, false, false,  20,   20,  2, false, false},
    {"every_invariant_holds_after_each_event",          14, 25000,   4,  40,   6,  12,   300,   8,  40,   15,    8,   2,   1, false, false,  20,   20,  2, false, false},
    {"a_pool_of_three_pages_serves_everyone",            6, 30000,   3,   3,   4,   8,   500,   5,  40,   15,   10,   1,   4, false, false,  20,   20,  2, false, false},
    {"a_storm_of_cancellations_leaves_nothing_behind",   8, 30000,  10,  60,   8,  40,    80,  55,  30,   10,    5,   5,   8, false, false,  20,   20,  2, false, false},
    {"prompts_at_the_limit_finish_in_turn",              6, 30000,   6,  30,   8,  16,   400,   2,  20,   10,   80,   1,   8, false, false,  20,   20,  2, false, false},
    {"stops_at_any_operator_lose_nothing",              16, 20000,  15,  60,   4,  16,   600,   4,  60,   40,   10,   1,   4, false, false,  20,   20,  2, false, false},
    {"prompts_in_many_pieces_get_to_the_end",           16, 20000,   8,  20,   8,  16,   500,   2,  60,    5,   10,   1,   4, false,  true,  20,   20,  2, false, false},
    {"slow_passes_fill_the_queue_and_drain_it",          6, 30000,  20,  60,   8,  20,   300,   5,  20,   10,    5,   5,  16, false, false,  20,   20,  2, false, false},
    {"a_full_house_of_decodes_goes_on",                  4, 40000,  60, 120,  24,  40,   200,   2,  20,    4,    1,   1,  64, false, false,  20,   20,  2, false, false},
    {"urgent_passes_run_on_top_of_stopped_ones",         12, 25000,  20,  80,   8,  16,   150,   4,  10,    8,    5,   2,   4,  true, false,  20,   20,  2, false, false},
    {"decodes_that_wait_for_prompts_are_never_forgotten", 8, 25000,  40, 120,   6,  16,   900,   4,   5,    3,    5,   1,   4,  true, false,  20,   20,  2, false, false},
    {"what_was_copied_out_comes_back_whole",             16, 20000,   8,  40,   8,  16,   300,   3,  20,    6,   10,   1,   2, false, false, 100,   10,  0, false, false},
    {"copies_that_fail_lose_nothing",                    12, 20000,   8,  40,   8,  16,   300,   3,  20,    6,   10,   1,   2, false, false, 100,   20, 40, false, false},
    {"copies_slower_than_passes_delay_nobody_else",       8, 20000,   8,  40,   8,  16,   300,   3,  20,    6,   10,   1,   2,  true, false, 100,  300,  5, false, false},
    {"three_pages_are_swapped_and_serve_everyone",        8, 20000,   3,   3,   4,   8,   500,   5,  40,   10,   10,   1,   2, false, false, 100,   30, 10, false, false},
    {"a_storm_of_cancellations_meets_copies_in_flight",   8, 25000,   8,  30,   8,  30,    80,  50,  30,    6,    5,   3,   2, false, false, 100,   60, 10, false, false},
    {"a_clock_that_comes_to_its_end_stops_nobody",       12, 20000,   8,  60,   8,  16,   300,   5,  20,    8,   10,   3,   4,  true, false,  30,   20,  5,  true, false},
    {"ten_times_the_load_is_the_heavy_tenants_own",      12, 25000,  20,  80,   8,  30,   150,   2,  20,    6,    2,   1,   8, false, false,  20,   20,  2, false,  true},
};
/* clang-format on */
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

static uint64_t events_simulated; /* by all scenarios */

/* ---- the world ---- */

enum { PROMPTS_KEPT = 16, TOKENS_MAX = 1024, LIVE_MAX = 256, TENANTS = 3, LIGHT = 1, HEAVY = 2 };
#define CLOCK_END (UINT64_MAX - 1) /* the very last says: never */

typedef struct {
    bool     live, started, entered, cancelled, finished;
    uint64_t id, salt, tenant, key, passes_before, preempted_before, wait_bound, left_before, left_bound, tbt_us, drew_us;
    uint32_t prompt, output_max, known, preemptions;
    uint64_t number, arrived_us;
    bool     drew; /* in the last pass: must have a row in the next */
    uint32_t tokens[TOKENS_MAX];
    uint64_t prefix[TOKENS_MAX];
} request;

/* Conversations that later prompts begin with. */
typedef struct {
    uint64_t salt;
    uint32_t count, tokens[TOKENS_MAX];
} conversation;

typedef struct {
    const scenario  *dice;
    rng              random;
    scheduler_config config;
    uint32_t         op_cuts[8];
    scheduler       *scheduler;
    pretend_device   device;
    uint64_t         now_us, arrive_at_us, done_at_us; /* done_at_us: of the pass in flight */
    bool             in_flight, woken;                 /* woken: the pass in flight was looked at when it asked for that */
    uint32_t         tbt_percent, tbt_max_us;          /* of the requests: say how fast they want tokens */
    plan             plan;
    slice_outcome   *outcomes;
    pretend_copy    *copies; /* [copies_max] in flight, by id */
    uint32_t         copy_count;
    uint64_t         copy_at_us; /* when the next is done */
    request         *requests;   /* [LIVE_MAX] */
    uint32_t         live_count;
    conversation     kept[PROMPTS_KEPT];
    uint64_t         copied_out, copied_in, failed_copies, arrivals, accepted, ended, passes_done, passes_stopped, events,
        cut_slices, longest_wait, waits, trace;
    uint64_t left[TENANTS];                   /* got their first token, of each tenant that is told apart */
    uint64_t began[TENANTS], waited[TENANTS]; /* requests that had a first row, and the passes they waited for it */
    uint32_t slow_left;                       /* passes of a time in which the device is slow */
} world;

static uint32_t below(world *w, uint32_t n) { return (uint32_t)rng_below(&w->random, n); }
static uint32_t between(world *w, uint32_t a, uint32_t b) { return a + below(w, b - a + 1); }
static bool     percent(world *w, uint32_t p) { return below(w, 100) < p; }
static void     fold(world *w, uint64_t x) { w->trace = (w->trace ^ x) * 0x9E3779B97F4A7C15u + (w->trace >> 29); }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint64_t least_time(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t after(uint64_t us, uint64_t from_us) { return us < CLOCK_END - from_us ? from_us + us : CLOCK_END; }

static void draw_config(world *w) {
    const scenario   *d = w->dice;
    scheduler_config *c = &w->config;
    *c = (scheduler_config){
        .running_max = between(w, 1, d->running_max),
        .waiting_max = between(w, 1, d->waiting_max),
        .page_count = between(w, d->pages_min, d->pages_max),
        .page_tokens = between(w, 1, 6),
        .model.op_count = between(w, 1, 7),
        .order = {(order_policy)below(w, ORDER_COUNT), .age_ms = between(w, 0, 3)},
        .fair = {percent(w, 30), .tenants_max = percent(w, 30) ? between(w, 2, 3) : 0},
        .admission = {(admission_policy)below(w, ADMISSION_COUNT), between(w, 0, 99), percent(w, 50) ? 1 : 0},
        .slicing = {.policy = (slicing_policy)below(w, SLICING_COUNT), .budget = (slicing_budget)below(w, 2)},
        .retention.prefix_cache = !percent(w, 15),
        .jobs_max = between(w, 1, 24),
        .seed = rng_next(&w->random)};
    c->context_max = least(TOKENS_MAX, between(w, 2, c->page_count * c->page_tokens + 8));
    c->batch_tokens_max = c->running_max + between(w, 1, percent(w, 30) ? 5 : 40);
    c->slicing.chunk_tokens = between(w, 1, 20);
    c->waiting_tokens_max = percent(w, 20) ? c->context_max * 3 : 0;
    if (percent(w, 30)) c->slicing.short_tokens = between(w, 1, 20);
    if (d->crowd) c->fair = (fair_config){true, TENANTS};
    if (percent(w, 50)) c->model.experts = 8, c->model.experts_per_row = 2;
    c->frame_count = below(w, 5);
    if (c->slicing.policy == SLICING_LAYERED && c->frame_count == 0) c->frame_count = 1;
    c->frame_tokens = c->frame_count ? between(w, 1, percent(w, 30) ? 5 : c->batch_tokens_max + 3) : 0;
    if (d->steep) {
        c->slicing.policy = SLICING_LAYERED, c->admission.policy = ADMISSION_GREEDY;
        c->model.op_count = 7, c->frame_count = 8, c->frame_tokens = between(w, 1, 6);
        c->batch_tokens_max = c->running_max + between(w, 1, 12);
    }
    w->tbt_percent = percent(w, 50) ? 30 : 100, w->tbt_max_us = 400;
    if (d->urgent && c->frame_count > 0) {
        c->preemption = (preemption_config){PREEMPTION_OPERATOR, percent(w, 50) ? between(w, 1, 40) : 0, percent(w, 80)};
        w->tbt_max_us = 3000;
    }
    for (uint32_t op = 1; op < c->model.op_count; op++)
        if (d->steep || percent(w, 50)) w->op_cuts[c->model.op_cut_count++] = op;
    c->model.op_cuts = w->op_cuts;
    if (d->swap_percent == 100 && percent(w, 90)) c->admission.policy = ADMISSION_GREEDY; /* memory is short */
    if (percent(w, d->swap_percent)) {
        c->reclaim = (reclaim_config){.policy = percent(w, 80) ? RECLAIM_SWAP : RECLAIM_AUTO,
                                      .displaces = c->order.policy == ORDER_PRIORITY && percent(w, 50),
                                      .host_pages = between(w, 1, 2 * c->page_count),
                                      .copies_max = between(w, 1, percent(w, 30) ? 3 : 40)};
        c->retention.prefix_cache = true;
    }
    c->retention.policy = (retention_policy)below(w, RETENTION_COUNT);
    c->retention.ttl_us = between(w, 1, 20000), c->retention.ttl_fitted = percent(w, 30);
    c->retention.pins_percent = between(w, 1, 100), c->retention.tenant_pins_percent = between(w, 1, 100);
}

static void world_open(world *w, const scenario *dice, uint64_t seed) {
    *w = (world){.dice = dice, .random = {.seed = seed * 64 + (uint64_t)(dice - scenarios)}, .trace = 1};
    draw_config(w);
    error err;
    if (scheduler_new(&w->scheduler, &w->config, &err) != OK) fail_msg("%s", err.text);
    device_open(&w->device, &w->config);
    w->outcomes = calloc(w->config.batch_tokens_max, sizeof *w->outcomes);
    w->requests = calloc(LIVE_MAX, sizeof *w->requests);
    w->copies = calloc(w->config.reclaim.copies_max + 1, sizeof *w->copies);
    check(w->outcomes && w->requests && w->copies && w->config.waiting_max + 2 * w->config.running_max <= LIVE_MAX);
    w->now_us = dice->ends ? CLOCK_END - below(w, 1000000) : percent(w, 10) ? UINT64_MAX - (1ull << 40) : below(w, 1000);
    w->arrive_at_us = w->now_us, w->copy_at_us = UINT64_MAX;
}

static void world_close(world *w) {
    scheduler_free(w->scheduler);
    device_close(&w->device);
    free(w->outcomes);
    free(w->requests);
    free(w->copies);
}

/* ---- requests ---- */

static void append(request *r, uint32_t token) {
    uint64_t before = r->known ? r->prefix[r->known - 1] : r->salt * 31 + 7;
    r->tokens[r->known] = token;
    r->prefix[r->known] = (before ^ (token + 1)) * 0x9E3779B97F4A7C15u + (before >> 31);
    r->known++;
}

/* A prompt: often the beginning of a conversation that was seen before, then new tokens of a tiny vocabulary. */
static void draw_prompt(world *w, request *r, uint64_t tenant) {
    uint32_t limit = w->config.context_max, count = between(w, 1, limit);
    if (percent(w, w->dice->limit_percent)) count = limit - 1;
    else if (w->dice->crowd) count = between(w, 1, least(limit, tenant == LIGHT ? 6 : 60));
    else if (percent(w, 80)) count = between(w, 1, least(limit, 24));
    const conversation *c = &w->kept[below(w, PROMPTS_KEPT)];
    uint32_t            same = percent(w, 70) ? least(c->count, percent(w, 50) ? count : below(w, count + 1)) : 0;
    *r = (request){.id = r->id, .salt = same ? c->salt : below(w, 2)};
    for (uint32_t i = 0; i < same; i++) append(r, c->tokens[i]);
    while (r->known < count) append(r, below(w, 3));
    r->prompt = count;
    r->output_max = percent(w, 10) ? limit : between(w, 1, 30); /* sometimes too large: refused */
    if (percent(w, 90)) r->output_max = least(r->output_max, limit > count ? limit - count : 1);
}

/* Completed passes that a request may wait for its first row; see scheduler/order.c. */
static uint64_t passes_of(const world *w, uint32_t prompt, uint32_t output) {
    const scheduler_config *c = &w->config;
    uint32_t                rows = c->batch_tokens_max - c->running_max;
    if (c->slicing.policy != SLICING_WHOLE)
        rows = least(rows, c->slicing.chunk_tokens < 8 ? 1 : c->slicing.chunk_tokens / 8);
    bool cuts = c->slicing.policy == SLICING_LAYERED || c->slicing.policy == SLICING_AUTO ||
                (w->dice->stop_percent > 0 && c->frame_count > 0);
    if (cuts) rows = 1; /* a suspended piece is taken up as it is */
    const uint64_t passes = (uint64_t)((prompt + rows - 1) / rows) * (cuts ? c->model.op_cut_count + 1 : 1) + output;
    /* decodes that waited go alone, and long prompts take turns with short ones */
    return (c->preemption.policy == PREEMPTION_OPERATOR ? 2 : 1) * (c->slicing.short_tokens ? 2 : 1) * passes;
}

/* What first come, first served and priority go by, from their definitions; 0: not a matter of one number. */
static uint64_t key_of(const world *w, uint64_t number, uint64_t arrived_us, int32_t priority) {
    const order_config *o = &w->config.order;
    const uint64_t      wait_us = (uint64_t)((int64_t)priority - INT32_MIN) * (o->age_ms ? o->age_ms * 1000 : 30000000);
    if (w->config.fair.turns || o->policy > ORDER_PRIORITY) return 0;
    if (o->policy == ORDER_FCFS || wait_us > UINT64_MAX - arrived_us) return number; /* at the clock's limit all are alike */
    return arrived_us + wait_us;
}

static uint64_t *left_of(world *w, const request *r) { return &w->left[w->config.fair.turns ? r->tenant : 0]; }

/* Now and then so long that it goes beyond the end of the clock. */
static uint64_t wish(world *w, uint32_t percentage, uint32_t most_us) {
    if (!percent(w, percentage)) return 0;
    return w->dice->ends && percent(w, 30) ? UINT64_MAX - below(w, 3000000) : between(w, 1, most_us);
}

static void submit(world *w) {
    const uint64_t tenant = !w->dice->crowd ? below(w, TENANTS) : below(w, 11) == 0 ? LIGHT : HEAVY;
    request       *r = w->requests;
    while (r < w->requests + LIVE_MAX && r->live) r++;
    check(r < w->requests + LIVE_MAX);
    r->id = ++w->arrivals << 8 | (uint64_t)(r - w->requests);
    draw_prompt(w, r, tenant);
    r->tbt_us = percent(w, w->tbt_percent) ? between(w, 1, w->tbt_max_us) : 0;
    scheduler_request q = {.id = r->id,
                           .tokens = r->tokens,
                           .prompt_tokens = r->prompt,
                           .output_tokens_max = r->output_max,
                           .cache_salt = r->salt,
                           .computes_all = percent(w, 3),
                           .priority = (int32_t)below(w, 4) - 1,
                           .tenant = {tenant, !w->dice->crowd && percent(w, 50) ? between(w, 1, 3) : 0},
                           .job = {.id = percent(w, 50) ? between(w, 1, 20) : 0,
                                   .tool = below(w, 3),
                                   .expected_gap_us = wish(w, 20, 5000),
                                   .ttl_us = wish(w, 20, 50000),
                                   .last_step = percent(w, 10)},
                           .slo = {.ttft_us = wish(w, 40, 5000),
                                   .tbt_us = r->tbt_us,
                                   .deadline_us = wish(w, 30, 20000),
                                   .job_deadline_us = wish(w, 20, 100000),
                                   .value = percent(w, 30) ? between(w, 1, 9) : 0}};
    error             err;
    int               status = scheduler_submit(w->scheduler, w->now_us, &q, &err);
    check(status == OK || status == ERR_FULL || status == ERR_TOO_LARGE);
    check((status == ERR_TOO_LARGE) == (r->prompt + r->output_max > w->config.context_max ||
                                        (r->prompt + r->output_max - 2) / w->config.page_tokens >= w->config.page_count ||
                                        (w->config.waiting_tokens_max > 0 && r->prompt > w->config.waiting_tokens_max)));
    fold(w, r->id * 8 + (uint64_t)-status);
    if (status != OK) return;
    scheduler_stats stats;
    scheduler_read_stats(w->scheduler, &stats);
    r->passes_before = w->passes_done, r->preempted_before = stats.preempted;
    r->tenant = tenant, r->number = w->arrivals, r->arrived_us = w->now_us,
    r->key = key_of(w, r->number, r->arrived_us, q.priority);
    r->left_before = *left_of(w, r), r->left_bound = ELDER_MOST + 1 + w->config.running_max;
    for (uint32_t i = 0; i < LIVE_MAX; i++) {
        if (!w->requests[i].live) continue;
        r->wait_bound += passes_of(w, w->requests[i].prompt, w->requests[i].output_max);
        r->left_bound += ELDER_MOST + 1 + w->config.running_max;
    }
    r->live = true;
    w->accepted++;
    w->live_count++;
}

static void end(world *w, request *r) {
    check(r->live && !scheduler_is_live(w->scheduler, r->id));
    check(!scheduler_cancel(w->scheduler, w->now_us, r->id));
    conversation *c = &w->kept[below(w, PROMPTS_KEPT)];
    c->salt = r->salt, c->count = r->known;
    memcpy(c->tokens, r->tokens, r->known * sizeof *r->tokens);
    r->live = false;
    memset(r->tokens, 0xEE, sizeof r->tokens); /* the scheduler must not look any more */
    w->ended++;
    w->live_count--;
}

static void cancel_one(world *w, request *r) {
    fold(w, r->id);
    check(scheduler_cancel(w->scheduler, w->now_us, r->id));
    r->cancelled = true;
    if (!scheduler_is_live(w->scheduler, r->id)) end(w, r);
}

/* In a storm sometimes everybody at once. */
static void cancel(world *w) {
    enum { STORM_PERCENT = 50 };
    if (w->live_count == 0) return;
    if (w->dice->cancel_percent >= STORM_PERCENT && percent(w, 1)) {
        for (uint32_t i = 0; i < LIVE_MAX; i++)
            if (w->requests[i].live) cancel_one(w, &w->requests[i]);
        return;
    }
    uint32_t pick = below(w, LIVE_MAX);
    while (!w->requests[pick].live) pick = (pick + 1) % LIVE_MAX;
    cancel_one(w, &w->requests[pick]);
}

static void change_priority(world *w) {
    request      *r = &w->requests[below(w, LIVE_MAX)];
    const int32_t priority = (int32_t)below(w, 4) - 1;
    check(scheduler_set_priority(w->scheduler, w->now_us, r->id, priority) == r->live);
    if (r->live) r->key = key_of(w, r->number, r->arrived_us, priority);
}

/* ---- passes ---- */

static request *request_of(world *w, uint64_t id) {
    request *r = &w->requests[id & 0xFF];
    check(r->live && r->id == id);
    return r;
}

static void check_first_row(world *w, request *r) {
    if (r->started) return;
    r->started = true;
    scheduler_stats stats;
    scheduler_read_stats(w->scheduler, &stats);
    uint64_t again = stats.preempted - r->preempted_before, waited = w->passes_done - r->passes_before;
    if (waited > w->longest_wait) w->longest_wait = waited;
    w->began[r->tenant]++, w->waited[r->tenant] += waited;
    if (w->config.reclaim.policy != RECLAIM_RECOMPUTE) return; /* and for as long as copies take */
    if (w->config.order.policy == ORDER_FCFS && !w->config.fair.turns)
        check(waited <= r->wait_bound + again * passes_of(w, w->config.context_max, 1));
    if (w->config.order.policy > ORDER_PRIORITY && (!w->config.fair.turns || w->config.fair.tenants_max == 0))
        check(*left_of(w, r) - r->left_before <= r->left_bound * (w->config.slicing.short_tokens ? 2 : 1));
}

/* Else it runs, though it may wait for copies of its pages. */
static bool waits(const world *w, const request *r) {
    scheduler_progress now;
    return scheduler_read_progress(w->scheduler, r->id, &now) && !now.running;
}

/* Of those who were let in now, nobody goes after one who still waits. */
static void check_order(world *w) {
    if (key_of(w, 1, 1, 0) == 0 || w->config.slicing.short_tokens > 0) return; /* short prompts pass long ones */
    uint64_t last = 0, first = UINT64_MAX;
    for (uint32_t i = 0; i < LIVE_MAX; i++) {
        request *r = &w->requests[i];
        if (!r->live || r->entered) continue;
        if (waits(w, r)) {
            if (r->key < first) first = r->key;
            continue;
        }
        if (r->key > last) last = r->key;
        r->entered = true;
    }
    check(last <= first);
}

/* Whoever drew a token and still runs must draw the next one in this pass, unless it may wait: then it said by when it
 * wants it, that time has not come, and the pass can be stopped. */
static void check_nobody_stalls(world *w) {
    for (uint32_t i = 0; i < w->plan.decode_rows; i++) request_of(w, w->plan.slices[i].id)->drew = false;
    for (uint32_t i = 0; i < LIVE_MAX; i++) {
        request *r = &w->requests[i];
        if (!r->live || !r->drew) continue;
        scheduler_progress now;
        const uint64_t     due_us = after(r->tbt_us, r->drew_us);
        if (w->plan.stoppable && w->config.preemption.decodes_wait && r->tbt_us > 0 && w->now_us < due_us) {
            scheduler_read_progress(w->scheduler, r->id, &now);
            if (now.preemptions == r->preemptions) {
                check(scheduler_wake_us(w->scheduler) < due_us);
                w->waits++;
                continue;
            }
        }
        check(scheduler_read_progress(w->scheduler, r->id, &now) && now.preemptions > r->preemptions);
        r->preemptions = now.preemptions;
        r->drew = false;
    }
}

static void check_plan(world *w) {
    const scheduler_config *c = &w->config;
    const plan             *p = &w->plan;
    uint32_t                rows = 0;
    for (uint32_t i = 0; i < p->slice_count; i++) {
        const slice *s = &p->slices[i];
        request     *r = request_of(w, s->id);
        uint32_t     width = s->token_end - s->token_begin;
        bool         decodes = i < p->decode_rows, reaches_end = s->token_end == r->known && s->op_end == c->model.op_count;
        rows += width;
        check(s->token_begin < s->token_end && s->token_end <= r->known && s->op_begin < s->op_end &&
              s->op_end <= c->model.op_count);
        check(s->samples == reaches_end && !r->cancelled && s->slot < c->running_max);
        check((s->op_begin == 0) == (s->frame_in.frame == NO_FRAME));
        check(!decodes || (width == 1 && s->op_begin == 0 && reaches_end));
        check((s->op_end == c->model.op_count && !p->stoppable) || s->frame_out.frame < c->frame_count);
        check_first_row(w, r);
        w->cut_slices += s->op_end < c->model.op_count;
        fold(w, s->id ^ (uint64_t)s->token_begin << 40 ^ (uint64_t)s->token_end << 20 ^ s->op_end);
    }
    check(rows == p->decode_rows + p->prefill_rows && rows <= c->batch_tokens_max);
    check(!p->stoppable || p->decode_rows == 0);
    if (c->slicing.policy == SLICING_CHUNKED && c->slicing.budget == SLICING_BUDGET_FIXED && p->decode_rows > 0 &&
        !c->preemption.decodes_wait) {
        bool resumes = false; /* a suspended piece may be wider than a chunk: it is cut, and so never is */
        for (uint32_t i = 0; i < p->slice_count; i++) resumes |= p->slices[i].op_begin > 0;
        check(p->prefill_rows <= c->slicing.chunk_tokens || resumes);
        check(p->prefill_rows <= c->slicing.chunk_tokens);
    }
}

/* ---- copies ---- */

static void take_copies(world *w) {
    const plan *p = &w->plan;
    for (uint32_t i = 0; i < p->copy_count; i++) {
        check(w->copy_count < w->config.reclaim.copies_max);
        check(w->copy_count == 0 || w->copies[w->copy_count - 1].copy.id < p->copies[i].id);
        w->copies[w->copy_count++] = (pretend_copy){.copy = p->copies[i], .fails = percent(w, w->dice->fail_percent)};
        fold(w, p->copies[i].id << 32 ^ (uint64_t)p->copies[i].page << 8 ^ p->copies[i].host_page);
    }
    if (w->copy_count > 0 && w->copy_at_us == UINT64_MAX) w->copy_at_us = after(below(w, 2 * w->dice->copy_us), w->now_us);
}

/* Copies of the same page keep their order, others may overtake. What was done may be reported later. */
static bool must_follow(const world *w, uint32_t at) {
    for (uint32_t i = 0; i < at; i++)
        if (w->copies[i].copy.page == w->copies[at].copy.page || w->copies[i].copy.host_page == w->copies[at].copy.host_page)
            return true;
    return false;
}

static void report_copy(world *w, uint32_t at) {
    pretend_copy c = w->copies[at];
    if (!c.done) device_copy(&w->device, &c);
    memmove(w->copies + at, w->copies + at + 1, (--w->copy_count - at) * sizeof *w->copies);
    *(c.copy.to_host ? &w->copied_out : &w->copied_in) += !c.fails;
    w->failed_copies += c.fails;
    scheduler_copy_done(w->scheduler, w->now_us, c.copy.id, !c.fails);
}

/* All up to this one have taken effect: a pass is waiting for them. */
static void finish_copies(world *w, uint64_t last) {
    for (uint32_t i = 0; i < w->copy_count && w->copies[i].copy.id <= last; i++) {
        if (!w->copies[i].done) device_copy(&w->device, &w->copies[i]);
        w->copies[i].done = true;
    }
    while (percent(w, 50) && w->copy_count > 0 && w->copies[0].copy.id <= last) report_copy(w, 0);
}

static void next_copy(world *w) {
    uint32_t at = below(w, w->copy_count);
    while (must_follow(w, at)) at--;
    report_copy(w, at);
    w->copy_at_us = w->copy_count > 0 ? after(below(w, 2 * w->dice->copy_us), w->now_us) : UINT64_MAX;
}

/* Of a pass, in hundreds of microseconds or so. */
static uint32_t slowness(world *w) {
    const bool slow = percent(w, w->dice->slow_percent);
    if (slow && percent(w, 10)) w->slow_left = between(w, 10, 60);
    if (w->slow_left > 0) return w->slow_left--, 10;
    return slow ? 100 : 1;
}

static void plan_next(world *w) {
    scheduler_stats stats;
    const bool      runs = scheduler_plan(w->scheduler, w->now_us, &w->plan);
    take_copies(w);
    scheduler_read_stats(w->scheduler, &stats);
    check(runs || w->live_count == 0 || (stats.arriving > 0 && w->copy_count > 0));
    check_order(w);
    if (!runs) return;
    if (w->plan.waits_for > 0) finish_copies(w, w->plan.waits_for);
    check_nobody_stalls(w);
    check_plan(w);
    for (uint32_t i = 0; i < w->plan.slice_count; i++) {
        slice_data *x = &w->device.data[i];
        x->prefix = request_of(w, w->plan.slices[i].id)->prefix;
        x->pages = scheduler_pages(w->scheduler, w->plan.slices[i].slot, &x->page_count);
    }
    w->in_flight = true, w->woken = false;
    w->done_at_us = after(between(w, 50, 150) * slowness(w), w->now_us);
}

/* The device walks when the pass ends, so that what happened meanwhile could have done harm. */
static void finish_pass(world *w, bool wants_stop) {
    const plan *p = &w->plan;
    w->in_flight = false;
    bool stops = p->stoppable && w->config.model.op_count > 1 && (wants_stop || percent(w, w->dice->stop_percent));
    if (stops) {
        uint32_t op = between(w, 1, w->config.model.op_count - 1);
        device_walk(&w->device, p, op);
        w->passes_stopped++;
        fold(w, op);
        scheduler_pass_stopped(w->scheduler, w->now_us, op);
    } else {
        device_walk(&w->device, p, w->config.model.op_count);
        w->passes_done++;
        for (uint32_t i = 0; i < p->slice_count; i++) {
            if (!p->slices[i].samples) continue;
            request *r = request_of(w, p->slices[i].id);
            if (i >= p->decode_rows) ++*left_of(w, r);
            append(r, below(w, 3));
            bool finished = r->known == r->prompt + r->output_max || percent(w, w->dice->finish_percent);
            r->finished = finished;
            w->outcomes[i] = (slice_outcome){r->tokens[r->known - 1], finished};
            r->drew = true, r->drew_us = w->now_us;
        }
        scheduler_pass_done(w->scheduler, w->now_us, w->outcomes);
    }
    for (uint32_t i = 0; i < p->slice_count; i++) {
        request *r = &w->requests[p->slices[i].id & 0xFF];
        if (!r->live || r->id != p->slices[i].id || scheduler_is_live(w->scheduler, r->id)) continue;
        check(r->cancelled || r->finished);
        end(w, r);
    }
}

/* ---- events ---- */

static void check_counts(world *w) {
    scheduler_stats s;
    scheduler_read_stats(w->scheduler, &s);
    check(s.pages_total == w->config.page_count && s.pages_free + s.pages_cached + s.pages_held == s.pages_total);
    check(s.running <= w->config.running_max && s.waiting <= w->config.waiting_max + w->config.running_max);
    check(s.running + s.waiting == w->live_count && s.frames_used <= w->config.frame_count);
    check(s.accepted == w->accepted && s.finished + s.cancelled == w->ended);
    check(w->config.admission.policy != ADMISSION_CONSERVATIVE || s.preempted == s.displaced);
    check(s.copies_open == w->copy_count && s.host_pages_held <= s.host_pages_used &&
          s.host_pages_used <= s.host_pages_total);
    if (below(w, w->dice->check_every) == 0) scheduler_check(w->scheduler);
}

/* When the pass in flight wants to be looked at. */
static uint64_t wake_at_us(const world *w) {
    if (!w->in_flight || !w->plan.stoppable || w->woken) return UINT64_MAX;
    const uint64_t at_us = scheduler_wake_us(w->scheduler);
    return at_us > w->now_us ? at_us : w->now_us;
}

/* Sometimes the last boundary was behind it already. */
static void look_at_pass(world *w) {
    if (w->in_flight && scheduler_should_stop(w->scheduler, w->now_us) && percent(w, 90)) finish_pass(w, true);
}

/* Where the clock stands still, both come. */
static bool passes_first(world *w) {
    return w->arrive_at_us == CLOCK_END && w->done_at_us == CLOCK_END ? percent(w, 50) : w->done_at_us <= w->arrive_at_us;
}

static void one_event(world *w) {
    const uint64_t pass_us = w->in_flight ? w->done_at_us : UINT64_MAX;
    if (w->copy_count > 0 && w->copy_at_us <= least_time(least_time(wake_at_us(w), pass_us), w->arrive_at_us)) {
        w->now_us = w->copy_at_us > w->now_us ? w->copy_at_us : w->now_us;
        next_copy(w);
    } else if (wake_at_us(w) < least_time(w->done_at_us, w->arrive_at_us)) {
        w->now_us = wake_at_us(w);
        w->woken = true;
        look_at_pass(w);
    } else if (w->in_flight && passes_first(w)) {
        w->now_us = w->done_at_us;
        finish_pass(w, false);
    } else {
        w->now_us = w->arrive_at_us;
        w->arrive_at_us = after(below(w, 2 * w->dice->arrive_us), w->arrive_at_us);
        if (below(w, 500) == 0) scheduler_drop_cache(w->scheduler);
        if (percent(w, 2)) scheduler_end_job(w->scheduler, w->now_us, between(w, 1, 20));
        if (percent(w, 10)) change_priority(w);
        if (percent(w, w->dice->cancel_percent)) cancel(w);
        else submit(w);
        look_at_pass(w);
    }
    check_counts(w);
    if (!w->in_flight) plan_next(w);
    w->events++;
}

static void cancel_everything(world *w) {
    for (uint32_t i = 0; i < LIVE_MAX; i++) {
        request *r = &w->requests[i];
        if (!r->live) continue;
        scheduler_cancel(w->scheduler, w->now_us, r->id);
        r->cancelled = true;
        if (!scheduler_is_live(w->scheduler, r->id)) end(w, r);
    }
    if (w->in_flight) finish_pass(w, false);
    check(!scheduler_plan(w->scheduler, w->now_us, &w->plan) && w->plan.copy_count == 0);
    while (w->copy_count > 0) report_copy(w, 0);
    scheduler_check(w->scheduler);
    scheduler_drop_cache(w->scheduler);
    scheduler_check(w->scheduler);
    scheduler_stats s;
    scheduler_read_stats(w->scheduler, &s);
    check(s.pages_free == s.pages_total && s.frames_used == 0 && s.running + s.waiting == 0);
    check(s.host_pages_used == 0 && s.copies_open == 0 && s.swapped + s.arriving == 0);
    check(w->accepted == w->ended && s.accepted == w->accepted);
}

/* Where tenants take turns, who asks little is not made to wait for who asks for much. */
static void check_crowd(const world *w) {
    const uint64_t light = w->began[LIGHT], heavy = w->began[HEAVY];
    if (!w->dice->crowd || light < 50 || heavy < 50) return;
    check((double)w->waited[LIGHT] / (double)light <= (double)w->waited[HEAVY] / (double)heavy / 2 + 2);
}

static uint64_t simulate(const scenario *dice, uint64_t seed, uint32_t events, bool print) {
    static world w;
    if (print) fprintf(stderr, "sim %-48s seed %-6llu ", dice->name, (unsigned long long)seed), fflush(stderr);
    world_open(&w, dice, seed);
    while (w.events < events) one_event(&w);
    scheduler_stats s;
    scheduler_read_stats(w.scheduler, &s);
    check_crowd(&w);
    check(!dice->ends || w.events < dice->events || w.now_us == CLOCK_END);
    cancel_everything(&w);
    if (print)
        fprintf(stderr,
                "trace %016llx  %u events, %llu finished, %llu cancelled, %llu refused, %llu hits, %llu taken back, %llu "
                "stopped, %llu cut, %llu decodes waited, copies %llu out %llu clean %llu in %llu failed, longest wait %llu "
                "passes\n",
                (unsigned long long)w.trace, events, (unsigned long long)s.finished, (unsigned long long)s.cancelled,
                (unsigned long long)s.refused, (unsigned long long)s.cache_hit_tokens, (unsigned long long)s.preempted,
                (unsigned long long)w.passes_stopped, (unsigned long long)w.cut_slices, (unsigned long long)w.waits,
                (unsigned long long)w.copied_out, (unsigned long long)s.swap_clean_pages, (unsigned long long)w.copied_in,
                (unsigned long long)w.failed_copies, (unsigned long long)w.longest_wait);
    uint64_t trace = w.trace;
    events_simulated += w.events;
    world_close(&w);
    return trace;
}

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void run_scenario(void **state) {
    const scenario *dice = *state;
    uint64_t first = from_environment("PENSTOCK_SIM_SEED", 1), count = from_environment("PENSTOCK_SIM_SEEDS", dice->seeds);
    uint64_t events = from_environment("PENSTOCK_SIM_EVENTS", dice->events);
    for (uint64_t seed = first; seed < first + count; seed++) simulate(dice, seed, (uint32_t)events, true);
}

static void equal_seeds_give_equal_traces_and_different_seeds_differ(void **state) {
    (void)state;
    uint64_t traces[8];
    for (uint64_t seed = 0; seed < 8; seed++) {
        traces[seed] = simulate(&scenarios[0], seed, 1500, false);
        assert_true(traces[seed] == simulate(&scenarios[0], seed, 1500, false));
        for (uint64_t other = 0; other < seed; other++) assert_true(traces[seed] != traces[other]);
    }
}

/* So many as the docs say; fewer only where the environment asks for that. */
static void all_seeds_together_are_millions_of_events(void **state) {
    (void)state;
    enum { MILLIONS = 2 };
    const uint64_t wanted = from_environment("PENSTOCK_SIM_MILLIONS", MILLIONS);
    const bool     few = getenv("PENSTOCK_SIM_SEEDS") || getenv("PENSTOCK_SIM_EVENTS");
    fprintf(stderr, "sim: %llu events of %u scenarios\n", (unsigned long long)events_simulated, SCENARIOS);
    assert_true(events_simulated >= wanted * 1000000 || (few && !getenv("PENSTOCK_SIM_MILLIONS")));
}

int main(void) {
    struct CMUnitTest tests[SCENARIOS + 2];
    for (uint32_t i = 0; i < SCENARIOS; i++)
        tests[i] = (struct CMUnitTest){scenarios[i].name, run_scenario, NULL, NULL, (void *)(uintptr_t)&scenarios[i]};
    tests[SCENARIOS] = (struct CMUnitTest)cmocka_unit_test(all_seeds_together_are_millions_of_events);
    tests[SCENARIOS + 1] = (struct CMUnitTest)cmocka_unit_test(equal_seeds_give_equal_traces_and_different_seeds_differ);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
