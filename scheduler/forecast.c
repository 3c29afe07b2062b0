#include "scheduler/forecast.h"

#include <string.h>

#include "base/error.h"

void forecast_init(forecast *f, uint32_t lives_max, uint32_t page_tokens, carver *c) {
    *f = (forecast){.page_tokens = page_tokens, .lives_max = lives_max};
    f->lives = carve(c, lives_max, sizeof *f->lives);
    f->tree = carve(c, (size_t)page_tokens + 1, sizeof *f->tree);
}

/* By insertion: all grow older together, so they stay nearly sorted. */
static void sort(forecast_life *lives, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        const forecast_life one = lives[i];
        uint32_t            at = i;
        for (; at > 0 && lives[at - 1].passes < one.passes; at--) lives[at] = lives[at - 1];
        lives[at] = one;
    }
}

static void count_remainder(forecast *f, uint32_t remainder) {
    for (uint32_t i = remainder + 1; i <= f->page_tokens; i += i & -i) f->tree[i]++;
}

static uint32_t remainders_below(const forecast *f, uint32_t bound) {
    uint32_t sum = 0;
    for (uint32_t i = bound; i > 0; i -= i & -i) sum += f->tree[i];
    return sum;
}

/* pages(tokens + t) = floor((tokens + page - 1 + t) / page): of both summands the whole parts, and one more where the
 * remainders together fill a page. */
uint64_t forecast_peak(forecast *f, uint32_t count) {
    const uint32_t page = f->page_tokens;
    uint64_t       whole = 0, peak = 0;
    check(count <= f->lives_max);
    sort(f->lives, count);
    memset(f->tree, 0, ((size_t)page + 1) * sizeof *f->tree);
    for (uint32_t i = 0; i < count; i++) {
        const forecast_life *x = &f->lives[i];
        const uint64_t       filled = (uint64_t)x->tokens + page - 1;
        const uint32_t       part = x->passes % page;
        whole += filled / page - x->free;
        count_remainder(f, (uint32_t)(filled % page));
        const uint64_t then = whole + (uint64_t)(i + 1) * (x->passes / page) + (i + 1 - remainders_below(f, page - part));
        if (then > peak) peak = then;
    }
    return peak;
}
