/* models/tokenizer_normalize.c: the file's normalizer, as a list of rewriting steps.
 *
 * Most text needs none: where a step can see that it changes nothing it copies nothing. The Unicode forms use utf8proc's
 * tables but not its driver, whose canonical ordering is an insertion sort: a megabyte of alternating combining marks
 * would take it hours. Here a run of marks is ordered by counting. */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

bool unicode_is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool unicode_is_word(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC || cp == 0x200C ||
           cp == 0x200D;
}

/* ---- reading ---- */

static int read_form(normalize_step *s, const cJSON *json, error *err) {
    (void)err;
    const char *type = json_get(json, "type")->valuestring;
    s->op = NORMALIZE_UNICODE;
    s->compose = type[strlen(type) - 1] == 'C';
    s->compatibility = type[2] == 'K';
    return OK;
}

static int read_lowercase(normalize_step *s, const cJSON *json, error *err) {
    (void)json, (void)err;
    s->op = NORMALIZE_LOWERCASE;
    return OK;
}

static int read_text(normalize_step *s, const cJSON *json, const char *name, error *err) {
    const char *text = NULL;
    if (json_read_string(json, name, &text, err) != OK) return err->code;
    if (!text) return error_set(err, ERR_INVALID, "'%s' is missing", name);
    s->text = strdup(text);
    if (!s->text) fatal("out of memory for a normalizer");
    return OK;
}

static int read_prepend(normalize_step *s, const cJSON *json, error *err) {
    s->op = NORMALIZE_PREPEND;
    return read_text(s, json, "prepend", err);
}

static int read_replace(normalize_step *s, const cJSON *json, error *err) {
    s->op = NORMALIZE_REPLACE;
    int code = pattern_read(&s->find, json_get(json, "pattern"), err);
    return code == OK ? read_text(s, json, "content", err) : code;
}

static int read_strip(normalize_step *s, const cJSON *json, error *err) {
    s->op = NORMALIZE_STRIP, s->left = s->right = true;
    int code = json_read_bool(json, "strip_left", &s->left, err);
    return code == OK ? json_read_bool(json, "strip_right", &s->right, err) : code;
}

static const struct {
    const char *type;
    int (*read)(normalize_step *, const cJSON *, error *);
} kinds[] = {
    {"NFC", read_form},        {"NFD", read_form},        {"NFKC", read_form},
    {"NFKD", read_form},       {"Strip", read_strip},     {"Lowercase", read_lowercase},
    {"Prepend", read_prepend}, {"Replace", read_replace},
};

static int read_one(normalizer *n, const cJSON *json, error *err) {
    const char *type = NULL;
    if (json_read_string(json, "type", &type, err) != OK) return err->code;
    if (!type) return error_set(err, ERR_INVALID, "a normalizer has no 'type'");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type)) continue;
        if (n->count == STEPS_MAX) return error_set(err, ERR_TOO_LARGE, "more than %d normalizers", STEPS_MAX);
        return kinds[i].read(&n->steps[n->count++], json, err);
    }
    return error_set(
        err, ERR_UNSUPPORTED,
        "the normalizer '%.60s' is not supported (supported: NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip)",
        type);
}

int normalizer_read(normalizer *n, const cJSON *json, error *err) {
    if (!json || cJSON_IsNull(json)) return OK;
    const cJSON *type = json_get(json, "type"), *list = json_get(json, "normalizers"), *item;
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "Sequence")) return read_one(n, json, err);
    if (!cJSON_IsArray(list)) return error_set(err, ERR_INVALID, "the normalizer 'Sequence' has no array 'normalizers'");
    cJSON_ArrayForEach(item, list) {
        int code = normalizer_read(n, item, err);
        if (code != OK) return code;
    }
    return OK;
}

void normalizer_free(normalizer *n) {
    for (unsigned i = 0; i < n->count; i++) pattern_free(&n->steps[i].find), free(n->steps[i].text);
    n->count = 0;
}

/* ---- Unicode forms ---- */

typedef struct {
    utf8proc_int32_t *at;
    size_t            count, capacity;
} code_points;

/* Appends the full decomposition of cp. */
static void decompose(code_points *out, uint32_t cp, utf8proc_option_t options) {
    out->at = grow(out->at, &out->capacity, out->count + 32, sizeof *out->at);
    int              boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out->at + out->count,
                                                 (utf8proc_ssize_t)(out->capacity - out->count), options, &boundary);
    out->count += n > 0 ? (size_t)n : 0;
}

static unsigned combining_class(utf8proc_int32_t cp) { return (unsigned)utf8proc_get_property(cp)->combining_class & 255; }

/* Stable order by combining class of at[0..n), all non-starters. */
static void order_marks(utf8proc_int32_t *at, size_t n) {
    size_t place[257] = {0};
    bool   ordered = true;
    for (size_t i = 1; i < n && ordered; i++) ordered = combining_class(at[i - 1]) <= combining_class(at[i]);
    if (ordered) return;
    utf8proc_int32_t *copy = malloc(n * sizeof *copy);
    if (!copy) fatal("out of memory ordering %zu combining marks", n);
    memcpy(copy, at, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) place[combining_class(copy[i]) + 1]++;
    for (unsigned c = 1; c < 257; c++) place[c] += place[c - 1];
    for (size_t i = 0; i < n; i++) at[place[combining_class(copy[i])]++] = copy[i];
    free(copy);
}

