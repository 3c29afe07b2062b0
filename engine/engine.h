/* engine/engine.h: token ids in, token ids out. The server's whole view of inference.
 *
 * engine_open loads a model and starts the engine thread, which owns scheduler, KV cache and device, reacts to events and
 * does not poll. submit and cancel may be called from any thread; results come through one bounded ring that one consumer
 * drains (`engine_next`), woken by a callback. If the consumer stalls, the engine stops planning passes rather than lose or
 * pile up results. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/histogram.h"
#include "engine/device.h"
#include "engine/ledger.h"
#include "engine/overload.h"
#include "scheduler/scheduler.h"

typedef struct engine engine;

typedef struct {
    const char       *model;              /* folder or random:NAME */
    const device_api *device_table;       /* NULL: the one that `device` names; tests bring their own */
    const char       *device;             /* auto, cpu, cuda, sim */
    uint32_t          context_max;        /* 0: the model's */
    uint64_t          kv_cache_bytes;     /* 0: a sensible share of what is free */
    uint64_t          host_cache_bytes;   /* host memory for pages that are copied out */
    device_config     device_settings;    /* page_count, rows_max ... left 0 are derived */
    scheduler_config  scheduler_settings; /* likewise */
    uint64_t          queue_wait_max_us;  /* engine_ask refuses what would wait longer; 0: no bound */
    void (*wake)(void *context); /* called on the engine thread after a step put something into the ring; must not block */
    void *wake_context;
} engine_config;

/* `penstock plan` and the first thing engine_open does: sizes every pool and says whether it fits. The derived sizes are
 * written back into *c. ERR_MEMORY with a sentence where it does not fit. */
int engine_plan(engine_config *c, const checkpoint *ckpt, memory_plan *out, error *err);

int  engine_open(engine **out, const engine_config *c, error *err);
void engine_close(engine *e); /* what still runs is cancelled; waits for the pass that runs */
/* Asks for the end and waits for it, at most so long. false: the engine thread is in a pass that does not end; engine_close
 * would wait for it as well. */
bool engine_stop(engine *e, uint32_t timeout_ms);

const model_facts      *engine_facts(const engine *e);
const char             *engine_device_name(const engine *e);
const char             *engine_device_why(const engine *e); /* in one sentence, why it was chosen */
uint32_t                engine_context_max(const engine *e);
const scheduler_config *engine_scheduler_config(const engine *e); /* as derived: what bounds it really has */
const char             *engine_model_dir(const engine *e);        /* NULL for random: */

/* How likely each token of a prompt was after those before it. The caller's arrays, kept until the request has ended; entry
 * i is of prompt token i, all but the first are filled before the first token is told, and the bits depend on neither cuts
 * nor neighbours. Such a prompt is computed whole: what the cache holds has no logits. */
typedef struct {
    float    *logprobs; /* [prompt_tokens] */
    uint32_t *ranks;    /* [prompt_tokens]: 1 is the likeliest */
    uint32_t  tops;     /* alternatives per token, at most TOP_LOGPROBS_MAX */
    uint32_t *top_ids;  /* [prompt_tokens * tops], best first; PROMPT_TOP_NONE where the vocabulary has no more */
    float    *top_logprobs;
} prompt_scores;
#define PROMPT_TOP_NONE UINT32_MAX

enum { ENGINE_STOP_IDS_MAX = 16 };

typedef struct {
    uint64_t  id;     /* unique, chosen by the caller */
    uint32_t *tokens; /* the prompt; engine_submit takes ownership (malloc) when it returns OK */
    uint32_t  prompt_tokens;
    uint32_t  output_tokens_max, output_tokens_min;
    sampling  params; /* bias arrays: ownership as for tokens */
    bool      ignore_eos;
    const uint32_t
            *stop_ids; /* [stop_id_count], at most ENGINE_STOP_IDS_MAX, beside the model's own end-of-sequence ids; copied */
    uint32_t stop_id_count;
    uint64_t cache_salt;
    int32_t  priority;
    request_tenant tenant; /* these three: scheduler/scheduler.h */
    request_job    job;
    request_slo    slo;
    prompt_scores *scores; /* NULL: not asked for */
} engine_request;

