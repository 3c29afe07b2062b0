#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/report.h"

enum { BINS_MAX = 1 << 22, GAPS_MAX = 1 << 28, SAMPLES_MAX = 1 << 20 };

void record_init(record *r, uint32_t outcome_count) {
    *r = (record){.outcome_count = outcome_count};
    r->outcomes = calloc(outcome_count + 1u, sizeof *r->outcomes);
    if (!r->outcomes) fatal("out of memory for %u requests", outcome_count);
    for (int m = 0; m < SCRAPE_COUNT; m++) r->before.value[m] = r->after.value[m] = NAN;
}

void record_free(record *r) { free(r->outcomes), free(r->samples), free(r->gaps_us), free(r->chunk_bins); }

void record_gap(record *r, uint32_t gap_us) {
    if (r->gap_count == GAPS_MAX) return;
    if (r->gap_count == r->gap_capacity) {
        r->gap_capacity = r->gap_capacity ? r->gap_capacity * 2 : 4096;
        r->gaps_us = realloc(r->gaps_us, r->gap_capacity * sizeof *r->gaps_us);
        if (!r->gaps_us) fatal("out of memory for %zu gaps", r->gap_capacity);
    }
    r->gaps_us[r->gap_count++] = gap_us;
}

void record_chunk(record *r, uint64_t at_us) {
    uint64_t bin = at_us / BIN_US;
    if (bin >= BINS_MAX) return;
    if (bin >= r->bin_capacity) {
        uint32_t want = (uint32_t)bin * 2 + 1024;
        r->chunk_bins = realloc(r->chunk_bins, want * sizeof *r->chunk_bins);
        if (!r->chunk_bins) fatal("out of memory for a timeline of %u points", want);
        memset(r->chunk_bins + r->bin_capacity, 0, (want - r->bin_capacity) * sizeof *r->chunk_bins);
        r->bin_capacity = want;
    }
    r->chunk_bins[bin]++;
    if (bin >= r->bin_count) r->bin_count = (uint32_t)bin + 1;
}

void record_sample(record *r, const sample *s) {
    if (r->sample_count == SAMPLES_MAX) return;
    if (r->sample_count == r->sample_capacity) {
        r->sample_capacity = r->sample_capacity ? r->sample_capacity * 2 : 256;
        r->samples = realloc(r->samples, r->sample_capacity * sizeof *r->samples);
        if (!r->samples) fatal("out of memory for %u samples", r->sample_capacity);
    }
    r->samples[r->sample_count++] = *s;
}

uint16_t record_reason(record *r, const char *why) {
    uint32_t i = 0;
    while (i < r->reason_count && strncmp(r->reasons[i], why, REASON_BYTES - 1) != 0) i++;
    if (i >= REASONS_MAX - 1) i = REASONS_MAX - 1, why = "other reasons";
    if (i == r->reason_count) {
        size_t n = strnlen(why, REASON_BYTES - 1);
        memcpy(r->reasons[i], why, n), r->reasons[i][n] = 0, r->reason_count++;
    }
    r->reason_counts[i]++;
    return (uint16_t)i;
}

/* ---- figures ---- */

double outcome_ttft_ms(const outcome *o) { return (double)(o->first_us - o->start_us) * 1e-3; }
double outcome_e2e_ms(const outcome *o) { return (double)(o->end_us - o->start_us) * 1e-3; }
double outcome_tpot_ms(const outcome *o) {
    return o->output_tokens > 1 ? (double)(o->end_us - o->first_us) * 1e-3 / (o->output_tokens - 1) : NAN;
}

static bool within(double value, double limit) { return !(limit > 0) || !(value > limit); } /* NAN is within */

/* A job is good or not as a whole: what its first turns did in time is worth nothing if the last one is late. */
static bool job_within(const record *r, const trace *t, const outcome *o) {
    const trace_session *s = &t->sessions[o->session];
    const outcome       *first = &r->outcomes[s->first], *last = first + s->count - 1;
    return !(o->slo.job_ms > 0) ||
           (last->state == OUTCOME_COMPLETED && within((double)(last->end_us - first->start_us) * 1e-3, o->slo.job_ms));
}

bool record_good(const record *r, const trace *t, uint32_t request) {
    const outcome *o = &r->outcomes[request];
    return o->state == OUTCOME_COMPLETED && within(outcome_ttft_ms(o), o->slo.ttft_ms) &&
           within(outcome_tpot_ms(o), o->slo.tpot_ms) && within(o->gap_max_us * 1e-3, o->slo.tbt_ms) &&
           within(outcome_e2e_ms(o), o->slo.e2e_ms) && job_within(r, t, o);
}

