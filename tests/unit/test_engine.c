/* The engine from outside: what goes in, what comes out, in which order, and what it is told of its limits. Mostly on the
 * sim device, whose answers depend on the request alone and whose clock is virtual. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <math.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/rng.h"
#include "engine/engine.h"
#include "tests/unit/tiny_models.h"

enum { EVENTS_MAX = 4096 };

/* ---- an engine and what it said ---- */

typedef struct {
    engine_event last;
    uint32_t     tokens[2048], token_count;
    sampled      drawn[64]; /* the first ones, with their log-probabilities */
    bool         finished;
} heard;

static engine_config sim_config(void) {
    engine_config c = {.model = "random:llama-160m", .device = "sim", .context_max = 1024};
    c.scheduler_settings.running_max = 8;
    c.scheduler_settings.waiting_max = 64;
    c.scheduler_settings.batch_tokens_max = 64;
    c.scheduler_settings.slicing.chunk_tokens = 16;
    c.scheduler_settings.page_tokens = 16;
    c.scheduler_settings.retention.prefix_cache = true;
    return c;
}

static engine *open_or_fail(const engine_config *c) {
    engine *e;
    error   err;
    if (engine_open(&e, c, &err) != OK) fail_msg("%s", err.text);
    return e;
}

static engine_request ask(uint64_t id, uint32_t prompt_tokens, uint32_t output_tokens) {
    engine_request r = {.id = id,
                        .tokens = malloc(prompt_tokens * sizeof(uint32_t)),
                        .prompt_tokens = prompt_tokens,
                        .output_tokens_max = output_tokens,
                        .params = {.seed = id, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1}};
    for (uint32_t i = 0; i < prompt_tokens; i++) r.tokens[i] = (uint32_t)(1000 + (id * 37 + i * 11) % 5000);
    return r;
}

/* Forces `token` whenever it is allowed: the sim device honours a bias of 100. */
static void force(engine_request *r, uint32_t token) {
    uint32_t *id = malloc(sizeof *id);
    float    *value = malloc(sizeof *value);
    *id = token, *value = 100;
    r->params.bias_ids = id, r->params.bias_values = value, r->params.bias_count = 1;
}

static void discard(engine_request *r) {
    free(r->tokens);
    free((void *)r->params.bias_ids);
    free((void *)r->params.bias_values);
}

static void submit(engine *e, engine_request r) {
    error err;
    if (engine_submit(e, &r, &err) != OK) fail_msg("%s", err.text);
}

static void hear(heard *h, const engine_event *event) {
    assert_false(h->finished);
    if (event->has_token && h->token_count < 64) h->drawn[h->token_count] = event->token;
    if (event->has_token) h->tokens[h->token_count++] = event->token.token;
    h->finished = event->finished;
    h->last = *event;
}

/* Collects events of ids [0, count) until all have finished. */
static void listen(engine *e, heard *all, uint32_t count) {
    static engine_event events[EVENTS_MAX];
    uint32_t            unfinished = 0;
    for (uint32_t i = 0; i < count; i++) unfinished += !all[i].finished;
    while (unfinished > 0) {
        if (!engine_wait(e, 20000)) fail_msg("the engine said nothing for 20 s");
        const uint32_t n = engine_next(e, events, EVENTS_MAX);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(events[i].id < count);
            hear(&all[events[i].id], &events[i]);
            unfinished -= events[i].finished;
        }
    }
}

static void wait_until_idle(engine *e, engine_snapshot *s) {
    do engine_read_snapshot(e, s);
    while (s->scheduler.running > 0 || s->scheduler.waiting > 0);
}

static void all_pages_are_free(engine *e) {
    engine_snapshot s;
    wait_until_idle(e, &s);
    assert_int_equal(s.scheduler.pages_held, 0);
    assert_int_equal(s.scheduler.pages_free + s.scheduler.pages_cached, s.scheduler.pages_total);
}

/* ---- tests ---- */

static void the_ledger_adds_up(const request_ledger *l) {
    uint64_t sum = 0;
    for (int i = 0; i < LEDGER_PARTS; i++) sum += l->part_us[i];
    assert_int_equal(sum, l->finished_us - l->submitted_us);
}

