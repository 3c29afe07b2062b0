/* kernels/cpu/attention_body.h: attention over pages, and the operator that fills them (contracts: kernels/attention.h).
 *
 * The (query, head) rows of one kv head are dealt evenly to tiles of up to TILE_ROWS, and all tiles walk the blocks of 64
 * positions together, so that keys and values are read once: scores through the tile of tile_body.h with K units as its
 * weights, one online-softmax step, weighted values through the same tile with V units. A position a row may not see gets
 * probability exactly zero, and a block it sees nothing of leaves its maximum, sum and accumulators as they were, bit for
 * bit: so rows of different length share a tile without feeling each other. */
#pragma once

static const float NO_MAXIMUM = -1e30f; /* finite: a difference of two of these is 0, not NaN */
enum { ATTENTION_TILES = (ATTENTION_ROWS + TILE_ROWS - 1) / TILE_ROWS, FETCH_ROWS = 16 };

typedef struct {
    uint32_t    rows;
    uint32_t    first, last; /* positions any row sees, from the beginning of a block */
    const char *q[TILE_ROWS];
    char       *to[TILE_ROWS];
    uint32_t    begin[TILE_ROWS], end[TILE_ROWS]; /* positions each row sees */
    float       maximum[TILE_ROWS], sum[TILE_ROWS];
    _Alignas(64) float out[TILE_ROWS][HEAD_DIM_MAX];
} attention_tile;

typedef struct {
    float          scale;
    uint32_t       tile_count, first, last; /* of all tiles */
    attention_tile tiles[ATTENTION_TILES];
    /* of the tile and block at hand */
    _Alignas(64) float score[TILE_ROWS][KV_BLOCK];
    _Alignas(64) char weight[TILE_ROWS][KV_BLOCK * 4]; /* probabilities in the layout's type */
    _Alignas(64) uint16_t last_pair[HEAD_DIM_MAX][2];
} attention_work;
_Static_assert(sizeof(attention_work) <= CPU_SCRATCH_BYTES, "scratch");

typedef struct {
    const char *k[KV_BLOCK / KV_UNIT], *v[KV_BLOCK / KV_UNIT];
    uint32_t    position, count; /* first of the block; how many, up to the last that a row of the tile sees */
} attention_block;

INLINE const char *unit_at(const attention_args *a, const attention_part *part, uint32_t kv_head, uint32_t position) {
    const kv_layout *l = a->layout;
    uint32_t         page = part->run->pages[position / l->page_tokens];
    return a->pages + page * l->page_stride + a->layer * l->layer_stride + kv_head * l->head_stride +
           position % l->page_tokens / KV_UNIT * l->unit_bytes;
}

INLINE attention_block block_at(const attention_args *a, const attention_part *part, uint32_t kv_head, uint32_t position,
                                uint32_t end) {
    attention_block b = {.position = position, .count = min_u32(KV_BLOCK, end - position)};
    for (uint32_t u = 0; u < KV_BLOCK / KV_UNIT; u++) { /* past the end: masked, so any unit will do */
        b.k[u] = unit_at(a, part, kv_head, position + min_u32(KV_UNIT * u, b.count - 1));
        b.v[u] = b.k[u] + a->layout->v_offset;
    }
    return b;
}

/* fetch: what the next block's keys will be. */
INLINE void block_scores(dtype type, const attention_args *a, attention_work *w, const attention_tile *t,
                         const attention_block *b, const int fetches, const char *fetch) {
    const kv_layout *l = a->layout;
    tile_args k = {.w_step = KV_UNIT * 4, .steps = type == DTYPE_BF16 ? l->head_dim / 2 : l->head_dim, .c_stride = KV_BLOCK};
    for (uint32_t r = 0; r < t->rows; r++) k.x[r] = t->q[r];
    for (uint32_t u = 0; u < KV_BLOCK / KV_UNIT; u += TILE_VECS) {
        for (uint32_t i = 0; i < TILE_VECS; i++) k.w[i] = b->k[u + i];
        k.c = &w->score[0][16 * u];
        k.prefetch = fetch + u * l->unit_bytes;
        tile_rows(type, t->rows, TILE_VECS, fetches ? TILE_VECS : 0, &k);
    }
}

