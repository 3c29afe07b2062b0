#include "kernels/cuda/sample.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

#define MASS_ONE 0x1p40f
enum { BINS = 2048, LEVELS = 3, THREADS_MAX = 512, WARPS_MAX = THREADS_MAX / WARP, BINS_A_LANE = BINS / WARP };
typedef unsigned long long u64; /* what CUDA's atomics take */

struct sample_memory {
    u64      mass[BINS];
    uint32_t count[BINS];
    u64      partial[WARPS_MAX];
    float    thread_max[THREADS_MAX];
    uint32_t found_bin; /* of the search at hand; and what is above it */
    uint32_t above_count;
    u64      above_mass;
    u64      left; /* of a draw: mass below the place in its warp's segment */
    uint32_t token;
};

/* The row at hand. */
struct row_work {
    const cuda_sample_args *a;
    const cuda_sample_row  *p;
    const float            *logits, *x; /* raw; with penalties */
    float                  *changed;    /* [vocab], where penalties change them */
    uint32_t               *uses;       /* [vocab], all zero between rows */
    uint32_t               *candidates; /* [vocab], in order of id */
    uint32_t                candidate_count;
};

/* ---- over all threads of the block ---- */

/* Of each thread's value, combined in any order: for what does not depend on it. In every thread. */
template <class F> DEVICE u64 block_reduce(sample_memory &s, u64 x, F combine) {
    for (int d = WARP / 2; d > 0; d /= 2) x = combine(x, __shfl_xor_sync(ALL_LANES, x, d));
    __syncthreads();
    if (threadIdx.x % WARP == 0) s.partial[threadIdx.x / WARP] = x;
    __syncthreads();
    x = s.partial[0];
    for (uint32_t w = 1; w < blockDim.x / WARP; w++) x = combine(x, s.partial[w]);
    return x;
}
DEVICE u64 block_sum(sample_memory &s, u64 x) {
    return block_reduce(s, x, [](u64 a, u64 b) { return a + b; });
}
DEVICE u64 block_max(sample_memory &s, u64 x) {
    return block_reduce(s, x, [](u64 a, u64 b) { return max(a, b); });
}

/* A warp's run of [0, n): so that warps in order, and lanes in order, are ids in order. */
struct segment {
    uint32_t begin, end;
};
DEVICE segment segment_of_warp(uint32_t n) {
    const uint32_t warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
    const uint32_t each = ((n + warps - 1) / warps + WARP - 1) / WARP * WARP;
    return {min(warp * each, n), min((warp + 1) * each, n)};
}

/* ---- values ---- */

/* Floats in rising order as unsigned integers in rising order. */
DEVICE uint32_t order_key(float x) {
    const uint32_t u = __float_as_uint(x + 0.0f);
    return u & 0x80000000 ? ~u : u | 0x80000000;
}
DEVICE float value_of_key(uint32_t key) { return __uint_as_float(key & 0x80000000 ? key & 0x7FFFFFFF : ~key); }

struct weighing {
    float maximum, temperature;
};
DEVICE u64 mass_of(float weight) { return (u64)(weight * MASS_ONE); }
DEVICE u64 mass_at(weighing w, float x) { return mass_of(exp_as_cpu((x - w.maximum) / w.temperature)); }

DEVICE u64 mass_of_all(sample_memory &s, const float *x, uint32_t vocab, weighing w) {
    u64 sum = 0;
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) sum += mass_at(w, x[i]);
    return block_sum(s, sum);
}

/* The largest of the row; each thread's own goes to s.thread_max. */
DEVICE float row_max(sample_memory &s, const float *x, uint32_t vocab) {
    float own = -INFINITY;
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) own = fmaxf(own, x[i]);
    const float maximum = value_of_key((uint32_t)block_max(s, order_key(own)));
    s.thread_max[threadIdx.x] = own;
    __syncthreads();
    return maximum;
}

/* ---- penalties ---- */

DEVICE bool has_penalties(const cuda_sample_row &p) {
    const bool history = p.repetition_penalty != 1 || p.frequency_penalty != 0 || p.presence_penalty != 0;
    return (history && p.history_count) || p.bias_count || p.banned_count;
}

