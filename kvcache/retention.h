/* kvcache/retention.h: which of the pages that nobody holds is given up first.
 *
 * One of the scheduler's five axes: a small table of functions over the kept pages (unheld, content in the prefix index).
 * A policy is told when a page becomes kept and when it is held again or removed, and names a victim when asked. It never
 * sees held pages, so it cannot evict running work. It must name a page without children (a chain loses its tail first);
 * `keep` is called tail first within a chain, and a page is never kept while a page after it is held, so a policy that
 * gives pages up in the order in which they came gets that for nothing.
 *
 * lru: gives up the page that was let go longest ago. */
#pragma once
#include <stdint.h>

#include "base/carve.h"
#include "kvcache/page_pool.h"

/* A list of kept pages, the first to give up at the head, and when each was kept (a count, not a clock). */
typedef struct {
    uint32_t  page_count, kept_count, head, tail;
    uint64_t  turn;
    uint32_t *next, *previous; /* [page_count] */
    uint64_t *kept_at;         /* [page_count] turn; 0: not kept */
} kept_pages;

typedef struct {
    const char *name;
    void (*keep)(kept_pages *k, uint32_t page);
    void (*remove)(kept_pages *k, uint32_t page);
    uint32_t (*victim)(const kept_pages *k); /* NO_PAGE: nothing is kept */
} retention_api;

extern const retention_api retention_lru;

void kept_pages_init(kept_pages *k, uint32_t page_count, carver *c);
void kept_pages_check(const kept_pages *k);
