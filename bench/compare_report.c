/* A comparison as a table on the terminal, and as JSON. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/version.h"
#include "bench/compare.h"

/* ---- table ---- */

typedef struct {
    const char *label;
    size_t      offset; /* of a double in cell */
    double      unit;   /* shown in */
    const char *format;
} table_row;

#define AT(field) offsetof(cell, field)
static const table_row table_rows[] = {
    {"first token, mean, ms", AT(ttft_s.mean), 1e-3, "%.1f"},
    {"first token, p50, ms", AT(ttft_s.p50), 1e-3, "%.1f"},
    {"first token, p99, ms", AT(ttft_s.p99), 1e-3, "%.1f"},
    {"per token, mean, ms", AT(tpot_s.mean), 1e-3, "%.2f"},
    {"per token, p99, ms", AT(tpot_s.p99), 1e-3, "%.2f"},
    {"between tokens, p99, ms", AT(itl_s.p99), 1e-3, "%.2f"},
    {"between tokens, p99.9, ms", AT(itl_s.p999), 1e-3, "%.2f"},
    {"whole answer, mean, ms", AT(e2e_s.mean), 1e-3, "%.1f"},
    {"job completion, mean, s", AT(jct_s.mean), 1, "%.2f"},
    {"job completion, p95, s", AT(jct_s.p95), 1, "%.2f"},
    {"good requests, 1/s", AT(goodput_rps), 1, "%.3f"},
    {"attainment, %", AT(attainment), 1e-2, "%.1f"},
    {"highest rate at 90 %, 1/s", AT(max_rate_rps), 1, "%.3f"},
    {"output tokens, 1/s", AT(tokens_per_s), 1, "%.1f"},
    {"failed", AT(failed), 1, "%.0f"},
    {"expert weights read, GB", AT(expert_bytes), 1e9, "%.1f"},
    {"evictions", AT(evictions), 1, "%.0f"},
    {"of 1,000 requests", AT(evictions_per_1000), 1, "%.1f"},
    {"for a better priority", AT(displaced), 1, "%.0f"},
    {"recomputed tokens", AT(recomputed_tokens), 1, "%.0f"},
    {"found in the cache, %", AT(prefix_hit_rate), 1e-2, "%.1f"},
    {"KV pages in use, %", AT(kv_usage), 1e-2, "%.1f"},
    {"pages copied out", AT(swap_out_pages), 1, "%.0f"},
    {"pages clean on the host", AT(swap_clean_pages), 1, "%.0f"},
    {"pages copied back", AT(swap_in_pages), 1, "%.0f"},
    {"passes waited for copies, s", AT(copy_wait_s), 1, "%.3f"},
    {"stop reaction, p99, ms", AT(stop_reaction_s.p99), 1e-3, "%.3f"},
    {"Jain's index", AT(jain), 1, "%.3f"},
    {"device busy, %", AT(busy_share), 1e-2, "%.1f"},
};
#undef AT
enum { TABLE_ROWS = sizeof table_rows / sizeof *table_rows, COLUMNS = 4, LABEL_WIDTH = 27, CELL_WIDTH = 20 };

static double value_of(const cell *c, const table_row *row) {
    double v;
    memcpy(&v, (const char *)c + row->offset, sizeof v);
    return v;
}

/* A row that is 0 everywhere is not about these cells. */
static bool is_told(const comparison *c, const cell *cells, const table_row *row) {
    for (uint32_t i = 0; i < c->grid->cell_count; i++)
        if (value_of(&cells[i], row) != 0) return true;
    return false;
}

static void print_value(const cell *cells, uint32_t i, const table_row *row, FILE *out) {
    char         number[32], ratio[32] = "";
    const double v = value_of(&cells[i], row), first = value_of(&cells[0], row);
    snprintf(number, sizeof number, row->format, v / row->unit);
    if (i > 0 && first != 0) snprintf(ratio, sizeof ratio, "%.2fx", v / first);
    fprintf(out, "%12s %7s", number, ratio);
}

static void print_block(const comparison *c, const cell *cells, uint32_t begin, uint32_t end, FILE *out) {
    fprintf(out, "%-*s", LABEL_WIDTH, "");
    for (uint32_t i = begin; i < end; i++) fprintf(out, "%*s[%u]%*s", 9, "", i + 1, i + 1 < 10 ? 8 : 7, "");
    fputc('\n', out);
    for (int row = 0; row < TABLE_ROWS; row++) {
        if (!is_told(c, cells, &table_rows[row])) continue;
        fprintf(out, "%-*s", LABEL_WIDTH, table_rows[row].label);
        for (uint32_t i = begin; i < end; i++) print_value(cells, i, &table_rows[row], out);
        fputc('\n', out);
    }
}

static void print_labels(const comparison *c, FILE *out) {
    buf label;
    buf_init(&label, 1 << 16);
    for (uint32_t i = 0; i < c->grid->cell_count; i++) {
        buf_clear(&label), grid_label(c->grid, i, &label);
        fprintf(out, "[%u] %s\n", i + 1, label.data);
    }
    buf_free(&label);
}

