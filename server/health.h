/* server/health.h: one judgement of how the daemon is, for everybody who asks: /live, /health, /ready, the status line and
 * whoever feeds a watchdog.
 *
 * It comes from what the engine has done, never from a request made up for the purpose and never from a timer that runs
 * whether the engine does or not. The engine counts each operator it finishes, also in the middle of a pass. A pass of many
 * seconds is busy, because operators go by; an engine that has work and finishes none for stall-timeout is stuck. Having no
 * work is no reason for anything. */
#pragma once
#include "engine/engine.h"

typedef enum {
    HEALTH_LOADING,
    HEALTH_IDLE,
    HEALTH_BUSY,
    HEALTH_PAUSED, /* by the operator */
    HEALTH_DRAINING,
    HEALTH_STUCK,  /* has work, and finishes nothing; may go on by itself */
    HEALTH_FAILED, /* the device gave up: the daemon is about to end */
    HEALTH_COUNT
} health_state;

typedef struct {
    const char *name;
    bool        live, healthy, ready; /* 200 at /live, /health, /ready; else 503 */
    const char *meaning;
} health_row;
extern const health_row health_rows[HEALTH_COUNT];

/* Judges by change between two looks: `now_us` is any clock, the engine's own is none of our business. */
typedef struct {
    uint64_t mark, since_us; /* what the engine had done; when that was first seen, or when there last was no work */
} progress_watch;
/* How long the engine has had work and done nothing of it, as far as was looked. Look at least as often as it must be known.
 */
uint64_t progress_stands_us(progress_watch *w, const engine_snapshot *s, uint64_t now_us);

/* ---- of the daemon; on the I/O thread ---- */
typedef struct service service;

health_state service_health(service *sv, engine_snapshot *out); /* *out: zeros while loading */
/* Whether a watchdog must not be fed: the engine has work and makes no progress, or has failed. */
bool service_is_stuck(service *sv);
/* What it does in one line: "serving stories: 3 running, 12 waiting, 41 % of KV pages held". */
void service_status(service *sv, char *out, size_t size);
