#include "bench/scrape.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The first name of a metric that a page has wins: our own stand before vLLM's, which our pages repeat. */
static const struct {
    scrape_metric metric;
    const char   *name;
} names[] = {
    {SCRAPE_RUNNING, "penstock_requests_running"},
    {SCRAPE_RUNNING, "vllm:num_requests_running"},
    {SCRAPE_RUNNING, "sglang:num_running_reqs"},
    {SCRAPE_RUNNING, "llamacpp:requests_processing"},
    {SCRAPE_WAITING, "penstock_requests_waiting"},
    {SCRAPE_WAITING, "vllm:num_requests_waiting"},
    {SCRAPE_WAITING, "sglang:num_queue_reqs"},
    {SCRAPE_WAITING, "llamacpp:requests_deferred"},
    {SCRAPE_KV_USAGE, "penstock_kv_cache_use"},
    {SCRAPE_KV_USAGE, "vllm:kv_cache_usage_perc"},
    {SCRAPE_KV_USAGE, "vllm:gpu_cache_usage_perc"},
    {SCRAPE_KV_USAGE, "sglang:token_usage"},
    {SCRAPE_KV_USAGE, "llamacpp:kv_cache_usage_ratio"},
    {SCRAPE_OUTPUT_TOKENS, "penstock_output_tokens_total"},
    {SCRAPE_OUTPUT_TOKENS, "vllm:generation_tokens_total"},
    {SCRAPE_OUTPUT_TOKENS, "sglang:generation_tokens_total"},
    {SCRAPE_OUTPUT_TOKENS, "llamacpp:tokens_predicted_total"},
    {SCRAPE_PREFIX_QUERIES, "penstock_prefix_cache_queries_total"},
    {SCRAPE_PREFIX_QUERIES, "vllm:prefix_cache_queries_total"},
    {SCRAPE_PREFIX_HITS, "penstock_prefix_cache_hits_total"},
    {SCRAPE_PREFIX_HITS, "vllm:prefix_cache_hits_total"},
    {SCRAPE_PREEMPTIONS, "penstock_preemptions_total"},
    {SCRAPE_PREEMPTIONS, "vllm:num_preemptions_total"},
};
enum { NAME_COUNT = sizeof names / sizeof *names };

typedef struct {
    double sum;
    int    samples;
} total;

/* "name{labels} value [time]"; labels may hold spaces and braces inside quotes. */
static bool split_sample(const char *line, const char *end, size_t *name_size, double *value) {
    const char *at = line;
    bool        quoted = false;
    char        number[40];
    while (at < end && *at != ' ' && *at != '{') at++;
    *name_size = (size_t)(at - line);
    if (at < end && *at == '{') {
        for (at++; at < end && (quoted || *at != '}'); at++) {
            if (quoted && *at == '\\' && at + 1 < end) at++;
            else if (*at == '"') quoted = !quoted;
        }
        if (at < end) at++;
    }
    while (at < end && *at == ' ') at++;
    size_t n = 0;
    while (at < end && *at != ' ' && n + 1 < sizeof number) number[n++] = *at++;
    number[n] = 0;
    char *stop;
    *value = strtod(number, &stop);
    return n > 0 && *stop == 0 && isfinite(*value);
}

static void take_line(const char *line, const char *end, total *totals) {
    size_t n;
    double value;
    if (line == end || *line == '#' || !split_sample(line, end, &n, &value)) return;
    for (int i = 0; i < NAME_COUNT; i++)
        if (strlen(names[i].name) == n && memcmp(names[i].name, line, n) == 0) totals[i].sum += value, totals[i].samples++;
}

void scrape_read(const char *page, size_t n, scrape *out) {
    total totals[NAME_COUNT] = {{0, 0}};
    for (const char *at = page, *end = page + n; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        take_line(at, stop > at && stop[-1] == '\r' ? stop - 1 : stop, totals);
        at = stop + 1;
    }
    for (int m = 0; m < SCRAPE_COUNT; m++) out->value[m] = NAN;
    for (int i = 0; i < NAME_COUNT; i++) {
        double *to = &out->value[names[i].metric];
        if (!totals[i].samples || !isnan(*to)) continue;
        *to = names[i].metric == SCRAPE_KV_USAGE ? totals[i].sum / totals[i].samples : totals[i].sum;
    }
}
