/* tests/cuda/probe.h: small kernels that hold the operations of kernels/cuda/ops.cuh to their words, and one with bugs to
 * choose from. Pointers are device memory. */
#pragma once
#include "kernels/cuda/cuda.h"

typedef enum {
    BUG_NONE,
    BUG_NO_WAIT,         /* copies are read without being waited for */
    BUG_NO_BARRIER,      /* ... waited for by their own threads, but read by others */
    BUG_EARLY_COPY,      /* a stage is overwritten while some still read it */
    BUG_OTHER_LANE,      /* a sum over half a warp reads the other half */
    BUG_UNWRITTEN,       /* shared memory that nobody wrote */
    BUG_NO_SYNCWARP,     /* lanes pass values through memory as if they ran in step */
    BUG_BRANCH_BARRIER,  /* half of the block comes to another barrier */
    BUG_LEFT_EARLY,      /* one thread leaves before a barrier */
    BUG_PART_OF_MASK,    /* a shuffle without some of its lanes */
    BUG_BRANCH_SHUFFLE,  /* half a warp at one shuffle, half at another */
    BUG_UNALIGNED,       /* 16 bytes from an odd place */
    BUG_PAST_SHARED,     /* a copy to past the end */
    BUG_LEFT_IN_FLIGHT,  /* a thread ends with a copy on its way */
    BUG_MORE_THAN_ASKED, /* more shared memory than the launch gave */
    BUG_COUNT
} planted_bug;

enum { PLANTED_THREADS = 64 };
/* out[0] = the sum of in[tiles][PLANTED_THREADS][4], through a ring of two stages. */
typedef struct {
    const float *in;
    float       *out;
    uint32_t     tiles;
    int          bug;
} planted_args;
CUDA_C void probe_planted(cuda_queue *q, const planted_args *a);

/* c[16][8] += a[16][16] b[8][16]^T, rows of 16-bit values, operands by load_matrix_x4 (b two ways: as it lies, or stored
 * transposed, b[16][8 of 16], and read with _trans). */
typedef struct {
    const uint16_t *a, *b; /* [16][16] each; b: rows 8.. are ignored, or columns 8.. where transposed */
    float          *c;     /* [16][8] */
    bool            is_f16, b_transposed;
} probe_product_args;
CUDA_C void probe_product(cuda_queue *q, const probe_product_args *a);

/* Conversions of n values each (n a multiple of 32). */
typedef struct {
    const float    *in;
    const uint16_t *half;
    uint32_t        n;
    uint16_t       *bf16, *f16;             /* of in */
    uint32_t       *pairs_bf16, *pairs_f16; /* of (in[i], -in[i]) */
    float          *from_bf16, *from_f16;   /* of half */
    float          *exp2;                   /* of in */
} probe_values_args;
CUDA_C void probe_values(cuda_queue *q, const probe_values_args *a);

/* One warp; out[op][lane], ops as in test_cuda_emulation.c. */
enum { PROBE_WARP_OPS = 9 };
CUDA_C void probe_warp(cuda_queue *q, uint32_t *out);

/* Every thread of 7 blocks of 96 adds its number to a total, counts itself, and marks its place. */
typedef struct {
    uint32_t *total, *count, *largest, *marks; /* marks: [7 * 96] */
} probe_blocks_args;
CUDA_C void probe_blocks(cuda_queue *q, const probe_blocks_args *a);
