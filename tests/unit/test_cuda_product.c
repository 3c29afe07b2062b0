/* Rows times a matrix on the GPU, each way to store the weights and to finish, against double precision. */
#include "kernels/cuda/product.h"
#include "tests/unit/cuda_kernels.h"

typedef struct {
    dtype          type;
    bool           in_blocks;
    uint32_t       outputs, k;
    product_finish finish;
    dtype          out_type;
    bool           biased, scaled;
} shape;

enum { ROWS_MAX = 70 };

typedef struct {
    shape             s;
    uint32_t          out_width;
    float            *w, *a, *before, *bias, *scale; /* as f32: [outputs][k], [ROWS_MAX][k], [ROWS_MAX][out_width] */
    cuda_product_args args;
} problem;

static dtype values_of(const shape *s) { return activation_of(s->type); }

/* Rows of n values, each beginning aligned, in GPU memory; what pads them is zero. */
static void *gpu_rows(dtype t, const float *host, uint32_t rows, uint32_t n) {
    const size_t stride = row_bytes(t, n);
    char        *typed = take(rows * stride);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < n; j++) store_as(t, typed + i * stride, j, host[(size_t)i * n + j]);
    void *gpu = gpu_copy_of(typed, rows * stride);
    free(typed);
    return gpu;
}

static void *gpu_matrix(const cuda_matrix *m, const float *w) {
    char *all = take(m->each_bytes), *row = take(m->k * dtype_bytes(m->type));
    for (uint32_t i = 0; i < m->outputs; i++) {
        for (uint32_t j = 0; j < m->k; j++) store_as(m->type, row, j, w[(size_t)i * m->k + j]);
        cuda_matrix_put_row(m, all, i, row);
    }
    void *gpu = gpu_copy_of(all, m->each_bytes);
    free(all), free(row);
    return gpu;
}

static problem pose(shape s) {
    rng      r = {s.outputs * 1000 + s.k, 0};
    problem  p = {.s = s, .out_width = s.finish == PRODUCT_SILU ? s.outputs / 2 : s.outputs};
    uint32_t biases = (s.outputs + 63) / 64 * 64;
    p.w = random_values(&r, s.type, (size_t)s.outputs * s.k), p.a = random_values(&r, values_of(&s), ROWS_MAX * s.k);
    p.before = random_values(&r, s.out_type, ROWS_MAX * p.out_width);
    p.bias = random_values(&r, DTYPE_F32, biases), p.scale = random_values(&r, DTYPE_F32, ROWS_MAX);
    cuda_matrix m = cuda_matrix_make(s.type, s.in_blocks, s.outputs, s.k);
    m.data = gpu_matrix(&m, p.w);
    p.args = (cuda_product_args){.w = m,
                                 .a = gpu_rows(values_of(&s), p.a, ROWS_MAX, s.k),
                                 .a_stride = row_bytes(values_of(&s), s.k),
                                 .finish = s.finish,
                                 .out_type = s.out_type,
                                 .out_width = p.out_width,
                                 .out_stride = row_bytes(s.out_type, p.out_width),
                                 .bias = s.biased ? gpu_copy_of(p.bias, biases * 4) : NULL,
                                 .scale_logit = s.scaled ? gpu_copy_of(p.scale, ROWS_MAX * 4) : NULL};
    return p;
}
static void drop(problem *p) {
    gpu_drop(p->args.w.data), gpu_drop(p->args.a);
    if (p->args.bias) gpu_drop(p->args.bias);
    if (p->args.scale_logit) gpu_drop(p->args.scale_logit);
    free(p->w), free(p->a), free(p->before), free(p->bias), free(p->scale);
}

/* Rows [first, first + rows) into out[rows][out_width]. Exactly that much of the operand is there. */
static void run(const problem *p, uint32_t first, uint32_t rows, float *out) {
    cuda_product_args a = p->args;
    const shape      *s = &p->s;
    a.rows = rows;
    a.a = (const char *)a.a + first * a.a_stride;
    if (a.scale_logit) a.scale_logit += first;
    a.out = gpu_rows(s->out_type, p->before + first * p->out_width, rows, p->out_width);
    cuda_product(gpu_queue(), &a);
    char *got = take(rows * a.out_stride);
    gpu_read(got, a.out, rows * a.out_stride);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < p->out_width; j++)
            out[i * p->out_width + j] = load_as(s->out_type, got + i * a.out_stride, j);
    gpu_drop(a.out), free(got);
}

