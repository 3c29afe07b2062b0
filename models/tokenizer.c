/* models/tokenizer.c: one text through all the steps (tokenizer_internal.h lists them).
 *
 * The reference cuts a text at the added tokens first, and normalizes and pre-tokenizes each section between them on
 * its own; a step that puts something in front (SentencePiece's space) does so in every section. */
#include <string.h>

#include "base/utf8.h"
#include "models/tokenizer_internal.h"

typedef struct {
    const tokenizer *t;
    bool             special;
    matcher          matcher;
    pretokenized     words;
    bpe_scratch      bpe;
    buf              normalized[2];
    token_ids       *out;
} encoding;

typedef struct {
    size_t *at;
    size_t  count, capacity;
} offsets;

static void offset_push(offsets *list, size_t at) {
    list->at = grow(list->at, &list->capacity, list->count + 1, sizeof *list->at);
    list->at[list->count++] = at;
}

static void encoding_init(encoding *e, const tokenizer *t, size_t text_size, error *err) {
    size_t limit = 32 * text_size + (1 << 20); /* the widest compatibility decomposition is elevenfold */
    *e = (encoding){.t = t};
    matcher_init(&e->matcher, err);
    for (int i = 0; i < 2; i++) buf_init(&e->words.rewritten[i], limit), buf_init(&e->normalized[i], limit);
}

static void encoding_free(encoding *e) {
    matcher_free(&e->matcher);
    for (int i = 0; i < 2; i++) buf_free(&e->words.rewritten[i]), buf_free(&e->normalized[i]);
    free(e->words.words.at), free(e->words.other.at);
    bpe_scratch_free(&e->bpe);
}

/* Whether a word of so many bytes brings more tokens than are wanted, known before anything is spent on it. */
static bool too_many(const encoding *e, size_t word_bytes) {
    const size_t longest = e->t->model.token_bytes_max;
    return e->out->max && e->out->count + (longest ? word_bytes / longest : 0) > e->out->max;
}

/* Text between added tokens, normalized. */
static int encode_piece(encoding *e, view text, bool at_start) {
    e->words.text = text, e->words.at_start = at_start;
    int code = pretokenizer_apply(&e->t->pretokenizer, &e->matcher, &e->words);
    for (size_t i = 0; code == OK && i < e->words.words.count; i++) {
        span w = e->words.words.at[i];
        if (too_many(e, w.end - w.start))
            return error_set(e->matcher.err, ERR_TOO_LARGE, "the text has more than %zu tokens", e->out->max);
        bpe_encode(&e->t->model, &e->bpe, (view){e->words.text.data + w.start, w.end - w.start}, e->out);
    }
    return code;
}

/* ---- guards in normalized text ----
 *
 * A guard is an offset into the text as written. To find it again after normalization, the section is normalized once
 * more with a noncharacter at each guard. Should that give another text (it does not, unless a mark parts what composes),
 * no special token is read in this section. */

static bool pick_mark(view text, char mark[4]) {
    for (uint32_t cp = 0xFDD0; cp <= 0xFDEF; cp++) {
        utf8_encode(cp, mark);
        if (!memmem(text.data, text.size, mark, 3)) return true;
    }
    return false;
}

static void mark_guards(view text, const offsets *guards, const char mark[4], buf *out) {
    size_t at = 0;
    for (size_t i = 0; i < guards->count; i++) {
        buf_append(out, text.data + at, guards->at[i] - at);
        buf_append(out, mark, 3);
        at = guards->at[i];
    }
    buf_append(out, text.data + at, text.size - at);
}

/* Takes the marks out of `marked` again and notes where they were; whether what is left is `normalized`. */
static bool unmark(view marked, const char mark[4], view normalized, offsets *guards) {
    size_t at = 0, from = 0;
    guards->count = 0;
    while (from < marked.size) {
        const char *hit = memmem(marked.data + from, marked.size - from, mark, 3);
        size_t      run = hit ? (size_t)(hit - marked.data) - from : marked.size - from;
        if (run > normalized.size - at || memcmp(marked.data + from, normalized.data + at, run)) return false;
        at += run, from += run + (hit ? 3 : 0);
        if (hit) offset_push(guards, at);
    }
    return at == normalized.size;
}

static bool carry_guards(encoding *e, view section, view normalized, offsets *guards) {
    char  mark[4];
    buf   marked, scratch[2];
    bool  carried = false;
    error ignored;
    if (!pick_mark(section, mark)) return false;
    buf_init(&marked, SIZE_MAX / 2);
    for (int i = 0; i < 2; i++) buf_init(&scratch[i], e->normalized[i].limit + 3 * guards->count);
    mark_guards(section, guards, mark, &marked);
    view    text = {marked.data, marked.size};
    matcher m = {e->matcher.data, &ignored};
    if (normalizer_apply(&e->t->normalizer, &m, scratch, &text) == OK) carried = unmark(text, mark, normalized, guards);
    buf_free(&marked), buf_free(&scratch[0]), buf_free(&scratch[1]);
    return carried;
}

/* ---- sections ---- */

