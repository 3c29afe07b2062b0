/* kernels/cuda/product.h: rows times a weight matrix, dense or of many experts, and what follows done before it is stored.
 *
 *     out[i, c] = finish( sum over j of a[i, j] * w[c, j] )        as kernels/matmul.h
 *
 * Weights are the 16-row operand of the tensor cores' product and rows of `a` its 8 columns: a decode step has few rows, and
 * so wastes a part of 8, not of 16; and gate and up (blocks.h) lie side by side. Three kernels:
 *
 *   few    up to 16 rows a tile. A block streams 64 outputs; each of its four warps reads a quarter of k through a ring of
 *          its own, so that nobody waits for anybody until the quarters are added. It lives on memory speed.
 *   many   64 rows and 128 outputs a tile, one ring of the block. It lives on the tensor cores.
 *   plain  weights of f32 and f16: multiply-adds one by one, in the CPU's very order; correct, not fast.
 *
 * Numbers. k is cut into four pieces by its length alone; in a piece an output is one chain of 16-wide steps, and the pieces
 * are added in order. few and many do exactly this, so which of them a row falls to changes no bit, and no row knows its
 * neighbours. The price is a second set of sums in the registers of `many`.
 *
 * Experts. Rows are first grouped (experts.h): an entry is one row for one of its experts. Experts of up to 16 entries are
 * left to `few`, the others to `many`; the lists of tiles are made on the device and the host launches for the most that
 * there can be: blocks without a tile leave at once. */
#pragma once
#include <string.h>

#include "kernels/cuda/blocks.h"

enum { FEW_ROWS = 16, MANY_ROWS = 64, MANY_OUTPUTS = 128, PRODUCT_PIECES = 4 };

/* One matrix, or one for each expert, each_bytes apart. 256-byte aligned. */
typedef struct {
    const void *data;
    dtype       type;
    bool        in_blocks; /* blocks.h; or a row per output, row_bytes apart: a multiple of 16, with zeros past k */
    uint32_t    outputs, k;
    size_t      row_bytes, each_bytes;
} cuda_matrix;

static inline cuda_matrix cuda_matrix_make(dtype type, bool in_blocks, uint32_t outputs, uint32_t k) {
    const cuda_blocks b = cuda_blocks_make(type, outputs, k);
    cuda_matrix       m = {NULL, type, in_blocks, outputs, k, (k * dtype_bytes(type) + 15) / 16 * 16, 0};
    m.each_bytes = in_blocks ? cuda_blocks_bytes(&b) : (outputs * m.row_bytes + 255) / 256 * 256;
    return m;
}
/* Writes one output's k values, of the matrix's type, into the zeroed each_bytes at `to`. */
static inline void cuda_matrix_put_row(const cuda_matrix *m, char *to, uint32_t output, const void *values) {
    const cuda_blocks b = cuda_blocks_make(m->type, m->outputs, m->k);
    const uint32_t    size = b.value_bytes, piece = 16 / size;
    if (!m->in_blocks) memcpy(to + output * m->row_bytes, values, (size_t)m->k * size);
    else
        for (uint32_t j = 0; j < m->k; j += piece)
            memcpy(to + cuda_blocks_offset(&b, output, j), (const char *)values + (size_t)j * size,
                   (m->k - j < piece ? m->k - j : piece) * size);
}

/* Entries [begin, begin + rows) of the order by expert, all of one expert. */
typedef struct {
    uint32_t expert, begin, rows;
} cuda_tile;

typedef struct {
    uint32_t few_count, many_count;
    uint64_t touched, touched_ever; /* experts with rows in this grouping; and summed over all of them */
    uint64_t combined_ever;         /* summed over those whose parts were combined */
} cuda_group_counts;

/* Who belongs to which expert, in device memory; entry = row * chosen + index in the row's list of experts. */
typedef struct {
    uint32_t           experts, chosen;
    uint32_t          *begin; /* [experts + 1] */
    uint32_t          *entry; /* [rows * chosen] */
    cuda_tile         *few;   /* [cuda_few_tiles_max] */
    cuda_tile         *many;  /* [cuda_many_tiles_max] */
    cuda_group_counts *counts;
} cuda_groups;
CUDA_C uint32_t cuda_few_tiles_max(uint32_t rows, uint32_t chosen, uint32_t experts);
CUDA_C uint32_t cuda_many_tiles_max(uint32_t rows, uint32_t chosen, uint32_t experts);

typedef enum {
    PRODUCT_STORE,
    PRODUCT_ADD, /* out += v, out is f32 */
    PRODUCT_SILU /* silu(gate) * up, gate and up alternating in groups of eight outputs (blocks.h) */
} product_finish;

/* Row i of `a` is at a + i * a_stride, for experts + index in the row's list * a_slot_stride; `out` likewise. All 16-byte
 * aligned. Values of a row of `a` past k must be finite up to a whole 16 bytes. */
typedef struct {
    cuda_matrix    w;
    uint32_t       rows;
    const void    *a; /* bf16 where w is, else f32 */
    size_t         a_stride, a_slot_stride;
    product_finish finish;
    void          *out;
    dtype          out_type; /* bf16 or f32 */
    uint32_t       out_width;
    size_t         out_stride, out_slot_stride;
    const float   *bias;        /* by output, as many as outputs rounded up to 64; NULL: none */
    const float   *scale_logit; /* [rows]: multiplies by 1 / (1 + e^-x), before PRODUCT_ADD adds; NULL: none */
    cuda_groups    groups;      /* entry NULL: one matrix for all rows */
} cuda_product_args;

typedef struct {
    cuda_shape few, many, plain; /* those that do not run have a grid of 0 */
    uint32_t   few_rows;         /* 8 or 16 */
} cuda_product_config;
CUDA_C cuda_product_config cuda_product_configure(const cuda_product_args *a);
/* touched: experts that have rows; without experts 1. */
CUDA_C cuda_cost cuda_product_cost(const cuda_product_args *a, uint32_t touched);
CUDA_C void      cuda_product(cuda_queue *q, const cuda_product_args *a);
