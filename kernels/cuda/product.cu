#include "kernels/cuda/product.h"

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

enum {
    PRODUCT_THREADS = (int)PRODUCT_PIECES * (int)WARP, /* few: a piece of k a warp */
    STAGES = 3,
    STEP = SLAB_BYTES,         /* bytes of k in a stage */
    PIECES_A_ROW = STEP / 16,  /* of 16 bytes */
    TILE_PAD = 4,              /* values: rows of a tile begin in different banks */
    ACTIVATION = GATE_UP_GROUP /* outputs that are finished together */
};

DEVICE uint32_t blocks_along(const cuda_product_args &p) {
    const uint32_t wide = STEP / (p.w.type == DTYPE_F32 ? 4 : 2);
    return (p.w.k + wide - 1) / wide;
}

/* ---- which rows ---- */

/* The block's tile, without rows where there is none. */
DEVICE cuda_tile tile_of(const cuda_product_args &p, bool few, uint32_t rows_a_tile) {
    const uint32_t y = blockIdx.y;
    if (!p.groups.entry) return {0, y * rows_a_tile, min(p.rows - y * rows_a_tile, rows_a_tile)};
    if (y >= (few ? p.groups.counts->few_count : p.groups.counts->many_count)) return {0, 0, 0};
    return (few ? p.groups.few : p.groups.many)[y];
}

/* plain knows no lists: its y is an expert and a tile of it, and most of them are empty. */
DEVICE cuda_tile plain_tile_of(const cuda_product_args &p) {
    if (!p.groups.entry) return tile_of(p, true, FEW_ROWS);
    const uint32_t expert = blockIdx.y, begin = p.groups.begin[expert] + blockIdx.z * FEW_ROWS;
    const uint32_t end = p.groups.begin[expert + 1];
    return {expert, begin, begin < end ? min(end - begin, (uint32_t)FEW_ROWS) : 0};
}

struct place {
    uint32_t row, slot;
};
DEVICE place place_of(const cuda_product_args &p, uint32_t entry) {
    if (!p.groups.entry) return {entry, 0};
    const uint32_t e = p.groups.entry[entry];
    return {e / p.groups.chosen, e % p.groups.chosen};
}
DEVICE const char *operand_row(const cuda_product_args &p, const cuda_tile &t, uint32_t i) {
    const place at = place_of(p, t.begin + min(i, t.rows - 1));
    return (const char *)p.a + at.row * p.a_stride + at.slot * p.a_slot_stride;
}

/* ---- stages ---- */

/* 64 outputs by one step of k into shared memory, swizzled, by `count` threads of which this is number `index`. */
DEVICE void fetch_weights(const cuda_product_args &p, const char *w, char *to, uint32_t out_block, uint32_t step,
                          uint32_t index, uint32_t count) {
    const uint32_t along = blocks_along(p);
    if (p.w.in_blocks) {
        const char *from = w + ((size_t)out_block * along + step) * BLOCK_BYTES;
        const bool  is_there = out_block * BLOCK_OUTPUTS < p.w.outputs;
        for (uint32_t i = index; i < BLOCK_BYTES / 16; i += count)
            copy_async16_or_zero(to + i * 16, from + i * 16, is_there);
        return;
    }
    for (uint32_t i = index; i < BLOCK_BYTES / 16; i += count) {
        const uint32_t row = i / PIECES_A_ROW, output = out_block * BLOCK_OUTPUTS + row, byte = i % PIECES_A_ROW * 16;
        const size_t   at = (size_t)step * STEP + byte;
        copy_async16_or_zero(to + swizzled(row * STEP + byte, STEP), w + output * p.w.row_bytes + at,
                             output < p.w.outputs && at < p.w.row_bytes);
    }
}

/* Piece `byte` of a row's step; rows past the tile's are zeros. */
DEVICE void fetch_row(const cuda_product_args &p, const char *from, bool is_there, char *to, uint32_t row, uint32_t step,
                      uint32_t byte) {
    const uint32_t at = step * STEP + byte;
    copy_async16_or_zero(to + swizzled(row * STEP + byte, STEP), from + at, is_there && at < p.w.k * 2);
}

