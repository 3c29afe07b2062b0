/* base/buf.h: a growable byte string with a ceiling.
 *
 * Everything that is built from outside input (JSON answers, rendered prompts, detokenized text) goes through one of
 * these, so that no input can make the process grow without bound. A buf that reached its ceiling stays as it is and
 * remembers: append as often as you like, test `buf_overflowed` once at the end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    char  *data; /* always NUL-terminated once anything was appended; owned */
    size_t size, capacity, limit;
    bool   overflowed;
} buf;

void               buf_init(buf *b, size_t limit); /* limit in bytes; nothing is allocated yet */
void               buf_free(buf *b);               /* may be called again */
void               buf_clear(buf *b);              /* keeps the memory, forgets overflow */
void               buf_append(buf *b, const void *bytes, size_t n);
static inline void buf_str(buf *b, const char *s) { buf_append(b, s, strlen(s)); } /* of a literal the length is known */
void               buf_char(buf *b, char c);
void               buf_u64(buf *b, uint64_t value); /* in decimal, without printf */
void               buf_printf(buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool buf_overflowed(const buf *b) { return b->overflowed; }
