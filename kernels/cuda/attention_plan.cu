/* Which rows which kernel of attention.h computes, and in what pieces. On the host, without a GPU and without allocation.
 *
 * As all kernels give a row the same bits, everything here is for speed and room alone. */
#include "kernels/cuda/attention.h"

/* A prompt's tile that walks the context in one pass keeps one SM busy per key head: where a run has few tiles and much
 * context, chunks are spread as for few rows. Both numbers are guesses until measured. */
enum { SPREAD_BLOCKS_MAX = 32, SPREAD_CHUNKS_MIN = 8, MERGE_ROWS = 16 };

static const uint32_t tile_dims[] = {64, 80, 96, 128, 192, 256};

bool cuda_attention_has_tiles(const cuda_attention_facts *f) {
    bool has = false;
    for (uint32_t dim : tile_dims) has = has || dim == f->head_dim;
    return has && f->type != DTYPE_F32;
}

static uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }
static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t group_of(const cuda_attention_facts *f) { return f->heads / f->kv_heads; }
static uint32_t many_rows(const cuda_attention_facts *f) { return f->head_dim <= 128 ? 128 : 64; }

uint32_t cuda_attention_many_max(const cuda_attention_facts *f, uint32_t rows, uint32_t runs) {
    return ceil_div(rows * group_of(f), many_rows(f)) + runs;
}
size_t cuda_attention_partial_bytes(const cuda_attention_facts *f, uint32_t partials) {
    return (size_t)partials * f->kv_heads * (f->head_dim + 4) * sizeof(float);
}

/* ---- one tile of rows ---- */

/* Item: all of the tile in one pass. */
static cuda_attention_item tile_of(const cuda_attention_facts *f, const cuda_run *runs, uint32_t run, uint32_t row,
                                   uint32_t rows) {
    const uint32_t      group = group_of(f), position = runs[run].position_begin, all = runs[run].row_count * group;
    cuda_attention_item t = {run, row, all - row < rows ? all - row : rows, 0, 0, ATTENTION_FINAL};
    const uint32_t      begin = position + row / group + 1; /* where the first row's view ends */
    t.first = f->window && begin > f->window ? (begin - f->window) / ATTENTION_BLOCK * ATTENTION_BLOCK : 0;
    t.last = position + (row + t.row_count - 1) / group + 1;
    return t;
}
static uint32_t chunks_of(const cuda_attention_item *t) {
    return attention_chunk_of(t->last - 1) - attention_chunk_of(t->first) + 1;
}

static void add_chunks(cuda_attention_plan *p, cuda_attention_kind kind, const cuda_attention_item *t, uint32_t chunks) {
    const uint32_t chunk = attention_chunk_of(t->first);
    for (uint32_t i = 0; i < chunks; i++) {
        const uint32_t      begin = attention_chunk_begin(chunk + i), end = attention_chunk_begin(chunk + i + 1);
        cuda_attention_item c = *t;
        if (c.first < begin) c.first = begin;
        if (c.last > end) c.last = end;
        c.partial = p->partial_count + i * t->row_count;
        p->items[kind][p->item_count[kind]++] = c;
    }
    for (uint32_t r = 0; r < t->row_count; r += MERGE_ROWS)
        p->merges[p->merge_count++] = {t->run,       t->row + r, smaller(t->row_count - r, MERGE_ROWS), p->partial_count + r,
                                       t->row_count, chunks};
    p->partial_count += chunks * t->row_count;
}

/* False: there is no room. */
static bool add_spread(cuda_attention_plan *p, cuda_attention_kind kind, const cuda_attention_item *t, uint32_t chunks,
                       uint32_t spare) {
    const uint32_t rows = t->row_count, merges = ceil_div(rows, MERGE_ROWS);
    if (p->item_max[kind] - p->item_count[kind] < chunks + spare) return false;
    if (chunks == 1) return p->items[kind][p->item_count[kind]++] = *t, true;
    if (p->merge_max - p->merge_count < merges || (p->partial_max - p->partial_count) / rows < chunks) return false;
    add_chunks(p, kind, t, chunks);
    return true;
}

/* ---- longest first: a heap sort, which needs no memory; ties by place, so that the order is one ---- */

