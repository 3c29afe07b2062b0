/* bench/lines.h: a text file line by line, plain or gzip, with a ceiling on the length of a line.
 *
 * What begins with gzip's two magic bytes is read through `gzip -dc`, started without a shell and fed the open file, so
 * that no name is ever interpreted and no library is needed for something every Debian has. */
#pragma once
#include <stddef.h>

#include "base/error.h"

enum { LINE_BYTES_MAX = 32 << 20 };

typedef struct lines lines;

int    lines_open(lines **out, const char *path, error *err);
lines *lines_open_memory(const char *text, size_t n); /* text outlives it */
/* The next line without its end, NUL-terminated, valid until the next call; *line is NULL after the last. */
int    lines_next(lines *l, const char **line, size_t *n, error *err);
size_t lines_number(const lines *l);      /* of the line that was returned last; the first is 1 */
int    lines_close(lines *l, error *err); /* says if gzip found the file damaged */
