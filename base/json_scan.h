/* base/json_scan.h: one quick look over JSON text before cJSON reads it: what cJSON lets through is refused here, and what
 * it forgets is noted. Ordinary text in strings, which is most of a request, is passed over eight bytes at a time. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A number whose way of being written says more than a double does: with a fraction or an exponent, or longer than 15
 * bytes. */
typedef struct {
    size_t   at;      /* in the text */
    uint32_t size;    /* bytes */
    uint32_t ordinal; /* among all numbers of the text, from 0 */
} json_number;

typedef struct {
    json_number *numbers; /* owned by the caller: free() */
    uint32_t     number_count, number_capacity;
} json_scan;

/* OK, or ERR_INVALID: not UTF-8, a NUL or control character where none may be, \u0000, a number that is not JSON's, nested
 * deeper than depth_max. The rest of the grammar is cJSON's to check. */
int json_scan_text(json_scan *out, const char *text, size_t n, unsigned depth_max, error *err);
