/* server/api.c: which path is answered by whom. What needs no body is answered here at once, from memory and from the
 * engine's snapshot, so that it takes the same short time whatever the engine is doing. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "server/generation.h"
#include "server/openapi.h"
#include "server/service.h"

enum { PAGE_MAX_BYTES = 4 << 20 };

/* ---- answers without a body to read ---- */
void api_name(void *sv, http_conn *c) {
    char id[REQUEST_ID_SIZE];
    request_id_choose(sv, c, id);
    buf_str(&c->headers, "X-Request-Id: "), buf_str(&c->headers, id), buf_str(&c->headers, "\r\n");
}

static void answer(service *sv, http_conn *c, const http_reply *r) {
    sv->metrics.count.answers[r->status / 100]++;
    api_name(sv, c);
    http_answer(c, r);
}

static void answer_json(service *sv, http_conn *c, int status, const buf *json) {
    answer(sv, c,
           &(http_reply){status, "application/json", status == 503 ? "Retry-After: 1\r\n" : NULL, json->data, json->size});
}

/* `more`: header lines of its own, or NULL. */
static void answer_fault(service *sv, http_conn *c, const fault *f, const char *more) {
    buf json, headers;
    buf_init(&json, 8192), buf_init(&headers, 1024);
    fault_headers(f, &headers);
    if (more) buf_str(&headers, more);
    fault_write(f, &json);
    answer(sv, c, &(http_reply){fault_status(f), "application/json", headers.data, json.data, json.size});
    buf_free(&json), buf_free(&headers);
}

static void answer_health(service *sv, http_conn *c, size_t offset) {
    engine_snapshot   s;
    const health_row *h = &health_rows[service_health(sv, &s)];
    const bool        good = *(const bool *)((const char *)h + offset);
    buf               json;
    buf_init(&json, 4096);
    buf_printf(&json,
               "{\"status\":\"%s\",\"running\":%u,\"waiting\":%u,\"kv_pages_free\":%u,\"kv_pages\":%u,"
               "\"passes\":%llu,\"operators\":%llu",
               h->name, s.scheduler.running, s.scheduler.waiting, s.scheduler.pages_free + s.scheduler.pages_cached,
               s.scheduler.pages_total, (unsigned long long)s.passes_done, (unsigned long long)s.operators_done);
    if (s.failed[0]) buf_str(&json, ",\"failure\":"), json_quote(&json, s.failed, strlen(s.failed));
    buf_str(&json, "}");
    answer_json(sv, c, good ? 200 : 503, &json);
    buf_free(&json);
}

static void get_live(service *sv, http_conn *c) { answer_health(sv, c, offsetof(health_row, live)); }
static void get_health(service *sv, http_conn *c) { answer_health(sv, c, offsetof(health_row, healthy)); }
static void get_ready(service *sv, http_conn *c) { answer_health(sv, c, offsetof(health_row, ready)); }

static void fill_facts(service *sv, const engine_snapshot *s, health_state state, metrics_facts *out) {
    listener_facts facts = listener_read_facts(sv->listener);
    *out = (metrics_facts){.start_time_s = sv->start_time_s,
                           .stands_s = state == HEALTH_LOADING ? 0 : (double)(clock_us() - sv->progress.since_us) * 1e-6,
                           .context_max = sv->context_max,
                           .connections = facts.connections,
                           .connections_accepted = facts.accepted,
                           .connections_refused = facts.turned_away,
                           .accept_failures = facts.accept_failures,
                           .malformed = sv->http.refused,
                           .log_dropped = log_dropped()};
    if (state != HEALTH_LOADING) {
        out->running_max = engine_scheduler_config(sv->engine)->running_max;
        out->waiting_max = engine_scheduler_config(sv->engine)->waiting_max;
        const backlog b = engine_backlog(sv->engine, s);
        out->wait_s = pace_wait_s(&s->pace, &b, 0);
    }
    metrics_facts_derive(out, s, state);
}

static void get_metrics(service *sv, http_conn *c) {
    engine_snapshot s;
    metrics_facts   facts;
    tenant_figures  tenants[TENANTS_SHOWN_MAX];
    buf             text;
    fill_facts(sv, &s, service_health(sv, &s), &facts);
    buf_init(&text, PAGE_MAX_BYTES);
    metrics_page_write(
        sv->metrics_page,
        &(metrics_view){&sv->metrics, &s, &facts, tenants, keys_figures(sv->keys, tenants, TENANTS_SHOWN_MAX)}, &text);
    answer(sv, c, &(http_reply){200, "text/plain; version=0.0.4; charset=utf-8", NULL, text.data, text.size});
    buf_free(&text);
}