#define SEEN 0x80000000u /* in `uses`, beside the number of times generated */

/* Whoever takes a token's count out changes its logit, so each is changed once. */
DEVICE void penalize_history(const row_work &r) {
    const cuda_sample_row &p = *r.p;
    const uint32_t        *history = r.a->ids + p.history_begin;
    for (uint32_t i = threadIdx.x; i < p.history_count; i += blockDim.x)
        if (history[i] < r.a->vocab) {
            if (i >= p.prompt_count) atomicAdd(&r.uses[history[i]], 1u);
            atomicOr(&r.uses[history[i]], SEEN);
        }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < p.history_count; i += blockDim.x) {
        const uint32_t id = history[i], used = id < r.a->vocab ? atomicExch(&r.uses[id], 0u) : 0;
        if (!used) continue;
        float x = r.changed[id];
        x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
        if (used & ~SEEN) x -= (float)(used & ~SEEN) * p.frequency_penalty + p.presence_penalty;
        r.changed[id] = x;
    }
    __syncthreads();
}

/* The first of equal ids adds for all of them, in their order. */
DEVICE void add_bias(const row_work &r) {
    const uint32_t *ids = r.a->ids + r.p->bias_begin;
    const float    *values = r.a->values + r.p->bias_values_begin;
    for (uint32_t i = threadIdx.x; i < r.p->bias_count; i += blockDim.x) {
        bool is_first = ids[i] < r.a->vocab;
        for (uint32_t j = 0; j < i && is_first; j++) is_first = ids[j] != ids[i];
        for (uint32_t j = i; j < r.p->bias_count && is_first; j++)
            if (ids[j] == ids[i]) r.changed[ids[i]] += values[j];
    }
    __syncthreads();
}

DEVICE void apply_penalties(row_work &r) {
    for (uint32_t i = threadIdx.x; i < r.a->vocab; i += blockDim.x) r.changed[i] = r.logits[i];
    __syncthreads();
    penalize_history(r);
    add_bias(r);
    const uint32_t *banned = r.a->ids + r.p->banned_begin;
    for (uint32_t i = threadIdx.x; i < r.p->banned_count; i += blockDim.x)
        if (banned[i] < r.a->vocab) r.changed[banned[i]] = -INFINITY;
    __syncthreads();
    r.x = r.changed;
}

/* ---- searching ---- */

/* What is kept: keys above `key`, and of those equal to it the first `equal` in order of id. */
struct cut {
    uint32_t key, equal;
};
#define KEEPS_ALL (cut{0, 0xFFFFFFFFu})

DEVICE uint32_t shift_of(int level) { return level == 0 ? 21 : level == 1 ? 10 : 0; }
DEVICE uint32_t mask_of(int level) { return level == 2 ? 1023 : 2047; }

/* The highest bin with which the goal is reached, by the first warp: lane l has bins [64 l, 64 l + 64). */
DEVICE void find_bin(sample_memory &s, uint32_t count, u64 mass) {
    const uint32_t lane = threadIdx.x;
    uint32_t       own_count = 0;
    u64            own_mass = 0;
    for (uint32_t b = lane * BINS_A_LANE; b < (lane + 1) * BINS_A_LANE; b++) own_count += s.count[b], own_mass += s.mass[b];
    uint32_t counts = own_count; /* of this lane's bins and all above */
    u64      masses = own_mass;
    for (uint32_t d = 1; d < WARP; d *= 2) {
        const uint32_t c = __shfl_down_sync(ALL_LANES, counts, d);
        const u64      m = __shfl_down_sync(ALL_LANES, masses, d);
        if (lane + d < WARP) counts += c, masses += m;
    }
    const uint32_t before_count = s.above_count;
    const u64      before_mass = s.above_mass;
    const auto     reached = [&](uint32_t c, u64 m) { return before_count + c >= count || before_mass + m >= mass; };
    const bool     is_here = reached(counts, masses) && !reached(counts - own_count, masses - own_mass);
    __syncwarp();
    if (lane == 0) s.found_bin = 0xFFFFFFFFu;
    __syncwarp();
    if (!is_here) return;
    uint32_t above = counts - own_count, b = (lane + 1) * BINS_A_LANE - 1;
    u64      above_mass = masses - own_mass;
    for (; !reached(above + s.count[b], above_mass + s.mass[b]); b--) above += s.count[b], above_mass += s.mass[b];
    s.found_bin = b, s.above_count = before_count + above, s.above_mass = before_mass + above_mass;
}

