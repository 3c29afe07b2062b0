/* Page lists: who holds which page, what is shared, and what is given up first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kvcache/kvcache.h"

enum { PAGE_TOKENS = 4 };

typedef struct {
    kvcache *kv;
    void    *memory;
} fixture;

static kvcache_config config_of(uint32_t page_count, bool share) {
    return (kvcache_config){.page_count = page_count,
                            .page_tokens = PAGE_TOKENS,
                            .list_count = 4,
                            .list_pages_max = page_count,
                            .share = share,
                            .seed = 1,
                            .retention = &retention_lru};
}

static fixture open_cache(uint32_t page_count, bool share) {
    kvcache_config config = config_of(page_count, share);
    carver         sizes = {0};
    fixture        f;
    assert_null(kvcache_new(&config, &sizes));
    f.memory = calloc(1, sizes.used);
    assert_non_null(f.memory);
    carver pieces = {.memory = f.memory};
    f.kv = kvcache_new(&config, &pieces);
    assert_int_equal(pieces.used, sizes.used);
    kvcache_check(f.kv);
    return f;
}

static uint32_t         numbers[64]; /* 0, 1, 2 ... */
static const kv_content counting = {numbers, 0};

static uint32_t page_at(const fixture *f, uint32_t list, uint32_t i) {
    uint32_t        count;
    const uint32_t *pages = kvcache_pages(f->kv, list, &count);
    assert_true(i < count);
    return pages[i];
}

/* A list of `tokens` complete tokens of the content, published. */
static void compute(fixture *f, uint32_t list, const kv_content *of, uint32_t tokens) {
    kvcache_match(f->kv, list, of, tokens);
    assert_true(kvcache_grow(f->kv, list, (tokens + PAGE_TOKENS - 1) / PAGE_TOKENS));
    kvcache_publish(f->kv, list, of, tokens);
    kvcache_check(f->kv);
}

static void full_pages_are_found_again_and_partial_ones_are_not(void **state) {
    (void)state;
    fixture f = open_cache(10, true);
    compute(&f, 0, &counting, 11);
    assert_int_equal(kvcache_shared_tokens(f.kv, 0), 8);
    assert_int_equal(kvcache_match(f.kv, 1, &counting, 60), 8);
    assert_int_equal(page_at(&f, 1, 0), page_at(&f, 0, 0));
    assert_int_equal(page_at(&f, 1, 1), page_at(&f, 0, 1));
    kvcache_check(f.kv);
    assert_int_equal(kvcache_count(f.kv).held, 3);
    free(f.memory);
}

static void a_match_stays_within_its_limit(void **state) {
    (void)state;
    fixture f = open_cache(10, true);
    compute(&f, 0, &counting, 16);
    assert_int_equal(kvcache_match(f.kv, 1, &counting, 15), 12);
    assert_int_equal(kvcache_match(f.kv, 1, &counting, 16), 16); /* goes on where it stopped */
    kvcache_check(f.kv);
    free(f.memory);
}

static void a_full_pool_answers_full_and_changes_nothing(void **state) {
    (void)state;
    fixture f = open_cache(5, true);
    assert_true(kvcache_grow(f.kv, 0, 3));
    kvcache_counts before = kvcache_count(f.kv);
    assert_false(kvcache_grow(f.kv, 1, 3));
    kvcache_counts after = kvcache_count(f.kv);
    assert_memory_equal(&before, &after, sizeof before);
    assert_true(kvcache_grow(f.kv, 1, 2));
    assert_false(kvcache_grow(f.kv, 0, 4));
    kvcache_check(f.kv);
    free(f.memory);
}

static void released_pages_stay_findable_until_the_room_is_needed(void **state) {
    (void)state;
    fixture f = open_cache(4, true);
    compute(&f, 0, &counting, 14);
    kvcache_release(f.kv, 0);
    kvcache_counts c = kvcache_count(f.kv);
    assert_int_equal(c.kept, 3);
    assert_int_equal(c.free, 1);
    assert_int_equal(kvcache_available(f.kv), 4);
    assert_true(kvcache_grow(f.kv, 1, 2)); /* the free one, and the tail of the chain */
    assert_int_equal(kvcache_count(f.kv).evicted, 1);
    assert_int_equal(kvcache_match(f.kv, 2, &counting, 12), 8);
    kvcache_check(f.kv);
    free(f.memory);
}

