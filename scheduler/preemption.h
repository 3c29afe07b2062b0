/* scheduler/preemption.h: when does running work yield, and how is memory taken back?
 *
 * Two tables. `preemption` is asked between the operators of a pass that may be stopped (prefill only, a frame for every
 * slice): a stop loses nothing, the rows wait in their frames. `reclaim` is asked when a running sequence cannot grow. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* ---- preemption ---- */
typedef struct {
    bool cancelled; /* somebody in the pass is gone */
    bool outranked; /* the first in the queue goes before everybody in the pass, and a slot is free */
} stop_view;

typedef struct {
    bool (*stops)(const stop_view *v);
} preemption_api;

/* ---- reclaim: names one of several ---- */
typedef struct {
    uint64_t arrival;
    uint32_t known_tokens, done_tokens, pages;
} running_view;

typedef struct {
    /* Index into running[count], count >= 2. last_victim: an arrival number, 0: none yet. */
    uint32_t (*victim)(const running_view *running, uint32_t count, uint64_t last_victim);
} reclaim_api;

extern const preemption_api preemption_none;
extern const reclaim_api    reclaim_recompute;