/* What row r has gathered so far, in units of the new maximum. Where that has not moved there is nothing to do: a factor of
 * one changes no bit. */
INLINE void rescale(const attention_args *a, attention_tile *t, uint32_t r, float maximum) {
    if (!(maximum > t->maximum[r])) return;
    vf alpha = vf_exp2(vf_set1(t->maximum[r] - maximum));
    t->maximum[r] = maximum;
    vf_store_n(&t->sum[r], vf_mul(vf_set1(t->sum[r]), alpha), 1);
    for (uint32_t d = 0; d < a->layout->dim_padded; d += 16) vf_store(&t->out[r][d], vf_mul(vf_load(&t->out[r][d]), alpha));
}

/* The block's scores become weights: powers of two, the scores being scaled by log2(e) / sqrt(head_dim). */
INLINE void block_softmax(dtype type, const attention_args *a, attention_work *w, attention_tile *t,
                          const attention_block *b, uint32_t r) {
    const int32_t begin = (int32_t)left_of(t->begin[r], b->position), end = (int32_t)left_of(t->end[r], b->position);
    const bool    whole = begin == 0 && end >= KV_BLOCK;
    vf            scale = vf_set1(w->scale), top = vf_set1(NO_MAXIMUM), sum = vf_zero(), s[KV_BLOCK / 16];
    for (int i = 0; i < KV_BLOCK / 16; i++) {
        s[i] = vf_mul(vf_load(&w->score[r][16 * i]), scale);
        if (!whole) s[i] = vf_keep_range(s[i], begin - 16 * i, end - 16 * i, -INFINITY);
        top = vf_max(top, s[i]);
    }
    rescale(a, t, r, vf_reduce_max(top));
    vf maximum = vf_set1(t->maximum[r]);
    for (int i = 0; i < KV_BLOCK / 16; i++) {
        vf p = vf_exp2(vf_sub(s[i], maximum));
        sum = vf_add(sum, p);
        act_store_n(w->weight[r] + 16 * i * (type == DTYPE_BF16 ? 2 : 4), type, p, 16);
    }
    t->sum[r] += vf_reduce_add(sum);
}

/* What lies at or past the end of the block may be anything, infinities included, and zero times infinity is NaN: so those
 * positions are not touched, and where the last pair is only half in the block, a copy with the other half cleared is read.
 * Units that lie side by side (of one page) are walked in one go. */
INLINE void block_values(dtype type, const attention_args *a, attention_work *w, attention_tile *t, const attention_block *b,
                         uint32_t d, const int vecs, const int fetches, const char *fetch) {
    const uint32_t pair = type == DTYPE_BF16 ? 2 : 1, unit_steps = KV_UNIT / pair, steps = b->count / pair;
    tile_args      v = {.w_step = a->layout->dim_padded * 4, .c = &t->out[0][d], .c_stride = HEAD_DIM_MAX, .resume = true};
    v.prefetch = fetch + d * (KV_BLOCK / pair) * 4;
    for (uint32_t s = 0; s * pair < b->count; s += v.steps, v.prefetch += v.steps * 64 * (size_t)vecs) {
        uint32_t    u = s / unit_steps;
        const char *values = b->v[u];
        if (s == steps) {
            v.steps = 1, values = (const char *)w->last_pair;
        } else {
            for (v.steps = unit_steps; s + v.steps < steps && b->v[u + v.steps / unit_steps] == values + v.steps * v.w_step;)
                v.steps += unit_steps;
            v.steps = min_u32(v.steps, steps - s);
        }
        for (uint32_t r = 0; r < t->rows; r++) v.x[r] = w->weight[r] + s * 4;
        for (int i = 0; i < vecs; i++) v.w[i] = values + 4 * (d + 16 * (uint32_t)i);
        tile_rows(type, t->rows, vecs, fetches ? vecs : 0, &v);
    }
}

