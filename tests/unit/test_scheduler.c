/* The scheduler: what runs next. Each test plays a short story by hand; tests/sim plays a million by dice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "tests/unit/story.h"

/* ---- the plane, cut between tokens ---- */

static void a_prompt_alone_runs_at_once_and_then_decodes(void **state) {
    (void)state;
    scheduler_config c = config_of(100);
    story           *t = begin(&c);
    assert_false(plan_next(t));
    submit(t, 1, 0, 20, 3);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 1, 0, 20, 0, 10);
    assert_true(slice_of(t, 1)->samples && t->plan.prefill_rows == 20 && t->plan.stoppable);
    finish(t);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 1, 20, 21, 0, 10);
    assert_true(slice_of(t, 1)->samples && t->plan.decode_rows == 1 && !t->plan.stoppable);
    finish(t);
    pass(t);
    assert_false(scheduler_is_live(t->s, 1));
    assert_false(plan_next(t));
    assert_int_equal(stats_of(t).generated_tokens, 3);
    end(t);
}

static void a_long_prompt_does_not_stall_running_decodes(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 4, 50);
    submit(t, 2, 100, 5, 50);
    pass(t);
    submit(t, 3, 200, 30, 5);
    for (uint32_t at = 0; at < 30; at += 8) {
        assert_true(plan_next(t));
        assert_int_equal(t->plan.decode_rows, 2);
        ASSERT_SLICE(t, 3, at, at + 8 < 30 ? at + 8 : 30, 0, 10);
        assert_true(slice_of(t, 3)->samples == (at + 8 >= 30));
        finish(t);
    }
    assert_int_equal(t->known[1], 4 + 5);
    pass(t);
    assert_int_equal(t->plan.decode_rows, 3);
    end(t);
}

static void prompts_share_the_rows_of_a_pass_in_order_of_arrival(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 5, 0, 30, 5);
    submit(t, 3, 100, 20, 5);
    submit(t, 4, 200, 40, 5);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 5, 0, 30, 0, 10);
    ASSERT_SLICE(t, 3, 0, 20, 0, 10);
    ASSERT_SLICE(t, 4, 0, 14, 0, 10);
    assert_false(slice_of(t, 4)->samples);
    assert_int_equal(t->plan.prefill_rows, 64);
    finish(t);
    assert_true(plan_next(t));
    assert_int_equal(t->plan.decode_rows, 2);
    ASSERT_SLICE(t, 4, 14, 22, 0, 10);
    finish(t);
    end(t);
}

static void whole_slicing_keeps_a_prompt_in_one_piece_beside_decodes(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    c.slicing.policy = SLICING_WHOLE;
    story *t = begin(&c);
    submit(t, 1, 0, 4, 50);
    pass(t);
    submit(t, 2, 100, 40, 5);
    submit(t, 3, 200, 40, 5);
    submit(t, 4, 300, 100, 5); /* longer than a pass: cut where it must be */
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 2, 0, 40, 0, 10);
    assert_null(slice_of(t, 3));
    finish(t);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 3, 0, 40, 0, 10);
    assert_null(slice_of(t, 4));
    finish(t);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 4, 0, 61, 0, 10);
    finish(t);
    end(t);
}

/* ---- the plane, cut between operators ---- */

static void layered_slicing_takes_a_prompt_through_one_group_a_pass(void **state) {
    (void)state;
    const uint32_t   cuts[] = {3, 7};
    scheduler_config c = config_of(200);
    c.slicing.policy = SLICING_LAYERED, c.model.op_cuts = cuts, c.model.op_cut_count = 2;
    story *t = begin(&c);
    submit(t, 1, 0, 4, 50);
    pass(t); /* nobody decodes: uncut */
    assert_int_equal(progress_of(t, 1).done_tokens, 4);
    submit(t, 2, 100, 30, 5);
    const uint32_t stairs[] = {0, 3, 7, 10};
    for (int i = 0; i < 3; i++) {
        assert_true(plan_next(t));
        assert_int_equal(t->plan.decode_rows, 1);
        ASSERT_SLICE(t, 2, 0, 30, stairs[i], stairs[i + 1]);
        assert_true(slice_of(t, 2)->samples == (i == 2));
        assert_int_equal(progress_of(t, 2).done_tokens, 0);
        finish(t);
    }
    assert_int_equal(progress_of(t, 2).done_tokens, 30);
    assert_int_equal(stats_of(t).frames_used, 0);
    end(t);
}

