/* Memory taken back: from whom, and how it comes back: by copies of pages, which fail, are slow, and stay clean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "scheduler/scheduler.h"

enum { REQUESTS = 8, TOKENS = 512, ROWS = 256, PAGE_TOKENS = 4, COPIES = 64 };

typedef struct {
    scheduler *s;
    plan       plan;
    bool       runs;
    page_copy  copies[COPIES]; /* in flight */
    uint32_t   copy_count;
    uint64_t   now_us, pass_us;
    uint32_t   tokens[REQUESTS][TOKENS], known[REQUESTS], limit[REQUESTS];
} story;

/* Twelve pages: two sequences of 24 tokens fill them, and then one of them gives way. */
static scheduler_config small(void) {
    return (scheduler_config){.running_max = 4,
                              .waiting_max = 8,
                              .context_max = TOKENS,
                              .batch_tokens_max = ROWS,
                              .slicing = {.policy = SLICING_WHOLE, .chunk_tokens = 64},
                              .retention.prefix_cache = true,
                              .page_count = 12,
                              .page_tokens = PAGE_TOKENS,
                              .model.op_count = 3,
                              .reclaim = {.policy = RECLAIM_SWAP, .host_pages = 16}};
}

static story *begin(const scheduler_config *c) {
    story *t = calloc(1, sizeof *t);
    error  err;
    assert_non_null(t);
    t->pass_us = 1000;
    if (scheduler_new(&t->s, c, &err) != OK) fail_msg("%s", err.text);
    return t;
}

static void end(story *t) {
    scheduler_check(t->s);
    scheduler_free(t->s);
    free(t);
}

static scheduler_stats stats_of(const story *t) {
    scheduler_stats s;
    scheduler_read_stats(t->s, &s);
    return s;
}

static scheduler_progress progress_of(const story *t, uint64_t id) {
    scheduler_progress p;
    assert_true(scheduler_read_progress(t->s, id, &p));
    return p;
}

static void submit(story *t, uint64_t id, int32_t priority, uint32_t prompt, uint32_t output) {
    for (uint32_t i = 0; i < prompt; i++) t->tokens[id][i] = (uint32_t)id * 1000 + i;
    const scheduler_request r = {
        .id = id, .tokens = t->tokens[id], .prompt_tokens = prompt, .output_tokens_max = output, .priority = priority};
    assert_int_equal(scheduler_submit(t->s, ++t->now_us, &r, NULL), OK);
    t->known[id] = prompt, t->limit[id] = prompt + output;
}

static void plan_next(story *t) {
    t->runs = scheduler_plan(t->s, ++t->now_us, &t->plan);
    for (uint32_t i = 0; i < t->plan.copy_count; i++) t->copies[t->copy_count++] = t->plan.copies[i];
    scheduler_check(t->s);
}

static void report_copies(story *t, bool ok) {
    for (uint32_t i = 0; i < t->copy_count; i++) scheduler_copy_done(t->s, ++t->now_us, t->copies[i].id, ok);
    t->copy_count = 0;
    scheduler_check(t->s);
}

static void finish(story *t) {
    slice_outcome outcomes[ROWS] = {0};
    if (!t->runs) return;
    for (uint32_t i = 0; i < t->plan.slice_count; i++) {
        const uint64_t id = t->plan.slices[i].id;
        if (!t->plan.slices[i].samples) continue;
        t->tokens[id][t->known[id]] = 7;
        outcomes[i] = (slice_outcome){7, ++t->known[id] == t->limit[id]};
    }
    scheduler_pass_done(t->s, t->now_us += t->pass_us, outcomes);
    scheduler_check(t->s);
}

static bool has_row(const story *t, uint64_t id) {
    for (uint32_t i = 0; i < t->plan.slice_count && t->runs; i++)
        if (t->plan.slices[i].id == id) return true;
    return false;
}

