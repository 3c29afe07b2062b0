#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void buf_init(buf *b, size_t limit) { *b = (buf){.limit = limit}; }

void buf_free(buf *b) {
    free(b->data);
    *b = (buf){.limit = b->limit};
}

void buf_clear(buf *b) {
    b->size = 0, b->overflowed = false;
    if (b->data) b->data[0] = 0;
}

/* Room for n more bytes and the NUL; false where that would pass the ceiling. */
static bool buf_reserve(buf *b, size_t n) {
    if (b->overflowed || n > b->limit - b->size) return b->overflowed = true, false;
    if (b->size + n + 1 <= b->capacity) return true;
    size_t want = b->capacity ? b->capacity * 2 : 128;
    while (want < b->size + n + 1) want *= 2;
    if (want > b->limit + 1) want = b->limit + 1;
    char *grown = realloc(b->data, want);
    if (!grown) fatal("out of memory growing a buffer to %zu bytes", want);
    b->data = grown, b->capacity = want;
    return true;
}

void buf_append(buf *b, const void *bytes, size_t n) {
    if (!buf_reserve(b, n)) return;
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = 0;
}

void buf_char(buf *b, char c) { buf_append(b, &c, 1); }

void buf_u64(buf *b, uint64_t value) {
    char digits[20], *p = digits + sizeof digits;
    do *--p = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    buf_append(b, p, (size_t)(digits + sizeof digits - p));
}

void buf_printf(buf *b, const char *format, ...) {
    char    small[256];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof small) {
        buf_append(b, small, (size_t)n);
    } else if (n >= 0 && buf_reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->size, (size_t)n + 1, format, again);
        b->size += (size_t)n;
    }
    va_end(again);
}
