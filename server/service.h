/* server/service.h: what the files of the server share: the daemon, and an exchange, which is one HTTP request being worked
 * on.
 *
 * Everything here belongs to the I/O thread, except that an exchange's `prepare` may run on a worker. What it may read there
 * (configuration, tokenizer, template, facts of the model) does not change once the daemon serves. */
#pragma once
#include <uv.h>

#include "engine/engine.h"
#include "models/chat.h"
#include "server/fault.h"
#include "server/health.h"
#include "server/http.h"
#include "server/keys.h"
#include "server/listener.h"
#include "server/metrics.h"
#include "server/params.h"

typedef struct exchange   exchange;
typedef struct generation generation;

typedef enum { PHASE_LOADING, PHASE_SERVING, PHASE_DRAINING } service_phase;

/* Engine requests by id, so that an event finds its choice, or nothing where that is long gone. */
typedef struct {
    struct {
        uint64_t    id; /* 0: free */
        generation *owner;
        uint32_t    choice, next_free;
    } * slots;
    uint32_t capacity, first_free, live;
    uint64_t serial;
} request_table;

enum { SERVICE_SIGNALS = 4 };

struct service {
    const server_config *config;
    engine_config       *engine_settings;
    uv_loop_t            loop;
    uv_async_t           wake;
    uv_signal_t          signals[SERVICE_SIGNALS]; /* operator.c */
    uv_timer_t           watch;                    /* progress, and the end of draining */
    uv_work_t            load;
    http_server          http;
    listener            *listener;
    service_phase        phase;
    error                failure; /* why the loop ended, if not by a signal */

    /* once loaded */
    engine      *engine;
    tokenizer   *tokenizer;               /* NULL: the model has none */
    chat_format *chat;                    /* NULL likewise */
    int64_t      think_begin, think_end;  /* tokens around what the model thinks aloud; think_end 0: none are told apart */
    unsigned     reasoning_fields;        /* bit 0: reasoning_content, bit 1: reasoning */
    uint32_t     vocab_size, context_max; /* context_max: what one request may use, prompt and answer */

    keys          *keys, *keys_next; /* NULL: nobody needs one; keys_next: read, and not in force yet */
    exchange      *exchanges;        /* all of them */
    bool           paused;           /* new requests are turned away */
    uint64_t       watchdog_us, watchdog_fed_us, status_told_us;
    char           status_told[256];
    char           model_name[256], fingerprint[32];
    int64_t        created_s;
    double         start_time_s;
    metrics        metrics;
    metrics_page  *metrics_page;
    request_table  requests;
    uint64_t       exchange_serial, id_salt;
    uint32_t       idle_ticks; /* of `watch`, since the last exchange began */
    uint64_t       drain_until_us;
    uint32_t       working; /* exchanges that a worker has */
    buf            scratch; /* text of one token, while it is written */
    buf            openapi; /* the document, once somebody asked for it */
    progress_watch progress;
    bool           stuck, unknown_logged; /* stuck: as last logged */
};

/* ---- service.c, for operator.c and admin.c ---- */
void service_drain(service *sv, uint64_t at_most_us);
/* Refuses to serve the world without asking for a key, unless the settings say so. */
int service_check_exposure(service *sv, const keys *k, const server_config *c, error *err);

/* ---- exchanges ---- */
enum { REQUEST_ID_SIZE = 132, SESSION_SEED = 3, TENANT_SEED = 1 };

typedef struct {
    size_t   size;
    endpoint endpoint;
    void (*prepare)(exchange *x,
                    fault    *f);   /* body to native structs; sets *f where it cannot; on a worker for large bodies */
    void (*finish)(exchange *x); /* on the I/O thread, with no fault and the client still there: answer, or submit */
    void (*lost)(exchange *x);   /* the client left after finish; releases the exchange when it is done with it */
    void (*destroy)(exchange *x);
    bool (*admit)(exchange *x); /* before all that: whether there is any room; else sets x->fault. NULL: there always is */
} exchange_kind;

struct exchange {
    const exchange_kind *kind;
    service             *service;
    http_conn           *conn; /* NULL: answered, or the client left */
    buf                  body;
    fault               *fault;               /* owned; NULL: nothing is wrong */
    tenant              *tenant;              /* NULL: no keys are configured */
    char                 id[REQUEST_ID_SIZE]; /* X-Request-Id; valid in a header and in JSON */
    const char          *path;                /* static */
    uint64_t             session, fairness;   /* hashes of the headers that say so; 0: absent */
    slo_params           slo;                 /* from headers */
    uint64_t             arrived_us, prepared_us;
    int                  status;       /* that was answered; 0: none */
    bool                 named;        /* id is the client's */
    bool                 entered;      /* the tenant's account counts it */
    fault_kind           ends_by;      /* what it is to be refused with once the worker has let it go */
    exchange            *next, **link; /* service.exchanges */
    uv_work_t           *work;         /* owned; NULL: no worker has it */
};

extern const exchange_kind chat_exchange, completion_exchange, chat_render_exchange, completion_render_exchange,
    tokenize_exchange, detokenize_exchange;

/* The client's X-Request-Id where it can be repeated safely, else one of our own. Whether it is the client's. */
bool request_id_choose(service *sv, const http_conn *c, char id[REQUEST_ID_SIZE]);
/* Header lines that go with a fault: Retry-After where there is one, and x-should-retry. */
void fault_headers(const fault *f, buf *out);

/* x->fault to be set, made where there was none: a request that waits has no room for what may never go wrong. */
fault *exchange_fault(exchange *x);
void   exchange_begin(service *sv, http_conn *c, const exchange_kind *kind, const char *path, tenant *who);
void   exchange_answer(exchange *x, int status, const buf *json); /* the whole answer; x->conn is NULL afterwards */
void   exchange_refuse(exchange *x);                              /* answers x->fault */
void   exchange_release(exchange *x);                             /* the last thing done with it */
/* The daemon ends it, FAULT_DRAINING or FAULT_ABORTED: its client is told, and the engine's work on it given up. */
void exchange_end(exchange *x, fault_kind kind);
/* Where the client named it in the body and not in a header; "": it did not. On the I/O thread, where the operator looks. */
void exchange_rename(exchange *x, const char *id);
/* Extra header lines of an answer: request id, and what x's fault asks for. */
void exchange_headers(const exchange *x, buf *out);

/* ---- generations (generation.c) ---- */
void generation_event(service *sv, const engine_event *e);
void generation_expire(service *sv);  /* ends those whose deadline passed; a few times a second */
void generation_drained(exchange *x); /* the client has taken all it was sent: text that waited goes out */

void generation_end(exchange *x, fault_kind kind);      /* exchange_end's part of it */
void generation_describe(const exchange *x, buf *json); /* members of a JSON object, each after a comma; other kinds: none */

/* ---- routes (admin.c) ---- */
bool admin_request(service *sv, http_conn *c); /* false: not one of its paths */

/* ---- routes (api.c) ---- */
bool api_admit(void *sv, http_conn *c); /* false: answered, for want of a key */
void api_name(void *sv, http_conn *c);  /* has its answer carry X-Request-Id: answers without an exchange */
void api_request(void *sv, http_conn *c);
void api_gone(void *sv, http_conn *c);
void api_drained(void *sv, http_conn *c);

extern const char     page_html[]; /* server/page/index.html */
extern const uint64_t page_html_bytes;
