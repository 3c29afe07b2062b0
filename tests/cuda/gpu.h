/* tests/cuda/gpu.h: what a kernel test needs of a GPU, or of what stands in for one: memory, and a queue to launch into.
 * tests/cuda/emulation.cpp is the one of `make check`, tests/cuda/on_gpu.cu the one of `make gpu-check`.
 * Memory is aligned to 256 bytes as the driver's is, ends exactly where asked, and begins as NaN. */
#pragma once
#include "kernels/cuda/cuda.h"

enum { GPU_ABSENT = 77 }; /* the exit status of a test that found no GPU */

#ifdef __cplusplus
extern "C" {
#endif
cuda_queue *gpu_queue(void);
void       *gpu_room(size_t bytes);
void       *gpu_copy_of(const void *host, size_t bytes);
void        gpu_read(void *host, const void *gpu, size_t bytes); /* after all that was launched */
void        gpu_free(void *gpu);
bool        gpu_is_emulated(void); /* false: what only the emulation shows is skipped */
#ifdef __cplusplus
}
#endif
