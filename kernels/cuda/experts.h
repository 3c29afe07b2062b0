/* kernels/cuda/experts.h: which rows go to which expert, and what comes back from them.
 *
 * route gives a row its experts, by the CPU's very numbers and so with its very choices (kernels/rows.h). group sorts all
 * (row, expert) pairs by expert, stable, on the device: the host never learns who chose whom, and launches the products of
 * product.h for the most that there can be. combine adds what a row's experts made of it, in the order of its list, which
 * rises by expert: the one order of a sum that neighbours do not change. Floats are not added by atomics. */
#pragma once
#include "kernels/cuda/product.h"
#include "kernels/rows.h"

enum { CUDA_EXPERTS_MAX = 1024 };

typedef struct {
    uint32_t     rows, experts, chosen;
    bool         renormalize;
    const float *logits;
    size_t       logits_stride; /* bytes */
    route       *out;           /* [chosen] a row */
    size_t       out_stride;    /* bytes */
} cuda_route_args;
CUDA_C cuda_shape cuda_route_configure(const cuda_route_args *a);
CUDA_C void       cuda_route(cuda_queue *q, const cuda_route_args *a);

/* Fills everything that `groups` points to; *counts begins as zero. */
typedef struct {
    uint32_t     rows;
    const route *routes;
    size_t       routes_stride; /* bytes */
    cuda_groups  groups;
} cuda_group_args;
CUDA_C cuda_shape cuda_group_configure(const cuda_group_args *a);
CUDA_C void       cuda_group(cuda_queue *q, const cuda_group_args *a);

/* x[i, :] += weight[i, 0] * parts[i, 0, :], then += weight[i, 1] * parts[i, 1, :], ... */
typedef struct {
    uint32_t           rows, width, chosen;
    const route       *routes;
    size_t             routes_stride;
    const float       *parts; /* part_stride apart (bytes, a multiple of 16), `chosen` a row */
    size_t             part_stride;
    float             *x; /* 16-byte aligned rows */
    size_t             x_stride;
    cuda_group_counts *counts; /* combined_ever grows; NULL: nothing is counted */
} cuda_combine_args;
CUDA_C cuda_shape cuda_combine_configure(const cuda_combine_args *a);
CUDA_C cuda_cost  cuda_combine_cost(const cuda_combine_args *a);
CUDA_C void       cuda_combine(cuda_queue *q, const cuda_combine_args *a);
