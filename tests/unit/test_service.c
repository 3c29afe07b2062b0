/* The daemon over real sockets, with an engine made of arithmetic (tests/fake_engine.h): what a client sees byte by byte,
 * and what is left of a client that leaves. Each test starts a daemon on a free port and ends it as an operator would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rng.h"
#include "tests/fake_engine.h"
#include "tests/server_config.h"

/* ---- the daemon ---- */
static struct {
    server_config config;
    pthread_t     thread;
    sem_t         ready;
    int           port, code;
} daemon_;

static void on_ready(void *context, const char *url, const char *model_name) {
    (void)context, (void)model_name;
    daemon_.port = atoi(strrchr(url, ':') + 1);
    sem_post(&daemon_.ready);
}

static void *run(void *unused) {
    (void)unused;
    engine_config ec = {.model = "dir/fake", .device = "fake"};
    error         err;
    daemon_.code = server_run(&daemon_.config, &ec, &err);
    return NULL;
}

static void configure(void) {
    daemon_.config = test_server_config;
    daemon_.config.ready = on_ready;
    fake.script = "Once upon a time. ";
    fake.eos_after = 0, fake.step_us = 200, fake.requests_max = FAKE_REQUESTS, fake.fail_after = 0, fake.wait_s = 0;
    fake.submitted = fake.cancelled = fake.finished = 0;
    fake_text.missing = fake_text.thinks = false;
}
static void start(void) {
    sem_init(&daemon_.ready, 0, 0);
    pthread_create(&daemon_.thread, NULL, run, NULL);
    sem_wait(&daemon_.ready);
}
static void stop(void) {
    kill(getpid(), SIGTERM);
    pthread_join(daemon_.thread, NULL);
    assert_int_equal(daemon_.code, OK);
    assert_int_equal(fake.submitted, fake.finished);
}

/* ---- a client ---- */
static int dial(void) {
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)daemon_.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void send_text(int fd, const char *text) {
    for (size_t n = strlen(text); n;) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        if (sent <= 0) return;
        text += sent, n -= (size_t)sent;
    }
}

static void send_post(int fd, const char *path, const char *json) {
    char head[256];
    snprintf(
        head, sizeof head,
        "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
        path, strlen(json));
    send_text(fd, head);
    send_text(fd, json);
}

static char  answer[32 << 20];
static char *read_all(int fd) {
    size_t  n = 0;
    ssize_t got;
    while (n < sizeof answer - 1 && (got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0) n += (size_t)got;
    answer[n] = 0;
    close(fd);
    return answer;
}

static char *post(const char *path, const char *json) {
    int fd = dial();
    send_post(fd, path, json);
    return read_all(fd);
}

static char *get(const char *path) {
    char text[256];
    int  fd = dial();
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path);
    send_text(fd, text);
    return read_all(fd);
}

static double metric(const char *name) {
    const char *at = strstr(get("/metrics"), name);
    while (at && at[-1] != '\n') at = strstr(at + 1, name);
    assert_non_null(at);
    return atof(at + strlen(name));
}

static void wait_until_nothing_runs(void) {
    for (int i = 0; i < 5000; i++) {
        if (metric("penstock_exchanges ") == 0 && metric("penstock_requests_running ") == 0) return;
        usleep(1000);
    }
    fail_msg("requests are left over");
}

/* The JSON texts of a stream's events, one after another, without their common beginning. */
static const char *events(char *text) {
    static char out[1 << 16], *rest;
    out[0] = 0;
    for (char *line = strtok_r(text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
        if (strncmp(line, "data: ", 6) != 0) continue;
        char *choices = strstr(line, "\"choices\":");
        strcat(out, choices ? choices + 10 : line + 6);
        strcat(out, "\n");
    }
    return out;
}

#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* ---- tests ---- */
static void an_answer_is_what_the_model_said(void **state) {
    (void)state;
    configure(), start();
    char *text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":4,\"model\":\"fake\"}");
    assert_memory_equal(text, "HTTP/1.1 200 ", 13);
    assert_non_null(strstr(text, "\"message\":{\"role\":\"assistant\",\"content\":\"Once\",\"refusal\":null},\"logprobs\":"
                                 "null,\"finish_reason\":\"length\"}"));
    assert_non_null(strstr(text,
                           "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,\"prompt_tokens_"
                           "details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}"));
    stop();
}

