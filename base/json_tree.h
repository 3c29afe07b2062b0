/* base/json_tree.h: from JSON text that json_scan has let through to cJSON's tree. */
#pragma once
#include <cjson/cJSON.h>
#include <stddef.h>

/* cJSON keeps a number as a double and forgets how it was written. What the double cannot say is noted in the item: this bit
 * of its type, where there is a fraction or an exponent (cJSON looks at the low eight and keeps the rest), and in
 * valuestring the digits of an integer of more than 15 bytes. */
enum { JSON_WRITTEN_AS_REAL = 1 << 16 };

/* The value that text[0..n) begins with; *at: behind it and the space that follows. NULL: it is malformed, at *at. Free with
 * cJSON_Delete. */
cJSON *json_tree(const char *text, size_t n, size_t *at);
