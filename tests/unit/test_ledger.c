/* Where a request's time goes: each case is a short life told in passes, and what the ledger makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "engine/ledger.h"

static request_ledger l;
static ledger_clock   c;

static void pass(uint64_t number, uint64_t begin_us, uint64_t end_us) {
    ledger_pass_begins(&l, &c, number, begin_us);
    ledger_pass_ends(&l, &c, number, end_us);
}

static void expect(uint64_t queued, uint64_t prefill, uint64_t stopped, uint64_t recompute, uint64_t decode) {
    const uint64_t expected[LEDGER_PARTS] = {queued, prefill, stopped, recompute, decode};
    for (int i = 0; i < LEDGER_PARTS; i++) assert_int_equal(l.part_us[i], expected[i]);
}

static void a_plain_life_is_queued_prefill_and_decode(void **state) {
    (void)state;
    ledger_submitted(&l, &c, 7, 100);
    pass(5, 150, 180);
    ledger_token(&l, &c, 180);
    pass(6, 185, 200); /* the host's time between passes belongs to what goes on */
    ledger_token(&l, &c, 200);
    ledger_finished(&l, &c, 6, 203);
    expect(50, 30, 0, 0, 23);
    assert_int_equal(l.admitted_us, 150);
    assert_int_equal(l.first_token_us, 180);
    assert_int_equal(l.output_tokens, 2);
    assert_int_equal(l.prompt_tokens, 7);
}

static void a_prompt_that_others_overtake_is_stopped_meanwhile(void **state) {
    (void)state;
    ledger_submitted(&l, &c, 7, 0);
    pass(1, 10, 20);
    pass(4, 50, 65);
    ledger_token(&l, &c, 65);
    pass(5, 65, 70);
    pass(9, 100, 105); /* a decode that sat passes out */
    ledger_finished(&l, &c, 11, 200);
    expect(10, 25, 30 + 30 + 95, 0, 10);
}

static void lost_memory_is_waited_for_and_computed_again(void **state) {
    (void)state;
    ledger_submitted(&l, &c, 7, 0);
    pass(1, 10, 20);
    ledger_token(&l, &c, 20);
    pass(2, 20, 25);
    ledger_preempted(&l, &c, 1, 8);
    pass(3, 40, 60); /* even where it comes back at once */
    pass(4, 60, 62);
    ledger_token(&l, &c, 62);
    pass(5, 62, 70);
    ledger_preempted(&l, &c, 2, 20);
    ledger_finished(&l, &c, 9, 90); /* cancelled while it waits again */
    expect(10 + 15 + 20, 10, 0, 22, 13);
    assert_int_equal(l.preemptions, 2);
    assert_int_equal(l.recomputed_tokens, 20);
    assert_int_equal(l.output_tokens, 2);
}

static void who_never_ran_was_queued_all_the_time(void **state) {
    (void)state;
    ledger_submitted(&l, &c, 7, 40);
    ledger_finished(&l, &c, 0, 95);
    expect(55, 0, 0, 0, 0);
    assert_int_equal(l.admitted_us, 0);
}

static void the_parts_of_any_life_add_up(void **state) {
    (void)state;
    rng r = {.seed = 11};
    for (int life = 0; life < 2000; life++) {
        uint64_t now = rng_below(&r, 50), number = 1 + rng_below(&r, 5);
        ledger_submitted(&l, &c, 3, now);
        for (uint64_t steps = rng_below(&r, 30), lost = 0; steps > 0; steps--) {
            now += rng_below(&r, 9);
            number += 1 + (rng_below(&r, 4) == 0);
            if (rng_below(&r, 6) == 0) ledger_preempted(&l, &c, (uint32_t)++lost, 0);
            for (uint64_t slices = 1 + rng_below(&r, 2); slices > 0; slices--) ledger_pass_begins(&l, &c, number, now);
            now += rng_below(&r, 20);
            ledger_pass_ends(&l, &c, number, now);
            if (rng_below(&r, 2)) ledger_token(&l, &c, now);
        }
        now += rng_below(&r, 9);
        ledger_finished(&l, &c, number + rng_below(&r, 2), now);
        uint64_t sum = 0;
        for (int i = 0; i < LEDGER_PARTS; i++) sum += l.part_us[i];
        assert_int_equal(sum, l.finished_us - l.submitted_us);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_life_is_queued_prefill_and_decode),
        cmocka_unit_test(a_prompt_that_others_overtake_is_stopped_meanwhile),
        cmocka_unit_test(lost_memory_is_waited_for_and_computed_again),
        cmocka_unit_test(who_never_ran_was_queued_all_the_time),
        cmocka_unit_test(the_parts_of_any_life_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
