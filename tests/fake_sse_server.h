/* tests/fake_sse_server.h: a server that speaks just enough of the OpenAI API to be replayed against, and costs little.
 *
 * One libuv loop; every stream gets an event with one token per turn of the loop (or per interval). It remembers what it was
 * asked and what it answered, so that `cached_tokens` is the longest prefix it has really seen. */
#pragma once
#include <assert.h>
#include <llhttp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

typedef enum { FAKE_GOOD, FAKE_FULL, FAKE_CUT, FAKE_ERROR_EVENT, FAKE_NO_FINISH, FAKE_GARBAGE } fake_trouble;

static struct {
    uint32_t     gate;          /* no stream gets a token before so many are open */
    uint32_t     interval_ms;   /* between the tokens of a stream; 0: as fast as it goes */
    uint32_t     trouble_every; /* every so many requests get the trouble; 0: none */
    fake_trouble trouble;
    bool         silent_ids; /* never tells token ids */
    bool         remember;   /* contexts, for cached_tokens: costs time in proportion to their number */
} fake_sse;

typedef struct {
    uint32_t *ids, count;
} fake_context;

typedef struct fake_conn {
    uv_tcp_t          tcp;
    llhttp_t          http;
    char             *body;
    size_t            body_size, body_room;
    char              path[64];
    size_t            path_size;
    fake_context      context; /* prompt, then answer */
    uint32_t          prompt_tokens, cached_tokens, left, sent;
    bool              tells_ids, active;
    fake_trouble      trouble;
    struct fake_conn *next;
} fake_conn;

static struct {
    uv_loop_t         loop;
    uv_tcp_t          listener;
    uv_timer_t        pace;
    uv_idle_t         idle;
    llhttp_settings_t settings;
    fake_conn        *streams;
    uint32_t          open, requests;
    fake_context      seen[4096];
    uint32_t          seen_count;
    char              bytes[256 << 10];
} fake_state;

static void fake_closed(uv_handle_t *h) {
    fake_conn *c = h->data;
    free(c->body), free(c);
}
static void fake_close(fake_conn *c) {
    if (!uv_is_closing((uv_handle_t *)&c->tcp)) uv_close((uv_handle_t *)&c->tcp, fake_closed);
}
static void fake_written(uv_write_t *w, int status) { (void)status, free(w); }

static void fake_write(fake_conn *c, const char *text, size_t n) {
    uv_buf_t b = uv_buf_init((char *)text, (unsigned)n);
    int      done = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
    if (done == (int)n || uv_is_closing((uv_handle_t *)&c->tcp)) return;
    if (done < 0) done = 0;
    struct {
        uv_write_t w;
        char       text[];
    } *rest = malloc(sizeof(uv_write_t) + n);
    assert(rest);
    memcpy(rest->text, text + done, n - (size_t)done);
    b = uv_buf_init(rest->text, (unsigned)(n - (size_t)done));
    uv_write(&rest->w, (uv_stream_t *)&c->tcp, &b, 1, fake_written);
}

__attribute__((format(printf, 2, 3))) static void fake_event(fake_conn *c, const char *format, ...) {
    char    data[1024], chunk[1100];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(data, sizeof data, format, args);
    va_end(args);
    n = snprintf(chunk, sizeof chunk, "%x\r\ndata: %s\n\n\r\n", n + 8, data);
    fake_write(c, chunk, (size_t)n);
}

static void fake_page(fake_conn *c, int status, const char *body) {
    char text[2048];
    int  n = snprintf(text, sizeof text, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                      status, strlen(body), body);
    fake_write(c, text, (size_t)n);
    fake_close(c);
}

/* ---- completions ---- */

static uint32_t fake_number(const char *body, const char *name) {
    const char *at = strstr(body, name);
    return at ? (uint32_t)strtoul(at + strlen(name), NULL, 10) : 0;
}

static void fake_read_prompt(fake_conn *c, uint32_t room) {
    char *at = strstr(c->body, "\"prompt\":[");
    assert(at);
    c->context.ids = malloc((c->body_size + room + 1) * sizeof *c->context.ids);
    assert(c->context.ids);
    for (at += 10; *at != ']'; at += *at == ',') c->context.ids[c->context.count++] = (uint32_t)strtoul(at, &at, 10);
    c->prompt_tokens = c->context.count;
    for (uint32_t i = 0; fake_sse.remember && i < fake_state.seen_count; i++) {
        const fake_context *s = &fake_state.seen[i];
        uint32_t            n = 0;
        while (n < s->count && n < c->context.count && s->ids[n] == c->context.ids[n]) n++;
        if (n > c->cached_tokens) c->cached_tokens = n;
    }
}

