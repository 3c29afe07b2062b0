/* The step-time model: passes that were measured say how long the next one takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "scheduler/step_model.h"

static const model_shape dense = {.op_count = 300};
static const model_shape sparse = {.op_count = 400, .experts = 128, .experts_per_row = 8};

/* 4 ms to read all weights, and something for each row and each position. */
static uint64_t machine_us(const step_load *l, double noise) {
    double walked = (l->op_end - l->op_begin) / 300.0;
    return (uint64_t)((200 + 4000 * walked + 12.0 * l->decode_rows + 0.02 * (double)l->decode_context +
                       20 * l->prefill_rows + 0.003 * l->prefill_attended) *
                      noise);
}

static step_load random_load(rng *r, const model_shape *m) {
    step_load l = {0};
    uint32_t  decodes = rng_below(r, 3) ? (uint32_t)rng_below(r, 64) : 0;
    for (uint32_t i = 0; i < decodes; i++) step_load_add_decode(&l, m, (uint32_t)rng_below(r, 4000));
    if (rng_below(r, 2) || decodes == 0) {
        uint32_t begin = (uint32_t)rng_below(r, 8000), op = decodes || rng_below(r, 2) ? 0 : (uint32_t)rng_below(r, 200);
        step_load_add_prefill(&l, m, begin, begin + 1 + (uint32_t)rng_below(r, 1000), op, m->op_count);
    }
    return l;
}

static double worst_error(const step_model *m, rng *r) {
    double worst = 0;
    for (int i = 0; i < 200; i++) {
        step_load l = random_load(r, &dense);
        double    real = (double)machine_us(&l, 1), error = (double)step_model_predict_us(m, &l) / real - 1;
        if (error < 0) error = -error;
        if (error > worst) worst = error;
    }
    return worst;
}

static void a_machine_is_known_after_a_hundred_passes(void **state) {
    (void)state;
    step_model m;
    rng        r = {.seed = 1};
    step_model_init(&m, &dense);
    for (int i = 0; i < 100; i++) {
        step_load l = random_load(&r, &dense);
        step_model_learn(&m, &l, machine_us(&l, 1));
    }
    assert_true(worst_error(&m, &r) < 0.03);
}

static void noise_does_not_drive_it_away(void **state) {
    (void)state;
    step_model m;
    rng        r = {.seed = 2};
    step_model_init(&m, &dense);
    for (int i = 0; i < 20000; i++) {
        step_load l = random_load(&r, &dense);
        step_model_learn(&m, &l, machine_us(&l, 0.9 + (double)rng_below(&r, 200) / 1000));
    }
    assert_true(worst_error(&m, &r) < 0.1);
    assert_true(m.error_share > 0.01 && m.error_share < 0.1); /* the noise's own */
}

static void a_machine_that_slows_down_is_followed(void **state) {
    (void)state;
    step_model m;
    rng        r = {.seed = 3};
    step_model_init(&m, &dense);
    for (int i = 0; i < 6000; i++) {
        step_load l = random_load(&r, &dense);
        step_model_learn(&m, &l, machine_us(&l, i < 3000 ? 0.5 : 1));
    }
    assert_true(worst_error(&m, &r) < 0.05);
}

/* A long time of one kind of pass must neither blow the fit up nor make it forget the others. */
static void a_day_of_equal_passes_unlearns_nothing(void **state) {
    (void)state;
    step_model m;
    rng        r = {.seed = 4};
    step_load  same = {0};
    step_model_init(&m, &dense);
    for (int i = 0; i < 500; i++) {
        step_load l = random_load(&r, &dense);
        step_model_learn(&m, &l, machine_us(&l, 1));
    }
    for (uint32_t i = 0; i < 8; i++) step_load_add_decode(&same, &dense, 100 * i);
    for (int i = 0; i < 200000; i++)
        step_model_learn(&m, &same, machine_us(&same, 0.95 + (double)rng_below(&r, 100) / 1000));
    assert_true(worst_error(&m, &r) < 0.5);
    for (int i = 0; i < 300; i++) {
        step_load l = random_load(&r, &dense);
        step_model_learn(&m, &l, machine_us(&l, 1));
    }
    assert_true(worst_error(&m, &r) < 0.05);
}

static void nothing_is_predicted_before_enough_was_seen(void **state) {
    (void)state;
    step_model m;
    step_load  l = {0}, nothing = {0};
    step_model_init(&m, &sparse);
    step_load_add_decode(&l, &sparse, 10);
    for (int i = 0; i < LEARNED_MIN; i++) {
        assert_int_equal(step_model_predict_us(&m, &l), 0);
        step_model_learn(&m, &l, 0); /* teaches nothing */
        step_model_learn(&m, &nothing, 5);
        step_model_learn(&m, &l, 1000);
    }
    assert_in_range(step_model_predict_us(&m, &l), 950, 1050);
    assert_int_equal(step_model_predict_us(&m, &nothing), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_is_known_after_a_hundred_passes),
        cmocka_unit_test(noise_does_not_drive_it_away),
        cmocka_unit_test(a_machine_that_slows_down_is_followed),
        cmocka_unit_test(a_day_of_equal_passes_unlearns_nothing),
        cmocka_unit_test(nothing_is_predicted_before_enough_was_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
