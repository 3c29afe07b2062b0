#include "server/http.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum {
    AHEAD_MAX_BYTES = 64 << 10,    /* pipelined input that waits for its turn */
    ANSWERED_MAX_BYTES = 64 << 10, /* unread answers beyond which no further pipelined request is begun */
    DISCARD_MAX_BYTES = 32 << 20,  /* read and thrown away after the last answer */
    OUT_MAX_BYTES = 1 << 30,
    HEADERS_MAX_BYTES = 16 << 10,
    LINGER_US = 2000000,
};

static void set_state(http_conn *c, conn_state state) {
    c->state = (uint8_t)state;
    c->since_us = c->server->now_us;
}

void http_init(http_conn *c, http_server *server) {
    *c = (http_conn){.server = server, .write_us = server->now_us};
    const server_config *limit = server->config;
    buf_init(&c->head, limit->request_line_max_bytes + limit->headers_max_bytes + 2);
    buf_init(&c->body, limit->body_max_bytes);
    buf_init(&c->ahead, AHEAD_MAX_BYTES);
    buf_init(&c->out, OUT_MAX_BYTES);
    buf_init(&c->headers, HEADERS_MAX_BYTES);
    set_state(c, CONN_IDLE);
}

static void forget_request(http_conn *c) {
    c->server->body_bytes -= c->body.size;
    buf_free(&c->head), buf_free(&c->body);
    c->line_begin = c->scanned = c->header_count = c->kept_count = 0;
    c->refusal = 0, c->wire_bytes = 0, c->extension_bytes = 0;
}

static bool taken(const http_conn *c) { return c->state == CONN_BUSY || c->state == CONN_STREAM; }

static void cut(http_conn *c) {
    bool was_taken = taken(c);
    set_state(c, CONN_CLOSED);
    if (was_taken) c->server->gone(c->server->owner, c);
}

void http_abort(http_conn *c) { cut(c); }

void http_free(http_conn *c) {
    if (taken(c)) cut(c);
    forget_request(c);
    buf_free(&c->ahead), buf_free(&c->out), buf_free(&c->headers);
}

buf http_take_body(http_conn *c) {
    buf body = c->body;
    c->server->body_bytes -= body.size;
    buf_init(&c->body, c->server->config->body_max_bytes);
    return body;
}

/* The clock of a stalled peer starts when there begins to be something to take. */
static buf *output(http_conn *c) {
    if (c->out.size + c->in_flight == 0) c->write_us = c->server->now_us;
    return &c->out;
}

/* ---- input ---- */
static void hand_over(http_conn *c) {
    set_state(c, CONN_BUSY);
    c->server->request(c->server->owner, c);
    if (c->state == CONN_BUSY) forget_request(c); /* what waits holds no more than its handler copied */
}

/* Adds to the lines of a head, or of trailers behind it, as much as may be. *end: where they end, else 0. Returns how many
 * bytes were used; after a refusal, all. */
static size_t feed_lines(http_conn *c, const char *bytes, size_t n, size_t *end) {
    size_t      before = c->head.size, room = c->head.limit - before;
    const char *reason = NULL;
    buf_append(&c->head, bytes, n < room ? n : room);
    int status = http_head_scan(c, end, &reason);
    if (status) return http_refuse(c, status, reason), *end = 0, n;
    if (*end) c->head.size = *end;
    return c->head.size - before;
}

/* Who may not ask is told so before his body is read, and is not told to go on with it. */
static void begin_body(http_conn *c) {
    size_t       n;
    http_server *s = c->server;
    if (s->admit && !s->admit(s->owner, c)) return;
    if (c->parser.http_minor == 1 && http_header(c, "expect", &n)) buf_str(output(c), "HTTP/1.1 100 Continue\r\n\r\n");
    set_state(c, CONN_BODY);
}

/* The next byte of an empty line before a request (RFC 9112, 2.2). */
static bool is_of_empty_line(const http_conn *c, char byte) {
    if (c->head.size == 0) return byte == '\r';
    return c->head.size == 1 && c->head.data[0] == '\r' && byte == '\n';
}

static size_t feed_head(http_conn *c, const char *bytes, size_t n) {
    size_t end;
    if (is_of_empty_line(c, bytes[0])) { /* passed over */
        if (bytes[0] == '\r') buf_append(&c->head, bytes, 1);
        else buf_clear(&c->head);
        return 1;
    }
    if (c->state == CONN_IDLE) set_state(c, CONN_HEAD);
    size_t used = feed_lines(c, bytes, n, &end);
    if (!end) return used;
    c->requests++;
    http_head_parse(c);
    if (c->refusal) http_refuse(c, c->refusal, c->refusal_reason);
    else if (c->complete) hand_over(c);
    else begin_body(c);
    return used;
}

static size_t feed_trailers(http_conn *c, const char *bytes, size_t n) {
    size_t end, used = feed_lines(c, bytes, n, &end);
    if (end) hand_over(c);
    return used;
}

