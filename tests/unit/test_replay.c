/* The replay's client: one answer however its bytes are cut, and whole replays against a server that costs nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "bench/answer.h"
#include "bench/replay.h"
#include "tests/fake_sse_server.h"

/* ---- one answer ---- */

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"
#define CHUNK(text) "data: {\"choices\":[{\"text\":\"" text "\",\"finish_reason\":null}],\"usage\":null}\n\n"
#define FINISH "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
#define USAGE                                                                                                               \
    "data: "                                                                                                                \
    "{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":"  \
    "4}}}\n\ndata: [DONE]\n\n"

typedef struct {
    uint32_t chunks;
    int64_t  gaps[8];
} heard;

static void on_chunk(void *owner, uint64_t now_ns, int64_t gap_ns) {
    heard *h = owner;
    (void)now_ns;
    if (h->chunks < 8) h->gaps[h->chunks] = gap_ns;
    h->chunks++;
}

/* Feeds text in pieces of `step` bytes, a millisecond apart. */
static void feed(answer *a, heard *h, answer_kind kind, const char *text, size_t step) {
    uint64_t now_ns = 1000000000;
    answer_init(a, kind, true);
    *h = (heard){0};
    a->chunk = on_chunk, a->owner = h;
    for (size_t at = 0, n = strlen(text); at < n; at += step, now_ns += 1000000)
        answer_feed(a, text + at, n - at < step ? n - at : step, now_ns);
    answer_eof(a);
}

static void an_answer_is_the_same_however_its_bytes_are_cut(void **state) {
    (void)state;
    static const char                                                                                       text[] =
        HEAD ": a comment\n\n" CHUNK("one") CHUNK("\\u00e9\\n") "event: x\nid: 3\r\n" CHUNK("three") FINISH USAGE;
    for (size_t step = 1; step < sizeof text; step += step < 40 ? 1 : 37) {
        answer a;
        heard  h;
        feed(&a, &h, ANSWER_STREAM, text, step);
        if (!answer_good(&a)) fail_msg("in steps of %zu: %s", step, a.trouble);
        assert_int_equal(a.chunks, 3);
        assert_int_equal(h.gaps[0], -1);
        assert_int_equal(a.prompt_tokens, 7);
        assert_int_equal(a.output_tokens, 3);
        assert_int_equal(a.cached_tokens, 4);
        assert_true(a.last_choice_ns >= a.last_content_ns && a.first_ns <= a.last_content_ns);
        answer_free(&a);
    }
}

static void lines_may_end_in_any_of_three_ways(void **state) {
    (void)state;
    answer a;
    heard  h;
    feed(&a, &h, ANSWER_STREAM,
         HEAD "data: {\"choices\":[\r\ndata: "
              "{\"text\":\"x\"}]}\r\n\r\ndata:{\"choices\":[{\"text\":\"y\",\"finish_reason\":\"stop\"}]}\r\r",
         3);
    assert_true(answer_good(&a));
    assert_int_equal(a.chunks, 2);
    answer_free(&a);
}

static void a_chunk_without_text_is_no_token_unless_it_has_ids(void **state) {
    (void)state;
    answer a;
    heard  h;
    feed(&a, &h, ANSWER_STREAM,
         HEAD CHUNK("") "data: {\"choices\":[{\"text\":\"\",\"prompt_token_ids\":[1,2],\"finish_reason\":null}]}\n\n"
                        "data: {\"choices\":[{\"text\":\"\",\"token_ids\":[5,6],\"finish_reason\":null}]}\n\n" FINISH,
         1 << 20);
    assert_true(answer_good(&a));
    assert_int_equal(a.chunks, 1);
    assert_int_equal(a.ids.count, 2);
    assert_int_equal(a.ids.ids[1], 6);
    assert_int_equal(a.output_tokens, -1);
    answer_free(&a);
}

