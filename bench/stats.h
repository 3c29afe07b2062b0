/* bench/stats.h: samples and what is said of them. */
#pragma once
#include <stddef.h>

typedef struct {
    double *values;
    size_t  count, capacity;
} series;

void series_add(series *s, double v);
void series_free(series *s);

/* What NumPy says of the same samples: the standard deviation of the population, percentiles by linear interpolation. All 0
 * where there are none. */
typedef struct {
    size_t count;
    double mean, std, min, max, p50, p90, p95, p99, p999;
} distribution;

distribution series_describe(series *s);                     /* sorts it */
double       series_percentile(const series *s, double p);   /* p in 0..100; of sorted samples */
double       series_share_below(const series *s, double at); /* of sorted samples, those <= at; 0..1 */
