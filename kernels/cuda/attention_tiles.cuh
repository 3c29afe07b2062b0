/* kernels/cuda/attention_tiles.cuh: the tensor core kernels of attention.h, whose essay says why they are as they are.
 *
 * The ring. Loads are numbered keys 0, values 0, keys 1, ...; load j lies in slot j % SLOTS, and SLOTS - 1 are in flight.
 * Step j waits for load j, passes a barrier (all see it, and nobody reads load j - 1 any more), and sends load j - 1 + SLOTS
 * into the slot that has become free. The barrier of the step with values also passes the scores from the step with keys. */
#pragma once
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

template <int TYPE_, int DIM_, int GROUPS_, int WARPS_, int SLOTS_> struct attention_tile {
    static constexpr int      TYPE = TYPE_;
    static constexpr bool     FOLDS = GROUPS_ > 1; /* walks several chunks */
    static constexpr uint32_t DIM = DIM_, SLOTS = SLOTS_;
    static constexpr uint32_t GROUPS = GROUPS_; /* of 16 rows */
    static constexpr uint32_t WARPS = WARPS_;   /* that share a group's columns */
    static constexpr uint32_t ROWS = GROUPS * 16, THREADS = GROUPS * WARPS * WARP;
    static constexpr uint32_t SLABS = DIM * 2 / SLAB_BYTES;
    static constexpr uint32_t REST = DIM * 2 % SLAB_BYTES; /* bytes of a row of the last, narrow slab; 0: there is none */
    static constexpr uint32_t BLOCK_BYTES = ATTENTION_BLOCK * DIM * 2;
    static constexpr uint32_t SCORES = ATTENTION_BLOCK / 8;           /* fragments of a block's scores */
    static constexpr uint32_t PAIRS = (DIM / 16 + WARPS - 1) / WARPS; /* of fragments of 8 columns: what a warp sums */
    static constexpr uint32_t AHEAD = 8;                              /* blocks whose places are known */
    static_assert(REST == 0 || REST == 32 || REST == 64, "a narrow slab is full");
    static_assert(SLOTS / 2 + 2 <= AHEAD && THREADS >= (SLOTS / 2 + 1) * 4, "places of the first blocks");

    /* Where 16 positions lie. */
    struct place {
        size_t   at; /* of this key head's keys in their page */
        uint32_t token, unused;
    };
    struct memory {
        alignas(1024) unsigned char ring[SLOTS][BLOCK_BYTES];
        unsigned char q[ROWS * DIM * 2];
        float4        scores[WARPS > 1 ? GROUPS : 1][WARPS > 1 ? SCORES : 1][WARP];
        place         places[AHEAD][4];
    };

    /* What a warp knows of its rows: each lane of two, g and g + 8. */
    struct rows {
        uint32_t begin[2], end[2];
        float    maximum[2], sum[2], out[PAIRS][2][4];
    };
};

/* Byte `byte` of row `row` of a tile of `rows` rows that lies as in a page. */
template <class T> DEVICE uint32_t tile_offset(uint32_t rows, uint32_t row, uint32_t byte) {
    const uint32_t slab = byte / SLAB_BYTES;
    if (T::REST == 0 || slab < T::SLABS)
        return slab * SLAB_BYTES * rows + swizzled(row * SLAB_BYTES + byte % SLAB_BYTES, SLAB_BYTES);
    return slab * SLAB_BYTES * rows + swizzled(row * T::REST + byte % SLAB_BYTES, T::REST);
}

template <class T> DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    if (T::TYPE == DTYPE_BF16) mma_bf16(c, a, b);
    else mma_f16(c, a, b);
}
template <class T> DEVICE uint32_t pack(float low, float high) {
    return T::TYPE == DTYPE_BF16 ? pack_bf16(low, high) : pack_f16(low, high);
}

/* ---- copies ---- */

template <class T> struct attention_walk {
    const cuda_attention_args &p;
    typename T::memory        &s;
    const cuda_attention_item &item;
    const cuda_run            &run;
    uint32_t                   head, blocks, group; /* group: heads per key head */
};

