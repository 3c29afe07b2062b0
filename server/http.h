/* server/http.h: HTTP/1.1 for one connection as a state machine: bytes in, bytes out, no socket and no clock.
 *
 * The owner feeds what it read, writes what lies in `out`, and sets the clock. So the unit tests feed one byte at a time,
 * the fuzzer chooses every split, and the loop (listener.c) is nothing but plumbing.
 *
 * Two parsers must agree on a head. http_head.c looks at its lines first and refuses what llhttp 8 lets through (folded
 * lines, a missing version, doubled spaces); llhttp, compiled strict and with every lenient flag off, then parses the
 * whole head at once, which also spares joining split header fields. Bodies go through llhttp as they come, up to the last
 * chunk: trailers are lines again (llhttp would take a bare LF for their end), looked over, bounded and thrown away.
 *
 *     IDLE -> HEAD -> BODY -> BUSY -> (STREAM) -> IDLE ...      one request at a time; what a client pipelines waits in
 *       any of these -> LINGER -> CLOSED                        `ahead`, bounded, and is answered in order
 *
 * Reading never stops while a request is BUSY or streamed: that is how the loop notices a client that leaves. LINGER reads
 * on for a moment after the last answer, because closing over unread input would reset the connection and could take the
 * answer with it. */
#pragma once
#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "server/server.h"

typedef struct http_conn http_conn;

/* What all connections of one loop share. */
typedef struct {
    const server_config *config;
    bool (*admit)(void *owner, http_conn *c);    /* the head of a request with a body; false: it was answered. NULL: all */
    void (*request)(void *owner, http_conn *c);  /* a whole request: answer it now or later */
    void (*gone)(void *owner, http_conn *c);     /* the request taken before will not be answered: its client left */
    void (*drained)(void *owner, http_conn *c);  /* a stream's peer has taken everything it was sent */
    void (*refusing)(void *owner, http_conn *c); /* this file is about to answer: lines for c->headers. NULL: none */
    void    *owner;
    uint64_t now_us;     /* the clock; set by the owner before it calls */
    uint64_t body_bytes; /* held by all connections */
    uint64_t refused;    /* requests answered 4xx or 5xx by this file */
    bool     draining;   /* every answer closes its connection */
    int64_t  date_s;     /* of `date` */
    char     date[40];
} http_server;

typedef enum { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_BUSY, CONN_STREAM, CONN_LINGER, CONN_CLOSED } conn_state;

/* By which door a connection came in; api.c offers different things at each. */
typedef enum { ROLE_PUBLIC, ROLE_ADMIN } conn_role;

typedef struct {
    uint32_t at, size; /* in `head` */
} http_span;

enum { HTTP_HEADERS_KEPT = 24 }; /* the first ones of the names in http_head.c that anybody asks for */

struct http_conn {
    http_server *server;
    void        *exchange; /* the handler's, while BUSY or STREAM */
    llhttp_t     parser;
    uint8_t      state, role;
    bool         close_after; /* the answer under way is the last */
    bool         eof;         /* the client has closed its side */
    bool         chunked, chunk_open, head_only, complete, in_trailers;
    int          refusal;                           /* status decided while parsing */
    const char  *refusal_reason;                    /* static */
    uint32_t     requests;                          /* begun on this connection */
    uint32_t     line_begin, scanned, header_count; /* http_head.c */
    uint32_t     host_count, kept_count;
    http_span    url;
    struct {
        uint8_t   name;
        http_span value;
    } kept[HTTP_HEADERS_KEPT];
    int8_t   field;           /* llhttp's current header, -1: of no interest */
    uint64_t since_us;        /* when this state began */
    uint64_t write_us;        /* when the peer last took bytes, or there began to be some to take */
    size_t   in_flight;       /* bytes the owner took from `out` that the peer has not taken yet */
    uint64_t wire_bytes;      /* of the body, framing included; in LINGER: discarded */
    uint32_t extension_bytes; /* of its chunks */
    size_t   chunk_at;        /* in `out`, where the open chunk's size is to be written */
    size_t   ahead_begin;
    buf      head, body, ahead, out;
    buf      headers; /* lines that go with this request's answer, whoever gives it; empty for most */
};

void http_init(http_conn *c, http_server *server);
void http_free(http_conn *c); /* calls gone for a request under way */
/* The only answer a new connection gets, whatever it asks; then it is closed. */
void http_turn_away(http_conn *c, int status, const char *code, const char *reason);

void http_feed(http_conn *c, const char *bytes, size_t n);
void http_eof(http_conn *c);    /* end of input, or a reset */
void http_wrote(http_conn *c);  /* the peer took everything so far; pipelined requests go on */
void http_expire(http_conn *c); /* looks at the clock: call a few times a second */

/* ---- the request, inside `request` (the head is forgotten when it returns) ---- */
const char *http_path(const http_conn *c, size_t *size);                     /* without query; not decoded */
const char *http_header(const http_conn *c, const char *name, size_t *size); /* one of the names kept, or NULL */
buf         http_take_body(http_conn *c);                                    /* the caller frees it */

/* ---- the answer ---- */
typedef struct {
    int         status;
    const char *type;    /* Content-Type; NULL: none */
    const char *headers; /* more lines, each with its CRLF; NULL: none */
    const char *body;
    size_t      size;
} http_reply;

void http_answer(http_conn *c, const http_reply *r);
/* An answer whose end is not known: chunked, or to the end of the connection for HTTP/1.0. Between chunk_begin and chunk_end
 * the caller appends to the buf. A stream that ends with `close` is the connection's last. */
void http_stream_begin(http_conn *c, const http_reply *r);
buf *http_chunk_begin(http_conn *c);
void http_chunk_end(http_conn *c);
void http_stream_end(http_conn *c, bool close);
void http_abort(http_conn *c); /* no answer, or no more of it; calls gone */

/* ---- between the parts of this machine ---- */
const char *http_status_text(int status);
void        http_refuse(http_conn *c, int status, const char *reason); /* answers in the API's error shape; then closes */

/* Looks at the lines that are complete in head; 0 with *end set where the head ended there (else *end is 0), or a status. */
int http_head_scan(http_conn *c, size_t *end, const char **reason);
/* Runs llhttp over the whole head and checks what RFC 9112 asks of a server. c->refusal is set where it is refused. */
void http_head_parse(http_conn *c);
