/* One page, complete in itself: what was run, the figures, and where the time went. Readable without colour and in the dark;
 * size is bounded whatever the run: curves are drawn from quantiles, timelines from bins, and of very many requests every
 * n-th is drawn. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "bench/plot.h"
#include "bench/report.h"

enum { CURVE_POINTS = 240, TIMELINE_POINTS = 300, BARS_MAX = 1500, DOTS_MAX = 4000, THIRD = 372, WHOLE = 1140 };

const char report_style[] =
    ":root{color-scheme:light "
    "dark;--ink:#1c2430;--soft:#5d6878;--line:#dfe3e8;--page:#fbfbfa;--card:#fff;--a:#2f6db5;--b:#d07a1f;"
    "--c:#2a8f76;--bad:#c2413a}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#98a3b1;--line:#2f3742;--page:#14181d;--card:#1b2027;--a:#"
    "6ea8e6;"
    "--b:#e8a254;--c:#57c2a5;--bad:#ee7d74}}"
    "body{margin:0 auto;max-width:1180px;padding:28px 20px 60px;background:var(--page);color:var(--ink);"
    "font:15px/1.5 system-ui,sans-serif}"
    "h1{font-size:22px;margin:0}h2{font-size:16px;margin:34px 0 8px}p{margin:4px 0;color:var(--soft)}"
    ".row{display:flex;flex-wrap:wrap;gap:12px}.row>*{flex:1 1 340px}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px;margin:20px 0}"
    ".tile,figure{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:0}.tile{padding:10px 14px}"
    ".tile b{display:block;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}.tile "
    "span{color:var(--soft);font-size:13px}"
    "figure{padding:8px 6px 4px;margin-bottom:12px}svg{width:100%;height:auto;display:block}"
    "svg text{font-size:11px;fill:var(--soft)}svg .title{font-size:12.5px;font-weight:600;fill:var(--ink)}"
    ".grid{stroke:var(--line);stroke-width:1;fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    ".line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}.area{stroke:none;opacity:.16}.area.a{fill:var("
    "--a)}"
    ".area.c{fill:var(--c)}.area.soft{fill:var(--soft)}.line.soft{stroke:var(--soft);stroke-width:1.2}"
    ".mark{fill:none;stroke-width:1.2;stroke-dasharray:4 3}.mark.bad{stroke:var(--bad)}svg text.bad{fill:var(--bad)}"
    ".bars{fill:none}.bars.wait{stroke:var(--b);opacity:.55}.bars.run{stroke:var(--a)}.bars.fail{stroke:var(--bad)}"
    ".dots{fill:none;stroke:var(--a);stroke-width:3.2;stroke-linecap:round;opacity:.45}.dot{fill:var(--a)}"
    ".key{font-size:13px;color:var(--soft);margin:0 0 6px 52px}.key i{display:inline-block;width:14px;height:3px;margin:0 "
    "6px 3px 14px}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:3px 18px 3px 0;text-align:right;"
    "border-bottom:1px solid "
    "var(--line)}th{font-weight:600;color:var(--soft);font-size:13px}td:first-child,th:first-child{text-align:left}"
    ".wide{overflow-x:auto}";

/* ---- head ---- */

static void tile(buf *out, const char *value, const char *what) {
    buf_str(out, "<div class=tile><b>"), plot_text(out, value), buf_str(out, "</b><span>"), plot_text(out, what);
    buf_str(out, "</span></div>");
}

__attribute__((format(printf, 3, 4))) static void tile_f(buf *out, const char *what, const char *format, ...) {
    char    value[64];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    tile(out, value, what);
}

