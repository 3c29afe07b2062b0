/* bench/simulate.h: a trace through the production scheduler, under a virtual clock, on the machine that the sim device
 * models.
 *
 * The scheduler is the daemon's, made with the daemon's settings and sizes; what is pretended is the device (pass_cost.h)
 * and the clients, who send as `penstock-bench replay` does: open loop, exact lengths, shared prefixes, sessions with gaps.
 * So a record comes out that says what the clients would have felt, and the same call gives the same record, to the byte. */
#pragma once
#include "bench/agenda.h"
#include "bench/priorities.h"
#include "bench/prompt.h"
#include "bench/report.h"
#include "engine/engine.h"

/* What they say of themselves, beyond the trace. */
typedef struct {
    bool     hints; /* how long the tool after a turn takes, and whether the turn is the last */
    bool     sizes; /* as the priority: the milliseconds that the request would take alone. Nobody knows that: an oracle */
    uint32_t max_tokens; /* how long an answer may be; 0: exactly as long as it will be, which nobody knows either */
} clients;

typedef struct {
    const checkpoint    *model;
    const engine_config *engine; /* after engine_plan */
    agenda_rules         pace;
    double               length_scale;
    uint64_t             seed;
    slo                  slo; /* of requests that have none of their own */
    clients              clients;
    priority_rules       priorities;
} simulation;

/* What a client cannot see. */
typedef struct {
    scheduler_stats scheduler; /* at the end */
    double          weight_bytes, expert_bytes;
    series          stop_reactions_s; /* from the event that called for a stop to the boundary where the pass ended */
    uint64_t        events;      /* arrivals, passes, stops, copies and changes of priority that the scheduler was told of */
    double          busy_s;      /* of the device, in passes */
    double          copy_wait_s; /* of passes, for copies that lay in their way */
} simulated;

/* Whether the scheduler takes these settings: OK, or its sentence. */
int  simulation_check(const checkpoint *model, const engine_config *c, error *err);
int  simulate(const simulation *s, const trace *t, record *out, simulated *figures, error *err);
void simulated_free(simulated *f);
