/* Products against a double-precision loop over the definition, for every instruction set this machine has. */
#include "tests/unit/kernels.h"

enum { ROWS_MAX = 700 };

typedef struct {
    matrix m;
    void  *weights[MATRIX_PARTS_MAX]; /* row-major */
    void  *packed;
} test_matrix;

static const void *read_row(void *context, uint32_t part, uint32_t row, void *work) {
    const test_matrix *t = context;
    (void)work;
    return (const char *)t->weights[part] + (size_t)row * t->m.k * dtype_bytes(t->m.type);
}

static test_matrix make(rng *r, const cpu *c, dtype type, part_order order, uint32_t k, uint32_t parts,
                        const uint32_t *rows) {
    test_matrix t = {.m = {.type = type, .k = k, .order = order, .part_count = parts}};
    for (uint32_t i = 0; i < parts; i++) {
        t.m.parts[i].rows = rows[i];
        t.m.parts[i].data = t.weights[i] = take_random(r, type, (size_t)rows[i] * k);
    }
    size_t bytes = (matrix_bytes(&t.m) + 63) / 64 * 64;
    t.m.data = t.packed = aligned_alloc(64, bytes);
    memset(t.packed, 0xFF, bytes); /* NaNs: padding must be written */
    void *work = take(cpu_pack_work_bytes(&t.m));
    cpu_pack_panels(c, &t.m, 0, matrix_panels(&t.m), read_row, &t, work);
    free(work);
    return t;
}
static void drop(test_matrix *t) {
    for (uint32_t i = 0; i < t->m.part_count; i++) free(t->weights[i]);
    free(t->packed);
}

static double dot(const test_matrix *t, uint32_t part, uint32_t row, const void *a, double *magnitude) {
    double sum = 0;
    *magnitude = 0;
    for (uint32_t j = 0; j < t->m.k; j++) {
        double p = (double)load_as(t->m.type, t->weights[part], (size_t)row * t->m.k + j) *
                   (double)load_as(activation_of(t->m.type), a, j);
        sum += p, *magnitude += fabs(p);
    }
    return sum;
}

static void assert_near(double got, double expected, double tolerance) {
    if (!(fabs(got - expected) <= tolerance)) fail_msg("got %.9g, expected %.9g within %.3g", got, expected, tolerance);
}

static void check_plain(cpu *c, const test_matrix *t, uint32_t rows, rng *r) {
    dtype    act = activation_of(t->m.type);
    uint32_t k = t->m.k;
    size_t   a_stride = ((size_t)k + 1) / 2 * 2 * dtype_bytes(act);
    char    *a = take(rows * a_stride), *out[MATRIX_PARTS_MAX] = {0};
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < k; j++) store_as(act, a + i * a_stride, j, uniform(r));
    matmul_args args = {.w = &t->m, .rows = rows, .a = {a, a_stride, NULL}, .kind = OUT_F32};
    for (uint32_t p = 0; p < t->m.part_count; p++) {
        out[p] = take((size_t)rows * t->m.parts[p].rows * 4);
        args.out[p] = (rows_at){out[p], t->m.parts[p].rows * 4, NULL};
    }
    cpu_matmul(c, &args);
    for (uint32_t p = 0; p < t->m.part_count; p++)
        for (uint32_t i = 0; i < rows; i++)
            for (uint32_t n = 0; n < t->m.parts[p].rows; n++) {
                double magnitude, expected = dot(t, p, n, a + i * a_stride, &magnitude);
                assert_near((double)load_as(DTYPE_F32, out[p], (size_t)i * t->m.parts[p].rows + n), expected,
                            2e-6 * magnitude + 1e-7);
            }
    free(a);
    for (uint32_t p = 0; p < t->m.part_count; p++) free(out[p]);
}

