#include "server/docs.h"

#include <stdio.h>
#include <string.h>

#include "server/keys.h"
#include "server/params.h"
#include "server/settings.h"

static void write_key_file(buf *out) {
    buf_str(out,
            "\n## Key file\n\n"
            "`api-keys` names a file with one tenant a line: a name, its keys, and what differs from the defaults. `#` "
            "begins a\n"
            "comment. Keys are kept as SHA-256 digests: `penstock key alice >> FILE` makes a key, shows it once, and "
            "appends its\n"
            "line; several keys on a line let one replace the other. `anyone` in place of a key admits requests without a "
            "key, or\n"
            "with one that is nobody's.\n\n"
            "    alice  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  weight=2 concurrency=8\n"
            "    guest  anyone  concurrency=1 priority=100\n\n");
    keys_markdown(out);
}

/* Codes that share a status are told by the first of them. */
static void write_exit_statuses(buf *out) {
    static const struct {
        int         status;
        const char *what;
    } rows[] = {
#define ROW(code, status, name, what) {status, what},
        ERROR_CODES(ROW)
#undef ROW
            {130, "SIGINT came a second time while draining, which ends the daemon at once (128 + 2)"},
        {134, "the daemon found itself broken, or the watchdog found it stuck: SIGABRT, with a core where cores are kept"},
        {143, "SIGTERM came a second time while draining (128 + 15)"},
    };
    buf_str(out, "\n## Exit statuses\n\n| status | cause |\n|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (*rows[i].what) buf_printf(out, "| %d | %s |\n", rows[i].status, rows[i].what);
}

void docs_configuration(buf *out) {
    settings s = {0};
    options *o = options_new(settings_rows, settings_row_count, &s);
    buf_str(out,
            "# Configuration\n\n"
            "Printed by `make docs` from the table in `server/settings.c`; edit that, not this.\n\n"
            "Each setting is a flag, `--port 8080`, and a line in a file, `port = 8080` under its `[section]`, read with\n"
            "`penstock serve --config FILE`. A flag wins over the file, the file over the default. Yes-or-no settings are\n"
            "also written `--name` and `--no-name`. Sizes take K, M, G, T (powers of 1024); times take us, ms, s, min, h.\n"
            "`--check` reads everything and stops; `--dump-config` prints each value with where it came from, as a file\n"
            "that can be read back.\n");
    options_markdown(o, out);
    options_free(o);
    write_key_file(out);
    write_exit_statuses(out);
}

static const struct {
    const char *method, *path, *what;
} endpoints[] = {
    {"POST", "/v1/chat/completions", "answers a conversation; server-sent events with `stream`"},
    {"POST", "/v1/completions", "goes on from a text or from token ids"},
    {"POST", "/tokenize", "a text (`prompt`) or a conversation (`messages`) as token ids"},
    {"POST", "/detokenize", "token ids (`tokens`) as text"},
    {"GET", "/v1/models", "the model that is served; `/v1/models/NAME` for it alone"},
    {"GET", "/live", "200 unless the engine has work and makes no progress, or has failed: then 503, restart it"},
    {"GET", "/health", "the same, and 503 while loading or draining: send it no requests; so does `/ready`"},
    {"GET", "/metrics", "counters, gauges and histograms for Prometheus, under our names and under vLLM's"},
    {"GET", "/version", "the version"},
    {"GET", "/", "a page to talk to the model with"},
};

static void write_range(const param_row *row, buf *out) {
    switch (row->kind) {
    case PARAM_BOOL: buf_str(out, "true or false"); break;
    case PARAM_INT:
    case PARAM_NUMBER:
        buf_printf(out, "%.10g", row->min);
        if (row->max >= 1 << 30) buf_str(out, " or more");
        else buf_printf(out, " to %.10g", row->max);
        break;
    case PARAM_STRING: buf_printf(out, "text, up to %.0f bytes", row->max); break;
    case PARAM_OTHER: buf_str(out, "see right"); break;
    case PARAM_IGNORED:
    case PARAM_REFUSED: break;
    }
}

static void write_endpoints(unsigned mask, buf *out) {
    static const char *const names[] = {"chat", "completions", "tokenize", "detokenize"};
    const char              *comma = "";
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (mask >> i & 1) buf_printf(out, "%s%s", comma, names[i]), comma = ", ";
}

/* "|" would end a cell. */
static void write_cell(const char *text, buf *out) {
    for (; *text; text++) {
        if (*text == '|') buf_char(out, '\\');
        buf_char(out, *text);
    }
}

static void write_parameters(buf *out) {
    buf_str(out, "\n## Parameters\n\n| name | of | value | default | what it does |\n|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row *row = &param_rows[i];
        if (row->kind == PARAM_IGNORED || row->kind == PARAM_REFUSED) continue;
        buf_printf(out, "| `%s` | ", row->name);
        write_endpoints(row->endpoints, out);
        buf_str(out, " | ");
        write_range(row, out);
        buf_str(out, " | ");
        if (row->kind == PARAM_BOOL) buf_str(out, row->fallback != 0 ? "true" : "false");
        else if ((row->kind == PARAM_INT || row->kind == PARAM_NUMBER) && row->fallback >= row->min)
            buf_printf(out, "%.10g", row->fallback);
        buf_str(out, " | ");
        if (row->required) buf_str(out, "**required**: ");
        write_cell(row->help, out);
        buf_str(out, " |\n");
    }
}

static void write_names(const char *title, param_kind kind, bool with_help, buf *out) {
    buf_printf(out, "\n## %s\n\n", title);
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row *row = &param_rows[i];
        if (row->kind != kind) continue;
        buf_printf(out, "- `%s` (", row->name);
        write_endpoints(row->endpoints, out);
        buf_printf(out, ")%s%s\n", with_help ? ": " : "", with_help ? row->help : "");
    }
}

void docs_api(buf *out) {
    buf_str(out, "# HTTP API\n\n"
                 "Printed by `make docs` from the table in `server/params.c`; edit that, not this.\n\n"
                 "OpenAI's shapes: point any client at `http://HOST:PORT/v1`. Bodies are JSON; `model` may be left out.\n\n"
                 "| | path | what it does |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++)
        buf_printf(out, "| %s | `%s` | %s |\n", endpoints[i].method, endpoints[i].path, endpoints[i].what);
    buf_str(
        out,
        "\nA mistake is answered with OpenAI's nested object, `{\"error\": {\"message\", \"type\", \"param\", \"code\"}}`: "
        "400 for a\n"
        "bad parameter (`param` names it; `context_length_exceeded` where the prompt is too long), 404 for another model,\n"
        "413 for a body that is too large, 429 over the limits of a key, 503 with `Retry-After` when the queue is full. A\n"
        "request that is answered 200 has its place in the queue. Unknown parameters are accepted and ignored.\n\n"
        "A stream is `data: {...}` events and ends with `data: [DONE]`; one that fails midway carries an error object\n"
        "instead and closes. A client that closes its connection, or only its sending side, frees its request within one\n"
        "step.\n\n"
        "Of several choices, the one with index `i` draws with `seed + i`. A model without a tokenizer (`random:`) takes\n"
        "token ids, and a token's text in its answer is its id: ` 123`.\n");
    write_parameters(out);
    write_names("Accepted without effect", PARAM_IGNORED, false, out);
    write_names("Refused with 400", PARAM_REFUSED, true, out);
}
