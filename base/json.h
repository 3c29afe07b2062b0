/* base/json.h: JSON from strangers, checked before it is believed.
 *
 * The tree is cJSON's, the parser is not: what cJSON lets through is refused, such as bytes that are not UTF-8, nesting
 * deeper than the limit, `\u0000` (a NUL would silently cut a C string), and anything after the value; and text is copied,
 * not walked (json_tree.c). Numbers are doubles; the typed getters refuse what a double or the asked-for type cannot hold.
 */
#pragma once
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/* Parses text[0..n). NULL on failure, with the position in the sentence. Free with cJSON_Delete. */
cJSON *json_parse(const char *text, size_t n, unsigned depth_max, error *err);

/* Appends s[0..n) as a JSON string with its quotes. Control characters are escaped; bytes that are not UTF-8 become
 * U+FFFD, so the result is always valid JSON. Non-ASCII stays as it is, except that Unicode's line ends (U+0085, U+2028,
 * U+2029) are escaped too: there are readers of JSON lines that split at them. */
void json_quote(buf *out, const char *s, size_t n);

/* Member by name, exact case; NULL if absent. The LAST of duplicates wins, as in Python's json. */
const cJSON *json_get(const cJSON *object, const char *name);

/* Typed reads. `name` absent or null: *out is left alone and OK is returned. Wrong type or range: ERR_INVALID and a
 * sentence that names the member. An integer may be written as 3 or 3.0, not as 3.5. */
int json_read_bool(const cJSON *object, const char *name, bool *out, error *err);
int json_read_f64(const cJSON *object, const char *name, double min, double max, double *out, error *err);
int json_read_u32(const cJSON *object, const char *name, uint32_t min, uint32_t max, uint32_t *out, error *err);
int json_read_i64(const cJSON *object, const char *name, int64_t min, int64_t max, int64_t *out, error *err);
int json_read_string(const cJSON *object, const char *name, const char **out, error *err); /* points into object */

/* Whether a number is an integer as Python's json sees it: written without a fraction and an exponent (3.0 is not), and
 * exact in 64 bits, also where a double would round it. Numbers that were not parsed by json_parse: whole, up to 2^53. */
bool json_whole_number(const cJSON *item, int64_t *out);
