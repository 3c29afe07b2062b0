/* scheduler/return_model.h: how long to keep what a turn leaves in the cache, while its tool runs.
 *
 * Problem: pages that wait for a turn to come back are pages that others cannot have; pages given up are computed again, and
 * the turn queues for them like a stranger.
 * Choice: the time t that maximises  F(t) (T eta + reload) - (1 + price) t.  F: how likely the tool is back by then, from
 * the gaps seen after it; T: how long turns that came back to nothing waited; eta: how far the turns a job has done say that
 * few are left; reload: what computing the context again takes; price: the seconds that others waited for memory, per second
 * of pages kept. Gaps are counted in logarithmic buckets, so a choice is one walk over 64 of them. Until a tool has been
 * seen often enough all tools stand for it; until those have, an exponential gap of a second does. (Continuum, arXiv
 * 2511.02230, with a price.) */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"

enum { RETURN_BUCKETS = 64, RETURN_TOOLS = 64, RETURN_SEEN_MIN = 100 };
#define RETURN_GAP_MIN_US 1000u
#define RETURN_GAP_MAX_US 600000000u

typedef struct {
    uint64_t tool; /* 0: a free place */
    uint32_t seen, buckets[RETURN_BUCKETS];
} tool_gaps;

typedef struct {
    tool_gaps  all;
    tool_gaps *tools;  /* [RETURN_TOOLS], open addressing; a tool that finds no place counts among all */
    double     wait_s; /* T: moving mean */
    uint64_t   jobs;   /* over, that eta was learned from; and the sums of (done, left) over their turns */
    double     pairs, sum_done, sum_left, sum_done2, sum_left2, sum_both;
} return_model;

void return_model_init(return_model *m, carver *c);
void return_model_gap(return_model *m, uint64_t tool, uint64_t gap_us); /* a turn came so long after the one before */
void return_model_wait(return_model *m, uint64_t wait_us);              /* one that found nothing kept waited so long */
void return_model_job(return_model *m, uint32_t turns);                 /* a job was over after so many */

double   return_model_eta(const return_model *m); /* 1 while few jobs were seen */
uint64_t return_model_choose_us(const return_model *m, uint64_t tool, double reload_s, double price); /* 0: do not keep */