static void a_stream_has_openai_s_order(void **state) {
    (void)state;
    configure();
    fake.eos_after = 3;
    start();
    char *text =
        post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    assert_non_null(strstr(text, "Content-Type: text/event-stream"));
    assert_null(strstr(text, "\nid:"));
    assert_string_equal(
        events(text),
        "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],"
        "\"usage\":null}\n"
        "[{\"index\":0,\"delta\":{\"content\":\"O\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n"
        "[{\"index\":0,\"delta\":{\"content\":\"n\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n"
        "[{\"index\":0,\"delta\":{\"content\":\"c\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n"
        "[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}\n"
        "[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_"
        "tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}\n"
        "[DONE]\n");
    stop();
}

static void a_stop_string_ends_a_stream_and_frees_the_engine(void **state) {
    (void)state;
    configure(), start();
    char *text =
        post("/v1/completions", "{\"prompt\":\"x\",\"seed\":0,\"max_tokens\":4000,\"stream\":true,\"stop\":\"upon\"}");
    const char *got = events(text);
    assert_non_null(strstr(got, "\"text\":\"e\""));
    assert_null(strstr(got, "u"
                            "\",\"logprobs")); /* the held 'u' of "upon" is never sent */
    assert_non_null(strstr(got, "\"finish_reason\":\"stop\""));
    wait_until_nothing_runs();
    assert_int_equal(fake.cancelled, 1);
    stop();
}

static void several_choices_have_their_own_index_and_seed(void **state) {
    (void)state;
    configure(), start();
    char *text = post("/v1/completions", "{\"prompt\":[\"ab\",\"cd\"],\"n\":2,\"seed\":0,\"echo\":true,\"max_tokens\":2}");
    assert_non_null(strstr(text, "{\"index\":0,\"text\":\"abOn\""));
    assert_non_null(strstr(text, "{\"index\":1,\"text\":\"abnc\""));
    assert_non_null(strstr(text, "{\"index\":2,\"text\":\"cdce\""));
    assert_non_null(strstr(text, "{\"index\":3,\"text\":\"cde \""));
    stop();
}

static void a_failure_before_the_first_byte_is_a_status(void **state) {
    (void)state;
    configure();
    fake.fail_after = 2;
    start();
    char *text = post("/v1/completions", "{\"prompt\":\"x\"}");
    assert_memory_equal(text, "HTTP/1.1 500 ", 13);
    assert_non_null(strstr(text, "x-should-retry: false"));
    assert_non_null(strstr(text, "\"type\":\"server_error\""));
    stop();
}

static void a_failure_in_a_stream_is_an_error_event_without_done(void **state) {
    (void)state;
    configure();
    fake.fail_after = 2;
    start();
    const char *got = events(post("/v1/chat/completions", "{" CHAT ",\"stream\":true}"));
    assert_non_null(strstr(
        got, "{\"error\":{\"message\":\"The request failed: the fake engine was told to fail.\",\"type\":\"server_error\""));
    assert_null(strstr(got, "[DONE]"));
    stop();
}

static void a_full_queue_is_an_answer_before_any_200(void **state) {
    (void)state;
    configure();
    fake.requests_max = 2;
    fake.step_us = 20000;
    start();
    int  busy = dial();
    char first[64] = {0};
    send_post(busy, "/v1/completions", "{\"prompt\":\"x\",\"n\":2,\"max_tokens\":4000,\"stream\":true}");
    assert_true(recv(busy, first, sizeof first - 1, 0) > 0);
    assert_memory_equal(first, "HTTP/1.1 200 ", 13);
    char *text = post("/v1/chat/completions", "{" CHAT ",\"stream\":true}");
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);
    assert_non_null(strstr(text, "Retry-After: 1\r\n"));
    assert_non_null(strstr(text, "x-should-retry: true\r\n"));
    static const struct {
        double      wait_s;
        const char *header;
    } waits[] = {{0.2, "\nRetry-After: 1\r"}, {7.2, "\nRetry-After: 8\r"}, {5000, "\nRetry-After: 119\r"}};
    for (int i = 0; i < 3; i++) {
        fake.wait_s = waits[i].wait_s;
        assert_non_null(strstr(post("/v1/completions", "{\"prompt\":\"x\"}"), waits[i].header));
    }
    assert_non_null(strstr(text, "\"code\":\"overloaded\""));
    close(busy);
    wait_until_nothing_runs();
    /* none of several is left behind where only some found a place */
    text = post("/v1/completions", "{\"prompt\":\"x\",\"n\":3,\"max_tokens\":4000}");
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);
    wait_until_nothing_runs();
    stop();
}

