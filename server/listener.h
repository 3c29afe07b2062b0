/* server/listener.h: the socket side of http.h on libuv: accepting, reading, writing, the clock, and nothing else.
 *
 * One buffer is shared by all reads of the loop, because http_feed never keeps a pointer into it. An answer is written at
 * once with one system call; only what the socket would not take waits for the loop. */
#pragma once
#include <uv.h>

#include "base/error.h"
#include "server/http.h"

typedef struct listener listener;

/* Binds and listens. `server` outlives the listener, which keeps its clock. */
int  listener_open(listener **out, uv_loop_t *loop, http_server *server, error *err);
void listener_stop(listener *l);  /* accepts no more; idle connections are closed, the others after their answers */
void listener_close(listener *l); /* closes everything; run the loop until it is done, then listener_free */
void listener_free(listener *l);

void listener_touch(http_conn *c); /* something was written to c outside of a `request` call */
void listener_flush(listener *l);  /* sends what lies in the touched connections */

typedef struct {
    uint32_t port, connections;
    uint64_t accepted, turned_away;
} listener_facts;
listener_facts listener_read_facts(const listener *l);
