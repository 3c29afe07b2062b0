/* kvcache/kvcache.h: who holds which page of keys and values. Numbers only: no device, no clock, no meaning of tokens.
 *
 * A *list* is the pages of one sequence in order of position: list[i] holds positions [i, i + 1) x page_tokens. Its first
 * pages are *shared*: their content is complete, never written again, and findable by anyone with the same tokens and
 * salt; the rest are held by this list alone and are being written.
 *
 *     match     a new sequence takes over the pages that already hold its prefix
 *     grow      room for more positions; evicts kept pages that nobody holds; all or nothing
 *     publish   full pages whose tokens crossed all operators become shared. If somebody published the same content first,
 *               the list switches to that page and gives its own back, so a content is indexed once and whoever holds a
 *               page holds the indexed page before it
 *     release   gives everything back, tail first; what is shared stays kept until it is evicted
 *     pin       holds what a list shares beyond the life of the list
 *
 * Invariants (kvcache_check): free + kept + held = all; a page's holders are the lists and pins it is in; unshared pages
 * have one; kept pages are exactly the indexed ones without holders; a kept page is given up after every page that follows
 * it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvcache/page_pool.h"
#include "kvcache/retention.h"

typedef struct kvcache kvcache;

typedef struct {
    uint32_t             page_count, page_tokens;
    uint32_t             list_count, list_pages_max; /* page lists, and the most pages of one */
    bool                 share;                      /* false: nothing is matched or published */
    uint64_t             seed;                       /* of the hashes */
    const retention_api *retention;
} kvcache_config;

/* The content a list stands for. The array must reach as far as the call looks. */
typedef struct {
    const uint32_t *tokens;
    uint64_t        salt;
} kv_content;

/* NULL while the carver only adds up. Nothing is allocated elsewhere. */
kvcache *kvcache_new(const kvcache_config *config, carver *c);

/* Appends shared pages that hold the next tokens, within the first `token_limit`; the list has only shared pages (or
 * none). Returns how many tokens the list covers now. Calling it again looks only past what was found. */
uint32_t kvcache_match(kvcache *kv, uint32_t list, const kv_content *of, uint32_t token_limit);
/* Makes the list at least `page_count` pages long, or changes nothing and returns false. */
bool kvcache_grow(kvcache *kv, uint32_t list, uint32_t page_count);
/* The first `token_count` tokens have crossed all operators: shares the pages they fill. */
void kvcache_publish(kvcache *kv, uint32_t list, const kv_content *of, uint32_t token_count);
/* Lets go of the last page of a list that has only shared ones, if nobody else holds it: true, it can be evicted now.
 * false: no page of the list would help (whoever holds a page holds all before it). */
bool kvcache_shorten(kvcache *kv, uint32_t list);
void kvcache_release(kvcache *kv, uint32_t list);
/* How little what the next release or unpin lets go will be wanted: 0 .. GRADES - 1, for policies that weigh it. */
void kvcache_grade(kvcache *kv, uint32_t grade);
/* Holds the shared pages of the list until kvcache_unpin, whatever becomes of the list. Returns the last of them, by which
 * the pin is named, and how many there are; NO_PAGE: there are none. A held page implies that those before it are held, so
 * pages of several pins are simply held several times. */
uint32_t kvcache_pin(kvcache *kv, uint32_t list, uint32_t *page_count);
void     kvcache_unpin(kvcache *kv, uint32_t tail);
uint32_t kvcache_pin_count(const kvcache *kv);
uint32_t kvcache_pinned_pages(const kvcache *kv); /* in at least one pin; each once */
void     kvcache_drop(kvcache *kv);               /* forgets every page that nobody holds */

const uint32_t *kvcache_pages(const kvcache *kv, uint32_t list, uint32_t *count);
/* Tokens in the shared part. */
uint32_t kvcache_shared_tokens(const kvcache *kv, uint32_t list);
/* Are positions [begin, end) in pages that this list alone holds and may write? */
bool kvcache_is_writable(const kvcache *kv, uint32_t list, uint32_t begin, uint32_t end);

typedef struct {
    uint32_t total, free, kept, held; /* pages; kept: unheld, could be matched, could be evicted */
    uint64_t evicted;                 /* so far */
} kvcache_counts;
kvcache_counts kvcache_count(const kvcache *kv);
uint32_t       kvcache_available(const kvcache *kv); /* free + kept: what grow can reach */

void kvcache_check(const kvcache *kv);
