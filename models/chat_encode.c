/* models/chat_encode.c: a chat as token ids, with special tokens that users typed kept from being read as special.
 *
 * A user may write "<|im_end|>" in a message. A template puts it into the prompt between its own special tokens, and then
 * nothing tells them apart. So before rendering a mark, one Unicode noncharacter that the request does not hold, goes
 * into each special token that a user wrote, behind its first character. Rendering carries the marks along, whatever the
 * template does to the text; afterwards they are taken out, and where they were no special token may be read. The prompt
 * is the same byte for byte, as text. (A template that measures the length of such a text counts the marks.) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "models/chat.h"

enum { RENDERED_BYTES_MAX = 64 << 20 };

typedef struct {
    char    mark[5], escaped[8]; /* the noncharacter in UTF-8, and as tojson and repr write it: \ufdd0 */
    size_t *places;              /* ascending byte offsets in what was rendered */
    size_t  count, capacity;
} guard;

enum { MARK_FIRST = 0xFDD0, MARK_LAST = 0xFDEF };

static bool holds(const cJSON *item, const char *what) {
    if (item->string && strstr(item->string, what)) return true;
    if (cJSON_IsString(item) && strstr(item->valuestring, what)) return true;
    for (const cJSON *c = item->child; c; c = c->next)
        if (holds(c, what)) return true;
    return false;
}

static int choose_mark(guard *g, const cJSON *context, error *err) {
    for (uint32_t cp = MARK_FIRST; cp <= MARK_LAST; cp++) {
        g->mark[utf8_encode(cp, g->mark)] = 0;
        snprintf(g->escaped, sizeof g->escaped, "\\u%04x", cp);
        if (!holds(context, g->mark) && !holds(context, g->escaped)) return OK;
    }
    return error_set(err, ERR_INVALID,
                     "the messages use every Unicode noncharacter from U+FDD0 to U+FDEF; remove one of them");
}

/* ---- marking ---- */

typedef struct {
    const tokenizer *t;
    const guard     *g;
} marker;

/* The end of the special token's first character, if one starts at text[at..n). */
static size_t mark_place(const marker *m, const char *text, size_t at, size_t n) {
    uint32_t cp;
    if (tokenizer_special_prefix(m->t, text + at, n - at) == 0) return 0;
    int first = utf8_decode(text + at, n - at, &cp);
    return at + (size_t)(first > 0 ? first : 1);
}

static char *allocate(size_t n) { /* for cJSON, which frees it */
    char *bytes = cJSON_malloc(n);
    if (!bytes) fatal("out of memory for %zu bytes of a message", n);
    return bytes;
}

/* `text` with marks; NULL: it needs none. */
static char *marked(const marker *m, const char *text) {
    size_t n = strlen(text), from = 0, place;
    buf    out;
    buf_init(&out, SIZE_MAX / 2);
    for (size_t at = 0; at < n; at++)
        if ((place = mark_place(m, text, at, n))) {
            buf_append(&out, text + from, place - from);
            buf_str(&out, m->g->mark);
            from = place;
        }
    if (from == 0) return NULL;
    buf_append(&out, text + from, n - from);
    char *copy = allocate(out.size + 1);
    memcpy(copy, out.data, out.size + 1);
    buf_free(&out);
    return copy;
}

static void mark_string(const marker *m, char **string) {
    char *changed = *string ? marked(m, *string) : NULL;
    if (!changed) return;
    cJSON_free(*string);
    *string = changed;
}

/* Text parts that follow each other may be written without a gap: a token that begins in one and ends in the next is
 * guarded by a mark at the seam. */
