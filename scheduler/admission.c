#include "scheduler/admission.h"

/* Enters when its prompt fits now, and one page is left for each sequence that runs: else the first of them to cross a
 * page boundary would take the memory of the one that just came in. Uses memory best while outputs stay short; when they
 * do not, reclaim pays. */
static bool greedy_admits(const admission_view *v) { return (uint64_t)v->needs_now + v->running <= v->available; }

/* Enters when it and everybody who runs could reach their output limits together. Nothing is ever taken back; most of
 * the memory waits for outputs that end early. */
static bool conservative_admits(const admission_view *v) { return v->needs_ever + v->promised <= v->available; }

const admission_api admission_greedy = {greedy_admits};
const admission_api admission_conservative = {conservative_admits};
