/* server/generation.h: one request for text: its prompts, its choices, and the engine requests that feed them.
 *
 *     prepare (any thread)  generation_prepare.c  JSON -> prompts as token ids, rules, limits
 *     submit (I/O thread)   generation.c          one engine request per choice: all of them, or none
 *     events                generation.c          tokens -> choices; a choice that ends closes its engine request
 *     answer                reply*.c              one JSON answer, or server-sent events as the choices grow
 *
 * A generation lives until its last engine request has reported its end, also when its client is long gone. */
#pragma once
#include "server/choice.h"
#include "server/service.h"

typedef struct {
    uint32_t      *ids; /* owned; NULL once the engine has the last copy */
    uint32_t       count, output_tokens_max;
    char          *text; /* owned; for echo */
    uint32_t       text_chars;
    bool           has_text;  /* of a completion: there is a text that the answer goes on from */
    bool           thinking;  /* it ends in the middle of a thought */
    bool           scores_in; /* how likely its tokens are is known */
    prompt_scores *scores;    /* owned, with its arrays; NULL: not asked for */
} generation_prompt;

typedef struct {
    choice          text;
    uint32_t        prompt, index;     /* index: as the client sees it */
    uint64_t        engine_id;         /* 0: not there, or done */
    uint64_t        first_us, last_us; /* tokens received */
    request_ledger *ledger;            /* owned; of its last event; NULL before the first */
    double          pinned_until_s;    /* since 1970; until then are held, for the conversation's next turn, ... */
    uint32_t        pinned_tokens;     /* ... so many */
    bool            begun, closed;     /* its first event, its end was told (stream) */
} generation_choice;

/* What the engine is told, and nobody asks for afterwards: those who wait are many, and hold no more than they need. */
typedef struct {
    request_params params;
    sampling       sampling;            /* seed of choice 0; without bias arrays */
    uint64_t       tenant, cache_salt;  /* hashes; 0: none */
    char           id[REQUEST_ID_SIZE]; /* what the body calls it; "": nothing */
} generation_asked;

/* What the body says of the answer's shape: all of it that is kept. */
typedef struct {
    uint32_t n;
    bool     stream, echo, timings, reasoning, usage, usage_each, prompt_logprobs, kv_transfer;
    bool     sized;     /* the client says how long it may be */
    int8_t   echo_tops; /* alternatives beside each token in the older shape of log-probabilities; -1: none were asked for */
} answer_shape;

struct generation {
    exchange          base;  /* first */
    generation_asked *asked; /* owned; NULL before prepare, and once the engine has the request */
    choice_rules      rules; /* owns its stop strings */
    answer_shape      answer;
    int32_t           priority;
    bool              only_echo; /* max_tokens is 0: nothing is drawn that anybody sees */
    bool              reserved;  /* the tenant's account has given what the answer may use */
    bool              streaming; /* the head of the stream is out */
    request_job       job;       /* its id is the session */
    slo_params        slo;       /* from arrival on */
    const char       *tier;      /* that is served; NULL: none was asked for */
    char             *metadata;  /* owned; JSON for the log; NULL */

    generation_prompt *prompts;
    generation_choice *choices; /* prompt-major */
    uint32_t           prompt_count, choice_count, choices_per_prompt;
    uint32_t           open;      /* choices still growing */
    uint32_t           closed;    /* choices whose end was told (stream) */
    uint32_t           in_engine; /* engine requests whose end was not reported yet */
    buf                prefix;    /* what every event begins with */
    int64_t            created_s;
};

/* What is known of a choice; of one that waits, nothing. */
static inline const request_ledger *generation_ledger(const generation_choice *k) {
    static const request_ledger nothing;
    return k->ledger ? k->ledger : &nothing;
}

static inline generation *generation_of(exchange *x) { return (generation *)x; }

void generation_prepare(exchange *x, fault *f);
/* A conversation by its name, as clients say it, is the caller's own: others may use the same name. 0: none is given. */
uint64_t generation_job_named(const char *name, const tenant *who);
void     generation_destroy(exchange *x);
void     generation_release_if_done(generation *g);

/* ---- ledger.c: where the time of a request went, in its line of log and, where asked for, in its answer ---- */
void ledger_write(const generation *g, buf *out); /* JSON members, without braces */
void ledger_log(const generation *g);

/* ---- reply_prompt.c: a prompt as part of its answer ---- */
void reply_prompt_ids(const generation *g, const generation_choice *k, buf *out);
void reply_prompt_scores(const generation *g, const generation_choice *k, buf *out); /* prompt_logprobs, vLLM's shape */

/* ---- reply.c ---- */
void reply_stream_begin(generation *g);
/* Sends what is ready of a choice, and its end if it has ended. */
void reply_stream_choice(generation *g, generation_choice *k);
void reply_stream_end(generation *g);                  /* usage where asked for, [DONE] */
void reply_stream_fail(generation *g, const fault *f); /* the error as an event; no [DONE]; closes */
void reply_whole(generation *g);
