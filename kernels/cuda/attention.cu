#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

/* ---- merge: a block of threads folds the chunks of a row and key head in order, then perhaps of another ---- */

enum {
    MERGE_THREADS = 128,
    MERGE_ROWS = 16,
    MERGE_STAGES = 4,
    MERGE_CHUNKS = 8,
    MERGE_COLUMNS = CUDA_HEAD_DIM_MAX / MERGE_THREADS
};

struct merge_memory {
    alignas(16) float stage[MERGE_STAGES][MERGE_CHUNKS][CUDA_HEAD_DIM_MAX + PARTIAL_EXTRA];
};

struct merge_place {
    const float *from;
    size_t       stride; /* from chunk to chunk */
    uint32_t     chunks, width;
};

DEVICE void copy_stage(merge_memory &s, const merge_place &at, uint32_t stage) {
    const uint32_t pieces = at.width / 4, begin = stage * MERGE_CHUNKS;
    for (uint32_t c = threadIdx.x; c < MERGE_CHUNKS * pieces; c += MERGE_THREADS) {
        const uint32_t chunk = c / pieces, piece = c % pieces;
        if (begin + chunk < at.chunks)
            copy_async16(&s.stage[stage % MERGE_STAGES][chunk][piece * 4],
                         at.from + (begin + chunk) * at.stride + piece * 4);
    }
    copy_commit();
}

template <int TYPE>
DEVICE void merge_row(const cuda_attention_args &p, merge_memory &s, const cuda_attention_merge &m, uint32_t r,
                      uint32_t head) {
    const uint32_t    kv_heads = p.layout.kv_heads, dim = p.layout.head_dim, width = dim + PARTIAL_EXTRA;
    const uint32_t    stages = (m.chunk_count + MERGE_CHUNKS - 1) / MERGE_CHUNKS;
    const merge_place at = {p.partials + ((size_t)(m.partial + r) * kv_heads + head) * width,
                            (size_t)m.stride * kv_heads * width, m.chunk_count, width};
    float             maximum = NO_MAXIMUM, sum = 0, out[MERGE_COLUMNS] = {};
    for (uint32_t stage = 0; stage + 1 < MERGE_STAGES; stage++) copy_stage(s, at, stage);
    for (uint32_t stage = 0; stage < stages; stage++) {
        copy_wait<MERGE_STAGES - 2>();
        __syncthreads();
        copy_stage(s, at, stage + MERGE_STAGES - 1);
        for (uint32_t i = 0; i < MERGE_CHUNKS && stage * MERGE_CHUNKS + i < m.chunk_count; i++) {
            const float  *chunk = s.stage[stage % MERGE_STAGES][i];
            const folding f = fold_begin(maximum, chunk[dim]);
            sum = fold(f, sum, chunk[dim + 1]);
            UNROLL
            for (uint32_t j = 0; j < MERGE_COLUMNS; j++) {
                const uint32_t column = threadIdx.x + j * MERGE_THREADS;
                if (column < dim) out[j] = fold(f, out[j], chunk[column]);
            }
        }
    }
    copy_wait<0>();
    const cuda_run run = p.batch.runs[m.run];
    const uint32_t group = p.heads / kv_heads, row = m.row + r;
    char          *to = (char *)p.out + (run.row_begin + row / group) * p.out_stride;
    const float    over = 1 / sum;
    UNROLL
    for (uint32_t j = 0; j < MERGE_COLUMNS; j++) {
        const uint32_t column = threadIdx.x + j * MERGE_THREADS;
        if (column < dim) put<TYPE>(to, (size_t)(head * group + row % group) * dim + column, out[j] * over);
    }
}

/* A decode step has one token a run: then no block of threads is without a row, and none has two. */
BOTH uint32_t merge_blocks(const cuda_attention_args &p) {
    const uint32_t group = p.heads / p.layout.kv_heads;
    return group < MERGE_ROWS ? group : (uint32_t)MERGE_ROWS;
}

template <int TYPE> __global__ void __launch_bounds__(MERGE_THREADS) attention_merge(cuda_attention_args p) {
    SHARED(merge_memory, s);
    const uint32_t             kv_heads = p.layout.kv_heads, blocks = merge_blocks(p), unit = blockIdx.x / kv_heads;
    const cuda_attention_merge m = p.merges[p.begin + unit / blocks];
    for (uint32_t r = unit % blocks; r < m.row_count; r += blocks) {
        merge_row<TYPE>(p, s, m, r, blockIdx.x % kv_heads);
        __syncthreads(); /* the next row's copies go where this one's are read */
    }
}

/* ---- plain: a warp a row and head, in steps of 32 positions ---- */

enum { PLAIN_WARPS = 4, PLAIN_COLUMNS = CUDA_HEAD_DIM_MAX / WARP };

struct plain_memory {
    float q[PLAIN_WARPS][CUDA_HEAD_DIM_MAX];
};

/* What a row sees, and where its keys are. */
struct plain_row {
    uint32_t begin, end, page_begin;
    size_t   head_at; /* in a page */
};

DEVICE const char *key_at(const cuda_attention_args &p, const plain_row &r, uint32_t position) {
    return p.pages + p.batch.page_ids[r.page_begin + position / p.layout.page_tokens] * p.layout.page_stride + r.head_at;
}

template <int TYPE>
DEVICE float plain_score(const cuda_attention_args &p, const plain_row &r, const float *q, uint32_t position) {
    const uint32_t size = TYPE == DTYPE_F32 ? 4 : 2, wide = 16 / size, dim = p.layout.head_dim;
    const char    *key = key_at(p, r, position);
    float          sum = 0;
#pragma unroll 1
    for (uint32_t d = 0; d < dim; d += wide) {
        const char *piece = key + cuda_page_offset(&p.layout, position % p.layout.page_tokens, d * size);
        for (uint32_t i = 0; i < wide && d + i < dim; i++) sum = fmaf(q[d + i], get<TYPE>(piece, i), sum);
    }
    return sum;
}