static void write_model(const service *sv, buf *json) {
    buf_str(json, "{\"id\":");
    json_quote(json, sv->model_name, strlen(sv->model_name));
    buf_printf(json, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"penstock\",\"root\":", (long long)sv->created_s);
    json_quote(json, sv->model_name, strlen(sv->model_name));
    buf_str(json, ",\"parent\":null,\"max_model_len\":");
    if (sv->context_max) buf_printf(json, "%u}", sv->context_max);
    else buf_str(json, "null}");
}

static void get_models(service *sv, http_conn *c) {
    buf json;
    buf_init(&json, 8192);
    buf_str(&json, "{\"object\":\"list\",\"data\":[");
    write_model(sv, &json);
    buf_str(&json, "]}");
    answer_json(sv, c, 200, &json);
    buf_free(&json);
}

/* A model's name as it stands in a path: percent-encoded. False where it cannot be one. */
static bool decode_path(const char *s, size_t n, char *out, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned value = (unsigned char)s[i];
        if (s[i] == '%') {
            char digits[3] = {0};
            if (n - i < 3 || !strchr("0123456789abcdefABCDEF", s[i + 1]) || !strchr("0123456789abcdefABCDEF", s[i + 2]))
                return false;
            memcpy(digits, s + i + 1, 2);
            sscanf(digits, "%x", &value);
            i += 2;
        }
        if (value == 0 || used + 1 >= size) return false;
        out[used++] = (char)value;
    }
    out[used] = 0;
    return true;
}

static void get_model(service *sv, http_conn *c) {
    static const char prefix[] = "/v1/models/";
    size_t            n;
    const char       *path = http_path(c, &n);
    char              name[512];
    fault             f;
    if (!decode_path(path + sizeof prefix - 1, n - (sizeof prefix - 1), name, sizeof name)) name[0] = 0;
    if (strcmp(name, sv->model_name) != 0) {
        fault_set(&f, FAULT_MODEL, "model", "The model '%.200s' does not exist; '%.200s' is served here.", name,
                  sv->model_name);
        return answer_fault(sv, c, &f, NULL);
    }
    buf json;
    buf_init(&json, 4096);
    write_model(sv, &json);
    answer_json(sv, c, 200, &json);
    buf_free(&json);
}

/* A client says that no turn of a conversation follows: what is pinned for it is let go. Whether there is one is not told,
 * for the engine is not asked. */
static void delete_job(service *sv, http_conn *c, const tenant *who) {
    static const char prefix[] = "/v1/jobs/";
    size_t            n;
    const char       *path = http_path(c, &n);
    char              name[1025];
    fault             f = {0};
    error             err;
    if (!decode_path(path + sizeof prefix - 1, n - (sizeof prefix - 1), name, sizeof name) || !name[0])
        fault_set(&f, FAULT_URL, NULL, "A job's name has from 1 to %zu bytes.", sizeof name - 1);
    else if (sv->phase == PHASE_LOADING) fault_set(&f, FAULT_LOADING, NULL, "The model is still being loaded.");
    else if (engine_end_job(sv->engine, generation_job_named(name, who), &err) != OK)
        fault_set(&f, FAULT_OVERLOADED, NULL, "Too many jobs were ended at once; come back later.");
    if (f.kind) return answer_fault(sv, c, &f, NULL);
    buf json;
    buf_init(&json, 16384);
    buf_str(&json, "{\"id\":"), json_quote(&json, name, strlen(name));
    buf_str(&json, ",\"object\":\"job\",\"deleted\":true}");
    answer_json(sv, c, 200, &json);
    buf_free(&json);
}

static void get_version(service *sv, http_conn *c) {
    buf json;
    buf_init(&json, 1024);
    buf_printf(&json, "{\"version\":\"%s\",\"device\":\"%s\"}", PENSTOCK_VERSION,
               sv->engine ? engine_device_name(sv->engine) : "");
    answer_json(sv, c, 200, &json);
    buf_free(&json);
}

static void get_openapi(service *sv, http_conn *c) {
    if (sv->openapi.size == 0) openapi_write(&sv->openapi);
    answer_json(sv, c, 200, &sv->openapi);
}