static void a_request_ends_at_its_length_and_its_ledger_adds_up(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    heard               h = {0};
    submit(e, ask(0, 100, 12));
    listen(e, &h, 1);
    assert_int_equal(h.token_count, 12);
    assert_int_equal(h.last.reason, FINISH_LENGTH);
    assert_true(h.last.has_token);
    const request_ledger *l = &h.last.ledger;
    assert_int_equal(l->prompt_tokens, 100);
    assert_int_equal(l->output_tokens, 12);
    assert_int_equal(l->cached_tokens, 0);
    assert_true(l->submitted_us <= l->admitted_us && l->admitted_us < l->first_token_us &&
                l->first_token_us < l->finished_us);
    the_ledger_adds_up(l);
    assert_int_equal(l->part_us[LEDGER_DECODE], l->finished_us - l->first_token_us);
    assert_int_equal(l->part_us[LEDGER_STOPPED] + l->part_us[LEDGER_RECOMPUTE], 0);
    all_pages_are_free(e);
    engine_close(e);
}

static void the_same_prompt_again_is_found_in_the_cache_and_answered_alike(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    heard               h[2] = {0};
    engine_request      first = ask(0, 100, 5), second = ask(0, 100, 5);
    second.id = 1;
    submit(e, first);
    listen(e, h, 1);
    submit(e, second);
    listen(e, h, 2);
    assert_int_equal(h[1].last.ledger.cached_tokens, 96);
    assert_memory_equal(h[0].tokens, h[1].tokens, sizeof h[0].tokens);
    engine_close(e);
}

static void an_end_of_sequence_token_ends_it_and_is_marked(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    heard               h = {0};
    engine_request      r = ask(0, 10, 50);
    const uint32_t      eos = engine_facts(e)->eos_ids[0];
    force(&r, eos);
    submit(e, r);
    listen(e, &h, 1);
    assert_int_equal(h.token_count, 1);
    assert_int_equal(h.last.reason, FINISH_STOP);
    assert_true(h.last.token_is_stop);
    assert_int_equal(h.last.stop_id, eos);
    engine_close(e);
}

static void min_tokens_puts_the_end_off_and_ignore_eos_puts_it_aside(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    heard               h[2] = {0};
    engine_request      late = ask(0, 10, 50), never = ask(1, 10, 20);
    const uint32_t      eos = engine_facts(e)->eos_ids[0];
    force(&late, eos);
    late.output_tokens_min = 7;
    force(&never, eos);
    never.ignore_eos = true;
    submit(e, late);
    submit(e, never);
    listen(e, h, 2);
    assert_int_equal(h[0].token_count, 8);
    assert_int_equal(h[0].last.reason, FINISH_STOP);
    for (uint32_t i = 0; i < 7; i++) assert_int_not_equal(h[0].tokens[i], eos);
    assert_int_equal(h[1].token_count, 20);
    assert_int_equal(h[1].last.reason, FINISH_LENGTH);
    assert_int_equal(h[1].tokens[0], eos);
    engine_close(e);
}

static void a_stop_id_ends_it_also_where_eos_is_ignored(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    heard               h = {0};
    engine_request      r = ask(0, 10, 50);
    force(&r, 4242);
    r.ignore_eos = true;
    r.stop_ids = (const uint32_t[]){17, 4242}, r.stop_id_count = 2;
    r.output_tokens_min = 3;
    submit(e, r);
    listen(e, &h, 1);
    assert_int_equal(h.token_count, 4);
    assert_int_equal(h.last.reason, FINISH_STOP);
    assert_int_equal(h.last.stop_id, 4242);
    engine_close(e);
}

static void neighbours_do_not_change_an_answer(void **state) {
    (void)state;
    enum { COUNT = 24 };
    const engine_config c = sim_config();
    static heard        alone[COUNT], together[COUNT];
    memset(alone, 0, sizeof alone);
    memset(together, 0, sizeof together);
    engine *e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) {
        submit(e, ask(i, 5 + i * 9, 20));
        listen(e, alone, i + 1);
    }
    engine_close(e);
    e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) submit(e, ask(i, 5 + i * 9, 20));
    listen(e, together, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) assert_memory_equal(alone[i].tokens, together[i].tokens, sizeof alone[i].tokens);
    all_pages_are_free(e);
    engine_close(e);
}

