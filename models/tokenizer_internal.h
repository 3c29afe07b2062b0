/* models/tokenizer_internal.h: what the tokenizer's files share; nobody else includes it.
 *
 * Text takes four steps, and a fifth on the way back; their names are those of the published format:
 *
 *   added tokens    tokenizer_added.c         tokens whose text is looked for before anything else
 *   normalizer      tokenizer_normalize.c     rewrites the text between them
 *   pre-tokenizer   tokenizer_pretokenize.c   cuts it into words, at patterns (tokenizer_pattern.c)
 *   model           tokenizer_bpe.c           merges each word's bytes into tokens (tables: tokenizer_vocab.c)
 *   decoder         tokenizer_decode.c        ids back to text
 *
 * tokenizer.c walks a text through the four. tokenizer_open.c reads the file, with tokenizer_model.c and tokenizer_scan.c
 * for its largest part. Normalizer, pre-tokenizer and decoder are short arrays of small operations that the file's JSON
 * was read into. */
#pragma once
#include <stdatomic.h>
#include <stdlib.h>

#include "base/json.h"
#include "models/tokenizer.h"

enum {
    STEPS_MAX = 16,           /* operations in one normalizer, pre-tokenizer, decoder or post-processor */
    ADDED_TEXT_MAX = 1024,    /* bytes in one added token: bounds what one position of the text can cost to look at */
    TEXT_MAX_BYTES = 1 << 26, /* of one encoding; offsets are 32 bits wide */
    IDS_MAX = 4 << 20,        /* an id is below this */
};
#define NO_ID UINT32_MAX

/* Makes room for `need` items of `item` bytes at *array, keeping what is there. */
static inline void *grow(void *array, size_t *capacity, size_t need, size_t item) {
    if (need <= *capacity) return array;
    size_t want = *capacity * 2 > need ? *capacity * 2 : need < 64 ? 64 : need;
    void  *grown = realloc(array, want * item);
    if (!grown) fatal("out of memory growing an array to %zu items of %zu bytes", want, item);
    *capacity = want;
    return grown;
}

/* Zeroed slots of `item` bytes for a hash table, a power of two and at least twice `entries`; *mask is their number less 1.
 */
void *table_new(size_t entries, size_t item, uint32_t *mask);

typedef struct {
    const char *data;
    size_t      size;
} view;

typedef struct {
    uint32_t start, end; /* bytes */
} span;

typedef struct {
    span  *at;
    size_t count, capacity;
} span_list;
void span_push(span_list *list, uint32_t start, uint32_t end);

/* Unicode, as the reference implementation sees it. */
bool unicode_is_space(uint32_t cp); /* White_Space */
bool unicode_is_word(uint32_t cp);  /* what \w matches */

/* ---- patterns: {"Regex": ...} or {"String": ...} (tokenizer_pattern.c) ---- */

typedef struct {
    void  *code, *limits; /* PCRE2's; NULL for a literal */
    bool   jit;
    char  *literal; /* owned */
    size_t literal_size;
} pattern;

/* What matching needs besides the pattern; one per encoding. */
typedef struct {
    void  *data; /* PCRE2's match data */
    error *err;
} matcher;

int  pattern_regex(pattern *p, const char *regex, error *err);
void pattern_literal(pattern *p, const char *text);
int  pattern_read(pattern *p, const cJSON *json, error *err);
void pattern_free(pattern *p);
void matcher_init(matcher *m, error *err);
void matcher_free(matcher *m);
/* The first match in text at or after `from`: 1 and *found, 0 for none, or an error code. text is valid UTF-8. */
int pattern_find(const pattern *p, const matcher *m, view text, size_t from, span *found);

/* ---- normalizer ---- */

typedef enum { NORMALIZE_UNICODE, NORMALIZE_LOWERCASE, NORMALIZE_PREPEND, NORMALIZE_REPLACE, NORMALIZE_STRIP } normalize_op;
typedef struct {
    normalize_op op;
    bool         compose, compatibility; /* NFC, NFD, NFKC, NFKD */
    bool         left, right;            /* strip */
    pattern      find;                   /* replace */
    char        *text;                   /* prepend, replace: owned */
} normalize_step;

typedef struct {
    normalize_step steps[STEPS_MAX];
    unsigned       count;
} normalizer;

int  normalizer_read(normalizer *n, const cJSON *json, error *err);
void normalizer_free(normalizer *n);
/* *text becomes the normalized text: itself where nothing changes, else what lies in one of the two buffers. */
int normalizer_apply(const normalizer *n, const matcher *m, buf scratch[2], view *text);

