#include "server/listener.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

enum { READ_BYTES = 64 << 10, BACKLOG = 1024, TICK_MS = 200, KEEPALIVE_S = 60 };

typedef struct connection connection;
struct connection {
    http_conn     http; /* first: a connection is found from its http_conn */
    uv_tcp_t      tcp;
    uv_write_t    write;
    uv_shutdown_t shutdown;
    listener     *owner;
    connection   *previous, *next, *next_touched;
    buf           sending; /* what the socket did not take at once, while the loop sends it */
    bool          closing, shut, touched;
};

struct listener {
    uv_loop_t     *loop;
    uv_tcp_t       socket;
    uv_timer_t     tick;
    http_server   *server;
    connection    *connections, *touched;
    listener_facts facts;
    bool           stopped;
    char           read_buffer[READ_BYTES];
};

static connection *connection_of(http_conn *c) { return (connection *)c; }

static void set_clock(listener *l) {
    http_server *s = l->server;
    s->now_us = clock_us();
    time_t now = time(NULL);
    if (now == s->date_s) return;
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    s->date_s = now;
}

/* ---- the end of a connection ---- */
static void unlink_connection(connection *c) {
    listener *l = c->owner;
    if (c->previous) c->previous->next = c->next;
    else l->connections = c->next;
    if (c->next) c->next->previous = c->previous;
    l->facts.connections--;
    if (!l->connections) uv_timer_stop(&l->tick);
}

static void on_closed(uv_handle_t *handle) {
    connection *c = handle->data;
    buf_free(&c->sending);
    free(c);
}

static void close_connection(connection *c) {
    if (c->closing) return;
    c->closing = true;
    http_free(&c->http);
    unlink_connection(c);
    for (connection **at = &c->owner->touched; c->touched && *at; at = &(*at)->next_touched)
        if (*at == c) {
            *at = c->next_touched;
            break;
        }
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* ---- writing ---- */
static void flush(connection *c);

static void on_shutdown(uv_shutdown_t *request, int status) { (void)request, (void)status; }

static void on_written(uv_write_t *request, int status) {
    connection *c = request->data;
    if (c->closing) return;
    if (status < 0) return close_connection(c);
    set_clock(c->owner);
    buf_clear(&c->sending);
    c->http.in_flight = 0;
    if (c->http.out.size == 0) http_wrote(&c->http);
    flush(c);
}

/* The socket is full: what is left goes to the loop, and `out` becomes empty for what comes meanwhile. */
static void send_later(connection *c, size_t sent) {
    buf empty = c->sending;
    c->sending = c->http.out;
    buf_clear(&empty);
    empty.limit = c->sending.limit;
    c->http.out = empty;
    c->http.in_flight = c->sending.size - sent;
    c->http.write_us = c->http.server->now_us;
    c->write.data = c;
    uv_buf_t rest = uv_buf_init(c->sending.data + sent, (unsigned)c->http.in_flight);
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &rest, 1, on_written) < 0) close_connection(c);
}

static bool send_now(connection *c) {
    buf     *out = &c->http.out;
    uv_buf_t all = uv_buf_init(out->data, (unsigned)out->size);
    int      sent = uv_try_write((uv_stream_t *)&c->tcp, &all, 1);
    if (sent < 0 && sent != UV_EAGAIN) return close_connection(c), false;
    if (sent < 0) sent = 0;
    if ((size_t)sent < out->size) return send_later(c, (size_t)sent), false;
    buf_clear(out);
    http_wrote(&c->http);
    return true;
}

static void flush(connection *c) {
    if (buf_overflowed(&c->http.out)) http_abort(&c->http); /* an answer beyond all bounds was cut */
    while (!c->closing && c->http.out.size && c->http.in_flight == 0 && c->http.state != CONN_CLOSED)
        if (!send_now(c)) break;
    if (c->closing) return;
    if (c->http.state == CONN_CLOSED) return close_connection(c);
    if (c->http.in_flight || c->http.out.size) return;
    if (c->http.state != CONN_STREAM) buf_free(&c->http.out), buf_free(&c->sending); /* idle connections hold nothing */
    if (c->http.state == CONN_LINGER && !c->shut) {
        c->shut = true;
        if (c->http.eof || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) < 0) close_connection(c);
    }
}

void listener_touch(http_conn *http) {
    connection *c = connection_of(http);
    if (c->touched || c->closing) return;
    c->touched = true;
    c->next_touched = c->owner->touched;
    c->owner->touched = c;
}

void listener_flush(listener *l) {
    for (connection *c; (c = l->touched);) {
        l->touched = c->next_touched;
        c->touched = false;
        flush(c);
    }
}

/* ---- reading ---- */
static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)suggested;
    connection *c = handle->data;
    *out = uv_buf_init(c->owner->read_buffer, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
    connection *c = stream->data;
    listener   *l = c->owner;
    if (c->closing || n == 0) return;
    set_clock(l);
    if (n > 0) http_feed(&c->http, bytes->base, (size_t)n);
    else http_eof(&c->http);
    if (n < 0 && n != UV_EOF) close_connection(c);
    else flush(c);
    listener_flush(l);
}

