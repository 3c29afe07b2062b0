/* models/tokenizer_bpe.c: byte-pair encoding of one word.
 *
 * A word starts as one symbol for each byte (byte-level) or character. The merge of lowest rank among all adjacent
 * pairs is carried out, leftmost first, until no pair has one. Three ways to the same result, by cost:
 *
 *   whole   The word is itself a token, as most words of ordinary text are, and merging is known to arrive there. It
 *           need not, so each token is merged once, the first time it is met, and the answer kept in a byte per token:
 *           a cache as large as the vocabulary, that never evicts and needs no lock.
 *   short   Up to SHORT_MAX symbols: arrays, and a scan for the lowest rank before each merge.
 *   long    A heap of (rank, position) over linked symbols, n log n: text of a million characters without a boundary.
 *
 * SentencePiece-style files have no pre-tokenizer, so a whole prompt would be one long word. But where no merge has a
 * result in which U+2581 follows another character, no merge can cross such a place, and cutting there changes
 * nothing: words_begin_at_metaspace. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

enum { SHORT_MAX = 48, WHOLE_UNKNOWN = 0, WHOLE_YES = 1, WHOLE_NO = 2 };
#define NO_RANK UINT32_MAX
static const char metaspace_char[] = "\xE2\x96\x81";

/* ---- the merge table ---- */

static uint32_t merge_hash(uint32_t left, uint32_t right) {
    return (uint32_t)((((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u) >> 32);
}

static merge_slot *merge_find(const bpe_model *m, uint32_t left, uint32_t right) {
    for (uint32_t i = merge_hash(left, right) & m->merges_mask;; i = (i + 1) & m->merges_mask) {
        merge_slot *slot = &m->merges[i];
        if (slot->merged_plus_one == 0 || (slot->left == left && slot->right == right)) return slot;
    }
}

static uint32_t merge_rank(const bpe_model *m, uint32_t left, uint32_t right, uint32_t *merged) {
    const merge_slot *slot = merge_find(m, left, right);
    if (slot->merged_plus_one == 0) return NO_RANK;
    *merged = slot->merged_plus_one - 1;
    return slot->rank;
}

/* ---- reading ---- */

static int read_vocab(bpe_model *m, const cJSON *json, size_t added_count, error *err) {
    const cJSON *list = json_get(json, "vocab"), *item;
    if (!cJSON_IsObject(list)) return error_set(err, ERR_INVALID, "the model has no object 'vocab'");
    vocab_init(&m->vocab, (size_t)cJSON_GetArraySize(list) + added_count, m->byte_level);
    cJSON_ArrayForEach(item, list) {
        double id = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(id >= 0 && id < IDS_MAX) || id != (uint32_t)id)
            return error_set(err, ERR_INVALID, "the id of the token '%.40s' must be an integer from 0 to %d", item->string,
                             IDS_MAX - 1);
        int code = vocab_add(&m->vocab, (view){item->string, strlen(item->string)}, (uint32_t)id, 0, err);
        if (code != OK) return code;
    }
    return m->vocab.id_end ? OK : error_set(err, ERR_INVALID, "the vocabulary is empty");
}

/* The two sides of a merge: ["a", "b"] or "a b". */
static bool merge_sides(const cJSON *item, view *left, view *right) {
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        *left = (view){item->valuestring, (size_t)(space - item->valuestring)};
        *right = (view){space + 1, strlen(space + 1)};
        return true;
    }
    const cJSON *first = cJSON_IsArray(item) ? item->child : NULL, *second = first ? first->next : NULL;
    if (!cJSON_IsString(first) || !cJSON_IsString(second) || second->next) return false;
    *left = (view){first->valuestring, strlen(first->valuestring)};
    *right = (view){second->valuestring, strlen(second->valuestring)};
    return true;
}

/* A side as the vocabulary stores it. */
static uint32_t find_side(const vocab *v, view text, buf *raw, view *bytes, unsigned *kind) {
    *kind = v->byte_level && vocab_unmap(v, text, raw) ? TOKEN_BYTES : 0;
    *bytes = *kind ? (view){raw->data ? raw->data : "", raw->size} : text;
    return vocab_find(v, *bytes, *kind);
}

/* Whether U+2581 comes after another character in text. */
static bool metaspace_inside(view text) {
    const size_t n = sizeof metaspace_char - 1;
    for (size_t i = 1; i + n <= text.size; i++)
        if (memcmp(text.data + i, metaspace_char, n) == 0 && (i < n || memcmp(text.data + i - n, metaspace_char, n)))
            return true;
    return false;
}

