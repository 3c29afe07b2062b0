/* Overload under a virtual clock: the production scheduler, pace and door, against arrivals at one, two and three times what
 * a made-up machine can do. Three machines, short of different things. Everything is counted, nothing is timed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/overload.h"
#include "scheduler/scheduler.h"

/* A pass takes base + prompts x rows + decodes x rows. */
typedef struct {
    const char *name;
    double      pass_us, prompt_us, decode_us;
    uint32_t    running_max, page_count;
    uint32_t    prompt_min, prompt_max, output_min, output_max;
    uint64_t    wait_max_us;
} machine;

static const machine machines[] = {
    {"short of slots", 4000, 10, 100, 16, 4096, 10, 100, 20, 200, 2000000},
    {"short of time for prompts", 2000, 200, 50, 256, 16384, 100, 900, 1, 4, 2000000},
    {"short of KV pages", 4000, 10, 100, 256, 200, 50, 300, 20, 150, 2000000},
};
enum { MACHINES = sizeof machines / sizeof *machines, PAGE_TOKENS = 16, REQUESTS_MAX = 1 << 16, SIMULATED_S = 120 };

typedef struct {
    uint64_t arrived_us;
    double   predicted_s; /* when it was let in */
    uint32_t prompt, output, drawn;
    uint32_t tokens[1200];
    bool     began;
} sim_request;

typedef struct {
    uint32_t offered, refused, completed;
    uint32_t in_time; /* began within wait_max and a half more */
    uint32_t judged;  /* predictions compared with what came */
    double   error_s; /* summed */
} tally;

static sim_request *requests; /* [REQUESTS_MAX], by id */

typedef struct {
    const machine *m;
    scheduler     *s;
    pace           pace;
    uint64_t       now_us, prompt_left, limit_us;
    uint32_t       next_id;
    rng            random;
    tally          tally;
} world;

static backlog look(const world *w) {
    scheduler_stats s;
    scheduler_read_stats(w->s, &s);
    return (backlog){.running = s.running,
                     .running_max = w->m->running_max,
                     .waiting = s.waiting,
                     .passed_over = s.waiting,
                     .waiting_tokens = s.waiting_tokens,
                     .prompt_left = w->prompt_left,
                     .tokens_free = ((uint64_t)s.pages_free + s.pages_cached) * PAGE_TOKENS,
                     .tokens_held = (uint64_t)s.pages_held * PAGE_TOKENS};
}

static uint32_t between(world *w, uint32_t min, uint32_t max) {
    return min + (uint32_t)rng_below(&w->random, max - min + 1);
}

static void arrive(world *w, uint64_t at_us) {
    const queue_limits limits = {.waiting_max = 4000, .wait_max_us = w->limit_us};
    sim_request       *r = &requests[w->next_id];
    const backlog      b = look(w);
    assert_true(w->next_id < REQUESTS_MAX);
    *r = (sim_request){.arrived_us = at_us,
                       .prompt = between(w, w->m->prompt_min, w->m->prompt_max),
                       .output = between(w, w->m->output_min, w->m->output_max)};
    r->predicted_s = pace_wait_s(&w->pace, &b, r->prompt);
    w->tally.offered++;
    if (queue_ask(&limits, &b, r->predicted_s, 1, r->prompt) != QUEUE_HAS_ROOM) {
        w->tally.refused++;
        return;
    }
    for (uint32_t i = 0; i < r->prompt; i++) r->tokens[i] = w->next_id * 1000 + i; /* nothing is found in the cache */
    const scheduler_request asked = {
        .id = w->next_id++, .tokens = r->tokens, .prompt_tokens = r->prompt, .output_tokens_max = r->output};
    assert_int_equal(scheduler_submit(w->s, w->now_us, &asked, NULL), OK);
}

static void began(world *w, sim_request *r) {
    const double waited_s = (double)(w->now_us - r->arrived_us) * 1e-6;
    r->began = true;
    w->tally.in_time += waited_s <= 1.5e-6 * (double)w->m->wait_max_us;
    w->tally.error_s += fabs(waited_s - r->predicted_s);
    w->tally.judged++;
}

