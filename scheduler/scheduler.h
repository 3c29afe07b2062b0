/* scheduler/scheduler.h: what runs next, and what it may keep. Pure: the same calls give the same answers.
 *
 * Events go in (submit, cancel, pass done, pass stopped), a plan comes out. Time is an argument that never goes
 * backwards, nothing is allocated after construction, nothing here knows a device, a socket or a thread; so this very
 * code runs in the daemon and, a million events from one seed, in tests/sim.
 *
 * The prefill plane (docs/architecture.md): a prompt is a rectangle of tokens x operators, and what is done of it is a
 * staircase: the frontier operator never rises as the token index grows. A plan is a set of slices that walk the program
 * together. One plan is in flight at a time: plan -> (the engine walks it) -> pass_done or pass_stopped -> plan ... */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kvcache/page_copy.h"
#include "scheduler/config.h"

typedef struct scheduler scheduler;

/* Whose request it is. Requests without a tenant share number 0, so that nobody mints shares. */
typedef struct {
    uint64_t id;
    double   weight; /* of its share where tenants compete; 0: 1 */
} request_tenant;

/* The longer piece of work that a request is one turn of, and what follows the turn. */
typedef struct {
    uint64_t id;              /* 0: none */
    uint64_t tool;            /* what runs between this turn and the next, as a hash of its name; 0: unknown */
    uint64_t expected_gap_us; /* until the next turn comes; 0: unknown */
    uint64_t ttl_us;          /* how long to keep what this turn leaves in the cache; 0: the policy's choice */
    bool     last_step;       /* no turn follows */
} request_job;

/* What it wants of time. 0: nothing. */
typedef struct {
    uint64_t ttft_us;         /* first token, after arrival */
    uint64_t tbt_us;          /* each token, after the one before */
    uint64_t deadline_us;     /* whole answer, after arrival */
    uint64_t job_deadline_us; /* the last answer of its job, after the job's first request came */
    double   value;           /* of an answer in time, or of a job, beside others; 0: 1 */
} request_slo;

typedef struct {
    uint64_t        id;     /* unique among the live ones; chosen by the caller, any value */
    const uint32_t *tokens; /* room for prompt_tokens + output_tokens_max; the caller appends each sampled token at its place
                               BEFORE reporting it, and keeps the array until the request has ended */
    uint32_t prompt_tokens, output_tokens_max;
    uint64_t cache_salt;   /* prefixes are shared only among equal salts */
    bool     computes_all; /* the cache is not asked for its prefix: every row of the prompt is wanted */
    /* what policies look at; 0: not said */
    uint64_t       arrived_us; /* when it was submitted: waiting and SLOs count from it; 0, or later than now: now */
    int32_t        priority;   /* lower goes first */
    request_tenant tenant;
    request_job    job;
    request_slo    slo;
} scheduler_request;

/* ---- events ---- */
/* OK; ERR_FULL: the waiting queue is full (nothing changed); ERR_TOO_LARGE: can never run with these limits;
 * ERR_INVALID: no tokens, or the id is live. */
int scheduler_submit(scheduler *s, uint64_t now_us, const scheduler_request *r, error *err);
/* The request is gone: at once, or, where a pass in flight has its rows, when that pass is reported. false: not here.
 * Its token array may be freed once scheduler_is_live says false. */
bool scheduler_cancel(scheduler *s, uint64_t now_us, uint64_t id);
bool scheduler_is_live(const scheduler *s, uint64_t id);
/* No turn of the job will follow: what is pinned for it is let go, and it is forgotten once nothing of it waits or runs.
 * false: there is no such job. */
bool scheduler_end_job(scheduler *s, uint64_t now_us, uint64_t job);

/* The priority of a request that waits or runs is another from now on. false: not here. */
bool scheduler_set_priority(scheduler *s, uint64_t now_us, uint64_t id, int32_t priority);

#define NO_FRAME UINT32_MAX
/* Where a suspended slice's rows lie. Slices of one pass share a frame, so one frame is one stopped pass, however many
 * prompts it had; a slice that is taken up later may be cut by tokens, and then takes only its part of the rows. */
typedef struct {
    uint32_t frame; /* NO_FRAME: none */
    uint32_t row;   /* of the slice's first token; row + its tokens <= frame_tokens */
} frame_place;

typedef struct {
    uint64_t id;
    uint32_t slot;                   /* of a running sequence, < running_max; stable while it runs */
    uint32_t token_begin, token_end; /* positions in the sequence (prompt and generated) */
    uint32_t op_begin, op_end;       /* operators; op_begin > 0 continues from frame_in; op_end is op_count or at most where
                                        the last layer ends (a stop, too: logits are not kept) */
    frame_place frame_in;            /* none where op_begin is 0 */
    frame_place frame_out;           /* for the rows if the slice ends before op_count, as planned or by a stop; the same
                                        place as frame_in where there is one */
    bool samples;                    /* the last row reaches the end and is the sequence's newest token: draw the next */
} slice;

typedef struct {
    uint32_t     slice_count;
    const slice *slices; /* decode rows (one token wide, uncut) first; owned by the scheduler until the next call */
    uint32_t     decode_rows, prefill_rows; /* the first decode_rows slices are decodes; 0 where the decodes wait */
    bool         stoppable; /* prefill only, every slice has a frame_out: may be stopped at an operator boundary */
    /* To be begun before the pass, and also where there is none. Bounded by reclaim.copies_max with those in flight. */
    uint32_t         copy_count;
    const page_copy *copies;
    uint64_t         waits_for; /* the pass writes to a page that this copy touches: it begins after it; 0: none */
} plan;

/* Decides the next pass. false: nothing can run now (ask again after the next event). Must not be called while a plan is
 * in flight. */
