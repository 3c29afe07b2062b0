/* Sampling on the CPU (contract: kernels/sample.h). Passes over the vocabulary: the maximum, the weights, and where a cut is
 * asked for a radix search over the order of the floats (11, 11, then 10 bits), whose histogram holds counts and mass. */
#include "kernels/sample.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/table.h"

typedef struct {
    uint32_t count;
    uint64_t mass;
} bin;

/* Scratch of one row; `uses` is all zero between calls. */
typedef struct {
    float    *logits;  /* [vocab] after penalties; raw ones where there are none */
    float    *weights; /* [vocab] */
    uint32_t *uses;    /* [vocab] */
    bin      *bins;    /* [2048] */
} sample_work;

enum { BINS = 2048 };

size_t cpu_sample_work_bytes(uint32_t vocab) { return ((size_t)vocab + 16) / 16 * 64 * 3 + BINS * sizeof(bin); }

static sample_work work_at(void *base, uint32_t vocab) {
    size_t values = ((size_t)vocab + 16) / 16 * 64;
    char  *p = base;
    return (sample_work){(float *)(void *)p, (float *)(void *)(p + values), (uint32_t *)(void *)(p + 2 * values),
                         (bin *)(void *)(p + 3 * values)};
}

/* ---- log-probabilities ---- */

static void keep_best(const float *x, uint32_t n, uint32_t wanted, sample_result *out) {
    out->top_count = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = out->top_count;
        if (at == wanted && (wanted == 0 || !(x[i] > out->top_logprobs[at - 1]))) continue;
        if (at == wanted) at--;
        else out->top_count++;
        for (; at > 0 && x[i] > out->top_logprobs[at - 1]; at--)
            out->top_ids[at] = out->top_ids[at - 1], out->top_logprobs[at] = out->top_logprobs[at - 1];
        out->top_ids[at] = i, out->top_logprobs[at] = x[i];
    }
}

/* log of the sum of exp(x - maximum), summed in blocks so that a large vocabulary loses nothing. */
static double log_sum(const cpu *c, const float *x, uint32_t n, float maximum, float *work) {
    double sum = 0;
    c->kernels->exp_weights(x, n, maximum, 1, work);
    for (uint32_t i = 0; i < n; i += 64) {
        float block = 0;
        for (uint32_t j = i; j < n && j < i + 64; j++) block += work[j];
        sum += (double)block;
    }
    return log(sum);
}

static void fill_logprobs(const cpu *c, const sample_args *a, float maximum, sample_work *w, sample_result *out) {
    double normalizer = (double)maximum + log_sum(c, a->logits, a->vocab, maximum, w->weights);
    keep_best(a->logits, a->vocab, (uint32_t)a->top_logprobs, out);
    for (uint32_t i = 0; i < out->top_count; i++) out->top_logprobs[i] = (float)((double)out->top_logprobs[i] - normalizer);
    out->logprob = (float)((double)a->logits[out->token] - normalizer);
}

/* ---- penalties ---- */

static bool has_penalties(const sample_args *a) {
    bool history = a->repetition_penalty != 1 || a->frequency_penalty != 0 || a->presence_penalty != 0;
    return (history && a->history_count) || a->bias_count || a->banned_count;
}

enum { SEEN = 1u << 31 }; /* in `uses`, beside the number of times generated */

static void penalize_history(const sample_args *a, sample_work *w) {
    for (uint32_t i = 0; i < a->history_count; i++)
        if (a->history[i] < a->vocab) w->uses[a->history[i]] = (w->uses[a->history[i]] + (i >= a->prompt_count)) | SEEN;
    for (uint32_t i = 0; i < a->history_count; i++) {
        uint32_t id = a->history[i], generated;
        if (id >= a->vocab || !w->uses[id]) continue; /* done already */
        generated = w->uses[id] & ~SEEN;
        w->uses[id] = 0;
        float *x = &w->logits[id];
        *x = *x > 0 ? *x / a->repetition_penalty : *x * a->repetition_penalty;
        if (generated) *x -= (float)generated * a->frequency_penalty + a->presence_penalty;
    }
}

static void apply_penalties(const sample_args *a, sample_work *w) {
    memcpy(w->logits, a->logits, a->vocab * sizeof *w->logits);
    penalize_history(a, w);
    for (uint32_t i = 0; i < a->bias_count; i++)
        if (a->bias_ids[i] < a->vocab) w->logits[a->bias_ids[i]] += a->bias_values[i];
    for (uint32_t i = 0; i < a->banned_count; i++)
        if (a->banned[i] < a->vocab) w->logits[a->banned[i]] = -INFINITY;
}

/* ---- cuts ---- */

/* Floats in rising order as unsigned integers in rising order. */
static uint32_t order_key(float x) {
    uint32_t u;
    x += 0.0f; /* -0 is 0 */
    memcpy(&u, &x, 4);
    return u & 0x80000000 ? ~u : u | 0x80000000;
}
static uint64_t mass_of(float weight) { return (uint64_t)(weight * 0x1p40f); }

/* What is kept: keys above `key`, and of those equal to it the first `equal` in order of id. */
typedef struct {
    uint32_t key, equal;
} cut;
static const cut KEEP_ALL = {0, UINT32_MAX};

/* Walks the kept tokens in order of id. */
#define FOR_KEPT(i, x, n, kept)                                                                                             \
    for (uint32_t i = 0, equal_left_ = (kept).equal; i < (n); i++)                                                          \
        if (is_kept(order_key((x)[i]), (kept), &equal_left_))

