/* Pins and what is given up first: jobs whose turns come and go through the scheduler's public functions, and the model of
 * how long to wait for a tool. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "scheduler/return_model.h"
#include "scheduler/scheduler.h"

/* ---- a scheduler whose passes take a millisecond ---- */

enum { PAGE = 4, PAGES = 64, TOKENS = 256 };

typedef struct {
    scheduler    *s;
    uint64_t      now_us, next_id;
    uint32_t      tokens[64][TOKENS];
    slice_outcome outcomes[512];
} world;

static void open_world(world *w, retention_config retention) {
    error                  err = {0};
    const scheduler_config c = {.running_max = 4,
                                .waiting_max = 32,
                                .context_max = TOKENS,
                                .batch_tokens_max = 256,
                                .slicing.chunk_tokens = 256,
                                .page_count = PAGES,
                                .page_tokens = PAGE,
                                .model.op_count = 3,
                                .jobs_max = 4,
                                .retention = retention};
    *w = (world){.now_us = 1000};
    if (scheduler_new(&w->s, &c, &err) != OK) fail_msg("%s", err.text);
}

static void close_world(world *w) {
    scheduler_check(w->s);
    scheduler_free(w->s);
}

/* A prompt of `count` tokens that all prompts of the family begin with. */
static uint64_t ask(world *w, uint32_t family, uint32_t count, request_job job, uint64_t tenant) {
    const uint64_t id = ++w->next_id;
    uint32_t      *tokens = w->tokens[id % 64];
    for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = family * 1000 + i;
    const scheduler_request r = {
        .id = id, .tokens = tokens, .prompt_tokens = count, .output_tokens_max = 4, .job = job, .tenant.id = tenant};
    assert_int_equal(scheduler_submit(w->s, w->now_us, &r, NULL), OK);
    return id;
}

/* Runs until nothing is left; answers have two tokens, which go on with the family's. */
static void run_all(world *w) {
    plan p;
    while (scheduler_plan(w->s, w->now_us, &p)) {
        w->now_us += 1000;
        for (uint32_t i = 0; i < p.slice_count; i++) {
            const slice *x = &p.slices[i];
            if (x->samples) w->outcomes[i] = (slice_outcome){w->tokens[x->id % 64][x->token_end], p.decode_rows > i};
        }
        scheduler_pass_done(w->s, w->now_us, w->outcomes);
        scheduler_check(w->s);
    }
}

static void turn(world *w, uint32_t family, uint32_t count, request_job job) {
    ask(w, family, count, job, 0);
    run_all(w);
}

static uint64_t hits(world *w) {
    scheduler_stats s;
    scheduler_read_stats(w->s, &s);
    return s.prompt_cached_tokens;
}

static scheduler_stats stats(world *w) {
    scheduler_stats s;
    scheduler_read_stats(w->s, &s);
    return s;
}

static scheduler_job_view look(world *w, uint64_t job) {
    scheduler_job_view v = {0};
    scheduler_read_job(w->s, job, &v);
    return v;
}

/* Enough strangers to push everything out that is not held. */
static void flood(world *w) {
    for (uint32_t i = 0; i < 20; i++) turn(w, 100 + i, 60, (request_job){0});
}

#define TTL                                                                                                                 \
    (retention_config) { .policy = RETENTION_TTL, .prefix_cache = true, .ttl_us = 1000000, .tenant_pins_percent = 50 }

static void what_a_turn_left_is_found_by_the_next_however_many_strangers_came_between(void **state) {
    (void)state;
    for (int pinned = 0; pinned < 2; pinned++) {
        world            w;
        retention_config c = TTL;
        if (!pinned) c.policy = RETENTION_LRU;
        open_world(&w, c);
        turn(&w, 1, 41, (request_job){.id = 7});
        assert_int_equal(look(&w, 7).pinned_tokens, pinned ? 40 : 0);
        assert_true(look(&w, 7).pinned_until_us == (pinned ? w.now_us + 1000000 : 0));
        flood(&w);
        const uint64_t before = hits(&w);
        turn(&w, 1, 60, (request_job){.id = 7});
        assert_int_equal(hits(&w) - before, pinned ? 40 : 0);
        close_world(&w);
    }
}