/* Page id of 16 positions: of block `block`, unit threadIdx.x % 4. */
template <class T> DEVICE uint32_t page_of(const attention_walk<T> &w, uint32_t block) {
    const uint32_t position = w.item.first + block * ATTENTION_BLOCK + threadIdx.x % 4 * 16;
    return position < w.item.last ? w.p.batch.page_ids[w.run.page_begin + position / w.p.layout.page_tokens] : 0;
}
template <class T> DEVICE void put_place(const attention_walk<T> &w, uint32_t block, uint32_t page) {
    const cuda_pages &l = w.p.layout;
    const uint32_t    position = w.item.first + block * ATTENTION_BLOCK + threadIdx.x % 4 * 16;
    w.s.places[block % T::AHEAD][threadIdx.x % 4] = {
        page * l.page_stride + w.p.layer * l.layer_stride + w.head * l.head_stride, position % l.page_tokens, 0};
}

/* Bytes lie in shared memory as in the page: swizzling looks at a position modulo 16 only. What is past the end is zero, as
 * zero probability times what happens to lie there may be NaN. */
template <class T> DEVICE void copy_load(const attention_walk<T> &w, uint32_t load) {
    const uint32_t    block = load / 2, t = threadIdx.x;
    const cuda_pages &l = w.p.layout;
    if (block < w.blocks) {
        const typename T::place *places = w.s.places[block % T::AHEAD];
        const char              *pages = w.p.pages + (load % 2 ? l.v_offset : 0);
        unsigned char           *to = w.s.ring[load % T::SLOTS];
        const uint32_t           left = w.item.last - w.item.first - block * ATTENTION_BLOCK;
        UNROLL
        for (uint32_t c = t; c < ATTENTION_BLOCK * 8; c += T::THREADS) {
            const uint32_t          token = c / 8;
            const typename T::place at = places[token / 16];
            const char             *from = pages + at.at + (at.token + token % 16) * SLAB_BYTES + c % 8 * 16;
            UNROLL
            for (uint32_t slab = 0; slab < T::SLABS; slab++)
                copy_async16_or_zero(to + slab * SLAB_BYTES * ATTENTION_BLOCK + c * 16,
                                     from + (size_t)slab * SLAB_BYTES * l.page_tokens, token < left);
        }
        if constexpr (T::REST > 0) {
            const uint32_t pieces = T::REST / 16; /* of a narrow row */
            UNROLL
            for (uint32_t c = t; c < ATTENTION_BLOCK * pieces; c += T::THREADS) {
                const uint32_t          token = c / pieces;
                const typename T::place at = places[token / 16];
                const char             *from = pages + at.at + (size_t)T::SLABS * SLAB_BYTES * l.page_tokens +
                                   (at.token + token % 16) * T::REST + c % pieces * 16;
                copy_async16_or_zero(to + T::SLABS * SLAB_BYTES * ATTENTION_BLOCK + c * 16, from, token < left);
            }
        }
    }
    copy_commit();
}

template <class T> DEVICE void copy_queries(const attention_walk<T> &w) {
    for (uint32_t c = threadIdx.x; c < T::ROWS * (T::DIM / 8); c += T::THREADS) {
        const uint32_t r = c / (T::DIM / 8), piece = c % (T::DIM / 8), row = w.item.row + (r < w.item.row_count ? r : 0);
        const char    *from = (const char *)w.p.q + (w.run.row_begin + row / w.group) * w.p.q_stride +
                           (size_t)(w.head * w.group + row % w.group) * T::DIM * 2 + piece * 16;
        copy_async16_or_zero(w.s.q + tile_offset<T>(T::ROWS, r, piece * 16), from, r < w.item.row_count);
    }
}

/* ---- arithmetic of one warp ---- */

/* Scores of the positions that are this warp's: fragments [0, SCORES / WARPS). */
template <class T>
DEVICE void block_scores(const attention_walk<T> &w, const unsigned char *keys, uint32_t group, uint32_t warp,
                         float (&score)[T::SCORES / T::WARPS][4]) {
    const uint32_t lane = threadIdx.x % WARP, own = T::SCORES / T::WARPS;
    UNROLL
    for (uint32_t n = 0; n < own; n++)
        for (int i = 0; i < 4; i++) score[n][i] = 0;
    UNROLL
    for (uint32_t k = 0; k < T::DIM / 16; k++) {
        uint32_t a[4], b[4];
        load_matrix_x4(a, w.s.q + tile_offset<T>(T::ROWS, group * 16 + lane % 16, k * 32 + lane / 16 * 16));
        UNROLL
        for (uint32_t n = 0; n < own; n += 2) {
            const uint32_t token = (warp * own + n) * 8 + lane % 8 + lane / 16 * 8;
            load_matrix_x4(b, keys + tile_offset<T>(ATTENTION_BLOCK, token, k * 32 + lane / 8 % 2 * 16));
            multiply_add<T>(score[n], a, b[0], b[1]);
            multiply_add<T>(score[n + 1], a, b[2], b[3]);
        }
    }
}

