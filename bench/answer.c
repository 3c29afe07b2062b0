#include "bench/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/utf8.h"

enum { EVENT_DEPTH_MAX = 16 };

void answer_fail(answer *a, const char *format, ...) {
    va_list args;
    if (a->trouble[0]) return;
    va_start(args, format);
    vsnprintf(a->trouble, sizeof a->trouble, format, args);
    va_end(args);
    utf8_sanitize(a->trouble);
}

/* ---- chunks ---- */

static bool read_ids(answer *a, const cJSON *choice) {
    const cJSON *ids = json_get(choice, "token_ids"), *item;
    if (!cJSON_IsArray(ids) || !ids->child) return false;
    if (!a->keep_ids) return true;
    cJSON_ArrayForEach(item, ids) {
        int64_t id;
        if (!json_whole_number(item, &id) || id < 0 || id > UINT32_MAX || a->ids.count == ANSWER_IDS_MAX) break;
        token_list_reserve(&a->ids, a->ids.count + 1);
        a->ids.ids[a->ids.count++] = (uint32_t)id;
    }
    return true;
}

static void take_content(answer *a) {
    int64_t gap_ns = a->chunks++ ? (int64_t)(a->now_ns - a->last_content_ns) : -1;
    if (a->chunks == 1) a->first_ns = a->now_ns;
    if (gap_ns > (int64_t)a->gap_max_ns) a->gap_max_ns = (uint64_t)gap_ns;
    a->last_content_ns = a->now_ns;
    if (a->chunk) a->chunk(a->owner, a->now_ns, gap_ns);
}

static void take_choice(answer *a, const cJSON *choice) {
    const cJSON *text = json_get(choice, "text"), *reason = json_get(choice, "finish_reason");
    bool         has_ids = read_ids(a, choice);
    a->last_choice_ns = a->now_ns;
    if (has_ids || (cJSON_IsString(text) && text->valuestring[0])) take_content(a);
    if (cJSON_IsString(reason)) a->finished = true;
}

static void take_usage(answer *a, const cJSON *usage) {
    const int64_t most = 1ll << 40;
    json_read_i64(usage, "prompt_tokens", 0, most, &a->prompt_tokens, NULL);
    json_read_i64(usage, "completion_tokens", 0, most, &a->output_tokens, NULL);
    json_read_i64(json_get(usage, "prompt_tokens_details"), "cached_tokens", 0, most, &a->cached_tokens, NULL);
}

static void take_error(answer *a, const cJSON *fault, const char *where) {
    const cJSON *message = cJSON_IsObject(fault) ? json_get(fault, "message") : fault;
    answer_fail(a, "%s: %.120s", where, cJSON_IsString(message) ? message->valuestring : "(no message)");
}

static void on_event(void *owner, const char *data, size_t n) {
    answer *a = owner;
    error   err = {0};
    if (n == 6 && memcmp(data, "[DONE]", 6) == 0) return;
    cJSON *event = json_parse(data, n, EVENT_DEPTH_MAX, &err);
    if (!event) {
        answer_fail(a, "an event is not JSON: %s", err.text);
        return;
    }
    const cJSON *fault = json_get(event, "error"), *usage = json_get(event, "usage");
    const cJSON *choice = cJSON_GetArrayItem(json_get(event, "choices"), 0);
    if (fault && !cJSON_IsNull(fault)) take_error(a, fault, "an error in the stream");
    if (choice) take_choice(a, choice);
    if (cJSON_IsObject(usage)) take_usage(a, usage);
    cJSON_Delete(event);
}

/* ---- HTTP ---- */

/* Only one header matters, and its value is unlike any other's: no name is kept. A value may come in pieces. */
static int on_header_value(llhttp_t *http, const char *at, size_t n) {
    answer *a = http->data;
    for (size_t i = 0; i < n && a->value_bytes + 1 < sizeof a->value; i++) a->value[a->value_bytes++] = at[i];
    return 0;
}

