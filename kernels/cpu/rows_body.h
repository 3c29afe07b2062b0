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

/* ---- for sampling: passes over a row of logits, in blocks of LOGIT_BLOCK ---- */

/* The largest of each block and of all, NaN aside; *all_finite is false if there is a NaN or an infinity. */
static float row_max(const float *x, uint32_t n, float *block_max, bool *all_finite) {
    vf    zero = vf_zero();
    float maximum = -INFINITY;
    for (uint32_t block = 0; block * LOGIT_BLOCK < n; block++) {
        vf top = vf_set1(-INFINITY);
        for (uint32_t i = block * LOGIT_BLOCK; i < n && i < (block + 1) * LOGIT_BLOCK; i += 16) {
            vf v = vf_load_n(x + i, n - i);
            zero = vf_fma(v, vf_zero(), zero);
            if (n - i < 16) v = vf_keep_range(v, 0, (int32_t)(n - i), -INFINITY);
            top = vf_max(v, top);
        }
        block_max[block] = vf_reduce_max(top);
        if (block_max[block] > maximum) maximum = block_max[block];
    }
    *all_finite = vf_reduce_add(zero) == 0;
    return maximum;
}

/* out[i] = exp((x[i] - maximum) / temperature), and the sum of each block in fixed point; returns the sum of all. */
static uint64_t row_weights(const float *x, uint32_t n, float maximum, float temperature, float *out, uint64_t *block_mass) {
    vf       top = vf_set1(maximum), t = vf_set1(temperature);
    uint64_t total = 0;
    for (uint32_t begin = 0; begin < n; begin += LOGIT_BLOCK) {
        uint32_t end = min_u32(n, begin + LOGIT_BLOCK);
        int64_t  mass = 0;
        for (uint32_t i = begin; i < end; i += 16)
            vf_store_n(out + i, vf_exp(vf_div(vf_sub(vf_load_n(x + i, end - i), top), t)), end - i);
        for (uint32_t i = begin; i < end; i++) mass += (int64_t)(out[i] * MASS_ONE);
        total += block_mass[begin / LOGIT_BLOCK] = (uint64_t)mass;
    }
    return total;
}