static void get_page(service *sv, http_conn *c) {
    answer(
        sv, c,
        &(http_reply){200, "text/html; charset=utf-8",
                      "Cache-Control: no-cache\r\n"
                      "X-Content-Type-Options: nosniff\r\n"
                      "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                      "connect-src 'self'; img-src data:; frame-ancestors 'none'\r\n",
                      page_html, page_html_bytes});
}

/* ---- routes ---- */
static const struct {
    const char *path; /* one that ends in '/' is a prefix */
    void (*get)(service *sv, http_conn *c);
    const exchange_kind *post;
    void (*delete)(service *sv, http_conn *c, const tenant *who);
} routes[] = {
    {"/v1/chat/completions", NULL, &chat_exchange, NULL},
    {"/v1/completions", NULL, &completion_exchange, NULL},
    {"/v1/chat/completions/render", NULL, &chat_render_exchange, NULL},
    {"/v1/completions/render", NULL, &completion_render_exchange, NULL},
    {"/tokenize", NULL, &tokenize_exchange, NULL},
    {"/detokenize", NULL, &detokenize_exchange, NULL},
    {"/v1/models", get_models, NULL, NULL},
    {"/v1/models/", get_model, NULL, NULL},
    {"/v1/jobs/", NULL, NULL, delete_job},
    {"/health", get_health, NULL, NULL},
    {"/live", get_live, NULL, NULL},
    {"/ready", get_ready, NULL, NULL},
    {"/metrics", get_metrics, NULL, NULL},
    {"/version", get_version, NULL, NULL},
    {"/openapi.json", get_openapi, NULL, NULL},
    {"/", get_page, NULL, NULL},
};
enum { ROUTE_COUNT = sizeof routes / sizeof *routes };

static int find_route(const char *path, size_t n) {
    for (int i = 0; i < ROUTE_COUNT; i++) {
        size_t length = strlen(routes[i].path);
        bool   prefix = length > 1 && routes[i].path[length - 1] == '/';
        if ((prefix ? n > length : n == length) && memcmp(path, routes[i].path, length) == 0) return i;
    }
    return -1;
}

static const char *allowed_methods(int route) {
    return routes[route].post ? "POST, OPTIONS" : routes[route].delete ? "DELETE, OPTIONS" : "GET, HEAD, OPTIONS";
}

static void refuse_method(service *sv, http_conn *c, int route) {
    fault f;
    char  headers[64];
    snprintf(headers, sizeof headers, "Allow: %s\r\n", allowed_methods(route));
    if (c->parser.method == HTTP_OPTIONS) return answer(sv, c, &(http_reply){.status = 204, .headers = headers});
    fault_set(&f, FAULT_METHOD, NULL, "%s is answered to %s only.", routes[route].path, allowed_methods(route));
    answer_fault(sv, c, &f, headers);
}

/* JSON, or nothing said: curl users. Never what a page of another site could have a browser send without asking first. */
static bool is_json(const http_conn *c) {
    size_t            n;
    const char       *type = http_header(c, "content-type", &n);
    static const char json[] = "application/json";
    if (!type) return !http_header(c, "origin", &n);
    return n >= sizeof json - 1 && strncasecmp(type, json, sizeof json - 1) == 0 &&
           (n == sizeof json - 1 || strchr("; \t", type[sizeof json - 1]));
}

static void post(service *sv, http_conn *c, int route, tenant *who) {
    fault f = {0};
    if (!is_json(c)) fault_set(&f, FAULT_MEDIA, NULL, "The body must be JSON: send Content-Type: application/json.");
    else if (sv->phase == PHASE_LOADING) fault_set(&f, FAULT_LOADING, NULL, "The model is still being loaded.");
    else if (sv->phase == PHASE_DRAINING) fault_set(&f, FAULT_DRAINING, NULL, "The server is shutting down.");
    else if (sv->paused) fault_set(&f, FAULT_PAUSED, NULL, "The operator of the server takes no new requests for now.");
    if (!f.kind) return exchange_begin(sv, c, routes[route].post, routes[route].path, who);
    if (f.kind == FAULT_DRAINING) sv->metrics.count.refused_draining++;
    answer_fault(sv, c, &f, NULL);
}

/* ---- keys ---- */
/* Probes have no key, and the page asks its reader for one. */
static bool is_open(const service *sv, int route) {
    if (!sv->keys) return true;
    if (route < 0) return false;
    void (*get)(service *, http_conn *) = routes[route].get;
    return get == get_health || get == get_live || get == get_ready || get == get_page ||
           (get == get_metrics && sv->config->metrics_open);
}

