#include "server/acceptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "server/socket.h"

enum {
    BACKLOG = 1024,
    AGAIN_MS = 100,
    TURN_MAX = 64, /* connections from one socket before others have their turn */
};

static void on_readable(uv_poll_t *poll, int status, int events);

static void listen_again(acceptor *a) {
    for (uint32_t i = 0; i < a->count; i++)
        if (a->sockets[i].fd >= 0) uv_poll_start(&a->sockets[i].poll, UV_READABLE, on_readable);
}

static void on_again(uv_timer_t *timer) { listen_again(timer->data); }

static void leave_alone(acceptor *a, int why) {
    a->failures++;
    if (!a->failing)
        log_warn("server", "no connection can be accepted: %s; they wait, and it is tried again every %d ms", strerror(why),
                 AGAIN_MS);
    a->failing = true;
    for (uint32_t i = 0; i < a->count; i++)
        if (a->sockets[i].fd >= 0) uv_poll_stop(&a->sockets[i].poll);
    uv_timer_start(&a->again, on_again, AGAIN_MS, 0);
}

/* The connection ended before it was taken, or a signal came: the next one may be well. */
static bool passes(int why) { return why == EINTR || why == ECONNABORTED || why == EPROTO; }

static void on_readable(uv_poll_t *poll, int status, int events) {
    listening *s = poll->data;
    acceptor  *a = s->owner;
    (void)events;
    if (status < 0) return leave_alone(a, -status);
    for (uint32_t i = 0; i < TURN_MAX && s->fd >= 0; i++) {
        const int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (a->failing) log_info("server", "connections are accepted again");
            a->failing = false;
            a->take(a->owner, fd, s->role, s->is_path);
        } else if (!passes(errno)) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) leave_alone(a, errno);
            return;
        }
    }
}

void acceptor_begin(acceptor *a, uv_loop_t *loop) {
    a->loop = loop;
    uv_timer_init(loop, &a->again);
    a->again.data = a;
}

int acceptor_adopt(acceptor *a, conn_role role, int fd, error *err) {
    bool is_path;
    int  code = socket_inspect(fd, &is_path, err);
    if (code != OK) return code;
    if (a->count == ACCEPTOR_SOCKETS_MAX)
        return error_set(err, ERR_TOO_LARGE, "at most %d sockets can be listened on", ACCEPTOR_SOCKETS_MAX);
    listening *s = &a->sockets[a->count];
    *s = (listening){.owner = a, .fd = fd, .role = role, .is_path = is_path};
    int failed = listen(fd, BACKLOG) == 0 ? uv_poll_init(a->loop, &s->poll, fd) : -errno;
    if (failed == 0) {
        s->poll.data = s;
        a->count++;
        uv_poll_start(&s->poll, UV_READABLE, on_readable);
        return OK;
    }
    char url[256];
    socket_url(fd, url, sizeof url);
    return error_set(err, ERR_ADDRESS, "cannot listen on %s: %s", url, uv_strerror(failed));
}

int acceptor_bind(acceptor *a, conn_role role, const char *host, uint32_t port, error *err) {
    int fd, code = socket_bind(&fd, host, port, role == ROLE_ADMIN ? 0600 : 0666, err);
    if (code != OK) return code;
    if ((code = acceptor_adopt(a, role, fd, err)) != OK) return close(fd), code;
    listening *s = &a->sockets[a->count - 1];
    if (s->is_path) s->made_path = strdup(host + strlen("unix:"));
    return OK;
}

static void close_socket(listening *s) {
    if (s->fd < 0) return;
    if (s->made_path) unlink(s->made_path), free(s->made_path);
    uv_close((uv_handle_t *)&s->poll, NULL); /* is not looked at any more, so that fd may go */
    close(s->fd);
    s->fd = -1;
}

void acceptor_close(acceptor *a, conn_role role) {
    for (uint32_t i = 0; i < a->count; i++)
        if (a->sockets[i].role == role) close_socket(&a->sockets[i]);
}

void acceptor_end(acceptor *a) {
    for (uint32_t i = 0; i < a->count; i++) close_socket(&a->sockets[i]);
    if (!uv_is_closing((uv_handle_t *)&a->again)) uv_close((uv_handle_t *)&a->again, NULL);
}

void acceptor_url(const acceptor *a, char *out, size_t size) {
    out[0] = 0;
    for (uint32_t i = 0; i < a->count && !out[0]; i++)
        if (a->sockets[i].role == ROLE_PUBLIC && a->sockets[i].fd >= 0) socket_url(a->sockets[i].fd, out, size);
}

bool acceptor_is_local(const acceptor *a) {
    for (uint32_t i = 0; i < a->count; i++)
        if (a->sockets[i].fd >= 0 && !socket_is_local(a->sockets[i].fd)) return false;
    return true;
}
