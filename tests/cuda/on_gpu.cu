/* tests/cuda/gpu.h on a real GPU: the kernels' tests link this and nvcc's objects in place of the emulation. There is one
 * way to run there, so what sets the emulation's does nothing. Without a GPU the program says so and ends with GPU_ABSENT.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/runtime.h"
#include "tests/cuda/gpu.h"

bool gpu_is_emulated() { return false; }

[[noreturn]] static void end_with(int status, const char *what, const char *why) {
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", what, why);
    _Exit(status);
}

static void wait_for_all() {
    char why[256];
    if (!runtime_wait(gpu_queue(), why, sizeof why)) end_with(EXIT_FAILURE, "a kernel failed on the GPU", why);
}

cuda_queue *gpu_queue() {
    static cuda_queue *queue = NULL;
    cuda_card          card;
    char               why[256];
    if (queue) return queue;
    if (!runtime_find(&card, why, sizeof why)) end_with(GPU_ABSENT, "there is no GPU to test on", why);
    queue = runtime_queue_new();
    if (!queue) end_with(EXIT_FAILURE, "the GPU gives no queue", "cudaStreamCreate failed");
    return queue;
}

void *gpu_room(size_t bytes) {
    cuda_queue *q = gpu_queue();
    void       *p = runtime_take(bytes);
    if (!p) end_with(EXIT_FAILURE, "the GPU has no memory for a test", "cudaMalloc failed");
    if (bytes) cudaMemsetAsync(p, 0xFF, bytes, q->stream);
    wait_for_all();
    return p;
}

void *gpu_copy_of(const void *host, size_t bytes) {
    void *p = gpu_room(bytes);
    runtime_copy(gpu_queue(), p, host, bytes);
    wait_for_all();
    return p;
}

void gpu_read(void *host, const void *gpu, size_t bytes) {
    wait_for_all();
    runtime_copy(gpu_queue(), host, gpu, bytes);
    wait_for_all();
}

void gpu_free(void *gpu) {
    wait_for_all();
    runtime_give(gpu);
}

/* ---- what tests/cuda/emulation.h declares for its own ways to run ---- */

struct emulation_mode {
    uint64_t seed;
    bool     late_copies;
};
extern "C" void        emulation_set(emulation_mode) {}
extern "C" const char *emulation_failure_of(void (*f)(void *context), void *context) {
    f(context);
    return NULL;
}
