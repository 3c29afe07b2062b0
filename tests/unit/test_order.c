/* Who goes first, under each order, and whose turn it is. */
#include <string.h>

#include "scheduler/order.h"
#include "tests/unit/story.h"

/* One request at a time, so that the order is what is seen. */
static scheduler_config one_at_a_time(order_policy policy) {
    scheduler_config c = config_of(200);
    c.running_max = 1, c.waiting_max = REQUESTS, c.order.policy = policy;
    return c;
}

/* The order in which all that wait get their first token. */
static void assert_served(story *t, uint32_t count, const uint64_t *ids) {
    bool seen[REQUESTS] = {false};
    for (uint32_t i = 0; i < count;) {
        pass(t);
        for (uint32_t k = 0; k < t->plan.slice_count; k++) {
            const uint64_t id = t->plan.slices[k].id;
            if (!t->plan.slices[k].samples || seen[id]) continue;
            assert_true(i < count);
            assert_int_equal(id, ids[i++]);
            seen[id] = true;
        }
    }
}
#define ASSERT_SERVED(t, ...)                                                                                               \
    assert_served(t, sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), (const uint64_t[]){__VA_ARGS__})

/* Passes of one millisecond, until the step model knows what they cost: about 100 us a row. */
static void teach_steps(story *t) {
    for (uint32_t i = 0; i < 40; i++) {
        submit(t, 0, 7000 + 100 * i, 4 + i, 2);
        while (plan_next(t)) {
            t->now_us += 100ull * (t->plan.prefill_rows + t->plan.decode_rows);
            finish(t);
        }
    }
}

static scheduler_request level(int32_t priority) { return (scheduler_request){.priority = priority}; }
static scheduler_request within(uint64_t ttft_us) { return (scheduler_request){.slo.ttft_us = ttft_us}; }
static scheduler_request worth(double value) { return (scheduler_request){.slo.value = value}; }
static scheduler_request of_job(uint64_t id) { return (scheduler_request){.job.id = id}; }
static scheduler_request of_tenant(uint64_t id, double weight) { return (scheduler_request){.tenant = {id, weight}}; }

/* ---- by who came when ---- */

static void the_better_priority_goes_first_and_equals_in_turn(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_PRIORITY);
    story           *t = begin(&c);
    submit_with(t, 1, 100, 4, 1, level(5));
    submit_with(t, 2, 200, 4, 1, level(-3));
    submit_with(t, 3, 300, 4, 1, level(0));
    submit_with(t, 4, 400, 4, 1, level(-3));
    ASSERT_SERVED(t, 2, 4, 3, 1);
    end(t);
}

static void a_level_of_priority_is_worth_so_long_a_wait(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_PRIORITY);
    c.order.age_ms = 10;
    story *t = begin(&c);
    submit_with(t, 1, 100, 4, 1, level(2));
    t->now_us += 19000; /* not yet two levels of age */
    submit_with(t, 2, 200, 4, 1, level(0));
    t->now_us += 2000;
    submit_with(t, 3, 300, 4, 1, level(0));
    ASSERT_SERVED(t, 2, 1, 3);
    end(t);
}

static void the_turns_of_the_earlier_job_go_first(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_JOB);
    story           *t = begin(&c);
    submit_with(t, 1, 100, 4, 1, of_job(70));
    run_dry(t);
    submit_with(t, 2, 200, 4, 1, of_job(71));
    submit(t, 3, 300, 4, 1);
    submit_with(t, 4, 400, 4, 1, of_job(70)); /* its second turn */
    ASSERT_SERVED(t, 4, 2, 3);
    end(t);
}

/* ---- by what is predicted ---- */

static void the_earliest_deadline_goes_first_among_those_that_can_be_met(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_DEADLINE);
    story           *t = begin(&c);
    teach_steps(t);
    submit_with(t, 1, 100, 10, 1, within(8000000));
    submit_with(t, 2, 200, 10, 1, within(300000));
    submit_with(t, 3, 300, 10, 1, within(1)); /* cannot be met */
    submit(t, 4, 400, 10, 1);                 /* as if within 10 s */
    submit_with(t, 5, 500, 10, 1, (scheduler_request){.slo.deadline_us = 4000000});
    ASSERT_SERVED(t, 2, 5, 1, 4, 3);
    end(t);
}

