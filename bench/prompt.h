/* bench/prompt.h: a trace's lengths and equalities made into token ids.
 *
 * Ids are drawn by a counter-based generator from what makes them equal (a block's id, a common beginning, a request's
 * number) and their position in it: two prompts agree exactly as far as their trace says, in every run with the same seed,
 * and no table of prompts is kept. Scaled lengths scale blocks and shared parts alike, so sharing survives. */
#pragma once
#include "bench/trace.h"

typedef struct {
    uint64_t seed;
    uint32_t vocab_size;
    double   length_scale; /* > 0 */
    uint32_t context_max;  /* of prompt and answer together; 0: no limit. At least 2 */
} prompt_rules;

/* How long things are once scaled and cut. Where both do not fit the context, the prompt is cut first, but not below half of
 * the context. */
typedef struct {
    uint32_t prompt_tokens, output_tokens, shared_tokens;
    bool     cut;
} prompt_lengths;

typedef struct {
    uint32_t *ids;
    uint32_t  count, capacity;
} token_list;

void token_list_reserve(token_list *l, uint32_t count); /* room for so many in all */
void token_list_free(token_list *l);

prompt_lengths prompt_measure(const prompt_rules *rules, const trace_request *q);

/* Writes the prompt of trace.requests[request] into *out (emptied first). `before` is the prompt and answer of the turn
 * before, as it was; it is not read for a first turn. Where it is shorter than what is shared, the rest is made up. */
void prompt_build(const prompt_rules *rules, const trace *t, uint32_t request, const token_list *before, token_list *out);

/* Appends `count` made-up ids of the answer to trace.requests[request]: for a server that does not tell its own. */
void prompt_make_answer(const prompt_rules *rules, uint32_t request, uint32_t count, token_list *out);
