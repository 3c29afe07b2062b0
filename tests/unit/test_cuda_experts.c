/* Experts on the GPU: who is chosen and how rows are grouped against the CPU, exactly; a whole layer against double
 * precision. */
#include "kernels/cuda/experts.h"
#include "tests/unit/cuda_kernels.h"

static cpu the_cpu;
static int open_cpu(void **state) {
    (void)state;
    error       err;
    const char *isa = cpu_has_isa("avx512") ? "avx512" : cpu_has_isa("avx2") ? "avx2" : "plain";
    return cpu_open(&the_cpu, isa, 1, &err) == OK ? 0 : -1;
}
static int close_cpu(void **state) {
    (void)state;
    cpu_close(&the_cpu);
    return 0;
}

/* ---- choosing ---- */

static void check_routes(uint32_t rows, uint32_t experts, uint32_t chosen, bool renormalize, int kind) {
    rng      r = {experts * 31 + chosen, (uint64_t)kind};
    float   *logits = random_values(&r, DTYPE_F32, rows * experts);
    uint32_t n = rows * chosen;
    for (uint32_t i = 0; i < rows * experts; i++)
        logits[i] = kind == 0 ? logits[i] * 6 : kind == 1 ? (float)(int)(logits[i] * 2) : kind == 2 ? 0 : logits[i] * 200;
    route     *expected = take(n * sizeof *expected), *got = take(n * sizeof *got);
    route_args host = {rows, experts, chosen, renormalize, logits, experts, {expected, chosen * sizeof(route), NULL}};
    cpu_route(&the_cpu, &host);
    cuda_route_args a = {rows,
                         experts,
                         chosen,
                         renormalize,
                         gpu_copy_of(logits, rows * experts * 4),
                         experts * 4,
                         gpu_room(n * sizeof *got),
                         chosen * sizeof(route)};
    cuda_route(gpu_queue(), &a);
    gpu_read(got, a.out, n * sizeof *got);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(got[i].expert, expected[i].expert);
        if (cpu_has_isa("avx2")) assert_memory_equal(&got[i].weight, &expected[i].weight, 4);
        else assert_true(fabsf(got[i].weight - expected[i].weight) <= 1e-5f * expected[i].weight);
    }
    gpu_drop(a.logits), gpu_free(a.out);
    free(logits), free(expected), free(got);
}

static void the_gpu_chooses_the_experts_that_the_cpu_does_with_the_same_weights(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{8, 2}, {60, 4}, {128, 8}, {1, 1}, {5, 5}, {33, 32}, {1024, 10}};
    FOR_EACH_EMULATION for (int i = 0; i < 7; i++) for (int kind = 0; kind < 4; kind++)
        check_routes(1 + (uint32_t)(i + kind) % 6, shapes[i][0], shapes[i][1], (i + kind) % 2, kind);
}

/* ---- grouping ---- */

typedef enum { EVEN, ALL_TO_ONE, FEW_ARE_USED, ALL_THE_SAME, CROWDS } crowding;

/* Rising distinct experts for each row. */
static route *draw_routes(rng *r, uint32_t rows, uint32_t experts, uint32_t chosen, crowding how) {
    route *out = take(rows * chosen * sizeof *out);
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t left = chosen, from = how == FEW_ARE_USED && experts > 2 * chosen ? experts - 2 * chosen : 0;
        for (uint32_t e = from; e < experts && left; e++) {
            const uint32_t open = experts - e;
            bool           takes = rng_below(r, open) < left;
            if (how == ALL_TO_ONE && e == experts / 2) takes = true;
            if (how == ALL_THE_SAME) takes = true;
            if (how == CROWDS && e < chosen && i % 3) takes = true;
            if (how == ALL_TO_ONE && left == 1 && e < experts / 2) takes = false;
            if (open == left) takes = true;
            if (takes) out[i * chosen + chosen - left--] = (route){e, 0.25f + (float)rng_below(r, 64) / 128};
        }
    }
    return out;
}

static cuda_groups room_for_groups(uint32_t rows, uint32_t experts, uint32_t chosen) {
    static const cuda_group_counts none;
    return (cuda_groups){experts,
                         chosen,
                         gpu_room((experts + 1) * 4),
                         gpu_room(rows * chosen * 4),
                         gpu_room(cuda_few_tiles_max(rows, chosen, experts) * sizeof(cuda_tile)),
                         gpu_room(cuda_many_tiles_max(rows, chosen, experts) * sizeof(cuda_tile)),
                         gpu_copy_of(&none, sizeof none)};
}
static void drop_groups(const cuda_groups *g) {
    gpu_free(g->begin), gpu_free(g->entry), gpu_free(g->few), gpu_free(g->many), gpu_free(g->counts);
}

