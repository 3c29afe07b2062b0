/* models/tokenizer_scan.c: the two large members of a tokenizer file, read without a tree.
 *
 * Nearly all of a tokenizer.json is the model's `vocab` and `merges`: half a million strings. As a tree of JSON nodes they
 * take seven times the file's size and more time than everything that is then done with them. So the file is cut: the
 * two are read here from front to back, straight into tables, and what is left (a few KB) is parsed as usual. */
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

enum { DEPTH_MAX = 64 };

static int fail(json_walk *w, const char *what) {
    return error_set(w->err, ERR_INVALID, "the JSON is malformed at offset %zu: %s", (size_t)(w->at - w->start), what);
}

static void skip_space(json_walk *w) {
    while (w->at < w->end && (*w->at == ' ' || *w->at == '\n' || *w->at == '\r' || *w->at == '\t')) w->at++;
}

char walk_peek(json_walk *w) {
    skip_space(w);
    return w->at < w->end ? *w->at : 0;
}

int walk_open(json_walk *w, char bracket) {
    if (walk_peek(w) != bracket) return fail(w, bracket == ':' ? "':' is missing" : "an object or array is missing");
    w->at++;
    return OK;
}

int walk_next(json_walk *w, char close, bool *first) {
    char c = walk_peek(w);
    if (c == close) return w->at++, 0;
    if (!*first && c != ',') return fail(w, "',' is missing");
    w->at += !*first;
    *first = false;
    return 1;
}

/* At \u: its code unit, or -1. */
static int32_t code_unit(json_walk *w) {
    int32_t unit = 0;
    if (w->end - w->at < 6 || w->at[0] != '\\' || w->at[1] != 'u') return -1;
    for (int i = 2; i < 6; i++) {
        const char *digits = "0123456789abcdef", *at = w->at[i] ? strchr(digits, w->at[i] | 0x20) : NULL;
        if (!at) return -1;
        unit = unit << 4 | (int32_t)(at - digits);
    }
    w->at += 6;
    return unit;
}

static int unicode_escape(json_walk *w, buf *out) {
    char    bytes[4];
    int32_t cp = code_unit(w);
    if (cp >= 0xD800 && cp < 0xDC00) {
        int32_t low = code_unit(w);
        cp = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00) : -1;
    } else if (cp >= 0xDC00 && cp < 0xE000) {
        cp = -1;
    }
    if (cp < 0) return fail(w, "not a Unicode escape");
    buf_append(out, bytes, (size_t)utf8_encode((uint32_t)cp, bytes));
    return OK;
}

static int escape(json_walk *w, buf *out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char              c = w->end - w->at > 1 ? w->at[1] : 0;
    const char       *at = c ? strchr(names, c) : NULL;
    if (c == 'u') return unicode_escape(w, out);
    if (!at) return fail(w, "not an escape");
    buf_char(out, values[at - names]);
    w->at += 2;
    return OK;
}

int walk_string(json_walk *w, buf *out) {
    if (walk_peek(w) != '"') return fail(w, "a string is missing");
    w->at++;
    for (;;) {
        const char *run = w->at;
        while (w->at < w->end && *w->at != '"' && *w->at != '\\' && (unsigned char)*w->at >= 0x20) w->at++;
        buf_append(out, run, (size_t)(w->at - run));
        if (w->at == w->end || (unsigned char)*w->at < 0x20) return fail(w, "a string does not end");
        if (*w->at == '"') return w->at++, OK;
        int code = escape(w, out);
        if (code != OK) return code;
    }
}

static bool skip_string(json_walk *w) {
    for (w->at++; w->at < w->end && *w->at != '"'; w->at++) w->at += *w->at == '\\';
    if (w->at >= w->end) return w->at = w->end, false;
    w->at++;
    return true;
}

int walk_value(json_walk *w, view *text) {
    unsigned depth = 0;
    walk_peek(w);
    text->data = w->at;
    do {
        char c = walk_peek(w);
        if (c == 0) return fail(w, "a value does not end");
        if (c == '"') {
            if (!skip_string(w)) return fail(w, "a string does not end");
        } else if (strchr("{[", c)) {
            if (++depth > DEPTH_MAX) return fail(w, "it nests too deeply");
            w->at++;
        } else if (strchr("}]", c)) {
            if (depth-- == 0) return fail(w, "a value is missing");
            w->at++;
        } else if (strchr(",:", c)) {
            if (depth == 0) return fail(w, "a value is missing");
            w->at++;
        } else {
            while (w->at < w->end && *w->at && !strchr("{}[],:\" \t\r\n", *w->at)) w->at++;
            if (w->at < w->end && *w->at == 0) return fail(w, "it holds a NUL byte");
        }
    } while (depth);
    text->size = (size_t)(w->at - text->data);
    return OK;
}

/* ---- the cut ---- */

typedef int (*member_reader)(json_walk *w, view key, void *context);

/* Calls `read` at the value of each member of an object; it moves past the value. */
static int walk_object(json_walk *w, member_reader read, void *context) {
    bool first = true;
    buf  key;
    buf_init(&key, 256); /* longer ones are of no interest, and cut short */
    int code = walk_open(w, '{');
    while (code == OK && (code = walk_next(w, '}', &first)) == 1) {
        buf_clear(&key);
        code = walk_string(w, &key);
        if (code == OK) code = walk_open(w, ':');
        if (code == OK) code = read(w, (view){key.data ? key.data : "", key.size}, context);
    }
    buf_free(&key);
    return code;
}

static bool is(view key, const char *name) { return key.size == strlen(name) && memcmp(key.data, name, key.size) == 0; }

static int model_member(json_walk *w, view key, void *context) {
    model_text *m = context;
    view        text;
    int         code = walk_value(w, &text);
    if (code == OK && is(key, "vocab")) m->vocab = text;
    if (code == OK && is(key, "merges")) m->merges = text;
    return code;
}

static int top_member(json_walk *w, view key, void *context) {
    view ignored;
    if (!is(key, "model") || walk_peek(w) != '{') return walk_value(w, &ignored);
    *(model_text *)context = (model_text){0};
    return walk_object(w, model_member, context);
}

/* Appends text[from, until cut begins) and null for the cut; returns where the text goes on. */
static const char *append_cut(buf *rest, const char *from, view cut) {
    buf_append(rest, from, (size_t)(cut.data - from));
    buf_str(rest, "null");
    return cut.data + cut.size;
}

int model_text_cut(view file, model_text *m, buf *rest, error *err) {
    json_walk w = {file.data, file.data, file.data + file.size, err};
    *m = (model_text){0};
    int code = walk_object(&w, top_member, m);
    if (code != OK) return code;
    view a = m->vocab, b = m->merges;
    if (a.data > b.data) a = m->merges, b = m->vocab;
    const char *at = file.data;
    if (a.data) at = append_cut(rest, at, a);
    if (b.data) at = append_cut(rest, at, b);
    buf_append(rest, at, (size_t)(file.data + file.size - at));
    return OK;
}
