/* The kernels of attention_tiles.cuh for bf16: a file of its own, as each takes nvcc its time. */
#include "kernels/cuda/attention_tiles.cuh"

ATTENTION_CHOICE(bf16, DTYPE_BF16)
