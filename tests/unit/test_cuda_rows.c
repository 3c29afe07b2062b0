/* Norm, embedding and activation on the GPU against their twins and double precision; and where things lie in its memory. */
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/rows.h"
#include "tests/unit/cuda_kernels.h"

static const uint32_t widths[] = {1, 15, 64, 100, 768, 1030, 2049, 5120, 16384};
enum { WIDTHS = sizeof widths / sizeof *widths, ROWS = 5 };

typedef struct {
    uint32_t width, rows;
    dtype    type;
    bool     adds, picks;
} norm_case;

/* Runs rows of x (and add) through the kernel; out: rows * width values. */
static void run_norm(const norm_case *c, float *x, const float *add, const float *weight, float *out) {
    const size_t   stride = row_bytes(DTYPE_F32, c->width), out_stride = row_bytes(c->type, c->width);
    const uint32_t picked[ROWS] = {4, 0, 1, 3, 2};
    char          *rows[2] = {take(ROWS * stride), take(ROWS * stride)}, *result = take(ROWS * out_stride);
    for (uint32_t i = 0; i < ROWS; i++)
        memcpy(rows[0] + i * stride, x + i * c->width, c->width * 4),
            memcpy(rows[1] + i * stride, add + i * c->width, c->width * 4);
    cuda_norm_args a = {.rows = c->rows,
                        .width = c->width,
                        .eps = 1e-6f,
                        .weight = gpu_copy_of(weight, c->width * 4),
                        .x = gpu_copy_of(rows[0], ROWS * stride),
                        .add = c->adds ? gpu_copy_of(rows[1], ROWS * stride) : NULL,
                        .x_row = c->picks ? gpu_copy_of(picked, sizeof picked) : NULL,
                        .out = gpu_room(ROWS * out_stride),
                        .x_stride = stride,
                        .out_stride = out_stride,
                        .out_type = c->type};
    cuda_norm(gpu_queue(), &a);
    gpu_read(rows[0], a.x, ROWS * stride), gpu_read(result, a.out, ROWS * out_stride);
    for (uint32_t i = 0; i < ROWS; i++) memcpy(x + i * c->width, rows[0] + i * stride, c->width * 4);
    for (uint32_t i = 0; i < c->rows; i++)
        for (uint32_t j = 0; j < c->width; j++) out[i * c->width + j] = load_as(c->type, result + i * out_stride, j);
    gpu_drop(a.weight), gpu_drop(a.x), gpu_drop(a.out);
    if (a.add) gpu_drop(a.add);
    if (a.x_row) gpu_drop(a.x_row);
    free(rows[0]), free(rows[1]), free(result);
}

static void check_norm(const norm_case *c) {
    static const uint32_t picked[ROWS] = {4, 0, 1, 3, 2};
    rng                   r = {c->width, 0};
    float *x = random_values(&r, DTYPE_F32, ROWS * c->width), *add = random_values(&r, DTYPE_F32, ROWS * c->width);
    float *weight = random_values(&r, DTYPE_F32, c->width), *out = take(ROWS * c->width * 4);
    float *after = take(ROWS * c->width * 4);
    memcpy(after, x, ROWS * c->width * 4);
    run_norm(c, after, add, weight, out);
    for (uint32_t i = 0; i < c->rows; i++) {
        const uint32_t row = c->picks ? picked[i] : i;
        double         sum = 0;
        for (uint32_t j = 0; j < c->width; j++) {
            float expected = x[row * c->width + j] + (c->adds ? add[row * c->width + j] : 0);
            assert_true(after[row * c->width + j] == expected);
            sum += (double)expected * (double)expected;
        }
        for (uint32_t j = 0; j < c->width; j++) {
            double expected = (double)after[row * c->width + j] / sqrt(sum / c->width + 1e-6) * (double)weight[j];
            double got = (double)out[i * c->width + j];
            assert_true(fabs(got - expected) <= (rounding_of(c->type) + 2e-6) * fabs(expected) + 1e-12);
        }
    }
    free(x), free(add), free(weight), free(out), free(after);
}

static void a_norm_adds_the_residual_and_matches_double_precision_at_any_width(void **state) {
    (void)state;
    FOR_EACH_EMULATION for (uint32_t w = 0; w < WIDTHS; w++) for (int way = 0; way < 4; way++)
        check_norm(&(norm_case){widths[w], 1 + (w + (uint32_t)way) % ROWS, way % 2 ? DTYPE_BF16 : DTYPE_F32, way >= 2,
                                (w + (uint32_t)way) % 3 == 0});
}

