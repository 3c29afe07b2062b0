/* scheduler/outlook.c: what the running will hold at the worst moment to come, from the lengths of past answers.
 *
 * Each running sequence is a life of forecast.h: the tokens it knows, and the passes until it has as many as it is predicted
 * to have in the end. A prediction is a quantile of what answers of its tenant that were so long still said, and stands
 * until it is outlived; then the question is asked again, of the answers that were at least that long. So nothing is
 * predicted twice in vain, and an answer that surprises counts for more from then on. Before enough answers have ended
 * (length_model.h) nothing is foreseen, and who fits enters: to take each for as long as its limit would be safe, and leave
 * most of the machine idle while a queue builds up that lasts long after. What that costs is some memory taken back in the
 * first minute. A prompt that is still being computed holds all its pages already and begins to grow some passes later, so
 * it lives longer: by its rows over the rows of a chunk. Pages that a sequence found in the cache are not its own. What is
 * held now and is nobody's own (prefixes that are shared, what the candidate found, what is kept for jobs) is taken to stay:
 * once, however many share it. */
#include "scheduler/state.h"

#include <string.h>

#include "base/error.h"

static uint32_t predicted_end(scheduler *s, uint32_t index) {
    const sequence          *q = &s->sequences[index];
    const scheduler_request *r = &s->records[index].request;
    const uint32_t           percent = s->config.admission.quantile_percent;
    const double             quantile = (percent ? percent : QUANTILE_PERCENT) / 100.0;
    const uint32_t           left = length_model_left(&s->lengths, r->tenant.id, q->known - r->prompt_tokens, quantile);
    return left < q->limit - q->known ? q->known + left : q->limit;
}

static forecast_life life_of(scheduler *s, uint32_t index, uint32_t done, uint32_t cached_tokens) {
    sequence      *q = &s->sequences[index];
    const uint32_t rows = q->known - done, chunk = s->config.slicing.chunk_tokens; /* a decode: one row, of this pass */
    if (q->ends <= q->known) q->ends = predicted_end(s, index);
    return (forecast_life){.tokens = q->known,
                           .passes = q->ends - q->known - 1 + (rows - 1) / chunk,
                           .free = cached_tokens / s->config.page_tokens,
                           .item = index};
}

void outlook_add(scheduler *s, uint32_t index) {
    if (!s->policies.admission->looks_ahead) return;
    s->expected[s->expected_count++] = index;
}

void outlook_remove(scheduler *s, uint32_t index) {
    if (!s->policies.admission->looks_ahead) return;
    uint32_t at = 0;
    while (at < s->expected_count && s->expected[at] != index) at++;
    check(at < s->expected_count);
    s->expected_count--;
    memmove(s->expected + at, s->expected + at + 1, (s->expected_count - at) * sizeof *s->expected);
}

uint64_t outlook_peak(scheduler *s, uint32_t index, uint32_t cached_tokens) {
    forecast_life *lives = s->forecast.lives;
    uint64_t       own = 0;
    if (!length_model_knows(&s->lengths)) return 0;
    for (uint32_t i = 0; i < s->expected_count; i++) {
        const staircase *st = &s->stairs[s->sequences[s->expected[i]].slot];
        lives[i] = life_of(s, s->expected[i], st->done, st->cached);
        own += pages_for(s, lives[i].tokens) - lives[i].free;
    }
    lives[s->expected_count] = life_of(s, index, cached_tokens, cached_tokens);
    const uint32_t held = kvcache_count(s->kv).held;
    const uint64_t peak = forecast_peak(&s->forecast, s->expected_count + 1) + (held > own ? held - own : 0);
    uint32_t       count = 0;
    for (uint32_t i = 0; i <= s->expected_count; i++) /* as sorted, for the next time */
        if (lives[i].item != index) s->expected[count++] = lives[i].item;
    check(count == s->expected_count);
    s->totals.forecast_pages = peak;
    return peak;
}
