/* server/reply.h: the pieces of answers that reply.c and reply_prompt.c share. */
#pragma once
#include "server/generation.h"

void reply_ids(buf *out, const uint32_t *ids, uint32_t n);
void reply_logprob(buf *out, float value);
void reply_token_text(const generation *g, uint32_t id, buf *out); /* as a JSON string */

/* ---- a legacy completion's log-probabilities: four parallel arrays, of an echoed prompt first ---- */
typedef enum { LEGACY_TOKENS, LEGACY_LOGPROBS, LEGACY_TOPS, LEGACY_OFFSETS, LEGACY_PARTS } legacy_part;
typedef struct {
    uint32_t id;
    float    logprob;
} legacy_top;

/* Text to log-probability: the alternatives, and the token itself where it is not among them. */
void reply_legacy_tops(const generation *g, const legacy_top *tops, uint32_t count, legacy_top token, buf *out);

static inline bool reply_echoes_scores(const generation *g) { return g->answer.echo && g->answer.echo_tops >= 0; }
bool               reply_echo_part(const generation *g, const generation_choice *k, legacy_part part, buf *out);
