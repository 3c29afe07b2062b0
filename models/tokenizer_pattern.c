/* models/tokenizer_pattern.c: the regular expressions of tokenizer files, run by PCRE2.
 *
 * The files are written for Oniguruma with Ruby's syntax, which is what their reference implementation matches with.
 * The two dialects read almost every published pattern alike; where they do not, the pattern is rewritten before it is
 * compiled, and what cannot be rewritten is refused rather than misread:
 *
 *   \s \S        Unicode White_Space; PCRE2's own \s also takes U+180E
 *   \w \W        letters, marks, numbers, connecting punctuation; PCRE2's definition depends on its release
 *   \p{Han}      the script; PCRE2 means the wider "script extensions" unless told sc:
 *   X{1,3}+      "one or more of X{1,3}", not possessive as in PCRE2; hence X+
 *   ^ $          match at every line
 *   [a[b]] && \h (?m) \K \Q (*VERB)   mean something else or nothing there: refused
 *
 * Matching is bounded: compiled code runs on the machine's stack; where that does not suffice PCRE2's interpreter takes
 * over on a bounded heap, and a pattern that tries too many ways on one text is an error of that text. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "models/tokenizer_internal.h"

enum { PATTERN_MAX_BYTES = 64 << 10, MATCH_LIMIT = 50 * 1000 * 1000, HEAP_LIMIT_KIB = 256 << 10 };

typedef struct {
    const char *at, *end;
    bool        in_class;
    buf         out;
    error      *err;
} rewrite;

static bool compiles(const char *property) {
    char text[64];
    int  n = snprintf(text, sizeof text, "\\p{sc:%s}", property), code;
    if (n < 0 || (size_t)n >= sizeof text) return false;
    PCRE2_SIZE  offset;
    pcre2_code *probe = pcre2_compile((PCRE2_SPTR)text, (size_t)n, PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    pcre2_code_free(probe);
    return probe != NULL;
}

/* At \p{ or \P{: names longer than two letters may be scripts. */
static void rewrite_property(rewrite *r) {
    const char *close = memchr(r->at, '}', (size_t)(r->end - r->at));
    char        name[48];
    size_t      head = 3, size = close ? (size_t)(close - r->at) : 0;
    if (size > head && r->at[head] == '^') head++;
    buf_append(&r->out, r->at, head);
    r->at += head;
    if (size <= head + 2 || size - head >= sizeof name) return;
    memcpy(name, r->at, size - head), name[size - head] = 0;
    if (compiles(name)) buf_str(&r->out, "sc:");
}

static const struct {
    char        letter;
    const char *outside, *in_class; /* NULL: refused */
} escapes[] = {
    {'s', "\\p{White_Space}", "\\p{White_Space}"},
    {'S', "\\P{White_Space}", "\\P{White_Space}"},
    {'w', "[\\p{L}\\p{M}\\p{N}\\p{Pc}]", "\\p{L}\\p{M}\\p{N}\\p{Pc}"},
    {'W', "[^\\p{L}\\p{M}\\p{N}\\p{Pc}]", NULL},
    {'h', NULL, NULL},
    {'H', NULL, NULL},
    {'K', NULL, NULL},
    {'Q', NULL, NULL},
    {'C', NULL, NULL},
};

static int rewrite_escape(rewrite *r) {
    if (r->end - r->at < 2) return error_set(r->err, ERR_INVALID, "the pattern ends in a backslash");
    char letter = r->at[1];
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        if (escapes[i].letter != letter) continue;
        const char *text = r->in_class ? escapes[i].in_class : escapes[i].outside;
        if (!text)
            return error_set(r->err, ERR_UNSUPPORTED, "the pattern uses '\\%c'%s, which is not supported", letter,
                             r->in_class ? " in a class" : "");
        buf_str(&r->out, text);
        r->at += 2;
        return OK;
    }
    if ((letter == 'p' || letter == 'P') && r->end - r->at > 3 && r->at[2] == '{') return rewrite_property(r), OK;
    buf_append(&r->out, r->at, 2);
    r->at += 2;
    return OK;
}

static int rewrite_in_class(rewrite *r) {
    char c = *r->at, following = r->end - r->at > 1 ? r->at[1] : 0;
    if (c == '[' && following == ':') {
        const char *close = memmem(r->at, (size_t)(r->end - r->at), ":]", 2);
        size_t      n = close ? (size_t)(close - r->at) + 2 : 2;
        buf_append(&r->out, r->at, n);
        r->at += n;
        return OK;
    }
    if (c == '[' || (c == '&' && following == '&'))
        return error_set(r->err, ERR_UNSUPPORTED, "the pattern combines character classes with '%s', which is not supported",
                         c == '[' ? "[" : "&&");
    r->in_class = c != ']';
    buf_char(&r->out, c);
    r->at++;
    return OK;
}

static int rewrite_group(rewrite *r) {
    size_t left = (size_t)(r->end - r->at);
    if (left > 1 && r->at[1] == '*')
        return error_set(r->err, ERR_UNSUPPORTED, "the pattern uses '(*', which is not supported");
    if (left > 2 && r->at[1] == '?') {
        size_t option = 2;
        while (option < left && strchr("i-", r->at[option])) option++;
        if (option == left || !strchr(":=!<>)", r->at[option]))
            return error_set(r->err, ERR_UNSUPPORTED, "the pattern uses '(?%c', which is not supported",
                             option == left ? ' ' : r->at[option]);
    }
    buf_char(&r->out, '(');
    r->at++;
    return OK;
}