static void a_stopped_pass_goes_on_from_its_frame(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 20, 5);
    submit(t, 2, 100, 20, 5);
    assert_true(plan_next(t) && t->plan.stoppable);
    frame_place one = slice_of(t, 1)->frame_out, two = slice_of(t, 2)->frame_out;
    assert_true(one.frame == two.frame && one.row + 20 == two.row); /* one pass, one frame */
    scheduler_pass_stopped(t->s, ++t->now_us, 6);
    scheduler_check(t->s);
    assert_int_equal(stats_of(t).frames_used, 1);
    submit(t, 3, 200, 10, 5);
    assert_true(plan_next(t) && t->plan.stoppable);
    ASSERT_SLICE(t, 1, 0, 20, 6, 10);
    ASSERT_SLICE(t, 2, 0, 20, 6, 10);
    ASSERT_SLICE(t, 3, 0, 10, 0, 10);
    assert_memory_equal(&slice_of(t, 2)->frame_in, &two, sizeof two);
    assert_int_not_equal(slice_of(t, 3)->frame_out.frame, two.frame);
    scheduler_pass_stopped(t->s, ++t->now_us, 4); /* before the suspended ones joined */
    scheduler_check(t->s);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 1, 0, 20, 6, 10);
    ASSERT_SLICE(t, 3, 0, 10, 4, 10);
    finish(t);
    assert_int_equal(stats_of(t).frames_used, 0);
    assert_int_equal(t->known[1] + t->known[2] + t->known[3], 53);
    end(t);
}

static void without_a_free_frame_a_pass_cannot_be_stopped(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 10, 5);
    assert_true(plan_next(t));
    scheduler_pass_stopped(t->s, ++t->now_us, 2);
    submit(t, 2, 100, 10, 5);
    assert_true(plan_next(t));
    scheduler_pass_stopped(t->s, ++t->now_us, 1);
    assert_int_equal(stats_of(t).frames_used, 2);
    submit(t, 3, 200, 10, 5);
    assert_true(plan_next(t));
    assert_false(t->plan.stoppable);
    assert_int_equal(slice_of(t, 3)->frame_out.frame, NO_FRAME);
    finish(t);
    assert_int_equal(stats_of(t).frames_used, 0);

    c.frame_count = c.frame_tokens = 0;
    story *none = begin(&c);
    submit(none, 1, 0, 10, 5);
    assert_true(plan_next(none) && !none->plan.stoppable);
    finish(none);
    end(none);
    end(t);
}

static void tokens_are_shared_only_when_they_crossed_all_layers(void **state) {
    (void)state;
    const uint32_t   cuts[] = {5};
    scheduler_config c = config_of(200);
    c.slicing = (slicing_config){.policy = SLICING_LAYERED, .chunk_tokens = 18};
    c.model.op_cuts = cuts, c.model.op_cut_count = 1;
    story *t = begin(&c);
    submit(t, 1, 300, 4, 50);
    pass(t);
    submit(t, 2, 0, 20, 5);
    pass(t); /* half way */
    submit(t, 3, 0, 17, 5);
    pass(t); /* 2 is done after this; 3 started without it */
    assert_int_equal(progress_of(t, 3).cached_tokens, 0);
    submit(t, 4, 0, 20, 5);
    pass(t);
    assert_int_equal(progress_of(t, 4).cached_tokens, 16);
    end(t);
}

