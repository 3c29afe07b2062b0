#include "scheduler/heap.h"

#include "base/error.h"

enum { CHILDREN = 4 };

void heap_init(item_heap *h, uint32_t item_count, carver *c) {
    *h = (item_heap){.item_count = item_count};
    h->entries = carve(c, item_count, sizeof *h->entries);
    h->place = carve(c, item_count, sizeof *h->place);
    if (!c->memory) return;
    for (uint32_t i = 0; i < item_count; i++) h->place[i] = NOT_IN_HEAP;
}

bool heap_before(const heap_entry *a, const heap_entry *b) {
    if (a->class != b->class) return a->class < b->class;
    if (a->key != b->key) return a->key < b->key;
    return a->tie < b->tie;
}

static void put(item_heap *h, uint32_t at, heap_entry e) {
    h->entries[at] = e;
    h->place[e.item] = at;
}

static void sift_up(item_heap *h, uint32_t at, heap_entry e) {
    while (at > 0 && heap_before(&e, &h->entries[(at - 1) / CHILDREN])) {
        put(h, at, h->entries[(at - 1) / CHILDREN]);
        at = (at - 1) / CHILDREN;
    }
    put(h, at, e);
}

static uint32_t first_child(const item_heap *h, uint32_t at) { /* 0: none */
    uint32_t begin = at * CHILDREN + 1, end = begin + CHILDREN < h->count ? begin + CHILDREN : h->count, best = begin;
    if (begin >= h->count) return 0;
    for (uint32_t i = begin + 1; i < end; i++)
        if (heap_before(&h->entries[i], &h->entries[best])) best = i;
    return best;
}

static void sift_down(item_heap *h, uint32_t at, heap_entry e) {
    for (uint32_t child = first_child(h, at); child != 0; child = first_child(h, at)) {
        if (!heap_before(&h->entries[child], &e)) break;
        put(h, at, h->entries[child]);
        at = child;
    }
    put(h, at, e);
}

void heap_add(item_heap *h, heap_entry e) {
    check(e.item < h->item_count && h->place[e.item] == NOT_IN_HEAP && h->count < h->item_count);
    sift_up(h, h->count++, e);
}

void heap_remove(item_heap *h, uint32_t item) {
    check(item < h->item_count && h->place[item] < h->count);
    uint32_t   at = h->place[item];
    heap_entry last = h->entries[--h->count];
    h->place[item] = NOT_IN_HEAP;
    if (at == h->count) return;
    if (at > 0 && heap_before(&last, &h->entries[(at - 1) / CHILDREN])) sift_up(h, at, last);
    else sift_down(h, at, last);
}

void heap_check(const item_heap *h) {
    uint32_t placed = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        check(h->entries[i].item < h->item_count && h->place[h->entries[i].item] == i);
        if (i > 0) check(heap_before(&h->entries[(i - 1) / CHILDREN], &h->entries[i]));
    }
    for (uint32_t i = 0; i < h->item_count; i++) placed += h->place[i] != NOT_IN_HEAP;
    check(placed == h->count);
}