/* What is looked through: n values, that ids[i] (or i itself) names; and which of them are there (those a cut left). */
struct list {
    const float    *values;
    const uint32_t *ids; /* NULL: i */
    uint32_t        n;
    bool            is_weighed;
    weighing        by;
    cut             left;
};
DEVICE float value_in(const list &l, uint32_t i) { return l.values[l.ids ? l.ids[i] : i]; }

/* One level: fills its bins with the values whose higher bits are `key`'s, and finds the goal's. Values equal to the key of
 * an earlier cut weigh the same, so which of them it left does not matter: one thread counts them. */
DEVICE bool search_level(sample_memory &s, const list &l, int level, uint32_t key, uint32_t count, u64 mass) {
    for (uint32_t b = threadIdx.x; b < BINS; b += blockDim.x) s.count[b] = 0, s.mass[b] = 0;
    __syncthreads();
    const uint32_t shift = shift_of(level), bits = mask_of(level);
    const uint32_t higher = level == 0 ? 0 : ~0u << shift_of(level - 1);
    const auto     add = [&](uint32_t k, uint32_t n, u64 each) {
        if ((k & higher) != key) return;
        atomicAdd(&s.count[k >> shift & bits], n);
        if (each) atomicAdd(&s.mass[k >> shift & bits], (u64)n * each);
    };
    const bool all_left = l.left.equal == 0xFFFFFFFFu;
    for (uint32_t i = threadIdx.x; i < l.n; i += blockDim.x) {
        const float    x = value_in(l, i);
        const uint32_t k = order_key(x);
        if (all_left || k > l.left.key) add(k, 1, l.is_weighed ? mass_at(l.by, x) : 0);
    }
    if (!all_left && threadIdx.x == 0)
        add(l.left.key, l.left.equal, l.is_weighed ? mass_at(l.by, value_of_key(l.left.key)) : 0);
    __syncthreads();
    if (threadIdx.x < WARP) find_bin(s, count, mass);
    __syncthreads();
    return s.found_bin != 0xFFFFFFFFu;
}

/* The least key such that what is at or above it reaches the goal (a count, or a mass); and how many of those equal to it
 * are needed. All, if that is not enough. In every thread. */
DEVICE cut find_cut(sample_memory &s, const list &l, uint32_t count, u64 mass) {
    uint32_t key = 0;
    __syncthreads();
    if (threadIdx.x == 0) s.above_count = 0, s.above_mass = 0;
    for (int level = 0; level < LEVELS; level++) {
        if (!search_level(s, l, level, key, count, mass)) return l.left;
        key |= s.found_bin << shift_of(level);
    }
    const u64 each = s.mass[s.found_bin] / s.count[s.found_bin], missing = mass > s.above_mass ? mass - s.above_mass : 0;
    uint32_t  equal = count - s.above_count;
    if (each > 0) {
        const u64 needed = missing / each + (missing % each != 0);
        if (needed < equal) equal = (uint32_t)needed;
    }
    return {key, equal < 1 ? 1 : equal};
}

/* A value that the k-th largest of the row is not below; after row_max of it. */
DEVICE float floor_of_largest(sample_memory &s, uint32_t k) {
    if (k > blockDim.x) return -INFINITY;
    const list maxima = {s.thread_max, NULL, blockDim.x, false, {0, 1}, KEEPS_ALL};
    return value_of_key(find_cut(s, maxima, k, ~0ull).key);
}

