/* kernels/cuda/cuda.h: the operators on an NVIDIA GPU, seen from C; and how a family of kernels is made.
 *
 * A family is one idea in two files: NAME.h is plain C and holds the contract (shapes, layout, alignment, what is counted),
 * NAME.cu the kernels and the functions that launch them. Everything goes three steps:
 *
 *     descriptor ────────▶ configuration ────────▶ launch
 *     cuda_NAME_args       cuda_NAME_configure     cuda_NAME(queue, args)
 *
 * The descriptor says what is to be done, with pointers into device memory. The middle step is a pure function from numbers
 * to a shape (which kernel, how many blocks, how much shared memory), so it is tested without a GPU, and it may look at what
 * a row itself needs but never at who else is in the batch where that would change the order of a sum. The launch does what
 * it is told. Operators are the contracts of kernels/NAME.h, which kernels/cpu computes as well: it is the twin that every
 * kernel is held against.
 *
 * One source, two worlds. nvcc builds a family for GPUs. The tests build the same files with the host's compiler, where
 * tests/cuda/emulation.h supplies blocks, warps, barriers, shared memory, asynchronous copies and the tensor cores' product:
 * so a family's logic is checked on any machine, under the address sanitizer, in any order of its threads. For that,
 * kernels keep to CUDA's plain words and to ops.cuh, take one struct by value, have all shared memory from SHARED, and are
 * started by launch() (launch.cuh).
 *
 * Sums have one order. Each reduction is a fixed tree or a fixed chain over a row's own elements; floats are never added by
 * atomics. nvcc runs with -fmad=false, as the C compiler with -ffp-contract=off: a multiply-add is fused where it says fmaf.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define CUDA_C extern "C"
#else
#define CUDA_C
#endif

/* For small functions that host and device share. */
#ifdef __CUDACC__
#define BOTH static inline __host__ __device__
#else
#define BOTH static inline
#endif

typedef struct {
    uint32_t grid[3], threads, shared_bytes;
} cuda_shape;

/* What an operator must do at the least, for benches: bytes of device memory read or written once, and operations. */
typedef struct {
    double bytes, flops;
} cuda_cost;

/* Work is launched into a queue and done in its order. */
typedef struct cuda_queue cuda_queue;