static void fake_turn(void);
static void fake_on_pace(uv_timer_t *t) { (void)t, fake_turn(); }
static void fake_on_idle(uv_idle_t *t) { (void)t, fake_turn(); }

static void fake_stream(fake_conn *c) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    uint32_t          number = ++fake_state.requests;
    c->left = fake_number(c->body, "\"max_tokens\":");
    c->trouble = fake_sse.trouble_every && number % fake_sse.trouble_every == 0 ? fake_sse.trouble : FAKE_GOOD;
    c->tells_ids = !fake_sse.silent_ids && strstr(c->body, "\"return_token_ids\":true");
    if (c->trouble == FAKE_FULL) {
        fake_page(c, 429, "{\"error\":{\"message\":\"The queue is full.\",\"type\":\"overloaded\"}}");
        return;
    }
    fake_read_prompt(c, c->left);
    fake_write(c, head, sizeof head - 1);
    c->active = true, c->next = fake_state.streams, fake_state.streams = c, fake_state.open++;
    if (!fake_sse.interval_ms) uv_idle_start(&fake_state.idle, fake_on_idle);
    else if (!uv_is_active((uv_handle_t *)&fake_state.pace))
        uv_timer_start(&fake_state.pace, fake_on_pace, fake_sse.interval_ms, fake_sse.interval_ms);
}

static void fake_end_stream(fake_conn *c) {
    if (c->trouble == FAKE_GOOD) {
        fake_event(c, "{\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}]}");
        fake_event(c,
                   "{\"choices\":[],\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"prompt_tokens_details\":"
                   "{\"cached_tokens\":%u}}}",
                   c->prompt_tokens, c->sent, c->cached_tokens);
        fake_event(c, "[DONE]");
    }
    if (c->trouble == FAKE_ERROR_EVENT) fake_event(c, "{\"error\":{\"message\":\"the device failed\"}}");
    if (c->trouble == FAKE_GARBAGE) fake_event(c, "{\"choices\":[");
    if (c->trouble != FAKE_CUT) fake_write(c, "0\r\n\r\n", 5);
    if (fake_sse.remember && fake_state.seen_count < sizeof fake_state.seen / sizeof *fake_state.seen)
        fake_state.seen[fake_state.seen_count++] = c->context;
    else free(c->context.ids);
    fake_close(c);
}

static void fake_token(fake_conn *c) {
    static const char event[] =
        "{\"id\":\"cmpl-0123456789abcdef00000001\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"fake\","
        "\"choices\":[{\"index\":0,\"text\":\" word\",\"logprobs\":null,\"finish_reason\":null%s}],\"usage\":null}";
    char     ids[48] = "";
    uint32_t id = 1000 + c->sent * 7;
    if (c->tells_ids) snprintf(ids, sizeof ids, ",\"token_ids\":[%u]", id);
    fake_event(c, event, ids);
    c->context.ids[c->context.count++] = id, c->sent++, c->left--;
    if (c->trouble != FAKE_GOOD && c->sent == 2) c->left = 0;
}

/* One token for every open stream. */
static void fake_turn(void) {
    if (fake_state.open < fake_sse.gate) return;
    fake_sse.gate = 0;
    for (fake_conn **link = &fake_state.streams, *c; (c = *link);) {
        bool gone = uv_is_closing((uv_handle_t *)&c->tcp);
        if (!gone && c->left) fake_token(c);
        if (!gone && c->left) {
            link = &c->next;
            continue;
        }
        *link = c->next, fake_state.open--;
        if (!gone) fake_end_stream(c);
    }
    if (fake_state.streams) return;
    uv_idle_stop(&fake_state.idle), uv_timer_stop(&fake_state.pace);
}

/* ---- HTTP ---- */

static int fake_on_url(llhttp_t *http, const char *at, size_t n) {
    fake_conn *c = http->data;
    for (size_t i = 0; i < n && c->path_size + 1 < sizeof c->path; i++) c->path[c->path_size++] = at[i];
    return 0;
}

