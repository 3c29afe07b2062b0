/* kernels/cpu/tile_body.h: the inner tile under every product here: projections, scores and weighted values alike.
 *
 *     c[r, 16 v + lane] (+)= sum over s of x[r, s] * w[v, s, lane]
 *
 * rows x vecs accumulators stay in registers while s runs; each is one chain of multiply-adds in order of s, and a chain may
 * be put down in c and taken up again without changing a bit. `rows` and `vecs` are constants after inlining. */
#pragma once

typedef struct {
    const char *x[TILE_ROWS]; /* row r, 4 bytes a step: a pair of bf16, or a float */
    const char *w[TILE_VECS]; /* group v of 16 columns */
    size_t      w_step;       /* bytes from one step to the next */
    uint32_t    steps;
    float      *c;
    size_t      c_stride; /* floats */
    bool        resume;   /* start from c instead of zero */
    const char *prefetch; /* what to fetch meanwhile */
} tile_args;

INLINE vf tile_step(dtype type, vf acc, const char *x, const vf *w, const vpair *pair) {
    float value;
    if (type == DTYPE_BF16) return vf_dot2(acc, *pair, vpair1_load(x));
    memcpy(&value, x, 4);
    return vf_fma(*w, vf_set1(value), acc);
}

/* `lines` cache lines of t->prefetch are fetched at each step. */
INLINE void tile_run(dtype type, const int rows, const int vecs, const int lines, const tile_args *t) {
    vf          acc[TILE_ROWS][TILE_VECS];
    const char *fetch = t->prefetch;
    size_t      at = 0;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) acc[r][v] = t->resume ? vf_load(t->c + r * t->c_stride + 16 * v) : vf_zero();
    for (size_t s = 0; s < t->steps; s++, at += t->w_step, fetch += 64 * lines) {
        vf    w[TILE_VECS];
        vpair pair[TILE_VECS];
#pragma GCC unroll 8
        for (int i = 0; i < lines; i++) __builtin_prefetch(fetch + 64 * i);
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            const char *p = t->w[v] + at;
            if (type == DTYPE_BF16) pair[v] = vpair_load(p);
            if (type == DTYPE_F32) w[v] = vf_load((const void *)p);
            if (type == DTYPE_F16) w[v] = vf_load_f16((const void *)p);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int v = 0; v < vecs; v++) acc[r][v] = tile_step(type, acc[r][v], t->x[r] + 4 * s, &w[v], &pair[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) vf_store(t->c + r * t->c_stride + 16 * v, acc[r][v]);
}

/* The same for any number of rows up to TILE_ROWS: one instance of the loop each. */
INLINE void tile_rows(dtype type, uint32_t rows, const int vecs, const int lines, const tile_args *t) {
    switch (rows) {
    case 1: tile_run(type, 1, vecs, lines, t); break;
    case 2: tile_run(type, 2, vecs, lines, t); break;
#if TILE_ROWS_LIMIT > 2
    case 3: tile_run(type, 3, vecs, lines, t); break;
#endif
#if TILE_ROWS_LIMIT > 3
    case 4: tile_run(type, 4, vecs, lines, t); break;
    case 5: tile_run(type, 5, vecs, lines, t); break;
    case 6: tile_run(type, 6, vecs, lines, t); break;
#endif
    }
}
