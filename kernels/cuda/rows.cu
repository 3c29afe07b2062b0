#include "kernels/cuda/rows.h"

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

enum { WARPS_MAX = 32 };

DEVICE float *row_at(float *rows, size_t stride, uint32_t row) { return (float *)((char *)rows + row * stride); }

/* Four values of a row of n from i on; zeros past its end. */
DEVICE float4 load_four(const float *row, uint32_t i, uint32_t n) {
    if (i + 4 <= n) return *(const float4 *)(row + i);
    return make_float4(i < n ? row[i] : 0, i + 1 < n ? row[i + 1] : 0, i + 2 < n ? row[i + 2] : 0, 0);
}
template <int TYPE> DEVICE void store_four(void *row, uint32_t i, uint32_t n, float4 v) {
    const float x[4] = {v.x, v.y, v.z, v.w};
    if (i + 4 > n) {
        for (uint32_t j = 0; j < 3; j++)
            if (i + j < n) put<TYPE>(row, i + j, x[j]);
    } else if (TYPE == DTYPE_F32) *(float4 *)((float *)row + i) = v;
    else *(uint2 *)((uint16_t *)row + i) = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
}

/* ---- norm ---- */

struct norm_memory {
    float partial[WARPS_MAX];
};

/* Each warp's sum by a butterfly, then the warps' in order: in every thread. */
DEVICE float block_sum(norm_memory &s, float x) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) s.partial[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0;
    for (uint32_t w = 0; w < blockDim.x / WARP; w++) sum += s.partial[w];
    return sum;
}

template <int OUT, int FOURS> __global__ void __launch_bounds__(512) norm(cuda_norm_args p) {
    SHARED(norm_memory, s);
    const uint32_t row = p.x_row ? p.x_row[blockIdx.x] : blockIdx.x;
    float         *x = row_at(p.x, p.x_stride, row);
    float4         v[FOURS];
    float          sum = 0;
#pragma unroll
    for (uint32_t f = 0; f < FOURS; f++) {
        const uint32_t i = (f * blockDim.x + threadIdx.x) * 4;
        v[f] = load_four(x, i, p.width);
        if (p.add) {
            const float4 a = load_four((const float *)((const char *)p.add + row * p.x_stride), i, p.width);
            v[f].x += a.x, v[f].y += a.y, v[f].z += a.z, v[f].w += a.w;
            store_four<DTYPE_F32>(x, i, p.width, v[f]);
        }
        sum = fmaf(v[f].x, v[f].x, sum), sum = fmaf(v[f].y, v[f].y, sum);
        sum = fmaf(v[f].z, v[f].z, sum), sum = fmaf(v[f].w, v[f].w, sum);
    }
    const float scale = 1 / sqrtf(block_sum(s, sum) / (float)p.width + p.eps);
    char       *out = (char *)p.out + blockIdx.x * p.out_stride;
#pragma unroll
    for (uint32_t f = 0; f < FOURS; f++) {
        const uint32_t i = (f * blockDim.x + threadIdx.x) * 4;
        const float4   w = load_four(p.weight, i, p.width);
        store_four<OUT>(out, i, p.width,
                        make_float4(v[f].x * scale * w.x, v[f].y * scale * w.y, v[f].z * scale * w.z, v[f].w * scale * w.w));
    }
}

static uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

/* As few values a thread as keep the block at 256 threads, then up to eight fours, then more threads. */
cuda_norm_config cuda_norm_configure(uint32_t rows, uint32_t width) {
    cuda_norm_config c = {{{rows, 1, 1}, 0, sizeof(norm_memory)}, 1};
    const uint32_t   fours = ceil_div(width, 4);
    while (c.fours < 8 && fours > c.fours * 256) c.fours *= 2;
    c.shape.threads = ceil_div(ceil_div(fours, c.fours), WARP) * WARP;
    return c;
}

cuda_cost cuda_norm_cost(const cuda_norm_args *a) {
    const double values = (double)a->rows * a->width;
    return {values * (4 + (a->add ? 8 : 0) + (double)dtype_bytes(a->out_type)) + 4.0 * a->width, values * 4};
}

