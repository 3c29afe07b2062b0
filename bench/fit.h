/* bench/fit.h: what a fixed part, a row, a byte and an operation cost, from measurements.
 *
 * Problem: kinds of operators take from a microsecond to a second, and a machine measured while others use it is off by a
 * share of the time, not by microseconds.
 * Choice: least squares of the relative error, so that each measurement counts alike; no term below zero, since a model with
 * negative costs predicts nonsense outside of what was measured. There are four terms, so every choice of those that are
 * above zero is tried, which finds the best one exactly. */
#pragma once
#include <stdint.h>

enum { FIT_TERMS = 4 };

typedef struct {
    double x[FIT_TERMS], y; /* y above 0 */
} fit_sample;

/* Fills w with the weights >= 0 for which the sums of w[t] x[t] are closest to y. Returns the root of the mean square of the
 * relative error; infinity, and weights of 0, where there is nothing to fit. */
double fit_nonnegative(const fit_sample *s, uint32_t count, double w[FIT_TERMS]);
