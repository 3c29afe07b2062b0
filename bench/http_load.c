/* bench/http_load.c: keeps many connections busy from one thread, and says how fast the answers came.
 *
 *     http_load PORT CONNECTIONS SECONDS PATH [BODY_FILE|-] [PAUSE_US] [HEADER]
 *
 * Each connection is kept alive and has one request out at a time: GET, or POST where there is a body. Its next one is sent
 * when the answer is complete (and PAUSE_US after the last was sent, for a load that is not a flood). The first fifth of the
 * time is not counted. Where answers are wanted as fast as they come it does not sleep: to wake another CPU costs a server
 * microseconds, which it would pay for being slower than its client. HEADER is one more line of each request. Events of a
 * stream ("data: {") are counted, and the time between two on the same connection. Prints one line of JSON. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"

enum { CONNECTIONS_MAX = 4096, SAMPLES_MAX = 1 << 22, READ_BYTES = 256 << 10, CARRY_BYTES = 4096, EVENTS_PER_WAIT = 512 };

typedef struct {
    int      fd;
    bool     in_body, chunked, event_seen;
    uint64_t sent_ns, event_ns, body_left;
    size_t carry; /* bytes of `rest`: an answer's head that is not complete, or the end of what a chunked body had so far */
    char   rest[CARRY_BYTES];
} connection;

typedef struct {
    uint32_t *us_x10; /* tenths of a microsecond */
    size_t    count;
} series;

static struct {
    uint16_t   port;
    uint32_t   connections, pause_us;
    uint64_t   count_from_ns, end_ns;
    buf        request;
    series     answers, gaps;
    uint64_t   events, statuses[6];
    int        poll;
    bool       streams; /* some answer was one */
    connection all[CONNECTIONS_MAX];
} run;

static void series_add(series *s, uint64_t ns) {
    if (!s->us_x10 && !(s->us_x10 = malloc(SAMPLES_MAX * sizeof *s->us_x10))) fatal("out of memory for samples");
    if (s->count < SAMPLES_MAX) s->us_x10[s->count++] = ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 100);
}
static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static double percentile_us(series *s, double p) {
    if (!s->count) return 0;
    qsort(s->us_x10, s->count, sizeof *s->us_x10, by_value);
    return s->us_x10[(size_t)(p * (double)(s->count - 1))] / 10.0;
}