void compare_table(const comparison *c, const cell *cells, FILE *out) {
    const uint32_t n = c->grid->cell_count;
    fprintf(out, "%s, %s on %s: %u requests, %.3g a second; seed %" PRIu64 "; ratios to [1]\n", c->trace_name, c->model_name,
            c->hardware ? c->hardware : "the default machine", c->trace->request_count, cells[0].rate_rps, c->seed);
    print_labels(c, out);
    for (uint32_t i = 0; i < n; i += COLUMNS) print_block(c, cells, i, i + COLUMNS < n ? i + COLUMNS : n, out);
    for (uint32_t i = 0; i < n; i++)
        if (cells[i].unbounded) fprintf(out, "[%u] attains 90 %% even at the highest rate tried\n", i + 1);
}

/* ---- JSON ---- */

static void add_number(buf *out, const char *name, double value) {
    if (isfinite(value)) buf_printf(out, "\"%s\":%.9g,", name, value);
    else buf_printf(out, "\"%s\":null,", name);
}

static void add_text(buf *out, const char *name, const char *value) {
    buf_printf(out, "\"%s\":", name);
    if (value) json_quote(out, value, strlen(value));
    else buf_str(out, "null");
    buf_char(out, ',');
}

static void close_object(buf *out) { out->data[out->size - 1] = '}'; }

static void add_distribution(buf *out, const char *name, const distribution *d) {
    buf_printf(out, "\"%s\":{", name);
    add_number(out, "mean", d->mean), add_number(out, "p50", d->p50), add_number(out, "p90", d->p90);
    add_number(out, "p95", d->p95), add_number(out, "p99", d->p99);
    add_number(out, "p99_9", d->p999), add_number(out, "count", (double)d->count);
    close_object(out), buf_char(out, ',');
}

static void add_settings(const comparison *c, uint32_t index, buf *out) {
    buf_str(out, "\"settings\":{");
    for (uint32_t w = 0; w < c->grid->word_count; w++) add_text(out, c->grid->words[w].name, grid_value(c->grid, index, w));
    if (c->grid->word_count) close_object(out);
    else buf_char(out, '}');
    buf_char(out, ',');
}

static void add_sweep(const cell *q, buf *out) {
    add_number(out, "max_rate_rps", q->max_rate_rps);
    buf_printf(out, "\"max_rate_unbounded\":%s,\"sweep\":[", q->unbounded ? "true" : "false");
    for (uint32_t i = 0; i < q->sweep_count; i++)
        buf_printf(out, "%s{\"rate_rps\":%.9g,\"attainment\":%.9g}", i ? "," : "", q->sweep[i].rate_rps,
                   q->sweep[i].attainment);
    buf_str(out, "],");
}

static void add_cell(const comparison *c, uint32_t index, const cell *q, buf *out) {
    buf_char(out, '{');
    add_settings(c, index, out);
    add_number(out, "completed", q->completed), add_number(out, "failed", q->failed);
    add_number(out, "expert_bytes", q->expert_bytes), add_number(out, "weight_bytes", q->weight_bytes);
    add_distribution(out, "ttft_s", &q->ttft_s), add_distribution(out, "tpot_s", &q->tpot_s);
    add_distribution(out, "itl_s", &q->itl_s), add_distribution(out, "e2e_s", &q->e2e_s);
    add_distribution(out, "jct_s", &q->jct_s);
    add_number(out, "goodput_rps", q->goodput_rps), add_number(out, "attainment", q->attainment);
    add_number(out, "requests_per_s", q->requests_rps), add_number(out, "tokens_per_s", q->tokens_per_s);
    add_number(out, "input_tokens_per_s", q->input_tokens_per_s);
    add_number(out, "evictions", q->evictions), add_number(out, "recomputed_tokens", q->recomputed_tokens);
    add_number(out, "evictions_per_1000", q->evictions_per_1000), add_number(out, "displaced", q->displaced);
    add_number(out, "kv_usage", q->kv_usage);
    add_number(out, "swap_out_pages", q->swap_out_pages), add_number(out, "swap_in_pages", q->swap_in_pages);
    add_number(out, "swap_clean_pages", q->swap_clean_pages), add_number(out, "swap_in_tokens", q->swap_in_tokens);
    add_number(out, "copy_wait_s", q->copy_wait_s);
    add_number(out, "pages_evicted", q->pages_evicted), add_number(out, "prefix_hit_rate", q->prefix_hit_rate);
    add_number(out, "stop_reaction_s", q->stop_reaction_s.p99), add_number(out, "stops", (double)q->stop_reaction_s.count);
    add_number(out, "stop_reaction_max_s", q->stop_reaction_s.max);
    add_number(out, "jain", q->jain), add_number(out, "busy_share", q->busy_share);
    add_number(out, "scheduler_events", (double)q->events);
    if (c->rate_sweep) add_sweep(q, out);
    close_object(out);
}

void compare_json(const comparison *c, const cell *cells, buf *out) {
    buf_char(out, '{');
    add_text(out, "tool", "penstock-bench " PENSTOCK_VERSION), add_text(out, "trace", c->trace_name);
    add_text(out, "model", c->model_name), add_text(out, "hardware", c->hardware);
    add_number(out, "requests", c->trace->request_count), add_number(out, "rate_rps", cells[0].rate_rps);
    add_number(out, "rate_scale", c->pace.rate_scale), add_number(out, "length_scale", c->length_scale);
    buf_printf(out, "\"seed\":%" PRIu64 ",\"cells\":[", c->seed);
    for (uint32_t i = 0; i < c->grid->cell_count; i++) {
        if (i) buf_char(out, ',');
        add_cell(c, i, &cells[i], out);
    }
    buf_str(out, "]}\n");
}