static void products_match_double_precision_over_ugly_shapes(void **state) {
    (void)state;
    static const struct {
        uint32_t rows, k, n[3];
    } shapes[] = {{1, 1, {1, 1, 1}},       {1, 64, {64, 1, 63}},  {2, 65, {65, 7, 1}},
                  {3, 200, {130, 16, 17}}, {7, 259, {10, 70, 3}}, {13, 31, {5, 5, 200}},
                  {40, 300, {66, 1, 1}},   {67, 97, {33, 64, 1}}, {1, 1000, {700, 1, 1}}};
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 3, NULL), OK);
        rng r = {1, 0};
        for (int type = 0; type < DTYPE_COUNT; type++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
                for (int mapped = 0; mapped < 2; mapped++) {
                    test_matrix t = make(&r, &c, (dtype)type, PARTS_IN_TURN, shapes[s].k, 3, shapes[s].n);
                    if (mapped) t.m.data = NULL;
                    check_plain(&c, &t, shapes[s].rows, &r);
                    drop(&t);
                }
        cpu_close(&c);
    }
}

static double silu(double x) { return x / (1 + exp(-x)); }

static void gate_and_up_are_combined_and_scaled_per_row(void **state) {
    (void)state;
    enum { ROWS = 9, K = 50, N = 75 };
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 2, NULL), OK);
        rng r = {2, 0};
        for (int type = 0; type < DTYPE_COUNT; type++) {
            dtype       act = activation_of((dtype)type);
            test_matrix t = make(&r, &c, (dtype)type, PARTS_INTERLEAVED, K, 2, (uint32_t[]){N, N});
            void       *a = take_random(&r, act, ROWS * K), *out = take(ROWS * N * dtype_bytes(act));
            float      *bias = take(matrix_panels(&t.m) * PANEL_COLS * 4), scale[ROWS];
            for (uint32_t i = 0; i < matrix_panels(&t.m) * PANEL_COLS; i++) bias[i] = uniform(&r);
            for (uint32_t i = 0; i < ROWS; i++) scale[i] = uniform(&r);
            cpu_matmul(&c, &(matmul_args){.w = &t.m,
                                          .rows = ROWS,
                                          .a = {a, K * dtype_bytes(act), NULL},
                                          .bias = bias,
                                          .scale = scale,
                                          .kind = act == DTYPE_BF16 ? OUT_SILU_BF16 : OUT_SILU_F32,
                                          .out = {{out, N * dtype_bytes(act), NULL}}});
            for (uint32_t i = 0; i < ROWS; i++)
                for (uint32_t n = 0; n < N; n++) {
                    const char *row = (const char *)a + (size_t)i * K * dtype_bytes(act);
                    uint32_t    at = n / GATE_UP_COLS * PANEL_COLS + n % GATE_UP_COLS;
                    double      m;
                    double      gate = dot(&t, 0, n, row, &m) + (double)bias[at];
                    double      up = dot(&t, 1, n, row, &m) + (double)bias[at + GATE_UP_COLS];
                    double      expected = silu(gate) * up * (double)scale[i];
                    assert_near((double)load_as(act, out, (size_t)i * N + n), expected,
                                (act == DTYPE_BF16 ? 0.005 : 1e-5) * fabs(expected) + 1e-4);
                }
            free(a), free(out), free(bias);
            drop(&t);
        }
        cpu_close(&c);
    }
}

/* Runs `rows` given rows (by index into a) alone, in this order, and returns f32 results. */
static void run_rows(cpu *c, const test_matrix *t, const char *a, size_t a_stride, const uint32_t *index, uint32_t rows,
                     float *out) {
    uint64_t offsets[ROWS_MAX];
    for (uint32_t i = 0; i < rows; i++) offsets[i] = index[i] * a_stride;
    size_t n = t->m.parts[0].rows;
    cpu_matmul(c, &(matmul_args){.w = &t->m,
                                 .rows = rows,
                                 .a = {(void *)(uintptr_t)a, 0, offsets},
                                 .kind = OUT_F32,
                                 .out = {{out, n * 4, NULL}}});
}

