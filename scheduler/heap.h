/* scheduler/heap.h: items by number, the first in order on top: who waits, by rank; what is due, by time.
 *
 * A 4-ary heap with the keys inside its entries (one cache line holds the children that a step compares), and the place of
 * every item kept beside it, so that a cancelled request leaves without a search. Ties must be broken by the caller: no
 * two entries may be equal in class, key and tie. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"

#define NOT_IN_HEAP UINT32_MAX

typedef struct {
    uint32_t class, item; /* item < item_count */
    uint64_t key, tie;    /* the lower class goes first, then the lower key, then the lower tie */
} heap_entry;

typedef struct {
    uint32_t    count, item_count;
    heap_entry *entries; /* [item_count] */
    uint32_t   *place;   /* [item_count] in entries, or NOT_IN_HEAP */
} item_heap;

void                            heap_init(item_heap *h, uint32_t item_count, carver *c);
void                            heap_add(item_heap *h, heap_entry e);
void                            heap_remove(item_heap *h, uint32_t item);
static inline bool              heap_holds(const item_heap *h, uint32_t item) { return h->place[item] != NOT_IN_HEAP; }
static inline const heap_entry *heap_first(const item_heap *h) { return h->count ? h->entries : NULL; } /* NULL: empty */
bool                            heap_before(const heap_entry *a, const heap_entry *b);
void                            heap_check(const item_heap *h);