static void times_are_those_of_the_reads(void **state) {
    (void)state;
    const char *parts[] = {HEAD, CHUNK("a"), CHUNK("b") CHUNK("c"), CHUNK("d"), FINISH};
    answer      a;
    heard       h = {0};
    answer_init(&a, ANSWER_STREAM, false);
    a.chunk = on_chunk, a.owner = &h;
    for (uint64_t i = 0; i < 5; i++) answer_feed(&a, parts[i], strlen(parts[i]), 100 + i * i * 10);
    answer_eof(&a);
    assert_int_equal(a.first_ns, 110);
    assert_int_equal(h.gaps[1], 30);
    assert_int_equal(h.gaps[2], 0); /* two in one read */
    assert_int_equal(h.gaps[3], 50);
    assert_int_equal(a.gap_max_ns, 50);
    assert_int_equal(a.last_choice_ns, 260);
    answer_free(&a);
}

static void a_failed_answer_says_why(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "closed before an answer"},
        {"HTTP/1.1 200 OK\r\nContent-Le", "closed before"},
        {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "not a stream of events"},
        {"HTTP/1.1 429 Too Many\r\nContent-Length: 41\r\n\r\n{\"error\":{\"message\":\"The queue is full\"}}", "HTTP 429"},
        {"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops", "HTTP 500"},
        {"HTTP/1.1 400 X\r\nContent-Length: 31\r\n\r\n{\"error\":{\"message\":\"so what\"}}", "so what"},
        {HEAD CHUNK("a"), "without a finish_reason"},
        {HEAD CHUNK("a") "data: {\"error\":{\"message\":\"it broke\"}}\n\n", "it broke"},
        {HEAD "data: {\"choices\":[\n\n", "not JSON"},
        {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:",
         "in the middle"},
        {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP"},
        {"SSH-2.0-OpenSSH_9.9\r\n", "not HTTP"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t step = 1; step < 200; step += 99) {
            answer a;
            heard  h;
            feed(&a, &h, ANSWER_STREAM, cases[i].text, step);
            assert_true(answer_over(&a) && !answer_good(&a));
            if (!strstr(a.trouble, cases[i].why)) fail_msg("'%s' is not in '%s'", cases[i].why, a.trouble);
            answer_free(&a);
        }
    }
}

static void an_event_without_an_end_is_given_up(void **state) {
    (void)state;
    static char block[1 << 20];
    answer      a;
    memset(block, 'x', sizeof block);
    answer_init(&a, ANSWER_STREAM, false);
    answer_feed(&a, HEAD "data: ", sizeof HEAD "data: " - 1, 1);
    int i = 0;
    for (; i < 64 && !answer_over(&a); i++) answer_feed(&a, block, sizeof block, 1);
    assert_int_equal(i, 16);
    assert_non_null(strstr(a.trouble, "longer than"));
    answer_free(&a);
}

/* ---- whole replays ---- */

typedef struct {
    pid_t         server;
    char          url[64];
    trace         t;
    record        r;
    summary       s;
    replay_config config;
} fixture;

static void open_fixture(fixture *f, const char *text) {
    uint16_t port;
    error    err = {0};
    memset(f, 0, sizeof *f);
    f->server = fake_sse_start(&port);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%u/v1/", port);
    f->config = (replay_config){
        .url = f->url, .rules = {.seed = 5, .length_scale = 1}, .pace.rate_scale = 1, .timeout_us = 30000000, .quiet = true};
    if (trace_read_text(&f->t, text, strlen(text), "auto", &err) != OK) fail_msg("%s", err.text);
}

static void play(fixture *f) {
    server_facts facts;
    error        err = {0};
    if (replay_ask_server(&f->config, &facts, &err) != OK) fail_msg("%s", err.text);
    assert_string_equal(facts.model, "fake");
    assert_int_equal(f->config.rules.vocab_size, 4096); /* the highest id of its /tokenize, and one */
    record_init(&f->r, f->t.request_count);
    if (replay_run(&f->config, &f->t, facts.has_metrics, &f->r, &err) != OK) fail_msg("%s", err.text);
    summarize(&f->r, &f->t, &f->s);
}