typedef struct {
    buf left, right, joined; /* scratch */
} merge_reader;

static int read_merge(bpe_model *m, const cJSON *item, uint32_t rank, merge_reader *r, error *err) {
    view     left, right, a, b;
    unsigned kind_a, kind_b;
    if (!merge_sides(item, &left, &right))
        return error_set(err, ERR_INVALID, "merge %u must be two tokens: [\"a\", \"b\"] or \"a b\"", rank);
    uint32_t left_id = find_side(&m->vocab, left, &r->left, &a, &kind_a);
    uint32_t right_id = find_side(&m->vocab, right, &r->right, &b, &kind_b);
    buf_clear(&r->joined);
    if (kind_a != kind_b) a = left, b = right, kind_a = 0;
    buf_append(&r->joined, a.data, a.size);
    buf_append(&r->joined, b.data, b.size);
    uint32_t merged = vocab_find(&m->vocab, (view){r->joined.data, r->joined.size}, kind_a);
    if (left_id == NO_ID || right_id == NO_ID || merged == NO_ID)
        return error_set(err, ERR_INVALID, "merge %u joins '%.*s' and '%.*s', but %s is not in the vocabulary", rank,
                         left.size < 40 ? (int)left.size : 40, left.data, right.size < 40 ? (int)right.size : 40, right.data,
                         left_id == NO_ID    ? "the first"
                         : right_id == NO_ID ? "the second"
                                             : "the result");
    if (!m->byte_level && m->words_begin_at_metaspace)
        m->words_begin_at_metaspace = !metaspace_inside((view){r->joined.data, r->joined.size});
    *merge_find(m, left_id, right_id) = (merge_slot){left_id, right_id, rank, merged + 1};
    return OK;
}

static int read_merges(bpe_model *m, const cJSON *json, error *err) {
    const cJSON *list = json_get(json, "merges"), *item;
    if (!cJSON_IsArray(list)) return error_set(err, ERR_INVALID, "the model has no array 'merges'");
    size_t count = (size_t)cJSON_GetArraySize(list), slots = 16;
    while (slots < count * 2) slots *= 2;
    m->merges = calloc(slots, sizeof *m->merges);
    if (!m->merges) fatal("out of memory for %zu merges", count);
    m->merges_mask = (uint32_t)(slots - 1);
    merge_reader r;
    buf_init(&r.left, UINT32_MAX - 1), buf_init(&r.right, UINT32_MAX - 1), buf_init(&r.joined, UINT32_MAX - 1);
    uint32_t rank = 0;
    int      code = OK;
    cJSON_ArrayForEach(item, list) {
        if ((code = read_merge(m, item, rank++, &r, err)) != OK) break;
    }
    buf_free(&r.left), buf_free(&r.right), buf_free(&r.joined);
    return code;
}

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

static void find_units(bpe_model *m) {
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char)b, name[8];
        bool symbol = m->byte_level || b < 0x80;
        int  n = snprintf(name, sizeof name, "<0x%02X>", b);
        m->unit[b] = symbol ? vocab_find(&m->vocab, (view){&byte, 1}, m->byte_level ? TOKEN_BYTES : 0) : NO_ID;
        m->fallback[b] = vocab_find_text(&m->vocab, (view){name, (size_t)n});
    }
}

int bpe_model_read(bpe_model *m, const cJSON *json, bool byte_level, size_t added_count, error *err) {
    const char *type = "BPE", *unk = NULL;
    *m = (bpe_model){.byte_level = byte_level, .unk_id = NO_ID};
    if (!cJSON_IsObject(json)) return error_set(err, ERR_INVALID, "there is no object 'model'");
    int code = json_read_string(json, "type", &type, err);
    if (code == OK && strcmp(type, "BPE"))
        return error_set(err, ERR_UNSUPPORTED, "the model '%.60s' is not supported (supported: BPE)", type);
    if (code == OK) code = refuse_variants(json, err);
    if (code == OK) code = json_read_bool(json, "byte_fallback", &m->byte_fallback, err);
    if (code == OK) code = json_read_bool(json, "fuse_unk", &m->fuse_unk, err);
    if (code == OK) code = json_read_bool(json, "ignore_merges", &m->ignore_merges, err);
    if (code == OK) code = json_read_string(json, "unk_token", &unk, err);
    if (code == OK) code = read_vocab(m, json, added_count, err);
    if (code != OK) return code;
    m->words_begin_at_metaspace = !byte_level && !m->ignore_merges &&
                                  vocab_find(&m->vocab, (view){metaspace_char, sizeof metaspace_char - 1}, 0) != NO_ID;
    if (unk && (m->unk_id = vocab_find_text(&m->vocab, (view){unk, strlen(unk)})) == NO_ID)
        return error_set(err, ERR_INVALID, "the unknown token '%.40s' is not in the vocabulary", unk);
    find_units(m);
    return read_merges(m, json, err);
}

