#include "scheduler/waiting.h"

#include "base/error.h"

enum { CHILDREN = 4 };

void waiting_init(waiting_queue *w, uint32_t sequence_count, carver *c) {
    *w = (waiting_queue){.sequence_count = sequence_count};
    w->entries = carve(c, sequence_count, sizeof *w->entries);
    w->place = carve(c, sequence_count, sizeof *w->place);
    if (!c->memory) return;
    for (uint32_t i = 0; i < sequence_count; i++) w->place[i] = NOT_WAITING;
}

bool goes_before(const waiting_entry *a, const waiting_entry *b) {
    if (a->rank != b->rank) return a->rank < b->rank;
    if (a->key != b->key) return a->key < b->key;
    return a->arrival < b->arrival;
}

static void put(waiting_queue *w, uint32_t at, waiting_entry e) {
    w->entries[at] = e;
    w->place[e.sequence] = at;
}

static void sift_up(waiting_queue *w, uint32_t at, waiting_entry e) {
    while (at > 0 && goes_before(&e, &w->entries[(at - 1) / CHILDREN])) {
        put(w, at, w->entries[(at - 1) / CHILDREN]);
        at = (at - 1) / CHILDREN;
    }
    put(w, at, e);
}

static uint32_t first_child(const waiting_queue *w, uint32_t at) { /* 0: none */
    uint32_t begin = at * CHILDREN + 1, end = begin + CHILDREN < w->count ? begin + CHILDREN : w->count, best = begin;
    if (begin >= w->count) return 0;
    for (uint32_t i = begin + 1; i < end; i++)
        if (goes_before(&w->entries[i], &w->entries[best])) best = i;
    return best;
}

static void sift_down(waiting_queue *w, uint32_t at, waiting_entry e) {
    for (uint32_t child = first_child(w, at); child != 0; child = first_child(w, at)) {
        if (!goes_before(&w->entries[child], &e)) break;
        put(w, at, w->entries[child]);
        at = child;
    }
    put(w, at, e);
}

void waiting_add(waiting_queue *w, waiting_entry e) {
    check(e.sequence < w->sequence_count && w->place[e.sequence] == NOT_WAITING && w->count < w->sequence_count);
    sift_up(w, w->count++, e);
}

void waiting_remove(waiting_queue *w, uint32_t sequence) {
    check(sequence < w->sequence_count && w->place[sequence] < w->count);
    uint32_t      at = w->place[sequence];
    waiting_entry last = w->entries[--w->count];
    w->place[sequence] = NOT_WAITING;
    if (at == w->count) return;
    if (at > 0 && goes_before(&last, &w->entries[(at - 1) / CHILDREN])) sift_up(w, at, last);
    else sift_down(w, at, last);
}

const waiting_entry *waiting_first(const waiting_queue *w) { return w->count ? w->entries : NULL; }

void waiting_check(const waiting_queue *w) {
    uint32_t placed = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        check(w->entries[i].sequence < w->sequence_count && w->place[w->entries[i].sequence] == i);
        if (i > 0) check(goes_before(&w->entries[(i - 1) / CHILDREN], &w->entries[i]));
    }
    for (uint32_t i = 0; i < w->sequence_count; i++) placed += w->place[i] != NOT_WAITING;
    check(placed == w->count);
}
