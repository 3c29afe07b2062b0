#include "server/metrics.h"

#include <stdio.h>
#include <string.h>

/* ---- histograms ---- */
/* Our bounds contain vLLM's, so that one count serves both views; its own begin too coarse for a fast model. */
static const double seconds[] = {.0001, .0002, .0005, .001, .002, .003, .004, .005, .0075, .01,  .015, .02, .025,
                                 .03,   .04,   .05,   .06,  .075, .08,  .1,   .15,  .2,    .25,  .3,   .4,  .5,
                                 .75,   .8,    1,     1.5,  2,    2.5,  5,    7.5,  10,    15,   20,   30,  40,
                                 50,    60,    80,    120,  160,  240,  480,  640,  960,   1920, 2560, 7680};
static const double tokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
static const double vllm_first[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double vllm_token[] = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
static const double vllm_request[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double vllm_n[] = {1, 2, 5, 10, 20};

#define BOUNDS(a) a, sizeof(a) / sizeof *(a)
static const struct {
    const char   *native, *vllm; /* vllm NULL: none of that name */
    const char   *help;
    const double *bounds;
    size_t        bound_count;
    const double *vllm_bounds; /* a subset of bounds */
    size_t        vllm_bound_count;
} histogram_rows[HIST_COUNT] = {
    [HIST_TIME_TO_FIRST_TOKEN] = {"time_to_first_token_seconds", "time_to_first_token_seconds",
                                  "From the arrival of a request to its first token.", BOUNDS(seconds), BOUNDS(vllm_first)},
    [HIST_INTER_TOKEN] = {"inter_token_latency_seconds", "inter_token_latency_seconds", "Between two tokens of one answer.",
                          BOUNDS(seconds), BOUNDS(vllm_token)},
    [HIST_TIME_PER_TOKEN] = {"time_per_output_token_seconds", "request_time_per_output_token_seconds",
                             "Mean time per token after the first, of one answer.", BOUNDS(seconds), BOUNDS(vllm_token)},
    [HIST_END_TO_END] = {"request_seconds", "e2e_request_latency_seconds", "From arrival to the end of the answer.",
                         BOUNDS(seconds), BOUNDS(vllm_request)},
    [HIST_QUEUE] = {"request_queue_seconds", "request_queue_time_seconds", "Waiting for admission.", BOUNDS(seconds),
                    BOUNDS(vllm_request)},
    [HIST_INFERENCE] = {"request_inference_seconds", "request_inference_time_seconds", "From admission to the last token.",
                        BOUNDS(seconds), BOUNDS(vllm_request)},
    [HIST_PREFILL] = {"request_prefill_seconds", "request_prefill_time_seconds", "From admission to the first token.",
                      BOUNDS(seconds), BOUNDS(vllm_request)},
    [HIST_DECODE] = {"request_decode_seconds", "request_decode_time_seconds", "From the first token to the last.",
                     BOUNDS(seconds), BOUNDS(vllm_request)},
    [HIST_PREPARE] = {"request_prepare_seconds", NULL, "Reading, rendering and tokenizing a request.", BOUNDS(seconds), NULL,
                      0},
    [HIST_PROMPT_TOKENS] = {"request_prompt_tokens", "request_prompt_tokens", "Tokens of a prompt.", BOUNDS(tokens),
                            BOUNDS(tokens)},
    [HIST_OUTPUT_TOKENS] = {"request_output_tokens", "request_generation_tokens", "Tokens of an answer.", BOUNDS(tokens),
                            BOUNDS(tokens)},
    [HIST_MAX_TOKENS] = {"request_max_tokens", "request_params_max_tokens", "The most tokens a request asked for.",
                         BOUNDS(tokens), BOUNDS(tokens)},
    [HIST_N] = {"request_choices", "request_params_n", "Answers per prompt.", BOUNDS(tokens), BOUNDS(vllm_n)},
};

_Static_assert(sizeof seconds / sizeof *seconds <= HIST_BOUNDS_MAX, "a histogram has room for every bound");

void metrics_observe(metrics *m, histogram_id id, double value) {
    histogram *h = &m->histograms[id];
    size_t     low = 0, high = histogram_rows[id].bound_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (histogram_rows[id].bounds[middle] < value) low = middle + 1;
        else high = middle;
    }
    h->buckets[low]++;
    h->count++;
    h->sum += value;
}

/* ---- counters and gauges ---- */
typedef struct {
    double   running, waiting, waiting_tokens, pages_total, pages_free, pages_cached, pages_held, cache_use, frames_used;
    double   accepted, cancelled, preempted, recomputed, cache_queried, cache_hit, pages_evicted;
    double   passes, plan_s, host_s, weights_bytes, page_tokens;
    double   connections, connections_accepted, connections_refused, malformed;
    double   prompt_tokens, output_tokens, cached_tokens, start_time_s, one;
    counters count;
} values;

enum { COUNTER, GAUGE };
#define VALUE(member) false, offsetof(values, member)
#define COUNT(member) true, offsetof(values, count.member)
static const struct {
    const char *native, *vllm; /* without prefix; NULL: not under that name */
    int         kind;
    bool        is_integer; /* uint64_t, else double */
    size_t      offset;
    const char *labels, *help;
} rows[] = {
    {"requests_running", "num_requests_running", GAUGE, VALUE(running), NULL, "Requests in the running batch."},
    {"requests_waiting", "num_requests_waiting", GAUGE, VALUE(waiting), NULL, "Requests accepted and not yet running."},
    {NULL, "num_requests_waiting_by_reason", GAUGE, VALUE(waiting), "reason=\"capacity\"", "Requests waiting, by reason."},
    {"waiting_tokens", NULL, GAUGE, VALUE(waiting_tokens), NULL, "Prompt tokens among the waiting requests."},
    {"exchanges", NULL, GAUGE, COUNT(exchanges), NULL, "HTTP requests being worked on."},
    {"kv_cache_use", "kv_cache_usage_perc", GAUGE, VALUE(cache_use), NULL, "Share of KV pages held by requests, 0 to 1."},
    {NULL, "gpu_cache_usage_perc", GAUGE, VALUE(cache_use), NULL, "Older name of kv_cache_usage_perc."},
    {"kv_pages", NULL, GAUGE, VALUE(pages_held), "state=\"held\"", "KV pages by state."},
    {"kv_pages", NULL, GAUGE, VALUE(pages_cached), "state=\"cached\"", "KV pages by state."},
    {"kv_pages", NULL, GAUGE, VALUE(pages_free), "state=\"free\"", "KV pages by state."},
    {"frames_used", NULL, GAUGE, VALUE(frames_used), NULL, "Suspended slices."},
    {"weights_bytes", NULL, GAUGE, VALUE(weights_bytes), NULL, "Size of the weights on the device."},
    {"prompt_tokens_total", "prompt_tokens_total", COUNTER, VALUE(prompt_tokens), NULL, "Prompt tokens processed."},
    {"output_tokens_total", "generation_tokens_total", COUNTER, VALUE(output_tokens), NULL, "Tokens generated."},
    {"prompt_tokens_cached_total", "prompt_tokens_cached_total", COUNTER, VALUE(cached_tokens), NULL,
     "Prompt tokens found in the prefix cache."},
    {"prefix_cache_queries_total", "prefix_cache_queries_total", COUNTER, VALUE(cache_queried), NULL,
     "Tokens looked up in the prefix cache."},
    {"prefix_cache_hits_total", "prefix_cache_hits_total", COUNTER, VALUE(cache_hit), NULL,
     "Tokens found in the prefix cache."},
    {"kv_pages_evicted_total", NULL, COUNTER, VALUE(pages_evicted), NULL, "Cached KV pages given to other requests."},
    {"preemptions_total", "num_preemptions_total", COUNTER, VALUE(preempted), NULL, "Requests that lost their pages."},
    {"recomputed_tokens_total", NULL, COUNTER, VALUE(recomputed), NULL, "Tokens computed again after a preemption."},
    {"requests_accepted_total", NULL, COUNTER, VALUE(accepted), NULL, "Requests that got a place in the queue."},
    {"requests_finished_total", "request_success_total", COUNTER, COUNT(finished_stop), "finished_reason=\"stop\"",
     "Requests by the way they ended."},
    {"requests_finished_total", "request_success_total", COUNTER, COUNT(finished_length), "finished_reason=\"length\"",
     "Requests by the way they ended."},
    {"requests_finished_total", "request_success_total", COUNTER, COUNT(finished_abort), "finished_reason=\"abort\"",
     "Requests by the way they ended."},
    {"requests_finished_total", "request_success_total", COUNTER, COUNT(finished_error), "finished_reason=\"error\"",
     "Requests by the way they ended."},
    {"requests_refused_total", "admission_rejections_total", COUNTER, COUNT(refused_full), "reason=\"queue_full\"",
     "Requests refused before they were queued."},
    {"requests_refused_total", "admission_rejections_total", COUNTER, COUNT(refused_draining), "reason=\"draining\"",
     "Requests refused before they were queued."},
    {"requests_refused_total", NULL, COUNTER, COUNT(refused_key), "reason=\"key\"",
     "Requests refused before they were queued."},
    {"requests_refused_total", "admission_rejections_total", COUNTER, COUNT(refused_limit), "reason=\"key_limit\"",
     "Requests refused before they were queued."},
    {"requests_refused_total", NULL, COUNTER, COUNT(refused_invalid), "reason=\"invalid\"",
     "Requests refused before they were queued."},
    {"http_answers_total", NULL, COUNTER, COUNT(answers[2]), "status=\"2xx\"", "Answers of the API by status."},
    {"http_answers_total", NULL, COUNTER, COUNT(answers[4]), "status=\"4xx\"", "Answers of the API by status."},
    {"http_answers_total", NULL, COUNTER, COUNT(answers[5]), "status=\"5xx\"", "Answers of the API by status."},
    {"http_malformed_total", NULL, COUNTER, VALUE(malformed), NULL, "Requests that were not HTTP, too large or too slow."},
    {"http_connections", NULL, GAUGE, VALUE(connections), NULL, "Open connections."},
    {"http_connections_accepted_total", NULL, COUNTER, VALUE(connections_accepted), NULL, "Connections accepted."},
    {"http_connections_refused_total", NULL, COUNTER, VALUE(connections_refused), NULL, "Connections over the limit."},
    {"clients_gone_total", NULL, COUNTER, COUNT(clients_gone), NULL, "Clients that left before their answer was complete."},
    {"readers_too_slow_total", NULL, COUNTER, COUNT(readers_too_slow), NULL, "Streams cut off because nobody read them."},
    {"unknown_parameters_total", NULL, COUNTER, COUNT(unknown_parameters), NULL, "Members of requests that nobody knows."},
    {"passes_total", NULL, COUNTER, VALUE(passes), NULL, "Passes over the model."},
    {"plan_seconds_total", NULL, COUNTER, VALUE(plan_s), NULL, "Time spent deciding what runs next."},
    {"host_seconds_total", NULL, COUNTER, VALUE(host_s), NULL, "Host time of passes outside operators."},
    {"start_time_seconds", NULL, GAUGE, VALUE(start_time_s), NULL, "When the daemon started, Unix time."},
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

static void collect(const metrics_view *v, values *out) {
    const scheduler_stats *s = &v->snapshot->scheduler;
    *out = (values){
        .running = s->running,
        .waiting = s->waiting,
        .waiting_tokens = (double)s->waiting_tokens,
        .pages_total = s->pages_total,
        .pages_free = s->pages_free,
        .pages_cached = s->pages_cached,
        .pages_held = s->pages_held,
        .cache_use = s->pages_total ? (double)s->pages_held / s->pages_total : 0,
        .frames_used = s->frames_used,
        .accepted = (double)s->accepted,
        .cancelled = (double)s->cancelled,
        .preempted = (double)s->preempted,
        .recomputed = (double)s->recomputed_tokens,
        .cache_queried = (double)s->cache_queried_tokens,
        .cache_hit = (double)s->cache_hit_tokens,
        .pages_evicted = (double)s->pages_evicted,
        .passes = (double)v->snapshot->passes_done,
        .plan_s = (double)v->snapshot->plan_ns_total * 1e-9,
        .host_s = (double)v->snapshot->host_ns_total * 1e-9,
        .weights_bytes = (double)v->snapshot->weights_bytes,
        .page_tokens = v->snapshot->page_tokens,
        .connections = v->connections,
        .connections_accepted = (double)v->accepted,
        .connections_refused = (double)v->turned_away,
        .malformed = (double)v->malformed,
        .prompt_tokens = (double)s->prompt_tokens,
        .output_tokens = (double)s->generated_tokens,
        .cached_tokens = (double)s->cache_hit_tokens,
        .start_time_s = v->start_time_s,
        .one = 1,
        .count = v->metrics->count,
    };
}

/* ---- text ---- */
typedef struct {
    buf        *out;
    bool        vllm;
    char        common[320]; /* labels that every vLLM series carries */
    const char *prefix;
} writer;

static void write_header(writer *w, const char *name, const char *kind, const char *help) {
    buf_printf(w->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", w->prefix, name, help, w->prefix, name, kind);
}

static void write_sample(writer *w, const char *name, const char *labels, double value) {
    buf_str(w->out, w->prefix), buf_str(w->out, name);
    bool any = w->common[0] || labels;
    if (any) buf_char(w->out, '{');
    buf_str(w->out, w->common);
    if (w->common[0] && labels) buf_char(w->out, ',');
    if (labels) buf_str(w->out, labels);
    if (any) buf_char(w->out, '}');
    buf_printf(w->out, value == (double)(int64_t)value ? " %.0f\n" : " %.9g\n", value);
}

static void write_rows(writer *w, const values *v) {
    const char *previous = "";
    for (int i = 0; i < ROW_COUNT; i++) {
        const char *name = w->vllm ? rows[i].vllm : rows[i].native;
        if (!name) continue;
        const char *at = (const char *)v + rows[i].offset;
        double value = rows[i].is_integer ? (double)*(const uint64_t *)(const void *)at : *(const double *)(const void *)at;
        if (strcmp(previous, name) != 0) write_header(w, name, rows[i].kind == COUNTER ? "counter" : "gauge", rows[i].help);
        write_sample(w, name, rows[i].labels, value);
        previous = name;
    }
}

static void write_histogram(writer *w, const metrics *m, int id) {
    const histogram *h = &m->histograms[id];
    const char      *name = w->vllm ? histogram_rows[id].vllm : histogram_rows[id].native;
    const double    *shown = w->vllm ? histogram_rows[id].vllm_bounds : histogram_rows[id].bounds;
    size_t           shown_count = w->vllm ? histogram_rows[id].vllm_bound_count : histogram_rows[id].bound_count, next = 0;
    uint64_t         sum = 0;
    char             label[48], series[96];
    if (!name) return;
    write_header(w, name, "histogram", histogram_rows[id].help);
    snprintf(series, sizeof series, "%s_bucket", name);
    for (size_t i = 0; i < histogram_rows[id].bound_count && next < shown_count; i++) {
        sum += h->buckets[i];
        if (histogram_rows[id].bounds[i] != shown[next]) continue;
        snprintf(label, sizeof label, "le=\"%.10g\"", shown[next++]);
        write_sample(w, series, label, (double)sum);
    }
    write_sample(w, series, "le=\"+Inf\"", (double)h->count);
    snprintf(series, sizeof series, "%s_sum", name);
    write_sample(w, series, NULL, h->sum);
    snprintf(series, sizeof series, "%s_count", name);
    write_sample(w, series, NULL, (double)h->count);
}

static void escape_label(char *out, size_t size, const char *s) {
    size_t n = 0;
    for (; *s && n + 3 < size; s++) {
        if (*s == '"' || *s == '\\') out[n++] = '\\';
        out[n++] = *s == '\n' ? ' ' : *s;
    }
    out[n] = 0;
}

static void write_cache_info(writer *w, const engine_snapshot *s) {
    char labels[128];
    snprintf(labels, sizeof labels, "block_size=\"%u\",num_gpu_blocks=\"%u\",enable_prefix_caching=\"True\"", s->page_tokens,
             s->page_count);
    write_header(w, "cache_config_info", "gauge", "Shape of the KV cache.");
    write_sample(w, "cache_config_info", labels, 1);
}

void metrics_write(const metrics_view *v, buf *out) {
    values now;
    char   model[256];
    collect(v, &now);
    escape_label(model, sizeof model, v->model_name);
    writer native = {.out = out, .prefix = "penstock_"}, vllm = {.out = out, .vllm = true, .prefix = "vllm:"};
    snprintf(vllm.common, sizeof vllm.common, "model_name=\"%s\",engine=\"0\"", model);
    write_rows(&native, &now);
    for (int i = 0; i < HIST_COUNT; i++) write_histogram(&native, v->metrics, i);
    write_rows(&vllm, &now);
    write_cache_info(&vllm, v->snapshot);
    for (int i = 0; i < HIST_COUNT; i++) write_histogram(&vllm, v->metrics, i);
}