/* ---- prefixes ---- */

static void a_shared_prefix_is_computed_once(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 22, 2);
    run_dry(t);
    submit(t, 2, 0, 30, 2);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 2, 20, 30, 0, 10); /* whole pages of the first 22 */
    assert_int_equal(scheduler_cached_tokens(t->s, slice_of(t, 2)->slot), 20);
    finish(t);
    assert_int_equal(stats_of(t).cache_hit_tokens, 20);
    assert_int_equal(stats_of(t).cache_queried_tokens, 52);
    end(t);
}

static void the_last_prompt_token_is_computed_even_if_all_are_known(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 24, 2);
    run_dry(t);
    submit(t, 2, 0, 24, 2);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 2, 20, 24, 0, 10);
    finish(t);
    end(t);
}

static void a_second_turn_finds_what_the_first_one_generated(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 10, 9);
    run_dry(t);
    for (uint32_t i = 0; i < 19; i++) t->tokens[2][i] = t->tokens[1][i];
    for (uint32_t i = 19; i < 25; i++) t->tokens[2][i] = i;
    scheduler_request r = {.id = 2, .tokens = t->tokens[2], .prompt_tokens = 25, .output_tokens_max = 2};
    assert_int_equal(scheduler_submit(t->s, t->now_us, &r, NULL), OK);
    t->known[2] = 25, t->limit[2] = 27;
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 2, 16, 25, 0, 10); /* 18 were computed: the last one drawn never was */
    finish(t);
    end(t);
}

static void prefixes_of_different_salts_or_with_the_cache_off_are_not_shared(void **state) {
    (void)state;
    scheduler_config c = config_of(200);
    story           *t = begin(&c);
    submit(t, 1, 0, 20, 2);
    run_dry(t);
    scheduler_request r = {.id = 2, .tokens = t->tokens[1], .prompt_tokens = 20, .output_tokens_max = 2, .cache_salt = 99};
    assert_int_equal(scheduler_submit(t->s, t->now_us, &r, NULL), OK);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 2, 0, 20, 0, 10);
    assert_true(scheduler_cancel(t->s, t->now_us, 2));
    scheduler_pass_stopped(t->s, t->now_us, 5);
    end(t);

    c.retention.prefix_cache = false;
    story *off = begin(&c);
    submit(off, 1, 0, 20, 2);
    run_dry(off);
    submit(off, 2, 0, 20, 2);
    assert_true(plan_next(off));
    ASSERT_SLICE(off, 2, 0, 20, 0, 10);
    finish(off);
    end(off);
}

static void dropping_the_cache_forgets_what_nobody_runs_on(void **state) {
    (void)state;
    scheduler_config c = config_of(50);
    story           *t = begin(&c);
    submit(t, 1, 0, 20, 2);
    run_dry(t);
    assert_int_equal(stats_of(t).pages_cached, 5);
    scheduler_drop_cache(t->s);
    assert_int_equal(stats_of(t).pages_free, 50);
    submit(t, 2, 0, 20, 2);
    assert_true(plan_next(t));
    ASSERT_SLICE(t, 2, 0, 20, 0, 10);
    finish(t);
    end(t);
}

/* ---- memory ---- */

static void greedy_admits_by_the_prompt_and_conservative_by_the_whole_life(void **state) {
    (void)state;
    scheduler_config c = config_of(12); /* 48 tokens */
    for (int conservative = 0; conservative <= 1; conservative++) {
        c.admission.policy = conservative ? ADMISSION_CONSERVATIVE : ADMISSION_GREEDY;
        story *t = begin(&c);
        submit(t, 1, 0, 8, 20);
        submit(t, 2, 100, 8, 20);
        assert_true(plan_next(t));
        assert_int_equal(stats_of(t).running, conservative ? 1 : 2);
        finish(t);
        run_dry(t);
        assert_int_equal(stats_of(t).finished, 2);
        if (conservative) assert_int_equal(stats_of(t).preempted, 0);
        end(t);
    }
}

