/* base/json_tree.c: cJSON's tree, made by fewer steps.
 *
 * Most of a request is text in strings, which cJSON's own parser goes over twice, a byte at a time: 38 % of what a refusal
 * costs. json_scan has looked at every byte by then, so here a string is found with memchr and copied whole, and only one
 * that holds a backslash is taken apart. What the scan left to say is the grammar: what may stand where, and that strings
 * end. cJSON keeps its tree, its accessors and its writer. */
#include "base/json_tree.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { DIGITS_EXACT = 15 };

typedef struct {
    const char *at, *end; /* at, where something failed: about where */
} reader;

static void *take(size_t bytes) {
    void *memory = cJSON_malloc(bytes);
    if (!memory) fatal("out of memory parsing JSON");
    return memory;
}

static void skip_space(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')) r->at++;
}

/* The next byte that means something, or NUL at the end. */
static char peek(reader *r) {
    skip_space(r);
    return r->at < r->end ? *r->at : 0;
}

static bool pass(reader *r, char c) { return peek(r) == c ? (r->at++, true) : false; }

/* ---- strings ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Behind "\u": four digits; -1: they are none. */
static long read_unit(reader *r) {
    long unit = 0;
    if (r->end - r->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const int digit = hex_digit(r->at[i]);
        if (digit < 0) return -1;
        unit = unit << 4 | digit;
    }
    r->at += 4;
    return unit;
}

/* A character by its UTF-16: half a pair is none. */
static char *read_utf16(reader *r, char *out) {
    long high = read_unit(r), low;
    if (high < 0 || (high >= 0xDC00 && high < 0xE000)) return NULL;
    if (high >= 0xD800 && high < 0xDC00) {
        if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') return NULL;
        r->at += 2;
        if ((low = read_unit(r)) < 0xDC00 || low >= 0xE000) return NULL;
        high = 0x10000 + ((high & 0x3FF) << 10 | (low & 0x3FF));
    }
    if (high < 0x80) return *out++ = (char)high, out;
    if (high < 0x800) *out++ = (char)(0xC0 | high >> 6);
    else if (high < 0x10000) *out++ = (char)(0xE0 | high >> 12);
    else *out++ = (char)(0xF0 | high >> 18), *out++ = (char)(0x80 | (high >> 12 & 0x3F));
    if (high >= 0x800) *out++ = (char)(0x80 | (high >> 6 & 0x3F));
    *out++ = (char)(0x80 | (high & 0x3F));
    return out;
}

/* Behind a backslash. The end of what it adds to out, which is never more than was read; NULL: there is no such escape. */
static char *read_escape(reader *r, char *out) {
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end) return NULL;
    const char c = *r->at++;
    if (c == 'u') return read_utf16(r, out);
    const char *letter = memchr(letters, c, sizeof letters - 1);
    return letter ? (*out++ = meant[letter - letters], out) : NULL;
}

/* Behind the opening quote, where a backslash stands before the next quote. */
static char *read_escaped(reader *r) {
    const char *quote = r->at;
    while (quote < r->end && *quote != '"') quote += 1 + (*quote == '\\');
    if (quote >= r->end) return NULL;
    char *text = take((size_t)(quote - r->at) + 1), *out = text;
    while (out && r->at < quote) {
        const char  *slash = memchr(r->at, '\\', (size_t)(quote - r->at));
        const size_t n = (size_t)((slash ? slash : quote) - r->at);
        memcpy(out, r->at, n);
        out += n, r->at += n;
        if (slash) r->at++, out = read_escape(r, out);
    }
    if (!out) return cJSON_free(text), NULL;
    *out = 0;
    r->at++;
    return text;
}

