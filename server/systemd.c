#include "server/systemd.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTEN_FDS_START = 3, SEND_WAIT_MS = 200 };

/* A path, or a name without a file that begins with '@'. */
static socklen_t notify_address(struct sockaddr_un *out) {
    const char *name = getenv("NOTIFY_SOCKET");
    size_t      n = name ? strlen(name) : 0;
    if (n < 2 || n >= sizeof out->sun_path || (name[0] != '/' && name[0] != '@')) return 0;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, name, n);
    if (name[0] == '@') out->sun_path[0] = 0;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

void systemd_notify(const char *format, ...) {
    struct sockaddr_un address;
    socklen_t          size = notify_address(&address);
    char               text[1024];
    va_list            args;
    if (!size) return;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= (int)sizeof text) n = sizeof text - 1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || n < 0) return;
    struct timeval wait = {0, SEND_WAIT_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&address, size);
    close(fd);
}

static uint64_t number_of(const char *variable) {
    const char *text = getenv(variable);
    return text && *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : 0;
}

uint64_t systemd_watchdog_us(void) {
    const char *pid = getenv("WATCHDOG_PID");
    if (pid && number_of("WATCHDOG_PID") != (uint64_t)getpid()) return 0;
    return number_of("WATCHDOG_USEC");
}

/* The `index`th of names separated by colons. */
static void copy_name(const char *names, uint32_t index, char *out, size_t size) {
    for (; names && index; index--) names = (names = strchr(names, ':')) ? names + 1 : NULL;
    snprintf(out, size, "%.*s", names ? (int)strcspn(names, ":") : 0, names ? names : "");
}

uint32_t systemd_sockets(systemd_socket out[SYSTEMD_SOCKETS_MAX]) {
    uint64_t    count = number_of("LISTEN_PID") == (uint64_t)getpid() ? number_of("LISTEN_FDS") : 0;
    const char *names = getenv("LISTEN_FDNAMES");
    if (count > SYSTEMD_SOCKETS_MAX) count = SYSTEMD_SOCKETS_MAX;
    for (uint32_t i = 0; i < count; i++) {
        out[i].fd = LISTEN_FDS_START + (int)i;
        fcntl(out[i].fd, F_SETFD, FD_CLOEXEC);
        copy_name(names, i, out[i].name, sizeof out[i].name);
    }
    unsetenv("LISTEN_PID"), unsetenv("LISTEN_FDS"), unsetenv("LISTEN_FDNAMES");
    return (uint32_t)count;
}
