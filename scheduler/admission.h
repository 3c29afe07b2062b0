/* scheduler/admission.h: may this one enter? Says yes or no to one candidate, never reorders. After the first no nobody
 * else is asked, so nobody is starved by being passed. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/config.h"

/* Pages, beyond those the candidate found in the cache and holds already. */
typedef struct {
    uint32_t needs_now;  /* to compute what it knows and its next token */
    uint32_t needs_ever; /* for its longest possible life */
    uint32_t available;  /* free, or kept and unheld */
    uint32_t running;    /* sequences */
    uint64_t promised;   /* what the running may still need in their longest possible lives */
    uint64_t peak; /* all that will be held at the worst moment to come, it included, as predicted; 0 unless asked for */
} admission_view;

typedef struct {
    bool (*admits)(const scheduler_config *c, const admission_view *v);
    bool looks_ahead; /* reads `peak` */
} admission_api;

extern const admission_api admission_greedy, admission_conservative, admission_past_future;
