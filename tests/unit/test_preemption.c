/* Operator preemption: when a pass of prefill yields, to whom, and what of it is lost (nothing). First the scheduler by
 * hand, then the engine on the cpu device, where a short request overtakes a long prompt and no bit changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

enum { REQUESTS = 8, TOKENS = 4096, OPS = 10, ROWS = 1024 };

/* ---- the scheduler ---- */

typedef struct {
    scheduler *s;
    plan       plan;
    uint64_t   now_us;
    uint32_t   tokens[REQUESTS][TOKENS], known[REQUESTS], limit[REQUESTS];
} story;

static scheduler_config urgent_config(void) {
    return (scheduler_config){.running_max = 6,
                              .waiting_max = 8,
                              .context_max = TOKENS,
                              .batch_tokens_max = ROWS,
                              .slicing = {.policy = SLICING_WHOLE, .chunk_tokens = 64},
                              .order.policy = ORDER_PRIORITY,
                              .preemption = {.policy = PREEMPTION_OPERATOR, .decodes_wait = true},
                              .page_count = 2000,
                              .page_tokens = 8,
                              .frame_count = 2,
                              .frame_tokens = ROWS,
                              .model.op_count = OPS};
}

static story *begin(const scheduler_config *c) {
    if (scheduler_policy_find(AXIS_ORDER, "priority") < 0 && c->order.policy == ORDER_PRIORITY) skip();
    story *t = calloc(1, sizeof *t);
    error  err;
    assert_non_null(t);
    if (scheduler_new(&t->s, c, &err) != OK) fail_msg("%s", err.text);
    return t;
}

static void end(story *t) {
    scheduler_check(t->s);
    scheduler_free(t->s);
    free(t);
}

static void submit(story *t, uint64_t id, int32_t priority, uint32_t prompt, uint32_t output, uint64_t tbt_us) {
    for (uint32_t i = 0; i < prompt; i++) t->tokens[id][i] = (uint32_t)id * 1000 + i;
    const scheduler_request r = {.id = id,
                                 .tokens = t->tokens[id],
                                 .prompt_tokens = prompt,
                                 .output_tokens_max = output,
                                 .priority = priority,
                                 .slo.tbt_us = tbt_us};
    assert_int_equal(scheduler_submit(t->s, ++t->now_us, &r, NULL), OK);
    t->known[id] = prompt, t->limit[id] = prompt + output;
    scheduler_check(t->s);
}

static void plan_next(story *t) {
    assert_true(scheduler_plan(t->s, ++t->now_us, &t->plan));
    scheduler_check(t->s);
}

static void finish_after(story *t, uint64_t us) {
    slice_outcome outcomes[ROWS] = {0};
    for (uint32_t i = 0; i < t->plan.slice_count; i++) {
        const uint64_t id = t->plan.slices[i].id;
        if (!t->plan.slices[i].samples) continue;
        t->tokens[id][t->known[id]++] = 7;
        outcomes[i] = (slice_outcome){7, t->known[id] == t->limit[id]};
    }
    scheduler_pass_done(t->s, t->now_us += us, outcomes);
    scheduler_check(t->s);
}

static void stop_before(story *t, uint32_t at) {
    scheduler_pass_stopped(t->s, ++t->now_us, at);
    scheduler_check(t->s);
}

static const slice *only_slice_of(const story *t, uint64_t id) {
    assert_int_equal(t->plan.slice_count, 1);
    assert_int_equal(t->plan.slices[0].id, id);
    return &t->plan.slices[0];
}

static scheduler_stats stats_of(const story *t) {
    scheduler_stats s;
    scheduler_read_stats(t->s, &s);
    return s;
}

static void urgent_passes_nest_on_stopped_ones_and_each_goes_on_where_it_was(void **state) {
    (void)state;
    const scheduler_config c = urgent_config();
    story                 *t = begin(&c);
    submit(t, 1, 9, 1000, 1, 0);
    plan_next(t);
    assert_true(t->plan.stoppable && !scheduler_should_stop(t->s, t->now_us));
    submit(t, 2, 5, 600, 1, 0);
    assert_true(scheduler_should_stop(t->s, t->now_us));
    stop_before(t, 4);
    plan_next(t); /* it does not ride with what it passed by */
    assert_int_equal(only_slice_of(t, 2)->token_end, 600);
    submit(t, 3, 7, 10, 1, 0); /* less urgent than what runs */
    assert_false(scheduler_should_stop(t->s, t->now_us));
    submit(t, 4, 1, 20, 1, 0);
    assert_true(scheduler_should_stop(t->s, t->now_us));
    stop_before(t, 6);
    plan_next(t);
    assert_false(t->plan.stoppable); /* both frames are taken: the bound of what is half done */
    submit(t, 5, 0, 20, 1, 0);
    assert_false(scheduler_should_stop(t->s, t->now_us));
    assert_int_equal(only_slice_of(t, 4)->op_begin, 0);
    finish_after(t, 10);
    plan_next(t);
    only_slice_of(t, 5);
    finish_after(t, 10);
    plan_next(t);
    assert_int_equal(only_slice_of(t, 2)->op_begin, 6);
    finish_after(t, 10);
    plan_next(t);
    only_slice_of(t, 3);
    finish_after(t, 10);
    plan_next(t);
    assert_int_equal(only_slice_of(t, 1)->op_begin, 4);
    finish_after(t, 10);
    assert_int_equal(stats_of(t).stops_outranked, 2);
    assert_int_equal(stats_of(t).finished, 5);
    assert_int_equal(stats_of(t).frames_used, 0);
    end(t);
}