/* ---- the product of a step: `outputs` of 16 by `rows` of 8 ---- */

template <int OUTPUTS, int ROWS>
DEVICE void multiply_step(float (&c)[OUTPUTS][ROWS][4], const char *weights, const char *rows, uint32_t lane) {
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) { /* of the step: 32 values of k */
        uint32_t b[ROWS][4];
#pragma unroll
        for (uint32_t n = 0; n < ROWS; n++)
            load_matrix_x4(b[n], rows + swizzled((n * 8 + lane % 8) * STEP + (half * 4 + lane / 8) * 16, STEP));
#pragma unroll
        for (uint32_t part = 0; part < 2; part++)
#pragma unroll
            for (uint32_t m = 0; m < OUTPUTS; m++) {
                uint32_t a[4];
                load_matrix_x4(a, weights +
                                      swizzled((m * 16 + lane % 16) * STEP + (half * 4 + part * 2 + lane / 16) * 16, STEP));
#pragma unroll
                for (uint32_t n = 0; n < ROWS; n++) {
                    const uint32_t b2[2] = {b[n][part * 2], b[n][part * 2 + 1]};
                    mma_bf16(c[m][n], a, b2);
                }
            }
    }
}

/* Sums of a warp into a tile of rows of outputs. */
template <int OUTPUTS, int ROWS>
DEVICE void put_sums(const float (&c)[OUTPUTS][ROWS][4], float *tile, uint32_t stride, uint32_t lane) {
    const uint32_t output = lane / 4, row = lane % 4 * 2;
#pragma unroll
    for (uint32_t m = 0; m < OUTPUTS; m++)
#pragma unroll
        for (uint32_t n = 0; n < ROWS; n++)
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) tile[(n * 8 + row + i % 2) * stride + m * 16 + output + i / 2 * 8] = c[m][n][i];
}

/* ---- the end: a tile of sums becomes values of the output ---- */

DEVICE eight add_bias(eight v, const float *bias, uint32_t output) {
    if (bias)
#pragma unroll
        for (int i = 0; i < ACTIVATION; i++) v.at[i] += bias[output + i];
    return v;
}

template <int TYPE> DEVICE void store_all(void *row, uint32_t at, const eight &v) {
    if (TYPE == DTYPE_BF16) return store16((uint16_t *)row + at, eight_bf16(v));
    *(float4 *)((float *)row + at) = make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
    *(float4 *)((float *)row + at + 4) = make_float4(v.at[4], v.at[5], v.at[6], v.at[7]);
}

/* Eight values, or those of them that the row has. */
DEVICE void store_eight(const cuda_product_args &p, char *row, uint32_t at, eight v) {
    const uint32_t n = at < p.out_width ? p.out_width - at : 0;
    if (p.finish == PRODUCT_ADD)
#pragma unroll
        for (uint32_t i = 0; i < ACTIVATION; i++)
            if (i < n) v.at[i] += ((const float *)row)[at + i];
    if (n >= ACTIVATION) {
        if (p.out_type == DTYPE_BF16) store_all<DTYPE_BF16>(row, at, v);
        else store_all<DTYPE_F32>(row, at, v);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < ACTIVATION; i++)
        if (i < n && p.out_type == DTYPE_BF16) put<DTYPE_BF16>(row, at + i, v.at[i]);
        else if (i < n) put<DTYPE_F32>(row, at + i, v.at[i]);
}