static size_t feed_body(http_conn *c, const char *bytes, size_t n) {
    llhttp_errno_t code = llhttp_execute(&c->parser, bytes, n);
    size_t         used = code == HPE_OK ? n : (size_t)(llhttp_get_error_pos(&c->parser) - bytes);
    c->wire_bytes += used;
    if (code == HPE_PAUSED && c->complete) return hand_over(c), used;
    if (code == HPE_PAUSED && c->in_trailers) {
        c->line_begin = c->scanned = (uint32_t)c->head.size;
        return used;
    }
    if (code != HPE_OK)
        return http_refuse(c, c->refusal ? c->refusal : 400, c->refusal ? c->refusal_reason : c->parser.reason), n;
    if (c->wire_bytes > 20 * (uint64_t)c->body.size + (128 << 10))
        http_refuse(c, 400, "the body's framing is longer than its bytes");
    return n;
}

/* Input while a request is being answered: kept for later up to a bound, thrown away beyond it. */
static size_t feed_ahead(http_conn *c, const char *bytes, size_t n) {
    if (c->ahead_begin) {
        c->ahead.size -= c->ahead_begin;
        memmove(c->ahead.data, c->ahead.data + c->ahead_begin, c->ahead.size);
        c->ahead_begin = 0;
    }
    if (!c->close_after && n <= AHEAD_MAX_BYTES - c->ahead.size) return buf_append(&c->ahead, bytes, n), n;
    c->close_after = true; /* bytes were lost: nothing after them can be understood */
    if ((c->wire_bytes += n) > DISCARD_MAX_BYTES) cut(c);
    return n;
}

static bool can_begin(const http_conn *c) {
    return c->state == CONN_HEAD || c->state == CONN_BODY ||
           (c->state == CONN_IDLE && c->out.size + c->in_flight < ANSWERED_MAX_BYTES);
}

static size_t consume(http_conn *c, const char *bytes, size_t n) {
    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD: return feed_head(c, bytes, n);
    case CONN_BODY: return c->in_trailers ? feed_trailers(c, bytes, n) : feed_body(c, bytes, n);
    case CONN_LINGER:
        if ((c->wire_bytes += n) > DISCARD_MAX_BYTES) cut(c);
        return n;
    default: return n;
    }
}

/* Pipelined requests whose turn has come; then, if the client has closed its side, the end. */
static void go_on(http_conn *c) {
    while (c->ahead.size > c->ahead_begin && can_begin(c))
        c->ahead_begin += consume(c, c->ahead.data + c->ahead_begin, c->ahead.size - c->ahead_begin);
    if (c->ahead_begin && c->ahead_begin == c->ahead.size) {
        buf_free(&c->ahead);
        c->ahead_begin = 0;
    }
    if (!c->eof || c->state == CONN_CLOSED) return;
    if (taken(c) || c->state == CONN_HEAD || c->state == CONN_BODY) cut(c);
    if (c->state == CONN_IDLE && c->ahead.size == 0) set_state(c, CONN_LINGER);
}

void http_feed(http_conn *c, const char *bytes, size_t n) {
    while (n > 0 && c->state != CONN_CLOSED) {
        bool   wait = taken(c) || c->ahead.size > c->ahead_begin || (c->state == CONN_IDLE && !can_begin(c));
        size_t used = wait ? feed_ahead(c, bytes, n) : consume(c, bytes, n);
        bytes += used, n -= used;
    }
    go_on(c);
}

void http_eof(http_conn *c) {
    c->eof = true;
    go_on(c);
    if (c->state == CONN_LINGER && c->out.size + c->in_flight == 0) set_state(c, CONN_CLOSED);
}

void http_wrote(http_conn *c) {
    c->write_us = c->server->now_us;
    if (c->state == CONN_STREAM) c->server->drained(c->server->owner, c);
    go_on(c);
    if (c->state == CONN_LINGER && c->eof && c->out.size == 0) set_state(c, CONN_CLOSED);
}

/* ---- time ---- */
static bool body_too_slow(const http_conn *c, uint64_t waited_us) {
    const server_config *limit = c->server->config;
    if (waited_us <= limit->body_timeout_us) return false;
    return c->wire_bytes / ((waited_us - limit->body_timeout_us) / 1000000 + 1) < limit->body_rate_min_bytes_s;
}

void http_expire(http_conn *c) {
    const server_config *limit = c->server->config;
    uint64_t             now_us = c->server->now_us, waited = now_us - c->since_us;
    size_t               unread = c->out.size + c->in_flight;
    if (unread && now_us - c->write_us > limit->write_stall_us) return cut(c);
    switch (c->state) {
    case CONN_IDLE:
        if (waited > (c->requests ? limit->idle_timeout_us : limit->head_timeout_us) && !unread) cut(c);
        break;
    case CONN_HEAD:
        if (waited > limit->head_timeout_us) http_refuse(c, 408, "the head of the request did not arrive in time");
        break;
    case CONN_BODY:
        if (body_too_slow(c, waited)) http_refuse(c, 408, "the body of the request arrives too slowly");
        break;
    case CONN_STREAM:
        if (limit->keepalive_comment_us && !unread && now_us - c->write_us > limit->keepalive_comment_us) {
            buf_str(http_chunk_begin(c), ": keep-alive\n\n");
            http_chunk_end(c);
        }
        break;
    case CONN_LINGER:
        if (waited > LINGER_US && !unread) cut(c);
        break;
    default: break;
    }
}

