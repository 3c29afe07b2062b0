/* kernels/cpu/bodies.h: all kernels in the vocabulary of simd.h, and the table that names them. */
#pragma once
#include "kernels/cpu/tile_body.h"
#include "kernels/cpu/matmul_body.h"
#include "kernels/cpu/attention_body.h"
#include "kernels/cpu/rows_body.h"

const cpu_kernels SIMD(cpu_kernels) = {
    .isa = SIMD_NAME,
    .matmul = {[DTYPE_F32] = matmul_f32, [DTYPE_BF16] = matmul_bf16, [DTYPE_F16] = matmul_f16},
    .matmul_mapped = {[DTYPE_F32] = mapped_f32, [DTYPE_BF16] = mapped_bf16, [DTYPE_F16] = mapped_f16},
    .attention = {[DTYPE_F32] = attention_f32, [DTYPE_BF16] = attention_bf16},
    .rope_kv = rope_kv,
    .norm = norm,
    .softmax = softmax,
    .row_max = row_max,
    .row_weights = row_weights,
    .interleave = interleave,
};