/* sums(row of the tile, output of the tile): eight of them. All threads of the block. */
template <class F>
DEVICE void finish_tile(const cuda_product_args &p, const cuda_tile &t, uint32_t output_begin, uint32_t outputs, F sums) {
    const bool     activates = p.finish == PRODUCT_SILU;
    const uint32_t together = activates ? 2 * ACTIVATION : ACTIVATION, groups = outputs / together;
    for (uint32_t i = threadIdx.x; i < t.rows * groups; i += PRODUCT_THREADS) {
        const uint32_t row = i / groups, output = i % groups * together, all = output_begin + output;
        const place    at = place_of(p, t.begin + row);
        if (all >= p.w.outputs) continue;
        eight v = add_bias(sums(row, output), p.bias, all);
        if (activates) {
            const eight up = add_bias(sums(row, output + ACTIVATION), p.bias, all + ACTIVATION);
#pragma unroll
            for (int j = 0; j < ACTIVATION; j++) v.at[j] = silu(v.at[j]) * up.at[j];
        }
        if (p.scale_logit) {
            const float scale = 1 / (1 + exp_as_cpu(-p.scale_logit[at.row]));
#pragma unroll
            for (int j = 0; j < ACTIVATION; j++) v.at[j] *= scale;
        }
        store_eight(p, (char *)p.out + at.row * p.out_stride + at.slot * p.out_slot_stride, activates ? all / 2 : all, v);
    }
}

