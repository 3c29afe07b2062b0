/* bench/sse.h: server-sent events (WHATWG HTML, 9.2) out of a byte stream that is cut anywhere. Only `data` matters here. */
#pragma once
#include <stdbool.h>

#include "base/buf.h"

enum { SSE_EVENT_BYTES_MAX = 16 << 20 };

/* data[0..n) of one event, its lines joined by newlines; valid during the call. */
typedef void (*sse_event_fn)(void *owner, const char *data, size_t n);

typedef struct {
    buf          line, data;
    bool         has_data, after_cr;
    sse_event_fn event;
    void        *owner;
} sse;

void sse_init(sse *s, sse_event_fn event, void *owner);
void sse_free(sse *s);
bool sse_feed(sse *s, const char *bytes, size_t n); /* false: an event is longer than SSE_EVENT_BYTES_MAX */
