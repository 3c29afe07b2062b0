/* models/tokenizer_model.c: the file's BPE model, that is its vocabulary and merges, checked and put into tables. */
#include <stdio.h>
#include <string.h>

#include "models/tokenizer_internal.h"

static uint32_t merge_hash(uint32_t left, uint32_t right) {
    return (uint32_t)((((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u) >> 32);
}

merge_slot *merge_find(const bpe_model *m, uint32_t left, uint32_t right) {
    for (uint32_t i = merge_hash(left, right) & m->merges_mask;; i = (i + 1) & m->merges_mask) {
        merge_slot *slot = &m->merges[i];
        if (slot->merged_plus_one == 0 || (slot->left == left && slot->right == right)) return slot;
    }
}

/* ---- the vocabulary: {"token": id, ...} ---- */

static bool parse_id(view text, uint32_t *id) {
    *id = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || *id >= IDS_MAX) return false;
        *id = *id * 10 + (uint32_t)(text.data[i] - '0');
    }
    return text.size > 0 && *id < IDS_MAX;
}

static int read_entry(bpe_model *m, json_walk *w, buf *token) {
    view     number;
    uint32_t id;
    buf_clear(token);
    int code = walk_string(w, token);
    if (code == OK) code = walk_open(w, ':');
    if (code == OK) code = walk_value(w, &number);
    if (code != OK) return code;
    if (!token->data) buf_str(token, "");
    if (!parse_id(number, &id))
        return error_set(w->err, ERR_INVALID, "the id of the token '%.40s' must be an integer from 0 to %d", token->data,
                         IDS_MAX - 1);
    return vocab_add(&m->vocab, (view){token->data, token->size}, id, 0, w->err);
}

static int read_vocab(bpe_model *m, json_walk *w, size_t added_count) {
    enum { ENTRY_BYTES_TYPICAL = 20 }; /* the table grows where this is too large a guess */
    bool first = true;
    buf  token;
    if (!w->at || walk_peek(w) != '{') return error_set(w->err, ERR_INVALID, "the model has no object 'vocab'");
    vocab_init(&m->vocab, (size_t)(w->end - w->at) / ENTRY_BYTES_TYPICAL + added_count, m->byte_level);
    buf_init(&token, UINT32_MAX - 1);
    int code = walk_open(w, '{');
    while (code == OK && (code = walk_next(w, '}', &first)) == 1) code = read_entry(m, w, &token);
    buf_free(&token);
    if (code == OK && !m->vocab.id_end) return error_set(w->err, ERR_INVALID, "the vocabulary is empty");
    return code;
}

/* ---- merges: ["a b", ...] or [["a", "b"], ...], by rank ---- */

typedef struct {
    buf         left, right;                     /* the two sides as written */
    buf         left_bytes, right_bytes, joined; /* as the vocabulary stores them */
    merge_slot *list;
    size_t      count, capacity;
} merge_list;

static int malformed_merge(const json_walk *w, size_t rank) {
    return error_set(w->err, ERR_INVALID, "merge %zu must be two tokens: [\"a\", \"b\"] or \"a b\"", rank);
}

static int read_sides(json_walk *w, merge_list *l) {
    buf_clear(&l->left), buf_clear(&l->right);
    if (walk_peek(w) == '"') {
        int code = walk_string(w, &l->left);
        if (code != OK) return code;
        char *space = l->left.size ? memchr(l->left.data, ' ', l->left.size) : NULL;
        if (!space) return malformed_merge(w, l->count);
        size_t after = l->left.size - (size_t)(space - l->left.data) - 1;
        if (memchr(space + 1, ' ', after)) return malformed_merge(w, l->count);
        buf_append(&l->right, space + 1, after);
        l->left.size -= after + 1;
        return OK;
    }
    bool first = true;
    if (walk_peek(w) != '[' || walk_open(w, '[') != OK) return malformed_merge(w, l->count);
    for (int side = 0; side < 2; side++)
        if (walk_next(w, ']', &first) != 1 || walk_peek(w) != '"') return malformed_merge(w, l->count);
        else if (walk_string(w, side ? &l->right : &l->left) != OK) return w->err->code;
    return walk_next(w, ']', &first) == 0 ? OK : malformed_merge(w, l->count);
}

