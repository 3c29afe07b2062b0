/* The table of kernels/cuda/object.h on the emulation: the GPU is this process, and a queue does everything at once. So what
 * needs an event or a wait and has none is not seen here; memory that begins as NaN and ends where asked is. */
#include <stdio.h>

#include "tests/cuda/emulation.h"

#include "kernels/cuda/runtime.h"
#include "tests/cuda/gpu.h"

struct cuda_event {
    bool passed;
};

bool runtime_find(cuda_card *out, char *, size_t) {
    *out = {{}, 90, 1, (uint64_t)1 << 32, (uint64_t)1 << 32};
    snprintf(out->name, sizeof out->name, "an emulated GPU");
    return true;
}
void       *runtime_take(size_t bytes) { return gpu_room(bytes); }
void        runtime_give(void *memory) { gpu_free(memory); }
void       *runtime_take_host(size_t bytes) { return gpu_room(bytes); }
void        runtime_give_host(void *memory) { gpu_free(memory); }
cuda_queue *runtime_queue_new() { return gpu_queue(); }
void        runtime_queue_free(cuda_queue *) {}
void        runtime_queue_says(cuda_queue *, bool) {}
bool        runtime_wait(cuda_queue *, char *, size_t) { return true; }
cuda_event *runtime_event_new() { return (cuda_event *)calloc(1, sizeof(cuda_event)); }
void        runtime_event_free(cuda_event *e) { free(e); }
void        runtime_event_record(cuda_queue *, cuda_event *e) { e->passed = true; }
void        runtime_event_await(cuda_queue *, cuda_event *) {}
bool        runtime_event_passed(cuda_event *e) { return e->passed; }
bool        runtime_event_wait(cuda_event *, char *, size_t) { return true; }
void        runtime_copy(cuda_queue *, void *to, const void *from, size_t bytes) {
           if (bytes) memcpy(to, from, bytes);
}
void runtime_copy_rows(cuda_queue *, void *to, size_t to_stride, const void *from, size_t from_stride, size_t bytes,
                       size_t rows) {
    for (size_t i = 0; i < rows; i++) memcpy((char *)to + i * to_stride, (const char *)from + i * from_stride, bytes);
}
void runtime_zero(cuda_queue *, void *memory, size_t bytes) {
    if (bytes) memset(memory, 0, bytes);
}
