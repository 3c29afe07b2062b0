/* How long a newcomer would wait, and who is refused: from made-up paces and backlogs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/overload.h"

static void assert_near(double got, double wanted) {
    if (!(got > wanted * 0.999 && got < wanted * 1.001)) fail_msg("%g is not %g", got, wanted);
}

/* 1,000 prompt tokens a second, steps of 10 ms, answers of 50 tokens. */
static pace usual(void) {
    pace p = {0};
    for (int i = 0; i < 100; i++) pace_pass(&p, 0.1, 100, 0, 0), pace_pass(&p, 0.01, 0, 8, 0), pace_answer(&p, 50);
    return p;
}

static void nothing_is_known_before_anything_was_measured(void **state) {
    (void)state;
    pace          p = {0};
    const backlog b = {.running = 8, .running_max = 8, .waiting = 100, .waiting_tokens = 1000000};
    assert_true(pace_wait_s(&p, &b, 100) == 0);
    pace_pass(&p, 0, 100, 1, 0); /* a clock that stands still teaches nothing */
    assert_true(pace_wait_s(&p, &b, 100) == 0);
}

static void the_prompts_ahead_are_computed_at_the_measured_rate(void **state) {
    (void)state;
    const pace p = usual();
    backlog    b = {.running = 1, .running_max = 64, .waiting = 3, .waiting_tokens = 4000, .tokens_free = 1 << 20};
    assert_near(pace_wait_s(&p, &b, 10), 4);
    b.prompt_left = 2500;
    assert_near(pace_wait_s(&p, &b, 10), 6.5);
    b = (backlog){.running_max = 64, .tokens_free = 1 << 20};
    assert_true(pace_wait_s(&p, &b, 100000) == 0); /* its own prompt is no wait */
}

static void a_place_comes_free_as_answers_end(void **state) {
    (void)state;
    const pace p = usual(); /* an answer takes half a second: of 10 that decode one ends every 50 ms */
    backlog    b = {.running = 10, .running_max = 10, .waiting = 19, .tokens_free = 1 << 20, .tokens_held = 1000};
    assert_near(pace_wait_s(&p, &b, 10), 20 * 0.05);
    b.running_max = 15; /* five are free for those who wait */
    assert_near(pace_wait_s(&p, &b, 10), 15 * 0.05);
    b.waiting = 4;
    assert_true(pace_wait_s(&p, &b, 10) == 0);
}

static void kv_pages_are_places_too(void **state) {
    (void)state;
    const pace p = usual();
    backlog    b = {.running = 10,
                    .running_max = 64,
                    .waiting = 2,
                    .waiting_tokens = 400,
                    .tokens_free = 100,
                    .tokens_held = 2000};       /* 200 each */
    assert_near(pace_wait_s(&p, &b, 100), 0.4); /* 400 tokens too few: two must end; the prompts take longer */
    b.waiting_tokens = 0, b.waiting = 0;
    assert_near(pace_wait_s(&p, &b, 700), 3 * 0.05);
}

static void who_is_held_back_by_anything_else_waits_for_ends_as_well(void **state) {
    (void)state;
    pace    p = usual();
    backlog b = {.running = 10, .running_max = 64, .waiting = 9, .tokens_free = 1 << 20, .tokens_held = 1000};
    assert_true(pace_wait_s(&p, &b, 10) == 0);
    for (int i = 0; i < 2000; i++) pace_pass(&p, 0.01, 0, 10, 9);
    assert_true(pace_wait_s(&p, &b, 10) == 0); /* they only came since the last plan */
    b.passed_over = 9;
    assert_near(pace_wait_s(&p, &b, 10), 10 * 0.05);
}

static void the_newest_measurements_count_most(void **state) {
    (void)state;
    pace          p = usual();
    const backlog b = {.running = 1, .running_max = 64, .waiting = 1, .waiting_tokens = 1000, .tokens_free = 1 << 20};
    for (int i = 0; i < 100; i++) pace_pass(&p, 1, 100, 0, 1); /* ten times slower, for 100 s */
    assert_near(pace_wait_s(&p, &b, 10), 10);
}

static void each_bound_refuses_and_says_which_it_was(void **state) {
    (void)state;
    const queue_limits l = {.waiting_max = 4, .waiting_tokens_max = 1000, .wait_max_us = 2000000};
    backlog            b = {.running = 8, .running_max = 8, .waiting = 3, .waiting_tokens = 600};
    assert_int_equal(queue_ask(&l, &b, 1, 1, 100), QUEUE_HAS_ROOM);
    assert_int_equal(queue_ask(&l, &b, 1, 2, 100), QUEUE_FULL_REQUESTS);
    assert_int_equal(queue_ask(&l, &b, 1, 1, 401), QUEUE_FULL_TOKENS);
    assert_int_equal(queue_ask(&l, &b, 2.1, 1, 100), QUEUE_FULL_WAIT);
    b.running = 6; /* two slots are free: who takes them does not wait */
    assert_int_equal(queue_ask(&l, &b, 1, 3, 100), QUEUE_HAS_ROOM);
    assert_int_equal(queue_ask(&l, &b, 1, 4, 100), QUEUE_FULL_REQUESTS);
    const queue_limits open = {.waiting_max = 4};
    assert_int_equal(queue_ask(&open, &b, 1e9, 1, UINT64_MAX / 2), QUEUE_HAS_ROOM);
}

static void a_group_is_not_refused_for_what_it_brings_itself(void **state) {
    (void)state;
    const queue_limits l = {.waiting_max = 100, .waiting_tokens_max = 1000, .wait_max_us = 1000};
    const backlog      b = {.running = 8, .running_max = 8};
    assert_int_equal(queue_ask(&l, &b, 30, 50, 50000), QUEUE_HAS_ROOM);
    assert_int_equal(queue_ask(&l, &b, 30, 101, 50000), QUEUE_FULL_REQUESTS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_before_anything_was_measured),
        cmocka_unit_test(the_prompts_ahead_are_computed_at_the_measured_rate),
        cmocka_unit_test(a_place_comes_free_as_answers_end),
        cmocka_unit_test(kv_pages_are_places_too),
        cmocka_unit_test(who_is_held_back_by_anything_else_waits_for_ends_as_well),
        cmocka_unit_test(the_newest_measurements_count_most),
        cmocka_unit_test(each_bound_refuses_and_says_which_it_was),
        cmocka_unit_test(a_group_is_not_refused_for_what_it_brings_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
