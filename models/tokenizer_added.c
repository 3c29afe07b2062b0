/* models/tokenizer_added.c: tokens that are found in the text before anything else looks at it.
 *
 * They live in two tries: those matched in the text as it is written, and those matched in the normalized text (with
 * their own text normalized too). A scan takes the longest token at the leftmost place, as the reference does. One
 * position costs at most ADDED_TEXT_MAX steps, and in practice one table look-up.
 *
 * A special token that must not be read (the caller says no specials, or a guard stands in it) is passed over as a
 * whole: nothing else is looked for inside it. That too is the reference's behaviour. */
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

/* ---- reading ---- */

static int read_token(added_token *t, const cJSON *json, error *err) {
    const char *text = NULL;
    *t = (added_token){0};
    int code = json_read_string(json, "content", &text, err);
    if (code != OK) return code;
    if (!text || strlen(text) > ADDED_TEXT_MAX)
        return error_set(err, ERR_INVALID, "an added token's 'content' must be a string of at most %d bytes",
                         ADDED_TEXT_MAX);
    code = json_read_bool(json, "special", &t->special, err);
    t->normalized = !t->special;
    if (code == OK) code = json_read_bool(json, "normalized", &t->normalized, err);
    if (code == OK) code = json_read_bool(json, "lstrip", &t->lstrip, err);
    if (code == OK) code = json_read_bool(json, "rstrip", &t->rstrip, err);
    if (code == OK) code = json_read_bool(json, "single_word", &t->single_word, err);
    if (code != OK) return error_prefix(err, "added token '%.40s'", text);
    if (!(t->text = strdup(text))) fatal("out of memory for an added token");
    return OK;
}

static bool is_listed(const vocab *v, const char *text) {
    uint32_t id = vocab_find_text(v, (view){text, strlen(text)});
    return id != NO_ID && v->tokens[id].flags & TOKEN_ADDED;
}

/* Takes over t.text. */
static int insert(added_tokens *a, vocab *v, added_token t, error *err) {
    view     text = {t.text, strlen(t.text)};
    unsigned flags = TOKEN_ADDED | (t.special ? TOKEN_SPECIAL : 0);
    uint32_t known = vocab_find_text(v, text);
    int      code = OK;
    if (known == NO_ID) code = vocab_add(v, text, t.id, flags, err);
    else if (known != t.id)
        code = error_set(err, ERR_INVALID, "the added token '%.40s' has the id %u, but the id %u elsewhere", t.text, t.id,
                         known);
    else v->tokens[t.id].flags |= (uint8_t)flags;
    if (code != OK) return free(t.text), code;
    a->list = grow(a->list, &a->capacity, a->count + 1, sizeof *a->list);
    a->list[a->count++] = t;
    return OK;
}

int added_tokens_read(added_tokens *a, vocab *v, const cJSON *json, error *err) {
    const cJSON *item;
    if (!json || cJSON_IsNull(json)) return OK;
    if (!cJSON_IsArray(json)) return error_set(err, ERR_INVALID, "'added_tokens' must be an array");
    cJSON_ArrayForEach(item, json) {
        added_token t;
        uint32_t    id = NO_ID;
        int         code = read_token(&t, item, err);
        if (code != OK) return code;
        t.id = NO_ID;
        code = json_read_u32(item, "id", 0, IDS_MAX - 1, &id, err);
        if (code == OK && id == NO_ID) code = error_set(err, ERR_INVALID, "'id' is missing");
        if (code != OK) {
            error_prefix(err, "added token '%.40s'", t.text);
            return free(t.text), code;
        }
        t.id = id;
        if ((code = insert(a, v, t, err)) != OK) return code;
    }
    return OK;
}

/* tokenizer_config.json's added_tokens_decoder, {"id": token}: adds what tokenizer.json does not list. */
int added_tokens_read_config(added_tokens *a, vocab *v, const cJSON *config, error *err) {
    const cJSON *list = json_get(config, "added_tokens_decoder"), *item;
    if (!cJSON_IsObject(list)) return OK;
    cJSON_ArrayForEach(item, list) {
        added_token t;
        char       *end;
        int         code = read_token(&t, item, err);
        if (code != OK) return code;
        unsigned long id = strtoul(item->string, &end, 10);
        if (*end || end == item->string || id >= IDS_MAX) {
            free(t.text);
            return error_set(err, ERR_INVALID, "'added_tokens_decoder' has the id '%.40s'; ids are integers from 0 to %d",
                             item->string, IDS_MAX - 1);
        }
        t.id = (uint32_t)id;
        if (is_listed(v, t.text)) free(t.text);
        else if ((code = insert(a, v, t, err)) != OK) return code;
    }
    return OK;
}

/* ---- tries ---- */

