/* Which settings of the scheduler go together: an example of every row that refuses or doubts, and a start, with answers to
 * the end, of every combination that none refuses. What should be refused is written here once more, from the reasons. */
#include "tests/unit/story.h"

#include <string.h>

/* Nothing about it is refused or doubted. */
static scheduler_config sound(void) {
    scheduler_config c = config_of(40);
    c.model.experts = 8, c.model.experts_per_row = 2;
    return c;
}

/* ---- each row ---- */

static void fcfs_stops(scheduler_config *c) { c->preemption.policy = PREEMPTION_OPERATOR; }
static void stops_no_frames(scheduler_config *c) {
    c->preemption = (preemption_config){PREEMPTION_OPERATOR, .decodes_wait = true}, c->frame_count = c->frame_tokens = 0;
}
static void layers_no_frames(scheduler_config *c) {
    c->slicing.policy = SLICING_LAYERED, c->frame_count = c->frame_tokens = 0;
}
static void auto_no_frames(scheduler_config *c) { c->slicing.policy = SLICING_AUTO, c->frame_count = c->frame_tokens = 0; }
static void swap_no_memory(scheduler_config *c) { c->reclaim.policy = RECLAIM_SWAP; }
static void auto_no_cache(scheduler_config *c) {
    c->reclaim.policy = RECLAIM_AUTO, c->reclaim.host_pages = 8, c->retention.prefix_cache = false;
}
static void conservative_swap(scheduler_config *c) {
    c->reclaim.policy = RECLAIM_SWAP, c->reclaim.host_pages = 8, c->admission.policy = ADMISSION_CONSERVATIVE;
}
static void fcfs_displaces(scheduler_config *c) { c->reclaim.displaces = true; }
static void one_tenant(scheduler_config *c) { c->fair = (fair_config){true, 1}; }
static void whole_deadline(scheduler_config *c) { c->order.policy = ORDER_DEADLINE, c->slicing.policy = SLICING_WHOLE; }
static void batch_alone(scheduler_config *c) { c->preemption.batch_tokens = 100; }
static void layered_dense(scheduler_config *c) {
    c->slicing.policy = SLICING_LAYERED, c->model.experts = c->model.experts_per_row = 0;
}
static void whole_budget(scheduler_config *c) {
    c->slicing.policy = SLICING_WHOLE, c->slicing.budget = SLICING_BUDGET_DEADLINE;
}
static void all_short(scheduler_config *c) { c->slicing.short_tokens = c->context_max; }
static void job_no_cache(scheduler_config *c) { c->order.policy = ORDER_JOB, c->retention.prefix_cache = false; }
static void ttl_no_cache(scheduler_config *c) { c->retention = (retention_config){.policy = RETENTION_TTL}; }
static void fitted_lru(scheduler_config *c) { c->retention.ttl_fitted = true; }
static void host_memory(scheduler_config *c) { c->reclaim.host_pages = 8; }
static void fcfs_age(scheduler_config *c) { c->order.age_ms = 1000; }
static void greedy_quantile(scheduler_config *c) { c->admission.quantile_percent = 90; }

static const struct {
    void (*make)(scheduler_config *c);
    bool        refused;
    const char *words; /* of the sentence */
} examples[] = {
    {stops_no_frames, true, "stopped pass in a frame"}, {layers_no_frames, true, "needs frames"},
    {swap_no_memory, true, "host-cache-memory"},        {auto_no_cache, true, "prefix-cache = yes"},
    {fcfs_displaces, true, "order = priority"},         {one_tenant, true, "tenants-max"},
    {whole_deadline, false, "preemption = operator"},   {fcfs_stops, false, "with order = fcfs nobody does"},
    {batch_alone, false, "preemption-batch"},           {layered_dense, false, "without experts"},
    {auto_no_frames, false, "no frames to leave"},      {whole_budget, false, "budget by deadline"},
    {all_short, false, "keeps nothing apart"},          {job_no_cache, false, "jobs go by their first turn"},
    {ttl_no_cache, false, "pinned for the next"},       {fitted_lru, false, "pins nothing"},
    {host_memory, false, "copies nothing there"},       {conservative_swap, false, "never taken back"},
    {fcfs_age, false, "only order = priority looks"},   {greedy_quantile, false, "only admission = past-future looks"},
};
enum { EXAMPLES = sizeof examples / sizeof *examples };

static void every_row_has_an_example_that_fires_it_alone(void **state) {
    (void)state;
    uint32_t                     count, fired[EXAMPLES] = {0};
    const scheduler_combination *rows = scheduler_combinations(&count);
    scheduler_config             plain = sound();
    assert_int_equal(count, EXAMPLES);
    for (uint32_t i = 0; i < count; i++) assert_false(rows[i].is(&plain));
    for (uint32_t k = 0; k < EXAMPLES; k++) {
        scheduler_config c = sound();
        examples[k].make(&c);
        for (uint32_t i = 0; i < count; i++) {
            if (!rows[i].is(&c)) continue;
            if (!strstr(rows[i].sentence, examples[k].words)) fail_msg("example %u also fires: %s", k, rows[i].sentence);
            assert_true(rows[i].refused == examples[k].refused);
            fired[i]++;
        }
    }
    for (uint32_t i = 0; i < count; i++) assert_int_equal(fired[i], 1);
}

