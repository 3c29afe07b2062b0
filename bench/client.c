#include "bench/client.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { READ_BYTES = 256 << 10, HEAD_BYTES_MAX = 8 << 10, SWEEP_MS = 250 };
#define ASK_TIMEOUT_NS (60ull * 1000000000)

typedef struct call call;

struct client {
    uv_loop_t              *loop;
    struct sockaddr_storage address;
    char                   *host, *prefix, *authorization; /* the last: a header line, or "" */
    call                   *calls;                         /* those that are not over */
    uint32_t                active;
    uv_timer_t              sweep;
    char                    bytes[READ_BYTES];
};

struct call {
    uv_tcp_t       tcp;
    uv_connect_t   connect;
    uv_write_t     write;
    client        *client;
    client_request request;
    buf            head, body;
    answer         answer;
    uint64_t       began_ns;
    call          *next, **link; /* *link is this */
};

/* ---- the server's name ---- */

/* Every stream is a file descriptor, and the usual soft limit is 1024. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

typedef struct {
    char host[256], port[8], prefix[1024];
} url_parts;

static int url_split(const char *url, url_parts *out, error *err) {
    if (strncmp(url, "https://", 8) == 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: only http:// is spoken; put a proxy that ends TLS in between", url);
    if (strncmp(url, "http://", 7) != 0)
        return error_set(err, ERR_USAGE, "'%s' is not a URL like http://127.0.0.1:8080", url);
    const char *host = url + 7, *host_end, *port = "80";
    size_t      whole = strcspn(host, "/"), port_size = 2;
    bool        bracket = *host == '[';
    host_end = bracket ? memchr(host, ']', whole) : memchr(host, ':', whole);
    if (bracket && !host_end) return error_set(err, ERR_USAGE, "'%s': a [ is not closed", url);
    if (!host_end) host_end = host + whole;
    const char *colon = host_end + bracket;
    if (bracket) host++;
    if (*colon == ':') port = colon + 1, port_size = (size_t)(host + whole - bracket - port);
    size_t host_size = (size_t)(host_end - host), prefix_size = strlen(colon + strcspn(colon, "/"));
    if (!host_size || host_size >= sizeof out->host || !port_size || port_size >= sizeof out->port ||
        prefix_size >= sizeof out->prefix)
        return error_set(err, ERR_USAGE, "'%.200s' is not a URL like http://127.0.0.1:8080", url);
    *out = (url_parts){{0}, {0}, {0}};
    memcpy(out->host, host, host_size), memcpy(out->port, port, port_size);
    memcpy(out->prefix, colon + strcspn(colon, "/"), prefix_size);
    while (prefix_size && out->prefix[prefix_size - 1] == '/') out->prefix[--prefix_size] = 0;
    if (prefix_size >= 3 && strcmp(out->prefix + prefix_size - 3, "/v1") == 0) out->prefix[prefix_size - 3] = 0;
    return OK;
}

static int resolve(client *c, const url_parts *url, error *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int             failed = getaddrinfo(url->host, url->port, &hints, &found);
    if (failed)
        return error_set(err, ERR_NOT_FOUND, "no address for %s port %s: %s", url->host, url->port, gai_strerror(failed));
    memcpy(&c->address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return OK;
}

static char *copy_of(const char *s) {
    char *copy = strdup(s);
    if (!copy) fatal("out of memory");
    return copy;
}

static char *authorization_line(const char *api_key) {
    buf line;
    buf_init(&line, HEAD_BYTES_MAX / 2);
    buf_str(&line, "");
    if (api_key && *api_key) buf_printf(&line, "Authorization: Bearer %s\r\n", api_key);
    return line.data;
}

static void on_sweep(uv_timer_t *timer);

int client_open(client **out, uv_loop_t *loop, const char *url, const char *api_key, error *err) {
    url_parts parts;
    int       code = url_split(url, &parts, err);
    if (code == OK && api_key && (strlen(api_key) > HEAD_BYTES_MAX / 4 || strpbrk(api_key, "\r\n")))
        code = error_set(err, ERR_USAGE, "the API key is too long or holds a line break");
    if (code != OK) return code;
    client *c = calloc(1, sizeof *c);
    if (!c) fatal("out of memory for a client");
    code = resolve(c, &parts, err);
    if (code != OK) return free(c), code;
    raise_file_limit();
    c->loop = loop, c->host = copy_of(parts.host), c->prefix = copy_of(parts.prefix);
    c->authorization = authorization_line(api_key);
    uv_timer_init(loop, &c->sweep);
    c->sweep.data = c;
    uv_timer_start(&c->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    uv_unref((uv_handle_t *)&c->sweep);
    *out = c;
    return OK;
}

void client_close(client *c) { uv_close((uv_handle_t *)&c->sweep, NULL); }

void client_free(client *c) {
    if (!c) return;
    free(c->host), free(c->prefix), free(c->authorization), free(c);
}

uint32_t client_active(const client *c) { return c->active; }

/* ---- a call ---- */

