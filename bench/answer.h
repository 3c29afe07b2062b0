/* bench/answer.h: one HTTP answer as it comes in, and what it says about time.
 *
 * Fed with bytes and with the time at which they were read; knows nothing of sockets. Either a page (a body kept whole, with
 * a ceiling) or a stream of completion chunks, of which only what is measured is kept:
 *
 *   a content chunk   one whose first choice carries text or token ids. The first ends the wait for the first token; the
 * time between one and the next is an inter-token latency. the end           the last chunk with a choice (usually the one
 * with a finish_reason).
 *
 * A stream counts as completed when its status was 200, a finish_reason came, and no error did. */
#pragma once
#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "bench/prompt.h"
#include "bench/sse.h"

enum { ANSWER_PAGE_BYTES_MAX = 4 << 20, ANSWER_ERROR_BYTES_MAX = 16 << 10, ANSWER_IDS_MAX = TRACE_TOKENS_MAX };

typedef enum { ANSWER_PAGE, ANSWER_STREAM } answer_kind;

typedef struct answer answer;
/* A content chunk; gap_ns: since the one before it, -1 for the first. */
typedef void (*answer_chunk_fn)(void *owner, uint64_t now_ns, int64_t gap_ns);

struct answer {
    answer_kind     kind;
    bool            keep_ids; /* collect token_ids */
    answer_chunk_fn chunk;    /* or NULL */
    void           *owner;

    /* heard */
    int        status; /* 0: no head yet */
    uint32_t   chunks;
    uint64_t   first_ns, last_content_ns, last_choice_ns, gap_max_ns;
    int64_t    prompt_tokens, output_tokens, cached_tokens; /* of `usage`; -1: not said */
    token_list ids;                                         /* of the answer, where the server tells them */
    bool       finished, is_events, complete;               /* complete: the HTTP message is whole */
    buf        body;                                        /* of a page, or of an error */
    char       trouble[160];                                /* why it failed; "" while it has not */

    /* parsing */
    llhttp_t http;
    sse      events;
    uint64_t now_ns;
    char     value[24]; /* how the value of the present header begins */
    size_t   value_bytes;
};

void answer_init(answer *a, answer_kind kind, bool keep_ids);
void answer_free(answer *a);
void answer_feed(answer *a, const char *bytes, size_t n, uint64_t now_ns);
void answer_eof(answer *a);                                                                 /* the server closed */
void answer_fail(answer *a, const char *format, ...) __attribute__((format(printf, 2, 3))); /* the first reason stays */
bool answer_over(const answer *a);                                                          /* nothing more is to be read */
bool answer_good(const answer *a); /* over, without trouble; of a failed one `trouble` says why */
