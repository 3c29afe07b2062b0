/* bench/cmd_replay.c: `penstock-bench replay`: reads the flags and the trace, asks the server what it is, plays, reports. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/command_line.h"
#include "bench/commands.h"
#include "bench/replay.h"
#include "bench/shared_flags.h"

typedef struct {
    const char *url, *trace, *format, *slo, *model, *out, *api_key;
    double      rate_scale, length_scale, rate;
    uint32_t    requests, concurrency_max, vocab, max_context, seed;
    uint64_t    duration_us, timeout_us, gap_max_us;
    bool        hints, json, quiet;
} replay_flags;

#define AT(field) offsetof(replay_flags, field)
static const option_row rows[] = {
    {NULL, "url", OPTION_STRING, AT(url), 0, 0, "http://127.0.0.1:8080", NULL, "URL", "the server", false},
    {NULL, "trace", OPTION_STRING, AT(trace), 0, 0, NULL, NULL, "FILE", "what to play; plain or gzip", false},
    {NULL, "format", OPTION_CHOICE, AT(format), 0, 0, "auto", TRACE_FORMATS, NULL,
     "of the trace; auto looks at its first line", false},
    {NULL, "rate-scale", OPTION_F64, AT(rate_scale), 1e-6, 1e6, "1", NULL, "X",
     "the trace's time runs X times as fast: arrivals and the gaps of sessions", false},
    {NULL, "gap-max", OPTION_DURATION, AT(gap_max_us), 0, 1e9, "0s", NULL, "TIME",
     "no turn waits longer than it for a tool or a person; 0s: no limit", false},
    {NULL, "rate", OPTION_F64, AT(rate), 0, 1e6, "0", NULL, "R",
     "Poisson arrivals, R a second, in place of the trace's times; 0: its own, or 1 a second where it has none", false},
    {NULL, "length-scale", OPTION_F64, AT(length_scale), 1e-6, 1e3, "1", NULL, "X", "prompts and answers X times as long",
     false},
    {NULL, "requests", OPTION_U32, AT(requests), 0, TRACE_REQUESTS_MAX, "0", NULL, "N",
     "only the first N of the trace; 0: all", false},
    {NULL, "duration", OPTION_DURATION, AT(duration_us), 0, 1e9, "0s", NULL, "TIME",
     "send nothing after it (30s, 5min); 0s: no limit", false},
    {NULL, "slo", OPTION_STRING, AT(slo), 0, 0, NULL, NULL, "LIMITS",
     "what counts as in time: ttft_ms=..,tpot_ms=..,tbt_ms=..,e2e_ms=.. (some of them); the trace's own win", false},
    {NULL, "concurrency-max", OPTION_U32, AT(concurrency_max), 0, 1000000, "0", NULL, "N",
     "at most N at once, what is due waits; 0: no limit", false},
    {NULL, "model", OPTION_STRING, AT(model), 0, 0, NULL, NULL, "NAME", "default: the first that the server lists", false},
    {NULL, "vocab", OPTION_U32, AT(vocab), 0, 1 << 24, "0", NULL, "N", "token ids there are; 0: ask the server", false},
    {NULL, "max-context", OPTION_U32, AT(max_context), 0, 1 << 30, "0", NULL, "N",
     "cut prompt and answer to N tokens together; 0: what the server says it can take", false},
    {NULL, "timeout", OPTION_DURATION, AT(timeout_us), 0.1, 1e6, "10min", NULL, "TIME", "after which a request has failed",
     false},
    {NULL, "api-key", OPTION_STRING, AT(api_key), 0, 0, NULL, NULL, "KEY", "sent as a bearer token", false},
    {NULL, "hints", OPTION_BOOL, AT(hints), 0, 0, "no", NULL, NULL,
     "tell the server what the trace knows: tenant, job, slo, the gap to come", false},
    {NULL, "seed", OPTION_U32, AT(seed), 0, 4294967295.0, "0", NULL, "S", "same seed, same prompts", false},
    {NULL, "out", OPTION_STRING, AT(out), 0, 0, NULL, NULL, "DIR", "write report.json, report.html and requests.jsonl there",
     false},
    {NULL, "json", OPTION_BOOL, AT(json), 0, 0, "no", NULL, NULL, "print the report as JSON in place of the table", false},
    {NULL, "quiet", OPTION_BOOL, AT(quiet), 0, 0, "no", NULL, NULL, "show no progress", false},
};
#undef AT
enum { ROW_COUNT = sizeof rows / sizeof *rows };

static const char usage[] =
    "Plays a trace of requests against a server that speaks the OpenAI API: open loop, exact lengths, shared prefixes\n"
    "and sessions as in the trace. docs/replay.md says what the formats and the figures are.\n\n"
    "Usage: penstock-bench replay --trace FILE [--url URL] [options]\n\n";

/* ---- reports ---- */