/* Owned; NULL: it is none. */
static char *read_string(reader *r) {
    if (!pass(r, '"')) return NULL;
    const char *quote = memchr(r->at, '"', (size_t)(r->end - r->at));
    if (!quote) return NULL;
    const size_t n = (size_t)(quote - r->at);
    if (memchr(r->at, '\\', n)) return read_escaped(r);
    char *text = take(n + 1);
    memcpy(text, r->at, n);
    text[n] = 0;
    r->at = quote + 1;
    return text;
}

/* ---- numbers ---- */

static bool is_of_number(char c) {
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

static double whole(const char *text, size_t n) {
    int64_t value = 0;
    for (size_t i = text[0] == '-'; i < n; i++) value = value * 10 + (text[i] - '0');
    return text[0] == '-' ? -(double)value : (double)value;
}

/* The scan has found that it is one. */
static void read_number(reader *r, cJSON *item) {
    const char *begin = r->at;
    bool        real = false;
    for (; r->at < r->end && is_of_number(*r->at); r->at++) real |= *r->at == '.' || *r->at == 'e' || *r->at == 'E';
    const size_t n = (size_t)(r->at - begin);
    double       value;
    item->type = cJSON_Number | (real ? JSON_WRITTEN_AS_REAL : 0);
    if (!real && n <= DIGITS_EXACT) {
        value = whole(begin, n);
    } else {
        char *digits = memcpy(take(n + 1), begin, n); /* strtod wants an end */
        digits[n] = 0;
        value = strtod(digits, NULL);
        if (real) cJSON_free(digits);
        else item->valuestring = digits;
    }
    item->valuedouble = value;
    item->valueint = value >= INT_MAX ? INT_MAX : value <= (double)INT_MIN ? INT_MIN : (int)value;
}

/* ---- values ---- */

static bool read_word(reader *r, cJSON *item) {
    static const struct {
        const char *word;
        int         type, value;
    } words[] = {{"true", cJSON_True, 1}, {"false", cJSON_False, 0}, {"null", cJSON_NULL, 0}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const size_t n = strlen(words[i].word);
        if ((size_t)(r->end - r->at) < n || memcmp(r->at, words[i].word, n) != 0) continue;
        item->type = words[i].type, item->valueint = words[i].value;
        r->at += n;
        return true;
    }
    return false;
}

static bool read_value(reader *r, cJSON *item);

static cJSON *new_item(void) {
    cJSON *item = take(sizeof *item);
    memset(item, 0, sizeof *item);
    return item;
}

/* Behind the bracket. What was read stays in the tree where it fails. As deep as the scan let it be. */
static bool read_members(reader *r, cJSON *of, char close) {
    if (pass(r, close)) return true;
    do {
        cJSON *item = new_item(), *first = of->child;
        if (first) item->prev = first->prev, first->prev->next = item, first->prev = item; /* the first one knows the last */
        else of->child = item, item->prev = item;
        if (close == '}' && (!(item->string = read_string(r)) || !pass(r, ':'))) return false;
        if (!read_value(r, item)) return false;
    } while (pass(r, ','));
    return pass(r, close);
}

static bool read_value(reader *r, cJSON *item) {
    const char c = peek(r);
    if (c == '"') return item->type = cJSON_String, (item->valuestring = read_string(r)) != NULL;
    if (c == '{') return item->type = cJSON_Object, r->at++, read_members(r, item, '}');
    if (c == '[') return item->type = cJSON_Array, r->at++, read_members(r, item, ']');
    if (c == '-' || (c >= '0' && c <= '9')) return read_number(r, item), true;
    return read_word(r, item);
}

cJSON *json_tree(const char *text, size_t n, size_t *at) {
    static const char mark[] = "\xEF\xBB\xBF";
    reader            r = {.at = text, .end = text + n};
    if (n >= 3 && memcmp(text, mark, 3) == 0) r.at += 3; /* the byte order mark, which some editors write */
    cJSON     *value = new_item();
    const bool good = read_value(&r, value);
    if (good) skip_space(&r);
    *at = (size_t)(r.at - text);
    if (good) return value;
    cJSON_Delete(value);
    return NULL;
}
