/* kernels/cuda/blocks.h: how weights lie in device memory.
 *
 * A dense matrix [n][k] stays as checkpoints have it, a row per output: cuBLASLt wants that, and few-row kernels read it at
 * full speed, 128 bytes of each of 64 rows at a time. Expert matrices are repacked into blocks of 64 outputs by 128 bytes
 * along k (64 values of 16 bits), 8 KiB each, in the order in which a kernel streams them: [64 outputs][along k]. So 64
 * outputs of an expert over all of k are one run of memory, and a stage of a pipeline is one bulk copy of some blocks.
 * Inside a block rows are swizzled as in pages.h: what lands in shared memory is wgmma's operand, and ldmatrix reads it
 * without conflicts. Outputs and k are padded with zeros to whole blocks.
 *
 * Gate and up are one matrix, dense or expert, whose rows alternate in groups of eight: gate 0..7, up 0..7, gate 8..15, ...
 * With weights as the 16-row operand of a product a thread then holds a gate and its up in one accumulator, and the
 * activation costs no round trip. */
#pragma once
#include "kernels/cuda/pages.h"

enum { BLOCK_OUTPUTS = 64, BLOCK_BYTES = BLOCK_OUTPUTS * SLAB_BYTES, GATE_UP_GROUP = 8 };

typedef struct {
    uint32_t outputs, k, value_bytes, blocks_down, blocks_along; /* blocks_down: of outputs; blocks_along: of k */
} cuda_blocks;

BOTH cuda_blocks cuda_blocks_make(dtype type, uint32_t outputs, uint32_t k) {
    uint32_t    value_bytes = type == DTYPE_F32 ? 4 : 2, wide = SLAB_BYTES / value_bytes;
    cuda_blocks b = {outputs, k, value_bytes, (outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS, (k + wide - 1) / wide};
    return b;
}
BOTH size_t cuda_blocks_bytes(const cuda_blocks *b) { return (size_t)b->blocks_down * b->blocks_along * BLOCK_BYTES; }

/* Of value `j` of output `row`. */
BOTH size_t cuda_blocks_offset(const cuda_blocks *b, uint32_t row, uint32_t j) {
    uint32_t wide = SLAB_BYTES / b->value_bytes;
    return ((size_t)(row / BLOCK_OUTPUTS) * b->blocks_along + j / wide) * BLOCK_BYTES +
           swizzled(row % BLOCK_OUTPUTS * SLAB_BYTES + j % wide * b->value_bytes, SLAB_BYTES);
}

/* Row of the merged matrix that holds row `row` of gate (part 0) or up (part 1); and how many it has: padded to a group. */
BOTH uint32_t gate_up_row(uint32_t part, uint32_t row) {
    return (row / GATE_UP_GROUP * 2 + part) * GATE_UP_GROUP + row % GATE_UP_GROUP;
}
BOTH uint32_t gate_up_rows(uint32_t width) { return (width + GATE_UP_GROUP - 1) / GATE_UP_GROUP * GATE_UP_GROUP * 2; }
