/* base/utf8.h: UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the code point at s[0..n). Returns its length 1..4 and sets *cp. Returns 0 if n is 0; returns -k where
 * the first k bytes (1..3) are not a well-formed sequence and are to be replaced by one U+FFFD (the Unicode
 * "maximal subpart" practice). */
int utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Writes cp (a scalar value) to out[0..4); returns the length 1..4. */
int utf8_encode(uint32_t cp, char *out);

bool utf8_valid(const char *s, size_t n);

/* How many bytes at the end of s[0..n) are the beginning of a sequence that more bytes could complete (0..3). */
size_t utf8_incomplete_tail(const char *s, size_t n);

/* Replaces each byte that is not part of a well-formed sequence by '?', in place. */
void utf8_sanitize(char *s);