static void order_canonically(code_points *p) {
    for (size_t i = 0; i < p->count;) {
        size_t end = i;
        while (end < p->count && combining_class(p->at[end])) end++;
        if (end - i > 1) order_marks(p->at + i, end - i);
        i = end + 1;
    }
}

/* A text all of whose bytes are below this is in its form already: NFC leaves everything below U+0300 (first byte CC)
 * alone, the others at least ASCII. */
static bool has_byte_from(view text, unsigned char from) {
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.data[i] >= from) return true;
    return false;
}

static bool unicode_form(const normalize_step *s, view text, buf *out) {
    if (!has_byte_from(text, s->compose && !s->compatibility ? 0xCC : 0x80)) return false;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (s->compatibility ? UTF8PROC_COMPAT : 0);
    code_points       points = {0};
    uint32_t          cp = 0;
    for (size_t i = 0; i < text.size;) {
        i += (size_t)utf8_decode(text.data + i, text.size - i, &cp);
        decompose(&points, cp, options);
    }
    order_canonically(&points);
    if (s->compose) {
        utf8proc_ssize_t n = utf8proc_normalize_utf32(points.at, (utf8proc_ssize_t)points.count,
                                                      (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        points.count = n > 0 ? (size_t)n : 0;
    }
    for (size_t i = 0; i < points.count; i++) {
        char bytes[4];
        buf_append(out, bytes, (size_t)utf8_encode((uint32_t)points.at[i], bytes));
    }
    free(points.at);
    return true;
}

/* ---- the other steps: each writes into `out`, or returns false where the text stays as it is ---- */

static bool lowercase(view text, buf *out) {
    uint32_t cp = 0;
    for (size_t i = 0; i < text.size;) {
        char bytes[4];
        i += (size_t)utf8_decode(text.data + i, text.size - i, &cp);
        if (cp == 0x130) /* the one letter whose lower case is two code points */
            buf_str(out, "i\xCC\x87");
        else buf_append(out, bytes, (size_t)utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), bytes));
    }
    return true;
}

static bool prepend(const normalize_step *s, view text, buf *out) {
    if (text.size == 0) return false;
    buf_str(out, s->text);
    buf_append(out, text.data, text.size);
    return true;
}

static int replace(const normalize_step *s, const matcher *m, view text, buf *out) {
    size_t at = 0, content = strlen(s->text);
    span   found;
    int    rc;
    while ((rc = at <= text.size ? pattern_find(&s->find, m, text, at, &found) : 0) == 1) {
        buf_append(out, text.data + at, found.start - at);
        buf_append(out, s->text, content);
        at = found.end;
        if (found.end > found.start) continue;
        uint32_t cp; /* an empty match: go on behind the next character */
        int      n = utf8_decode(text.data + at, text.size - at, &cp);
        buf_append(out, text.data + at, (size_t)n);
        at += n ? (size_t)n : 1;
    }
    if (rc == 0 && at < text.size) buf_append(out, text.data + at, text.size - at);
    return rc < 0 ? rc : 1;
}

static view strip(const normalize_step *s, view text) {
    uint32_t cp;
    int      n;
    while (s->left && (n = utf8_decode(text.data, text.size, &cp)) > 0 && unicode_is_space(cp))
        text.data += n, text.size -= (size_t)n;
    while (s->right && text.size) {
        size_t back = 1;
        while (back < text.size && back < 4 && (text.data[text.size - back] & 0xC0) == 0x80) back++;
        utf8_decode(text.data + text.size - back, back, &cp);
        if (!unicode_is_space(cp)) break;
        text.size -= back;
    }
    return text;
}

int normalizer_apply(const normalizer *n, const matcher *m, buf scratch[2], view *text) {
    unsigned written = 0; /* the two buffers take turns, so that no step writes where it reads */
    for (unsigned i = 0; i < n->count; i++) {
        const normalize_step *s = &n->steps[i];
        buf                  *out = &scratch[written & 1];
        int                   rc = 0;
        buf_clear(out);
        switch (s->op) {
        case NORMALIZE_UNICODE: rc = unicode_form(s, *text, out); break;
        case NORMALIZE_LOWERCASE: rc = lowercase(*text, out); break;
        case NORMALIZE_PREPEND: rc = prepend(s, *text, out); break;
        case NORMALIZE_REPLACE: rc = replace(s, m, *text, out); break;
        case NORMALIZE_STRIP: *text = strip(s, *text); break;
        }
        if (rc < 0) return rc;
        if (buf_overflowed(out))
            return error_set(m->err, ERR_TOO_LARGE, "the normalized text is longer than %zu bytes", out->limit);
        if (rc) *text = (view){out->data ? out->data : "", out->size}, written++;
    }
    return OK;
}
