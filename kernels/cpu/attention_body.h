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

/* Everything about one kv head of one part. */
typedef struct {
    const attention_args *a;
    const attention_part *part;
    uint32_t              kv_head;
    float                 scale;
    uint32_t              first, last; /* of all tiles */
    uint32_t              tile_count;
    attention_tile        tiles[ATTENTION_TILES];
    /* the block at hand: its first position, how many of it the tile at hand sees, its units, what to fetch meanwhile */
    uint32_t    position, count;
    const char *k[KV_BLOCK / KV_UNIT], *v[KV_BLOCK / KV_UNIT], *fetch;
    /* of the tile and block at hand */
    _Alignas(64) float score[TILE_ROWS][KV_BLOCK];
    _Alignas(64) char weight[TILE_ROWS][KV_BLOCK * 4]; /* probabilities in the layout's type */
    _Alignas(64) uint16_t last_pair[HEAD_DIM_MAX][2];
} attention_work;
_Static_assert(sizeof(attention_work) <= CPU_SCRATCH_BYTES, "scratch");

INLINE const char *unit_at(const attention_work *w, uint32_t kv_head, uint32_t position) {
    const kv_layout *l = w->a->layout;
    uint32_t         page = w->part->run->pages[position / l->page_tokens];
    return w->a->pages + page * l->page_stride + w->a->layer * l->layer_stride + kv_head * l->head_stride +
           position % l->page_tokens / KV_UNIT * l->unit_bytes;
}

/* lines: of the next block's keys, fetched at each step; 0 or TILE_VECS. */
INLINE void block_scores(dtype type, attention_work *w, const attention_tile *t, const int lines) {
    const kv_layout *l = w->a->layout;
    tile_args k = {.w_step = KV_UNIT * 4, .steps = type == DTYPE_BF16 ? l->head_dim / 2 : l->head_dim, .c_stride = KV_BLOCK};
    for (uint32_t r = 0; r < t->rows; r++) k.x[r] = t->q[r];
    for (uint32_t u = 0; u < KV_BLOCK / KV_UNIT; u += TILE_VECS) {
        for (uint32_t i = 0; i < TILE_VECS; i++) k.w[i] = w->k[u + i];
        k.c = &w->score[0][16 * u];
        k.prefetch = w->fetch + u * l->unit_bytes;
        tile_rows(type, t->rows, TILE_VECS, lines, &k);
    }
}

/* What row r has gathered so far, in units of the new maximum. Where that has not moved there is nothing to do: a factor of
 * one changes no bit. */
INLINE void rescale(const attention_work *w, attention_tile *t, uint32_t r, float maximum) {
    if (!(maximum > t->maximum[r])) return;
    vf alpha = vf_exp2(vf_set1(t->maximum[r] - maximum));
    t->maximum[r] = maximum;
    vf_store_n(&t->sum[r], vf_mul(vf_set1(t->sum[r]), alpha), 1);
    for (uint32_t d = 0; d < w->a->layout->dim_padded; d += 16)
        vf_store(&t->out[r][d], vf_mul(vf_load(&t->out[r][d]), alpha));
}

/* The block's scores become weights: powers of two, the scores being scaled by log2(e) / sqrt(head_dim). */
INLINE void block_softmax(dtype type, attention_work *w, attention_tile *t, uint32_t r) {
    const int32_t begin = (int32_t)left_of(t->begin[r], w->position), end = (int32_t)left_of(t->end[r], w->position);
    const bool    whole = begin == 0 && end >= KV_BLOCK;
    vf            scale = vf_set1(w->scale), top = vf_set1(NO_MAXIMUM), sum = vf_zero(), s[KV_BLOCK / 16];
    for (int i = 0; i < KV_BLOCK / 16; i++) {
        s[i] = vf_mul(vf_load(&w->score[r][16 * i]), scale);
        if (!whole) s[i] = vf_keep_range(s[i], begin - 16 * i, end - 16 * i, -INFINITY);
        top = vf_max(top, s[i]);
    }
    rescale(w, t, r, vf_reduce_max(top));
    vf maximum = vf_set1(t->maximum[r]);
    for (int i = 0; i < KV_BLOCK / 16; i++) {
        vf p = vf_exp2(vf_sub(s[i], maximum));
        sum = vf_add(sum, p);
        act_store_n(w->weight[r] + 16 * i * (type == DTYPE_BF16 ? 2 : 4), type, p, 16);
    }
    t->sum[r] += vf_reduce_add(sum);
}

