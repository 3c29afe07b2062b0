#include "scheduler/policy.h"

/* First come, first served. With no bypass at admission this bounds waiting: every pass that runs to its end takes the
 * earliest running request on, by one token if it decodes, else by its next slice (at least one row, as much as the pass
 * has room for), and nobody who came later runs before a request has been admitted. So a request is admitted after at most
 *
 *     sum over the requests ahead of it of (slices of its prompt + its output tokens)
 *
 * completed passes, plus those slices again for every time memory is taken back from one of them. */
static uint64_t fcfs_key(const order_view *q, uint64_t now_us) {
    (void)now_us;
    return q->arrival;
}

const order_api order_fcfs = {"fcfs", fcfs_key};
