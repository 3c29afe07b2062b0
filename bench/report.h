/* bench/report.h: what became of a trace's requests, and the same said four ways: a table, JSON, one page of HTML, one line
 * of JSON a request. Knows neither sockets nor servers: whoever plays a trace, over HTTP or under a virtual clock, fills in
 * a `record`. docs/replay.md defines every figure. */
#pragma once
#include <stdio.h>

#include "base/buf.h"
#include "bench/scrape.h"
#include "bench/stats.h"
#include "bench/trace.h"

typedef enum { OUTCOME_UNSENT, OUTCOME_COMPLETED, OUTCOME_FAILED } outcome_state;

/* One request. Times are since the run began. */
typedef struct {
    uint64_t due_us;           /* when it was to be sent */
    uint64_t start_us;         /* when it was */
    uint64_t first_us, end_us; /* first token; end. Of a failed one only the end */
    uint32_t gap_max_us;       /* the longest between two tokens */
    uint32_t session, turn;
    uint32_t prompt_tokens, output_tokens; /* as the server counted them, else as they were asked for */
    uint32_t cached_tokens;                /* of the prompt, as the server says */
    uint16_t reason;                       /* of a failed one: in record.reasons */
    uint8_t  state;
    slo      slo; /* its own, else the run's */
} outcome;

/* The run at one moment. NAN: not known. */
typedef struct {
    double at_s, in_flight, running, waiting, kv_usage;
} sample;

enum { REASONS_MAX = 32, REASON_BYTES = 160 };

typedef struct {
    /* what was run: names and settings for the reader, owned by the caller */
    const char *title, *url, *model, *trace_name;
    double      rate_scale, length_scale;
    uint32_t    concurrency_max; /* 0: no limit */
    uint64_t    seed;
    const char *date; /* ISO 8601; NULL: none is written */

    /* what came of it; freed by record_free */
    outcome  *outcomes;
    uint32_t  outcome_count;
    sample   *samples;
    uint32_t  sample_count, sample_capacity;
    uint32_t *gaps_us; /* all inter-token latencies */
    size_t    gap_count, gap_capacity;
    uint32_t *chunk_bins; /* content chunks in each BIN_US of the run */
    uint32_t  bin_count, bin_capacity;
    char      reasons[REASONS_MAX][REASON_BYTES];
    uint32_t  reason_counts[REASONS_MAX], reason_count;
    uint64_t  duration_us; /* from the first request sent to the last answer's end */
    uint32_t  in_flight_max;
    uint32_t  cut_lengths, wrong_lengths, made_up_answers;
    scrape    before, after; /* the server's counters */
    bool      interrupted;
} record;

#define BIN_US 100000u

void     record_init(record *r, uint32_t outcome_count);
void     record_free(record *r);
void     record_gap(record *r, uint32_t gap_us);
void     record_chunk(record *r, uint64_t at_us);
void     record_sample(record *r, const sample *s);
uint16_t record_reason(record *r, const char *why); /* counts it; the last place is for "other reasons" */

/* What is measured of each request (ITL: of each gap; JCT: of each session). In milliseconds. */
typedef enum { METRIC_TTFT, METRIC_TPOT, METRIC_ITL, METRIC_E2EL, METRIC_JCT, METRIC_LAG, METRIC_COUNT } metric;

typedef struct {
    uint32_t completed, failed, unsent, sessions_completed;
    bool     has_slo;    /* some request cares */
    uint32_t good;       /* completed in time by every limit it has */
    double   attainment; /* good / (completed + failed) */
    double   kv_usage;   /* mean share of the pages that running work held, over the samples that know it; NAN: none does */
    double   duration_s;
    uint64_t input_tokens, output_tokens, cached_tokens; /* of completed requests */
    double   request_throughput, goodput, input_throughput, output_throughput, total_throughput, output_peak; /* a second */
    distribution of[METRIC_COUNT];
    series       samples[METRIC_COUNT]; /* sorted */
} summary;

void summarize(const record *r, const trace *t, summary *out);
void summary_free(summary *s);

double outcome_ttft_ms(const outcome *o);
double outcome_tpot_ms(const outcome *o); /* NAN where there is only one token */
double outcome_e2e_ms(const outcome *o);
bool   record_good(const record *r, const trace *t, uint32_t request); /* completed, and in time by every limit of its slo */

const char *metric_label(metric m); /* "time to first token" */

void              report_table(const record *r, const summary *s, FILE *out);
void              report_json(const record *r, const summary *s, buf *out);
void              report_html(const record *r, const summary *s, buf *out);
extern const char report_style[];                                             /* CSS of the page, for others like it */
void              report_requests(const record *r, const trace *t, buf *out); /* JSON lines, in the order of the trace */