static void a_tiny_pool_makes_requests_wait_and_start_over_but_all_end_right(void **state) {
    (void)state;
    enum { COUNT = 40 };
    static heard  roomy[COUNT], tight[COUNT];
    engine_config c = sim_config();
    engine       *e = open_or_fail(&c);
    memset(roomy, 0, sizeof roomy);
    memset(tight, 0, sizeof tight);
    for (uint32_t i = 0; i < COUNT; i++) submit(e, ask(i, 20 + i, 60));
    listen(e, roomy, COUNT);
    engine_close(e);
    engine_snapshot s;
    memory_plan     m;
    checkpoint     *model;
    assert_int_equal(checkpoint_open(&model, c.model, NULL), OK);
    assert_int_equal(engine_plan(&c, model, &m, NULL), OK);
    checkpoint_close(model);
    c.context_max = 128;
    c.kv_cache_bytes = 10 * m.page_bytes;
    e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) submit(e, ask(i, 20 + i, 60));
    listen(e, tight, COUNT);
    engine_read_snapshot(e, &s);
    assert_int_equal(s.scheduler.pages_total, 10);
    assert_true(s.scheduler.preempted > 0);
    uint32_t preemptions = 0;
    uint64_t recomputing_us = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        the_ledger_adds_up(&tight[i].last.ledger);
        recomputing_us += tight[i].last.ledger.part_us[LEDGER_RECOMPUTE];
        assert_int_equal(tight[i].last.reason, FINISH_LENGTH);
        assert_memory_equal(roomy[i].tokens, tight[i].tokens, sizeof roomy[i].tokens);
        preemptions += tight[i].last.ledger.preemptions;
    }
    assert_int_equal(preemptions, s.scheduler.preempted);
    assert_true(recomputing_us > 0);
    all_pages_are_free(e);
    engine_close(e);
}

static void what_cannot_run_is_refused_at_once_and_stays_the_callers(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    error               err;
    engine_request      r = ask(1, 1000, 100);
    assert_int_equal(engine_submit(e, &r, &err), ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "1024"));
    r.prompt_tokens = 0;
    assert_int_equal(engine_submit(e, &r, &err), ERR_INVALID);
    r.prompt_tokens = 10;
    r.tokens[9] = engine_facts(e)->vocab_size;
    assert_int_equal(engine_submit(e, &r, &err), ERR_INVALID);
    r.tokens[9] = 5;
    r.output_tokens_max = 0;
    assert_int_equal(engine_submit(e, &r, &err), ERR_INVALID);
    r.output_tokens_max = 10;
    force(&r, engine_facts(e)->vocab_size);
    assert_int_equal(engine_submit(e, &r, &err), ERR_INVALID);
    discard(&r);
    engine_close(e);
}

/* A consumer that reads nothing holds the engine up after so many tokens; so what follows stays queued. */
static engine *stalled_engine(engine_config *c, uint32_t *submitted) {
    engine *e = open_or_fail(c);
    error   err;
    for (*submitted = 0;; (*submitted)++) {
        engine_request r = ask(*submitted, 50, 900);
        const int      status = engine_submit(e, &r, &err);
        if (status == OK) continue;
        assert_int_equal(status, ERR_FULL);
        discard(&r);
        return e;
    }
}

static void a_full_queue_is_an_answer(void **state) {
    (void)state;
    engine_config c = sim_config();
    uint32_t      submitted;
    engine       *e = stalled_engine(&c, &submitted);
    assert_int_equal(submitted, 64 + 8);
    engine_close(e);
}

static void an_id_that_runs_is_refused_and_free_again_after_its_end(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    error               err;
    heard               h = {0};
    submit(e, ask(0, 10, 900));
    engine_request again = ask(0, 10, 5);
    assert_int_equal(engine_submit(e, &again, &err), ERR_INVALID);
    engine_cancel(e, 0);
    listen(e, &h, 1);
    h = (heard){0};
    submit(e, again);
    listen(e, &h, 1);
    assert_int_equal(h.last.reason, FINISH_LENGTH);
    engine_close(e);
}

static void a_cancelled_request_ends_wherever_it_is_and_gives_its_pages_back(void **state) {
    (void)state;
    engine_config c = sim_config();
    uint32_t      submitted;
    static heard  h[128];
    memset(h, 0, sizeof h);
    engine *e = stalled_engine(&c, &submitted);
    assert_true(submitted < 128);
    for (uint32_t i = 0; i < submitted; i++) engine_cancel(e, submitted - 1 - i); /* running, waiting and queued ones */
    engine_cancel(e, 12345);
    engine_cancel(e, 0);
    listen(e, h, submitted);
    for (uint32_t i = 0; i < submitted; i++) assert_int_equal(h[i].last.reason, FINISH_CANCELLED);
    all_pages_are_free(e);
    engine_close(e);
}

static void a_consumer_that_stalls_loses_nothing(void **state) {
    (void)state;
    enum { COUNT = 16 };
    const engine_config c = sim_config();
    static heard        h[COUNT];
    memset(h, 0, sizeof h);
    engine *e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) submit(e, ask(i, 10, 300));
    engine_snapshot before, after;
    do { /* until it makes no more progress: its ring is full */
        engine_read_snapshot(e, &before);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        engine_read_snapshot(e, &after);
    } while (after.passes_done == 0 || after.passes_done != before.passes_done);
    assert_true(after.scheduler.running > 0);
    listen(e, h, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) assert_int_equal(h[i].token_count, 300);
    engine_close(e);
}

