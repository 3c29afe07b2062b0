/* engine/engine_state.h: private to the files engine*.c: what the engine is, and who of it may change what.
 *
 * engine.c         the thread, opening and closing, what other threads ask
 * engine_events.c  what was submitted and cancelled comes in; what became of it goes out
 * engine_pass.c    one pass: a plan is walked, and what was drawn is taken; copies of pages beside it */
#pragma once
#include "engine/engine.h"
#include "engine/notice.h"
#include "engine/requests.h"
#include "engine/ring.h"
#include "engine/walk.h"

/* What a request drew in this pass, told once the scheduler knows of it. */
typedef struct {
    request     *request;
    engine_event event;
    uint32_t     output;
} drawn_token;

struct engine {
    engine_config     config;
    checkpoint       *model;
    const device_api *api;
    device           *device;
    char              device_why[256];
    program           program;
    scheduler        *scheduler;
    walker           *walker;
    request_limits    limits;

    /* into the engine thread, and out of it */
    requests        requests;
    ring           *ring;
    atomic_bool     starved; /* sleeps for want of room in the ring */
    atomic_bool     closing;
    atomic_bool     held;          /* engine_hold */
    atomic_bool     drop_cache;    /* engine_drop_cache */
    pthread_mutex_t consumer_lock; /* engine_wait only */
    pthread_cond_t  consumer_woken;
    pthread_t       thread;
    bool            thread_runs;

    /* the engine thread's own */
    sampling        scoring[TOP_LOGPROBS_MAX + 1]; /* of prompts, with so many alternatives */
    slice_outcome  *outcomes;                      /* [batch_tokens_max] */
    drawn_token    *drawn;                         /* [running_max] */
    request       **left;                          /* [running_max] */
    uint32_t        drawn_count;
    uint64_t        seen_kicks;     /* as of the last time that events were taken */
    uint64_t        came_us;        /* when the first of the requests came that were taken then; UINT64_MAX: none */
    uint64_t        wake_us;        /* of the pass that runs: when time alone may want it stopped */
    uint64_t        stop_wanted_us; /* when that came up for which the pass before was stopped; 0: it was not */
    uint32_t        room_kept;      /* places of the ring that the pass that runs may need */
    bool            said;           /* something was pushed in this step */
    uint64_t        passes_begun, accounted_us; /* up to here time was taken for the pace; 0: idle since */
    uint64_t        found_tokens;               /* in the cache, by requests that are in a pass for the first time */
    uint32_t        copies_open;                /* begun and not told to the scheduler */
    uint32_t        last_output;                /* in the last pass, of the request that finished last */
    engine_snapshot figures;                    /* what is posted */

    notice           notice;
    _Atomic uint64_t pass_started_us;
};

/* Everything below: on the engine thread. */

/* ---- engine_events.c ---- */
void say(engine *e, const engine_event *event);
void wake_consumer(engine *e); /* if something was said since */
void publish(engine *e);       /* the figures that other threads read */
/* The request is gone from the scheduler. Its memory goes before its end is told, so that its id is free by then. */
void finish(engine *e, request *r, engine_event *event);
void note_progress(engine *e, request *r);
void take_new(engine *e);
/* Whose rows are in the pass that runs ends with it: until then the device reads its tokens. */
void take_cancelled(engine *e);
bool take_events(engine *e); /* Takes what came in. Returns whether there may have been something. */

/* ---- engine_pass.c ---- */
void find_sequence(void *context, const slice *s, walk_sequence *out); /* walker_config.find */
/* walker_config.stop: asked between two operators of a pass that may be stopped. What came in is taken there and then, so
 * that the scheduler judges by what it knows of. */
bool wants_stop(void *context);
int  run_pass(engine *e, const plan *p, error *err);
int  begin_copies(engine *e, const plan *p, error *err);
bool take_copied(engine *e, bool wait); /* tells the scheduler; false: none was under way. wait: until one is over */