static inline bool is_kept(uint32_t key, cut kept, uint32_t *equal_left) {
    if (key != kept.key) return key > kept.key;
    if (*equal_left == 0) return false;
    (*equal_left)--;
    return true;
}

/* The smallest set of the largest among the kept, at least one, that has `count` members or `mass`. */
static cut find_cut(const float *x, uint32_t n, cut kept, uint32_t count, uint64_t mass, sample_work *w) {
    static const struct { uint32_t shift, bits; } level[] = {{21, 11}, {10, 11}, {0, 10}};
    uint32_t prefix = 0, prefix_mask = 0;
    bin      at = {0, 0};
    for (int l = 0; l < 3; l++) {
        uint32_t bins = 1u << level[l].bits, b = bins;
        memset(w->bins, 0, bins * sizeof *w->bins);
        FOR_KEPT(i, x, n, kept) {
            uint32_t key = order_key(x[i]);
            if ((key & prefix_mask) != prefix) continue;
            bin *to = &w->bins[key >> level[l].shift & (bins - 1)];
            to->count++, to->mass += mass_of(w->weights[i]);
        }
        while (b-- > 0) { /* down to the bin in which the goal is reached */
            if (w->bins[b].count && (at.count + w->bins[b].count >= count || at.mass + w->bins[b].mass >= mass)) break;
            at.count += w->bins[b].count, at.mass += w->bins[b].mass;
        }
        if (b == UINT32_MAX) return kept; /* never reached: all stay */
        prefix |= b << level[l].shift, prefix_mask |= (bins - 1) << level[l].shift;
        if (l < 2) continue;
        uint64_t each = w->bins[b].mass / w->bins[b].count; /* equal logits have equal weights */
        uint32_t equal = count - at.count;
        if (each > 0 && mass > at.mass && (mass - at.mass + each - 1) / each < equal)
            equal = (uint32_t)((mass - at.mass + each - 1) / each);
        return (cut){prefix, equal < 1 ? 1 : equal};
    }
    return kept;
}

static uint64_t mass_kept(const float *x, uint32_t n, cut kept, const sample_work *w) {
    uint64_t mass = 0;
    FOR_KEPT(i, x, n, kept) mass += mass_of(w->weights[i]);
    return mass;
}

static uint32_t draw(const sample_args *a, const float *x, sample_work *w) {
    cut      kept = KEEP_ALL;
    uint32_t n = a->vocab, last = UINT32_MAX;
    if (a->top_k > 0 && a->top_k < n) kept = find_cut(x, n, kept, a->top_k, UINT64_MAX, w);
    if (a->top_p < 1) {
        double goal = (double)a->top_p * (double)mass_kept(x, n, kept, w);
        kept = find_cut(x, n, kept, UINT32_MAX, goal < 1 ? 1 : (uint64_t)ceil(goal), w);
    }
    uint64_t least = a->min_p > 0 ? mass_of(a->min_p) : 1, total = 0;
    if (least < 1) least = 1;
    FOR_KEPT(i, x, n, kept) {
        uint64_t mass = mass_of(w->weights[i]);
        if (mass >= least) total += mass;
    }
    uint64_t at = (uint64_t)(((unsigned __int128)rng_u64(a->seed, 0, a->draw) * total) >> 64);
    FOR_KEPT(i, x, n, kept) {
        uint64_t mass = mass_of(w->weights[i]);
        if (mass < least) continue;
        last = i;
        if (at < mass) return i;
        at -= mass;
    }
    return last;
}

static uint32_t first_equal(const float *x, uint32_t n, float value) {
    uint32_t i = 0;
    while (i < n && x[i] != value) i++;
    return i;
}

/* NaN and +infinity are signs of a broken forward pass; -infinity is a token nobody may choose. */
static bool is_corrupt(const float *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (isnan(x[i]) || x[i] == INFINITY) return true;
    return false;
}

static void sample_row(const cpu *c, const sample_args *a, void *scratch, sample_result *out) {
    sample_work  w = work_at(scratch, a->vocab);
    bool         all_finite;
    float        raw_max = c->kernels->row_max(a->logits, a->vocab, &all_finite), maximum = raw_max;
    const float *x = a->logits;
    out->corrupt = !all_finite && is_corrupt(x, a->vocab);
    if (out->corrupt) return;
    if (has_penalties(a)) {
        apply_penalties(a, &w);
        x = w.logits;
        maximum = c->kernels->row_max(x, a->vocab, &all_finite);
    }
    out->corrupt = !isfinite(maximum);
    if (out->corrupt) return;
    if (a->temperature > 0) {
        c->kernels->exp_weights(x, a->vocab, maximum, a->temperature, w.weights);
        out->token = draw(a, x, &w);
    } else {
        out->token = first_equal(x, a->vocab, maximum);
    }
    out->corrupt = out->token >= a->vocab;
    if (!out->corrupt && a->top_logprobs >= 0) fill_logprobs(c, a, raw_max, &w, out);
}

typedef struct {
    cpu               *c;
    const sample_args *list;
    sample_result     *out;
    char              *work;
} sample_job;

static void run_sample(void *context, uint32_t task, uint32_t worker) {
    const sample_job *j = context;
    sample_row(j->c, &j->list[task], j->work + worker * cpu_sample_work_bytes(j->list[task].vocab), &j->out[task]);
}

void cpu_sample(cpu *c, const sample_args *list, uint32_t count, void *work, sample_result *out) {
    pool_run(c->pool, count, run_sample, &(sample_job){c, list, out, work});
}
