/* scheduler/reclaim.h: how is memory taken back from running work?
 *
 * From whom is the order's matter, whatever the policy: from whoever goes last of those who run (reclaim_victim). The policy
 * says what becomes of the pages: computed again, or copied out to host memory and back (swap.h). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/config.h"

/* What a sequence that loses its memory, or comes back to copies of it, would have copied, against computing it. */
typedef struct {
    uint32_t pages_out, pages_in;
    double   copy_us, queue_us; /* of one page; until the copies that are queued are done */
    uint64_t compute_us;        /* the same tokens, as predicted; 0: unknown yet */
} swap_view;

typedef struct {
    bool (*swaps)(const swap_view *v); /* NULL: never */
} reclaim_api;

extern const reclaim_api reclaim_recompute, reclaim_swap, reclaim_auto;

typedef struct scheduler scheduler;

/* Of those who run, who goes last; never the same one twice in a row. At least two run. */
uint32_t reclaim_victim(const scheduler *s);
/* Who gives its place to `index`, which waits: the last of those who run, if it is a level of priority behind; NO_SEQUENCE:
 * nobody. `pages`: of all who are. */
uint32_t reclaim_displaced(const scheduler *s, uint32_t index, uint64_t *pages);
