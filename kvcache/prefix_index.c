#include "kvcache/prefix_index.h"

#include <string.h>

#include "base/error.h"

static uint32_t table_size(uint32_t page_count) {
    uint32_t size = 2;
    while (size < 2 * (uint64_t)page_count && size < 1u << 31) size *= 2;
    return size;
}

void prefix_index_init(prefix_index *x, uint32_t page_count, uint32_t page_tokens, uint64_t seed, carver *c) {
    check(page_count < 1u << 30 && page_tokens > 0);
    uint32_t size = table_size(page_count);
    *x = (prefix_index){.page_count = page_count, .page_tokens = page_tokens, .mask = size - 1, .seed = seed};
    x->table = carve(c, size, sizeof *x->table);
    x->pages = carve(c, page_count, sizeof *x->pages);
    x->tokens = carve(c, (size_t)page_count * page_tokens, sizeof *x->tokens);
}

/* The tokens' hash, then chained with the hash before it (or the salt): no copy of the tokens, and 128 bits carried on. */
prefix_key prefix_key_of(const prefix_index *x, uint32_t parent, uint64_t salt, const uint32_t *tokens) {
    hash128 link[2];
    if (parent == NO_PAGE) {
        link[0] = hash_128(&salt, sizeof salt, x->seed);
    } else {
        check(parent < x->page_count && x->pages[parent].indexed);
        link[0] = x->pages[parent].hash;
    }
    link[1] = hash_128(tokens, x->page_tokens * sizeof *tokens, x->seed);
    return (prefix_key){hash_128(link, sizeof link, x->seed), salt, parent, tokens};
}

static uint32_t *page_tokens_of(const prefix_index *x, uint32_t page) { return x->tokens + (size_t)page * x->page_tokens; }

static bool holds(const prefix_index *x, uint32_t page, const prefix_key *k) {
    const prefix_page *p = &x->pages[page];
    return hash128_equal(p->hash, k->hash) && p->parent == k->parent && p->salt == k->salt &&
           memcmp(page_tokens_of(x, page), k->tokens, x->page_tokens * sizeof *k->tokens) == 0;
}

static uint32_t tag_of(const hash128 *h) { return (uint32_t)h->low; }

/* Probes end at an empty place: the table is at most half full. */
uint32_t prefix_find(const prefix_index *x, const prefix_key *k) {
    const uint32_t tag = tag_of(&k->hash);
    uint32_t       at = tag & x->mask;
    for (uint32_t probes = 0; probes <= x->mask; probes++, at = (at + 1) & x->mask) {
        const prefix_place *place = &x->table[at];
        if (place->page == 0) return NO_PAGE;
        if (place->tag == tag && holds(x, place->page - 1, k)) return place->page - 1;
    }
    fatal("the prefix index is full");
}

void prefix_add(prefix_index *x, const prefix_key *k, uint32_t page) {
    check(page < x->page_count && !x->pages[page].indexed && x->indexed_count < x->page_count);
    const uint32_t tag = tag_of(&k->hash);
    uint32_t       at = tag & x->mask;
    while (x->table[at].page != 0) at = (at + 1) & x->mask; /* bounded: at most half full */
    x->table[at] = (prefix_place){page + 1, tag};
    x->pages[page] = (prefix_page){k->hash, k->salt, k->parent, 0, true};
    memcpy(page_tokens_of(x, page), k->tokens, x->page_tokens * sizeof *k->tokens);
    if (k->parent != NO_PAGE) x->pages[k->parent].children++;
    x->indexed_count++;
}

static uint32_t place_of(const prefix_index *x, uint32_t page) {
    uint32_t at = tag_of(&x->pages[page].hash) & x->mask;
    for (uint32_t probes = 0; probes <= x->mask; probes++, at = (at + 1) & x->mask) {
        check(x->table[at].page != 0);
        if (x->table[at].page == page + 1) return at;
    }
    fatal("page %u is not in the prefix index", page);
}

/* Closes the gap by moving later entries of the probe run back, so that no tombstones pile up. */
static void close_gap(prefix_index *x, uint32_t gap) {
    for (uint32_t at = (gap + 1) & x->mask; x->table[at].page != 0; at = (at + 1) & x->mask) {
        const uint32_t from_home = (at - x->table[at].tag) & x->mask;
        if (from_home < ((at - gap) & x->mask)) continue; /* its home lies after the gap */
        x->table[gap] = x->table[at];
        gap = at;
    }
    x->table[gap].page = 0;
}

void prefix_remove(prefix_index *x, uint32_t page) {
    check(page < x->page_count);
    prefix_page *p = &x->pages[page];
    check(p->indexed && p->children == 0);
    close_gap(x, place_of(x, page));
    if (p->parent != NO_PAGE) {
        check(x->pages[p->parent].children > 0);
        x->pages[p->parent].children--;
    }
    p->indexed = false;
    x->indexed_count--;
}

void prefix_index_check(const prefix_index *x, uint32_t *scratch) {
    memset(scratch, 0, x->page_count * sizeof *scratch);
    uint32_t indexed = 0, in_table = 0;
    for (uint32_t i = 0; i < x->page_count; i++) {
        const prefix_page *p = &x->pages[i];
        if (!p->indexed) continue;
        indexed++;
        prefix_key k = prefix_key_of(x, p->parent, p->salt, page_tokens_of(x, i)); /* checks the parent as well */
        check(prefix_find(x, &k) == i);
        if (p->parent == NO_PAGE) continue;
        check(x->pages[p->parent].salt == p->salt);
        scratch[p->parent]++;
    }
    for (uint32_t i = 0; i <= x->mask; i++) in_table += x->table[i].page != 0;
    check(indexed == x->indexed_count && in_table == indexed);
    for (uint32_t i = 0; i < x->page_count; i++)
        if (x->pages[i].indexed) check(x->pages[i].children == scratch[i]);
}
