/* kernels/cpu/matmul_body.h: products over a range of panels and rows (contract: kernels/matmul.h).
 *
 * Up to TILE_ROWS rows: each panel is one sequential stream, k from end to end. More rows: the panel is taken in blocks
 * of k that stay in the first cache while every row tile passes over them, each chain put down in scratch between blocks,
 * and the next block is fetched meanwhile, evenly, so that memory and multipliers work at the same time. */
#pragma once

enum { PREFETCH_BYTES = 6144, BLOCK_STEPS = 64, BLOCK_STEPS_MANY = 512, MANY_ROWS = 64 };

INLINE vf biased(const float *c, const float *bias, uint32_t column) {
    vf v = vf_load(c + column);
    return bias ? vf_add(v, vf_load(bias + column)) : v;
}

INLINE void finish_plain(const matmul_args *a, const float *c, const float *bias, vf scale, char *out, uint32_t n) {
    for (uint32_t column = 0; column < n; column += 16) {
        vf v = biased(c, bias, column);
        if (a->scale) v = vf_mul(v, scale);
        uint32_t left = n - column;
        if (a->kind == OUT_BF16) {
            vf_store_bf16_n((uint16_t *)(void *)out + column, v, left);
            continue;
        }
        float *to = (float *)(void *)out + column;
        if (a->kind == OUT_ADD) v = vf_add(vf_load_n(to, left), v);
        vf_store_n(to, v, left);
    }
}

INLINE void finish_silu(const matmul_args *a, const float *c, const float *bias, vf scale, char *out, uint32_t n) {
    for (uint32_t column = 0; column < n; column += 16) {
        vf v = vf_mul(vf_silu(biased(c, bias, column)), biased(c, bias, GATE_UP_COLS + column));
        if (a->scale) v = vf_mul(v, scale);
        if (a->kind == OUT_SILU_BF16) vf_store_bf16_n((uint16_t *)(void *)out + column, v, n - column);
        else vf_store_n((float *)(void *)out + column, v, n - column);
    }
}

/* c: [rows][64] sums of panel `panel`, for rows of the batch from `row` on. */
static void finish_tile(const matmul_args *a, uint32_t panel, uint32_t row, uint32_t rows, const float *c) {
    bool          silu = a->kind == OUT_SILU_F32 || a->kind == OUT_SILU_BF16;
    matrix_source at = matrix_panel_source(a->w, panel);
    uint32_t      n = min_u32(left_of(a->w->parts[at.part].rows, at.row), silu ? GATE_UP_COLS : PANEL_COLS);
    size_t        element = a->kind == OUT_BF16 || a->kind == OUT_SILU_BF16 ? 2 : 4;
    const float  *bias = a->bias ? a->bias + (size_t)panel * PANEL_COLS : NULL;
    for (uint32_t r = 0; r < rows; r++, c += PANEL_COLS) {
        char *out = row_of(&a->out[at.part], row + r) + at.row * element;
        vf    scale = vf_set1(a->scale ? a->scale[row + r] : 1);
        if (silu) finish_silu(a, c, bias, scale, out, n);
        else finish_plain(a, c, bias, scale, out, n);
    }
}

/* One tile of rows over one block of k of a panel that starts at `at`, fetching `lines` cache lines a step. */
INLINE void block_tile(dtype type, tile_args *t, const char *at, uint32_t rows, const int lines) {
    float *c = t->c;
    for (uint32_t v = 0; v < PANEL_COLS / 16; v += TILE_VECS) {
        for (uint32_t i = 0; i < TILE_VECS; i++) t->w[i] = at + (size_t)(v + i) * (t->w_step / 4);
        t->c = c + 16 * v;
        tile_rows(type, rows, TILE_VECS, lines, t);
    }
    t->c = c;
}

/* One tile alone fetches a little ahead; of several, the first share the next block between them, in quarters. */
INLINE void fetching_tile(dtype type, tile_args *t, const char *at, uint32_t rows, uint32_t tile, uint32_t tiles) {
    static const uint8_t quarters[5][5] = {{0}, {0, 4}, {0, 2, 4}, {0, 2, 3, 4}, {0, 1, 2, 3, 4}};
    const uint8_t       *begin = &quarters[min_u32(tiles, 4)][min_u32(tile, 3)];
    t->prefetch = tiles == 1 ? at + PREFETCH_BYTES : at + (size_t)t->steps * (t->w_step + *begin * t->w_step / 4);
    switch (tile > 3 ? 0 : (begin[1] - begin[0]) * t->w_step / 256) {
    case 4: block_tile(type, t, at, rows, 4); break;
    case 2: block_tile(type, t, at, rows, 2); break;
    case 1: block_tile(type, t, at, rows, 1); break;
    default: block_tile(type, t, at, rows, 0);
    }
}

INLINE void matmul_panel(dtype type, const matmul_args *a, uint32_t panel, matmul_part part, float *scratch) {
    uint32_t  steps = type == DTYPE_BF16 ? (a->w->k + 1) / 2 : a->w->k, rows = part.row_end - part.row_begin;
    uint32_t  tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    size_t    step_bytes = PANEL_COLS * (type == DTYPE_BF16 ? 4 : dtype_bytes(type));
    uint32_t  block = tiles == 1 ? steps : rows <= MANY_ROWS ? BLOCK_STEPS : BLOCK_STEPS_MANY;
    tile_args t = {.w_step = step_bytes, .c_stride = PANEL_COLS};

    const char *data = (const char *)a->w->data + (size_t)panel * matrix_panel_bytes(a->w);
    for (uint32_t s = 0; s < steps; s += block) {
        const char *at = data + s * step_bytes;
        t.steps = min_u32(block, steps - s), t.resume = s > 0;
        for (uint32_t i = 0; i < tiles; i++) {
            uint32_t row = part.row_begin + i * TILE_ROWS, n = min_u32(TILE_ROWS, part.row_end - row);
            for (uint32_t r = 0; r < n; r++) t.x[r] = row_of(&a->a, row + r) + 4 * (size_t)s;
            t.c = scratch + (size_t)i * TILE_ROWS * PANEL_COLS;
            fetching_tile(type, &t, at, n, i, tiles);
            if (s + t.steps == steps) finish_tile(a, panel, row, n, t.c);
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
    for (uint32_t begin = 0; begin < words; begin += 16)
        for (uint32_t c = 0; c < PANEL_COLS; c++) {
            uint32_t line[16], n = min_u32(16, words - begin);
            memcpy(line, (const char *)rows[c] + 4 * (size_t)begin, 4 * (size_t)n);
            for (uint32_t i = 0; i < n; i++) out[(size_t)(begin + i) * PANEL_COLS + c] = line[i];
        }
}