/* Passes until somebody's memory was taken back; its plan is in flight. Copies meanwhile are done at once. */
static void run_until_taken_back(story *t) {
    const uint64_t before = stats_of(t).preempted;
    for (int passes = 0; passes < 200; passes++) {
        plan_next(t);
        if (stats_of(t).preempted > before) return;
        report_copies(t, true);
        finish(t);
    }
    fail_msg("nobody's memory was taken back");
}

static void run_until_over(story *t, bool copies_work) {
    for (int passes = 0; passes < 500; passes++) {
        plan_next(t);
        if (!t->runs && t->copy_count == 0) break;
        finish(t);
        report_copies(t, copies_work);
    }
    assert_int_equal(stats_of(t).running + stats_of(t).waiting, 0);
}

static void who_lost_its_memory_comes_back_by_copies_and_runs_when_the_last_is_there(void **state) {
    (void)state;
    const scheduler_config c = small();
    story                 *t = begin(&c);
    submit(t, 1, 0, 17, 12), submit(t, 2, 0, 17, 20);
    run_until_taken_back(t);
    assert_false(progress_of(t, 2).running);
    assert_true(t->copy_count > 3 && t->copies[0].to_host);
    assert_int_equal(stats_of(t).swapped, 1);
    finish(t);
    report_copies(t, true);
    while (scheduler_is_live(t->s, 1)) plan_next(t), finish(t);
    run_until_over(t, true);
    assert_true(stats_of(t).recomputed_tokens < PAGE_TOKENS);
    end(t);
}

/* The pages that were copied out go to somebody else before their owner comes back. */
static story *swapped_out_and_evicted(scheduler_config c) {
    c.order.policy = ORDER_PRIORITY;
    story *t = begin(&c);
    submit(t, 1, 0, 17, 12), submit(t, 2, 5, 17, 20);
    run_until_taken_back(t);
    submit(t, 3, 0, 33, 2);
    return t;
}

static void run_until_arriving(story *t) {
    for (int passes = 0; passes < 200 && stats_of(t).arriving == 0; passes++) {
        finish(t);
        report_copies(t, true);
        plan_next(t);
    }
    assert_int_equal(stats_of(t).arriving, 1);
}

static void its_pages_are_reserved_and_it_has_no_row_while_copies_are_in_flight(void **state) {
    (void)state;
    story *t = swapped_out_and_evicted(small());
    run_until_arriving(t);
    assert_true(progress_of(t, 2).running && !has_row(t, 2) && t->copy_count > 0 && !t->copies[0].to_host);
    finish(t);
    plan_next(t);
    assert_false(t->runs); /* nobody else is there, and it is not asked to wait by being planned */
    assert_true(scheduler_cancel(t->s, t->now_us, 99) == false);
    report_copies(t, true);
    plan_next(t);
    assert_true(has_row(t, 2));
    assert_true(t->plan.prefill_rows <= PAGE_TOKENS);
    assert_int_equal(stats_of(t).recomputed_tokens + stats_of(t).swap_in_tokens, t->known[2] - 1);
    finish(t);
    run_until_over(t, true);
    end(t);
}

static void a_copy_that_failed_is_computed_and_nothing_is_lost(void **state) {
    (void)state;
    story *t = swapped_out_and_evicted(small());
    run_until_arriving(t);
    report_copies(t, false);
    finish(t);
    plan_next(t);
    assert_true(has_row(t, 2) && t->plan.prefill_rows > PAGE_TOKENS);
    assert_int_equal(stats_of(t).swap_in_tokens, 0);
    finish(t);
    run_until_over(t, false);
    assert_int_equal(stats_of(t).finished, 3);
    end(t);
}