/* Tiles take each expert's entries once, in order, by the right kernel. */
static uint32_t follow_tiles(const cuda_tile *list, uint32_t count, const uint32_t *begin, bool few) {
    uint32_t entries = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t b = begin[list[i].expert], e = begin[list[i].expert + 1];
        const bool     goes_on = i > 0 && list[i].expert == list[i - 1].expert;
        assert_true((e - b <= FEW_ROWS) == few && list[i].rows > 0 && list[i].rows <= (few ? FEW_ROWS : MANY_ROWS));
        assert_int_equal(list[i].begin, goes_on ? list[i - 1].begin + MANY_ROWS : b);
        assert_true(goes_on || i == 0 || list[i].expert > list[i - 1].expert);
        assert_int_equal(list[i].rows, e - list[i].begin < MANY_ROWS ? e - list[i].begin : MANY_ROWS);
        entries += list[i].rows;
    }
    return entries;
}

static void check_groups(uint32_t rows, uint32_t experts, uint32_t chosen, crowding how) {
    rng            r = {rows * 7 + experts, how};
    const uint32_t n = rows * chosen;
    route         *routes = draw_routes(&r, rows, experts, chosen, how);
    expert_groups  expected = {take((experts + 1) * 4), take(n * 4)};
    route_args     host = {rows, experts, chosen, 0, NULL, 0, {routes, chosen * sizeof(route), NULL}};
    cpu_group_by_expert(&host, &expected);
    cuda_group_args a = {rows, gpu_copy_of(routes, n * sizeof *routes), chosen * sizeof(route),
                         room_for_groups(rows, experts, chosen)};
    cuda_group(gpu_queue(), &a);
    cuda_group(gpu_queue(), &a);
    uint32_t *begin = take((experts + 1) * 4), *entry = take(n * 4), touched = 0;
    gpu_read(begin, a.groups.begin, (experts + 1) * 4), gpu_read(entry, a.groups.entry, n * 4);
    assert_memory_equal(begin, expected.begin, (experts + 1) * 4);
    assert_memory_equal(entry, expected.entry, n * 4);
    for (uint32_t e = 0; e < experts; e++) touched += begin[e] < begin[e + 1];
    cuda_group_counts c;
    gpu_read(&c, a.groups.counts, sizeof c);
    assert_int_equal(c.touched, touched);
    assert_int_equal(c.touched_ever, 2 * touched);
    assert_true(c.few_count <= cuda_few_tiles_max(rows, chosen, experts));
    assert_true(c.many_count <= cuda_many_tiles_max(rows, chosen, experts));
    assert_int_equal(
        follow_tiles(a.groups.few, c.few_count, begin, true) + follow_tiles(a.groups.many, c.many_count, begin, false), n);
    gpu_drop(a.routes), drop_groups(&a.groups);
    free(routes), free(expected.begin), free(expected.entry), free(begin), free(entry);
}

static void rows_are_grouped_by_expert_in_their_order_as_on_the_cpu(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{1, 8, 2},     {17, 8, 2},   {150, 5, 2}, {70, 60, 4},
                                         {300, 128, 8}, {9, 1024, 1}, {33, 1, 1}};
    FOR_EACH_EMULATION for (int i = 0; i < 7; i++) for (crowding how = EVEN; how <= CROWDS; how++)
        check_groups(shapes[i][0], shapes[i][1], shapes[i][2], how);
}

static void there_is_room_for_the_tiles_of_any_crowding(void **state) {
    (void)state;
    rng r = {77, 0};
    for (int i = 0; i < 20000; i++) {
        uint32_t rows = 1 + (uint32_t)rng_below(&r, i % 2 ? 40 : 400), experts = 1 + (uint32_t)rng_below(&r, 40);
        uint32_t chosen = 1 + (uint32_t)rng_below(&r, experts), left = rows * chosen, few = 0, many = 0;
        for (uint32_t e = 0; e < experts && left; e++) {
            uint32_t most = left < rows ? left : rows,
                     least = left > (experts - e - 1) * rows ? left - (experts - e - 1) * rows : 0;
            uint32_t n = rng_below(&r, 2) ? least + (uint32_t)rng_below(&r, most - least + 1)
                         : most < 17      ? most
                         : least > 17     ? least
                                          : 17;
            left -= n, few += n > 0 && n <= FEW_ROWS, many += n > FEW_ROWS ? (n + MANY_ROWS - 1) / MANY_ROWS : 0;
        }
        assert_true(few <= cuda_few_tiles_max(rows, chosen, experts) && many <= cuda_many_tiles_max(rows, chosen, experts));
    }
}