/* How many steps from step s on are one run in memory: units that lie side by side (of one page) are walked in one go. */
INLINE uint32_t steps_together(const attention_work *w, uint32_t s, uint32_t end, uint32_t unit_steps, size_t step_bytes) {
    uint32_t n = unit_steps, u = s / unit_steps;
    while (s + n < end && w->v[u + n / unit_steps] == w->v[u] + n * step_bytes) n += unit_steps;
    return min_u32(n, end - s);
}

/* Adds the block's weighted values to columns [d, d + 16 vecs). What lies at or past the end of the block may be anything,
 * infinities included, and zero times infinity is NaN: so those positions are not touched, and where the last pair is only
 * half in the block, a copy with the other half cleared is read. */
INLINE void block_values(dtype type, attention_work *w, attention_tile *t, uint32_t d, const int vecs, const int lines) {
    const uint32_t pair = type == DTYPE_BF16 ? 2 : 1, unit_steps = KV_UNIT / pair, steps = w->count / pair;
    tile_args v = {.w_step = w->a->layout->dim_padded * 4, .c = &t->out[0][d], .c_stride = HEAD_DIM_MAX, .resume = true};
    v.prefetch = w->fetch + w->a->layout->v_offset + d * (KV_BLOCK / pair) * 4;
    for (uint32_t s = 0; s * pair < w->count; s += v.steps, v.prefetch += v.steps * 64 * (size_t)lines) {
        const char *values = s == steps ? (const char *)w->last_pair : w->v[s / unit_steps];
        v.steps = s == steps ? 1 : steps_together(w, s, steps, unit_steps, v.w_step);
        for (uint32_t r = 0; r < t->rows; r++) v.x[r] = w->weight[r] + s * 4;
        for (int i = 0; i < vecs; i++) v.w[i] = values + 4 * (d + 16 * (uint32_t)i);
        tile_rows(type, t->rows, vecs, lines, &v);
    }
}

INLINE void copy_last_pair(attention_work *w) {
    uint32_t    position = w->count - 1, dim = w->a->layout->dim_padded;
    const char *from = w->v[position / KV_UNIT] + (size_t)(position % KV_UNIT / 2) * dim * 4;
    memcpy(w->last_pair, from, (size_t)dim * 4);
    for (uint32_t d = 0; d < dim; d++) w->last_pair[d][1] = 0;
}

INLINE void run_block(dtype type, attention_work *w, attention_tile *t, const bool fetches) {
    const uint32_t dim = w->a->layout->dim_padded;
    uint32_t       d = 0;
    w->count = min_u32(KV_BLOCK, t->last - w->position);
    block_scores(type, w, t, fetches ? TILE_VECS : 0);
    for (uint32_t r = 0; r < t->rows; r++) block_softmax(type, w, t, r);
    if (type == DTYPE_BF16 && w->count % 2) copy_last_pair(w);
    for (; d + 16 * TILE_VECS <= dim; d += 16 * TILE_VECS) block_values(type, w, t, d, TILE_VECS, fetches ? TILE_VECS : 0);
    for (; d < dim; d += 16) block_values(type, w, t, d, 1, fetches);
}

INLINE void tile_begin(dtype type, const attention_work *w, attention_tile *t, uint32_t row, uint32_t rows) {
    const attention_args *a = w->a;
    const kv_run         *run = w->part->run;
    const uint32_t        group = a->heads / a->layout->kv_heads;
    t->rows = rows, t->first = UINT32_MAX, t->last = 0;
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t token = (row + r) / group, head = w->kv_head * group + (row + r) % group;
        size_t   at = (size_t)head * a->layout->head_dim * (type == DTYPE_BF16 ? 2 : 4);
        t->q[r] = row_of(&a->q, run->row_begin + token) + at;
        t->to[r] = row_of(&a->out, run->row_begin + token) + at;
        t->end[r] = run->position_begin + token + 1;
        t->begin[r] = a->window ? left_of(t->end[r], a->window) : 0;
        t->maximum[r] = NO_MAXIMUM, t->sum[r] = 0;
        t->first = min_u32(t->first, t->begin[r]), t->last = max_u32(t->last, t->end[r]);
        for (uint32_t d = 0; d < a->layout->dim_padded; d += 16) vf_store(&t->out[r][d], vf_zero());
    }
    t->first = t->first / KV_BLOCK * KV_BLOCK;
}

