/* A comparison as one page: the figures of all cells with their ratios, and their curves over one another. The cells' own
 * pages are those of `replay`. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/version.h"
#include "bench/compare.h"
#include "bench/plot.h"

enum { CURVE_POINTS = 160, CURVES_MAX = 6, WIDTH = 560, HEIGHT = 300 };

static const char *const colours[CURVES_MAX] = {"#2f6db5", "#d07a1f", "#2a8f76", "#c2413a", "#8257b0", "#7d8793"};

static void head(const comparison *c, const cell *cells, buf *out) {
    buf_str(out,
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>");
    buf_str(out, "Comparison: "), plot_text(out, c->trace_name), buf_str(out, "</title><style>");
    buf_str(out, report_style);
    for (int i = 0; i < CURVES_MAX; i++) buf_printf(out, ".line.c%d{stroke:%s}", i, colours[i]);
    buf_str(out, "td small{color:var(--soft)}</style><h1>Comparison</h1><p>"), plot_text(out, c->trace_name);
    buf_str(out, ", "), plot_text(out, c->model_name), buf_str(out, " on ");
    plot_text(out, c->hardware ? c->hardware : "the default machine");
    buf_printf(out, ": %u requests, %.3g a second; seed %" PRIu64 "; simulated. Ratios are to the first.</p>",
               c->trace->request_count, cells[0].rate_rps, c->seed);
}

/* ---- figures ---- */

static const struct {
    const char *label;
    size_t      offset;
    double      unit;
    int         digits;
} columns[] = {
    {"first token, mean, ms", offsetof(cell, ttft_s.mean), 1e-3, 1},
    {"p99", offsetof(cell, ttft_s.p99), 1e-3, 1},
    {"per token, mean, ms", offsetof(cell, tpot_s.mean), 1e-3, 2},
    {"between tokens, p99, ms", offsetof(cell, itl_s.p99), 1e-3, 2},
    {"answer, mean, s", offsetof(cell, e2e_s.mean), 1, 2},
    {"job, mean, s", offsetof(cell, jct_s.mean), 1, 2},
    {"goodput, 1/s", offsetof(cell, goodput_rps), 1, 3},
    {"attainment, %", offsetof(cell, attainment), 1e-2, 1},
    {"rate at 90 %, 1/s", offsetof(cell, max_rate_rps), 1, 3},
    {"tokens/s", offsetof(cell, tokens_per_s), 1, 0},
    {"expert GB", offsetof(cell, expert_bytes), 1e9, 1},
    {"evictions", offsetof(cell, evictions), 1, 0},
    {"KV pages in use, %", offsetof(cell, kv_usage), 1e-2, 1},
    {"pages copied back", offsetof(cell, swap_in_pages), 1, 0},
    {"cache hits, %", offsetof(cell, prefix_hit_rate), 1e-2, 1},
    {"stop p99, ms", offsetof(cell, stop_reaction_s.p99), 1e-3, 3},
    {"Jain", offsetof(cell, jain), 1, 3},
};
enum { COLUMN_COUNT = sizeof columns / sizeof *columns };

static double value_of(const cell *c, int column) {
    double v;
    memcpy(&v, (const char *)c + columns[column].offset, sizeof v);
    return v;
}

static bool is_told(const cell *cells, uint32_t n, int column) {
    for (uint32_t i = 0; i < n; i++)
        if (value_of(&cells[i], column) != 0) return true;
    return false;
}

static void label(const comparison *c, uint32_t index, buf *out) {
    buf text;
    buf_init(&text, 1 << 12);
    grid_label(c->grid, index, &text);
    plot_text(out, text.data);
    buf_free(&text);
}

static void row(const comparison *c, const cell *cells, uint32_t i, bool with_pages, buf *out) {
    buf_str(out, "<tr><td>");
    if (with_pages) buf_printf(out, "<a href=\"cell-%u.html\">", i + 1);
    label(c, i, out), buf_str(out, with_pages ? "</a>" : "");
    for (int k = 0; k < COLUMN_COUNT; k++) {
        if (!is_told(cells, c->grid->cell_count, k)) continue;
        const double v = value_of(&cells[i], k), first = value_of(&cells[0], k);
        buf_printf(out, "<td>%.*f", columns[k].digits, v / columns[k].unit);
        if (i > 0 && first != 0) buf_printf(out, " <small>%.2fx</small>", v / first);
    }
}

static void table(const comparison *c, const cell *cells, bool with_pages, buf *out) {
    buf_str(out, "<h2>Figures</h2><div class=wide><table><tr><th>cell");
    for (int k = 0; k < COLUMN_COUNT; k++)
        if (is_told(cells, c->grid->cell_count, k)) buf_str(out, "<th>"), plot_text(out, columns[k].label);
    for (uint32_t i = 0; i < c->grid->cell_count; i++) row(c, cells, i, with_pages, out);
    buf_str(out, "</table></div>");
}

