/* scheduler/retain.h: pins: what the turns of jobs leave in the cache is held for a while, so that the next turn finds it.
 *
 * One pin a job, on the whole prefix of its last finished turn. It ends when its time is over (unless a turn of the job
 * waits by then), when the job's next turn is admitted (which holds the pages itself by then, and pins anew when it ends: a
 * hit refreshes), when the job is ended, or when running work needs the memory: then the job that came last gives way first.
 * So pins never cost anybody's running work, and never block the last one who could run. How long: what the client asked
 * for, else from the gap it expects, else the policy's fixed time or the fitted one (return_model.h). A tenant's pins, and
 * all pins together, have a budget in pages; beyond it a turn is not pinned.
 *
 * For the files of this folder only; state.h includes it. */
#pragma once
#include "scheduler/config.h"
#include "scheduler/heap.h"
#include "scheduler/return_model.h"

enum { PIN_TENANTS = 256 }; /* with budgets of their own; further ones share places */

typedef struct {
    uint32_t tail, pages;  /* the last page of the prefix, NO_PAGE: nothing is pinned; and how many there are */
    uint32_t tenant;       /* place in tenant_pages */
    uint32_t payer;        /* in the table of fair.h: who pays rent for them */
    uint32_t turns;        /* that the job has finished */
    uint32_t known, grade; /* tokens at the end of the last; how little they will be wanted (kvcache/retention.h) */
    uint64_t until_us;
    uint64_t job, tool; /* whose entry it is; what its last finished turn called */
} pin;

typedef struct {
    uint32_t  job_count;
    pin      *pins;     /* [job_count], by place in jobs */
    item_heap ends;     /* by until_us */
    item_heap youngest; /* by the job's arrival, the last first */
    uint64_t  pages;    /* of all pins; those in several count several times */
    uint64_t *tenant_pages;
    uint64_t *tenant_ids; /* [PIN_TENANTS] 0: free, else id + 1 */

    double       added_tokens; /* that a turn has beyond the turn before: moving mean */
    return_model returns;
    uint64_t     ticked_us; /* the price: seconds waited for memory, seconds pinned, both fading */
    double       waited_s, pinned_s;
} retainer;

typedef struct scheduler scheduler;

void retain_init(retainer *r, uint32_t job_count, carver *c);
void retain_start(retainer *r); /* once there is memory */

void retain_tick(scheduler *s);                     /* a plan begins */
void retain_arrived(scheduler *s, uint32_t index);  /* the sequence has its place in jobs */
void retain_admitted(scheduler *s, uint32_t index); /* it holds the pages that it found */
void retain_turn(scheduler *s, uint32_t index);     /* it has finished, and still has its pages */
bool retain_give_way(scheduler *s);                 /* lets go of one pin; false: there is none */
void retain_drop_all(scheduler *s);
bool retain_holds(const scheduler *s, uint32_t job); /* by its place; NO_JOB: no */
void retain_check(const scheduler *s);