static double sum_of(const problem *p, uint32_t row, uint32_t output, double *size) {
    double sum = p->s.biased ? (double)p->bias[output] : 0;
    for (uint32_t j = 0; j < p->s.k; j++) {
        const double x = (double)p->a[row * p->s.k + j] * (double)p->w[(size_t)output * p->s.k + j];
        sum += x, *size += fabs(x);
    }
    return sum;
}
static double expected(const problem *p, uint32_t row, uint32_t column, double *size) {
    double v;
    *size = 1;
    if (p->s.finish == PRODUCT_SILU) {
        const double gate = sum_of(p, row, gate_up_row(0, column), size), up = sum_of(p, row, gate_up_row(1, column), size);
        v = gate / (1 + exp(-gate)) * up;
        *size *= fabs(up) + fabs(gate) + 1;
    } else v = sum_of(p, row, column, size);
    if (p->s.scaled) v /= 1 + exp(-(double)p->scale[row]);
    if (p->s.finish == PRODUCT_ADD) v += (double)p->before[row * p->out_width + column];
    return v;
}

static void check_rows(const problem *p, uint32_t first, uint32_t rows) {
    float *out = take(rows * p->out_width * 4);
    run(p, first, rows, out);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < p->out_width; j++) {
            double size, v = expected(p, first + i, j, &size), got = (double)out[i * p->out_width + j];
            if (!(fabs(got - v) <= 1e-6 * size + rounding_of(p->s.out_type) * fabs(v)))
                fail_msg("row %u of %u, column %u of %u: %g, not %g", i, rows, j, p->out_width, got, v);
        }
    free(out);
}

static const uint32_t row_counts[] = {1, 8, 9, 16, 17, 64, 70};

static void check_shape(shape s, uint32_t which) {
    problem p = pose(s);
    check_rows(&p, which % 2, row_counts[which % 7] - which % 2 > 0 ? row_counts[which % 7] - which % 2 : 1);
    drop(&p);
}

/* k that is no whole step, or a step, or not four; outputs that are no whole block; rows on both sides of each kernel. */
static const uint32_t sizes[][2] = {{64, 64}, {16, 8}, {130, 72}, {200, 328}, {64, 1000}, {8, 3}, {36, 520}};

static void a_product_matches_double_precision_at_any_shape(void **state) {
    (void)state;
    FOR_EACH_EMULATION for (uint32_t i = 0; i < 7; i++) for (int blocks = 0; blocks < 2; blocks++) for (uint32_t n = 0;
                                                                                                        n < 7; n += 2) {
        const uint32_t rows = n + (uint32_t)mode_ % 2;
        check_shape((shape){DTYPE_BF16, blocks, sizes[i][0], sizes[i][1], PRODUCT_STORE,
                            (i + rows) % 2 ? DTYPE_BF16 : DTYPE_F32, i % 2, false},
                    rows);
    }
}

static void weights_of_f32_and_f16_are_multiplied_without_rounding_the_rows(void **state) {
    (void)state;
    FOR_EACH_EMULATION for (uint32_t i = 0; i < 7; i++) for (int way = 0; way < 4; way++) check_shape(
        (shape){way % 2 ? DTYPE_F32 : DTYPE_F16, way / 2, sizes[i][0], sizes[i][1], PRODUCT_STORE, DTYPE_F32, i % 2, false},
        (i + (uint32_t)way) % 7);
}

static void gate_and_up_become_one_value_and_a_gate_scales_the_row(void **state) {
    (void)state;
    static const uint32_t widths[] = {16, 64, 48, 208, 128};
    FOR_EACH_EMULATION for (uint32_t i = 0; i < 5; i++) for (int way = 0; way < 4; way++)
        check_shape((shape){way == 3 ? DTYPE_F32 : DTYPE_BF16, way % 2, widths[i], 136, PRODUCT_SILU,
                            way > 1 ? DTYPE_F32 : DTYPE_BF16, i % 2, way % 2},
                    (i + (uint32_t)way) % 7);
}