static void greedy_leaves_a_page_for_each_that_runs(void **state) {
    (void)state;
    for (uint32_t pages = 6; pages <= 7; pages++) { /* each needs 3 for its prompt and first token */
        scheduler_config c = config_of(pages);
        story           *t = begin(&c);
        submit(t, 1, 0, 8, 4);
        submit(t, 2, 100, 8, 4);
        pass(t);
        assert_int_equal(stats_of(t).running, pages - 5);
        run_dry(t);
        end(t);
    }
}

static void nobody_passes_a_request_that_does_not_fit(void **state) {
    (void)state;
    scheduler_config c = config_of(12);
    story           *t = begin(&c);
    submit(t, 1, 0, 20, 8);
    pass(t);
    submit(t, 2, 100, 36, 4);
    submit(t, 3, 200, 2, 2); /* would fit */
    pass(t);
    assert_null(slice_of(t, 2));
    assert_null(slice_of(t, 3));
    run_dry(t);
    assert_int_equal(stats_of(t).finished, 3);
    end(t);
}

static void the_latest_arrival_gives_its_memory_back_and_loses_no_token(void **state) {
    (void)state;
    scheduler_config c = config_of(8); /* 32 tokens */
    story           *t = begin(&c);
    submit(t, 1, 0, 8, 22);
    submit(t, 2, 100, 8, 12);
    while (stats_of(t).preempted == 0) pass(t);
    assert_true(progress_of(t, 1).running);
    scheduler_progress two = progress_of(t, 2);
    assert_false(two.running);
    assert_int_equal(two.preemptions, 1);
    assert_true(two.known_tokens > 8);
    uint32_t known = t->known[2];
    submit(t, 3, 200, 4, 4);
    for (; !progress_of(t, 2).running; pass(t)) assert_false(progress_of(t, 3).running); /* comes back first */
    assert_true(t->known[2] >= known);
    run_dry(t);
    assert_int_equal(t->known[1], 30);
    assert_int_equal(t->known[2], 20);
    assert_int_equal(stats_of(t).finished, 3);
    assert_true(stats_of(t).recomputed_tokens > 0);
    end(t);
}

/* The first in the queue keeps the pages it found, but not against those who run. */
static void pages_kept_for_the_queue_are_taken_before_anybody_is_sent_back(void **state) {
    (void)state;
    scheduler_config c = config_of(12);
    story           *t = begin(&c);
    submit(t, 1, 0, 20, 2);
    run_dry(t); /* 5 pages stay in the cache */
    submit(t, 2, 100, 8, 36);
    pass(t);
    submit(t, 3, 0, 36, 4); /* finds 5, needs 5 more: has to wait, and holds them */
    pass(t);
    assert_int_equal(stats_of(t).running, 1);
    assert_int_equal(stats_of(t).pages_held, 3 + 5);
    while (scheduler_is_live(t->s, 2)) pass(t);
    assert_int_equal(stats_of(t).preempted, 0);
    run_dry(t);
    assert_int_equal(stats_of(t).finished, 3);
    assert_int_equal(t->known[2], 44);
    end(t);
}

static void the_same_victim_is_never_taken_twice_in_a_row(void **state) {
    (void)state;
    scheduler_config c = config_of(10);
    c.retention.prefix_cache = false;
    story *t = begin(&c);
    for (uint64_t id = 1; id <= 4; id++) submit(t, id, 100 * (uint32_t)id, 2, 36);
    uint32_t before[5] = {0};
    uint64_t last = 0, taken = 0;
    while (plan_next(t)) {
        uint32_t others = 0;
        for (uint64_t id = 1; id <= 4; id++) others += scheduler_is_live(t->s, id);
        for (uint64_t id = 1; id <= 4; id++) {
            if (!scheduler_is_live(t->s, id) || progress_of(t, id).preemptions == before[id]) continue;
            before[id] = progress_of(t, id).preemptions;
            assert_true(id != last || others == 1);
            last = id, taken++;
        }
        finish(t);
    }
    assert_true(taken >= 4);
    assert_int_equal(stats_of(t).finished, 4);
    end(t);
}

