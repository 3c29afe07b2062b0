#include "kernels/cuda/rope.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

enum { WARPS = 8, PAIRS = CUDA_HEAD_DIM_MAX / 2 / WARP };

/* What a lane holds of a head: values i and i + head_dim/2, which rotate together, for i = lane, lane + 32, ... */
struct pairs {
    float low[PAIRS], high[PAIRS];
};

/* A row of heads of one kind. */
struct head_row {
    enum { Q, K, V } kind;
    const char  *from;
    uint32_t     heads;
    const float *norm; /* NULL: none */
};

DEVICE head_row row_of_kind(const cuda_rope_args &p, uint32_t row, int kind) {
    if (kind == head_row::Q) return {head_row::Q, (const char *)p.q + row * p.q_stride, p.heads, p.q_norm};
    if (kind == head_row::K) return {head_row::K, (const char *)p.k + row * p.k_stride, p.layout.kv_heads, p.k_norm};
    return {head_row::V, (const char *)p.v + row * p.v_stride, p.layout.kv_heads, NULL};
}

/* fn(j, i) for each of this lane's pairs of a head. */
template <class F> DEVICE void each_pair(uint32_t half, F fn) {
#pragma unroll
    for (uint32_t j = 0; j < PAIRS; j++) {
        const uint32_t i = j * WARP + threadIdx.x % WARP;
        if (i < half) fn(j, i);
    }
}

template <int TYPE> DEVICE void load_pairs(pairs &x, const void *row, size_t begin, uint32_t half) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++) x.low[j] = x.high[j] = 0;
    each_pair(half, [&](uint32_t j, uint32_t i) {
        x.low[j] = get<TYPE>(row, begin + i), x.high[j] = get<TYPE>(row, begin + half + i);
    });
}

DEVICE float sum_of_squares(const pairs &x) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) sum = fmaf(x.high[j], x.high[j], fmaf(x.low[j], x.low[j], sum));
    return sum;
}
DEVICE float norm_scale(float sum, uint32_t n, float eps) { return 1 / sqrtf(sum / (float)n + eps); }

DEVICE void multiply(pairs &x, float scale, const float *weight, uint32_t half) {
    each_pair(half, [&](uint32_t j, uint32_t i) {
        x.low[j] = x.low[j] * scale * weight[i], x.high[j] = x.high[j] * scale * weight[half + i];
    });
}
DEVICE void clip(pairs &x, float limit) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
        x.low[j] = fminf(limit, fmaxf(-limit, x.low[j])), x.high[j] = fminf(limit, fmaxf(-limit, x.high[j]));
}
DEVICE void rotate(pairs &x, const float *rotation, uint32_t half) {
    each_pair(half, [&](uint32_t j, uint32_t i) {
        const float c = rotation[i], s = rotation[half + i], low = x.low[j], high = x.high[j];
        x.low[j] = low * c - high * s, x.high[j] = high * c + low * s;
    });
}

/* Where a head of this row's position lies in its page. */
DEVICE char *head_in_page(const cuda_rope_args &p, uint32_t row, int kind, uint32_t head) {
    const cuda_pages &l = p.layout;
    const uint32_t    page = p.batch.runs[p.batch.run_of_row[row]].page_begin + p.batch.positions[row] / l.page_tokens;
    return p.pages + p.batch.page_ids[page] * l.page_stride + p.layer * l.layer_stride +
           (kind == head_row::V ? l.v_offset : 0) + head * l.head_stride;
}

template <int TYPE> DEVICE void store_pairs(const cuda_rope_args &p, const pairs &x, uint32_t row, int kind, uint32_t head) {
    const uint32_t half = p.layout.head_dim / 2, size = TYPE == DTYPE_F32 ? 4 : 2;
    if (kind == head_row::Q) {
        char        *to = (char *)p.q + row * p.q_stride;
        const size_t begin = (size_t)head * p.layout.head_dim;
        each_pair(half, [&](uint32_t j, uint32_t i) {
            put<TYPE>(to, begin + i, x.low[j]), put<TYPE>(to, begin + half + i, x.high[j]);
        });
        return;
    }
    char          *to = head_in_page(p, row, kind, head);
    const uint32_t token = p.batch.positions[row] % p.layout.page_tokens;
    each_pair(half, [&](uint32_t j, uint32_t i) {
        put<TYPE>(to + cuda_page_offset(&p.layout, token, i * size), 0, x.low[j]);
        put<TYPE>(to + cuda_page_offset(&p.layout, token, (half + i) * size), 0, x.high[j]);
    });
}