static bool token_across(const marker *m, const char *left, const char *right) {
    enum { TOKEN_BYTES_MAX = 128 };
    char   seam[2 * TOKEN_BYTES_MAX];
    size_t left_size = strlen(left), taken = left_size < TOKEN_BYTES_MAX ? left_size : TOKEN_BYTES_MAX;
    memcpy(seam, left + left_size - taken, taken);
    size_t right_taken = strnlen(right, TOKEN_BYTES_MAX);
    memcpy(seam + taken, right, right_taken);
    for (size_t at = 0; at < taken; at++)
        if (tokenizer_special_prefix(m->t, seam + at, taken + right_taken - at) > taken - at) return true;
    return false;
}

static cJSON *text_of_part(const cJSON *part) {
    cJSON *text = cJSON_IsObject(part) ? cJSON_GetObjectItemCaseSensitive(part, "text") : NULL;
    return cJSON_IsString(text) ? text : NULL;
}

static void mark_seams(const marker *m, cJSON *list) {
    for (cJSON *part = list->child; part && part->next; part = part->next) {
        cJSON *left = text_of_part(part), *right = text_of_part(part->next);
        if (!left || !right || !token_across(m, left->valuestring, right->valuestring)) continue;
        size_t n = strlen(left->valuestring), mark = strlen(m->g->mark);
        char  *longer = allocate(n + mark + 1);
        memcpy(longer, left->valuestring, n);
        memcpy(longer + n, m->g->mark, mark + 1);
        cJSON_free(left->valuestring);
        left->valuestring = longer;
    }
}

static void mark_all(const marker *m, cJSON *item) {
    if (!(item->type & cJSON_StringIsConst)) mark_string(m, &item->string);
    if (cJSON_IsString(item)) mark_string(m, &item->valuestring);
    if (cJSON_IsArray(item)) mark_seams(m, item);
    for (cJSON *c = item->child; c; c = c->next) mark_all(m, c);
}

static int guard_mark(guard *g, const tokenizer *t, cJSON *context, error *err) {
    int code = choose_mark(g, context, err);
    if (code == OK) mark_all(&(marker){t, g}, context);
    return code;
}

/* ---- unmarking ---- */

static void add_place(guard *g, size_t place) {
    if (g->count && g->places[g->count - 1] == place) return;
    if (g->count == g->capacity) {
        g->capacity = g->capacity ? g->capacity * 2 : 16;
        g->places = realloc(g->places, g->capacity * sizeof *g->places);
        if (!g->places) fatal("out of memory for the places of marks");
    }
    g->places[g->count++] = place;
}

static void guard_unmark(guard *g, buf *rendered) {
    const char *forms[] = {g->mark, g->escaped};
    size_t      kept = 0;
    for (size_t at = 0; at < rendered->size;) {
        size_t skipped = 0;
        for (int i = 0; i < 2 && !skipped; i++) {
            size_t n = strlen(forms[i]);
            if (rendered->size - at >= n && memcmp(rendered->data + at, forms[i], n) == 0) skipped = n;
        }
        if (skipped) add_place(g, kept);
        else rendered->data[kept++] = rendered->data[at];
        at += skipped ? skipped : 1;
    }
    rendered->size = kept;
    if (rendered->data) rendered->data[kept] = 0;
}

static void guard_free(guard *g) {
    free(g->places);
    *g = (guard){0};
}

int chat_encode(const chat_format *c, const tokenizer *t, cJSON *context, int64_t now_unix_s, token_ids *out, error *err) {
    guard g = {0};
    buf   text;
    buf_init(&text, RENDERED_BYTES_MAX);
    int code = chat_normalize(c, context, err);
    if (code == OK) code = guard_mark(&g, t, context, err);
    if (code == OK) code = chat_apply(c, context, now_unix_s, &text, err);
    if (code == OK) {
        guard_unmark(&g, &text);
        unsigned flags = TOKENIZE_SPECIAL | (chat_format_has_template(c) ? 0 : TOKENIZE_BOS); /* a template writes its own */
        code = tokenizer_encode_guarded(t, text.data ? text.data : "", text.size, flags, g.places, g.count, out, err);
    }
    guard_free(&g);
    buf_free(&text);
    return code;
}
