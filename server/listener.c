#include "server/listener.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/acceptor.h"
#include "server/peers.h"
#include "server/socket.h"

enum {
    READ_BYTES = 64 << 10,
    TICK_MS = 200,
    KEEPALIVE_S = 60,
    IDLE_GRACE_US = 200000,  /* after a stop, for requests that were on their way into idle connections */
    ADMIN_MAX = 16,          /* connections of the operator */
    TURNED_AWAY_MAX = 64,    /* connections that are being told that there are too many; more are closed without a word */
    DESCRIPTORS_OTHER = 128, /* what the rest of the process may have open */
};

typedef union {
    uv_stream_t stream;
    uv_handle_t handle;
    uv_tcp_t    tcp;
    uv_pipe_t   pipe;
} any_socket;

/* What a connection is counted as. */
typedef enum { COUNTED_NOT, COUNTED_CLIENT, COUNTED_ADMIN, COUNTED_TURNED_AWAY, COUNTED_KINDS } counted;

typedef struct connection connection;
struct connection {
    http_conn     http; /* first: a connection is found from its http_conn */
    any_socket    socket;
    uv_write_t    write;
    uv_shutdown_t shutdown;
    listener     *owner;
    connection   *previous, *next, *next_touched;
    uint64_t      peer;    /* socket_peer_key, where it is counted by address; else 0 */
    buf           sending; /* what the socket did not take at once, while the loop sends it */
    uint8_t       counted;
    bool          closing, shut, touched;
};

struct listener {
    uv_loop_t     *loop;
    acceptor       doors;
    uv_timer_t     tick;
    http_server   *server;
    connection    *connections, *touched;
    uint32_t       open[COUNTED_KINDS], descriptors_max; /* descriptors_max: that are left for clients */
    peers         *peers;
    listener_facts facts;
    uint64_t       stopped_us; /* 0: it goes on */
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
    l->open[c->counted]--;
    if (c->peer) peers_remove(l->peers, c->peer);
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
    uv_close(&c->socket.handle, on_closed);
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
    if (uv_write(&c->write, &c->socket.stream, &rest, 1, on_written) < 0) close_connection(c);
}