static void head(const record *r, const summary *s, buf *out) {
    buf_str(out,
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>");
    plot_text(out, r->title), buf_str(out, ": "), plot_text(out, r->trace_name ? r->trace_name : "");
    buf_str(out, "</title><style>"), buf_str(out, report_style), buf_str(out, "</style><h1>"), plot_text(out, r->title);
    buf_str(out, "</h1><p>"), plot_text(out, r->trace_name ? r->trace_name : "");
    if (r->model) buf_str(out, " against "), plot_text(out, r->model);
    if (r->url) buf_str(out, " at "), plot_text(out, r->url);
    buf_printf(out, "; time %g times as fast, lengths %g times; seed %" PRIu64, r->rate_scale, r->length_scale, r->seed);
    if (r->concurrency_max) buf_printf(out, "; at most %u at once", r->concurrency_max);
    if (r->date) buf_str(out, "; "), plot_text(out, r->date);
    buf_str(out, r->interrupted ? "; stopped early</p>" : "</p>");
    buf_str(out, "<div class=tiles>");
    tile_f(out, s->failed ? "completed / failed" : "completed, none failed", s->failed ? "%u / %u" : "%u", s->completed,
           s->failed);
    if (s->has_slo) tile_f(out, "in time (SLO attainment)", "%.1f %%", 100 * s->attainment);
    if (s->has_slo) tile_f(out, "goodput, requests/s", "%.2f", s->goodput);
    tile_f(out, "requests/s", "%.2f", s->request_throughput);
    tile_f(out, "output tokens/s", "%.0f", s->output_throughput);
    tile_f(out, "p50 / p99 first token, ms", "%.3g / %.3g", s->of[METRIC_TTFT].p50, s->of[METRIC_TTFT].p99);
    tile_f(out, "p50 / p99 per token, ms", "%.3g / %.3g", s->of[METRIC_TPOT].p50, s->of[METRIC_TPOT].p99);
    tile_f(out, "most at once", "%u", r->in_flight_max);
    buf_str(out, "</div>");
}

/* ---- distributions ---- */

/* The limit that all requests share, or 0. */
static double common_limit(const record *r, size_t offset) {
    double limit = 0;
    for (uint32_t i = 0; i < r->outcome_count; i++) {
        double own;
        memcpy(&own, (const char *)&r->outcomes[i].slo + offset, sizeof own);
        if (i == 0) limit = own;
        if (own != limit) return 0;
    }
    return limit;
}

/* Wide ranges on a logarithmic axis; both ends at data, or the limit if that lies outside. */
static plot open_curve(buf *out, const char *title, const series *v, double limit) {
    double    low = v->values[0], high = fmax(v->values[v->count - 1], limit);
    plot_axes axes = {.title = title,
                      .x_label = "milliseconds",
                      .y_label = "",
                      .y_max = 1,
                      .y_percent = true,
                      .width = THIRD,
                      .height = 240};
    axes.log_x = low > 0 && series_percentile(v, 99) > 20 * low;
    axes.x_min = axes.log_x ? fmax(low, high * 1e-5) : 0, axes.x_max = high;
    return plot_open(out, &axes);
}

static void curve(buf *out, const char *title, const series *v, double limit) {
    double x[CURVE_POINTS], y[CURVE_POINTS];
    if (!v->count) return;
    buf_str(out, "<figure>");
    plot p = open_curve(out, title, v, limit);
    for (int i = 0; i < CURVE_POINTS; i++) {
        y[i] = (double)i / (CURVE_POINTS - 1);
        y[i] = 1 - (1 - y[i]) * (1 - y[i]); /* more points in the tail */
        x[i] = series_percentile(v, y[i] * 100);
    }
    plot_line(out, &p, x, y, CURVE_POINTS, "a");
    for (int i = 0; i < 3; i++) {
        double percentile = (const double[]){50, 90, 99}[i], at = series_percentile(v, percentile), px = plot_x(&p, at);
        bool   right = px < p.left + p.inner_width - 80;
        buf_printf(out, "<circle class=dot r=3 cx=%.1f cy=%.1f /><text x=%.1f y=%.1f text-anchor=%s>p%.0f %.4g</text>", px,
                   plot_y(&p, percentile / 100), right ? px + 7 : px - 7, plot_y(&p, percentile / 100) + (right ? 12 : 14),
                   right ? "start" : "end", percentile, at);
    }
    if (limit > 0) plot_mark_x(out, &p, limit, "SLO", "bad");
    plot_close(out);
    buf_str(out, "</figure>");
}

static void curves(const record *r, const summary *s, buf *out) {
    buf_str(out, "<h2>Latency: share of requests that took at most so long</h2><div class=row>");
    curve(out, "Time to first token", &s->samples[METRIC_TTFT], common_limit(r, offsetof(slo, ttft_ms)));
    curve(out, "Time per output token", &s->samples[METRIC_TPOT], common_limit(r, offsetof(slo, tpot_ms)));
    curve(out, "End-to-end latency", &s->samples[METRIC_E2EL], common_limit(r, offsetof(slo, e2e_ms)));
    buf_str(out, "</div>");
    if (!s->samples[METRIC_JCT].count && !s->samples[METRIC_ITL].count) return;
    buf_str(out, "<div class=row>");
    curve(out, "Inter-token latency", &s->samples[METRIC_ITL], common_limit(r, offsetof(slo, tbt_ms)));
    curve(out, "Job completion (whole sessions)", &s->samples[METRIC_JCT], 0);
    curve(out, "Sent after due (the client's own delay)", &s->samples[METRIC_LAG], 0);
    buf_str(out, "</div>");
}

/* ---- over time ---- */

typedef struct {
    double x[TIMELINE_POINTS + 1], in_flight[TIMELINE_POINTS + 1], first[TIMELINE_POINTS + 1], tokens[TIMELINE_POINTS + 1];
    double end_s, in_flight_max, tokens_max;
} timeline;

static size_t point_at(const timeline *t, uint64_t us) {
    double at = (double)us * 1e-6 / t->end_s * TIMELINE_POINTS;
    return at >= TIMELINE_POINTS ? TIMELINE_POINTS : at > 0 ? (size_t)at : 0;
}

/* From differences: +1 where a request begins, -1 where it ends. */
static void count_in_flight(const record *r, timeline *t) {
    for (uint32_t i = 0; i < r->outcome_count; i++) {
        const outcome *o = &r->outcomes[i];
        if (o->state == OUTCOME_UNSENT) continue;
        uint64_t first_us = o->state == OUTCOME_COMPLETED ? o->first_us : o->end_us;
        size_t   from = point_at(t, o->start_us), first = point_at(t, first_us), to = point_at(t, o->end_us);
        t->in_flight[from]++, t->first[from]++, t->first[first]--, t->in_flight[to]--;
    }
    for (size_t i = 1; i <= TIMELINE_POINTS; i++) t->in_flight[i] += t->in_flight[i - 1], t->first[i] += t->first[i - 1];
}

static void count_tokens(const record *r, const summary *s, timeline *t) {
    uint64_t chunks = 0;
    double   width_s = t->end_s / TIMELINE_POINTS;
    for (uint32_t i = 0; i < r->bin_count; i++) {
        t->tokens[point_at(t, (uint64_t)i * BIN_US)] += r->chunk_bins[i], chunks += r->chunk_bins[i];
    }
    for (size_t i = 0; i <= TIMELINE_POINTS && chunks; i++)
        t->tokens[i] *= (double)s->output_tokens / (double)chunks / width_s;
}

static void fill_timeline(const record *r, const summary *s, timeline *t) {
    *t = (timeline){.end_s = 1e-3};
    for (uint32_t i = 0; i < r->outcome_count; i++)
        if (r->outcomes[i].state != OUTCOME_UNSENT) t->end_s = fmax(t->end_s, (double)r->outcomes[i].end_us * 1e-6);
    t->end_s = fmax(t->end_s, TIMELINE_POINTS * BIN_US * 1e-6 / 10);
    for (size_t i = 0; i <= TIMELINE_POINTS; i++) t->x[i] = (double)i / TIMELINE_POINTS * t->end_s;
    count_in_flight(r, t);
    count_tokens(r, s, t);
    for (size_t i = 0; i <= TIMELINE_POINTS; i++) {
        t->in_flight_max = fmax(t->in_flight_max, t->in_flight[i]);
        t->tokens_max = fmax(t->tokens_max, t->tokens[i]);
    }
}

static size_t sampled(const record *r, size_t offset, double *x, double *y, double *most) {
    size_t n = 0, every = r->sample_count / TIMELINE_POINTS + 1;
    for (uint32_t i = 0; i < r->sample_count && n <= TIMELINE_POINTS; i += every, n++) {
        x[n] = r->samples[i].at_s;
        memcpy(&y[n], (const char *)&r->samples[i] + offset, sizeof y[n]);
        if (y[n] > *most) *most = y[n];
    }
    return n;
}

static void requests_over_time(const record *r, const timeline *t, buf *out) {
    double x[TIMELINE_POINTS + 1], running[TIMELINE_POINTS + 1], waiting[TIMELINE_POINTS + 1], most = t->in_flight_max,
                                                                                               seen = -1;
    size_t n = sampled(r, offsetof(sample, running), x, running, &seen);
    sampled(r, offsetof(sample, waiting), x, waiting, &seen);
    buf_str(out, "<figure>");
    plot p = plot_open(out, &(plot_axes){.title = "Requests",
                                         .x_label = "seconds",
                                         .y_label = "",
                                         .x_max = t->end_s,
                                         .y_max = fmax(most, seen),
                                         .width = WHOLE,
                                         .height = 230});
    plot_area(out, &p, t->x, t->in_flight, TIMELINE_POINTS + 1, "soft");
    plot_line(out, &p, t->x, t->in_flight, TIMELINE_POINTS + 1, "soft");
    plot_line(out, &p, seen >= 0 ? x : t->x, seen >= 0 ? waiting : t->first, seen >= 0 ? n : TIMELINE_POINTS + 1, "b");
    if (seen >= 0) plot_line(out, &p, x, running, n, "a");
    plot_close(out);
    buf_str(out, "<p class=key><i style=\"background:var(--soft)\"></i>in flight at the client");
    if (seen >= 0)
        buf_str(out, "<i style=\"background:var(--a)\"></i>running at the server<i "
                     "style=\"background:var(--b)\"></i>waiting at the server</p></figure>");
    else buf_str(out, "<i style=\"background:var(--b)\"></i>without a first token yet</p></figure>");
}

static void tokens_over_time(const timeline *t, buf *out) {
    buf_str(out, "<figure>");
    plot p = plot_open(out, &(plot_axes){.title = "Output tokens per second",
                                         .x_label = "seconds",
                                         .y_label = "",
                                         .x_max = t->end_s,
                                         .y_max = t->tokens_max,
                                         .width = WHOLE,
                                         .height = 190});
    plot_area(out, &p, t->x, t->tokens, TIMELINE_POINTS, "c");
    plot_line(out, &p, t->x, t->tokens, TIMELINE_POINTS, "c");
    plot_close(out);
    buf_str(out, "</figure>");
}

static void kv_over_time(const record *r, const timeline *t, buf *out) {
    double x[TIMELINE_POINTS + 1], use[TIMELINE_POINTS + 1], most = -1;
    size_t n = sampled(r, offsetof(sample, kv_usage), x, use, &most);
    if (most < 0) return;
    buf_str(out, "<figure>");
    plot p = plot_open(out, &(plot_axes){.title = "KV cache in use",
                                         .x_label = "seconds",
                                         .y_label = "",
                                         .x_max = t->end_s,
                                         .y_max = 1,
                                         .y_percent = true,
                                         .width = WHOLE,
                                         .height = 170});
    plot_area(out, &p, x, use, n, "a");
    plot_line(out, &p, x, use, n, "a");
    plot_close(out);
    buf_str(out, "</figure>");
}

/* ---- request by request ---- */

static int by_start(const void *a, const void *b) {
    const outcome *x = *(const outcome *const *)a, *y = *(const outcome *const *)b;
    if (x->start_us != y->start_us) return x->start_us < y->start_us ? -1 : 1;
    return x < y ? -1 : x > y; /* of one array */
}

typedef enum { BAR_WAIT, BAR_RUN, BAR_FAIL, BAR_KINDS } bar_kind;

/* One path of horizontal strokes per kind. */
static void bars_of(buf *out, const plot *p, const outcome *const *sent, uint32_t n, uint32_t every, bar_kind kind) {
    static const char *const names[] = {"wait", "run", "fail"};
    double                   thickness = fmin(3, fmax(0.4, p->inner_height / (n / every + 1) * 0.7));
    buf_printf(out, "<path class=\"bars %s\" stroke-width=%.2f d=\"", names[kind], thickness);
    for (uint32_t i = 0; i < n; i += every) {
        const outcome *o = sent[i];
        bool           failed = o->state == OUTCOME_FAILED;
        if (failed != (kind == BAR_FAIL)) continue;
        uint64_t from = kind == BAR_RUN ? o->first_us : o->start_us, to = kind == BAR_WAIT ? o->first_us : o->end_us;
        double   x = plot_x(p, (double)from * 1e-6), end = plot_x(p, (double)to * 1e-6);
        buf_printf(out, "M%.1f %.1fH%.1f", x, plot_y(p, n - 1 - i), fmax(end, x + 0.6));
    }
    buf_str(out, "\"/>");
}

static void bars(buf *out, const outcome *const *sent, uint32_t n, double end_s) {
    uint32_t every = n / BARS_MAX + 1;
    buf_str(out, "<h2>Request by request</h2><figure>");
    plot p = plot_open(out, &(plot_axes){.title = "Each request, first sent on top",
                                         .y_bare = true,
                                         .x_label = "seconds",
                                         .y_label = "",
                                         .x_max = end_s,
                                         .y_max = n,
                                         .width = WHOLE,
                                         .height = 420});
    for (bar_kind kind = 0; kind < BAR_KINDS; kind++) bars_of(out, &p, sent, n, every, kind);
    plot_close(out);
    buf_str(out, "<p class=key><i style=\"background:var(--b)\"></i>to the first token<i "
                 "style=\"background:var(--a)\"></i>to the last"
                 "<i style=\"background:var(--bad)\"></i>failed");
    if (every > 1) buf_printf(out, "; every %u. request is drawn", every);
    buf_str(out, "</p></figure>");
}

static void dots(buf *out, const outcome *const *sent, uint32_t n) {
    double   x_max = 1, y_max = 0;
    uint32_t every = n / DOTS_MAX + 1;
    for (uint32_t i = 0; i < n; i++)
        if (sent[i]->state == OUTCOME_COMPLETED)
            x_max = fmax(x_max, sent[i]->prompt_tokens), y_max = fmax(y_max, outcome_ttft_ms(sent[i]));
    buf_str(out, "<figure>");
    plot p = plot_open(out, &(plot_axes){.title = "Time to first token by length of the prompt",
                                         .x_label = "prompt tokens",
                                         .y_label = "ms",
                                         .x_max = x_max,
                                         .y_max = y_max,
                                         .width = WHOLE,
                                         .height = 300});
    buf_str(out, "<path class=dots d=\"");
    for (uint32_t i = 0; i < n; i += every)
        if (sent[i]->state == OUTCOME_COMPLETED)
            buf_printf(out, "M%.1f %.1fh0", plot_x(&p, sent[i]->prompt_tokens), plot_y(&p, outcome_ttft_ms(sent[i])));
    buf_str(out, "\"/>");
    plot_close(out);
    buf_str(out, "</figure>");
}

static void request_by_request(const record *r, double end_s, buf *out) {
    uint32_t        n = 0;
    const outcome **sent = malloc((r->outcome_count + 1u) * sizeof *sent);
    if (!sent) fatal("out of memory for %u requests", r->outcome_count);
    for (uint32_t i = 0; i < r->outcome_count; i++)
        if (r->outcomes[i].state != OUTCOME_UNSENT) sent[n++] = &r->outcomes[i];
    qsort(sent, n, sizeof *sent, by_start);
    bars(out, sent, n, end_s);
    dots(out, sent, n);
    free(sent);
}

/* ---- figures ---- */

static void table(const record *r, const summary *s, buf *out) {
    buf_str(out,
            "<h2>Figures</h2><div "
            "class=wide><table><tr><th>milliseconds<th>samples<th>mean<th>std<th>min<th>p50<th>p90<th>p95<th>p99<th>max");
    for (int m = 0; m < METRIC_COUNT; m++) {
        const distribution *d = &s->of[m];
        if (!d->count) continue;
        buf_str(out, "<tr><td>"), plot_text(out, metric_label((metric)m));
        buf_printf(out, "<td>%zu<td>%.2f<td>%.2f<td>%.2f<td>%.2f<td>%.2f<td>%.2f<td>%.2f<td>%.2f", d->count, d->mean, d->std,
                   d->min, d->p50, d->p90, d->p95, d->p99, d->max);
    }
    buf_printf(out,
               "</table></div><p>%u completed, %u failed, %u not sent in %.2f s. Input %" PRIu64 " tokens (%" PRIu64
               " found in the cache), output %" PRIu64 ", at most %.0f a second.</p>",
               s->completed, s->failed, s->unsent, s->duration_s, s->input_tokens, s->cached_tokens, s->output_tokens,
               s->output_peak);
    for (uint32_t i = 0; i < r->reason_count; i++) {
        buf_printf(out, "<p>%u failed: ", r->reason_counts[i]);
        plot_text(out, r->reasons[i]), buf_str(out, "</p>");
    }
    if (r->cut_lengths)
        buf_printf(out, "<p>%u requests of the trace were cut to the context of the model.</p>", r->cut_lengths);
    if (r->wrong_lengths) buf_printf(out, "<p>%u prompts or answers were not as long as asked for.</p>", r->wrong_lengths);
}

void report_html(const record *r, const summary *s, buf *out) {
    timeline t;
    head(r, s, out);
    fill_timeline(r, s, &t);
    curves(r, s, out);
    buf_str(out, "<h2>Over time</h2>");
    requests_over_time(r, &t, out);
    tokens_over_time(&t, out);
    kv_over_time(r, &t, out);
    request_by_request(r, t.end_s, out);
    table(r, s, out);
    buf_str(out, "<p>Made by penstock-bench " PENSTOCK_VERSION ".</p></html>\n");
}
