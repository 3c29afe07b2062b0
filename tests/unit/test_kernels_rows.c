/* Norms, embedding and routing against their definitions in double precision. */
#include "tests/unit/kernels.h"

static void norm_matches_double_precision_at_any_width(void **state) {
    (void)state;
    static const uint32_t widths[] = {1, 15, 16, 17, 64, 100, 768, 1030};
    enum { ROWS = 11 };
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 2, NULL), OK);
        rng r = {1, 0};
        for (size_t w = 0; w < 2 * sizeof widths / sizeof *widths; w++) {
            uint32_t n = widths[w / 2];
            dtype    type = w % 2 ? DTYPE_BF16 : DTYPE_F32;
            float   *x = take_random(&r, DTYPE_F32, ROWS * n), *weight = take_random(&r, DTYPE_F32, n);
            void    *out = take(ROWS * n * dtype_bytes(type));
            cpu_norm(&c, &(norm_args){.rows = ROWS,
                                      .width = n,
                                      .eps = 1e-6f,
                                      .weight = weight,
                                      .x = {x, n * 4, NULL},
                                      .out = {out, n * dtype_bytes(type), NULL},
                                      .out_type = type});
            for (uint32_t i = 0; i < ROWS; i++) {
                double sum = 0;
                for (uint32_t j = 0; j < n; j++) sum += (double)x[i * n + j] * (double)x[i * n + j];
                for (uint32_t j = 0; j < n; j++) {
                    double expected = (double)x[i * n + j] / sqrt(sum / n + 1e-6) * (double)weight[j];
                    double got = (double)load_as(type, out, i * n + j);
                    assert_true(fabs(got - expected) <= (type == DTYPE_BF16 ? 0.004 : 2e-6) * fabs(expected) + 1e-12);
                }
            }
            free(x), free(weight), free(out);
        }
        cpu_close(&c);
    }
}

typedef struct {
    const void *table;
    uint32_t    k;
    dtype       type;
} table_rows;
static const void *read_table(const void *context, uint32_t part, uint32_t row, void *work) {
    (void)part, (void)work;
    const table_rows *t = context;
    return (const char *)t->table + (size_t)row * t->k * dtype_bytes(t->type);
}

static void embedding_reads_the_same_rows_packed_and_plain(void **state) {
    (void)state;
    enum { VOCAB = 150, WIDTH = 33, ROWS = 20 };
    cpu c;
    assert_int_equal(cpu_open(&c, "auto", 2, NULL), OK);
    rng r = {2, 0};
    for (int type = 0; type < DTYPE_COUNT; type++) {
        table_rows t = {take_random(&r, (dtype)type, VOCAB * WIDTH), WIDTH, (dtype)type};
        matrix     m = {.type = (dtype)type, .k = WIDTH, .part_count = 1, .parts = {{VOCAB, NULL}}};
        m.data = aligned_alloc(64, (matrix_bytes(&m) + 63) / 64 * 64);
        void *work = take(cpu_pack_work_bytes(&m));
        for (uint32_t p = 0; p < matrix_panels(&m); p++) cpu_pack_panel(&c, &m, p, &(matrix_rows){read_table, &t}, work);
        uint32_t tokens[ROWS];
        for (int i = 0; i < ROWS; i++) tokens[i] = (uint32_t)rng_below(&r, VOCAB);
        float     *plain = take(ROWS * WIDTH * 4), *packed = take(ROWS * WIDTH * 4);
        embed_args a = {.rows = ROWS,
                        .width = WIDTH,
                        .tokens = tokens,
                        .table = t.table,
                        .table_type = t.type,
                        .out = {plain, WIDTH * 4, NULL}};
        cpu_embed(&c, &a);
        a.packed = &m, a.out.base = packed;
        cpu_embed(&c, &a);
        for (uint32_t i = 0; i < ROWS * WIDTH; i++)
            assert_true(plain[i] == load_as(t.type, t.table, tokens[i / WIDTH] * WIDTH + i % WIDTH) &&
                        packed[i] == plain[i]);
        free((void *)(uintptr_t)t.table), free(m.data), free(work), free(plain), free(packed);
    }
    cpu_close(&c);
}

