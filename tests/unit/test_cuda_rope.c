/* Rotary embedding and the filling of pages on the GPU, against the CPU's operator on the CPU's pages. */
#include "kernels/cuda/rope.h"
#include "tests/unit/cuda_kernels.h"

enum { RUNS = 3, ROWS = 24, LAYERS = 2, LAYER = 1, PAGES = 9, PAGE_TOKENS = 16, POSITIONS = 48 };
static const uint32_t pages_of[RUNS][3] = {{7, 2, 0}, {4, 1, 8}, {3, 6, 5}};
static const kv_run   runs[RUNS] = {{0, 5, 0, pages_of[0]}, {5, 18, 13, pages_of[1]}, {23, 1, 31, pages_of[2]}};

typedef struct {
    uint32_t heads, kv_heads, dim;
    dtype    type;
    enum { NO_NORM, HEAD_NORM, FULL_NORM } norm;
    float clip;
} rope_case;

typedef struct {
    rope_case c;
    uint32_t  qn, kn;
    float    *q, *k, *v, *rotation, *q_norm, *k_norm; /* f32; rotation by position */
    float    *q_out;                                  /* [ROWS][qn] */
    float    *k_out, *v_out;                          /* [ROWS][kn], from the pages */
} rope_world;

static rope_world make_world(const rope_case *c) {
    rng        r = {c->dim + c->heads, 0};
    rope_world w = {.c = *c, .qn = c->heads * c->dim, .kn = c->kv_heads * c->dim};
    w.q = random_values(&r, c->type, ROWS * w.qn), w.k = random_values(&r, c->type, ROWS * w.kn);
    w.v = random_values(&r, c->type, ROWS * w.kn), w.q_norm = random_values(&r, DTYPE_F32, w.qn);
    w.k_norm = random_values(&r, DTYPE_F32, w.kn), w.rotation = take(POSITIONS * c->dim * 4);
    for (uint32_t p = 0; p < POSITIONS; p++)
        for (uint32_t j = 0; j < c->dim / 2; j++) {
            double angle = p * pow(10000, -2.0 * j / c->dim);
            w.rotation[p * c->dim + j] = (float)cos(angle), w.rotation[p * c->dim + c->dim / 2 + j] = (float)sin(angle);
        }
    w.q_out = take(ROWS * w.qn * 4), w.k_out = take(ROWS * w.kn * 4), w.v_out = take(ROWS * w.kn * 4);
    return w;
}
static void free_world(rope_world *w) {
    free(w->q), free(w->k), free(w->v), free(w->rotation), free(w->q_norm), free(w->k_norm);
    free(w->q_out), free(w->k_out), free(w->v_out);
}
static uint32_t position_of(uint32_t row, uint32_t *run) {
    for (*run = 0; row >= runs[*run].row_begin + runs[*run].row_count;) ++*run;
    return runs[*run].position_begin + row - runs[*run].row_begin;
}

/* ---- the CPU ---- */

