/* server/metrics.h: what /metrics says, from one table, under two names: our own (penstock_*) and vLLM's (vllm:*), which
 * dashboards, autoscalers and routers look for literally. Same numbers, read from a snapshot on the I/O thread. */
#pragma once
#include "base/buf.h"
#include "engine/engine.h"

typedef enum {
    HIST_TIME_TO_FIRST_TOKEN,
    HIST_INTER_TOKEN,
    HIST_TIME_PER_TOKEN,
    HIST_END_TO_END,
    HIST_QUEUE,
    HIST_INFERENCE,
    HIST_PREFILL,
    HIST_DECODE,
    HIST_PREPARE,
    HIST_PROMPT_TOKENS,
    HIST_OUTPUT_TOKENS,
    HIST_MAX_TOKENS,
    HIST_N,
    HIST_COUNT
} histogram_id;

enum { HIST_BOUNDS_MAX = 56 };
typedef struct {
    uint64_t buckets[HIST_BOUNDS_MAX + 1], count; /* not cumulative; the last one is +Inf */
    double   sum;
} histogram;

/* Each a row of the table; all counted on the I/O thread. */
typedef struct {
    uint64_t finished_stop, finished_length, finished_abort, finished_error;
    uint64_t refused_full, refused_draining, refused_invalid, refused_key, refused_limit;
    uint64_t prompt_tokens, cached_tokens, output_tokens, preemptions, recomputed_tokens;
    uint64_t answers[6];   /* by first digit of the status */
    uint64_t clients_gone; /* left before their answer was complete */
    uint64_t readers_too_slow;
    uint64_t unknown_parameters;
    uint64_t exchanges; /* a gauge: requests being worked on */
} counters;

typedef struct {
    counters  count;
    histogram histograms[HIST_COUNT];
} metrics;

void metrics_observe(metrics *m, histogram_id id, double value);

typedef struct {
    const metrics         *metrics;
    const engine_snapshot *snapshot;
    const char            *model_name;
    uint32_t               connections;
    uint64_t               accepted, turned_away, malformed;
    double                 start_time_s; /* Unix */
} metrics_view;
void metrics_write(const metrics_view *v, buf *out); /* Prometheus text format 0.0.4 */