static void a_deadline_that_is_missed_while_waiting_goes_behind(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_DEADLINE);
    story           *t = begin(&c);
    teach_steps(t);
    submit_with(t, 1, 100, 10, 1, within(50000));
    submit_with(t, 2, 200, 10, 1, within(80000));
    assert_true(scheduler_wake_us(t->s) < t->now_us + 50000 && scheduler_wake_us(t->s) > t->now_us + 45000);
    t->now_us += 60000;
    submit_with(t, 3, 300, 10, 1, within(90000));
    ASSERT_SERVED(t, 2, 3, 1);
    end(t);
}

static void of_the_late_the_cheapest_for_its_value_goes_first(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_DEADLINE);
    story           *t = begin(&c);
    teach_steps(t);
    submit_with(t, 1, 100, 40, 1, (scheduler_request){.slo = {.ttft_us = 1}});
    submit_with(t, 2, 200, 10, 1, (scheduler_request){.slo = {.ttft_us = 1}});
    submit_with(t, 3, 300, 40, 1, (scheduler_request){.slo = {.ttft_us = 1, .value = 9}});
    ASSERT_SERVED(t, 3, 2, 1);
    end(t);
}

static void the_shortest_prompt_goes_first_if_it_is_shorter_by_a_class(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_SRPT);
    story           *t = begin(&c); /* nothing learned: a token counts 20 us */
    submit(t, 1, 100, 60, 1);
    submit(t, 2, 200, 10, 1);
    submit(t, 3, 300, 9, 1); /* of the same class as 2, and shorter */
    submit(t, 4, 400, 30, 1);
    ASSERT_SERVED(t, 3, 2, 4, 1);
    end(t);
}

static void an_answer_that_turned_out_long_comes_back_behind_the_short(void **state) {
    (void)state;
    scheduler_config c = config_of(14);
    c.order.policy = ORDER_SRPT, c.retention.prefix_cache = false;
    story *t = begin(&c);
    submit(t, 1, 100, 4, 50);
    submit(t, 2, 200, 4, 40);
    while (stats_of(t).preempted == 0) {
        assert_true(plan_next(t));
        t->now_us += 5000;
        finish(t);
    }
    assert_false(progress_of(t, 2).running);
    submit(t, 3, 300, 4, 2);
    while (scheduler_is_live(t->s, 3)) {
        pass(t);
        assert_false(progress_of(t, 2).running);
    }
    run_dry(t);
    assert_int_equal(stats_of(t).finished, 3);
    end(t);
}

static void more_value_for_the_time_goes_first(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_GOODPUT);
    story           *t = begin(&c);
    teach_steps(t);
    submit_with(t, 1, 100, 40, 2, worth(1));
    submit_with(t, 2, 200, 10, 2, worth(1));
    submit_with(t, 3, 300, 40, 2, worth(20));
    submit_with(t, 4, 400, 10, 2, (scheduler_request){.slo = {.ttft_us = 1, .value = 1}}); /* loses value, then all */
    t->now_us += 10;
    ASSERT_SERVED(t, 3, 2, 1, 4);
    end(t);
}

static void waiting_raises_what_an_answer_is_worth(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_GOODPUT);
    story           *t = begin(&c);
    teach_steps(t);
    submit_with(t, 1, 100, 10, 2, worth(1));
    t->now_us += 100000000; /* fourfold */
    submit_with(t, 2, 200, 10, 2, worth(3));
    submit_with(t, 3, 300, 10, 2, worth(5));
    ASSERT_SERVED(t, 3, 1, 2);
    end(t);
}

/* ---- nobody starves ---- */

static void one_in_nine_goes_by_age_whatever_the_order_prefers(void **state) {
    (void)state;
    const order_policy policies[] = {ORDER_DEADLINE, ORDER_SRPT, ORDER_JOB, ORDER_GOODPUT};
    for (uint32_t k = 0; k < 4; k++) {
        scheduler_config c = one_at_a_time(policies[k]);
        story           *t = begin(&c);
        teach_steps(t);
        submit_with(t, 1, 9000, 2, 1, of_job(90));
        run_dry(t);
        const uint64_t before = stats_of(t).finished;
        submit_with(t, 30, 100, 60, 1, (scheduler_request){.slo = {.ttft_us = 1, .value = 0.01}}); /* nobody's favourite */
        uint32_t served = 0;
        for (uint64_t id = 1; scheduler_is_live(t->s, 30); id = id % 20 + 1) {
            if (!scheduler_is_live(t->s, id))
                submit_with(t, id, 200 * (uint32_t)id, 4, 1,
                            (scheduler_request){.job.id = 90, .slo = {.ttft_us = 1000000, .value = 9}});
            if (!scheduler_is_live(t->s, id % 20 + 1))
                submit_with(t, id % 20 + 1, 300, 4, 1,
                            (scheduler_request){.job.id = 90, .slo = {.ttft_us = 1000000, .value = 9}});
            pass(t);
            served = (uint32_t)(stats_of(t).finished - before);
            assert_true(served <= ELDER_MOST + c.running_max + 1);
        }
        assert_true(served > ELDER_EVERY); /* it was passed by more than eight, for its prompt is worth many of theirs */
        end(t);
    }
}

