/* bench/clients.c: many streaming clients in one thread, that take next to nothing of the machine they measure.
 *
 *     clients PORT STREAMS REQUESTS PROMPT_TOKENS OUTPUT_TOKENS [MODEL]
 *
 * Each of STREAMS clients sends REQUESTS completions one after the other, on a connection each, to a server on loopback. The
 * prompt is token ids, different for every request, so that nothing is found in a cache and no tokenizer is measured. Every
 * event whose finish_reason is null is one token. Prints one line of JSON: tokens a second over all, tokens a second while
 * every stream decodes, and percentiles of the time to the first token and between tokens. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"

enum { STREAMS_MAX = 1024, TOKENS_MAX = 1 << 22, LINE_MAX_BYTES = 1 << 20 };

typedef struct {
    uint32_t requests_left, tokens;
    uint64_t sent_us, last_us; /* last_us 0: no token yet */
    buf      line;             /* of the event stream, not complete yet */
} client;

typedef struct {
    uint64_t *values;
    size_t    count;
} series;

static struct {
    uint16_t    port;
    uint32_t    streams, requests, prompt_tokens, output_tokens;
    const char *model;
    rng         random;
    series      first_us, between_us, token_at_us;
    uint64_t    all_decode_from_us, all_decode_to_us; /* every stream has its first token; none has its last */
    uint32_t    failed;
} run;

static client        clients[STREAMS_MAX];
static struct pollfd sockets[STREAMS_MAX];

static void series_add(series *s, uint64_t v) {
    if (!s->values && !(s->values = malloc(TOKENS_MAX * sizeof *s->values)))
        fatal("out of memory for %d samples", TOKENS_MAX);
    if (s->count < TOKENS_MAX) s->values[s->count++] = v;
}
static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}
static double percentile_ms(series *s, double p) {
    if (!s->count) return 0;
    qsort(s->values, s->count, sizeof *s->values, by_value);
    return (double)s->values[(size_t)(p * (double)(s->count - 1))] / 1000;
}

static void write_request(buf *out) {
    buf body;
    buf_init(&body, LINE_MAX_BYTES);
    buf_printf(&body,
               "{\"model\":\"%s\",\"stream\":true,\"temperature\":0,\"max_tokens\":%u,\"ignore_eos\":true,"
               "\"cache_prompt\":false,\"prompt\":[1",
               run.model, run.output_tokens);
    for (uint32_t i = 1; i < run.prompt_tokens; i++) buf_printf(&body, ",%u", 300 + (unsigned)rng_below(&run.random, 3000));
    buf_str(&body, "]}");
    buf_printf(out,
               "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: application/json\r\n"
               "Connection: close\r\nContent-Length: %zu\r\n\r\n",
               run.port, body.size);
    buf_append(out, body.data, body.size);
    buf_free(&body);
}

