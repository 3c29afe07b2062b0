/* CSV with a header. One table of column names covers Azure's two traces, BurstGPT, Vidur, TraceLab's replay files and
 * files of one's own: a column's name says what it holds and in which unit. Unknown columns are passed over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/trace_read.h"

enum { COLUMNS_MAX = 64, CELL_BYTES_MAX = 256 };

typedef enum {
    CELL_NONE,
    CELL_AT,     /* a number; its scale makes microseconds */
    CELL_DATE,   /* a date and time of day */
    CELL_PROMPT, /* the whole prompt */
    CELL_PREFIX, /* what the prompt shares with the turn before */
    CELL_NEW,    /* what it adds to that */
    CELL_OUTPUT,
    CELL_GAP, /* before the next turn */
    CELL_SESSION,
    CELL_TENANT,
    CELL_TOOL,
    CELL_TTFT_MS,
    CELL_TPOT_MS,
    CELL_E2E_MS,
} cell_kind;

static const struct {
    const char *name;
    cell_kind   kind;
    double      scale;
} columns[] = {
    {"TIMESTAMP", CELL_DATE, 1}, /* Azure */
    {"ContextTokens", CELL_PROMPT, 1},
    {"GeneratedTokens", CELL_OUTPUT, 1},
    {"Timestamp", CELL_AT, 1e6}, /* BurstGPT, seconds */
    {"Request tokens", CELL_PROMPT, 1},
    {"Response tokens", CELL_OUTPUT, 1},
    {"Session ID", CELL_SESSION, 1},
    {"arrived_at", CELL_AT, 1e6}, /* Vidur, seconds */
    {"num_prefill_tokens", CELL_PROMPT, 1},
    {"num_decode_tokens", CELL_OUTPUT, 1},
    {"arrival_time", CELL_AT, 1e3}, /* TraceLab, milliseconds */
    {"session_id", CELL_SESSION, 1},
    {"prefix_len", CELL_PREFIX, 1},
    {"input_len", CELL_NEW, 1},
    {"output_len", CELL_OUTPUT, 1},
    {"tool_wait_after_ms", CELL_GAP, 1e3},
    {"timestamp", CELL_AT, 1e3}, /* Mooncake's names, milliseconds */
    {"input_length", CELL_PROMPT, 1},
    {"output_length", CELL_OUTPUT, 1},
    {"at_s", CELL_AT, 1e6},
    {"prompt_tokens", CELL_PROMPT, 1},
    {"output_tokens", CELL_OUTPUT, 1},
    {"gap_s", CELL_GAP, 1e6},
    {"job_id", CELL_SESSION, 1},
    {"tenant", CELL_TENANT, 1},
    {"tool", CELL_TOOL, 1},
    {"ttft_ms", CELL_TTFT_MS, 1},
    {"tpot_ms", CELL_TPOT_MS, 1},
    {"e2e_ms", CELL_E2E_MS, 1},
};

typedef struct {
    bool   has_header, has_prefix;
    size_t count;
    int8_t column[COLUMNS_MAX]; /* row of the table, or -1 */
} header;

typedef struct {
    const char *text;
    size_t      n;
} cell;

/* Splits at commas; a cell may stand in double quotes (doubled quotes inside are not undone: no name here has them). */
static int split(const char *line, size_t n, cell *cells, size_t *count, error *err) {
    const char *at = line, *end = line + n;
    for (*count = 0;; at++) {
        const char *from = at;
        bool        quoted = at < end && *at == '"';
        if (quoted)
            for (at++; at < end && !(*at == '"' && (at + 1 == end || at[1] == ',')); at++) {
            }
        else
            while (at < end && *at != ',') at++;
        if (*count == COLUMNS_MAX) return error_set(err, ERR_TOO_LARGE, "there are more than %d columns", COLUMNS_MAX);
        cells[(*count)++] = quoted ? (cell){from + 1, (size_t)(at - from - 1)} : (cell){from, (size_t)(at - from)};
        if (quoted && at < end) at++;
        if (at >= end) return OK;
    }
}

static int read_header(header *h, const cell *cells, size_t count, error *err) {
    bool prompt = false, output = false;
    h->has_header = true, h->count = count;
    for (size_t i = 0; i < count; i++) {
        h->column[i] = -1;
        for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
            if (strlen(columns[k].name) == cells[i].n && memcmp(columns[k].name, cells[i].text, cells[i].n) == 0)
                h->column[i] = (int8_t)k;
        if (h->column[i] < 0) continue;
        cell_kind kind = columns[h->column[i]].kind;
        prompt = prompt || kind == CELL_PROMPT || kind == CELL_NEW, output = output || kind == CELL_OUTPUT;
        h->has_prefix = h->has_prefix || kind == CELL_PREFIX;
    }
    if (prompt && output) return OK;
    return error_set(err, ERR_INVALID,
                     "the header names no column of %s tokens that is known (docs/replay.md lists the names)",
                     prompt ? "answer" : "prompt");
}

