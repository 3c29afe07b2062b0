/* server/acceptor.h: the sockets that are listened on, and taking connections from them.
 *
 * Where accept fails for want of descriptors or memory the connection stays in the queue and its socket readable, so whoever
 * asks again at once spins, and libuv's own listener does so within one callback. Here every socket is left alone for a
 * moment then, and who waits in the queue is taken when there is room again: nobody is refused, and those who are in are
 * served meanwhile. */
#pragma once
#include <uv.h>

#include "base/error.h"
#include "server/http.h"

enum { ACCEPTOR_SOCKETS_MAX = 16 };

typedef struct acceptor acceptor;

typedef struct {
    uv_poll_t poll;
    acceptor *owner;
    int       fd; /* -1: closed */
    conn_role role;
    bool      is_path;
    char     *made_path; /* in the file system by us: removed when it is closed; owned */
} listening;

struct acceptor {
    uv_loop_t *loop;
    listening  sockets[ACCEPTOR_SOCKETS_MAX];
    uint32_t   count;
    uv_timer_t again;   /* runs while nothing is accepted */
    bool       failing; /* since the last connection that was taken */
    uint64_t   failures;
    /* A connection that does not block; fd is the owner's from now on. */
    void (*take)(void *owner, int fd, conn_role role, bool is_path);
    void *owner;
};

/* With `take` and `owner` set; stays where it is until its loop has run after acceptor_end. */
void acceptor_begin(acceptor *a, uv_loop_t *loop);
int  acceptor_bind(acceptor *a, conn_role role, const char *host, uint32_t port, error *err); /* or unix:PATH as host */
int  acceptor_adopt(acceptor *a, conn_role role, int fd, error *err); /* bound, of type stream; the acceptor's if OK */
void acceptor_close(acceptor *a, conn_role role);
void acceptor_end(acceptor *a); /* closes what is left */

void acceptor_url(const acceptor *a, char *out, size_t size); /* listener_url */
bool acceptor_is_local(const acceptor *a);                    /* listener_is_local */