static uint32_t blocks_of(const cuda_attention_item *t) { return ceil_div(t->last - t->first, ATTENTION_BLOCK); }
static bool     comes_after(const cuda_attention_item *a, const cuda_attention_item *b) {
        if (blocks_of(a) != blocks_of(b)) return blocks_of(a) < blocks_of(b);
    if (a->run != b->run) return a->run > b->run;
    return a->row != b->row ? a->row > b->row : a->first > b->first;
}
static void swap_items(cuda_attention_item *a, cuda_attention_item *b) {
    const cuda_attention_item c = *a;
    *a = *b, *b = c;
}
static void sink(cuda_attention_item *items, uint32_t at, uint32_t count) {
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && comes_after(&items[child + 1], &items[child])) child++;
        if (!comes_after(&items[child], &items[at])) return;
        swap_items(&items[child], &items[at]);
    }
}
static void sort_items(cuda_attention_item *items, uint32_t count) {
    for (uint32_t i = count / 2; i-- > 0;) sink(items, i, count);
    for (uint32_t left = count; left > 1;) {
        swap_items(&items[0], &items[--left]);
        sink(items, 0, left);
    }
}

/* ---- the plan ---- */

/* What one-pass tiles of the runs from `run` on will need at the most: no chunk may take their place. */
static uint32_t many_needed(const cuda_attention_facts *f, const cuda_run *runs, uint32_t run, uint32_t count) {
    uint32_t n = 0;
    for (; run < count; run++) n += ceil_div(runs[run].row_count * group_of(f), many_rows(f));
    return n;
}

static void add_many(cuda_attention_plan *p, const cuda_attention_facts *f, const cuda_run *runs, uint32_t run,
                     uint32_t spare) {
    const uint32_t rows = runs[run].row_count * group_of(f), tiles = ceil_div(rows, many_rows(f));
    for (uint32_t i = 0; i < tiles; i++) {
        const cuda_attention_item t = tile_of(f, runs, run, i * many_rows(f), many_rows(f));
        const uint32_t            chunks = chunks_of(&t);
        const bool                spreads = tiles * f->kv_heads <= SPREAD_BLOCKS_MAX && chunks >= SPREAD_CHUNKS_MIN;
        if (spreads && add_spread(p, ATTENTION_MANY, &t, chunks, spare + tiles - i - 1)) continue;
        p->items[ATTENTION_MANY][p->item_count[ATTENTION_MANY]++] = t;
    }
}

bool cuda_attention_make(cuda_attention_plan *p, const cuda_attention_facts *f, const cuda_run *runs, uint32_t count) {
    uint32_t needed = many_needed(f, runs, 0, count);
    p->item_count[ATTENTION_FEW] = p->item_count[ATTENTION_MANY] = p->merge_count = p->partial_count = 0;
    if (needed > p->item_max[ATTENTION_MANY]) return false;
    for (uint32_t run = 0; run < count; run++) {
        const uint32_t rows = runs[run].row_count * group_of(f);
        needed -= ceil_div(rows, many_rows(f));
        if (rows == 0) continue;
        const cuda_attention_item t = tile_of(f, runs, run, 0, ATTENTION_FEW_ROWS);
        if (rows <= ATTENTION_FEW_ROWS && add_spread(p, ATTENTION_FEW, &t, chunks_of(&t), 0)) continue;
        add_many(p, f, runs, run, needed);
    }
    sort_items(p->items[ATTENTION_FEW], p->item_count[ATTENTION_FEW]);
    sort_items(p->items[ATTENTION_MANY], p->item_count[ATTENTION_MANY]);
    return true;
}

/* ---- how much a launch may do ---- */

uint32_t cuda_attention_within(const cuda_attention_facts *f, const cuda_attention_item *items, uint32_t begin,
                               uint32_t count, double flops_max) {
    uint32_t n = 0;
    double   flops = 0;
    for (; begin + n < count; n++) {
        const cuda_attention_item *t = &items[begin + n];
        flops += 4.0 * blocks_of(t) * ATTENTION_BLOCK * t->row_count * f->head_dim * f->kv_heads;
        if (n > 0 && flops > flops_max) break;
    }
    return n;
}
