/* One streamed request and a reader that takes what the input says, when it says: server-sent events against stalling
 * readers. The input is a recipe: how the request is, then steps of the engine, the reader and the clock.
 *
 * However the reader dawdles, the memory held for it is bounded, what it has received is well formed, and the texts add up
 * to what was drawn; a stream that did not end well has no [DONE]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "server/generation.h"
#include "tests/fake_tokenizer.h"
#include "tests/server_config.h"

/* What is held as text and numbers is written as JSON when the reader takes again: log-probabilities are several times
 * longer. */
enum { WRITTEN_PER_HELD = 8, CHOICES = 3, SOCKET_BYTES = 2000, BUFFER_MAX_BYTES = 6000, TEXT_BYTES = 8192 };

/* ---- the world around the writer: an engine that is told what to draw, a socket, no loop ---- */
static struct {
    server_config config;
    service       service;
    http_conn     conn;
    uint64_t      ids[CHOICES];
    bool          cancelled[CHOICES], ended[CHOICES];
    char          drawn[CHOICES][TEXT_BYTES];
    uint32_t      drawn_bytes[CHOICES];
    uint32_t      count;
    buf           sending, received; /* taken from `out` but not by the reader; by the reader */
    size_t        window;            /* room in the socket */
    bool          gone;
} world;

const model_facts *engine_facts(const engine *e) {
    static const model_facts facts = {.vocab_size = FAKE_VOCAB,
                                      .default_temperature = -1,
                                      .default_top_p = -1,
                                      .default_top_k = -1,
                                      .default_min_p = -1,
                                      .default_repetition_penalty = -1};
    return (void)e, &facts;
}
queue_answer engine_ask(engine *e, uint32_t count, uint64_t tokens, int32_t priority, double *wait_s, error *err) {
    return (void)e, (void)count, (void)tokens, (void)priority, (void)wait_s, (void)err, QUEUE_HAS_ROOM;
}
int engine_submit(engine *e, engine_request *r, error *err) {
    (void)e, (void)err;
    if (world.count == CHOICES) abort();
    world.ids[world.count++] = r->id;
    free(r->tokens);
    return OK;
}
void engine_cancel(engine *e, uint64_t id) {
    (void)e;
    for (uint32_t i = 0; i < world.count; i++) world.cancelled[i] |= world.ids[i] == id;
}
void engine_read_snapshot(engine *e, engine_snapshot *out) { (void)e, *out = (engine_snapshot){0}; }
void listener_touch(http_conn *c) { (void)c; }
void listener_flush(listener *l) { (void)l; }

static void on_request(void *owner, http_conn *c) {
    exchange_begin(owner, c, c->head.data[9] == 'c' && c->head.data[10] == 'h' ? &chat_exchange : &completion_exchange,
                   "/v1/completions", NULL);
}

/* As listener.c does: what the socket takes at once, and the rest later, with `out` free for what comes meanwhile. */
static void flush(void) {
    http_conn *c = &world.conn;
    while (c->out.size && !c->in_flight && c->state != CONN_CLOSED) {
        size_t n = c->out.size < world.window ? c->out.size : world.window;
        buf_append(&world.received, c->out.data, n);
        world.window -= n;
        if (n < c->out.size) {
            buf_append(&world.sending, c->out.data + n, c->out.size - n);
            c->in_flight = c->out.size - n;
            c->write_us = c->server->now_us;
        }
        buf_clear(&c->out);
        if (!c->in_flight) http_wrote(c);
    }
}

static void reader_takes(size_t n) {
    http_conn *c = &world.conn;
    if (c->state == CONN_CLOSED) return;
    world.window += n;
    if (world.window > SOCKET_BYTES) world.window = SOCKET_BYTES;
    size_t k = world.sending.size < world.window ? world.sending.size : world.window;
    buf_append(&world.received, world.sending.data, k);
    world.window -= k;
    if (k) memmove(world.sending.data, world.sending.data + k, world.sending.size - k);
    world.sending.size -= k;
    if (k && !world.sending.size) {
        c->in_flight = 0;
        if (!c->out.size) http_wrote(c);
    }
    flush();
}