static void a_request_that_just_fits_the_pool_finishes(void **state) {
    (void)state;
    scheduler_config c = config_of(3); /* 12 tokens; the 13th is drawn and never computed */
    story           *t = begin(&c);
    for (uint32_t prompt = 1; prompt <= 12; prompt++) {
        assert_int_equal(submit(t, prompt, 0, prompt, 13 - prompt), OK);
        run_dry(t);
        assert_int_equal(t->known[prompt], 13);
    }
    assert_int_equal(submit(t, 20, 0, 7, 7), ERR_TOO_LARGE);
    end(t);
}

/* ---- answers ---- */

static void what_can_never_run_is_refused(void **state) {
    (void)state;
    scheduler_config c = config_of(20); /* 80 tokens, of a context of 400 */
    c.waiting_tokens_max = 50;
    story *t = begin(&c);
    error  err;
    assert_int_equal(submit(t, 1, 0, 0, 5), ERR_INVALID);
    assert_int_equal(submit(t, 1, 0, 5, 0), ERR_INVALID);
    assert_int_equal(submit(t, 1, 0, 350, 51), ERR_TOO_LARGE);
    assert_int_equal(submit(t, 1, 0, 40, 42), ERR_TOO_LARGE);
    assert_int_equal(submit(t, 1, 0, 51, 5), ERR_TOO_LARGE);
    scheduler_request r = {.id = 1, .tokens = t->tokens[0], .prompt_tokens = UINT32_MAX, .output_tokens_max = UINT32_MAX};
    assert_int_equal(scheduler_submit(t->s, t->now_us, &r, &err), ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "400"));
    assert_int_equal(submit(t, 1, 0, 40, 41), OK);
    assert_int_equal(submit(t, 1, 0, 5, 5), ERR_INVALID); /* the id is live */
    assert_int_equal(stats_of(t).refused, 7);
    run_dry(t);
    end(t);
}

static void a_full_queue_answers_full_and_changes_nothing(void **state) {
    (void)state;
    scheduler_config c = config_of(100);
    c.waiting_tokens_max = 70;
    story *t = begin(&c);
    for (uint64_t id = 0; id < 6; id++) assert_int_equal(submit(t, id, 0, 10, 5), OK);
    assert_int_equal(submit(t, 6, 0, 11, 5), ERR_FULL); /* tokens */
    assert_int_equal(submit(t, 6, 0, 1, 5), OK);
    assert_int_equal(submit(t, 7, 0, 1, 5), OK);
    assert_int_equal(submit(t, 8, 0, 1, 5), ERR_FULL); /* requests */
    assert_int_equal(stats_of(t).waiting, 8);
    assert_int_equal(stats_of(t).waiting_tokens, 62);
    assert_false(scheduler_is_live(t->s, 8));
    run_dry(t);
    assert_int_equal(submit(t, 8, 0, 1, 5), OK);
    end(t);
}

static void a_cancelled_request_gives_its_pages_back(void **state) {
    (void)state;
    scheduler_config c = config_of(40);
    story           *t = begin(&c);
    for (uint64_t id = 1; id <= 5; id++) submit(t, id, 100 * (uint32_t)id, 10, 20);
    pass(t); /* 4 run, 1 waits */
    assert_true(scheduler_cancel(t->s, t->now_us, 5));
    assert_true(scheduler_cancel(t->s, t->now_us, 2));
    assert_false(scheduler_is_live(t->s, 2) || scheduler_is_live(t->s, 5));
    assert_false(scheduler_cancel(t->s, t->now_us, 2));
    pass(t);
    assert_null(slice_of(t, 2));
    for (uint64_t id = 1; id <= 4; id++) scheduler_cancel(t->s, t->now_us, id);
    assert_int_equal(stats_of(t).pages_held, 0);
    assert_int_equal(stats_of(t).cancelled, 5);
    assert_false(plan_next(t));
    end(t);
}