INLINE void tile_finish(dtype type, attention_tile *t, uint32_t head_dim) {
    for (uint32_t r = 0; r < t->rows; r++) {
        vf over = vf_div(vf_set1(1), vf_set1(t->sum[r]));
        for (uint32_t d = 0; d < head_dim; d += 16)
            act_store_n(t->to[r] + d * (type == DTYPE_BF16 ? 2 : 4), type, vf_mul(vf_load(&t->out[r][d]), over),
                        head_dim - d);
    }
}

INLINE void head_begin(dtype type, attention_work *w) {
    const uint32_t rows = w->part->end - w->part->begin, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    w->scale = 1.44269504f / sqrtf((float)w->a->layout->head_dim);
    w->tile_count = tiles, w->first = UINT32_MAX, w->last = 0;
    for (uint32_t i = 0; i < tiles; i++) {
        uint32_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
        tile_begin(type, w, &w->tiles[i], w->part->begin + begin, end - begin);
        w->first = min_u32(w->first, w->tiles[i].first), w->last = max_u32(w->last, w->tiles[i].last);
    }
}

/* The block walked after this one, or the next head's first: fetched while this one is worked on where it is whole, else at
 * once, so that nothing past its end is read. Returns what to fetch meanwhile, which may be nothing new. */
INLINE const char *next_block(const attention_work *w) {
    uint32_t kv_head = w->kv_head, position = w->position + KV_BLOCK;
    if (position >= w->last) kv_head++, position = w->first;
    if (kv_head >= w->part->kv_head_end) return w->k[0];
    const char *next = unit_at(w, kv_head, position);
    uint32_t    units = (min_u32(KV_BLOCK, w->last - position) + KV_UNIT - 1) / KV_UNIT;
    if (units == KV_BLOCK / KV_UNIT) return next;
    for (size_t i = 0; i < units * w->a->layout->unit_bytes; i += 64)
        __builtin_prefetch(next + i), __builtin_prefetch(next + i + w->a->layout->v_offset);
    return w->k[0];
}

/* Few rows read each key and value once, from memory: their first tile fetches ahead. Many find them in the cache. */
INLINE void attend_block(dtype type, attention_work *w) {
    const bool few = w->part->end - w->part->begin <= FETCH_ROWS;
    for (uint32_t u = 0; u < KV_BLOCK / KV_UNIT; u++) { /* past the end: masked, so any unit will do */
        w->k[u] = unit_at(w, w->kv_head, min_u32(w->position + KV_UNIT * u, w->last - 1));
        w->v[u] = w->k[u] + w->a->layout->v_offset;
    }
    w->fetch = few ? next_block(w) : w->k[0];
    for (uint32_t i = 0; i < w->tile_count; i++) {
        attention_tile *t = &w->tiles[i];
        if (t->last <= w->position || t->first > w->position) continue;
        if (few && i == 0) run_block(type, w, t, true);
        else run_block(type, w, t, false);
    }
}

INLINE void attend(dtype type, attention_work *w) {
    for (w->kv_head = w->part->kv_head_begin; w->kv_head < w->part->kv_head_end; w->kv_head++) {
        head_begin(type, w);
        for (w->position = w->first; w->position < w->last; w->position += KV_BLOCK) attend_block(type, w);
        for (uint32_t i = 0; i < w->tile_count; i++) tile_finish(type, &w->tiles[i], w->a->layout->head_dim);
    }
}

