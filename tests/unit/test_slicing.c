/* Slicing: how much of a prompt goes beside decodes, and along which side of the rectangle. First the policies by
 * themselves, told a budget and a piece; then expert bytes on the sim device, where cutting between layers must save them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

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
        cmocka_unit_test(cutting_between_layers_saves_expert_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