static void a_request_cancelled_in_flight_ends_when_its_pass_is_reported(void **state) {
    (void)state;
    scheduler_config c = config_of(40);
    story           *t = begin(&c);
    submit(t, 1, 0, 10, 20);
    submit(t, 2, 100, 10, 20);
    assert_true(plan_next(t));
    assert_true(scheduler_cancel(t->s, t->now_us, 1));
    assert_true(scheduler_is_live(t->s, 1)); /* its tokens are still read */
    assert_int_equal(submit(t, 1, 0, 5, 5), ERR_INVALID);
    finish(t);
    assert_false(scheduler_is_live(t->s, 1));
    assert_true(scheduler_is_live(t->s, 2));
    submit(t, 3, 200, 10, 20);
    assert_true(plan_next(t));
    assert_true(scheduler_cancel(t->s, t->now_us, 3));
    finish(t);
    assert_int_equal(stats_of(t).cancelled, 2);

    submit(t, 4, 300, 30, 5); /* and in a stopped one */
    assert_true(scheduler_cancel(t->s, t->now_us, 2));
    assert_true(plan_next(t) && t->plan.stoppable);
    assert_false(scheduler_should_stop(t->s, t->now_us));
    assert_true(scheduler_cancel(t->s, t->now_us, 4));
    assert_true(scheduler_should_stop(t->s, t->now_us)); /* nobody wants its rows */
    scheduler_pass_stopped(t->s, ++t->now_us, 3);
    assert_int_equal(stats_of(t).frames_used, 0);
    assert_int_equal(stats_of(t).pages_held, 0);
    end(t);
}

static void a_job_is_known_by_its_requests(void **state) {
    (void)state;
    scheduler_config   c = config_of(100);
    story             *t = begin(&c);
    scheduler_job_view v;
    for (uint64_t id = 1; id <= 2; id++) {
        scheduler_request r = {.id = id, .tokens = t->tokens[id], .prompt_tokens = 6, .output_tokens_max = 1, .job.id = 42};
        t->now_us = id * 100;
        assert_false(id == 1 && scheduler_read_job(t->s, 42, &v));
        assert_int_equal(scheduler_submit(t->s, t->now_us, &r, NULL), OK);
        t->known[id] = 6, t->limit[id] = 7;
        assert_true(scheduler_read_job(t->s, 42, &v) && v.live == 1 && v.turns == id - 1);
        pass(t);
    }
    assert_true(scheduler_read_job(t->s, 42, &v) && v.live == 0 && v.turns == 2 && v.arrived_us == 100);
    assert_int_equal(stats_of(t).jobs, 1);
    end(t);
}

static void policies_have_names_and_only_those_built_in_are_found(void **state) {
    (void)state;
    assert_int_equal(scheduler_policy_find(AXIS_SLICING, "layered"), SLICING_LAYERED);
    assert_int_equal(scheduler_policy_find(AXIS_SLICING, "diagonal"), -1);
    assert_string_equal(scheduler_policy_name(AXIS_ORDER, ORDER_GOODPUT), "goodput");
    assert_null(scheduler_policy_name(AXIS_ORDER, ORDER_COUNT));
    for (int axis = 0; axis < AXIS_COUNT; axis++) { /* the first of each is the default, and there */
        assert_int_equal(scheduler_policy_find((policy_axis)axis, scheduler_policy_name((policy_axis)axis, 0)), 0);
        for (uint32_t i = 0; scheduler_policy_name((policy_axis)axis, i); i++) {
            int found = scheduler_policy_find((policy_axis)axis, scheduler_policy_name((policy_axis)axis, i));
            assert_true(found == -1 || found == (int)i);
        }
    }
}

