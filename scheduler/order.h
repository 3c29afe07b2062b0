/* scheduler/order.h: who goes first?
 *
 * An order ranks one request at a time and never looks at pages. Its answer holds until something happened to the request
 * (it came, it was taken back, it was given a row) or until a time that the answer itself names: a deadline that can no
 * longer be met, an age that lifts it. Those times are kept in a heap, and a plan ranks anew only what is due, at most
 * RANKED_MAX of them; who is left over is next in the plan after that. So ten thousand waiting requests cost nothing while
 * nothing changes. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/length_model.h"
#include "scheduler/scheduler.h"
#include "scheduler/step_model.h"

enum { RANKED_MAX = 32 }; /* a plan */
/* For each that goes first by age so many may pass who stood in line for longer, and so many times its device time; but no
 * more than that many, however little they take. line.c */
enum { ELDER_EVERY = 8, ELDER_MOST = 64 };
#define RANK_HOLDS UINT64_MAX /* until something happens to the request */

typedef struct {
    uint32_t class;    /* lower goes first */
    uint64_t key;      /* within a class lower goes first; then the earlier arrival */
    uint64_t until_us; /* ask again then; RANK_HOLDS: no time changes it */
} order_rank;

typedef struct {
    const scheduler_request *request;
    uint64_t                 arrival;     /* its number, from 1 */
    uint64_t                 arrived_us;  /* SLOs count from it */
    uint64_t                 job_arrival; /* the number of its job's first request; its own where it has no job */
    uint64_t                 job_end_us;  /* by when the job's last answer is wanted; UINT64_MAX: not said */
    uint32_t job_done, job_left; /* where it is: turns answered; that are left, this one included, as far as known */
    bool     job_pinned;         /* what its job's last turn left is kept for it */
    uint32_t known_tokens;
    uint32_t done_tokens;        /* of those, crossed all operators; 0 while waiting */
    bool     running, returning; /* returning: it ran, and its memory was taken back */
    uint64_t service_us;         /* device time it has had */
    const step_model *steps;
    length_model     *lengths;
} order_view;

typedef struct {
    order_rank (*rank)(const scheduler_config *c, const order_view *q, uint64_t now_us);
    bool bounded; /* passes nobody for ever by itself; else line.c lets one in nine go first by age */
} order_api;

uint64_t order_level_us(const scheduler_config *c); /* priority: how long a wait a level is worth */

/* What is predicted, in device time if nobody else ran; 0: unknown yet. */
uint64_t order_prefill_us(const scheduler_config *c, const order_view *q); /* the rest of its prompt */
uint64_t order_decode_us(const order_view *q, double quantile);            /* the rest of its answer */

extern const order_api order_fcfs, order_priority, order_job;     /* order.c: by who came when */
extern const order_api order_deadline, order_srpt, order_goodput; /* order_time.c: by what is predicted */
