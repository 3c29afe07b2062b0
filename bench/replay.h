/* bench/replay.h: plays a trace against a server over HTTP, open loop: a request is sent when its time has come, whatever
 * the server is still busy with. Turns of a session wait for the turn before, as agents and people do. */
#pragma once
#include "bench/agenda.h"
#include "bench/client.h"
#include "bench/prompt.h"
#include "bench/report.h"

typedef struct {
    const char  *url, *api_key; /* NULL: none */
    const char  *model;         /* NULL: asked of the server, as are the next two where they are 0 */
    prompt_rules rules;         /* context_max 0 and unknown to the server: no limit */
    agenda_rules pace;
    uint64_t     timeout_us;      /* of a request */
    uint32_t     concurrency_max; /* what is due waits; 0: no limit */
    slo          slo;             /* of requests that have none of their own */
    bool         hints;           /* tell the server what the trace knows: tenant, job, slo, gap */
    bool         quiet;           /* no progress */
} replay_config;

/* What the server said of itself. */
typedef struct {
    char     model[256];
    uint32_t context_max, vocab_size;
    bool     has_metrics;
} server_facts;

/* Asks the server for what config leaves open, and puts it there and into *facts (which outlives config). */
int replay_ask_server(replay_config *config, server_facts *facts, error *err);

/* Runs the whole trace; SIGINT ends it early, with what was heard so far. OK also where requests failed. */
int replay_run(const replay_config *config, const trace *t, bool has_metrics, record *out, error *err);
