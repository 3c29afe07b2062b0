#include "bench/sse.h"

#include <string.h>

void sse_init(sse *s, sse_event_fn event, void *owner) {
    *s = (sse){.event = event, .owner = owner};
    buf_init(&s->line, SSE_EVENT_BYTES_MAX);
    buf_init(&s->data, SSE_EVENT_BYTES_MAX);
}

void sse_free(sse *s) { buf_free(&s->line), buf_free(&s->data); }

/* An empty line sends the event that the lines before it made. */
static void take_line(sse *s, const char *line, size_t n) {
    if (n == 0) {
        if (s->has_data) s->event(s->owner, s->data.data ? s->data.data : "", s->data.size);
        buf_clear(&s->data), s->has_data = false;
        return;
    }
    const char *colon = memchr(line, ':', n);
    size_t      name = colon ? (size_t)(colon - line) : n;
    if (name != 4 || memcmp(line, "data", 4) != 0) return; /* a comment, or a field nobody asked for */
    size_t value = colon ? name + 1 : n;
    if (value < n && line[value] == ' ') value++;
    if (s->has_data) buf_char(&s->data, '\n');
    buf_append(&s->data, line + value, n - value);
    s->has_data = true;
}

static const char *line_end(const char *at, const char *end) {
    const char *newline = memchr(at, '\n', (size_t)(end - at)),
               *cr = memchr(at, '\r', (size_t)((newline ? newline : end) - at));
    return cr ? cr : newline;
}

/* A line that arrives whole is used where it lies. */
bool sse_feed(sse *s, const char *bytes, size_t n) {
    const char *at = bytes, *end = bytes + n;
    while (at < end) {
        if (s->after_cr && *at == '\n' && (s->after_cr = false, ++at == end)) break;
        s->after_cr = false;
        const char *stop = line_end(at, end);
        if (!stop || s->line.size) buf_append(&s->line, at, (size_t)((stop ? stop : end) - at));
        if (buf_overflowed(&s->line) || buf_overflowed(&s->data)) return false;
        if (!stop) break;
        if (s->line.size) take_line(s, s->line.data, s->line.size), buf_clear(&s->line);
        else take_line(s, at, (size_t)(stop - at));
        s->after_cr = *stop == '\r';
        at = stop + 1;
    }
    return !buf_overflowed(&s->data);
}
