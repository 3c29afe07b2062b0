/* server/exchange.c: one HTTP request from its body to its answer.
 *
 * begin -> prepare (here, or on a worker) -> finish or refuse -> ... -> release. The client may leave at any point: then
 * `conn` is NULL and whoever holds the exchange next lets it go. A worker's exchange is never freed under it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/service.h"

static bool id_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("-_.:/+=", c));
}

static bool take_id(char id[REQUEST_ID_SIZE], const char *given, size_t n) {
    if (!given || n == 0 || n > 128) return false;
    for (size_t i = 0; i < n; i++)
        if (!id_char(given[i])) return false;
    memcpy(id, given, n);
    id[n] = 0;
    return true;
}

void exchange_rename(exchange *x, const char *id) {
    if (id && !x->named) x->named = take_id(x->id, id, strlen(id));
}

bool request_id_choose(service *sv, const http_conn *c, char id[REQUEST_ID_SIZE]) {
    size_t      n = 0;
    const char *given = http_header(c, "x-request-id", &n);
    if (take_id(id, given, n)) return true;
    uint64_t serial = ++sv->exchange_serial;
    snprintf(id, REQUEST_ID_SIZE, "%016llx%08llx", (unsigned long long)hash_u64(&serial, sizeof serial, sv->id_salt),
             (unsigned long long)(serial & 0xFFFFFFFF));
    return false;
}

static uint64_t hash_header(const http_conn *c, const char *name, uint64_t seed) {
    size_t      n = 0;
    const char *value = http_header(c, name, &n);
    return value && n ? hash_u64(value, n, seed) : 0;
}

/* A number of milliseconds; one that cannot be is as if it was not there: it was meant for a router. */
static double read_ms(const http_conn *c, const char *name) {
    size_t      n = 0;
    const char *value = http_header(c, name, &n);
    char        text[32], *end;
    if (!value || n == 0 || n >= sizeof text) return -1;
    memcpy(text, value, n), text[n] = 0;
    double ms = strtod(text, &end);
    return *end == 0 && ms >= SLO_MS_MIN && ms <= SLO_MS_MAX ? ms : -1;
}

/* What proxies and routers say beside the body. */
static void read_headers(exchange *x, const http_conn *c) {
    x->named = request_id_choose(x->service, c, x->id);
    x->session = hash_header(c, "x-session-id", SESSION_SEED);
    x->fairness = hash_header(c, "x-llm-d-inference-fairness-id", TENANT_SEED);
    if (!x->fairness) x->fairness = hash_header(c, "x-gateway-inference-fairness-id", TENANT_SEED);
    x->slo = (slo_params){.ttft_ms = read_ms(c, "x-llm-d-slo-ttft-ms"),
                          .tbt_ms = read_ms(c, "x-llm-d-slo-tpot-ms"),
                          .deadline_ms = -1,
                          .job_deadline_ms = -1,
                          .value = -1};
}

fault *exchange_fault(exchange *x) {
    if (!x->fault) x->fault = malloc(sizeof *x->fault);
    if (!x->fault) fatal("out of memory for an error");
    return x->fault;
}

static void set_end(exchange *x, fault_kind kind) {
    fault_set(exchange_fault(x), kind, NULL,
              kind == FAULT_ABORTED ? "The operator of the server ended this request."
                                    : "The server is shutting down and could not finish this request.");
}

void exchange_end(exchange *x, fault_kind kind) {
    if (!x->conn || x->ends_by) return;
    x->ends_by = kind;
    if (x->work) return;
    set_end(x, kind);
    generation_end(x, kind);
}

static void go_on(exchange *x) {
    x->prepared_us = clock_us();
    metrics_observe(&x->service->metrics, HIST_PREPARE, (double)(x->prepared_us - x->arrived_us) * 1e-6);
    buf_free(&x->body);
    if (x->ends_by) set_end(x, x->ends_by);
    if (!x->conn) exchange_release(x);
    else if (x->fault) exchange_refuse(x);
    else x->kind->finish(x);
}

static void prepare(exchange *x) {
    fault f = {0};
    x->kind->prepare(x, &f);
    if (f.kind) *exchange_fault(x) = f;
}

static void work(uv_work_t *w) { prepare(w->data); }

static void work_done(uv_work_t *w, int status) {
    exchange *x = w->data;
    listener *l = x->service->listener;
    (void)status;
    free(x->work), x->work = NULL;
    x->service->working--;
    if (x->conn) listener_touch(x->conn);
    go_on(x);
    listener_flush(l);
}

static bool enter(exchange *x) {
    fault f = {0};
    if (tenant_enter(x->tenant, x->arrived_us, &f) == 0) return true;
    *exchange_fault(x) = f;
    return false;
}

/* Whether a worker has it now. */
static bool give_to_worker(exchange *x) {
    if (!(x->work = malloc(sizeof *x->work))) fatal("out of memory for a request");
    x->work->data = x;
    if (uv_queue_work(&x->service->loop, x->work, work, work_done) == 0) return true;
    free(x->work), x->work = NULL;
    return false;
}