static void on_tick(uv_timer_t *timer) {
    listener *l = timer->data;
    set_clock(l);
    for (connection *c = l->connections, *next; c; c = next) {
        next = c->next;
        http_expire(&c->http);
        flush(c);
    }
    listener_flush(l);
}

/* ---- accepting ---- */
static const char full_answer[] =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 119\r\n"
    "Retry-After: 1\r\nConnection: close\r\n\r\n"
    "{\"error\":{\"message\":\"Too many connections are open.\",\"type\":\"server_error\","
    "\"param\":null,\"code\":\"too_many_connections\"}}";

static void on_connection(uv_stream_t *socket, int status) {
    listener *l = socket->data;
    if (status < 0) return;
    connection *c = calloc(1, sizeof *c);
    if (!c) fatal("out of memory for a connection");
    c->owner = l;
    c->tcp.data = c;
    set_clock(l);
    uv_tcp_init(l->loop, &c->tcp);
    http_init(&c->http, l->server);
    buf_init(&c->sending, c->http.out.limit);
    bool full = l->facts.connections >= l->server->config->connections_max;
    if (l->connections) l->connections->previous = c;
    c->next = l->connections;
    l->connections = c;
    l->facts.connections++;
    if (!uv_is_active((uv_handle_t *)&l->tick)) uv_timer_start(&l->tick, on_tick, TICK_MS, TICK_MS);
    if (uv_accept(socket, (uv_stream_t *)&c->tcp) < 0) return close_connection(c);
    l->facts.accepted++;
    if (full) {
        uv_buf_t answer = uv_buf_init((char *)(uintptr_t)full_answer, sizeof full_answer - 1);
        uv_try_write((uv_stream_t *)&c->tcp, &answer, 1);
        l->facts.turned_away++;
        return close_connection(c);
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S); /* a peer that lost its power says no goodbye */
    uv_read_start((uv_stream_t *)&c->tcp, on_buffer, on_read);
}

static int resolve(const char *host, uint32_t port, struct sockaddr_storage *out, error *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    char            service[16];
    snprintf(service, sizeof service, "%u", port);
    int code = getaddrinfo(host, service, &hints, &found);
    if (code != 0) return error_set(err, ERR_NOT_FOUND, "the address '%s' cannot be used: %s", host, gai_strerror(code));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return OK;
}

static uint32_t bound_port(const uv_tcp_t *socket) {
    struct sockaddr_storage address = {0};
    int                     size = sizeof address;
    char                    port[16] = "0";
    uv_tcp_getsockname(socket, (struct sockaddr *)&address, &size);
    getnameinfo((struct sockaddr *)&address, (socklen_t)size, NULL, 0, port, sizeof port, NI_NUMERICSERV | NI_NUMERICHOST);
    return (uint32_t)atoi(port);
}

int listener_open(listener **out, uv_loop_t *loop, http_server *server, error *err) {
    const server_config    *config = server->config;
    struct sockaddr_storage address;
    int                     code = resolve(config->host, config->port, &address, err);
    if (code != OK) return code;
    listener *l = calloc(1, sizeof *l);
    if (!l) fatal("out of memory for the listener");
    l->loop = loop, l->server = server;
    uv_tcp_init(loop, &l->socket);
    uv_timer_init(loop, &l->tick);
    l->socket.data = l, l->tick.data = l;
    if ((code = uv_tcp_bind(&l->socket, (struct sockaddr *)&address, 0)) == 0)
        code = uv_listen((uv_stream_t *)&l->socket, BACKLOG, on_connection);
    *out = l;
    if (code == 0) {
        set_clock(l);
        l->facts.port = bound_port(&l->socket);
        return OK;
    }
    listener_close(l);
    uv_run(loop, UV_RUN_NOWAIT);
    listener_free(l);
    *out = NULL;
    return error_set(err, ERR_IO, "cannot listen on %s port %u: %s; choose another with --host or --port", config->host,
                     config->port, uv_strerror(code));
}

void listener_stop(listener *l) {
    if (l->stopped) return;
    l->stopped = true;
    l->server->draining = true;
    uv_close((uv_handle_t *)&l->socket, NULL);
    for (connection *c = l->connections, *next; c; c = next) {
        next = c->next;
        if (c->http.state == CONN_IDLE && c->http.out.size + c->http.in_flight == 0) close_connection(c);
    }
}

void listener_close(listener *l) {
    listener_stop(l);
    while (l->connections) close_connection(l->connections);
    if (!uv_is_closing((uv_handle_t *)&l->tick)) uv_close((uv_handle_t *)&l->tick, NULL);
}

void listener_free(listener *l) { free(l); }

listener_facts listener_read_facts(const listener *l) { return l->facts; }