static view view_of(const buf *b) { return (view){b->data ? b->data : "", b->size}; }

/* A side as the vocabulary stores it: in *bytes, of *kind. */
static uint32_t find_side(const vocab *v, const buf *text, buf *raw, view *bytes, unsigned *kind) {
    *kind = v->byte_level && vocab_unmap(v, view_of(text), raw) ? TOKEN_BYTES : 0;
    *bytes = view_of(*kind ? raw : text);
    return vocab_find(v, *bytes, *kind);
}

/* Whether U+2581 comes after another character in text. */
static bool metaspace_inside(view text) {
    const size_t n = METASPACE_BYTES;
    for (size_t i = 1; i + n <= text.size; i++)
        if (memcmp(text.data + i, METASPACE, n) == 0 && (i < n || memcmp(text.data + i - n, METASPACE, n))) return true;
    return false;
}

static int read_merge(bpe_model *m, json_walk *w, merge_list *l) {
    view     a, b;
    unsigned kind_a, kind_b;
    int      code = read_sides(w, l);
    if (code != OK) return code;
    uint32_t left = find_side(&m->vocab, &l->left, &l->left_bytes, &a, &kind_a);
    uint32_t right = find_side(&m->vocab, &l->right, &l->right_bytes, &b, &kind_b);
    if (kind_a != kind_b) a = view_of(&l->left), b = view_of(&l->right), kind_a = 0;
    buf_clear(&l->joined);
    buf_append(&l->joined, a.data, a.size);
    buf_append(&l->joined, b.data, b.size);
    uint32_t merged = vocab_find(&m->vocab, view_of(&l->joined), kind_a);
    if (left == NO_ID || right == NO_ID || merged == NO_ID)
        return error_set(w->err, ERR_INVALID, "merge %zu joins '%.*s' and '%.*s', but %s is not in the vocabulary", l->count,
                         l->left.size < 40 ? (int)l->left.size : 40, view_of(&l->left).data,
                         l->right.size < 40 ? (int)l->right.size : 40, view_of(&l->right).data,
                         left == NO_ID    ? "the first"
                         : right == NO_ID ? "the second"
                                          : "the result");
    if (m->words_begin_at_metaspace) m->words_begin_at_metaspace = !metaspace_inside(view_of(&l->joined));
    l->list = grow(l->list, &l->capacity, l->count + 1, sizeof *l->list);
    l->list[l->count] = (merge_slot){left, right, (uint32_t)l->count, merged + 1};
    l->count++;
    return OK;
}

static int read_merges(bpe_model *m, json_walk *w) {
    merge_list l = {0};
    bool       first = true;
    if (!w->at || walk_peek(w) != '[') return error_set(w->err, ERR_INVALID, "the model has no array 'merges'");
    buf *const buffers[] = {&l.left, &l.right, &l.left_bytes, &l.right_bytes, &l.joined};
    for (int i = 0; i < 5; i++) buf_init(buffers[i], UINT32_MAX - 1);
    int code = walk_open(w, '[');
    while (code == OK && (code = walk_next(w, ']', &first)) == 1) code = read_merge(m, w, &l);
    m->merges = table_new(l.count, sizeof *m->merges, &m->merges_mask);
    for (size_t i = 0; i < l.count; i++) *merge_find(m, l.list[i].left, l.list[i].right) = l.list[i];
    for (int i = 0; i < 5; i++) buf_free(buffers[i]);
    free(l.list);
    return code;
}

/* ---- the rest ---- */

/* What this model must not ask for: names and the only values that mean nothing. */
static int refuse_variants(const cJSON *json, error *err) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double                   dropout = 0;
    int                      code = json_read_f64(json, "dropout", 0, 1, &dropout, err);
    if (code != OK) return code;
    if (dropout > 0)
        return error_set(err, ERR_UNSUPPORTED, "the BPE model's dropout of %g is not supported; it is for training",
                         dropout);
    for (int i = 0; i < 2; i++) {
        const char *text = "";
        if ((code = json_read_string(json, affixes[i], &text, err)) != OK) return code;
        if (*text) return error_set(err, ERR_UNSUPPORTED, "the BPE model's %s '%.40s' is not supported", affixes[i], text);
    }
    return OK;
}

