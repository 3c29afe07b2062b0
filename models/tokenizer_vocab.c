/* models/tokenizer_vocab.c: token bytes to id and back.
 *
 * Byte-level vocabularies are written in an alphabet of 256 printable characters, one for each byte. They are read back
 * into raw bytes here, once, so that encoding and decoding work on the text's own bytes. A token that is not of that
 * alphabet (some added tokens) stays as it is written; TOKEN_BYTES tells the two apart, since their bytes may be equal. */
#include <string.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "models/tokenizer_internal.h"

static bool printable(unsigned byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD); }

/* Large tables are read at random: in huge pages that costs far fewer misses of the address cache. */
void *table_new(size_t entries, size_t item, uint32_t *mask) {
    const size_t huge_page_bytes = 2 << 20;
    size_t       slots = 16;
    while (slots < entries * 2) slots *= 2;
    size_t bytes = slots * item;
    bool   huge = bytes >= huge_page_bytes;
    void  *table = huge ? aligned_alloc(huge_page_bytes, bytes) : calloc(slots, item);
    if (!table) fatal("out of memory for a table of %zu entries", entries);
    if (huge) madvise(table, bytes, MADV_HUGEPAGE), memset(table, 0, bytes);
    *mask = (uint32_t)(slots - 1);
    return table;
}

void vocab_init(vocab *v, size_t tokens_expected, bool byte_level) {
    *v = (vocab){.byte_level = byte_level};
    buf_init(&v->pool, UINT32_MAX - 1);
    buf_init(&v->unmapped, UINT32_MAX - 1);
    v->index = table_new(tokens_expected, sizeof *v->index, &v->index_mask);
    memset(v->byte_of_char, -1, sizeof v->byte_of_char);
    int16_t next = 256;
    for (int16_t b = 0; b < 256; b++) v->byte_of_char[printable((unsigned)b) ? b : next++] = b;
}

void vocab_free(vocab *v) {
    buf_free(&v->pool);
    buf_free(&v->unmapped);
    free(v->tokens);
    free(v->index);
}

view vocab_bytes(const vocab *v, uint32_t id) {
    if (id >= v->id_end || !(v->tokens[id].flags & TOKEN_PRESENT)) return (view){"", 0};
    return (view){v->pool.data + v->tokens[id].at, v->tokens[id].size};
}

bool vocab_unmap(const vocab *v, view text, buf *out) {
    buf_clear(out);
    for (size_t i = 0; i < text.size;) {
        uint32_t cp;
        int      n = utf8_decode(text.data + i, text.size - i, &cp);
        if (n <= 0 || cp >= sizeof v->byte_of_char / sizeof *v->byte_of_char || v->byte_of_char[cp] < 0) return false;
        buf_char(out, (char)v->byte_of_char[cp]);
        i += (size_t)n;
    }
    return true;
}

/* The slot that holds these bytes, or the empty one where they would go. */
static uint64_t *slot_of(const vocab *v, view bytes, unsigned kind, uint64_t *hash) {
    *hash = hash_u64(bytes.data, bytes.size, kind & TOKEN_BYTES);
    for (uint32_t i = (uint32_t)*hash & v->index_mask;; i = (i + 1) & v->index_mask) {
        uint64_t slot = v->index[i];
        if (slot == 0) return &v->index[i];
        if (slot >> 32 != *hash >> 32) continue;
        const vocab_token *t = &v->tokens[(uint32_t)slot - 1];
        if (t->size == bytes.size && (t->flags & TOKEN_BYTES) == (kind & TOKEN_BYTES) &&
            memcmp(v->pool.data + t->at, bytes.data, bytes.size) == 0)
            return &v->index[i];
    }
}

uint32_t vocab_find(const vocab *v, view bytes, unsigned kind) {
    uint64_t hash;
    return (uint32_t)*slot_of(v, bytes, kind, &hash) - 1; /* 0 - 1 is NO_ID */
}

uint32_t vocab_find_text(const vocab *v, view text) {
    uint32_t id = vocab_find(v, text, 0);
    if (id != NO_ID || !v->byte_level) return id;
    buf raw;
    buf_init(&raw, text.size);
    if (vocab_unmap(v, text, &raw)) id = vocab_find(v, (view){raw.data ? raw.data : "", raw.size}, TOKEN_BYTES);
    buf_free(&raw);
    return id;
}

static int reserve_id(vocab *v, uint32_t id, view text, error *err) {
    if (id >= IDS_MAX)
        return error_set(err, ERR_TOO_LARGE, "the token '%.40s' has the id %u; ids must be below %d", text.data, id,
                         IDS_MAX);
    if (id < v->id_end) return OK;
    size_t before = v->capacity;
    v->tokens = grow(v->tokens, &v->capacity, (size_t)id + 1, sizeof *v->tokens);
    memset(v->tokens + before, 0, (v->capacity - before) * sizeof *v->tokens);
    v->id_end = id + 1;
    return OK;
}

/* Keeps half of the index empty. */
static void reserve_slot(vocab *v) {
    if (++v->count * 2 <= v->index_mask) return;
    uint64_t *old = v->index;
    uint32_t  slots = v->index_mask + 1;
    v->index = table_new(slots, sizeof *v->index, &v->index_mask);
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t id = (uint32_t)old[i] - 1;
        uint64_t hash;
        if (old[i]) *slot_of(v, vocab_bytes(v, id), v->tokens[id].flags, &hash) = old[i];
    }
    free(old);
}

int vocab_add(vocab *v, view text, uint32_t id, unsigned flags, error *err) {
    if (reserve_id(v, id, text, err) != OK) return err->code;
    if (v->tokens[id].flags & TOKEN_PRESENT)
        return error_set(err, ERR_INVALID, "the id %u is given to '%.40s' and to another token", id, text.data);
    view bytes = text;
    if (v->byte_level && !(flags & TOKEN_ADDED) && vocab_unmap(v, text, &v->unmapped))
        bytes = (view){v->unmapped.data ? v->unmapped.data : "", v->unmapped.size}, flags |= TOKEN_BYTES;
    reserve_slot(v);
    uint64_t hash, *slot = slot_of(v, bytes, flags, &hash);
    if (*slot)
        return error_set(err, ERR_INVALID, "the token '%.40s' is listed twice, with the ids %u and %u", text.data,
                         (uint32_t)*slot - 1, id);
    v->tokens[id] = (vocab_token){(uint32_t)v->pool.size, (uint32_t)bytes.size, (uint8_t)(flags | TOKEN_PRESENT)};
    buf_append(&v->pool, bytes.data, bytes.size);
    *slot = (hash >> 32 << 32) | (id + 1);
    return OK;
}