template <int TYPE>
DEVICE void plain_values(const cuda_attention_args &p, const plain_row &r, float (&out)[PLAIN_COLUMNS], float weight,
                         uint32_t position) {
    const uint32_t size = TYPE == DTYPE_F32 ? 4 : 2;
    const char    *value = key_at(p, r, position) + p.layout.v_offset;
    UNROLL
    for (uint32_t j = 0; j < PLAIN_COLUMNS; j++) {
        const uint32_t d = threadIdx.x % WARP + j * WARP;
        if (d < p.layout.head_dim)
            out[j] =
                fmaf(weight, get<TYPE>(value + cuda_page_offset(&p.layout, position % p.layout.page_tokens, d * size), 0),
                     out[j]);
    }
}

DEVICE plain_row plain_row_of(const cuda_attention_args &p, uint32_t row, uint32_t head) {
    const uint32_t end = p.batch.positions[row] + 1;
    return {p.window && end > p.window ? end - p.window : 0, end, p.batch.runs[p.batch.run_of_row[row]].page_begin,
            p.layer * p.layout.layer_stride + head / (p.heads / p.layout.kv_heads) * p.layout.head_stride};
}

template <int TYPE> __global__ void __launch_bounds__(PLAIN_WARPS *WARP, 1) attention_plain(cuda_attention_args p) {
    SHARED(plain_memory, s);
    const uint32_t unit = blockIdx.x * PLAIN_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP, dim = p.layout.head_dim;
    if (unit >= p.count * p.heads) return;
    const uint32_t  row = p.begin + unit / p.heads, head = unit % p.heads;
    const plain_row r = plain_row_of(p, row, head);
    const float     scale = 1.44269504f / sqrtf((float)dim);
    float          *q = s.q[threadIdx.x / WARP], maximum = NO_MAXIMUM, sum = 0, out[PLAIN_COLUMNS] = {};
    for (uint32_t d = lane; d < dim; d += WARP)
        q[d] = get<TYPE>((const char *)p.q + row * p.q_stride, (size_t)head * dim + d) * scale;
    __syncwarp();
    for (uint32_t first = r.begin / WARP * WARP; first < r.end; first += WARP) {
        const uint32_t position = first + lane;
        const bool     sees = position >= r.begin && position < r.end;
        const float    score = sees ? plain_score<TYPE>(p, r, q, position) : -INFINITY;
        const float top = fmaxf(maximum, warp_max(score)), alpha = exp2_fast(maximum - top), weight = exp2_fast(score - top);
        maximum = top, sum = fmaf(sum, alpha, warp_sum(weight));
        UNROLL
        for (uint32_t j = 0; j < PLAIN_COLUMNS; j++) out[j] *= alpha;
        const uint32_t from = max(first, r.begin), to = min(first + WARP, r.end);
        for (uint32_t i = from; i < to; i++)
            plain_values<TYPE>(p, r, out, __shfl_sync(ALL_LANES, weight, (int)(i - first)), i);
    }
    const float over = 1 / sum;
    UNROLL
    for (uint32_t j = 0; j < PLAIN_COLUMNS; j++) {
        const uint32_t d = lane + j * WARP;
        if (d < dim) put<TYPE>((char *)p.out + row * p.out_stride, (size_t)head * dim + d, out[j] * over);
    }
}

/* ---- which kernel ---- */

static attention_choice tiles_of(const cuda_attention_args *a) {
    const bool is_few = a->kind == ATTENTION_FEW;
    return a->layout.type == DTYPE_BF16 ? attention_choice_bf16(a->layout.head_dim, is_few)
                                        : attention_choice_f16(a->layout.head_dim, is_few);
}

cuda_attention_config cuda_attention_configure(const cuda_attention_args *a) {
    const uint32_t kv_heads = a->layout.kv_heads;
    if (a->kind == ATTENTION_PLAIN)
        return {"attention, plain",
                {{(a->count * a->heads + PLAIN_WARPS - 1) / PLAIN_WARPS, 1, 1}, PLAIN_WARPS * WARP, sizeof(plain_memory)}};
    if (a->kind == ATTENTION_MERGE)
        return {"attention, merge", {{a->count * merge_blocks(*a) * kv_heads, 1, 1}, MERGE_THREADS, sizeof(merge_memory)}};
    const attention_choice c = tiles_of(a);
    return {c.name, {{a->count * kv_heads, 1, 1}, c.threads, c.shared_bytes}};
}

template <int TYPE> static void launch_simple(cuda_queue *q, const cuda_attention_config &c, const cuda_attention_args *a) {
    launch(q, c.name, a->kind == ATTENTION_PLAIN ? attention_plain<TYPE> : attention_merge<TYPE>, c.shape, *a);
}
void cuda_attention(cuda_queue *q, const cuda_attention_args *a) {
    const cuda_attention_config c = cuda_attention_configure(a);
    if (a->kind == ATTENTION_FEW || a->kind == ATTENTION_MANY) tiles_of(a).run(q, c.name, c.shape, *a);
    else if (a->layout.type == DTYPE_F32) launch_simple<DTYPE_F32>(q, c, a);
    else if (a->layout.type == DTYPE_BF16) launch_simple<DTYPE_BF16>(q, c, a);
    else launch_simple<DTYPE_F16>(q, c, a);
}
