/* kernels/attention.h: causal attention over paged keys and values; and the operator that fills the pages.
 *
 * A page holds page_tokens (a multiple of 16) positions of one sequence in every layer. Where what lies is in a descriptor,
 * so that moving a page is one copy and no kernel knows the order:
 *
 *     pages + page * page_stride + layer * layer_stride + (K: 0 | V: v_offset) + kv_head * head_stride + unit * unit_bytes
 *
 * A unit is 16 positions of one head, laid out for its reader: K as [head_dim/2][16][2], so that one step gives sixteen
 * scores; V as [8][dim_padded][2], so that one step adds two positions to sixteen columns (bf16; in f32 [head_dim][16] and
 * [16][dim_padded]). Both are the panel layout of matmul.h: scores and weighted values run through its inner tile.
 *
 * Numbers. Positions are taken in blocks of 64 that start at position 0, with an online softmax (Milakov, Gimelshein 2018)
 * whose maximum and sum are updated once per block: a row's result depends on its own position only, never on how its
 * prompt was cut or who else is in the batch. Probabilities are rounded to bf16 where the pages are bf16. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "kernels/matmul.h"

enum { KV_UNIT = 16, KV_BLOCK = 64, HEAD_DIM_MAX = 256 };

typedef struct {
    dtype    type;                                        /* bf16 or f32 */
    uint32_t page_tokens, kv_heads, head_dim, dim_padded; /* head_dim up to 16 */
    size_t   page_stride, layer_stride, v_offset, head_stride, unit_bytes;
} kv_layout;

/* The layout this project uses: [page][layer][K|V][kv_head][unit]. page_stride is also the bytes of a page. */
kv_layout kv_layout_make(dtype type, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, uint32_t page_tokens);

/* One run of consecutive positions of one sequence; rows [row_begin, +row_count) of the batch. */
typedef struct {
    uint32_t        row_begin, row_count, position_begin;
    const uint32_t *pages; /* page ids of positions [0, ...) */
} kv_run;

typedef struct {
    const kv_layout *layout;
    char            *pages;
    uint32_t         layer, heads;
    uint32_t         window; /* positions visible, self included; 0: all */
    uint32_t         run_count;
    const kv_run    *runs;
    rows_at          q, out; /* [heads * head_dim] of the layout's type, a row per token */
} attention_args;

/* Queries: optional norm, clip, rotation by position, in place. Keys likewise, then into the page; values clipped, into the
 * page; their rows are left changed. Nothing else of a page is touched. */
typedef struct {
    const kv_layout *layout;
    char            *pages;
    uint32_t         layer, heads;
    uint32_t         run_count;
    const kv_run    *runs;
    rows_at          q, k, v;
    const float     *rotation;        /* [batch rows][head_dim]: head_dim/2 cosines, then sines */
    const float     *q_norm, *k_norm; /* [head_dim], or [all heads' dims] if norm_full; NULL: none */
    int              norm_full;
    float            norm_eps, clip; /* clip 0: none */
} rope_kv_args;
