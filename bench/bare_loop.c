/* bench/bare_loop.c: the least that a libuv and llhttp server can do, to hold the daemon against.
 *
 *     bare_loop PORT [INTERVAL_US]
 *
 * Any request is parsed and its body read over; what is answered depends on the path. /stream/N: N server-sent events of a
 * token each, one chunk and one write per event; every loop turn sends one to each stream, or, with INTERVAL_US, a second
 * thread wakes the loop so long after the last time to send one: as an engine does whose every pass takes that long.
 * Anything else: 27 bytes of JSON. No limits, no times, nothing is looked at. */
#include <llhttp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "base/clock.h"
#include "base/error.h"

enum { READ_BYTES = 64 << 10, URL_BYTES = 128 };

typedef struct connection connection;
struct connection {
    uv_tcp_t    tcp;
    llhttp_t    parser;
    connection *next_stream;
    uint32_t    events_left, url_bytes;
    bool        streams, closed;
    char        url[URL_BYTES];
};

static uv_loop_t         loop;
static llhttp_settings_t settings;
static connection       *streams;
static uv_idle_t         every_turn;
static uv_async_t        pace;
static uint64_t          interval_us;
static char              read_buffer[READ_BYTES];

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n"
                             "{\"id\":\"x\",\"object\":\"hello\"}";
static const char stream_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char stream_end[] = "0\r\n\r\n";
static const char event[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
    "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" hello\"},\"finish_reason\":null}]}\n\n";
static char   event_chunk[sizeof event + 16];
static size_t event_chunk_bytes;

static void on_closed(uv_handle_t *h) {
    connection *c = h->data;
    c->closed = true;
    if (!c->streams) free(c);
}

static void close_connection(connection *c) {
    if (!uv_is_closing((uv_handle_t *)&c->tcp)) uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* The peer is expected to keep up: a write that does not fit ends the measurement. */
static void send_bytes(connection *c, const char *bytes, size_t n) {
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)n);
    if (!uv_is_closing((uv_handle_t *)&c->tcp) && uv_try_write((uv_stream_t *)&c->tcp, &b, 1) != (int)n) close_connection(c);
}

static void send_events(void) {
    for (connection **at = &streams; *at;) {
        connection *c = *at;
        if (c->events_left && !c->closed) {
            c->events_left--;
            send_bytes(c, event_chunk, event_chunk_bytes);
            at = &c->next_stream;
            continue;
        }
        *at = c->next_stream;
        c->streams = false;
        if (c->closed) free(c);
        else send_bytes(c, stream_end, sizeof stream_end - 1);
    }
    if (!streams) uv_idle_stop(&every_turn);
}

static void on_turn(uv_idle_t *h) { (void)h, send_events(); }

static void on_pace(uv_async_t *a) { (void)a, send_events(); }

static void *keep_pace(void *unused) {
    for (;;) {
        uint64_t        due_ns = clock_ns() + interval_us * 1000;
        struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) {
        }
        uv_async_send(&pace);
    }
    return unused;
}

static void begin_stream(connection *c, uint32_t events) {
    send_bytes(c, stream_head, sizeof stream_head - 1);
    c->events_left = events;
    if (!streams && !interval_us) uv_idle_start(&every_turn, on_turn);
    c->streams = true, c->next_stream = streams, streams = c;
}

static int on_begin(llhttp_t *p) { return ((connection *)p->data)->url_bytes = 0; }
static int on_url(llhttp_t *p, const char *at, size_t n) {
    connection *c = p->data;
    if (n > URL_BYTES - 1 - c->url_bytes) n = URL_BYTES - 1 - c->url_bytes;
    memcpy(c->url + c->url_bytes, at, n);
    c->url_bytes += (uint32_t)n;
    return 0;
}
static int on_body(llhttp_t *p, const char *at, size_t n) { return (void)p, (void)at, (void)n, 0; }
static int on_complete(llhttp_t *p) {
    static const char prefix[] = "/stream/";
    connection       *c = p->data;
    c->url[c->url_bytes] = 0;
    if (strncmp(c->url, prefix, sizeof prefix - 1) == 0) begin_stream(c, (uint32_t)atoi(c->url + sizeof prefix - 1));
    else send_bytes(c, answer, sizeof answer - 1);
    return 0;
}

static void on_buffer(uv_handle_t *h, size_t suggested, uv_buf_t *out) {
    (void)h, (void)suggested;
    *out = uv_buf_init(read_buffer, sizeof read_buffer);
}
static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    connection *c = s->data;
    if (n < 0 || (n > 0 && llhttp_execute(&c->parser, b->base, (size_t)n) != HPE_OK)) close_connection(c);
}

static void on_connection(uv_stream_t *server, int status) {
    connection *c = calloc(1, sizeof *c);
    if (!c || status < 0) fatal("a connection cannot be taken");
    uv_tcp_init(&loop, &c->tcp);
    c->tcp.data = c;
    if (uv_accept(server, (uv_stream_t *)&c->tcp) != 0) return close_connection(c);
    uv_tcp_nodelay(&c->tcp, 1);
    llhttp_init(&c->parser, HTTP_REQUEST, &settings);
    c->parser.data = c;
    uv_read_start((uv_stream_t *)&c->tcp, on_buffer, on_read);
}

int main(int argc, char **argv) {
    struct sockaddr_in at;
    uv_tcp_t           server;
    if (argc < 2) return fputs("usage: bare_loop PORT [INTERVAL_US]\n", stderr), 64;
    interval_us = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    event_chunk_bytes = (size_t)snprintf(event_chunk, sizeof event_chunk, "%zx\r\n%s\r\n", sizeof event - 1, event);
    signal(SIGPIPE, SIG_IGN);
    llhttp_settings_init(&settings);
    settings.on_message_begin = on_begin, settings.on_url = on_url, settings.on_body = on_body;
    settings.on_message_complete = on_complete;
    uv_loop_init(&loop);
    uv_idle_init(&loop, &every_turn);
    uv_async_init(&loop, &pace, on_pace);
    uv_tcp_init(&loop, &server);
    uv_ip4_addr("127.0.0.1", atoi(argv[1]), &at);
    if (uv_tcp_bind(&server, (struct sockaddr *)&at, 0) || uv_listen((uv_stream_t *)&server, 1024, on_connection))
        fatal("cannot listen on port %s", argv[1]);
    pthread_t thread;
    if (interval_us && pthread_create(&thread, NULL, keep_pace, NULL) != 0) fatal("no second thread");
    return uv_run(&loop, UV_RUN_DEFAULT);
}