static int read_number(const cell *c, double *out, error *err) {
    char text[64], *end;
    if (c->n == 0) return *out = 0, OK;
    if (c->n >= sizeof text) return error_set(err, ERR_INVALID, "a number of %zu characters is not one", c->n);
    memcpy(text, c->text, c->n), text[c->n] = 0;
    *out = strtod(text, &end);
    if (*end || end == text) return error_set(err, ERR_INVALID, "'%s' is not a number", text);
    return OK;
}

static const char *read_text(const cell *c, char *out) {
    size_t n = c->n < CELL_BYTES_MAX ? c->n : CELL_BYTES_MAX;
    memcpy(out, c->text, n), out[n] = 0;
    return out;
}

typedef struct {
    trace_row row;
    cell      session;
    double    prefix, added;
    bool      has_session;
    char      tenant[CELL_BYTES_MAX + 1], tool[CELL_BYTES_MAX + 1];
} csv_row;

static int read_cell(csv_row *c, const cell *text, int column, error *err) {
    double     scale = columns[column].scale, number = 0;
    trace_row *row = &c->row;
    cell_kind  kind = columns[column].kind;
    switch (kind) {
    case CELL_NONE: return OK;
    case CELL_DATE:
        row->has_at = true;
        if (trace_time_us(text->text, text->n, &row->at_us)) return OK;
        return error_set(err, ERR_INVALID, "'%.*s' is not a time like 2023-11-16 18:17:03.97",
                         (int)(text->n < 40 ? text->n : 40), text->text);
    case CELL_SESSION: return c->session = *text, c->has_session = true, OK;
    case CELL_TENANT: return row->tenant = read_text(text, c->tenant), OK;
    case CELL_TOOL: return row->tool = read_text(text, c->tool), OK;
    default: break;
    }
    if (read_number(text, &number, err) != OK) return ERR_INVALID;
    number *= scale;
    switch (kind) {
    case CELL_AT: return row->has_at = text->n > 0, row->at_us = number, OK;
    case CELL_PROMPT: return row->prompt_tokens = number, OK;
    case CELL_OUTPUT: return row->output_tokens = number, OK;
    case CELL_PREFIX: return c->prefix = number, OK;
    case CELL_NEW: return c->added = number, OK;
    case CELL_GAP: return row->has_gap_after = text->n > 0, row->gap_after_us = number, OK;
    case CELL_TTFT_MS: return row->slo.ttft_ms = number, OK;
    case CELL_TPOT_MS: return row->slo.tpot_ms = number, OK;
    case CELL_E2E_MS: return row->slo.e2e_ms = number, OK;
    default: return OK;
    }
}

/* A first turn's prefix is what the system prompt is to a real agent: common to all sessions of the file. */
static int settle_prefix(trace_reader *r, csv_row *c, bool first_turn, error *err) {
    c->row.prompt_tokens = c->prefix + c->added;
    if (!(c->prefix >= 0 && c->prefix <= TRACE_TOKENS_MAX))
        return error_set(err, ERR_INVALID, "a prefix of %g tokens is out of range", c->prefix);
    c->row.shared_tokens = first_turn ? 0 : (uint32_t)c->prefix;
    if (first_turn) trace_session_at(r, c->row.session)->common_tokens = (uint32_t)c->prefix;
    return OK;
}

int trace_line_csv(trace_reader *r, const char *line, size_t n, error *err) {
    header *h = trace_reader_memory(r, sizeof *h);
    cell    cells[COLUMNS_MAX];
    size_t  count;
    csv_row c = {.row = {.shared_tokens = SHARED_UNKNOWN}};
    int     code = split(line, n, cells, &count, err);
    if (code != OK) return code;
    if (!h->has_header) return read_header(h, cells, count, err);
    if (count != h->count)
        return error_set(err, ERR_INVALID, "there are %zu columns, and the header names %zu", count, h->count);
    for (size_t i = 0; i < count; i++)
        if (h->column[i] >= 0 && (code = read_cell(&c, &cells[i], h->column[i], err)) != OK) return code;
    c.row.session =
        c.has_session && c.session.n ? trace_session_named(r, c.session.text, c.session.n) : trace_session_new(r);
    if (h->has_prefix && (code = settle_prefix(r, &c, trace_session_turns(r, c.row.session) == 0, err)) != OK) return code;
    return trace_add(r, &c.row, err);
}

bool trace_time_us(const char *text, size_t n, double *us) {
    char   copy[40];
    int    year, month, day, hour, minute, used = 0;
    double second;
    if (n >= sizeof copy) return false;
    memcpy(copy, text, n), copy[n] = 0;
    char separator;
    if (sscanf(copy, "%4d-%2d-%2d%c%2d:%2d:%lf%n", &year, &month, &day, &separator, &hour, &minute, &second, &used) != 7)
        return false;
    bool ends = copy[used] == 0 || strcmp(copy + used, "Z") == 0 || strcmp(copy + used, "+00:00") == 0;
    if (!ends || (separator != ' ' && separator != 'T') || !(second >= 0 && second < 61)) return false;
    struct tm date = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute};
    *us = (double)timegm(&date) * 1e6 + second * 1e6;
    return true;
}
