#include "bench/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"

extern char **environ;

enum { BLOCK_BYTES = 64 << 10 };

struct lines {
    int         fd; /* -1: memory */
    pid_t       gzip;
    const char *memory;
    size_t      memory_size;
    buf         line;
    size_t      number, at, end;
    bool        ended;
    char        block[BLOCK_BYTES];
};

static lines *lines_new(void) {
    lines *l = calloc(1, sizeof *l);
    if (!l) fatal("out of memory for a file");
    l->fd = -1;
    buf_init(&l->line, LINE_BYTES_MAX);
    return l;
}

lines *lines_open_memory(const char *text, size_t n) {
    lines *l = lines_new();
    l->memory = text, l->memory_size = n;
    return l;
}

/* Puts `gzip -dc` between the open file and l->fd. */
static int start_gzip(lines *l, const char *path, error *err) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return error_set(err, ERR_IO, "no pipe could be made for gzip: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, l->fd, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0); /* lines_close says it, with the file's name */
    char *argv[] = {(char *)"gzip", (char *)"-dc", NULL};
    int   failed = posix_spawnp(&l->gzip, "gzip", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(l->fd), close(ends[1]);
    l->fd = ends[0];
    if (!failed) return OK;
    l->gzip = 0;
    return error_set(err, ERR_IO, "%s is compressed, and gzip could not be started: %s", path, strerror(failed));
}

int lines_open(lines **out, const char *path, error *err) {
    lines *l = lines_new();
    *out = NULL;
    l->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0) {
        int code = error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot read %s: %s", path, strerror(errno));
        return lines_close(l, NULL), code;
    }
    unsigned char magic[2];
    if (pread(l->fd, magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b && start_gzip(l, path, err) != OK)
        return lines_close(l, NULL), err ? err->code : ERR_IO;
    *out = l;
    return OK;
}

static int fill(lines *l, error *err) {
    ssize_t n;
    if (l->fd < 0) {
        n = (ssize_t)(l->memory_size < BLOCK_BYTES ? l->memory_size : BLOCK_BYTES);
        if (n) memcpy(l->block, l->memory, (size_t)n);
        l->memory += n, l->memory_size -= (size_t)n;
    } else {
        do n = read(l->fd, l->block, BLOCK_BYTES);
        while (n < 0 && errno == EINTR);
        if (n < 0) return error_set(err, ERR_IO, "reading failed after line %zu: %s", l->number, strerror(errno));
    }
    l->at = 0, l->end = (size_t)n, l->ended = n == 0;
    return OK;
}

int lines_next(lines *l, const char **line, size_t *n, error *err) {
    bool complete = false, any = false;
    *line = NULL, *n = 0;
    buf_clear(&l->line);
    while (!complete && !l->ended) {
        if (l->at == l->end) {
            if (fill(l, err) != OK) return ERR_IO;
            continue;
        }
        const char *from = l->block + l->at, *newline = memchr(from, '\n', l->end - l->at);
        size_t      part = newline ? (size_t)(newline - from) : l->end - l->at;
        buf_append(&l->line, from, part);
        l->at += part + (newline != NULL);
        complete = newline != NULL, any = true;
    }
    if (!any) return OK;
    l->number++;
    if (buf_overflowed(&l->line))
        return error_set(err, ERR_TOO_LARGE, "line %zu is longer than %d MiB", l->number, LINE_BYTES_MAX >> 20);
    if (l->line.size && l->line.data[l->line.size - 1] == '\r') l->line.data[--l->line.size] = 0;
    *line = l->line.data ? l->line.data : "", *n = l->line.size;
    return OK;
}

size_t lines_number(const lines *l) { return l->number; }

int lines_close(lines *l, error *err) {
    if (!l) return OK;
    int  code = OK, status = 0;
    bool read_whole = l->ended;
    if (l->fd >= 0) close(l->fd);
    if (l->gzip > 0 && waitpid(l->gzip, &status, 0) == l->gzip && read_whole && status != 0)
        code = error_set(err, ERR_INVALID, "gzip found the file damaged after line %zu", l->number);
    buf_free(&l->line);
    free(l);
    return code;
}
