/* bench/client.h: many HTTP requests at once to one server, on one libuv loop.
 *
 * A connection each, opened when the request is sent and closed by its end: what a server does to new clients is part of
 * what they wait for, and no request can fall onto a connection that the server is just closing. Cost: one TCP handshake,
 * some tens of microseconds on loopback. Answers are read into one buffer of the client's, timed by uv_hrtime when read
 * returns, and taken apart on the spot (bench/answer.h). */
#pragma once
#include <uv.h>

#include "bench/answer.h"

typedef struct client client;

/* http://HOST[:PORT][/PREFIX][/v1]. Nothing is sent yet. api_key (NULL: none) goes into an Authorization header. */
int  client_open(client **out, uv_loop_t *loop, const char *url, const char *api_key, error *err);
void client_close(client *c); /* every call must be over; run the loop once more, then client_free */
void client_free(client *c);

typedef struct {
    const char *path; /* "/v1/completions": comes after the prefix */
    buf        *body; /* JSON to POST, taken over (left empty); NULL: GET */
    answer_kind kind;
    bool        keep_ids;
    uint64_t    timeout_ns; /* for all of it */
    /* Called once, from the loop, never from client_send: the answer, good or not, and when the request was begun
     * (uv_hrtime, before its connection was opened). The answer is gone afterwards. */
    void (*done)(void *owner, answer *a, uint64_t began_ns);
    answer_chunk_fn chunk; /* or NULL */
    void           *owner;
} client_request;

void     client_send(client *c, const client_request *r);
uint32_t client_active(const client *c);
void     client_cancel_all(client *c, const char *why);

/* Sends one request and runs the loop until its answer is there: for questions before the clock starts. The body of a good
 * answer is appended to *page. */
int client_ask(client *c, const char *path, buf *body, buf *page, error *err);
