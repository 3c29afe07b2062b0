/* The CUDA runtime behind kernels/cuda/object.h: one device, the first that is shown (CUDA_VISIBLE_DEVICES chooses). */
#include "kernels/cuda/runtime.h"

#include <stdlib.h>

#include "kernels/cuda/launch.cuh"

struct cuda_event {
    cudaEvent_t event;
};

bool runtime_find(cuda_card *out, char *why, size_t why_size) {
    int            driver = 0, count = 0;
    cudaDeviceProp p;
    size_t         free_bytes = 0, all_bytes = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        snprintf(why, why_size, "no NVIDIA driver was found (libcuda.so.1)");
        return false;
    }
    if (driver / 1000 < CUDART_VERSION / 1000) {
        snprintf(why, why_size, "the NVIDIA driver is made for CUDA %d.%d and CUDA %d is needed; install a newer one",
                 driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000);
        return false;
    }
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
        snprintf(why, why_size, "the NVIDIA driver shows no GPU (%s)", cudaGetErrorString(status));
        return false;
    }
    status = cudaGetDeviceProperties(&p, 0);
    if (status == cudaSuccess && p.major * 10 + p.minor < CUDA_CAPABILITY_MIN) {
        snprintf(why, why_size, "%s has compute capability %d.%d and %d.%d is the least", p.name, p.major, p.minor,
                 CUDA_CAPABILITY_MIN / 10, CUDA_CAPABILITY_MIN % 10);
        return false;
    }
    if (status == cudaSuccess) status = cudaSetDevice(0);
    if (status == cudaSuccess) status = cudaMemGetInfo(&free_bytes, &all_bytes);
    if (status != cudaSuccess) {
        snprintf(why, why_size, "the GPU cannot be used: %s", cudaGetErrorString(status));
        return false;
    }
    *out = {{}, (uint32_t)(p.major * 10 + p.minor), (uint32_t)p.multiProcessorCount, all_bytes, free_bytes};
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    return true;
}

void *runtime_take(size_t bytes) {
    void *p = NULL;
    return cudaMalloc(&p, bytes ? bytes : 1) == cudaSuccess ? p : NULL;
}
void  runtime_give(void *memory) { cudaFree(memory); }
void *runtime_take_host(size_t bytes) {
    void *p = NULL;
    return cudaMallocHost(&p, bytes ? bytes : 1) == cudaSuccess ? p : NULL;
}
void runtime_give_host(void *memory) { cudaFreeHost(memory); }

cuda_queue *runtime_queue_new() {
    cuda_queue *q = (cuda_queue *)calloc(1, sizeof *q);
    if (q && cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking) == cudaSuccess) return q;
    free(q);
    return NULL;
}
void runtime_queue_free(cuda_queue *q) {
    if (!q) return;
    cudaStreamDestroy(q->stream);
    free(q);
}
void runtime_queue_says(cuda_queue *q, bool says) { q->says = says; }

bool runtime_wait(cuda_queue *q, char *why, size_t why_size) {
    const cudaError_t launched = cudaGetLastError(), done = cudaStreamSynchronize(q->stream);
    const cudaError_t status = done != cudaSuccess ? done : launched;
    if (status != cudaSuccess) snprintf(why, why_size, "%s (%s)", cudaGetErrorString(status), cudaGetErrorName(status));
    return status == cudaSuccess;
}

cuda_event *runtime_event_new() {
    cuda_event *e = (cuda_event *)calloc(1, sizeof *e);
    if (e && cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming) == cudaSuccess) return e;
    free(e);
    return NULL;
}
void runtime_event_free(cuda_event *e) {
    if (!e) return;
    cudaEventDestroy(e->event);
    free(e);
}
void runtime_event_record(cuda_queue *q, cuda_event *e) { cudaEventRecord(e->event, q->stream); }
void runtime_event_await(cuda_queue *q, cuda_event *e) { cudaStreamWaitEvent(q->stream, e->event, 0); }
bool runtime_event_passed(cuda_event *e) { return cudaEventQuery(e->event) != cudaErrorNotReady; }

bool runtime_event_wait(cuda_event *e, char *why, size_t why_size) {
    const cudaError_t status = cudaEventSynchronize(e->event);
    if (status != cudaSuccess) snprintf(why, why_size, "%s (%s)", cudaGetErrorString(status), cudaGetErrorName(status));
    return status == cudaSuccess;
}

void runtime_copy(cuda_queue *q, void *to, const void *from, size_t bytes) {
    if (bytes) cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, q->stream);
}
void runtime_copy_rows(cuda_queue *q, void *to, size_t to_stride, const void *from, size_t from_stride, size_t bytes,
                       size_t rows) {
    if (bytes && rows) cudaMemcpy2DAsync(to, to_stride, from, from_stride, bytes, rows, cudaMemcpyDefault, q->stream);
}
void runtime_zero(cuda_queue *q, void *memory, size_t bytes) {
    if (bytes) cudaMemsetAsync(memory, 0, bytes, q->stream);
}