static void close_fixture(fixture *f) {
    kill(f->server, SIGKILL);
    waitpid(f->server, NULL, 0);
    memset(&fake_sse, 0, sizeof fake_sse);
    if (f->r.outcomes) summary_free(&f->s), record_free(&f->r);
    trace_close(&f->t);
}

static void every_request_is_answered_with_exactly_the_lengths_of_the_trace(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, "{\"timestamp\":0,\"input_length\":1500,\"output_length\":20,\"hash_ids\":[1,2,3]}\n"
                     "{\"timestamp\":1,\"input_length\":3,\"output_length\":1}\n"
                     "{\"timestamp\":2,\"input_length\":70000,\"output_length\":300}\n");
    play(&f);
    assert_int_equal(f.s.completed, 3);
    assert_int_equal(f.s.failed, 0);
    assert_int_equal(f.r.wrong_lengths, 0);
    assert_int_equal(f.s.input_tokens, 71503);
    assert_int_equal(f.s.output_tokens, 321);
    assert_int_equal(f.r.gap_count, 318); /* a gap less than tokens, each */
    assert_true(f.r.sample_count >= 2);   /* the metrics at the beginning and at the end */
    assert_false(isnan(f.r.samples[0].running));
    for (int i = 0; i < 3; i++) {
        const outcome *o = &f.r.outcomes[i];
        assert_true(o->due_us <= o->start_us && o->start_us <= o->first_us && o->first_us <= o->end_us);
    }
    close_fixture(&f);
}

static void a_turn_is_sent_after_the_one_before_and_continues_it(void **state) {
    (void)state;
    for (int silent = 0; silent < 2; silent++) {
        fixture f;
        fake_sse.remember = true, fake_sse.silent_ids = silent;
        open_fixture(&f, "{\"input_length\":100,\"output_length\":20,\"job_id\":1,\"gap_s\":0.02}\n"
                         "{\"input_length\":150,\"output_length\":30,\"job_id\":1,\"gap_s\":0.01}\n"
                         "{\"input_length\":400,\"output_length\":5,\"job_id\":1}\n");
        play(&f);
        const outcome *o = f.r.outcomes;
        assert_int_equal(f.s.completed, 3);
        assert_int_equal(f.s.sessions_completed, 1);
        assert_true(o[1].start_us >= o[0].end_us + 20000 && o[2].start_us >= o[1].end_us + 10000);
        assert_int_equal(f.r.made_up_answers, silent ? 2 : 0);
        assert_int_equal(o[1].cached_tokens, silent ? 100 : 120); /* the server has really seen so much of it */
        assert_int_equal(o[2].cached_tokens, silent ? 150 : 180);
        close_fixture(&f);
    }
}

static void a_sub_agent_starts_after_its_parents_turn(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, "{\"block_size\":64,\"requests\":[{\"t\":0,\"in\":100,\"out\":9,\"api_time\":1},"
                     "{\"t\":2,\"type\":\"subagent\",\"duration_ms\":1000,\"requests\":[{\"t\":0,\"in\":70,\"out\":5},{"
                     "\"t\":1,\"in\":90,\"out\":5}]},"
                     "{\"t\":3,\"in\":200,\"out\":9,\"think_time\":0.03}]}\n");
    play(&f);
    const outcome *parent = f.r.outcomes, *child = f.r.outcomes + f.t.sessions[1].first;
    assert_int_equal(f.s.completed, 4);
    assert_true(child[0].start_us >= parent[0].end_us && child[1].start_us >= child[0].end_us);
    close_fixture(&f);
}

static void what_is_due_waits_for_its_place_where_concurrency_is_limited(void **state) {
    (void)state;
    fixture f;
    buf     text;
    buf_init(&text, 1 << 16);
    for (int i = 0; i < 40; i++) buf_str(&text, "{\"timestamp\":0,\"input_length\":10,\"output_length\":10}\n");
    open_fixture(&f, text.data);
    f.config.concurrency_max = 3;
    play(&f);
    assert_int_equal(f.s.completed, 40);
    assert_int_equal(f.r.in_flight_max, 3);
    buf_free(&text), close_fixture(&f);
}

