#include "kvcache/kvcache.h"

#include <string.h>

#include "base/error.h"
#include "kvcache/prefix_index.h"

typedef struct {
    uint32_t page_count, shared_count;
} page_list;

struct kvcache {
    kvcache_config config;
    page_pool      pool;
    prefix_index   index;
    kept_pages     kept;
    page_list     *lists;      /* [list_count] */
    uint32_t      *list_pages; /* [list_count][list_pages_max] */
    uint32_t      *scratch;    /* [page_count], of kvcache_check */
    uint32_t      *pin_tails;  /* [page_count]: how many pins end with the page */
    uint32_t      *pin_holds;  /* [page_count]: how many hold it */
    uint32_t       pin_count, pinned_pages;
    uint64_t       evicted;
};

static void lay_out(kvcache *kv, const kvcache_config *config, carver *c) {
    kv->config = *config;
    page_pool_init(&kv->pool, config->page_count, c);
    prefix_index_init(&kv->index, config->page_count, config->page_tokens, config->seed, c);
    kept_pages_init(&kv->kept, config->page_count, c);
    kv->lists = carve(c, config->list_count, sizeof *kv->lists);
    kv->list_pages = carve(c, (size_t)config->list_count * config->list_pages_max, sizeof *kv->list_pages);
    kv->scratch = carve(c, config->page_count, sizeof *kv->scratch);
    kv->pin_tails = carve(c, config->page_count, sizeof *kv->pin_tails);
    kv->pin_holds = carve(c, config->page_count, sizeof *kv->pin_holds);
}

kvcache *kvcache_new(const kvcache_config *config, carver *c) {
    kvcache  adding_up = {0};
    kvcache *kv = carve(c, 1, sizeof *kv);
    lay_out(kv ? kv : &adding_up, config, c);
    if (kv) kept_pages_start(&kv->kept);
    return kv;
}

static page_list *list_at(const kvcache *kv, uint32_t list) {
    check(list < kv->config.list_count);
    return &kv->lists[list];
}
static uint32_t *pages_of(const kvcache *kv, uint32_t list) {
    return kv->list_pages + (size_t)list * kv->config.list_pages_max;
}

/* ---- a page's three states ---- */

static void hold(kvcache *kv, uint32_t page) {
    if (kv->pool.holders[page]++ == 0) kv->config.retention->remove(&kv->kept, page);
}

static void let_go(kvcache *kv, uint32_t page) {
    check(kv->pool.holders[page] > 0);
    if (--kv->pool.holders[page] > 0) return;
    if (prefix_is_indexed(&kv->index, page)) kv->config.retention->keep(&kv->kept, page, kv->index.pages[page].parent);
    else page_pool_give(&kv->pool, page);
}

static void evict_one(kvcache *kv) {
    uint32_t page = kv->config.retention->victim(&kv->kept);
    check(page != NO_PAGE && kv->pool.holders[page] == 0);
    kv->config.retention->remove(&kv->kept, page);
    const uint32_t before = kv->index.pages[page].parent;
    prefix_remove(&kv->index, page);
    kept_pages_tail(&kv->kept, page);
    if (before != NO_PAGE && kv->index.pages[before].children == 0) kept_pages_tail(&kv->kept, before);
    page_pool_give(&kv->pool, page);
    kv->evicted++;
}

/* ---- lists ---- */

static prefix_key next_key(const kvcache *kv, uint32_t list, const kv_content *of) {
    uint32_t shared = kv->lists[list].shared_count;
    uint32_t parent = shared ? pages_of(kv, list)[shared - 1] : NO_PAGE;
    return prefix_key_of(&kv->index, parent, of->salt, of->tokens + (size_t)shared * kv->config.page_tokens);
}

uint32_t kvcache_match(kvcache *kv, uint32_t list, const kv_content *of, uint32_t token_limit) {
    page_list *l = list_at(kv, list);
    check(l->page_count == l->shared_count);
    uint32_t pages_max = kv->config.share ? token_limit / kv->config.page_tokens : 0;
    while (l->shared_count < pages_max) {
        prefix_key key = next_key(kv, list, of);
        uint32_t   page = prefix_find(&kv->index, &key);
        if (page == NO_PAGE) break;
        check(l->page_count < kv->config.list_pages_max);
        hold(kv, page);
        pages_of(kv, list)[l->page_count++] = page;
        l->shared_count++;
    }
    return l->shared_count * kv->config.page_tokens;
}

