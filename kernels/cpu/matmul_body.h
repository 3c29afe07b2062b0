/* kernels/cpu/matmul_body.h: products over a range of panels and rows (contract: kernels/matmul.h).
 *
 * Up to TILE_ROWS rows: each panel is one sequential stream, k from end to end. More rows: the panel is taken in blocks
 * of k that stay in the first cache while every row tile passes over them, each chain put down in scratch between blocks,
 * and the next block is fetched meanwhile, evenly, so that memory and multipliers work at the same time. */
#pragma once

enum { PREFETCH_BYTES = 6144, BLOCK_STEPS = 64, BLOCK_STEPS_MANY = 512, MANY_ROWS = 64 };

/* One row of one panel on its way out. */
typedef struct {
    out_kind     kind;
    const float *sums, *bias; /* [64]; bias may be NULL */
    const float *scale;       /* one value, or NULL */
    char        *out;
    uint32_t     count; /* columns that are not padding */
} finish_args;

INLINE vf finished(const finish_args *f, vf v) { return f->scale ? vf_mul(v, vf_set1(*f->scale)) : v; }
INLINE vf biased(const finish_args *f, uint32_t column) {
    vf v = vf_load(f->sums + column);
    return f->bias ? vf_add(v, vf_load(f->bias + column)) : v;
}

INLINE void finish_plain(const finish_args *f) {
    for (uint32_t column = 0; column < f->count; column += 16) {
        vf       v = finished(f, biased(f, column));
        uint32_t n = f->count - column;
        float   *to = (float *)(void *)f->out + column;
        if (f->kind == OUT_BF16) {
            vf_store_bf16_n((uint16_t *)(void *)f->out + column, v, n);
            continue;
        }
        if (f->kind == OUT_ADD) v = vf_add(vf_load_n(to, n), v);
        vf_store_n(to, v, n);
    }
}

INLINE void finish_silu(const finish_args *f) {
    for (uint32_t column = 0; column < f->count; column += 16) {
        vf       v = finished(f, vf_mul(vf_silu(biased(f, column)), biased(f, GATE_UP_COLS + column)));
        uint32_t n = f->count - column;
        if (f->kind == OUT_SILU_BF16) vf_store_bf16_n((uint16_t *)(void *)f->out + column, v, n);
        else vf_store_n((float *)(void *)f->out + column, v, n);
    }
}

/* sums: [rows][64] of panel `panel`, for rows of the batch from `row` on. */
static void finish_tile(const matmul_args *a, uint32_t panel, uint32_t row, uint32_t rows, const float *sums) {
    bool          silu = a->kind == OUT_SILU_F32 || a->kind == OUT_SILU_BF16;
    matrix_source at = matrix_panel_source(a->w, panel);
    size_t        element = a->kind == OUT_BF16 || a->kind == OUT_SILU_BF16 ? 2 : 4;
    finish_args   f = {.kind = a->kind, .sums = sums, .bias = a->bias ? a->bias + (size_t)panel * PANEL_COLS : NULL};
    f.count = min_u32(left_of(a->w->parts[at.part].rows, at.row), silu ? GATE_UP_COLS : PANEL_COLS);
    for (uint32_t r = 0; r < rows; r++, f.sums += PANEL_COLS) {
        f.out = row_of(&a->out[at.part], row + r) + at.row * element;
        f.scale = a->scale ? &a->scale[row + r] : NULL;
        if (silu) finish_silu(&f);
        else finish_plain(&f);
    }
}

/* One tile of rows over the block of k at `at`, fetching `lines` cache lines a step. */
INLINE void block_tile(dtype type, tile_args *t, const char *at, uint32_t rows, const int lines) {
    float *c = t->c;
    for (uint32_t v = 0; v < PANEL_COLS / 16; v += TILE_VECS) {
        for (uint32_t i = 0; i < TILE_VECS; i++) t->w[i] = at + (size_t)(v + i) * (t->w_step / 4);
        t->c = c + 16 * v;
        tile_rows(type, rows, TILE_VECS, lines, t);
    }
    t->c = c;
}

/* Sets what tile `tile` of `tiles` fetches while it works on the block at `at`; returns cache lines a step. One tile alone
 * fetches a little ahead; of several, the first share the next block between them, in quarters. */
INLINE uint32_t plan_fetch(tile_args *t, const char *at, uint32_t tile, uint32_t tiles) {
    static const uint8_t quarters[5][5] = {{0}, {0, 4}, {0, 2, 4}, {0, 2, 3, 4}, {0, 1, 2, 3, 4}};
    const uint8_t       *begin = &quarters[min_u32(tiles, 4)][min_u32(tile, 3)];
    t->prefetch = tiles == 1 ? at + PREFETCH_BYTES : at + (size_t)t->steps * (t->w_step + *begin * t->w_step / 4);
    return tile > 3 ? 0 : (uint32_t)((begin[1] - begin[0]) * t->w_step / 256);
}