INLINE void copy_last_pair(const attention_args *a, attention_work *w, const attention_block *b) {
    uint32_t    position = b->count - 1, dim = a->layout->dim_padded;
    const char *from = b->v[position / KV_UNIT] + (size_t)(position % KV_UNIT / 2) * dim * 4;
    memcpy(w->last_pair, from, (size_t)dim * 4);
    for (uint32_t d = 0; d < dim; d++) w->last_pair[d][1] = 0;
}

INLINE void run_block(dtype type, const attention_args *a, attention_work *w, attention_tile *t, const attention_block *b,
                      const int fetches, const char *fetch) {
    const uint32_t dim = a->layout->dim_padded;
    uint32_t       d = 0;
    block_scores(type, a, w, t, b, fetches, fetch);
    for (uint32_t r = 0; r < t->rows; r++) block_softmax(type, a, w, t, b, r);
    if (type == DTYPE_BF16 && b->count % 2) copy_last_pair(a, w, b);
    fetch += a->layout->v_offset;
    for (; d + 16 * TILE_VECS <= dim; d += 16 * TILE_VECS) block_values(type, a, w, t, b, d, TILE_VECS, fetches, fetch);
    for (; d < dim; d += 16) block_values(type, a, w, t, b, d, 1, fetches, fetch);
}

INLINE void tile_finish(dtype type, attention_tile *t, uint32_t head_dim) {
    for (uint32_t r = 0; r < t->rows; r++) {
        vf over = vf_div(vf_set1(1), vf_set1(t->sum[r]));
        for (uint32_t d = 0; d < head_dim; d += 16)
            act_store_n(t->to[r] + d * (type == DTYPE_BF16 ? 2 : 4), type, vf_mul(vf_load(&t->out[r][d]), over),
                        head_dim - d);
    }
}

INLINE void tile_begin(dtype type, const attention_args *a, const attention_part *part, uint32_t kv_head, uint32_t row,
                       uint32_t rows, attention_tile *t) {
    uint32_t group = a->heads / a->layout->kv_heads;
    t->rows = rows, t->first = UINT32_MAX, t->last = 0;
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t token = (row + r) / group, head = kv_head * group + (row + r) % group;
        size_t   at = (size_t)head * a->layout->head_dim * (type == DTYPE_BF16 ? 2 : 4);
        t->q[r] = row_of(&a->q, part->run->row_begin + token) + at;
        t->to[r] = row_of(&a->out, part->run->row_begin + token) + at;
        t->end[r] = part->run->position_begin + token + 1;
        t->begin[r] = a->window ? left_of(t->end[r], a->window) : 0;
        t->maximum[r] = NO_MAXIMUM, t->sum[r] = 0;
        t->first = min_u32(t->first, t->begin[r]), t->last = max_u32(t->last, t->end[r]);
        for (uint32_t d = 0; d < a->layout->dim_padded; d += 16) vf_store(&t->out[r][d], vf_zero());
    }
    t->first = t->first / KV_BLOCK * KV_BLOCK;
}

INLINE void work_begin(dtype type, const attention_args *a, const attention_part *part, uint32_t kv_head,
                       attention_work *w) {
    uint32_t rows = part->end - part->begin, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    w->scale = 1.44269504f / sqrtf((float)a->layout->head_dim);
    w->tile_count = tiles, w->first = UINT32_MAX, w->last = 0;
    for (uint32_t i = 0; i < tiles; i++) {
        uint32_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
        tile_begin(type, a, part, kv_head, part->begin + begin, end - begin, &w->tiles[i]);
        w->first = min_u32(w->first, w->tiles[i].first), w->last = max_u32(w->last, w->tiles[i].last);
    }
}

/* The block walked next, or the next head's first: fetched while this one is worked on where it is whole, else at once, so
 * that nothing past its end is read. Returns what to fetch meanwhile; `here` where that is nothing new. */