static void count_outcome(const record *r, const trace *t, uint32_t i, summary *s) {
    const outcome *o = &r->outcomes[i];
    if (o->state == OUTCOME_UNSENT) {
        s->unsent++;
        return;
    }
    series_add(&s->samples[METRIC_LAG], (double)(o->start_us - o->due_us) * 1e-3);
    s->has_slo = s->has_slo || slo_given(&o->slo);
    if (o->state == OUTCOME_FAILED) {
        s->failed++;
        return;
    }
    double tpot_ms = outcome_tpot_ms(o);
    s->completed++, s->good += record_good(r, t, i);
    s->input_tokens += o->prompt_tokens, s->output_tokens += o->output_tokens, s->cached_tokens += o->cached_tokens;
    series_add(&s->samples[METRIC_TTFT], outcome_ttft_ms(o));
    series_add(&s->samples[METRIC_E2EL], outcome_e2e_ms(o));
    if (!isnan(tpot_ms)) series_add(&s->samples[METRIC_TPOT], tpot_ms);
}

/* A session of one turn is no job. */
static void count_session(const record *r, const trace_session *session, summary *s) {
    const outcome *first = &r->outcomes[session->first], *last = first + session->count - 1;
    if (session->count < 2) return;
    for (const outcome *o = first; o <= last; o++)
        if (o->state != OUTCOME_COMPLETED) return;
    s->sessions_completed++;
    series_add(&s->samples[METRIC_JCT], (double)(last->end_us - first->due_us) * 1e-3);
}

/* The most chunks within a second, in steps of a bin, scaled to tokens (a chunk may hold several). */
static double peak_per_second(const record *r, uint64_t tokens) {
    uint64_t       window = 0, most = 0, all = 0;
    const uint32_t bins = 1000000 / BIN_US;
    for (uint32_t i = 0; i < r->bin_count; i++) {
        window += r->chunk_bins[i], all += r->chunk_bins[i];
        if (i >= bins) window -= r->chunk_bins[i - bins];
        if (window > most) most = window;
    }
    return all ? (double)most * (double)tokens / (double)all : 0;
}

static double mean_kv_usage(const record *r) {
    double   sum = 0;
    uint32_t known = 0;
    for (uint32_t i = 0; i < r->sample_count; i++)
        if (!isnan(r->samples[i].kv_usage)) sum += r->samples[i].kv_usage, known++;
    return known ? sum / known : NAN;
}

static double rate(double count, double seconds) { return seconds > 0 ? count / seconds : 0; }

/* Millions of whole numbers: by their digits of eleven bits, from the last. */
static void sort_numbers(uint32_t *from, uint32_t *to, size_t n) {
    enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };
    size_t at[DIGITS];
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) { /* three times: an odd number, so the last pass fills `to` */
        memset(at, 0, sizeof at);
        for (size_t i = 0; i < n; i++) at[from[i] >> shift & (DIGITS - 1)]++;
        for (size_t sum = 0, d = 0; d < DIGITS; d++) {
            const size_t count = at[d];
            at[d] = sum, sum += count;
        }
        for (size_t i = 0; i < n; i++) to[at[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        uint32_t *spare = from;
        from = to, to = spare;
    }
}

static void add_gaps(const record *r, series *out) {
    uint32_t *from = malloc((r->gap_count + 1) * sizeof *from), *to = malloc((r->gap_count + 1) * sizeof *to);
    if (!from || !to) fatal("out of memory for %zu gaps", r->gap_count);
    if (r->gap_count) memcpy(from, r->gaps_us, r->gap_count * sizeof *from);
    sort_numbers(from, to, r->gap_count);
    for (size_t i = 0; i < r->gap_count; i++) series_add(out, to[i] * 1e-3);
    free(from), free(to);
}

void summarize(const record *r, const trace *t, summary *s) {
    *s = (summary){.duration_s = (double)r->duration_us * 1e-6};
    for (uint32_t i = 0; i < r->outcome_count; i++) count_outcome(r, t, i, s);
    for (uint32_t i = 0; i < t->session_count; i++)
        if (t->sessions[i].count) count_session(r, &t->sessions[i], s);
    add_gaps(r, &s->samples[METRIC_ITL]);
    for (int m = 0; m < METRIC_COUNT; m++) s->of[m] = series_describe(&s->samples[m]);
    const uint32_t sent = s->completed + s->failed;
    s->attainment = sent ? (double)s->good / sent : 0;
    s->request_throughput = rate(s->completed, s->duration_s), s->goodput = rate(s->good, s->duration_s);
    s->input_throughput = rate((double)s->input_tokens, s->duration_s);
    s->output_throughput = rate((double)s->output_tokens, s->duration_s);
    s->total_throughput = s->input_throughput + s->output_throughput;
    s->kv_usage = mean_kv_usage(r);
    s->output_peak = peak_per_second(r, s->output_tokens);
}

void summary_free(summary *s) {
    for (int m = 0; m < METRIC_COUNT; m++) series_free(&s->samples[m]);
}
