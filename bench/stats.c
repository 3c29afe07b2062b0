#include "bench/stats.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"

void series_add(series *s, double v) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 256;
        s->values = realloc(s->values, s->capacity * sizeof *s->values);
        if (!s->values) fatal("out of memory for %zu samples", s->capacity);
    }
    s->values[s->count++] = v;
}

void series_free(series *s) {
    free(s->values);
    *s = (series){0};
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double series_percentile(const series *s, double p) {
    if (!s->count) return 0;
    double at = p / 100 * (double)(s->count - 1), whole = floor(at);
    size_t i = (size_t)whole;
    if (i + 1 >= s->count) return s->values[s->count - 1];
    return s->values[i] + (at - whole) * (s->values[i + 1] - s->values[i]);
}

double series_share_below(const series *s, double at) {
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->values[middle] <= at) low = middle + 1;
        else high = middle;
    }
    return s->count ? (double)low / (double)s->count : 0;
}

static bool is_sorted(const series *s) {
    for (size_t i = 1; i < s->count; i++)
        if (s->values[i - 1] > s->values[i]) return false;
    return true;
}

distribution series_describe(series *s) {
    distribution d = {.count = s->count};
    double       sum = 0, squares = 0;
    if (!s->count) return d;
    if (!is_sorted(s)) qsort(s->values, s->count, sizeof *s->values, by_value);
    for (size_t i = 0; i < s->count; i++) sum += s->values[i];
    d.mean = sum / (double)s->count;
    for (size_t i = 0; i < s->count; i++) squares += (s->values[i] - d.mean) * (s->values[i] - d.mean);
    d.std = sqrt(squares / (double)s->count);
    d.min = s->values[0], d.max = s->values[s->count - 1];
    d.p50 = series_percentile(s, 50), d.p90 = series_percentile(s, 90);
    d.p95 = series_percentile(s, 95), d.p99 = series_percentile(s, 99);
    d.p999 = series_percentile(s, 99.9);
    return d;
}
