/* server/listener.h: the socket side of http.h on libuv: accepting, reading, writing, the clock, and nothing else.
 *
 * A listener listens on any number of sockets (acceptor.h), each with a role: clients come in at the public ones, the
 * operator at the admin one, and a connection knows by which it came (http_conn.role). A socket is made from a name here, or
 * was bound by somebody else before the daemon was started (systemd).
 *
 * One buffer is shared by all reads of the loop, because http_feed never keeps a pointer into it. An answer is written at
 * once with one system call; only what the socket would not take waits for the loop.
 *
 * Connections are bounded in all and per address. One too many is told so and closed; the operator's are not counted among
 * them, so that a full house can still be looked into. */
#pragma once
#include <uv.h>

#include "base/error.h"
#include "server/http.h"

typedef struct listener listener;

listener *listener_new(uv_loop_t *loop, http_server *server); /* `server` outlives it; the listener keeps its clock */

/* Each adds one socket to listen on; call as often as needed before the loop runs. */
int listener_bind(listener *l, conn_role role, const char *host, uint32_t port, error *err); /* or unix:PATH as host */
int listener_adopt(listener *l, conn_role role, int fd, error *err); /* bound, of type stream; the listener's from now on */

void listener_stop(
    listener *l); /* no more clients; idle ones are closed soon, the others after their answers; admin stays */
void listener_close(listener *l); /* closes everything; run the loop until it is done, then listener_free */
void listener_free(listener *l);

void listener_touch(http_conn *c); /* something was written to c outside of a `request` call */
void listener_flush(listener *l);  /* sends what lies in the touched connections */

/* Where clients are to come: the first public socket as http://ADDRESS:PORT or unix:PATH. */
void listener_url(const listener *l, char *out, size_t size);
bool listener_is_local(const listener *l); /* nobody from another machine can come in */

typedef struct {
    uint32_t connections;                         /* of clients, open now */
    uint64_t accepted;                            /* of clients */
    uint64_t turned_away, turned_away_by_address; /* because of too many in all or from one address; of the latter alone */
    uint64_t accept_failures;                     /* for want of descriptors or memory; the connection waits */
} listener_facts;
listener_facts listener_read_facts(const listener *l);