/* With header lines of its own. */
static engine_request submitted(const char *headers, const char *members) {
    char text[2048], body[1024];
    int  fd = dial();
    snprintf(body, sizeof body, "{\"prompt\":\"x\",\"max_tokens\":1%s}", members);
    snprintf(text, sizeof text,
             "POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s", headers,
             strlen(body), body);
    send_text(fd, text);
    const char *got = read_all(fd);
    if (strncmp(got, "HTTP/1.1 200 ", 13) != 0) fail_msg("%s", got);
    return fake.last;
}

static void what_a_request_says_of_itself_reaches_the_engine(void **state) {
    (void)state;
    configure();
    start();
    engine_request r = submitted("", "");
    assert_true(r.job.id == 0 && r.tenant.id == 0 && r.priority == 0 && r.slo.ttft_us == 0);
    r = submitted("",
                  ",\"slo\":{\"ttft_ms\":60000,\"tbt_ms\":50.5,\"deadline_ms\":90000,\"job_deadline_ms\":95000,\"value\":3},"
                  "\"priority\":-7,\"job_id\":\"j\"");
    assert_true(r.slo.ttft_us > 50000000 && r.slo.ttft_us <= 60000000 && r.slo.tbt_us == 50500 && r.slo.value == 3);
    assert_true(r.slo.deadline_us > 80000000 && r.slo.deadline_us <= 90000000 && r.priority == -7);
    assert_true(r.slo.job_deadline_us == 95000000);
    r = submitted("x-llm-d-slo-ttft-ms: 60000\r\nx-llm-d-slo-tpot-ms: 40\r\n", ",\"slo\":{\"tbt_ms\":50}");
    assert_true(r.slo.ttft_us > 50000000 && r.slo.tbt_us == 50000); /* the body wins */
    r = submitted("x-llm-d-slo-ttft-ms: soon\r\nx-llm-d-slo-tpot-ms: -1\r\n", "");
    assert_true(r.slo.ttft_us == 0 && r.slo.tbt_us == 0);
    assert_int_equal(submitted("", ",\"service_tier\":\"flex\"").priority, 100);
    assert_int_equal(submitted("", ",\"service_tier\":\"priority\"").priority, -100);

    const uint64_t session = submitted("X-Session-Id: s\r\n", ",\"session_id\":\"t\"").job.id;
    assert_true(session != 0 && session == submitted("", ",\"session_id\":\"s\",\"job_id\":\"t\"").job.id);
    assert_true(session == submitted("", ",\"job_id\":\"s\"").job.id);
    assert_true(session == submitted("", ",\"prompt_cache_key\":\"s\"").job.id);
    assert_true(session != submitted("", ",\"session_id\":\"t\"").job.id);
    r = submitted(
        "",
        ",\"tool\":\"grep\",\"expected_gap_ms\":1500,\"ttl_ms\":2000,\"last_step\":true,\"prompt_cache_retention\":\"24h\"");
    assert_true(r.job.tool && r.job.expected_gap_us == 1500000 && r.job.ttl_us == 2000000 && r.job.last_step);
    assert_true(submitted("", ",\"prompt_cache_retention\":\"24h\"").job.ttl_us == 86400000000u);

    const uint64_t tenant = submitted("x-llm-d-inference-fairness-id: me\r\n", "").tenant.id;
    assert_true(tenant != 0 && tenant == submitted("", ",\"user\":\"me\",\"safety_identifier\":\"you\"").tenant.id);
    assert_true(tenant == submitted("", ",\"safety_identifier\":\"me\"").tenant.id);
    assert_true(tenant == submitted("x-llm-d-inference-fairness-id: you\r\n", ",\"user\":\"me\"").tenant.id);
    assert_true(submitted("", ",\"cache_salt\":\"a\"").cache_salt != submitted("", ",\"cache_salt\":\"b\"").cache_salt);
    stop();
}

