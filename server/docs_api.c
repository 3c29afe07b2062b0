/* docs/api.md: a text (docs_api.md) in which lines such as {{errors}} stand for what is printed from the tables that the
 * server works by. */
#include "server/docs.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "server/fault.h"
#include "server/openapi.h"
#include "server/params.h"

extern const char     docs_api_text[];
extern const uint64_t docs_api_text_bytes;
__asm__(".section .rodata\n"
        ".global docs_api_text, docs_api_text_bytes\n"
        "docs_api_text:\n.incbin \"server/docs_api.md\"\n"
        "docs_api_text_end:\n.balign 8\n"
        "docs_api_text_bytes:\n.quad docs_api_text_end - docs_api_text\n"
        ".previous\n");

/* ---- parameters ---- */

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
    buf_str(out, "| name | of | value | default | what it does |\n|---|---|---|---|---|\n");
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

static void write_names(param_kind kind, bool with_help, buf *out) {
    for (uint32_t i = 0; i < param_row_count; i++) {
        const param_row *row = &param_rows[i];
        if (row->kind != kind) continue;
        buf_printf(out, "- `%s` (", row->name);
        write_endpoints(row->endpoints, out);
        buf_printf(out, ")%s%s\n", with_help ? ": " : "", with_help ? row->help : "");
    }
}
static void write_ignored(buf *out) { write_names(PARAM_IGNORED, false, out); }
static void write_refused(buf *out) { write_names(PARAM_REFUSED, true, out); }

/* ---- endpoints and errors ---- */

static void write_endpoint_table(buf *out) {
    cJSON *document = openapi_build();
    buf_str(out, "| | path | what it does |\n|---|---|---|\n");
    for (const cJSON *path = json_get(document, "paths")->child; path; path = path->next) {
        static const char *const methods[][2] = {{"post", "POST"}, {"get", "GET"}, {"delete", "DELETE"}};
        for (int i = 0; i < 3; i++) {
            const cJSON *summary = json_get(json_get(path, methods[i][0]), "summary");
            if (summary) buf_printf(out, "| %s | `%s` | %s |\n", methods[i][1], path->string, summary->valuestring);
        }
    }
    cJSON_Delete(document);
}

static void write_errors(buf *out) {
    buf_str(out, "| status | code | type | try again | when |\n|---|---|---|---|---|\n");
    for (int kind = FAULT_NONE + 1; kind < FAULT_COUNT; kind++) {
        const fault_row *row = &fault_rows[kind];
        buf_printf(out, "| %d | %s%s%s | %s | %s | %s |\n", row->status, row->code ? "`" : "",
                   row->code ? row->code : "null", row->code ? "`" : "", row->type, row->retry ? "yes" : "no", row->what);
    }
}

/* ---- the page ---- */

static const struct {
    const char *mark;
    void (*write)(buf *out);
} marks[] = {
    {"{{endpoints}}", write_endpoint_table}, {"{{errors}}", write_errors},   {"{{parameters}}", write_parameters},
    {"{{ignored}}", write_ignored},          {"{{refused}}", write_refused},
};

static void write_line(const char *line, size_t n, buf *out) {
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (n == strlen(marks[i].mark) && memcmp(line, marks[i].mark, n) == 0) return marks[i].write(out);
    buf_append(out, line, n), buf_char(out, '\n');
}

void docs_api(buf *out) {
    const char *const text_end = docs_api_text + docs_api_text_bytes;
    for (const char *line = docs_api_text, *end; line < text_end; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text_end - line));
        check(end);
        write_line(line, (size_t)(end - line), out);
    }
}
