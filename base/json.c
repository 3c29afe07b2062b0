#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_scan.h"
#include "base/json_tree.h"
#include "base/utf8.h"

bool json_whole_number(const cJSON *item, int64_t *out) {
    if (!cJSON_IsNumber(item) || (item->type & JSON_WRITTEN_AS_REAL)) return false;
    if (item->valuestring) {
        errno = 0;
        *out = strtoll(item->valuestring, NULL, 10);
        return errno == 0;
    }
    double v = item->valuedouble;
    if (!(fabs(v) <= 9007199254740992.0) || v != floor(v)) return false;
    *out = (int64_t)v;
    return true;
}

cJSON *json_parse(const char *text, size_t n, unsigned depth_max, error *err) {
    size_t at;
    if (json_scan_text(text, n, depth_max, err) != OK) return NULL;
    cJSON *value = json_tree(text, n, &at);
    if (value && at == n) return value;
    if (value) error_set(err, ERR_INVALID, "there is text after the JSON value at offset %zu", at);
    else error_set(err, ERR_INVALID, "the JSON is malformed near offset %zu of %zu", at, n);
    cJSON_Delete(value);
    return NULL;
}

void json_quote(buf *out, const char *s, size_t n) {
    static const char escapes[32] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    buf_char(out, '"');
    for (size_t i = 0; i < n;) {
        size_t run = i;
        while (run < n && (unsigned char)s[run] >= 0x20 && (unsigned char)s[run] < 0x80 && s[run] != '"' && s[run] != '\\')
            run++;
        if (run > i) buf_append(out, s + i, run - i);
        if ((i = run) == n) break;
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            buf_char(out, '\\'), buf_char(out, (char)c), i++;
        } else if (c < 0x20) {
            if (escapes[c]) buf_char(out, '\\'), buf_char(out, escapes[c]);
            else buf_printf(out, "\\u%04x", c);
            i++;
        } else {
            uint32_t cp;
            int      len = utf8_decode(s + i, n - i, &cp);
            if (len > 0 && (cp == 0x85 || cp == 0x2028 || cp == 0x2029)) buf_printf(out, "\\u%04x", cp), i += (size_t)len;
            else if (len > 0) buf_append(out, s + i, (size_t)len), i += (size_t)len;
            else buf_append(out, "\xEF\xBF\xBD", 3), i += (size_t)-len;
        }
    }
    buf_char(out, '"');
}

const cJSON *json_get(const cJSON *object, const char *name) {
    const cJSON *found = NULL;
    if (!cJSON_IsObject(object)) return NULL;
    for (const cJSON *item = object->child; item; item = item->next)
        if (item->string && strcmp(item->string, name) == 0) found = item;
    return found;
}

/* The member, or NULL where it is absent or null. */
static const cJSON *present(const cJSON *object, const char *name) {
    const cJSON *item = json_get(object, name);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

int json_read_bool(const cJSON *object, const char *name, bool *out, error *err) {
    const cJSON *item = present(object, name);
    if (!item) return OK;
    if (!cJSON_IsBool(item)) return error_set(err, ERR_INVALID, "'%s' must be true or false", name);
    *out = cJSON_IsTrue(item);
    return OK;
}

int json_read_f64(const cJSON *object, const char *name, double min, double max, double *out, error *err) {
    const cJSON *item = present(object, name);
    if (!item) return OK;
    if (!cJSON_IsNumber(item)) return error_set(err, ERR_INVALID, "'%s' must be a number", name);
    double v = item->valuedouble;
    if (!(v >= min && v <= max))
        return error_set(err, ERR_INVALID, "'%s' must be between %g and %g, not %g", name, min, max, v);
    *out = v;
    return OK;
}

int json_read_i64(const cJSON *object, const char *name, int64_t min, int64_t max, int64_t *out, error *err) {
    const cJSON *item = present(object, name);
    if (!item) return OK;
    if (!cJSON_IsNumber(item)) return error_set(err, ERR_INVALID, "'%s' must be an integer", name);
    double v = item->valuedouble;
    if (!(fabs(v) <= 9007199254740992.0) || v != floor(v))
        return error_set(err, ERR_INVALID, "'%s' must be an integer, not %g", name, v);
    if ((int64_t)v < min || (int64_t)v > max)
        return error_set(err, ERR_INVALID, "'%s' must be between %lld and %lld, not %lld", name, (long long)min,
                         (long long)max, (long long)v);
    *out = (int64_t)v;
    return OK;
}

int json_read_u32(const cJSON *object, const char *name, uint32_t min, uint32_t max, uint32_t *out, error *err) {
    int64_t v = *out;
    int     code = json_read_i64(object, name, min, max, &v, err);
    if (code == OK) *out = (uint32_t)v;
    return code;
}

int json_read_string(const cJSON *object, const char *name, const char **out, error *err) {
    const cJSON *item = present(object, name);
    if (!item) return OK;
    if (!cJSON_IsString(item)) return error_set(err, ERR_INVALID, "'%s' must be a string", name);
    *out = item->valuestring;
    return OK;
}
