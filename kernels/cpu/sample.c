/* Sampling on the CPU (contract: kernels/sample.h).
 *
 * Two passes over the vocabulary at most, both wide: the largest logit of each block of 64, and each token's weight with
 * each block's mass. Whatever is cut away is then cut from a short list of candidates: k blocks have a maximum at or above
 * the k-th largest maximum, so that is a floor under the k-th largest token; and tokens lighter than (1 - top_p) /
 * vocabulary of the mass cannot be needed to reach top_p. On the list, cuts are found by a radix search over the order of
 * the floats (11, 11, then 10 bits) whose bins hold counts and mass. */
#include "kernels/sample.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/table.h"

enum { BINS = 2048 };
typedef struct {
    uint32_t count;
    uint64_t mass;
} bin;

/* Scratch of one row; `uses` is all zero between calls. */
typedef struct {
    float    *logits;     /* [vocab], where penalties change them */
    float    *weights;    /* [vocab] */
    uint32_t *uses;       /* [vocab] */
    uint32_t *candidates; /* [vocab], ids in rising order */
    uint32_t *in_bin;     /* [vocab], those among them that a search still looks at */
    float    *block_max;  /* [blocks] */
    uint64_t *block_mass; /* [blocks] */
    bin      *bins;       /* [BINS] */
    /* not scratch: the row at hand */
    const float *x;
    uint32_t     vocab, candidate_count;
} sample_work;

static uint32_t blocks_of(uint32_t vocab) { return (vocab + LOGIT_BLOCK - 1) / LOGIT_BLOCK; }

/* Lays the arrays out from `base`; returns bytes. */
static size_t carve(sample_work *w, char *base, uint32_t vocab) {
    size_t values = ((size_t)vocab * 4 + 63) / 64 * 64, blocks = ((size_t)blocks_of(vocab) * 8 + 63) / 64 * 64, used = 0;
#define CARVE(field, bytes) (w->field = (void *)((uintptr_t)base + used), used += (bytes))
    CARVE(logits, values);
    CARVE(weights, values);
    CARVE(uses, values);
    CARVE(candidates, values);
    CARVE(in_bin, values);
    CARVE(block_max, blocks);
    CARVE(block_mass, blocks);
    CARVE(bins, BINS * sizeof(bin));
#undef CARVE
    return used;
}

