/* Turns of tenants: what is lent at the door and paid back, what pinned pages cost, and how far anybody gets ahead. */
#include <math.h>

#include "base/rng.h"
#include "tests/unit/story.h"

static scheduler_request of_tenant(uint64_t id, double weight) { return (scheduler_request){.tenant = {id, weight}}; }

static scheduler_config turns(uint32_t running_max) {
    scheduler_config c = config_of(2000);
    c.running_max = running_max, c.waiting_max = REQUESTS, c.fair.turns = true, c.slicing.chunk_tokens = 64;
    return c;
}

static const uint64_t ROW_US = 100;

static void run_pass(story *t) {
    t->now_us += ROW_US * (t->plan.prefill_rows + t->plan.decode_rows);
    finish(t);
}

/* Until the step model knows that a row takes 100 us. */
static void teach_steps(story *t) {
    for (uint32_t i = 0; i < 40; i++) {
        submit(t, 0, 7000 + 100 * i, 4 + i, 2);
        while (plan_next(t)) run_pass(t);
    }
}

/* ---- lent at the door ---- */

static void one_pass_lets_in_by_turns_although_nothing_was_measured_yet(void **state) {
    (void)state;
    scheduler_config c = turns(6);
    story           *t = begin(&c);
    teach_steps(t);
    for (uint64_t id = 1; id <= 8; id++) submit_with(t, id, 100 * (uint32_t)id, 8, 2, of_tenant(1, 0));
    for (uint64_t id = 9; id <= 16; id++) submit_with(t, id, 100 * (uint32_t)id, 8, 2, of_tenant(2, 0));
    assert_true(plan_next(t));
    assert_int_equal(t->plan.slice_count, 6);
    uint32_t of_first = 0;
    for (uint32_t i = 0; i < 6; i++) of_first += t->plan.slices[i].id <= 8;
    assert_int_equal(of_first, 3);
    run_pass(t);
    run_dry(t);
    end(t);
}

/* Predicted as 100 us a row, they take 10: what was lent is not kept against the tenant. */
static void what_was_predicted_too_much_is_given_back(void **state) {
    (void)state;
    scheduler_config c = turns(1);
    story           *t = begin(&c);
    uint32_t         first = 0;
    teach_steps(t);
    for (uint64_t id = 1; id <= 3; id++) submit_with(t, id, 100 * (uint32_t)id, 60, 1, of_tenant(1, 0));  /* 600 us each */
    for (uint64_t id = 4; id <= 10; id++) submit_with(t, id, 100 * (uint32_t)id, 30, 1, of_tenant(2, 0)); /* 300 us */
    for (int i = 0; i < 6; i++) {
        assert_true(plan_next(t));
        first += t->plan.slices[0].id <= 3;
        t->now_us += 10 * t->plan.prefill_rows;
        finish(t);
    }
    assert_int_equal(first, 2); /* two of 600 against four of 300, as measured; if the loan stayed, one */
    run_dry(t);
    end(t);
}

static void requests_that_leave_take_their_loans_with_them(void **state) {
    (void)state;
    scheduler_config c = turns(4);
    c.slicing.chunk_tokens = 8;
    story *t = begin(&c);
    teach_steps(t);
    submit_with(t, 9, 9000, 4, 40, of_tenant(3, 0)); /* somebody decodes, so prompts are cut */
    while (!t->plan.decode_rows) pass(t);
    for (uint64_t id = 1; id <= 2; id++) submit_with(t, id, 100 * (uint32_t)id, 300, 1, of_tenant(1, 0));
    submit_with(t, 3, 300, 300, 1, of_tenant(2, 0));
    pass(t);
    assert_true(scheduler_cancel(t->s, t->now_us, 1));
    scheduler_check(t->s); /* whoever has no prompt to compute has nothing lent */
    assert_true(scheduler_cancel(t->s, t->now_us, 2));
    scheduler_check(t->s);
    run_dry(t);
    end(t);
}

/* ---- rent ---- */