static void who_waits_past_a_deadline_is_told_so(void **state) {
    (void)state;
    configure();
    start();
    fake.frozen = true;
    int  patient = dial(), streamed = dial();
    char first[512] = {0};
    send_post(streamed, "/v1/chat/completions", "{" CHAT ",\"slo\":{\"deadline_ms\":50},\"stream\":true}");
    send_post(patient, "/v1/chat/completions", "{" CHAT ",\"slo\":{\"deadline_ms\":60000},\"max_tokens\":3}");
    const char *text = post("/v1/chat/completions", "{" CHAT ",\"slo\":{\"deadline_ms\":50}}");
    assert_memory_equal(text, "HTTP/1.1 504 ", 13);
    assert_non_null(strstr(text, "\"code\":\"deadline_exceeded\""));
    assert_non_null(strstr(text, "x-should-retry: false\r\n"));
    text = read_all(streamed);
    assert_memory_equal(text, "HTTP/1.1 200 ", 13);
    assert_non_null(strstr(text, "\"code\":\"deadline_exceeded\""));
    assert_null(strstr(text, "[DONE]"));
    fake.frozen = false;
    assert_true(recv(patient, first, sizeof first - 1, 0) > 0);
    assert_memory_equal(first, "HTTP/1.1 200 ", 13);
    close(patient);
    wait_until_nothing_runs();
    stop();
}

static void an_answer_that_is_not_complete_at_its_deadline_is_an_error(void **state) {
    (void)state;
    configure();
    fake.step_us = 2000;
    start();
    int streamed = dial();
    send_post(streamed, "/v1/chat/completions",
              "{" CHAT ",\"slo\":{\"deadline_ms\":200},\"stream\":true,\"max_tokens\":4000}");
    const char *text = post("/v1/chat/completions", "{" CHAT ",\"slo\":{\"deadline_ms\":200},\"max_tokens\":4000}");
    assert_memory_equal(text, "HTTP/1.1 504 ", 13);
    assert_non_null(strstr(text, "\"code\":\"deadline_exceeded\""));
    text = read_all(streamed);
    assert_memory_equal(text, "HTTP/1.1 200 ", 13);
    assert_non_null(strstr(text, "\"content\":\"O")); /* it had begun */
    assert_non_null(strstr(text, "\"code\":\"deadline_exceeded\""));
    assert_null(strstr(text, "[DONE]"));
    wait_until_nothing_runs();
    assert_int_equal(fake.cancelled, 2);
    stop();
}

