#include "kernels/cuda/experts.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

static uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

DEVICE const route *routes_of(const route *routes, size_t stride, uint32_t row) {
    return (const route *)((const char *)routes + row * stride);
}

/* ---- route: a warp a row ---- */

enum { ROUTE_WARPS = 4, CPU_LANES = 16 };

struct route_memory {
    float    p[ROUTE_WARPS][CUDA_EXPERTS_MAX];
    uint32_t taken[ROUTE_WARPS][CUDA_EXPERTS_MAX / WARP]; /* a bit an expert */
};

DEVICE uint64_t warp_max_wide(uint64_t x) {
    for (int d = WARP / 2; d > 0; d /= 2) {
        const uint64_t other = __shfl_xor_sync(ALL_LANES, x, d);
        x = other > x ? other : x;
    }
    return x;
}

/* As kernels/cpu/rows_body.h: sixteen chains, added in halves. */
DEVICE void softmax_as_cpu(float *p, const float *logits, uint32_t n, uint32_t lane) {
    float top = -INFINITY, sum = 0;
    for (uint32_t e = lane; e < n; e += WARP) top = fmaxf(top, logits[e]);
    top = warp_max(top);
    for (uint32_t e = lane; e < n; e += WARP) p[e] = exp_as_cpu(logits[e] - top);
    __syncwarp();
    for (uint32_t e = lane % CPU_LANES; e < n; e += CPU_LANES) sum += p[e];
    for (int d = CPU_LANES / 2; d > 0; d /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, d);
    const float over = 1 / sum;
    __syncwarp();
    for (uint32_t e = lane; e < n; e += WARP) p[e] *= over;
    __syncwarp();
}

/* Of those not taken the likeliest, ties to the lower id. Chances are not negative, so their bits rise with them. */
DEVICE uint32_t likeliest(const float *p, const uint32_t *taken, uint32_t n, uint32_t lane) {
    uint64_t best = 0;
    for (uint32_t e = lane; e < n; e += WARP) {
        const uint64_t key = (uint64_t)__float_as_uint(p[e]) << 32 | (0xFFFFFFFFu - e);
        if (!(taken[e / WARP] >> e % WARP & 1) && key > best) best = key;
    }
    return 0xFFFFFFFFu - (uint32_t)warp_max_wide(best);
}

__global__ void __launch_bounds__(ROUTE_WARPS *WARP) route_rows(cuda_route_args p) {
    SHARED(route_memory, s);
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = blockIdx.x * ROUTE_WARPS + warp;
    if (row >= p.rows) return;
    float    *chance = s.p[warp];
    uint32_t *taken = s.taken[warp];
    softmax_as_cpu(chance, (const float *)((const char *)p.logits + row * p.logits_stride), p.experts, lane);
    taken[lane] = 0;
    float sum = 0;
    for (uint32_t n = 0; n < p.chosen; n++) {
        __syncwarp();
        const uint32_t e = likeliest(chance, taken, p.experts, lane);
        __syncwarp();
        if (lane == 0) taken[e / WARP] |= 1u << e % WARP;
        sum += chance[e];
    }
    __syncwarp();
    route   *out = (route *)((char *)p.out + row * p.out_stride);
    uint32_t before = 0;
    for (uint32_t i = 0; i * WARP < p.experts; i++) {
        const uint32_t bits = taken[i], e = i * WARP + lane;
        if (bits >> lane & 1)
            out[before + (uint32_t)__popc(bits & ((1u << lane) - 1))] = {e, p.renormalize ? chance[e] / sum : chance[e]};
        before += (uint32_t)__popc(bits);
    }
}

cuda_shape cuda_route_configure(const cuda_route_args *a) {
    return {{ceil_div(a->rows, ROUTE_WARPS), 1, 1}, ROUTE_WARPS * WARP, sizeof(route_memory)};
}
void cuda_route(cuda_queue *q, const cuda_route_args *a) { launch(q, "route", route_rows, cuda_route_configure(a), *a); }

/* ---- group: one block, whose warps own a range of entries each ---- */

enum { GROUP_WARPS = 16, GROUP_THREADS = GROUP_WARPS * WARP };

struct group_memory {
    uint32_t count[GROUP_WARPS][CUDA_EXPERTS_MAX]; /* of each warp's entries; then those of the warps before it */
    uint32_t total[CUDA_EXPERTS_MAX], begin[CUDA_EXPERTS_MAX];
};

/* fn(entry, expert, lanes of the warp with the same expert) for each of a warp's entries, in order, in whole warps. */
template <class F> DEVICE void each_entry(const cuda_group_args &p, uint32_t begin, uint32_t end, F fn) {
    for (uint32_t i = begin; i < end; i += WARP) {
        const uint32_t at = i + threadIdx.x % WARP;
        uint32_t       expert = CUDA_EXPERTS_MAX; /* of lanes past the end */
        if (at < end) expert = routes_of(p.routes, p.routes_stride, at / p.groups.chosen)[at % p.groups.chosen].expert;
        fn(at, expert, __match_any_sync(ALL_LANES, expert));
        __syncwarp();
    }
}

DEVICE uint32_t sum_up_to(uint32_t x, uint32_t lane) {
    for (uint32_t d = 1; d < WARP; d *= 2) {
        const uint32_t before = __shfl_up_sync(ALL_LANES, x, d);
        if (lane >= d) x += before;
    }
    return x;
}

