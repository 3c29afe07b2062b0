/* The kernels of attention_tiles.cuh for bf16: a file of its own, as each takes nvcc its time. */
#include "kernels/cuda/attention_tiles.cuh"

attention_choice attention_choice_bf16(uint32_t dim, bool is_few) { return choice_of_type<DTYPE_BF16>(dim, is_few); }
