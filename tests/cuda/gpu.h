/* tests/cuda/gpu.h: what a kernel test needs of a GPU, or of what stands in for one: memory, and a queue to launch into.
 * Memory is aligned to 256 bytes as the driver's is, ends exactly where asked, and begins as NaN. */
#pragma once
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif
cuda_queue *gpu_queue(void);
void       *gpu_room(size_t bytes);
void       *gpu_copy_of(const void *host, size_t bytes);
void        gpu_read(void *host, const void *gpu, size_t bytes); /* after all that was launched */
void        gpu_free(void *gpu);
#ifdef __cplusplus
}
#endif