void bpe_model_seal(bpe_model *m) {
    buf_free(&m->vocab.unmapped);
    m->whole = calloc(m->vocab.id_end, 1);
    if (!m->whole) fatal("out of memory for a vocabulary of %u tokens", m->vocab.id_end);
}

void bpe_model_free(bpe_model *m) {
    vocab_free(&m->vocab);
    free(m->merges);
    free(m->whole);
}

/* ---- from a word to symbols ---- */

void token_push(token_ids *out, uint32_t id) {
    if (out->count == out->capacity) out->ids = grow(out->ids, &out->capacity, out->count + 1, sizeof *out->ids);
    out->ids[out->count++] = id;
}

typedef struct {
    uint32_t *ids;
    size_t    count;
    bool      unknown; /* the unknown token is due before the next symbol */
} symbols;

static void flush_unknown(const bpe_model *m, symbols *s) {
    if (s->unknown) s->ids[s->count++] = m->unk_id;
    s->unknown = false;
}

/* A character that is not in the vocabulary: its bytes where all have a token, else the unknown token (one for a run of
 * them where fuse_unk), else nothing. */
static void add_unknown(const bpe_model *m, symbols *s, view character) {
    bool bytes = m->byte_fallback;
    for (size_t i = 0; i < character.size && bytes; i++) bytes = m->fallback[(unsigned char)character.data[i]] != NO_ID;
    if (bytes) {
        for (size_t i = 0; i < character.size; i++) s->ids[s->count++] = m->fallback[(unsigned char)character.data[i]];
    } else if (m->unk_id != NO_ID) {
        if (!m->fuse_unk) flush_unknown(m, s);
        s->unknown = true;
    }
}

/* ids has room for one symbol a byte; returns their number. */
static size_t split_symbols(const bpe_model *m, view word, uint32_t *ids) {
    symbols s = {.ids = ids};
    for (size_t i = 0; i < word.size;) {
        uint32_t id = m->unit[(unsigned char)word.data[i]], cp;
        size_t   n = 1;
        if (id == NO_ID && !m->byte_level) {
            n = (size_t)utf8_decode(word.data + i, word.size - i, &cp);
            if (n > 1) id = vocab_find(&m->vocab, (view){word.data + i, n}, 0);
        }
        if (id != NO_ID) flush_unknown(m, &s), s.ids[s.count++] = id;
        else add_unknown(m, &s, (view){word.data + i, n});
        i += n;
    }
    flush_unknown(m, &s);
    return s.count;
}

/* ---- merging ---- */