/* ---- pre-tokenizer ---- */

typedef enum {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
} split_behavior;
typedef enum { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend_scheme;
typedef enum { PRETOKENIZE_SPLIT, PRETOKENIZE_SPACE_IN_FRONT, PRETOKENIZE_METASPACE } pretokenize_op;
typedef struct {
    pretokenize_op op;
    split_behavior behavior;
    bool           invert;
    pattern        find;           /* split */
    prepend_scheme prepend;        /* metaspace */
    char           replacement[8]; /* metaspace: one character, NUL-terminated */
} pretokenize_step;

typedef struct {
    pretokenize_step steps[STEPS_MAX];
    unsigned         count;
    bool             byte_level; /* the model's alphabet is bytes, written as the characters of GPT-2's table */
} pretokenizer;

typedef struct {
    view      text; /* what the spans are of */
    span_list words;
    bool      at_start; /* the text begins where the user's text begins */
    /* scratch */
    span_list other;
    buf       rewritten[2];
} pretokenized;

int  pretokenizer_read(pretokenizer *p, const cJSON *json, error *err);
void pretokenizer_free(pretokenizer *p);
/* Cuts into->text: into->words are its words, none empty. Steps that rewrite replace into->text. */
int pretokenizer_apply(const pretokenizer *p, const matcher *m, pretokenized *into);
/* "replacement" of Metaspace as a pre-tokenizer or decoder: one character. */
int metaspace_read(const cJSON *json, char replacement[8], prepend_scheme *scheme, error *err);

/* ---- JSON read without a tree (tokenizer_scan.c) ---- */

typedef struct {
    const char *start, *at, *end; /* valid UTF-8 */
    error      *err;
} json_walk;
char walk_peek(json_walk *w);                          /* the next character that is not space; 0 at the end */
int  walk_open(json_walk *w, char bracket);            /* moves past '{', '[' or ':' */
int  walk_next(json_walk *w, char close, bool *first); /* 1: at an element; 0: past `close`; or an error code */
int  walk_string(json_walk *w, buf *out);              /* appends a string, unescaped; it may hold NUL */
int  walk_value(json_walk *w, view *text);             /* moves past any value, whose brackets and strings end */

/* The values of the model's large members, as JSON; data is NULL for one that is not there. */
typedef struct {
    view vocab, merges;
} model_text;
/* Appends to `rest` the file with null in the place of both. */
int model_text_cut(view file, model_text *m, buf *rest, error *err);

/* ---- vocabulary and merges ---- */

enum {
    TOKEN_PRESENT = 1,
    TOKEN_BYTES = 2,   /* its bytes are raw bytes that were written in the byte-level alphabet, not the text as written */
    TOKEN_ADDED = 4,   /* listed in added_tokens */
    TOKEN_SPECIAL = 8, /* and marked special there */
};
typedef struct {
    uint32_t at, size; /* its bytes in the pool */
    uint8_t  flags;
} vocab_token;

typedef struct {
    buf          pool;
    vocab_token *tokens; /* [id_end] */
    uint32_t     id_end; /* largest id + 1 */
    size_t       capacity;
    uint64_t    *index; /* open addressing: high half of the hash, id + 1; 0 is empty */
    uint32_t     index_mask, count;
    buf          unmapped; /* scratch of vocab_add */
    bool         byte_level;
    int16_t      byte_of_char[324]; /* byte-level alphabet: code point to byte, -1 for none */
} vocab;

void vocab_init(vocab *v, size_t tokens_expected, bool byte_level);
void vocab_free(vocab *v);
int  vocab_add(vocab *v, view text, uint32_t id, unsigned flags, error *err); /* text as in the file; flags: TOKEN_ADDED.. */
uint32_t vocab_find(const vocab *v, view bytes, unsigned kind);               /* kind: TOKEN_BYTES or 0; NO_ID */
uint32_t vocab_find_text(const vocab *v, view text);                          /* text as in the file; NO_ID */
view     vocab_bytes(const vocab *v, uint32_t id);
/* Raw bytes of a text in the byte-level alphabet; false where a character is not of it. Clears `out` first. */
bool vocab_unmap(const vocab *v, view text, buf *out);

#define METASPACE "\xE2\x96\x81" /* U+2581, SentencePiece's space */
enum { METASPACE_BYTES = 3 };

typedef struct {
    uint32_t left, right, rank, merged_plus_one; /* 0: empty */
} merge_slot;

typedef struct {
    vocab                  vocab;
    merge_slot            *merges; /* open addressing */
    uint32_t               merges_mask;
    uint32_t               unit[256];     /* id of a one-byte symbol, NO_ID where the vocabulary has none */
    uint32_t               fallback[256]; /* id of "<0xNN>" */
    bool                   byte_level, byte_fallback, fuse_unk, ignore_merges;
    bool                   words_begin_at_metaspace; /* see tokenizer_bpe.c */
    uint32_t               unk_id;                   /* NO_ID for none */
    uint32_t               token_bytes_max;          /* so n bytes have at least n / this tokens; 0: bytes may vanish */
    _Atomic unsigned char *whole;                    /* [id_end] memo of encode_word; threads share it */
} bpe_model;

/* json: the object 'model', without what is in text; m->byte_level is set. */
int  bpe_model_read(bpe_model *m, const cJSON *json, const model_text *text, size_t added_count, error *err);
void bpe_model_seal(bpe_model *m); /* once all tokens are known */
void bpe_model_free(bpe_model *m);

merge_slot *merge_find(const bpe_model *m, uint32_t left, uint32_t right); /* or the empty slot where it would go */

/* Scratch of one encoding. */
typedef struct {
    uint32_t *ids, *next, *previous, *rank, *merged;
    uint64_t *heap;
    size_t    ids_capacity, next_capacity, previous_capacity, rank_capacity, merged_capacity, heap_capacity, heap_count;
} bpe_scratch;
void bpe_scratch_free(bpe_scratch *s);
void bpe_encode(const bpe_model *m, bpe_scratch *s, view word, token_ids *out); /* one pre-tokenized word */
void token_push(token_ids *out, uint32_t id);

/* ---- added tokens ---- */

typedef struct {
    char    *text; /* owned */
    uint32_t id;
    bool     special, lstrip, rstrip, single_word, normalized;
} added_token;

/* A trie over bytes: node 0 of `nodes` is unused, root[] holds the first level. */
typedef struct {
    uint32_t child, sibling, token_plus_one;
    uint8_t  byte;
} trie_node;
typedef struct {
    trie_node *nodes;
    size_t     count, capacity;
    uint32_t   root[256];
} trie;

typedef struct {
    added_token *list;
    size_t       count, capacity;
    trie         as_written, normalized; /* matched before and after normalization */
    trie         special;                /* the special ones of both, as written */
} added_tokens;

typedef struct {
    uint32_t           start, end; /* with the whitespace that lstrip and rstrip take */
    const added_token *token;
} added_match;

int  added_tokens_read(added_tokens *a, vocab *v, const cJSON *json, error *err);
int  added_tokens_read_config(added_tokens *a, vocab *v, const cJSON *config, error *err);
void added_tokens_seal(added_tokens *a, const normalizer *n); /* builds the tries */
void added_tokens_free(added_tokens *a);

/* Walks over the added tokens in a text from left to right. */
typedef struct {
    const added_tokens *tokens;
    const trie         *among;
    view                text;
    bool                special; /* whether special tokens count */
    const size_t       *guards;  /* ascending, offsets into text */
    size_t              guard_count;
    uint32_t            at, taken; /* scanned to, matched to */
} added_scan;
bool     added_scan_next(added_scan *s, added_match *out);
uint32_t trie_match(const trie *t, view text, size_t *length); /* longest token at the beginning of text; NO_ID */

/* ---- decoder ---- */

typedef enum { DECODE_REPLACE, DECODE_STRIP, DECODE_METASPACE } decode_op;
typedef struct {
    decode_op op;
    pattern   find;       /* replace: a literal */
    char     *text;       /* replace: owned */
    char      strip_char; /* ASCII */
    uint32_t  strip_left, strip_right;
    char      replacement[8]; /* metaspace */
    bool      drop_first;     /* metaspace: the first token loses its replacement characters */
} decode_step;

typedef struct {
    decode_step steps[STEPS_MAX];
    unsigned    count;
    bool        byte_level, byte_fallback, fused;
    char        strip_char; /* after the last step: taken from the beginning of the text, at most strip_left times */
    uint32_t    strip_left;
} decoder;
int  decoder_read(decoder *d, const cJSON *json, error *err);
void decoder_free(decoder *d);

struct tokenizer {
    normalizer   normalizer;
    pretokenizer pretokenizer;
    bpe_model    model;
    added_tokens added;
    decoder      decoder;
    token_ids    front, behind; /* TOKENIZE_BOS */
};