static void failed_requests_are_counted_by_reason_and_their_sessions_given_up(void **state) {
    (void)state;
    static const struct {
        fake_trouble trouble;
        const char  *why;
    } cases[] = {{FAKE_FULL, "HTTP 429: The queue is full."},
                 {FAKE_CUT, "the connection closed in the middle of the answer"},
                 {FAKE_ERROR_EVENT, "an error in the stream: the device failed"},
                 {FAKE_NO_FINISH, "the stream ended without a finish_reason"},
                 {FAKE_GARBAGE, "an event is not JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        fake_sse.trouble = cases[i].trouble, fake_sse.trouble_every = 2;
        open_fixture(&f, "{\"timestamp\":0,\"input_length\":10,\"output_length\":10,\"job_id\":1}\n"
                         "{\"timestamp\":0,\"input_length\":40,\"output_length\":10,\"job_id\":1}\n"
                         "{\"timestamp\":0,\"input_length\":90,\"output_length\":10,\"job_id\":1}\n");
        play(&f);
        assert_int_equal(f.s.completed, 1);
        assert_int_equal(f.s.failed, 1);
        assert_int_equal(f.s.unsent, 1);
        assert_int_equal(f.s.sessions_completed, 0);
        assert_int_equal(f.r.reason_count, 1);
        assert_int_equal(strncmp(f.r.reasons[0], cases[i].why, strlen(cases[i].why)), 0);
        close_fixture(&f);
    }
}

static void a_server_that_is_not_there_is_one_sentence(void **state) {
    (void)state;
    server_facts  facts;
    error         err = {0};
    replay_config config = {.url = "http://127.0.0.1:1", .rules = {.length_scale = 1}};
    assert_int_not_equal(replay_ask_server(&config, &facts, &err), OK);
    assert_non_null(strstr(err.text, "http://127.0.0.1:1"));
    const char *const bad[] = {"",           "localhost:80",      "https://x", "http://", "http://[::1",
                               "http://:80", "http://a:123456789"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config.url = bad[i];
        assert_int_not_equal(replay_ask_server(&config, &facts, &err), OK);
    }
}

static void two_thousand_streams_are_open_at_once(void **state) {
    (void)state;
    enum { STREAMS = 2000, TOKENS = 10 };
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_max < STREAMS + 100) {
        printf("fewer than %d files may be open here\n", STREAMS + 100);
        skip();
    }
    fixture f;
    buf     text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < STREAMS; i++)
        buf_printf(&text, "{\"timestamp\":0,\"input_length\":20,\"output_length\":%d}\n", TOKENS);
    fake_sse.gate = STREAMS; /* not one token before the last stream is open */
    open_fixture(&f, text.data);
    play(&f);
    assert_int_equal(f.s.completed, STREAMS);
    assert_int_equal(f.r.in_flight_max, STREAMS);
    assert_int_equal(f.s.output_tokens, STREAMS * TOKENS);
    assert_int_equal(f.r.wrong_lengths, 0);
    buf_free(&text), close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_the_same_however_its_bytes_are_cut),
        cmocka_unit_test(lines_may_end_in_any_of_three_ways),
        cmocka_unit_test(a_chunk_without_text_is_no_token_unless_it_has_ids),
        cmocka_unit_test(times_are_those_of_the_reads),
        cmocka_unit_test(a_failed_answer_says_why),
        cmocka_unit_test(an_event_without_an_end_is_given_up),
        cmocka_unit_test(every_request_is_answered_with_exactly_the_lengths_of_the_trace),
        cmocka_unit_test(a_turn_is_sent_after_the_one_before_and_continues_it),
        cmocka_unit_test(a_sub_agent_starts_after_its_parents_turn),
        cmocka_unit_test(what_is_due_waits_for_its_place_where_concurrency_is_limited),
        cmocka_unit_test(failed_requests_are_counted_by_reason_and_their_sessions_given_up),
        cmocka_unit_test(a_server_that_is_not_there_is_one_sentence),
        cmocka_unit_test(two_thousand_streams_are_open_at_once),
    };
    return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
