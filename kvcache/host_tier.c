#include "kvcache/host_tier.h"

#include "base/error.h"

void host_tier_init(host_tier *h, uint32_t page_count, uint32_t page_tokens, uint64_t seed, carver *c) {
    *h = (host_tier){0};
    page_pool_init(&h->pool, page_count, c);
    prefix_index_init(&h->index, page_count, page_tokens, seed, c);
    kept_pages_init(&h->kept, page_count, c);
    h->states = carve(c, page_count, sizeof *h->states);
    h->filled_by = carve(c, page_count, sizeof *h->filled_by);
    h->scratch = carve(c, page_count, sizeof *h->scratch);
}

void host_tier_start(host_tier *h) { kept_pages_start(&h->kept); }

static prefix_key key_of(const host_tier *h, uint32_t parent, const kv_content *of, uint32_t place) {
    return prefix_key_of(&h->index, parent, of->salt, of->tokens + (size_t)place * h->index.page_tokens);
}

uint32_t host_tier_find(const host_tier *h, uint32_t parent, const kv_content *of, uint32_t place) {
    if (h->index.indexed_count == 0) return NO_PAGE;
    const prefix_key key = key_of(h, parent, of, place);
    return prefix_find(&h->index, &key);
}

static void give_up(host_tier *h, uint32_t page) {
    check(page != NO_PAGE && h->pool.holders[page] == 0);
    retention_lru.remove(&h->kept, page);
    prefix_remove(&h->index, page);
    h->states[page] = HOST_EMPTY, h->filled_by[page] = 0;
    page_pool_give(&h->pool, page);
}

uint32_t host_tier_take(host_tier *h, uint32_t parent, const kv_content *of, uint32_t place) {
    const prefix_key key = key_of(h, parent, of, place);
    uint32_t         page = prefix_find(&h->index, &key);
    if (page != NO_PAGE) {
        host_tier_hold(h, page);
        return page;
    }
    if (h->pool.free_count == 0 && h->kept.kept_count > 0) give_up(h, retention_lru.victim(&h->kept));
    page = page_pool_take(&h->pool);
    if (page != NO_PAGE) prefix_add(&h->index, &key, page);
    return page;
}

void host_tier_hold(host_tier *h, uint32_t page) {
    if (h->pool.holders[page]++ == 0) retention_lru.remove(&h->kept, page);
}

void host_tier_let_go(host_tier *h, uint32_t page) {
    check(h->pool.holders[page] > 0);
    if (--h->pool.holders[page] == 0) retention_lru.keep(&h->kept, page, host_tier_before(h, page));
}

void host_tier_release(host_tier *h, uint32_t tail) {
    for (uint32_t page = tail; page != NO_PAGE; page = host_tier_before(h, page)) host_tier_let_go(h, page);
}

void host_tier_drop(host_tier *h) {
    while (h->kept.kept_count > 0) give_up(h, retention_lru.victim(&h->kept));
}

void host_tier_fill(host_tier *h, uint32_t page, uint64_t copy) {
    check(h->states[page] == HOST_EMPTY && h->pool.holders[page] > 0 && copy != 0);
    h->states[page] = HOST_ARRIVING, h->filled_by[page] = copy;
}

void host_tier_filled(host_tier *h, uint32_t page, uint64_t copy, bool ok) {
    if (h->filled_by[page] != copy) return;
    h->states[page] = ok ? HOST_CLEAN : HOST_EMPTY, h->filled_by[page] = 0;
}

void host_tier_check(const host_tier *h, const uint32_t *held_by) {
    page_pool_check(&h->pool, h->scratch);
    prefix_index_check(&h->index, h->scratch);
    kept_pages_check(&h->kept);
    uint32_t kept = 0;
    for (uint32_t page = 0; page < h->pool.page_count; page++) {
        const bool indexed = prefix_is_indexed(&h->index, page), held = h->pool.holders[page] > 0;
        check(h->pool.holders[page] == held_by[page] && (!held || indexed));
        check((h->kept.kept_at[page] != 0) == (indexed && !held));
        check((h->states[page] == HOST_ARRIVING) == (h->filled_by[page] != 0));
        check(indexed || h->states[page] == HOST_EMPTY);
        kept += indexed && !held;
        const uint32_t before = indexed ? host_tier_before(h, page) : NO_PAGE;
        if (before != NO_PAGE && held) check(h->pool.holders[before] > 0);
        if (before != NO_PAGE && !held && h->pool.holders[before] == 0)
            check(h->kept.kept_at[page] < h->kept.kept_at[before]);
    }
    check(kept == h->kept.kept_count && h->pool.free_count + h->index.indexed_count == h->pool.page_count);
}