#define ATTENTION(name, type)                                                                                               \
    static void name(const attention_args *a, attention_part part, void *scratch) {                                         \
        attention_work *w = scratch;                                                                                        \
        w->a = a, w->part = &part;                                                                                          \
        attend(type, w);                                                                                                    \
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

/* What happens to a row of heads. */
typedef struct {
    uint32_t     heads;
    const float *norm, *rotation; /* NULL: none */
} head_change;

/* In place. x: room for the row in f32. */
INLINE void change_heads(const rope_kv_args *a, char *row, head_change c, float *x) {
    const uint32_t dim = a->layout->head_dim, n = c.heads * dim;
    const dtype    type = a->layout->type;
    for (uint32_t i = 0; i < n; i += 16) vf_store_n(x + i, act_load_n(row + i * dtype_bytes(type), type, n - i), n - i);
    if (c.norm && a->norm_full) head_norm(x, c.norm, n, a->norm_eps);
    for (uint32_t h = 0; c.norm && !a->norm_full && h < c.heads; h++) head_norm(x + h * dim, c.norm, dim, a->norm_eps);
    if (a->clip > 0) clip_row(x, n, a->clip);
    for (uint32_t h = 0; c.rotation && h < c.heads; h++) rotate_head(x + h * dim, c.rotation, dim);
    for (uint32_t i = 0; i < n; i += 16) act_store_n(row + i * dtype_bytes(type), type, vf_load_n(x + i, n - i), n - i);
}

INLINE char *kv_unit(const rope_kv_args *a, const kv_run *run, uint32_t position) {
    const kv_layout *l = a->layout;
    return a->pages + run->pages[position / l->page_tokens] * l->page_stride + a->layer * l->layer_stride +
           position % l->page_tokens / KV_UNIT * l->unit_bytes;
}

/* Keys of positions lane, lane + 1, ... of a unit, from row `row` of the batch on. A whole unit is transposed in registers.
 */
static void store_keys(const rope_kv_args *a, char *unit, uint32_t row, uint32_t lane, uint32_t count) {
    const kv_layout *l = a->layout;
    const uint32_t   head_bytes = l->head_dim * (uint32_t)dtype_bytes(l->type), words = head_bytes / 4;
    for (uint32_t h = 0; h < l->kv_heads; h++, unit += l->head_stride) {
        uint32_t    begin = 0;
        const char *rows[KV_UNIT];
        for (uint32_t i = 0; i < count; i++) rows[i] = row_of(&a->k, row + i) + h * head_bytes;
        for (; count == KV_UNIT && begin + 16 <= words; begin += 16) {
            transpose16(rows, (uint32_t *)(void *)unit + begin * KV_UNIT, KV_UNIT);
            for (uint32_t i = 0; i < count; i++) rows[i] += 64;
        }
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t d = begin; d < words; d++)
                memcpy(unit + (d * KV_UNIT + lane + i) * 4, rows[i] + 4 * (d - begin), 4);
    }
}

/* Half a pair is stored by itself: the other half may be another thread's at this moment. */
INLINE void store_half_pairs(const kv_layout *l, uint16_t *to, const uint16_t *from) {
    for (uint32_t d = 0; d < l->head_dim; d++) to[2 * d] = from[d];
}

INLINE void store_pairs(const kv_layout *l, uint16_t *to, const uint16_t *even, const uint16_t *odd) {
    uint32_t whole = l->head_dim / 16 * 16;
    for (uint32_t d = 0; d < whole; d += 16) store_zipped(to + 2 * d, even + d, odd + d);
    for (uint32_t d = whole; d < l->head_dim; d++) to[2 * d] = even[d], to[2 * d + 1] = odd[d];
}

static void store_values(const rope_kv_args *a, char *unit, uint32_t row, uint32_t lane, uint32_t count) {
    const kv_layout *l = a->layout;
    const uint32_t   head_bytes = l->head_dim * (uint32_t)dtype_bytes(l->type);
    for (uint32_t h = 0; h < l->kv_heads; h++, unit += l->head_stride)
        for (uint32_t i = 0; i < count; i++) {
            const char *from = row_of(&a->v, row + i) + h * head_bytes;
            uint32_t    at = lane + i;
            uint16_t   *pair = (uint16_t *)(void *)unit + (size_t)(at / 2) * l->dim_padded * 2;
            if (l->type != DTYPE_BF16) memcpy(unit + (size_t)at * l->dim_padded * 4, from, head_bytes);
            else if (at % 2 || i + 1 == count) store_half_pairs(l, pair + at % 2, (const void *)from);
            else store_pairs(l, pair, (const void *)from, (const void *)(row_of(&a->v, row + ++i) + h * head_bytes));
        }
}

/* Rows [row_begin, row_end) of the run, all in one unit of positions. */
static void rope_kv(const rope_kv_args *a, const kv_run *run, uint32_t row_begin, uint32_t row_end, void *scratch) {
    const kv_layout *l = a->layout;
    const uint32_t   first = run->row_begin + row_begin, position = run->position_begin + row_begin,
                   count = row_end - row_begin;
    for (uint32_t row = first; row < first + count; row++) {
        const float *rotation = a->rotation + (size_t)row * l->head_dim;
        change_heads(a, row_of(&a->q, row), (head_change){a->heads, a->q_norm, rotation}, scratch);
        change_heads(a, row_of(&a->k, row), (head_change){l->kv_heads, a->k_norm, rotation}, scratch);
        if (a->clip > 0) change_heads(a, row_of(&a->v, row), (head_change){l->kv_heads, NULL, NULL}, scratch);
    }
    char *unit = kv_unit(a, run, position);
    store_keys(a, unit, first, position % KV_UNIT, count);
    store_values(a, unit + l->v_offset, first, position % KV_UNIT, count);
}