bool kvcache_grow(kvcache *kv, uint32_t list, uint32_t page_count) {
    page_list *l = list_at(kv, list);
    if (page_count <= l->page_count) return true;
    if (page_count - l->page_count > kvcache_available(kv)) return false;
    check(page_count <= kv->config.list_pages_max);
    while (l->page_count < page_count) {
        if (kv->pool.free_count == 0) evict_one(kv);
        pages_of(kv, list)[l->page_count++] = page_pool_take(&kv->pool);
    }
    return true;
}

/* The page after the shared part becomes shared itself, or is exchanged for the one that already is. */
static void share_next(kvcache *kv, uint32_t list, const kv_content *of) {
    uint32_t  *page = pages_of(kv, list) + kv->lists[list].shared_count;
    prefix_key key = next_key(kv, list, of);
    uint32_t   first = prefix_find(&kv->index, &key);
    check(kv->pool.holders[*page] == 1);
    if (first == NO_PAGE) {
        prefix_add(&kv->index, &key, *page);
    } else {
        hold(kv, first);
        let_go(kv, *page);
        *page = first;
    }
    kv->lists[list].shared_count++;
}

void kvcache_publish(kvcache *kv, uint32_t list, const kv_content *of, uint32_t token_count) {
    page_list *l = list_at(kv, list);
    if (!kv->config.share) return;
    uint32_t full = token_count / kv->config.page_tokens;
    check(full <= l->page_count);
    while (l->shared_count < full) share_next(kv, list, of);
}

bool kvcache_shorten(kvcache *kv, uint32_t list) {
    page_list *l = list_at(kv, list);
    check(l->page_count == l->shared_count);
    if (l->page_count == 0) return false;
    uint32_t last = pages_of(kv, list)[l->page_count - 1];
    if (kv->pool.holders[last] > 1) return false;
    let_go(kv, last);
    l->page_count--, l->shared_count--;
    return true;
}

void kvcache_release(kvcache *kv, uint32_t list) {
    page_list *l = list_at(kv, list);
    while (l->page_count > 0) let_go(kv, pages_of(kv, list)[--l->page_count]);
    l->shared_count = 0;
    kv->kept.grade = GRADE_UNKNOWN;
}

void kvcache_grade(kvcache *kv, uint32_t grade) {
    check(grade < GRADES);
    kv->kept.grade = (uint8_t)grade;
}

/* ---- pins ---- */

uint32_t kvcache_pin(kvcache *kv, uint32_t list, uint32_t *page_count) {
    const page_list *l = list_at(kv, list);
    *page_count = l->shared_count;
    if (l->shared_count == 0) return NO_PAGE;
    for (uint32_t i = 0; i < l->shared_count; i++) {
        const uint32_t page = pages_of(kv, list)[i];
        hold(kv, page);
        kv->pinned_pages += kv->pin_holds[page]++ == 0;
    }
    const uint32_t tail = pages_of(kv, list)[l->shared_count - 1];
    kv->pin_tails[tail]++, kv->pin_count++;
    return tail;
}

void kvcache_unpin(kvcache *kv, uint32_t tail) {
    check(tail < kv->config.page_count && kv->pin_tails[tail] > 0);
    kv->pin_tails[tail]--, kv->pin_count--;
    for (uint32_t page = tail, parent; page != NO_PAGE; page = parent) {
        parent = kv->index.pages[page].parent;
        check(kv->pin_holds[page] > 0);
        kv->pinned_pages -= --kv->pin_holds[page] == 0;
        let_go(kv, page);
    }
    kv->kept.grade = GRADE_UNKNOWN;
}

uint32_t kvcache_pin_count(const kvcache *kv) { return kv->pin_count; }
uint32_t kvcache_pinned_pages(const kvcache *kv) { return kv->pinned_pages; }

void kvcache_drop(kvcache *kv) {
    while (kv->kept.kept_count > 0) evict_one(kv);
}

/* ---- views ---- */

const uint32_t *kvcache_pages(const kvcache *kv, uint32_t list, uint32_t *count) {
    *count = list_at(kv, list)->page_count;
    return pages_of(kv, list);
}

