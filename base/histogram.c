#include "base/histogram.h"

static const double seconds[] = {.0001, .0002, .0005, .001, .002, .003, .004, .005, .0075, .01,  .015, .02, .025,
                                 .03,   .04,   .05,   .06,  .075, .08,  .1,   .15,  .2,    .25,  .3,   .4,  .5,
                                 .75,   .8,    1,     1.5,  2,    2.5,  5,    7.5,  10,    15,   20,   30,  40,
                                 50,    60,    80,    120,  160,  240,  480,  640,  960,   1920, 2560, 7680};
static const double tokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
static const double rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

#define BOUNDS(a)                                                                                                           \
    { a, sizeof(a) / sizeof *(a) }
const histogram_bounds histogram_seconds = BOUNDS(seconds), histogram_tokens = BOUNDS(tokens), histogram_rows = BOUNDS(rows);
_Static_assert(sizeof seconds / sizeof *seconds <= HISTOGRAM_BOUNDS_MAX, "a histogram has room for every bound");

void histogram_observe(histogram *h, const histogram_bounds *b, double value) {
    uint32_t low = 0, high = b->count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (b->values[middle] < value) low = middle + 1;
        else high = middle;
    }
    h->buckets[low]++;
    h->count++;
    h->sum += value;
}
