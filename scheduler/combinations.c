/* scheduler/combinations.c: which choices do not go together.
 *
 * Each axis is chosen alone, and what one policy does asks nothing of another's, so nearly every combination is sound. What
 * is not is one row here. *Refused* is what makes no sense: a policy lacks what it works with, and would do nothing or wait
 * for ever. *Doubted* is what works and is hardly what was meant: it is told once, at start, and done. A setting that
 * another choice never looks at is doubted as well: whoever gave it believes that it does something.
 *
 * tests/unit/test_combinations.c has an example of every row, and starts every combination of the axes that none refuses. */
#include <stddef.h>

#include "scheduler/config.h"

static bool stops(const scheduler_config *c) { return c->preemption.policy == PREEMPTION_OPERATOR; }
static bool copies(const scheduler_config *c) { return c->reclaim.policy != RECLAIM_RECOMPUTE; }
static bool pins(const scheduler_config *c) { return c->retention.policy != RETENTION_LRU; }
static bool looks_at_time(const scheduler_config *c) {
    return c->order.policy == ORDER_DEADLINE || c->order.policy == ORDER_GOODPUT;
}

/* ---- refused ---- */

static bool stops_without_frames(const scheduler_config *c) { return stops(c) && c->frame_count == 0; }
static bool layers_without_frames(const scheduler_config *c) {
    return c->slicing.policy == SLICING_LAYERED && c->frame_count == 0;
}
static bool copies_to_nowhere(const scheduler_config *c) { return copies(c) && c->reclaim.host_pages == 0; }
static bool copies_that_nobody_finds(const scheduler_config *c) { return copies(c) && !c->retention.prefix_cache; }
static bool displaces_without_levels(const scheduler_config *c) {
    return c->reclaim.displaces && c->order.policy != ORDER_PRIORITY;
}
static bool turns_of_one(const scheduler_config *c) { return c->fair.turns && c->fair.tenants_max == 1; }

/* ---- doubted ---- */

static bool urgent_behind_whole(const scheduler_config *c) {
    return looks_at_time(c) && c->slicing.policy == SLICING_WHOLE && !stops(c);
}
static bool nobody_to_stop_for(const scheduler_config *c) {
    return stops(c) && c->order.policy == ORDER_FCFS && !c->fair.turns && !c->preemption.decodes_wait;
}
static bool batch_that_nobody_stops(const scheduler_config *c) { return !stops(c) && c->preemption.batch_tokens > 0; }
static bool layers_of_dense(const scheduler_config *c) {
    return c->slicing.policy == SLICING_LAYERED && c->model.experts == 0;
}
static bool auto_without_frames(const scheduler_config *c) {
    return c->slicing.policy == SLICING_AUTO && c->model.experts > 0 && c->frame_count == 0;
}
static bool whole_with_budget(const scheduler_config *c) {
    return c->slicing.policy == SLICING_WHOLE && c->slicing.budget == SLICING_BUDGET_DEADLINE;
}
static bool all_are_short(const scheduler_config *c) {
    return c->slicing.short_tokens > 0 && c->slicing.short_tokens >= c->context_max;
}
static bool jobs_without_cache(const scheduler_config *c) {
    return c->order.policy == ORDER_JOB && !c->retention.prefix_cache;
}
static bool pins_without_cache(const scheduler_config *c) { return pins(c) && !c->retention.prefix_cache; }
static bool fits_no_pins(const scheduler_config *c) { return c->retention.ttl_fitted && !pins(c); }
static bool host_memory_for_nothing(const scheduler_config *c) { return !copies(c) && c->reclaim.host_pages > 0; }
static bool copies_of_nobody(const scheduler_config *c) {
    return copies(c) && c->admission.policy == ADMISSION_CONSERVATIVE && !c->reclaim.displaces;
}
static bool ages_without_levels(const scheduler_config *c) {
    return c->order.age_ms > 0 && c->order.policy != ORDER_PRIORITY;
}
static bool predicts_for_nothing(const scheduler_config *c) {
    return c->admission.policy != ADMISSION_PAST_FUTURE &&
           (c->admission.quantile_percent > 0 || c->admission.reserve_percent > 0);
}

