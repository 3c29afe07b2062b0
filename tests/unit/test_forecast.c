/* The worst moment that is still to come, against counting every pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/rng.h"
#include "scheduler/forecast.h"

enum { LIVES = 40 };

static forecast forecast_of(uint32_t page_tokens) {
    forecast f;
    carver   size = {0};
    forecast_init(&f, LIVES, page_tokens, &size);
    char *memory = aligned_alloc(CARVE_ALIGN, (size.used + CARVE_ALIGN - 1) / CARVE_ALIGN * CARVE_ALIGN);
    assert_non_null(memory);
    carver c = {.memory = memory};
    forecast_init(&f, LIVES, page_tokens, &c);
    return f;
}

static uint64_t counted(const forecast_life *lives, uint32_t count, uint32_t page_tokens) {
    uint64_t peak = 0;
    for (uint32_t t = 0; t < 400; t++) {
        uint64_t pages = 0;
        for (uint32_t i = 0; i < count; i++)
            if (lives[i].passes >= t) pages += (lives[i].tokens + t + page_tokens - 1) / page_tokens - lives[i].free;
        if (pages > peak) peak = pages;
    }
    return peak;
}

static void the_peak_is_what_counting_every_pass_finds(void **state) {
    (void)state;
    rng random = {.seed = 3};
    for (int round = 0; round < 2000; round++) {
        const uint32_t page = 1 + (uint32_t)rng_below(&random, 20), count = (uint32_t)rng_below(&random, LIVES + 1);
        forecast       f = forecast_of(page);
        forecast_life  lives[LIVES];
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t tokens = 1 + (uint32_t)rng_below(&random, 200);
            f.lives[i] = lives[i] = (forecast_life){.tokens = tokens,
                                                    .passes = (uint32_t)rng_below(&random, 300),
                                                    .free = (uint32_t)rng_below(&random, tokens / page + 1)};
        }
        assert_int_equal(forecast_peak(&f, count), counted(lives, count, page));
        free(f.lives);
    }
}

static void who_ends_early_makes_room_for_who_lives_long(void **state) {
    (void)state;
    forecast f = forecast_of(1);
    f.lives[0] = (forecast_life){.tokens = 10, .passes = 100};
    f.lives[1] = (forecast_life){.tokens = 80, .passes = 5};
    assert_int_equal(forecast_peak(&f, 2), 110); /* not 195: at pass 5 they hold 100, at pass 100 the first alone 110 */
    assert_int_equal(f.lives[0].passes, 100);
    free(f.lives);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_peak_is_what_counting_every_pass_finds),
        cmocka_unit_test(who_ends_early_makes_room_for_who_lives_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
