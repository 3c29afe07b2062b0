/* scheduler/state.h: what the scheduler remembers; for the files of this folder only.
 *
 * A sequence is waiting, prefilling or decoding, or its record is free:
 *
 *     submit ──▶ WAITING ──admit──▶ PREFILLING ──its last known token crossed all operators──▶ DECODING
 *                   ▲                   │                                                         │
 *                   └────── reclaim ────┴─────────────────────────────────────────────────────────┤
 *     end (finished or cancelled) from any state                                                  ▼
 *
 * Invariants (check.c): every record is in exactly one of the four; the two running lists hold each running sequence once,
 * in order of going first (prefilling) and of arrival (decoding); `due` holds those whose rank changes at a time; slots are
 * taken by running sequences and by at most one waiting one, the *candidate*: the first in the queue, which keeps the cached
 * pages it found while it waits for memory, so that they are looked up once and not evicted meanwhile. Running work that
 * must grow takes them first, from the last.
 *
 * Whose memory was taken back waits like everybody: by its rank, which counts from when it came. First come, first served
 * so has it back first; what other orders do for it is theirs to say. */
#pragma once
#include "kvcache/kvcache.h"
#include "scheduler/fair.h"
#include "scheduler/forecast.h"
#include "scheduler/forest.h"
#include "scheduler/heap.h"
#include "scheduler/id_map.h"
#include "scheduler/jobs.h"
#include "scheduler/length_model.h"
#include "scheduler/policy.h"
#include "scheduler/retain.h"
#include "scheduler/staircase.h"
#include "scheduler/step_model.h"
#include "scheduler/swap.h"

#define NO_SLOT UINT32_MAX

typedef enum { SEQUENCE_FREE, SEQUENCE_WAITING, SEQUENCE_PREFILLING, SEQUENCE_DECODING } sequence_state;

/* What every pass touches of each sequence in it: one cache line. Fields of the request are copies. */
typedef struct {
    uint64_t        id, salt;
    const uint32_t *tokens;
    uint64_t        token_us;     /* when its newest token was drawn; 0: none yet */
    uint64_t        service_us;   /* device time it has had: its part of each pass, by rows */
    uint32_t        known, limit; /* tokens: prompt and generated; the most there may be */
    uint32_t        slot;         /* also its list in the kvcache and its staircase; NO_SLOT */
    uint32_t        tbt_us;       /* within which its client wants each next token; 0: does not say */
    uint32_t        ends;         /* tokens it is predicted to have in the end; kept by outlook.c */
    uint16_t        tenant;       /* whose device time it uses */
    uint8_t         state;        /* sequence_state */
    bool            returning : 1, in_flight : 1, cancelled : 1;
    bool            elder : 1;    /* goes before all who are none until it has its token */
    bool            arriving : 1; /* prefilling, and has no row until copies of its pages are there */
} sequence;
_Static_assert(sizeof(sequence) <= CARVE_ALIGN, "a pass over all that decode walks one line of each");

/* The rest of it, read when it comes, moves or goes. */
typedef struct {
    scheduler_request request;
    uint64_t          arrival, arrived_us; /* its number, from 1; when */
    order_rank        rank;
    uint32_t          job;        /* in jobs; NO_JOB */
    uint32_t          pages_ever; /* for its longest possible life */
    uint32_t          cached;     /* tokens found when last admitted */
    uint32_t          lost;       /* tokens that were done when memory was last taken back; 0 once admitted again */
    uint32_t          preemptions, recomputed;
    uint32_t          host_pages; /* waiting: in the chain of host pages that it holds; 0: none */
    uint32_t          fetch_open; /* arriving: copies in flight */
    union {
        uint32_t host_tail; /* waiting: of the chain */
        struct {
            uint32_t fetched_pages; /* arriving: that it will have if none fails */
            uint64_t fetch_first;   /* its copies have this id or a later one */
        };
    };
    uint64_t lent;         /* to its tenant when it was let in (fair.h) */
    uint32_t newer, older; /* in its line; NO_SEQUENCE; not an elder's */
} sequence_record;

/* Who stands for a first token, or for the next one after its memory was taken back: those who wait and those who prefill.
 * One line for each tenant where they take turns, else one for all. */
typedef struct {
    uint32_t first;          /* of those who wait, by rank: a queue of the forest */
    uint32_t waiting;        /* of them */
    uint32_t oldest, newest; /* of all who are no elders, by since when; NO_SEQUENCE */
    uint32_t elder;          /* the one who waits; NO_SEQUENCE */
    uint32_t passed;         /* somebody older, since the last one came in: how many; < ELDER_MOST */
    uint64_t passed_us;      /* device time that they had */
} line;

/* The running sequences of one kind, sorted. */
typedef struct {
    uint32_t  count;
    uint32_t *sequences; /* [running_max] */
} running_list;

/* Whose slice it is, and which of its open segments (prefill). */
typedef struct {
    uint32_t sequence, segment;
} slice_owner;

/* Of prompts, where length matters (slicing.short_tokens): what is left to compute when they are admitted. */
typedef enum { LENGTH_ANY, LENGTH_SHORT, LENGTH_LONG } length_class;

/* The pass that is being planned or is in flight. */
typedef struct {
    bool         in_flight, stoppable;
    bool         crowded; /* a staircase has no segment to spare: must run to its end */
    bool         beside;  /* prefill alone, while decodes wait */
    uint8_t      owed;    /* length_class that was passed over in it, and goes first in the next */
    uint64_t     planned_us;
    uint64_t     due_us;    /* by when the tightest of its decodes wants its token; NO_DUE */
    uint64_t     stop_us;   /* when it must be stopped for the decodes that wait for it; NO_DUE: none do */
    uint32_t     cancelled; /* sequences in it that are gone */
    uint64_t     waits_for; /* a copy */
    uint32_t     slice_count, decode_rows, prefill_rows;
    step_load    load;      /* as planned */
    frame_place  free_rows; /* where this pass places the next rows to be suspended */
    slice       *slices;    /* [slices_max] */
    slice_owner *owners;    /* [slices_max] */
} pass;