static void few_tokens_share_a_pass_and_many_do_not(void **state) {
    (void)state;
    const scheduler_config c = urgent_config();
    story                 *t = begin(&c);
    submit(t, 1, 0, 100, 1, 0);
    submit(t, 2, 0, 100, 1, 0);
    submit(t, 3, 0, 100, 1, 0); /* beyond 256 */
    plan_next(t);
    assert_int_equal(t->plan.slice_count, 2);
    finish_after(t, 10);
    plan_next(t);
    only_slice_of(t, 3);
    finish_after(t, 10);
    end(t);
}

static void nobody_is_stopped_for_a_request_that_was_refused_at_the_door(void **state) {
    (void)state;
    scheduler_config c = urgent_config();
    c.page_count = 140;
    c.admission.policy = ADMISSION_CONSERVATIVE;
    story *t = begin(&c);
    submit(t, 1, 9, 1000, 2, 0);
    plan_next(t);
    submit(t, 2, 1, 400, 2, 0);
    assert_true(scheduler_should_stop(t->s, t->now_us)); /* once: whether it fits is not known yet */
    stop_before(t, 3);
    plan_next(t);
    only_slice_of(t, 1);
    assert_false(scheduler_should_stop(t->s, t->now_us));
    end(t);
}

/* Runs one answer with a token deadline until pass times are known. */
static story *with_a_decode(uint64_t tbt_us) {
    scheduler_config c = urgent_config();
    c.order.policy = ORDER_FCFS;
    story *t = begin(&c);
    submit(t, 1, 0, 20, 400, tbt_us);
    for (int i = 0; i < 40; i++) {
        plan_next(t);
        finish_after(t, 1000 - 1);
    }
    return t;
}

static void decodes_wait_for_a_prompt_until_their_token_is_due(void **state) {
    (void)state;
    story *t = with_a_decode(20000);
    submit(t, 2, 0, 1000, 4, 20000);
    plan_next(t);
    assert_true(only_slice_of(t, 2) && t->plan.decode_rows == 0 && t->plan.stoppable);
    const uint64_t drawn_us = t->now_us - 2, stop_us = scheduler_wake_us(t->s);
    assert_in_range(stop_us, drawn_us + 10000, drawn_us + 20000 - 1000); /* in time for a pass of a millisecond */
    assert_false(scheduler_should_stop(t->s, stop_us - 1));
    assert_true(scheduler_should_stop(t->s, stop_us));
    t->now_us = stop_us;
    stop_before(t, 5);
    plan_next(t);
    assert_true(only_slice_of(t, 1)->samples && t->plan.decode_rows == 1); /* alone: it is in a hurry */
    finish_after(t, 1000);
    plan_next(t);
    assert_int_equal(only_slice_of(t, 2)->op_begin, 5);
    finish_after(t, 5000);
    assert_int_equal(stats_of(t).stops_token_due, 1);
    assert_int_equal(stats_of(t).passes_beside, 2);
    end(t);
}

static void decodes_do_not_wait_where_a_deadline_is_missing_tight_or_a_frame_is_not_there(void **state) {
    (void)state;
    story *t = with_a_decode(0);
    submit(t, 2, 0, 500, 4, 0);
    plan_next(t);
    assert_true(t->plan.decode_rows == 1 && t->plan.prefill_rows == 500);
    end(t);
    t = with_a_decode(2000); /* two passes long: nothing to gain */
    submit(t, 2, 0, 500, 4, 2000);
    plan_next(t);
    assert_true(t->plan.decode_rows == 1 && t->plan.prefill_rows == 500);
    end(t);
}

static void preemption_without_frames_is_refused(void **state) {
    (void)state;
    scheduler_config c = urgent_config();
    c.order.policy = ORDER_FCFS;
    c.frame_count = c.frame_tokens = 0;
    scheduler *s;
    error      err;
    assert_int_equal(scheduler_new(&s, &c, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "frame"));
}

/* ---- the engine ---- */

typedef struct {
    uint32_t tokens[64], count;
    bool     finished;
} answer;