/* ---- steps ---- */
static void engine_says(uint32_t i, uint8_t token, bool finished, finish_reason reason) {
    if (i >= world.count || world.ended[i]) return;
    bool         failed = finished && (reason == FINISH_ERROR || reason == FINISH_CANCELLED);
    engine_event e = {.id = world.ids[i], .has_token = !failed, .finished = finished, .reason = reason};
    e.token.token = 'a' + token % 26u;
    e.token.logprob = -1;
    e.token.top_count = 2, e.token.top_ids[0] = 'x', e.token.top_ids[1] = 'y';
    world.ended[i] = finished;
    if (!failed && world.drawn_bytes[i] < TEXT_BYTES - 1) world.drawn[i][world.drawn_bytes[i]++] = (char)e.token.token;
    generation_event(&world.service, &e);
    flush();
}

static void time_passes(uint64_t us) {
    world.service.http.now_us += us;
    http_expire(&world.conn);
    flush();
}

static void step(uint8_t what, uint8_t how) {
    switch (what % 8) {
    case 0:
    case 1:
    case 2: return engine_says(what / 8 % CHOICES, how, false, FINISH_STOP);
    case 3:
        for (uint32_t k = 0; k < how; k++) engine_says(k % CHOICES, (uint8_t)k, false, FINISH_STOP);
        return;
    case 4: return reader_takes((size_t)how * (what / 8 + 1u));
    case 5: return time_passes((uint64_t)how * 200000);
    case 6: return engine_says(what / 8 % CHOICES, how, true, how % 5 ? FINISH_LENGTH : FINISH_ERROR);
    default:
        if (how % 8 == 0) http_eof(&world.conn), flush();
    }
}

static void check_bounds(void) {
    if (world.conn.out.size > WRITTEN_PER_HELD * BUFFER_MAX_BYTES) abort();
    if (world.sending.size > WRITTEN_PER_HELD * BUFFER_MAX_BYTES) abort();
}

/* ---- what was received ---- */
static void open_world(uint8_t how) {
    memset(&world, 0, sizeof world);
    log_configure(LOG_ERROR, false);
    world.config = test_server_config;
    world.config.write_buffer_max_bytes = BUFFER_MAX_BYTES;
    service *sv = &world.service;
    sv->config = &world.config;
    sv->tokenizer = &fake_tokenizer, sv->chat = &fake_chat;
    sv->vocab_size = FAKE_VOCAB, sv->context_max = 100000;
    sv->phase = PHASE_SERVING;
    sv->http =
        (http_server){.config = &world.config, .request = on_request, .gone = api_gone, .drained = api_drained, .owner = sv};
    snprintf(sv->model_name, sizeof sv->model_name, "m");
    buf_init(&sv->scratch, 4096);
    buf_init(&world.sending, 64 << 20), buf_init(&world.received, 64 << 20);
    world.window = SOCKET_BYTES;
    http_init(&world.conn, &sv->http);
    char body[256], head[256];
    int  n = snprintf(body, sizeof body, "{%s,\"max_tokens\":90000,\"stream\":true,\"n\":%d%s%s}",
                     how & 1 ? "\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]" : "\"prompt\":\"q\"", how / 2 % 3 + 1,
                     how & 8 ? ",\"stream_options\":{\"include_usage\":true}" : "",
                     !(how & 16) ? ""
                      : how & 1   ? ",\"logprobs\":true,\"top_logprobs\":2"
                                  : ",\"logprobs\":2");
    int  k = snprintf(head, sizeof head, "POST /v1/%s HTTP/1.%c\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
                     how & 1 ? "chat/completions" : "completions", how & 32 ? '0' : '1', n);
    http_feed(&world.conn, head, (size_t)k);
    http_feed(&world.conn, body, (size_t)n);
    flush();
    if (world.count != how / 2 % 3 + 1u) abort();
}

/* Every request ends in the engine; then nothing of it may be held. */
static void close_world(void) {
    for (uint32_t i = 0; i < world.count; i++)
        engine_says(i, 0, true, world.cancelled[i] ? FINISH_CANCELLED : FINISH_LENGTH);
    for (int i = 0; i < 1000 && world.conn.state != CONN_CLOSED && (world.sending.size || world.conn.out.size); i++)
        reader_takes(SOCKET_BYTES);
    http_free(&world.conn);
    if (world.service.metrics.count.exchanges || world.service.requests.live) abort();
}

