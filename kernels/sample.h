/* kernels/sample.h: from logits to one token, without sorting the vocabulary.
 *
 * Order, per row: log-probabilities are taken from the raw logits. Then repetition, frequency and presence penalties over
 * the history, bias, banned ids; temperature; top_k; top_p among what is left (the smallest set of most likely tokens whose
 * share of the mass reaches top_p); min_p (against the most likely token); the draw. Ties go to the lower id everywhere:
 * equal logits enter a cut in order of id, and a greedy choice is the lowest of the best.
 *
 * Mass is counted in fixed point (units of 2^-40 of the most likely token): integer sums do not depend on their order, so
 * every device finds the same cuts and, from one uniform number, the same token. That number is a function of (seed, draw)
 * alone, so a request's choices do not depend on who shares its batch. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const float    *logits; /* [vocab], raw; not changed */
    uint32_t        vocab;
    float           temperature; /* 0: greedy */
    uint32_t        top_k;       /* 0: all */
    float           top_p, min_p;
    float           repetition_penalty, frequency_penalty, presence_penalty; /* 1, 0, 0: off */
    const uint32_t *bias_ids; /* ids outside the vocabulary are ignored here and below */
    const float    *bias_values;
    uint32_t        bias_count;
    const uint32_t *banned;
    uint32_t        banned_count;
    const uint32_t *history; /* prompt, then generated: repetition looks at all, frequency and presence at the generated */
    uint32_t        prompt_count, history_count;
    uint64_t        seed, draw;   /* draw: the counter of this draw */
    int32_t         top_logprobs; /* -1: no log-probabilities; else how many alternatives */
    bool            scores;       /* nothing is drawn: the token is `scored`, with its log-probability and rank */
    uint32_t        scored;
} sample_args;

typedef struct {
    uint32_t  token;
    float     logprob;
    uint32_t  rank; /* where it scores: 1 and the tokens that are likelier */
    uint32_t  top_count;
    uint32_t *top_ids; /* room for top_logprobs each, the caller's; best first */
    float    *top_logprobs;
    bool      corrupt; /* a logit was NaN or +infinity, or nothing was left to choose from; nothing else is valid */
} sample_result;
