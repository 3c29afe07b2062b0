/* kvcache/retention.h: which of the pages that nobody holds is given up first.
 *
 * One of the scheduler's five axes: a small table of functions over the kept pages (unheld, content in the prefix index).
 * A policy is told when a page becomes kept and when it is held again or removed, and names a victim when asked. It never
 * sees held pages, so it cannot evict running work, nor what is pinned. It must name a page without children (a chain loses
 * its tail first); `keep` is called tail first within a chain, and a page is never kept while a page after it is held.
 *
 * lru        gives up the page that was let go longest ago
 * workflow   gives up the page of the highest score: how long ago it was let go, against the one let go longest ago, and its
 *            *grade*: how little the one who let it go thinks it will be wanted. A page's grade is at most that of the kept
 *            pages after it, so a tail scores at least as high as what leads to it. Pages are listed by grade, each list in
 *            the order of letting go: only the heads are compared. */
#pragma once
#include <stdint.h>

#include "base/carve.h"
#include "kvcache/page_pool.h"

enum { GRADES = 16, GRADE_UNKNOWN = GRADES / 2 };

/* Lists of kept pages, the first to give up of each at its head, and when each was kept (a count, not a clock). */
typedef struct {
    uint32_t  page_count, kept_count, heads[GRADES], tails[GRADES];
    uint64_t  turn;
    uint8_t   grade;           /* of what is let go now */
    uint32_t *next, *previous; /* [page_count] */
    uint64_t *kept_at;         /* [page_count] turn; 0: not kept */
    uint8_t  *grades;          /* [page_count] of a kept page: its list */
    uint8_t  *most;            /* [page_count] the grade it may have, by the pages after it */
} kept_pages;

typedef struct {
    const char *name;
    void (*keep)(kept_pages *k, uint32_t page, uint32_t before); /* before: the page before it, or NO_PAGE */
    void (*remove)(kept_pages *k, uint32_t page);
    uint32_t (*victim)(const kept_pages *k); /* NO_PAGE: nothing is kept */
} retention_api;

extern const retention_api retention_lru, retention_workflow;

void kept_pages_init(kept_pages *k, uint32_t page_count, carver *c);
void kept_pages_start(kept_pages *k);               /* once there is memory */
void kept_pages_tail(kept_pages *k, uint32_t page); /* no indexed page is after it any more */
void kept_pages_check(const kept_pages *k);