/* ---- curves over one another ---- */

static void key(const comparison *c, buf *out) {
    const uint32_t n = c->grid->cell_count < CURVES_MAX ? c->grid->cell_count : CURVES_MAX;
    buf_str(out, "<p class=key>");
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(out, "<i style=\"background:%s\"></i>", colours[i]);
        label(c, i, out);
    }
    if (n < c->grid->cell_count) buf_printf(out, "; the first %u of %u are drawn", n, c->grid->cell_count);
    buf_str(out, "</p>");
}

static void curve(buf *out, const plot *p, const series *v, uint32_t index) {
    double x[CURVE_POINTS], y[CURVE_POINTS];
    char class[16];
    for (int i = 0; i < CURVE_POINTS; i++) {
        const double left = 1 - (double)i / (CURVE_POINTS - 1); /* more points in the tail */
        y[i] = 1 - left * left, x[i] = series_percentile(v, y[i] * 100);
    }
    snprintf(class, sizeof class, "c%u", index);
    plot_line(out, p, x, y, CURVE_POINTS, class);
}

static void curves(const comparison *c, const cell *cells, metric m, buf *out) {
    const uint32_t n = c->grid->cell_count < CURVES_MAX ? c->grid->cell_count : CURVES_MAX;
    double         low = INFINITY, high = 0;
    for (uint32_t i = 0; i < n; i++) {
        const series *v = &cells[i].curves[m];
        if (v->count) low = fmin(low, v->values[0]), high = fmax(high, v->values[v->count - 1]);
    }
    if (!(high > 0)) return;
    plot_axes axes = {.title = metric_label(m),
                      .x_label = "milliseconds",
                      .y_label = "share within",
                      .y_max = 1,
                      .y_percent = true,
                      .width = WIDTH,
                      .height = HEIGHT};
    axes.log_x = low > 0 && high > 50 * low;
    axes.x_min = axes.log_x ? fmax(low, high * 1e-5) : 0, axes.x_max = high;
    buf_str(out, "<figure>");
    const plot p = plot_open(out, &axes);
    for (uint32_t i = 0; i < n; i++)
        if (cells[i].curves[m].count) curve(out, &p, &cells[i].curves[m], i);
    plot_close(out);
    buf_str(out, "</figure>");
}

static void sweeps(const comparison *c, const cell *cells, buf *out) {
    const uint32_t n = c->grid->cell_count < CURVES_MAX ? c->grid->cell_count : CURVES_MAX;
    double         low = INFINITY, high = 0;
    char class[16];
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < cells[i].sweep_count; k++)
            low = fmin(low, cells[i].sweep[k].rate_rps), high = fmax(high, cells[i].sweep[k].rate_rps);
    if (!(low > 0 && high > low)) return;
    buf_str(out, "<h2>Attainment by rate</h2><figure>");
    const plot p = plot_open(out, &(plot_axes){.title = "Share of requests in time",
                                               .x_label = "requests a second",
                                               .y_label = "",
                                               .x_min = low,
                                               .x_max = high,
                                               .y_max = 1,
                                               .log_x = true,
                                               .y_percent = true,
                                               .width = 2 * WIDTH,
                                               .height = HEIGHT});
    for (uint32_t i = 0; i < n; i++) {
        double x[SWEEP_POINTS_MAX], y[SWEEP_POINTS_MAX];
        for (uint32_t k = 0; k < cells[i].sweep_count; k++)
            x[k] = cells[i].sweep[k].rate_rps, y[k] = cells[i].sweep[k].attainment;
        snprintf(class, sizeof class, "c%u", i);
        plot_line(out, &p, x, y, cells[i].sweep_count, class);
    }
    plot_close(out);
    buf_str(out, "</figure>");
}

void compare_html(const comparison *c, const cell *cells, bool with_pages, buf *out) {
    head(c, cells, out);
    table(c, cells, with_pages, out);
    if (c->rate_sweep) sweeps(c, cells, out);
    buf_str(out, "<h2>Latency: share of requests that took at most so long</h2>");
    key(c, out);
    buf_str(out, "<div class=row>");
    curves(c, cells, METRIC_TTFT, out), curves(c, cells, METRIC_TPOT, out);
    buf_str(out, "</div><div class=row>");
    curves(c, cells, METRIC_ITL, out), curves(c, cells, METRIC_E2EL, out), curves(c, cells, METRIC_JCT, out);
    buf_str(out, "</div><p>Made by penstock-bench " PENSTOCK_VERSION ".</p></html>\n");
}