DEVICE eight eight_of(const float *x) {
    const float4 a = *(const float4 *)x, b = *(const float4 *)(x + 4);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

/* ---- few rows ---- */

/* A warp's: a ring, and in its place, when all is read, the warp's sums. */
template <int ROWS> union few_warp {
    struct {
        char weights[BLOCK_BYTES], rows[ROWS * 8 * STEP];
    } stage[STAGES];
    float sums[ROWS * 8][BLOCK_OUTPUTS + TILE_PAD];
};
template <int ROWS> struct few_memory { few_warp<ROWS> warp[PRODUCT_PIECES]; };

template <int ROWS> struct few_reader {
    const char *w, *from[2 * ROWS]; /* rows lane / 8, + 4, + 8, ... of the tile */
    bool        is_there[2 * ROWS];
};

template <int ROWS>
DEVICE void few_fetch(const cuda_product_args &p, few_warp<ROWS> &s, const few_reader<ROWS> &r, uint32_t step,
                      uint32_t stage) {
    const uint32_t lane = threadIdx.x % WARP;
    fetch_weights(p, r.w, s.stage[stage].weights, blockIdx.x, step, lane, WARP);
#pragma unroll
    for (uint32_t i = 0; i < 2 * ROWS; i++)
        fetch_row(p, r.from[i], r.is_there[i], s.stage[stage].rows, i * 4 + lane / 8, step, lane % 8 * 16);
}

template <int ROWS> __global__ void __launch_bounds__(PRODUCT_THREADS) few(cuda_product_args p) {
    SHARED(few_memory<ROWS>, memory);
    const uint32_t  warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const cuda_tile t = tile_of(p, true, ROWS * 8);
    if (t.rows == 0) return;
    few_warp<ROWS>  &s = memory.warp[warp];
    few_reader<ROWS> r;
    r.w = (const char *)p.w.data + t.expert * p.w.each_bytes;
#pragma unroll
    for (uint32_t i = 0; i < 2 * ROWS; i++) {
        r.is_there[i] = i * 4 + lane / 8 < t.rows;
        r.from[i] = operand_row(p, t, i * 4 + lane / 8);
    }
    const uint32_t steps = blocks_along(p), each = (steps + PRODUCT_PIECES - 1) / PRODUCT_PIECES;
    const uint32_t begin = min(warp * each, steps), end = min(begin + each, steps);
    float          c[BLOCK_OUTPUTS / 16][ROWS][4] = {};
    for (uint32_t i = 0; i < STAGES - 1; i++) {
        if (begin + i < end) few_fetch(p, s, r, begin + i, i);
        copy_commit();
    }
    for (uint32_t i = 0; i < end - begin; i++) {
        copy_wait<STAGES - 2>();
        __syncwarp();
        if (begin + i + STAGES - 1 < end) few_fetch(p, s, r, begin + i + STAGES - 1, (i + STAGES - 1) % STAGES);
        copy_commit();
        multiply_step(c, s.stage[i % STAGES].weights, s.stage[i % STAGES].rows, lane);
    }
    __syncwarp();
    put_sums(c, s.sums[0], BLOCK_OUTPUTS + TILE_PAD, lane);
    __syncthreads();
    finish_tile(p, t, blockIdx.x * BLOCK_OUTPUTS, BLOCK_OUTPUTS, [&](uint32_t row, uint32_t output) {
        eight sum = {};
#pragma unroll
        for (int piece = 0; piece < PRODUCT_PIECES; piece++) {
            const eight x = eight_of(&memory.warp[piece].sums[row][output]);
#pragma unroll
            for (int i = 0; i < ACTIVATION; i++) sum.at[i] += x.at[i];
        }
        return sum;
    });
}

/* ---- many rows ---- */

union many_memory {
    struct {
        char weights[MANY_OUTPUTS / BLOCK_OUTPUTS][BLOCK_BYTES], rows[MANY_ROWS * STEP];
    } stage[STAGES];
    float sums[MANY_ROWS][MANY_OUTPUTS + TILE_PAD];
};

enum { MANY_FETCHES = MANY_ROWS * PIECES_A_ROW / PRODUCT_THREADS };

struct many_reader {
    const char *w, *from[MANY_FETCHES]; /* rows thread / 8, + 16, ... */
    uint32_t    rows;
};

DEVICE void many_fetch(const cuda_product_args &p, many_memory &s, const many_reader &r, uint32_t step) {
    auto          &stage = s.stage[step % STAGES];
    const uint32_t blocks = MANY_OUTPUTS / BLOCK_OUTPUTS;
#pragma unroll
    for (uint32_t i = 0; i < blocks; i++)
        fetch_weights(p, r.w, stage.weights[i], blockIdx.x * blocks + i, step, threadIdx.x, PRODUCT_THREADS);
#pragma unroll
    for (uint32_t i = 0; i < MANY_FETCHES; i++) {
        const uint32_t row = i * (PRODUCT_THREADS / PIECES_A_ROW) + threadIdx.x / PIECES_A_ROW;
        fetch_row(p, r.from[i], row < r.rows, stage.rows, row, step, threadIdx.x % PIECES_A_ROW * 16);
    }
}

/* A warp has 64 of the outputs and 32 of the rows. */
__global__ void __launch_bounds__(PRODUCT_THREADS, 2) many(cuda_product_args p) {
    SHARED(many_memory, s);
    const uint32_t  lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, block = warp % 2, half = warp / 2;
    const cuda_tile t = tile_of(p, false, MANY_ROWS);
    if (t.rows == 0) return;
    many_reader r;
    r.w = (const char *)p.w.data + t.expert * p.w.each_bytes;
    r.rows = t.rows;
#pragma unroll
    for (uint32_t i = 0; i < MANY_FETCHES; i++)
        r.from[i] = operand_row(p, t, i * (PRODUCT_THREADS / PIECES_A_ROW) + threadIdx.x / PIECES_A_ROW);
    const uint32_t steps = blocks_along(p), each = (steps + PRODUCT_PIECES - 1) / PRODUCT_PIECES;
    float          c[4][4][4] = {}, total[4][4][4] = {};
    for (uint32_t i = 0; i < STAGES - 1; i++) {
        if (i < steps) many_fetch(p, s, r, i);
        copy_commit();
    }
    uint32_t left = each;
    for (uint32_t i = 0; i < steps; i++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); /* the step is there, and the stage of the one before it has been read */
        if (i + STAGES - 1 < steps) many_fetch(p, s, r, i + STAGES - 1);
        copy_commit();
        multiply_step(c, s.stage[i % STAGES].weights[block], s.stage[i % STAGES].rows + half * 32 * STEP, lane);
        if (--left > 0 && i + 1 < steps) continue;
        left = each;
#pragma unroll
        for (uint32_t j = 0; j < 64; j++) {
            float &sum = c[j / 16][j / 4 % 4][j % 4];
            total[j / 16][j / 4 % 4][j % 4] += sum, sum = 0;
        }
    }
    __syncthreads();
    put_sums(total, &s.sums[half * 32][block * BLOCK_OUTPUTS], MANY_OUTPUTS + TILE_PAD, lane);
    __syncthreads();
    finish_tile(p, t, blockIdx.x * MANY_OUTPUTS, MANY_OUTPUTS,
                [&](uint32_t row, uint32_t output) { return eight_of(&s.sums[row][output]); });
}

