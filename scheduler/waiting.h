/* scheduler/waiting.h: the requests that wait, the first to go on top.
 *
 * A 4-ary heap with the keys inside its entries (one cache line holds the children that a step compares), and the place of
 * every sequence kept beside it, so that a cancelled request leaves without a search. First come the ones that ran before
 * and lost their memory (`rank` 0), then by the order policy's key, then by arrival: never a tie. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"

#define NOT_WAITING UINT32_MAX

typedef struct {
    uint32_t rank;     /* 0: comes back, 1: new */
    uint32_t sequence; /* index, < sequence_count */
    uint64_t key;      /* of the order policy; lower goes first */
    uint64_t arrival;  /* unique */
} waiting_entry;

typedef struct {
    uint32_t       count, sequence_count;
    waiting_entry *entries; /* [sequence_count] */
    uint32_t      *place;   /* [sequence_count] in entries, or NOT_WAITING */
} waiting_queue;

void                 waiting_init(waiting_queue *w, uint32_t sequence_count, carver *c);
void                 waiting_add(waiting_queue *w, waiting_entry e);
void                 waiting_remove(waiting_queue *w, uint32_t sequence);
const waiting_entry *waiting_first(const waiting_queue *w); /* NULL: nobody waits */
bool                 goes_before(const waiting_entry *a, const waiting_entry *b);
void                 waiting_check(const waiting_queue *w);
