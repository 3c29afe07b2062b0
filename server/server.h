/* server/server.h: the daemon: one engine behind an OpenAI-compatible HTTP API.
 *
 * server_run binds the address first (a port that is taken is known before a model is loaded), loads the model on a thread
 * of its own while the loop already answers "loading", serves until SIGTERM or SIGINT, drains, and returns. Everything that
 * a client can make grow has a bound here. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/version.h"
#include "engine/engine.h"

typedef struct server_config server_config;
/* Whether settings that were read anew may hold; a code and a sentence where not. */
typedef int (*server_accept)(void *context, const server_config *fresh, error *err);

struct server_config {
    const char *host;          /* to bind: "127.0.0.1", "0.0.0.0", "::1", or unix:PATH */
    uint32_t    port;          /* 0: any free one; the ready line names it */
    const char *model_name;    /* the `model` that clients ask for; NULL: the last part of the model's path */
    const char *chat_template; /* a template file; NULL: the model folder's own */
    const char *reasoning;     /* where what a model thinks goes: reasoning_content (or NULL), reasoning, both, content */

    const char *admin_socket;        /* path for the operator (admin.c), mode 0600; NULL: none */
    const char *api_keys;            /* file of keys (keys.h); NULL: nobody needs one */
    bool        public_without_keys; /* an address that others reach may be served to anyone */
    const char *cors_origins;        /* web pages that may ask: "*", or origins with blanks between; NULL: none */
    bool        metrics_open;        /* /metrics asks for no key */
    bool        strict_params;       /* a parameter that nobody knows is a mistake */

    uint32_t    connections_max;         /* open at once; one more is told so and closed */
    uint32_t    connections_per_address; /* of them, from one IPv4 address or IPv6 /64; 0: no bound of its own */
    uint32_t    requests_per_connection; /* then the connection is closed after its answer */
    uint32_t    request_line_max_bytes;  /* method, path and version: 414 beyond */
    uint32_t    headers_max_bytes;       /* all header lines together: 431 beyond */
    uint32_t    headers_max_count;       /* 431 beyond */
    uint64_t    body_max_bytes;          /* 413 beyond */
    uint64_t    head_timeout_us;         /* first byte of a request to the end of its headers: 408 beyond */
    uint64_t    body_timeout_us;         /* grace for a body; beyond it body_rate_min is asked for: 408 */
    uint64_t    body_rate_min_bytes_s;
    uint64_t    idle_timeout_us;         /* a kept-alive connection without a request is closed */
    uint64_t    write_stall_us;          /* a peer that takes nothing for so long is cut off */
    uint64_t    write_buffer_max_bytes;  /* a stream's unread bytes; beyond it the peer is cut off */
    uint64_t    keepalive_comment_us;    /* an SSE comment is sent when a stream was silent for so long; 0: never */
    uint64_t    drain_us;                /* after SIGTERM running requests may finish for so long */
    uint64_t    stall_us;                /* work but no progress for so long: /live and /health answer 503 */
    uint64_t    slo_ttft_us, slo_tbt_us; /* what requests aim at that say nothing, nor their key; 0: nothing */
    const char *metrics_dialects;        /* "both", "native" or "vllm"; NULL: both */
    bool        metrics_old_names;       /* vLLM's names of before as well */
    uint32_t    choices_max;             /* n x prompts of one HTTP request */
    uint64_t    worker_body_bytes;       /* bodies larger than this are parsed, rendered and tokenized off the I/O thread */

    /* Called once on the loop's thread, when the model is loaded and requests are answered; may be NULL. */
    void (*ready)(void *context, const char *url, const char *model_name);
    void *ready_context;

    /* SIGHUP: reads the settings anew, has them accepted, changes this struct where that can be done, and says every change
     * as a line. Or changes nothing. NULL: there is nothing to read. */
    int (*reload)(void *context, server_accept accept, void *accept_context, buf *said, error *err);
    void *reload_context;
    void (*describe)(void *context, buf *out); /* the settings in force, as a file; same context */
};

/* Blocks until the daemon has drained (OK) or could not start or lost its device (a code and a sentence). `ec->wake` is set
 * here. */
int server_run(const server_config *c, engine_config *ec, error *err);