static void a_row_has_the_same_bits_in_any_company(void **state) {
    (void)state;
    enum { K = 1300, N = 70 };
    static const uint32_t counts[] = {1, 2, 5, 6, 7, 12, 13, 33, 64, 65, 100, 600};
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 2, NULL), OK);
        rng r = {3, 0};
        for (int mode = 0; mode < 2 * DTYPE_COUNT; mode++) {
            dtype       type = (dtype)(mode / 2), act = activation_of(type);
            size_t      stride = K * dtype_bytes(act);
            uint32_t    most = strcmp(isa, "plain") == 0 ? 100 : 600;
            test_matrix t = make(&r, &c, type, PARTS_IN_TURN, K, 1, (uint32_t[]){N});
            char       *a = take_random(&r, act, (size_t)ROWS_MAX * K);
            float      *all = take(ROWS_MAX * N * 4), *some = take(ROWS_MAX * N * 4);
            uint32_t    index[ROWS_MAX];
            if (mode % 2) t.m.data = NULL;
            for (uint32_t i = 0; i < most; i++) index[i] = i;
            run_rows(&c, &t, a, stride, index, most, all);
            for (size_t s = 0; s < sizeof counts / sizeof *counts && counts[s] <= most; s++) {
                for (uint32_t i = 0; i < counts[s]; i++) index[i] = (uint32_t)rng_below(&r, most);
                run_rows(&c, &t, a, stride, index, counts[s], some);
                for (uint32_t i = 0; i < counts[s]; i++) assert_memory_equal(some + i * N, all + index[i] * N, N * 4);
            }
            free(a), free(all), free(some);
            drop(&t);
        }
        cpu_close(&c);
    }
}

static void products_in_turn_add_in_their_order_and_each_in_one_loop(void **state) {
    (void)state;
    enum { EXPERTS = 5, K = 40, N = 130, ROWS = 30 };
    FOR_EACH_ISA(isa) {
        cpu c;
        assert_int_equal(cpu_open(&c, isa, 4, NULL), OK);
        rng         r = {4, 0};
        test_matrix t[EXPERTS];
        matmul_args list[EXPERTS];
        uint64_t    offsets[EXPERTS][ROWS], a_offsets[EXPERTS][ROWS];
        float      *x = take(ROWS * N * 4), *expected = take(ROWS * N * 4), *a = take_random(&r, DTYPE_F32, ROWS * K);
        float       scale[ROWS];
        for (uint32_t i = 0; i < ROWS * N; i++) x[i] = expected[i] = uniform(&r);
        for (uint32_t i = 0; i < ROWS; i++) scale[i] = uniform(&r);
        for (uint32_t e = 0; e < EXPERTS; e++) {
            uint32_t rows = e == 1 ? ROWS : e == 2 ? 0 : 7; /* one takes all rows, one none */
            t[e] = make(&r, &c, DTYPE_F32, PARTS_IN_TURN, K, 1, (uint32_t[]){N});
            for (uint32_t i = 0; i < rows; i++) {
                uint32_t row = (i * 3 + e) % ROWS;
                offsets[e][i] = row * N * 4, a_offsets[e][i] = row * K * 4;
            }
            list[e] = (matmul_args){.w = &t[e].m,
                                    .rows = rows,
                                    .a = {a, 0, a_offsets[e]},
                                    .scale = scale,
                                    .kind = OUT_ADD,
                                    .out = {{x, 0, offsets[e]}}};
            for (uint32_t i = 0; i < rows; i++) { /* the same, one product at a time, into a copy */
                matmul_args one = list[e];
                one.rows = 1, one.scale = &scale[i], one.a.offsets = &a_offsets[e][i];
                one.out[0] = (rows_at){expected, 0, &offsets[e][i]};
                cpu_matmul_each(&c, &one, 1);
            }
        }
        cpu_matmul_in_turn(&c, list, EXPERTS);
        assert_memory_equal(x, expected, ROWS * N * 4);
        for (uint32_t e = 0; e < EXPERTS; e++) drop(&t[e]);
        free(x), free(expected), free(a);
        cpu_close(&c);
    }
}

static void half_precision_converts_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float x = f16_to_f32((uint16_t)h);
        if (isnan(x)) assert_true(isnan(f16_to_f32(f32_to_f16(x))));
        else assert_int_equal(f32_to_f16(x), h);
    }
    assert_int_equal(f32_to_f16(65519.0f), 0x7BFF);
    assert_int_equal(f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(f32_to_f16(0x1.002p0f), 0x3C00); /* halfway: to even */
    assert_int_equal(f32_to_f16(0x1.006p0f), 0x3C02);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_double_precision_over_ugly_shapes),
        cmocka_unit_test(gate_and_up_are_combined_and_scaled_per_row),
        cmocka_unit_test(a_row_has_the_same_bits_in_any_company),
        cmocka_unit_test(products_in_turn_add_in_their_order_and_each_in_one_loop),
        cmocka_unit_test(half_precision_converts_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
