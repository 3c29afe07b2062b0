#include "kernels/cuda/object.h"

#include "kernels/cuda/runtime.h"

static const cuda_object object = {
    .version = CUDA_OBJECT_VERSION,
    .bytes = sizeof object,
    .find = runtime_find,
    .take = runtime_take,
    .give = runtime_give,
    .take_host = runtime_take_host,
    .give_host = runtime_give_host,
    .queue_new = runtime_queue_new,
    .queue_free = runtime_queue_free,
    .queue_says = runtime_queue_says,
    .wait = runtime_wait,
    .event_new = runtime_event_new,
    .event_free = runtime_event_free,
    .event_record = runtime_event_record,
    .event_await = runtime_event_await,
    .event_passed = runtime_event_passed,
    .copy = runtime_copy,
    .copy_rows = runtime_copy_rows,
    .zero = runtime_zero,
    .embed = cuda_embed,
    .norm = cuda_norm,
    .product = cuda_product,
    .rope = cuda_rope,
    .route = cuda_route,
    .group = cuda_group,
    .combine = cuda_combine,
    .sample = cuda_sample,
};

const cuda_object *penstock_cuda_object() { return &object; }
