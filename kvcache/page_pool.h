/* kvcache/page_pool.h: pages as numbers, and how many hold each of them.
 *
 * A page is in one of three states: free (on the stack here), kept (nobody holds it, but its content is in the prefix
 * index: see retention.h), or held by one or more. This file counts holders and stacks free pages; kvcache.c moves pages
 * between the three. Page 0 is taken first, and the page freed last is taken next (its bytes are warm). */
#pragma once
#include <stdint.h>

#include "base/carve.h"

#define NO_PAGE UINT32_MAX

typedef struct {
    uint32_t  page_count, free_count;
    uint32_t *free_pages; /* [free_count] of [page_count]; the top is taken next */
    uint32_t *holders;    /* [page_count] */
} page_pool;

void     page_pool_init(page_pool *p, uint32_t page_count, carver *c); /* only adds up where the carver has no memory */
uint32_t page_pool_take(page_pool *p);                           /* a free page, now held once; NO_PAGE: none is free */
void     page_pool_give(page_pool *p, uint32_t page);            /* a page without holders becomes free */
void     page_pool_check(const page_pool *p, uint32_t *scratch); /* scratch: [page_count], overwritten */
