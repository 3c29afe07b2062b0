/* kernels/cuda/attention.h: causal attention over pages on tensor cores; one row gets the same bits from every kernel.
 *
 * The contract of attention_args in kernels/attention.h, with pages as in pages.h. The (query, head) rows that share a key
 * head are packed: row = token of the run * heads per key head + head among them. So a decode step's heads fill a tile of 16
 * rows, and keys are read once for all of them.
 *
 * The problem: a step of one row must spread its keys over the whole GPU, so it sums pieces of the context and merges them;
 * a prompt's tile walks the context in one pass. Done in the usual way their sums differ in the last bit, and what a request
 * answers then depends on how its prompt was cut, on what was found in the cache, on whether it was swapped out. The choice:
 * one order of sums for both, a function of the row's own position.
 *
 *     blocks of 64 positions       scores of a row; maximum and sum of an online softmax move once per block
 *     chunks of 256 to 1024        each begins with nothing; blocks in order, values added in steps of 16 positions
 *     the row                      chunks folded in order into (maximum, sum, values), beginning with nothing
 *
 * Blocks and chunks lie on a fixed grid from position 0 (attention_chunk_begin). A block or chunk of which a row sees
 * nothing changes none of its bits. The kernel of few rows is given one chunk and leaves it for the merge to fold; the
 * kernel of many rows folds as it goes, which costs a second set of sums in registers and one multiply-add per sum and
 * chunk. Which of the two computes a row is then a matter of speed alone, and may look at the neighbours.
 *
 * Both are one piece of code (attention_tiles.cuh): a block of threads is groups of 16 rows x warps that share the columns
 * of the head. Where warps share columns they also share the scores: each computes those of some positions, and all read all
 * of them, so from the scores on every warp does what a warp by itself would do.
 *
 * Keys and values come by 16-byte asynchronous copies through a ring of blocks (keys, values, keys, ...), in the swizzled
 * form of the page, which ldmatrix reads without conflicts. Page ids are read a block ahead.
 *
 *                rows  warps (rows x columns)   a copy's block   in flight a block of threads, head dimension 64 / 128 / 256
 *     few         16   1 x 4                    64 x dim x 2 B   56 / 80 / 96 KiB
 *     many       128   8 x 1, dim <= 128        64 x dim x 2 B   24 / 48 KiB
 *                 64   4 x 2, above                              64 KiB
 *
 * What is to be done at the least, a layer: bytes = 2 * positions * key heads * dim * 2 (each position that some row of the
 * run sees) + 4 * rows * heads * dim; operations = 4 * dim * heads * the sum of what each row sees. Few rows live by bytes:
 * padded to 16 rows they have 16 operations a byte, where the chip has 184. Their partial sums are 4 (dim + 4) bytes a row
 * and chunk, written and read once: at 128 columns and a group of 4 that is 1.6 % of the chunk's 128 KiB each way, and less
 * from position 8192 on, where chunks grow. Many rows live by operations: 16 a byte of keys and values from L2 for each 16
 * rows of the tile, so 128 a byte where the tile has 128 rows. From shared memory a warp of 16 rows reads all of a block: by
 * count, that takes sm_80 as long as the products.
 * None of this was measured on a GPU. Nor was it seen there that the tensor cores give an output the same bits wherever in a
 * tile it lies, which the promise rests on: one of the first things to check on hardware.
 *
 * Everything else (f32, and head dimensions without a kernel of their own) takes the plain kernel: a warp a row and head,
 * f32 sums, a fixed order over positions as well.
 *
 * After Dao 2023 (arXiv:2307.08691) and, for few rows, Flash-Decoding (Dao et al. 2023); the order of sums is our own. */
#pragma once
#include "kernels/cuda/pages.h"

enum { ATTENTION_BLOCK = 64, ATTENTION_FEW_ROWS = 16 };
#define ATTENTION_FINAL UINT32_MAX

