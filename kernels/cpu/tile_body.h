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
    size_t      c_stride;      /* floats */
    bool        resume;        /* start from c instead of zero */
    const char *prefetch;      /* NULL, or what to fetch meanwhile, ... */
    uint32_t    prefetch_step; /* ... bytes a step: 64, 128 or 256 */
} tile_args;

INLINE vf tile_step(dtype type, vf acc, const char *x, const vf *w, const vpair *pair) {
    float value;
    if (type == DTYPE_BF16) return vf_dot2(acc, *pair, vpair1_load(x));
    memcpy(&value, x, 4);
    return vf_fma(*w, vf_set1(value), acc);
}

INLINE void tile_prefetch(const tile_args *t, uint32_t s) {
    const char *p = t->prefetch + (size_t)s * t->prefetch_step;
    __builtin_prefetch(p);
    if (t->prefetch_step > 64) __builtin_prefetch(p + 64);
    if (t->prefetch_step > 128) __builtin_prefetch(p + 128), __builtin_prefetch(p + 192);
}

INLINE void tile_run(dtype type, const int rows, const int vecs, const bool prefetch, const tile_args *t) {
    vf acc[TILE_ROWS][TILE_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) acc[r][v] = t->resume ? vf_load(t->c + r * t->c_stride + 16 * v) : vf_zero();
    for (uint32_t s = 0; s < t->steps; s++) {
        vf    w[TILE_VECS];
        vpair pair[TILE_VECS];
        if (prefetch) tile_prefetch(t, s);
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            const char *p = t->w[v] + s * t->w_step;
            if (type == DTYPE_BF16) pair[v] = vpair_load(p);
            if (type == DTYPE_F32) w[v] = vf_load((const void *)p);
            if (type == DTYPE_F16) w[v] = vf_load_f16((const void *)p);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int v = 0; v < vecs; v++) acc[r][v] = tile_step(type, acc[r][v], t->x[r] + 4 * (size_t)s, &w[v], &pair[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) vf_store(t->c + r * t->c_stride + 16 * v, acc[r][v]);
}

/* The same for any number of rows up to TILE_ROWS: one instance of the loop each. */
INLINE void tile_rows(dtype type, uint32_t rows, const int vecs, const bool prefetch, const tile_args *t) {
    switch (rows) {
    case 1: tile_run(type, 1, vecs, prefetch, t); break;
    case 2: tile_run(type, 2, vecs, prefetch, t); break;
#if TILE_ROWS_LIMIT > 2
    case 3: tile_run(type, 3, vecs, prefetch, t); break;
    case 4: tile_run(type, 4, vecs, prefetch, t); break;
    case 5: tile_run(type, 5, vecs, prefetch, t); break;
    case 6: tile_run(type, 6, vecs, prefetch, t); break;
#endif
    }
}
