#include "bench/agenda.h"

#include <stdlib.h>

static void *zeroed(size_t count, size_t size) {
    void *p = calloc(count + 1, size);
    if (!p) fatal("out of memory for %zu requests", count);
    return p;
}

/* ---- a heap ---- */

static bool earlier(agenda_entry a, agenda_entry b) {
    return a.due_us != b.due_us ? a.due_us < b.due_us : a.request < b.request;
}

static void put(agenda *a, agenda_entry e) {
    uint32_t i = a->count++;
    for (; i && earlier(e, a->heap[(i - 1) / 2]); i = (i - 1) / 2) a->heap[i] = a->heap[(i - 1) / 2];
    a->heap[i] = e;
}

agenda_entry agenda_take(agenda *a) {
    check(a->count > 0);
    agenda_entry top = a->heap[0], last = a->heap[--a->count];
    uint32_t     i = 0, child;
    while ((child = 2 * i + 1) < a->count) {
        if (child + 1 < a->count && earlier(a->heap[child + 1], a->heap[child])) child++;
        if (!earlier(a->heap[child], last)) break;
        a->heap[i] = a->heap[child], i = child;
    }
    if (a->count) a->heap[i] = last;
    return top;
}

void agenda_clear(agenda *a) { a->count = 0; }

/* ---- times ---- */

uint64_t agenda_gap_us(const agenda_rules *rules, const trace_request *q) {
    const uint64_t gap_us = (uint64_t)((double)q->gap_us / rules->rate_scale), most = rules->gap_max_us;
    return most && gap_us > most ? most : gap_us;
}

/* after_us: when what it waits for was over. */
static void plan_request(agenda *a, uint32_t request, uint64_t after_us) {
    const trace_request *q = &a->trace->requests[request];
    const double         scale = a->rules.rate_scale * (a->rules.arrival_scale > 0 ? a->rules.arrival_scale : 1);
    const uint64_t       at_us = (uint64_t)((double)q->at_us / scale), ready_us = after_us + agenda_gap_us(&a->rules, q);
    const agenda_entry   e = {at_us > ready_us ? at_us : ready_us, request};
    if (!a->rules.duration_us || e.due_us <= a->rules.duration_us) put(a, e);
}

void agenda_ended(agenda *a, uint32_t request, uint64_t now_us) {
    const trace *t = a->trace;
    if (trace_has_next(t, request)) plan_request(a, request + 1, now_us);
    for (uint32_t child = a->child_of[request]; child; child = a->next_child[child - 1])
        if (t->sessions[child - 1].count) plan_request(a, t->sessions[child - 1].first, now_us);
}

void agenda_open(agenda *a, const trace *t, const agenda_rules *rules) {
    *a = (agenda){.trace = t, .rules = *rules};
    a->heap = zeroed(t->request_count, sizeof *a->heap);
    a->child_of = zeroed(t->request_count, sizeof *a->child_of);
    a->next_child = zeroed(t->session_count, sizeof *a->next_child);
    for (uint32_t i = 0; i < t->session_count; i++) {
        const trace_session *s = &t->sessions[i];
        if (s->count && s->after == TRACE_NONE) plan_request(a, s->first, 0);
        if (s->after == TRACE_NONE) continue;
        a->next_child[i] = a->child_of[s->after], a->child_of[s->after] = i + 1;
    }
}

void agenda_close(agenda *a) { free(a->heap), free(a->child_of), free(a->next_child); }