uint32_t kvcache_shared_tokens(const kvcache *kv, uint32_t list) {
    return list_at(kv, list)->shared_count * kv->config.page_tokens;
}

bool kvcache_is_writable(const kvcache *kv, uint32_t list, uint32_t begin, uint32_t end) {
    const page_list *l = list_at(kv, list);
    if (begin >= end) return false;
    uint32_t first = begin / kv->config.page_tokens, last = end - begin == 1 ? first : (end - 1) / kv->config.page_tokens;
    if (first < l->shared_count || last >= l->page_count) return false;
    for (uint32_t i = first; i <= last; i++)
        if (kv->pool.holders[pages_of(kv, list)[i]] != 1) return false;
    return true;
}

kvcache_counts kvcache_count(const kvcache *kv) {
    uint32_t total = kv->config.page_count, kept = kv->kept.kept_count, free = kv->pool.free_count;
    check(kept + free <= total);
    return (kvcache_counts){total, free, kept, total - kept - free, kv->evicted};
}

uint32_t kvcache_available(const kvcache *kv) { return kv->pool.free_count + kv->kept.kept_count; }

/* ---- invariants ---- */

static void check_list(const kvcache *kv, uint32_t list) {
    const page_list *l = &kv->lists[list];
    const uint32_t  *pages = pages_of(kv, list);
    check(l->shared_count <= l->page_count && l->page_count <= kv->config.list_pages_max);
    for (uint32_t i = 0; i < l->page_count; i++) {
        check(pages[i] < kv->config.page_count);
        check(prefix_is_indexed(&kv->index, pages[i]) == (i < l->shared_count));
        if (i < l->shared_count) check(kv->index.pages[pages[i]].parent == (i ? pages[i - 1] : NO_PAGE));
        if (i >= l->shared_count) check(kv->pool.holders[pages[i]] == 1);
    }
}

/* Adds up in scratch how many pins hold each page. */
static void check_pins(const kvcache *kv) {
    uint32_t pins = 0, pinned = 0;
    for (uint32_t tail = 0; tail < kv->config.page_count; tail++) {
        pins += kv->pin_tails[tail];
        for (uint32_t page = tail; page != NO_PAGE && kv->pin_tails[tail] > 0; page = kv->index.pages[page].parent) {
            check(prefix_is_indexed(&kv->index, page));
            kv->scratch[page] += kv->pin_tails[tail];
        }
    }
    for (uint32_t page = 0; page < kv->config.page_count; page++) {
        check(kv->scratch[page] == kv->pin_holds[page]);
        pinned += kv->pin_holds[page] > 0;
    }
    check(pins == kv->pin_count && pinned == kv->pinned_pages);
}

static void check_holders(const kvcache *kv) {
    memset(kv->scratch, 0, kv->config.page_count * sizeof *kv->scratch);
    check_pins(kv);
    for (uint32_t i = 0; i < kv->config.list_count; i++)
        for (uint32_t k = 0; k < kv->lists[i].page_count; k++) kv->scratch[pages_of(kv, i)[k]]++;
    uint32_t kept = 0, held = 0;
    for (uint32_t page = 0; page < kv->config.page_count; page++) {
        check(kv->scratch[page] == kv->pool.holders[page]);
        bool is_kept = kv->pool.holders[page] == 0 && prefix_is_indexed(&kv->index, page);
        check(is_kept == (kv->kept.kept_at[page] != 0));
        kept += is_kept;
        held += kv->pool.holders[page] > 0;
        uint32_t parent = is_kept ? kv->index.pages[page].parent : NO_PAGE;
        if (parent != NO_PAGE && kv->pool.holders[parent] == 0) check(kv->kept.kept_at[page] < kv->kept.kept_at[parent]);
    }
    check(kept == kv->kept.kept_count && kept + held + kv->pool.free_count == kv->config.page_count);
}

void kvcache_check(const kvcache *kv) {
    page_pool_check(&kv->pool, kv->scratch);
    prefix_index_check(&kv->index, kv->scratch);
    kept_pages_check(&kv->kept);
    for (uint32_t i = 0; i < kv->config.list_count; i++) check_list(kv, i);
    check_holders(kv);
}
