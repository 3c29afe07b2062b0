/* server/choice.h: one answer as it grows: tokens in, text and log-probabilities out, cut exactly at a stop string.
 *
 * The text is three stretches: sent | ready | held. `held` may turn out to be the beginning of a stop string; `ready` may be
 * sent. A log-probability entry belongs to the text its token begins, and becomes ready with it; so the entries that are
 * sent are those of the tokens whose text is sent. Nothing is allocated per token once the buffers have grown.
 *
 * What a model thinks before it answers is text like any other up to `content_begin`: whoever writes an event cuts there.
 * The tokens around it (<think>, </think>) and the empty lines behind them are nobody's text; stop strings and
 * log-probabilities are of the content only. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine/engine.h"
#include "models/tokenizer.h"
#include "server/stop.h"

/* What all choices of one request share. */
typedef struct {
    const tokenizer *tokenizer; /* NULL: the model has none, and a token's text is its id: " 123" */
    stop_set         stops;
    uint32_t         tokens_min; /* stop strings are looked for after so many tokens */
    bool             keep_special, include_stop, logprobs, ids;
    int64_t          think_begin, think_end; /* tokens around what is thought; think_end 0: nothing is told apart */
} choice_rules;

typedef struct {
    uint32_t token, char_begin; /* characters of text before it */
    uint64_t text_begin;        /* bytes of text before it */
    float    logprob;
    uint32_t top_begin, top_count; /* in choice.tops */
} logprob_entry;

typedef struct {
    uint32_t token;
    float    logprob;
} logprob_top;

typedef enum { CHOICE_GROWING, CHOICE_STOPPED, CHOICE_LENGTH, CHOICE_FAILED } choice_end;

typedef struct {
    const choice_rules *rules;
    detokenizer         detokenizer;
    stop_state          stops;
    buf                 text;
    size_t              sent, ready;   /* offsets into text: [sent, ready) may be sent */
    uint64_t            text_base;     /* bytes dropped in front of `text`, all of them sent */
    uint64_t            content_begin; /* bytes of text before the content; UINT64_MAX while it thinks */
    uint32_t            chars;         /* of all text so far */
    uint32_t            reasoning_tokens;
    uint32_t            token_count; /* drawn, up to and including the one that ended it */
    choice_end          end;
    double              logprob_sum;
    logprob_entry      *entries; /* [entry_count]; [entry_sent, entry_ready) may be sent */
    uint32_t            entry_count, entry_capacity, entry_sent, entry_ready;
    logprob_top        *tops;
    uint32_t            top_count, top_capacity;
    uint32_t           *ids; /* where rules->ids: every token drawn */
    uint32_t            id_count, id_capacity, id_sent;
    bool                thinking, skips_empty_lines; /* the latter until other text comes */
} choice;

enum { CHOICE_TEXT_MAX = 64 << 20 };

/* continues: the answer goes on from a text (a completion), so the space it begins with is part of it. */
void choice_init(choice *c, const choice_rules *rules, bool continues);
void choice_begin_thinking(choice *c); /* where the prompt ends in the middle of it, or a token says so */
void choice_free(choice *c);

/* Takes a drawn token. `part_of_text` is false for one that ended the sequence. Returns true where a stop string ended the
 * choice: the caller cancels the rest. Tokens after the end are ignored. */
bool choice_take(choice *c, const sampled *token, bool part_of_text);
void choice_finish(choice *c, choice_end end); /* no more tokens: everything held becomes ready */

static inline size_t choice_unsent(const choice *c) { return c->ready - c->sent; }
/* How many of the bytes from text.data + `from` up to what is ready are not content. */
static inline size_t choice_reasoning(const choice *c, size_t from) {
    uint64_t at = c->text_base + from, end = c->text_base + c->ready;
    return c->content_begin <= at ? 0 : (size_t)((c->content_begin < end ? c->content_begin : end) - at);
}
/* What is ready has been sent; forgets it where `forget` (a stream), else only remembers. */
void choice_sent(choice *c, bool forget);
