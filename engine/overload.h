/* engine/overload.h: how long a newcomer would wait, and whether it is let in at all. Pure: told what happened, asks nobody.
 *
 * Problem: a queue that takes everything turns overload into waiting, until every answer comes after its client has gone and
 * the work of all is wasted. A bound on requests or on tokens is a guess at time; what a client feels is time.
 * Choice: predict the wait and refuse what would wait too long, while a refusal is still cheap and says when to come back. A
 * newcomer waits for two things at once, and for the slower of them. *Prompts* that go before it are computed at the rate at
 * which the last ones were (what the cache gave counts as computed, decodes that ride along as part of the price). *Places*,
 * slots or KV pages, come free as answers end: of n that decode, each with the usual number of tokens, one ends every
 * n-th of (tokens x step time), which is Little's law; so many must end as there are requests that do not fit.
 * Cost: a handful of multiplications a pass. What is not known yet counts as nothing: nobody is refused on a guess, the
 * bounds on requests and tokens hold meanwhile. Newest measurements count most; those of PACE_MEMORY_S ago a third. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { PACE_MEMORY_S = 10, PACE_MEMORY_ANSWERS = 64 };

/* ---- the pace of the engine, learned as it goes ---- */
typedef struct {
    double prompt_tokens, prompt_s; /* decaying sums over passes with prompts; their quotient: */
    double prompt_rate;             /* prompt tokens a second; 0: unknown */
    double steps, steps_s;          /* likewise over passes that decode */
    double step_s;                  /* of such a pass; 0: unknown */
    double answers, answer_sum;
    double answer_tokens; /* of an answer that ended; 0: unknown */
    double held_back;     /* share of the time that somebody waited although no prompt was computed, 0 to 1 */
} pace;

/* A pass took so long: so many prompt tokens further (in tokens through the whole program; found in the cache: whole ones),
 * with so many decodes, while so many waited. */
void pace_pass(pace *p, double seconds, double prompt_tokens, uint32_t decode_rows, uint32_t waiting);
void pace_answer(pace *p, uint32_t output_tokens);

/* ---- who is there ---- */
typedef struct {
    uint32_t running, running_max, waiting;
    uint32_t passed_over;              /* of the waiting: those whom the last plan knew of and did not let in */
    uint64_t waiting_tokens;           /* prompt tokens of those who wait */
    uint64_t prompt_left;              /* of those who run: prompt tokens still to be computed */
    uint64_t tokens_free, tokens_held; /* room in the KV pages: free or cached; of those who run */
} backlog;

/* Seconds until one more request with so many prompt tokens would begin to run. */
double pace_wait_s(const pace *p, const backlog *b, uint32_t prompt_tokens);

/* ---- the door ---- */
typedef struct {
    uint32_t waiting_max;        /* who finds a free slot does not wait */
    uint64_t waiting_tokens_max; /* 0: no bound */
    uint64_t wait_max_us;        /* 0: no bound */
} queue_limits;

typedef enum { QUEUE_HAS_ROOM, QUEUE_FULL_REQUESTS, QUEUE_FULL_TOKENS, QUEUE_FULL_WAIT } queue_answer;

/* For `requests` that come together, with so many prompt tokens in all; wait_s is the first one's. Where nobody waits,
 * neither tokens nor time are a reason to refuse: that is what the group itself brings, and it would be refused for ever. */
queue_answer queue_ask(const queue_limits *l, const backlog *b, double wait_s, uint32_t requests, uint64_t prompt_tokens);
