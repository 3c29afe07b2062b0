#include "bench/report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/version.h"

/* In the order of `metric`. */
static const struct {
    const char *label, *key;
} metrics[METRIC_COUNT] = {
    {"time to first token", "ttft"}, {"time per output token", "tpot"}, {"inter-token latency", "itl"},
    {"end-to-end latency", "e2el"},  {"job completion", "jct"},         {"sent after due", "schedule_lag"},
};

const char *metric_label(metric m) { return metrics[m].label; }

/* ---- table ---- */

static void print_counts(const record *r, const summary *s, FILE *out) {
    fprintf(out, "%u completed, %u failed", s->completed, s->failed);
    if (s->unsent) fprintf(out, ", %u not sent", s->unsent);
    fprintf(out, "%s in %.2f s; at most %u at once\n", r->interrupted ? " (stopped early)" : "", s->duration_s,
            r->in_flight_max);
    for (uint32_t i = 0; i < r->reason_count; i++) fprintf(out, "    %u x %s\n", r->reason_counts[i], r->reasons[i]);
    if (r->wrong_lengths) fprintf(out, "    %u answers or prompts were not as long as asked for\n", r->wrong_lengths);
    if (r->cut_lengths) fprintf(out, "    %u requests of the trace were cut to the context\n", r->cut_lengths);
    if (r->made_up_answers)
        fprintf(out, "    %u turns go on from made-up answers (the server tells no token ids)\n", r->made_up_answers);
}

static void print_rates(const summary *s, FILE *out) {
    fprintf(out, "%-24s %12.2f /s\n", "requests", s->request_throughput);
    if (s->has_slo)
        fprintf(out, "%-24s %12.2f /s  (%.1f %% of all were in time)\n", "good requests", s->goodput, 100 * s->attainment);
    fprintf(out, "%-24s %12.1f /s  (%" PRIu64 ")\n", "input tokens", s->input_throughput, s->input_tokens);
    fprintf(out, "%-24s %12.1f /s  (%" PRIu64 "; at most %.0f /s)\n", "output tokens", s->output_throughput,
            s->output_tokens, s->output_peak);
    if (s->cached_tokens)
        fprintf(out, "%-24s %12.1f %% of the input\n", "found in the cache",
                100.0 * (double)s->cached_tokens / (double)s->input_tokens);
}

void report_table(const record *r, const summary *s, FILE *out) {
    print_counts(r, s, out);
    print_rates(s, out);
    fprintf(out, "%-24s %10s %10s %10s %10s %10s %10s\n", "milliseconds", "mean", "std", "p50", "p90", "p95", "p99");
    for (int m = 0; m < METRIC_COUNT; m++) {
        const distribution *d = &s->of[m];
        if (!d->count) continue;
        fprintf(out, "%-24s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f\n", metrics[m].label, d->mean, d->std, d->p50, d->p90,
                d->p95, d->p99);
    }
}

/* ---- JSON ---- */

static void add_string(buf *out, const char *name, const char *value) {
    buf_printf(out, "\"%s\":", name);
    if (value) json_quote(out, value, strlen(value));
    else buf_str(out, "null");
    buf_char(out, ',');
}

static void add_number(buf *out, const char *name, double value) {
    if (isfinite(value)) buf_printf(out, "\"%s\":%.9g,", name, value);
    else buf_printf(out, "\"%s\":null,", name);
}