static void run_cpu(rope_world *w) {
    cpu              c;
    const rope_case *s = &w->c;
    const kv_layout  l = kv_layout_make(s->type, LAYERS, s->kv_heads, s->dim, PAGE_TOKENS);
    char            *pages = take(PAGES * l.page_stride), *rows[3];
    float           *rotation = take(ROWS * s->dim * 4);
    const uint32_t   n[3] = {w->qn, w->kn, w->kn}, e = (uint32_t)dtype_bytes(s->type);
    const float     *from[3] = {w->q, w->k, w->v};
    assert_int_equal(cpu_open(&c, "auto", 1, NULL), OK);
    for (int i = 0; i < 3; i++) {
        rows[i] = take(ROWS * n[i] * e);
        for (uint32_t j = 0; j < ROWS * n[i]; j++) store_as(s->type, rows[i], j, from[i][j]);
    }
    for (uint32_t row = 0, run; row < ROWS; row++)
        memcpy(rotation + row * s->dim, w->rotation + position_of(row, &run) * s->dim, s->dim * 4);
    cpu_rope_kv(&c, &(rope_kv_args){.layout = &l,
                                    .pages = pages,
                                    .layer = LAYER,
                                    .heads = s->heads,
                                    .run_count = RUNS,
                                    .runs = runs,
                                    .q = {rows[0], w->qn * e, NULL},
                                    .k = {rows[1], w->kn * e, NULL},
                                    .v = {rows[2], w->kn * e, NULL},
                                    .rotation = rotation,
                                    .q_norm = s->norm ? w->q_norm : NULL,
                                    .k_norm = s->norm ? w->k_norm : NULL,
                                    .norm_full = s->norm == FULL_NORM,
                                    .norm_eps = 1e-6f,
                                    .clip = s->clip});
    for (uint32_t i = 0; i < ROWS * w->qn; i++) w->q_out[i] = load_as(s->type, rows[0], i);
    /* its rows of keys and values are left as they went into the pages (test_kernels_attention.c holds it to those) */
    for (uint32_t i = 0; i < ROWS * w->kn; i++)
        w->k_out[i] = load_as(s->type, rows[1], i), w->v_out[i] = load_as(s->type, rows[2], i);
    cpu_close(&c);
    free(pages), free(rotation), free(rows[0]), free(rows[1]), free(rows[2]);
}

/* ---- the GPU ---- */

/* Bytes that belong to no row are as they were. */
static void read_pages(rope_world *w, const cuda_pages *l, const uint8_t *pages) {
    const uint32_t e = (uint32_t)dtype_bytes(l->type);
    uint32_t       written = 0, found = 0;
    for (size_t i = 0; i < PAGES * l->page_stride; i++) written += pages[i] != 0xFF;
    for (uint32_t row = 0, run; row < ROWS; row++) {
        const uint32_t position = position_of(row, &run);
        const uint8_t *page = pages + pages_of[run][position / PAGE_TOKENS] * l->page_stride + LAYER * l->layer_stride;
        for (uint32_t j = 0; j < w->kn; j++) {
            size_t at = j / w->c.dim * l->head_stride + cuda_page_offset(l, position % PAGE_TOKENS, j % w->c.dim * e);
            w->k_out[row * w->kn + j] = load_as(l->type, page + at, 0);
            w->v_out[row * w->kn + j] = load_as(l->type, page + l->v_offset + at, 0);
            for (uint32_t b = 0; b < e; b++) found += (page[at + b] != 0xFF) + (page[l->v_offset + at + b] != 0xFF);
        }
    }
    assert_int_equal(found, written);
}

static void run_gpu(rope_world *w) {
    const rope_case *s = &w->c;
    const uint32_t   e = (uint32_t)dtype_bytes(s->type);
    uint32_t         positions[ROWS], run_of_row[ROWS];
    cuda_run         gpu_runs[RUNS];
    for (uint32_t i = 0; i < RUNS; i++)
        gpu_runs[i] = (cuda_run){runs[i].row_begin, runs[i].row_count, runs[i].position_begin, 3 * i};
    for (uint32_t row = 0; row < ROWS; row++) positions[row] = position_of(row, &run_of_row[row]);
    const cuda_pages l = cuda_pages_make(s->type, LAYERS, s->kv_heads, s->dim, PAGE_TOKENS);
    cuda_rope_args   a = {.layout = l,
                          .pages = gpu_room(PAGES * l.page_stride),
                          .layer = LAYER,
                          .heads = s->heads,
                          .batch = {.row_count = ROWS,
                                    .run_count = RUNS,
                                    .positions = gpu_copy_of(positions, sizeof positions),
                                    .run_of_row = gpu_copy_of(run_of_row, sizeof run_of_row),
                                    .runs = gpu_copy_of(gpu_runs, sizeof gpu_runs),
                                    .page_ids = gpu_copy_of(pages_of, sizeof pages_of)},
                          .q = gpu_values(s->type, w->q, ROWS * w->qn),
                          .k = gpu_values(s->type, w->k, ROWS * w->kn),
                          .v = gpu_values(s->type, w->v, ROWS * w->kn),
                          .q_stride = w->qn * e,
                          .k_stride = w->kn * e,
                          .v_stride = w->kn * e,
                          .rotation = gpu_copy_of(w->rotation, POSITIONS * s->dim * 4),
                          .q_norm = s->norm ? gpu_copy_of(w->q_norm, w->qn * 4) : NULL,
                          .k_norm = s->norm ? gpu_copy_of(w->k_norm, w->kn * 4) : NULL,
                          .norm_full = s->norm == FULL_NORM,
                          .norm_eps = 1e-6f,
                          .clip = s->clip};
    uint8_t         *pages = take(PAGES * l.page_stride);
    cuda_rope(gpu_queue(), &a);
    gpu_read_values(s->type, w->q_out, a.q, ROWS * w->qn);
    gpu_read(pages, a.pages, PAGES * l.page_stride);
    read_pages(w, &l, pages);
    free(pages);
    gpu_drop(a.pages), gpu_drop(a.batch.positions), gpu_drop(a.batch.run_of_row), gpu_drop(a.batch.runs);
    gpu_drop(a.batch.page_ids), gpu_drop(a.q), gpu_drop(a.k), gpu_drop(a.v), gpu_drop(a.rotation);
    if (s->norm) gpu_drop(a.q_norm), gpu_drop(a.k_norm);
}