template <int OUT> static void launch_norm(cuda_queue *q, const cuda_norm_args *a) {
    const cuda_norm_config c = cuda_norm_configure(a->rows, a->width);
    switch (c.fours) {
    case 1: return launch(q, "norm, 4 values a thread", norm<OUT, 1>, c.shape, *a);
    case 2: return launch(q, "norm, 8 values a thread", norm<OUT, 2>, c.shape, *a);
    case 4: return launch(q, "norm, 16 values a thread", norm<OUT, 4>, c.shape, *a);
    default: return launch(q, "norm, 32 values a thread", norm<OUT, 8>, c.shape, *a);
    }
}
void cuda_norm(cuda_queue *q, const cuda_norm_args *a) {
    if (a->out_type == DTYPE_BF16) launch_norm<DTYPE_BF16>(q, a);
    else launch_norm<DTYPE_F32>(q, a);
}

/* ---- embedding ---- */

enum { ROW_THREADS = 128 };

template <int TYPE> __global__ void embed(cuda_embed_args p) {
    const size_t values = p.table_stride ? p.table_stride / (TYPE == DTYPE_F32 ? 4 : 2) : p.width;
    const size_t begin = p.tokens[blockIdx.x] * values;
    float       *out = row_at(p.out, p.out_stride, blockIdx.x);
    if (TYPE == DTYPE_BF16 && p.width % 8 == 0) { /* rows of the table are 16-byte aligned */
        const uint16_t *from = (const uint16_t *)p.table + begin;
        for (uint32_t i = threadIdx.x * 8; i < p.width; i += ROW_THREADS * 8) {
            const eight v = bf16_eight(load16(from + i));
            *(float4 *)(out + i) = make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
            *(float4 *)(out + i + 4) = make_float4(v.at[4], v.at[5], v.at[6], v.at[7]);
        }
    } else
        for (uint32_t i = threadIdx.x; i < p.width; i += ROW_THREADS) out[i] = get<TYPE>(p.table, begin + i);
}

void cuda_embed(cuda_queue *q, const cuda_embed_args *a) {
    const cuda_shape shape = {{a->rows, 1, 1}, ROW_THREADS, 0};
    if (a->table_type == DTYPE_BF16) launch(q, "embed", embed<DTYPE_BF16>, shape, *a);
    else if (a->table_type == DTYPE_F16) launch(q, "embed", embed<DTYPE_F16>, shape, *a);
    else launch(q, "embed", embed<DTYPE_F32>, shape, *a);
}

/* ---- activation ---- */

/* Eight values of a row from i on, a multiple of eight: rows are that long, padding included. */
template <int TYPE> DEVICE eight load_eight(const char *row, uint32_t i) {
    if (TYPE == DTYPE_BF16) return bf16_eight(load16(row + 2 * (size_t)i));
    const float4 a = *(const float4 *)(row + 4 * (size_t)i), b = *(const float4 *)(row + 4 * (size_t)i + 16);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

template <int IN, int OUT> __global__ void activate(cuda_activate_args p) {
    const uint32_t i = (blockIdx.y * ROW_THREADS + threadIdx.x) * GATE_UP_GROUP, row = blockIdx.x;
    if (i >= p.width) return;
    const char *in = (const char *)p.in + row * p.in_stride;
    char       *out = (char *)p.out + row * p.out_stride;
    const eight gate = load_eight<IN>(in, 2 * i), up = load_eight<IN>(in, 2 * i + GATE_UP_GROUP);
    const float scale = p.scale ? p.scale[row] : 1;
    eight       r;
#pragma unroll
    for (int j = 0; j < GATE_UP_GROUP; j++) r.at[j] = silu(gate.at[j]) * up.at[j] * scale;
    store_four<OUT>(out, i, p.width, make_float4(r.at[0], r.at[1], r.at[2], r.at[3]));
    store_four<OUT>(out, i + 4, p.width, make_float4(r.at[4], r.at[5], r.at[6], r.at[7]));
}

void cuda_activate(cuda_queue *q, const cuda_activate_args *a) {
    const cuda_shape shape = {{a->rows, ceil_div(a->width, ROW_THREADS * GATE_UP_GROUP), 1}, ROW_THREADS, 0};
    const bool       in_bf16 = a->in_type == DTYPE_BF16, out_bf16 = a->out_type == DTYPE_BF16;
    if (in_bf16 && out_bf16) launch(q, "activate", activate<DTYPE_BF16, DTYPE_BF16>, shape, *a);
    else if (in_bf16) launch(q, "activate", activate<DTYPE_BF16, DTYPE_F32>, shape, *a);
    else if (out_bf16) launch(q, "activate", activate<DTYPE_F32, DTYPE_BF16>, shape, *a);
    else launch(q, "activate", activate<DTYPE_F32, DTYPE_F32>, shape, *a);
}