/* What a row may not see becomes minus infinity. */
template <class T> DEVICE void hide(float (&score)[T::SCORES][4], const typename T::rows &r, uint32_t position) {
    const uint32_t first = position + threadIdx.x % 4 * 2;
    UNROLL
    for (uint32_t n = 0; n < T::SCORES; n++)
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t at = first + n * 8 + i % 2;
            if (at < r.begin[i / 2] || at >= r.end[i / 2]) score[n][i] = -INFINITY;
        }
}

/* Scores become weights; what was gathered is put in units of the new maximum. Lanes of four hold a row together. */
template <class T> DEVICE void block_softmax(float (&score)[T::SCORES][4], typename T::rows &r, float scale) {
    float alpha[2];
    UNROLL
    for (uint32_t h = 0; h < 2; h++) {
        float top = -INFINITY;
        UNROLL
        for (uint32_t n = 0; n < T::SCORES; n++) top = fmaxf(top, fmaxf(score[n][2 * h], score[n][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
        const float maximum = fmaxf(r.maximum[h], top * scale);
        alpha[h] = exp2_fast(r.maximum[h] - maximum);
        r.maximum[h] = maximum;
        float sum = r.sum[h] * alpha[h];
        UNROLL
        for (uint32_t n = 0; n < T::SCORES; n++)
            for (uint32_t i = 2 * h; i < 2 * h + 2; i++) {
                score[n][i] = exp2_fast(fmaf(score[n][i], scale, -maximum));
                sum += score[n][i];
            }
        r.sum[h] = sum;
    }
    UNROLL
    for (uint32_t j = 0; j < T::PAIRS; j++)
        for (uint32_t i = 0; i < 8; i++) r.out[j][i / 4][i % 4] *= alpha[i % 4 / 2];
}

/* Adds the block's weighted values to this warp's columns: pairs warp, warp + WARPS, ... of fragments. */
template <class T>
DEVICE void block_values(const unsigned char *values, const float (&score)[T::SCORES][4], typename T::rows &r,
                         uint32_t warp) {
    const uint32_t lane = threadIdx.x % WARP;
    UNROLL
    for (uint32_t k = 0; k < ATTENTION_BLOCK / 16; k++) {
        const float(&x)[4] = score[2 * k], (&y)[4] = score[2 * k + 1];
        const uint32_t a[4] = {pack<T>(x[0], x[1]), pack<T>(x[2], x[3]), pack<T>(y[0], y[1]), pack<T>(y[2], y[3])};
        UNROLL
        for (uint32_t j = 0; j < T::PAIRS; j++) {
            const uint32_t pair = j * T::WARPS + warp;
            uint32_t       b[4];
            if (pair >= T::DIM / 16) continue;
            load_matrix_x4_trans(b,
                                 values + tile_offset<T>(ATTENTION_BLOCK, k * 16 + lane % 16, pair * 32 + lane / 16 * 16));
            multiply_add<T>(r.out[j][0], a, b[0], b[1]);
            multiply_add<T>(r.out[j][1], a, b[2], b[3]);
        }
    }
}

/* ---- rows ---- */

template <class T> DEVICE void rows_empty(typename T::rows &r) {
    for (int h = 0; h < 2; h++) r.maximum[h] = NO_MAXIMUM, r.sum[h] = 0;
    UNROLL
    for (uint32_t j = 0; j < T::PAIRS; j++)
        for (uint32_t i = 0; i < 8; i++) r.out[j][i / 4][i % 4] = 0;
}
template <class T> DEVICE void rows_begin(const attention_walk<T> &w, typename T::rows &r, uint32_t group) {
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t row = group * 16 + threadIdx.x % WARP / 4 + 8 * h, token = (w.item.row + row) / w.group;
        r.end[h] = row < w.item.row_count ? w.run.position_begin + token + 1 : 0;
        r.begin[h] = w.p.window && r.end[h] > w.p.window ? r.end[h] - w.p.window : 0;
    }
    rows_empty<T>(r);
}
/* Whether all rows of a warp see all of a block; those that do not exist see nothing, and are not looked at. */
template <class T> DEVICE bool sees_all(const typename T::rows &r, uint32_t position) {
    bool all = true;
    for (int h = 0; h < 2; h++)
        all = all && (r.end[h] == 0 || (r.begin[h] <= position && position + ATTENTION_BLOCK <= r.end[h]));
    return all;
}
template <class T> DEVICE void fold_rows(typename T::rows &total, typename T::rows &chunk) {
    folding f[2];
    for (int h = 0; h < 2; h++) {
        float sum = chunk.sum[h];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        f[h] = fold_begin(total.maximum[h], chunk.maximum[h]);
        total.sum[h] = fold(f[h], total.sum[h], sum);
    }
    UNROLL
    for (uint32_t j = 0; j < T::PAIRS; j++)
        for (uint32_t i = 0; i < 8; i++)
            total.out[j][i / 4][i % 4] = fold(f[i % 4 / 2], total.out[j][i / 4][i % 4], chunk.out[j][i / 4][i % 4]);
    rows_empty<T>(chunk);
}

/* fn(h, row of the tile, column, value, next value) for all that this lane holds of rows that exist. */
template <class T, class F>
DEVICE void each_value(const attention_walk<T> &w, const typename T::rows &r, uint32_t group, uint32_t warp, F fn) {
    const uint32_t lane = threadIdx.x % WARP;
    UNROLL
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t row = group * 16 + lane / 4 + 8 * h;
        if (row >= w.item.row_count) continue;
        UNROLL
        for (uint32_t j = 0; j < T::PAIRS; j++)
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t pair = j * T::WARPS + warp;
                if (pair < T::DIM / 16)
                    fn(h, row, pair * 16 + half * 8 + lane % 4 * 2, r.out[j][half][2 * h], r.out[j][half][2 * h + 1]);
            }
    }
}
template <class T>
DEVICE void write_partial(const attention_walk<T> &w, const typename T::rows &r, uint32_t group, uint32_t warp) {
    const uint32_t width = T::DIM + PARTIAL_EXTRA;
    float         *to = w.p.partials + ((size_t)w.item.partial * w.p.layout.kv_heads + w.head) * width;
    const size_t   stride = (size_t)w.p.layout.kv_heads * width;
    each_value<T>(w, r, group, warp, [&](uint32_t h, uint32_t row, uint32_t column, float x, float y) {
        *(float2 *)(to + row * stride + column) = make_float2(x, y);
        if (column == 0) *(float2 *)(to + row * stride + T::DIM) = make_float2(r.maximum[h], r.sum[h]);
    });
}
template <class T>
DEVICE void write_rows(const attention_walk<T> &w, const typename T::rows &r, uint32_t group, uint32_t warp) {
    const float over[2] = {1 / r.sum[0], 1 / r.sum[1]};
    each_value<T>(w, r, group, warp, [&](uint32_t h, uint32_t row, uint32_t column, float x, float y) {
        const uint32_t at = w.item.row + row;
        char          *to = (char *)w.p.out + (w.run.row_begin + at / w.group) * w.p.out_stride;
        ((uint32_t *)to)[((w.head * w.group + at % w.group) * T::DIM + column) / 2] = pack<T>(x * over[h], y * over[h]);
    });
}