/* Lists the tokens whose value is at least `least`, in order of id: warps count, then know where to write. */
DEVICE void gather(sample_memory &s, row_work &r, const float *x, float least) {
    const segment  g = segment_of_warp(r.a->vocab);
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint32_t       count = 0, at = 0;
    for (uint32_t i = g.begin; i < g.end; i += WARP)
        count += (uint32_t)__popc(__ballot_sync(ALL_LANES, i + lane < g.end && x[i + lane] >= least));
    __syncthreads();
    if (lane == 0) s.partial[warp] = count;
    __syncthreads();
    r.candidate_count = 0;
    for (uint32_t w = 0; w < blockDim.x / WARP; w++) {
        if (w == warp) at = r.candidate_count;
        r.candidate_count += (uint32_t)s.partial[w];
    }
    for (uint32_t i = g.begin; i < g.end; i += WARP) {
        const bool     is_one = i + lane < g.end && x[i + lane] >= least;
        const uint32_t all = __ballot_sync(ALL_LANES, is_one);
        if (is_one) r.candidates[at + (uint32_t)__popc(all & ((1u << lane) - 1))] = i + lane;
        at += (uint32_t)__popc(all);
    }
    __syncthreads();
}

/* ---- drawing ---- */

/* Mass of value i of a list, where it is kept and not too light; else 0. `equal_before`: of a list in order, how many equal
 * to the cut's key come before it. */
struct chosen {
    list l;
    cut  kept;
    u64  least;
};
DEVICE u64 mass_in(const chosen &c, uint32_t i, uint32_t equal_before) {
    const float    x = value_in(c.l, i);
    const uint32_t k = order_key(x);
    if (k < c.kept.key || (k == c.kept.key && equal_before >= c.kept.equal)) return 0;
    const u64 mass = mass_at(c.l.by, x);
    return mass >= c.least ? mass : 0;
}
DEVICE bool is_at_cut(const chosen &c, uint32_t i) { return order_key(value_in(c.l, i)) == c.kept.key; }

/* fn(i, is there, mass) for the values of this warp's segment, 32 at a time, in order. */
template <class F> DEVICE void each_mass(sample_memory &s, const chosen &c, F fn) {
    const segment  g = segment_of_warp(c.l.n);
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint32_t       equal = 0, before = 0;
    for (uint32_t i = g.begin; i < g.end; i += WARP)
        equal += (uint32_t)__popc(__ballot_sync(ALL_LANES, i + lane < g.end && is_at_cut(c, i + lane)));
    __syncthreads();
    if (lane == 0) s.partial[warp] = equal;
    __syncthreads();
    for (uint32_t w = 0; w < warp; w++) before += (uint32_t)s.partial[w];
    __syncthreads();
    for (uint32_t i = g.begin; i < g.end; i += WARP) {
        const bool     is_there = i + lane < g.end;
        const uint32_t equals = __ballot_sync(ALL_LANES, is_there && is_at_cut(c, i + lane));
        const uint32_t rank = before + (uint32_t)__popc(equals & ((1u << lane) - 1));
        fn(i + lane, is_there ? mass_in(c, i + lane, rank) : 0);
        before += (uint32_t)__popc(equals);
    }
}

DEVICE u64 total_of(sample_memory &s, const chosen &c) {
    u64 sum = 0;
    each_mass(s, c, [&](uint32_t, u64 mass) { sum += mass; });
    return block_sum(s, sum);
}

/* The value in whose piece of the whole mass the uniform number falls: first its warp's segment, then its place there. */
DEVICE uint32_t draw_from(sample_memory &s, const row_work &r, const chosen &c, u64 total) {
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u64            own = 0, before = 0;
    each_mass(s, c, [&](uint32_t, u64 mass) { own += mass; });
    for (int d = WARP / 2; d > 0; d /= 2) own += __shfl_xor_sync(ALL_LANES, own, d);
    __syncthreads();
    if (lane == 0) s.partial[warp] = own;
    __syncthreads();
    for (uint32_t w = 0; w < warp; w++) before += s.partial[w];
    const u64 at = __umul64hi(rng_u64(r.p->seed, 0, r.p->draw), total);
    __syncthreads();
    each_mass(s, c, [&](uint32_t i, u64 mass) {
        u64 until = mass; /* of this lane and those below */
        for (uint32_t d = 1; d < WARP; d *= 2) {
            const u64 m = __shfl_up_sync(ALL_LANES, until, d);
            if (lane >= d) until += m;
        }
        if (mass && at >= before + until - mass && at < before + until) s.token = c.l.ids ? c.l.ids[i] : i;
        before += __shfl_sync(ALL_LANES, until, WARP - 1);
    });
    __syncthreads();
    return s.token;
}