static void a_pin_ends_with_its_time_unless_its_turn_waits_and_a_hit_makes_a_new_one(void **state) {
    (void)state;
    world w;
    open_world(&w, TTL);
    turn(&w, 1, 41, (request_job){.id = 7});
    w.now_us += 500000;
    turn(&w, 1, 60, (request_job){.id = 7}); /* a hit: pinned anew, longer */
    assert_true(look(&w, 7).pinned_until_us == w.now_us + 1000000);
    assert_int_equal(look(&w, 7).pinned_tokens, 60);
    assert_int_equal(stats(&w).pins_hit, 1);
    w.now_us += 1000001;
    turn(&w, 2, 9, (request_job){0});
    assert_int_equal(look(&w, 7).pinned_tokens, 0);
    assert_int_equal(stats(&w).pins_expired, 1);
    assert_int_equal(stats(&w).pages_pinned, 0);
    close_world(&w);
}

static void clients_say_how_long_and_when_it_is_over(void **state) {
    (void)state;
    world w;
    open_world(&w, TTL);
    turn(&w, 1, 41, (request_job){.id = 1, .ttl_us = 77000});
    assert_true(look(&w, 1).pinned_until_us == w.now_us + 77000);
    turn(&w, 2, 41, (request_job){.id = 2, .expected_gap_us = 8000000});
    assert_true(look(&w, 2).pinned_until_us > w.now_us + 8000000 && look(&w, 2).pinned_until_us < w.now_us + 12000000);
    turn(&w, 3, 41, (request_job){.id = 3, .last_step = true, .ttl_us = 1000000});
    assert_int_equal(look(&w, 3).pinned_tokens, 0);
    assert_true(scheduler_end_job(w.s, w.now_us, 2));
    assert_false(scheduler_end_job(w.s, w.now_us, 2)); /* forgotten */
    assert_int_equal(stats(&w).pins, 1);
    close_world(&w);
}

static void pins_give_way_to_running_work_the_youngest_job_first(void **state) {
    (void)state;
    world w;
    open_world(&w, TTL);
    turn(&w, 1, 61, (request_job){.id = 1});
    w.now_us += 10;
    turn(&w, 2, 61, (request_job){.id = 2});
    assert_int_equal(stats(&w).pages_pinned, 30);
    turn(&w, 3, 200, (request_job){0}); /* needs 51 of 64 pages, and nobody runs */
    assert_int_equal(stats(&w).pins_broken, 2 - (look(&w, 1).pinned_tokens > 0));
    assert_int_equal(look(&w, 2).pinned_tokens, 0);
    assert_int_equal(stats(&w).preempted, 0);
    close_world(&w);
}

static void no_tenant_pins_more_than_its_budget_and_no_job_more_than_the_table_has(void **state) {
    (void)state;
    world            w;
    retention_config c = TTL;
    c.pins_percent = 100, c.tenant_pins_percent = 20; /* 12 pages */
    open_world(&w, c);
    for (uint64_t i = 1; i <= 4; i++) {
        ask(&w, (uint32_t)i, 33, (request_job){.id = i}, i == 4 ? 2 : 1);
        run_all(&w);
    }
    assert_int_equal(stats(&w).pins, 2); /* of 8 pages each: one of the first tenant, one of the second */
    assert_int_equal(stats(&w).pins_refused, 2);
    for (uint64_t i = 10; i < 20; i++) {
        ask(&w, (uint32_t)i, 9, (request_job){.id = i}, i);
        run_all(&w);
    }
    assert_int_equal(stats(&w).jobs, 4);
    assert_int_equal(stats(&w).pins, 4);
    scheduler_drop_cache(w.s);
    assert_int_equal(stats(&w).pages_free, PAGES);
    close_world(&w);
}

static void workflow_gives_up_what_will_not_be_wanted_before_what_will_and_tails_first(void **state) {
    (void)state;
    world            w;
    retention_config c = {.policy = RETENTION_WORKFLOW, .prefix_cache = true, .ttl_us = 1};
    open_world(&w, c);
    turn(&w, 1, 81, (request_job){.id = 1});                    /* a turn will follow */
    turn(&w, 2, 81, (request_job){.id = 2, .last_step = true}); /* none will, and it is the newer */
    w.now_us += 1000;                                           /* the pin is over */
    turn(&w, 3, 101, (request_job){0});                         /* 26 pages; 24 were free */
    turn(&w, 4, 60, (request_job){0});                          /* 16 more */
    const uint64_t before = hits(&w);
    turn(&w, 1, 100, (request_job){.id = 1});
    assert_int_equal(hits(&w) - before, 80);
    turn(&w, 2, 100, (request_job){.id = 2});
    assert_true(hits(&w) - before - 80 < 80); /* at most the front of it is left */
    close_world(&w);
}

