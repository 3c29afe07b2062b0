/* scheduler/preemption.h: when does running work yield?
 *
 * Asked between the operators of a pass that may be stopped (prefill only, a frame for every slice): a stop loses nothing,
 * the rows wait in their frames. How memory is taken back is reclaim.h's. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/config.h"

typedef enum { STOP_NONE, STOP_CANCELLED, STOP_OUTRANKED, STOP_TOKEN_DUE, STOP_REASONS } stop_reason;

typedef struct {
    bool cancelled; /* somebody in the pass is gone */
    bool outranked; /* the first in the queue goes before everybody in the pass, and nothing is known to keep it out */
    bool token_due; /* decodes wait for this pass, and one would miss its token's deadline if it went on */
} stop_view;

/* Decodes, and prompts that could run without them. */
typedef struct {
    uint64_t left_us;   /* until the tightest of the decodes wants its token; NO_DUE: one of them does not say */
    uint64_t decode_us; /* what a pass of the decodes alone is predicted to take; 0: unknown */
} wait_view;

typedef struct {
    stop_reason (*stops)(const stop_view *v);
    /* May the decodes wait for a pass of prefill alone, which is stopped in time for them? NULL: never. */
    bool (*waits)(const scheduler_config *c, const wait_view *v);
    /* May a prompt of `tokens` join `rows` > 0 of others in a pass of prefill alone? NULL: always. */
    bool (*joins)(const scheduler_config *c, uint32_t rows, uint32_t tokens);
} preemption_api;

extern const preemption_api preemption_none, preemption_operator;