/* ---- the kernel ---- */

template <class T> __global__ void __launch_bounds__(T::THREADS, 1) attention_kernel(cuda_attention_args p) {
    SHARED(typename T::memory, s);
    const uint32_t            kv_heads = p.layout.kv_heads;
    const cuda_attention_item item = p.items[p.kind][p.begin + blockIdx.x / kv_heads];
    if (item.row_count == 0) return;
    const cuda_run          run = p.batch.runs[item.run];
    const attention_walk<T> w = {p,
                                 s,
                                 item,
                                 run,
                                 blockIdx.x % kv_heads,
                                 (item.last - item.first + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK,
                                 p.heads / kv_heads};
    const uint32_t group = threadIdx.x / WARP / T::WARPS, warp = threadIdx.x / WARP % T::WARPS, lane = threadIdx.x % WARP;
    const float    scale = 1.44269504f / sqrtf((float)T::DIM);

    if (threadIdx.x < (T::SLOTS / 2 + 1) * 4) put_place<T>(w, threadIdx.x / 4, page_of<T>(w, threadIdx.x / 4));
    uint32_t next_page = threadIdx.x < 4 ? page_of<T>(w, T::SLOTS / 2 + 1) : 0;
    __syncthreads();
    copy_queries<T>(w);
    for (uint32_t load = 0; load + 1 < T::SLOTS; load++) copy_load<T>(w, load);

    typename T::rows chunk, total;
    rows_begin<T>(w, chunk, group);
    rows_empty<T>(total);
    uint32_t chunk_end = attention_chunk_begin(attention_chunk_of(item.first) + 1);
    for (uint32_t block = 0, load = 0; block < w.blocks; block++) {
        const uint32_t position = item.first + block * ATTENTION_BLOCK;
        float          own[T::SCORES / T::WARPS][4], score[T::SCORES][4];

        copy_wait<T::SLOTS - 2>();
        __syncthreads();
        copy_load<T>(w, load + T::SLOTS - 1);
        block_scores<T>(w, s.ring[load % T::SLOTS], group, warp, own);
        if (T::WARPS > 1)
            for (uint32_t n = 0; n < T::SCORES / T::WARPS; n++)
                s.scores[group][warp * (T::SCORES / T::WARPS) + n][lane] =
                    make_float4(own[n][0], own[n][1], own[n][2], own[n][3]);
        load++;

        copy_wait<T::SLOTS - 2>();
        __syncthreads();
        copy_load<T>(w, load + T::SLOTS - 1);
        /* The keys of block (load + SLOTS) / 2 are sent next or in the step after: the place of the one after it. */
        if (threadIdx.x < 4) {
            put_place<T>(w, block + T::SLOTS / 2 + 1, next_page);
            next_page = page_of<T>(w, block + T::SLOTS / 2 + 2);
        }
        UNROLL
        for (uint32_t n = 0; n < T::SCORES; n++) {
            if (T::WARPS > 1) {
                const float4 x = s.scores[group][n][lane];
                score[n][0] = x.x, score[n][1] = x.y, score[n][2] = x.z, score[n][3] = x.w;
            } else {
                for (int i = 0; i < 4; i++) score[n][i] = own[n % (T::SCORES / T::WARPS)][i];
            }
        }
        if (!sees_all<T>(chunk, position)) hide<T>(score, chunk, position);
        block_softmax<T>(score, chunk, scale);
        block_values<T>(s.ring[load % T::SLOTS], score, chunk, warp);
        load++;

        if (T::FOLDS && position + ATTENTION_BLOCK == chunk_end && block + 1 < w.blocks) {
            fold_rows<T>(total, chunk);
            chunk_end = attention_chunk_begin(attention_chunk_of(chunk_end) + 1);
        }
    }
    copy_wait<0>();
    fold_rows<T>(total, chunk); /* of one chunk this makes it, bit for bit, except that no zero is negative */
    if (item.partial != ATTENTION_FINAL) write_partial<T>(w, total, group, warp);
    else write_rows<T>(w, total, group, warp);
}

/* Blocks of keys or values in the ring: as many as leave room for a second block of threads on an SM of 227 KiB where rows
 * are few; and for many, what fits the 163 KiB of sm_80. */
template <int TYPE, int DIM> using attention_few = attention_tile<TYPE, DIM, 1, 4, DIM <= 96 ? 8 : DIM <= 128 ? 6 : 4>;
template <int TYPE, int DIM>
using attention_many = attention_tile<TYPE, DIM, DIM <= 128 ? 8 : 4, DIM <= 128 ? 1 : 2, DIM <= 192 ? 4 : 3>;

template <class T> static void run_attention(cuda_queue *q, const char *name, cuda_shape s, const cuda_attention_args &a) {
    launch(q, name, attention_kernel<T>, s, a);
}
template <class T> static attention_choice choice_of(const char *name) {
    return {name, T::THREADS, (uint32_t)sizeof(typename T::memory), run_attention<T>};
}

/* A file's function from a head dimension to a kernel. */
#define ATTENTION_CHOICE(type, TYPE)                                                                                        \
    attention_choice attention_choice_##type(uint32_t dim, bool is_few) {                                                   \
        switch (dim) {                                                                                                      \
            ATTENTION_DIM(#type, TYPE, 64)                                                                                  \
            ATTENTION_DIM(#type, TYPE, 80)                                                                                  \
            ATTENTION_DIM(#type, TYPE, 96)                                                                                  \
            ATTENTION_DIM(#type, TYPE, 128)                                                                                 \
            ATTENTION_DIM(#type, TYPE, 192)                                                                                 \
            ATTENTION_DIM(#type, TYPE, 256)                                                                                 \
        default: return {NULL, 0, 0, NULL};                                                                                 \
        }                                                                                                                   \
    }
#define ATTENTION_DIM(type, TYPE, n)                                                                                        \
    case n:                                                                                                                 \
        return is_few ? choice_of<attention_few<TYPE, n>>("attention, few rows, " type ", " #n " columns")                  \
                      : choice_of<attention_many<TYPE, n>>("attention, many rows, " type ", " #n " columns");