static void an_activation_of_no_whole_group_writes_its_width_only(void **state) {
    (void)state;
    problem p = pose((shape){DTYPE_BF16, true, 32, 64, PRODUCT_SILU, DTYPE_BF16, false, false});
    char    out[24] = {0};
    p.args.out_width = 11, p.args.out_stride = sizeof out, p.args.rows = 1;
    memset(out, 0x5A, sizeof out);
    p.args.out = gpu_copy_of(out, sizeof out);
    emulation_set((emulation_mode){1, false});
    cuda_product(gpu_queue(), &p.args);
    gpu_read(out, p.args.out, sizeof out);
    assert_memory_equal(out + 22, "ZZ", 2);
    assert_memory_not_equal(out + 20, "ZZ", 2);
    gpu_drop(p.args.out);
    drop(&p);
}

static void a_product_is_added_to_the_residual(void **state) {
    (void)state;
    FOR_EACH_EMULATION for (uint32_t i = 0; i < 7; i++) check_shape(
        (shape){i % 3 ? DTYPE_BF16 : DTYPE_F32, false, sizes[i][0], sizes[i][1], PRODUCT_ADD, DTYPE_F32, i % 2, i % 3 == 1},
        (i + (uint32_t)mode_) % 7);
}

/* Whichever kernel it is that a row falls to, and wherever in a tile it lies. */
static void the_bits_of_a_row_do_not_depend_on_how_many_there_are(void **state) {
    (void)state;
    for (int way = 0; way < 4; way++) {
        const dtype type = way == 3 ? DTYPE_F32 : DTYPE_BF16;
        problem     p = pose((shape){type, way % 2, 80, way == 2 ? 200 : 968, PRODUCT_STORE, DTYPE_F32, true, false});
        float       all[ROWS_MAX * 80], some[ROWS_MAX * 80];
        emulation_set((emulation_mode){7, way == 1});
        run(&p, 0, ROWS_MAX, all);
        for (uint32_t i = 0; i < 6; i++) {
            run(&p, i, row_counts[i], some);
            assert_memory_equal(some, all + (size_t)i * 80, row_counts[i] * 80 * 4);
        }
        drop(&p);
    }
}

static void kernels_are_chosen_by_type_and_rows(void **state) {
    (void)state;
    cuda_product_args   a = {.w = cuda_matrix_make(DTYPE_BF16, false, 4096, 4096), .rows = 16};
    cuda_product_config c = cuda_product_configure(&a);
    assert_true(c.few.grid[0] == 64 && c.few.grid[1] == 1 && c.many.grid[0] == 0 && c.plain.grid[0] == 0);
    a.rows = 8;
    assert_int_equal(cuda_product_configure(&a).few_rows, 8);
    assert_true(2 * cuda_product_configure(&a).few.shared_bytes <= 227 << 10); /* two blocks a multiprocessor */
    a.rows = 17;
    c = cuda_product_configure(&a);
    assert_true(c.few.grid[0] == 0 && c.many.grid[0] == 32 && c.many.grid[1] == 1);
    a.w.type = DTYPE_F32;
    c = cuda_product_configure(&a);
    assert_true(c.few.grid[0] == 0 && c.many.grid[0] == 0 && c.plain.grid[0] == 64 && c.plain.grid[1] == 2);
    a.rows = 0;
    c = cuda_product_configure(&a);
    assert_true(c.few.grid[0] == 0 && c.many.grid[0] == 0 && c.plain.grid[0] == 0);
    a = (cuda_product_args){.w = cuda_matrix_make(DTYPE_BF16, true, 1536, 2048), .rows = 1, .out_width = 768};
    a.groups.entry = (uint32_t *)&c, a.groups.chosen = 8, a.groups.experts = 128;
    assert_true(cuda_product_cost(&a, 8).bytes >= 8 * 1536.0 * 2048 * 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product_matches_double_precision_at_any_shape),
        cmocka_unit_test(weights_of_f32_and_f16_are_multiplied_without_rounding_the_rows),
        cmocka_unit_test(gate_and_up_become_one_value_and_a_gate_scales_the_row),
        cmocka_unit_test(an_activation_of_no_whole_group_writes_its_width_only),
        cmocka_unit_test(a_product_is_added_to_the_residual),
        cmocka_unit_test(the_bits_of_a_row_do_not_depend_on_how_many_there_are),
        cmocka_unit_test(kernels_are_chosen_by_type_and_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