static void settings_that_make_no_sense_are_refused_with_a_sentence(void **state) {
    (void)state;
    const scheduler_config good = config_of(100);
    const uint32_t         cuts[] = {4, 4};
    scheduler_config       bad[] = {good, good, good, good, good, good, good, good};
    bad[0].batch_tokens_max = good.running_max;
    bad[1].page_tokens = 0;
    bad[2].slicing.policy = (slicing_policy)99;
    bad[3].slicing.policy = SLICING_LAYERED, bad[3].frame_count = bad[3].frame_tokens = 0;
    bad[4].frame_tokens = 0;
    bad[5].model.op_cuts = cuts, bad[5].model.op_cut_count = 2;
    bad[6].model.op_count = 0;
    bad[7].order.policy = (order_policy)7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scheduler *s;
        error      err = {0};
        assert_int_not_equal(scheduler_new(&s, &bad[i], &err), OK);
        assert_null(s);
        assert_true(strlen(err.text) > 20);
    }
    scheduler_config huge = good;
    huge.running_max = 1 << 16, huge.context_max = 1 << 28, huge.page_tokens = 1, huge.page_count = (1 << 30) - 1;
    huge.batch_tokens_max = 1 << 17;
#ifndef __SANITIZE_ADDRESS__ /* which ends the process instead of answering NULL */
    scheduler *s;
    assert_int_equal(scheduler_new(&s, &huge, NULL), ERR_MEMORY);
#endif
    assert_true(scheduler_memory_bytes(&good) > 0 && scheduler_memory_bytes(&good) < scheduler_memory_bytes(&huge));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_alone_runs_at_once_and_then_decodes),
        cmocka_unit_test(a_long_prompt_does_not_stall_running_decodes),
        cmocka_unit_test(prompts_share_the_rows_of_a_pass_in_order_of_arrival),
        cmocka_unit_test(whole_slicing_keeps_a_prompt_in_one_piece_beside_decodes),
        cmocka_unit_test(layered_slicing_takes_a_prompt_through_one_group_a_pass),
        cmocka_unit_test(a_stopped_pass_goes_on_from_its_frame),
        cmocka_unit_test(without_a_free_frame_a_pass_cannot_be_stopped),
        cmocka_unit_test(tokens_are_shared_only_when_they_crossed_all_layers),
        cmocka_unit_test(a_shared_prefix_is_computed_once),
        cmocka_unit_test(the_last_prompt_token_is_computed_even_if_all_are_known),
        cmocka_unit_test(a_second_turn_finds_what_the_first_one_generated),
        cmocka_unit_test(prefixes_of_different_salts_or_with_the_cache_off_are_not_shared),
        cmocka_unit_test(dropping_the_cache_forgets_what_nobody_runs_on),
        cmocka_unit_test(greedy_admits_by_the_prompt_and_conservative_by_the_whole_life),
        cmocka_unit_test(greedy_leaves_a_page_for_each_that_runs),
        cmocka_unit_test(nobody_passes_a_request_that_does_not_fit),
        cmocka_unit_test(the_latest_arrival_gives_its_memory_back_and_loses_no_token),
        cmocka_unit_test(pages_kept_for_the_queue_are_taken_before_anybody_is_sent_back),
        cmocka_unit_test(the_same_victim_is_never_taken_twice_in_a_row),
        cmocka_unit_test(a_request_that_just_fits_the_pool_finishes),
        cmocka_unit_test(what_can_never_run_is_refused),
        cmocka_unit_test(a_full_queue_answers_full_and_changes_nothing),
        cmocka_unit_test(a_cancelled_request_gives_its_pages_back),
        cmocka_unit_test(a_request_cancelled_in_flight_ends_when_its_pass_is_reported),
        cmocka_unit_test(a_job_is_known_by_its_requests),
        cmocka_unit_test(policies_have_names_and_only_those_built_in_are_found),
        cmocka_unit_test(settings_that_make_no_sense_are_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
