/* kernels/rows.h: operators that look at one row at a time: embedding, norm, routing to experts. */
#pragma once
#include <stdint.h>

#include "kernels/matmul.h"

/* out[i, :] = x[i, :] / sqrt(mean(x^2) + eps) * weight */
typedef struct {
    uint32_t     rows, width;
    float        eps;
    const float *weight;
    rows_at      x;   /* f32 */
    rows_at      out; /* f32 or bf16 */
    dtype        out_type;
} norm_args;

/* out[i, :] = table[tokens[i], :], as f32. The table is a row-major tensor, or the panels of the output matrix it is tied
 * to. */
typedef struct {
    uint32_t        rows, width;
    const uint32_t *tokens;
    const matrix   *packed; /* or, if NULL: */
    const void     *table;
    dtype           table_type;
    rows_at         out;
} embed_args;

/* One expert chosen by a row. */
typedef struct {
    uint32_t expert;
    float    weight;
} route;

/* probabilities = softmax(logits[i, :]); the `chosen` largest (ties: the lower id), in rising order of expert so that sums
 * over experts may be taken expert by expert; weights as they are, or divided by their sum. */
typedef struct {
    uint32_t     rows, experts, chosen;
    int          renormalize;
    const float *logits;
    size_t       logits_stride; /* values */
    rows_at      out;           /* route[chosen] */
} route_args;

/* Rows grouped by expert (a counting sort): entries [begin[e], begin[e + 1]) of `entry` belong to expert e, in order of row;
 * entry = row * chosen + index in the row's list. begin has experts + 1 elements. */
typedef struct {
    uint32_t *begin, *entry;
} expert_groups;
