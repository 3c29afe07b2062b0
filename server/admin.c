/* server/admin.c: what the operator may ask at the admin socket: HTTP like everything else, over a UNIX socket that only its
 * owner can open, so that no client ever reaches it. `penstock admin` (cmd_admin.c) is its client; curl --unix-socket will
 * do. Paths that are not here are those of the API, without a key. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "server/operator.h"
#include "server/settings.h"

enum { ANSWER_MAX_BYTES = 16 << 20, HEADERS_MAX_BYTES = 512 };

/* `rest` is what a path has behind its route. An action writes JSON or text into `out`, or sets a fault. */
typedef struct {
    service    *sv;
    const char *rest, *body;
    size_t      rest_bytes, body_bytes;
    buf        *out;
    fault       fault;
} ask;

static void done(ask *a) { buf_str(a->out, "{\"done\":true}"); }

static void refuse(ask *a, const error *err) { fault_set(&a->fault, FAULT_INVALID, NULL, "%.500s", err->text); }

static bool is_loading(ask *a) {
    if (a->sv->engine) return false;
    fault_set(&a->fault, FAULT_LOADING, NULL, "The model is still being loaded.");
    return true;
}

/* ---- looking ---- */
static void get_status(ask *a) {
    char            status[256];
    engine_snapshot s;
    health_state    state = service_health(a->sv, &s);
    service_status(a->sv, status, sizeof status);
    buf_printf(a->out, "{\"version\":\"%s\",\"state\":\"%s\",\"status\":", PENSTOCK_VERSION, health_rows[state].name);
    json_quote(a->out, status, strlen(status));
    buf_printf(a->out, ",\"paused\":%s,\"held\":%s,\"requests\":%" PRIu64 ",\"connections\":%u}",
               a->sv->paused ? "true" : "false", s.held ? "true" : "false", a->sv->metrics.count.exchanges,
               listener_read_facts(a->sv->listener).connections);
}

static void get_requests(ask *a) {
    const char *comma = "";
    uint64_t    now = clock_us();
    buf_str(a->out, "{\"requests\":[");
    for (const exchange *x = a->sv->exchanges; x; x = x->next) {
        buf_printf(a->out, "%s{\"id\":\"%s\",\"path\":\"%s\",\"tenant\":\"%s\",\"age_ms\":%.1f,\"client\":%s", comma, x->id,
                   x->path, x->tenant ? x->tenant->name : "", (double)(now - x->arrived_us) * 1e-3,
                   x->conn ? "true" : "false");
        if (x->work) buf_str(a->out, ",\"state\":\"tokenizing\""); /* what else is known of it is the worker's */
        else generation_describe(x, a->out);
        buf_char(a->out, '}');
        comma = ",";
    }
    buf_str(a->out, "]}");
}

static void get_cache(ask *a) {
    engine_snapshot s;
    if (is_loading(a)) return;
    engine_read_snapshot(a->sv->engine, &s);
    const scheduler_stats *q = &s.scheduler;
    buf_printf(
        a->out,
        "{\"pages\":%u,\"pages_held\":%u,\"pages_cached\":%u,\"pages_free\":%u,\"page_tokens\":%u,\"page_bytes\":%" PRIu64
        ",\"queried_tokens\":%" PRIu64 ",\"hit_tokens\":%" PRIu64 ",\"pages_evicted\":%" PRIu64 "}",
        q->pages_total, q->pages_held, q->pages_cached, q->pages_free, s.page_tokens, s.page_bytes, q->cache_queried_tokens,
        q->cache_hit_tokens, q->pages_evicted);
}

static void get_tenants(ask *a) { keys_write(a->sv->keys, clock_us(), a->out); }

static void get_config(ask *a) {
    const server_config *c = a->sv->config;
    if (c->describe) c->describe(c->reload_context, a->out);
}

/* ---- acting ---- */
static void end_request(ask *a) {
    for (exchange *x = a->sv->exchanges, *next; x; x = next) {
        next = x->next;
        if (strlen(x->id) != a->rest_bytes || memcmp(x->id, a->rest, a->rest_bytes) != 0 || !x->conn) continue;
        log_warn("admin", "request %s is ended", x->id);
        exchange_end(x, FAULT_ABORTED);
        return done(a);
    }
    fault_set(&a->fault, FAULT_URL, NULL, "There is no request %.*s.", a->rest_bytes > 128 ? 128 : (int)a->rest_bytes,
              a->rest);
}

static void drop_cache(ask *a) {
    if (is_loading(a)) return;
    log_info("admin", "the prefix cache is emptied");
    engine_drop_cache(a->sv->engine);
    done(a);
}

static void set_paused(ask *a, bool paused, bool held) {
    if (is_loading(a)) return;
    if (a->sv->phase == PHASE_DRAINING)
        return (void)fault_set(&a->fault, FAULT_DRAINING, NULL, "The server is shutting down.");
    log_info("admin", held ? "held: no pass is begun" : paused ? "paused: new requests are turned away" : "resumed");
    a->sv->paused = paused;
    engine_hold(a->sv->engine, held);
    done(a);
}
static void pause_requests(ask *a) { set_paused(a, true, false); }
static void hold_engine(ask *a) { set_paused(a, true, true); }
static void resume_all(ask *a) { set_paused(a, false, false); }

