/* scheduler/fair.h: who is served, and how much device time each has had: the outer layer of the order.
 *
 * Problem: an order compares requests, so whoever sends ten times as many, or claims tight deadlines for all of them, has
 * the machine. Choice: tenants take turns by virtual time, and the order chooses only among one tenant's requests. A
 * tenant's virtual time is the device time that its rows had, measured, over its weight; the one that is least far goes
 * first. So nothing is paid by estimate that could be claimed: prompt tokens found in the cache had no rows and cost
 * nothing; pages that are kept between requests pay rent, as if their part of the cache were that part of the device.
 *     What is measured comes late: a pass may let in several requests before the first of them has cost anything. So who is
 * let in *lends* the time that its prompt is predicted to take: it counts at the door at once, is paid back by what is
 * measured, and what the prediction was too much is given back when the prompt is done.
 *     The *clock* is how far those were whose turn it was last. Who begins to wait goes on from there, so nobody saves up,
 * neither by staying away nor by asking for less than its share; a weight is the share of who has it among those who
 * compete. Bound: among tenants with requests that wait, nobody is behind the clock by more than was given back to it
 * (fair_check); so of two that always have prompts to compute, neither gets ahead of the other by more than what it was let
 * in with last and one pass, over the smaller weight (tests/unit/test_fair.c). Answers that run are not turns: they go on.
 * Cost: a charge a row; once a pass the heap of those who wait is brought up to date, for those it worked for. Rent is
 * reckoned when pins begin and end, and of whoever stands first when it is asked who does.
 *
 * The table is bounded. A tenant is *live* while one of its requests waits or runs, or pages are kept for it, and remembered
 * afterwards until its place is needed; who finds all places live is counted with those who did not say who they are. It is
 * kept, and charged, whether or not turns are taken by it: the index of Jain, Chiu and Hawe tells how equal the shares are.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/heap.h"
#include "scheduler/jobs.h"

#define NOBODY 0u /* the tenant of all who did not say */

typedef struct {
    double   weight;
    uint64_t virtual_time;  /* 1/1024 us of device time at weight 1 */
    uint64_t lent;          /* virtual time of what it was let in with and has not had yet */
    double   owed_us;       /* charged since the last settling: device time, */
    double   rent_us;       /* and memory */
    uint32_t live;          /* its requests that wait or run */
    uint32_t pins;          /* kept for it between requests; */
    uint64_t pinned_pages;  /* their pages; those in several count in each */
    uint64_t rent_since_us; /* paid until then */
    /* how it fared while it had a prompt to compute */
    uint32_t standing; /* those prompts */
    uint64_t stands_since_us;
    double   stood_us, served_us;
    bool     touched;
} tenant;

typedef struct {
    bool      turns; /* tenants take turns; else `first` is not asked */
    uint32_t  count; /* places */
    uint32_t  page_count;
    tenant   *all;   /* [count] */
    job_table names; /* who has which place after the first: the same bounded memory as that of jobs */
    item_heap ready; /* those with requests that wait, by virtual time and what they were lent; only where turns are taken */
    uint32_t  live_count;
    uint64_t  clock;     /* how far whoever was let in was before it; never falls */
    uint64_t  lent_most; /* that anybody ever had at once */
    uint32_t *touched;   /* [count] */
    uint32_t  touched_count;
} tenant_table;

void     fair_init(tenant_table *t, bool turns, uint32_t count, uint32_t page_count, uint64_t seed, carver *c);
uint32_t fair_find(const tenant_table *t, uint64_t id); /* NOBODY: not remembered */
/* A request came: its tenant's place. Then, when it ended: fair_leave. `arrival`: its number. */
uint32_t fair_enter(tenant_table *t, uint64_t id, double weight, uint64_t arrival, uint64_t now_us);
void     fair_leave(tenant_table *t, uint32_t index, uint64_t now_us);
/* One more of its requests, or one less, has a prompt to compute: it waits or prefills. */
void fair_stand(tenant_table *t, uint32_t index, bool stands, uint64_t now_us);
/* Whether the tenant has requests that wait. */
void fair_wait(tenant_table *t, uint32_t index, bool waits, uint64_t now_us);

/* The tenant whose request goes first; NO_JOB: none waits. Right after fair_refresh, or if nobody pays rent. */
static inline uint32_t fair_first(const tenant_table *t) {
    const heap_entry *first = heap_first(&t->ready);
    return first ? first->item : NO_JOB;
}
void fair_refresh(tenant_table *t, uint64_t now_us);
/* A prompt of tenant a is computed before one of b, another; a request of `a` that waits is let in before that. */
static inline bool fair_before(const tenant_table *t, uint32_t a, bool a_waits, uint32_t b, bool b_waits) {
    const tenant  *of = t->all;
    const uint64_t x = of[a].virtual_time + (a_waits ? of[a].lent : 0), y = of[b].virtual_time + (b_waits ? of[b].lent : 0);
    return x != y ? x < y : a < b;
}

/* Its turn was taken: a request is let in whose prompt is predicted to take so long. Returns what it was lent, which
 * fair_charge pays back in part and fair_repay in whole. */
uint64_t fair_lend(tenant_table *t, uint32_t index, double us);
void     fair_repay(tenant_table *t, uint32_t index, uint64_t *lent);
/* Device time. Counts from fair_settle on, which is called once a pass. `lent`: of the request; NULL: it has none. */
void fair_charge(tenant_table *t, uint32_t index, double us, uint64_t *lent);
void fair_settle(tenant_table *t);
/* So many pages are kept for it from now on; no longer. It is live meanwhile, and when it begins. */
void fair_pin(tenant_table *t, uint32_t index, uint32_t pages, uint64_t now_us);
void fair_unpin(tenant_table *t, uint32_t index, uint32_t pages, uint64_t now_us);

/* 1: everybody's device time per second of having prompts to compute, over its weight, was equal; 1/n: one of n had all. 1
 * for nobody. */
double fair_jain(const tenant_table *t, uint64_t now_us);
void   fair_check(const tenant_table *t);