INLINE void matmul_panel(dtype type, const matmul_args *a, uint32_t panel, matmul_part part, float *scratch) {
    uint32_t    steps = type == DTYPE_BF16 ? (a->w->k + 1) / 2 : a->w->k, rows = part.row_end - part.row_begin;
    uint32_t    tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    uint32_t    block = tiles == 1 ? steps : rows <= MANY_ROWS ? BLOCK_STEPS : BLOCK_STEPS_MANY;
    tile_args   t = {.w_step = PANEL_COLS * (type == DTYPE_BF16 ? 4 : dtype_bytes(type)), .c_stride = PANEL_COLS};
    const char *at = (const char *)a->w->data + (size_t)panel * matrix_panel_bytes(a->w);
    for (uint32_t s = 0; s < steps; s += block, at += t.steps * t.w_step) {
        t.steps = min_u32(block, steps - s), t.resume = s > 0;
        for (uint32_t i = 0; i < tiles; i++) {
            uint32_t first = rows * i / tiles, n = rows * (i + 1) / tiles - first;
            for (uint32_t r = 0; r < n; r++) t.x[r] = row_of(&a->a, part.row_begin + first + r) + 4 * (size_t)s;
            t.c = scratch + (size_t)first * PANEL_COLS;
            switch (plan_fetch(&t, at, i, tiles)) {
            case 4: block_tile(type, &t, at, n, 4); break;
            case 2: block_tile(type, &t, at, n, 2); break;
            case 1: block_tile(type, &t, at, n, 1); break;
            default: block_tile(type, &t, at, n, 0);
            }
            if (s + t.steps == steps) finish_tile(a, panel, part.row_begin + first, n, t.c);
        }
    }
}

#define MATMUL(name, type)                                                                                                  \
    static void name(const matmul_args *a, matmul_part part, void *scratch) {                                               \
        for (uint32_t p = part.panel_begin; p < part.panel_end; p++) matmul_panel(type, a, p, part, scratch);               \
    }
MATMUL(matmul_f32, DTYPE_F32)
MATMUL(matmul_bf16, DTYPE_BF16)
MATMUL(matmul_f16, DTYPE_F16)

/* ---- matrices left in the mapped file: row-major, any alignment ---- */

/* Dot product of k values: step i of 16 lanes (bf16: of 32) goes to chain i % 4; the chains are added as a tree. */
INLINE float dot_row(dtype type, const char *w, const char *x, uint32_t k) {
    const uint32_t width = type == DTYPE_BF16 ? 32 : 16;
    vf             acc[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (uint32_t j = 0, i = 0; j < k; j += width, i = (i + 1) % 4) {
        uint32_t    n = min_u32(width, k - j);
        const void *wj = w + j * dtype_bytes(type), *xj = x + j * (type == DTYPE_BF16 ? 2 : 4);
        if (type == DTYPE_BF16 && n == width) acc[i] = vf_dot2_pairs(acc[i], vpair_load(wj), vpair_load(xj));
        else if (type == DTYPE_BF16) acc[i] = vf_dot2_pairs(acc[i], vpair_load_n(wj, n), vpair_load_n(xj, n));
        else acc[i] = vf_fma(type == DTYPE_F16 ? vf_load_f16_n(wj, n) : vf_load_n(wj, n), vf_load_n(xj, n), acc[i]);
    }
    return vf_reduce_add(vf_add(vf_add(acc[0], acc[1]), vf_add(acc[2], acc[3])));
}

INLINE void mapped_panel(dtype type, const matmul_args *a, uint32_t panel, matmul_part part, float *scratch) {
    memset(scratch, 0, (part.row_end - part.row_begin) * PANEL_COLS * sizeof *scratch);
    for (uint32_t column = 0; column < PANEL_COLS; column++) {
        matrix_source at;
        if (!matrix_column_source(a->w, panel, column, &at)) continue;
        const char *w = (const char *)a->w->parts[at.part].data + (size_t)at.row * a->w->k * dtype_bytes(type);
        for (uint32_t row = part.row_begin; row < part.row_end; row++)
            scratch[(row - part.row_begin) * PANEL_COLS + column] = dot_row(type, w, row_of(&a->a, row), a->w->k);
    }
    finish_tile(a, panel, part.row_begin, part.row_end - part.row_begin, scratch);
}

#define MATMUL_MAPPED(name, type)                                                                                           \
    static void name(const matmul_args *a, matmul_part part, void *scratch) {                                               \
        for (uint32_t p = part.panel_begin; p < part.panel_end; p++) mapped_panel(type, a, p, part, scratch);               \
    }
MATMUL_MAPPED(mapped_f32, DTYPE_F32)
MATMUL_MAPPED(mapped_bf16, DTYPE_BF16)
MATMUL_MAPPED(mapped_f16, DTYPE_F16)

static void interleave(const void *const rows[PANEL_COLS], uint32_t words, uint32_t *out) {
    uint32_t whole = words / 16 * 16;
    for (uint32_t begin = 0; begin < whole; begin += 16)
        for (uint32_t c = 0; c < PANEL_COLS; c += 16) {
            const char *at[16];
            for (uint32_t i = 0; i < 16; i++) at[i] = (const char *)rows[c + i] + 4 * (size_t)begin;
            transpose16(at, out + (size_t)begin * PANEL_COLS + c, PANEL_COLS);
        }
    for (uint32_t c = 0; c < PANEL_COLS; c++)
        for (uint32_t i = whole; i < words; i++)
            memcpy(out + (size_t)i * PANEL_COLS + c, (const char *)rows[c] + 4 * (size_t)i, 4);
}