/* What a request is called may be in its body, which a worker reads while the operator looks at all requests. */
static void the_operator_may_look_while_workers_read(void **state) {
    enum { BODY_BYTES = 200 << 10, ROUNDS = 10 };
    static char body[BODY_BYTES + 256];
    char        path[64];
    (void)state;
    configure();
    snprintf(path, sizeof path, "/tmp/penstock-test-%d.sock", (int)getpid());
    daemon_.config.admin_socket = path;
    int n = snprintf(body, sizeof body,
                     "{\"request_id\":\"named\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\","
                     "\"content\":\"");
    memset(body + n, 'x', 3000);
    strcpy(body + n + 3000, "\"}],\"metadata\":{}");
    memset(body + strlen(body), ' ', BODY_BYTES - strlen(body));
    strcpy(body + BODY_BYTES, "}");
    start();
    for (int i = 0; i < ROUNDS; i++) {
        int asking = dial(), operator= socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
        assert_int_equal(connect(operator,(struct sockaddr *) & a, sizeof a), 0);
        send_post(asking, "/v1/chat/completions", body);
        for (int look = 0; look < 20; look++) send_text(operator, "GET /requests HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_non_null(strstr(read_all(asking), "X-Request-Id: named\r\n"));
        send_text(operator, "GET /requests HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_non_null(strstr(read_all(operator), "{\"requests\":["));
    }
    stop();
}

static void what_a_model_thinks_is_a_member_of_its_own(void **state) {
    (void)state;
    configure();
    fake.script = "\1hm\2\nyes", fake_text.thinks = true;
    start();
    const char *text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":8}");
    assert_non_null(strstr(text, "\"content\":\"yes\",\"refusal\":null,\"reasoning_content\":\"hm\"}"));
    assert_non_null(strstr(text, "\"completion_tokens_details\":{\"reasoning_tokens\":3}"));
    text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":3}");
    assert_non_null(strstr(text, "\"content\":null,\"refusal\":null,\"reasoning_content\":\"hm\"}"));
    text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":8,\"include_reasoning\":false}");
    assert_non_null(strstr(text, "\"content\":\"yes\",\"refusal\":null}"));
    text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":8,\"stream\":true}");
    assert_non_null(strstr(text, "\"delta\":{\"reasoning_content\":\"h\"}"));
    assert_non_null(strstr(text, "\"delta\":{\"content\":\"y\"}"));
    assert_true(strstr(text, "reasoning_content\":\"m") < strstr(text, "content\":\"y"));
    text =
        post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":8,\"stream\":true,\"include_reasoning\":false}");
    assert_null(strstr(text, "\"h\""));
    assert_non_null(strstr(text, "\"delta\":{\"content\":\"y\"}"));
    text = post("/v1/completions",
                "{\"prompt\":\"x\",\"seed\":0,\"max_tokens\":8}"); /* a completion is text, whatever it says */
    assert_non_null(strstr(text, "\"text\":\"\\u0001hm\\u0002\\nyes\""));
    stop();
    daemon_.config.reasoning = "both";
    start();
    text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":8}");
    assert_non_null(strstr(text, "\"reasoning_content\":\"hm\",\"reasoning\":\"hm\"}"));
    stop();
    daemon_.config.reasoning = "content";
    start();
    text = post("/v1/chat/completions", "{" CHAT ",\"seed\":0,\"max_tokens\":8}");
    assert_non_null(strstr(text, "\"content\":\"\\u0001hm\\u0002\\nyes\""));
    stop();
}

static void clients_that_leave_at_any_moment_leave_nothing_behind(void **state) {
    (void)state;
    configure();
    daemon_.config.worker_body_bytes = 1000;
    start();
    rng   r = {.seed = 3};
    char *large = malloc(20000);
    snprintf(large, 20000, "{\"prompt\":\"%0*d\",\"max_tokens\":50,\"stream\":true}", 3000, 7);
    for (int i = 0; i < 400; i++) {
        static const char *const bodies[] = {
            "{" CHAT ",\"max_tokens\":1000}",
            "{" CHAT ",\"max_tokens\":1000,\"stream\":true}",
            "{" CHAT ",\"max_tokens\":1000,\"stream\":true,\"n\":3,\"stop\":\"zz\"}",
        };
        int      fd = dial();
        uint64_t kind = rng_below(&r, 4);
        if (kind == 3) send_post(fd, "/v1/completions", large);
        else send_post(fd, "/v1/chat/completions", bodies[kind]);
        char some[256];
        if (rng_below(&r, 2)) (void)recv(fd, some, 1 + rng_below(&r, sizeof some - 1), MSG_DONTWAIT);
        for (uint64_t k = rng_below(&r, 20000); k > 0; k--) __asm__ volatile("");
        if (rng_below(&r, 2))
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)); /* a reset */
        close(fd);
    }
    free(large);
    wait_until_nothing_runs();
    assert_true(metric("penstock_clients_gone_total ") > 0);
    assert_int_equal(metric("penstock_http_connections "), 1); /* the one that asks */
    stop();
}

