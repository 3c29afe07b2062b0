/* The length estimator: what the answers that ended say of the ones that run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/rng.h"
#include "scheduler/length_model.h"

static length_model *model_of(uint32_t classes) {
    carver        adding_up = {0};
    length_model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    length_model_init(m, classes, &adding_up);
    carver memory = {.memory = aligned_alloc(CARVE_ALIGN, adding_up.used + CARVE_ALIGN)};
    assert_non_null(memory.memory);
    for (size_t i = 0; i < adding_up.used; i++) memory.memory[i] = 0;
    length_model_init(m, classes, &memory);
    return m;
}

static void let_go(length_model *m) {
    free(m->classes);
    free(m);
}

static void assert_near(uint32_t value, double expected, double share) {
    if (value < expected * (1 - share) || value > expected * (1 + share)) fail_msg("%u is not near %g", value, expected);
}

static void nothing_is_guessed_from_too_few_answers(void **state) {
    (void)state;
    length_model *m = model_of(4);
    for (int i = 0; i < SAMPLES_MIN; i++) {
        assert_int_equal(length_model_left(m, 1, 0, 0.5), LENGTH_UNKNOWN);
        length_model_learn(m, 1, 100, true);
    }
    assert_near(length_model_left(m, 1, 0, 0.5), 100, 0.15);
    let_go(m);
}

static void a_quantile_of_even_lengths_is_that_share_of_them(void **state) {
    (void)state;
    length_model *m = model_of(4);
    rng           random = {.seed = 1};
    for (int i = 0; i < 2000; i++) length_model_learn(m, 7, 1 + (uint32_t)rng_below(&random, 1000), true);
    assert_near(length_model_left(m, 7, 0, 0.5), 500, 0.08);
    assert_near(length_model_left(m, 7, 0, 0.9), 900, 0.08);
    assert_near(length_model_left(m, 7, 600, 0.5), 200, 0.15); /* half of those beyond 600 end by 800 */
    assert_near(length_model_left(m, 7, 600, 0.9), 360, 0.15);
    assert_true(length_model_left(m, 7, 999, 0.5) >= 1);
    assert_int_equal(length_model_left(m, 7, 5000, 0.5), LENGTH_UNKNOWN);
    let_go(m);
}

/* Lengths are exponential with mean 400, and limits cut most of them off at 128. Whoever counts the cut ones as ended
 * guesses a median of about 100. */
static void answers_that_were_cut_off_are_longer_than_what_was_seen(void **state) {
    (void)state;
    length_model *m = model_of(4);
    rng           random = {.seed = 2};
    for (int i = 0; i < 4000; i++) {
        double   u = (double)(1 + rng_below(&random, 1000000)) / 1000001, length = 0;
        uint32_t limit = rng_below(&random, 3) ? 128 : 4000;
        for (; u < 0.999 && length < 6000; length += 1) u /= 1 - 1 / 400.0; /* steps until a coin of 1/400 falls */
        uint32_t n = (uint32_t)length + 1;
        length_model_learn(m, 3, n < limit ? n : limit, n < limit);
    }
    assert_near(length_model_left(m, 3, 0, 0.5), 277, 0.15); /* 400 ln 2 */
    assert_near(length_model_left(m, 3, 300, 0.5), 277, 0.25);
    let_go(m);
}

static void a_class_with_a_history_of_its_own_is_told_apart(void **state) {
    (void)state;
    length_model *m = model_of(8);
    for (int i = 0; i < 300; i++) length_model_learn(m, 1, 20, true), length_model_learn(m, 2, 2000, true);
    length_model_learn(m, 3, 20, true);
    assert_near(length_model_left(m, 1, 0, 0.5), 20, 0.2);
    assert_near(length_model_left(m, 2, 0, 0.5), 2000, 0.2);
    uint32_t few = length_model_left(m, 3, 0, 0.9); /* speaks for all */
    assert_near(few, 2000, 0.2);
    let_go(m);
}

static void what_is_new_outweighs_what_is_old(void **state) {
    (void)state;
    length_model *m = model_of(4);
    for (int i = 0; i < 5000; i++) length_model_learn(m, 1, 50, true);
    for (int i = 0; i < 3000; i++) length_model_learn(m, 1, 800, true);
    assert_near(length_model_left(m, 1, 0, 0.5), 800, 0.2);
    let_go(m);
}

static void any_number_is_taken_and_classes_that_share_a_place_do_no_harm(void **state) {
    (void)state;
    length_model *m = model_of(4);
    rng           random = {.seed = 3};
    for (int i = 0; i < 20000; i++) {
        uint32_t length = (uint32_t)rng_next(&random) >> rng_below(&random, 32);
        length_model_learn(m, rng_below(&random, 9), length, rng_below(&random, 2));
        uint32_t left = length_model_left(m, rng_below(&random, 9), (uint32_t)rng_next(&random) >> rng_below(&random, 32),
                                          (double)(1 + rng_below(&random, 99)) / 100);
        assert_true(left >= 1);
    }
    length_model *none = model_of(0); /* all together only */
    for (int i = 0; i < 100; i++) length_model_learn(none, (uint64_t)i, 9, true);
    assert_near(length_model_left(none, 5, 0, 0.5), 9, 0.2);
    let_go(none);
    let_go(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_guessed_from_too_few_answers),
        cmocka_unit_test(a_quantile_of_even_lengths_is_that_share_of_them),
        cmocka_unit_test(answers_that_were_cut_off_are_longer_than_what_was_seen),
        cmocka_unit_test(a_class_with_a_history_of_its_own_is_told_apart),
        cmocka_unit_test(what_is_new_outweighs_what_is_old),
        cmocka_unit_test(any_number_is_taken_and_classes_that_share_a_place_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
