#include "tests/cuda/probe.h"

#include "kernels/cuda/launch.cuh"

/* ---- bugs to choose from ---- */

struct planted_memory {
    float stage[2][PLANTED_THREADS][4];
    float passed[PLANTED_THREADS];
    float partial[3]; /* the third is never written */
};

DEVICE void fetch(const planted_args &p, planted_memory &s, uint32_t tile) {
    const uint32_t t = threadIdx.x;
    const float   *from = p.in + ((size_t)tile * PLANTED_THREADS + t) * 4;
    float         *to = s.stage[tile % 2][t];
    if (p.bug == BUG_UNALIGNED && tile == 1) from++;
    if (p.bug == BUG_PAST_SHARED && tile == 1) to = (float *)((char *)&s + 4096) + 4 * t;
    copy_async16(to, from);
}

DEVICE float sum_of_warp(const planted_args &p, planted_memory &s, float x) {
    const uint32_t lane = threadIdx.x % WARP;
    if (p.bug == BUG_OTHER_LANE && lane < 16) return x + __shfl_xor_sync(0xFFFFu, x, 16);
    if (p.bug == BUG_PART_OF_MASK && lane == 9) return x;
    if (p.bug == BUG_BRANCH_SHUFFLE) {
        if (lane < 16) x += __shfl_xor_sync(ALL_LANES, x, 16);
        else x += __shfl_xor_sync(ALL_LANES, x, 16);
    }
    s.passed[threadIdx.x] = x; /* the first step through memory, the rest by shuffles */
    if (p.bug != BUG_NO_SYNCWARP) __syncwarp();
    x += s.passed[threadIdx.x ^ 1];
    __syncwarp();
    for (int d = 2; d < WARP; d *= 2) x += __shfl_xor_sync(ALL_LANES, x, d);
    return x;
}

__global__ void planted(planted_args p) {
    struct bigger {
        planted_memory all;
        float          more[1024];
    };
    SHARED(planted_memory, s);
    const uint32_t t = threadIdx.x;
    float          sum = 0;
    if (p.bug == BUG_MORE_THAN_ASKED) {
        SHARED(bigger, too_much);
        too_much.more[t] = 0;
    }
    fetch(p, s, 0);
    copy_commit();
    for (uint32_t tile = 0; tile < p.tiles; tile++) {
        if (tile + 1 < p.tiles) fetch(p, s, tile + 1);
        copy_commit();
        if (p.bug != BUG_NO_WAIT) copy_wait<1>();
        if (p.bug == BUG_LEFT_EARLY && t == 5 && tile + 1 == p.tiles) return;
        if (p.bug == BUG_BRANCH_BARRIER && t < 32) __syncthreads();
        else if (p.bug != BUG_NO_BARRIER) __syncthreads();
        for (int i = 0; i < 4; i++) sum += s.stage[tile % 2][(t + 37) % PLANTED_THREADS][i];
        if (p.bug != BUG_EARLY_COPY) __syncthreads();
    }
    if (p.bug == BUG_LEFT_IN_FLIGHT) fetch(p, s, 0);
    sum = sum_of_warp(p, s, sum);
    if (t % WARP == 0) s.partial[t / WARP] = sum;
    __syncthreads();
    if (t == 0) p.out[0] = s.partial[0] + s.partial[p.bug == BUG_UNWRITTEN ? 2 : 1];
}

void probe_planted(cuda_queue *q, const planted_args *a) {
    launch(q, "planted", planted, {{1, 1, 1}, PLANTED_THREADS, sizeof(planted_memory)}, *a);
}

/* ---- matrices ---- */

struct product_memory {
    alignas(16) uint16_t a[16][16], b[16][16];
};