static int on_header_end(llhttp_t *http) {
    answer *a = http->data;
    if (strncasecmp(a->value, "text/event-stream", 17) == 0) a->is_events = true;
    memset(a->value, 0, sizeof a->value), a->value_bytes = 0;
    return 0;
}

static int on_head(llhttp_t *http) {
    answer *a = http->data;
    a->status = http->status_code;
    if (a->kind == ANSWER_STREAM && a->status == 200 && !a->is_events)
        answer_fail(a, "the answer is not a stream of events");
    buf_init(&a->body, a->status == 200 ? ANSWER_PAGE_BYTES_MAX : ANSWER_ERROR_BYTES_MAX);
    return 0;
}

static int on_body(llhttp_t *http, const char *at, size_t n) {
    answer *a = http->data;
    if (a->kind == ANSWER_STREAM && a->status == 200 && a->is_events) {
        if (!sse_feed(&a->events, at, n)) answer_fail(a, "an event is longer than %d MiB", SSE_EVENT_BYTES_MAX >> 20);
    } else {
        buf_append(&a->body, at, n);
        if (buf_overflowed(&a->body) && a->status == 200)
            answer_fail(a, "the page is longer than %d MiB", ANSWER_PAGE_BYTES_MAX >> 20);
    }
    return a->trouble[0] && a->status == 200 ? HPE_USER : 0;
}

static void judge_status(answer *a) {
    cJSON *body = json_parse(a->body.data ? a->body.data : "", a->body.size, EVENT_DEPTH_MAX, NULL);
    char   where[32];
    snprintf(where, sizeof where, "HTTP %d", a->status);
    if (json_get(body, "error")) take_error(a, json_get(body, "error"), where);
    else answer_fail(a, "%s", where);
    cJSON_Delete(body);
}

static int on_complete(llhttp_t *http) {
    answer *a = http->data;
    a->complete = true;
    if (a->status != 200) judge_status(a);
    else if (a->kind == ANSWER_STREAM && !a->finished) answer_fail(a, "the stream ended without a finish_reason");
    return HPE_PAUSED; /* nothing after it is ours */
}

static const llhttp_settings_t *settings(void) {
    static llhttp_settings_t s;
    if (!s.on_body) {
        llhttp_settings_init(&s);
        s.on_header_value = on_header_value, s.on_header_value_complete = on_header_end, s.on_headers_complete = on_head;
        s.on_message_complete = on_complete, s.on_body = on_body;
    }
    return &s;
}

void answer_init(answer *a, answer_kind kind, bool keep_ids) {
    *a = (answer){.kind = kind, .keep_ids = keep_ids, .prompt_tokens = -1, .output_tokens = -1, .cached_tokens = -1};
    llhttp_init(&a->http, HTTP_RESPONSE, settings());
    a->http.data = a;
    sse_init(&a->events, on_event, a);
    buf_init(&a->body, ANSWER_PAGE_BYTES_MAX);
}

void answer_free(answer *a) {
    sse_free(&a->events);
    buf_free(&a->body);
    token_list_free(&a->ids);
}

void answer_feed(answer *a, const char *bytes, size_t n, uint64_t now_ns) {
    if (answer_over(a)) return;
    a->now_ns = now_ns;
    llhttp_errno_t got = llhttp_execute(&a->http, bytes, n);
    if (got != HPE_OK && !a->complete) answer_fail(a, "the answer is not HTTP: %s", llhttp_errno_name(got));
}

void answer_eof(answer *a) {
    if (answer_over(a)) return;
    if (a->status) llhttp_finish(&a->http); /* the end of a body that nothing else ends */
    if (!a->complete)
        answer_fail(a, a->status ? "the connection closed in the middle of the answer"
                                 : "the connection closed before an answer");
}

bool answer_over(const answer *a) { return a->complete || a->trouble[0]; }
bool answer_good(const answer *a) { return a->complete && !a->trouble[0]; }