static const rope_case cases[] = {
    {2, 1, 64, DTYPE_BF16, NO_NORM, 0},    {6, 2, 80, DTYPE_BF16, HEAD_NORM, 0},   {4, 4, 16, DTYPE_BF16, FULL_NORM, 0.5f},
    {1, 1, 2, DTYPE_BF16, NO_NORM, 0.25f}, {7, 1, 128, DTYPE_BF16, HEAD_NORM, 0},  {3, 3, 256, DTYPE_BF16, FULL_NORM, 0},
    {4, 2, 96, DTYPE_F32, HEAD_NORM, 0},   {2, 2, 128, DTYPE_F32, NO_NORM, 0.75f}, {12, 3, 192, DTYPE_F32, FULL_NORM, 0},
    {10, 10, 26, DTYPE_F32, HEAD_NORM, 1},
};
enum { CASES = sizeof cases / sizeof *cases };

/* Without a norm there is no sum: then not a bit may differ. */
static void assert_same(const rope_case *c, const float *got, const float *expected, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (fabsf(got[i] - expected[i]) > (c->norm ? ((float)rounding_of(c->type) + 2e-6f) * fabsf(expected[i]) + 2e-6f : 0))
            fail_msg("head dimension %u: value %zu is %a, not %a", c->dim, i, (double)got[i], (double)expected[i]);
}

static void queries_turn_and_keys_and_values_reach_their_pages_as_on_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        rope_world expected = make_world(&cases[i]), w = make_world(&cases[i]);
        run_cpu(&expected);
        FOR_EACH_EMULATION {
            run_gpu(&w);
            assert_same(&cases[i], w.q_out, expected.q_out, ROWS * w.qn);
            assert_same(&cases[i], w.k_out, expected.k_out, ROWS * w.kn);
            assert_memory_equal(w.v_out, expected.v_out, ROWS * w.kn * 4);
        }
        free_world(&w), free_world(&expected);
    }
}

static void heads_are_dealt_to_warps_and_rows_of_heads_to_blocks(void **state) {
    (void)state;
    cuda_rope_args a = {.layout = cuda_pages_make(DTYPE_BF16, 1, 4, 128, 64), .heads = 32, .batch = {.row_count = 9}};
    cuda_shape     s = cuda_rope_configure(&a);
    assert_true(s.grid[0] == 9 && s.grid[1] * s.threads / 32 >= 40 && s.shared_bytes == 0);
    a.norm_full = true, s = cuda_rope_configure(&a);
    assert_true(s.grid[0] == 9 && s.grid[1] == 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_turn_and_keys_and_values_reach_their_pages_as_on_the_cpu),
        cmocka_unit_test(heads_are_dealt_to_warps_and_rows_of_heads_to_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
