/* scheduler/fair.h: who is served, and how much device time each has had: the outer layer of the order.
 *
 * Problem: an order compares requests, so whoever sends ten times as many, or claims tight deadlines for all of them, has
 * the machine. Choice: tenants take turns by virtual time, and the order chooses only among one tenant's requests. A
 * tenant's virtual time is the device time that its rows had, measured, over its weight; the one that is least far goes
 * first. So nothing is estimated that could be claimed: prompt tokens found in the cache had no rows and cost nothing,
 * memory that is kept between requests pays rent (fair_rent). Who comes back after a pause goes on from where the least of
 * the others is, so that nobody saves up; a weight is the share of who has it among those who compete.
 * Bound: while two tenants both have work that can run, the difference between their virtual times grows by at most one
 * pass over the smaller weight: the pass that was planned when they were even.
 * Cost: a charge a row; once a pass, two heaps of tenants are brought up to date, for those it worked for.
 *
 * The table is bounded. A tenant is *live* while one of its requests waits or runs, and remembered afterwards until its
 * place is needed; who finds all places live is counted with those who did not say who they are. It is kept, and charged,
 * whether or not turns are taken by it: the index of Jain, Chiu and Hawe tells how equal the shares are. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/heap.h"
#include "scheduler/jobs.h"

#define NOBODY 0u /* the tenant of all who did not say */

typedef struct {
    double   weight;
    uint64_t virtual_time;           /* 1/1024 us of device time at weight 1 */
    double   owed_us;                /* charged since the last settling */
    double   service_us, live_us;    /* device time, and how long it was live until it last became so */
    uint64_t live_since_us;
    uint32_t live;                   /* its requests that wait or run */
    bool     touched;
} tenant;

typedef struct {
    bool      turns; /* tenants take turns; else `first` is not asked */
    uint32_t  count; /* places */
    tenant   *all;   /* [count] */
    job_table names; /* who has which place after the first: the same bounded memory as that of jobs */
    item_heap live;  /* by virtual time */
    item_heap ready; /* those with requests that wait; only where turns are taken */
    uint64_t  virtual_time; /* of the least live one, never falling */
    uint32_t *touched;      /* [count] */
    uint32_t  touched_count;
} tenant_table;

void     fair_init(tenant_table *t, bool turns, uint32_t count, uint64_t seed, carver *c);
uint32_t fair_find(const tenant_table *t, uint64_t id); /* NOBODY: not remembered */
/* A request came: its tenant's place. Then, when it ended: fair_leave. `arrival`: its number. */
uint32_t fair_enter(tenant_table *t, uint64_t id, double weight, uint64_t arrival, uint64_t now_us);
void     fair_leave(tenant_table *t, uint32_t index, uint64_t now_us);
/* Whether the tenant has requests that wait. */
void fair_wait(tenant_table *t, uint32_t index, bool waits);
/* The tenant whose request goes first; NO_ITEM: none waits. */
static inline uint32_t fair_first(const tenant_table *t) {
    const heap_entry *first = heap_first(&t->ready);
    return first ? first->item : NO_SEQUENCE;
}
/* Does a request of tenant a go before one of b, another? */
static inline bool fair_before(const tenant_table *t, uint32_t a, uint32_t b) {
    const uint64_t x = t->all[a].virtual_time, y = t->all[b].virtual_time;
    return x != y ? x < y : a < b;
}

/* Device time, and memory kept beyond its requests: pages of page_count for that long, as if it were the device. Charges
 * count from fair_settle on, which is called once a pass. */
void fair_charge(tenant_table *t, uint32_t index, double us);
void fair_rent(tenant_table *t, uint32_t index, uint32_t pages, uint32_t page_count, uint64_t us);
void fair_settle(tenant_table *t);

/* 1: everybody's device time per second of being live, over its weight, was equal; 1/n: one of n had all. 1 for nobody. */
double fair_jain(const tenant_table *t, uint64_t now_us);
void   fair_check(const tenant_table *t);