static void the_bits_of_a_normed_row_do_not_depend_on_the_others(void **state) {
    (void)state;
    enum { WIDTH = 1030 };
    rng    r = {5, 0};
    float *x = random_values(&r, DTYPE_F32, ROWS * WIDTH), *weight = random_values(&r, DTYPE_F32, WIDTH);
    float  all[ROWS * WIDTH], one[WIDTH];
    emulation_set((emulation_mode){3, false});
    run_norm(&(norm_case){WIDTH, ROWS, DTYPE_F32, false, false}, x, x, weight, all);
    run_norm(&(norm_case){WIDTH, 1, DTYPE_F32, false, false}, x, x, weight, one);
    assert_memory_equal(all, one, sizeof one);
    free(x), free(weight);
}

static void a_norm_is_given_threads_by_its_width_alone(void **state) {
    (void)state;
    for (uint32_t width = 1; width <= CUDA_NORM_WIDTH_MAX; width += width < 3000 ? 1 : 97) {
        cuda_norm_config c = cuda_norm_configure(7, width);
        assert_true(c.shape.threads % 32 == 0 && c.shape.threads >= 32 && c.shape.threads <= 512);
        assert_true(c.shape.threads * c.fours * 4 >= width && c.fours <= 8);
        assert_int_equal(c.shape.grid[0], 7);
        assert_int_equal(c.fours, cuda_norm_configure(1, width).fours);
        assert_int_equal(c.shape.threads, cuda_norm_configure(1, width).shape.threads);
    }
}

static void embedding_reads_rows_of_any_type_and_width(void **state) {
    (void)state;
    enum { VOCAB = 37, TOKENS = 9 };
    rng r = {6, 0};
    FOR_EACH_EMULATION for (int type = 0; type < DTYPE_COUNT; type++) for (uint32_t w = 0; w < 6; w++) {
        const uint32_t width = widths[w];
        const uint32_t pitch = w % 2 ? (width + 31) / 16 * 16 : width; /* rows apart, or end to end */
        const size_t   stride = row_bytes(DTYPE_F32, width);
        float         *table = random_values(&r, (dtype)type, VOCAB * pitch);
        uint32_t       tokens[TOKENS];
        for (int i = 0; i < TOKENS; i++) tokens[i] = (uint32_t)rng_below(&r, VOCAB);
        tokens[0] = VOCAB - 1;
        cuda_embed_args a = {.rows = TOKENS,
                             .width = width,
                             .tokens = gpu_copy_of(tokens, sizeof tokens),
                             .table = gpu_values((dtype)type, table, VOCAB * pitch),
                             .table_type = (dtype)type,
                             .out = gpu_room(TOKENS * stride),
                             .out_stride = stride,
                             .table_stride = w % 2 ? pitch * dtype_bytes((dtype)type) : 0};
        char           *out = take(TOKENS * stride);
        cuda_embed(gpu_queue(), &a);
        gpu_read(out, a.out, TOKENS * stride);
        for (uint32_t i = 0; i < TOKENS; i++) assert_memory_equal(out + i * stride, table + tokens[i] * pitch, width * 4);
        gpu_drop(a.tokens), gpu_drop(a.table), gpu_drop(a.out);
        free(table), free(out);
    }
}

static void check_activation(uint32_t width, dtype in_type, dtype out_type, bool scaled) {
    rng            r = {width, 0};
    const uint32_t in_width = gate_up_rows(width);
    const size_t   stride = row_bytes(out_type, width);
    float         *in = random_values(&r, in_type, ROWS * in_width), scale[ROWS] = {0.5f, 1, 0, 0.25f, 3};
    for (uint32_t i = 0; i < ROWS * in_width; i++) in[i] *= 8; /* exact */
    cuda_activate_args a = {.rows = ROWS,
                            .width = width,
                            .in = gpu_values(in_type, in, ROWS * in_width),
                            .in_type = in_type,
                            .out_type = out_type,
                            .scale = scaled ? gpu_copy_of(scale, sizeof scale) : NULL,
                            .out = gpu_room(ROWS * stride),
                            .in_stride = in_width * dtype_bytes(in_type),
                            .out_stride = stride};
    char              *out = take(ROWS * stride);
    cuda_activate(gpu_queue(), &a);
    gpu_read(out, a.out, ROWS * stride);
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t j = 0; j < width; j++) {
            double gate = (double)in[i * in_width + gate_up_row(0, j)], up = (double)in[i * in_width + gate_up_row(1, j)];
            double expected = gate / (1 + exp(-gate)) * up * (scaled ? (double)scale[i] : 1);
            double got = (double)load_as(out_type, out + i * stride, j);
            assert_true(fabs(got - expected) <= (rounding_of(out_type) + 1e-6) * fabs(expected) + 1e-12);
        }
    gpu_drop(a.in), gpu_drop(a.out);
    if (scaled) gpu_drop(a.scale);
    free(in), free(out);
}

