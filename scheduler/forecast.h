/* scheduler/forecast.h: how many pages the running will need at the worst moment that is still to come.
 *
 * Problem: what decides whether one more may run is not what memory holds now, nor the sum of what all may reach, but the
 * peak over time: they grow together and end one after the other, and who ends gives its pages back. (The Past-Future
 * scheduler of LightLLM.)
 * Choice: each life is told by three numbers: the tokens it has, for how many passes it lives, the pages it does not pay
 * for. All grow by one token a pass, so memory peaks only where somebody ends; there the pages of all who live as long or
 * longer are counted, exactly: pages are whole, so tokens are rounded up one by one and not together.
 * Cost: lives sorted by length, then one walk with a Fenwick tree over the remainders tokens % page_tokens, so that the
 * rounding of all at one moment costs a logarithm: n log(page_tokens). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/carve.h"

typedef struct {
    uint32_t tokens; /* that it has now */
    uint32_t passes; /* after this one in which it grows by a token; then it is gone */
    uint32_t free;   /* of its pages, those counted elsewhere: found in the cache, shared */
    uint32_t item;   /* whose; for the caller */
} forecast_life;

typedef struct {
    uint32_t       page_tokens, lives_max;
    forecast_life *lives; /* [lives_max]; the caller fills them in, the longest first as far as it knows */
    uint32_t      *tree;  /* [page_tokens + 1] */
} forecast;

void forecast_init(forecast *f, uint32_t lives_max, uint32_t page_tokens, carver *c);
/* Most pages that lives[0..count) will hold at once. Sorts them: the longest first. */
uint64_t forecast_peak(forecast *f, uint32_t count);