static int write_reports(const char *folder, const record *r, const summary *s, const trace *t, error *err) {
    buf json, html, lines;
    buf_init(&json, REPORT_BYTES_MAX), buf_init(&html, REPORT_BYTES_MAX), buf_init(&lines, REPORT_BYTES_MAX);
    report_json(r, s, &json), report_html(r, s, &html), report_requests(r, t, &lines);
    int code = write_file(folder, "report.json", &json, err);
    if (code == OK) code = write_file(folder, "report.html", &html, err);
    if (code == OK) code = write_file(folder, "requests.jsonl", &lines, err);
    buf_free(&json), buf_free(&html), buf_free(&lines);
    return code;
}

static int report(const replay_flags *f, const record *r, const trace *t, error *err) {
    summary s;
    summarize(r, t, &s);
    if (f->json) {
        buf json;
        buf_init(&json, REPORT_BYTES_MAX);
        report_json(r, &s, &json);
        fputs(json.data, stdout);
        buf_free(&json);
    } else {
        report_table(r, &s, stdout);
    }
    int code = f->out ? write_reports(f->out, r, &s, t, err) : OK;
    if (code == OK && f->out && !f->json) printf("%s/report.html shows it in plots\n", f->out);
    if (code == OK && s.completed == 0) code = error_set(err, ERR_IO, "no request was completed");
    summary_free(&s);
    return code;
}

/* ---- the whole ---- */

static void announce(const replay_flags *f, const replay_config *c, const trace *t) {
    if (f->quiet) return;
    fprintf(stderr, "%s (%s): %u requests in %u sessions, arrivals over %.0f s at this rate, to %s at %s", f->trace,
            t->format, t->request_count, t->session_count, trace_span_s(t) / c->pace.rate_scale, c->model, c->url);
    if (c->rules.context_max) fprintf(stderr, ", context %u", c->rules.context_max);
    fprintf(stderr, ", ids below %u\n", c->rules.vocab_size);
}

static int play(const replay_flags *f, replay_config *c, trace *t, error *err) {
    server_facts facts;
    record       r;
    char         date[32];
    time_t       now = time(NULL);
    int          code = replay_ask_server(c, &facts, err);
    if (code != OK) return code;
    if (f->rate > 0 || !t->has_times) trace_draw_arrivals(t, f->rate > 0 ? f->rate : 1, f->seed);
    announce(f, c, t);
    record_init(&r, t->request_count);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    r.title = "Replay", r.url = c->url, r.model = c->model, r.trace_name = file_name(f->trace), r.date = date;
    r.rate_scale = c->pace.rate_scale, r.length_scale = c->rules.length_scale;
    r.concurrency_max = c->concurrency_max, r.seed = f->seed;
    code = replay_run(c, t, facts.has_metrics, &r, err);
    if (code == OK) code = report(f, &r, t, err);
    record_free(&r);
    return code;
}

static int replay(const replay_flags *f, error *err) {
    trace         t;
    replay_config c = {
        .url = f->url,
        .api_key = f->api_key,
        .model = f->model,
        .rules = {f->seed, f->vocab, f->length_scale, f->max_context},
        .pace = {.rate_scale = f->rate_scale, .gap_max_us = f->gap_max_us, .duration_us = f->duration_us},
        .timeout_us = f->timeout_us,
        .concurrency_max = f->concurrency_max,
        .hints = f->hints,
        .quiet = f->quiet,
    };
    if (!f->trace) return error_set(err, ERR_USAGE, "no trace was given; write --trace FILE (bench/traces holds two)");
    if (f->max_context == 1) return error_set(err, ERR_USAGE, "--max-context must leave room for a prompt and an answer");
    int code = f->slo ? read_slo(f->slo, &c.slo, err) : OK;
    if (code == OK && f->out) code = make_folder(f->out, err);
    if (code == OK) code = trace_open(&t, f->trace, f->format, f->requests, err);
    if (code != OK) return code;
    code = play(f, &c, &t, err);
    trace_close(&t);
    return code;
}

int cmd_replay(int argc, char **argv) {
    replay_flags f = {0};
    command_line line = {.usage = usage, .rows = rows, .row_count = ROW_COUNT, .values = &f};
    error        err = {0};
    int          code = command_line_read(&line, argc, argv, &err);
    if (code == OK && !line.help) code = replay(&f, &err);
    if (code != OK) fprintf(stderr, "penstock-bench replay: %s\n", err.text);
    command_line_free(&line);
    return error_exit_status(code);
}
