/* The bookkeeping of host memory: copies are found by content, stay clean, and give way tails first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "kvcache/host_tier.h"

enum { PAGE_TOKENS = 4, PAGES = 4 };

static void *memory;

static host_tier *made(void) {
    static host_tier h;
    carver           sum = {0};
    host_tier_init(&h, PAGES, PAGE_TOKENS, 1, &sum);
    memory = aligned_alloc(CARVE_ALIGN, sum.used);
    assert_non_null(memory);
    for (size_t i = 0; i < sum.used; i++) ((char *)memory)[i] = 0;
    host_tier_init(&h, PAGES, PAGE_TOKENS, 1, &(carver){.memory = memory});
    host_tier_start(&h);
    return &h;
}

static const uint32_t   first_tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, second_tokens[] = {1, 2, 3, 4, 9, 9, 9, 9};
static const kv_content first = {first_tokens, 0}, second = {second_tokens, 0}, salted = {first_tokens, 5};

static uint32_t take_chain(host_tier *h, const kv_content *of, uint32_t pages) {
    uint32_t tail = NO_PAGE;
    for (uint32_t i = 0; i < pages; i++) tail = host_tier_take(h, tail, of, i);
    return tail;
}

static void what_several_share_has_one_copy_and_salts_share_nothing(void **state) {
    (void)state;
    host_tier     *h = made();
    const uint32_t a = take_chain(h, &first, 2), b = take_chain(h, &second, 2);
    assert_int_equal(host_tier_used(h), 3);
    assert_int_equal(host_tier_before(h, a), host_tier_before(h, b));
    assert_int_equal(host_tier_find(h, NO_PAGE, &salted, 0), NO_PAGE);
    host_tier_release(h, a), host_tier_release(h, b);
    assert_int_equal(host_tier_held(h), 0);
    assert_int_equal(host_tier_used(h), 3);
    host_tier_check(h, (uint32_t[PAGES]){0});
    free(memory);
}

static void a_copy_is_clean_once_it_arrived_and_empty_again_where_it_failed(void **state) {
    (void)state;
    host_tier     *h = made();
    const uint32_t page = take_chain(h, &first, 1);
    assert_int_equal(host_tier_state(h, page), HOST_EMPTY);
    host_tier_fill(h, page, 7);
    assert_int_equal(host_tier_state(h, page), HOST_ARRIVING);
    host_tier_filled(h, page, 7, false);
    assert_int_equal(host_tier_state(h, page), HOST_EMPTY);
    host_tier_fill(h, page, 8);
    host_tier_filled(h, page, 8, true);
    host_tier_release(h, page);
    assert_int_equal(take_chain(h, &first, 1), page);
    assert_int_equal(host_tier_state(h, page), HOST_CLEAN);
    free(memory);
}

static void what_is_held_stays_and_the_rest_gives_way_from_its_tail(void **state) {
    (void)state;
    host_tier     *h = made();
    const uint32_t a = take_chain(h, &first, 3);
    const uint32_t b = host_tier_take(h, NO_PAGE, &salted, 0);
    host_tier_fill(h, a, 9); /* its copy is in flight when it is given up */
    host_tier_release(h, a);
    const uint32_t c = host_tier_take(h, b, &salted, 1);
    assert_int_equal(c, a); /* the tail's place */
    host_tier_filled(h, c, 9, true);
    assert_int_equal(host_tier_state(h, c), HOST_EMPTY); /* that was another's */
    assert_int_not_equal(host_tier_find(h, NO_PAGE, &first, 0), NO_PAGE);
    host_tier_take(h, c, &salted, 2);
    assert_int_not_equal(host_tier_find(h, NO_PAGE, &first, 0), NO_PAGE);
    assert_int_equal(host_tier_held(h), 3);
    assert_int_equal(host_tier_used(h), PAGES);
    host_tier_drop(h);
    assert_int_equal(host_tier_find(h, NO_PAGE, &first, 0), NO_PAGE);
    assert_int_equal(host_tier_used(h), 3);
    free(memory);
}

static void nothing_is_taken_where_everything_is_held(void **state) {
    (void)state;
    host_tier     *h = made();
    const uint32_t a = take_chain(h, &first, 3), b = take_chain(h, &second, 2);
    assert_int_equal(host_tier_held(h), PAGES);
    assert_int_equal(host_tier_take(h, NO_PAGE, &salted, 0), NO_PAGE);
    host_tier_release(h, a), host_tier_release(h, b);
    assert_int_not_equal(host_tier_take(h, NO_PAGE, &salted, 0), NO_PAGE);
    free(memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_several_share_has_one_copy_and_salts_share_nothing),
        cmocka_unit_test(a_copy_is_clean_once_it_arrived_and_empty_again_where_it_failed),
        cmocka_unit_test(what_is_held_stays_and_the_rest_gives_way_from_its_tail),
        cmocka_unit_test(nothing_is_taken_where_everything_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