/* The names of `vllm bench serve --save-result`, then the percentiles that it calls pNN. */
static void add_distribution(buf *out, const char *key, const distribution *d) {
    const struct {
        const char *prefix;
        double      value;
    } members[] = {{"mean", d->mean}, {"median", d->p50}, {"std", d->std}, {"min", d->min}, {"max", d->max},
                   {"p50", d->p50},   {"p90", d->p90},    {"p95", d->p95}, {"p99", d->p99}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        buf_printf(out, "\"%s_%s_ms\":%.9g,", members[i].prefix, key, members[i].value);
}

static double grown(const record *r, scrape_metric m) { return r->after.value[m] - r->before.value[m]; }

static void add_server(const record *r, const summary *s, buf *out) {
    double queries = grown(r, SCRAPE_PREFIX_QUERIES);
    buf_str(out, "\"server\":{");
    add_number(out, "output_tokens", grown(r, SCRAPE_OUTPUT_TOKENS));
    add_number(out, "preemptions", grown(r, SCRAPE_PREEMPTIONS));
    add_number(out, "preemptions_per_1000", s->completed ? 1e3 * grown(r, SCRAPE_PREEMPTIONS) / s->completed : NAN);
    add_number(out, "kv_usage", s->kv_usage);
    add_number(out, "prefix_hit_rate", queries > 0 ? grown(r, SCRAPE_PREFIX_HITS) / queries : NAN);
    buf_str(out, "\"samples\":[");
    for (uint32_t i = 0; i < r->sample_count; i++) {
        const sample *a = &r->samples[i];
        buf_str(out, i ? ",{" : "{");
        add_number(out, "at_s", a->at_s), add_number(out, "in_flight", a->in_flight), add_number(out, "running", a->running);
        add_number(out, "waiting", a->waiting), add_number(out, "kv_usage", a->kv_usage);
        out->data[out->size - 1] = '}';
    }
    buf_str(out, "]},");
}

static void add_errors(const record *r, buf *out) {
    buf_str(out, "\"failure_reasons\":{");
    for (uint32_t i = 0; i < r->reason_count; i++) {
        if (i) buf_char(out, ',');
        json_quote(out, r->reasons[i], strlen(r->reasons[i]));
        buf_printf(out, ":%u", r->reason_counts[i]);
    }
    buf_str(out, "}");
}

void report_json(const record *r, const summary *s, buf *out) {
    buf_char(out, '{');
    add_string(out, "date", r->date), add_string(out, "backend", "openai"),
        add_string(out, "tool", "penstock-bench " PENSTOCK_VERSION);
    add_string(out, "model_id", r->model), add_string(out, "url", r->url), add_string(out, "trace", r->trace_name);
    add_number(out, "num_prompts", r->outcome_count),
        add_number(out, "max_concurrency", r->concurrency_max ? r->concurrency_max : NAN);
    add_number(out, "rate_scale", r->rate_scale), add_number(out, "length_scale", r->length_scale);
    buf_printf(out, "\"seed\":%" PRIu64 ",", r->seed);
    add_number(out, "duration", s->duration_s);
    add_number(out, "completed", s->completed), add_number(out, "failed", s->failed), add_number(out, "not_sent", s->unsent);
    buf_printf(out,
               "\"total_input_tokens\":%" PRIu64 ",\"total_output_tokens\":%" PRIu64 ",\"total_cached_tokens\":%" PRIu64 ",",
               s->input_tokens, s->output_tokens, s->cached_tokens);
    add_number(out, "request_throughput", s->request_throughput);
    add_number(out, "request_goodput", s->has_slo ? s->goodput : NAN),
        add_number(out, "slo_attainment", s->has_slo ? s->attainment : NAN);
    add_number(out, "input_throughput", s->input_throughput), add_number(out, "output_throughput", s->output_throughput);
    add_number(out, "total_token_throughput", s->total_throughput),
        add_number(out, "max_output_tokens_per_s", s->output_peak);
    add_number(out, "max_concurrent_requests", r->in_flight_max),
        add_number(out, "sessions_completed", s->sessions_completed);
    add_number(out, "cut_lengths", r->cut_lengths), add_number(out, "wrong_lengths", r->wrong_lengths);
    add_number(out, "made_up_answers", r->made_up_answers);
    for (int m = 0; m < METRIC_COUNT; m++) add_distribution(out, metrics[m].key, &s->of[m]);
    add_server(r, s, out);
    add_errors(r, out);
    buf_str(out, "}\n");
}

/* ---- a line a request ---- */

static void add_times(const outcome *o, buf *out) {
    add_number(out, "ttft_ms", outcome_ttft_ms(o)), add_number(out, "tpot_ms", outcome_tpot_ms(o));
    add_number(out, "max_itl_ms", o->gap_max_us * 1e-3), add_number(out, "e2el_ms", outcome_e2e_ms(o));
}

void report_requests(const record *r, const trace *t, buf *out) {
    static const char *const states[] = {"not_sent", "completed", "failed"};
    for (uint32_t i = 0; i < r->outcome_count; i++) {
        const outcome *o = &r->outcomes[i];
        buf_printf(out, "{\"session\":%u,\"turn\":%u,\"state\":\"%s\",\"prompt_tokens\":%u,\"output_tokens\":%u,",
                   o->session, o->turn, states[o->state], o->prompt_tokens, o->output_tokens);
        if (t->requests[i].tenant) add_string(out, "tenant", t->names[t->requests[i].tenant]);
        if (o->state != OUTCOME_UNSENT)
            add_number(out, "due_s", (double)o->due_us * 1e-6), add_number(out, "start_s", (double)o->start_us * 1e-6);
        if (o->state == OUTCOME_COMPLETED)
            add_number(out, "cached_tokens", o->cached_tokens), add_times(o, out),
                buf_printf(out, "\"good\":%s,", record_good(r, t, i) ? "true" : "false");
        if (o->state == OUTCOME_FAILED) add_string(out, "error", r->reasons[o->reason]);
        out->data[out->size - 1] = '}';
        buf_char(out, '\n');
    }
}