/* A long prompt that nobody prefers, again as soon as it is served, among short ones: its part of the device time. */
static void who_goes_by_age_has_a_ninth_of_the_device_and_not_of_the_turns(void **state) {
    (void)state;
    scheduler_config c = one_at_a_time(ORDER_SRPT);
    story           *t = begin(&c);
    uint64_t         rows[2] = {0, 0};
    teach_steps(t);
    for (uint32_t i = 0; i < 1500; i++) {
        if (!scheduler_is_live(t->s, 30)) submit_with(t, 30, 5000 + 300 * i, 60, 1, (scheduler_request){0});
        for (uint64_t id = 1; id <= 3; id++)
            if (!scheduler_is_live(t->s, id)) submit_with(t, id, 200 * (uint32_t)id + 7 * i, 12, 1, (scheduler_request){0});
        assert_true(plan_next(t));
        for (uint32_t k = 0; k < t->plan.slice_count; k++) {
            const slice *x = &t->plan.slices[k];
            rows[x->id == 30] += x->token_end - x->token_begin;
        }
        t->now_us += 100ull * t->plan.prefill_rows;
        finish(t);
    }
    const double part = (double)rows[1] / (double)(rows[0] + rows[1]);
    assert_true(part > 0.07 && part < 0.14); /* were it one turn in nine, 0.38 */
    run_dry(t);
    end(t);
}

/* ---- turns ---- */

static scheduler_config turns(order_policy policy) {
    scheduler_config c = one_at_a_time(policy);
    c.fair.turns = true;
    return c;
}

static void tenants_take_turns_however_many_requests_they_send(void **state) {
    (void)state;
    scheduler_config c = turns(ORDER_FCFS);
    story           *t = begin(&c);
    for (uint64_t id = 1; id <= 6; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(1, 0));
    submit_with(t, 7, 700, 20, 1, of_tenant(2, 0));
    submit_with(t, 8, 800, 20, 1, of_tenant(2, 0));
    ASSERT_SERVED(t, 1, 7, 2, 8, 3, 4, 5, 6);
    end(t);
}

static void a_weight_is_the_share_of_those_who_compete(void **state) {
    (void)state;
    scheduler_config c = turns(ORDER_FCFS);
    story           *t = begin(&c);
    for (uint64_t id = 1; id <= 8; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(1, 1));
    for (uint64_t id = 9; id <= 20; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(2, 3));
    uint32_t heavy = 0;
    for (uint32_t i = 0; i < 12; i++) {
        assert_true(plan_next(t));
        heavy += t->plan.slices[0].id >= 9;
        t->now_us += 1000;
        finish(t);
    }
    assert_int_equal(heavy, 9);
    end(t);
}

static void within_a_tenant_the_order_decides_and_never_across(void **state) {
    (void)state;
    scheduler_config c = turns(ORDER_PRIORITY);
    story           *t = begin(&c);
    submit_with(t, 1, 100, 20, 1, (scheduler_request){.tenant.id = 1, .priority = 3});
    submit_with(t, 2, 200, 20, 1, (scheduler_request){.tenant.id = 1, .priority = -9});
    submit_with(t, 3, 300, 20, 1, (scheduler_request){.tenant.id = 1, .priority = -8});
    submit_with(t, 4, 400, 20, 1, (scheduler_request){.tenant.id = 2, .priority = 7});
    ASSERT_SERVED(t, 2, 4, 3, 1);
    end(t);
}

static void who_was_away_has_saved_nothing_up(void **state) {
    (void)state;
    scheduler_config c = turns(ORDER_FCFS);
    story           *t = begin(&c);
    submit_with(t, 1, 100, 20, 1, of_tenant(2, 0));
    run_dry(t);
    for (uint64_t id = 2; id <= 9; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(1, 0));
    for (int i = 0; i < 5; i++) pass(t); /* tenant 1 alone */
    for (uint64_t id = 10; id <= 13; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(2, 0));
    ASSERT_SERVED(t, 10, 11, 7, 12, 8, 13, 9); /* on from where 6 was let in, then even: the tie goes to the earlier place */
    end(t);
}

