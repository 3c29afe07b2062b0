/* kernels/cuda/launch.cuh: the one way a kernel is started: a kernel takes one struct by value, and a shape says the rest.
 */
#pragma once
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/ops.cuh"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <stdio.h>

struct cuda_queue {
    cudaStream_t stream;
    bool         says; /* prints what is launched (cuda_object.queue_says) */
};

enum { SHARED_WITHOUT_ASKING = 48 << 10 };

/* What a launch says when it fails is kept by the runtime until it is asked for, at the next wait (object.h). */
template <class P> static void launch(cuda_queue *q, const char *name, void (*kernel)(P), cuda_shape s, const P &p) {
    if (q->says)
        fprintf(stderr, "cuda: %s, %u x %u x %u blocks of %u threads, %u bytes of shared memory\n", name, s.grid[0],
                s.grid[1], s.grid[2], s.threads, s.shared_bytes);
    if (s.grid[0] == 0 || s.grid[1] == 0 || s.grid[2] == 0) return;
    if (s.shared_bytes > SHARED_WITHOUT_ASKING)
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)s.shared_bytes);
    kernel<<<dim3(s.grid[0], s.grid[1], s.grid[2]), s.threads, s.shared_bytes, q->stream>>>(p);
}
#endif