static void closing_with_running_requests_is_clean(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    for (uint32_t i = 0; i < 30; i++) submit(e, ask(i, 200, 800));
    engine_close(e);
}

static void the_snapshot_counts_passes_tokens_and_time(void **state) {
    (void)state;
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    heard               h[4] = {0};
    engine_snapshot     s;
    for (uint32_t i = 0; i < 4; i++) submit(e, ask(i, 50, 10));
    listen(e, h, 4);
    wait_until_idle(e, &s);
    assert_int_equal(s.scheduler.finished, 4);
    assert_int_equal(s.scheduler.generated_tokens, 40);
    assert_true(s.passes_done >= 10 && s.device.passes == s.passes_done);
    assert_true(s.host_ns_total > 0 && s.plan_ns_total > 0 && s.operators_done > s.passes_done);
    assert_int_equal(s.pass_started_us, 0);
    assert_true(s.device.op_ns[OP_ATTENTION] > 0 && s.device.weight_bytes > 0);
    assert_string_equal(s.failed, "");
    engine_close(e);
}

static void copies_to_host_memory_that_the_device_does_not_make_are_refused_at_start(void **state) {
    (void)state;
    engine_config c = sim_config();
    device_api    without = device_sim;
    engine       *e;
    error         err;
    without.copy_pages = NULL;
    c.device_table = &without;
    c.host_cache_bytes = 64 << 20;
    c.scheduler_settings.reclaim.policy = RECLAIM_SWAP;
    assert_int_equal(engine_open(&e, &c, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "recompute"));
}

static void a_context_that_does_not_fit_is_refused_with_the_flag_to_change(void **state) {
    (void)state;
    engine_config c = sim_config();
    engine       *e;
    error         err;
    c.kv_cache_bytes = 1 << 20;
    assert_int_equal(engine_open(&e, &c, &err), ERR_MEMORY);
    assert_non_null(strstr(err.text, "--kv-cache-memory"));
    c = sim_config();
    c.context_max = 1 << 30;
    assert_int_equal(engine_open(&e, &c, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "--max-model-len"));
    c = sim_config();
    c.model = "random:mixtral-8x7b";
    c.device_settings.sim_hardware = "h100"; /* 87 GiB of weights, 80 of memory */
    assert_int_equal(engine_open(&e, &c, &err), ERR_MEMORY);
    c.device_settings.sim_hardware = "abacus";
    assert_int_equal(engine_open(&e, &c, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "h200"));
}

static void a_mixture_of_experts_on_sim_starts_at_once_and_counts_expert_bytes(void **state) {
    (void)state;
    engine_config c = sim_config();
    c.model = "random:mixtral-8x7b";
    c.device_settings.sim_hardware = "h200";
    engine         *e = open_or_fail(&c);
    heard           h = {0};
    engine_snapshot s;
    submit(e, ask(0, 100, 5));
    listen(e, &h, 1);
    wait_until_idle(e, &s);
    assert_true(s.device.expert_bytes > s.device.weight_bytes / 2);
    engine_close(e);
}

/* ---- on the cpu device ---- */

static engine_config cpu_config(void) {
    engine_config c = {.model = writer_dir, .device = "cpu", .kv_cache_bytes = 1 << 20, .device_settings = {.threads = 2}};
    c.scheduler_settings.running_max = 4;
    c.scheduler_settings.waiting_max = 64;
    c.scheduler_settings.batch_tokens_max = 48;
    c.scheduler_settings.slicing.chunk_tokens = 16;
    c.scheduler_settings.retention.prefix_cache = true;
    c.context_max = 256;
    return c;
}

static engine_request ask_model(uint64_t id, uint32_t prompt_tokens, uint32_t output_tokens) {
    engine_request r = ask(id, prompt_tokens, output_tokens);
    for (uint32_t i = 0; i < prompt_tokens; i++) r.tokens[i] = (uint32_t)((i * 31 + id % 3) % 97); /* some begin alike */
    r.ignore_eos = true;
    r.params.temperature = id % 2 ? 1 : 0;
    return r;
}