static int fake_on_body(llhttp_t *http, const char *at, size_t n) {
    fake_conn *c = http->data;
    if (c->body_size + n + 1 > c->body_room) {
        c->body_room = (c->body_size + n + 1) * 2;
        c->body = realloc(c->body, c->body_room);
        assert(c->body);
    }
    memcpy(c->body + c->body_size, at, n);
    c->body[c->body_size += n] = 0;
    return 0;
}

static int fake_on_request(llhttp_t *http) {
    fake_conn *c = http->data;
    char       page[512];
    if (strcmp(c->path, "/v1/completions") == 0) fake_stream(c);
    else if (strcmp(c->path, "/v1/models") == 0)
        fake_page(c, 200, "{\"data\":[{\"id\":\"fake\",\"max_model_len\":1000000}]}");
    else if (strcmp(c->path, "/tokenize") == 0) fake_page(c, 200, "{\"tokens\":[5,4095,17]}");
    else if (strcmp(c->path, "/metrics") == 0) {
        snprintf(page, sizeof page,
                 "# a comment\nvllm:num_requests_running{model_name=\"a } b\"} %u\nvllm:num_requests_waiting 0\n",
                 fake_state.open);
        fake_page(c, 200, page);
    } else fake_page(c, 404, "{}");
    return 0;
}

static void fake_room(uv_handle_t *h, size_t n, uv_buf_t *b) {
    (void)h, (void)n;
    *b = uv_buf_init(fake_state.bytes, sizeof fake_state.bytes);
}
static void fake_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    fake_conn *c = s->data;
    if (n < 0 || (n > 0 && llhttp_execute(&c->http, b->base, (size_t)n) != HPE_OK)) fake_close(c);
}
static void fake_accept(uv_stream_t *listener, int status) {
    fake_conn *c = calloc(1, sizeof *c);
    assert(c && status == 0);
    uv_tcp_init(&fake_state.loop, &c->tcp);
    c->tcp.data = c;
    llhttp_init(&c->http, HTTP_REQUEST, &fake_state.settings);
    c->http.data = c;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0) fake_close(c);
    else uv_tcp_nodelay(&c->tcp, 1), uv_read_start((uv_stream_t *)&c->tcp, fake_room, fake_read);
}

/* Listens on 127.0.0.1 (port 0: any) and returns the port; then serve for ever. */
static uint16_t fake_sse_listen(uint16_t port) {
    struct sockaddr_in      at;
    struct sockaddr_storage got;
    int                     size = sizeof got;
    struct rlimit           files;
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    llhttp_settings_init(&fake_state.settings);
    fake_state.settings.on_url = fake_on_url, fake_state.settings.on_body = fake_on_body;
    fake_state.settings.on_message_complete = fake_on_request;
    uv_loop_init(&fake_state.loop);
    uv_timer_init(&fake_state.loop, &fake_state.pace), uv_idle_init(&fake_state.loop, &fake_state.idle);
    uv_tcp_init(&fake_state.loop, &fake_state.listener);
    uv_ip4_addr("127.0.0.1", port, &at);
    int failed = uv_tcp_bind(&fake_state.listener, (const struct sockaddr *)&at, 0);
    if (!failed) failed = uv_listen((uv_stream_t *)&fake_state.listener, 4096, fake_accept);
    if (!failed) failed = uv_tcp_getsockname(&fake_state.listener, (struct sockaddr *)&got, &size);
    if (failed) fprintf(stderr, "port %u: %s\n", port, uv_strerror(failed)), exit(1);
    return ntohs(((struct sockaddr_in *)&got)->sin_port);
}
static inline void fake_sse_serve(void) { uv_run(&fake_state.loop, UV_RUN_DEFAULT); }

/* Serves in a child process, which dies with this one. */
static inline pid_t fake_sse_start(uint16_t *port) {
    int   ends[2];
    pid_t child = pipe(ends) == 0 ? fork() : -1;
    assert(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint16_t got = fake_sse_listen(0);
        if (write(ends[1], &got, sizeof got) != sizeof got) _exit(1);
        fake_sse_serve();
        _exit(0);
    }
    if (read(ends[0], port, sizeof *port) != sizeof *port) exit(1);
    close(ends[0]), close(ends[1]);
    return child;
}