/* Merges ids[0..n) in place, n <= SHORT_MAX; returns the number left. */
static size_t merge_short(const bpe_model *m, uint32_t *ids, size_t n) {
    uint32_t rank[SHORT_MAX], merged[SHORT_MAX];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = merge_rank(m, ids[i], ids[i + 1], &merged[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        ids[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) ids[i] = ids[i + 1], rank[i] = rank[i + 1], merged[i] = merged[i + 1];
        if (best + 1 < n) rank[best] = merge_rank(m, ids[best], ids[best + 1], &merged[best]);
        if (best > 0) rank[best - 1] = merge_rank(m, ids[best - 1], ids[best], &merged[best - 1]);
    }
    return n;
}

/* Binary min-heap of rank << 32 | position. */
static void heap_sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t value = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

static void heap_push(uint64_t *heap, size_t n, uint64_t value) {
    size_t i = n;
    for (; i && heap[(i - 1) / 2] > value; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = value;
}

static void scratch_reserve(bpe_scratch *s, size_t n) {
    s->ids = grow(s->ids, &s->ids_capacity, n, sizeof *s->ids);
    if (n <= SHORT_MAX) return;
    s->next = grow(s->next, &s->next_capacity, n, sizeof *s->next);
    s->previous = grow(s->previous, &s->previous_capacity, n, sizeof *s->previous);
    s->rank = grow(s->rank, &s->rank_capacity, n, sizeof *s->rank);
    s->merged = grow(s->merged, &s->merged_capacity, n, sizeof *s->merged);
    s->heap = grow(s->heap, &s->heap_capacity, 3 * n, sizeof *s->heap); /* n pairs, and two for each merge that takes one */
}

void bpe_scratch_free(bpe_scratch *s) {
    free(s->ids), free(s->next), free(s->previous), free(s->rank), free(s->merged), free(s->heap);
}

/* Looks up the pair that begins at i, and puts it on the heap if it has a merge. */
static void pair_update(const bpe_model *m, bpe_scratch *s, uint32_t i, size_t *heap_count) {
    s->rank[i] = s->next[i] == NO_ID ? NO_RANK : merge_rank(m, s->ids[i], s->ids[s->next[i]], &s->merged[i]);
    if (s->rank[i] != NO_RANK) heap_push(s->heap, (*heap_count)++, (uint64_t)s->rank[i] << 32 | i);
}

static void merge_long(const bpe_model *m, bpe_scratch *s, size_t n) {
    size_t heap_count = 0;
    for (uint32_t i = 0; i < n; i++) s->next[i] = i + 1 < n ? i + 1 : NO_ID, s->previous[i] = i - 1;
    for (uint32_t i = 0; i < n; i++) pair_update(m, s, i, &heap_count);
    while (heap_count) {
        uint32_t rank = (uint32_t)(s->heap[0] >> 32), i = (uint32_t)s->heap[0];
        s->heap[0] = s->heap[--heap_count];
        if (heap_count) heap_sift_down(s->heap, heap_count, 0);
        if (s->rank[i] != rank) continue; /* this pair is no more */
        uint32_t gone = s->next[i];
        s->ids[i] = s->merged[i];
        s->next[i] = s->next[gone];
        s->rank[gone] = NO_RANK;
        if (s->next[i] != NO_ID) s->previous[s->next[i]] = i;
        pair_update(m, s, i, &heap_count);
        if (i) pair_update(m, s, s->previous[i], &heap_count);
    }
}

static void merge_word(const bpe_model *m, bpe_scratch *s, view word, token_ids *out) {
    scratch_reserve(s, word.size);
    size_t n = split_symbols(m, word, s->ids);
    if (n <= SHORT_MAX) {
        n = merge_short(m, s->ids, n);
        for (size_t i = 0; i < n; i++) token_push(out, s->ids[i]);
        return;
    }
    merge_long(m, s, n);
    for (uint32_t i = 0; i != NO_ID; i = s->next[i]) token_push(out, s->ids[i]);
}

static void encode_word(const bpe_model *m, bpe_scratch *s, view word, token_ids *out) {
    enum { WHOLE_MAX_BYTES = 64 };
    uint32_t id = m->ignore_merges || word.size <= WHOLE_MAX_BYTES
                      ? vocab_find(&m->vocab, word, m->byte_level ? TOKEN_BYTES : 0)
                      : NO_ID;
    if (id == NO_ID) return merge_word(m, s, word, out);
    if (m->ignore_merges) return token_push(out, id);
    unsigned char known = atomic_load_explicit(&m->whole[id], memory_order_relaxed);
    if (known == WHOLE_YES) return token_push(out, id);
    size_t before = out->count;
    merge_word(m, s, word, out);
    if (known == WHOLE_UNKNOWN)
        atomic_store_explicit(&m->whole[id], out->count == before + 1 && out->ids[before] == id ? WHOLE_YES : WHOLE_NO,
                              memory_order_relaxed);
}

void bpe_encode(const bpe_model *m, bpe_scratch *s, view word, token_ids *out) {
    const size_t n = sizeof metaspace_char - 1;
    if (!m->words_begin_at_metaspace) return encode_word(m, s, word, out);
    size_t start = 0;
    for (size_t at = 0; at < word.size;) {
        while (at + n <= word.size && memcmp(word.data + at, metaspace_char, n) == 0) at += n;
        const char *next = memmem(word.data + at, word.size - at, metaspace_char, n);
        at = next ? (size_t)(next - word.data) : word.size;
        encode_word(m, s, (view){word.data + start, at - start}, out);
        start = at;
    }
}
