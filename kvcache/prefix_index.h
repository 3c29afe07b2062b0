/* kvcache/prefix_index.h: finds the page that already holds the keys and values of these tokens after that prefix.
 *
 * Problem: a page's content depends on every token before it, so "the same 16 tokens" is not enough.
 * Choice: a page is known by (the page before it, the salt, its own tokens). It is found through a chained 128-bit hash of
 * those and then compared for real, which is exact for the whole prefix by induction over the page before: a collision
 * of hashes costs a probe, never a wrong answer. Requests with different salts never share.
 * Cost: 4 bytes per token and 56 to 72 per page; a lookup hashes one page and probes an open-addressing table at most half
 * full. A place of it carries a part of the hash, so that a page is looked at only where it is nearly sure to be the one: in
 * a pool of many pages each look is a cache miss, and most lookups of a page that was filled just now find nothing.
 *
 * A page may only be removed when no page that follows it is indexed (a chain loses its tail first), so the page before
 * an indexed page is always indexed too. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"
#include "base/hash.h"
#include "kvcache/page_pool.h"

typedef struct {
    hash128  hash;
    uint64_t salt;
    uint32_t parent;   /* page before it; NO_PAGE for the first of a chain */
    uint32_t children; /* indexed pages that name this one as parent */
    bool     indexed;
} prefix_page;

typedef struct {
    uint32_t page; /* + 1; 0: empty */
    uint32_t tag;  /* of its hash; the low bits of it are where the place would be */
} prefix_place;

typedef struct {
    uint32_t      page_count, page_tokens, mask;
    uint32_t      indexed_count;
    uint64_t      seed;
    prefix_place *table;  /* [mask + 1] */
    prefix_page  *pages;  /* [page_count] */
    uint32_t     *tokens; /* [page_count][page_tokens] */
} prefix_index;

/* One page worth of content, ready to be looked up. */
typedef struct {
    hash128         hash;
    uint64_t        salt;
    uint32_t        parent;
    const uint32_t *tokens; /* [page_tokens], the caller's */
} prefix_key;

void prefix_index_init(prefix_index *x, uint32_t page_count, uint32_t page_tokens, uint64_t seed, carver *c);

prefix_key prefix_key_of(const prefix_index *x, uint32_t parent, uint64_t salt, const uint32_t *tokens);
uint32_t   prefix_find(const prefix_index *x, const prefix_key *k);   /* the page with this content, or NO_PAGE */
void prefix_add(prefix_index *x, const prefix_key *k, uint32_t page); /* copies the tokens; the content is not there yet */
void prefix_remove(prefix_index *x, uint32_t page);                   /* a page without children */

static inline bool prefix_is_indexed(const prefix_index *x, uint32_t page) { return x->pages[page].indexed; }

void prefix_index_check(const prefix_index *x, uint32_t *scratch); /* scratch: [page_count], overwritten */
