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
 * result in which U+2581 follows another character, no merge can cross such a place, and cutting there changes nothing:
 * words_begin_at_metaspace. */
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

enum { SHORT_MAX = 48, WHOLE_UNKNOWN = 0, WHOLE_YES = 1, WHOLE_NO = 2 };
#define NO_RANK UINT32_MAX

static uint32_t merge_rank(const bpe_model *m, uint32_t left, uint32_t right, uint32_t *merged) {
    const merge_slot *slot = merge_find(m, left, right);
    if (slot->merged_plus_one == 0) return NO_RANK;
    *merged = slot->merged_plus_one - 1;
    return slot->rank;
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

static void heap_push(bpe_scratch *s, uint64_t value) {
    s->heap = grow(s->heap, &s->heap_capacity, s->heap_count + 1, sizeof *s->heap);
    size_t i = s->heap_count++;
    for (; i && s->heap[(i - 1) / 2] > value; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = value;
}

static uint64_t heap_pop(bpe_scratch *s) {
    uint64_t lowest = s->heap[0];
    s->heap[0] = s->heap[--s->heap_count];
    if (s->heap_count) heap_sift_down(s->heap, s->heap_count, 0);
    return lowest;
}

static void scratch_reserve(bpe_scratch *s, size_t n) {
    s->ids = grow(s->ids, &s->ids_capacity, n, sizeof *s->ids);
    if (n <= SHORT_MAX) return;
    s->next = grow(s->next, &s->next_capacity, n, sizeof *s->next);
    s->previous = grow(s->previous, &s->previous_capacity, n, sizeof *s->previous);
    s->rank = grow(s->rank, &s->rank_capacity, n, sizeof *s->rank);
    s->merged = grow(s->merged, &s->merged_capacity, n, sizeof *s->merged);
}

void bpe_scratch_free(bpe_scratch *s) {
    free(s->ids), free(s->next), free(s->previous), free(s->rank), free(s->merged), free(s->heap);
}

/* Looks up the pair that begins at i, and puts it on the heap if it has a merge. */
static void pair_update(const bpe_model *m, bpe_scratch *s, uint32_t i) {
    s->rank[i] = s->next[i] == NO_ID ? NO_RANK : merge_rank(m, s->ids[i], s->ids[s->next[i]], &s->merged[i]);
    if (s->rank[i] != NO_RANK) heap_push(s, (uint64_t)s->rank[i] << 32 | i);
}

/* Leaves the symbols as a list from 0 along `next`. */
static void merge_long(const bpe_model *m, bpe_scratch *s, size_t n) {
    s->heap_count = 0;
    for (uint32_t i = 0; i < n; i++) s->next[i] = i + 1 < n ? i + 1 : NO_ID, s->previous[i] = i - 1;
    for (uint32_t i = 0; i < n; i++) pair_update(m, s, i);
    while (s->heap_count) {
        uint64_t lowest = heap_pop(s);
        uint32_t i = (uint32_t)lowest;
        if (s->rank[i] != lowest >> 32) continue; /* this pair is no more */
        uint32_t gone = s->next[i];
        s->ids[i] = s->merged[i];
        s->next[i] = s->next[gone];
        s->rank[gone] = NO_RANK;
        if (s->next[i] != NO_ID) s->previous[s->next[i]] = i;
        pair_update(m, s, i);
        if (i) pair_update(m, s, s->previous[i]);
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
    const size_t n = METASPACE_BYTES;
    if (!m->words_begin_at_metaspace) return encode_word(m, s, word, out);
    size_t start = 0;
    for (size_t at = 0; at < word.size;) {
        while (at + n <= word.size && memcmp(word.data + at, METASPACE, n) == 0) at += n;
        const char *next = memmem(word.data + at, word.size - at, METASPACE, n);
        at = next ? (size_t)(next - word.data) : word.size;
        encode_word(m, s, (view){word.data + start, at - start}, out);
        start = at;
    }
}