/* At '{': an interval that is followed by '+' is repeated, not possessive. */
static int rewrite_interval(rewrite *r) {
    size_t left = (size_t)(r->end - r->at), n = 1;
    while (n < left && strchr("0123456789,", r->at[n])) n++;
    bool repeated = n + 1 < left && n > 1 && r->at[n] == '}' && r->at[n + 1] == '+';
    if (!repeated) return buf_char(&r->out, *r->at++), OK;
    if (r->at[1] != '1' || r->at[2] != ',')
        return error_set(r->err, ERR_UNSUPPORTED, "the pattern repeats '%.*s', which is not supported", (int)n + 1, r->at);
    buf_char(&r->out, '+');
    r->at += n + 2;
    return OK;
}

static int rewrite_next(rewrite *r) {
    char c = *r->at;
    if (c == '\\') return rewrite_escape(r);
    if (r->in_class) return rewrite_in_class(r);
    if (c == '(') return rewrite_group(r);
    if (c == '{') return rewrite_interval(r);
    buf_char(&r->out, c);
    r->at++;
    if (c != '[') return OK;
    r->in_class = true; /* a leading '^' and then ']' are ordinary members */
    if (r->at < r->end && *r->at == '^') buf_char(&r->out, *r->at++);
    if (r->at < r->end && *r->at == ']') buf_str(&r->out, "\\]"), r->at++;
    return OK;
}

static int compile(pattern *p, const buf *text, error *err) {
    int        code;
    PCRE2_SIZE offset;
    p->code = pcre2_compile((PCRE2_SPTR)text->data, text->size,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
    if (!p->code) {
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(code, reason, sizeof reason);
        return error_set(err, ERR_INVALID, "the pattern '%.120s' does not compile: %s", text->data, (const char *)reason);
    }
    pcre2_match_context *limits = p->limits = pcre2_match_context_create(NULL);
    if (!limits) fatal("out of memory for a pattern");
    pcre2_set_match_limit(limits, MATCH_LIMIT);
    pcre2_set_heap_limit(limits, HEAP_LIMIT_KIB);
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    return OK;
}

int pattern_regex(pattern *p, const char *regex, error *err) {
    size_t n = strlen(regex);
    *p = (pattern){0};
    if (n == 0 || n > PATTERN_MAX_BYTES)
        return error_set(err, ERR_INVALID, "a pattern must have 1 to %d bytes, not %zu", PATTERN_MAX_BYTES, n);
    rewrite r = {.at = regex, .end = regex + n, .err = err};
    buf_init(&r.out, PATTERN_MAX_BYTES * 32);
    int code = OK;
    while (code == OK && r.at < r.end) code = rewrite_next(&r);
    if (code == OK) code = compile(p, &r.out, err);
    buf_free(&r.out);
    return code;
}

void pattern_literal(pattern *p, const char *text) {
    *p = (pattern){.literal = strdup(text), .literal_size = strlen(text)};
    if (!p->literal) fatal("out of memory for a pattern");
}

int pattern_read(pattern *p, const cJSON *json, error *err) {
    const char *text = NULL;
    if (cJSON_IsString(json)) return pattern_literal(p, json->valuestring), OK;
    if (json_read_string(json, "String", &text, err) != OK) return err->code;
    if (text) return pattern_literal(p, text), OK;
    if (json_read_string(json, "Regex", &text, err) != OK) return err->code;
    if (text) return pattern_regex(p, text, err);
    return error_set(err, ERR_INVALID, "'pattern' must be an object with 'String' or 'Regex'");
}

void pattern_free(pattern *p) {
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    free(p->literal);
    *p = (pattern){0};
}

void matcher_init(matcher *m, error *err) {
    m->data = pcre2_match_data_create(1, NULL);
    m->err = err;
    if (!m->data) fatal("out of memory for matching");
}

void matcher_free(matcher *m) { pcre2_match_data_free(m->data); }

static int find_literal(const pattern *p, view text, size_t from, span *found) {
    if (p->literal_size == 0) return 0;
    const char *at = memmem(text.data + from, text.size - from, p->literal, p->literal_size);
    if (!at) return 0;
    found->start = (uint32_t)(at - text.data), found->end = found->start + (uint32_t)p->literal_size;
    return 1;
}

int pattern_find(const pattern *p, const matcher *m, view text, size_t from, span *found) {
    if (!p->code) return find_literal(p, text, from, found);
    PCRE2_SPTR subject = (PCRE2_SPTR)text.data;
    int        rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (p->jit) rc = pcre2_jit_match(p->code, subject, text.size, from, 0, m->data, p->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, subject, text.size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, p->limits);
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc < 0)
        return error_set(m->err, ERR_TOO_LARGE,
                         "a pattern of the tokenizer needs too many steps on this text (PCRE2 code %d)", rc);
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(m->data);
    if (ends[1] < ends[0]) return 0;
    found->start = (uint32_t)ends[0], found->end = (uint32_t)ends[1];
    return 1;
}
