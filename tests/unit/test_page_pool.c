/* The page pool: pages are numbers that are free or held. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "kvcache/page_pool.h"

typedef struct {
    page_pool pool;
    void     *memory;
    uint32_t  scratch[64];
} fixture;

static void open_pool(fixture *f, uint32_t page_count) {
    carver sizes = {0};
    page_pool_init(&f->pool, page_count, &sizes);
    f->memory = calloc(1, sizes.used);
    assert_non_null(f->memory);
    page_pool_init(&f->pool, page_count, &(carver){.memory = f->memory});
}

static void pages_are_taken_from_the_first_up_and_once(void **state) {
    (void)state;
    fixture f;
    open_pool(&f, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(page_pool_take(&f.pool), i);
        assert_int_equal(f.pool.holders[i], 1);
        page_pool_check(&f.pool, f.scratch);
    }
    free(f.memory);
}

static void an_empty_pool_answers_no_page_and_changes_nothing(void **state) {
    (void)state;
    fixture f;
    open_pool(&f, 2);
    page_pool_take(&f.pool);
    page_pool_take(&f.pool);
    for (int i = 0; i < 3; i++) assert_int_equal(page_pool_take(&f.pool), NO_PAGE);
    assert_int_equal(f.pool.free_count, 0);
    page_pool_check(&f.pool, f.scratch);
    free(f.memory);
}

static void the_page_freed_last_is_taken_next(void **state) {
    (void)state;
    fixture f;
    open_pool(&f, 4);
    for (int i = 0; i < 4; i++) page_pool_take(&f.pool);
    const uint32_t freed[] = {2, 0, 3};
    for (int i = 0; i < 3; i++) {
        f.pool.holders[freed[i]] = 0;
        page_pool_give(&f.pool, freed[i]);
    }
    for (int i = 2; i >= 0; i--) assert_int_equal(page_pool_take(&f.pool), freed[i]);
    page_pool_check(&f.pool, f.scratch);
    free(f.memory);
}

static void the_sum_of_sizes_is_what_is_handed_out(void **state) {
    (void)state;
    page_pool pool;
    carver    sizes = {0};
    page_pool_init(&pool, 1000, &sizes);
    assert_true(sizes.used >= 2 * 1000 * sizeof(uint32_t) && sizes.used % CARVE_ALIGN == 0);
    carver overflow = {0};
    assert_null(carve(&overflow, SIZE_MAX / 2, 4));
    assert_null(carve(&overflow, 1, 1));
    assert_true(overflow.used == SIZE_MAX); /* an impossible sum stays impossible */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_taken_from_the_first_up_and_once),
        cmocka_unit_test(an_empty_pool_answers_no_page_and_changes_nothing),
        cmocka_unit_test(the_page_freed_last_is_taken_next),
        cmocka_unit_test(the_sum_of_sizes_is_what_is_handed_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