/* ---- output ---- */
static const struct {
    int         status;
    const char *text;
} status_texts[] = {
    {200, "OK"},
    {204, "No Content"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

const char *http_status_text(int status) {
    for (size_t i = 0; i < sizeof status_texts / sizeof *status_texts; i++)
        if (status_texts[i].status == status) return status_texts[i].text;
    return "Unknown";
}

static void write_head(http_conn *c, const http_reply *r) {
    buf *o = output(c);
    c->close_after |= c->server->draining;
    buf_printf(o, "HTTP/1.1 %d %s\r\n", r->status, http_status_text(r->status));
    if (c->server->date[0]) buf_str(o, "Date: "), buf_str(o, c->server->date), buf_str(o, "\r\n");
    if (r->type) buf_str(o, "Content-Type: "), buf_str(o, r->type), buf_str(o, "\r\n");
    if (r->headers) buf_str(o, r->headers);
    if (c->headers.size) buf_str(o, c->headers.data);
    if (c->close_after) buf_str(o, "Connection: close\r\n");
    else if (c->parser.http_minor == 0) buf_str(o, "Connection: keep-alive\r\n");
}

/* The request is answered: the next one, or the end. */
static void finish(http_conn *c) {
    forget_request(c);
    buf_free(&c->headers);
    c->exchange = NULL;
    c->close_after |= c->server->draining; /* a stream may have begun before */
    set_state(c, c->close_after ? CONN_LINGER : CONN_IDLE);
    if (c->close_after) buf_free(&c->ahead), c->ahead_begin = 0;
}

void http_answer(http_conn *c, const http_reply *r) {
    assert(c->state != CONN_STREAM && c->state != CONN_CLOSED);
    write_head(c, r);
    if (r->status != 204) buf_printf(&c->out, "Content-Length: %zu\r\n", r->size);
    buf_str(&c->out, "\r\n");
    if (!c->head_only) buf_append(&c->out, r->body, r->size);
    finish(c);
}

/* In the API's error shape, and the connection's last. `code` without quotes, or NULL. */
static void refuse(http_conn *c, int status, const char *code, const char *reason) {
    char        body[512];
    const char *type = status == 429 ? "rate_limit_error" : status < 500 ? "invalid_request_error" : "server_error";
    const char *mark = code ? "\"" : "";
    int n = snprintf(body, sizeof body, "{\"error\":{\"message\":\"%c%s.\",\"type\":\"%s\",\"param\":null,\"code\":%s%s%s}}",
                     toupper((unsigned char)reason[0]), reason + 1, type, mark, code ? code : "null", mark);
    c->close_after = true;
    c->head_only = false;
    if (c->server->refusing) c->server->refusing(c->server->owner, c);
    const char *retry = status == 503 || status == 429 ? "Retry-After: 1\r\nx-should-retry: true\r\n" : NULL;
    http_answer(c, &(http_reply){status, "application/json", retry, body, (size_t)n});
}

void http_refuse(http_conn *c, int status, const char *reason) {
    c->server->refused++;
    refuse(c, status, NULL, reason);
}

void http_turn_away(http_conn *c, int status, const char *code, const char *reason) {
    c->parser.http_minor = 1; /* what it speaks is not known and does not matter */
    refuse(c, status, code, reason);
}

void http_stream_begin(http_conn *c, const http_reply *r) {
    assert(c->state == CONN_BUSY);
    c->chunked = c->parser.http_minor == 1;
    c->close_after |= !c->chunked;
    write_head(c, r);
    buf_str(&c->out, c->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    set_state(c, CONN_STREAM);
}

/* A chunk's size comes before its bytes, so room for it is left and filled in afterwards: no second buffer, no copy. */
enum { CHUNK_HEAD_BYTES = 10 };

buf *http_chunk_begin(http_conn *c) {
    assert(c->state == CONN_STREAM && !c->chunk_open);
    c->chunk_open = true;
    output(c);
    c->chunk_at = c->out.size;
    if (c->chunked) buf_append(&c->out, "00000000\r\n", CHUNK_HEAD_BYTES);
    return &c->out;
}

void http_chunk_end(http_conn *c) {
    assert(c->chunk_open);
    c->chunk_open = false;
    if (!c->chunked) return;
    size_t n = c->out.size - c->chunk_at - CHUNK_HEAD_BYTES;
    if (n == 0) {
        c->out.size = c->chunk_at; /* an empty chunk would be the end */
        return;
    }
    for (char *digit = c->out.data + c->chunk_at + 8; n; n >>= 4) *--digit = "0123456789abcdef"[n & 15]; /* of zeros */
    buf_append(&c->out, "\r\n", 2);
}

void http_stream_end(http_conn *c, bool close) {
    assert(c->state == CONN_STREAM);
    if (c->chunked) buf_append(&c->out, "0\r\n\r\n", 5);
    c->close_after |= close;
    finish(c);
}
