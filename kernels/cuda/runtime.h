/* kernels/cuda/runtime.h: those functions of the table that are CUDA's own (runtime.cu), or the emulation's (tests/cuda). */
#pragma once
#include "kernels/cuda/object.h"

bool        runtime_find(cuda_card *out, char *why, size_t why_size);
void       *runtime_take(size_t bytes);
void        runtime_give(void *memory);
void       *runtime_take_host(size_t bytes);
void        runtime_give_host(void *memory);
cuda_queue *runtime_queue_new();
void        runtime_queue_free(cuda_queue *q);
void        runtime_queue_says(cuda_queue *q, bool says);
bool        runtime_wait(cuda_queue *q, char *why, size_t why_size);
cuda_event *runtime_event_new();
void        runtime_event_free(cuda_event *e);
void        runtime_event_record(cuda_queue *q, cuda_event *e);
void        runtime_event_await(cuda_queue *q, cuda_event *e);
bool        runtime_event_passed(cuda_event *e);
bool        runtime_event_wait(cuda_event *e, char *why, size_t why_size);
void        runtime_copy(cuda_queue *q, void *to, const void *from, size_t bytes);
void        runtime_copy_rows(cuda_queue *q, void *to, size_t to_stride, const void *from, size_t from_stride, size_t bytes,
                              size_t rows);
void        runtime_zero(cuda_queue *q, void *memory, size_t bytes);