static void start_request(uint32_t i) {
    client            *c = &clients[i];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(run.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fatal("cannot connect to port %u: %s", run.port, strerror(errno));
    buf request;
    buf_init(&request, LINE_MAX_BYTES);
    write_request(&request);
    c->requests_left--, c->tokens = 0, c->last_us = 0, c->sent_us = clock_us();
    for (size_t at = 0; at < request.size;) {
        ssize_t n = write(fd, request.data + at, request.size - at);
        if (n <= 0) fatal("cannot send a request: %s", strerror(errno));
        at += (size_t)n;
    }
    buf_free(&request);
    buf_clear(&c->line);
    sockets[i] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void on_line(client *c, uint64_t now_us) {
    const char *line = c->line.data;
    if (strncmp(line, "data: {", 7) != 0) return;
    if (!strstr(line, "\"finish_reason\":null") && !strstr(line, "\"finish_reason\": null")) return;
    if (!c->last_us) series_add(&run.first_us, now_us - c->sent_us);
    else series_add(&run.between_us, now_us - c->last_us);
    series_add(&run.token_at_us, now_us);
    c->last_us = now_us, c->tokens++;
}

/* The window in which every stream decodes: from the latest first token to the earliest last one. */
static void note_window(void) {
    uint32_t decoding = 0;
    for (uint32_t i = 0; i < run.streams; i++)
        decoding += clients[i].tokens > 0 && clients[i].tokens < run.output_tokens - 1;
    uint64_t now = clock_us();
    if (decoding == run.streams && !run.all_decode_from_us) run.all_decode_from_us = now;
    if (decoding == run.streams) run.all_decode_to_us = now;
}

static void on_readable(uint32_t i) {
    client  *c = &clients[i];
    char     bytes[64 << 10];
    ssize_t  n = read(sockets[i].fd, bytes, sizeof bytes);
    uint64_t now_us = clock_us();
    for (ssize_t at = 0; at < n; at++) {
        if (bytes[at] != '\n') {
            buf_char(&c->line, bytes[at]);
            continue;
        }
        if (c->line.size) on_line(c, now_us);
        buf_clear(&c->line);
    }
    if (n > 0) return;
    run.failed += c->tokens == 0;
    close(sockets[i].fd);
    sockets[i].fd = -1;
    if (c->requests_left) start_request(i);
}

static uint32_t number(const char *text, uint32_t max) {
    unsigned long v = strtoul(text, NULL, 10);
    if (v < 1 || v > max) fatal("'%s' is not between 1 and %u", text, max);
    return (uint32_t)v;
}

static bool any_open(void) {
    for (uint32_t i = 0; i < run.streams; i++)
        if (sockets[i].fd >= 0) return true;
    return false;
}

static void report(double seconds) {
    uint64_t in_window = 0;
    double   window_s = (double)(run.all_decode_to_us - run.all_decode_from_us) * 1e-6;
    for (size_t i = 0; i < run.token_at_us.count; i++)
        in_window += run.token_at_us.values[i] > run.all_decode_from_us && run.token_at_us.values[i] <= run.all_decode_to_us;
    printf("{\"streams\": %u, \"tokens\": %zu, \"failed\": %u, \"seconds\": %.3f, ", run.streams, run.token_at_us.count,
           run.failed, seconds);
    printf("\"tokens_s\": %.1f, \"decode_tokens_s\": %.1f, ", (double)run.token_at_us.count / seconds,
           run.requests == 1 && window_s > 0 ? (double)in_window / window_s : 0);
    printf("\"ttft_p50_ms\": %.2f, \"ttft_p99_ms\": %.2f, ", percentile_ms(&run.first_us, .5),
           percentile_ms(&run.first_us, .99));
    printf("\"itl_p50_ms\": %.3f, \"itl_p99_ms\": %.3f}\n", percentile_ms(&run.between_us, .5),
           percentile_ms(&run.between_us, .99));
}

int main(int argc, char **argv) {
    if (argc < 6) return fputs("usage: clients PORT STREAMS REQUESTS PROMPT_TOKENS OUTPUT_TOKENS [MODEL]\n", stderr), 64;
    run.port = (uint16_t)number(argv[1], 65535), run.streams = number(argv[2], STREAMS_MAX);
    run.requests = number(argv[3], 100000), run.prompt_tokens = number(argv[4], 100000);
    run.output_tokens = number(argv[5], 100000), run.model = argc > 6 ? argv[6] : "x";
    uint64_t began_us = run.random.seed = clock_us(); /* other prompts in each run: a server may remember the last one's */
    for (uint32_t i = 0; i < run.streams; i++) {
        buf_init(&clients[i].line, LINE_MAX_BYTES);
        clients[i].requests_left = run.requests;
        start_request(i);
    }
    while (any_open()) {
        if (poll(sockets, run.streams, -1) < 0) fatal("poll failed: %s", strerror(errno));
        for (uint32_t i = 0; i < run.streams; i++)
            if (sockets[i].fd >= 0 && sockets[i].revents) on_readable(i);
        note_window();
    }
    report((double)(clock_us() - began_us) * 1e-6);
    return run.failed ? 1 : 0;
}