/* ---- weights of f32 and f16, values of f32 ---- */

union plain_memory {
    struct {
        char  weights[BLOCK_BYTES];
        float rows[FEW_ROWS][BLOCK_OUTPUTS]; /* a step of f16 is 64 values, of f32 32 */
    } stage[2];
    float sums[FEW_ROWS][BLOCK_OUTPUTS + TILE_PAD];
};

enum { PLAIN_ROWS = FEW_ROWS * BLOCK_OUTPUTS / PRODUCT_THREADS }; /* of a thread, which has one output */

template <int TYPE>
DEVICE void plain_fetch(const cuda_product_args &p, plain_memory &s, const char *w, const cuda_tile &t, uint32_t step) {
    const uint32_t pieces = TYPE == DTYPE_F32 ? 8 : 16, wide = pieces * 4;
    auto          &stage = s.stage[step % 2];
    fetch_weights(p, w, stage.weights, blockIdx.x, step, threadIdx.x, PRODUCT_THREADS);
    for (uint32_t i = threadIdx.x; i < FEW_ROWS * pieces; i += PRODUCT_THREADS) {
        const uint32_t row = i / pieces, value = i % pieces * 4, at = step * wide + value;
        copy_async16_or_zero(&stage.rows[row][value], operand_row(p, t, row) + (size_t)at * 4, row < t.rows && at < p.w.k);
    }
}

/* Four (f32) or eight (f16) weights of 16 bytes times the rows' values, in rising order. */
template <int TYPE> DEVICE void plain_piece(float (&c)[PLAIN_ROWS], uint4 piece, const float *rows) {
    const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w}, n = TYPE == DTYPE_F32 ? 4 : 8;
#pragma unroll
    for (uint32_t i = 0; i < n; i++) {
        const float w =
            TYPE == DTYPE_F32 ? __uint_as_float(words[i % 4]) : f32_of_f16((uint16_t)(words[i / 2] >> i % 2 * 16));
#pragma unroll
        for (uint32_t row = 0; row < PLAIN_ROWS; row++) c[row] = fmaf(rows[row * BLOCK_OUTPUTS + i], w, c[row]);
    }
}

template <int TYPE> __global__ void __launch_bounds__(PRODUCT_THREADS) plain(cuda_product_args p) {
    SHARED(plain_memory, s);
    const cuda_tile t = plain_tile_of(p);
    if (t.rows == 0) return;
    const char    *w = (const char *)p.w.data + t.expert * p.w.each_bytes;
    const uint32_t output = threadIdx.x % BLOCK_OUTPUTS, row = threadIdx.x / BLOCK_OUTPUTS * PLAIN_ROWS;
    const uint32_t steps = blocks_along(p), wide = TYPE == DTYPE_F32 ? 4 : 8;
    float          c[PLAIN_ROWS] = {};
    plain_fetch<TYPE>(p, s, w, t, 0);
    copy_commit();
    for (uint32_t i = 0; i < steps; i++) {
        if (i + 1 < steps) plain_fetch<TYPE>(p, s, w, t, i + 1);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
#pragma unroll
        for (uint32_t j = 0; j < PIECES_A_ROW; j++)
            plain_piece<TYPE>(c, load16(s.stage[i % 2].weights + swizzled(output * STEP + j * 16, STEP)),
                              &s.stage[i % 2].rows[row][j * wide]);
        __syncthreads();
    }
#pragma unroll
    for (uint32_t i = 0; i < PLAIN_ROWS; i++) s.sums[row + i][output] = c[i];
    __syncthreads();
    finish_tile(p, t, blockIdx.x * BLOCK_OUTPUTS, BLOCK_OUTPUTS,
                [&](uint32_t r, uint32_t o) { return eight_of(&s.sums[r][o]); });
}