INLINE const char *next_block(const attention_args *a, const attention_part *part, uint32_t kv_head, uint32_t position,
                              const attention_work *w, const char *here) {
    if (position >= w->last) kv_head++, position = w->first;
    if (kv_head >= part->kv_head_end) return here;
    const char *next = unit_at(a, part, kv_head, position);
    uint32_t    units = (min_u32(KV_BLOCK, w->last - position) + KV_UNIT - 1) / KV_UNIT;
    if (units == KV_BLOCK / KV_UNIT) return next;
    for (size_t i = 0; i < units * a->layout->unit_bytes; i += 64)
        __builtin_prefetch(next + i), __builtin_prefetch(next + i + a->layout->v_offset);
    return here;
}

/* Few rows read each key and value once, from memory: their first tile fetches ahead. Many find them in the cache. */
INLINE void attention_head(dtype type, const attention_args *a, const attention_part *part, uint32_t kv_head,
                           attention_work *w) {
    bool few = part->end - part->begin <= FETCH_ROWS;
    work_begin(type, a, part, kv_head, w);
    for (uint32_t position = w->first; position < w->last; position += KV_BLOCK) {
        attention_block b = block_at(a, part, kv_head, position, w->last);
        const char     *fetch = few ? next_block(a, part, kv_head, position + KV_BLOCK, w, b.k[0]) : b.k[0];
        for (uint32_t i = 0; i < w->tile_count; i++) {
            attention_tile *t = &w->tiles[i];
            if (t->last <= position || t->first > position) continue;
            b.count = min_u32(KV_BLOCK, t->last - position);
            if (few && i == 0) run_block(type, a, w, t, &b, 1, fetch);
            else run_block(type, a, w, t, &b, 0, fetch);
        }
    }
    for (uint32_t i = 0; i < w->tile_count; i++) tile_finish(type, &w->tiles[i], a->layout->head_dim);
}

#define ATTENTION(name, type)                                                                                               \
    static void name(const attention_args *a, attention_part part, void *scratch) {                                         \
        for (uint32_t head = part.kv_head_begin; head < part.kv_head_end; head++)                                           \
            attention_head(type, a, &part, head, scratch);                                                                  \
    }
ATTENTION(attention_f32, DTYPE_F32)
ATTENTION(attention_bf16, DTYPE_BF16)

/* ---- rotary embedding, and keys and values into their pages ---- */