/* What the headers did not say: what its key says, else everybody's. */
static void aim(double *ms, uint32_t of_key_ms, uint64_t of_all_us) {
    if (*ms < 0 && of_key_ms) *ms = of_key_ms;
    else if (*ms < 0 && of_all_us) *ms = (double)of_all_us * 1e-3;
}

void exchange_begin(service *sv, http_conn *c, const exchange_kind *kind, const char *path, tenant *who) {
    exchange *x = calloc(1, kind->size);
    if (!x) fatal("out of memory for a request");
    x->kind = kind, x->service = sv, x->conn = c, x->path = path;
    x->arrived_us = clock_us();
    x->body = http_take_body(c);
    read_headers(x, c);
    c->exchange = x;
    x->next = sv->exchanges, x->link = &sv->exchanges;
    if (x->next) x->next->link = &x->next;
    sv->exchanges = x;
    sv->metrics.count.exchanges++;
    sv->idle_ticks = 0;
    x->tenant = who;
    aim(&x->slo.ttft_ms, who ? who->ttft_ms : 0, sv->config->slo_ttft_us);
    aim(&x->slo.tbt_ms, who ? who->tbt_ms : 0, sv->config->slo_tbt_us);
    if (who && !enter(x)) return go_on(x);
    x->entered = true;
    if (kind->admit && !kind->admit(x)) return go_on(x);
    if (x->body.size > sv->config->worker_body_bytes && give_to_worker(x)) return (void)sv->working++;
    prepare(x);
    go_on(x);
}

/* A client gives up on a longer Retry-After at once. */
void fault_headers(const fault *f, buf *out) {
    enum { RETRY_AFTER_MAX_S = 119 };
    uint32_t wait_s = f->retry_after_s ? f->retry_after_s : fault_retry(f) ? 1 : 0;
    if (wait_s) buf_printf(out, "Retry-After: %u\r\n", wait_s > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : wait_s);
    buf_str(out, fault_retry(f) ? "x-should-retry: true\r\n" : "x-should-retry: false\r\n");
}

void exchange_headers(const exchange *x, buf *out) {
    buf_str(out, "X-Request-Id: "), buf_str(out, x->id), buf_str(out, "\r\n");
    if (x->tenant) tenant_headers(x->tenant, clock_us(), out);
    if (x->fault) fault_headers(x->fault, out);
}

void exchange_answer(exchange *x, int status, const buf *json) {
    buf headers;
    buf_init(&headers, 1024);
    exchange_headers(x, &headers);
    x->status = status;
    x->service->metrics.count.answers[status / 100]++;
    http_answer(x->conn, &(http_reply){status, "application/json", headers.data, json->data, json->size});
    listener_touch(x->conn);
    x->conn = NULL;
    buf_free(&headers);
}

static void log_refusal(const exchange *x) {
    if (!log_enabled(LOG_INFO)) return;
    char text[800];
    buf  members;
    snprintf(text, sizeof text, "%s %s %d: %s", x->id, x->path, x->status, x->fault->message);
    buf_init(&members, 4096);
    buf_printf(&members,
               "\"request\":\"%s\",\"path\":\"%s\",\"tenant\":\"%s\",\"status\":%d,\"code\":\"%s\",\"tokenizing_ms\":%.3f,"
               "\"total_ms\":%.3f",
               x->id, x->path, x->tenant ? x->tenant->name : "", x->status, fault_code(x->fault) ? fault_code(x->fault) : "",
               (double)(x->prepared_us - x->arrived_us) * 1e-3, (double)(clock_us() - x->arrived_us) * 1e-3);
    log_object(LOG_INFO, "request", text, members.data);
    buf_free(&members);
}

void exchange_refuse(exchange *x) {
    buf json;
    buf_init(&json, 8192);
    fault_write(x->fault, &json);
    counters *count = &x->service->metrics.count;
    int       status = fault_status(x->fault);
    if (x->fault->kind == FAULT_LIMIT) count->refused_limit++;
    else if (status < 500) count->refused_invalid++;
    exchange_answer(x, status, &json);
    buf_free(&json);
    log_refusal(x);
    exchange_release(x);
}

void exchange_release(exchange *x) {
    x->service->metrics.count.exchanges--;
    *x->link = x->next;
    if (x->next) x->next->link = x->link;
    if (x->tenant && x->entered) tenant_leave(x->tenant);
    x->kind->destroy(x);
    buf_free(&x->body);
    free(x->fault);
    free(x);
}

/* The client left. */
void api_gone(void *sv_, http_conn *c) {
    service  *sv = sv_;
    exchange *x = c->exchange;
    c->exchange = NULL;
    if (!x) return;
    x->conn = NULL;
    sv->metrics.count.clients_gone++;
    if (x->work) uv_cancel((uv_req_t *)x->work); /* where no worker has begun it */
    else x->kind->lost(x);
}

void api_drained(void *sv_, http_conn *c) {
    (void)sv_;
    if (c->exchange) generation_drained(c->exchange);
}
