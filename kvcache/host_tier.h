/* kvcache/host_tier.h: which pages of host memory hold copies of which pages of keys and values. Numbers only: what is
 * copied, and when, is the scheduler's (scheduler/swap.c).
 *
 * Problem: a page whose sequence lost its memory costs a copy now or a computation later, and the same content is taken back
 * again and again: the same sequence, its next turn, others with its prefix.
 * Choice: only full pages whose tokens crossed all operators are ever copied. Such a page never changes, so a copy stays
 * *clean* as long as it exists, whoever holds the content; there is nothing dirty to track. Copies are found by content, by
 * the same index as pages of the device (prefix_index.h), so what several share is copied once.
 *     A sequence that waits for its memory *holds* its chain of host pages, from the first to a tail; what nobody holds
 * stays until its place is needed, the longest unheld first, tails first.
 *
 *     EMPTY ──copy begins──▶ ARRIVING ──arrived──▶ CLEAN        EMPTY again where the copy failed
 *
 * Invariants (host_tier_check): free + kept + held = all; whoever holds a page holds all before it; kept pages are exactly
 * the indexed ones that nobody holds; a page is ARRIVING exactly while the copy that fills it is named. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kvcache/kvcache.h"
#include "kvcache/prefix_index.h"

typedef enum { HOST_EMPTY, HOST_ARRIVING, HOST_CLEAN } host_state;

typedef struct {
    page_pool    pool;
    prefix_index index;
    kept_pages   kept;
    uint8_t     *states;    /* [page_count] host_state */
    uint64_t    *filled_by; /* [page_count] the copy in flight that fills it; 0: none */
    uint32_t    *scratch;   /* [page_count], of the check */
} host_tier;

void host_tier_init(host_tier *h, uint32_t page_count, uint32_t page_tokens, uint64_t seed, carver *c);
void host_tier_start(host_tier *h); /* once there is memory */

/* The host page of the content's page number `place`, after `parent`, the host page of the one before (NO_PAGE: the first);
 * NO_PAGE: there is none. Its state may be any. */
uint32_t host_tier_find(const host_tier *h, uint32_t parent, const kv_content *of, uint32_t place);
/* The same, made where there is none, and held. NO_PAGE: all others are held. */
uint32_t host_tier_take(host_tier *h, uint32_t parent, const kv_content *of, uint32_t place);
void     host_tier_hold(host_tier *h, uint32_t page);    /* whose parent the caller holds, or has just taken */
void     host_tier_let_go(host_tier *h, uint32_t page);  /* of it alone: nothing after it is held by the caller */
void     host_tier_release(host_tier *h, uint32_t tail); /* of it and all before it; NO_PAGE: nothing */
void     host_tier_drop(host_tier *h);                   /* forgets every page that nobody holds */

void host_tier_fill(host_tier *h, uint32_t page, uint64_t copy);            /* EMPTY: the copy began */
void host_tier_filled(host_tier *h, uint32_t page, uint64_t copy, bool ok); /* nothing where the page was given up since */

static inline host_state host_tier_state(const host_tier *h, uint32_t page) { return (host_state)h->states[page]; }
static inline uint32_t   host_tier_before(const host_tier *h, uint32_t page) { return h->index.pages[page].parent; }
static inline uint32_t   host_tier_used(const host_tier *h) { return h->index.indexed_count; }
static inline uint32_t   host_tier_held(const host_tier *h) { return h->index.indexed_count - h->kept.kept_count; }

/* held_by[page]: how many chains the page is in, as the caller counts them. */
void host_tier_check(const host_tier *h, const uint32_t *held_by);