/* Before a group of requests is submitted: whether the queue takes them, all or none, and how long the first would wait. The
 * answer holds until somebody else submits. In *err what is wrong, with ERR_FULL. */
queue_answer engine_ask(engine *e, uint32_t count, uint64_t prompt_tokens, int32_t priority, double *wait_s, error *err);
/* OK; ERR_FULL (no place left at all; come back later), ERR_TOO_LARGE (prompt + output over the context or the pages),
 * ERR_INVALID (a token id outside the vocabulary, no tokens), ERR_CANCELLED (closing). On failure the caller still owns
 * everything, but r->tokens may have moved. */
int  engine_submit(engine *e, engine_request *r, error *err);
void engine_cancel(engine *e, uint64_t id); /* its FINISHED event (reason cancelled) comes within one step */

/* For the operator, from any thread: no further pass is begun, and everything stays where it is, until it is let go; cached
 * prefixes that no running request holds are forgotten, after the pass that runs. */
void engine_hold(engine *e, bool held);
void engine_drop_cache(engine *e);
/* No turn of the job will follow: what is pinned for it is let go, after the pass that runs. Any thread. ERR_FULL: too many
 * were ended at once; come back later. */
int engine_end_job(engine *e, uint64_t job, error *err);

typedef enum { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_ERROR } finish_reason;

typedef struct {
    uint64_t       id;
    bool           has_token; /* `token` is valid; a finishing event may carry the last token as well */
    bool           finished;
    sampled        token;
    bool           token_is_stop; /* the token is an end-of-sequence or stop id: not part of the text */
    finish_reason  reason;        /* if finished */
    uint32_t       stop_id;       /* FINISH_STOP: which id */
    const char    *message;       /* FINISH_ERROR: a static sentence */
    request_ledger ledger;
    uint32_t       pinned_tokens; /* if finished: held for the next turn of its job, ... */
    uint64_t       pinned_us;     /* ... for so long; 0: nothing is */
} engine_event;

/* Copies up to `max` events, in order; returns how many. One consumer. */
uint32_t engine_next(engine *e, engine_event *out, uint32_t max);
/* For callers without an event loop: blocks until an event is there or timeout_ms passed. */
bool engine_wait(engine *e, uint32_t timeout_ms);

typedef struct {
    scheduler_stats scheduler;
    device_stats    device;
    uint64_t        passes_done, pass_started_us; /* pass_started_us 0: between passes */
    uint64_t        operators_done; /* of all passes, also within the one that runs: what progress is seen by */
    uint64_t        plan_ns_total, host_ns_total; /* host time outside operators */
    uint64_t        corrupted;                    /* requests that ended because the model computed no numbers */
    histogram       pass_rows, pass_seconds;      /* of whole passes; over histogram_rows and histogram_seconds */
    histogram       stop_reaction_seconds; /* from what a pass was stopped for to the beginning of the next; likewise */
    uint64_t        stop_bound_ns;         /* the longest operator of a pass that may be stopped: a stop waits so long */
    pace            pace;
    uint32_t        passed_over; /* waiting ones that the last plan did not let in */
    uint64_t        prompt_left; /* prompt tokens of those who run that are still to be computed */
    uint64_t        weights_bytes, page_bytes;
    uint32_t        page_count, page_tokens;
    bool            held;        /* engine_hold */
    char            failed[512]; /* a device error: the sentence; the engine accepts nothing more */
} engine_snapshot;
/* Any thread, at any time: nothing that the engine thread does or holds is waited for. */
void    engine_read_snapshot(engine *e, engine_snapshot *out);
backlog engine_backlog(const engine *e, const engine_snapshot *s);

/* The logits the last finished request's last token was drawn from: [vocab] f32; for `generate`'s digest. Only while the
 * engine is idle. */
int engine_last_logits(engine *e, float *out);