static void a_reader_that_stops_reading_is_cut_off_within_its_bound(void **state) {
    (void)state;
    configure();
    fake.step_us = 0;
    daemon_.config.write_buffer_max_bytes = 20000;
    start();
    int fd = dial(), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_post(fd, "/v1/completions", "{\"prompt\":\"x\",\"n\":100,\"max_tokens\":4000,\"stream\":true,\"logprobs\":5}");
    for (int i = 0; i < 3000 && metric("penstock_readers_too_slow_total ") == 0; i++) usleep(1000);
    assert_int_equal(metric("penstock_readers_too_slow_total "), 1);
    wait_until_nothing_runs();
    close(fd);
    stop();
}

static void a_reader_that_pauses_gets_the_whole_text_in_fewer_events(void **state) {
    (void)state;
    configure();
    fake.step_us = 0;
    start();
    int fd = dial(), small = 64 << 10;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_post(fd, "/v1/completions", "{\"prompt\":\"x\",\"seed\":0,\"max_tokens\":4000,\"n\":16,\"stream\":true}");
    char first;
    assert_int_equal(recv(fd, &first, 1, MSG_PEEK), 1);
    wait_until_nothing_runs();
    char  *text = read_all(fd), *at = text;
    size_t letters = 0, pieces = 0;
    while ((at = strstr(at, "\"text\":\""))) {
        at += 8;
        letters += strcspn(at, "\"");
        pieces++;
    }
    assert_int_equal(letters, 64000);
    assert_true(pieces < 64000);
    assert_non_null(strstr(text, "data: [DONE]\n\n"));
    stop();
}

static void running_requests_finish_after_sigterm_and_new_ones_are_refused(void **state) {
    (void)state;
    configure();
    fake.step_us = 2000;
    start();
    int  fd = dial(), idle = dial();
    char some[8192];
    send_post(fd, "/v1/completions", "{\"prompt\":\"x\",\"seed\":0,\"max_tokens\":100,\"stream\":true}");
    send_text(idle, "GET /ready HTTP/1.1\r\nHost: a\r\n");
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    kill(getpid(), SIGTERM);
    usleep(20000);
    send_text(idle, "\r\n"); /* a connection that was busy with a request when the signal came */
    char *text = read_all(idle);
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);
    assert_non_null(strstr(text, "\"status\":\"draining\""));
    text = read_all(fd);
    assert_non_null(strstr(text, "\"finish_reason\":\"length\""));
    assert_non_null(strstr(text, "data: [DONE]\n\n"));
    pthread_join(daemon_.thread, NULL);
    assert_int_equal(daemon_.code, OK);
    assert_int_equal(fake.cancelled, 0);
}

static void draining_has_a_bound(void **state) {
    (void)state;
    configure();
    fake.step_us = 5000;
    daemon_.config.drain_us = 50000;
    start();
    int  fd = dial();
    char some[8192];
    send_post(fd, "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":4000,\"stream\":true}");
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    stop();
    assert_null(strstr(read_all(fd), "[DONE]"));
    assert_int_equal(fake.cancelled, 1);
}

static void a_frozen_engine_turns_live_to_failing_and_a_moving_one_back(void **state) {
    (void)state;
    configure();
    daemon_.config.stall_us = 50000;
    start();
    int  fd = dial();
    char some[64];
    send_post(fd, "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":4000,\"stream\":true}");
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    assert_memory_equal(get("/live"), "HTTP/1.1 200 ", 13);
    fake.frozen = true;
    for (int i = 0; i < 5000 && memcmp(get("/live"), "HTTP/1.1 503 ", 13) != 0; i++) usleep(1000);
    assert_non_null(strstr(get("/health"), "\"status\":\"stuck\""));
    assert_int_equal(metric("penstock_health{state=\"stuck\"} "), 1);
    fake.frozen = false;
    for (int i = 0; i < 5000 && memcmp(get("/live"), "HTTP/1.1 200 ", 13) != 0; i++) usleep(1000);
    assert_memory_equal(get("/ready"), "HTTP/1.1 200 ", 13);
    close(fd);
    wait_until_nothing_runs();
    stop();
}