DEVICE uint32_t draw(sample_memory &s, row_work &r, float maximum) {
    const cuda_sample_row &p = *r.p;
    const uint32_t         vocab = r.a->vocab;
    const weighing         by = {maximum, p.temperature};
    const bool             few = p.top_k > 0 && p.top_k < vocab, cuts = few || p.top_p < 1 || p.min_p > 0;
    chosen                 c = {{r.x, NULL, vocab, true, by, KEEPS_ALL}, KEEPS_ALL, 1};
    u64                    total = 0;
    if (few) gather(s, r, r.x, floor_of_largest(s, p.top_k));
    else total = mass_of_all(s, r.x, vocab, by);
    if (cuts && !few) {
        double light = p.top_p < 1 ? (1 - (double)p.top_p) * (double)total / (double)MASS_ONE / vocab : 0;
        if ((double)p.min_p > light) light = (double)p.min_p;
        gather(s, r, r.x, maximum + p.temperature * logf((float)light) - 1e-3f * (1 + p.temperature)); /* too many is fine */
    }
    if (cuts) c.l.ids = r.candidates, c.l.n = r.candidate_count;
    if (few) c.kept = find_cut(s, c.l, p.top_k, ~0ull);
    if (few && p.top_p < 1) total = total_of(s, c);
    if (p.top_p < 1) {
        const double goal = ceil((double)p.top_p * (double)total);
        c.l.left = c.kept;
        c.kept = find_cut(s, c.l, 0xFFFFFFFFu, goal < 1 ? 1 : (u64)goal);
    }
    if (p.min_p > 0) c.least = mass_of(p.min_p);
    if (c.least < 1) c.least = 1;
    if (cuts) total = total_of(s, c);
    return draw_from(s, r, c, total);
}

DEVICE uint32_t first_equal(sample_memory &s, const row_work &r, float maximum) {
    uint32_t first = 0xFFFFFFFFu;
    for (uint32_t i = threadIdx.x; i < r.a->vocab && first == 0xFFFFFFFFu; i += blockDim.x)
        if (r.x[i] == maximum) first = i;
    return (uint32_t)block_reduce(s, first, [](u64 a, u64 b) { return min(a, b); });
}

/* ---- log-probabilities ---- */

/* The best of the raw row, one after another: the largest key, of equals the lowest id, among those after the last one. */
DEVICE void fill_best(sample_memory &s, row_work &r, uint32_t wanted, cuda_sample_result *out) {
    u64      last = ~0ull;
    uint32_t n = 0;
    gather(s, r, r.logits, floor_of_largest(s, wanted));
    for (; n < wanted; n++) {
        u64 best = 0;
        for (uint32_t i = threadIdx.x; i < r.candidate_count; i += blockDim.x) {
            const uint32_t id = r.candidates[i];
            const u64      rank = (u64)order_key(r.logits[id]) << 32 | (0xFFFFFFFFu - id);
            if (rank < last && rank > best) best = rank;
        }
        last = best = block_max(s, best);
        if (!best) break;
        const uint32_t id = 0xFFFFFFFFu - (uint32_t)best;
        if (threadIdx.x == 0) out->top_ids[n] = id, out->top_logits[n] = r.logits[id];
    }
    if (threadIdx.x == 0) out->top_count = n;
}

/* The threads' maxima of the raw row may have gone to those with penalties. */
DEVICE void fill_logprobs(sample_memory &s, row_work &r, uint32_t token, cuda_sample_result *out) {
    const float maximum = row_max(s, r.logits, r.a->vocab);
    const u64   mass = mass_of_all(s, r.logits, r.a->vocab, {maximum, 1});
    if (threadIdx.x == 0) out->maximum = maximum, out->mass = mass, out->logit = r.logits[token];
    if (r.p->top_logprobs > 0) fill_best(s, r, (uint32_t)r.p->top_logprobs, out);
}