static const scheduler_combination combinations[] = {
    {stops_without_frames, true, "`preemption = operator`, no frames",
     "operator preemption leaves the rows of a stopped pass in a frame; give it frames"},
    {layers_without_frames, true, "`slicing = layered`, no frames",
     "layered slicing suspends prompts between layers and needs frames"},
    {copies_to_nowhere, true, "`reclaim = swap` or `auto`, no host memory",
     "reclaim = swap and auto copy pages to host memory and there is none; give it some with host-cache-memory"},
    {copies_that_nobody_finds, true, "`reclaim = swap` or `auto`, `prefix-cache = no`",
     "reclaim = swap and auto find copied pages by what they hold; that needs prefix-cache = yes"},
    {displaces_without_levels, true, "displacing, any `order` but `priority`",
     "displace is for who is a level of priority behind; set order = priority, or leave it out"},
    {turns_of_one, true, "`fair = yes`, `tenants-max = 1`",
     "one tenant cannot take turns; raise tenants-max, or leave fair out"},

    {urgent_behind_whole, false, "`order = deadline` or `goodput`, `slicing = whole`, `preemption = none`",
     "deadlines are ordered, but a prompt runs whole and nothing stops it: the urgent wait for the longest prompt; set "
     "preemption = operator, or slicing = chunked"},
    {nobody_to_stop_for, false, "`preemption = operator`, `order = fcfs`, `fair = no`, `decodes-wait = no`",
     "prompts may be stopped for whoever goes before them, but with order = fcfs nobody does"},
    {batch_that_nobody_stops, false, "`preemption-batch`, `preemption = none`",
     "preemption-batch is given, and with preemption = none nothing looks at it"},
    {layers_of_dense, false, "`slicing = layered`, a model without experts",
     "prompts are cut between layers, which saves nothing on a model without experts and costs a frame; slicing = auto "
     "chooses "
     "by the model"},
    {auto_without_frames, false, "`slicing = auto`, a model with experts, no frames",
     "slicing = auto would cut this model's prompts between layers, but there are no frames to leave their rows in, so it "
     "cuts "
     "between tokens"},
    {whole_with_budget, false, "`slicing = whole`, `slicing-budget = deadline`",
     "prompts have a budget by deadline, but with slicing = whole they are not cut to it"},
    {all_are_short, false, "`short-tokens` of the whole context",
     "every prompt counts as short, so short-tokens keeps nothing apart"},
    {jobs_without_cache, false, "`order = job`, `prefix-cache = no`",
     "jobs go by their first turn, but with prefix-cache = no each turn computes all of the ones before"},
    {pins_without_cache, false, "`retention = ttl` or `workflow`, `prefix-cache = no`",
     "a turn's pages are to be pinned for the next, but with prefix-cache = no there are none to find"},
    {fits_no_pins, false, "`ttl-fitted`, `retention = lru`",
     "ttl-fitted is given, and retention = lru pins nothing; set retention = ttl or workflow"},
    {host_memory_for_nothing, false, "host memory, `reclaim = recompute`",
     "host-cache-memory is given and reclaim = recompute copies nothing there; set reclaim = swap or auto"},
    {copies_of_nobody, false, "`reclaim = swap` or `auto`, `admission = conservative`",
     "with admission = conservative memory is never taken back, so reclaim has nothing to copy; set admission = greedy or "
     "past-future, or reclaim = recompute"},
    {ages_without_levels, false, "`priority-age`, any `order` but `priority`",
     "priority-age is given, and only order = priority looks at it"},
    {predicts_for_nothing, false, "`past-future-quantile` or `-reserve`, any `admission` but `past-future`",
     "past-future-quantile or past-future-reserve is given, and only admission = past-future looks at them"},
};
enum { COMBINATIONS = sizeof combinations / sizeof *combinations };

const scheduler_combination *scheduler_combinations(uint32_t *count) {
    *count = COMBINATIONS;
    return combinations;
}

/* The i-th row of that kind that the configuration is. */
static const char *nth(const scheduler_config *c, bool refused, uint32_t i) {
    for (uint32_t k = 0; k < COMBINATIONS; k++)
        if (combinations[k].refused == refused && combinations[k].is(c) && i-- == 0) return combinations[k].sentence;
    return NULL;
}

const char *scheduler_config_nonsense(const scheduler_config *c) { return nth(c, true, 0); }
const char *scheduler_config_doubt(const scheduler_config *c, uint32_t i) { return nth(c, false, i); }
