/* Many queues over one set of items. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/rng.h"
#include "scheduler/forest.h"

enum { ITEMS = 300, QUEUES = 5, STEPS = 60000 };

static uint32_t least_of(const heap_entry *all, const int *queue, int of) {
    uint32_t best = NO_ITEM;
    for (uint32_t i = 0; i < ITEMS; i++)
        if (queue[i] == of && (best == NO_ITEM || heap_before(&all[i], &all[best]))) best = i;
    return best;
}

static void the_first_of_each_queue_is_its_least_whoever_comes_and_goes(void **state) {
    (void)state;
    rng         random = {.seed = 5};
    carver      size = {0};
    item_forest f;
    forest_init(&f, ITEMS, &size);
    carver c = {.memory = aligned_alloc(CARVE_ALIGN, size.used)};
    assert_non_null(c.memory);
    for (size_t i = 0; i < size.used; i++) c.memory[i] = 0;
    forest_init(&f, ITEMS, &c);

    static heap_entry all[ITEMS];
    static int        queue[ITEMS]; /* -1: in none */
    uint32_t          first[QUEUES];
    for (int i = 0; i < QUEUES; i++) first[i] = NO_ITEM;
    for (int i = 0; i < ITEMS; i++) queue[i] = -1;
    for (int step = 0; step < STEPS; step++) {
        const uint32_t item = (uint32_t)rng_below(&random, ITEMS);
        if (queue[item] >= 0) {
            const int of = queue[item];
            forest_remove(&f, &first[of], item);
            queue[item] = -1;
            assert_int_equal(first[of], least_of(all, queue, of));
        } else {
            const int of = (int)rng_below(&random, QUEUES);
            all[item] = (heap_entry){(uint32_t)rng_below(&random, 3), item, rng_below(&random, 9), (uint64_t)step};
            queue[item] = of;
            forest_add(&f, &first[of], all[item]);
            assert_int_equal(first[of], least_of(all, queue, of));
        }
        assert_true(forest_holds(&f, item) == (queue[item] >= 0));
        if (step % 100 > 0) continue;
        uint32_t held = 0, counted = 0;
        for (int i = 0; i < QUEUES; i++) counted += forest_check(&f, first[i]);
        for (int i = 0; i < ITEMS; i++) held += queue[i] >= 0;
        assert_int_equal(counted, held);
    }
    free(c.memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_of_each_queue_is_its_least_whoever_comes_and_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
