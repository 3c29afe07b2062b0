/* bench/agenda.h: which request of a trace is due when. Knows no clock: whoever plays a trace, against a server or under a
 * virtual clock, asks what comes next and says what has ended.
 *
 * A session that waits for nobody is due at its own time; a later turn, or a sub-agent, once what it waits for has ended and
 * its gap is over. Requests due at the same time come in the order of the trace. */
#pragma once
#include "bench/trace.h"

typedef struct {
    double   rate_scale;    /* the trace's time runs this much faster, gaps included */
    double   arrival_scale; /* arrivals alone, on top of it; 0: 1 */
    uint64_t gap_max_us;    /* longest gap, in the time of the run; 0: no limit */
    uint64_t duration_us;   /* nothing is due after it; 0: no limit */
} agenda_rules;

typedef struct {
    uint64_t due_us;
    uint32_t request;
} agenda_entry;

typedef struct {
    const trace  *trace;
    agenda_rules  rules;
    agenda_entry *heap; /* the earliest on top */
    uint32_t      count;
    uint32_t     *child_of, *next_child; /* sub-agents by the request they start after, 1 + session */
} agenda;

void agenda_open(agenda *a, const trace *t, const agenda_rules *rules);
void agenda_close(agenda *a);

static inline const agenda_entry *agenda_first(const agenda *a) { return a->count ? a->heap : NULL; }
agenda_entry                      agenda_take(agenda *a);        /* the first; there is one */
void agenda_ended(agenda *a, uint32_t request, uint64_t now_us); /* well: what waited for it gets its time */
void agenda_clear(agenda *a);                                    /* nothing that is due will come */

uint64_t agenda_gap_us(const agenda_rules *rules, const trace_request *q); /* before the request */

static inline bool trace_has_next(const trace *t, uint32_t request) {
    const trace_request *q = &t->requests[request];
    return q->turn + 1 < t->sessions[q->session].count;
}
