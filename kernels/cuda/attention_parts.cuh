/* kernels/cuda/attention_parts.cuh: what the files of attention.h share: how a row's sums over one more chunk join those
 * over the chunks before it; and how a kernel of another file is chosen. */
#pragma once
#include "kernels/cuda/attention.h"
#include "kernels/cuda/ops.cuh"

enum { PARTIAL_EXTRA = 4 }; /* after the columns of a partial row: maximum, sum, and room for 16-byte pieces */

#define NO_MAXIMUM (-1e30f) /* finite: a difference of two of these is 0, not NaN */

/* Factors of what was and of what comes. A chunk of which nothing is seen changes nothing: they are 1 and 0, and its sums 0.
 */
struct folding {
    float was, comes;
};
DEVICE folding fold_begin(float &maximum, float chunk_maximum) {
    const float was = maximum;
    maximum = fmaxf(was, chunk_maximum);
    return {exp2_fast(was - maximum), exp2_fast(chunk_maximum - maximum)};
}
DEVICE float fold(folding f, float was, float comes) { return fmaf(was, f.was, comes * f.comes); }

struct attention_choice {
    const char *name; /* NULL: there is none for this head dimension */
    uint32_t    threads, shared_bytes;
    void (*run)(cuda_queue *q, const char *name, cuda_shape s, const cuda_attention_args &a);
};
attention_choice attention_choice_bf16(uint32_t dim, bool is_few);
attention_choice attention_choice_f16(uint32_t dim, bool is_few);
