/* How a device that only pretends keeps time although nobody wakes on time. The clock here is made up. */
#include "engine/pacer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { US = 1000, AHEAD_US = 300 };

/* Launches `count` pieces, sleeping when the work launched is far ahead, and at the end; every sleep is `late` too long. */
static uint64_t run_pass(pacer *p, uint64_t now, int count, uint64_t each, uint64_t late) {
    for (int i = 0; i < count; i++) {
        pacer_launch(p, now, each);
        if (p->due_ns > now + AHEAD_US * US) pacer_woke(p, now = p->due_ns + late);
    }
    if (now < p->due_ns) pacer_woke(p, now = p->due_ns + late);
    return now;
}

static void many_late_wakes_do_not_add_up(void **state) {
    (void)state;
    pacer    p = {0};
    uint64_t now = 5000 * US;
    for (int i = 0; i < 100; i++) now = run_pass(&p, now, 40, 250 * US, 100 * US);
    assert_in_range(now, (5000 + 100 * 40 * 250) * US, (5000 + 100 * 40 * 250 + 100) * US);
}

static void a_wake_later_than_the_next_piece_is_made_up_for_by_several(void **state) {
    (void)state;
    pacer    p = {0};
    uint64_t now = run_pass(&p, 5000 * US, 1, 400 * US, 5000 * US);
    for (int i = 0; i < 10; i++) now = run_pass(&p, now, 1, 1000 * US, 0);
    assert_int_equal(now, (5000 + 400 + 10 * 1000) * US);
}

static void time_in_which_nothing_was_launched_is_not_made_up_for(void **state) {
    (void)state;
    pacer    p = {0};
    uint64_t now = run_pass(&p, 5000 * US, 1, 400 * US, 0) + 200 * US; /* the host takes its time */
    assert_int_equal(run_pass(&p, now, 1, 400 * US, 0), now + 400 * US);
    now = run_pass(&p, now + 5000 * US, 1, 400 * US, 900 * US) + 60000 * US; /* a late wake, then idle */
    assert_int_equal(run_pass(&p, now, 1, 400 * US, 0), now + 400 * US);
}

static void the_first_piece_begins_when_it_is_launched(void **state) {
    (void)state;
    pacer p = {0};
    pacer_launch(&p, 7000 * US, 50 * US);
    assert_int_equal(p.due_ns, 7050 * US);
    pacer_launch(&p, 7010 * US, 50 * US);
    assert_int_equal(p.due_ns, 7100 * US);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_late_wakes_do_not_add_up),
        cmocka_unit_test(a_wake_later_than_the_next_piece_is_made_up_for_by_several),
        cmocka_unit_test(time_in_which_nothing_was_launched_is_not_made_up_for),
        cmocka_unit_test(the_first_piece_begins_when_it_is_launched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