static void the_senseless_are_refused_by_their_sentence_and_the_doubtful_start(void **state) {
    (void)state;
    for (uint32_t k = 0; k < EXAMPLES; k++) {
        scheduler_config c = sound();
        scheduler       *s;
        error            err = {0};
        examples[k].make(&c);
        assert_int_equal(scheduler_new(&s, &c, &err), examples[k].refused ? ERR_CONFIG : OK);
        if (examples[k].refused) assert_non_null(strstr(err.text, examples[k].words));
        else assert_non_null(strstr(scheduler_config_doubt(&c, 0), examples[k].words));
        scheduler_free(s);
    }
}

/* ---- all of them ---- */

typedef struct {
    uint64_t number; /* of the combination, from which each choice is taken in turn */
} dial;

static uint32_t turn(dial *d, uint32_t choices) {
    const uint32_t choice = (uint32_t)(d->number % choices);
    d->number /= choices;
    return choice;
}

static scheduler_config combination(dial *d) {
    scheduler_config c = sound();
    c.order.policy = (order_policy)turn(d, ORDER_COUNT);
    c.fair.turns = turn(d, 2);
    c.admission.policy = (admission_policy)turn(d, ADMISSION_COUNT);
    c.slicing.policy = (slicing_policy)turn(d, SLICING_COUNT);
    c.slicing.budget = (slicing_budget)turn(d, 2);
    c.slicing.short_tokens = turn(d, 2) ? 6 : 0;
    c.preemption.policy = (preemption_policy)turn(d, PREEMPTION_COUNT);
    c.preemption.decodes_wait = turn(d, 2);
    c.reclaim.policy = (reclaim_policy)turn(d, RECLAIM_COUNT);
    c.reclaim.displaces = turn(d, 2);
    c.reclaim.host_pages = turn(d, 2) ? 8 : 0;
    c.retention.policy = (retention_policy)turn(d, RETENTION_COUNT);
    c.retention.ttl_fitted = turn(d, 2);
    c.retention.prefix_cache = turn(d, 2);
    if (turn(d, 2)) c.model.experts = c.model.experts_per_row = 0;
    if (turn(d, 2)) c.frame_count = c.frame_tokens = 0;
    c.jobs_max = 8, c.fair.tenants_max = 4; /* small, for there are many */
    return c;
}

static bool makes_sense(const scheduler_config *c) {
    const bool halves = c->slicing.policy == SLICING_LAYERED || c->preemption.policy == PREEMPTION_OPERATOR;
    const bool copies = c->reclaim.policy == RECLAIM_SWAP || c->reclaim.policy == RECLAIM_AUTO;
    return (c->frame_count > 0 || !halves) && (!copies || (c->reclaim.host_pages > 0 && c->retention.prefix_cache)) &&
           (!c->reclaim.displaces || c->order.policy == ORDER_PRIORITY);
}

/* Three requests of two tenants and one job, whose pages do not all fit; whoever is to copy is told that it did. */
static void answer(const scheduler_config *c) {
    static story     t;
    scheduler_config small = *c;
    error            err;
    memset(&t, 0, sizeof t);
    small.page_count = 12;
    if (scheduler_new(&t.s, &small, &err) != OK) fail_msg("%s", err.text);
    for (uint64_t id = 1; id <= 3; id++) {
        const scheduler_request r = {.priority = 3 - (int32_t)id,
                                     .tenant.id = id % 2,
                                     .job = {.id = id == 1 ? 0 : 7, .ttl_us = 50},
                                     .slo = {.ttft_us = 30, .tbt_us = 20, .deadline_us = 900}};
        assert_int_equal(submit_with(&t, id, 5 * (uint32_t)id, 14, 6, r), OK);
    }
    for (uint32_t i = 0; stats_of(&t).running + stats_of(&t).waiting > 0; i++) {
        assert_true(i < 1000);
        const bool planned = scheduler_plan(t.s, ++t.now_us, &t.plan);
        const plan now = t.plan;
        for (uint32_t k = 0; k < now.copy_count; k++) scheduler_copy_done(t.s, t.now_us, now.copies[k].id, true);
        if (planned) finish(&t);
    }
    assert_int_equal(stats_of(&t).finished, 3);
    scheduler_check(t.s);
    scheduler_free(t.s);
}

/* All are asked about; one in a prime number of those that start is also run, and so each two choices many times. */
static void every_other_combination_starts_and_answers(void **state) {
    (void)state;
    enum { EACH = 23 };
    uint64_t count = 0, started = 0;
    for (bool more = true; more; count++) {
        dial                   d = {count};
        const scheduler_config c = combination(&d);
        const char *const      nonsense = scheduler_config_nonsense(&c);
        more = d.number == 0;
        if (!more) break;
        if ((nonsense == NULL) != makes_sense(&c)) fail_msg("combination %llu: %s", (unsigned long long)count, nonsense);
        if (nonsense) continue;
        assert_true(scheduler_memory_bytes(&c) > 0); /* nothing else refuses it */
        if (started++ % EACH == 0) answer(&c);
    }
    assert_true(count == 6u * 2 * 3 * 4 * 2 * 2 * 2 * 2 * 3 * 2 * 2 * 3 * 2 * 2 * 2 * 2 && started > count / 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_an_example_that_fires_it_alone),
        cmocka_unit_test(the_senseless_are_refused_by_their_sentence_and_the_doubtful_start),
        cmocka_unit_test(every_other_combination_starts_and_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
