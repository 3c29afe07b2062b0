/* One connection's bytes, cut where the input says, and a short stream also in two at every byte. The first byte chooses
 * how; the rest is the stream. However it is cut, the answers must be the same, and nothing may be held once the connection
 * is gone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http.h"
#include "tests/server_config.h"

typedef struct {
    http_server server;
    http_conn   conn;
    buf         written;
} run;

static void on_request(void *owner, http_conn *c) {
    size_t      n;
    const char *path = http_path(c, &n);
    buf         body = http_take_body(c);
    (void)owner;
    if (n > 1 && path[1] == 's') {
        http_stream_begin(c, &(http_reply){.status = 200, .type = "text/event-stream"});
        for (size_t i = 0; i < 3; i++) {
            buf_append(http_chunk_begin(c), body.data ? body.data : path, body.data ? body.size : n);
            http_chunk_end(c);
        }
        http_stream_end(c, n > 2 && path[2] == 'x');
    } else {
        http_answer(c, &(http_reply){200, "text/plain", NULL, body.data ? body.data : path, body.data ? body.size : n});
    }
    buf_free(&body);
}
static void nothing(void *owner, http_conn *c) { (void)owner, (void)c; }

static void write_out(run *r) {
    buf_append(&r->written, r->conn.out.data, r->conn.out.size);
    buf_clear(&r->conn.out);
    http_wrote(&r->conn);
}

enum { CUT_EVERYWHERE_MAX = 400 };

/* `first`: the size of the first of two pieces; 0: pieces as `step` says. */
static void feed(run *r, const uint8_t *data, size_t size, uint8_t step, size_t first, const server_config *config) {
    memset(r, 0, sizeof *r);
    r->server = (http_server){.config = config, .request = on_request, .gone = nothing, .drained = nothing, .owner = r};
    buf_init(&r->written, 64 << 20);
    http_init(&r->conn, &r->server);
    for (size_t at = 0; at < size;) {
        size_t n = step == 0 ? size : step < 128 ? step : 1 + (data[at] * 7u + step) % 40;
        if (first) n = at ? size : first;
        if (n > size - at) n = size - at;
        http_feed(&r->conn, (const char *)data + at, n);
        at += n;
        r->server.now_us++;
        http_expire(&r->conn);
    }
    write_out(r);
    http_eof(&r->conn);
    write_out(r);
    http_free(&r->conn);
    if (r->server.body_bytes) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    server_config config = test_server_config;
    run           whole, cut;
    config.body_max_bytes = 512;
    config.request_line_max_bytes = 256;
    config.headers_max_bytes = 512;
    config.headers_max_count = 16;
    if (size < 2 || size > 4096) return 0;
    feed(&whole, data + 1, size - 1, 0, 0, &config);
    for (size_t first = 0; first < size - 1 && (first == 0 || size <= CUT_EVERYWHERE_MAX); first++) {
        feed(&cut, data + 1, size - 1, data[0] ? data[0] : 1, first, &config);
        if (whole.written.size != cut.written.size || memcmp(whole.written.data, cut.written.data, cut.written.size) != 0)
            abort();
        buf_free(&cut.written);
    }
    buf_free(&whole.written);
    return 0;
}
