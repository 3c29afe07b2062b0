/* Slicing: how much of a prompt goes beside decodes, and along which side of the rectangle. First the policies by
 * themselves, told a budget and a piece; then expert bytes on the sim device, where cutting between layers must save them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "scheduler/slicing.h"

enum { LAYERS = 48, OPS = 2 + 10 * LAYERS };

static uint32_t         cuts[LAYERS - 1];
static scheduler_config config;
static step_model       steps;
static step_load        load;

/* A model of 48 layers, eight decodes in the pass. A pass takes 5 ms, and 10 us for each row of a prompt. */
static int begin(void **state) {
    (void)state;
    for (uint32_t i = 0; i < LAYERS - 1; i++) cuts[i] = 1 + 10 * (i + 1);
    config = (scheduler_config){.slicing.chunk_tokens = 512,
                                .frame_count = 4,
                                .frame_tokens = 8192,
                                .model = {.op_count = OPS, .op_cuts = cuts, .op_cut_count = LAYERS - 1}};
    step_model_init(&steps, &config.model);
    for (uint32_t i = 0; i < 64; i++) {
        step_load l = {0};
        for (uint32_t k = 0; k < 8; k++) step_load_add_decode(&l, &config.model, 100);
        step_load_add_prefill(&l, &config.model, 0, 64 * (i % 16) + 1, 0, OPS);
        step_model_learn(&steps, &l, 5000 + 10 * (64 * (i % 16) + 1));
    }
    load = (step_load){0};
    for (uint32_t k = 0; k < 8; k++) step_load_add_decode(&load, &config.model, 100);
    return 0;
}

static prefill_cut ask(const slicing_api *policy, uint32_t tokens, uint32_t op_begin, uint64_t left_us) {
    const pass_budget   b = {.decode_rows = 8, .rows_left = 8192, .left_us = left_us, .load = &load, .steps = &steps};
    const prefill_piece p = {.tokens = tokens, .op_begin = op_begin, .op_end = OPS};
    prefill_cut         cut = {0};
    assert_true(policy->next(&config, &b, &p, &cut));
    return cut;
}

static void a_fixed_chunk_is_what_was_asked_for(void **state) {
    (void)state;
    assert_int_equal(ask(&slicing_chunked, 4000, 0, 1000000).tokens, 512);
    assert_int_equal(ask(&slicing_chunked, 300, 0, NO_DUE).tokens, 300);
}

static void a_chunk_by_deadline_is_the_largest_that_lets_the_tightest_decode_have_its_token(void **state) {
    (void)state;
    config.slicing.budget = SLICING_BUDGET_DEADLINE;
    const uint32_t rows = ask(&slicing_chunked, 4000, 0, 16000).tokens; /* 14 ms after the margin: 900 rows */
    assert_in_range(rows, 768, 896);
    assert_int_equal(rows % 64, 0);
    assert_in_range(ask(&slicing_chunked, 4000, 0, 9000).tokens, 192, 320);
    assert_int_equal(ask(&slicing_chunked, 100, 0, 16000).tokens, 100);   /* all there is */
    assert_int_equal(ask(&slicing_chunked, 4000, 0, 1000).tokens, 64);    /* lost already: prompts get on all the same */
    assert_int_equal(ask(&slicing_chunked, 4000, 0, NO_DUE).tokens, 512); /* nobody says */
    step_model_init(&steps, &config.model);
    assert_int_equal(ask(&slicing_chunked, 4000, 0, 16000).tokens, 512); /* nothing was learned */
}

static void layers_go_in_as_many_groups_as_the_prompt_has_chunks(void **state) {
    (void)state;
    uint32_t groups = 0;
    for (uint32_t at = 0; at < OPS; groups++) {
        const prefill_cut cut = ask(&slicing_layered, 4096, at, NO_DUE);
        assert_int_equal(cut.tokens, 4096);
        assert_true(cut.op_end > at);
        assert_in_range(cut.op_end - at, 1, OPS / 8 + 10);
        at = cut.op_end;
    }
    assert_in_range(groups, 8, 9);
    assert_int_equal(ask(&slicing_layered, 512, 0, NO_DUE).op_end, OPS); /* one chunk: uncut */
}

static void groups_nest_in_chunks_as_wide_as_a_frame(void **state) {
    (void)state;
    config.frame_tokens = 1000;
    assert_int_equal(ask(&slicing_layered, 4096, 0, NO_DUE).tokens, 1000);
}

