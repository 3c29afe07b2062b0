/* Busy or stuck, judged from what the engine had done at each look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "engine/notice.h"
#include "server/health.h"

static void operators_that_go_by_are_progress_also_within_one_pass(void **state) {
    (void)state;
    progress_watch  w = {0};
    engine_snapshot s = {.pass_started_us = 1, .scheduler.running = 1};
    for (uint64_t now = 1000; now < 100000; now += 1000) {
        s.operators_done++;
        assert_int_equal(progress_stands_us(&w, &s, now), 0);
    }
    assert_int_equal(progress_stands_us(&w, &s, 107000), 8000);
    s.operators_done++;
    assert_int_equal(progress_stands_us(&w, &s, 107001), 0);
}

static void having_nothing_to_do_is_not_standing_still(void **state) {
    (void)state;
    progress_watch  w = {0};
    engine_snapshot s = {.operators_done = 5};
    assert_int_equal(progress_stands_us(&w, &s, 1000), 0);
    assert_int_equal(progress_stands_us(&w, &s, 900000), 0);
    s.scheduler.waiting = 1; /* work that comes after a long silence has the whole time */
    assert_int_equal(progress_stands_us(&w, &s, 900500), 500);
    assert_int_equal(progress_stands_us(&w, &s, 901500), 1500);
}

static void work_that_waits_counts_like_work_that_runs(void **state) {
    (void)state;
    const engine_snapshot works[] = {{.scheduler.waiting = 1}, {.scheduler.running = 1}, {.pass_started_us = 7}};
    for (int i = 0; i < 3; i++) {
        progress_watch w = {.since_us = 100};
        assert_int_equal(progress_stands_us(&w, &works[i], 100000), 99900);
    }
}

static void every_state_has_a_name_and_no_dead_one_is_ready(void **state) {
    (void)state;
    for (int i = 0; i < HEALTH_COUNT; i++) {
        assert_non_null(health_rows[i].name);
        assert_non_null(health_rows[i].meaning);
        assert_true(health_rows[i].live || !(health_rows[i].healthy || health_rows[i].ready));
    }
}

/* ---- the board that nobody waits at ---- */

static notice      board;
static atomic_bool over;

static void *post_for_a_while(void *unused) {
    static engine_snapshot s;
    for (uint64_t i = 1; i <= 200000; i++) {
        s.passes_done = s.weights_bytes = i; /* first and near last: a torn copy would show */
        notice_post(&board, &s);
    }
    atomic_store(&over, true);
    return unused;
}

static void what_is_read_is_whole_and_never_older_than_before(void **state) {
    (void)state;
    pthread_t       writer;
    engine_snapshot s;
    uint64_t        last = 0;
    notice_init(&board);
    pthread_create(&writer, NULL, post_for_a_while, NULL);
    while (!atomic_load(&over)) {
        notice_read(&board, &s);
        assert_int_equal(s.passes_done, s.weights_bytes);
        assert_true(s.passes_done >= last);
        last = s.passes_done;
    }
    pthread_join(writer, NULL);
    notice_read(&board, &s);
    assert_int_equal(s.passes_done, 200000);
    notice_read(&board, &s);
    assert_int_equal(s.passes_done, 200000);
    notice_destroy(&board);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators_that_go_by_are_progress_also_within_one_pass),
        cmocka_unit_test(having_nothing_to_do_is_not_standing_still),
        cmocka_unit_test(work_that_waits_counts_like_work_that_runs),
        cmocka_unit_test(every_state_has_a_name_and_no_dead_one_is_ready),
        cmocka_unit_test(what_is_read_is_whole_and_never_older_than_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
