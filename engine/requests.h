/* engine/requests.h: the engine's front door: every accepted request, and the two queues into the engine thread.
 *
 * Any thread puts and cancels; the engine thread takes. A request is in the table from put to release. Both queues are
 * bounded by the table, nothing here allocates after construction, and the lock is never held while a pass runs. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "scheduler/id_map.h"

/* Told apart by the sign of their priority, which is how service tiers lie: urgent, usual, patient. */
enum { PRIORITY_CLASSES = 3 };

typedef enum { REQUEST_FREE, REQUEST_QUEUED, REQUEST_LIVE } request_state;

typedef struct request {
    engine_request  asked; /* tokens: room for prompt and output */
    uint64_t        key;   /* its name towards scheduler and walker: never used twice */
    request_state   state;
    uint32_t        output_tokens;
    uint32_t       *banned; /* [banned_count], behind the tokens' room: until output_tokens_min */
    uint32_t        banned_count;
    request_ledger  ledger;
    ledger_clock    clock;
    uint32_t        scored; /* tokens of the prompt whose log-probability was told */
    bool            score_corrupt;
    bool            in_pass;       /* the engine thread's own: the pass that runs has its rows */
    bool            leaves_pass;   /* it was cancelled there: it ends with the pass */
    bool            cancel_wanted; /* under the lock */
    bool            fresh;         /* was in no pass yet */
    struct request *next;          /* in the queue of the new */
} request;

enum { ENDED_JOBS_MAX = 256 }; /* between two looks of the engine thread */

typedef struct {
    pthread_mutex_t  lock; /* of everything below */
    pthread_cond_t   kicked, slept;
    bool             idle;    /* the engine thread sleeps */
    _Atomic uint64_t kicks;   /* counts every reason for the engine thread to look around; changed under the lock */
    const char      *refusal; /* why nothing is taken any more; NULL: it is */
    int              refusal_code;

    uint32_t  capacity;
    request  *table;     /* [capacity] */
    request **free_list; /* [capacity] */
    uint32_t  free_count;
    id_map    ids;
    void     *memory;

    request *queue_head, *queue_tail; /* new ones, in order */
    /* changed under the lock, read by anyone: what the engine thread has not taken yet, and what the scheduler told of its
     * own queue */
    _Atomic uint32_t queue_count, scheduler_waiting;
    _Atomic uint64_t queue_tokens, scheduler_waiting_tokens;
    _Atomic uint32_t fresh_count[PRIORITY_CLASSES];
    _Atomic uint64_t fresh_tokens[PRIORITY_CLASSES];
    request *
        *cancelled; /* [2 * capacity], a ring: one may be cancelled, released, taken again and cancelled between two looks */
    uint32_t cancelled_begin, cancelled_count;
    uint64_t ended_jobs[ENDED_JOBS_MAX]; /* a stack */
    uint32_t ended_job_count;
} requests;

typedef struct {
    uint32_t        vocab_size, context_max, waiting_tokens_max, page_count, page_tokens;
    uint64_t        requests_max; /* waiting and running */
    const uint32_t *eos_ids;
    uint32_t        eos_count;
} request_limits;

void   requests_init(requests *q, uint32_t capacity);
void   requests_destroy(requests *q); /* frees what is still in the table */
size_t requests_memory_bytes(uint32_t capacity);
/* A sequence that lost its memory waits again, beyond what waiting_max lets in. */
static inline uint32_t requests_capacity(const scheduler_config *s) { return s->waiting_max + 2 * s->running_max; }

/* Any thread. The answers of engine_submit; *r's tokens may have moved even where it is refused. */
int  requests_put(requests *q, engine_request *r, uint64_t now_us, const request_limits *limits, error *err);
void requests_cancel(requests *q, uint64_t id);
void requests_refuse(requests *q, int code, const char *why); /* from now on; `why` lives as long as q */
void requests_kick(requests *q);
bool requests_end_job(requests *q, uint64_t job); /* false: too many at once */

/* The engine thread. */
request *requests_next_new(requests *q);             /* NULL: none. It is LIVE from here on */
void     requests_put_back(requests *q, request *r); /* to the front; QUEUED again */
request *requests_next_cancelled(requests *q);       /* NULL: none. If it was QUEUED it has left the queue */
void     requests_release(requests *q, request *r);  /* frees its memory; its id may be used again */
void     requests_tell_waiting(requests *q, uint32_t count, uint64_t tokens);
uint64_t requests_next_ended_job(requests *q); /* 0: none */
request *requests_by_key(requests *q, uint64_t key);
uint64_t requests_kicks(const requests *q);               /* without the lock: asked between operators */
void     requests_wait(requests *q, uint64_t seen_kicks); /* until there was another kick */

void requests_began(requests *q, request *r); /* it is in its first pass */

/* Any thread, without the lock: who waits and was in no pass yet, as far as it goes before a newcomer of this priority where
 * priority orders; and who waits, whether the scheduler knows of it yet or not. */
void requests_fresh_before(const requests *q, int32_t priority, uint32_t *count, uint64_t *tokens);
void requests_waiting(const requests *q, uint32_t *count, uint64_t *tokens);
/* Other threads. */
/* Waits (a second at most) until the engine thread sleeps in requests_wait, and keeps it there until let go. */
bool requests_hold_idle(requests *q);
void requests_let_go(requests *q);

void cond_init_monotonic(pthread_cond_t *c); /* timed waits by the monotonic clock */
