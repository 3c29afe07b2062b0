/* kernels/cpu/rows_body.h: operators on single rows (contracts: kernels/rows.h). */
#pragma once

/* Four chains of 16 lanes, added as a tree: one order for every row. */
INLINE float sum_of_squares(const float *x, uint32_t n) {
    vf acc[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (uint32_t i = 0; i < n; i += 64)
        for (uint32_t j = 0; j < 4 && i + 16 * j < n; j++) {
            vf v = vf_load_n(x + i + 16 * j, n - i - 16 * j);
            acc[j] = vf_fma(v, v, acc[j]);
        }
    return vf_reduce_add(vf_add(vf_add(acc[0], acc[1]), vf_add(acc[2], acc[3])));
}

static void norm(const norm_args *a, uint32_t row_begin, uint32_t row_end) {
    for (uint32_t row = row_begin; row < row_end; row++) {
        const float *x = (const void *)row_of(&a->x, row);
        char        *out = row_of(&a->out, row);
        vf           scale = vf_set1(1 / sqrtf(sum_of_squares(x, a->width) / (float)a->width + a->eps));
        for (uint32_t i = 0; i < a->width; i += 16) {
            uint32_t n = a->width - i;
            vf       v = vf_mul(vf_mul(vf_load_n(x + i, n), scale), vf_load_n(a->weight + i, n));
            act_store_n(out + i * dtype_bytes(a->out_type), a->out_type, v, n);
        }
    }
}

static void softmax(float *x, uint32_t n) {
    vf top = vf_set1(-INFINITY), sum = vf_zero();
    for (uint32_t i = 0; i < n; i += 16)
        top = vf_max(vf_keep_range(vf_load_n(x + i, n - i), 0, (int32_t)(n - i), -INFINITY), top);
    vf maximum = vf_set1(vf_reduce_max(top));
    for (uint32_t i = 0; i < n; i += 16) {
        vf p = vf_keep_range(vf_exp(vf_sub(vf_load_n(x + i, n - i), maximum)), 0, (int32_t)(n - i), 0);
        sum = vf_add(sum, p);
        vf_store_n(x + i, p, n - i);
    }
    vf over = vf_set1(1 / vf_reduce_add(sum));
    for (uint32_t i = 0; i < n; i += 16) vf_store_n(x + i, vf_mul(vf_load_n(x + i, n - i), over), n - i);
}

/* ---- for sampling: passes over a row of logits ---- */

/* The largest value that is not NaN; *all_finite is false if there is a NaN or an infinity. */
static float row_max(const float *x, uint32_t n, bool *all_finite) {
    vf top = vf_set1(-INFINITY), zero = vf_zero();
    for (uint32_t i = 0; i < n; i += 16) {
        vf v = vf_keep_range(vf_load_n(x + i, n - i), 0, (int32_t)min_u32(16, n - i), x[0]);
        top = vf_max(v, top);
        zero = vf_fma(v, vf_zero(), zero);
    }
    *all_finite = vf_reduce_add(zero) == 0;
    return vf_reduce_max(top);
}

/* out[i] = exp((x[i] - maximum) / temperature) */
static void exp_weights(const float *x, uint32_t n, float maximum, float temperature, float *out) {
    vf top = vf_set1(maximum), t = vf_set1(temperature);
    for (uint32_t i = 0; i < n; i += 16) vf_store_n(out + i, vf_exp(vf_div(vf_sub(vf_load_n(x + i, n - i), top), t)), n - i);
}