/* The stream's bytes without their chunks; *whole where the last chunk was there. HTTP/1.0: as they are. */
static void join_chunks(bool chunked, bool *whole) {
    char *head_end = strstr(world.received.data, "\r\n\r\n"), *at, *to;
    *whole = false;
    if (!head_end) return world.received.size = 0, (void)0;
    at = head_end + 4, to = world.received.data;
    char *end = world.received.data + world.received.size;
    if (!chunked) memmove(to, at, (size_t)(end - at)), to += end - at;
    while (chunked && end - at >= 10) {
        size_t n = strtoul(at, NULL, 16);
        char  *bytes = strstr(at, "\r\n");
        if (!bytes) break;
        bytes += 2;
        if (n == 0) {
            *whole = true;
            break;
        }
        if ((size_t)(end - bytes) < n + 2) n = (size_t)(end - bytes), memmove(to, bytes, n), to += n, bytes = end - n - 2;
        else {
            if (memcmp(bytes + n, "\r\n", 2) != 0) abort();
            memmove(to, bytes, n), to += n;
        }
        at = bytes + n + 2;
    }
    if (chunked && end - at == 5 && memcmp(at, "0\r\n\r\n", 5) == 0) *whole = true;
    world.received.size = (size_t)(to - world.received.data);
    *to = 0;
}

typedef struct {
    char     text[CHOICES][TEXT_BYTES];
    uint32_t bytes[CHOICES], finished[CHOICES];
    bool     done, error;
} told;

static void take_event(told *t, const char *json, size_t n, bool chat) {
    cJSON *event = json_parse(json, n, 16, NULL);
    if (!event || t->done || t->error) abort();
    t->error = json_get(event, "error") != NULL;
    const cJSON *choices = json_get(event, "choices"), *one;
    cJSON_ArrayForEach(one, choices) {
        int64_t      index;
        const cJSON *text = chat ? json_get(json_get(one, "delta"), "content") : json_get(one, "text");
        if (!json_whole_number(json_get(one, "index"), &index) || index < 0 || index >= CHOICES) abort();
        if (cJSON_IsString(text)) {
            size_t k = strlen(text->valuestring);
            if (t->bytes[index] + k >= TEXT_BYTES || t->finished[index]) {
                if (k) abort();
            }
            memcpy(t->text[index] + t->bytes[index], text->valuestring, k);
            t->bytes[index] += (uint32_t)k;
        }
        t->finished[index] += cJSON_IsString(json_get(one, "finish_reason"));
    }
    cJSON_Delete(event);
}

static void check_received(bool chat, bool chunked) {
    static told t;
    bool        whole;
    memset(&t, 0, sizeof t);
    join_chunks(chunked, &whole);
    char *at = world.received.data, *end;
    for (; at && (end = strstr(at, "\n\n")); at = end + 2) {
        if (strncmp(at, "data: [DONE]", 12) == 0) {
            if (t.error || t.done) abort();
            t.done = true;
        } else if (strncmp(at, "data: {", 7) == 0) take_event(&t, at + 6, (size_t)(end - at) - 6, chat);
        else if (strncmp(at, ": ", 2) != 0 || memchr(at, '\n', (size_t)(end - at))) abort();
    }
    if (whole && at && *at) abort(); /* half an event */
    for (uint32_t i = 0; i < world.count; i++) {
        if (t.bytes[i] > world.drawn_bytes[i] || memcmp(t.text[i], world.drawn[i], t.bytes[i]) != 0) abort();
        if (t.done && (t.bytes[i] != world.drawn_bytes[i] || t.finished[i] != 1)) abort();
    }
    if (whole && !t.done && !t.error) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 2000) return 0;
    open_world(data[0]);
    for (size_t i = 1; i + 1 < size; i += 2) {
        step(data[i], data[i + 1]);
        check_bounds();
    }
    close_world();
    check_received(data[0] & 1, !(data[0] & 32));
    buf_free(&world.sending), buf_free(&world.received), buf_free(&world.service.scratch);
    free(world.service.requests.slots);
    return 0;
}