static uint32_t new_node(trie *t, uint8_t byte, uint32_t sibling) {
    if (t->count == 0) t->count = 1;
    t->nodes = grow(t->nodes, &t->capacity, t->count + 1, sizeof *t->nodes);
    t->nodes[t->count] = (trie_node){.byte = byte, .sibling = sibling};
    return (uint32_t)t->count++;
}

static uint32_t child_of(const trie *t, uint32_t node, uint8_t byte) {
    uint32_t child = t->nodes[node].child;
    while (child && t->nodes[child].byte != byte) child = t->nodes[child].sibling;
    return child;
}

static void trie_add(trie *t, view text, uint32_t token) {
    if (text.size == 0) return;
    uint8_t  first = (uint8_t)text.data[0];
    uint32_t node = t->root[first];
    if (!node) node = t->root[first] = new_node(t, first, 0);
    for (size_t i = 1; i < text.size; i++) {
        uint32_t child = child_of(t, node, (uint8_t)text.data[i]);
        if (!child) {
            child = new_node(t, (uint8_t)text.data[i], t->nodes[node].child);
            t->nodes[node].child = child;
        }
        node = child;
    }
    if (!t->nodes[node].token_plus_one) t->nodes[node].token_plus_one = token + 1;
}

/* Returns the token's number in the list. */
uint32_t trie_match(const trie *t, view text, size_t *length) {
    uint32_t found = NO_ID, node = text.size ? t->root[(uint8_t)text.data[0]] : 0;
    for (size_t i = 1; node; i++) {
        if (t->nodes[node].token_plus_one) found = t->nodes[node].token_plus_one - 1, *length = i;
        node = i < text.size ? child_of(t, node, (uint8_t)text.data[i]) : 0;
    }
    return found;
}

void added_tokens_seal(added_tokens *a, const normalizer *n) {
    matcher m;
    error   ignored;
    buf     scratch[2];
    matcher_init(&m, &ignored);
    buf_init(&scratch[0], 1 << 20), buf_init(&scratch[1], 1 << 20);
    for (uint32_t i = 0; i < a->count; i++) {
        view text = {a->list[i].text, strlen(a->list[i].text)};
        if (a->list[i].special) trie_add(&a->special, text, i);
        if (a->list[i].normalized && normalizer_apply(n, &m, scratch, &text) != OK) continue;
        if (text.size <= ADDED_TEXT_MAX) trie_add(a->list[i].normalized ? &a->normalized : &a->as_written, text, i);
    }
    buf_free(&scratch[0]), buf_free(&scratch[1]);
    matcher_free(&m);
}

void added_tokens_free(added_tokens *a) {
    for (size_t i = 0; i < a->count; i++) free(a->list[i].text);
    free(a->list);
    free(a->as_written.nodes), free(a->normalized.nodes), free(a->special.nodes);
}

/* ---- scanning ---- */

/* The code point that ends at text[at], with its start. */
static uint32_t code_point_before(view text, size_t at, size_t *start) {
    uint32_t cp = 0;
    size_t   back = 1;
    while (back < at && back < 4 && (text.data[at - back] & 0xC0) == 0x80) back++;
    utf8_decode(text.data + at - back, back, &cp);
    *start = at - back;
    return cp;
}

static bool stands_alone(view text, size_t start, size_t end) {
    size_t   ignored;
    uint32_t cp;
    if (start && unicode_is_word(code_point_before(text, start, &ignored))) return false;
    return utf8_decode(text.data + end, text.size - end, &cp) <= 0 || !unicode_is_word(cp);
}

static bool guarded(added_scan *s, size_t start, size_t end) {
    while (s->guard_count && s->guards[0] < start) s->guards++, s->guard_count--;
    return s->guard_count && s->guards[0] < end;
}

static void take_spaces(const added_scan *s, added_match *m) {
    uint32_t cp;
    size_t   before;
    int      n;
    while (m->token->lstrip && m->start > s->taken && unicode_is_space(code_point_before(s->text, m->start, &before)))
        m->start = (uint32_t)before;
    while (m->token->rstrip && (n = utf8_decode(s->text.data + m->end, s->text.size - m->end, &cp)) > 0 &&
           unicode_is_space(cp))
        m->end += (uint32_t)n;
}

bool added_scan_next(added_scan *s, added_match *out) {
    while (s->at < s->text.size) {
        size_t   length = 0, start = s->at;
        uint32_t found = NO_ID;
        if (s->among->root[(uint8_t)s->text.data[start]])
            found = trie_match(s->among, (view){s->text.data + start, s->text.size - start}, &length);
        if (found == NO_ID) {
            s->at++;
            continue;
        }
        const added_token *token = &s->tokens->list[found];
        s->at += (uint32_t)length;
        if (token->special && (!s->special || guarded(s, start, start + length))) continue;
        if (token->single_word && !stands_alone(s->text, start, start + length)) continue;
        *out = (added_match){(uint32_t)start, (uint32_t)(start + length), token};
        take_spaces(s, out);
        s->at = s->taken = out->end;
        return true;
    }
    return false;
}
