#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(const char *path, struct stat *facts, error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO, "cannot open '%s': %s", path,
                         strerror(errno));
    if (fstat(fd, facts) != 0 || !S_ISREG(facts->st_mode)) {
        close(fd);
        return error_set(err, ERR_INVALID, "'%s' is not a regular file", path);
    }
    return fd;
}

int file_map_open(file_map *m, const char *path, error *err) {
    struct stat facts;
    *m = (file_map){0};
    int fd = open_regular(path, &facts, err);
    if (fd < 0) return fd;
    int code = OK;
    m->size = (size_t)facts.st_size;
    if (m->size) {
        void *at = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED)
            code = error_set(err, ERR_IO, "cannot map '%s' (%zu bytes): %s", path, m->size, strerror(errno)), m->size = 0;
        else m->data = at;
    }
    close(fd);
    return code;
}

void file_map_close(file_map *m) {
    if (m->data) munmap((void *)m->data, m->size);
    *m = (file_map){0};
}

int file_read(buf *out, const char *path, error *err) {
    struct stat facts;
    int         fd = open_regular(path, &facts, err);
    if (fd < 0) return fd;
    char    chunk[64 << 10];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0) buf_append(out, chunk, (size_t)n);
    int code = OK;
    if (n < 0) code = error_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    if (buf_overflowed(out)) code = error_set(err, ERR_TOO_LARGE, "'%s' is larger than %zu bytes", path, out->limit);
    close(fd);
    return code;
}

bool file_exists(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0;
}