/* Chunks: 256 positions up to 8192, 512 up to 32768, then 1024. */
BOTH uint32_t attention_chunk_begin(uint32_t chunk) {
    return chunk <= 32 ? chunk * 256 : chunk <= 80 ? 8192 + (chunk - 32) * 512 : 32768 + (chunk - 80) * 1024;
}
BOTH uint32_t attention_chunk_of(uint32_t position) {
    return position < 8192    ? position / 256
           : position < 32768 ? 32 + (position - 8192) / 512
                              : 80 + (position - 32768) / 1024;
}

/* Work of one block of threads and one key head. row_count 0: nothing (what fills a graph's fixed launch). */
typedef struct {
    uint32_t run, row, row_count; /* packed rows [row, +row_count) of the run */
    uint32_t first, last;         /* positions to walk; first begins a block */
    uint32_t partial;             /* [first, last) is (the visible part of) one chunk, and row r's sums go to partial row
                                     `partial + r`; ATTENTION_FINAL: it is all there is, and goes to the output */
} cuda_attention_item;

/* Rows, at most 16, whose chunks are to be folded: chunk i of row r is partial row `partial + i * stride + r`. row_count 0:
 * nothing. */
typedef struct {
    uint32_t run, row, row_count, partial, stride, chunk_count;
} cuda_attention_merge;

typedef enum { ATTENTION_FEW, ATTENTION_MANY, ATTENTION_MERGE, ATTENTION_PLAIN } cuda_attention_kind;

/* ---- what is to be done, decided on the host ---- */

typedef struct {
    dtype    type;
    uint32_t heads, kv_heads, head_dim, window; /* window 0: all */
} cuda_attention_facts;

/* Lists for the runs of one pass, good for all layers with this window. The room is the caller's. */
typedef struct {
    cuda_attention_item  *items[2]; /* [ATTENTION_FEW], [ATTENTION_MANY]: longest first */
    cuda_attention_merge *merges;
    uint32_t              item_max[2], merge_max, partial_max; /* partial_max: partial rows that there is room for */
    uint32_t              item_count[2], merge_count, partial_count;
} cuda_attention_plan;

CUDA_C bool cuda_attention_has_tiles(const cuda_attention_facts *f); /* else the plain kernel, which needs no plan */
/* Items of many rows suffice for any pass if there are this many; the other lists may be as short as one likes. */
CUDA_C uint32_t cuda_attention_many_max(const cuda_attention_facts *f, uint32_t rows, uint32_t runs);
/* Where few-row items, merges or partials run out, a run is given to the kernel of many rows. False: those ran out. */
CUDA_C bool cuda_attention_make(cuda_attention_plan *p, const cuda_attention_facts *f, const cuda_run *runs, uint32_t count);
/* How many of the items from `begin` on one launch may do: at least one; as many as stay within flops_max. */
CUDA_C uint32_t cuda_attention_within(const cuda_attention_facts *f, const cuda_attention_item *items, uint32_t begin,
                                      uint32_t count, double flops_max);
CUDA_C size_t   cuda_attention_partial_bytes(const cuda_attention_facts *f, uint32_t partials);

/* ---- launches ---- */

typedef struct {
    cuda_pages                  layout;
    const char                 *pages;
    uint32_t                    layer, heads, window;
    cuda_batch                  batch;
    const void                 *q; /* [heads * head_dim] of the layout's type a row, 16-aligned; strides in bytes */
    void                       *out;
    size_t                      q_stride, out_stride;
    const cuda_attention_item  *items[2];
    const cuda_attention_merge *merges;
    float                      *partials; /* 16-aligned */
    cuda_attention_kind         kind;
    uint32_t                    begin, count; /* of this kind's items or merges; plain: of the batch's rows */
} cuda_attention_args;

typedef struct {
    const char *name;
    cuda_shape  shape;
} cuda_attention_config;

CUDA_C cuda_attention_config cuda_attention_configure(const cuda_attention_args *a);
CUDA_C void                  cuda_attention(cuda_queue *q, const cuda_attention_args *a);