static int encode_normalized(encoding *e, view text, bool at_start, bool special, const offsets *guards) {
    const added_tokens *added = &e->t->added;
    added_scan          scan = {.tokens = added,
                                .among = &added->normalized,
                                .text = text,
                                .special = special,
                                .guards = guards->at,
                                .guard_count = guards->count};
    added_match         match;
    uint32_t            done = 0;
    int                 code = OK;
    while (code == OK && added_scan_next(&scan, &match)) {
        code = encode_piece(e, (view){text.data + done, match.start - done}, at_start && done == 0);
        token_push(e->out, match.token->id);
        done = match.end;
    }
    return code == OK ? encode_piece(e, (view){text.data + done, text.size - done}, at_start && done == 0) : code;
}

/* Text between added tokens that are matched as written. */
static int encode_section(encoding *e, view section, bool at_start, offsets *guards) {
    const tokenizer *t = e->t;
    view             text = section;
    bool             special = e->special;
    int              code = normalizer_apply(&t->normalizer, &e->matcher, e->normalized, &text);
    if (code != OK || text.size == 0) return code;
    if (t->added.normalized.count == 0) return encode_piece(e, text, at_start);
    if (special && guards->count && t->normalizer.count) special = carry_guards(e, section, text, guards);
    return encode_normalized(e, text, at_start, special, guards);
}

static int encode_text(encoding *e, view text, const offsets *guards) {
    const added_tokens *added = &e->t->added;
    added_scan          scan = {.tokens = added,
                                .among = &added->as_written,
                                .text = text,
                                .special = e->special,
                                .guards = guards->at,
                                .guard_count = guards->count};
    added_match         match = {0};
    offsets             inside = {0};
    size_t              done = 0, guard = 0;
    int                 code = OK;
    for (bool more = true; more && code == OK; done = match.end) {
        more = added_scan_next(&scan, &match);
        if (!more) match.start = match.end = (uint32_t)text.size;
        inside.count = 0;
        for (; guard < guards->count && guards->at[guard] < match.end; guard++)
            if (guards->at[guard] >= done && guards->at[guard] < match.start) offset_push(&inside, guards->at[guard] - done);
        if (match.start > done) code = encode_section(e, (view){text.data + done, match.start - done}, done == 0, &inside);
        if (more && code == OK) token_push(e->out, match.token->id);
    }
    free(inside.at);
    return code;
}

/* ---- the public functions ---- */

/* A copy of text with each malformed part as U+FFFD; the guards move along. */
static void make_valid(view text, const size_t *guards, size_t guard_count, buf *out, offsets *moved) {
    size_t next = 0;
    for (size_t i = 0; i < text.size;) {
        uint32_t cp;
        int      n = utf8_decode(text.data + i, text.size - i, &cp);
        size_t   step = (size_t)(n > 0 ? n : -n);
        for (; next < guard_count && guards[next] < i + step; next++) offset_push(moved, out->size);
        buf_append(out, n > 0 ? text.data + i : "\xEF\xBF\xBD", n > 0 ? step : 3);
        i += step;
    }
}

int tokenizer_encode_guarded(const tokenizer *t, const char *text, size_t n, unsigned flags, const size_t *guards,
                             size_t guard_count, token_ids *out, error *err) {
    error    unwanted;
    encoding e;
    buf      valid;
    offsets  moved = {0}, given = {.at = (size_t *)guards, .count = guard_count};
    view     input = {text, n};
    size_t   before = out->count;
    if (n > TEXT_MAX_BYTES)
        return error_set(err, ERR_TOO_LARGE, "a text of %zu bytes is over the limit of %d", n, TEXT_MAX_BYTES);
    buf_init(&valid, (size_t)TEXT_MAX_BYTES * 3);
    encoding_init(&e, t, n, err ? err : &unwanted);
    e.special = flags & TOKENIZE_SPECIAL, e.out = out;
    if (!utf8_valid(text, n)) {
        make_valid(input, guards, guard_count, &valid, &moved);
        input = (view){valid.data, valid.size}, given = moved;
    }
    for (size_t i = 0; flags & TOKENIZE_BOS && i < t->front.count; i++) token_push(out, t->front.ids[i]);
    int code = encode_text(&e, input, &given);
    for (size_t i = 0; flags & TOKENIZE_BOS && i < t->behind.count; i++) token_push(out, t->behind.ids[i]);
    if (code != OK) out->count = before;
    encoding_free(&e);
    buf_free(&valid);
    free(moved.at);
    return code;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, token_ids *out, error *err) {
    return tokenizer_encode_guarded(t, text, n, flags, NULL, 0, out, err);
}

size_t tokenizer_special_prefix(const tokenizer *t, const char *text, size_t n) {
    size_t length = 0;
    return trie_match(&t->added.special, (view){text, n}, &length) == NO_ID ? 0 : length;
}

void token_ids_free(token_ids *ids) {
    free(ids->ids);
    *ids = (token_ids){0};
}

uint32_t tokenizer_vocab_size(const tokenizer *t) { return t->model.vocab.id_end; }

bool tokenizer_is_special(const tokenizer *t, uint32_t id) {
    return id < t->model.vocab.id_end && t->model.vocab.tokens[id].flags & TOKEN_SPECIAL;
}

int64_t tokenizer_id_of(const tokenizer *t, const char *token) {
    uint32_t id = vocab_find_text(&t->model.vocab, (view){token, strlen(token)});
    return id == NO_ID ? -1 : (int64_t)id;
}

const char *tokenizer_kind(const tokenizer *t) { return t->model.byte_level ? "byte-level BPE" : "SentencePiece BPE"; }
