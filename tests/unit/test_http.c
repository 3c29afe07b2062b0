/* The connection state machine of server/http.h, without a socket: bytes in, bytes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/http.h"
#include "tests/server_config.h"

/* A handler that remembers. /later is answered by the test; everything else at once with its body, or its path. */
typedef struct {
    server_config config;
    http_server   server;
    http_conn     conn;
    uint32_t      requests, gone, drained;
    char          last_path[256], last_body[4096];
} fixture;

static void answer_text(http_conn *c, const char *text) {
    http_answer(c, &(http_reply){200, "text/plain", NULL, text, strlen(text)});
}

static void on_request(void *owner, http_conn *c) {
    fixture    *f = owner;
    size_t      n;
    const char *path = http_path(c, &n);
    f->requests++;
    snprintf(f->last_path, sizeof f->last_path, "%.*s", (int)n, path);
    buf body = http_take_body(c);
    snprintf(f->last_body, sizeof f->last_body, "%s", body.data ? body.data : "");
    buf_free(&body);
    if (strcmp(f->last_path, "/later") != 0) answer_text(c, f->last_body[0] ? f->last_body : f->last_path);
}
static void on_gone(void *owner, http_conn *c) { (void)c, ((fixture *)owner)->gone++; }
static void on_drained(void *owner, http_conn *c) { (void)c, ((fixture *)owner)->drained++; }

static void start(fixture *f) {
    memset(f, 0, sizeof *f);
    f->config = test_server_config;
    f->server = (http_server){
        .config = &f->config, .request = on_request, .gone = on_gone, .drained = on_drained, .owner = f, .now_us = 1000000};
    http_init(&f->conn, &f->server);
}
static void stop(fixture *f) {
    http_free(&f->conn);
    assert_int_equal(f->server.body_bytes, 0);
}
static void feed(fixture *f, const char *text) { http_feed(&f->conn, text, strlen(text)); }
/* As the loop does once the socket took everything. */
static void took_all(fixture *f) {
    buf_clear(&f->conn.out);
    http_wrote(&f->conn);
}
static const char *out(fixture *f) { return f->conn.out.data ? f->conn.out.data : ""; }
static unsigned    count(const char *text, const char *what) {
       unsigned n = 0;
       for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}
static void pass_time(fixture *f, uint64_t us) {
    f->server.now_us += us;
    http_expire(&f->conn);
}

/* The answer to `text` begins with HTTP/1.1 `status`. */
static void expect_status(const char *text, int status) {
    fixture f;
    char    line[32];
    start(&f);
    feed(&f, text);
    snprintf(line, sizeof line, "HTTP/1.1 %d ", status);
    if (strncmp(out(&f), line, strlen(line)) != 0) fail_msg("wanted %d for:\n%s\ngot:\n%s", status, text, out(&f));
    if (status >= 400) {
        assert_int_equal(f.conn.state, CONN_LINGER);
        assert_non_null(strstr(out(&f), "Connection: close"));
        assert_int_equal(f.requests, 0);
    }
    stop(&f);
}

#define HOST "Host: a\r\n"

static void a_request_is_answered_and_the_connection_kept(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET /a?x=1 HTTP/1.1\r\n" HOST "\r\n");
    assert_string_equal(f.last_path, "/a");
    assert_non_null(strstr(out(&f), "Content-Length: 2\r\n\r\n/a"));
    assert_int_equal(f.conn.state, CONN_IDLE);
    stop(&f);
}

