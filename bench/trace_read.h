/* bench/trace_read.h: what the readers of the formats share. Each adds rows in the order of its file; trace_finish sorts
 * them into sessions and works out which prompts go on from the turn before. */
#pragma once
#include "base/json.h"
#include "bench/lines.h"
#include "bench/trace.h"

#define SHARED_UNKNOWN UINT32_MAX /* worked out from blocks or lengths */

typedef struct {
    uint32_t        session; /* from trace_session_new or trace_session_named */
    bool            has_at, has_gap, has_gap_after;
    double          at_us, gap_us, gap_after_us;  /* the last before the session's next turn, unless that has a gap_us */
    double          prompt_tokens, output_tokens; /* 0 counts as 1 */
    uint32_t        shared_tokens;
    uint32_t        block_first;
    const uint64_t *blocks;
    size_t          block_count;
    const char     *tenant, *tool; /* or NULL */
    double          priority;
    slo             slo;
} trace_row;

typedef struct trace_reader trace_reader;

/* One line of the file. `line` is not empty. Returns an error to give up. */
typedef int (*trace_line_fn)(trace_reader *r, const char *line, size_t n, error *err);

uint32_t       trace_session_new(trace_reader *r);
uint32_t       trace_session_named(trace_reader *r, const char *name, size_t n); /* the same name, the same session */
trace_session *trace_session_at(trace_reader *r, uint32_t session);
uint32_t       trace_session_turns(const trace_reader *r, uint32_t session); /* added so far */
double        *trace_session_mark(trace_reader *r, uint32_t session); /* a number for the format to keep; 0 at first */
/* The session starts after the last turn of `parent` that was added so far. */
void  trace_session_after(trace_reader *r, uint32_t session, uint32_t parent);
int   trace_add(trace_reader *r, const trace_row *row, error *err);
bool  trace_full(const trace_reader *r);
void *trace_reader_memory(trace_reader *r, size_t size); /* of the format's own, zero at first, freed with the reader */

/* How many of the leading ids are equal. */
size_t trace_blocks_equal(const uint64_t *a, size_t a_count, const uint64_t *b, size_t b_count);
/* How many tokens a prompt shares with the turn before (lengths given), of whose blocks `equal` lead this one's. */
uint32_t trace_shared_by_blocks(size_t equal, uint32_t block_tokens, const uint32_t before[2], uint32_t prompt_tokens);

/* Reads object[name] as ids (whole numbers) into *ids (grown with realloc); *count is 0 where it is absent. */
int trace_read_ids(const cJSON *object, const char *name, uint64_t **ids, size_t *count, error *err);

int trace_line_csv(trace_reader *r, const char *line, size_t n, error *err);
int trace_line_jsonl(trace_reader *r, const char *line, size_t n, error *err);
int trace_line_weka(trace_reader *r, const char *line, size_t n, error *err);
int trace_line_rounds(trace_reader *r, const char *line, size_t n, error *err);

/* Microseconds since 1970 of "2023-11-16 18:17:03.9799600" or "2026-06-01T05:40:20.151Z"; false: no such time. */
bool trace_time_us(const char *text, size_t n, double *us);