/* false: there was nothing to do. */
static bool run_pass(world *w) {
    static slice_outcome outcomes[4096];
    plan                 p;
    if (!scheduler_plan(w->s, w->now_us, &p)) return false;
    for (uint32_t i = 0; i < p.slice_count; i++)
        if (!requests[p.slices[i].id].began) began(w, &requests[p.slices[i].id]);
    const double  us = w->m->pass_us + w->m->prompt_us * p.prefill_rows + w->m->decode_us * p.decode_rows;
    const backlog b = look(w);
    w->now_us += (uint64_t)us;
    w->prompt_left = 0;
    for (uint32_t i = 0; i < p.slice_count; i++) {
        const slice *s = &p.slices[i];
        sim_request *r = &requests[s->id];
        if (i >= p.decode_rows && r->prompt > s->token_end) w->prompt_left += r->prompt - s->token_end;
        if (!s->samples) continue;
        r->tokens[r->prompt + r->drawn++] = 1;
        outcomes[i] = (slice_outcome){.token = 1, .finished = r->drawn == r->output};
        if (!outcomes[i].finished) continue;
        pace_answer(&w->pace, r->output);
        w->tally.completed++;
    }
    pace_pass(&w->pace, us * 1e-6, p.prefill_rows, p.decode_rows, b.waiting);
    scheduler_pass_done(w->s, w->now_us, outcomes);
    return true;
}

static scheduler *new_scheduler(const machine *m) {
    const scheduler_config c = {.running_max = m->running_max,
                                .waiting_max = 8192,
                                .context_max = 1100,
                                .batch_tokens_max = 512 + m->running_max,
                                .slicing.chunk_tokens = 256,
                                .page_count = m->page_count,
                                .page_tokens = PAGE_TOKENS,
                                .model.op_count = 10};
    scheduler             *s;
    error                  err;
    if (scheduler_new(&s, &c, &err) != OK) fail_msg("%s", err.text);
    return s;
}

/* Poisson arrivals, so many a second; 0: one whenever few wait, which is what the machine can do. */
static tally simulate(const machine *m, double per_s, uint64_t limit_us) {
    world        w = {.m = m, .s = new_scheduler(m), .random = {.seed = 5}, .limit_us = limit_us};
    const double end_us = SIMULATED_S * 1e6;
    double       next_us = 0;
    while ((double)w.now_us < end_us) {
        while (per_s > 0 ? next_us <= (double)w.now_us : look(&w).waiting < 2 * m->running_max) {
            arrive(&w, per_s > 0 ? (uint64_t)next_us : w.now_us);
            if (per_s > 0) next_us += -log(1 - (double)rng_below(&w.random, 1 << 30) / (1 << 30)) / per_s * 1e6;
        }
        if (!run_pass(&w)) w.now_us = (uint64_t)next_us + 1;
    }
    scheduler_free(w.s);
    return w.tally;
}

static double capacity(const machine *m) { return (double)simulate(m, 0, 0).completed / SIMULATED_S; }

static void say(const char *what, const tally *t) {
    print_message("    %-26s offered %5u, refused %5u, completed %5u, begun in time %5u, prediction off by %.2f s\n", what,
                  t->offered, t->refused, t->completed, t->in_time, t->judged ? t->error_s / t->judged : 0);
}

static void goodput_stays_flat_at_three_times_capacity(void **state) {
    (void)state;
    for (int i = 0; i < MACHINES; i++) {
        const machine *m = &machines[i];
        const double   per_s = capacity(m);
        tally          at[4];
        print_message("%s: %.1f requests a second\n", m->name, per_s);
        for (int times = 1; times <= 3; times++) {
            at[times] = simulate(m, times * per_s, m->wait_max_us);
            say("with the bound", &at[times]);
        }
        assert_true(at[1].in_time > 0.9 * per_s * SIMULATED_S * 0.9);
        assert_true(at[3].in_time >= 0.9 * at[1].in_time);
        assert_true(at[3].completed >= 0.9 * at[1].completed);
        assert_true(at[3].refused > at[3].offered / 2);
        assert_true(at[1].refused < at[1].offered / 5);
    }
}

static void without_the_bound_nearly_everybody_is_late(void **state) {
    (void)state;
    for (int i = 0; i < MACHINES; i++) {
        const machine *m = &machines[i];
        const tally    t = simulate(m, 3 * capacity(m), 0);
        say(m->name, &t);
        assert_true(t.in_time < t.completed / 4);
    }
}

static void the_wait_that_was_predicted_comes_true(void **state) {
    (void)state;
    for (int i = 0; i < MACHINES; i++) {
        const machine *m = &machines[i];
        const tally    t = simulate(m, 3 * capacity(m), m->wait_max_us); /* waits are about wait_max */
        assert_true(t.judged > 100);
        assert_true(t.error_s / t.judged < 0.2e-6 * (double)m->wait_max_us);
    }
}

static int setup(void **state) {
    (void)state;
    requests = calloc(REQUESTS_MAX, sizeof *requests);
    return requests ? 0 : -1;
}
static int teardown(void **state) {
    (void)state;
    free(requests);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goodput_stays_flat_at_three_times_capacity),
        cmocka_unit_test(without_the_bound_nearly_everybody_is_late),
        cmocka_unit_test(the_wait_that_was_predicted_comes_true),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