static void a_request_split_at_every_byte_is_the_same_request(void **state) {
    (void)state;
    static const char text[] =
        "\r\nPOST /p HTTP/1.1\r\n" HOST "Content-Length: 5\r\nX-Request-Id: \t abc \r\n\r\nhello"
        "POST /q HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nT: v\r\n\r\n"
        "GET /r HTTP/1.1\r\n" HOST "\r\n";
    fixture whole, parts;
    start(&whole), feed(&whole, text);
    assert_int_equal(whole.requests, 3);
    assert_non_null(strstr(out(&whole), "hello"));
    assert_non_null(strstr(out(&whole), "abcde"));
    start(&parts);
    for (size_t i = 0; i < sizeof text - 1; i++) http_feed(&parts.conn, text + i, 1);
    assert_string_equal(out(&parts), out(&whole));
    stop(&whole), stop(&parts);
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        start(&parts);
        http_feed(&parts.conn, text, cut);
        http_feed(&parts.conn, text + cut, sizeof text - 1 - cut);
        assert_int_equal(parts.requests, 3);
        stop(&parts);
    }
}

/* A letter and a line feed look like the empty line that may stand before a request, where only the count of bytes is looked
 * at. */
static void a_bare_line_feed_behind_a_letter_is_refused_however_it_arrives(void **state) {
    (void)state;
    static const char text[] = "E\n\r\nGET /a HTTP/1.1\r\n" HOST "\r\n";
    fixture           f;
    for (size_t first = 0; first < 4; first++) {
        start(&f);
        http_feed(&f.conn, text, first);
        http_feed(&f.conn, text + first, sizeof text - 1 - first);
        assert_non_null(strstr(out(&f), "HTTP/1.1 400 "));
        assert_int_equal(f.requests, 0);
        stop(&f);
    }
}