size_t cpu_sample_work_bytes(uint32_t vocab) {
    sample_work unused;
    return carve(&unused, NULL, vocab);
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

/* ---- searching ---- */

/* Floats in rising order as unsigned integers in rising order. */
static uint32_t order_key(float x) {
    uint32_t u;
    x += 0.0f; /* -0 is 0 */
    memcpy(&u, &x, 4);
    return u & 0x80000000 ? ~u : u | 0x80000000;
}
static uint64_t mass_of(float weight) { return (uint64_t)(weight * MASS_ONE); }

/* What is kept: keys above `key`, and of those equal to it the first `equal` in order of id. */
typedef struct {
    uint32_t key, equal;
} cut;

static inline bool is_kept(uint32_t key, cut kept, uint32_t *equal_left) {
    if (key != kept.key) return key > kept.key;
    if (*equal_left == 0) return false;
    (*equal_left)--;
    return true;
}

/* The values ids[0 .. n) point at, what each weighs (NULL: nothing), and how many or how much is wanted of the largest. */
typedef struct {
    const float    *values, *weights;
    const uint32_t *ids;
    uint32_t        n, count;
    uint64_t        mass;
} search;

enum { LEVELS = 3 };
static const struct { uint32_t shift, bins; } levels[LEVELS] = {{21, 2048}, {10, 2048}, {0, 1024}};

static uint32_t bin_of(const search *s, uint32_t i, int level) {
    return order_key(s->values[s->ids[i]]) >> levels[level].shift & (levels[level].bins - 1);
}

/* Fills the bins of a level and walks down to the one in which the goal is reached, adding up what is above it.
 * UINT32_MAX: not reached. */
static uint32_t find_bin(const sample_work *w, const search *s, int level, bin *above) {
    memset(w->bins, 0, levels[level].bins * sizeof *w->bins);
    for (uint32_t i = 0; i < s->n; i++) {
        bin *to = &w->bins[bin_of(s, i, level)];
        to->count++, to->mass += s->weights ? mass_of(s->weights[s->ids[i]]) : 0;
    }
    uint32_t b = levels[level].bins;
    while (b-- > 0) {
        const bin *here = &w->bins[b];
        if (here->count && (above->count + here->count >= s->count || above->mass + here->mass >= s->mass)) break;
        above->count += here->count, above->mass += here->mass;
    }
    return b;
}

/* The least key such that what is at or above it reaches the goal; and how many of those equal to it are needed.
 * Everything, if that is not enough. */
static cut find_cut(const sample_work *w, search s) {
    uint32_t key = 0, b = 0;
    bin      above = {0, 0};
    for (int level = 0; level < LEVELS; level++) {
        if ((b = find_bin(w, &s, level, &above)) == UINT32_MAX) return (cut){0, UINT32_MAX};
        key |= b << levels[level].shift;
        uint32_t n = 0;
        for (uint32_t i = 0; i < s.n; i++)
            if (bin_of(&s, i, level) == b) w->in_bin[n++] = s.ids[i];
        s.ids = w->in_bin, s.n = n;
    }
    /* what is left is equal, and weighs the same */
    uint64_t each = w->bins[b].mass / w->bins[b].count, missing = s.mass > above.mass ? s.mass - above.mass : 0;
    uint32_t equal = s.count - above.count;
    if (each > 0) {
        uint64_t needed = missing / each + (missing % each != 0);
        if (needed < equal) equal = (uint32_t)needed;
    }
    return (cut){key, equal < 1 ? 1 : equal};
}

/* Of the candidates, keeps the `count` largest, or as many as make `mass`. */
static void keep_largest(sample_work *w, uint32_t count, uint64_t mass) {
    cut      kept = find_cut(w, (search){w->x, w->weights, w->candidates, w->candidate_count, count, mass});
    uint32_t n = 0, equal_left = kept.equal;
    for (uint32_t i = 0; i < w->candidate_count; i++)
        if (is_kept(order_key(w->x[w->candidates[i]]), kept, &equal_left)) w->candidates[n++] = w->candidates[i];
    w->candidate_count = n;
}

/* A logit that the k-th largest is not below. */
static float floor_of_largest(const sample_work *w, uint32_t k) {
    uint32_t blocks = blocks_of(w->vocab);
    if (k > blocks) return -INFINITY;
    for (uint32_t i = 0; i < blocks; i++) w->candidates[i] = i;
    cut c = find_cut(w, (search){.values = w->block_max, .ids = w->candidates, .n = blocks, .count = k, .mass = UINT64_MAX});
    uint32_t u = c.key & 0x80000000 ? c.key & 0x7FFFFFFF : ~c.key;
    float    floor;
    memcpy(&floor, &u, 4);
    return floor;
}

/* Candidates are the tokens whose logit in x is at least `least`; block_max is x's. */
static void gather(sample_work *w, const float *x, float least) {
    uint32_t n = 0;
    for (uint32_t block = 0; block < blocks_of(w->vocab); block++) {
        if (!(w->block_max[block] >= least)) continue;
        uint32_t end = (block + 1) * LOGIT_BLOCK < w->vocab ? (block + 1) * LOGIT_BLOCK : w->vocab;
        for (uint32_t i = block * LOGIT_BLOCK; i < end; i++) {
            w->candidates[n] = i;
            n += x[i] >= least;
        }
    }
    w->candidate_count = n;
}

static uint64_t weigh(const cpu *c, sample_work *w, const float *x, float maximum, float temperature) {
    return c->kernels->row_weights(&(weight_args){x, w->vocab, maximum, temperature, w->weights, w->block_mass});
}

/* ---- log-probabilities ---- */

static void keep_best(const sample_work *w, const float *x, uint32_t wanted, sample_result *out) {
    out->top_count = 0;
    for (uint32_t c = 0; c < w->candidate_count && wanted; c++) {
        uint32_t i = w->candidates[c], at = out->top_count;
        if (at == wanted && !(x[i] > out->top_logprobs[at - 1])) continue;
        if (at == wanted) at--;
        else out->top_count++;
        for (; at > 0 && x[i] > out->top_logprobs[at - 1]; at--)
            out->top_ids[at] = out->top_ids[at - 1], out->top_logprobs[at] = out->top_logprobs[at - 1];
        out->top_ids[at] = i, out->top_logprobs[at] = x[i];
    }
}

/* Of the raw logits: they are scanned again where penalties came between. */
static void fill_logprobs(const cpu *c, const sample_args *a, sample_work *w, sample_result *out) {
    bool   all_finite;
    float  maximum = c->kernels->row_max(a->logits, a->vocab, w->block_max, &all_finite);
    double sum = (double)weigh(c, w, a->logits, maximum, 1) / (double)MASS_ONE;
    double normalizer = (double)maximum + log(sum);
    if (a->top_logprobs > 0) gather(w, a->logits, floor_of_largest(w, (uint32_t)a->top_logprobs));
    keep_best(w, a->logits, (uint32_t)a->top_logprobs, out);
    for (uint32_t i = 0; i < out->top_count; i++) out->top_logprobs[i] = (float)((double)out->top_logprobs[i] - normalizer);
    out->logprob = (float)((double)a->logits[out->token] - normalizer);
}

/* ---- drawing ---- */

static uint64_t uniform_below(const sample_args *a, uint64_t n) {
    return (uint64_t)(((unsigned __int128)rng_u64(a->seed, 0, a->draw) * n) >> 64);
}

/* Nothing is cut away: block by block, then token by token. */
static uint32_t draw_from_all(const sample_args *a, const sample_work *w, uint64_t total) {
    uint64_t at = uniform_below(a, total);
    uint32_t block = 0, i;
    while (at >= w->block_mass[block]) at -= w->block_mass[block++];
    for (i = block * LOGIT_BLOCK; at >= mass_of(w->weights[i]); i++) at -= mass_of(w->weights[i]);
    return i;
}

static uint64_t candidate_mass(const sample_work *w, uint64_t least) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->candidate_count; i++) {
        uint64_t mass = mass_of(w->weights[w->candidates[i]]);
        if (mass >= least) total += mass;
    }
    return total;
}