/* Of 40 passes one tenant's prompts have n; a pass takes a millisecond. */
static uint32_t served_beside_pins(uint32_t kept_tokens) {
    scheduler_config c = turns(1);
    c.page_count = 100, c.retention.policy = RETENTION_TTL, c.retention.pins_percent = c.retention.tenant_pins_percent = 100;
    story                  *t = begin(&c);
    const scheduler_request kept = {.tenant.id = 1, .job = {.id = 5, .ttl_us = 1000000000}};
    uint32_t                n = 0;
    submit_with(t, 0, 5000, kept_tokens, 2, kept); /* leaves its pages pinned */
    submit_with(t, 31, 6000, 4, 1, of_tenant(2, 0));
    run_dry(t);
    uint64_t next[2] = {1, 16}; /* each has two that wait, always */
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 2; i++, next[k]++)
            submit_with(t, next[k], 50 * (uint32_t)next[k], 8, 1, of_tenant(1 + (uint64_t)k, 0));
    for (int i = 0; i < 40; i++) {
        assert_true(plan_next(t));
        const int who = t->plan.slices[0].id >= 16;
        n += who == 0;
        t->now_us += 1000 - 3;
        finish(t);
        submit_with(t, next[who], 50 * (uint32_t)next[who], 8, 1, of_tenant(1 + (uint64_t)who, 0));
        next[who] = next[who] == 15 ? 1 : next[who] == 30 ? 16 : next[who] + 1;
    }
    end(t);
    return n;
}

static void pages_kept_between_requests_pay_rent_as_if_they_were_the_device(void **state) {
    (void)state;
    assert_in_range(served_beside_pins(4), 19, 21);  /* one page of a hundred: as good as nothing */
    assert_in_range(served_beside_pins(200), 9, 12); /* half of them: a + 0.5 (a + b) = b, so a quarter of the passes */
    assert_in_range(served_beside_pins(320), 3, 6);  /* four fifths: a tenth */
}

/* ---- how far ahead ---- */

/* Two tenants that always have prompts to compute: V is the device time that one had over its weight. */
static void nobody_gets_further_ahead_than_its_last_prompt_and_one_pass(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        rng              dice = {.seed = seed};
        scheduler_config c = turns(1 + (uint32_t)rng_below(&dice, 6));
        c.batch_tokens_max = c.running_max + 8 + (uint32_t)rng_below(&dice, 56);
        c.slicing.policy = rng_below(&dice, 2) ? SLICING_WHOLE : SLICING_CHUNKED;
        c.admission.policy = (admission_policy)rng_below(&dice, ADMISSION_COUNT);
        story       *t = begin(&c);
        const double weights[2] = {1 + (double)rng_below(&dice, 4), 1};
        double       v[2] = {0, 0}, widest = 0;
        teach_steps(t);
        for (int i = 0; i < 400; i++) {
            for (uint64_t id = 1; id <= 16; id++) { /* eight each */
                if (scheduler_is_live(t->s, id)) continue;
                const uint32_t prompt = id > 8 ? 1 + (uint32_t)rng_below(&dice, 30) : 1 + (uint32_t)rng_below(&dice, 300);
                submit_with(t, id, (uint32_t)rng_below(&dice, 1000000), prompt, 1, of_tenant(1 + id / 9, weights[id / 9]));
            }
            assert_true(plan_next(t));
            const uint64_t us = ROW_US * t->plan.prefill_rows + 2;
            for (uint32_t k = 0; k < t->plan.slice_count; k++) {
                const slice *x = &t->plan.slices[k];
                v[x->id / 9] += (double)us * (x->token_end - x->token_begin) / t->plan.prefill_rows / weights[x->id / 9];
            }
            run_pass(t);
            if (i == 0) v[0] = v[1] = 0; /* from here on both stand in line */
            widest = fmax(widest, fabs(v[0] - v[1]));
        }
        const double longest_us = 1.1 * ROW_US * 300, pass_us = (double)ROW_US * c.batch_tokens_max + 2;
        assert_true(widest <= longest_us + 2 * pass_us);
        run_dry(t);
        end(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_pass_lets_in_by_turns_although_nothing_was_measured_yet),
        cmocka_unit_test(what_was_predicted_too_much_is_given_back),
        cmocka_unit_test(requests_that_leave_take_their_loans_with_them),
        cmocka_unit_test(pages_kept_between_requests_pay_rent_as_if_they_were_the_device),
        cmocka_unit_test(nobody_gets_further_ahead_than_its_last_prompt_and_one_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
