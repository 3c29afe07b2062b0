/* engine/ledger.h: where a request's time went. Every microsecond between submitted and finished belongs to exactly one
 * part, so the parts add up to the whole. Pure: told the time, asks nobody.
 *
 * A request is in a pass or between two. In one it does one kind of work; the gap before the next pass belongs to that work
 * where the passes follow on one another, to STOPPED where others ran in between, and to QUEUED where its memory was taken
 * back meanwhile. What it prefills after that is RECOMPUTE until it draws its next token. */
#pragma once
#include <stdint.h>

typedef enum { LEDGER_QUEUED, LEDGER_PREFILL, LEDGER_STOPPED, LEDGER_RECOMPUTE, LEDGER_DECODE, LEDGER_PARTS } ledger_part;
extern const char *const ledger_part_names[LEDGER_PARTS]; /* "queued", ... */

/* Microseconds of the device's clock. What it is at the time of the event that carries it. */
typedef struct {
    uint64_t submitted_us, admitted_us, first_token_us, finished_us; /* 0: not yet */
    uint64_t part_us[LEDGER_PARTS];                                  /* sum: the last pass's end, or finished, - submitted */
    uint32_t prompt_tokens, cached_tokens, output_tokens, preemptions, recomputed_tokens;
} request_ledger;

/* What the engine keeps beside a request's ledger to fill it in. */
typedef struct {
    ledger_part work;        /* it does, or did last */
    uint64_t    since_us;    /* up to here the time is accounted for */
    uint64_t    last_pass;   /* its number, from 1; 0: none yet */
    uint32_t    preemptions; /* that are told and not yet accounted for: those beyond the ledger's */
} ledger_clock;

void ledger_submitted(request_ledger *l, ledger_clock *c, uint32_t prompt_tokens, uint64_t now_us);
/* What the scheduler says of it: how often its memory was taken back, and what was computed again for that. */
void ledger_preempted(request_ledger *l, ledger_clock *c, uint32_t preemptions, uint32_t recomputed_tokens);
void ledger_pass_begins(request_ledger *l, ledger_clock *c, uint64_t pass, uint64_t now_us);
void ledger_pass_ends(request_ledger *l, ledger_clock *c, uint64_t pass, uint64_t now_us);
void ledger_token(request_ledger *l, ledger_clock *c, uint64_t now_us);
/* last_pass: the engine's, which tells whether this one was going on or stood still. */
void ledger_finished(request_ledger *l, ledger_clock *c, uint64_t last_pass, uint64_t now_us);
