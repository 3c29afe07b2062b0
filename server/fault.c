#include "server/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

const fault_row fault_rows[FAULT_COUNT] = {
    [FAULT_NONE] = {500, "server_error", NULL, false, ""},
    [FAULT_BODY] = {400, "invalid_request_error", NULL, false,
                    "the body is no JSON object, is too deep or too large a tree, or holds a name twice in one object"},
    [FAULT_INVALID] = {400, "invalid_request_error", "invalid_value", false, "a value that cannot be"},
    [FAULT_RULE] = {400, "invalid_request_error", NULL, false,
                    "parameters that do not go together (`stream_options` without `stream`), or a form that is not offered "
                    "(`response_format`)"},
    [FAULT_UNKNOWN] = {400, "invalid_request_error", "unknown_parameter", false,
                       "a parameter that nobody knows, where `strict-params` is set"},
    [FAULT_MISSING] = {400, "invalid_request_error", "missing_required_parameter", false,
                       "a parameter that is needed is not there"},
    [FAULT_TYPE] = {400, "invalid_request_error", "invalid_type", false, "a value of the wrong type"},
    [FAULT_INT_ABOVE] = {400, "invalid_request_error", "integer_above_max_value", false, "a whole number above its range"},
    [FAULT_INT_BELOW] = {400, "invalid_request_error", "integer_below_min_value", false, "below it"},
    [FAULT_NUMBER_ABOVE] = {400, "invalid_request_error", "decimal_above_max_value", false, "a number above its range"},
    [FAULT_NUMBER_BELOW] = {400, "invalid_request_error", "decimal_below_min_value", false, "below it"},
    [FAULT_STRING_LONG] = {400, "invalid_request_error", "string_above_max_length", false, "a text that is too long"},
    [FAULT_ARRAY_LONG] = {400, "invalid_request_error", "array_above_max_length", false, "a list that is too long"},
    [FAULT_ARRAY_SHORT] = {400, "invalid_request_error", "array_below_min_length", false, "or too short"},
    [FAULT_UNSUPPORTED] = {400, "invalid_request_error", "unsupported_parameter", false,
                           "a parameter or form that this server refuses"},
    [FAULT_CONTEXT] = {400, "invalid_request_error", "context_length_exceeded", false,
                       "the prompt, or prompt and answer, are longer than the context; `param` is `messages` or `prompt`"},
    [FAULT_MODEL] = {404, "invalid_request_error", "model_not_found", false, "another model than the one served"},
    [FAULT_KEY] = {401, "invalid_request_error", "invalid_api_key", false,
                   "no API key, or not one of the file's; with `WWW-Authenticate: Bearer`"},
    [FAULT_LIMIT] = {429, "rate_limit_error", "rate_limit_exceeded", true,
                     "the key's limit of requests at once or tokens per minute"},
    [FAULT_URL] = {404, "invalid_request_error", "unknown_url", false, "nothing is at this path"},
    [FAULT_METHOD] = {405, "invalid_request_error", NULL, false, "another method; `Allow` names those that are answered"},
    [FAULT_MEDIA] = {415, "invalid_request_error", NULL, false, "a body that says it is not JSON; saying nothing is fine"},
    [FAULT_OVERLOADED] = {503, "server_error", "overloaded", true, "the queue is full: nothing was begun"},
    [FAULT_DEADLINE] = {504, "server_error", "deadline_exceeded", false,
                        "`slo.deadline_ms` passed before the answer was complete; of a stream it is the last event"},
    [FAULT_DRAINING] = {503, "server_error", "draining", true, "the server is shutting down"},
    [FAULT_PAUSED] = {503, "server_error", "paused", true, "the operator has new requests turned away for a while"},
    [FAULT_ABORTED] = {503, "server_error", "aborted", false, "the operator ended this request"},
    [FAULT_LOADING] = {503, "server_error", "loading", true, "the model is still being loaded"},
    [FAULT_INTERNAL] = {500, "server_error", NULL, false, "a fault of the server; trying again would not help"},
    [FAULT_DEVICE] = {503, "server_error", "device_failed", true,
                      "the device failed; the server ends, and is started again where something does that"},
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

int         fault_status(const fault *f) { return fault_rows[f->kind].status; }
const char *fault_code(const fault *f) { return fault_rows[f->kind].code; }
bool        fault_retry(const fault *f) { return fault_rows[f->kind].retry; }

static void string_or_null(buf *out, const char *s) {
    if (s && *s) json_quote(out, s, strlen(s));
    else buf_str(out, "null");
}

void fault_write(const fault *f, buf *out) {
    buf_str(out, "{\"error\":{\"message\":");
    json_quote(out, f->message, strlen(f->message));
    buf_str(out, ",\"type\":");
    string_or_null(out, fault_rows[f->kind].type);
    buf_str(out, ",\"param\":");
    string_or_null(out, f->param);
    buf_str(out, ",\"code\":");
    string_or_null(out, fault_rows[f->kind].code);
    buf_str(out, "}}");
}
