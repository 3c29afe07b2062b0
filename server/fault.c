#include "server/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

static const struct {
    int         status;
    const char *type, *code; /* code NULL: null */
    bool        retry;
} rows[FAULT_COUNT] = {
    [FAULT_NONE] = {500, "server_error", NULL, false},
    [FAULT_BODY] = {400, "invalid_request_error", NULL, false},
    [FAULT_INVALID] = {400, "invalid_request_error", "invalid_value", false},
    [FAULT_RULE] = {400, "invalid_request_error", NULL, false},
    [FAULT_UNKNOWN] = {400, "invalid_request_error", "unknown_parameter", false},
    [FAULT_MISSING] = {400, "invalid_request_error", "missing_required_parameter", false},
    [FAULT_TYPE] = {400, "invalid_request_error", "invalid_type", false},
    [FAULT_INT_ABOVE] = {400, "invalid_request_error", "integer_above_max_value", false},
    [FAULT_INT_BELOW] = {400, "invalid_request_error", "integer_below_min_value", false},
    [FAULT_NUMBER_ABOVE] = {400, "invalid_request_error", "decimal_above_max_value", false},
    [FAULT_NUMBER_BELOW] = {400, "invalid_request_error", "decimal_below_min_value", false},
    [FAULT_STRING_LONG] = {400, "invalid_request_error", "string_above_max_length", false},
    [FAULT_ARRAY_LONG] = {400, "invalid_request_error", "array_above_max_length", false},
    [FAULT_ARRAY_SHORT] = {400, "invalid_request_error", "array_below_min_length", false},
    [FAULT_UNSUPPORTED] = {400, "invalid_request_error", "unsupported_parameter", false},
    [FAULT_CONTEXT] = {400, "invalid_request_error", "context_length_exceeded", false},
    [FAULT_MODEL] = {404, "invalid_request_error", "model_not_found", false},
    [FAULT_KEY] = {401, "invalid_request_error", "invalid_api_key", false},
    [FAULT_LIMIT] = {429, "rate_limit_error", "rate_limit_exceeded", true},
    [FAULT_URL] = {404, "invalid_request_error", "unknown_url", false},
    [FAULT_METHOD] = {405, "invalid_request_error", NULL, false},
    [FAULT_MEDIA] = {415, "invalid_request_error", NULL, false},
    [FAULT_OVERLOADED] = {503, "server_error", "overloaded", true},
    [FAULT_DEADLINE] = {504, "server_error", "deadline_exceeded", false},
    [FAULT_DRAINING] = {503, "server_error", "draining", true},
    [FAULT_LOADING] = {503, "server_error", "loading", true},
    [FAULT_INTERNAL] = {500, "server_error", NULL, false},
    [FAULT_DEVICE] = {503, "server_error", "device_failed", true},
};

int fault_set(fault *f, fault_kind kind, const char *param, const char *format, ...) {
    va_list args;
    *f = (fault){.kind = kind};
    snprintf(f->param, sizeof f->param, "%s", param ? param : "");
    va_start(args, format);
    vsnprintf(f->message, sizeof f->message, format, args);
    va_end(args);
    utf8_sanitize(f->message); /* a name cut in the middle of a character */
    utf8_sanitize(f->param);
    return -1;
}

int         fault_status(const fault *f) { return rows[f->kind].status; }
const char *fault_code(const fault *f) { return rows[f->kind].code; }
bool        fault_retry(const fault *f) { return rows[f->kind].retry; }

static void string_or_null(buf *out, const char *s) {
    if (s && *s) json_quote(out, s, strlen(s));
    else buf_str(out, "null");
}

void fault_write(const fault *f, buf *out) {
    buf_str(out, "{\"error\":{\"message\":");
    json_quote(out, f->message, strlen(f->message));
    buf_str(out, ",\"type\":");
    string_or_null(out, rows[f->kind].type);
    buf_str(out, ",\"param\":");
    string_or_null(out, f->param);
    buf_str(out, ",\"code\":");
    string_or_null(out, rows[f->kind].code);
    buf_str(out, "}}");
}
