/* Who may enter, when it is decided by what past answers were like. */
#include <string.h>

#include "tests/unit/story.h"

enum { PROMPT = 8, OUTPUT_MAX = 120 };

static scheduler_config config_with(admission_policy policy) {
    scheduler_config c = config_of(80); /* 320 tokens: two and a half whole lives */
    c.running_max = 16, c.waiting_max = REQUESTS, c.batch_tokens_max = 200, c.slicing.chunk_tokens = 100;
    c.admission.policy = policy, c.retention.prefix_cache = false;
    return c;
}

/* Asks for OUTPUT_MAX tokens, and will end by itself after `says`. */
static void ask(story *t, uint64_t id, uint32_t says) {
    assert_int_equal(submit(t, id, 100 * (uint32_t)id, PROMPT, OUTPUT_MAX), OK);
    t->limit[id] = PROMPT + says;
}

static void teach(story *t, uint32_t says) {
    for (uint32_t i = 0; i < 60; i++) {
        ask(t, 0, says + i % 3);
        run_dry(t);
    }
}

/* Sixteen come at once: how many of them run after two passes, and how often memory was taken back until all are answered.
 */
typedef struct {
    uint32_t running;
    uint64_t preempted;
} rush;

static rush rush_of(admission_policy policy, uint32_t taught, uint32_t says) {
    scheduler_config c = config_with(policy);
    story           *t = begin(&c);
    rush             r;
    if (taught > 0) teach(t, taught);
    for (uint64_t id = 1; id <= 16; id++) ask(t, id, says);
    pass(t);
    pass(t);
    r.running = stats_of(t).running;
    run_dry(t);
    r.preempted = stats_of(t).preempted;
    assert_int_equal(stats_of(t).finished, 16 + (taught > 0 ? 60 : 0));
    end(t);
    return r;
}

static void short_answers_of_the_past_let_more_enter_than_their_limits_would(void **state) {
    (void)state;
    const rush ahead = rush_of(ADMISSION_PAST_FUTURE, 6, 6), reserved = rush_of(ADMISSION_CONSERVATIVE, 6, 6);
    assert_int_equal(reserved.running, 2);
    assert_true(ahead.running >= 12);
    assert_int_equal(ahead.preempted, 0);
}

static void long_answers_of_the_past_let_fewer_enter_than_fit_now(void **state) {
    (void)state;
    const rush ahead = rush_of(ADMISSION_PAST_FUTURE, 60, 61), greedy = rush_of(ADMISSION_GREEDY, 60, 61);
    assert_true(greedy.running >= 12 && greedy.preempted > 0);
    assert_true(ahead.running >= 3 && ahead.running <= 6);
    assert_int_equal(ahead.preempted, 0);
}

/* Reserving for limits that nobody reaches would leave a machine idle that has just started. */
static void before_anything_is_known_who_fits_enters(void **state) {
    (void)state;
    const rush ahead = rush_of(ADMISSION_PAST_FUTURE, 0, 6), greedy = rush_of(ADMISSION_GREEDY, 0, 6);
    assert_int_equal(ahead.running, greedy.running);
    assert_true(ahead.running > 2);
}

static void who_ends_soon_makes_room_for_who_comes(void **state) {
    (void)state;
    scheduler_config c = config_with(ADMISSION_PAST_FUTURE);
    story           *t = begin(&c);
    for (uint64_t id = 1; id <= 2; id++) ask(t, id, OUTPUT_MAX);
    while (t->known[1] < PROMPT + OUTPUT_MAX - 8)
        pass(t); /* eight tokens from the end they hold nearly all they ever will */
    ask(t, 3, 5);
    ask(t, 4, 5);
    pass(t);
    assert_int_equal(stats_of(t).running, 4); /* and at the peak of 3 and 4 they are long gone */
    run_dry(t);
    assert_int_equal(stats_of(t).preempted, 0);
    end(t);
}

static void a_shared_prefix_is_counted_once(void **state) {
    (void)state;
    scheduler_config c = config_with(ADMISSION_PAST_FUTURE);
    c.retention.prefix_cache = true, c.page_count = 40;
    story *t = begin(&c);
    teach(t, 25);
    assert_int_equal(submit(t, 1, 0, 80, 20), OK); /* 25 of 40 pages in the end */
    pass(t);
    for (uint64_t id = 2; id <= 3; id++) assert_int_equal(submit(t, id, 0, 80, 20), OK); /* 5 or 6 of their own each */
    for (int i = 0; i < 3; i++) pass(t);
    assert_int_equal(stats_of(t).running, 3);
    assert_true(stats_of(t).forecast_pages >= 35 && stats_of(t).forecast_pages <= 38);
    run_dry(t);
    assert_int_equal(stats_of(t).preempted, 0);
    end(t);
}

static void doubtful_choices_are_told_and_sound_ones_are_not(void **state) {
    (void)state;
    scheduler_config c = config_of(100);
    assert_null(scheduler_config_doubt(&c, 0));
    c.order.policy = ORDER_DEADLINE, c.slicing.policy = SLICING_WHOLE;
    assert_non_null(strstr(scheduler_config_doubt(&c, 0), "preemption"));
    assert_null(scheduler_config_doubt(&c, 1));
    c.preemption.policy = PREEMPTION_OPERATOR;
    assert_null(scheduler_config_doubt(&c, 0));
    c.order.policy = ORDER_JOB, c.retention.prefix_cache = false;
    assert_non_null(strstr(scheduler_config_doubt(&c, 0), "prefix-cache"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_answers_of_the_past_let_more_enter_than_their_limits_would),
        cmocka_unit_test(long_answers_of_the_past_let_fewer_enter_than_fit_now),
        cmocka_unit_test(before_anything_is_known_who_fits_enters),
        cmocka_unit_test(who_ends_soon_makes_room_for_who_comes),
        cmocka_unit_test(a_shared_prefix_is_counted_once),
        cmocka_unit_test(doubtful_choices_are_told_and_sound_ones_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
