#include "base/json_scan.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))
#define TOP_BITS EACH_BYTE(0x80)

/* The top bit of each byte that is zero; above the lowest such byte there may be false ones. */
static uint64_t zero_bytes(uint64_t v) { return (v - EACH_BYTE(1)) & ~v & TOP_BITS; }

/* How many bytes from s on mean nothing special inside a string: no control character, quote, backslash or non-ASCII. */
static size_t ordinary(const char *s, size_t n) {
    size_t i = 0;
    for (uint64_t v; i + sizeof v <= n; i += sizeof v) {
        memcpy(&v, s + i, sizeof v);
        uint64_t control = (v - EACH_BYTE(0x20)) & ~v & TOP_BITS;
        uint64_t special = (v & TOP_BITS) | control | zero_bytes(v ^ EACH_BYTE('"')) | zero_bytes(v ^ EACH_BYTE('\\'));
        if (special) return i + (size_t)__builtin_ctzll(special) / 8; /* the first byte is the lowest on this machine */
    }
    while (i < n && (unsigned char)s[i] >= 0x20 && (unsigned char)s[i] < 0x80 && s[i] != '"' && s[i] != '\\') i++;
    return i;
}

typedef struct {
    const char *text;
    size_t      n, at;
    unsigned    depth, depth_max;
    error      *err;
} scanner;

/* A byte beyond ASCII: the whole sequence, or a refusal. */
static int pass_sequence(scanner *s) {
    uint32_t cp;
    int      length = utf8_decode(s->text + s->at, s->n - s->at, &cp);
    if (length <= 0) return error_set(s->err, ERR_INVALID, "the JSON is not valid UTF-8 at offset %zu", s->at);
    s->at += (size_t)length;
    return OK;
}

static int pass_escape(scanner *s) {
    if (s->n - s->at >= 6 && memcmp(s->text + s->at, "\\u0000", 6) == 0)
        return error_set(s->err, ERR_INVALID, "the JSON holds \\u0000 at offset %zu; text with NUL is not accepted", s->at);
    s->at++;
    if (s->at < s->n && (unsigned char)s->text[s->at] >= 0x80) return pass_sequence(s); /* no escape; json_tree says so */
    if (s->at < s->n && s->text[s->at]) s->at++;
    return OK;
}

/* From behind the opening quote to behind the closing one. */
static int pass_string(scanner *s) {
    for (int code = OK; code == OK;) {
        s->at += ordinary(s->text + s->at, s->n - s->at);
        if (s->at >= s->n) return OK; /* it does not end: json_tree says so */
        unsigned char c = (unsigned char)s->text[s->at];
        if (c == '"') return s->at++, OK;
        if (c == '\\') code = pass_escape(s);
        else if (c >= 0x80) code = pass_sequence(s);
        else if (c == 0) return error_set(s->err, ERR_INVALID, "the JSON holds a NUL byte at offset %zu", s->at);
        else
            return error_set(s->err, ERR_INVALID, "the JSON holds an unescaped control character in a string at offset %zu",
                             s->at);
        if (code != OK) return code;
    }
    return OK;
}

static size_t digits(const char *text, size_t n) {
    size_t i = 0;
    while (i < n && text[i] >= '0' && text[i] <= '9') i++;
    return i;
}

/* -?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)? */
static bool is_number(const char *text, size_t n) {
    size_t at = text[0] == '-', whole = digits(text + at, n - at), more;
    if (whole == 0 || (whole > 1 && text[at] == '0')) return false;
    at += whole;
    if (at < n && text[at] == '.') {
        if ((more = digits(text + at + 1, n - at - 1)) == 0) return false;
        at += 1 + more;
    }
    if (at < n && (text[at] == 'e' || text[at] == 'E')) {
        at += 1 + (at + 1 < n && (text[at + 1] == '+' || text[at + 1] == '-'));
        if ((more = digits(text + at, n - at)) == 0) return false;
        at += more;
    }
    return at == n;
}

static int pass_number(scanner *s) {
    size_t begin = s->at;
    for (; s->at < s->n; s->at++) {
        char c = s->text[s->at];
        if ((c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E') break;
    }
    size_t size = s->at - begin;
    if (size == 1 && s->text[begin] != '-') return OK; /* a digit */
    if (is_number(s->text + begin, size)) return OK;
    return error_set(s->err, ERR_INVALID, "the JSON holds a malformed number at offset %zu", begin);
}

static int pass_one(scanner *s) {
    unsigned char c = (unsigned char)s->text[s->at];
    if (c == '-' || (c >= '0' && c <= '9')) return pass_number(s);
    if (c >= 0x80) return pass_sequence(s);
    if (c == 0) return error_set(s->err, ERR_INVALID, "the JSON holds a NUL byte at offset %zu", s->at);
    if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
        return error_set(s->err, ERR_INVALID, "the JSON holds a control character at offset %zu", s->at);
    s->at++;
    if (c == '"') return pass_string(s);
    if ((c == '}' || c == ']') && s->depth) s->depth--;
    if ((c == '{' || c == '[') && ++s->depth > s->depth_max)
        return error_set(s->err, ERR_INVALID, "the JSON nests deeper than %u levels at offset %zu", s->depth_max, s->at - 1);
    return OK;
}

int json_scan_text(const char *text, size_t n, unsigned depth_max, error *err) {
    scanner s = {.text = text, .n = n, .depth_max = depth_max, .err = err};
    while (s.at < n) {
        int code = pass_one(&s);
        if (code != OK) return code;
    }
    return OK;
}