static void drain(ask *a) {
    if (is_loading(a)) return;
    if (a->sv->phase == PHASE_SERVING) operator_drain(a->sv, "the operator");
    done(a);
}

static void reload(ask *a) {
    error err;
    if (operator_reload(a->sv, a->out, &err) != OK) refuse(a, &err);
}

static void put_keys(ask *a) {
    error err;
    if (operator_take_keys(a->sv, "keys", a->body, a->body_bytes, &err) != OK) return refuse(a, &err);
    get_tenants(a);
}

static void reopen_log(ask *a) {
    error err;
    if (log_reopen(&err) != OK) return refuse(a, &err);
    done(a);
}

static void get_log_level(ask *a) { buf_printf(a->out, "{\"log_level\":\"%s\"}", settings_log_level_name()); }

static void put_log_level(ask *a) {
    error err;
    char  word[16] = {0};
    if (a->body_bytes < sizeof word) memcpy(word, a->body, a->body_bytes);
    if (settings_set_log_level(word, &err) != OK) return refuse(a, &err);
    log_warn("admin", "log-level is %s until the next reload or restart", settings_log_level_name());
    get_log_level(a);
}

/* ---- paths ---- */
static const struct {
    uint8_t     method;
    const char *path; /* one that ends in '/' is a prefix, but for "/" */
    const char *type;
    void (*act)(ask *a);
} routes[] = {
    {HTTP_GET, "/", "application/json", get_status},
    {HTTP_GET, "/requests", "application/json", get_requests},
    {HTTP_DELETE, "/requests/", "application/json", end_request},
    {HTTP_GET, "/cache", "application/json", get_cache},
    {HTTP_DELETE, "/cache", "application/json", drop_cache},
    {HTTP_GET, "/tenants", "application/json", get_tenants},
    {HTTP_PUT, "/keys", "application/json", put_keys},
    {HTTP_POST, "/pause", "application/json", pause_requests},
    {HTTP_POST, "/hold", "application/json", hold_engine},
    {HTTP_POST, "/resume", "application/json", resume_all},
    {HTTP_POST, "/drain", "application/json", drain},
    {HTTP_POST, "/reload", "text/plain; charset=utf-8", reload},
    {HTTP_GET, "/config", "text/plain; charset=utf-8", get_config},
    {HTTP_GET, "/log-level", "application/json", get_log_level},
    {HTTP_PUT, "/log-level", "application/json", put_log_level},
    {HTTP_POST, "/log-reopen", "application/json", reopen_log},
};
enum { ROUTE_COUNT = sizeof routes / sizeof *routes, NOT_HERE = -1, OTHER_METHOD = -2 };

static bool is_at(int route, const char *path, size_t n) {
    size_t length = strlen(routes[route].path);
    bool   prefix = length > 1 && routes[route].path[length - 1] == '/';
    return (prefix ? n > length : n == length) && memcmp(path, routes[route].path, length) == 0;
}

static int find(uint8_t method, const char *path, size_t n) {
    int found = NOT_HERE;
    for (int i = 0; i < ROUTE_COUNT; i++) {
        if (!is_at(i, path, n)) continue;
        if (routes[i].method == method) return i;
        found = OTHER_METHOD;
    }
    return found;
}

/* As the header says it. */
static void write_methods(const char *path, size_t n, buf *out) {
    const char *before = "Allow: ";
    for (int i = 0; i < ROUTE_COUNT; i++)
        if (is_at(i, path, n)) buf_printf(out, "%s%s", before, llhttp_method_name(routes[i].method)), before = ", ";
    buf_str(out, "\r\n");
}

bool admin_request(service *sv, http_conn *c) {
    size_t      n;
    const char *path = http_path(c, &n);
    int         route = find(c->parser.method, path, n);
    if (route == NOT_HERE) return false;
    buf out, headers, body = http_take_body(c);
    buf_init(&out, ANSWER_MAX_BYTES), buf_init(&headers, HEADERS_MAX_BYTES);
    ask a = {.sv = sv, .out = &out, .body = body.size ? body.data : "", .body_bytes = body.size};
    if (route == OTHER_METHOD) {
        fault_set(&a.fault, FAULT_METHOD, NULL, "This path is asked in another way.");
        write_methods(path, n, &headers);
    } else {
        const size_t own = strlen(routes[route].path);
        a.rest = path + own, a.rest_bytes = n - own;
        routes[route].act(&a);
    }
    if (a.fault.kind) buf_clear(&out), fault_write(&a.fault, &out);
    api_name(sv, c);
    http_answer(c, &(http_reply){a.fault.kind ? fault_status(&a.fault) : 200,
                                 a.fault.kind ? "application/json" : routes[route].type, headers.size ? headers.data : NULL,
                                 out.data, out.size});
    buf_free(&out), buf_free(&headers), buf_free(&body);
    return true;
}
