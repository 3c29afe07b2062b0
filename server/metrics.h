/* server/metrics.h: what /metrics says.
 *
 * One table (metrics_table.c) holds each number once, with its name in each dialect: our own (penstock_*, with buckets that
 * tell a fast small model's milliseconds apart), vLLM's (vllm:*, with its buckets and labels), which dashboards, autoscalers
 * and routers look for literally, and vLLM's of old. docs/metrics.md is printed from it.
 *
 * Everything is read on the I/O thread from what is there anyway and from the engine's snapshot: a scrape waits for nobody.
 * The page is laid out once; a scrape fills in the numbers. */
#pragma once
#include "base/buf.h"
#include "base/histogram.h"
#include "engine/engine.h"
#include "server/health.h"
#include "server/keys.h"

typedef enum { DIALECT_NATIVE, DIALECT_VLLM, DIALECT_VLLM_OLD, DIALECT_COUNT } metrics_dialect;

/* ---- what is counted on the I/O thread ---- */
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
    HIST_COMPUTED_TOKENS,
    HIST_OUTPUT_TOKENS,
    HIST_LONGEST_OUTPUT,
    HIST_MAX_TOKENS,
    HIST_N,
    HIST_COUNT
} histogram_id;

typedef struct {
    uint64_t finished_stop, finished_length, finished_abort, finished_error;
    uint64_t refused_draining, refused_invalid, refused_key, refused_limit;
    uint64_t refused_queue[QUEUE_FULL_WAIT + 1]; /* by queue_answer */
    uint64_t ledger_us[LEDGER_PARTS];            /* of requests that have ended */
    uint64_t answers[6];                         /* by first digit of the status */
    uint64_t clients_gone;                       /* left before their answer was complete */
    uint64_t readers_too_slow;
    uint64_t unknown_parameters;
    uint64_t exchanges; /* a gauge: requests being worked on */
} counters;

typedef struct {
    counters  count;
    histogram histograms[HIST_COUNT];
} metrics;

void metrics_observe(metrics *m, histogram_id id, double value);

/* ---- what the table's rows look at ---- */
/* Numbers that are nobody's member; filled in for each scrape (metrics_view_fill). */
typedef struct {
    double   kv_use, host_use, page_copy_s, prompt_computed, hit_rate, zero, one;
    double   start_time_s, cpu_s, resident_bytes; /* start_time_s: Unix */
    double   stands_s;                            /* progress_stands_us */
    double   health[HEALTH_COUNT];                /* 1 for the state that it is in */
    double   running_max, waiting_max, context_max, wait_s;
    double   waiting_capacity, waiting_deferred; /* those who wait, by reason */
    uint64_t connections, connections_accepted, connections_refused, accept_failures, malformed, log_dropped;
} metrics_facts;

typedef struct {
    const metrics         *metrics;
    const engine_snapshot *snapshot;
    const metrics_facts   *facts;
    const tenant_figures  *tenants; /* at most TENANTS_SHOWN_MAX: whatever the file of keys holds, series stay few */
    uint32_t               tenant_count;
} metrics_view;
enum { TENANTS_SHOWN_MAX = 32 };

/* ---- the table ---- */
typedef enum { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_INFO } metric_kind;
typedef enum { IN_METRICS, IN_SNAPSHOT, IN_FACTS, IN_TENANTS } metric_place;     /* the last: a sample for each tenant */
typedef enum { AS_U32, AS_U64, AS_F64, AS_NS, AS_US, AS_HISTOGRAM } metric_type; /* _NS, _US are shown in seconds */
typedef struct metrics_layout metrics_layout;

typedef struct {
    const char  *names[DIALECT_COUNT]; /* NULL: not in that dialect. Rows of one name follow one another */
    metric_kind  kind;
    const char  *labels; /* of this row: reason="full"; NULL: none, or one for each element */
    const char  *help;   /* NULL: as the row before */
    metric_place place;
    metric_type  type;
    size_t       offset;
    /* an array: a sample for each element, told apart by a label */
    const char *element_label;
    const char *(*element_name)(unsigned i);
    unsigned elements;
    /* a histogram; vLLM's bounds are among ours, and end at the context's length where they are ours in tokens */
    const histogram_bounds *bounds, *vllm_bounds;
    void (*info)(const metrics_layout *l, buf *out); /* METRIC_INFO: the labels; its value is 1 */
} metric_row;
extern const metric_row metric_rows[];
extern const size_t     metric_row_count;
const char             *metrics_help(const metric_row *row);

/* ---- the page ---- */
struct metrics_layout {
    bool        dialects[DIALECT_COUNT];
    const char *model_name, *device, *version;
    uint32_t    context_max; /* 0: not known yet */
    uint32_t    page_tokens, page_count;
    bool        prefix_cache;
};

typedef struct metrics_page metrics_page;
metrics_page               *metrics_page_new(const metrics_layout *l);
void                        metrics_page_free(metrics_page *p);
void metrics_page_write(const metrics_page *p, const metrics_view *v, buf *out); /* Prometheus text format 0.0.4 */
void metrics_label(buf *out, const char *name, const char *value);               /* name="value", escaped */
/* What follows from the rest: shares, sums, the process. */
void metrics_facts_derive(metrics_facts *f, const engine_snapshot *s, health_state state);
