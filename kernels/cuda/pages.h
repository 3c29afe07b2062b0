/* kernels/cuda/pages.h: where a key or value lies in device memory; and the tables that say which rows a batch has.
 *
 * Pages. [page][layer][K|V][kv head], then slabs: a head's columns are cut into slabs of 128 bytes (64 values of 16 bits),
 * and a slab holds its piece of every position of the page, a row each. The last slab is as narrow as it may be: 32, 64 or
 * 128 bytes a row. Inside a slab the 16-byte pieces of a row change places by the row's number:
 *
 *     offset ^= (offset / 128 % (row_bytes / 16)) * 16
 *
 * so that eight rows of one piece lie in eight different banks. The layout is made for its hungriest reader: a slab of a
 * page is one run of memory, which one bulk copy brings to shared memory in the very form that Hopper's wgmma takes (its
 * 128-, 64- and 32-byte swizzle; K as it is, V as the transposed operand). On sm_80 the same bytes come by 16-byte copies
 * and are read with ldmatrix, without conflicts. Whoever writes a page (kernels/cuda/rope.h) pays for this, once. A page
 * holds a multiple of 16 positions; 64 is what the kernels like best. */
#pragma once
#include "base/dtype.h"
#include "kernels/cuda/cuda.h"

enum { SLAB_BYTES = 128, CUDA_HEAD_DIM_MAX = 256 };

typedef struct {
    dtype    type; /* bf16 or f32 */
    uint32_t page_tokens, kv_heads, head_dim;
    uint32_t slabs, last_row_bytes;                            /* of a head; bytes of a row of its last slab */
    size_t   page_stride, layer_stride, v_offset, head_stride; /* bytes; page_stride is also the bytes of a page */
} cuda_pages;

BOTH cuda_pages cuda_pages_make(dtype type, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, uint32_t page_tokens) {
    cuda_pages l = {type, page_tokens, kv_heads, head_dim, 0, 0, 0, 0, 0, 0};
    uint32_t   bytes = head_dim * (type == DTYPE_F32 ? 4 : 2), rest = bytes % SLAB_BYTES;
    l.slabs = (bytes + SLAB_BYTES - 1) / SLAB_BYTES;
    l.last_row_bytes = rest == 0 || rest > 64 ? 128 : rest > 32 ? 64 : 32;
    l.head_stride = (size_t)page_tokens * ((l.slabs - 1) * SLAB_BYTES + l.last_row_bytes);
    l.v_offset = kv_heads * l.head_stride;
    l.layer_stride = 2 * l.v_offset;
    l.page_stride = layers * l.layer_stride;
    return l;
}

BOTH uint32_t swizzled(uint32_t offset, uint32_t row_bytes) { return offset ^ (offset / 128 & (row_bytes / 16 - 1)) * 16; }

/* Of byte `byte` of a position's key (or value) in its head's run. Bytes of one 16-byte piece stay side by side. */
BOTH uint32_t cuda_page_offset(const cuda_pages *l, uint32_t token, uint32_t byte) {
    uint32_t slab = byte / SLAB_BYTES, row_bytes = slab + 1 < l->slabs ? (uint32_t)SLAB_BYTES : l->last_row_bytes;
    return slab * SLAB_BYTES * l->page_tokens + swizzled(token * row_bytes + byte % SLAB_BYTES, row_bytes);
}

/* A run of consecutive positions of one sequence; its pages are page_ids[page_begin ...], from position 0 on. */
typedef struct {
    uint32_t row_begin, row_count, position_begin, page_begin;
} cuda_run;

/* What a bind puts into device memory, in one copy. */
typedef struct {
    uint32_t        row_count, run_count, output_count;
    const uint32_t *tokens, *positions, *run_of_row; /* [row_count] */
    const cuda_run *runs;                            /* [run_count] */
    const uint32_t *page_ids;
    const uint32_t *output_rows; /* [output_count] */
} cuda_batch;