/* ---- a row ---- */

/* NaN and +infinity are signs of a broken forward pass; -infinity is a token nobody may choose. */
DEVICE bool is_corrupt(sample_memory &s, const row_work &r) {
    bool bad = false;
    for (uint32_t i = threadIdx.x; i < r.a->vocab; i += blockDim.x)
        bad = bad || isnan(r.logits[i]) || r.logits[i] == INFINITY;
    return block_max(s, bad) != 0;
}

DEVICE uint32_t rank_of(sample_memory &s, const row_work &r, uint32_t token) {
    u64 larger = 0;
    for (uint32_t i = threadIdx.x; i < r.a->vocab; i += blockDim.x) larger += r.logits[i] > r.logits[token];
    return 1 + (uint32_t)block_sum(s, larger);
}

DEVICE void sample_row(sample_memory &s, row_work &r, cuda_sample_result *out) {
    const bool is_first = threadIdx.x == 0;
    uint32_t   token = r.p->scored, rank = 0;
    if (is_first) out->top_count = 0;
    bool corrupt = is_corrupt(s, r);
    if (!corrupt && r.p->scores) rank = rank_of(s, r, token);
    else if (!corrupt) {
        if (has_penalties(*r.p)) apply_penalties(r);
        const float maximum = row_max(s, r.x, r.a->vocab);
        corrupt = isinf(maximum);
        if (!corrupt) token = r.p->temperature > 0 ? draw(s, r, maximum) : first_equal(s, r, maximum);
    }
    if (!corrupt && (r.p->scores || r.p->top_logprobs >= 0)) fill_logprobs(s, r, token, out);
    if (is_first) out->token = token, out->rank = rank, out->corrupt = corrupt;
}

__global__ void __launch_bounds__(THREADS_MAX, 1) sample_rows(cuda_sample_args a) {
    SHARED(sample_memory, s);
    const size_t values = ((size_t)a.vocab * 4 + 15) / 16 * 16;
    char *const  work = (char *)a.work + blockIdx.x * 3 * values;
    for (uint32_t i = blockIdx.x; i < a.count; i += gridDim.x) {
        const float *logits = (const float *)((const char *)a.logits + i * a.logits_stride);
        row_work     r = {
                &a, &a.rows[i], logits, logits, (float *)work, (uint32_t *)(work + values), (uint32_t *)(work + 2 * values), 0};
        sample_row(s, r, &a.results[i]);
        __syncthreads();
    }
}

size_t cuda_sample_work_bytes(uint32_t vocab) { return 3 * (((size_t)vocab * 4 + 15) / 16 * 16); }

/* Threads by the vocabulary: what is found does not depend on them. More than 512 would leave a thread too few registers. */
cuda_shape cuda_sample_configure(uint32_t count, uint32_t vocab, uint32_t slots) {
    uint32_t threads = 128;
    while (threads < THREADS_MAX && threads * 16 < vocab) threads *= 2;
    return {{min(count, slots), 1, 1}, threads, sizeof(sample_memory)};
}

void cuda_sample(cuda_queue *q, const cuda_sample_args *a) {
    launch(q, "sample", sample_rows, cuda_sample_configure(a->count, a->vocab, a->slots), *a);
}

void cuda_sample_finish(const cuda_sample_result *r, bool with_logprobs, sample_result *out) {
    out->token = r->token, out->rank = r->rank, out->corrupt = r->corrupt != 0, out->top_count = r->top_count;
    if (r->corrupt || !with_logprobs) return;
    const double normalizer = (double)r->maximum + log((double)r->mass / (double)MASS_ONE);
    out->logprob = (float)((double)r->logit - normalizer);
    for (uint32_t i = 0; i < r->top_count; i++) {
        out->top_ids[i] = r->top_ids[i];
        out->top_logprobs[i] = (float)((double)r->top_logits[i] - normalizer);
    }
}
