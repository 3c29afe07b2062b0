/* scheduler/jobs.h: requests that belong together: the turns of a conversation, the steps of an agent.
 *
 * A bounded table by the job's id. A job is *live* while one of its requests is waiting or running, and remembered
 * afterwards until its place is needed: then the one that has been idle longest goes. A job that finds no place, because
 * all are live, is not tracked (NO_JOB): its requests are then each on their own. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/id_map.h"
#include "scheduler/scheduler.h"

#define NO_JOB UINT32_MAX

typedef struct {
    uint64_t id, arrival, arrived_us; /* of its first request */
    uint32_t live, turns;             /* requests now; answers finished so far */
    uint32_t pinned_tokens;           /* of its last turn, kept for the next */
    uint64_t ended_us;                /* when its last request ended */
    uint32_t newer, older;            /* the idle ones, by when they became so */
} job;

typedef struct {
    uint32_t  count, used; /* places; those ever used */
    job      *all;         /* [count] */
    uint32_t *free;        /* stack of given back places, [free_count] */
    uint32_t  free_count;
    id_map    ids;
    uint32_t  oldest, newest; /* of the idle; NO_JOB */
} job_table;

void     jobs_init(job_table *t, uint32_t count, uint64_t seed, carver *c);
uint32_t jobs_find(const job_table *t, uint64_t id); /* NO_JOB: not remembered */
/* A request of the job came (id != 0): its index, or NO_JOB. Then, when the request ended: jobs_leave. */
uint32_t jobs_enter(job_table *t, uint64_t id, uint64_t arrival, uint64_t arrived_us);
void     jobs_leave(job_table *t, uint32_t index, uint64_t now_us, bool finished);
void     jobs_forget(job_table *t, uint32_t index); /* an idle one */
void     jobs_check(const job_table *t);