static void a_real_model_answers_alike_alone_together_and_from_the_cache(void **state) {
    (void)state;
    enum { COUNT = 12 };
    static heard alone[COUNT], together[COUNT];
    checkpoint_close(tiny_open(0, DTYPE_BF16, 5));
    engine_config c = cpu_config();
    memset(alone, 0, sizeof alone);
    memset(together, 0, sizeof together);
    c.scheduler_settings.retention.prefix_cache = false;
    engine *e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) {
        submit(e, ask_model(i, 30 + 7 * i, 20));
        listen(e, alone, i + 1);
    }
    engine_close(e);
    c.scheduler_settings.retention.prefix_cache = true;
    e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) submit(e, ask_model(i, 30 + 7 * i, 20));
    listen(e, together, COUNT);
    uint32_t cached = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_memory_equal(alone[i].tokens, together[i].tokens, sizeof alone[i].tokens);
        cached += together[i].last.ledger.cached_tokens;
    }
    assert_true(cached > 0);
    all_pages_are_free(e);
    engine_close(e);
}

/* ---- memory that is taken back, copied out and copied in again ---- */

enum { SWAPPED_COUNT = 24 };

static void listen_until_preempted(engine *e, heard *h, uint64_t times) {
    engine_event    event;
    engine_snapshot s;
    for (engine_read_snapshot(e, &s); s.scheduler.preempted < times; engine_read_snapshot(e, &s)) {
        if (!engine_wait(e, 20000)) fail_msg("the engine said nothing for 20 s");
        while (engine_next(e, &event, 1)) hear(&h[event.id], &event);
    }
}

/* What the requests say where memory is for `pages` pages only, and what it took. leave: some are
 * cancelled on the way. */
static void answer_in_pages(engine_config c, uint32_t pages, bool leave, heard *h, engine_snapshot *s) {
    memory_plan m;
    checkpoint *model;
    c.kv_cache_bytes = 0;
    assert_int_equal(checkpoint_open(&model, c.model, NULL), OK);
    assert_int_equal(engine_plan(&c, model, &m, NULL), OK);
    checkpoint_close(model);
    c.kv_cache_bytes = pages * m.page_bytes;
    c.host_cache_bytes = c.scheduler_settings.reclaim.policy == RECLAIM_RECOMPUTE ? 0 : 200 * m.page_bytes;
    engine *e = open_or_fail(&c);
    memset(h, 0, SWAPPED_COUNT * sizeof *h);
    for (uint32_t i = 0; i < SWAPPED_COUNT; i++) submit(e, ask_model(i, 30 + 5 * i, 70));
    for (uint32_t i = 3; leave && i < SWAPPED_COUNT; i += 5) { /* who runs, or waits with its pages on the host */
        listen_until_preempted(e, h, 1 + i / 5);
        engine_cancel(e, i);
    }
    listen(e, h, SWAPPED_COUNT);
    all_pages_are_free(e);
    engine_read_snapshot(e, s);
    engine_close(e);
}

static void same_answers(const heard *a, const heard *b) {
    for (uint32_t i = 0; i < SWAPPED_COUNT; i++) {
        assert_int_equal(b[i].last.reason, FINISH_LENGTH);
        assert_memory_equal(a[i].tokens, b[i].tokens, sizeof a[i].tokens);
    }
}

static engine_config swapping_config(void) {
    engine_config c = cpu_config();
    checkpoint_close(tiny_open(0, DTYPE_BF16, 5));
    c.scheduler_settings.reclaim.policy = RECLAIM_SWAP;
    return c;
}

static heard swap_roomy[SWAPPED_COUNT], swap_tight[SWAPPED_COUNT];

static void pages_that_went_to_host_memory_and_back_hold_the_same_bits(void **state) {
    (void)state;
    engine_snapshot s;
    engine_config   c = swapping_config();
    answer_in_pages(c, 200, false, swap_roomy, &s);
    assert_int_equal(s.scheduler.preempted, 0);
    answer_in_pages(c, 20, false, swap_tight, &s);
    same_answers(swap_roomy, swap_tight);
    assert_true(s.scheduler.preempted > 0);
    assert_true(s.scheduler.swap_out_pages > 0 && s.scheduler.swap_in_tokens > 0);
    assert_int_equal(s.scheduler.copies_open + s.scheduler.swap_failed_pages + s.scheduler.host_pages_held, 0);
    const uint64_t recomputed_tokens = s.scheduler.recomputed_tokens;
    c.scheduler_settings.reclaim.policy = RECLAIM_RECOMPUTE;
    answer_in_pages(c, 20, false, swap_tight, &s);
    same_answers(swap_roomy, swap_tight);
    assert_true(recomputed_tokens < s.scheduler.recomputed_tokens);
}

/* Where a copy takes time, the modelled machine's, and passes wait for those in their way. */
static void a_modelled_machine_swaps_as_well_and_says_the_same(void **state) {
    (void)state;
    engine_snapshot s;
    engine_config   c = cpu_config();
    c.model = "random:llama-160m", c.device = "sim";
    answer_in_pages(c, 200, false, swap_roomy, &s);
    c.scheduler_settings.reclaim.policy = RECLAIM_SWAP;
    answer_in_pages(c, 20, false, swap_tight, &s);
    same_answers(swap_roomy, swap_tight);
    assert_true(s.scheduler.swap_out_pages > 0 && s.scheduler.swap_in_tokens > 0);
    assert_true(s.scheduler.page_copy_us > 0);
}

