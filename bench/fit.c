#include "bench/fit.h"

#include <math.h>
#include <stdbool.h>

#define PIVOT_LEAST 1e-12 /* of columns scaled to 1: below it two terms are not told apart */

static double predict(const fit_sample *s, const double w[FIT_TERMS]) {
    double y = 0;
    for (int t = 0; t < FIT_TERMS; t++) y += w[t] * s->x[t];
    return y;
}

/* Normal equations of the terms in `use`, in units in which each column's length is 1; row TERMS of a is the right side. */
static void make_equations(const fit_sample *s, uint32_t n, double scale[FIT_TERMS], double a[FIT_TERMS][FIT_TERMS + 1]) {
    for (int t = 0; t < FIT_TERMS; t++) {
        double squares = 0;
        for (uint32_t i = 0; i < n; i++) squares += s[i].x[t] / s[i].y * (s[i].x[t] / s[i].y);
        scale[t] = squares > 0 ? 1 / sqrt(squares) : 0;
    }
    for (int r = 0; r < FIT_TERMS; r++)
        for (int c = 0; c <= FIT_TERMS; c++) {
            a[r][c] = 0;
            for (uint32_t i = 0; i < n; i++)
                a[r][c] += scale[r] * s[i].x[r] / s[i].y * (c == FIT_TERMS ? 1 : scale[c] * s[i].x[c] / s[i].y);
        }
}

/* Gauss-Jordan over the terms in `use`. False: they are not told apart. */
static bool solve(double a[FIT_TERMS][FIT_TERMS + 1], unsigned use) {
    for (int p = 0; p < FIT_TERMS; p++) {
        if (!(use >> p & 1)) continue;
        if (fabs(a[p][p]) < PIVOT_LEAST) return false;
        for (int r = 0; r < FIT_TERMS; r++) {
            if (r == p || !(use >> r & 1)) continue;
            const double factor = a[r][p] / a[p][p];
            for (int c = p; c <= FIT_TERMS; c++) a[r][c] -= factor * a[p][c];
        }
    }
    return true;
}

static bool fit_terms(const fit_sample *s, uint32_t n, unsigned use, double w[FIT_TERMS]) {
    double scale[FIT_TERMS], a[FIT_TERMS][FIT_TERMS + 1];
    make_equations(s, n, scale, a);
    if (!solve(a, use)) return false;
    for (int t = 0; t < FIT_TERMS; t++) {
        w[t] = use >> t & 1 ? scale[t] * a[t][FIT_TERMS] / a[t][t] : 0;
        if (!(w[t] >= 0)) return false;
    }
    return true;
}

static double miss(const fit_sample *s, uint32_t n, const double w[FIT_TERMS]) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double share = predict(&s[i], w) / s[i].y - 1;
        sum += share * share;
    }
    return sqrt(sum / n);
}

double fit_nonnegative(const fit_sample *s, uint32_t count, double w[FIT_TERMS]) {
    double least = INFINITY;
    for (int t = 0; t < FIT_TERMS; t++) w[t] = 0;
    if (count == 0) return least;
    for (unsigned use = 1; use < 1u << FIT_TERMS; use++) {
        double tried[FIT_TERMS];
        if (!fit_terms(s, count, use, tried) || miss(s, count, tried) >= least) continue;
        least = miss(s, count, tried);
        for (int t = 0; t < FIT_TERMS; t++) w[t] = tried[t];
    }
    return least;
}