struct scheduler {
    scheduler_config config;
    policy_set       policies;

    uint64_t now_us, arrivals;
    uint64_t promised; /* pages that the running may still need in their longest possible lives */
    uint64_t last_victim;
    uint64_t refused; /* arrival of the first in the queue when it was last refused; 0: the last plan refused nobody */

    sequence        *sequences;      /* [waiting_max + running_max] */
    sequence_record *records;        /* of them */
    uint32_t        *free_sequences; /* stack */
    uint32_t         sequence_count, free_sequence_count;
    id_map           ids;
    item_forest      waiting; /* by rank, a queue for each line */
    line            *lines;   /* [tenants.count], or the one */
    uint32_t         waiting_count;
    item_heap        due; /* by when their rank changes, those that wait or prefill */
    uint64_t         waiting_tokens;
    uint32_t         candidate; /* NO_SEQUENCE */

    running_list prefilling, decoding;
    uint32_t    *free_slots; /* stack of [running_max] */
    uint32_t     free_slot_count;
    staircase   *stairs; /* [running_max] by slot */
    frame_pool   frames;
    kvcache     *kv;
    job_table    jobs;
    retainer     retain;
    swapper      swap;
    tenant_table tenants;
    step_model   steps;
    length_model lengths;
    length_model turns; /* of jobs that are known to be over: a job is as long as an answer is */
    forecast     forecast;
    uint32_t    *expected; /* [running_max]: the running, by how long they are predicted to live */
    uint32_t     expected_count;

    pass            pass;
    scheduler_stats totals; /* the counters only */
    void           *memory; /* of everything above */
};

static inline uint32_t running_count(const scheduler *s) { return s->prefilling.count + s->decoding.count; }
static inline uint32_t pages_for(const scheduler *s, uint32_t tokens) {
    return tokens / s->config.page_tokens + (tokens % s->config.page_tokens != 0);
}
static inline kv_content content_of(const sequence *q) { return (kv_content){q->tokens, q->salt}; }
static inline bool is_running(const sequence *q) { return q->state == SEQUENCE_PREFILLING || q->state == SEQUENCE_DECODING; }
static inline heap_entry entry_of(const scheduler *s, uint32_t index) {
    const sequence_record *r = &s->records[index];
    return (heap_entry){r->rank.class, index, r->rank.key, r->arrival};
}
static inline uint32_t line_count(const scheduler *s) { return s->tenants.turns ? s->tenants.count : 1; }
static inline line    *line_of(scheduler *s, uint32_t index) {
       return &s->lines[s->tenants.turns ? s->sequences[index].tenant : 0];
}
/* Who waits and goes first; NO_SEQUENCE: nobody waits. */
static inline uint32_t first_waiting(const scheduler *s) {
    if (!s->tenants.turns) return s->lines[0].first;
    const uint32_t turn = fair_first(&s->tenants);
    return turn == NO_JOB ? NO_SEQUENCE : s->lines[turn].first;
}

/* ---- line.c: who goes before whom ---- */
void line_join(scheduler *s, uint32_t index);                 /* it waits: asks the order, at the end of those by age */
void line_rejoin(scheduler *s, uint32_t index);               /* it waits or prefills: asks anew; the lists stay in order */
void line_stop_waiting(scheduler *s, uint32_t index);         /* and prefills, or leaves next */
void line_rerank(scheduler *s, uint32_t index);               /* what the order goes by has changed; wherever it is */
void line_leave(scheduler *s, uint32_t index);                /* it decodes, or goes */
void line_rank_due(scheduler *s);                             /* asks anew about those whose time has come */
bool runs_before(const scheduler *s, uint32_t a, uint32_t b); /* by turn of their tenants, rank, and arrival */
void line_check(const scheduler *s);

uint64_t    prompt_us(const scheduler *s, uint32_t index); /* what the rest of its prompt is predicted to take; 0: unknown */
stop_reason stop_reason_now(const scheduler *s, uint64_t now_us); /* stop.c */

/* ---- outlook.c: the worst moment to come, where admission asks for it ---- */
void     outlook_add(scheduler *s, uint32_t index); /* runs now */
void     outlook_remove(scheduler *s, uint32_t index);
uint64_t outlook_peak(scheduler *s, uint32_t index, uint32_t cached_tokens); /* pages, if this one ran as well */

/* ---- life.c: how a sequence moves between its states ---- */
void life_begin(scheduler *s, const scheduler_request *r);                          /* free -> waiting */
void life_admit(scheduler *s, uint32_t index, uint32_t cached_tokens, uint32_t at); /* the candidate -> prefilling[at] */
void life_found(scheduler *s, uint32_t index, uint32_t tokens);                     /* so many need not be computed */
void life_decode(scheduler *s, uint32_t index);                                     /* prefilling -> decoding */
void life_send_back(scheduler *s, uint32_t index);          /* running -> waiting; its memory is taken back */
void life_end(scheduler *s, uint32_t index, bool finished); /* any -> free */
void life_sort_prefilling(scheduler *s);                    /* tenants' turns have changed */

void     candidate_set(scheduler *s, uint32_t index); /* gives it a slot; the one before loses its own */
void     candidate_clear(scheduler *s);
uint32_t running_list_find(const scheduler *s, const running_list *l, uint32_t index); /* where it is or would go */
void     running_list_add(scheduler *s, running_list *l, uint32_t index);
void     running_list_remove(scheduler *s, running_list *l, uint32_t index);