static void the_chain_let_go_longest_ago_is_evicted_first_from_its_tail(void **state) {
    (void)state;
    fixture    f = open_cache(8, true);
    uint32_t   others[64];
    kv_content other = {others, 0};
    for (uint32_t i = 0; i < 64; i++) others[i] = 1000 + i;
    compute(&f, 0, &counting, 16);
    compute(&f, 1, &other, 16);
    kvcache_release(f.kv, 1);
    kvcache_release(f.kv, 0);
    assert_true(kvcache_grow(f.kv, 2, 3));
    kvcache_check(f.kv);
    assert_int_equal(kvcache_match(f.kv, 0, &counting, 16), 16);
    assert_int_equal(kvcache_match(f.kv, 1, &other, 16), 4);
    free(f.memory);
}

static void content_that_two_lists_computed_is_kept_once(void **state) {
    (void)state;
    fixture f = open_cache(10, true);
    assert_true(kvcache_grow(f.kv, 0, 3));
    assert_true(kvcache_grow(f.kv, 1, 3));
    assert_int_equal(kvcache_count(f.kv).held, 6);
    kvcache_publish(f.kv, 0, &counting, 12);
    kvcache_publish(f.kv, 1, &counting, 9);
    kvcache_check(f.kv);
    assert_int_equal(page_at(&f, 0, 1), page_at(&f, 1, 1));
    assert_int_not_equal(page_at(&f, 0, 2), page_at(&f, 1, 2));
    assert_int_equal(kvcache_count(f.kv).held, 4);
    free(f.memory);
}

static void a_list_is_shortened_only_where_that_frees_a_page(void **state) {
    (void)state;
    fixture f = open_cache(10, true);
    compute(&f, 0, &counting, 16);
    kvcache_match(f.kv, 1, &counting, 16);
    kvcache_match(f.kv, 2, &counting, 8);
    assert_false(kvcache_shorten(f.kv, 1)); /* list 0 holds it too */
    kvcache_release(f.kv, 0);
    assert_true(kvcache_shorten(f.kv, 1));
    assert_true(kvcache_shorten(f.kv, 1));
    assert_false(kvcache_shorten(f.kv, 1)); /* the rest is list 2's as well */
    kvcache_check(f.kv);
    assert_int_equal(kvcache_count(f.kv).kept, 2);
    assert_int_equal(kvcache_match(f.kv, 1, &counting, 16), 16); /* not evicted yet: found again */
    assert_false(kvcache_shorten(f.kv, 3));
    free(f.memory);
}

static void only_pages_of_one_list_that_were_not_published_may_be_written(void **state) {
    (void)state;
    fixture f = open_cache(10, true);
    compute(&f, 0, &counting, 6);
    assert_false(kvcache_is_writable(f.kv, 0, 3, 4));
    assert_false(kvcache_is_writable(f.kv, 0, 3, 6));
    assert_true(kvcache_is_writable(f.kv, 0, 4, 8));
    assert_false(kvcache_is_writable(f.kv, 0, 4, 9)); /* beyond the list */
    assert_false(kvcache_is_writable(f.kv, 0, 5, 5));
    free(f.memory);
}

static void without_sharing_nothing_is_kept(void **state) {
    (void)state;
    fixture f = open_cache(4, false);
    compute(&f, 0, &counting, 12);
    assert_int_equal(kvcache_match(f.kv, 1, &counting, 12), 0);
    kvcache_release(f.kv, 0);
    assert_int_equal(kvcache_count(f.kv).free, 4);
    kvcache_check(f.kv);
    free(f.memory);
}

static void dropping_forgets_what_nobody_holds(void **state) {
    (void)state;
    fixture f = open_cache(10, true);
    compute(&f, 0, &counting, 16);
    kvcache_match(f.kv, 1, &counting, 8);
    kvcache_release(f.kv, 0);
    kvcache_drop(f.kv);
    kvcache_check(f.kv);
    assert_int_equal(kvcache_count(f.kv).free, 8);
    assert_int_equal(kvcache_match(f.kv, 2, &counting, 16), 8); /* list 1 still holds those */
    free(f.memory);
}

int main(void) {
    for (uint32_t i = 0; i < 64; i++) numbers[i] = i;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_pages_are_found_again_and_partial_ones_are_not),
        cmocka_unit_test(a_match_stays_within_its_limit),
        cmocka_unit_test(a_full_pool_answers_full_and_changes_nothing),
        cmocka_unit_test(released_pages_stay_findable_until_the_room_is_needed),
        cmocka_unit_test(the_chain_let_go_longest_ago_is_evicted_first_from_its_tail),
        cmocka_unit_test(content_that_two_lists_computed_is_kept_once),
        cmocka_unit_test(a_list_is_shortened_only_where_that_frees_a_page),
        cmocka_unit_test(only_pages_of_one_list_that_were_not_published_may_be_written),
        cmocka_unit_test(without_sharing_nothing_is_kept),
        cmocka_unit_test(dropping_forgets_what_nobody_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