/* One warp: where each expert begins, and the tiles. */
DEVICE void list_tiles(const cuda_group_args &p, group_memory &s, uint32_t lane) {
    const cuda_groups &g = p.groups;
    uint32_t           all = 0, few = 0, many = 0, touched = 0;
    for (uint32_t first = 0; first < g.experts; first += WARP) {
        const uint32_t e = first + lane, n = e < g.experts ? s.total[e] : 0, to_here = sum_up_to(n, lane);
        const uint32_t begin = all + to_here - n, tiles = n > FEW_ROWS ? (n + MANY_ROWS - 1) / MANY_ROWS : 0;
        const uint32_t tiles_to_here = sum_up_to(tiles, lane);
        const uint32_t some = __ballot_sync(ALL_LANES, n > 0), few_here = __ballot_sync(ALL_LANES, n > 0 && tiles == 0);
        if (e < g.experts) s.begin[e] = g.begin[e] = begin;
        if (n > 0 && tiles == 0) g.few[few + (uint32_t)__popc(few_here & ((1u << lane) - 1))] = {e, begin, n};
        for (uint32_t i = 0; i < tiles; i++)
            g.many[many + tiles_to_here - tiles + i] = {e, begin + i * MANY_ROWS,
                                                        min(n - i * MANY_ROWS, (uint32_t)MANY_ROWS)};
        all += __shfl_sync(ALL_LANES, to_here, WARP - 1), many += __shfl_sync(ALL_LANES, tiles_to_here, WARP - 1);
        few += (uint32_t)__popc(few_here), touched += (uint32_t)__popc(some);
    }
    if (lane > 0) return;
    g.begin[g.experts] = all;
    *g.counts = {few, many, touched, g.counts->touched_ever + touched, g.counts->combined_ever};
}

__global__ void __launch_bounds__(GROUP_THREADS, 1) group_entries(cuda_group_args p) {
    SHARED(group_memory, s);
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, n = p.rows * p.groups.chosen;
    const uint32_t each = (n + GROUP_THREADS - 1) / GROUP_THREADS * WARP, begin = min(warp * each, n),
                   end = min(begin + each, n);
    uint32_t *count = s.count[warp];
    for (uint32_t e = lane; e < p.groups.experts; e += WARP) count[e] = 0;
    __syncwarp();
    each_entry(p, begin, end, [&](uint32_t at, uint32_t expert, uint32_t same) {
        if (at < end && __ffs((int)same) == (int)lane + 1) count[expert] += (uint32_t)__popc(same);
    });
    __syncthreads();
    for (uint32_t e = threadIdx.x; e < p.groups.experts; e += GROUP_THREADS) {
        uint32_t sum = 0;
        for (uint32_t w = 0; w < GROUP_WARPS; w++) {
            const uint32_t own = s.count[w][e];
            s.count[w][e] = sum, sum += own;
        }
        s.total[e] = sum;
    }
    __syncthreads();
    if (warp == 0) list_tiles(p, s, lane);
    __syncthreads();
    each_entry(p, begin, end, [&](uint32_t at, uint32_t expert, uint32_t same) {
        const bool     is_there = at < end;
        const uint32_t before = (uint32_t)__popc(same & ((1u << lane) - 1));
        if (is_there) p.groups.entry[s.begin[expert] + count[expert] + before] = at;
        __syncwarp();
        if (is_there && before == 0) count[expert] += (uint32_t)__popc(same);
    });
}

cuda_shape cuda_group_configure(const cuda_group_args *a) {
    return {{a->rows ? 1u : 0u, 1, 1}, GROUP_THREADS, sizeof(group_memory)};
}
void cuda_group(cuda_queue *q, const cuda_group_args *a) {
    launch(q, "group by expert", group_entries, cuda_group_configure(a), *a);
}

/* ---- combine: four values a thread ---- */

enum { COMBINE_THREADS = 128 };

__global__ void __launch_bounds__(COMBINE_THREADS) combine(cuda_combine_args p) {
    const uint32_t i = (blockIdx.y * COMBINE_THREADS + threadIdx.x) * 4, row = blockIdx.x;
    if (p.counts && row == 0 && i == 0) p.counts->combined_ever += p.counts->touched;
    if (i >= p.width) return;
    const uint32_t n = min(p.width - i, 4u);
    const route   *r = routes_of(p.routes, p.routes_stride, row);
    float         *x = (float *)((char *)p.x + row * p.x_stride) + i;
    float          sum[4];
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) sum[j] = j < n ? x[j] : 0;
    for (uint32_t slot = 0; slot < p.chosen; slot++) {
        const char  *part = (const char *)p.parts + ((size_t)row * p.chosen + slot) * p.part_stride;
        const float4 v = *(const float4 *)((const float *)part + i); /* rows are whole groups of four */
        const float  w = r[slot].weight;
        sum[0] += v.x * w, sum[1] += v.y * w, sum[2] += v.z * w, sum[3] += v.w * w;
    }
#pragma unroll
    for (uint32_t j = 0; j < 4; j++)
        if (j < n) x[j] = sum[j];
}

cuda_shape cuda_combine_configure(const cuda_combine_args *a) {
    return {{a->rows, ceil_div(a->width, COMBINE_THREADS * 4), 1}, COMBINE_THREADS, 0};
}
cuda_cost cuda_combine_cost(const cuda_combine_args *a) {
    const double values = (double)a->rows * a->width;
    return {values * (8 + 4.0 * a->chosen), values * 2 * a->chosen};
}
void cuda_combine(cuda_queue *q, const cuda_combine_args *a) {
    launch(q, "combine experts", combine, cuda_combine_configure(a), *a);
}