__global__ void product(probe_product_args p) {
    SHARED(product_memory, s);
    const uint32_t lane = threadIdx.x, g = lane / 4, two = lane % 4 * 2;
    for (uint32_t i = lane; i < 32; i += WARP) {
        store16(&s.a[i / 2][i % 2 * 8], load16(p.a + 8 * i));
        store16(&s.b[i / 2][i % 2 * 8], load16_once(p.b + 8 * i));
    }
    __syncwarp();
    uint32_t a[4], b4[4];
    float    c[4] = {p.c[g * 8 + two], p.c[g * 8 + two + 1], p.c[(g + 8) * 8 + two], p.c[(g + 8) * 8 + two + 1]};
    load_matrix_x4(a, &s.a[lane % 16][lane / 16 * 8]);
    if (p.b_transposed) load_matrix_x4_trans(b4, &s.b[lane % 16][lane / 16 * 8]); /* b[k][n]: n to 8 in 0 and 1 */
    else load_matrix_x4(b4, &s.b[lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]);    /* b[n][k] */
    const uint32_t b[2] = {b4[0], b4[1]};
    if (p.is_f16) mma_f16(c, a, b);
    else mma_bf16(c, a, b);
    p.c[g * 8 + two] = c[0], p.c[g * 8 + two + 1] = c[1];
    p.c[(g + 8) * 8 + two] = c[2], p.c[(g + 8) * 8 + two + 1] = c[3];
}

void probe_product(cuda_queue *q, const probe_product_args *a) {
    launch(q, "product", product, {{1, 1, 1}, WARP, sizeof(product_memory)}, *a);
}

/* ---- values ---- */

__global__ void values(probe_values_args p) {
    const uint32_t i = blockIdx.x * WARP + threadIdx.x;
    p.bf16[i] = bf16_of(p.in[i]), p.f16[i] = f16_of(p.in[i]);
    p.pairs_bf16[i] = pack_bf16(p.in[i], -p.in[i]), p.pairs_f16[i] = pack_f16(p.in[i], -p.in[i]);
    p.from_bf16[i] = f32_of_bf16(p.half[i]), p.from_f16[i] = f32_of_f16(p.half[i]);
    p.exp2[i] = exp2_fast(p.in[i]);
}
void probe_values(cuda_queue *q, const probe_values_args *a) {
    launch(q, "values", values, {{a->n / WARP, 1, 1}, WARP, 0}, *a);
}

/* ---- warps and blocks ---- */

struct warp_args {
    uint32_t *out;
};
__global__ void warp_ops(warp_args p) {
    const uint32_t lane = threadIdx.x, x = 100 + lane;
    uint32_t      *out = p.out + lane;
    out[0 * WARP] = __shfl_sync(ALL_LANES, x, 7);
    out[1 * WARP] = __shfl_sync(ALL_LANES, x, 3, 8);
    out[2 * WARP] = __shfl_xor_sync(ALL_LANES, x, 5);
    out[3 * WARP] = __shfl_up_sync(ALL_LANES, x, 3);
    out[4 * WARP] = __shfl_down_sync(ALL_LANES, x, 3, 16);
    out[5 * WARP] = __ballot_sync(ALL_LANES, lane % 3 == 0);
    out[6 * WARP] = __match_any_sync(ALL_LANES, lane % 5);
    out[7 * WARP] = (uint32_t)warp_sum((float)lane);
    out[8 * WARP] = __all_sync(ALL_LANES, lane < 32) + 2 * __any_sync(ALL_LANES, lane > 31);
}
void probe_warp(cuda_queue *q, uint32_t *out) { launch(q, "warp_ops", warp_ops, {{1, 1, 1}, WARP, 0}, warp_args{out}); }

__global__ void blocks(probe_blocks_args p) {
    const uint32_t n = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(p.total, n);
    atomicMax(p.largest, n);
    p.marks[n] = gridDim.x;
    block_sync_some(1, 96);
    if (threadIdx.x == 0) atomicAdd(p.count, 1u);
}
void probe_blocks(cuda_queue *q, const probe_blocks_args *a) { launch(q, "blocks", blocks, {{7, 1, 1}, 96, 0}, *a); }