static void a_model_without_a_tokenizer_takes_and_gives_token_ids(void **state) {
    (void)state;
    configure();
    fake_text.missing = true;
    start();
    char *text = post("/v1/completions", "{\"prompt\":[1,2,3],\"seed\":0,\"max_tokens\":2,\"return_token_ids\":true}");
    assert_non_null(strstr(text, "\"text\":\" 79 110\""));
    assert_non_null(strstr(text, "\"token_ids\":[79,110],\"prompt_token_ids\":[1,2,3]"));
    assert_memory_equal(post("/v1/completions", "{\"prompt\":\"text\"}"), "HTTP/1.1 400 ", 13);
    assert_memory_equal(post("/v1/chat/completions", "{" CHAT "}"), "HTTP/1.1 400 ", 13);
    assert_memory_equal(post("/tokenize", "{\"prompt\":\"text\"}"), "HTTP/1.1 400 ", 13);
    stop();
}

static void each_mistake_has_its_status(void **state) {
    (void)state;
    configure(), start();
    static const struct {
        const char *path, *body;
        int         status;
        const char *code;
    } cases[] = {
        {"/v1/chat/completions", "{" CHAT ",\"model\":\"other\"}", 404, "model_not_found"},
        {"/v1/nothing", "{}", 404, "unknown_url"},
        {"/v1/chat/completions", "{", 400, "null"},
        {"/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":4096}", 400, "context_length_exceeded"},
        {"/v1/completions", "{\"prompt\":[257]}", 400, "invalid_value"},
        {"/v1/completions", "{\"prompt\":\"x\",\"logit_bias\":{\"999\":1}}", 400, "invalid_value"},
        {"/v1/completions", "{\"prompt\":\"\"}", 400, "invalid_value"},
        {"/health", "{}", 405, "null"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = post(cases[i].path, cases[i].body), line[32], code[64];
        snprintf(line, sizeof line, "HTTP/1.1 %d ", cases[i].status);
        snprintf(code, sizeof code, strcmp(cases[i].code, "null") ? "\"code\":\"%s\"" : "\"code\":%s", cases[i].code);
        assert_memory_equal(text, line, strlen(line));
        if (!strstr(text, code)) fail_msg("%s: %s", cases[i].body, text);
    }
    assert_memory_equal(get("/v1/models/fake"), "HTTP/1.1 200 ", 13);
    assert_memory_equal(get("/v1/models/f%61ke"), "HTTP/1.1 200 ", 13);
    assert_memory_equal(get("/v1/models/nope"), "HTTP/1.1 404 ", 13);
    assert_memory_equal(get("/"), "HTTP/1.1 200 ", 13);
    stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_what_the_model_said),
        cmocka_unit_test(a_stream_has_openai_s_order),
        cmocka_unit_test(a_stop_string_ends_a_stream_and_frees_the_engine),
        cmocka_unit_test(several_choices_have_their_own_index_and_seed),
        cmocka_unit_test(a_failure_before_the_first_byte_is_a_status),
        cmocka_unit_test(a_failure_in_a_stream_is_an_error_event_without_done),
        cmocka_unit_test(a_full_queue_is_an_answer_before_any_200),
        cmocka_unit_test(what_a_request_says_of_itself_reaches_the_engine),
        cmocka_unit_test(who_waits_past_a_deadline_is_told_so),
        cmocka_unit_test(an_answer_that_is_not_complete_at_its_deadline_is_an_error),
        cmocka_unit_test(the_operator_may_look_while_workers_read),
        cmocka_unit_test(what_a_model_thinks_is_a_member_of_its_own),
        cmocka_unit_test(clients_that_leave_at_any_moment_leave_nothing_behind),
        cmocka_unit_test(a_reader_that_stops_reading_is_cut_off_within_its_bound),
        cmocka_unit_test(a_reader_that_pauses_gets_the_whole_text_in_fewer_events),
        cmocka_unit_test(running_requests_finish_after_sigterm_and_new_ones_are_refused),
        cmocka_unit_test(draining_has_a_bound),
        cmocka_unit_test(a_frozen_engine_turns_live_to_failing_and_a_moving_one_back),
        cmocka_unit_test(a_model_without_a_tokenizer_takes_and_gives_token_ids),
        cmocka_unit_test(each_mistake_has_its_status),
    };
    log_configure(LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
