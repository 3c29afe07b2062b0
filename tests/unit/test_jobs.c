/* The table of jobs: what is remembered between the requests that belong together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/rng.h"
#include "scheduler/jobs.h"

typedef struct {
    job_table table;
    char     *memory;
} table_under_test;

static job_table *begin(table_under_test *t, uint32_t count) {
    carver adding_up = {0};
    jobs_init(&t->table, count, 1, &adding_up);
    t->memory = aligned_alloc(CARVE_ALIGN, adding_up.used);
    assert_non_null(t->memory);
    for (size_t i = 0; i < adding_up.used; i++) t->memory[i] = 0;
    jobs_init(&t->table, count, 1, &(carver){.memory = t->memory});
    return &t->table;
}

static void a_job_keeps_its_first_arrival_through_all_its_turns(void **state) {
    (void)state;
    table_under_test t;
    job_table       *j = begin(&t, 4);
    uint32_t         a = jobs_enter(j, 77, 5, 1000);
    jobs_leave(j, a, 2000, true);
    assert_int_equal(jobs_enter(j, 77, 9, 9000), a);
    assert_int_equal(jobs_enter(j, 77, 10, 9100), a); /* two at once */
    jobs_leave(j, a, 9500, false);
    assert_true(j->all[a].live == 1 && j->all[a].turns == 1 && j->all[a].arrival == 5 && j->all[a].arrived_us == 1000);
    jobs_leave(j, a, 9600, true);
    assert_true(j->all[a].turns == 2 && j->all[a].ended_us == 9600);
    jobs_check(j);
    free(t.memory);
}

static void the_job_that_was_idle_longest_makes_room(void **state) {
    (void)state;
    table_under_test t;
    job_table       *j = begin(&t, 3);
    uint32_t         at[3];
    for (uint64_t id = 1; id <= 3; id++) at[id - 1] = jobs_enter(j, id, id, id);
    assert_int_equal(jobs_enter(j, 4, 4, 4), NO_JOB); /* all are live */
    jobs_leave(j, at[1], 10, true);
    jobs_leave(j, at[0], 11, true);
    assert_true(jobs_enter(j, 4, 4, 12) != NO_JOB);
    assert_int_equal(jobs_find(j, 2), NO_JOB);
    assert_int_equal(jobs_find(j, 1), at[0]);
    jobs_forget(j, at[0]);
    assert_int_equal(jobs_find(j, 1), NO_JOB);
    jobs_check(j);
    free(t.memory);
}

static void any_order_of_coming_and_going_keeps_the_table_whole(void **state) {
    (void)state;
    enum { JOBS = 12, PLACES = 5 };
    table_under_test t;
    job_table       *j = begin(&t, PLACES);
    rng              r = {.seed = 9};
    uint32_t         at[JOBS], live[JOBS] = {0};
    for (uint64_t i = 1; i < 20000; i++) {
        uint32_t which = (uint32_t)rng_below(&r, JOBS), busy = 0;
        for (int k = 0; k < JOBS; k++) busy += live[k] > 0;
        if (live[which] && rng_below(&r, 2)) {
            jobs_leave(j, at[which], i, rng_below(&r, 2));
            live[which]--;
        } else {
            uint32_t index = jobs_enter(j, which + 1, i, i);
            assert_true((index == NO_JOB) == (busy == PLACES && !live[which]));
            if (index != NO_JOB) at[which] = index, live[which]++;
        }
        jobs_check(j);
    }
    free(t.memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_keeps_its_first_arrival_through_all_its_turns),
        cmocka_unit_test(the_job_that_was_idle_longest_makes_room),
        cmocka_unit_test(any_order_of_coming_and_going_keeps_the_table_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
