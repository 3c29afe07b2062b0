/* scheduler/forest.h: many queues over one set of items: each tenant's, by rank.
 *
 * Leftist trees: an item has at most two children, both after it in order, and the way down to the right is the shortest
 * (at most log2 of the items). Two trees merge along these ways; so adding, and removing any item, costs O(log n) steps in
 * the worst case, a queue is nothing but the number of its first item, and how many queues there are costs nothing. */
#pragma once
#include "scheduler/heap.h"

#define NO_ITEM UINT32_MAX

typedef struct {
    heap_entry entry;
    uint32_t   left, right, parent; /* NO_ITEM */
    uint32_t   way;                 /* items down to the right, itself included; 0: in no queue */
} forest_node;

typedef struct {
    uint32_t     item_count;
    forest_node *nodes; /* [item_count] */
} item_forest;

void forest_init(item_forest *f, uint32_t item_count, carver *c);
/* `*first` is the queue: its first item, NO_ITEM if it is empty. */
void               forest_add(item_forest *f, uint32_t *first, heap_entry e);
void               forest_remove(item_forest *f, uint32_t *first, uint32_t item);
static inline bool forest_holds(const item_forest *f, uint32_t item) { return f->nodes[item].way > 0; }
uint32_t           forest_check(const item_forest *f, uint32_t first); /* walks the queue; how many it holds */
