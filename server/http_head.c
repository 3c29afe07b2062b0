/* server/http_head.c: the head of a request: first its lines, then its fields. See http.h for why there are two looks. */
#include <string.h>
#include <strings.h>

#include "server/http.h"

/* Headers that somebody asks for; all others are checked and forgotten. */
static const char *const kept_names[] = {
    "host",
    "content-type",
    "expect",
    "authorization",
    "x-request-id",
    "x-session-id",
    "accept",
    "origin",
    "user-agent",
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",
    "transfer-encoding",
    "access-control-request-method",
    "access-control-request-headers",
};
enum { KEPT_COUNT = sizeof kept_names / sizeof *kept_names, FIELD_OTHER = -1 };

static int kept_index(const char *name, size_t n) {
    for (int i = 0; i < KEPT_COUNT; i++)
        if (strlen(kept_names[i]) == n && strncasecmp(kept_names[i], name, n) == 0) return i;
    return FIELD_OTHER;
}

/* RFC 9110 token characters. */
static bool is_token(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_text(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7F) return false;
    return true;
}

/* METHOD SP target SP HTTP/x.y: exactly two spaces, nothing empty. */
static int request_line_status(const char *line, size_t n, const char **reason) {
    const char *first = memchr(line, ' ', n);
    if (!first || first == line) return *reason = "the request line has no target", 400;
    const char *target = first + 1;
    const char *second = memchr(target, ' ', n - (size_t)(target - line));
    if (!second || second == target) return *reason = "the request line has no HTTP version", 400;
    const char *version = second + 1;
    if (line + n - version != 8 || memcmp(version, "HTTP/", 5) != 0 || version[6] != '.')
        return *reason = "the request line does not end in an HTTP version", 400;
    if (version[5] != '1' || (version[7] != '0' && version[7] != '1'))
        return *reason = "only HTTP/1.0 and HTTP/1.1 are spoken here", 505;
    if (memchr(target, '#', (size_t)(second - target))) return *reason = "the request target holds a fragment", 400;
    return 0;
}

static const char *header_line_fault(const char *line, size_t n) {
    if (line[0] == ' ' || line[0] == '\t') return "a header is folded over lines";
    size_t name = 0;
    while (name < n && is_token((unsigned char)line[name])) name++;
    return name == 0 || name == n || line[name] != ':' ? "a header has no proper name" : NULL;
}

/* One line, without its CRLF. */
static int line_status(http_conn *c, const char *line, size_t n, const char **reason) {
    bool first = c->header_count == 0 && c->line_begin == 0;
    if (!is_text(line, n)) return *reason = "the head of the request holds a control character", 400;
    if (first) return request_line_status(line, n, reason);
    if (++c->header_count > c->server->config->headers_max_count)
        return *reason = "the request has more headers than are accepted", 431;
    return (*reason = header_line_fault(line, n)) ? 400 : 0;
}

/* `bytes` of head without the end of the current line. */
static int too_long(http_conn *c, size_t bytes, const char **reason) {
    const server_config *limit = c->server->config;
    if (c->line_begin == 0 && bytes > limit->request_line_max_bytes)
        return *reason = "the request line is longer than is accepted", 414;
    if (bytes > limit->request_line_max_bytes + limit->headers_max_bytes)
        return *reason = "the headers are longer than is accepted", 431;
    return 0;
}

int http_head_scan(http_conn *c, size_t *end, const char **reason) {
    const char *head = c->head.data, *newline;
    *end = 0;
    while ((newline = memchr(head + c->scanned, '\n', c->head.size - c->scanned))) {
        size_t at = (size_t)(newline - head), n = at - c->line_begin;
        int    status = too_long(c, at, reason);
        if (status) return status;
        if (n == 0 || head[at - 1] != '\r') return *reason = "a line of the head does not end in CRLF", 400;
        c->scanned = (uint32_t)at + 1;
        if (n == 1) {
            if (c->line_begin == 0) return *reason = "the request is empty", 400;
            return *end = at + 1, 0;
        }
        if ((status = line_status(c, head + c->line_begin, n - 1, reason))) return status;
        c->line_begin = c->scanned;
    }
    c->scanned = (uint32_t)c->head.size;
    return too_long(c, c->head.size, reason);
}

enum { EXTENSIONS_MAX_BYTES = 4 << 10 }; /* of all chunks of a body; nobody is known to send any */

/* ---- llhttp's callbacks; spans never arrive in parts because the whole head is parsed at once ---- */
static http_span span_of(const http_conn *c, const char *at, size_t n) {
    return (http_span){(uint32_t)(at - c->head.data), (uint32_t)n};
}

static int on_url(llhttp_t *p, const char *at, size_t n) {
    http_conn *c = p->data;
    c->url = span_of(c, at, n);
    return 0;
}

static void refuse_later(http_conn *c, int status, const char *reason) {
    if (!c->refusal) c->refusal = status, c->refusal_reason = reason;
}

static int on_extension(llhttp_t *p, const char *at, size_t n) {
    http_conn *c = p->data;
    (void)at;
    if (n > EXTENSIONS_MAX_BYTES - c->extension_bytes)
        return refuse_later(c, 400, "the extensions of the chunks are longer than is accepted"), HPE_USER;
    c->extension_bytes += (uint32_t)n;
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n) {
    http_conn *c = p->data;
    c->field = (int8_t)kept_index(at, n);
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n) {
    http_conn *c = p->data;
    if (c->field == FIELD_OTHER) return 0;
    while (n && (at[n - 1] == ' ' || at[n - 1] == '\t')) n--;
    if (c->field == 0) c->host_count++;
    if (c->kept_count == HTTP_HEADERS_KEPT) return 0;
    c->kept[c->kept_count].name = (uint8_t)c->field;
    c->kept[c->kept_count++].value = span_of(c, at, n);
    return 0;
}