/* ---- how long ---- */

static return_model *new_model(void) {
    carver              sizes = {0};
    return_model        adding_up;
    static char         memory[1 << 16] __attribute__((aligned(CARVE_ALIGN)));
    static return_model m;
    return_model_init(&adding_up, &sizes);
    assert_true(sizes.used <= sizeof memory);
    memset(memory, 0, sizeof memory);
    carver c = {.memory = memory};
    return_model_init(&m, &c);
    return &m;
}

static void before_anything_is_known_an_exponential_gap_of_a_second_is_assumed(void **state) {
    (void)state;
    return_model *m = new_model();
    assert_int_equal(return_model_choose_us(m, 1, 0.9, 0), 0);
    assert_true(fabs((double)return_model_choose_us(m, 1, 5, 0) - log(5) * 1e6) < 2);
    assert_true(fabs((double)return_model_choose_us(m, 1, 6, 1) - log(3) * 1e6) < 2); /* memory has a price of one */
}

static void a_tool_that_takes_long_is_waited_for_only_if_that_is_worth_it(void **state) {
    (void)state;
    return_model *m = new_model();
    for (int i = 0; i < 200; i++) return_model_gap(m, 1, 400000), return_model_gap(m, 2, 20000000);
    const uint64_t quick = return_model_choose_us(m, 1, 2, 0);
    assert_true(quick >= 400000 && quick < 600000); /* the end of its bucket */
    assert_int_equal(return_model_choose_us(m, 2, 2, 0), 0);
    assert_true(return_model_choose_us(m, 2, 60, 0) >= 20000000);
    assert_int_equal(return_model_choose_us(m, 2, 60, 3), 0); /* others wait for the memory */
    for (int i = 0; i < 500; i++) return_model_wait(m, 60000000);
    assert_true(return_model_choose_us(m, 2, 2, 0) >= 20000000); /* those that came back to nothing waited a minute */
}

static void of_a_tool_with_two_speeds_the_quick_part_is_waited_for(void **state) {
    (void)state;
    return_model *m = new_model();
    for (int i = 0; i < 200; i++) return_model_gap(m, 9, i % 10 < 7 ? 100000 : 100000000);
    const uint64_t best = return_model_choose_us(m, 9, 3, 0);
    assert_true(best >= 100000 && best < 150000);
    assert_true(return_model_choose_us(m, 8, 3, 0) == best); /* a tool never seen: as all are */
}

static void how_much_is_left_is_learned_from_jobs_that_are_over(void **state) {
    (void)state;
    return_model *m = new_model();
    assert_true(return_model_eta(m) == 1);
    for (int i = 0; i < 50; i++) return_model_job(m, 10); /* always ten turns: what is done says all */
    assert_true(fabs(return_model_eta(m) - 1) < 1e-9);
    rng r = {.seed = 1};
    for (int i = 0; i < 2000; i++) return_model_job(m, 1 + (uint32_t)rng_below(&r, 40));
    assert_true(return_model_eta(m) < 0.6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_turn_left_is_found_by_the_next_however_many_strangers_came_between),
        cmocka_unit_test(a_pin_ends_with_its_time_unless_its_turn_waits_and_a_hit_makes_a_new_one),
        cmocka_unit_test(clients_say_how_long_and_when_it_is_over),
        cmocka_unit_test(pins_give_way_to_running_work_the_youngest_job_first),
        cmocka_unit_test(no_tenant_pins_more_than_its_budget_and_no_job_more_than_the_table_has),
        cmocka_unit_test(workflow_gives_up_what_will_not_be_wanted_before_what_will_and_tails_first),
        cmocka_unit_test(before_anything_is_known_an_exponential_gap_of_a_second_is_assumed),
        cmocka_unit_test(a_tool_that_takes_long_is_waited_for_only_if_that_is_worth_it),
        cmocka_unit_test(of_a_tool_with_two_speeds_the_quick_part_is_waited_for),
        cmocka_unit_test(how_much_is_left_is_learned_from_jobs_that_are_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
