/* bench/trace.h: what a workload asks for, and when; read from the formats that production traces are published in.
 *
 * A trace is a list of sessions, a session is a list of turns (requests) that follow one another; a request that stands
 * alone is a session of one turn. Nothing here is text: a trace knows lengths, times, and which parts of prompts are equal.
 * bench/prompt.h makes token ids of that.
 *
 * A turn starts when its own time has come (`at_us`) and the turn before has been over for `gap_us` (a tool ran, a person
 * read). A sub-agent is a session that starts `gap_us` of its first turn after a turn of its parent.
 *
 * Which tokens of a prompt are equal to others, from the front: its first `shared_tokens` are the turn before's prompt and
 * answer; then, up to the session's `common_tokens`, what every session with the same `common_id` begins with; then block by
 * block, equal where the ids are (within the session's `scope`); the rest is the request's own.
 *
 * The formats are told apart by how they begin (docs/replay.md lists them). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define TRACE_NONE UINT32_MAX

enum {
    TRACE_REQUESTS_MAX = 4 << 20,
    TRACE_TOKENS_MAX = 16 << 20,  /* of one prompt, of one answer */
    TRACE_BLOCKS_MAX = 256 << 20, /* block ids kept, all together */
    TRACE_NAMES_MAX = 65535,
};
#define TRACE_TIME_MAX_US (400ull * 86400 * 1000000) /* the span of a trace, and a gap */

/* What the client hopes for; 0: does not care. */
typedef struct {
    double ttft_ms, tpot_ms, tbt_ms, e2e_ms; /* first token; mean time per token after it; longest gap; the whole answer */
    double job_ms;                           /* the session, from its first turn's start to its last answer's end */
    double value;                            /* of an answer in time, to those who weigh; 0: 1 */
} slo;

static inline bool slo_given(const slo *s) {
    return s->ttft_ms > 0 || s->tpot_ms > 0 || s->tbt_ms > 0 || s->e2e_ms > 0 || s->job_ms > 0;
}

typedef struct {
    uint64_t at_us, gap_us;
    uint32_t session, turn;
    uint32_t prompt_tokens, output_tokens, shared_tokens; /* the first two at least 1; shared <= prompt */
    uint32_t block_first, block_count;                    /* ids of blocks block_first.. of the prompt stand at blocks_at */
    size_t   blocks_at;                                   /* in trace.blocks */
    uint16_t tenant, tool; /* in trace.names; 0: not said. The tool that the answer calls, which then fills the gap */
    int32_t  priority;     /* lower goes first */
    slo      slo;
} trace_request;

typedef struct {
    uint32_t first, count; /* its turns are trace.requests[first .. first + count) */
    uint32_t after;        /* a sub-agent: the request it starts after; else TRACE_NONE */
    uint32_t common_tokens, block_tokens;
    uint64_t common_id, scope;
} trace_session;

typedef struct {
    trace_request *requests;
    trace_session *sessions;
    uint64_t      *blocks;
    char         **names; /* names[0] is "" */
    uint32_t       request_count, session_count, name_count;
    size_t         block_count;
    bool           has_times; /* else every session starts at 0, and trace_draw_arrivals is called for */
    const char    *format;    /* a word of TRACE_FORMATS */
} trace;

#define TRACE_FORMATS "auto|azure|mooncake|weka|tracelab|csv|jsonl"

/* Reads up to requests_max requests (0: all) in the order of the file. The sentence names file and line. */
int  trace_open(trace *t, const char *path, const char *format, uint32_t requests_max, error *err);
int  trace_read_text(trace *t, const char *text, size_t n, const char *format, error *err);
void trace_close(trace *t);

/* Poisson arrivals of the sessions (those that are nobody's sub-agent) at rate_per_s, from the seed. */
void trace_draw_arrivals(trace *t, double rate_per_s, uint64_t seed);