static uint32_t lose_some(device *d, bool wait, copied_page *out, uint32_t max) {
    const uint32_t n = device_cpu.copies_done(d, wait, out, max);
    for (uint32_t i = 0; i < n; i++) out[i].ok = out[i].id % 3 != 0;
    return n;
}

static void what_a_failed_copy_should_have_brought_is_computed(void **state) {
    (void)state;
    engine_snapshot s;
    engine_config   c = swapping_config();
    device_api      losing = device_cpu;
    answer_in_pages(c, 200, false, swap_roomy, &s);
    losing.copies_done = lose_some;
    c.device_table = &losing;
    answer_in_pages(c, 20, false, swap_tight, &s);
    same_answers(swap_roomy, swap_tight);
    assert_true(s.scheduler.swap_failed_pages > 0 && s.scheduler.swap_in_tokens > 0);
}

static void who_leaves_while_pages_are_copied_harms_nobody(void **state) {
    (void)state;
    engine_snapshot s;
    engine_config   c = swapping_config();
    answer_in_pages(c, 200, false, swap_roomy, &s);
    answer_in_pages(c, 20, true, swap_tight, &s);
    for (uint32_t i = 0; i < SWAPPED_COUNT; i++) {
        assert_true(swap_tight[i].finished);
        assert_memory_equal(swap_roomy[i].tokens, swap_tight[i].tokens, swap_tight[i].token_count * sizeof(uint32_t));
    }
    assert_int_equal(s.scheduler.host_pages_held, 0);
}

/* ---- how likely a prompt was ---- */

enum { SCORED_TOKENS = 60, SCORED_TOPS = 3 };
typedef struct {
    prompt_scores s;
    float         logprobs[SCORED_TOKENS], top_logprobs[SCORED_TOKENS * SCORED_TOPS];
    uint32_t      ranks[SCORED_TOKENS], top_ids[SCORED_TOKENS * SCORED_TOPS];
} score_sheet;

static score_sheet *score_sheet_new(void) {
    score_sheet *x = calloc(1, sizeof *x);
    x->s = (prompt_scores){x->logprobs, x->ranks, SCORED_TOPS, x->top_ids, x->top_logprobs};
    return x;
}

/* The prompt of `from`, what it drew as part of it. */
static engine_request ask_to_score(uint64_t id, const engine_request *from, const uint32_t *drawn, score_sheet *sheet) {
    engine_request r = *from;
    r.id = id, r.output_tokens_max = 4, r.params.top_logprobs = -1, r.scores = &sheet->s;
    r.tokens = malloc(SCORED_TOKENS * sizeof *r.tokens);
    memcpy(r.tokens, from->tokens, from->prompt_tokens * sizeof *r.tokens);
    memcpy(r.tokens + from->prompt_tokens, drawn, (SCORED_TOKENS - from->prompt_tokens) * sizeof *r.tokens);
    r.prompt_tokens = SCORED_TOKENS;
    return r;
}

