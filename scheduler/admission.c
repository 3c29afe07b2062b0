#include "scheduler/admission.h"

/* Enters when its prompt fits now, and one page is left for each sequence that runs: else the first of them to cross a
 * page boundary would take the memory of the one that just came in. Uses memory best while outputs stay short; when they
 * do not, reclaim pays. */
static bool greedy_admits(const scheduler_config *c, const admission_view *v) {
    (void)c;
    return (uint64_t)v->needs_now + v->running <= v->available;
}

/* Enters when it and everybody who runs could reach their output limits together. Nothing is ever taken back; most of
 * the memory waits for outputs that end early. */
static bool conservative_admits(const scheduler_config *c, const admission_view *v) {
    (void)c;
    return v->needs_ever + v->promised <= v->available;
}

/* Enters when, as lengths are predicted, memory will last for all who then run at the worst moment to come (outlook.c).
 * What decides is neither what is held now nor what all may reach: they end one after the other. A part is kept free for
 * what the prediction misses. With nobody running there is nothing to foresee: who fits enters. */
static bool past_future_admits(const scheduler_config *c, const admission_view *v) {
    const uint32_t percent = c->admission.reserve_percent ? c->admission.reserve_percent : RESERVE_PERCENT;
    const uint64_t most = c->page_count - (uint64_t)c->page_count * percent / 100;
    return greedy_admits(c, v) && (v->running == 0 || v->peak <= most);
}

const admission_api admission_greedy = {greedy_admits, .looks_ahead = false};
const admission_api admission_conservative = {conservative_admits, .looks_ahead = false};
const admission_api admission_past_future = {past_future_admits, .looks_ahead = true};