static engine *open_engine(preemption_policy preemption) {
    engine_config c = {.model = "random:llama-160m", .device = "cpu", .context_max = 2048};
    c.scheduler_settings.running_max = 4;
    c.scheduler_settings.waiting_max = 8;
    c.scheduler_settings.batch_tokens_max = 1024;
    c.scheduler_settings.order.policy = ORDER_PRIORITY;
    c.scheduler_settings.preemption.policy = preemption;
    c.device_settings.isa = "auto";
    c.device_settings.threads = 1;
    engine *e;
    error   err;
    if (engine_open(&e, &c, &err) != OK) fail_msg("%s", err.text);
    return e;
}

static void ask(engine *e, uint64_t id, int32_t priority, uint32_t prompt_tokens, uint32_t output_tokens) {
    engine_request r = {.id = id,
                        .tokens = malloc(prompt_tokens * sizeof(uint32_t)),
                        .prompt_tokens = prompt_tokens,
                        .output_tokens_max = output_tokens,
                        .ignore_eos = true,
                        .priority = priority,
                        .params = {.seed = id, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1}};
    for (uint32_t i = 0; i < prompt_tokens; i++) r.tokens[i] = (uint32_t)(1000 + (id * 37 + i * 11) % 5000);
    error err;
    if (engine_submit(e, &r, &err) != OK) fail_msg("%s", err.text);
}

/* Returns the id of the request whose first token came first. */
static uint64_t listen(engine *e, answer *answers, uint32_t count) {
    uint64_t first = UINT64_MAX;
    for (uint32_t finished = 0; finished < count;) {
        engine_event events[16];
        assert_true(engine_wait(e, 600000));
        const uint32_t n = engine_next(e, events, 16);
        for (uint32_t i = 0; i < n; i++) {
            answer *a = &answers[events[i].id];
            if (events[i].has_token) a->tokens[a->count++] = events[i].token.token;
            if (events[i].has_token && first == UINT64_MAX) first = events[i].id;
            finished += events[i].finished;
        }
    }
    return first;
}

static void wait_until_it_computes(engine *e) {
    engine_snapshot s;
    const uint64_t  before = (engine_read_snapshot(e, &s), s.operators_done);
    do engine_read_snapshot(e, &s);
    while (s.operators_done < before + 5);
}

static void a_short_urgent_request_overtakes_a_long_prompt_and_no_bit_changes(void **state) {
    (void)state;
    if (scheduler_policy_find(AXIS_ORDER, "priority") < 0) skip();
    answer          alone[2] = {0}, together[2] = {0};
    engine_snapshot s;
    engine         *e = open_engine(PREEMPTION_NONE);
    ask(e, 0, 5, 300, 6);
    listen(e, alone, 1);
    ask(e, 1, 0, 12, 6);
    listen(e, alone, 1);
    engine_close(e);
    e = open_engine(PREEMPTION_OPERATOR);
    ask(e, 0, 5, 300, 6);
    wait_until_it_computes(e);
    ask(e, 1, 0, 12, 6);
    assert_int_equal(listen(e, together, 2), 1);
    engine_read_snapshot(e, &s);
    assert_true(s.scheduler.stops_outranked == 1 && s.stop_reaction_seconds.count == 1 && s.stop_bound_ns > 0);
    engine_close(e);
    assert_memory_equal(alone, together, sizeof alone);
}

static void a_cancelled_prompt_ends_within_its_pass_and_its_neighbour_is_whole(void **state) {
    (void)state;
    engine_config c = {.model = "random:llama-160m", .device = "cpu", .context_max = 2048};
    c.scheduler_settings.batch_tokens_max = 1024;
    c.device_settings.isa = "auto";
    c.device_settings.threads = 1;
    engine *e;
    error   err;
    answer  a[2] = {0};
    if (engine_open(&e, &c, &err) != OK) fail_msg("%s", err.text);
    ask(e, 0, 0, 200, 3);
    ask(e, 1, 0, 150, 3);
    wait_until_it_computes(e);
    engine_cancel(e, 0);
    listen(e, a, 2);
    engine_snapshot s;
    do engine_read_snapshot(e, &s);
    while (s.scheduler.running > 0);
    assert_int_equal(a[1].count, 3);
    assert_int_equal(s.scheduler.pages_held, 0);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urgent_passes_nest_on_stopped_ones_and_each_goes_on_where_it_was),
        cmocka_unit_test(few_tokens_share_a_pass_and_many_do_not),
        cmocka_unit_test(nobody_is_stopped_for_a_request_that_was_refused_at_the_door),
        cmocka_unit_test(decodes_wait_for_a_prompt_until_their_token_is_due),
        cmocka_unit_test(decodes_do_not_wait_where_a_deadline_is_missing_tight_or_a_frame_is_not_there),
        cmocka_unit_test(preemption_without_frames_is_refused),
        cmocka_unit_test(a_short_urgent_request_overtakes_a_long_prompt_and_no_bit_changes),
        cmocka_unit_test(a_cancelled_prompt_ends_within_its_pass_and_its_neighbour_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