/* ---- a layer: up, down, combined ---- */

typedef struct {
    uint32_t    rows, experts, chosen, width, hidden;
    dtype       type, activation;
    float      *up, *down, *h, *x; /* [experts][2 hidden padded][width], [experts][width][hidden], rows */
    route      *routes;
    cuda_matrix up_gpu, down_gpu;
} layer;

static cuda_matrix gpu_experts(dtype t, uint32_t experts, uint32_t outputs, uint32_t k, const float *w) {
    cuda_matrix m = cuda_matrix_make(t, true, outputs, k);
    char       *all = take(experts * m.each_bytes), *row = take(k * dtype_bytes(t));
    for (uint32_t i = 0; i < experts * outputs; i++) {
        for (uint32_t j = 0; j < k; j++) store_as(t, row, j, w[(size_t)i * k + j]);
        cuda_matrix_put_row(&m, all + i / outputs * m.each_bytes, i % outputs, row);
    }
    m.data = gpu_copy_of(all, experts * m.each_bytes);
    free(all), free(row);
    return m;
}

static layer make_layer(uint32_t rows, uint32_t experts, uint32_t chosen, uint32_t width, uint32_t hidden, dtype type,
                        crowding how) {
    rng            r = {rows + experts, hidden};
    const uint32_t outputs = gate_up_rows(hidden);
    layer l = {rows, experts, chosen, width, hidden, type, activation_of(type), NULL, NULL, NULL, NULL, NULL, {0}, {0}};
    l.up = random_values(&r, type, (size_t)experts * outputs * width);
    l.down = random_values(&r, type, (size_t)experts * width * hidden);
    l.h = random_values(&r, l.activation, rows * width), l.x = random_values(&r, DTYPE_F32, rows * width);
    l.routes = draw_routes(&r, rows, experts, chosen, how);
    l.up_gpu = gpu_experts(type, experts, outputs, width, l.up);
    l.down_gpu = gpu_experts(type, experts, width, hidden, l.down);
    return l;
}
static void drop_layer(layer *l) {
    gpu_drop(l->up_gpu.data), gpu_drop(l->down_gpu.data);
    free(l->up), free(l->down), free(l->h), free(l->x), free(l->routes);
}

static void *zeroed(size_t bytes) {
    void *host = take(bytes), *gpu = gpu_copy_of(host, bytes);
    free(host);
    return gpu;
}

/* Rows [first, first + rows) of the layer; out: x afterwards. */
static void run_layer(const layer *l, uint32_t first, uint32_t rows, float *out) {
    const size_t h_stride = row_bytes(l->activation, l->width), f_slot = row_bytes(l->activation, l->hidden);
    const size_t x_stride = row_bytes(DTYPE_F32, l->width), routes_stride = l->chosen * sizeof(route);
    char        *h = take(rows * h_stride), *x = take(rows * x_stride);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < l->width; j++) {
            store_as(l->activation, h + i * h_stride, j, l->h[(first + i) * l->width + j]);
            store_as(DTYPE_F32, x + i * x_stride, j, l->x[(first + i) * l->width + j]);
        }
    cuda_group_args   group = {rows, gpu_copy_of(l->routes + first * l->chosen, rows * routes_stride), routes_stride,
                               room_for_groups(rows, l->experts, l->chosen)};
    cuda_product_args up = {.w = l->up_gpu,
                            .rows = rows,
                            .a = gpu_copy_of(h, rows * h_stride),
                            .a_stride = h_stride,
                            .finish = PRODUCT_SILU,
                            .out = zeroed(rows * l->chosen * f_slot),
                            .out_type = l->activation,
                            .out_width = l->hidden,
                            .out_stride = l->chosen * f_slot,
                            .out_slot_stride = f_slot,
                            .groups = group.groups};
    cuda_product_args down = {.w = l->down_gpu,
                              .rows = rows,
                              .a = up.out,
                              .a_stride = up.out_stride,
                              .a_slot_stride = up.out_slot_stride,
                              .out = gpu_room(rows * l->chosen * x_stride),
                              .out_type = DTYPE_F32,
                              .out_width = l->width,
                              .out_stride = l->chosen * x_stride,
                              .out_slot_stride = x_stride,
                              .groups = group.groups};
    cuda_combine_args combine = {rows,          l->width,           l->chosen, group.routes,
                                 routes_stride, down.out,           x_stride,  gpu_copy_of(x, rows * x_stride),
                                 x_stride,      group.groups.counts};
    cuda_group(gpu_queue(), &group);
    cuda_product(gpu_queue(), &up);
    cuda_product(gpu_queue(), &down);
    cuda_combine(gpu_queue(), &combine);
    gpu_read(x, combine.x, rows * x_stride);
    for (uint32_t i = 0; i < rows; i++) memcpy(out + i * l->width, x + i * x_stride, l->width * 4);
    gpu_drop(group.routes), drop_groups(&group.groups), gpu_drop(up.a), gpu_free(up.out), gpu_free(down.out),
        gpu_free(combine.x);
    free(h), free(x);
}

