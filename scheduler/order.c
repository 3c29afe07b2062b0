/* scheduler/order.c: the orders that go by who came when. None of them asks a model, and none is asked twice about the same
 * request unless its memory was taken back. */
#include "scheduler/order.h"

/* First come, first served. With no bypass at admission this bounds waiting: every pass that runs to its end takes the
 * earliest running request on, by one token if it decodes, else by its next slice (at least one row, as much as the pass
 * has room for), and nobody who came later runs before a request has been admitted. So a request is admitted after at most
 *
 *     sum over the requests ahead of it of (slices of its prompt + its output tokens)
 *
 * completed passes, plus those slices again for every time memory is taken back from one of them. Who lost its memory came
 * before everybody who still waits, so it has it back first. */
static order_rank fcfs_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    (void)c, (void)now_us;
    return (order_rank){.key = q->arrival, .until_us = RANK_HOLDS};
}

/* Priority with ageing. A level is worth a wait of age_ms: who came so much earlier goes before who is one level better.
 * Because everybody ages alike, this is a number that never changes: the time at which a request of the best level would
 * have had to come to stand here. Bound: a request is passed only by those that come within
 * (its level - the best level) x age_ms after it; from then on it is first come, first served. Who lost its memory comes
 * back by its priority and the time it first came. */
enum { AGE_MS = 30000 };

uint64_t order_level_us(const scheduler_config *c) { return (uint64_t)(c->order.age_ms ? c->order.age_ms : AGE_MS) * 1000; }

static order_rank priority_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    (void)now_us;
    const uint64_t level = (uint64_t)((int64_t)q->request->priority - INT32_MIN);
    const uint64_t age_us = order_level_us(c);
    uint64_t       key;
    if (__builtin_mul_overflow(level, age_us, &key) || __builtin_add_overflow(key, q->arrived_us, &key)) key = UINT64_MAX;
    return (order_rank){.key = key, .until_us = RANK_HOLDS};
}

/* Jobs: the turns of a conversation, the steps of an agent. A job waits at each of its turns, so what counts is not when a
 * turn came but when its job did: the earliest job first. Before all others goes who lost its memory, then who comes back to
 * what was kept for it: it needs little, and memory that waits for it is of use to nobody else. Requests of no job are jobs
 * of one turn. A job of ever more turns could pass others for ever, so there are elders. */
enum { JOB_LOST_MEMORY, JOB_PINNED, JOB_OTHERS };

static order_rank job_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    (void)c, (void)now_us;
    return (order_rank){.class = q->returning    ? JOB_LOST_MEMORY
                                 : q->job_pinned ? JOB_PINNED
                                                 : JOB_OTHERS,
                        .key = q->job_arrival,
                        .until_us = RANK_HOLDS};
}

const order_api order_fcfs = {fcfs_rank, .bounded = true};
const order_api order_priority = {priority_rank, .bounded = true};
const order_api order_job = {job_rank, .bounded = false};
