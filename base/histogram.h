/* base/histogram.h: how often values fell between given bounds, as Prometheus counts them. */
#pragma once
#include <stdint.h>

enum { HISTOGRAM_BOUNDS_MAX = 56 };

typedef struct {
    const double *values; /* rising; a value counts for the first bound that is not below it */
    uint32_t      count;  /* <= HISTOGRAM_BOUNDS_MAX */
} histogram_bounds;

typedef struct {
    uint64_t buckets[HISTOGRAM_BOUNDS_MAX + 1], count; /* not cumulative; the one after the last bound is +Inf */
    double   sum;
} histogram;

void histogram_observe(histogram *h, const histogram_bounds *b, double value);

extern const histogram_bounds histogram_seconds, /* 100 us to two hours */
    histogram_tokens,                            /* 1, 2, 5, 10 ... a million: prompts and answers */
    histogram_rows;                              /* 1, 2, 4, 8 ...: rows of a pass */