/* As the kernels round it: what passes between the products is of the activation's type. */
static void reference_row(const layer *l, uint32_t row, double *out) {
    const uint32_t outputs = gate_up_rows(l->hidden);
    double        *f = take(l->hidden * sizeof *f);
    for (uint32_t c = 0; c < l->width; c++) out[c] = (double)l->x[row * l->width + c];
    for (uint32_t slot = 0; slot < l->chosen; slot++) {
        const route *r = &l->routes[row * l->chosen + slot];
        for (uint32_t j = 0; j < l->hidden; j++) {
            double sum[2] = {0, 0};
            for (uint32_t part = 0; part < 2; part++)
                for (uint32_t i = 0; i < l->width; i++)
                    sum[part] += (double)l->h[row * l->width + i] *
                                 (double)l->up[((size_t)r->expert * outputs + gate_up_row(part, j)) * l->width + i];
            f[j] = (double)as_type(l->activation, (float)(sum[0] / (1 + exp(-sum[0])) * sum[1]));
        }
        for (uint32_t c = 0; c < l->width; c++)
            for (uint32_t j = 0; j < l->hidden; j++)
                out[c] += (double)r->weight * f[j] * (double)l->down[((size_t)r->expert * l->width + c) * l->hidden + j];
    }
    free(f);
}

static void check_layer(uint32_t rows, uint32_t experts, uint32_t chosen, uint32_t width, uint32_t hidden, dtype type,
                        crowding how) {
    layer   l = make_layer(rows, experts, chosen, width, hidden, type, how);
    float  *out = take(rows * width * 4), *alone = take(width * 4);
    double *expected = take(width * sizeof *expected), error2 = 0, norm2 = 0;
    run_layer(&l, 0, rows, out);
    for (uint32_t i = 0; i < rows; i++) {
        reference_row(&l, i, expected);
        for (uint32_t c = 0; c < width; c++) {
            const double off = (double)out[i * width + c] - expected[c];
            error2 += off * off, norm2 += expected[c] * expected[c];
        }
    }
    if (!(error2 <= (type == DTYPE_BF16 ? 1e-6 : 1e-11) * norm2)) fail_msg("off by %g of %g", sqrt(error2), sqrt(norm2));
    run_layer(&l, rows / 2, 1, alone);
    assert_memory_equal(alone, out + rows / 2 * width, width * 4);
    free(out), free(alone), free(expected);
    drop_layer(&l);
}

static void a_layer_of_experts_matches_double_precision_and_no_row_knows_its_neighbours(void **state) {
    (void)state;
    FOR_EACH_EMULATION {
        const bool odd = mode_ % 2;
        check_layer(1, 8, 2, 64, 40, DTYPE_BF16, EVEN);
        check_layer(9, 8, 2, 72, 64, odd ? DTYPE_F16 : DTYPE_F32, FEW_ARE_USED);
        check_layer(17, 6, 2, 136, 24, DTYPE_BF16, odd ? ALL_TO_ONE : EVEN);
        check_layer(40, 5, 3, 64, 11, DTYPE_BF16, CROWDS);
        check_layer(70, 7, 2, 40, 16, DTYPE_BF16, odd ? ALL_THE_SAME : ALL_TO_ONE);
        check_layer(20, 3, 1, 20, 18, DTYPE_F32, ALL_TO_ONE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gpu_chooses_the_experts_that_the_cpu_does_with_the_same_weights),
        cmocka_unit_test(rows_are_grouped_by_expert_in_their_order_as_on_the_cpu),
        cmocka_unit_test(there_is_room_for_the_tiles_of_any_crowding),
        cmocka_unit_test(a_layer_of_experts_matches_double_precision_and_no_row_knows_its_neighbours),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