bool scheduler_plan(scheduler *s, uint64_t now_us, plan *out);

typedef struct {
    uint32_t token;
    bool     finished; /* the engine's verdict: end of sequence, length, stop, or failed */
} slice_outcome;
/* The plan in flight was walked to its end. outcomes[i] belongs to slices[i] and is read only where it samples.
 * The time from plan to report is taken as what the pass cost. */
void scheduler_pass_done(scheduler *s, uint64_t now_us, const slice_outcome *outcomes);
/* A copy of an earlier plan is done, or failed; at any time. Of a copy that failed nothing is taken to have been written. */
void scheduler_copy_done(scheduler *s, uint64_t now_us, uint64_t id, bool ok);
/* The plan in flight (a stoppable one) stopped before operator `op`: rows are in each slice's frame_out; a slice that had
 * not joined yet (op_begin > op) is where it was, in its frame_in. At least one operator was done. */
void scheduler_pass_stopped(scheduler *s, uint64_t now_us, uint32_t op);

/* While a stoppable plan is in flight, after an event or at the time named below: should it be stopped before its next
 * operator? Changes nothing. */
bool scheduler_should_stop(const scheduler *s, uint64_t now_us);
/* When time alone may change an answer: scheduler_should_stop's while a plan is in flight, else scheduler_plan's.
 * UINT64_MAX: only an event can. */
uint64_t scheduler_wake_us(const scheduler *s);

/* ---- views ---- */
/* Page ids that hold positions [0, page_tokens * *count) of the running sequence in `slot`. Valid until its pass is reported
 * (what is submitted and cancelled meanwhile changes nothing there), else until the next event. */
const uint32_t *scheduler_pages(const scheduler *s, uint32_t slot, uint32_t *count);
/* Prompt tokens of the sequence that were found in the cache when it was (last) admitted. */
uint32_t scheduler_cached_tokens(const scheduler *s, uint32_t slot);

typedef struct {
    bool     running;      /* else waiting */
    uint32_t slot;         /* if running */
    uint32_t known_tokens; /* prompt and generated */
    uint32_t done_tokens;  /* of those, crossed all operators; 0 while waiting */
    uint32_t cached_tokens, preemptions, recomputed_tokens;
} scheduler_progress;
bool scheduler_read_progress(const scheduler *s, uint64_t id, scheduler_progress *out); /* false: not live */

/* What is remembered of a job, between its requests too. */
typedef struct {
    uint64_t arrived_us;    /* its first request */
    uint32_t live;          /* its requests that wait or run */
    uint32_t turns;         /* answers finished */
    uint32_t pinned_tokens; /* of its last turn, held for the next; 0: none */
    uint64_t pinned_until_us;
} scheduler_job_view;
bool scheduler_read_job(const scheduler *s, uint64_t job, scheduler_job_view *out); /* false: not remembered */

typedef struct {
    uint32_t running, waiting;
    uint64_t waiting_tokens;
    uint32_t pages_total, pages_free, pages_cached, pages_held; /* total == free + cached (unreferenced) + held */
    uint32_t frames_used;
    uint64_t accepted, refused, finished, cancelled, preempted;
    uint64_t displaced;                           /* of the preempted: gave their place to a better priority */
    uint64_t prompt_tokens, prompt_cached_tokens; /* of requests admitted for the first time; found in the cache then */
    uint64_t generated_tokens, recomputed_tokens;
    uint64_t cache_queried_tokens, cache_hit_tokens, pages_evicted;
    uint64_t passes_done, passes_stopped, passes_us;            /* us: from plan to report, both kinds */
    uint64_t stops_cancelled, stops_outranked, stops_token_due; /* passes stopped because somebody in it was gone; somebody
                                                                   went before all of it; a decode wanted its token */
    uint64_t passes_beside;                                     /* of prefill alone while decodes waited */
    double   step_error_share;   /* of the step-time model: moving mean of its relative error */
    uint32_t jobs;               /* remembered, live ones included */
    uint64_t forecast_pages;     /* admission past-future: the worst moment to come, when it was last asked */
    uint64_t elders;             /* went first because others had passed them for long enough */
    uint32_t tenants;            /* with requests that wait or run */
    double   jain;               /* of device time per second of having prompts to compute, over the weight: fair.h */
    uint32_t pins, pages_pinned; /* now: jobs whose pages are held for their next turn; those pages, each once */
    uint32_t host_pages_total, host_pages_used, host_pages_held; /* used: hold a copy; held: of who waits in line */
    uint32_t copies_open, swapped, arriving; /* now: copies in flight; sequences that wait in line for memory with pages on
                                                the host; that are admitted and wait for copies */
    uint64_t swap_out_pages, swap_in_pages, swap_clean_pages,
        swap_failed_pages;   /* clean: needed no copy, for one was there */
    uint64_t swap_in_tokens; /* that so were not computed again */
    double   page_copy_us;
    uint64_t pins_made, pins_refused;                           /* refused: over a budget */
    uint64_t pins_hit, pins_expired, pins_broken, pins_dropped; /* how those that were made have ended; broken: gave way;
                                                                   dropped: the job was ended, or a turn beside it was */
} scheduler_stats;
void scheduler_read_stats(const scheduler *s, scheduler_stats *out);

/* Forgets every cached prefix that no running sequence holds. */
void scheduler_drop_cache(scheduler *s);

/* ---- construction ---- */
int    scheduler_new(scheduler **out, const scheduler_config *c, error *err); /* refuses combinations that make no sense */
void   scheduler_free(scheduler *s);
size_t scheduler_memory_bytes(const scheduler_config *c); /* what scheduler_new will take, for the memory plan */

/* Walks everything and stops the process on a broken invariant: pages conserved, staircases, references, queue links. */
void scheduler_check(const scheduler *s);