static bool header_is(const http_conn *c, const char *name, const char *value) {
    size_t      n;
    const char *v = http_header(c, name, &n);
    return v && n == strlen(value) && strncasecmp(v, value, n) == 0;
}

static void check_host(http_conn *c) {
    size_t      n = 0;
    const char *host = http_header(c, "host", &n);
    bool        old = c->parser.http_minor == 0;
    if (c->host_count != 1 && !(old && c->host_count == 0))
        refuse_later(c, 400, c->host_count ? "the request has more than one Host header" : "the request has no Host header");
    for (size_t i = 0; i < n; i++)
        if (strchr(" \t,/\\@?#", host[i])) return refuse_later(c, 400, "the Host header is not a host");
}

/* The target as a path: absolute form loses its scheme and authority (RFC 9112, 3.2.2). */
static void check_target(http_conn *c) {
    const char *url = c->head.data + c->url.at;
    size_t      n = c->url.size;
    if (n && url[0] == '/') return;
    if (n == 1 && url[0] == '*' && c->parser.method == HTTP_OPTIONS) return;
    const char *authority = n > 7 && strncasecmp(url, "http://", 7) == 0 ? url + 7 : NULL;
    const char *slash = authority ? memchr(authority, '/', n - 7) : NULL;
    if (!slash) return refuse_later(c, 400, "the request target is not a path");
    c->url = span_of(c, slash, n - (size_t)(slash - url));
}

static void check_framing(http_conn *c) {
    const llhttp_t *p = &c->parser;
    size_t          n;
    if (p->method == HTTP_CONNECT) refuse_later(c, 501, "CONNECT is not offered");
    if (http_header(c, "transfer-encoding", &n)) {
        if (p->http_minor == 0) refuse_later(c, 400, "HTTP/1.0 has no Transfer-Encoding");
        if (!header_is(c, "transfer-encoding", "chunked"))
            refuse_later(c, 501, "only the transfer coding chunked is understood");
    }
    if ((p->flags & F_CONTENT_LENGTH) && p->content_length > c->server->config->body_max_bytes)
        refuse_later(c, 413, "the body is larger than is accepted");
    if (http_header(c, "expect", &n) && p->http_minor == 1 && !header_is(c, "expect", "100-continue"))
        refuse_later(c, 417, "the only expectation understood is 100-continue");
}

static int on_headers_complete(llhttp_t *p) {
    http_conn *c = p->data;
    check_framing(c);
    check_host(c);
    check_target(c);
    c->close_after = !llhttp_should_keep_alive(p) || c->requests >= c->server->config->requests_per_connection;
    c->head_only = p->method == HTTP_HEAD;
    p->upgrade = 0; /* no protocol to upgrade to: the request is answered as HTTP/1.1 */
    return 0;
}

/* A byte of body may cost this many on the wire, in chunk sizes and extensions, before it is called an attack. */
enum { FRAMING_RATIO = 16, FRAMING_SLACK = 64 << 10, BODIES_MAX = 32 };

static int on_body(llhttp_t *p, const char *at, size_t n) {
    http_conn   *c = p->data;
    http_server *s = c->server;
    if (n > s->config->body_max_bytes - c->body.size) refuse_later(c, 413, "the body is larger than is accepted");
    else if (s->body_bytes + n > BODIES_MAX * s->config->body_max_bytes)
        refuse_later(c, 503, "too many large bodies are being received at once");
    if (c->refusal) return HPE_USER;
    buf_append(&c->body, at, n);
    s->body_bytes += n;
    return 0;
}

static int on_chunk_header(llhttp_t *p) {
    http_conn *c = p->data;
    if (p->content_length > c->server->config->body_max_bytes - c->body.size)
        refuse_later(c, 413, "the body is larger than is accepted");
    if (c->wire_bytes > FRAMING_RATIO * c->body.size + FRAMING_SLACK)
        refuse_later(c, 400, "the body is cut into too small chunks");
    if (p->content_length == 0) c->in_trailers = true;
    return c->refusal ? HPE_USER : c->in_trailers ? HPE_PAUSED : 0; /* trailers are lines like those of a head: http.c */
}

static int on_message_complete(llhttp_t *p) {
    http_conn *c = p->data;
    c->complete = true;
    return HPE_PAUSED; /* what follows is the next request: it waits its turn */
}

static const llhttp_settings_t callbacks = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

void http_head_parse(http_conn *c) {
    llhttp_init(&c->parser, HTTP_REQUEST, &callbacks);
    c->parser.data = c;
    c->field = FIELD_OTHER, c->kept_count = c->host_count = 0, c->complete = c->in_trailers = false;
    c->url = (http_span){0, 0};
    llhttp_errno_t code = llhttp_execute(&c->parser, c->head.data, c->head.size);
    if (code != HPE_OK && code != HPE_PAUSED)
        refuse_later(c, 400, c->parser.reason ? c->parser.reason : "the head of the request is malformed");
    if (c->url.size == 0) refuse_later(c, 400, "the head of the request is malformed");
}

const char *http_header(const http_conn *c, const char *name, size_t *size) {
    for (uint32_t i = 0; i < c->kept_count; i++)
        if (strcmp(kept_names[c->kept[i].name], name) == 0)
            return *size = c->kept[i].value.size, c->head.data + c->kept[i].value.at;
    return NULL;
}

const char *http_path(const http_conn *c, size_t *size) {
    const char *url = c->head.data + c->url.at, *query = memchr(url, '?', c->url.size);
    *size = query ? (size_t)(query - url) : c->url.size;
    return url;
}
