/* models/tokenizer.h: text to token ids and back, from a published tokenizer.json.
 *
 * Two families: byte-level BPE (GPT-2, Llama 3, Qwen) and SentencePiece-style BPE with byte fallback (Llama 2, Mistral,
 * Phi-3). A file that asks for anything else is refused by name. A tokenizer is read-only once open and may be used by
 * any number of threads; what an encoding needs in memory it takes for itself. Time is near-linear in the text, also
 * for a megabyte without a space. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

typedef struct tokenizer tokenizer;

bool tokenizer_exists(const char *dir); /* a model may come without one */
/* Reads DIR/tokenizer.json and, where present, tokenizer_config.json (special tokens, add_bos_token). */
int  tokenizer_open(tokenizer **out, const char *dir, error *err);
void tokenizer_close(tokenizer *t);

typedef struct {
    uint32_t *ids; /* owned; grown by tokenizer_encode; token_ids_free */
    size_t    count, capacity;
    size_t    max; /* 0: any number; else encoding gives up, ERR_TOO_LARGE, once it is certain that there are more */
} token_ids;
void token_ids_free(token_ids *ids);

enum {
    TOKENIZE_SPECIAL = 1, /* the text of special tokens becomes those tokens: for rendered templates only, never user text */
    TOKENIZE_BOS = 2,     /* what the file's post-processor adds in front (and behind), where it adds anything */
};
/* Appends the ids of text[0..n). Invalid UTF-8 is read as U+FFFD. */
int tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, token_ids *out, error *err);
/* The same, where no special token may be read that begins at or before, and ends after, any of the ascending byte offsets
 * `guards` (each inside the text of what would have been one): chat.c guards what users wrote. Ordinary tokens are not
 * affected. */
int tokenizer_encode_guarded(const tokenizer *t, const char *text, size_t n, unsigned flags, const size_t *guards,
                             size_t guard_count, token_ids *out, error *err);
/* Length of the special token whose text begins at text[0..n) (the longest), or 0. */
size_t tokenizer_special_prefix(const tokenizer *t, const char *text, size_t n);

/* Appends the text of ids. Special tokens are left out unless keep_special. An id out of range is ERR_INVALID. */
int tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t n, bool keep_special, buf *out, error *err);

/* Streaming: feed one id at a time, get the bytes that are settled. What it has returned is always valid UTF-8 and
 * never changes later; the concatenation equals tokenizer_decode of all ids. */
typedef struct {
    const tokenizer *t;
    bool             keep_special, at_start;
    char             held[4]; /* bytes that may be the beginning of a longer sequence */
    uint8_t          held_count;
    uint32_t         strip_left; /* leading characters that the decoder may still take away */
} detokenizer;
void detokenizer_init(detokenizer *d, const tokenizer *t, bool keep_special);
/* Before the first id: the ids go on from a text, so the space that a text's first token loses is kept. */
void detokenizer_continue(detokenizer *d);
void detokenizer_feed(detokenizer *d, uint32_t id, buf *out);
void detokenizer_finish(detokenizer *d, buf *out); /* an unfinished sequence becomes U+FFFD */

uint32_t tokenizer_vocab_size(const tokenizer *t); /* largest id + 1 */
/* The raw bytes one token stands for (log-probabilities' `bytes`); appends; special tokens give their text. */
void        tokenizer_token_bytes(const tokenizer *t, uint32_t id, buf *out);
bool        tokenizer_is_special(const tokenizer *t, uint32_t id);
int64_t     tokenizer_id_of(const tokenizer *t, const char *token); /* exact token text; -1 if there is none */
const char *tokenizer_kind(const tokenizer *t);                     /* "byte-level BPE", "SentencePiece BPE" */
