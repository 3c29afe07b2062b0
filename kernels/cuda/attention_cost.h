/* kernels/cuda/attention_cost.h: what attention over these runs must do at the least, whatever computes it: each key, value,
 * query and output read or written once; two multiply-adds for each position that a row sees and column of its head. */
#pragma once
#include "kernels/cuda/attention.h"

static inline cuda_cost cuda_attention_cost(const cuda_attention_facts *f, const cuda_run *runs, uint32_t count) {
    const double head_bytes = (double)f->head_dim * (double)dtype_bytes(f->type);
    cuda_cost    cost = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
        const cuda_run *r = &runs[i];
        const double    rows = r->row_count, end = (double)r->position_begin + rows, window = f->window ? f->window : end;
        const double    first = r->position_begin + 1 > window ? r->position_begin + 1 - window : 0;
        /* Rows see 1, 2, ... positions, or the window. */
        const double grows_from = r->position_begin + 1 < window ? r->position_begin + 1 : window,
                     grows_to = end < window ? end : window;
        const double growing = grows_to - grows_from,
                     seen = (grows_from + grows_to) / 2 * (growing + 1) + window * (rows - growing - 1);
        if (r->row_count == 0) continue;
        cost.bytes += 2 * (end - first) * f->kv_heads * head_bytes + 2 * rows * f->heads * head_bytes;
        cost.flops += 4.0 * f->head_dim * f->heads * seen;
    }
    return cost;
}
