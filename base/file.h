/* base/file.h: files read whole or mapped, with a ceiling and a sentence when it does not work. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

typedef struct {
    const char *data; /* read-only; NULL where size is 0 */
    size_t      size;
} file_map;

int  file_map_open(file_map *m, const char *path, error *err); /* regular files only */
void file_map_close(file_map *m);

int  file_read(buf *out, const char *path, error *err); /* appends; ERR_TOO_LARGE over the buf's limit */
bool file_exists(const char *path);