/* scale: of the whole row, or less than zero where each head is normed by itself. */
template <int TYPE>
DEVICE void change_head(const cuda_rope_args &p, const head_row &r, uint32_t row, uint32_t head, float scale) {
    const uint32_t dim = p.layout.head_dim, half = dim / 2;
    pairs          x;
    load_pairs<TYPE>(x, r.from, (size_t)head * dim, half);
    if (r.norm && scale < 0) multiply(x, norm_scale(warp_sum(sum_of_squares(x)), dim, p.norm_eps), r.norm, half);
    else if (r.norm) multiply(x, scale, r.norm + (size_t)head * dim, half);
    if (p.clip > 0) clip(x, p.clip);
    if (r.kind != head_row::V) rotate(x, p.rotation + (size_t)p.batch.positions[row] * dim, half);
    store_pairs<TYPE>(p, x, row, r.kind, head);
}

/* A warp is one head: queries' first, then keys', then values'. */
template <int TYPE> __global__ void __launch_bounds__(WARPS *WARP) rope_heads(cuda_rope_args p) {
    const uint32_t row = blockIdx.x, kv_heads = p.layout.kv_heads;
    uint32_t       head = blockIdx.y * WARPS + threadIdx.x / WARP;
    int            kind = head_row::Q;
    if (head >= p.heads) head -= p.heads, kind = head_row::K;
    if (kind == head_row::K && head >= kv_heads) head -= kv_heads, kind = head_row::V;
    if (head < (kind == head_row::Q ? p.heads : kv_heads)) change_head<TYPE>(p, row_of_kind(p, row, kind), row, head, -1);
}

struct rope_memory {
    float partial[WARPS];
};

/* A block is all heads of one kind. */
template <int TYPE> __global__ void __launch_bounds__(WARPS *WARP) rope_rows(cuda_rope_args p) {
    SHARED(rope_memory, s);
    const uint32_t row = blockIdx.x, warp = threadIdx.x / WARP, dim = p.layout.head_dim;
    const head_row r = row_of_kind(p, row, (int)blockIdx.y);
    float          sum = 0, scale = -1;
    if (r.norm) {
        for (uint32_t head = warp; head < r.heads; head += WARPS) {
            pairs x;
            load_pairs<TYPE>(x, r.from, (size_t)head * dim, dim / 2);
            sum += sum_of_squares(x);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) s.partial[warp] = sum;
        __syncthreads();
        sum = 0;
        for (int w = 0; w < WARPS; w++) sum += s.partial[w];
        scale = norm_scale(sum, r.heads * dim, p.norm_eps);
    }
    for (uint32_t head = warp; head < r.heads; head += WARPS) change_head<TYPE>(p, r, row, head, scale);
}

cuda_shape cuda_rope_configure(const cuda_rope_args *a) {
    const uint32_t heads = a->heads + 2 * a->layout.kv_heads;
    cuda_shape     by_head = {{a->batch.row_count, (heads + WARPS - 1) / WARPS, 1}, WARPS * WARP, 0};
    cuda_shape     by_row = {{a->batch.row_count, 3, 1}, WARPS * WARP, sizeof(rope_memory)};
    return a->norm_full ? by_row : by_head;
}

cuda_cost cuda_rope_cost(const cuda_rope_args *a) {
    const double values = (double)a->batch.row_count * a->layout.head_dim * (a->heads + 2 * a->layout.kv_heads);
    return {values * 2 * (double)dtype_bytes(a->layout.type) + (double)a->batch.row_count * a->layout.head_dim * 4,
            values * 6};
}

template <int TYPE> static void launch_rope(cuda_queue *q, const cuda_rope_args *a) {
    const cuda_shape shape = cuda_rope_configure(a);
    if (a->norm_full) launch(q, "rope, a block a row", rope_rows<TYPE>, shape, *a);
    else launch(q, "rope, a warp a head", rope_heads<TYPE>, shape, *a);
}
void cuda_rope(cuda_queue *q, const cuda_rope_args *a) {
    if (a->layout.type == DTYPE_BF16) launch_rope<DTYPE_BF16>(q, a);
    else launch_rope<DTYPE_F32>(q, a);
}
