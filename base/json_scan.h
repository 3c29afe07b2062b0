/* base/json_scan.h: one quick look over JSON text before json_tree reads it: every byte is judged here, by itself and by
 * what it stands in. Ordinary text in strings, which is most of a request, is passed over eight bytes at a time. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* OK, or ERR_INVALID: not UTF-8, a NUL or control character where none may be, \u0000, a number that is not JSON's, nested
 * deeper than depth_max. The rest of the grammar is json_tree's to check. */
int json_scan_text(const char *text, size_t n, unsigned depth_max, error *err);