static void a_cancelled_one_leaves_at_once_though_its_copies_are_in_flight(void **state) {
    (void)state;
    story *t = swapped_out_and_evicted(small());
    run_until_arriving(t);
    assert_true(scheduler_cancel(t->s, ++t->now_us, 2));
    assert_false(scheduler_is_live(t->s, 2));
    scheduler_check(t->s);
    submit(t, 4, 0, 33, 2); /* takes the pages that copies are writing to */
    finish(t);
    plan_next(t);
    assert_true(has_row(t, 4) && t->plan.waits_for >= t->copies[0].id);
    report_copies(t, true);
    finish(t);
    run_until_over(t, true);
    end(t);
}

static void a_page_that_was_copied_before_needs_no_second_copy(void **state) {
    (void)state;
    scheduler_config c = small();
    c.order.policy = ORDER_PRIORITY, c.reclaim.displaces = true, c.order.age_ms = 1000;
    story *t = begin(&c);
    submit(t, 1, 5, 17, 25);
    plan_next(t), finish(t);
    submit(t, 2, 0, 33, 2);
    run_until_taken_back(t);
    const uint64_t first = stats_of(t).swap_out_pages;
    assert_int_equal(first, 4);
    submit(t, 5, 5, 17, 12); /* so that not the same one is taken back again */
    run_until_arriving(t);
    report_copies(t, true), finish(t);
    plan_next(t), finish(t);
    assert_true(stats_of(t).swap_in_pages > 0);
    submit(t, 3, 0, 13, 2); /* takes the place of 5 */
    run_until_taken_back(t), finish(t), report_copies(t, true);
    assert_int_equal(progress_of(t, 5).preemptions, 1);
    submit(t, 4, 0, 21, 2); /* and this one that of 1 */
    while (progress_of(t, 1).preemptions < 2) run_until_taken_back(t), finish(t), report_copies(t, true);
    assert_true(stats_of(t).swap_clean_pages >= first);
    run_until_over(t, true);
    end(t);
}

static void the_pass_that_writes_to_a_page_waits_for_its_copy_and_no_other_does(void **state) {
    (void)state;
    const scheduler_config c = small();
    story                 *t = begin(&c);
    submit(t, 1, 0, 17, 12), submit(t, 2, 0, 17, 20);
    run_until_taken_back(t);
    const page_copy first = t->copies[0];
    bool            waited = t->plan.waits_for >= first.id;
    for (int passes = 0; passes < 8 && !waited; passes++) {
        finish(t);
        plan_next(t);
        waited = t->plan.waits_for >= first.id;
        if (!waited) assert_int_equal(t->plan.waits_for, 0);
    }
    assert_true(waited);
    assert_true(t->plan.waits_for < t->copies[t->copy_count - 1].id); /* tail first: not for all of them */
    finish(t), report_copies(t, true);
    run_until_over(t, true);
    end(t);
}

static void the_queue_is_bounded_and_what_does_not_fit_is_computed(void **state) {
    (void)state;
    scheduler_config c = small();
    c.reclaim.copies_max = 2;
    story *t = swapped_out_and_evicted(c);
    assert_int_equal(t->copy_count, 2);
    assert_int_equal(stats_of(t).copies_open, 2);
    run_until_arriving(t);
    assert_true(t->copy_count <= 2);
    finish(t), report_copies(t, true);
    run_until_over(t, true);
    assert_int_equal(stats_of(t).finished, 3);
    assert_true(stats_of(t).recomputed_tokens > PAGE_TOKENS);
    end(t);
}

static void auto_copies_where_that_is_predicted_to_be_cheaper(void **state) {
    (void)state;
    for (int dear = 0; dear < 2; dear++) {
        scheduler_config c = small();
        c.reclaim.policy = RECLAIM_AUTO, c.reclaim.page_copy_us = dear ? 1e6 : 1;
        story *t = begin(&c);
        for (uint64_t id = 0; id < 24; id++) { /* passes to learn from */
            submit(t, 3, 0, 4 + (uint32_t)id, 1);
            plan_next(t), finish(t);
        }
        submit(t, 1, 0, 17, 12), submit(t, 2, 0, 17, 20);
        run_until_taken_back(t);
        assert_int_equal(t->copy_count > 0, !dear);
        finish(t), report_copies(t, true);
        run_until_over(t, true);
        end(t);
    }
}