static void a_row_goes_to_its_most_likely_experts_and_ties_to_the_lower(void **state) {
    (void)state;
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 2, NULL), OK);
        /* probabilities .1 .4 .4 .1 for row 0; all equal for row 1 */
        float logits[2][4] = {{logf(.1f), logf(.4f), logf(.4f), logf(.1f)}, {3, 3, 3, 3}};
        route out[2][3];
        for (int renormalize = 0; renormalize < 2; renormalize++) {
            cpu_route(&c, &(route_args){.rows = 2,
                                        .experts = 4,
                                        .chosen = 3,
                                        .renormalize = renormalize,
                                        .logits = logits[0],
                                        .logits_stride = 4,
                                        .out = {out, sizeof out[0], NULL}});
            float over = renormalize ? 0.9f : 1, over1 = renormalize ? 0.75f : 1;
            for (uint32_t n = 0; n < 3; n++) { /* in rising order of expert: 0 wins the tie with 3 */
                assert_int_equal(out[0][n].expert, n);
                assert_int_equal(out[1][n].expert, n);
                assert_true(fabsf(out[0][n].weight - (n == 0 ? .1f : .4f) / over) < 1e-6f);
                assert_true(fabsf(out[1][n].weight - .25f / over1) < 1e-6f);
            }
        }
        cpu_close(&c);
    }
}

static void rows_are_grouped_by_expert_in_order_of_row(void **state) {
    (void)state;
    enum { ROWS = 100, EXPERTS = 9, CHOSEN = 3 };
    rng      r = {5, 0};
    route    routes[ROWS][CHOSEN];
    uint32_t begin[EXPERTS + 1], entry[ROWS * CHOSEN], seen = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t first = (uint32_t)rng_below(&r, 5); /* expert 8 gets none, expert 7 all */
        routes[i][0].expert = first, routes[i][1].expert = 5 + i % 2, routes[i][2].expert = 7;
    }
    expert_groups g = {begin, entry};
    cpu_group_by_expert(
        &(route_args){.rows = ROWS, .experts = EXPERTS, .chosen = CHOSEN, .out = {routes, sizeof routes[0], NULL}}, &g);
    assert_int_equal(begin[0], 0);
    assert_int_equal(begin[EXPERTS], ROWS * CHOSEN);
    assert_int_equal(begin[9] - begin[8], 0);
    assert_int_equal(begin[8] - begin[7], ROWS);
    for (uint32_t e = 0; e < EXPERTS; e++)
        for (uint32_t i = begin[e]; i < begin[e + 1]; i++, seen++) {
            assert_int_equal(routes[entry[i] / CHOSEN][entry[i] % CHOSEN].expert, e);
            if (i > begin[e]) assert_true(entry[i] > entry[i - 1]);
        }
    assert_int_equal(seen, ROWS * CHOSEN);
}

/* ---- the pool ---- */

typedef struct {
    _Atomic uint32_t runs[1000];
} marks;
static void mark(void *context, uint32_t task, uint32_t worker) {
    assert_true(worker < 4);
    ((marks *)context)->runs[task]++;
}

static void a_pool_runs_each_task_once(void **state) {
    (void)state;
    pool  *p = pool_new(4);
    marks *m = take(sizeof *m);
    for (uint32_t round = 1; round <= 3000; round++) pool_run(p, round % 7 == 0 ? 1000 : round % 20, mark, m);
    uint32_t expected[1000] = {0};
    for (uint32_t round = 1; round <= 3000; round++)
        for (uint32_t i = 0; i < (round % 7 == 0 ? 1000 : round % 20); i++) expected[i]++;
    for (uint32_t i = 0; i < 1000; i++) assert_int_equal(m->runs[i], expected[i]);
    free(m);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_matches_double_precision_at_any_width),
        cmocka_unit_test(embedding_reads_the_same_rows_packed_and_plain),
        cmocka_unit_test(a_row_goes_to_its_most_likely_experts_and_ties_to_the_lower),
        cmocka_unit_test(rows_are_grouped_by_expert_in_order_of_row),
        cmocka_unit_test(a_pool_runs_each_task_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