static void refuse_key(service *sv, http_conn *c, bool given) {
    fault f;
    fault_set(&f, FAULT_KEY, NULL,
              given ? "This API key is not known here."
                    : "An API key is needed: send it as 'Authorization: Bearer YOUR_KEY'.");
    sv->metrics.count.refused_key++;
    answer_fault(sv, c, &f, "WWW-Authenticate: Bearer\r\n");
}

/* Whom the request is from by its key, or NULL. */
static tenant *find_tenant(const service *sv, const http_conn *c) {
    size_t      n = 0;
    const char *given = http_header(c, "authorization", &n);
    return sv->keys ? keys_find(sv->keys, given, n) : NULL;
}

static bool may_ask(const service *sv, const http_conn *c, const tenant *who, int route) {
    return who || c->role == ROLE_ADMIN || is_open(sv, route);
}

/* ---- pages of other sites (CORS) ---- */
static bool is_listed(const char *origins, const char *origin, size_t n) {
    while (*origins) {
        size_t word = strcspn(origins, " ,");
        if (word && ((word == 1 && *origins == '*') || (word == n && memcmp(origins, origin, n) == 0))) return true;
        origins += word + (origins[word] != 0);
    }
    return false;
}

/* The browser may show the answer to a page whose origin is configured. Whether it is. */
static bool allow_origin(const service *sv, http_conn *c) {
    size_t      n;
    const char *origins = sv->config->cors_origins, *origin = origins ? http_header(c, "origin", &n) : NULL;
    if (!origin || n > 512 || !is_listed(origins, origin, n)) return false;
    buf_clear(&c->headers);
    buf_printf(&c->headers,
               "Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\nAccess-Control-Expose-Headers: X-Request-Id, "
               "Retry-After, x-should-retry, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
               "x-ratelimit-reset-tokens\r\n",
               (int)n, origin);
    return true;
}

/* What a browser asks before it sends what a form could not: without a key, which it does not send then. */
static bool answer_preflight(service *sv, http_conn *c, int route) {
    size_t      n = 0, asked_bytes;
    const char *asked = http_header(c, "access-control-request-headers", &n);
    if (c->parser.method != HTTP_OPTIONS || !http_header(c, "access-control-request-method", &asked_bytes)) return false;
    if (route < 0 || n > 4096 || !allow_origin(sv, c)) return false;
    buf_printf(&c->headers, "Access-Control-Allow-Methods: %s\r\nAccess-Control-Max-Age: 600\r\n", allowed_methods(route));
    if (asked) buf_printf(&c->headers, "Access-Control-Allow-Headers: %.*s\r\n", (int)n, asked);
    answer(sv, c, &(http_reply){.status = 204});
    return true;
}

/* ---- a request ---- */
bool api_admit(void *sv_, http_conn *c) {
    service    *sv = sv_;
    size_t      n;
    const char *path = http_path(c, &n);
    if (may_ask(sv, c, find_tenant(sv, c), find_route(path, n))) return true;
    c->close_after = true; /* the body is not read */
    allow_origin(sv, c);
    refuse_key(sv, c, http_header(c, "authorization", &n) != NULL);
    return false;
}

void api_request(void *sv_, http_conn *c) {
    service    *sv = sv_;
    size_t      n, unused;
    const char *path = http_path(c, &n);
    int         route = find_route(path, n);
    uint8_t     method = c->parser.method;
    tenant     *who = find_tenant(sv, c);
    fault       f;
    if (c->role == ROLE_ADMIN && admin_request(sv, c)) return;
    if (answer_preflight(sv, c, route)) return;
    allow_origin(sv, c);
    if (!may_ask(sv, c, who, route)) return refuse_key(sv, c, http_header(c, "authorization", &unused) != NULL);
    if (method == HTTP_OPTIONS && n == 1 && path[0] == '*') return answer(sv, c, &(http_reply){.status = 204});
    if (route < 0) {
        fault_set(&f, FAULT_URL, NULL, "There is nothing at %.*s.", n > 200 ? 200 : (int)n, path);
        return answer_fault(sv, c, &f, NULL);
    }
    if (method == HTTP_POST && routes[route].post) return post(sv, c, route, who);
    if ((method == HTTP_GET || method == HTTP_HEAD) && routes[route].get) return routes[route].get(sv, c);
    if (method == HTTP_DELETE && routes[route].delete) return routes[route].delete(sv, c, who);
    refuse_method(sv, c, route);
}