static void who_goes_last_is_taken_back_and_not_merely_the_youngest(void **state) {
    (void)state;
    for (int changed = 0; changed < 2; changed++) {
        scheduler_config c = small();
        c.order.policy = ORDER_PRIORITY;
        story *t = begin(&c);
        submit(t, 1, 5, 17, 12), submit(t, 2, 0, 17, 12);
        plan_next(t), finish(t);
        if (changed) assert_true(scheduler_set_priority(t->s, t->now_us, 2, 9));
        assert_false(scheduler_set_priority(t->s, t->now_us, 77, 9));
        run_until_taken_back(t);
        assert_int_equal(progress_of(t, 1).running, changed);
        assert_int_equal(progress_of(t, 2).running, !changed);
        finish(t), report_copies(t, true);
        run_until_over(t, true);
        end(t);
    }
}

static void a_better_priority_takes_the_place_of_one_that_runs_only_where_it_is_told_to(void **state) {
    (void)state;
    for (int displaces = 0; displaces < 2; displaces++) {
        scheduler_config c = small();
        c.order.policy = ORDER_PRIORITY, c.reclaim.displaces = displaces;
        story *t = begin(&c);
        submit(t, 1, 5, 17, 12);
        plan_next(t), finish(t);
        submit(t, 2, 5, 29, 2); /* no better: waits */
        plan_next(t), finish(t);
        assert_false(progress_of(t, 2).running);
        submit(t, 3, 4, 29, 2);
        plan_next(t);
        assert_int_equal(progress_of(t, 3).running, displaces);
        assert_int_equal(stats_of(t).displaced, displaces);
        finish(t), report_copies(t, true);
        run_until_over(t, true);
        end(t);
    }
}

static void senseless_settings_are_refused_with_a_sentence(void **state) {
    (void)state;
    scheduler       *s;
    error            err;
    scheduler_config no_memory = small(), no_cache = small(), no_levels = small();
    no_memory.reclaim.host_pages = 0;
    no_cache.retention.prefix_cache = false;
    no_levels.reclaim.displaces = true;
    assert_int_equal(scheduler_new(&s, &no_memory, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "host-cache-memory"));
    assert_int_equal(scheduler_new(&s, &no_cache, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "prefix-cache = yes"));
    assert_int_equal(scheduler_new(&s, &no_levels, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "order = priority"));
    scheduler_config for_nothing = small();
    for_nothing.reclaim.policy = RECLAIM_RECOMPUTE;
    assert_non_null(strstr(scheduler_config_doubt(&for_nothing, 0), "copies nothing there"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_lost_its_memory_comes_back_by_copies_and_runs_when_the_last_is_there),
        cmocka_unit_test(its_pages_are_reserved_and_it_has_no_row_while_copies_are_in_flight),
        cmocka_unit_test(a_copy_that_failed_is_computed_and_nothing_is_lost),
        cmocka_unit_test(a_cancelled_one_leaves_at_once_though_its_copies_are_in_flight),
        cmocka_unit_test(a_page_that_was_copied_before_needs_no_second_copy),
        cmocka_unit_test(the_pass_that_writes_to_a_page_waits_for_its_copy_and_no_other_does),
        cmocka_unit_test(the_queue_is_bounded_and_what_does_not_fit_is_computed),
        cmocka_unit_test(auto_copies_where_that_is_predicted_to_be_cheaper),
        cmocka_unit_test(who_goes_last_is_taken_back_and_not_merely_the_youngest),
        cmocka_unit_test(a_better_priority_takes_the_place_of_one_that_runs_only_where_it_is_told_to),
        cmocka_unit_test(senseless_settings_are_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
