/* kernels/cuda/rope.h: norm of queries and keys, clip, rotation by position; keys and values into their pages.
 *
 * The contract of rope_kv_args in kernels/attention.h, with pages as in pages.h and angles from a table by position, made
 * once on the host: sines are not computed twice, so all devices rotate by the same numbers. Queries are changed in place;
 * rows of keys and values are only read. A warp is given one head of one row. Where a norm goes over all heads together, a
 * block is given all heads of the row, and sums them in an order that follows from their number alone. */
#pragma once
#include "kernels/cuda/pages.h"

typedef struct {
    cuda_pages   layout;
    char        *pages;
    uint32_t     layer, heads;
    cuda_batch   batch;
    void        *q;
    const void  *k, *v; /* of the layout's type; strides in bytes */
    size_t       q_stride, k_stride, v_stride;
    const float *rotation;        /* [positions][head_dim]: head_dim/2 cosines, then sines */
    const float *q_norm, *k_norm; /* [head_dim], or [all heads' dims] if norm_full; NULL: none */
    bool         norm_full;
    float        norm_eps, clip; /* clip 0: none */
} cuda_rope_args;

CUDA_C cuda_shape cuda_rope_configure(const cuda_rope_args *a);
CUDA_C cuda_cost  cuda_rope_cost(const cuda_rope_args *a);
CUDA_C void       cuda_rope(cuda_queue *q, const cuda_rope_args *a);