static void malformed_heads_are_refused_and_the_connection_closed(void **state) {
    (void)state;
    static const char *const heads[] = {
        "GET / HTTP/1.1\n" HOST "\r\n",                 /* bare LF */
        "GET / HTTP/1.1\r\nHost: a\n\r\n",              /* bare LF in a header */
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",      /* bare CR */
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",           /* space before the colon */
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",      /* folded */
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",       /* no colon */
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",     /* no name */
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", /* control character */
        "GET / HTTP/1.1\r\n\r\n",                       /* no Host */
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", /* two */
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",          /* not a host */
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET  / HTTP/1.1\r\n" HOST "\r\n",   /* two spaces */
        "GET / HTTP/1.1 \r\n" HOST "\r\n",   /* space at the end */
        "GET /\r\n" HOST "\r\n",             /* HTTP/0.9 */
        "GET /a b HTTP/1.1\r\n" HOST "\r\n", /* space in the target */
        "GET /a#b HTTP/1.1\r\n" HOST "\r\n", /* fragment */
        "GET * HTTP/1.1\r\n" HOST "\r\n",    /* asterisk, not OPTIONS */
        "GET a HTTP/1.1\r\n" HOST "\r\n",    /* not a path */
        "get / HTTP/1.1\r\n" HOST "\r\n",    /* method in lower case */
        "NONSENSE / HTTP/1.1\r\n" HOST "\r\n",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: -3\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x3\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: \r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\nabc",
        "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", /* HTTP/1.0 has none */
        "\r\n\r\n\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) expect_status(heads[i], 400);
}

static void a_nul_byte_in_the_head_is_refused(void **state) {
    (void)state;
    static const char text[] = "GET /\0 HTTP/1.1\r\n" HOST "\r\n";
    fixture           f;
    start(&f);
    http_feed(&f.conn, text, sizeof text - 1);
    assert_memory_equal(out(&f), "HTTP/1.1 400 ", 13);
    stop(&f);
}

static void transfer_codings_other_than_chunked_are_not_implemented(void **state) {
    (void)state;
    static const char *const codings[] = {
        "gzip, chunked", "gzip", "identity", "xchunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked"};
    for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
        fixture f;
        char    text[256];
        start(&f);
        snprintf(text, sizeof text, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: %s\r\n\r\n0\r\n\r\n", codings[i]);
        feed(&f, text);
        assert_true(strncmp(out(&f), "HTTP/1.1 400 ", 13) == 0 || strncmp(out(&f), "HTTP/1.1 501 ", 13) == 0);
        assert_int_equal(f.requests, 0);
        stop(&f);
    }
}

static void malformed_chunks_are_refused(void **state) {
    (void)state;
#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
    static const char *const bodies[] = {
        CHUNKED "3\nabc\r\n0\r\n\r\n",
        CHUNKED "3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED "3\r\nabcXX0\r\n\r\n",
        CHUNKED "0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED "-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED "3\rXabc\r\n0\r\n\r\n",
        CHUNKED "g\r\nabc\r\n0\r\n\r\n",
        CHUNKED "FFFFFFFFFFFFFFFFF\r\nabc\r\n",
        CHUNKED "\r\nabc\r\n0\r\n\r\n",
        CHUNKED "3;a=b\nc\r\nabc\r\n0\r\n\r\n",
        CHUNKED "3\r\nabc\r\n0\r\n\n",
        CHUNKED "3\r\nabc\r\n0\r\nT: v\n\r\n",
        CHUNKED "3\r\nabc\r\n0\r\nT : v\r\n\r\n",
        CHUNKED "3\r\nabc\r\n0\r\nT: v\r\n w\r\n\r\n",
        CHUNKED "3\r\nabc\r\n0\r\n: v\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) expect_status(bodies[i], 400);
}

static void other_versions_of_http_are_refused_by_name(void **state) {
    (void)state;
    expect_status("GET / HTTP/2.0\r\n" HOST "\r\n", 505);
    expect_status("GET / HTTP/1.2\r\n" HOST "\r\n", 505);
    expect_status("GET / HTTP/0.9\r\n" HOST "\r\n", 505);
}

static void limits_of_the_head_have_their_own_statuses(void **state) {
    (void)state;
    buf text;
    buf_init(&text, 1 << 20);
    buf_str(&text, "GET /");
    for (int i = 0; i < 9000; i++) buf_char(&text, 'a');
    buf_str(&text, " HTTP/1.1\r\n" HOST "\r\n");
    expect_status(text.data, 414);
    text.data[9000] = 0; /* also when its end never comes */
    expect_status(text.data, 414);
    buf_clear(&text);
    buf_str(&text, "GET / HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 300; i++) buf_printf(&text, "X-%d: y\r\n", i);
    buf_str(&text, "\r\n");
    expect_status(text.data, 431);
    buf_clear(&text);
    buf_str(&text, "GET / HTTP/1.1\r\n" HOST "X: ");
    for (int i = 0; i < 50000; i++) buf_char(&text, 'a');
    expect_status(text.data, 431);
    buf_free(&text);
}

static void a_hundred_headers_of_a_generated_client_pass(void **state) {
    (void)state;
    fixture f;
    buf     text;
    start(&f);
    buf_init(&text, 1 << 20);
    buf_str(&text, "GET /ok HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 110; i++) buf_printf(&text, "X-Stainless-%d: some value that is not short at all %d\r\n", i, i);
    buf_str(&text, "\r\n");
    feed(&f, text.data);
    assert_memory_equal(out(&f), "HTTP/1.1 200 ", 13);
    buf_free(&text);
    stop(&f);
}

static void a_body_over_the_limit_is_refused_before_it_is_read(void **state) {
    (void)state;
    fixture f;
    start(&f);
    f.config.body_max_bytes = 10;
    feed(&f, "POST / HTTP/1.1\r\n" HOST "Content-Length: 11\r\nExpect: 100-continue\r\n\r\n");
    assert_memory_equal(out(&f), "HTTP/1.1 413 ", 13);
    stop(&f), start(&f);
    f.config.body_max_bytes = 10;
    feed(&f, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n");
    assert_int_equal(f.conn.state, CONN_BODY);
    feed(&f, "3\r\n");
    assert_memory_equal(out(&f), "HTTP/1.1 413 ", 13);
    stop(&f);
}

static void a_body_in_tiny_chunks_with_huge_extensions_is_refused(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, CHUNKED "1;");
    for (int i = 0; i < 300 && f.conn.state == CONN_BODY; i++) {
        char junk[1024];
        memset(junk, 'x', sizeof junk);
        http_feed(&f.conn, junk, sizeof junk);
    }
    assert_memory_equal(out(&f), "HTTP/1.1 400 ", 13);
    stop(&f);
}

static void a_client_that_expects_to_be_told_is_told_to_go_on(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
    assert_string_equal(out(&f), "HTTP/1.1 100 Continue\r\n\r\n");
    took_all(&f);
    feed(&f, "hi");
    assert_memory_equal(out(&f), "HTTP/1.1 200 ", 13);
    stop(&f);
    expect_status("POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: more\r\n\r\n", 417);
}

static void an_absolute_target_is_taken_for_its_path(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET http://example.org:80/x/y?z HTTP/1.1\r\n" HOST "\r\n");
    assert_string_equal(f.last_path, "/x/y");
    stop(&f);
}

static void a_head_request_gets_no_body(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "HEAD /abc HTTP/1.1\r\n" HOST "\r\n");
    assert_non_null(strstr(out(&f), "Content-Length: 4\r\n\r\n"));
    assert_null(strstr(out(&f), "/abc"));
    stop(&f);
}

static void http_1_0_closes_unless_asked_to_keep(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET /a HTTP/1.0\r\n\r\n");
    assert_int_equal(f.conn.state, CONN_LINGER);
    assert_non_null(strstr(out(&f), "Connection: close\r\n"));
    stop(&f), start(&f);
    feed(&f, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_int_equal(f.conn.state, CONN_IDLE);
    assert_non_null(strstr(out(&f), "Connection: keep-alive\r\n"));
    stop(&f);
}

static void an_upgrade_that_is_not_offered_is_ignored(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET /a HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /b HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(f.requests, 2);
    stop(&f);
    expect_status("CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n", 501);
}

static void pipelined_requests_are_answered_in_order_one_at_a_time(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET /later HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\nGET /c HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(f.requests, 1);
    assert_int_equal(f.conn.out.size, 0);
    answer_text(&f.conn, "first");
    took_all(&f);
    assert_int_equal(f.requests, 3);
    const char *b = strstr(out(&f), "/b"), *c = strstr(out(&f), "/c");
    assert_true(b && c && b < c);
    stop(&f);
}

static void what_is_pipelined_beyond_the_bound_costs_the_connection_not_memory(void **state) {
    (void)state;
    fixture f;
    char    junk[4096];
    memset(junk, 'x', sizeof junk);
    start(&f);
    feed(&f, "GET /later HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < 100; i++) http_feed(&f.conn, junk, sizeof junk);
    assert_true(f.conn.ahead.capacity <= 128 << 10);
    answer_text(&f.conn, "x");
    assert_non_null(strstr(out(&f), "Connection: close"));
    assert_int_equal(f.conn.state, CONN_LINGER);
    stop(&f);
}

static void unread_answers_hold_back_pipelined_requests(void **state) {
    (void)state;
    fixture f;
    start(&f);
    for (int i = 0; i < 3000; i++) feed(&f, "GET /0123456789012345678901234567890123456789 HTTP/1.1\r\n" HOST "\r\n");
    assert_true(f.requests < 1500);
    assert_true(f.conn.out.size < 80 << 10);
    uint32_t before = f.requests;
    took_all(&f);
    assert_true(f.requests > before);
    stop(&f);
}

static void a_client_that_leaves_while_its_request_is_worked_on_is_reported(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET /later HTTP/1.1\r\n" HOST "\r\n");
    http_eof(&f.conn);
    assert_int_equal(f.gone, 1);
    assert_int_equal(f.conn.state, CONN_CLOSED);
    stop(&f);
    assert_int_equal(f.gone, 1);
}

static void a_client_that_closes_its_side_after_asking_still_gets_what_was_ready(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET /a HTTP/1.1\r\n" HOST "\r\n");
    http_eof(&f.conn);
    assert_memory_equal(out(&f), "HTTP/1.1 200 ", 13);
    assert_int_equal(f.conn.state, CONN_LINGER);
    took_all(&f);
    assert_int_equal(f.conn.state, CONN_CLOSED);
    stop(&f);
}

static void a_stream_is_chunked_and_the_connection_kept(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    http_stream_begin(&f.conn, &(http_reply){.status = 200, .type = "text/event-stream"});
    buf_str(http_chunk_begin(&f.conn), "data: 1\n\n");
    http_chunk_end(&f.conn);
    http_chunk_begin(&f.conn);
    http_chunk_end(&f.conn); /* nothing appended: must not end the stream */
    buf_str(http_chunk_begin(&f.conn), "data: 2\n\n");
    http_chunk_end(&f.conn);
    http_stream_end(&f.conn, false);
    assert_non_null(strstr(
        out(&f), "Transfer-Encoding: chunked\r\n\r\n00000009\r\ndata: 1\n\n\r\n00000009\r\ndata: 2\n\n\r\n0\r\n\r\n"));
    assert_int_equal(f.conn.state, CONN_IDLE);
    stop(&f);
}

static void a_stream_to_an_http_1_0_client_ends_with_the_connection(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "POST /later HTTP/1.0\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
    http_stream_begin(&f.conn, &(http_reply){.status = 200, .type = "text/event-stream"});
    buf_str(http_chunk_begin(&f.conn), "data: 1\n\n");
    http_chunk_end(&f.conn);
    http_stream_end(&f.conn, false);
    assert_non_null(strstr(out(&f), "Connection: close\r\n\r\ndata: 1\n\n"));
    assert_int_equal(f.conn.state, CONN_LINGER);
    stop(&f);
}

static void a_silent_stream_is_kept_alive_by_a_comment(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    http_stream_begin(&f.conn, &(http_reply){.status = 200, .type = "text/event-stream"});
    took_all(&f);
    assert_int_equal(f.drained, 1);
    pass_time(&f, f.config.keepalive_comment_us + 1);
    assert_string_equal(out(&f), "0000000e\r\n: keep-alive\n\n\r\n");
    assert_null(strstr(out(&f), "id:"));
    stop(&f);
}

static void slow_heads_slow_bodies_and_idle_connections_run_out_of_time(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET / HT");
    pass_time(&f, f.config.head_timeout_us / 2);
    feed(&f, "TP/1.1\r\n");
    pass_time(&f, f.config.head_timeout_us / 2 + 1);
    assert_memory_equal(out(&f), "HTTP/1.1 408 ", 13);
    stop(&f), start(&f);
    feed(&f, "POST / HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\nabc");
    pass_time(&f, f.config.body_timeout_us);
    assert_int_equal(f.conn.state, CONN_BODY);
    pass_time(&f, 5000000);
    assert_memory_equal(out(&f), "HTTP/1.1 408 ", 13);
    stop(&f), start(&f);
    feed(&f, "GET / HTTP/1.1\r\n" HOST "\r\n");
    took_all(&f);
    pass_time(&f, f.config.idle_timeout_us + 1);
    assert_int_equal(f.conn.state, CONN_CLOSED);
    stop(&f), start(&f);
    pass_time(&f, f.config.head_timeout_us + 1); /* never said a word */
    assert_int_equal(f.conn.state, CONN_CLOSED);
    stop(&f);
}

static void a_body_that_keeps_its_rate_may_take_long(void **state) {
    (void)state;
    fixture f;
    char    kilobyte[2000];
    memset(kilobyte, 'x', sizeof kilobyte);
    start(&f);
    feed(&f, "POST / HTTP/1.1\r\n" HOST "Content-Length: 200000\r\n\r\n");
    for (int i = 0; i < 60; i++) {
        http_feed(&f.conn, kilobyte, sizeof kilobyte);
        pass_time(&f, 1000000);
        assert_int_equal(f.conn.state, CONN_BODY);
    }
    stop(&f);
}

static void a_reader_that_takes_nothing_is_cut_off(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    pass_time(&f, f.config.write_stall_us * 10); /* however long the answer took: the clock starts with it */
    http_stream_begin(&f.conn, &(http_reply){.status = 200, .type = "text/event-stream"});
    pass_time(&f, f.config.write_stall_us - 1);
    assert_int_equal(f.conn.state, CONN_STREAM);
    pass_time(&f, 2);
    assert_int_equal(f.conn.state, CONN_CLOSED);
    assert_int_equal(f.gone, 1);
    stop(&f);
}

static void draining_closes_each_connection_after_its_answer(void **state) {
    (void)state;
    fixture f;
    start(&f);
    f.server.draining = true;
    feed(&f, "GET /a HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(f.requests, 1);
    assert_non_null(strstr(out(&f), "Connection: close"));
    stop(&f), start(&f);
    feed(&f, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    http_stream_begin(&f.conn, &(http_reply){.status = 200, .type = "text/event-stream"});
    f.server.draining = true; /* in the middle of a stream */
    http_stream_end(&f.conn, false);
    assert_int_equal(f.conn.state, CONN_LINGER);
    stop(&f);
}

static void what_comes_after_the_last_answer_is_read_and_thrown_away(void **state) {
    (void)state;
    fixture f;
    start(&f);
    feed(&f, "GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\nGET /b HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(f.requests, 1);
    assert_int_equal(count(out(&f), "HTTP/1.1 "), 1);
    took_all(&f);
    feed(&f, "more");
    http_eof(&f.conn);
    assert_int_equal(f.conn.state, CONN_CLOSED);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered_and_the_connection_kept),
        cmocka_unit_test(a_request_split_at_every_byte_is_the_same_request),
        cmocka_unit_test(a_bare_line_feed_behind_a_letter_is_refused_however_it_arrives),
        cmocka_unit_test(malformed_heads_are_refused_and_the_connection_closed),
        cmocka_unit_test(a_nul_byte_in_the_head_is_refused),
        cmocka_unit_test(transfer_codings_other_than_chunked_are_not_implemented),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(other_versions_of_http_are_refused_by_name),
        cmocka_unit_test(limits_of_the_head_have_their_own_statuses),
        cmocka_unit_test(a_hundred_headers_of_a_generated_client_pass),
        cmocka_unit_test(a_body_over_the_limit_is_refused_before_it_is_read),
        cmocka_unit_test(a_body_in_tiny_chunks_with_huge_extensions_is_refused),
        cmocka_unit_test(a_client_that_expects_to_be_told_is_told_to_go_on),
        cmocka_unit_test(an_absolute_target_is_taken_for_its_path),
        cmocka_unit_test(a_head_request_gets_no_body),
        cmocka_unit_test(http_1_0_closes_unless_asked_to_keep),
        cmocka_unit_test(an_upgrade_that_is_not_offered_is_ignored),
        cmocka_unit_test(pipelined_requests_are_answered_in_order_one_at_a_time),
        cmocka_unit_test(what_is_pipelined_beyond_the_bound_costs_the_connection_not_memory),
        cmocka_unit_test(unread_answers_hold_back_pipelined_requests),
        cmocka_unit_test(a_client_that_leaves_while_its_request_is_worked_on_is_reported),
        cmocka_unit_test(a_client_that_closes_its_side_after_asking_still_gets_what_was_ready),
        cmocka_unit_test(a_stream_is_chunked_and_the_connection_kept),
        cmocka_unit_test(a_stream_to_an_http_1_0_client_ends_with_the_connection),
        cmocka_unit_test(a_silent_stream_is_kept_alive_by_a_comment),
        cmocka_unit_test(slow_heads_slow_bodies_and_idle_connections_run_out_of_time),
        cmocka_unit_test(a_body_that_keeps_its_rate_may_take_long),
        cmocka_unit_test(a_reader_that_takes_nothing_is_cut_off),
        cmocka_unit_test(draining_closes_each_connection_after_its_answer),
        cmocka_unit_test(what_comes_after_the_last_answer_is_read_and_thrown_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