INLINE void head_norm(float *x, const float *weight, uint32_t n, float eps) {
    vf sum = vf_zero();
    for (uint32_t i = 0; i < n; i += 16) {
        vf v = vf_load_n(x + i, n - i);
        sum = vf_fma(v, v, sum);
    }
    vf scale = vf_set1(1 / sqrtf(vf_reduce_add(sum) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 16)
        vf_store_n(x + i, vf_mul(vf_mul(vf_load_n(x + i, n - i), scale), vf_load_n(weight + i, n - i)), n - i);
}

INLINE void clip_row(float *x, uint32_t n, float clip) {
    vf low = vf_set1(-clip), high = vf_set1(clip);
    for (uint32_t i = 0; i < n; i += 16) vf_store_n(x + i, vf_min(high, vf_max(low, vf_load_n(x + i, n - i))), n - i);
}

INLINE void rotate_head(float *x, const float *rotation, uint32_t dim) {
    uint32_t half = dim / 2;
    for (uint32_t i = 0; i < half; i += 16) {
        uint32_t n = half - i;
        vf       c = vf_load_n(rotation + i, n), s = vf_load_n(rotation + half + i, n);
        vf       x1 = vf_load_n(x + i, n), x2 = vf_load_n(x + half + i, n);
        vf_store_n(x + i, vf_sub(vf_mul(x1, c), vf_mul(x2, s)), n);
        vf_store_n(x + half + i, vf_add(vf_mul(x2, c), vf_mul(x1, s)), n);
    }
}

/* Loads a row of `heads` heads into f32, normalizes, clips, rotates. */
INLINE void prepare_heads(const rope_kv_args *a, const char *in, const float *norm, const float *rotation, uint32_t heads,
                          float *x) {
    const uint32_t dim = a->layout->head_dim, n = heads * dim;
    const dtype    type = a->layout->type;
    for (uint32_t i = 0; i < n; i += 16) vf_store_n(x + i, act_load_n(in + i * dtype_bytes(type), type, n - i), n - i);
    if (norm && a->norm_full) head_norm(x, norm, n, a->norm_eps);
    for (uint32_t h = 0; norm && !a->norm_full && h < heads; h++) head_norm(x + h * dim, norm, dim, a->norm_eps);
    if (a->clip > 0) clip_row(x, n, a->clip);
    for (uint32_t h = 0; rotation && h < heads; h++) rotate_head(x + h * dim, rotation, dim);
}

INLINE char *kv_slot(const rope_kv_args *a, const kv_run *run, uint32_t position) {
    const kv_layout *l = a->layout;
    return a->pages + run->pages[position / l->page_tokens] * l->page_stride + a->layer * l->layer_stride +
           position % l->page_tokens / KV_UNIT * l->unit_bytes;
}

/* x: [kv_heads][head_dim]; unit: of head 0 of this position. */
static void store_keys(const kv_layout *l, char *unit, uint32_t position, const float *x) {
    const uint32_t lane = position % KV_UNIT;
    for (uint32_t h = 0; h < l->kv_heads; h++, unit += l->head_stride, x += l->head_dim) {
        if (l->type == DTYPE_BF16) {
            uint16_t h16[HEAD_DIM_MAX];
            for (uint32_t d = 0; d < l->head_dim; d += 16)
                vf_store_bf16_n(h16 + d, vf_load_n(x + d, l->head_dim - d), l->head_dim - d);
            for (uint32_t d = 0; d < l->head_dim; d += 2) memcpy(unit + (d / 2 * KV_UNIT + lane) * 4, h16 + d, 4);
        } else {
            for (uint32_t d = 0; d < l->head_dim; d++) memcpy(unit + (d * KV_UNIT + lane) * 4, x + d, 4);
        }
    }
}

static void store_values(const kv_layout *l, char *unit, uint32_t position, const float *x) {
    const uint32_t lane = position % KV_UNIT;
    for (uint32_t h = 0; h < l->kv_heads; h++, unit += l->head_stride, x += l->head_dim) {
        if (l->type == DTYPE_BF16) {
            uint16_t  h16[HEAD_DIM_MAX];
            uint16_t *to = (uint16_t *)(void *)unit + (size_t)(lane / 2) * l->dim_padded * 2 + lane % 2;
            for (uint32_t d = 0; d < l->head_dim; d += 16)
                vf_store_bf16_n(h16 + d, vf_load_n(x + d, l->head_dim - d), l->head_dim - d);
            for (uint32_t d = 0; d < l->head_dim; d++) to[2 * d] = h16[d];
        } else {
            memcpy(unit + (size_t)lane * l->dim_padded * 4, x, l->head_dim * sizeof *x);
        }
    }
}

static void rope_kv(const rope_kv_args *a, const kv_run *run, uint32_t row_begin, uint32_t row_end, void *scratch) {
    const kv_layout *l = a->layout;
    float           *x = scratch;
    for (uint32_t i = row_begin; i < row_end; i++) {
        uint32_t     row = run->row_begin + i, position = run->position_begin + i, n = a->heads * l->head_dim;
        const float *rotation = a->rotation + (size_t)row * l->head_dim;
        char        *q = row_of(&a->q, row), *unit = kv_slot(a, run, position);
        prepare_heads(a, q, a->q_norm, rotation, a->heads, x);
        for (uint32_t j = 0; j < n; j += 16)
            act_store_n(q + j * dtype_bytes(l->type), l->type, vf_load_n(x + j, n - j), n - j);
        prepare_heads(a, row_of(&a->k, row), a->k_norm, rotation, l->kv_heads, x);
        store_keys(l, unit, position, x);
        prepare_heads(a, row_of(&a->v, row), NULL, NULL, l->kv_heads, x);
        store_values(l, unit + l->v_offset, position, x);
    }
}