static void a_group_by_deadline_grows_with_the_time_there_is(void **state) {
    (void)state;
    config.slicing.budget = SLICING_BUDGET_DEADLINE;
    const uint32_t tight = ask(&slicing_layered, 4096, 0, 9000).op_end, wide = ask(&slicing_layered, 4096, 0, 30000).op_end;
    assert_true(tight < wide && wide < OPS);
    assert_int_equal(ask(&slicing_layered, 4096, 0, 1000).op_end, cuts[0]); /* never less than a layer */
    assert_int_equal(ask(&slicing_layered, 4096, 0, 1000000).op_end, OPS);
}

static void auto_cuts_between_layers_only_where_there_are_experts_and_much_to_do(void **state) {
    (void)state;
    assert_int_equal(ask(&slicing_auto, 4096, 0, NO_DUE).tokens, 512);
    config.model.experts = 128, config.model.experts_per_row = 8;
    step_model_init(&steps, &config.model);
    const prefill_cut cut = ask(&slicing_auto, 4096, 0, NO_DUE);
    assert_true(cut.tokens == 4096 && cut.op_end < OPS);
    assert_int_equal(ask(&slicing_auto, 400, 0, NO_DUE).op_end, OPS);
    config.frame_count = 0; /* nowhere to leave rows */
    assert_int_equal(ask(&slicing_auto, 4096, 0, NO_DUE).tokens, 512);
}

static bool doubted(const scheduler_config *c, const char *words) {
    for (uint32_t i = 0; scheduler_config_doubt(c, i); i++)
        if (strstr(scheduler_config_doubt(c, i), words)) return true;
    return false;
}

static void doubtful_ways_to_cut_are_told(void **state) {
    (void)state;
    config.context_max = 4096;
    assert_null(scheduler_config_doubt(&config, 0));
    config.slicing.policy = SLICING_LAYERED;
    assert_true(doubted(&config, "without experts"));
    config.model.experts = 8, config.model.experts_per_row = 2;
    assert_false(doubted(&config, "without experts"));
    config.slicing = (slicing_config){.policy = SLICING_WHOLE, .budget = SLICING_BUDGET_DEADLINE, .short_tokens = 4096};
    assert_true(doubted(&config, "budget") && doubted(&config, "short"));
    config.preemption.policy = PREEMPTION_OPERATOR;
    assert_true(doubted(&config, "fcfs"));
    config.preemption.decodes_wait = true;
    assert_false(doubted(&config, "fcfs"));
}

/* ---- length-aware batching ---- */

typedef struct {
    scheduler *s;
    plan       plan;
    uint64_t   now_us;
    uint32_t   tokens[8][1100], known[8], limit[8];
} story;

static void submit(story *t, uint64_t id, uint32_t prompt, uint32_t output) {
    for (uint32_t i = 0; i < prompt; i++) t->tokens[id][i] = (uint32_t)id * 2000 + i;
    const scheduler_request r = {.id = id, .tokens = t->tokens[id], .prompt_tokens = prompt, .output_tokens_max = output};
    assert_int_equal(scheduler_submit(t->s, ++t->now_us, &r, NULL), OK);
    t->known[id] = prompt, t->limit[id] = prompt + output;
}

static uint32_t prompts_of_pass(story *t, bool has_row[8]) {
    slice_outcome outcomes[2048] = {0};
    for (int i = 0; i < 8; i++) has_row[i] = false;
    assert_true(scheduler_plan(t->s, ++t->now_us, &t->plan));
    scheduler_check(t->s);
    for (uint32_t i = 0; i < t->plan.slice_count; i++) {
        const uint64_t id = t->plan.slices[i].id;
        has_row[id] = true;
        if (!t->plan.slices[i].samples) continue;
        t->tokens[id][t->known[id]++] = 7;
        outcomes[i] = (slice_outcome){7, t->known[id] == t->limit[id]};
    }
    scheduler_pass_done(t->s, t->now_us += 100, outcomes);
    return t->plan.slice_count - t->plan.decode_rows;
}

