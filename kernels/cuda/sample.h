/* kernels/cuda/sample.h: from logits to one token on the GPU: the contract of kernels/sample.h, choice for choice.
 *
 * Mass is counted in integers, so sums do not depend on their order; weights come from the CPU's own polynomial
 * (values.cuh); the uniform number from the same generator. So a row draws the same token here and there, whatever the size
 * of the block.
 *
 * A block takes a row, then the next. It reads the vocabulary a few times: for the largest logit of each thread; for the
 * mass of all where top_p needs it; and to list, in order of id, the tokens that may matter, whose number is small: the k-th
 * largest of the threads' maxima is a floor under the k-th largest token, and what is lighter than (1 - top_p) / vocabulary
 * of the mass cannot be needed to reach top_p. Cuts are found on that list by a radix search (11, 11, 10 bits) over the
 * order of the floats. */
#pragma once
#include "kernels/cuda/cuda.h"
#include "kernels/sample.h"

enum { CUDA_TOP_LOGPROBS_MAX = 20 };

/* One row's wishes, in device memory. Lists are runs of the arguments' `ids` and `values`. */
typedef struct {
    float    temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
    uint32_t top_k;
    uint32_t bias_begin, bias_values_begin, bias_count, banned_begin, banned_count;
    uint32_t history_begin, prompt_count, history_count;
    uint64_t seed, draw;
    int32_t  top_logprobs; /* up to CUDA_TOP_LOGPROBS_MAX */
    uint32_t scores, scored;
} cuda_sample_row;

/* What the GPU found. Logarithms are left to the host, which takes the same one for every device. */
typedef struct {
    uint32_t token, rank, top_count, corrupt;
    float    maximum, logit; /* of the raw row; of the token there */
    uint64_t mass;           /* of the raw row at temperature 1, if log-probabilities were asked for */
    uint32_t top_ids[CUDA_TOP_LOGPROBS_MAX];
    float    top_logits[CUDA_TOP_LOGPROBS_MAX];
} cuda_sample_result;

typedef struct {
    uint32_t               count, vocab, slots; /* slots: blocks at once, each with cuda_sample_work_bytes */
    const float           *logits;              /* [count] rows, not changed */
    size_t                 logits_stride;       /* bytes, a multiple of 16 */
    const cuda_sample_row *rows;                /* [count] */
    const uint32_t        *ids;
    const float           *values;
    void                  *work;    /* zero before first use */
    cuda_sample_result    *results; /* [count] */
} cuda_sample_args;

CUDA_C size_t     cuda_sample_work_bytes(uint32_t vocab); /* of one slot */
CUDA_C cuda_shape cuda_sample_configure(uint32_t count, uint32_t vocab, uint32_t slots);
CUDA_C void       cuda_sample(cuda_queue *q, const cuda_sample_args *a);
/* On the host: a result as kernels/sample.h gives it; out->top_ids and top_logprobs have room. */
CUDA_C void cuda_sample_finish(const cuda_sample_result *r, bool with_logprobs, sample_result *out);
