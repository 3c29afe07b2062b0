/* The fit of measurements to a fixed part, rows, bytes and operations (bench/fit.h). */
#include "bench/fit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"

enum { SAMPLES = 40 };

static double between(uint64_t seed, uint64_t i, double low, double high) {
    return low * pow(high / low, (double)rng_u64(seed, 0, i) / 18446744073709551616.0);
}

/* Samples of 1 to 16 rows, bytes 1e3..1e9 and operations 1e4..1e12, for which the given weights are exact. */
static void draw(fit_sample s[SAMPLES], uint64_t seed, const double w[FIT_TERMS]) {
    for (uint32_t i = 0; i < SAMPLES; i++) {
        s[i] = (fit_sample){.x = {1, 1 + i % 16, between(seed, 2 * i, 1e3, 1e9), between(seed, 2 * i + 1, 1e4, 1e12)}};
        for (int t = 0; t < FIT_TERMS; t++) s[i].y += w[t] * s[i].x[t];
    }
}

static double miss_of(const fit_sample *s, uint32_t n, const double w[FIT_TERMS]) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        double y = 0;
        for (int t = 0; t < FIT_TERMS; t++) y += w[t] * s[i].x[t];
        sum += (y / s[i].y - 1) * (y / s[i].y - 1);
    }
    return sqrt(sum / n);
}

static void what_is_exactly_linear_is_found_again(void **state) {
    (void)state;
    static const double given[][FIT_TERMS] = {
        {3000, 500, 0.02, 0.004}, {500, 0, 0.3, 0}, {0, 0, 0.02, 0.004}, {100, 0, 0, 0}, {0, 40, 0, 0}};
    for (size_t k = 0; k < sizeof given / sizeof *given; k++) {
        fit_sample s[SAMPLES];
        double     w[FIT_TERMS];
        draw(s, k, given[k]);
        assert_true(fit_nonnegative(s, SAMPLES, w) < 1e-6);
        for (int t = 0; t < FIT_TERMS; t++) assert_true(fabs(w[t] - given[k][t]) <= 1e-4 * given[k][t] + 1e-12);
    }
}

static void no_term_is_below_zero_and_no_other_weights_above_it_are_better(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        fit_sample s[SAMPLES];
        double     w[FIT_TERMS], other[FIT_TERMS];
        draw(s, seed, (double[]){1000, 300, 0.1, 0.001});
        for (uint32_t i = 0; i < SAMPLES; i++) s[i].y *= between(seed + 1000, i, 0.3, 3); /* a machine that is not alone */
        const double miss = fit_nonnegative(s, SAMPLES, w);
        assert_true(fabs(miss - miss_of(s, SAMPLES, w)) < 1e-9);
        for (int t = 0; t < FIT_TERMS; t++) assert_true(w[t] >= 0);
        for (uint64_t k = 0; k < 200; k++) {
            for (int t = 0; t < FIT_TERMS; t++)
                other[t] = w[t] * between(seed, 100 + k * 4 + t, 0.8, 1.25) +
                           (k % 4 == (uint64_t)t ? between(seed, 5000 + k, 1e-6, 1) * (double[]){1e4, 1e4, 1, 0.01}[t] : 0);
            assert_true(miss_of(s, SAMPLES, other) >= miss - 1e-9);
        }
    }
}

static void terms_that_measurements_do_not_tell_apart_still_give_a_prediction(void **state) {
    (void)state;
    fit_sample s[8];
    double     w[FIT_TERMS];
    for (uint32_t i = 0; i < 8; i++) s[i] = (fit_sample){{1, 0, 10.0 * i + 10, 20.0 * i + 20}, 5 + 3 * (10.0 * i + 10)};
    assert_true(fit_nonnegative(s, 8, w) < 1e-6);
    assert_true(fit_nonnegative(s, 1, w) < 1e-6);
}

static void nothing_measured_is_nothing_fitted(void **state) {
    (void)state;
    double w[FIT_TERMS] = {1, 2, 3, 4};
    assert_true(isinf(fit_nonnegative(NULL, 0, w)));
    for (int t = 0; t < FIT_TERMS; t++) assert_true(w[t] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_exactly_linear_is_found_again),
        cmocka_unit_test(no_term_is_below_zero_and_no_other_weights_above_it_are_better),
        cmocka_unit_test(terms_that_measurements_do_not_tell_apart_still_give_a_prediction),
        cmocka_unit_test(nothing_measured_is_nothing_fitted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