/* Scored alone, scored among others by a device of few outputs and small chunks, and drawn: the same bits. */
static void a_prompts_tokens_are_as_likely_as_they_were_when_they_were_drawn(void **state) {
    (void)state;
    enum { PROMPT = 20, DRAWN = SCORED_TOKENS - PROMPT, COUNT = 5 };
    checkpoint_close(tiny_open(0, DTYPE_BF16, 5));
    static heard  h[COUNT];
    engine_config c = cpu_config();
    c.scheduler_settings.running_max = 3, c.scheduler_settings.slicing.chunk_tokens = 16;
    c.scheduler_settings.retention.prefix_cache = true;
    engine        *e = open_or_fail(&c);
    engine_request r = ask_model(0, PROMPT, DRAWN), kept = r;
    memset(h, 0, sizeof h);
    r.params.top_logprobs = SCORED_TOPS;
    kept.tokens = malloc(PROMPT * sizeof *kept.tokens);
    memcpy(kept.tokens, r.tokens, PROMPT * sizeof *kept.tokens);
    submit(e, r);
    listen(e, h, 1);
    score_sheet *sheets[COUNT];
    for (uint32_t i = 1; i < COUNT; i++) submit(e, ask_to_score(i, &kept, h[0].tokens, sheets[i] = score_sheet_new()));
    listen(e, h, COUNT);
    for (uint32_t i = 1; i < COUNT; i++) {
        assert_int_equal(h[i].last.ledger.cached_tokens, 0); /* although the cache knows the beginning */
        for (uint32_t k = 0; k < DRAWN; k++) {
            const uint32_t at = PROMPT + k;
            const sampled *drawn = &h[0].drawn[k];
            assert_memory_equal(&sheets[i]->logprobs[at], &drawn->logprob, sizeof(float));
            assert_memory_equal(&sheets[i]->top_logprobs[at * SCORED_TOPS], drawn->top_logprobs,
                                SCORED_TOPS * sizeof(float));
            assert_memory_equal(&sheets[i]->top_ids[at * SCORED_TOPS], drawn->top_ids, SCORED_TOPS * sizeof(uint32_t));
            assert_int_equal(sheets[i]->ranks[at], 1); /* greedy */
        }
        for (uint32_t at = 1; at < SCORED_TOKENS; at++) {
            assert_true(sheets[i]->logprobs[at] < 0 && sheets[i]->ranks[at] >= 1);
            assert_true(sheets[i]->ranks[at] > SCORED_TOPS ||
                        sheets[i]->top_logprobs[at * SCORED_TOPS + sheets[i]->ranks[at] - 1] == sheets[i]->logprobs[at]);
        }
        assert_memory_equal(sheets[i]->logprobs, sheets[1]->logprobs, sizeof sheets[1]->logprobs);
    }
    for (uint32_t i = 1; i < COUNT; i++) free(sheets[i]);
    free(kept.tokens);
    all_pages_are_free(e);
    engine_close(e);
}

static void the_last_logits_are_those_the_last_token_was_drawn_from(void **state) {
    (void)state;
    checkpoint_close(tiny_open(0, DTYPE_F32, 5));
    const engine_config c = cpu_config();
    engine             *e = open_or_fail(&c);
    heard               h[2] = {0};
    float               logits[2][97];
    submit(e, ask_model(0, 40, 5));
    listen(e, h, 1);
    assert_int_equal(engine_last_logits(e, logits[0]), OK);
    for (int i = 0; i < 97; i++) assert_true(logits[0][i] <= logits[0][h[0].tokens[4]]); /* greedy */
    submit(e, ask_model(1, 100, 2));
    listen(e, h, 2);
    assert_int_equal(engine_last_logits(e, logits[1]), OK);
    assert_memory_not_equal(logits[0], logits[1], sizeof logits[0]);
    engine_close(e);
}

