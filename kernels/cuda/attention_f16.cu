/* The kernels of attention_tiles.cuh for f16: a file of its own, as each takes nvcc its time. */
#include "kernels/cuda/attention_tiles.cuh"

ATTENTION_CHOICE(f16, DTYPE_F16)
