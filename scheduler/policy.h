/* scheduler/policy.h: five questions, each answered by a small table of functions.
 *
 * The axes stay independent because each is told little. plan.c alone composes them. A new policy is a new table in
 * order.c, admission.c, slicing.c, reclaim.c or kvcache/retention.c, and a row where scheduler.c looks names up. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kvcache/retention.h"
#include "scheduler/scheduler.h"

/* ---- order: who goes first? Sees one request and the time, never pages. Ties go to the earlier arrival. ---- */
typedef struct {
    const scheduler_request *request;
    uint64_t                 arrival; /* its number, from 1 */
    uint32_t                 known_tokens;
} order_view;

typedef struct {
    const char *name;
    uint64_t (*key)(const order_view *q, uint64_t now_us); /* lower goes first */
} order_api;

/* ---- admission: may this one enter? Says yes or no to one candidate, never reorders. Pages, beyond those it found in
 * the cache and holds already: ---- */
typedef struct {
    uint32_t needs_now;  /* to compute what it knows and its next token */
    uint32_t needs_ever; /* for its longest possible life */
    uint32_t available;  /* free, or kept and unheld */
    uint32_t running;    /* sequences */
    uint64_t promised;   /* what the running may still need in their longest possible lives */
} admission_view;

typedef struct {
    const char *name;
    bool (*admits)(const admission_view *v);
} admission_api;

/* ---- slicing: how is a prompt cut? Gets the budget of the pass and one piece of a prompt, returns how much of it to
 * take. It does not choose the prompt. ---- */
typedef struct {
    uint32_t decode_rows, prefill_rows; /* in the pass so far */
    uint32_t rows_left;                 /* > 0 */
} pass_budget;

typedef struct {
    uint32_t tokens;           /* neighbours at the same operator */
    uint32_t op_begin, op_end; /* where they are, and how far the tokens before them allow them to go */
} prefill_piece;

typedef struct {
    uint32_t tokens; /* from the first; <= rows_left */
    uint32_t op_end;
} prefill_cut;

typedef struct {
    const char *name;
    /* false: the pass takes no more. Must say yes to a pass without prefill rows. */
    bool (*next)(const scheduler_config *c, const pass_budget *b, const prefill_piece *p, prefill_cut *out);
} slicing_api;

/* ---- reclaim: whose memory is taken back when a running sequence cannot grow? Names one of several. ---- */
typedef struct {
    uint64_t arrival;
    uint32_t known_tokens, done_tokens, pages;
} running_view;

typedef struct {
    const char *name;
    /* Index into running[count], count >= 2. last_victim: an arrival number, 0: none yet. */
    uint32_t (*victim)(const running_view *running, uint32_t count, uint64_t last_victim);
} reclaim_api;

extern const order_api     order_fcfs;
extern const admission_api admission_greedy, admission_conservative;
extern const slicing_api   slicing_chunked, slicing_whole, slicing_layered;
extern const reclaim_api   reclaim_recompute;