static void an_activation_finds_gate_and_up_in_groups_of_eight(void **state) {
    (void)state;
    FOR_EACH_EMULATION for (uint32_t w = 0; w < 7; w++) for (int way = 0; way < 4; way++)
        check_activation(widths[w], way % 2 ? DTYPE_BF16 : DTYPE_F32, way / 2 ? DTYPE_BF16 : DTYPE_F32, way == 1);
}

/* ---- where things lie ---- */

static void every_byte_of_a_key_has_its_own_place_in_its_page(void **state) {
    (void)state;
    static const uint32_t dims[] = {16, 48, 64, 80, 96, 128, 192, 256}, tokens[] = {16, 64};
    for (size_t i = 0; i < 2 * 8 * 2; i++) {
        const dtype      type = i % 2 ? DTYPE_F32 : DTYPE_BF16;
        const uint32_t   dim = dims[i / 4], page = tokens[i / 2 % 2], bytes = dim * (uint32_t)dtype_bytes(type);
        const cuda_pages l = cuda_pages_make(type, 3, 2, dim, page);
        assert_int_equal(l.page_stride, 3 * 2 * 2 * l.head_stride);
        assert_true(l.head_stride >= page * bytes && l.head_stride % 512 == 0);
        char *seen = take(l.head_stride);
        for (uint32_t t = 0; t < page; t++)
            for (uint32_t b = 0; b < bytes; b++) {
                uint32_t at = cuda_page_offset(&l, t, b);
                assert_true(at < l.head_stride && !seen[at]++);
                assert_int_equal(at % 16, b % 16);
            }
        free(seen);
        /* the pieces that one step of ldmatrix reads, one of each of eight positions, lie in different banks */
        for (uint32_t b = 0; b < bytes; b += 16)
            for (uint32_t t = 0; t < page; t += 8) {
                uint32_t banks = 0;
                for (uint32_t j = 0; j < 8; j++) banks |= 1u << (cuda_page_offset(&l, t + j, b) / 16 % 8);
                assert_int_equal(banks, 0xFF);
            }
    }
}

static void every_weight_has_its_own_place_and_64_outputs_are_one_run(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{64, 64}, {1, 1}, {130, 100}, {96, 768}};
    for (size_t i = 0; i < 4; i++) {
        const cuda_blocks b = cuda_blocks_make(DTYPE_BF16, shapes[i][0], shapes[i][1]);
        char             *seen = take(cuda_blocks_bytes(&b));
        for (uint32_t row = 0; row < b.outputs; row++)
            for (uint32_t j = 0; j < b.k; j++) {
                size_t at = cuda_blocks_offset(&b, row, j);
                assert_true(at + 1 < cuda_blocks_bytes(&b) && !seen[at]++);
                assert_int_equal(at / ((size_t)b.blocks_along * BLOCK_BYTES), row / 64);
            }
        free(seen);
    }
    assert_int_equal(gate_up_row(0, 7), 7);
    assert_int_equal(gate_up_row(1, 0), 8);
    assert_int_equal(gate_up_row(0, 8), 16);
    assert_int_equal(gate_up_rows(9), 32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_norm_adds_the_residual_and_matches_double_precision_at_any_width),
        cmocka_unit_test(the_bits_of_a_normed_row_do_not_depend_on_the_others),
        cmocka_unit_test(a_norm_is_given_threads_by_its_width_alone),
        cmocka_unit_test(embedding_reads_rows_of_any_type_and_width),
        cmocka_unit_test(an_activation_finds_gate_and_up_in_groups_of_eight),
        cmocka_unit_test(every_byte_of_a_key_has_its_own_place_in_its_page),
        cmocka_unit_test(every_weight_has_its_own_place_and_64_outputs_are_one_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