static bool send_now(connection *c) {
    buf     *out = &c->http.out;
    uv_buf_t all = uv_buf_init(out->data, (unsigned)out->size);
    int      sent = uv_try_write(&c->socket.stream, &all, 1);
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
        if (c->http.eof || uv_shutdown(&c->shutdown, &c->socket.stream, on_shutdown) < 0) close_connection(c);
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

/* Closing with a request unread would reset the connection under its client, so idle ones are read for a moment longer. */
static bool is_left_over(const connection *c) {
    const listener *l = c->owner;
    return l->stopped_us && l->server->now_us - l->stopped_us >= IDLE_GRACE_US && c->http.role == ROLE_PUBLIC &&
           c->http.state == CONN_IDLE && c->http.out.size + c->http.in_flight == 0;
}

static void on_tick(uv_timer_t *timer) {
    listener *l = timer->data;
    set_clock(l);
    for (connection *c = l->connections, *next; c; c = next) {
        next = c->next;
        http_expire(&c->http);
        flush(c);
        if (!c->closing && is_left_over(c)) close_connection(c);
    }
    listener_flush(l);
}

/* ---- accepting ---- */
static connection *new_connection(listener *l, conn_role role, bool is_path) {
    connection *c = calloc(1, sizeof *c);
    if (!c) fatal("out of memory for a connection");
    c->owner = l;
    if (is_path) uv_pipe_init(l->loop, &c->socket.pipe, 0);
    else uv_tcp_init(l->loop, &c->socket.tcp);
    c->socket.handle.data = c;
    http_init(&c->http, l->server);
    c->http.role = role;
    buf_init(&c->sending, c->http.out.limit);
    if (l->connections) l->connections->previous = c;
    c->next = l->connections;
    l->connections = c;
    l->open[c->counted]++;
    return c;
}

static void count_as(connection *c, counted kind) {
    c->owner->open[c->counted]--;
    c->counted = kind;
    c->owner->open[kind]++;
}

static uint64_t peer_of(const connection *c) {
    uv_os_fd_t fd;
    return uv_fileno(&c->socket.handle, &fd) == 0 ? socket_peer_key(fd) : 0;
}

static bool admit_admin(connection *c) {
    if (c->owner->open[COUNTED_ADMIN] >= ADMIN_MAX) return false;
    count_as(c, COUNTED_ADMIN);
    return true;
}

/* Too many: what is read of them meanwhile is thrown away, as after any last answer, so that the answer arrives. */
static bool turn_away(connection *c, int status, const char *reason) {
    listener *l = c->owner;
    l->facts.turned_away++;
    if (l->open[COUNTED_TURNED_AWAY] >= TURNED_AWAY_MAX) return false;
    count_as(c, COUNTED_TURNED_AWAY);
    http_turn_away(&c->http, status, "too_many_connections", reason);
    return true;
}

static bool admit_client(connection *c) {
    listener            *l = c->owner;
    const server_config *limit = l->server->config;
    uint64_t             peer = limit->connections_per_address && c->socket.handle.type == UV_TCP ? peer_of(c) : 0;
    uint32_t             most = limit->connections_max < l->descriptors_max ? limit->connections_max : l->descriptors_max;
    l->facts.accepted++;
    if (l->open[COUNTED_CLIENT] >= most) return turn_away(c, 503, "too many connections are open");
    if (peer && peers_count(l->peers, peer) >= limit->connections_per_address) {
        l->facts.turned_away_by_address++;
        return turn_away(c, 429, "too many connections from this address are open");
    }
    count_as(c, COUNTED_CLIENT);
    c->peer = peer;
    if (peer) peers_add(l->peers, peer);
    return true;
}

static void take_connection(void *owner, int fd, conn_role role, bool is_path) {
    listener *l = owner;
    set_clock(l);
    connection *c = new_connection(l, role, is_path);
    if (!uv_is_active((uv_handle_t *)&l->tick)) uv_timer_start(&l->tick, on_tick, TICK_MS, TICK_MS);
    if ((is_path ? uv_pipe_open(&c->socket.pipe, fd) : uv_tcp_open(&c->socket.tcp, fd)) != 0) {
        close(fd);
        return close_connection(c);
    }
    if (!(role == ROLE_ADMIN ? admit_admin(c) : admit_client(c))) return close_connection(c);
    if (!is_path) {
        uv_tcp_nodelay(&c->socket.tcp, 1);
        uv_tcp_keepalive(&c->socket.tcp, 1, KEEPALIVE_S); /* a peer that lost its power says no goodbye */
    }
    uv_read_start(&c->socket.stream, on_buffer, on_read);
    flush(c);
}

/* ---- sockets to listen on (acceptor.h) ---- */
/* As many descriptors as the connections need, if the system lets us. */
static uint32_t raise_descriptors(uint32_t connections) {
    struct rlimit limit;
    rlim_t        want = (rlim_t)connections + ADMIN_MAX + TURNED_AWAY_MAX + DESCRIPTORS_OTHER;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return connections;
    if (limit.rlim_cur < want) {
        limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= want) return UINT32_MAX;
    rlim_t   others = want - connections;
    uint32_t left = limit.rlim_cur > others ? (uint32_t)(limit.rlim_cur - others) : 1;
    log_warn("server", "only %llu descriptors may be open: %u connections in place of %u (raise LimitNOFILE or ulimit -n)",
             (unsigned long long)limit.rlim_cur, left, connections);
    return left;
}

listener *listener_new(uv_loop_t *loop, http_server *server) {
    listener *l = calloc(1, sizeof *l);
    if (!l) fatal("out of memory for the listener");
    l->loop = loop, l->server = server;
    l->peers = peers_new();
    l->doors = (acceptor){.take = take_connection, .owner = l};
    acceptor_begin(&l->doors, loop);
    l->descriptors_max = raise_descriptors(server->config->connections_max);
    uv_timer_init(loop, &l->tick);
    l->tick.data = l;
    set_clock(l);
    return l;
}

int listener_adopt(listener *l, conn_role role, int fd, error *err) { return acceptor_adopt(&l->doors, role, fd, err); }

int listener_bind(listener *l, conn_role role, const char *host, uint32_t port, error *err) {
    return acceptor_bind(&l->doors, role, host, port, err);
}

/* ---- what it is, and its end ---- */
void listener_url(const listener *l, char *out, size_t size) { acceptor_url(&l->doors, out, size); }
bool listener_is_local(const listener *l) { return acceptor_is_local(&l->doors); }

void listener_stop(listener *l) {
    if (l->stopped_us) return;
    l->stopped_us = clock_us();
    l->server->draining = true;
    acceptor_close(&l->doors, ROLE_PUBLIC);
}

void listener_close(listener *l) {
    listener_stop(l);
    acceptor_end(&l->doors);
    while (l->connections) close_connection(l->connections);
    if (!uv_is_closing((uv_handle_t *)&l->tick)) uv_close((uv_handle_t *)&l->tick, NULL);
}

void listener_free(listener *l) {
    peers_free(l->peers);
    free(l);
}

listener_facts listener_read_facts(const listener *l) {
    listener_facts facts = l->facts;
    facts.connections = l->open[COUNTED_CLIENT];
    facts.accept_failures = l->doors.failures;
    return facts;
}