static uint32_t draw_from_candidates(const sample_args *a, const sample_work *w) {
    uint64_t least = a->min_p > 0 ? mass_of(a->min_p) : 1;
    if (least < 1) least = 1;
    uint64_t at = uniform_below(a, candidate_mass(w, least));
    for (uint32_t i = 0; i < w->candidate_count; i++) {
        uint64_t mass = mass_of(w->weights[w->candidates[i]]);
        if (mass < least) continue;
        if (at < mass) return w->candidates[i];
        at -= mass;
    }
    return UINT32_MAX; /* not reached: the most likely token is always a candidate */
}

static uint32_t draw(const cpu *c, const sample_args *a, float maximum, sample_work *w) {
    bool     few = a->top_k > 0 && a->top_k < a->vocab;
    uint64_t total = weigh(c, w, w->x, maximum, a->temperature);
    if (!few && !(a->top_p < 1) && !(a->min_p > 0)) return draw_from_all(a, w, total);
    if (few) {
        gather(w, w->x, floor_of_largest(w, a->top_k));
        keep_largest(w, a->top_k, UINT64_MAX);
        total = candidate_mass(w, 0);
    } else {
        double light = a->top_p < 1 ? (1 - (double)a->top_p) * (double)total / (double)MASS_ONE / a->vocab : 0;
        if ((double)a->min_p > light) light = (double)a->min_p;
        gather(w, w->x,
               maximum + a->temperature * (float)log(light) - 1e-3f * (1 + a->temperature)); /* some too many is fine */
    }
    if (a->top_p < 1) {
        double goal = ceil((double)a->top_p * (double)total);
        keep_largest(w, UINT32_MAX, goal < 1 ? 1 : (uint64_t)goal);
    }
    return draw_from_candidates(a, w);
}

static uint32_t first_largest(const sample_work *w, float maximum) {
    uint32_t block = 0, i;
    while (w->block_max[block] != maximum) block++;
    for (i = block * LOGIT_BLOCK; w->x[i] != maximum; i++) {
    }
    return i;
}

/* NaN and +infinity are signs of a broken forward pass; -infinity is a token nobody may choose. */
static bool is_corrupt(const float *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (isnan(x[i]) || x[i] == INFINITY) return true;
    return false;
}

static void sample_row(const cpu *c, const sample_args *a, void *scratch, sample_result *out) {
    sample_work w = {.x = a->logits, .vocab = a->vocab};
    bool        all_finite;
    carve(&w, scratch, a->vocab);
    float maximum = c->kernels->row_max(w.x, a->vocab, w.block_max, &all_finite);
    out->corrupt = !all_finite && is_corrupt(w.x, a->vocab);
    if (out->corrupt) return;
    if (a->scores) {
        out->token = a->scored;
        out->rank = 1;
        for (uint32_t i = 0; i < a->vocab; i++) out->rank += a->logits[i] > a->logits[a->scored];
        return fill_logprobs(c, a, &w, out);
    }
    if (has_penalties(a)) {
        apply_penalties(a, &w);
        w.x = w.logits;
        maximum = c->kernels->row_max(w.x, a->vocab, w.block_max, &all_finite);
    }
    out->corrupt = !isfinite(maximum);
    if (out->corrupt) return;
    out->token = a->temperature > 0 ? draw(c, a, maximum, &w) : first_largest(&w, maximum);
    if (a->top_logprobs >= 0) fill_logprobs(c, a, &w, out);
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