static void on_closed(uv_handle_t *handle) {
    call *k = handle->data;
    k->client->active--;
    k->request.done(k->request.owner, &k->answer, k->began_ns);
    answer_free(&k->answer);
    buf_free(&k->head), buf_free(&k->body);
    free(k);
}

static void end(call *k) {
    if (uv_is_closing((uv_handle_t *)&k->tcp)) return;
    *k->link = k->next;
    if (k->next) k->next->link = k->link;
    uv_close((uv_handle_t *)&k->tcp, on_closed);
}

static void on_sweep(uv_timer_t *timer) {
    client  *c = timer->data;
    uint64_t now_ns = uv_hrtime();
    for (call *k = c->calls, *next; k; k = next) {
        next = k->next;
        if (now_ns - k->began_ns <= k->request.timeout_ns) continue;
        answer_fail(&k->answer, "no end within %.0f s", (double)k->request.timeout_ns * 1e-9);
        end(k);
    }
}

void client_cancel_all(client *c, const char *why) {
    while (c->calls) answer_fail(&c->calls->answer, "%s", why), end(c->calls);
}

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *room) {
    call *k = handle->data;
    (void)wanted;
    *room = uv_buf_init(k->client->bytes, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
    call *k = stream->data;
    if (n > 0) answer_feed(&k->answer, bytes->base, (size_t)n, uv_hrtime());
    if (n == UV_EOF) answer_eof(&k->answer);
    else if (n < 0) answer_fail(&k->answer, "reading failed: %s", uv_strerror((int)n));
    if (answer_over(&k->answer)) end(k);
}

/* A server may answer, and close, before it has read everything: what it said counts more than that writing failed. */
static void on_written(uv_write_t *write, int status) {
    call *k = write->data;
    (void)status;
    buf_free(&k->body);
}

static void on_connected(uv_connect_t *connect, int status) {
    call *k = connect->data;
    if (status < 0) {
        answer_fail(&k->answer, "connecting failed: %s", uv_strerror(status));
        end(k);
        return;
    }
    uv_tcp_nodelay(&k->tcp, 1);
    uv_buf_t parts[2] = {uv_buf_init(k->head.data, (unsigned)k->head.size),
                         uv_buf_init(k->body.data, (unsigned)k->body.size)};
    uv_read_start((uv_stream_t *)&k->tcp, on_room, on_read);
    k->write.data = k;
    uv_write(&k->write, (uv_stream_t *)&k->tcp, parts, k->body.size ? 2 : 1, on_written);
}

static void write_head(call *k) {
    const client *c = k->client;
    const bool    v6 = strchr(c->host, ':');
    buf_init(&k->head, HEAD_BYTES_MAX);
    buf_printf(&k->head, "%s %s%s HTTP/1.1\r\nHost: %s%s%s\r\n%sConnection: close\r\n", k->request.body ? "POST" : "GET",
               c->prefix, k->request.path, v6 ? "[" : "", c->host, v6 ? "]" : "", c->authorization);
    if (k->request.body) buf_printf(&k->head, "Content-Type: application/json\r\nContent-Length: %zu\r\n", k->body.size);
    buf_str(&k->head, "\r\n");
}

void client_send(client *c, const client_request *r) {
    call *k = calloc(1, sizeof *k);
    if (!k) fatal("out of memory for a request");
    k->client = c, k->request = *r, k->began_ns = uv_hrtime();
    if (r->body) {
        k->body = *r->body;
        buf_init(r->body, r->body->limit);
    }
    write_head(k);
    answer_init(&k->answer, r->kind, r->keep_ids);
    k->answer.chunk = r->chunk, k->answer.owner = r->owner;
    k->next = c->calls, k->link = &c->calls;
    if (k->next) k->next->link = &k->next;
    c->calls = k, c->active++;
    uv_tcp_init(c->loop, &k->tcp);
    k->tcp.data = k->connect.data = k;
    int failed = uv_tcp_connect(&k->connect, &k->tcp, (const struct sockaddr *)&c->address, on_connected);
    if (!failed) return;
    answer_fail(&k->answer, "connecting failed: %s", uv_strerror(failed));
    end(k);
}

/* ---- one question ---- */

typedef struct {
    buf   *page;
    error *err;
    int    code;
    bool   over;
} question;

static void on_reply(void *owner, answer *a, uint64_t began_ns) {
    question *q = owner;
    (void)began_ns;
    q->over = true, q->code = OK;
    if (answer_good(a)) buf_append(q->page, a->body.data, a->body.size);
    else q->code = error_set(q->err, ERR_IO, "%s", a->trouble);
}

int client_ask(client *c, const char *path, buf *body, buf *page, error *err) {
    question q = {.page = page, .err = err};
    client_send(
        c,
        &(client_request){
            .path = path, .body = body, .kind = ANSWER_PAGE, .timeout_ns = ASK_TIMEOUT_NS, .done = on_reply, .owner = &q});
    while (!q.over) uv_run(c->loop, UV_RUN_ONCE);
    return q.code;
}
