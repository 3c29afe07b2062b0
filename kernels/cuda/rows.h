/* kernels/cuda/rows.h: operators that look at one row at a time: norm with residual, embedding, activation.
 *
 * Contracts as kernels/rows.h; pointers are device memory, rows begin 16-byte aligned, strides are in bytes. A block is
 * given one row, whose elements it sums in an order that follows from the width alone. */
#pragma once
#include "base/dtype.h"
#include "kernels/cuda/cuda.h"

enum { CUDA_NORM_WIDTH_MAX = 16384 };

/* x[i, :] += add[i, :] where there is something to add; out[i, :] = x[i, :] / sqrt(mean(x^2) + eps) * weight */
typedef struct {
    uint32_t        rows, width; /* width up to CUDA_NORM_WIDTH_MAX */
    float           eps;
    const float    *weight; /* [width], 16-byte aligned */
    float          *x;
    const float    *add;   /* as x; NULL: x is only read */
    const uint32_t *x_row; /* [rows]: row i is x_row[i] of x and add; NULL: i */
    void           *out;   /* f32 or bf16 */
    size_t          x_stride, out_stride;
    dtype           out_type;
} cuda_norm_args;

typedef struct {
    cuda_shape shape;
    uint32_t   fours; /* groups of four values that a thread keeps: 1, 2, 4 or 8 */
} cuda_norm_config;
CUDA_C cuda_norm_config cuda_norm_configure(uint32_t rows, uint32_t width);
CUDA_C cuda_cost        cuda_norm_cost(const cuda_norm_args *a);
CUDA_C void             cuda_norm(cuda_queue *q, const cuda_norm_args *a);

/* out[i, :] = table[tokens[i], :] as f32 */
typedef struct {
    uint32_t        rows, width;
    const uint32_t *tokens;
    const void     *table; /* row-major [vocabulary][width] */
    dtype           table_type;
    float          *out;
    size_t          out_stride;
    size_t          table_stride; /* of rows of the table, a multiple of 16; 0: they lie end to end */
} cuda_embed_args;
CUDA_C void cuda_embed(cuda_queue *q, const cuda_embed_args *a);

/* out[i, j] = silu(gate) * up * scale[i]; gate and up alternate in groups of eight (blocks.h). */
typedef struct {
    uint32_t     rows, width;
    const void  *in; /* [gate_up_rows(width)] a row, bf16 or f32 */
    dtype        in_type, out_type;
    const float *scale; /* [rows]; NULL: 1 */
    void        *out;   /* [width] a row, bf16 or f32 */
    size_t       in_stride, out_stride;
} cuda_activate_args;
CUDA_C void cuda_activate(cuda_queue *q, const cuda_activate_args *a);