/* ---- launch ---- */

static uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

uint32_t cuda_few_tiles_max(uint32_t rows, uint32_t chosen, uint32_t experts) { return least(rows * chosen, experts); }
/* An expert of more than FEW_ROWS entries has at most one tile that is not full. */
uint32_t cuda_many_tiles_max(uint32_t rows, uint32_t chosen, uint32_t experts) {
    const uint32_t entries = rows * chosen;
    return rows <= FEW_ROWS ? 0 : entries / MANY_ROWS + least(entries / (FEW_ROWS + 1), experts);
}

static cuda_shape grid_of(uint32_t x, uint32_t y, uint32_t z, size_t shared) {
    return {{x, y, z}, PRODUCT_THREADS, (uint32_t)shared};
}

cuda_product_config cuda_product_configure(const cuda_product_args *a) {
    cuda_product_config c = {};
    const cuda_groups  *g = &a->groups;
    const uint32_t      blocks = ceil_div(a->w.outputs, BLOCK_OUTPUTS), wide = ceil_div(a->w.outputs, MANY_OUTPUTS);
    c.few_rows = a->rows <= 8 ? 8 : FEW_ROWS;
    if (a->rows == 0) return c;
    if (a->w.type != DTYPE_BF16) {
        const uint32_t tiles = ceil_div(a->rows, FEW_ROWS);
        c.plain = g->entry ? grid_of(blocks, g->experts, tiles, sizeof(plain_memory))
                           : grid_of(blocks, tiles, 1, sizeof(plain_memory));
        return c;
    }
    const size_t few_bytes = c.few_rows == 8 ? sizeof(few_memory<1>) : sizeof(few_memory<2>);
    if (g->entry) {
        c.few = grid_of(blocks, cuda_few_tiles_max(a->rows, g->chosen, g->experts), 1, few_bytes);
        c.many = grid_of(wide, cuda_many_tiles_max(a->rows, g->chosen, g->experts), 1, sizeof(many_memory));
    } else if (a->rows <= FEW_ROWS) c.few = grid_of(blocks, 1, 1, few_bytes);
    else c.many = grid_of(wide, ceil_div(a->rows, MANY_ROWS), 1, sizeof(many_memory));
    return c;
}

cuda_cost cuda_product_cost(const cuda_product_args *a, uint32_t touched) {
    const double times = a->groups.entry ? a->rows * (double)a->groups.chosen : a->rows,
                 size = (double)dtype_bytes(a->w.type);
    const double out_bytes = a->finish == PRODUCT_ADD ? 8 : (double)dtype_bytes(a->out_type);
    return {touched * (double)a->w.outputs * a->w.k * size + times * a->w.k * (a->w.type == DTYPE_BF16 ? 2 : 4) +
                times * a->out_width * out_bytes,
            2 * times * a->w.outputs * a->w.k};
}

void cuda_product(cuda_queue *q, const cuda_product_args *a) {
    const cuda_product_config c = cuda_product_configure(a);
    if (c.few.grid[0] && c.few_rows == 8) launch(q, "product, few rows (8)", few<1>, c.few, *a);
    else if (c.few.grid[0]) launch(q, "product, few rows (16)", few<2>, c.few, *a);
    if (c.many.grid[0]) launch(q, "product, many rows", many, c.many, *a);
    if (c.plain.grid[0] && a->w.type == DTYPE_F32) launch(q, "product, f32", plain<DTYPE_F32>, c.plain, *a);
    else if (c.plain.grid[0]) launch(q, "product, f16", plain<DTYPE_F16>, c.plain, *a);
}
