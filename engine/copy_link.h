/* engine/copy_link.h: the link between a modelled device and host memory: when is each copy of a page over?
 *
 * Problem: scheduler/swap.h queues copies and promises three things of who performs them: each direction goes at the speed
 * of the link whatever the other does, copies overlap with passes, and those that touch the same page (of the device or of
 * the host) take effect in order of id. Choice: all of that is known when a copy is queued. It begins when the one before it
 * in its direction is over, and all earlier ones that touch either of its pages are; it takes what a page takes. So nothing
 * is simulated between events: there are only ends, rising in each direction. Cost: two words a page; a few operations a
 * copy. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kvcache/page_copy.h"

typedef struct {
    uint64_t id, end_ns;
} link_copy;

typedef struct {
    link_copy *copies; /* under way: [first, count), of rising id and end */
    size_t     first, count, capacity;
    uint64_t   end_ns; /* of the last that was queued */
} link_lane;

typedef struct {
    uint64_t  page_ns;               /* of one copy */
    link_lane lanes[2];              /* in, out */
    uint64_t *page_ends, *host_ends; /* in ns: of the last copy that touches the page */
} copy_link;

#define LINK_IDLE UINT64_MAX

void copy_link_open(copy_link *l, uint64_t page_ns, uint32_t page_count, uint32_t host_pages);
void copy_link_close(copy_link *l);

void     copy_link_queue(copy_link *l, uint64_t now_us, const page_copy *copies, uint32_t count);
uint64_t copy_link_end_us(const copy_link *l, uint64_t id); /* when it will be over; 0: it is not under way */
uint64_t copy_link_next_us(const copy_link *l);             /* when the next one will be; LINK_IDLE: none is under way */
uint64_t copy_link_take(copy_link *l, uint64_t now_us);     /* the id of one that is over by now, the earliest; 0: none */