static int read_options(bpe_model *m, const cJSON *json, error *err) {
    const char *type = "BPE";
    int         code = json_read_string(json, "type", &type, err);
    if (code == OK && strcmp(type, "BPE"))
        return error_set(err, ERR_UNSUPPORTED, "the model '%.60s' is not supported (supported: BPE)", type);
    if (code == OK) code = refuse_variants(json, err);
    if (code == OK) code = json_read_bool(json, "byte_fallback", &m->byte_fallback, err);
    if (code == OK) code = json_read_bool(json, "fuse_unk", &m->fuse_unk, err);
    return code == OK ? json_read_bool(json, "ignore_merges", &m->ignore_merges, err) : code;
}

static void find_units(bpe_model *m) {
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char)b, name[8];
        bool symbol = m->byte_level || b < 0x80;
        int  n = snprintf(name, sizeof name, "<0x%02X>", b);
        m->unit[b] = symbol ? vocab_find(&m->vocab, (view){&byte, 1}, m->byte_level ? TOKEN_BYTES : 0) : NO_ID;
        m->fallback[b] = vocab_find_text(&m->vocab, (view){name, (size_t)n});
    }
}

/* Whether every character leaves a symbol, so that U+2581 never gets a neighbour that was further away. */
static bool none_vanishes(const bpe_model *m) {
    bool all = m->byte_fallback;
    for (unsigned b = 0; b < 256 && all; b++) all = m->fallback[b] != NO_ID;
    return all || m->unk_id != NO_ID;
}

/* Over a value of the file, or over nothing (at NULL). */
static json_walk walk_of(view text, error *err) {
    return (json_walk){text.data, text.data, text.data ? text.data + text.size : NULL, err};
}

int bpe_model_read(bpe_model *m, const cJSON *json, const model_text *text, size_t added_count, error *err) {
    const char *unk = NULL;
    json_walk   entries = walk_of(text->vocab, err), merges = walk_of(text->merges, err);
    m->unk_id = NO_ID;
    if (!cJSON_IsObject(json)) return error_set(err, ERR_INVALID, "there is no object 'model'");
    int code = read_options(m, json, err);
    if (code == OK) code = json_read_string(json, "unk_token", &unk, err);
    if (code == OK) code = read_vocab(m, &entries, added_count);
    if (code != OK) return code;
    if (unk && (m->unk_id = vocab_find_text(&m->vocab, (view){unk, strlen(unk)})) == NO_ID)
        return error_set(err, ERR_INVALID, "the unknown token '%.40s' is not in the vocabulary", unk);
    find_units(m);
    m->words_begin_at_metaspace = !m->byte_level && !m->ignore_merges && none_vanishes(m) &&
                                  vocab_find(&m->vocab, (view){METASPACE, METASPACE_BYTES}, 0) != NO_ID;
    return read_merges(m, &merges);
}

/* Whether every byte of a word is in one of its tokens. */
static bool keeps_every_byte(const bpe_model *m) {
    bool all = m->byte_level || m->byte_fallback;
    for (unsigned b = 0; b < 256 && all; b++) all = (m->byte_level ? m->unit[b] : m->fallback[b]) != NO_ID;
    return all;
}

void bpe_model_seal(bpe_model *m) {
    const uint32_t end = keeps_every_byte(m) ? m->vocab.id_end : 0;
    m->token_bytes_max = 0;
    for (uint32_t id = 0; id < end; id++)
        if (m->vocab.tokens[id].size > m->token_bytes_max) m->token_bytes_max = m->vocab.tokens[id].size;
    buf_free(&m->vocab.unmapped);
    m->whole = calloc(m->vocab.id_end, 1);
    if (!m->whole) fatal("out of memory for a vocabulary of %u tokens", m->vocab.id_end);
}

void bpe_model_free(bpe_model *m) {
    vocab_free(&m->vocab);
    free(m->merges);
    free(m->whole);
}
