#include "scheduler/order.h"

/* First come, first served. With no bypass at admission this bounds waiting: every pass that runs to its end takes the
 * earliest running request on, by one token if it decodes, else by its next slice (at least one row, as much as the pass
 * has room for), and nobody who came later runs before a request has been admitted. So a request is admitted after at most
 *
 *     sum over the requests ahead of it of (slices of its prompt + its output tokens)
 *
 * completed passes, plus those slices again for every time memory is taken back from one of them. */
static order_rank fcfs_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    (void)c, (void)now_us;
    return (order_rank){.key = q->arrival, .until_us = RANK_HOLDS};
}

const order_api order_fcfs = {fcfs_rank};
