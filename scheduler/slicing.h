/* scheduler/slicing.h: how is a prompt cut? Gets the budget of the pass and one piece of a prompt, returns how much of it
 * to take. It does not choose the prompt. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/config.h"
#include "scheduler/step_model.h"

typedef struct {
    uint32_t          decode_rows, prefill_rows; /* in the pass so far */
    uint32_t          rows_left;                 /* > 0 */
    uint64_t          left_us;                   /* until the tightest decode in it wants its token; NO_DUE: none does */
    const step_load  *load;                      /* of the pass so far */
    const step_model *steps;                     /* what a larger one would take */
} pass_budget;
#define NO_DUE UINT64_MAX

typedef struct {
    uint32_t tokens;           /* neighbours at the same operator */
    uint32_t begin;            /* position of the first: what lies before it is attended to */
    uint32_t op_begin, op_end; /* where they are, and how far the tokens before them allow them to go */
} prefill_piece;

typedef struct {
    uint32_t tokens; /* from the first; <= rows_left */
    uint32_t op_end;
} prefill_cut;

typedef struct {
    /* false: the pass takes no more. Must say yes to a pass without prefill rows. */
    bool (*next)(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out);
} slicing_api;

extern const slicing_api slicing_chunked, slicing_whole, slicing_layered, slicing_auto;