static void short_prompts_and_long_ones_share_no_pass_and_take_turns(void **state) {
    (void)state;
    const scheduler_config c = {.running_max = 8,
                                .waiting_max = 8,
                                .context_max = 1100,
                                .batch_tokens_max = 300,
                                .page_count = 400,
                                .page_tokens = 16,
                                .model.op_count = 10,
                                .slicing = {.chunk_tokens = 200, .short_tokens = 64}};
    story                 *t = calloc(1, sizeof *t);
    bool                   in[8];
    assert_int_equal(scheduler_new(&t->s, &c, NULL), OK);
    submit(t, 0, 50, 30);
    submit(t, 1, 500, 1);
    submit(t, 2, 60, 1);
    submit(t, 3, 600, 1);
    submit(t, 4, 64, 1);
    assert_int_equal(prompts_of_pass(t, in), 3); /* the short ones pass the long ones */
    assert_true(in[0] && in[2] && in[4] && !in[1] && !in[3]);
    assert_int_equal(prompts_of_pass(t, in), 1); /* which are next, beside the answer that runs */
    assert_true(in[0] && in[1] && t->plan.decode_rows == 1);
    submit(t, 5, 40, 1);
    submit(t, 6, 40, 1);
    uint32_t short_passes = 0, turns = 0;
    for (; turns < 20 && t->known[3] < t->limit[3]; turns++) {
        prompts_of_pass(t, in);
        assert_true(in[0]); /* a decode is in every pass */
        const bool has_short = in[5] || in[6];
        assert_false(has_short && (in[1] || in[3]));
        if (has_short) assert_true(in[5] && in[6]);
        short_passes += has_short;
    }
    assert_int_equal(short_passes, 1);
    assert_true(turns < 12);
    scheduler_free(t->s);
    free(t);
}

/* ---- expert bytes ---- */

static void wait_for(engine *e, uint32_t answers) {
    while (answers > 0) {
        engine_event events[64];
        assert_true(engine_wait(e, 60000));
        const uint32_t n = engine_next(e, events, 64);
        for (uint32_t i = 0; i < n; i++) answers -= events[i].finished;
    }
}

static void ask_engine(engine *e, uint64_t id, uint32_t prompt, uint32_t output) {
    engine_request r = {.id = id,
                        .tokens = malloc(prompt * sizeof(uint32_t)),
                        .prompt_tokens = prompt,
                        .output_tokens_max = output,
                        .ignore_eos = true,
                        .params = {.top_p = 1, .repetition_penalty = 1, .top_logprobs = -1}};
    for (uint32_t i = 0; i < prompt; i++) r.tokens[i] = 1000 + (uint32_t)(id * 7 + i) % 5000;
    error err;
    if (engine_submit(e, &r, &err) != OK) fail_msg("%s", err.text);
}

/* Of prompts of 6,000 tokens beside four answers, counted from when these run. */
static double expert_bytes(slicing_policy policy) {
    engine_config c = {.model = "random:qwen3-30b-a3b", .device = "sim", .context_max = 16384};
    c.scheduler_settings.slicing.policy = policy;
    c.scheduler_settings.batch_tokens_max = 8192;
    engine         *e;
    engine_snapshot s;
    error           err;
    if (engine_open(&e, &c, &err) != OK) fail_msg("%s", err.text);
    for (uint64_t i = 0; i < 4; i++) ask_engine(e, i, 16, 60);
    for (uint64_t i = 4; i < 8; i++) ask_engine(e, i, 6000, 2);
    wait_for(e, 8);
    engine_read_snapshot(e, &s);
    engine_close(e);
    return (double)s.device.expert_bytes;
}

static void cutting_between_layers_saves_expert_bytes(void **state) {
    (void)state;
    const double chunks = expert_bytes(SLICING_CHUNKED), layers = expert_bytes(SLICING_LAYERED),
                 whichever = expert_bytes(SLICING_AUTO);
    print_message("expert bytes of layered over chunked: %.2f\n", layers / chunks);
    assert_true(layers < 0.8 * chunks);
    assert_true(whichever < 0.8 * chunks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_fixed_chunk_is_what_was_asked_for, begin),
        cmocka_unit_test_setup(a_chunk_by_deadline_is_the_largest_that_lets_the_tightest_decode_have_its_token, begin),
        cmocka_unit_test_setup(layers_go_in_as_many_groups_as_the_prompt_has_chunks, begin),
        cmocka_unit_test_setup(groups_nest_in_chunks_as_wide_as_a_frame, begin),
        cmocka_unit_test_setup(a_group_by_deadline_grows_with_the_time_there_is, begin),
        cmocka_unit_test_setup(auto_cuts_between_layers_only_where_there_are_experts_and_much_to_do, begin),
        cmocka_unit_test_setup(doubtful_ways_to_cut_are_told, begin),
        cmocka_unit_test(short_prompts_and_long_ones_share_no_pass_and_take_turns),
        cmocka_unit_test(cutting_between_layers_saves_expert_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