/* Overwrites the last value of the last tensor: a bias that every row passes through. */
static void spoil_model(void) {
    char        path[256];
    const float nan_value = NAN;
    snprintf(path, sizeof path, "%s/model.safetensors", writer_dir);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -(long)sizeof nan_value, SEEK_END), 0);
    assert_int_equal(fwrite(&nan_value, sizeof nan_value, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

static void a_model_that_computes_nonsense_fails_its_requests_with_a_sentence(void **state) {
    (void)state;
    checkpoint_close(tiny_open(0, DTYPE_F32, 5));
    spoil_model();
    const engine_config c = cpu_config();
    engine             *e = open_or_fail(&c);
    heard               h[2] = {0};
    submit(e, ask_model(0, 40, 5));
    listen(e, h, 1);
    submit(e, ask_model(1, 4, 5));
    listen(e, h, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(h[i].last.reason, FINISH_ERROR);
        assert_int_equal(h[i].token_count, 0);
        assert_non_null(strstr(h[i].last.message, "not numbers"));
    }
    all_pages_are_free(e);
    engine_close(e);
}

/* ---- a device that breaks ---- */

static _Atomic int ops_until_failure;

static int fail_run_op(device *d, uint32_t op_index, error *err) {
    if (ops_until_failure-- == 0) return error_set(err, ERR_DEVICE, "the card fell off the bus");
    return device_sim.run_op(d, op_index, err);
}

static void a_device_error_ends_everything_with_a_sentence_and_refuses_more(void **state) {
    (void)state;
    enum { COUNT = 20 };
    static heard  h[COUNT];
    device_api    breaking = device_sim;
    engine_config c = sim_config();
    error         err;
    memset(h, 0, sizeof h);
    breaking.run_op = fail_run_op;
    c.device_table = &breaking;
    ops_until_failure = 5000;
    engine *e = open_or_fail(&c);
    for (uint32_t i = 0; i < COUNT; i++) submit(e, ask(i, 100, 900));
    listen(e, h, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) assert_int_equal(h[i].last.reason, FINISH_ERROR);
    engine_request more = ask(99, 10, 10);
    assert_int_equal(engine_submit(e, &more, &err), ERR_DEVICE);
    assert_non_null(strstr(err.text, "the card fell off the bus"));
    discard(&more);
    engine_snapshot s;
    engine_read_snapshot(e, &s);
    assert_non_null(strstr(s.failed, "the card fell off the bus"));
    engine_close(e);
}

/* ---- many threads ---- */

typedef struct {
    engine  *engine;
    uint64_t first_id;
} storm;
enum { STORM_THREADS = 3, STORM_REQUESTS = 150 };

static void *submit_and_cancel(void *argument) {
    const storm *s = argument;
    rng          random = {s->first_id + 1, 0};
    error        err;
    for (uint32_t i = 0; i < STORM_REQUESTS;) {
        engine_request r = ask(s->first_id + i, 1 + (uint32_t)rng_below(&random, 200), 1 + (uint32_t)rng_below(&random, 60));
        const int      status = engine_submit(s->engine, &r, &err);
        if (status != OK) {
            discard(&r);
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
            continue;
        }
        if (rng_below(&random, 3) == 0) engine_cancel(s->engine, s->first_id + rng_below(&random, i + 1));
        i++;
        engine_snapshot snapshot;
        engine_read_snapshot(s->engine, &snapshot);
    }
    return NULL;
}

static void every_request_of_a_storm_ends_exactly_once(void **state) {
    (void)state;
    enum { ALL = STORM_THREADS * STORM_REQUESTS };
    const engine_config c = sim_config();
    engine             *e = open_or_fail(&c);
    static heard        h[ALL];
    storm               storms[STORM_THREADS];
    pthread_t           threads[STORM_THREADS];
    memset(h, 0, sizeof h);
    for (int i = 0; i < STORM_THREADS; i++) {
        storms[i] = (storm){e, (uint64_t)i * STORM_REQUESTS};
        pthread_create(&threads[i], NULL, submit_and_cancel, &storms[i]);
    }
    listen(e, h, ALL);
    for (int i = 0; i < STORM_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(engine_next(e, &(engine_event){0}, 1), 0);
    all_pages_are_free(e);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_ends_at_its_length_and_its_ledger_adds_up),
        cmocka_unit_test(the_same_prompt_again_is_found_in_the_cache_and_answered_alike),
        cmocka_unit_test(an_end_of_sequence_token_ends_it_and_is_marked),
        cmocka_unit_test(min_tokens_puts_the_end_off_and_ignore_eos_puts_it_aside),
        cmocka_unit_test(a_stop_id_ends_it_also_where_eos_is_ignored),
        cmocka_unit_test(neighbours_do_not_change_an_answer),
        cmocka_unit_test(a_tiny_pool_makes_requests_wait_and_start_over_but_all_end_right),
        cmocka_unit_test(what_cannot_run_is_refused_at_once_and_stays_the_callers),
        cmocka_unit_test(a_full_queue_is_an_answer),
        cmocka_unit_test(an_id_that_runs_is_refused_and_free_again_after_its_end),
        cmocka_unit_test(a_cancelled_request_ends_wherever_it_is_and_gives_its_pages_back),
        cmocka_unit_test(a_consumer_that_stalls_loses_nothing),
        cmocka_unit_test(closing_with_running_requests_is_clean),
        cmocka_unit_test(the_snapshot_counts_passes_tokens_and_time),
        cmocka_unit_test(a_context_that_does_not_fit_is_refused_with_the_flag_to_change),
        cmocka_unit_test(copies_to_host_memory_that_the_device_does_not_make_are_refused_at_start),
        cmocka_unit_test(a_mixture_of_experts_on_sim_starts_at_once_and_counts_expert_bytes),
        cmocka_unit_test(a_real_model_answers_alike_alone_together_and_from_the_cache),
        cmocka_unit_test(pages_that_went_to_host_memory_and_back_hold_the_same_bits),
        cmocka_unit_test(a_modelled_machine_swaps_as_well_and_says_the_same),
        cmocka_unit_test(what_a_failed_copy_should_have_brought_is_computed),
        cmocka_unit_test(who_leaves_while_pages_are_copied_harms_nobody),
        cmocka_unit_test(a_prompts_tokens_are_as_likely_as_they_were_when_they_were_drawn),
        cmocka_unit_test(the_last_logits_are_those_the_last_token_was_drawn_from),
        cmocka_unit_test(a_model_that_computes_nonsense_fails_its_requests_with_a_sentence),
        cmocka_unit_test(a_device_error_ends_everything_with_a_sentence_and_refuses_more),
        cmocka_unit_test(every_request_of_a_storm_ends_exactly_once),
    };
    return cmocka_run_group_tests(tests, writer_setup, writer_teardown);
}