/* ---- one connection ---- */
static void dial(connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(run.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0)
        fatal("cannot connect to port %u: %s", run.port, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_ctl(run.poll, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
}

static void send_request(connection *c) {
    c->sent_ns = clock_ns();
    c->event_seen = false;
    for (size_t at = 0; at < run.request.size;) {
        ssize_t n = send(c->fd, run.request.data + at, run.request.size - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) continue;                       /* larger than the socket's buffer */
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return; /* dial_again */
        if (n <= 0) fatal("cannot send a request: %s", strerror(errno));
        at += (size_t)n;
    }
}

static void answered(connection *c, uint64_t now_ns) {
    if (c->sent_ns >= run.count_from_ns) series_add(&run.answers, now_ns - c->sent_ns);
    c->in_body = false, c->carry = 0;
    if (!run.pause_us) return send_request(c);
    uint64_t due = c->sent_ns + run.pause_us * UINT64_C(1000);
    c->sent_ns = now_ns < due ? due : now_ns; /* a pause: send_due sends it */
    c->fd = ~c->fd;
}

static void send_due(uint64_t now_ns) {
    for (uint32_t i = 0; run.pause_us && i < run.connections; i++) {
        connection *c = &run.all[i];
        if (c->fd >= 0 || c->sent_ns > now_ns) continue;
        c->fd = ~c->fd;
        send_request(c);
    }
}

static void take_head(connection *c, const char *head, uint64_t now_ns) {
    const char *length = strcasestr(head, "\r\ncontent-length:");
    int         status = atoi(head + 9);
    if (status < 100 || status > 599) fatal("that is no answer: %.60s", head);
    if (now_ns >= run.count_from_ns) run.statuses[status / 100]++;
    c->chunked = !length;
    run.streams |= c->chunked;
    c->body_left = length ? strtoull(length + 17, NULL, 10) : 0;
    c->in_body = true;
}

static void count_events(connection *c, const char *bytes, size_t n, uint64_t now_ns) {
    static const char mark[] = "data: {";
    const char       *end = bytes + n;
    for (const char *at = bytes; (at = memmem(at, (size_t)(end - at), mark, sizeof mark - 1)); at += sizeof mark - 1) {
        if (now_ns < run.count_from_ns) continue;
        run.events++;
        if (c->event_seen) series_add(&run.gaps, now_ns - c->event_ns);
        c->event_seen = true, c->event_ns = now_ns;
    }
}

/* What came, behind what is left from before; `n` bytes in all. */
static void take(connection *c, char *bytes, size_t n, uint64_t now_ns) {
    static const char last_chunk[] = "\r\n0\r\n\r\n";
    if (!c->in_body) {
        bytes[n] = 0;
        char *end = strstr(bytes, "\r\n\r\n");
        if (!end) {
            if (n >= CARRY_BYTES) fatal("the head of an answer is longer than %d bytes", CARRY_BYTES);
            memcpy(c->rest, bytes, c->carry = n);
            return;
        }
        end[2] = 0;
        take_head(c, bytes, now_ns);
        n -= (size_t)(end + 2 - bytes); /* the empty line's CRLF stays: a body without chunks ends in the same bytes */
        bytes = end + 2, c->carry = 0;
        bytes[0] = '\r';
        if (!c->chunked) bytes += 2, n -= 2;
    }
    if (!c->chunked) {
        if (n > c->body_left) fatal("an answer is longer than it says");
        if ((c->body_left -= n) == 0) answered(c, now_ns);
        return;
    }
    size_t fresh = n - c->carry;
    count_events(c, bytes + c->carry, fresh, now_ns); /* the server writes whole events: none is cut by a read */
    if (n >= sizeof last_chunk - 1 && memcmp(bytes + n - (sizeof last_chunk - 1), last_chunk, sizeof last_chunk - 1) == 0)
        return answered(c, now_ns);
    c->carry = n < sizeof last_chunk - 1 ? n : sizeof last_chunk - 1;
    memmove(c->rest, bytes + n - c->carry, c->carry);
}

/* A server may end a connection after so many requests, without an answer to the next: that one is asked again. */
static void dial_again(connection *c) {
    if (c->in_body || c->carry) fatal("the server closed a connection within an answer");
    close(c->fd);
    dial(c);
    send_request(c);
}

static void on_readable(connection *c) {
    static char bytes[CARRY_BYTES + READ_BYTES + 1];
    memcpy(bytes, c->rest, c->carry);
    ssize_t n = recv(c->fd, bytes + c->carry, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return dial_again(c);
    if (n < 0) fatal("cannot read an answer: %s", strerror(errno));
    take(c, bytes, c->carry + (size_t)n, clock_ns());
}

/* ---- all of them ---- */
static void read_request(const char *path, const char *body_file, const char *header) {
    static char body[8 << 20];
    size_t      n = 0;
    buf_init(&run.request, sizeof body + 4096);
    if (body_file) {
        FILE *f = fopen(body_file, "rb");
        if (!f) fatal("cannot read %s", body_file);
        n = fread(body, 1, sizeof body, f);
        fclose(f);
    }
    buf_printf(&run.request, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n", body_file ? "POST" : "GET", path);
    if (body_file) buf_printf(&run.request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", n);
    if (header) buf_printf(&run.request, "%s\r\n", header);
    buf_str(&run.request, "\r\n");
    buf_append(&run.request, body, n);
}

static void report(double seconds) {
    double answers = (double)run.answers.count, events = (double)run.events;
    printf("{\"answers\": %.0f, \"answers_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, ", answers, answers / seconds,
           percentile_us(&run.answers, .5), percentile_us(&run.answers, .99));
    printf("\"events_s\": %.1f, \"gap_p50_us\": %.1f, \"gap_p99_us\": %.1f, ", events / seconds,
           percentile_us(&run.gaps, .5), percentile_us(&run.gaps, .99));
    printf("\"ok\": %llu, \"refused\": %llu, \"failed\": %llu}\n", (unsigned long long)run.statuses[2],
           (unsigned long long)run.statuses[4], (unsigned long long)run.statuses[5]);
}

int main(int argc, char **argv) {
    if (argc < 5)
        return fputs("usage: http_load PORT CONNECTIONS SECONDS PATH [BODY_FILE|-] [PAUSE_US] [HEADER]\n", stderr), 64;
    double seconds = atof(argv[3]);
    run.port = (uint16_t)atoi(argv[1]);
    run.connections = (uint32_t)atoi(argv[2]);
    run.pause_us = argc > 6 ? (uint32_t)atoi(argv[6]) : 0;
    if (run.connections < 1 || run.connections > CONNECTIONS_MAX) fatal("1 to %d connections", CONNECTIONS_MAX);
    read_request(argv[4], argc > 5 && strcmp(argv[5], "-") != 0 ? argv[5] : NULL, argc > 7 ? argv[7] : NULL);
    run.poll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < run.connections; i++) dial(&run.all[i]);
    uint64_t begin = clock_ns();
    run.count_from_ns = begin + (uint64_t)(seconds * 2e8), run.end_ns = begin + (uint64_t)(seconds * 1e9);
    for (uint32_t i = 0; i < run.connections; i++) send_request(&run.all[i]);
    for (uint64_t now = begin; now < run.end_ns; now = clock_ns()) {
        struct epoll_event events[EVENTS_PER_WAIT];
        int                n = epoll_wait(run.poll, events, EVENTS_PER_WAIT, run.pause_us ? 1 : run.streams ? 100 : 0);
        for (int i = 0; i < n; i++) on_readable(events[i].data.ptr);
        send_due(clock_ns());
    }
    report((double)(run.end_ns - run.count_from_ns) * 1e-9);
    return 0;
}
