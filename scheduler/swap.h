/* scheduler/swap.h: copies of pages to host memory and back.
 *
 * Problem: who lost its memory computes all of it again. Copying it out and back is cheaper where bandwidth is good, but the
 * pages are wanted now, by others, and nobody should wait for a copy.
 * Choice: whose memory is taken back gives all its pages at once, as without copies; its full pages are queued to be copied
 * out, tail first, which is the order in which they are given to others. A page may be given to others while its copy is in
 * flight: the pass that first writes it says so (plan.waits_for), and the device lets that pass alone wait. Copies therefore
 * overlap with passes, no page is ever neither free nor somebody's, and a cancelled sequence leaves at once. What does not
 * fill a page, or does not fit the queue or host memory, is computed again.
 *     The way back: whoever is admitted takes first what the device's cache still holds, then what the host's does
 * (kvcache/host_tier.h). Its pages are reserved and it runs, but has no row until the last copy has arrived. A copy that
 * failed ends what is found there; the rest is computed.
 *
 * Order: a device performs copies that touch the same page, or the same host page, in order of id, and each of them after
 * the passes before its plan. So neither side's pages need a state for "in flight"; only who waits for a copy is kept. Cost:
 * a sequence that is taken back, and each that is admitted, looks up its full pages by content; a plan that writes while
 * copies are in flight looks at each page written. */
#pragma once
#include "kvcache/host_tier.h"
#include "scheduler/scheduler.h"

typedef struct {
    page_copy copy;            /* id 0: the place is free */
    uint32_t  sequence, place; /* in: for whom, and which of its pages */
    uint64_t  arrival, queued_us;
} copy_record;

typedef struct {
    host_tier host;
    uint32_t  copies_max, open_count, arriving, swapped; /* copies in flight; sequences that wait for them; that wait in
                                                            line and hold host pages */
    uint64_t     last_id;
    copy_record *records; /* [copies_max] by id % copies_max */
    uint32_t     planned_count;
    page_copy   *planned;     /* [copies_max] since the plan began */
    uint64_t    *touched_by;  /* [page_count] the newest copy in flight that touches the page; 0: none */
    uint32_t    *held_by;     /* [host_pages], of the check */
    double       copy_us;     /* of a page, moving mean */
    uint64_t     reported_us; /* when the last copy was */
} swapper;

void swap_init(swapper *w, const scheduler_config *c, carver *m);
void swap_start(swapper *w, const scheduler_config *c);

void swap_begin_plan(scheduler *s);
void swap_out(scheduler *s, uint32_t index);                        /* it runs, and its pages are taken next */
void swap_in(scheduler *s, uint32_t index, uint32_t cached_tokens); /* it was admitted, and has its pages */
void swap_forget(scheduler *s, uint32_t index);                     /* it waits no more: lets go of its host pages */
void swap_stop(scheduler *s, uint32_t index);                       /* it runs no more: copies for it are nobody's */
void swap_drop(scheduler *s);                                       /* what nobody waits for */
/* The newest copy in flight that touches a page of these positions; 0: none. */
uint64_t swap_touches(const scheduler *s, uint32_t slot, uint32_t token_begin, uint32_t token_end);
void     swap_check(const scheduler *s);