static void tokens_found_in_the_cache_cost_their_tenant_nothing(void **state) {
    (void)state;
    scheduler_config c = turns(ORDER_FCFS);
    story           *t = begin(&c);
    submit(t, 0, 100, 41, 1); /* leaves 40 tokens in the cache */
    run_dry(t);
    submit_with(t, 1, 100, 42, 1, of_tenant(1, 0)); /* computes 2 */
    submit_with(t, 2, 100, 42, 1, of_tenant(1, 0));
    submit_with(t, 3, 100, 42, 1, of_tenant(1, 0));
    submit_with(t, 4, 400, 42, 1, of_tenant(2, 0));
    submit_with(t, 5, 500, 42, 1, of_tenant(2, 0));
    const uint64_t served[] = {1, 4, 2, 3, 5};
    for (int i = 0; i < 5; i++) {
        assert_true(plan_next(t));
        assert_int_equal(t->plan.slices[0].id, served[i]);
        t->now_us += 100ull * t->plan.prefill_rows;
        finish(t);
    }
    end(t);
}

static void the_index_of_jain_tells_equal_shares_from_one_sided_ones(void **state) {
    (void)state;
    double jain[2];
    for (int fair = 0; fair < 2; fair++) {
        scheduler_config c = one_at_a_time(ORDER_FCFS);
        c.fair.turns = fair;
        story *t = begin(&c);
        assert_true(stats_of(t).jain == 1);
        for (uint64_t id = 1; id <= 16; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(1, 0));
        for (uint64_t id = 17; id <= 24; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(2, 0));
        for (int i = 0; i < 12; i++) {
            assert_true(plan_next(t));
            t->now_us += 1000;
            finish(t);
        }
        assert_int_equal(stats_of(t).tenants, 2);
        jain[fair] = stats_of(t).jain;
        run_dry(t);
        assert_int_equal(stats_of(t).tenants, 0);
        end(t);
    }
    assert_true(jain[0] < 0.55 && jain[1] > 0.95);
}

static void more_tenants_than_places_share_the_place_of_nobody(void **state) {
    (void)state;
    scheduler_config c = turns(ORDER_FCFS);
    c.fair.tenants_max = 3;
    story *t = begin(&c);
    for (uint64_t id = 1; id <= 12; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(id, 0));
    assert_int_equal(stats_of(t).tenants, 3);
    ASSERT_SERVED(t, 3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    for (uint64_t id = 1; id <= 2; id++) submit_with(t, id, 100 * (uint32_t)id, 20, 1, of_tenant(20 + id, 0));
    assert_int_equal(stats_of(t).tenants, 2); /* the places were free again */
    run_dry(t);
    end(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_better_priority_goes_first_and_equals_in_turn),
        cmocka_unit_test(a_level_of_priority_is_worth_so_long_a_wait),
        cmocka_unit_test(the_turns_of_the_earlier_job_go_first),
        cmocka_unit_test(the_earliest_deadline_goes_first_among_those_that_can_be_met),
        cmocka_unit_test(a_deadline_that_is_missed_while_waiting_goes_behind),
        cmocka_unit_test(of_the_late_the_cheapest_for_its_value_goes_first),
        cmocka_unit_test(the_shortest_prompt_goes_first_if_it_is_shorter_by_a_class),
        cmocka_unit_test(an_answer_that_turned_out_long_comes_back_behind_the_short),
        cmocka_unit_test(more_value_for_the_time_goes_first),
        cmocka_unit_test(waiting_raises_what_an_answer_is_worth),
        cmocka_unit_test(one_in_nine_goes_by_age_whatever_the_order_prefers),
        cmocka_unit_test(who_goes_by_age_has_a_ninth_of_the_device_and_not_of_the_turns),
        cmocka_unit_test(tenants_take_turns_however_many_requests_they_send),
        cmocka_unit_test(a_weight_is_the_share_of_those_who_compete),
        cmocka_unit_test(within_a_tenant_the_order_decides_and_never_across),
        cmocka_unit_test(who_was_away_has_saved_nothing_up),
        cmocka_unit_test(tokens_found_in_the_cache_cost_their_tenant_nothing),
        cmocka_unit_test(the_index_of_jain_tells_equal_shares_from_one_sided_ones),
        cmocka_unit_test(more_tenants_than_places_share_the_place_of_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
