/* kernels/cpu/pool.h: a few threads that share loops, and sleep when there are none.
 *
 * An operator is a loop over independent tasks, a few microseconds to a few milliseconds in all, a hundred times per pass.
 * So fork and join must cost less than a microsecond when loops follow each other, and nothing when the engine is idle:
 * a worker that finds no loop spins for some tens of microseconds, then sleeps on a futex. Tasks are taken one at a time
 * from a counter, the caller takes its share, and the join waits for tasks, not for threads: a worker that the kernel has
 * put aside delays nobody. Results must not depend on who runs which task. */
#pragma once
#include <stdint.h>

typedef struct pool pool;
typedef void (*pool_task)(void *context, uint32_t task, uint32_t worker); /* worker < pool_threads, 0 is the caller */

pool    *pool_new(uint32_t threads); /* the caller included; 0: as many as this process may use */
void     pool_free(pool *p);
uint32_t pool_threads(const pool *p);
uint32_t pool_threads_allowed(void); /* CPUs this process may use */
/* Runs task 0 .. count - 1, started in that order, and returns when all are done. One caller at a time. */
void pool_run(pool *p, uint32_t count, pool_task run, void *context);

/* Where a loop is made of `count` pieces and piece i has the tasks from begin[i] on: the piece a task belongs to. */
static inline uint32_t pool_piece(const uint32_t *begin, uint32_t count, uint32_t task) {
    uint32_t low = 0, high = count;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (begin[middle] <= task) low = middle;
        else high = middle;
    }
    return low;
}
