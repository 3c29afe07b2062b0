#include "server/socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char unix_prefix[] = "unix:";

typedef union {
    struct sockaddr         any;
    struct sockaddr_un      path;
    struct sockaddr_in6     v6;
    struct sockaddr_in      v4;
    struct sockaddr_storage room;
} address;

/* ---- paths ---- */
/* A socket that nobody answers on is what a process left that was killed. */
static int clear_path(const char *path, const address *a, error *err) {
    struct stat facts;
    if (lstat(path, &facts) != 0) return OK;
    if (!S_ISSOCK(facts.st_mode)) return error_set(err, ERR_ADDRESS, "%s is there already and is not a socket", path);
    int  probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool dead = probe >= 0 && connect(probe, &a->any, sizeof a->path) != 0 && errno == ECONNREFUSED;
    if (probe >= 0) close(probe);
    if (!dead) return error_set(err, ERR_ADDRESS, "%s is in use by another process", path);
    unlink(path);
    return OK;
}

static int bind_path(int *out, const char *path, unsigned mode, error *err) {
    address a = {.path.sun_family = AF_UNIX};
    size_t  n = strlen(path);
    if (n == 0 || n > SOCKET_PATH_MAX)
        return error_set(err, ERR_USAGE, "the path of a socket has 1 to %d bytes, not %zu", SOCKET_PATH_MAX, n);
    memcpy(a.path.sun_path, path, n);
    int code = clear_path(path, &a, err);
    if (code != OK) return code;
    int    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0777 & ~mode); /* so that it never has others' permissions, not even for a moment */
    bool   bound = fd >= 0 && bind(fd, &a.any, sizeof a.path) == 0;
    int    why = errno;
    umask(before);
    if (bound) return *out = fd, OK; // cppcheck-suppress resourceLeak
    if (fd >= 0) close(fd);
    return error_set(err, ERR_ADDRESS, "cannot listen on %s: %s", path, strerror(why));
}

/* ---- addresses ---- */
static int bind_address(int *out, const char *host, uint32_t port, error *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    char            service[16];
    int             on = 1;
    snprintf(service, sizeof service, "%u", port);
    int code = getaddrinfo(host, service, &hints, &found);
    if (code != 0) return error_set(err, ERR_ADDRESS, "the address '%s' cannot be used: %s", host, gai_strerror(code));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* past the connections of an earlier life */
    bool bound = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0;
    int  why = errno;
    freeaddrinfo(found);
    if (bound) return *out = fd, OK; // cppcheck-suppress resourceLeak
    if (fd >= 0) close(fd);
    return error_set(err, ERR_ADDRESS, "cannot listen on %s port %u: %s; choose another with --host or --port", host, port,
                     strerror(why));
}

int socket_bind(int *fd, const char *host, uint32_t port, unsigned mode, error *err) {
    if (strncmp(host, unix_prefix, sizeof unix_prefix - 1) == 0)
        return bind_path(fd, host + sizeof unix_prefix - 1, mode, err);
    return bind_address(fd, host, port, err);
}

/* ---- what a socket is ---- */
static bool read_name(int fd, address *a, bool of_peer) {
    socklen_t size = sizeof *a;
    memset(a, 0, sizeof *a);
    return (of_peer ? getpeername(fd, &a->any, &size) : getsockname(fd, &a->any, &size)) == 0;
}

int socket_inspect(int fd, bool *is_path, error *err) {
    address   a;
    int       type = 0;
    socklen_t size = sizeof type;
    if (!read_name(fd, &a, false) || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
        return error_set(err, ERR_IO, "descriptor %d is not a socket: %s", fd, strerror(errno));
    sa_family_t family = a.any.sa_family;
    if (type != SOCK_STREAM || (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
        return error_set(err, ERR_UNSUPPORTED, "descriptor %d is not a stream socket of TCP or of a path", fd);
    *is_path = family == AF_UNIX;
    return OK;
}

void socket_url(int fd, char *out, size_t size) {
    address   a;
    char      host[128] = "", port[16] = "";
    socklen_t n = sizeof a.v6;
    snprintf(out, size, "%s", "");
    if (!read_name(fd, &a, false)) return;
    if (a.any.sa_family == AF_UNIX) {
        snprintf(out, size, "%s%s", unix_prefix, a.path.sun_path);
        return;
    }
    if (getnameinfo(&a.any, n, host, sizeof host, port, sizeof port, NI_NUMERICSERV | NI_NUMERICHOST) != 0) return;
    bool v6 = a.any.sa_family == AF_INET6;
    snprintf(out, size, "http://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

bool socket_is_local(int fd) {
    address a;
    if (!read_name(fd, &a, false)) return false;
    if (a.any.sa_family == AF_INET) return ntohl(a.v4.sin_addr.s_addr) >> 24 == 127;
    if (a.any.sa_family != AF_INET6) return a.any.sa_family == AF_UNIX;
    const struct in6_addr *ip = &a.v6.sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(ip) || (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 127);
}

uint64_t socket_peer_key(int fd) {
    static const uint64_t v4_mark = 0xFFFFull << 32; /* where a mapped address has it */
    address               a;
    uint64_t              key = 0;
    if (!read_name(fd, &a, true)) return 0;
    if (a.any.sa_family == AF_INET) return v4_mark | ntohl(a.v4.sin_addr.s_addr);
    if (a.any.sa_family != AF_INET6) return 0;
    const uint8_t *bytes = a.v6.sin6_addr.s6_addr;
    for (int i = IN6_IS_ADDR_V4MAPPED(&a.v6.sin6_addr) ? 8 : 0, end = i + 8; i < end; i++) key = key << 8 | bytes[i];
    return key ? key : 1; /* ::1 and its like */
}
